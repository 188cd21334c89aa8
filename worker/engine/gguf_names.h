/*
 * gguf_names.h - what Hugging Face's names of architectures and tensors are called in GGUF files,
 * for writing them.
 * Source: the GGUF specification and llama.cpp's tensor names.
 * Threads: pure.
 */
#ifndef FL_ENGINE_GGUF_NAMES_H
#define FL_ENGINE_GGUF_NAMES_H

#include <stdbool.h>
#include <stddef.h>

/* "LlamaForCausalLM" -> "llama"; NULL: an architecture that has no GGUF form here. */
const char *fl_gguf_architecture(const char *architecture);
/*
 * "model.layers.3.mlp.up_proj.weight" -> "blk.3.ffn_up.weight" into out (bytes long); false: no
 * such name, or it does not fit.
 */
bool fl_gguf_tensor_name(const char *name, char *out, size_t bytes);
/* GGUF's row `row` of a head of head_dim rows that are stored interleaved is this row here. */
size_t fl_gguf_interleaved_row(size_t row, size_t head_dim);

#endif

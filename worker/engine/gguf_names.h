/*
 * gguf_names.h - what a tensor that Hugging Face names is called in GGUF files, and how it lies
 * there: by the table of arch.h, for reading and for writing.
 * Source: the GGUF specification and llama.cpp's tensor names.
 * Threads: pure.
 */
#ifndef FL_ENGINE_GGUF_NAMES_H
#define FL_ENGINE_GGUF_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/engine/arch.h"

/*
 * "model.layers.3.mlp.up_proj.weight" -> "blk.3.ffn_up.weight" into out (bytes long); false: the
 * architecture has no such tensor, or it does not fit.
 */
bool fl_gguf_tensor_name(const struct fl_arch *arch, const char *name, char *out, size_t bytes);
/* The rows of this tensor, or of this linear's, are stored interleaved, head by head. */
bool fl_gguf_interleaves(const struct fl_arch *arch, const char *name);
/* GGUF's row `row` of a head of head_dim rows that are stored interleaved is this row here. */
size_t fl_gguf_interleaved_row(size_t row, size_t head_dim);

#endif

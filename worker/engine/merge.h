/*
 * merge.h - base + adapter as one model: W + s B A for each adapted linear (m / n times that with
 * DoRA, n the norms of its rows), everything else as it is, written as one safetensors or one GGUF
 * file.
 *
 * The sum is made in float32 and rounded once to the stored type. Biases and norms are copied; a
 * tied head stays tied, since no adapter of this project reaches the embedding. Weights go through
 * one panel of rows at a time, so that memory does not grow with the model.
 * Source: Hu et al., "LoRA", ICLR 2022, section 4.1; PEFT's merge_and_unload().
 * Threads: one team a call.
 */
#ifndef FL_ENGINE_MERGE_H
#define FL_ENGINE_MERGE_H

#include <stdatomic.h>

#include "adapter/adapter.h"
#include "base/status.h"
#include "format/dtype.h"
#include "format/gguf_write.h"
#include "worker/engine/model.h"

struct fl_merge {
    const struct fl_model *model;
    const struct fl_adapter *adapter; /* of the model; NULL: the base alone */
    enum fl_dtype dtype;              /* F32, F16, BF16; OTHER: each tensor's own, where it is one
                                         of these, else F16 (F32 for F64) */
    const atomic_int *stop;           /* non-zero: end with FL_ESTOPPED; may be NULL */
};

/* The type that matrices are written in: that of the first block's q_proj. */
enum fl_dtype fl_merge_dtype(const struct fl_merge *self);
/*
 * Write every tensor under its Hugging Face name (GPT-2's linears (in, out)), atomically.
 * FL_ERANGE: a value is not finite or does not fit the type.
 */
FL_CHECKED enum fl_status fl_merge_safetensors(const struct fl_merge *self, const char *path,
                                               struct fl_error *error);
/*
 * The same under GGUF's names, vectors and learned positions as F32, behind the keys that `writer`
 * holds; the tensors are added to it. FL_EUSAGE: a tensor has no name there.
 */
FL_CHECKED enum fl_status fl_merge_gguf(const struct fl_merge *self, struct fl_gguf_writer *writer,
                                        const char *path, struct fl_error *error);

#endif

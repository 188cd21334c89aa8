/*
 * nf4.h - matrices of four-bit NormalFloat values with a scale a block (QLoRA), as bitsandbytes
 * stores them: read from safetensors, made from floats, widened to float32.
 *
 * Values lie row-major; a block is `block` consecutive ones and may span rows. A value is
 * CODE[nibble] * scale, the even one of two in the high nibble, then rounded to the type that the
 * matrix had (`rounding`). Scales are float32, or quantised once more (double quantisation):
 * nested_map[code] * nested_scale + offset, a nested scale for `nested_block` scales. All steps are
 * float32, rounded one by one as bitsandbytes does them: the same bits on every vector unit.
 *
 * Made from floats the bytes are those of bitsandbytes 0.50 on an x86 CPU (of a matrix with more
 * than 32,768 scales: under one thread; with more, the last bit of its offset may differ there).
 * Sources: Dettmers et al. 2023 (QLoRA); bitsandbytes' formats and kernels.
 * Threads: immutable once read or finished; different ranges may be put at once.
 */
#ifndef FL_FORMAT_NF4_H
#define FL_FORMAT_NF4_H

#include <stdbool.h>

#include "base/status.h"
#include "format/safetensors.h"

#define FL_NF4_BLOCK        64u /* values a scale, of what is made here */
#define FL_NF4_NESTED_BLOCK 256u

struct fl_nf4 {
    uint64_t rows, columns;
    const uint8_t *packed; /* ((rows * columns + 1) / 2) */
    uint32_t block;        /* a power of two, 32 to 4096 */
    uint64_t blocks;
    const uint8_t *scales;        /* (blocks) float32 at any alignment; NULL: doubly quantised */
    const uint8_t *codes;         /* (blocks), when doubly quantised, as all below */
    const uint8_t *nested_scales; /* float32 at any alignment */
    uint32_t nested_block;        /* a power of two, 64 to 4096 */
    float nested_map[256];
    float offset;
    enum fl_dtype rounding; /* F32, F16 or BF16 */
    void *owned[3];         /* what was made here; NULL where a mapped file holds it */
};

/*
 * The matrix `name` ("model.layers.0.mlp.up_proj.weight") of an open file, where tensors beside it
 * say that it is NF4; it borrows from the file. FL_ENOTFOUND: it is not stored so. FL_EFORMAT: it
 * is, but broken, or FP4.
 */
FL_CHECKED enum fl_status fl_nf4_find(const struct fl_safetensors *file, const char *name,
                                      struct fl_nf4 *out, struct fl_error *error);

/* Values [first, first + count) as float32. */
void fl_nf4_widen(const struct fl_nf4 *self, uint64_t first, size_t count, float *out);

/*
 * Make one of (rows, columns): begin, put every value once, finish. On failure nothing is owned.
 * FL_ENOMEM.
 */
FL_CHECKED enum fl_status fl_nf4_begin(struct fl_nf4 *self, uint64_t rows, uint64_t columns,
                                       enum fl_dtype rounding, struct fl_error *error);
/*
 * Values [first, first + count): first is a multiple of the block, and so is count unless they are
 * the last. FL_EFORMAT: one is not finite.
 */
FL_CHECKED enum fl_status fl_nf4_put(struct fl_nf4 *self, uint64_t first, const float *values,
                                     size_t count, struct fl_error *error);
/* Quantise the scales too. FL_ENOMEM. */
FL_CHECKED enum fl_status fl_nf4_finish(struct fl_nf4 *self, struct fl_error *error);
/* Release what was made; also after a failure, or of a matrix that a file holds. */
void fl_nf4_free(struct fl_nf4 *self);

/* Memory that it takes, in a file or here. */
uint64_t fl_nf4_bytes(const struct fl_nf4 *self);

#endif

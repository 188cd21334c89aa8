/*
 * dtype.h - element types of stored tensors, and their widening to float32.
 *
 * Plain types hold one value each; quantised types (GGUF) hold blocks of 32 values, or
 * super-blocks of 256 (Q4_K, Q5_K, Q6_K). Widening follows the format's own float32 steps (scales
 * multiplied first, then the values), bit for bit as the gguf package does it.
 * Paths for AVX2 and AVX-512 are chosen at run time and give the same bits as the scalar reference,
 * which FL_KERNELS=scalar in the environment forces.
 * Sources: IEEE 754 (binary16), bfloat16, GGUF's block layouts.
 * Threads: pure functions; the choice is made once, by whichever call is first.
 */
#ifndef FL_FORMAT_DTYPE_H
#define FL_FORMAT_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fl_dtype {
    FL_DTYPE_F32,
    FL_DTYPE_F16,
    FL_DTYPE_BF16,
    FL_DTYPE_F64,
    FL_DTYPE_Q8_0,  /* 32 values in 34 bytes: f16 d, 32 i8; d q */
    FL_DTYPE_Q4_0,  /* 32 values in 18 bytes: f16 d, 16 bytes of nibbles; d (q - 8) */
    FL_DTYPE_Q4_1,  /* 32 values in 20 bytes: f16 d, f16 m, 16 bytes; d q + m */
    FL_DTYPE_Q5_0,  /* 32 values in 22 bytes: f16 d, 32 fifth bits, nibbles; d (q - 16) */
    FL_DTYPE_Q5_1,  /* 32 values in 24 bytes: f16 d, f16 m, 32 fifth bits, nibbles; d q + m */
    FL_DTYPE_Q4_K,  /* 256 values in 144 bytes: 8 sub-blocks, d s q - dmin m */
    FL_DTYPE_Q5_K,  /* 256 values in 176 bytes: as Q4_K with fifth bits */
    FL_DTYPE_Q6_K,  /* 256 values in 210 bytes: 16 sub-blocks, d s (q - 32) */
    FL_DTYPE_NF4,   /* a matrix with tables of its own: nf4.h, not fl_dtype_widen() */
    FL_DTYPE_OTHER, /* known to a file format, of no use here (integers, booleans, ...) */
    FL_DTYPE_COUNT
};

#define FL_TENSOR_RANK_MAX 8

/* A tensor as it lies in a mapped file; borrowed from the open file. */
struct fl_tensor_view {
    const char *name;
    enum fl_dtype dtype;
    uint32_t rank;                      /* dimensions */
    uint64_t shape[FL_TENSOR_RANK_MAX]; /* row-major: the last one is contiguous */
    const uint8_t *data;                /* at any alignment */
    size_t bytes;
};

/* "F32", "Q4_1", ...; "other" */
const char *fl_dtype_name(enum fl_dtype dtype);
/* Can fl_dtype_widen() read it? */
bool fl_dtype_is_float(enum fl_dtype dtype);
/* values in one block (1 for plain types) and its bytes */
size_t fl_dtype_block_values(enum fl_dtype dtype);
size_t fl_dtype_block_bytes(enum fl_dtype dtype);
/* Bytes of a row of columns values; columns is a multiple of the block. */
size_t fl_dtype_row_bytes(enum fl_dtype dtype, size_t columns);

/*
 * count values from src (any alignment) into out; count is a multiple of the block. dtype is one
 * that fl_dtype_is_float() accepts.
 */
void fl_dtype_widen(enum fl_dtype dtype, const void *src, size_t count, float *out);

float fl_f16_to_f32(uint16_t half);
/* Round to nearest, ties to even; overflow gives infinity. */
uint16_t fl_f32_to_f16(float value);
uint16_t fl_f32_to_bf16(float value);

#endif

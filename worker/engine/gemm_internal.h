/*
 * gemm_internal.h - what the files of gemm.h's kernels show each other.
 */
#ifndef FL_ENGINE_GEMM_INTERNAL_H
#define FL_ENGINE_GEMM_INTERNAL_H

#include "format/dtype.h"
#include "worker/engine/gemm.h"

/* All but fl_gemm_amx_allowed() only where the processor has the instructions. */
extern const struct fl_gemm_kernel fl_gemm_avx512, fl_gemm_avx2;
extern const struct fl_gemm_kernel fl_gemm_bf16_tiles, fl_gemm_amx_tiles;
extern const struct fl_gemm_bf16 fl_gemm_avx512_bf16, fl_gemm_amx_bf16;

/* The processor has AMX with bfloat16 and the system lets this process and its later threads use it
 * (Linux wants to be asked: 8 KB of registers a thread). */
bool fl_gemm_amx_allowed(void);
/* fl_gemm_kernel.strip of the AMX kernel; alpha is 1 and cs is 1. */
void fl_gemm_amx_strip(const struct fl_gemm_strip *s);
/* fl_gemm_bf16.widen */
bool fl_panel_widen_pairs(enum fl_dtype dtype, const uint8_t *src, size_t count, float *out);

#endif

/* gemm_avx512.c - gemm_kernel.h for AVX-512: 24 of 32 registers hold sums. */
#define FL_GEMM_LANES   16
#define FL_GEMM_ROWS    8
#define FL_GEMM_VECTORS 3
#define FL_GEMM_NAME    fl_gemm_avx512
#define FL_GEMM_TEXT    "avx512"
#include "worker/engine/gemm_kernel.h"

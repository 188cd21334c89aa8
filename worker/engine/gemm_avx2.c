/* gemm_avx2.c - gemm_kernel.h for AVX2 with FMA: 12 of 16 registers hold sums. */
#define FL_GEMM_LANES   8
#define FL_GEMM_ROWS    6
#define FL_GEMM_VECTORS 2
#define FL_GEMM_NAME    fl_gemm_avx2
#define FL_GEMM_TEXT    "avx2"
#include "worker/engine/gemm_kernel.h"

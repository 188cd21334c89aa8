/* forced.h - a suite that runs once more with FL_GEMM is skipped where that kernel cannot run. */
#ifndef FL_TESTS_ENGINE_FORCED_H
#define FL_TESTS_ENGINE_FORCED_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/engine/gemm.h"

enum { FL_TEST_SKIPPED = 77 };

/* FL_GEMM names a kernel that this processor does not have; says so. */
static inline bool forced_kernel_is_missing(void)
{
    const char *wanted = getenv("FL_GEMM");
    if (!wanted || !*wanted || strcmp(wanted, fl_gemm_name(false)) == 0 ||
        (fl_gemm_bf16() && strcmp(wanted, fl_gemm_name(true)) == 0))
        return false;
    printf("skipped: no %s here\n", wanted);
    return true;
}

#endif

/*
 * narrow.h - float32 rows as a plain stored type, the way back from fl_dtype_widen().
 * Threads: pure.
 */
#ifndef FL_FORMAT_NARROW_H
#define FL_FORMAT_NARROW_H

#include <stdbool.h>
#include <stddef.h>

#include "format/dtype.h"

/*
 * count values as dtype (F32, F16 or BF16; rounded to nearest, ties to even), little-endian, into
 * out. false: a value is NaN or infinite, or became so (beyond 65504 for F16); out is then not to
 * be used.
 */
bool fl_narrow(enum fl_dtype dtype, const float *values, size_t count, void *out);

/* "f32", "f16", "bf16"; FL_DTYPE_OTHER: none of them. */
enum fl_dtype fl_narrow_parse(const char *text);

#endif

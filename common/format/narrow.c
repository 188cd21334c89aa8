/* narrow.c - see narrow.h. */
#include "format/narrow.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

bool fl_narrow(enum fl_dtype dtype, const float *values, size_t count, void *out)
{
    uint8_t *bytes = out;
    bool finite = true;
    for (size_t i = 0; i < count; i++) {
        uint16_t half = dtype == FL_DTYPE_F16 ? fl_f32_to_f16(values[i])
                                              : fl_f32_to_bf16(values[i]);
        /* an exponent of ones alone */
        const uint16_t all_ones = dtype == FL_DTYPE_F16 ? 0x7C00 : 0x7F80;
        finite = finite && isfinite(values[i]);
        if (dtype == FL_DTYPE_F32) {
            memcpy(bytes + 4 * i, &values[i], 4);
            continue;
        }
        finite = finite && (half & all_ones) != all_ones;
        memcpy(bytes + 2 * i, &half, 2);
    }
    return finite;
}

enum fl_dtype fl_narrow_parse(const char *text)
{
    static const struct {
        const char *name;
        enum fl_dtype dtype;
    } types[] = {{"f32", FL_DTYPE_F32}, {"f16", FL_DTYPE_F16}, {"bf16", FL_DTYPE_BF16}};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(text, types[i].name) == 0)
            return types[i].dtype;
    }
    return FL_DTYPE_OTHER;
}

/* lowercase.c - see lowercase.h. */
#include "worker/lowercase.h"

#include "worker/data/unicode.h"

uint32_t fl_lowercase(uint32_t code_point)
{
    size_t low = 0, high = fl_lowercase_run_count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        const struct fl_lowercase_run *run = &fl_lowercase_runs[middle];
        if (code_point < run->first)
            high = middle;
        else if (code_point > run->last)
            low = middle + 1;
        else if ((code_point - run->first) % run->step)
            return code_point;
        else
            return (uint32_t)((int64_t)code_point + run->distance);
    }
    return code_point;
}

void fl_lowercase_append(struct fl_buf *out, const char *text, size_t length)
{
    char bytes[4];
    for (size_t at = 0, used; at < length; at += used) {
        const uint32_t c = fl_utf8_next(text + at, length - at, &used);
        const uint32_t lower = c == FL_UTF8_INVALID ? c : fl_lowercase(c);
        if (c == 0x130) /* the only character whose lower case is two: i and a dot above */
            fl_buf_append(out, "i\xCC\x87", 3);
        else if (lower == c)
            fl_buf_append(out, text + at, used);
        else
            fl_buf_append(out, bytes, fl_utf8_put(lower, bytes));
    }
}

/* schedule.c - see schedule.h. */
#include "worker/engine/schedule.h"

#include <math.h>
#include <string.h>

static const double PI = 3.14159265358979323846;

double fl_schedule_factor(enum fl_schedule kind, uint64_t step, uint64_t warmup, uint64_t total)
{
    if (step < warmup)
        return (double)step / (double)warmup;
    if (kind == FL_SCHEDULE_CONSTANT)
        return 1.0;
    const double span = total > warmup ? (double)(total - warmup) : 1.0;
    double left;
    if (kind == FL_SCHEDULE_LINEAR)
        left = ((double)total - (double)step) / span;
    else
        left = 0.5 * (1.0 + cos(PI * (double)(step - warmup) / span));
    return left > 0.0 ? left : 0.0;
}

enum fl_status fl_schedule_parse(const char *text, enum fl_schedule *out)
{
    static const char *const NAMES[] = {"constant", "linear", "cosine"};
    for (unsigned i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        if (strcmp(text, NAMES[i]) == 0) {
            *out = (enum fl_schedule)i;
            return FL_OK;
        }
    }
    return FL_EINVAL;
}

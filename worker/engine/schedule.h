/*
 * schedule.h - the learning-rate factor of a step, exactly as transformers'
 * get_constant_schedule_with_warmup, get_linear_schedule_with_warmup and
 * get_cosine_schedule_with_warmup (half a cosine, to 0).
 *
 * step s = 0 .. total - 1, warmup w:
 *   s < w:    s / max(1, w)             (so the first step of a warmup has factor 0)
 *   constant: 1
 *   linear:   max(0, (total - s) / max(1, total - w))
 *   cosine:   max(0, (1 + cos(pi (s - w) / max(1, total - w))) / 2)
 * Threads: pure.
 */
#ifndef FL_ENGINE_SCHEDULE_H
#define FL_ENGINE_SCHEDULE_H

#include <stdint.h>

#include "base/status.h"

enum fl_schedule { FL_SCHEDULE_CONSTANT, FL_SCHEDULE_LINEAR, FL_SCHEDULE_COSINE };

double fl_schedule_factor(enum fl_schedule kind, uint64_t step, uint64_t warmup, uint64_t total);

/* "constant", "linear", "cosine"; FL_EINVAL: anything else. */
FL_CHECKED enum fl_status fl_schedule_parse(const char *text, enum fl_schedule *out);

#endif

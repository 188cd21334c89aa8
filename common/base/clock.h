/*
 * clock.h - the clock seam (fl_clock): monotonic milliseconds for every timer, and wall time for
 * invitations and log stamps only. Production uses fl_clock_system(); tests bring their own.
 */
#ifndef FL_BASE_CLOCK_H
#define FL_BASE_CLOCK_H

#include <stdint.h>

struct fl_clock {
    int64_t (*now_ms)(void *context);  /* monotonic, from an arbitrary origin */
    int64_t (*wall_ms)(void *context); /* since 1970, UTC; may jump */
    void *context;
};

/* CLOCK_MONOTONIC and CLOCK_REALTIME. A constant; any thread. */
const struct fl_clock *fl_clock_system(void);

static inline int64_t fl_clock_now(const struct fl_clock *clock)
{
    return clock->now_ms(clock->context);
}

static inline int64_t fl_clock_wall(const struct fl_clock *clock)
{
    return clock->wall_ms(clock->context);
}

/* seconds since an arbitrary origin, for measuring durations (training speed) */
double fl_clock_seconds(void);

#define FL_TIME_TEXT_BYTES 32

/* "2026-03-01T12:34:56.789Z" (RFC 3339, UTC) of wall-clock milliseconds since 1970. */
void fl_time_text(int64_t wall_ms, char out[FL_TIME_TEXT_BYTES]);

#endif

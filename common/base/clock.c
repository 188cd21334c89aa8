/* clock.c - see clock.h. */
#include "base/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t milliseconds(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t); /* cannot fail for these two clocks */
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int64_t system_now(void *context)
{
    (void)context;
    return milliseconds(CLOCK_MONOTONIC);
}

static int64_t system_wall(void *context)
{
    (void)context;
    return milliseconds(CLOCK_REALTIME);
}

const struct fl_clock *fl_clock_system(void)
{
    static const struct fl_clock clock = {system_now, system_wall, NULL};
    return &clock;
}

double fl_clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void fl_time_text(int64_t wall_ms, char out[FL_TIME_TEXT_BYTES])
{
    int64_t seconds = wall_ms / 1000, rest = wall_ms % 1000;
    if (rest < 0) {
        rest += 1000;
        seconds--;
    }
    time_t when = (time_t)seconds;
    struct tm utc;
    if (!gmtime_r(&when, &utc)) { /* a year that does not fit an int */
        snprintf(out, FL_TIME_TEXT_BYTES, "1970-01-01T00:00:00.000Z");
        return;
    }
    char second[24];
    if (strftime(second, sizeof(second), "%Y-%m-%dT%H:%M:%S", &utc) == 0)
        snprintf(second, sizeof(second), "1970-01-01T00:00:00");
    snprintf(out, FL_TIME_TEXT_BYTES, "%s.%03dZ", second, (int)rest);
}

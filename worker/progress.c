/* progress.c - see progress.h. */
#include "worker/progress.h"

#include <stdio.h>

#include "base/cli.h"
#include "base/clock.h"

#define PLAIN_SECONDS    0.5
#define TERMINAL_SECONDS 0.1

void fl_progress_start(struct fl_progress *self, const char *label, uint64_t total)
{
    *self = (struct fl_progress){.total = total, .terminal = fl_cli_is_terminal()};
    (void)snprintf(self->label, sizeof self->label, "%s", label);
    self->shown = fl_clock_seconds() - 2 * PLAIN_SECONDS;
}

void fl_progress_duration(double seconds, char out[24])
{
    if (!(seconds >= 0) || seconds > 1e9) {
        (void)snprintf(out, 24, "?");
        return;
    }
    unsigned long whole = (unsigned long)(seconds + 0.5);
    if (whole >= 3600) {
        (void)snprintf(out, 24, "%lu:%02lu:%02lu", whole / 3600, whole / 60 % 60, whole % 60);
    } else {
        (void)snprintf(out, 24, "%lu:%02lu", whole / 60, whole % 60);
    }
}

void fl_progress_step(struct fl_progress *self, uint64_t step, double loss, uint64_t tokens,
                      double seconds)
{
    self->done = step;
    self->tokens += tokens;
    self->seconds += seconds;
    double now = fl_clock_seconds();
    double pause = self->terminal ? TERMINAL_SECONDS : PLAIN_SECONDS;
    if (now - self->shown < pause && step != 1 && step != self->total) {
        return;
    }
    self->shown = now;
    char left[24];
    double each = step ? self->seconds / (double)step : 0;
    fl_progress_duration(each * (double)(self->total - step), left);
    fprintf(stderr, "%s%s %llu/%llu  loss %.4f  %.0f tokens/s  ETA %s%s",
            self->terminal ? "\r\x1b[K" : "", self->label, (unsigned long long)step,
            (unsigned long long)self->total, loss,
            self->seconds > 0 ? (double)self->tokens / self->seconds : 0.0, left,
            self->terminal ? "" : "\n");
    fflush(stderr);
    self->open = self->terminal;
}

void fl_progress_end(struct fl_progress *self)
{
    if (self->open) {
        fprintf(stderr, "\n");
        self->open = false;
    }
}

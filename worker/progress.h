/*
 * progress.h - the progress of training for a person: one line redrawn in place on a terminal;
 * elsewhere plain lines, at most two a second, the first and the last always.
 *
 * Threads: one thread a struct; a line is written at once.
 */
#ifndef FL_WORKER_PROGRESS_H
#define FL_WORKER_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct fl_progress {
    char label[64]; /* "step", "round 2/4 step" */
    uint64_t total; /* steps */
    uint64_t done;
    uint64_t tokens; /* processed so far */
    double seconds;  /* of the steps so far */
    double shown;    /* when a line was last written, by fl_clock_seconds() */
    bool terminal;
    bool open; /* a redrawn line stands on the terminal */
};

void fl_progress_start(struct fl_progress *self, const char *label, uint64_t total);
/* After step `step` (1..total), which took `seconds` over `tokens` tokens. */
void fl_progress_step(struct fl_progress *self, uint64_t step, double loss, uint64_t tokens,
                      double seconds);
/* Leave the redrawn line standing and go to the next one. */
void fl_progress_end(struct fl_progress *self);

/* "1:02:03" or "2:03"; out has 24 bytes. */
void fl_progress_duration(double seconds, char out[24]);

#endif

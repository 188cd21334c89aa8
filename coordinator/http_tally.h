/*
 * http_tally.h - what the loop counts for monitors, from the start of the process.
 * Threads: the loop's; a copy goes into each view.
 */
#ifndef FL_COORDINATOR_HTTP_TALLY_H
#define FL_COORDINATOR_HTTP_TALLY_H

#include <stdint.h>

#include "coordinator/round.h"

enum fl_tally_result { /* how an attempt at a round, or with it the job, ended */
                       FL_TALLY_COMMITTED,
                       FL_TALLY_EVALUATED, /* the evaluation behind the last round */
                       FL_TALLY_RETRIED,   /* broken, and tried again */
                       FL_TALLY_PAUSED,
                       FL_TALLY_FAILED,
                       FL_TALLY_CANCELLED,
                       FL_TALLY_RESULT_COUNT
};

struct fl_tally {
    uint64_t rounds[FL_TALLY_RESULT_COUNT];
    struct fl_tally_phase {
        double seconds; /* of those that have ended */
        uint64_t times;
    } phases[FL_ROUND_STATE_COUNT];
    int64_t phase_ms; /* when the present one began; 0: none */
    /* frames of sessions; sealed updates that were accepted */
    uint64_t received_bytes, sent_bytes, updates, update_bytes;
    uint64_t joins, refused_joins, refusals;
};

const char *fl_tally_result_name(enum fl_tally_result result);
/* The round went from one value to the next with these effects (bits of enum fl_effect). */
void fl_tally_step(struct fl_tally *self, const struct fl_round *before,
                   const struct fl_round *after, uint32_t effects, int64_t now_ms);

#endif

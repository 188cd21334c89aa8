/* http_tally.c - see http_tally.h. */
#include "coordinator/http_tally.h"

const char *fl_tally_result_name(enum fl_tally_result result)
{
    static const char *const names[FL_TALLY_RESULT_COUNT] = {"committed", "evaluated", "retried",
                                                             "paused",    "failed",    "cancelled"};
    return names[result];
}

static void end_phase(struct fl_tally *self, enum fl_round_state phase, int64_t now_ms)
{
    if (self->phase_ms != 0) {
        self->phases[phase].seconds += (double)(now_ms - self->phase_ms) / 1000.0;
        self->phases[phase].times++;
    }
    self->phase_ms = now_ms;
}

void fl_tally_step(struct fl_tally *self, const struct fl_round *before,
                   const struct fl_round *after, uint32_t effects, int64_t now_ms)
{
    if (before->state != after->state)
        end_phase(self, before->state, now_ms);
    if (effects & FL_EFFECT_NEXT)
        self->rounds[fl_round_only_evaluates(before) ? FL_TALLY_EVALUATED : FL_TALLY_COMMITTED]++;
    else if (effects & FL_EFFECT_END && after->state == FL_ROUND_PAUSED)
        self->rounds[FL_TALLY_PAUSED]++;
    else if (effects & FL_EFFECT_END && after->state == FL_ROUND_FAILED)
        self->rounds[FL_TALLY_FAILED]++;
    else if (effects & FL_EFFECT_END && after->state == FL_ROUND_IDLE)
        self->rounds[FL_TALLY_CANCELLED]++;
    else if (effects & FL_EFFECT_ABANDON)
        self->rounds[FL_TALLY_RETRIED]++;
    if (effects & FL_EFFECT_END)
        self->phase_ms = 0;
}

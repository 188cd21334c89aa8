/* round_left_out.c - who is left out of the attempts that a round still makes; see round.h. */
#include "coordinator/round_internal.h"

uint32_t fl_round_shun(struct fl_round *self)
{
    uint32_t effects = 0;
    bool enough = fl_round_pledged(self) == 0 && /* a pledge binds to all of its sites */
                  count_members(self, is_willing) >= self->rules.min_workers;
    for (uint32_t i = 0; i < self->count; i++) {
        struct fl_member *m = &self->members[i];
        if (m->shunned && !enough)
            effects = FL_EFFECT_SEND_ALL;
        m->shunned = m->left_out && enough;
    }
    return effects;
}

void fl_round_leave_out(struct fl_round *self, const struct fl_round_input *input)
{
    for (uint32_t i = 0; i < input->leave_out_count; i++) {
        struct fl_member *m = fl_round_member(self, input->leave_out[i]);
        if (m)
            m->left_out = true;
    }
}

/* Has it done what the stage waits for? */
static bool did_its_part(const struct fl_round *self, const struct fl_member *m)
{
    const bool done[FL_ROUND_STATE_COUNT] = {[FL_ROUND_TRAIN] = m->trained,
                                             [FL_ROUND_KEYS] = m->advertised,
                                             [FL_ROUND_SHARES] = m->shared,
                                             [FL_ROUND_COLLECT] = m->uploaded,
                                             [FL_ROUND_UNMASK] = m->answered};
    return done[self->state];
}

void fl_round_leave_out_late(struct fl_round *self)
{
    if (self->state < FL_ROUND_TRAIN || self->state > FL_ROUND_UNMASK)
        return;
    for (uint32_t i = 0; i < self->count; i++) {
        struct fl_member *m = &self->members[i];
        m->left_out = m->left_out || (m->cohort && !did_its_part(self, m));
    }
}

void fl_round_forgive(struct fl_round *self)
{
    for (uint32_t i = 0; i < self->count; i++)
        self->members[i].left_out = self->members[i].shunned = false;
}

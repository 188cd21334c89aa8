/* round_left_out.c - who is left out of the attempts that a round still makes; see round.h. */
#include "coordinator/round_internal.h"

/* ---- who is not asked ---- */

static uint32_t badness(const struct fl_member *m)
{
    return m->left_out ? UINT32_MAX : m->apart;
}

static uint32_t willing_up_to(const struct fl_round *self, uint32_t level)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < self->count; i++)
        n += is_willing(&self->members[i]) && badness(&self->members[i]) <= level;
    return n;
}

/* The least badness of anybody above that; UINT32_MAX: there is nobody, or only who is left out. */
static uint32_t next_level(const struct fl_round *self, uint32_t level)
{
    uint32_t next = UINT32_MAX;
    for (uint32_t i = 0; i < self->count; i++) {
        uint32_t bad = badness(&self->members[i]);
        next = bad > level && bad < next ? bad : next;
    }
    return next;
}

uint32_t fl_round_shun(struct fl_round *self)
{
    uint32_t effects = 0;
    uint32_t level = fl_round_pledged(self) > 0 ? UINT32_MAX : 0; /* a pledge binds to all of it */
    while (level < UINT32_MAX && willing_up_to(self, level) < self->rules.min_workers)
        level = next_level(self, level);
    for (uint32_t i = 0; i < self->count; i++) {
        struct fl_member *m = &self->members[i];
        bool was = m->shunned;
        m->shunned = badness(m) > level;
        if (was && !m->shunned)
            effects = FL_EFFECT_SEND_ALL;
    }
    return effects;
}

/* ---- failed sums ---- */

void fl_round_suspect(struct fl_round *self)
{
    for (uint32_t i = 0; i < self->count; i++)
        self->members[i].failed_sums += is_uploaded(&self->members[i]);
}

void fl_round_clear(struct fl_round *self)
{
    for (uint32_t i = 0; i < self->count; i++) {
        if (is_uploaded(&self->members[i]))
            self->members[i].failed_sums = 0;
    }
}

static uint32_t most_failed(const struct fl_round *self)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < self->count; i++)
        most = self->members[i].failed_sums > most ? self->members[i].failed_sums : most;
    return most;
}

/* Another order of sites each time, so that two that spoil sums do not stay in one half. */
static uint64_t draw(const struct fl_round *self, uint32_t site)
{
    uint64_t z = ((uint64_t)site << 32 | (self->round << 8) | self->retraining) *
                 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void fl_round_set_apart(struct fl_round *self)
{
    uint32_t most = most_failed(self), suspects = 0;
    for (uint32_t i = 0; i < self->count; i++) {
        self->members[i].apart = 0;
        suspects += most > 0 && self->members[i].failed_sums == most;
    }
    for (uint32_t i = 0; i < self->count && suspects > 0; i++) {
        struct fl_member *m = &self->members[i];
        uint32_t place = 0;
        if (m->failed_sums != most)
            continue;
        for (uint32_t k = 0; k < self->count; k++)
            place += self->members[k].failed_sums == most &&
                     draw(self, self->members[k].site) < draw(self, m->site);
        if (place >= suspects / 2)
            m->apart = 2 + place;
        else
            m->apart = self->retraining > 0 ? 1 : 0;
    }
}

/* ---- who spoiled an attempt ---- */

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

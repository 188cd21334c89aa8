/* round_walk.h - a round of some sites and how to bring it to a state, for the tests of rounds. */
#ifndef FL_TEST_ROUND_WALK_H
#define FL_TEST_ROUND_WALK_H

#include "coordinator/round.h"

#include <stdlib.h>
#include <string.h>

#include "runner.h"

#define SITES 4

static const struct fl_round_rules rules = {.rounds = 2,
                                            .min_workers = 3,
                                            .select_timeout_ms = 60000,
                                            .round_timeout_ms = 1800000,
                                            .liveness_timeout_ms = 30000,
                                            .wait_timeout_ms = 604800000,
                                            .final_round = true};
static struct fl_round *round_;
static int64_t now;

static inline void setup(void)
{
    round_ = calloc(1, sizeof *round_);
    ck_assert_ptr_nonnull(round_);
    fl_round_init(round_, &rules);
    now = 1000;
}

static inline void teardown(void)
{
    free(round_);
}

static inline uint32_t happen(enum fl_round_event event, uint32_t site)
{
    const struct fl_round_input input = {.event = event, .site = site};
    return fl_round_step(round_, &input, now);
}

static inline void all(enum fl_round_event event, uint32_t count)
{
    for (uint32_t site = 1; site <= count; site++)
        (void)happen(event, site);
}

static inline void tick(void)
{
    (void)happen(FL_EVENT_TICK, 0);
}

/* Bring SITES sites into TRAIN. */
static inline void to_train(uint32_t count)
{
    if (round_->state == FL_ROUND_IDLE)
        (void)happen(FL_EVENT_START, 0);
    all(FL_EVENT_ONLINE, count);
    tick();
    all(FL_EVENT_FIT, count);
    ck_assert_int_eq(round_->state, FL_ROUND_CONFIGURE);
    (void)happen(FL_EVENT_CONFIGURED, 0);
    ck_assert_int_eq(round_->state, FL_ROUND_TRAIN);
}

static inline void to_collect(uint32_t count)
{
    to_train(count);
    all(FL_EVENT_TRAINED, count);
    ck_assert_int_eq(round_->state, FL_ROUND_COLLECT);
}

#endif

/* Tests of what is counted of rounds. */
#include "coordinator/http_tally.h"

#include <stdlib.h>

#include "runner.h"

static struct fl_tally tally;
static struct fl_round *before, *after;

static void setup(void)
{
    const struct fl_round_rules rules = {.min_workers = 3, .rounds = 2};
    before = calloc(1, sizeof *before);
    after = calloc(1, sizeof *after);
    ck_assert(before && after);
    fl_round_init(before, &rules);
    fl_round_init(after, &rules);
}

static void teardown(void)
{
    free(before);
    free(after);
}

static void step(enum fl_round_state from, enum fl_round_state to, uint32_t effects, int64_t now_ms)
{
    before->state = from;
    after->state = to;
    fl_tally_step(&tally, before, after, effects, now_ms);
}

START_TEST(phases_are_counted_with_their_seconds)
{
    tally.phase_ms = 1000;
    step(FL_ROUND_SELECT, FL_ROUND_SELECT, FL_EFFECT_PERSIST, 1500);
    ck_assert_uint_eq(tally.phases[FL_ROUND_SELECT].times, 0);
    step(FL_ROUND_SELECT, FL_ROUND_CONFIGURE, FL_EFFECT_PERSIST, 3500);
    step(FL_ROUND_CONFIGURE, FL_ROUND_TRAIN, FL_EFFECT_PERSIST, 4000);
    step(FL_ROUND_TRAIN, FL_ROUND_SELECT, FL_EFFECT_PERSIST | FL_EFFECT_ABANDON, 10000);
    step(FL_ROUND_SELECT, FL_ROUND_CONFIGURE, FL_EFFECT_PERSIST, 11000);
    ck_assert_uint_eq(tally.phases[FL_ROUND_SELECT].times, 2);
    ck_assert_double_eq_tol(tally.phases[FL_ROUND_SELECT].seconds, 3.5, 1e-9);
    ck_assert_double_eq_tol(tally.phases[FL_ROUND_TRAIN].seconds, 6.0, 1e-9);
}
END_TEST

START_TEST(each_end_of_an_attempt_is_counted_once)
{
    before->round = 1;
    step(FL_ROUND_COMMIT, FL_ROUND_SELECT, FL_EFFECT_PERSIST | FL_EFFECT_NEXT, 1);
    step(FL_ROUND_TRAIN, FL_ROUND_SELECT, FL_EFFECT_PERSIST | FL_EFFECT_ABANDON, 2);
    step(FL_ROUND_TRAIN, FL_ROUND_PAUSED, FL_EFFECT_ABANDON | FL_EFFECT_END, 3);
    step(FL_ROUND_TRAIN, FL_ROUND_FAILED, FL_EFFECT_ABANDON | FL_EFFECT_END, 4);
    step(FL_ROUND_TRAIN, FL_ROUND_IDLE, FL_EFFECT_ABANDON | FL_EFFECT_END, 5);
    before->round = 3;
    step(FL_ROUND_COMMIT, FL_ROUND_DONE, FL_EFFECT_END | FL_EFFECT_NEXT, 6);
    for (int i = 0; i < FL_TALLY_RESULT_COUNT; i++)
        ck_assert_msg(tally.rounds[i] == 1, "%s: %llu",
                      fl_tally_result_name((enum fl_tally_result)i),
                      (unsigned long long)tally.rounds[i]);
    ck_assert_int_eq(tally.phase_ms, 0);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, phases_are_counted_with_their_seconds);
    tcase_add_test(tc, each_end_of_an_attempt_is_counted_once);
}

FL_TEST_MAIN("coordinator.http_tally", add_tests)

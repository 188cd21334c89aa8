/* Tests of rounds that are trained anew because a masked sum failed, and of who is kept apart. */
#include "coordinator/round.h"

#include <stdlib.h>
#include <string.h>

#include "runner.h"

static const struct fl_round_rules rules = {.rounds = 20,
                                            .min_workers = 3,
                                            .select_timeout_ms = 60000,
                                            .round_timeout_ms = 1800000,
                                            .liveness_timeout_ms = 30000,
                                            .wait_timeout_ms = 604800000,
                                            .secure = true,
                                            .draws = true};
static struct fl_round *round_;
static int64_t now;

static void setup(void)
{
    round_ = calloc(1, sizeof *round_);
    ck_assert_ptr_nonnull(round_);
    fl_round_init(round_, &rules);
    now = 1000;
}

static void teardown(void)
{
    free(round_);
}

static void happen(enum fl_round_event event, uint32_t site)
{
    const struct fl_round_input input = {.event = event, .site = site};
    (void)fl_round_step(round_, &input, now);
}

static bool in_cohort(uint32_t site)
{
    return fl_round_find(round_, site)->cohort;
}

/* Every member of the cohort does that. */
static void cohort_does(enum fl_round_event event, uint32_t count)
{
    for (uint32_t site = 1; site <= count; site++)
        if (in_cohort(site))
            happen(event, site);
}

/* From SELECT on: whoever is asked takes part, and does the first so many of the things asked. */
static void up_to(uint32_t count, size_t steps)
{
    if (round_->state == FL_ROUND_IDLE)
        happen(FL_EVENT_START, 0);
    for (uint32_t site = 1; site <= count; site++)
        if (!fl_round_find(round_, site) || !fl_round_find(round_, site)->online)
            happen(FL_EVENT_ONLINE, site);
    happen(FL_EVENT_TICK, 0);
    for (uint32_t site = 1; site <= count; site++)
        if (fl_round_due(round_, site) == FL_DUE_OFFER)
            happen(FL_EVENT_FIT, site);
    ck_assert_int_eq(round_->state, FL_ROUND_CONFIGURE);
    happen(FL_EVENT_CONFIGURED, 0);
    static const enum fl_round_event events[] = {FL_EVENT_TRAINED, FL_EVENT_ADVERTISED,
                                                 FL_EVENT_SHARED,  FL_EVENT_UPLOADED,
                                                 FL_EVENT_SIGNED,  FL_EVENT_ANSWERED};
    for (size_t i = 0; i < steps && i < sizeof events / sizeof events[0]; i++)
        cohort_does(events[i], count);
}

static void to_sum(uint32_t count)
{
    up_to(count, SIZE_MAX);
    ck_assert_int_eq(round_->state, FL_ROUND_AGGREGATE);
}

static void spoil(uint32_t blamed)
{
    const struct fl_round_input input = {.event = FL_EVENT_AGGREGATE_FAILED,
                                         .reason = "a mask did not cancel",
                                         .leave_out = &blamed,
                                         .leave_out_count = blamed > 0};
    (void)fl_round_step(round_, &input, now);
}

static void hold(void)
{
    happen(FL_EVENT_AGGREGATED, 0);
    happen(FL_EVENT_COMMITTED, 0);
}

/* One round in which the sites of that set spoil every sum that they are in; false: it pauses. */
static bool run_round(uint32_t count, uint32_t liars)
{
    uint32_t round = round_->round;
    while (round_->round == round && round_->state != FL_ROUND_PAUSED) {
        bool spoiled = false;
        to_sum(count);
        for (uint32_t site = 1; site <= count; site++)
            spoiled = spoiled || (in_cohort(site) && liars >> site & 1);
        if (spoiled)
            spoil(0);
        else
            hold();
    }
    return round_->state != FL_ROUND_PAUSED;
}

START_TEST(a_sum_that_failed_is_made_anew_and_binds_to_no_sites)
{
    to_sum(5);
    spoil(0);
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    ck_assert_uint_eq(round_->retraining, 1);
    ck_assert_uint_eq(round_->attempt, 2);
    ck_assert_uint_eq(round_->anew_from, 2);
    ck_assert_uint_eq(round_->breaks, 0);
    ck_assert_uint_eq(fl_round_pledged(round_), 0);
    ck_assert_str_eq(round_->reason, "a mask did not cancel");
    for (uint32_t site = 1; site <= 5; site++)
        ck_assert_uint_eq(fl_round_find(round_, site)->failed_sums, 1);
    to_sum(5); /* as few of the suspects as can be */
    ck_assert_uint_eq(fl_round_cohort(round_), 3);
    hold();
    ck_assert_uint_eq(round_->round, 2);
    ck_assert_uint_eq(round_->retraining, 0);
    ck_assert_uint_eq(round_->anew_from, 0);
}
END_TEST

START_TEST(who_was_in_a_sum_that_holds_is_cleared)
{
    uint32_t suspect = 0;
    to_sum(5);
    spoil(0);
    to_sum(5);
    hold();
    for (uint32_t site = 1; site <= 5; site++)
        suspect += fl_round_find(round_, site)->failed_sums;
    ck_assert_uint_eq(suspect, 2);
    to_sum(5); /* in the next round one of the two comes back */
    ck_assert_uint_eq(fl_round_cohort(round_), 4);
    hold();
    to_sum(5);
    ck_assert_uint_eq(fl_round_cohort(round_), 4);
}
END_TEST

START_TEST(any_one_site_that_spoils_sums_is_found_and_the_others_go_on)
{
    for (uint32_t count = 4; count <= 12; count++) {
        for (uint32_t liar = 1; liar <= count; liar++) {
            for (int i = 0; i < 8; i++)
                ck_assert_msg(run_round(count, 1u << liar), "%u sites, site %u lies: %s", count,
                              liar, round_->reason);
            to_sum(count); /* everybody but that one */
            ck_assert_uint_eq(fl_round_cohort(round_), count - 1);
            ck_assert(!in_cohort(liar));
            teardown();
            setup();
        }
    }
}
END_TEST

START_TEST(a_round_is_made_anew_a_few_times_only)
{
    for (uint32_t i = 0; i < FL_RETRAININGS_MAX; i++) {
        to_sum(3);
        spoil(0);
        ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    }
    ck_assert_uint_eq(round_->retraining, FL_RETRAININGS_MAX);
    ck_assert(!run_round(3, 1u << 1));
    ck_assert_uint_eq(round_->retraining, FL_RETRAININGS_MAX);
    ck_assert_uint_eq(fl_round_pledged(round_), 3);
    happen(FL_EVENT_RESUME, 0); /* sites would take no more of it, whoever resumes */
    ck_assert_uint_eq(round_->retraining, FL_RETRAININGS_MAX);
    ck_assert_uint_eq(fl_round_pledged(round_), 3);
}
END_TEST

START_TEST(nothing_is_made_anew_where_the_same_would_come_of_it)
{
    round_->rules.draws = false;
    to_sum(5);
    spoil(0);
    ck_assert_uint_eq(round_->retraining, 0);
    ck_assert_uint_eq(round_->breaks, 1);
    ck_assert_uint_eq(fl_round_pledged(round_), 5);
    teardown();
    setup();
    round_->rules.rounds = 1;
    round_->rules.final_round = true;
    to_sum(5);
    hold();
    ck_assert(fl_round_only_evaluates(round_));
    to_sum(5);
    spoil(0);
    ck_assert_uint_eq(round_->retraining, 0);
}
END_TEST

START_TEST(who_is_blamed_for_a_sum_is_left_out_and_nobody_is_suspect)
{
    to_sum(5);
    spoil(4);
    ck_assert_uint_eq(round_->retraining, 1);
    for (uint32_t site = 1; site <= 5; site++)
        ck_assert_uint_eq(fl_round_find(round_, site)->failed_sums, 0);
    to_sum(5);
    ck_assert_uint_eq(fl_round_cohort(round_), 4);
    ck_assert(!in_cohort(4));
}
END_TEST

START_TEST(suspects_are_asked_when_too_few_others_are_there)
{
    uint32_t away = 0;
    to_sum(5);
    spoil(0);
    to_sum(5);
    hold();
    for (uint32_t site = 1; site <= 5 && away < 2; site++) {
        if (fl_round_find(round_, site)->failed_sums == 0) {
            happen(FL_EVENT_OFFLINE, site);
            happen(FL_EVENT_REVOKED, site);
            away++;
        }
    }
    happen(FL_EVENT_TICK, 0);
    uint32_t asked = 0;
    for (uint32_t site = 1; site <= 5; site++)
        asked += fl_round_due(round_, site) == FL_DUE_OFFER;
    ck_assert_uint_eq(asked, 3);
}
END_TEST

START_TEST(suspicion_outlives_a_new_session_a_new_enrolment_and_a_restart)
{
    to_sum(5);
    spoil(0);
    happen(FL_EVENT_OFFLINE, 2);
    happen(FL_EVENT_ONLINE, 2);
    happen(FL_EVENT_REVOKED, 3);
    happen(FL_EVENT_ONLINE, 3);
    for (uint32_t site = 1; site <= 5; site++)
        ck_assert_uint_eq(fl_round_find(round_, site)->failed_sums, 1);
    uint32_t before[6];
    for (uint32_t site = 1; site <= 5; site++)
        before[site] = fl_round_find(round_, site)->apart;
    for (uint32_t site = 1; site <= 5; site++)
        fl_round_member(round_, site)->apart = 0; /* it follows from what is kept */
    fl_round_restore(round_, FL_ROUND_SELECT, 1, 2, 0, now);
    for (uint32_t site = 1; site <= 5; site++)
        ck_assert_uint_eq(fl_round_find(round_, site)->apart, before[site]);
}
END_TEST

static void refuse_sum(uint32_t site, bool differs)
{
    const struct fl_round_input input = {
        .event = FL_EVENT_SITE_FAILED, .site = site, .wait_ms = 30000, .differs = differs};
    (void)fl_round_step(round_, &input, now);
}

/* What a coordinator meets that was restored from a copy made before a sum was opened. */
START_TEST(work_that_sites_summed_before_over_others_is_made_anew)
{
    fl_round_restore(round_, FL_ROUND_SELECT, 1, 101, 0, now);
    up_to(4, 5);
    ck_assert_int_eq(round_->state, FL_ROUND_UNMASK);
    refuse_sum(1, true);
    ck_assert_int_eq(round_->state, FL_ROUND_UNMASK); /* three can open it */
    refuse_sum(2, true);
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    ck_assert_uint_eq(round_->retraining, 1);
    ck_assert_uint_eq(round_->breaks, 0);
    ck_assert_uint_eq(fl_round_pledged(round_), 0);
    now += 30000;
    to_sum(4);
    for (uint32_t site = 1; site <= 4; site++)
        ck_assert(!fl_round_find(round_, site)->differs);
}
END_TEST

START_TEST(other_refusals_of_a_sum_break_the_attempt_only)
{
    fl_round_restore(round_, FL_ROUND_SELECT, 1, 101, 0, now);
    up_to(4, 5);
    refuse_sum(1, false);
    refuse_sum(2, false);
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    ck_assert_uint_eq(round_->retraining, 0);
    ck_assert_uint_eq(round_->breaks, 1);
}
END_TEST

/* The same work over fewer sites is what their refusal is there for. */
START_TEST(a_job_that_was_not_restored_is_not_made_anew_for_that)
{
    up_to(4, 5);
    refuse_sum(1, true);
    refuse_sum(2, true);
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    ck_assert_uint_eq(round_->retraining, 0);
    ck_assert_uint_eq(round_->breaks, 1);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_sum_that_failed_is_made_anew_and_binds_to_no_sites);
    tcase_add_test(tc, who_was_in_a_sum_that_holds_is_cleared);
    tcase_add_test(tc, any_one_site_that_spoils_sums_is_found_and_the_others_go_on);
    tcase_add_test(tc, a_round_is_made_anew_a_few_times_only);
    tcase_add_test(tc, nothing_is_made_anew_where_the_same_would_come_of_it);
    tcase_add_test(tc, who_is_blamed_for_a_sum_is_left_out_and_nobody_is_suspect);
    tcase_add_test(tc, suspects_are_asked_when_too_few_others_are_there);
    tcase_add_test(tc, work_that_sites_summed_before_over_others_is_made_anew);
    tcase_add_test(tc, a_job_that_was_not_restored_is_not_made_anew_for_that);
    tcase_add_test(tc, other_refusals_of_a_sum_break_the_attempt_only);
    tcase_add_test(tc, suspicion_outlives_a_new_session_a_new_enrolment_and_a_restart);
}

FL_TEST_MAIN("coordinator.round_left_out", add_tests)

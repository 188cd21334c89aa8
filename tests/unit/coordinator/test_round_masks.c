/* Tests of a round's masked stages: its sets, its thresholds, and what it is pledged to. */
#include "round_walk.h"

static void to_keys(uint32_t count)
{
    round_->rules.secure = true;
    to_train(count);
    all(FL_EVENT_TRAINED, count);
    ck_assert_int_eq(round_->state, FL_ROUND_KEYS);
}

static void to_unmask(uint32_t count)
{
    to_keys(count);
    all(FL_EVENT_ADVERTISED, count);
    all(FL_EVENT_SHARED, count);
    all(FL_EVENT_UPLOADED, count);
    ck_assert_int_eq(round_->state, FL_ROUND_UNMASK);
}

START_TEST(secure_aggregation_passes_keys_shares_and_unmask)
{
    to_keys(3);
    ck_assert_int_eq(fl_round_due(round_, 1), FL_DUE_KEYS);
    all(FL_EVENT_ADVERTISED, 2);
    ck_assert_int_eq(fl_round_due(round_, 1), FL_DUE_NOTHING);
    ck_assert_uint_ne(happen(FL_EVENT_ADVERTISED, 3) & FL_EFFECT_COLLECT, 0);
    ck_assert_int_eq(round_->state, FL_ROUND_SHARES);
    ck_assert_int_eq(fl_round_due(round_, 3), FL_DUE_COHORT);
    all(FL_EVENT_SHARED, 3);
    ck_assert_int_eq(round_->state, FL_ROUND_COLLECT);
    ck_assert_int_eq(fl_round_due(round_, 2), FL_DUE_COLLECT);
    all(FL_EVENT_UPLOADED, 2);
    ck_assert_int_eq(fl_round_due(round_, 2), FL_DUE_RECEIPT);
    ck_assert_uint_ne(happen(FL_EVENT_UPLOADED, 3) & FL_EFFECT_SURVIVORS, 0);
    ck_assert_int_eq(round_->state, FL_ROUND_UNMASK);
    ck_assert_int_eq(fl_round_due(round_, 2), FL_DUE_SURVIVORS);
    all(FL_EVENT_SIGNED, 2);
    ck_assert_int_eq(fl_round_due(round_, 2), FL_DUE_NOTHING);
    ck_assert_uint_ne(happen(FL_EVENT_SIGNED, 3) & FL_EFFECT_SEND_ALL, 0);
    ck_assert_int_eq(fl_round_due(round_, 2), FL_DUE_UNMASK);
    all(FL_EVENT_ANSWERED, 2);
    ck_assert_int_eq(round_->state, FL_ROUND_UNMASK);
    ck_assert_uint_ne(happen(FL_EVENT_ANSWERED, 3) & FL_EFFECT_AGGREGATE, 0);
    ck_assert_int_eq(round_->state, FL_ROUND_AGGREGATE);
    ck_assert_int_eq(fl_round_due(round_, 2), FL_DUE_RECEIPT);
}
END_TEST

START_TEST(a_dropout_of_any_stage_leaves_the_sets_before_it_as_they_are)
{
    to_keys(5);
    (void)happen(FL_EVENT_SITE_FAILED, 5);
    all(FL_EVENT_ADVERTISED, 5);
    ck_assert_int_eq(round_->state, FL_ROUND_SHARES);
    ck_assert_uint_eq(fl_round_advertised(round_), 4); /* n = 4, t = 3 */
    ck_assert_uint_eq(fl_round_needed(round_), 3);
    (void)happen(FL_EVENT_ADVERTISED, 5); /* too late */
    ck_assert_uint_eq(fl_round_advertised(round_), 4);
    (void)happen(FL_EVENT_SITE_FAILED, 4);
    all(FL_EVENT_SHARED, 5);
    ck_assert_int_eq(round_->state, FL_ROUND_COLLECT);
    ck_assert_uint_eq(fl_round_advertised(round_), 4);
    ck_assert(!fl_round_find(round_, 4)->shared);
    all(FL_EVENT_UPLOADED, 5);
    ck_assert_int_eq(round_->state, FL_ROUND_UNMASK);
    ck_assert_uint_eq(fl_round_uploaded(round_), 3);
    teardown();
    setup();
    to_unmask(4); /* the survivors are fixed: one of them may be silent now, and is counted */
    (void)happen(FL_EVENT_SITE_FAILED, 2);
    ck_assert_int_eq(round_->state, FL_ROUND_UNMASK);
    ck_assert_uint_eq(fl_round_uploaded(round_), 4);
    ck_assert_int_eq(fl_round_due(round_, 2), FL_DUE_NOTHING);
    all(FL_EVENT_SIGNED, 4);
    all(FL_EVENT_ANSWERED, 4);
    ck_assert_int_eq(round_->state, FL_ROUND_AGGREGATE);
    ck_assert_uint_eq(fl_round_uploaded(round_), 4);
}
END_TEST

/* An event that the disk refused is tried again later, when its stage may be over: layout, grid and
   masks go by the sets as they were then. */
START_TEST(what_is_heard_behind_its_stage_changes_no_set)
{
    static const enum fl_round_event walk[] = {FL_EVENT_ADVERTISED, FL_EVENT_SHARED,
                                               FL_EVENT_UPLOADED};
    for (size_t secure = 0; secure < 2; secure++) {
        round_->rules.secure = secure > 0;
        to_train(4);
        all(FL_EVENT_TRAINED, 3);
        now += rules.round_timeout_ms;
        tick();
        ck_assert_int_eq(round_->state, secure ? FL_ROUND_KEYS : FL_ROUND_COLLECT);
        for (size_t i = 0; i <= 3 * secure; i++) {
            ck_assert_uint_eq(happen(FL_EVENT_TRAINED, 4), 0);
            ck_assert_uint_eq(fl_round_trained(round_), 3);
            if (secure && i < 3)
                all(walk[i], 3);
        }
        teardown();
        setup();
    }
    to_unmask(4);
    fl_round_member(round_, 4)->uploaded = false;
    ck_assert_uint_eq(happen(FL_EVENT_UPLOADED, 4), 0);
    ck_assert_uint_eq(fl_round_uploaded(round_), 3);
}
END_TEST

START_TEST(fewer_than_the_threshold_break_the_attempt_in_every_stage)
{
    static const enum fl_round_event walk[] = {FL_EVENT_ADVERTISED, FL_EVENT_SHARED,
                                               FL_EVENT_UPLOADED};
    for (size_t stage = 0; stage <= 3; stage++) {
        to_keys(3);
        for (size_t i = 0; i < stage; i++)
            all(walk[i], 3);
        (void)happen(FL_EVENT_SITE_FAILED, 2);
        ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
        ck_assert_uint_eq(round_->breaks, 1);
        teardown();
        setup();
    }
}
END_TEST

START_TEST(a_site_that_is_away_is_not_waited_for_where_enough_have_answered)
{
    to_unmask(4);
    all(FL_EVENT_SIGNED, 3);
    (void)happen(FL_EVENT_OFFLINE, 4);
    all(FL_EVENT_ANSWERED, 3);
    ck_assert_int_eq(round_->state, FL_ROUND_AGGREGATE);
}
END_TEST

START_TEST(a_site_that_is_there_and_makes_no_keys_is_left_behind_soon)
{
    to_keys(4);
    all(FL_EVENT_ADVERTISED, 3);
    ck_assert_int_eq(round_->state, FL_ROUND_KEYS);
    now += FL_ROUND_MASK_MS;
    tick();
    ck_assert_int_eq(round_->state, FL_ROUND_SHARES);
    ck_assert_uint_eq(fl_round_advertised(round_), 3);
}
END_TEST

/* Bring the round to where answers are asked for, and lose one site too many behind it. */
static void to_pledge(void)
{
    to_unmask(4);
    all(FL_EVENT_SIGNED, 4);
    (void)happen(FL_EVENT_SITE_FAILED, 2); /* no answer has come: one may be on its way */
    ck_assert_int_eq(round_->state, FL_ROUND_UNMASK);
    (void)happen(FL_EVENT_SITE_FAILED, 3);
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    ck_assert_uint_eq(fl_round_pledged(round_), 4);
}

START_TEST(an_attempt_that_broke_after_answers_were_asked_for_is_tried_again_with_the_same_sites)
{
    to_pledge();
    (void)happen(FL_EVENT_ONLINE, 5);
    tick();
    for (uint32_t site = 1; site <= 5; site++)
        if (site != 4)
            (void)happen(FL_EVENT_FIT, site);
    now += rules.select_timeout_ms * 2;
    tick();
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT); /* site 5 does not stand in for site 4 */
    (void)happen(FL_EVENT_FIT, 4);
    ck_assert_int_eq(round_->state, FL_ROUND_CONFIGURE);
    ck_assert_uint_eq(fl_round_cohort(round_), 4);
    ck_assert(!fl_round_find(round_, 5)->cohort);
    (void)happen(FL_EVENT_CONFIGURED, 0);
    all(FL_EVENT_TRAINED, 4);
    all(FL_EVENT_ADVERTISED, 4);
    (void)happen(FL_EVENT_SITE_FAILED, 4); /* three of four would do, were there no pledge */
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    ck_assert_uint_eq(fl_round_pledged(round_), 4);
}
END_TEST

START_TEST(a_pledge_ends_with_its_round)
{
    to_pledge();
    tick();
    all(FL_EVENT_FIT, 4);
    (void)happen(FL_EVENT_CONFIGURED, 0);
    all(FL_EVENT_TRAINED, 4);
    all(FL_EVENT_ADVERTISED, 4);
    all(FL_EVENT_SHARED, 4);
    all(FL_EVENT_UPLOADED, 4);
    all(FL_EVENT_SIGNED, 4);
    all(FL_EVENT_ANSWERED, 4);
    (void)happen(FL_EVENT_AGGREGATED, 0);
    (void)happen(FL_EVENT_COMMITTED, 0);
    ck_assert_uint_eq(round_->round, 2);
    ck_assert_uint_eq(fl_round_pledged(round_), 0);
}
END_TEST

START_TEST(a_pledge_to_a_site_that_was_revoked_pauses_the_job)
{
    to_pledge();
    (void)happen(FL_EVENT_REVOKED, 2);
    ck_assert_int_eq(round_->state, FL_ROUND_PAUSED);
    ck_assert_ptr_nonnull(strstr(round_->reason, "another seed"));
}
END_TEST

/* Else a hundred of them would use up the numbers that this life of the job has. */
START_TEST(resuming_counts_no_attempt_while_the_pledge_is_lost)
{
    to_pledge();
    (void)happen(FL_EVENT_REVOKED, 2);
    uint32_t attempt = round_->attempt;
    for (int i = 0; i < 200; i++) {
        uint32_t effects = happen(FL_EVENT_RESUME, 0);
        ck_assert_int_eq(round_->state, FL_ROUND_PAUSED);
        ck_assert_uint_eq(effects, FL_EFFECT_PERSIST | FL_EFFECT_END);
        ck_assert_ptr_nonnull(strstr(round_->reason, "another seed"));
        ck_assert_uint_eq(round_->attempt, attempt);
    }
    (void)happen(FL_EVENT_ONLINE, 2); /* allowed again */
    (void)happen(FL_EVENT_RESUME, 0);
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    ck_assert_uint_eq(round_->attempt, attempt + 1);
}
END_TEST

START_TEST(too_many_refusals_fail_a_resumed_job_whatever_it_is_pledged_to)
{
    to_pledge();
    (void)happen(FL_EVENT_REVOKED, 2);
    fl_round_member(round_, 1)->answer = FL_ANSWER_REFUSED;
    (void)happen(FL_EVENT_RESUME, 0);
    tick();
    ck_assert_int_eq(round_->state, FL_ROUND_FAILED);
}
END_TEST

START_TEST(who_may_still_answer_is_waited_for_behind_the_first_answer)
{
    to_unmask(3);
    all(FL_EVENT_SIGNED, 3);
    all(FL_EVENT_ANSWERED, 2);
    (void)happen(FL_EVENT_OFFLINE, 3);
    for (int i = 0; i < 5; i++) {
        now += FL_ROUND_MASK_MS;
        tick();
        ck_assert_int_eq(round_->state, FL_ROUND_UNMASK);
        ck_assert_int_gt(round_->deadline_ms, now);
    }
    (void)happen(FL_EVENT_ONLINE, 3);
    ck_assert_int_eq(fl_round_due(round_, 3), FL_DUE_UNMASK);
    (void)happen(FL_EVENT_ANSWERED, 3);
    ck_assert_int_eq(round_->state, FL_ROUND_AGGREGATE);
}
END_TEST

START_TEST(a_sum_that_may_not_be_opened_breaks_its_attempt)
{
    const struct fl_round_input input = {.event = FL_EVENT_UNMASK_FAILED, .reason = "thin tier"};
    to_unmask(3);
    uint32_t effects = fl_round_step(round_, &input, now);
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    ck_assert_uint_ne(effects & FL_EFFECT_ABANDON, 0);
    ck_assert_str_eq(round_->reason, "thin tier");
    ck_assert_uint_eq(fl_round_advertised(round_), 0);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, secure_aggregation_passes_keys_shares_and_unmask);
    tcase_add_test(tc, a_dropout_of_any_stage_leaves_the_sets_before_it_as_they_are);
    tcase_add_test(tc, what_is_heard_behind_its_stage_changes_no_set);
    tcase_add_test(tc, fewer_than_the_threshold_break_the_attempt_in_every_stage);
    tcase_add_test(tc, a_site_that_is_away_is_not_waited_for_where_enough_have_answered);
    tcase_add_test(tc, a_site_that_is_there_and_makes_no_keys_is_left_behind_soon);
    tcase_add_test(
        tc, an_attempt_that_broke_after_answers_were_asked_for_is_tried_again_with_the_same_sites);
    tcase_add_test(tc, a_pledge_ends_with_its_round);
    tcase_add_test(tc, a_pledge_to_a_site_that_was_revoked_pauses_the_job);
    tcase_add_test(tc, resuming_counts_no_attempt_while_the_pledge_is_lost);
    tcase_add_test(tc, too_many_refusals_fail_a_resumed_job_whatever_it_is_pledged_to);
    tcase_add_test(tc, who_may_still_answer_is_waited_for_behind_the_first_answer);
    tcase_add_test(tc, a_sum_that_may_not_be_opened_breaks_its_attempt);
}

FL_TEST_MAIN("coordinator.round_masks", add_tests)

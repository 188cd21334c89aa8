/* Tests of the round: its path, its breaks, and every (state, event) pair. */
#include "round_walk.h"

static void to_commit(uint32_t count)
{
    to_collect(count);
    all(FL_EVENT_UPLOADED, count);
    ck_assert_int_eq(round_->state, FL_ROUND_AGGREGATE);
    ck_assert_uint_ne(happen(FL_EVENT_AGGREGATED, 0) & FL_EFFECT_COMMIT, 0);
    ck_assert_int_eq(round_->state, FL_ROUND_COMMIT);
}

START_TEST(a_job_runs_through_its_rounds_and_one_evaluation)
{
    for (uint32_t round = 1; round <= 3; round++) {
        ck_assert_uint_eq(round_->round, round);
        to_commit(3);
        uint32_t effects = happen(FL_EVENT_COMMITTED, 0);
        ck_assert_uint_ne(effects & FL_EFFECT_NEXT, 0);
        ck_assert_uint_ne(effects & FL_EFFECT_PERSIST, 0);
        ck_assert_int_eq((effects & FL_EFFECT_END) != 0, round == 3);
    }
    ck_assert_int_eq(round_->state, FL_ROUND_DONE);
}
END_TEST

START_TEST(selection_waits_a_moment_for_sites_that_were_seen)
{
    (void)happen(FL_EVENT_START, 0);
    fl_round_member(round_, 4)->seen = true;
    all(FL_EVENT_ONLINE, 3);
    ck_assert(!round_->begun);
    ck_assert_int_eq(fl_round_due(round_, 1), FL_DUE_NOTHING);
    now += FL_ROUND_SETTLE_MS - 1;
    tick();
    ck_assert(!round_->begun);
    now += 1;
    ck_assert_uint_ne(happen(FL_EVENT_TICK, 0) & FL_EFFECT_SEND_ALL, 0);
    ck_assert_int_eq(fl_round_due(round_, 1), FL_DUE_OFFER);
}
END_TEST

START_TEST(selection_begins_at_once_when_every_seen_site_is_there)
{
    (void)happen(FL_EVENT_START, 0);
    fl_round_member(round_, 4)->seen = true;
    all(FL_EVENT_ONLINE, 4);
    ck_assert(round_->begun);
}
END_TEST

START_TEST(selection_waits_without_end_for_too_few_but_not_beyond_wait_timeout)
{
    (void)happen(FL_EVENT_START, 0);
    all(FL_EVENT_ONLINE, 2);
    now += rules.select_timeout_ms * 10;
    tick();
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    ck_assert_uint_eq(round_->attempt, 1);
    now = 1000 + rules.wait_timeout_ms;
    tick();
    ck_assert_int_eq(round_->state, FL_ROUND_FAILED);
}
END_TEST

START_TEST(selection_goes_on_without_a_silent_site_after_its_timeout)
{
    (void)happen(FL_EVENT_START, 0);
    all(FL_EVENT_ONLINE, 4);
    all(FL_EVENT_FIT, 3);
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    now += rules.select_timeout_ms;
    tick();
    ck_assert_int_eq(round_->state, FL_ROUND_CONFIGURE);
    ck_assert_uint_eq(fl_round_cohort(round_), 3);
}
END_TEST

START_TEST(refusals_that_leave_too_few_fail_the_job_at_once)
{
    (void)happen(FL_EVENT_START, 0);
    all(FL_EVENT_ONLINE, 3);
    uint32_t effects = happen(FL_EVENT_REFUSED, 2);
    ck_assert_int_eq(round_->state, FL_ROUND_FAILED);
    ck_assert_uint_ne(effects & FL_EFFECT_END, 0);
    ck_assert(round_->reason[0] != '\0');
}
END_TEST

START_TEST(a_deferred_site_is_asked_again_after_its_time)
{
    const struct fl_round_input defer = {.event = FL_EVENT_DEFERRED, .site = 1, .wait_ms = 5000};
    (void)happen(FL_EVENT_START, 0);
    all(FL_EVENT_ONLINE, 3);
    (void)fl_round_step(round_, &defer, now);
    ck_assert_int_eq(fl_round_due(round_, 1), FL_DUE_NOTHING);
    ck_assert_int_le(fl_round_wake_ms(round_), now + 5000);
    now += 5000;
    tick();
    ck_assert_int_eq(fl_round_due(round_, 1), FL_DUE_OFFER);
}
END_TEST

START_TEST(a_site_lost_in_training_is_waited_for_until_it_counts_as_dead)
{
    to_train(4);
    (void)happen(FL_EVENT_OFFLINE, 4);
    all(FL_EVENT_TRAINED, 3);
    ck_assert_int_eq(round_->state, FL_ROUND_TRAIN);
    ck_assert_int_eq(fl_round_wake_ms(round_), now + rules.liveness_timeout_ms);
    now += rules.liveness_timeout_ms;
    tick();
    ck_assert_int_eq(round_->state, FL_ROUND_COLLECT);
    ck_assert_uint_eq(fl_round_trained(round_), 3);
}
END_TEST

START_TEST(a_site_that_returns_in_training_gets_its_task_again)
{
    to_train(4);
    (void)happen(FL_EVENT_OFFLINE, 4);
    ck_assert_int_eq(fl_round_due(round_, 4), FL_DUE_NOTHING);
    ck_assert_uint_ne(happen(FL_EVENT_ONLINE, 4) & FL_EFFECT_SEND_SITE, 0);
    ck_assert_int_eq(fl_round_due(round_, 4), FL_DUE_TASK);
    all(FL_EVENT_TRAINED, 4);
    ck_assert_uint_eq(fl_round_trained(round_), 4);
}
END_TEST

START_TEST(a_site_that_failed_for_now_is_not_asked_before_its_time)
{
    const struct fl_round_input failed = {
        .event = FL_EVENT_SITE_FAILED, .site = 2, .wait_ms = 30000};
    to_train(3);
    (void)fl_round_step(round_, &failed, now);
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    tick();
    ck_assert_int_eq(fl_round_due(round_, 1), FL_DUE_OFFER);
    ck_assert_int_eq(fl_round_due(round_, 2), FL_DUE_NOTHING);
    now += 30000;
    tick();
    ck_assert_int_eq(fl_round_due(round_, 2), FL_DUE_OFFER);
    ck_assert_uint_eq(round_->breaks, 1);
}
END_TEST

START_TEST(who_fails_while_updates_are_collected_stays_in_the_layout)
{
    to_train(4);
    (void)happen(FL_EVENT_TRAINED, 1);
    (void)happen(FL_EVENT_SITE_FAILED, 1); /* before the layout is fixed */
    ck_assert(!fl_round_find(round_, 1)->trained);
    (void)happen(FL_EVENT_TRAINED, 1);
    ck_assert(!fl_round_find(round_, 1)->trained);
    teardown();
    setup();
    to_collect(4);
    (void)happen(FL_EVENT_SITE_FAILED, 1); /* after it: the grid is that of four sites */
    ck_assert_int_eq(round_->state, FL_ROUND_COLLECT);
    ck_assert(fl_round_find(round_, 1)->trained && fl_round_find(round_, 1)->failed);
    ck_assert_uint_eq(fl_round_trained(round_), 4);
    (void)happen(FL_EVENT_UPLOADED, 1);
    ck_assert(!fl_round_find(round_, 1)->uploaded);
}
END_TEST

START_TEST(three_broken_attempts_pause_the_job_and_resume_goes_on)
{
    for (int i = 1; i <= 3; i++) {
        to_train(3);
        ck_assert_uint_eq(round_->attempt, (unsigned)i);
        (void)happen(FL_EVENT_SITE_FAILED, 2);
        if (i < 3)
            ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    }
    ck_assert_int_eq(round_->state, FL_ROUND_PAUSED);
    (void)happen(FL_EVENT_RESUME, 0);
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    ck_assert_uint_eq(round_->round, 1);
    ck_assert_uint_eq(round_->attempt, 4);
    ck_assert_uint_eq(round_->breaks, 0);
}
END_TEST

static void select_with(uint32_t count)
{
    tick();
    all(FL_EVENT_FIT, count);
    if (round_->state == FL_ROUND_CONFIGURE)
        (void)happen(FL_EVENT_CONFIGURED, 0);
}

START_TEST(who_is_blamed_is_left_out_of_the_round_while_enough_others_are_there)
{
    const uint32_t liar = 4;
    const struct fl_round_input failed = {
        .event = FL_EVENT_AGGREGATE_FAILED, .leave_out = &liar, .leave_out_count = 1};
    to_collect(4);
    all(FL_EVENT_UPLOADED, 4);
    (void)fl_round_step(round_, &failed, now);
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    tick();
    ck_assert_int_eq(fl_round_due(round_, 1), FL_DUE_OFFER);
    ck_assert_int_eq(fl_round_due(round_, 4), FL_DUE_NOTHING);
    (void)happen(FL_EVENT_OFFLINE, 4); /* a new session forgives nothing */
    (void)happen(FL_EVENT_ONLINE, 4);
    select_with(4);
    ck_assert_int_eq(round_->state, FL_ROUND_TRAIN);
    ck_assert(!fl_round_find(round_, 4)->cohort);
    all(FL_EVENT_TRAINED, 3);
    all(FL_EVENT_UPLOADED, 3);
    (void)happen(FL_EVENT_AGGREGATED, 0);
    (void)happen(FL_EVENT_COMMITTED, 0);
    select_with(4);
    ck_assert(fl_round_find(round_, 4)->cohort); /* of the next round */
}
END_TEST

START_TEST(who_is_left_out_is_asked_all_the_same_when_too_few_others_are_there)
{
    const uint32_t liar = 3;
    const struct fl_round_input failed = {
        .event = FL_EVENT_AGGREGATE_FAILED, .leave_out = &liar, .leave_out_count = 1};
    to_collect(4);
    all(FL_EVENT_UPLOADED, 4);
    (void)fl_round_step(round_, &failed, now);
    tick();
    ck_assert_int_eq(fl_round_due(round_, 3), FL_DUE_NOTHING);
    ck_assert_uint_ne(happen(FL_EVENT_OFFLINE, 4) & FL_EFFECT_SEND_ALL, 0);
    ck_assert_int_eq(fl_round_due(round_, 3), FL_DUE_OFFER);
    select_with(3);
    ck_assert_int_eq(round_->state, FL_ROUND_TRAIN);
    ck_assert(fl_round_find(round_, 3)->cohort);
}
END_TEST

START_TEST(who_was_waited_for_in_vain_is_left_out_of_the_next_attempt)
{
    to_collect(5);
    (void)happen(FL_EVENT_UPLOADED, 1);
    (void)happen(FL_EVENT_UPLOADED, 2);
    for (uint32_t site = 6; site <= 7; site++)
        (void)happen(FL_EVENT_ONLINE, site);
    now += rules.round_timeout_ms;
    tick();
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    select_with(7);
    ck_assert_int_eq(round_->state, FL_ROUND_TRAIN);
    ck_assert(fl_round_find(round_, 6)->cohort && fl_round_find(round_, 1)->cohort);
    ck_assert(!fl_round_find(round_, 3)->cohort && !fl_round_find(round_, 5)->cohort);
}
END_TEST

START_TEST(a_revoked_site_of_the_cohort_makes_another_attempt_without_it)
{
    to_collect(4);
    uint32_t effects = happen(FL_EVENT_REVOKED, 2);
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    ck_assert_uint_ne(effects & FL_EFFECT_ABANDON, 0);
    ck_assert_uint_eq(round_->breaks, 0);
    ck_assert_uint_eq(round_->attempt, 2);
    tick();
    ck_assert_int_eq(fl_round_due(round_, 2), FL_DUE_NOTHING);
    ck_assert_int_eq(fl_round_due(round_, 1), FL_DUE_OFFER);
}
END_TEST

START_TEST(the_round_timeout_ends_training_with_enough_and_breaks_it_without)
{
    to_train(4);
    all(FL_EVENT_TRAINED, 3);
    now += rules.round_timeout_ms;
    tick();
    ck_assert_int_eq(round_->state, FL_ROUND_COLLECT);
    teardown();
    setup();
    to_train(4);
    all(FL_EVENT_TRAINED, 2);
    now += rules.round_timeout_ms;
    tick();
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    ck_assert_uint_eq(round_->breaks, 1);
}
END_TEST

START_TEST(an_evaluation_that_finds_no_sites_ends_the_job_as_done)
{
    round_->rules.rounds = 1;
    to_commit(3);
    (void)happen(FL_EVENT_COMMITTED, 0);
    all(FL_EVENT_OFFLINE, 3);
    ck_assert(fl_round_only_evaluates(round_));
    now += rules.select_timeout_ms;
    tick();
    ck_assert_int_eq(round_->state, FL_ROUND_DONE);
}
END_TEST

START_TEST(a_full_disk_delays_the_sum_and_loses_nothing)
{
    to_collect(3);
    all(FL_EVENT_UPLOADED, 3);
    (void)happen(FL_EVENT_STORAGE_FAILED, 0);
    ck_assert_int_eq(round_->state, FL_ROUND_AGGREGATE);
    tick();
    now += FL_ROUND_RETRY_MS;
    ck_assert_uint_ne(happen(FL_EVENT_TICK, 0) & FL_EFFECT_AGGREGATE, 0);
    ck_assert_uint_eq(happen(FL_EVENT_TICK, 0) & FL_EFFECT_AGGREGATE, 0);
    ck_assert_uint_eq(fl_round_uploaded(round_), 3);
}
END_TEST

START_TEST(a_sum_that_fails_behind_a_restart_in_commit_breaks_the_attempt)
{
    const struct fl_round_input input = {.event = FL_EVENT_AGGREGATE_FAILED, .reason = "cut"};
    to_commit(3);
    uint32_t effects = fl_round_step(round_, &input, now);
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    ck_assert_uint_ne(effects & FL_EFFECT_ABANDON, 0);
}
END_TEST

START_TEST(a_site_whose_revocation_the_round_did_not_hear_is_not_counted)
{
    to_collect(4);
    all(FL_EVENT_UPLOADED, 4);
    ck_assert_int_eq(round_->state, FL_ROUND_AGGREGATE);
    fl_round_member(round_, 2)->revoked = true; /* in the roster, before a crash */
    (void)happen(FL_EVENT_AGGREGATED, 0);
    ck_assert_int_eq(round_->state, FL_ROUND_SELECT);
    ck_assert_uint_eq(round_->breaks, 0);
}
END_TEST

START_TEST(a_restored_round_keeps_what_was_accepted)
{
    fl_round_member(round_, 1)->cohort = true;
    for (uint32_t site = 1; site <= 3; site++) {
        struct fl_member *m = fl_round_member(round_, site);
        m->cohort = m->trained = true;
        m->uploaded = site == 1;
    }
    fl_round_restore(round_, FL_ROUND_COLLECT, 2, 3, 1, now);
    ck_assert_uint_eq(round_->attempt, 3);
    all(FL_EVENT_ONLINE, 3);
    ck_assert_int_eq(fl_round_due(round_, 1), FL_DUE_RECEIPT);
    ck_assert_int_eq(fl_round_due(round_, 2), FL_DUE_COLLECT);
    (void)happen(FL_EVENT_UPLOADED, 2);
    (void)happen(FL_EVENT_UPLOADED, 3);
    ck_assert_int_eq(round_->state, FL_ROUND_AGGREGATE);
}
END_TEST

START_TEST(work_that_died_with_the_process_begins_again)
{
    static const enum fl_round_state states[] = {FL_ROUND_CONFIGURE, FL_ROUND_AGGREGATE,
                                                 FL_ROUND_COMMIT};
    static const uint32_t effects[] = {FL_EFFECT_CONFIGURE, FL_EFFECT_AGGREGATE, FL_EFFECT_COMMIT};
    for (size_t i = 0; i < 3; i++) {
        fl_round_restore(round_, states[i], 1, 1, 0, now);
        ck_assert_uint_ne(happen(FL_EVENT_TICK, 0) & effects[i], 0);
    }
}
END_TEST

/* Every pair, from a state with members of every kind: no pair may leave the table's states. */
START_TEST(every_pair_of_state_and_event_is_either_in_the_table_or_changes_nothing)
{
    struct fl_round *before = calloc(1, sizeof *before);
    ck_assert_ptr_nonnull(before);
    for (int state = 0; state < FL_ROUND_STATE_COUNT; state++) {
        for (int event = 0; event < FL_EVENT_COUNT; event++) {
            fl_round_init(round_, &rules);
            for (uint32_t site = 1; site <= SITES; site++) {
                struct fl_member *m = fl_round_member(round_, site);
                m->online = m->seen = true;
                m->cohort = state >= FL_ROUND_TRAIN;
                m->trained = state >= FL_ROUND_KEYS && site != SITES;
                m->advertised = state >= FL_ROUND_SHARES && m->trained;
            }
            fl_round_restore(round_, (enum fl_round_state)state, 1, 1, 0, now);
            *before = *round_;
            const struct fl_round_input input = {
                .event = (enum fl_round_event)event, .site = SITES, .wait_ms = 1000};
            uint32_t effects = fl_round_step(round_, &input, now);
            bool accepted = fl_round_accepts((enum fl_round_state)state,
                                             (enum fl_round_event)event);
            if (!accepted) {
                ck_assert_uint_eq(effects, 0);
                ck_assert_mem_eq(before, round_, sizeof *before);
            }
            ck_assert_int_lt(round_->state, FL_ROUND_STATE_COUNT);
            if ((int)round_->state != state) /* a change of state is always committed */
                ck_assert_uint_ne(effects & FL_EFFECT_PERSIST, 0);
            ck_assert_uint_ge(round_->attempt, 1);
        }
    }
    free(before);
}
END_TEST

/* Random walks: attempts grow, a round's number grows by one and only on COMMITTED. */
START_TEST(no_walk_skips_a_round_or_reuses_an_attempt)
{
    uint64_t random = 88172645463325252u;
    for (int walk = 0; walk < 400; walk++) {
        fl_round_init(round_, &rules);
        round_->rules.secure = walk % 2 == 1;
        for (int i = 0; i < 400; i++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            uint32_t round = round_->round, attempt = round_->attempt;
            enum fl_round_event event = (enum fl_round_event)(random % FL_EVENT_COUNT);
            const struct fl_round_input input = {
                .event = event, .site = 1 + (uint32_t)(random >> 20) % SITES, .wait_ms = 500};
            now += (int64_t)(random >> 40) % 3000;
            (void)fl_round_step(round_, &input, now);
            if (round_->round != round) {
                ck_assert_uint_eq(round_->round, round + 1);
                ck_assert_int_eq(event, FL_EVENT_COMMITTED);
                ck_assert_uint_eq(round_->attempt, 1);
            } else {
                ck_assert_uint_le(round_->attempt, attempt + 1);
                ck_assert_uint_ge(round_->attempt, attempt);
            }
            if (round_->state == FL_ROUND_AGGREGATE)
                ck_assert_uint_ge(fl_round_uploaded(round_), rules.min_workers);
        }
    }
}
END_TEST

/* SITES sites in the state's stage, of the last attempt that the hundred has a number for. */
static void at_the_last_number(enum fl_round_state state)
{
    struct fl_round_rules secure = rules;
    secure.secure = secure.draws = true;
    fl_round_init(round_, &secure);
    for (uint32_t site = 1; site <= SITES; site++) {
        struct fl_member *m = fl_round_member(round_, site);
        m->online = m->seen = m->cohort = m->trained = m->advertised = true;
        m->shared = state >= FL_ROUND_COLLECT;
        m->uploaded = m->signed_ = state >= FL_ROUND_UNMASK;
    }
    fl_round_restore(round_, state, 1, 199, 0, now);
}

static void ck_out_of_numbers(uint32_t effects, uint32_t expected)
{
    ck_assert_int_eq(round_->state, FL_ROUND_PAUSED);
    ck_assert_uint_eq(round_->attempt, 199);
    ck_assert_uint_eq(effects, expected);
    ck_assert_ptr_nonnull(strstr(round_->reason, "backup"));
}

/* The next number is the first of a hundred that a copy of the database counts in. */
START_TEST(a_round_that_used_up_its_hundred_pauses_the_job_and_says_what_to_do)
{
    const struct fl_round_input failed = {.event = FL_EVENT_AGGREGATE_FAILED, .reason = "no sum"};
    const uint32_t broken = FL_EFFECT_PERSIST | FL_EFFECT_END | FL_EFFECT_ABANDON;
    at_the_last_number(FL_ROUND_KEYS);
    ck_out_of_numbers(happen(FL_EVENT_REVOKED, 1), broken);
    at_the_last_number(FL_ROUND_SHARES);
    (void)happen(FL_EVENT_SITE_FAILED, 1);
    ck_out_of_numbers(happen(FL_EVENT_SITE_FAILED, 2), broken);
    at_the_last_number(FL_ROUND_AGGREGATE); /* it would begin anew */
    ck_out_of_numbers(fl_round_step(round_, &failed, now), broken);
    for (int i = 0; i < 3; i++)
        ck_out_of_numbers(happen(FL_EVENT_RESUME, 0), FL_EFFECT_PERSIST | FL_EFFECT_END);
}
END_TEST

START_TEST(an_evaluation_that_used_up_its_hundred_ends_the_job_as_done)
{
    at_the_last_number(FL_ROUND_TRAIN);
    round_->round = rules.rounds + 1;
    (void)happen(FL_EVENT_REVOKED, 1);
    ck_assert_int_eq(round_->state, FL_ROUND_DONE);
    ck_assert_uint_eq(round_->attempt, 199);
}
END_TEST

START_TEST(no_walk_leaves_its_hundred)
{
    uint64_t random = 88172645463325252u;
    for (int walk = 0; walk < 400; walk++) {
        at_the_last_number((enum fl_round_state)(FL_ROUND_SELECT + walk % 9));
        round_->rules.secure = walk % 2 == 1;
        for (int i = 0; i < 400 && round_->round == 1; i++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            const struct fl_round_input input = {
                .event = (enum fl_round_event)(random % FL_EVENT_COUNT),
                .site = 1 + (uint32_t)(random >> 20) % SITES,
                .wait_ms = 500};
            now += (int64_t)(random >> 40) % 3000;
            (void)fl_round_step(round_, &input, now);
            ck_assert(round_->round > 1 || round_->attempt == 199);
        }
    }
}
END_TEST

START_TEST(states_and_events_have_names)
{
    for (int i = 0; i < FL_ROUND_STATE_COUNT; i++)
        ck_assert_ptr_nonnull(fl_round_state_name((enum fl_round_state)i));
    for (int i = 0; i < FL_EVENT_COUNT; i++)
        ck_assert_ptr_nonnull(fl_round_event_name((enum fl_round_event)i));
    ck_assert_str_eq(fl_round_state_name(FL_ROUND_SELECT), "select");
    ck_assert_str_eq(fl_round_event_name(FL_EVENT_RESUME), "resume");
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_job_runs_through_its_rounds_and_one_evaluation);
    tcase_add_test(tc, selection_waits_a_moment_for_sites_that_were_seen);
    tcase_add_test(tc, selection_begins_at_once_when_every_seen_site_is_there);
    tcase_add_test(tc, selection_waits_without_end_for_too_few_but_not_beyond_wait_timeout);
    tcase_add_test(tc, selection_goes_on_without_a_silent_site_after_its_timeout);
    tcase_add_test(tc, refusals_that_leave_too_few_fail_the_job_at_once);
    tcase_add_test(tc, a_deferred_site_is_asked_again_after_its_time);
    tcase_add_test(tc, a_site_lost_in_training_is_waited_for_until_it_counts_as_dead);
    tcase_add_test(tc, a_site_that_returns_in_training_gets_its_task_again);
    tcase_add_test(tc, a_site_that_failed_for_now_is_not_asked_before_its_time);
    tcase_add_test(tc, who_fails_while_updates_are_collected_stays_in_the_layout);
    tcase_add_test(tc, three_broken_attempts_pause_the_job_and_resume_goes_on);
    tcase_add_test(tc, a_revoked_site_of_the_cohort_makes_another_attempt_without_it);
    tcase_add_test(tc, the_round_timeout_ends_training_with_enough_and_breaks_it_without);
    tcase_add_test(tc, an_evaluation_that_finds_no_sites_ends_the_job_as_done);
    tcase_add_test(tc, a_full_disk_delays_the_sum_and_loses_nothing);
    tcase_add_test(tc, a_sum_that_fails_behind_a_restart_in_commit_breaks_the_attempt);
    tcase_add_test(tc, a_site_whose_revocation_the_round_did_not_hear_is_not_counted);
    tcase_add_test(tc, a_restored_round_keeps_what_was_accepted);
    tcase_add_test(tc, work_that_died_with_the_process_begins_again);
    tcase_add_test(tc, who_is_blamed_is_left_out_of_the_round_while_enough_others_are_there);
    tcase_add_test(tc, who_is_left_out_is_asked_all_the_same_when_too_few_others_are_there);
    tcase_add_test(tc, who_was_waited_for_in_vain_is_left_out_of_the_next_attempt);
    tcase_add_test(tc, every_pair_of_state_and_event_is_either_in_the_table_or_changes_nothing);
    tcase_add_test(tc, no_walk_skips_a_round_or_reuses_an_attempt);
    tcase_add_test(tc, a_round_that_used_up_its_hundred_pauses_the_job_and_says_what_to_do);
    tcase_add_test(tc, an_evaluation_that_used_up_its_hundred_ends_the_job_as_done);
    tcase_add_test(tc, no_walk_leaves_its_hundred);
    tcase_add_test(tc, states_and_events_have_names);
}

FL_TEST_MAIN("coordinator.round", add_tests)

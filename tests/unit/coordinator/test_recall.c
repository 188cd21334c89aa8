/*
 * Tests of the rules by which a restored coordinator believes its sites, and of its records.
 * Method: the pure functions on made-up words of sites; the records in a database of their own.
 */
#include "coordinator/recall.h"

#include <string.h>

#include "base/alloc.h"
#include "job/attempt.h"
#include "runner.h"
#include "submit_text.h"

#define COUNT(array) (uint32_t)(sizeof(array) / sizeof((array)[0]))

static struct fl_claim claim(uint32_t site, uint32_t version, uint8_t hash)
{
    struct fl_claim out = {.site = site, .version = version};
    memset(out.sha256, hash, sizeof out.sha256);
    return out;
}

static const struct fl_standing third = {.job = 1, .round = 3, .attempt = 2, .rounds = 6};

/* ---- who is ahead ---- */

START_TEST(a_coordinator_that_was_merely_restarted_is_not_behind)
{
    ck_assert(!fl_recall_is_ahead(&third, 3, 2, false)); /* the attempt that is under way */
    ck_assert(!fl_recall_is_ahead(&third, 3, 1, false));
    ck_assert(!fl_recall_is_ahead(&third, 2, 9, false));
    ck_assert(!fl_recall_is_ahead(&third, 0, 0, true)); /* a site that has seen nothing */
}
END_TEST

START_TEST(a_later_round_or_attempt_or_an_unknown_version_is_ahead)
{
    ck_assert(fl_recall_is_ahead(&third, 4, 1, false));
    ck_assert(fl_recall_is_ahead(&third, 3, 3, false));
    ck_assert(fl_recall_is_ahead(&third, 3, 2, true));
}
END_TEST

START_TEST(numbers_that_no_coordinator_gives_are_nonsense)
{
    ck_assert(!fl_recall_is_ahead(&third, 8, 1, true)); /* of 6 rounds and an evaluation */
    ck_assert(!fl_recall_is_ahead(&third, UINT32_MAX, UINT32_MAX, true));
    ck_assert(!fl_recall_is_ahead(&third, 3, UINT32_MAX, true));
}
END_TEST

START_TEST(a_copy_that_is_restored_twice_does_not_begin_its_attempt_twice)
{
    struct fl_standing copy = third;
    copy.attempt = 101;
    ck_assert(!fl_recall_is_ahead(&copy, 3, 101, false));
    copy.restored = true;
    ck_assert(fl_recall_is_ahead(&copy, 3, 101, false));
}
END_TEST

START_TEST(what_an_operator_decided_about_is_not_asked_again)
{
    struct fl_standing own = {.job = 1, .round = 3, .attempt = 101, .rounds = 6, .settled = true};
    ck_assert(!fl_recall_is_ahead(&own, 5, 1, true));
    ck_assert(!fl_recall_is_ahead(&own, 3, 101, true));
    ck_assert(fl_recall_is_ahead(&own, 4, 101, false)); /* the decision itself was lost */
}
END_TEST

/* ---- what is believed ---- */

static enum fl_recall_verdict judge(const struct fl_claim *claims, uint32_t count, bool certain,
                                    bool contradicted, uint32_t *version)
{
    return fl_recall_judge(claims, count, 2, certain, contradicted, version);
}

START_TEST(two_sites_with_one_hash_are_believed_whatever_a_third_says)
{
    uint32_t version;
    const struct fl_claim claims[] = {claim(9, 4, 0x66), claim(1, 3, 1), claim(1, 4, 2),
                                      claim(2, 3, 1), claim(2, 4, 2)};
    ck_assert_int_eq(judge(claims, COUNT(claims), false, false, &version), FL_RECALL_TAKE);
    ck_assert_uint_eq(version, 4);
    ck_assert_uint_eq(fl_recall_confirmed(claims, COUNT(claims), 4)->sha256[0], 2);
    ck_assert_uint_eq(fl_recall_confirmed(claims, COUNT(claims), 3)->sha256[0], 1);
}
END_TEST

START_TEST(the_newest_confirmed_version_is_taken_before_a_later_one_is_asked_about)
{
    uint32_t version;
    const struct fl_claim claims[] = {claim(1, 3, 1), claim(2, 3, 1), claim(2, 4, 2)};
    ck_assert_int_eq(judge(claims, COUNT(claims), true, false, &version), FL_RECALL_TAKE);
    ck_assert_uint_eq(version, 3);
    ck_assert_int_eq(fl_recall_judge(claims, COUNT(claims), 3, true, true, &version),
                     FL_RECALL_ASK);
    ck_assert_uint_eq(version, 4);
}
END_TEST

START_TEST(one_site_alone_neither_moves_nor_pauses_a_job_that_others_know_better)
{
    uint32_t version;
    const struct fl_claim claims[] = {claim(1, 3, 1), claim(1, 4, 2), claim(1, 6, 3)};
    ck_assert_int_eq(judge(claims, COUNT(claims), false, true, &version), FL_RECALL_LEVEL);
    ck_assert_int_eq(judge(claims, COUNT(claims), false, false, &version), FL_RECALL_ASK);
    ck_assert_int_eq(judge(claims, COUNT(claims), true, true, &version), FL_RECALL_ASK);
    ck_assert_uint_eq(version, 6);
    for (uint32_t i = 3; i <= 6; i++)
        ck_assert_ptr_null(fl_recall_confirmed(claims, COUNT(claims), i));
}
END_TEST

START_TEST(hashes_that_differ_are_for_a_person_to_decide)
{
    uint32_t version;
    const struct fl_claim two[] = {claim(1, 3, 1), claim(2, 3, 2)};
    const struct fl_claim four[] = {claim(1, 3, 1), claim(2, 3, 2), claim(3, 3, 1), claim(4, 3, 2)};
    ck_assert_int_eq(judge(two, COUNT(two), false, true, &version), FL_RECALL_ASK);
    ck_assert_int_eq(judge(four, COUNT(four), false, true, &version), FL_RECALL_ASK);
    ck_assert_uint_eq(version, 3);
    ck_assert_ptr_null(fl_recall_confirmed(four, COUNT(four), 3));
}
END_TEST

START_TEST(nothing_later_is_level)
{
    uint32_t version;
    const struct fl_claim old[] = {claim(1, 1, 1), claim(2, 2, 2)};
    ck_assert_int_eq(judge(NULL, 0, true, false, &version), FL_RECALL_LEVEL);
    ck_assert_int_eq(judge(old, COUNT(old), true, false, &version), FL_RECALL_LEVEL);
}
END_TEST

/* ---- numbers ---- */

static uint32_t floor_of(const struct fl_standing *own, uint32_t first, uint32_t second,
                         uint32_t *lone)
{
    const struct fl_witness witnesses[] = {{.site = 1, .round = 3, .attempt = first},
                                           {.site = 2, .round = 3, .attempt = second},
                                           {.site = 3, .round = 2, .attempt = 50}};
    return fl_recall_floor(own, witnesses, 3, lone);
}

START_TEST(the_next_attempt_lies_above_all_that_two_sites_saw)
{
    uint32_t lone;
    uint32_t floor = floor_of(&third, 7, 9, &lone);
    ck_assert_uint_eq(floor, 9);
    ck_assert_uint_eq(lone, 2); /* from 7, which both have passed */
    ck_assert_uint_eq(fl_recall_next_attempt(2, floor), 101);
    ck_assert_uint_eq(fl_recall_next_attempt(101, floor), 101);
    floor = floor_of(&third, 5000000, 5000000, &lone);
    ck_assert_uint_eq(floor, 5000000);
    ck_assert_uint_eq(lone, 0);
}
END_TEST

START_TEST(one_site_alone_raises_the_numbers_by_a_bounded_amount_in_all)
{
    struct fl_standing own = third;
    uint32_t lone;
    own.floor = floor_of(&own, 900000000, 2, &lone);
    ck_assert_uint_eq(own.floor, 2 + FL_RECALL_LONE_MOST);
    ck_assert_uint_eq(lone, FL_RECALL_LONE_MOST);
    own.lone = lone;
    own.attempt = fl_recall_next_attempt(own.attempt, own.floor);
    ck_assert_uint_eq(floor_of(&own, 900000000, 2, &lone), own.floor); /* and no further */
    ck_assert_uint_eq(lone, FL_RECALL_LONE_MOST);
}
END_TEST

START_TEST(a_floor_never_sinks_and_level_sites_raise_none)
{
    struct fl_standing own = third;
    uint32_t lone;
    ck_assert_uint_eq(floor_of(&own, 2, 1, &lone), 0);
    own.floor = 700;
    ck_assert_uint_eq(floor_of(&own, 9, 9, &lone), 700);
    ck_assert_uint_eq(lone, 0);
}
END_TEST

/* A job is looked at several times before it is taken up: a site that keeps a version which nobody
   else has any more put it aside each time anew, for ever. */
START_TEST(a_site_found_alone_with_its_word_stays_so_for_that_job)
{
    struct fl_dismissed dismissed = {.job = 0};
    ck_assert(!fl_recall_is_dismissed(&dismissed, 0, 0));
    fl_recall_dismiss(&dismissed, 7, 3);
    fl_recall_dismiss(&dismissed, 7, 4);
    fl_recall_dismiss(&dismissed, 7, 3);
    ck_assert_uint_eq(dismissed.sites.count, 2);
    ck_assert(fl_recall_is_dismissed(&dismissed, 7, 3));
    ck_assert(fl_recall_is_dismissed(&dismissed, 7, 4));
    ck_assert(!fl_recall_is_dismissed(&dismissed, 7, 5));
    ck_assert(!fl_recall_is_dismissed(&dismissed, 8, 3)); /* of another job it may know more */
    fl_recall_dismiss(&dismissed, 8, 5);
    ck_assert(!fl_recall_is_dismissed(&dismissed, 7, 3));
    ck_assert(fl_recall_is_dismissed(&dismissed, 8, 5));
    fl_recall_dismissed_free(&dismissed);
}
END_TEST

START_TEST(lives_of_a_coordinator_are_ordered_by_their_hundreds)
{
    ck_assert(fl_attempt_before(3, 1, 3, 2) && !fl_attempt_before(3, 2, 3, 2));
    ck_assert(fl_attempt_before(3, 9, 4, 1) && !fl_attempt_before(4, 1, 3, 9));
    ck_assert(fl_attempt_before(5, 1, 3, 101) && !fl_attempt_before(3, 101, 5, 1));
    ck_assert_uint_eq(fl_attempt_next_life(0), 101);
    ck_assert_uint_eq(fl_attempt_next_life(99), 101);
    ck_assert_uint_eq(fl_attempt_next_life(100), 201);
    ck_assert_uint_ge(fl_attempt_next_life(UINT32_MAX), UINT32_MAX);
}
END_TEST

/* ---- records ---- */

static struct fl_store *open_store(int64_t *job)
{
    static const char text[] =
        "[job]\nname = tiny\nrounds = 6\nstrategy = fedit\n[model]\nname = m\nsha256 = "
        "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"
        "[lora]\ntargets = q_proj\n[ranks]\ndefault = 2\n[train]\nsteps = 1\nbatch_size = 1\n"
        "seq_len = 8\nlr = 0.001\n[cohort]\nmin_workers = 3\n[privacy]\nsecure_aggregation = off\n";
    char directory[FL_PATH_BYTES];
    struct fl_store *store;
    struct fl_error error;
    fl_test_directory(directory);
    fl_assert_ok(fl_store_create(directory, &error), &error);
    fl_assert_ok(fl_store_open(directory, &store, &error), &error);
    *job = submit_text(store, text);
    return store;
}

START_TEST(a_standing_is_kept_and_found_again)
{
    int64_t job;
    struct fl_standing own;
    struct fl_job row;
    struct fl_error error;
    enum fl_job_state state;
    struct fl_store *store = open_store(&job);
    fl_assert_ok(fl_recall_standing(store, job, &own, &state, &error), &error);
    ck_assert(own.round == 1 && own.attempt == 1 && own.rounds == 6 && own.final_round);
    ck_assert(!own.restored && !own.settled && own.floor == 0 && state == FL_JOB_QUEUED);
    own.round = 4;
    own.attempt = 201;
    own.settled = true;
    own.floor = 200;
    own.lone = 3;
    fl_assert_ok(fl_recall_keep(store, &own, &error), &error);
    fl_assert_ok(fl_recall_move(store, &own, FL_JOB_PAUSED, FL_ROUND_PAUSED, "why", 9, &error),
                 &error);
    memset(&own, 0, sizeof own);
    fl_assert_ok(fl_recall_standing(store, job, &own, &state, &error), &error);
    ck_assert(own.round == 4 && own.attempt == 201 && own.settled && !own.restored);
    ck_assert(own.floor == 200 && own.lone == 3 && state == FL_JOB_PAUSED);
    fl_assert_ok(fl_queue_get(store, job, &row, &error), &error);
    ck_assert_str_eq(row.reason, "why");
    ck_assert_int_eq(row.phase, FL_ROUND_PAUSED);
    ck_assert_int_eq(fl_recall_standing(store, 99, &own, &state, &error), FL_ENOTFOUND);
    fl_store_close(&store);
}
END_TEST

START_TEST(an_unknown_job_of_a_site_raises_the_ids_to_come_but_not_for_ever)
{
    int64_t job, next = 0;
    bool news;
    struct fl_error error;
    struct fl_store *store = open_store(&job);
    fl_assert_ok(fl_recall_note_job(store, job, &news, &error), &error);
    ck_assert(!news);
    fl_assert_ok(fl_recall_note_job(store, 7, &news, &error), &error);
    ck_assert(news);
    fl_assert_ok(fl_recall_note_job(store, INT64_MAX, &news, &error), &error);
    fl_assert_ok(fl_recall_note_job(store, INT64_MAX, &news, &error), &error);
    ck_assert(news);
    struct fl_job_spec *spec = NULL;
    fl_assert_ok(fl_queue_spec(store, job, &spec, &error), &error);
    enum fl_status status = fl_queue_submit(store, spec, 7, &next, &error);
    fl_free(spec);
    fl_assert_ok(status, &error);
    ck_assert_int_eq(next, job + FL_RECALL_LONE_MOST + 1);
    fl_store_close(&store);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, a_coordinator_that_was_merely_restarted_is_not_behind);
    tcase_add_test(tc, a_later_round_or_attempt_or_an_unknown_version_is_ahead);
    tcase_add_test(tc, numbers_that_no_coordinator_gives_are_nonsense);
    tcase_add_test(tc, a_copy_that_is_restored_twice_does_not_begin_its_attempt_twice);
    tcase_add_test(tc, what_an_operator_decided_about_is_not_asked_again);
    tcase_add_test(tc, two_sites_with_one_hash_are_believed_whatever_a_third_says);
    tcase_add_test(tc, the_newest_confirmed_version_is_taken_before_a_later_one_is_asked_about);
    tcase_add_test(tc, one_site_alone_neither_moves_nor_pauses_a_job_that_others_know_better);
    tcase_add_test(tc, hashes_that_differ_are_for_a_person_to_decide);
    tcase_add_test(tc, nothing_later_is_level);
    tcase_add_test(tc, the_next_attempt_lies_above_all_that_two_sites_saw);
    tcase_add_test(tc, one_site_alone_raises_the_numbers_by_a_bounded_amount_in_all);
    tcase_add_test(tc, a_floor_never_sinks_and_level_sites_raise_none);
    tcase_add_test(tc, a_site_found_alone_with_its_word_stays_so_for_that_job);
    tcase_add_test(tc, lives_of_a_coordinator_are_ordered_by_their_hundreds);
    tcase_add_test(tc, a_standing_is_kept_and_found_again);
    tcase_add_test(tc, an_unknown_job_of_a_site_raises_the_ids_to_come_but_not_for_ever);
}

FL_TEST_MAIN("coordinator.recall", add_tests)

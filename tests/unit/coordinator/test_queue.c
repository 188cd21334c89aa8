/* Tests of the queue and the registry: what a job needs again after a crash is there. */
#include "coordinator/queue.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "coordinator/registry.h"
#include "coordinator/sweep.h"
#include "runner.h"
#include "submit_text.h"

static const char job_text[] =
    "[job]\nname = tiny\nrounds = 2\nstrategy = fedit\n[model]\nname = m\nsha256 = "
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"
    "[lora]\ntargets = q_proj\n[ranks]\ndefault = 2\n[train]\nsteps = 1\nbatch_size = 1\n"
    "seq_len = 8\nlr = 0.001\n[cohort]\nmin_workers = 3\n[privacy]\nsecure_aggregation = off\n";

static struct fl_store *store;
static struct fl_error error;

static void setup(void)
{
    char directory[FL_PATH_BYTES];
    fl_test_directory(directory);
    fl_assert_ok(fl_store_create(directory, &error), &error);
    fl_assert_ok(fl_store_open(directory, &store, &error), &error);
}

static void teardown(void)
{
    fl_store_close(&store);
}

static int64_t submit(void)
{
    return submit_text(store, job_text);
}

static void add_site(const char *name)
{
    uint8_t key[32] = {0};
    memcpy(key, name, strlen(name));
    fl_assert_ok(fl_store_run(store, &error,
                              "INSERT INTO sites(name, x25519, ed25519, created_ms) "
                              "VALUES(?,?,?,1)",
                              "sbb", name, key, sizeof key, key, sizeof key),
                 &error);
}

START_TEST(a_submitted_job_is_found_with_its_text_and_its_key)
{
    struct fl_job job;
    struct fl_job_spec *spec = NULL;
    struct fl_box_keys *keys = NULL;
    int64_t id = submit();
    fl_assert_ok(fl_queue_get(store, id, &job, &error), &error);
    ck_assert_str_eq(job.name, "tiny");
    ck_assert_int_eq(job.state, FL_JOB_QUEUED);
    fl_assert_ok(fl_queue_spec(store, id, &spec, &error), &error);
    ck_assert_uint_eq(spec->rounds, 2);
    fl_free(spec);
    fl_assert_ok(fl_queue_keys(store, id, &keys, &error), &error);
    ck_assert_mem_eq(fl_box_keys_public(keys), job.sealing_key, FL_KEY_BYTES);
    fl_box_keys_destroy(&keys);
    fl_assert_ok(fl_queue_clean(store, id, &error), &error);
    ck_assert_int_eq(fl_queue_keys(store, id, &keys, &error), FL_ENOTFOUND);
}
END_TEST

/* Give the job a file in each place where one may have any. */
static void leave_files(int64_t id, char paths[3][FL_PATH_BYTES])
{
    static const char *const names[] = {"spool/%lld/1-1/a.update", "rounds/%lld/1.start",
                                        "jobs/%lld.key"};
    for (int i = 0; i < 3; i++) {
        char name[64];
        size_t used = strcspn(names[i], "%");
        (void)snprintf(name, sizeof name, "%.*s%lld%s", (int)used, names[i], (long long)id,
                       names[i] + used + 4);
        fl_assert_ok(fl_store_path(store, paths[i], &error, "%s", name), &error);
        if (i < 2)
            fl_assert_ok(fl_store_put_file(store, paths[i], "x", 1, 0600, &error), &error);
        ck_assert(fl_path_exists(paths[i]));
    }
}

START_TEST(what_a_job_left_behind_that_ended_in_a_crash_is_swept_and_nothing_else)
{
    static char paths[3][3][FL_PATH_BYTES];
    static const enum fl_job_state states[] = {FL_JOB_DONE, FL_JOB_PAUSED, FL_JOB_CANCELLED};
    for (int i = 0; i < 3; i++) {
        int64_t id = submit();
        leave_files(id, paths[i]);
        fl_assert_ok(fl_queue_set_state(store, id, states[i], "", 9, &error), &error);
    }
    fl_assert_ok(fl_sweep_ended(store, &error), &error);
    fl_assert_ok(fl_sweep_ended(store, &error), &error);
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 3; k++)
            ck_assert_int_eq(fl_path_exists(paths[i][k]), states[i] == FL_JOB_PAUSED);
    }
}
END_TEST

START_TEST(jobs_run_in_the_order_of_submission_and_the_running_one_comes_first)
{
    struct fl_job job;
    ck_assert_int_eq(fl_queue_next(store, &job, &error), FL_ENOTFOUND);
    int64_t first = submit(), second = submit();
    fl_assert_ok(fl_queue_next(store, &job, &error), &error);
    ck_assert_int_eq(job.id, first);
    fl_assert_ok(fl_queue_set_state(store, second, FL_JOB_RUNNING, "", 9, &error), &error);
    fl_assert_ok(fl_queue_next(store, &job, &error), &error);
    ck_assert_int_eq(job.id, second);
    fl_assert_ok(fl_queue_set_state(store, second, FL_JOB_DONE, "", 9, &error), &error);
    fl_assert_ok(fl_queue_next(store, &job, &error), &error);
    ck_assert_int_eq(job.id, first);
    ck_assert_int_eq(fl_queue_get(store, 99, &job, &error), FL_ENOTFOUND);
}
END_TEST

START_TEST(a_round_is_saved_and_found_again)
{
    struct fl_job job;
    struct fl_round *round = calloc(2, sizeof *round);
    const struct fl_round_rules rules = {.rounds = 2, .min_workers = 2};
    ck_assert_ptr_nonnull(round);
    add_site("a");
    add_site("b");
    int64_t id = submit();
    fl_round_init(&round[0], &rules);
    for (uint32_t site = 1; site <= 2; site++)
        fl_round_member(&round[0], site)->cohort = true;
    fl_round_member(&round[0], 2)->trained = true;
    fl_round_restore(&round[0], FL_ROUND_TRAIN, 2, 3, 1, 0);
    fl_assert_ok(fl_queue_save(store, id, FL_JOB_RUNNING, &round[0], NULL, 10, &error), &error);
    fl_assert_ok(fl_queue_get(store, id, &job, &error), &error);
    ck_assert_int_eq(job.phase, FL_ROUND_TRAIN);
    ck_assert_uint_eq(job.round, 2);
    ck_assert_uint_eq(job.attempt, 3);
    ck_assert_uint_eq(job.breaks, 1);
    fl_round_init(&round[1], &rules);
    fl_assert_ok(fl_queue_load_members(store, &job, &round[1], &error), &error);
    ck_assert_uint_eq(fl_round_cohort(&round[1]), 2);
    ck_assert_uint_eq(fl_round_trained(&round[1]), 1);
    free(round);
}
END_TEST

static enum fl_status count_row(void *context, const struct fl_row *row)
{
    *(int64_t *)context = fl_row_i64(row, 0);
    return FL_OK;
}

/* Rows of members whose mark `failed` is 7, which only this test writes. */
static int64_t untouched(void)
{
    int64_t rows = 0;
    fl_assert_ok(fl_store_select(store, &error, count_row, &rows, NULL,
                                 "SELECT COUNT(*) FROM members WHERE failed = 7", ""),
                 &error);
    return rows;
}

START_TEST(only_rows_that_changed_are_written_again)
{
    const struct fl_round_rules rules = {.rounds = 2, .min_workers = 2};
    struct fl_round *round = calloc(1, sizeof *round);
    struct fl_queue_saved *saved = calloc(1, sizeof *saved);
    ck_assert(round && saved);
    add_site("a");
    add_site("b");
    int64_t id = submit();
    fl_round_init(round, &rules);
    for (uint32_t site = 1; site <= 2; site++)
        fl_round_member(round, site)->cohort = true;
    fl_round_restore(round, FL_ROUND_TRAIN, 1, 1, 0, 0);
    fl_assert_ok(fl_queue_save(store, id, FL_JOB_RUNNING, round, saved, 1, &error), &error);
    fl_assert_ok(fl_store_run(store, &error, "UPDATE members SET failed = 7", ""), &error);
    fl_round_member(round, 2)->trained = true;
    fl_assert_ok(fl_queue_save(store, id, FL_JOB_RUNNING, round, saved, 1, &error), &error);
    ck_assert_int_eq(untouched(), 1);
    saved->job = 0; /* what it knew was rolled back */
    fl_assert_ok(fl_queue_save(store, id, FL_JOB_RUNNING, round, saved, 1, &error), &error);
    ck_assert_int_eq(untouched(), 0);
    round->attempt = 2; /* the same marks, of other rows */
    fl_assert_ok(fl_queue_save(store, id, FL_JOB_RUNNING, round, saved, 1, &error), &error);
    fl_assert_ok(fl_store_run(store, &error, "UPDATE members SET failed = 7", ""), &error);
    ck_assert_int_eq(untouched(), 4);
    free(saved);
    free(round);
}
END_TEST

START_TEST(who_is_left_out_is_left_out_behind_a_restart)
{
    struct fl_job job;
    const struct fl_round_rules rules = {.rounds = 2, .min_workers = 2};
    struct fl_round *round = calloc(2, sizeof *round);
    struct fl_queue_saved *saved = calloc(1, sizeof *saved);
    ck_assert(round && saved);
    add_site("a");
    add_site("b");
    int64_t id = submit();
    fl_round_init(&round[0], &rules);
    for (uint32_t site = 1; site <= 2; site++)
        fl_round_member(&round[0], site)->left_out = site == 2;
    fl_round_member(&round[0], 1)->failed_sums = 3;
    round[0].retraining = 2;
    round[0].anew_from = 2;
    fl_round_restore(&round[0], FL_ROUND_SELECT, 1, 2, 1, 0);
    for (int known = 0; known < 2; known++) {
        fl_assert_ok(fl_queue_save(store, id, FL_JOB_RUNNING, &round[0], saved, 10, &error),
                     &error);
        fl_assert_ok(fl_queue_get(store, id, &job, &error), &error);
        fl_round_init(&round[1], &rules);
        fl_assert_ok(fl_queue_load_members(store, &job, &round[1], &error), &error);
        ck_assert(fl_round_member(&round[1], 2)->left_out);
        ck_assert(!fl_round_member(&round[1], 1)->left_out);
        ck_assert_uint_eq(fl_round_member(&round[1], 1)->failed_sums, 3);
        ck_assert_uint_eq(fl_round_member(&round[1], 2)->failed_sums, 0);
        ck_assert_uint_eq(round[1].retraining, 2);
        ck_assert_uint_eq(round[1].anew_from, 2);
        struct fl_job_standing standing;
        fl_assert_ok(fl_queue_standing(store, id, 1, &standing, &error), &error);
        ck_assert(!standing.left_out && standing.failed_sums == 3);
    }
    fl_round_member(&round[0], 2)->left_out = false;
    for (int known = 1; known >= 0; known--) { /* a next process knows nothing of the rows */
        saved->job = known ? saved->job : 0;
        fl_assert_ok(fl_queue_save(store, id, FL_JOB_RUNNING, &round[0], saved, 10, &error),
                     &error);
        fl_round_init(&round[1], &rules);
        fl_assert_ok(fl_queue_load_members(store, &job, &round[1], &error), &error);
        ck_assert(!fl_round_member(&round[1], 2)->left_out);
    }
    free(saved);
    free(round);
}
END_TEST

/* An attempt in which `signed_` of n members signed what all of them uploaded. */
static void put_attempt(struct fl_round *round, int64_t id, uint32_t attempt, uint32_t n,
                        uint32_t signed_)
{
    for (uint32_t i = 0; i < round->count; i++)
        round->members[i] = (struct fl_member){.site = i + 1};
    for (uint32_t i = 0; i < n; i++) {
        struct fl_member *m = fl_round_member(round, i + 1);
        m->cohort = m->trained = m->advertised = m->shared = m->uploaded = true;
        m->signed_ = i < signed_;
    }
    fl_round_restore(round, FL_ROUND_UNMASK, 1, attempt, 0, 0);
    fl_assert_ok(fl_queue_save(store, id, FL_JOB_RUNNING, round, NULL, 1, &error), &error);
}

START_TEST(a_pledge_is_found_by_the_threshold_of_its_cohort)
{
    static const struct {
        uint32_t n, signed_, pledged;
    } cases[] = {{3, 2, 0}, {3, 3, 3}, {4, 2, 0}, {4, 3, 4}, {5, 3, 0}, {5, 4, 5}};
    struct fl_job job;
    const struct fl_round_rules rules = {.rounds = 2, .min_workers = 3, .secure = true};
    struct fl_round *round = calloc(1, sizeof *round);
    ck_assert_ptr_nonnull(round);
    for (int i = 0; i < 5; i++)
        add_site((const char *const[]){"a", "b", "c", "d", "e"}[i]);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t id = submit();
        fl_round_init(round, &rules);
        put_attempt(round, id, 1, cases[i].n, cases[i].signed_);
        fl_round_restore(round, FL_ROUND_SELECT, 1, 2, 0, 0);
        fl_assert_ok(fl_queue_save(store, id, FL_JOB_RUNNING, round, NULL, 1, &error), &error);
        fl_assert_ok(fl_queue_get(store, id, &job, &error), &error);
        fl_round_init(round, &rules);
        fl_assert_ok(fl_queue_load_members(store, &job, round, &error), &error);
        ck_assert_uint_eq(fl_round_pledged(round), cases[i].pledged);
    }
    int64_t id = submit(); /* the newest that was asked counts */
    fl_round_init(round, &rules);
    put_attempt(round, id, 1, 5, 5);
    put_attempt(round, id, 2, 4, 4);
    put_attempt(round, id, 3, 5, 3);
    fl_assert_ok(fl_queue_get(store, id, &job, &error), &error);
    fl_round_init(round, &rules);
    fl_assert_ok(fl_queue_load_members(store, &job, round, &error), &error);
    ck_assert_uint_eq(fl_round_pledged(round), 4);
    round->retraining = 1; /* what was asked before the round began anew binds nobody */
    round->anew_from = 3;
    fl_assert_ok(fl_queue_save(store, id, FL_JOB_RUNNING, round, NULL, 1, &error), &error);
    fl_round_init(round, &rules);
    fl_assert_ok(fl_queue_load_members(store, &job, round, &error), &error);
    ck_assert_uint_eq(fl_round_pledged(round), 0);
    job.round = 2;
    fl_round_init(round, &rules);
    fl_assert_ok(fl_queue_load_members(store, &job, round, &error), &error);
    ck_assert_uint_eq(round->retraining, 0);
    free(round);
}
END_TEST

START_TEST(an_attempt_keeps_its_plan)
{
    struct fl_attempt_row in = {.start_bytes = 77, .ranges = {1.5, 0.25, 0.125}}, out;
    int64_t id = submit();
    memset(in.start_root, 3, sizeof in.start_root);
    ck_assert_int_eq(fl_rank_plan_create(&in.plan, 2, 3), FL_OK);
    for (int i = 0; i < 3; i++)
        in.plan.global[i] = in.plan.ranks[i] = in.plan.ranks[3 + i] = (uint16_t)(i + 1);
    fl_assert_ok(fl_queue_set_attempt(store, id, 1, 1, &in, &error), &error);
    fl_assert_ok(fl_queue_attempt(store, id, 1, 1, &out, &error), &error);
    ck_assert_uint_eq(out.plan.sites, 2);
    ck_assert_uint_eq(out.plan.modules, 3);
    ck_assert_mem_eq(out.plan.ranks, in.plan.ranks, 12);
    ck_assert_uint_eq(out.start_bytes, 77);
    ck_assert(out.ranges.a == 1.5 && out.ranges.b == 0.25 && out.ranges.m == 0.125);
    ck_assert_mem_eq(out.start_root, in.start_root, FL_HASH_BYTES);
    fl_attempt_row_free(&in);
    fl_attempt_row_free(&out);
    ck_assert_int_eq(fl_queue_attempt(store, id, 1, 2, &out, &error), FL_ENOTFOUND);
}
END_TEST

START_TEST(a_refusal_is_listed_until_the_site_takes_part)
{
    struct fl_refusal_row row = {.site = 1, .code = FL_REFUSAL_RANK, .permanent = true}, *rows;
    uint32_t count;
    add_site("clinic");
    int64_t id = submit();
    fl_wire_set_text(row.reason, sizeof row.reason, "rank 64 is above max_rank");
    fl_assert_ok(fl_queue_refuse(store, id, &row, 5, &error), &error);
    fl_assert_ok(fl_queue_refuse(store, id, &row, 6, &error), &error);
    fl_assert_ok(fl_queue_refusals(store, id, &rows, &count, &error), &error);
    ck_assert_uint_eq(count, 1);
    ck_assert_str_eq(rows[0].worker, "clinic");
    ck_assert_int_eq(rows[0].code, FL_REFUSAL_RANK);
    fl_free(rows);
    fl_assert_ok(fl_queue_unrefuse(store, id, 1, &error), &error);
    fl_assert_ok(fl_queue_refusals(store, id, &rows, &count, &error), &error);
    ck_assert_uint_eq(count, 0);
}
END_TEST

static void put_version(int64_t job, uint32_t number)
{
    struct fl_version *v = calloc(1, sizeof *v);
    ck_assert_ptr_nonnull(v);
    v->job = job;
    v->version = v->round = number;
    v->rank_count = 2;
    v->ranks[0] = 4;
    v->ranks[1] = 8;
    v->rank = 8;
    v->train_loss = 2.0;
    v->eval_loss = (double)NAN;
    v->sha256[0] = (uint8_t)number;
    enum fl_status status = fl_registry_put(store, v, &error);
    free(v);
    fl_assert_ok(status, &error);
}

static enum fl_status count_version(void *context, const struct fl_version *version)
{
    (void)version;
    ++*(uint32_t *)context;
    return FL_OK;
}

START_TEST(versions_are_kept_and_measured_and_rolled_back)
{
    struct fl_job job;
    uint32_t listed = 0;
    struct fl_version *v = calloc(1, sizeof *v);
    ck_assert_ptr_nonnull(v);
    int64_t id = submit();
    for (uint32_t number = 0; number <= 2; number++)
        put_version(id, number);
    fl_assert_ok(fl_registry_newest(store, id, v, &error), &error);
    ck_assert_uint_eq(v->version, 2);
    ck_assert_uint_eq(v->ranks[1], 8);
    ck_assert(!isfinite(v->eval_loss));
    fl_assert_ok(fl_registry_set_eval(store, id, 1, 1.25, 100, &error), &error);
    fl_assert_ok(fl_registry_set_eval(store, id, 0, 3.5, 100, &error), &error);
    fl_assert_ok(fl_registry_get(store, id, 1, v, &error), &error);
    ck_assert(v->eval_loss == 1.25 && v->eval_tokens == 100);
    fl_assert_ok(fl_registry_each(store, id, count_version, &listed, &error), &error);
    ck_assert_uint_eq(listed, 2);
    fl_assert_ok(fl_queue_get(store, id, &job, &error), &error);
    ck_assert(job.base_loss == 3.5);
    ck_assert_int_eq(fl_registry_rollback(store, &job, 7, &error), FL_ENOTFOUND);
    fl_assert_ok(fl_registry_rollback(store, &job, 1, &error), &error);
    fl_assert_ok(fl_queue_get(store, id, &job, &error), &error);
    ck_assert(job.has_current && job.current == 1);
    job.state = FL_JOB_RUNNING;
    ck_assert_int_eq(fl_registry_rollback(store, &job, 2, &error), FL_EBUSY);
    free(v);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_submitted_job_is_found_with_its_text_and_its_key);
    tcase_add_test(tc, what_a_job_left_behind_that_ended_in_a_crash_is_swept_and_nothing_else);
    tcase_add_test(tc, jobs_run_in_the_order_of_submission_and_the_running_one_comes_first);
    tcase_add_test(tc, a_round_is_saved_and_found_again);
    tcase_add_test(tc, only_rows_that_changed_are_written_again);
    tcase_add_test(tc, who_is_left_out_is_left_out_behind_a_restart);
    tcase_add_test(tc, a_pledge_is_found_by_the_threshold_of_its_cohort);
    tcase_add_test(tc, an_attempt_keeps_its_plan);
    tcase_add_test(tc, a_refusal_is_listed_until_the_site_takes_part);
    tcase_add_test(tc, versions_are_kept_and_measured_and_rolled_back);
}

FL_TEST_MAIN("coordinator.queue", add_tests)

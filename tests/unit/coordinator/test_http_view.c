/* Tests of what HTTP shows of a coordinator: a view is made from a real database and roster. */
#include "coordinator/http_view.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "coordinator/server_internal.h"
#include "runner.h"
#include "submit_text.h"

static const char job_text[] =
    "[job]\nname = tiny\nrounds = 9\n[model]\nname = m\nsha256 = "
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"
    "[lora]\ntargets = q_proj\n[ranks]\ndefault = 4\n[train]\nsteps = 1\nbatch_size = 1\n"
    "seq_len = 8\nlr = 0.001\n[privacy]\nsecure_aggregation = off\n";

static struct fl_desk *desk;
static struct fl_server *server;
static struct fl_view_maker maker;
static struct fl_view *view;
static struct fl_buf out;
static struct fl_error error;

static void setup(void)
{
    char directory[FL_PATH_BYTES];
    const struct fl_server_options options = {.exit_when_idle = false};
    fl_test_directory(directory);
    fl_assert_ok(fl_desk_create(directory, NULL, NULL, &error), &error);
    fl_assert_ok(fl_desk_open(directory, fl_clock_system(), &desk, &error), &error);
    fl_assert_ok(fl_server_create(desk, &options, &server, &error), &error);
    maker.changes = -1;
    fl_buf_init(&out, 1u << 20);
}

static void release(void)
{
    if (view)
        view->base.destroy(&view->base);
    view = NULL;
}

static void teardown(void)
{
    release();
    fl_buf_free(&out);
    fl_view_maker_free(&maker);
    fl_server_destroy(&server);
    fl_desk_close(&desk);
}

static void look(void)
{
    release();
    fl_assert_ok(fl_view_make(&maker, server, &view, &error), &error);
}

static int64_t submit(void)
{
    return submit_text(desk->store, job_text);
}

/* Two blocks with a q_proj and a v_proj each: the targets are two. */
static void set_inventory(int64_t job)
{
    struct fl_module modules[4];
    struct fl_inventory inventory = {.modules = modules, .count = 4, .layers = 2};
    uint8_t root[FL_HASH_BYTES] = {1};
    struct fl_buf bytes;
    for (uint32_t i = 0; i < 4; i++) {
        modules[i] = (struct fl_module){.in = 8, .out = 8, .layer = i / 2};
        (void)snprintf(modules[i].name, sizeof modules[i].name, "model.layers.%u.self_attn.%s",
                       i / 2, i % 2 ? "v_proj" : "q_proj");
    }
    fl_buf_init(&bytes, 65536);
    fl_assert_ok(fl_inventory_encode(&inventory, &bytes), &error);
    fl_assert_ok(fl_queue_set_inventory(desk->store, job, root, bytes.data, bytes.length, &error),
                 &error);
    fl_buf_free(&bytes);
}

static void put_version(int64_t job, uint32_t number, double eval_loss)
{
    struct fl_version *v = calloc(1, sizeof *v);
    ck_assert_ptr_nonnull(v);
    v->job = job;
    v->version = v->round = number;
    (void)snprintf(v->strategy, sizeof v->strategy, "alternating");
    memset(v->sha256, (int)number, sizeof v->sha256);
    v->has_parent = true;
    memset(v->parent_sha256, (int)number - 1, sizeof v->parent_sha256);
    v->bytes = 1000;
    v->rank_count = 2;
    v->ranks[0] = (uint16_t)number;
    v->ranks[1] = 4;
    v->rank = 4;
    v->workers = 3;
    v->created_ms = 1700000000000;
    v->train_loss = 2.0;
    v->eval_loss = eval_loss;
    v->eval_tokens = isnan(eval_loss) ? 0 : 100;
    v->delta_norm = 0.5;
    v->cut_fraction = 0;
    fl_assert_ok(fl_registry_put(desk->store, v, &error), &error);
    free(v);
}

static void add_site(const char *name)
{
    struct fl_identity identity;
    memset(&identity, 0, sizeof identity);
    memcpy(identity.x25519, name, strlen(name));
    memcpy(identity.ed25519, name, strlen(name));
    fl_assert_ok(fl_roster_add(desk->roster, name, &identity, 5, &error), &error);
}

static bool metrics_have(const char *line)
{
    fl_buf_free(&out);
    fl_buf_init(&out, 1u << 20);
    fl_view_metrics(view, &out);
    fl_assert_ok(fl_buf_status(&out), &error);
    return strstr(fl_buf_text(&out), line) != NULL;
}

START_TEST(a_fresh_coordinator_shows_nothing_and_all_families)
{
    static const char *const families[] = {"fedlora_workers{state=\"online\"} 0\n",
                                           "fedlora_jobs{state=\"running\"} 0\n",
                                           "fedlora_rounds_total{result=\"committed\"} 0\n",
                                           "fedlora_received_bytes_total 0\n",
                                           "fedlora_round_retries_total 0\n",
                                           "fedlora_tokens_per_second 0\n",
                                           "fedlora_round_phase{phase=\"idle\"} 1\n",
                                           "# TYPE fedlora_held_out_loss gauge\n"};
    look();
    ck_assert_int_eq(view->current, -1);
    ck_assert_str_eq(fl_view_state(view), "idle");
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        ck_assert_msg(metrics_have(families[i]), "%s is not in %s", families[i], fl_buf_text(&out));
}
END_TEST

START_TEST(a_job_has_its_versions_losses_and_ranks)
{
    int64_t job = submit();
    set_inventory(job);
    put_version(job, 1, 3.25);
    put_version(job, 2, (double)NAN);
    look();
    ck_assert_int_eq(view->current, 0);
    const struct fl_view_job *j = view->jobs[0];
    ck_assert_uint_eq(j->version_count, 2);
    ck_assert_uint_eq(j->layers, 2);
    ck_assert_uint_eq(fl_view_layer_rank(j, &j->versions[1], 0), 2);
    ck_assert_uint_eq(fl_view_layer_rank(j, &j->versions[1], 1), 4);
    ck_assert_uint_eq(fl_view_layer_rank(j, &j->versions[1], 2), 0);
    ck_assert_ptr_eq(fl_view_evaluated(j), &j->versions[0]);
    ck_assert_ptr_eq(fl_view_current_version(j), &j->versions[1]);
    ck_assert(metrics_have("fedlora_held_out_loss{job_id=\"1\",job_name=\"tiny\"} 3.25\n"));
    ck_assert(metrics_have("fedlora_job_rounds{job_id=\"1\",job_name=\"tiny\"} 9\n"));
    ck_assert(metrics_have("fedlora_job_version{job_id=\"1\",job_name=\"tiny\"} 2\n"));
    ck_assert(metrics_have("fedlora_jobs{state=\"queued\"} 1\n"));
    ck_assert_ptr_null(fl_view_find_job(view, 2));
    ck_assert_ptr_eq(fl_view_find_job(view, 1), j);
    ck_assert_ptr_null(fl_view_find_version(j, 3));
}
END_TEST

START_TEST(only_the_newest_jobs_and_versions_are_kept)
{
    fl_assert_ok(fl_store_begin(desk->store, &error), &error);
    for (int i = 0; i < FL_VIEW_JOBS_MAX + 5; i++)
        (void)submit();
    for (uint32_t i = 1; i <= FL_VIEW_VERSIONS_MAX + 5; i++)
        put_version(FL_VIEW_JOBS_MAX + 5, i, 1.0);
    fl_assert_ok(fl_store_commit(desk->store, &error), &error);
    look();
    ck_assert_uint_eq(view->job_count, FL_VIEW_JOBS_MAX);
    ck_assert_int_eq(view->jobs[0]->row.id, FL_VIEW_JOBS_MAX + 5);
    ck_assert_uint_eq(view->jobs[0]->version_count, FL_VIEW_VERSIONS_MAX);
    ck_assert_uint_eq(view->jobs[0]->versions[0].version, 6);
    ck_assert_int_eq(view->current, FL_VIEW_JOBS_MAX - 1); /* the first that is queued */
    ck_assert(metrics_have("fedlora_jobs{state=\"queued\"} 25\n"));
}
END_TEST

START_TEST(what_cannot_change_is_shared_and_outlives_the_maker)
{
    int64_t job = submit();
    put_version(job, 1, 1.0);
    look();
    struct fl_view *first = view;
    view = NULL;
    look(); /* nothing was written */
    ck_assert_ptr_eq(first->jobs[0], view->jobs[0]);
    fl_assert_ok(fl_queue_set_state(desk->store, job, FL_JOB_FAILED, "why", 9, &error), &error);
    look();
    ck_assert_ptr_ne(first->jobs[0], view->jobs[0]);
    struct fl_view_job *ended = view->jobs[0];
    add_site("clinic");
    (void)submit();
    look();
    ck_assert_ptr_eq(view->jobs[1], ended);
    fl_view_maker_free(&maker);
    ck_assert_str_eq(first->jobs[0]->row.name, "tiny");
    ck_assert_str_eq(ended->row.reason, "why");
    first->base.destroy(&first->base);
}
END_TEST

START_TEST(sites_are_seen_as_the_loop_has_them)
{
    static const char *const names[] = {"bank", "clinic", "library", "museum"};
    for (size_t i = 0; i < 4; i++)
        add_site(names[i]);
    fl_assert_ok(fl_roster_revoke(desk->roster, "museum", 5, &error), &error);
    for (size_t i = 0; i < 2; i++) {
        struct fl_seat *seat = fl_seat_open(server, i + 1, names[i]);
        ck_assert_ptr_nonnull(seat);
        seat->live = true;
        seat->activity = i == 0 ? FL_ACTIVITY_TRAINING : FL_ACTIVITY_IDLE;
        seat->tokens_per_second = 125.5;
    }
    look();
    ck_assert_uint_eq(view->site_count, 4);
    ck_assert_int_eq(view->sites[0].state, FL_VIEW_TRAINING);
    ck_assert_int_eq(view->sites[1].state, FL_VIEW_ONLINE);
    ck_assert_int_eq(view->sites[2].state, FL_VIEW_OFFLINE);
    ck_assert_int_eq(view->sites[3].state, FL_VIEW_REVOKED);
    ck_assert_double_eq_tol(fl_view_tokens_per_second(view), 125.5, 1e-9);
    ck_assert(metrics_have("fedlora_workers{state=\"training\"} 1\n"));
    ck_assert(metrics_have("fedlora_worker_up{worker=\"library\"} 0\n"));
    ck_assert(!metrics_have("museum"));
}
END_TEST

static void page(const struct fl_view_job *job)
{
    fl_buf_free(&out);
    fl_buf_init(&out, 8u << 20);
    fl_view_page(view, job, &out);
    fl_assert_ok(fl_buf_status(&out), &error);
}

static bool has(const char *text)
{
    return strstr(fl_buf_text(&out), text) != NULL;
}

START_TEST(the_page_is_whole_with_and_without_a_job)
{
    look();
    page(NULL);
    ck_assert(has("No job yet") && has("None is enrolled") && has("</html>"));
    int64_t job = submit();
    set_inventory(job);
    for (uint32_t i = 1; i <= 60; i++)
        put_version(job, i, 3.0 + 1.0 / i);
    add_site("clinic");
    look();
    page(NULL);
    ck_assert(has("Job 1: tiny") && has("clinic") && has("Sites: 0 of 1 online"));
    ck_assert(has("aria-label=\"Held-out loss by round\""));
    ck_assert(has("version 60, layer 0: rank 60") && has("/adapters/1/60/adapter_config.json"));
    ck_assert(!has("/adapters/1/20/adapter_config.json")); /* 40 are listed */
    page(view->jobs[0]);
    ck_assert(has("fedlora: job tiny") && !has("Since the start"));
}
END_TEST

START_TEST(what_sites_and_jobs_say_cannot_become_markup)
{
    static const char evil[] = "<script>alert(1)</script>\"'&\xff\x1b[31m";
    struct fl_refusal_row row = {.code = FL_REFUSAL_POLICY, .permanent = true};
    add_site("clinic");
    int64_t job = submit();
    row.site = fl_roster_by_name(desk->roster, "clinic")->id;
    (void)snprintf(row.reason, sizeof row.reason, "%s", evil);
    fl_assert_ok(fl_queue_refuse(desk->store, job, &row, 5, &error), &error);
    fl_assert_ok(fl_queue_set_state(desk->store, job, FL_JOB_FAILED, evil, 9, &error), &error);
    look();
    page(NULL);
    ck_assert(!has("<script>alert") && !has("\x1b") && !has("\xff"));
    ck_assert(has("&#60;script&#62;alert(1)&#60;/script&#62;&#34;&#39;&#38;"));
    ck_assert(!has("style=") && !has(" onclick")); /* the policy would not let them work */
}
END_TEST

START_TEST(the_same_is_told_as_json)
{
    json_t *root = NULL;
    int64_t job = submit();
    set_inventory(job);
    put_version(job, 1, 3.25);
    put_version(job, 2, (double)NAN);
    add_site("clinic");
    look();
    fl_assert_ok(fl_view_json(view, &out), &error);
    fl_assert_ok(fl_json_parse(fl_buf_text(&out), out.length, "status", &root, &error), &error);
    const json_t *jobs = json_object_get(root, "jobs");
    const json_t *versions = json_object_get(json_array_get(jobs, 0), "versions");
    const json_t *first = json_array_get(versions, 0), *second = json_array_get(versions, 1);
    ck_assert_uint_eq(json_array_size(versions), 2);
    ck_assert_double_eq_tol(json_real_value(json_object_get(first, "eval_loss")), 3.25, 1e-9);
    ck_assert(json_is_null(json_object_get(second, "eval_loss")));
    ck_assert(json_is_true(json_object_get(second, "current")));
    ck_assert_str_eq(json_string_value(json_object_get(second, "parent_sha256")),
                     json_string_value(json_object_get(first, "sha256")));
    ck_assert_uint_eq(json_array_size(json_object_get(second, "layer_ranks")), 2);
    ck_assert_str_eq(json_string_value(json_object_get(root, "state")), "idle");
    ck_assert_uint_eq(json_array_size(json_object_get(root, "workers")), 1);
    json_decref(root);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_fresh_coordinator_shows_nothing_and_all_families);
    tcase_add_test(tc, a_job_has_its_versions_losses_and_ranks);
    tcase_add_test(tc, only_the_newest_jobs_and_versions_are_kept);
    tcase_add_test(tc, what_cannot_change_is_shared_and_outlives_the_maker);
    tcase_add_test(tc, sites_are_seen_as_the_loop_has_them);
    tcase_add_test(tc, the_page_is_whole_with_and_without_a_job);
    tcase_add_test(tc, what_sites_and_jobs_say_cannot_become_markup);
    tcase_add_test(tc, the_same_is_told_as_json);
}

FL_TEST_MAIN("coordinator.http_view", add_tests)

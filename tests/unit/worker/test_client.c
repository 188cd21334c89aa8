/*
 * A site's I/O thread against a coordinator that repeats, reorders, forgets, hangs up and lies.
 * Method: the real client and work thread, a stub trainer, a fake link and a clock that the test
 * moves (fake_link.h).
 */
#include "worker/client.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "fake_link.h"
#include "runner.h"

struct bench {
    struct stub_site site;
    struct fake fake;
    struct fl_box_keys *job_keys;
    struct fl_buf start;
    struct fl_object_ref start_ref;
    uint8_t ranks[2 * STUB_MODULES], tiers[1];
};

static void bench_open(struct bench *self, const char *policy)
{
    struct fl_error error;
    struct fl_adapter *start = stub_start(1);
    stub_site_open(&self->site, policy);
    ck_assert_int_eq(fl_box_keys_generate(fl_entropy_system(), &self->job_keys), FL_OK);
    stub_ranks(self->ranks, 4);
    self->tiers[0] = 1;
    fl_buf_init(&self->start, 1u << 20);
    fl_assert_ok(fl_adapter_encode(start, &self->start, &error), &error);
    fl_adapter_destroy(&start);
    fake_open(&self->fake, &self->site);
    fake_offer_object(&self->fake, self->start.data, self->start.length, &self->start_ref);
}

/* The daemon ends and starts again on the same directory. */
static void bench_restart(struct bench *self)
{
    struct fl_attempt key = self->fake.key;
    fake_close(&self->fake);
    fake_open(&self->fake, &self->site);
    fake_offer_object(&self->fake, self->start.data, self->start.length, &self->start_ref);
    self->fake.key = key;
}

static void bench_close(struct bench *self)
{
    atomic_store(&self->site.stub.hold, 0);
    atomic_store(&self->site.stub.hold_fit, 0);
    fake_close(&self->fake);
    fl_buf_free(&self->start);
    fl_box_keys_destroy(&self->job_keys);
    stub_site_close(&self->site);
}

static struct fl_wire offer(const struct bench *self)
{
    struct fl_wire m = fake_message(&self->fake, FL_WIRE_OFFER);
    m.as.offer = stub_offer();
    return m;
}

static struct fl_wire task(const struct bench *self)
{
    struct fl_wire m = fake_message(&self->fake, FL_WIRE_TASK);
    m.as.task.start = self->start_ref;
    m.as.task.global_ranks = (struct fl_wire_bytes){self->ranks, sizeof(self->ranks)};
    m.as.task.site_ranks = m.as.task.global_ranks;
    m.as.task.train = m.as.task.train_a = m.as.task.train_b = m.as.task.evaluate = true;
    return m;
}

static struct fl_wire collect(const struct bench *self)
{
    struct fl_wire m = fake_message(&self->fake, FL_WIRE_COLLECT);
    m.as.collect.cohort = 3;
    m.as.collect.tiers = (struct fl_wire_bytes){self->tiers, 1};
    memcpy(m.as.collect.sealing_key, fl_box_keys_public(self->job_keys), FL_KEY_BYTES);
    return m;
}

static struct fl_wire receipt(const struct bench *self)
{
    return fake_message(&self->fake, FL_WIRE_RECEIPT); /* accepted */
}

static struct fl_wire version(const struct bench *self, uint32_t number)
{
    struct fl_wire m = fake_message(&self->fake, FL_WIRE_VERSION);
    m.as.version.version = number;
    m.as.version.adapter = self->start_ref;
    fl_sha256(self->start.data, self->start.length, m.as.version.sha256);
    m.as.version.ranks = (struct fl_wire_bytes){self->ranks, sizeof(self->ranks)};
    m.as.version.workers = 3;
    return m;
}

typedef struct fl_wire (*maker)(const struct bench *self);

/* Send what a maker makes, so many times. */
static void say(struct bench *self, maker make, int times)
{
    struct fl_wire m = make(self);
    for (int i = 0; i < times; i++)
        fake_send(&self->fake, &m);
}

static void send_version(struct bench *self, uint32_t number)
{
    struct fl_wire m = version(self, number);
    fake_send(&self->fake, &m);
}

static bool exists(const struct bench *self, const char *name)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    fl_assert_ok(fl_sitestore_path(&self->site.store, name, path, &error), &error);
    return fl_path_exists(path);
}

/* From the greeting to TRAINED. */
static void train(struct bench *self)
{
    fake_greet(&self->fake);
    say(self, offer, 1);
    const struct fl_wire *fit = fake_await(&self->fake, FL_WIRE_FIT);
    ck_assert_msg(fit->as.fit.verdict == FL_VERDICT_FIT, "%s", fit->as.fit.reason);
    say(self, task, 1);
    (void)fake_await(&self->fake, FL_WIRE_TRAINED);
}

static struct fl_object_ref upload(struct bench *self)
{
    say(self, collect, 1);
    return fake_await(&self->fake, FL_WIRE_UPLOAD)->as.upload.update;
}

START_TEST(a_round_goes_from_hello_to_the_version)
{
    struct bench bench;
    struct fl_buf bytes;
    struct fl_inventory inventory;
    struct fl_error error;
    bench_open(&bench, NULL);
    fake_greet(&bench.fake);
    say(&bench, offer, 1);
    const struct fl_wire *fit = fake_await(&bench.fake, FL_WIRE_FIT);
    ck_assert(fit->job == 9 && fit->round == 1 && fit->attempt == 1);
    struct fl_object_ref ref = fit->as.fit.inventory;
    fake_fetch(&bench.fake, &ref, &bytes);
    fl_assert_ok(fl_inventory_decode(bytes.data, bytes.length, &inventory, &error), &error);
    ck_assert_uint_eq(inventory.count, stub_inventory.count);
    fl_inventory_free(&inventory);
    fl_buf_free(&bytes);
    say(&bench, task, 1);
    const struct fl_wire *trained = fake_await(&bench.fake, FL_WIRE_TRAINED);
    ck_assert_uint_eq(trained->as.trained.steps, 2);
    ck_assert(!trained->as.trained.share_eval && trained->as.trained.eval_tokens == 0);
    ref = upload(&bench);
    fake_fetch(&bench.fake, &ref, &bytes);
    ck_assert_uint_eq(bytes.length, ref.size);
    ck_assert(memcmp(bytes.data, "FLSEAL01", 8) == 0);
    fl_buf_free(&bytes);
    say(&bench, receipt, 1);
    send_version(&bench, 1);
    fake_await_file(&bench.fake, "adapters/9/adapter_model.safetensors");
    struct fl_wire end = fake_message(&bench.fake, FL_WIRE_JOB_END);
    fake_send(&bench.fake, &end);
    fake_nothing(&bench.fake, FL_WIRE_FAILED);
    ck_assert(exists(&bench, "state/seen.json") && exists(&bench, "audit.log"));
    ck_assert_int_eq(atomic_load(&bench.site.stub.runs), 1);
    bench_close(&bench);
}
END_TEST

START_TEST(the_single_loss_is_told_only_where_the_policy_says_so)
{
    struct bench bench;
    bench_open(&bench, "share_eval = on\n");
    train(&bench);
    ck_assert(bench.fake.last.as.trained.share_eval);
    ck_assert(bench.fake.last.as.trained.eval_loss_sum == 12.0);
    ck_assert_uint_eq(bench.fake.last.as.trained.eval_tokens, 4);
    bench_close(&bench);
}
END_TEST

START_TEST(every_message_may_come_three_times)
{
    struct bench bench;
    bench_open(&bench, NULL);
    fake_greet(&bench.fake);
    say(&bench, offer, 3);
    (void)fake_await(&bench.fake, FL_WIRE_FIT);
    say(&bench, offer, 2);
    say(&bench, task, 3);
    (void)fake_await(&bench.fake, FL_WIRE_TRAINED);
    say(&bench, offer, 1);
    say(&bench, task, 2);
    say(&bench, collect, 3);
    struct fl_object_ref first = fake_await(&bench.fake, FL_WIRE_UPLOAD)->as.upload.update;
    say(&bench, collect, 1);
    struct fl_object_ref second = fake_await(&bench.fake, FL_WIRE_UPLOAD)->as.upload.update;
    ck_assert_int_eq(memcmp(first.root, second.root, FL_HASH_BYTES), 0);
    say(&bench, receipt, 3);
    say(&bench, collect, 1);
    say(&bench, task, 1);
    for (int i = 0; i < 3; i++)
        send_version(&bench, 1);
    fake_await_file(&bench.fake, "adapters/9/adapter_model.safetensors");
    send_version(&bench, 1);
    say(&bench, receipt, 1);
    say(&bench, task, 1);
    fake_nothing(&bench.fake, FL_WIRE_FAILED);
    ck_assert_int_eq(atomic_load(&bench.site.stub.fits), 1);
    ck_assert_int_eq(atomic_load(&bench.site.stub.runs), 1);
    bench_close(&bench);
}
END_TEST

START_TEST(messages_before_their_time_do_nothing)
{
    struct bench bench;
    bench_open(&bench, NULL);
    fake_greet(&bench.fake);
    say(&bench, task, 1);
    say(&bench, collect, 1);
    say(&bench, receipt, 1);
    send_version(&bench, 1);
    struct fl_wire end = fake_message(&bench.fake, FL_WIRE_JOB_END);
    fake_send(&bench.fake, &end);
    fake_nothing(&bench.fake, FL_WIRE_FAILED);
    ck_assert_uint_eq(bench.fake.seen[FL_WIRE_FIT], 0);
    ck_assert_uint_eq(bench.fake.seen[FL_WIRE_NEED], 0);
    /* of another round and attempt */
    say(&bench, offer, 1);
    (void)fake_await(&bench.fake, FL_WIRE_FIT);
    bench.fake.key.attempt = 2;
    say(&bench, task, 1);
    bench.fake.key = (struct fl_attempt){9, 2, 1};
    say(&bench, task, 1);
    fake_nothing(&bench.fake, FL_WIRE_TRAINED);
    ck_assert_int_eq(atomic_load(&bench.site.stub.runs), 0);
    bench_close(&bench);
}
END_TEST

START_TEST(frames_of_another_session_are_dropped_unread)
{
    struct bench bench;
    bench_open(&bench, NULL);
    fake_greet(&bench.fake);
    struct fl_wire stranger = offer(&bench);
    stranger.nonce[5] ^= 1;
    fake_send(&bench.fake, &stranger);
    struct fl_wire goodbye = fake_message(&bench.fake, FL_WIRE_GOODBYE);
    goodbye.nonce[0] ^= 1;
    fake_send(&bench.fake, &goodbye);
    fake_nothing(&bench.fake, FL_WIRE_FIT);
    ck_assert_int_eq(atomic_load(&bench.site.stub.fits), 0);
    say(&bench, offer, 1);
    (void)fake_await(&bench.fake, FL_WIRE_FIT);
    bench_close(&bench);
}
END_TEST

START_TEST(a_link_lost_in_any_stage_costs_nothing)
{
    struct bench bench;
    bench_open(&bench, NULL);
    fake_greet(&bench.fake);
    fake_reconnect(&bench.fake); /* idle */
    say(&bench, offer, 1);
    (void)fake_await(&bench.fake, FL_WIRE_FIT);
    fake_reconnect(&bench.fake);
    (void)fake_await(&bench.fake, FL_WIRE_FIT); /* ready: says so again */
    bench.fake.silent = true;
    say(&bench, task, 1);
    (void)fake_await(&bench.fake, FL_WIRE_NEED);
    fake_reconnect(&bench.fake);
    atomic_store(&bench.site.stub.hold, 1);
    bench.fake.silent = false;
    (void)fake_await(&bench.fake, FL_WIRE_NEED); /* fetching: asks again */
    fake_await_run(&bench.fake);
    fake_reconnect(&bench.fake);
    fake_nothing(&bench.fake, FL_WIRE_TRAINED); /* training goes on */
    atomic_store(&bench.site.stub.hold, 0);
    (void)fake_await(&bench.fake, FL_WIRE_TRAINED);
    fake_reconnect(&bench.fake);
    (void)fake_await(&bench.fake, FL_WIRE_TRAINED);
    struct fl_object_ref first = upload(&bench);
    fake_reconnect(&bench.fake);
    struct fl_object_ref second = fake_await(&bench.fake, FL_WIRE_UPLOAD)->as.upload.update;
    ck_assert_int_eq(memcmp(&first, &second, sizeof(first)), 0);
    say(&bench, receipt, 1);
    fake_reconnect(&bench.fake);
    fake_nothing(&bench.fake, FL_WIRE_UPLOAD);
    ck_assert_int_eq(atomic_load(&bench.site.stub.runs), 1);
    ck_assert_int_eq(atomic_load(&bench.site.stub.fits), 1);
    bench_close(&bench);
}
END_TEST

START_TEST(a_restarted_site_takes_up_its_delta_and_sends_the_same_bytes)
{
    struct bench bench;
    bench_open(&bench, NULL);
    train(&bench);
    bench_restart(&bench);
    train(&bench);
    ck_assert_int_eq(atomic_load(&bench.site.stub.runs), 1);
    struct fl_object_ref first = upload(&bench);
    bench_restart(&bench);
    fake_greet(&bench.fake);
    ck_assert_uint_eq(bench.fake.last.as.hello.last_job, 9);
    ck_assert_uint_eq(bench.fake.last.as.hello.last_round, 1);
    /* it is told all at once, before it has looked at its model again */
    atomic_store(&bench.site.stub.hold_fit, 1);
    say(&bench, offer, 1);
    say(&bench, task, 1);
    say(&bench, collect, 1);
    fake_nothing(&bench.fake, FL_WIRE_FIT);
    atomic_store(&bench.site.stub.hold_fit, 0);
    struct fl_object_ref second = fake_await(&bench.fake, FL_WIRE_UPLOAD)->as.upload.update;
    ck_assert_int_eq(memcmp(&first, &second, sizeof(first)), 0);
    ck_assert_int_eq(atomic_load(&bench.site.stub.runs), 1);
    bench_close(&bench);
}
END_TEST

START_TEST(another_attempt_seals_the_kept_delta_anew)
{
    struct bench bench;
    bench_open(&bench, NULL);
    train(&bench);
    struct fl_object_ref first = upload(&bench);
    bench.fake.key.attempt = 2;
    say(&bench, offer, 1);
    (void)fake_await(&bench.fake, FL_WIRE_FIT);
    say(&bench, task, 1);
    (void)fake_await(&bench.fake, FL_WIRE_TRAINED);
    struct fl_object_ref second = upload(&bench);
    ck_assert_int_ne(memcmp(first.root, second.root, FL_HASH_BYTES), 0);
    ck_assert_int_eq(atomic_load(&bench.site.stub.runs), 1);
    bench_close(&bench);
}
END_TEST

START_TEST(a_version_that_comes_before_the_check_has_ended_is_kept_after_it)
{
    struct bench bench;
    bench_open(&bench, NULL);
    atomic_store(&bench.site.stub.hold_fit, 1);
    fake_greet(&bench.fake);
    say(&bench, offer, 1);
    send_version(&bench, 1);
    fake_nothing(&bench.fake, FL_WIRE_FAILED);
    atomic_store(&bench.site.stub.hold_fit, 0);
    fake_await_file(&bench.fake, "adapters/9/adapter_model.safetensors");
    bench_close(&bench);
}
END_TEST

static const struct fl_wire *recall(struct bench *self, uint64_t job, uint32_t after)
{
    struct fl_wire m = fake_message(&self->fake, FL_WIRE_RECALL);
    m.job = job;
    m.as.recall.after = after;
    return fake_ask(&self->fake, &m, FL_WIRE_RECALLED);
}

START_TEST(a_coordinator_that_lost_a_version_can_have_it_back)
{
    struct bench bench;
    struct fl_buf bytes;
    uint8_t sha256[FL_HASH_BYTES];
    bench_open(&bench, NULL);
    train(&bench);
    send_version(&bench, 1);
    fake_await_file(&bench.fake, "adapters/9@1/adapter_model.safetensors");
    for (int life = 0; life < 2; life++) {
        const struct fl_wire *answer = recall(&bench, 9, 0);
        ck_assert(answer->job == 9 && answer->as.recalled.version == 1);
        ck_assert_uint_eq(answer->as.recalled.left, 0);
        fl_sha256(bench.start.data, bench.start.length, sha256);
        ck_assert_mem_eq(answer->as.recalled.sha256, sha256, FL_HASH_BYTES);
        struct fl_object_ref ref = answer->as.recalled.adapter;
        fake_fetch(&bench.fake, &ref, &bytes);
        ck_assert_uint_eq(bytes.length, bench.start.length);
        ck_assert_mem_eq(bytes.data, bench.start.data, bytes.length);
        fl_buf_free(&bytes);
        ck_assert_uint_eq(recall(&bench, 9, 1)->as.recalled.version, 0);
        ck_assert_uint_eq(recall(&bench, 8, 0)->as.recalled.version, 0);
        bench_restart(&bench);
        fake_greet(&bench.fake);
    }
    bench_close(&bench);
}
END_TEST

/* "I keep nothing" would be a lie a moment later, and one who decides on it decides wrongly. */
START_TEST(a_version_that_is_being_written_is_not_denied)
{
    struct bench bench;
    bench_open(&bench, NULL);
    atomic_store(&bench.site.stub.hold, 1);
    fake_greet(&bench.fake);
    say(&bench, offer, 1);
    (void)fake_await(&bench.fake, FL_WIRE_FIT);
    say(&bench, task, 1);
    fake_nothing(&bench.fake, FL_WIRE_TRAINED);
    send_version(&bench, 1); /* its file is written behind the training */
    fake_nothing(&bench.fake, FL_WIRE_TRAINED);
    struct fl_wire m = fake_message(&bench.fake, FL_WIRE_RECALL);
    m.job = 9;
    fake_send(&bench.fake, &m);
    fake_nothing(&bench.fake, FL_WIRE_RECALLED);
    atomic_store(&bench.site.stub.hold, 0);
    ck_assert_uint_eq(recall(&bench, 9, 0)->as.recalled.version, 1);
    bench_close(&bench);
}
END_TEST

static void expect_seen(struct bench *self, uint32_t round, uint32_t attempt)
{
    bench_restart(self);
    fake_greet(&self->fake);
    ck_assert_uint_eq(self->fake.last.as.hello.last_round, round);
    ck_assert_uint_eq(self->fake.last.as.hello.last_attempt, attempt);
    bench_restart(self);
}

START_TEST(what_was_seen_grows_until_a_coordinator_begins_a_new_hundred)
{
    struct bench bench;
    bench_open(&bench, NULL);
    bench.fake.key = (struct fl_attempt){9, 2, 3};
    train(&bench);
    expect_seen(&bench, 2, 3);
    bench.fake.key = (struct fl_attempt){9, 1, 4};
    train(&bench);
    expect_seen(&bench, 2, 3);
    bench.fake.key = (struct fl_attempt){9, 1, 101};
    train(&bench);
    expect_seen(&bench, 1, 101);
    bench_close(&bench);
}
END_TEST

START_TEST(what_was_seen_of_another_coordinator_is_not_told)
{
    static const char other[] =
        "{\"job\":12,\"round\":3,\"attempt\":2,\"coordinator\":\"fedcba9876543210\"}\n";
    struct bench bench;
    struct fl_error error;
    char path[FL_PATH_BYTES];
    bench_open(&bench, NULL);
    fl_assert_ok(fl_sitestore_path(&bench.site.store, "state/seen.json", path, &error), &error);
    fl_assert_ok(fl_fs_write(path, other, sizeof(other) - 1, 0600, &error), &error);
    expect_seen(&bench, 0, 0);
    bench_close(&bench);
}
END_TEST

START_TEST(what_the_policy_refuses_is_never_begun)
{
    struct bench bench;
    bench_open(&bench, "max_rank = 2\n");
    fake_greet(&bench.fake);
    say(&bench, offer, 1);
    const struct fl_wire *fit = fake_await(&bench.fake, FL_WIRE_FIT);
    ck_assert_int_eq(fit->as.fit.verdict, FL_VERDICT_PERMANENT);
    ck_assert_int_eq(fit->as.fit.code, FL_REFUSAL_RANK);
    ck_assert(strstr(fit->as.fit.reason, "max_rank = 2") != NULL);
    say(&bench, task, 2);
    say(&bench, collect, 1);
    fake_nothing(&bench.fake, FL_WIRE_TRAINED);
    ck_assert_int_eq(atomic_load(&bench.site.stub.fits), 0);
    ck_assert_int_eq(atomic_load(&bench.site.stub.runs), 0);
    ck_assert_uint_eq(bench.fake.seen[FL_WIRE_NEED], 0);
    bench_close(&bench);
}
END_TEST

START_TEST(a_check_that_fails_is_told_with_its_reason)
{
    struct bench bench;
    bench_open(&bench, NULL);
    bench.site.stub.fit_status = FL_EINVAL;
    fake_greet(&bench.fake);
    say(&bench, offer, 1);
    const struct fl_wire *fit = fake_await(&bench.fake, FL_WIRE_FIT);
    ck_assert_int_eq(fit->as.fit.verdict, FL_VERDICT_PERMANENT);
    ck_assert_int_eq(fit->as.fit.code, FL_REFUSAL_MODEL);
    ck_assert_str_eq(fit->as.fit.reason, "the stub does not fit");
    bench_close(&bench);
}
END_TEST

START_TEST(a_check_that_failed_for_a_time_is_made_again_when_the_offer_comes_again)
{
    struct bench bench;
    bench_open(&bench, NULL);
    bench.site.stub.fit_status = FL_ENOMEM;
    fake_greet(&bench.fake);
    say(&bench, offer, 1);
    const struct fl_wire *fit = fake_await(&bench.fake, FL_WIRE_FIT);
    ck_assert_int_eq(fit->as.fit.verdict, FL_VERDICT_TEMPORARY);
    bench.site.stub.fit_status = FL_OK;
    say(&bench, offer, 1);
    fit = fake_await(&bench.fake, FL_WIRE_FIT);
    ck_assert_int_eq(fit->as.fit.verdict, FL_VERDICT_FIT);
    bench_close(&bench);
}
END_TEST

/* The directory in its place stands for a disk that refuses. */
START_TEST(an_offer_that_cannot_be_kept_is_not_taken_until_it_can)
{
    struct bench bench;
    struct fl_error error;
    char path[FL_PATH_BYTES];
    bench_open(&bench, NULL);
    fl_assert_ok(fl_sitestore_path(&bench.site.store, "state/offer.frame", path, &error), &error);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    fake_greet(&bench.fake);
    say(&bench, offer, 1);
    const struct fl_wire *fit = fake_await(&bench.fake, FL_WIRE_FIT);
    ck_assert_int_eq(fit->as.fit.verdict, FL_VERDICT_TEMPORARY);
    ck_assert_int_eq(fit->as.fit.code, FL_REFUSAL_DISK);
    ck_assert_uint_gt(fit->as.fit.retry_after_ms, 0);
    say(&bench, task, 1);
    fake_nothing(&bench.fake, FL_WIRE_TRAINED);
    ck_assert(!exists(&bench, "state/seen.json"));
    ck_assert_int_eq(rmdir(path), 0);
    say(&bench, offer, 1);
    fit = fake_await(&bench.fake, FL_WIRE_FIT);
    ck_assert_msg(fit->as.fit.verdict == FL_VERDICT_FIT, "%s", fit->as.fit.reason);
    say(&bench, task, 1);
    (void)fake_await(&bench.fake, FL_WIRE_TRAINED);
    bench_restart(&bench); /* and what is kept is enough for the version */
    fake_greet(&bench.fake);
    send_version(&bench, 1);
    fake_await_file(&bench.fake, "adapters/9/adapter_model.safetensors");
    bench_close(&bench);
}
END_TEST

START_TEST(a_failed_training_is_told_and_told_again_but_not_tried_again)
{
    struct bench bench;
    bench_open(&bench, NULL);
    bench.site.stub.run_status = FL_ERANGE;
    fake_greet(&bench.fake);
    say(&bench, offer, 1);
    (void)fake_await(&bench.fake, FL_WIRE_FIT);
    say(&bench, task, 1);
    const struct fl_wire *failed = fake_await(&bench.fake, FL_WIRE_FAILED);
    ck_assert_int_eq(failed->as.failed.code, FL_REFUSAL_TRAINING);
    ck_assert(!failed->as.failed.permanent);
    ck_assert_str_eq(failed->as.failed.reason, "the stub cannot train");
    say(&bench, task, 1);
    (void)fake_await(&bench.fake, FL_WIRE_FAILED);
    fake_reconnect(&bench.fake);
    (void)fake_await(&bench.fake, FL_WIRE_FAILED);
    ck_assert_int_eq(atomic_load(&bench.site.stub.runs), 1);
    bench_close(&bench);
}
END_TEST

START_TEST(what_found_the_queue_full_is_said_again)
{
    struct bench bench;
    bench_open(&bench, NULL);
    fake_greet(&bench.fake);
    atomic_store(&bench.site.stub.hold, 1);
    say(&bench, offer, 1);
    (void)fake_await(&bench.fake, FL_WIRE_FIT);
    say(&bench, task, 1);
    fake_await_run(&bench.fake);
    pthread_mutex_lock(&bench.fake.mutex);
    bench.fake.busy = true;
    pthread_mutex_unlock(&bench.fake.mutex);
    atomic_store(&bench.site.stub.hold, 0);
    fake_nothing(&bench.fake, FL_WIRE_TRAINED);
    pthread_mutex_lock(&bench.fake.mutex);
    bench.fake.busy = false;
    pthread_mutex_unlock(&bench.fake.mutex);
    fake_event(&bench.fake, FL_LINK_DRAINED);
    (void)fake_await(&bench.fake, FL_WIRE_TRAINED);
    bench_close(&bench);
}
END_TEST

START_TEST(heartbeats_go_out_while_training_runs)
{
    struct bench bench;
    bench_open(&bench, NULL);
    fake_greet(&bench.fake);
    atomic_store(&bench.site.stub.hold, 1);
    say(&bench, offer, 1);
    (void)fake_await(&bench.fake, FL_WIRE_FIT);
    say(&bench, task, 1);
    fake_await_run(&bench.fake);
    fake_nothing(&bench.fake, FL_WIRE_HEARTBEAT); /* the clock stands still */
    for (int i = 0; i < 3; i++) {
        fake_pass(&bench.fake, 5000);
        const struct fl_wire *beat = fake_await(&bench.fake, FL_WIRE_HEARTBEAT);
        ck_assert_int_eq(beat->as.heartbeat.activity, FL_ACTIVITY_TRAINING);
        ck_assert_uint_eq(beat->as.heartbeat.step, 1);
    }
    bench_close(&bench);
}
END_TEST

START_TEST(a_silent_coordinator_is_dialled_anew)
{
    struct bench bench;
    bench_open(&bench, NULL);
    fake_greet(&bench.fake);
    fake_pass(&bench.fake, 29000);
    fake_nothing(&bench.fake, FL_WIRE_HELLO);
    fake_await_resets(&bench.fake, 0);
    struct fl_wire beat = fake_message(&bench.fake, FL_WIRE_HEARTBEAT);
    fake_send(&bench.fake, &beat);
    fake_pass(&bench.fake, 29000);
    fake_await_resets(&bench.fake, 0);
    fake_pass(&bench.fake, 2000);
    fake_pass(&bench.fake, 1000);
    fake_await_resets(&bench.fake, 1);
    fake_event(&bench.fake, FL_LINK_UP); /* and one that never says WELCOME too */
    (void)fake_await(&bench.fake, FL_WIRE_HELLO);
    fake_pass(&bench.fake, 10001);
    fake_pass(&bench.fake, 1000);
    fake_await_resets(&bench.fake, 2);
    bench_close(&bench);
}
END_TEST

START_TEST(a_second_copy_of_a_key_waits_for_a_minute)
{
    struct bench bench;
    bench_open(&bench, NULL);
    fake_greet(&bench.fake);
    struct fl_wire goodbye = fake_message(&bench.fake, FL_WIRE_GOODBYE);
    goodbye.as.goodbye.reason = FL_GOODBYE_DUPLICATE;
    goodbye.as.goodbye.wait_ms = 60000;
    fake_send(&bench.fake, &goodbye);
    fake_pass(&bench.fake, 59000);
    fake_await_resets(&bench.fake, 0);
    fake_pass(&bench.fake, 1001);
    fake_await_resets(&bench.fake, 1);
    fake_greet(&bench.fake);
    say(&bench, offer, 1);
    (void)fake_await(&bench.fake, FL_WIRE_FIT);
    bench_close(&bench);
}
END_TEST

START_TEST(a_key_that_is_denied_three_times_over_a_minute_gives_up)
{
    struct bench bench;
    bench_open(&bench, NULL);
    for (unsigned i = 0; i < 6; i++) { /* within 60 s, however often */
        fake_event(&bench.fake, FL_LINK_DENIED);
        fake_pass(&bench.fake, 10000);
        fake_await_resets(&bench.fake, i + 1);
    }
    fake_event(&bench.fake, FL_LINK_DENIED);
    fake_join(&bench.fake);
    ck_assert_int_eq(bench.fake.status, FL_EREFUSED);
    ck_assert(strstr(bench.fake.error.text, "does not accept this site's key") != NULL);
    bench_close(&bench);
}
END_TEST

START_TEST(a_key_that_is_allowed_again_goes_on)
{
    struct bench bench;
    bench_open(&bench, NULL);
    for (unsigned i = 0; i < 5; i++) {
        fake_event(&bench.fake, FL_LINK_DENIED);
        fake_pass(&bench.fake, 10000);
        fake_await_resets(&bench.fake, i + 1);
    }
    fake_greet(&bench.fake);
    say(&bench, offer, 1);
    (void)fake_await(&bench.fake, FL_WIRE_FIT);
    fake_event(&bench.fake, FL_LINK_DENIED); /* counts from one again */
    fake_pass(&bench.fake, 100000);
    fake_event(&bench.fake, FL_LINK_DENIED);
    fake_pass(&bench.fake, 10000);
    fake_await_resets(&bench.fake, 7);
    bench_close(&bench);
}
END_TEST

START_TEST(rubbish_ends_the_session_not_the_daemon)
{
    struct bench bench;
    bench_open(&bench, NULL);
    fake_greet(&bench.fake);
    uint8_t *rubbish = fl_malloc(40);
    ck_assert(rubbish != NULL);
    memset(rubbish, 0xff, 40);
    struct fake *fake = &bench.fake;
    pthread_mutex_lock(&fake->mutex);
    fake->in[fake->in_tail++ % FAKE_QUEUE] = (struct fake_frame){FL_LINK_FRAME, rubbish, 40};
    pthread_mutex_unlock(&fake->mutex);
    fake_pass(fake, 1);
    fake_pass(fake, 10000);
    fake_await_resets(fake, 1);
    fake_greet(fake);
    say(&bench, offer, 1);
    (void)fake_await(fake, FL_WIRE_FIT);
    bench_close(&bench);
}
END_TEST

START_TEST(a_start_with_the_wrong_bytes_is_asked_for_again)
{
    struct bench bench;
    bench_open(&bench, NULL);
    fake_greet(&bench.fake);
    say(&bench, offer, 1);
    (void)fake_await(&bench.fake, FL_WIRE_FIT);
    struct fl_wire lie = task(&bench); /* nobody has this object */
    lie.as.task.start.root[0] ^= 1;
    fake_send(&bench.fake, &lie);
    (void)fake_await(&bench.fake, FL_WIRE_NEED);
    fake_nothing(&bench.fake, FL_WIRE_TRAINED);
    struct fl_wire huge = task(&bench); /* larger than any adapter of the job */
    bench.fake.key.attempt = 2;
    say(&bench, offer, 1);
    (void)fake_await(&bench.fake, FL_WIRE_FIT);
    unsigned needs = bench.fake.seen[FL_WIRE_NEED];
    huge.attempt = 2;
    huge.as.task.start.size = 1ull << 31;
    fake_send(&bench.fake, &huge);
    fake_nothing(&bench.fake, FL_WIRE_TRAINED);
    ck_assert_uint_eq(bench.fake.seen[FL_WIRE_NEED], needs);
    ck_assert_int_eq(atomic_load(&bench.site.stub.runs), 0);
    bench_close(&bench);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, a_round_goes_from_hello_to_the_version);
    tcase_add_test(tc, the_single_loss_is_told_only_where_the_policy_says_so);
    tcase_add_test(tc, every_message_may_come_three_times);
    tcase_add_test(tc, messages_before_their_time_do_nothing);
    tcase_add_test(tc, frames_of_another_session_are_dropped_unread);
    tcase_add_test(tc, a_link_lost_in_any_stage_costs_nothing);
    tcase_add_test(tc, a_restarted_site_takes_up_its_delta_and_sends_the_same_bytes);
    tcase_add_test(tc, another_attempt_seals_the_kept_delta_anew);
    tcase_add_test(tc, a_version_that_comes_before_the_check_has_ended_is_kept_after_it);
    tcase_add_test(tc, a_coordinator_that_lost_a_version_can_have_it_back);
    tcase_add_test(tc, a_version_that_is_being_written_is_not_denied);
    tcase_add_test(tc, what_was_seen_grows_until_a_coordinator_begins_a_new_hundred);
    tcase_add_test(tc, what_was_seen_of_another_coordinator_is_not_told);
    tcase_add_test(tc, what_the_policy_refuses_is_never_begun);
    tcase_add_test(tc, a_check_that_fails_is_told_with_its_reason);
    tcase_add_test(tc, a_check_that_failed_for_a_time_is_made_again_when_the_offer_comes_again);
    tcase_add_test(tc, an_offer_that_cannot_be_kept_is_not_taken_until_it_can);
    tcase_add_test(tc, a_failed_training_is_told_and_told_again_but_not_tried_again);
    tcase_add_test(tc, what_found_the_queue_full_is_said_again);
    tcase_add_test(tc, heartbeats_go_out_while_training_runs);
    tcase_add_test(tc, a_silent_coordinator_is_dialled_anew);
    tcase_add_test(tc, a_second_copy_of_a_key_waits_for_a_minute);
    tcase_add_test(tc, a_key_that_is_denied_three_times_over_a_minute_gives_up);
    tcase_add_test(tc, a_key_that_is_allowed_again_goes_on);
    tcase_add_test(tc, rubbish_ends_the_session_not_the_daemon);
    tcase_add_test(tc, a_start_with_the_wrong_bytes_is_asked_for_again);
}

FL_TEST_MAIN("worker_client", add_tests)

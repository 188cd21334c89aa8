/*
 * The work behind a round, without threads: fit, train, seal, keep.
 * Method: a stub trainer that counts its calls; the sealed update opened with the job's key and
 * read by the coordinator's own layout and reader.
 */
#include "worker/labour.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "adapter/algebra.h"
#include "base/alloc.h"
#include "crypto/sealed.h"
#include "runner.h"
#include "stub_site.h"

static const struct fl_attempt first_attempt = {9, 1, 1};

struct bench {
    struct stub_site site;
    struct fl_labour labour;
    struct fl_box_keys *job_keys;
    uint8_t ranks[4 * STUB_MODULES], tiers[1];
    struct fl_buf start;
    bool dora;
};

static void bench_open(struct bench *self)
{
    struct fl_error error;
    struct fl_adapter *start = stub_start(1);
    self->dora = false;
    stub_site_open(&self->site, NULL);
    struct fl_trainer trainer = stub_trainer(&self->site.stub);
    fl_labour_init(&self->labour, self->site.conf, &self->site.store, &trainer, NULL, NULL);
    snprintf(self->labour.name, sizeof(self->labour.name), "ward-3");
    ck_assert_int_eq(fl_box_keys_generate(fl_entropy_system(), &self->job_keys), FL_OK);
    stub_ranks(self->ranks, 4);
    stub_ranks(self->ranks + 2 * STUB_MODULES, 4);
    self->tiers[0] = 1;
    fl_buf_init(&self->start, 1u << 20);
    fl_assert_ok(fl_adapter_encode(start, &self->start, &error), &error);
    fl_adapter_destroy(&start);
}

static struct fl_adapter *dora_start(void)
{
    struct fl_adapter *start = stub_start(1);
    ck_assert_int_eq(fl_adapter_add_magnitudes(start), FL_OK);
    for (uint32_t m = 0; m < start->count; m++) {
        for (uint32_t i = 0; i < start->modules[m].module.out; i++)
            start->modules[m].m[i] = 1.0f + 0.5f * (float)i;
    }
    return start;
}

/* From here on the job is one of DoRA. */
static void bench_dora(struct bench *self)
{
    struct fl_error error;
    struct fl_adapter *start = dora_start();
    self->dora = true;
    self->start.length = 0;
    fl_assert_ok(fl_adapter_encode(start, &self->start, &error), &error);
    fl_adapter_destroy(&start);
}

static void bench_close(struct bench *self)
{
    fl_buf_free(&self->start);
    fl_box_keys_destroy(&self->job_keys);
    fl_labour_free(&self->labour);
    stub_site_close(&self->site);
}

static struct fl_wire_task task_of(const struct bench *self)
{
    struct fl_wire_task task = {.train = true, .train_a = true, .train_b = true, .evaluate = true};
    task.global_ranks = (struct fl_wire_bytes){self->ranks, 2 * STUB_MODULES};
    task.site_ranks = (struct fl_wire_bytes){self->ranks + 2 * STUB_MODULES, 2 * STUB_MODULES};
    task.start.size = self->start.length;
    fl_sha256(self->start.data, self->start.length, task.start.root);
    return task;
}

/* Do one request; the caller frees the result's object by fl_work_result_free(). */
static struct fl_work_result *work_on(struct bench *self, enum fl_work_kind kind,
                                      struct fl_attempt key, const struct fl_wire_task *task)
{
    struct fl_work work = {.kind = kind, .key = key, .offer = stub_offer()};
    struct fl_work_result *result = fl_calloc(1, sizeof(*result));
    ck_assert(result != NULL);
    work.offer.dora = self->dora;
    work.task = *task;
    work.bytes = self->start.data;
    work.length = self->start.length;
    work.collect.cohort = 3;
    work.collect.tiers = (struct fl_wire_bytes){self->tiers, 1};
    memcpy(work.collect.sealing_key, fl_box_keys_public(self->job_keys), FL_KEY_BYTES);
    result->kind = kind;
    result->key = key;
    fl_labour_do(&self->labour, &work, result);
    return result;
}

static enum fl_status status_of(struct bench *self, enum fl_work_kind kind, struct fl_attempt key,
                                const struct fl_wire_task *task)
{
    struct fl_work_result *result = work_on(self, kind, key, task);
    enum fl_status status = result->status;
    ck_assert(status == FL_OK || result->error.text[0]);
    fl_work_result_free(result);
    return status;
}

/* Train and say whether a kept delta was taken up. */
static bool reused(struct bench *self, struct fl_attempt key, const struct fl_wire_task *task)
{
    struct fl_work_result *result = work_on(self, FL_WORK_TRAIN, key, task);
    ck_assert_msg(result->status == FL_OK, "%s", result->error.text);
    ck_assert_uint_eq(result->stats.stats.weight, 40);
    ck_assert_uint_eq(result->stats.steps, 2);
    bool again = result->reused;
    fl_work_result_free(result);
    return again;
}

static void fit(struct bench *self)
{
    struct fl_wire_task task = task_of(self);
    ck_assert_int_eq(status_of(self, FL_WORK_FIT, first_attempt, &task), FL_OK);
}

START_TEST(the_check_of_an_offer_gives_the_inventory)
{
    struct bench bench;
    bench_open(&bench);
    struct fl_wire_task task = task_of(&bench);
    struct fl_buf bytes;
    uint8_t root[FL_HASH_BYTES];
    struct fl_work_result *result = work_on(&bench, FL_WORK_FIT, first_attempt, &task);
    ck_assert_msg(result->status == FL_OK, "%s", result->error.text);
    ck_assert_uint_eq(result->fit.rows, 10);
    ck_assert_uint_ge(result->start_bytes_max, bench.start.length);
    fl_buf_init(&bytes, 1u << 16);
    ck_assert_int_eq(fl_inventory_encode(&stub_inventory, &bytes), FL_OK);
    ck_assert_int_eq(fl_object_hash(bytes.data, bytes.length, root), FL_OK);
    ck_assert_int_eq(memcmp(root, fl_object_root(result->object), FL_HASH_BYTES), 0);
    fl_buf_free(&bytes);
    fl_work_result_free(result);
    bench_close(&bench);
}
END_TEST

START_TEST(work_on_a_job_that_was_not_checked_is_refused)
{
    struct bench bench;
    bench_open(&bench);
    struct fl_wire_task task = task_of(&bench);
    ck_assert_int_eq(status_of(&bench, FL_WORK_TRAIN, first_attempt, &task), FL_EINVAL);
    ck_assert_int_eq(status_of(&bench, FL_WORK_SEAL, first_attempt, &task), FL_EINVAL);
    bench.site.stub.fit_status = FL_EREFUSED;
    ck_assert_int_eq(status_of(&bench, FL_WORK_FIT, first_attempt, &task), FL_EREFUSED);
    ck_assert_int_eq(status_of(&bench, FL_WORK_TRAIN, first_attempt, &task), FL_EINVAL);
    ck_assert_int_eq(atomic_load(&bench.site.stub.runs), 0);
    bench_close(&bench);
}
END_TEST

START_TEST(nothing_is_trained_twice_for_the_same_start_and_settings)
{
    struct bench bench;
    bench_open(&bench);
    fit(&bench);
    struct fl_wire_task task = task_of(&bench);
    ck_assert(!reused(&bench, first_attempt, &task));
    ck_assert(reused(&bench, first_attempt, &task));
    ck_assert(reused(&bench, (struct fl_attempt){9, 1, 2}, &task)); /* another attempt */
    ck_assert_int_eq(atomic_load(&bench.site.stub.runs), 1);
    task.start.root[0] ^= 1; /* another starting adapter */
    ck_assert(!reused(&bench, first_attempt, &task));
    task = task_of(&bench);
    task.first_step = 2;
    ck_assert(!reused(&bench, first_attempt, &task));
    task = task_of(&bench);
    task.train_a = false;
    ck_assert(!reused(&bench, first_attempt, &task));
    stub_ranks(bench.ranks + 2 * STUB_MODULES, 2);
    task = task_of(&bench);
    ck_assert(!reused(&bench, first_attempt, &task));
    ck_assert_int_eq(atomic_load(&bench.site.stub.runs), 5);
    bench_close(&bench);
}
END_TEST

START_TEST(ranks_that_do_not_fit_are_refused)
{
    struct bench bench;
    bench_open(&bench);
    fit(&bench);
    struct fl_wire_task task = task_of(&bench);
    task.global_ranks.length = task.site_ranks.length = 2;
    ck_assert_int_eq(status_of(&bench, FL_WORK_TRAIN, first_attempt, &task), FL_EFORMAT);
    static const uint16_t bad[][2] = {
        {4, 0}, {0, 0}, {2, 4}, {6, 4}}; /* global, own; in or out < 6 */
    for (size_t i = 0; i < 4; i++) {
        stub_ranks(bench.ranks, bad[i][0]);
        stub_ranks(bench.ranks + 2 * STUB_MODULES, bad[i][1]);
        task = task_of(&bench);
        ck_assert_int_eq(status_of(&bench, FL_WORK_TRAIN, first_attempt, &task), FL_EFORMAT);
    }
    stub_ranks(bench.ranks, 5); /* above what was offered */
    stub_ranks(bench.ranks + 2 * STUB_MODULES, 5);
    task = task_of(&bench);
    ck_assert_int_eq(status_of(&bench, FL_WORK_TRAIN, first_attempt, &task), FL_EREFUSED);
    ck_assert_int_eq(atomic_load(&bench.site.stub.runs), 0);
    bench_close(&bench);
}
END_TEST

START_TEST(a_failed_training_leaves_no_delta)
{
    struct bench bench;
    bench_open(&bench);
    fit(&bench);
    struct fl_wire_task task = task_of(&bench);
    bench.site.stub.run_status = FL_ESTOPPED;
    ck_assert_int_eq(status_of(&bench, FL_WORK_TRAIN, first_attempt, &task), FL_ESTOPPED);
    bench.site.stub.run_status = FL_OK;
    bench.site.stub.poison = __builtin_inff();
    ck_assert_int_eq(status_of(&bench, FL_WORK_TRAIN, first_attempt, &task), FL_ERANGE);
    bench.site.stub.poison = 0.0f;
    ck_assert(!reused(&bench, first_attempt, &task));
    bench.start.data[bench.start.length - 1] = 0x7f; /* NaN in the start */
    bench.start.data[bench.start.length - 2] = 0xff;
    task.start.root[0] ^= 1;
    ck_assert_int_eq(status_of(&bench, FL_WORK_TRAIN, first_attempt, &task), FL_EFORMAT);
    bench_close(&bench);
}
END_TEST

/* The plain bytes of a sealed file, opened with the job's key as the coordinator does. */
static void open_update(const struct bench *bench, struct fl_attempt key, struct fl_buf *plain)
{
    struct fl_seal_context context = {.purpose = "update",
                                      .sender = "ward-3",
                                      .job = key.job,
                                      .round = key.round,
                                      .attempt = key.attempt};
    struct fl_opener *opener;
    struct fl_error error;
    char path[FL_PATH_BYTES];
    uint8_t piece[4096];
    size_t got;
    fl_buf_init(plain, 1u << 20);
    fl_assert_ok(
        fl_sitestore_upload_path(&bench->site.store, key.job, key.round, key.attempt, path, &error),
        &error);
    fl_assert_ok(fl_opener_open_file(fl_box_keys_public(bench->job_keys),
                                     fl_box_keys_secret(bench->job_keys), &context, path, &opener,
                                     &error),
                 &error);
    do {
        fl_assert_ok(fl_opener_read(opener, piece, sizeof(piece), &got, &error), &error);
        fl_buf_append(plain, piece, got);
    } while (got == sizeof(piece));
    fl_opener_close(&opener);
}

/* Sum the update alone by the coordinator's layout: ranks of a cohort of one tier. */
static void read_update(const struct fl_buf *plain, uint16_t rank, const struct fl_adapter *start,
                        struct fl_adapter **mean)
{
    uint16_t own[STUB_MODULES] = {rank, rank, rank}, global[STUB_MODULES] = {4, 4, 4};
    struct fl_rank_plan plan = {1, STUB_MODULES, own, global};
    struct fl_wire_offer offer = stub_offer();
    struct fl_inventory targets;
    struct fl_layout *layout;
    struct fl_grid grid;
    struct fl_update_reader reader;
    struct fl_error error;
    struct fl_ranges ranges;
    stub_targets(&targets);
    fl_assert_ok(fl_auto_range(FL_RULE_ADAMW, offer.lr, offer.steps, 0.0, 0.0,
                               fl_adapter_max_abs(start, FL_FACTOR_A), &ranges.a, &error),
                 &error);
    fl_assert_ok(fl_auto_range(FL_RULE_ADAMW, offer.lr, offer.steps, 0.0, 0.0,
                               fl_adapter_max_abs(start, FL_FACTOR_B), &ranges.b, &error),
                 &error);
    fl_assert_ok(fl_auto_range(FL_RULE_ADAMW, offer.lr, offer.steps, 0.0, 0.0,
                               fl_adapter_max_abs(start, FL_FACTOR_M), &ranges.m, &error),
                 &error);
    fl_assert_ok(fl_layout_create(&targets, &plan,
                                  start->use_dora ? FL_FACTORS_BOTH | FL_FACTOR_M : FL_FACTORS_BOTH,
                                  ranges, &layout, &error),
                 &error);
    ck_assert_int_eq(
        fl_grid_init(&grid, 3, offer.weight_cap, offer.steps, offer.batch_size, offer.seq_len),
        FL_OK);
    uint32_t *vector = fl_calloc(layout->elements, sizeof(*vector));
    uint64_t *scalars = fl_calloc(layout->scalar_count, sizeof(*scalars));
    ck_assert(vector && scalars && layout->tier_count == 1);
    fl_update_reader_init(&reader, layout, &grid, 0, vector, scalars);
    fl_assert_ok(fl_update_reader_push(&reader, plain->data, plain->length, &error), &error);
    fl_assert_ok(fl_update_reader_end(&reader, &error), &error);
    ck_assert_uint_eq(scalars[0], 40);
    ck_assert_uint_eq(scalars[1 + FL_SCALAR_EVAL_TOKENS], 4);
    ck_assert_uint_eq(scalars[1 + FL_SCALAR_EVAL_LOSS], 12u << 20);
    ck_assert_uint_eq(scalars[1 + FL_SCALAR_CUT], 0);
    ck_assert_int_eq(fl_adapter_copy(start, mean), FL_OK);
    for (uint32_t s = 0; s < layout->segment_count; s++) {
        const struct fl_segment *segment = &layout->segments[s];
        float *out = fl_segment_part(segment, &(*mean)->modules[segment->module]).values;
        for (uint64_t i = 0; i < (uint64_t)segment->rows * segment->columns; i++)
            out[i] = (float)fl_grid_mean(&grid, vector[segment->offset + i], segment->range, 40);
    }
    fl_free(scalars);
    fl_free(vector);
    fl_layout_destroy(&layout);
    fl_inventory_free(&targets);
}

static void check_mean(const struct fl_adapter *mean, uint32_t rank)
{
    for (uint32_t m = 0; m < mean->count; m++) {
        const struct fl_lora_module *module = &mean->modules[m];
        for (uint32_t i = 0; i < module->rank; i++) { /* (4, in) */
            for (uint32_t k = 0; k < module->module.in; k++) {
                double wanted = i < rank ? 0.001 * (double)(i * module->module.in + k + 1) : 0.0;
                double found = (double)module->a[i * module->module.in + k];
                ck_assert(found - wanted < 1e-6 && wanted - found < 1e-6);
            }
        }
        for (uint32_t i = 0; i < module->module.out; i++) { /* (out, 4) */
            for (uint32_t k = 0; k < 4; k++) {
                double wanted = k < rank ? 0.001 * (double)(i * rank + k + 1) : 0.0;
                double found = (double)module->b[i * 4 + k];
                ck_assert(found - wanted < 1e-6 && wanted - found < 1e-6);
            }
        }
    }
}

START_TEST(the_update_is_what_the_coordinator_reads)
{
    for (uint16_t rank = 2; rank <= 4; rank += 2) {
        struct bench bench;
        struct fl_buf plain;
        struct fl_adapter *start = stub_start(1), *mean;
        bench_open(&bench);
        stub_ranks(bench.ranks + 2 * STUB_MODULES, rank);
        fit(&bench);
        struct fl_wire_task task = task_of(&bench);
        ck_assert(!reused(&bench, first_attempt, &task));
        ck_assert_int_eq(status_of(&bench, FL_WORK_SEAL, first_attempt, &task), FL_OK);
        open_update(&bench, first_attempt, &plain);
        read_update(&plain, rank, start, &mean);
        check_mean(mean, rank);
        fl_adapter_destroy(&mean);
        fl_adapter_destroy(&start);
        fl_buf_free(&plain);
        bench_close(&bench);
    }
}
END_TEST

START_TEST(magnitudes_are_trained_kept_and_sent)
{
    struct bench bench;
    struct fl_buf plain;
    struct fl_adapter *start = dora_start(), *mean;
    bench_open(&bench);
    bench_dora(&bench);
    fit(&bench);
    struct fl_wire_task task = task_of(&bench);
    ck_assert(!reused(&bench, first_attempt, &task));
    ck_assert(reused(&bench, (struct fl_attempt){9, 1, 2}, &task));
    ck_assert_int_eq(status_of(&bench, FL_WORK_SEAL, first_attempt, &task), FL_OK);
    open_update(&bench, first_attempt, &plain);
    read_update(&plain, 4, start, &mean);
    check_mean(mean, 4);
    for (uint32_t m = 0; m < mean->count; m++) {
        for (uint32_t i = 0; i < mean->modules[m].module.out; i++) {
            double apart = (double)mean->modules[m].m[i] + 0.002 * (double)(i + 1);
            ck_assert(apart < 1e-6 && apart > -1e-6);
        }
    }
    fl_adapter_destroy(&mean);
    fl_adapter_destroy(&start);
    fl_buf_free(&plain);
    bench_close(&bench);
}
END_TEST

START_TEST(a_task_that_does_not_fit_its_magnitudes_is_refused)
{
    struct bench bench;
    bench_open(&bench);
    fit(&bench);
    bench.dora = true; /* and a start that has none */
    struct fl_wire_task task = task_of(&bench);
    ck_assert_int_eq(status_of(&bench, FL_WORK_TRAIN, first_attempt, &task), FL_EFORMAT);
    bench_dora(&bench);
    stub_ranks(bench.ranks + 2 * STUB_MODULES, 2); /* a prefix has no magnitudes of its own */
    task = task_of(&bench);
    ck_assert_int_eq(status_of(&bench, FL_WORK_TRAIN, first_attempt, &task), FL_EFORMAT);
    stub_ranks(bench.ranks + 2 * STUB_MODULES, 4);
    bench.dora = false; /* and a start that has some */
    task = task_of(&bench);
    ck_assert_int_eq(status_of(&bench, FL_WORK_TRAIN, first_attempt, &task), FL_EFORMAT);
    ck_assert_int_eq(atomic_load(&bench.site.stub.runs), 0);
    bench_close(&bench);
}
END_TEST

START_TEST(nothing_is_sealed_twice_in_one_attempt)
{
    struct bench bench;
    bench_open(&bench);
    fit(&bench);
    struct fl_wire_task task = task_of(&bench);
    ck_assert(!reused(&bench, first_attempt, &task));
    struct fl_work_result *one = work_on(&bench, FL_WORK_SEAL, first_attempt, &task);
    bench.tiers[0] = 0; /* another cohort would show the difference */
    ck_assert_int_eq(status_of(&bench, FL_WORK_SEAL, first_attempt, &task), FL_EREFUSED);
    bench.tiers[0] = 1;
    struct fl_work_result *two = work_on(&bench, FL_WORK_SEAL, first_attempt, &task);
    struct fl_attempt next = {9, 1, 2};
    struct fl_work_result *three = work_on(&bench, FL_WORK_SEAL, next, &task);
    ck_assert_msg(one->status == FL_OK, "%s", one->error.text);
    ck_assert_msg(two->status == FL_OK, "%s", two->error.text);
    ck_assert_msg(three->status == FL_OK, "%s", three->error.text);
    ck_assert_int_eq(memcmp(one->sha256, two->sha256, FL_HASH_BYTES), 0);
    ck_assert_int_eq(
        memcmp(fl_object_root(one->object), fl_object_root(two->object), FL_HASH_BYTES), 0);
    ck_assert_int_ne(memcmp(one->sha256, three->sha256, FL_HASH_BYTES), 0);
    /* the attempt before is over */
    ck_assert_int_eq(status_of(&bench, FL_WORK_SEAL, first_attempt, &task), FL_EREFUSED);
    fl_work_result_free(one);
    fl_work_result_free(two);
    fl_work_result_free(three);
    bench_close(&bench);
}
END_TEST

START_TEST(a_delta_that_is_gone_at_sealing_is_no_permanent_failure)
{
    struct bench bench;
    bench_open(&bench);
    fit(&bench);
    struct fl_wire_task task = task_of(&bench);
    ck_assert(!reused(&bench, first_attempt, &task));
    fl_sitestore_forget(&bench.site.store, 9, 1);
    ck_assert_int_eq(status_of(&bench, FL_WORK_SEAL, first_attempt, &task), FL_EIO);
    bench_close(&bench);
}
END_TEST

/* A version of these bytes; hash and ranks as announced. */
static enum fl_status keep_of(struct bench *bench, uint64_t job, uint32_t version, bool right_hash,
                              size_t modules, char *path)
{
    struct fl_work work = {.kind = FL_WORK_KEEP, .key = {job, version, 1}, .offer = stub_offer()};
    struct fl_work_result *result = fl_calloc(1, sizeof(*result));
    ck_assert(result != NULL);
    work.offer.dora = bench->dora;
    work.bytes = bench->start.data;
    work.length = bench->start.length;
    work.version.version = version;
    work.version.workers = 3;
    work.version.has_eval = true;
    work.version.eval_loss = 3.5;
    work.version.ranks = (struct fl_wire_bytes){bench->ranks, 2 * modules};
    fl_sha256(work.bytes, work.length, work.version.sha256);
    work.version.sha256[0] ^= !right_hash;
    fl_labour_do(&bench->labour, &work, result);
    enum fl_status status = result->status;
    ck_assert(status == FL_OK || result->error.text[0]);
    memcpy(path, result->path, FL_PATH_BYTES);
    fl_work_result_free(result);
    return status;
}

static enum fl_status keep(struct bench *bench, uint32_t version, bool right_hash, size_t modules,
                           char *path)
{
    return keep_of(bench, 9, version, right_hash, modules, path);
}

START_TEST(the_last_version_of_a_job_may_come_while_the_next_job_runs)
{
    struct bench bench;
    char path[FL_PATH_BYTES];
    bench_open(&bench);
    fit(&bench);
    struct fl_wire_task task = task_of(&bench);
    ck_assert_int_eq(keep_of(&bench, 8, 2, true, STUB_MODULES, path), FL_OK);
    ck_assert(!reused(&bench, first_attempt, &task)); /* job 9 is as well known as before */
    ck_assert_int_eq(keep_of(&bench, 8, 2, true, STUB_MODULES, path), FL_OK);
    ck_assert_int_eq(status_of(&bench, FL_WORK_SEAL, first_attempt, &task), FL_OK);
    ck_assert_int_eq(keep_of(&bench, 8, 3, false, STUB_MODULES, path), FL_EFORMAT);
    ck_assert(reused(&bench, first_attempt, &task));
    bench_close(&bench);
}
END_TEST

START_TEST(a_version_is_kept_as_a_peft_directory_and_ends_its_round)
{
    struct bench bench;
    struct fl_adapter *found, *start = stub_start(1);
    struct fl_error error;
    struct fl_buf card;
    char path[FL_PATH_BYTES], file[FL_PATH_BYTES];
    bench_open(&bench);
    fit(&bench);
    struct fl_wire_task task = task_of(&bench);
    ck_assert(!reused(&bench, first_attempt, &task));
    ck_assert_int_eq(status_of(&bench, FL_WORK_SEAL, first_attempt, &task), FL_OK);
    ck_assert_int_eq(keep(&bench, 1, true, STUB_MODULES, path), FL_OK);
    fl_assert_ok(fl_adapter_load(path, &stub_inventory, &found, &error), &error);
    ck_assert_int_eq(memcmp(found->modules[0].a, start->modules[0].a, 4 * 4 * 8), 0);
    ck_assert(fl_adapter_scale(found, 0) == 2.0);
    fl_assert_ok(fl_path_join(file, path, "README.md", &error), &error);
    fl_assert_ok(fl_fs_read(file, 65536, &card, &error), &error);
    ck_assert(strstr(fl_buf_text(&card), "glossaries: global adapter, version 1") != NULL);
    ck_assert(strstr(fl_buf_text(&card), "averaged over 3 sites") != NULL);
    ck_assert(strstr(fl_buf_text(&card), "3.5000") != NULL);
    fl_buf_free(&card);
    /* the round's delta and upload are gone */
    fl_assert_ok(fl_sitestore_upload_path(&bench.site.store, 9, 1, 1, file, &error), &error);
    ck_assert(!fl_path_exists(file));
    ck_assert(!reused(&bench, first_attempt, &task));
    fl_adapter_destroy(&found);
    fl_adapter_destroy(&start);
    bench_close(&bench);
}
END_TEST

START_TEST(a_version_of_dora_is_kept_with_its_magnitudes)
{
    struct bench bench;
    struct fl_adapter *found, *start = dora_start();
    struct fl_error error;
    struct fl_buf card;
    char path[FL_PATH_BYTES], file[FL_PATH_BYTES];
    bench_open(&bench);
    ck_assert_int_eq(keep(&bench, 1, true, STUB_MODULES, path), FL_OK);
    bench_dora(&bench);
    ck_assert_int_eq(keep(&bench, 2, true, STUB_MODULES, path), FL_OK);
    fl_assert_ok(fl_adapter_load(path, &stub_inventory, &found, &error), &error);
    ck_assert(found->use_dora);
    for (uint32_t m = 0; m < start->count; m++)
        ck_assert_int_eq(memcmp(found->modules[m].m, start->modules[m].m,
                                start->modules[m].module.out * sizeof(float)),
                         0);
    fl_assert_ok(fl_path_join(file, path, "README.md", &error), &error);
    fl_assert_ok(fl_fs_read(file, 65536, &card, &error), &error);
    ck_assert(strstr(fl_buf_text(&card), "not exact") != NULL);
    fl_buf_free(&card);
    fl_adapter_destroy(&found);
    fl_adapter_destroy(&start);
    bench_close(&bench);
}
END_TEST

START_TEST(a_version_that_comes_before_any_check_of_its_job_is_kept)
{
    struct bench bench;
    char path[FL_PATH_BYTES];
    bench_open(&bench);
    ck_assert_int_eq(keep(&bench, 1, true, STUB_MODULES, path), FL_OK);
    ck_assert(fl_path_is_directory(path));
    bench_close(&bench);
}
END_TEST

START_TEST(a_version_that_is_not_what_was_announced_is_refused)
{
    struct bench bench;
    char path[FL_PATH_BYTES], file[FL_PATH_BYTES];
    struct fl_error error;
    bench_open(&bench);
    fit(&bench);
    ck_assert_int_eq(keep(&bench, 1, false, STUB_MODULES, path), FL_EFORMAT);
    ck_assert_int_eq(keep(&bench, 1, true, STUB_MODULES - 1, path), FL_EFORMAT);
    stub_ranks(bench.ranks, 3);
    ck_assert_int_eq(keep(&bench, 1, true, STUB_MODULES, path), FL_EFORMAT);
    fl_assert_ok(fl_sitestore_path(&bench.site.store, "adapters/9", file, &error), &error);
    ck_assert(!fl_path_exists(file));
    bench_close(&bench);
}
END_TEST

START_TEST(the_order_of_data_depends_on_site_and_round)
{
    struct bench bench;
    uint64_t seeds[3];
    bench_open(&bench);
    fit(&bench);
    struct fl_wire_task task = task_of(&bench);
    (void)reused(&bench, first_attempt, &task);
    seeds[0] = bench.site.stub.data_seed;
    (void)reused(&bench, (struct fl_attempt){9, 2, 1}, &task);
    seeds[1] = bench.site.stub.data_seed;
    snprintf(bench.labour.name, sizeof(bench.labour.name), "ward-4");
    task.start.root[0] ^= 1;
    (void)reused(&bench, first_attempt, &task);
    seeds[2] = bench.site.stub.data_seed;
    ck_assert(seeds[0] != seeds[1] && seeds[1] != seeds[2] && seeds[0] != seeds[2]);
    bench_close(&bench);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, the_check_of_an_offer_gives_the_inventory);
    tcase_add_test(tc, work_on_a_job_that_was_not_checked_is_refused);
    tcase_add_test(tc, nothing_is_trained_twice_for_the_same_start_and_settings);
    tcase_add_test(tc, ranks_that_do_not_fit_are_refused);
    tcase_add_test(tc, a_failed_training_leaves_no_delta);
    tcase_add_test(tc, the_update_is_what_the_coordinator_reads);
    tcase_add_test(tc, magnitudes_are_trained_kept_and_sent);
    tcase_add_test(tc, a_task_that_does_not_fit_its_magnitudes_is_refused);
    tcase_add_test(tc, nothing_is_sealed_twice_in_one_attempt);
    tcase_add_test(tc, a_delta_that_is_gone_at_sealing_is_no_permanent_failure);
    tcase_add_test(tc, the_last_version_of_a_job_may_come_while_the_next_job_runs);
    tcase_add_test(tc, a_version_is_kept_as_a_peft_directory_and_ends_its_round);
    tcase_add_test(tc, a_version_of_dora_is_kept_with_its_magnitudes);
    tcase_add_test(tc, a_version_that_comes_before_any_check_of_its_job_is_kept);
    tcase_add_test(tc, a_version_that_is_not_what_was_announced_is_refused);
    tcase_add_test(tc, the_order_of_data_depends_on_site_and_round);
}

FL_TEST_MAIN("worker_labour", add_tests)

/*
 * A site's side of secure aggregation, without threads: four sites with stub trainers, and a test
 * that plays the coordinator honestly, then not.
 * Goal: the opened sum is the sum of the plain updates, and every request that would show more is
 * refused with its reason.
 */
#include <stdio.h>
#include <string.h>

#include "adapter/algebra.h"
#include "base/alloc.h"
#include "crypto/sealed.h"
#include "job/offer.h"
#include "runner.h"
#include "stub_site.h"
#include "worker/labour.h"
#include "worker/trust_store.h"

#define SITES 4

struct site {
    struct stub_site stub;
    struct fl_labour labour;
    uint8_t ranks[4 * STUB_MODULES]; /* global, own */
};

static struct site sites[SITES];
static struct fl_box_keys *job_keys;
static struct fl_buf start;
static struct fl_attempt key;
static struct fl_wire_offer offer;
static struct fl_error error;
static struct fl_inventory targets;

/* What the honest coordinator holds of an attempt. */
static uint8_t adverts[SITES * FL_SECAGG_ADVERT_BYTES];
static struct fl_secagg_context context;
static struct fl_secagg_cohort cohort;
static struct fl_buf plan;
static uint8_t sealed[SITES][SITES][FL_SECAGG_SEALED_SHARE_BYTES];
static uint8_t shares_of[SITES][SITES][FL_SECAGG_SEALED_SHARE_BYTES]; /* to, from */
static uint8_t sets[2][SITES], signatures[SITES][FL_SIGNATURE_BYTES];
static struct fl_layout *layout;

static void site_ranks(uint32_t i, uint16_t own)
{
    stub_ranks(sites[i].ranks, 4);
    stub_ranks(sites[i].ranks + 2 * STUB_MODULES, own);
}

static void setup(void)
{
    struct fl_adapter *first = stub_start(1);
    for (uint32_t i = 0; i < SITES; i++) {
        struct site *self = &sites[i];
        stub_site_open(&self->stub, NULL);
        struct fl_trainer trainer = stub_trainer(&self->stub.stub);
        fl_labour_init(&self->labour, self->stub.conf, &self->stub.store, &trainer, NULL, NULL);
        snprintf(self->labour.name, sizeof(self->labour.name), "ward-%u", i);
        site_ranks(i, 4);
    }
    ck_assert_int_eq(fl_box_keys_generate(fl_entropy_system(), &job_keys), FL_OK);
    fl_buf_init(&start, 1u << 20);
    fl_assert_ok(fl_adapter_encode(first, &start, &error), &error);
    fl_adapter_destroy(&first);
    stub_targets(&targets);
    offer = stub_offer();
    offer.secure_aggregation = true;
    key = (struct fl_attempt){9, 1, 1};
    fl_buf_init(&plan, 1u << 16);
}

static void teardown(void)
{
    for (uint32_t i = 0; i < SITES; i++) {
        fl_labour_free(&sites[i].labour);
        stub_site_close(&sites[i].stub);
    }
    fl_box_keys_destroy(&job_keys);
    fl_buf_free(&start);
    fl_buf_free(&plan);
    fl_inventory_free(&targets);
    fl_layout_destroy(&layout);
}

static struct fl_wire_task task_of(uint32_t i)
{
    struct fl_wire_task task = {.train = true, .train_a = true, .train_b = true, .evaluate = true};
    task.global_ranks = (struct fl_wire_bytes){sites[i].ranks, 2 * STUB_MODULES};
    task.site_ranks = (struct fl_wire_bytes){sites[i].ranks + 2 * STUB_MODULES, 2 * STUB_MODULES};
    task.start.size = start.length;
    fl_sha256(start.data, start.length, task.start.root);
    return task;
}

static struct fl_work_result *work_on(uint32_t i, struct fl_work *work, enum fl_work_kind kind)
{
    struct fl_work_result *result = fl_calloc(1, sizeof(*result));
    ck_assert(result != NULL);
    work->kind = result->kind = kind;
    work->key = result->key = key;
    work->offer = offer;
    if (!work->task.global_ranks.data)
        work->task = task_of(i);
    work->bytes = start.data;
    work->length = start.length;
    fl_labour_do(&sites[i].labour, work, result);
    return result;
}

/* It must succeed; the reply is copied. */
static void reply_of(uint32_t i, struct fl_work *work, enum fl_work_kind kind, void *reply,
                     size_t bytes)
{
    struct fl_work_result *result = work_on(i, work, kind);
    ck_assert_msg(result->status == FL_OK, "site %u: %s", i, result->error.text);
    ck_assert_uint_eq(result->reply_bytes, bytes);
    if (bytes > 0)
        memcpy(reply, result->reply, bytes);
    fl_work_result_free(result);
}

static void refused(uint32_t i, struct fl_work *work, enum fl_work_kind kind, const char *reason)
{
    struct fl_work_result *result = work_on(i, work, kind);
    ck_assert_msg(result->status != FL_OK, "site %u did it, though: %s", i, reason);
    ck_assert_msg(strstr(result->error.text, reason) != NULL, "'%s' is not '%s'",
                  result->error.text, reason);
    if (kind != FL_WORK_SEAL) /* there it is whose shares opened, which is no secret */
        ck_assert_ptr_null(result->reply);
    ck_assert_ptr_null(result->object);
    fl_work_result_free(result);
}

static void make_keys(uint32_t i)
{
    struct fl_work work = {.kind = FL_WORK_FIT};
    reply_of(i, &work, FL_WORK_FIT, NULL, 0);
    reply_of(i, &work, FL_WORK_TRAIN, NULL, 0);
    reply_of(i, &work, FL_WORK_KEYS, adverts + (size_t)i * FL_SECAGG_ADVERT_BYTES,
             FL_SECAGG_ADVERT_BYTES);
}

/* The coordinator's own view of the first n sites. */
static void make_cohort(uint32_t n)
{
    struct fl_secagg_advert list[SITES];
    struct fl_wire_task task = task_of(0);
    struct fl_rank_plan ranks;
    ck_assert_int_eq(fl_rank_plan_create(&ranks, n, STUB_MODULES), FL_OK);
    for (uint32_t m = 0; m < STUB_MODULES; m++)
        ranks.global[m] = 4;
    context = (struct fl_secagg_context){
        .job = key.job,
        .round = key.round,
        .attempt = key.attempt,
        .elements = fl_layout_elements(&targets, ranks.global, FL_FACTORS_BOTH)};
    fl_job_binding(&offer, &task, context.job_hash);
    memcpy(context.manifest, offer.manifest, FL_HASH_BYTES);
    memcpy(context.start, task.start.root, FL_HASH_BYTES);
    for (uint32_t i = 0; i < n; i++) {
        ck_assert_int_eq(
            fl_secagg_advert_decode(adverts + (size_t)i * FL_SECAGG_ADVERT_BYTES, &list[i]), FL_OK);
        for (uint32_t m = 0; m < STUB_MODULES; m++)
            ranks.ranks[i * STUB_MODULES + m] =
                fl_load_u16(sites[i].ranks + 2 * STUB_MODULES + 2 * m);
    }
    fl_assert_ok(fl_secagg_cohort_check(&context, list, n, &cohort, &error), &error);
    fl_buf_free(&plan);
    ck_assert_int_eq(fl_secagg_plan_encode(ranks.ranks, n, STUB_MODULES, &plan), FL_OK);
    fl_layout_destroy(&layout);
    fl_assert_ok(fl_layout_create(&targets, &ranks, FL_FACTORS_BOTH,
                                  (struct fl_ranges){1.0, 1.0, 1.0}, &layout, &error),
                 &error);
    fl_rank_plan_free(&ranks);
}

static struct fl_work cohort_work(uint32_t n)
{
    struct fl_work work = {.kind = FL_WORK_COHORT};
    work.cohort.adverts = (struct fl_wire_bytes){adverts, (size_t)n * FL_SECAGG_ADVERT_BYTES};
    work.cohort.plan = (struct fl_wire_bytes){plan.data, plan.length};
    return work;
}

static void share(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct fl_work work = cohort_work(n);
        reply_of(i, &work, FL_WORK_COHORT, sealed[i], (size_t)n * FL_SECAGG_SEALED_SHARE_BYTES);
        for (uint32_t to = 0; to < n; to++)
            memcpy((uint8_t *)shares_of[to] + (size_t)i * FL_SECAGG_SEALED_SHARE_BYTES,
                   (uint8_t *)sealed[i] + (size_t)to * FL_SECAGG_SEALED_SHARE_BYTES,
                   FL_SECAGG_SEALED_SHARE_BYTES);
    }
}

static struct fl_work seal_work(uint32_t i, uint32_t n)
{
    struct fl_work work = {.kind = FL_WORK_SEAL};
    memset(sets[0], 1, n);
    work.collect.cohort = n;
    work.collect.tiers = (struct fl_wire_bytes){fl_layout_site_tiers(layout, i),
                                                layout->tier_count};
    memcpy(work.collect.sealing_key, fl_box_keys_public(job_keys), FL_KEY_BYTES);
    work.collect.sharers = (struct fl_wire_bytes){sets[0], n};
    work.collect.shares = (struct fl_wire_bytes){(uint8_t *)shares_of[i],
                                                 (size_t)n * FL_SECAGG_SEALED_SHARE_BYTES};
    return work;
}

/* Add the sealed update of a site to the sums. */
static void add_update(uint32_t i, struct fl_object *object, const struct fl_grid *grid,
                       uint32_t site, uint32_t *vector, uint64_t *scalars)
{
    struct fl_opener *opener = NULL;
    struct fl_update_reader reader;
    static uint8_t piece[1 << 20];
    char path[FL_PATH_BYTES];
    size_t got;
    const struct fl_seal_context about = {.purpose = "update",
                                          .sender = sites[i].labour.name,
                                          .job = key.job,
                                          .round = key.round,
                                          .attempt = key.attempt};
    (void)object;
    fl_assert_ok(fl_sitestore_upload_path(&sites[i].stub.store, key.job, key.round, key.attempt,
                                          path, &error),
                 &error);
    fl_assert_ok(fl_opener_open_file(fl_box_keys_public(job_keys), fl_box_keys_secret(job_keys),
                                     &about, path, &opener, &error),
                 &error);
    fl_assert_ok(fl_opener_read(opener, piece, sizeof(piece), &got, &error), &error);
    fl_opener_close(&opener);
    fl_update_reader_init(&reader, layout, grid, site, vector, scalars);
    fl_assert_ok(fl_update_reader_push(&reader, piece, got, &error), &error);
    fl_assert_ok(fl_update_reader_end(&reader, &error), &error);
}

static void upload(uint32_t n, uint32_t *vector, uint64_t *scalars)
{
    struct fl_grid grid;
    ck_assert_int_eq(
        fl_grid_init(&grid, n, offer.weight_cap, offer.steps, offer.batch_size, offer.seq_len),
        FL_OK);
    for (uint32_t i = 0; i < n; i++) {
        struct fl_work work = seal_work(i, n);
        struct fl_work_result *result = work_on(i, &work, FL_WORK_SEAL);
        ck_assert_msg(result->status == FL_OK, "site %u: %s", i, result->error.text);
        add_update(i, result->object, &grid, FL_SITE_UNKNOWN, vector, scalars);
        fl_work_result_free(result);
    }
}

static struct fl_work survivors_work(uint32_t n)
{
    struct fl_work work = {.kind = FL_WORK_SURVIVORS};
    work.unmask.survivors = (struct fl_wire_bytes){sets[0], n};
    work.unmask.signed_by = (struct fl_wire_bytes){sets[1], n};
    work.unmask.signatures = (struct fl_wire_bytes){signatures[0], (size_t)n * FL_SIGNATURE_BYTES};
    return work;
}

static void sign(uint32_t n)
{
    memset(sets, 1, sizeof(sets));
    for (uint32_t i = 0; i < n; i++) {
        struct fl_work work = survivors_work(n);
        reply_of(i, &work, FL_WORK_SURVIVORS, signatures[i], FL_SIGNATURE_BYTES);
    }
}

/* Up to the masked updates of the first n sites, summed. */
static void to_sum(uint32_t n, uint32_t *vector, uint64_t *scalars)
{
    for (uint32_t i = 0; i < n; i++)
        make_keys(i);
    make_cohort(n);
    share(n);
    upload(n, vector, scalars);
}

/* The same sites in the same job without masks. */
static void plain_sum(uint32_t n, uint32_t *vector, uint64_t *scalars)
{
    struct fl_grid grid;
    offer.secure_aggregation = false;
    key.attempt++;
    ck_assert_int_eq(
        fl_grid_init(&grid, n, offer.weight_cap, offer.steps, offer.batch_size, offer.seq_len),
        FL_OK);
    for (uint32_t i = 0; i < n; i++) {
        struct fl_work work = {.kind = FL_WORK_TRAIN}; /* under other settings: trained anew */
        reply_of(i, &work, FL_WORK_TRAIN, NULL, 0);
        work = seal_work(i, n);
        struct fl_work_result *result = work_on(i, &work, FL_WORK_SEAL);
        ck_assert_msg(result->status == FL_OK, "site %u: %s", i, result->error.text);
        add_update(i, result->object, &grid, i, vector, scalars);
        fl_work_result_free(result);
    }
}

static uint32_t *masked, *plain;
static uint64_t masked_scalars[64], plain_scalars[64];

static void zero_sums(void)
{
    memset(masked_scalars, 0, sizeof(masked_scalars));
    memset(plain_scalars, 0, sizeof(plain_scalars));
    masked = fl_calloc(1u << 16, sizeof(*masked));
    plain = fl_calloc(1u << 16, sizeof(*plain));
    ck_assert(masked && plain);
}

static void free_sums(void)
{
    fl_free(masked);
    fl_free(plain);
}

START_TEST(the_opened_sum_is_that_of_the_plain_updates)
{
    struct fl_secagg_set all = {{false}};
    static uint8_t answers[SITES][SITES][FL_SCALAR_BYTES];
    zero_sums();
    if (_i == 1)
        site_ranks(3, 2); /* one site of a smaller rank: three train the rest */
    to_sum(SITES, masked, masked_scalars);
    sign(SITES);
    for (uint32_t i = 0; i < SITES; i++) {
        struct fl_work work = survivors_work(SITES);
        reply_of(i, &work, FL_WORK_UNMASK, answers[i], sizeof(answers[i]));
        all.has[i] = true;
    }
    ck_assert_uint_lt(layout->elements, 1u << 16);
    ck_assert_uint_lt(layout->scalar_count, 64);
    fl_assert_ok(fl_secagg_unmask(&context, &cohort, &all, &all, &all, answers[0][0], masked,
                                  masked_scalars, layout->scalar_count, NULL, &error),
                 &error);
    plain_sum(SITES, plain, plain_scalars);
    ck_assert_mem_eq(masked, plain, layout->elements * sizeof(*plain));
    ck_assert_mem_eq(masked_scalars, plain_scalars, layout->scalar_count * sizeof(uint64_t));
    free_sums();
}
END_TEST

START_TEST(an_answer_is_given_once_and_a_second_sum_with_one_site_less_never)
{
    static uint8_t answer[SITES][FL_SCALAR_BYTES];
    zero_sums();
    to_sum(SITES, masked, masked_scalars);
    sign(SITES);
    struct fl_work work = survivors_work(SITES);
    reply_of(0, &work, FL_WORK_UNMASK, answer, sizeof(answer));
    work = survivors_work(SITES);
    refused(0, &work, FL_WORK_UNMASK, "twice");
    /* another attempt, or another job, over the same deltas */
    for (int other = 0; other < 2; other++) {
        if (other == 0)
            key.attempt++;
        else
            key.job++;
        to_sum(SITES - 1, masked, masked_scalars);
        sign(SITES - 1);
        work = survivors_work(SITES - 1);
        refused(0, &work, FL_WORK_UNMASK, FL_LEDGER_REASON);
    }
    key.attempt++;
    to_sum(SITES, masked, masked_scalars); /* the same sum once more shows nothing new */
    sign(SITES);
    work = survivors_work(SITES);
    reply_of(0, &work, FL_WORK_UNMASK, answer, sizeof(answer));
    free_sums();
}
END_TEST

/* Open the sum of the first n sites, all of which survive. */
static void open_sum(uint32_t n)
{
    struct fl_secagg_set all = {{false}};
    static uint8_t answers[SITES * SITES * FL_SCALAR_BYTES];
    const size_t bytes = (size_t)n * FL_SCALAR_BYTES;
    sign(n);
    for (uint32_t i = 0; i < n; i++) {
        struct fl_work work = survivors_work(n);
        reply_of(i, &work, FL_WORK_UNMASK, answers + i * bytes, bytes);
        all.has[i] = true;
    }
    fl_assert_ok(fl_secagg_unmask(&context, &cohort, &all, &all, &all, answers, masked,
                                  masked_scalars, layout->scalar_count, NULL, &error),
                 &error);
}

/* The loss of one site that alone has rows to evaluate on would be the "sum". */
START_TEST(what_too_few_sites_measured_is_in_no_sum)
{
    zero_sums();
    for (int measuring = 0; measuring <= SITES; measuring++) {
        for (int i = 0; i < SITES; i++)
            sites[i].stub.stub.measures_not = i >= measuring;
        memset(masked, 0, (1u << 16) * sizeof(*masked));
        memset(masked_scalars, 0, sizeof(masked_scalars));
        key = (struct fl_attempt){20 + (uint64_t)measuring, 1, 1};
        offer.seed = 20 + (uint64_t)measuring; /* other work to the ledger, and trained anew */
        for (int i = 0; i < SITES; i++)
            sites[i].stub.stub.poison = 0.01f * (float)(measuring + 1);
        to_sum(SITES, masked, masked_scalars);
        open_sum(SITES);
        const uint64_t *tail = masked_scalars + layout->tier_count;
        const uint64_t shown = measuring >= 3 ? (uint64_t)measuring : 0;
        ck_assert_uint_eq(tail[FL_SCALAR_EVAL_TOKENS], 4 * shown);
        ck_assert_uint_eq(tail[FL_SCALAR_EVAL_LOSS], (uint64_t)(12.0 * FL_LOSS_SCALE) * shown);
        ck_assert_uint_eq(tail[FL_SCALAR_TRAIN_TOKENS], 40 * SITES);
    }
    free_sums();
}
END_TEST

/*
 * Sites 0 and 2 have pinned all but the last one, which may be the coordinator's own: with it three
 * train the upper directions, or have evaluated, and two that are known.
 */
START_TEST(strangers_hide_nobody_in_a_tier)
{
    const bool evaluation = _i == 1;
    zero_sums();
    for (uint32_t i = 0; i < 2 * (SITES - 1); i++) {
        const struct site *pinned = &sites[i / 2], *at = &sites[i % 2 ? 2 : 0];
        at->stub.conf->roster = FL_ROSTER_PINNED;
        fl_assert_ok(fl_trust_store_pin(at->stub.directory, pinned->labour.name,
                                        fl_keys_public(pinned->stub.store.keys), NULL, &error),
                     &error);
    }
    if (evaluation)
        sites[2].stub.stub.measures_not = true;
    else
        site_ranks(2, 2);
    to_sum(SITES, masked, masked_scalars);
    memset(sets, 1, sizeof(sets));
    struct fl_work work = survivors_work(SITES);
    refused(0, &work, FL_WORK_SURVIVORS, "thin tier: only 2 of the survivors");
    work = survivors_work(SITES);
    reply_of(1, &work, FL_WORK_SURVIVORS, signatures[1], FL_SIGNATURE_BYTES); /* at first use */
    work = survivors_work(SITES);
    reply_of(2, &work, FL_WORK_SURVIVORS, signatures[2], FL_SIGNATURE_BYTES); /* not in the tier */
    free_sums();
}
END_TEST

/* Who shares its own loss is no cover for others: theirs would be what the sum has more. */
START_TEST(sites_that_share_their_loss_hide_nobodys)
{
    zero_sums();
    for (int sharing = 0; sharing <= SITES; sharing++) {
        for (int i = 0; i < SITES; i++)
            sites[i].stub.conf->share_eval = i < sharing;
        memset(masked, 0, (1u << 16) * sizeof(*masked));
        memset(masked_scalars, 0, sizeof(masked_scalars));
        key = (struct fl_attempt){20 + (uint64_t)sharing, 1, 1};
        offer.seed = 20 + (uint64_t)sharing;
        for (int i = 0; i < SITES; i++)
            sites[i].stub.stub.poison = 0.01f * (float)(sharing + 1);
        to_sum(SITES, masked, masked_scalars);
        open_sum(SITES);
        const uint64_t *tail = masked_scalars + layout->tier_count;
        const uint64_t shown = SITES - sharing >= 3 ? SITES : (uint64_t)sharing;
        ck_assert_uint_eq(tail[FL_SCALAR_EVAL_TOKENS], 4 * shown);
    }
    free_sums();
}
END_TEST

/* Three measured, and one of them is lost behind its masks. */
START_TEST(what_too_few_survivors_measured_is_not_opened)
{
    static uint8_t three[SITES] = {1, 1, 0, 1};
    zero_sums();
    sites[3].stub.stub.measures_not = true;
    to_sum(SITES, masked, masked_scalars);
    for (uint32_t i = 0; i < SITES; i += 3) { /* one that measured, and one that did not */
        struct fl_work work = survivors_work(SITES);
        work.unmask.survivors.data = three;
        refused(i, &work, FL_WORK_SURVIVORS, "thin tier: only 2 of the survivors evaluated");
    }
    free_sums();
}
END_TEST

START_TEST(a_rank_that_too_few_survivors_trained_is_not_opened)
{
    zero_sums();
    site_ranks(2, 2);
    site_ranks(3, 2); /* two of four train rank 4 */
    to_sum(SITES, masked, masked_scalars);
    memset(sets, 1, sizeof(sets));
    struct fl_work work = survivors_work(SITES);
    refused(0, &work, FL_WORK_SURVIVORS, "thin tier");
    free_sums();
}
END_TEST

START_TEST(a_cohort_is_what_its_members_signed)
{
    struct fl_work work;
    for (uint32_t i = 0; i < SITES; i++)
        make_keys(i);
    make_cohort(SITES);
    plan.data[4] ^= 1; /* the ranks of the first member */
    work = cohort_work(SITES);
    refused(0, &work, FL_WORK_COHORT, "ward-0");
    plan.data[4] ^= 1;
    work = cohort_work(SITES);
    refused(0, &work, FL_WORK_COHORT, "twice"); /* a list is taken once, good or not */
    adverts[2 * FL_SECAGG_ADVERT_BYTES + FL_NAME_BYTES + FL_KEY_BYTES] ^= 1;
    work = cohort_work(SITES);
    refused(1, &work, FL_WORK_COHORT, "ward-2");
    work = cohort_work(2);
    refused(3, &work, FL_WORK_COHORT, "cohort of 2");
    key.attempt++;
    work = cohort_work(SITES);
    refused(2, &work, FL_WORK_COHORT, "secrets lost");
}
END_TEST

START_TEST(nothing_is_sealed_but_what_the_cohort_gives)
{
    static uint8_t two[SITES] = {1, 1, 0, 0};
    struct fl_work work;
    zero_sums();
    for (uint32_t i = 0; i < SITES; i++)
        make_keys(i);
    make_cohort(SITES);
    work = seal_work(0, SITES);
    refused(0, &work, FL_WORK_SEAL, "secrets lost"); /* before the cohort is known */
    share(SITES);
    work = seal_work(0, SITES);
    work.collect.cohort = SITES - 1;
    refused(0, &work, FL_WORK_SEAL, "another cohort");
    work = seal_work(1, SITES);
    work.collect.tiers.length = 0;
    refused(1, &work, FL_WORK_SEAL, "layout");
    work = seal_work(2, SITES);
    work.collect.sharers.data = two; /* without site 2 */
    refused(2, &work, FL_WORK_SEAL, "not among those who shared");
    work = seal_work(3, SITES);
    memset(shares_of[3], 0, sizeof(shares_of[3]));
    refused(3, &work, FL_WORK_SEAL, "shares of 1 sites");
    free_sums();
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, the_opened_sum_is_that_of_the_plain_updates, 0, 2);
    tcase_add_test(tc, an_answer_is_given_once_and_a_second_sum_with_one_site_less_never);
    tcase_add_test(tc, what_too_few_sites_measured_is_in_no_sum);
    tcase_add_loop_test(tc, strangers_hide_nobody_in_a_tier, 0, 2);
    tcase_add_test(tc, sites_that_share_their_loss_hide_nobodys);
    tcase_add_test(tc, what_too_few_survivors_measured_is_not_opened);
    tcase_add_test(tc, a_rank_that_too_few_survivors_trained_is_not_opened);
    tcase_add_test(tc, a_cohort_is_what_its_members_signed);
    tcase_add_test(tc, nothing_is_sealed_but_what_the_cohort_gives);
}

FL_TEST_MAIN("worker.masking", add_tests)

/*
 * Goal: what sites bind and remember of a job changes with all that shapes a delta, and never for
 * what a site does not train.
 * Method: hashes of one offer as they were before jobs could have magnitudes; one change at a time.
 */
#include "job/offer.h"

#include <stdio.h>
#include <string.h>

#include "runner.h"

static uint8_t ranks[4] = {8, 0, 4, 0};
static struct fl_wire_offer offer;
static struct fl_wire_task task;

static void setup(void)
{
    offer = (struct fl_wire_offer){.rounds = 4,
                                   .seed = 7,
                                   .alpha = 16.0,
                                   .rank_default = 8,
                                   .rank_max = 8,
                                   .steps = 4,
                                   .batch_size = 8,
                                   .seq_len = 128,
                                   .lr = 2e-3,
                                   .lr_a = 1e-3,
                                   .min_workers = 3,
                                   .secure_aggregation = true,
                                   .weight_cap = 1000,
                                   .shuffle = true,
                                   .liveness_ms = 30000};
    (void)snprintf(offer.name, sizeof offer.name, "glossaries");
    (void)snprintf(offer.model, sizeof offer.model, "tiny");
    (void)snprintf(offer.strategy, sizeof offer.strategy, "rolora");
    (void)snprintf(offer.targets, sizeof offer.targets, "q_proj,v_proj");
    memset(offer.manifest, 1, sizeof offer.manifest);
    memset(offer.job_hash, 2, sizeof offer.job_hash);
    task = (struct fl_wire_task){.version = 1,
                                 .train = true,
                                 .train_a = true,
                                 .evaluate = true,
                                 .first_step = 4,
                                 .total_steps = 16};
    memset(task.start.root, 3, sizeof task.start.root);
    memset(task.version_hash, 4, sizeof task.version_hash);
    task.global_ranks = task.site_ranks = (struct fl_wire_bytes){ranks, sizeof ranks};
}

typedef void (*hash_function)(const struct fl_wire_offer *, const struct fl_wire_task *,
                              uint8_t out[FL_HASH_BYTES]);

static const char *hex_of(hash_function hash)
{
    static char hex[FL_HASH_HEX_BYTES];
    uint8_t bytes[FL_HASH_BYTES];
    hash(&offer, &task, bytes);
    fl_hex(bytes, sizeof bytes, hex);
    return hex;
}

START_TEST(without_magnitudes_the_hashes_are_those_that_they_always_were)
{
    ck_assert_str_eq(hex_of(fl_job_binding),
                     "ba2039b252a28f8e1e9b130445a786721a1ddc0e992195dacf6aece677209a79");
    ck_assert_str_eq(hex_of(fl_job_training_settings),
                     "8a1628ea5da27380a9f444e91d973954b7ffedf5c70cbeb0cff6439aca53f875");
}
END_TEST

/* Does the hash change with what `change` does? */
static bool moves(hash_function hash, void (*change)(void))
{
    uint8_t before[FL_HASH_BYTES], after[FL_HASH_BYTES];
    struct fl_wire_offer kept = offer;
    hash(&offer, &task, before);
    change();
    hash(&offer, &task, after);
    offer = kept;
    return memcmp(before, after, sizeof before) != 0;
}

static void switch_dora(void)
{
    offer.dora = !offer.dora;
}

static void raise_lr_b(void)
{
    offer.lr_b = 5e-3;
}

START_TEST(magnitudes_are_bound_and_remembered)
{
    ck_assert(moves(fl_job_binding, switch_dora));
    ck_assert(moves(fl_job_training_settings, switch_dora));
    /* A alone is trained: the rate of B shapes the delta only by its magnitudes */
    ck_assert(!moves(fl_job_training_settings, raise_lr_b));
    offer.dora = true;
    ck_assert(moves(fl_job_training_settings, raise_lr_b));
}
END_TEST

START_TEST(a_task_trains_magnitudes_with_any_factor_and_never_alone)
{
    ck_assert_int_eq(fl_job_factors(&offer, &task), FL_FACTOR_A);
    offer.dora = true;
    ck_assert_int_eq(fl_job_factors(&offer, &task), FL_FACTOR_A | FL_FACTOR_M);
    task.train_b = true;
    ck_assert_int_eq(fl_job_factors(&offer, &task), FL_FACTORS_BOTH | FL_FACTOR_M);
    task.train = false;
    ck_assert_int_eq(fl_job_factors(&offer, &task), FL_FACTORS_NONE);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, without_magnitudes_the_hashes_are_those_that_they_always_were);
    tcase_add_test(tc, magnitudes_are_bound_and_remembered);
    tcase_add_test(tc, a_task_trains_magnitudes_with_any_factor_and_never_alone);
}

FL_TEST_MAIN("job.offer", add_tests)

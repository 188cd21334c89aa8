/*
 * Goal: what a site draws for an attempt of secure aggregation lies in guarded memory only, through
 * all its steps, and is gone behind them. Method: three whole sites with entropy that remembers
 * what it gave (masked), and a search through the memory of the process.
 */
#include <string.h>

#include "memory.h"
#include "runner.h"
#include "secagg/secagg.h"

#define SITES    3
#define ELEMENTS 50
#define SCALARS  2
#define DRAWS    64

static struct fl_error error;
static struct fl_hidden hidden[2 * DRAWS];
static size_t draws;

/* A wide draw becomes a scalar; that is what is kept, so that is looked for too. */
static void draw(void *context, void *out, size_t length)
{
    (void)context;
    fl_entropy_bytes(fl_entropy_system(), out, length);
    if (length < FL_KEY_BYTES || draws + 2 > sizeof(hidden) / sizeof(hidden[0]))
        return; /* a nonce: public */
    fl_test_hide(out, &hidden[draws++]);
    if (length == crypto_core_ristretto255_NONREDUCEDSCALARBYTES) {
        uint8_t *scalar = sodium_malloc(FL_SCALAR_BYTES);
        ck_assert_ptr_nonnull(scalar);
        crypto_core_ristretto255_scalar_reduce(scalar, out);
        fl_test_hide(scalar, &hidden[draws++]);
        sodium_free(scalar);
    }
}

static const struct fl_entropy entropy = {draw, NULL};

static void assert_nothing_open(const char *when)
{
    ck_assert_uint_gt(draws, 0);
    for (size_t i = 0; i < draws; i++)
        ck_assert_msg(fl_test_find(&hidden[i], NULL) == 0, "%s: secret %zu lies open", when, i);
}

static struct {
    struct fl_keys *keys[SITES];
    struct fl_secagg_site *sites[SITES];
    struct fl_secagg_advert adverts[SITES];
    struct fl_secagg_set all;
    uint8_t sealed[SITES][SITES][FL_SECAGG_SEALED_SHARE_BYTES];
    uint32_t vector[SITES][ELEMENTS];
    uint64_t scalars[SITES][SCALARS];
    uint8_t signatures[SITES][FL_SIGNATURE_BYTES], answers[SITES][SITES][FL_SCALAR_BYTES];
} a;

static void step_draw(void *unused)
{
    static const struct fl_secagg_context context = {
        .job = 1, .round = 1, .attempt = 1, .elements = ELEMENTS};
    static const uint8_t ranks[FL_HASH_BYTES] = {1};
    static const char *const names[SITES] = {"bank", "clinic", "library"};
    (void)unused;
    for (int i = 0; i < SITES; i++) {
        ck_assert_int_eq(fl_keys_generate(fl_entropy_system(), &a.keys[i]), FL_OK);
        ck_assert_int_eq(
            fl_secagg_site_create(&context, names[i], ranks, a.keys[i], &entropy, &a.sites[i]),
            FL_OK);
        a.adverts[i] = *fl_secagg_site_advert(a.sites[i]);
        a.all.has[i] = true;
    }
}

static void step_share(void *unused)
{
    (void)unused;
    for (int i = 0; i < SITES; i++) {
        fl_assert_ok(fl_secagg_site_join(a.sites[i], a.adverts, SITES, SITES, &error), &error);
        fl_assert_ok(fl_secagg_site_share(a.sites[i], &entropy, a.sealed[i][0], &error), &error);
    }
}

static void step_mask(void *unused)
{
    (void)unused;
    for (uint32_t i = 0; i < SITES; i++) {
        for (uint32_t from = 0; from < SITES; from++) {
            if (from != i)
                fl_assert_ok(fl_secagg_site_take_share(a.sites[i], from, a.sealed[from][i], &error),
                             &error);
        }
        fl_assert_ok(
            fl_secagg_site_mask(a.sites[i], &a.all, a.vector[i], a.scalars[i], SCALARS, &error),
            &error);
    }
}

static void step_answer(void *unused)
{
    (void)unused;
    for (int i = 0; i < SITES; i++)
        fl_assert_ok(fl_secagg_site_sign(a.sites[i], &a.all, a.keys[i], a.signatures[i], &error),
                     &error);
    for (int i = 0; i < SITES; i++)
        fl_assert_ok(fl_secagg_site_answer(a.sites[i], &a.all, &a.all, a.signatures[0],
                                           a.answers[i][0], &error),
                     &error);
}

START_TEST(what_a_site_draws_lies_in_guarded_memory_only)
{
    static const struct {
        void (*step)(void *);
        const char *name;
    } steps[] = {{step_draw, "drawn"},
                 {step_share, "shared"},
                 {step_mask, "masked"},
                 {step_answer, "answered"}};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        fl_test_apart(steps[i].step, NULL);
        assert_nothing_open(steps[i].name);
    }
    for (int i = 0; i < SITES; i++) {
        fl_secagg_site_destroy(&a.sites[i]);
        fl_keys_destroy(&a.keys[i]);
    }
    for (size_t i = 0; i < draws; i++) {
        size_t guarded;
        ck_assert_uint_eq(fl_test_find(&hidden[i], &guarded), 0);
        ck_assert_uint_eq(guarded, 0);
    }
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, what_a_site_draws_lies_in_guarded_memory_only);
}

FL_TEST_MAIN("secagg.secrets", add_tests)

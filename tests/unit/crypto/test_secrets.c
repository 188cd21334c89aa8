/*
 * Goal: private keys lie in guarded memory and nowhere else, whatever was done with them: made,
 * written, read, signed with, sealed to, opened with. Method: the memory of the process is
 * searched.
 */
#include <string.h>

#include "base/fs.h"
#include "crypto/authority.h"
#include "crypto/keys.h"
#include "crypto/sealed.h"
#include "crypto/token.h"
#include "memory.h"
#include "runner.h"

static struct fl_error error;
static char path[FL_PATH_BYTES];

static void make_path(void)
{
    char directory[FL_PATH_BYTES];
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "keys", &error), &error);
}

/* Entropy whose second draw of 32 bytes is the Ed25519 seed: its hidden part is kept. */
struct draws {
    struct fl_hidden hidden[4];
    size_t count;
};
static void draw(void *context, void *out, size_t length)
{
    struct draws *self = context;
    fl_entropy_bytes(fl_entropy_system(), out, length);
    if (length >= FL_HIDDEN_BYTES && self->count < 4)
        fl_test_hide(out, &self->hidden[self->count++]);
}

static void assert_guarded(const struct draws *draws, const char *when)
{
    for (size_t i = 0; i < draws->count; i++) {
        size_t guarded;
        size_t found = fl_test_find(&draws->hidden[i], &guarded);
        ck_assert_msg(found == 0, "%s: secret %zu lies %zu times in plain memory", when, i, found);
        ck_assert_msg(guarded > 0, "%s: secret %zu lies nowhere: nothing was tested", when, i);
    }
}

static void assert_gone(const struct draws *draws)
{
    for (size_t i = 0; i < draws->count; i++) {
        size_t guarded;
        ck_assert_uint_eq(fl_test_find(&draws->hidden[i], &guarded), 0);
        ck_assert_uint_eq(guarded, 0);
    }
}

static void step_leave(void *secret)
{
    volatile uint8_t local[FL_HIDDEN_BYTES];
    for (size_t i = 0; i < sizeof(local); i++)
        local[i] = ((const uint8_t *)secret)[i];
}

/* What stands in a global, and what a call left on its stack. */
START_TEST(the_search_finds_what_lies_open)
{
    static uint8_t open_secret[FL_HIDDEN_BYTES];
    struct fl_hidden hidden;
    fl_entropy_bytes(fl_entropy_system(), open_secret, sizeof(open_secret));
    fl_test_hide(open_secret, &hidden);
    ck_assert_uint_eq(fl_test_find(&hidden, NULL), 1);
    fl_test_apart(step_leave, open_secret);
    ck_assert_uint_eq(fl_test_find(&hidden, NULL), 2);
    sodium_memzero(open_secret, sizeof(open_secret));
    ck_assert_uint_eq(fl_test_find(&hidden, NULL), 1);
}
END_TEST

/* What a test works with; each step runs on a stack of its own. */
static struct {
    struct draws draws;
    struct fl_entropy entropy;
    struct fl_keys *keys, *again;
    struct fl_box_keys *box;
    struct fl_authority *authority, *authority_again;
    struct fl_buf sealed;
    struct fl_token token;
} t;
static const struct fl_seal_context context = {.purpose = "update", .sender = "bank", .job = 1};

static void setup(void)
{
    make_path();
    memset(&t, 0, sizeof(t));
    t.entropy = (struct fl_entropy){draw, &t.draws};
    fl_buf_init(&t.sealed, 1u << 20);
}

static void step_make(void *unused)
{
    (void)unused;
    ck_assert_int_eq(fl_keys_generate(&t.entropy, &t.keys), FL_OK);
}

static void step_save(void *unused)
{
    (void)unused;
    fl_assert_ok(fl_keys_save(t.keys, path, &error), &error);
}

static void step_load(void *unused)
{
    (void)unused;
    fl_assert_ok(fl_keys_load(path, &t.again, &error), &error);
}

static void step_sign(void *unused)
{
    uint8_t signature[FL_SIGNATURE_BYTES];
    (void)unused;
    fl_keys_sign(t.again, "label", "message", 7, signature);
}

START_TEST(a_site_s_keys_lie_in_guarded_memory_only)
{
    static const struct {
        void (*step)(void *);
        const char *name;
    } steps[] = {{step_make, "made"},
                 {step_save, "written"},
                 {step_load, "read"},
                 {step_sign, "signed with"}};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        fl_test_apart(steps[i].step, NULL);
        ck_assert_uint_eq(t.draws.count, 2);
        assert_guarded(&t.draws, steps[i].name);
    }
    fl_keys_destroy(&t.keys);
    fl_keys_destroy(&t.again);
    assert_gone(&t.draws);
}
END_TEST

static void step_seal(void *unused)
{
    struct fl_sealer *sealer = NULL;
    (void)unused;
    ck_assert_int_eq(fl_box_keys_generate(&t.entropy, &t.box), FL_OK);
    fl_assert_ok(fl_sealer_open(fl_box_keys_public(t.box), &context, &t.entropy,
                                fl_seal_to_buf(&t.sealed), &sealer, &error),
                 &error);
    fl_assert_ok(fl_sealer_write(sealer, "words", 5, &error), &error);
    fl_assert_ok(fl_sealer_finish(sealer, &error), &error);
    fl_sealer_close(&sealer);
}

static void step_open(void *unused)
{
    struct fl_opener *opener = NULL;
    uint8_t plain[64];
    size_t got;
    (void)unused;
    fl_assert_ok(fl_opener_open(fl_box_keys_public(t.box), fl_box_keys_secret(t.box), &context,
                                t.sealed.data, t.sealed.length, &opener, &error),
                 &error);
    fl_assert_ok(fl_opener_read(opener, plain, sizeof(plain), &got, &error), &error);
    ck_assert_uint_eq(got, 5);
    fl_opener_close(&opener);
}

START_TEST(so_do_the_key_of_a_job_and_what_seals_and_opens_its_updates)
{
    fl_test_apart(step_seal, NULL);
    ck_assert_uint_ge(t.draws.count, 2);
    /* the secret of the sealing side's own pair is gone for good */
    ck_assert_uint_eq(fl_test_find(&t.draws.hidden[1], NULL), 0);
    t.draws.count = 1;
    assert_guarded(&t.draws, "made");
    fl_test_apart(step_open, NULL);
    assert_guarded(&t.draws, "opened with");
    fl_box_keys_destroy(&t.box);
    assert_gone(&t.draws);
    fl_buf_free(&t.sealed);
}
END_TEST

static void step_authority(void *unused)
{
    (void)unused;
    ck_assert_int_eq(fl_authority_generate(&t.entropy, &t.authority), FL_OK);
    fl_assert_ok(fl_authority_save(t.authority, path, &error), &error);
    fl_assert_ok(fl_authority_load(path, &t.authority_again, &error), &error);
}

START_TEST(so_does_the_authority_s_key)
{
    fl_test_apart(step_authority, NULL);
    assert_guarded(&t.draws, "read");
    fl_authority_destroy(&t.authority);
    fl_authority_destroy(&t.authority_again);
    assert_gone(&t.draws);
}
END_TEST

static void step_token(void *unused)
{
    struct fl_identity site = {{1}, {2}};
    struct fl_token again;
    char text[FL_TOKEN_TEXT_BYTES];
    uint8_t mac[FL_JOIN_MAC_BYTES];
    (void)unused;
    memcpy(t.token.address, "tcp://127.0.0.1:1", 18);
    fl_token_draw(&t.token, &t.entropy);
    fl_token_encode(&t.token, text);
    fl_assert_ok(fl_token_parse(text, &again, &error), &error);
    fl_join_mac(again.secret, again.coordinator, &site, "bank", mac);
    sodium_memzero(&t.token, sizeof(t.token));
    sodium_memzero(&again, sizeof(again));
    sodium_memzero(text, sizeof(text));
}

START_TEST(the_secret_of_a_token_is_wiped_with_it)
{
    fl_test_apart(step_token, NULL);
    ck_assert_uint_eq(t.draws.count, 2);
    ck_assert_uint_eq(fl_test_find(&t.draws.hidden[1], NULL), 0);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, the_search_finds_what_lies_open);
    tcase_add_test(tc, a_site_s_keys_lie_in_guarded_memory_only);
    tcase_add_test(tc, so_do_the_key_of_a_job_and_what_seals_and_opens_its_updates);
    tcase_add_test(tc, so_does_the_authority_s_key);
    tcase_add_test(tc, the_secret_of_a_token_is_wiped_with_it);
}

FL_TEST_MAIN("crypto.secrets", add_tests)

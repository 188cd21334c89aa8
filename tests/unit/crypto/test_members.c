/*
 * Goal: the bounds of a list of members: what just fits is signed and believed, more is refused.
 * Method: a list of as many members as there may be, with the longest names. Slow, and therefore
 * apart from the other tests of lists (test_authority.c).
 */
#include <string.h>

#include "crypto/authority.h"
#include "crypto/prg.h"
#include "runner.h"

static struct fl_error error;
static struct fl_prg stream;

static void seeded(void *context, void *out, size_t length)
{
    fl_prg_bytes(context, out, length);
}

static const struct fl_entropy entropy = {seeded, &stream};

/* An identity is 64 bytes that need not be anyone's keys to be listed. */
static void append_member(struct fl_buf *text, uint32_t number)
{
    char identity_text[FL_IDENTITY_TEXT_BYTES];
    struct fl_identity one;
    fl_prg_bytes(&stream, &one, sizeof(one));
    fl_identity_encode(&one, identity_text);
    fl_buf_printf(text, "%063u %s revoked\n", number, identity_text);
}

START_TEST(the_longest_list_fits_and_one_more_member_does_not)
{
    static const uint8_t seed[FL_SEED_BYTES] = {42};
    struct fl_authority *authority = NULL;
    fl_prg_init(&stream, seed);
    ck_assert_int_eq(fl_authority_generate(&entropy, &authority), FL_OK);
    struct fl_buf text, out;
    struct fl_member_list list;
    fl_buf_init(&text, 2 * FL_MEMBERS_TEXT_MAX);
    fl_buf_init(&out, FL_MEMBERS_TEXT_MAX);
    for (uint32_t i = 0; i < FL_WORKERS_MAX; i++)
        append_member(&text, i);
    ck_assert_int_eq(fl_buf_status(&text), FL_OK);
    fl_assert_ok(fl_member_list_read(fl_buf_text(&text), text.length, &list, &error), &error);
    ck_assert_int_eq(fl_member_list_sign(&list, INT64_MAX, authority, &out), FL_OK);
    fl_member_list_free(&list);
    fl_assert_ok(fl_member_list_verify(fl_buf_text(&out), out.length, NULL, &list, &error), &error);
    ck_assert_uint_eq(list.count, FL_WORKERS_MAX);
    fl_member_list_free(&list);
    append_member(&text, FL_WORKERS_MAX);
    ck_assert_int_eq(fl_member_list_read(fl_buf_text(&text), text.length, &list, &error),
                     FL_EFORMAT);
    fl_member_list_free(&list);
    fl_buf_free(&text);
    fl_buf_free(&out);
    fl_authority_destroy(&authority);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, the_longest_list_fits_and_one_more_member_does_not);
}
FL_TEST_MAIN("members", add_tests)

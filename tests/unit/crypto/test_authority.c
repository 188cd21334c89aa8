/*
 * Goal: a site believes a list of members if and only if the authority that it pinned signed these
 * bytes, and never goes back to an older one.
 * Method: round trips; every single byte of a signed list changed; each way in which a list can be
 * wrong although it is signed (forms that only a broken authority would sign are built by hand).
 */
#include "crypto/authority.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "crypto/prg.h"
#include "runner.h"

#define LABEL "fedlora-roster-v1"

static struct fl_error error;
static struct fl_prg stream;

static void seeded(void *context, void *out, size_t length)
{
    fl_prg_bytes(context, out, length);
}

static const struct fl_entropy entropy = {seeded, &stream};

static void setup(void)
{
    static const uint8_t seed[FL_SEED_BYTES] = {42};
    fl_prg_init(&stream, seed);
}

static struct fl_authority *make_authority(void)
{
    struct fl_authority *authority = NULL;
    ck_assert_int_eq(fl_authority_generate(&entropy, &authority), FL_OK);
    return authority;
}

static void identity(char *text)
{
    struct fl_keys *keys = NULL;
    ck_assert_int_eq(fl_keys_generate(&entropy, &keys), FL_OK);
    fl_identity_encode(fl_keys_public(keys), text);
    fl_keys_destroy(&keys);
}

static char alpha[FL_IDENTITY_TEXT_BYTES], beta[FL_IDENTITY_TEXT_BYTES],
    gamma_text[FL_IDENTITY_TEXT_BYTES];

/* A signed list of beta, gamma (revoked) and alpha, written in that order. */
static void make_list(const struct fl_authority *authority, uint64_t number, struct fl_buf *out)
{
    char text[1024];
    struct fl_member_list list;
    identity(alpha);
    identity(beta);
    identity(gamma_text);
    (void)snprintf(text, sizeof(text),
                   "# the consortium\n\nbeta %s\n  gamma\t%s  revoked\r\nalpha %s member", beta,
                   gamma_text, alpha);
    fl_assert_ok(fl_member_list_read(text, strlen(text), &list, &error), &error);
    ck_assert_uint_eq(list.count, 3);
    fl_buf_init(out, FL_MEMBERS_TEXT_MAX);
    ck_assert_int_eq(fl_member_list_sign(&list, number, authority, out), FL_OK);
    fl_member_list_free(&list);
}

static enum fl_status verify(const char *text, size_t length, const uint8_t *authority)
{
    struct fl_member_list list;
    const enum fl_status status = fl_member_list_verify(text, length, authority, &list, &error);
    fl_member_list_free(&list);
    return status;
}

START_TEST(a_signed_list_says_what_was_written)
{
    struct fl_authority *authority = make_authority();
    struct fl_buf text;
    struct fl_member_list list;
    make_list(authority, 7, &text);
    fl_assert_ok(fl_member_list_verify(fl_buf_text(&text), text.length,
                                       fl_authority_public(authority), &list, &error),
                 &error);
    ck_assert(list.number == 7);
    ck_assert_uint_eq(list.count, 3);
    ck_assert_uint_eq(fl_member_list_revoked(&list), 1);
    ck_assert_str_eq(list.members[0].name, "alpha");
    const struct fl_member *gone = fl_member_list_find(&list, "gamma");
    ck_assert(gone && gone->revoked);
    char back[FL_IDENTITY_TEXT_BYTES];
    fl_identity_encode(&gone->identity, back);
    ck_assert_str_eq(back, gamma_text);
    ck_assert(fl_member_list_find(&list, "beta") && !fl_member_list_find(&list, "beta")->revoked);
    ck_assert_ptr_null(fl_member_list_find(&list, "delta"));
    ck_assert_ptr_null(fl_member_list_find(&list, "no name"));
    fl_member_list_free(&list);
    fl_buf_free(&text);
    fl_authority_destroy(&authority);
}
END_TEST

START_TEST(no_byte_of_a_signed_list_can_be_changed)
{
    struct fl_authority *authority = make_authority();
    struct fl_buf text;
    make_list(authority, 7, &text);
    for (size_t i = 0; i < text.length; i++) {
        static const uint8_t flips[] = {1, 0x20, 0x80};
        text.data[i] ^= flips[i % 3];
        const enum fl_status status = verify(fl_buf_text(&text), text.length, NULL);
        ck_assert_msg(status == FL_EFORMAT || status == FL_EREFUSED, "byte %zu: %s", i,
                      fl_status_text(status));
        text.data[i] ^= flips[i % 3];
    }
    for (size_t length = 0; length < text.length; length += length % 7 + 1)
        ck_assert_int_ne(verify(fl_buf_text(&text), length, NULL), FL_OK);
    fl_buf_append(&text, "\n", 1);
    ck_assert_int_eq(verify(fl_buf_text(&text), text.length, NULL), FL_EFORMAT);
    fl_buf_free(&text);
    fl_authority_destroy(&authority);
}
END_TEST

START_TEST(another_authority_is_refused)
{
    struct fl_authority *authority = make_authority(), *other = make_authority();
    struct fl_buf text;
    make_list(other, 7, &text);
    ck_assert_int_eq(verify(fl_buf_text(&text), text.length, fl_authority_public(other)), FL_OK);
    ck_assert_int_eq(verify(fl_buf_text(&text), text.length, fl_authority_public(authority)),
                     FL_EREFUSED);
    ck_assert_ptr_nonnull(strstr(error.text, "another authority"));
    /* the pinned authority's name over the other's signature */
    char own[FL_AUTHORITY_TEXT_BYTES], theirs[FL_AUTHORITY_TEXT_BYTES];
    fl_authority_encode(fl_authority_public(authority), own);
    fl_authority_encode(fl_authority_public(other), theirs);
    char *place = strstr((char *)text.data, theirs);
    ck_assert_ptr_nonnull(place);
    memcpy(place, own, strlen(own));
    ck_assert_int_eq(verify(fl_buf_text(&text), text.length, fl_authority_public(authority)),
                     FL_EREFUSED);
    ck_assert_ptr_nonnull(strstr(error.text, "signature"));
    fl_buf_free(&text);
    fl_authority_destroy(&authority);
    fl_authority_destroy(&other);
}
END_TEST

/* Sign body, a whole list's text without its last line, with the keys of a site made into an
 * authority: fl_keys_sign() knows the label, and so gives a good signature over any bytes. */
static enum fl_status verify_body(const char *format, const char *one, const char *two)
{
    struct fl_keys *keys = NULL;
    struct fl_buf text;
    char key[FL_AUTHORITY_TEXT_BYTES], base64[89];
    uint8_t signature[FL_SIGNATURE_BYTES];
    ck_assert_int_eq(fl_keys_generate(&entropy, &keys), FL_OK);
    fl_authority_encode(fl_keys_public(keys)->ed25519, key);
    fl_buf_init(&text, FL_MEMBERS_TEXT_MAX);
    fl_buf_printf(&text, LABEL "\nnumber 3\nauthority %s\n", key);
    const char *hole = strstr(format, "%1");
    const char *second = strstr(format, "%2");
    const char *next = format;
    if (hole) {
        fl_buf_append(&text, next, (size_t)(hole - next));
        fl_buf_append(&text, one, strlen(one));
        next = hole + 2;
    }
    if (second) {
        fl_buf_append(&text, next, (size_t)(second - next));
        fl_buf_append(&text, two, strlen(two));
        next = second + 2;
    }
    fl_buf_append(&text, next, strlen(next));
    ck_assert_int_eq(fl_buf_status(&text), FL_OK);
    fl_keys_sign(keys, LABEL, text.data, text.length, signature);
    sodium_bin2base64(base64, sizeof(base64), signature, sizeof(signature),
                      sodium_base64_VARIANT_ORIGINAL);
    fl_buf_printf(&text, "signature %s\n", base64);
    const enum fl_status status = verify(fl_buf_text(&text), text.length,
                                         fl_keys_public(keys)->ed25519);
    fl_keys_destroy(&keys);
    fl_buf_free(&text);
    return status;
}

START_TEST(a_list_in_another_form_is_refused_although_it_is_signed)
{
    char one[FL_IDENTITY_TEXT_BYTES], two[FL_IDENTITY_TEXT_BYTES];
    identity(one);
    identity(two);
    static const char *const bad[] = {
        "",                                     /* nobody */
        "a %1 member\na %2 member\n",           /* a name twice */
        "b %1 member\na %2 member\n",           /* not sorted */
        "a %1  member\nb %2 member\n",          /* two spaces */
        "a %1 member\r\nb %2 member\n",         /* a carriage return */
        "a %1 member\n\nb %2 member\n",         /* an empty line */
        "# note\na %1 member\nb %2 member\n",   /* a comment */
        "a %1\nb %2 member\n",                  /* no state */
        "a %1 member\nb %2 guest\n",            /* an unknown state */
        "a %1 member\nb %2 member now\n",       /* a word too many */
        "a %1 member\nexpires 2099 member\n",   /* an unknown line */
        "a %1 member\n.b %2 member\n",          /* no name */
        "a %1 member\nb fl1:AAAA member\n",     /* no identity */
        "number 4\na %1 member\nb %2 member\n", /* a second number */
    };
    ck_assert_int_eq(verify_body("a %1 member\nb %2 revoked\n", one, two), FL_OK);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(verify_body(bad[i], one, two) == FL_EFORMAT, "form %zu is taken", i);
    ck_assert_int_eq(verify_body("a %1 member\nb %2 member\n", one, one), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "same key"));
}
END_TEST

START_TEST(two_members_with_one_of_two_keys_in_common_are_refused)
{
    char one[FL_IDENTITY_TEXT_BYTES], two[FL_IDENTITY_TEXT_BYTES], text[512];
    struct fl_identity a, b;
    struct fl_member_list list;
    identity(one);
    identity(two);
    fl_assert_ok(fl_identity_parse(one, &a, &error), &error);
    fl_assert_ok(fl_identity_parse(two, &b, &error), &error);
    memcpy(b.ed25519, a.ed25519, FL_KEY_BYTES);
    fl_identity_encode(&b, two);
    (void)snprintf(text, sizeof(text), "a %s\nb %s\n", one, two);
    ck_assert_int_eq(fl_member_list_read(text, strlen(text), &list, &error), FL_EFORMAT);
    fl_member_list_free(&list);
}
END_TEST

START_TEST(what_people_write_is_refused_with_its_line)
{
    struct fl_member_list list;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "no members"},
        {"# nobody\n", "no members"},
        {"one\n", "line 1"},
        {"\n\none fl1:x\n", "line 3"},
        {"one two three four\n", "line 1"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_int_eq(fl_member_list_read(bad[i].text, strlen(bad[i].text), &list, &error),
                         FL_EFORMAT);
        ck_assert_msg(strstr(error.text, bad[i].says) != NULL, "%s", error.text);
        fl_member_list_free(&list);
    }
    char line[400];
    memset(line, 'x', sizeof(line));
    ck_assert_int_eq(fl_member_list_read(line, sizeof(line), &list, &error), FL_EFORMAT);
    fl_member_list_free(&list);
    ck_assert_int_eq(fl_member_list_read("a\0b", 3, &list, &error), FL_EFORMAT);
    fl_member_list_free(&list);
    static char huge[FL_MEMBERS_TEXT_MAX + 1];
    ck_assert_int_eq(fl_member_list_read(huge, sizeof(huge), &list, &error), FL_EFORMAT);
    fl_member_list_free(&list);
}
END_TEST

START_TEST(an_older_list_and_a_second_one_of_the_same_number_are_refused)
{
    struct fl_member_mark taken = {.number = 7, .hash = {1}};
    struct fl_member_list list = {.number = 6, .hash = {1}};
    ck_assert_int_eq(fl_member_list_supersedes(&list, &taken, &error), FL_EREFUSED);
    list.number = 7;
    fl_assert_ok(fl_member_list_supersedes(&list, &taken, &error), &error);
    list.hash[0] = 2;
    ck_assert_int_eq(fl_member_list_supersedes(&list, &taken, &error), FL_EREFUSED);
    list.number = 8;
    fl_assert_ok(fl_member_list_supersedes(&list, &taken, &error), &error);
    taken = (struct fl_member_mark){0};
    fl_assert_ok(fl_member_list_supersedes(&list, &taken, &error), &error);
}
END_TEST

START_TEST(the_authority_is_the_same_after_a_trip_through_its_file)
{
    char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
    struct fl_authority *authority = make_authority(), *again = NULL;
    struct fl_keys *keys = NULL;
    struct stat st;
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "authority.key", &error), &error);
    ck_assert_int_eq(fl_authority_load(path, &again, &error), FL_ENOTFOUND);
    fl_assert_ok(fl_authority_save(authority, path, &error), &error);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 07777, 0600);
    ck_assert_int_eq(fl_authority_save(authority, path, &error), FL_EEXIST);
    fl_assert_ok(fl_authority_load(path, &again, &error), &error);
    ck_assert_mem_eq(fl_authority_public(authority), fl_authority_public(again), FL_KEY_BYTES);
    ck_assert_int_eq(fl_keys_load(path, &keys, &error), FL_EFORMAT); /* no site's keys */
    ck_assert_int_eq(chmod(path, 0644), 0);
    fl_authority_destroy(&again);
    ck_assert_int_eq(fl_authority_load(path, &again, &error), FL_EREFUSED);
    fl_authority_destroy(&authority);
}
END_TEST

START_TEST(a_public_key_is_one_text_and_a_fingerprint_thirty_digits)
{
    struct fl_authority *authority = make_authority();
    char text[FL_AUTHORITY_TEXT_BYTES], digits[FL_FINGERPRINT_TEXT_BYTES], other[sizeof(digits)];
    uint8_t key[FL_KEY_BYTES];
    fl_authority_encode(fl_authority_public(authority), text);
    ck_assert_uint_eq(strlen(text), FL_AUTHORITY_TEXT_BYTES - 1);
    fl_assert_ok(fl_authority_parse(text, key, &error), &error);
    ck_assert_mem_eq(key, fl_authority_public(authority), FL_KEY_BYTES);
    fl_authority_fingerprint(key, digits);
    ck_assert_uint_eq(strlen(digits), FL_FINGERPRINT_TEXT_BYTES - 1);
    for (size_t i = 0; i < sizeof(digits) - 1; i++)
        ck_assert(i % 6 == 5 ? digits[i] == ' ' : digits[i] >= '0' && digits[i] <= '9');
    key[0] ^= 1;
    fl_authority_fingerprint(key, other);
    ck_assert_str_ne(digits, other);
    fl_authority_destroy(&authority);

    static const char *const bad[] = {"", "fla1:", "fl1:AAAA",
                                      "fla1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                                      "fla1:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_int_eq(fl_authority_parse(bad[i], key, &error), FL_EFORMAT);
    text[20] = ' ';
    ck_assert_int_eq(fl_authority_parse(text, key, &error), FL_EFORMAT);
}
END_TEST

START_TEST(a_known_key_has_a_known_fingerprint)
{
    uint8_t key[FL_KEY_BYTES];
    char digits[FL_FINGERPRINT_TEXT_BYTES];
    for (uint32_t i = 0; i < FL_KEY_BYTES; i++)
        key[i] = (uint8_t)i;
    fl_authority_fingerprint(key, digits);
    ck_assert_str_eq(digits, "04474 33851 60465 53192 08255 84952");
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, a_signed_list_says_what_was_written);
    tcase_add_test(tc, no_byte_of_a_signed_list_can_be_changed);
    tcase_add_test(tc, another_authority_is_refused);
    tcase_add_test(tc, a_list_in_another_form_is_refused_although_it_is_signed);
    tcase_add_test(tc, two_members_with_one_of_two_keys_in_common_are_refused);
    tcase_add_test(tc, what_people_write_is_refused_with_its_line);
    tcase_add_test(tc, an_older_list_and_a_second_one_of_the_same_number_are_refused);
    tcase_add_test(tc, the_authority_is_the_same_after_a_trip_through_its_file);
    tcase_add_test(tc, a_public_key_is_one_text_and_a_fingerprint_thirty_digits);
    tcase_add_test(tc, a_known_key_has_a_known_fingerprint);
}
FL_TEST_MAIN("authority", add_tests)

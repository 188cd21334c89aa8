/*
 * Goal: keys survive their file and nobody else reads it; identities, signatures and Z85 hold.
 * Method: round trips, every damage a file or a text can take, one known answer of Z85 (RFC 32).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "crypto/keys.h"
#include "runner.h"

static struct fl_error error;

static struct fl_keys *make_keys(void)
{
    struct fl_keys *keys = NULL;
    ck_assert_int_eq(fl_keys_generate(fl_entropy_system(), &keys), FL_OK);
    return keys;
}

static void key_path(char *path)
{
    char directory[FL_PATH_BYTES];
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "site.key", &error), &error);
}

START_TEST(keys_are_the_same_after_a_trip_through_their_file)
{
    char path[FL_PATH_BYTES];
    key_path(path);
    struct fl_keys *keys = make_keys(), *again = NULL;
    fl_assert_ok(fl_keys_save(keys, path, &error), &error);
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 07777, 0600);
    fl_assert_ok(fl_keys_load(path, &again, &error), &error);
    ck_assert_mem_eq(fl_keys_public(keys), fl_keys_public(again), sizeof(struct fl_identity));
    ck_assert_mem_eq(fl_keys_x25519_secret(keys), fl_keys_x25519_secret(again), FL_KEY_BYTES);
    uint8_t signature[FL_SIGNATURE_BYTES];
    fl_keys_sign(again, "test", "words", 5, signature);
    ck_assert_int_eq(fl_verify(fl_keys_public(keys)->ed25519, "test", "words", 5, signature),
                     FL_OK);
    fl_keys_destroy(&keys);
    fl_keys_destroy(&again);
}
END_TEST

START_TEST(a_key_file_is_never_replaced)
{
    char path[FL_PATH_BYTES];
    key_path(path);
    struct fl_keys *first = NULL, *second = NULL, *third = make_keys();
    fl_assert_ok(fl_keys_load_or_make(path, fl_entropy_system(), &first, &error), &error);
    fl_assert_ok(fl_keys_load_or_make(path, fl_entropy_system(), &second, &error), &error);
    ck_assert_mem_eq(fl_keys_public(first), fl_keys_public(second), sizeof(struct fl_identity));
    ck_assert_int_eq(fl_keys_save(third, path, &error), FL_EEXIST);
    fl_keys_destroy(&first);
    fl_keys_destroy(&second);
    fl_keys_destroy(&third);
}
END_TEST

START_TEST(a_key_file_that_others_can_read_or_that_is_a_link_is_refused)
{
    static const mode_t bad_modes[] = {0604, 0602, 0601, 0620, 0610};
    char path[FL_PATH_BYTES], other[FL_PATH_BYTES];
    key_path(path);
    struct fl_keys *keys = make_keys(), *again = NULL;
    fl_assert_ok(fl_keys_save(keys, path, &error), &error);
    for (size_t i = 0; i < sizeof(bad_modes) / sizeof(bad_modes[0]); i++) {
        ck_assert_int_eq(chmod(path, bad_modes[i]), 0);
        ck_assert_int_eq(fl_keys_load(path, &again, &error), FL_EREFUSED);
        ck_assert_ptr_null(again);
    }
    ck_assert_int_eq(chmod(path, 0400), 0);
    fl_assert_ok(fl_keys_load(path, &again, &error), &error);
    fl_keys_destroy(&again);
    (void)snprintf(other, sizeof(other), "%.4000s.link", path);
    ck_assert_int_eq(symlink(path, other), 0);
    ck_assert_int_eq(fl_keys_load(other, &again, &error), FL_EREFUSED);
    ck_assert_int_eq(fl_keys_load("/dev/null", &again, &error), FL_EREFUSED);
    ck_assert_int_eq(fl_keys_load("/nowhere/at/all", &again, &error), FL_ENOTFOUND);
    fl_keys_destroy(&keys);
}
END_TEST

START_TEST(a_key_file_in_a_directory_that_others_can_write_is_refused)
{
    static const mode_t bad_modes[] = {0777, 0770, 0720, 0702};
    char path[FL_PATH_BYTES], other[FL_PATH_BYTES];
    key_path(path);
    char *slash = strrchr(path, '/');
    struct fl_keys *keys = make_keys(), *again = NULL;
    fl_assert_ok(fl_keys_save(keys, path, &error), &error);
    (void)snprintf(other, sizeof(other), "%.4000s.other", path);
    for (size_t i = 0; i < sizeof(bad_modes) / sizeof(bad_modes[0]); i++) {
        *slash = '\0';
        ck_assert_int_eq(chmod(path, bad_modes[i]), 0);
        *slash = '/';
        ck_assert_int_eq(fl_keys_load(path, &again, &error), FL_EREFUSED);
        ck_assert_ptr_null(again);
        ck_assert_ptr_nonnull(strstr(error.text, "chmod go-w"));
        ck_assert_int_eq(fl_keys_save(keys, other, &error), FL_EREFUSED);
        ck_assert(!fl_path_exists(other));
    }
    *slash = '\0';
    ck_assert_int_eq(chmod(path, 01777), 0); /* as /tmp: nobody can replace what is ours */
    *slash = '/';
    fl_assert_ok(fl_keys_load(path, &again, &error), &error);
    fl_keys_destroy(&again);
    fl_keys_destroy(&keys);
}
END_TEST

START_TEST(a_key_file_of_another_user_or_in_their_directory_is_refused)
{
    if (geteuid() != 0)
        return; /* only root can give files away */
    char path[FL_PATH_BYTES];
    key_path(path);
    char *slash = strrchr(path, '/');
    struct fl_keys *keys = make_keys(), *again = NULL;
    fl_assert_ok(fl_keys_save(keys, path, &error), &error);
    ck_assert_int_eq(chown(path, 12345, 12345), 0);
    ck_assert_int_eq(fl_keys_load(path, &again, &error), FL_EREFUSED);
    ck_assert_ptr_nonnull(strstr(error.text, "12345"));
    ck_assert_int_eq(chown(path, 0, 0), 0);
    *slash = '\0';
    ck_assert_int_eq(chown(path, 12345, 12345), 0);
    *slash = '/';
    ck_assert_int_eq(fl_keys_load(path, &again, &error), FL_EREFUSED);
    ck_assert_ptr_nonnull(strstr(error.text, "12345"));
    fl_keys_destroy(&keys);
}
END_TEST

START_TEST(a_key_file_handed_over_by_root_may_be_readable_by_its_group)
{
    if (geteuid() != 0)
        return; /* only root can make one */
    char path[FL_PATH_BYTES];
    key_path(path);
    struct fl_keys *keys = make_keys(), *again = NULL;
    fl_assert_ok(fl_keys_save(keys, path, &error), &error);
    ck_assert_int_eq(chmod(path, 0440), 0);
    fl_assert_ok(fl_keys_load(path, &again, &error), &error);
    fl_keys_destroy(&keys);
    fl_keys_destroy(&again);
}
END_TEST

START_TEST(a_damaged_key_file_is_told_apart)
{
    char path[FL_PATH_BYTES];
    key_path(path);
    struct fl_keys *keys = make_keys(), *again = NULL;
    struct fl_buf text;
    fl_assert_ok(fl_keys_save(keys, path, &error), &error);
    fl_assert_ok(fl_fs_read(path, 4096, &text, &error), &error);
    for (size_t i = 0; i + 1 < text.length; i += 7) {
        const uint8_t old = text.data[i];
        text.data[i] = old == 'A' ? 'B' : 'A';
        fl_assert_ok(fl_fs_write(path, text.data, text.length, 0600, &error), &error);
        ck_assert_int_eq(fl_keys_load(path, &again, &error), FL_EFORMAT);
        text.data[i] = old;
    }
    fl_assert_ok(fl_fs_write(path, text.data, text.length - 9, 0600, &error), &error);
    ck_assert_int_eq(fl_keys_load(path, &again, &error), FL_EFORMAT);
    fl_assert_ok(fl_fs_write(path, "", 0, 0600, &error), &error);
    ck_assert_int_eq(fl_keys_load(path, &again, &error), FL_EFORMAT);
    fl_buf_free(&text);
    fl_keys_destroy(&keys);
}
END_TEST

START_TEST(an_identity_is_one_string_and_back)
{
    struct fl_keys *keys = make_keys();
    char text[FL_IDENTITY_TEXT_BYTES + 8];
    struct fl_identity identity;
    fl_identity_encode(fl_keys_public(keys), text);
    ck_assert_uint_eq(strlen(text), FL_IDENTITY_TEXT_BYTES - 1);
    ck_assert_int_eq(strncmp(text, "fl1:", 4), 0);
    fl_assert_ok(fl_identity_parse(text, &identity, &error), &error);
    ck_assert_mem_eq(&identity, fl_keys_public(keys), sizeof(identity));
    text[92] = 'x', text[93] = '\0';
    ck_assert_int_eq(fl_identity_parse(text, &identity, &error), FL_EFORMAT);
    text[91] = '\0';
    ck_assert_int_eq(fl_identity_parse(text, &identity, &error), FL_EFORMAT);
    ck_assert_int_eq(fl_identity_parse("", &identity, &error), FL_EFORMAT);
    ck_assert_int_eq(fl_identity_parse("fl2:abc", &identity, &error), FL_EFORMAT);
    fl_keys_destroy(&keys);
}
END_TEST

START_TEST(an_identity_of_weak_keys_is_refused)
{
    struct fl_identity weak = {{0}, {1}}, out;
    char text[FL_IDENTITY_TEXT_BYTES];
    fl_identity_encode(&weak, text);
    ck_assert_int_eq(fl_identity_parse(text, &out, &error), FL_EFORMAT);
    weak.x25519[0] = 1; /* a point of order 1 on the twist side */
    fl_identity_encode(&weak, text);
    ck_assert_int_eq(fl_identity_parse(text, &out, &error), FL_EFORMAT);
}
END_TEST

START_TEST(a_signature_is_worth_nothing_under_another_label_key_or_message)
{
    struct fl_keys *keys = make_keys(), *other = make_keys();
    uint8_t signature[FL_SIGNATURE_BYTES];
    fl_keys_sign(keys, "one", "message", 7, signature);
    const uint8_t *key = fl_keys_public(keys)->ed25519;
    ck_assert_int_eq(fl_verify(key, "one", "message", 7, signature), FL_OK);
    ck_assert_int_eq(fl_verify(key, "two", "message", 7, signature), FL_EREFUSED);
    ck_assert_int_eq(fl_verify(key, "on", "emessage", 8, signature), FL_EREFUSED);
    ck_assert_int_eq(fl_verify(key, "one", "massage", 7, signature), FL_EREFUSED);
    ck_assert_int_eq(fl_verify(fl_keys_public(other)->ed25519, "one", "message", 7, signature),
                     FL_EREFUSED);
    signature[5] ^= 1;
    ck_assert_int_eq(fl_verify(key, "one", "message", 7, signature), FL_EREFUSED);
    fl_keys_destroy(&keys);
    fl_keys_destroy(&other);
}
END_TEST

START_TEST(z85_agrees_with_its_specification)
{
    /* the 32-byte example of ZeroMQ RFC 32 */
    static const uint8_t key[FL_KEY_BYTES] = {0x8E, 0x0B, 0xDD, 0x69, 0x76, 0x28, 0xB9, 0x1D,
                                              0x8F, 0x24, 0x55, 0x87, 0xEE, 0x95, 0xC5, 0xB0,
                                              0x4D, 0x48, 0x96, 0x3F, 0x79, 0x25, 0x98, 0x77,
                                              0xB4, 0x9C, 0xD9, 0x06, 0x3A, 0xEA, 0xD3, 0xB7};
    char text[FL_Z85_KEY_BYTES];
    uint8_t back[FL_KEY_BYTES];
    fl_z85_encode(key, text);
    ck_assert_str_eq(text, "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6");
    ck_assert_int_eq(fl_z85_decode(text, back), FL_OK);
    ck_assert_mem_eq(key, back, sizeof(key));
    text[3] = ' ';
    ck_assert_int_eq(fl_z85_decode(text, back), FL_EFORMAT);
    ck_assert_int_eq(fl_z85_decode("########################################", back), FL_EFORMAT);
    ck_assert_int_eq(fl_z85_decode("abc", back), FL_EFORMAT);
}
END_TEST

START_TEST(a_lone_pair_keeps_to_its_own_kind_of_file)
{
    char path[FL_PATH_BYTES];
    key_path(path);
    struct fl_box_keys *box = NULL, *again = NULL;
    struct fl_keys *keys = NULL;
    ck_assert_int_eq(fl_box_keys_generate(fl_entropy_system(), &box), FL_OK);
    fl_assert_ok(fl_box_keys_save(box, path, &error), &error);
    fl_assert_ok(fl_box_keys_load(path, &again, &error), &error);
    ck_assert_mem_eq(fl_box_keys_public(box), fl_box_keys_public(again), FL_KEY_BYTES);
    ck_assert_mem_eq(fl_box_keys_secret(box), fl_box_keys_secret(again), FL_KEY_BYTES);
    ck_assert_int_eq(fl_keys_load(path, &keys, &error), FL_EFORMAT);
    fl_box_keys_destroy(&box);
    fl_box_keys_destroy(&again);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, keys_are_the_same_after_a_trip_through_their_file);
    tcase_add_test(tc, a_key_file_is_never_replaced);
    tcase_add_test(tc, a_key_file_that_others_can_read_or_that_is_a_link_is_refused);
    tcase_add_test(tc, a_key_file_in_a_directory_that_others_can_write_is_refused);
    tcase_add_test(tc, a_key_file_of_another_user_or_in_their_directory_is_refused);
    tcase_add_test(tc, a_key_file_handed_over_by_root_may_be_readable_by_its_group);
    tcase_add_test(tc, a_damaged_key_file_is_told_apart);
    tcase_add_test(tc, an_identity_is_one_string_and_back);
    tcase_add_test(tc, an_identity_of_weak_keys_is_refused);
    tcase_add_test(tc, a_signature_is_worth_nothing_under_another_label_key_or_message);
    tcase_add_test(tc, z85_agrees_with_its_specification);
    tcase_add_test(tc, a_lone_pair_keeps_to_its_own_kind_of_file);
}

FL_TEST_MAIN("crypto.keys", add_tests)

#include "base/hash.h"

#include <string.h>

#include "base/buf.h"
#include "base/fs.h"
#include "runner.h"

static void assert_hash(const uint8_t *hash, const char *expected)
{
    char hex[FL_HASH_HEX_BYTES];
    fl_hex(hash, FL_HASH_BYTES, hex);
    ck_assert_str_eq(hex, expected);
}

/* FIPS 180-4 examples */
START_TEST(sha256_gives_the_published_values)
{
    uint8_t hash[FL_HASH_BYTES];
    fl_sha256("abc", 3, hash);
    assert_hash(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    fl_sha256("", 0, hash);
    assert_hash(hash, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    struct fl_sha256 state;
    fl_sha256_init(&state);
    fl_sha256_update(&state, "a", 1);
    fl_sha256_update(&state, "bc", 2);
    fl_sha256_final(&state, hash);
    assert_hash(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
END_TEST

/* `printf abc | b2sum -l 256` */
START_TEST(blake2b_gives_the_published_values)
{
    uint8_t hash[FL_HASH_BYTES], keyed[FL_HASH_BYTES];
    fl_blake2b("abc", 3, hash);
    assert_hash(hash, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
    struct fl_blake2b state;
    fl_blake2b_init(&state, NULL, 0);
    fl_blake2b_update(&state, "ab", 2);
    fl_blake2b_update(&state, "c", 1);
    fl_blake2b_final(&state, keyed);
    ck_assert_mem_eq(hash, keyed, FL_HASH_BYTES);
    fl_blake2b_init(&state, "key", 3);
    fl_blake2b_update(&state, "abc", 3);
    fl_blake2b_final(&state, keyed);
    ck_assert_mem_ne(hash, keyed, FL_HASH_BYTES);
}
END_TEST

START_TEST(a_file_hashes_as_its_bytes_do)
{
    char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
    uint8_t direct[FL_HASH_BYTES], file[FL_HASH_BYTES];
    static uint8_t bytes[(1 << 20) + 17];
    struct fl_error error;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 31);
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "big", &error), &error);
    fl_assert_ok(fl_fs_write(path, bytes, sizeof(bytes), 0600, &error), &error);
    fl_assert_ok(fl_sha256_file(path, file, &error), &error);
    fl_sha256(bytes, sizeof(bytes), direct);
    ck_assert_mem_eq(direct, file, FL_HASH_BYTES);
}
END_TEST

START_TEST(what_is_no_file_has_no_hash)
{
    char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
    uint8_t hash[FL_HASH_BYTES];
    struct fl_error error;
    fl_test_directory(directory);
    ck_assert_int_eq(fl_sha256_file(directory, hash, &error), FL_EIO);
    fl_assert_ok(fl_path_join(path, directory, "absent", &error), &error);
    ck_assert_int_eq(fl_sha256_file(path, hash, &error), FL_ENOTFOUND);
    ck_assert_ptr_nonnull(strstr(error.text, "absent"));
}
END_TEST

START_TEST(nothing_of_a_key_stays_in_a_finished_hash)
{
    static const struct fl_blake2b empty;
    struct fl_blake2b hash;
    uint8_t key[32] = {7}, out[FL_HASH_BYTES];
    fl_blake2b_init(&hash, key, sizeof(key));
    fl_blake2b_update(&hash, "secret", 6);
    ck_assert_int_ne(memcmp(&hash, &empty, sizeof(hash)), 0);
    fl_blake2b_final(&hash, out);
    ck_assert_int_eq(memcmp(&hash, &empty, sizeof(hash)), 0);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, nothing_of_a_key_stays_in_a_finished_hash);
    tcase_add_test(tc, sha256_gives_the_published_values);
    tcase_add_test(tc, blake2b_gives_the_published_values);
    tcase_add_test(tc, a_file_hashes_as_its_bytes_do);
    tcase_add_test(tc, what_is_no_file_has_no_hash);
}

FL_TEST_MAIN("base.hash", add_tests)

/*
 * Goal: what was sealed for one key and context opens there, whole, and nowhere else.
 * Method: lengths around the piece border; every way to alter, cut, extend or reorder; a file's
 * trip.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "crypto/sealed.h"
#include "runner.h"

static struct fl_error error;
static const struct fl_seal_context context = {
    .purpose = "update", .sender = "clinic", .job = 7, .round = 2, .attempt = 1};

static struct fl_box_keys *make_box(void)
{
    struct fl_box_keys *box = NULL;
    ck_assert_int_eq(fl_box_keys_generate(fl_entropy_system(), &box), FL_OK);
    return box;
}

static void fill(uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(i * 31 + i / 251);
}

static void seal(const struct fl_box_keys *box, const uint8_t *plain, size_t length,
                 struct fl_buf *out)
{
    struct fl_sealer *sealer = NULL;
    fl_buf_init(out, 1u << 24);
    fl_assert_ok(fl_sealer_open(fl_box_keys_public(box), &context, fl_entropy_system(),
                                fl_seal_to_buf(out), &sealer, &error),
                 &error);
    for (size_t at = 0, n = 1; at < length; at += n, n = n * 3 % 50021 + 1) {
        if (n > length - at)
            n = length - at;
        fl_assert_ok(fl_sealer_write(sealer, plain + at, n, &error), &error);
    }
    fl_assert_ok(fl_sealer_finish(sealer, &error), &error);
    fl_sealer_close(&sealer);
}

/* Opens and reads to the end. */
static enum fl_status open_all(const struct fl_box_keys *box, const struct fl_seal_context *as,
                               const uint8_t *sealed, size_t length, uint8_t *plain,
                               size_t capacity, size_t *got)
{
    struct fl_opener *opener = NULL;
    *got = 0;
    enum fl_status status = fl_opener_open(fl_box_keys_public(box), fl_box_keys_secret(box), as,
                                           sealed, length, &opener, &error);
    if (status == FL_OK)
        status = fl_opener_read(opener, plain, capacity, got, &error);
    if (status == FL_OK)
        status = fl_opener_at_end(opener, &error);
    fl_opener_close(&opener);
    return status;
}

static const size_t lengths[] = {0, 1, 65535, 65536, 65537, 131072, 131073, 300000, 4u << 20};
#define LENGTH_COUNT (int)(sizeof(lengths) / sizeof(lengths[0]))

START_TEST(any_length_opens_to_the_same_bytes) /* _i: which length */
{
    const size_t length = lengths[_i];
    uint8_t *plain = fl_malloc(length + 1), *back = fl_malloc(length + 1);
    ck_assert(plain && back);
    fill(plain, length);
    struct fl_box_keys *box = make_box();
    struct fl_buf sealed;
    size_t got = 0;
    seal(box, plain, length, &sealed);
    ck_assert_uint_eq(sealed.length, fl_sealed_size(length));
    ck_assert_int_eq(open_all(box, &context, sealed.data, sealed.length, back, length + 1, &got),
                     FL_OK);
    ck_assert_uint_eq(got, length);
    ck_assert(memcmp(plain, back, length) == 0);
    fl_buf_free(&sealed);
    fl_box_keys_destroy(&box);
    fl_free(plain);
    fl_free(back);
}
END_TEST

START_TEST(another_key_or_context_does_not_open_it)
{
    uint8_t plain[100], back[200];
    size_t got;
    fill(plain, sizeof(plain));
    struct fl_box_keys *box = make_box(), *other = make_box();
    struct fl_buf sealed;
    seal(box, plain, sizeof(plain), &sealed);
    struct fl_seal_context as[7];
    for (int i = 0; i < 7; i++)
        as[i] = context;
    as[1].purpose = "delta", as[2].sender = "bank", as[3].job = 8, as[4].round = 3;
    as[5].attempt = 2, as[6].extra = "x", as[6].extra_bytes = 1;
    for (int i = 0; i < 7; i++)
        ck_assert_int_eq(open_all(box, &as[i], sealed.data, sealed.length, back, 200, &got),
                         i == 0 ? FL_OK : FL_EFORMAT);
    ck_assert_int_eq(open_all(other, &context, sealed.data, sealed.length, back, 200, &got),
                     FL_EFORMAT);
    fl_buf_free(&sealed);
    fl_box_keys_destroy(&box);
    fl_box_keys_destroy(&other);
}
END_TEST

START_TEST(altered_cut_extended_and_reordered_bytes_are_noticed)
{
    const size_t length = 200000, piece = FL_SEAL_PIECE_BYTES + FL_SEAL_OVERHEAD_BYTES;
    uint8_t *plain = fl_malloc(length), *back = fl_malloc(2 * length);
    ck_assert(plain && back);
    fill(plain, length);
    struct fl_box_keys *box = make_box();
    struct fl_buf s;
    size_t got;
    seal(box, plain, length, &s);
#define OPEN(n) open_all(box, &context, s.data, (n), back, 2 * length, &got)
    for (size_t i = 0; i < s.length; i += i < 80 ? 1 : 7919) {
        s.data[i] ^= 0x10;
        ck_assert_msg(OPEN(s.length) == FL_EFORMAT, "byte %zu", i);
        s.data[i] ^= 0x10;
    }
    for (size_t n = 0; n < s.length; n += n < 100 ? 1 : 9973)
        ck_assert_msg(OPEN(n) == FL_EFORMAT, "cut to %zu", n);
    ck_assert_int_eq(OPEN(FL_SEAL_HEADER_BYTES + piece), FL_EFORMAT); /* on a border */
    ck_assert_int_eq(OPEN(FL_SEAL_HEADER_BYTES + 2 * piece), FL_EFORMAT);
    ck_assert_int_eq(OPEN(s.length), FL_OK);
    uint8_t *first = s.data + FL_SEAL_HEADER_BYTES;
    memcpy(back, first, piece);
    memmove(first, first + piece, piece);
    memcpy(first + piece, back, piece);
    ck_assert_int_eq(OPEN(s.length), FL_EFORMAT);
    fl_buf_append(&s, "more", 4);
    ck_assert_int_eq(OPEN(s.length), FL_EFORMAT);
#undef OPEN
    fl_buf_free(&s);
    fl_box_keys_destroy(&box);
    fl_free(plain);
    fl_free(back);
}
END_TEST

START_TEST(a_sealed_file_opens_piece_by_piece)
{
    char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "clinic.update", &error), &error);
    const size_t length = 150000;
    uint8_t *plain = fl_malloc(length), some[1000];
    ck_assert_ptr_nonnull(plain);
    fill(plain, length);
    struct fl_box_keys *box = make_box();
    struct fl_fs_writer writer;
    struct fl_sealer *sealer = NULL;
    fl_assert_ok(fl_fs_writer_open(&writer, path, 0600, &error), &error);
    fl_assert_ok(fl_sealer_open(fl_box_keys_public(box), &context, fl_entropy_system(),
                                fl_seal_to_writer(&writer), &sealer, &error),
                 &error);
    fl_assert_ok(fl_sealer_write(sealer, plain, length, &error), &error);
    fl_assert_ok(fl_sealer_finish(sealer, &error), &error);
    fl_assert_ok(fl_fs_writer_commit(&writer, &error), &error);
    fl_fs_writer_close(&writer);
    fl_sealer_close(&sealer);

    struct fl_opener *opener = NULL;
    fl_assert_ok(fl_opener_open_file(fl_box_keys_public(box), fl_box_keys_secret(box), &context,
                                     path, &opener, &error),
                 &error);
    size_t at = 0, got = 0;
    do {
        fl_assert_ok(fl_opener_read(opener, some, sizeof(some), &got, &error), &error);
        ck_assert(memcmp(some, plain + at, got) == 0);
        at += got;
    } while (got == sizeof(some));
    ck_assert_uint_eq(at, length);
    fl_assert_ok(fl_opener_at_end(opener, &error), &error);
    fl_opener_close(&opener);
    ck_assert_int_eq(fl_opener_open_file(fl_box_keys_public(box), fl_box_keys_secret(box), &context,
                                         directory, &opener, &error),
                     FL_EFORMAT);
    fl_box_keys_destroy(&box);
    fl_free(plain);
}
END_TEST

START_TEST(a_weak_recipient_is_refused)
{
    static const uint8_t zero[FL_KEY_BYTES];
    struct fl_buf out;
    struct fl_sealer *sealer = NULL;
    fl_buf_init(&out, 1000);
    ck_assert_int_eq(
        fl_sealer_open(zero, &context, fl_entropy_system(), fl_seal_to_buf(&out), &sealer, &error),
        FL_EINVAL);
    ck_assert_ptr_null(sealer);
    ck_assert_uint_eq(out.length, 0);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, any_length_opens_to_the_same_bytes, 0, LENGTH_COUNT);
    tcase_add_test(tc, another_key_or_context_does_not_open_it);
    tcase_add_test(tc, altered_cut_extended_and_reordered_bytes_are_noticed);
    tcase_add_test(tc, a_sealed_file_opens_piece_by_piece);
    tcase_add_test(tc, a_weak_recipient_is_refused);
}

FL_TEST_MAIN("crypto.sealed", add_tests)

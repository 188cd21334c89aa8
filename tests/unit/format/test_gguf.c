/*
 * Goal: a GGUF file is read as the specification says, and one that lies is refused.
 * Method: files built value by value in memory and written out; every truncation of one of them.
 */
#include "format/gguf.h"

#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "runner.h"

/* ---- a writer, as small as the tests need ---- */

static void raw(struct fl_buf *f, const void *bytes, size_t length)
{
    fl_buf_append(f, bytes, length);
}

static void text(struct fl_buf *f, const char *s)
{
    fl_buf_u64(f, strlen(s));
    raw(f, s, strlen(s));
}

static void head(struct fl_buf *f, uint32_t version, uint64_t tensors, uint64_t keys)
{
    fl_buf_init(f, 1u << 20);
    raw(f, "GGUF", 4);
    fl_buf_u32(f, version);
    fl_buf_u64(f, tensors);
    fl_buf_u64(f, keys);
}

static void key(struct fl_buf *f, const char *name, uint32_t type)
{
    text(f, name);
    fl_buf_u32(f, type);
}

static void key_u32(struct fl_buf *f, const char *name, uint32_t value)
{
    key(f, name, FL_GGUF_U32);
    fl_buf_u32(f, value);
}

static void tensor(struct fl_buf *f, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1,
                   uint64_t offset)
{
    text(f, name);
    fl_buf_u32(f, 2);
    fl_buf_u64(f, ne0);
    fl_buf_u64(f, ne1);
    fl_buf_u32(f, type);
    fl_buf_u64(f, offset);
}

static void pad(struct fl_buf *f, size_t alignment)
{
    while (f->length % alignment != 0 && fl_buf_status(f) == FL_OK)
        raw(f, "", 1);
}

static void fill(struct fl_buf *f, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = (uint8_t)i;
        raw(f, &byte, 1);
    }
}

/* Write the file, open it, and forget the bytes. */
static enum fl_status open_file(struct fl_buf *f, struct fl_gguf **out, struct fl_error *error)
{
    char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
    *out = NULL;
    ck_assert_int_eq(fl_buf_status(f), FL_OK);
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "model.gguf", error), error);
    fl_assert_ok(fl_fs_write(path, f->data, f->length, 0644, error), error);
    fl_buf_free(f);
    return fl_gguf_open(path, out, error);
}

static void refuses(struct fl_buf *f, const char *why)
{
    struct fl_gguf *self;
    struct fl_error error = {0};
    ck_assert_msg(open_file(f, &self, &error) == FL_EFORMAT, "not refused: %s", why);
    ck_assert_msg(strstr(error.text, why) != NULL, "'%s' does not say '%s'", error.text, why);
    ck_assert_ptr_null(self);
}

/* ---- reading ---- */

static void whole(struct fl_buf *f, uint32_t version)
{
    static const char letters[] = "\0\1\1";
    head(f, version, 3, 8);
    key_u32(f, "a.u32", 7);
    key(f, "a.i32", FL_GGUF_I32);
    fl_buf_u32(f, (uint32_t)-7);
    key(f, "a.f32", FL_GGUF_F32);
    raw(f, &(float){0.5f}, 4);
    key(f, "a.bool", FL_GGUF_BOOL);
    raw(f, "\1", 1);
    key(f, "a.text", FL_GGUF_STRING);
    text(f, "hello");
    key(f, "a.list", FL_GGUF_ARRAY);
    fl_buf_u32(f, FL_GGUF_STRING);
    fl_buf_u64(f, 3);
    text(f, "x");
    text(f, "");
    text(f, "yz");
    key(f, "a.numbers", FL_GGUF_ARRAY);
    fl_buf_u32(f, FL_GGUF_I8);
    fl_buf_u64(f, 3);
    raw(f, letters, 3);
    key(f, "a.u64", FL_GGUF_U64);
    fl_buf_u64(f, UINT64_MAX);
    tensor(f, "w", 0, 3, 2, 0);      /* F32: 24 bytes */
    tensor(f, "q", 8, 32, 2, 32);    /* Q8_0: 68 bytes */
    tensor(f, "k", 11, 256, 1, 128); /* Q3_K: not read */
    pad(f, 32);
    fill(f, 24);
    pad(f, 32);
    fill(f, 68);
    pad(f, 32);
    fill(f, 110);
}

START_TEST(values_of_every_kind_are_read)
{
    struct fl_buf f;
    struct fl_error error = {0};
    struct fl_gguf *self;
    uint64_t u;
    double d;
    bool b;
    struct fl_gguf_string s;
    whole(&f, (uint32_t)_i);
    fl_assert_ok(open_file(&f, &self, &error), &error);
    ck_assert_int_eq(fl_gguf_u64(self, "a.u32", &u), FL_OK);
    ck_assert_uint_eq(u, 7);
    ck_assert_int_eq(fl_gguf_u64(self, "a.i32", &u), FL_EFORMAT); /* negative */
    ck_assert_int_eq(fl_gguf_u64(self, "a.u64", &u), FL_EFORMAT); /* beyond 2^63 */
    ck_assert_int_eq(fl_gguf_u64(self, "a.text", &u), FL_EFORMAT);
    ck_assert_int_eq(fl_gguf_u64(self, "none", &u), FL_ENOTFOUND);
    ck_assert_int_eq(fl_gguf_f64(self, "a.f32", &d), FL_OK);
    ck_assert_double_eq(d, 0.5);
    ck_assert_int_eq(fl_gguf_bool(self, "a.bool", &b), FL_OK);
    ck_assert(b);
    ck_assert_int_eq(fl_gguf_bool(self, "a.u32", &b), FL_EFORMAT);
    ck_assert_int_eq(fl_gguf_string(self, "a.text", &s), FL_OK);
    ck_assert_uint_eq(s.length, 5);
    ck_assert_int_eq(memcmp(s.data, "hello", 5), 0);
    ck_assert(fl_gguf_has(self, "a.list"));
    ck_assert(!fl_gguf_has(self, "a.lis"));
    fl_gguf_close(&self);
    ck_assert_ptr_null(self);
}
END_TEST

START_TEST(arrays_are_walked)
{
    struct fl_buf f;
    struct fl_error error = {0};
    struct fl_gguf *self;
    struct fl_gguf_array array;
    struct fl_gguf_string s;
    whole(&f, 3);
    fl_assert_ok(open_file(&f, &self, &error), &error);
    ck_assert_int_eq(fl_gguf_array(self, "a.list", &array), FL_OK);
    ck_assert_uint_eq(array.count, 3);
    ck_assert_int_eq(fl_gguf_array_i64(&array, 0), 0);
    ck_assert(fl_gguf_array_next_string(&array, &s) && s.length == 1 && s.data[0] == 'x');
    ck_assert(fl_gguf_array_next_string(&array, &s) && s.length == 0);
    ck_assert(fl_gguf_array_next_string(&array, &s) && s.length == 2 && s.data[1] == 'z');
    ck_assert(!fl_gguf_array_next_string(&array, &s));
    ck_assert_int_eq(fl_gguf_array(self, "a.numbers", &array), FL_OK);
    ck_assert_int_eq(fl_gguf_array_i64(&array, 1), 1);
    ck_assert_double_eq(fl_gguf_array_f64(&array, 2), 1.0);
    ck_assert_int_eq(fl_gguf_array_i64(&array, 3), 0);
    ck_assert(!fl_gguf_array_next_string(&array, &s));
    ck_assert_int_eq(fl_gguf_array(self, "a.u32", &array), FL_EFORMAT);
    fl_gguf_close(&self);
}
END_TEST

START_TEST(tensors_have_row_major_shapes_and_their_bytes)
{
    struct fl_buf f;
    struct fl_error error = {0};
    struct fl_gguf *self;
    whole(&f, 3);
    fl_assert_ok(open_file(&f, &self, &error), &error);
    ck_assert_uint_eq(fl_gguf_tensor_count(self), 3);
    ck_assert_str_eq(fl_gguf_tensor(self, 0)->name, "w");
    const struct fl_tensor_view *w = fl_gguf_find(self, "w");
    ck_assert_uint_eq(w->shape[0], 2);
    ck_assert_uint_eq(w->shape[1], 3);
    ck_assert_uint_eq(w->bytes, 24);
    ck_assert_uint_eq(w->data[23], 23);
    const struct fl_tensor_view *q = fl_gguf_find(self, "q");
    ck_assert_int_eq(q->dtype, FL_DTYPE_Q8_0);
    ck_assert_uint_eq(q->bytes, 68);
    ck_assert_uint_eq(q->data[0], 0);
    ck_assert_int_eq(fl_gguf_find(self, "k")->dtype, FL_DTYPE_OTHER);
    ck_assert_str_eq(fl_gguf_type_name(self, 2), "Q3_K");
    ck_assert_ptr_null(fl_gguf_find(self, "x"));
    fl_gguf_close(&self);
}
END_TEST

START_TEST(a_vocabulary_without_tensors_is_a_file_too)
{
    struct fl_buf f;
    struct fl_error error = {0};
    struct fl_gguf *self;
    head(&f, 3, 0, 0);
    fl_assert_ok(open_file(&f, &self, &error), &error);
    ck_assert_uint_eq(fl_gguf_tensor_count(self), 0);
    ck_assert_ptr_null(fl_gguf_find(self, "x"));
    ck_assert(!fl_gguf_has(self, "x"));
    fl_gguf_close(&self);
}
END_TEST

START_TEST(the_alignment_of_the_file_counts)
{
    struct fl_buf f;
    struct fl_error error = {0};
    struct fl_gguf *self;
    head(&f, 3, 2, 1);
    key_u32(&f, "general.alignment", 8);
    tensor(&f, "a", 24, 3, 1, 0);
    tensor(&f, "b", 24, 3, 1, 8);
    pad(&f, 8);
    fill(&f, 11);
    fl_assert_ok(open_file(&f, &self, &error), &error);
    ck_assert_uint_eq(fl_gguf_find(self, "b")->data[2], 10);
    fl_gguf_close(&self);
}
END_TEST

/* ---- refusing ---- */

START_TEST(every_truncation_is_refused)
{
    struct fl_buf f;
    struct fl_gguf *self;
    struct fl_error error = {0};
    char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
    whole(&f, 3);
    ck_assert_int_eq(fl_buf_status(&f), FL_OK);
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "cut.gguf", &error), &error);
    fl_assert_ok(fl_fs_write(path, f.data, f.length, 0644, &error), &error);
    for (size_t n = f.length; n-- > 0;) {
        ck_assert_int_eq(truncate(path, (off_t)n), 0);
        ck_assert_msg(fl_gguf_open(path, &self, &error) == FL_EFORMAT, "cut at %zu", n);
        ck_assert_ptr_null(self);
        ck_assert(fl_gguf_is(path) == (n >= 4));
    }
    fl_buf_free(&f);
    ck_assert_int_eq(fl_gguf_open("/nonexistent/x.gguf", &self, &error), FL_ENOTFOUND);
    ck_assert(!fl_gguf_is("/nonexistent/x.gguf"));
    ck_assert(!fl_gguf_is(directory));
}
END_TEST

START_TEST(a_wrong_head_is_refused)
{
    struct fl_buf f;
    head(&f, 1, 0, 0);
    refuses(&f, "version");
    head(&f, 4, 0, 0);
    refuses(&f, "version");
    head(&f, 0x03000000, 0, 0);
    refuses(&f, "big-endian");
    head(&f, 3, 0, 0);
    ck_assert_ptr_nonnull(f.data);
    f.data[0] = 'g';
    refuses(&f, "GGUF");
    head(&f, 3, UINT64_MAX, 0);
    refuses(&f, "too many");
    head(&f, 3, 0, UINT64_MAX);
    refuses(&f, "too many");
    head(&f, 3, 100000, 0);
    refuses(&f, "too early");
    head(&f, 3, 0, 50000);
    refuses(&f, "too early");
}
END_TEST

START_TEST(wrong_keys_are_refused)
{
    struct fl_buf f;
    head(&f, 3, 0, 2);
    key_u32(&f, "a", 1);
    key_u32(&f, "a", 2);
    refuses(&f, "twice");
    head(&f, 3, 0, 1);
    key_u32(&f, "", 1);
    refuses(&f, "empty");
    head(&f, 3, 0, 1);
    fl_buf_u64(&f, 3);
    raw(&f, "a\0b", 3);
    fl_buf_u32(&f, FL_GGUF_U32);
    fl_buf_u32(&f, 0);
    refuses(&f, "NUL");
    head(&f, 3, 0, 1);
    key(&f, "a", 13);
    fill(&f, 64);
    refuses(&f, "impossible type");
    head(&f, 3, 0, 1);
    key(&f, "a", FL_GGUF_BOOL);
    raw(&f, "\2", 1);
    refuses(&f, "truth value");
    head(&f, 3, 0, 1);
    fl_buf_u64(&f, UINT64_MAX);
    fill(&f, 64);
    refuses(&f, "too long");
    head(&f, 3, 0, 1);
    key(&f, "a", FL_GGUF_STRING);
    fl_buf_u64(&f, 1u << 20);
    refuses(&f, "too early");
    head(&f, 3, 0, 1);
    key(&f, "a", FL_GGUF_STRING);
    fl_buf_u64(&f, UINT64_MAX - 4);
    refuses(&f, "too long");
}
END_TEST

static void array_key(struct fl_buf *f, uint32_t type, uint64_t count)
{
    head(f, 3, 0, 1);
    key(f, "a", FL_GGUF_ARRAY);
    fl_buf_u32(f, type);
    fl_buf_u64(f, count);
    fill(f, 40);
}

START_TEST(wrong_arrays_are_refused)
{
    struct fl_buf f;
    array_key(&f, FL_GGUF_ARRAY, 1);
    refuses(&f, "impossible type");
    array_key(&f, 99, 1);
    refuses(&f, "impossible type");
    array_key(&f, FL_GGUF_U64, UINT64_MAX / 4);
    refuses(&f, "too long");
    array_key(&f, FL_GGUF_U64, 6);
    refuses(&f, "too early");
    array_key(&f, FL_GGUF_STRING, 1u << 20);
    refuses(&f, "too long");
}
END_TEST

START_TEST(wrong_tensors_are_refused)
{
    struct fl_buf f;
    head(&f, 3, 2, 0);
    tensor(&f, "a", 24, 32, 1, 0);
    tensor(&f, "a", 24, 32, 1, 32);
    fill(&f, 128);
    refuses(&f, "twice");
    head(&f, 3, 1, 0);
    tensor(&f, "a", 4, 32, 1, 0);
    fill(&f, 128);
    refuses(&f, "unknown type");
    head(&f, 3, 1, 0);
    tensor(&f, "a", 8, 33, 1, 0);
    fill(&f, 128);
    refuses(&f, "whole blocks");
    head(&f, 3, 1, 0);
    tensor(&f, "a", 24, 1ull << 40, 1ull << 40, 0);
    fill(&f, 128);
    refuses(&f, "impossibly large");
    head(&f, 3, 1, 0);
    tensor(&f, "a", 28, 1ull << 62, 1, 0);
    fill(&f, 128);
    refuses(&f, "impossibly large");
    head(&f, 3, 1, 0);
    tensor(&f, "a", 24, UINT64_MAX, 1, 0);
    fill(&f, 128);
    refuses(&f, "impossibly large");
    head(&f, 3, 1, 0);
    tensor(&f, "a", 24, 32, 1, 32);
    fill(&f, 128);
    refuses(&f, "one behind the other");
    head(&f, 3, 2, 0);
    tensor(&f, "a", 24, 32, 1, 0);
    tensor(&f, "b", 24, 32, 1, 0);
    fill(&f, 128);
    refuses(&f, "one behind the other");
    head(&f, 3, 1, 0);
    tensor(&f, "a", 24, 1u << 20, 1, 0);
    fill(&f, 128);
    refuses(&f, "beyond its end");
    head(&f, 3, 1, 0);
    text(&f, "a");
    fl_buf_u32(&f, 5);
    fill(&f, 128);
    refuses(&f, "dimensions");
}
END_TEST

START_TEST(a_wrong_alignment_is_refused)
{
    static const uint32_t wrong[] = {0, 3, 48, 1u << 20, UINT32_MAX};
    struct fl_buf f;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        head(&f, 3, 0, 1);
        key_u32(&f, "general.alignment", wrong[i]);
        refuses(&f, "power of two");
    }
    head(&f, 3, 0, 1);
    key(&f, "general.alignment", FL_GGUF_STRING);
    text(&f, "32");
    refuses(&f, "power of two");
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, values_of_every_kind_are_read, 2, 4);
    tcase_add_test(tc, arrays_are_walked);
    tcase_add_test(tc, tensors_have_row_major_shapes_and_their_bytes);
    tcase_add_test(tc, a_vocabulary_without_tensors_is_a_file_too);
    tcase_add_test(tc, the_alignment_of_the_file_counts);
    tcase_add_test(tc, every_truncation_is_refused);
    tcase_add_test(tc, a_wrong_head_is_refused);
    tcase_add_test(tc, wrong_keys_are_refused);
    tcase_add_test(tc, wrong_arrays_are_refused);
    tcase_add_test(tc, wrong_tensors_are_refused);
    tcase_add_test(tc, a_wrong_alignment_is_refused);
}

FL_TEST_MAIN("format_gguf", add_tests)

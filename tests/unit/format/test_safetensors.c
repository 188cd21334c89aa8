/*
 * Goal: a file is taken only when its header describes every byte behind it, once; what we write
 * reads back.
 * Method: headers written by hand, one broken rule each; shards in a directory; a round trip.
 */
#include "format/safetensors.h"

#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "runner.h"

/* A file of that header text and data_bytes zeros. */
static void build(struct fl_buf *out, const char *header, size_t data_bytes)
{
    static const uint8_t zeros[256];
    fl_buf_init(out, 1u << 20);
    fl_buf_u64(out, strlen(header));
    fl_buf_append(out, header, strlen(header));
    ck_assert_uint_le(data_bytes, sizeof(zeros));
    fl_buf_append(out, zeros, data_bytes);
    ck_assert_int_eq(fl_buf_status(out), FL_OK);
}

static enum fl_status open_built(const char *header, size_t data_bytes, uint32_t *count)
{
    struct fl_buf file;
    struct fl_safetensors *self;
    struct fl_error error = {0};
    build(&file, header, data_bytes);
    enum fl_status status = fl_safetensors_open_memory(file.data, file.length, "it", &self, &error);
    if (status == FL_OK)
        *count = fl_safetensors_count(self);
    else
        ck_assert(self == NULL && (status == FL_ENOMEM || error.text[0]));
    fl_safetensors_close(&self);
    fl_buf_free(&file);
    return status;
}

static void accepts(const char *header, size_t data_bytes, uint32_t wanted)
{
    uint32_t count = 99;
    ck_assert_msg(open_built(header, data_bytes, &count) == FL_OK, "%s", header);
    ck_assert_uint_eq(count, wanted);
}

static void refuses(const char *header, size_t data_bytes)
{
    uint32_t count;
    ck_assert_msg(open_built(header, data_bytes, &count) == FL_EFORMAT, "%s", header);
}

#define A(dtype, shape, offsets)                                                                   \
    "\"a\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define B(dtype, shape, offsets)                                                                   \
    "\"b\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

START_TEST(good_files_are_read)
{
    accepts("{}", 0, 0);
    accepts("{\"__metadata__\":{\"format\":\"pt\"}}", 0, 0);
    accepts("{" A("F32", "[2,3]", "[0,24]") "}     ", 24, 1);
    accepts("{" A("F32", "[]", "[0,4]") "}", 4, 1); /* a scalar */
    accepts("{" A("F32", "[0,7]", "[0,0]") "," B("BF16", "[2]", "[0,4]") "}", 4, 2);
    accepts("{" B("I64", "[1]", "[8,16]") "," A("F64", "[1]", "[0,8]") "}", 16, 2);
    accepts("{" A("BOOL", "[3]", "[0,3]") "," B("U8", "[5]", "[3,8]") "}", 8, 2);
}
END_TEST

START_TEST(a_header_that_is_no_json_object_is_refused)
{
    refuses("{", 0);
    refuses("[]", 0);
    refuses(" {}", 0);
    refuses("{\"a\":1}", 0);
    refuses("{} x", 0);
    refuses("{\"\xff\":"
            "{}}",
            0);
    refuses("{\"a\\u0000\":{}}", 0);
    refuses("{" A("F32", "[1]", "[0,4]") "," A("F32", "[1]", "[4,8]") "}", 8); /* twice */
}
END_TEST

START_TEST(holes_overlaps_and_rests_are_refused)
{
    refuses("{" A("F32", "[1]", "[4,8]") "}", 8);
    refuses("{" A("F32", "[1]", "[0,4]") "," B("F32", "[1]", "[8,12]") "}", 12);
    refuses("{" A("F32", "[2]", "[0,8]") "," B("F32", "[2]", "[4,12]") "}", 12);
    refuses("{" A("F32", "[2]", "[0,8]") "," B("F32", "[2]", "[0,8]") "}", 8);
    refuses("{" A("F32", "[1]", "[0,4]") "}", 5);
    refuses("{}", 1);
    refuses("{" A("F32", "[2]", "[0,8]") "}", 7); /* cut */
}
END_TEST

START_TEST(sizes_that_disagree_or_overflow_are_refused)
{
    refuses("{" A("F32", "[2]", "[0,4]") "}", 4);
    refuses("{" A("F32", "[1]", "[4,0]") "}", 4);
    refuses("{" A("F32", "[4294967296,4294967296]", "[0,0]") "}", 0);
    refuses("{" A("F32", "[2305843009213693952,8]", "[0,0]") "}", 0);
    refuses("{" A("F64", "[1152921504606846976]", "[0,0]") "}", 0); /* times 64 bits */
    refuses("{" A("F32", "[18446744073709551617]", "[0,4]") "}", 4);
    refuses("{" A("F32", "[-1]", "[0,4]") "}", 4);
    refuses("{" A("F32", "[1.0]", "[0,4]") "}", 4);
    refuses("{" A("F32", "[1]", "[-4,0]") "}", 0);
    refuses("{" A("F32", "[1]", "[0]") "}", 4);
    refuses("{" A("F32", "[1]", "[0,4,8]") "}", 8);
    refuses("{" A("F32", "\"1\"", "[0,4]") "}", 4);
    refuses("{" A("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4);
    refuses("{" A("F33", "[1]", "[0,4]") "}", 4);
    refuses("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    refuses("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4);
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4);
}
END_TEST

START_TEST(a_lying_header_length_is_refused_before_anything_is_read)
{
    static const uint64_t lengths[] = {0,         1, 3, 100, 100000001, UINT64_MAX, UINT64_MAX - 7,
                                       1ull << 63};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct fl_buf file;
        struct fl_safetensors *self;
        struct fl_error error;
        fl_buf_init(&file, 64);
        fl_buf_u64(&file, lengths[i]);
        fl_buf_append(&file, "{}", 2);
        ck_assert_int_eq(fl_safetensors_open_memory(file.data, file.length, "it", &self, &error),
                         FL_EFORMAT);
        ck_assert_int_eq(fl_safetensors_open_memory(file.data, 7, "it", &self, &error), FL_EFORMAT);
        fl_buf_free(&file);
    }
}
END_TEST

START_TEST(a_header_of_millions_of_values_is_refused_unparsed)
{
    size_t count = 3000000;
    struct fl_buf file;
    struct fl_safetensors *self;
    struct fl_error error;
    fl_buf_init(&file, 16u << 20);
    fl_buf_u64(&file, 2 * count + 8);
    fl_buf_append(&file, "{\"a\":[1", 7);
    for (size_t i = 0; i < count - 1; i++)
        fl_buf_append(&file, ",1", 2);
    fl_buf_append(&file, "]} ", 3);
    ck_assert_int_eq(fl_buf_status(&file), FL_OK);
    ck_assert_int_eq(fl_safetensors_open_memory(file.data, file.length, "it", &self, &error),
                     FL_EFORMAT);
    ck_assert(strstr(error.text, "too many values") != NULL);
    fl_buf_free(&file);
}
END_TEST

/* ---- the writer ---- */

static const float values[6] = {1, 2, 3, 4, 5, 6};
static const uint16_t halves[4] = {0x3c00, 0x4000, 0, 0x8000};

static void write_two(struct fl_buf *out)
{
    struct fl_error error;
    const struct fl_tensor_view tensors[] = {
        {"b \"quoted\"", FL_DTYPE_F16, 1, {4}, (const uint8_t *)halves, sizeof(halves)},
        {"z", FL_DTYPE_F32, 2, {2, 3}, (const uint8_t *)values, sizeof(values)},
        {"a", FL_DTYPE_F16, 2, {0, 4}, NULL, 0},
    };
    fl_buf_init(out, 1u << 16);
    fl_assert_ok(fl_safetensors_write(tensors, 3, out, &error), &error);
}

START_TEST(what_is_written_reads_back)
{
    struct fl_buf file;
    struct fl_safetensors *self;
    struct fl_error error;
    float out[6];
    write_two(&file);
    ck_assert_uint_eq((fl_load_u64(file.data) + 8) % 8, 0);
    fl_assert_ok(fl_safetensors_open_memory(file.data, file.length, "it", &self, &error), &error);
    ck_assert_uint_eq(fl_safetensors_count(self), 3);
    const struct fl_tensor_view *z = fl_safetensors_find(self, "z");
    ck_assert(z && z->rank == 2 && z->shape[0] == 2 && z->shape[1] == 3);
    ck_assert(z->data == file.data + 8 + fl_load_u64(file.data)); /* the widest type is first */
    fl_dtype_widen(z->dtype, z->data, 6, out);
    ck_assert_int_eq(memcmp(out, values, sizeof(values)), 0);
    const struct fl_tensor_view *b = fl_safetensors_find(self, "b \"quoted\"");
    ck_assert(b && b->bytes == 8 && memcmp(b->data, halves, 8) == 0);
    ck_assert_str_eq(fl_safetensors_at(self, 0)->name, "a");
    ck_assert(fl_safetensors_find(self, "q") == NULL);
    fl_safetensors_close(&self);
    fl_buf_free(&file);
}
END_TEST

START_TEST(only_plain_types_are_written)
{
    struct fl_buf file;
    struct fl_error error;
    const struct fl_tensor_view q = {"q", FL_DTYPE_Q8_0, 1, {32}, (const uint8_t *)values, 34};
    fl_buf_init(&file, 1u << 16);
    ck_assert_int_eq(fl_safetensors_write(&q, 1, &file, &error), FL_EINVAL);
    ck_assert_uint_eq(file.length, 0);
    fl_buf_free(&file);
}
END_TEST

/* ---- directories ---- */

static void put(const char *directory, const char *name, const void *bytes, size_t length)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    fl_assert_ok(fl_path_join(path, directory, name, &error), &error);
    fl_assert_ok(fl_fs_write(path, bytes, length, 0644, &error), &error);
}

static void put_header(const char *directory, const char *name, const char *header, size_t bytes)
{
    struct fl_buf file;
    build(&file, header, bytes);
    put(directory, name, file.data, file.length);
    fl_buf_free(&file);
}

static enum fl_status open_index(const char *directory, const char *index, struct fl_error *error)
{
    struct fl_safetensors *self;
    put(directory, "model.safetensors.index.json", index, strlen(index));
    enum fl_status status = fl_safetensors_open(directory, &self, error);
    fl_safetensors_close(&self);
    return status;
}

START_TEST(shards_are_read_through_their_index)
{
    char directory[FL_PATH_BYTES];
    struct fl_error error;
    struct fl_safetensors *self;
    fl_test_directory(directory);
    put_header(directory, "one.safetensors", "{" A("F32", "[2]", "[0,8]") "}", 8);
    put_header(directory, "two.safetensors", "{" B("F16", "[3]", "[0,6]") "}", 6);
    static const char index[] =
        "{\"metadata\":{\"total_size\":14},\"weight_map\":{\"a\":\"one.safetensors\","
        "\"b\":\"two.safetensors\"}}";
    put(directory, "model.safetensors.index.json", index, strlen(index));
    fl_assert_ok(fl_safetensors_open(directory, &self, &error), &error);
    ck_assert_uint_eq(fl_safetensors_count(self), 2);
    ck_assert(fl_safetensors_find(self, "a") && fl_safetensors_find(self, "b"));
    fl_safetensors_close(&self);
}
END_TEST

START_TEST(an_index_may_only_name_files_beside_it)
{
    char directory[FL_PATH_BYTES];
    struct fl_error error;
    fl_test_directory(directory);
    put_header(directory, "one.safetensors", "{" A("F32", "[2]", "[0,8]") "}", 8);
    static const char *const bad[] = {
        "{\"weight_map\":{\"a\":\"../one.safetensors\"}}",
        "{\"weight_map\":{\"a\":\"/etc/passwd\"}}",
        "{\"weight_map\":{\"a\":\"sub/one.safetensors\"}}",
        "{\"weight_map\":{\"a\":\"..\"}}",
        "{\"weight_map\":{\"a\":\"\"}}",
        "{\"weight_map\":{\"a\":7}}",
        "{\"weight_map\":[]}",
        "{}",
        "[]",
        "{\"weight_map\":",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(open_index(directory, bad[i], &error) == FL_EFORMAT, "%s", bad[i]);
    ck_assert_int_eq(
        open_index(directory, "{\"weight_map\":{\"a\":\"three.safetensors\"}}", &error),
        FL_ENOTFOUND);
}
END_TEST

START_TEST(an_index_must_agree_with_its_shards)
{
    char directory[FL_PATH_BYTES];
    struct fl_error error;
    fl_test_directory(directory);
    put_header(directory, "one.safetensors", "{" A("F32", "[2]", "[0,8]") "}", 8);
    put_header(directory, "two.safetensors", "{" A("F32", "[2]", "[0,8]") "}", 8);
    /* one name in two shards */
    ck_assert_int_eq(open_index(directory,
                                "{\"weight_map\":{\"a\":\"one.safetensors\","
                                "\"b\":\"two.safetensors\"}}",
                                &error),
                     FL_EFORMAT);
    /* a tensor that no shard holds */
    ck_assert_int_eq(open_index(directory,
                                "{\"weight_map\":{\"a\":\"one.safetensors\","
                                "\"lost\":\"one.safetensors\"}}",
                                &error),
                     FL_EFORMAT);
    ck_assert(strstr(error.text, "lost") != NULL);
}
END_TEST

START_TEST(a_directory_without_weights_says_so)
{
    char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
    struct fl_error error;
    struct fl_safetensors *self;
    fl_test_directory(directory);
    ck_assert_int_eq(fl_safetensors_open(directory, &self, &error), FL_ENOTFOUND);
    fl_assert_ok(fl_path_join(path, directory, "empty.safetensors", &error), &error);
    ck_assert_int_eq(fl_safetensors_open(path, &self, &error), FL_ENOTFOUND);
    put(directory, "empty.safetensors", "", 0);
    ck_assert_int_eq(fl_safetensors_open(path, &self, &error), FL_EFORMAT);
    ck_assert(strstr(error.text, "empty.safetensors") != NULL);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, good_files_are_read);
    tcase_add_test(tc, a_header_that_is_no_json_object_is_refused);
    tcase_add_test(tc, holes_overlaps_and_rests_are_refused);
    tcase_add_test(tc, sizes_that_disagree_or_overflow_are_refused);
    tcase_add_test(tc, a_lying_header_length_is_refused_before_anything_is_read);
    tcase_add_test(tc, a_header_of_millions_of_values_is_refused_unparsed);
    tcase_add_test(tc, what_is_written_reads_back);
    tcase_add_test(tc, only_plain_types_are_written);
    tcase_add_test(tc, shards_are_read_through_their_index);
    tcase_add_test(tc, an_index_may_only_name_files_beside_it);
    tcase_add_test(tc, an_index_must_agree_with_its_shards);
    tcase_add_test(tc, a_directory_without_weights_says_so);
}

FL_TEST_MAIN("format_safetensors", add_tests)

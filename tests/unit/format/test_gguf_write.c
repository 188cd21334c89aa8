/* What the writer writes, the reader reads. */
#include "format/gguf_write.h"

#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "runner.h"

static struct fl_error error;

static void put_keys(struct fl_gguf_writer *writer)
{
    fl_gguf_put_string(writer, "general.architecture", "llama");
    fl_gguf_put_u32(writer, "a.number", 4000000000u);
    fl_gguf_put_f32(writer, "a.real", -0.25f);
    fl_gguf_put_bool(writer, "a.truth", true);
    fl_gguf_put_array(writer, "a.list", FL_GGUF_STRING, 3);
    fl_gguf_put_element_string(writer, "one", 3);
    fl_gguf_put_element_string(writer, "", 0);
    fl_gguf_put_element_string(writer, "th\0ree", 6);
    fl_gguf_put_array(writer, "a.row", FL_GGUF_I32, 2);
    fl_gguf_put_element_i32(writer, -1);
    fl_gguf_put_element_i32(writer, 7);
}

static void check_keys(const struct fl_gguf *file)
{
    uint64_t number;
    double real;
    bool truth;
    struct fl_gguf_array array;
    struct fl_gguf_string text;
    ck_assert_int_eq(fl_gguf_u64(file, "a.number", &number), FL_OK);
    ck_assert_uint_eq(number, 4000000000u);
    ck_assert_int_eq(fl_gguf_f64(file, "a.real", &real), FL_OK);
    ck_assert_double_eq(real, -0.25);
    ck_assert_int_eq(fl_gguf_bool(file, "a.truth", &truth), FL_OK);
    ck_assert(truth);
    ck_assert_int_eq(fl_gguf_array(file, "a.row", &array), FL_OK);
    ck_assert_int_eq(fl_gguf_array_i64(&array, 0), -1);
    ck_assert_int_eq(fl_gguf_array_i64(&array, 1), 7);
    ck_assert_int_eq(fl_gguf_array(file, "a.list", &array), FL_OK);
    for (int i = 0; i < 3; i++)
        ck_assert(fl_gguf_array_next_string(&array, &text));
    ck_assert_uint_eq(text.length, 6);
    ck_assert_mem_eq(text.data, "th\0ree", 6);
}

/* The writer's header and its tensors' bytes (all of one value) as a file. */
static void write_file(const struct fl_gguf_writer *writer, const size_t *bytes, size_t count,
                       char path[FL_PATH_BYTES])
{
    static const uint8_t zeros[FL_GGUF_ALIGNMENT];
    struct fl_buf out;
    char directory[FL_PATH_BYTES];
    fl_buf_init(&out, 1 << 20);
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "x.gguf", &error), &error);
    ck_assert_int_eq(fl_gguf_writer_header(writer, &out), FL_OK);
    ck_assert_uint_eq(out.length % FL_GGUF_ALIGNMENT, 0);
    for (size_t i = 0; i < count; i++) {
        uint8_t *data = fl_buf_extend(&out, bytes[i]);
        ck_assert_ptr_nonnull(data);
        memset(data, (int)i + 1, bytes[i]);
        fl_buf_append(&out, zeros, fl_gguf_padding(bytes[i]));
    }
    fl_assert_ok(fl_fs_write(path, out.data, out.length, 0644, &error), &error);
    fl_buf_free(&out);
}

START_TEST(what_was_written_is_read_back)
{
    char path[FL_PATH_BYTES];
    struct fl_gguf_writer writer, copy;
    struct fl_gguf *file = NULL, *again = NULL;
    const uint64_t matrix[] = {3, 5}, vector[] = {7};
    const size_t bytes[] = {30, 28};
    fl_gguf_writer_init(&writer);
    put_keys(&writer);
    fl_gguf_add_tensor(&writer, "m", FL_DTYPE_F16, 2, matrix);
    fl_gguf_add_tensor(&writer, "v", FL_DTYPE_F32, 1, vector);
    write_file(&writer, bytes, 2, path);
    fl_gguf_writer_free(&writer);
    fl_assert_ok(fl_gguf_open(path, &file, &error), &error);
    check_keys(file);
    const struct fl_tensor_view *m = fl_gguf_find(file, "m"), *v = fl_gguf_find(file, "v");
    ck_assert(m && m->dtype == FL_DTYPE_F16 && m->rank == 2);
    ck_assert(m->shape[0] == 3 && m->shape[1] == 5 && m->data[29] == 1);
    ck_assert(v && v->dtype == FL_DTYPE_F32 && v->rank == 1 && v->shape[0] == 7);
    ck_assert_uint_eq(v->data[0], 2);

    fl_gguf_writer_init(&copy); /* every key as it lies there */
    for (uint32_t i = 0; i < fl_gguf_key_count(file); i++) {
        const struct fl_gguf_key key = fl_gguf_key_at(file, i);
        fl_gguf_put_raw(&copy, &key);
    }
    write_file(&copy, NULL, 0, path);
    fl_gguf_writer_free(&copy);
    fl_assert_ok(fl_gguf_open(path, &again, &error), &error);
    ck_assert_uint_eq(fl_gguf_key_count(again), fl_gguf_key_count(file));
    check_keys(again);
    fl_gguf_close(&again);
    fl_gguf_close(&file);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, what_was_written_is_read_back);
}

FL_TEST_MAIN("gguf_write", add_tests)

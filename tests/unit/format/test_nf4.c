/*
 * Goal: NF4 matrices are what bitsandbytes stores, and widen to the very floats that it gives.
 * Method: matrices frozen with their sources and values (tests/golden/make_nf4.py): widened under
 * each set of kernels, in ranges that begin and end anywhere; made anew from the sources, byte for
 * byte; broken in each member and refused.
 */
#include "format/nf4.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "runner.h"

#define FILE_PATH FL_TEST_SOURCE_DIR "/golden/nf4/matrices.safetensors"

static const char *const NAMES[] = {"nested", "two",   "odd",  "plain",
                                    "short",  "zeros", "wide", "small"};
static const char *const KERNELS[] = {"scalar", "avx2", "auto"};
enum { NAME_COUNT = 8, KERNEL_COUNT = 3, VALUES_MAX = 136 * 128 };

static struct fl_error error;

static struct fl_safetensors *open_file(void)
{
    struct fl_safetensors *file;
    fl_assert_ok(fl_safetensors_open(FILE_PATH, &file, &error), &error);
    return file;
}

static void find(const struct fl_safetensors *file, const char *name, struct fl_nf4 *out)
{
    char full[64];
    (void)snprintf(full, sizeof full, "%s.weight", name);
    fl_assert_ok(fl_nf4_find(file, full, out, &error), &error);
}

/* The values of NAME.SUFFIX, and the type that they are stored in. */
static size_t floats_of(const struct fl_safetensors *file, const char *name, const char *suffix,
                        float *out, enum fl_dtype *dtype)
{
    char full[64];
    (void)snprintf(full, sizeof full, "%s.%s", name, suffix);
    const struct fl_tensor_view *view = fl_safetensors_find(file, full);
    ck_assert_ptr_nonnull(view);
    const size_t count = view->bytes / fl_dtype_block_bytes(view->dtype);
    ck_assert_uint_le(count, VALUES_MAX);
    fl_dtype_widen(view->dtype, view->data, count, out);
    *dtype = view->dtype;
    return count;
}

/* 0, or the number of the comparison that failed. */
static int compare(const struct fl_nf4 *matrix, const float *expected, size_t count)
{
    static float out[VALUES_MAX];
    fl_nf4_widen(matrix, 0, count, out);
    if (memcmp(out, expected, count * sizeof *out) != 0)
        return 1;
    for (size_t row = 0; row < matrix->rows; row++)
        fl_nf4_widen(matrix, row * matrix->columns, (size_t)matrix->columns,
                     out + row * matrix->columns);
    if (memcmp(out, expected, count * sizeof *out) != 0)
        return 2;
    for (size_t at = 0, step = 1; at < count; at += step, step = step % 41 + 1) {
        const size_t here = step < count - at ? step : count - at;
        fl_nf4_widen(matrix, at, here, out);
        if (memcmp(out, expected + at, here * sizeof *out) != 0)
            return 3;
    }
    fl_nf4_widen(matrix, count, 0, out);
    return 0;
}

START_TEST(a_matrix_widens_to_the_bits_of_bitsandbytes)
{
    static float expected[VALUES_MAX];
    const char *name = NAMES[_i / KERNEL_COUNT], *kernels = KERNELS[_i % KERNEL_COUNT];
    struct fl_safetensors *file = open_file();
    struct fl_nf4 matrix;
    enum fl_dtype dtype;
    int code;
    find(file, name, &matrix);
    const size_t count = floats_of(file, name, "wide", expected, &dtype);
    ck_assert_uint_eq(count, matrix.rows * matrix.columns);
    ck_assert_int_eq(matrix.rounding, dtype);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        setenv("FL_KERNELS", kernels, 1);
        _exit(compare(&matrix, expected, count));
    }
    ck_assert_int_eq(waitpid(child, &code, 0), child);
    ck_assert_msg(code == 0, "%s with FL_KERNELS=%s: %x", name, kernels, code);
    fl_safetensors_close(&file);
}
END_TEST

/* Put the source in pieces of `piece` values. */
static void make(struct fl_nf4 *out, const struct fl_nf4 *like, enum fl_dtype dtype,
                 const float *source, size_t piece)
{
    const size_t count = (size_t)(like->rows * like->columns);
    fl_assert_ok(fl_nf4_begin(out, like->rows, like->columns, dtype, &error), &error);
    for (size_t at = 0; at < count; at += piece)
        fl_assert_ok(
            fl_nf4_put(out, at, source + at, count - at < piece ? count - at : piece, &error),
            &error);
}

START_TEST(a_matrix_is_made_byte_for_byte_as_bitsandbytes_makes_it)
{
    static float source[VALUES_MAX];
    struct fl_safetensors *file = open_file();
    struct fl_nf4 theirs, ours;
    enum fl_dtype dtype;
    find(file, NAMES[_i], &theirs);
    const size_t count = floats_of(file, NAMES[_i], "source", source, &dtype);
    if (theirs.block == FL_NF4_BLOCK) {
        make(&ours, &theirs, dtype, source, 128);
        ck_assert_int_eq(memcmp(ours.packed, theirs.packed, (count + 1) / 2), 0);
        if (theirs.scales)
            ck_assert_int_eq(memcmp(ours.scales, theirs.scales, 4 * theirs.blocks), 0);
        fl_assert_ok(fl_nf4_finish(&ours, &error), &error);
        if (theirs.codes) {
            ck_assert_uint_eq(fl_nf4_bytes(&ours), fl_nf4_bytes(&theirs));
            ck_assert(memcmp(&ours.offset, &theirs.offset, sizeof ours.offset) == 0);
            ck_assert_int_eq(memcmp(ours.codes, theirs.codes, theirs.blocks), 0);
            ck_assert_int_eq(memcmp(ours.nested_map, theirs.nested_map, sizeof ours.nested_map), 0);
            ck_assert_int_eq(
                memcmp(ours.nested_scales, theirs.nested_scales, 4 * ((theirs.blocks + 255) / 256)),
                0);
        }
        fl_nf4_free(&ours);
    }
    fl_safetensors_close(&file);
}
END_TEST

START_TEST(double_quantisation_takes_four_bits_and_an_eighth)
{
    struct fl_nf4 matrix;
    float row[1024];
    for (int i = 0; i < 1024; i++)
        row[i] = (float)(i % 17 - 8);
    fl_assert_ok(fl_nf4_begin(&matrix, 64, 1024, FL_DTYPE_Q8_0, &error), &error);
    ck_assert_int_eq(matrix.rounding, FL_DTYPE_F32);
    for (uint64_t i = 0; i < 64; i++)
        fl_assert_ok(fl_nf4_put(&matrix, 1024 * i, row, 1024, &error), &error);
    fl_assert_ok(fl_nf4_finish(&matrix, &error), &error);
    ck_assert_uint_eq(fl_nf4_bytes(&matrix), 64 * 1024 / 2 + 1024 + 4 * 4);
    fl_nf4_free(&matrix);
    fl_nf4_free(&matrix); /* twice is fine */
}
END_TEST

START_TEST(what_is_not_finite_is_refused)
{
    static const float BAD[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        struct fl_nf4 matrix;
        float values[64] = {0};
        values[37] = BAD[i];
        fl_assert_ok(fl_nf4_begin(&matrix, 1, 64, FL_DTYPE_F32, &error), &error);
        ck_assert_int_eq(fl_nf4_put(&matrix, 0, values, 64, &error), FL_EFORMAT);
        fl_nf4_free(&matrix);
    }
}
END_TEST

/* ---- broken files ---- */

/* A file of one matrix (2, 64): packed, absmax and state as given. */
static enum fl_status open_broken(const char *state, const char *packed, const char *absmax,
                                  const char *more, const char *name)
{
    char header[2048];
    struct fl_buf bytes;
    struct fl_safetensors *file;
    struct fl_nf4 matrix;
    static const uint8_t zeros[4096];
    int length = snprintf(header, sizeof header,
                          "{\"w.quant_state.bitsandbytes__%s\":{\"dtype\":\"U8\",\"shape\":[%zu],"
                          "\"data_offsets\":[0,%zu]},%s%s%s}",
                          name, strlen(state), strlen(state), packed, absmax, more);
    ck_assert(length > 0 && length < (int)sizeof header);
    fl_buf_init(&bytes, 1 << 16);
    fl_buf_u64(&bytes, (uint64_t)length);
    fl_buf_append(&bytes, header, (size_t)length);
    fl_buf_append(&bytes, state, strlen(state));
    fl_buf_append(&bytes, zeros, 64 + 8 + (more[0] ? 8 : 0));
    ck_assert_int_eq(fl_buf_status(&bytes), FL_OK);
    fl_assert_ok(fl_safetensors_open_memory(bytes.data, bytes.length, "test", &file, &error),
                 &error);
    error.text[0] = '\0';
    enum fl_status status = fl_nf4_find(file, "w", &matrix, &error);
    ck_assert(status == FL_OK || matrix.packed == NULL);
    fl_safetensors_close(&file);
    fl_buf_free(&bytes);
    return status;
}

#define STATE(type, block, dtype, shape)                                                           \
    "{\"quant_type\":\"" type "\",\"blocksize\":" block ",\"dtype\":\"" dtype                      \
    "\",\"shape\":" shape "}"
#define GOOD STATE("nf4", "64", "bfloat16", "[2, 64]")

static void refused(const char *state, const char *expected)
{
    char packed[128], absmax[128];
    const size_t at = strlen(state);
    (void)snprintf(packed, sizeof packed,
                   "\"w\":{\"dtype\":\"U8\",\"shape\":[64,1],\"data_offsets\":[%zu,%zu]},", at,
                   at + 64);
    (void)snprintf(absmax, sizeof absmax,
                   "\"w.absmax\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[%zu,%zu]}",
                   at + 64, at + 72);
    enum fl_status status = open_broken(state, packed, absmax, "", "nf4");
    if (!expected) {
        fl_assert_ok(status, &error);
        return;
    }
    ck_assert_int_eq(status, FL_EFORMAT);
    ck_assert_msg(strstr(error.text, expected) != NULL, "'%s' does not say '%s'", error.text,
                  expected);
}

START_TEST(a_state_that_makes_no_sense_is_refused)
{
    refused(GOOD, NULL);
    refused(STATE("fp4", "64", "float32", "[2,64]"), "quant_type is another");
    refused(STATE("nf4", "48", "float32", "[2,64]"), "blocksize");
    refused(STATE("nf4", "0", "float32", "[2,64]"), "blocksize");
    refused(STATE("nf4", "8192", "float32", "[2,64]"), "blocksize");
    refused(STATE("nf4", "64", "float64", "[2,64]"), "dtype");
    refused(STATE("nf4", "64", "float32", "[128]"), "shape");
    refused(STATE("nf4", "64", "float32", "[2,-64]"), "shape");
    refused(STATE("nf4", "64", "float32", "[2,99999999999]"), "shape");
    refused(STATE("nf4", "64", "float32", "[4,64]"), "bytes do not fit");
    refused(STATE("nf4", "32", "float32", "[2,64]"), "absmax does not fit");
    refused("{}", "quant_type");
    refused("[1]", "quant_type");
    refused("{", "w");
}
END_TEST

START_TEST(missing_and_foreign_members_are_refused)
{
    struct fl_safetensors *file = open_file();
    struct fl_nf4 matrix;
    ck_assert_int_eq(fl_nf4_find(file, "nested.source", &matrix, &error), FL_ENOTFOUND);
    ck_assert_int_eq(fl_nf4_find(file, "none", &matrix, &error), FL_ENOTFOUND);
    fl_safetensors_close(&file);
    char packed[128], nested[256];
    const size_t at = strlen(GOOD);
    (void)snprintf(packed, sizeof packed,
                   "\"w\":{\"dtype\":\"U8\",\"shape\":[64,1],\"data_offsets\":[%zu,%zu]},", at,
                   at + 64);
    (void)snprintf(nested, sizeof nested,
                   "\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[%zu,%zu]}", at + 64,
                   at + 72);
    ck_assert_int_eq(open_broken(GOOD, packed, nested, "", "nf4"), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "absmax is missing"));
    ck_assert_int_eq(open_broken(GOOD, packed, nested, "", "fp4"), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "FP4"));
    (void)snprintf(nested, sizeof nested,
                   "\"w.absmax\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[%zu,%zu]},"
                   "\"w.quant_map\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[%zu,%zu]}",
                   at + 64, at + 72, at + 72, at + 80);
    ck_assert_int_eq(open_broken(GOOD, packed, nested, " ", "nf4"), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "quant_map is not of 16"));
    (void)snprintf(nested, sizeof nested,
                   "\"w.absmax\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[%zu,%zu]},"
                   "\"w.nested_absmax\":{\"dtype\":\"F32\",\"shape\":[2],"
                   "\"data_offsets\":[%zu,%zu]}",
                   at + 64, at + 72, at + 72, at + 80);
    ck_assert_int_eq(open_broken(GOOD, packed, nested, " ", "nf4"), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "nested_blocksize"));
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, a_matrix_widens_to_the_bits_of_bitsandbytes, 0,
                        NAME_COUNT * KERNEL_COUNT);
    tcase_add_loop_test(tc, a_matrix_is_made_byte_for_byte_as_bitsandbytes_makes_it, 0, NAME_COUNT);
    tcase_add_test(tc, double_quantisation_takes_four_bits_and_an_eighth);
    tcase_add_test(tc, what_is_not_finite_is_refused);
    tcase_add_test(tc, a_state_that_makes_no_sense_is_refused);
    tcase_add_test(tc, missing_and_foreign_members_are_refused);
}

FL_TEST_MAIN("format_nf4", add_tests)

/*
 * Goal: blocks of every GGUF type widen to the very floats that the gguf package gives.
 * Method: blocks frozen with their values (tests/golden/make_blocks.py), bit for bit, in one call,
 * row by row and block by block, under each set of kernels (a process each).
 */
#include "format/dtype.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "format/gguf.h"
#include "runner.h"

static const char *const TYPES[] = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"};
static const char *const KERNELS[] = {"scalar", "avx2", "auto"};
enum { TYPE_COUNT = 8, KERNEL_COUNT = 3, VALUES_MAX = 6 * 512 };

static struct fl_gguf *open_blocks(void)
{
    struct fl_gguf *file;
    struct fl_error error = {0};
    fl_assert_ok(fl_gguf_open(FL_TEST_SOURCE_DIR "/golden/blocks/blocks.gguf", &file, &error),
                 &error);
    return file;
}

/* Widen view in pieces of `piece` values, from an odd address too, and compare. */
static int same_in_pieces(const struct fl_tensor_view *view, const uint8_t *data, size_t piece,
                          const uint8_t *expected)
{
    static float out[VALUES_MAX];
    size_t count = (size_t)(view->shape[0] * view->shape[1]);
    size_t step = fl_dtype_row_bytes(view->dtype, piece);
    for (size_t at = 0; at < count; at += piece, data += step)
        fl_dtype_widen(view->dtype, data, piece, out + at);
    return memcmp(out, expected, count * sizeof *out) == 0;
}

/* 0, or the number of the comparison that failed. */
static int compare(const struct fl_tensor_view *view, const struct fl_tensor_view *floats)
{
    static uint8_t odd[VALUES_MAX * 2];
    size_t columns = (size_t)view->shape[1], count = (size_t)view->shape[0] * columns;
    memcpy(odd + 1, view->data, view->bytes);
    if (!same_in_pieces(view, view->data, count, floats->data))
        return 1;
    if (!same_in_pieces(view, view->data, columns, floats->data))
        return 2;
    if (!same_in_pieces(view, odd + 1, fl_dtype_block_values(view->dtype), floats->data))
        return 3;
    return 0;
}

START_TEST(blocks_widen_to_the_bits_of_the_gguf_package)
{
    const char *type = TYPES[_i / KERNEL_COUNT], *kernels = KERNELS[_i % KERNEL_COUNT];
    char name[16];
    int code;
    struct fl_gguf *file = open_blocks();
    const struct fl_tensor_view *view = fl_gguf_find(file, type);
    (void)snprintf(name, sizeof name, "%s.f32", type);
    const struct fl_tensor_view *floats = fl_gguf_find(file, name);
    ck_assert(view != NULL && floats != NULL);
    ck_assert_str_eq(fl_dtype_name(view->dtype), type);
    ck_assert_uint_eq(view->bytes, view->shape[0] * fl_dtype_row_bytes(view->dtype, 512));
    ck_assert_uint_eq(floats->bytes, VALUES_MAX * sizeof(float));
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        setenv("FL_KERNELS", kernels, 1);
        _exit(compare(view, floats));
    }
    ck_assert_int_eq(waitpid(child, &code, 0), child);
    ck_assert_msg(code == 0, "%s with FL_KERNELS=%s: %x", type, kernels, code);
    fl_gguf_close(&file);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, blocks_widen_to_the_bits_of_the_gguf_package, 0,
                        TYPE_COUNT * KERNEL_COUNT);
}

FL_TEST_MAIN("format_dtype_blocks", add_tests)

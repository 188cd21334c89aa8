/* A GGUF adapter computes the change of weights that the PEFT adapter does. */
#include "runner.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "adapter/adapter.h"
#include "base/alloc.h"
#include "base/fs.h"
#include "format/gguf.h"
#include "worker/engine/export.h"
#include "worker/engine/gguf_names.h"

#define CASES FL_TEST_SOURCE_DIR "/golden/cases/"

static struct fl_error error;
static char out[FL_PATH_BYTES];
static struct fl_model *model;
static struct fl_adapter *adapter;
static bool interleaved; /* the file stores the rows of q and k so */

static void open_case(const char *name)
{
    char path[FL_PATH_BYTES];
    fl_test_directory(path);
    fl_assert_ok(fl_path_join(out, path, "adapter.gguf", &error), &error);
    (void)snprintf(path, sizeof path, CASES "%s", name);
    fl_assert_ok(fl_model_open(path, &model, &error), &error);
    (void)snprintf(path, sizeof path, CASES "%s/init", name);
    fl_assert_ok(fl_adapter_load(path, fl_model_inventory(model), &adapter, &error), &error);
}

static void close_case(void)
{
    fl_adapter_destroy(&adapter);
    fl_model_close(&model);
}

static float *factor(const struct fl_gguf *file, const struct fl_lora_module *m, const char *end,
                     uint64_t rows, uint64_t columns)
{
    char stored[128], name[160];
    const struct fl_arch *arch = fl_arch_find(fl_model_config(model)->architecture, NULL);
    ck_assert(fl_gguf_tensor_name(arch, m->module.name, stored, sizeof stored));
    (void)snprintf(name, sizeof name, "%s.weight%s", stored, end);
    const struct fl_tensor_view *view = fl_gguf_find(file, name);
    ck_assert_msg(view && view->rank == 2 && view->shape[0] == rows && view->shape[1] == columns,
                  "%s", name);
    float *values = fl_calloc((size_t)(rows * columns), sizeof *values);
    ck_assert_ptr_nonnull(values);
    fl_dtype_widen(view->dtype, view->data, (size_t)(rows * columns), values);
    return values;
}

/* Where row `row` of a q or k of Hugging Face lies in GGUF: written down here once more. */
static size_t stored_row(size_t row, size_t d)
{
    const size_t in_head = row % d;
    return row - in_head + (in_head < d / 2 ? 2 * in_head : 2 * (in_head - d / 2) + 1);
}

static void module_is_right(const struct fl_gguf *file, uint32_t index, double alpha,
                            double tolerance)
{
    const struct fl_lora_module *m = &adapter->modules[index];
    const size_t r = m->rank, in = m->module.in, rows = m->module.out;
    const bool rotated = interleaved &&
                         (strstr(m->module.name, "q_proj") || strstr(m->module.name, "k_proj"));
    float *a = factor(file, m, ".lora_a", r, in), *b = factor(file, m, ".lora_b", rows, r);
    for (size_t row = 0; row < rows; row++) {
        const size_t there = rotated ? stored_row(row, fl_model_config(model)->head_dim) : row;
        for (size_t c = 0; c < in; c++) {
            double want = 0.0, got = 0.0;
            for (size_t k = 0; k < r; k++) {
                want += (double)m->b[row * r + k] * (double)m->a[k * in + c];
                got += (double)b[there * r + k] * (double)a[k * in + c];
            }
            want *= fl_adapter_scale(adapter, index);
            got *= alpha / (double)r;
            ck_assert_msg(fabs(got - want) <= tolerance, "%s row %zu column %zu: %g, not %g",
                          m->module.name, row, c, got, want);
        }
    }
    fl_free(a);
    fl_free(b);
}

static double alpha_of(const struct fl_gguf *file)
{
    double alpha = 0.0;
    ck_assert_int_eq(fl_gguf_f64(file, "adapter.lora.alpha", &alpha), FL_OK);
    return alpha;
}

static void exports_as(const char *name, const char *architecture, enum fl_dtype dtype,
                       double tolerance)
{
    struct fl_gguf *file = NULL;
    struct fl_gguf_string text;
    open_case(name);
    interleaved = strcmp(architecture, "llama") == 0;
    fl_assert_ok(fl_export_gguf(model, adapter, dtype, out, &error), &error);
    fl_assert_ok(fl_gguf_open(out, &file, &error), &error);
    ck_assert_int_eq(fl_gguf_string(file, "general.type", &text), FL_OK);
    ck_assert(text.length == 7 && memcmp(text.data, "adapter", 7) == 0);
    ck_assert_int_eq(fl_gguf_string(file, "adapter.type", &text), FL_OK);
    ck_assert(text.length == 4 && memcmp(text.data, "lora", 4) == 0);
    ck_assert_int_eq(fl_gguf_string(file, "general.architecture", &text), FL_OK);
    ck_assert(text.length == strlen(architecture) &&
              memcmp(text.data, architecture, text.length) == 0);
    ck_assert_uint_eq(fl_gguf_tensor_count(file), 2 * adapter->count);
    for (uint32_t i = 0; i < adapter->count; i++)
        module_is_right(file, i, alpha_of(file), tolerance);
    fl_gguf_close(&file);
    close_case();
}

static void exports(const char *name, enum fl_dtype dtype, double tolerance)
{
    exports_as(name, "llama", dtype, tolerance);
}

START_TEST(the_change_of_weights_is_the_same)
{
    exports("gqa-tied", FL_DTYPE_F32, 1e-6);
    exports("mistral-f16", FL_DTYPE_F32, 1e-6);
    exports("gqa-tied", FL_DTYPE_F16, 2e-3);
    exports("gqa-tied", FL_DTYPE_BF16, 2e-2);
}
END_TEST

START_TEST(every_family_has_its_names)
{
    static const struct {
        const char *name, *architecture;
        const char *tensor; /* that one of its linears must be called: written down once more */
    } FAMILIES[] = {{"mistral-window", "llama", "blk.1.attn_q.weight.lora_a"},
                    {"qwen2", "qwen2", "blk.1.ffn_gate.weight.lora_a"},
                    {"qwen3", "qwen3", "blk.1.attn_k.weight.lora_b"},
                    {"phi3", "phi3", "blk.1.attn_qkv.weight.lora_b"},
                    {"phi3", "phi3", "blk.0.ffn_up.weight.lora_a"},
                    {"gpt2", "gpt2", "blk.1.attn_qkv.weight.lora_a"},
                    {"gpt2", "gpt2", "blk.0.ffn_down.weight.lora_b"},
                    {"gpt2-bare", "gpt2", "blk.0.attn_qkv.weight.lora_a"},
                    {"gemma2", "gemma2", "blk.2.attn_k.weight.lora_a"},
                    {"gemma3", "gemma3", "blk.3.attn_output.weight.lora_b"}};
    for (size_t i = 0; i < sizeof FAMILIES / sizeof *FAMILIES; i++) {
        struct fl_gguf *file = NULL;
        exports_as(FAMILIES[i].name, FAMILIES[i].architecture, FL_DTYPE_F32, 1e-6);
        fl_assert_ok(fl_gguf_open(out, &file, &error), &error);
        ck_assert_ptr_nonnull(fl_gguf_find(file, FAMILIES[i].tensor));
        fl_gguf_close(&file);
    }
}
END_TEST

START_TEST(ranks_and_alphas_of_their_own_are_folded_in)
{
    exports("untied-headdim", FL_DTYPE_F32, 1e-6);
}
END_TEST

START_TEST(a_rank_stabilised_scale_becomes_an_alpha)
{
    struct fl_gguf *file = NULL;
    exports("llama3-rope", FL_DTYPE_F32, 1e-6);
    fl_assert_ok(fl_gguf_open(out, &file, &error), &error);
    ck_assert_double_eq_tol(alpha_of(file), 8.0 * sqrt(4.0), 1e-6); /* alpha sqrt(r) */
    fl_gguf_close(&file);
}
END_TEST

START_TEST(a_value_beyond_the_type_leaves_no_file)
{
    open_case("gqa-tied");
    adapter->modules[1].b[0] = 1e6f;
    ck_assert_int_eq(fl_export_gguf(model, adapter, FL_DTYPE_F16, out, &error), FL_ERANGE);
    ck_assert(!fl_path_exists(out));
    close_case();
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, the_change_of_weights_is_the_same);
    tcase_add_test(tc, every_family_has_its_names);
    tcase_add_test(tc, ranks_and_alphas_of_their_own_are_folded_in);
    tcase_add_test(tc, a_rank_stabilised_scale_becomes_an_alpha);
    tcase_add_test(tc, a_value_beyond_the_type_leaves_no_file);
}

FL_TEST_MAIN("export", add_tests)

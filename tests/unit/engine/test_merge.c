/* A merged model computes what base and adapter compute, in either format. */
#include "runner.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "adapter/adapter.h"
#include "base/alloc.h"
#include "base/fs.h"
#include "worker/engine/describe.h"
#include "worker/engine/engine.h"
#include "worker/engine/merge.h"

#define GOLDEN FL_TEST_SOURCE_DIR "/golden/"

enum { TOKENS_MAX = 24 };

static struct fl_error error;
static char directory[FL_PATH_BYTES];
static struct fl_model *model;
static struct fl_adapter *adapter;
static uint32_t vocab, tokens; /* tokens: of the rows compared */

static void path_in(char *out, const char *name)
{
    fl_assert_ok(fl_path_join(out, directory, name, &error), &error);
}

static void open_case(const char *path, const char *adapter_path)
{
    fl_test_directory(directory);
    fl_assert_ok(fl_model_open(path, &model, &error), &error);
    const struct fl_model_config *c = fl_model_config(model);
    vocab = c->vocab;
    tokens = c->max_positions && c->max_positions < TOKENS_MAX ? c->max_positions : TOKENS_MAX;
    if (adapter_path)
        fl_assert_ok(fl_adapter_load(adapter_path, fl_model_inventory(model), &adapter, &error),
                     &error);
}

static void close_case(void)
{
    fl_adapter_destroy(&adapter);
    fl_model_close(&model);
}

/* (tokens, vocab); the caller frees it. */
static float *logits_of(const struct fl_model *of, const struct fl_adapter *with)
{
    const struct fl_engine_options options = {.threads = 1, .max_row_tokens = tokens};
    struct fl_engine *engine = NULL;
    int32_t ids[TOKENS_MAX];
    float *logits = fl_calloc((size_t)tokens * vocab, sizeof *logits);
    ck_assert_ptr_nonnull(logits);
    for (uint32_t i = 0; i < tokens; i++)
        ids[i] = (int32_t)((i * 37 + 5) % vocab);
    fl_assert_ok(fl_engine_create(of, with, &options, &engine, &error), &error);
    fl_assert_ok(fl_engine_forward_logits(engine, ids, tokens, logits, &error), &error);
    fl_engine_destroy(&engine);
    return logits;
}

/* Largest difference in units of the largest logit. */
static void same_logits(const char *path, double tolerance)
{
    struct fl_model *merged = NULL;
    double worst = 0.0, largest = 0.0;
    fl_assert_ok(fl_model_open(path, &merged, &error), &error);
    ck_assert_uint_eq(fl_model_config(merged)->vocab, vocab);
    ck_assert_int_eq(fl_model_config(merged)->tied, fl_model_config(model)->tied);
    ck_assert_uint_eq(fl_model_parameters(merged), fl_model_parameters(model));
    float *want = logits_of(model, adapter), *got = logits_of(merged, NULL);
    for (size_t i = 0; i < (size_t)tokens * vocab; i++) {
        worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
        largest = fmax(largest, fabs((double)want[i]));
    }
    ck_assert_msg(worst <= tolerance * largest, "%s: %g of %g", path, worst, largest);
    fl_free(want);
    fl_free(got);
    fl_model_close(&merged);
}

static void write_config(const struct fl_merge *merge)
{
    char path[FL_PATH_BYTES];
    json_t *config = NULL;
    fl_assert_ok(fl_describe_hf(model, fl_merge_dtype(merge), &config, &error), &error);
    char *text = json_dumps(config, JSON_INDENT(2));
    ck_assert_ptr_nonnull(text);
    path_in(path, "config.json");
    fl_assert_ok(fl_fs_write(path, text, strlen(text), 0644, &error), &error);
    fl_free(text);
    json_decref(config);
}

/* Each described from the model alone. */
static void merges_to_directory(enum fl_dtype dtype, double tolerance)
{
    const struct fl_merge merge = {.model = model, .adapter = adapter, .dtype = dtype};
    char path[FL_PATH_BYTES];
    write_config(&merge);
    path_in(path, "model.safetensors");
    fl_assert_ok(fl_merge_safetensors(&merge, path, &error), &error);
    same_logits(directory, tolerance);
}

static void merges_to_gguf(enum fl_dtype dtype, double tolerance)
{
    const struct fl_merge merge = {.model = model, .adapter = adapter, .dtype = dtype};
    char path[FL_PATH_BYTES];
    struct fl_gguf_writer writer;
    path_in(path, "model.gguf");
    fl_gguf_writer_init(&writer);
    fl_assert_ok(fl_describe_gguf(model, fl_merge_dtype(&merge), "merged", &writer, &error),
                 &error);
    fl_assert_ok(fl_merge_gguf(&merge, &writer, path, &error), &error);
    fl_gguf_writer_free(&writer);
    same_logits(path, tolerance);
}

/* A case, the type of its weights, and whether GGUF can say what it is. */
static const struct {
    const char *name;
    enum fl_dtype own;
    bool no_gguf;
} cases[] = {{"gqa-tied", FL_DTYPE_F32, false},
             {"untied-headdim", FL_DTYPE_F32, false},
             {"llama3-rope", FL_DTYPE_F32, false},
             {"sharded-bf16", FL_DTYPE_BF16, false},
             {"mistral-f16", FL_DTYPE_F16, false},
             {"mistral-window", FL_DTYPE_F32, false},
             {"qwen2", FL_DTYPE_F32, false},
             {"qwen2-window", FL_DTYPE_F32, true},
             {"qwen2-yarn", FL_DTYPE_F32, true},
             {"qwen3", FL_DTYPE_F32, false},
             {"phi3", FL_DTYPE_F32, false},
             {"gpt2", FL_DTYPE_F32, false},
             {"gpt2-bare", FL_DTYPE_F16, false},
             {"qwen2/model.gguf", FL_DTYPE_F32, false},
             {"qwen3/model.gguf", FL_DTYPE_F32, false},
             {"phi3/model.gguf", FL_DTYPE_F32, false},
             {"gpt2/model.gguf", FL_DTYPE_F32, false},
             {"gemma2", FL_DTYPE_F32, true},
             {"gemma3", FL_DTYPE_F32, true},
             {"gemma3-old", FL_DTYPE_BF16, true},
             {"dora", FL_DTYPE_F32, false},
             {"dora-gpt2", FL_DTYPE_F32, false},
             {"dora-phi3", FL_DTYPE_BF16, false}};
enum { CASES = sizeof cases / sizeof *cases, LLAMA3 = 2 };

static void open_golden(int index)
{
    char path[FL_PATH_BYTES], init[FL_PATH_BYTES];
    const char *name = cases[index].name;
    (void)snprintf(path, sizeof path, GOLDEN "cases/%s", name);
    (void)snprintf(init, sizeof init, GOLDEN "cases/%.*s/init", (int)strcspn(name, "/"), name);
    open_case(path, init);
}

static void gguf_is_refused(void)
{
    struct fl_gguf_writer writer;
    fl_gguf_writer_init(&writer);
    ck_assert_int_eq(fl_describe_gguf(model, FL_DTYPE_F32, "merged", &writer, &error), FL_EUSAGE);
    ck_assert_ptr_nonnull(strstr(error.text, "directory instead"));
    fl_gguf_writer_free(&writer);
}

/* Each file form from each file form. */
static void merges(int index, enum fl_dtype dtype, double tolerance)
{
    merges_to_directory(dtype, tolerance);
    if (cases[index].no_gguf)
        gguf_is_refused();
    else
        merges_to_gguf(dtype, tolerance);
}

START_TEST(merged_in_float32_is_the_same_but_for_rounding)
{
    open_golden(_i);
    merges(_i, FL_DTYPE_F32, 1e-5);
    close_case();
}
END_TEST

START_TEST(merged_in_half_precision_is_near)
{
    open_golden(_i);
    merges(_i, FL_DTYPE_F16, 1e-2);
    merges(_i, FL_DTYPE_BF16, 1e-1);
    close_case();
}
END_TEST

START_TEST(the_bases_own_type_is_kept)
{
    const enum fl_dtype own = cases[_i].own;
    open_golden(_i);
    const struct fl_merge merge = {.model = model, .adapter = adapter, .dtype = FL_DTYPE_OTHER};
    ck_assert_int_eq(fl_merge_dtype(&merge), own);
    merges(_i, FL_DTYPE_OTHER, own == FL_DTYPE_F32 ? 1e-5 : own == FL_DTYPE_F16 ? 1e-2 : 1e-1);
    close_case();
}
END_TEST

/* A quantised base: what it stands for is widened, and kept as F16. */
START_TEST(a_quantised_base_becomes_half_precision)
{
    struct fl_inventory targets = {0};
    open_case(GOLDEN "tiny-gguf/mixed.gguf", NULL);
    fl_assert_ok(fl_inventory_select(fl_model_inventory(model), "all-linear", &targets, &error),
                 &error);
    ck_assert_int_eq(fl_adapter_create(&targets, 4, 8.0, NULL, &adapter, &error), FL_OK);
    fl_adapter_init(adapter, 3);
    for (uint32_t i = 0; i < adapter->count; i++)
        for (size_t k = 0; k < (size_t)adapter->modules[i].module.out * 4; k++)
            adapter->modules[i].b[k] = (float)((int)(k * 7 % 11) - 5) * 0.02f;
    merges_to_gguf(FL_DTYPE_F32, 1e-5);
    const struct fl_merge merge = {.model = model, .adapter = adapter, .dtype = FL_DTYPE_OTHER};
    ck_assert_int_eq(fl_merge_dtype(&merge), FL_DTYPE_F16);
    merges_to_gguf(FL_DTYPE_OTHER, 1e-2);
    json_t *config = NULL; /* its rope_freqs follow no rule */
    ck_assert_int_eq(fl_describe_hf(model, FL_DTYPE_F16, &config, &error), FL_EUSAGE);
    ck_assert_ptr_null(config);
    fl_inventory_free(&targets);
    close_case();
}
END_TEST

/* Directory to GGUF to directory: llama3's scaling goes through its divisors and comes back. */
START_TEST(a_scaled_rotation_survives_both_ways)
{
    char path[FL_PATH_BYTES];
    json_t *config = NULL;
    struct fl_model *file = NULL;
    open_golden(LLAMA3);
    merges_to_gguf(FL_DTYPE_F32, 1e-5);
    path_in(path, "model.gguf");
    fl_assert_ok(fl_model_open(path, &file, &error), &error);
    fl_assert_ok(fl_describe_hf(file, FL_DTYPE_F32, &config, &error), &error);
    const json_t *scaling = json_object_get(config, "rope_scaling");
    ck_assert_str_eq(json_string_value(json_object_get(scaling, "rope_type")), "llama3");
    ck_assert_double_eq(json_number_value(json_object_get(scaling, "factor")), 4.0);
    ck_assert_int_eq(
        json_integer_value(json_object_get(scaling, "original_max_position_embeddings")), 16);
    json_decref(config);
    fl_model_close(&file);
    close_case();
}
END_TEST

START_TEST(a_gguf_base_becomes_a_directory)
{
    open_case(GOLDEN "tiny-gguf/f32.gguf", NULL);
    merges_to_directory(FL_DTYPE_OTHER, 1e-5);
    close_case();
}
END_TEST

/* A golden Gemma whose scores are divided as GGUF files imply, in a directory of its own. */
static void open_usual_gemma(const char *name)
{
    static const char *const FILES[] = {"config.json", "model.safetensors"};
    char from[FL_PATH_BYTES], to[FL_PATH_BYTES], folder[FL_PATH_BYTES];
    json_t *config = NULL;
    fl_test_directory(folder);
    for (size_t i = 0; i < 2; i++) {
        struct fl_buf bytes;
        (void)snprintf(from, sizeof from, GOLDEN "cases/%s/%s", name, FILES[i]);
        fl_assert_ok(fl_path_join(to, folder, FILES[i], &error), &error);
        fl_assert_ok(fl_fs_read(from, 1 << 24, &bytes, &error), &error);
        fl_assert_ok(fl_fs_write(to, bytes.data, bytes.length, 0644, &error), &error);
        fl_buf_free(&bytes);
    }
    fl_assert_ok(fl_path_join(to, folder, "config.json", &error), &error);
    fl_assert_ok(fl_json_load(to, 1 << 20, &config, &error), &error);
    json_t *head_dim = json_object_get(config, "head_dim");
    ck_assert_int_eq(json_object_set(config, "query_pre_attn_scalar", head_dim), 0);
    char *text = json_dumps(config, 0);
    ck_assert_ptr_nonnull(text);
    fl_assert_ok(fl_fs_write(to, text, strlen(text), 0644, &error), &error);
    fl_free(text);
    json_decref(config);
    (void)snprintf(from, sizeof from, GOLDEN "cases/%s/init", name);
    open_case(folder, from);
}

/* Directory to GGUF, where norms are whole, to directory, where they are what is beyond one. */
START_TEST(a_gemma_goes_both_ways)
{
    static const char *const NAMES[] = {"gemma2", "gemma3-old"};
    char path[FL_PATH_BYTES];
    open_usual_gemma(NAMES[_i]);
    merges_to_gguf(FL_DTYPE_F32, 1e-5);
    path_in(path, "model.gguf");
    close_case();
    open_case(path, NULL);
    merges_to_directory(FL_DTYPE_F32, 1e-5);
    merges_to_gguf(FL_DTYPE_F32, 1e-5);
    close_case();
}
END_TEST

START_TEST(a_gemma_file_with_other_windows_is_refused)
{
    for (uint32_t period = 2; period <= 3; period++) {
        char path[FL_PATH_BYTES];
        struct fl_gguf_writer writer;
        struct fl_model *opened = NULL;
        open_usual_gemma("gemma2");
        const struct fl_merge merge = {.model = model, .dtype = FL_DTYPE_F32};
        path_in(path, "model.gguf");
        fl_gguf_writer_init(&writer);
        fl_gguf_put_u32(&writer, "gemma2.attention.sliding_window_pattern", period);
        fl_assert_ok(fl_describe_gguf(model, FL_DTYPE_F32, "x", &writer, &error), &error);
        fl_assert_ok(fl_merge_gguf(&merge, &writer, path, &error), &error);
        fl_gguf_writer_free(&writer);
        const enum fl_status status = fl_model_open(path, &opened, &error);
        ck_assert_int_eq(status, period == 2 ? FL_OK : FL_EFORMAT);
        if (status)
            ck_assert_ptr_nonnull(strstr(error.text, "sliding_window_pattern = 3"));
        fl_model_close(&opened);
        close_case();
    }
}
END_TEST

START_TEST(a_value_beyond_the_type_and_a_stop_leave_no_file)
{
    char path[FL_PATH_BYTES];
    const atomic_int stop = 1;
    open_golden(0);
    struct fl_merge merge = {.model = model, .adapter = adapter, .dtype = FL_DTYPE_F32};
    path_in(path, "model.safetensors");
    merge.stop = &stop;
    ck_assert_int_eq(fl_merge_safetensors(&merge, path, &error), FL_ESTOPPED);
    ck_assert(!fl_path_exists(path));
    merge.stop = NULL;
    merge.dtype = FL_DTYPE_F16;
    adapter->modules[2].b[0] = 1e9f;
    ck_assert_int_eq(fl_merge_safetensors(&merge, path, &error), FL_ERANGE);
    ck_assert(!fl_path_exists(path));
    ck_assert_ptr_nonnull(strstr(error.text, "v_proj"));
    close_case();
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, merged_in_float32_is_the_same_but_for_rounding, 0, CASES);
    tcase_add_loop_test(tc, merged_in_half_precision_is_near, 0, CASES);
    tcase_add_loop_test(tc, the_bases_own_type_is_kept, 0, CASES);
    tcase_add_test(tc, a_quantised_base_becomes_half_precision);
    tcase_add_test(tc, a_scaled_rotation_survives_both_ways);
    tcase_add_test(tc, a_gguf_base_becomes_a_directory);
    tcase_add_loop_test(tc, a_gemma_goes_both_ways, 0, 2);
    tcase_add_test(tc, a_gemma_file_with_other_windows_is_refused);
    tcase_add_test(tc, a_value_beyond_the_type_and_a_stop_leave_no_file);
}

FL_TEST_MAIN("merge", add_tests)

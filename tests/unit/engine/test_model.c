/* Opening models: both dialects, both file forms, what is refused; engines made and unmade. */
#include "engine/reference.h"
#include "runner.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "format/safetensors.h"
#include "worker/engine/sample.h"

#define GOLDEN FL_TEST_SOURCE_DIR "/golden/"

static struct fl_error error;

static struct fl_model *open_model(const char *path)
{
    struct fl_model *model = NULL;
    fl_assert_ok(fl_model_open(path, &model, &error), &error);
    return model;
}

START_TEST(a_hugging_face_directory_opens_with_its_inventory)
{
    struct fl_model *model = open_model(GOLDEN "cases/untied-headdim");
    const struct fl_model_config *c = fl_model_config(model);
    const struct fl_inventory *inventory = fl_model_inventory(model);
    ck_assert_str_eq(c->architecture, "LlamaForCausalLM");
    ck_assert_uint_eq(c->hidden, 21);
    ck_assert_uint_eq(c->heads * c->head_dim, 24);
    ck_assert(!c->tied);
    ck_assert_uint_eq(inventory->count, 14);
    ck_assert_str_eq(inventory->modules[0].name, "model.layers.0.self_attn.q_proj");
    ck_assert_str_eq(inventory->modules[13].name, "model.layers.1.mlp.down_proj");
    ck_assert_uint_eq(inventory->modules[13].in, 44);
    ck_assert_uint_eq(inventory->modules[13].layer, 1);
    ck_assert_str_eq(fl_model_module_weight(model, 13)->name,
                     "model.layers.1.mlp.down_proj.weight");
    ck_assert_ptr_null(fl_model_module_weight(model, 14));
    ck_assert_uint_eq(fl_model_weight_count(model), 1 + 2 * 9 + 2);
    /* embedding and head, norms, and the linears of two layers */
    ck_assert_uint_eq(fl_model_parameters(model),
                      2 * 83 * 21 + 5 * 21 + 2 * (2 * 24 * 21 + 2 * 8 * 21 + 3 * 44 * 21));
    fl_model_close(&model);
}
END_TEST

START_TEST(the_older_dialect_and_half_precision_open_too)
{
    struct fl_model *model = open_model(GOLDEN "cases/mistral-f16");
    ck_assert_str_eq(fl_model_config(model)->architecture, "MistralForCausalLM");
    ck_assert_double_eq(model->rope.theta, 1000.0);
    ck_assert_uint_eq(fl_model_config(model)->head_dim, 6);
    ck_assert_uint_eq(fl_model_config(model)->sliding_window, 0);
    ck_assert_int_eq(fl_model_weight(model, 0)->dtype, FL_DTYPE_F16);
    fl_model_close(&model);
    model = open_model(GOLDEN "cases/llama3-rope");
    ck_assert_int_eq(model->rope.kind, FL_ROPE_LLAMA3);
    ck_assert_double_eq(model->rope.factor, 4.0);
    fl_model_close(&model);
}
END_TEST

/* The same model as a directory and as a GGUF file. */
static const struct {
    const char *directory, *file;
} pairs[] = {
    {GOLDEN "tiny-llama", GOLDEN "tiny-gguf/f32.gguf"},
    {GOLDEN "cases/qwen2", GOLDEN "cases/qwen2/model.gguf"},
    {GOLDEN "cases/qwen3", GOLDEN "cases/qwen3/model.gguf"},
    {GOLDEN "cases/gpt2", GOLDEN "cases/gpt2/model.gguf"},
    {GOLDEN "cases/phi3", GOLDEN "cases/phi3/model.gguf"},
};

START_TEST(a_gguf_file_is_the_same_model_as_its_directory)
{
    struct fl_model *directory = open_model(pairs[_i].directory);
    struct fl_model *file = open_model(pairs[_i].file);
    const struct fl_model_config *left = fl_model_config(directory);
    const struct fl_model_config *right = fl_model_config(file);
    ck_assert_str_eq(left->architecture, right->architecture);
    ck_assert_uint_eq(left->max_positions, right->max_positions);
    ck_assert_uint_eq(left->sliding_window, right->sliding_window);
    ck_assert_double_eq_tol(left->norm_epsilon, right->norm_epsilon, 1e-9);
    ck_assert_int_eq(directory->rope.kind, file->rope.kind);
    const uint32_t count = fl_model_weight_count(directory);
    ck_assert_uint_eq(fl_model_weight_count(file), count);
    ck_assert_double_eq_tol(directory->rope.theta, file->rope.theta, 1e-3);
    for (uint32_t i = 0; i < count; i++) {
        const struct fl_weight *a = fl_model_weight(directory, i), *b = fl_model_weight(file, i);
        float *x = toy_memory((size_t)a->rows * a->columns, sizeof *x);
        float *y = toy_memory((size_t)a->rows * a->columns, sizeof *y);
        ck_assert_str_eq(a->name, b->name);
        ck_assert_uint_eq(a->rows, b->rows);
        fl_weight_widen(a, 0, a->rows, x);
        fl_weight_widen(b, 0, b->rows, y);
        ck_assert_int_eq(memcmp(x, y, sizeof *x * a->rows * a->columns), 0);
    }
    fl_model_close(&directory);
    fl_model_close(&file);
}
END_TEST

/* Logits of one row of a model file against frozen ones. */
static void engine_runs(const char *path)
{
    struct fl_model *model = open_model(path);
    const struct fl_engine_options options = {.max_row_tokens = 8, .cache_tokens = 8};
    struct fl_engine *engine = NULL;
    const int32_t ids[] = {1, 5, 3, 7};
    float *logits = toy_memory((size_t)4 * fl_model_config(model)->vocab, sizeof *logits);
    fl_assert_ok(fl_engine_create(model, NULL, &options, &engine, &error), &error);
    fl_assert_ok(fl_engine_forward_logits(engine, ids, 4, logits, &error), &error);
    ck_assert(isfinite(logits[0]));
    fl_engine_destroy(&engine);
    fl_model_close(&model);
}

/* Only the blocks' linears, q and k of a GGUF file in Hugging Face's order, and once. */
START_TEST(linears_alone_are_quantised)
{
    struct fl_model *model = open_model(GOLDEN "tiny-gguf/f32.gguf");
    struct fl_model *other = open_model(GOLDEN "tiny-llama");
    fl_assert_ok(fl_model_quantize(model, 3, &error), &error);
    fl_assert_ok(fl_model_quantize(model, 0, &error), &error);
    fl_assert_ok(fl_model_quantize(other, 1, &error), &error);
    ck_assert_uint_eq(fl_model_parameters(model), fl_model_parameters(other));
    ck_assert_int_eq(fl_model_weight(model, 0)->dtype, FL_DTYPE_F32);
    for (uint32_t i = 0; i < fl_model_inventory(model)->count; i++) {
        const struct fl_weight *a = fl_model_module_weight(model, i);
        const struct fl_weight *b = fl_model_module_weight(other, i);
        float *x = toy_memory((size_t)a->rows * a->columns, sizeof *x);
        float *y = toy_memory((size_t)a->rows * a->columns, sizeof *y);
        ck_assert_int_eq(a->dtype, FL_DTYPE_NF4);
        fl_weight_widen(a, 0, a->rows, x);
        fl_weight_widen(b, 0, b->rows, y);
        ck_assert_int_eq(memcmp(x, y, (size_t)a->rows * a->columns * sizeof *x), 0);
        fl_weight_widen(a, 3, 2, y); /* rows from the middle */
        ck_assert_int_eq(memcmp(x + 3 * a->columns, y, 2 * a->columns * sizeof *x), 0);
    }
    fl_model_close(&model);
    fl_model_close(&other);
}
END_TEST

/* Panels ask for pieces of rows: they are the row's, also of linears that are turned or joined. */
START_TEST(parts_of_quantised_rows_are_those_of_the_row)
{
    static const char *const paths[] = {GOLDEN "tiny-llama", GOLDEN "cases/gpt2",
                                        GOLDEN "cases/phi3"};
    struct fl_model *model = open_model(paths[_i]), *plain = open_model(paths[_i]);
    fl_assert_ok(fl_model_quantize(model, 2, &error), &error);
    for (uint32_t i = 0; i < fl_model_inventory(model)->count; i++) {
        const struct fl_weight *w = fl_model_module_weight(model, i);
        const size_t n = w->columns, half = n / 2, count = w->rows * n;
        float *whole = toy_memory(count, sizeof *whole), *row = toy_memory(n, sizeof *row);
        float *before = toy_memory(count, sizeof *before);
        double distance = 0.0, length = 0.0;
        fl_weight_widen(w, 0, w->rows, whole);
        for (uint32_t r = 0; r < w->rows; r++) {
            fl_weight_widen_part(w, r, 0, (uint32_t)half, row);
            fl_weight_widen_part(w, r, (uint32_t)half, (uint32_t)(n - half), row + half);
            ck_assert_int_eq(memcmp(row, whole + r * n, n * sizeof *row), 0);
        }
        fl_weight_widen(fl_model_module_weight(plain, i), 0, w->rows, before);
        for (size_t k = 0; k < count; k++) {
            distance += pow((double)whole[k] - (double)before[k], 2.0);
            length += pow((double)before[k], 2.0);
        }
        ck_assert_double_lt(sqrt(distance / length), 0.12); /* four bits of normal values: 0.09 */
    }
    fl_model_close(&model);
    fl_model_close(&plain);
}
END_TEST

START_TEST(a_directory_in_four_bits_opens)
{
    struct fl_model *model = open_model(GOLDEN "nf4/model");
    ck_assert_int_eq(fl_model_module_weight(model, 0)->dtype, FL_DTYPE_NF4);
    ck_assert_int_eq(fl_model_weight(model, 0)->dtype, FL_DTYPE_F32);
    fl_model_close(&model);
}
END_TEST

/* A new directory with that config.json and these weights; opens it. */
static enum fl_status open_written(const char *config, const struct fl_buf *weights)
{
    char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
    struct fl_model *model = NULL;
    struct fl_buf text;
    fl_test_directory(directory);
    fl_assert_ok(fl_fs_read(config, 1 << 20, &text, &error), &error);
    fl_assert_ok(fl_path_join(path, directory, "config.json", &error), &error);
    fl_assert_ok(fl_fs_write(path, text.data, text.length, 0644, &error), &error);
    fl_assert_ok(fl_path_join(path, directory, "model.safetensors", &error), &error);
    fl_assert_ok(fl_fs_write(path, weights->data, weights->length, 0644, &error), &error);
    enum fl_status status = fl_model_open(directory, &model, &error);
    ck_assert_int_eq(model == NULL, status != FL_OK);
    fl_model_close(&model);
    fl_buf_free(&text);
    return status;
}

/* What nf4/model says of itself, with `from` once replaced by `to`, which is as long. */
static enum fl_status open_nf4(const char *from, const char *to)
{
    struct fl_buf weights;
    const size_t length = strlen(from);
    fl_assert_ok(fl_fs_read(GOLDEN "nf4/model/model.safetensors", 1 << 24, &weights, &error),
                 &error);
    char *at = memmem(weights.data, weights.length, from, length);
    ck_assert_ptr_nonnull(at);
    ck_assert_uint_eq(strlen(to), length);
    memcpy(at, to, length);
    enum fl_status status = open_written(GOLDEN "nf4/model/config.json", &weights);
    fl_buf_free(&weights);
    return status;
}

START_TEST(four_bits_of_another_shape_are_refused)
{
    static const struct {
        const char *from, *to;
    } CHANGES[] = {
        {"[32, 64]", "[64, 32]"}, /* as many values, another matrix */
        {"[32, 64]", "[32, 65]"},
        {"[32, 64]", "[31, 64]"},
        {"[32, 64]", "[0, 641]"},
        {"[32, 64]", "[32,6e3]"},
        {"[32, 64]", "[ 2048 ]"},
        {"[32, 64]", "[4,8,64]"},
        {"[32, 64]", "[-1, 64]"},
        {"\"blocksize\": 64", "\"blocksize\":  0"},
        {"\"blocksize\": 64", "\"blocksize\": 63"},
        {"\"nested_blocksize\": 256", "\"nested_blocksize\":   0"},
    };
    fl_assert_ok(open_nf4("[32, 64]", "[32, 64]"), &error);
    for (size_t i = 0; i < sizeof CHANGES / sizeof *CHANGES; i++) {
        ck_assert_msg(open_nf4(CHANGES[i].from, CHANGES[i].to) == FL_EFORMAT, "%s", CHANGES[i].to);
        ck_assert_msg(strstr(error.text, ".weight") != NULL, "%s: %s", CHANGES[i].to, error.text);
    }
}
END_TEST

/* A linear that lies the other way round: bitsandbytes' bytes do not say which. */
START_TEST(four_bits_of_gpt2_are_refused)
{
    enum { MOST = 64 };
    static const float zero = 0.0f;
    struct fl_safetensors *plain = NULL;
    struct fl_tensor_view views[MOST];
    struct fl_buf out;
    uint32_t count = 0;
    fl_assert_ok(fl_safetensors_open(GOLDEN "cases/gpt2", &plain, &error), &error);
    for (; count < fl_safetensors_count(plain); count++)
        views[count] = *fl_safetensors_at(plain, count);
    views[count++] = (struct fl_tensor_view){
        .name = "transformer.h.0.attn.c_attn.weight.quant_state.bitsandbytes__nf4",
        .dtype = FL_DTYPE_F32,
        .rank = 1,
        .shape = {1},
        .data = (const uint8_t *)&zero,
        .bytes = sizeof zero};
    fl_buf_init(&out, 1 << 20);
    fl_assert_ok(fl_safetensors_write(views, count, &out, &error), &error);
    ck_assert_int_eq(open_written(GOLDEN "cases/gpt2/config.json", &out), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "c_attn"));
    ck_assert_ptr_nonnull(strstr(error.text, "--quantize nf4"));
    fl_buf_free(&out);
    fl_safetensors_close(&plain);
}
END_TEST

START_TEST(engines_run_on_every_golden_model)
{
    engine_runs(GOLDEN "cases/gqa-tied");
    engine_runs(GOLDEN "cases/sharded-bf16");
    engine_runs(GOLDEN "cases/gpt2-bare");
    engine_runs(GOLDEN "tiny-gguf/mixed.gguf");
}
END_TEST

static bool collect_token(void *context, int32_t id)
{
    int32_t **at = context;
    *(*at)++ = id;
    return true;
}

START_TEST(generation_repeats_for_a_seed_and_stops_where_it_should)
{
    struct fl_model *model = open_model(GOLDEN "cases/gqa-tied");
    const struct fl_engine_options options = {.max_row_tokens = 4, .cache_tokens = 12};
    struct fl_generate_options generate = {.max_tokens = 20,
                                           .sampling = {.temperature = 1.0, .seed = 5}};
    enum fl_finish finish;
    struct fl_engine *engine = NULL;
    const int32_t prompt[] = {1, 2, 3};
    int32_t first[20], second[20], *end = first;
    fl_assert_ok(fl_engine_create(model, NULL, &options, &engine, &error), &error);
    fl_assert_ok(
        fl_engine_generate(engine, prompt, 3, &generate, collect_token, &end, &finish, &error),
        &error);
    ck_assert_int_eq(finish, FL_FINISH_LENGTH);
    ck_assert_int_eq(end - first, 10); /* 3 + 9 fill the cache; the tenth needs no room */
    end = second;
    generate.max_tokens = 6;
    fl_assert_ok(
        fl_engine_generate(engine, prompt, 3, &generate, collect_token, &end, NULL, &error),
        &error);
    ck_assert_int_eq(end - second, 6);
    ck_assert_int_eq(memcmp(first, second, 6 * sizeof *first), 0);
    generate.stop_ids = &first[2];
    generate.stop_count = 1;
    end = second;
    fl_assert_ok(
        fl_engine_generate(engine, prompt, 3, &generate, collect_token, &end, &finish, &error),
        &error);
    ck_assert_int_eq(finish, FL_FINISH_STOP);
    ck_assert_int_le(end - second, 2);
    fl_engine_destroy(&engine);
    fl_model_close(&model);
}
END_TEST

/* What the last open_changed() read. */
static struct fl_model_config changed_config;

/* A copy of a golden case whose config.json has members replaced by those of `changes`, a JSON
 * object; "absent" removes one. */
static enum fl_status open_changed(const char *name, const char *changes)
{
    char directory[FL_PATH_BYTES], path[FL_PATH_BYTES], from[FL_PATH_BYTES];
    const char *key;
    json_t *value;
    struct fl_model *model = NULL;
    json_t *config = NULL, *change = NULL;
    struct fl_buf text, weights;
    fl_test_directory(directory);
    (void)snprintf(from, sizeof from, GOLDEN "cases/%s/config.json", name);
    fl_assert_ok(fl_json_load(from, 1 << 20, &config, &error), &error);
    fl_assert_ok(fl_json_parse(changes, strlen(changes), "changes", &change, &error), &error);
    json_object_foreach(change, key, value)
    {
        if (json_is_string(value) && strcmp(json_string_value(value), "absent") == 0)
            json_object_del(config, key);
        else
            json_object_set(config, key, value);
    }
    fl_buf_init(&text, 1 << 20);
    fl_assert_ok(fl_json_append(&text, config), &error);
    fl_assert_ok(fl_path_join(path, directory, "config.json", &error), &error);
    fl_assert_ok(fl_fs_write(path, text.data, text.length, 0644, &error), &error);
    (void)snprintf(from, sizeof from, GOLDEN "cases/%s/model.safetensors", name);
    fl_assert_ok(fl_fs_read(from, 1 << 24, &weights, &error), &error);
    fl_assert_ok(fl_path_join(path, directory, "model.safetensors", &error), &error);
    fl_assert_ok(fl_fs_write(path, weights.data, weights.length, 0644, &error), &error);
    enum fl_status status = fl_model_open(directory, &model, &error);
    ck_assert_int_eq(model == NULL, status != FL_OK);
    if (model)
        changed_config = *fl_model_config(model);
    fl_model_close(&model);
    fl_buf_free(&text);
    fl_buf_free(&weights);
    json_decref(config);
    json_decref(change);
    return status;
}

START_TEST(configurations_that_would_change_the_numbers_are_refused)
{
    static const struct {
        const char *changes, *word;
    } cases[] = {
        {"{\"hidden_act\":\"gelu\"}", "hidden_act"},
        {"{\"architectures\":[\"Gemma3ForConditionalGeneration\"]}",
         "Gemma3ForConditionalGeneration is not supported"},
        {"{\"architectures\":null,\"model_type\":\"phi\"}", "phi"},
        {"{\"layer_types\":[\"full_attention\"]}", "layer_types"},
        {"{\"layer_types\":[\"sliding_attention\",\"sliding_attention\",\"sliding_attention\"]}",
         "sliding_window"},
        {"{\"quantization_config\":{\"bits\":4}}", "quantization_config"},
        {"{\"quantization_config\":{\"quant_method\":\"gptq\",\"load_in_4bit\":true,"
         "\"bnb_4bit_quant_type\":\"nf4\"}}",
         "gptq"},
        {"{\"quantization_config\":{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true,"
         "\"bnb_4bit_quant_type\":\"fp4\"}}",
         "quantization_config"},
        {"{\"quantization_config\":{\"quant_method\":\"bitsandbytes\",\"load_in_8bit\":true}}",
         "quantization_config"},
        {"{\"num_attention_heads\":5}", "heads"},
        {"{\"num_key_value_heads\":4}", "divide"},
        {"{\"hidden_size\":0}", "range"},
        {"{\"hidden_size\":4294967295}", "range"},
        {"{\"hidden_size\":\"big\"}", "hidden_size"},
        {"{\"hidden_size\":25}", "shape"},
        {"{\"hidden_size\":1048576,\"num_hidden_layers\":585,\"attention_bias\":true}",
         "embed_tokens"},
        {"{\"head_dim\":5}", "odd"},
        {"{\"num_hidden_layers\":4}", "model.layers.3"},
        {"{\"num_hidden_layers\":1025}", "range"},
        {"{\"vocab_size\":98}", "embed_tokens"},
        {"{\"attention_bias\":true}", "bias"},
        {"{\"rms_norm_eps\":-1}", "epsilon"},
        {"{\"rope_parameters\":{\"rope_type\":\"dynamic\"}}", "dynamic"},
        {"{\"rope_parameters\":{\"rope_type\":\"longrope\"}}", "longrope"},
        {"{\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":2,\"mscale\":1}}", "mscale"},
        {"{\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":2,\"truncate\":false}}",
         "truncate"},
        {"{\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":2,\"beta_slow\":0}}", "yarn"},
        {"{\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":2,\"attention_factor\":-1}}",
         "yarn"},
        {"{\"rope_parameters\":{\"rope_theta\":-5}}", "theta"},
        {"{\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":0}}", "factor"},
        {"{\"rope_parameters\":{\"rope_type\":\"llama3\",\"factor\":8}}", "llama3"},
        {"{\"rope_parameters\":{\"partial_rotary_factor\":0.5}}", "partial"},
        /* finite, but frequencies or lengths that follow from them are not */
        {"{\"rope_parameters\":{\"rope_theta\":1e-300}}", "theta"},
        {"{\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":1e-300}}", "factor"},
        {"{\"rope_parameters\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
         "\"high_freq_factor\":4,\"original_max_position_embeddings\":1e300}}",
         "llama3"},
        {"{\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":2,"
         "\"original_max_position_embeddings\":1e300}}",
         "yarn"},
        {"{\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":2,\"attention_factor\":1e300}}",
         "yarn"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_assert_msg(open_changed("gqa-tied", cases[i].changes) == FL_EFORMAT, "%s",
                      cases[i].changes);
        ck_assert_msg(strstr(error.text, cases[i].word) != NULL, "%s: %s", cases[i].changes,
                      error.text);
    }
}
END_TEST

START_TEST(configurations_of_gpt2_that_would_change_the_numbers_are_refused)
{
    static const struct {
        const char *changes, *word;
    } cases[] = {
        {"{\"activation_function\":\"relu\"}", "relu"},
        {"{\"scale_attn_weights\":false}", "scale_attn_weights"},
        {"{\"scale_attn_by_inverse_layer_idx\":true}", "scale_attn_by_inverse_layer_idx"},
        {"{\"add_cross_attention\":true}", "add_cross_attention"},
        {"{\"n_positions\":25}", "transformer.wpe"},
        {"{\"n_positions\":0}", "positions"},
        {"{\"n_head\":5}", "range"},
        {"{\"n_inner\":null}", "c_fc"},
        {"{\"n_embd\":1073741824}", "range"},
        {"{\"layer_norm_epsilon\":-1}", "epsilon"},
        {"{\"tie_word_embeddings\":7}", "tie_word_embeddings"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_assert_msg(open_changed("gpt2", cases[i].changes) == FL_EFORMAT, "%s", cases[i].changes);
        ck_assert_msg(strstr(error.text, cases[i].word) != NULL, "%s: %s", cases[i].changes,
                      error.text);
    }
    ck_assert_int_eq(open_changed("gpt2", "{\"architectures\":null}"), FL_OK);
    ck_assert(changed_config.tied);
}
END_TEST

START_TEST(linears_stored_the_other_way_round_are_turned)
{
    struct fl_model *model = open_model(GOLDEN "cases/gpt2");
    const struct fl_weight *weight = fl_model_module_weight(model, 2);
    const struct fl_tensor_view *stored = fl_safetensors_find(model->tensors, weight->name);
    float row[24], whole[24 * 40];
    ck_assert_str_eq(weight->name, "transformer.h.0.mlp.c_fc.weight");
    ck_assert(weight->turned);
    ck_assert_uint_eq(weight->rows, 40);
    ck_assert_uint_eq(weight->columns, 24);
    fl_dtype_widen(stored->dtype, stored->data, sizeof whole / sizeof *whole, whole);
    fl_weight_widen(weight, 33, 1, row);
    for (int i = 0; i < 24; i++)
        ck_assert_float_eq(row[i], whole[i * 40 + 33]);
    fl_model_close(&model);
}
END_TEST

START_TEST(configurations_of_gemma_that_would_change_the_numbers_are_refused)
{
    static const struct {
        const char *name, *changes, *word;
    } cases[] = {
        {"gemma2", "{\"hidden_activation\":\"gelu\"}", "hidden_activation"},
        {"gemma2", "{\"use_bidirectional_attention\":true}", "use_bidirectional_attention"},
        {"gemma2", "{\"query_pre_attn_scalar\":0}", "query_pre_attn_scalar"},
        {"gemma2", "{\"query_pre_attn_scalar\":\"big\"}", "query_pre_attn_scalar"},
        {"gemma2", "{\"attn_logit_softcapping\":-1}", "attn_logit_softcapping"},
        {"gemma2", "{\"attn_logit_softcapping\":0}", "attn_logit_softcapping"},
        {"gemma2", "{\"final_logit_softcapping\":1e300}", "soft cap"},
        {"gemma2", "{\"final_logit_softcapping\":\"x\"}", "final_logit_softcapping"},
        {"gemma2",
         "{\"layer_types\":[\"full_attention\",\"full_attention\",\"sliding_attention\"]}",
         "recur"},
        {"gemma2",
         "{\"layer_types\":[\"sliding_attention\",\"full_attention\",\"chunked_attention\"]}",
         "chunked_attention"},
        {"gemma3", "{\"rope_parameters\":{\"sliding_attention\":{\"rope_theta\":-1}}}", "theta"},
        {"gemma3", "{\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"dynamic\"}}}",
         "dynamic"},
        {"gemma3", "{\"rope_parameters\":null,\"rope_local_base_freq\":0}", "theta"},
        {"gemma3", "{\"rms_norm_eps\":2}", "epsilon"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_assert_msg(open_changed(cases[i].name, cases[i].changes) == FL_EFORMAT, "%s",
                      cases[i].changes);
        ck_assert_msg(strstr(error.text, cases[i].word) != NULL, "%s: %s", cases[i].changes,
                      error.text);
    }
    fl_assert_ok(open_changed("gemma2", "{\"attn_logit_softcapping\":null,\"layer_types\":null,"
                                        "\"final_logit_softcapping\":\"absent\","
                                        "\"hidden_activation\":null}"),
                 &error);
    ck_assert_double_eq(changed_config.score_cap, 0.0);
    ck_assert_double_eq(changed_config.logit_cap, 30.0);
    ck_assert_uint_eq(changed_config.sliding_period, 2);
}
END_TEST

/* Token by token through the cache, and the row at once: every family's windows, norms, caps. */
START_TEST(the_cache_gives_the_logits_of_the_whole_row)
{
    static const char *const NAMES[] = {"gqa-tied", "mistral-window", "qwen2-window", "qwen3",
                                        "phi3",     "gpt2",           "gemma2",       "gemma3"};
    enum { TOKENS = 17 };
    char path[FL_PATH_BYTES];
    (void)snprintf(path, sizeof path, GOLDEN "cases/%s", NAMES[_i]);
    struct fl_model *model = open_model(path);
    const struct fl_engine_options options = {.max_row_tokens = TOKENS, .cache_tokens = TOKENS};
    struct fl_engine *engine = NULL;
    const uint32_t vocab = fl_model_config(model)->vocab;
    float *whole = toy_memory((size_t)TOKENS * vocab, sizeof *whole);
    float *next = toy_memory(vocab, sizeof *next);
    int32_t ids[TOKENS];
    for (int32_t i = 0; i < TOKENS; i++)
        ids[i] = (i * 29 + 3) % (int32_t)vocab;
    fl_assert_ok(fl_engine_create(model, NULL, &options, &engine, &error), &error);
    fl_assert_ok(fl_engine_forward_logits(engine, ids, TOKENS, whole, &error), &error);
    for (uint32_t t = 0, step; t < TOKENS; t += step) {
        step = t == 0 ? 7 : 1; /* a prompt, then what follows it */
        fl_assert_ok(fl_engine_extend(engine, ids + t, step, next, &error), &error);
        const float *want = whole + (t + step - 1) * (size_t)vocab;
        for (uint32_t v = 0; v < vocab; v++)
            ck_assert_msg(fabs((double)next[v] - (double)want[v]) < 1e-4, "%s: token %u", NAMES[_i],
                          t);
    }
    fl_engine_destroy(&engine);
    fl_model_close(&model);
}
END_TEST

/* The window of the lowest layers that have one; UINT32_MAX when the model does not open. */
static uint32_t qwen2_from(const char *changes)
{
    changed_config = (struct fl_model_config){0};
    if (open_changed("qwen2", changes))
        return UINT32_MAX;
    return changed_config.sliding_window ? changed_config.sliding_from : changed_config.layers;
}

START_TEST(sliding_windows_begin_where_the_configuration_says)
{
    ck_assert_uint_eq(qwen2_from("{}"), 2);
    ck_assert_uint_eq(qwen2_from("{\"sliding_window\":4,\"layer_types\":null}"), 2);
    ck_assert_uint_eq(qwen2_from("{\"use_sliding_window\":true,\"layer_types\":null,"
                                 "\"max_window_layers\":1,\"sliding_window\":4}"),
                      1);
    ck_assert_uint_eq(changed_config.sliding_window, 4);
    ck_assert_uint_eq(qwen2_from("{\"use_sliding_window\":true,\"layer_types\":"
                                 "[\"full_attention\",\"sliding_attention\"],"
                                 "\"max_window_layers\":0,\"sliding_window\":4}"),
                      1);
    ck_assert_uint_eq(qwen2_from("{\"use_sliding_window\":true,\"layer_types\":"
                                 "[\"sliding_attention\",\"full_attention\"]}"),
                      UINT32_MAX);
    ck_assert_ptr_nonnull(strstr(error.text, "above a sliding one"));
    ck_assert_uint_eq(qwen2_from("{\"layer_types\":[\"linear_attention\",\"full_attention\"]}"),
                      UINT32_MAX);
    ck_assert_ptr_nonnull(strstr(error.text, "linear_attention"));
    ck_assert_uint_eq(qwen2_from("{\"use_sliding_window\":7}"), UINT32_MAX);
}
END_TEST

START_TEST(absent_and_harmless_keys_take_their_defaults)
{
    ck_assert_int_eq(open_changed("gqa-tied", "{\"head_dim\":\"absent\"}"), FL_OK);
    ck_assert_int_eq(open_changed("gqa-tied", "{\"head_dim\":null}"), FL_OK);
    ck_assert_int_eq(open_changed("gqa-tied", "{\"architectures\":\"absent\"}"), FL_OK);
    ck_assert_int_eq(open_changed("gqa-tied", "{\"eos_token_id\":[3,4]}"), FL_OK);
    ck_assert_int_eq(open_changed("gqa-tied", "{\"tie_word_embeddings\":\"absent\"}"),
                     FL_OK); /* no head in the file */
    ck_assert_int_eq(open_changed("gqa-tied", "{\"surprise\":[1]}"), FL_OK);
}
END_TEST

START_TEST(what_is_no_model_is_refused)
{
    struct fl_model *model = NULL;
    char directory[FL_PATH_BYTES];
    fl_test_directory(directory);
    ck_assert_int_eq(fl_model_open("/nowhere/model", &model, &error), FL_ENOTFOUND);
    ck_assert_int_eq(fl_model_open(directory, &model, &error), FL_ENOTFOUND);
    ck_assert_int_eq(fl_model_open(GOLDEN "cases/gqa-tied/config.json", &model, &error),
                     FL_EFORMAT);
    ck_assert_ptr_null(model);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, NULL, toy_teardown);
    tcase_add_test(tc, a_hugging_face_directory_opens_with_its_inventory);
    tcase_add_test(tc, the_older_dialect_and_half_precision_open_too);
    tcase_add_loop_test(tc, a_gguf_file_is_the_same_model_as_its_directory, 0,
                        (int)(sizeof pairs / sizeof *pairs));
    tcase_add_test(tc, linears_alone_are_quantised);
    tcase_add_loop_test(tc, parts_of_quantised_rows_are_those_of_the_row, 0, 3);
    tcase_add_test(tc, a_directory_in_four_bits_opens);
    tcase_add_test(tc, four_bits_of_another_shape_are_refused);
    tcase_add_test(tc, four_bits_of_gpt2_are_refused);
    tcase_add_test(tc, engines_run_on_every_golden_model);
    tcase_add_test(tc, generation_repeats_for_a_seed_and_stops_where_it_should);
    tcase_add_test(tc, configurations_that_would_change_the_numbers_are_refused);
    tcase_add_test(tc, configurations_of_gpt2_that_would_change_the_numbers_are_refused);
    tcase_add_test(tc, configurations_of_gemma_that_would_change_the_numbers_are_refused);
    tcase_add_loop_test(tc, the_cache_gives_the_logits_of_the_whole_row, 0, 8);
    tcase_add_test(tc, linears_stored_the_other_way_round_are_turned);
    tcase_add_test(tc, sliding_windows_begin_where_the_configuration_says);
    tcase_add_test(tc, absent_and_harmless_keys_take_their_defaults);
    tcase_add_test(tc, what_is_no_model_is_refused);
}

FL_TEST_MAIN("model", add_tests)

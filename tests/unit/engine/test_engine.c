/* The engine against a naive double-precision model: logits, losses, every kind of gradient. */
#include "engine/reference.h"
#include "runner.h"

#include <math.h>
#include <string.h>

#include "worker/engine/gemm.h"

static struct fl_error error;

static struct fl_engine *make_engine(const struct fl_model *model, const struct fl_adapter *adapter,
                                     unsigned train, uint32_t row, uint32_t batch, uint32_t threads)
{
    const struct fl_engine_options options = {.threads = threads,
                                              .max_row_tokens = row,
                                              .max_batch_tokens = batch,
                                              .cache_tokens = row,
                                              .train = train};
    struct fl_engine *engine = NULL;
    fl_assert_ok(fl_engine_create(model, adapter, &options, &engine, &error), &error);
    return engine;
}

static void compare_logits(const struct toy_shape *shape, uint32_t n)
{
    struct fl_model *model = toy_model(shape, 7);
    struct fl_adapter *adapter = toy_adapter(model, "all-linear", 3, 5);
    struct fl_row *row = toy_rows(model, 1, n, 0, 3);
    struct fl_engine *engine = make_engine(model, adapter, FL_TRAIN_NONE, n, 0, 2);
    const size_t count = (size_t)n * shape->vocab;
    float *got = toy_memory(count, sizeof *got);
    double *want = toy_memory(count, sizeof *want), largest = 0.0, worst = 0.0;
    fl_assert_ok(fl_engine_forward_logits(engine, row->ids, n, got, &error), &error);
    reference_logits(model, adapter, row->ids, n, want);
    for (size_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs(want[i]));
        worst = fmax(worst, fabs(want[i] - (double)got[i]));
    }
    ck_assert_double_lt(worst, 1e-5 * largest);
    fl_engine_destroy(&engine);
}

START_TEST(logits_equal_the_naive_model)
{
    struct toy_shape shape = toy_default();
    compare_logits(&shape, 33);
}
END_TEST

START_TEST(logits_equal_with_an_untied_head_biases_and_llama3_rope)
{
    struct toy_shape shape = toy_default();
    shape.tied = false;
    shape.biases = true;
    shape.rope = FL_ROPE_LLAMA3;
    compare_logits(&shape, 90);
}
END_TEST

START_TEST(logits_equal_with_linear_rope_and_one_key_head)
{
    struct toy_shape shape = toy_default();
    shape.rope = FL_ROPE_LINEAR;
    shape.kv_heads = 1;
    shape.heads = 5;
    compare_logits(&shape, 21);
}
END_TEST

/* |got - want| over a sample of one tensor's elements, relative to their size. */
static void compare_tensor(const struct fl_model *model, struct fl_adapter *adapter,
                           const struct fl_row *rows, uint32_t count, float *values,
                           const float *gradient, size_t n, const char *name)
{
    double difference = 0.0, size = 0.0;
    for (size_t i = 0; i < n; i += 1 + n / 12) {
        const double want = reference_gradient(model, adapter, rows, count, &values[i]);
        difference += (want - (double)gradient[i]) * (want - (double)gradient[i]);
        size += want * want;
    }
    ck_assert_msg(sqrt(difference) <= 2e-5 * sqrt(size) + 1e-6, "%s: %g of %g", name,
                  sqrt(difference), sqrt(size));
}

static void compare_gradients(const struct toy_shape *shape, const char *targets, unsigned train,
                              uint32_t batch, uint32_t threads)
{
    struct fl_model *model = toy_model(shape, 11);
    struct fl_adapter *adapter = toy_adapter(model, targets, 3, 5);
    struct fl_row *rows = toy_rows(model, 3, 4, 5, 3);
    struct fl_engine *engine = make_engine(model, adapter, train, 14, batch, threads);
    double loss, want = reference_loss(model, adapter, rows, 3);
    uint64_t scored;
    fl_assert_ok(fl_engine_gradients(engine, rows, 3, 0, &loss, &scored, &error), &error);
    ck_assert_double_eq_tol(loss, want, 1e-5 * want);
    const struct fl_gradient *gradients = fl_engine_gradient(engine);
    for (uint32_t i = 0; i < adapter->count; i++) {
        struct fl_lora_module *m = &adapter->modules[i];
        ck_assert_int_eq(gradients[i].a != NULL, (train & FL_TRAIN_A) != 0);
        ck_assert_int_eq(gradients[i].b != NULL, (train & FL_TRAIN_B) != 0);
        if (gradients[i].a)
            compare_tensor(model, adapter, rows, 3, m->a, gradients[i].a,
                           (size_t)m->rank * m->module.in, m->module.name);
        if (gradients[i].b)
            compare_tensor(model, adapter, rows, 3, m->b, gradients[i].b,
                           (size_t)m->rank * m->module.out, m->module.name);
    }
    fl_engine_destroy(&engine);
}

START_TEST(gradients_of_every_linear_equal_finite_differences)
{
    struct toy_shape shape = toy_default();
    compare_gradients(&shape, "all-linear", FL_TRAIN_BOTH, 0, 2);
}
END_TEST

START_TEST(gradients_are_right_over_several_micro_batches)
{
    struct toy_shape shape = toy_default();
    shape.tied = false;
    shape.biases = true;
    compare_gradients(&shape, "all-linear", FL_TRAIN_BOTH, 14, 3);
}
END_TEST

START_TEST(gradients_of_one_factor_are_right)
{
    struct toy_shape shape = toy_default();
    compare_gradients(&shape, "q_proj,v_proj", FL_TRAIN_A, 0, 1);
    compare_gradients(&shape, "q_proj,v_proj", FL_TRAIN_B, 0, 1);
}
END_TEST

START_TEST(logits_and_gradients_are_right_with_norms_of_q_and_k)
{
    struct toy_shape shape = toy_default();
    shape.arch = "Qwen3ForCausalLM";
    compare_logits(&shape, 33);
    compare_gradients(&shape, "all-linear", FL_TRAIN_BOTH, 0, 2);
    compare_gradients(&shape, "model.layers.1.self_attn.k_proj", FL_TRAIN_BOTH, 14, 3);
}
END_TEST

static struct toy_shape toy_gpt2(void)
{
    struct toy_shape shape = toy_default();
    shape.arch = "GPT2LMHeadModel";
    shape.kv_heads = shape.heads;
    return shape;
}

START_TEST(logits_and_gradients_of_gpt2_are_right)
{
    struct toy_shape shape = toy_gpt2();
    compare_logits(&shape, 131);
    compare_gradients(&shape, "all-linear", FL_TRAIN_BOTH, 0, 2);
    compare_gradients(&shape, "all-linear", FL_TRAIN_BOTH, 14, 3);
}
END_TEST

START_TEST(gradients_of_gpt2_stop_at_the_lowest_adapted_linear)
{
    static const char *const targets[] = {"transformer.h.1.mlp.c_proj", "transformer.h.1.mlp.c_fc",
                                          "transformer.h.1.attn.c_proj",
                                          "transformer.h.2.mlp.c_fc,transformer.h.1.attn.c_attn"};
    struct toy_shape shape = toy_gpt2();
    for (unsigned i = 0; i < sizeof targets / sizeof *targets; i++)
        compare_gradients(&shape, targets[i], FL_TRAIN_BOTH, 0, 2);
}
END_TEST

START_TEST(rows_longer_than_the_learned_positions_are_refused)
{
    struct toy_shape shape = toy_gpt2();
    struct fl_model *model = toy_model(&shape, 7);
    struct fl_engine *engine = NULL;
    struct fl_engine_options options = {.max_row_tokens = TOY_POSITIONS + 1};
    ck_assert_int_eq(fl_engine_create(model, NULL, &options, &engine, &error), FL_ERANGE);
    ck_assert_ptr_nonnull(strstr(error.text, "140"));
    options = (struct fl_engine_options){.max_row_tokens = 4, .cache_tokens = TOY_POSITIONS + 1};
    ck_assert_int_eq(fl_engine_create(model, NULL, &options, &engine, &error), FL_ERANGE);
    ck_assert_ptr_null(engine);
}
END_TEST

START_TEST(gradients_stop_at_the_lowest_adapted_linear)
{
    static const char *const targets[] = {
        "model.layers.1.mlp.down_proj", "model.layers.1.mlp.gate_proj",
        "model.layers.1.self_attn.o_proj", "model.layers.1.self_attn.k_proj",
        "model.layers.2.mlp.up_proj,model.layers.1.self_attn.v_proj"};
    struct toy_shape shape = toy_default();
    for (unsigned i = 0; i < sizeof targets / sizeof *targets; i++)
        compare_gradients(&shape, targets[i], FL_TRAIN_BOTH, 0, 2);
}
END_TEST

/* Windows shorter and longer than a block of queries. */
static const uint32_t windows[] = {0, 2, 40, 70};

START_TEST(attention_is_right_across_block_borders)
{
    struct toy_shape shape = toy_default();
    shape.layers = 1;
    shape.window = windows[_i];
    compare_logits(&shape, 131);
    struct fl_model *model = toy_model(&shape, 11);
    struct fl_adapter *adapter = toy_adapter(model, "q_proj,k_proj,v_proj", 2, 5);
    struct fl_row *rows = toy_rows(model, 1, 131, 0, 3);
    struct fl_engine *engine = make_engine(model, adapter, FL_TRAIN_BOTH, 131, 0, 2);
    double loss;
    uint64_t scored;
    fl_assert_ok(fl_engine_gradients(engine, rows, 1, 0, &loss, &scored, &error), &error);
    for (uint32_t i = 0; i < adapter->count; i++)
        compare_tensor(model, adapter, rows, 1, adapter->modules[i].a,
                       fl_engine_gradient(engine)[i].a, 40, adapter->modules[i].module.name);
    fl_engine_destroy(&engine);
}
END_TEST

START_TEST(evaluation_gives_the_loss_of_training)
{
    struct toy_shape shape = toy_default();
    struct fl_model *model = toy_model(&shape, 11);
    struct fl_adapter *adapter = toy_adapter(model, "all-linear", 3, 5);
    struct fl_row *rows = toy_rows(model, 3, 4, 5, 3);
    struct fl_engine *engine = make_engine(model, adapter, FL_TRAIN_NONE, 14, 16, 2);
    double loss, want = reference_loss(model, adapter, rows, 3);
    uint64_t scored;
    fl_assert_ok(fl_engine_loss(engine, rows, 3, &loss, &scored, &error), &error);
    ck_assert_double_eq_tol(loss, want, 1e-5 * want);
    ck_assert_uint_eq(scored, 2 + 6 + 8);
    ck_assert_int_eq(fl_engine_gradients(engine, rows, 3, 0, &loss, &scored, &error), FL_EINVAL);
    fl_engine_destroy(&engine);
}
END_TEST

START_TEST(windows_begin_at_their_layer)
{
    struct toy_shape shape = toy_default();
    shape.window = 4;
    shape.window_from = 1;
    compare_logits(&shape, 33);
    compare_gradients(&shape, "all-linear", FL_TRAIN_BOTH, 0, 2);
}
END_TEST

START_TEST(the_cache_gives_the_logits_of_the_whole_row)
{
    struct toy_shape shape = _i == 2 ? toy_gpt2() : toy_default();
    shape.window = _i == 1 ? 5 : 0;
    struct fl_model *model = toy_model(&shape, 11);
    struct fl_adapter *adapter = toy_adapter(model, "all-linear", 3, 5);
    struct fl_row *row = toy_rows(model, 1, 12, 0, 3);
    struct fl_engine *engine = make_engine(model, adapter, FL_TRAIN_NONE, 12, 0, 2);
    float whole[12 * 41], step[41];
    fl_assert_ok(fl_engine_forward_logits(engine, row->ids, 12, whole, &error), &error);
    fl_assert_ok(fl_engine_extend(engine, row->ids, 7, step, &error), &error);
    for (uint32_t t = 7; t < 12; t++) {
        for (uint32_t i = 0; i < 41; i++)
            ck_assert_float_eq_tol(step[i], whole[(t - 1) * 41 + i], 1e-4f);
        fl_assert_ok(fl_engine_extend(engine, row->ids + t, 1, step, &error), &error);
    }
    ck_assert_uint_eq(fl_engine_cached(engine), 12);
    ck_assert_int_eq(fl_engine_extend(engine, row->ids, 1, step, &error), FL_ERANGE);
    fl_engine_destroy(&engine);
}
END_TEST

START_TEST(two_runs_give_the_same_bytes)
{
    struct toy_shape shape = toy_default();
    struct fl_model *model = toy_model(&shape, 11);
    struct fl_adapter *adapter = toy_adapter(model, "all-linear", 3, 5);
    struct fl_row *rows = toy_rows(model, 3, 4, 5, 3);
    struct fl_engine *first = make_engine(model, adapter, FL_TRAIN_BOTH, 14, 0, 2);
    struct fl_engine *second = make_engine(model, adapter, FL_TRAIN_BOTH, 14, 0, 2);
    double loss[2];
    uint64_t scored;
    fl_assert_ok(fl_engine_gradients(first, rows, 3, 0, &loss[0], &scored, &error), &error);
    fl_assert_ok(fl_engine_gradients(second, rows, 3, 0, &loss[1], &scored, &error), &error);
    ck_assert_int_eq(memcmp(&loss[0], &loss[1], sizeof loss[0]), 0);
    for (uint32_t i = 0; i < adapter->count; i++) {
        const struct fl_lora_module *m = &adapter->modules[i];
        const size_t bytes = (size_t)m->rank * m->module.in * sizeof(float);
        ck_assert_int_eq(
            memcmp(fl_engine_gradient(first)[i].a, fl_engine_gradient(second)[i].a, bytes), 0);
    }
    fl_engine_destroy(&first);
    fl_engine_destroy(&second);
}
END_TEST

START_TEST(gradients_add_up_until_they_are_zeroed)
{
    struct toy_shape shape = toy_default();
    struct fl_model *model = toy_model(&shape, 11);
    struct fl_adapter *adapter = toy_adapter(model, "up_proj", 3, 5);
    struct fl_row *rows = toy_rows(model, 2, 6, 0, 3);
    struct fl_engine *engine = make_engine(model, adapter, FL_TRAIN_BOTH, 14, 0, 2);
    const float *g = fl_engine_gradient(engine)[1].b;
    double loss;
    uint64_t scored;
    fl_assert_ok(fl_engine_gradients(engine, rows, 2, 0, &loss, &scored, &error), &error);
    const float once = g[5];
    fl_assert_ok(fl_engine_gradients(engine, rows, 2, 0, &loss, &scored, &error), &error);
    ck_assert_float_eq_tol(g[5], 2.0f * once, 1e-5f * fabsf(once));
    fl_engine_zero_gradients(engine);
    ck_assert_float_eq(g[5], 0.0f);
    fl_engine_destroy(&engine);
}
END_TEST

/* Dropout's forward and backward share a mask: the directional derivative proves it. */
START_TEST(dropout_masks_agree_between_forward_and_backward)
{
    struct toy_shape shape = toy_default();
    struct fl_model *model = toy_model(&shape, 11);
    struct fl_adapter *adapter = toy_adapter(model, "all-linear", 3, 5);
    adapter->dropout = 0.3;
    struct fl_row *rows = toy_rows(model, 2, 9, 3, 3);
    struct fl_engine *engine = make_engine(model, adapter, FL_TRAIN_BOTH, 14, 0, 2);
    double loss, high, low, other;
    uint64_t scored;
    fl_assert_ok(fl_engine_gradients(engine, rows, 2, 4, &loss, &scored, &error), &error);
    fl_assert_ok(fl_engine_loss(engine, rows, 2, &other, &scored, &error), &error);
    ck_assert_double_gt(fabs(loss - other), 1e-3); /* evaluation drops nothing */
    for (uint32_t i = 0; i < adapter->count; i += 5) {
        float *value = &adapter->modules[i].a[1], kept = *value;
        const double gradient = (double)fl_engine_gradient(engine)[i].a[1];
        *value = kept + 0x1p-7f;
        fl_engine_zero_gradients(engine);
        fl_assert_ok(fl_engine_gradients(engine, rows, 2, 4, &high, &scored, &error), &error);
        *value = kept - 0x1p-7f;
        fl_assert_ok(fl_engine_gradients(engine, rows, 2, 4, &low, &scored, &error), &error);
        *value = kept;
        ck_assert_double_eq_tol((high - low) / 0x1p-6, gradient, 2e-3 + 2e-2 * fabs(gradient));
        fl_engine_zero_gradients(engine);
        fl_assert_ok(fl_engine_gradients(engine, rows, 2, 4, &other, &scored, &error), &error);
        ck_assert_double_eq(other, loss);
    }
    fl_engine_destroy(&engine);
}
END_TEST

START_TEST(wrong_rows_and_options_are_refused_in_words)
{
    struct toy_shape shape = toy_default();
    struct fl_model *model = toy_model(&shape, 11);
    struct fl_engine *engine = make_engine(model, NULL, FL_TRAIN_NONE, 4, 0, 1);
    const int32_t ids[] = {1, 2, 41, 3, 4}, labels[] = {1, 2, 3, 99, 4};
    const struct fl_row bad_id = {ids, ids, 3}, long_row = {ids, ids, 5};
    const struct fl_row bad_label = {labels + 1, labels, 4};
    float logits[41 * 4];
    double loss;
    uint64_t scored;
    ck_assert_int_eq(fl_engine_loss(engine, &bad_id, 1, &loss, &scored, &error), FL_ERANGE);
    ck_assert_ptr_nonnull(strstr(error.text, "41"));
    ck_assert_int_eq(fl_engine_loss(engine, &long_row, 1, &loss, &scored, &error), FL_ERANGE);
    ck_assert_int_eq(fl_engine_loss(engine, &bad_label, 1, &loss, &scored, &error), FL_ERANGE);
    ck_assert_int_eq(fl_engine_forward_logits(engine, ids, 0, logits, &error), FL_ERANGE);
    ck_assert_int_eq(fl_engine_forward_logits(engine, ids, 5, logits, &error), FL_ERANGE);
    fl_engine_destroy(&engine);
    struct fl_engine_options options = {.max_row_tokens = 4, .train = FL_TRAIN_B};
    ck_assert_int_eq(fl_engine_create(model, NULL, &options, &engine, &error), FL_EINVAL);
    options = (struct fl_engine_options){.max_row_tokens = 0};
    ck_assert_int_eq(fl_engine_create(model, NULL, &options, &engine, &error), FL_ERANGE);
    ck_assert_ptr_null(engine);
}
END_TEST

START_TEST(an_adapter_of_another_model_is_refused)
{
    struct toy_shape shape = toy_default();
    struct fl_model *model = toy_model(&shape, 11);
    struct fl_adapter *adapter = toy_adapter(model, "up_proj", 3, 5);
    struct fl_engine *engine = NULL;
    const struct fl_engine_options options = {.max_row_tokens = 4, .train = FL_TRAIN_BOTH};
    adapter->modules[1].module.in++;
    ck_assert_int_eq(fl_engine_create(model, adapter, &options, &engine, &error), FL_EINVAL);
    adapter->modules[1].module.in--;
    adapter->modules[1].module.layer = 4000000000u;
    ck_assert_int_eq(fl_engine_create(model, adapter, &options, &engine, &error), FL_EINVAL);
    adapter->modules[1].module = adapter->modules[0].module;
    ck_assert_int_eq(fl_engine_create(model, adapter, &options, &engine, &error), FL_EINVAL);
    ck_assert_ptr_nonnull(strstr(error.text, "twice"));
}
END_TEST

START_TEST(the_memory_estimate_is_the_arena)
{
    struct toy_shape shape = toy_default();
    struct fl_model *model = toy_model(&shape, 11);
    const struct fl_engine_options small = {.max_row_tokens = 8, .max_batch_tokens = 8};
    const struct fl_engine_options large = {.max_row_tokens = 8, .max_batch_tokens = 4096};
    ck_assert_uint_gt(fl_engine_memory(model, NULL, &small), 0);
    ck_assert_uint_gt(fl_engine_memory(model, NULL, &large), fl_engine_memory(model, NULL, &small));
}
END_TEST

static struct fl_engine_options training(uint32_t row, uint32_t batch)
{
    return (struct fl_engine_options){.threads = 2,
                                      .max_row_tokens = row,
                                      .max_batch_tokens = batch,
                                      .train = FL_TRAIN_BOTH,
                                      .seed = 9};
}

START_TEST(a_tight_limit_recomputes_and_gives_the_same_bytes)
{
    struct toy_shape shape = _i == 2 ? toy_gpt2() : toy_default();
    shape.arch = _i == 1 ? "Qwen3ForCausalLM" : shape.arch;
    shape.layers = 4;
    struct fl_model *model = toy_model(&shape, 11);
    struct fl_adapter *adapter = toy_adapter(model, "all-linear", 3, 5);
    adapter->dropout = 0.25;
    struct fl_row *rows = toy_rows(model, 3, 4, 5, 3);
    struct fl_engine_options options = training(14, 64);
    struct fl_engine *engines[2];
    double loss[2];
    uint64_t scored;
    for (int i = 0; i < 2; i++) {
        fl_assert_ok(fl_engine_create(model, adapter, &options, &engines[i], &error), &error);
        ck_assert(fl_engine_recomputes(engines[i]) == (i == 1));
        ck_assert_uint_eq(fl_engine_batch_tokens(engines[i]), 64);
        fl_assert_ok(fl_engine_gradients(engines[i], rows, 3, 4, &loss[i], &scored, &error),
                     &error);
        options.memory_limit = fl_engine_memory(model, adapter, &options) - 1;
    }
    ck_assert(loss[0] == loss[1]);
    for (uint32_t i = 0; i < adapter->count; i++) {
        const struct fl_lora_module *m = &adapter->modules[i];
        const struct fl_gradient *a = &fl_engine_gradient(engines[0])[i],
                                 *b = &fl_engine_gradient(engines[1])[i];
        ck_assert_int_eq(memcmp(a->a, b->a, (size_t)m->rank * m->module.in * sizeof *a->a), 0);
        ck_assert_int_eq(memcmp(a->b, b->b, (size_t)m->rank * m->module.out * sizeof *a->b), 0);
    }
    fl_engine_destroy(&engines[0]);
    fl_engine_destroy(&engines[1]);
}
END_TEST

START_TEST(a_limit_shrinks_the_micro_batch_before_it_recomputes_and_refuses_below_that)
{
    struct toy_shape shape = toy_default();
    struct fl_model *model = toy_model(&shape, 11);
    struct fl_adapter *adapter = toy_adapter(model, "all-linear", 3, 5);
    struct fl_engine_options options = training(14, 512);
    struct fl_engine *engine = NULL;
    options.memory_limit = fl_engine_memory(model, adapter, &options) - 1;
    ck_assert_uint_le(fl_engine_memory(model, adapter, &options), options.memory_limit);
    fl_assert_ok(fl_engine_create(model, adapter, &options, &engine, &error), &error);
    ck_assert_uint_lt(fl_engine_batch_tokens(engine), 512);
    ck_assert_uint_ge(fl_engine_batch_tokens(engine), 64);
    ck_assert(!fl_engine_recomputes(engine));
    fl_engine_destroy(&engine);
    options.memory_limit = 1000;
    ck_assert_int_eq(fl_engine_create(model, adapter, &options, &engine, &error), FL_ENOMEM);
    ck_assert_ptr_nonnull(strstr(error.text, "shorter rows or a higher limit"));
    ck_assert_uint_eq(fl_engine_memory(model, adapter, &options), 0);
}
END_TEST

/* bfloat16 keeps 8 bits: losses within 2 %, the gradient's direction nearly that of float32. */
START_TEST(bfloat16_trains_like_float32)
{
    struct toy_shape shape = _i == 2 ? toy_gpt2() : toy_default();
    shape.arch = _i == 1 ? "Qwen3ForCausalLM" : shape.arch;
    shape.hidden = 32;
    shape.ffn = 48;
    struct fl_model *model = toy_model(&shape, 11);
    struct fl_adapter *adapter = toy_adapter(model, "all-linear", 4, 5);
    struct fl_row *rows = toy_rows(model, 3, 20, 5, 3);
    struct fl_engine_options options = training(30, 64);
    struct fl_engine *engines[2] = {NULL, NULL};
    double loss[2], dot = 0.0, norms[2] = {0.0, 0.0};
    uint64_t scored;
    for (int i = 0; i < 2; i++) {
        options.compute = i ? FL_COMPUTE_BF16 : FL_COMPUTE_F32;
        if (i && !fl_gemm_bf16()) {
            ck_assert_int_eq(fl_engine_create(model, adapter, &options, &engines[i], &error),
                             FL_EUSAGE);
            ck_assert_ptr_nonnull(strstr(error.text, "AVX512-BF16"));
            fl_engine_destroy(&engines[0]);
            return;
        }
        fl_assert_ok(fl_engine_create(model, adapter, &options, &engines[i], &error), &error);
        ck_assert_str_eq(fl_engine_compute(engines[i]), i ? "bf16" : "f32");
        fl_assert_ok(fl_engine_gradients(engines[i], rows, 3, 4, &loss[i], &scored, &error),
                     &error);
    }
    ck_assert_double_eq_tol(loss[1], loss[0], 0.02 * loss[0]);
    ck_assert(loss[1] != loss[0]);
    for (uint32_t i = 0; i < adapter->count; i++) {
        const struct fl_lora_module *m = &adapter->modules[i];
        const float *a = fl_engine_gradient(engines[0])[i].a,
                    *b = fl_engine_gradient(engines[1])[i].a;
        for (size_t j = 0; j < (size_t)m->rank * m->module.in; j++) {
            dot += (double)a[j] * (double)b[j];
            norms[0] += (double)a[j] * (double)a[j];
            norms[1] += (double)b[j] * (double)b[j];
        }
    }
    ck_assert_double_gt(dot / sqrt(norms[0] * norms[1]), 0.998);
    fl_engine_destroy(&engines[0]);
    fl_engine_destroy(&engines[1]);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, NULL, toy_teardown);
    tcase_add_test(tc, logits_equal_the_naive_model);
    tcase_add_test(tc, logits_equal_with_an_untied_head_biases_and_llama3_rope);
    tcase_add_test(tc, logits_equal_with_linear_rope_and_one_key_head);
    tcase_add_test(tc, gradients_of_every_linear_equal_finite_differences);
    tcase_add_test(tc, gradients_are_right_over_several_micro_batches);
    tcase_add_test(tc, gradients_of_one_factor_are_right);
    tcase_add_test(tc, logits_and_gradients_are_right_with_norms_of_q_and_k);
    tcase_add_test(tc, logits_and_gradients_of_gpt2_are_right);
    tcase_add_test(tc, gradients_of_gpt2_stop_at_the_lowest_adapted_linear);
    tcase_add_test(tc, rows_longer_than_the_learned_positions_are_refused);
    tcase_add_test(tc, gradients_stop_at_the_lowest_adapted_linear);
    tcase_add_loop_test(tc, attention_is_right_across_block_borders, 0,
                        (int)(sizeof windows / sizeof *windows));
    tcase_add_test(tc, windows_begin_at_their_layer);
    tcase_add_test(tc, evaluation_gives_the_loss_of_training);
    tcase_add_loop_test(tc, the_cache_gives_the_logits_of_the_whole_row, 0, 3);
    tcase_add_test(tc, two_runs_give_the_same_bytes);
    tcase_add_test(tc, gradients_add_up_until_they_are_zeroed);
    tcase_add_test(tc, dropout_masks_agree_between_forward_and_backward);
    tcase_add_test(tc, wrong_rows_and_options_are_refused_in_words);
    tcase_add_test(tc, an_adapter_of_another_model_is_refused);
    tcase_add_test(tc, the_memory_estimate_is_the_arena);
    tcase_add_loop_test(tc, bfloat16_trains_like_float32, 0, 3);
    tcase_add_loop_test(tc, a_tight_limit_recomputes_and_gives_the_same_bytes, 0, 3);
    tcase_add_test(tc, a_limit_shrinks_the_micro_batch_before_it_recomputes_and_refuses_below_that);
}

FL_TEST_MAIN("engine", add_tests)

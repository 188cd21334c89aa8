/* DoRA: forward and backward against a naive model in double precision, dropout, where it starts.
 */
#include "runner.h"

#include <math.h>
#include <string.h>

#include "reference.h"
#include "worker/engine/dora.h"
#include "worker/engine/engine.h"

static struct fl_error error;

static struct toy_shape shape_of(int index)
{
    static const char *const architectures[] = {"LlamaForCausalLM", "GPT2LMHeadModel",
                                                "Qwen3ForCausalLM"};
    struct toy_shape shape = toy_default();
    shape.arch = architectures[index];
    shape.biases = index == 0;
    if (index == 1)
        shape.kv_heads = shape.heads;
    return shape;
}

/* Magnitudes beside the norms. */
static struct fl_adapter *toy_dora(const struct fl_model *model, const char *targets)
{
    struct fl_adapter *adapter = toy_adapter(model, targets, 3, 5);
    uint64_t seed = 8;
    fl_assert_ok(fl_dora_start(model, adapter, 2, &error), &error);
    for (uint32_t i = 0; i < adapter->count; i++)
        for (uint32_t j = 0; j < adapter->modules[i].module.out; j++)
            adapter->modules[i].m[j] *= 1.0f + 0.3f * (float)toy_random(&seed);
    return adapter;
}

static struct fl_engine *open_engine(const struct fl_model *model, const struct fl_adapter *adapter,
                                     unsigned train, uint32_t threads, uint64_t limit)
{
    const struct fl_engine_options options = {.threads = threads,
                                              .max_row_tokens = 14,
                                              .max_batch_tokens = 64,
                                              .train = train,
                                              .memory_limit = limit};
    struct fl_engine *engine = NULL;
    fl_assert_ok(fl_engine_create(model, adapter, &options, &engine, &error), &error);
    return engine;
}

static void compare_tensor(const struct fl_model *model, struct fl_adapter *adapter,
                           const struct fl_row *rows, float *values, const float *gradient,
                           size_t n, const char *name)
{
    double difference = 0.0, size = 0.0;
    for (size_t i = 0; i < n; i += 1 + n / 3) {
        const double want = reference_gradient(model, adapter, rows, 3, &values[i]);
        difference += (want - (double)gradient[i]) * (want - (double)gradient[i]);
        size += want * want;
    }
    ck_assert_msg(sqrt(difference) <= 3e-5 * sqrt(size) + 1e-6, "%s: %g of %g", name,
                  sqrt(difference), sqrt(size));
}

START_TEST(gradients_equal_finite_differences_while_the_norms_are_held)
{
    const struct toy_shape shape = shape_of(_i);
    struct fl_model *model = toy_model(&shape, 11);
    struct fl_adapter *adapter = toy_dora(model, "all-linear");
    struct fl_row *rows = toy_rows(model, 3, 4, 5, 3);
    struct fl_engine *engine = open_engine(model, adapter, FL_TRAIN_BOTH, 2, 0);
    const double want = reference_loss(model, adapter, rows, 3);
    double loss;
    uint64_t scored;
    fl_assert_ok(fl_engine_gradients(engine, rows, 3, 0, &loss, &scored, &error), &error);
    ck_assert_double_eq_tol(loss, want, 1e-5 * want);
    for (uint32_t i = 0; i < adapter->count; i++) {
        struct fl_lora_module *m = &adapter->modules[i];
        const struct fl_gradient *g = &fl_engine_gradient(engine)[i];
        const size_t in = m->module.in, out = m->module.out;
        compare_tensor(model, adapter, rows, m->a, g->a, m->rank * in, m->module.name);
        compare_tensor(model, adapter, rows, m->b, g->b, m->rank * out, m->module.name);
        compare_tensor(model, adapter, rows, m->m, g->m, out, m->module.name);
    }
    fl_engine_destroy(&engine);
}
END_TEST

/* The loss of a training step while m / norm is that of `factors`, whatever A and B are. */
static double loss_with(struct fl_engine *engine, const struct fl_model *model,
                        struct fl_adapter *adapter, const struct fl_row *rows,
                        const struct fl_adapter *factors)
{
    double loss;
    uint64_t scored;
    if (factors) {
        fl_assert_ok(fl_dora_start(model, adapter, 1, &error), &error);
        for (uint32_t i = 0; i < adapter->count; i++)
            for (uint32_t j = 0; j < adapter->modules[i].module.out; j++)
                adapter->modules[i].m[j] *= factors->modules[i].m[j];
    }
    fl_engine_zero_gradients(engine);
    fl_assert_ok(fl_engine_gradients(engine, rows, 3, 4, &loss, &scored, &error), &error);
    return loss;
}

static void check_slope(struct fl_engine *engine, const struct fl_model *model,
                        struct fl_adapter *adapter, const struct fl_row *rows,
                        const struct fl_adapter *factors, float *value, double gradient)
{
    const float kept = *value, step = 0x1p-7f;
    *value = kept + step;
    const double high = loss_with(engine, model, adapter, rows, factors);
    *value = kept - step;
    const double low = loss_with(engine, model, adapter, rows, factors);
    *value = kept;
    (void)loss_with(engine, model, adapter, rows, factors);
    ck_assert_double_eq_tol((high - low) / (2.0 * (double)step), gradient,
                            2e-3 + 2e-2 * fabs(gradient));
}

/* With dropout W acts on x and on x' (linear.h): slopes through both, and of all three tensors. */
START_TEST(dropout_reaches_the_base_product_too_and_backward_knows_it)
{
    const struct toy_shape shape = shape_of(_i);
    struct fl_model *model = toy_model(&shape, 11);
    struct fl_adapter *adapter = toy_dora(model, "all-linear"), *factors = NULL;
    adapter->dropout = 0.3;
    struct fl_row *rows = toy_rows(model, 3, 4, 5, 3);
    struct fl_engine *engine = open_engine(model, adapter, FL_TRAIN_BOTH, 1,
                                           0); /* many small steps */
    ck_assert_int_eq(fl_adapter_copy(adapter, &factors), FL_OK);
    fl_assert_ok(fl_dora_start(model, factors, 1, &error), &error);
    for (uint32_t i = 0; i < adapter->count; i++)
        for (uint32_t j = 0; j < adapter->modules[i].module.out; j++)
            factors->modules[i].m[j] = adapter->modules[i].m[j] / factors->modules[i].m[j];
    double loss = loss_with(engine, model, adapter, rows, factors), plain;
    uint64_t scored;
    fl_assert_ok(fl_engine_loss(engine, rows, 3, &plain, &scored, &error), &error);
    ck_assert_double_gt(fabs(loss - plain), 1e-3);
    for (uint32_t i = 0; i < adapter->count; i += 2) {
        struct fl_lora_module *m = &adapter->modules[i];
        (void)loss_with(engine, model, adapter, rows, factors);
        const struct fl_gradient g = fl_engine_gradient(engine)[i];
        const double a = (double)g.a[1], b = (double)g.b[1], magnitude = (double)g.m[1];
        check_slope(engine, model, adapter, rows, factors, &m->a[1], a);
        check_slope(engine, model, adapter, rows, factors, &m->b[1], b);
        check_slope(engine, model, adapter, rows, NULL, &m->m[1], magnitude);
    }
    fl_adapter_destroy(&factors);
    fl_engine_destroy(&engine);
}
END_TEST

START_TEST(dora_starts_where_lora_stands)
{
    const struct toy_shape shape = shape_of(_i);
    struct fl_model *model = toy_model(&shape, 11);
    struct fl_adapter *lora = toy_adapter(model, "all-linear", 3, 5);
    struct fl_adapter *dora = toy_adapter(model, "all-linear", 3, 5);
    struct fl_row *rows = toy_rows(model, 3, 4, 5, 3);
    double loss[2];
    uint64_t scored;
    fl_assert_ok(fl_dora_start(model, dora, 2, &error), &error);
    ck_assert_uint_gt(fl_adapter_parameters(dora), fl_adapter_parameters(lora));
    for (int i = 0; i < 2; i++) {
        struct fl_engine *engine = open_engine(model, i ? dora : lora, FL_TRAIN_NONE, 2, 0);
        fl_assert_ok(fl_engine_loss(engine, rows, 3, &loss[i], &scored, &error), &error);
        fl_engine_destroy(&engine);
    }
    ck_assert_double_eq_tol(loss[0], loss[1], 1e-5 * loss[0]);
}
END_TEST

START_TEST(blocks_that_are_computed_again_give_the_same_bytes)
{
    struct toy_shape shape = toy_default();
    shape.layers = 4;
    struct fl_model *model = toy_model(&shape, 11);
    struct fl_adapter *adapter = toy_dora(model, "all-linear");
    adapter->dropout = 0.2;
    struct fl_row *rows = toy_rows(model, 3, 4, 5, 3);
    struct fl_engine *kept = open_engine(model, adapter, FL_TRAIN_BOTH, 2, 0);
    const struct fl_engine_options options = {
        .threads = 2, .max_row_tokens = 14, .max_batch_tokens = 64, .train = FL_TRAIN_BOTH};
    struct fl_engine *again = open_engine(model, adapter, FL_TRAIN_BOTH, 2,
                                          fl_engine_memory(model, adapter, &options) - 1);
    double loss[2];
    uint64_t scored;
    ck_assert(!fl_engine_recomputes(kept) && fl_engine_recomputes(again));
    fl_assert_ok(fl_engine_gradients(kept, rows, 3, 1, &loss[0], &scored, &error), &error);
    fl_assert_ok(fl_engine_gradients(again, rows, 3, 1, &loss[1], &scored, &error), &error);
    ck_assert(loss[0] == loss[1]);
    for (uint32_t i = 0; i < adapter->count; i++) {
        const struct fl_lora_module *m = &adapter->modules[i];
        const struct fl_gradient *x = &fl_engine_gradient(kept)[i];
        const struct fl_gradient *y = &fl_engine_gradient(again)[i];
        ck_assert_int_eq(memcmp(x->a, y->a, (size_t)m->rank * m->module.in * sizeof *x->a), 0);
        ck_assert_int_eq(memcmp(x->b, y->b, (size_t)m->rank * m->module.out * sizeof *x->b), 0);
        ck_assert_int_eq(memcmp(x->m, y->m, m->module.out * sizeof *x->m), 0);
    }
    fl_engine_destroy(&kept);
    fl_engine_destroy(&again);
}
END_TEST

START_TEST(magnitudes_are_known_for_those_of_this_model)
{
    const struct toy_shape shape = shape_of(_i);
    struct fl_model *model = toy_model(&shape, 11);
    struct fl_adapter *adapter = toy_adapter(model, "all-linear", 3, 5);
    double distance = 1.0;
    fl_assert_ok(fl_dora_start(model, adapter, 2, &error), &error);
    fl_assert_ok(fl_dora_distance(model, adapter, 1, &distance, &error), &error);
    ck_assert_double_le(distance, 1e-6);
    for (uint32_t i = 0; i < adapter->count; i++)
        for (uint32_t j = 0; j < adapter->modules[i].module.out; j++)
            adapter->modules[i].m[j] *= j % 2 ? 1.5f : 0.9f;
    const float first = adapter->modules[0].m[0];
    fl_assert_ok(fl_dora_distance(model, adapter, 2, &distance, &error), &error);
    ck_assert_double_eq_tol(distance, 0.3, 0.02);
    ck_assert(adapter->modules[0].m[0] == first); /* it only looks */
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, NULL, toy_teardown);
    tcase_set_timeout(tc, 180);
    tcase_add_loop_test(tc, gradients_equal_finite_differences_while_the_norms_are_held, 0, 3);
    tcase_add_loop_test(tc, dropout_reaches_the_base_product_too_and_backward_knows_it, 0, 3);
    tcase_add_loop_test(tc, dora_starts_where_lora_stands, 0, 3);
    tcase_add_loop_test(tc, magnitudes_are_known_for_those_of_this_model, 0, 3);
    tcase_add_test(tc, blocks_that_are_computed_again_give_the_same_bytes);
}

FL_TEST_MAIN("engine.dora", add_tests)

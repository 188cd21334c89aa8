/* What a run will take of memory, and how it fits a limit. */
#include "runner.h"

#include <string.h>

#include "reference.h"
#include "worker/engine/finetune.h"
#include "worker/engine/footprint.h"

static struct fl_error error;

static int32_t numbers[64];

static struct fl_row row_of(uint32_t length, int32_t *labels, uint32_t scored)
{
    for (uint32_t t = 0; t < length; t++)
        labels[t] = t < length - scored ? FL_IGNORE : 1;
    return (struct fl_row){.ids = numbers, .labels = labels, .length = length};
}

START_TEST(the_bounds_are_those_of_the_longest_and_of_the_most_scored_rows)
{
    int32_t labels[4][16];
    const struct fl_row rows[] = {row_of(4, labels[0], 3), row_of(9, labels[1], 1),
                                  row_of(7, labels[2], 2), row_of(2, labels[3], 2)};
    struct fl_row_set sets[] = {{rows, 4, 2}, {rows + 3, 1, 8}, {NULL, 0, 8}};
    struct fl_row_bounds bounds;
    fl_assert_ok(fl_row_bounds(sets, 3, &bounds, &error), &error);
    ck_assert_uint_eq(bounds.row_tokens, 9);
    ck_assert_uint_eq(bounds.call_tokens, 9 + 7);
    ck_assert_uint_eq(bounds.call_scored, 3 + 2);
    sets[0].at_once = 100;
    fl_assert_ok(fl_row_bounds(sets, 1, &bounds, &error), &error);
    ck_assert_uint_eq(bounds.call_tokens, 22);
    ck_assert_uint_eq(bounds.call_scored, 3 + 1 + 2 + 1); /* a first token is never scored */
}
END_TEST

static struct fl_finetune_options options_of(uint64_t limit)
{
    struct fl_finetune_options options;
    fl_finetune_defaults(&options);
    options.steps = 4;
    options.batch_size = 3;
    options.threads = 1;
    options.memory_limit = limit;
    return options;
}

static struct fl_footprint train(struct fl_adapter *adapter, const struct fl_model *model,
                                 const struct fl_row *rows, size_t count, uint64_t limit)
{
    const struct fl_finetune_options options = options_of(limit);
    struct fl_finetune_run *run = NULL;
    struct fl_finetune_step step;
    fl_assert_ok(fl_finetune_open(model, adapter, rows, count, &options, &run, &error), &error);
    for (int i = 0; i < 4; i++)
        fl_assert_ok(fl_finetune_advance(run, &step, &error), &error);
    const struct fl_footprint footprint = fl_finetune_footprint(run);
    fl_finetune_close(&run);
    return footprint;
}

START_TEST(a_limit_makes_a_run_recompute_to_the_same_bytes)
{
    struct toy_shape shape = toy_default();
    shape.layers = 4;
    struct fl_model *model = toy_model(&shape, 3);
    struct fl_adapter *free_one = toy_adapter(model, "all-linear", 2, 4),
                      *tight = toy_adapter(model, "all-linear", 2, 4);
    struct fl_row *rows = toy_rows(model, 7, 6, 1, 2);
    const struct fl_footprint whole = train(free_one, model, rows, 7, 0);
    const struct fl_footprint less = train(tight, model, rows, 7, whole.total - 1);
    ck_assert(!whole.recompute && less.recompute);
    ck_assert_uint_eq(whole.batch_tokens, less.batch_tokens);
    ck_assert_uint_lt(less.total, whole.total);
    ck_assert_uint_eq(whole.total, whole.weights + whole.adapter + whole.optimizer +
                                       whole.activations + whole.rest);
    ck_assert_uint_ge(whole.weights, fl_model_parameters(model) * sizeof(float));
    ck_assert_uint_ge(whole.optimizer, 2 * sizeof(float) * fl_adapter_parameters(tight));
    for (uint32_t i = 0; i < tight->count; i++) {
        const struct fl_lora_module *x = &free_one->modules[i], *y = &tight->modules[i];
        ck_assert_int_eq(memcmp(x->a, y->a, (size_t)x->rank * x->module.in * sizeof *x->a), 0);
        ck_assert_int_eq(memcmp(x->b, y->b, (size_t)x->rank * x->module.out * sizeof *x->b), 0);
    }
}
END_TEST

START_TEST(a_limit_below_the_least_is_refused_with_the_least_which_then_fits)
{
    struct toy_shape shape = toy_default();
    struct fl_model *model = toy_model(&shape, 3);
    struct fl_adapter *adapter = toy_adapter(model, "all-linear", 2, 4);
    struct fl_row *rows = toy_rows(model, 7, 6, 1, 2);
    struct fl_finetune_options options = options_of(1 << 20);
    struct fl_finetune_run *run = NULL;
    struct fl_footprint least;
    ck_assert_int_eq(fl_finetune_open(model, adapter, rows, 7, &options, &run, &error), FL_ENOMEM);
    ck_assert_ptr_null(run);
    ck_assert_ptr_nonnull(strstr(error.text, "a memory limit of 1M is too small"));
    ck_assert_ptr_nonnull(strstr(error.text, "need at least "));
    ck_assert_int_eq(fl_finetune_plan(model, adapter, rows, 7, &options, &least, &error),
                     FL_ENOMEM);
    options.memory_limit = least.total - 1;
    ck_assert_int_eq(fl_finetune_plan(model, adapter, rows, 7, &options, &least, &error),
                     FL_ENOMEM);
    options.memory_limit = least.total;
    fl_assert_ok(fl_finetune_plan(model, adapter, rows, 7, &options, &least, &error), &error);
    ck_assert_uint_eq(least.total, options.memory_limit);
    const struct fl_evaluate_options evaluate = {.batch_size = 3, .memory_limit = 1000};
    struct fl_evaluation result;
    ck_assert_int_eq(fl_finetune_evaluate(model, NULL, rows, 7, &evaluate, NULL, &result, &error),
                     FL_ENOMEM);
}
END_TEST

START_TEST(the_head_has_room_for_scored_tokens_only)
{
    struct toy_shape shape = toy_default();
    struct fl_model *model = toy_model(&shape, 3);
    struct fl_engine_options options = {.max_row_tokens = 12, .call_tokens = 36};
    const uint64_t all = fl_engine_memory(model, NULL, &options);
    options.call_scored = 4;
    const uint64_t few = fl_engine_memory(model, NULL, &options);
    ck_assert_uint_ge(all - few, 32 * sizeof(float) * fl_model_config(model)->vocab);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, NULL, toy_teardown);
    tcase_add_test(tc, the_bounds_are_those_of_the_longest_and_of_the_most_scored_rows);
    tcase_add_test(tc, a_limit_makes_a_run_recompute_to_the_same_bytes);
    tcase_add_test(tc, a_limit_below_the_least_is_refused_with_the_least_which_then_fits);
    tcase_add_test(tc, the_head_has_room_for_scored_tokens_only);
}

FL_TEST_MAIN("engine.footprint", add_tests)

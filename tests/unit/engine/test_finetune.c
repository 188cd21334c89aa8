/* The training loop: order of the data, options, stopping, masks, sameness of two runs. */
#include "runner.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "adapter/adapter.h"
#include "base/alloc.h"
#include "worker/engine/finetune.h"
#include "worker/engine/model.h"

#define TINY FL_TEST_SOURCE_DIR "/golden/tiny-llama"

static const int32_t first_ids[] = {5, 17, 300, 41, 8, 99, 12};
static const int32_t second_ids[] = {7, 7, 250, 3};
static const int32_t third_ids[] = {1, 2};
static const int32_t second_labels[] = {7, FL_IGNORE, 250, 3};

static const struct fl_row rows[] = {
    {first_ids, first_ids, 7}, {second_ids, second_labels, 4}, {third_ids, third_ids, 2}};
#define ROWS (sizeof rows / sizeof rows[0])

struct bench {
    struct fl_model *model;
    struct fl_adapter *adapter;
    struct fl_finetune_options options;
    struct fl_finetune_result result;
    struct fl_error error;
};

static bool open_bench(struct bench *b)
{
    memset(b, 0, sizeof *b);
    struct fl_inventory chosen = {0};
    enum fl_status status = fl_model_open(TINY, &b->model, &b->error);
    if (status == FL_OK) {
        status = fl_inventory_select(fl_model_inventory(b->model), "q_proj,down_proj", &chosen,
                                     &b->error);
    }
    if (status == FL_OK) {
        status = fl_adapter_create(&chosen, 2, 4, NULL, &b->adapter, &b->error);
    }
    fl_inventory_free(&chosen);
    if (status != FL_OK) {
        return false;
    }
    fl_adapter_init(b->adapter, 3);
    fl_finetune_defaults(&b->options);
    b->options.steps = 4;
    b->options.batch_size = 2;
    b->options.lr = 1e-2;
    b->options.threads = 1;
    return true;
}

static void close_bench(struct bench *b)
{
    fl_adapter_destroy(&b->adapter);
    fl_model_close(&b->model);
}

static enum fl_status tune(struct bench *b, const struct fl_finetune_watch *watch)
{
    return fl_finetune(b->model, b->adapter, rows, ROWS, &b->options, watch, &b->result, &b->error);
}

START_TEST(an_order_visits_every_row_once)
{
    uint32_t order[257];
    bool seen[257] = {false};
    fl_finetune_order(1, 0, order, 257);
    for (size_t i = 0; i < 257; i++) {
        ck_assert_uint_lt(order[i], 257);
        ck_assert(!seen[order[i]]);
        seen[order[i]] = true;
    }
}
END_TEST

START_TEST(orders_differ_by_epoch_and_seed_and_repeat)
{
    uint32_t a[64], b[64], c[64], again[64];
    fl_finetune_order(1, 0, a, 64);
    fl_finetune_order(1, 1, b, 64);
    fl_finetune_order(2, 0, c, 64);
    fl_finetune_order(1, 0, again, 64);
    ck_assert_mem_ne(a, b, sizeof a);
    ck_assert_mem_ne(a, c, sizeof a);
    ck_assert_mem_eq(a, again, sizeof a);
}
END_TEST

START_TEST(epochs_become_steps_with_the_last_batch_short)
{
    ck_assert_uint_eq(fl_finetune_steps(8, 3, 2), 6);
    ck_assert_uint_eq(fl_finetune_steps(9, 3, 1), 3);
    ck_assert_uint_eq(fl_finetune_steps(1, 64, 5), 5);
    ck_assert_uint_eq(fl_finetune_steps(100, 1, UINT64_MAX), UINT64_MAX);
}
END_TEST

struct seen {
    uint64_t steps, tokens[8];
    double losses[8], lr[8];
    atomic_int stop;
    uint64_t stop_after;
};

static void see(void *context, const struct fl_finetune_step *step)
{
    struct seen *seen = context;
    if (seen->steps < 8) {
        seen->tokens[seen->steps] = step->tokens;
        seen->losses[seen->steps] = step->loss;
        seen->lr[seen->steps] = step->lr;
    }
    seen->steps++;
    if (seen->steps == seen->stop_after) {
        atomic_store(&seen->stop, 1);
    }
}

START_TEST(rows_wrap_around_and_the_short_batch_is_used)
{
    struct bench b;
    struct seen seen = {0};
    struct fl_finetune_watch watch = {.on_step = see, .context = &seen};
    if (open_bench(&b)) {
        b.options.shuffle = false;
        fl_assert_ok(tune(&b, &watch), &b.error);
        ck_assert_uint_eq(seen.steps, 4);
        ck_assert_uint_eq(seen.tokens[0], 11);
        ck_assert_uint_eq(seen.tokens[1], 2);
        ck_assert_uint_eq(seen.tokens[2], 11);
        ck_assert_uint_eq(b.result.tokens, 26);
        ck_assert_uint_eq(b.result.scored, 2 * (6 + 2 + 1));
        ck_assert_double_lt(seen.losses[2], seen.losses[0]);
        ck_assert_double_eq(b.result.loss, seen.losses[3]);
    }
    close_bench(&b);
}
END_TEST

START_TEST(two_runs_give_the_same_bytes)
{
    struct bench a, b;
    bool ready = open_bench(&a);
    ready = open_bench(&b) && ready;
    if (ready) {
        fl_assert_ok(tune(&a, NULL), &a.error);
        fl_assert_ok(tune(&b, NULL), &b.error);
        for (uint32_t i = 0; i < a.adapter->count; i++) {
            const struct fl_lora_module *m = &a.adapter->modules[i];
            ck_assert_mem_eq(m->a, b.adapter->modules[i].a, m->rank * m->module.in * sizeof(float));
            ck_assert_mem_eq(m->b, b.adapter->modules[i].b,
                             m->rank * m->module.out * sizeof(float));
        }
    }
    close_bench(&a);
    close_bench(&b);
}
END_TEST

START_TEST(a_factor_that_is_not_trained_keeps_its_bytes)
{
    struct bench b;
    struct fl_adapter *start = NULL;
    if (open_bench(&b) && fl_adapter_copy(b.adapter, &start) == FL_OK) {
        b.options.train = FL_TRAIN_B;
        fl_assert_ok(tune(&b, NULL), &b.error);
        for (uint32_t i = 0; i < start->count; i++) {
            const struct fl_lora_module *m = &start->modules[i];
            ck_assert_mem_eq(m->a, b.adapter->modules[i].a, m->rank * m->module.in * sizeof(float));
            ck_assert_mem_ne(m->b, b.adapter->modules[i].b,
                             m->rank * m->module.out * sizeof(float));
        }
    }
    fl_adapter_destroy(&start);
    close_bench(&b);
}
END_TEST

START_TEST(a_set_stop_flag_ends_the_run_before_the_next_step)
{
    struct bench b;
    struct seen seen = {.stop_after = 2};
    struct fl_finetune_watch watch = {.on_step = see, .context = &seen, .stop = &seen.stop};
    if (open_bench(&b)) {
        enum fl_status status = tune(&b, &watch);
        ck_assert_int_eq(status, FL_ESTOPPED);
        ck_assert_uint_eq(b.result.steps, 2);
        ck_assert_uint_eq(seen.steps, 2);
    }
    close_bench(&b);
}
END_TEST

START_TEST(the_schedule_runs_over_the_whole_job)
{
    struct bench b;
    struct seen seen = {0};
    struct fl_finetune_watch watch = {.on_step = see, .context = &seen};
    if (open_bench(&b)) {
        b.options.schedule = FL_SCHEDULE_LINEAR;
        b.options.first_step = 4;
        b.options.total_steps = 8;
        fl_assert_ok(tune(&b, &watch), &b.error);
        for (size_t i = 0; i < 4; i++) {
            ck_assert_double_eq_tol(seen.lr[i], 1e-2 * (double)(4 - i) / 8, 1e-12);
        }
    }
    close_bench(&b);
}
END_TEST

static double largest_difference(const struct fl_adapter *a, const struct fl_adapter *b)
{
    double worst = 0;
    for (uint32_t i = 0; i < a->count; i++) {
        const struct fl_lora_module *m = &a->modules[i], *n = &b->modules[i];
        for (size_t j = 0; j < (size_t)m->rank * m->module.in; j++) {
            worst = fmax(worst, fabs((double)m->a[j] - (double)n->a[j]));
        }
        for (size_t j = 0; j < (size_t)m->rank * m->module.out; j++) {
            worst = fmax(worst, fabs((double)m->b[j] - (double)n->b[j]));
        }
    }
    return worst;
}

START_TEST(small_batches_add_up_to_a_large_one)
{
    struct bench large, small;
    struct seen seen[2] = {0};
    struct fl_finetune_watch watch[2] = {{.on_step = see, .context = &seen[0]},
                                         {.on_step = see, .context = &seen[1]}};
    bool ready = open_bench(&large);
    ready = open_bench(&small) && ready;
    if (ready) {
        small.options.batch_size = 1;
        small.options.accumulate = 2; /* of 3 rows: an epoch ends with a step of one */
        fl_assert_ok(tune(&large, &watch[0]), &large.error);
        fl_assert_ok(tune(&small, &watch[1]), &small.error);
        for (size_t i = 0; i < 4; i++) {
            ck_assert_uint_eq(seen[0].tokens[i], seen[1].tokens[i]);
            ck_assert_double_eq_tol(seen[0].losses[i], seen[1].losses[i], 1e-5);
        }
        ck_assert_double_lt(largest_difference(large.adapter, small.adapter), 1e-4);
    }
    close_bench(&large);
    close_bench(&small);
}
END_TEST

/* `steps` steps of a run that goes on from *state (length 0: the beginning), and its state then. */
static void run_part(struct bench *b, uint64_t steps, struct fl_finetune_position *position,
                     struct fl_buf *state)
{
    struct fl_finetune_run *run;
    struct fl_finetune_step step;
    fl_assert_ok(fl_finetune_open(b->model, b->adapter, rows, ROWS, &b->options, &run, &b->error),
                 &b->error);
    if (state->length) {
        fl_assert_ok(fl_optimizer_decode(fl_finetune_optimizer(run), b->adapter, state->data,
                                         state->length, "state", &b->error),
                     &b->error);
    }
    fl_assert_ok(fl_finetune_seek(run, position, &b->error), &b->error);
    for (uint64_t i = 0; i < steps; i++) {
        struct fl_evaluation evaluation;
        fl_assert_ok(fl_finetune_advance(run, &step, &b->error), &b->error);
        fl_assert_ok(fl_finetune_validate(run, rows, ROWS, NULL, &evaluation, &b->error),
                     &b->error);
        ck_assert_uint_eq(evaluation.scored, 9);
    }
    *position = fl_finetune_position(run);
    fl_buf_free(state);
    fl_buf_init(state, 1u << 24);
    fl_assert_ok(fl_optimizer_encode(fl_finetune_optimizer(run), b->adapter, state, &b->error),
                 &b->error);
    fl_finetune_close(&run);
}

START_TEST(a_run_in_pieces_gives_the_bytes_of_a_whole_one)
{
    struct bench whole, pieces;
    bool ready = open_bench(&whole);
    ready = open_bench(&pieces) && ready;
    if (ready) {
        struct fl_finetune_position position = {0};
        struct fl_buf state;
        fl_buf_init(&state, 1u << 24);
        whole.adapter->dropout = pieces.adapter->dropout = 0.3;
        whole.options.steps = pieces.options.steps = 5;
        whole.options.schedule = pieces.options.schedule = FL_SCHEDULE_COSINE;
        whole.options.batch_size = pieces.options.batch_size = 1;
        whole.options.accumulate = pieces.options.accumulate = 2;
        fl_assert_ok(tune(&whole, NULL), &whole.error);
        run_part(&pieces, 1, &position, &state);
        run_part(&pieces, 1, &position, &state);
        ck_assert_uint_eq(position.cursor, 3);
        run_part(&pieces, 3, &position, &state);
        ck_assert_uint_eq(position.step, 5);
        ck_assert_uint_eq(position.epoch, 2);
        ck_assert_double_eq(largest_difference(whole.adapter, pieces.adapter), 0);
        fl_buf_free(&state);
    }
    close_bench(&whole);
    close_bench(&pieces);
}
END_TEST

START_TEST(a_position_that_no_run_can_have_is_refused)
{
    static const struct fl_finetune_position wrong[] = {
        {.step = 1, .epoch = 0, .cursor = 4}, {.step = 1, .epoch = 0, .cursor = 1},
        {.step = 2, .epoch = 0, .cursor = 2}, {.step = 1, .epoch = 0, .cursor = 0},
        {.step = 1, .epoch = 7, .cursor = 2}, {.step = 1, .epoch = UINT64_MAX, .cursor = 2}};
    static const struct fl_finetune_position right[] = {
        {0}, {.step = 1, .epoch = 0, .cursor = 2}, {.step = 6, .epoch = 2, .cursor = 3}};
    struct bench b;
    if (open_bench(&b)) {
        struct fl_finetune_run *run;
        fl_assert_ok(fl_finetune_open(b.model, b.adapter, rows, ROWS, &b.options, &run, &b.error),
                     &b.error);
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
            ck_assert_int_eq(fl_finetune_seek(run, &wrong[i], &b.error), FL_EFORMAT);
        }
        for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
            fl_assert_ok(fl_finetune_seek(run, &right[i], &b.error), &b.error);
        }
        fl_finetune_close(&run);
    }
    close_bench(&b);
}
END_TEST

START_TEST(options_that_make_no_sense_are_refused)
{
    struct bench b;
    if (open_bench(&b)) {
        struct fl_finetune_options good = b.options;
        b.options.steps = 0;
        ck_assert_int_eq(tune(&b, NULL), FL_EINVAL);
        b.options = good;
        b.options.batch_size = 0;
        ck_assert_int_eq(tune(&b, NULL), FL_EINVAL);
        b.options = good;
        b.options.accumulate = 0;
        ck_assert_int_eq(tune(&b, NULL), FL_EINVAL);
        b.options = good;
        b.options.train = FL_TRAIN_NONE;
        ck_assert_int_eq(tune(&b, NULL), FL_EINVAL);
        b.options = good;
        b.options.lr = -1;
        ck_assert_int_eq(tune(&b, NULL), FL_EINVAL);
        b.options = good;
        b.options.grad_clip = -1;
        ck_assert_int_eq(tune(&b, NULL), FL_EINVAL);
        ck_assert_int_eq(fl_finetune(b.model, b.adapter, rows, 0, &good, NULL, &b.result, &b.error),
                         FL_EINVAL);
    }
    close_bench(&b);
}
END_TEST

START_TEST(evaluation_does_not_depend_on_how_rows_are_grouped)
{
    struct bench b;
    if (open_bench(&b)) {
        struct fl_evaluation whole, single;
        struct fl_evaluate_options one = {.batch_size = 1, .threads = 1};
        fl_assert_ok(
            fl_finetune_evaluate(b.model, b.adapter, rows, ROWS, NULL, NULL, &whole, &b.error),
            &b.error);
        fl_assert_ok(
            fl_finetune_evaluate(b.model, b.adapter, rows, ROWS, &one, NULL, &single, &b.error),
            &b.error);
        ck_assert_uint_eq(whole.scored, 9);
        ck_assert_uint_eq(whole.tokens, 13);
        ck_assert_uint_eq(single.scored, 9);
        ck_assert_double_eq_tol(whole.loss_sum, single.loss_sum, 1e-4);
    }
    close_bench(&b);
}
END_TEST

START_TEST(a_new_adapter_changes_nothing_until_it_is_trained)
{
    struct bench b;
    if (open_bench(&b)) {
        struct fl_evaluation base, adapted;
        fl_assert_ok(fl_finetune_evaluate(b.model, NULL, rows, ROWS, NULL, NULL, &base, &b.error),
                     &b.error);
        fl_assert_ok(
            fl_finetune_evaluate(b.model, b.adapter, rows, ROWS, NULL, NULL, &adapted, &b.error),
            &b.error);
        ck_assert_double_eq_tol(base.loss_sum, adapted.loss_sum, 1e-5);
    }
    close_bench(&b);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, an_order_visits_every_row_once);
    tcase_add_test(tc, orders_differ_by_epoch_and_seed_and_repeat);
    tcase_add_test(tc, epochs_become_steps_with_the_last_batch_short);
    tcase_add_test(tc, rows_wrap_around_and_the_short_batch_is_used);
    tcase_add_test(tc, two_runs_give_the_same_bytes);
    tcase_add_test(tc, a_factor_that_is_not_trained_keeps_its_bytes);
    tcase_add_test(tc, a_set_stop_flag_ends_the_run_before_the_next_step);
    tcase_add_test(tc, the_schedule_runs_over_the_whole_job);
    tcase_add_test(tc, small_batches_add_up_to_a_large_one);
    tcase_add_test(tc, a_run_in_pieces_gives_the_bytes_of_a_whole_one);
    tcase_add_test(tc, a_position_that_no_run_can_have_is_refused);
    tcase_add_test(tc, options_that_make_no_sense_are_refused);
    tcase_add_test(tc, evaluation_does_not_depend_on_how_rows_are_grouped);
    tcase_add_test(tc, a_new_adapter_changes_nothing_until_it_is_trained);
}
FL_TEST_MAIN("engine/finetune", add_tests)

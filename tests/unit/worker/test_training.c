/* The life of a run: stopped, resumed, refused, and a disk that is full. */
#include "runner.h"
#include "tiny_run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "format/peft.h"
#include "worker/course.h"
#include "worker/training.h"

struct bench {
    struct tiny_run tiny;
    struct fl_training training;
    struct fl_training_result result;
    char out[FL_PATH_BYTES];
    atomic_int stop;
    uint64_t stop_at, stop_behind, fail_writes_at; /* steps */
    uint64_t resumed_at, steps, evaluations, checkpoints, troubles;
    char trouble[FL_ERROR_TEXT_BYTES];
    struct bench *rival; /* begins behind each checkpoint; NULL: none */
    enum fl_status rival_status;
};

static enum fl_status run(struct bench *b);

static void on_resume(void *context, uint64_t step, const char *directory)
{
    struct bench *b = context;
    b->resumed_at = step;
    ck_assert((step == 0) == (directory[0] == '\0'));
}

static void on_step(void *context, const struct fl_finetune_step *step)
{
    struct bench *b = context;
    b->steps++;
    if (step->step == b->stop_at) {
        atomic_store(&b->stop, 1);
    }
    if (step->step == b->fail_writes_at) {
        fl_fs_fail_write_at(0);
    }
}

static void on_checkpoint(void *context, uint64_t step, const char *directory)
{
    struct bench *b = context;
    b->checkpoints++;
    ck_assert_uint_gt(step, 0);
    ck_assert(fl_path_is_directory(directory));
    if (b->rival) {
        b->rival_status = run(b->rival);
    }
}

static void on_trouble(void *context, const char *text)
{
    struct bench *b = context;
    b->troubles++;
    (void)snprintf(b->trouble, sizeof b->trouble, "%s", text);
}

static enum fl_status identify(void *context, json_t *settings, struct fl_error *error)
{
    (void)context;
    return json_object_set_new(settings, "--lr", json_string("0.01")) == 0 ? FL_OK
                                                                           : fl_fail_memory(error);
}

static void on_validation(void *context, const struct fl_validation *so_far,
                          const struct fl_evaluation *evaluation, unsigned brought)
{
    struct bench *b = context;
    b->evaluations++;
    ck_assert_uint_eq(evaluation->scored, b->training.valid_count == 1 ? 2 : 9);
    ck_assert_int_eq((brought & FL_VALIDATION_BEST) != 0, so_far->stale == 0);
    if (so_far->step == b->stop_behind) {
        atomic_store(&b->stop, 1);
    }
}

static void card(void *context, const struct fl_finetune_result *total,
                 const struct fl_validation *validation, bool best, struct fl_buf *out)
{
    (void)context;
    fl_buf_printf(out, "step %llu, evaluation %llu\n",
                  (unsigned long long)(best ? validation->best_step : total->steps),
                  (unsigned long long)validation->evaluations);
}

static bool open_bench(struct bench *b)
{
    memset(b, 0, sizeof *b);
    if (!tiny_open(&b->tiny)) {
        return false;
    }
    char directory[FL_PATH_BYTES];
    fl_test_directory(directory);
    (void)snprintf(b->out, sizeof b->out, "%.4000s/out", directory);
    b->training = (struct fl_training){
        .model = b->tiny.model,
        .adapter = b->tiny.adapter,
        .rows = tiny_rows,
        .count = TINY_ROWS,
        .options = b->tiny.options,
        .out = b->out,
        .stop = &b->stop,
        .watch = {b, on_resume, on_step, on_validation, on_checkpoint, on_trouble, identify, NULL,
                  card},
    };
    return true;
}

static enum fl_status run(struct bench *b)
{
    b->steps = 0;
    b->resumed_at = 99;
    return fl_training_run(&b->training, &b->result, &b->tiny.error);
}

/* A fresh adapter and a lowered flag, as a new process has them. */
static void begin_again(struct bench *b)
{
    fl_adapter_init(b->tiny.adapter, 3);
    atomic_store(&b->stop, 0);
    b->stop_at = b->stop_behind = 0;
}

static bool same_file(const struct bench *a, const struct bench *b, const char *name)
{
    char path[FL_PATH_BYTES];
    struct fl_error error = {0};
    struct fl_buf x, y;
    (void)snprintf(path, sizeof path, "%.3000s/%s", a->out, name);
    fl_assert_ok(fl_fs_read(path, 1u << 24, &x, &error), &error);
    (void)snprintf(path, sizeof path, "%.3000s/%s", b->out, name);
    fl_assert_ok(fl_fs_read(path, 1u << 24, &y, &error), &error);
    bool same = x.length == y.length && memcmp(x.data, y.data, x.length) == 0;
    fl_buf_free(&x);
    fl_buf_free(&y);
    return same;
}

static bool there(const struct bench *b, const char *name)
{
    char path[FL_PATH_BYTES];
    int length = snprintf(path, sizeof path, "%.3000s/%s", b->out, name);
    return length > 0 && fl_path_exists(path);
}

START_TEST(a_stopped_run_resumes_to_the_bytes_of_one_that_was_not)
{
    struct bench whole, stopped;
    bool ready = open_bench(&whole);
    ready = open_bench(&stopped) && ready;
    if (ready) {
        fl_assert_ok(run(&whole), &whole.tiny.error);
        ck_assert(!there(&whole, "checkpoints"));
        for (uint64_t at = 1; at < 6; at++) {
            begin_again(&stopped);
            stopped.stop_at = at;
            stopped.training.resume = true;
            ck_assert_int_eq(run(&stopped), FL_ESTOPPED);
            ck_assert_uint_eq(stopped.resumed_at, at - 1);
            ck_assert_uint_eq(stopped.steps, 1);
            ck_assert(fl_path_is_directory(stopped.result.saved));
            ck_assert_ptr_nonnull(strstr(stopped.tiny.error.text, stopped.result.saved));
        }
        begin_again(&stopped);
        fl_assert_ok(run(&stopped), &stopped.tiny.error);
        ck_assert_uint_eq(stopped.result.resumed, 5);
        ck_assert_uint_eq(stopped.result.total.steps, 6);
        ck_assert_uint_eq(stopped.result.total.tokens, whole.result.total.tokens);
        ck_assert(stopped.result.total.loss == whole.result.total.loss);
        ck_assert(same_file(&whole, &stopped, FL_PEFT_WEIGHTS));
        ck_assert(same_file(&whole, &stopped, FL_PEFT_CONFIG));
        ck_assert(same_file(&whole, &stopped, "README.md"));
    }
    tiny_close(&whole.tiny);
    tiny_close(&stopped.tiny);
}
END_TEST

START_TEST(a_run_stopped_before_its_first_step_leaves_nothing)
{
    struct bench b;
    if (open_bench(&b)) {
        atomic_store(&b.stop, 1);
        ck_assert_int_eq(run(&b), FL_ESTOPPED);
        ck_assert_str_eq(b.result.saved, "");
        ck_assert(!fl_path_exists(b.out));
    }
    tiny_close(&b.tiny);
}
END_TEST

START_TEST(an_older_adapter_stays_until_something_can_replace_it)
{
    struct bench b;
    if (open_bench(&b)) {
        fl_assert_ok(run(&b), &b.tiny.error);
        begin_again(&b);
        atomic_store(&b.stop, 1);
        ck_assert_int_eq(run(&b), FL_ESTOPPED);
        ck_assert(there(&b, FL_PEFT_CONFIG));
        begin_again(&b);
        b.training.checkpoint_every = 2;
        b.training.keep_checkpoints = 2;
        fl_assert_ok(run(&b), &b.tiny.error);
        ck_assert_uint_eq(b.checkpoints, 3);
        ck_assert(!there(&b, "checkpoints/step-2"));
        ck_assert(there(&b, "checkpoints/step-6"));
        ck_assert_int_eq(run(&b), FL_EEXIST); /* would lose the checkpoints */
        ck_assert_ptr_nonnull(strstr(b.tiny.error.text, "--resume"));
        b.training.resume = true;
        fl_assert_ok(run(&b), &b.tiny.error);
        ck_assert_uint_eq(b.steps, 0);
    }
    tiny_close(&b.tiny);
}
END_TEST

START_TEST(what_is_no_run_is_not_resumed_and_not_replaced)
{
    struct bench b;
    if (open_bench(&b)) {
        fl_assert_ok(run(&b), &b.tiny.error);
        ck_assert_int_eq(fl_training_check_out(b.out, true, &b.tiny.error), FL_ENOTFOUND);
        fl_assert_ok(fl_training_check_out(b.out, false, &b.tiny.error), &b.tiny.error);
        fl_test_directory(b.out);
        ck_assert_int_eq(fl_training_check_out(b.out, false, &b.tiny.error), FL_EEXIST);
        ck_assert_int_eq(fl_training_check_out(b.out, true, &b.tiny.error), FL_EEXIST);
    }
    tiny_close(&b.tiny);
}
END_TEST

START_TEST(two_runs_do_not_share_a_directory)
{
    struct bench first, second;
    bool ready = open_bench(&first);
    ready = open_bench(&second) && ready;
    if (ready) {
        second.training.out = first.out;
        second.training.resume = true;
        first.training.checkpoint_every = 6;
        first.rival = &second;
        fl_assert_ok(run(&first), &first.tiny.error);
        ck_assert_int_eq(first.rival_status, FL_EBUSY);
        ck_assert_ptr_nonnull(strstr(second.tiny.error.text, first.out));
        fl_assert_ok(run(&second), &second.tiny.error);
        ck_assert_uint_eq(second.resumed_at, 6);
    }
    tiny_close(&first.tiny);
    tiny_close(&second.tiny);
}
END_TEST

START_TEST(other_rows_are_refused)
{
    struct bench b;
    if (open_bench(&b)) {
        b.stop_at = 2;
        ck_assert_int_eq(run(&b), FL_ESTOPPED);
        begin_again(&b);
        b.training.resume = true;
        b.training.count = 2;
        ck_assert_int_eq(run(&b), FL_EUSAGE);
        ck_assert_ptr_nonnull(strstr(b.tiny.error.text, "--data"));
    }
    tiny_close(&b.tiny);
}
END_TEST

START_TEST(a_full_disk_costs_a_checkpoint_and_not_the_run)
{
    struct bench b;
    if (open_bench(&b)) {
        b.training.checkpoint_every = 2;
        b.fail_writes_at = 4;
        fl_assert_ok(run(&b), &b.tiny.error);
        ck_assert_uint_eq(b.troubles, 1);
        ck_assert_ptr_nonnull(strstr(b.trouble, "no checkpoint at step 4"));
        ck_assert_uint_eq(b.checkpoints, 2);
        ck_assert(!there(&b, "checkpoints/step-4"));
        ck_assert(there(&b, "checkpoints/step-6"));
    }
    tiny_close(&b.tiny);
}
END_TEST

/* Evaluated on its own rows after every second step; its losses fall, so the last is the best. */
static void validate(struct bench *b)
{
    b->training.valid = tiny_rows;
    b->training.valid_count = TINY_ROWS;
    b->training.eval_every = 2;
}

START_TEST(evaluations_change_nothing_and_the_last_step_has_one)
{
    struct bench plain, watched;
    bool ready = open_bench(&plain);
    ready = open_bench(&watched) && ready;
    if (ready) {
        validate(&watched);
        watched.training.eval_every = 4;
        fl_assert_ok(run(&plain), &plain.tiny.error);
        fl_assert_ok(run(&watched), &watched.tiny.error);
        ck_assert_uint_eq(watched.evaluations, 2);
        ck_assert_uint_eq(watched.result.validation.step, 6);
        ck_assert(same_file(&plain, &watched, FL_PEFT_WEIGHTS));
        ck_assert(!there(&plain, "best"));
        ck_assert(there(&watched, "best/" FL_PEFT_CONFIG));
    }
    tiny_close(&plain.tiny);
    tiny_close(&watched.tiny);
}
END_TEST

/* Evaluated on a row that it is trained away from: the first evaluation is the best. */
static const int32_t odd_ids[] = {5, 300, 300}, odd_labels[] = {5, 9, 9};
static const struct fl_row odd_row = {odd_ids, odd_labels, 3};

static void validate_odd(struct bench *b)
{
    b->training.valid = &odd_row;
    b->training.valid_count = 1;
    b->training.eval_every = 1;
    b->training.options.steps = 12;
    b->training.options.lr = 5e-2;
    b->training.options.schedule = FL_SCHEDULE_CONSTANT;
}

START_TEST(patience_ends_a_run_and_the_best_is_kept)
{
    struct bench patient, early, best;
    bool ready = open_bench(&patient);
    ready = open_bench(&early) && ready;
    ready = open_bench(&best) && ready;
    if (ready) {
        validate_odd(&patient);
        fl_assert_ok(run(&patient), &patient.tiny.error);
        const struct fl_validation *v = &patient.result.validation;
        ck_assert_uint_lt(v->best_step, 10); /* else this test says nothing */
        validate_odd(&early);
        early.training.patience = 2;
        fl_assert_ok(run(&early), &early.tiny.error);
        ck_assert(early.result.early);
        ck_assert_uint_eq(early.result.total.steps, early.result.validation.best_step + 2);
        validate_odd(&best);
        best.training.keep_best = true;
        best.training.options.steps = v->best_step;
        fl_assert_ok(run(&best), &best.tiny.error);
        ck_assert(!there(&best, "best"));
        char path[FL_PATH_BYTES];
        (void)snprintf(path, sizeof path, "%.3000s/best", patient.out);
        memcpy(patient.out, path, sizeof path);
        ck_assert(same_file(&patient, &best, FL_PEFT_WEIGHTS));
    }
    tiny_close(&patient.tiny);
    tiny_close(&early.tiny);
    tiny_close(&best.tiny);
}
END_TEST

/* A line for each step, each with its evaluation. */
static void check_metrics(const struct bench *b, uint64_t steps)
{
    char path[FL_PATH_BYTES];
    struct fl_error error = {0};
    struct fl_course metrics = {0};
    (void)snprintf(path, sizeof path, "%.3000s/metrics.jsonl", b->out);
    fl_assert_ok(fl_course_load(&metrics, path, steps, &error), &error);
    ck_assert_uint_eq(metrics.count, steps);
    for (size_t i = 0; i < metrics.count; i++) {
        ck_assert_uint_eq(metrics.points[i].step, i + 1);
        ck_assert(isfinite(metrics.points[i].valid_loss));
    }
    fl_course_free(&metrics);
}

START_TEST(a_run_goes_on_without_its_metrics)
{
    struct bench b;
    if (open_bench(&b)) {
        char path[FL_PATH_BYTES];
        b.stop_at = 3;
        ck_assert_int_eq(run(&b), FL_ESTOPPED);
        (void)snprintf(path, sizeof path, "%.3000s/metrics.jsonl", b.out);
        fl_assert_ok(fl_fs_write(path, "broken", 6, 0644, &b.tiny.error), &b.tiny.error);
        begin_again(&b);
        b.training.resume = true;
        fl_assert_ok(run(&b), &b.tiny.error);
        ck_assert_uint_eq(b.troubles, 1);
        ck_assert_ptr_nonnull(strstr(b.trouble, "metrics.jsonl:1"));
    }
    tiny_close(&b.tiny);
}
END_TEST

START_TEST(a_run_stopped_while_it_is_evaluated_resumes_to_the_same_best)
{
    struct bench whole, stopped;
    bool ready = open_bench(&whole);
    ready = open_bench(&stopped) && ready;
    if (ready) {
        validate_odd(&whole);
        validate_odd(&stopped);
        whole.training.patience = stopped.training.patience = 3;
        fl_assert_ok(run(&whole), &whole.tiny.error);
        stopped.training.resume = true;
        enum fl_status status = FL_ESTOPPED;
        for (uint64_t at = 1; status == FL_ESTOPPED; at++) {
            begin_again(&stopped);
            stopped.stop_at = at % 2 ? at : 0;     /* before the evaluation of this step */
            stopped.stop_behind = at % 2 ? 0 : at; /* behind it */
            status = run(&stopped);
            ck_assert_uint_lt(at, 20);
        }
        fl_assert_ok(status, &stopped.tiny.error);
        ck_assert_mem_eq(&whole.result.validation, &stopped.result.validation,
                         sizeof whole.result.validation);
        ck_assert(same_file(&whole, &stopped, FL_PEFT_WEIGHTS));
        ck_assert(same_file(&whole, &stopped, "best/" FL_PEFT_WEIGHTS));
        ck_assert(same_file(&whole, &stopped, "best/README.md"));
        check_metrics(&stopped, whole.result.total.steps);
        ck_assert(there(&stopped, "training.html"));
        ck_assert(!there(&stopped, "unfinished"));
    }
    tiny_close(&whole.tiny);
    tiny_close(&stopped.tiny);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, a_stopped_run_resumes_to_the_bytes_of_one_that_was_not);
    tcase_add_test(tc, a_run_stopped_before_its_first_step_leaves_nothing);
    tcase_add_test(tc, an_older_adapter_stays_until_something_can_replace_it);
    tcase_add_test(tc, what_is_no_run_is_not_resumed_and_not_replaced);
    tcase_add_test(tc, two_runs_do_not_share_a_directory);
    tcase_add_test(tc, other_rows_are_refused);
    tcase_add_test(tc, evaluations_change_nothing_and_the_last_step_has_one);
    tcase_add_test(tc, patience_ends_a_run_and_the_best_is_kept);
    tcase_add_test(tc, a_run_stopped_while_it_is_evaluated_resumes_to_the_same_best);
    tcase_add_test(tc, a_run_goes_on_without_its_metrics);
    tcase_add_test(tc, a_full_disk_costs_a_checkpoint_and_not_the_run);
}

FL_TEST_MAIN("worker/training", add_tests)

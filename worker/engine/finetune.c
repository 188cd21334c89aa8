/*
 * finetune.c - see finetune.h. One struct run holds what a call needs; nothing is allocated once
 * the first step has begun.
 *
 * Invariants: order[0..count) is always a permutation of the rows; cursor <= count; the adapter
 * changes only inside fl_optimizer_step(), so a failed step leaves the last good one.
 */
#include "worker/engine/finetune.h"

#include <assert.h>
#include <math.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "crypto/prg.h"

#define FL_EVALUATE_ROWS 16

struct run {
    const struct fl_finetune_options *options;
    struct fl_adapter *adapter; /* borrowed */
    const struct fl_row *rows;  /* (count), borrowed */
    uint32_t count;
    struct fl_engine *engine;
    struct fl_optimizer *optimizer;
    uint32_t *order;      /* (count) */
    struct fl_row *batch; /* (batch_size) */
    uint32_t cursor;      /* rows of this epoch that were already used */
    uint64_t epoch;
};

void fl_finetune_defaults(struct fl_finetune_options *options)
{
    *options = (struct fl_finetune_options){
        .batch_size = 4,
        .lr = 1e-3,
        .lr_a = -1,
        .lr_b = -1,
        .schedule = FL_SCHEDULE_CONSTANT,
        .optimizer = FL_OPTIMIZER_ADAMW,
        .grad_clip = 1.0,
        .shuffle = true,
        .train = FL_TRAIN_BOTH,
    };
}

uint64_t fl_finetune_steps(size_t count, uint32_t batch_size, uint64_t epochs)
{
    assert(batch_size > 0);
    uint64_t an_epoch = count / batch_size + (count % batch_size != 0);
    if (an_epoch != 0 && epochs > UINT64_MAX / an_epoch) {
        return UINT64_MAX;
    }
    return an_epoch * epochs;
}

void fl_finetune_order(uint64_t seed, uint64_t epoch, uint32_t *order, uint32_t count)
{
    struct fl_prf prf;
    struct fl_prg prg;
    uint8_t epoch_seed[FL_SEED_BYTES];
    fl_prf_begin_u64(&prf, seed, "row order");
    fl_prf_u64(&prf, epoch);
    fl_prf_end(&prf, epoch_seed);
    fl_prg_init(&prg, epoch_seed);
    for (uint32_t i = 0; i < count; i++) {
        order[i] = i;
    }
    fl_prg_shuffle(&prg, order, count);
}

static uint32_t longest(const struct fl_row *rows, size_t count)
{
    uint32_t length = 1;
    for (size_t i = 0; i < count; i++) {
        if (rows[i].length > length) {
            length = rows[i].length;
        }
    }
    return length;
}

static enum fl_status check_rows(const struct fl_row *rows, size_t count, struct fl_error *error)
{
    if (count == 0) {
        return fl_fail(error, FL_EINVAL, "there is no row to read");
    }
    if (count > UINT32_MAX / 2 || !rows) {
        return fl_fail(error, FL_EINVAL, "too many rows: %zu", count);
    }
    return FL_OK;
}

static bool not_negative(double value)
{
    return isfinite(value) && value >= 0;
}

static enum fl_status check_options(const struct fl_finetune_options *o, struct fl_error *error)
{
    const char *wrong = NULL;
    if (o->steps == 0) {
        wrong = "steps must be at least 1";
    } else if (o->batch_size == 0) {
        wrong = "the batch size must be at least 1";
    } else if (!not_negative(o->lr) || !isfinite(o->lr_a) || !isfinite(o->lr_b)) {
        wrong = "a learning rate must be a number of at least 0";
    } else if (!not_negative(o->weight_decay)) {
        wrong = "weight decay must be at least 0";
    } else if (!not_negative(o->grad_clip)) {
        wrong = "the gradient clip must be at least 0";
    } else if ((o->train & FL_TRAIN_BOTH) == FL_TRAIN_NONE) {
        wrong = "at least one factor must be trained";
    } else if (o->steps > UINT64_MAX - o->first_step) {
        wrong = "too many steps";
    }
    return wrong ? fl_fail(error, FL_EINVAL, "%s", wrong) : FL_OK;
}

static void run_close(struct run *self)
{
    fl_engine_destroy(&self->engine);
    fl_optimizer_destroy(&self->optimizer);
    fl_free(self->order);
    fl_free(self->batch);
}

static void start_epoch(struct run *self)
{
    self->cursor = 0;
    if (self->options->shuffle) {
        fl_finetune_order(self->options->seed, self->epoch, self->order, self->count);
    }
}

static enum fl_status run_open(struct run *self, const struct fl_model *model,
                               struct fl_error *error)
{
    const struct fl_finetune_options *o = self->options;
    struct fl_engine_options engine = {
        .threads = o->threads,
        .compute = o->compute,
        .max_row_tokens = longest(self->rows, self->count),
        .max_batch_tokens = o->max_batch_tokens,
        .train = o->train,
        .seed = o->seed,
    };
    struct fl_optimizer_options optimizer = fl_optimizer_defaults();
    optimizer.kind = o->optimizer;
    optimizer.weight_decay = o->weight_decay;
    optimizer.grad_clip = o->grad_clip;
    optimizer.train = o->train;

    self->order = fl_calloc(self->count, sizeof *self->order);
    self->batch = fl_calloc(o->batch_size, sizeof *self->batch);
    if (!self->order || !self->batch) {
        return fl_fail_memory(error);
    }
    for (uint32_t i = 0; i < self->count; i++) {
        self->order[i] = i;
    }
    start_epoch(self);
    enum fl_status status = fl_engine_create(model, self->adapter, &engine, &self->engine, error);
    if (status == FL_OK) {
        status = fl_optimizer_create(self->adapter, &optimizer, &self->optimizer, error);
    }
    return status;
}

/* The next batch into self->batch; returns its rows (fewer than batch_size at an epoch's end). */
static uint32_t next_batch(struct run *self, uint64_t *tokens)
{
    if (self->cursor == self->count) {
        self->epoch++;
        start_epoch(self);
    }
    uint32_t left = self->count - self->cursor;
    uint32_t take = left < self->options->batch_size ? left : self->options->batch_size;
    *tokens = 0;
    for (uint32_t i = 0; i < take; i++) {
        self->batch[i] = self->rows[self->order[self->cursor + i]];
        *tokens += self->batch[i].length;
    }
    self->cursor += take;
    return take;
}

static double rate(double own, double common)
{
    return own < 0 ? common : own;
}

/* One optimizer step; step counts from 0 within the call. */
static enum fl_status run_step(struct run *self, uint64_t step, struct fl_finetune_step *out,
                               struct fl_error *error)
{
    const struct fl_finetune_options *o = self->options;
    double begin = fl_clock_seconds();
    double loss_sum = 0;
    uint64_t at = o->first_step + step;
    uint64_t total = o->total_steps ? o->total_steps : o->first_step + o->steps;
    double factor = fl_schedule_factor(o->schedule, at, o->warmup, total);
    *out = (struct fl_finetune_step){.step = step + 1, .lr = factor * o->lr};
    uint32_t count = next_batch(self, &out->tokens);

    fl_engine_zero_gradients(self->engine);
    enum fl_status status = fl_engine_gradients(self->engine, self->batch, count, at, &loss_sum,
                                                &out->scored, error);
    if (status != FL_OK) {
        return status;
    }
    if (!isfinite(loss_sum)) {
        return fl_fail(error, FL_ERANGE, "step %llu: the loss is not finite",
                       (unsigned long long)step + 1);
    }
    if (out->scored > 0) {
        out->loss = loss_sum / (double)out->scored;
        status = fl_optimizer_step(self->optimizer, self->adapter, fl_engine_gradient(self->engine),
                                   (double)out->scored, factor * rate(o->lr_a, o->lr),
                                   factor * rate(o->lr_b, o->lr), &out->grad_norm, error);
        if (status != FL_OK) {
            fl_error_prefix(error, "step %llu", (unsigned long long)step + 1);
            return status;
        }
    }
    out->seconds = fl_clock_seconds() - begin;
    return FL_OK;
}

static void count_step(struct fl_finetune_result *result, const struct fl_finetune_step *step)
{
    result->steps++;
    result->tokens += step->tokens;
    result->scored += step->scored;
    result->loss = step->loss;
    result->loss_sum += step->loss * (double)step->scored;
    result->seconds += step->seconds;
}

static bool must_stop(const atomic_int *stop)
{
    return stop && atomic_load(stop) != 0;
}

static enum fl_status run_steps(struct run *self, const struct fl_finetune_watch *watch,
                                struct fl_finetune_result *result, struct fl_error *error)
{
    for (uint64_t step = 0; step < self->options->steps; step++) {
        struct fl_finetune_step done;
        if (watch && must_stop(watch->stop)) {
            return fl_fail(error, FL_ESTOPPED, "stopped after %llu of %llu steps",
                           (unsigned long long)step, (unsigned long long)self->options->steps);
        }
        enum fl_status status = run_step(self, step, &done, error);
        if (status != FL_OK) {
            return status;
        }
        count_step(result, &done);
        if (watch && watch->on_step) {
            watch->on_step(watch->context, &done);
        }
    }
    return FL_OK;
}

enum fl_status fl_finetune(const struct fl_model *model, struct fl_adapter *adapter,
                           const struct fl_row *rows, size_t count,
                           const struct fl_finetune_options *options,
                           const struct fl_finetune_watch *watch, struct fl_finetune_result *result,
                           struct fl_error *error)
{
    *result = (struct fl_finetune_result){.compute = ""};
    enum fl_status status = check_rows(rows, count, error);
    if (status == FL_OK) {
        status = check_options(options, error);
    }
    if (status != FL_OK) {
        return status;
    }
    struct run run = {
        .options = options, .adapter = adapter, .rows = rows, .count = (uint32_t)count};
    status = run_open(&run, model, error);
    if (status == FL_OK) {
        result->compute = fl_engine_compute(run.engine);
        result->threads = fl_engine_threads(run.engine);
        status = run_steps(&run, watch, result, error);
    }
    run_close(&run);
    return status;
}

static enum fl_status evaluate_rows(struct fl_engine *engine, const struct fl_row *rows,
                                    uint32_t count, struct fl_evaluation *out,
                                    struct fl_error *error)
{
    double loss_sum = 0;
    uint64_t scored = 0;
    enum fl_status status = fl_engine_loss(engine, rows, count, &loss_sum, &scored, error);
    if (status != FL_OK) {
        return status;
    }
    if (!isfinite(loss_sum)) {
        return fl_fail(error, FL_ERANGE, "the loss is not finite");
    }
    out->loss_sum += loss_sum;
    out->scored += scored;
    for (uint32_t i = 0; i < count; i++) {
        out->tokens += rows[i].length;
    }
    return FL_OK;
}

enum fl_status fl_finetune_evaluate(const struct fl_model *model, const struct fl_adapter *adapter,
                                    const struct fl_row *rows, size_t count,
                                    const struct fl_evaluate_options *options,
                                    const atomic_int *stop, struct fl_evaluation *out,
                                    struct fl_error *error)
{
    struct fl_evaluate_options o = {.batch_size = FL_EVALUATE_ROWS};
    if (options) {
        o = *options;
    }
    *out = (struct fl_evaluation){0};
    enum fl_status status = check_rows(rows, count, error);
    if (status != FL_OK) {
        return status;
    }
    if (o.batch_size == 0) {
        return fl_fail(error, FL_EINVAL, "the batch size must be at least 1");
    }
    struct fl_engine_options engine_options = {.threads = o.threads,
                                               .compute = o.compute,
                                               .max_row_tokens = longest(rows, count),
                                               .max_batch_tokens = o.max_batch_tokens,
                                               .train = FL_TRAIN_NONE};
    struct fl_engine *engine = NULL;
    status = fl_engine_create(model, adapter, &engine_options, &engine, error);
    double begin = fl_clock_seconds();
    for (size_t at = 0; status == FL_OK && at < count; at += o.batch_size) {
        size_t take = count - at < o.batch_size ? count - at : o.batch_size;
        status = must_stop(stop) ? fl_fail(error, FL_ESTOPPED, "stopped while evaluating")
                                 : evaluate_rows(engine, rows + at, (uint32_t)take, out, error);
    }
    out->seconds = fl_clock_seconds() - begin;
    fl_engine_destroy(&engine);
    return status;
}

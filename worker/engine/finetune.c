/*
 * finetune.c - see finetune.h. One struct fl_finetune_run holds what training needs; nothing is
 * allocated once the first step has begun.
 *
 * Invariants: order[0..count) is always a permutation of the rows; at.cursor <= count; the adapter
 * changes only inside fl_optimizer_step(), so a failed step leaves the last good one.
 */
#include "worker/engine/finetune.h"

#include <assert.h>
#include <math.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "crypto/prg.h"

#define FL_EVALUATE_ROWS 16

struct fl_finetune_run {
    struct fl_finetune_options options;
    struct fl_adapter *adapter; /* borrowed */
    const struct fl_row *rows;  /* (count), borrowed */
    uint32_t count;
    struct fl_engine *engine;
    struct fl_optimizer *optimizer;
    uint32_t *order;      /* (count) */
    struct fl_row *batch; /* (batch_size) */
    struct fl_finetune_position at;
    struct fl_footprint footprint;
};

void fl_finetune_defaults(struct fl_finetune_options *options)
{
    *options = (struct fl_finetune_options){
        .batch_size = 4,
        .accumulate = 1,
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

uint64_t fl_finetune_steps(size_t count, uint64_t rows, uint64_t epochs)
{
    assert(rows > 0);
    uint64_t an_epoch = count / rows + (count % rows != 0);
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

uint32_t fl_finetune_longest(const struct fl_row *rows, size_t count)
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
    } else if (o->accumulate == 0) {
        wrong = "a step must have at least 1 batch";
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

void fl_finetune_close(struct fl_finetune_run **self)
{
    if (!*self) {
        return;
    }
    fl_engine_destroy(&(*self)->engine);
    fl_optimizer_destroy(&(*self)->optimizer);
    fl_free((*self)->order);
    fl_free((*self)->batch);
    fl_free(*self);
    *self = NULL;
}

/* Take the order of epoch at.epoch. */
static void start_epoch(struct fl_finetune_run *self)
{
    if (self->options.shuffle) {
        fl_finetune_order(self->options.seed, self->at.epoch, self->order, self->count);
    }
}

/* The engine's options under the limit, and what all of it takes. */
static enum fl_status plan_engine(const struct fl_model *model, const struct fl_adapter *adapter,
                                  const struct fl_row *rows, size_t count,
                                  const struct fl_finetune_options *o,
                                  struct fl_engine_options *engine, struct fl_footprint *footprint,
                                  struct fl_error *error)
{
    const struct fl_row_set sets[] = {{rows, count, o->batch_size},
                                      {o->valid, o->valid_count, FL_EVALUATE_ROWS}};
    struct fl_row_bounds bounds;
    enum fl_status status = fl_row_bounds(sets, sizeof sets / sizeof *sets, &bounds, error);
    if (status != FL_OK) {
        return status;
    }
    *engine = (struct fl_engine_options){
        .threads = o->threads,
        .compute = o->compute,
        .max_row_tokens = bounds.row_tokens,
        .max_batch_tokens = o->max_batch_tokens,
        .call_tokens = bounds.call_tokens,
        .call_scored = bounds.call_scored,
        .train = o->train,
        .seed = o->seed,
    };
    return fl_footprint(model, adapter, o->memory_limit, o->copies,
                        o->optimizer == FL_OPTIMIZER_ADAMW ? 2 : 0, bounds.bytes, engine, footprint,
                        error);
}

enum fl_status fl_finetune_plan(const struct fl_model *model, const struct fl_adapter *adapter,
                                const struct fl_row *rows, size_t count,
                                const struct fl_finetune_options *options, struct fl_footprint *out,
                                struct fl_error *error)
{
    struct fl_engine_options engine;
    return plan_engine(model, adapter, rows, count, options, &engine, out, error);
}

struct fl_footprint fl_finetune_footprint(const struct fl_finetune_run *self)
{
    return self->footprint;
}

static enum fl_status run_start(struct fl_finetune_run *self, const struct fl_model *model,
                                struct fl_error *error)
{
    const struct fl_finetune_options *o = &self->options;
    struct fl_engine_options engine;
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
    enum fl_status status = plan_engine(model, self->adapter, self->rows, self->count, o, &engine,
                                        &self->footprint, error);
    if (status == FL_OK) {
        status = fl_engine_create(model, self->adapter, &engine, &self->engine, error);
    }
    if (status == FL_OK) {
        status = fl_optimizer_create(self->adapter, &optimizer, &self->optimizer, error);
    }
    return status;
}

enum fl_status fl_finetune_open(const struct fl_model *model, struct fl_adapter *adapter,
                                const struct fl_row *rows, size_t count,
                                const struct fl_finetune_options *options,
                                struct fl_finetune_run **out, struct fl_error *error)
{
    *out = NULL;
    enum fl_status status = check_rows(rows, count, error);
    if (status == FL_OK) {
        status = check_options(options, error);
    }
    if (status != FL_OK) {
        return status;
    }
    struct fl_finetune_run *self = fl_calloc(1, sizeof *self);
    if (!self) {
        return fl_fail_memory(error);
    }
    self->options = *options;
    self->adapter = adapter;
    self->rows = rows;
    self->count = (uint32_t)count;
    status = run_start(self, model, error);
    if (status != FL_OK) {
        fl_finetune_close(&self);
    }
    *out = self;
    return status;
}

struct fl_finetune_position fl_finetune_position(const struct fl_finetune_run *self)
{
    return self->at;
}

enum fl_status fl_finetune_seek(struct fl_finetune_run *self,
                                const struct fl_finetune_position *position, struct fl_error *error)
{
    uint64_t rows = (uint64_t)self->options.batch_size * self->options.accumulate;
    uint64_t an_epoch = fl_finetune_steps(self->count, rows, 1);
    /* a step never takes rows of two epochs, so the number of steps tells the rows taken */
    uint64_t steps = position->cursor / rows + (position->cursor % rows != 0);
    bool begun = position->cursor > 0 && position->cursor <= self->count &&
                 position->epoch <= UINT64_MAX / an_epoch - 1 &&
                 (position->cursor % rows == 0 || position->cursor == self->count) &&
                 position->step == position->epoch * an_epoch + steps;
    if (!begun && (position->step || position->epoch || position->cursor)) {
        return fl_fail(error, FL_EFORMAT, "no run over %u rows is at row %u of epoch %llu",
                       self->count, position->cursor, (unsigned long long)position->epoch);
    }
    self->at = *position;
    start_epoch(self);
    return FL_OK;
}

struct fl_optimizer *fl_finetune_optimizer(struct fl_finetune_run *self)
{
    return self->optimizer;
}

const char *fl_finetune_compute(const struct fl_finetune_run *self)
{
    return fl_engine_compute(self->engine);
}

uint32_t fl_finetune_threads(const struct fl_finetune_run *self)
{
    return fl_engine_threads(self->engine);
}

/* The next batch of this epoch into self->batch; returns its rows, 0 at the epoch's end. */
static uint32_t next_batch(struct fl_finetune_run *self, uint64_t *tokens)
{
    uint32_t left = self->count - self->at.cursor;
    uint32_t take = left < self->options.batch_size ? left : self->options.batch_size;
    for (uint32_t i = 0; i < take; i++) {
        self->batch[i] = self->rows[self->order[self->at.cursor + i]];
        *tokens += self->batch[i].length;
    }
    self->at.cursor += take;
    return take;
}

/* Gradients of the next step's rows, summed; first_mask numbers the dropout masks of its batches.
 */
static enum fl_status sum_gradients(struct fl_finetune_run *self, uint64_t first_mask,
                                    double *loss_sum, struct fl_finetune_step *out,
                                    struct fl_error *error)
{
    if (self->at.cursor == self->count) {
        self->at.cursor = 0;
        self->at.epoch++;
        start_epoch(self);
    }
    fl_engine_zero_gradients(self->engine);
    for (uint32_t i = 0; i < self->options.accumulate; i++) {
        double loss = 0;
        uint64_t scored = 0;
        uint32_t count = next_batch(self, &out->tokens);
        if (count == 0) {
            break;
        }
        enum fl_status status = fl_engine_gradients(self->engine, self->batch, count,
                                                    first_mask + i, &loss, &scored, error);
        if (status != FL_OK) {
            return status;
        }
        *loss_sum += loss;
        out->scored += scored;
    }
    return FL_OK;
}

static double rate(double own, double common)
{
    return own < 0 ? common : own;
}

enum fl_status fl_finetune_advance(struct fl_finetune_run *self, struct fl_finetune_step *out,
                                   struct fl_error *error)
{
    const struct fl_finetune_options *o = &self->options;
    double begin = fl_clock_seconds();
    double loss_sum = 0;
    uint64_t at = o->first_step + self->at.step;
    uint64_t total = o->total_steps ? o->total_steps : o->first_step + o->steps;
    double factor = fl_schedule_factor(o->schedule, at, o->warmup, total);
    *out = (struct fl_finetune_step){.step = self->at.step + 1, .lr = factor * o->lr};
    enum fl_status status = sum_gradients(self, at * o->accumulate, &loss_sum, out, error);
    if (status != FL_OK) {
        return status;
    }
    if (!isfinite(loss_sum)) {
        return fl_fail(error, FL_ERANGE, "step %llu: the loss is not finite",
                       (unsigned long long)out->step);
    }
    if (out->scored > 0) {
        out->loss = loss_sum / (double)out->scored;
        status = fl_optimizer_step(self->optimizer, self->adapter, fl_engine_gradient(self->engine),
                                   (double)out->scored, factor * rate(o->lr_a, o->lr),
                                   factor * rate(o->lr_b, o->lr), &out->grad_norm, error);
        if (status != FL_OK) {
            fl_error_prefix(error, "step %llu", (unsigned long long)out->step);
            return status;
        }
    }
    self->at.step++;
    out->seconds = fl_clock_seconds() - begin;
    return FL_OK;
}

void fl_finetune_count(struct fl_finetune_result *total, const struct fl_finetune_step *step)
{
    total->steps++;
    total->tokens += step->tokens;
    total->scored += step->scored;
    total->loss = step->loss;
    total->loss_sum += step->loss * (double)step->scored;
    total->seconds += step->seconds;
}

static bool must_stop(const atomic_int *stop)
{
    return stop && atomic_load(stop) != 0;
}

static enum fl_status run_steps(struct fl_finetune_run *self, const struct fl_finetune_watch *watch,
                                struct fl_finetune_result *result, struct fl_error *error)
{
    while (self->at.step < self->options.steps) {
        struct fl_finetune_step done;
        if (watch && must_stop(watch->stop)) {
            return fl_fail(error, FL_ESTOPPED, "stopped after %llu of %llu steps",
                           (unsigned long long)self->at.step,
                           (unsigned long long)self->options.steps);
        }
        enum fl_status status = fl_finetune_advance(self, &done, error);
        if (status != FL_OK) {
            return status;
        }
        fl_finetune_count(result, &done);
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
    struct fl_finetune_run *run = NULL;
    *result = (struct fl_finetune_result){.compute = ""};
    enum fl_status status = fl_finetune_open(model, adapter, rows, count, options, &run, error);
    if (status == FL_OK) {
        result->compute = fl_finetune_compute(run);
        result->threads = fl_finetune_threads(run);
        status = run_steps(run, watch, result, error);
    }
    fl_finetune_close(&run);
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

/* All rows, batch_size between two looks at *stop. */
static enum fl_status evaluate_all(struct fl_engine *engine, const struct fl_row *rows,
                                   size_t count, uint32_t batch_size, const atomic_int *stop,
                                   struct fl_evaluation *out, struct fl_error *error)
{
    enum fl_status status = FL_OK;
    double begin = fl_clock_seconds();
    for (size_t at = 0; status == FL_OK && at < count; at += batch_size) {
        size_t take = count - at < batch_size ? count - at : batch_size;
        status = must_stop(stop) ? fl_fail(error, FL_ESTOPPED, "stopped while evaluating")
                                 : evaluate_rows(engine, rows + at, (uint32_t)take, out, error);
    }
    out->seconds = fl_clock_seconds() - begin;
    return status;
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
    const struct fl_row_set set = {rows, count, o.batch_size};
    struct fl_row_bounds bounds;
    struct fl_footprint footprint;
    status = fl_row_bounds(&set, 1, &bounds, error);
    if (status != FL_OK) {
        return status;
    }
    struct fl_engine_options engine_options = {.threads = o.threads,
                                               .compute = o.compute,
                                               .max_row_tokens = bounds.row_tokens,
                                               .max_batch_tokens = o.max_batch_tokens,
                                               .call_tokens = bounds.call_tokens,
                                               .call_scored = bounds.call_scored,
                                               .train = FL_TRAIN_NONE};
    status = fl_footprint(model, adapter, o.memory_limit, 0, 0, bounds.bytes, &engine_options,
                          &footprint, error);
    if (status != FL_OK) {
        return status;
    }
    struct fl_engine *engine = NULL;
    status = fl_engine_create(model, adapter, &engine_options, &engine, error);
    if (status == FL_OK) {
        status = evaluate_all(engine, rows, count, o.batch_size, stop, out, error);
    }
    fl_engine_destroy(&engine);
    return status;
}

enum fl_status fl_finetune_validate(struct fl_finetune_run *self, const struct fl_row *rows,
                                    size_t count, const atomic_int *stop, struct fl_evaluation *out,
                                    struct fl_error *error)
{
    *out = (struct fl_evaluation){0};
    enum fl_status status = check_rows(rows, count, error);
    if (status != FL_OK) {
        return status;
    }
    return evaluate_all(self->engine, rows, count, FL_EVALUATE_ROWS, stop, out, error);
}

/*
 * trainer_native.c - the trainer of this project's own engine. The base model and the tokenised
 * data of the last job stay open between rounds, keyed by what they were opened with.
 */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "adapter/algebra.h"
#include "base/log.h"
#include "base/alloc.h"
#include "crypto/prg.h"
#include "format/modelref.h"
#include "worker/data/chat_form.h"
#include "worker/data/dataset.h"
#include "worker/engine/dora.h"
#include "worker/engine/finetune.h"
#include "worker/trainer.h"

/* Rows of a data set as the engine takes them. */
struct rows {
    struct fl_row *rows; /* (count); the arrays belong to the data set */
    size_t count;
};

/* What a table is opened with, and known by. */
struct table_key {
    const char *path;
    uint32_t seq_len;
    enum fl_dataset_part part;
    double valid_split;  /* share of the training data to evaluate on */
    uint64_t keep, seed; /* of the subset to evaluate on; keep 0: all */
};

/* One tokenised data file. */
struct table {
    char path[FL_PATH_BYTES];
    struct table_key key; /* its path is the one above */
    struct fl_dataset *data;
    struct rows all, held_out; /* held_out: the rows for validation that the data brought along */
};

struct native {
    char model_path[FL_PATH_BYTES];
    struct fl_model *model;
    struct fl_tokenizer *tokenizer; /* NULL: the model has none; then rows must be input_ids */
    struct table train, eval;
};

static void table_close(struct table *self)
{
    fl_dataset_close(self->data);
    fl_free(self->all.rows);
    fl_free(self->held_out.rows);
    memset(self, 0, sizeof(*self));
}

static enum fl_status collect_rows(const struct fl_dataset *data, struct rows *out,
                                   struct fl_error *error)
{
    out->count = fl_dataset_rows(data);
    out->rows = fl_calloc(out->count, sizeof(*out->rows));
    if (!out->rows)
        return fl_fail_memory(error);
    for (size_t i = 0; i < out->count; i++)
        out->rows[i] = fl_dataset_row(data, i);
    return FL_OK;
}

static bool table_is(const struct table *self, const struct table_key *key)
{
    return self->data && strcmp(self->path, key->path) == 0 && self->key.seq_len == key->seq_len &&
           self->key.part == key->part && self->key.valid_split == key->valid_split &&
           self->key.keep == key->keep && self->key.seed == key->seed;
}

/* The subset to evaluate on is taken from a file for that, or from what training data hold out. */
static enum fl_status table_rows(struct table *self, const struct table_key *key,
                                 struct fl_error *error)
{
    enum fl_status status = FL_OK;
    struct fl_dataset *held_out = fl_dataset_valid(self->data);
    struct fl_dataset *evaluated = key->part == FL_PART_EVAL ? self->data : held_out;
    if (evaluated && key->keep)
        status = fl_dataset_keep(evaluated, key->keep, key->seed, error);
    if (status == FL_OK)
        status = collect_rows(self->data, &self->all, error);
    if (status == FL_OK && held_out)
        status = collect_rows(held_out, &self->held_out, error);
    return status;
}

static const char *chat_template(const struct fl_siteconf *conf)
{
    return conf->data_chat_template > 0 ? fl_chat_form_name((size_t)conf->data_chat_template - 1)
                                        : NULL; /* the model's own */
}

static enum fl_status table_open(struct table *self, const struct native *native,
                                 const struct fl_siteconf *conf, const struct table_key *key,
                                 struct fl_error *error)
{
    if (table_is(self, key))
        return FL_OK;
    table_close(self);
    struct fl_dataset_options options = {.seq_len = key->seq_len,
                                         .add_eos = true,
                                         .vocab_size = fl_model_config(native->model)->vocab,
                                         .loss_all = conf->data_loss_all != 0,
                                         .chat_template = chat_template(conf),
                                         .skip_bad_rows = conf->data_skip_bad_rows,
                                         .valid_split = key->valid_split,
                                         .part = key->part};
    enum fl_status status = fl_dataset_open(key->path, native->tokenizer, &options, &self->data,
                                            error);
    if (status == FL_OK)
        status = table_rows(self, key, error);
    if (status != FL_OK) {
        table_close(self);
        return status;
    }
    fl_wire_set_text(self->path, sizeof(self->path), key->path);
    self->key = *key;
    self->key.path = self->path;
    return FL_OK;
}

/* What is evaluated on: the file named for it, else what the training data hold out. */
static const struct rows *eval_rows(const struct native *self)
{
    return self->eval.data ? &self->eval.all : &self->train.held_out;
}

static const struct fl_dataset *eval_data(const struct native *self)
{
    return self->eval.data || !self->train.data ? self->eval.data
                                                : fl_dataset_valid(self->train.data);
}

static void model_close(struct native *self)
{
    table_close(&self->train);
    table_close(&self->eval);
    fl_tokenizer_close(self->tokenizer);
    self->tokenizer = NULL;
    fl_model_close(&self->model);
    self->model_path[0] = '\0';
}

static enum fl_status model_open(struct native *self, const char *path, struct fl_error *error)
{
    if (self->model && strcmp(self->model_path, path) == 0)
        return FL_OK;
    model_close(self);
    enum fl_status status = fl_model_open(path, &self->model, error);
    if (status != FL_OK)
        return status;
    status = fl_tokenizer_open(path, &self->tokenizer, error);
    if (status == FL_ENOTFOUND)
        status = FL_OK; /* rows of token ids need no tokenizer; others are refused when read */
    if (status != FL_OK)
        model_close(self);
    else
        fl_wire_set_text(self->model_path, sizeof(self->model_path), path);
    return status;
}

static enum fl_status open_data(struct native *self, const struct fl_siteconf *conf,
                                const struct fl_wire_offer *offer, struct fl_error *error)
{
    const char *path, *eval;
    fl_siteconf_data(conf, offer->name, &path, &eval);
    if (!path[0])
        return fl_fail(error, FL_ENOTFOUND,
                       "no training data: set path in [data] or [data.%s] of worker.conf",
                       offer->name);
    struct table_key key = {.path = path,
                            .seq_len = offer->seq_len,
                            .part = FL_PART_TRAIN,
                            .valid_split = eval[0] ? 0.0 : conf->data_valid_split,
                            .keep = offer->evaluate_rows,
                            .seed = offer->seed};
    enum fl_status status = table_open(&self->train, self, conf, &key, error);
    if (status != FL_OK || offer->evaluate_every == 0)
        return status;
    if (!eval[0]) {
        table_close(&self->eval);
        return FL_OK;
    }
    key.path = eval;
    key.part = FL_PART_EVAL;
    key.valid_split = 0.0;
    return table_open(&self->eval, self, conf, &key, error);
}

static enum fl_compute engine_compute(const struct fl_siteconf *conf,
                                      const struct fl_wire_offer *offer)
{
    static const enum fl_compute map[] = {FL_COMPUTE_AUTO, FL_COMPUTE_F32, FL_COMPUTE_BF16};
    return map[conf->compute ? conf->compute : (int)offer->compute];
}

static uint32_t engine_threads(const struct fl_siteconf *conf, const struct fl_wire_offer *offer)
{
    uint32_t own = (uint32_t)conf->threads;
    if (own && offer->threads)
        return own < offer->threads ? own : offer->threads; /* a site may lower, never raise */
    return own ? own : offer->threads;
}

/* Start, trained and their difference beside the round's own adapter. */
enum { ADAPTER_COPIES = 3 };

/* What job and site say, without what a round does. */
static void settle_options(const struct fl_siteconf *conf, const struct fl_wire_offer *offer,
                           struct fl_finetune_options *o)
{
    fl_finetune_defaults(o);
    o->steps = offer->steps;
    o->batch_size = offer->batch_size;
    o->lr = offer->lr;
    o->lr_a = offer->lr_a > 0.0 ? offer->lr_a : offer->lr;
    o->lr_b = offer->lr_b > 0.0 ? offer->lr_b : offer->lr;
    o->schedule = (enum fl_schedule)offer->schedule;
    o->warmup = offer->warmup;
    o->optimizer = offer->optimizer == FL_WIRE_OPTIMIZER_SGD ? FL_OPTIMIZER_SGD
                                                             : FL_OPTIMIZER_ADAMW;
    o->weight_decay = offer->weight_decay;
    o->grad_clip = offer->grad_clip;
    o->shuffle = offer->shuffle;
    o->threads = engine_threads(conf, offer);
    o->compute = engine_compute(conf, offer);
    o->memory_limit = conf->memory_limit;
    o->copies = ADAPTER_COPIES;
}

static enum fl_status estimate_memory(const struct native *self, const struct fl_siteconf *conf,
                                      const struct fl_wire_offer *offer, struct fl_trainer_fit *out,
                                      struct fl_error *error)
{
    struct fl_inventory targets = {0};
    struct fl_adapter *adapter = NULL;
    out->fault = FL_FAULT_MODEL; /* it may lack the job's modules, or be narrower than its ranks */
    enum fl_status status = fl_inventory_select(fl_model_inventory(self->model), offer->targets,
                                                &targets, error);
    if (status == FL_OK)
        status = fl_adapter_create(&targets, offer->rank_max, offer->alpha, NULL, &adapter, error);
    if (status == FL_OK && offer->dora && fl_adapter_add_magnitudes(adapter) != FL_OK)
        status = fl_fail_memory(error);
    if (status != FL_OK)
        goto out;
    struct fl_finetune_options options;
    struct fl_footprint footprint;
    settle_options(conf, offer, &options);
    out->fault = FL_FAULT_MEMORY;
    status = fl_finetune_plan(self->model, adapter, self->train.all.rows, self->train.all.count,
                              &options, &footprint, error);
    out->memory_bytes = footprint.total;
    if (status == FL_ENOMEM && conf->memory_limit) {
        fl_error_prefix(error, "[train] memory_limit");
        error->status = status = FL_EREFUSED;
    }
out:
    fl_adapter_destroy(&adapter);
    fl_inventory_free(&targets);
    return status;
}

static enum fl_status copy_inventory(const struct fl_inventory *from, struct fl_inventory *to)
{
    to->modules = fl_calloc(from->count, sizeof(*to->modules));
    if (!to->modules)
        return FL_ENOMEM;
    memcpy(to->modules, from->modules, from->count * sizeof(*to->modules));
    to->count = from->count;
    return FL_OK;
}

static void hash_data(const struct native *self, uint8_t out[FL_HASH_BYTES])
{
    uint8_t each[2][FL_HASH_BYTES] = {{0}};
    struct fl_blake2b hash;
    fl_dataset_hash(self->train.data, each[0]);
    if (eval_data(self))
        fl_dataset_hash(eval_data(self), each[1]);
    fl_blake2b_init(&hash, NULL, 0);
    fl_blake2b_update(&hash, each, sizeof(each));
    fl_blake2b_final(&hash, out);
}

static enum fl_status native_fit(void *context, const struct fl_siteconf *conf,
                                 const struct fl_wire_offer *offer, struct fl_trainer_fit *out,
                                 struct fl_error *error)
{
    struct native *self = context;
    memset(out, 0, sizeof(*out));
    const char *path = fl_siteconf_model(conf, offer->model);
    if (!path)
        return fl_fail(error, FL_ENOTFOUND, "no model named '%s' in [models]", offer->model);
    enum fl_status status = fl_modelref_manifest(path, out->manifest, error);
    if (status != FL_OK)
        return status;
    if (memcmp(out->manifest, offer->manifest, FL_HASH_BYTES) != 0) {
        char own[FL_HASH_HEX_BYTES], wanted[FL_HASH_HEX_BYTES];
        fl_hex(out->manifest, FL_HASH_BYTES, own);
        fl_hex(offer->manifest, FL_HASH_BYTES, wanted);
        return fl_fail(error, FL_EINVAL, "model '%s' here has manifest %s, the job wants %s",
                       offer->model, own, wanted);
    }
    status = model_open(self, path, error);
    if (status == FL_OK) {
        out->fault = FL_FAULT_DATA;
        status = open_data(self, conf, offer, error);
    }
    if (status == FL_OK)
        status = estimate_memory(self, conf, offer, out, error);
    if (status != FL_OK)
        return status;
    const struct fl_dataset_counts *counts = fl_dataset_counts(self->train.data);
    out->rows = counts->rows;
    out->truncated = counts->truncated;
    out->completions_cut = counts->completions_cut;
    out->dropped = counts->dropped;
    out->empty = counts->empty;
    out->bad = counts->bad;
    out->eval_rows = eval_rows(self)->count;
    hash_data(self, out->data);
    status = copy_inventory(fl_model_inventory(self->model), &out->inventory);
    return status == FL_OK ? FL_OK : fl_fail_memory(error);
}

static double sum_of_squares(const float *values, size_t count)
{
    double sum = 0.0;
    for (size_t i = 0; i < count; i++)
        sum += (double)values[i] * (double)values[i];
    return sum;
}

static void scale_values(float *values, size_t count, float factor)
{
    for (size_t i = 0; i < count; i++)
        values[i] *= factor;
}

/* L2 over the whole uploaded delta; limit 0: none. */
static void clip_delta(struct fl_adapter *delta, double limit)
{
    double norm = 0.0;
    for (uint32_t i = 0; i < delta->count && limit > 0.0; i++) {
        const struct fl_lora_module *m = &delta->modules[i];
        norm += sum_of_squares(m->a, (size_t)m->rank * m->module.in);
        norm += sum_of_squares(m->b, (size_t)m->rank * m->module.out);
        norm += m->m ? sum_of_squares(m->m, m->module.out) : 0.0;
    }
    norm = __builtin_sqrt(norm);
    if (limit <= 0.0 || norm <= limit)
        return;
    for (uint32_t i = 0; i < delta->count; i++) {
        struct fl_lora_module *m = &delta->modules[i];
        scale_values(m->a, (size_t)m->rank * m->module.in, (float)(limit / norm));
        scale_values(m->b, (size_t)m->rank * m->module.out, (float)(limit / norm));
        if (m->m)
            scale_values(m->m, m->module.out, (float)(limit / norm));
    }
}

static void on_step(void *context, const struct fl_finetune_step *step)
{
    const struct fl_trainer_task *task = context;
    struct fl_trainer_progress progress = {
        .activity = FL_ACTIVITY_TRAINING,
        .step = (uint32_t)step->step,
        .steps = task->offer->steps,
        .loss = step->loss,
        .tokens_per_second = step->seconds > 0.0 ? (double)step->tokens / step->seconds : 0.0};
    if (task->on_progress)
        task->on_progress(task->context, &progress);
}

static void fill_options(const struct fl_trainer_task *task, struct fl_finetune_options *o)
{
    settle_options(task->conf, task->offer, o);
    o->first_step = task->first_step;
    o->total_steps = task->total_steps;
    o->seed = task->data_seed;
    o->train = (task->train_a ? FL_TRAIN_A : 0u) | (task->train_b ? FL_TRAIN_B : 0u);
}

static enum fl_status evaluate(struct native *self, const struct fl_trainer_task *task,
                               struct fl_trainer_result *out, struct fl_error *error)
{
    const struct rows *rows = eval_rows(self);
    if (!task->evaluate || rows->count == 0)
        return FL_OK;
    struct fl_trainer_progress progress = {.activity = FL_ACTIVITY_EVALUATING};
    if (task->on_progress)
        task->on_progress(task->context, &progress);
    struct fl_evaluate_options options = {.batch_size = task->offer->batch_size,
                                          .threads = engine_threads(task->conf, task->offer),
                                          .compute = engine_compute(task->conf, task->offer),
                                          .memory_limit = task->conf->memory_limit};
    struct fl_evaluation evaluation;
    enum fl_status status = fl_finetune_evaluate(self->model, task->start, rows->rows, rows->count,
                                                 &options, task->stop, &evaluation, error);
    if (status != FL_OK)
        return status;
    out->stats.eval_loss_sum = evaluation.loss_sum;
    out->stats.eval_tokens = evaluation.scored;
    out->eval_seconds = evaluation.seconds;
    return FL_OK;
}

static enum fl_status train(struct native *self, const struct fl_trainer_task *task,
                            struct fl_trainer_result *out, struct fl_error *error)
{
    struct fl_adapter *before = NULL, *trained = NULL;
    enum fl_status status = fl_adapter_prefix(task->start, task->site_ranks, &before);
    if (status == FL_OK)
        status = fl_adapter_copy(before, &trained);
    if (status != FL_OK) {
        status = fl_fail_memory(error);
        goto out;
    }
    struct fl_finetune_options options;
    fill_options(task, &options);
    struct fl_finetune_watch watch = {
        .on_step = on_step, .context = (void *)(uintptr_t)task, .stop = task->stop};
    struct fl_finetune_result result;
    const char *kernel, *compute = fl_compute_text(options.compute, &kernel);
    fl_log(FL_LOG_INFO, "training", "local steps begin", FL_STR("compute", compute),
           FL_STR("kernel", kernel), FL_U64("steps", options.steps));
    status = fl_finetune(self->model, trained, self->train.all.rows, self->train.all.count,
                         &options, &watch, &result, error);
    if (status != FL_OK)
        goto out;
    if (fl_adapter_subtract(trained, before, &out->delta) != FL_OK) {
        status = fl_fail_memory(error);
        goto out;
    }
    clip_delta(out->delta, task->offer->clip_norm);
    out->stats.weight = result.scored;
    out->stats.train_loss_sum = result.loss_sum;
    out->stats.train_tokens = result.scored;
    out->steps = (uint32_t)result.steps;
    out->seconds = result.seconds;
    out->train_loss = result.loss;
out:
    fl_adapter_destroy(&trained);
    fl_adapter_destroy(&before);
    return status;
}

/* What quantising the base, or another rounding of it, may make of its rows' lengths. */
#define DISTANCE_MAX 0.1

static bool is_untrained(const struct fl_adapter *adapter)
{
    for (uint32_t i = 0; i < adapter->count; i++) {
        const struct fl_lora_module *m = &adapter->modules[i];
        if (sum_of_squares(m->b, (size_t)m->rank * m->module.out) > 0.0)
            return false;
    }
    return true;
}

/* The coordinator has no base, and takes any magnitudes. Those of a start that is trained may have
   moved as far as they like; before that they are the lengths of its base's rows. */
static enum fl_status check_start(const struct native *self, const struct fl_trainer_task *task,
                                  struct fl_error *error)
{
    double distance;
    if (!task->job_start || !task->start->use_dora || !is_untrained(task->start))
        return FL_OK;
    enum fl_status status = fl_dora_distance(
        self->model, task->start, engine_threads(task->conf, task->offer), &distance, error);
    if (status != FL_OK || distance <= DISTANCE_MAX)
        return status;
    return fl_fail(error, FL_EINVAL,
                   "the job's start was made with another model than '%s': its magnitudes differ "
                   "by %.0f %% from the lengths of the rows here; make it anew with this one "
                   "(fedlora-worker train --dora --steps 0)",
                   task->offer->model, 100.0 * distance);
}

static enum fl_status native_run(void *context, const struct fl_trainer_task *task,
                                 struct fl_trainer_result *out, struct fl_error *error)
{
    struct native *self = context;
    memset(out, 0, sizeof(*out));
    const char *path = fl_siteconf_model(task->conf, task->offer->model);
    if (!path)
        return fl_fail(error, FL_ENOTFOUND, "no model named '%s' in [models]", task->offer->model);
    enum fl_status status = model_open(self, path, error);
    if (status == FL_OK)
        status = open_data(self, task->conf, task->offer, error);
    if (status == FL_OK)
        status = check_start(self, task, error);
    if (status == FL_OK)
        status = evaluate(self, task, out, error);
    if (status == FL_OK && task->train)
        status = train(self, task, out, error);
    return status;
}

static void native_destroy(void *context)
{
    struct native *self = context;
    model_close(self);
    fl_free(self);
}

enum fl_status fl_trainer_native(struct fl_trainer *out)
{
    struct native *self = fl_calloc(1, sizeof(*self));
    if (!self)
        return FL_ENOMEM;
    *out = (struct fl_trainer){
        .fit = native_fit, .run = native_run, .destroy = native_destroy, .context = self};
    return FL_OK;
}

void fl_trainer_destroy(struct fl_trainer *self)
{
    if (self->destroy)
        self->destroy(self->context);
    memset(self, 0, sizeof(*self));
}

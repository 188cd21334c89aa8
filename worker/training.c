/*
 * training.c - see training.h.
 *
 * Between two steps, in this order: is an evaluation due, is a checkpoint, is the run over, was it
 * stopped. All of it is a function of what a checkpoint holds, so a resumed run goes the same way:
 * a run that is stopped while it evaluates does so again when it is resumed.
 */
#include "worker/training.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "format/peft.h"
#include "worker/training_internal.h"

enum fl_status fl_training_check_out(const char *out, bool resume, struct fl_error *error)
{
    char config[FL_PATH_BYTES], newest[FL_PATH_BYTES];
    uint64_t step = 0;
    enum fl_status status = fl_path_join(config, out, FL_PEFT_CONFIG, error);
    if (status == FL_OK && fl_path_is_directory(out)) {
        status = fl_checkpoint_newest(out, newest, &step, error);
    }
    if (status != FL_OK || (resume && step > 0) || !fl_path_exists(out)) {
        return status;
    }
    if (step > 0) {
        return fl_fail(error, FL_EEXIST,
                       "%s holds the checkpoints of a run, up to step %" PRIu64
                       ": --resume goes on from there; to begin anew, remove it or choose another "
                       "--out",
                       out, step);
    }
    if (!fl_path_exists(config)) {
        return fl_fail(error, FL_EEXIST,
                       "%s: it exists and is no adapter directory, so it is not replaced", out);
    }
    return resume ? fl_fail(error, FL_ENOTFOUND,
                            "%s: an adapter is there, but no checkpoint to go on from; leave "
                            "--resume out to train anew",
                            out)
                  : FL_OK;
}

void fl_life_tell_trouble(const struct fl_life *self, const char *text)
{
    const struct fl_training_watch *watch = &self->plan->watch;
    if (watch->on_trouble) {
        watch->on_trouble(watch->context, text);
    }
}

static bool is_due(uint64_t step, uint64_t every)
{
    return every > 0 && step > 0 && step % every == 0;
}

/* A checkpoint in passing, if this is the step for it. */
static void leave_checkpoint(struct fl_life *self)
{
    const struct fl_training_watch *watch = &self->plan->watch;
    struct fl_error error = {0};
    char path[FL_PATH_BYTES];
    uint64_t step = self->result->total.steps;
    if (!is_due(step, self->plan->checkpoint_every) || step == self->saved) {
        return;
    }
    if (fl_life_save(self, true, &error) != FL_OK) {
        fl_error_prefix(&error, "no checkpoint at step %" PRIu64 ", training goes on", step);
        fl_life_tell_trouble(self, error.text);
        return;
    }
    self->saved = step;
    if (watch->on_checkpoint &&
        fl_checkpoint_newest(self->plan->out, path, &step, &error) == FL_OK) {
        watch->on_checkpoint(watch->context, step, path);
    }
}

/* ---- validation ---- */

static void copy_values(const struct fl_adapter *from, struct fl_adapter *to)
{
    for (uint32_t i = 0; i < from->count; i++) {
        const struct fl_lora_module *m = &from->modules[i];
        memcpy(to->modules[i].a, m->a, (size_t)m->rank * m->module.in * sizeof *m->a);
        memcpy(to->modules[i].b, m->b, (size_t)m->rank * m->module.out * sizeof *m->b);
        if (m->m) {
            memcpy(to->modules[i].m, m->m, m->module.out * sizeof *m->m);
        }
    }
}

/* Evaluate, if this is the step for it. FL_ESTOPPED: stopped while at it. */
static enum fl_status evaluate(struct fl_life *self, struct fl_error *error)
{
    const struct fl_training *plan = self->plan;
    struct fl_validation *validation = &self->result->validation;
    struct fl_evaluation evaluation;
    uint64_t step = self->result->total.steps;
    bool due = is_due(step, plan->eval_every) || step == plan->options.steps;
    if (!plan->valid || !due || validation->step == step) {
        return FL_OK;
    }
    enum fl_status status = fl_finetune_validate(self->run, plan->valid, plan->valid_count,
                                                 plan->stop, &evaluation, error);
    if (status == FL_OK && evaluation.scored == 0) {
        status = fl_fail(error, FL_EINVAL, "nothing in the validation rows is scored");
    }
    if (status != FL_OK) {
        return status;
    }
    unsigned brought = fl_validation_note(validation, step,
                                          evaluation.loss_sum / (double)evaluation.scored);
    if (brought & FL_VALIDATION_BEST) {
        copy_values(plan->adapter, self->best);
    }
    fl_course_validated(&self->metrics, step, validation->loss);
    if (plan->watch.on_validation) {
        plan->watch.on_validation(plan->watch.context, validation, &evaluation, brought);
    }
    return FL_OK;
}

/* ---- the run ---- */

static void tell_resumed(const struct fl_life *self, uint64_t step, const char *directory)
{
    const struct fl_training_watch *watch = &self->plan->watch;
    if (watch->on_resume) {
        watch->on_resume(watch->context, step, directory);
    }
}

static enum fl_status resume(struct fl_life *self, struct fl_error *error)
{
    char path[FL_PATH_BYTES], text[160];
    struct fl_checkpoint checkpoint;
    uint64_t step = 0;
    enum fl_status status = fl_checkpoint_newest(self->plan->out, path, &step, error);
    if (status != FL_OK || step == 0) {
        tell_resumed(self, 0, "");
        return status;
    }
    status = fl_life_lock(self, error);
    if (status == FL_OK) {
        status = fl_life_need_settings(self, error);
    }
    if (status == FL_OK) {
        struct fl_checkpoint_parts parts = fl_life_parts(self);
        status = fl_checkpoint_load(path, &checkpoint, &parts, error);
    }
    if (status == FL_OK) {
        status = fl_finetune_seek(self->run, &checkpoint.position, error);
        if (status != FL_OK) {
            fl_error_prefix(error, "%s", path);
        }
    }
    if (status == FL_OK) {
        status = fl_checkpoint_clear(self->plan->out, error);
    }
    if (status != FL_OK) {
        return status;
    }
    struct fl_finetune_result *total = &self->result->total;
    const uint32_t threads = total->threads, then = checkpoint.total.threads;
    const char *compute = total->compute;
    *total = checkpoint.total;
    total->compute = compute;
    total->threads = threads;
    self->result->resumed = total->steps;
    self->result->validation = checkpoint.validation;
    self->saved = step;
    self->ours = true;
    fl_life_load_metrics(self, step);
    tell_resumed(self, step, path);
    if (threads != then) {
        (void)snprintf(text, sizeof text,
                       "%u threads now and %u before: the result is the same but for rounding",
                       threads, then);
        fl_life_tell_trouble(self, text);
    }
    return FL_OK;
}

static enum fl_status stop(struct fl_life *self, struct fl_error *error)
{
    struct fl_training_result *result = self->result;
    uint64_t step = result->total.steps;
    if (step == 0) {
        return fl_fail(error, FL_ESTOPPED, "stopped before the first step; nothing was saved");
    }
    enum fl_status status = fl_life_save(self, true, error);
    if (status == FL_OK) {
        status = fl_checkpoint_newest(self->plan->out, result->saved, &step, error);
    }
    if (status != FL_OK) {
        fl_error_prefix(error, "stopped after step %" PRIu64 ", and it could not be saved", step);
        return status;
    }
    return fl_fail(error, FL_ESTOPPED, "stopped after step %" PRIu64 " of %" PRIu64 "; saved in %s",
                   step, self->plan->options.steps, result->saved);
}

static bool is_over(struct fl_life *self)
{
    const struct fl_training *plan = self->plan;
    uint64_t step = self->result->total.steps;
    self->result->early = step < plan->options.steps && plan->valid && plan->patience > 0 &&
                          self->result->validation.stale >= plan->patience;
    return self->result->early || step >= plan->options.steps;
}

static enum fl_status advance(struct fl_life *self, struct fl_error *error)
{
    const struct fl_training_watch *watch = &self->plan->watch;
    struct fl_finetune_step done;
    enum fl_status status = fl_finetune_advance(self->run, &done, error);
    if (status != FL_OK) {
        return status;
    }
    fl_finetune_count(&self->result->total, &done);
    if (fl_course_add(&self->metrics, &done) != FL_OK) {
        return fl_fail_memory(error);
    }
    if (self->plan->valid) {
        fl_validation_step(&self->result->validation, done.loss, done.scored);
    }
    if (watch->on_step) {
        watch->on_step(watch->context, &done);
    }
    return FL_OK;
}

static enum fl_status live(struct fl_life *self, struct fl_error *error)
{
    for (;;) {
        enum fl_status status = evaluate(self, error);
        if (status == FL_ESTOPPED) {
            return stop(self, error);
        }
        if (status != FL_OK) {
            return status;
        }
        leave_checkpoint(self);
        if (is_over(self)) {
            return fl_life_save(self, false, error);
        }
        if (self->plan->stop && atomic_load(self->plan->stop) != 0) {
            return stop(self, error);
        }
        status = advance(self, error);
        if (status != FL_OK) {
            return status;
        }
    }
}

/* What has to be there before the first step. */
static enum fl_status begin(struct fl_life *self, struct fl_error *error)
{
    const struct fl_training *plan = self->plan;
    struct fl_finetune_options options = plan->options;
    enum fl_status status = fl_training_check_out(plan->out, plan->resume, error);
    if (status == FL_OK && plan->valid) {
        options.valid = plan->valid;
        options.valid_count = plan->valid_count;
        options.copies++; /* the best so far */
        if (plan->valid_count == 0 || plan->eval_every == 0) {
            return fl_fail(error, FL_EINVAL, "validation needs rows, and every how many steps");
        }
        if (fl_adapter_copy(plan->adapter, &self->best) != FL_OK) {
            return fl_fail_memory(error);
        }
    }
    if (status == FL_OK) {
        status = fl_finetune_open(plan->model, plan->adapter, plan->rows, plan->count, &options,
                                  &self->run, error);
    }
    if (status != FL_OK) {
        return status;
    }
    self->result->total.compute = fl_finetune_compute(self->run);
    self->result->total.threads = fl_finetune_threads(self->run);
    if (plan->watch.on_memory) {
        const struct fl_footprint footprint = fl_finetune_footprint(self->run);
        plan->watch.on_memory(plan->watch.context, &footprint);
    }
    if (plan->checkpoint_every > 0) {
        status = fl_life_need_settings(self, error);
    }
    return status == FL_OK && plan->resume ? resume(self, error) : status;
}

enum fl_status fl_training_run(const struct fl_training *self, struct fl_training_result *result,
                               struct fl_error *error)
{
    struct fl_life life = {.plan = self, .result = result, .lock = -1};
    *result = (struct fl_training_result){.total = {.compute = ""}};
    enum fl_status status = begin(&life, error);
    if (status == FL_OK) {
        status = live(&life, error);
    }
    json_decref(life.settings);
    fl_adapter_destroy(&life.best);
    fl_course_free(&life.metrics);
    if (life.lock >= 0) {
        close(life.lock);
    }
    fl_finetune_close(&life.run);
    return status;
}

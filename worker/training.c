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

#include "base/alloc.h"
#include "base/hash.h"
#include "format/peft.h"
#include "worker/checkpoint.h"
#include "worker/course.h"
#include "worker/report_html.h"

#define METRICS_FILE     "metrics.jsonl"
#define REPORT_FILE      "training.html"
#define REPORT_BYTES_MAX (8u << 20)

struct life {
    const struct fl_training *plan;
    struct fl_training_result *result;
    struct fl_finetune_run *run;
    struct fl_adapter *best; /* owned; NULL: no validation */
    json_t *settings;        /* NULL: not asked for yet */
    struct fl_course metrics;
    uint64_t saved; /* step of the newest checkpoint */
    bool ours;      /* OUT is this run's own already */
};

static enum fl_status join_config(const char *out, char *path, struct fl_error *error)
{
    return fl_path_join(path, out, FL_PEFT_CONFIG, error);
}

enum fl_status fl_training_check_out(const char *out, bool resume, struct fl_error *error)
{
    char config[FL_PATH_BYTES], newest[FL_PATH_BYTES];
    uint64_t step = 0;
    enum fl_status status = join_config(out, config, error);
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

/* ---- what a run is made of ---- */

static enum fl_status set_text(json_t *settings, const char *key, const char *text,
                               struct fl_error *error)
{
    return json_object_set_new(settings, key, json_string(text)) == 0 ? FL_OK
                                                                      : fl_fail_memory(error);
}

static enum fl_status set_rows(json_t *settings, const char *key, const struct fl_row *rows,
                               size_t count, struct fl_error *error)
{
    struct fl_blake2b hash;
    uint8_t digest[FL_HASH_BYTES];
    char hex[FL_HASH_HEX_BYTES];
    fl_blake2b_init(&hash, NULL, 0);
    for (size_t i = 0; i < count; i++) {
        uint8_t length[4];
        fl_store_u32(length, rows[i].length);
        fl_blake2b_update(&hash, length, sizeof length);
        fl_blake2b_update(&hash, rows[i].ids, rows[i].length * sizeof *rows[i].ids);
        fl_blake2b_update(&hash, rows[i].labels, rows[i].length * sizeof *rows[i].labels);
    }
    fl_blake2b_final(&hash, digest);
    fl_hex(digest, sizeof digest, hex);
    return set_text(settings, key, hex, error);
}

/* Ask once for what makes this run this run. */
static enum fl_status need_settings(struct life *self, struct fl_error *error)
{
    if (self->settings) {
        return FL_OK;
    }
    const struct fl_training *plan = self->plan;
    json_t *settings = json_object();
    enum fl_status status = settings ? plan->watch.identify(plan->watch.context, settings, error)
                                     : fl_fail_memory(error);
    if (status == FL_OK) {
        status = set_rows(settings, "--data", plan->rows, plan->count, error);
    }
    if (status == FL_OK) {
        status = plan->valid ? set_rows(settings, "--valid", plan->valid, plan->valid_count, error)
                             : set_text(settings, "--valid", "none", error);
    }
    if (status != FL_OK) {
        json_decref(settings);
        return status;
    }
    self->settings = settings;
    return FL_OK;
}

static struct fl_checkpoint_parts parts_of(struct life *self)
{
    return (struct fl_checkpoint_parts){.adapter = self->plan->adapter,
                                        .optimizer = fl_finetune_optimizer(self->run),
                                        .best = self->best,
                                        .settings = self->settings};
}

/* ---- saving ---- */

/* from/name over to/name. */
static enum fl_status move_file(const char *from, const char *to, const char *name,
                                struct fl_error *error)
{
    char source[FL_PATH_BYTES], target[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(source, from, name, error);
    if (status == FL_OK) {
        status = fl_path_join(target, to, name, error);
    }
    return status == FL_OK ? fl_fs_rename(source, target, error) : status;
}

/* Take the three files of a PEFT directory out of `from` into `to`, one by one; a reader in between
 * finds files that fit together, because every adapter of a run has the same configuration. */
static enum fl_status move_adapter(const char *from, const char *to, struct fl_error *error)
{
    enum fl_status status = move_file(from, to, FL_PEFT_WEIGHTS, error);
    if (status == FL_OK) {
        status = move_file(from, to, FL_PEFT_CONFIG, error);
    }
    return status == FL_OK ? move_file(from, to, "README.md", error) : status;
}

static enum fl_status make_card(struct life *self, bool best, struct fl_buf *card,
                                struct fl_error *error)
{
    const struct fl_training_watch *watch = &self->plan->watch;
    fl_buf_init(card, 1u << 16);
    watch->card(watch->context, &self->result->total, &self->result->validation, best, card);
    return fl_buf_status(card) == FL_OK ? FL_OK : fl_fail_memory(error);
}

/* root/unfinished, empty and the only place where files come about: what a kill leaves behind lies
 * there, and the next save clears it. */
static enum fl_status make_scratch(const char *root, char *scratch, struct fl_error *error)
{
    enum fl_status status = fl_path_join(scratch, root, "unfinished", error);
    if (status == FL_OK) {
        status = fl_fs_remove(scratch, error);
    }
    return status == FL_OK ? fl_fs_make_directory(scratch, 0755, error) : status;
}

/* adapter (the best, or the last) as scratch/name; *path: that directory. */
static enum fl_status write_adapter(struct life *self, const char *scratch, const char *name,
                                    bool best, char *path, struct fl_error *error)
{
    const struct fl_adapter *adapter = best ? self->best : self->plan->adapter;
    struct fl_buf card;
    if (!fl_adapter_finite(adapter)) {
        return fl_fail(error, FL_ERANGE, "the adapter holds NaN or Inf after training");
    }
    enum fl_status status = make_card(self, best, &card, error);
    if (status == FL_OK) {
        status = fl_path_join(path, scratch, name, error);
    }
    if (status == FL_OK) {
        status = fl_adapter_save(adapter, path, fl_buf_text(&card), error);
    }
    fl_buf_free(&card);
    return status;
}

/* The adapter, and the best one, into root. */
static enum fl_status save_adapters(struct life *self, const char *scratch, const char *root,
                                    struct fl_error *error)
{
    const bool has_best = self->result->validation.evaluations > 0;
    const bool keep_best = has_best && self->plan->keep_best;
    char fresh[FL_PATH_BYTES], best[FL_PATH_BYTES];
    enum fl_status status = write_adapter(self, scratch, "adapter", keep_best, fresh, error);
    if (status == FL_OK) {
        status = move_adapter(fresh, root, error);
    }
    if (status == FL_OK && has_best && !keep_best) {
        status = write_adapter(self, scratch, "best", true, fresh, error);
        if (status == FL_OK) {
            status = fl_path_join(best, root, "best", error);
        }
        if (status == FL_OK) {
            status = fl_fs_replace_directory(fresh, best, error);
        }
    }
    return status;
}

/* ---- the report ---- */

static enum fl_status set_format(json_t *object, const char *key, json_t *text,
                                 struct fl_error *error)
{
    return json_object_set_new(object, key, text) == 0 ? FL_OK : fl_fail_memory(error);
}

/* The rows of the report's table. */
static enum fl_status make_facts(const struct life *self, json_t *facts, struct fl_error *error)
{
    const struct fl_training_watch *watch = &self->plan->watch;
    const struct fl_finetune_result *t = &self->result->total;
    const struct fl_validation *v = &self->result->validation;
    double speed = t->seconds > 0 ? (double)t->tokens / t->seconds : 0.0;
    enum fl_status status = set_format(
        facts, "steps",
        json_sprintf("%" PRIu64 " of %" PRIu64, t->steps, self->plan->options.steps), error);
    if (status == FL_OK) {
        status = set_format(facts, "loss of the last step", json_sprintf("%.6g", t->loss), error);
    }
    if (status == FL_OK && v->evaluations > 0) {
        status = set_format(facts, "best validation loss",
                            json_sprintf("%.6g, at step %" PRIu64, v->best_loss, v->best_step),
                            error);
    }
    if (status == FL_OK) {
        status = set_format(facts, "tokens",
                            json_sprintf("%" PRIu64 " in %.1f s of steps, %.0f a second", t->tokens,
                                         t->seconds, speed),
                            error);
    }
    return status == FL_OK && watch->describe ? watch->describe(watch->context, facts, error)
                                              : status;
}

static void name_state(const struct life *self, char *out, size_t room)
{
    const struct fl_training_result *r = self->result;
    if (r->early) {
        (void)snprintf(out, room, "Stopped early after step %" PRIu64 ".", r->total.steps);
    } else if (r->total.steps >= self->plan->options.steps) {
        (void)snprintf(out, room, "Finished.");
    } else {
        (void)snprintf(out, room, "Not finished: as of step %" PRIu64 ".", r->total.steps);
    }
}

static enum fl_status write_report(const struct life *self, const char *path,
                                   struct fl_error *error)
{
    char state[80];
    struct fl_buf page;
    json_t *facts = json_object();
    fl_buf_init(&page, REPORT_BYTES_MAX);
    name_state(self, state, sizeof state);
    enum fl_status status = facts ? make_facts(self, facts, error) : fl_fail_memory(error);
    if (status == FL_OK) {
        const char *base = fl_path_base(self->plan->out);
        const struct fl_report report = {.title = base[0] ? base : self->plan->out,
                                         .state = state,
                                         .facts = facts,
                                         .best_step = self->result->validation.best_step,
                                         .metrics = &self->metrics};
        status = fl_report_html(&report, &page) == FL_OK
                     ? fl_fs_write(path, page.data, page.length, 0644, error)
                     : fl_fail_memory(error);
    }
    json_decref(facts);
    fl_buf_free(&page);
    return status;
}

/* metrics.jsonl and training.html into root. */
static enum fl_status save_course(const struct life *self, const char *scratch, const char *root,
                                  struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(path, scratch, METRICS_FILE, error);
    if (status == FL_OK) {
        status = fl_course_write(&self->metrics, path, error);
    }
    if (status == FL_OK) {
        status = move_file(scratch, root, METRICS_FILE, error);
    }
    if (status == FL_OK) {
        status = fl_path_join(path, scratch, REPORT_FILE, error);
    }
    if (status == FL_OK) {
        status = write_report(self, path, error);
    }
    return status == FL_OK ? move_file(scratch, root, REPORT_FILE, error) : status;
}

/* ---- all together ---- */

static enum fl_status save_checkpoint(struct life *self, const char *root, struct fl_error *error)
{
    struct fl_checkpoint checkpoint = {.position = fl_finetune_position(self->run),
                                       .total = self->result->total,
                                       .validation = self->result->validation};
    struct fl_checkpoint_parts parts = parts_of(self);
    struct fl_buf card;
    enum fl_status status = make_card(self, false, &card, error);
    if (status == FL_OK) {
        status = fl_checkpoint_save(root, &checkpoint, &parts, fl_buf_text(&card),
                                    self->plan->keep_checkpoints, error);
    }
    fl_buf_free(&card);
    return status;
}

/* Everything into the directory root; with_checkpoint: so that a later run can go on from here. */
static enum fl_status write_root(struct life *self, const char *root, bool with_checkpoint,
                                 struct fl_error *error)
{
    char scratch[FL_PATH_BYTES];
    enum fl_status status = make_scratch(root, scratch, error);
    if (status == FL_OK) {
        status = save_adapters(self, scratch, root, error);
    }
    if (status == FL_OK) {
        status = save_course(self, scratch, root, error);
    }
    if (status == FL_OK) {
        status = fl_fs_remove(scratch, error);
    }
    if (status == FL_OK && with_checkpoint) {
        status = save_checkpoint(self, root, error);
    }
    return status;
}

/* OUT.tmp.run, where OUT is made the first time, all of it before it gets its name. */
static enum fl_status first_root(const char *out, char *path, struct fl_error *error)
{
    size_t length = strlen(out);
    while (length > 1 && out[length - 1] == '/') {
        length--;
    }
    int n = snprintf(path, FL_PATH_BYTES, "%.*s.tmp.run", (int)length, out);
    if (n < 0 || n >= FL_PATH_BYTES) {
        return fl_fail(error, FL_ERANGE, "the path of the adapter is too long");
    }
    return fl_fs_remove(path, error);
}

static enum fl_status save(struct life *self, bool with_checkpoint, struct fl_error *error)
{
    const char *out = self->plan->out;
    char first[FL_PATH_BYTES];
    enum fl_status status = with_checkpoint ? need_settings(self, error) : FL_OK;
    if (status != FL_OK || self->ours) {
        return status == FL_OK ? write_root(self, out, with_checkpoint, error) : status;
    }
    status = first_root(out, first, error);
    if (status == FL_OK) {
        status = write_root(self, first, with_checkpoint, error);
    }
    if (status == FL_OK) {
        status = fl_fs_replace_directory(first, out, error);
    }
    self->ours = status == FL_OK;
    if (status != FL_OK) {
        struct fl_error ignored;
        (void)!fl_fs_remove(first, &ignored);
    }
    return status;
}

static void tell_trouble(const struct life *self, const char *text)
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
static void leave_checkpoint(struct life *self)
{
    const struct fl_training_watch *watch = &self->plan->watch;
    struct fl_error error = {0};
    char path[FL_PATH_BYTES];
    uint64_t step = self->result->total.steps;
    if (!is_due(step, self->plan->checkpoint_every) || step == self->saved) {
        return;
    }
    if (save(self, true, &error) != FL_OK) {
        fl_error_prefix(&error, "no checkpoint at step %" PRIu64 ", training goes on", step);
        tell_trouble(self, error.text);
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
    }
}

/* Evaluate, if this is the step for it. FL_ESTOPPED: stopped while at it. */
static enum fl_status evaluate(struct life *self, struct fl_error *error)
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

static void tell_resumed(const struct life *self, uint64_t step, const char *directory)
{
    const struct fl_training_watch *watch = &self->plan->watch;
    if (watch->on_resume) {
        watch->on_resume(watch->context, step, directory);
    }
}

/* What the run told so far. It shapes nothing, so without it the run goes on all the same. */
static void load_metrics(struct life *self, uint64_t step)
{
    char path[FL_PATH_BYTES];
    struct fl_error error = {0};
    enum fl_status status = fl_path_join(path, self->plan->out, METRICS_FILE, &error);
    if (status == FL_OK) {
        status = fl_course_load(&self->metrics, path, step, &error);
    }
    if (status != FL_OK) {
        fl_error_prefix(&error, "the metrics begin anew");
        tell_trouble(self, error.text);
    }
}

static enum fl_status resume(struct life *self, struct fl_error *error)
{
    char path[FL_PATH_BYTES], text[160];
    struct fl_checkpoint checkpoint;
    uint64_t step = 0;
    enum fl_status status = fl_checkpoint_newest(self->plan->out, path, &step, error);
    if (status != FL_OK || step == 0) {
        tell_resumed(self, 0, "");
        return status;
    }
    status = need_settings(self, error);
    if (status == FL_OK) {
        struct fl_checkpoint_parts parts = parts_of(self);
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
    load_metrics(self, step);
    tell_resumed(self, step, path);
    if (threads != then) {
        (void)snprintf(text, sizeof text,
                       "%u threads now and %u before: the result is the same but for rounding",
                       threads, then);
        tell_trouble(self, text);
    }
    return FL_OK;
}

static enum fl_status stop(struct life *self, struct fl_error *error)
{
    struct fl_training_result *result = self->result;
    uint64_t step = result->total.steps;
    if (step == 0) {
        return fl_fail(error, FL_ESTOPPED, "stopped before the first step; nothing was saved");
    }
    enum fl_status status = save(self, true, error);
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

static bool is_over(struct life *self)
{
    const struct fl_training *plan = self->plan;
    uint64_t step = self->result->total.steps;
    self->result->early = step < plan->options.steps && plan->valid && plan->patience > 0 &&
                          self->result->validation.stale >= plan->patience;
    return self->result->early || step >= plan->options.steps;
}

static enum fl_status advance(struct life *self, struct fl_error *error)
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

static enum fl_status live(struct life *self, struct fl_error *error)
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
            return save(self, false, error);
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
static enum fl_status begin(struct life *self, struct fl_error *error)
{
    const struct fl_training *plan = self->plan;
    struct fl_finetune_options options = plan->options;
    enum fl_status status = fl_training_check_out(plan->out, plan->resume, error);
    if (status == FL_OK && plan->valid) {
        options.max_row_tokens = fl_finetune_longest(plan->valid, plan->valid_count);
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
    if (plan->checkpoint_every > 0) {
        status = need_settings(self, error);
    }
    return status == FL_OK && plan->resume ? resume(self, error) : status;
}

enum fl_status fl_training_run(const struct fl_training *self, struct fl_training_result *result,
                               struct fl_error *error)
{
    struct life life = {.plan = self, .result = result};
    *result = (struct fl_training_result){.total = {.compute = ""}};
    enum fl_status status = begin(&life, error);
    if (status == FL_OK) {
        status = live(&life, error);
    }
    json_decref(life.settings);
    fl_adapter_destroy(&life.best);
    fl_course_free(&life.metrics);
    fl_finetune_close(&life.run);
    return status;
}

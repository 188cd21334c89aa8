/*
 * training_files.c - what a run keeps under OUT (training.h): the adapters, its course, and the
 * checkpoints. Files come about in OUT/unfinished and are renamed from there, each when it is whole
 * and on the disk; OUT itself, the first time, in OUT.tmp.run.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "base/hash.h"
#include "format/peft.h"
#include "worker/report_html.h"
#include "worker/training_internal.h"

#define METRICS_FILE     "metrics.jsonl"
#define REPORT_FILE      "training.html"
#define REPORT_BYTES_MAX (8u << 20)

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

enum fl_status fl_life_need_settings(struct fl_life *self, struct fl_error *error)
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

struct fl_checkpoint_parts fl_life_parts(struct fl_life *self)
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

static enum fl_status make_card(struct fl_life *self, bool best, struct fl_buf *card,
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
static enum fl_status write_adapter(struct fl_life *self, const char *scratch, const char *name,
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
static enum fl_status save_adapters(struct fl_life *self, const char *scratch, const char *root,
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
static enum fl_status make_facts(const struct fl_life *self, json_t *facts, struct fl_error *error)
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

static void name_state(const struct fl_life *self, char *out, size_t room)
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

static enum fl_status write_report(const struct fl_life *self, const char *path,
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
static enum fl_status save_course(const struct fl_life *self, const char *scratch, const char *root,
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

static enum fl_status save_checkpoint(struct fl_life *self, const char *root,
                                      struct fl_error *error)
{
    struct fl_checkpoint checkpoint = {.position = fl_finetune_position(self->run),
                                       .total = self->result->total,
                                       .validation = self->result->validation};
    struct fl_checkpoint_parts parts = fl_life_parts(self);
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
static enum fl_status write_root(struct fl_life *self, const char *root, bool with_checkpoint,
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

enum fl_status fl_life_save(struct fl_life *self, bool with_checkpoint, struct fl_error *error)
{
    const char *out = self->plan->out;
    char first[FL_PATH_BYTES];
    enum fl_status status = with_checkpoint ? fl_life_need_settings(self, error) : FL_OK;
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
    if (status == FL_OK && with_checkpoint) {
        status = fl_life_lock(self, error);
    } else if (status != FL_OK) {
        struct fl_error ignored;
        (void)!fl_fs_remove(first, &ignored);
    }
    return status;
}

/* flock on the directory itself leaves no file; where a file system can't do that, none is taken.
 */
enum fl_status fl_life_lock(struct fl_life *self, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(path, self->plan->out, "checkpoints", error);
    if (status != FL_OK || self->lock >= 0) {
        return status;
    }
    self->lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (self->lock >= 0 && flock(self->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        return fl_fail(error, FL_EBUSY, "%s: another run is at work there", self->plan->out);
    }
    return FL_OK;
}

void fl_life_load_metrics(struct fl_life *self, uint64_t step)
{
    char path[FL_PATH_BYTES];
    struct fl_error error = {0};
    enum fl_status status = fl_path_join(path, self->plan->out, METRICS_FILE, &error);
    if (status == FL_OK) {
        status = fl_course_load(&self->metrics, path, step, &error);
    }
    if (status != FL_OK) {
        fl_error_prefix(&error, "the metrics begin anew");
        fl_life_tell_trouble(self, error.text);
    }
}

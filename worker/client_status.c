/* client_status.c - SITE/status.json, which `fedlora-worker status` shows, and progress lines. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cli.h"
#include "base/json.h"
#include "base/log.h"
#include "worker/client_internal.h"

#define PROGRESS_MS 1000

static json_t *refusals_json(const struct fl_client *self)
{
    json_t *list = json_array();
    uint32_t count = self->refusal_count < FL_REFUSALS_KEPT ? self->refusal_count
                                                            : FL_REFUSALS_KEPT;
    for (uint32_t i = 0; i < count; i++) {
        const struct fl_kept_refusal *r =
            &self->refusals[(self->refusal_count - count + i) % FL_REFUSALS_KEPT];
        json_array_append_new(list, json_pack("{s:I,s:s,s:s}", "job", (json_int_t)r->job, "code",
                                              fl_refusal_name(r->code), "reason", r->reason));
    }
    return list;
}

static void set(json_t *object, const char *key, json_t *value)
{
    (void)!json_object_set_new(object, key, value ? value : json_null());
}

static json_t *status_json(struct fl_client *self)
{
    struct fl_trainer_progress p = fl_compute_progress(self->c.compute);
    json_t *root = json_object();
    if (!root)
        return NULL;
    set(root, "state", json_string(self->welcomed ? "online" : "offline"));
    set(root, "name", self->name[0] ? json_string(self->name) : json_null());
    set(root, "coordinator", json_string(self->c.conf->address));
    set(root, "job", self->key.job ? json_integer((json_int_t)self->key.job) : json_null());
    set(root, "job_name", self->key.job ? json_string(self->offer.name) : json_null());
    set(root, "round", json_integer(self->key.round));
    set(root, "rounds", json_integer(self->key.job ? self->offer.rounds : 0));
    set(root, "attempt", json_integer(self->key.attempt));
    set(root, "stage", json_string(fl_stage_name(self->stage)));
    set(root, "activity", json_string(fl_activity_name(p.activity)));
    set(root, "step", json_integer(p.step));
    set(root, "steps", json_integer(p.steps));
    set(root, "tokens_per_second",
        json_real(isfinite(p.tokens_per_second) ? p.tokens_per_second : 0));
    set(root, "eval_loss", isfinite(self->eval_loss) ? json_real(self->eval_loss) : json_null());
    set(root, "refusals", refusals_json(self));
    fl_history_put(&self->history, root);
    return root;
}

enum fl_status fl_client_status_text(struct fl_client *self, struct fl_buf *out)
{
    json_t *root = status_json(self);
    enum fl_status status = root ? fl_json_append(out, root) : FL_ENOMEM;
    fl_buf_append(out, "\n", 1);
    json_decref(root);
    return status == FL_OK ? fl_buf_status(out) : status;
}

void fl_client_write_status(struct fl_client *self)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    struct fl_buf text;
    fl_buf_init(&text, 1u << 20);
    enum fl_status status = fl_client_status_text(self, &text);
    if (status != FL_OK)
        (void)fl_fail_memory(&error);
    else
        status = fl_sitestore_path(self->c.store, "status.json", path, &error);
    if (status == FL_OK)
        status = fl_fs_write(path, text.data, text.length, 0600, &error);
    if (status != FL_OK)
        fl_log(FL_LOG_ERROR, "status_not_written", error.text);
    self->status_dirty = false;
    fl_buf_free(&text);
}

void fl_client_show_progress(struct fl_client *self)
{
    struct fl_trainer_progress p = fl_compute_progress(self->c.compute);
    int64_t now = fl_client_now(self);
    if (p.activity != FL_ACTIVITY_TRAINING || p.step == self->progress_step ||
        now < self->progress_at)
        return;
    self->progress_step = p.step;
    self->progress_at = now + PROGRESS_MS;
    self->status_dirty = true;
    if (!self->c.progress)
        return;
    double left = p.step && p.tokens_per_second > 0.0
                      ? (double)(p.steps - p.step) * (double)self->offer.batch_size *
                            (double)self->offer.seq_len / p.tokens_per_second
                      : 0.0;
    bool terminal = fl_cli_is_terminal();
    fprintf(stderr,
            "%sjob %" PRIu64
            " round %u/%u step %u/%u loss %.4f %.0f tokens/s, at most %.0f s left%s",
            terminal ? "\r\033[K" : "", self->key.job, self->key.round, self->offer.rounds, p.step,
            p.steps, p.loss, p.tokens_per_second, left, terminal && p.step < p.steps ? "" : "\n");
}

/* http_json.c - a view as /status.json: what `status --json` says, and what the page shows. */
#include "coordinator/http_view.h"
#include "coordinator/ops.h"
#include "job/strategy.h"

/* Append to a list; false: memory. */
static bool put(json_t *list, json_t *item)
{
    return item && json_array_append_new(list, item) == 0;
}

static json_t *ranks_of(const struct fl_view_job *job, const struct fl_view_version *version)
{
    json_t *list = json_array();
    for (uint32_t i = 0; list && version->rank > 0 && i < job->layers; i++) {
        if (!put(list, json_integer(fl_view_layer_rank(job, version, i)))) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *version_of(const struct fl_view_job *job, const struct fl_view_version *v)
{
    return json_pack(
        "{s:I, s:I, s:o, s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:b, s:o}", "version",
        (json_int_t)v->version, "round", (json_int_t)v->round, "sha256", fl_op_hash(v->sha256),
        "parent_sha256", v->has_parent ? fl_op_hash(v->parent_sha256) : json_null(), "rank",
        (json_int_t)v->rank, "workers", (json_int_t)v->workers, "bytes", (json_int_t)v->bytes,
        "created", fl_op_time(v->created_ms), "eval_loss",
        v->eval_tokens ? fl_op_real(v->eval_loss) : json_null(), "eval_tokens",
        v->eval_tokens ? json_integer((json_int_t)v->eval_tokens) : json_null(), "train_loss",
        fl_op_real(v->train_loss), "delta_norm", fl_op_real(v->delta_norm), "current",
        (int)(v == fl_view_current_version(job)), "layer_ranks", ranks_of(job, v));
}

static json_t *versions_of(const struct fl_view_job *job)
{
    json_t *list = json_array();
    for (uint32_t i = 0; list && i < job->version_count; i++) {
        if (!put(list, version_of(job, &job->versions[i]))) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *job_of(const struct fl_view_job *job)
{
    uint64_t rounds = job->spec->rounds;
    uint64_t round = job->row.round > rounds ? rounds : job->row.round;
    return json_pack(
        "{s:I, s:s, s:s, s:s, s:I, s:I, s:s, s:I, s:s, s:o, s:o, s:o, s:b, s:o}", "job",
        (json_int_t)job->row.id, "name", job->row.name, "state", fl_job_state_name(job->row.state),
        "strategy", fl_strategy_info((enum fl_strategy)job->spec->strategy)->name, "round",
        (json_int_t)round, "rounds", (json_int_t)rounds, "phase",
        fl_round_state_name(job->row.phase), "attempt", (json_int_t)job->row.attempt, "reason",
        job->row.reason, "created", fl_op_time(job->row.created_ms), "ended",
        fl_op_time(job->row.ended_ms), "base_loss", fl_op_real(job->row.base_loss),
        "secure_aggregation", (int)job->spec->secure_aggregation, "versions", versions_of(job));
}

static json_t *site_of(const struct fl_view_site *s)
{
    return json_pack("{s:s, s:s, s:o, s:I, s:I, s:o, s:b, s:I, s:b}", "name", s->name, "state",
                     fl_view_site_state_name(s->state), "last_seen_seconds",
                     s->seen_seconds < 0.0 ? json_null() : json_real(s->seen_seconds), "step",
                     (json_int_t)s->step, "steps", (json_int_t)s->steps, "tokens_per_second",
                     fl_op_real(s->tokens_per_second), "in_round", (int)s->cohort, "failed_sums",
                     (json_int_t)s->failed_sums, "left_out", (int)s->left_out);
}

static json_t *refusal_of(const struct fl_refusal_row *row)
{
    return json_pack("{s:s, s:s, s:s, s:b}", "worker", row->worker, "reason", row->reason, "code",
                     fl_refusal_name(row->code), "permanent", (int)row->permanent);
}

static bool fill_lists(const struct fl_view *self, json_t *sites, json_t *refusals, json_t *jobs)
{
    const struct fl_view_job *job = self->current < 0 ? NULL : self->jobs[self->current];
    for (uint32_t i = 0; i < self->site_count; i++) {
        if (!put(sites, site_of(&self->sites[i])))
            return false;
    }
    for (uint32_t i = 0; job && i < job->refusal_count; i++) {
        if (!put(refusals, refusal_of(&job->refusals[i])))
            return false;
    }
    for (uint32_t i = 0; i < self->job_count; i++) {
        if (!put(jobs, job_of(self->jobs[i])))
            return false;
    }
    return true;
}

static json_t *whole(const struct fl_view *self)
{
    const struct fl_view_job *job = self->current < 0 ? NULL : self->jobs[self->current];
    const struct fl_tally *t = &self->tally;
    uint64_t rounds = job ? job->spec->rounds : 0;
    json_t *root = json_pack(
        "{s:o, s:s, s:o, s:o, s:o, s:s, s:s, s:f, s:f, s:{s:I, s:I, s:I}, s:[], s:[], s:[]}",
        "time", fl_op_time(self->wall_ms), "state", fl_view_state(self), "job",
        job ? json_integer((json_int_t)job->row.id) : json_null(), "round",
        job ? json_integer((json_int_t)(job->row.round > rounds ? rounds : job->row.round))
            : json_null(),
        "rounds", job ? json_integer((json_int_t)rounds) : json_null(), "phase",
        job ? fl_round_state_name(job->row.phase) : "idle", "reason",
        self->running ? self->waiting
        : job         ? job->row.reason
                      : "",
        "phase_seconds", self->phase_seconds, "tokens_per_second", fl_view_tokens_per_second(self),
        "bytes", "received", (json_int_t)t->received_bytes, "sent", (json_int_t)t->sent_bytes,
        "updates", (json_int_t)t->update_bytes, "workers", "refusals", "jobs");
    if (root && fill_lists(self, json_object_get(root, "workers"),
                           json_object_get(root, "refusals"), json_object_get(root, "jobs")))
        return root;
    json_decref(root);
    return NULL;
}

enum fl_status fl_view_json(const struct fl_view *self, struct fl_buf *out)
{
    json_t *root = whole(self);
    enum fl_status status = root ? fl_json_append(out, root) : FL_ENOMEM;
    if (status == FL_OK)
        fl_buf_append(out, "\n", 1);
    json_decref(root);
    return status;
}

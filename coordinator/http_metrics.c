/* http_metrics.c - a view as Prometheus reads it. Names and units: prometheus.io's practices. */
#include <math.h>
#include <stdio.h>

#include "coordinator/http_view.h"
#include "web/prom.h"

static void gauge(struct fl_buf *out, const char *name, const char *help, double value)
{
    fl_prom_head(out, name, "gauge", help);
    fl_prom(out, name, "", value, NULL);
}

static void counter(struct fl_buf *out, const char *name, const char *help, uint64_t value)
{
    fl_prom_head(out, name, "counter", help);
    fl_prom(out, name, "", (double)value, NULL);
}

static void print_process(const struct fl_view *self, struct fl_buf *out)
{
    fl_prom_head(out, "fedlora_build_info", "gauge", "1, with the version of the program.");
    fl_prom(out, "fedlora_build_info", "", 1, "program", "fedlora-coordinator", "version",
            FL_VERSION, NULL);
    gauge(out, "fedlora_start_time_seconds", "When the coordinator was started, Unix time.",
          (double)self->started_ms / 1000.0);
    gauge(out, "fedlora_snapshot_time_seconds", "When these numbers were taken, Unix time.",
          (double)self->wall_ms / 1000.0);
}

static void print_sites(const struct fl_view *self, struct fl_buf *out)
{
    uint64_t states[FL_VIEW_SITE_STATE_COUNT] = {0};
    for (uint32_t i = 0; i < self->site_count; i++)
        states[self->sites[i].state]++;
    fl_prom_head(out, "fedlora_workers", "gauge", "Enrolled sites by state.");
    for (int i = 0; i < FL_VIEW_SITE_STATE_COUNT; i++)
        fl_prom(out, "fedlora_workers", "", (double)states[i], "state",
                fl_view_site_state_name((enum fl_view_site_state)i), NULL);
    fl_prom_head(out, "fedlora_worker_up", "gauge", "1 while a site has a session.");
    for (uint32_t i = 0; i < self->site_count; i++) {
        const struct fl_view_site *s = &self->sites[i];
        if (s->state != FL_VIEW_REVOKED)
            fl_prom(out, "fedlora_worker_up", "", s->state != FL_VIEW_OFFLINE, "worker", s->name,
                    NULL);
    }
    fl_prom_head(out, "fedlora_worker_last_seen_timestamp_seconds", "gauge",
                 "When a site was last heard of, Unix time.");
    for (uint32_t i = 0; i < self->site_count; i++) {
        const struct fl_view_site *s = &self->sites[i];
        if (s->state != FL_VIEW_REVOKED && s->seen_seconds >= 0.0)
            fl_prom(out, "fedlora_worker_last_seen_timestamp_seconds", "",
                    (double)self->wall_ms / 1000.0 - s->seen_seconds, "worker", s->name, NULL);
    }
    fl_prom_head(out, "fedlora_worker_tokens_per_second", "gauge",
                 "Training speed that a site reports.");
    for (uint32_t i = 0; i < self->site_count; i++) {
        const struct fl_view_site *s = &self->sites[i];
        if (s->state == FL_VIEW_TRAINING)
            fl_prom(out, "fedlora_worker_tokens_per_second", "", s->tokens_per_second, "worker",
                    s->name, NULL);
    }
    fl_prom_head(out, "fedlora_worker_failed_sums", "gauge",
                 "Failed sums of the running job that a site was in.");
    for (uint32_t i = 0; i < self->site_count; i++) {
        const struct fl_view_site *s = &self->sites[i];
        if (self->running && s->failed_sums > 0)
            fl_prom(out, "fedlora_worker_failed_sums", "", s->failed_sums, "worker", s->name, NULL);
    }
    gauge(out, "fedlora_tokens_per_second", "Training speed of all sites together.",
          fl_view_tokens_per_second(self));
}

static void print_rounds(const struct fl_view *self, struct fl_buf *out)
{
    const struct fl_tally *t = &self->tally;
    enum fl_round_state now = FL_ROUND_IDLE;
    if (self->running && self->current >= 0)
        now = self->jobs[self->current]->row.phase;
    fl_prom_head(out, "fedlora_rounds_total", "counter", "Attempts at rounds by how they ended.");
    for (int i = 0; i < FL_TALLY_RESULT_COUNT; i++)
        fl_prom(out, "fedlora_rounds_total", "", (double)t->rounds[i], "result",
                fl_tally_result_name((enum fl_tally_result)i), NULL);
    counter(out, "fedlora_round_retries_total", "Attempts at rounds that broke and began anew.",
            t->rounds[FL_TALLY_RETRIED]);
    fl_prom_head(out, "fedlora_round_phase_seconds", "summary", "Time spent in phases that ended.");
    for (int i = FL_ROUND_SELECT; i <= FL_ROUND_COMMIT; i++) {
        const char *name = fl_round_state_name((enum fl_round_state)i);
        fl_prom(out, "fedlora_round_phase_seconds", "_sum", t->phases[i].seconds, "phase", name,
                NULL);
        fl_prom(out, "fedlora_round_phase_seconds", "_count", (double)t->phases[i].times, "phase",
                name, NULL);
    }
    fl_prom_head(out, "fedlora_round_phase", "gauge", "1 for the phase of the round that runs.");
    for (int i = FL_ROUND_IDLE; i <= FL_ROUND_COMMIT; i++)
        fl_prom(out, "fedlora_round_phase", "", (int)now == i, "phase",
                fl_round_state_name((enum fl_round_state)i), NULL);
    gauge(out, "fedlora_round_phase_elapsed_seconds", "How long the present phase has lasted.",
          self->phase_seconds);
}

static void print_traffic(const struct fl_view *self, struct fl_buf *out)
{
    const struct fl_tally *t = &self->tally;
    counter(out, "fedlora_received_bytes_total", "Frames of sites, before encryption.",
            t->received_bytes);
    counter(out, "fedlora_sent_bytes_total", "Frames to sites, before encryption.", t->sent_bytes);
    counter(out, "fedlora_updates_total", "Updates that were accepted.", t->updates);
    counter(out, "fedlora_update_bytes_total", "Size of the sealed updates that were accepted.",
            t->update_bytes);
    fl_prom_head(out, "fedlora_joins_total", "counter", "Enrolments by result.");
    fl_prom(out, "fedlora_joins_total", "", (double)t->joins, "result", "accepted", NULL);
    fl_prom(out, "fedlora_joins_total", "", (double)t->refused_joins, "result", "refused", NULL);
    counter(out, "fedlora_refusals_total", "Offers that sites refused.", t->refusals);
}

typedef double (*job_value)(const struct fl_view_job *job); /* NaN: no sample */

static double round_of(const struct fl_view_job *job)
{
    uint64_t rounds = job->spec->rounds;
    return (double)(job->row.round > rounds ? rounds : job->row.round);
}

static double rounds_of(const struct fl_view_job *job)
{
    return (double)job->spec->rounds;
}

static double version_of(const struct fl_view_job *job)
{
    const struct fl_view_version *v = fl_view_current_version(job);
    return v ? v->version : 0;
}

static double held_out_of(const struct fl_view_job *job)
{
    const struct fl_view_version *v = fl_view_evaluated(job);
    return v ? v->eval_loss : job->row.base_loss;
}

static double base_loss_of(const struct fl_view_job *job)
{
    return job->row.base_loss;
}

static double train_loss_of(const struct fl_view_job *job)
{
    return job->version_count > 0 ? job->versions[job->version_count - 1].train_loss : (double)NAN;
}

static double rank_of(const struct fl_view_job *job)
{
    return job->version_count > 0 ? job->versions[job->version_count - 1].rank : (double)NAN;
}

static const struct {
    const char *name, *help;
    job_value value;
} job_families[] = {
    {"fedlora_job_round", "The round that a job is in.", round_of},
    {"fedlora_job_rounds", "The rounds that a job shall have.", rounds_of},
    {"fedlora_job_version", "The version of a job's adapter that is current.", version_of},
    {"fedlora_held_out_loss",
     "Held-out loss of the newest version that was evaluated, nats a "
     "token, over all sites.",
     held_out_of},
    {"fedlora_base_held_out_loss", "Held-out loss before the first round.", base_loss_of},
    {"fedlora_train_loss", "Training loss of the newest round, over all sites.", train_loss_of},
    {"fedlora_adapter_rank", "The largest LoRA rank of the newest version.", rank_of},
};

static void print_jobs(const struct fl_view *self, struct fl_buf *out)
{
    fl_prom_head(out, "fedlora_jobs", "gauge", "Jobs by state.");
    for (int i = 0; i < FL_JOB_STATE_COUNT; i++)
        fl_prom(out, "fedlora_jobs", "", (double)self->jobs_by_state[i], "state",
                fl_job_state_name((enum fl_job_state)i), NULL);
    for (size_t f = 0; f < sizeof job_families / sizeof job_families[0]; f++) {
        fl_prom_head(out, job_families[f].name, "gauge", job_families[f].help);
        for (uint32_t i = 0; i < self->job_count; i++) {
            char id[24];
            double value = job_families[f].value(self->jobs[i]);
            (void)snprintf(id, sizeof id, "%lld", (long long)self->jobs[i]->row.id);
            if (!isnan(value))
                fl_prom(out, job_families[f].name, "", value, "job_id", id, "job_name",
                        self->jobs[i]->row.name, NULL);
        }
    }
}

void fl_view_metrics(const struct fl_view *self, struct fl_buf *out)
{
    print_process(self, out);
    print_sites(self, out);
    print_rounds(self, out);
    print_jobs(self, out);
    print_traffic(self, out);
}

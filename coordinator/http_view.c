/* http_view.c - see http_view.h. */
#include "coordinator/http_view.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "coordinator/list.h"
#include "coordinator/server_internal.h"

/* ---- jobs, as the database has them ---- */

static void release_job(struct fl_view_job *job)
{
    if (!job || atomic_fetch_sub(&job->references, 1) != 1)
        return;
    for (uint32_t i = 0; i < job->version_count; i++)
        fl_free(job->versions[i].ranks);
    fl_free(job->versions);
    fl_free(job->refusals);
    fl_inventory_free(&job->targets);
    fl_free(job->spec);
    fl_free(job);
}

static struct fl_view_job *share(struct fl_view_job *job)
{
    atomic_fetch_add(&job->references, 1);
    return job;
}

static enum fl_status add_version(void *context, const struct fl_version *from)
{
    struct fl_view_job *job = context;
    struct fl_view_version *v = &job->versions[job->version_count];
    *v = (struct fl_view_version){.version = from->version,
                                  .round = from->round,
                                  .rank = from->rank,
                                  .workers = from->workers,
                                  .has_parent = from->has_parent,
                                  .bytes = from->bytes,
                                  .train_tokens = from->train_tokens,
                                  .eval_tokens = from->eval_tokens,
                                  .created_ms = from->created_ms,
                                  .train_loss = from->train_loss,
                                  .eval_loss = from->eval_loss,
                                  .delta_norm = from->delta_norm};
    memcpy(v->sha256, from->sha256, FL_HASH_BYTES);
    memcpy(v->parent_sha256, from->parent_sha256, FL_HASH_BYTES);
    v->ranks = fl_calloc(from->rank_count + 1, sizeof *v->ranks);
    if (!v->ranks)
        return FL_ENOMEM;
    job->version_count++;
    if (from->rank_count == job->targets.count)
        memcpy(v->ranks, from->ranks, from->rank_count * sizeof *v->ranks);
    else
        v->rank = 0; /* not this job's modules: nothing is said of its ranks */
    return FL_OK;
}

static enum fl_status read_targets(struct fl_store *store, struct fl_view_job *job,
                                   struct fl_error *error)
{
    struct fl_inventory inventory = {0};
    enum fl_status status = fl_queue_inventory(store, job->row.id, NULL, &inventory, error);
    if (status == FL_ENOTFOUND)
        return FL_OK;
    if (status == FL_OK)
        status = fl_inventory_select(&inventory, job->spec->targets, &job->targets, error);
    fl_inventory_free(&inventory);
    for (uint32_t i = 0; status == FL_OK && i < job->targets.count; i++) {
        if (job->targets.modules[i].layer >= job->layers && job->layers < FL_LAYERS_MAX)
            job->layers = (uint16_t)(job->targets.modules[i].layer + 1);
    }
    return status;
}

static enum fl_status read_job(struct fl_store *store, const struct fl_job *row,
                               struct fl_view_job **out, struct fl_error *error)
{
    *out = NULL;
    struct fl_view_job *job = fl_calloc(1, sizeof *job);
    if (!job)
        return fl_fail_memory(error);
    atomic_init(&job->references, 1);
    job->row = *row;
    job->versions = fl_calloc(FL_VIEW_VERSIONS_MAX, sizeof *job->versions);
    enum fl_status status = job->versions ? fl_queue_spec(store, row->id, &job->spec, error)
                                          : fl_fail_memory(error);
    if (status == FL_OK)
        status = read_targets(store, job, error);
    if (status == FL_OK)
        status = fl_registry_last(store, row->id, FL_VIEW_VERSIONS_MAX, add_version, job, error);
    if (status == FL_OK)
        status = fl_queue_refusals(store, row->id, &job->refusals, &job->refusal_count, error);
    if (status != FL_OK)
        release_job(job);
    else
        *out = job;
    return status;
}

/* Ended, and as it was: a rollback is all that can still happen to it. */
static bool is_unchanged(const struct fl_view_job *known, const struct fl_job *row)
{
    return fl_job_state_ended(row->state) && known->row.state == row->state &&
           known->row.ended_ms == row->ended_ms && known->row.has_current == row->has_current &&
           known->row.current == row->current;
}

static struct fl_view_job *find_known(const struct fl_view_maker *self, const struct fl_job *row)
{
    for (uint32_t i = 0; i < self->job_count; i++) {
        if (self->jobs[i]->row.id == row->id && is_unchanged(self->jobs[i], row))
            return self->jobs[i];
    }
    return NULL;
}

static enum fl_status read_jobs(struct fl_view_maker *self, struct fl_store *store,
                                struct fl_error *error)
{
    struct fl_job *rows = NULL;
    struct fl_view_maker next = {.started_ms = self->started_ms};
    uint32_t count = 0;
    enum fl_status status = fl_queue_list(store, &rows, &count, error);
    for (uint32_t i = 0; status == FL_OK && i < count; i++) {
        const struct fl_job *row = &rows[count - 1 - i];
        next.jobs_by_state[row->state]++;
        if (next.job_count == FL_VIEW_JOBS_MAX)
            continue;
        struct fl_view_job *job = find_known(self, row);
        if (job)
            (void)share(job);
        else
            status = read_job(store, row, &job, error);
        if (status == FL_OK)
            next.jobs[next.job_count++] = job;
        else if (!fl_server_is_storage(status))
            status = FL_OK; /* what cannot be understood of one job hides no other */
    }
    fl_free(rows);
    if (status != FL_OK) {
        fl_view_maker_free(&next);
        return status;
    }
    int64_t changes = fl_store_total_changes(store);
    fl_view_maker_free(self);
    *self = next;
    self->changes = changes;
    return FL_OK;
}

void fl_view_maker_free(struct fl_view_maker *self)
{
    for (uint32_t i = 0; i < self->job_count; i++)
        release_job(self->jobs[i]);
    self->job_count = 0;
    self->changes = -1;
}

/* ---- sites, as the loop has them ---- */

struct by_site {
    uint32_t site;
    const void *what;
};

static int compare_sites(const void *a, const void *b)
{
    const struct by_site *x = a, *y = b;
    return (x->site > y->site) - (x->site < y->site);
}

static const void *look_up(const struct by_site *list, uint32_t count, uint32_t site)
{
    const struct by_site key = {.site = site};
    const struct by_site *found = bsearch(&key, list, count, sizeof *list, compare_sites);
    return found ? found->what : NULL;
}

/* Live seats and members in the order of their sites: a search in a list a site would be slow where
   thousands are enrolled. */
struct lists {
    struct by_site *seats, *members; /* owned */
    uint32_t seat_count, member_count;
};

static enum fl_status make_lists(const struct fl_server *server, struct lists *out)
{
    uint32_t members = server->job.id ? server->round->count : 0;
    *out = (struct lists){
        .seats = fl_calloc(server->seat_count + 1, sizeof *out->seats),
        .members = fl_calloc(members + 1, sizeof *out->members),
    };
    if (!out->seats || !out->members)
        return FL_ENOMEM;
    for (uint32_t i = 0; i < server->seat_count; i++) {
        const struct fl_seat *seat = server->seats[i];
        if (seat->live && !seat->leaving)
            out->seats[out->seat_count++] = (struct by_site){seat->site, seat};
    }
    for (uint32_t i = 0; i < members; i++)
        out->members[out->member_count++] = (struct by_site){server->round->members[i].site,
                                                             &server->round->members[i]};
    qsort(out->seats, out->seat_count, sizeof *out->seats, compare_sites);
    qsort(out->members, out->member_count, sizeof *out->members, compare_sites);
    return FL_OK;
}

static void fill_seat(struct fl_view_site *out, const struct fl_seat *seat, int64_t now_ms)
{
    out->state = FL_VIEW_ONLINE;
    out->activity = seat->activity;
    out->seen_seconds = (double)(now_ms - seat->heard_ms) / 1000.0;
    if (seat->activity != FL_ACTIVITY_TRAINING && seat->activity != FL_ACTIVITY_EVALUATING)
        return;
    out->state = FL_VIEW_TRAINING;
    out->step = seat->step;
    out->steps = seat->steps;
    out->tokens_per_second = seat->tokens_per_second;
}

/* Heartbeats are seconds apart: the round knows sooner who has begun, and who has ended. */
static void fill_member(struct fl_view_site *out, const struct fl_round *round,
                        const struct fl_member *member)
{
    bool trains = round->state == FL_ROUND_TRAIN && member->cohort && !member->failed;
    if (trains && out->state == FL_VIEW_ONLINE && !member->trained)
        out->state = FL_VIEW_TRAINING;
    else if (out->state == FL_VIEW_TRAINING && (!trains || member->trained)) {
        out->state = FL_VIEW_ONLINE;
        out->tokens_per_second = 0.0;
    }
    out->cohort = member->cohort && !member->failed;
    out->trained = member->trained;
    out->uploaded = member->uploaded;
    out->left_out = member->left_out;
    out->failed_sums = member->failed_sums;
}

static enum fl_status fill_sites(struct fl_view *view, const struct fl_server *server)
{
    struct lists lists = {0};
    int64_t now = fl_server_now(server);
    view->site_count = fl_roster_count(server->desk->roster);
    view->sites = fl_calloc(view->site_count + 1, sizeof *view->sites);
    enum fl_status status = view->sites ? make_lists(server, &lists) : FL_ENOMEM;
    for (uint32_t i = 0; status == FL_OK && i < view->site_count; i++) {
        const struct fl_site *site = fl_roster_at(server->desk->roster, i);
        struct fl_view_site *out = &view->sites[i];
        const struct fl_seat *seat = look_up(lists.seats, lists.seat_count, site->id);
        const struct fl_member *member = look_up(lists.members, lists.member_count, site->id);
        (void)snprintf(out->name, sizeof out->name, "%s", site->name);
        out->seen_seconds = -1.0;
        if (site->last_seen_ms != 0)
            out->seen_seconds = (double)(view->wall_ms - site->last_seen_ms) / 1000.0;
        if (out->seen_seconds < 0.0 && site->last_seen_ms != 0)
            out->seen_seconds = 0.0; /* the clock was set back */
        if (seat)
            fill_seat(out, seat, now);
        if (member)
            fill_member(out, server->round, member);
        if (site->revoked)
            out->state = FL_VIEW_REVOKED;
    }
    fl_free(lists.seats);
    fl_free(lists.members);
    return status;
}

/* ---- the view ---- */

static void destroy(struct fl_web_view *base)
{
    struct fl_view *self = (struct fl_view *)base;
    for (uint32_t i = 0; i < self->job_count; i++)
        release_job(self->jobs[i]);
    fl_free(self->sites);
    fl_free(self);
}

/* The job that runs, else the first that is queued, else the newest. */
static int of_interest(const struct fl_view *self)
{
    int found = self->job_count > 0 ? 0 : -1;
    for (uint32_t i = 0; i < self->job_count; i++) {
        if (self->jobs[i]->row.state == FL_JOB_QUEUED)
            found = (int)i;
    }
    for (uint32_t i = 0; i < self->job_count; i++) {
        if (self->jobs[i]->row.state == FL_JOB_RUNNING)
            found = (int)i;
    }
    return found;
}

enum fl_status fl_view_make(struct fl_view_maker *self, struct fl_server *server,
                            struct fl_view **out, struct fl_error *error)
{
    struct fl_store *store = server->desk->store;
    const struct fl_live *live = fl_server_live(server);
    enum fl_status status = FL_OK;
    *out = NULL;
    if (self->changes != fl_store_total_changes(store))
        status = read_jobs(self, store, error);
    if (status != FL_OK)
        return status;
    struct fl_view *view = fl_calloc(1, sizeof *view);
    if (!view)
        return fl_fail_memory(error);
    view->base.destroy = destroy;
    view->wall_ms = fl_clock_wall(server->desk->clock);
    view->started_ms = self->started_ms;
    for (uint32_t i = 0; i < self->job_count; i++)
        view->jobs[view->job_count++] = share(self->jobs[i]);
    memcpy(view->jobs_by_state, self->jobs_by_state, sizeof view->jobs_by_state);
    view->current = of_interest(view);
    view->running = server->job.id != 0;
    view->tally = server->tally;
    if (view->running && view->tally.phase_ms != 0)
        view->phase_seconds = (double)(fl_server_now(server) - view->tally.phase_ms) / 1000.0;
    live->waiting(live->context, view->waiting, sizeof view->waiting);
    (void)snprintf(view->directory, sizeof view->directory, "%s", fl_store_directory(store));
    if (fill_sites(view, server) != FL_OK) {
        destroy(&view->base);
        return fl_fail_memory(error);
    }
    *out = view;
    return FL_OK;
}

/* ---- what follows from it ---- */

const char *fl_view_site_state_name(enum fl_view_site_state state)
{
    static const char *const names[FL_VIEW_SITE_STATE_COUNT] = {"offline", "online", "training",
                                                                "revoked"};
    return names[state];
}

const char *fl_view_state(const struct fl_view *self)
{
    if (self->running)
        return "running";
    if (self->current >= 0 && self->jobs[self->current]->row.state == FL_JOB_PAUSED)
        return "paused";
    return "idle";
}

const struct fl_view_job *fl_view_find_job(const struct fl_view *self, int64_t id)
{
    for (uint32_t i = 0; i < self->job_count; i++) {
        if (self->jobs[i]->row.id == id)
            return self->jobs[i];
    }
    return NULL;
}

const struct fl_view_version *fl_view_find_version(const struct fl_view_job *job, uint32_t version)
{
    for (uint32_t i = 0; i < job->version_count; i++) {
        if (job->versions[i].version == version)
            return &job->versions[i];
    }
    return NULL;
}

const struct fl_view_version *fl_view_current_version(const struct fl_view_job *job)
{
    if (job->row.has_current)
        return fl_view_find_version(job, job->row.current);
    return job->version_count > 0 ? &job->versions[job->version_count - 1] : NULL;
}

const struct fl_view_version *fl_view_evaluated(const struct fl_view_job *job)
{
    for (uint32_t i = job->version_count; i-- > 0;) {
        if (job->versions[i].eval_tokens > 0)
            return &job->versions[i];
    }
    return NULL;
}

uint16_t fl_view_layer_rank(const struct fl_view_job *job, const struct fl_view_version *version,
                            uint32_t layer)
{
    uint16_t most = 0;
    for (uint32_t i = 0; version->rank > 0 && i < job->targets.count; i++) {
        if (job->targets.modules[i].layer == layer && version->ranks[i] > most)
            most = version->ranks[i];
    }
    return most;
}

double fl_view_tokens_per_second(const struct fl_view *self)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < self->site_count; i++)
        sum += self->sites[i].tokens_per_second;
    return sum;
}

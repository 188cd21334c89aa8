/*
 * recall_fetch.c - the part of recall.h that fetches confirmed versions from the sites, one after
 * the other, the oldest first, and enters them all in one commit with the job's new place.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "coordinator/recall_internal.h"

static void drop_spool(struct fl_server *self)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    if (fl_store_path(self->desk->store, path, &error, "spool/%lld",
                      (long long)self->recall.own.job) != FL_OK ||
        fl_store_remove(path, &error) != FL_OK)
        fl_log(FL_LOG_WARN, "spool_kept", error.text);
}

static void pause_unfetched(struct fl_server *self)
{
    struct fl_recall *recall = &self->recall;
    char reason[FL_REASON_BYTES];
    (void)snprintf(
        reason, sizeof reason,
        "version %u, which this coordinator lost, cannot be had from its sites (%.100s): "
        "serve a newer backup, or `job resume` goes on from version %u",
        recall->target, recall->trouble[0] ? recall->trouble : "none is there",
        recall->own.round - 1);
    fl_recall_pause_job(self, recall->target, reason);
}

static void announce(struct fl_server *self, const struct fl_version *newest)
{
    for (uint32_t i = 0; i < self->seat_count; i++) {
        struct fl_seat *seat = self->seats[i];
        if (seat->live && seat->hello.last_job == (uint64_t)newest->job &&
            (!seat->hello.has_last_version ||
             memcmp(seat->hello.last_version, newest->sha256, FL_HASH_BYTES) != 0))
            fl_send_version(self, seat, newest);
    }
}

static void end_job(struct fl_server *self)
{
    struct fl_job job;
    struct fl_error error;
    if (fl_queue_get(self->desk->store, self->recall.own.job, &job, &error) != FL_OK)
        return;
    for (uint32_t i = 0; i < self->seat_count; i++) {
        if (self->seats[i]->live && self->seats[i]->hello.last_job == (uint64_t)job.id)
            fl_send_job_end(self, self->seats[i], &job);
    }
    if (fl_queue_clean(self->desk->store, job.id, &error) != FL_OK)
        fl_log(FL_LOG_WARN, "clean_failed", error.text);
}

/* All that is confirmed is here: enter it, and go on behind it. */
static void finish(struct fl_server *self)
{
    struct fl_recall *recall = &self->recall;
    const struct fl_standing before = recall->own;
    const struct fl_version *recovered = recall->recovered.items;
    uint32_t count = recall->recovered.count, later = 0;
    fl_recall_number_next(recall);
    recall->own.restored = recall->own.settled = false;
    recall->own.round = recall->target + 1;
    recall->own.attempt = fl_recall_next_attempt(before.attempt, recall->own.floor);
    bool done = recall->target >= before.rounds && !before.final_round;
    enum fl_job_state state = done ? FL_JOB_DONE : recall->paused ? FL_JOB_QUEUED : FL_JOB_RUNNING;
    if (!fl_recall_commit(self, true, state, done ? FL_ROUND_DONE : FL_ROUND_SELECT, "")) {
        recall->own = before;
        fl_recall_retry_later(self);
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        fl_recall_audit(self, "version_recovered", recovered[i].version, recovered[i].sha256, NULL);
    drop_spool(self);
    announce(self, &recovered[count - 1]);
    if (done)
        end_job(self);
    fl_recall_clear(&recall->recovered, sizeof(struct fl_version));
    recall->paused = false;
    if (!done && fl_recall_judge_now(recall, true, &later) != FL_RECALL_LEVEL)
        fl_recall_pause_for(self, later); /* one site alone saw more */
    else
        fl_recall_go_on(self);
}

static bool parent_of(struct fl_server *self, struct fl_version *version)
{
    struct fl_recall *recall = &self->recall;
    const struct fl_version *recovered = recall->recovered.items;
    struct fl_error error;
    if (recall->recovered.count > 0) {
        const struct fl_version *last = &recovered[recall->recovered.count - 1];
        if (last->version + 1 == version->version)
            memcpy(version->parent_sha256, last->sha256, FL_HASH_BYTES);
        return last->version + 1 == version->version;
    }
    struct fl_version *last = fl_calloc(1, sizeof *last);
    bool found = last && fl_registry_get(self->desk->store, version->job, version->version - 1,
                                         last, &error) == FL_OK;
    if (found)
        memcpy(version->parent_sha256, last->sha256, FL_HASH_BYTES);
    fl_free(last);
    return found;
}

static void spend(struct fl_server *self, uint32_t site, uint32_t version, const char *why)
{
    struct fl_recall *recall = &self->recall;
    fl_log(FL_LOG_WARN, "recall_failed", why, FL_STR("worker", fl_recall_name_of(self, site)),
           FL_U64("version", version));
    fl_wire_set_text(recall->trouble, sizeof recall->trouble, why);
    for (uint32_t i = 0; i < recall->claims.count; i++) {
        struct fl_claim *claim = &fl_recall_claims(recall)[i];
        if (claim->site == site && claim->version == version)
            claim->spent = true;
    }
}

static void checked(struct fl_server *self, struct fl_recall_work *work)
{
    struct fl_recall *recall = &self->recall;
    recall->state = FL_RECALL_FETCHING;
    if (work->status == FL_OK) {
        work->version.created_ms = fl_clock_wall(self->desk->clock);
        work->version.has_parent = parent_of(self, &work->version);
        if (fl_list_append(&recall->recovered, &work->version) == FL_OK)
            recall->next++;
        else
            fl_recall_retry_later(self);
    } else if (work->status == FL_EFORMAT)
        spend(self, work->site, work->version.version, work->error.text);
    else {
        fl_log(FL_LOG_ERROR, "recall_delayed", work->error.text);
        fl_recall_retry_later(self);
    }
}

static void finish_check(struct fl_chore *chore, void *context)
{
    struct fl_recall_work *work = (struct fl_recall_work *)chore;
    struct fl_server *self = context;
    if (self && self->recall.state == FL_RECALL_CHECKING &&
        self->recall.own.job == work->version.job && self->recall.next == work->version.version)
        checked(self, work);
    fl_recall_work_free(work);
}

static enum fl_status part_path(const struct fl_server *self, char *path, struct fl_error *error)
{
    return fl_store_path(self->desk->store, path, error, "recall/%lld-%u.part",
                         (long long)self->recall.own.job, self->recall.next);
}

static void begin_check(struct fl_server *self)
{
    struct fl_recall *recall = &self->recall;
    struct fl_recall_work *work = NULL;
    struct fl_error error;
    enum fl_status status = fl_recall_work_create(self->desk->store, recall->own.job, &work,
                                                  &error);
    if (status == FL_OK)
        status = part_path(self, work->part, &error);
    if (status != FL_OK) {
        (void)fl_recall_store_failed(&error);
        fl_recall_work_free(work);
        fl_recall_retry_later(self);
        return;
    }
    work->chore.finish = finish_check;
    work->site = recall->from.site;
    work->version.version = recall->next;
    memcpy(work->sha256, recall->from.sha256, FL_HASH_BYTES);
    recall->retry_ms = 0;
    recall->state = FL_RECALL_CHECKING;
    fl_mill_submit(self->mill, &work->chore);
}

void fl_recall_fetched(struct fl_server *self, struct fl_seat *seat)
{
    const struct fl_recall *recall = &self->recall;
    bool ours = recall->state == FL_RECALL_FETCHING && recall->from.site == seat->site;
    struct fl_error why = *fl_fetch_error(seat->fetch);
    bool failed = fl_fetch_state(seat->fetch) == FL_FETCH_FAILED;
    fl_seat_stop_fetch(seat);
    if (!ours)
        return;
    if (!failed)
        begin_check(self);
    else if (why.status == FL_EIO || why.status == FL_ENOSPC || why.status == FL_ENOMEM)
        fl_recall_retry_later(self);
    else
        spend(self, seat->site, recall->next, why.text);
}

/* A site that gives the confirmed hash and can be fetched from now. *waiting: one may be later. */
static struct fl_seat *choose_source(struct fl_server *self, struct fl_claim *from, bool *waiting)
{
    struct fl_recall *recall = &self->recall;
    const struct fl_claim *best = fl_recall_confirmed(fl_recall_claims(recall),
                                                      recall->claims.count, recall->next);
    *waiting = false;
    for (uint32_t i = 0; best && i < recall->claims.count; i++) {
        const struct fl_claim *claim = &fl_recall_claims(recall)[i];
        if (claim->version != recall->next || claim->spent ||
            memcmp(claim->sha256, best->sha256, FL_HASH_BYTES) != 0)
            continue;
        struct fl_seat *seat = fl_seat_of(self, claim->site);
        if (seat && (!seat->fetch || seat->purpose == FL_FETCH_RECALL)) {
            *from = *claim;
            return seat;
        }
        *waiting = true;
    }
    return NULL;
}

/* Nobody has it any more: one in between may be missing, the last one may not. */
static void give_up_version(struct fl_server *self)
{
    if (self->recall.next == self->recall.target)
        pause_unfetched(self);
    else
        self->recall.next++;
}

static void fetch_next(struct fl_server *self, int64_t now_ms)
{
    struct fl_recall *recall = &self->recall;
    char path[FL_PATH_BYTES];
    struct fl_recall_work *bounds = NULL;
    struct fl_error error;
    bool waiting;
    struct fl_seat *seat = choose_source(self, &recall->from, &waiting);
    if (!seat && waiting && now_ms < recall->deadline_ms)
        return;
    if (!seat) {
        give_up_version(self);
        recall->deadline_ms = now_ms + FL_RECALL_WAIT_MS;
        return;
    }
    if (seat->fetch && memcmp(seat->fetching.root, recall->from.adapter.root, FL_HASH_BYTES) == 0)
        return; /* on its way */
    recall->retry_ms = now_ms + 1000;
    recall->deadline_ms = now_ms + FL_RECALL_WAIT_MS;
    enum fl_status status = fl_recall_work_create(self->desk->store, recall->own.job, &bounds,
                                                  &error);
    uint64_t most = status == FL_OK ? bounds->bytes_max : 0;
    fl_recall_work_free(bounds);
    if (status == FL_ENOTFOUND) {
        fl_wire_set_text(recall->trouble, sizeof recall->trouble, error.text);
        pause_unfetched(self);
    } else if (status == FL_OK && recall->from.adapter.size > most)
        spend(self, recall->from.site, recall->next, "it is larger than any version of the job");
    else if (status == FL_OK)
        status = part_path(self, path, &error);
    if (status == FL_OK && recall->from.adapter.size <= most)
        status = fl_store_make_parent(path, &error);
    if (status == FL_OK && recall->from.adapter.size <= most)
        fl_seat_fetch(self, seat, FL_FETCH_RECALL, &recall->from.adapter, path);
}

void fl_recall_fetch_step(struct fl_server *self, int64_t now_ms)
{
    if (self->recall.next > self->recall.target)
        finish(self);
    else
        fetch_next(self, now_ms);
}

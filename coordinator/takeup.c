/*
 * takeup.c - takes up the next job: from the queue, or in the middle of a round after a restart.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "coordinator/ending.h"
#include "coordinator/server_internal.h"

#define LOOK_MS 250 /* between two looks at an empty queue */

static enum fl_status take_inventory(struct fl_job_facts *facts, struct fl_inventory *inventory,
                                     struct fl_error *error)
{
    enum fl_status status = fl_inventory_select(inventory, facts->spec->targets, &facts->targets,
                                                error);
    if (status != FL_OK) {
        fl_inventory_free(inventory);
        return status;
    }
    facts->inventory = *inventory;
    return FL_OK;
}

enum fl_status fl_conduct_set_inventory(struct fl_server *self, const uint8_t root[FL_HASH_BYTES],
                                        const void *bytes, size_t length, struct fl_error *error)
{
    struct fl_inventory inventory = {0};
    enum fl_status status = fl_inventory_decode(bytes, length, &inventory, error);
    if (status == FL_OK)
        status = take_inventory(self->facts, &inventory, error);
    if (status != FL_OK)
        return status;
    status = fl_queue_set_inventory(self->desk->store, self->job.id, root, bytes, length, error);
    if (status == FL_OK) {
        memcpy(self->inventory_root, root, FL_HASH_BYTES);
        return FL_OK;
    }
    fl_inventory_free(&self->facts->inventory);
    fl_inventory_free(&self->facts->targets);
    return status;
}

static enum fl_status load_facts(struct fl_server *self, struct fl_error *error)
{
    struct fl_inventory inventory = {0};
    struct fl_job_facts *facts = fl_calloc(1, sizeof *facts);
    if (!facts)
        return fl_fail_memory(error);
    facts->references = 1;
    facts->store = self->desk->store;
    facts->job = self->job.id;
    enum fl_status status = fl_queue_spec(self->desk->store, self->job.id, &facts->spec, error);
    if (status == FL_OK)
        status = fl_queue_keys(self->desk->store, self->job.id, &facts->keys, error);
    if (status == FL_OK) {
        status = fl_queue_inventory(self->desk->store, self->job.id, self->inventory_root,
                                    &inventory, error);
        if (status == FL_OK)
            status = take_inventory(facts, &inventory, error);
        else if (status == FL_ENOTFOUND)
            status = FL_OK;
    }
    if (status != FL_OK)
        fl_job_facts_release(facts);
    else
        self->facts = facts;
    return status;
}

static void set_rules(const struct fl_job_spec *spec, struct fl_round_rules *rules)
{
    *rules = (struct fl_round_rules){.rounds = (uint32_t)spec->rounds,
                                     .min_workers = (uint32_t)spec->min_workers,
                                     .select_timeout_ms = spec->select_timeout,
                                     .round_timeout_ms = spec->round_timeout,
                                     .liveness_timeout_ms = spec->liveness_timeout,
                                     .wait_timeout_ms = spec->wait_timeout,
                                     .max_workers = spec->secure_aggregation ? FL_COHORT_MAX : 0,
                                     .secure = spec->secure_aggregation,
                                     .draws = spec->shuffle || spec->dropout > 0.0,
                                     .final_round = spec->eval_every > 0};
}

static void add_members(struct fl_server *self)
{
    for (uint32_t i = 0; i < fl_roster_count(self->desk->roster); i++) {
        const struct fl_site *site = fl_roster_at(self->desk->roster, i);
        struct fl_member *m = fl_round_member(self->round, site->id);
        if (!m)
            continue;
        m->seen = site->last_seen_ms != 0;
        m->revoked = site->revoked;
    }
}

/* The start adapter must be there again for sites that had not fetched it. */
static void reshelve_start(struct fl_server *self)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    struct fl_object *object = NULL;
    enum fl_status status = fl_start_path(self->desk->store, self->job.id, self->round->round, path,
                                          &error);
    if (status == FL_OK)
        status = fl_object_open_file(path, &object, &error);
    if (status == FL_OK &&
        memcmp(fl_object_root(object), self->attempt.start_root, FL_HASH_BYTES) == 0)
        fl_conduct_shelve_start(self, &object);
    else
        fl_conduct_begin_start(self); /* the same bytes again */
    fl_object_close(&object);
}

/* In the states between the one that fixes the cohort's layout and the sum. */
static bool has_layout(const struct fl_server *self)
{
    enum fl_round_state first = self->round->rules.secure ? FL_ROUND_SHARES : FL_ROUND_COLLECT;
    return self->round->state >= first && self->round->state <= FL_ROUND_COMMIT;
}

static enum fl_status restore(struct fl_server *self, struct fl_error *error)
{
    struct fl_attempt_row row;
    enum fl_status status = fl_queue_load_members(self->desk->store, &self->job, self->round,
                                                  error);
    if (status != FL_OK)
        return status;
    fl_round_restore(self->round, self->job.phase, self->job.round, self->job.attempt,
                     self->job.breaks, fl_server_now(self));
    (void)snprintf(self->round->reason, sizeof self->round->reason, "%s", self->job.reason);
    if (self->job.phase < FL_ROUND_TRAIN || self->job.phase > FL_ROUND_COMMIT)
        return FL_OK;
    status = fl_queue_attempt(self->desk->store, self->job.id, self->job.round, self->job.attempt,
                              &row, error);
    if (status != FL_OK)
        return status;
    fl_conduct_set_attempt(self, &row);
    reshelve_start(self);
    if (has_layout(self))
        fl_conduct_make_stage(self);
    return FL_OK;
}

static void fail_job(struct fl_server *self, const struct fl_error *why)
{
    struct fl_error error;
    fl_log(FL_LOG_ERROR, "job_unusable", why->text, FL_I64("job", self->job.id));
    enum fl_status status = fl_store_begin(self->desk->store, &error);
    if (status == FL_OK) {
        status = fl_queue_set_state(self->desk->store, self->job.id, FL_JOB_FAILED, why->text,
                                    fl_clock_wall(self->desk->clock), &error);
        if (status == FL_OK)
            status = fl_ending_owe(self->desk->store, self->job.id, FL_JOB_FAILED, why->text,
                                   &error);
        if (status == FL_OK)
            status = fl_store_commit(self->desk->store, &error);
        else
            fl_store_rollback(self->desk->store);
    }
    if (status != FL_OK)
        fl_log(FL_LOG_ERROR, "store_failed", error.text);
    fl_conduct_write_endings(self);
    fl_conduct_drop_job(self);
}

static void take_up(struct fl_server *self)
{
    struct fl_error error;
    struct fl_round_rules rules;
    enum fl_round_state phase = self->job.phase;
    enum fl_status status = load_facts(self, &error);
    if (status != FL_OK) {
        fail_job(self, &error);
        return;
    }
    set_rules(self->facts->spec, &rules);
    fl_round_init(self->round, &rules);
    add_members(self);
    if (phase != FL_ROUND_IDLE)
        status = restore(self, &error);
    if (status != FL_OK) {
        fail_job(self, &error);
        return;
    }
    self->tally.phase_ms = fl_server_now(self);
    fl_log(FL_LOG_INFO, "job_taken_up", self->job.name, FL_I64("job", self->job.id),
           FL_U64("round", self->job.round), FL_STR("phase", fl_round_state_name(phase)));
    for (uint32_t i = 0; i < self->seat_count && self->job.id; i++) {
        if (self->seats[i]->live)
            fl_conduct_site(self, FL_EVENT_ONLINE, self->seats[i]->site);
    }
    if (self->job.id && self->round->state == FL_ROUND_UNMASK)
        fl_masks_check_survivors(self); /* maybe the process died before it did */
    if (phase == FL_ROUND_IDLE || phase == FL_ROUND_PAUSED) {
        struct fl_round_input input = {.event = phase == FL_ROUND_IDLE ? FL_EVENT_START
                                                                       : FL_EVENT_RESUME};
        fl_conduct(self, &input);
    }
}

static void look_at_queue(struct fl_server *self, int64_t now_ms)
{
    struct fl_error error;
    if (now_ms < self->next_look_ms)
        return;
    self->next_look_ms = now_ms + LOOK_MS;
    enum fl_status status = fl_queue_next(self->desk->store, &self->job, &error);
    self->idle = status == FL_ENOTFOUND;
    if (status == FL_OK) {
        self->idle = false;
        if (!fl_recall_holds(self)) {
            take_up(self);
            return;
        }
    }
    memset(&self->job, 0, sizeof self->job);
    if (status != FL_OK && status != FL_ENOTFOUND)
        fl_log(FL_LOG_ERROR, "store_failed", error.text);
}

static void retry_parked(struct fl_server *self, int64_t now_ms)
{
    if (self->parked_count == 0 || now_ms < self->parked_ms)
        return;
    struct fl_parked again = self->parked[0];
    memmove(self->parked, self->parked + 1, --self->parked_count * sizeof self->parked[0]);
    again.input.reason = again.reason;
    /* it may have come or gone since: what is so now counts */
    if (again.input.event == FL_EVENT_ONLINE || again.input.event == FL_EVENT_OFFLINE)
        again.input.event = fl_seat_of(self, again.input.site) ? FL_EVENT_ONLINE : FL_EVENT_OFFLINE;
    const struct fl_site *site = fl_roster_by_id(self->desk->roster, again.input.site);
    if (again.input.event == FL_EVENT_REVOKED && site && !site->revoked)
        return; /* allowed again */
    bool stale = again.round != self->round->round || again.attempt != self->round->attempt;
    if (stale && (again.input.event == FL_EVENT_FIT || again.input.event == FL_EVENT_TRAINED ||
                  again.input.event == FL_EVENT_UPLOADED ||
                  (again.input.event == FL_EVENT_SITE_FAILED && !again.input.permanent)))
        return; /* said in an attempt that is over */
    fl_conduct(self, &again.input);
}

void fl_conduct_tick(struct fl_server *self, int64_t now_ms)
{
    fl_recall_tick(self, now_ms);
    if (self->ending_ms && now_ms >= self->ending_ms)
        fl_conduct_write_endings(self);
    if (!self->job.id) {
        look_at_queue(self, now_ms);
        if (!self->job.id)
            return;
    }
    retry_parked(self, now_ms);
    if (self->job.id && has_layout(self) && !self->stage) {
        fl_conduct_make_stage(self);
        fl_conduct_send_all(self);
    }
    const struct fl_round_input tick = {.event = FL_EVENT_TICK};
    for (int i = 0; i < 3 && self->job.id; i++) { /* a state may be left at once */
        enum fl_round_state before = self->round->state;
        fl_conduct(self, &tick);
        if (self->job.id && self->round->state == before)
            break;
    }
}

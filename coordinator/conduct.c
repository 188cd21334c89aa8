/*
 * conduct.c - runs the job: steps the round, commits, carries out effects, takes up results.
 *
 * Invariant: self->round is what the database holds; the step is made in the second buffer and the
 * two change places only after the commit.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "coordinator/ending.h"
#include "coordinator/record.h"
#include "coordinator/server_internal.h"
#include "job/strategy.h"
#include "crypto/sealed.h"

static void finish_start(struct fl_chore *chore, void *context);
static void finish_sum(struct fl_chore *chore, void *context);

bool fl_conduct_is_current(const struct fl_server *self, const struct fl_wire *message)
{
    return self->job.id && message->job == (uint64_t)self->job.id &&
           message->round == self->round->round && message->attempt == self->round->attempt;
}

static enum fl_job_state job_state(const struct fl_round *round)
{
    switch (round->state) {
    case FL_ROUND_DONE:
        return FL_JOB_DONE;
    case FL_ROUND_FAILED:
        return FL_JOB_FAILED;
    case FL_ROUND_PAUSED:
        return FL_JOB_PAUSED;
    case FL_ROUND_IDLE:
        return round->cancelled ? FL_JOB_CANCELLED : FL_JOB_QUEUED;
    default:
        return FL_JOB_RUNNING;
    }
}

/* ---- start of a round ---- */

static int by_id(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The ids of some members in order, and their names; both new. */
static enum fl_status list_members(const struct fl_server *self, bool layout, uint32_t **sites,
                                   char (**names)[FL_NAME_BYTES], uint32_t *count)
{
    const struct fl_round *round = self->round;
    *sites = fl_calloc(round->count + 1, sizeof **sites);
    *names = fl_calloc(round->count + 1, sizeof **names);
    *count = 0;
    if (!*sites || !*names) {
        fl_free(*sites);
        fl_free(*names);
        *sites = NULL;
        *names = NULL;
        return FL_ENOMEM;
    }
    for (uint32_t i = 0; i < round->count; i++) {
        const struct fl_member *m = &round->members[i];
        /* who failed after the layout was fixed is still in it: grid and tiers must not move */
        bool in = round->rules.secure ? m->advertised : m->trained;
        if (m->cohort && (!layout || in))
            (*sites)[(*count)++] = m->site;
    }
    qsort(*sites, *count, sizeof **sites, by_id);
    for (uint32_t i = 0; i < *count; i++) {
        const struct fl_site *site = fl_roster_by_id(self->desk->roster, (*sites)[i]);
        (void)snprintf((*names)[i], FL_NAME_BYTES, "%s", site ? site->name : "");
    }
    return FL_OK;
}

/* Only where the database says that there is no version 0 it is made: one that cannot be read is no
   reason to begin from another. */
static enum fl_status find_previous(struct fl_server *self, struct fl_start_work *work,
                                    struct fl_error *error)
{
    enum fl_status status = fl_registry_get(self->desk->store, self->job.id, work->round - 1,
                                            &work->previous, error);
    work->has_previous = status == FL_OK;
    return status == FL_ENOTFOUND && work->round == 1 ? FL_OK : status;
}

void fl_conduct_begin_start(struct fl_server *self)
{
    struct fl_error error = {FL_OK, "out of memory"};
    struct fl_start_work *work = fl_calloc(1, sizeof *work);
    enum fl_status status =
        work ? list_members(self, false, &work->sites, &work->names, &work->count) : FL_ENOMEM;
    if (status == FL_OK) {
        work->round = self->round->round;
        work->attempt = self->round->attempt;
        status = find_previous(self, work, &error);
    }
    if (status != FL_OK) {
        struct fl_round_input failed = {.event = FL_EVENT_STORAGE_FAILED, .reason = error.text};
        fl_log(FL_LOG_ERROR, "configure_delayed", error.text, FL_I64("job", self->job.id));
        if (work) {
            fl_free(work->sites);
            fl_free(work->names);
        }
        fl_free(work);
        fl_conduct(self, &failed);
        return;
    }
    work->chore.run = fl_work_start;
    work->chore.finish = finish_start;
    work->facts = self->facts;
    work->facts->references++;
    fl_mill_submit(self->mill, &work->chore);
}

static bool same_root(const uint8_t *a, const uint8_t *b)
{
    return memcmp(a, b, FL_HASH_BYTES) == 0;
}

/* A start adapter may be a version, byte for byte: it stays while either needs it. */
static void drop_from_shelf(struct fl_server *self, const uint8_t *root, const uint8_t *instead)
{
    if (same_root(root, instead) || same_root(root, self->version_roots[0]) ||
        same_root(root, self->version_roots[1]))
        return;
    fl_shelf_remove(self->shelf, root);
}

void fl_conduct_shelve_start(struct fl_server *self, struct fl_object **object)
{
    if (self->has_start)
        drop_from_shelf(self, self->start_root, fl_object_root(*object));
    memcpy(self->start_root, fl_object_root(*object), FL_HASH_BYTES);
    self->has_start = fl_shelf_put(self->shelf, object) == FL_OK;
}

static enum fl_status keep_attempt(struct fl_server *self, void *context, struct fl_error *error)
{
    struct fl_start_work *work = context;
    enum fl_status status = FL_OK;
    if (!work->has_previous) {
        work->previous.created_ms = fl_clock_wall(self->desk->clock);
        fl_wire_set_text(work->previous.strategy, sizeof work->previous.strategy,
                         fl_strategy_info((enum fl_strategy)self->facts->spec->strategy)->name);
        status = fl_registry_put(self->desk->store, &work->previous, error);
    }
    if (status == FL_OK)
        status = fl_queue_set_attempt(self->desk->store, self->job.id, work->round, work->attempt,
                                      &self->attempt, error);
    return status;
}

void fl_conduct_set_attempt(struct fl_server *self, struct fl_attempt_row *from)
{
    if (self->has_attempt)
        fl_attempt_row_free(&self->attempt);
    self->attempt = *from;
    memset(from, 0, sizeof *from);
    self->has_attempt = true;
}

static void started(struct fl_server *self, struct fl_start_work *work)
{
    bool configuring = self->round->state == FL_ROUND_CONFIGURE;
    struct fl_round_input input = {.event = FL_EVENT_CONFIGURED};
    if (work->status != FL_OK) {
        fl_log(FL_LOG_ERROR, "configure_failed", work->error.text, FL_I64("job", self->job.id),
               FL_U64("round", work->round));
        input.event = fl_server_is_storage(work->status) ? FL_EVENT_STORAGE_FAILED
                                                         : FL_EVENT_CONFIGURE_FAILED;
        input.reason = work->error.text;
        fl_conduct(self, &input);
        return;
    }
    fl_conduct_shelve_start(self, &work->object);
    if (!configuring)
        return;
    fl_conduct_set_attempt(self, &work->attempt_row);
    fl_conduct_also(self, &input, keep_attempt, work);
}

static void finish_start(struct fl_chore *chore, void *context)
{
    struct fl_start_work *work = (struct fl_start_work *)chore;
    struct fl_server *self = context;
    if (self && work->facts == self->facts && work->round == self->round->round &&
        work->attempt == self->round->attempt)
        started(self, work);
    fl_start_work_free(work);
}

/* ---- collecting ---- */

static enum fl_status make_layout(struct fl_server *self, struct fl_stage *stage,
                                  const uint32_t *cohort, uint32_t cohort_count,
                                  struct fl_error *error)
{
    const struct fl_job_spec *spec = self->facts->spec;
    struct fl_rank_plan plan = {0};
    uint32_t *rows = fl_calloc(stage->count + 1, sizeof *rows);
    if (!rows)
        return fl_fail_memory(error);
    for (uint32_t i = 0, k = 0; i < cohort_count && k < stage->count; i++) {
        if (cohort[i] == stage->sites[k])
            rows[k++] = i;
    }
    enum fl_factors factors = fl_round_only_evaluates(self->round)
                                  ? FL_FACTORS_NONE
                                  : fl_job_trains(spec, stage->round);
    enum fl_status status = fl_rank_plan_select(&self->attempt.plan, rows, stage->count, &plan);
    if (status == FL_OK)
        status = fl_layout_create(&self->facts->targets, &plan, factors, self->attempt.ranges,
                                  &stage->layout, error);
    else
        (void)fl_fail(error, status, "the rank plan does not fit the cohort");
    if (status == FL_OK)
        status = fl_job_grid(spec, stage->count, &stage->grid);
    fl_rank_plan_free(&plan);
    fl_free(rows);
    return status;
}

void fl_conduct_make_stage(struct fl_server *self)
{
    struct fl_error error = {FL_OK, "out of memory"};
    uint32_t *cohort = NULL, cohort_count = 0;
    char(*names)[FL_NAME_BYTES] = NULL;
    struct fl_stage *stage = fl_calloc(1, sizeof *stage);
    if (self->stage || !self->has_attempt || !stage) {
        fl_free(stage);
        return;
    }
    stage->references = 1;
    stage->facts = self->facts;
    stage->facts->references++;
    stage->round = self->round->round;
    stage->attempt = self->round->attempt;
    enum fl_status status = list_members(self, false, &cohort, &names, &cohort_count);
    if (status == FL_OK) {
        fl_free(names);
        status = list_members(self, true, &stage->sites, &stage->names, &stage->count);
    }
    if (status == FL_OK) {
        stage->checking = fl_calloc(stage->count + 1, sizeof *stage->checking);
        status = stage->checking ? FL_OK : FL_ENOMEM;
    }
    if (status == FL_OK)
        status = make_layout(self, stage, cohort, cohort_count, &error);
    fl_free(cohort);
    if (status != FL_OK) {
        fl_log(FL_LOG_ERROR, "layout_failed", error.text);
        fl_stage_release(stage);
        return;
    }
    stage->sealed_bytes = fl_sealed_size(fl_layout_update_bytes(stage->layout));
    self->stage = stage;
}

/* ---- the sum and its commit ---- */

static struct fl_sum_work *make_sum(struct fl_server *self, struct fl_error *error)
{
    struct fl_sum_work *work = fl_calloc(1, sizeof *work);
    if (!work)
        return NULL;
    work->chore.run = fl_work_sum;
    work->chore.finish = finish_sum;
    work->stage = self->stage;
    work->stage->references++;
    work->positions = fl_calloc(self->stage->count + 1, sizeof *work->positions);
    enum fl_status status = fl_queue_attempt(self->desk->store, self->job.id, self->round->round,
                                             self->round->attempt, &work->attempt_row, error);
    if (status == FL_OK && self->round->rules.secure)
        status = fl_masks_request(self, &work->unmask, error);
    if (!work->positions || status != FL_OK) {
        fl_sum_work_free(work);
        return NULL;
    }
    for (uint32_t i = 0; i < self->stage->count; i++) {
        const struct fl_member *m = fl_round_find(self->round, self->stage->sites[i]);
        if (m && m->uploaded)
            work->positions[work->count++] = i;
    }
    return work;
}

static void begin_sum(struct fl_server *self)
{
    struct fl_error error = {FL_OK, "out of memory"};
    if (self->summing)
        return;
    fl_conduct_make_stage(self);
    struct fl_sum_work *work = self->stage ? make_sum(self, &error) : NULL;
    if (!work) {
        struct fl_round_input failed = {.event = FL_EVENT_STORAGE_FAILED, .reason = error.text};
        fl_log(FL_LOG_ERROR, "aggregate_delayed", error.text);
        fl_conduct(self, &failed);
        return;
    }
    self->summing = true;
    fl_mill_submit(self->mill, &work->chore);
}

static enum fl_status keep_version(struct fl_server *self, void *context, struct fl_error *error)
{
    struct fl_sum_work *work = context;
    enum fl_status status = FL_OK;
    uint32_t before = work->stage->round - 1;
    if (work->stage->round <= work->stage->facts->spec->rounds) {
        work->version.created_ms = fl_clock_wall(self->desk->clock);
        status = fl_registry_put(self->desk->store, &work->version, error);
    }
    if (status == FL_OK && isfinite(work->result.eval_loss) && work->result.eval_tokens > 0)
        status = fl_registry_set_eval(self->desk->store, self->job.id, before,
                                      work->result.eval_loss, work->result.eval_tokens, error);
    return status;
}

static void log_commit(struct fl_server *self, const struct fl_sum_work *work)
{
    struct fl_error error;
    char sha256[FL_HASH_HEX_BYTES];
    fl_hex(work->version.sha256, FL_HASH_BYTES, sha256);
    const struct fl_field fields[] = {FL_I64("job", self->job.id),
                                      FL_U64("round", work->stage->round),
                                      FL_U64("workers", work->result.sites),
                                      FL_NUM("train_loss", work->result.train_loss),
                                      FL_NUM("eval_loss", work->result.eval_loss),
                                      FL_STR("sha256", work->version.rank_count ? sha256 : NULL),
                                      {.kind = FL_FIELD_END}};
    fl_log_fields(FL_LOG_INFO, "round_committed", "a round is committed", fields);
    (void)!fl_record_round(self->desk, work, &error);
}

static void commit(struct fl_server *self)
{
    struct fl_sum_work *work = self->sum;
    if (!work) { /* the process that had the result died: sum again */
        begin_sum(self);
        return;
    }
    struct fl_round_input input = {.event = FL_EVENT_COMMITTED};
    log_commit(self, work);
    fl_conduct_also(self, &input, keep_version, work);
}

/* The newest two versions stay on the shelf. */
static void shelve_result(struct fl_server *self, struct fl_object **object)
{
    uint8_t oldest[FL_HASH_BYTES];
    if (same_root(self->version_roots[0], fl_object_root(*object)))
        return;
    memcpy(oldest, self->version_roots[1], FL_HASH_BYTES);
    memcpy(self->version_roots[1], self->version_roots[0], FL_HASH_BYTES);
    memcpy(self->version_roots[0], fl_object_root(*object), FL_HASH_BYTES);
    drop_from_shelf(self, oldest, self->start_root);
    if (fl_shelf_put(self->shelf, object) != FL_OK)
        fl_log(FL_LOG_WARN, "shelf_failed", "a version cannot be offered yet");
}

/* The site whose answer was wrong, 0: none. */
static uint32_t blame(const struct fl_server *self, const struct fl_sum_work *work)
{
    const struct fl_unmask_request *request = work->unmask;
    const struct fl_site *site = NULL;
    if (request && request->blamed != UINT32_MAX) {
        site = fl_roster_by_name(self->desk->roster, fl_masks_name(request, request->blamed));
        fl_log(FL_LOG_WARN, "site_blamed", "its answer did not fit what was committed to",
               FL_STR("worker", fl_masks_name(request, request->blamed)),
               FL_I64("job", self->job.id), FL_U64("round", work->stage->round));
    }
    return site ? site->id : 0;
}

/* A masked sum that nobody can be blamed for: whoever was in it may have spoiled it. */
static void log_failed_sum(const struct fl_server *self, const struct fl_sum_work *work)
{
    char members[FL_COHORT_MAX * (FL_NAME_BYTES + 1) + 1] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < work->count && i < FL_COHORT_MAX; i++) {
        int length = snprintf(members + used, sizeof members - used, "%s%s", i ? "," : "",
                              work->stage->names[work->positions[i]]);
        used += length > 0 ? (size_t)length : 0;
    }
    fl_log(FL_LOG_WARN, "sum_failed",
           "a sum was wrong, and masks hide whose numbers made it so; see failed_sums in status",
           FL_I64("job", self->job.id), FL_U64("round", work->stage->round),
           FL_U64("attempt", work->stage->attempt), FL_U64("retraining", self->round->retraining),
           FL_STR("members", members), FL_STR("reason", work->error.text));
}

/* true: the server owns the result now (and may have used it up already) */
static bool summed(struct fl_server *self, struct fl_sum_work *work)
{
    struct fl_round_input input = {.event = FL_EVENT_AGGREGATED, .reason = NULL};
    uint32_t blamed = blame(self, work);
    if (work->status != FL_OK) {
        fl_log(FL_LOG_ERROR, "aggregate_failed", work->error.text, FL_I64("job", self->job.id),
               FL_U64("round", work->stage->round), FL_U64("attempt", work->stage->attempt));
        input.event = fl_server_is_storage(work->status) ? FL_EVENT_STORAGE_FAILED
                                                         : FL_EVENT_AGGREGATE_FAILED;
        input.reason = work->error.text;
        input.leave_out = &blamed;
        input.leave_out_count = blamed != 0;
        if (work->unmask && !blamed && input.event == FL_EVENT_AGGREGATE_FAILED)
            log_failed_sum(self, work);
        fl_conduct(self, &input);
        return false;
    }
    if (work->object)
        shelve_result(self, &work->object);
    if (self->sum)
        fl_sum_work_free(self->sum);
    self->sum = work;
    if (self->round->state == FL_ROUND_COMMIT)
        commit(self);
    else
        fl_conduct(self, &input);
    return true;
}

static void finish_sum(struct fl_chore *chore, void *context)
{
    struct fl_sum_work *work = (struct fl_sum_work *)chore;
    struct fl_server *self = context;
    bool kept = false;
    if (self)
        self->summing = false;
    const bool sums = self && self->job.id &&
                      (self->round->state == FL_ROUND_AGGREGATE ||
                       self->round->state == FL_ROUND_COMMIT);
    if (sums && self->stage && work->stage == self->stage)
        kept = summed(self, work);
    else if (sums && (self->round->state == FL_ROUND_AGGREGATE || !self->sum))
        begin_sum(self); /* asked for while one of what was dropped was under way */
    if (!kept)
        fl_sum_work_free(work);
}

/* ---- the ends of attempts, rounds and jobs ---- */

static void end_attempt(struct fl_server *self, uint32_t round, uint32_t attempt)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    for (uint32_t i = 0; i < self->seat_count; i++)
        fl_seat_stop_fetch(self->seats[i]);
    if (self->sum)
        fl_sum_work_free(self->sum);
    self->sum = NULL;
    fl_stage_release(self->stage);
    self->stage = NULL;
    if (self->has_attempt)
        fl_attempt_row_free(&self->attempt);
    self->has_attempt = false;
    fl_masks_drop(self, self->job.id);
    enum fl_status status = fl_store_path(self->desk->store, path, &error, "spool/%lld/%u-%u",
                                          (long long)self->job.id, round, attempt);
    if (status == FL_OK)
        status = fl_store_remove(path, &error);
    if (status != FL_OK)
        fl_log(FL_LOG_WARN, "spool_kept", error.text);
}

static void announce(struct fl_server *self, uint32_t number)
{
    struct fl_error error;
    struct fl_version *version = fl_calloc(1, sizeof *version);
    if (number > self->facts->spec->rounds || !version) {
        fl_free(version); /* the evaluation behind the last round makes no version */
        return;
    }
    enum fl_status status = fl_registry_get(self->desk->store, self->job.id, number, version,
                                            &error);
    if (status == FL_OK)
        fl_send_version_to_all(self, version);
    else
        fl_log(FL_LOG_ERROR, "store_failed", error.text);
    for (uint32_t i = 0; i < self->seat_count && fl_server_is_storage(status); i++)
        fl_send_later(self, self->seats[i], self->job.id);
    fl_free(version);
}

/* Results that the job row carries follow the database. What it says of the round was committed
   just now, and holds even where the row can't be read. */
static void reread_job(struct fl_server *self)
{
    struct fl_error error;
    struct fl_job job;
    if (fl_queue_get(self->desk->store, self->job.id, &job, &error) == FL_OK) {
        self->job = job;
        return;
    }
    fl_log(FL_LOG_ERROR, "store_failed", error.text);
    self->job.state = job_state(self->round);
    self->job.phase = self->round->state;
    self->job.round = self->round->round;
    self->job.attempt = self->round->attempt;
    self->job.breaks = self->round->breaks;
    (void)snprintf(self->job.reason, sizeof self->job.reason, "%s", self->round->reason);
}

void fl_conduct_drop_job(struct fl_server *self)
{
    for (uint32_t i = 0; i < self->seat_count; i++)
        fl_seat_stop_fetch(self->seats[i]);
    if (self->sum)
        fl_sum_work_free(self->sum);
    self->sum = NULL;
    fl_stage_release(self->stage);
    self->stage = NULL;
    if (self->has_attempt)
        fl_attempt_row_free(&self->attempt);
    self->has_attempt = false;
    fl_masks_free(self);
    fl_job_facts_release(self->facts);
    self->facts = NULL;
    memset(&self->job, 0, sizeof self->job);
    self->job.base_loss = (double)NAN;
    self->saved.job = 0;
    self->parked_count = 0;
    self->next_look_ms = 0;
}

void fl_conduct_write_endings(struct fl_server *self)
{
    struct fl_error error;
    enum fl_status status = fl_ending_write(self->desk, &error);
    if (status != FL_OK)
        fl_log(FL_LOG_ERROR, "ending_delayed", error.text);
    self->ending_ms = status == FL_OK ? 0 : fl_server_now(self) + FL_ROUND_RETRY_MS;
}

static void end_job(struct fl_server *self)
{
    struct fl_error error;
    reread_job(self);
    const struct fl_field fields[] = {FL_I64("job", self->job.id),
                                      FL_STR("state", fl_job_state_name(self->job.state)),
                                      FL_STR("reason", self->job.reason),
                                      {.kind = FL_FIELD_END}};
    fl_log_fields(self->job.state == FL_JOB_DONE ? FL_LOG_INFO : FL_LOG_WARN, "job_ended",
                  "a job ended", fields);
    fl_conduct_write_endings(self);
    if (self->job.state == FL_JOB_DONE) /* to who came when the last one was out already */
        announce(self, (uint32_t)self->facts->spec->rounds);
    if (self->job.state != FL_JOB_PAUSED) {
        for (uint32_t i = 0; i < self->seat_count; i++) {
            const struct fl_member *m = fl_round_find(self->round, self->seats[i]->site);
            if (self->seats[i]->live && m)
                fl_send_job_end(self, self->seats[i], &self->job);
        }
        if (fl_queue_clean(self->desk->store, self->job.id, &error) != FL_OK)
            fl_log(FL_LOG_WARN, "clean_failed", error.text);
    }
    self->busy_until_ms = fl_server_now(self) + 2000;
    fl_conduct_drop_job(self);
}

/* ---- the step ---- */

static void copy_round(struct fl_round *to, const struct fl_round *from)
{
    memcpy(to, from, offsetof(struct fl_round, members) + from->count * sizeof from->members[0]);
}

void fl_conduct_send_all(struct fl_server *self)
{
    for (uint32_t i = 0; i < self->seat_count; i++)
        fl_send_due(self, self->seats[i]);
}

static void log_step(const struct fl_server *self, const struct fl_round *before,
                     const struct fl_round_input *input)
{
    const struct fl_round *after = self->round;
    if (before->state == after->state)
        return;
    fl_log(FL_LOG_INFO, "round_state", fl_round_state_name(after->state),
           FL_I64("job", self->job.id), FL_U64("round", after->round),
           FL_U64("attempt", after->attempt), FL_STR("from", fl_round_state_name(before->state)),
           FL_STR("on", fl_round_event_name(input->event)), FL_STR("reason", after->reason));
}

/* round, attempt: those before the step. */
static void carry_out(struct fl_server *self, uint32_t effects, uint32_t round, uint32_t attempt,
                      const struct fl_round_input *input)
{
    if (effects & FL_EFFECT_NEXT) {
        reread_job(self);
        announce(self, round);
    }
    if (effects & (FL_EFFECT_NEXT | FL_EFFECT_ABANDON))
        end_attempt(self, round, attempt);
    if (effects & FL_EFFECT_END) {
        end_job(self);
        return;
    }
    if (effects & FL_EFFECT_COLLECT)
        fl_conduct_make_stage(self);
    if (effects & FL_EFFECT_SEND_ALL)
        fl_conduct_send_all(self);
    else if (effects & FL_EFFECT_SEND_SITE) {
        struct fl_seat *seat = fl_seat_of(self, input->site);
        if (seat)
            fl_send_due(self, seat);
    }
    if (effects & FL_EFFECT_CONFIGURE)
        fl_conduct_begin_start(self);
    if (effects & FL_EFFECT_SURVIVORS)
        fl_masks_check_survivors(self);
    if (effects & FL_EFFECT_AGGREGATE)
        begin_sum(self);
    if (effects & FL_EFFECT_COMMIT)
        commit(self);
}

static enum fl_status persist(struct fl_server *self, uint32_t effects, fl_also also, void *context,
                              struct fl_error *error)
{
    struct fl_store *store = self->desk->store;
    enum fl_status status = fl_store_begin(store, error);
    if (status != FL_OK)
        return status;
    if (also)
        status = also(self, context, error);
    if (status == FL_OK)
        status = fl_queue_save(store, self->job.id, job_state(self->next), self->next, &self->saved,
                               fl_clock_wall(self->desk->clock), error);
    if (status == FL_OK && effects & FL_EFFECT_END)
        status = fl_ending_owe(store, self->job.id, job_state(self->next), self->next->reason,
                               error);
    if (status == FL_OK)
        status = fl_store_commit(store, error);
    else
        fl_store_rollback(store);
    if (status != FL_OK)
        self->saved.job = 0;
    return status;
}

/* Events of which the site's own bytes are committed too; it says them again when asked again. */
static bool carries_bytes(const struct fl_server *self, enum fl_round_event event)
{
    if (event == FL_EVENT_UPLOADED)
        return self->round->rules.secure;
    return event == FL_EVENT_ADVERTISED || event == FL_EVENT_SHARED || event == FL_EVENT_SIGNED ||
           event == FL_EVENT_ANSWERED;
}

/* Keep an event that could not be committed. Results of work have their own way back. */
static void park(struct fl_server *self, const struct fl_round_input *input,
                 const struct fl_error *error)
{
    fl_log(FL_LOG_ERROR, "commit_failed", error->text,
           FL_STR("on", fl_round_event_name(input->event)));
    if (input->event == FL_EVENT_CONFIGURED || input->event == FL_EVENT_AGGREGATED ||
        input->event == FL_EVENT_COMMITTED) {
        struct fl_round_input failed = {.event = FL_EVENT_STORAGE_FAILED, .reason = error->text};
        fl_conduct(self, &failed);
        return;
    }
    if (input->event == FL_EVENT_TICK || self->parked_count == FL_PARKED_MAX)
        return; /* time passes again; sites repeat what is not answered */
    if (carries_bytes(self,
                      input->event)) { /* without what was to be kept with it, it means nothing */
        struct fl_seat *seat = fl_seat_of(self, input->site);
        if (seat)
            seat->retry_ms = fl_server_now(self) + FL_ROUND_RETRY_MS;
        return;
    }
    struct fl_parked *parked = &self->parked[self->parked_count++];
    parked->input = *input;
    parked->round = self->round->round;
    parked->attempt = self->round->attempt;
    (void)snprintf(parked->reason, sizeof parked->reason, "%s", input->reason ? input->reason : "");
    parked->input.reason = NULL;
    parked->input.leave_out_count = 0; /* borrowed */
    self->parked_ms = fl_server_now(self) + FL_ROUND_RETRY_MS;
}

void fl_conduct_also(struct fl_server *self, const struct fl_round_input *input, fl_also also,
                     void *context)
{
    struct fl_error error;
    if (!self->job.id)
        return;
    copy_round(self->next, self->round);
    uint32_t effects = fl_round_step(self->next, input, fl_server_now(self));
    fl_recall_number(self);
    if (effects & FL_EFFECT_PERSIST && persist(self, effects, also, context, &error) != FL_OK) {
        park(self, input, &error);
        return;
    }
    struct fl_round *before = self->round;
    self->round = self->next;
    self->next = before;
    fl_tally_step(&self->tally, before, self->round, effects, fl_server_now(self));
    log_step(self, before, input);
    carry_out(self, effects, before->round, before->attempt, input);
}

void fl_conduct(struct fl_server *self, const struct fl_round_input *input)
{
    fl_conduct_also(self, input, NULL, NULL);
}

void fl_conduct_site(struct fl_server *self, enum fl_round_event event, uint32_t site)
{
    const struct fl_round_input input = {.event = event, .site = site};
    fl_conduct(self, &input);
}

void fl_conduct_note_refusal(struct fl_server *self, uint32_t site, enum fl_refusal code,
                             bool permanent, const char *reason)
{
    struct fl_error error;
    struct fl_refusal_row row = {.site = site, .code = code, .permanent = permanent};
    fl_wire_set_text(row.reason, sizeof row.reason, reason);
    self->tally.refusals++;
    if (fl_queue_refuse(self->desk->store, self->job.id, &row, fl_clock_wall(self->desk->clock),
                        &error) != FL_OK)
        fl_log(FL_LOG_WARN, "store_failed", error.text);
}

/*
 * recall.c - the part of recall.h that listens and decides: who says what, and what comes of it.
 *
 * Invariants: while a job is put aside nothing of it is sent or stepped (self->job is empty), so
 * its end is a plain take-up from the database; recovered versions and the job's new place are one
 * commit.
 */
#include "coordinator/ending.h"
#include "coordinator/recall.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "coordinator/recall_internal.h"
#include "job/attempt.h"

void fl_recall_clear(struct fl_list *list, size_t item_bytes)
{
    fl_free(list->items);
    *list = (struct fl_list){.item_bytes = item_bytes};
}

static void reset(struct fl_recall *self)
{
    fl_recall_clear(&self->witnesses, sizeof(struct fl_witness));
    fl_recall_clear(&self->claims, sizeof(struct fl_claim));
    fl_recall_clear(&self->recovered, sizeof(struct fl_version));
    self->state = FL_RECALL_NONE;
    self->paused = false;
    self->trouble[0] = '\0';
    self->retry_ms = 0;
}

void fl_recall_free(struct fl_recall *self)
{
    reset(self);
    fl_recall_dismissed_free(&self->dismissed);
}

const char *fl_recall_name_of(const struct fl_server *self, uint32_t site)
{
    const struct fl_site *found = fl_roster_by_id(self->desk->roster, site);
    return found ? found->name : "a site";
}

bool fl_recall_store_failed(struct fl_error *error)
{
    fl_log(FL_LOG_ERROR, "store_failed", error->text);
    return false;
}

/* ---- witnesses ---- */

static struct fl_witness *witness_of(struct fl_recall *self, uint32_t site)
{
    for (uint32_t i = 0; i < self->witnesses.count; i++) {
        if (fl_recall_witnesses(self)[i].site == site)
            return &fl_recall_witnesses(self)[i];
    }
    return NULL;
}

static void ask(struct fl_server *self, struct fl_seat *seat, struct fl_witness *witness)
{
    struct fl_wire message = {.kind = FL_WIRE_RECALL, .job = (uint64_t)self->recall.own.job};
    message.as.recall.after = self->recall.own.round - 1;
    witness->asked_ms = fl_server_now(self);
    fl_seat_send(self, seat, &message);
}

/* What its HELLO said, and the question what it keeps. */
static void hear_witness(struct fl_server *self, struct fl_seat *seat)
{
    struct fl_recall *recall = &self->recall;
    const struct fl_wire_hello *hello = &seat->hello;
    struct fl_witness *witness = witness_of(recall, seat->site);
    if (!witness) {
        const struct fl_witness added = {.site = seat->site};
        if (fl_list_append(&recall->witnesses, &added) != FL_OK)
            return; /* it is heard at its next HELLO */
        witness = &fl_recall_witnesses(recall)[recall->witnesses.count - 1];
    }
    if (hello->last_job == (uint64_t)recall->own.job) {
        witness->round = hello->last_round;
        witness->attempt = hello->last_attempt;
    }
    ask(self, seat, witness);
}

/* Is what that site saw of the job beyond the database? */
static bool is_ahead(struct fl_server *self, const struct fl_standing *own,
                     const struct fl_wire_hello *hello)
{
    struct fl_error error;
    bool known = true;
    if (hello->last_job != (uint64_t)own->job)
        return false;
    if (hello->has_last_version &&
        fl_recall_knows(self->desk->store, own->job, hello->last_version, &known, &error) != FL_OK)
        return fl_recall_store_failed(&error);
    return fl_recall_is_ahead(own, hello->last_round, hello->last_attempt, !known);
}

/* ---- beginning ---- */

/* cause: the site that gave rise to it; 0: none. */
static void begin(struct fl_server *self, const struct fl_standing *own, uint32_t cause,
                  const char *why)
{
    struct fl_recall *recall = &self->recall;
    reset(recall);
    fl_conduct_drop_job(self);
    self->idle = false;
    recall->own = *own;
    recall->cause = cause;
    recall->state = FL_RECALL_LISTENING;
    recall->deadline_ms = fl_server_now(self) + FL_RECALL_WAIT_MS;
    fl_log(FL_LOG_WARN, "recall_begins", why, FL_I64("job", own->job), FL_U64("round", own->round),
           FL_U64("attempt", own->attempt));
    for (uint32_t i = 0; i < self->seat_count; i++) {
        if (self->seats[i]->live)
            hear_witness(self, self->seats[i]);
    }
}

/* A round that this process committed is proof enough that its database is the newest one. */
static bool is_proven(const struct fl_recall *self, int64_t job, uint32_t round)
{
    return self->taken_job == job && round > self->taken_round;
}

static bool is_unfinished(enum fl_job_state state)
{
    return state == FL_JOB_QUEUED || state == FL_JOB_RUNNING || state == FL_JOB_PAUSED;
}

/* A job that this database has never heard of. */
static bool note_job(struct fl_server *self, const struct fl_seat *seat)
{
    struct fl_error error;
    bool news = false;
    if (seat->hello.last_job == 0 || seat->hello.last_job > INT64_MAX)
        return false;
    if (fl_recall_note_job(self->desk->store, (int64_t)seat->hello.last_job, &news, &error) !=
        FL_OK)
        return fl_recall_store_failed(&error);
    if (news)
        fl_log(FL_LOG_WARN, "site_ahead", "a site has worked on a job that is not known here",
               FL_STR("worker", seat->name), FL_U64("job", seat->hello.last_job));
    return news;
}

static bool hear_news(struct fl_server *self, struct fl_seat *seat)
{
    struct fl_recall *recall = &self->recall;
    struct fl_standing own, running;
    struct fl_error error;
    enum fl_job_state state;
    bool unknown_job = note_job(self, seat);
    int64_t job = seat->hello.last_job <= INT64_MAX ? (int64_t)seat->hello.last_job : 0;
    enum fl_status status = fl_recall_standing(self->desk->store, job, &own, &state, &error);
    bool ahead = status == FL_OK && is_unfinished(state) && is_ahead(self, &own, &seat->hello);
    if (!ahead && !unknown_job)
        return false;
    if (!self->job.id)
        return true; /* fl_recall_holds() looks at it again */
    status = fl_recall_standing(self->desk->store, self->job.id, &running, &state, &error);
    if (status != FL_OK)
        return fl_recall_store_failed(&error);
    if (ahead && job != self->job.id)
        return true; /* looked at when that job is taken up */
    if (fl_recall_is_dismissed(&recall->dismissed, self->job.id, seat->site) ||
        is_proven(recall, self->job.id, self->round->round)) {
        fl_log(FL_LOG_WARN, "site_ahead", "a site says that it saw more than there is; passed over",
               FL_STR("worker", seat->name), FL_U64("job", seat->hello.last_job),
               FL_U64("round", seat->hello.last_round),
               FL_U64("attempt", seat->hello.last_attempt));
        return false;
    }
    begin(self, &running, seat->site, "a site has seen more of the job than this database has");
    return true;
}

bool fl_recall_hear(struct fl_server *self, struct fl_seat *seat)
{
    const struct fl_recall *recall = &self->recall;
    if (recall->state == FL_RECALL_NONE)
        return hear_news(self, seat);
    hear_witness(self, seat);
    if (!recall->paused)
        return true;
    bool of_it = seat->hello.last_job == (uint64_t)recall->own.job;
    return of_it || hear_news(self, seat);
}

/* The first live site whose word does not fit the job; NULL: none. */
static const struct fl_seat *find_ahead(struct fl_server *self, const struct fl_standing *own)
{
    for (uint32_t i = 0; i < self->seat_count; i++) {
        const struct fl_seat *seat = self->seats[i];
        if (seat->live && !fl_recall_is_dismissed(&self->recall.dismissed, own->job, seat->site) &&
            is_ahead(self, own, &seat->hello))
            return seat;
    }
    return NULL;
}

bool fl_recall_holds(struct fl_server *self)
{
    struct fl_recall *recall = &self->recall;
    struct fl_standing own;
    struct fl_error error;
    enum fl_job_state state;
    int64_t job = self->job.id;
    if (recall->state != FL_RECALL_NONE) {
        if (!recall->paused)
            return true;
        if (recall->own.job == job)
            reset(recall); /* resumed */
    }
    enum fl_status status = fl_recall_standing(self->desk->store, job, &own, &state, &error);
    if (status == FL_EIO || status == FL_ENOSPC || status == FL_ENOMEM)
        return !fl_recall_store_failed(&error); /* looked at again in a moment */
    if (status != FL_OK)
        return false; /* taking it up says what is wrong with it */
    if (own.restored) {
        begin(self, &own, 0,
              "this database is a restored backup: the sites are asked what they saw");
        return true;
    }
    const struct fl_seat *ahead = is_proven(recall, job, own.round) ? NULL : find_ahead(self, &own);
    if (ahead) {
        begin(self, &own, ahead->site, "a site has seen more of the job than this database has");
        return true;
    }
    if (recall->taken_job != job) {
        recall->taken_job = job;
        recall->taken_round = own.round;
    }
    return false;
}

/* ---- answers ---- */

static void add_claim(struct fl_recall *self, uint32_t site,
                      const struct fl_wire_recalled *recalled)
{
    uint32_t of_site = 0;
    for (uint32_t i = 0; i < self->claims.count; i++) {
        struct fl_claim *claim = &fl_recall_claims(self)[i];
        of_site += claim->site == site;
        if (claim->site == site && claim->version == recalled->version)
            return; /* its first word counts */
    }
    if (of_site >= FL_RECALLED_MAX || recalled->version >= self->own.rounds + 1 ||
        recalled->version < self->own.round)
        return;
    struct fl_claim added = {
        .site = site, .version = recalled->version, .adapter = recalled->adapter};
    memcpy(added.sha256, recalled->sha256, FL_HASH_BYTES);
    (void)!fl_list_append(&self->claims, &added); /* without memory it is no witness */
}

void fl_recall_take(struct fl_server *self, struct fl_seat *seat, const struct fl_wire *message)
{
    struct fl_recall *recall = &self->recall;
    const struct fl_wire_recalled *recalled = &message->as.recalled;
    if ((recall->state != FL_RECALL_LISTENING && recall->state != FL_RECALL_WATCHING) ||
        message->job != (uint64_t)recall->own.job)
        return;
    struct fl_witness *witness = witness_of(recall, seat->site);
    if (!witness)
        return;
    if (recalled->version > 0)
        add_claim(recall, seat->site, recalled);
    witness->answered = witness->answered || recalled->left == 0;
}

static bool has_claim(struct fl_recall *self, uint32_t site)
{
    for (uint32_t i = 0; i < self->claims.count; i++) {
        if (fl_recall_claims(self)[i].site == site)
            return true;
    }
    return false;
}

enum fl_recall_verdict fl_recall_judge_now(struct fl_recall *self, bool certain, uint32_t *version)
{
    bool contradicted = false;
    for (uint32_t i = 0; i < self->witnesses.count; i++)
        contradicted = contradicted || (fl_recall_witnesses(self)[i].answered &&
                                        !has_claim(self, fl_recall_witnesses(self)[i].site));
    return fl_recall_judge(fl_recall_claims(self), self->claims.count, self->own.round - 1, certain,
                           contradicted, version);
}

/* Has every site that was ever here come back and answered? */
static bool all_answered(struct fl_server *self)
{
    uint32_t answers = 0;
    for (uint32_t i = 0; i < fl_roster_count(self->desk->roster); i++) {
        const struct fl_site *site = fl_roster_at(self->desk->roster, i);
        const struct fl_witness *witness = witness_of(&self->recall, site->id);
        if (site->revoked || site->last_seen_ms == 0)
            continue;
        if (!witness || !witness->answered)
            return false;
        answers++;
    }
    return answers > 0;
}

/* A revoked site is no witness. */
static void forget_revoked(struct fl_server *self)
{
    struct fl_list *list = &self->recall.claims;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct fl_claim claim = fl_recall_claims(&self->recall)[i];
        const struct fl_site *site = fl_roster_by_id(self->desk->roster, claim.site);
        if (site && !site->revoked)
            fl_recall_claims(&self->recall)[kept++] = claim;
    }
    list->count = kept;
}

/* ---- outcomes ---- */

/* The floor that the witnesses' attempts give, and the number of the attempt that comes next. */
void fl_recall_number_next(struct fl_recall *self)
{
    struct fl_standing *own = &self->own;
    uint32_t lone = own->lone;
    own->floor = fl_recall_floor(own, fl_recall_witnesses(self), self->witnesses.count, &lone);
    own->lone = lone;
}

bool fl_recall_commit(struct fl_server *self, bool move, enum fl_job_state state,
                      enum fl_round_state phase, const char *reason)
{
    struct fl_recall *recall = &self->recall;
    struct fl_store *store = self->desk->store;
    const struct fl_version *recovered = recall->recovered.items;
    struct fl_error error;
    enum fl_status status = fl_store_begin(store, &error);
    if (status != FL_OK)
        return fl_recall_store_failed(&error);
    for (uint32_t i = 0; status == FL_OK && i < recall->recovered.count; i++)
        status = fl_registry_put(store, &recovered[i], &error);
    if (status == FL_OK)
        status = fl_recall_keep(store, &recall->own, &error);
    if (status == FL_OK && move)
        status = fl_recall_move(store, &recall->own, state, phase, reason,
                                fl_clock_wall(self->desk->clock), &error);
    if (status == FL_OK && move && fl_job_state_ended(state))
        status = fl_ending_owe(store, recall->own.job, state, reason, &error);
    if (status == FL_OK)
        status = fl_store_commit(store, &error);
    else
        fl_store_rollback(store);
    if (status == FL_OK)
        fl_conduct_write_endings(self);
    return status == FL_OK || fl_recall_store_failed(&error);
}

void fl_recall_retry_later(struct fl_server *self)
{
    self->recall.retry_ms = fl_server_now(self) + FL_ROUND_RETRY_MS;
}

/* What a fetch left that came to nothing. */
static void drop_parts(struct fl_server *self)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    if (self->recall.target == 0)
        return;
    self->recall.target = 0;
    if (fl_store_path(self->desk->store, path, &error, "recall") != FL_OK ||
        fl_store_remove(path, &error) != FL_OK)
        fl_log(FL_LOG_WARN, "recall_kept", error.text);
}

void fl_recall_go_on(struct fl_server *self)
{
    drop_parts(self);
    reset(&self->recall);
    self->next_look_ms = 0;
    self->idle = false;
}

/* Nothing later exists: the job goes on where the database has it. */
static void find_level(struct fl_server *self)
{
    struct fl_recall *recall = &self->recall;
    struct fl_standing *own = &recall->own;
    struct fl_job job;
    struct fl_error error;
    const struct fl_standing before = *own;
    if (fl_queue_get(self->desk->store, own->job, &job, &error) != FL_OK) {
        (void)fl_recall_store_failed(&error);
        return;
    }
    fl_recall_number_next(recall);
    own->restored = false;
    for (uint32_t i = 0; i < recall->witnesses.count; i++) {
        const struct fl_witness *w = &fl_recall_witnesses(recall)[i];
        if (has_claim(recall, w->site) || fl_recall_is_ahead(&before, w->round, w->attempt, false))
            fl_recall_dismiss(&recall->dismissed, own->job, w->site);
    }
    if (recall->cause) /* nothing that it says puts the job aside again */
        fl_recall_dismiss(&recall->dismissed, own->job, recall->cause);
    /* an attempt that is under way ends before the floor counts, unless it is no more than asked */
    bool renumber = own->floor >= own->attempt && job.phase <= FL_ROUND_SELECT;
    if (renumber)
        own->attempt = fl_recall_next_attempt(own->attempt, own->floor);
    bool changed = renumber || before.restored || own->floor != before.floor ||
                   own->lone != before.lone;
    if (changed && !fl_recall_commit(self, renumber, job.state, job.phase, job.reason)) {
        *own = before;
        fl_recall_retry_later(self);
        return;
    }
    fl_log(FL_LOG_INFO, "recall_ended", "no site has seen a later version; the job goes on",
           FL_I64("job", own->job), FL_U64("round", own->round), FL_U64("attempt", own->attempt));
    fl_recall_go_on(self);
}

void fl_recall_audit(struct fl_server *self, const char *event, uint32_t version,
                     const uint8_t *sha256, const char *reason)
{
    struct fl_error error;
    char hex[FL_HASH_HEX_BYTES] = "";
    if (sha256)
        fl_hex(sha256, FL_HASH_BYTES, hex);
    const struct fl_field fields[] = {FL_I64("job", self->recall.own.job),
                                      FL_U64("version", version),
                                      FL_STR("sha256", sha256 ? hex : NULL),
                                      FL_STR("reason", reason),
                                      {.kind = FL_FIELD_END}};
    fl_log_fields(FL_LOG_WARN, event, "a coordinator that was behind its sites", fields);
    (void)!fl_desk_audit(self->desk, event, fields, &error);
}

/* A person decides: `job resume` goes on from the own version. */
void fl_recall_pause_job(struct fl_server *self, uint32_t version, const char *reason)
{
    struct fl_recall *recall = &self->recall;
    const struct fl_standing before = recall->own;
    fl_recall_number_next(recall);
    recall->own.restored = false;
    recall->own.settled = true;
    /* rounds may be done again whose attempts nobody counts any more: in a life of their own, which
       a copy has already; resuming counts one further */
    uint32_t first = fl_recall_next_attempt(before.attempt, recall->own.floor);
    if (!before.restored && first == before.attempt)
        first = fl_attempt_next_life(first);
    recall->own.attempt = recall->own.floor = first - 1;
    if (!fl_recall_commit(self, true, FL_JOB_PAUSED, FL_ROUND_PAUSED, reason)) {
        recall->own = before;
        fl_recall_retry_later(self);
        return;
    }
    drop_parts(self);
    fl_recall_audit(self, "recall_paused", version, NULL, reason);
    fl_recall_clear(&recall->recovered, sizeof(struct fl_version));
    recall->paused = true;
    recall->state = FL_RECALL_WATCHING;
    self->next_look_ms = 0;
}

void fl_recall_pause_for(struct fl_server *self, uint32_t version)
{
    struct fl_recall *recall = &self->recall;
    char reason[FL_REASON_BYTES];
    uint32_t sites = 0, site = 0;
    for (uint32_t i = 0; i < recall->claims.count; i++) {
        if (fl_recall_claims(recall)[i].version != version)
            continue;
        sites++;
        site = fl_recall_claims(recall)[i].site;
    }
    if (sites > 1)
        (void)snprintf(reason, sizeof reason,
                       "this coordinator is older than its sites, and %u of them disagree about "
                       "version %u: serve a newer backup, or `job resume` goes on from version %u",
                       sites, version, recall->own.round - 1);
    else
        (void)snprintf(reason, sizeof reason,
                       "only %s has version %u, which this coordinator lost: bring another site "
                       "that has it, serve a newer backup, or `job resume` goes on from version %u",
                       fl_recall_name_of(self, site), version, recall->own.round - 1);
    fl_recall_pause_job(self, version, reason);
}

/* ---- time ---- */

/* Has a command changed the job meanwhile? Then its word counts. */
static bool is_overtaken(struct fl_server *self)
{
    struct fl_recall *recall = &self->recall;
    struct fl_standing now;
    struct fl_error error;
    enum fl_job_state state;
    if (fl_recall_standing(self->desk->store, recall->own.job, &now, &state, &error) != FL_OK)
        return fl_recall_store_failed(&error);
    return recall->paused ? state != FL_JOB_PAUSED
                          : state != FL_JOB_RUNNING && state != FL_JOB_QUEUED;
}

static void start_fetching(struct fl_server *self, uint32_t target)
{
    struct fl_recall *recall = &self->recall;
    recall->target = target;
    recall->next = recall->own.round;
    recall->state = FL_RECALL_FETCHING;
    recall->deadline_ms = fl_server_now(self) + FL_RECALL_WAIT_MS;
    fl_log(FL_LOG_WARN, "recall_confirmed", "sites agree on a later version; it is fetched",
           FL_I64("job", recall->own.job), FL_U64("version", target));
}

static void resolve(struct fl_server *self, int64_t now_ms)
{
    struct fl_recall *recall = &self->recall;
    uint32_t version = 0;
    enum fl_recall_verdict verdict = fl_recall_judge_now(recall, recall->own.restored, &version);
    if (verdict == FL_RECALL_TAKE)
        start_fetching(self, version);
    else if (verdict == FL_RECALL_ASK)
        fl_recall_pause_for(self, version);
    else if (recall->own.restored && recall->witnesses.count == 0)
        recall->deadline_ms = now_ms + FL_RECALL_WAIT_MS; /* nobody is there to ask yet */
    else
        find_level(self);
}

static void watch(struct fl_server *self)
{
    uint32_t version = 0;
    if (fl_recall_judge_now(&self->recall, true, &version) == FL_RECALL_TAKE)
        start_fetching(self, version);
}

static void ask_again(struct fl_server *self, int64_t now_ms)
{
    for (uint32_t i = 0; i < self->recall.witnesses.count; i++) {
        struct fl_witness *w = &fl_recall_witnesses(&self->recall)[i];
        struct fl_seat *seat = fl_seat_of(self, w->site);
        if (seat && !w->answered && now_ms - w->asked_ms >= FL_RECALL_ASK_MS)
            ask(self, seat, w);
    }
}

void fl_recall_tick(struct fl_server *self, int64_t now_ms)
{
    struct fl_recall *recall = &self->recall;
    if (recall->state == FL_RECALL_NONE || recall->state == FL_RECALL_CHECKING ||
        now_ms < recall->retry_ms)
        return;
    if (is_overtaken(self)) {
        fl_recall_go_on(self);
        return;
    }
    if (recall->state == FL_RECALL_FETCHING) {
        fl_recall_fetch_step(self, now_ms);
        return;
    }
    forget_revoked(self);
    ask_again(self, now_ms);
    if (recall->state == FL_RECALL_WATCHING)
        watch(self);
    else if (all_answered(self) || now_ms >= recall->deadline_ms)
        resolve(self, now_ms);
}

/* ---- numbers ---- */

void fl_recall_number(struct fl_server *self)
{
    const struct fl_round *before = self->round;
    struct fl_round *after = self->next;
    struct fl_standing own;
    struct fl_error error;
    enum fl_job_state state;
    if (after->state != FL_ROUND_SELECT || before->state == FL_ROUND_SELECT)
        return;
    if (before->state == FL_ROUND_IDLE && self->job.attempt > after->attempt)
        after->attempt = self->job.attempt;
    if (after->round != before->round) /* a job keeps its hundred */
        after->attempt += fl_attempt_life(before->attempt) * FL_ATTEMPT_HUNDRED;
    if (fl_recall_standing(self->desk->store, self->job.id, &own, &state, &error) == FL_OK)
        after->attempt = fl_recall_next_attempt(after->attempt, own.floor);
    else
        (void)fl_recall_store_failed(&error);
}

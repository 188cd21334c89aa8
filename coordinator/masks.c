/*
 * masks.c - see masks.h. A row of the table `masks` holds what one site said in one stage of one
 * attempt: it is committed together with the member's mark, before any frame that follows from it.
 */
#include "coordinator/masks.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "coordinator/dispute.h"
#include "coordinator/server_internal.h"
#include "job/offer.h"

_Static_assert(FL_WIRE_ADVERT_BYTES == FL_SECAGG_ADVERT_BYTES &&
                   FL_WIRE_SHARE_BYTES == FL_SECAGG_SEALED_SHARE_BYTES &&
                   FL_WIRE_SIGNATURE_BYTES == FL_SIGNATURE_BYTES &&
                   FL_WIRE_SCALAR_BYTES == FL_SCALAR_BYTES &&
                   FL_WIRE_PLAN_BYTES_MAX == FL_SECAGG_PLAN_BYTES_MAX,
               "the wire carries what secure aggregation makes");

/* stored as numbers */
enum mask_kind { MASK_ADVERT, MASK_SHARES, MASK_SIGNATURE, MASK_ANSWER, MASK_OPENED };

struct fl_masks {
    uint32_t round, attempt;
    struct fl_secagg_context context;
    bool has_cohort;
    struct fl_secagg_cohort cohort;
    uint32_t sites[FL_SECAGG_SITES_MAX]; /* the id of each member */
    uint8_t *sealed;                     /* (n, n, FL_SECAGG_SEALED_SHARE_BYTES), owned; or NULL */
    uint8_t *column;                     /* (n, ...) what is sealed for one site, owned */
    uint8_t signatures[FL_SECAGG_SITES_MAX][FL_SIGNATURE_BYTES];
    bool has_signatures;
    struct fl_secagg_set opened[FL_SECAGG_SITES_MAX]; /* by member: whose shares opened there */
    struct fl_secagg_set said_opened;
};

void fl_unmask_request_free(struct fl_unmask_request *self)
{
    if (!self)
        return;
    if (self->answers)
        sodium_memzero(self->answers,
                       (size_t)self->cohort.count * self->cohort.count * FL_SCALAR_BYTES);
    fl_free(self->answers);
    fl_free(self);
}

/* ---- rows ---- */

struct row_keep { /* what is committed together with a step */
    uint32_t site;
    enum mask_kind kind;
    const void *bytes;
    size_t length;
};

static enum fl_status keep_row(struct fl_server *server, void *context, struct fl_error *error)
{
    const struct row_keep *row = context;
    return fl_store_run(server->desk->store, error,
                        "INSERT OR REPLACE INTO masks(job, round, attempt, site, kind, bytes) "
                        "VALUES(?,?,?,?,?,?)",
                        "iiiiib", server->job.id, (int64_t)server->round->round,
                        (int64_t)server->round->attempt, (int64_t)row->site, (int64_t)row->kind,
                        row->bytes, row->length);
}

struct row_read {
    struct fl_masks *masks;
    void (*take)(struct fl_masks *masks, uint32_t site, const uint8_t *bytes, size_t length,
                 void *to);
    void *to;
};

static enum fl_status read_row(void *context, const struct fl_row *row)
{
    const struct row_read *read = context;
    size_t length;
    const uint8_t *bytes = fl_row_blob(row, 1, &length);
    if (bytes)
        read->take(read->masks, (uint32_t)fl_row_i64(row, 0), bytes, length, read->to);
    return FL_OK;
}

static enum fl_status read_rows(struct fl_server *server, enum mask_kind kind,
                                struct row_read *read, struct fl_error *error)
{
    return fl_store_select(server->desk->store, error, read_row, read, NULL,
                           "SELECT site, bytes FROM masks WHERE job = ? AND round = ? AND "
                           "attempt = ? AND kind = ? ORDER BY site",
                           "iiii", server->job.id, (int64_t)server->round->round,
                           (int64_t)server->round->attempt, (int64_t)kind);
}

/* ---- the attempt and its cohort ---- */

void fl_masks_free(struct fl_server *server)
{
    struct fl_masks *masks = server->masks;
    server->masks = NULL;
    if (!masks)
        return;
    fl_free(masks->sealed);
    fl_free(masks->column);
    fl_free(masks);
}

void fl_masks_drop(struct fl_server *server, int64_t job)
{
    struct fl_error error;
    fl_masks_free(server);
    if (fl_store_run(server->desk->store, &error, "DELETE FROM masks WHERE job = ?", "i", job) !=
        FL_OK)
        fl_log(FL_LOG_WARN, "store_failed", error.text);
}

static enum fl_status fill_context(const struct fl_server *server, struct fl_secagg_context *out)
{
    struct fl_wire_offer *offer = fl_calloc(1, sizeof *offer);
    const struct fl_rank_plan *plan = &server->attempt.plan;
    uint8_t *global = fl_malloc(2 * (size_t)plan->modules);
    struct fl_wire_task task = {.version = 0};
    if (!offer || !global) {
        fl_free(offer);
        fl_free(global);
        return FL_ENOMEM;
    }
    fl_send_fill_task(server, &task);
    fl_send_store_ranks(plan->global, plan->modules, global);
    task.global_ranks = (struct fl_wire_bytes){global, 2 * (size_t)plan->modules};
    fl_send_fill_offer(server, "", offer);
    *out = (struct fl_secagg_context){.job = (uint64_t)server->job.id,
                                      .round = server->round->round,
                                      .attempt = server->round->attempt,
                                      .elements = fl_layout_elements(&server->facts->targets,
                                                                     plan->global,
                                                                     fl_job_factors(offer, &task))};
    fl_job_binding(offer, &task, out->job_hash);
    memcpy(out->manifest, offer->manifest, FL_HASH_BYTES);
    memcpy(out->start, task.start.root, FL_HASH_BYTES);
    fl_free(offer);
    fl_free(global);
    return FL_OK;
}

/* Of the present attempt, without its cohort; NULL: out of memory, or not configured. */
static struct fl_masks *masks_of(struct fl_server *server)
{
    struct fl_masks *masks = server->masks;
    if (masks && masks->round == server->round->round && masks->attempt == server->round->attempt)
        return masks;
    fl_masks_free(server);
    if (!server->has_attempt)
        return NULL;
    masks = fl_calloc(1, sizeof *masks);
    if (!masks || fill_context(server, &masks->context) != FL_OK) {
        fl_free(masks);
        return NULL;
    }
    masks->round = server->round->round;
    masks->attempt = server->round->attempt;
    server->masks = masks;
    return masks;
}

struct advert_list {
    const struct fl_round *round;
    struct fl_secagg_advert *adverts; /* (FL_SECAGG_SITES_MAX) */
    uint32_t sites[FL_SECAGG_SITES_MAX];
    uint32_t count;
};

static void take_advert_row(struct fl_masks *masks, uint32_t site, const uint8_t *bytes,
                            size_t length, void *to)
{
    struct advert_list *list = to;
    const struct fl_member *m = fl_round_find(list->round, site);
    (void)masks;
    if (!m || !m->cohort || !m->advertised || length != FL_SECAGG_ADVERT_BYTES ||
        list->count == FL_SECAGG_SITES_MAX ||
        fl_secagg_advert_decode(bytes, &list->adverts[list->count]) != FL_OK)
        return;
    list->sites[list->count++] = site;
}

static enum fl_status set_cohort(struct fl_masks *masks, const struct advert_list *list,
                                 struct fl_error *error)
{
    enum fl_status status = fl_secagg_cohort_check(&masks->context, list->adverts, list->count,
                                                   &masks->cohort, error);
    for (uint32_t i = 0; status == FL_OK && i < list->count; i++) {
        uint32_t member = fl_secagg_cohort_find(&masks->cohort, list->adverts[i].name);
        masks->sites[member] = list->sites[i];
    }
    masks->has_cohort = status == FL_OK;
    return status;
}

/* U1 is fixed once KEYS is over. */
static enum fl_status need_cohort(struct fl_server *server, struct fl_masks **out,
                                  struct fl_error *error)
{
    struct fl_masks *masks = *out = masks_of(server);
    if (!masks)
        return fl_fail_memory(error);
    if (masks->has_cohort)
        return FL_OK;
    struct advert_list list = {.round = server->round,
                               .adverts = fl_calloc(FL_SECAGG_SITES_MAX, sizeof *list.adverts)};
    struct row_read read = {masks, take_advert_row, &list};
    enum fl_status status = list.adverts ? read_rows(server, MASK_ADVERT, &read, error)
                                         : fl_fail_memory(error);
    if (status == FL_OK && list.count != fl_round_advertised(server->round))
        status = fl_fail(error, FL_EFORMAT, "%u adverts are kept of %u sites", list.count,
                         fl_round_advertised(server->round));
    if (status == FL_OK)
        status = set_cohort(masks, &list, error);
    fl_free(list.adverts);
    return status;
}

static uint32_t member_of(const struct fl_masks *masks, uint32_t site)
{
    for (uint32_t i = 0; i < masks->cohort.count; i++) {
        if (masks->sites[i] == site)
            return i;
    }
    return UINT32_MAX;
}

enum set_kind { SET_SHARERS, SET_SURVIVORS, SET_SIGNED, SET_ANSWERED };

static void fill_set(const struct fl_server *server, const struct fl_masks *masks,
                     enum set_kind kind, struct fl_secagg_set *out)
{
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < masks->cohort.count; i++) {
        const struct fl_member *m = fl_round_find(server->round, masks->sites[i]);
        const bool marks[] = {m && m->shared, m && m->uploaded, m && m->uploaded && m->signed_,
                              m && m->uploaded && m->answered};
        out->has[i] = marks[kind];
    }
}

static struct fl_wire_bytes set_bytes(const struct fl_secagg_set *set, uint32_t n, uint8_t *to)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] = set->has[i] ? 1 : 0;
    return (struct fl_wire_bytes){to, n};
}

/* ---- adverts ---- */

/* What a site said wrong costs it this attempt, and is told. */
static void reject(struct fl_server *server, struct fl_seat *seat, const struct fl_wire *message,
                   const char *reason)
{
    fl_log(FL_LOG_WARN, "site_blamed", reason, FL_STR("worker", seat->name),
           FL_U64("round", message->round), FL_U64("attempt", message->attempt));
    fl_send_receipt(server, seat, message, FL_RECEIPT_REJECTED, reason);
    fl_conduct_note_refusal(server, seat->site, FL_REFUSAL_PRIVACY, false, reason);
    const struct fl_round_input input = {.event = FL_EVENT_SITE_FAILED,
                                         .site = seat->site,
                                         .leave_out = &seat->site,
                                         .leave_out_count = 1};
    fl_conduct(server, &input);
}

static bool has_its_ranks(const struct fl_server *server, uint32_t site,
                          const struct fl_secagg_advert *advert)
{
    const struct fl_rank_plan *plan = &server->attempt.plan;
    uint32_t row = fl_send_plan_row(server->round, site);
    return fl_secagg_ranks_verify(advert, plan->ranks + (size_t)row * plan->modules, plan->modules,
                                  NULL) == FL_OK;
}

/* NULL: good. */
static const char *fault_of_advert(struct fl_server *server, const struct fl_seat *seat,
                                   const struct fl_masks *masks, const uint8_t *bytes)
{
    struct fl_secagg_advert advert;
    const struct fl_site *site = fl_roster_by_id(server->desk->roster, seat->site);
    if (fl_secagg_advert_decode(bytes, &advert) != FL_OK || strcmp(advert.name, seat->name) != 0)
        return "its advert has another name";
    if (!site || memcmp(advert.identity, site->identity.ed25519, FL_KEY_BYTES) != 0)
        return "its advert has another identity";
    if (fl_secagg_advert_verify(&masks->context, &advert) != FL_OK)
        return "its advert is not signed for this attempt: it was told other settings, another "
               "base or another start, or lies";
    if (!has_its_ranks(server, seat->site, &advert))
        return "its advert names other ranks than it was given";
    return NULL;
}

void fl_masks_take_advert(struct fl_server *server, struct fl_seat *seat,
                          const struct fl_wire *message)
{
    const struct fl_member *m = fl_round_find(server->round, seat->site);
    if (server->round->state != FL_ROUND_KEYS || !m || !m->trained || m->failed) {
        fl_send_due(server, seat);
        return;
    }
    struct fl_masks *masks = masks_of(server);
    if (!masks)
        return;
    const char *fault = fault_of_advert(server, seat, masks, message->as.advert.advert);
    if (fault) {
        reject(server, seat, message, fault);
        return;
    }
    /* a site that was restarted makes new keys; until the list is out the newest count */
    struct row_keep row = {seat->site, MASK_ADVERT, message->as.advert.advert,
                           FL_SECAGG_ADVERT_BYTES};
    const struct fl_round_input input = {.event = FL_EVENT_ADVERTISED, .site = seat->site};
    fl_conduct_also(server, &input, keep_row, &row);
}

/* The ranks of the members in the order of their names. */
static enum fl_status put_plan(const struct fl_server *server, const struct fl_masks *masks,
                               struct fl_buf *out)
{
    const struct fl_rank_plan *plan = &server->stage->layout->ranks;
    uint16_t *ranks = fl_calloc((size_t)masks->cohort.count * plan->modules, sizeof *ranks);
    if (!ranks)
        return FL_ENOMEM;
    for (uint32_t i = 0; i < masks->cohort.count; i++) {
        uint32_t position = fl_stage_position(server->stage, masks->sites[i]);
        memcpy(ranks + (size_t)i * plan->modules, plan->ranks + (size_t)position * plan->modules,
               plan->modules * sizeof *ranks);
    }
    enum fl_status status = fl_secagg_plan_encode(ranks, masks->cohort.count, plan->modules, out);
    fl_free(ranks);
    return status;
}

void fl_masks_send_cohort(struct fl_server *server, struct fl_seat *seat)
{
    struct fl_error error = {FL_OK, "out of memory"};
    struct fl_masks *masks;
    struct fl_buf adverts, plan;
    fl_buf_init(&adverts, FL_CONTROL_BYTES_MAX);
    fl_buf_init(&plan, FL_CONTROL_BYTES_MAX);
    enum fl_status status = need_cohort(server, &masks, &error);
    for (uint32_t i = 0; status == FL_OK && i < masks->cohort.count; i++) {
        uint8_t bytes[FL_SECAGG_ADVERT_BYTES];
        fl_secagg_advert_encode(&masks->cohort.adverts[i], bytes);
        fl_buf_append(&adverts, bytes, sizeof bytes);
    }
    if (status == FL_OK && server->stage)
        status = put_plan(server, masks, &plan);
    if (status == FL_ERANGE) {
        const struct fl_round_input input = {
            .event = FL_EVENT_UNMASK_FAILED,
            .reason = "the ranks of this cohort differ too much for secure aggregation: use fewer "
                      "[ranks] rules"};
        fl_conduct(server, &input);
    } else if (status != FL_OK) {
        fl_log(FL_LOG_ERROR, "cohort_failed", error.text);
        seat->owed = true;
    } else if (server->stage) {
        struct fl_wire message = fl_send_about(server, FL_WIRE_COHORT);
        message.as.cohort.adverts = (struct fl_wire_bytes){adverts.data, adverts.length};
        message.as.cohort.plan = (struct fl_wire_bytes){plan.data, plan.length};
        fl_seat_send(server, seat, &message);
    }
    fl_buf_free(&adverts);
    fl_buf_free(&plan);
}

/* ---- shares ---- */

void fl_masks_take_shares(struct fl_server *server, struct fl_seat *seat,
                          const struct fl_wire *message)
{
    struct fl_error error;
    struct fl_masks *masks;
    const struct fl_member *m = fl_round_find(server->round, seat->site);
    const struct fl_wire_bytes *sealed = &message->as.shares.sealed;
    if (server->round->state != FL_ROUND_SHARES || !m || !m->advertised || m->shared || m->failed) {
        fl_send_due(server, seat);
        return;
    }
    if (need_cohort(server, &masks, &error) != FL_OK) {
        fl_log(FL_LOG_ERROR, "cohort_failed", error.text);
        return;
    }
    if (sealed->length != (size_t)masks->cohort.count * FL_SECAGG_SEALED_SHARE_BYTES) {
        reject(server, seat, message, "its shares are not one for each member");
        return;
    }
    struct row_keep row = {seat->site, MASK_SHARES, sealed->data, sealed->length};
    const struct fl_round_input input = {.event = FL_EVENT_SHARED, .site = seat->site};
    fl_conduct_also(server, &input, keep_row, &row);
}

static void take_shares_row(struct fl_masks *masks, uint32_t site, const uint8_t *bytes,
                            size_t length, void *to)
{
    uint32_t n = masks->cohort.count, member = member_of(masks, site);
    (void)to;
    if (member != UINT32_MAX && length == (size_t)n * FL_SECAGG_SEALED_SHARE_BYTES)
        memcpy(masks->sealed + (size_t)member * length, bytes, length);
}

static enum fl_status need_sealed(struct fl_server *server, struct fl_masks *masks,
                                  struct fl_error *error)
{
    if (masks->sealed)
        return FL_OK;
    size_t row = (size_t)masks->cohort.count * FL_SECAGG_SEALED_SHARE_BYTES;
    fl_free(masks->column);
    masks->column = fl_calloc(1, row + FL_SECAGG_SITES_MAX);
    masks->sealed = fl_calloc(masks->cohort.count, row);
    struct row_read read = {masks, take_shares_row, NULL};
    enum fl_status status = masks->column && masks->sealed
                                ? read_rows(server, MASK_SHARES, &read, error)
                                : fl_fail_memory(error);
    if (status != FL_OK) {
        fl_free(masks->sealed);
        masks->sealed = NULL;
    }
    return status;
}

enum fl_status fl_masks_fill_collect(struct fl_server *server, const struct fl_seat *seat,
                                     struct fl_wire_collect *out, struct fl_error *error)
{
    struct fl_masks *masks;
    struct fl_secagg_set sharers;
    enum fl_status status = need_cohort(server, &masks, error);
    if (status == FL_OK)
        status = need_sealed(server, masks, error);
    if (status != FL_OK)
        return status;
    uint32_t n = masks->cohort.count, own = member_of(masks, seat->site);
    size_t shares = (size_t)n * FL_SECAGG_SEALED_SHARE_BYTES;
    if (own == UINT32_MAX)
        return fl_fail(error, FL_EINVAL, "%s is not in the cohort", seat->name);
    fill_set(server, masks, SET_SHARERS, &sharers);
    for (uint32_t u = 0; u < n; u++)
        memcpy(masks->column + (size_t)u * FL_SECAGG_SEALED_SHARE_BYTES,
               masks->sealed + (size_t)u * shares + (size_t)own * FL_SECAGG_SEALED_SHARE_BYTES,
               FL_SECAGG_SEALED_SHARE_BYTES);
    out->shares = (struct fl_wire_bytes){masks->column, shares};
    out->sharers = set_bytes(&sharers, n, masks->column + shares);
    return FL_OK;
}

/* ---- whose shares opened ---- */

bool fl_masks_note_opened(struct fl_server *server, const struct fl_seat *seat,
                          const struct fl_wire *message)
{
    struct fl_error error;
    struct fl_masks *masks;
    const struct fl_wire_bytes *list = &message->as.upload.opened;
    if (need_cohort(server, &masks, &error) != FL_OK) {
        fl_log(FL_LOG_ERROR, "cohort_failed", error.text);
        return true; /* the update waits for its second announcement */
    }
    uint32_t member = member_of(masks, seat->site);
    if (member == UINT32_MAX || list->length != masks->cohort.count || list->data[member] != 1)
        return false;
    for (uint32_t i = 0; i < masks->cohort.count; i++)
        masks->opened[member].has[i] = list->data[i] == 1;
    masks->said_opened.has[member] = true;
    return true;
}

void fl_masks_take_update(struct fl_server *server, uint32_t site)
{
    uint8_t bytes[FL_SECAGG_SITES_MAX];
    struct fl_masks *masks = masks_of(server);
    uint32_t member = masks && masks->has_cohort ? member_of(masks, site) : UINT32_MAX;
    struct fl_seat *seat = fl_seat_of(server, site);
    if (member == UINT32_MAX || !masks->said_opened.has[member]) {
        if (seat) /* memory was short: it is asked once more */
            seat->retry_ms = fl_server_now(server) + FL_ROUND_RETRY_MS;
        return;
    }
    (void)set_bytes(&masks->opened[member], masks->cohort.count, bytes);
    struct row_keep row = {site, MASK_OPENED, bytes, masks->cohort.count};
    const struct fl_round_input input = {.event = FL_EVENT_UPLOADED, .site = site};
    fl_conduct_also(server, &input, keep_row, &row);
}

static void take_opened_row(struct fl_masks *masks, uint32_t site, const uint8_t *bytes,
                            size_t length, void *to)
{
    uint32_t member = member_of(masks, site);
    (void)to;
    for (uint32_t i = 0; member != UINT32_MAX && i < length && i < masks->cohort.count; i++)
        masks->opened[member].has[i] = bytes[i] == 1;
}

/* true: the attempt goes on */
static bool check_opened(struct fl_server *server)
{
    struct fl_error error;
    struct fl_masks *masks;
    struct fl_secagg_set sharers, survivors;
    struct fl_dispute dispute;
    uint32_t sites[FL_SECAGG_SITES_MAX], count = 0;
    enum fl_status status = need_cohort(server, &masks, &error);
    struct row_read read = {masks, take_opened_row, NULL};
    if (status == FL_OK)
        status = read_rows(server, MASK_OPENED, &read, &error);
    if (status != FL_OK) {
        fl_log(FL_LOG_ERROR, "cohort_failed", error.text);
        return true; /* the sum will show it */
    }
    fill_set(server, masks, SET_SHARERS, &sharers);
    fill_set(server, masks, SET_SURVIVORS, &survivors);
    if (fl_dispute_settle(masks->cohort.count, &sharers, &survivors, masks->opened, &dispute))
        return true;
    for (uint32_t i = 0; i < masks->cohort.count; i++) {
        const char *name = masks->cohort.adverts[i].name;
        if (dispute.guilty.has[i])
            fl_log(FL_LOG_WARN, "site_blamed", "its shares do not open, or it denies good ones",
                   FL_STR("worker", name), FL_I64("job", server->job.id),
                   FL_U64("round", server->round->round));
        else if (dispute.suspect.has[i])
            fl_log(FL_LOG_WARN, "site_left_out",
                   "it or another site lies about shares that did not open", FL_STR("worker", name),
                   FL_I64("job", server->job.id), FL_U64("round", server->round->round));
        if (dispute.guilty.has[i] || dispute.suspect.has[i])
            sites[count++] = masks->sites[i];
    }
    const struct fl_round_input input = {.event = FL_EVENT_UNMASK_FAILED,
                                         .reason = "the shares of a site opened at too few others",
                                         .leave_out = sites,
                                         .leave_out_count = count};
    fl_conduct(server, &input);
    return false;
}

/* ---- survivors ---- */

void fl_masks_check_survivors(struct fl_server *server)
{
    char reason[FL_REASON_BYTES];
    struct fl_rank_plan plan = {0};
    const struct fl_stage *stage = server->stage;
    uint32_t rows[FL_SECAGG_SITES_MAX], count = 0;
    if (!check_opened(server) || !stage || stage->layout->factors == FL_FACTORS_NONE ||
        stage->count > FL_SECAGG_SITES_MAX)
        return;
    for (uint32_t i = 0; i < stage->count; i++) {
        const struct fl_member *m = fl_round_find(server->round, stage->sites[i]);
        if (m && m->uploaded)
            rows[count++] = i;
    }
    if (fl_rank_plan_select(&stage->layout->ranks, rows, count, &plan) != FL_OK)
        return; /* the sites hold it against their own knowledge in any case */
    uint32_t thinnest = fl_rank_plan_thinnest(&plan);
    fl_rank_plan_free(&plan);
    if (thinnest >= FL_SECAGG_SITES_MIN)
        return;
    (void)snprintf(reason, sizeof reason,
                   "thin tier: only %u of %u survivors trained the highest rank of a module, %d "
                   "are needed",
                   thinnest, count, FL_SECAGG_SITES_MIN);
    const struct fl_round_input input = {.event = FL_EVENT_UNMASK_FAILED, .reason = reason};
    fl_conduct(server, &input);
}

void fl_masks_send_survivors(struct fl_server *server, struct fl_seat *seat)
{
    struct fl_error error;
    struct fl_masks *masks;
    struct fl_secagg_set survivors;
    uint8_t bytes[FL_SECAGG_SITES_MAX];
    if (need_cohort(server, &masks, &error) != FL_OK) {
        fl_log(FL_LOG_ERROR, "cohort_failed", error.text);
        seat->owed = true;
        return;
    }
    fill_set(server, masks, SET_SURVIVORS, &survivors);
    struct fl_wire message = fl_send_about(server, FL_WIRE_SURVIVORS);
    message.as.survivors.survivors = set_bytes(&survivors, masks->cohort.count, bytes);
    fl_seat_send(server, seat, &message);
}

static void take_signature_row(struct fl_masks *masks, uint32_t site, const uint8_t *bytes,
                               size_t length, void *to)
{
    uint32_t member = member_of(masks, site);
    (void)to;
    if (member != UINT32_MAX && length == FL_SIGNATURE_BYTES)
        memcpy(masks->signatures[member], bytes, length);
}

static enum fl_status need_signatures(struct fl_server *server, struct fl_masks **out,
                                      struct fl_error *error)
{
    enum fl_status status = need_cohort(server, out, error);
    if (status != FL_OK || (*out)->has_signatures)
        return status;
    struct row_read read = {*out, take_signature_row, NULL};
    status = read_rows(server, MASK_SIGNATURE, &read, error);
    (*out)->has_signatures = status == FL_OK;
    return status;
}

void fl_masks_take_signed(struct fl_server *server, struct fl_seat *seat,
                          const struct fl_wire *message)
{
    struct fl_error error;
    struct fl_masks *masks;
    struct fl_secagg_set survivors;
    const struct fl_member *m = fl_round_find(server->round, seat->site);
    const uint8_t *signature = message->as.signed_.signature;
    if (server->round->state != FL_ROUND_UNMASK || !m || !m->uploaded || m->signed_ || m->failed) {
        fl_send_due(server, seat);
        return;
    }
    if (need_signatures(server, &masks, &error) != FL_OK) {
        fl_log(FL_LOG_ERROR, "cohort_failed", error.text);
        return;
    }
    uint32_t member = member_of(masks, seat->site);
    fill_set(server, masks, SET_SURVIVORS, &survivors);
    if (fl_secagg_verify_survivors(&masks->cohort, member, &survivors, signature) != FL_OK) {
        reject(server, seat, message, "its signature under the survivors is not good");
        return;
    }
    memcpy(masks->signatures[member], signature, FL_SIGNATURE_BYTES);
    struct row_keep row = {seat->site, MASK_SIGNATURE, signature, FL_SIGNATURE_BYTES};
    const struct fl_round_input input = {.event = FL_EVENT_SIGNED, .site = seat->site};
    fl_conduct_also(server, &input, keep_row, &row);
}

void fl_masks_send_unmask(struct fl_server *server, struct fl_seat *seat)
{
    struct fl_error error;
    struct fl_masks *masks;
    struct fl_secagg_set survivors, signed_by;
    uint8_t bytes[2][FL_SECAGG_SITES_MAX];
    if (need_signatures(server, &masks, &error) != FL_OK) {
        fl_log(FL_LOG_ERROR, "cohort_failed", error.text);
        seat->owed = true;
        return;
    }
    uint32_t n = masks->cohort.count;
    fill_set(server, masks, SET_SURVIVORS, &survivors);
    fill_set(server, masks, SET_SIGNED, &signed_by);
    struct fl_wire message = fl_send_about(server, FL_WIRE_UNMASK);
    message.as.unmask.survivors = set_bytes(&survivors, n, bytes[0]);
    message.as.unmask.signed_by = set_bytes(&signed_by, n, bytes[1]);
    message.as.unmask.signatures = (struct fl_wire_bytes){masks->signatures[0],
                                                          (size_t)n * FL_SIGNATURE_BYTES};
    fl_seat_send(server, seat, &message);
}

/* ---- answers ---- */

void fl_masks_take_answer(struct fl_server *server, struct fl_seat *seat,
                          const struct fl_wire *message)
{
    struct fl_error error;
    struct fl_masks *masks;
    uint32_t own;
    const struct fl_member *m = fl_round_find(server->round, seat->site);
    const struct fl_wire_bytes *answer = &message->as.answer.answer;
    if (server->round->state != FL_ROUND_UNMASK || !m || !m->signed_ || m->answered || m->failed) {
        fl_send_due(server, seat);
        return;
    }
    if (need_cohort(server, &masks, &error) != FL_OK) {
        fl_log(FL_LOG_ERROR, "cohort_failed", error.text);
        return;
    }
    if (answer->length != (size_t)masks->cohort.count * FL_SCALAR_BYTES) {
        reject(server, seat, message, "its answer is not one share for each member");
        return;
    }
    own = member_of(masks, seat->site);
    if (own == UINT32_MAX ||
        sodium_is_zero(answer->data + (size_t)own * FL_SCALAR_BYTES, FL_SCALAR_BYTES)) {
        reject(server, seat, message, "its answer lacks its share of its own secret");
        return;
    }
    struct row_keep row = {seat->site, MASK_ANSWER, answer->data, answer->length};
    const struct fl_round_input input = {.event = FL_EVENT_ANSWERED, .site = seat->site};
    fl_conduct_also(server, &input, keep_row, &row);
}

static void take_answer_row(struct fl_masks *masks, uint32_t site, const uint8_t *bytes,
                            size_t length, void *to)
{
    struct fl_unmask_request *request = to;
    uint32_t member = member_of(masks, site);
    if (member != UINT32_MAX && length == (size_t)masks->cohort.count * FL_SCALAR_BYTES)
        memcpy(request->answers + (size_t)member * length, bytes, length);
}

enum fl_status fl_masks_request(struct fl_server *server, struct fl_unmask_request **out,
                                struct fl_error *error)
{
    struct fl_masks *masks;
    *out = NULL;
    enum fl_status status = need_cohort(server, &masks, error);
    if (status != FL_OK)
        return status;
    struct fl_unmask_request *request = fl_calloc(1, sizeof *request);
    if (!request)
        return fl_fail_memory(error);
    request->context = masks->context;
    request->cohort = masks->cohort;
    request->blamed = UINT32_MAX;
    fill_set(server, masks, SET_SHARERS, &request->sharers);
    fill_set(server, masks, SET_SURVIVORS, &request->survivors);
    fill_set(server, masks, SET_ANSWERED, &request->answered);
    request->answers = fl_calloc(masks->cohort.count,
                                 (size_t)masks->cohort.count * FL_SCALAR_BYTES);
    struct row_read read = {masks, take_answer_row, request};
    status = request->answers ? read_rows(server, MASK_ANSWER, &read, error)
                              : fl_fail_memory(error);
    if (status == FL_OK)
        *out = request;
    else
        fl_unmask_request_free(request);
    return status;
}

const char *fl_masks_name(const struct fl_unmask_request *request, uint32_t member)
{
    return member < request->cohort.count ? request->cohort.adverts[member].name : "";
}

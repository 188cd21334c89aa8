/*
 * wire_decode.c - decoding: one bounded arena a frame, then presence, length, range, enum and text
 * checks of every field, then our own structs. A field that is not listed here is never looked at.
 */
#include "proto/wire.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "fedlora.pb-c.h"
#include "proto/wire_internal.h"

/* ---- the arena: protobuf-c may take no more than this, whatever the frame says ---- */

struct arena {
    size_t used, capacity;
    max_align_t data[];
};

static void *arena_alloc(void *context, size_t bytes)
{
    struct arena *arena = context;
    size_t rounded = (bytes + sizeof(max_align_t) - 1) & ~(sizeof(max_align_t) - 1);
    if (rounded < bytes || rounded > arena->capacity - arena->used)
        return NULL;
    void *block = (uint8_t *)arena->data + arena->used;
    arena->used += rounded;
    return block;
}

static void arena_free(void *context, void *block)
{
    (void)context;
    (void)block;
}

static struct arena *arena_create(size_t frame_bytes)
{
    size_t capacity = frame_bytes + 16384;
    if (frame_bytes <= FL_CONTROL_BYTES_MAX)
        capacity += 3 * frame_bytes; /* small fields cost more in memory than on the wire */
    struct arena *arena = fl_malloc(sizeof(*arena) + capacity);
    if (arena) {
        arena->used = 0;
        arena->capacity = capacity & ~(sizeof(max_align_t) - 1);
    }
    return arena;
}

/* ---- checked reads: the first failure is remembered, later ones change nothing ---- */

struct reader {
    const char *bad; /* name of the first bad field, NULL while all is well */
};

static void fail_if(struct reader *r, bool wrong, const char *field)
{
    if (wrong && !r->bad)
        r->bad = field;
}

static void get_exact(struct reader *r, const ProtobufCBinaryData *from, void *to, size_t length,
                      const char *field)
{
    fail_if(r, from->len != length, field);
    if (from->len == length)
        memcpy(to, from->data, length);
}

static bool get_optional(struct reader *r, const ProtobufCBinaryData *from, void *to, size_t length,
                         const char *field)
{
    if (from->len == 0)
        return false;
    get_exact(r, from, to, length, field);
    return true;
}

static struct fl_wire_bytes get_bytes(struct reader *r, const ProtobufCBinaryData *from,
                                      size_t unit, size_t maximum, const char *field)
{
    fail_if(r, from->len % unit != 0 || from->len / unit > maximum, field);
    return (struct fl_wire_bytes){.data = from->data, .length = from->len};
}

static void get_text(struct reader *r, const char *from, char *to, size_t bytes, const char *field)
{
    fail_if(r, strnlen(from, bytes) >= bytes, field);
    fl_wire_set_text(to, bytes, from);
}

static void get_name(struct reader *r, const char *from, char to[FL_NAME_BYTES], const char *field)
{
    fail_if(r, !fl_wire_valid_name(from), field);
    fl_wire_set_text(to, FL_NAME_BYTES, from);
}

static uint32_t get_u32(struct reader *r, uint32_t value, uint32_t low, uint32_t high,
                        const char *field)
{
    fail_if(r, value < low || value > high, field);
    return value;
}

static uint64_t get_u64(struct reader *r, uint64_t value, uint64_t high, const char *field)
{
    fail_if(r, value > high, field);
    return value;
}

static double get_double(struct reader *r, double value, double low, double high, const char *field)
{
    fail_if(r, !isfinite(value) || value < low || value > high, field);
    return value;
}

static struct fl_object_ref get_object(struct reader *r, const Fedlora__Pb__ObjectRef *from,
                                       const char *field)
{
    struct fl_object_ref ref = {.size = 0};
    fail_if(r, !from, field);
    if (from) {
        get_exact(r, &from->root, ref.root, FL_HASH_BYTES, field);
        ref.size = get_u64(r, from->size, FL_ADAPTER_BYTES_MAX, field);
    }
    return ref;
}

/* One byte a member, 0 or 1. */
static struct fl_wire_bytes get_set(struct reader *r, const ProtobufCBinaryData *from,
                                    const char *field)
{
    struct fl_wire_bytes set = get_bytes(r, from, 1, FL_COHORT_MAX, field);
    for (size_t i = 0; i < set.length && !r->bad; i++)
        fail_if(r, set.data[i] > 1, field);
    return set;
}

/* As many entries of `unit` bytes as members. */
static struct fl_wire_bytes get_list(struct reader *r, const ProtobufCBinaryData *from, size_t unit,
                                     size_t members, const char *field)
{
    struct fl_wire_bytes list = get_bytes(r, from, unit, FL_COHORT_MAX, field);
    fail_if(r, list.length != unit * members, field);
    return list;
}

#define COUNT_MAX  1000000000u /* steps, tokens of one row and the like */
#define MS_MAX     2000000000u /* about 23 days */
#define TOKENS_MAX (1ull << 50)

/* ---- one function a message ---- */

static void read_join(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    const Fedlora__Pb__Join *from = e->join;
    struct fl_wire_join *to = &m->as.join;
    m->kind = FL_WIRE_JOIN;
    get_exact(r, &from->invitation, to->invitation, sizeof(to->invitation), "invitation");
    get_name(r, from->name, to->name, "name");
    get_exact(r, &from->x25519, to->x25519, sizeof(to->x25519), "x25519");
    get_exact(r, &from->ed25519, to->ed25519, sizeof(to->ed25519), "ed25519");
    get_exact(r, &from->mac, to->mac, sizeof(to->mac), "mac");
    get_exact(r, &from->signature, to->signature, sizeof(to->signature), "signature");
}

static void read_join_answer(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    const Fedlora__Pb__JoinAnswer *from = e->join_answer;
    struct fl_wire_join_answer *to = &m->as.join_answer;
    m->kind = FL_WIRE_JOIN_ANSWER;
    to->accepted = from->accepted;
    if (to->accepted)
        get_name(r, from->name, to->name, "name");
    get_text(r, from->reason, to->reason, sizeof(to->reason), "reason");
}

static void read_hello(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    const Fedlora__Pb__Hello *from = e->hello;
    struct fl_wire_hello *to = &m->as.hello;
    m->kind = FL_WIRE_HELLO;
    get_exact(r, &from->instance, to->instance, sizeof(to->instance), "instance");
    get_text(r, from->software, to->software, sizeof(to->software), "software");
    to->last_job = from->last_job;
    to->last_round = from->last_round;
    to->last_attempt = from->last_attempt;
    to->has_last_version = get_optional(r, &from->last_version, to->last_version, FL_HASH_BYTES,
                                        "last_version");
}

static void read_welcome(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    const Fedlora__Pb__Welcome *from = e->welcome;
    struct fl_wire_welcome *to = &m->as.welcome;
    m->kind = FL_WIRE_WELCOME;
    get_exact(r, &from->nonce, to->nonce, FL_NONCE_BYTES, "nonce");
    get_name(r, from->name, to->name, "name");
    to->heartbeat_ms = get_u32(r, from->heartbeat_ms, 10, MS_MAX, "heartbeat_ms");
    to->liveness_ms = get_u32(r, from->liveness_ms, 10, MS_MAX, "liveness_ms");
}

static void read_heartbeat(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    const Fedlora__Pb__Heartbeat *from = e->heartbeat;
    struct fl_wire_heartbeat *to = &m->as.heartbeat;
    m->kind = FL_WIRE_HEARTBEAT;
    to->activity = get_u32(r, from->activity, 0, FL_ACTIVITY_COUNT - 1, "activity");
    to->step = get_u32(r, from->step, 0, COUNT_MAX, "step");
    to->steps = get_u32(r, from->steps, 0, COUNT_MAX, "steps");
    to->tokens_per_second = get_double(r, from->tokens_per_second, 0.0, 1e15, "tokens_per_second");
}

static void read_goodbye(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    struct fl_wire_goodbye *to = &m->as.goodbye;
    m->kind = FL_WIRE_GOODBYE;
    to->reason = get_u32(r, e->goodbye->reason, 0, FL_GOODBYE_COUNT - 1, "reason");
    get_text(r, e->goodbye->text, to->text, sizeof(to->text), "text");
    to->wait_ms = get_u32(r, e->goodbye->wait_ms, 0, MS_MAX, "wait_ms");
}

static void read_offer_training(struct reader *r, const Fedlora__Pb__Offer *from,
                                struct fl_wire_offer *to)
{
    to->steps = get_u32(r, from->steps, 1, COUNT_MAX, "steps");
    to->batch_size = get_u32(r, from->batch_size, 1, COUNT_MAX, "batch_size");
    to->seq_len = get_u32(r, from->seq_len, 2, FL_SEQ_MAX, "seq_len");
    to->lr = get_double(r, from->lr, 0.0, 1e6, "lr");
    to->lr_a = get_double(r, from->lr_a, 0.0, 1e6, "lr_a");
    to->lr_b = get_double(r, from->lr_b, 0.0, 1e6, "lr_b");
    to->schedule = get_u32(r, from->schedule, 0, FL_WIRE_SCHEDULE_COUNT - 1, "schedule");
    to->warmup = get_u64(r, from->warmup, TOKENS_MAX, "warmup");
    to->weight_decay = get_double(r, from->weight_decay, 0.0, 1e6, "weight_decay");
    to->grad_clip = get_double(r, from->grad_clip, 0.0, 1e9, "grad_clip");
    to->shuffle = from->shuffle;
    to->compute = get_u32(r, from->compute, 0, FL_WIRE_COMPUTE_COUNT - 1, "compute");
    to->threads = get_u32(r, from->threads, 0, 4096, "threads");
    to->optimizer = get_u32(r, from->optimizer, 0, FL_WIRE_OPTIMIZER_COUNT - 1, "optimizer");
}

static void read_offer(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    const Fedlora__Pb__Offer *from = e->offer;
    struct fl_wire_offer *to = &m->as.offer;
    m->kind = FL_WIRE_OFFER;
    get_name(r, from->name, to->name, "name");
    get_name(r, from->model, to->model, "model");
    get_exact(r, &from->manifest, to->manifest, FL_HASH_BYTES, "manifest");
    get_name(r, from->strategy, to->strategy, "strategy");
    to->rounds = get_u32(r, from->rounds, 1, COUNT_MAX, "rounds");
    to->seed = from->seed;
    get_text(r, from->targets, to->targets, sizeof(to->targets), "targets");
    to->alpha = get_double(r, from->alpha, 1e-12, 1e12, "alpha");
    to->rank_default = get_u32(r, from->rank_default, 1, FL_RANK_MAX, "rank_default");
    to->rank_max = get_u32(r, from->rank_max, 1, FL_RANK_MAX, "rank_max");
    to->dropout = get_double(r, from->dropout, 0.0, 0.999, "dropout");
    read_offer_training(r, from, to);
    to->min_workers = get_u32(r, from->min_workers, 1, FL_WORKERS_MAX, "min_workers");
    to->secure_aggregation = from->secure_aggregation;
    to->update_range = get_double(r, from->update_range, 0.0, 1e12, "update_range");
    to->clip_norm = get_double(r, from->clip_norm, 0.0, 1e12, "clip_norm");
    to->weight_cap = get_u64(r, from->weight_cap, TOKENS_MAX, "weight_cap");
    fail_if(r, to->weight_cap == 0, "weight_cap");
    to->evaluate_every = get_u32(r, from->evaluate_every, 0, COUNT_MAX, "evaluate_every");
    to->evaluate_rows = get_u32(r, from->evaluate_rows, 0, COUNT_MAX, "evaluate_rows");
    get_exact(r, &from->job_hash, to->job_hash, FL_HASH_BYTES, "job_hash");
    to->liveness_ms = get_u32(r, from->liveness_ms, 10, MS_MAX, "liveness_ms");
    to->retraining = get_u32(r, from->retraining, 0, FL_RETRAININGS_MAX, "retraining");
    to->dora = from->dora;
}

static void read_fit(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    const Fedlora__Pb__Fit *from = e->fit;
    struct fl_wire_fit *to = &m->as.fit;
    m->kind = FL_WIRE_FIT;
    to->verdict = get_u32(r, from->verdict, 0, FL_VERDICT_COUNT - 1, "verdict");
    to->code = get_u32(r, from->code, 0, FL_REFUSAL_COUNT - 1, "code");
    get_text(r, from->reason, to->reason, sizeof(to->reason), "reason");
    to->retry_after_ms = get_u32(r, from->retry_after_ms, 0, MS_MAX, "retry_after_ms");
    to->has_manifest = get_optional(r, &from->manifest, to->manifest, FL_HASH_BYTES, "manifest");
    to->has_inventory = from->inventory != NULL;
    if (to->has_inventory)
        to->inventory = get_object(r, from->inventory, "inventory");
    fail_if(r, to->verdict == FL_VERDICT_FIT && !to->has_manifest, "manifest");
    fail_if(r, to->verdict == FL_VERDICT_FIT && !to->has_inventory, "inventory");
}

static void read_task(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    const Fedlora__Pb__Task *from = e->task;
    struct fl_wire_task *to = &m->as.task;
    m->kind = FL_WIRE_TASK;
    to->start = get_object(r, from->start, "start");
    to->version = get_u32(r, from->version, 0, COUNT_MAX, "version");
    get_exact(r, &from->version_hash, to->version_hash, FL_HASH_BYTES, "version_hash");
    to->global_ranks = get_bytes(r, &from->global_ranks, 2, FL_MODULES_MAX, "global_ranks");
    to->site_ranks = get_bytes(r, &from->site_ranks, 2, FL_MODULES_MAX, "site_ranks");
    fail_if(r, to->global_ranks.length == 0, "global_ranks");
    fail_if(r, to->site_ranks.length != to->global_ranks.length, "site_ranks");
    to->train_a = from->train_a;
    to->train_b = from->train_b;
    to->train = from->train;
    to->evaluate = from->evaluate;
    fail_if(r, to->train && !to->train_a && !to->train_b, "train");
    fail_if(r, !to->train && !to->evaluate, "train");
    to->first_step = get_u64(r, from->first_step, TOKENS_MAX, "first_step");
    to->total_steps = get_u64(r, from->total_steps, TOKENS_MAX, "total_steps");
}

static void read_trained(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    const Fedlora__Pb__Trained *from = e->trained;
    struct fl_wire_trained *to = &m->as.trained;
    m->kind = FL_WIRE_TRAINED;
    to->steps = get_u32(r, from->steps, 0, COUNT_MAX, "steps");
    to->seconds = get_double(r, from->seconds, 0.0, 1e12, "seconds");
    to->share_eval = from->share_eval;
    to->eval_loss_sum = get_double(r, from->eval_loss_sum, 0.0, 1e15, "eval_loss_sum");
    to->eval_tokens = get_u64(r, from->eval_tokens, TOKENS_MAX, "eval_tokens");
}

static void read_collect(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    struct fl_wire_collect *to = &m->as.collect;
    m->kind = FL_WIRE_COLLECT;
    to->cohort = get_u32(r, e->collect->cohort, 1, FL_WORKERS_MAX, "cohort");
    to->tiers = get_bytes(r, &e->collect->tiers, 1, FL_TIERS_MAX, "tiers");
    for (size_t i = 0; i < to->tiers.length; i++)
        fail_if(r, to->tiers.data[i] > 1, "tiers");
    get_exact(r, &e->collect->sealing_key, to->sealing_key, sizeof(to->sealing_key), "sealing_key");
    to->sharers = get_set(r, &e->collect->sharers, "sharers");
    to->shares = get_list(r, &e->collect->shares, FL_WIRE_SHARE_BYTES, to->sharers.length,
                          "shares");
}

static void read_upload(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    m->kind = FL_WIRE_UPLOAD;
    m->as.upload.update = get_object(r, e->upload->update, "update");
    m->as.upload.opened = get_set(r, &e->upload->opened, "opened");
}

static void read_receipt(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    struct fl_wire_receipt *to = &m->as.receipt;
    m->kind = FL_WIRE_RECEIPT;
    to->status = get_u32(r, e->receipt->status, 0, FL_RECEIPT_COUNT - 1, "status");
    get_text(r, e->receipt->reason, to->reason, sizeof(to->reason), "reason");
}

static void read_failed(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    struct fl_wire_failed *to = &m->as.failed;
    m->kind = FL_WIRE_FAILED;
    to->permanent = e->failed->permanent;
    to->code = get_u32(r, e->failed->code, 0, FL_REFUSAL_COUNT - 1, "code");
    get_text(r, e->failed->reason, to->reason, sizeof(to->reason), "reason");
    to->retry_after_ms = get_u32(r, e->failed->retry_after_ms, 0, MS_MAX, "retry_after_ms");
}

static void read_version(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    const Fedlora__Pb__Version *from = e->version;
    struct fl_wire_version *to = &m->as.version;
    m->kind = FL_WIRE_VERSION;
    to->version = get_u32(r, from->version, 0, COUNT_MAX, "version");
    to->adapter = get_object(r, from->adapter, "adapter");
    get_exact(r, &from->sha256, to->sha256, FL_HASH_BYTES, "sha256");
    to->ranks = get_bytes(r, &from->ranks, 2, FL_MODULES_MAX, "ranks");
    to->workers = get_u32(r, from->workers, 0, FL_WORKERS_MAX, "workers");
    to->has_eval = from->has_eval;
    to->eval_loss = get_double(r, from->eval_loss, 0.0, 1e15, "eval_loss");
    to->eval_tokens = get_u64(r, from->eval_tokens, TOKENS_MAX, "eval_tokens");
    to->last = from->last;
}

static void read_job_end(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    struct fl_wire_job_end_message *to = &m->as.job_end;
    m->kind = FL_WIRE_JOB_END;
    to->state = get_u32(r, e->job_end->state, 0, FL_JOB_END_COUNT - 1, "state");
    get_text(r, e->job_end->reason, to->reason, sizeof(to->reason), "reason");
    to->version = get_u32(r, e->job_end->version, 0, COUNT_MAX, "version");
}

static void read_need(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    struct fl_wire_need *to = &m->as.need;
    m->kind = FL_WIRE_NEED;
    get_exact(r, &e->need->root, to->root, FL_HASH_BYTES, "root");
    to->pages = e->need->pages;
    to->first = e->need->first;
    to->count = get_u32(r, e->need->count, 1, 64, "count");
}

static void read_page(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    const Fedlora__Pb__Page *from = e->page;
    struct fl_wire_page *to = &m->as.page;
    m->kind = FL_WIRE_PAGE;
    get_exact(r, &from->root, to->root, FL_HASH_BYTES, "root");
    to->index = from->index;
    to->hashes = get_bytes(r, &from->hashes, FL_HASH_BYTES, FL_PAGE_HASHES_MAX, "hashes");
    to->size = get_u64(r, from->size, FL_ADAPTER_BYTES_MAX, "size");
    to->chunk_count = from->chunk_count;
}

static void read_chunk(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    struct fl_wire_chunk *to = &m->as.chunk;
    m->kind = FL_WIRE_CHUNK;
    get_exact(r, &e->chunk->root, to->root, FL_HASH_BYTES, "root");
    to->index = e->chunk->index;
    to->data = get_bytes(r, &e->chunk->data, 1, FL_CHUNK_BYTES, "data");
    fail_if(r, to->data.length == 0, "data");
}

static void read_missing(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    m->kind = FL_WIRE_MISSING;
    get_exact(r, &e->missing->root, m->as.missing.root, FL_HASH_BYTES, "root");
}

/* ---- secure aggregation ---- */

static void read_keys(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    (void)r;
    (void)e;
    m->kind = FL_WIRE_KEYS;
}

static void read_advert(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    m->kind = FL_WIRE_ADVERT;
    get_exact(r, &e->advert->advert, m->as.advert.advert, FL_WIRE_ADVERT_BYTES, "advert");
}

static void read_cohort(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    m->kind = FL_WIRE_COHORT;
    m->as.cohort.adverts = get_bytes(r, &e->cohort->adverts, FL_WIRE_ADVERT_BYTES, FL_COHORT_MAX,
                                     "adverts");
    m->as.cohort.plan = get_bytes(r, &e->cohort->plan, 1, FL_WIRE_PLAN_BYTES_MAX, "plan");
}

static void read_shares(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    m->kind = FL_WIRE_SHARES;
    m->as.shares.sealed = get_bytes(r, &e->shares->sealed, FL_WIRE_SHARE_BYTES, FL_COHORT_MAX,
                                    "sealed");
}

static void read_survivors(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    m->kind = FL_WIRE_SURVIVORS;
    m->as.survivors.survivors = get_set(r, &e->survivors->survivors, "survivors");
}

static void read_signed(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    m->kind = FL_WIRE_SIGNED;
    get_exact(r, &e->signed_->signature, m->as.signed_.signature, FL_WIRE_SIGNATURE_BYTES,
              "signature");
}

static void read_unmask(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    struct fl_wire_unmask *to = &m->as.unmask;
    m->kind = FL_WIRE_UNMASK;
    to->survivors = get_set(r, &e->unmask->survivors, "survivors");
    to->signed_by = get_set(r, &e->unmask->signed_by, "signed_by");
    fail_if(r, to->signed_by.length != to->survivors.length, "signed_by");
    to->signatures = get_list(r, &e->unmask->signatures, FL_WIRE_SIGNATURE_BYTES,
                              to->survivors.length, "signatures");
}

static void read_answer(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    m->kind = FL_WIRE_ANSWER;
    m->as.answer.answer = get_bytes(r, &e->answer->answer, FL_WIRE_SCALAR_BYTES, FL_COHORT_MAX,
                                    "answer");
}

static void read_recall(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    m->kind = FL_WIRE_RECALL;
    m->as.recall.after = get_u32(r, e->recall->after, 0, COUNT_MAX, "after");
}

static void read_recalled(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m)
{
    const Fedlora__Pb__Recalled *from = e->recalled;
    struct fl_wire_recalled *to = &m->as.recalled;
    m->kind = FL_WIRE_RECALLED;
    to->version = get_u32(r, from->version, 0, COUNT_MAX, "version");
    if (to->version == 0)
        return;
    get_exact(r, &from->sha256, to->sha256, FL_HASH_BYTES, "sha256");
    to->adapter = get_object(r, from->adapter, "adapter");
    to->left = get_u32(r, from->left, 0, FL_RECALLED_MAX - 1, "left");
}

typedef void (*read_function)(struct reader *r, const Fedlora__Pb__Envelope *e, struct fl_wire *m);

static read_function reader_of(Fedlora__Pb__Envelope__BodyCase body)
{
    static const struct {
        Fedlora__Pb__Envelope__BodyCase body;
        read_function read;
    } table[] = {
        {FEDLORA__PB__ENVELOPE__BODY_JOIN, read_join},
        {FEDLORA__PB__ENVELOPE__BODY_JOIN_ANSWER, read_join_answer},
        {FEDLORA__PB__ENVELOPE__BODY_HELLO, read_hello},
        {FEDLORA__PB__ENVELOPE__BODY_WELCOME, read_welcome},
        {FEDLORA__PB__ENVELOPE__BODY_HEARTBEAT, read_heartbeat},
        {FEDLORA__PB__ENVELOPE__BODY_GOODBYE, read_goodbye},
        {FEDLORA__PB__ENVELOPE__BODY_OFFER, read_offer},
        {FEDLORA__PB__ENVELOPE__BODY_FIT, read_fit},
        {FEDLORA__PB__ENVELOPE__BODY_TASK, read_task},
        {FEDLORA__PB__ENVELOPE__BODY_TRAINED, read_trained},
        {FEDLORA__PB__ENVELOPE__BODY_COLLECT, read_collect},
        {FEDLORA__PB__ENVELOPE__BODY_UPLOAD, read_upload},
        {FEDLORA__PB__ENVELOPE__BODY_RECEIPT, read_receipt},
        {FEDLORA__PB__ENVELOPE__BODY_FAILED, read_failed},
        {FEDLORA__PB__ENVELOPE__BODY_VERSION, read_version},
        {FEDLORA__PB__ENVELOPE__BODY_JOB_END, read_job_end},
        {FEDLORA__PB__ENVELOPE__BODY_NEED, read_need},
        {FEDLORA__PB__ENVELOPE__BODY_PAGE, read_page},
        {FEDLORA__PB__ENVELOPE__BODY_CHUNK, read_chunk},
        {FEDLORA__PB__ENVELOPE__BODY_MISSING, read_missing},
        {FEDLORA__PB__ENVELOPE__BODY_KEYS, read_keys},
        {FEDLORA__PB__ENVELOPE__BODY_ADVERT, read_advert},
        {FEDLORA__PB__ENVELOPE__BODY_COHORT, read_cohort},
        {FEDLORA__PB__ENVELOPE__BODY_SHARES, read_shares},
        {FEDLORA__PB__ENVELOPE__BODY_SURVIVORS, read_survivors},
        {FEDLORA__PB__ENVELOPE__BODY_SIGNED, read_signed},
        {FEDLORA__PB__ENVELOPE__BODY_UNMASK, read_unmask},
        {FEDLORA__PB__ENVELOPE__BODY_ANSWER, read_answer},
        {FEDLORA__PB__ENVELOPE__BODY_RECALL, read_recall},
        {FEDLORA__PB__ENVELOPE__BODY_RECALLED, read_recalled},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (table[i].body == body)
            return table[i].read;
    }
    return NULL;
}

static enum fl_status convert(const Fedlora__Pb__Envelope *envelope, size_t length,
                              struct fl_wire *out, struct fl_error *error)
{
    read_function read = reader_of(envelope->body_case);
    if (!read)
        return fl_fail(error, FL_EFORMAT, "a message of a kind that this version does not know");
    struct reader r = {.bad = NULL};
    fail_if(&r, envelope->schema != FL_WIRE_SCHEMA, "schema");
    out->has_nonce = get_optional(&r, &envelope->nonce, out->nonce, FL_NONCE_BYTES, "nonce");
    out->job = envelope->job;
    out->round = envelope->round;
    out->attempt = envelope->attempt;
    read(&r, envelope, out);
    fail_if(&r, out->kind != FL_WIRE_CHUNK && length > FL_CONTROL_BYTES_MAX, "length");
    fail_if(&r, !out->has_nonce && !fl_wire_is_sessionless(out->kind), "nonce");
    if (r.bad)
        return fl_fail(error, FL_EFORMAT, "%s: bad field '%s'", fl_wire_kind_name(out->kind),
                       r.bad);
    return FL_OK;
}

enum fl_status fl_wire_decode(const void *frame, size_t length, struct fl_wire *out,
                              struct fl_error *error)
{
    assert(out);
    memset(out, 0, sizeof(*out));
    if (length == 0 || length > FL_FRAME_BYTES_MAX)
        return fl_fail(error, FL_EFORMAT, "a frame of %zu bytes", length);
    struct arena *arena = arena_create(length);
    if (!arena)
        return fl_fail_memory(error);

    enum fl_status status;
    ProtobufCAllocator allocator = {
        .alloc = arena_alloc, .free = arena_free, .allocator_data = arena};
    Fedlora__Pb__Envelope *envelope = fedlora__pb__envelope__unpack(&allocator, length, frame);
    if (!envelope) {
        status = fl_fail(error, FL_EFORMAT, "a frame of %zu bytes that is no message", length);
        goto out;
    }
    status = convert(envelope, length, out, error);
    if (status != FL_OK)
        goto out;
    out->arena = arena;
    arena = NULL;
out:
    fl_free(arena);
    return status;
}

void fl_wire_free(struct fl_wire *self)
{
    fl_free(self->arena);
    self->arena = NULL;
}

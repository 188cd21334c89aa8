/*
 * wire.c - encoding, and the names of the protocol's constants. Encoding fills generated structs on
 * the stack that borrow from the message, and packs them once into the buffer.
 */
#include "proto/wire.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/name.h"
#include "fedlora.pb-c.h"
#include "proto/wire_internal.h"

typedef Fedlora__Pb__Envelope envelope_t;

/* One generated struct of each kind; only the one in use is touched. */
union bodies {
    Fedlora__Pb__Join join;
    Fedlora__Pb__JoinAnswer join_answer;
    Fedlora__Pb__Hello hello;
    Fedlora__Pb__Welcome welcome;
    Fedlora__Pb__Heartbeat heartbeat;
    Fedlora__Pb__Goodbye goodbye;
    Fedlora__Pb__Offer offer;
    Fedlora__Pb__Fit fit;
    Fedlora__Pb__Task task;
    Fedlora__Pb__Trained trained;
    Fedlora__Pb__Collect collect;
    Fedlora__Pb__Upload upload;
    Fedlora__Pb__Receipt receipt;
    Fedlora__Pb__Failed failed;
    Fedlora__Pb__Version version;
    Fedlora__Pb__JobEnd job_end;
    Fedlora__Pb__Need need;
    Fedlora__Pb__Page page;
    Fedlora__Pb__Chunk chunk;
    Fedlora__Pb__Missing missing;
    Fedlora__Pb__Keys keys;
    Fedlora__Pb__Advert advert;
    Fedlora__Pb__Cohort cohort;
    Fedlora__Pb__Shares shares;
    Fedlora__Pb__Survivors survivors;
    Fedlora__Pb__Signed signed_;
    Fedlora__Pb__Unmask unmask;
    Fedlora__Pb__Answer answer;
    Fedlora__Pb__Recall recall;
    Fedlora__Pb__Recalled recalled;
};

struct packer {
    envelope_t envelope;
    union bodies body;
    Fedlora__Pb__ObjectRef object;
};

/* protobuf-c packs from non-const pointers and writes through none of them. */
static ProtobufCBinaryData bytes_of(const void *data, size_t length)
{
    return (ProtobufCBinaryData){.len = length, .data = (uint8_t *)(uintptr_t)data};
}

static ProtobufCBinaryData list_of(const struct fl_wire_bytes *list)
{
    return bytes_of(list->data, list->length);
}

static char *text_of(const char *text)
{
    return (char *)(uintptr_t)text;
}

static Fedlora__Pb__ObjectRef *object_of(struct packer *p, const struct fl_object_ref *ref)
{
    fedlora__pb__object_ref__init(&p->object);
    p->object.root = bytes_of(ref->root, FL_HASH_BYTES);
    p->object.size = ref->size;
    return &p->object;
}

static void pack_join(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Join *to = &p->body.join;
    const struct fl_wire_join *from = &m->as.join;
    fedlora__pb__join__init(to);
    to->invitation = bytes_of(from->invitation, sizeof(from->invitation));
    to->name = text_of(from->name);
    to->x25519 = bytes_of(from->x25519, sizeof(from->x25519));
    to->ed25519 = bytes_of(from->ed25519, sizeof(from->ed25519));
    to->mac = bytes_of(from->mac, sizeof(from->mac));
    to->signature = bytes_of(from->signature, sizeof(from->signature));
    p->envelope.join = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_JOIN;
}

static void pack_join_answer(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__JoinAnswer *to = &p->body.join_answer;
    fedlora__pb__join_answer__init(to);
    to->accepted = m->as.join_answer.accepted;
    to->name = text_of(m->as.join_answer.name);
    to->reason = text_of(m->as.join_answer.reason);
    p->envelope.join_answer = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_JOIN_ANSWER;
}

static void pack_hello(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Hello *to = &p->body.hello;
    const struct fl_wire_hello *from = &m->as.hello;
    fedlora__pb__hello__init(to);
    to->instance = bytes_of(from->instance, sizeof(from->instance));
    to->software = text_of(from->software);
    to->last_job = from->last_job;
    to->last_round = from->last_round;
    to->last_attempt = from->last_attempt;
    if (from->has_last_version)
        to->last_version = bytes_of(from->last_version, FL_HASH_BYTES);
    p->envelope.hello = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_HELLO;
}

static void pack_welcome(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Welcome *to = &p->body.welcome;
    fedlora__pb__welcome__init(to);
    to->nonce = bytes_of(m->as.welcome.nonce, FL_NONCE_BYTES);
    to->name = text_of(m->as.welcome.name);
    to->heartbeat_ms = m->as.welcome.heartbeat_ms;
    to->liveness_ms = m->as.welcome.liveness_ms;
    p->envelope.welcome = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_WELCOME;
}

static void pack_heartbeat(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Heartbeat *to = &p->body.heartbeat;
    fedlora__pb__heartbeat__init(to);
    to->activity = (uint32_t)m->as.heartbeat.activity;
    to->step = m->as.heartbeat.step;
    to->steps = m->as.heartbeat.steps;
    to->tokens_per_second = m->as.heartbeat.tokens_per_second;
    p->envelope.heartbeat = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_HEARTBEAT;
}

static void pack_goodbye(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Goodbye *to = &p->body.goodbye;
    fedlora__pb__goodbye__init(to);
    to->reason = (uint32_t)m->as.goodbye.reason;
    to->text = text_of(m->as.goodbye.text);
    to->wait_ms = m->as.goodbye.wait_ms;
    p->envelope.goodbye = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_GOODBYE;
}

static void pack_offer_training(Fedlora__Pb__Offer *to, const struct fl_wire_offer *from)
{
    to->steps = from->steps;
    to->batch_size = from->batch_size;
    to->seq_len = from->seq_len;
    to->lr = from->lr;
    to->lr_a = from->lr_a;
    to->lr_b = from->lr_b;
    to->schedule = (uint32_t)from->schedule;
    to->warmup = from->warmup;
    to->weight_decay = from->weight_decay;
    to->grad_clip = from->grad_clip;
    to->shuffle = from->shuffle;
    to->compute = (uint32_t)from->compute;
    to->threads = from->threads;
    to->optimizer = (uint32_t)from->optimizer;
}

static void pack_offer(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Offer *to = &p->body.offer;
    const struct fl_wire_offer *from = &m->as.offer;
    fedlora__pb__offer__init(to);
    to->name = text_of(from->name);
    to->model = text_of(from->model);
    to->manifest = bytes_of(from->manifest, FL_HASH_BYTES);
    to->strategy = text_of(from->strategy);
    to->rounds = from->rounds;
    to->seed = from->seed;
    to->targets = text_of(from->targets);
    to->alpha = from->alpha;
    to->rank_default = from->rank_default;
    to->rank_max = from->rank_max;
    to->dropout = from->dropout;
    pack_offer_training(to, from);
    to->min_workers = from->min_workers;
    to->secure_aggregation = from->secure_aggregation;
    to->update_range = from->update_range;
    to->clip_norm = from->clip_norm;
    to->weight_cap = from->weight_cap;
    to->evaluate_every = from->evaluate_every;
    to->evaluate_rows = from->evaluate_rows;
    to->job_hash = bytes_of(from->job_hash, FL_HASH_BYTES);
    to->liveness_ms = from->liveness_ms;
    to->retraining = from->retraining;
    to->dora = from->dora;
    p->envelope.offer = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_OFFER;
}

static void pack_fit(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Fit *to = &p->body.fit;
    const struct fl_wire_fit *from = &m->as.fit;
    fedlora__pb__fit__init(to);
    to->verdict = (uint32_t)from->verdict;
    to->code = (uint32_t)from->code;
    to->reason = text_of(from->reason);
    to->retry_after_ms = from->retry_after_ms;
    if (from->has_manifest)
        to->manifest = bytes_of(from->manifest, FL_HASH_BYTES);
    if (from->has_inventory)
        to->inventory = object_of(p, &from->inventory);
    p->envelope.fit = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_FIT;
}

static void pack_task(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Task *to = &p->body.task;
    const struct fl_wire_task *from = &m->as.task;
    fedlora__pb__task__init(to);
    to->start = object_of(p, &from->start);
    to->version = from->version;
    to->version_hash = bytes_of(from->version_hash, FL_HASH_BYTES);
    to->global_ranks = bytes_of(from->global_ranks.data, from->global_ranks.length);
    to->site_ranks = bytes_of(from->site_ranks.data, from->site_ranks.length);
    to->train_a = from->train_a;
    to->train_b = from->train_b;
    to->train = from->train;
    to->evaluate = from->evaluate;
    to->first_step = from->first_step;
    to->total_steps = from->total_steps;
    p->envelope.task = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_TASK;
}

static void pack_trained(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Trained *to = &p->body.trained;
    fedlora__pb__trained__init(to);
    to->steps = m->as.trained.steps;
    to->seconds = m->as.trained.seconds;
    to->share_eval = m->as.trained.share_eval;
    to->eval_loss_sum = m->as.trained.eval_loss_sum;
    to->eval_tokens = m->as.trained.eval_tokens;
    p->envelope.trained = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_TRAINED;
}

static void pack_collect(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Collect *to = &p->body.collect;
    fedlora__pb__collect__init(to);
    to->cohort = m->as.collect.cohort;
    to->tiers = bytes_of(m->as.collect.tiers.data, m->as.collect.tiers.length);
    to->sealing_key = bytes_of(m->as.collect.sealing_key, sizeof(m->as.collect.sealing_key));
    to->sharers = list_of(&m->as.collect.sharers);
    to->shares = list_of(&m->as.collect.shares);
    p->envelope.collect = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_COLLECT;
}

static void pack_upload(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Upload *to = &p->body.upload;
    fedlora__pb__upload__init(to);
    to->update = object_of(p, &m->as.upload.update);
    to->opened = list_of(&m->as.upload.opened);
    p->envelope.upload = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_UPLOAD;
}

static void pack_receipt(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Receipt *to = &p->body.receipt;
    fedlora__pb__receipt__init(to);
    to->status = (uint32_t)m->as.receipt.status;
    to->reason = text_of(m->as.receipt.reason);
    p->envelope.receipt = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_RECEIPT;
}

static void pack_failed(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Failed *to = &p->body.failed;
    fedlora__pb__failed__init(to);
    to->permanent = m->as.failed.permanent;
    to->code = (uint32_t)m->as.failed.code;
    to->reason = text_of(m->as.failed.reason);
    to->retry_after_ms = m->as.failed.retry_after_ms;
    p->envelope.failed = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_FAILED;
}

static void pack_version(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Version *to = &p->body.version;
    const struct fl_wire_version *from = &m->as.version;
    fedlora__pb__version__init(to);
    to->version = from->version;
    to->adapter = object_of(p, &from->adapter);
    to->sha256 = bytes_of(from->sha256, FL_HASH_BYTES);
    to->ranks = bytes_of(from->ranks.data, from->ranks.length);
    to->workers = from->workers;
    to->has_eval = from->has_eval;
    to->eval_loss = from->eval_loss;
    to->eval_tokens = from->eval_tokens;
    to->last = from->last;
    p->envelope.version = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_VERSION;
}

static void pack_job_end(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__JobEnd *to = &p->body.job_end;
    fedlora__pb__job_end__init(to);
    to->state = (uint32_t)m->as.job_end.state;
    to->reason = text_of(m->as.job_end.reason);
    to->version = m->as.job_end.version;
    p->envelope.job_end = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_JOB_END;
}

static void pack_need(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Need *to = &p->body.need;
    fedlora__pb__need__init(to);
    to->root = bytes_of(m->as.need.root, FL_HASH_BYTES);
    to->pages = m->as.need.pages;
    to->first = m->as.need.first;
    to->count = m->as.need.count;
    p->envelope.need = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_NEED;
}

static void pack_page(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Page *to = &p->body.page;
    fedlora__pb__page__init(to);
    to->root = bytes_of(m->as.page.root, FL_HASH_BYTES);
    to->index = m->as.page.index;
    to->hashes = bytes_of(m->as.page.hashes.data, m->as.page.hashes.length);
    to->size = m->as.page.size;
    to->chunk_count = m->as.page.chunk_count;
    p->envelope.page = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_PAGE;
}

static void pack_chunk(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Chunk *to = &p->body.chunk;
    fedlora__pb__chunk__init(to);
    to->root = bytes_of(m->as.chunk.root, FL_HASH_BYTES);
    to->index = m->as.chunk.index;
    to->data = bytes_of(m->as.chunk.data.data, m->as.chunk.data.length);
    p->envelope.chunk = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_CHUNK;
}

static void pack_missing(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Missing *to = &p->body.missing;
    fedlora__pb__missing__init(to);
    to->root = bytes_of(m->as.missing.root, FL_HASH_BYTES);
    p->envelope.missing = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_MISSING;
}

/* ---- secure aggregation ---- */

static void pack_keys(struct packer *p, const struct fl_wire *m)
{
    (void)m;
    fedlora__pb__keys__init(&p->body.keys);
    p->envelope.keys = &p->body.keys;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_KEYS;
}

static void pack_advert(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Advert *to = &p->body.advert;
    fedlora__pb__advert__init(to);
    to->advert = bytes_of(m->as.advert.advert, sizeof(m->as.advert.advert));
    p->envelope.advert = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_ADVERT;
}

static void pack_cohort(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Cohort *to = &p->body.cohort;
    fedlora__pb__cohort__init(to);
    to->adverts = list_of(&m->as.cohort.adverts);
    to->plan = list_of(&m->as.cohort.plan);
    p->envelope.cohort = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_COHORT;
}

static void pack_shares(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Shares *to = &p->body.shares;
    fedlora__pb__shares__init(to);
    to->sealed = list_of(&m->as.shares.sealed);
    p->envelope.shares = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_SHARES;
}

static void pack_survivors(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Survivors *to = &p->body.survivors;
    fedlora__pb__survivors__init(to);
    to->survivors = list_of(&m->as.survivors.survivors);
    p->envelope.survivors = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_SURVIVORS;
}

static void pack_signed(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Signed *to = &p->body.signed_;
    fedlora__pb__signed__init(to);
    to->signature = bytes_of(m->as.signed_.signature, sizeof(m->as.signed_.signature));
    p->envelope.signed_ = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_SIGNED;
}

static void pack_unmask(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Unmask *to = &p->body.unmask;
    fedlora__pb__unmask__init(to);
    to->survivors = list_of(&m->as.unmask.survivors);
    to->signed_by = list_of(&m->as.unmask.signed_by);
    to->signatures = list_of(&m->as.unmask.signatures);
    p->envelope.unmask = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_UNMASK;
}

static void pack_answer(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Answer *to = &p->body.answer;
    fedlora__pb__answer__init(to);
    to->answer = list_of(&m->as.answer.answer);
    p->envelope.answer = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_ANSWER;
}

static void pack_recall(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Recall *to = &p->body.recall;
    fedlora__pb__recall__init(to);
    to->after = m->as.recall.after;
    p->envelope.recall = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_RECALL;
}

static void pack_recalled(struct packer *p, const struct fl_wire *m)
{
    Fedlora__Pb__Recalled *to = &p->body.recalled;
    const struct fl_wire_recalled *from = &m->as.recalled;
    fedlora__pb__recalled__init(to);
    to->version = from->version;
    if (from->version > 0) {
        to->sha256 = bytes_of(from->sha256, FL_HASH_BYTES);
        to->adapter = object_of(p, &from->adapter);
        to->left = from->left;
    }
    p->envelope.recalled = to;
    p->envelope.body_case = FEDLORA__PB__ENVELOPE__BODY_RECALLED;
}

static const struct {
    const char *name;
    void (*pack)(struct packer *p, const struct fl_wire *m);
} kinds[FL_WIRE_KIND_COUNT] = {
    [FL_WIRE_JOIN] = {"JOIN", pack_join},
    [FL_WIRE_JOIN_ANSWER] = {"JOIN_ANSWER", pack_join_answer},
    [FL_WIRE_HELLO] = {"HELLO", pack_hello},
    [FL_WIRE_WELCOME] = {"WELCOME", pack_welcome},
    [FL_WIRE_HEARTBEAT] = {"HEARTBEAT", pack_heartbeat},
    [FL_WIRE_GOODBYE] = {"GOODBYE", pack_goodbye},
    [FL_WIRE_OFFER] = {"OFFER", pack_offer},
    [FL_WIRE_FIT] = {"FIT", pack_fit},
    [FL_WIRE_TASK] = {"TASK", pack_task},
    [FL_WIRE_TRAINED] = {"TRAINED", pack_trained},
    [FL_WIRE_COLLECT] = {"COLLECT", pack_collect},
    [FL_WIRE_UPLOAD] = {"UPLOAD", pack_upload},
    [FL_WIRE_RECEIPT] = {"RECEIPT", pack_receipt},
    [FL_WIRE_FAILED] = {"FAILED", pack_failed},
    [FL_WIRE_VERSION] = {"VERSION", pack_version},
    [FL_WIRE_JOB_END] = {"JOB_END", pack_job_end},
    [FL_WIRE_NEED] = {"NEED", pack_need},
    [FL_WIRE_PAGE] = {"PAGE", pack_page},
    [FL_WIRE_CHUNK] = {"CHUNK", pack_chunk},
    [FL_WIRE_MISSING] = {"MISSING", pack_missing},
    [FL_WIRE_KEYS] = {"KEYS", pack_keys},
    [FL_WIRE_ADVERT] = {"ADVERT", pack_advert},
    [FL_WIRE_COHORT] = {"COHORT", pack_cohort},
    [FL_WIRE_SHARES] = {"SHARES", pack_shares},
    [FL_WIRE_SURVIVORS] = {"SURVIVORS", pack_survivors},
    [FL_WIRE_SIGNED] = {"SIGNED", pack_signed},
    [FL_WIRE_UNMASK] = {"UNMASK", pack_unmask},
    [FL_WIRE_ANSWER] = {"ANSWER", pack_answer},
    [FL_WIRE_RECALL] = {"RECALL", pack_recall},
    [FL_WIRE_RECALLED] = {"RECALLED", pack_recalled},
};

/* protobuf-c writes through this; failures stick in the buffer. */
struct sink {
    ProtobufCBuffer base;
    struct fl_buf *out;
};

static void sink_append(ProtobufCBuffer *buffer, size_t length, const uint8_t *data)
{
    fl_buf_append(((struct sink *)buffer)->out, data, length);
}

enum fl_status fl_wire_encode(const struct fl_wire *message, struct fl_buf *out)
{
    assert(message && out && message->kind < FL_WIRE_KIND_COUNT);
    struct packer p;
    fedlora__pb__envelope__init(&p.envelope);
    p.envelope.schema = FL_WIRE_SCHEMA;
    if (message->has_nonce)
        p.envelope.nonce = bytes_of(message->nonce, FL_NONCE_BYTES);
    p.envelope.job = message->job;
    p.envelope.round = message->round;
    p.envelope.attempt = message->attempt;
    kinds[message->kind].pack(&p, message);

    size_t limit = message->kind == FL_WIRE_CHUNK ? FL_FRAME_BYTES_MAX
                                                  : (size_t)FL_CONTROL_BYTES_MAX;
    if (fedlora__pb__envelope__get_packed_size(&p.envelope) > limit)
        return FL_ERANGE;
    struct sink sink = {.base = {.append = sink_append}, .out = out};
    fedlora__pb__envelope__pack_to_buffer(&p.envelope, &sink.base);
    return fl_buf_status(out);
}

const char *fl_wire_kind_name(enum fl_wire_kind kind)
{
    return kind < FL_WIRE_KIND_COUNT ? kinds[kind].name : "UNKNOWN";
}

bool fl_wire_is_sessionless(enum fl_wire_kind kind)
{
    return kind == FL_WIRE_JOIN || kind == FL_WIRE_JOIN_ANSWER || kind == FL_WIRE_HELLO ||
           kind == FL_WIRE_WELCOME || kind == FL_WIRE_GOODBYE;
}

const char *fl_refusal_name(enum fl_refusal code)
{
    static const char *const names[FL_REFUSAL_COUNT] = {
        "none", "policy", "model", "rank",     "privacy",  "hours",       "busy",
        "disk", "memory", "data",  "training", "internal", "differencing"};
    return code < FL_REFUSAL_COUNT ? names[code] : "unknown";
}

const char *fl_activity_name(enum fl_activity activity)
{
    static const char *const names[FL_ACTIVITY_COUNT] = {"idle", "downloading", "evaluating",
                                                         "training", "uploading"};
    return activity < FL_ACTIVITY_COUNT ? names[activity] : "unknown";
}

bool fl_wire_valid_name(const char *name)
{
    return fl_name_is_valid(name);
}

void fl_wire_set_text(char *field, size_t bytes, const char *text)
{
    assert(bytes > 0);
    size_t length = strnlen(text, bytes);
    if (length >= bytes) {
        length = bytes - 1;
        /* never end inside a character: drop its continuation bytes, then its first byte */
        while (length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80)
            length--;
    }
    for (size_t i = 0; i < length; i++)
        field[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    memset(field + length, 0, bytes - length);
}

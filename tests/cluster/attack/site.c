/*
 * site.c - a site that misbehaves: it was enrolled like any other (or knows a token) and then
 * lies, floods, stalls or sends rubbish in one named way, so that a test can watch the coordinator.
 *
 *   attack_site MODE ENDPOINT COORDINATOR_KEY_HEX SITE_KEYS MODEL SECONDS [TOKEN]
 *
 * ENDPOINT is that of the sessions. Exit 0 after SECONDS, or as soon as it was refused for good;
 * what it saw goes to stdout, one word a line: welcome, goodbye, denied, down, offer, task,
 * collect, accepted, rejected, superseded, join-refused, join-accepted.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter/layout.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/hash.h"
#include "crypto/sealed.h"
#include "crypto/token.h"
#include "net/chunks.h"
#include "net/zmq_transport.h"
#include "proto/wire.h"
#include "worker/engine/model.h"

struct attack {
    const char *mode, *endpoint;
    uint8_t coordinator[FL_KEY_BYTES];
    struct fl_keys *keys;
    struct fl_link *link;
    struct fl_shelf *shelf;
    struct fl_serve *serve;
    struct fl_buf frame;
    bool up, welcomed;
    uint8_t nonce[FL_NONCE_BYTES];
    char name[FL_NAME_BYTES];
    uint64_t job;
    uint32_t round, attempt;
    struct fl_wire_offer offer;
    struct fl_wire_task task;
    uint8_t global[2 * FL_MODULES_MAX], own[2 * FL_MODULES_MAX];
    const struct fl_inventory *inventory;
    uint8_t version_root[FL_HASH_BYTES];
    uint64_t sent, noise;
    unsigned uploads;
    int64_t beat_ms;
};

static bool is(const struct attack *self, const char *mode)
{
    return strcmp(self->mode, mode) == 0;
}

static void saw(const char *what)
{
    printf("%s\n", what);
    fflush(stdout);
}

/* Noise that is the same in every run of a mode. */
static uint64_t random64(struct attack *self)
{
    uint64_t x = self->noise;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    self->noise = x;
    return x;
}

static void fill_noise(struct attack *self, uint8_t *out, size_t length)
{
    for (size_t i = 0; i < length; i++)
        out[i] = (uint8_t)(random64(self) >> 24);
}

static void push(struct attack *self, const void *bytes, size_t length)
{
    if (fl_link_send(self->link, bytes, length) == FL_OK)
        self->sent++;
}

static bool encode(struct attack *self, struct fl_wire *message)
{
    message->has_nonce = self->welcomed && message->kind != FL_WIRE_HELLO;
    memcpy(message->nonce, self->nonce, FL_NONCE_BYTES);
    fl_buf_free(&self->frame);
    fl_buf_init(&self->frame, FL_FRAME_BYTES_MAX);
    return fl_wire_encode(message, &self->frame) == FL_OK;
}

static void send_wire(struct attack *self, struct fl_wire *message)
{
    if (encode(self, message))
        push(self, self->frame.data, self->frame.length);
}

static struct fl_wire about(const struct attack *self, enum fl_wire_kind kind)
{
    return (struct fl_wire){
        .kind = kind, .job = self->job, .round = self->round, .attempt = self->attempt};
}

static void hello(struct attack *self)
{
    struct fl_wire m = {.kind = FL_WIRE_HELLO};
    fill_noise(self, m.as.hello.instance, sizeof(m.as.hello.instance));
    fl_wire_set_text(m.as.hello.software, sizeof(m.as.hello.software), "attack");
    if (is(self, "future")) { /* claims to have seen rounds that never were */
        m.as.hello.last_job = UINT64_MAX;
        m.as.hello.last_round = UINT32_MAX;
        m.as.hello.last_attempt = UINT32_MAX;
        m.as.hello.has_last_version = true;
    }
    send_wire(self, &m);
}

static void heartbeat(struct attack *self)
{
    struct fl_wire m = {.kind = FL_WIRE_HEARTBEAT};
    send_wire(self, &m);
}

/* ---- objects ---- */

static struct fl_object_ref offer_bytes(struct attack *self, const void *bytes, size_t length)
{
    struct fl_object *object = NULL;
    struct fl_error error;
    struct fl_object_ref ref = {.size = length};
    if (fl_object_open_memory(bytes, length, &object, &error) != FL_OK)
        return ref;
    memcpy(ref.root, fl_object_root(object), FL_HASH_BYTES);
    (void)!fl_shelf_put(self->shelf, &object);
    fl_object_close(&object);
    return ref;
}

static void send_chunk(struct attack *self, const struct fl_chunk_message *m)
{
    struct fl_wire out = {.kind = FL_WIRE_MISSING};
    uint8_t *copy = m->length > 0 ? fl_malloc(m->length) : NULL;
    if (copy)
        memcpy(copy, m->data, m->length);
    if (m->kind == FL_CHUNK_PAGE) {
        out.kind = FL_WIRE_PAGE;
        memcpy(out.as.page.root, m->root, FL_HASH_BYTES);
        if (is(self, "lying-pages") && copy)
            copy[3] ^= 1;
        out.as.page.index = m->index;
        out.as.page.hashes = (struct fl_wire_bytes){copy, m->length};
        out.as.page.size = is(self, "lying-sizes") ? m->size + 1 : m->size;
        out.as.page.chunk_count = m->count;
    } else if (m->kind == FL_CHUNK_DATA) {
        out.kind = FL_WIRE_CHUNK;
        memcpy(out.as.chunk.root, m->root, FL_HASH_BYTES);
        if (is(self, "lying-chunks") && copy)
            copy[m->length - 1] ^= 1;
        out.as.chunk.index = m->index;
        out.as.chunk.data = (struct fl_wire_bytes){copy, m->length};
    } else
        memcpy(out.as.missing.root, m->root, FL_HASH_BYTES);
    send_wire(self, &out);
    fl_free(copy);
}

static void serve_need(struct attack *self, const struct fl_wire_need *need)
{
    struct fl_chunk_message m = {
        .kind = FL_CHUNK_NEED, .pages = need->pages, .index = need->first, .count = need->count};
    memcpy(m.root, need->root, FL_HASH_BYTES);
    if (is(self, "never-serves") || fl_serve_need(self->serve, &m) != FL_OK)
        return;
    while (fl_serve_next(self->serve, &m) == FL_OK) {
        send_chunk(self, &m);
        fl_serve_sent(self->serve);
    }
}

/* ---- fits ---- */

static void answer_offer(struct attack *self)
{
    struct fl_wire m = about(self, FL_WIRE_FIT);
    struct fl_buf bytes;
    fl_buf_init(&bytes, 1u << 20);
    if (fl_inventory_encode(self->inventory, &bytes) != FL_OK)
        exit(1);
    size_t length = bytes.length;
    if (is(self, "inventory-cut"))
        length /= 2;
    if (is(self, "inventory-flipped"))
        bytes.data[length / 2] ^= 0x10;
    if (is(self, "inventory-noise"))
        fill_noise(self, bytes.data, length);
    if (is(self, "inventory-other")) /* well-formed: another number of output features */
        bytes.data[length - 5] ^= 1;
    m.as.fit.verdict = FL_VERDICT_FIT;
    m.as.fit.has_manifest = m.as.fit.has_inventory = true;
    memcpy(m.as.fit.manifest, self->offer.manifest, FL_HASH_BYTES);
    m.as.fit.inventory = offer_bytes(self, bytes.data, length);
    if (is(self, "inventory-huge"))
        m.as.fit.inventory.size = FL_ADAPTER_BYTES_MAX;
    if (is(self, "inventory-noise"))
        memset(m.as.fit.inventory.root, 7, FL_HASH_BYTES);
    if (is(self, "other-manifest"))
        m.as.fit.manifest[0] ^= 1;
    if (is(self, "refuses")) {
        m.as.fit.verdict = FL_VERDICT_PERMANENT;
        m.as.fit.code = FL_REFUSAL_POLICY;
        fl_wire_set_text(m.as.fit.reason, sizeof(m.as.fit.reason), "no\x1b[31m\"\\{");
    }
    fl_buf_free(&bytes);
    if (!is(self, "never-fits"))
        send_wire(self, &m);
    for (int i = 0; is(self, "fit-flood") && i < 2000; i++)
        send_wire(self, &m);
}

/* ---- updates ---- */

static struct fl_layout *make_layout(const struct attack *self, const struct fl_wire_collect *c,
                                     struct fl_inventory *targets)
{
    uint16_t *ranks = fl_calloc(2 * FL_MODULES_MAX, sizeof(*ranks));
    struct fl_layout *layout = NULL;
    struct fl_error error = {0};
    unsigned factors = (self->task.train && self->task.train_a ? FL_FACTOR_A : 0u) |
                       (self->task.train && self->task.train_b ? FL_FACTOR_B : 0u);
    if (!ranks ||
        fl_inventory_select(self->inventory, self->offer.targets, targets, &error) != FL_OK)
        exit(1);
    for (uint32_t i = 0; i < targets->count; i++) {
        ranks[i] = fl_load_u16(self->global + 2 * i);
        ranks[targets->count + i] = fl_load_u16(self->own + 2 * i);
    }
    if (fl_layout_create_site(targets, ranks, ranks + targets->count, c->tiers.data,
                              (uint32_t)c->tiers.length, (enum fl_factors)factors,
                              (struct fl_ranges){1.0, 1.0, 1.0}, &layout, &error) != FL_OK) {
        fprintf(stderr, "layout: %s\n", error.text);
        exit(1);
    }
    fl_free(ranks);
    return layout;
}

/* The honest update of a site that learnt nothing, and then the lie. */
static void make_plain(struct attack *self, const struct fl_layout *layout, struct fl_buf *out)
{
    uint64_t words = layout->scalar_count;
    fl_buf_append(out, "FLUPDT01", 8);
    fl_buf_u64(out, layout->elements);
    fl_buf_u64(out, words);
    for (uint32_t i = 0; i < words; i++)
        fl_buf_u64(out, i < layout->tier_count && layout->tiers[i] ? 10 : 0);
    for (uint64_t i = 0; i < layout->elements; i++)
        fl_buf_u32(out, 0);
    uint8_t *scalars = out->data + FL_UPDATE_HEADER_BYTES;
    uint8_t *values = scalars + 8 * words;
    if (is(self, "noise-inside"))
        fill_noise(self, out->data, out->length);
    if (is(self, "wrong-counts"))
        fl_store_u64(out->data + 8, layout->elements + 1);
    if (is(self, "beyond-grid") && layout->elements)
        fl_store_u32(values, 0x20000000);
    if (is(self, "beyond-weight") && layout->elements) /* the grid's end, for a weight of 10 */
        fl_store_u32(values, 0x07ffffff);
    if (is(self, "heavy"))
        fl_store_u64(scalars, UINT64_MAX / 2);
    if (is(self, "weightless"))
        fl_store_u64(scalars, 0);
    if (is(self, "vast-scalars"))
        fl_store_u64(scalars + 8 * layout->tier_count, UINT64_MAX);
    if (is(self, "all-cut"))
        fl_store_u64(scalars + 8 * (layout->tier_count + FL_SCALAR_CUT), layout->elements);
}

static void seal(struct attack *self, const struct fl_wire_collect *c, const struct fl_buf *plain,
                 struct fl_buf *out)
{
    struct fl_sealer *sealer = NULL;
    struct fl_error error = {0};
    uint8_t key[FL_KEY_BYTES];
    const struct fl_seal_context context = {.purpose = "update",
                                            .sender = is(self, "other-name") ? "bank" : self->name,
                                            .job = self->job,
                                            .round = self->round,
                                            .attempt = self->attempt +
                                                       (is(self, "other-attempt") ? 1 : 0)};
    memcpy(key, is(self, "other-key") ? fl_keys_public(self->keys)->x25519 : c->sealing_key,
           FL_KEY_BYTES);
    if (fl_sealer_open(key, &context, fl_entropy_system(), fl_seal_to_buf(out), &sealer, &error) !=
            FL_OK ||
        fl_sealer_write(sealer, plain->data, plain->length, &error) != FL_OK ||
        fl_sealer_finish(sealer, &error) != FL_OK)
        exit(1);
    fl_sealer_close(&sealer);
}

static void send_upload(struct attack *self, const struct fl_object_ref *ref)
{
    struct fl_wire m = about(self, FL_WIRE_UPLOAD);
    m.as.upload.update = *ref;
    send_wire(self, &m);
}

static void send_update(struct attack *self, const struct fl_wire_collect *c)
{
    struct fl_inventory targets = {0};
    struct fl_buf plain, sealed;
    fl_buf_init(&plain, 1u << 24);
    fl_buf_init(&sealed, 1u << 24);
    struct fl_layout *layout = make_layout(self, c, &targets);
    make_plain(self, layout, &plain);
    seal(self, c, &plain, &sealed);
    if (is(self, "too-big"))
        fill_noise(self, fl_buf_extend(&sealed, 1000), 1000);
    if (is(self, "too-short"))
        sealed.length -= 17;
    if (is(self, "noise"))
        fill_noise(self, sealed.data, sealed.length);
    if (is(self, "flipped"))
        sealed.data[sealed.length / 2] ^= 1;
    struct fl_object_ref ref = offer_bytes(self, sealed.data, sealed.length);
    if (is(self, "vast"))
        ref.size = FL_ADAPTER_BYTES_MAX;
    if (!is(self, "never-uploads"))
        send_upload(self, &ref);
    if (is(self, "swaps")) { /* a good one, and at once a bad one of the same size */
        sealed.data[sealed.length / 2] ^= 1;
        ref = offer_bytes(self, sealed.data, sealed.length);
        for (int i = 0; i < 3; i++)
            send_upload(self, &ref);
    }
    for (int i = 0; is(self, "upload-flood") && i < 3000; i++) {
        fill_noise(self, ref.root, FL_HASH_BYTES);
        send_upload(self, &ref);
    }
    self->uploads++;
    fl_layout_destroy(&layout);
    fl_inventory_free(&targets);
    fl_buf_free(&plain);
    fl_buf_free(&sealed);
}

/* ---- what comes in ---- */

static void take_task(struct attack *self, const struct fl_wire_task *task)
{
    saw("task");
    self->task = *task;
    memcpy(self->global, task->global_ranks.data, task->global_ranks.length);
    memcpy(self->own, task->site_ranks.data, task->site_ranks.length);
    memcpy(self->version_root, task->start.root, FL_HASH_BYTES);
    struct fl_wire m = about(self, FL_WIRE_TRAINED);
    m.as.trained.steps = self->offer.steps;
    if (is(self, "nan-seconds")) {
        m.as.trained.seconds = (double)__builtin_nan("");
        m.as.trained.share_eval = true;
        m.as.trained.eval_loss_sum = (double)__builtin_inf();
    }
    if (is(self, "fails")) {
        m.kind = FL_WIRE_FAILED;
        memset(&m.as, 0, sizeof(m.as));
        m.as.failed.code = FL_REFUSAL_TRAINING;
        fl_wire_set_text(m.as.failed.reason, sizeof(m.as.failed.reason), "it broke");
    }
    if (is(self, "never-trains"))
        return;
    send_wire(self, &m);
    for (int i = 0; (is(self, "trained-flood") || is(self, "fails")) && i < 2000; i++)
        send_wire(self, &m);
}

static void take(struct attack *self, const struct fl_wire *m)
{
    switch (m->kind) {
    case FL_WIRE_WELCOME:
        memcpy(self->nonce, m->as.welcome.nonce, FL_NONCE_BYTES);
        memcpy(self->name, m->as.welcome.name, sizeof(self->name));
        self->welcomed = true;
        saw("welcome");
        break;
    case FL_WIRE_OFFER:
        saw("offer");
        self->job = m->job;
        self->round = m->round;
        self->attempt = m->attempt;
        self->offer = m->as.offer;
        answer_offer(self);
        break;
    case FL_WIRE_TASK:
        take_task(self, &m->as.task);
        break;
    case FL_WIRE_COLLECT:
        saw("collect");
        send_update(self, &m->as.collect);
        break;
    case FL_WIRE_NEED:
        serve_need(self, &m->as.need);
        break;
    case FL_WIRE_RECEIPT:
        saw(m->as.receipt.status == FL_RECEIPT_ACCEPTED   ? "accepted"
            : m->as.receipt.status == FL_RECEIPT_REJECTED ? "rejected"
                                                          : "superseded");
        break;
    case FL_WIRE_GOODBYE:
        saw("goodbye");
        break;
    case FL_WIRE_JOIN_ANSWER:
        saw(m->as.join_answer.accepted ? "join-accepted" : "join-refused");
        break;
    default:
        break;
    }
}

/* ---- what goes out unasked, again and again ---- */

static void send_noise(struct attack *self)
{
    uint8_t bytes[2048];
    size_t length = 1 + random64(self) % sizeof(bytes);
    fill_noise(self, bytes, length);
    push(self, bytes, length);
}

/* A message that decodes, whatever its numbers say. Members are set one by one: noise laid over a
 * bool or a pointer would end this program instead of trying the other one. */
static struct fl_wire random_message(struct attack *self)
{
    static const enum fl_wire_kind kinds[] = {FL_WIRE_HELLO, FL_WIRE_NEED, FL_WIRE_UPLOAD,
                                              FL_WIRE_MISSING, FL_WIRE_HEARTBEAT};
    struct fl_wire m = about(self, kinds[random64(self) % (sizeof(kinds) / sizeof(kinds[0]))]);
    if (m.kind == FL_WIRE_HELLO) {
        fill_noise(self, m.as.hello.instance, sizeof(m.as.hello.instance));
        fill_noise(self, m.as.hello.last_version, FL_HASH_BYTES);
        m.as.hello.has_last_version = random64(self) % 2;
        m.as.hello.last_job = random64(self);
        m.as.hello.last_round = (uint32_t)random64(self);
    } else if (m.kind == FL_WIRE_NEED) {
        fill_noise(self, m.as.need.root, FL_HASH_BYTES);
        m.as.need.pages = random64(self) % 2;
        m.as.need.first = (uint32_t)random64(self);
        m.as.need.count = (uint32_t)random64(self);
    } else if (m.kind == FL_WIRE_UPLOAD) {
        fill_noise(self, m.as.upload.update.root, FL_HASH_BYTES);
        m.as.upload.update.size = random64(self);
    } else if (m.kind == FL_WIRE_MISSING)
        fill_noise(self, m.as.missing.root, FL_HASH_BYTES);
    return m;
}

/* Such a message with one bit turned or its end cut off. */
static void send_mutated(struct attack *self)
{
    struct fl_wire m = random_message(self);
    if (!encode(self, &m) || self->frame.length < 8)
        return;
    size_t length = self->frame.length;
    if (random64(self) % 2)
        length = 1 + random64(self) % length;
    else
        self->frame.data[random64(self) % length] ^= (uint8_t)(1u << (random64(self) % 8));
    push(self, self->frame.data, length);
}

static void send_needs(struct attack *self)
{
    struct fl_wire m = about(self, FL_WIRE_NEED);
    memcpy(m.as.need.root, self->version_root, FL_HASH_BYTES);
    if (random64(self) % 2)
        fill_noise(self, m.as.need.root, FL_HASH_BYTES);
    m.as.need.pages = random64(self) % 2;
    m.as.need.first = random64(self) % 4 ? 0 : (uint32_t)random64(self);
    m.as.need.count = m.as.need.pages ? 1 : 16;
    send_wire(self, &m);
}

static void send_bulk(struct attack *self)
{
    static uint8_t data[FL_CHUNK_BYTES];
    struct fl_wire m = about(self, FL_WIRE_CHUNK);
    fill_noise(self, m.as.chunk.root, FL_HASH_BYTES);
    m.as.chunk.data = (struct fl_wire_bytes){data, sizeof(data)};
    send_wire(self, &m);
}

static void send_as_coordinator(struct attack *self)
{
    static const enum fl_wire_kind kinds[] = {FL_WIRE_RECEIPT, FL_WIRE_JOB_END,
                                              FL_WIRE_JOIN_ANSWER};
    struct fl_wire m = about(self, kinds[random64(self) % 3]);
    fl_wire_set_text(m.as.join_answer.name, sizeof(m.as.join_answer.name), "x");
    send_wire(self, &m);
}

static void misbehave(struct attack *self)
{
    struct fl_wire m = about(self, FL_WIRE_JOIN);
    if (is(self, "noise-frames"))
        send_noise(self);
    else if (is(self, "mutations"))
        send_mutated(self);
    else if (is(self, "hello-flood"))
        hello(self);
    else if (is(self, "heartbeat-flood"))
        heartbeat(self);
    else if (is(self, "need-flood"))
        send_needs(self);
    else if (is(self, "unasked-chunks"))
        send_bulk(self);
    else if (is(self, "plays-coordinator"))
        send_as_coordinator(self);
    else if (is(self, "stale-nonce")) {
        fill_noise(self, self->nonce, FL_NONCE_BYTES);
        heartbeat(self);
    } else if (is(self, "join-on-session")) {
        fl_wire_set_text(m.as.join.name, sizeof(m.as.join.name), "mallory");
        send_wire(self, &m);
    }
}

static bool floods(const struct attack *self)
{
    static const char *const modes[] = {"noise-frames", "mutations",         "hello-flood",
                                        "need-flood",   "heartbeat-flood",   "unasked-chunks",
                                        "stale-nonce",  "plays-coordinator", "join-on-session"};
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (is(self, modes[i]))
            return true;
    }
    return false;
}

/* ---- enrolment ---- */

static void send_join(struct attack *self, const struct fl_token *token)
{
    struct fl_wire m = {.kind = FL_WIRE_JOIN};
    struct fl_wire_join *join = &m.as.join;
    struct fl_identity identity = *fl_keys_public(self->keys);
    uint8_t secret[FL_JOIN_SECRET_BYTES];
    memcpy(secret, token->secret, sizeof(secret));
    memcpy(join->invitation, token->invitation, sizeof(join->invitation));
    if (is(self, "join-brute")) {
        fill_noise(self, secret, sizeof(secret));
        if (random64(self) % 2)
            fill_noise(self, join->invitation, sizeof(join->invitation));
    }
    if (is(self, "join-foreign-key"))
        fill_noise(self, identity.x25519, FL_KEY_BYTES);
    fl_wire_set_text(join->name, sizeof(join->name), "site");
    memcpy(join->x25519, identity.x25519, FL_KEY_BYTES);
    memcpy(join->ed25519, identity.ed25519, FL_KEY_BYTES);
    fl_join_mac(secret, self->coordinator, &identity, join->name, join->mac);
    fl_keys_sign(self->keys, FL_JOIN_LABEL, join->mac, sizeof(join->mac), join->signature);
    if (is(self, "join-unsigned"))
        join->signature[5] ^= 1;
    send_wire(self, &m);
}

static void enrol_badly(struct attack *self, const char *text)
{
    struct fl_token token;
    struct fl_error error = {0};
    if (is(self, "join-noise")) {
        send_noise(self);
    } else if (is(self, "join-hello")) {
        hello(self);
    } else if (fl_token_parse(text, &token, &error) != FL_OK) {
        fprintf(stderr, "token: %s\n", error.text);
        exit(2);
    } else {
        for (int i = 0; i < (is(self, "join-brute") ? 200 : 1); i++)
            send_join(self, &token);
    }
}

/* ---- many connections ---- */

#define CROWD 60

/* Each says one thing and stays: a heartbeat without a session, or a Join that is refused. */
static void crowd_says(struct attack *self, struct fl_link *link)
{
    struct fl_link *own = self->link;
    struct fl_wire m = {.kind = FL_WIRE_HELLO};
    self->link = link;
    if (is(self, "join-crowd")) {
        m.kind = FL_WIRE_JOIN;
        memcpy(m.as.join.x25519, fl_keys_public(self->keys)->x25519, FL_KEY_BYTES);
        fl_wire_set_text(m.as.join.name, sizeof(m.as.join.name), "site");
        send_wire(self, &m);
    } else {
        self->welcomed = true;
        m.kind = FL_WIRE_HEARTBEAT;
        send_wire(self, &m);
        self->welcomed = false;
    }
    self->link = own;
}

static void run_crowd(struct attack *self, const struct fl_link_config *config, int64_t seconds)
{
    static struct fl_link *links[CROWD];
    struct fl_error error = {0};
    unsigned ups = 0, downs = 0;
    int64_t end = fl_clock_now(fl_clock_system()) + 1000 * seconds;
    for (int i = 0; i < CROWD; i++) {
        if (fl_link_open(config, &links[i], &error) != FL_OK)
            exit(1);
    }
    saw("crowd");
    while (fl_clock_now(fl_clock_system()) < end && downs < CROWD - 16) {
        for (int i = 0; i < CROWD; i++) {
            struct fl_link_event event;
            if (fl_link_next(links[i], 1, &event) != FL_OK)
                continue;
            ups += event.kind == FL_LINK_UP;
            downs += event.kind == FL_LINK_DOWN;
            if (event.kind == FL_LINK_UP)
                crowd_says(self, links[i]);
        }
    }
    fprintf(stderr, "%s: %u connected, %u cut off\n", self->mode, ups, downs);
    saw(downs >= CROWD - 16 ? "goodbye" : "stayed");
    for (int i = 0; i < CROWD; i++)
        fl_link_close(&links[i]);
}

/* ---- the loop ---- */

static void on_event(struct attack *self, const struct fl_link_event *event, const char *token)
{
    struct fl_wire message;
    struct fl_error error;
    if (event->kind == FL_LINK_UP) {
        self->up = true;
        self->welcomed = false;
        if (strncmp(self->mode, "join-", 5) == 0 && !is(self, "join-on-session"))
            enrol_badly(self, token);
        else
            hello(self);
    } else if (event->kind == FL_LINK_FRAME) {
        if (fl_wire_decode(event->frame, event->length, &message, &error) != FL_OK)
            return;
        take(self, &message);
        fl_wire_free(&message);
    } else if (event->kind == FL_LINK_DOWN || event->kind == FL_LINK_DENIED) {
        saw(event->kind == FL_LINK_DOWN ? "down" : "denied");
        self->up = self->welcomed = false;
        fl_serve_clear(self->serve);
        (void)!fl_link_reset(self->link);
    }
}

static void run(struct attack *self, int64_t seconds, const char *token)
{
    const struct fl_clock *clock = fl_clock_system();
    int64_t end = fl_clock_now(clock) + 1000 * seconds;
    bool flooding = floods(self);
    for (int64_t now = fl_clock_now(clock); now < end; now = fl_clock_now(clock)) {
        struct fl_link_event event;
        int64_t wait = flooding && self->welcomed ? 0 : 50;
        if (fl_link_next(self->link, wait, &event) == FL_OK)
            on_event(self, &event, token);
        if (self->welcomed && now >= self->beat_ms && !is(self, "silent")) {
            self->beat_ms = now + 500;
            heartbeat(self);
        }
        for (int i = 0; flooding && self->welcomed && i < 20; i++)
            misbehave(self);
        if (is(self, "flapping") && self->welcomed) {
            self->welcomed = false;
            (void)!fl_link_reset(self->link);
        }
    }
    fprintf(stderr, "%s: %" PRIu64 " frames sent, %u updates\n", self->mode, self->sent,
            self->uploads);
}

int main(int argc, char **argv)
{
    struct attack self = {.noise = 0x9e3779b97f4a7c15ull};
    struct fl_error error = {0};
    struct fl_model *model = NULL;
    char join[FL_ADDRESS_BYTES];
    if (argc < 7)
        return 2;
    fl_hash_init();
    (void)signal(SIGPIPE, SIG_IGN);
    self.mode = argv[1];
    self.endpoint = argv[2];
    fl_buf_init(&self.frame, FL_FRAME_BYTES_MAX);
    if (fl_unhex(argv[3], self.coordinator, FL_KEY_BYTES) != FL_OK ||
        fl_keys_load_or_make(argv[4], fl_entropy_system(), &self.keys, &error) != FL_OK ||
        fl_model_open(argv[5], &model, &error) != FL_OK || fl_shelf_create(&self.shelf) != FL_OK ||
        fl_serve_create(self.shelf, &self.serve) != FL_OK) {
        fprintf(stderr, "attack: %s\n", error.text);
        return 1;
    }
    self.inventory = fl_model_inventory(model);
    if (strncmp(self.mode, "join-", 5) == 0 && strcmp(self.mode, "join-on-session") != 0) {
        if (fl_endpoint_shift(self.endpoint, 1, join, &error) != FL_OK)
            return 1;
        self.endpoint = join;
    }
    const struct fl_link_config config = {.endpoint = self.endpoint,
                                          .server_key = self.coordinator,
                                          .keys = self.keys,
                                          .wake_fd = -1};
    if (fl_link_open(&config, &self.link, &error) != FL_OK) {
        fprintf(stderr, "attack: %s\n", error.text);
        return 1;
    }
    if (is(&self, "crowd") || is(&self, "join-crowd"))
        run_crowd(&self, &config, atoll(argv[6]));
    run(&self, atoll(argv[6]), argc > 7 ? argv[7] : "");
    fl_link_close(&self.link);
    fl_serve_destroy(&self.serve);
    fl_shelf_destroy(&self.shelf);
    fl_model_close(&model);
    fl_keys_destroy(&self.keys);
    fl_buf_free(&self.frame);
    return 0;
}

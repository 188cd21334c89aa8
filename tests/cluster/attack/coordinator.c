/*
 * coordinator.c - a coordinator that misbehaves: one honest site connects to it, and it asks for
 * what no site may give. Every scenario ends with a check; the first that fails ends the program.
 *
 *   attack_coordinator LISTEN KEYS MODEL MANIFEST [SCENARIO]
 *
 * Exit 0: the site withstood all. What is told goes to stdout, a line a scenario.
 */
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter/adapter.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/hash.h"
#include "crypto/keys.h"
#include "net/chunks.h"
#include "net/zmq_transport.h"
#include "proto/wire.h"
#include "worker/engine/model.h"

#define PATIENCE_MS 20000
#define SILENCE_MS  1200 /* what was not said by then is not said */

struct play {
    struct fl_transport *transport;
    struct fl_keys *keys, *sealing;
    struct fl_shelf *shelf;
    struct fl_serve *serve;
    struct fl_buf frame;
    const struct fl_inventory *inventory;
    struct fl_inventory targets;
    uint8_t manifest[FL_HASH_BYTES];
    fl_peer peer; /* 0: the site is not here */
    bool welcomed;
    uint8_t nonce[FL_NONCE_BYTES];
    uint64_t job;
    uint32_t round, attempt;
    struct fl_object_ref start;
    /* what the site said since it was last asked */
    unsigned said[FL_WIRE_KIND_COUNT];
    struct fl_wire_fit fit;
    struct fl_wire_failed failed;
    struct fl_wire_upload upload;
    uint64_t chunk_bytes;
    uint64_t noise;
};

static void die(const char *scenario, const char *why)
{
    printf("FAILED %s: %s\n", scenario, why);
    exit(1);
}

static uint64_t random64(struct play *self)
{
    uint64_t x = self->noise;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    self->noise = x;
    return x;
}

static void fill_noise(struct play *self, void *out, size_t length)
{
    uint8_t *bytes = out;
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(random64(self) >> 24);
}

static int64_t now_ms(void)
{
    return fl_clock_now(fl_clock_system());
}

static enum fl_zap_answer allow(void *context, const uint8_t x25519[FL_KEY_BYTES], char *user)
{
    (void)context, (void)x25519;
    (void)snprintf(user, FL_USER_BYTES, "victim");
    return FL_ZAP_ALLOW;
}

static void send_wire(struct play *self, struct fl_wire *message)
{
    message->has_nonce = true;
    memcpy(message->nonce, self->nonce, FL_NONCE_BYTES);
    fl_buf_free(&self->frame);
    fl_buf_init(&self->frame, FL_FRAME_BYTES_MAX);
    if (self->peer && fl_wire_encode(message, &self->frame) == FL_OK)
        (void)!fl_transport_send(self->transport, self->peer, self->frame.data, self->frame.length);
}

static struct fl_wire about(const struct play *self, enum fl_wire_kind kind)
{
    return (struct fl_wire){
        .kind = kind, .job = self->job, .round = self->round, .attempt = self->attempt};
}

/* ---- what the site says ---- */

static void welcome(struct play *self)
{
    struct fl_wire m = {.kind = FL_WIRE_WELCOME};
    fill_noise(self, self->nonce, FL_NONCE_BYTES);
    memcpy(m.as.welcome.nonce, self->nonce, FL_NONCE_BYTES);
    fl_wire_set_text(m.as.welcome.name, sizeof(m.as.welcome.name), "victim");
    m.as.welcome.heartbeat_ms = 500;
    m.as.welcome.liveness_ms = 600000;
    self->welcomed = true;
    send_wire(self, &m);
}

static void give(struct play *self, const struct fl_wire_need *need)
{
    struct fl_chunk_message c = {
        .kind = FL_CHUNK_NEED, .pages = need->pages, .index = need->first, .count = need->count};
    memcpy(c.root, need->root, FL_HASH_BYTES);
    if (fl_serve_need(self->serve, &c) != FL_OK)
        return;
    while (fl_serve_next(self->serve, &c) == FL_OK) {
        struct fl_wire m = {.kind = FL_WIRE_MISSING};
        memcpy(m.as.missing.root, c.root, FL_HASH_BYTES);
        if (c.kind == FL_CHUNK_PAGE) {
            m.kind = FL_WIRE_PAGE;
            memcpy(m.as.page.root, c.root, FL_HASH_BYTES);
            m.as.page.index = c.index;
            m.as.page.hashes = (struct fl_wire_bytes){c.data, c.length};
            m.as.page.size = c.size;
            m.as.page.chunk_count = c.count;
        } else if (c.kind == FL_CHUNK_DATA) {
            m.kind = FL_WIRE_CHUNK;
            memcpy(m.as.chunk.root, c.root, FL_HASH_BYTES);
            m.as.chunk.index = c.index;
            m.as.chunk.data = (struct fl_wire_bytes){c.data, c.length};
        }
        send_wire(self, &m);
        fl_serve_sent(self->serve);
    }
}

static void take(struct play *self, const struct fl_wire *m)
{
    if (m->job != 0 && m->job != self->job)
        return; /* of an earlier scenario */
    self->said[m->kind]++;
    if (m->kind == FL_WIRE_HELLO)
        welcome(self);
    else if (m->kind == FL_WIRE_NEED)
        give(self, &m->as.need);
    else if (m->kind == FL_WIRE_FIT)
        self->fit = m->as.fit;
    else if (m->kind == FL_WIRE_FAILED)
        self->failed = m->as.failed;
    else if (m->kind == FL_WIRE_UPLOAD)
        self->upload = m->as.upload;
    else if (m->kind == FL_WIRE_CHUNK)
        self->chunk_bytes += m->as.chunk.data.length;
}

/* One event, or nothing within wait_ms. */
static void step(struct play *self, int64_t wait_ms)
{
    struct fl_transport_event event;
    struct fl_wire message;
    struct fl_error error;
    if (fl_transport_next(self->transport, wait_ms, &event) != FL_OK)
        return;
    if (event.kind == FL_TRANSPORT_GONE && event.peer == self->peer) {
        self->peer = 0;
        self->welcomed = false;
    } else if (event.kind == FL_TRANSPORT_FRAME) {
        if (fl_wire_decode(event.frame, event.length, &message, &error) != FL_OK)
            die("frames", error.text);
        if (message.kind == FL_WIRE_HELLO)
            self->peer = event.peer;
        if (event.peer == self->peer)
            take(self, &message);
        fl_wire_free(&message);
    }
}

/* Until the site has said it; false: not within that time. */
static bool hears(struct play *self, enum fl_wire_kind kind, int64_t patience_ms)
{
    for (int64_t end = now_ms() + patience_ms; now_ms() < end && !self->said[kind];)
        step(self, 50);
    return self->said[kind] > 0;
}

static void forget(struct play *self)
{
    memset(self->said, 0, sizeof(self->said));
    self->chunk_bytes = 0;
}

static void need_session(struct play *self, const char *scenario)
{
    for (int64_t end = now_ms() + PATIENCE_MS; now_ms() < end && !self->welcomed;)
        step(self, 50);
    if (!self->welcomed)
        die(scenario, "the site does not come back");
}

/* ---- an honest coordinator's words ---- */

static void honest_offer(const struct play *self, struct fl_wire_offer *o)
{
    memset(o, 0, sizeof(*o));
    fl_wire_set_text(o->name, sizeof(o->name), "tiny");
    fl_wire_set_text(o->model, sizeof(o->model), "tiny");
    memcpy(o->manifest, self->manifest, FL_HASH_BYTES);
    fl_wire_set_text(o->strategy, sizeof(o->strategy), "fedit");
    o->rounds = 2;
    fl_wire_set_text(o->targets, sizeof(o->targets), "q_proj,v_proj");
    o->alpha = 16;
    o->rank_default = o->rank_max = 4;
    o->steps = 1;
    o->batch_size = 2;
    o->seq_len = 32;
    o->lr = 1e-3;
    o->grad_clip = 1;
    o->min_workers = 3;
    o->weight_cap = 1000000;
    o->evaluate_rows = 2;
    memset(o->job_hash, 1, FL_HASH_BYTES);
    o->liveness_ms = 30000;
}

static void send_offer(struct play *self, const struct fl_wire_offer *offer)
{
    struct fl_wire m = about(self, FL_WIRE_OFFER);
    m.as.offer = *offer;
    send_wire(self, &m);
}

static void begin(struct play *self, const char *scenario)
{
    need_session(self, scenario);
    self->job++;
    self->round = self->attempt = 1;
    forget(self);
}

/* begin(), and an honest offer that the site takes */
static void begin_fit(struct play *self, const char *scenario, struct fl_wire_offer *offer)
{
    begin(self, scenario);
    honest_offer(self, offer);
    send_offer(self, offer);
    if (!hears(self, FL_WIRE_FIT, PATIENCE_MS) || self->fit.verdict != FL_VERDICT_FIT)
        die(scenario, "an honest offer is not taken");
}

static struct fl_object_ref shelve(struct play *self, const void *bytes, size_t length)
{
    struct fl_object *object = NULL;
    struct fl_error error;
    struct fl_object_ref ref = {.size = length};
    if (fl_object_open_memory(bytes, length, &object, &error) != FL_OK)
        exit(1);
    memcpy(ref.root, fl_object_root(object), FL_HASH_BYTES);
    (void)!fl_shelf_put(self->shelf, &object);
    fl_object_close(&object);
    return ref;
}

/* A start adapter of rank 4 as an object; poison: a NaN in it. */
static struct fl_object_ref make_start(struct play *self, bool poison, uint8_t *sha256)
{
    struct fl_adapter *adapter = NULL;
    struct fl_error error = {0};
    struct fl_buf bytes;
    fl_buf_init(&bytes, 1u << 24);
    if (fl_adapter_create(&self->targets, 4, 16, NULL, &adapter, &error) != FL_OK)
        exit(1);
    fl_adapter_init(adapter, 5);
    if (fl_adapter_encode(adapter, &bytes, &error) != FL_OK)
        exit(1);
    if (poison) { /* the last element of the last tensor */
        const float nan_value = NAN;
        memcpy(bytes.data + bytes.length - sizeof(float), &nan_value, sizeof(float));
    }
    struct fl_object_ref ref = shelve(self, bytes.data, bytes.length);
    if (sha256)
        fl_sha256(bytes.data, bytes.length, sha256);
    fl_adapter_destroy(&adapter);
    fl_buf_free(&bytes);
    return ref;
}

static void send_task(struct play *self, uint16_t global, uint16_t own, uint32_t modules)
{
    static uint8_t ranks[2][2 * FL_MODULES_MAX];
    struct fl_wire m = about(self, FL_WIRE_TASK);
    for (uint32_t i = 0; i < modules; i++) {
        ranks[0][2 * i] = (uint8_t)global;
        ranks[0][2 * i + 1] = (uint8_t)(global >> 8);
        ranks[1][2 * i] = (uint8_t)own;
        ranks[1][2 * i + 1] = (uint8_t)(own >> 8);
    }
    m.as.task.start = self->start;
    m.as.task.version = self->round - 1;
    m.as.task.global_ranks = (struct fl_wire_bytes){ranks[0], 2 * (size_t)modules};
    m.as.task.site_ranks = (struct fl_wire_bytes){ranks[1], 2 * (size_t)modules};
    m.as.task.train_a = m.as.task.train_b = m.as.task.train = m.as.task.evaluate = true;
    m.as.task.total_steps = 2;
    send_wire(self, &m);
}

static void train(struct play *self, const char *scenario)
{
    send_task(self, 4, 4, self->targets.count);
    if (!hears(self, FL_WIRE_TRAINED, PATIENCE_MS))
        die(scenario, "an honest task is not done");
}

static void send_collect(struct play *self, uint32_t cohort, const uint8_t key[FL_KEY_BYTES],
                         uint8_t tier)
{
    struct fl_wire m = about(self, FL_WIRE_COLLECT);
    m.as.collect.cohort = cohort;
    m.as.collect.tiers = (struct fl_wire_bytes){&tier, 1};
    memcpy(m.as.collect.sealing_key, key, FL_KEY_BYTES);
    send_wire(self, &m);
}

static void end_job(struct play *self)
{
    struct fl_wire m = about(self, FL_WIRE_JOB_END);
    send_wire(self, &m);
}

static const uint8_t *sealing_key(const struct play *self)
{
    return fl_keys_public(self->sealing)->x25519;
}

/* ---- the scenarios ---- */

static void honest(struct play *self, const char *name)
{
    struct fl_wire_offer offer;
    begin_fit(self, name, &offer);
    train(self, name);
    send_collect(self, 3, sealing_key(self), 1);
    if (!hears(self, FL_WIRE_UPLOAD, PATIENCE_MS))
        die(name, "no update comes");
    end_job(self);
}

/* What the policy refuses must not be trained, whatever comes behind the refusal. */
static void policy_detour(struct play *self, const char *name)
{
    struct fl_wire_offer offer;
    struct fl_wire m;
    static uint8_t ranks[2] = {4, 0};
    begin(self, name);
    honest_offer(self, &offer);
    offer.steps = 100000;
    send_offer(self, &offer);
    if (!hears(self, FL_WIRE_FIT, PATIENCE_MS) || self->fit.verdict != FL_VERDICT_PERMANENT)
        die(name, "100000 steps are not refused");
    m = about(self, FL_WIRE_VERSION);
    m.as.version.version = 0;
    m.as.version.adapter = shelve(self, "", 0);
    m.as.version.ranks = (struct fl_wire_bytes){ranks, 2};
    send_wire(self, &m);
    (void)hears(self, FL_WIRE_TRAINED, SILENCE_MS);
    send_task(self, 4, 4, self->targets.count);
    if (hears(self, FL_WIRE_TRAINED, SILENCE_MS) || self->said[FL_WIRE_NEED])
        die(name, "a refused offer is worked on");
}

static void absurd_offers(struct play *self, const char *name)
{
    for (int i = 0; i < 12; i++) {
        struct fl_wire_offer o;
        begin(self, name);
        honest_offer(self, &o);
        switch (i) {
        case 0:
            o.steps = 2000000000;
            o.batch_size = 2000000000;
            o.seq_len = 1048576;
            break;
        case 1:
            o.rounds = 2000000000;
            break;
        case 2:
            o.rank_max = 1024;
            break;
        case 3:
            o.rank_default = o.rank_max = 65535;
            break;
        case 4:
            o.lr = NAN;
            break;
        case 5:
            o.alpha = INFINITY;
            break;
        case 6:
            o.min_workers = 1;
            break;
        case 7:
            o.batch_size = 1000000;
            o.seq_len = 1048576;
            o.steps = 1;
            break;
        case 8:
            fl_wire_set_text(o.targets, sizeof(o.targets), "(((((a*)*)*)*)*)*$");
            break;
        case 9:
            fl_wire_set_text(o.name, sizeof(o.name), "../../../tmp/x");
            break;
        case 10:
            fl_wire_set_text(o.model, sizeof(o.model), "/etc/passwd");
            break;
        default:
            o.manifest[0] ^= 1;
            break;
        }
        send_offer(self, &o);
        (void)hears(self, FL_WIRE_FIT, SILENCE_MS);
        bool fit = self->said[FL_WIRE_FIT] && self->fit.verdict == FL_VERDICT_FIT;
        if (fit && i != 7) {
            fprintf(stderr, "offer %d\n", i);
            die(name, "an absurd offer is taken");
        }
    }
}

static void task_first(struct play *self, const char *name)
{
    begin(self, name);
    self->start = make_start(self, false, NULL);
    send_task(self, 4, 4, self->targets.count);
    send_collect(self, 3, sealing_key(self), 1);
    if (hears(self, FL_WIRE_TRAINED, SILENCE_MS) || self->said[FL_WIRE_UPLOAD])
        die(name, "a task without an offer is done");
}

static void wrong_ranks(struct play *self, const char *name)
{
    static const uint16_t ranks[][2] = {{8, 8}, {4, 5}, {4, 0}, {0, 0}, {65535, 65535}};
    for (size_t i = 0; i < 6; i++) {
        struct fl_wire_offer offer;
        begin_fit(self, name, &offer);
        if (i < 5)
            send_task(self, ranks[i][0], ranks[i][1], self->targets.count);
        else
            send_task(self, 4, 4, self->targets.count + 1);
        if (!hears(self, FL_WIRE_FAILED, PATIENCE_MS) || self->said[FL_WIRE_TRAINED])
            die(name, "wrong ranks are trained");
        if (i == 0 && self->failed.code != FL_REFUSAL_RANK)
            die(name, "a rank above the offer is refused, but not for that");
    }
}

static void poisoned_starts(struct play *self, const char *name)
{
    static uint8_t rubbish[100000];
    for (int i = 0; i < 4; i++) {
        struct fl_wire_offer offer;
        begin_fit(self, name, &offer);
        if (i == 0)
            self->start = make_start(self, true, NULL);
        if (i == 1) {
            fill_noise(self, rubbish, sizeof(rubbish));
            self->start = shelve(self, rubbish, 9000);
        }
        if (i == 2)
            self->start.size = FL_ADAPTER_BYTES_MAX;
        if (i == 3)
            self->start = shelve(self, "", 0);
        send_task(self, 4, 4, self->targets.count);
        (void)hears(self, FL_WIRE_FAILED, i == 2 ? SILENCE_MS : PATIENCE_MS);
        if (self->said[FL_WIRE_TRAINED] || (i != 2 && !self->said[FL_WIRE_FAILED]))
            die(name, "a poisoned start is trained, or not refused");
    }
    self->start = make_start(self, false, NULL);
}

static void small_cohort(struct play *self, const char *name)
{
    for (uint32_t cohort = 1; cohort <= 2; cohort++) {
        struct fl_wire_offer offer;
        begin_fit(self, name, &offer);
        train(self, name);
        send_collect(self, cohort, sealing_key(self), 1);
        if (!hears(self, FL_WIRE_FAILED, PATIENCE_MS) || self->said[FL_WIRE_UPLOAD] ||
            self->failed.code != FL_REFUSAL_PRIVACY)
            die(name, "an update is given for a sum of fewer than min_cohort sites");
    }
}

/* Within one attempt there is one sealed file, whatever is asked. */
static void two_sealings(struct play *self, const char *name)
{
    struct fl_wire_offer offer;
    begin_fit(self, name, &offer);
    train(self, name);
    send_collect(self, 3, sealing_key(self), 1);
    if (!hears(self, FL_WIRE_UPLOAD, PATIENCE_MS))
        die(name, "no update comes");
    struct fl_object_ref first = self->upload.update;
    for (int i = 0; i < 4; i++) {
        forget(self);
        if (i == 3) { /* as if the job had never been */
            end_job(self);
            send_offer(self, &offer);
            if (!hears(self, FL_WIRE_FIT, PATIENCE_MS))
                die(name, "no answer to the same offer");
            train(self, name);
        }
        send_collect(self, i == 0 ? 4 : 3,
                     i == 1 ? fl_keys_public(self->keys)->x25519 : sealing_key(self), i != 2);
        (void)hears(self, FL_WIRE_UPLOAD, SILENCE_MS);
        if (self->said[FL_WIRE_UPLOAD] &&
            memcmp(first.root, self->upload.update.root, FL_HASH_BYTES) != 0)
            die(name, "a second, different update of one attempt");
    }
    if (!self->said[FL_WIRE_FAILED] || self->failed.code != FL_REFUSAL_PRIVACY)
        die(name, "an attempt that was forgotten is sealed anew");
}

/* The same job and settings in name, another model in fact. */
static void changed_offer(struct play *self, const char *name)
{
    struct fl_wire_offer offer;
    begin_fit(self, name, &offer);
    self->attempt = 2;
    forget(self);
    offer.manifest[5] ^= 1;
    send_offer(self, &offer);
    if (!hears(self, FL_WIRE_FIT, PATIENCE_MS) || self->fit.verdict == FL_VERDICT_FIT)
        die(name, "another model under the same job is taken unseen");
}

static void late_round(struct play *self, const char *name)
{
    struct fl_wire_offer offer;
    begin(self, name);
    honest_offer(self, &offer);
    self->round = offer.rounds + 2;
    send_offer(self, &offer);
    if (!hears(self, FL_WIRE_FIT, PATIENCE_MS) || self->fit.verdict == FL_VERDICT_FIT)
        die(name, "a round behind the last one is taken");
}

static void lying_versions(struct play *self, const char *name)
{
    static uint8_t ranks[2 * FL_MODULES_MAX];
    for (uint32_t i = 0; i < 5; i++) {
        struct fl_wire_offer offer;
        uint8_t sha256[FL_HASH_BYTES];
        begin_fit(self, name, &offer);
        struct fl_wire m = about(self, FL_WIRE_VERSION);
        m.as.version.version = i == 4 ? UINT32_MAX / 2 : 1;
        m.as.version.adapter = make_start(self, i == 1, sha256);
        memcpy(m.as.version.sha256, sha256, FL_HASH_BYTES);
        if (i == 0)
            m.as.version.sha256[0] ^= 1;
        for (uint32_t k = 0; k < 2 * self->targets.count; k += 2)
            ranks[k] = i == 2 ? 0 : i == 3 ? 255 : 4;
        m.as.version.ranks =
            (struct fl_wire_bytes){ranks, 2 * (size_t)self->targets.count - (i == 4 ? 2 : 0)};
        send_wire(self, &m);
        for (int k = 0; k < 20; k++)
            step(self, 20);
    }
}

/* Only what lies on the site's shelf is given. */
static void curious(struct play *self, const char *name)
{
    struct fl_wire_offer offer;
    begin_fit(self, name, &offer);
    forget(self);
    for (int i = 0; i < 3000; i++) {
        struct fl_wire m = about(self, FL_WIRE_NEED);
        fill_noise(self, m.as.need.root, FL_HASH_BYTES);
        m.as.need.pages = i % 2;
        m.as.need.first = i % 3 ? 0 : (uint32_t)random64(self);
        m.as.need.count = m.as.need.pages ? 17 : 16;
        send_wire(self, &m);
        step(self, 0);
    }
    for (int k = 0; k < 20; k++)
        step(self, 20);
    if (self->chunk_bytes || self->said[FL_WIRE_PAGE])
        die(name, "bytes of an unknown object were given");
}

static void flood(struct play *self, const char *name)
{
    need_session(self, name);
    for (int i = 0; i < 20000; i++) {
        struct fl_wire m = about(self, (enum fl_wire_kind)(random64(self) % FL_WIRE_KIND_COUNT));
        if (m.kind == FL_WIRE_GOODBYE || m.kind == FL_WIRE_WELCOME)
            continue;
        m.job = self->job + random64(self) % 2;
        if (m.kind == FL_WIRE_OFFER) {
            honest_offer(self, &m.as.offer);
            m.attempt = (uint32_t)i;
        } else if (m.kind == FL_WIRE_VERSION || m.kind == FL_WIRE_TASK) {
            static uint8_t ranks[2] = {4, 0};
            if (m.kind == FL_WIRE_TASK) {
                m.as.task.global_ranks = m.as.task.site_ranks = (struct fl_wire_bytes){ranks, 2};
                m.as.task.train = m.as.task.train_b = true;
                m.as.task.start.size = random64(self) % 100000;
                fill_noise(self, m.as.task.start.root, FL_HASH_BYTES);
            } else {
                m.as.version.version = (uint32_t)i;
                m.as.version.ranks = (struct fl_wire_bytes){ranks, 2};
                m.as.version.adapter = shelve(self, "", 0);
            }
        }
        send_wire(self, &m);
        step(self, 0);
    }
    self->job += 10;
    for (int64_t end = now_ms() + 3000; now_ms() < end;) /* it leaves, and comes back */
        step(self, 50);
}

static void noise(struct play *self, const char *name)
{
    uint8_t bytes[3000];
    for (int i = 0; i < 20; i++) {
        need_session(self, name);
        size_t length = 1 + random64(self) % sizeof(bytes);
        fill_noise(self, bytes, length);
        (void)!fl_transport_send(self->transport, self->peer, bytes, length);
        /* it dials anew; whether that or the end of the old connection is seen first is chance */
        for (int k = 0; k < 30 && self->welcomed; k++)
            step(self, 10);
    }
}

static const struct {
    const char *name;
    void (*play)(struct play *self, const char *name);
} scenarios[] = {
    {"honest", honest},
    {"policy-detour", policy_detour},
    {"task-first", task_first},
    {"wrong-ranks", wrong_ranks},
    {"poisoned-starts", poisoned_starts},
    {"small-cohort", small_cohort},
    {"two-sealings", two_sealings},
    {"changed-offer", changed_offer},
    {"late-round", late_round},
    {"lying-versions", lying_versions},
    {"curious", curious},
    {"absurd-offers", absurd_offers},
    {"flood", flood},
    {"honest-again", honest},
    {"noise", noise},
};

int main(int argc, char **argv)
{
    struct play self = {.noise = 0x9e3779b97f4a7c15ull, .job = 100};
    struct fl_model *model = NULL;
    struct fl_error error = {0};
    if (argc < 5)
        return 2;
    fl_hash_init();
    (void)signal(SIGPIPE, SIG_IGN);
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    fl_buf_init(&self.frame, FL_FRAME_BYTES_MAX);
    if (fl_keys_load(argv[2], &self.keys, &error) != FL_OK ||
        fl_keys_generate(fl_entropy_system(), &self.sealing) != FL_OK ||
        fl_model_open(argv[3], &model, &error) != FL_OK ||
        fl_unhex(argv[4], self.manifest, FL_HASH_BYTES) != FL_OK ||
        fl_shelf_create(&self.shelf) != FL_OK ||
        fl_serve_create(self.shelf, &self.serve) != FL_OK) {
        fprintf(stderr, "attack: %s\n", error.text);
        return 1;
    }
    self.inventory = fl_model_inventory(model);
    const struct fl_server_config config = {
        .session = argv[1], .keys = self.keys, .decide = allow, .wake_fd = -1};
    if (fl_inventory_select(self.inventory, "q_proj,v_proj", &self.targets, &error) != FL_OK ||
        fl_server_open(&config, &self.transport, &error) != FL_OK) {
        fprintf(stderr, "attack: %s\n", error.text);
        return 1;
    }
    self.start = make_start(&self, false, NULL);
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        if (argc > 5 && strcmp(argv[5], scenarios[i].name) != 0)
            continue;
        scenarios[i].play(&self, scenarios[i].name);
        printf("ok %s\n", scenarios[i].name);
    }
    fl_server_close(&self.transport);
    fl_serve_destroy(&self.serve);
    fl_shelf_destroy(&self.shelf);
    fl_inventory_free(&self.targets);
    fl_model_close(&model);
    fl_keys_destroy(&self.keys);
    fl_keys_destroy(&self.sealing);
    fl_buf_free(&self.frame);
    return 0;
}

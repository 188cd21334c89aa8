/* client.c - the loop and the link; see client.h. */
#include "worker/client.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "crypto/audit_keys.h"
#include "crypto/entropy.h"
#include "net/bulk.h"
#include "worker/client_internal.h"
#include "worker/http_site.h"

#define BACKOFF_FIRST_MS  250
#define BACKOFF_LAST_MS   10000
#define GREETING_MS       10000
#define DENIED_GIVE_UP_MS 60000
#define DENIALS_GIVE_UP   3
#define STATUS_MS         2000

int64_t fl_client_now(const struct fl_client *self)
{
    return fl_clock_now(self->c.clock);
}

enum fl_status fl_client_create(const struct fl_client_config *config, struct fl_client **out,
                                struct fl_error *error)
{
    *out = NULL;
    char path[FL_PATH_BYTES];
    struct fl_client *self = fl_calloc(1, sizeof(*self));
    if (!self)
        return fl_fail_memory(error);
    self->c = *config;
    self->reset_at = INT64_MAX;
    self->backoff_ms = BACKOFF_FIRST_MS;
    self->eval_loss = NAN;
    self->status_dirty = true;
    fl_buf_init(&self->frame, FL_FRAME_BYTES_MAX);
    fl_entropy_bytes(fl_entropy_system(), self->instance, sizeof(self->instance));
    enum fl_status status = fl_sitestore_path(config->store, "audit.log", path, error);
    const struct fl_audit_signer signer = fl_audit_signer_of(config->store->keys);
    if (status == FL_OK)
        status = fl_audit_open(path, &signer, &self->audit, error);
    if (status == FL_OK)
        status = fl_history_load(config->store->site, &self->history, error);
    self->sent_before = self->history.sent_count;
    if (status == FL_OK)
        status = fl_client_take_up_seen(self, error);
    if (status == FL_OK && (fl_shelf_create(&self->shelf) != FL_OK ||
                            fl_serve_create(self->shelf, &self->serve) != FL_OK))
        status = fl_fail_memory(error);
    if (status != FL_OK) {
        fl_client_destroy(&self);
        return status;
    }
    fl_client_recall_offer(self);
    *out = self;
    return FL_OK;
}

void fl_client_destroy(struct fl_client **self_pointer)
{
    struct fl_client *self = *self_pointer;
    if (!self)
        return;
    fl_client_incoming_close(&self->start_in);
    fl_client_incoming_close(&self->version_in);
    if (self->serve)
        fl_serve_destroy(&self->serve);
    if (self->shelf)
        fl_shelf_destroy(&self->shelf);
    fl_audit_close(&self->audit);
    fl_buf_free(&self->frame);
    fl_free(self->task_ranks);
    fl_free(self->collect_tiers);
    fl_client_drop_masks(self);
    fl_free(self->start);
    fl_free(self);
    *self_pointer = NULL;
}

enum fl_status fl_client_send(struct fl_client *self, struct fl_wire *message)
{
    if (!self->welcomed && message->kind != FL_WIRE_HELLO)
        return FL_ENOTFOUND; /* the session is over though the link may still be open */
    message->has_nonce = message->kind != FL_WIRE_HELLO;
    memcpy(message->nonce, self->nonce, FL_NONCE_BYTES);
    self->frame.length = 0;
    enum fl_status status = fl_wire_encode(message, &self->frame);
    if (status == FL_OK)
        status = fl_link_send(self->c.link, self->frame.data, self->frame.length);
    if (status == FL_OK) {
        self->sent_at = fl_client_now(self);
        fl_http_site_frame(self->c.http, self->frame.length, 0);
        fl_client_audit_said(self, message);
    } else if (status == FL_EBUSY)
        self->lost = self->lost || message->kind != FL_WIRE_CHUNK;
    else if (status != FL_ENOTFOUND)
        fl_log(FL_LOG_ERROR, "send_failed", fl_status_text(status),
               FL_STR("kind", fl_wire_kind_name(message->kind)));
    return status;
}

/* ---- link ---- */

static int64_t jittered(int64_t ms)
{
    uint32_t random;
    fl_entropy_bytes(fl_entropy_system(), &random, sizeof(random));
    return ms / 2 + (int64_t)(random % (uint32_t)(ms / 2 + 1));
}

static void session_over(struct fl_client *self)
{
    if (self->welcomed)
        self->status_dirty = true;
    self->up = self->welcomed = self->blocked = false;
    fl_serve_clear(self->serve);
    fl_client_step_fetch(self, &self->start_in, FL_FETCH_OFFLINE, NULL);
    fl_client_step_fetch(self, &self->version_in, FL_FETCH_OFFLINE, NULL);
}

void fl_client_later(struct fl_client *self, int64_t wait_ms)
{
    session_over(self);
    self->reset_at = fl_client_now(self) + wait_ms;
}

static void back_off(struct fl_client *self)
{
    fl_client_later(self, jittered(self->backoff_ms));
    self->backoff_ms *= 2;
    if (self->backoff_ms > BACKOFF_LAST_MS)
        self->backoff_ms = BACKOFF_LAST_MS;
}

static void on_up(struct fl_client *self)
{
    struct fl_wire hello = {.kind = FL_WIRE_HELLO};
    self->up = true;
    self->up_at = self->heard_at = fl_client_now(self);
    memcpy(hello.as.hello.instance, self->instance, sizeof(self->instance));
    fl_wire_set_text(hello.as.hello.software, sizeof(hello.as.hello.software),
                     "fedlora-worker " FL_VERSION);
    if (self->has_offer && self->key.job > self->seen.job)
        hello.as.hello.last_job = self->key.job; /* it has not seen a task of it yet */
    else {
        hello.as.hello.last_job = self->seen.job;
        hello.as.hello.last_round = self->seen.round;
        hello.as.hello.last_attempt = self->seen.attempt;
        hello.as.hello.has_last_version = self->seen.has_version;
        memcpy(hello.as.hello.last_version, self->seen.version, FL_HASH_BYTES);
    }
    (void)!fl_client_send(self, &hello);
}

static enum fl_status on_denied(struct fl_client *self, struct fl_error *error)
{
    int64_t now = fl_client_now(self);
    if (self->denials++ == 0) {
        self->denied_since = now;
        fl_log(
            FL_LOG_WARN, "denied",
            "the coordinator does not accept this site's key (unknown or revoked); trying again");
    }
    if (self->denials >= DENIALS_GIVE_UP && now - self->denied_since >= DENIED_GIVE_UP_MS)
        return fl_fail(error, FL_EREFUSED,
                       "the coordinator at %s does not accept this site's key: it is unknown there "
                       "or was revoked; ask its operator, then start again",
                       self->c.conf->address);
    back_off(self);
    return FL_OK;
}

/* Tell the coordinator where this site stands, and ask again for what is on its way. */
static void repeat(struct fl_client *self)
{
    self->lost = false;
    fl_client_step_fetch(self, &self->start_in, FL_FETCH_ONLINE, NULL);
    fl_client_step_fetch(self, &self->version_in, FL_FETCH_ONLINE, NULL);
    fl_client_event(self, FL_SESSION_WELCOME);
}

static void on_welcome(struct fl_client *self, const struct fl_wire *message)
{
    const struct fl_wire_welcome *w = &message->as.welcome;
    memcpy(self->nonce, w->nonce, FL_NONCE_BYTES);
    fl_wire_set_text(self->name, sizeof(self->name), w->name);
    fl_compute_set_name(self->c.compute, w->name);
    self->heartbeat_ms = w->heartbeat_ms;
    self->liveness_ms = w->liveness_ms;
    self->welcomed = true;
    self->denials = 0;
    self->backoff_ms = BACKOFF_FIRST_MS;
    self->status_dirty = true;
    fl_log(FL_LOG_INFO, "connected", "connected to the coordinator",
           FL_STR("coordinator", self->c.conf->address), FL_STR("name", w->name));
    repeat(self);
}

static void on_goodbye(struct fl_client *self, const struct fl_wire *message)
{
    const struct fl_wire_goodbye *g = &message->as.goodbye;
    fl_log(FL_LOG_WARN, "goodbye", g->text[0] ? g->text : "the coordinator ended the session",
           FL_U64("reason", g->reason), FL_U64("wait_ms", g->wait_ms));
    int64_t wait = g->wait_ms > 3600000 ? 3600000 : g->wait_ms;
    if (wait > 0)
        fl_client_later(self, wait);
    else
        back_off(self);
}

static bool same_session(const struct fl_client *self, const struct fl_wire *message)
{
    return self->welcomed && message->has_nonce &&
           sodium_memcmp(message->nonce, self->nonce, FL_NONCE_BYTES) == 0;
}

static void on_frame(struct fl_client *self, const uint8_t *frame, size_t length)
{
    struct fl_wire message;
    struct fl_error error;
    fl_http_site_frame(self->c.http, 0, length);
    enum fl_status status = fl_wire_decode(frame, length, &message, &error);
    if (status != FL_OK) {
        fl_log(FL_LOG_WARN, "bad_frame", error.text);
        if (status == FL_EFORMAT)
            back_off(self);
        return;
    }
    if (message.kind == FL_WIRE_WELCOME && !self->welcomed) {
        self->heard_at = fl_client_now(self);
        on_welcome(self, &message);
    } else if (message.kind == FL_WIRE_GOODBYE &&
               (!self->welcomed || same_session(self, &message))) {
        on_goodbye(self, &message);
    } else if (same_session(self, &message)) {
        self->heard_at = fl_client_now(self);
        fl_client_take(self, &message);
        fl_client_audit_heard(self, &message);
    }
    fl_wire_free(&message);
}

/* ---- what goes out without being asked ---- */

void fl_client_pump(struct fl_client *self)
{
    struct fl_chunk_message message;
    while (self->welcomed && !self->blocked) {
        enum fl_status status = fl_serve_next(self->serve, &message);
        if (status == FL_ENOTFOUND)
            return;
        if (status != FL_OK) {
            fl_log(FL_LOG_ERROR, "serve_failed", fl_status_text(status));
            continue;
        }
        struct fl_wire frame = {.job = 0};
        fl_bulk_to_wire(&message, &frame);
        status = fl_client_send(self, &frame);
        if (status == FL_EBUSY) {
            self->blocked = true;
            return;
        }
        fl_serve_sent(self->serve);
    }
}

/* To one digit: an exact speed, times the seconds of a round, is the number of its tokens. */
static double coarse(double speed)
{
    if (!isfinite(speed) || speed <= 0.0)
        return 0.0;
    const double unit = pow(10.0, floor(log10(speed)));
    return round(speed / unit) * unit;
}

static void heartbeat(struct fl_client *self)
{
    struct fl_trainer_progress p = fl_compute_progress(self->c.compute);
    struct fl_wire beat = {.kind = FL_WIRE_HEARTBEAT};
    beat.as.heartbeat.activity = p.activity;
    if (p.activity == FL_ACTIVITY_IDLE && self->stage == FL_STAGE_FETCHING)
        beat.as.heartbeat.activity = FL_ACTIVITY_DOWNLOADING;
    if (p.activity == FL_ACTIVITY_IDLE && self->stage == FL_STAGE_UPLOADING)
        beat.as.heartbeat.activity = FL_ACTIVITY_UPLOADING;
    beat.as.heartbeat.step = p.step;
    beat.as.heartbeat.steps = p.steps;
    const double speed = isfinite(p.tokens_per_second) ? p.tokens_per_second : 0.0;
    beat.as.heartbeat.tokens_per_second = self->offer.secure_aggregation ? coarse(speed) : speed;
    (void)!fl_client_send(self, &beat);
    self->sent_at = fl_client_now(self);
}

static void tick(struct fl_client *self)
{
    int64_t now = fl_client_now(self);
    if (now >= self->reset_at) {
        self->reset_at = INT64_MAX;
        if (fl_link_reset(self->c.link) != FL_OK)
            back_off(self);
    }
    if (self->up && !self->welcomed && now - self->up_at > GREETING_MS)
        back_off(self);
    if (self->welcomed && now - self->heard_at > (int64_t)self->liveness_ms) {
        fl_log(FL_LOG_WARN, "coordinator_silent", "nothing was heard for too long; dialling anew");
        back_off(self);
    }
    if (self->welcomed && now - self->sent_at >= (int64_t)self->heartbeat_ms)
        heartbeat(self);
    if (self->start_in.fetch && now >= fl_fetch_due(self->start_in.fetch))
        fl_client_step_fetch(self, &self->start_in, FL_FETCH_TICK, NULL);
    if (self->version_in.fetch && now >= fl_fetch_due(self->version_in.fetch))
        fl_client_step_fetch(self, &self->version_in, FL_FETCH_TICK, NULL);
    fl_client_show_progress(self);
    fl_http_site_tick(self->c.http, self);
    if (self->status_dirty && now >= self->status_at) {
        fl_client_write_status(self);
        self->status_at = now + STATUS_MS / 4;
    }
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t fl_client_wait_ms(const struct fl_client *self)
{
    int64_t now = fl_client_now(self), until = now + 1000;
    until = least(until, self->reset_at);
    if (self->welcomed) {
        until = least(until, self->sent_at + (int64_t)self->heartbeat_ms);
        until = least(until, self->heard_at + (int64_t)self->liveness_ms + 1);
    }
    if (self->start_in.fetch)
        until = least(until, fl_fetch_due(self->start_in.fetch));
    if (self->version_in.fetch)
        until = least(until, fl_fetch_due(self->version_in.fetch));
    if (self->status_dirty)
        until = least(until, self->status_at);
    return until > now ? until - now : 0;
}

static enum fl_status on_link_event(struct fl_client *self, const struct fl_link_event *event,
                                    struct fl_error *error)
{
    switch (event->kind) {
    case FL_LINK_UP:
        on_up(self);
        break;
    case FL_LINK_FRAME:
        if (self->up)
            on_frame(self, event->frame, event->length);
        break;
    case FL_LINK_DRAINED:
        self->blocked = false;
        if (self->lost) /* say again what did not fit */
            repeat(self);
        break;
    case FL_LINK_DOWN:
        if (self->welcomed)
            fl_log(FL_LOG_WARN, "disconnected", "the connection to the coordinator was lost");
        if (self->reset_at == INT64_MAX) /* else it was told how long to stay away */
            back_off(self);
        break;
    case FL_LINK_DENIED:
        return on_denied(self, error);
    case FL_LINK_WAKE:
        for (struct fl_work_result *r = fl_compute_poll(self->c.compute); r;
             r = fl_compute_poll(self->c.compute))
            fl_client_result(self, r);
        break;
    }
    return FL_OK;
}

static void say_goodbye(struct fl_client *self)
{
    struct fl_wire goodbye = {.kind = FL_WIRE_GOODBYE};
    if (!self->welcomed)
        return;
    goodbye.as.goodbye.reason = FL_GOODBYE_SHUTDOWN;
    (void)!fl_client_send(self, &goodbye);
}

enum fl_status fl_client_step(struct fl_client *self, struct fl_error *error)
{
    struct fl_link_event event;
    enum fl_status status = fl_link_next(self->c.link, fl_client_wait_ms(self), &event);
    if (status == FL_OK)
        status = on_link_event(self, &event, error);
    else if (status == FL_ETIMEOUT || status == FL_ESTOPPED)
        status = FL_OK;
    else
        status = fl_fail(error, status, "the network layer failed");
    if (status == FL_OK) {
        tick(self);
        fl_client_pump(self);
    }
    return status;
}

enum fl_status fl_client_run(struct fl_client *self, struct fl_error *error)
{
    enum fl_status status = FL_OK;
    fl_client_write_status(self);
    while (status == FL_OK && !atomic_load(self->c.stop))
        status = fl_client_step(self, error);
    say_goodbye(self);
    session_over(self);
    fl_client_write_status(self);
    return status;
}

/* malice_hub.c - see malice_hub.h. */
#include "malice_hub.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"

/* ---- frames ---- */

static struct hub_frame *push(struct hub *self, uint64_t peer, const void *bytes, size_t length)
{
    struct hub_frame *new = fl_calloc(1, sizeof(*new));
    uint8_t *copy = fl_malloc(length);
    if (!new || !copy)
        abort();
    if (length > 0)
        memcpy(copy, bytes, length);
    *new = (struct hub_frame){.peer = peer, .bytes = copy, .length = length};
    if (self->last)
        self->last->next = new;
    else
        self->first = new;
    self->last = new;
    return new;
}

static enum fl_status hub_next(struct fl_transport *transport, int64_t timeout_ms,
                               struct fl_transport_event *event)
{
    (void)transport, (void)timeout_ms, (void)event;
    return FL_ETIMEOUT;
}

static void note_told(struct hub *self, uint32_t site, const void *frame, size_t length)
{
    struct fl_wire message;
    struct fl_error error;
    if (fl_wire_decode(frame, length, &message, &error) != FL_OK) {
        mal_expect(false, "the coordinator says what cannot be read: %s", error.text);
        return;
    }
    if (site == self->liar && message.kind == FL_WIRE_WELCOME)
        memcpy(self->liar_nonce, message.as.welcome.nonce, FL_NONCE_BYTES);
    if (site == self->liar)
        self->told_kinds |= 1u << message.kind;
    if (self->on_told)
        self->on_told(self, site, &message);
    fl_wire_free(&message);
}

static enum fl_status hub_send(struct fl_transport *transport, fl_peer peer, const void *frame,
                               size_t length)
{
    struct hub *self = (struct hub *)transport;
    uint32_t site = self->owner[peer];
    if (self->peer[site] != peer)
        return FL_ENOTFOUND;
    if (fl_store_crashed())
        return FL_OK; /* said by a process that is dead */
    note_told(self, site, frame, length);
    (void)push(self, peer, frame, length);
    return FL_OK;
}

static void hub_drop(struct fl_transport *transport, fl_peer peer)
{
    struct hub *self = (struct hub *)transport;
    push(self, peer, "", 0)->down = true;
    struct hub_frame *gone = push(self, peer, "", 0);
    gone->gone = gone->to_hub = true;
}

static const struct fl_transport_table hub_table = {
    .next = hub_next, .send = hub_send, .drop = hub_drop};

/* ---- what sites say ---- */

/* No honest site ever says two different things where one would open what the other hides. */
static void watch(struct hub *self, uint32_t site, const struct fl_wire *m)
{
    uint8_t hash[FL_HASH_BYTES];
    struct hub_said *said = &self->said[site];
    if (said->round != m->round || said->attempt != m->attempt) {
        if (m->kind != FL_WIRE_UPLOAD && m->kind != FL_WIRE_SIGNED && m->kind != FL_WIRE_ANSWER)
            return;
        *said = (struct hub_said){.round = m->round, .attempt = m->attempt};
    }
    if (m->kind == FL_WIRE_UPLOAD) {
        said->updates += memcmp(said->update, m->as.upload.update.root, FL_HASH_BYTES) != 0;
        memcpy(said->update, m->as.upload.update.root, FL_HASH_BYTES);
    } else if (m->kind == FL_WIRE_SIGNED) {
        said->signatures += memcmp(said->signature, m->as.signed_.signature, 64) != 0;
        memcpy(said->signature, m->as.signed_.signature, 64);
    } else if (m->kind == FL_WIRE_ANSWER) {
        fl_blake2b(m->as.answer.answer.data, m->as.answer.answer.length, hash);
        said->answers += memcmp(said->answer, hash, FL_HASH_BYTES) != 0;
        memcpy(said->answer, hash, FL_HASH_BYTES);
    }
    mal_expect(said->updates <= 1 && said->signatures <= 1 && said->answers <= 1,
               "site%u says two things in round %u, attempt %u", site, m->round, m->attempt);
}

static void sent(struct mal_site *site, const void *frame, size_t length)
{
    struct hub *self = site->world->owner;
    struct fl_wire message;
    struct fl_error error;
    uint64_t peer = self->peer[site->index];
    if (!peer || fl_wire_decode(frame, length, &message, &error) != FL_OK)
        return;
    if (site->index != self->liar) {
        watch(self, site->index, &message);
        push(self, peer, frame, length)->to_hub = true;
    } else if (!self->lie || self->lie(self, site->index, &message) == SAY) {
        struct fl_buf out;
        fl_buf_init(&out, FL_FRAME_BYTES_MAX);
        if (fl_wire_encode(&message, &out) == FL_OK)
            push(self, peer, out.data, out.length)->to_hub = true;
        fl_buf_free(&out);
    }
    fl_wire_free(&message);
}

void hub_say(struct hub *self, uint32_t site, const struct fl_wire *message)
{
    struct fl_buf out;
    struct fl_wire copy = *message;
    fl_buf_init(&out, FL_FRAME_BYTES_MAX);
    copy.has_nonce = true;
    memcpy(copy.nonce, self->liar_nonce, FL_NONCE_BYTES);
    mal_expect(fl_wire_encode(&copy, &out) == FL_OK, "%s cannot be encoded",
               fl_wire_kind_name(copy.kind));
    if (self->peer[site])
        push(self, self->peer[site], out.data, out.length)->to_hub = true;
    fl_buf_free(&out);
}

/* ---- connections ---- */

static void dialled(struct mal_site *site)
{
    struct hub *self = site->world->owner;
    uint64_t old = self->peer[site->index];
    if (old && self->told[site->index]) {
        struct hub_frame *gone = push(self, old, "", 0);
        gone->gone = gone->to_hub = true;
    }
    self->peer[site->index] = 0;
    if (self->peers + 1 >= sizeof(self->owner) / sizeof(self->owner[0])) {
        mal_expect(false, "too many connections");
        return;
    }
    self->peer[site->index] = ++self->peers;
    self->owner[self->peers] = site->index;
    self->told[site->index] = false;
    (void)push(self, self->peers, "", 0); /* an empty frame: it is up */
}

static void to_site(struct hub *self, const struct hub_frame *frame)
{
    struct mal_site *site = &self->mal.sites[self->owner[frame->peer]];
    char user[FL_USER_BYTES];
    const struct fl_link_event down = {.kind = FL_LINK_DOWN}, denied = {.kind = FL_LINK_DENIED},
                               up = {.kind = FL_LINK_UP};
    if (self->peer[site->index] != frame->peer)
        return;
    if (frame->down) {
        self->peer[site->index] = 0;
        mal_event(site, &down);
    } else if (frame->length > 0) {
        mal_frame(site, frame->bytes, frame->length);
    } else if (self->server) {
        bool known = fl_server_zap(self->server, site->identity.x25519, user) == FL_ZAP_ALLOW;
        mal_event(site, known ? &up : &denied);
    }
}

static void hub_hears(struct hub *self, const struct hub_frame *frame)
{
    uint32_t site = self->owner[frame->peer];
    struct fl_transport_event event = {.kind = FL_TRANSPORT_FRAME,
                                       .port = FL_PORT_SESSION,
                                       .peer = frame->peer,
                                       .user = self->mal.sites[site].name,
                                       .address = "127.0.0.1",
                                       .frame = frame->bytes,
                                       .length = frame->length};
    if (!self->server || (self->peer[site] != frame->peer && !frame->gone))
        return;
    self->mal.now++;
    if (frame->gone)
        event.kind = FL_TRANSPORT_GONE;
    else if (!self->told[site]) {
        struct fl_transport_event opened = event;
        opened.kind = FL_TRANSPORT_OPENED;
        self->told[site] = true;
        fl_server_event(self->server, &opened);
    }
    fl_server_event(self->server, &event);
}

/* ---- the coordinator's life ---- */

static void start(struct hub *self)
{
    struct fl_error error = {FL_OK, ""};
    const struct fl_server_options options = {.exit_when_idle = false, .threaded = false};
    enum fl_status status = fl_desk_open(self->directory, &self->mal.clock, &self->desk, &error);
    if (status == FL_OK)
        status = fl_server_create(self->desk, &options, &self->server, &error);
    mal_expect(status == FL_OK, "the coordinator does not start: %s", error.text);
    if (status == FL_OK)
        fl_server_attach(self->server, &self->transport);
}

static void stop(struct hub *self)
{
    fl_server_destroy(&self->server);
    fl_desk_close(&self->desk);
}

static void forget_frames(struct hub *self)
{
    while (self->first) {
        struct hub_frame *next = self->first->next;
        fl_free(self->first->bytes);
        fl_free(self->first);
        self->first = next;
    }
    self->last = NULL;
}

void hub_crash(struct hub *self)
{
    self->crashes++;
    stop(self);
    fl_store_crash_at(-1);
    forget_frames(self);
    start(self);
    for (uint32_t i = 0; i < self->mal.count; i++) {
        self->told[i] = false;
        if (self->peer[i])
            push(self, self->peer[i], "", 0)->down = true;
    }
}

/* ---- the world ---- */

static bool make_job(struct hub *self, const char *more, struct fl_error *error)
{
    static const char masked[] = "[privacy]\nsecure_aggregation = on\nupdate_range = 0.5\n";
    struct fl_buf text;
    int64_t id;
    struct fl_job_spec *spec = fl_calloc(1, sizeof(*spec));
    fl_buf_init(&text, 65536);
    fl_buf_printf(&text,
                  "[job]\nname = malice\nrounds = 2\nstrategy = alternating\nseed = 5\n"
                  "[model]\nname = tiny\nsha256 = %064d\n"
                  "[lora]\ntargets = q_proj,v_proj\nalpha = 8\n"
                  "[train]\nsteps = 2\nbatch_size = 2\nseq_len = 8\nlr = 0.05\n"
                  "%s%s%s",
                  7, strstr(more, "[privacy]") ? "" : masked,
                  strstr(more, "[ranks]") ? "" : "[ranks]\ndefault = 4\n", more);
    enum fl_status status = spec ? fl_job_parse(fl_buf_text(&text), text.length, "job.conf", spec,
                                                error)
                                 : fl_fail_memory(error);
    if (status == FL_OK)
        status = fl_queue_submit(self->desk->store, spec, fl_clock_wall(&self->mal.clock), &id,
                                 error);
    fl_buf_free(&text);
    fl_free(spec);
    return status == FL_OK;
}

bool hub_open(struct hub *self, uint32_t sites, const char *job)
{
    struct fl_error error = {FL_OK, "no directory"};
    memset(self, 0, sizeof(*self));
    self->transport.table = &hub_table;
    self->mal.owner = self;
    self->mal.sent = sent;
    self->mal.dialled = dialled;
    self->liar = sites - 1;
    record_log(self);
    const char *policy = strstr(job, "[privacy]") ? "require_secure_aggregation = off\n" : "";
    bool good = mal_make(&self->mal, sites, policy) &&
                fl_path_join(self->directory, self->mal.directory, "hub", &error) == FL_OK &&
                fl_desk_create(self->directory, NULL, NULL, &error) == FL_OK;
    if (good)
        start(self);
    good = good && self->server;
    for (uint32_t i = 0; i < sites && good; i++)
        good = fl_roster_add(self->desk->roster, self->mal.sites[i].name,
                             &self->mal.sites[i].identity, fl_clock_wall(&self->mal.clock),
                             &error) == FL_OK;
    good = good && make_job(self, job, &error);
    for (uint32_t i = 0; i < sites && good; i++)
        mal_start(&self->mal.sites[i]);
    mal_expect(good, "no world: %s", error.text);
    return good;
}

void hub_close(struct hub *self)
{
    record_log(NULL);
    garble_updates("", GARBLE_NOTHING);
    fl_store_crash_at(-1);
    stop(self);
    forget_frames(self);
    mal_free(&self->mal);
}

/* ---- time ---- */

static bool deliver(struct hub *self)
{
    struct hub_frame *frame = self->first;
    if (!frame)
        return false;
    self->first = frame->next;
    if (!self->first)
        self->last = NULL;
    if (frame->to_hub)
        hub_hears(self, frame);
    else
        to_site(self, frame);
    fl_free(frame->bytes);
    fl_free(frame);
    return true;
}

static bool collect(struct hub *self)
{
    struct pollfd wake = {.fd = self->server ? fl_server_wake_fd(self->server) : -1,
                          .events = POLLIN};
    const struct fl_transport_event event = {.kind = FL_TRANSPORT_WAKE};
    if (wake.fd < 0 || poll(&wake, 1, 0) != 1)
        return false;
    fl_server_event(self->server, &event);
    return true;
}

static void see_job(struct hub *self)
{
    struct fl_error error;
    if (self->desk && fl_queue_get(self->desk->store, 1, &self->job, &error) == FL_OK)
        self->phases |= 1u << self->job.phase;
}

bool hub_step(struct hub *self)
{
    bool busy = deliver(self);
    for (uint32_t i = 0; i < self->mal.count; i++)
        busy = mal_work(&self->mal.sites[i]) || busy;
    busy = collect(self) || busy;
    if (fl_store_crashed()) {
        hub_crash(self);
        return true;
    }
    if (!busy) {
        self->mal.now += 500;
        fl_server_tick(self->server);
        for (uint32_t i = 0; i < self->mal.count; i++)
            mal_event(&self->mal.sites[i], NULL);
    }
    if (fl_store_crashed()) {
        hub_crash(self);
        return true;
    }
    if (self->restart) {
        self->restart = false;
        mal_kill(&self->mal.sites[self->liar]);
        mal_start(&self->mal.sites[self->liar]);
    }
    see_job(self);
    return self->job.state == FL_JOB_QUEUED || self->job.state == FL_JOB_RUNNING;
}

void hub_run(struct hub *self)
{
    while (hub_step(self)) {
        if (self->mal.now > HUB_WALKS_MS) {
            mal_expect(false, "the job does not end: round %u, attempt %u, phase %s: %s",
                       self->job.round, self->job.attempt, fl_round_state_name(self->job.phase),
                       self->job.reason);
            return;
        }
    }
}

const struct hub_record *hub_find(const struct hub *self, const char *event, const char *worker)
{
    for (uint32_t i = 0; i < self->record_count; i++) {
        if (strcmp(self->records[i].event, event) == 0 &&
            (!worker || strcmp(self->records[i].worker, worker) == 0))
            return &self->records[i];
    }
    return NULL;
}

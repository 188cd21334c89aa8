/* fake_link.c - see fake_link.h. */
#include "fake_link.h"

#include "net/bulk.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fs.h"
#include "runner.h"

#define PATIENCE_SECONDS         8.0
#define PATIENCE_TORTURE_SECONDS 0.4 /* a refused allocation may mean that nothing ever comes */

/* Is it too late for what was to come? */
static bool late(double since)
{
    bool fault = fl_alloc_fault_fired() || fl_fs_fault_fired();
    return fl_clock_seconds() - since > (fault ? PATIENCE_TORTURE_SECONDS : PATIENCE_SECONDS);
}

/* ---- the link, called by the site's I/O thread ---- */

static enum fl_status link_next(struct fl_link *link, int64_t timeout_ms,
                                struct fl_link_event *event)
{
    struct fake *self = (struct fake *)link;
    struct pollfd wake = {.fd = self->wake_fd, .events = POLLIN};
    (void)timeout_ms; /* the clock stands still: look again soon */
    pthread_mutex_lock(&self->mutex);
    bool here = self->in_head != self->in_tail;
    if (here) {
        fl_free(self->current.bytes);
        self->current = self->in[self->in_head++ % FAKE_QUEUE];
        *event = (struct fl_link_event){self->current.kind, self->current.bytes,
                                        self->current.length};
    }
    self->idles += !here;
    pthread_mutex_unlock(&self->mutex);
    if (here)
        return FL_OK;
    if (poll(&wake, 1, 1) > 0) {
        *event = (struct fl_link_event){.kind = FL_LINK_WAKE};
        return FL_OK;
    }
    return FL_ETIMEOUT;
}

static enum fl_status link_send(struct fl_link *link, const void *frame, size_t length)
{
    struct fake *self = (struct fake *)link;
    enum fl_status status = FL_OK;
    uint8_t *copy = fl_malloc(length);
    pthread_mutex_lock(&self->mutex);
    if (self->busy || self->out_tail - self->out_head == FAKE_QUEUE)
        status = FL_EBUSY;
    else if (!copy)
        status = FL_ENOMEM;
    else {
        memcpy(copy, frame, length);
        self->out[self->out_tail++ % FAKE_QUEUE] = (struct fake_frame){FL_LINK_FRAME, copy, length};
        copy = NULL;
    }
    pthread_mutex_unlock(&self->mutex);
    fl_free(copy);
    return status;
}

static enum fl_status link_reset(struct fl_link *link)
{
    struct fake *self = (struct fake *)link;
    pthread_mutex_lock(&self->mutex);
    self->resets++;
    pthread_mutex_unlock(&self->mutex);
    return FL_OK;
}

static const struct fl_link_table table = {link_next, link_send, link_reset};

static int64_t now_ms(void *context)
{
    struct fake *self = context;
    return atomic_load(&self->now_ms);
}

static int64_t wall_ms(void *context)
{
    return now_ms(context) + 1700000000000;
}

static void *run(void *context)
{
    struct fake *self = context;
    enum fl_status status = fl_client_run(self->client, &self->error);
    pthread_mutex_lock(&self->mutex);
    self->status = status;
    self->ended = true;
    pthread_mutex_unlock(&self->mutex);
    return NULL;
}

/* ---- the test's side ---- */

void fake_open(struct fake *self, struct stub_site *site)
{
    struct fl_error error;
    struct fl_trainer trainer = stub_trainer(&site->stub);
    memset(self, 0, sizeof(*self));
    self->link.table = &table;
    self->site = site;
    self->key = (struct fl_attempt){9, 1, 1};
    self->clock = (struct fl_clock){now_ms, wall_ms, self};
    atomic_store(&self->now_ms, 1000000);
    pthread_mutex_init(&self->mutex, NULL);
    ck_assert_int_eq(fl_shelf_create(&self->shelf), FL_OK);
    ck_assert_int_eq(fl_serve_create(self->shelf, &self->serve), FL_OK);
    fl_assert_ok(fl_compute_start(site->conf, &site->store, &trainer, &self->compute, &error),
                 &error);
    self->wake_fd = fl_compute_fd(self->compute);
    const struct fl_client_config config = {.conf = site->conf,
                                            .store = &site->store,
                                            .compute = self->compute,
                                            .link = &self->link,
                                            .clock = &self->clock,
                                            .stop = &self->stop};
    fl_assert_ok(fl_client_create(&config, &self->client, &error), &error);
    ck_assert_int_eq(pthread_create(&self->thread, NULL, run, self), 0);
}

void fake_join(struct fake *self)
{
    if (self->thread)
        pthread_join(self->thread, NULL);
    self->thread = 0;
}

void fake_close(struct fake *self)
{
    atomic_store(&self->stop, 1);
    fake_join(self);
    fl_client_destroy(&self->client);
    fl_compute_stop(&self->compute);
    for (; self->in_head != self->in_tail; self->in_head++)
        fl_free(self->in[self->in_head % FAKE_QUEUE].bytes);
    for (; self->out_head != self->out_tail; self->out_head++)
        fl_free(self->out[self->out_head % FAKE_QUEUE].bytes);
    fl_free(self->current.bytes);
    if (self->has_last)
        fl_wire_free(&self->last);
    fl_serve_destroy(&self->serve);
    fl_shelf_destroy(&self->shelf);
    pthread_mutex_destroy(&self->mutex);
}

static void push(struct fake *self, enum fl_link_event_kind kind, uint8_t *bytes, size_t length)
{
    pthread_mutex_lock(&self->mutex);
    ck_assert_uint_lt(self->in_tail - self->in_head, FAKE_QUEUE);
    self->in[self->in_tail++ % FAKE_QUEUE] = (struct fake_frame){kind, bytes, length};
    pthread_mutex_unlock(&self->mutex);
}

void fake_event(struct fake *self, enum fl_link_event_kind kind)
{
    push(self, kind, NULL, 0);
}

struct fl_wire fake_message(const struct fake *self, enum fl_wire_kind kind)
{
    struct fl_wire message = {.kind = kind, .has_nonce = true};
    memcpy(message.nonce, self->nonce, FL_NONCE_BYTES);
    message.job = self->key.job;
    message.round = self->key.round;
    message.attempt = self->key.attempt;
    return message;
}

void fake_send(struct fake *self, const struct fl_wire *message)
{
    struct fl_buf frame;
    fl_buf_init(&frame, FL_FRAME_BYTES_MAX);
    ck_assert_msg(fl_wire_encode(message, &frame) == FL_OK, "%s", fl_wire_kind_name(message->kind));
    uint8_t *copy = fl_malloc(frame.length);
    ck_assert(copy != NULL);
    memcpy(copy, frame.data, frame.length);
    push(self, FL_LINK_FRAME, copy, frame.length);
    fl_buf_free(&frame);
}

static struct fl_wire wire_of_chunk(const struct fake *self, const struct fl_chunk_message *m)
{
    struct fl_wire out = fake_message(self, FL_WIRE_MISSING);
    fl_bulk_to_wire(m, &out);
    return out;
}

static void answer_need(struct fake *self, const struct fl_wire *m)
{
    struct fl_chunk_message need = {.kind = FL_CHUNK_NEED,
                                    .pages = m->as.need.pages,
                                    .index = m->as.need.first,
                                    .count = m->as.need.count};
    struct fl_chunk_message answer;
    memcpy(need.root, m->as.need.root, FL_HASH_BYTES);
    ck_assert_int_eq(fl_serve_need(self->serve, &need), FL_OK);
    while (fl_serve_next(self->serve, &answer) == FL_OK) {
        struct fl_wire frame = wire_of_chunk(self, &answer);
        fake_send(self, &frame);
        fl_serve_sent(self->serve);
    }
}

/* The next frame of the site's, decoded into last; false: none yet. */
static bool take(struct fake *self)
{
    struct fake_frame frame = {0};
    struct fl_error error;
    pthread_mutex_lock(&self->mutex);
    if (self->out_head != self->out_tail)
        frame = self->out[self->out_head++ % FAKE_QUEUE];
    pthread_mutex_unlock(&self->mutex);
    if (!frame.bytes)
        return false;
    if (self->has_last)
        fl_wire_free(&self->last);
    self->has_last = false;
    enum fl_status status = fl_wire_decode(frame.bytes, frame.length, &self->last, &error);
    fl_free(frame.bytes);
    fl_assert_ok(status, &error);
    self->has_last = true;
    self->seen[self->last.kind]++;
    /* everything but HELLO carries the session's nonce */
    if (self->last.kind != FL_WIRE_HELLO)
        ck_assert(self->last.has_nonce &&
                  memcmp(self->last.nonce, self->nonce, FL_NONCE_BYTES) == 0);
    if (self->last.kind == FL_WIRE_NEED && !self->silent)
        answer_need(self, &self->last);
    return true;
}

const struct fl_wire *fake_await(struct fake *self, enum fl_wire_kind kind)
{
    double since = fl_clock_seconds();
    while (!late(since)) {
        if (!take(self))
            usleep(500);
        else if (self->last.kind == kind)
            return &self->last;
    }
    ck_abort_msg("no %s came", fl_wire_kind_name(kind));
    return NULL;
}

const struct fl_wire *fake_ask(struct fake *self, const struct fl_wire *question,
                               enum fl_wire_kind answer)
{
    double since = fl_clock_seconds();
    while (!late(since)) {
        double again = fl_clock_seconds() + 0.2;
        fake_send(self, question);
        while (fl_clock_seconds() < again) {
            if (!take(self))
                usleep(500);
            else if (self->last.kind == answer)
                return &self->last;
        }
    }
    ck_abort_msg("no %s came", fl_wire_kind_name(answer));
    return NULL;
}

void fake_nothing(struct fake *self, enum fl_wire_kind kind)
{
    double until = fl_clock_seconds() + 0.06;
    while (fl_clock_seconds() < until) {
        if (!take(self))
            usleep(500);
        else
            ck_assert_msg(self->last.kind != kind, "%s came", fl_wire_kind_name(kind));
    }
}

void fake_greet(struct fake *self)
{
    struct fl_wire welcome = {.kind = FL_WIRE_WELCOME};
    fake_event(self, FL_LINK_UP);
    (void)fake_await(self, FL_WIRE_HELLO);
    self->nonce[0]++;
    memcpy(welcome.as.welcome.nonce, self->nonce, FL_NONCE_BYTES);
    fl_wire_set_text(welcome.as.welcome.name, FL_NAME_BYTES, "ward-3");
    welcome.as.welcome.heartbeat_ms = 5000;
    welcome.as.welcome.liveness_ms = 30000;
    fake_send(self, &welcome);
}

static unsigned resets(struct fake *self)
{
    pthread_mutex_lock(&self->mutex);
    unsigned count = self->resets;
    pthread_mutex_unlock(&self->mutex);
    return count;
}

void fake_await_resets(struct fake *self, unsigned count)
{
    double since = fl_clock_seconds();
    while (resets(self) < count && !late(since))
        usleep(500);
    ck_assert_uint_eq(resets(self), count);
}

/* Wait until the site has taken all that was sent, and has gone round its loop after it. */
static void settle(struct fake *self)
{
    double since = fl_clock_seconds();
    unsigned first = 0, idles;
    bool empty = false, begun = false;
    do {
        pthread_mutex_lock(&self->mutex);
        empty = self->in_head == self->in_tail;
        idles = self->idles;
        bool ended = self->ended;
        pthread_mutex_unlock(&self->mutex);
        if (ended)
            return;
        if (!empty || !begun)
            first = idles;
        begun = true;
        usleep(200);
    } while ((!empty || idles - first < 2) && !late(since));
}

void fake_pass(struct fake *self, int64_t ms)
{
    settle(self);
    atomic_fetch_add(&self->now_ms, ms);
    settle(self);
}

void fake_reconnect(struct fake *self)
{
    unsigned before = resets(self);
    fl_serve_clear(self->serve);
    fake_event(self, FL_LINK_DOWN);
    fake_pass(self, 10001);
    fake_await_resets(self, before + 1);
    while (take(self)) /* of the old session */
        ;
    fake_greet(self);
}

static void fetch_step(struct fake *self, struct fl_fetch *fetch, enum fl_fetch_event event,
                       const struct fl_chunk_message *message)
{
    struct fl_fetch_effects effects = {.count = 0};
    (void)fl_fetch_step(fetch, event, message, 0, &effects);
    for (size_t i = 0; i < effects.count; i++) {
        struct fl_wire need = wire_of_chunk(self, &effects.messages[i]);
        fake_send(self, &need);
    }
}

static void take_chunk(struct fake *self, struct fl_fetch *fetch)
{
    struct fl_chunk_message c;
    if (fl_bulk_from_wire(&self->last, &c))
        fetch_step(self, fetch, FL_FETCH_MESSAGE, &c);
}

void fake_await_file(struct fake *self, const char *name)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    double since = fl_clock_seconds();
    fl_assert_ok(fl_sitestore_path(&self->site->store, name, path, &error), &error);
    while (!fl_path_exists(path) && !late(since)) {
        if (!take(self))
            usleep(500);
    }
    ck_assert_msg(fl_path_exists(path), "%s", name);
}

void fake_await_run(struct fake *self)
{
    double since = fl_clock_seconds();
    while (atomic_load(&self->site->stub.runs) == 0 && !late(since)) {
        if (!take(self))
            usleep(500);
    }
    ck_assert_int_gt(atomic_load(&self->site->stub.runs), 0);
}

void fake_fetch(struct fake *self, const struct fl_object_ref *ref, struct fl_buf *out)
{
    struct fl_fetch_config config = {
        .size = ref->size, .size_max = 1u << 24, .progress_ms = 1000000};
    struct fl_fetch *fetch;
    struct fl_error error;
    size_t length;
    double since = fl_clock_seconds();
    memcpy(config.root, ref->root, FL_HASH_BYTES);
    fl_buf_init(out, 1u << 24);
    fl_assert_ok(fl_fetch_open(&config, &fetch, &error), &error);
    fetch_step(self, fetch, FL_FETCH_ONLINE, NULL);
    while (fl_fetch_state(fetch) != FL_FETCH_DONE && !late(since)) {
        if (!take(self))
            usleep(500);
        else
            take_chunk(self, fetch);
    }
    ck_assert_int_eq(fl_fetch_state(fetch), FL_FETCH_DONE);
    const uint8_t *bytes = fl_fetch_data(fetch, &length);
    fl_buf_append(out, bytes, length);
    fl_fetch_close(&fetch);
}

void fake_offer_object(struct fake *self, const void *bytes, size_t length,
                       struct fl_object_ref *ref)
{
    struct fl_object *object;
    struct fl_error error;
    fl_assert_ok(fl_object_open_memory(bytes, length, &object, &error), &error);
    memcpy(ref->root, fl_object_root(object), FL_HASH_BYTES);
    ref->size = length;
    ck_assert_int_eq(fl_shelf_put(self->shelf, &object), FL_OK);
}

void fake_offer_start(struct fake *self, struct fl_object_ref *ref)
{
    struct fl_error error;
    struct fl_buf bytes;
    struct fl_adapter *adapter = stub_start(1);
    fl_buf_init(&bytes, 1u << 20);
    fl_assert_ok(fl_adapter_encode(adapter, &bytes, &error), &error);
    fl_adapter_destroy(&adapter);
    fake_offer_object(self, bytes.data, bytes.length, ref);
    fl_buf_free(&bytes);
}

const struct fl_wire_fit *fake_offer_round(struct fake *self, const struct fl_wire_offer *offer)
{
    struct fl_wire m = fake_message(self, FL_WIRE_OFFER);
    m.as.offer = *offer;
    fake_send(self, &m);
    return &fake_await(self, FL_WIRE_FIT)->as.fit;
}

void fake_give_task(struct fake *self, const struct fl_object_ref *start,
                    const uint8_t ranks[2 * STUB_MODULES])
{
    struct fl_wire m = fake_message(self, FL_WIRE_TASK);
    m.as.task.start = *start;
    m.as.task.global_ranks = (struct fl_wire_bytes){ranks, 2 * STUB_MODULES};
    m.as.task.site_ranks = m.as.task.global_ranks;
    m.as.task.train = m.as.task.train_a = m.as.task.train_b = true;
    fake_send(self, &m);
}

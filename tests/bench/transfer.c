/*
 * transfer.c - how fast a bulk object travels over loopback under CURVE, hashing and .part file
 * included: a server thread gives a 20 MB object to a link, which fetches it.
 *
 *   bench_transfer [MEGABYTES [TIMES]]     one JSON object a line: MB/s (10^6 bytes a second)
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "net/chunks.h"
#include "net/zmq_transport.h"

/* A frame here: kind (u8), pages (u8), index, count (u32), size (u64), root (32), data. */
#define HEAD_BYTES (2 + 4 + 4 + 8 + FL_HASH_BYTES)

static atomic_bool stop;

static size_t encode(const struct fl_chunk_message *m, uint8_t *frame)
{
    frame[0] = (uint8_t)m->kind;
    frame[1] = m->pages;
    fl_store_u32(frame + 2, m->index);
    fl_store_u32(frame + 6, m->count);
    fl_store_u64(frame + 10, m->size);
    memcpy(frame + 18, m->root, FL_HASH_BYTES);
    if (m->length > 0)
        memcpy(frame + HEAD_BYTES, m->data, m->length);
    return HEAD_BYTES + m->length;
}

static struct fl_chunk_message decode(const uint8_t *frame, size_t length)
{
    struct fl_chunk_message m = {.kind = (enum fl_chunk_kind)frame[0], .pages = frame[1] != 0};
    m.index = fl_load_u32(frame + 2);
    m.count = fl_load_u32(frame + 6);
    m.size = fl_load_u64(frame + 10);
    memcpy(m.root, frame + 18, FL_HASH_BYTES);
    m.data = frame + HEAD_BYTES;
    m.length = length - HEAD_BYTES;
    return m;
}

static void check(enum fl_status status, const struct fl_error *error)
{
    if (status == FL_OK)
        return;
    fprintf(stderr, "bench_transfer: %s\n", error ? error->text : fl_status_text(status));
    exit(1);
}

static enum fl_zap_answer allow(void *context, const uint8_t *key, char *user)
{
    (void)context, (void)key;
    memcpy(user, "site", 5);
    return FL_ZAP_ALLOW;
}

struct giver {
    struct fl_transport *server;
    struct fl_serve *serve;
};

static void *give(void *argument)
{
    static uint8_t frame[FL_FRAME_BYTES_MAX];
    struct giver *self = argument;
    struct fl_transport_event event;
    struct fl_chunk_message m;
    fl_peer peer = 0;
    while (!atomic_load(&stop)) {
        if (fl_transport_next(self->server, 50, &event) == FL_OK &&
            event.kind == FL_TRANSPORT_FRAME) {
            peer = event.peer;
            m = decode(event.frame, event.length);
            check(fl_serve_need(self->serve, &m), NULL);
        }
        while (peer && fl_serve_next(self->serve, &m) == FL_OK &&
               fl_transport_send(self->server, peer, frame, encode(&m, frame)) == FL_OK)
            fl_serve_sent(self->serve);
    }
    return NULL;
}

static void send_all(struct fl_link *link, const struct fl_fetch_effects *effects)
{
    uint8_t frame[HEAD_BYTES];
    for (size_t i = 0; i < effects->count; i++)
        check(fl_link_send(link, frame, encode(&effects->messages[i], frame)), NULL);
}

static double fetch(struct fl_link *link, const uint8_t *root, uint64_t size, const char *part)
{
    struct fl_error error;
    struct fl_fetch_config config = {
        .size = size, .size_max = size, .part_path = part, .progress_ms = 10000};
    struct fl_fetch *fetch = NULL;
    struct fl_fetch_effects effects;
    struct fl_link_event event;
    memcpy(config.root, root, FL_HASH_BYTES);
    (void)unlink(part);
    const double start = fl_clock_seconds();
    check(fl_fetch_open(&config, &fetch, &error), &error);
    enum fl_fetch_state state = fl_fetch_step(fetch, FL_FETCH_ONLINE, NULL, 0, &effects);
    send_all(link, &effects);
    while (state != FL_FETCH_DONE) {
        check(fl_link_next(link, 10000, &event), NULL);
        if (event.kind != FL_LINK_FRAME)
            continue;
        const struct fl_chunk_message m = decode(event.frame, event.length);
        state = fl_fetch_step(fetch, FL_FETCH_MESSAGE, &m, fl_clock_now(fl_clock_system()),
                              &effects);
        if (state == FL_FETCH_FAILED)
            check(FL_EIO, fl_fetch_error(fetch));
        send_all(link, &effects);
    }
    fl_fetch_close(&fetch);
    return fl_clock_seconds() - start;
}

static void measure(struct giver *giver, struct fl_keys *site, struct fl_keys *coordinator,
                    struct fl_object *object, int times)
{
    struct fl_error error;
    struct fl_link *link = NULL;
    struct fl_link_event event = {.kind = FL_LINK_DOWN};
    pthread_t thread;
    char part[] = "/tmp/bench-transfer-XXXXXX";
    const int fd = mkstemp(part);
    const struct fl_link_config config = {
        .endpoint = fl_server_endpoint(giver->server, FL_PORT_SESSION),
        .server_key = fl_keys_public(coordinator)->x25519,
        .keys = site,
        .wake_fd = -1};
    check(fd >= 0 && pthread_create(&thread, NULL, give, giver) == 0 ? FL_OK : FL_EIO, NULL);
    (void)close(fd);
    check(fl_link_open(&config, &link, &error), &error);
    while (event.kind != FL_LINK_UP)
        check(fl_link_next(link, 10000, &event), NULL);
    const uint64_t size = fl_object_size(object);
    for (int i = 0; i < times; i++) {
        const double seconds = fetch(link, fl_object_root(object), size, part);
        printf("{\"bytes\":%" PRIu64 ",\"seconds\":%.4f,\"megabytes_per_second\":%.1f}\n", size,
               seconds, (double)size / seconds / 1e6);
    }
    atomic_store(&stop, true);
    (void)pthread_join(thread, NULL);
    fl_link_close(&link);
    (void)unlink(part);
}

int main(int argc, char **argv)
{
    uint64_t megabytes = 20, times = 5;
    struct fl_error error = {0};
    if ((argc > 1 && fl_parse_u64(argv[1], 1, 4000, &megabytes) != FL_OK) ||
        (argc > 2 && fl_parse_u64(argv[2], 1, 1000, &times) != FL_OK))
        return 2;
    fl_hash_init();
    const size_t size = (size_t)megabytes * 1000000;
    uint8_t *bytes = fl_malloc(size);
    struct fl_keys *coordinator = NULL, *site = NULL;
    struct fl_shelf *shelf = NULL;
    struct fl_object *object = NULL;
    struct giver giver = {0};
    check(bytes ? FL_OK : FL_ENOMEM, NULL);
    fl_entropy_bytes(fl_entropy_system(), bytes, size);
    check(fl_keys_generate(fl_entropy_system(), &coordinator), NULL);
    check(fl_keys_generate(fl_entropy_system(), &site), NULL);
    const double start = fl_clock_seconds();
    check(fl_object_open_memory(bytes, size, &object, &error), &error);
    printf("{\"hash_megabytes_per_second\":%.1f}\n",
           (double)size / (fl_clock_seconds() - start) / 1e6);
    struct fl_object *borrowed = object;
    check(fl_shelf_create(&shelf), NULL);
    check(fl_shelf_put(shelf, &object), NULL);
    check(fl_serve_create(shelf, &giver.serve), NULL);
    const struct fl_server_config config = {
        .session = "tcp://127.0.0.1:0", .keys = coordinator, .decide = allow, .wake_fd = -1};
    check(fl_server_open(&config, &giver.server, &error), &error);
    measure(&giver, site, coordinator, borrowed, (int)times);
    fl_server_close(&giver.server);
    fl_serve_destroy(&giver.serve);
    fl_shelf_destroy(&shelf);
    fl_keys_destroy(&coordinator);
    fl_keys_destroy(&site);
    fl_free(bytes);
    return 0;
}

/*
 * fake_link.h - a coordinator for tests, as a site sees it: frames in and out of a fl_link without
 * sockets, a clock that only the test moves, and the site's I/O thread running behind it.
 *
 * The fake answers NEED from its shelf (unless `silent`) and can fetch what the site offers.
 * Threads: the test's thread calls everything here; fake_link.c locks what the I/O thread shares.
 */
#ifndef FL_TESTS_FAKE_LINK_H
#define FL_TESTS_FAKE_LINK_H

#include <pthread.h>

#include "net/chunks.h"
#include "net/transport.h"
#include "proto/wire.h"
#include "stub_site.h"
#include "worker/client.h"

#define FAKE_QUEUE 256

struct fake_frame {
    enum fl_link_event_kind kind;
    uint8_t *bytes; /* owned */
    size_t length;
};

struct fake {
    struct fl_link link; /* first: the table's functions take it */
    pthread_mutex_t mutex;
    struct fake_frame in[FAKE_QUEUE], out[FAKE_QUEUE]; /* to the site; from it */
    unsigned in_head, in_tail, out_head, out_tail, resets, idles;
    struct fake_frame current; /* what the site reads now */
    bool busy;                 /* refuse what the site sends */
    bool silent;               /* do not answer NEED */
    atomic_llong now_ms;
    atomic_int stop;
    struct fl_clock clock;
    int wake_fd;

    struct stub_site *site; /* borrowed */
    struct fl_compute *compute;
    struct fl_client *client;
    pthread_t thread;
    bool ended;
    enum fl_status status; /* of fl_client_run() */
    struct fl_error error;

    uint8_t nonce[FL_NONCE_BYTES];
    struct fl_attempt key; /* of the messages that fake_message() makes */
    struct fl_shelf *shelf;
    struct fl_serve *serve;
    struct fl_wire last; /* what fake_await() found; freed by the next one */
    bool has_last;
    unsigned seen[FL_WIRE_KIND_COUNT]; /* messages taken so far */
};

/* Start the site's threads on a fake link that is not up yet. */
void fake_open(struct fake *self, struct stub_site *site);
void fake_close(struct fake *self);
/* Wait until fl_client_run() has returned. */
void fake_join(struct fake *self);

void fake_event(struct fake *self, enum fl_link_event_kind kind);
/* A message of this session and of key. */
struct fl_wire fake_message(const struct fake *self, enum fl_wire_kind kind);
void fake_send(struct fake *self, const struct fl_wire *message);
/* UP, HELLO, WELCOME. */
void fake_greet(struct fake *self);
/* DOWN, the site dials anew, and the greeting. */
void fake_reconnect(struct fake *self);
/* Move the clock once the site has taken what was sent; returns when it has noticed. */
void fake_pass(struct fake *self, int64_t ms);

/* The next message of that kind; others are taken and counted (NEED is answered). */
const struct fl_wire *fake_await(struct fake *self, enum fl_wire_kind kind);
/* Ask until that answer comes, as a coordinator does that got none. */
const struct fl_wire *fake_ask(struct fake *self, const struct fl_wire *question,
                               enum fl_wire_kind answer);
/* Nothing of that kind comes for a while. */
void fake_nothing(struct fake *self, enum fl_wire_kind kind);
void fake_await_resets(struct fake *self, unsigned count);
/* Answer NEED until that file of the site's is there, or until the trainer has begun. */
void fake_await_file(struct fake *self, const char *name);
void fake_await_run(struct fake *self);
/* Offer a round; returns the site's answer, good until the next message is awaited. */
const struct fl_wire_fit *fake_offer_round(struct fake *self, const struct fl_wire_offer *offer);
/* Its task: all of the start's STUB_MODULES modules, A and B, at these ranks. */
void fake_give_task(struct fake *self, const struct fl_object_ref *start,
                    const uint8_t ranks[2 * STUB_MODULES]);
/* Fetch an object of the site's; the caller frees *out. */
void fake_fetch(struct fake *self, const struct fl_object_ref *ref, struct fl_buf *out);
/* Put bytes on the shelf and fill in the reference. */
void fake_offer_object(struct fake *self, const void *bytes, size_t length,
                       struct fl_object_ref *ref);
/* The same with stub_start(1). */
void fake_offer_start(struct fake *self, struct fl_object_ref *ref);

#endif

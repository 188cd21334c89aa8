/*
 * client.h - the I/O thread of a site's daemon: one link to the coordinator, heartbeats, the
 * session machine (session.h) and what its actions send, bulk objects both ways, and the status
 * file. All that takes time happens in the work thread (compute.h).
 *
 * Times: reconnects back off with jitter from 0.25 s to 10 s; a coordinator that is silent for
 * liveness_ms is given up and dialled anew; a denied key is tried again and given up, FL_EREFUSED,
 * after three denials over at least 60 s.
 * Threads: everything here belongs to the thread that calls fl_client_run().
 */
#ifndef FL_WORKER_CLIENT_H
#define FL_WORKER_CLIENT_H

#include <stdatomic.h>

#include "base/clock.h"
#include "net/transport.h"
#include "worker/compute.h"
#include "worker/session.h"

struct fl_client; /* opaque */
struct fl_http_site;

struct fl_client_config {
    const struct fl_siteconf *conf; /* borrowed, as all here */
    const struct fl_sitestore *store;
    struct fl_compute *compute;
    struct fl_link *link; /* made with compute's descriptor as its wake_fd */
    const struct fl_clock *clock;
    const atomic_int *stop;    /* set by SIGTERM and SIGINT */
    bool progress;             /* lines on stderr for a person */
    struct fl_http_site *http; /* NULL: not served */
};

FL_CHECKED enum fl_status fl_client_create(const struct fl_client_config *config,
                                           struct fl_client **out, struct fl_error *error);
void fl_client_destroy(struct fl_client **self);
/* Run until *stop (FL_OK) or until the site is no longer wanted (FL_EREFUSED). */
FL_CHECKED enum fl_status fl_client_run(struct fl_client *self, struct fl_error *error);
/* One turn of that loop: wait for at most one event of the link, then do what has become due. */
FL_CHECKED enum fl_status fl_client_step(struct fl_client *self, struct fl_error *error);
/* How long that turn may wait. */
int64_t fl_client_wait_ms(const struct fl_client *self);

#endif

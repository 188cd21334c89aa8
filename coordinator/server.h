/*
 * server.h - the daemon: one loop that owns the sockets, the timers, the database and the round.
 *
 * Everything that a peer sends passes intake.c, everything that the round wants passes conduct.c.
 * A transition is committed before any frame that follows from it leaves.
 * Threads: the loop's; the compute thread is reached through compute.h only.
 */
#ifndef FL_COORDINATOR_SERVER_H
#define FL_COORDINATOR_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/control.h"
#include "coordinator/desk.h"
#include "net/transport.h"
#include "net/zmq_transport.h"

struct fl_server;
struct fl_http_desk;

struct fl_server_options {
    bool exit_when_idle; /* end once no job is queued or running */
    bool threaded;       /* false: compute requests run inline (simulator) */
};

/*
 * desk is borrowed. The transport is attached later (it needs fl_server_zap and the descriptor).
 * FL_ENOSPC: what the last process wrote may not be on the disk (fl_store_settle()).
 */
FL_CHECKED enum fl_status fl_server_create(struct fl_desk *desk,
                                           const struct fl_server_options *options,
                                           struct fl_server **out, struct fl_error *error);
void fl_server_destroy(struct fl_server **self);
void fl_server_attach(struct fl_server *self, struct fl_transport *transport);
/* Show by HTTP what it does; http is borrowed, and may be NULL. */
void fl_server_show(struct fl_server *self, struct fl_http_desk *http);
/* fl_zap_decide over the roster; context is the server. */
enum fl_zap_answer fl_server_zap(void *context, const uint8_t x25519[FL_KEY_BYTES], char *user);
/* For fl_server_config.wake_fd. */
int fl_server_wake_fd(const struct fl_server *self);

/* One event of the transport, then whatever has become due. */
void fl_server_event(struct fl_server *self, const struct fl_transport_event *event);
void fl_server_tick(struct fl_server *self);
/* How long fl_transport_next() may wait. */
int64_t fl_server_wait_ms(const struct fl_server *self);
/*
 * Loop until *stop becomes true or, with exit_when_idle, nothing is left to do. A line of the audit
 * log that is owed (ending.h) counts as something to do for half a minute, and is tried once more
 * at every end; one that the disk still refuses is told in the log and left to the next start.
 */
FL_CHECKED enum fl_status fl_server_run(struct fl_server *self, const volatile int *stop,
                                        struct fl_error *error);

/* What the commands see of a running daemon. */
const struct fl_live *fl_server_live(struct fl_server *self);

#endif

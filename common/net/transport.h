/*
 * transport.h - the transport seam: whole frames between a coordinator (fl_transport) and its peers
 * (fl_link). Production is zmq_transport.h; the simulator stands in with its own tables.
 *
 * A peer is one connection, known by a handle that is never used again. Its user is what the
 * transport authenticated: on the session port the site's name, on the enrolment port the peer's
 * X25519 key in lower-case hex, on the control endpoint "". Nothing a peer writes can change it.
 * Frames are opaque here, hostile, and at most FL_FRAME_BYTES_MAX long.
 * Threads: a transport or link, and all that it hands out, belongs to one thread.
 */
#ifndef FL_NET_TRANSPORT_H
#define FL_NET_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"

#define FL_USER_BYTES         80         /* with its NUL */
#define FL_PEER_ADDRESS_BYTES 64         /* with its NUL */
#define FL_OUTBOX_BYTES       (2u << 20) /* parked for one peer before FL_EBUSY */

typedef uint64_t fl_peer; /* 0: none */

enum fl_port { FL_PORT_SESSION, FL_PORT_JOIN, FL_PORT_CONTROL, FL_PORT_COUNT };

/* ------------------------------------------------------------------ the coordinator's side */

enum fl_transport_event_kind {
    FL_TRANSPORT_OPENED, /* a peer's first frame follows */
    FL_TRANSPORT_FRAME,
    FL_TRANSPORT_DRAINED, /* after FL_EBUSY: the peer takes frames again */
    FL_TRANSPORT_GONE,    /* its connection ended (also after drop); the handle is void */
    FL_TRANSPORT_WAKE     /* the wake descriptor is readable; the caller reads it */
};

struct fl_transport_event {
    enum fl_transport_event_kind kind;
    enum fl_port port;
    fl_peer peer;
    const char *user;     /* borrowed until the peer is gone; "" on the control endpoint */
    const char *address;  /* its source address, numeric, for limits and logs; "" where none;
                             borrowed likewise */
    const uint8_t *frame; /* borrowed until the next call of fl_transport_next() */
    size_t length;
};

struct fl_transport {
    const struct fl_transport_table *table; /* first member of every implementation */
};

struct fl_transport_table {
    enum fl_status (*next)(struct fl_transport *self, int64_t timeout_ms,
                           struct fl_transport_event *event);
    enum fl_status (*send)(struct fl_transport *self, fl_peer peer, const void *frame,
                           size_t length);
    void (*drop)(struct fl_transport *self, fl_peer peer);
};

/*
 * Wait at most timeout_ms (0: do not wait) for one event. FL_OK; FL_ETIMEOUT: none came;
 * FL_ESTOPPED: interrupted by a signal; FL_EIO: the transport is broken.
 */
FL_CHECKED static inline enum fl_status fl_transport_next(struct fl_transport *self,
                                                          int64_t timeout_ms,
                                                          struct fl_transport_event *event)
{
    return self->table->next(self, timeout_ms, event);
}

/*
 * Send a frame; never blocks, and frames to one peer keep their order. FL_OK: it is on its way or
 * parked in that peer's own queue (a frame may still be lost when the peer goes). FL_EBUSY: that
 * queue is full; the frame was not taken; send it again after FL_TRANSPORT_DRAINED. FL_ENOTFOUND:
 * the peer is gone. FL_ERANGE: longer than a frame may be. FL_ENOMEM.
 */
FL_CHECKED static inline enum fl_status fl_transport_send(struct fl_transport *self, fl_peer peer,
                                                          const void *frame, size_t length)
{
    return self->table->send(self, peer, frame, length);
}

/*
 * End a peer's connection: no frame of it is seen any more; FL_TRANSPORT_GONE follows once. Frames
 * handed over just before (a GOODBYE) are given a moment to leave. Unknown handles are ignored.
 */
static inline void fl_transport_drop(struct fl_transport *self, fl_peer peer)
{
    self->table->drop(self, peer);
}

/* ------------------------------------------------------------------ the worker's side */

enum fl_link_event_kind {
    FL_LINK_UP, /* authenticated on both sides: send HELLO now */
    FL_LINK_FRAME,
    FL_LINK_DRAINED, /* after FL_EBUSY */
    FL_LINK_DOWN,    /* the connection ended; the link is idle until fl_link_reset() */
    FL_LINK_DENIED,  /* the coordinator does not know this key; idle until fl_link_reset() */
    FL_LINK_WAKE     /* the wake descriptor is readable; the caller reads it */
};

struct fl_link_event {
    enum fl_link_event_kind kind;
    const uint8_t *frame; /* borrowed until the next call of fl_link_next() */
    size_t length;
};

struct fl_link {
    const struct fl_link_table *table; /* first member of every implementation */
};

struct fl_link_table {
    enum fl_status (*next)(struct fl_link *self, int64_t timeout_ms, struct fl_link_event *event);
    enum fl_status (*send)(struct fl_link *self, const void *frame, size_t length);
    enum fl_status (*reset)(struct fl_link *self);
};

/* As fl_transport_next(). A link that can't reach the coordinator keeps trying and says nothing. */
FL_CHECKED static inline enum fl_status fl_link_next(struct fl_link *self, int64_t timeout_ms,
                                                     struct fl_link_event *event)
{
    return self->table->next(self, timeout_ms, event);
}

/* FL_OK, FL_EBUSY (not taken: send it again after FL_LINK_DRAINED), FL_ENOTFOUND (not up),
 * FL_ERANGE. Never blocks. */
FL_CHECKED static inline enum fl_status fl_link_send(struct fl_link *self, const void *frame,
                                                     size_t length)
{
    return self->table->send(self, frame, length);
}

/* Throw away the connection with all that is queued, and start a fresh one. */
FL_CHECKED static inline enum fl_status fl_link_reset(struct fl_link *self)
{
    return self->table->reset(self);
}

#endif

/*
 * zmq_transport.h - the transport over ZeroMQ 4.3: ROUTER and DEALER sockets under CURVE, with one
 * ZAP handler in the server's own loop.
 *
 * Invariants: one thread owns every socket. A peer's user is the User-Id of ZAP, never the routing
 * id or a payload. A message that is not [routing id, frame] is dropped whole, and its sender with
 * it. Frames beyond FL_FRAME_BYTES_MAX end the connection. To drop a peer: it is marked dead, then
 * its descriptor (ZMQ_SRCFD of its first frame, checked to be still the same socket) is shut down.
 * A client's socket is replaced at every reset (linger 0), because a DEALER that reconnects by
 * itself replays the frames of the old session, and one that was denied never reconnects.
 * Signals: a signal handler that interrupts the wait makes next() return FL_ESTOPPED.
 */
#ifndef FL_NET_ZMQ_TRANSPORT_H
#define FL_NET_ZMQ_TRANSPORT_H

#include "crypto/keys.h"
#include "net/transport.h"

/* A reply on the control endpoint may be longer than a frame (a whole roster); requests: 1 MiB. */
#define FL_CONTROL_REPLY_BYTES_MAX (16u << 20)

enum fl_zap_answer {
    FL_ZAP_ALLOW,   /* 200 with the user that was filled in */
    FL_ZAP_LOADING, /* 300: not known yet, come again */
    FL_ZAP_DENY     /* 400: unknown or revoked */
};

/* Decide on a session's X25519 key; user has FL_USER_BYTES bytes. Called in the loop's thread. */
typedef enum fl_zap_answer (*fl_zap_decide)(void *context, const uint8_t x25519[FL_KEY_BYTES],
                                            char *user);

struct fl_server_config {
    const char *session;        /* "tcp://0.0.0.0:9750", "tcp://[::]:9750"; NULL: no such port */
    const char *join;           /* the enrolment endpoint, or NULL */
    const char *control;        /* "ipc://control.sock", or NULL */
    const struct fl_keys *keys; /* the coordinator's; borrowed for the server's life */
    fl_zap_decide decide;
    void *context;      /* given to decide */
    int wake_fd;        /* polled for reading beside the sockets (eventfd, pipe); -1: none */
    int io_threads;     /* 0: 1 */
    uint32_t peers_max; /* further connections are refused; 0: 4096 */
    int64_t silent_ms;  /* accepted, but no whole frame for so long: cut off; 0: 10 s */
};

/*
 * Open and bind every port. FL_EBUSY: an address is in use; FL_EINVAL: not an address, or this
 * libzmq has no CURVE. The caller owns *out. A port of 0 binds any; see fl_server_endpoint().
 */
FL_CHECKED enum fl_status fl_server_open(const struct fl_server_config *config,
                                         struct fl_transport **out, struct fl_error *error);
/* The bound address of a port ("tcp://127.0.0.1:35123"); borrowed; "" where not open. */
const char *fl_server_endpoint(const struct fl_transport *self, enum fl_port port);
/* End of the process only. */
void fl_server_close(struct fl_transport **self);

struct fl_link_config {
    const char *endpoint;
    const uint8_t *server_key;  /* the coordinator's X25519 key; NULL: no CURVE (control) */
    const struct fl_keys *keys; /* this side's; NULL with server_key NULL; borrowed */
    int wake_fd;                /* as above; -1: none */
};

/* Start to connect; events tell the rest. FL_EINVAL: not an address. The caller owns *out. */
FL_CHECKED enum fl_status fl_link_open(const struct fl_link_config *config, struct fl_link **out,
                                       struct fl_error *error);
void fl_link_close(struct fl_link **self);

/*
 * "tcp://HOST:PORT" (HOST a name, IPv4, [IPv6] or *), PORT 0..65535: FL_EFORMAT otherwise.
 * Writes the same address with PORT + shift to out (FL_ADDRESS_BYTES of token.h); out may be NULL.
 */
FL_CHECKED enum fl_status fl_endpoint_shift(const char *endpoint, int shift, char *out,
                                            struct fl_error *error);

#endif

/*
 * zmq_internal.h - what the files of the ZeroMQ transport share; see zmq_transport.h.
 *
 * zmq_common.c: addresses, socket options, monitors. zmq_peers.c: the server's table of peers and
 * their outboxes. zmq_zap.c: who may connect. zmq_server.c, zmq_link.c: the two ends.
 */
#ifndef FL_NET_ZMQ_INTERNAL_H
#define FL_NET_ZMQ_INTERNAL_H

#include <stdbool.h>
#include <sys/stat.h>
#include <zmq.h>

#include "net/zmq_transport.h"

#define FL_ENDPOINT_BYTES 272
#define FL_ZMQ_HWM        16 /* frames queued per peer and direction in ZeroMQ */
/* ZMQ_MAXMSGSIZE counts what CURVE adds: "\7MESSAGE", nonce (8), flags (1), tag (16) */
#define FL_ZMQ_CURVE_BYTES    33
#define FL_ZMQ_PEERS_MAX      4096  /* default of peers_max */
#define FL_ZMQ_PARK_RETRY_MS  2     /* ROUTER can't say when a peer takes frames again */
#define FL_ZMQ_DROP_LINGER_MS 250   /* from drop() to shutdown(): a GOODBYE leaves meanwhile */
#define FL_ZMQ_FORGET_MS      10000 /* a dead peer whose disconnect was never reported */
#define FL_ZMQ_DOMAIN_SESSION "fedlora"
#define FL_ZMQ_DOMAIN_JOIN    "fedlora-join"

/* Since 4.3.0, but libzmq's header hides it behind its draft switch. */
#ifndef ZMQ_ZAP_ENFORCE_DOMAIN
#define ZMQ_ZAP_ENFORCE_DOMAIN 93
#endif

/* ---- zmq_common.c */

struct fl_zmq_option {
    int name, value;
};
FL_CHECKED enum fl_status fl_zmq_set_options(void *socket, const struct fl_zmq_option *options,
                                             size_t count, struct fl_error *error);
/* What every socket gets: linger, high-water marks, keepalive, heartbeats, handshake limit. */
FL_CHECKED enum fl_status fl_zmq_set_common(void *socket, struct fl_error *error);
/* Our own key pair on a CURVE socket. */
FL_CHECKED enum fl_status fl_zmq_set_keys(void *socket, const struct fl_keys *keys,
                                          struct fl_error *error);
/* A PAIR that hears the socket's events (a mask of ZMQ_EVENT_*). NULL on failure. */
void *fl_zmq_monitor(void *context, void *socket, int events);
/* The next event of a monitor, without waiting. FL_ENOTFOUND: none. */
FL_CHECKED enum fl_status fl_zmq_monitor_next(void *monitor, int *event, int *value);
/* fl_fail() with ZeroMQ's words for errno. */
enum fl_status fl_zmq_fail(struct fl_error *error, const char *what);

enum fl_host_kind { FL_HOST_ANY, FL_HOST_IPV4, FL_HOST_IPV6, FL_HOST_NAME, FL_HOST_OTHER };
/* FL_HOST_OTHER: not a tcp:// address (ipc://) */
enum fl_host_kind fl_zmq_host_kind(const char *endpoint);

/* ---- zmq_peers.c */

struct fl_zmq_parked; /* a frame that waits */

struct fl_zmq_peer {
    fl_peer handle; /* 0: the slot is free */
    enum fl_port port;
    bool dead; /* dropped: its frames are not looked at, nothing is sent to it */
    bool gone_due, drained_due, wants_drained;
    int fd;                           /* of its connection; -1: unknown or closed */
    ino_t inode;                      /* of fd when it was learned: a reused number is told apart */
    int64_t shut_at_ms, forget_at_ms; /* for the dead */
    struct fl_zmq_parked *head, *tail;
    size_t parked_bytes;
    uint32_t next; /* slot + 1 in its hash chain; 0: last */
    uint8_t id_length, id[255];
    char user[FL_USER_BYTES];
    char address[FL_PEER_ADDRESS_BYTES]; /* numeric, as ZeroMQ saw it */
};

struct fl_zmq_peers {
    struct fl_zmq_peer *slots;
    uint32_t *buckets;                             /* slot + 1 */
    uint32_t slot_count, bucket_count, used, high; /* high: slots ever used */
    uint32_t ready, parked, dead; /* how many peers have events due, outboxes, a death pending */
    uint64_t serial;
    uint8_t hash_key[16];
};

FL_CHECKED enum fl_status fl_zmq_peers_init(struct fl_zmq_peers *self, uint32_t slot_count);
void fl_zmq_peers_free(struct fl_zmq_peers *self);
struct fl_zmq_peer *fl_zmq_peers_find(struct fl_zmq_peers *self, enum fl_port port, const void *id,
                                      size_t id_length);
struct fl_zmq_peer *fl_zmq_peers_get(struct fl_zmq_peers *self, fl_peer handle);
/* NULL: the table is full. */
struct fl_zmq_peer *fl_zmq_peers_add(struct fl_zmq_peers *self, enum fl_port port, const void *id,
                                     size_t id_length, int fd, const char *user);
void fl_zmq_peers_remove(struct fl_zmq_peers *self, struct fl_zmq_peer *peer);
/* Its connection ended, or shall: GONE becomes due. */
void fl_zmq_peers_kill(struct fl_zmq_peers *self, struct fl_zmq_peer *peer, int64_t now_ms);
/* A peer with an event due, or NULL. */
struct fl_zmq_peer *fl_zmq_peers_ready(struct fl_zmq_peers *self);
/* Shut down the dead whose time has come, forget those that nobody will report. */
void fl_zmq_peers_bury(struct fl_zmq_peers *self, int64_t now_ms);
/* FL_OK: parked; FL_EBUSY: the outbox is full. */
FL_CHECKED enum fl_status fl_zmq_peers_park(struct fl_zmq_peers *self, struct fl_zmq_peer *peer,
                                            const void *frame, size_t length);
/* The oldest parked frame; false: none. */
bool fl_zmq_peers_parked(const struct fl_zmq_peer *peer, const void **frame, size_t *length);
void fl_zmq_peers_unpark(struct fl_zmq_peers *self, struct fl_zmq_peer *peer);
/* shutdown() the descriptor if it still is the socket whose inode was noted. */
void fl_zmq_shut(int fd, ino_t inode);

/* ---- zmq_silent.c: connections that were accepted and have not sent one whole frame yet */

struct fl_zmq_silent {
    int fd;
    ino_t inode;
    int64_t until_ms;
};
struct fl_zmq_silents {
    struct fl_zmq_silent *entries;
    uint32_t count, capacity;
};
FL_CHECKED enum fl_status fl_zmq_silents_init(struct fl_zmq_silents *self, uint32_t capacity);
void fl_zmq_silents_free(struct fl_zmq_silents *self);
void fl_zmq_silents_add(struct fl_zmq_silents *self, int fd, int64_t until_ms);
void fl_zmq_silents_remove(struct fl_zmq_silents *self, int fd);
/* Close those whose time is up, unless a peer is known on the same connection by now. */
void fl_zmq_silents_expire(struct fl_zmq_silents *self, const struct fl_zmq_peers *peers,
                           int64_t now_ms);

/* ---- zmq_zap.c */

/* Answer every request that waits on the handler's REP socket. */
void fl_zmq_zap_answer(void *rep, fl_zap_decide decide, void *context);

#endif

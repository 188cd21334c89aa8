/*
 * malice_hub.h - the real coordinator (server.c and all behind it) with real sites on a network
 * that loses nothing, and between one of them, the liar, and the coordinator whatever a test wants.
 */
#ifndef FL_MALICE_HUB_H
#define FL_MALICE_HUB_H

#include "coordinator/queue.h"
#include "coordinator/server.h"
#include "malice.h"

#define HUB_ROUNDS   8
#define HUB_EVENTS   512
#define HUB_WALKS_MS 3600000 /* no job lasts longer */

struct hub;

enum verdict { SAY, DROP };

/* What the liar's process wants to say; it may be changed, kept back, or more be said for it. */
typedef enum verdict (*hub_lie)(struct hub *hub, uint32_t site, struct fl_wire *message);

struct hub_frame {
    bool to_hub, down, gone; /* down, gone: the end of a connection, heard at a site or the hub */
    uint64_t peer;
    uint8_t *bytes; /* owned */
    size_t length;
    struct hub_frame *next;
};

struct hub_record { /* of the log */
    char event[32], worker[FL_NAME_BYTES], message[FL_REASON_BYTES];
};

struct hub_said { /* by one site in one attempt */
    uint32_t round, attempt;
    unsigned updates, signatures, answers; /* different ones */
    uint8_t update[FL_HASH_BYTES], signature[64], answer[FL_HASH_BYTES];
};

struct hub {
    struct fl_transport transport; /* first: the server sees this */
    struct mal mal;
    char directory[FL_PATH_BYTES];
    struct fl_desk *desk;
    struct fl_server *server;
    struct hub_frame *first, *last;
    uint64_t peers;               /* given out */
    uint64_t peer[MAL_SITES_MAX]; /* of each site; 0: none */
    bool told[MAL_SITES_MAX];     /* OPENED was given */
    uint32_t owner[1u << 12];     /* of a peer */
    uint32_t liar;                /* MAL_SITES_MAX: none */
    hub_lie lie;
    uint32_t told_kinds; /* bits of enum fl_wire_kind: what the liar was told once */
    uint8_t liar_nonce[FL_NONCE_BYTES];
    void (*on_told)(struct hub *hub, uint32_t site, const struct fl_wire *message);
    struct hub_said said[MAL_SITES_MAX];
    unsigned crashes, lies; /* how often: the coordinator died, the liar lied */
    enum fl_wire_kind kind; /* what a lie is about */
    bool restart;           /* the liar's process is to die and come back */
    uint32_t phases;        /* bits of enum fl_round_state that the job passed */
    struct fl_job job;      /* as it ended */
    struct hub_record records[HUB_EVENTS];
    uint32_t record_count;
};

/* A coordinator with one job, and its sites. job: lines of the job file behind [cohort]; without a
   [privacy] of its own it has masks, with one the sites do not insist on them. */
bool hub_open(struct hub *self, uint32_t sites, const char *job);
void hub_close(struct hub *self);
/* Let it run until the job is done, paused or failed, or HUB_WALKS_MS are over. */
void hub_run(struct hub *self);
/* One step of that; false: the job has ended. */
bool hub_step(struct hub *self);
void hub_crash(struct hub *self);
/* Say that for a site, in its session. */
void hub_say(struct hub *self, uint32_t site, const struct fl_wire *message);
/* The first record of that event about that site (NULL: any); NULL: there is none. */
const struct hub_record *hub_find(const struct hub *self, const char *event, const char *worker);

/* malice_wrap.c: what the liar's labour does to its numbers, before or behind the masks. */
enum garble {
    GARBLE_NOTHING,
    GARBLE_NOISE,
    GARBLE_GUARD_BITS,
    GARBLE_BEYOND,
    GARBLE_SCALARS,
    GARBLE_RANKS
};
void garble_updates(const char *site, enum garble how);
/* Where records go. */
void record_log(struct hub *hub);

#endif

/* server_internal.h - what the files of the daemon share: its state, and who may call what. */
#ifndef FL_COORDINATOR_SERVER_INTERNAL_H
#define FL_COORDINATOR_SERVER_INTERNAL_H

#include "coordinator/compute.h"
#include "coordinator/http.h"
#include "coordinator/http_tally.h"
#include "coordinator/masks.h"
#include "coordinator/queue.h"
#include "coordinator/recall.h"
#include "coordinator/registry.h"
#include "coordinator/round.h"
#include "coordinator/server.h"
#include "coordinator/work.h"
#include "net/chunks.h"
#include "proto/wire.h"

#define FL_DUPLICATE_WAIT_MS   60000
#define FL_INVENTORY_BYTES_MAX (4u << 20)
#define FL_PARKED_MAX          64
#define FL_JOINS_PER_MINUTE    60 /* refused joins of all peers together */
#define FL_SEATS_OF_A_SITE     16
#define FL_SEAT_CREDIT         6000 /* see floods() in intake.c */

enum fl_fetch_purpose { FL_FETCH_INVENTORY, FL_FETCH_UPDATE, FL_FETCH_RECALL };

#define FL_JOIN_SOURCES        64 /* addresses counted apart in one minute */
#define FL_JOINS_OF_AN_ADDRESS 20 /* refused in a minute; sites behind NAT share one */

struct fl_seat { /* a site's connection */
    fl_peer peer;
    uint32_t site;
    char name[FL_NAME_BYTES];
    bool live;           /* WELCOME was sent: frames carry the nonce */
    bool leaving;        /* dropped; GONE will follow */
    bool owed;           /* the transport refused a frame: send what is due once it drains */
    bool fresh;          /* no offer was sent since its session began */
    uint64_t missed_job; /* whose version or end the transport or the disk refused; 0: none */
    uint8_t nonce[FL_NONCE_BYTES];
    int64_t heard_ms, beat_ms; /* the last frame; when to send the next heartbeat */
    int64_t liveness_ms;       /* what WELCOME told */
    int64_t credit, credit_ms; /* what it may still say before it floods, and when that was so */
    int64_t retry_ms; /* what is due is sent again then, after the disk refused; 0: never */
    enum fl_activity activity;
    uint32_t step, steps; /* of the round, as its heartbeat said */
    double tokens_per_second;
    /* which attempt's OFFER and TASK this connection has been told: a worker that was restarted
       knows neither, and is told both before what comes next */
    struct fl_told {
        int64_t job;
        uint32_t round, attempt;
    } offered, tasked;
    struct fl_wire_hello hello; /* what it said of itself */
    struct fl_serve *serve;
    struct fl_fetch *fetch; /* NULL: nothing is being fetched */
    enum fl_fetch_purpose purpose;
    struct fl_object_ref fetching;
};

struct fl_parked { /* an event that the database refused; tried again */
    struct fl_round_input input;
    uint32_t round, attempt; /* in which it was met */
    char reason[FL_REASON_BYTES];
};

struct fl_server {
    struct fl_desk *desk;
    struct fl_server_options options;
    struct fl_transport *transport; /* borrowed */
    struct fl_mill *mill;
    struct fl_live live;
    struct fl_seat **seats; /* owned, each owned */
    uint32_t seat_count, seat_capacity;
    struct fl_shelf *shelf;
    struct fl_buf frame; /* of the message being sent */
    /* the running job; id 0: none */
    struct fl_job job;
    struct fl_job_facts *facts;
    uint8_t inventory_root[FL_HASH_BYTES];
    struct fl_round *round, *next; /* two buffers: the committed value, and the step in progress */
    struct fl_queue_saved saved;
    struct fl_attempt_row attempt; /* valid while has_attempt */
    bool has_attempt;
    struct fl_stage *stage;  /* NULL: not collecting */
    struct fl_masks *masks;  /* NULL: none of secure aggregation */
    struct fl_sum_work *sum; /* the result that waits for its commit */
    bool summing;
    uint8_t version_roots[2][FL_HASH_BYTES]; /* objects on the shelf; newest first */
    uint8_t start_root[FL_HASH_BYTES];
    bool has_start;
    /* timers, ms */
    int64_t next_look_ms;  /* at the queue */
    int64_t busy_until_ms; /* exit_when_idle waits for this */
    int64_t joins_reset_ms, parked_ms;
    int64_t ending_ms;       /* lines of ended jobs are written again then; 0: none is owed */
    int64_t ending_until_ms; /* exit_when_idle waits so long for them; 0: it has not begun to */
    uint32_t joins;
    struct fl_join_source { /* refused joins of one address in this minute */
        char address[FL_PEER_ADDRESS_BYTES];
        uint32_t joins;
    } join_sources[FL_JOIN_SOURCES];
    struct fl_parked parked[FL_PARKED_MAX];
    uint32_t parked_count;
    struct fl_recall recall;
    struct fl_tally tally;
    struct fl_http_desk *http; /* borrowed; NULL: not served */
    bool idle;
};

static inline int64_t fl_server_now(const struct fl_server *self)
{
    return fl_clock_now(self->desk->clock);
}

/* A refusal of the disk or for lack of memory, which may be over in a moment. */
static inline bool fl_server_is_storage(enum fl_status status)
{
    return status == FL_EIO || status == FL_ENOSPC || status == FL_ENOMEM;
}

/* ---- seats.c: connections ---- */
struct fl_seat *fl_seat_find(struct fl_server *self, fl_peer peer);
/* The live seat of a site, or NULL. */
struct fl_seat *fl_seat_of(struct fl_server *self, uint32_t site);
struct fl_seat *fl_seat_open(struct fl_server *self, fl_peer peer, const char *user);
/* Its connection is gone: forget it, tell the round. */
void fl_seat_gone(struct fl_server *self, fl_peer peer);
/* Encode and send; job, round and attempt are the message's own. */
void fl_seat_send(struct fl_server *self, struct fl_seat *seat, struct fl_wire *message);
/* GOODBYE and the end of the connection. */
void fl_seat_dismiss(struct fl_server *self, struct fl_seat *seat, enum fl_goodbye reason,
                     const char *text, uint32_t wait_ms);
/* Give the peer what it asked for, as far as the transport takes it. */
void fl_seat_pump(struct fl_server *self, struct fl_seat *seat);
void fl_seat_drained(struct fl_server *self, struct fl_seat *seat);
/* HELLO: welcome it as the site's only session. */
void fl_seat_hello(struct fl_server *self, struct fl_seat *seat, const struct fl_wire *message);
void fl_seat_tick(struct fl_server *self, struct fl_seat *seat, int64_t now_ms);
/* Fetch an object from that peer; a fetch of the same object goes on. */
void fl_seat_fetch(struct fl_server *self, struct fl_seat *seat, enum fl_fetch_purpose purpose,
                   const struct fl_object_ref *ref, const char *part_path);
void fl_seat_step_fetch(struct fl_server *self, struct fl_seat *seat, enum fl_fetch_event event,
                        const struct fl_chunk_message *message);
void fl_seat_stop_fetch(struct fl_seat *seat);

/* ---- intake.c: messages of sites ---- */
void fl_intake_frame(struct fl_server *self, struct fl_seat *seat, const uint8_t *frame,
                     size_t length);
/* A fetch ended, well or badly. */
void fl_intake_fetched(struct fl_server *self, struct fl_seat *seat);
/* A frame on the enrolment port. */
void fl_intake_join(struct fl_server *self, const struct fl_transport_event *event);

/* ---- conduct.c: the running job ---- */
/* What else is committed together with a step. */
typedef enum fl_status (*fl_also)(struct fl_server *self, void *context, struct fl_error *error);
/* Step the round, commit, carry out the effects. */
void fl_conduct(struct fl_server *self, const struct fl_round_input *input);
void fl_conduct_also(struct fl_server *self, const struct fl_round_input *input, fl_also also,
                     void *context);
void fl_conduct_site(struct fl_server *self, enum fl_round_event event, uint32_t site);
/* Parts that takeup.c needs too. */
void fl_conduct_begin_start(struct fl_server *self);
/* Take the object, or the row, over. */
void fl_conduct_shelve_start(struct fl_server *self, struct fl_object **object);
void fl_conduct_set_attempt(struct fl_server *self, struct fl_attempt_row *from);
/* The layout of what the sites that trained will send; harmless when it exists. */
void fl_conduct_make_stage(struct fl_server *self);
void fl_conduct_send_all(struct fl_server *self);
/* Is this message of the running job's present attempt? */
bool fl_conduct_is_current(const struct fl_server *self, const struct fl_wire *message);
/* Write the lines of jobs that ended; what the disk refuses is tried again. */
void fl_conduct_write_endings(struct fl_server *self);
/* Forget the running job (at the end of the process too). */
void fl_conduct_drop_job(struct fl_server *self);
void fl_conduct_note_refusal(struct fl_server *self, uint32_t site, enum fl_refusal code,
                             bool permanent, const char *reason);
/* Take an inventory as the job's; FL_EFORMAT, FL_EINVAL (targets match nothing). */
FL_CHECKED enum fl_status fl_conduct_set_inventory(struct fl_server *self,
                                                   const uint8_t root[FL_HASH_BYTES],
                                                   const void *bytes, size_t length,
                                                   struct fl_error *error);

/* ---- takeup.c: the queue and time ---- */
/* Let time pass: take up a job if none runs, step the round. */
void fl_conduct_tick(struct fl_server *self, int64_t now_ms);

/* ---- messages.c: what the coordinator says ---- */
/* Send what the round owes that site now. */
void fl_send_due(struct fl_server *self, struct fl_seat *seat);
void fl_send_task(struct fl_server *self, struct fl_seat *seat);
/* A message of the running attempt. */
struct fl_wire fl_send_about(const struct fl_server *self, enum fl_wire_kind kind);
/* The offer of the round; name: the site's, "" for what every site is told alike. */
void fl_send_fill_offer(const struct fl_server *self, const char *name,
                        struct fl_wire_offer *offer);
/* The task of the round, without ranks: what every site is told alike. */
void fl_send_fill_task(const struct fl_server *self, struct fl_wire_task *task);
/* u16 little-endian, (count) of them. */
void fl_send_store_ranks(const uint16_t *ranks, uint32_t count, uint8_t *out);
/* The row of a site in the attempt's plan: cohort members in the order of their ids. */
uint32_t fl_send_plan_row(const struct fl_round *round, uint32_t site);
/* Has this site's part in the round begun and not ended? */
bool fl_send_is_midway(const struct fl_server *self, const struct fl_seat *seat);
void fl_send_version(struct fl_server *self, struct fl_seat *seat,
                     const struct fl_version *version);
void fl_send_version_to_all(struct fl_server *self, const struct fl_version *version);
void fl_send_job_end(struct fl_server *self, struct fl_seat *seat, const struct fl_job *job);
void fl_send_receipt(struct fl_server *self, struct fl_seat *seat, const struct fl_wire *about,
                     enum fl_receipt status, const char *reason);
/* What that job has for the site could not be read: it is looked up again in a moment. */
void fl_send_later(struct fl_server *self, struct fl_seat *seat, int64_t job);
/* A returned site hears of the newest version, and of the end, of the job that it knew last. */
void fl_send_missed(struct fl_server *self, struct fl_seat *seat,
                    const struct fl_wire_hello *hello);

#endif

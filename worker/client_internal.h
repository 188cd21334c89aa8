/*
 * client_internal.h - the state of the I/O thread, shared by client.c (link and loop),
 * client_messages.c (frames and actions), client_results.c (finished work), client_audit.c,
 * client_recall.c (what is remembered) and client_status.c.
 */
#ifndef FL_WORKER_CLIENT_INTERNAL_H
#define FL_WORKER_CLIENT_INTERNAL_H

#include "base/audit.h"
#include "worker/client.h"
#include "worker/history.h"

#define FL_REFUSALS_KEPT 16

/* A bulk object on its way here, in memory. */
struct fl_incoming {
    struct fl_fetch *fetch; /* NULL: none */
    struct fl_attempt key;
    struct fl_wire_version version; /* of a committed version; its ranks point into ranks */
    uint8_t *ranks;
};

struct fl_kept_refusal {
    uint64_t job;
    enum fl_refusal code;
    char reason[FL_REASON_BYTES];
};

struct fl_offer_lines { /* of the audit log: see client_audit.c */
    int64_t since_ms, spent;
    uint64_t left_out;
};
struct fl_said { /* what the audit log last heard of an offer */
    struct fl_attempt key;
    uint32_t kind, verdict, code;
};

struct fl_client {
    struct fl_client_config c;
    struct fl_audit *audit;
    struct fl_offer_lines offer_lines;
    struct fl_said said;
    /* link */
    bool up, welcomed, blocked;
    bool lost; /* a message found the queue full */
    uint8_t instance[16], nonce[FL_NONCE_BYTES];
    char name[FL_NAME_BYTES];
    uint32_t heartbeat_ms, liveness_ms;
    int64_t heard_at, sent_at, up_at, reset_at; /* reset_at: INT64_MAX while the link is in use */
    int64_t backoff_ms;
    int64_t denied_since;
    unsigned denials;
    struct fl_buf frame; /* of the message being sent */
    /* session */
    enum fl_stage stage;
    struct fl_attempt key; /* of the offer */
    bool has_offer;
    uint64_t offer_job; /* of the offer that is kept on the disk; 0: none is */
    struct fl_wire_offer offer;
    struct fl_wire_fit answer; /* what FIT says */
    bool fit_known;            /* answer is FIT for the job below, from the work thread */
    uint64_t fit_job;
    struct fl_wire_offer fit_offer; /* what it was made for */
    bool allowed; /* the policy allows the present offer: nothing is done for one that it refused */
    uint32_t keeping;    /* versions that the work thread has not written yet */
    uint64_t handed_job; /* the newest of them */
    uint32_t handed_version;
    bool unkept; /* the disk refused one, or too many waited */
    uint64_t start_bytes_max;
    bool has_task, has_collect, failed;
    struct { /* the round that training began of, and what it was to be trained on */
        uint64_t job;
        uint32_t round;
        uint8_t work[FL_HASH_BYTES];
    } begun;
    struct fl_wire_task task; /* ranks point into task_ranks */
    uint8_t *task_ranks;
    struct fl_wire_collect collect; /* tiers points into collect_tiers; only without masks */
    uint8_t *collect_tiers;
    struct { /* what secure aggregation sent last */
        enum fl_wire_kind kind;
        uint8_t *bytes; /* owned; NULL: nothing */
        size_t length;
    } masked;
    struct fl_wire_failed failure;
    struct fl_wire_trained trained;
    struct fl_object_ref update;
    uint8_t start_root[FL_HASH_BYTES]; /* of start below */
    uint8_t *start;                    /* bytes of the starting adapter, NULL: not here */
    size_t start_length;
    struct fl_incoming start_in, version_in;
    struct fl_seen seen;
    /* bulk objects that the coordinator fetches here */
    struct fl_shelf *shelf;
    struct fl_serve *serve;
    uint8_t recalled[FL_RECALLED_MAX][FL_HASH_BYTES]; /* roots of versions that were asked back */
    uint32_t recalled_count;
    int64_t recall_spent, recall_since_ms; /* how often it was asked */
    /* status */
    struct fl_kept_refusal refusals[FL_REFUSALS_KEPT];
    uint32_t refusal_count;
    struct fl_history history; /* of earlier runs too */
    uint32_t sent_before;      /* of its uploads, those of earlier runs */
    uint32_t newest_version;   /* that this run has kept */
    uint64_t newest_job;
    double eval_loss; /* the site's own, of the last evaluation; NaN: none */
    int64_t status_at, progress_at;
    uint32_t progress_step;
    bool status_dirty;
};

/* client.c */
int64_t fl_client_now(const struct fl_client *self);
/* Fill in nonce and key and send; a frame that cannot go now is dropped (all are repeated). */
enum fl_status fl_client_send(struct fl_client *self, struct fl_wire *message);
void fl_client_later(struct fl_client *self, int64_t wait_ms); /* drop the link, dial anew then */
void fl_client_pump(struct fl_client *self);                   /* serve what was asked for */

/* client_messages.c */
bool fl_client_same_key(const struct fl_attempt *key, const struct fl_wire *message);
/* A message of the present attempt. */
struct fl_wire fl_client_reply(const struct fl_client *self, enum fl_wire_kind kind);
/* Offer and task into a request, and the starting adapter where it is used; false: out of memory.
 */
bool fl_client_copy_task(struct fl_client *self, struct fl_work *work, bool start);
void fl_client_take(struct fl_client *self, const struct fl_wire *message);
/* Feed the session machine and carry out its action. */
void fl_client_event(struct fl_client *self, enum fl_session_event event);
void fl_client_step_fetch(struct fl_client *self, struct fl_incoming *in, enum fl_fetch_event event,
                          const struct fl_chunk_message *message);
void fl_client_incoming_close(struct fl_incoming *self);
void fl_client_refused(struct fl_client *self, enum fl_refusal code, const char *reason);
void fl_client_feed_pending(struct fl_client *self);

/* client_recall.c */
/* Make the highest (round, attempt) of the job durable, and the newest version kept (NULL: as
   before). */
void fl_client_remember(struct fl_client *self, const uint8_t *version_hash, uint32_t number);
/* Read state/seen.json. What it says of another coordinator does not count, and what the site has
   of that one is set aside. */
FL_CHECKED enum fl_status fl_client_take_up_seen(struct fl_client *self, struct fl_error *error);
/* RECALL: offer the versions that are kept. */
void fl_client_recall(struct fl_client *self, const struct fl_wire *message);

/* client_audit.c */
/*
 * One line in the audit log; a failure is logged, and returned. What leaves the site (an update, an
 * unmask answer) is written down before it can leave, and stays if that fails.
 */
FL_CHECKED enum fl_status fl_client_audit(struct fl_client *self, const char *event,
                                          const struct fl_field *fields);
/* Of the messages that were sent and that came, those which the log is about. */
void fl_client_audit_said(struct fl_client *self, const struct fl_wire *message);
void fl_client_audit_heard(struct fl_client *self, const struct fl_wire *message);

/* client_offer.c */
void fl_client_keep_offer(struct fl_client *self, const struct fl_wire *message);
void fl_client_recall_offer(struct fl_client *self);

/* client_masks.c: secure aggregation */
void fl_client_take_mask(struct fl_client *self, const struct fl_wire *message);
/* COLLECT of a job with secure aggregation. */
void fl_client_take_masked_collect(struct fl_client *self, const struct fl_wire *message);
void fl_client_mask_result(struct fl_client *self, struct fl_work_result *result);
void fl_client_make_keys(struct fl_client *self);
void fl_client_send_masked(struct fl_client *self);
void fl_client_drop_masks(struct fl_client *self);
/* The reply of that work is what goes out with messages of this kind now. */
void fl_client_keep_masked(struct fl_client *self, enum fl_wire_kind kind,
                           struct fl_work_result *result);

/* client_results.c */
bool fl_client_is_current(const struct fl_client *self, const struct fl_attempt *key);
/* The attempt cannot go on here: tell it as FAILED, through the event. */
void fl_client_failed(struct fl_client *self, struct fl_work_result *result,
                      enum fl_session_event event);
void fl_client_result(struct fl_client *self, struct fl_work_result *result);
void fl_client_fetched(struct fl_client *self, struct fl_incoming *in);
/* Dial anew, for the version that the disk refused. */
void fl_client_ask_again(struct fl_client *self);

/* client_status.c */
void fl_client_write_status(struct fl_client *self);
/* Append what stands in status.json. FL_ENOMEM, FL_ERANGE. */
FL_CHECKED enum fl_status fl_client_status_text(struct fl_client *self, struct fl_buf *out);
void fl_client_show_progress(struct fl_client *self);

#endif

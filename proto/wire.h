/*
 * wire.h - the messages of the protocol as our own structs, with bounded encoding and decoding.
 *
 * A frame from a peer is hostile. fl_wire_decode() holds its length against the limits, unpacks it
 * inside one bounded arena, checks presence, lengths, ranges, enum values and text, and only then
 * hands out a struct fl_wire. Generated protobuf structs never leave this folder.
 * The fields and their meaning are those of fedlora.proto.
 * Threads: pure functions of their arguments.
 */
#ifndef FL_PROTO_WIRE_H
#define FL_PROTO_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/status.h"

#define FL_WIRE_SCHEMA     1
#define FL_NONCE_BYTES     16
#define FL_TARGETS_BYTES   1024 /* "q_proj,v_proj" or "all-linear" with its NUL */
#define FL_TIERS_MAX       1024 /* distinct sets of sites that train a rank direction */
#define FL_PAGE_HASHES_MAX 1000 /* chunk hashes in one page */
#define FL_RECALLED_MAX    16   /* versions that one RECALL is answered with */
/* of secure aggregation; secagg.h has the same sizes under its own names */
#define FL_WIRE_ADVERT_BYTES    288
#define FL_WIRE_SHARE_BYTES     104
#define FL_WIRE_SIGNATURE_BYTES 64
#define FL_WIRE_SCALAR_BYTES    32
#define FL_WIRE_PLAN_BYTES_MAX  30000

enum fl_wire_kind {
    FL_WIRE_JOIN,
    FL_WIRE_JOIN_ANSWER,
    FL_WIRE_HELLO,
    FL_WIRE_WELCOME,
    FL_WIRE_HEARTBEAT,
    FL_WIRE_GOODBYE,
    FL_WIRE_OFFER,
    FL_WIRE_FIT,
    FL_WIRE_TASK,
    FL_WIRE_TRAINED,
    FL_WIRE_COLLECT,
    FL_WIRE_UPLOAD,
    FL_WIRE_RECEIPT,
    FL_WIRE_FAILED,
    FL_WIRE_VERSION,
    FL_WIRE_JOB_END,
    FL_WIRE_NEED,
    FL_WIRE_PAGE,
    FL_WIRE_CHUNK,
    FL_WIRE_MISSING,
    FL_WIRE_KEYS,
    FL_WIRE_ADVERT,
    FL_WIRE_COHORT,
    FL_WIRE_SHARES,
    FL_WIRE_SURVIVORS,
    FL_WIRE_SIGNED,
    FL_WIRE_UNMASK,
    FL_WIRE_ANSWER,
    FL_WIRE_RECALL,
    FL_WIRE_RECALLED,
    FL_WIRE_KIND_COUNT
};

enum fl_activity { /* what a site is doing, in its heartbeats */
                   FL_ACTIVITY_IDLE,
                   FL_ACTIVITY_DOWNLOADING,
                   FL_ACTIVITY_EVALUATING,
                   FL_ACTIVITY_TRAINING,
                   FL_ACTIVITY_UPLOADING,
                   FL_ACTIVITY_COUNT
};

enum fl_goodbye { /* why a session ends */
                  FL_GOODBYE_SHUTDOWN,
                  FL_GOODBYE_DUPLICATE, /* a newer session of the same site exists */
                  FL_GOODBYE_REVOKED,
                  FL_GOODBYE_PROTOCOL, /* the peer broke the protocol */
                  FL_GOODBYE_COUNT
};

enum fl_verdict { FL_VERDICT_FIT, FL_VERDICT_PERMANENT, FL_VERDICT_TEMPORARY, FL_VERDICT_COUNT };

enum fl_refusal { /* why a site refuses a job or fails in it */
                  FL_REFUSAL_NONE,
                  FL_REFUSAL_POLICY, /* the site's policy: jobs, models, steps, rounds, tokens,
                                        cohort */
                  FL_REFUSAL_MODEL,  /* it has no such model, or another manifest */
                  FL_REFUSAL_RANK,
                  FL_REFUSAL_PRIVACY,
                  FL_REFUSAL_HOURS,
                  FL_REFUSAL_BUSY,
                  FL_REFUSAL_DISK,
                  FL_REFUSAL_MEMORY,
                  FL_REFUSAL_DATA,     /* its data cannot be read, or no row is left */
                  FL_REFUSAL_TRAINING, /* training failed: NaN, values beyond the range */
                  FL_REFUSAL_INTERNAL,
                  FL_REFUSAL_DIFFERENCING, /* the same work was summed before over other sites */
                  FL_REFUSAL_COUNT
};

enum fl_receipt {
    FL_RECEIPT_ACCEPTED,
    FL_RECEIPT_SUPERSEDED,
    FL_RECEIPT_REJECTED,
    FL_RECEIPT_COUNT
};

enum fl_wire_job_end { FL_JOB_END_DONE, FL_JOB_END_FAILED, FL_JOB_END_CANCELLED, FL_JOB_END_COUNT };

/* the order of the job table's choices */
enum fl_wire_schedule {
    FL_WIRE_SCHEDULE_CONSTANT,
    FL_WIRE_SCHEDULE_LINEAR,
    FL_WIRE_SCHEDULE_COSINE,
    FL_WIRE_SCHEDULE_COUNT
};
enum fl_wire_compute {
    FL_WIRE_COMPUTE_AUTO,
    FL_WIRE_COMPUTE_F32,
    FL_WIRE_COMPUTE_BF16,
    FL_WIRE_COMPUTE_COUNT
};
enum fl_wire_optimizer { FL_WIRE_OPTIMIZER_ADAMW, FL_WIRE_OPTIMIZER_SGD, FL_WIRE_OPTIMIZER_COUNT };

struct fl_object_ref {
    uint8_t root[FL_HASH_BYTES];
    uint64_t size; /* bytes, 0..FL_ADAPTER_BYTES_MAX */
};

/* length bytes borrowed: on decoding from the frame's arena, on encoding from the caller */
struct fl_wire_bytes {
    const uint8_t *data;
    size_t length;
};

struct fl_wire_join {
    uint8_t invitation[16];
    char name[FL_NAME_BYTES];
    uint8_t x25519[32], ed25519[32], mac[32], signature[64];
};
struct fl_wire_join_answer {
    bool accepted;
    char name[FL_NAME_BYTES];
    char reason[FL_REASON_BYTES];
};
struct fl_wire_hello {
    uint8_t instance[16];
    char software[FL_NAME_BYTES];
    uint64_t last_job;
    uint32_t last_round, last_attempt;
    bool has_last_version;
    uint8_t last_version[FL_HASH_BYTES];
};
struct fl_wire_welcome {
    uint8_t nonce[FL_NONCE_BYTES];
    char name[FL_NAME_BYTES];
    uint32_t heartbeat_ms, liveness_ms;
};
struct fl_wire_heartbeat {
    enum fl_activity activity;
    uint32_t step, steps;
    double tokens_per_second;
};
struct fl_wire_goodbye {
    enum fl_goodbye reason;
    char text[FL_REASON_BYTES];
    uint32_t wait_ms;
};
struct fl_wire_offer {
    char name[FL_NAME_BYTES], model[FL_NAME_BYTES];
    uint8_t manifest[FL_HASH_BYTES];
    char strategy[FL_NAME_BYTES];
    uint32_t rounds;
    uint64_t seed;
    char targets[FL_TARGETS_BYTES];
    double alpha;
    uint32_t rank_default, rank_max;
    double dropout;
    uint32_t steps, batch_size, seq_len;
    double lr, lr_a, lr_b; /* lr_a, lr_b: 0 means lr */
    enum fl_wire_schedule schedule;
    uint64_t warmup;
    double weight_decay, grad_clip;
    bool shuffle;
    enum fl_wire_compute compute;
    uint32_t threads; /* 0: the site decides */
    enum fl_wire_optimizer optimizer;
    uint32_t min_workers;
    bool secure_aggregation;
    double update_range; /* 0: auto */
    double clip_norm;    /* 0: none */
    uint64_t weight_cap;
    uint32_t evaluate_every, evaluate_rows;
    uint8_t job_hash[FL_HASH_BYTES];
    uint32_t liveness_ms;
    uint32_t retraining; /* 0..FL_RETRAININGS_MAX */
    bool dora;           /* adapters have magnitudes, trained beside A or B */
};
struct fl_wire_fit {
    enum fl_verdict verdict;
    enum fl_refusal code;
    char reason[FL_REASON_BYTES];
    uint32_t retry_after_ms;
    bool has_manifest; /* always with FL_VERDICT_FIT */
    uint8_t manifest[FL_HASH_BYTES];
    bool has_inventory; /* always with FL_VERDICT_FIT */
    struct fl_object_ref inventory;
};
struct fl_wire_task {
    struct fl_object_ref start;
    uint32_t version;
    uint8_t version_hash[FL_HASH_BYTES];
    struct fl_wire_bytes global_ranks, site_ranks; /* u16 LE each; the same number of modules */
    bool train_a, train_b, train, evaluate;
    uint64_t first_step, total_steps;
};
struct fl_wire_trained {
    uint32_t steps;
    double seconds;
    bool share_eval;
    double eval_loss_sum;
    uint64_t eval_tokens;
};
struct fl_wire_collect {
    uint32_t cohort;
    struct fl_wire_bytes tiers;           /* 0 or 1 each, at most FL_TIERS_MAX */
    uint8_t sealing_key[32];              /* X25519 public key of the job */
    struct fl_wire_bytes sharers, shares; /* empty without secure aggregation */
};
struct fl_wire_advert {
    uint8_t advert[FL_WIRE_ADVERT_BYTES];
};
/* lists with an entry for each member of the cohort: FL_WIRE_..._BYTES each, sets a byte 0 or 1 */
struct fl_wire_cohort {
    struct fl_wire_bytes adverts, plan;
};
struct fl_wire_shares {
    struct fl_wire_bytes sealed;
};
struct fl_wire_survivors {
    struct fl_wire_bytes survivors;
};
struct fl_wire_signed {
    uint8_t signature[FL_WIRE_SIGNATURE_BYTES];
};
struct fl_wire_unmask {
    struct fl_wire_bytes survivors, signed_by, signatures;
};
struct fl_wire_answer {
    struct fl_wire_bytes answer;
};
struct fl_wire_upload {
    struct fl_object_ref update;
    struct fl_wire_bytes opened; /* empty without secure aggregation */
};
struct fl_wire_receipt {
    enum fl_receipt status;
    char reason[FL_REASON_BYTES];
};
struct fl_wire_failed {
    bool permanent;
    enum fl_refusal code;
    char reason[FL_REASON_BYTES];
    uint32_t retry_after_ms;
};
struct fl_wire_version {
    uint32_t version;
    struct fl_object_ref adapter;
    uint8_t sha256[FL_HASH_BYTES];
    struct fl_wire_bytes ranks; /* u16 LE each */
    uint32_t workers;
    bool has_eval;
    double eval_loss;
    uint64_t eval_tokens;
    bool last;
};
struct fl_wire_job_end_message {
    enum fl_wire_job_end state;
    char reason[FL_REASON_BYTES];
    uint32_t version;
};
struct fl_wire_need {
    uint8_t root[FL_HASH_BYTES];
    bool pages;
    uint32_t first, count;
};
struct fl_wire_page {
    uint8_t root[FL_HASH_BYTES];
    uint32_t index;
    struct fl_wire_bytes hashes; /* 32 bytes each, 1..FL_PAGE_HASHES_MAX */
    uint64_t size;
    uint32_t chunk_count;
};
struct fl_wire_chunk {
    uint8_t root[FL_HASH_BYTES];
    uint32_t index;
    struct fl_wire_bytes data; /* 1..FL_CHUNK_BYTES */
};
struct fl_wire_missing {
    uint8_t root[FL_HASH_BYTES];
};
struct fl_wire_recall {
    uint32_t after;
};
struct fl_wire_recalled {
    uint32_t version; /* 0: none, and nothing else is set */
    uint8_t sha256[FL_HASH_BYTES];
    struct fl_object_ref adapter;
    uint32_t left; /* 0..FL_RECALLED_MAX - 1 */
};

struct fl_wire {
    bool has_nonce;
    uint8_t nonce[FL_NONCE_BYTES];
    uint64_t job;
    uint32_t round, attempt;
    enum fl_wire_kind kind;
    union {
        struct fl_wire_join join;
        struct fl_wire_join_answer join_answer;
        struct fl_wire_hello hello;
        struct fl_wire_welcome welcome;
        struct fl_wire_heartbeat heartbeat;
        struct fl_wire_goodbye goodbye;
        struct fl_wire_offer offer;
        struct fl_wire_fit fit;
        struct fl_wire_task task;
        struct fl_wire_trained trained;
        struct fl_wire_collect collect;
        struct fl_wire_upload upload;
        struct fl_wire_receipt receipt;
        struct fl_wire_failed failed;
        struct fl_wire_version version;
        struct fl_wire_job_end_message job_end;
        struct fl_wire_need need;
        struct fl_wire_page page;
        struct fl_wire_chunk chunk;
        struct fl_wire_missing missing;
        struct fl_wire_advert advert;
        struct fl_wire_cohort cohort;
        struct fl_wire_shares shares;
        struct fl_wire_survivors survivors;
        struct fl_wire_signed signed_;
        struct fl_wire_unmask unmask;
        struct fl_wire_answer answer;
        struct fl_wire_recall recall;
        struct fl_wire_recalled recalled;
    } as;
    void *arena; /* owned: what the fl_wire_bytes of a decoded message point into */
};

/*
 * Append the message as one frame to *out. FL_ERANGE: it would exceed its limit
 * (FL_CONTROL_BYTES_MAX, or FL_FRAME_BYTES_MAX for a chunk); FL_ENOMEM.
 */
FL_CHECKED enum fl_status fl_wire_encode(const struct fl_wire *message, struct fl_buf *out);

/*
 * Decode one frame. FL_OK: *out is valid and the caller calls fl_wire_free(). FL_EFORMAT with a
 * reason: anything wrong with it. FL_ENOMEM. On failure *out needs no free.
 */
FL_CHECKED enum fl_status fl_wire_decode(const void *frame, size_t length, struct fl_wire *out,
                                         struct fl_error *error);
void fl_wire_free(struct fl_wire *self);

/* "HELLO", "TASK", ... for logs */
const char *fl_wire_kind_name(enum fl_wire_kind kind);
/* "policy", "model", ... the `code` of refusals in JSON and logs */
const char *fl_refusal_name(enum fl_refusal code);
/* "idle", "training", ... */
const char *fl_activity_name(enum fl_activity activity);

/*
 * A name of a site, job or model: 1..63 of [A-Za-z0-9._-], not beginning with '.' or '-'.
 * Used for file names too.
 */
bool fl_wire_valid_name(const char *name);
/* Copy text into a field of `bytes` bytes, cutting at a UTF-8 boundary, control bytes as '?'. */
void fl_wire_set_text(char *field, size_t bytes, const char *text);

#endif

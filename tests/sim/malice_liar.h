/*
 * malice_liar.h - a coordinator in the hands of an attacker: it has a job, keys and the arithmetic
 * of secagg.h, and says what a test tells it to say. Everything that a site sends is kept.
 *
 * The sites of one attempt are `members`, in the order of their names; position i of every list is
 * members[i]. liar_fill_*() make the message that an honest coordinator would send next; a test
 * changes it and hands it to liar_say(). Lists that they point to live until the next fill of the
 * same kind.
 */
#ifndef FL_MALICE_LIAR_H
#define FL_MALICE_LIAR_H

#include "adapter/layout.h"
#include "job/job.h"
#include "malice.h"
#include "net/chunks.h"
#include "secagg/secagg.h"

#define LIAR_MODULES     3
#define LIAR_ROOTS       4
#define LIAR_SHARE_BYTES FL_SECAGG_SEALED_SHARE_BYTES

enum liar_stage { /* how far an attempt has come */
                  LIAR_OFFERED,
                  LIAR_TRAINED,
                  LIAR_KEYED,
                  LIAR_SHARED,
                  LIAR_UPLOADED,
                  LIAR_SIGNED,
                  LIAR_ANSWERED,
                  LIAR_STAGE_COUNT
};

/* What one site has said in the present attempt. */
struct liar_heard {
    bool welcomed;
    uint8_t nonce[FL_NONCE_BYTES];
    bool has_fit, trained, failed, has_advert, has_shares, has_update, has_signature, has_answer;
    struct fl_wire_fit fit;
    struct fl_wire_failed failure;
    uint8_t advert[FL_SECAGG_ADVERT_BYTES], signature[FL_SIGNATURE_BYTES];
    uint8_t shares[MAL_SITES_MAX * LIAR_SHARE_BYTES], answer[MAL_SITES_MAX * FL_SCALAR_BYTES];
    size_t shares_bytes, answer_bytes;
    struct fl_object_ref update;
    uint8_t *sealed; /* owned: the update as fetched; NULL: not fetched */
    size_t sealed_bytes;
    /* how often something new left the site, over all attempts */
    unsigned adverts, sharings, updates, signatures, answers, chunks;
    struct fl_serve *serve; /* owned: what it asked for */
    struct fl_fetch *fetch; /* owned: what is being fetched there */
};

struct liar_frame { /* on its way from a site */
    uint32_t site;
    uint8_t *bytes; /* owned */
    size_t length;
    struct liar_frame *next;
};

struct liar {
    struct mal mal;
    struct fl_job_spec *spec; /* owned */
    uint8_t job_hash[FL_HASH_BYTES];
    struct fl_inventory targets; /* owned */
    struct fl_box_keys *keys;    /* owned; sealing */
    struct fl_shelf *shelf;
    uint8_t start_root[2][FL_HASH_BYTES]; /* two starts, the second to lie with */
    uint64_t start_bytes;
    uint64_t job;
    uint32_t round, attempt, retraining;
    uint32_t members[MAL_SITES_MAX], count;
    uint16_t ranks[MAL_SITES_MAX]; /* by site; of every module */
    struct liar_heard heard[MAL_SITES_MAX];
    struct liar_frame *first, *last;
    bool fetches; /* updates are fetched as soon as they are offered */
    /* of the attempt */
    struct fl_secagg_context context;
    struct fl_secagg_cohort cohort;
    struct fl_layout *layout; /* owned */
    bool survives[MAL_SITES_MAX];
    /* what messages point to */
    uint8_t global_ranks[2 * LIAR_MODULES], site_ranks[2 * LIAR_MODULES];
    uint8_t adverts[MAL_SITES_MAX * FL_SECAGG_ADVERT_BYTES];
    struct fl_buf plan;
    uint8_t sharers[MAL_SITES_MAX], shares[MAL_SITES_MAX * LIAR_SHARE_BYTES];
    uint8_t survivors[MAL_SITES_MAX], signed_by[MAL_SITES_MAX];
    uint8_t signatures[MAL_SITES_MAX * FL_SIGNATURE_BYTES];
};

/* The sites are there and welcomed; all are members. job: more lines of the job file, or "". */
bool liar_open(struct liar *self, uint32_t count, const char *policy, const char *job);
void liar_close(struct liar *self);
/* Another attempt (or round, or job) with these members, of which nothing was heard yet. It is said
   to be trained for the first time: set `retraining` behind it. */
void liar_begin(struct liar *self, uint64_t job, uint32_t round, uint32_t attempt);
/* All but one of the present members. */
void liar_leave_out(struct liar *self, uint32_t site);

void liar_say(struct liar *self, uint32_t site, struct fl_wire *message);
/* Carry frames and do work until nothing happens any more. */
void liar_settle(struct liar *self);
struct fl_wire liar_about(const struct liar *self, enum fl_wire_kind kind);

void liar_fill_offer(struct liar *self, uint32_t site, struct fl_wire *out);
void liar_fill_task(struct liar *self, uint32_t site, struct fl_wire *out);
void liar_fill_cohort(struct liar *self, struct fl_wire *out);
void liar_fill_collect(struct liar *self, uint32_t site, struct fl_wire *out);
void liar_fill_survivors(struct liar *self, struct fl_wire *out);
void liar_fill_unmask(struct liar *self, struct fl_wire *out);

/* One honest step of one site, or of all members; from the stage before. */
void liar_step(struct liar *self, enum liar_stage to, uint32_t site);
void liar_step_all(struct liar *self, enum liar_stage to);
/* Honestly from the start of the attempt up to that stage. */
void liar_go(struct liar *self, enum liar_stage to);
/* What the coordinator may see: the sum of the survivors, opened. Does it hold on the grid? */
bool liar_open_sum(struct liar *self);
/* Would this one update, masks and all, pass for numbers on the grid? */
bool liar_reads(struct liar *self, uint32_t site);

#endif

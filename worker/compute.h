/*
 * compute.h - the work thread of a site's daemon: everything that takes time (checking the model,
 * evaluating, training, sealing, writing adapters) happens here, so that the I/O thread can always
 * answer heartbeats. The two threads share a queue of requests, a queue of results, a progress
 * record and an eventfd; a request owns all that it points to.
 *
 * Threads: submit, poll and progress from the I/O thread; the trainer and the site's deltas,
 * uploads and adapters are used by the work thread only.
 */
#ifndef FL_WORKER_COMPUTE_H
#define FL_WORKER_COMPUTE_H

#include <stdint.h>

#include "net/chunks.h"
#include "proto/wire.h"
#include "worker/siteconf.h"
#include "worker/sitestore.h"
#include "worker/trainer.h"

/* What a message belongs to. */
struct fl_attempt {
    uint64_t job;
    uint32_t round, attempt;
};

enum fl_work_kind {
    FL_WORK_FIT,
    FL_WORK_TRAIN,
    FL_WORK_SEAL,
    FL_WORK_KEEP,
    /* secure aggregation; see masking.h */
    FL_WORK_KEYS,
    FL_WORK_COHORT,
    FL_WORK_SURVIVORS,
    FL_WORK_UNMASK,
    FL_WORK_FORGET, /* the secrets of an attempt that is over */
    FL_WORK_KIND_COUNT
};

struct fl_work {
    enum fl_work_kind kind;
    struct fl_attempt key;
    struct fl_wire_offer offer;
    /* FL_WORK_TRAIN, FL_WORK_SEAL, FL_WORK_KEYS, FL_WORK_COHORT */
    struct fl_wire_task task; /* its byte fields point into ranks */
    uint8_t *ranks;           /* owned: global_ranks then site_ranks */
    /* FL_WORK_TRAIN, FL_WORK_COHORT, FL_WORK_SEAL without masks: the starting adapter;
       FL_WORK_KEEP: the version */
    uint8_t *bytes; /* owned; safetensors */
    size_t length;
    /* FL_WORK_SEAL */
    struct fl_wire_collect collect; /* its byte fields point into lists */
    /* secure aggregation: their byte fields point into lists */
    struct fl_wire_cohort cohort;
    struct fl_wire_unmask unmask; /* FL_WORK_SURVIVORS: survivors alone */
    uint8_t *lists;               /* owned */
    /* FL_WORK_KEEP */
    struct fl_wire_version version; /* ranks points into ranks above */
};

struct fl_work_result {
    enum fl_work_kind kind;
    struct fl_attempt key;
    enum fl_status status;
    struct fl_error error; /* when status is not FL_OK */
    enum fl_refusal code;  /* FL_REFUSAL_NONE: what the status means */
    bool of_own_data;      /* the error may quote the site's data: its words do not leave */
    /* FL_WORK_FIT */
    struct fl_trainer_fit fit;  /* without its inventory */
    struct fl_wire_offer offer; /* what was checked */
    struct fl_object *object;   /* owned: the inventory, or (FL_WORK_SEAL) the sealed update */
    uint64_t start_bytes_max;   /* the largest file of an adapter of this job */
    /* FL_WORK_TRAIN */
    struct fl_delta_stats stats;
    bool reused; /* the delta was kept from before, nothing was trained */
    /* secure aggregation: what the answer to the coordinator holds, owned; FL_WORK_SEAL: a byte a
       member, 1 where its shares opened */
    uint8_t *reply;
    size_t reply_bytes;
    uint32_t survivors; /* FL_WORK_UNMASK: how many */
    /* FL_WORK_SEAL */
    uint64_t cut, plain_bytes;
    uint8_t sha256[FL_HASH_BYTES]; /* of the sealed bytes */
    /* FL_WORK_KEEP: sha256 above is the version's */
    uint32_t version;
    bool last; /* of its job */
    char path[FL_PATH_BYTES];
};

struct fl_compute; /* opaque */

/*
 * Start the thread. conf, store and name are borrowed for its life; the trainer is taken over.
 */
FL_CHECKED enum fl_status fl_compute_start(const struct fl_siteconf *conf,
                                           const struct fl_sitestore *store,
                                           struct fl_trainer *trainer, struct fl_compute **out,
                                           struct fl_error *error);
/* The same without a thread: requests wait until fl_compute_turn() does them (a simulator). */
FL_CHECKED enum fl_status fl_compute_inline(const struct fl_siteconf *conf,
                                            const struct fl_sitestore *store,
                                            struct fl_trainer *trainer, struct fl_compute **out,
                                            struct fl_error *error);
/* Do the first waiting request here; false: none waits. Only without a thread. */
bool fl_compute_turn(struct fl_compute *self);
/* Stop training in progress, join the thread, release everything. */
void fl_compute_stop(struct fl_compute **self);
/* The site's name at the coordinator: part of the data order. Call before any FL_WORK_TRAIN. */
void fl_compute_set_name(struct fl_compute *self, const char *name);

/* Readable when a result waits. */
int fl_compute_fd(const struct fl_compute *self);
/* A zeroed request; NULL when out of memory. */
struct fl_work *fl_work_new(enum fl_work_kind kind, struct fl_attempt key);
void fl_work_free(struct fl_work *work);
/* Copy lists of a message into work->lists, one behind the other, and point them there. */
bool fl_work_copy_lists(struct fl_work *work, struct fl_wire_bytes *const *lists, size_t count);
/* Hand over a request. */
void fl_compute_submit(struct fl_compute *self, struct fl_work *work);
/* The next result, or NULL. The caller frees it with fl_work_result_free(). */
struct fl_work_result *fl_compute_poll(struct fl_compute *self);
void fl_work_result_free(struct fl_work_result *result);
/* Forget requests that wait, and make a running training of another round than key's end early. */
void fl_compute_abandon(struct fl_compute *self, const struct fl_attempt *keep);
/* What is going on now. */
struct fl_trainer_progress fl_compute_progress(struct fl_compute *self);

/*
 * H(settings that shape a delta): two attempts with the same fingerprint would train the same
 * delta. start_root is the object root of the starting adapter.
 */
void fl_work_fingerprint(const struct fl_wire_offer *offer, const struct fl_wire_task *task,
                         uint8_t out[FL_HASH_BYTES]);

#endif

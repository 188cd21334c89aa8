/*
 * registry.h - the versions of a job's adapter: a file DIR/versions/JOB/N.safetensors and a row.
 *
 * Version N is the adapter after round N, version 0 the start. Nothing is renumbered or deleted;
 * `rollback` only moves the job's current version.
 * Threads: the loop's.
 */
#ifndef FL_COORDINATOR_REGISTRY_H
#define FL_COORDINATOR_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "adapter/adapter.h"
#include "base/hash.h"
#include "coordinator/queue.h"
#include "coordinator/store.h"

struct fl_version {
    int64_t job;
    uint32_t version, round;
    char strategy[FL_NAME_BYTES];
    uint8_t sha256[FL_HASH_BYTES];
    bool has_sum; /* version 0 has none */
    uint8_t sum_sha256[FL_HASH_BYTES];
    uint8_t root[FL_HASH_BYTES]; /* as a bulk object */
    uint64_t bytes;
    uint32_t rank_count;
    uint16_t ranks[FL_MODULES_MAX]; /* of each target module */
    uint32_t rank;                  /* the largest */
    uint32_t workers;
    int64_t created_ms;
    double train_loss, eval_loss; /* NaN: none */
    uint64_t train_tokens, eval_tokens;
    double delta_norm, cut_fraction;
    bool has_parent;
    uint8_t parent_sha256[FL_HASH_BYTES]; /* of the version that the round began with */
};

/* The file of a version; path has FL_PATH_BYTES bytes. */
FL_CHECKED enum fl_status fl_registry_path(const struct fl_store *store, int64_t job,
                                           uint32_t version, char *path, struct fl_error *error);
/* Enter a version whose file is durable. One that is there already stays as it is. */
FL_CHECKED enum fl_status fl_registry_put(struct fl_store *store, const struct fl_version *version,
                                          struct fl_error *error);
/* FL_ENOTFOUND with "job J has no version N". */
FL_CHECKED enum fl_status fl_registry_get(struct fl_store *store, int64_t job, uint32_t version,
                                          struct fl_version *out, struct fl_error *error);
/* The newest version; FL_ENOTFOUND. */
FL_CHECKED enum fl_status fl_registry_newest(struct fl_store *store, int64_t job,
                                             struct fl_version *out, struct fl_error *error);
/* Call each for versions 1.. of one job (0: of all jobs), in order. */
FL_CHECKED enum fl_status fl_registry_each(struct fl_store *store, int64_t job,
                                           enum fl_status (*each)(void *context,
                                                                  const struct fl_version *),
                                           void *context, struct fl_error *error);
/* The same for the newest versions of a job, at most so many. */
FL_CHECKED enum fl_status fl_registry_last(struct fl_store *store, int64_t job, uint32_t most,
                                           enum fl_status (*each)(void *context,
                                                                  const struct fl_version *),
                                           void *context, struct fl_error *error);
/* The held-out loss of a version; version 0's is kept with the job. */
FL_CHECKED enum fl_status fl_registry_set_eval(struct fl_store *store, int64_t job,
                                               uint32_t version, double loss, uint64_t tokens,
                                               struct fl_error *error);
/* Make version the job's current one. FL_ENOTFOUND; FL_EBUSY: the job is running. */
FL_CHECKED enum fl_status fl_registry_rollback(struct fl_store *store, const struct fl_job *job,
                                               uint32_t version, struct fl_error *error);

/* An adapter of that version's shape (ranks, scale, base model's name), A = B = 0. */
FL_CHECKED enum fl_status fl_registry_shape(const struct fl_inventory *targets,
                                            const struct fl_job_spec *spec, const uint16_t *ranks,
                                            struct fl_adapter **out, struct fl_error *error);
/* Read a version's file into such an adapter, checking its hash. */
FL_CHECKED enum fl_status fl_registry_read(const char *path, const struct fl_inventory *targets,
                                           const struct fl_job_spec *spec, const uint16_t *ranks,
                                           const uint8_t *sha256, struct fl_adapter **out,
                                           struct fl_error *error);

#endif

/*
 * aggregate.h - from the updates of a round to the next version of the adapter.
 *
 * One running sum in the ring: memory is one vector whatever the number of sites, and the order of
 * arrival leaves no trace. With masks off each update is held against what that site may send; with
 * masks on only the sum can be checked (guard bits).
 * Threads: an aggregate belongs to one thread (the coordinator's compute thread).
 */
#ifndef FL_COORDINATOR_AGGREGATE_H
#define FL_COORDINATOR_AGGREGATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapter/adapter.h"
#include "adapter/fixed.h"
#include "adapter/layout.h"
#include "base/status.h"

/* More than this share of cut values fails the round. */
#define FL_CUT_FRACTION_MAX 0.001

struct fl_aggregate;

/* layout and grid are borrowed until destroy. *out is owned by the caller. */
FL_CHECKED enum fl_status fl_aggregate_create(const struct fl_layout *layout,
                                              const struct fl_grid *grid, bool masked,
                                              struct fl_aggregate **out);
void fl_aggregate_destroy(struct fl_aggregate **self);

/*
 * One update: begin, push its opened bytes in pieces of any size, end. site: index in the cohort;
 * each at most once (FL_EEXIST). After a failed push or end the sum is spoiled, and every later
 * call but destroy answers FL_EINVAL: begin anew with a fresh aggregate, without that site.
 * fl_update_reader with NULL sums checks an update beforehand.
 */
FL_CHECKED enum fl_status fl_aggregate_begin(struct fl_aggregate *self, uint32_t site,
                                             struct fl_error *error);
FL_CHECKED enum fl_status fl_aggregate_push(struct fl_aggregate *self, const void *bytes,
                                            size_t length, struct fl_error *error);
FL_CHECKED enum fl_status fl_aggregate_end(struct fl_aggregate *self, struct fl_error *error);

/* The running sums, where secure aggregation subtracts masks: (layout->elements),
 * (layout->scalar_count). */
uint32_t *fl_aggregate_vector(struct fl_aggregate *self);
uint64_t *fl_aggregate_scalars(struct fl_aggregate *self);

struct fl_aggregate_result {
    uint32_t sites;                    /* summed */
    uint8_t sum_sha256[FL_HASH_BYTES]; /* of the canonical bytes of the sums */
    uint64_t weight;                   /* sum of the sites' weights in the largest tier */
    double train_loss;                 /* mean over scored tokens; NaN if train_tokens = 0 */
    uint64_t train_tokens;
    double eval_loss; /* of the adapter the round began with; NaN if none */
    uint64_t eval_tokens;
    uint64_t cut, values;
    double cut_fraction;
    double delta_norm; /* Frobenius norm of the mean update */
};

/*
 * start: the adapter that the sites were given (fl_strategy_start), at the plan's global ranks.
 * *out: start + the mean update; where the layout trains nothing it is NULL, and start and out may
 * be NULL too. FL_EFORMAT: a sum beyond the guard bits; FL_ERANGE: too many cut values, *error
 * names the range to set (result is filled); FL_EINVAL: no site, shapes.
 */
FL_CHECKED enum fl_status fl_aggregate_finish(struct fl_aggregate *self,
                                              const struct fl_adapter *start,
                                              struct fl_adapter **out,
                                              struct fl_aggregate_result *result,
                                              struct fl_error *error);

#endif

/* labour_internal.h - what labour.c, sealing.c and masking.c share. */
#ifndef FL_WORKER_LABOUR_INTERNAL_H
#define FL_WORKER_LABOUR_INTERNAL_H

#include "worker/labour.h"

/* ---- labour.c ---- */
uint16_t fl_labour_rank_at(const struct fl_wire_bytes *ranks, uint32_t index);
/* An adapter of the targets at the given ranks, A = B = m = 0, under the job's one scale. */
FL_CHECKED enum fl_status fl_labour_shape(const struct fl_labour *self,
                                          const struct fl_wire_offer *offer,
                                          const struct fl_wire_bytes *ranks,
                                          struct fl_adapter **out, struct fl_error *error);
/* Of the order of rows and the dropout of that round, each time that it is trained another one. */
uint64_t fl_labour_data_seed(const struct fl_labour *self, const struct fl_wire_offer *offer,
                             uint32_t round);
/* Names the delta of this task: fl_work_fingerprint(), the settings as they were said, the order of
   rows, and the data that it is trained on. */
void fl_labour_fingerprint(const struct fl_labour *self, const struct fl_work *work,
                           uint8_t out[FL_HASH_BYTES]);
/* The kept delta of this task, if there is one. *delta is NULL in a round that only evaluated. */
FL_CHECKED enum fl_status fl_labour_load_kept(struct fl_labour *self, const struct fl_work *work,
                                              const uint8_t fingerprint[FL_HASH_BYTES],
                                              struct fl_adapter **delta,
                                              struct fl_delta_stats *stats, struct fl_error *error);

/* ---- sealing.c ---- */
/* What a round trains, and the ranges of its values (1.0 where a factor is not trained). */
struct fl_round_ranges {
    enum fl_factors factors;
    struct fl_ranges of;
};
/* work->bytes is the start adapter, which decides automatic ranges. */
FL_CHECKED enum fl_status fl_labour_ranges(const struct fl_labour *self, const struct fl_work *work,
                                           struct fl_round_ranges *out, struct fl_error *error);
/* The grid of the offered job with that many sites. */
FL_CHECKED enum fl_status fl_labour_grid(const struct fl_wire_offer *offer, uint32_t sites,
                                         struct fl_grid *out);
/* FL_EREFUSED, with the code of privacy. */
FL_CHECKED enum fl_status fl_labour_refuse(struct fl_work_result *result, struct fl_error *error,
                                           const char *why);
FL_CHECKED enum fl_status fl_labour_seal(struct fl_labour *self, const struct fl_work *work,
                                         struct fl_work_result *result, struct fl_error *error);

/* ---- masking.c: a site's side of secure aggregation ---- */
FL_CHECKED enum fl_status fl_labour_keys(struct fl_labour *self, const struct fl_work *work,
                                         struct fl_work_result *result, struct fl_error *error);
FL_CHECKED enum fl_status fl_labour_cohort(struct fl_labour *self, const struct fl_work *work,
                                           struct fl_work_result *result, struct fl_error *error);
FL_CHECKED enum fl_status fl_labour_survivors(struct fl_labour *self, const struct fl_work *work,
                                              struct fl_work_result *result,
                                              struct fl_error *error);
FL_CHECKED enum fl_status fl_labour_unmask(struct fl_labour *self, const struct fl_work *work,
                                           struct fl_work_result *result, struct fl_error *error);
/* The secrets and the cohort of this attempt are here; FL_EREFUSED: lost. */
FL_CHECKED enum fl_status fl_masking_check(const struct fl_labour *self, const struct fl_work *work,
                                           bool cohort, struct fl_work_result *result,
                                           struct fl_error *error);
/* Mask an encoded update (header, scalars, vector) in place; result->reply: whose shares opened. */
FL_CHECKED enum fl_status fl_masking_apply(struct fl_labour *self, const struct fl_work *work,
                                           uint8_t *update, struct fl_work_result *result,
                                           struct fl_error *error);
/* Fewest sites whose sum may be seen: the site's policy, the job's own, and 3. */
uint32_t fl_masking_minimum(const struct fl_labour *self, const struct fl_wire_offer *offer);

#endif

/*
 * ranks.h - the rank schedule of a job: which rank each site trains in each layer and round.
 *
 * The rank of (round, site, layer) is the smallest of the matching `round.N` / `round.N-M`,
 * `worker.NAME` and `layers.A-B` entries (ends included), else `default`, and never above
 * min(in, out) of the module. Rounds count from 1, layers from 0.
 * Threads: a schedule is a plain value.
 */
#ifndef FL_JOB_RANKS_H
#define FL_JOB_RANKS_H

#include <stdbool.h>
#include <stdint.h>

#include "adapter/adapter.h"
#include "adapter/layout.h"
#include "base/buf.h"
#include "base/limits.h"
#include "base/status.h"

#define FL_RANK_RULES_MAX 512

enum fl_rank_rule_kind { FL_RANK_ROUND, FL_RANK_WORKER, FL_RANK_LAYERS };

struct fl_rank_rule {
    enum fl_rank_rule_kind kind;
    uint32_t low, high; /* rounds or layers, ends included */
    char worker[FL_NAME_BYTES];
    uint32_t rank;
};

struct fl_rank_schedule {
    uint64_t fallback; /* `default` */
    uint32_t count;
    struct fl_rank_rule rules[FL_RANK_RULES_MAX];
};

/* Add one entry of [ranks] ("round.2-4", "worker.NAME", "layers.0-5"); FL_EFORMAT, FL_ERANGE. */
FL_CHECKED enum fl_status fl_rank_schedule_add(struct fl_rank_schedule *self, const char *key,
                                               const char *value, struct fl_error *error);
/* Entries in canonical order (rounds, workers, layers; each ascending), as lines "key = rank". */
void fl_rank_schedule_print(const struct fl_rank_schedule *self, struct fl_buf *out);

/* worker may be NULL: a site that no rule names. limit: min(in, out), at least 1. */
uint32_t fl_rank_of(const struct fl_rank_schedule *self, uint32_t round, const char *worker,
                    uint32_t layer, uint32_t limit);

/*
 * The ranks of a round for its cohort (names in the cohort's order). previous: the adapter of the
 * version before (NULL: none). A module's global rank is the largest given to any site; it never
 * falls below previous's rank only because a larger site is absent: it shrinks to what the
 * schedule itself says, and not at all when may_shrink is false.
 * least: thin tiers are avoided by lowering ranks so that each direction is trained by at least so
 * many sites (1: no such rule).
 */
FL_CHECKED enum fl_status fl_rank_schedule_plan(const struct fl_rank_schedule *self, uint32_t round,
                                                const char *const *workers, uint32_t count,
                                                const struct fl_inventory *targets,
                                                const struct fl_adapter *previous, bool may_shrink,
                                                uint32_t least, struct fl_rank_plan *out);

/* The largest rank that any rule or the default gives (for policies and memory estimates). */
uint32_t fl_rank_schedule_largest(const struct fl_rank_schedule *self);

/* Does some layer's rank ever fall from one round to the next? *round: the first such round. */
bool fl_rank_schedule_shrinks(const struct fl_rank_schedule *self, uint32_t rounds,
                              uint32_t *round);

/*
 * Could every direction be trained by at least `least` sites if the named workers and
 * (min_workers - named) others took part? FL_EREFUSED with the way out, else FL_OK.
 */
FL_CHECKED enum fl_status fl_rank_schedule_check_tiers(const struct fl_rank_schedule *self,
                                                       uint32_t rounds, uint32_t min_workers,
                                                       uint32_t least, struct fl_error *error);

#endif

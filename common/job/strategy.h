/*
 * strategy.h - what a round trains, and how the adapter of one version becomes the start of the
 * next round. One table.
 *
 *   alternating  B, then A, alternately; between rounds B A is re-factored so that the frozen
 *                factor is orthonormal. Exact.
 *   rolora       the same without re-factoring (Chen et al., 2025). Exact.
 *   ffa          B only, A stays as it began (Sun et al., ICLR 2024). Exact.
 *   fedit        both, averaged apart (Zhang et al., ICASSP 2024). Not exact:
 *                sum w B A - mean(B) mean(A) = sum w (B - mean B)(A - mean A).
 * flexlora, flora and fedex need each site's own factors; they are known by name and refused.
 * Threads: pure functions of their arguments.
 */
#ifndef FL_JOB_STRATEGY_H
#define FL_JOB_STRATEGY_H

#include <stdbool.h>
#include <stdint.h>

#include "adapter/adapter.h"
#include "adapter/layout.h"
#include "base/status.h"

enum fl_strategy {
    FL_STRATEGY_ALTERNATING,
    FL_STRATEGY_ROLORA,
    FL_STRATEGY_FFA,
    FL_STRATEGY_FEDIT,
    FL_STRATEGY_FLEXLORA,
    FL_STRATEGY_FLORA,
    FL_STRATEGY_FEDEX,
    FL_STRATEGY_COUNT
};
/* The same order, for the configuration table. */
#define FL_STRATEGY_CHOICES "alternating|rolora|ffa|fedit|flexlora|flora|fedex"

struct fl_strategy_info {
    const char *name;
    enum fl_factors odd, even; /* trained in odd and even rounds */
    bool refactors;            /* between rounds; without it a schedule must not shrink */
    bool exact;                /* the average of the products, not of the factors */
    bool needs_single;         /* needs single updates: refused under secure aggregation */
    bool built;                /* available in this version */
};

const struct fl_strategy_info *fl_strategy_info(enum fl_strategy strategy);
/* FL_ENOTFOUND. */
FL_CHECKED enum fl_status fl_strategy_find(const char *name, enum fl_strategy *out);
/* What round (from 1) trains. Round 1 always trains B, since B = 0 makes A's gradient 0. */
enum fl_factors fl_strategy_factors(enum fl_strategy strategy, uint32_t round);

/*
 * Version 0 of a job without a start adapter: module m at ranks[m], A from the seed as PEFT starts
 * it (fl_adapter_init), B = 0, one scale alpha / rank for every module. *out is owned by the
 * caller.
 */
FL_CHECKED enum fl_status fl_strategy_first(const struct fl_inventory *targets,
                                            const uint16_t *ranks, uint32_t rank, double alpha,
                                            double dropout, uint64_t seed, struct fl_adapter **out,
                                            struct fl_error *error);

struct fl_start_result {
    double energy, energy_lost; /* of the product, summed over modules (re-factoring only) */
};

/*
 * The adapter with which round begins, from the version before it: at plan->global ranks,
 * re-factored where the strategy does so. Deterministic, so that it can be made again after a
 * crash. *out is owned by the caller; result may be NULL. FL_EINVAL: a rank shrinks without
 * re-factoring.
 */
FL_CHECKED enum fl_status fl_strategy_start(enum fl_strategy strategy, uint64_t seed,
                                            uint32_t round, const struct fl_adapter *previous,
                                            const struct fl_rank_plan *plan,
                                            struct fl_adapter **out, struct fl_start_result *result,
                                            struct fl_error *error);

#endif

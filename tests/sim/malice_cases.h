/* malice_cases.h - the lies of a coordinator, by what they are about. */
#ifndef FL_MALICE_CASES_H
#define FL_MALICE_CASES_H

#include "malice_liar.h"

struct lie {
    const char *name; /* NULL ends a table */
    uint32_t sites;
    const char *policy, *job; /* lines for [policy], and for the end of the job file */
    void (*tell)(struct liar *liar);
};

extern const struct lie lies_of_lists[]; /* malice_coordinator.c: members, and what they are told */
extern const struct lie lies_of_sums[]; /* malice_sums.c: updates, survivors, answers, the ledger */
extern const struct lie lies_of_order[]; /* malice_walk.c: any message in any stage */

/* That site said FAILED, and why is part of its reason. */
void lie_refused(struct liar *liar, uint32_t site, const char *why);
/* Everything that could come next is said to it, in order and backwards: nothing new may leave. */
void lie_presses_on(struct liar *liar, uint32_t site);

#endif

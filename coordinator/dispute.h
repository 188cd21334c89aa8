/*
 * dispute.h - whose fault it is that shares do not open. A share is sealed by one site for another,
 * so that the coordinator sees only that the one says it is bad: of the two at least one lies.
 * If fewer than t survivors opened the shares of a member, its secret cannot be put together and
 * nobody should answer; if no more than n - t sites lie, then who is disputed by more than that is
 * guilty, and of the rest both ends of a dispute are suspect.
 * Threads: a pure function.
 */
#ifndef FL_COORDINATOR_DISPUTE_H
#define FL_COORDINATOR_DISPUTE_H

#include "secagg/secagg.h"

struct fl_dispute {
    struct fl_secagg_set guilty, suspect; /* no member is in both */
};

/*
 * n members; opened[v].has[u]: survivor v says that the shares of u opened there. true: every
 * sharer's secret can be put together, and *out is empty.
 */
bool fl_dispute_settle(uint32_t n, const struct fl_secagg_set *sharers,
                       const struct fl_secagg_set *survivors, const struct fl_secagg_set *opened,
                       struct fl_dispute *out);

#endif

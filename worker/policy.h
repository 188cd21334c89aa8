/*
 * policy.h - the site's own law: whether a job's offer may run here. It is checked before anything
 * that a coordinator asks is done, and its answer is final for that offer.
 * Threads: pure function of its arguments.
 */
#ifndef FL_WORKER_POLICY_H
#define FL_WORKER_POLICY_H

#include "proto/wire.h"
#include "worker/siteconf.h"

struct fl_policy_answer {
    enum fl_verdict verdict; /* FL_VERDICT_FIT: nothing in the policy speaks against it */
    enum fl_refusal code;
    char reason[FL_REASON_BYTES]; /* says the rule, the wanted and the allowed value */
    uint32_t retry_after_ms;      /* with FL_VERDICT_TEMPORARY */
};

/*
 * Hold the offer against the configuration. minute_of_day: local time, 0..1439. A round that has
 * begun is finished whatever the hours say, so `hours` is judged only when `fresh` is true.
 */
void fl_policy_check(const struct fl_siteconf *conf, const struct fl_wire_offer *offer,
                     unsigned minute_of_day, bool fresh, struct fl_policy_answer *out);

#endif

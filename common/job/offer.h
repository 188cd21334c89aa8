/*
 * offer.h - what a job asks of one site, as the message that carries it.
 * Threads: pure function.
 */
#ifndef FL_JOB_OFFER_H
#define FL_JOB_OFFER_H

#include "job/job.h"
#include "proto/wire.h"

/*
 * Fill an OFFER for the site of that name, of a round that is trained for the first time. job_hash
 * is the hash of the spec's canonical text.
 */
void fl_job_offer(const struct fl_job_spec *spec, const uint8_t job_hash[FL_HASH_BYTES],
                  const char *site, struct fl_wire_offer *out);

/* Which factors a task of that offer trains; NONE: a round that only evaluates. */
enum fl_factors fl_job_factors(const struct fl_wire_offer *offer, const struct fl_wire_task *task);
/*
 * What every site of a cohort must have been told alike: the offer without what is said to one site
 * alone (rank_max), and the round's task without this site's ranks. Secure aggregation binds it.
 */
void fl_job_binding(const struct fl_wire_offer *offer, const struct fl_wire_task *task,
                    uint8_t out[FL_HASH_BYTES]);
/*
 * What shapes a site's delta and nothing that a coordinator may choose anew for the same work (ids,
 * names, attempts, timeouts, cohorts, range and weight of the encoded numbers, what is evaluated,
 * the strategy that led to the task): the `settings` of a site's ledger.
 */
void fl_job_training_settings(const struct fl_wire_offer *offer, const struct fl_wire_task *task,
                              uint8_t out[FL_HASH_BYTES]);
/* How a site's delta becomes numbers of a sum: range, norm and weight that they are cut to. */
void fl_job_encoding(const struct fl_wire_offer *offer, uint8_t out[FL_HASH_BYTES]);

#endif

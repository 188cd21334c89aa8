/*
 * offer.h - what a job asks of one site, as the message that carries it.
 * Threads: pure function.
 */
#ifndef FL_JOB_OFFER_H
#define FL_JOB_OFFER_H

#include "job/job.h"
#include "proto/wire.h"

/* Fill an OFFER for the site of that name. job_hash is the hash of the spec's canonical text. */
void fl_job_offer(const struct fl_job_spec *spec, const uint8_t job_hash[FL_HASH_BYTES],
                  const char *site, struct fl_wire_offer *out);

#endif

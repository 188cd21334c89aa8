/*
 * record.h - lines of the audit log that take more than one call to put together. Which update of
 * which site came in, and what was made of them, can be held against the sites' own logs.
 * Threads: the loop's.
 */
#ifndef FL_COORDINATOR_RECORD_H
#define FL_COORDINATOR_RECORD_H

#include "coordinator/desk.h"
#include "coordinator/work.h"

/* A change of the roster: name, both keys. address may be NULL. */
FL_CHECKED enum fl_status fl_record_site(struct fl_desk *desk, const char *event, const char *name,
                                         const char *address, struct fl_error *error);
/* An update that was checked and is about to be acknowledged. Never FL_EFORMAT. */
FL_CHECKED enum fl_status fl_record_update(struct fl_desk *desk, const struct fl_check_work *work,
                                           struct fl_error *error);
/* A round that is about to be committed. */
FL_CHECKED enum fl_status fl_record_round(struct fl_desk *desk, const struct fl_sum_work *work,
                                          struct fl_error *error);

#endif

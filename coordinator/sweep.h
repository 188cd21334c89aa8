/*
 * sweep.h - takes away what a job leaves behind whose end was committed in the moment of a crash:
 * its spool, its start adapters and its sealing key.
 */
#ifndef FL_COORDINATOR_SWEEP_H
#define FL_COORDINATOR_SWEEP_H

#include "coordinator/store.h"

/*
 * For every job that is done, failed or cancelled. The first failure is returned, and the other
 * jobs are swept all the same. Threads: the store's.
 */
FL_CHECKED enum fl_status fl_sweep_ended(struct fl_store *store, struct fl_error *error);

#endif

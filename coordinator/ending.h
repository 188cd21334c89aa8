/*
 * ending.h - the audit log's line `job_ended`: a job that ended, or paused, has it, whenever the
 * process died. That it is owed is committed together with the job's state and forgotten once it is
 * on the disk; a crash between the two makes the next process write it, maybe a second time.
 * Threads: the loop's.
 */
#ifndef FL_COORDINATOR_ENDING_H
#define FL_COORDINATOR_ENDING_H

#include "coordinator/desk.h"
#include "coordinator/queue.h"

/* The line will be written. Within the transaction that changes the job's state. */
FL_CHECKED enum fl_status fl_ending_owe(struct fl_store *store, int64_t job,
                                        enum fl_job_state state, const char *reason,
                                        struct fl_error *error);
/* Write the lines that are owed. What cannot be written stays owed; the first failure is given. */
FL_CHECKED enum fl_status fl_ending_write(struct fl_desk *desk, struct fl_error *error);

#endif

/*
 * process.h - what a process that holds secrets and private data asks of the system for itself.
 * Threads: call it before the first thread starts.
 */
#ifndef FL_BASE_PROCESS_H
#define FL_BASE_PROCESS_H

/*
 * No core dump of this process, and no debugger of the same user attached to it, unless the
 * environment says FEDLORA_COREDUMP=1. A failure is logged: the daemon is of use all the same.
 */
void fl_process_no_dumps(void);

#endif

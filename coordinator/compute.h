/*
 * compute.h - the compute thread: a queue of requests that own all they point to or borrow only
 * what does not change, and a queue of finished ones. The simulator runs the same requests inline.
 * Threads: submit and take belong to the loop; a request's run() is called on the other thread.
 */
#ifndef FL_COORDINATOR_COMPUTE_H
#define FL_COORDINATOR_COMPUTE_H

#include <stdbool.h>

#include "base/status.h"

struct fl_chore { /* the first member of every request */
    void (*run)(struct fl_chore *self);
    void (*finish)(struct fl_chore *self, void *context); /* in the loop; releases the request */
    struct fl_chore *next;
};

struct fl_mill; /* opaque */

/* threaded false: fl_mill_submit() runs the request at once. */
FL_CHECKED enum fl_status fl_mill_start(bool threaded, struct fl_mill **out,
                                        struct fl_error *error);
/* Finish the request in progress, drop the waiting ones through their finish(context NULL). */
void fl_mill_stop(struct fl_mill **self);
/* Readable when a finished request waits (an eventfd). */
int fl_mill_fd(const struct fl_mill *self);
void fl_mill_submit(struct fl_mill *self, struct fl_chore *chore);
/* Call finish(context) of every request that has finished by now. */
void fl_mill_collect(struct fl_mill *self, void *context);

#endif

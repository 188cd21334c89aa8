/*
 * list.h - a growing array of plain values, for rows of a result.
 * Threads: as any plain value.
 */
#ifndef FL_COORDINATOR_LIST_H
#define FL_COORDINATOR_LIST_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct fl_list {
    size_t item_bytes; /* set by the owner */
    void *items;       /* owned */
    uint32_t count, capacity;
};

FL_CHECKED enum fl_status fl_list_append(struct fl_list *self, const void *item);
/* Hand the array over (fl_free() releases it), or on a bad status release it; gives status back. */
FL_CHECKED enum fl_status fl_list_take(struct fl_list *self, enum fl_status status, void **items,
                                       uint32_t *count);

#endif

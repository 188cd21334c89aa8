/* list.c - see list.h. */
#include "coordinator/list.h"

#include <string.h>

#include "base/alloc.h"

enum fl_status fl_list_append(struct fl_list *self, const void *item)
{
    if (self->count == self->capacity) {
        uint32_t capacity = self->capacity ? 2 * self->capacity : 16;
        void *grown = fl_reallocarray(self->items, capacity, self->item_bytes);
        if (!grown)
            return FL_ENOMEM;
        self->items = grown;
        self->capacity = capacity;
    }
    memcpy((unsigned char *)self->items + self->count * self->item_bytes, item, self->item_bytes);
    self->count++;
    return FL_OK;
}

enum fl_status fl_list_take(struct fl_list *self, enum fl_status status, void **items,
                            uint32_t *count)
{
    if (status != FL_OK) {
        fl_free(self->items);
        self->items = NULL;
        self->count = 0;
    }
    *items = self->items;
    *count = self->count;
    return status;
}

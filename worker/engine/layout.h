/*
 * layout.h - the engine's one arena: the same function walks it twice, once to count and once to
 * hand out pointers. Threads: none.
 */
#ifndef FL_ENGINE_LAYOUT_H
#define FL_ENGINE_LAYOUT_H

#include "worker/engine/engine_internal.h"

/* Fill in the sizes that follow from model, adapter and options (work, shape, head, batch). */
void fl_engine_sizes(struct fl_engine *self);
/* Bytes of the arena; with base (aligned to 64 bytes) every pointer is set into it. */
size_t fl_engine_layout(struct fl_engine *self, void *base);

#endif

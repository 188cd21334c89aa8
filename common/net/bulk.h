/*
 * bulk.h - the four messages of a bulk object (chunks.h) as messages of the wire, and back.
 * Threads: pure functions.
 */
#ifndef FL_NET_BULK_H
#define FL_NET_BULK_H

#include <stdbool.h>

#include "net/chunks.h"
#include "proto/wire.h"

/* Sets kind and body of *to, and nothing else of it. Bytes stay borrowed from *from. */
void fl_bulk_to_wire(const struct fl_chunk_message *from, struct fl_wire *to);
/* false: not one of the four. Bytes stay borrowed from *from. */
bool fl_bulk_from_wire(const struct fl_wire *from, struct fl_chunk_message *to);

#endif

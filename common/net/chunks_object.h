/* chunks_object.h - what fl_serve needs to see of an object; see chunks.h. */
#ifndef FL_NET_CHUNKS_OBJECT_H
#define FL_NET_CHUNKS_OBJECT_H

#include "net/chunks.h"

uint32_t fl_object_chunks(const struct fl_object *self);
const uint8_t *fl_object_hashes(const struct fl_object *self); /* (chunks, FL_HASH_BYTES) */
/* The bytes of one chunk: *data points into the object or into buffer (FL_CHUNK_BYTES). */
FL_CHECKED enum fl_status fl_object_chunk(const struct fl_object *self, uint32_t index,
                                          uint8_t *buffer, const uint8_t **data, size_t *length);

#endif

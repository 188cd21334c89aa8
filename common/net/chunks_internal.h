/* chunks_internal.h - the layout of bulk objects, shared by sender and receiver; see chunks.h. */
#ifndef FL_NET_CHUNKS_INTERNAL_H
#define FL_NET_CHUNKS_INTERNAL_H

#include "net/chunks.h"

static inline uint32_t fl_chunk_count(uint64_t size)
{
    return (uint32_t)((size + FL_CHUNK_BYTES - 1) / FL_CHUNK_BYTES);
}

static inline uint32_t fl_page_count(uint32_t chunks)
{
    return (chunks + FL_CHUNK_PAGE_HASHES - 1) / FL_CHUNK_PAGE_HASHES;
}

static inline size_t fl_chunk_length(uint64_t size, uint32_t index)
{
    const uint64_t left = size - (uint64_t)index * FL_CHUNK_BYTES;
    return left < FL_CHUNK_BYTES ? (size_t)left : FL_CHUNK_BYTES;
}

/* hashes in page `page` of an object of `chunks` chunks */
static inline uint32_t fl_page_length(uint32_t chunks, uint32_t page)
{
    const uint32_t left = chunks - page * FL_CHUNK_PAGE_HASHES;
    return left < FL_CHUNK_PAGE_HASHES ? left : FL_CHUNK_PAGE_HASHES;
}

/* hashes (chunks, FL_HASH_BYTES) -> root */
void fl_chunk_root(uint64_t size, const uint8_t *hashes, uint8_t root[FL_HASH_BYTES]);

#endif

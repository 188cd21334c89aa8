/* bulk.c - see bulk.h. */
#include "net/bulk.h"

#include <string.h>

void fl_bulk_to_wire(const struct fl_chunk_message *from, struct fl_wire *to)
{
    memset(&to->as, 0, sizeof(to->as));
    switch (from->kind) {
    case FL_CHUNK_NEED:
        to->kind = FL_WIRE_NEED;
        memcpy(to->as.need.root, from->root, FL_HASH_BYTES);
        to->as.need.pages = from->pages;
        to->as.need.first = from->index;
        to->as.need.count = from->count;
        break;
    case FL_CHUNK_PAGE:
        to->kind = FL_WIRE_PAGE;
        memcpy(to->as.page.root, from->root, FL_HASH_BYTES);
        to->as.page.index = from->index;
        to->as.page.hashes = (struct fl_wire_bytes){from->data, from->length};
        to->as.page.size = from->size;
        to->as.page.chunk_count = from->count;
        break;
    case FL_CHUNK_DATA:
        to->kind = FL_WIRE_CHUNK;
        memcpy(to->as.chunk.root, from->root, FL_HASH_BYTES);
        to->as.chunk.index = from->index;
        to->as.chunk.data = (struct fl_wire_bytes){from->data, from->length};
        break;
    case FL_CHUNK_MISSING:
        to->kind = FL_WIRE_MISSING;
        memcpy(to->as.missing.root, from->root, FL_HASH_BYTES);
        break;
    }
}

bool fl_bulk_from_wire(const struct fl_wire *from, struct fl_chunk_message *to)
{
    memset(to, 0, sizeof(*to));
    switch (from->kind) {
    case FL_WIRE_NEED:
        to->kind = FL_CHUNK_NEED;
        memcpy(to->root, from->as.need.root, FL_HASH_BYTES);
        to->pages = from->as.need.pages;
        to->index = from->as.need.first;
        to->count = from->as.need.count;
        return true;
    case FL_WIRE_PAGE:
        to->kind = FL_CHUNK_PAGE;
        memcpy(to->root, from->as.page.root, FL_HASH_BYTES);
        to->index = from->as.page.index;
        to->count = from->as.page.chunk_count;
        to->size = from->as.page.size;
        to->data = from->as.page.hashes.data;
        to->length = from->as.page.hashes.length;
        return true;
    case FL_WIRE_CHUNK:
        to->kind = FL_CHUNK_DATA;
        memcpy(to->root, from->as.chunk.root, FL_HASH_BYTES);
        to->index = from->as.chunk.index;
        to->data = from->as.chunk.data.data;
        to->length = from->as.chunk.data.length;
        return true;
    case FL_WIRE_MISSING:
        to->kind = FL_CHUNK_MISSING;
        memcpy(to->root, from->as.missing.root, FL_HASH_BYTES);
        return true;
    default:
        return false;
    }
}

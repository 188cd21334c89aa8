/*
 * chunks_serve.c - what one peer asked for, in a ring of bounded length. A request that finds the
 * ring full is forgotten: the receiver, which keeps to its credit, never fills it, and asks again.
 */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "net/chunks_internal.h"
#include "net/chunks_object.h"

#define REQUESTS_MAX 32
#define PAGES_MAX    32 /* of the largest object: 17 */

static_assert(FL_OBJECT_BYTES_MAX / FL_CHUNK_BYTES / FL_CHUNK_PAGE_HASHES < PAGES_MAX,
              "all pages of the largest object can be asked for at once");

struct request {
    uint8_t root[FL_HASH_BYTES];
    bool pages;
    uint32_t next, end;
};

struct fl_serve {
    const struct fl_shelf *shelf;
    struct request ring[REQUESTS_MAX];
    size_t first, count;
    bool loaded; /* message is the answer to ring[first].next */
    struct fl_chunk_message message;
    uint8_t buffer[FL_CHUNK_BYTES];
};

enum fl_status fl_serve_create(const struct fl_shelf *shelf, struct fl_serve **out)
{
    *out = fl_calloc(1, sizeof(**out));
    if (!*out)
        return FL_ENOMEM;
    (*out)->shelf = shelf;
    return FL_OK;
}

void fl_serve_destroy(struct fl_serve **self)
{
    fl_free(*self);
    *self = NULL;
}

void fl_serve_clear(struct fl_serve *self)
{
    self->first = self->count = 0;
    self->loaded = false;
}

static bool is_queued(const struct fl_serve *self, const struct fl_chunk_message *need)
{
    for (size_t i = 0; i < self->count; i++) {
        const struct request *r = &self->ring[(self->first + i) % REQUESTS_MAX];
        if (r->pages == need->pages && r->next <= need->index &&
            need->index + need->count <= r->end && memcmp(r->root, need->root, FL_HASH_BYTES) == 0)
            return true;
    }
    return false;
}

enum fl_status fl_serve_need(struct fl_serve *self, const struct fl_chunk_message *need)
{
    const uint32_t most = need->pages ? PAGES_MAX : FL_CHUNK_WINDOW_MAX;
    if (need->kind != FL_CHUNK_NEED || need->count == 0 || need->count > most ||
        need->index > UINT32_MAX - need->count)
        return FL_EFORMAT;
    const struct fl_object *object = fl_shelf_find(self->shelf, need->root);
    if (object) {
        const uint32_t chunks = fl_object_chunks(object);
        if (need->index + need->count > (need->pages ? fl_page_count(chunks) : chunks))
            return FL_EFORMAT;
    }
    if (self->count == REQUESTS_MAX || is_queued(self, need))
        return FL_OK;
    struct request *r = &self->ring[(self->first + self->count++) % REQUESTS_MAX];
    memcpy(r->root, need->root, FL_HASH_BYTES);
    r->pages = need->pages;
    r->next = need->index;
    r->end = object ? need->index + need->count : need->index + 1; /* one MISSING is enough */
    return FL_OK;
}

static void forget_first(struct fl_serve *self)
{
    self->first = (self->first + 1) % REQUESTS_MAX;
    self->count--;
    self->loaded = false;
}

static enum fl_status load(struct fl_serve *self)
{
    const struct request *r = &self->ring[self->first];
    const struct fl_object *object = fl_shelf_find(self->shelf, r->root);
    struct fl_chunk_message *m = &self->message;
    memset(m, 0, sizeof(*m));
    memcpy(m->root, r->root, FL_HASH_BYTES);
    m->index = object ? r->next : 0;
    m->kind = !object ? FL_CHUNK_MISSING : r->pages ? FL_CHUNK_PAGE : FL_CHUNK_DATA;
    if (m->kind == FL_CHUNK_DATA)
        return r->next < fl_object_chunks(object)
                   ? fl_object_chunk(object, r->next, self->buffer, &m->data, &m->length)
                   : FL_EIO;
    if (m->kind == FL_CHUNK_PAGE) {
        m->count = fl_object_chunks(object);
        m->size = fl_object_size(object);
        if (r->next >= fl_page_count(m->count))
            return FL_EIO;
        m->data = fl_object_hashes(object) + (size_t)r->next * FL_CHUNK_PAGE_HASHES * FL_HASH_BYTES;
        m->length = (size_t)fl_page_length(m->count, r->next) * FL_HASH_BYTES;
    }
    return FL_OK;
}

enum fl_status fl_serve_next(struct fl_serve *self, struct fl_chunk_message *out)
{
    if (self->count == 0)
        return FL_ENOTFOUND;
    /* the object may have left the shelf since the message was made */
    if (self->loaded && !fl_shelf_find(self->shelf, self->ring[self->first].root))
        self->loaded = false;
    if (!self->loaded) {
        if (load(self) != FL_OK) {
            forget_first(self);
            return FL_EIO;
        }
        self->loaded = true;
    }
    *out = self->message;
    return FL_OK;
}

void fl_serve_sent(struct fl_serve *self)
{
    assert(self->loaded && self->count > 0);
    struct request *r = &self->ring[self->first];
    self->loaded = false;
    if (++r->next >= r->end || self->message.kind == FL_CHUNK_MISSING)
        forget_first(self);
}

/*
 * chunks_object.c - the sender's objects and the shelf that they stand on.
 *
 * An object is immutable: the file that it was made from must not change while it is on a shelf
 * (ours never do: they are renamed into place once). A receiver would notice by the hashes.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "net/chunks_internal.h"
#include "net/chunks_object.h"

#define SHELF_MAX 65536

struct fl_object {
    uint8_t root[FL_HASH_BYTES];
    uint64_t size;
    uint32_t chunks;
    uint8_t *hashes; /* (chunks, FL_HASH_BYTES) */
    uint8_t *memory; /* the bytes, or NULL */
    int fd;          /* the file, or -1 */
};

struct fl_shelf {
    struct fl_object **objects;
    size_t count, capacity;
};

void fl_chunk_root(uint64_t size, const uint8_t *hashes, uint8_t root[FL_HASH_BYTES])
{
    static const char label[] = "fedlora-object-v1";
    const uint32_t chunks = fl_chunk_count(size);
    struct fl_blake2b hash;
    uint8_t raw[8];
    fl_store_u64(raw, size);
    fl_blake2b_init(&hash, NULL, 0);
    fl_blake2b_update(&hash, label, sizeof(label) - 1);
    fl_blake2b_update(&hash, raw, sizeof(raw));
    for (uint32_t page = 0; page < fl_page_count(chunks); page++) {
        uint8_t page_hash[FL_HASH_BYTES];
        fl_blake2b(hashes + (size_t)page * FL_CHUNK_PAGE_HASHES * FL_HASH_BYTES,
                   (size_t)fl_page_length(chunks, page) * FL_HASH_BYTES, page_hash);
        fl_blake2b_update(&hash, page_hash, sizeof(page_hash));
    }
    fl_blake2b_final(&hash, root);
}

static enum fl_status read_at(int fd, uint64_t offset, uint8_t *out, size_t length)
{
    while (length > 0) {
        const ssize_t n = pread(fd, out, length, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return FL_EIO;
        out += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
    return FL_OK;
}

static struct fl_object *make_object(uint64_t size)
{
    struct fl_object *self = fl_calloc(1, sizeof(*self));
    if (!self)
        return NULL;
    self->size = size;
    self->chunks = fl_chunk_count(size);
    self->fd = -1;
    self->hashes = fl_calloc(self->chunks ? self->chunks : 1, FL_HASH_BYTES);
    if (!self->hashes)
        fl_object_close(&self);
    return self;
}

static enum fl_status hash_file(struct fl_object *self, const char *path, struct fl_error *error)
{
    uint8_t *buffer = fl_malloc(FL_CHUNK_BYTES);
    if (!buffer)
        return fl_fail_memory(error);
    enum fl_status status = FL_OK;
    for (uint32_t i = 0; status == FL_OK && i < self->chunks; i++) {
        const size_t length = fl_chunk_length(self->size, i);
        status = read_at(self->fd, (uint64_t)i * FL_CHUNK_BYTES, buffer, length);
        if (status == FL_OK)
            fl_blake2b(buffer, length, self->hashes + (size_t)i * FL_HASH_BYTES);
        else
            (void)fl_fail(error, status, "%s: can't be read to its end", path);
    }
    fl_free(buffer);
    return status;
}

static enum fl_status open_file(const char *path, int *fd, uint64_t *size, struct fl_error *error)
{
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return fl_fail_errno(error, errno, "%s", path);
    enum fl_status status = FL_OK;
    if (fstat(*fd, &st) != 0)
        status = fl_fail_errno(error, errno, "%s", path);
    else if (!S_ISREG(st.st_mode))
        status = fl_fail(error, FL_EINVAL, "%s: not a regular file", path);
    else if ((uint64_t)st.st_size > FL_OBJECT_BYTES_MAX)
        status = fl_fail(error, FL_ERANGE, "%s: too large to be transferred", path);
    if (status != FL_OK)
        (void)close(*fd);
    else
        *size = (uint64_t)st.st_size;
    return status;
}

enum fl_status fl_object_open_file(const char *path, struct fl_object **out, struct fl_error *error)
{
    int fd = -1;
    uint64_t size = 0;
    *out = NULL;
    enum fl_status status = open_file(path, &fd, &size, error);
    if (status != FL_OK)
        return status;
    struct fl_object *self = make_object(size);
    if (!self) {
        (void)close(fd);
        return fl_fail_memory(error);
    }
    self->fd = fd;
    status = hash_file(self, path, error);
    if (status == FL_OK)
        fl_chunk_root(size, self->hashes, self->root);
    else
        fl_object_close(&self);
    *out = self;
    return status;
}

static void hash_memory(const uint8_t *bytes, uint64_t size, uint8_t *hashes)
{
    for (uint32_t i = 0; i < fl_chunk_count(size); i++)
        fl_blake2b(bytes + (size_t)i * FL_CHUNK_BYTES, fl_chunk_length(size, i),
                   hashes + (size_t)i * FL_HASH_BYTES);
}

enum fl_status fl_object_open_memory(const void *bytes, size_t length, struct fl_object **out,
                                     struct fl_error *error)
{
    *out = NULL;
    if (length > FL_OBJECT_BYTES_MAX)
        return fl_fail(error, FL_ERANGE, "%zu bytes are too many to be transferred", length);
    struct fl_object *self = make_object(length);
    if (!self)
        return fl_fail_memory(error);
    self->memory = fl_malloc(length);
    if (!self->memory) {
        fl_object_close(&self);
        return fl_fail_memory(error);
    }
    if (length > 0)
        memcpy(self->memory, bytes, length);
    hash_memory(self->memory, length, self->hashes);
    fl_chunk_root(length, self->hashes, self->root);
    *out = self;
    return FL_OK;
}

enum fl_status fl_object_hash(const void *bytes, size_t length, uint8_t root[FL_HASH_BYTES])
{
    if (length > FL_OBJECT_BYTES_MAX)
        return FL_ERANGE;
    uint8_t *hashes = fl_calloc((size_t)fl_chunk_count(length) + 1, FL_HASH_BYTES);
    if (!hashes)
        return FL_ENOMEM;
    hash_memory(bytes, length, hashes);
    fl_chunk_root(length, hashes, root);
    fl_free(hashes);
    return FL_OK;
}

const uint8_t *fl_object_root(const struct fl_object *self)
{
    return self->root;
}

uint64_t fl_object_size(const struct fl_object *self)
{
    return self->size;
}

uint32_t fl_object_chunks(const struct fl_object *self)
{
    return self->chunks;
}

const uint8_t *fl_object_hashes(const struct fl_object *self)
{
    return self->hashes;
}

enum fl_status fl_object_chunk(const struct fl_object *self, uint32_t index, uint8_t *buffer,
                               const uint8_t **data, size_t *length)
{
    assert(index < self->chunks);
    const uint64_t offset = (uint64_t)index * FL_CHUNK_BYTES;
    *length = fl_chunk_length(self->size, index);
    if (self->memory) {
        *data = self->memory + offset;
        return FL_OK;
    }
    *data = buffer;
    return read_at(self->fd, offset, buffer, *length);
}

void fl_object_close(struct fl_object **self)
{
    if (!*self)
        return;
    if ((*self)->fd >= 0)
        (void)close((*self)->fd);
    fl_free((*self)->memory);
    fl_free((*self)->hashes);
    fl_free(*self);
    *self = NULL;
}

/* ------------------------------------------------------------------ the shelf */

enum fl_status fl_shelf_create(struct fl_shelf **out)
{
    *out = fl_calloc(1, sizeof(**out));
    return *out ? FL_OK : FL_ENOMEM;
}

void fl_shelf_destroy(struct fl_shelf **self)
{
    if (!*self)
        return;
    for (size_t i = 0; i < (*self)->count; i++)
        fl_object_close(&(*self)->objects[i]);
    fl_free((*self)->objects);
    fl_free(*self);
    *self = NULL;
}

static size_t position(const struct fl_shelf *self, const uint8_t root[FL_HASH_BYTES])
{
    size_t i = 0;
    while (i < self->count && memcmp(self->objects[i]->root, root, FL_HASH_BYTES) != 0)
        i++;
    return i;
}

enum fl_status fl_shelf_put(struct fl_shelf *self, struct fl_object **object)
{
    if (position(self, (*object)->root) < self->count) {
        fl_object_close(object);
        return FL_OK;
    }
    if (self->count == SHELF_MAX)
        return FL_ERANGE;
    if (self->count == self->capacity) {
        const size_t capacity = self->capacity ? 2 * self->capacity : 8;
        struct fl_object **objects = fl_reallocarray(self->objects, capacity,
                                                     sizeof(struct fl_object *));
        if (!objects)
            return FL_ENOMEM;
        self->objects = objects;
        self->capacity = capacity;
    }
    self->objects[self->count++] = *object;
    *object = NULL;
    return FL_OK;
}

struct fl_object *fl_shelf_find(const struct fl_shelf *self, const uint8_t root[FL_HASH_BYTES])
{
    const size_t i = position(self, root);
    return i < self->count ? self->objects[i] : NULL;
}

void fl_shelf_remove(struct fl_shelf *self, const uint8_t root[FL_HASH_BYTES])
{
    const size_t i = position(self, root);
    if (i == self->count)
        return;
    fl_object_close(&self->objects[i]);
    self->objects[i] = self->objects[--self->count];
}

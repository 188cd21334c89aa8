/* safetensors.c - the reader; see safetensors.h. The writer is safetensors_write.c. */
#include "format/safetensors.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/limits.h"

#define SHARDS_MAX      1024
#define INDEX_BYTES_MAX (64u << 20)

struct fl_safetensors {
    struct fl_mapping *files; /* (file_count) */
    uint32_t file_count;
    json_t **headers; /* (header_count): they own the names */
    uint32_t header_count;
    struct fl_tensor_view *tensors; /* (count), sorted by name when complete */
    uint32_t count, capacity;
};

/* ---- types ---- */

static const struct {
    const char *name;
    enum fl_dtype dtype;
    uint32_t bits;
} types[] = {
    {"F32", FL_DTYPE_F32, 32},      {"F16", FL_DTYPE_F16, 16},      {"BF16", FL_DTYPE_BF16, 16},
    {"F64", FL_DTYPE_F64, 64},      {"BOOL", FL_DTYPE_OTHER, 8},    {"U8", FL_DTYPE_OTHER, 8},
    {"I8", FL_DTYPE_OTHER, 8},      {"F8_E5M2", FL_DTYPE_OTHER, 8}, {"F8_E4M3", FL_DTYPE_OTHER, 8},
    {"F8_E8M0", FL_DTYPE_OTHER, 8}, {"I16", FL_DTYPE_OTHER, 16},    {"U16", FL_DTYPE_OTHER, 16},
    {"I32", FL_DTYPE_OTHER, 32},    {"U32", FL_DTYPE_OTHER, 32},    {"I64", FL_DTYPE_OTHER, 64},
    {"U64", FL_DTYPE_OTHER, 64},    {"C64", FL_DTYPE_OTHER, 64},
};

static int type_of(const char *name)
{
    for (int i = 0; i < (int)(sizeof(types) / sizeof(types[0])); i++) {
        if (strcmp(types[i].name, name) == 0)
            return i;
    }
    return -1;
}

/* ---- one entry of the header ---- */

struct span {
    uint64_t begin, end;
};

static bool get_u64(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static bool read_shape(const json_t *entry, struct fl_tensor_view *view, uint64_t *elements)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > FL_TENSOR_RANK_MAX)
        return false;
    view->rank = (uint32_t)json_array_size(shape);
    *elements = 1;
    for (uint32_t i = 0; i < view->rank; i++) {
        if (!get_u64(json_array_get(shape, i), &view->shape[i]) ||
            __builtin_mul_overflow(*elements, view->shape[i], elements))
            return false;
    }
    return true;
}

static bool read_offsets(const json_t *entry, struct span *span)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    return json_is_array(offsets) && json_array_size(offsets) == 2 &&
           get_u64(json_array_get(offsets, 0), &span->begin) &&
           get_u64(json_array_get(offsets, 1), &span->end) && span->begin <= span->end;
}

static const char *read_entry(const json_t *entry, const uint8_t *buffer, uint64_t buffer_bytes,
                              struct fl_tensor_view *view, struct span *span)
{
    uint64_t elements, bits;
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    int type = dtype ? type_of(dtype) : -1;
    if (type < 0)
        return "its dtype is missing or unknown";
    if (!read_shape(entry, view, &elements))
        return "its shape is wrong";
    if (!read_offsets(entry, span) || span->end > buffer_bytes)
        return "its data_offsets lie outside the file";
    if (__builtin_mul_overflow(elements, (uint64_t)types[type].bits, &bits) || bits % 8 != 0 ||
        bits / 8 != span->end - span->begin)
        return "its size does not agree with its shape";
    view->dtype = types[type].dtype;
    view->data = buffer + span->begin;
    view->bytes = (size_t)(span->end - span->begin);
    return NULL;
}

/* ---- one file ---- */

static int by_begin(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* The spans cover the buffer: first at 0, each where the one before ended, the last at its end. */
static bool spans_cover(struct span *spans, size_t count, uint64_t buffer_bytes)
{
    uint64_t at = 0;
    if (count > 1)
        qsort(spans, count, sizeof(*spans), by_begin);
    for (size_t i = 0; i < count; i++) {
        if (spans[i].begin != at)
            return false;
        at = spans[i].end;
    }
    return at == buffer_bytes;
}

static enum fl_status reserve(struct fl_safetensors *self, size_t more, struct fl_error *error)
{
    if (more > FL_SAFETENSORS_TENSORS_MAX - self->count)
        return fl_fail(error, FL_EFORMAT, "more than %u tensors", FL_SAFETENSORS_TENSORS_MAX);
    if (self->count + more <= self->capacity)
        return FL_OK;
    struct fl_tensor_view *grown = fl_reallocarray(self->tensors, self->count + more,
                                                   sizeof(*grown));
    if (!grown)
        return fl_fail_memory(error);
    self->tensors = grown;
    self->capacity = (uint32_t)(self->count + more);
    return FL_OK;
}

static enum fl_status read_entries(struct fl_safetensors *self, json_t *header,
                                   const uint8_t *buffer, uint64_t buffer_bytes, const char *what,
                                   struct fl_error *error)
{
    size_t count = 0;
    const char *name;
    json_t *entry;
    struct span *spans = fl_calloc(json_object_size(header), sizeof(*spans));
    enum fl_status status = spans ? reserve(self, json_object_size(header), error)
                                  : fl_fail_memory(error);
    if (status != FL_OK)
        goto out;
    json_object_foreach(header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        struct fl_tensor_view *view = &self->tensors[self->count];
        memset(view, 0, sizeof(*view));
        view->name = name;
        const char *wrong = read_entry(entry, buffer, buffer_bytes, view, &spans[count]);
        if (wrong) {
            status = fl_fail(error, FL_EFORMAT, "%s: tensor '%.100s': %s", what, name, wrong);
            goto out;
        }
        self->count++;
        count++;
    }
    if (!spans_cover(spans, count, buffer_bytes))
        status = fl_fail(error, FL_EFORMAT,
                         "%s: the tensors leave holes, overlap, or do not reach the end", what);
out:
    fl_free(spans);
    return status;
}

/*
 * Could the header be of tensors only? Each has at most 5 + FL_TENSOR_RANK_MAX commas, so a header
 * of millions of values is refused before the JSON parser turns each byte into many.
 */
static bool plausible(const uint8_t *header, size_t length)
{
    size_t commas = 0, most = (5u + FL_TENSOR_RANK_MAX) * (FL_SAFETENSORS_TENSORS_MAX + 1u);
    for (size_t i = 0; i < length; i++)
        commas += header[i] == ',' || header[i] == '[' || header[i] == '{';
    return commas <= most;
}

static enum fl_status add_bytes(struct fl_safetensors *self, const uint8_t *bytes, size_t length,
                                const char *what, struct fl_error *error)
{
    if (length < 8)
        return fl_fail(error, FL_EFORMAT, "%s: too short for a safetensors file", what);
    uint64_t header_bytes = fl_load_u64(bytes);
    if (header_bytes > FL_SAFETENSORS_HEADER_MAX || header_bytes > length - 8 || header_bytes < 2)
        return fl_fail(error, FL_EFORMAT, "%s: a header of %" PRIu64 " bytes is not possible", what,
                       header_bytes);
    if (bytes[8] != '{')
        return fl_fail(error, FL_EFORMAT, "%s: not a safetensors file", what);
    if (!plausible(bytes + 8, (size_t)header_bytes))
        return fl_fail(error, FL_EFORMAT, "%s: the header holds too many values", what);
    json_t **headers = fl_reallocarray(self->headers, self->header_count + 1u, sizeof(*headers));
    if (!headers)
        return fl_fail_memory(error);
    self->headers = headers;
    json_t *header = NULL;
    enum fl_status status = fl_json_parse((const char *)bytes + 8, (size_t)header_bytes, what,
                                          &header, error);
    if (status != FL_OK)
        return status;
    self->headers[self->header_count++] = header;
    if (!json_is_object(header))
        return fl_fail(error, FL_EFORMAT, "%s: the header is no JSON object", what);
    return read_entries(self, header, bytes + 8 + header_bytes, length - 8 - header_bytes, what,
                        error);
}

static enum fl_status add_file(struct fl_safetensors *self, const char *path,
                               struct fl_error *error)
{
    struct fl_mapping *files = fl_reallocarray(self->files, self->file_count + 1u, sizeof(*files));
    if (!files)
        return fl_fail_memory(error);
    self->files = files;
    struct fl_mapping *mapping = &self->files[self->file_count];
    enum fl_status status = fl_fs_map(path, mapping, error);
    if (status != FL_OK)
        return status;
    self->file_count++;
    return add_bytes(self, mapping->data, mapping->length, path, error);
}

/* ---- names ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct fl_tensor_view *)a)->name,
                  ((const struct fl_tensor_view *)b)->name);
}

/* Sort by name; a name that is there twice is refused. */
static enum fl_status finish(struct fl_safetensors *self, const char *what, struct fl_error *error)
{
    if (self->count > 1)
        qsort(self->tensors, self->count, sizeof(*self->tensors), by_name);
    for (uint32_t i = 1; i < self->count; i++) {
        if (strcmp(self->tensors[i - 1].name, self->tensors[i].name) == 0)
            return fl_fail(error, FL_EFORMAT, "%s: tensor '%.100s' is there twice", what,
                           self->tensors[i].name);
    }
    return FL_OK;
}

/* ---- a directory ---- */

static bool plain_name(const char *name)
{
    return name[0] && name[0] != '.' && !strchr(name, '/') && strlen(name) < 256;
}

/* The files named in the index, each once. */
static enum fl_status add_shards(struct fl_safetensors *self, const char *directory,
                                 const json_t *map, struct fl_error *error)
{
    const char *shards[SHARDS_MAX], *name;
    uint32_t count = 0;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, name, value)
    {
        const char *file = json_string_value(value);
        if (!file || !plain_name(file))
            return fl_fail(error, FL_EFORMAT, "%s: the index names a file that is no plain name",
                           directory);
        uint32_t i = 0;
        while (i < count && strcmp(shards[i], file) != 0)
            i++;
        if (i < count)
            continue;
        if (count == SHARDS_MAX)
            return fl_fail(error, FL_EFORMAT, "%s: more than %d shards", directory, SHARDS_MAX);
        shards[count++] = file;
    }
    for (uint32_t i = 0; i < count; i++) {
        char path[FL_PATH_BYTES];
        enum fl_status status = fl_path_join(path, directory, shards[i], error);
        if (status == FL_OK)
            status = add_file(self, path, error);
        if (status != FL_OK)
            return status;
    }
    return FL_OK;
}

/* Everything that the index names is there; called when the tensors are sorted. */
static enum fl_status check_index(const struct fl_safetensors *self, const char *directory,
                                  const json_t *map, struct fl_error *error)
{
    const char *name;
    json_t *file;
    json_object_foreach((json_t *)(uintptr_t)map, name, file)
    {
        if (!fl_safetensors_find(self, name))
            return fl_fail(error, FL_EFORMAT,
                           "%s: the index names a tensor '%.100s'; %.100s has none", directory,
                           name, json_string_value(file));
    }
    return FL_OK;
}

static enum fl_status add_directory(struct fl_safetensors *self, const char *directory,
                                    struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(path, directory, "model.safetensors", error);
    if (status != FL_OK)
        return status;
    if (fl_path_exists(path))
        return add_file(self, path, error);
    status = fl_path_join(path, directory, "model.safetensors.index.json", error);
    if (status != FL_OK)
        return status;
    if (!fl_path_exists(path))
        return fl_fail(error, FL_ENOTFOUND,
                       "%s holds neither model.safetensors nor model.safetensors.index.json",
                       directory);
    json_t *index = NULL;
    status = fl_json_load(path, INDEX_BYTES_MAX, &index, error);
    const json_t *map = json_object_get(index, "weight_map");
    if (status == FL_OK && !json_is_object(map))
        status = fl_fail(error, FL_EFORMAT, "%s has no weight_map", path);
    if (status == FL_OK)
        status = add_shards(self, directory, map, error);
    if (status == FL_OK)
        status = finish(self, directory, error);
    if (status == FL_OK)
        status = check_index(self, directory, map, error);
    json_decref(index);
    return status;
}

/* ---- the whole ---- */

enum fl_status fl_safetensors_open(const char *path, struct fl_safetensors **out,
                                   struct fl_error *error)
{
    *out = NULL;
    struct fl_safetensors *self = fl_calloc(1, sizeof(*self));
    if (!self)
        return fl_fail_memory(error);
    enum fl_status status = fl_path_is_directory(path) ? add_directory(self, path, error)
                                                       : add_file(self, path, error);
    if (status == FL_OK)
        status = finish(self, path, error);
    if (status == FL_OK)
        *out = self;
    else
        fl_safetensors_close(&self);
    return status;
}

enum fl_status fl_safetensors_open_memory(const void *bytes, size_t length, const char *what,
                                          struct fl_safetensors **out, struct fl_error *error)
{
    *out = NULL;
    struct fl_safetensors *self = fl_calloc(1, sizeof(*self));
    if (!self)
        return fl_fail_memory(error);
    enum fl_status status = add_bytes(self, bytes, length, what, error);
    if (status == FL_OK)
        status = finish(self, what, error);
    if (status == FL_OK)
        *out = self;
    else
        fl_safetensors_close(&self);
    return status;
}

void fl_safetensors_close(struct fl_safetensors **self_pointer)
{
    struct fl_safetensors *self = *self_pointer;
    if (!self)
        return;
    for (uint32_t i = 0; i < self->header_count; i++)
        json_decref(self->headers[i]);
    for (uint32_t i = 0; i < self->file_count; i++)
        fl_fs_unmap(&self->files[i]);
    fl_free(self->headers);
    fl_free(self->files);
    fl_free(self->tensors);
    fl_free(self);
    *self_pointer = NULL;
}

uint32_t fl_safetensors_count(const struct fl_safetensors *self)
{
    return self->count;
}

const struct fl_tensor_view *fl_safetensors_at(const struct fl_safetensors *self, uint32_t index)
{
    assert(index < self->count);
    return &self->tensors[index];
}

const struct fl_tensor_view *fl_safetensors_find(const struct fl_safetensors *self,
                                                 const char *name)
{
    struct fl_tensor_view key = {.name = name};
    if (self->count == 0)
        return NULL;
    return bsearch(&key, self->tensors, self->count, sizeof(*self->tensors), by_name);
}

/*
 * gguf.c - see gguf.h. One cursor walks the mapped file; every read can fail, and a failure is
 * sticky. Values stay in the file: the table of keys holds where they are.
 */
#include "format/gguf.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fs.h"

#define STRING_MAX     (1u << 30)
#define NAME_MAX_BYTES 256u

struct key {
    char *name; /* owned */
    enum fl_gguf_type type;
    const uint8_t *value;
};

struct tensor {
    struct fl_tensor_view view; /* first: sorted and searched by its name */
    char *name;                 /* owned */
    const char *type_name;
};

struct fl_gguf {
    struct fl_mapping file;
    struct key *keys; /* (key_count), sorted by name */
    uint32_t key_count;
    struct tensor *tensors; /* (tensor_count), file order */
    uint32_t *by_name;      /* (tensor_count): indices sorted by name */
    uint32_t tensor_count;
    uint64_t alignment;
};

/* ---- tensor types ---- */

static const struct {
    uint32_t id;
    const char *name;
    enum fl_dtype dtype;
    uint32_t values, bytes; /* of one block */
} tensor_types[] = {
    {0, "F32", FL_DTYPE_F32, 1, 4},        {1, "F16", FL_DTYPE_F16, 1, 2},
    {2, "Q4_0", FL_DTYPE_Q4_0, 32, 18},    {3, "Q4_1", FL_DTYPE_Q4_1, 32, 20},
    {6, "Q5_0", FL_DTYPE_Q5_0, 32, 22},    {7, "Q5_1", FL_DTYPE_Q5_1, 32, 24},
    {8, "Q8_0", FL_DTYPE_Q8_0, 32, 34},    {9, "Q8_1", FL_DTYPE_OTHER, 32, 36},
    {10, "Q2_K", FL_DTYPE_OTHER, 256, 84}, {11, "Q3_K", FL_DTYPE_OTHER, 256, 110},
    {12, "Q4_K", FL_DTYPE_Q4_K, 256, 144}, {13, "Q5_K", FL_DTYPE_Q5_K, 256, 176},
    {14, "Q6_K", FL_DTYPE_Q6_K, 256, 210}, {15, "Q8_K", FL_DTYPE_OTHER, 256, 292},
    {24, "I8", FL_DTYPE_OTHER, 1, 1},      {25, "I16", FL_DTYPE_OTHER, 1, 2},
    {26, "I32", FL_DTYPE_OTHER, 1, 4},     {27, "I64", FL_DTYPE_OTHER, 1, 8},
    {28, "F64", FL_DTYPE_F64, 1, 8},       {30, "BF16", FL_DTYPE_BF16, 1, 2},
};

static int tensor_type(uint32_t id)
{
    for (int i = 0; i < (int)(sizeof(tensor_types) / sizeof(tensor_types[0])); i++) {
        if (tensor_types[i].id == id)
            return i;
    }
    return -1;
}

/* ---- the cursor ---- */

struct cursor {
    const uint8_t *at, *end;
    const char *wrong; /* the first failure; NULL while all is well */
};

static const uint8_t *take(struct cursor *c, uint64_t bytes)
{
    if (c->wrong)
        return NULL;
    if (bytes > (uint64_t)(c->end - c->at)) {
        c->wrong = "it ends too early";
        return NULL;
    }
    const uint8_t *here = c->at;
    c->at += bytes;
    return here;
}

static uint32_t take_u32(struct cursor *c)
{
    const uint8_t *p = take(c, 4);
    return p ? fl_load_u32(p) : 0;
}

static uint64_t take_u64(struct cursor *c)
{
    const uint8_t *p = take(c, 8);
    return p ? fl_load_u64(p) : 0;
}

static struct fl_gguf_string take_string(struct cursor *c, uint64_t maximum)
{
    struct fl_gguf_string s = {0};
    uint64_t length = take_u64(c);
    if (!c->wrong && length > maximum)
        c->wrong = "a string in it is too long";
    const uint8_t *p = take(c, length);
    if (p) {
        s.data = (const char *)p;
        s.length = (size_t)length;
    }
    return s;
}

static size_t value_bytes(enum fl_gguf_type type)
{
    static const uint8_t sizes[FL_GGUF_TYPE_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return sizes[type];
}

static void skip_array(struct cursor *c)
{
    uint32_t type = take_u32(c);
    uint64_t count = take_u64(c);
    if (c->wrong)
        return;
    if (type >= FL_GGUF_TYPE_COUNT || type == FL_GGUF_ARRAY)
        c->wrong = "an array in it has an impossible type";
    else if (count > FL_GGUF_ARRAY_MAX)
        c->wrong = "an array in it is too long";
    else if (type == FL_GGUF_STRING)
        for (uint64_t i = 0; i < count && !c->wrong; i++)
            (void)take_string(c, STRING_MAX);
    else
        (void)take(c, count * value_bytes(type));
}

static void skip_value(struct cursor *c, enum fl_gguf_type type)
{
    if (type == FL_GGUF_STRING) {
        (void)take_string(c, STRING_MAX);
    } else if (type == FL_GGUF_ARRAY) {
        skip_array(c);
    } else {
        const uint8_t *p = take(c, value_bytes(type));
        if (p && type == FL_GGUF_BOOL && *p > 1)
            c->wrong = "a truth value in it is neither 0 nor 1";
    }
}

static char *copy_name(struct cursor *c, struct fl_gguf_string s)
{
    if (c->wrong)
        return NULL;
    if (s.length == 0 || memchr(s.data, 0, s.length)) {
        c->wrong = "a name in it is empty or holds a NUL";
        return NULL;
    }
    char *name = fl_malloc(s.length + 1);
    if (name) {
        memcpy(name, s.data, s.length);
        name[s.length] = '\0';
    }
    return name;
}

/* ---- keys ---- */

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct key *)a)->name, ((const struct key *)b)->name);
}

static const struct key *find_key(const struct fl_gguf *self, const char *name)
{
    struct key wanted = {.name = (char *)(uintptr_t)name};
    if (self->key_count == 0)
        return NULL;
    return bsearch(&wanted, self->keys, self->key_count, sizeof(*self->keys), by_key);
}

static enum fl_status read_keys(struct fl_gguf *self, struct cursor *c, uint64_t count)
{
    self->keys = fl_calloc((size_t)count, sizeof(*self->keys));
    if (!self->keys)
        return FL_ENOMEM;
    for (uint64_t i = 0; i < count && !c->wrong; i++) {
        struct key *key = &self->keys[self->key_count];
        key->name = copy_name(c, take_string(c, 65535));
        uint32_t type = take_u32(c);
        if (c->wrong)
            fl_free(key->name);
        if (c->wrong)
            break;
        if (!key->name)
            return FL_ENOMEM;
        self->key_count++;
        if (type >= FL_GGUF_TYPE_COUNT) {
            c->wrong = "a value in it has an impossible type";
            break;
        }
        key->type = (enum fl_gguf_type)type;
        key->value = c->at;
        skip_value(c, key->type);
    }
    if (self->key_count > 1)
        qsort(self->keys, self->key_count, sizeof(*self->keys), by_key);
    for (uint32_t i = 1; i < self->key_count && !c->wrong; i++) {
        if (strcmp(self->keys[i - 1].name, self->keys[i].name) == 0)
            c->wrong = "a key in it is there twice";
    }
    return FL_OK;
}

/* ---- tensors ---- */

static void read_tensor(struct fl_gguf *self, struct cursor *c, struct tensor *tensor,
                        uint64_t *offset, uint64_t *next)
{
    uint64_t elements = 1, dims[4] = {1, 1, 1, 1};
    uint32_t rank = take_u32(c);
    if (!c->wrong && rank > 4)
        c->wrong = "a tensor in it has more than 4 dimensions";
    for (uint32_t i = 0; i < rank && !c->wrong; i++) {
        dims[i] = take_u64(c);
        if (__builtin_mul_overflow(elements, dims[i], &elements))
            c->wrong = "a tensor in it is impossibly large";
    }
    int type = tensor_type(take_u32(c));
    *offset = take_u64(c);
    if (c->wrong)
        return;
    uint64_t bytes;
    if (type < 0)
        c->wrong = "a tensor in it has an unknown type";
    else if (dims[0] % tensor_types[type].values != 0)
        c->wrong = "a tensor's rows in it are no whole blocks";
    else if (__builtin_mul_overflow(elements / tensor_types[type].values,
                                    (uint64_t)tensor_types[type].bytes, &bytes))
        c->wrong = "a tensor in it is impossibly large";
    else if (*offset != *next)
        c->wrong = "its tensors do not lie one behind the other";
    if (c->wrong)
        return;
    tensor->view.dtype = tensor_types[type].dtype;
    tensor->type_name = tensor_types[type].name;
    tensor->view.rank = rank;
    tensor->view.bytes = (size_t)bytes;
    for (uint32_t i = 0; i < rank; i++)
        tensor->view.shape[i] = dims[rank - 1 - i];
    uint64_t padded;
    if (__builtin_add_overflow(bytes, self->alignment - 1, &padded) ||
        __builtin_add_overflow(*next, padded / self->alignment * self->alignment, next))
        c->wrong = "a tensor in it is impossibly large";
}

static int by_tensor_name(const void *a, const void *b, void *context)
{
    const struct tensor *tensors = context;
    return strcmp(tensors[*(const uint32_t *)a].name, tensors[*(const uint32_t *)b].name);
}

static void place_tensors(struct fl_gguf *self, struct cursor *c, const uint64_t *offsets)
{
    uint64_t header = (uint64_t)(c->at - self->file.data);
    uint64_t start = (header + self->alignment - 1) / self->alignment * self->alignment;
    for (uint32_t i = 0; i < self->tensor_count && !c->wrong; i++) {
        struct fl_tensor_view *view = &self->tensors[i].view;
        if (start > self->file.length || offsets[i] > self->file.length - start ||
            view->bytes > self->file.length - start - offsets[i])
            c->wrong = "a tensor lies beyond its end (is the download complete?)";
        else
            view->data = self->file.data + start + offsets[i];
    }
}

static enum fl_status read_tensors(struct fl_gguf *self, struct cursor *c, uint64_t count)
{
    uint64_t next = 0;
    enum fl_status status = FL_ENOMEM;
    uint64_t *offsets = fl_calloc((size_t)count, sizeof(*offsets));
    self->tensors = fl_calloc((size_t)count, sizeof(*self->tensors));
    self->by_name = fl_calloc((size_t)count, sizeof(*self->by_name));
    if (!offsets || !self->tensors || !self->by_name)
        goto out;
    for (uint64_t i = 0; i < count && !c->wrong; i++) {
        struct tensor *tensor = &self->tensors[i];
        tensor->name = copy_name(c, take_string(c, NAME_MAX_BYTES));
        if (!c->wrong && !tensor->name)
            goto out;
        tensor->view.name = tensor->name;
        self->by_name[i] = self->tensor_count;
        self->tensor_count += tensor->name != NULL;
        read_tensor(self, c, tensor, &offsets[i], &next);
    }
    status = FL_OK;
    if (c->wrong)
        goto out;
    qsort_r(self->by_name, self->tensor_count, sizeof(*self->by_name), by_tensor_name,
            self->tensors);
    for (uint32_t i = 1; i < self->tensor_count && !c->wrong; i++) {
        if (strcmp(self->tensors[self->by_name[i - 1]].name,
                   self->tensors[self->by_name[i]].name) == 0)
            c->wrong = "a tensor in it is there twice";
    }
    place_tensors(self, c, offsets);
out:
    fl_free(offsets);
    return status;
}

/* ---- the whole ---- */

static void read_alignment(struct fl_gguf *self, struct cursor *c)
{
    uint64_t value;
    self->alignment = 32;
    enum fl_status status = fl_gguf_u64(self, "general.alignment", &value);
    if (status == FL_ENOTFOUND)
        return;
    if (status != FL_OK || value == 0 || value > 65536 || (value & (value - 1)) != 0)
        c->wrong = "its general.alignment is no power of two";
    else
        self->alignment = value;
}

static enum fl_status read_all(struct fl_gguf *self, struct cursor *c)
{
    const uint8_t *magic = take(c, 4);
    if (!magic || memcmp(magic, "GGUF", 4) != 0) {
        c->wrong = "it does not begin with GGUF";
        return FL_OK;
    }
    uint32_t version = take_u32(c);
    if (!c->wrong && (version & 0xffff) == 0)
        c->wrong = "it is big-endian";
    else if (!c->wrong && version != 2 && version != 3)
        c->wrong = "its version is neither 2 nor 3";
    uint64_t tensors = take_u64(c), keys = take_u64(c);
    if (!c->wrong && (tensors > FL_GGUF_TENSORS_MAX || keys > FL_GGUF_KEYS_MAX))
        c->wrong = "it claims too many tensors or keys";
    /* each key takes at least 13 bytes, each tensor 24: a lying count costs no memory */
    if (!c->wrong &&
        (keys > (uint64_t)(c->end - c->at) / 13 || tensors > (uint64_t)(c->end - c->at) / 24))
        c->wrong = "it ends too early";
    enum fl_status status = c->wrong ? FL_OK : read_keys(self, c, keys);
    if (status == FL_OK && !c->wrong)
        read_alignment(self, c);
    if (status == FL_OK && !c->wrong)
        status = read_tensors(self, c, tensors);
    return status;
}

enum fl_status fl_gguf_open(const char *path, struct fl_gguf **out, struct fl_error *error)
{
    *out = NULL;
    struct fl_gguf *self = fl_calloc(1, sizeof(*self));
    if (!self)
        return fl_fail_memory(error);
    struct cursor c = {0};
    enum fl_status status = fl_fs_map(path, &self->file, error);
    if (status == FL_OK) {
        c.at = self->file.data;
        c.end = self->file.data ? self->file.data + self->file.length : NULL;
        status = read_all(self, &c);
        if (status != FL_OK)
            status = fl_fail_memory(error);
        else if (c.wrong)
            status = fl_fail(error, FL_EFORMAT, "%s: not a GGUF file that can be read: %s", path,
                             c.wrong);
    }
    if (status == FL_OK)
        *out = self;
    else
        fl_gguf_close(&self);
    return status;
}

bool fl_gguf_is(const char *path)
{
    char magic[4];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, magic, sizeof(magic));
    close(fd);
    return got == (ssize_t)sizeof(magic) && memcmp(magic, "GGUF", 4) == 0;
}

void fl_gguf_close(struct fl_gguf **self_pointer)
{
    struct fl_gguf *self = *self_pointer;
    if (!self)
        return;
    for (uint32_t i = 0; i < self->key_count; i++)
        fl_free(self->keys[i].name);
    for (uint32_t i = 0; i < self->tensor_count; i++)
        fl_free(self->tensors[i].name);
    fl_free(self->keys);
    fl_free(self->tensors);
    fl_free(self->by_name);
    fl_fs_unmap(&self->file);
    fl_free(self);
    *self_pointer = NULL;
}

/* ---- getters ---- */

uint32_t fl_gguf_key_count(const struct fl_gguf *self)
{
    return self->key_count;
}

struct fl_gguf_key fl_gguf_key_at(const struct fl_gguf *self, uint32_t index)
{
    assert(index < self->key_count);
    const struct key *key = &self->keys[index];
    struct cursor c = {.at = key->value, .end = self->file.data + self->file.length};
    skip_value(&c, key->type); /* it was read at open, so it ends within the file */
    return (struct fl_gguf_key){key->name, key->type, key->value, (size_t)(c.at - key->value)};
}

uint32_t fl_gguf_tensor_count(const struct fl_gguf *self)
{
    return self->tensor_count;
}

const struct fl_tensor_view *fl_gguf_tensor(const struct fl_gguf *self, uint32_t index)
{
    assert(index < self->tensor_count);
    return &self->tensors[index].view;
}

const char *fl_gguf_type_name(const struct fl_gguf *self, uint32_t index)
{
    assert(index < self->tensor_count);
    return self->tensors[index].type_name;
}

const struct fl_tensor_view *fl_gguf_find(const struct fl_gguf *self, const char *name)
{
    uint32_t low = 0, high = self->tensor_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct tensor *tensor = &self->tensors[self->by_name[middle]];
        int order = strcmp(name, tensor->name);
        if (order == 0)
            return &tensor->view;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

bool fl_gguf_has(const struct fl_gguf *self, const char *key)
{
    return find_key(self, key) != NULL;
}

static double load_f32(const uint8_t *p)
{
    float value;
    memcpy(&value, p, sizeof(value));
    return (double)value;
}

static double load_f64(const uint8_t *p)
{
    double value;
    memcpy(&value, p, sizeof(value));
    return value;
}

static bool load_integer(enum fl_gguf_type type, const uint8_t *p, int64_t *out)
{
    switch (type) {
    case FL_GGUF_U8:
    case FL_GGUF_BOOL:
        *out = p[0];
        return true;
    case FL_GGUF_I8:
        *out = (int8_t)p[0];
        return true;
    case FL_GGUF_U16:
        *out = fl_load_u16(p);
        return true;
    case FL_GGUF_I16:
        *out = (int16_t)fl_load_u16(p);
        return true;
    case FL_GGUF_U32:
        *out = fl_load_u32(p);
        return true;
    case FL_GGUF_I32:
        *out = (int32_t)fl_load_u32(p);
        return true;
    case FL_GGUF_U64:
    case FL_GGUF_I64:
        *out = (int64_t)fl_load_u64(p);
        return type == FL_GGUF_I64 || *out >= 0;
    default:
        return false;
    }
}

enum fl_status fl_gguf_u64(const struct fl_gguf *self, const char *name, uint64_t *out)
{
    int64_t value;
    const struct key *key = find_key(self, name);
    if (!key)
        return FL_ENOTFOUND;
    if (key->type == FL_GGUF_BOOL || !load_integer(key->type, key->value, &value) || value < 0)
        return FL_EFORMAT;
    *out = (uint64_t)value;
    return FL_OK;
}

enum fl_status fl_gguf_f64(const struct fl_gguf *self, const char *name, double *out)
{
    const struct key *key = find_key(self, name);
    if (!key)
        return FL_ENOTFOUND;
    if (key->type != FL_GGUF_F32 && key->type != FL_GGUF_F64)
        return FL_EFORMAT;
    *out = key->type == FL_GGUF_F32 ? load_f32(key->value) : load_f64(key->value);
    return FL_OK;
}

enum fl_status fl_gguf_bool(const struct fl_gguf *self, const char *name, bool *out)
{
    const struct key *key = find_key(self, name);
    if (!key)
        return FL_ENOTFOUND;
    if (key->type != FL_GGUF_BOOL)
        return FL_EFORMAT;
    *out = key->value[0] != 0;
    return FL_OK;
}

enum fl_status fl_gguf_string(const struct fl_gguf *self, const char *name,
                              struct fl_gguf_string *out)
{
    const struct key *key = find_key(self, name);
    if (!key)
        return FL_ENOTFOUND;
    if (key->type != FL_GGUF_STRING)
        return FL_EFORMAT;
    out->length = (size_t)fl_load_u64(key->value);
    out->data = (const char *)key->value + 8;
    return FL_OK;
}

enum fl_status fl_gguf_array(const struct fl_gguf *self, const char *name,
                             struct fl_gguf_array *out)
{
    const struct key *key = find_key(self, name);
    if (!key)
        return FL_ENOTFOUND;
    if (key->type != FL_GGUF_ARRAY)
        return FL_EFORMAT;
    out->type = (enum fl_gguf_type)fl_load_u32(key->value);
    out->count = fl_load_u64(key->value + 4);
    out->data = key->value + 12;
    out->end = self->file.data + self->file.length;
    return FL_OK;
}

bool fl_gguf_array_next_string(struct fl_gguf_array *self, struct fl_gguf_string *out)
{
    if (self->type != FL_GGUF_STRING || self->count == 0)
        return false;
    out->length = (size_t)fl_load_u64(self->data);
    out->data = (const char *)self->data + 8;
    self->data += 8 + out->length;
    self->count--;
    return true;
}

int64_t fl_gguf_array_i64(const struct fl_gguf_array *self, uint64_t index)
{
    int64_t value;
    if (index >= self->count || self->type == FL_GGUF_STRING)
        return 0;
    const uint8_t *p = self->data + index * value_bytes(self->type);
    return load_integer(self->type, p, &value) ? value : 0;
}

double fl_gguf_array_f64(const struct fl_gguf_array *self, uint64_t index)
{
    if (index >= self->count || self->type == FL_GGUF_STRING)
        return 0.0;
    const uint8_t *p = self->data + index * value_bytes(self->type);
    if (self->type == FL_GGUF_F32)
        return load_f32(p);
    return self->type == FL_GGUF_F64 ? load_f64(p) : (double)fl_gguf_array_i64(self, index);
}

/* gguf_write.c - see gguf_write.h. */
#include "format/gguf_write.h"

#include <assert.h>
#include <string.h>

#define PART_BYTES_MAX (1u << 30)

void fl_gguf_writer_init(struct fl_gguf_writer *self)
{
    *self = (struct fl_gguf_writer){0};
    fl_buf_init(&self->keys, PART_BYTES_MAX);
    fl_buf_init(&self->tensors, PART_BYTES_MAX);
}

void fl_gguf_writer_free(struct fl_gguf_writer *self)
{
    fl_buf_free(&self->keys);
    fl_buf_free(&self->tensors);
}

static void put_text(struct fl_buf *out, const char *text, size_t length)
{
    fl_buf_u64(out, length);
    fl_buf_append(out, text, length);
}

static void begin_key(struct fl_gguf_writer *self, const char *key, enum fl_gguf_type type)
{
    put_text(&self->keys, key, strlen(key));
    fl_buf_u32(&self->keys, (uint32_t)type);
    self->key_count++;
}

void fl_gguf_put_u32(struct fl_gguf_writer *self, const char *key, uint32_t value)
{
    begin_key(self, key, FL_GGUF_U32);
    fl_buf_u32(&self->keys, value);
}

void fl_gguf_put_f32(struct fl_gguf_writer *self, const char *key, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    begin_key(self, key, FL_GGUF_F32);
    fl_buf_u32(&self->keys, bits);
}

void fl_gguf_put_bool(struct fl_gguf_writer *self, const char *key, bool value)
{
    const uint8_t byte = value;
    begin_key(self, key, FL_GGUF_BOOL);
    fl_buf_append(&self->keys, &byte, 1);
}

void fl_gguf_put_string(struct fl_gguf_writer *self, const char *key, const char *value)
{
    begin_key(self, key, FL_GGUF_STRING);
    put_text(&self->keys, value, strlen(value));
}

void fl_gguf_put_raw(struct fl_gguf_writer *self, const struct fl_gguf_key *key)
{
    begin_key(self, key->name, key->type);
    fl_buf_append(&self->keys, key->value, key->bytes);
}

void fl_gguf_put_array(struct fl_gguf_writer *self, const char *key, enum fl_gguf_type type,
                       uint64_t count)
{
    begin_key(self, key, FL_GGUF_ARRAY);
    fl_buf_u32(&self->keys, (uint32_t)type);
    fl_buf_u64(&self->keys, count);
}

void fl_gguf_put_element_string(struct fl_gguf_writer *self, const char *text, size_t length)
{
    put_text(&self->keys, text, length);
}

void fl_gguf_put_element_i32(struct fl_gguf_writer *self, int32_t value)
{
    fl_buf_u32(&self->keys, (uint32_t)value);
}

size_t fl_gguf_padding(uint64_t bytes)
{
    return (size_t)((FL_GGUF_ALIGNMENT - bytes % FL_GGUF_ALIGNMENT) % FL_GGUF_ALIGNMENT);
}

void fl_gguf_add_tensor(struct fl_gguf_writer *self, const char *name, enum fl_dtype dtype,
                        uint32_t rank, const uint64_t *shape)
{
    const uint32_t type = dtype == FL_DTYPE_F32 ? 0 : dtype == FL_DTYPE_F16 ? 1 : 30;
    uint64_t bytes = dtype == FL_DTYPE_F32 ? 4 : 2;
    assert(rank >= 1 && rank <= 4);
    assert(dtype == FL_DTYPE_F32 || dtype == FL_DTYPE_F16 || dtype == FL_DTYPE_BF16);
    put_text(&self->tensors, name, strlen(name));
    fl_buf_u32(&self->tensors, rank);
    for (uint32_t d = rank; d-- > 0;) {
        fl_buf_u64(&self->tensors, shape[d]);
        bytes *= shape[d];
    }
    fl_buf_u32(&self->tensors, type);
    fl_buf_u64(&self->tensors, self->offset);
    self->offset += bytes + fl_gguf_padding(bytes);
    self->tensor_count++;
}

enum fl_status fl_gguf_writer_header(const struct fl_gguf_writer *self, struct fl_buf *out)
{
    static const uint8_t zeros[FL_GGUF_ALIGNMENT];
    enum fl_status status = fl_buf_status(&self->keys);
    if (status == FL_OK)
        status = fl_buf_status(&self->tensors);
    if (status != FL_OK)
        return status;
    fl_buf_append(out, "GGUF", 4);
    fl_buf_u32(out, 3);
    fl_buf_u64(out, self->tensor_count);
    fl_buf_u64(out, self->key_count);
    fl_buf_append(out, self->keys.data, self->keys.length);
    fl_buf_append(out, self->tensors.data, self->tensors.length);
    fl_buf_append(out, zeros, fl_gguf_padding(out->length));
    return fl_buf_status(out);
}

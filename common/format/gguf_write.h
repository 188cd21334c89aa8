/*
 * gguf_write.h - writer of GGUF files, version 3, little-endian, alignment 32.
 *
 * First every key and every tensor's shape, then the header, then the tensors' bytes in the order
 * in which they were named, each padded to the alignment; so that a model larger than memory can
 * be written piece by piece.
 * Errors are sticky and show in fl_gguf_writer_header(). Source: the GGUF specification (ggml).
 * Threads: a writer belongs to one thread.
 */
#ifndef FL_FORMAT_GGUF_WRITE_H
#define FL_FORMAT_GGUF_WRITE_H

#include <stdbool.h>

#include "base/buf.h"
#include "format/gguf.h"

#define FL_GGUF_ALIGNMENT 32u

struct fl_gguf_writer {
    struct fl_buf keys, tensors; /* owned */
    uint64_t key_count, tensor_count, offset;
};

void fl_gguf_writer_init(struct fl_gguf_writer *self);
void fl_gguf_writer_free(struct fl_gguf_writer *self);

void fl_gguf_put_u32(struct fl_gguf_writer *self, const char *key, uint32_t value);
void fl_gguf_put_f32(struct fl_gguf_writer *self, const char *key, float value);
void fl_gguf_put_bool(struct fl_gguf_writer *self, const char *key, bool value);
void fl_gguf_put_string(struct fl_gguf_writer *self, const char *key, const char *value);
/* A value as it lies in another file (fl_gguf_key_at()). */
void fl_gguf_put_raw(struct fl_gguf_writer *self, const struct fl_gguf_key *key);
/* An array: count elements follow by one of the calls below, and nothing else in between. */
void fl_gguf_put_array(struct fl_gguf_writer *self, const char *key, enum fl_gguf_type type,
                       uint64_t count);
void fl_gguf_put_element_string(struct fl_gguf_writer *self, const char *text, size_t length);
void fl_gguf_put_element_i32(struct fl_gguf_writer *self, int32_t value);

/*
 * The next tensor; shape is row-major (the last dimension contiguous), rank 1 to 4. dtype is F32,
 * F16 or BF16.
 */
void fl_gguf_add_tensor(struct fl_gguf_writer *self, const char *name, enum fl_dtype dtype,
                        uint32_t rank, const uint64_t *shape);
/* Append everything in front of the first tensor's bytes. FL_ENOMEM, FL_ERANGE. */
FL_CHECKED enum fl_status fl_gguf_writer_header(const struct fl_gguf_writer *self,
                                                struct fl_buf *out);
/* Zero bytes that follow a tensor of so many bytes: 0 to 31. */
size_t fl_gguf_padding(uint64_t bytes);

#endif

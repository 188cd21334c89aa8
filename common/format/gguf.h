/*
 * gguf.h - reader of GGUF files, versions 2 and 3, little-endian: metadata and tensors, mapped.
 *
 * Every count, length and offset is held against the bytes that are there before it is used;
 * names and keys are unique; tensors lie one behind the other at the file's alignment.
 * Shapes come out row-major (GGUF states the fastest dimension first): (out, in) for a linear.
 * Source: the GGUF specification (ggml project).
 * Threads: an open file is immutable; any thread may read it.
 */
#ifndef FL_FORMAT_GGUF_H
#define FL_FORMAT_GGUF_H

#include <stdbool.h>

#include "base/status.h"
#include "format/dtype.h"

#define FL_GGUF_KEYS_MAX    65536u
#define FL_GGUF_TENSORS_MAX 200000u
#define FL_GGUF_ARRAY_MAX   (1u << 26)

struct fl_gguf; /* opaque */

enum fl_gguf_type {
    FL_GGUF_U8,
    FL_GGUF_I8,
    FL_GGUF_U16,
    FL_GGUF_I16,
    FL_GGUF_U32,
    FL_GGUF_I32,
    FL_GGUF_F32,
    FL_GGUF_BOOL,
    FL_GGUF_STRING,
    FL_GGUF_ARRAY,
    FL_GGUF_U64,
    FL_GGUF_I64,
    FL_GGUF_F64,
    FL_GGUF_TYPE_COUNT
};

/* A string as it lies in the file: not NUL-terminated, may hold any byte. */
struct fl_gguf_string {
    const char *data;
    size_t length;
};

/* FL_ENOTFOUND, FL_EFORMAT (what is wrong, where), FL_EIO, FL_ENOMEM. */
FL_CHECKED enum fl_status fl_gguf_open(const char *path, struct fl_gguf **out,
                                       struct fl_error *error);
/* Does the file begin with "GGUF"? false also when it can't be read. */
bool fl_gguf_is(const char *path);
void fl_gguf_close(struct fl_gguf **self);

uint32_t fl_gguf_tensor_count(const struct fl_gguf *self);
/* index < count; in the file's order. Borrowed, as all below. */
const struct fl_tensor_view *fl_gguf_tensor(const struct fl_gguf *self, uint32_t index);
/* NULL: not there. A tensor of a type that is not read here has dtype FL_DTYPE_OTHER. */
const struct fl_tensor_view *fl_gguf_find(const struct fl_gguf *self, const char *name);
/* The name of a tensor's stored type, "Q3_K" too. */
const char *fl_gguf_type_name(const struct fl_gguf *self, uint32_t index);

/* One key with its value as it lies in the file. Borrowed. */
struct fl_gguf_key {
    const char *name;
    enum fl_gguf_type type;
    const uint8_t *value;
    size_t bytes;
};
uint32_t fl_gguf_key_count(const struct fl_gguf *self);
/* index < count; sorted by name. */
struct fl_gguf_key fl_gguf_key_at(const struct fl_gguf *self, uint32_t index);

bool fl_gguf_has(const struct fl_gguf *self, const char *key);
/* Any integer type whose value fits; FL_ENOTFOUND, FL_EFORMAT (another type). */
FL_CHECKED enum fl_status fl_gguf_u64(const struct fl_gguf *self, const char *key, uint64_t *out);
FL_CHECKED enum fl_status fl_gguf_f64(const struct fl_gguf *self, const char *key, double *out);
FL_CHECKED enum fl_status fl_gguf_bool(const struct fl_gguf *self, const char *key, bool *out);
FL_CHECKED enum fl_status fl_gguf_string(const struct fl_gguf *self, const char *key,
                                         struct fl_gguf_string *out);

/* An array of one type: element i by the getters below. */
struct fl_gguf_array {
    enum fl_gguf_type type;
    uint64_t count;
    const uint8_t *data; /* the first element */
    const uint8_t *end;
};
FL_CHECKED enum fl_status fl_gguf_array(const struct fl_gguf *self, const char *key,
                                        struct fl_gguf_array *out);
/*
 * Walk an array of strings: take the next one and move on. false at the end. The array was
 * validated at open, so this never fails in between.
 */
bool fl_gguf_array_next_string(struct fl_gguf_array *self, struct fl_gguf_string *out);
/* Element index of a number array as a double or an integer (exact for i32, u32, f32); 0 beyond. */
int64_t fl_gguf_array_i64(const struct fl_gguf_array *self, uint64_t index);
double fl_gguf_array_f64(const struct fl_gguf_array *self, uint64_t index);

#endif

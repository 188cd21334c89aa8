/*
 * safetensors.h - reader (mapped, zero-copy) and writer of the safetensors format.
 *
 * A file is: u64 header length N, N bytes of JSON, the buffer. The reader holds every rule: bounded
 * header, unique names, offsets that cover the whole buffer without hole or overlap, sizes that
 * agree with shape and type. A directory is read as model.safetensors, or by
 * model.safetensors.index.json and its shards (plain file names inside the directory only).
 * Source: the safetensors format description (Hugging Face).
 * Threads: an open file is immutable; any thread may read it.
 */
#ifndef FL_FORMAT_SAFETENSORS_H
#define FL_FORMAT_SAFETENSORS_H

#include "base/buf.h"
#include "base/status.h"
#include "format/dtype.h"

#define FL_SAFETENSORS_HEADER_MAX  100000000u
#define FL_SAFETENSORS_TENSORS_MAX 200000u

struct fl_safetensors; /* opaque */

/* path: one .safetensors file, or a directory. FL_ENOTFOUND, FL_EFORMAT, FL_EIO, FL_ENOMEM. */
FL_CHECKED enum fl_status fl_safetensors_open(const char *path, struct fl_safetensors **out,
                                              struct fl_error *error);
/* Bytes in memory, borrowed for the object's life; what names them in messages. */
FL_CHECKED enum fl_status fl_safetensors_open_memory(const void *bytes, size_t length,
                                                     const char *what, struct fl_safetensors **out,
                                                     struct fl_error *error);
void fl_safetensors_close(struct fl_safetensors **self);

uint32_t fl_safetensors_count(const struct fl_safetensors *self);
/* index < count; in the order of names. Borrowed. */
const struct fl_tensor_view *fl_safetensors_at(const struct fl_safetensors *self, uint32_t index);
/* NULL: no tensor of that name. Borrowed. */
const struct fl_tensor_view *fl_safetensors_find(const struct fl_safetensors *self,
                                                 const char *name);

/*
 * Append a file with these tensors and __metadata__ {"format":"pt"}: sorted by element size (the
 * largest first), then by name; the header padded with spaces to a multiple of 8. Only plain types.
 */
FL_CHECKED enum fl_status fl_safetensors_write(const struct fl_tensor_view *tensors, uint32_t count,
                                               struct fl_buf *out, struct fl_error *error);
/*
 * Only what stands in front of the tensors' bytes, for files that are written piece by piece: their
 * data are not looked at. order (count): the tensors' bytes follow in the order tensors[order[0]],
 * tensors[order[1]], ... without gaps.
 */
FL_CHECKED enum fl_status fl_safetensors_header(const struct fl_tensor_view *tensors,
                                                uint32_t count, uint32_t *order, struct fl_buf *out,
                                                struct fl_error *error);

#endif

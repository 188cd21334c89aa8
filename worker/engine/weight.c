/* weight.c - frozen matrices in their stored type, row by row to float32 in Hugging Face's order.
 */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "format/nf4.h"
#include "worker/engine/model_internal.h"

/*
 * Where Hugging Face's row `row` lies in the file. GGUF stores each head's rows interleaved (pairs
 * (2i, 2i + 1) rotate together); Hugging Face's pairs are (i, i + half).
 */
static size_t stored_row(const struct fl_weight *self, size_t row)
{
    const size_t d = self->interleave;
    if (!d)
        return row;
    const size_t in_head = row % d, half = d / 2;
    const size_t within = in_head < half ? 2 * in_head : 2 * (in_head - half) + 1;
    return row - in_head + within;
}

void fl_weight_widen(const struct fl_weight *self, uint32_t first, uint32_t count, float *out)
{
    const size_t columns = self->columns;
    if (self->nf4) {
        fl_nf4_widen(self->nf4, (uint64_t)first * columns, (size_t)count * columns, out);
        return;
    }
    const size_t row_bytes = fl_dtype_row_bytes(self->dtype, columns);
    assert(self->data && first + (uint64_t)count <= self->rows);
    if (!self->interleave) {
        fl_dtype_widen(self->dtype, self->data + first * row_bytes, count * columns, out);
        return;
    }
    for (size_t i = 0; i < count; i++)
        fl_dtype_widen(self->dtype, self->data + stored_row(self, first + i) * row_bytes, columns,
                       out + i * columns);
}

const uint8_t *fl_weight_stored(const struct fl_weight *self, uint32_t row, uint32_t first)
{
    if (self->nf4)
        return NULL;
    return self->data + stored_row(self, row) * fl_dtype_row_bytes(self->dtype, self->columns) +
           fl_dtype_row_bytes(self->dtype, first);
}

void fl_weight_widen_part(const struct fl_weight *self, uint32_t row, uint32_t first,
                          uint32_t count, float *out)
{
    if (self->nf4) {
        fl_nf4_widen(self->nf4, (uint64_t)row * self->columns + first, count, out);
        return;
    }
    const size_t row_bytes = fl_dtype_row_bytes(self->dtype, self->columns);
    assert(self->data && row < self->rows && first + (uint64_t)count <= self->columns);
    fl_dtype_widen(self->dtype,
                   self->data + stored_row(self, row) * row_bytes +
                       fl_dtype_row_bytes(self->dtype, first),
                   count, out);
}

void fl_weight_free(struct fl_weight *self)
{
    fl_free(self->values);
    if (self->turned)
        fl_free((void *)(uintptr_t)self->data);
    if (self->nf4)
        fl_nf4_free(self->nf4);
    fl_free(self->nf4);
    *self = (struct fl_weight){.rows = 0};
}

/* out (columns, rows) = in (rows, columns) of elements of `bytes`, a constant where it is called.
 */
static inline void turn(const uint8_t *in, size_t rows, size_t columns, size_t bytes, uint8_t *out)
{
    enum { TILE = 16 }; /* both sides of a tile stay in the first cache */
#pragma omp parallel for schedule(static)
    for (size_t c = 0; c < columns; c += TILE) {
        const size_t end = columns - c < TILE ? columns : c + TILE;
        for (size_t r = 0; r < rows; r++)
            for (size_t i = c; i < end; i++)
                memcpy(out + (i * rows + r) * bytes, in + (r * columns + i) * bytes, bytes);
    }
}

enum fl_status fl_weight_turn(struct fl_weight *self, struct fl_error *error)
{
    const size_t rows = self->rows, columns = self->columns;
    const size_t bytes = fl_dtype_block_bytes(self->dtype);
    if (fl_dtype_block_values(self->dtype) != 1)
        return fl_fail(error, FL_EFORMAT, "%s: its stored type is not supported", self->name);
    uint8_t *data = fl_calloc_aligned(rows * columns, bytes);
    if (!data)
        return fl_fail_memory(error);
    if (bytes == 2)
        turn(self->data, rows, columns, 2, data);
    else if (bytes == 4)
        turn(self->data, rows, columns, 4, data);
    else
        turn(self->data, rows, columns, bytes, data);
    fl_fs_forget(self->data, rows * columns * bytes); /* they are not read again */
    self->data = data;
    self->turned = true;
    self->rows = (uint32_t)columns;
    self->columns = (uint32_t)rows;
    return FL_OK;
}

/* panel.c - see panel.h. */
#include "worker/engine/panel.h"

#include <string.h>

#include "worker/engine/work.h"

enum {
    PIECE = 256,                                  /* values widened at once: whole blocks */
    WIDE_PIECE = PIECE * FL_GEMM_COLUMNS_MAX / 16 /* the same, and whole strips */
};

const float *fl_panel_in_place(const struct fl_weight *weight)
{
    if (weight->dtype != FL_DTYPE_F32 || weight->interleave ||
        (uintptr_t)weight->data % _Alignof(float) != 0)
        return NULL;
    return (const float *)(const void *)weight->data;
}

struct fl_panel fl_panel_for(const struct fl_weight *weight, bool bf16, float *units)
{
    struct fl_panel panel = {.tiles = fl_gemm_kernel(), .units = units};
    if (bf16 && weight->rows % 2 == 0 && weight->columns % 2 == 0)
        panel.bf16 = fl_gemm_bf16();
    if (panel.bf16)
        panel.tiles = panel.bf16->tiles;
    return panel;
}

/* Columns [first, first + count) of row `row` of W as float32: in the file, or widened into room.
 */
static const float *piece_of(const struct fl_weight *weight, size_t row, size_t first, size_t count,
                             float *room)
{
    const float *direct = fl_panel_in_place(weight);
    if (direct)
        return direct + row * weight->columns + first;
    fl_weight_widen_part(weight, (uint32_t)row, (uint32_t)first, (uint32_t)count, room);
    return room;
}

/* Columns [q, q + count) of row `row` of W as pairs along them. */
static void narrow_piece(const struct fl_gemm_bf16 *bf16, const struct fl_weight *weight,
                         size_t row, size_t q, size_t count, float *out)
{
    FL_GEMM_ROOM wide[WIDE_PIECE];
    const uint8_t *stored = fl_weight_stored(weight, (uint32_t)row, (uint32_t)q);
    if (!stored || !bf16->widen(weight->dtype, stored, count, out))
        bf16->narrow(piece_of(weight, row, q, count, wide), count, out);
}

/* Rows [first, first + n) of W, columns [q, q + count), as n rows of units in room; its stride. */
static size_t gather(const struct fl_panel *panel, const struct fl_weight *weight, size_t first,
                     size_t n, size_t q, size_t count, float *room)
{
    const size_t units = fl_panel_units(panel, count);
    for (size_t j = 0; j < n; j++) {
        float *row = room + j * units;
        if (panel->bf16)
            narrow_piece(panel->bf16, weight, first + j, q, count, row);
        else
            fl_weight_widen_part(weight, (uint32_t)(first + j), (uint32_t)q, (uint32_t)count, row);
    }
    return units;
}

/* One strip of W^T from its rows [first, first + n): (columns in units, width) into out. */
static void turned_strip(const struct fl_panel *panel, const struct fl_weight *weight, size_t first,
                         size_t n, float *out)
{
    FL_GEMM_ROOM room[FL_GEMM_COLUMNS_MAX * PIECE];
    const size_t in = weight->columns, width = fl_gemm_padded(panel->tiles, n);
    const float *direct = panel->bf16 ? NULL : fl_panel_in_place(weight);
    if (direct) {
        panel->tiles->pack_turned(direct + first * in, in, in, n, out, width);
        return;
    }
    for (size_t q = 0; q < in; q += PIECE) {
        const size_t count = in - q < PIECE ? in - q : PIECE;
        const size_t units = gather(panel, weight, first, n, q, count, room);
        panel->tiles->pack_turned(room, units, units, n, out + fl_panel_units(panel, q) * width,
                                  width);
    }
}

/* The branch's part of such a strip: (extra, width) into out. */
static void turned_branch(const struct fl_panel *panel, size_t first, size_t n, float *out)
{
    FL_GEMM_ROOM room[FL_GEMM_COLUMNS_MAX * FL_PANEL_RANK_MOST / 2];
    const size_t pairs = panel->rank / 2, width = fl_gemm_padded(panel->tiles, n);
    for (size_t j = 0; j < n; j++)
        panel->bf16->narrow(panel->factor + (first + j) * panel->rank, panel->rank,
                            room + j * pairs);
    panel->tiles->pack_turned(room, pairs, pairs, n, out, width);
    memset(out + pairs * width, 0, (panel->extra - pairs) * width * sizeof *out);
}

void fl_panel_turned(const struct fl_panel *panel, const struct fl_weight *weight, size_t first,
                     size_t count)
{
    const size_t columns = panel->tiles->columns, units = fl_panel_units(panel, weight->columns);
    const size_t stride = units + panel->extra;
    size_t low, high;
    fl_my_share(count, columns, &low, &high);
    if (first) {
#pragma omp barrier
    }
    for (size_t j = low; j < high; j += columns) {
        const size_t n = high - j < columns ? high - j : columns;
        turned_strip(panel, weight, first + j, n, panel->units + j * stride);
        if (panel->extra)
            turned_branch(panel, first + j, n,
                          panel->units + j * stride + units * fl_gemm_padded(panel->tiles, n));
    }
#pragma omp barrier
}

/* Where the strip of columns from q on has the panel's row `row` of k, `count` in all. */
static float *place_of(const struct fl_panel *panel, size_t q, size_t width, size_t row,
                       size_t count)
{
    return panel->units + q * (fl_panel_units(panel, count) + panel->extra) +
           fl_panel_units(panel, row) * width;
}

/* Row `row` of the panel's k, `whole` columns from q, into its strips. */
static void scatter(const struct fl_panel *panel, const struct fl_weight *weight, size_t first,
                    size_t q, size_t whole, size_t row, size_t count)
{
    FL_GEMM_ROOM room[WIDE_PIECE];
    const size_t columns = panel->tiles->columns;
    const float *values = piece_of(weight, first + row, q, whole, room);
    for (size_t j = 0; j < whole; j += columns) {
        const size_t n = whole - j < columns ? whole - j : columns;
        const size_t width = fl_gemm_padded(panel->tiles, n);
        panel->tiles->pack(values + j, 0, 1, n, place_of(panel, q + j, width, row, count), width);
    }
}

/* The same of rows `row` and `row` + 1, in pairs of bfloat16. */
static void scatter_pairs(const struct fl_panel *panel, const struct fl_weight *weight,
                          size_t first, size_t q, size_t whole, size_t row, size_t count)
{
    FL_GEMM_ROOM even[WIDE_PIECE / 2];
    FL_GEMM_ROOM odd[WIDE_PIECE / 2];
    const size_t columns = panel->tiles->columns;
    narrow_piece(panel->bf16, weight, first + row, q, whole, even);
    narrow_piece(panel->bf16, weight, first + row + 1, q, whole, odd);
    for (size_t j = 0; j < whole; j += columns) {
        const size_t n = whole - j < columns ? whole - j : columns;
        const size_t width = fl_gemm_padded(panel->tiles, n);
        panel->bf16->pair_narrow(even + j / 2, odd + j / 2, n, width,
                                 place_of(panel, q + j, width, row, count));
    }
}

/* This thread's share of the branch's pairs of rows, behind all rows of the panel. */
static void straight_branch(const struct fl_panel *panel, size_t in, size_t count)
{
    const size_t columns = panel->tiles->columns;
    size_t low, high;
    fl_my_share(panel->extra, 1, &low, &high);
    for (size_t i = low; i < high; i++)
        for (size_t j = 0; j < in; j += columns) {
            const size_t n = in - j < columns ? in - j : columns;
            const size_t width = fl_gemm_padded(panel->tiles, n);
            const float *even = panel->factor + 2 * i * in + j;
            float *to = place_of(panel, j, width, count + 2 * i, count);
            if (2 * i < panel->rank)
                panel->bf16->pair(even, even + in, n, width, to);
            else
                memset(to, 0, width * sizeof *to);
        }
}

void fl_panel_straight(const struct fl_panel *panel, const struct fl_weight *weight, size_t first,
                       size_t count)
{
    const size_t in = weight->columns, step = panel->bf16 ? 2 : 1;
    size_t low, high;
    fl_my_share(count, FL_ROW_GRAIN, &low, &high);
    if (first) {
#pragma omp barrier
    }
    for (size_t row = low; row < high; row += step)
        for (size_t q = 0; q < in; q += WIDE_PIECE) {
            const size_t whole = in - q < WIDE_PIECE ? in - q : WIDE_PIECE;
            if (panel->bf16)
                scatter_pairs(panel, weight, first, q, whole, row, count);
            else
                scatter(panel, weight, first, q, whole, row, count);
        }
    if (panel->extra)
        straight_branch(panel, in, count);
#pragma omp barrier
}

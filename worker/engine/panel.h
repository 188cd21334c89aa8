/*
 * panel.h - a part of a frozen weight, widened from its stored type into the packed strips that the
 * tiles of gemm.h read; once for the whole team.
 *
 * Forward wants W^T (k runs over W's columns), backward wants W (k runs over its rows). In bfloat16
 * two neighbours along k share one 32-bit unit, which the tiles multiply at once.
 * Threads: fl_panel_turned() and fl_panel_straight() are called by every thread of a team, once for
 * each panel of a parallel region, and hold barriers.
 */
#ifndef FL_ENGINE_PANEL_H
#define FL_ENGINE_PANEL_H

#include "worker/engine/gemm.h"
#include "worker/engine/model.h"

enum { FL_PANEL_RANK_MOST = 64 }; /* of a branch inside a panel */

struct fl_panel {
    const struct fl_gemm_kernel *tiles; /* that will read it */
    const struct fl_gemm_bf16 *bf16;    /* NULL: float32 */
    float *units;                       /* the panel: floats, or pairs of bfloat16 */
    /* bf16: pairs of a LoRA factor that follow k in each strip, the rest of `extra` zeros; turned:
     * factor (rows of W, rank), else (rank, columns of W), both even */
    size_t extra, rank;
    const float *factor;
};

/* The kernels for this weight: bfloat16 where it is wanted and both sides are even. */
struct fl_panel fl_panel_for(const struct fl_weight *weight, bool bf16, float *units);

/* k in units: k itself, or pairs. */
static inline size_t fl_panel_units(const struct fl_panel *panel, size_t k)
{
    return panel->bf16 ? k / 2 : k;
}

/* The rows of W as float32 where the file already holds them so, in order and aligned; or NULL. */
const float *fl_panel_in_place(const struct fl_weight *weight);

/*
 * Rows [first, first + count) of W as strips of W^T: the strip of row j at units + j
 * (fl_panel_units (columns) + extra). first > 0 means that the team still reads the panel before.
 */
void fl_panel_turned(const struct fl_panel *panel, const struct fl_weight *weight, size_t first,
                     size_t count);
/* The same rows as strips of W: the strip of column j at units + j (fl_panel_units(count)
 * + extra). */
void fl_panel_straight(const struct fl_panel *panel, const struct fl_weight *weight, size_t first,
                       size_t count);

#endif

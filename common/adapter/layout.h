/*
 * layout.h - the shape of an update: which number of which matrix stands where in the vector that
 * sites send. Coordinator and sites compute it from the same facts and get the same layout.
 *
 * For each target module in order, and for each factor trained this round (A before B before m),
 * one segment in row-major order at the module's *global* rank: A (r, in), B (out, r). A site whose
 * rank r_i is smaller fills the first r_i directions (rows of A, columns of B); the rest is zero
 * ("prefix rule", exact because the frozen factor is common). A direction is averaged over the
 * sites that could train it: a *tier* is a distinct set of such sites, and the summed weights of
 * each tier travel as 64-bit scalars beside the vector. DoRA's magnitudes m (out, 1) are of no one
 * direction: whoever trains the module's first one trains them, so they are in its tier.
 *
 * Bytes of an update (little-endian): "FLUPDT01", u64 D, u64 scalar count, scalars (u64 each),
 * vector (u32 each). Scalars: the weight once for each tier the site is in (0 for the others), then
 * those of enum fl_scalar. The sum over sites has the same form; sum_sha256 is the SHA-256 of it.
 * Sources: raFLoRA, arXiv 2602.13486 (weights per direction); Bonawitz et al., CCS 2017 (the ring).
 * Threads: a layout is read-only after creation; a reader belongs to one thread.
 */
#ifndef FL_ADAPTER_LAYOUT_H
#define FL_ADAPTER_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapter/adapter.h"
#include "adapter/fixed.h"
#include "base/buf.h"
#include "base/status.h"

/* Bits: which factors a round trains, and DoRA's magnitudes. NONE: a round that only evaluates. */
enum fl_factors {
    FL_FACTORS_NONE = 0,
    FL_FACTOR_A = 1,
    FL_FACTOR_B = 2,
    FL_FACTORS_BOTH = 3,
    FL_FACTOR_M = 4
};

/* The range of one value of each factor (fixed.h); any number where it is not trained. */
struct fl_ranges {
    double a, b, m;
};

#define FL_LAYOUT_TIERS_MAX    1024
#define FL_UPDATE_HEADER_BYTES 24
#define FL_UPDATE_ELEMENTS_MAX (FL_ADAPTER_BYTES_MAX / 4)
#define FL_SITE_UNKNOWN        UINT32_MAX

/*
 * The ranks of one round: of every module for each site of the cohort, in the cohort's order, and
 * the module's global rank (>= each site's; directions above every site's rank are kept as they
 * are).
 */
struct fl_rank_plan {
    uint32_t sites, modules;
    uint16_t *ranks;  /* (sites, modules), owned */
    uint16_t *global; /* (modules), owned */
};

/* Zeroed arrays. FL_EINVAL outside 1..FL_GRID_SITES_MAX sites, 1..FL_MODULES_MAX modules. */
FL_CHECKED enum fl_status fl_rank_plan_create(struct fl_rank_plan *self, uint32_t sites,
                                              uint32_t modules);
void fl_rank_plan_free(struct fl_rank_plan *self);
/*
 * The plan of a subset of its sites (those that reported TRAINED): indices of count sites, in the
 * new order. Global ranks stay. *out is new.
 */
FL_CHECKED enum fl_status fl_rank_plan_select(const struct fl_rank_plan *self,
                                              const uint32_t *indices, uint32_t count,
                                              struct fl_rank_plan *out);
/* The fewest sites that train any one direction (directions that nobody trains do not count). */
uint32_t fl_rank_plan_thinnest(const struct fl_rank_plan *self);

struct fl_segment {
    uint32_t module;        /* index among the targets */
    enum fl_factors factor; /* FL_FACTOR_A, FL_FACTOR_B or FL_FACTOR_M */
    uint32_t rows, columns; /* A: (rank, in), B: (out, rank), m: (out, 1) */
    uint32_t rank;          /* the module's global rank this round */
    uint64_t offset;        /* of the first element in the vector */
    double range;           /* of one value: see fixed.h */
};

/* What stands in a segment, as a module has it at its own rank. */
struct fl_segment_part {
    float *values;          /* (rows, columns), borrowed; NULL: the module has no magnitudes */
    uint32_t rows, columns; /* the first ones of the segment's */
};
struct fl_segment_part fl_segment_part(const struct fl_segment *self,
                                       const struct fl_lora_module *module);
/* Has the module the segment's factor, in the segment's shape but for the rank? */
bool fl_segment_fits(const struct fl_segment *self, const struct fl_lora_module *module);
/* The rank direction, from 0, whose tier a value belongs to. */
uint32_t fl_segment_direction(const struct fl_segment *self, uint32_t row, uint32_t column);

struct fl_layout {
    struct fl_rank_plan ranks; /* owned copy; at a site: one site, itself */
    struct fl_segment *segments;
    uint32_t segment_count;
    uint64_t elements; /* D */
    uint32_t tier_count;
    uint32_t scalar_count;     /* tier_count + FL_SCALAR_COUNT */
    uint32_t *direction_start; /* (modules): index of a module's direction 0 in tier_of */
    uint32_t *tier_of; /* tier of each (module, direction), FL_SITE_UNKNOWN: nobody trains it; at a
                          site: NULL */
    uint8_t *tiers;    /* (ranks.sites, tier_count): 1 where the site is in the tier */
    enum fl_factors factors;
};

/* Scalars behind the tiers' weights, at index tier_count + value. */
enum fl_scalar {
    FL_SCALAR_EVAL_LOSS, /* sum of the losses of scored tokens before training, in 2^-20 */
    FL_SCALAR_EVAL_TOKENS,
    FL_SCALAR_TRAIN_LOSS,   /* over the round's steps, in 2^-20 */
    FL_SCALAR_TRAIN_TOKENS, /* scored, not capped */
    FL_SCALAR_CUT,          /* values cut to the range */
    FL_SCALAR_VALUES,       /* values sent (those of the site's own ranks) */
    FL_SCALAR_COUNT
};

/*
 * targets: the adapted modules in order; ranks: of this round's cohort (copied); factors: trained;
 * ranges: finite and > 0 where that factor is trained. FL_EINVAL: ranks that do not fit the
 * modules; FL_ERANGE: a vector or a number of tiers beyond the limits.
 */
FL_CHECKED enum fl_status fl_layout_create(const struct fl_inventory *targets,
                                           const struct fl_rank_plan *ranks,
                                           enum fl_factors factors, struct fl_ranges ranges,
                                           struct fl_layout **out, struct fl_error *error);
/*
 * The same layout as seen by one site, from what the coordinator sends it: the global ranks and its
 * own (targets->count each) and one byte a tier, 1 where it is a member. Its index is 0 there.
 */
FL_CHECKED enum fl_status fl_layout_create_site(const struct fl_inventory *targets,
                                                const uint16_t *global, const uint16_t *own,
                                                const uint8_t *tiers, uint32_t tier_count,
                                                enum fl_factors factors, struct fl_ranges ranges,
                                                struct fl_layout **out, struct fl_error *error);
/* D of such a layout, which depends on no site: known before the cohort is. */
uint64_t fl_layout_elements(const struct fl_inventory *targets, const uint16_t *global,
                            enum fl_factors factors);
void fl_layout_destroy(struct fl_layout **self);
/* A site's row of tiers: tier_count bytes, borrowed. */
const uint8_t *fl_layout_site_tiers(const struct fl_layout *self, uint32_t site);

/* Bytes of every update of this layout: header + 8 scalars + 4 D. */
uint64_t fl_layout_update_bytes(const struct fl_layout *self);

/* What a site reports besides its delta. */
struct fl_update_stats {
    uint64_t weight; /* scored tokens of the round; the encoder caps it at the grid's w_max */
    double eval_loss_sum;
    uint64_t eval_tokens;
    double train_loss_sum;
    uint64_t train_tokens;
};

/*
 * Append the update of site (index in the cohort) to out. delta: an adapter whose modules are the
 * targets in order at the site's own ranks, holding trained minus start in A, B and m (a factor not
 * trained is ignored). NULL is allowed when factors is NONE. *cut (may be NULL): values cut.
 * FL_EINVAL: shapes differ, a non-finite value or loss, weight 0 while something was trained.
 */
FL_CHECKED enum fl_status fl_update_encode(const struct fl_layout *layout,
                                           const struct fl_grid *grid, uint32_t site,
                                           const struct fl_adapter *delta,
                                           const struct fl_update_stats *stats, struct fl_buf *out,
                                           uint64_t *cut, struct fl_error *error);

/*
 * Reads an update piece by piece and adds it into running sums. Pushed bytes may be cut anywhere.
 * With checks on (masks off) every value is held against what that site may send: |q| <= Q, zeros
 * outside its prefix, its tiers' weights equal and <= w_max, scalars <= FL_SCALAR_MAX. vector and
 * scalars may be NULL: then it only checks. After a failure the sums hold a part of the update and
 * must be thrown away, so check an update once (on arrival) before it is summed.
 */
struct fl_update_reader {
    const struct fl_layout *layout; /* borrowed */
    const struct fl_grid *grid;     /* borrowed */
    uint32_t site;                  /* FL_SITE_UNKNOWN: no per-site check (masked) */
    uint32_t *vector;               /* (elements) running sum, borrowed; or NULL */
    uint64_t *scalars;              /* (scalar_count) running sum, borrowed; or NULL */
    uint64_t position;              /* bytes taken */
    uint64_t weight;                /* seen in the tiers, 0 before */
    uint32_t segment;               /* that the next element lies in */
    uint8_t pending[8];
    uint32_t pending_bytes;
};

void fl_update_reader_init(struct fl_update_reader *self, const struct fl_layout *layout,
                           const struct fl_grid *grid, uint32_t site, uint32_t *vector,
                           uint64_t *scalars);
/* FL_EFORMAT with the reason in *error. */
FL_CHECKED enum fl_status fl_update_reader_push(struct fl_update_reader *self, const void *bytes,
                                                size_t length, struct fl_error *error);
/* FL_EFORMAT when the update ended early. */
FL_CHECKED enum fl_status fl_update_reader_end(const struct fl_update_reader *self,
                                               struct fl_error *error);

/* SHA-256 of the canonical bytes of a sum (or of one update). */
void fl_update_sha256(const struct fl_layout *layout, const uint32_t *vector,
                      const uint64_t *scalars, uint8_t out[FL_HASH_BYTES]);

#endif

/*
 * layout.c - building layouts: ranks, segments, tiers. The update's bytes are in update.c.
 *
 * Invariants: segments are contiguous from 0 and end at `elements`; a tier is never empty, and no
 * two tiers have the same members; tiers are numbered in the order of (module, direction).
 */
#include "adapter/layout.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"

enum fl_status fl_rank_plan_create(struct fl_rank_plan *self, uint32_t sites, uint32_t modules)
{
    *self = (struct fl_rank_plan){0};
    if (sites == 0 || sites > FL_GRID_SITES_MAX || modules == 0 || modules > FL_MODULES_MAX)
        return FL_EINVAL;
    self->ranks = fl_calloc((size_t)sites * modules, sizeof *self->ranks);
    self->global = fl_calloc(modules, sizeof *self->global);
    if (self->ranks == NULL || self->global == NULL) {
        fl_rank_plan_free(self);
        return FL_ENOMEM;
    }
    self->sites = sites;
    self->modules = modules;
    return FL_OK;
}

void fl_rank_plan_free(struct fl_rank_plan *self)
{
    fl_free(self->ranks);
    fl_free(self->global);
    *self = (struct fl_rank_plan){0};
}

enum fl_status fl_rank_plan_select(const struct fl_rank_plan *self, const uint32_t *indices,
                                   uint32_t count, struct fl_rank_plan *out)
{
    enum fl_status status = fl_rank_plan_create(out, count, self->modules);

    if (status != FL_OK)
        return status;
    memcpy(out->global, self->global, self->modules * sizeof *self->global);
    for (uint32_t i = 0; i < count; i++) {
        assert(indices[i] < self->sites);
        memcpy(out->ranks + (size_t)i * self->modules,
               self->ranks + (size_t)indices[i] * self->modules,
               self->modules * sizeof *self->ranks);
    }
    return FL_OK;
}

/* How many sites train direction j of module m. */
static uint32_t trainers(const struct fl_rank_plan *plan, uint32_t m, uint32_t j)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < plan->sites; i++)
        count += plan->ranks[(size_t)i * plan->modules + m] > j;
    return count;
}

uint32_t fl_rank_plan_thinnest(const struct fl_rank_plan *self)
{
    uint32_t thinnest = self->sites;

    for (uint32_t m = 0; m < self->modules; m++) {
        uint16_t top = 0;
        for (uint32_t i = 0; i < self->sites; i++) {
            uint16_t rank = self->ranks[(size_t)i * self->modules + m];
            top = rank > top ? rank : top;
        }
        uint32_t count = top == 0 ? thinnest : trainers(self, m, (uint32_t)top - 1);
        thinnest = count < thinnest ? count : thinnest;
    }
    return thinnest;
}

static enum fl_status check_ranks(const struct fl_inventory *targets,
                                  const struct fl_rank_plan *plan, struct fl_error *error)
{
    if (targets->count == 0 || plan->modules != targets->count)
        return fl_fail(error, FL_EINVAL, "the rank list names %u modules, the adapter has %u",
                       plan->modules, targets->count);
    for (uint32_t m = 0; m < targets->count; m++) {
        const struct fl_module *module = &targets->modules[m];
        uint32_t limit = module->in < module->out ? module->in : module->out;
        uint32_t global = plan->global[m];

        if (global == 0 || global > limit || global > FL_RANK_MAX)
            return fl_fail(error, FL_EINVAL, "rank %u does not fit %s (%u, %u)", global,
                           module->name, module->out, module->in);
        for (uint32_t i = 0; i < plan->sites; i++) {
            uint32_t rank = plan->ranks[(size_t)i * plan->modules + m];
            if (rank == 0 || rank > global)
                return fl_fail(error, FL_EINVAL, "%s: a site's rank %u exceeds the global rank %u",
                               module->name, rank, global);
        }
    }
    return FL_OK;
}

static void add_segment(struct fl_layout *self, const struct fl_module *module, uint32_t index,
                        enum fl_factors factor, double range)
{
    struct fl_segment *segment = &self->segments[self->segment_count++];
    uint32_t rank = self->ranks.global[index];

    segment->module = index;
    segment->factor = factor;
    segment->rank = rank;
    segment->rows = factor == FL_FACTOR_A ? rank : module->out;
    segment->columns = factor == FL_FACTOR_A ? module->in : factor == FL_FACTOR_B ? rank : 1;
    segment->offset = self->elements;
    segment->range = range;
    self->elements += (uint64_t)segment->rows * segment->columns;
}

struct fl_segment_part fl_segment_part(const struct fl_segment *self,
                                       const struct fl_lora_module *module)
{
    switch (self->factor) {
    case FL_FACTOR_A:
        return (struct fl_segment_part){module->a, module->rank, self->columns};
    case FL_FACTOR_B:
        return (struct fl_segment_part){module->b, self->rows, module->rank};
    default:
        return (struct fl_segment_part){module->m, self->rows, self->columns};
    }
}

bool fl_segment_fits(const struct fl_segment *self, const struct fl_lora_module *module)
{
    bool shape = self->factor == FL_FACTOR_A ? module->module.in == self->columns
                                             : module->module.out == self->rows;
    return shape && fl_segment_part(self, module).values != NULL;
}

uint32_t fl_segment_direction(const struct fl_segment *self, uint32_t row, uint32_t column)
{
    return self->factor == FL_FACTOR_A ? row : self->factor == FL_FACTOR_B ? column : 0;
}

uint64_t fl_layout_elements(const struct fl_inventory *targets, const uint16_t *global,
                            enum fl_factors factors)
{
    uint64_t elements = 0;

    for (uint32_t m = 0; m < targets->count; m++) {
        const struct fl_module *module = &targets->modules[m];
        elements += (factors & FL_FACTOR_A) != 0 ? (uint64_t)global[m] * module->in : 0;
        elements += (factors & FL_FACTOR_B) != 0 ? (uint64_t)global[m] * module->out : 0;
        elements += (factors & FL_FACTOR_M) != 0 ? module->out : 0;
    }
    return elements;
}

static enum fl_status build_segments(struct fl_layout *self, const struct fl_inventory *targets,
                                     struct fl_ranges ranges, struct fl_error *error)
{
    const struct {
        enum fl_factors factor;
        double range;
    } each[] = {{FL_FACTOR_A, ranges.a}, {FL_FACTOR_B, ranges.b}, {FL_FACTOR_M, ranges.m}};
    const size_t most = sizeof each / sizeof each[0];

    for (size_t i = 0; i < most; i++)
        if ((self->factors & each[i].factor) != 0 &&
            !(isfinite(each[i].range) && each[i].range > 0.0))
            return fl_fail(error, FL_EINVAL, "the update range must be a number above 0");
    self->segments = fl_calloc(targets->count * most, sizeof *self->segments);
    if (self->segments == NULL)
        return fl_fail_memory(error);
    for (uint32_t m = 0; m < targets->count; m++)
        for (size_t i = 0; i < most; i++)
            if ((self->factors & each[i].factor) != 0)
                add_segment(self, &targets->modules[m], m, each[i].factor, each[i].range);
    if (self->elements > FL_UPDATE_ELEMENTS_MAX)
        return fl_fail(error, FL_ERANGE, "an update of %llu values exceeds the limit of %llu",
                       (unsigned long long)self->elements,
                       (unsigned long long)FL_UPDATE_ELEMENTS_MAX);
    return FL_OK;
}

/* ---- tiers ---- */

/* Rows of (sites) bytes while they are found; layout->tiers holds them transposed afterwards. */
struct tier_table {
    uint8_t *rows;    /* (count, sites) */
    uint8_t *scratch; /* (sites) */
    uint32_t count, sites;
};

static enum fl_status find_tier(struct tier_table *table, uint32_t *out, struct fl_error *error)
{
    for (uint32_t t = table->count; t-- > 0;) {
        if (memcmp(table->rows + (size_t)t * table->sites, table->scratch, table->sites) == 0) {
            *out = t;
            return FL_OK;
        }
    }
    if (table->count == FL_LAYOUT_TIERS_MAX)
        return fl_fail(error, FL_ERANGE, "the rank schedule makes more than %d sets of sites",
                       FL_LAYOUT_TIERS_MAX);
    uint8_t *rows = fl_reallocarray(table->rows, (size_t)table->count + 1, table->sites);
    if (rows == NULL)
        return fl_fail_memory(error);
    table->rows = rows;
    memcpy(rows + (size_t)table->count * table->sites, table->scratch, table->sites);
    *out = table->count++;
    return FL_OK;
}

/* The tier of direction j of module m into *tier, and in *end the first direction of another set.
 */
static enum fl_status tier_of_direction(const struct fl_rank_plan *plan, uint32_t m, uint32_t j,
                                        struct tier_table *table, uint32_t *tier, uint32_t *end,
                                        struct fl_error *error)
{
    uint32_t members = 0;

    *end = plan->global[m];
    for (uint32_t i = 0; i < plan->sites; i++) {
        uint32_t rank = plan->ranks[(size_t)i * plan->modules + m];
        table->scratch[i] = rank > j;
        members += rank > j;
        if (rank > j && rank < *end)
            *end = rank;
    }
    *tier = FL_SITE_UNKNOWN;
    return members == 0 ? FL_OK : find_tier(table, tier, error);
}

static enum fl_status transpose_tiers(struct fl_layout *self, const struct tier_table *table,
                                      struct fl_error *error)
{
    self->tier_count = table->count;
    self->tiers = fl_calloc((size_t)table->count * table->sites, 1);
    if (self->tiers == NULL)
        return fl_fail_memory(error);
    for (uint32_t t = 0; t < table->count; t++)
        for (uint32_t i = 0; i < table->sites; i++)
            self->tiers[(size_t)i * table->count + t] = table->rows[(size_t)t * table->sites + i];
    return FL_OK;
}

static enum fl_status fill_tiers(struct fl_layout *self, struct tier_table *table,
                                 struct fl_error *error)
{
    const struct fl_rank_plan *plan = &self->ranks;

    for (uint32_t m = 0; m < plan->modules; m++) {
        uint32_t *tier_of = self->tier_of + self->direction_start[m];
        for (uint32_t j = 0, end = 0; j < plan->global[m]; j = end) {
            uint32_t tier;
            enum fl_status status = tier_of_direction(plan, m, j, table, &tier, &end, error);
            if (status != FL_OK)
                return status;
            for (uint32_t k = j; k < end; k++)
                tier_of[k] = tier;
        }
    }
    return FL_OK;
}

static enum fl_status build_tiers(struct fl_layout *self, struct fl_error *error)
{
    const struct fl_rank_plan *plan = &self->ranks;
    struct tier_table table = {.sites = plan->sites};
    enum fl_status status = FL_OK;
    uint32_t directions = 0;

    self->direction_start = fl_calloc(plan->modules, sizeof *self->direction_start);
    if (self->direction_start == NULL)
        return fl_fail_memory(error);
    for (uint32_t m = 0; m < plan->modules; m++) {
        self->direction_start[m] = directions;
        directions += plan->global[m];
    }
    self->tier_of = fl_calloc(directions, sizeof *self->tier_of);
    table.scratch = fl_calloc(plan->sites, 1);
    if (self->tier_of == NULL || table.scratch == NULL) {
        status = fl_fail_memory(error);
        goto out;
    }
    if (self->factors != FL_FACTORS_NONE)
        status = fill_tiers(self, &table, error);
    if (status == FL_OK)
        status = transpose_tiers(self, &table, error);
out:
    fl_free(table.rows);
    fl_free(table.scratch);
    return status;
}

/* ---- creation ---- */

static enum fl_status begin_layout(const struct fl_inventory *targets,
                                   const struct fl_rank_plan *ranks, enum fl_factors factors,
                                   struct fl_ranges ranges, struct fl_layout **out,
                                   struct fl_error *error)
{
    struct fl_layout *self = fl_calloc(1, sizeof *self);
    enum fl_status status;

    *out = self;
    if (self == NULL)
        return fl_fail_memory(error);
    self->factors = factors;
    status = check_ranks(targets, ranks, error);
    if (status != FL_OK)
        return status;
    status = fl_rank_plan_create(&self->ranks, ranks->sites, ranks->modules);
    if (status != FL_OK)
        return fl_fail(error, status, "rank list: %s", fl_status_text(status));
    memcpy(self->ranks.global, ranks->global, ranks->modules * sizeof *ranks->global);
    memcpy(self->ranks.ranks, ranks->ranks,
           (size_t)ranks->sites * ranks->modules * sizeof *ranks->ranks);
    return build_segments(self, targets, ranges, error);
}

enum fl_status fl_layout_create(const struct fl_inventory *targets,
                                const struct fl_rank_plan *ranks, enum fl_factors factors,
                                struct fl_ranges ranges, struct fl_layout **out,
                                struct fl_error *error)
{
    enum fl_status status = begin_layout(targets, ranks, factors, ranges, out, error);

    if (status == FL_OK)
        status = build_tiers(*out, error);
    if (status != FL_OK) {
        fl_layout_destroy(out);
        return status;
    }
    (*out)->scalar_count = (*out)->tier_count + FL_SCALAR_COUNT;
    return FL_OK;
}

static enum fl_status take_tiers(struct fl_layout *self, const uint8_t *tiers, uint32_t tier_count,
                                 struct fl_error *error)
{
    uint32_t members = 0;

    if (tier_count > FL_LAYOUT_TIERS_MAX)
        return fl_fail(error, FL_ERANGE, "%u tiers exceed the limit of %d", tier_count,
                       FL_LAYOUT_TIERS_MAX);
    self->tiers = fl_calloc(tier_count, 1);
    if (self->tiers == NULL)
        return fl_fail_memory(error);
    for (uint32_t t = 0; t < tier_count; t++) {
        self->tiers[t] = tiers[t] != 0;
        members += tiers[t] != 0;
    }
    if (self->factors != FL_FACTORS_NONE && members == 0)
        return fl_fail(error, FL_EINVAL, "the site trains, but is in no tier");
    self->tier_count = tier_count;
    self->scalar_count = tier_count + FL_SCALAR_COUNT;
    return FL_OK;
}

enum fl_status fl_layout_create_site(const struct fl_inventory *targets, const uint16_t *global,
                                     const uint16_t *own, const uint8_t *tiers, uint32_t tier_count,
                                     enum fl_factors factors, struct fl_ranges ranges,
                                     struct fl_layout **out, struct fl_error *error)
{
    struct fl_rank_plan plan;
    enum fl_status status = fl_rank_plan_create(&plan, 1, targets->count);

    *out = NULL;
    if (status != FL_OK)
        return fl_fail(error, status, "rank list: %s", fl_status_text(status));
    memcpy(plan.global, global, targets->count * sizeof *global);
    memcpy(plan.ranks, own, targets->count * sizeof *own);
    status = begin_layout(targets, &plan, factors, ranges, out, error);
    if (status == FL_OK)
        status = take_tiers(*out, tiers, tier_count, error);
    fl_rank_plan_free(&plan);
    if (status != FL_OK)
        fl_layout_destroy(out);
    return status;
}

void fl_layout_destroy(struct fl_layout **self)
{
    if (*self == NULL)
        return;
    fl_rank_plan_free(&(*self)->ranks);
    fl_free((*self)->segments);
    fl_free((*self)->direction_start);
    fl_free((*self)->tier_of);
    fl_free((*self)->tiers);
    fl_free(*self);
    *self = NULL;
}

const uint8_t *fl_layout_site_tiers(const struct fl_layout *self, uint32_t site)
{
    assert(site < self->ranks.sites);
    return self->tiers + (size_t)site * self->tier_count;
}

uint64_t fl_layout_update_bytes(const struct fl_layout *self)
{
    return FL_UPDATE_HEADER_BYTES + 8ull * self->scalar_count + 4ull * self->elements;
}

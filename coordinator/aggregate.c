/*
 * aggregate.c - see aggregate.h.
 */
#include "coordinator/aggregate.h"

#include <math.h>

#include "base/alloc.h"

struct fl_aggregate {
    const struct fl_layout *layout;
    const struct fl_grid *grid;
    bool masked;
    bool spoiled; /* the sum holds a part of an update */
    bool open;    /* between begin and end */
    uint32_t sites;
    uint8_t *seen;     /* (layout->ranks.sites) */
    uint32_t *vector;  /* (layout->elements) */
    uint64_t *scalars; /* (layout->scalar_count) */
    struct fl_update_reader reader;
};

enum fl_status fl_aggregate_create(const struct fl_layout *layout, const struct fl_grid *grid,
                                   bool masked, struct fl_aggregate **out)
{
    struct fl_aggregate *self = fl_calloc(1, sizeof *self);

    *out = self;
    if (self == NULL)
        return FL_ENOMEM;
    self->layout = layout;
    self->grid = grid;
    self->masked = masked;
    self->seen = fl_calloc(layout->ranks.sites, 1);
    self->vector = fl_calloc(layout->elements, sizeof *self->vector);
    self->scalars = fl_calloc(layout->scalar_count, sizeof *self->scalars);
    if (self->seen == NULL || self->vector == NULL || self->scalars == NULL) {
        fl_aggregate_destroy(out);
        return FL_ENOMEM;
    }
    return FL_OK;
}

void fl_aggregate_destroy(struct fl_aggregate **self)
{
    if (*self == NULL)
        return;
    fl_free((*self)->seen);
    fl_free((*self)->vector);
    fl_free((*self)->scalars);
    fl_free(*self);
    *self = NULL;
}

static enum fl_status check_phase(const struct fl_aggregate *self, bool open,
                                  struct fl_error *error)
{
    if (self->spoiled)
        return fl_fail(error, FL_EINVAL, "the sum holds a broken update");
    if (self->open != open)
        return fl_fail(error, FL_EINVAL, "an update was %s", open ? "not begun" : "not ended");
    return FL_OK;
}

enum fl_status fl_aggregate_begin(struct fl_aggregate *self, uint32_t site, struct fl_error *error)
{
    enum fl_status status = check_phase(self, false, error);

    if (status != FL_OK)
        return status;
    if (site >= self->layout->ranks.sites)
        return fl_fail(error, FL_EINVAL, "site %u is not in the cohort", site);
    if (self->seen[site])
        return fl_fail(error, FL_EEXIST, "the update of site %u is summed already", site);
    self->seen[site] = 1;
    self->open = true;
    fl_update_reader_init(&self->reader, self->layout, self->grid,
                          self->masked ? FL_SITE_UNKNOWN : site, self->vector, self->scalars);
    return FL_OK;
}

enum fl_status fl_aggregate_push(struct fl_aggregate *self, const void *bytes, size_t length,
                                 struct fl_error *error)
{
    enum fl_status status = check_phase(self, true, error);

    if (status != FL_OK)
        return status;
    status = fl_update_reader_push(&self->reader, bytes, length, error);
    self->spoiled = status != FL_OK;
    return status;
}

enum fl_status fl_aggregate_end(struct fl_aggregate *self, struct fl_error *error)
{
    enum fl_status status = check_phase(self, true, error);

    if (status != FL_OK)
        return status;
    status = fl_update_reader_end(&self->reader, error);
    self->spoiled = status != FL_OK;
    self->open = false;
    self->sites++;
    return status;
}

uint32_t *fl_aggregate_vector(struct fl_aggregate *self)
{
    return self->vector;
}

uint64_t *fl_aggregate_scalars(struct fl_aggregate *self)
{
    return self->scalars;
}

/* ---- the end of a round ---- */

/* Guard bits: what cannot be the sum of that many sites proves a mask that did not cancel. */
static enum fl_status check_sums(const struct fl_aggregate *self, struct fl_error *error)
{
    const struct fl_layout *layout = self->layout;
    uint64_t sites = self->sites;

    for (uint64_t i = 0; i < layout->elements; i++)
        if (!fl_grid_holds(self->grid, self->vector[i], false))
            return fl_fail(error, FL_EFORMAT,
                           "the sum is beyond its guard bits: a mask did not cancel");
    for (uint32_t i = 0; i < layout->scalar_count; i++) {
        uint64_t bound = i < layout->tier_count ? self->grid->w_max : FL_SCALAR_MAX;
        if (self->scalars[i] > sites * bound)
            return fl_fail(error, FL_EFORMAT, "a summed scalar is beyond what %u sites can send",
                           self->sites);
    }
    return FL_OK;
}

static double mean_loss(uint64_t sum, uint64_t tokens)
{
    return tokens == 0 ? (double)NAN : (double)sum / FL_LOSS_SCALE / (double)tokens;
}

static void read_scalars(const struct fl_aggregate *self, struct fl_aggregate_result *result)
{
    const uint64_t *scalars = self->scalars + self->layout->tier_count;

    *result = (struct fl_aggregate_result){.sites = self->sites};
    for (uint32_t t = 0; t < self->layout->tier_count; t++)
        result->weight = self->scalars[t] > result->weight ? self->scalars[t] : result->weight;
    result->train_tokens = scalars[FL_SCALAR_TRAIN_TOKENS];
    result->train_loss = mean_loss(scalars[FL_SCALAR_TRAIN_LOSS], result->train_tokens);
    result->eval_tokens = scalars[FL_SCALAR_EVAL_TOKENS];
    result->eval_loss = mean_loss(scalars[FL_SCALAR_EVAL_LOSS], result->eval_tokens);
    result->cut = scalars[FL_SCALAR_CUT];
    result->values = scalars[FL_SCALAR_VALUES];
    if (result->values > 0)
        result->cut_fraction = (double)result->cut / (double)result->values;
    fl_update_sha256(self->layout, self->vector, self->scalars, result->sum_sha256);
}

static enum fl_status check_cut(const struct fl_layout *layout,
                                const struct fl_aggregate_result *result, struct fl_error *error)
{
    double range = 0.0;

    if (result->cut_fraction <= FL_CUT_FRACTION_MAX)
        return FL_OK;
    for (uint32_t s = 0; s < layout->segment_count; s++)
        range = layout->segments[s].range > range ? layout->segments[s].range : range;
    return fl_fail(
        error, FL_ERANGE,
        "%.2f %% of the update's values lay beyond the range %.6g and were cut (0.1 %% is "
        "allowed): set [privacy] update_range = %.6g or more",
        100.0 * result->cut_fraction, range, 4.0 * range);
}

static enum fl_status check_start(const struct fl_layout *layout, const struct fl_adapter *start,
                                  struct fl_error *error)
{
    if (start == NULL || start->count != layout->ranks.modules)
        return fl_fail(error, FL_EINVAL, "the round's adapter has other modules than its layout");
    for (uint32_t s = 0; s < layout->segment_count; s++) {
        const struct fl_segment *segment = &layout->segments[s];
        const struct fl_lora_module *module = &start->modules[segment->module];
        if (module->rank != segment->rank || !fl_segment_fits(segment, module))
            return fl_fail(error, FL_EINVAL, "%s: the adapter has another shape than the layout",
                           module->module.name);
    }
    return FL_OK;
}

/* values += mean of one segment; returns the squared norm of the mean. */
static double apply_segment(const struct fl_aggregate *self, const struct fl_segment *segment,
                            float *values)
{
    const struct fl_layout *layout = self->layout;
    const uint32_t *tier_of = layout->tier_of + layout->direction_start[segment->module];
    const uint32_t *sum = self->vector + segment->offset;
    double squares = 0.0;

    for (uint32_t row = 0; row < segment->rows; row++) {
        for (uint32_t column = 0; column < segment->columns; column++) {
            size_t i = (size_t)row * segment->columns + column;
            uint32_t tier = tier_of[fl_segment_direction(segment, row, column)];
            uint64_t weights = tier == FL_SITE_UNKNOWN ? 0 : self->scalars[tier];
            double mean = fl_grid_mean(self->grid, sum[i], segment->range, weights);
            values[i] = (float)((double)values[i] + mean);
            squares += mean * mean;
        }
    }
    return squares;
}

static enum fl_status apply(const struct fl_aggregate *self, const struct fl_adapter *start,
                            struct fl_adapter **out, double *norm, struct fl_error *error)
{
    enum fl_status status = check_start(self->layout, start, error);
    double squares = 0.0;

    if (status != FL_OK)
        return status;
    status = fl_adapter_copy(start, out);
    if (status != FL_OK)
        return fl_fail(error, status, "the next version: %s", fl_status_text(status));
    for (uint32_t s = 0; s < self->layout->segment_count; s++) {
        const struct fl_segment *segment = &self->layout->segments[s];
        struct fl_lora_module *module = &(*out)->modules[segment->module];
        squares += apply_segment(self, segment, fl_segment_part(segment, module).values);
    }
    *norm = sqrt(squares);
    return FL_OK;
}

enum fl_status fl_aggregate_finish(struct fl_aggregate *self, const struct fl_adapter *start,
                                   struct fl_adapter **out, struct fl_aggregate_result *result,
                                   struct fl_error *error)
{
    enum fl_status status = check_phase(self, false, error);

    if (out != NULL)
        *out = NULL;
    *result = (struct fl_aggregate_result){0};
    if (status != FL_OK)
        return status;
    if (self->sites == 0)
        return fl_fail(error, FL_EINVAL, "no update was summed");
    status = check_sums(self, error);
    if (status != FL_OK)
        return status;
    read_scalars(self, result);
    status = check_cut(self->layout, result, error);
    if (status != FL_OK || self->layout->segment_count == 0)
        return status;
    if (out == NULL)
        return fl_fail(error, FL_EINVAL, "a round that trains needs a place for its result");
    return apply(self, start, out, &result->delta_norm, error);
}

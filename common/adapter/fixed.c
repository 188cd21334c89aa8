/*
 * fixed.c - see fixed.h. Every formula is written in one fixed order of operations; only + - * / on
 * doubles are used, which IEEE 754 rounds correctly everywhere.
 */
#include "adapter/fixed.h"

#include <assert.h>
#include <math.h>

#include "base/buf.h"

#define FL_GRID_BITS 30 /* two guard bits below 32 */

static uint32_t ceil_log2(uint32_t n)
{
    uint32_t bits = 0;
    while (((uint32_t)1 << bits) < n)
        bits++;
    return bits;
}

/* min(limit, a * b) without overflow */
static uint64_t product_capped(uint64_t a, uint64_t b, uint64_t limit)
{
    if (b != 0 && a > limit / b)
        return limit;
    return a * b;
}

enum fl_status fl_grid_init(struct fl_grid *self, uint32_t sites, uint64_t weight_cap,
                            uint64_t steps, uint64_t batch_size, uint64_t seq_len)
{
    uint64_t tokens = product_capped(steps, batch_size, weight_cap);
    uint64_t w_max = product_capped(tokens, seq_len, weight_cap);

    if (sites == 0 || sites > FL_GRID_SITES_MAX || w_max == 0 || w_max > FL_SCALAR_MAX)
        return FL_EINVAL;
    self->sites = sites;
    self->bits = FL_GRID_BITS - ceil_log2(sites);
    self->q_max = ((int64_t)1 << (self->bits - 1)) - 1;
    self->w_max = w_max;
    return FL_OK;
}

int64_t fl_round_half_even(double x)
{
    int64_t whole = (int64_t)x; /* towards zero, always */
    double rest = x - (double)whole;
    int64_t away = rest < 0.0 ? -1 : 1;
    double size = rest < 0.0 ? -rest : rest;

    if (size > 0.5 || (size == 0.5 && whole % 2 != 0)) /* rest is exact below 2^52 */
        return whole + away;
    return whole;
}

uint32_t fl_grid_encode(const struct fl_grid *self, double x, double range, uint64_t weight,
                        uint64_t *cut)
{
    int64_t q;

    assert(range > 0.0 && weight <= self->w_max);
    if (!(x >= -range && x <= range)) {
        (*cut)++;
        if (isnan(x))
            return 0;
        x = x < 0.0 ? -range : range;
    }
    q = fl_round_half_even(x / range * (double)weight / (double)self->w_max * (double)self->q_max);
    if (q > self->q_max)
        q = self->q_max;
    if (q < -self->q_max)
        q = -self->q_max;
    return (uint32_t)(uint64_t)q;
}

/* The two's complement value of a ring element. */
static int64_t ring_value(uint32_t element)
{
    return element <= INT32_MAX ? (int64_t)element : (int64_t)element - ((int64_t)1 << 32);
}

double fl_grid_mean(const struct fl_grid *self, uint32_t sum, double range, uint64_t weights)
{
    if (weights == 0)
        return 0.0;
    return (double)ring_value(sum) * range * (double)self->w_max /
           ((double)self->q_max * (double)weights);
}

bool fl_grid_holds(const struct fl_grid *self, uint32_t sum, bool single)
{
    int64_t bound = single ? self->q_max : self->q_max * (int64_t)self->sites;
    int64_t value = ring_value(sum);

    return value >= -bound && value <= bound;
}

void fl_ring_add(uint32_t *sum, const void *bytes, size_t count)
{
    const uint8_t *from = bytes;
    for (size_t i = 0; i < count; i++)
        sum[i] += fl_load_u32(from + 4 * i);
}

void fl_ring_subtract(uint32_t *sum, const void *bytes, size_t count)
{
    const uint8_t *from = bytes;
    for (size_t i = 0; i < count; i++)
        sum[i] -= fl_load_u32(from + 4 * i);
}

enum fl_status fl_auto_range(enum fl_update_rule rule, double lr, uint64_t steps,
                             double weight_decay, double grad_clip, double max_abs, double *out,
                             struct fl_error *error)
{
    double moved = lr * (double)steps; /* every step at full rate */

    *out = 0.0;
    if (!(lr > 0.0) || steps == 0)
        return fl_fail(error, FL_EINVAL,
                       "update_range = auto needs a learning rate above 0: set a number");
    if (rule == FL_RULE_SGD && !(grad_clip > 0.0))
        return fl_fail(error, FL_EINVAL,
                       "update_range = auto with optimizer = sgd needs grad_clip > 0: set "
                       "grad_clip, or update_range to a number");
    double step = rule == FL_RULE_SGD ? moved * grad_clip : 2.0 * moved;
    double range = step + moved * weight_decay * (max_abs + step);

    if (!isfinite(range) || !(range > 0.0))
        return fl_fail(error, FL_EINVAL, "update_range = auto gives no finite range: set a number");
    *out = range;
    return FL_OK;
}

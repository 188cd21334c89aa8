/*
 * strategy.c - see strategy.h.
 */
#include "job/strategy.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "adapter/algebra.h"
#include "base/alloc.h"

static const struct fl_strategy_info strategies[FL_STRATEGY_COUNT] = {
    /* name, odd, even, refactors, exact, needs_single, built */
    [FL_STRATEGY_ALTERNATING] = {"alternating", FL_FACTOR_B, FL_FACTOR_A, true, true, false, true},
    [FL_STRATEGY_ROLORA] = {"rolora", FL_FACTOR_B, FL_FACTOR_A, false, true, false, true},
    [FL_STRATEGY_FFA] = {"ffa", FL_FACTOR_B, FL_FACTOR_B, false, true, false, true},
    [FL_STRATEGY_FEDIT] = {"fedit", FL_FACTORS_BOTH, FL_FACTORS_BOTH, false, false, false, true},
    [FL_STRATEGY_FLEXLORA] = {"flexlora", FL_FACTORS_BOTH, FL_FACTORS_BOTH, true, false, true,
                              false},
    [FL_STRATEGY_FLORA] = {"flora", FL_FACTORS_BOTH, FL_FACTORS_BOTH, true, true, true, false},
    [FL_STRATEGY_FEDEX] = {"fedex", FL_FACTORS_BOTH, FL_FACTORS_BOTH, true, true, true, false},
};

const struct fl_strategy_info *fl_strategy_info(enum fl_strategy strategy)
{
    assert((unsigned)strategy < FL_STRATEGY_COUNT);
    return &strategies[strategy];
}

enum fl_status fl_strategy_find(const char *name, enum fl_strategy *out)
{
    for (unsigned i = 0; i < FL_STRATEGY_COUNT; i++) {
        if (strcmp(strategies[i].name, name) == 0) {
            *out = (enum fl_strategy)i;
            return FL_OK;
        }
    }
    return FL_ENOTFOUND;
}

enum fl_factors fl_strategy_factors(enum fl_strategy strategy, uint32_t round)
{
    const struct fl_strategy_info *info = fl_strategy_info(strategy);
    return round % 2 == 1 ? info->odd : info->even;
}

enum fl_status fl_strategy_first(const struct fl_inventory *targets, const uint16_t *ranks,
                                 uint32_t rank, double alpha, double dropout, uint64_t seed,
                                 struct fl_adapter **out, struct fl_error *error)
{
    uint32_t *wide = fl_calloc(targets->count, sizeof *wide);
    enum fl_status status;

    *out = NULL;
    if (wide == NULL)
        return fl_fail_memory(error);
    for (uint32_t m = 0; m < targets->count; m++)
        wide[m] = ranks[m];
    status = fl_adapter_create(targets, rank, alpha, wide, out, error);
    fl_free(wide);
    if (status != FL_OK)
        return status;
    (*out)->dropout = dropout;
    fl_adapter_init(*out, seed);
    return FL_OK;
}

/* Which factor must not be zero in a new direction: the frozen one; A where both are trained. */
static enum fl_factors seeded_factor(enum fl_factors trained)
{
    return trained == FL_FACTOR_A ? FL_FACTOR_B : FL_FACTOR_A;
}

/* Directions from `from` on: Gaussians with the variance of PEFT's start, 1 / (3 in). */
static enum fl_status seed_directions(struct fl_lora_module *module, uint32_t from,
                                      enum fl_factors factor, uint64_t seed, uint32_t round)
{
    size_t width = factor == FL_FACTOR_A ? module->module.in : module->module.out;
    double deviation = 1.0 / sqrt(3.0 * (double)width);
    double *values = fl_calloc(width, sizeof *values);

    if (values == NULL)
        return FL_ENOMEM;
    for (uint32_t j = from; j < module->rank; j++) {
        fl_gaussians(seed, round, module->module.name, j, width, values);
        for (size_t i = 0; i < width; i++) {
            float *to = factor == FL_FACTOR_A ? &module->a[j * width + i]
                                              : &module->b[i * module->rank + j];
            *to = (float)(values[i] * deviation);
        }
    }
    fl_free(values);
    return FL_OK;
}

static enum fl_status start_module(const struct fl_strategy_info *info, enum fl_factors trained,
                                   uint64_t seed, uint32_t round, const struct fl_lora_module *from,
                                   struct fl_lora_module *to, struct fl_start_result *result,
                                   struct fl_error *error)
{
    struct fl_refactor_result refactored;
    enum fl_status status;

    if (!info->refactors) {
        if (to->rank < from->rank)
            return fl_fail(error, FL_EINVAL, "%s cannot shrink %s from rank %u to %u", info->name,
                           from->module.name, from->rank, to->rank);
        status = seed_directions(to, from->rank, seeded_factor(trained), seed, round);
    } else {
        status = fl_refactor(from, seeded_factor(trained), seed, round, to, &refactored);
        result->energy += refactored.energy;
        result->energy_lost += refactored.energy_lost;
    }
    if (status != FL_OK)
        return fl_fail(error, status, "preparing %s for round %u: %s", from->module.name, round,
                       fl_status_text(status));
    return FL_OK;
}

enum fl_status fl_strategy_start(enum fl_strategy strategy, uint64_t seed, uint32_t round,
                                 const struct fl_adapter *previous, const struct fl_rank_plan *plan,
                                 struct fl_adapter **out, struct fl_start_result *result,
                                 struct fl_error *error)
{
    const struct fl_strategy_info *info = fl_strategy_info(strategy);
    enum fl_factors trained = fl_strategy_factors(strategy, round);
    struct fl_start_result total = {0};
    enum fl_status status;

    *out = NULL;
    if (previous->count != plan->modules)
        return fl_fail(error, FL_EINVAL, "the rank list names %u modules, the adapter has %u",
                       plan->modules, previous->count);
    status = fl_adapter_prefix(previous, plan->global, out);
    if (status != FL_OK)
        return fl_fail(error, status, "preparing round %u: %s", round, fl_status_text(status));
    for (uint32_t m = 0; m < previous->count && status == FL_OK; m++)
        status = start_module(info, trained, seed, round, &previous->modules[m],
                              &(*out)->modules[m], &total, error);
    if (status != FL_OK)
        fl_adapter_destroy(out);
    else if (result != NULL)
        *result = total;
    return status;
}

/*
 * shape.c - adapters of the same modules at other ranks: prefixes, differences, the largest value.
 * DoRA's magnitudes belong to the product of all ranks: with them the ranks must stay. Declared in
 * algebra.h.
 */
#include <math.h>
#include <string.h>

#include "adapter/algebra.h"
#include "base/alloc.h"

/* Would a module get another rank? */
static bool reshapes(const struct fl_adapter *self, const uint16_t *ranks)
{
    for (uint32_t m = 0; ranks != NULL && m < self->count; m++) {
        if (ranks[m] != self->modules[m].rank)
            return true;
    }
    return false;
}

/* As self, with other ranks and A = B = m = 0; the scale of each module stays. */
static enum fl_status create_like(const struct fl_adapter *self, const uint16_t *ranks,
                                  struct fl_adapter **out)
{
    struct fl_inventory targets = {.modules = fl_calloc(self->count, sizeof *targets.modules),
                                   .count = self->count,
                                   .layers = self->layers};
    uint32_t *wide = fl_calloc(self->count, sizeof *wide);
    enum fl_status status = FL_ENOMEM;
    struct fl_error error;

    *out = NULL;
    if (self->use_dora && reshapes(self, ranks)) {
        status = FL_EINVAL;
        goto out;
    }
    if (targets.modules == NULL || wide == NULL)
        goto out;
    for (uint32_t m = 0; m < self->count; m++) {
        targets.modules[m] = self->modules[m].module;
        wide[m] = ranks == NULL ? self->modules[m].rank : ranks[m];
    }
    status = fl_adapter_create(&targets, self->rank, self->alpha, wide, out, &error);
    if (status != FL_OK)
        goto out;
    (*out)->use_rslora = self->use_rslora;
    (*out)->dropout = self->dropout;
    memcpy((*out)->base_model, self->base_model, sizeof self->base_model);
    for (uint32_t m = 0; m < self->count; m++) {
        double rank = (double)wide[m];
        bool same = wide[m] == self->modules[m].rank;
        double scale = fl_adapter_scale(self, m);
        (*out)->modules[m].alpha = same               ? self->modules[m].alpha
                                   : self->use_rslora ? scale * sqrt(rank)
                                                      : scale * rank;
    }
    if (self->use_dora)
        status = fl_adapter_add_magnitudes(*out);
    if (status != FL_OK)
        fl_adapter_destroy(out);
out:
    fl_free(targets.modules);
    fl_free(wide);
    return status;
}

enum fl_status fl_adapter_prefix(const struct fl_adapter *self, const uint16_t *ranks,
                                 struct fl_adapter **out)
{
    enum fl_status status = create_like(self, ranks, out);

    if (status != FL_OK)
        return status;
    for (uint32_t m = 0; m < self->count; m++) {
        const struct fl_lora_module *from = &self->modules[m];
        struct fl_lora_module *to = &(*out)->modules[m];
        size_t common = from->rank < to->rank ? from->rank : to->rank;

        memcpy(to->a, from->a, common * from->module.in * sizeof *to->a);
        for (size_t i = 0; i < from->module.out; i++)
            memcpy(to->b + i * to->rank, from->b + i * from->rank, common * sizeof *to->b);
        if (from->m != NULL)
            memcpy(to->m, from->m, from->module.out * sizeof *to->m);
    }
    return FL_OK;
}

enum fl_status fl_adapter_subtract(const struct fl_adapter *after, const struct fl_adapter *before,
                                   struct fl_adapter **out)
{
    enum fl_status status;

    *out = NULL;
    if (after->count != before->count || after->use_dora != before->use_dora)
        return FL_EINVAL;
    for (uint32_t m = 0; m < after->count; m++) {
        const struct fl_lora_module *x = &after->modules[m], *y = &before->modules[m];
        if (x->rank != y->rank || x->module.in != y->module.in || x->module.out != y->module.out)
            return FL_EINVAL;
    }
    status = create_like(after, NULL, out);
    if (status != FL_OK)
        return status;
    for (uint32_t m = 0; m < after->count; m++) {
        const struct fl_lora_module *x = &after->modules[m], *y = &before->modules[m];
        struct fl_lora_module *to = &(*out)->modules[m];
        for (size_t i = 0; i < (size_t)x->rank * x->module.in; i++)
            to->a[i] = x->a[i] - y->a[i];
        for (size_t i = 0; i < (size_t)x->rank * x->module.out; i++)
            to->b[i] = x->b[i] - y->b[i];
        for (size_t i = 0; x->m != NULL && i < x->module.out; i++)
            to->m[i] = x->m[i] - y->m[i];
    }
    return FL_OK;
}

double fl_adapter_max_abs(const struct fl_adapter *self, enum fl_factors factor)
{
    double largest = 0.0;

    for (uint32_t m = 0; m < self->count; m++) {
        const struct fl_lora_module *module = &self->modules[m];
        const struct fl_segment whole = {.factor = factor,
                                         .rows = module->module.out,
                                         .columns = factor == FL_FACTOR_A ? module->module.in : 1};
        const struct fl_segment_part part = fl_segment_part(&whole, module);
        for (size_t i = 0; part.values != NULL && i < (size_t)part.rows * part.columns; i++) {
            double size = fabs((double)part.values[i]);
            largest = size > largest ? size : largest;
        }
    }
    return largest;
}

/* bind.c - an engine's adapter against its model: which linear each module is, and where gradients
 * stop. */
#include <string.h>

#include "worker/engine/dora.h"
#include "worker/engine/engine_internal.h"

/* Position of a module in the model's inventory, or its count. */
static uint32_t find_module(const struct fl_model *model, const struct fl_module *module)
{
    const struct fl_inventory *inventory = &model->inventory;
    if (module->layer >= model->config.layers)
        return inventory->count;
    const uint32_t low = module->layer * model->kind_count;
    for (uint32_t i = low; i < inventory->count && i < low + model->kind_count; i++)
        if (strcmp(inventory->modules[i].name, module->name) == 0)
            return i;
    return inventory->count;
}

static void bind_base(struct fl_engine *self)
{
    for (uint32_t l = 0; l < self->layers; l++) {
        const struct fl_block *from = &self->model->blocks[l];
        struct fl_engine_block *to = &self->blocks[l];
        to->base = from;
        to->window = fl_model_window(self->model, l);
        to->near = to->window && self->model->near.theta > 0.0;
        for (uint32_t i = 0; i < self->model->kind_count; i++) {
            const enum fl_linear_kind kind = self->model->kinds[i];
            const struct fl_weight *weight = &self->model->weights[from->linears[kind]];
            to->linears[kind] = (struct fl_linear){.weight = weight,
                                                   .bias = from->bias[kind],
                                                   .out = weight->rows,
                                                   .in = weight->columns};
        }
    }
}

static enum fl_status bind_module(struct fl_engine *self, uint32_t index, struct fl_error *error)
{
    const struct fl_lora_module *from = &self->adapter->modules[index];
    uint32_t at = find_module(self->model, &from->module);
    const struct fl_model *model = self->model;
    const enum fl_linear_kind kind = model->kinds[at % model->kind_count];
    struct fl_linear *to = &self->blocks[at / model->kind_count].linears[kind];
    if (to->rank)
        return fl_fail(error, FL_EINVAL, "the adapter names %s twice", from->module.name);
    to->rank = from->rank;
    to->a = from->a;
    to->b = from->b;
    to->scale = (float)fl_adapter_scale(self->adapter, index);
    to->dropout = self->adapter->dropout;
    to->index = index;
    if (from->m) {
        to->m = from->m;
        to->norm = self->dora[index];
        to->factor = self->dora[index] + to->out;
        to->z = self->blocks[at / model->kind_count].slot->z[kind];
    }
    if (self->options.train) {
        to->dm = self->gradients[index].m;
        to->da = self->gradients[index].a;
        to->db = self->gradients[index].b;
    }
    return FL_OK;
}

enum fl_status fl_engine_check_adapter(struct fl_engine *self, struct fl_error *error)
{
    const struct fl_adapter *adapter = self->adapter;
    self->lowest = self->layers = self->model->config.layers;
    for (uint32_t i = 0; adapter && i < adapter->count; i++) {
        const struct fl_lora_module *m = &adapter->modules[i];
        uint32_t at = find_module(self->model, &m->module);
        if (at == self->model->inventory.count)
            return fl_fail(error, FL_EINVAL, "the model has no linear %s", m->module.name);
        const struct fl_module *base = &self->model->inventory.modules[at];
        if (base->in != m->module.in || base->out != m->module.out || m->rank < 1)
            return fl_fail(error, FL_EINVAL,
                           "%s is (%u, %u) in the model but (%u, %u) in the adapter",
                           m->module.name, base->out, base->in, m->module.out, m->module.in);
        const enum fl_linear_kind kind = self->model->kinds[at % self->model->kind_count];
        if (m->m)
            self->dora_out[kind] = m->module.out;
        self->max_rank = m->rank > self->max_rank ? m->rank : self->max_rank;
        if (self->options.train && m->module.layer < self->lowest)
            self->lowest = m->module.layer;
    }
    return FL_OK;
}

void fl_engine_refresh(struct fl_engine *self)
{
    for (uint32_t l = 0; self->adapter && self->adapter->use_dora && l < self->layers; l++)
        for (uint32_t i = 0; i < FL_LINEAR_COUNT; i++)
            if (self->blocks[l].linears[i].m)
                fl_dora_factors(&self->work, &self->blocks[l].linears[i]);
}

enum fl_status fl_engine_bind(struct fl_engine *self, struct fl_error *error)
{
    bind_base(self);
    for (uint32_t i = 0; self->adapter && i < self->adapter->count; i++) {
        enum fl_status status = bind_module(self, i, error);
        if (status)
            return status;
    }
    return FL_OK;
}

/* model.c - see model.h: the parts that both file forms share. */
#include "worker/engine/model.h"

#include "base/alloc.h"
#include "format/hfcache.h"
#include "format/nf4.h"
#include "worker/engine/model_internal.h"

enum { HEAD_DIM_MAX = 1024 };

const struct fl_model_config *fl_model_config(const struct fl_model *self)
{
    return &self->config;
}

const struct fl_inventory *fl_model_inventory(const struct fl_model *self)
{
    return &self->inventory;
}

uint64_t fl_model_parameters(const struct fl_model *self)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < self->weight_count; i++)
        total += (uint64_t)self->weights[i].rows * self->weights[i].columns;
    return total;
}

uint64_t fl_model_bytes(const struct fl_model *self)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < self->weight_count; i++) {
        const struct fl_weight *w = &self->weights[i];
        if (!w->data && !w->values)
            continue;
        total += w->nf4      ? fl_nf4_bytes(w->nf4)
                 : w->values ? (uint64_t)w->rows * w->columns * sizeof(float)
                             : w->rows * (uint64_t)fl_dtype_row_bytes(w->dtype, w->columns);
    }
    return total;
}

uint32_t fl_model_weight_count(const struct fl_model *self)
{
    return self->weight_count;
}

const struct fl_weight *fl_model_weight(const struct fl_model *self, uint32_t index)
{
    return index < self->weight_count ? &self->weights[index] : NULL;
}

const struct fl_weight *fl_model_module_weight(const struct fl_model *self, uint32_t index)
{
    if (index >= self->inventory.count)
        return NULL;
    const struct fl_block *block = &self->blocks[index / self->kind_count];
    return &self->weights[block->linears[self->kinds[index % self->kind_count]]];
}

uint32_t fl_model_window(const struct fl_model *self, uint32_t layer)
{
    const struct fl_model_config *c = &self->config;
    const bool open = c->sliding_period && (layer + 1) % c->sliding_period == 0;
    return layer < c->sliding_from || open ? 0 : c->sliding_window;
}

double fl_model_implied_scalar(const struct fl_model *self)
{
    const struct fl_model_config *c = &self->config;
    return c->layers == self->arch->broad_layers ? (double)c->hidden / c->heads
                                                 : (double)c->head_dim;
}

static bool within(uint32_t value, uint32_t low, uint32_t high)
{
    return value >= low && value <= high;
}

/* Also false for what is no number. */
static bool between(double value, double low, double high)
{
    return value >= low && value <= high;
}

/* Far beyond any model's settings, and so that every frequency and length is a finite float. */
static enum fl_status check_rope(const struct fl_rope *r, const char *path, struct fl_error *error)
{
    if (!between(r->theta, 1.0, 1e30))
        return fl_fail(error, FL_EFORMAT, "%s: rope theta is out of range", path);
    if (r->kind != FL_ROPE_DEFAULT && !between(r->factor, 1e-6, 1e6))
        return fl_fail(error, FL_EFORMAT, "%s: the rope factor is out of range", path);
    if (r->kind == FL_ROPE_YARN &&
        !(r->theta > 1.0 && between(r->original_positions, 1.0, 1e9) &&
          between(r->slow, 1e-6, r->fast) && r->fast <= 1e9 && between(r->attention, 1e-6, 1e6)))
        return fl_fail(error, FL_EFORMAT, "%s: the yarn rope settings make no sense", path);
    if (r->kind == FL_ROPE_LLAMA3 && !(between(r->low, 1e-9, r->high) && r->high > r->low &&
                                       r->high <= 1e9 && between(r->original_positions, 1.0, 1e9)))
        return fl_fail(error, FL_EFORMAT, "%s: the llama3 rope settings make no sense", path);
    return FL_OK;
}

static enum fl_status check_rotation(const struct fl_model *self, const char *path,
                                     struct fl_error *error)
{
    const struct fl_model_config *c = &self->config;
    if (c->head_dim % 2 != 0)
        return fl_fail(error, FL_EFORMAT, "%s: head_dim %u is odd", path, c->head_dim);
    if (!(c->norm_epsilon >= 0.0 && c->norm_epsilon < 1.0))
        return fl_fail(error, FL_EFORMAT, "%s: norm epsilon is out of range", path);
    if (self->arch->gemma && (!between(c->query_scalar, 1e-3, 1e6) ||
                              (c->score_cap != 0.0 && !between(c->score_cap, 1e-3, 1e6)) ||
                              (c->logit_cap != 0.0 && !between(c->logit_cap, 1e-3, 1e6))))
        return fl_fail(error, FL_EFORMAT, "%s: query_pre_attn_scalar or a soft cap is out of range",
                       path);
    enum fl_status status = check_rope(&self->rope, path, error);
    return status || !(self->arch->near_theta > 0.0) ? status
                                                     : check_rope(&self->near, path, error);
}

enum fl_status fl_model_check_config(const struct fl_model *self, const char *path,
                                     struct fl_error *error)
{
    const struct fl_model_config *c = &self->config;
    if (!within(c->hidden, 1, FL_DIM_MAX) || !within(c->ffn, 1, FL_DIM_MAX) ||
        !within(c->layers, 1, FL_LAYERS_MAX) || !within(c->vocab, 1, FL_VOCAB_MAX) ||
        !within(c->heads, 1, FL_DIM_MAX) || !within(c->kv_heads, 1, c->heads) ||
        !within(c->head_dim, 2, HEAD_DIM_MAX) || (uint64_t)c->heads * c->head_dim > FL_DIM_MAX ||
        (fl_arch_joins_qkv(self->arch) && 3ull * c->heads * c->head_dim > FL_DIM_MAX) ||
        (fl_arch_joins_gate(self->arch) && 2ull * c->ffn > FL_DIM_MAX) ||
        c->layers * FL_LINEAR_COUNT > FL_MODULES_MAX)
        return fl_fail(error, FL_EFORMAT, "%s: a size in the configuration is out of range", path);
    if (c->heads % c->kv_heads != 0)
        return fl_fail(error, FL_EFORMAT, "%s: %u key heads do not divide %u heads", path,
                       c->kv_heads, c->heads);
    if (self->arch->names->positions.hf) /* no rotation */
        return c->norm_epsilon >= 0.0 && c->norm_epsilon < 1.0 &&
                       within(c->max_positions, 1, FL_SEQ_MAX)
                   ? FL_OK
                   : fl_fail(error, FL_EFORMAT, "%s: norm epsilon or positions are out of range",
                             path);
    return check_rotation(self, path, error);
}

static void free_parts(struct fl_model *self)
{
    fl_inventory_free(&self->inventory);
    for (uint32_t i = 0; i < self->weight_count; i++)
        fl_weight_free(&self->weights[i]);
    fl_free(self->weights);
    fl_free(self->blocks);
    fl_free(self->divisors);
    fl_safetensors_close(&self->tensors);
    fl_gguf_close(&self->gguf);
}

void fl_model_close(struct fl_model **self)
{
    if (!*self)
        return;
    free_parts(*self);
    fl_free(*self);
    *self = NULL;
}

enum fl_status fl_model_open(const char *name, struct fl_model **out, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    *out = NULL;
    enum fl_status status = fl_hfcache_find(name, path, error);
    if (status)
        return status;
    struct fl_model *self = fl_calloc(1, sizeof *self);
    if (!self)
        return fl_fail_memory(error);
    self->config.bos_id = self->config.eos_id = -1;
    status = fl_path_is_directory(path) ? fl_model_open_hf(self, path, error)
                                        : fl_model_open_gguf(self, path, error);
    if (status) {
        fl_model_close(&self);
        return status;
    }
    *out = self;
    return FL_OK;
}

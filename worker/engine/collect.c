/* collect.c - every weight of a model by its Hugging Face name, shapes held against the
 * configuration; the blocks and the inventory that follow from them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "format/nf4.h"
#include "worker/engine/model_internal.h"

/* (out, in) of one linear kind. */
static void linear_shape(const struct fl_model *m, enum fl_linear_kind kind, uint32_t *out,
                         uint32_t *in)
{
    const struct fl_model_config *c = &m->config;
    const uint32_t wq = c->heads * c->head_dim, wk = c->kv_heads * c->head_dim;
    const uint32_t first = fl_arch_joins_qkv(m->arch) ? wq + 2 * wk : wq;
    const uint32_t gate = fl_arch_joins_gate(m->arch) ? 2 * c->ffn : c->ffn;
    const uint32_t outs[FL_LINEAR_COUNT] = {first, wk, wk, c->hidden, gate, c->ffn, c->hidden};
    *out = outs[kind];
    *in = kind == FL_LINEAR_O ? wq : kind == FL_LINEAR_DOWN ? c->ffn : c->hidden;
}

/* What collecting one model needs at every step. */
struct collector {
    struct fl_model *model;
    fl_tensor_finder find;
    struct fl_error *error;
};

/* The tensor `name` of exactly this shape becomes weights[*index]; rows = 0: a vector. */
static enum fl_status collect(const struct collector *c, uint32_t rows, uint32_t columns,
                              const char *name, uint32_t *index)
{
    struct fl_model *m = c->model;
    struct fl_tensor_view view;
    enum fl_status status = c->find(m, name, &view, c->error);
    if (status)
        return status;
    const bool vector = rows == 0;
    struct fl_weight *w = &m->weights[m->weight_count];
    if (!vector &&
        (status = fl_weight_find_nf4(m, name, rows, columns, w, c->error)) != FL_ENOTFOUND) {
        *index = m->weight_count;
        m->weight_count += status == FL_OK;
        return status;
    }
    const bool right = vector ? view.rank == 1 && view.shape[0] == columns
                              : view.rank == 2 && view.shape[0] == rows && view.shape[1] == columns;
    if (!right)
        return fl_fail(c->error, FL_EFORMAT, "%s: its shape does not fit the configuration", name);
    if (!fl_dtype_is_float(view.dtype) || columns % fl_dtype_block_values(view.dtype) != 0)
        return fl_fail(c->error, FL_EFORMAT, "%s: its stored type is not supported", name);
    *w = (struct fl_weight){.dtype = view.dtype,
                            .rows = vector ? 1 : rows,
                            .columns = columns,
                            .data = view.data,
                            .vector = vector};
    (void)snprintf(w->name, sizeof w->name, "%s", name);
    *index = m->weight_count++;
    return FL_OK;
}

/* A vector, and its values as float32 in the model's own block. */
static enum fl_status collect_vector(const struct collector *c, uint32_t n, uint32_t interleave,
                                     const char *name, const float **out)
{
    struct fl_model *m = c->model;
    uint32_t index;
    enum fl_status status = collect(c, 0, n, name, &index);
    if (status)
        return status;
    struct fl_weight *w = &m->weights[index];
    if (interleave) {
        w->interleave = interleave;
        w->rows = n;
        w->columns = 1;
    }
    w->values = fl_calloc_aligned(n, sizeof *w->values);
    if (!w->values)
        return fl_fail_memory(c->error);
    fl_weight_widen(w, 0, w->rows, w->values);
    *out = w->values;
    return FL_OK;
}

/* "model.layers.3." + part + suffix */
static void block_name(const struct fl_model *m, uint32_t layer, const char *part,
                       const char *suffix, char name[FL_MODULE_NAME_BYTES])
{
    (void)snprintf(name, FL_MODULE_NAME_BYTES, "%s.%u.%s%s", m->arch->names->block.hf, layer, part,
                   suffix);
}

/* Four bits of a linear that is stored the other way round: which way
 * its quantised form lies is nothing that the file says. */
static enum fl_status refuse_nf4(const struct collector *c, const char *name)
{
    struct fl_nf4 found;
    if (fl_nf4_find(c->model->tensors, name, &found, c->error) == FL_ENOTFOUND)
        return FL_OK;
    return fl_fail(c->error, FL_EFORMAT,
                   "%s: stored NF4 is not supported of this architecture; open the model that it "
                   "was made of, with --quantize nf4",
                   name);
}

static enum fl_status collect_linear(const struct collector *c, uint32_t layer,
                                     enum fl_linear_kind kind)
{
    struct fl_model *m = c->model;
    struct fl_block *block = &m->blocks[layer];
    struct fl_module *module = &m->inventory.modules[m->inventory.count++];
    const char *part = m->arch->names->linears[kind].hf;
    char name[FL_MODULE_NAME_BYTES];
    module->layer = layer;
    linear_shape(m, kind, &module->out, &module->in);
    block_name(m, layer, part, "", module->name);
    block_name(m, layer, part, ".weight", name);
    const bool turned = m->arch->turned && m->tensors;
    enum fl_status status = turned ? refuse_nf4(c, name) : FL_OK;
    if (!status)
        status = collect(c, turned ? module->in : module->out, turned ? module->out : module->in,
                         name, &block->linears[kind]);
    if (!status && turned)
        status = fl_weight_turn(&m->weights[block->linears[kind]], c->error);
    if (status)
        return status;
    const bool rotated = kind == FL_LINEAR_Q || kind == FL_LINEAR_K;
    const uint32_t interleave = m->interleaved && rotated ? m->config.head_dim : 0;
    m->weights[block->linears[kind]].interleave = interleave;
    if (!m->biases[kind])
        return FL_OK;
    block_name(m, layer, part, ".bias", name);
    return collect_vector(c, module->out, interleave, name, &block->bias[kind]);
}

/* The norm of module `name` over n values. */
static enum fl_status collect_norm(const struct collector *c, const char *module, uint32_t n,
                                   struct fl_norm *out)
{
    const struct fl_model *m = c->model;
    char name[FL_MODULE_NAME_BYTES + sizeof ".weight"];
    out->epsilon = m->config.norm_epsilon;
    (void)snprintf(name, sizeof name, "%s.weight", module);
    const uint32_t index = m->weight_count;
    enum fl_status status = collect_vector(c, n, 0, name, &out->weight);
    for (uint32_t i = 0; !status && m->arch->gemma && m->tensors && i < n;
         i++) /* GGUF has it whole */
        m->weights[index].values[i] += 1.0f;
    (void)snprintf(name, sizeof name, "%s.bias", module);
    return status || !m->arch->layer_norm ? status : collect_vector(c, n, 0, name, &out->bias);
}

static enum fl_status collect_block(const struct collector *c, uint32_t layer)
{
    const struct fl_model *m = c->model;
    const struct fl_arch_names *names = m->arch->names;
    const uint32_t hidden = m->config.hidden, head_dim = m->config.head_dim;
    struct fl_block *block = &m->blocks[layer];
    const struct {
        const struct fl_name *name;
        uint32_t n;
        struct fl_norm *out;
    } norms[] = {
        {&names->norm1, hidden, &block->norm1},     {&names->norm2, hidden, &block->norm2},
        {&names->post1, hidden, &block->post1},     {&names->post2, hidden, &block->post2},
        {&names->q_norm, head_dim, &block->q_norm}, {&names->k_norm, head_dim, &block->k_norm}};
    enum fl_status status = FL_OK;
    char module[FL_MODULE_NAME_BYTES];
    for (size_t i = 0; !status && i < sizeof norms / sizeof *norms; i++) {
        if (!norms[i].name->hf)
            continue;
        block_name(m, layer, norms[i].name->hf, "", module);
        status = collect_norm(c, module, norms[i].n, norms[i].out);
    }
    for (uint32_t i = 0; !status && i < m->kind_count; i++)
        status = collect_linear(c, layer, m->kinds[i]);
    return status;
}

/* Tables by the number of layers only: what a vector or matrix takes is allocated where the file
 * was seen to hold it. */
static enum fl_status allocate(struct fl_model *m, struct fl_error *error)
{
    enum { TOP = 5, NORMS = 6 }; /* embedding, positions, norm and its bias, head; of a block */
    const size_t layers = m->config.layers;
    m->kind_count = 0;
    for (enum fl_linear_kind k = 0; k < FL_LINEAR_COUNT; k++)
        if (m->arch->names->linears[k].hf)
            m->kinds[m->kind_count++] = k;
    m->weights = fl_calloc(TOP + layers * 2 * (NORMS + FL_LINEAR_COUNT), sizeof *m->weights);
    m->blocks = fl_calloc(layers, sizeof *m->blocks);
    m->inventory.modules = fl_calloc(layers * FL_LINEAR_COUNT, sizeof *m->inventory.modules);
    return m->weights && m->blocks && m->inventory.modules ? FL_OK : fl_fail_memory(error);
}

static enum fl_status collect_positions(const struct collector *c)
{
    struct fl_model *m = c->model;
    char name[FL_MODULE_NAME_BYTES];
    (void)snprintf(name, sizeof name, "%s.weight", m->arch->names->positions.hf);
    return collect(c, m->config.max_positions, m->config.hidden, name, &m->positions);
}

/* The head is the embedding when the model says so, or when the file holds no head of its own. */
static enum fl_status collect_head(const struct collector *c)
{
    struct fl_model *m = c->model;
    m->head = 0;
    if (m->config.tied)
        return FL_OK;
    char name[FL_MODULE_NAME_BYTES];
    (void)snprintf(name, sizeof name, "%s.weight", m->arch->names->head.hf);
    enum fl_status status = collect(c, m->config.vocab, m->config.hidden, name, &m->head);
    if (status != FL_ENOTFOUND)
        return status;
    m->config.tied = true;
    return FL_OK;
}

enum fl_status fl_model_collect(struct fl_model *self, fl_tensor_finder find,
                                struct fl_error *error)
{
    const struct collector c = {self, find, error};
    const struct fl_model_config *config = &self->config;
    const struct fl_arch_names *names = self->arch->names;
    char name[FL_MODULE_NAME_BYTES];
    uint32_t index;
    enum fl_status status = allocate(self, error);
    self->embedding_scale = self->arch->gemma ? sqrtf((float)config->hidden) : 0.0f;
    (void)snprintf(name, sizeof name, "%s.weight", names->embedding.hf);
    if (!status)
        status = collect(&c, config->vocab, config->hidden, name, &index);
    if (!status && names->positions.hf)
        status = collect_positions(&c);
    for (uint32_t l = 0; !status && l < config->layers; l++)
        status = collect_block(&c, l);
    if (!status)
        status = collect_norm(&c, names->final_norm.hf, config->hidden, &self->norm);
    if (!status)
        status = collect_head(&c);
    if (status == FL_ENOTFOUND) /* a missing tensor makes the file bad, not the path */
        status = error->status = FL_EFORMAT;
    return status;
}

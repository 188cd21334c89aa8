/* reference.c - see reference.h. No cleverness: loops over the formulas. */
#include "engine/reference.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <check.h>

#include "base/alloc.h"

enum { TENSORS_MAX = 512, POOL_MAX = 2048 };

/* Tensors of every toy model of the process, found by name. */
static struct {
    char name[FL_MODULE_NAME_BYTES];
    struct fl_tensor_view view;
} tensors[TENSORS_MAX];
static unsigned tensor_count;

static struct {
    void *blocks[POOL_MAX];
    struct fl_model *models[POOL_MAX];
    struct fl_adapter *adapters[POOL_MAX];
    unsigned block_count, model_count, adapter_count;
} pool;

void toy_teardown(void)
{
    while (pool.adapter_count)
        fl_adapter_destroy(&pool.adapters[--pool.adapter_count]);
    while (pool.model_count)
        fl_model_close(&pool.models[--pool.model_count]);
    while (pool.block_count)
        fl_free(pool.blocks[--pool.block_count]);
}

static void *need(size_t count, size_t size)
{
    void *block = fl_calloc(count, size);
    ck_assert_ptr_nonnull(block);
    return block;
}

void *toy_memory(size_t count, size_t size)
{
    ck_assert_uint_lt(pool.block_count, POOL_MAX);
    return pool.blocks[pool.block_count++] = need(count, size);
}

double toy_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-52 - 1.0;
}

struct toy_shape toy_default(void)
{
    return (struct toy_shape){.arch = "LlamaForCausalLM",
                              .hidden = 20,
                              .ffn = 28,
                              .layers = 3,
                              .heads = 6,
                              .kv_heads = 2,
                              .head_dim = 4,
                              .vocab = 41,
                              .tied = true};
}

static void add_tensor(const char *name, uint32_t rows, uint32_t columns, double scale,
                       double offset, uint64_t *state)
{
    const size_t n = (size_t)(rows ? rows : 1) * columns;
    float *data = toy_memory(n, sizeof *data);
    for (size_t i = 0; i < n; i++)
        data[i] = (float)(offset + scale * toy_random(state));
    ck_assert_uint_lt(tensor_count, TENSORS_MAX);
    struct fl_tensor_view *view = &tensors[tensor_count].view;
    *view = (struct fl_tensor_view){.dtype = FL_DTYPE_F32, .rank = rows ? 2 : 1};
    view->shape[0] = rows ? rows : columns;
    view->shape[1] = rows ? columns : 0;
    view->data = (const uint8_t *)data;
    view->bytes = n * sizeof *data;
    (void)snprintf(tensors[tensor_count++].name, FL_MODULE_NAME_BYTES, "%s", name);
}

static enum fl_status find_tensor(const struct fl_model *self, const char *name,
                                  struct fl_tensor_view *out, struct fl_error *error)
{
    (void)self;
    for (unsigned i = tensor_count; i-- > 0;) {
        if (strcmp(tensors[i].name, name) == 0) {
            *out = tensors[i].view;
            return FL_OK;
        }
    }
    return fl_fail(error, FL_ENOTFOUND, "no tensor %s", name);
}

static void add_linear(const char *prefix, const char *name, uint32_t out, uint32_t in, bool bias,
                       uint64_t *state)
{
    char full[FL_MODULE_NAME_BYTES];
    (void)snprintf(full, sizeof full, "%s%s.weight", prefix, name);
    add_tensor(full, out, in, 1.5 / sqrt((double)in), 0.0, state);
    (void)snprintf(full, sizeof full, "%s%s.bias", prefix, name);
    if (bias)
        add_tensor(full, 0, out, 0.3, 0.0, state);
}

static void add_norm(const char *prefix, const char *name, uint32_t n, bool bias, uint64_t *state)
{
    char full[FL_MODULE_NAME_BYTES];
    (void)snprintf(full, sizeof full, "%s%s.weight", prefix, name);
    add_tensor(full, 0, n, 0.4, 1.0, state);
    (void)snprintf(full, sizeof full, "%s%s.bias", prefix, name);
    if (bias)
        add_tensor(full, 0, n, 0.3, 0.0, state);
}

static void add_gpt2_layer(const struct toy_shape *s, uint32_t layer, uint64_t *state)
{
    const uint32_t wq = s->heads * s->head_dim;
    char prefix[64];
    (void)snprintf(prefix, sizeof prefix, "transformer.h.%u.", layer);
    add_norm(prefix, "ln_1", s->hidden, true, state);
    add_norm(prefix, "ln_2", s->hidden, true, state);
    add_linear(prefix, "attn.c_attn", 3 * wq, s->hidden, true, state);
    add_linear(prefix, "attn.c_proj", s->hidden, wq, true, state);
    add_linear(prefix, "mlp.c_fc", s->ffn, s->hidden, true, state);
    add_linear(prefix, "mlp.c_proj", s->hidden, s->ffn, true, state);
}

static void add_layer(const struct toy_shape *s, uint32_t layer, uint64_t *state)
{
    const uint32_t wq = s->heads * s->head_dim, wk = s->kv_heads * s->head_dim;
    char prefix[64];
    (void)snprintf(prefix, sizeof prefix, "model.layers.%u.", layer);
    add_norm(prefix, "input_layernorm", s->hidden, false, state);
    add_norm(prefix, "post_attention_layernorm", s->hidden, false, state);
    if (strcmp(s->arch, "Qwen3ForCausalLM") == 0) {
        add_norm(prefix, "self_attn.q_norm", s->head_dim, false, state);
        add_norm(prefix, "self_attn.k_norm", s->head_dim, false, state);
    }
    add_linear(prefix, "self_attn.q_proj", wq, s->hidden, s->biases, state);
    add_linear(prefix, "self_attn.k_proj", wk, s->hidden, s->biases, state);
    add_linear(prefix, "self_attn.v_proj", wk, s->hidden, s->biases, state);
    add_linear(prefix, "self_attn.o_proj", s->hidden, wq, s->biases, state);
    add_linear(prefix, "mlp.gate_proj", s->ffn, s->hidden, s->biases, state);
    add_linear(prefix, "mlp.up_proj", s->ffn, s->hidden, s->biases, state);
    add_linear(prefix, "mlp.down_proj", s->hidden, s->ffn, s->biases, state);
}

/* Everything outside the layers. */
static void add_top(const struct toy_shape *s, bool gpt2, uint64_t *state)
{
    add_tensor(gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight", s->vocab, s->hidden,
               1.0, 0.0, state);
    if (gpt2)
        add_tensor("transformer.wpe.weight", TOY_POSITIONS, s->hidden, 0.5, 0.0, state);
    add_norm("", gpt2 ? "transformer.ln_f" : "model.norm", s->hidden, gpt2, state);
    if (!s->tied)
        add_tensor("lm_head.weight", s->vocab, s->hidden, 0.5, 0.0, state);
}

struct fl_model *toy_model(const struct toy_shape *s, uint64_t seed)
{
    struct fl_error error = {0};
    struct fl_model *model = need(1, sizeof *model);
    model->arch = fl_arch_find(s->arch, NULL);
    pool.models[pool.model_count++] = model;
    tensor_count = 0;
    const bool gpt2 = model->arch->layer_norm;
    add_top(s, gpt2, &seed);
    for (uint32_t l = 0; l < s->layers; l++)
        (gpt2 ? add_gpt2_layer : add_layer)(s, l, &seed);
    model->config = (struct fl_model_config){.hidden = s->hidden,
                                             .ffn = s->ffn,
                                             .layers = s->layers,
                                             .heads = s->heads,
                                             .kv_heads = s->kv_heads,
                                             .head_dim = s->head_dim,
                                             .vocab = s->vocab,
                                             .max_positions = TOY_POSITIONS,
                                             .sliding_window = s->window,
                                             .sliding_from = s->window_from,
                                             .norm_epsilon = 1e-5,
                                             .tied = s->tied,
                                             .bos_id = -1,
                                             .eos_id = -1};
    model->rope = (struct fl_rope){.kind = s->rope,
                                   .theta = 100.0,
                                   .factor = s->rope == FL_ROPE_LINEAR ? 3.0 : 4.0,
                                   .low = 1.0,
                                   .high = 4.0,
                                   .original_positions = 16.0};
    for (enum fl_linear_kind k = 0; k < FL_LINEAR_COUNT; k++)
        model->biases[k] = s->biases || gpt2;
    ck_assert_msg(fl_model_collect(model, find_tensor, &error) == FL_OK, "%s", error.text);
    return model;
}

struct fl_adapter *toy_adapter(const struct fl_model *model, const char *targets, uint32_t rank,
                               uint64_t seed)
{
    struct fl_error error = {0};
    struct fl_inventory chosen = {0};
    struct fl_adapter *adapter = NULL;
    ck_assert_msg(!fl_inventory_select(fl_model_inventory(model), targets, &chosen, &error) &&
                      !fl_adapter_create(&chosen, rank, 2.0 * rank, NULL, &adapter, &error),
                  "%s", error.text);
    fl_inventory_free(&chosen);
    pool.adapters[pool.adapter_count++] = adapter;
    for (uint32_t i = 0; i < adapter->count; i++) {
        struct fl_lora_module *m = &adapter->modules[i];
        for (size_t j = 0; j < (size_t)m->rank * m->module.in; j++)
            m->a[j] = (float)(0.3 * toy_random(&seed));
        for (size_t j = 0; j < (size_t)m->rank * m->module.out; j++)
            m->b[j] = (float)(0.3 * toy_random(&seed));
    }
    return adapter;
}

struct fl_row *toy_rows(const struct fl_model *model, uint32_t count, uint32_t first, uint32_t step,
                        uint64_t seed)
{
    struct fl_row *rows = toy_memory(count, sizeof *rows);
    for (uint32_t r = 0; r < count; r++) {
        const uint32_t n = first + r * step;
        int32_t *ids = toy_memory(n, sizeof *ids), *labels = toy_memory(n, sizeof *labels);
        for (uint32_t t = 0; t < n; t++) {
            ids[t] = (int32_t)((toy_random(&seed) + 1.0) / 2.0 * model->config.vocab);
            labels[t] = (t + r) % 3 == 2 ? FL_IGNORE : ids[t];
        }
        rows[r] = (struct fl_row){ids, labels, n};
    }
    return rows;
}

/* y (n, rows) = [y +] x W^T, W's elements as the engine sees them */
static void multiply(const struct fl_weight *w, const double *x, uint32_t n, double *y, bool add)
{
    float *row = need(w->columns, sizeof *row);
    for (uint32_t o = 0; o < w->rows; o++) {
        fl_weight_widen(w, o, 1, row);
        for (uint32_t t = 0; t < n; t++) {
            double sum = add ? y[t * w->rows + o] : 0.0;
            for (uint32_t i = 0; i < w->columns; i++)
                sum += x[t * w->columns + i] * (double)row[i];
            y[t * w->rows + o] = sum;
        }
    }
    fl_free(row);
}

/* y (n, out) += s (x A^T) B^T */
static void add_lora(const struct fl_adapter *adapter, uint32_t index, const double *x, uint32_t n,
                     double *y)
{
    const struct fl_lora_module *m = &adapter->modules[index];
    const double s = fl_adapter_scale(adapter, index);
    const uint32_t in = m->module.in, out = m->module.out;
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t k = 0; k < m->rank; k++) {
            double u = 0.0;
            for (uint32_t i = 0; i < in; i++)
                u += x[t * in + i] * (double)m->a[k * in + i];
            for (uint32_t o = 0; o < out; o++)
                y[t * out + o] += s * u * (double)m->b[o * m->rank + k];
        }
    }
}

/* The norm of each row of W + s B A, while it is held: DoRA's gradients take it for a constant. */
static double *held[POOL_MAX];

/* norms (out) of module `index`; by the caller's free() */
static double *norms_of(const struct fl_weight *w, const struct fl_adapter *adapter, uint32_t index)
{
    const struct fl_lora_module *m = &adapter->modules[index];
    const double s = fl_adapter_scale(adapter, index);
    double *norms = need(w->rows, sizeof *norms);
    float *row = need(w->columns, sizeof *row);
    for (uint32_t o = 0; o < w->rows; o++) {
        double sum = 0.0;
        fl_weight_widen(w, o, 1, row);
        for (uint32_t i = 0; i < w->columns; i++) {
            double value = (double)row[i];
            for (uint32_t k = 0; k < m->rank; k++)
                value += s * (double)m->b[o * m->rank + k] * (double)m->a[k * w->columns + i];
            sum += value * value;
        }
        norms[o] = sqrt(sum);
    }
    fl_free(row);
    return norms;
}

/* y (n, out) = [y +] m / norm (x W^T + s (x A^T) B^T) */
static void dora(const struct fl_weight *w, const struct fl_adapter *adapter, uint32_t index,
                 const double *x, uint32_t n, double *y, bool add)
{
    const size_t out = w->rows;
    double *norms = held[index] ? held[index] : norms_of(w, adapter, index);
    double *z = need(n * out, sizeof *z);
    multiply(w, x, n, z, false);
    add_lora(adapter, index, x, n, z);
    for (size_t i = 0; i < n * out; i++)
        y[i] = (add ? y[i] : 0.0) +
               (double)adapter->modules[index].m[i % out] / norms[i % out] * z[i];
    fl_free(z);
    if (!held[index])
        fl_free(norms);
}

static void hold_norms(const struct fl_model *model, const struct fl_adapter *adapter, bool hold)
{
    for (uint32_t i = 0; adapter->use_dora && i < adapter->count; i++) {
        const struct fl_weight *w = NULL;
        for (uint32_t k = 0; k < model->inventory.count; k++)
            if (strcmp(model->inventory.modules[k].name, adapter->modules[i].module.name) == 0)
                w = fl_model_module_weight(model, k);
        fl_free(held[i]);
        held[i] = hold ? norms_of(w, adapter, i) : NULL;
    }
}

static void linear(const struct fl_model *model, const struct fl_adapter *adapter, uint32_t layer,
                   enum fl_linear_kind kind, const double *x, uint32_t n, double *y, bool add)
{
    const struct fl_block *block = &model->blocks[layer];
    const struct fl_weight *w = &model->weights[block->linears[kind]];
    uint32_t at = 0;
    while (model->kinds[at] != kind)
        at++;
    const char *name = model->inventory.modules[layer * model->kind_count + at].name;
    uint32_t index = 0;
    while (adapter && index < adapter->count &&
           strcmp(adapter->modules[index].module.name, name) != 0)
        index++;
    const bool adapted = adapter && index < adapter->count;
    if (adapted && adapter->use_dora)
        dora(w, adapter, index, x, n, y, add);
    else
        multiply(w, x, n, y, add);
    for (uint32_t t = 0; block->bias[kind] && t < n; t++)
        for (uint32_t o = 0; o < w->rows; o++)
            y[t * w->rows + o] += (double)block->bias[kind][o];
    if (adapted && !adapter->use_dora)
        add_lora(adapter, index, x, n, y);
}

static void norm(const double *x, const struct fl_norm *how, uint32_t n, uint32_t d, double *y)
{
    for (uint32_t t = 0; t < n; t++, x += d, y += d) {
        double mean = 0.0, sum = 0.0;
        for (uint32_t i = 0; how->bias && i < d; i++)
            mean += x[i] / d;
        for (uint32_t i = 0; i < d; i++)
            sum += (x[i] - mean) * (x[i] - mean);
        for (uint32_t i = 0; i < d; i++)
            y[i] = (x[i] - mean) / sqrt(sum / d + how->epsilon) * (double)how->weight[i] +
                   (how->bias ? (double)how->bias[i] : 0.0);
    }
}

static void rotate(const struct fl_rope *rope, double *x, uint32_t n, uint32_t heads, uint32_t d)
{
    float inverse[512];
    fl_rope_frequencies(rope, d, inverse);
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t h = 0; h < heads; h++) {
            double *v = x + (t * heads + h) * d;
            for (uint32_t i = 0; i < d / 2; i++) {
                const double c = cos(t * (double)inverse[i]), s = sin(t * (double)inverse[i]);
                const double low = v[i], high = v[i + d / 2];
                v[i] = low * c - high * s;
                v[i + d / 2] = high * c + low * s;
            }
        }
    }
}

/* One query head over all positions. */
static void attend(const double *q, const double *k, const double *v, uint32_t n, uint32_t d,
                   uint32_t lq, uint32_t lk, uint32_t window, double *out)
{
    double *p = need(n, sizeof *p);
    for (uint32_t t = 0; t < n; t++) {
        const uint32_t first = window && t >= window ? t + 1 - window : 0;
        double total = 0.0;
        for (uint32_t j = first; j <= t; j++) {
            double s = 0.0;
            for (uint32_t i = 0; i < d; i++)
                s += q[t * lq + i] * k[j * lk + i];
            p[j] = exp(s / sqrt((double)d));
            total += p[j];
        }
        for (uint32_t i = 0; i < d; i++) {
            double sum = 0.0;
            for (uint32_t j = first; j <= t; j++)
                sum += p[j] * v[j * lk + i];
            out[t * lq + i] = sum / total;
        }
    }
    fl_free(p);
}

/* q, k and v (n, hidden) of one linear that has them side by side. */
static void joined(const struct fl_model *model, const struct fl_adapter *adapter, uint32_t l,
                   uint32_t n, const double *z, double *q, double *k, double *v)
{
    const uint32_t w = model->config.heads * model->config.head_dim;
    double *all = need((size_t)n * 3 * w, sizeof *all);
    linear(model, adapter, l, FL_LINEAR_QKV, z, n, all, false);
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t i = 0; i < w; i++) {
            q[t * w + i] = all[t * 3 * w + i];
            k[t * w + i] = all[t * 3 * w + w + i];
            v[t * w + i] = all[t * 3 * w + 2 * w + i];
        }
    }
    fl_free(all);
}

static void attention(const struct fl_model *model, const struct fl_adapter *adapter, uint32_t l,
                      uint32_t n, const double *z, double *x)
{
    const struct fl_model_config *c = &model->config;
    const uint32_t d = c->head_dim, wq = c->heads * d, wk = c->kv_heads * d;
    double *q = need((size_t)n * wq, sizeof *q), *k = need((size_t)n * wk, sizeof *k);
    double *v = need((size_t)n * wk, sizeof *v), *o = need((size_t)n * wq, sizeof *o);
    if (fl_arch_joins_qkv(model->arch)) {
        joined(model, adapter, l, n, z, q, k, v);
    } else {
        linear(model, adapter, l, FL_LINEAR_Q, z, n, q, false);
        linear(model, adapter, l, FL_LINEAR_K, z, n, k, false);
        linear(model, adapter, l, FL_LINEAR_V, z, n, v, false);
    }
    if (model->blocks[l].q_norm.weight) {
        norm(q, &model->blocks[l].q_norm, n * c->heads, d, q);
        norm(k, &model->blocks[l].k_norm, n * c->kv_heads, d, k);
    }
    if (!model->positions) {
        rotate(&model->rope, q, n, c->heads, d);
        rotate(&model->rope, k, n, c->kv_heads, d);
    }
    for (uint32_t h = 0; h < c->heads; h++) {
        const uint32_t g = h / (c->heads / c->kv_heads);
        attend(q + h * d, k + g * d, v + g * d, n, d, wq, wk,
               l >= c->sliding_from ? c->sliding_window : 0, o + h * d);
    }
    linear(model, adapter, l, FL_LINEAR_O, o, n, x, true);
    fl_free(q);
    fl_free(k);
    fl_free(v);
    fl_free(o);
}

static double gelu(double x)
{
    return 0.5 * x * (1.0 + tanh(sqrt(2.0 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

static void mlp(const struct fl_model *model, const struct fl_adapter *adapter, uint32_t l,
                uint32_t n, const double *z, double *x)
{
    const uint32_t f = model->config.ffn;
    double *gate = need((size_t)n * f, sizeof *gate), *up = need((size_t)n * f, sizeof *up);
    const bool gated = model->arch->names->linears[FL_LINEAR_GATE].hf != NULL;
    if (gated)
        linear(model, adapter, l, FL_LINEAR_GATE, z, n, gate, false);
    linear(model, adapter, l, FL_LINEAR_UP, z, n, up, false);
    for (size_t i = 0; i < (size_t)n * f; i++)
        gate[i] = gated ? gate[i] / (1.0 + exp(-gate[i])) * up[i] : gelu(up[i]);
    linear(model, adapter, l, FL_LINEAR_DOWN, gate, n, x, true);
    fl_free(gate);
    fl_free(up);
}

void reference_logits(const struct fl_model *model, const struct fl_adapter *adapter,
                      const int32_t *ids, uint32_t n, double *logits)
{
    const struct fl_model_config *c = &model->config;
    const uint32_t d = c->hidden;
    double *x = need((size_t)n * d, sizeof *x), *z = need((size_t)n * d, sizeof *z);
    float *row = need(d, sizeof *row);
    for (uint32_t t = 0; t < n; t++) {
        fl_weight_widen(&model->weights[0], (uint32_t)ids[t], 1, row);
        for (uint32_t i = 0; i < d; i++)
            x[t * d + i] = (double)row[i];
        if (!model->positions)
            continue;
        fl_weight_widen(&model->weights[model->positions], t, 1, row);
        for (uint32_t i = 0; i < d; i++)
            x[t * d + i] += (double)row[i];
    }
    for (uint32_t l = 0; l < c->layers; l++) {
        norm(x, &model->blocks[l].norm1, n, d, z);
        attention(model, adapter, l, n, z, x);
        norm(x, &model->blocks[l].norm2, n, d, z);
        mlp(model, adapter, l, n, z, x);
    }
    norm(x, &model->norm, n, d, z);
    multiply(&model->weights[model->head], z, n, logits, false);
    fl_free(x);
    fl_free(z);
    fl_free(row);
}

double reference_loss(const struct fl_model *model, const struct fl_adapter *adapter,
                      const struct fl_row *rows, uint32_t count)
{
    const uint32_t vocab = model->config.vocab;
    double loss = 0.0;
    for (uint32_t r = 0; r < count; r++) {
        double *logits = need((size_t)rows[r].length * vocab, sizeof *logits);
        reference_logits(model, adapter, rows[r].ids, rows[r].length, logits);
        for (uint32_t t = 1; t < rows[r].length; t++) {
            const double *at = logits + (size_t)(t - 1) * vocab;
            double sum = 0.0;
            if (rows[r].labels[t] == FL_IGNORE)
                continue;
            for (uint32_t i = 0; i < vocab; i++)
                sum += exp(at[i]);
            loss += log(sum) - at[rows[r].labels[t]];
        }
        fl_free(logits);
    }
    return loss;
}

double reference_gradient(const struct fl_model *model, struct fl_adapter *adapter,
                          const struct fl_row *rows, uint32_t count, float *value)
{
    const float kept = *value, step = 0x1p-11f;
    hold_norms(model, adapter, true);
    *value = kept + step;
    const double up = *value, high = reference_loss(model, adapter, rows, count);
    *value = kept - step;
    const double down = *value, low = reference_loss(model, adapter, rows, count);
    *value = kept;
    hold_norms(model, adapter, false);
    return (high - low) / (up - down);
}

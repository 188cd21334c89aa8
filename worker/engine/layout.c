/* layout.c - see layout.h. */
#include "worker/engine/layout.h"

enum {
    LINE_BYTES = 64,
    DEFAULT_BATCH_TOKENS = 512,
    PANEL_FLOATS = 2u << 20,   /* 8 MB of widened weight */
    LOGITS_FLOATS = 13u << 20, /* of one chunk of the head */
    CHUNK_MIN = 16,
    CHUNK_MAX = 512
};

struct arena {
    uint8_t *base; /* NULL while counting */
    size_t used;
};

static void *take(struct arena *arena, size_t count, size_t size)
{
    void *at = arena->base ? arena->base + arena->used : NULL;
    arena->used += (count * size + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
    return at;
}

static float *floats(struct arena *arena, size_t count)
{
    return take(arena, count, sizeof(float));
}

static size_t clamp(size_t value, size_t low, size_t high)
{
    return value < low ? low : value > high ? high : value;
}

static size_t widest_in(const struct fl_engine *self)
{
    const struct fl_model_config *c = &self->model->config;
    size_t wq = (size_t)c->heads * c->head_dim, widest = c->hidden;
    widest = wq > widest ? wq : widest;
    return c->ffn > widest ? c->ffn : widest;
}

/* Results of a token of the widest linear that has several in one; 0: none has. */
static size_t joined_columns(const struct fl_engine *self)
{
    const struct fl_model_config *c = &self->model->config;
    const struct fl_arch *arch = self->model->arch;
    const size_t heads = (size_t)c->heads + 2 * (size_t)c->kv_heads;
    const size_t qkv = fl_arch_joins_qkv(arch) ? heads * c->head_dim : 0;
    const size_t gate = fl_arch_joins_gate(arch) ? 2 * (size_t)c->ffn : 0;
    return qkv > gate ? qkv : gate;
}

static size_t keys_max(const struct fl_engine *self)
{
    const struct fl_engine_options *o = &self->options;
    return o->cache_tokens > o->max_row_tokens ? o->cache_tokens : o->max_row_tokens;
}

/* Most values of a token that a product reads at once: all of `in` forward, of `out` back where
 * there is a branch, else a panel's rows; and the branch's. */
static size_t narrow_columns(const struct fl_engine *self)
{
    const struct fl_model_config *c = &self->model->config;
    const size_t rows = self->work.panel_floats / c->hidden, widest = widest_in(self);
    const size_t joined = joined_columns(self), most = joined > c->vocab ? joined : c->vocab;
    const size_t back = rows < most ? rows : most;
    const size_t whole = joined > widest ? joined : widest;
    return (back > whole ? back : whole) + 1 + 2 * fl_branch_pairs(self->max_rank);
}

void fl_engine_sizes(struct fl_engine *self)
{
    const struct fl_model_config *c = &self->model->config;
    const size_t row = self->options.max_row_tokens, wanted = self->options.max_batch_tokens;
    const size_t widest = widest_in(self), threads = self->work.threads;
    const size_t call = self->options.call_tokens, scored = self->options.call_scored;
    if (!self->batch)
        self->batch = wanted ? wanted : DEFAULT_BATCH_TOKENS;
    if (call && call < self->batch)
        self->batch = call;
    self->batch = self->batch < row ? row : self->batch;
    if (self->batch < self->options.cache_rows)
        self->batch = self->options.cache_rows;
    self->layers = c->layers;
    self->shape = (struct fl_attention){.heads = c->heads,
                                        .kv_heads = c->kv_heads,
                                        .head_dim = c->head_dim,
                                        .scalar = (float)c->query_scalar,
                                        .cap = (float)c->score_cap};
    self->work.panel_floats = PANEL_FLOATS;
    if (self->work.panel_floats < threads * FL_PANEL_ROWS * widest)
        self->work.panel_floats = threads * FL_PANEL_ROWS * widest;
    self->work.strip_floats = fl_attention_strip_floats(keys_max(self), c->head_dim,
                                                        self->work.bf16);
    self->head.weight = &self->model->weights[self->model->head];
    self->head.norm = self->model->norm;
    self->head.hidden = c->hidden;
    self->head.vocab = c->vocab;
    self->head.cap = (float)c->logit_cap;
    self->head.chunk = clamp(LOGITS_FLOATS / c->vocab, CHUNK_MIN, CHUNK_MAX);
    self->head.chunk = self->head.chunk < self->batch ? self->head.chunk : self->batch;
    if (scored && scored < self->head.chunk)
        self->head.chunk = scored;
}

static size_t widest_dora(const struct fl_engine *self)
{
    size_t widest = 0;
    for (uint32_t i = 0; i < FL_LINEAR_COUNT; i++)
        widest = self->dora_out[i] > widest ? self->dora_out[i] : widest;
    return widest;
}

/* All of a slot but x. */
static void layout_slot(struct fl_engine *self, struct arena *arena, struct fl_slot *slot)
{
    const struct fl_model_config *c = &self->model->config;
    const size_t t = self->batch, d = c->hidden;
    const size_t wq = (size_t)c->heads * c->head_dim, wk = (size_t)c->kv_heads * c->head_dim;
    const struct fl_arch_names *names = self->model->arch->names;
    const size_t raw = names->q_norm.hf ? t : 0, post = names->post1.hf ? t : 0;
    struct fl_slot s = {
        .q = floats(arena, t * wq),
        .k = floats(arena, t * wk),
        .v = floats(arena, t * wk),
        .q_raw = floats(arena, raw * wq),
        .k_raw = floats(arena, raw * wk),
        .inverse_q = floats(arena, raw * c->heads),
        .inverse_k = floats(arena, raw * c->kv_heads),
        .ctx = floats(arena, t * wq),
        .mid = floats(arena, t * d),
        .given1 = floats(arena, post * d),
        .given2 = floats(arena, post * d),
        .inverse_post1 = floats(arena, post),
        .inverse_post2 = floats(arena, post),
        .gate = floats(arena, names->linears[FL_LINEAR_GATE].hf ? t * c->ffn : 0),
        .up = floats(arena, t * c->ffn),
        .lse = floats(arena, t * c->heads),
        .inverse1 = floats(arena, t),
        .inverse2 = floats(arena, t),
    };
    for (uint32_t i = 0; i < FL_LINEAR_COUNT; i++)
        s.u[i] = floats(arena, t * self->max_rank);
    for (uint32_t i = 0; i < FL_LINEAR_COUNT; i++)
        s.z[i] = floats(arena, t * self->dora_out[i]);
    if (arena->base)
        *slot = s;
}

static void layout_scratch(struct fl_engine *self, struct arena *arena)
{
    const struct fl_model_config *c = &self->model->config;
    const size_t t = self->batch, d = c->hidden, chunk = self->head.chunk;
    const size_t heads = 2 * ((size_t)c->heads + c->kv_heads) * c->head_dim;
    const size_t rotated = self->model->positions ? 0 : keys_max(self) * c->head_dim / 2;
    const bool training = self->options.train != FL_TRAIN_NONE;
    self->work.panel = floats(arena, self->work.panel_floats);
    if (self->work.bf16)
        self->work.narrow = floats(arena, self->batch * narrow_columns(self) / 2);
    self->work.strips = floats(arena, self->work.strip_floats * self->work.threads);
    if (training && self->adapter->dropout > 0.0)
        self->work.dropped = floats(arena, t * widest_in(self));
    if (training && self->adapter->use_dora)
        self->work.scaled = floats(arena, t * widest_dora(self));
    self->head.logits = floats(arena, chunk * c->vocab);
    self->head.capped = floats(arena, training && c->logit_cap > 0.0 ? chunk * c->vocab : 0);
    self->head.z = floats(arena, chunk * d);
    self->head.dz = floats(arena, chunk * d);
    self->head.gathered = floats(arena, chunk * d);
    self->head.inverse = floats(arena, chunk);
    self->head.losses = take(arena, chunk, sizeof(double));
    self->x = floats(arena, t * d);
    self->n = floats(arena, t * d);
    self->dx = floats(arena, training ? t * d : 0);
    self->dn = floats(arena, training ? t * d : 0);
    self->wide = floats(arena, t * (heads > c->ffn ? heads : c->ffn));
    self->joined = floats(arena, t * joined_columns(self));
    self->v = floats(arena, training ? t * self->max_rank : 0);
    self->cosine = floats(arena, rotated);
    self->sine = floats(arena, rotated);
    const size_t near = self->model->near.theta > 0.0 ? rotated : 0;
    self->near_cosine = floats(arena, near);
    self->near_sine = floats(arena, near);
    self->spans = take(arena, t, sizeof *self->spans);
    self->span_rows = take(arena, t, sizeof *self->span_rows);
    self->targets = take(arena, t, sizeof *self->targets);
}

static void layout_cache(struct fl_engine *self, struct arena *arena)
{
    const struct fl_model_config *c = &self->model->config;
    const size_t rows = self->options.cache_rows ? self->options.cache_rows : 1;
    const size_t floats_each = rows * self->options.cache_tokens * c->kv_heads * c->head_dim;
    for (uint32_t l = 0; floats_each && l < self->layers; l++) {
        float *k = floats(arena, floats_each), *v = floats(arena, floats_each);
        if (arena->base) {
            self->blocks[l].cache_k = k;
            self->blocks[l].cache_v = v;
        }
    }
}

static void layout_dora(struct fl_engine *self, struct arena *arena)
{
    const struct fl_adapter *adapter = self->adapter;
    const uint32_t count = adapter && adapter->use_dora ? adapter->count : 0;
    self->dora = take(arena, count, sizeof *self->dora);
    for (uint32_t i = 0; i < count; i++) {
        float *both = floats(arena, 2 * (size_t)adapter->modules[i].module.out);
        if (arena->base)
            self->dora[i] = both;
    }
}

static void layout_gradients(struct fl_engine *self, struct arena *arena)
{
    const struct fl_adapter *adapter = self->adapter;
    const uint32_t count = adapter && self->options.train ? adapter->count : 0;
    self->gradients = take(arena, count, sizeof *self->gradients);
    const size_t begin = arena->used;
    self->gradient_data = floats(arena, 0);
    for (uint32_t i = 0; i < count; i++) {
        const struct fl_lora_module *m = &adapter->modules[i];
        struct fl_gradient g = {0};
        if (self->options.train & FL_TRAIN_A)
            g.a = floats(arena, (size_t)m->rank * m->module.in);
        if (self->options.train & FL_TRAIN_B)
            g.b = floats(arena, (size_t)m->rank * m->module.out);
        if (m->m)
            g.m = floats(arena, m->module.out);
        if (arena->base)
            self->gradients[i] = g;
    }
    self->gradient_floats = (arena->used - begin) / sizeof(float);
}

/* Slots of the blocks that gradients reach, and one for those below. */
static void layout_slots(struct fl_engine *self, struct arena *arena)
{
    const size_t x_floats = self->batch * self->model->config.hidden;
    const uint32_t own = self->layers - self->lowest, slots = own + (self->lowest > 0);
    struct fl_slot shared = {0};
    self->slots = take(arena, slots, sizeof *self->slots);
    if (self->recompute)
        layout_slot(self, arena, &shared);
    for (uint32_t i = 0; i < slots; i++) {
        struct fl_slot slot = shared;
        if (!self->recompute)
            layout_slot(self, arena, &slot);
        slot.x = floats(arena, x_floats);
        if (arena->base)
            self->slots[i] = slot;
    }
    for (uint32_t l = 0; arena->base && l < self->layers; l++)
        self->blocks[l] = (struct fl_engine_block){
            .slot = &self->slots[l < self->lowest ? own : l - self->lowest]};
}

size_t fl_engine_layout(struct fl_engine *self, void *base)
{
    struct arena arena = {base, 0};
    self->blocks = take(&arena, self->layers, sizeof *self->blocks);
    layout_slots(self, &arena);
    layout_scratch(self, &arena);
    layout_cache(self, &arena);
    layout_dora(self, &arena);
    layout_gradients(self, &arena);
    return arena.used;
}

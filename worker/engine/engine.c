/* engine.c - see engine.h: creation, micro-batches, the passes over all blocks. */
#include "worker/engine/engine.h"

#include <assert.h>
#include <omp.h>
#include <string.h>
#include <sys/mman.h>

#include "base/alloc.h"
#include "worker/engine/engine_internal.h"
#include "worker/engine/kernels.h"
#include "worker/engine/layout.h"

enum { THREADS_MAX = 256, HUGE_BYTES = 2 << 20, BATCH_LEAST = 64 };

static enum fl_status check_options(const struct fl_engine *self, struct fl_error *error)
{
    const struct fl_engine_options *o = &self->options;
    if (o->compute == FL_COMPUTE_BF16 && !fl_gemm_bf16())
        return fl_fail(error, FL_EUSAGE,
                       "compute = bf16 needs a processor with AVX512-BF16; use f32 or auto");
    if (o->max_row_tokens < 1 || o->max_row_tokens > FL_SEQ_MAX ||
        o->max_batch_tokens > FL_SEQ_MAX || o->cache_tokens > FL_SEQ_MAX)
        return fl_fail(error, FL_ERANGE, "a row has 1 to %d tokens, not %u", FL_SEQ_MAX,
                       o->max_row_tokens);
    if (o->cache_rows > FL_CACHE_ROWS_MAX)
        return fl_fail(error, FL_ERANGE, "a cache of %u rows; %u at most", o->cache_rows,
                       FL_CACHE_ROWS_MAX);
    const uint32_t positions = self->model->positions ? self->model->config.max_positions : 0;
    if (positions && (o->max_row_tokens > positions || o->cache_tokens > positions))
        return fl_fail(error, FL_ERANGE,
                       "this model has learned %u positions: a row, or a prompt with its answer, "
                       "cannot be longer",
                       positions);
    if (o->train && !self->adapter)
        return fl_fail(error, FL_EINVAL, "training needs an adapter");
    return FL_OK;
}

static void measure(struct fl_engine *self, size_t batch, bool recompute)
{
    self->batch = batch;
    self->recompute = recompute;
    fl_engine_sizes(self);
    self->arena_bytes = fl_engine_layout(self, NULL);
}

/* Smaller micro-batches widen each weight more often; running blocks twice costs a third more. */
static enum fl_status fit_limit(struct fl_engine *self, struct fl_error *error)
{
    const uint64_t limit = self->options.memory_limit;
    measure(self, 0, false);
    if (!limit || self->arena_bytes <= limit)
        return FL_OK;
    const size_t least = self->options.max_row_tokens > BATCH_LEAST ? self->options.max_row_tokens
                                                                    : BATCH_LEAST;
    for (int again = 0; again < (self->options.train ? 2 : 1); again++) {
        measure(self, 0, again != 0);
        for (size_t batch = self->batch; self->arena_bytes > limit && batch > least;) {
            batch = batch * 3 / 4 > least ? batch * 3 / 4 : least;
            measure(self, batch, again != 0);
        }
        if (self->arena_bytes <= limit)
            return FL_OK;
    }
    return fl_fail(error, FL_ENOMEM,
                   "rows of %u tokens need %zu MB beside the model, and the limit leaves %llu MB; "
                   "use shorter rows or a higher limit",
                   self->options.max_row_tokens, self->arena_bytes >> 20,
                   (unsigned long long)limit >> 20);
}

/* Everything that needs no memory: options held against the model, sizes worked out. */
static enum fl_status plan(struct fl_engine *self, const struct fl_model *model,
                           const struct fl_adapter *adapter,
                           const struct fl_engine_options *options, struct fl_error *error)
{
    *self = (struct fl_engine){.model = model, .adapter = adapter, .options = *options};
    enum fl_status status = check_options(self, error);
    if (status)
        return status;
    self->work.bf16 = options->compute == FL_COMPUTE_BF16;
    const uint32_t processors = (uint32_t)omp_get_num_procs();
    self->work.threads = options->threads ? options->threads : processors;
    if (self->work.threads > THREADS_MAX)
        self->work.threads = THREADS_MAX;
    status = fl_engine_check_adapter(self, error);
    if (status)
        return status;
    return fit_limit(self, error);
}

/* Fresh zero pages, touched only when used; 2 MB aligned so that huge pages can back them. */
static enum fl_status take_arena(struct fl_engine *self, struct fl_error *error)
{
    self->arena = fl_malloc(self->arena_bytes + HUGE_BYTES);
    if (!self->arena)
        return fl_fail(error, FL_ENOMEM,
                       "out of memory: the engine needs %zu MB for rows of %u tokens; use shorter "
                       "rows or smaller micro-batches",
                       self->arena_bytes >> 20, self->options.max_row_tokens);
    uint8_t *base = self->arena;
    base += HUGE_BYTES - (uintptr_t)base % HUGE_BYTES;
#ifdef MADV_HUGEPAGE
    if (self->arena_bytes >= HUGE_BYTES)
        (void)madvise(base, self->arena_bytes / HUGE_BYTES * HUGE_BYTES, MADV_HUGEPAGE);
#endif
    (void)fl_engine_layout(self, base);
    return FL_OK;
}

enum fl_status fl_engine_create(const struct fl_model *model, const struct fl_adapter *adapter,
                                const struct fl_engine_options *options, struct fl_engine **out,
                                struct fl_error *error)
{
    *out = NULL;
    fl_gemm_prepare();
    struct fl_engine *self = fl_calloc(1, sizeof *self);
    if (!self)
        return fl_fail_memory(error);
    enum fl_status status = plan(self, model, adapter, options, error);
    if (!status)
        status = take_arena(self, error);
    if (!status)
        status = fl_engine_bind(self, error);
    if (status) {
        fl_engine_destroy(&self);
        return status;
    }
    const size_t positions = options->cache_tokens > options->max_row_tokens
                                 ? options->cache_tokens
                                 : options->max_row_tokens;
    if (!model->positions)
        fl_rope_table(&model->rope, model->config.head_dim, positions, self->cosine, self->sine);
    if (model->near.theta > 0.0)
        fl_rope_table(&model->near, model->config.head_dim, positions, self->near_cosine,
                      self->near_sine);
    fl_engine_zero_gradients(self);
    *out = self;
    return FL_OK;
}

void fl_engine_destroy(struct fl_engine **self)
{
    if (!*self)
        return;
    fl_free((*self)->arena);
    fl_free(*self);
    *self = NULL;
}

enum fl_status fl_engine_plan(const struct fl_model *model, const struct fl_adapter *adapter,
                              const struct fl_engine_options *options, struct fl_engine_need *out,
                              struct fl_error *error)
{
    struct fl_engine self;
    const enum fl_status status = plan(&self, model, adapter, options, error);
    *out = (struct fl_engine_need){.bytes = self.arena_bytes,
                                   .gradients = self.gradient_floats * sizeof(float),
                                   .batch_tokens = (uint32_t)self.batch,
                                   .recompute = self.recompute};
    return status;
}

uint64_t fl_engine_memory(const struct fl_model *model, const struct fl_adapter *adapter,
                          const struct fl_engine_options *options)
{
    struct fl_engine_need need;
    struct fl_error error;
    return fl_engine_plan(model, adapter, options, &need, &error) ? 0 : need.bytes;
}

const char *fl_compute_text(enum fl_compute compute, const char **kernel)
{
    const bool bf16 = compute == FL_COMPUTE_BF16;
    *kernel = fl_gemm_name(bf16);
    return bf16 ? "bf16" : "f32";
}

const char *fl_engine_compute(const struct fl_engine *self)
{
    return self->work.bf16 ? "bf16" : "f32";
}

uint32_t fl_engine_batch_tokens(const struct fl_engine *self)
{
    return (uint32_t)self->batch;
}

bool fl_engine_recomputes(const struct fl_engine *self)
{
    return self->recompute;
}

uint32_t fl_engine_threads(const struct fl_engine *self)
{
    return self->work.threads;
}

void fl_engine_zero_gradients(struct fl_engine *self)
{
    if (self->gradient_floats)
        memset(self->gradient_data, 0, self->gradient_floats * sizeof(float));
}

const struct fl_gradient *fl_engine_gradient(const struct fl_engine *self)
{
    return self->options.train ? self->gradients : NULL;
}

/* x (hidden) = embedding of the token [scaled] [+ its learned position]; room (hidden) is scratch.
 */
static void embed(const struct fl_engine *self, int32_t id, size_t position, float *x, float *room)
{
    const struct fl_model *model = self->model;
    fl_weight_widen(&model->weights[0], (uint32_t)id, 1, x);
    if (model->embedding_scale > 0.0f)
        fl_scale(x, self->head.hidden, model->embedding_scale);
    if (!model->positions)
        return;
    fl_weight_widen(&model->weights[model->positions], (uint32_t)position, 1, room);
    fl_add(room, self->head.hidden, x);
}

/* Put ids behind what the micro-batch holds: their embeddings become the first block's input. */
static enum fl_status append_ids(struct fl_engine *self, const int32_t *ids, size_t n, size_t past,
                                 struct fl_error *error)
{
    const uint32_t d = self->head.hidden, vocab = self->head.vocab;
    float *x = self->blocks[0].slot->x + self->tokens * d, *room = self->n + self->tokens * d;
    for (size_t t = 0; t < n; t++)
        if (ids[t] < 0 || (uint32_t)ids[t] >= vocab)
            return fl_fail(error, FL_ERANGE, "token %d at position %zu: the model knows 0 to %u",
                           ids[t], t, vocab - 1);
#pragma omp parallel for schedule(static) num_threads((int)self->work.threads)
    for (size_t t = 0; t < n; t++)
        embed(self, ids[t], past + t, x + t * d, room + t * d);
    self->spans[self->span_count++] =
        (struct fl_span){.first = self->tokens, .tokens = n, .past = past};
    self->tokens += n;
    return FL_OK;
}

static void start_batch(struct fl_engine *self)
{
    self->tokens = self->span_count = self->target_count = 0;
}

static enum fl_status append_row(struct fl_engine *self, const struct fl_row *row,
                                 struct fl_error *error)
{
    const uint32_t vocab = self->head.vocab;
    for (uint32_t t = 1; t < row->length; t++) {
        if (row->labels[t] == FL_IGNORE)
            continue;
        if (row->labels[t] < 0 || (uint32_t)row->labels[t] >= vocab)
            return fl_fail(error, FL_ERANGE, "label %d at position %u: the model knows 0 to %u",
                           row->labels[t], t, vocab - 1);
        self->targets[self->target_count++] = (struct fl_target){(uint32_t)(self->tokens + t - 1),
                                                                 row->labels[t]};
    }
    return append_ids(self, row->ids, row->length, 0, error);
}

/* As many whole rows as fit the micro-batch, at least one; *taken of them. */
static enum fl_status fill_batch(struct fl_engine *self, const struct fl_row *rows, uint32_t count,
                                 uint32_t *taken, struct fl_error *error)
{
    start_batch(self);
    for (*taken = 0; *taken < count; (*taken)++) {
        const struct fl_row *row = &rows[*taken];
        if (row->length < 1 || row->length > self->options.max_row_tokens)
            return fl_fail(error, FL_ERANGE, "a row of %u tokens; this engine takes 1 to %u",
                           row->length, self->options.max_row_tokens);
        if (self->tokens + row->length > self->batch)
            break;
        enum fl_status status = append_row(self, row, error);
        if (status)
            return status;
    }
    return FL_OK;
}

/* All blocks; the last one's output is self->x (tokens, hidden). */
static void forward(struct fl_engine *self, const struct fl_pass *pass, bool from_cache)
{
    for (uint32_t l = 0; l < self->layers; l++) {
        float *out = l + 1 < self->layers ? self->blocks[l + 1].slot->x : self->x;
        fl_block_forward(self, l, pass, out, from_cache);
    }
}

static struct fl_pass make_pass(const struct fl_engine *self)
{
    return (struct fl_pass){.work = &self->work, .tokens = self->tokens};
}

static double loss_forward(struct fl_engine *self)
{
    const struct fl_pass pass = make_pass(self);
    forward(self, &pass, false);
    return fl_head_loss(&self->work, &self->head, self->x, self->targets, self->target_count, NULL);
}

/* Keys of dropout masks: one a step and micro-batch (SplitMix64's finaliser). */
static uint64_t dropout_key(uint64_t seed, uint64_t step, uint64_t group)
{
    uint64_t z = seed + step * 0x9e3779b97f4a7c15ull + group * 0xd1342543de82ef95ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static double loss_backward(struct fl_engine *self, uint64_t step, uint64_t group)
{
    struct fl_pass pass = make_pass(self);
    pass.dropout = true;
    pass.dropout_key = dropout_key(self->options.seed, step, group);
    forward(self, &pass, false);
    memset(self->dx, 0, self->tokens * self->head.hidden * sizeof *self->dx);
    double loss = fl_head_loss(&self->work, &self->head, self->x, self->targets, self->target_count,
                               self->dx);
    for (uint32_t l = self->layers; l-- > self->lowest;) {
        if (self->recompute && l + 1 < self->layers) /* the last one's are still there */
            fl_block_forward(self, l, &pass, self->x, false);
        fl_block_backward(self, l, &pass);
    }
    return loss;
}

static enum fl_status run_rows(struct fl_engine *self, const struct fl_row *rows, uint32_t count,
                               bool gradients, uint64_t step, double *loss_sum, uint64_t *scored,
                               struct fl_error *error)
{
    *loss_sum = 0.0;
    *scored = 0;
    fl_engine_reset_cache(self);
    fl_engine_refresh(self);
    uint64_t group = 0;
    for (uint32_t first = 0, taken; first < count; first += taken, group++) {
        enum fl_status status = fill_batch(self, rows + first, count - first, &taken, error);
        if (status)
            return status;
        if (!self->target_count)
            continue;
        *loss_sum += gradients ? loss_backward(self, step, group) : loss_forward(self);
        *scored += self->target_count;
    }
    return FL_OK;
}

enum fl_status fl_engine_loss(struct fl_engine *self, const struct fl_row *rows, uint32_t count,
                              double *loss_sum, uint64_t *scored, struct fl_error *error)
{
    return run_rows(self, rows, count, false, 0, loss_sum, scored, error);
}

enum fl_status fl_engine_gradients(struct fl_engine *self, const struct fl_row *rows,
                                   uint32_t count, uint64_t step, double *loss_sum,
                                   uint64_t *scored, struct fl_error *error)
{
    *loss_sum = 0.0;
    *scored = 0;
    if (!self->options.train)
        return fl_fail(error, FL_EINVAL, "this engine was made without gradients");
    return run_rows(self, rows, count, true, step, loss_sum, scored, error);
}

enum fl_status fl_engine_forward_logits(struct fl_engine *self, const int32_t *ids, uint32_t n,
                                        float *logits, struct fl_error *error)
{
    if (n < 1 || n > self->options.max_row_tokens)
        return fl_fail(error, FL_ERANGE, "%u tokens; this engine takes 1 to %u", n,
                       self->options.max_row_tokens);
    start_batch(self);
    enum fl_status status = append_ids(self, ids, n, 0, error);
    if (status)
        return status;
    fl_engine_refresh(self);
    const struct fl_pass pass = make_pass(self);
    forward(self, &pass, false);
    fl_head_logits(&self->work, &self->head, self->x, n, logits);
    return FL_OK;
}

void fl_engine_reset_cache(struct fl_engine *self)
{
    memset(self->cached, 0, sizeof self->cached);
}

static uint32_t cache_rows(const struct fl_engine *self)
{
    return self->options.cache_rows ? self->options.cache_rows : 1;
}

void fl_engine_reset_row(struct fl_engine *self, uint32_t row)
{
    assert(row < cache_rows(self));
    self->cached[row] = 0;
}

uint32_t fl_engine_cached(const struct fl_engine *self)
{
    return (uint32_t)self->cached[0];
}

uint32_t fl_engine_cache_tokens(const struct fl_engine *self)
{
    return self->options.cache_tokens;
}

uint32_t fl_engine_vocab(const struct fl_engine *self)
{
    return self->head.vocab;
}

static enum fl_status check_room(const struct fl_engine *self, uint32_t row, uint32_t n,
                                 struct fl_error *error)
{
    assert(row < cache_rows(self));
    if (n < 1 || n > self->options.cache_tokens - self->cached[row])
        return fl_fail(error, FL_ERANGE, "the cache holds %u tokens and has %zu already",
                       self->options.cache_tokens, self->cached[row]);
    return FL_OK;
}

/* Before the first tokens of a generation. */
static void refresh_if_empty(struct fl_engine *self)
{
    for (uint32_t row = 0; row < cache_rows(self); row++)
        if (self->cached[row])
            return;
    fl_engine_refresh(self);
}

enum fl_status fl_engine_extend_row(struct fl_engine *self, uint32_t row, const int32_t *ids,
                                    uint32_t n, float *logits, struct fl_error *error)
{
    enum fl_status status = check_room(self, row, n, error);
    refresh_if_empty(self);
    for (uint32_t first = 0, step; !status && first < n; first += step) {
        step = n - first < self->batch ? n - first : (uint32_t)self->batch;
        start_batch(self);
        self->span_rows[0] = row;
        status = append_ids(self, ids + first, step, self->cached[row], error);
        if (status)
            return status;
        const struct fl_pass pass = make_pass(self);
        forward(self, &pass, true);
        self->cached[row] += step;
    }
    if (!status)
        fl_head_logits(&self->work, &self->head, self->x + (self->tokens - 1) * self->head.hidden,
                       1, logits);
    return status;
}

enum fl_status fl_engine_extend(struct fl_engine *self, const int32_t *ids, uint32_t n,
                                float *logits, struct fl_error *error)
{
    return fl_engine_extend_row(self, 0, ids, n, logits, error);
}

enum fl_status fl_engine_extend_rows(struct fl_engine *self, const uint32_t *rows,
                                     const int32_t *ids, uint32_t count, float *logits,
                                     struct fl_error *error)
{
    enum fl_status status = FL_OK;
    assert(count > 0 && count <= cache_rows(self));
    refresh_if_empty(self);
    start_batch(self);
    for (uint32_t i = 0; !status && i < count; i++) {
        status = check_room(self, rows[i], 1, error);
        self->span_rows[i] = rows[i];
        if (!status)
            status = append_ids(self, &ids[i], 1, self->cached[rows[i]], error);
    }
    if (status)
        return status;
    const struct fl_pass pass = make_pass(self);
    forward(self, &pass, true);
    for (uint32_t i = 0; i < count; i++)
        self->cached[rows[i]]++;
    fl_head_logits(&self->work, &self->head, self->x, count, logits);
    return FL_OK;
}

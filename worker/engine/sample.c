/* sample.c - see sample.h. Cutting takes a heap, not a sort: what is kept is most often a few
 * hundred of a hundred thousand tokens. */
#include "worker/engine/sample.h"

#include <math.h>

#include "base/alloc.h"

struct fl_sampler {
    struct fl_sampling how;
    uint64_t state;
    uint32_t vocab;
    double *weights; /* (vocab) exp((logit - largest) / temperature); owned */
    uint32_t *heap;  /* (vocab) ids; those taken out lie at its end, the likeliest last; owned */
};

/* SplitMix64 (Steele, Lea, Flood 2014); uniform in [0, 1) with 53 bits */
static double uniform(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

enum fl_status fl_sampler_create(const struct fl_sampling *how, uint32_t vocab,
                                 struct fl_sampler **out, struct fl_error *error)
{
    *out = NULL;
    struct fl_sampler *self = fl_calloc(1, sizeof *self);
    if (!self)
        return fl_fail_memory(error);
    *self = (struct fl_sampler){.how = *how, .state = how->seed, .vocab = vocab};
    self->weights = fl_calloc(vocab, sizeof *self->weights);
    self->heap = fl_calloc(vocab, sizeof *self->heap);
    if (!self->weights || !self->heap) {
        fl_sampler_destroy(&self);
        return fl_fail_memory(error);
    }
    *out = self;
    return FL_OK;
}

void fl_sampler_destroy(struct fl_sampler **self)
{
    if (!*self)
        return;
    fl_free((*self)->weights);
    fl_free((*self)->heap);
    fl_free(*self);
    *self = NULL;
}

static uint32_t largest(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

/* By logit, not by weight: weights far below the largest are all 0. */
static bool before(const float *logits, uint32_t a, uint32_t b)
{
    return logits[a] > logits[b] || (!(logits[a] < logits[b]) && a < b);
}

static void sift(uint32_t *heap, uint32_t size, uint32_t at, const float *logits)
{
    const uint32_t id = heap[at];
    for (uint32_t child; (child = 2 * at + 1) < size; at = child) {
        if (child + 1 < size && before(logits, heap[child + 1], heap[child]))
            child++;
        if (!before(logits, heap[child], id))
            break;
        heap[at] = heap[child];
    }
    heap[at] = id;
}

/* Move the likeliest of the first `size` ids of the heap to its end. */
static uint32_t pop(uint32_t *heap, uint32_t size, const float *logits)
{
    const uint32_t id = heap[0];
    heap[0] = heap[size - 1];
    heap[size - 1] = id;
    sift(heap, size - 1, 0, logits);
    return id;
}

/* What stays: the last `kept` entries of the heap, of weight `total`. */
struct cut {
    uint32_t kept;
    double total;
};

static struct cut cut_tail(struct fl_sampler *self, const float *logits, double total)
{
    const uint32_t vocab = self->vocab, k = self->how.top_k;
    const bool nucleus = self->how.top_p > 0.0 && self->how.top_p < 1.0;
    const uint32_t limit = k && k < vocab ? k : vocab;
    uint32_t *heap = self->heap;
    for (uint32_t i = 0; i < vocab; i++)
        heap[i] = i;
    for (uint32_t i = vocab / 2; i-- > 0;)
        sift(heap, vocab, i, logits);
    struct cut cut = {0, 0.0};
    uint32_t popped = 0;
    if (limit < vocab) { /* top_p is of what top_k leaves: its sum comes first */
        total = 0.0;
        for (; popped < limit; popped++)
            total += self->weights[pop(heap, vocab - popped, logits)];
    }
    while (cut.kept < limit && (!nucleus || !cut.kept || cut.total < self->how.top_p * total)) {
        if (cut.kept == popped)
            (void)pop(heap, vocab - popped++, logits);
        cut.total += self->weights[heap[vocab - 1 - cut.kept++]];
    }
    return cut;
}

/* Fill weights; *all: every token stays, and the heap was not needed. */
static struct cut prepare(struct fl_sampler *self, const float *logits, bool *all)
{
    const double shift = (double)logits[largest(logits, self->vocab)];
    struct cut cut = {self->vocab, 0.0};
    for (uint32_t i = 0; i < self->vocab; i++) {
        self->weights[i] = exp(((double)logits[i] - shift) / self->how.temperature);
        cut.total += self->weights[i];
    }
    const bool nucleus = self->how.top_p > 0.0 && self->how.top_p < 1.0;
    *all = !nucleus && (!self->how.top_k || self->how.top_k >= self->vocab);
    return *all ? cut : cut_tail(self, logits, cut.total);
}

/* The i-th of the tokens that stay. */
static uint32_t kept_id(const struct fl_sampler *self, bool all, uint32_t i)
{
    return all ? i : self->heap[self->vocab - 1 - i];
}

int32_t fl_sampler_next(struct fl_sampler *self, const float *logits)
{
    bool all;
    if (self->how.temperature <= 0.0)
        return (int32_t)largest(logits, self->vocab);
    const struct cut cut = prepare(self, logits, &all);
    double left = uniform(&self->state) * cut.total;
    for (uint32_t i = 0; i < cut.kept; i++) {
        const uint32_t id = kept_id(self, all, i);
        left -= self->weights[id];
        if (left < 0.0)
            return (int32_t)id;
    }
    return (int32_t)largest(logits, self->vocab); /* rounding left a remainder */
}

void fl_sampler_probabilities(struct fl_sampler *self, const float *logits, double *out)
{
    bool all;
    for (uint32_t i = 0; i < self->vocab; i++)
        out[i] = 0.0;
    if (self->how.temperature <= 0.0) {
        out[largest(logits, self->vocab)] = 1.0;
        return;
    }
    const struct cut cut = prepare(self, logits, &all);
    for (uint32_t i = 0; i < cut.kept; i++) {
        const uint32_t id = kept_id(self, all, i);
        out[id] = self->weights[id] / cut.total;
    }
}

static bool is_stop(const struct fl_generate_options *options, int32_t id)
{
    for (uint32_t i = 0; i < options->stop_count; i++)
        if (options->stop_ids[i] == id)
            return true;
    return false;
}

/* Draw from logits and go on until something ends it. */
static enum fl_status go_on(struct fl_engine *engine, struct fl_sampler *sampler, float *logits,
                            const struct fl_generate_options *options, fl_token_sink sink,
                            void *context, enum fl_finish *finish, struct fl_error *error)
{
    *finish = FL_FINISH_LENGTH;
    for (uint32_t made = 0; made < options->max_tokens; made++) {
        const int32_t id = fl_sampler_next(sampler, logits);
        if (is_stop(options, id))
            *finish = FL_FINISH_STOP;
        else if (!sink(context, id))
            *finish = FL_FINISH_SINK;
        if (*finish != FL_FINISH_LENGTH || made + 1 == options->max_tokens ||
            fl_engine_cached(engine) == fl_engine_cache_tokens(engine))
            return FL_OK;
        enum fl_status status = fl_engine_extend(engine, &id, 1, logits, error);
        if (status)
            return status;
    }
    return FL_OK;
}

enum fl_status fl_engine_generate(struct fl_engine *engine, const int32_t *prompt, uint32_t count,
                                  const struct fl_generate_options *options, fl_token_sink sink,
                                  void *context, enum fl_finish *finish, struct fl_error *error)
{
    const uint32_t vocab = fl_engine_vocab(engine);
    struct fl_sampler *sampler = NULL;
    enum fl_finish ended = FL_FINISH_LENGTH;
    float *logits = fl_calloc_aligned(vocab, sizeof *logits);
    if (!logits)
        return fl_fail_memory(error);
    enum fl_status status = fl_sampler_create(&options->sampling, vocab, &sampler, error);
    fl_engine_reset_cache(engine);
    if (!status)
        status = fl_engine_extend(engine, prompt, count, logits, error);
    if (!status)
        status = go_on(engine, sampler, logits, options, sink, context, &ended, error);
    if (finish)
        *finish = ended;
    fl_sampler_destroy(&sampler);
    fl_free(logits);
    return status;
}

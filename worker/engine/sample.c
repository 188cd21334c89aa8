/* sample.c - see sample.h. */
#include "worker/engine/sample.h"

#include <math.h>

#include "base/alloc.h"

/* SplitMix64 (Steele, Lea, Flood 2014); uniform in [0, 1) with 53 bits */
static double uniform(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static uint32_t largest(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

int32_t fl_sample_token(struct fl_sampler *self, const float *logits, uint32_t vocab)
{
    const uint32_t best = largest(logits, vocab);
    if (self->temperature <= 0.0)
        return (int32_t)best;
    const double shift = (double)logits[best];
    double total = 0.0;
    for (uint32_t i = 0; i < vocab; i++)
        total += exp(((double)logits[i] - shift) / self->temperature);
    double left = uniform(&self->state) * total;
    for (uint32_t i = 0; i < vocab; i++) {
        left -= exp(((double)logits[i] - shift) / self->temperature);
        if (left < 0.0)
            return (int32_t)i;
    }
    return (int32_t)best;
}

static bool is_stop(const struct fl_generate_options *options, int32_t id)
{
    for (uint32_t i = 0; i < options->stop_count; i++)
        if (options->stop_ids[i] == id)
            return true;
    return false;
}

enum fl_status fl_engine_generate(struct fl_engine *engine, const int32_t *prompt, uint32_t count,
                                  const struct fl_generate_options *options, fl_token_sink sink,
                                  void *context, struct fl_error *error)
{
    const uint32_t vocab = fl_engine_vocab(engine);
    struct fl_sampler sampler = {options->temperature, options->seed};
    float *logits = fl_calloc_aligned(vocab, sizeof *logits);
    if (!logits)
        return fl_fail_memory(error);
    fl_engine_reset_cache(engine);
    enum fl_status status = fl_engine_extend(engine, prompt, count, logits, error);
    for (uint32_t made = 0; !status && made < options->max_tokens; made++) {
        int32_t id = fl_sample_token(&sampler, logits, vocab);
        if (is_stop(options, id) || !sink(context, id) || made + 1 == options->max_tokens)
            break;
        if (fl_engine_cached(engine) == fl_engine_cache_tokens(engine))
            break;
        status = fl_engine_extend(engine, &id, 1, logits, error);
    }
    fl_free(logits);
    return status;
}

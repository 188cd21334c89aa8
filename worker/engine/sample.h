/*
 * sample.h - choosing the next token, and generation with the engine's key/value cache.
 *
 * Temperature 0 is greedy (the lowest id among equal largest logits). Otherwise a token is drawn
 * from softmax(logits / temperature) by one uniform number of a seeded generator (SplitMix64), so
 * that a seed repeats its text.
 * Threads: one thread at a time.
 */
#ifndef FL_ENGINE_SAMPLE_H
#define FL_ENGINE_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "worker/engine/engine.h"

struct fl_sampler {
    double temperature; /* >= 0 */
    uint64_t state;     /* the seed at the start */
};

/* logits (vocab), finite. */
int32_t fl_sample_token(struct fl_sampler *self, const float *logits, uint32_t vocab);

struct fl_generate_options {
    uint32_t max_tokens; /* new tokens at most */
    double temperature;
    uint64_t seed;
    const int32_t *stop_ids; /* generation ends when one of them is drawn (it is not delivered) */
    uint32_t stop_count;
};

/* Gets each new token as soon as it is known; false ends the generation. */
typedef bool (*fl_token_sink)(void *context, int32_t id);

/*
 * Continue prompt (count >= 1) until max_tokens, a stop id, the sink's false or a full cache. The
 * engine needs cache_tokens >= count + max_tokens to reach max_tokens; its cache is reset first.
 */
FL_CHECKED enum fl_status fl_engine_generate(struct fl_engine *engine, const int32_t *prompt,
                                             uint32_t count,
                                             const struct fl_generate_options *options,
                                             fl_token_sink sink, void *context,
                                             struct fl_error *error);

#endif

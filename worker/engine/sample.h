/*
 * sample.h - choosing the next token, and generation with the engine's key/value cache.
 *
 * Temperature 0 is greedy (the lowest id among equal largest logits). Otherwise the distribution is
 * softmax(logits / temperature), cut in this order, as transformers does:
 *   top_k   the k likeliest tokens stay (of equal ones the lower ids), renormalised
 *   top_p   of those, in falling order, the shortest run whose sum reaches top_p stays; the
 *           likeliest always does (Holtzman et al., "The Curious Case of Neural Text Degeneration",
 *           ICLR 2020), renormalised
 * and one uniform number of a seeded generator (SplitMix64) draws from it, so that a seed repeats
 * its text.
 * Threads: a sampler belongs to one thread at a time.
 */
#ifndef FL_ENGINE_SAMPLE_H
#define FL_ENGINE_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "worker/engine/engine.h"

struct fl_sampling {
    double temperature; /* >= 0 */
    double top_p;       /* 0 < p < 1; anything else: off */
    uint32_t top_k;     /* 0: off */
    uint64_t seed;
};

struct fl_sampler; /* opaque: the generator's state, and scratch for one distribution */

/* For logits of `vocab` tokens (>= 1). FL_ENOMEM. */
FL_CHECKED enum fl_status fl_sampler_create(const struct fl_sampling *how, uint32_t vocab,
                                            struct fl_sampler **out, struct fl_error *error);
void fl_sampler_destroy(struct fl_sampler **self);

/* The next token of logits (vocab), finite. */
int32_t fl_sampler_next(struct fl_sampler *self, const float *logits);
/*
 * The distribution that fl_sampler_next() draws from, into out (vocab), summing to 1; draws
 * nothing. Temperature 0 puts all on one token.
 */
void fl_sampler_probabilities(struct fl_sampler *self, const float *logits, double *out);

struct fl_generate_options {
    uint32_t max_tokens; /* new tokens at most */
    struct fl_sampling sampling;
    const int32_t *stop_ids; /* generation ends when one of them is drawn (it is not delivered) */
    uint32_t stop_count;
};

/* Why a generation ended. */
enum fl_finish {
    FL_FINISH_LENGTH, /* max_tokens, or the cache is full */
    FL_FINISH_STOP,   /* a stop id */
    FL_FINISH_SINK    /* the sink's false */
};

/* Gets each new token as soon as it is known; false ends the generation. */
typedef bool (*fl_token_sink)(void *context, int32_t id);

/*
 * Continue prompt (count >= 1) until max_tokens, a stop id, the sink's false or a full cache;
 * *finish (may be NULL) says which. The engine needs cache_tokens >= count + max_tokens to reach
 * max_tokens; its cache is reset first.
 */
FL_CHECKED enum fl_status fl_engine_generate(struct fl_engine *engine, const int32_t *prompt,
                                             uint32_t count,
                                             const struct fl_generate_options *options,
                                             fl_token_sink sink, void *context,
                                             enum fl_finish *finish, struct fl_error *error);

#endif

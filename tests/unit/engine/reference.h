/*
 * reference.h - a small random base in memory, and the same model computed naively in double
 * precision straight from the formulas: the trusted side of the engine's tests.
 */
#ifndef FL_TESTS_ENGINE_REFERENCE_H
#define FL_TESTS_ENGINE_REFERENCE_H

#include "worker/engine/engine.h"
#include "worker/engine/model_internal.h"

enum { TOY_POSITIONS = 140 }; /* of a toy that learns them */

/* What to make. Zero means the default in brackets. */
struct toy_shape {
    const char *arch; /* as in config.json; GPT-2 needs kv_heads = heads */
    uint32_t hidden, ffn, layers, heads, kv_heads, head_dim, vocab;
    bool tied, biases;
    uint32_t window, window_from; /* of attention, and the lowest layer that has it; 0: none */
    enum fl_rope_kind rope;       /* llama3 with factor 4 over 16 positions, linear with factor 3 */
};

/* GQA 3:1, heads * head_dim != hidden, odd sizes. */
struct toy_shape toy_default(void);

/*
 * Everything that toy_*() makes belongs to a pool of this process: toy_teardown(), a checked
 * fixture of every suite, empties it.
 */
void toy_teardown(void);
/* Zeroed memory of the pool. */
void *toy_memory(size_t count, size_t size);

struct fl_model *toy_model(const struct toy_shape *shape, uint64_t seed);
/* An adapter on `targets` with random A and B. */
struct fl_adapter *toy_adapter(const struct fl_model *model, const char *targets, uint32_t rank,
                               uint64_t seed);
/* count rows of length first, first + step, ...; every third label is ignored. */
struct fl_row *toy_rows(const struct fl_model *model, uint32_t count, uint32_t first, uint32_t step,
                        uint64_t seed);

/* Uniform in [-1, 1). */
double toy_random(uint64_t *state);

/* logits (n, vocab) in double precision. adapter may be NULL. */
void reference_logits(const struct fl_model *model, const struct fl_adapter *adapter,
                      const int32_t *ids, uint32_t n, double *logits);
/* Sum of losses over the scored positions. */
double reference_loss(const struct fl_model *model, const struct fl_adapter *adapter,
                      const struct fl_row *rows, uint32_t count);
/*
 * d loss / d value by central differences, value an element of the adapter's A, B or m (float32; it
 * is moved by exactly representable steps and put back). DoRA's norms are held meanwhile.
 */
double reference_gradient(const struct fl_model *model, struct fl_adapter *adapter,
                          const struct fl_row *rows, uint32_t count, float *value);

#endif

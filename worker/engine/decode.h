/*
 * decode.h - greedy continuations of many prompts at once. Each step reads every weight once for
 * all of them; a row of the cache that becomes free takes the next prompt ("continuous batching":
 * Yu et al., "Orca", OSDI 2022).
 *
 * What comes out for a prompt is what fl_engine_generate() gives at temperature 0, but where two
 * logits differ by no more than float rounding.
 * Threads: one call at a time a model; *stop may be set from any thread or a signal handler.
 */
#ifndef FL_ENGINE_DECODE_H
#define FL_ENGINE_DECODE_H

#include <stdatomic.h>
#include <stddef.h>

#include "worker/data/tokenizer.h"
#include "worker/engine/sample.h"

struct fl_prompt {
    const int32_t *ids; /* (count), borrowed */
    uint32_t count;     /* >= 1 */
};

/* Zero it to start; fl_ids_free(&ids) in any case. */
struct fl_completion {
    struct fl_ids ids;     /* without what ended it */
    enum fl_finish finish; /* FL_FINISH_LENGTH or FL_FINISH_STOP */
};

struct fl_decode_options {
    uint32_t max_tokens; /* new tokens of each, >= 1 */
    uint32_t rows;       /* prompts at once, 1 to FL_CACHE_ROWS_MAX; 0: chosen */
    uint32_t threads;    /* 0: the processors that this process may use */
    enum fl_compute compute;
    const int32_t *stop_ids; /* a continuation ends in front of one of them */
    uint32_t stop_count;
    void (*on_done)(void *context, size_t done); /* after each prompt that is done; may be NULL */
    void *context;
};

/*
 * Continue prompts (count) into completions (count, zeroed), in their order. FL_ESTOPPED: stop
 * (may be NULL) was set.
 */
FL_CHECKED enum fl_status fl_decode_greedy(
    const struct fl_model *model, const struct fl_adapter *adapter, const struct fl_prompt *prompts,
    size_t count, const struct fl_decode_options *options, const atomic_int *stop,
    struct fl_completion *completions, struct fl_error *error);

#endif

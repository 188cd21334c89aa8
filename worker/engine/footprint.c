/* footprint.c - see footprint.h. */
#include "worker/engine/footprint.h"

#include <inttypes.h>

#include "base/alloc.h"

/*
 * Program, libraries, heap and stacks of a run without model and rows, as measured; and what
 * reading text with a vocabulary leaves behind in the heap, an entry.
 */
#define PROGRAM_BYTES (10ull << 20)
#define ENTRY_BYTES   256u

static uint32_t scored_of(const struct fl_row *row)
{
    uint32_t scored = 0;
    for (uint32_t t = 1; t < row->length; t++)
        scored += row->labels[t] != FL_IGNORE;
    return scored;
}

/* The sum of the `most` largest of the values that histogram (top + 1) counts; 2^32 - 1 at most. */
static uint32_t largest_sum(const uint32_t *histogram, uint32_t top, uint64_t most)
{
    uint64_t sum = 0;
    for (uint64_t value = top; value > 0 && most > 0; value--) {
        const uint64_t taken = histogram[value] < most ? histogram[value] : most;
        sum += taken * value;
        most -= taken;
    }
    return sum < UINT32_MAX ? (uint32_t)sum : UINT32_MAX;
}

static enum fl_status bound_set(const struct fl_row_set *set, struct fl_row_bounds *out,
                                struct fl_error *error)
{
    uint32_t longest = 1;
    for (size_t i = 0; i < set->count; i++)
        longest = set->rows[i].length > longest ? set->rows[i].length : longest;
    uint32_t *tokens = fl_calloc((size_t)longest + 1, 2 * sizeof *tokens);
    if (!tokens)
        return fl_fail_memory(error);
    uint32_t *scored = tokens + longest + 1;
    for (size_t i = 0; i < set->count; i++) {
        tokens[set->rows[i].length]++;
        scored[scored_of(&set->rows[i])]++;
        out->bytes += sizeof *set->rows + 2ull * sizeof(int32_t) * set->rows[i].length;
    }
    const uint32_t most = largest_sum(tokens, longest, set->at_once);
    const uint32_t most_scored = largest_sum(scored, longest, set->at_once);
    out->row_tokens = longest > out->row_tokens ? longest : out->row_tokens;
    out->call_tokens = most > out->call_tokens ? most : out->call_tokens;
    out->call_scored = most_scored > out->call_scored ? most_scored : out->call_scored;
    fl_free(tokens);
    return FL_OK;
}

enum fl_status fl_row_bounds(const struct fl_row_set *sets, size_t count, struct fl_row_bounds *out,
                             struct fl_error *error)
{
    enum fl_status status = FL_OK;
    *out = (struct fl_row_bounds){.row_tokens = 1};
    for (size_t i = 0; i < count && status == FL_OK; i++) {
        if (sets[i].rows)
            status = bound_set(&sets[i], out, error);
    }
    return status;
}

enum fl_status fl_footprint(const struct fl_model *model, const struct fl_adapter *adapter,
                            uint64_t limit, uint32_t copies, uint32_t moments, uint64_t bytes,
                            struct fl_engine_options *options, struct fl_footprint *out,
                            struct fl_error *error)
{
    const uint64_t values = adapter ? fl_adapter_parameters(adapter) * sizeof(float) : 0;
    struct fl_engine_need need;
    struct fl_error own;
    *out = (struct fl_footprint){
        .weights = fl_model_bytes(model),
        .adapter = (2 + copies) * values, /* itself, and the bytes that are saved */
        .rest = PROGRAM_BYTES + (uint64_t)ENTRY_BYTES * fl_model_config(model)->vocab + bytes};
    options->memory_limit = 0;
    enum fl_status status = fl_engine_plan(model, adapter, options, &need, error);
    if (status != FL_OK)
        return status;
    out->optimizer = moments * need.gradients;
    const uint64_t fixed = out->weights + out->adapter + out->optimizer + out->rest;
    if (limit) {
        options->memory_limit = limit > fixed ? limit - fixed : 1;
        status = fl_engine_plan(model, adapter, options, &need, &own);
    }
    out->adapter += need.gradients;
    out->activations = need.bytes - need.gradients;
    out->total = fixed + need.bytes;
    out->batch_tokens = need.batch_tokens;
    out->recompute = need.recompute;
    if (status == FL_ENOMEM)
        return fl_fail(error, FL_ENOMEM,
                       "a memory limit of %" PRIu64 "M is too small: rows of %u tokens need at "
                       "least %" PRIu64 "M here, %" PRIu64 "M of it for the base model; raise the "
                       "limit or use shorter rows",
                       limit >> 20, options->max_row_tokens, (out->total + (1u << 20) - 1) >> 20,
                       out->weights >> 20);
    return status;
}

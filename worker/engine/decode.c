/* decode.c - see decode.h. A lane is a row of the cache and the prompt that it works on. */
#include "worker/engine/decode.h"

#include "base/alloc.h"

enum { DEFAULT_ROWS = 16 };

struct decoder {
    const struct fl_prompt *prompts;
    struct fl_completion *completions;
    size_t count, next, done; /* prompts: all, the first not begun, finished */
    struct fl_decode_options options;
    struct fl_engine *engine;
    float *logits; /* (rows, vocab), owned */
    uint32_t vocab;
    uint32_t lanes[FL_CACHE_ROWS_MAX]; /* (busy) rows of the cache at work */
    size_t prompt_of[FL_CACHE_ROWS_MAX];
    int32_t last[FL_CACHE_ROWS_MAX]; /* the token that goes in next, by row */
    uint32_t busy;
};

static int32_t likeliest(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

static bool is_stop(const struct fl_decode_options *options, int32_t id)
{
    for (uint32_t i = 0; i < options->stop_count; i++)
        if (options->stop_ids[i] == id)
            return true;
    return false;
}

/* The next token of a row is known. *over: its continuation is complete. */
static enum fl_status take_token(struct decoder *self, uint32_t row, const float *logits,
                                 bool *over, struct fl_error *error)
{
    struct fl_completion *completion = &self->completions[self->prompt_of[row]];
    const int32_t id = likeliest(logits, self->vocab);
    self->last[row] = id;
    *over = is_stop(&self->options, id);
    if (*over) {
        completion->finish = FL_FINISH_STOP;
    } else {
        if (fl_ids_push(&completion->ids, id) != FL_OK)
            return fl_fail_memory(error);
        completion->finish = FL_FINISH_LENGTH;
        *over = completion->ids.count == self->options.max_tokens;
    }
    if (*over && ++self->done && self->options.on_done)
        self->options.on_done(self->options.context, self->done);
    return FL_OK;
}

/* Give the row prompts until one of them needs more than its first token, or none is left. */
static enum fl_status fill_row(struct decoder *self, uint32_t row, bool *works,
                               struct fl_error *error)
{
    *works = false;
    while (!*works && self->next < self->count) {
        const struct fl_prompt *prompt = &self->prompts[self->next];
        bool over;
        self->prompt_of[row] = self->next++;
        fl_engine_reset_row(self->engine, row);
        enum fl_status status = fl_engine_extend_row(self->engine, row, prompt->ids, prompt->count,
                                                     self->logits, error);
        if (!status)
            status = take_token(self, row, self->logits, &over, error);
        if (status)
            return status;
        *works = !over;
    }
    return FL_OK;
}

static enum fl_status fill_rows(struct decoder *self, struct fl_error *error)
{
    for (uint32_t row = 0; row < self->options.rows; row++) {
        bool works;
        enum fl_status status = fill_row(self, row, &works, error);
        if (status)
            return status;
        if (works)
            self->lanes[self->busy++] = row;
    }
    return FL_OK;
}

/* One token more for every lane; lanes whose prompt is complete take the next one or end. */
static enum fl_status step(struct decoder *self, struct fl_error *error)
{
    int32_t ids[FL_CACHE_ROWS_MAX];
    bool over[FL_CACHE_ROWS_MAX];
    for (uint32_t i = 0; i < self->busy; i++)
        ids[i] = self->last[self->lanes[i]];
    enum fl_status status = fl_engine_extend_rows(self->engine, self->lanes, ids, self->busy,
                                                  self->logits, error);
    for (uint32_t i = 0; !status && i < self->busy; i++)
        status = take_token(self, self->lanes[i], self->logits + (size_t)i * self->vocab, &over[i],
                            error);
    uint32_t kept = 0;
    for (uint32_t i = 0; !status && i < self->busy; i++) {
        bool works = true;
        if (over[i])
            status = fill_row(self, self->lanes[i], &works, error);
        if (works)
            self->lanes[kept++] = self->lanes[i];
    }
    self->busy = kept;
    return status;
}

static enum fl_status open_engine(struct decoder *self, const struct fl_model *model,
                                  const struct fl_adapter *adapter, struct fl_error *error)
{
    struct fl_decode_options *o = &self->options;
    uint32_t longest = 1;
    for (size_t i = 0; i < self->count; i++)
        longest = self->prompts[i].count > longest ? self->prompts[i].count : longest;
    o->rows = o->rows ? o->rows : DEFAULT_ROWS;
    o->rows = o->rows > self->count ? (uint32_t)self->count : o->rows;
    if (o->max_tokens < 1 || o->max_tokens > FL_SEQ_MAX || longest > FL_SEQ_MAX - o->max_tokens)
        return fl_fail(error, FL_ERANGE, "prompt and continuation are too long together");
    const struct fl_engine_options options = {.threads = o->threads,
                                              .compute = o->compute,
                                              .max_row_tokens = 1,
                                              .train = FL_TRAIN_NONE,
                                              .cache_tokens = longest + o->max_tokens,
                                              .cache_rows = o->rows};
    enum fl_status status = fl_engine_create(model, adapter, &options, &self->engine, error);
    if (status)
        return status;
    self->vocab = fl_engine_vocab(self->engine);
    self->logits = fl_calloc_aligned((size_t)o->rows * self->vocab, sizeof *self->logits);
    return self->logits ? FL_OK : fl_fail_memory(error);
}

enum fl_status fl_decode_greedy(const struct fl_model *model, const struct fl_adapter *adapter,
                                const struct fl_prompt *prompts, size_t count,
                                const struct fl_decode_options *options, const atomic_int *stop,
                                struct fl_completion *completions, struct fl_error *error)
{
    if (!count)
        return FL_OK;
    struct decoder *self = fl_calloc(1, sizeof *self);
    if (!self)
        return fl_fail_memory(error);
    *self = (struct decoder){
        .prompts = prompts, .completions = completions, .count = count, .options = *options};
    enum fl_status status = open_engine(self, model, adapter, error);
    if (!status)
        status = fill_rows(self, error);
    while (!status && self->busy) {
        status = step(self, error);
        if (!status && stop && atomic_load(stop))
            status = fl_fail(error, FL_ESTOPPED, "stopped while generating");
    }
    fl_engine_destroy(&self->engine);
    fl_free(self->logits);
    fl_free(self);
    return status;
}

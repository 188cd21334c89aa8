/* answer_choices.c - see answering.h: the likelihood of given answers. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "worker/answering.h"
#include "worker/data/source.h"
#include "worker/data/tokenizer.h"
#include "worker/data/unicode.h"

/* One answer of one row, as tokens behind its prompt. */
struct choice {
    size_t first;            /* of its row's tokens in scoring.ids and .labels */
    uint32_t prompt, tokens; /* tokens in front of it, and its own */
    size_t characters;
    double logprob;
};

struct question {
    json_t *row; /* owned */
    size_t first_choice;
    uint32_t count, answer;
};

struct scoring {
    const struct fl_answering *how;
    struct fl_ids ids, labels; /* of every choice's row, one behind the other */
    struct choice *choices;
    size_t choice_count, choice_room;
    struct question *questions;
    size_t question_count, question_room;
    uint64_t bad, processed;
    uint32_t longest;
    double seconds;
};

static void scoring_free(struct scoring *self)
{
    for (size_t i = 0; i < self->question_count; i++) {
        json_decref(self->questions[i].row);
    }
    fl_free(self->questions);
    fl_free(self->choices);
    fl_ids_free(&self->ids);
    fl_ids_free(&self->labels);
}

/* Room for one element more at *items; false: out of memory. */
static bool make_room(void **items, size_t count, size_t *room, size_t size)
{
    if (count < *room) {
        return true;
    }
    const size_t wanted = *room ? 2 * *room : 64;
    void *grown = fl_reallocarray(*items, wanted, size);
    if (!grown) {
        return false;
    }
    *items = grown;
    *room = wanted;
    return true;
}

static size_t characters_of(const char *text, size_t length)
{
    size_t n = 0;
    for (size_t at = 0, used; at < length; at += used, n++) {
        (void)fl_utf8_next(text + at, length - at, &used);
    }
    return n;
}

static enum fl_status add_choice(struct scoring *self, const struct fl_ids *prompt,
                                 const json_t *text, struct fl_error *error)
{
    const unsigned flags = self->how->specials_plain ? FL_ENCODE_SPECIALS_PLAIN : 0;
    const size_t first = self->ids.count, length = json_string_length(text);
    if (!make_room((void **)&self->choices, self->choice_count, &self->choice_room,
                   sizeof *self->choices) ||
        fl_ids_append(&self->ids, prompt->ids, prompt->count) != FL_OK) {
        return fl_fail_memory(error);
    }
    enum fl_status status = fl_tokenizer_encode(self->how->tokenizer, json_string_value(text),
                                                length, flags, &self->ids, error);
    const size_t end = self->ids.count, own = end - first - prompt->count;
    if (status == FL_OK && own == 0) {
        return fl_fail(error, FL_EFORMAT, "a choice is empty");
    }
    if (status == FL_OK && end - first > FL_SEQ_MAX) {
        return fl_fail(error, FL_EFORMAT, "prompt and choice are longer than %d tokens",
                       FL_SEQ_MAX);
    }
    for (size_t i = first; status == FL_OK && i < end; i++) {
        const bool scored = i >= first + prompt->count;
        if (fl_ids_push(&self->labels, scored ? self->ids.ids[i] : FL_IGNORE) != FL_OK) {
            status = fl_fail_memory(error);
        }
    }
    self->choices[self->choice_count] =
        (struct choice){first, (uint32_t)prompt->count, (uint32_t)own,
                        characters_of(json_string_value(text), length), 0.0};
    if (status == FL_OK) {
        self->choice_count++;
        self->longest = end - first > self->longest ? (uint32_t)(end - first) : self->longest;
    }
    return status;
}

/* "answer": the number of a choice, from 0, or its text. */
static enum fl_status find_answer(const json_t *answer, const json_t *choices, uint32_t *out,
                                  struct fl_error *error)
{
    const size_t count = json_array_size(choices);
    if (json_is_integer(answer)) {
        const json_int_t n = json_integer_value(answer);
        *out = (uint32_t)n;
        if (n >= 0 && (uint64_t)n < count) {
            return FL_OK;
        }
    }
    for (size_t i = 0; json_is_string(answer) && i < count; i++) {
        *out = (uint32_t)i;
        if (json_equal(answer, json_array_get(choices, i))) {
            return FL_OK;
        }
    }
    return fl_fail(error, FL_EFORMAT,
                   "\"answer\" is neither the number of a choice, from 0, nor its text");
}

static enum fl_status check_row(const json_t *row, uint32_t *answer, struct fl_error *error)
{
    const json_t *choices = json_object_get(row, "choices");
    const size_t count = json_array_size(choices);
    if (!json_is_string(json_object_get(row, "prompt"))) {
        return fl_fail(error, FL_EFORMAT, "\"prompt\" is missing or not a string");
    }
    if (count < 2 || count > FL_CHOICES_MAX) {
        return fl_fail(error, FL_EFORMAT, "\"choices\" is no array of 2 to %u texts",
                       FL_CHOICES_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        if (!json_is_string(json_array_get(choices, i))) {
            return fl_fail(error, FL_EFORMAT, "choice %zu is not a string", i + 1);
        }
    }
    return find_answer(json_object_get(row, "answer"), choices, answer, error);
}

/* Takes row over. What a row that failed has added is forgotten. */
static enum fl_status add_row(struct scoring *self, json_t *row, struct fl_error *error)
{
    const struct scoring before = *self;
    const json_t *prompt = json_object_get(row, "prompt");
    const json_t *choices = json_object_get(row, "choices");
    struct question question = {.row = row, .first_choice = self->choice_count};
    struct fl_ids ids = {0};
    enum fl_status status = check_row(row, &question.answer, error);
    if (status == FL_OK) {
        const unsigned flags = FL_ENCODE_ADD_SPECIAL | FL_ENCODE_PREFIX_ONLY |
                               (self->how->specials_plain ? FL_ENCODE_SPECIALS_PLAIN : 0);
        status = fl_tokenizer_encode(self->how->tokenizer, json_string_value(prompt),
                                     json_string_length(prompt), flags, &ids, error);
    }
    if (status == FL_OK && ids.count == 0) {
        status = fl_fail(error, FL_EFORMAT, "\"prompt\" has no token to stand in front");
    }
    for (size_t i = 0; status == FL_OK && i < json_array_size(choices); i++) {
        status = add_choice(self, &ids, json_array_get(choices, i), error);
        question.count++;
    }
    fl_ids_free(&ids);
    if (status == FL_OK && !make_room((void **)&self->questions, self->question_count,
                                      &self->question_room, sizeof *self->questions)) {
        status = fl_fail_memory(error);
    }
    if (status == FL_OK) {
        self->questions[self->question_count++] = question;
        return FL_OK;
    }
    json_decref(row);
    self->choice_count = before.choice_count;
    self->ids.count = before.ids.count;
    self->labels.count = before.labels.count;
    self->longest = before.longest;
    return status;
}

/* One record. FL_EFORMAT with the place in front where it is broken and not left out. */
static enum fl_status read_record(struct scoring *self, struct fl_source *source, bool *more,
                                  struct fl_error *error)
{
    json_t *row = NULL;
    bool skippable = true;
    enum fl_status status = fl_source_next(source, &row, &skippable, error);
    *more = row != NULL || status == FL_EFORMAT;
    if (status == FL_OK && row) {
        status = add_row(self, row, error);
        if (status != FL_OK) {
            fl_source_blame(source, error);
        }
    }
    if (status == FL_EFORMAT && skippable && self->how->skip_bad_rows) {
        self->bad++;
        return FL_OK;
    }
    return status;
}

static enum fl_status read_rows(struct scoring *self, struct fl_error *error)
{
    const struct fl_answering *how = self->how;
    struct fl_source *source = NULL;
    enum fl_status status = fl_source_open(how->data_path, &source, error);
    for (bool more = true; status == FL_OK && more;) {
        status = read_record(self, source, &more, error);
    }
    fl_source_close(source);
    if (status == FL_OK && self->question_count == 0) {
        status = fl_fail(error, FL_EFORMAT, "%s: no row with choices is left", how->data_path);
    }
    return status;
}

static enum fl_status score_all(struct scoring *self, struct fl_error *error)
{
    const struct fl_engine_options options = {
        .threads = self->how->threads,
        .compute = self->how->compute,
        .max_row_tokens = self->longest,
        .train = FL_TRAIN_NONE,
    };
    struct fl_engine *engine = NULL;
    enum fl_status status = fl_engine_create(self->how->local->model, self->how->local->adapter,
                                             &options, &engine, error);
    const double begin = fl_clock_seconds();
    for (size_t i = 0; status == FL_OK && i < self->choice_count; i++) {
        struct choice *c = &self->choices[i];
        const struct fl_row row = {self->ids.ids + c->first, self->labels.ids + c->first,
                                   c->prompt + c->tokens};
        uint64_t scored;
        double loss;
        status = fl_engine_loss(engine, &row, 1, &loss, &scored, error);
        if (status == FL_OK && !isfinite(loss)) {
            status = fl_fail(error, FL_ERANGE, "the loss is not finite");
        }
        c->logprob = -loss;
        self->processed += row.length;
        if (status == FL_OK && self->how->stop && atomic_load(self->how->stop)) {
            status = fl_fail(error, FL_ESTOPPED, "stopped while evaluating");
        }
    }
    self->seconds = fl_clock_seconds() - begin;
    fl_engine_destroy(&engine);
    return status;
}

/* The likeliest choice: by the sum, or by the sum a character. */
static uint32_t best_of(const struct scoring *self, const struct question *q, bool by_character)
{
    uint32_t best = 0;
    double highest = -INFINITY;
    for (uint32_t i = 0; i < q->count; i++) {
        const struct choice *c = &self->choices[q->first_choice + i];
        const double score = by_character ? c->logprob / (double)c->characters : c->logprob;
        if (score > highest) {
            highest = score;
            best = i;
        }
    }
    return best;
}

static json_t *sample_of(const struct scoring *self, size_t row)
{
    const struct question *q = &self->questions[row];
    json_t *logprobs = json_array();
    for (uint32_t i = 0; logprobs && i < q->count; i++) {
        if (json_array_append_new(logprobs,
                                  json_real(self->choices[q->first_choice + i].logprob)) != 0) {
            json_decref(logprobs);
            logprobs = NULL;
        }
    }
    if (!logprobs) {
        return NULL;
    }
    return json_pack("{s:I, s:O, s:O, s:I, s:o, s:I, s:I}", "row", (json_int_t)row + 1, "prompt",
                     json_object_get(q->row, "prompt"), "choices",
                     json_object_get(q->row, "choices"), "answer", (json_int_t)q->answer,
                     "logprobs", logprobs, "chosen", (json_int_t)best_of(self, q, false),
                     "chosen_norm", (json_int_t)best_of(self, q, true));
}

static enum fl_status report_numbers(const struct scoring *self, json_t *metrics, json_t *out,
                                     struct fl_error *error)
{
    uint64_t tokens = 0;
    double loss = 0.0;
    for (size_t i = 0; i < self->question_count; i++) {
        const struct question *q = &self->questions[i];
        const struct choice *right = &self->choices[q->first_choice + q->answer];
        tokens += right->tokens;
        loss -= right->logprob;
    }
    loss /= (double)tokens;
    const double speed = self->seconds > 0.0 ? (double)self->processed / self->seconds : 0.0;
    json_t *numbers = json_pack(
        "{s:I, s:f, s:o, s:I, s:I, s:I, s:f, s:O}", "tokens", (json_int_t)tokens, "loss", loss,
        "perplexity", isfinite(exp(loss)) ? json_real(exp(loss)) : json_null(), "processed",
        (json_int_t)self->processed, "rows", (json_int_t)self->question_count, "bad",
        (json_int_t)self->bad, "tokens_per_second", speed, "metrics", metrics);
    const int failed = !numbers || json_object_update(out, numbers) != 0;
    json_decref(numbers);
    return failed ? fl_fail_memory(error) : FL_OK;
}

static enum fl_status report(const struct scoring *self, json_t *out, struct fl_error *error)
{
    static const char *const names[] = {"accuracy", "accuracy_norm"};
    double *values = fl_calloc(self->question_count, sizeof *values);
    json_t *metrics = json_object();
    enum fl_status status = values && metrics ? FL_OK : fl_fail_memory(error);
    for (size_t m = 0; status == FL_OK && m < 2; m++) {
        for (size_t i = 0; i < self->question_count; i++) {
            const struct question *q = &self->questions[i];
            values[i] = best_of(self, q, m == 1) == q->answer;
        }
        status = fl_answer_report(self->how, metrics, names[m], values, self->question_count,
                                  error);
    }
    if (status == FL_OK) {
        status = report_numbers(self, metrics, out, error);
    }
    json_decref(metrics);
    fl_free(values);
    return status;
}

enum fl_status fl_answer_choices(const struct fl_answering *self, json_t *out,
                                 struct fl_error *error)
{
    struct scoring scoring = {.how = self};
    enum fl_status status = read_rows(&scoring, error);
    if (status == FL_OK) {
        status = score_all(&scoring, error);
    }
    for (size_t i = 0; status == FL_OK && i < scoring.question_count; i++) {
        status = fl_samples_add(self->samples, sample_of(&scoring, i), error);
    }
    if (status == FL_OK) {
        status = report(&scoring, out, error);
    }
    scoring_free(&scoring);
    return status;
}

/* answer_rows.c - see answering.h: continuations of a data set's prompts, and their scores. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "worker/answering.h"
#include "worker/data/tokenizer.h"
#include "worker/engine/decode.h"
#include "worker/metrics.h"
#include "worker/textout.h"

#define TEXT_BYTES_MAX (256u << 20)

/* ---- samples ---- */

enum fl_status fl_samples_open(struct fl_samples *self, const char *path, struct fl_error *error)
{
    self->open = false;
    if (!path) {
        return FL_OK;
    }
    enum fl_status status = fl_fs_writer_open(&self->writer, path, 0644, error);
    self->open = status == FL_OK;
    return status;
}

enum fl_status fl_samples_add(struct fl_samples *self, json_t *object, struct fl_error *error)
{
    struct fl_buf line;
    if (!object) {
        return fl_fail_memory(error);
    }
    fl_buf_init(&line, 2ull * TEXT_BYTES_MAX);
    enum fl_status status = fl_json_append(&line, object);
    json_decref(object);
    fl_buf_append(&line, "\n", 1);
    if (status == FL_OK) {
        status = fl_buf_status(&line);
    }
    if (status != FL_OK) {
        status = fl_fail_memory(error);
    } else if (self->open) {
        status = fl_fs_writer_write(&self->writer, line.data, line.length, error);
    }
    fl_buf_free(&line);
    return status;
}

enum fl_status fl_samples_commit(struct fl_samples *self, struct fl_error *error)
{
    return self->open ? fl_fs_writer_commit(&self->writer, error) : FL_OK;
}

void fl_samples_close(struct fl_samples *self)
{
    if (self->open) {
        fl_fs_writer_close(&self->writer);
    }
    self->open = false;
}

/* ---- rows ---- */

struct answers {
    const struct fl_answering *how;
    size_t count;
    struct fl_prompt *prompts;         /* (count), owned */
    struct fl_completion *completions; /* (count), owned */
    double *scores;                    /* (FL_METRIC_COUNT, count), owned */
    size_t tokens;                     /* generated */
    double seconds;
    bool terminal;
};

static bool scored(const struct fl_row *row, uint32_t t)
{
    return row->labels[t] != FL_IGNORE;
}

/* The last run of scored tokens: [*first, *end). */
static void last_run(const struct fl_row *row, uint32_t *first, uint32_t *end)
{
    *end = row->length;
    while (*end > 1 && !scored(row, *end - 1)) {
        (*end)--;
    }
    *first = *end;
    while (*first > 0 && scored(row, *first - 1)) {
        (*first)--;
    }
}

static enum fl_status find_prompts(struct answers *a, struct fl_error *error)
{
    for (size_t i = 0; i < a->count; i++) {
        const struct fl_row *row = &a->how->local->rows[i];
        uint32_t first, end;
        last_run(row, &first, &end);
        if (first == 0) {
            return fl_fail(error, FL_EFORMAT,
                           "%s: row %zu has no prompt in front of its answer; --metrics needs rows "
                           "of prompt and completion (or messages, or instructions)",
                           a->how->data_path, i + 1);
        }
        a->prompts[i] = (struct fl_prompt){row->ids, first};
    }
    return FL_OK;
}

/* ids up to an end-of-text token, as text; stops end it too. The caller frees *out. */
static enum fl_status text_of(const struct answers *a, const int32_t *ids, size_t count,
                              const struct fl_option_list *stops, struct fl_textout *out,
                              struct fl_error *error)
{
    fl_textout_init(out, stops ? stops->items : NULL, stops ? stops->count : 0);
    for (size_t i = 0; i < count; i++) {
        const char *bytes;
        size_t length;
        if (fl_tokenizer_token(a->how->tokenizer, ids[i], &bytes, &length) &&
            !fl_textout_push(out, bytes, length)) {
            break;
        }
    }
    fl_textout_end(out);
    return fl_buf_status(&out->text) == FL_OK ? FL_OK : fl_fail_memory(error);
}

static size_t before_eos(const struct answers *a, const int32_t *ids, size_t count)
{
    size_t n = 0;
    while (n < count && !fl_tokenizer_is_eos(a->how->tokenizer, ids[n])) {
        n++;
    }
    return n;
}

static json_t *sample_of(const struct answers *a, size_t row, const struct fl_textout texts[3])
{
    const struct fl_completion *made = &a->completions[row];
    json_t *sample = json_pack(
        "{s:I, s:s%, s:s%, s:s%, s:s, s:I}", "row", (json_int_t)row + 1, "prompt",
        fl_buf_text(&texts[0].text), texts[0].text.length, "reference", fl_buf_text(&texts[1].text),
        texts[1].text.length, "completion", fl_buf_text(&texts[2].text), texts[2].text.length,
        "finish", made->finish == FL_FINISH_STOP || texts[2].stopped ? "stop" : "length", "tokens",
        (json_int_t)made->ids.count);
    for (unsigned m = 0; sample && m < FL_METRIC_COUNT; m++) {
        if ((a->how->metrics & 1u << m) &&
            json_object_set_new(sample, fl_metric_name((enum fl_metric)m),
                                json_real(a->scores[m * a->count + row])) != 0) {
            json_decref(sample);
            return NULL;
        }
    }
    return sample;
}

static enum fl_status score_row(struct answers *a, size_t row, struct fl_error *error)
{
    const struct fl_row *data = &a->how->local->rows[row];
    const struct fl_ids *made = &a->completions[row].ids;
    struct fl_textout texts[3] = {0}; /* prompt, reference, completion */
    uint32_t first, end;
    last_run(data, &first, &end);
    const int32_t *reference = data->labels + first;
    enum fl_status status = text_of(a, data->ids, first, NULL, &texts[0], error);
    if (status == FL_OK) {
        status = text_of(a, reference, before_eos(a, reference, end - first), NULL, &texts[1],
                         error);
    }
    if (status == FL_OK) {
        status = text_of(a, made->ids, made->count, a->how->stops, &texts[2], error);
    }
    for (unsigned m = 0; status == FL_OK && m < FL_METRIC_COUNT; m++) {
        if (!(a->how->metrics & 1u << m)) {
            continue;
        }
        status = fl_metric_score((enum fl_metric)m, fl_buf_text(&texts[2].text),
                                 texts[2].text.length, fl_buf_text(&texts[1].text),
                                 texts[1].text.length, &a->scores[m * a->count + row]);
        if (status != FL_OK) {
            status = fl_fail_memory(error);
        }
    }
    if (status == FL_OK) {
        status = fl_samples_add(a->how->samples, sample_of(a, row, texts), error);
    }
    for (size_t i = 0; i < 3; i++) {
        fl_textout_free(&texts[i]);
    }
    return status;
}

/* on_done of the decoder */
static void tell(void *context, size_t done)
{
    const struct answers *a = context;
    if (a->terminal) {
        fprintf(stderr, "\r\x1b[Kanswered %zu/%zu%s", done, a->count, done == a->count ? "\n" : "");
        fflush(stderr);
    }
}

static enum fl_status decode(struct answers *a, struct fl_error *error)
{
    size_t stop_count = 0;
    const int32_t *stop_ids = fl_tokenizer_eos_ids(a->how->tokenizer, &stop_count);
    const struct fl_decode_options options = {
        .max_tokens = a->how->max_tokens,
        .threads = a->how->threads,
        .compute = a->how->compute,
        .stop_ids = stop_ids,
        .stop_count = (uint32_t)stop_count,
        .on_done = tell,
        .context = a,
    };
    a->terminal = fl_cli_is_terminal();
    const double begin = fl_clock_seconds();
    enum fl_status status = fl_decode_greedy(a->how->local->model, a->how->local->adapter,
                                             a->prompts, a->count, &options, a->how->stop,
                                             a->completions, error);
    a->seconds = fl_clock_seconds() - begin;
    for (size_t i = 0; i < a->count; i++) {
        a->tokens += a->completions[i].ids.count;
    }
    return status;
}

enum fl_status fl_answer_report(const struct fl_answering *self, json_t *metrics, const char *name,
                                const double *values, size_t count, struct fl_error *error)
{
    struct fl_interval interval;
    if (fl_metric_interval(values, count, self->resamples, self->seed, &interval) != FL_OK ||
        json_object_set_new(metrics, name,
                            json_pack("{s:f, s:f, s:f}", "mean", interval.mean, "low", interval.low,
                                      "high", interval.high)) != 0) {
        return fl_fail_memory(error);
    }
    return FL_OK;
}

static enum fl_status report(const struct answers *a, json_t *out, struct fl_error *error)
{
    json_t *metrics = json_object();
    enum fl_status status = metrics ? FL_OK : fl_fail_memory(error);
    for (unsigned m = 0; status == FL_OK && m < FL_METRIC_COUNT; m++) {
        if (a->how->metrics & 1u << m) {
            status = fl_answer_report(a->how, metrics, fl_metric_name((enum fl_metric)m),
                                      a->scores + m * a->count, a->count, error);
        }
    }
    const double speed = a->seconds > 0.0 ? (double)a->tokens / a->seconds : 0.0;
    if (status == FL_OK &&
        (json_object_set_new(out, "generated", json_integer((json_int_t)a->tokens)) != 0 ||
         json_object_set_new(out, "generated_tokens_per_second", json_real(speed)) != 0 ||
         json_object_set(out, "metrics", metrics) != 0)) {
        status = fl_fail_memory(error);
    }
    json_decref(metrics);
    return status;
}

enum fl_status fl_answer_rows(const struct fl_answering *self, json_t *out, struct fl_error *error)
{
    struct answers a = {.how = self, .count = self->local->count};
    a.prompts = fl_calloc(a.count, sizeof *a.prompts);
    a.completions = fl_calloc(a.count, sizeof *a.completions);
    a.scores = fl_calloc(a.count * FL_METRIC_COUNT, sizeof *a.scores);
    enum fl_status status = a.prompts && a.completions && a.scores ? FL_OK : fl_fail_memory(error);
    if (status == FL_OK) {
        status = find_prompts(&a, error);
    }
    if (status == FL_OK) {
        status = decode(&a, error);
    }
    for (size_t i = 0; status == FL_OK && i < a.count; i++) {
        status = score_row(&a, i, error);
    }
    if (status == FL_OK) {
        status = report(&a, out, error);
    }
    for (size_t i = 0; a.completions && i < a.count; i++) {
        fl_ids_free(&a.completions[i].ids);
    }
    fl_free(a.prompts);
    fl_free(a.completions);
    fl_free(a.scores);
    return status;
}

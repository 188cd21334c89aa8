/* metrics.c - see metrics.h. */
#include "worker/metrics.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "crypto/prg.h"
#include "worker/data/unicode.h"
#include "worker/lowercase.h"

#define TEXT_BYTES_MAX (1u << 30)

static const char *const NAMES[FL_METRIC_COUNT] = {"exact_match", "f1", "rouge_l", "accuracy"};

const char *fl_metric_name(enum fl_metric metric)
{
    return NAMES[metric];
}

enum fl_status fl_metrics_parse(const char *text, unsigned *out, struct fl_error *error)
{
    *out = 0;
    for (;;) {
        const size_t length = strcspn(text, ",");
        unsigned bit = 0;
        for (unsigned m = 0; m < FL_METRIC_COUNT; m++)
            if (strlen(NAMES[m]) == length && memcmp(NAMES[m], text, length) == 0)
                bit = 1u << m;
        if (!bit)
            return fl_fail(error, FL_EUSAGE,
                           "--metrics: '%.*s' is none of exact_match, f1, rouge_l, accuracy",
                           (int)(length < 40 ? length : 40), text);
        *out |= bit;
        if (!text[length])
            return FL_OK;
        text += length + 1;
    }
}

/* ---- words ---- */

struct word {
    const char *text; /* into the words' buffer */
    size_t length;
};

struct words {
    struct fl_buf text; /* owned; what the words lie in */
    struct word *words; /* (count), owned */
    size_t count;
};

static void words_free(struct words *self)
{
    fl_buf_free(&self->text);
    fl_free(self->words);
}

/* Python's str.isspace() */
static bool is_space(uint32_t c)
{
    return (c >= 0x1C && c <= 0x1F) || (fl_unicode_class(c) & FL_UC_SPACE);
}

static bool is_punctuation(char c)
{
    return c > ' ' && c < 0x7F && !(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z') &&
           !(c >= 'A' && c <= 'Z');
}

/* Python's \w; the underscore is punctuation and is gone before anybody asks. */
static bool is_wordly(uint32_t c)
{
    return fl_unicode_class(c) & (FL_UC_LETTER | FL_UC_NUMBER);
}

/* "a", "an", "the" at text; 0: none of them stands there as a word of its own. */
static size_t article(const char *text, size_t length)
{
    static const char *const ARTICLES[] = {"a", "an", "the"};
    for (size_t i = 0; i < 3; i++) {
        const size_t n = strlen(ARTICLES[i]);
        size_t used;
        if (n <= length && memcmp(text, ARTICLES[i], n) == 0 &&
            (n == length || !is_wordly(fl_utf8_next(text + n, length - n, &used))))
            return n;
    }
    return 0;
}

/* Articles become a space, and a run of white space one; none is left at the ends. */
static void append_folded(struct fl_buf *out, const char *text, size_t length)
{
    bool gap = false, inside = false;
    for (size_t at = 0, used; at < length; at += used) {
        const uint32_t c = fl_utf8_next(text + at, length - at, &used);
        const size_t skipped = inside ? 0 : article(text + at, length - at);
        inside = is_wordly(c);
        if (skipped) {
            used = skipped;
            gap = true;
        } else if (is_space(c)) {
            gap = true;
        } else {
            if (gap && out->length)
                fl_buf_append(out, " ", 1);
            gap = false;
            fl_buf_append(out, text + at, used);
        }
    }
}

/* SQuAD's normalisation, words apart by single spaces. */
static enum fl_status normalise(const char *text, size_t length, struct fl_buf *out)
{
    struct fl_buf lower, bare;
    fl_buf_init(&lower, TEXT_BYTES_MAX);
    fl_buf_init(&bare, TEXT_BYTES_MAX);
    fl_buf_init(out, TEXT_BYTES_MAX);
    fl_lowercase_append(&lower, text, length);
    for (size_t i = 0; i < lower.length; i++)
        if (!is_punctuation((char)lower.data[i]))
            fl_buf_append(&bare, &lower.data[i], 1);
    append_folded(out, fl_buf_text(&bare), bare.length);
    enum fl_status status = fl_buf_status(&lower);
    if (!status)
        status = fl_buf_status(&bare);
    if (!status)
        status = fl_buf_status(out);
    fl_buf_free(&lower);
    fl_buf_free(&bare);
    return status;
}

/* Lower case, everything outside [a-z0-9] a space, as rouge_score tokenises. */
static enum fl_status plain_words(const char *text, size_t length, struct fl_buf *out)
{
    fl_buf_init(out, TEXT_BYTES_MAX);
    fl_lowercase_append(out, text, length);
    for (size_t i = 0; i < out->length; i++)
        if (!(out->data[i] >= 'a' && out->data[i] <= 'z') &&
            !(out->data[i] >= '0' && out->data[i] <= '9'))
            out->data[i] = ' ';
    return fl_buf_status(out);
}

/* Cut self->text at its spaces. */
static enum fl_status split(struct words *self)
{
    const char *text = fl_buf_text(&self->text);
    const size_t length = self->text.length;
    self->words = fl_calloc(length / 2 + 1, sizeof *self->words);
    if (!self->words)
        return FL_ENOMEM;
    for (size_t at = 0; at < length;) {
        const char *space = memchr(text + at, ' ', length - at);
        const size_t n = space ? (size_t)(space - text) - at : length - at;
        if (n > 0)
            self->words[self->count++] = (struct word){text + at, n};
        at += n + 1;
    }
    return FL_OK;
}

static int by_text(const void *a, const void *b)
{
    const struct word *x = a, *y = b;
    const size_t shorter = x->length < y->length ? x->length : y->length;
    const int order = memcmp(x->text, y->text, shorter);
    return order ? order : (x->length > y->length) - (x->length < y->length);
}

static double f_measure(size_t common, size_t n, size_t m)
{
    if (!common)
        return 0.0;
    const double precision = (double)common / (double)n, recall = (double)common / (double)m;
    return 2.0 * precision * recall / (precision + recall);
}

/* ---- the scores ---- */

static double word_f1(struct words *a, struct words *b)
{
    size_t common = 0;
    if (!a->count || !b->count)
        return a->count == b->count;
    qsort(a->words, a->count, sizeof *a->words, by_text);
    qsort(b->words, b->count, sizeof *b->words, by_text);
    for (size_t i = 0, k = 0; i < a->count && k < b->count;) {
        const int order = by_text(&a->words[i], &b->words[k]);
        common += order == 0;
        i += order <= 0;
        k += order >= 0;
    }
    return f_measure(common, a->count, b->count);
}

/* Longest common subsequence, one row of the table at a time. */
static enum fl_status rouge_l(const struct words *a, const struct words *b, double *out)
{
    uint32_t *row = fl_calloc(b->count + 1, sizeof *row);
    if (!row)
        return FL_ENOMEM;
    for (size_t i = 0; i < a->count; i++) {
        uint32_t diagonal = 0; /* the table at (i - 1, k - 1) */
        for (size_t k = 0; k < b->count; k++) {
            const uint32_t above = row[k + 1];
            if (by_text(&a->words[i], &b->words[k]) == 0)
                row[k + 1] = diagonal + 1;
            else if (row[k] > above)
                row[k + 1] = row[k];
            diagonal = above;
        }
    }
    *out = f_measure(row[b->count], a->count, b->count);
    fl_free(row);
    return FL_OK;
}

static void strip(const char **text, size_t *length)
{
    size_t used;
    while (*length && is_space(fl_utf8_next(*text, *length, &used))) {
        *text += used;
        *length -= used;
    }
    while (*length && is_space(fl_utf8_last(*text, *length, &used)))
        *length -= used;
}

static double accuracy(const char *text, size_t length, const char *reference, size_t n)
{
    strip(&text, &length);
    strip(&reference, &n);
    return length == n && (!n || memcmp(text, reference, n) == 0);
}

static bool equal(const struct fl_buf *a, const struct fl_buf *b)
{
    return a->length == b->length && (!a->length || memcmp(a->data, b->data, a->length) == 0);
}

enum fl_status fl_metric_score(enum fl_metric metric, const char *text, size_t length,
                               const char *reference, size_t reference_length, double *out)
{
    enum fl_status (*prepare)(const char *, size_t, struct fl_buf *) = metric == FL_METRIC_ROUGE_L
                                                                           ? plain_words
                                                                           : normalise;
    struct words a = {0}, b = {0};
    *out = 0.0;
    if (metric == FL_METRIC_ACCURACY) {
        *out = accuracy(text, length, reference, reference_length);
        return FL_OK;
    }
    enum fl_status status = prepare(text, length, &a.text);
    if (!status)
        status = prepare(reference, reference_length, &b.text);
    if (!status && metric == FL_METRIC_EXACT_MATCH)
        *out = equal(&a.text, &b.text);
    if (!status && metric != FL_METRIC_EXACT_MATCH)
        status = split(&a);
    if (!status && metric != FL_METRIC_EXACT_MATCH)
        status = split(&b);
    if (!status && metric == FL_METRIC_F1)
        *out = word_f1(&a, &b);
    if (!status && metric == FL_METRIC_ROUGE_L)
        status = rouge_l(&a, &b, out);
    words_free(&a);
    words_free(&b);
    return status;
}

/* ---- the interval ---- */

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linear between the two nearest of n sorted values. */
static double quantile(const double *sorted, size_t n, double q)
{
    const double at = q * (double)(n - 1);
    const size_t below = (size_t)at, above = below + 1 < n ? below + 1 : below;
    return sorted[below] + (at - (double)below) * (sorted[above] - sorted[below]);
}

enum fl_status fl_metric_interval(const double *values, size_t count, uint32_t resamples,
                                  uint64_t seed, struct fl_interval *out)
{
    uint8_t key[FL_SEED_BYTES] = {0};
    struct fl_prg prg;
    double sum = 0.0;
    for (size_t i = 0; i < count; i++)
        sum += values[i];
    out->mean = out->low = out->high = sum / (double)count;
    if (!resamples)
        return FL_OK;
    double *means = fl_calloc(resamples, sizeof *means);
    if (!means)
        return FL_ENOMEM;
    fl_store_u64(key, seed);
    fl_prg_init(&prg, key);
    for (uint32_t r = 0; r < resamples; r++) {
        sum = 0.0;
        for (size_t i = 0; i < count; i++)
            sum += values[fl_prg_below(&prg, count)];
        means[r] = sum / (double)count;
    }
    qsort(means, resamples, sizeof *means, by_value);
    out->low = quantile(means, resamples, 0.025);
    out->high = quantile(means, resamples, 0.975);
    fl_free(means);
    return FL_OK;
}

/*
 * answering.h - `fedlora-worker eval` beyond the loss: what a model answers on its own, scored
 * against references (metrics.h), or which of given answers it finds likelier.
 *
 * Generated: of each row, the last run of scored tokens is the reference (up to its end-of-text
 * token), all in front of it the prompt; greedy continuations, many at once (engine/decode.h).
 * Chosen: rows {"prompt", "choices": [..], "answer": index from 0, or the text of one}; a choice's
 * score is the sum of its tokens' log-probabilities behind the prompt, tokenised apart as prompt
 * and completion are; accuracy takes the largest sum, accuracy_norm the largest sum divided by the
 * choice's characters (Gao et al., lm-evaluation-harness: acc and acc_norm). Of equal ones the
 * first counts.
 * Threads: main thread.
 */
#ifndef FL_WORKER_ANSWERING_H
#define FL_WORKER_ANSWERING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cli.h"
#include "base/fs.h"
#include "base/json.h"
#include "worker/local.h"

#define FL_CHOICES_MAX 64u /* answers of one row */

/*
 * The file of samples, one JSON object a line, visible under its name only when complete. A path of
 * NULL keeps none: then all calls do nothing.
 */
struct fl_samples {
    struct fl_fs_writer writer;
    bool open;
};
FL_CHECKED enum fl_status fl_samples_open(struct fl_samples *self, const char *path,
                                          struct fl_error *error);
/* Write object as a line and release it; NULL (out of memory) is an error. */
FL_CHECKED enum fl_status fl_samples_add(struct fl_samples *self, json_t *object,
                                         struct fl_error *error);
FL_CHECKED enum fl_status fl_samples_commit(struct fl_samples *self, struct fl_error *error);
void fl_samples_close(struct fl_samples *self);

struct fl_answering {
    const struct fl_local *local;       /* model, adapter and (for rows) data, open */
    struct fl_tokenizer *tokenizer;     /* borrowed */
    const struct fl_option_list *stops; /* texts that end an answer; borrowed */
    struct fl_samples *samples;
    const atomic_int *stop;
    unsigned metrics; /* bits 1 << enum fl_metric */
    uint32_t max_tokens, resamples, threads;
    uint64_t seed; /* of the bootstrap */
    enum fl_compute compute;
    const char *data_path; /* choices; and for messages */
    bool skip_bad_rows, specials_plain;
};

/*
 * Answer every row of local->data. Adds "generated" (tokens), "generated_tokens_per_second" and
 * "metrics" {NAME: {"mean", "low", "high"}} to report. FL_EFORMAT: a row has no prompt.
 */
FL_CHECKED enum fl_status fl_answer_rows(const struct fl_answering *self, json_t *report,
                                         struct fl_error *error);
/*
 * Score the choices of data_path. Adds "tokens", "loss" and "perplexity" (of the right answers),
 * "rows", "bad", "processed", "tokens_per_second" and "metrics" (accuracy, accuracy_norm) to
 * report. FL_EFORMAT with "FILE:LINE: ...": a line is no such row, or there is none.
 */
FL_CHECKED enum fl_status fl_answer_choices(const struct fl_answering *self, json_t *report,
                                            struct fl_error *error);

/* {"mean", "low", "high"} of values (count >= 1) under name into metrics. */
FL_CHECKED enum fl_status fl_answer_report(const struct fl_answering *self, json_t *metrics,
                                           const char *name, const double *values, size_t count,
                                           struct fl_error *error);

#endif

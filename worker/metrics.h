/*
 * metrics.h - how well generated texts answer: scores of one text against its reference, and means
 * over many with an interval.
 *
 *   exact_match  1 when both are equal after SQuAD's normalisation, else 0
 *   f1           2 P R / (P + R) of the normalised words that both have, counted with repetition;
 *                where either has none, 1 when both have none, else 0
 *   rouge_l      F-measure of the longest common subsequence of words in [a-z0-9]+ of the
 *                lower-case text, without stemming; 0 where either has none
 *   accuracy     1 when both are equal but for white space at their ends, else 0 (class labels)
 *
 * SQuAD's normalisation: lower case, ASCII punctuation removed, the words a, an and the removed,
 * white space folded. Sources: Rajpurkar et al., "SQuAD", EMNLP 2016, and the evaluation of SQuAD
 * 2.0; Lin, "ROUGE", 2004, as Google's rouge_score computes it; Efron & Tibshirani, "An
 * Introduction to the Bootstrap", 1993 (percentile interval).
 * Threads: pure functions.
 */
#ifndef FL_WORKER_METRICS_H
#define FL_WORKER_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum fl_metric {
    FL_METRIC_EXACT_MATCH,
    FL_METRIC_F1,
    FL_METRIC_ROUGE_L,
    FL_METRIC_ACCURACY,
    FL_METRIC_COUNT
};

/* "exact_match", "f1", "rouge_l", "accuracy" */
const char *fl_metric_name(enum fl_metric metric);
/*
 * A comma-separated list of names as bits 1 << metric. FL_EUSAGE: empty, or a name that is none of
 * them (the message says --metrics).
 */
FL_CHECKED enum fl_status fl_metrics_parse(const char *text, unsigned *out, struct fl_error *error);

/* The score of a text (UTF-8) in [0, 1] into *out. FL_ENOMEM. */
FL_CHECKED enum fl_status fl_metric_score(enum fl_metric metric, const char *text, size_t length,
                                          const char *reference, size_t reference_length,
                                          double *out);

struct fl_interval {
    double mean;
    double low, high; /* 95 % percentile interval of the bootstrap */
};

/*
 * Of values (count >= 1): `resamples` means of count values drawn with replacement; 0: low and high
 * are the mean. The same seed gives the same interval on any machine. FL_ENOMEM.
 */
FL_CHECKED enum fl_status fl_metric_interval(const double *values, size_t count, uint32_t resamples,
                                             uint64_t seed, struct fl_interval *out);

#endif

/*
 * example.h - one record as token ids and labels while it is being read: filled piece by piece with
 * known borders between what is scored and what is not, then cut to a row's length.
 * Threads: an example belongs to one thread.
 */
#ifndef FL_DATA_EXAMPLE_H
#define FL_DATA_EXAMPLE_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/data/tokenizer.h"

/* Zero it to start; release with fl_example_free(). */
struct fl_example {
    struct fl_ids ids, labels; /* labels are unshifted; FL_IGNORE: not scored */
    size_t head; /* ids in front that a cut takes last: BOS, the words that open every prompt */
    bool given;  /* the labels are the record's own, not ours to change */
    bool empty;  /* the record has no text to learn from */
};

/* What a cut took away. */
struct fl_example_cut {
    size_t tokens; /* of all; 0: the example was short enough */
    size_t scored; /* of what is scored */
};

void fl_example_clear(struct fl_example *self);
void fl_example_free(struct fl_example *self);

/* Give the ids that have no label yet theirs: the id itself, or FL_IGNORE. FL_ENOMEM. */
FL_CHECKED enum fl_status fl_example_label(struct fl_example *self, bool scored,
                                           struct fl_error *error);

/*
 * Cut to at most seq_len (>= 2) ids. Where an unscored prompt stands in front and the first
 * completion behind it would not fit, the prompt gives way first: its ids behind the head, from the
 * left, then the head but for its first id; one id of it stays. What is still too long is cut at
 * the end.
 */
void fl_example_cut(struct fl_example *self, size_t seq_len, struct fl_example_cut *out);

/* Score every id, unless the labels are given. After the cut, which goes by the labels. */
void fl_example_score_all(struct fl_example *self);

/* Scored labels of `count`; the first is never scored, since nothing predicts it. */
size_t fl_labels_scored(const int32_t *labels, size_t count);

#endif

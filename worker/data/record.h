/*
 * record.h - one record of a data file as token ids and labels. The record's keys decide what it is
 * (see dataset.h); where it has several of them, the most explicit wins: input_ids, messages,
 * conversations, prompt, instruction, text.
 * Threads: as the tokenizer.
 */
#ifndef FL_DATA_RECORD_H
#define FL_DATA_RECORD_H

#include <stddef.h>

#include "base/json.h"
#include "worker/data/chat.h"
#include "worker/data/dataset.h"
#include "worker/data/example.h"
#include "worker/data/feed.h"

/*
 * Parse length bytes as one JSON value; a text may hold a NUL character. *out is a new reference.
 * FL_EFORMAT says what is wrong with it, without file and line; *place, where the text begins, is
 * then moved to where that is.
 */
FL_CHECKED enum fl_status fl_record_parse(const char *text, size_t length, json_t **out,
                                          struct fl_place *place, struct fl_error *error);

/* What every record of a data set is read with. Zero chat; release with fl_reader_end(). */
struct fl_reader {
    struct fl_tokenizer *tokenizer; /* NULL: only rows of input_ids can be read */
    const struct fl_dataset_options *options;
    struct fl_chat *chat; /* owned; opened at the first conversation */
};
void fl_reader_end(struct fl_reader *self);

/*
 * The record as an example, not yet cut, its labels completions only where it has prompts; *out was
 * zeroed once and is emptied here. FL_EFORMAT says what is wrong with the record, without file and
 * line; FL_EINVAL, that the tokenizer or its chat template does not serve.
 */
FL_CHECKED enum fl_status fl_record_row(const json_t *record, struct fl_reader *reader,
                                        struct fl_example *out, struct fl_error *error);

/*
 * BLAKE2b(key = seed, the record as compact JSON with sorted keys) as a number in [0, 1): the same
 * wherever the record stands, however its keys are ordered and spaced, with any tokenizer.
 */
FL_CHECKED enum fl_status fl_record_draw(const json_t *record, uint64_t seed, double *out);
/* The same for a stretch of plain text, whose record is its token ids. */
double fl_record_draw_ids(const int32_t *ids, size_t count, uint64_t seed);

#endif

/*
 * jsonl.h - one line of a JSONL data file as token ids and labels. The line's keys decide what it
 * is (see dataset.h); where a line has several of them, the most explicit wins: input_ids,
 * messages, conversations, prompt, instruction, text.
 * Threads: as the tokenizer.
 */
#ifndef FL_DATA_JSONL_H
#define FL_DATA_JSONL_H

#include <stddef.h>

#include "worker/data/dataset.h"

/*
 * ids and labels are emptied and filled to the same count (not yet cut, possibly 0). line is JSON
 * of length bytes. FL_EFORMAT says what is wrong with it, without file and line.
 */
FL_CHECKED enum fl_status fl_jsonl_row(const char *line, size_t length,
                                       struct fl_tokenizer *tokenizer,
                                       const struct fl_dataset_options *options, struct fl_ids *ids,
                                       struct fl_ids *labels, struct fl_error *error);

#endif

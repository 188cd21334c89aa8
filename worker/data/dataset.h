/*
 * dataset.h - a data file as rows of token ids and labels, held in memory.
 *
 * A path is a plain .txt file, a file of records in any form that source.h knows (JSONL, one JSON
 * array, CSV), or a directory of such files, read in the order of their names. A record's keys
 * decide what it is: `text`; `prompt` + `completion`; `input_ids` (+ `labels`, unshifted, -100 =
 * not scored); `instruction` (+ `input`) + `output`; `messages` and `conversations` in the
 * form of the model's chat template (chat.h).
 *
 *   text                 template's ids of the text, EOS appended; all scored
 *   prompt + completion  ids(prompt) with the template's prefix, ids(completion), EOS; completion
 *                        and EOS scored
 *   instruction          as a prompt, in the words of Stanford Alpaca, and output as its completion
 *   messages             the chat template's ids; each assistant's words and their end scored
 *   .txt                 the ids of the whole file cut into consecutive rows of seq_len, no EOS
 *
 * In a directory, names say what files are for (files.h). Where some are named train*, these alone
 * are trained on; else all that are not named for validation or test. Files named for validation
 * are the rows held out. FL_PART_EVAL reads the test files instead; without any, those for
 * validation; without these, all.
 *
 * Rows longer than seq_len are cut: the prompt gives way before the completion does (example.h).
 * Rows that score nothing are dropped, records with nothing but blanks to learn from are left out;
 * all of it is counted. The label of position 0 is never scored. A broken record ends the reading
 * with FL_EFORMAT and "FILE:LINE:COLUMN: ..." unless skip_bad_rows is set.
 *
 * Threads: immutable once open; any thread may read it.
 */
#ifndef FL_DATA_DATASET_H
#define FL_DATA_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"
#include "worker/data/row.h"
#include "worker/data/tokenizer.h"

#define FL_DATASET_RECORD_BYTES_MAX (64u << 20)
#define FL_DATASET_ROWS_MAX         (1u << 28)
#define FL_VALID_SPLIT_MAX          0.9

struct fl_dataset;

enum fl_dataset_part { FL_PART_TRAIN, FL_PART_EVAL };

struct fl_dataset_options {
    uint32_t seq_len;          /* tokens of the longest row, 2..FL_SEQ_MAX */
    bool add_eos;              /* append EOS to text and completion rows */
    bool specials_plain;       /* special-token strings in the data are text */
    bool loss_all;             /* score prompts too, and every turn of a conversation */
    const char *chat_template; /* a name of chat_form.h; NULL or "auto": the model's own */
    bool skip_bad_rows;        /* count a broken record instead of stopping there */
    uint32_t vocab_size;       /* ids at or above it are refused; 0: the tokenizer's vocabulary */
    double valid_split;        /* 0..FL_VALID_SPLIT_MAX: share of the records that is held out */
    uint64_t split_seed;       /* which records those are; see fl_dataset_valid() */
    enum fl_dataset_part part; /* of a directory */
};

/* Counted while reading. */
struct fl_dataset_counts {
    uint64_t rows;            /* kept */
    uint64_t truncated;       /* kept rows that were cut to seq_len */
    uint64_t completions_cut; /* those among them that lost something scored */
    uint64_t tokens_cut;      /* what they lost in all */
    uint64_t dropped;         /* rows with nothing scored, or of one token */
    uint64_t empty;           /* records whose text or completion is blank, left out */
    uint64_t bad;             /* broken records left out (skip_bad_rows) */
    uint64_t tokens;          /* of the kept rows */
    uint64_t scored_tokens;   /* of the kept rows: labels other than -100, position 0 left out */
};

/*
 * Read the data at path. tokenizer may be NULL when every row gives input_ids (then vocab_size must
 * be set); it is used only during this call. FL_EFORMAT: a broken record, or no row is left.
 */
FL_CHECKED enum fl_status fl_dataset_open(const char *path, struct fl_tokenizer *tokenizer,
                                          const struct fl_dataset_options *options,
                                          struct fl_dataset **out, struct fl_error *error);
/* With the rows that were held out. NULL is fine. */
void fl_dataset_close(struct fl_dataset *self);

/*
 * The rows that were held out for validation, a data set with counts of its own that belongs to
 * self; NULL when there are none. They are a directory's files for validation or, with valid_split
 * (both are refused with FL_EINVAL), a share of all records: a record is held out when a hash of
 * its content under split_seed falls below the share: the choice of a record depends on no other
 * record, so it stays as it is when records are reordered or added, and equal records stay on one
 * side.
 */
struct fl_dataset *fl_dataset_valid(struct fl_dataset *self);

size_t fl_dataset_rows(const struct fl_dataset *self);
/* index < rows. The row's arrays live as long as the data set. */
struct fl_row fl_dataset_row(const struct fl_dataset *self, size_t index);
const struct fl_dataset_counts *fl_dataset_counts(const struct fl_dataset *self);
/* BLAKE2b-256 over every row: u32 length, ids, labels, little-endian. */
void fl_dataset_hash(const struct fl_dataset *self, uint8_t out[FL_HASH_BYTES]);

/*
 * Keep the `count` rows with the smallest BLAKE2b(key = seed, row's index), in file order; the rest
 * are forgotten and the counts recomputed. No effect when there are no more than count.
 */
FL_CHECKED enum fl_status fl_dataset_keep(struct fl_dataset *self, size_t count, uint64_t seed,
                                          struct fl_error *error);

#endif

/*
 * local.h - what the commands on local files share: opening a base model, an adapter and a data
 * file so that they fit together, and stopping on Ctrl-C.
 *
 * Threads: main thread; the stop flag may be read from any thread.
 */
#ifndef FL_WORKER_LOCAL_H
#define FL_WORKER_LOCAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapter/adapter.h"
#include "base/json.h"
#include "base/status.h"
#include "format/dtype.h"
#include "worker/data/chat_form.h"
#include "worker/data/dataset.h"
#include "worker/engine/engine.h"
#include "worker/engine/model.h"

#define FL_SEQ_LEN_DEFAULT 256

/* Zero it to start; fl_local_close() in any case. */
struct fl_local {
    struct fl_model *model;
    struct fl_adapter *adapter; /* NULL: the base alone */
    struct fl_dataset *data;
    struct fl_row *rows; /* (count); the arrays belong to data */
    size_t count;
    struct fl_dataset *valid_data; /* NULL: no validation file of its own */
    struct fl_row *valid;          /* (valid_count); of valid_data, else held out of data's rows */
    size_t valid_count;
};

void fl_local_close(struct fl_local *self);

/* FL_ENOTFOUND: no such path; FL_EFORMAT: it is no model that we read. */
FL_CHECKED enum fl_status fl_local_open_model(struct fl_local *self, const char *path,
                                              struct fl_error *error);
/* The choices of --quantize, and what it does to the open model. threads 0: all. */
#define FL_LOCAL_QUANTIZE "none|nf4"
#define FL_LOCAL_QUANTIZE_HELP                                                                     \
    "hold the base's linears in four bits (QLoRA): an eighth of float32's memory"
FL_CHECKED enum fl_status fl_local_quantize(struct fl_local *self, const char *how,
                                            uint64_t threads, struct fl_error *error);
/* Against the open model. directory NULL: nothing to do. */
FL_CHECKED enum fl_status fl_local_open_adapter(struct fl_local *self, const char *directory,
                                                struct fl_error *error);

struct fl_local_data {
    const char *path;
    uint64_t seq_len; /* 0: FL_SEQ_LEN_DEFAULT, or the model's context where that is shorter */
    bool no_eos, skip_bad_rows;
    const char *loss;          /* "completions" | "all": what is scored of rows that have prompts */
    const char *chat_template; /* "auto" or a name of FL_CHAT_NAMES */
    const char *specials;      /* "plain" | "match": special-token strings in the data */
    double valid_split;        /* share of the records that goes into valid */
    uint64_t split_seed;
    enum fl_dataset_part part; /* of a directory */
    uint64_t limit, seed;      /* keep so many rows, chosen by a hash of the seed; 0: all */
};

/* Rows of a table of struct fl_option that fill *data: what every command that reads rows takes. */
/* clang-format off */
#define FL_LOCAL_DATA_OPTIONS(data)                                                                \
    {"--data", "PATH", FL_OPTION_STRING, &(data)->path, 0, 0, NULL, true, NULL,                    \
     "JSONL, JSON, CSV or .txt file, or a directory of them"},                                     \
    {"--seq-len", "T", FL_OPTION_U64, &(data)->seq_len, 2, FL_SEQ_MAX, NULL, false, NULL,          \
     "tokens of the longest row (0: 256, or the model's context if shorter)"},                     \
    {"--loss", "WHAT", FL_OPTION_CHOICE, &(data)->loss, 0, 0, "completions|all", false, NULL,      \
     "what is scored where a row has a prompt: the completions alone, or all of it"},              \
    {"--chat-template", "NAME", FL_OPTION_CHOICE, &(data)->chat_template, 0, 0,                    \
     "auto|" FL_CHAT_NAMES, false, NULL, "form of conversations (auto: the model's own)"},         \
    {"--no-eos", NULL, FL_OPTION_FLAG, &(data)->no_eos, 0, 0, NULL, false, NULL,                   \
     "append no end-of-text token to rows"},                                                       \
    {"--specials", "HOW", FL_OPTION_CHOICE, &(data)->specials, 0, 0, "plain|match", false, NULL,   \
     "special-token strings in the data: plain text, or the tokens"},                              \
    {"--skip-bad-rows", NULL, FL_OPTION_FLAG, &(data)->skip_bad_rows, 0, 0, NULL, false, NULL,     \
     "count broken records instead of stopping"},                                                  \
    {"--skip-broken", NULL, FL_OPTION_FLAG, &(data)->skip_bad_rows, 0, 0, NULL, false, NULL,       \
     "another name of --skip-bad-rows"}
/* clang-format on */

/*
 * Read data with the tokenizer of the model at model_path (rows of input_ids need none). Says on
 * stderr how many rows were held out, cut, dropped or left out, if any.
 */
FL_CHECKED enum fl_status fl_local_open_data(struct fl_local *self, const char *model_path,
                                             const struct fl_local_data *options,
                                             struct fl_error *error);

/* The same into valid_data, valid and valid_count, in place of what data holds out itself. */
FL_CHECKED enum fl_status fl_local_open_valid(struct fl_local *self, const char *model_path,
                                              const struct fl_local_data *options,
                                              struct fl_error *error);

/*
 * What was counted while reading, as a new JSON object: rows, tokens, scored, truncated,
 * completions_cut, tokens_cut, dropped, empty, bad. NULL: out of memory.
 */
json_t *fl_local_counts(const struct fl_dataset *data);

/* The row of an options' table that fills *text, "0" before, for fl_local_memory_limit(). */
/* clang-format off */
#define FL_LOCAL_MEMORY_OPTION(text)                                                               \
    {"--memory-limit", "SIZE", FL_OPTION_STRING, text, 0, 0, NULL, false, NULL,                    \
     "memory to stay within, such as 700M or 2G: computes more to hold less (0: no limit)"}
/* clang-format on */
/* FL_EUSAGE: text is no size. */
FL_CHECKED enum fl_status fl_local_memory_limit(const char *text, uint64_t *bytes,
                                                struct fl_error *error);

/* "auto", "f32", "bf16" as an enum; text is one of them. */
enum fl_compute fl_local_compute(const char *text);

/*
 * Can a file be written at out? FL_EEXIST: it is a directory, or the same file as input.
 */
FL_CHECKED enum fl_status fl_local_check_output(const char *out, const char *input,
                                                struct fl_error *error);

/*
 * Append the token ids of a comma-separated list ("1,2,3"), each below vocab. FL_EUSAGE: it is
 * empty, or an entry is no such id; option names it in the message ("--tokens").
 */
FL_CHECKED enum fl_status fl_local_parse_ids(const char *option, const char *text, uint32_t vocab,
                                             struct fl_ids *out, struct fl_error *error);

/* From here on SIGINT and SIGTERM set the flag that is returned; a second one ends the program. */
const atomic_int *fl_local_stop_on_signals(void);

/* Peak resident memory of this process. */
uint64_t fl_local_peak_rss_bytes(void);

/* Print object as one line on stdout and release it; NULL (out of memory) is an error too. */
FL_CHECKED enum fl_status fl_local_print(json_t *object, struct fl_error *error);

/* A model or adapter that a command has written. */
struct fl_local_written {
    const char *path; /* a file, or a directory of files */
    enum fl_dtype dtype;
    const char *format; /* "safetensors", "gguf" */
    const char *use;    /* what to do with it, for people */
};

/*
 * Say in one line on stderr what was written, how large it is and what to do with it, or, as_json,
 * print {"path","bytes","dtype","format"} on stdout.
 */
FL_CHECKED enum fl_status fl_local_tell_written(const struct fl_local_written *what, bool as_json,
                                                struct fl_error *error);

#endif

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
    struct fl_row *valid_rows; /* (valid_count), held out of rows; NULL: none */
    size_t valid_count;
};

void fl_local_close(struct fl_local *self);

/* FL_ENOTFOUND: no such path; FL_EFORMAT: it is no model that we read. */
FL_CHECKED enum fl_status fl_local_open_model(struct fl_local *self, const char *path,
                                              struct fl_error *error);
/* Against the open model. directory NULL: nothing to do. */
FL_CHECKED enum fl_status fl_local_open_adapter(struct fl_local *self, const char *directory,
                                                struct fl_error *error);

struct fl_local_data {
    const char *path;
    uint64_t seq_len; /* 0: FL_SEQ_LEN_DEFAULT, or the model's context where that is shorter */
    bool no_eos, skip_bad_rows;
    const char *specials; /* "plain" | "match": special-token strings in the data */
    double valid_split;   /* share of the records that goes into valid_rows */
    uint64_t split_seed;
    enum fl_dataset_part part; /* of a directory */
};

/*
 * Read data with the tokenizer of the model at model_path (rows of input_ids need none). Says on
 * stderr how many rows were cut, dropped or left out, if any.
 */
FL_CHECKED enum fl_status fl_local_open_data(struct fl_local *self, const char *model_path,
                                             const struct fl_local_data *options,
                                             struct fl_error *error);

/* "auto", "f32", "bf16" as an enum; text is one of them. */
enum fl_compute fl_local_compute(const char *text);

/* From here on SIGINT and SIGTERM set the flag that is returned; a second one ends the program. */
const atomic_int *fl_local_stop_on_signals(void);

/* Peak resident memory of this process. */
uint64_t fl_local_peak_rss_bytes(void);

/* Print object as one line on stdout and release it; NULL (out of memory) is an error too. */
FL_CHECKED enum fl_status fl_local_print(json_t *object, struct fl_error *error);

#endif

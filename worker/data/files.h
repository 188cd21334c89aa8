/*
 * files.h - the data files directly inside a directory, and what their names say they are for:
 * train.jsonl, train-00000-of-00002.csv; valid, validation, val, dev; test, eval.
 * Threads: no shared state.
 */
#ifndef FL_DATA_FILES_H
#define FL_DATA_FILES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

#define FL_FILES_MAX 65536

enum fl_file_role { FL_FILE_OTHER, FL_FILE_TRAIN, FL_FILE_VALID, FL_FILE_TEST, FL_FILE_ROLES };

struct fl_file {
    char *name; /* owned, without the directory */
    enum fl_file_role role;
};

/* Zero it to start; release with fl_files_free(). */
struct fl_files {
    struct fl_file *files; /* (count), owned, by name */
    size_t count, capacity;
    size_t of_role[FL_FILE_ROLES]; /* how many there are of each */
};

/*
 * *.jsonl, *.ndjson, *.json, *.csv, *.txt and *.parquet (which is then refused by its reader), but
 * no hidden file and not what describes a data set (dataset_info.json and the like). FL_EFORMAT:
 * there is none.
 */
FL_CHECKED enum fl_status fl_files_list(const char *directory, struct fl_files *out,
                                        struct fl_error *error);
void fl_files_free(struct fl_files *self);

/* Whether a file's name ends so (".jsonl"). */
bool fl_name_ends_with(const char *name, const char *end);

#endif

/* files.c - see files.h. Names: those of the Hugging Face Hub's data directories and of mlx-lm. */
#include "worker/data/files.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

bool fl_name_ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static bool is_data(const char *name)
{
    static const char *const ENDS[] = {".jsonl", ".ndjson", ".json", ".csv", ".txt", ".parquet"};
    static const char *const OTHERS[] = {"dataset_info.json", "dataset_infos.json",
                                         "dataset_dict.json", "state.json"};
    if (name[0] == '.')
        return false;
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++) {
        if (strcmp(name, OTHERS[i]) == 0)
            return false;
    }
    for (size_t i = 0; i < sizeof ENDS / sizeof ENDS[0]; i++) {
        if (fl_name_ends_with(name, ENDS[i]))
            return true;
    }
    return false;
}

static enum fl_file_role role_of(const char *name)
{
    static const struct {
        const char *stem;
        enum fl_file_role role;
    } STEMS[] = {
        {"train", FL_FILE_TRAIN}, {"valid", FL_FILE_VALID}, {"validation", FL_FILE_VALID},
        {"val", FL_FILE_VALID},   {"dev", FL_FILE_VALID},   {"test", FL_FILE_TEST},
        {"eval", FL_FILE_TEST},
    };
    size_t length = strcspn(name, ".-_");
    for (size_t i = 0; i < sizeof STEMS / sizeof STEMS[0]; i++) {
        if (strlen(STEMS[i].stem) == length && memcmp(name, STEMS[i].stem, length) == 0)
            return STEMS[i].role;
    }
    return FL_FILE_OTHER;
}

static int compare_files(const void *a, const void *b)
{
    const struct fl_file *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static enum fl_status push(struct fl_files *self, const char *name)
{
    if (self->count == FL_FILES_MAX)
        return FL_ERANGE;
    if (self->count == self->capacity) {
        size_t capacity = self->capacity * 2 + 16;
        struct fl_file *grown = fl_reallocarray(self->files, capacity, sizeof *grown);
        if (grown == NULL)
            return FL_ENOMEM;
        self->files = grown;
        self->capacity = capacity;
    }
    struct fl_file file = {fl_strdup(name), role_of(name)};
    if (file.name == NULL)
        return FL_ENOMEM;
    self->files[self->count++] = file;
    self->of_role[file.role]++;
    return FL_OK;
}

enum fl_status fl_files_list(const char *directory, struct fl_files *out, struct fl_error *error)
{
    DIR *stream = opendir(directory);
    if (stream == NULL)
        return fl_fail_errno(error, errno, "%s: can't list", directory);
    enum fl_status status = FL_OK;
    for (const struct dirent *e; status == FL_OK && (e = readdir(stream)) != NULL;) {
        if (is_data(e->d_name))
            status = push(out, e->d_name);
    }
    closedir(stream);
    if (status == FL_ERANGE)
        return fl_fail(error, status, "%s: more than %d data files", directory, FL_FILES_MAX);
    if (status != FL_OK)
        return fl_fail_memory(error);
    if (out->count == 0)
        return fl_fail(error, FL_EFORMAT, "%s: no *.jsonl, *.ndjson, *.json, *.csv or *.txt inside",
                       directory);
    qsort(out->files, out->count, sizeof *out->files, compare_files);
    return FL_OK;
}

void fl_files_free(struct fl_files *self)
{
    for (size_t i = 0; i < self->count; i++)
        fl_free(self->files[i].name);
    fl_free(self->files);
    *self = (struct fl_files){0};
}

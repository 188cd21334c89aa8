/*
 * local.c - see local.h. The signal flag is the only state; a handler does nothing but set it.
 */
#include "worker/local.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "worker/data/tokenizer.h"

void fl_local_close(struct fl_local *self)
{
    fl_free(self->rows);
    fl_free(self->valid);
    fl_dataset_close(self->data);
    fl_dataset_close(self->valid_data);
    fl_adapter_destroy(&self->adapter);
    fl_model_close(&self->model);
    *self = (struct fl_local){0};
}

enum fl_status fl_local_open_model(struct fl_local *self, const char *path, struct fl_error *error)
{
    return fl_model_open(path, &self->model, error);
}

enum fl_status fl_local_quantize(struct fl_local *self, const char *how, uint64_t threads,
                                 struct fl_error *error)
{
    return strcmp(how, "nf4") == 0 ? fl_model_quantize(self->model, (uint32_t)threads, error)
                                   : FL_OK;
}

enum fl_status fl_local_open_adapter(struct fl_local *self, const char *directory,
                                     struct fl_error *error)
{
    if (!directory) {
        return FL_OK;
    }
    return fl_adapter_load(directory, fl_model_inventory(self->model), &self->adapter, error);
}

/* The length of rows when the user gave none: short models have short contexts. */
static uint32_t seq_len_of(const struct fl_model_config *config, uint64_t given)
{
    if (given != 0) {
        if (config->max_positions != 0 && given > config->max_positions) {
            fprintf(stderr, "warning: --seq-len %llu is beyond the model's context of %u tokens\n",
                    (unsigned long long)given, config->max_positions);
        }
        return (uint32_t)given;
    }
    uint32_t chosen = FL_SEQ_LEN_DEFAULT;
    if (config->max_positions >= 2 && config->max_positions < chosen) {
        chosen = config->max_positions;
    }
    return chosen;
}

static enum fl_status collect_rows(const struct fl_dataset *data, struct fl_row **rows,
                                   size_t *count, struct fl_error *error)
{
    *count = fl_dataset_rows(data);
    *rows = fl_calloc(*count, sizeof **rows);
    if (!*rows) {
        return fl_fail_memory(error);
    }
    for (size_t i = 0; i < *count; i++) {
        (*rows)[i] = fl_dataset_row(data, i);
    }
    return FL_OK;
}

static void tell(uint64_t count, const char *whose, const char *what)
{
    if (count) {
        fprintf(stderr, "%s%llu %s\n", whose, (unsigned long long)count, what);
    }
}

static void tell_counts(const struct fl_dataset_counts *counts, uint32_t seq_len, const char *whose)
{
    if (counts->truncated) {
        fprintf(stderr,
                "%s%llu of %llu rows cut to %u tokens: %llu tokens lost, %llu rows lost some that "
                "are scored\n",
                whose, (unsigned long long)counts->truncated, (unsigned long long)counts->rows,
                seq_len, (unsigned long long)counts->tokens_cut,
                (unsigned long long)counts->completions_cut);
    }
    tell(counts->dropped, whose, "rows dropped: nothing in them is scored");
    tell(counts->empty, whose, "empty records left out");
    tell(counts->bad, whose, "broken records left out");
}

static void tell_data(struct fl_dataset *data, uint32_t seq_len)
{
    tell_counts(fl_dataset_counts(data), seq_len, "");
    const struct fl_dataset *valid = fl_dataset_valid(data);
    if (valid) {
        const struct fl_dataset_counts *counts = fl_dataset_counts(valid);
        fprintf(stderr, "validation: %llu rows held out, %llu tokens, %llu of them scored\n",
                (unsigned long long)counts->rows, (unsigned long long)counts->tokens,
                (unsigned long long)counts->scored_tokens);
        tell_counts(counts, seq_len, "validation: ");
    }
}

json_t *fl_local_counts(const struct fl_dataset *data)
{
    const struct fl_dataset_counts *c = fl_dataset_counts(data);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "rows", (json_int_t)c->rows,
                     "tokens", (json_int_t)c->tokens, "scored", (json_int_t)c->scored_tokens,
                     "truncated", (json_int_t)c->truncated, "completions_cut",
                     (json_int_t)c->completions_cut, "tokens_cut", (json_int_t)c->tokens_cut,
                     "dropped", (json_int_t)c->dropped, "empty", (json_int_t)c->empty, "bad",
                     (json_int_t)c->bad);
}

/* Read one file or directory; *data even where an error follows. */
static enum fl_status open_rows(const struct fl_local *self, const char *model_path,
                                const struct fl_local_data *options, struct fl_dataset **data,
                                struct fl_row **rows, size_t *count, struct fl_error *error)
{
    const struct fl_model_config *config = fl_model_config(self->model);
    struct fl_dataset_options how = {
        .seq_len = seq_len_of(config, options->seq_len),
        .add_eos = !options->no_eos,
        .specials_plain = !options->specials || strcmp(options->specials, "plain") == 0,
        .loss_all = options->loss && strcmp(options->loss, "all") == 0,
        .chat_template = options->chat_template,
        .skip_bad_rows = options->skip_bad_rows,
        .vocab_size = config->vocab,
        .valid_split = options->valid_split,
        .split_seed = options->split_seed,
        .part = options->part,
    };
    struct fl_tokenizer *tokenizer = NULL;
    struct fl_error no_tokenizer = {0};
    if (fl_tokenizer_open(model_path, &tokenizer, &no_tokenizer) != FL_OK &&
        no_tokenizer.status == FL_ENOMEM) {
        *error = no_tokenizer;
        return FL_ENOMEM;
    }
    enum fl_status status = fl_dataset_open(options->path, tokenizer, &how, data, error);
    if ((status == FL_EFORMAT || status == FL_EINVAL) && !tokenizer) {
        char text[FL_ERROR_TEXT_BYTES];
        memcpy(text, error->text, sizeof text);
        status = fl_fail(error, FL_EFORMAT, "%.300s (no tokenizer: %.300s)", text,
                         no_tokenizer.text);
    }
    fl_tokenizer_close(tokenizer);
    if (status == FL_OK && options->limit) {
        status = fl_dataset_keep(*data, (size_t)options->limit, options->seed, error);
    }
    if (status == FL_OK) {
        tell_data(*data, how.seq_len);
        status = collect_rows(*data, rows, count, error);
    }
    return status;
}

enum fl_status fl_local_open_data(struct fl_local *self, const char *model_path,
                                  const struct fl_local_data *options, struct fl_error *error)
{
    enum fl_status status = open_rows(self, model_path, options, &self->data, &self->rows,
                                      &self->count, error);
    const struct fl_dataset *held_out = status == FL_OK && !self->valid
                                            ? fl_dataset_valid(self->data)
                                            : NULL;
    return held_out ? collect_rows(held_out, &self->valid, &self->valid_count, error) : status;
}

enum fl_status fl_local_open_valid(struct fl_local *self, const char *model_path,
                                   const struct fl_local_data *options, struct fl_error *error)
{
    fl_free(self->valid); /* what the training data itself held out */
    self->valid = NULL;
    return open_rows(self, model_path, options, &self->valid_data, &self->valid, &self->valid_count,
                     error);
}

enum fl_status fl_local_memory_limit(const char *text, uint64_t *bytes, struct fl_error *error)
{
    return fl_parse_bytes(text, bytes) == FL_OK
               ? FL_OK
               : fl_fail(error, FL_EUSAGE, "--memory-limit %.40s: not of the form 700M or 2G",
                         text);
}

enum fl_compute fl_local_compute(const char *text)
{
    if (strcmp(text, "bf16") == 0) {
        return FL_COMPUTE_BF16;
    }
    return strcmp(text, "f32") == 0 ? FL_COMPUTE_F32 : FL_COMPUTE_AUTO;
}

enum fl_status fl_local_check_output(const char *out, const char *input, struct fl_error *error)
{
    struct stat there, source;
    if (stat(out, &there) != 0) {
        return FL_OK;
    }
    if (S_ISDIR(there.st_mode)) {
        return fl_fail(error, FL_EEXIST, "%s is a directory; name a file", out);
    }
    if (stat(input, &source) == 0 && there.st_dev == source.st_dev &&
        there.st_ino == source.st_ino) {
        return fl_fail(error, FL_EEXIST, "%s would be overwritten; name another file", input);
    }
    return FL_OK;
}

/* The number between commas at *at, which moves behind it. */
static bool next_id(const char **at, uint32_t vocab, int32_t *id)
{
    char word[16];
    size_t length = strcspn(*at, ",");
    uint64_t value = 0;
    if (length == 0 || length >= sizeof word) {
        return false;
    }
    memcpy(word, *at, length);
    word[length] = '\0';
    if (fl_parse_u64(word, 0, vocab - 1, &value) != FL_OK) {
        return false;
    }
    *id = (int32_t)value;
    *at += length + ((*at)[length] == ',' && (*at)[length + 1] != '\0');
    return true;
}

enum fl_status fl_local_parse_ids(const char *option, const char *text, uint32_t vocab,
                                  struct fl_ids *out, struct fl_error *error)
{
    unsigned entry = 1;
    do {
        int32_t id;
        if (!next_id(&text, vocab, &id)) {
            return fl_fail(error, FL_EUSAGE,
                           "%s: entry %u is no token id from 0 to %u (as in 1,2,3)", option, entry,
                           vocab - 1);
        }
        if (fl_ids_push(out, id) != FL_OK) {
            return fl_fail_memory(error);
        }
        entry++;
    } while (*text != '\0');
    return FL_OK;
}

static atomic_int stop_flag;

static void on_signal(int number)
{
    (void)number;
    atomic_store(&stop_flag, 1);
}

const atomic_int *fl_local_stop_on_signals(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = (int)(SA_RESTART | SA_RESETHAND);
    sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    return &stop_flag;
}

uint64_t fl_local_peak_rss_bytes(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0 || usage.ru_maxrss < 0) {
        return 0;
    }
    return (uint64_t)usage.ru_maxrss * 1024;
}

enum fl_status fl_local_print(json_t *object, struct fl_error *error)
{
    if (!object) {
        return fl_fail_memory(error);
    }
    errno = 0;
    enum fl_status status = fl_json_print(object);
    json_decref(object);
    if (status != FL_OK) {
        return fl_fail_errno(error, errno ? errno : EIO, "standard output");
    }
    return FL_OK;
}

/* Of a file, or of the files of a directory together. */
static uint64_t bytes_at(const char *path)
{
    struct stat info;
    uint64_t bytes = 0;
    if (stat(path, &info) != 0) {
        return 0;
    }
    if (!S_ISDIR(info.st_mode)) {
        return (uint64_t)info.st_size;
    }
    DIR *directory = opendir(path);
    for (struct dirent *e = directory ? readdir(directory) : NULL; e; e = readdir(directory)) {
        if (fstatat(dirfd(directory), e->d_name, &info, 0) == 0 && S_ISREG(info.st_mode)) {
            bytes += (uint64_t)info.st_size;
        }
    }
    if (directory) {
        closedir(directory);
    }
    return bytes;
}

static void tell_size(uint64_t bytes)
{
    static const char *const units[] = {"kB", "MB", "GB", "TB"};
    size_t unit = 0;
    double size = (double)bytes / 1e3;
    for (; size >= 999.95 && unit < 3; unit++) {
        size /= 1e3;
    }
    fprintf(stderr, "%.1f %s", size, units[unit]);
}

enum fl_status fl_local_tell_written(const struct fl_local_written *what, bool as_json,
                                     struct fl_error *error)
{
    const uint64_t bytes = bytes_at(what->path);
    const char *dtype = fl_dtype_name(what->dtype);
    if (as_json) {
        return fl_local_print(json_pack("{s:s, s:I, s:s, s:s}", "path", what->path, "bytes",
                                        (json_int_t)bytes, "dtype", dtype, "format", what->format),
                              error);
    }
    fprintf(stderr, "wrote %s (", what->path);
    tell_size(bytes);
    fprintf(stderr, ", %s): %s\n", dtype, what->use);
    return FL_OK;
}

/*
 * checkpoint.c - see checkpoint.h. What is not finished is called step-N.tmp (and a PEFT directory
 * being written inside of it step-N.tmp.tmp.PID); the next save clears such leftovers away.
 */
#include "worker/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "format/peft.h"

#define FOLDER          "checkpoints"
#define PREFIX          "step-"
#define FORMAT          "fedlora-training-state"
#define FORMAT_VERSION  1
#define OPTIMIZER_FILE  "optimizer.safetensors"
#define BEST_FILE       "best_model.safetensors"
#define STATE_BYTES_MAX (1u << 20)
#define STEP_MAX        (UINT64_C(1) << 53)

/* ---- the directory of checkpoints ---- */

/* N of "step-N" as this program writes it; 0: another name. */
static uint64_t step_of(const char *name)
{
    char again[40];
    uint64_t step = 0;
    if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 ||
        fl_parse_u64(name + strlen(PREFIX), 1, STEP_MAX, &step) != FL_OK) {
        return 0;
    }
    (void)snprintf(again, sizeof again, PREFIX "%" PRIu64, step);
    return strcmp(again, name) == 0 ? step : 0;
}

static bool is_leftover(const char *name)
{
    return strncmp(name, PREFIX, strlen(PREFIX)) == 0 && strstr(name, ".tmp") != NULL;
}

/* What a look through the directory found. */
struct found {
    uint64_t newest, oldest; /* steps; 0: none */
    uint32_t count;
    char leftover[256]; /* one unfinished directory; "": none */
};

static enum fl_status look(const char *folder, struct found *out, struct fl_error *error)
{
    *out = (struct found){.newest = 0};
    errno = 0;
    DIR *stream = opendir(folder);
    if (!stream && errno == ENOENT) {
        return FL_OK;
    }
    if (!stream) {
        return fl_fail_errno(error, errno, "%s", folder);
    }
    for (struct dirent *e = readdir(stream); e; e = readdir(stream)) {
        uint64_t step = step_of(e->d_name);
        if (step > 0) {
            out->count++;
            out->newest = step > out->newest ? step : out->newest;
            out->oldest = out->oldest == 0 || step < out->oldest ? step : out->oldest;
        } else if (is_leftover(e->d_name)) {
            (void)snprintf(out->leftover, sizeof out->leftover, "%s", e->d_name);
        }
    }
    closedir(stream);
    return FL_OK;
}

static enum fl_status step_path(char *path, const char *folder, uint64_t step, const char *end,
                                struct fl_error *error)
{
    char name[48];
    (void)snprintf(name, sizeof name, PREFIX "%" PRIu64 "%s", step, end);
    return fl_path_join(path, folder, name, error);
}

enum fl_status fl_checkpoint_newest(const char *out, char *path, uint64_t *step,
                                    struct fl_error *error)
{
    char folder[FL_PATH_BYTES];
    struct found found;
    *step = 0;
    enum fl_status status = fl_path_join(folder, out, FOLDER, error);
    if (status == FL_OK) {
        status = look(folder, &found, error);
    }
    if (status == FL_OK && found.newest > 0) {
        status = step_path(path, folder, found.newest, "", error);
        *step = found.newest;
    }
    return status;
}

/* A name first, so that what is called step-N stays whole while its files go. */
static enum fl_status forget(const char *folder, uint64_t step, struct fl_error *error)
{
    char path[FL_PATH_BYTES], doomed[FL_PATH_BYTES];
    enum fl_status status = step_path(path, folder, step, "", error);
    if (status == FL_OK) {
        status = step_path(doomed, folder, step, ".tmp", error);
    }
    if (status == FL_OK) {
        status = fl_fs_rename(path, doomed, error);
    }
    return status == FL_OK ? fl_fs_remove(doomed, error) : status;
}

/* Clear leftovers, then the oldest checkpoints until `keep` are there. */
static enum fl_status prune(const char *folder, uint32_t keep, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct found found;
    for (;;) {
        enum fl_status status = look(folder, &found, error);
        if (status == FL_OK && found.leftover[0]) {
            status = fl_path_join(path, folder, found.leftover, error);
            if (status == FL_OK) {
                status = fl_fs_remove(path, error);
            }
        } else if (status == FL_OK && keep > 0 && found.count > keep) {
            status = forget(folder, found.oldest, error);
        } else {
            return status;
        }
        if (status != FL_OK) {
            return status;
        }
    }
}

enum fl_status fl_checkpoint_clear(const char *out, struct fl_error *error)
{
    char folder[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(folder, out, FOLDER, error);
    return status == FL_OK ? prune(folder, 0, error) : status;
}

/* ---- writing ---- */

static enum fl_status set_hash(json_t *files, const char *directory, const char *name,
                               struct fl_error *error)
{
    char path[FL_PATH_BYTES], hex[FL_HASH_HEX_BYTES];
    uint8_t hash[FL_HASH_BYTES];
    enum fl_status status = fl_path_join(path, directory, name, error);
    if (status == FL_OK) {
        status = fl_sha256_file(path, hash, error);
    }
    if (status != FL_OK) {
        return status;
    }
    fl_hex(hash, sizeof hash, hex);
    return json_object_set_new(files, name, json_string(hex)) == 0 ? FL_OK : fl_fail_memory(error);
}

static json_t *make_validation(const struct fl_validation *v)
{
    return json_pack("{s:I, s:I, s:f, s:f, s:I, s:f, s:f, s:I, s:I, s:f, s:I}", "evaluations",
                     (json_int_t)v->evaluations, "step", (json_int_t)v->step, "loss", v->loss,
                     "train", v->train, "best_step", (json_int_t)v->best_step, "best_loss",
                     v->best_loss, "best_train", v->best_train, "stale", (json_int_t)v->stale,
                     "rising", (json_int_t)v->rising, "train_sum", v->train_sum, "train_scored",
                     (json_int_t)v->train_scored);
}

/* The document of FL_CHECKPOINT_STATE; a new reference, NULL: out of memory. files is taken over.
 */
static json_t *make_state(const struct fl_checkpoint *self, const json_t *settings, json_t *files)
{
    const struct fl_finetune_position *at = &self->position;
    const struct fl_finetune_result *t = &self->total;
    return json_pack(
        "{s:s, s:i, s:s, s:i, s:I, s:I, s:I, s:{s:I, s:I, s:f, s:f, s:f}, s:o, s:O, s:o}", "format",
        FORMAT, "version", FORMAT_VERSION, "fedlora", FL_VERSION, "threads", (int)t->threads,
        "step", (json_int_t)at->step, "epoch", (json_int_t)at->epoch, "row", (json_int_t)at->cursor,
        "total", "tokens", (json_int_t)t->tokens, "scored", (json_int_t)t->scored, "loss", t->loss,
        "loss_sum", t->loss_sum, "seconds", t->seconds, "validation",
        make_validation(&self->validation), "settings", (json_t *)(uintptr_t)settings, "files",
        files);
}

static enum fl_status write_state(const char *directory, const struct fl_checkpoint *self,
                                  const json_t *settings, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    char *text = NULL;
    json_t *state = NULL, *files = json_object();
    enum fl_status status = files ? fl_path_join(path, directory, FL_CHECKPOINT_STATE, error)
                                  : fl_fail_memory(error);
    if (status == FL_OK) {
        status = set_hash(files, directory, FL_PEFT_WEIGHTS, error);
    }
    if (status == FL_OK) {
        status = set_hash(files, directory, OPTIMIZER_FILE, error);
    }
    if (status == FL_OK && self->validation.evaluations > 0) {
        status = set_hash(files, directory, BEST_FILE, error);
    }
    if (status == FL_OK) {
        state = make_state(self, settings, files);
        files = NULL; /* json_pack() releases it when it fails */
        text = state ? json_dumps(state, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
        status = text ? fl_fs_write(path, text, strlen(text), 0644, error) : fl_fail_memory(error);
    }
    fl_free(text);
    json_decref(state);
    json_decref(files);
    return status;
}

/* What the parts hold besides the adapter itself. */
static enum fl_status write_tensors(const char *directory, const struct fl_checkpoint *self,
                                    const struct fl_checkpoint_parts *parts, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_buf bytes;
    fl_buf_init(&bytes, 3 * FL_ADAPTER_BYTES_MAX);
    enum fl_status status = fl_path_join(path, directory, OPTIMIZER_FILE, error);
    if (status == FL_OK) {
        status = fl_optimizer_encode(parts->optimizer, parts->adapter, &bytes, error);
    }
    if (status == FL_OK) {
        status = fl_fs_write(path, bytes.data, bytes.length, 0644, error);
    }
    fl_buf_free(&bytes);
    if (status != FL_OK || self->validation.evaluations == 0) {
        return status;
    }
    status = fl_path_join(path, directory, BEST_FILE, error);
    if (status == FL_OK) {
        status = fl_adapter_encode(parts->best, &bytes, error);
    }
    if (status == FL_OK) {
        status = fl_fs_write(path, bytes.data, bytes.length, 0644, error);
    }
    fl_buf_free(&bytes);
    return status;
}

static enum fl_status write_all(const char *folder, const struct fl_checkpoint *self,
                                const struct fl_checkpoint_parts *parts, const char *card,
                                struct fl_error *error)
{
    char path[FL_PATH_BYTES], temporary[FL_PATH_BYTES];
    enum fl_status status = step_path(path, folder, self->position.step, "", error);
    if (status == FL_OK && fl_path_exists(path)) {
        return FL_OK; /* this run was at this step before */
    }
    if (status == FL_OK) {
        status = step_path(temporary, folder, self->position.step, ".tmp", error);
    }
    if (status == FL_OK) {
        status = fl_fs_remove(temporary, error);
    }
    if (status == FL_OK) {
        status = fl_adapter_save(parts->adapter, temporary, card, error);
    }
    if (status == FL_OK) {
        status = write_tensors(temporary, self, parts, error);
    }
    if (status == FL_OK) {
        status = write_state(temporary, self, parts->settings, error);
    }
    return status == FL_OK ? fl_fs_rename(temporary, path, error) : status;
}

enum fl_status fl_checkpoint_save(const char *out, const struct fl_checkpoint *self,
                                  const struct fl_checkpoint_parts *parts, const char *card,
                                  uint32_t keep, struct fl_error *error)
{
    char folder[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(folder, out, FOLDER, error);
    if (status == FL_OK) {
        status = fl_fs_make_directory(folder, 0755, error);
    }
    if (status == FL_OK) {
        status = write_all(folder, self, parts, card, error);
    }
    struct fl_error ignored; /* of the clearing, where writing has failed already */
    enum fl_status pruned = prune(folder, keep, status == FL_OK ? error : &ignored);
    return status == FL_OK ? pruned : status;
}

/* ---- reading ---- */

static enum fl_status damaged(const char *directory, const char *key, struct fl_error *error)
{
    return fl_fail(error, FL_EFORMAT,
                   "%s/" FL_CHECKPOINT_STATE
                   ": no sensible \"%s\"; remove this checkpoint to go on "
                   "from the one before it",
                   directory, key);
}

/* A whole number within [0, highest]. */
static bool read_u64(const json_t *object, const char *key, uint64_t highest, uint64_t *out)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        (uint64_t)json_integer_value(value) > highest) {
        return false;
    }
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static bool read_real(const json_t *object, const char *key, double *out)
{
    const json_t *value = json_object_get(object, key);
    *out = json_number_value(value);
    return json_is_number(value) && isfinite(*out);
}

static bool read_validation(const json_t *object, uint64_t step, struct fl_validation *v)
{
    return read_u64(object, "evaluations", step, &v->evaluations) &&
           read_u64(object, "step", step, &v->step) && read_real(object, "loss", &v->loss) &&
           read_real(object, "train", &v->train) &&
           read_u64(object, "best_step", v->step, &v->best_step) &&
           read_real(object, "best_loss", &v->best_loss) &&
           read_real(object, "best_train", &v->best_train) &&
           read_u64(object, "stale", v->evaluations, &v->stale) &&
           read_u64(object, "rising", v->evaluations, &v->rising) &&
           read_real(object, "train_sum", &v->train_sum) &&
           read_u64(object, "train_scored", INT64_MAX, &v->train_scored);
}

/* Into *self; NULL, or the key that makes no sense. */
static const char *read_state(const json_t *state, struct fl_checkpoint *self)
{
    uint64_t version = 0, cursor = 0, threads = 0;
    const char *format = json_string_value(json_object_get(state, "format"));
    const json_t *total = json_object_get(state, "total");
    struct fl_finetune_result *t = &self->total;
    *self = (struct fl_checkpoint){.total = {.compute = ""}};
    if (!format || strcmp(format, FORMAT) != 0) {
        return "format";
    }
    if (!read_u64(state, "version", FORMAT_VERSION, &version) || version != FORMAT_VERSION) {
        return "version";
    }
    if (!read_u64(state, "step", STEP_MAX, &self->position.step) || self->position.step == 0) {
        return "step";
    }
    if (!read_u64(state, "epoch", STEP_MAX, &self->position.epoch)) {
        return "epoch";
    }
    if (!read_u64(state, "row", UINT32_MAX, &cursor)) {
        return "row";
    }
    if (!read_u64(state, "threads", INT32_MAX, &threads)) {
        return "threads";
    }
    self->position.cursor = (uint32_t)cursor;
    t->threads = (uint32_t)threads;
    t->steps = self->position.step;
    if (!read_u64(total, "tokens", INT64_MAX, &t->tokens) ||
        !read_u64(total, "scored", t->tokens, &t->scored) || !read_real(total, "loss", &t->loss) ||
        !read_real(total, "loss_sum", &t->loss_sum) || !read_real(total, "seconds", &t->seconds) ||
        t->seconds < 0) {
        return "total";
    }
    return read_validation(json_object_get(state, "validation"), t->steps, &self->validation)
               ? NULL
               : "validation";
}

/* The settings of the run that was and of the one that goes on, one by one. */
static enum fl_status compare_settings(const char *directory, const json_t *now, const json_t *then,
                                       struct fl_error *error)
{
    json_t *mine = (json_t *)(uintptr_t)now; /* jansson's iterators lack const */
    if (!json_is_object(then)) {
        return damaged(directory, "settings", error);
    }
    for (void *i = json_object_iter(mine); i; i = json_object_iter_next(mine, i)) {
        const char *name = json_object_iter_key(i);
        const char *value = json_string_value(json_object_iter_value(i));
        const char *old = json_string_value(json_object_get(then, name));
        if (!old) {
            return fl_fail(error, FL_EUSAGE, "%s does not say what %.60s was", directory, name);
        }
        if (strcmp(value, old) != 0 && strlen(value) == FL_HASH_HEX_BYTES - 1) {
            return fl_fail(error, FL_EUSAGE,
                           "%s was made with another %.60s; resume with the same, or begin anew "
                           "with another --out",
                           directory, name);
        }
        if (strcmp(value, old) != 0) {
            return fl_fail(error, FL_EUSAGE,
                           "%s was made with other settings: %.60s is %.80s now and was %.80s; "
                           "resume with the same, or begin anew with another --out",
                           directory, name, value, old);
        }
    }
    for (void *i = json_object_iter((json_t *)(uintptr_t)then); i;
         i = json_object_iter_next((json_t *)(uintptr_t)then, i)) {
        const char *name = json_object_iter_key(i);
        if (!json_object_get(now, name)) {
            return fl_fail(error, FL_EUSAGE,
                           "%s was made with %.60s; resume with the same, or begin anew with "
                           "another --out",
                           directory, name);
        }
    }
    return FL_OK;
}

/* One of the files, whole and with the hash that the state has for it. */
static enum fl_status read_file(const char *directory, const json_t *files, const char *name,
                                size_t maximum, struct fl_buf *out, struct fl_error *error)
{
    char path[FL_PATH_BYTES], hex[FL_HASH_HEX_BYTES];
    uint8_t hash[FL_HASH_BYTES];
    const char *wanted = json_string_value(json_object_get(files, name));
    fl_buf_init(out, maximum);
    enum fl_status status = fl_path_join(path, directory, name, error);
    if (status == FL_OK) {
        status = fl_fs_read(path, maximum, out, error);
    }
    if (status == FL_ENOTFOUND || status == FL_ERANGE) {
        status = FL_EFORMAT;
        error->status = status;
    }
    if (status != FL_OK) {
        return status;
    }
    fl_sha256(out->data, out->length, hash);
    fl_hex(hash, sizeof hash, hex);
    if (!wanted || strcmp(wanted, hex) != 0) {
        return fl_fail(error, FL_EFORMAT,
                       "%s: not the file that was written there; remove this checkpoint to go on "
                       "from the one before it",
                       path);
    }
    return FL_OK;
}

static enum fl_status read_adapter(const char *directory, const json_t *files, const char *name,
                                   size_t bytes, struct fl_adapter *adapter, struct fl_error *error)
{
    struct fl_buf file;
    enum fl_status status = read_file(directory, files, name, bytes, &file, error);
    if (status == FL_OK) {
        status = fl_adapter_decode(adapter, file.data, file.length, error);
    }
    fl_buf_free(&file);
    return status;
}

static enum fl_status read_tensors(const char *directory, const json_t *files,
                                   const struct fl_checkpoint *self,
                                   const struct fl_checkpoint_parts *parts, struct fl_error *error)
{
    const size_t header = 4096 * ((size_t)parts->adapter->count + 1);
    const size_t bytes = (size_t)fl_adapter_parameters(parts->adapter) * sizeof(float) + header;
    struct fl_buf file;
    enum fl_status status = read_adapter(directory, files, FL_PEFT_WEIGHTS, bytes, parts->adapter,
                                         error);
    if (status == FL_OK && self->validation.evaluations > 0) {
        if (!parts->best) {
            return damaged(directory, "validation", error);
        }
        status = read_adapter(directory, files, BEST_FILE, bytes, parts->best, error);
    }
    if (status != FL_OK) {
        return status;
    }
    status = read_file(directory, files, OPTIMIZER_FILE, 2 * bytes, &file, error);
    if (status == FL_OK) {
        status = fl_optimizer_decode(parts->optimizer, parts->adapter, file.data, file.length,
                                     OPTIMIZER_FILE, error);
    }
    fl_buf_free(&file);
    return status;
}

enum fl_status fl_checkpoint_load(const char *directory, struct fl_checkpoint *self,
                                  const struct fl_checkpoint_parts *parts, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    json_t *state = NULL;
    enum fl_status status = fl_path_join(path, directory, FL_CHECKPOINT_STATE, error);
    if (status == FL_OK) {
        status = fl_json_load(path, STATE_BYTES_MAX, &state, error);
    }
    if (status == FL_OK) {
        const char *key = read_state(state, self);
        status = key ? damaged(directory, key, error) : FL_OK;
    }
    if (status == FL_OK) {
        status = compare_settings(directory, parts->settings, json_object_get(state, "settings"),
                                  error);
    }
    if (status == FL_OK) {
        status = read_tensors(directory, json_object_get(state, "files"), self, parts, error);
    }
    json_decref(state);
    return status;
}

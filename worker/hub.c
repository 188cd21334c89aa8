/* hub.c - see hub.h. */
#include "worker/hub.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"

/* A file's name: letters, digits and . _ - alone; no "..", and no first '.' or '-'. */
static bool plain(const char *text)
{
    const size_t length = strlen(text);
    if (length == 0 || length >= FL_HUB_NAME_BYTES || strchr(".-", text[0]) || strstr(text, "..")) {
        return false;
    }
    return strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") ==
           length;
}

static bool hexadecimal(const char *text, size_t digits)
{
    return strlen(text) == digits && strspn(text, "0123456789abcdef") == digits;
}

/* ---- the files ---- */

static bool ends_with(const char *name, const char *end)
{
    const size_t n = strlen(name), e = strlen(end);
    return n > e && strcmp(name + n - e, end) == 0;
}

static bool listed(const struct fl_option_list *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->items[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* What our readers, and transformers, open; Mistral's own format beside it is left out. */
static bool needed(const char *name)
{
    static const char *const names[] = {"merges.txt", "vocab.txt", "tokenizer.model",
                                        "chat_template.jinja"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return ends_with(name, ".json") ||
           (ends_with(name, ".safetensors") && strncmp(name, "consolidated", 12) != 0);
}

/* One entry of "siblings" into *file. */
static enum fl_status read_file(const json_t *entry, const char *name, struct fl_hub_file *file,
                                struct fl_error *error)
{
    const json_t *lfs = json_object_get(entry, "lfs");
    const bool large = json_is_object(lfs);
    const char *hash = json_string_value(large ? json_object_get(lfs, "sha256")
                                               : json_object_get(entry, "blobId"));
    const json_t *size = json_object_get(large ? lfs : entry, "size");
    if (!hash || !hexadecimal(hash, large ? 64 : 40) || !json_is_integer(size) ||
        json_integer_value(size) < 0 ||
        (uint64_t)json_integer_value(size) > FL_HUB_FILE_BYTES_MAX) {
        return fl_fail(error, FL_EFORMAT, "the hub gives no usable hash and size for %s", name);
    }
    *file = (struct fl_hub_file){.sha256 = large, .bytes = (uint64_t)json_integer_value(size)};
    (void)snprintf(file->name, sizeof file->name, "%s", name);
    (void)snprintf(file->hash, sizeof file->hash, "%s", hash);
    return FL_OK;
}

static enum fl_status read_files(const json_t *siblings, const struct fl_option_list *only,
                                 struct fl_hub_plan *out, struct fl_error *error)
{
    const size_t count = json_array_size(siblings);
    if (!json_is_array(siblings) || count > FL_HUB_FILES_MAX) {
        return fl_fail(error, FL_EFORMAT, "the hub lists no files, or more than %u",
                       FL_HUB_FILES_MAX);
    }
    out->files = fl_calloc(count, sizeof *out->files);
    if (!out->files) {
        return fl_fail_memory(error);
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *entry = json_array_get(siblings, i);
        const char *name = json_string_value(json_object_get(entry, "rfilename"));
        if (!name || !plain(name) || !(only->count ? listed(only, name) : needed(name))) {
            continue; /* folders and hidden files among them */
        }
        enum fl_status status = read_file(entry, name, &out->files[out->count], error);
        if (status != FL_OK) {
            return status;
        }
        out->bytes += out->files[out->count++].bytes;
    }
    return FL_OK;
}

static bool has(const struct fl_hub_plan *plan, const char *name)
{
    for (size_t i = 0; i < plan->count; i++) {
        if (strcmp(plan->files[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* Is what a model needs among them? */
static enum fl_status check_files(const struct fl_hub_plan *plan, const struct fl_option_list *only,
                                  struct fl_error *error)
{
    bool weights = false;
    for (size_t i = 0; i < only->count; i++) {
        if (!has(plan, only->items[i])) {
            return fl_fail(error, FL_ENOTFOUND, "the model has no file %.100s", only->items[i]);
        }
    }
    for (size_t i = 0; i < plan->count; i++) {
        weights = weights || ends_with(plan->files[i].name, ".safetensors");
    }
    if (!only->count && (!weights || !has(plan, "config.json"))) {
        return fl_fail(error, FL_EFORMAT,
                       "the model has no config.json and *.safetensors; name what you want with "
                       "--file (a .gguf, say)");
    }
    return FL_OK;
}

/* A model in one file may carry the same weights in pieces too: then the pieces are left out. */
static void drop_pieces(struct fl_hub_plan *plan)
{
    size_t kept = 0;
    const bool whole = has(plan, "model.safetensors");
    for (size_t i = 0; i < plan->count; i++) {
        const char *name = plan->files[i].name;
        const bool piece = strncmp(name, "model-", 6) == 0 && strstr(name, "-of-");
        if (whole && (piece || strcmp(name, "model.safetensors.index.json") == 0)) {
            plan->bytes -= plan->files[i].bytes;
        } else {
            plan->files[kept++] = plan->files[i];
        }
    }
    plan->count = kept;
}

enum fl_status fl_hub_plan_read(const char *text, size_t length, const struct fl_option_list *only,
                                struct fl_hub_plan *out, struct fl_error *error)
{
    json_t *root = NULL;
    *out = (struct fl_hub_plan){0};
    enum fl_status status = fl_json_parse(text, length, "the hub's answer", &root, error);
    const char *commit = json_string_value(json_object_get(root, "sha"));
    if (status == FL_OK && (!commit || !hexadecimal(commit, 40))) {
        status = fl_fail(error, FL_EFORMAT, "the hub's answer names no commit");
    }
    if (status == FL_OK) {
        (void)snprintf(out->commit, sizeof out->commit, "%s", commit);
        status = read_files(json_object_get(root, "siblings"), only, out, error);
    }
    if (status == FL_OK) {
        status = check_files(out, only, error);
    }
    if (status == FL_OK && !only->count) {
        drop_pieces(out);
    }
    json_decref(root);
    if (status != FL_OK) {
        fl_hub_plan_free(out);
    }
    return status;
}

void fl_hub_plan_free(struct fl_hub_plan *self)
{
    fl_free(self->files);
    *self = (struct fl_hub_plan){0};
}

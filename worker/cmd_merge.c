/*
 * cmd_merge.c - `fedlora-worker merge`: base + adapter as one model, a Hugging Face directory or a
 * GGUF file, whatever the base was. The directory is made under another name and renamed.
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cli.h"
#include "base/fs.h"
#include "base/json.h"
#include "format/hfcache.h"
#include "format/narrow.h"
#include "worker/commands.h"
#include "worker/engine/describe.h"
#include "worker/engine/merge.h"
#include "worker/local.h"
#include "worker/tokenizer_files.h"

#define PROGRAM "fedlora-worker merge"

enum { COMPANION_BYTES_MAX = 512 << 20, CONFIG_BYTES_MAX = 1 << 20 };

struct merge {
    const char *named;         /* --model */
    char model[FL_PATH_BYTES]; /* where it is */
    const char *adapter, *out, *dtype;
    bool base_gguf, out_gguf, json;
    struct fl_local local;
    struct fl_merge what;
};

static bool parse(struct merge *m, int argc, char **argv, int *exit_code)
{
    const struct fl_option options[] = {
        {"--model", "PATH", FL_OPTION_STRING, &m->named, 0, 0, NULL, true, NULL,
         "the base: Hugging Face directory, GGUF file, or ORG/NAME in the Hugging Face cache"},
        {"--adapter", "PEFT_DIR", FL_OPTION_STRING, &m->adapter, 0, 0, NULL, true, NULL,
         "the adapter"},
        {"--out", "DIR|FILE.gguf", FL_OPTION_STRING, &m->out, 0, 0, NULL, true, NULL,
         "a new directory, or a new file whose name ends in .gguf"},
        {"--dtype", "TYPE", FL_OPTION_CHOICE, &m->dtype, 0, 0, "base|f32|f16|bf16", false, NULL,
         "of the weights; base: as they are, f16 where they are quantised"},
        {"--json", NULL, FL_OPTION_FLAG, &m->json, 0, 0, NULL, false, NULL,
         "print what was written as one JSON object instead of words"},
    };
    const struct fl_usage usage = {
        .program = PROGRAM,
        .summary = "Write base and adapter as one model that needs neither.",
        .example = PROGRAM " --model model.gguf --adapter adapter --out merged",
        .options = options,
        .option_count = sizeof options / sizeof options[0],
    };
    return fl_cli_begin(&usage, argc, argv, exit_code);
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), e = strlen(end);
    return n > e && strcmp(text + n - e, end) == 0;
}

static bool is_empty_directory(const char *path)
{
    DIR *directory = opendir(path);
    bool empty = directory != NULL;
    for (struct dirent *e = directory ? readdir(directory) : NULL; e; e = readdir(directory)) {
        empty = empty && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0);
    }
    if (directory) {
        closedir(directory);
    }
    return empty;
}

/* A model is large and may be the only one: nothing that exists is written over. */
static enum fl_status check_out(const struct merge *m, struct fl_error *error)
{
    if (!m->out[0]) {
        return fl_fail(error, FL_EUSAGE, "--out is empty");
    }
    if (fl_path_exists(m->out) && (m->out_gguf || !is_empty_directory(m->out))) {
        return fl_fail(error, FL_EEXIST, "%s exists; name another, or remove it first", m->out);
    }
    return FL_OK;
}

static enum fl_status write_text(const char *directory, const char *name, const char *text,
                                 struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(path, directory, name, error);
    return status == FL_OK ? fl_fs_write(path, text, strlen(text), 0644, error) : status;
}

/* ---- a directory ---- */

/* The base's config.json with the new type, and a tied head said where the file left it out. */
static enum fl_status edited_config(const struct merge *m, json_t **out, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    const char *dtype = fl_torch_name(fl_merge_dtype(&m->what));
    const bool tied = fl_model_config(m->local.model)->tied;
    enum fl_status status = fl_path_join(path, m->model, "config.json", error);
    if (status == FL_OK) {
        status = fl_json_load(path, CONFIG_BYTES_MAX, out, error);
    }
    if (status != FL_OK) {
        return status;
    }
    const char *key = json_object_get(*out, "dtype") ? "dtype" : "torch_dtype";
    int failed = json_object_set_new(*out, key, json_string(dtype));
    if (tied || json_object_get(*out, "tie_word_embeddings")) {
        failed |= json_object_set_new(*out, "tie_word_embeddings", json_boolean(tied));
    }
    (void)json_object_del(*out, "_name_or_path");
    (void)json_object_del(*out, "quantization_config"); /* the linears are widened */
    return failed ? fl_fail_memory(error) : FL_OK;
}

static enum fl_status write_config(const struct merge *m, const char *directory,
                                   struct fl_error *error)
{
    json_t *config = NULL;
    enum fl_status status = m->base_gguf ? fl_describe_hf(m->local.model, fl_merge_dtype(&m->what),
                                                          &config, error)
                                         : edited_config(m, &config, error);
    if (status == FL_OK) {
        char *text = json_dumps(config, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(15));
        status = text ? write_text(directory, "config.json", text, error) : fl_fail_memory(error);
        fl_free(text);
    }
    json_decref(config);
    return status;
}

static enum fl_status copy_companions(const struct merge *m, const char *directory,
                                      struct fl_error *error)
{
    static const char *const names[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "tokenizer.model",
                                        "added_tokens.json",
                                        "generation_config.json",
                                        "chat_template.jinja"};
    enum fl_status status = FL_OK;
    for (size_t i = 0; status == FL_OK && i < sizeof names / sizeof *names; i++) {
        char from[FL_PATH_BYTES], to[FL_PATH_BYTES];
        struct fl_buf bytes;
        status = fl_path_join(from, m->model, names[i], error);
        if (status == FL_OK) {
            status = fl_path_join(to, directory, names[i], error);
        }
        if (status != FL_OK || !fl_path_exists(from)) {
            continue;
        }
        status = fl_fs_read(from, COMPANION_BYTES_MAX, &bytes, error);
        if (status == FL_OK) {
            status = fl_fs_write(to, bytes.data, bytes.length, 0644, error);
        }
        fl_buf_free(&bytes);
    }
    return status;
}

static void tell_no_tokenizer(const struct fl_error *why)
{
    fprintf(stderr, "warning: written without a tokenizer: %s\n", why->text);
}

static enum fl_status write_tokenizer(const struct merge *m, const char *directory,
                                      struct fl_error *error)
{
    bool written = true;
    if (!m->base_gguf) {
        return copy_companions(m, directory, error);
    }
    enum fl_status status = fl_tokenizer_files_write(m->model, directory, &written, error);
    if (status == FL_OK && !written) {
        tell_no_tokenizer(error);
    }
    return status;
}

static enum fl_status write_card(const struct merge *m, const char *directory,
                                 struct fl_error *error)
{
    struct fl_buf card;
    fl_buf_init(&card, 1 << 16);
    fl_buf_printf(&card, "# %s\n\nThe base model %s with the LoRA adapter %s merged into it.\n",
                  fl_path_base(m->out), fl_path_base(m->named), fl_path_base(m->adapter));
    enum fl_status status = fl_buf_status(&card) == FL_OK
                                ? write_text(directory, "README.md", fl_buf_text(&card), error)
                                : fl_fail_memory(error);
    fl_buf_free(&card);
    return status;
}

static enum fl_status fill_directory(const struct merge *m, const char *directory,
                                     struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = write_config(m, directory, error);
    if (status == FL_OK) {
        status = write_tokenizer(m, directory, error);
    }
    if (status == FL_OK) {
        status = write_card(m, directory, error);
    }
    if (status == FL_OK) {
        status = fl_path_join(path, directory, "model.safetensors", error);
    }
    return status == FL_OK ? fl_merge_safetensors(&m->what, path, error) : status;
}

static enum fl_status merge_directory(const struct merge *m, struct fl_error *error)
{
    char temporary[FL_PATH_BYTES], out[FL_PATH_BYTES];
    size_t length = strlen(m->out);
    while (length > 1 && m->out[length - 1] == '/') {
        length--;
    }
    if (length >= sizeof out - 32) {
        return fl_fail(error, FL_ERANGE, "--out: the path is too long");
    }
    (void)snprintf(out, sizeof out, "%.*s", (int)length, m->out);
    (void)snprintf(temporary, sizeof temporary, "%.4064s.tmp.%ld", out, (long)getpid());
    enum fl_status status = fl_fs_remove(temporary, error);
    if (status == FL_OK) {
        status = fl_fs_make_directory(temporary, 0755, error);
    }
    if (status == FL_OK) {
        status = fill_directory(m, temporary, error);
    }
    if (status == FL_OK) {
        status = fl_fs_rename(temporary, out, error); /* onto nothing, or an empty directory */
    }
    if (status != FL_OK) {
        struct fl_error ignored;
        (void)!fl_fs_remove(temporary, &ignored);
    }
    return status;
}

/* ---- a GGUF file ---- */

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* A GGUF base's own keys, but those that say how its tensors were stored. */
static enum fl_status copy_keys(const struct merge *m, struct fl_gguf_writer *writer,
                                struct fl_error *error)
{
    struct fl_gguf *file = NULL;
    enum fl_status status = fl_gguf_open(m->model, &file, error);
    for (uint32_t i = 0; status == FL_OK && i < fl_gguf_key_count(file); i++) {
        const struct fl_gguf_key key = fl_gguf_key_at(file, i);
        if (strcmp(key.name, "general.file_type") != 0 &&
            strcmp(key.name, "general.alignment") != 0 &&
            strcmp(key.name, "general.quantization_version") != 0 &&
            !starts_with(key.name, "split.") && !starts_with(key.name, "quantize.")) {
            fl_gguf_put_raw(writer, &key);
        }
    }
    fl_gguf_put_u32(writer, "general.file_type", fl_gguf_file_type(fl_merge_dtype(&m->what)));
    fl_gguf_close(&file);
    return status;
}

static enum fl_status describe(const struct merge *m, struct fl_gguf_writer *writer,
                               struct fl_error *error)
{
    const struct fl_model_config *c = fl_model_config(m->local.model);
    bool written = true;
    if (m->base_gguf) {
        return copy_keys(m, writer, error);
    }
    enum fl_status status = fl_describe_gguf(m->local.model, fl_merge_dtype(&m->what),
                                             fl_path_base(m->out), writer, error);
    if (status == FL_OK) {
        status = fl_tokenizer_keys_put(m->model, c->vocab, writer, &written, error);
    }
    if (status == FL_OK && !written) {
        tell_no_tokenizer(error);
    }
    return status;
}

static enum fl_status merge_gguf(const struct merge *m, struct fl_error *error)
{
    struct fl_gguf_writer writer;
    fl_gguf_writer_init(&writer);
    enum fl_status status = describe(m, &writer, error);
    if (status == FL_OK) {
        status = fl_merge_gguf(&m->what, &writer, m->out, error);
    }
    fl_gguf_writer_free(&writer);
    return status;
}

static enum fl_status merge(struct merge *m, struct fl_error *error)
{
    m->out_gguf = ends_with(m->out, ".gguf");
    enum fl_status status = check_out(m, error);
    if (status == FL_OK) {
        status = fl_hfcache_find(m->named, m->model, error);
    }
    if (status == FL_OK) {
        m->base_gguf = !fl_path_is_directory(m->model);
    }
    if (status == FL_OK) {
        status = fl_local_open_model(&m->local, m->model, error);
    }
    if (status == FL_OK) {
        status = fl_local_open_adapter(&m->local, m->adapter, error);
    }
    if (status != FL_OK) {
        return status;
    }
    m->what = (struct fl_merge){.model = m->local.model,
                                .adapter = m->local.adapter,
                                .dtype = fl_narrow_parse(m->dtype),
                                .stop = fl_local_stop_on_signals()};
    return m->out_gguf ? merge_gguf(m, error) : merge_directory(m, error);
}

static enum fl_status tell(const struct merge *m, struct fl_error *error)
{
    char use[FL_PATH_BYTES + 128];
    (void)snprintf(use, sizeof use,
                   "it takes the place of the base%s: fedlora-worker generate --model %s "
                   "--prompt TEXT",
                   m->out_gguf ? ", in llama.cpp (-m) and here" : " wherever that is read", m->out);
    const struct fl_local_written written = {.path = m->out,
                                             .dtype = fl_merge_dtype(&m->what),
                                             .format = m->out_gguf ? "gguf" : "safetensors",
                                             .use = use};
    return fl_local_tell_written(&written, m->json, error);
}

int fl_cmd_merge(int argc, char **argv)
{
    static struct merge m = {.dtype = "base"};
    struct fl_error error = {0};
    int exit_code = 0;
    if (!parse(&m, argc, argv, &exit_code)) {
        return exit_code;
    }
    enum fl_status status = merge(&m, &error);
    if (status == FL_OK) {
        status = tell(&m, &error);
    }
    fl_local_close(&m.local);
    return status == FL_OK ? 0 : fl_cli_fail(PROGRAM, &error);
}

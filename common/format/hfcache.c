/* hfcache.c - see hfcache.h. Names are checked before they become parts of a path. */
#include "format/hfcache.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COMMIT_DIGITS_MIN = 7, COMMIT_DIGITS_MAX = 64 };

/* Letters, digits and . _ - alone; no "..", no "--", nothing hidden. */
static bool plain(const char *text, size_t length)
{
    if (length == 0 || strchr(".-", text[0]) || memmem(text, length, "..", 2) ||
        memmem(text, length, "--", 2))
        return false;
    for (size_t i = 0; i < length; i++) {
        const char c = text[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '_' || c == '-'))
            return false;
    }
    return true;
}

/* As above, in parts between slashes ("refs/pr/3"). */
static bool plain_path(const char *text)
{
    for (;;) {
        const size_t length = strcspn(text, "/");
        if (!plain(text, length))
            return false;
        if (text[length] == '\0')
            return true;
        text += length + 1;
    }
}

/* false: the text can't be a model's name. */
static bool read_name(const char *text, struct fl_hfcache_name *out)
{
    const char *at = strchr(text, '@');
    const char *revision = at ? at + 1 : "main";
    const size_t length = at ? (size_t)(at - text) : strlen(text);
    const char *slash = memchr(text, '/', length);
    const char *name = slash ? slash + 1 : text;
    if (length >= sizeof out->model || strlen(revision) >= sizeof out->revision ||
        !plain_path(revision) || (slash && !plain(text, (size_t)(slash - text))) ||
        !plain(name, length - (size_t)(name - text)))
        return false;
    (void)snprintf(out->model, sizeof out->model, "%.*s", (int)length, text);
    (void)snprintf(out->revision, sizeof out->revision, "%s", revision);
    return true;
}

enum fl_status fl_hfcache_parse(const char *text, struct fl_hfcache_name *out,
                                struct fl_error *error)
{
    return read_name(text, out)
               ? FL_OK
               : fl_fail(error, FL_EUSAGE, "'%.100s' is no ORG/NAME[@REVISION]", text);
}

enum fl_status fl_hfcache_root(char out[FL_PATH_BYTES], struct fl_error *error)
{
    static const struct {
        const char *variable, *end;
    } PLACES[] = {{"HF_HUB_CACHE", ""},
                  {"HF_HOME", "/hub"},
                  {"XDG_CACHE_HOME", "/huggingface/hub"},
                  {"HOME", "/.cache/huggingface/hub"}};
    for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++) {
        const char *value = getenv(PLACES[i].variable);
        if (!value || !value[0])
            continue;
        if (snprintf(out, FL_PATH_BYTES, "%s%s", value, PLACES[i].end) >= FL_PATH_BYTES)
            return fl_fail(error, FL_ERANGE, "%s is too long", PLACES[i].variable);
        return FL_OK;
    }
    return fl_fail(error, FL_ENOTFOUND,
                   "there is no Hugging Face cache: neither HF_HUB_CACHE, HF_HOME nor HOME is set");
}

/* ---- from a name to a snapshot ---- */

/* The first word of refs/REVISION, which must be a commit. */
static enum fl_status read_ref(const char *path, char commit[COMMIT_DIGITS_MAX + 1],
                               struct fl_error *error)
{
    struct fl_buf text;
    enum fl_status status = fl_fs_read(path, 2 * COMMIT_DIGITS_MAX, &text, error);
    if (status == FL_OK || status == FL_ERANGE) {
        const char *start = fl_buf_text(&text);
        const size_t digits = strspn(start, "0123456789abcdef");
        const bool ends = start[digits + strspn(start + digits, " \r\n")] == '\0';
        if (status == FL_ERANGE || !ends || digits < COMMIT_DIGITS_MIN ||
            digits > COMMIT_DIGITS_MAX)
            status = fl_fail(error, FL_EFORMAT, "%s: it names no commit; delete it and fetch again",
                             path);
        else
            (void)snprintf(commit, COMMIT_DIGITS_MAX + 1, "%.*s", (int)digits, start);
    }
    fl_buf_free(&text);
    return status;
}

static bool is_commit(const char *text)
{
    const size_t digits = strspn(text, "0123456789abcdef");
    return text[digits] == '\0' && digits >= COMMIT_DIGITS_MIN && digits <= COMMIT_DIGITS_MAX;
}

static enum fl_status missing(const struct fl_hfcache_name *name, const char *root,
                              const char *what, struct fl_error *error)
{
    const bool named = strcmp(name->revision, "main") != 0;
    return fl_fail(error, FL_ENOTFOUND,
                   "%s: no such path, and %s in the Hugging Face cache (%.200s); run: "
                   "fedlora-worker fetch %s%s%s",
                   name->model, what, root, name->model, named ? "@" : "",
                   named ? name->revision : "");
}

/* ROOT/models--ORG--NAME/DIRECTORY/LEAF */
static enum fl_status cache_path(const char *root, const struct fl_hfcache_name *name,
                                 const char *directory, const char *leaf, char out[FL_PATH_BYTES],
                                 struct fl_error *error)
{
    const char *slash = strchr(name->model, '/');
    const int owner = slash ? (int)(slash - name->model) : 0;
    if (snprintf(out, FL_PATH_BYTES, "%s/models--%.*s%s%s%s%s%s%s", root, owner, name->model,
                 slash ? "--" : "", slash ? slash + 1 : name->model, directory[0] ? "/" : "",
                 directory, leaf[0] ? "/" : "", leaf) >= FL_PATH_BYTES)
        return fl_fail(error, FL_ERANGE, "%s: its path in the Hugging Face cache is too long",
                       name->model);
    return FL_OK;
}

enum fl_status fl_hfcache_directory(const char *root, const struct fl_hfcache_name *name,
                                    char out[FL_PATH_BYTES], struct fl_error *error)
{
    return cache_path(root, name, "", "", out, error);
}

static enum fl_status find_snapshot(const char *root, const struct fl_hfcache_name *name,
                                    char out[FL_PATH_BYTES], struct fl_error *error)
{
    char commit[COMMIT_DIGITS_MAX + 1];
    enum fl_status status = cache_path(root, name, "refs", name->revision, out, error);
    if (status != FL_OK)
        return status;
    if (fl_path_exists(out))
        status = read_ref(out, commit, error);
    else if (is_commit(name->revision))
        (void)snprintf(commit, sizeof commit, "%.*s", COMMIT_DIGITS_MAX, name->revision);
    else
        return missing(name, root, "not that revision", error);
    if (status == FL_OK)
        status = cache_path(root, name, "snapshots", commit, out, error);
    if (status == FL_OK && !fl_path_is_directory(out))
        return missing(name, root, "not complete", error);
    return status;
}

/* ---- inside a snapshot ---- */

static bool is_gguf_name(const char *name)
{
    const size_t length = strlen(name);
    return name[0] != '.' && length > 5 && strcmp(name + length - 5, ".gguf") == 0;
}

/* A snapshot without a configuration is its one GGUF file. */
static enum fl_status choose_file(char out[FL_PATH_BYTES], struct fl_error *error)
{
    char path[FL_PATH_BYTES], found[NAME_MAX + 1] = "";
    enum fl_status status = fl_path_join(path, out, "config.json", error);
    if (status != FL_OK || fl_path_exists(path))
        return status;
    DIR *directory = opendir(out);
    if (!directory)
        return fl_fail_errno(error, errno, "%s", out);
    size_t count = 0;
    for (struct dirent *e = readdir(directory); e; e = readdir(directory)) {
        if (is_gguf_name(e->d_name) && count++ == 0)
            (void)snprintf(found, sizeof found, "%s", e->d_name);
    }
    closedir(directory);
    if (count == 0)
        return FL_OK;
    if (count > 1)
        return fl_fail(error, FL_EFORMAT, "%s: %zu GGUF files are there; give the path of one", out,
                       count);
    status = fl_path_join(path, out, found, error);
    if (status == FL_OK)
        memcpy(out, path, FL_PATH_BYTES);
    return status;
}

enum fl_status fl_hfcache_find(const char *model, char out[FL_PATH_BYTES], struct fl_error *error)
{
    struct fl_hfcache_name name;
    char root[FL_PATH_BYTES];
    if (snprintf(out, FL_PATH_BYTES, "%s", model) >= FL_PATH_BYTES)
        return fl_fail(error, FL_ERANGE, "%.60s...: the path is too long", model);
    if (fl_path_exists(model) || !read_name(model, &name))
        return FL_OK;
    enum fl_status status = fl_hfcache_root(root, error);
    if (status == FL_OK)
        status = fl_hfcache_directory(root, &name, out, error);
    const bool there = status == FL_OK && fl_path_is_directory(out);
    if (!there && !strchr(name.model, '/')) { /* more likely a path with a slip of the pen */
        (void)snprintf(out, FL_PATH_BYTES, "%s", model);
        return FL_OK;
    }
    if (status == FL_OK && !there)
        status = missing(&name, root, "not", error);
    if (status == FL_OK)
        status = find_snapshot(root, &name, out, error);
    return status == FL_OK ? choose_file(out, error) : status;
}

/* modelref.c - see modelref.h. */
#include "format/modelref.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fs.h"
#include "format/hfcache.h"

#define FILES_MAX 2048

struct file {
    char name[256];
    char hex[FL_HASH_HEX_BYTES];
    uint64_t size;
};

struct listing {
    struct file *files; /* owned */
    size_t count;
};

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), e = strlen(end);
    return n >= e && strcmp(name + n - e, end) == 0;
}

static bool belongs(const char *name)
{
    static const char *const names[] = {"config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "tokenizer.model",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "model.safetensors.index.json",
                                        "chat_template.jinja"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i], name) == 0)
            return true;
    }
    return ends_with(name, ".safetensors");
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct file *)a)->name, ((const struct file *)b)->name);
}

/* As the lines sort: by hash, and by name where two files hold the same bytes. */
static int by_line(const void *a, const void *b)
{
    int order = strcmp(((const struct file *)a)->hex, ((const struct file *)b)->hex);
    return order != 0 ? order : by_name(a, b);
}

static enum fl_status list_files(const char *directory, struct listing *out, struct fl_error *error)
{
    DIR *dir = opendir(directory);
    if (!dir)
        return fl_fail(error, FL_EIO, "%s: the directory can't be read", directory);
    enum fl_status status = FL_OK;
    out->files = fl_calloc(FILES_MAX, sizeof(*out->files));
    if (!out->files)
        status = fl_fail_memory(error);
    for (struct dirent *e = status == FL_OK ? readdir(dir) : NULL; e; e = readdir(dir)) {
        if (!belongs(e->d_name) || strlen(e->d_name) >= sizeof(out->files->name))
            continue;
        if (out->count == FILES_MAX) {
            status = fl_fail(error, FL_EFORMAT, "%s: too many files", directory);
            break;
        }
        snprintf(out->files[out->count++].name, sizeof(out->files->name), "%s", e->d_name);
    }
    closedir(dir);
    if (status == FL_OK && out->count == 0)
        status = fl_fail(error, FL_EFORMAT, "%s holds no model (no config.json, no *.safetensors)",
                         directory);
    if (out->count > 1)
        qsort(out->files, out->count, sizeof(*out->files), by_name);
    return status;
}

static enum fl_status hash_directory(const char *directory, uint8_t out[FL_HASH_BYTES],
                                     struct fl_error *error)
{
    struct listing listing = {0};
    struct fl_buf lines;
    fl_buf_init(&lines, 1u << 24);
    enum fl_status status = list_files(directory, &listing, error);
    for (size_t i = 0; i < listing.count && status == FL_OK; i++) {
        struct file *file = &listing.files[i];
        char path[FL_PATH_BYTES];
        uint8_t hash[FL_HASH_BYTES];
        struct stat info;
        status = fl_path_join(path, directory, file->name, error);
        if (status == FL_OK)
            status = fl_sha256_file(path, hash, error);
        if (status == FL_OK && stat(path, &info) != 0)
            status = fl_fail(error, FL_EIO, "%s: it vanished while being read", path);
        if (status != FL_OK)
            break;
        fl_hex(hash, sizeof(hash), file->hex);
        file->size = (uint64_t)info.st_size;
    }
    if (status == FL_OK)
        qsort(listing.files, listing.count, sizeof(*listing.files), by_line);
    for (size_t i = 0; i < listing.count && status == FL_OK; i++) {
        const struct file *file = &listing.files[i];
        fl_buf_printf(&lines, "%s %" PRIu64 " %s\n", file->hex, file->size, file->name);
    }
    if (status == FL_OK && fl_buf_status(&lines) != FL_OK)
        status = fl_fail_memory(error);
    if (status == FL_OK)
        fl_sha256(lines.data, lines.length, out);
    fl_buf_free(&lines);
    fl_free(listing.files);
    return status;
}

enum fl_status fl_modelref_manifest_fresh(const char *model, uint8_t out[FL_HASH_BYTES],
                                          struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_hfcache_find(model, path, error);
    if (status != FL_OK)
        return status;
    if (!fl_path_exists(path))
        return fl_fail(error, FL_ENOTFOUND, "%s: no such model", path);
    return fl_path_is_directory(path) ? hash_directory(path, out, error)
                                      : fl_sha256_file(path, out, error);
}

/* ---- the cache ---- */

/* What the files look like from outside; any change gives another key. */
static void stamp(struct fl_sha256 *hash, const char *path)
{
    struct stat info;
    char line[FL_PATH_BYTES + 160];
    if (stat(path, &info) != 0)
        memset(&info, 0, sizeof(info));
    int n = snprintf(line, sizeof(line), "%s\n%llu %lld %lld.%09ld %llu %llu\n", path,
                     (unsigned long long)info.st_dev, (long long)info.st_size,
                     (long long)info.st_mtim.tv_sec, info.st_mtim.tv_nsec,
                     (unsigned long long)info.st_ino, (unsigned long long)info.st_ctim.tv_sec);
    if (n > 0)
        fl_sha256_update(hash, line, (size_t)n);
}

static bool cache_key(const char *path, char hex[FL_HASH_HEX_BYTES])
{
    struct fl_sha256 hash;
    struct listing listing = {0};
    struct fl_error error;
    uint8_t digest[FL_HASH_BYTES];
    char real[FL_PATH_BYTES];
    if (!realpath(path, real))
        return false;
    fl_sha256_init(&hash);
    stamp(&hash, real);
    bool ok = !fl_path_is_directory(real) || list_files(real, &listing, &error) == FL_OK;
    for (size_t i = 0; i < listing.count && ok; i++) {
        char file[FL_PATH_BYTES];
        ok = fl_path_join(file, real, listing.files[i].name, &error) == FL_OK;
        if (ok)
            stamp(&hash, file);
    }
    fl_sha256_final(&hash, digest);
    fl_hex(digest, sizeof(digest), hex);
    fl_free(listing.files);
    return ok;
}

static bool cache_path(const char *key, char out[FL_PATH_BYTES])
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char folder[FL_PATH_BYTES];
    struct fl_error error;
    int n;
    if (base && base[0] == '/')
        n = snprintf(folder, sizeof(folder), "%s/fedlora/manifests", base);
    else if (home && home[0] == '/')
        n = snprintf(folder, sizeof(folder), "%s/.cache/fedlora/manifests", home);
    else
        return false;
    return n > 0 && (size_t)n < sizeof(folder) &&
           fl_fs_make_directory(folder, 0700, &error) == FL_OK &&
           fl_path_join(out, folder, key, &error) == FL_OK;
}

enum fl_status fl_modelref_manifest(const char *model, uint8_t out[FL_HASH_BYTES],
                                    struct fl_error *error)
{
    char path[FL_PATH_BYTES], key[FL_HASH_HEX_BYTES], file[FL_PATH_BYTES], hex[FL_HASH_HEX_BYTES];
    struct fl_buf text;
    struct fl_error ignored;
    enum fl_status status = fl_hfcache_find(model, path, error);
    if (status != FL_OK)
        return status;
    bool cached = cache_key(path, key) && cache_path(key, file);
    if (cached && fl_path_exists(file)) {
        bool found = fl_fs_read(file, FL_HASH_HEX_BYTES, &text, &ignored) == FL_OK &&
                     text.length == FL_HASH_HEX_BYTES - 1 &&
                     fl_unhex(fl_buf_text(&text), out, FL_HASH_BYTES) == FL_OK;
        fl_buf_free(&text);
        if (found)
            return FL_OK;
    }
    status = fl_modelref_manifest_fresh(path, out, error);
    char after[FL_HASH_HEX_BYTES];
    /* remembered only if nothing changed while it was read */
    if (status == FL_OK && cached && cache_key(path, after) && strcmp(key, after) == 0) {
        fl_hex(out, FL_HASH_BYTES, hex);
        (void)!fl_fs_write(file, hex, sizeof(hex) - 1, 0600, &ignored);
    }
    return status;
}

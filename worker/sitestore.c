/* sitestore.c - see sitestore.h. */
#include "worker/sitestore.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/json.h"
#include "crypto/sealed.h"

#define DELTA_MAGIC          "FLDELT01"
#define DELTA_HEADER_BYTES   72
#define ADAPTER_VERSIONS_MAX 4096

static enum fl_status make_folder(const char *site, const char *name, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(path, site, name, error);
    return status == FL_OK ? fl_fs_make_directory(path, 0700, error) : status;
}

enum fl_status fl_sitestore_open(const char *site, bool exclusive, struct fl_sitestore *out,
                                 struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    memset(out, 0, sizeof(*out));
    out->lock = -1;
    /* paths are shown to people: never relative ones */
    if (!realpath(site, out->site) || strlen(out->site) >= sizeof(out->site) - 256)
        return fl_fail(error, FL_ENOTFOUND, "%s is no directory, or its path is too long", site);
    enum fl_status status = fl_path_join(path, site, FL_SITE_KEYS, error);
    if (status == FL_OK)
        status = fl_keys_load(path, &out->keys, error);
    if (status == FL_ENOTFOUND)
        status = fl_fail(error, FL_ENOTFOUND,
                         "%s is not there: run `fedlora-worker join TOKEN --dir %s` first", path,
                         site);
    if (status == FL_OK && exclusive) {
        status = fl_path_join(path, site, "lock", error);
        if (status == FL_OK)
            status = fl_fs_lock(path, &out->lock, error);
        if (status == FL_EBUSY)
            status = fl_fail(error, FL_EBUSY, "another fedlora-worker runs on %s", site);
    }
    static const char *const folders[] = {"state", "state/deltas", "state/uploads", "state/sealed",
                                          "adapters"};
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]) && status == FL_OK; i++)
        status = make_folder(site, folders[i], error);
    if (status != FL_OK)
        fl_sitestore_close(out);
    return status;
}

void fl_sitestore_close(struct fl_sitestore *self)
{
    fl_keys_destroy(&self->keys);
    if (self->lock >= 0)
        close(self->lock);
    self->lock = -1;
}

enum fl_status fl_sitestore_path(const struct fl_sitestore *self, const char *name, char *out,
                                 struct fl_error *error)
{
    return fl_path_join(out, self->site, name, error);
}

/* ---- state/seen.json ---- */

static enum fl_status seen_of_json(const json_t *root, struct fl_seen *out)
{
    const char *version, *coordinator;
    json_t *job = json_object_get(root, "job");
    if (!json_is_integer(job) || json_integer_value(job) < 0)
        return FL_EFORMAT;
    out->job = (uint64_t)json_integer_value(job);
    if (fl_json_u32(root, "round", 0, &out->round) != FL_OK ||
        fl_json_u32(root, "attempt", 0, &out->attempt) != FL_OK ||
        fl_json_u32(root, "number", 0, &out->number) != FL_OK ||
        fl_json_string(root, "version", NULL, &version) != FL_OK ||
        fl_json_string(root, "coordinator", "", &coordinator) != FL_OK)
        return FL_EFORMAT;
    snprintf(out->coordinator, sizeof(out->coordinator), "%s", coordinator);
    out->has_version = version != NULL;
    return version ? fl_unhex(version, out->version, FL_HASH_BYTES) : FL_OK;
}

enum fl_status fl_sitestore_load_seen(const struct fl_sitestore *self, struct fl_seen *out,
                                      struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    json_t *root = NULL;
    memset(out, 0, sizeof(*out));
    enum fl_status status = fl_sitestore_path(self, "state/seen.json", path, error);
    if (status == FL_OK)
        status = fl_json_load(path, 4096, &root, error);
    if (status == FL_ENOTFOUND)
        return FL_OK;
    if (status == FL_OK && seen_of_json(root, out) != FL_OK)
        status = fl_fail(error, FL_EFORMAT, "%s is damaged", path);
    json_decref(root);
    return status;
}

enum fl_status fl_sitestore_save_seen(const struct fl_sitestore *self, const struct fl_seen *seen,
                                      struct fl_error *error)
{
    char path[FL_PATH_BYTES], text[256], hex[FL_HASH_HEX_BYTES] = "";
    if (seen->has_version)
        fl_hex(seen->version, FL_HASH_BYTES, hex);
    int length = snprintf(text, sizeof(text),
                          "{\"job\":%" PRIu64 ",\"round\":%u,\"attempt\":%u,\"number\":%u%s%s%s,"
                          "\"coordinator\":\"%s\"}\n",
                          seen->job, seen->round, seen->attempt, seen->number,
                          hex[0] ? ",\"version\":\"" : "", hex, hex[0] ? "\"" : "",
                          seen->coordinator);
    enum fl_status status = fl_sitestore_path(self, "state/seen.json", path, error);
    return status == FL_OK ? fl_fs_write(path, text, (size_t)length, 0600, error) : status;
}

/* ---- another coordinator ---- */

static bool is_empty(const char *folder)
{
    bool empty = true;
    DIR *dir = opendir(folder);
    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry && empty; entry = readdir(dir))
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    if (dir)
        closedir(dir);
    return empty;
}

static enum fl_status set_adapters_aside(const struct fl_sitestore *self, const char *former,
                                         struct fl_error *error)
{
    char from[FL_PATH_BYTES], to[FL_PATH_BYTES], name[64];
    enum fl_status status = fl_sitestore_path(self, "adapters", from, error);
    if (status != FL_OK || is_empty(from))
        return status;
    snprintf(name, sizeof(name), "adapters-%.16s", former);
    status = fl_sitestore_path(self, name, to, error);
    for (unsigned n = 2; status == FL_OK && fl_path_exists(to); n++) {
        snprintf(name, sizeof(name), "adapters-%.16s.%u", former, n);
        status = fl_sitestore_path(self, name, to, error);
    }
    if (status == FL_OK)
        status = fl_fs_rename(from, to, error);
    return status == FL_OK ? make_folder(self->site, "adapters", error) : status;
}

enum fl_status fl_sitestore_part(const struct fl_sitestore *self, const char *former,
                                 struct fl_error *error)
{
    static const char *const rounds[] = {"state/deltas", "state/uploads", "state/offer.frame"};
    char path[FL_PATH_BYTES];
    enum fl_status status = set_adapters_aside(self, former, error);
    for (size_t i = 0; i < sizeof(rounds) / sizeof(rounds[0]) && status == FL_OK; i++) {
        status = fl_sitestore_path(self, rounds[i], path, error);
        if (status == FL_OK)
            status = fl_fs_remove(path, error);
        if (status == FL_OK && i < 2)
            status = make_folder(self->site, rounds[i], error);
    }
    return status;
}

/* ---- state/deltas ---- */

static enum fl_status delta_path(const struct fl_sitestore *self, uint64_t job, uint32_t round,
                                 const uint8_t fingerprint[FL_HASH_BYTES], char *out,
                                 struct fl_error *error)
{
    char name[160], hex[FL_HASH_HEX_BYTES];
    fl_hex(fingerprint, FL_HASH_BYTES, hex);
    snprintf(name, sizeof(name), "state/deltas/%" PRIu64 "-%u-%s.delta", job, round, hex);
    return fl_sitestore_path(self, name, out, error);
}

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static void put_header(struct fl_buf *out, const struct fl_delta_stats *s, uint64_t adapter_bytes)
{
    fl_buf_append(out, DELTA_MAGIC, 8);
    fl_buf_u64(out, s->stats.weight);
    fl_buf_u64(out, bits_of(s->stats.eval_loss_sum));
    fl_buf_u64(out, s->stats.eval_tokens);
    fl_buf_u64(out, bits_of(s->stats.train_loss_sum));
    fl_buf_u64(out, s->stats.train_tokens);
    fl_buf_u64(out, s->steps);
    fl_buf_u64(out, bits_of(s->seconds));
    fl_buf_u64(out, adapter_bytes);
}

static struct fl_seal_context delta_context(uint64_t job, uint32_t round,
                                            const uint8_t fingerprint[FL_HASH_BYTES])
{
    return (struct fl_seal_context){.purpose = "delta",
                                    .sender = "self",
                                    .job = job,
                                    .round = round,
                                    .extra = fingerprint,
                                    .extra_bytes = FL_HASH_BYTES};
}

static enum fl_status seal_file(const struct fl_sitestore *self, const char *path,
                                const struct fl_seal_context *context, const struct fl_buf *parts,
                                size_t count, struct fl_error *error)
{
    struct fl_fs_writer writer;
    struct fl_sealer *sealer = NULL;
    enum fl_status status = fl_fs_writer_open(&writer, path, 0600, error);
    if (status != FL_OK)
        return status;
    status = fl_sealer_open(fl_keys_public(self->keys)->x25519, context, fl_entropy_system(),
                            fl_seal_to_writer(&writer), &sealer, error);
    for (size_t i = 0; i < count && status == FL_OK; i++)
        status = fl_sealer_write(sealer, parts[i].data, parts[i].length, error);
    if (status == FL_OK)
        status = fl_sealer_finish(sealer, error);
    if (status == FL_OK)
        status = fl_fs_writer_commit(&writer, error);
    fl_sealer_close(&sealer);
    fl_fs_writer_close(&writer);
    return status;
}

enum fl_status fl_sitestore_save_delta(const struct fl_sitestore *self, uint64_t job,
                                       uint32_t round, const uint8_t fingerprint[FL_HASH_BYTES],
                                       const struct fl_adapter *delta,
                                       const struct fl_delta_stats *stats, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_buf parts[2];
    fl_buf_init(&parts[0], DELTA_HEADER_BYTES);
    fl_buf_init(&parts[1], FL_ADAPTER_BYTES_MAX);
    enum fl_status status = delta_path(self, job, round, fingerprint, path, error);
    if (status == FL_OK && delta)
        status = fl_adapter_encode(delta, &parts[1], error);
    if (status != FL_OK)
        goto out;
    put_header(&parts[0], stats, parts[1].length);
    status = fl_buf_status(&parts[0]);
    if (status != FL_OK) {
        status = fl_fail_memory(error);
        goto out;
    }
    struct fl_seal_context context = delta_context(job, round, fingerprint);
    status = seal_file(self, path, &context, parts, 2, error);
out:
    fl_buf_free(&parts[1]);
    fl_buf_free(&parts[0]);
    return status;
}

static enum fl_status open_sealed(const struct fl_sitestore *self, const char *path,
                                  const struct fl_seal_context *context, struct fl_buf *plain,
                                  struct fl_error *error)
{
    struct fl_opener *opener = NULL;
    uint8_t *piece = fl_malloc(FL_SEAL_PIECE_BYTES);
    size_t got = 0;
    if (!piece)
        return fl_fail_memory(error);
    enum fl_status status = fl_opener_open_file(fl_keys_public(self->keys)->x25519,
                                                fl_keys_x25519_secret(self->keys), context, path,
                                                &opener, error);
    do {
        if (status == FL_OK)
            status = fl_opener_read(opener, piece, FL_SEAL_PIECE_BYTES, &got, error);
        if (status == FL_OK)
            fl_buf_append(plain, piece, got);
    } while (status == FL_OK && got == FL_SEAL_PIECE_BYTES);
    if (status == FL_OK && fl_buf_status(plain) != FL_OK)
        status = fl_fail_memory(error);
    fl_opener_close(&opener);
    sodium_memzero(piece, FL_SEAL_PIECE_BYTES);
    fl_free(piece);
    return status;
}

static enum fl_status parse_delta(const struct fl_buf *plain, struct fl_adapter *shape,
                                  struct fl_delta_stats *s, struct fl_error *error)
{
    const uint8_t *p = plain->data;
    if (plain->length < DELTA_HEADER_BYTES || memcmp(p, DELTA_MAGIC, 8) != 0)
        return fl_fail(error, FL_EFORMAT, "a kept delta is damaged");
    s->stats.weight = fl_load_u64(p + 8);
    s->stats.eval_loss_sum = double_of(fl_load_u64(p + 16));
    s->stats.eval_tokens = fl_load_u64(p + 24);
    s->stats.train_loss_sum = double_of(fl_load_u64(p + 32));
    s->stats.train_tokens = fl_load_u64(p + 40);
    s->steps = (uint32_t)fl_load_u64(p + 48);
    s->seconds = double_of(fl_load_u64(p + 56));
    size_t adapter_bytes = plain->length - DELTA_HEADER_BYTES;
    if (fl_load_u64(p + 64) != adapter_bytes || (adapter_bytes > 0) != (shape != NULL))
        return fl_fail(error, FL_EFORMAT, "a kept delta is damaged");
    return shape ? fl_adapter_decode(shape, p + DELTA_HEADER_BYTES, adapter_bytes, error) : FL_OK;
}

enum fl_status fl_sitestore_load_delta(const struct fl_sitestore *self, uint64_t job,
                                       uint32_t round, const uint8_t fingerprint[FL_HASH_BYTES],
                                       struct fl_adapter *shape, struct fl_delta_stats *stats,
                                       struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_buf plain;
    fl_buf_init(&plain, FL_ADAPTER_BYTES_MAX);
    enum fl_status status = delta_path(self, job, round, fingerprint, path, error);
    if (status == FL_OK && !fl_path_exists(path))
        status = fl_fail(error, FL_ENOTFOUND, "no kept delta");
    if (status != FL_OK)
        goto out;
    struct fl_seal_context context = delta_context(job, round, fingerprint);
    status = open_sealed(self, path, &context, &plain, error);
    if (status == FL_OK)
        status = parse_delta(&plain, shape, stats, error);
    if (status == FL_EFORMAT) {
        (void)!unlink(path);
        status = FL_ENOTFOUND;
    }
out:
    if (plain.data)
        sodium_memzero(plain.data, plain.length);
    fl_buf_free(&plain);
    return status;
}

static void forget_in(const char *folder, uint64_t job, uint32_t round)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return;
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        uint64_t entry_job;
        uint32_t entry_round;
        if (sscanf(entry->d_name, "%" SCNu64 "-%u-", &entry_job, &entry_round) == 2 &&
            entry_job == job && entry_round <= round)
            (void)!unlinkat(dirfd(dir), entry->d_name, 0);
    }
    closedir(dir);
}

void fl_sitestore_forget(const struct fl_sitestore *self, uint64_t job, uint32_t round)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    if (fl_sitestore_path(self, "state/deltas", path, &error) == FL_OK)
        forget_in(path, job, round);
    if (fl_sitestore_path(self, "state/uploads", path, &error) == FL_OK)
        forget_in(path, job, round);
}

enum fl_status fl_sitestore_upload_path(const struct fl_sitestore *self, uint64_t job,
                                        uint32_t round, uint32_t attempt, char *out,
                                        struct fl_error *error)
{
    char name[96];
    snprintf(name, sizeof(name), "state/uploads/%" PRIu64 "-%u-%u.sealed", job, round, attempt);
    return fl_sitestore_path(self, name, out, error);
}

/* ---- state/sealed ---- */

static enum fl_status mark_path(const struct fl_sitestore *self, const char *coordinator,
                                uint64_t job, char *out, struct fl_error *error)
{
    char name[96];
    snprintf(name, sizeof(name), "state/sealed/%.16s-%" PRIu64, coordinator, job);
    return fl_sitestore_path(self, name, out, error);
}

enum fl_status fl_sitestore_load_mark(const struct fl_sitestore *self, const char *coordinator,
                                      uint64_t job, struct fl_sealed_mark *out,
                                      struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    json_t *root = NULL;
    const char *binding = NULL;
    memset(out, 0, sizeof(*out));
    enum fl_status status = mark_path(self, coordinator, job, path, error);
    if (status == FL_OK)
        status = fl_json_load(path, 4096, &root, error);
    if (status == FL_ENOTFOUND)
        return FL_OK;
    if (status == FL_OK && (fl_json_u32(root, "round", 0, &out->round) != FL_OK ||
                            fl_json_u32(root, "attempt", 0, &out->attempt) != FL_OK ||
                            fl_json_string(root, "binding", NULL, &binding) != FL_OK || !binding ||
                            fl_unhex(binding, out->binding, FL_HASH_BYTES) != FL_OK))
        status = fl_fail(error, FL_EFORMAT, "%s is damaged", path);
    json_decref(root);
    return status;
}

enum fl_status fl_sitestore_save_mark(const struct fl_sitestore *self, const char *coordinator,
                                      uint64_t job, const struct fl_sealed_mark *mark,
                                      struct fl_error *error)
{
    char path[FL_PATH_BYTES], text[192], hex[FL_HASH_HEX_BYTES];
    fl_hex(mark->binding, FL_HASH_BYTES, hex);
    int length = snprintf(text, sizeof(text), "{\"round\":%u,\"attempt\":%u,\"binding\":\"%s\"}\n",
                          mark->round, mark->attempt, hex);
    enum fl_status status = mark_path(self, coordinator, job, path, error);
    return status == FL_OK ? fl_fs_write(path, text, (size_t)length, 0600, error) : status;
}

/* ---- adapters ---- */

static int descending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x < y) - (x > y);
}

/* "JOB@N" of that job, and nothing behind it: not what a crash left. */
static bool is_version(const char *name, uint64_t job, uint32_t *version)
{
    uint64_t name_job;
    int used = 0;
    return sscanf(name, "%" SCNu64 "@%u%n", &name_job, version, &used) == 2 && name_job == job &&
           name[used] == '\0';
}

/* The numbers N of adapters/JOB@N/, the newest first; *versions is new. */
static size_t list_versions(const char *folder, uint64_t job, uint32_t **versions)
{
    size_t count = 0;
    *versions = fl_calloc(ADAPTER_VERSIONS_MAX, sizeof(**versions));
    DIR *dir = *versions ? opendir(folder) : NULL;
    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry; entry = readdir(dir)) {
        if (count < ADAPTER_VERSIONS_MAX && is_version(entry->d_name, job, &(*versions)[count]))
            count++;
    }
    if (dir)
        closedir(dir);
    if (count > 1)
        qsort(*versions, count, sizeof(**versions), descending);
    return count;
}

uint32_t fl_sitestore_versions(const struct fl_sitestore *self, uint64_t job, uint32_t after,
                               uint32_t *out, uint32_t most)
{
    char folder[FL_PATH_BYTES];
    struct fl_error error;
    uint32_t *versions = NULL, taken = 0;
    if (fl_sitestore_path(self, "adapters", folder, &error) != FL_OK)
        return 0;
    size_t count = list_versions(folder, job, &versions);
    for (size_t i = 0; i < count && taken < most && versions[i] > after; i++)
        out[taken++] = versions[i];
    fl_free(versions);
    return taken;
}

/* Remove adapters/JOB@N/ but for `newest` and, of the others, the keep - 1 with the highest
   numbers: behind a job that went back those may be higher than the newest one's. */
static enum fl_status prune(const struct fl_sitestore *self, uint64_t job, uint32_t newest,
                            uint64_t keep, struct fl_error *error)
{
    uint64_t kept = 1;
    char folder[FL_PATH_BYTES];
    uint32_t *versions = NULL;
    enum fl_status status = fl_sitestore_path(self, "adapters", folder, error);
    if (status != FL_OK)
        return status;
    size_t count = list_versions(folder, job, &versions);
    for (size_t i = 0; i < count && status == FL_OK; i++) {
        char name[64], path[FL_PATH_BYTES];
        if (versions[i] == newest || kept++ < keep)
            continue;
        snprintf(name, sizeof(name), "%" PRIu64 "@%u", job, versions[i]);
        status = fl_path_join(path, folder, name, error);
        if (status == FL_OK)
            status = fl_fs_remove(path, error);
    }
    fl_free(versions);
    return status;
}

enum fl_status fl_sitestore_keep_adapter(const struct fl_sitestore *self, uint64_t job,
                                         uint32_t version, const struct fl_adapter *adapter,
                                         const char *card, uint64_t keep, char *path,
                                         struct fl_error *error)
{
    char name[96], numbered[FL_PATH_BYTES];
    snprintf(name, sizeof(name), "adapters/%" PRIu64 "@%u", job, version);
    enum fl_status status = fl_sitestore_path(self, name, numbered, error);
    /* under its number first, and the one before it stays until both are there: whenever the
       process dies a version is there to be given back, and nobody uses one that this site would
       not own up to. So too if only one is wanted: which one adapters/JOB/ is has yet to be noted.
     */
    if (status == FL_OK)
        status = fl_adapter_save(adapter, numbered, card, error);
    snprintf(name, sizeof(name), "adapters/%" PRIu64, job);
    if (status == FL_OK)
        status = fl_sitestore_path(self, name, path, error);
    if (status == FL_OK)
        status = fl_adapter_save(adapter, path, card, error);
    return status == FL_OK ? prune(self, job, version, keep, error) : status;
}

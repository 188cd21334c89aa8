/*
 * client_recall.c - what this site remembers of a job, and gives back to a coordinator that has
 * lost it: the highest (round, attempt), the newest version's hash, and the versions themselves.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "format/peft.h"
#include "job/attempt.h"
#include "worker/client_internal.h"

#define RECALLS_AT_ONCE 32   /* each hashes files, and leaves lines in the audit log */
#define RECALL_EARNS_MS 5000 /* one more each */

enum fl_status fl_client_take_up_seen(struct fl_client *self, struct fl_error *error)
{
    struct fl_seen *seen = &self->seen;
    char own[sizeof(seen->coordinator)];
    enum fl_status status = fl_sitestore_load_seen(self->c.store, seen, error);
    if (status != FL_OK)
        return status;
    snprintf(own, sizeof(own), "%.16s", self->c.conf->coordinator_key);
    /* job numbers of another coordinator mean nothing here, and its versions are none of this
       one's business */
    const bool moved = seen->coordinator[0] && strcmp(seen->coordinator, own) != 0;
    if (moved) {
        status = fl_sitestore_part(self->c.store, seen->coordinator, error);
        fl_log(FL_LOG_WARN, "coordinator_changed",
               "worker.conf names another coordinator: adapters of the one before are kept apart, "
               "in adapters-KEY",
               FL_STR("key", seen->coordinator));
        memset(seen, 0, sizeof(*seen));
    }
    memcpy(seen->coordinator, own, sizeof(own));
    return status == FL_OK && moved ? fl_sitestore_save_seen(self->c.store, seen, error) : status;
}

void fl_client_remember(struct fl_client *self, const uint8_t *version_hash, uint32_t number)
{
    struct fl_error error;
    struct fl_seen *seen = &self->seen;
    if (seen->job != self->key.job) {
        seen->job = self->key.job;
        seen->round = seen->attempt = seen->number = 0;
        seen->has_version = false;
    }
    if (fl_attempt_before(seen->round, seen->attempt, self->key.round, self->key.attempt)) {
        seen->round = self->key.round;
        seen->attempt = self->key.attempt;
    }
    if (version_hash) {
        memcpy(seen->version, version_hash, FL_HASH_BYTES);
        seen->number = number;
        seen->has_version = true;
    }
    if (fl_sitestore_save_seen(self->c.store, seen, &error) != FL_OK)
        fl_log(FL_LOG_ERROR, "disk_failed", error.text);
}

/* ---- giving versions back ---- */

/* Where version number of that job is: under its number, or as the newest one. */
static enum fl_status version_path(const struct fl_client *self, uint64_t job, uint32_t number,
                                   char *path, struct fl_error *error)
{
    char name[128];
    snprintf(name, sizeof(name), "adapters/%" PRIu64 "@%u/" FL_PEFT_WEIGHTS, job, number);
    enum fl_status status = fl_sitestore_path(self->c.store, name, path, error);
    if (status != FL_OK || fl_path_exists(path))
        return status;
    snprintf(name, sizeof(name), "adapters/%" PRIu64 "/" FL_PEFT_WEIGHTS, job);
    return fl_sitestore_path(self->c.store, name, path, error);
}

static bool is_newest(const struct fl_client *self, uint64_t job, uint32_t number)
{
    return self->seen.job == job && self->seen.has_version && self->seen.number == number;
}

/* Which versions are kept beyond `after`, the newest first. */
static uint32_t kept_versions(const struct fl_client *self, uint64_t job, uint32_t after,
                              uint32_t numbers[FL_RECALLED_MAX])
{
    uint32_t count = fl_sitestore_versions(self->c.store, job, after, numbers, FL_RECALLED_MAX);
    uint32_t newest = self->seen.number;
    /* an older program gave the newest no folder of its own where only one was to be kept */
    if (count == 0 && is_newest(self, job, newest) && newest > after)
        numbers[count++] = newest;
    return count;
}

/* In the audit log before the first byte can leave. */
static enum fl_status record(struct fl_client *self, uint64_t job,
                             const struct fl_wire_recalled *answer, struct fl_error *error)
{
    char sha256[FL_HASH_HEX_BYTES];
    fl_hex(answer->sha256, FL_HASH_BYTES, sha256);
    const struct fl_field fields[] = {FL_U64("job", job),
                                      FL_U64("version", answer->version),
                                      FL_U64("bytes", answer->adapter.size),
                                      FL_STR("sha256", sha256),
                                      {.kind = FL_FIELD_END}};
    enum fl_status status = fl_client_audit(self, "version_recalled", fields);
    if (status == FL_OK)
        fl_log_fields(FL_LOG_INFO, "version_recalled",
                      "the coordinator asks for a version that it has lost", fields);
    else
        (void)fl_fail(error, status, "the audit log cannot be written");
    return status;
}

/* Hash a kept version and put it on the shelf. */
static enum fl_status offer_version(struct fl_client *self, uint64_t job, uint32_t number,
                                    struct fl_wire_recalled *answer, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_object *object = NULL;
    enum fl_status status = version_path(self, job, number, path, error);
    if (status == FL_OK)
        status = fl_sha256_file(path, answer->sha256, error);
    if (status == FL_OK && is_newest(self, job, number) &&
        memcmp(answer->sha256, self->seen.version, FL_HASH_BYTES) != 0)
        status = fl_fail(error, FL_EFORMAT, "%s is not version %u as it was kept", path, number);
    if (status == FL_OK)
        status = fl_object_open_file(path, &object, error);
    if (status != FL_OK)
        return status;
    answer->version = number;
    answer->adapter.size = fl_object_size(object);
    memcpy(answer->adapter.root, fl_object_root(object), FL_HASH_BYTES);
    status = record(self, job, answer, error);
    if (status == FL_OK && fl_shelf_put(self->shelf, &object) != FL_OK)
        status = fl_fail_memory(error);
    fl_object_close(&object);
    return status;
}

static void forget_recalled(struct fl_client *self)
{
    for (uint32_t i = 0; i < self->recalled_count; i++) {
        if (memcmp(self->recalled[i], self->update.root, FL_HASH_BYTES) != 0)
            fl_shelf_remove(self->shelf, self->recalled[i]);
    }
    self->recalled_count = 0;
}

/* A coordinator asks a few times after it was restored; who asks for ever gets no answer. */
static bool may_recall(struct fl_client *self)
{
    int64_t now = fl_client_now(self);
    int64_t earned = (now - self->recall_since_ms) / RECALL_EARNS_MS;
    if (earned >= self->recall_spent) {
        self->recall_since_ms = now;
        self->recall_spent = 0;
    } else {
        self->recall_since_ms += earned * RECALL_EARNS_MS;
        self->recall_spent -= earned;
    }
    if (self->recall_spent >= RECALLS_AT_ONCE)
        return false;
    self->recall_spent++;
    return true;
}

/* Hashing happens here, in the I/O thread: the work thread may be in the middle of a long round. */
void fl_client_recall(struct fl_client *self, const struct fl_wire *message)
{
    uint32_t numbers[FL_RECALLED_MAX], offered = 0;
    struct fl_wire_recalled found[FL_RECALLED_MAX] = {0};
    struct fl_error error;
    /* a version is with the work thread: it asks again in a moment, and hears of it then */
    if (self->keeping > 0 && self->handed_job == message->job)
        return;
    if (!may_recall(self))
        return;
    forget_recalled(self);
    uint32_t count = kept_versions(self, message->job, message->as.recall.after, numbers);
    for (uint32_t i = 0; i < count; i++) {
        if (offer_version(self, message->job, numbers[i], &found[offered], &error) == FL_OK) {
            memcpy(self->recalled[offered], found[offered].adapter.root, FL_HASH_BYTES);
            self->recalled_count = ++offered;
        } else {
            fl_log(FL_LOG_WARN, "version_unreadable", error.text, FL_U64("job", message->job),
                   FL_U64("version", numbers[i]));
            memset(&found[offered], 0, sizeof(found[offered]));
        }
    }
    uint32_t answers = offered > 0 ? offered : 1;
    for (uint32_t i = 0; i < answers; i++) {
        struct fl_wire out = {.kind = FL_WIRE_RECALLED, .job = message->job};
        out.as.recalled = found[i];
        out.as.recalled.left = answers - 1 - i;
        (void)!fl_client_send(self, &out); /* one that is lost is asked for again */
    }
}

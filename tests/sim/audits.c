/* audits.c - the audit logs after a run with crashes and bad disks: all good, and they agree. */
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "crypto/audit_keys.h"
#include "sim.h"

#define LOG_BYTES_MAX (16u << 20)

/* The log of a directory, verified with the key of its owner; empty: there is none yet. */
static bool read_log(struct sim *self, const char *directory, const uint8_t *key,
                     struct fl_buf *out)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    struct fl_audit_report report;
    fl_buf_init(out, LOG_BYTES_MAX);
    enum fl_status status = fl_path_join(path, directory, "audit.log", &error);
    if (status == FL_OK && !fl_path_exists(path))
        return true;
    if (status == FL_OK)
        status = fl_audit_verify(path, key, fl_audit_check_ed25519, &report, &error);
    if (status == FL_OK)
        status = fl_fs_read(path, LOG_BYTES_MAX, out, &error);
    if (status == FL_OK)
        return true;
    sim_violation(self, "an audit log is not good: %s", error.text);
    return false;
}

/* Does a line of the event hold this hash? */
static bool stands(const char *log, const char *event, const char *hash)
{
    for (const char *at = strstr(log, event); at; at = strstr(at + 1, event)) {
        const char *found = strstr(at, hash);
        if (found && found < strchr(at, '\n'))
            return true;
    }
    return false;
}

/* The line is owed from the moment that the job is done: a disk that refuses it is asked again some
   seconds later, by then maybe by another process (coordinator/ending.h). */
bool sim_check_ending(const struct sim *self)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    struct fl_buf log;
    if (fl_path_join(path, self->hub.directory, "audit.log", &error) != FL_OK ||
        !fl_path_exists(path) || fl_fs_read(path, LOG_BYTES_MAX, &log, &error) != FL_OK)
        return false;
    bool said = stands(fl_buf_text(&log), "\"event\":\"job_ended\"", "\"state\":\"done\"");
    fl_buf_free(&log);
    return said;
}

/* What the coordinator says it took from a site, one of its processes has written down before it
   sent it. */
static void check_line(struct sim *self, const char *line, const struct sim_site *site,
                       const char *log)
{
    char hash[FL_HASH_HEX_BYTES], worker[FL_NAME_BYTES + 16];
    const char *at = strstr(line, "\"sha256\":\"");
    (void)snprintf(worker, sizeof(worker), "\"worker\":\"%s\"", site->name);
    const char *name = strstr(line, worker);
    if (!name || name > strchr(line, '\n'))
        return;
    if (at)
        (void)snprintf(hash, sizeof(hash), "%s", at + 10);
    if (!at || !stands(log, "\"event\":\"update_sent\"", hash))
        sim_violation(self, "an update of %s was taken that it never wrote down", site->name);
}

static void check_site(struct sim *self, const struct sim_site *site, const char *hub)
{
    static const char taken[] = "\"event\":\"update_accepted\"";
    const struct sim_site *twin = &self->sites[self->process_count - 1];
    struct fl_buf log, other;
    fl_buf_init(&other, LOG_BYTES_MAX);
    bool good = read_log(self, site->directory, site->identity.ed25519, &log);
    if (good && twin != site && twin->owner == site->index) {
        good = read_log(self, twin->directory, site->identity.ed25519, &other);
        fl_buf_append(&log, other.data, other.length);
    }
    if (good) {
        for (const char *at = strstr(hub, taken); at && !self->failed; at = strstr(at + 1, taken))
            check_line(self, at, site, fl_buf_text(&log));
    }
    fl_buf_free(&other);
    fl_buf_free(&log);
}

void sim_check_audits(struct sim *self)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    struct fl_keys *keys = NULL;
    struct fl_buf hub;
    enum fl_status status = fl_path_join(path, self->hub.directory, FL_DESK_KEYS, &error);
    if (status == FL_OK)
        status = fl_keys_load(path, &keys, &error);
    if (status != FL_OK) {
        sim_violation(self, "%s", error.text);
        return;
    }
    if (read_log(self, self->hub.directory, fl_keys_public(keys)->ed25519, &hub)) {
        if (self->history.state == FL_JOB_DONE &&
            !stands(fl_buf_text(&hub), "\"event\":\"job_ended\"", "\"state\":\"done\""))
            sim_violation(self, "the job is done, and its audit log does not say so");
        for (uint32_t i = 0; i < self->site_count && !self->failed; i++)
            check_site(self, &self->sites[i], fl_buf_text(&hub));
    }
    fl_buf_free(&hub);
    fl_keys_destroy(&keys);
}

/* history.c - see history.h. */
#include "worker/history.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/audit.h"
#include "base/json.h"
#include "format/peft.h"

#define SENT_EVENT "\"event\":\"update_sent\""
#define KEPT_EVENT "\"event\":\"version_kept\""

struct fl_kept_sent *fl_history_next(struct fl_history *self)
{
    return &self->sent[self->sent_count % FL_SENT_KEPT];
}

uint32_t fl_history_kept(const struct fl_history *self)
{
    return self->sent_count < FL_SENT_KEPT ? self->sent_count : FL_SENT_KEPT;
}

const struct fl_kept_sent *fl_history_newest(const struct fl_history *self, uint32_t i)
{
    return &self->sent[(self->sent_count - 1 - i) % FL_SENT_KEPT];
}

/* Milliseconds since 1970 of what fl_time_text() wrote; 0: it is no such text. */
static int64_t wall_of(const char *text)
{
    struct tm utc = {0};
    int rest = 0;
    if (!text || sscanf(text, "%d-%d-%dT%d:%d:%d.%dZ", &utc.tm_year, &utc.tm_mon, &utc.tm_mday,
                        &utc.tm_hour, &utc.tm_min, &utc.tm_sec, &rest) != 7)
        return 0;
    utc.tm_year -= 1900;
    utc.tm_mon -= 1;
    return (int64_t)timegm(&utc) * 1000 + rest;
}

static uint64_t number_of(const json_t *line, const char *key)
{
    const json_int_t number = json_integer_value(json_object_get(line, key));
    return number > 0 ? (uint64_t)number : 0;
}

static const char *text_of(const json_t *line, const char *key)
{
    const char *text = json_string_value(json_object_get(line, key));
    return text ? text : "";
}

static void take_sent(struct fl_history *self, const json_t *line)
{
    struct fl_kept_sent *sent = fl_history_next(self);
    memset(sent, 0, sizeof(*sent));
    sent->key = (struct fl_attempt){.job = number_of(line, "job"),
                                    .round = (uint32_t)number_of(line, "round"),
                                    .attempt = (uint32_t)number_of(line, "attempt")};
    sent->bytes = number_of(line, "bytes");
    snprintf(sent->sha256, sizeof(sent->sha256), "%s", text_of(line, "sha256"));
    sent->wall_ms = wall_of(text_of(line, "ts"));
    sent->answered = true;
    self->sent_count++;
}

/* Of those that are still there the last one counts: a folder may have been moved away. */
static void take_version(struct fl_history *self, const char *site, const json_t *line)
{
    char path[FL_PATH_BYTES], name[64], weights[FL_PATH_BYTES];
    struct fl_error ignored;
    const uint64_t job = number_of(line, "job");
    snprintf(name, sizeof(name), "adapters/%" PRIu64, job);
    if (fl_path_join(path, site, name, &ignored) != FL_OK ||
        fl_path_join(weights, path, FL_PEFT_WEIGHTS, &ignored) != FL_OK || !fl_path_exists(weights))
        return;
    memcpy(self->adapter, path, sizeof(path));
    self->job = job;
    self->version = (uint32_t)number_of(line, "version");
}

static bool mentions(const char *line, size_t length, const char *event)
{
    return memmem(line, length, event, strlen(event)) != NULL;
}

static enum fl_status take_line(struct fl_history *self, const char *site, const char *line,
                                size_t length, struct fl_error *error)
{
    json_t *object = NULL;
    if (!mentions(line, length, SENT_EVENT) && !mentions(line, length, KEPT_EVENT))
        return FL_OK; /* most lines are of offers */
    enum fl_status status = fl_json_parse(line, length, "audit.log", &object, error);
    if (status != FL_OK)
        return status == FL_ENOMEM ? status : FL_OK;
    const char *event = text_of(object, "event");
    if (strcmp(event, "update_sent") == 0)
        take_sent(self, object);
    else if (strcmp(event, "version_kept") == 0)
        take_version(self, site, object);
    json_decref(object);
    return FL_OK;
}

enum fl_status fl_history_load(const char *site, struct fl_history *out, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_mapping file = {NULL, 0};
    memset(out, 0, sizeof(*out));
    enum fl_status status = fl_path_join(path, site, "audit.log", error);
    if (status == FL_OK)
        status = fl_fs_map(path, &file, error);
    if (status == FL_ENOTFOUND)
        return FL_OK;
    for (size_t at = 0; status == FL_OK && at < file.length;) {
        const char *line = (const char *)file.data + at;
        const char *end = memchr(line, '\n', file.length - at);
        if (!end)
            break; /* a line that is being written, or that a crash cut off */
        status = take_line(out, site, line, (size_t)(end - line), error);
        at += (size_t)(end - line) + 1;
    }
    fl_fs_unmap(&file);
    return status;
}

static void set(json_t *object, const char *key, json_t *value)
{
    (void)!json_object_set_new(object, key, value ? value : json_null());
}

void fl_history_put(const struct fl_history *self, json_t *status)
{
    const bool has = self->adapter[0] != '\0';
    json_t *list = json_array();
    for (uint32_t i = fl_history_kept(self); list && i > 0; i--) {
        const struct fl_kept_sent *s = fl_history_newest(self, i - 1);
        (void)!json_array_append_new(
            list,
            json_pack("{s:I,s:i,s:i,s:I,s:s,s:I}", "job", (json_int_t)s->key.job, "round",
                      (int)s->key.round, "attempt", (int)s->key.attempt, "bytes",
                      (json_int_t)s->bytes, "sha256", s->sha256, "at_ms", (json_int_t)s->wall_ms));
    }
    set(status, "sent", list);
    set(status, "adapter", has ? json_string(self->adapter) : NULL);
    set(status, "adapter_job", has ? json_integer((json_int_t)self->job) : NULL);
    set(status, "adapter_version", has ? json_integer(self->version) : NULL);
}

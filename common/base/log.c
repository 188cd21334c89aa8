/*
 * log.c - see log.h. A line is built in a fixed buffer on the stack, so that logging also works
 * when memory has run out. A field that would not fit whole is left out and "cut" says so.
 */
#include "base/log.h"

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/escape.h"

#define FL_LOG_LINE_BYTES   8192
#define FL_LOG_TAIL_BYTES   32 /* kept free for the end of a line */
#define FL_LOG_STRING_BYTES 256
#define FL_LOG_EVENTS       64
#define FL_LOG_BURST        20
#define FL_LOG_BURST_INFO   500 /* the ordinary course of fast rounds is not cut */
#define FL_LOG_WINDOW_MS    10000

struct line {
    char text[FL_LOG_LINE_BYTES];
    size_t length;
    bool full;
};

/* One event's window of FL_LOG_WINDOW_MS. */
struct window {
    char event[48];
    int64_t start_ms;
    unsigned written;
    uint64_t left_out;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct window windows[FL_LOG_EVENTS]; /* under mutex */
static atomic_int lowest = FL_LOG_INFO;
static atomic_int copy_fd = -1;
static const char *const level_names[] = {"debug", "info", "warn", "error"};

static void put(struct line *self, const char *format, ...) FL_PRINTF(2, 3);
static void put(struct line *self, const char *format, ...)
{
    size_t left = FL_LOG_LINE_BYTES - FL_LOG_TAIL_BYTES - self->length;
    va_list args;
    va_start(args, format);
    int needed = vsnprintf(self->text + self->length, left, format, args);
    va_end(args);
    if (needed < 0 || (size_t)needed >= left)
        self->full = true;
    else
        self->length += (size_t)needed;
}

/* The text inside a JSON string: cut at FL_LOG_STRING_BYTES. */
static void put_escaped(struct line *self, const char *text)
{
    size_t length = strnlen(text, FL_LOG_STRING_BYTES + 1);
    bool cut = length > FL_LOG_STRING_BYTES;
    length = cut ? FL_LOG_STRING_BYTES : length;
    char piece[FL_ESCAPE_BYTES];
    for (size_t i = 0; i < length;) {
        i += fl_escape(text + i, length - i, piece);
        put(self, "%s", piece);
    }
    if (cut)
        put(self, "...");
}

static void put_quoted(struct line *self, const char *text)
{
    put(self, "\"");
    put_escaped(self, text);
    put(self, "\"");
}

static void put_value(struct line *self, const struct fl_field *field)
{
    switch (field->kind) {
    case FL_FIELD_STRING:
        if (field->value.string)
            put_quoted(self, field->value.string);
        else
            put(self, "null");
        break;
    case FL_FIELD_I64:
        put(self, "%lld", (long long)field->value.i64);
        break;
    case FL_FIELD_U64:
        put(self, "%llu", (unsigned long long)field->value.u64);
        break;
    case FL_FIELD_DOUBLE:
        if (isfinite(field->value.number))
            put(self, "%.9g", field->value.number);
        else
            put(self, "null");
        break;
    case FL_FIELD_END:
        break;
    }
}

/* Every field whole or not at all. */
static void put_fields(struct line *self, bool json, const struct fl_field *fields)
{
    bool cut = false;
    for (; fields->kind != FL_FIELD_END; fields++) {
        size_t before = self->length;
        put(self, json ? ",\"%s\":" : " %s=", fields->key);
        put_value(self, fields);
        if (self->full) {
            self->length = before;
            self->full = false;
            cut = true;
        }
    }
    if (cut) {
        const char *note = json ? ",\"cut\":true" : " cut=true";
        memcpy(self->text + self->length, note, strlen(note));
        self->length += strlen(note);
    }
}

static void build_json(struct line *self, int64_t wall_ms, enum fl_log_level level,
                       const char *event, const char *message, const struct fl_field *fields)
{
    char stamp[FL_TIME_TEXT_BYTES];
    fl_time_text(wall_ms, stamp);
    self->length = 0;
    self->full = false;
    put(self, "{\"ts\":\"%s\",\"level\":\"%s\",\"event\":", stamp, level_names[level]);
    put_quoted(self, event);
    put(self, ",\"msg\":");
    put_quoted(self, message);
    put_fields(self, true, fields);
    memcpy(self->text + self->length, "}\n", 2);
    self->length += 2;
}

static void build_text(struct line *self, int64_t wall_ms, enum fl_log_level level,
                       const char *event, const char *message, const struct fl_field *fields)
{
    char stamp[FL_TIME_TEXT_BYTES];
    fl_time_text(wall_ms, stamp);
    self->length = 0;
    self->full = false;
    put(self, "%.8s %-5s %s: ", stamp + 11, level_names[level], event);
    put_escaped(self, message);
    put_fields(self, false, fields);
    self->text[self->length++] = '\n';
}

static bool wants_json(void)
{
    const char *choice = getenv("FEDLORA_LOG");
    if (choice && strcmp(choice, "json") == 0)
        return true;
    if (choice && strcmp(choice, "text") == 0)
        return false;
    return !isatty(STDERR_FILENO);
}

static void write_line(int fd, const struct line *self)
{
    /* there is nowhere to report that the log itself cannot be written */
    ssize_t wrote = write(fd, self->text, self->length);
    (void)wrote;
}

static void emit(enum fl_log_level level, const char *event, const char *message,
                 const struct fl_field *fields)
{
    struct line built;
    int64_t wall_ms = fl_clock_wall(fl_clock_system());
    bool json = wants_json();
    int fd = atomic_load(&copy_fd);
    if (json || fd >= 0)
        build_json(&built, wall_ms, level, event, message, fields);
    if (fd >= 0)
        write_line(fd, &built);
    if (!json)
        build_text(&built, wall_ms, level, event, message, fields);
    write_line(STDERR_FILENO, &built);
}

/* The event's window, opened anew when its time is over; the oldest makes room. Under mutex. */
static struct window *window_of(const char *event, int64_t now_ms)
{
    struct window *oldest = &windows[0];
    for (size_t i = 0; i < FL_LOG_EVENTS; i++) {
        struct window *w = &windows[i];
        if (strncmp(w->event, event, sizeof(w->event) - 1) == 0)
            return w;
        if (!w->event[0])
            oldest = w;
        else if (oldest->event[0] && w->start_ms < oldest->start_ms)
            oldest = w;
    }
    *oldest = (struct window){.start_ms = now_ms};
    snprintf(oldest->event, sizeof(oldest->event), "%s", event);
    return oldest;
}

static bool may_write(enum fl_log_level level, const char *event, int64_t now_ms)
{
    pthread_mutex_lock(&mutex);
    struct window *w = window_of(event, now_ms);
    bool allowed = w->written < (level < FL_LOG_WARN ? FL_LOG_BURST_INFO : FL_LOG_BURST);
    if (allowed)
        w->written++;
    else
        w->left_out++;
    pthread_mutex_unlock(&mutex);
    return allowed;
}

/* Take one window whose time is over out of the table; false when there is none. */
static bool take_finished(int64_t now_ms, struct window *out)
{
    bool found = false;
    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < FL_LOG_EVENTS && !found; i++) {
        struct window *w = &windows[i];
        if (!w->event[0] || now_ms - w->start_ms < FL_LOG_WINDOW_MS)
            continue;
        *out = *w;
        *w = (struct window){.event = ""};
        found = true;
    }
    pthread_mutex_unlock(&mutex);
    return found;
}

void fl_log_fields(enum fl_log_level level, const char *event, const char *message,
                   const struct fl_field *fields)
{
    if ((int)level < atomic_load(&lowest))
        return;
    int64_t now_ms = fl_clock_now(fl_clock_system());
    struct window finished;
    while (take_finished(now_ms, &finished)) {
        if (finished.left_out == 0)
            continue;
        struct fl_field report[] = {FL_STR("of", finished.event),
                                    FL_U64("lines", finished.left_out),
                                    {.kind = FL_FIELD_END}};
        emit(FL_LOG_WARN, "log_left_out", "lines of a too frequent event were left out", report);
    }
    if (may_write(level, event, now_ms))
        emit(level, event, message, fields);
}

void fl_log_set_level(enum fl_log_level level)
{
    atomic_store(&lowest, (int)level);
}

void fl_log_copy_to(int fd)
{
    atomic_store(&copy_fd, fd);
}

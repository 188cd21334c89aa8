/* lines.c - see lines.h. */
#include "worker/data/lines.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

enum fl_status fl_lines_open(struct fl_lines *self, const char *path, size_t maximum_bytes,
                             struct fl_error *error)
{
    self->path = path;
    self->number = 0;
    self->at = self->filled = 0;
    fl_buf_init(&self->line, maximum_bytes);
    self->file = fopen(path, "rbe");
    return self->file != NULL ? FL_OK : fl_fail_errno(error, errno, "%s: can't open", path);
}

void fl_lines_close(struct fl_lines *self)
{
    if (self->file != NULL)
        fclose(self->file);
    self->file = NULL;
    fl_buf_free(&self->line);
}

/* More bytes into the chunk; at == filled afterwards means the end of the file. */
static enum fl_status refill(struct fl_lines *self, struct fl_error *error)
{
    self->at = 0;
    errno = 0;
    self->filled = fread(self->chunk, 1, sizeof self->chunk, self->file);
    if (self->filled == 0 && ferror(self->file))
        return fl_fail_errno(error, errno, "%s: can't read", self->path);
    return FL_OK;
}

/* Append to the line up to and including the next LF; *ended tells that it was met. */
static void take(struct fl_lines *self, bool *ended)
{
    const char *start = self->chunk + self->at;
    size_t left = self->filled - self->at;
    const char *newline = memchr(start, '\n', left);
    *ended = newline != NULL;
    size_t length = *ended ? (size_t)(newline - start) : left;
    fl_buf_append(&self->line, start, length);
    self->at += length + (*ended ? 1 : 0);
}

static void trim(const struct fl_lines *self, const char **text, size_t *length)
{
    *text = fl_buf_text(&self->line);
    *length = self->line.length;
    if (*length > 0 && (*text)[*length - 1] == '\r')
        (*length)--;
    if (self->number == 1 && *length >= 3 && memcmp(*text, "\xEF\xBB\xBF", 3) == 0) {
        *text += 3;
        *length -= 3;
    }
}

enum fl_status fl_lines_next(struct fl_lines *self, const char **text, size_t *length,
                             struct fl_error *error)
{
    bool ended = false, any = false;
    *text = NULL;
    *length = 0;
    self->line.length = 0;
    while (!ended) {
        if (self->at == self->filled) {
            enum fl_status status = refill(self, error);
            if (status != FL_OK)
                return status;
            if (self->filled == 0)
                break;
        }
        any = true;
        take(self, &ended);
    }
    if (!any)
        return FL_OK;
    self->number++;
    enum fl_status status = fl_buf_status(&self->line);
    if (status == FL_ENOMEM)
        return fl_fail_memory(error);
    if (status != FL_OK)
        return fl_fail(error, FL_EFORMAT, "%s:%" PRIu64 ": the line is longer than %zu bytes",
                       self->path, self->number, self->line.maximum);
    trim(self, text, length);
    return FL_OK;
}

/* feed.c - see feed.h. */
#include "worker/data/feed.h"

#include <errno.h>
#include <string.h>

/* More bytes into an empty chunk; nothing happens at the end of the file. */
static void refill(struct fl_feed *self)
{
    if (self->at < self->filled || self->problem != 0 || self->file == NULL)
        return;
    self->at = 0;
    errno = 0;
    self->filled = fread(self->chunk, 1, sizeof self->chunk, self->file);
    if (self->filled == 0 && ferror(self->file))
        self->problem = errno != 0 ? errno : EIO;
}

void fl_feed_begin(struct fl_feed *self, FILE *file, const char *path)
{
    self->path = path;
    self->file = file;
    self->place = (struct fl_place){1, 1};
    self->at = self->filled = 0;
    self->problem = 0;
    refill(self);
    if (self->filled >= 3 && memcmp(self->chunk, "\xEF\xBB\xBF", 3) == 0)
        self->at = 3;
}

enum fl_status fl_feed_open(struct fl_feed *self, const char *path, struct fl_error *error)
{
    FILE *file = fopen(path, "rbe");
    int reason = errno;
    fl_feed_begin(self, file, path);
    return file != NULL ? FL_OK : fl_fail_errno(error, reason, "%s: can't open", path);
}

void fl_feed_close(struct fl_feed *self)
{
    if (self->file != NULL)
        fclose(self->file);
    self->file = NULL;
}

int fl_feed_peek(struct fl_feed *self)
{
    refill(self);
    return self->at < self->filled ? self->chunk[self->at] : -1;
}

static void pass(struct fl_feed *self, unsigned char byte)
{
    self->at++;
    self->place.column++;
    if (byte == '\n')
        self->place = (struct fl_place){self->place.line + 1, 1};
}

int fl_feed_next(struct fl_feed *self)
{
    int byte = fl_feed_peek(self);
    if (byte >= 0)
        pass(self, (unsigned char)byte);
    return byte;
}

int fl_feed_skip_blanks(struct fl_feed *self)
{
    int byte = fl_feed_peek(self);
    while (byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n') {
        pass(self, (unsigned char)byte);
        byte = fl_feed_peek(self);
    }
    return byte;
}

void fl_feed_until(struct fl_feed *self, const bool stops[256], struct fl_buf *out)
{
    int byte = fl_feed_peek(self);
    while (byte >= 0 && !stops[byte] && fl_buf_status(out) == FL_OK) {
        size_t start = self->at;
        while (self->at < self->filled && !stops[self->chunk[self->at]])
            pass(self, self->chunk[self->at]);
        fl_buf_append(out, self->chunk + start, self->at - start);
        byte = fl_feed_peek(self);
    }
}

const unsigned char *fl_feed_ahead(struct fl_feed *self, size_t *length)
{
    refill(self);
    *length = self->filled - self->at;
    return self->chunk + self->at;
}

enum fl_status fl_feed_status(const struct fl_feed *self, struct fl_error *error)
{
    return self->problem == 0 ? FL_OK
                              : fl_fail_errno(error, self->problem, "%s: can't read", self->path);
}

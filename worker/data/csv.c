/* csv.c - see csv.h. Source: RFC 4180, section 2. */
#include "worker/data/csv.h"

static const bool PLAIN_STOPS[256] = {[','] = true, ['"'] = true, ['\r'] = true, ['\n'] = true};
static const bool QUOTED_STOPS[256] = {['"'] = true};
static const bool LINE_STOPS[256] = {['\n'] = true};

void fl_csv_begin(struct fl_csv *self, struct fl_feed *feed, size_t maximum_bytes)
{
    self->feed = feed;
    self->count = 0;
    self->place = feed->place;
    fl_buf_init(&self->bytes, maximum_bytes);
}

void fl_csv_end(struct fl_csv *self)
{
    fl_buf_free(&self->bytes);
}

/* The record is broken here: the rest of its line is passed over. */
static enum fl_status broken(struct fl_csv *self, bool *skippable, const char *what,
                             struct fl_error *error)
{
    struct fl_buf rest;
    self->place = self->feed->place;
    *skippable = true;
    do {
        fl_buf_init(&rest, sizeof self->feed->chunk);
        fl_feed_until(self->feed, LINE_STOPS, &rest);
        fl_buf_free(&rest);
    } while (fl_feed_peek(self->feed) >= 0 && fl_feed_peek(self->feed) != '\n');
    (void)fl_feed_next(self->feed);
    return fl_fail(error, FL_EFORMAT, "%s", what);
}

/* Behind an opening quote: up to and past the closing one. */
static enum fl_status quoted(struct fl_csv *self, struct fl_error *error)
{
    struct fl_place opened = self->feed->place;
    for (;;) {
        fl_feed_until(self->feed, QUOTED_STOPS, &self->bytes);
        if (fl_buf_status(&self->bytes) != FL_OK)
            return FL_OK; /* fl_csv_next() tells */
        if (fl_feed_next(self->feed) < 0) {
            self->place = (struct fl_place){opened.line, opened.column - 1};
            return fl_fail(error, FL_EFORMAT, "the quote that opens here is never closed");
        }
        if (fl_feed_peek(self->feed) != '"')
            return FL_OK;
        fl_buf_append(&self->bytes, "\"", 1);
        (void)fl_feed_next(self->feed);
    }
}

static enum fl_status field(struct fl_csv *self, bool *skippable, struct fl_error *error)
{
    if (self->count == FL_CSV_FIELDS_MAX)
        return broken(self, skippable, "more than 1024 fields", error);
    struct fl_csv_field *out = &self->fields[self->count++];
    out->at = self->bytes.length;
    enum fl_status status = FL_OK;
    bool has_quotes = fl_feed_peek(self->feed) == '"';
    if (has_quotes) {
        (void)fl_feed_next(self->feed);
        status = quoted(self, error);
    } else {
        fl_feed_until(self->feed, PLAIN_STOPS, &self->bytes);
    }
    out->length = self->bytes.length - out->at;
    int next = fl_feed_peek(self->feed);
    if (status != FL_OK || fl_buf_status(&self->bytes) != FL_OK || next < 0)
        return status; /* fl_csv_next() looks at the bytes */
    if (has_quotes && (next == '"' || !PLAIN_STOPS[next]))
        return broken(self, skippable, "text behind a closing quote", error);
    if (next == '"')
        return broken(self, skippable, "a quote inside a field that does not begin with one",
                      error);
    return FL_OK;
}

/* Past an end of a line or a comma; *more tells that another field follows. */
static enum fl_status separator(struct fl_csv *self, bool *more, bool *skippable,
                                struct fl_error *error)
{
    int byte = fl_feed_next(self->feed);
    *more = byte == ',';
    if (byte != '\r')
        return FL_OK;
    if (fl_feed_peek(self->feed) != '\n' && fl_feed_peek(self->feed) >= 0)
        return broken(self, skippable, "a carriage return without a line feed", error);
    (void)fl_feed_next(self->feed);
    return FL_OK;
}

static int skip_empty_lines(struct fl_feed *feed)
{
    int byte = fl_feed_peek(feed);
    while (byte == '\r' || byte == '\n') {
        (void)fl_feed_next(feed);
        byte = fl_feed_peek(feed);
    }
    return byte;
}

enum fl_status fl_csv_next(struct fl_csv *self, bool *skippable, struct fl_error *error)
{
    *skippable = false;
    self->count = self->bytes.length = 0;
    int byte = skip_empty_lines(self->feed);
    self->place = self->feed->place;
    bool more = byte >= 0;
    while (more) {
        enum fl_status status = field(self, skippable, error);
        if (status == FL_OK && fl_buf_status(&self->bytes) == FL_ENOMEM)
            return fl_fail_memory(error);
        if (status == FL_OK && fl_buf_status(&self->bytes) != FL_OK)
            return fl_fail(error, FL_EFORMAT, "the record is longer than %zu bytes",
                           self->bytes.maximum);
        if (status == FL_OK)
            status = separator(self, &more, skippable, error);
        if (status != FL_OK)
            return status;
    }
    return fl_feed_status(self->feed, error);
}

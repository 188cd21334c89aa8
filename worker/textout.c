/* textout.c - see textout.h. */
#include "worker/textout.h"

#include <string.h>

void fl_textout_init(struct fl_textout *self, const char *const *stops, size_t stop_count)
{
    *self = (struct fl_textout){.stops = stops, .stop_count = stop_count};
    fl_buf_init(&self->text, FL_TEXTOUT_BYTES_MAX);
}

void fl_textout_free(struct fl_textout *self)
{
    fl_buf_free(&self->text);
}

/* The second byte is bounded more closely after these first ones (Unicode 15, table 3-7). */
static bool continues(unsigned char first, size_t at, unsigned char byte)
{
    unsigned char low = 0x80, high = 0xBF;
    if (at == 1) {
        low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : low;
        high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : high;
    }
    return byte >= low && byte <= high;
}

/* Bytes of the character, or of the broken one (*valid false), at the start; 0: more are needed. */
static size_t character(const char *text, size_t length, bool *valid)
{
    const unsigned char *p = (const unsigned char *)text;
    const size_t more = p[0] < 0x80                    ? 0
                        : p[0] >= 0xC2 && p[0] <= 0xDF ? 1
                        : p[0] >= 0xE0 && p[0] <= 0xEF ? 2
                        : p[0] >= 0xF0 && p[0] <= 0xF4 ? 3
                                                       : SIZE_MAX;
    *valid = more != SIZE_MAX;
    for (size_t i = 1; *valid && i <= more; i++) {
        if (i >= length)
            return 0;
        if (!continues(p[0], i, p[i])) {
            *valid = false;
            return i;
        }
    }
    return *valid ? more + 1 : 1;
}

static void append_replacement(struct fl_buf *text)
{
    fl_buf_append(text, "\xEF\xBF\xBD", 3);
}

/* One byte behind those that wait; whole characters go to the text. */
static void push_byte(struct fl_textout *self, char byte)
{
    bool valid;
    self->waiting[self->waiting_bytes++] = byte;
    for (size_t used; self->waiting_bytes > 0 &&
                      (used = character(self->waiting, self->waiting_bytes, &valid)) > 0;) {
        if (valid)
            fl_buf_append(&self->text, self->waiting, used);
        else
            append_replacement(&self->text);
        self->waiting_bytes -= used;
        memmove(self->waiting, self->waiting + used, self->waiting_bytes);
    }
}

/* Where the earliest stop string begins at or behind `from`; the text's length: none is there. */
static size_t find_stop(const struct fl_textout *self, size_t from)
{
    size_t earliest = self->text.length;
    for (size_t i = 0; i < self->stop_count; i++) {
        const char *text = (const char *)self->text.data;
        const size_t bytes = strlen(self->stops[i]);
        const size_t start = from > bytes ? from - bytes : 0;
        const char *at =
            text ? memmem(text + start, self->text.length - start, self->stops[i], bytes) : NULL;
        if (at && (size_t)(at - text) < earliest)
            earliest = (size_t)(at - text);
    }
    return earliest;
}

bool fl_textout_push(struct fl_textout *self, const char *bytes, size_t length)
{
    const size_t before = self->text.length;
    for (size_t i = 0; i < length && !self->stopped; i++)
        push_byte(self, bytes[i]);
    const size_t stop = find_stop(self, before);
    if (stop < self->text.length) {
        self->text.length = stop;
        self->text.data[stop] = '\0';
        self->waiting_bytes = 0;
        self->stopped = true;
    }
    return !self->stopped && fl_buf_status(&self->text) == FL_OK;
}

void fl_textout_end(struct fl_textout *self)
{
    if (self->waiting_bytes > 0)
        append_replacement(&self->text);
    self->waiting_bytes = 0;
    self->ended = true;
}

/* Bytes at the text's end that a stop string begins with: they wait. */
static size_t held_back(const struct fl_textout *self)
{
    size_t most = 0;
    for (size_t i = 0; i < self->stop_count; i++) {
        size_t bytes = strlen(self->stops[i]) - 1;
        bytes = bytes < self->text.length ? bytes : self->text.length;
        while (bytes > most &&
               memcmp(self->text.data + self->text.length - bytes, self->stops[i], bytes) != 0)
            bytes--;
        most = bytes > most ? bytes : most;
    }
    return most;
}

const char *fl_textout_take(struct fl_textout *self, size_t *length)
{
    const size_t held = self->ended || self->stopped ? 0 : held_back(self);
    const size_t safe = self->text.length - held;
    const size_t from = self->shown < safe ? self->shown : safe;
    *length = safe - from;
    self->shown = safe > self->shown ? safe : self->shown;
    return fl_buf_text(&self->text) + from;
}

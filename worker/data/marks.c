/* marks.c - see marks.h. */
#include "worker/data/marks.h"

#include <string.h>

#include "base/buf.h"
#include "worker/data/tokenizer_internal.h"
#include "worker/data/unicode.h"

static bool begins_with_mark(const char *text, size_t length)
{
    return length >= FL_MARK_BYTES && memcmp(text, FL_MARK, FL_MARK_BYTES) == 0;
}

/* Append text with marks for its spaces. */
static void append_marked(struct fl_buf *out, const char *text, size_t length)
{
    const char *end = text + length;
    while (text < end) {
        const char *space = memchr(text, ' ', (size_t)(end - text));
        const size_t before = (size_t)((space ? space : end) - text);
        if (before > 0)
            fl_buf_append(out, text, before);
        if (space)
            fl_buf_append(out, FL_MARK, FL_MARK_BYTES);
        text += before + (space ? 1 : 0);
    }
}

enum fl_status fl_marks_normalise(struct fl_tokenizer *self, const char *text, size_t length,
                                  bool continues, const char **out, size_t *out_length)
{
    enum fl_status status = FL_OK;
    const bool prefix = self->mark_prefix && !continues;
    if (self->nfc && !fl_unicode_is_nfc(text, length)) {
        self->scratch.length = 0;
        status = fl_unicode_nfc(text, length, &self->scratch);
        text = fl_buf_text(&self->scratch);
        length = self->scratch.length;
    }
    if (status == FL_OK && (prefix || self->mark_spaces) && length > 0) {
        self->marked.length = 0;
        if (prefix)
            fl_buf_append(&self->marked, FL_MARK, FL_MARK_BYTES);
        if (self->mark_spaces)
            append_marked(&self->marked, text, length);
        else
            fl_buf_append(&self->marked, text, length);
        status = fl_buf_status(&self->marked);
        text = fl_buf_text(&self->marked);
        length = self->marked.length;
    }
    *out = text;
    *out_length = length;
    return status;
}

enum fl_status fl_marks_prefix(struct fl_tokenizer *self, const char *text, size_t length,
                               enum fl_place place, const char **out, size_t *out_length)
{
    struct fl_buf *to = &self->prefixed;
    const bool wanted = place == FL_PLACE_START
                            ? self->scheme != FL_SCHEME_NEVER
                            : place == FL_PLACE_INSIDE && self->scheme == FL_SCHEME_ALWAYS;
    to->length = 0;
    if (wanted && !begins_with_mark(text, length) && text[0] != ' ')
        fl_buf_append(to, FL_MARK, FL_MARK_BYTES);
    append_marked(to, text, length);
    *out = fl_buf_text(to);
    *out_length = to->length;
    return fl_buf_status(to);
}

/* ---- back to text ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int fl_marks_byte(const char *text, size_t length)
{
    if (length != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    const int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

void fl_marks_append_spaces(struct fl_buf *out, const char *text, size_t length, const char *space)
{
    for (size_t at = 0; at < length;) {
        if (begins_with_mark(text + at, length - at)) {
            if (space[0] != '\0')
                fl_buf_append(out, space, 1);
            at += FL_MARK_BYTES;
            continue;
        }
        fl_buf_append(out, text + at, 1);
        at++;
    }
}

static enum fl_status show_token(struct fl_tokenizer *self, uint32_t id, struct fl_buf *shown)
{
    const char *text;
    size_t length;
    if (!fl_bpe_shown(self->bpe, id, &text, &length))
        return FL_OK;
    const int byte = self->decoder == FL_DECODE_PIECES ? fl_marks_byte(text, length) : -1;
    shown->length = 0;
    if (byte >= 0)
        fl_buf_append(shown, &(uint8_t){(uint8_t)byte}, 1);
    else
        fl_marks_append_spaces(shown, text, length, " ");
    enum fl_status status = fl_buf_status(shown);
    if (status != FL_OK || shown->length == length) /* nothing to replace */
        return status;
    return fl_bpe_set_shown(self->bpe, id, fl_buf_text(shown), shown->length);
}

enum fl_status fl_marks_show(struct fl_tokenizer *self)
{
    struct fl_buf shown;
    fl_buf_init(&shown, 1u << 30);
    enum fl_status status = FL_OK;
    for (uint32_t id = 0; status == FL_OK && id < fl_bpe_size(self->bpe); id++)
        status = show_token(self, id, &shown);
    fl_buf_free(&shown);
    return status;
}

/*
 * unicode.c - UTF-8, character classes, normalisation form C.
 * Source: The Unicode Standard, chapter 3 (D92 well-formed UTF-8, D117 NFC, Hangul
 * arithmetic 3.12).
 */
#include "worker/data/unicode.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "worker/data/unicode_tables.h"

/* ---- UTF-8 ---- */

static bool continuation(char byte)
{
    return ((unsigned char)byte & 0xC0) == 0x80;
}

static uint32_t next_long(const char *text, size_t length, size_t *used)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t need = p[0] >= 0xF0 ? 4 : p[0] >= 0xE0 ? 3 : 2;
    *used = 1;
    if (p[0] < 0xC2 || p[0] > 0xF4 || length < need)
        return FL_UTF8_INVALID;
    uint32_t code = p[0] & (0xFFu >> (need + 1));
    for (size_t i = 1; i < need; i++) {
        if (!continuation(text[i]))
            return FL_UTF8_INVALID;
        code = code << 6 | (p[i] & 0x3Fu);
    }
    bool overlong = (need == 3 && code < 0x800) || (need == 4 && code < 0x10000);
    if (overlong || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
        return FL_UTF8_INVALID;
    *used = need;
    return code;
}

uint32_t fl_utf8_next(const char *text, size_t length, size_t *used)
{
    unsigned char first = (unsigned char)text[0];
    if (first < 0x80) {
        *used = 1;
        return first;
    }
    return next_long(text, length, used);
}

uint32_t fl_utf8_last(const char *text, size_t length, size_t *used)
{
    for (size_t back = 1; back <= 4 && back <= length; back++) {
        if (continuation(text[length - back]))
            continue;
        uint32_t code = fl_utf8_next(text + length - back, back, used);
        if (*used == back)
            return code;
        break;
    }
    *used = 1;
    return FL_UTF8_INVALID;
}

bool fl_utf8_valid(const char *text, size_t length)
{
    for (size_t at = 0, used; at < length; at += used) {
        if (fl_utf8_next(text + at, length - at, &used) == FL_UTF8_INVALID)
            return false;
    }
    return true;
}

size_t fl_utf8_put(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t bytes = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = bytes - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code & 0x3F));
        code >>= 6;
    }
    out[0] = (char)((0xF00u >> bytes & 0xFFu) | code);
    return bytes;
}

/* ---- tables ---- */

static unsigned range_value(const struct fl_unicode_range *ranges, size_t count, uint32_t code)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (code > ranges[middle].last) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && code >= ranges[low].first ? ranges[low].value : 0;
}

static unsigned ascii_class(uint32_t code)
{
    if (code == ' ' || (code >= '\t' && code <= '\r'))
        return FL_UC_SPACE;
    if (code >= '0' && code <= '9')
        return FL_UC_NUMBER | FL_UC_DIGIT | FL_UC_WORD;
    uint32_t lower = code | 0x20;
    if (lower >= 'a' && lower <= 'z')
        return FL_UC_LETTER | FL_UC_WORD;
    return code == '_' ? FL_UC_WORD : 0;
}

unsigned fl_unicode_class(uint32_t code)
{
    if (code < 0x80)
        return ascii_class(code);
    if (code == FL_UTF8_INVALID)
        return 0;
    return range_value(fl_unicode_classes, fl_unicode_classes_count, code);
}

static unsigned combining(uint32_t code)
{
    if (code < 0x300 || code == FL_UTF8_INVALID)
        return 0;
    return range_value(fl_unicode_combining, fl_unicode_combining_count, code);
}

/* ---- decomposition and composition ---- */

#define HANGUL_S       0xAC00u
#define HANGUL_L       0x1100u
#define HANGUL_V       0x1161u
#define HANGUL_T       0x11A7u
#define HANGUL_V_COUNT 21u
#define HANGUL_T_COUNT 28u
#define HANGUL_L_COUNT 19u
#define HANGUL_S_COUNT (HANGUL_L_COUNT * HANGUL_V_COUNT * HANGUL_T_COUNT)

static int compare_first(const void *key, const void *entry)
{
    uint32_t code = *(const uint32_t *)key, other = ((const struct fl_unicode_triple *)entry)->a;
    return code < other ? -1 : code > other;
}

static int compare_pair(const void *key, const void *entry)
{
    const struct fl_unicode_triple *k = key, *e = entry;
    if (k->a != e->a)
        return k->a < e->a ? -1 : 1;
    return k->b < e->b ? -1 : k->b > e->b;
}

/* The character made of a and b, or 0. */
static uint32_t compose_pair(uint32_t a, uint32_t b)
{
    if (a - HANGUL_L < HANGUL_L_COUNT && b - HANGUL_V < HANGUL_V_COUNT) {
        return HANGUL_S + ((a - HANGUL_L) * HANGUL_V_COUNT + (b - HANGUL_V)) * HANGUL_T_COUNT;
    }
    if (a - HANGUL_S < HANGUL_S_COUNT && (a - HANGUL_S) % HANGUL_T_COUNT == 0 && b > HANGUL_T &&
        b < HANGUL_T + HANGUL_T_COUNT) {
        return a + (b - HANGUL_T);
    }
    const struct fl_unicode_triple key = {a, b, 0};
    const struct fl_unicode_triple *hit =
        bsearch(&key, fl_unicode_compose, fl_unicode_compose_count, sizeof key, compare_pair);
    return hit != NULL ? hit->c : 0;
}

struct mark {
    uint32_t code, ccc, order;
};

/* One starter (or none) and the marks behind it, not yet in canonical order. */
struct segment {
    struct mark *marks; /* marks[0] is the starter if it has ccc 0 */
    size_t count, capacity;
    char invalid; /* the byte that FL_UTF8_INVALID stands for */
};

static enum fl_status segment_push(struct segment *self, uint32_t code, uint32_t ccc)
{
    if (self->count == self->capacity) {
        size_t capacity = self->capacity * 2 + 16;
        struct mark *grown = fl_reallocarray(self->marks, capacity, sizeof *grown);
        if (grown == NULL)
            return FL_ENOMEM;
        self->marks = grown;
        self->capacity = capacity;
    }
    self->marks[self->count] = (struct mark){code, ccc, (uint32_t)self->count};
    self->count++;
    return FL_OK;
}

static int compare_mark(const void *a, const void *b)
{
    const struct mark *x = a, *y = b;
    if (x->ccc != y->ccc)
        return x->ccc < y->ccc ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static void put(struct fl_buf *out, uint32_t code, char invalid)
{
    char bytes[4] = {invalid};
    fl_buf_append(out, bytes, code == FL_UTF8_INVALID ? 1 : fl_utf8_put(code, bytes));
}

/*
 * Put the marks in canonical order and compose what composes with the starter (D117).
 */
static void segment_compose(struct segment *self)
{
    if (self->count == 0)
        return;
    size_t first = self->marks[0].ccc == 0 ? 1 : 0;
    qsort(self->marks + first, self->count - first, sizeof self->marks[0], compare_mark);
    if (first == 0)
        return;
    size_t kept = 1;
    uint32_t last_ccc = 0;
    for (size_t i = 1; i < self->count; i++) {
        struct mark mark = self->marks[i];
        bool blocked = last_ccc != 0 && last_ccc >= mark.ccc;
        uint32_t whole = blocked ? 0 : compose_pair(self->marks[0].code, mark.code);
        if (whole != 0) {
            self->marks[0].code = whole;
        } else {
            self->marks[kept++] = mark;
            last_ccc = mark.ccc;
        }
    }
    self->count = kept;
}

static void segment_flush(struct segment *self, struct fl_buf *out)
{
    for (size_t i = 0; i < self->count; i++)
        put(out, self->marks[i].code, self->invalid);
    self->count = 0;
}

/* Take one fully decomposed character. */
static enum fl_status take(struct segment *self, uint32_t code, char invalid, struct fl_buf *out)
{
    uint32_t ccc = combining(code);
    if (ccc == 0 && self->count > 0) {
        segment_compose(self);
        uint32_t whole = 0;
        if (self->count == 1 && self->marks[0].ccc == 0)
            whole = compose_pair(self->marks[0].code, code);
        if (whole != 0) {
            self->marks[0].code = whole;
            return FL_OK;
        }
        segment_flush(self, out);
    }
    if (code == FL_UTF8_INVALID)
        self->invalid = invalid;
    return segment_push(self, code, ccc);
}

static enum fl_status take_decomposed(struct segment *self, uint32_t code, char invalid,
                                      struct fl_buf *out)
{
    if (code - HANGUL_S < HANGUL_S_COUNT || code < 0xC0 || code == FL_UTF8_INVALID)
        return take(self, code, invalid, out); /* Hangul syllables compose back to themselves */
    uint32_t tail[8];                          /* canonical decompositions nest at most four deep */
    size_t tails = 0;
    for (;;) {
        const struct fl_unicode_triple *hit = bsearch(
            &code, fl_unicode_decompose, fl_unicode_decompose_count, sizeof *hit, compare_first);
        if (hit == NULL || tails == sizeof tail / sizeof tail[0])
            break;
        code = hit->b;
        if (hit->c != 0)
            tail[tails++] = hit->c;
    }
    enum fl_status status = take(self, code, invalid, out);
    while (status == FL_OK && tails > 0)
        status = take_decomposed(self, tail[--tails], invalid, out);
    return status;
}

bool fl_unicode_is_nfc(const char *text, size_t length)
{
    for (size_t at = 0, used; at < length; at += used) {
        uint32_t code = fl_utf8_next(text + at, length - at, &used);
        if (code >= 0x300 && (fl_unicode_class(code) & FL_UC_COMPOSES) != 0)
            return false;
    }
    return true;
}

enum fl_status fl_unicode_nfc(const char *text, size_t length, struct fl_buf *out)
{
    struct segment segment = {0};
    enum fl_status status = FL_OK;
    for (size_t at = 0, used; status == FL_OK && at < length; at += used) {
        uint32_t code = fl_utf8_next(text + at, length - at, &used);
        status = take_decomposed(&segment, code, text[at], out);
    }
    if (status == FL_OK) {
        segment_compose(&segment);
        segment_flush(&segment, out);
        status = fl_buf_status(out);
    }
    fl_free(segment.marks);
    return status;
}

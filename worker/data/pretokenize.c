/*
 * pretokenize.c - the scanners. Each function below is one alternative of a regular expression: it
 * returns where its match ends, or `at` when it does not match there. Alternatives are tried in the
 * order of the expression; the first that matches wins, as a backtracking engine does it.
 */
#include "worker/data/pretokenize.h"

#include <stdint.h>
#include <string.h>

#include "worker/data/unicode.h"

#define LLAMA3_HEAD "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define LLAMA3_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct {
    const char *gguf;
    const char *regex;
    enum fl_pre pre;
} KNOWN[] = {
    {"gpt-2", "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
     FL_PRE_GPT2},
    {"llama-bpe", LLAMA3_HEAD "\\p{N}{1,3}" LLAMA3_TAIL, FL_PRE_LLAMA3},
    {"qwen2", LLAMA3_HEAD "\\p{N}" LLAMA3_TAIL, FL_PRE_QWEN2},
    {"smollm", NULL, FL_PRE_SMOLLM},
    /* other names for the same rules, as llama.cpp's converter writes them */
    {"default", NULL, FL_PRE_GPT2},
    {"gpt2", NULL, FL_PRE_GPT2},
    {"phi-2", NULL, FL_PRE_GPT2},
    {"llama3", NULL, FL_PRE_LLAMA3},
    {"llama-v3", NULL, FL_PRE_LLAMA3},
    {"deepseek-r1-qwen", NULL, FL_PRE_QWEN2},
};
#define KNOWN_COUNT (sizeof KNOWN / sizeof KNOWN[0])

const char *fl_pre_name(enum fl_pre pre)
{
    if (pre == FL_PRE_WHOLE || pre == FL_PRE_METASPACE)
        return pre == FL_PRE_WHOLE ? "whole" : "metaspace";
    for (size_t i = 0; i < KNOWN_COUNT; i++) {
        if (KNOWN[i].pre == pre)
            return KNOWN[i].gguf;
    }
    return "unknown";
}

bool fl_pre_from_gguf(const char *name, enum fl_pre *out)
{
    for (size_t i = 0; i < KNOWN_COUNT; i++) {
        if (strcmp(KNOWN[i].gguf, name) != 0)
            continue;
        *out = KNOWN[i].pre;
        return true;
    }
    return false;
}

bool fl_pre_from_regex(const char *regex, enum fl_pre *out)
{
    for (size_t i = 0; i < KNOWN_COUNT; i++) {
        if (KNOWN[i].regex == NULL || strcmp(KNOWN[i].regex, regex) != 0)
            continue;
        *out = KNOWN[i].pre;
        return true;
    }
    return false;
}

/* The text of one scan; `end` bounds it and is what (?!\S) sees as the end of text. */
struct scan {
    const char *text;
    size_t end;
};

#define SPACE_OR_LN (FL_UC_SPACE | FL_UC_LETTER | FL_UC_NUMBER)

/* Class of the character at `at` (0 at the end), *next behind it. */
static unsigned class_at(const struct scan *s, size_t at, size_t *next)
{
    *next = at;
    if (at >= s->end)
        return 0;
    size_t used;
    unsigned class = fl_unicode_class(fl_utf8_next(s->text + at, s->end - at, &used));
    *next = at + used;
    return class;
}

/* (class)+ when wanted != 0, [^forbidden]+ when wanted == 0; at most `most` characters. */
static size_t run(const struct scan *s, size_t at, unsigned wanted, unsigned forbidden, size_t most)
{
    for (size_t i = 0; i < most && at < s->end; i++) {
        size_t next;
        unsigned class = class_at(s, at, &next);
        if (wanted != 0 ? (class & wanted) == 0 : (class & forbidden) != 0)
            break;
        at = next;
    }
    return at;
}

static char byte_at(const struct scan *s, size_t at)
{
    return at < s->end ? s->text[at] : '\0';
}

static char folded_at(const struct scan *s, size_t at, bool fold)
{
    char c = byte_at(s, at);
    return fold && c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* 's|'t|'re|'ve|'m|'ll|'d; fold: (?i:...), under which U+017F is an s too. */
static size_t contraction(const struct scan *s, size_t at, bool fold)
{
    if (byte_at(s, at) != '\'')
        return at;
    char one = folded_at(s, at + 1, fold), two = folded_at(s, at + 2, fold);
    if (one == 's' || one == 't' || one == 'm' || one == 'd')
        return at + 2;
    if ((one == 'r' || one == 'v') && two == 'e')
        return at + 3;
    if (one == 'l' && two == 'l')
        return at + 3;
    if (fold && (unsigned char)one == 0xC5 && (unsigned char)two == 0xBF)
        return at + 3;
    return at;
}

/* " ?X+" for a class (wanted) or for [^forbidden]. */
static size_t spaced_run(const struct scan *s, size_t at, unsigned wanted, unsigned forbidden)
{
    size_t start = at + (byte_at(s, at) == ' ');
    size_t end = run(s, start, wanted, forbidden, SIZE_MAX);
    return end > start ? end : at;
}

/* \s+(?!\S)|\s+ : a run of spaces leaves its last one to a following word. */
static size_t spaces(const struct scan *s, size_t at)
{
    size_t end = at, last = at;
    while (end < s->end) {
        size_t next;
        if ((class_at(s, end, &next) & FL_UC_SPACE) == 0)
            break;
        last = end;
        end = next;
    }
    return end < s->end && last > at ? last : end;
}

static bool is_newline(char c)
{
    return c == '\r' || c == '\n';
}

static size_t scan_gpt2(const struct scan *s, size_t at)
{
    size_t end = contraction(s, at, false);
    if (end == at)
        end = spaced_run(s, at, FL_UC_LETTER, 0);
    if (end == at)
        end = spaced_run(s, at, FL_UC_NUMBER, 0);
    if (end == at)
        end = spaced_run(s, at, 0, SPACE_OR_LN);
    if (end == at)
        end = spaces(s, at);
    return end;
}

/* [^\r\n\p{L}\p{N}]?\p{L}+ */
static size_t prefixed_letters(const struct scan *s, size_t at)
{
    size_t start = at, next;
    unsigned class = class_at(s, at, &next);
    bool prefix = (class & (FL_UC_LETTER | FL_UC_NUMBER)) == 0 && !is_newline(byte_at(s, at));
    if (prefix)
        start = next;
    size_t end = run(s, start, FL_UC_LETTER, 0, SIZE_MAX);
    return end > start ? end : at;
}

/* " ?[^\s\p{L}\p{N}]+[\r\n]*" */
static size_t symbols_newlines(const struct scan *s, size_t at)
{
    size_t end = spaced_run(s, at, 0, SPACE_OR_LN);
    while (end > at && is_newline(byte_at(s, end)))
        end++;
    return end;
}

/* \s*[\r\n]+ : through the last newline of a run of spaces. */
static size_t spaces_newlines(const struct scan *s, size_t at)
{
    size_t end = run(s, at, FL_UC_SPACE, 0, SIZE_MAX);
    while (end > at && !is_newline(s->text[end - 1]))
        end--;
    return end;
}

static size_t scan_llama3(const struct scan *s, size_t at, size_t digits)
{
    size_t end = contraction(s, at, true);
    if (end == at)
        end = prefixed_letters(s, at);
    if (end == at)
        end = run(s, at, FL_UC_NUMBER, 0, digits);
    if (end == at)
        end = symbols_newlines(s, at);
    if (end == at)
        end = spaces_newlines(s, at);
    if (end == at)
        end = spaces(s, at);
    return end;
}

static size_t scan_smollm(struct fl_pre_iter *self)
{
    struct scan all = {self->text, self->length};
    if (self->at >= self->part_end) {
        size_t next;
        if ((class_at(&all, self->at, &next) & FL_UC_DIGIT) != 0)
            return next;
        self->part_end = run(&all, self->at, 0, FL_UC_DIGIT, SIZE_MAX);
    }
    struct scan part = {self->text, self->part_end};
    return scan_gpt2(&part, self->at);
}

/* Up to the next U+2581 behind the first character. */
static size_t scan_metaspace(const struct scan *s, size_t at)
{
    for (at++; at < s->end; at++) {
        if (s->end - at >= 3 && memcmp(s->text + at, "\xE2\x96\x81", 3) == 0)
            break;
    }
    return at;
}

void fl_pre_begin(struct fl_pre_iter *self, enum fl_pre pre, const char *text, size_t length)
{
    *self = (struct fl_pre_iter){.pre = pre, .text = text, .length = length};
}

bool fl_pre_next(struct fl_pre_iter *self, const char **piece, size_t *length)
{
    if (self->at >= self->length)
        return false;
    const struct scan s = {self->text, self->length};
    size_t end = self->at;
    switch (self->pre) {
    case FL_PRE_GPT2:
        end = scan_gpt2(&s, self->at);
        break;
    case FL_PRE_LLAMA3:
        end = scan_llama3(&s, self->at, 3);
        break;
    case FL_PRE_QWEN2:
        end = scan_llama3(&s, self->at, 1);
        break;
    case FL_PRE_SMOLLM:
        end = scan_smollm(self);
        break;
    case FL_PRE_WHOLE:
        end = self->length;
        break;
    case FL_PRE_METASPACE:
        end = scan_metaspace(&s, self->at);
        break;
    }
    *piece = self->text + self->at;
    *length = end - self->at;
    self->at = end;
    return true;
}

/*
 * added_tokens.c - leftmost-longest matching over a sorted list: the candidates for a position are
 * the list's entries that start with its first byte, narrowed byte by byte with binary searches.
 * Source: tokenizers, tokenizer/added_vocabulary.rs (find_matches).
 */
#include "worker/data/added_tokens.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "worker/data/unicode.h"

enum fl_status fl_added_push(struct fl_added_tokens *self, const struct fl_added_token *token)
{
    if (token->length == 0 || token->length > FL_ADDED_TOKEN_BYTES_MAX ||
        self->count >= FL_ADDED_TOKENS_MAX)
        return FL_ERANGE;
    if (self->count == self->capacity) {
        size_t capacity = self->capacity * 2 + 64;
        struct fl_added_token *grown = fl_reallocarray(self->tokens, capacity, sizeof *grown);
        if (grown == NULL)
            return FL_ENOMEM;
        self->tokens = grown;
        self->capacity = capacity;
    }
    char *content = fl_malloc(token->length + 1);
    if (content == NULL)
        return FL_ENOMEM;
    memcpy(content, token->content, token->length);
    content[token->length] = '\0';
    self->tokens[self->count] = *token;
    self->tokens[self->count++].content = content;
    return FL_OK;
}

static int compare(const char *a, size_t a_length, const char *b, size_t b_length)
{
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    if (order != 0)
        return order;
    return a_length < b_length ? -1 : a_length > b_length;
}

static int compare_tokens(const void *a, const void *b)
{
    const struct fl_added_token *x = a, *y = b;
    return compare(x->content, x->length, y->content, y->length);
}

enum fl_status fl_added_seal(struct fl_added_tokens *self, const char **duplicate)
{
    *duplicate = NULL;
    if (self->count == 0)
        return FL_OK;
    qsort(self->tokens, self->count, sizeof self->tokens[0], compare_tokens);
    for (size_t i = 1; i < self->count; i++) {
        if (compare_tokens(&self->tokens[i - 1], &self->tokens[i]) != 0)
            continue;
        *duplicate = self->tokens[i].content;
        return FL_EEXIST;
    }
    size_t at = 0;
    for (unsigned byte = 0; byte <= 256; byte++) {
        while (at < self->count && (unsigned char)self->tokens[at].content[0] < byte)
            at++;
        self->first[byte] = (uint32_t)at;
    }
    return FL_OK;
}

void fl_added_free(struct fl_added_tokens *self)
{
    for (size_t i = 0; i < self->count; i++)
        fl_free(self->tokens[i].content);
    fl_free(self->tokens);
    *self = (struct fl_added_tokens){0};
}

/* First of tokens[low..high) whose byte at depth is >= byte. */
static size_t lower_bound(const struct fl_added_tokens *self, size_t low, size_t high, size_t depth,
                          unsigned byte)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)self->tokens[middle].content[depth] < byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The longest token that text starts with, or NULL. length > 0. */
static const struct fl_added_token *longest(const struct fl_added_tokens *self, const char *text,
                                            size_t length)
{
    const struct fl_added_token *best = NULL;
    unsigned byte = (unsigned char)text[0];
    size_t low = self->first[byte], high = self->first[byte + 1];
    for (size_t depth = 1; low < high; depth++) {
        if (self->tokens[low].length == depth)
            best = &self->tokens[low++];
        if (depth == length)
            break;
        byte = (unsigned char)text[depth];
        low = lower_bound(self, low, high, depth, byte);
        high = lower_bound(self, low, high, depth, byte + 1);
    }
    return best;
}

const struct fl_added_token *fl_added_find(const struct fl_added_tokens *self, const char *text,
                                           size_t length)
{
    if (self->count == 0 || length == 0)
        return NULL;
    const struct fl_added_token key = {.content = (char *)text, .length = length};
    return bsearch(&key, self->tokens, self->count, sizeof key, compare_tokens);
}

static bool is_word(uint32_t code)
{
    return (fl_unicode_class(code) & FL_UC_WORD) != 0;
}

static bool stands_alone(const struct fl_added_iter *self, size_t start, size_t end)
{
    size_t used;
    if (start > 0 && is_word(fl_utf8_last(self->text, start, &used)))
        return false;
    if (end < self->length && is_word(fl_utf8_next(self->text + end, self->length - end, &used)))
        return false;
    return true;
}

static size_t strip_left(const struct fl_added_iter *self, size_t start)
{
    while (start > self->start) {
        size_t used;
        uint32_t code = fl_utf8_last(self->text, start, &used);
        if ((fl_unicode_class(code) & FL_UC_SPACE) == 0)
            break;
        start -= used;
    }
    return start;
}

static size_t strip_right(const struct fl_added_iter *self, size_t end)
{
    while (end < self->length) {
        size_t used;
        uint32_t code = fl_utf8_next(self->text + end, self->length - end, &used);
        if ((fl_unicode_class(code) & FL_UC_SPACE) == 0)
            break;
        end += used;
    }
    return end;
}

void fl_added_begin(struct fl_added_iter *self, const struct fl_added_tokens *set, const char *text,
                    size_t length, bool specials_plain)
{
    *self = (struct fl_added_iter){
        .set = set, .text = text, .length = length, .specials_plain = specials_plain};
    if (set->count == 0)
        self->search = length;
}

/* The next match that counts, or false. Matches that are refused are passed over as a whole. */
static bool next_match(struct fl_added_iter *self, struct fl_added_split *out)
{
    while (self->search < self->length) {
        size_t start = self->search;
        const struct fl_added_token *token = longest(self->set, self->text + start,
                                                     self->length - start);
        if (token == NULL) {
            self->search++;
            continue;
        }
        size_t end = start + token->length;
        self->search = end;
        if (self->specials_plain && token->special)
            continue;
        if (token->single_word && !stands_alone(self, start, end))
            continue;
        if (token->lstrip)
            start = strip_left(self, start);
        if (token->rstrip)
            end = strip_right(self, end);
        *out = (struct fl_added_split){token, start, end};
        return true;
    }
    return false;
}

bool fl_added_next(struct fl_added_iter *self, struct fl_added_split *out)
{
    if (self->has_pending) {
        *out = self->pending;
        self->has_pending = false;
        return true;
    }
    struct fl_added_split match = {NULL, self->length, self->length};
    bool found = next_match(self, &match);
    size_t text_start = self->start;
    self->start = match.end;
    if (text_start < match.start) {
        *out = (struct fl_added_split){NULL, text_start, match.start};
        self->pending = match;
        self->has_pending = found;
        return true;
    }
    *out = match;
    return found;
}

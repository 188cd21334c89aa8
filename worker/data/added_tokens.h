/*
 * added_tokens.h - tokens that are matched in the raw text before any splitting: special tokens and
 * user-defined ones. Leftmost-longest; the flags mean what they mean in Hugging Face's
 * AddedVocabulary, from which the order of the rules is taken.
 * Threads: immutable after fl_added_seal().
 */
#ifndef FL_DATA_ADDED_TOKENS_H
#define FL_DATA_ADDED_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define FL_ADDED_TOKENS_MAX      65536
#define FL_ADDED_TOKEN_BYTES_MAX 4096

struct fl_added_token {
    char *content; /* owned */
    size_t length;
    int32_t id;
    bool single_word, lstrip, rstrip, special;
};

struct fl_added_tokens {
    struct fl_added_token *tokens; /* (count), sorted by content once sealed */
    size_t count, capacity;
    uint32_t first[257]; /* tokens that start with byte b: first[b] .. first[b + 1] */
};

/* Copies the content. FL_ENOMEM; FL_ERANGE: empty, too long, or too many. */
FL_CHECKED enum fl_status fl_added_push(struct fl_added_tokens *self,
                                        const struct fl_added_token *token);
/* Sort for matching. FL_EEXIST: two have the same content, *duplicate names it (borrowed). */
FL_CHECKED enum fl_status fl_added_seal(struct fl_added_tokens *self, const char **duplicate);
void fl_added_free(struct fl_added_tokens *self);

/* The token written exactly so, or NULL. */
const struct fl_added_token *fl_added_find(const struct fl_added_tokens *self, const char *text,
                                           size_t length);

/* What one step of the split yields: a stretch of text (token NULL) or a token. */
struct fl_added_split {
    const struct fl_added_token *token;
    size_t start, end;
};

struct fl_added_iter {
    const struct fl_added_tokens *set;
    const char *text;
    size_t length;
    bool specials_plain; /* matches of special tokens are text */
    size_t search, start;
    struct fl_added_split pending;
    bool has_pending;
};

void fl_added_begin(struct fl_added_iter *self, const struct fl_added_tokens *set, const char *text,
                    size_t length, bool specials_plain);
/* false at the end. Stretches of text are never empty. */
bool fl_added_next(struct fl_added_iter *self, struct fl_added_split *out);

#endif

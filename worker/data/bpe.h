/*
 * bpe.h - byte-pair encoding, of bytes or of characters: the vocabulary, the ranked merges, and the
 * merging of one pre-token.
 *
 * Of bytes: tokens are kept as the bytes that they stand for (the printable alphabet of vocabulary
 * files, "Ġ" for a space, is undone while reading), and a word starts as one symbol a byte.
 * Of characters (SentencePiece's way): tokens are kept as they are written, a word starts as one
 * symbol a character, and a character without a token as its bytes' tokens. The pair with the
 * lowest rank is merged first, the leftmost of equals, until none is left. A queue entry is stale
 * when its pair would no longer give the same token: the test that Hugging Face makes, kept because
 * the outcome depends on it where several pairs give one token.
 *
 * Threads: fl_bpe_word() writes the cache and the scratch: one thread at a time.
 * Source: Sennrich et al. 2016; tokenizers, models/bpe/{model,word}.rs.
 */
#ifndef FL_DATA_BPE_H
#define FL_DATA_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "worker/data/tokenizer.h"

struct fl_bpe;

/* expected_tokens and expected_merges size the tables; they may grow. NULL: out of memory. */
struct fl_bpe *fl_bpe_new(size_t expected_tokens, size_t expected_merges);
void fl_bpe_free(struct fl_bpe *self);

/*
 * Undo the printable alphabet in place: text[0..length) as in a vocabulary file becomes bytes,
 * *length shrinks. false (and text untouched): a character outside the alphabet, so that the token
 * can never come out of byte-level BPE.
 */
bool fl_bpe_from_alphabet(char *text, size_t *length);

/*
 * Set a token's bytes. mergeable: it can be a BPE symbol or result; else it only decodes.
 * FL_EEXIST: the id, or these bytes as a mergeable token, are taken. FL_ERANGE: id >= FL_VOCAB_MAX.
 */
FL_CHECKED enum fl_status fl_bpe_add_token(struct fl_bpe *self, uint32_t id, const char *bytes,
                                           size_t length, bool mergeable);
/* Give the merge of tokens a and b (bytes) this rank; a later call for the same pair overrides.
 * FL_ENOTFOUND: a, b or a + b is no mergeable token. */
FL_CHECKED enum fl_status fl_bpe_add_merge(struct fl_bpe *self, const char *a, size_t a_length,
                                           const char *b, size_t b_length, uint32_t rank);

struct fl_bpe_rules {
    bool ignore_merges; /* a word that is a token becomes that token without merging */
    int32_t unk;        /* stands for what has no token; -1: it vanishes */
    bool fuse_unk;      /* neighbouring unk become one */
    bool characters;    /* symbols are characters, not bytes */
};
/* Call once after all tokens are in. */
void fl_bpe_set_rules(struct fl_bpe *self, const struct fl_bpe_rules *rules);

/*
 * The token that stands for one byte of a character without a token; a character falls back to its
 * bytes only when all of them have such a token.
 */
void fl_bpe_set_fallback(struct fl_bpe *self, uint8_t byte, int32_t id);

/* Append the ids of one pre-token. */
FL_CHECKED enum fl_status fl_bpe_word(struct fl_bpe *self, const char *word, size_t length,
                                      struct fl_ids *out);

/* The id of a mergeable token with these bytes, or -1. */
int32_t fl_bpe_find(const struct fl_bpe *self, const char *bytes, size_t length);
/* The bytes of a token, borrowed until the next fl_bpe_add_token(); false: no such id. */
bool fl_bpe_token(const struct fl_bpe *self, uint32_t id, const char **bytes, size_t *length);
/* What a token decodes to where that is not what it is written as. FL_ENOTFOUND: no such id. */
FL_CHECKED enum fl_status fl_bpe_set_shown(struct fl_bpe *self, uint32_t id, const char *bytes,
                                           size_t length);
/* As fl_bpe_token(), but the bytes that the token decodes to. */
bool fl_bpe_shown(const struct fl_bpe *self, uint32_t id, const char **bytes, size_t *length);
/* One more than the largest id. */
uint32_t fl_bpe_size(const struct fl_bpe *self);

#endif

/*
 * tokenizer.h - BPE: text to token ids and back, as Hugging Face's tokenizers does it.
 *
 * Read from a Hugging Face directory (tokenizer.json, with tokenizer_config.json, config.json and
 * generation_config.json for the special ids) or from one GGUF file (tokenizer.ggml.*). Known
 * pre-tokenizers: GPT-2, Llama-3, Qwen2 (with NFC), SmolLM (digits apart) of byte-level BPE;
 * Metaspace and the Prepend and Replace normalisers of SentencePiece's way (Llama 2, Mistral), with
 * tokens for bytes; a GGUF's tokenizer model "llama" with its scores. Any other pipeline is refused
 * by name, never approximated.
 *
 * Bytes: on valid UTF-8 the ids equal those of Hugging Face. A byte that is not part of valid UTF-8
 * counts as one character that is neither letter, number nor space, and keeps its value, so that
 * decode(encode(x)) == x for every x where the normaliser leaves x alone and the vocabulary has all
 * 256 bytes (SentencePiece's way: where x has no U+2581 and its space in front is put there). NUL
 * is a character like any other.
 *
 * Threads: encode() keeps a cache and scratch memory inside the tokenizer, so that one tokenizer
 * belongs to one thread at a time. The const calls are pure.
 * Source: tokenizers 0.2x (models/bpe, pre_tokenizers, processors/template, added_vocabulary).
 */
#ifndef FL_DATA_TOKENIZER_H
#define FL_DATA_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

struct fl_tokenizer;

/* A growing list of token ids. Zero it to start; release with fl_ids_free(). */
struct fl_ids {
    int32_t *ids; /* (count), owned */
    size_t count, capacity;
};
/* Append one id; FL_ENOMEM leaves the list as it was. */
FL_CHECKED enum fl_status fl_ids_push(struct fl_ids *self, int32_t id);
FL_CHECKED enum fl_status fl_ids_append(struct fl_ids *self, const int32_t *ids, size_t count);
void fl_ids_free(struct fl_ids *self);

/*
 * Open the tokenizer of a model: a directory or a .gguf file, or a name in the cache of hfcache.h.
 * FL_ENOTFOUND: no such path or no tokenizer in it; FL_EFORMAT: broken, hostile or of an unknown
 * kind, with the reason in *error.
 */
FL_CHECKED enum fl_status fl_tokenizer_open(const char *model, struct fl_tokenizer **out,
                                            struct fl_error *error);
/* NULL is fine. */
void fl_tokenizer_close(struct fl_tokenizer *self);

enum fl_encode_flags {
    FL_ENCODE_ADD_SPECIAL = 1,    /* the template's own ids (BOS, EOS) around the text */
    FL_ENCODE_SPECIALS_PLAIN = 2, /* strings such as "<|im_end|>" in text are text, not tokens */
    FL_ENCODE_PREFIX_ONLY = 4,    /* of the template only what stands before the text (BOS) */
    /* the text is a later part of a longer one, whose earlier parts were encoded apart: */
    FL_ENCODE_CONTINUES = 8, /* it goes on in a word's middle, so nothing is put in front of it */
    FL_ENCODE_BEHIND = 16    /* it stands behind a special token */
};

/*
 * Append the ids of text[0..length) to *out (which the caller has zeroed once and frees).
 * flags: FL_ENCODE_* or'ed. FL_ERANGE: more than 1 GiB of text. On failure *out keeps what it had.
 */
FL_CHECKED enum fl_status fl_tokenizer_encode(struct fl_tokenizer *self, const char *text,
                                              size_t length, unsigned flags, struct fl_ids *out,
                                              struct fl_error *error);

/*
 * Append the bytes of ids to *out, special tokens included as they are written; SentencePiece's way
 * without the space that encoding puts in front. The bytes need not be valid UTF-8 (ids can end
 * inside a character). FL_EFORMAT: an id without a token.
 */
FL_CHECKED enum fl_status fl_tokenizer_decode(const struct fl_tokenizer *self, const int32_t *ids,
                                              size_t count, struct fl_buf *out,
                                              struct fl_error *error);

/*
 * The bytes that one token decodes to, borrowed; false when the id has none (a negative or too
 * large id, or a hole in the vocabulary, as the padding rows of some models are).
 */
bool fl_tokenizer_token(const struct fl_tokenizer *self, int32_t id, const char **bytes,
                        size_t *length);
/* The id of the token that is written so (special tokens too), or -1. */
int32_t fl_tokenizer_find(const struct fl_tokenizer *self, const char *text, size_t length);

/* One more than the largest id; the model's own vocab_size may be larger. */
uint32_t fl_tokenizer_vocab_size(const struct fl_tokenizer *self);
/* -1 when the model has none. */
int32_t fl_tokenizer_bos(const struct fl_tokenizer *self);
/* The id that ends a training row, or -1. It is the first of the ids below. */
int32_t fl_tokenizer_eos(const struct fl_tokenizer *self);
/* Every id that ends a generation (eos, end of turn), borrowed; *count may be 0. */
const int32_t *fl_tokenizer_eos_ids(const struct fl_tokenizer *self, size_t *count);
bool fl_tokenizer_is_eos(const struct fl_tokenizer *self, int32_t id);
/* "gpt-2", "llama-bpe", "qwen2" or "smollm"; "whole" or "metaspace": SentencePiece's way. */
const char *fl_tokenizer_pre_name(const struct fl_tokenizer *self);
/* The Jinja chat template as the model carries it, borrowed; NULL when it has none. */
const char *fl_tokenizer_chat_template(const struct fl_tokenizer *self);

#endif

/*
 * marks.h - SentencePiece's way with spaces: each is written as the mark U+2581 ("▁"), a word
 * begins with one, and bytes that no token has are tokens of their own ("<0x0A>").
 *
 * Threads: the calls that write into a tokenizer's scratch belong to the thread that has it.
 * Source: SentencePiece (Kudo and Richardson 2018); tokenizers, normalizers/{prepend,replace},
 * pre_tokenizers/metaspace, decoders.
 */
#ifndef FL_DATA_MARKS_H
#define FL_DATA_MARKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define FL_MARK       "\xE2\x96\x81" /* U+2581 */
#define FL_MARK_BYTES 3

struct fl_tokenizer;
struct fl_buf;

/* When a word's mark is put before a stretch of text that does not begin with one. */
enum fl_scheme { FL_SCHEME_NEVER, FL_SCHEME_FIRST, FL_SCHEME_ALWAYS };

/* Where a stretch stands: where the text begins, behind an added token, or behind text that was
 * encoded in an earlier call. */
enum fl_place { FL_PLACE_START, FL_PLACE_INSIDE, FL_PLACE_CONTINUES };

/* What tokens become when they are decoded. */
enum fl_decoder {
    FL_DECODE_AS_IS,    /* their bytes (byte-level BPE) */
    FL_DECODE_PIECES,   /* marks are spaces, tokens of bytes are bytes */
    FL_DECODE_METASPACE /* marks are spaces, or nothing in the first token */
};

/*
 * The normaliser as the tokenizer has it (NFC, a mark in front, marks for spaces): *out is text
 * itself, or lies in the tokenizer's scratch until the next call. continues: text goes on where an
 * earlier stretch ended, and gets no mark in front. FL_ENOMEM, FL_ERANGE.
 */
FL_CHECKED enum fl_status fl_marks_normalise(struct fl_tokenizer *self, const char *text,
                                             size_t length, bool continues, const char **out,
                                             size_t *out_length);
/*
 * The Metaspace pre-tokenizer up to its split: marks for spaces, and one in front by the scheme.
 * *out lies in the tokenizer's scratch.
 */
FL_CHECKED enum fl_status fl_marks_prefix(struct fl_tokenizer *self, const char *text,
                                          size_t length, enum fl_place place, const char **out,
                                          size_t *out_length);
/* "<0x0A>": the byte, else -1. */
int fl_marks_byte(const char *text, size_t length);
/* Enter what each token decodes to. Call once, after all tokens are in. FL_ENOMEM, FL_ERANGE. */
FL_CHECKED enum fl_status fl_marks_show(struct fl_tokenizer *self);
/* Append a token's bytes with each mark as `space`, which may be "". */
void fl_marks_append_spaces(struct fl_buf *out, const char *text, size_t length, const char *space);

#endif

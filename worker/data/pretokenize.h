/*
 * pretokenize.h - cut a text into the pieces within which BPE merges: hand-written scanners that
 * match exactly what the known regular expressions match.
 *
 *   gpt-2      's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *   llama-bpe  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}
 *              | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 *   qwen2      as llama-bpe with \p{N} for \p{N}{1,3}
 *   smollm     every digit apart, then gpt-2 on what lies between
 *   whole      the text is one piece
 *   metaspace  a piece begins at each U+2581
 *
 * The pieces, joined, are the text. Threads: an iterator belongs to one thread.
 */
#ifndef FL_DATA_PRETOKENIZE_H
#define FL_DATA_PRETOKENIZE_H

#include <stdbool.h>
#include <stddef.h>

enum fl_pre {
    FL_PRE_GPT2,
    FL_PRE_LLAMA3,
    FL_PRE_QWEN2,
    FL_PRE_SMOLLM,
    FL_PRE_WHOLE,    /* SentencePiece's way */
    FL_PRE_METASPACE /* the same, words apart */
};

/* The name that GGUF files use; "whole" and "metaspace" are ours. */
const char *fl_pre_name(enum fl_pre pre);
/* From tokenizer.ggml.pre; false when unknown. */
bool fl_pre_from_gguf(const char *name, enum fl_pre *out);
/* From the regular expression of a Split pre-tokenizer, compared as text; false when unknown. */
bool fl_pre_from_regex(const char *regex, enum fl_pre *out);

struct fl_pre_iter {
    enum fl_pre pre;
    const char *text; /* borrowed */
    size_t length, at;
    size_t part_end; /* smollm: where the digit-free part around `at` ends */
};

void fl_pre_begin(struct fl_pre_iter *self, enum fl_pre pre, const char *text, size_t length);
/* false at the end; else the next piece, never empty. */
bool fl_pre_next(struct fl_pre_iter *self, const char **piece, size_t *length);

#endif

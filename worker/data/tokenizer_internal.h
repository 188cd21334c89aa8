/*
 * tokenizer_internal.h - the inside of a tokenizer, shared by the readers that fill it
 * (tokenizer_json.c, tokenizer_gguf.c) and tokenizer.c, which runs it.
 */
#ifndef FL_DATA_TOKENIZER_INTERNAL_H
#define FL_DATA_TOKENIZER_INTERNAL_H

#include "worker/data/added_tokens.h"
#include "worker/data/bpe.h"
#include "worker/data/marks.h"
#include "worker/data/pretokenize.h"
#include "worker/data/tokenizer.h"

#define FL_TEMPLATE_IDS_MAX 16
#define FL_EOS_IDS_MAX      16

struct fl_template_ids {
    int32_t ids[FL_TEMPLATE_IDS_MAX];
    size_t count;
};

struct fl_tokenizer {
    struct fl_bpe *bpe;
    enum fl_pre pre;
    bool nfc;              /* normaliser: form C */
    bool mark_prefix;      /* normaliser: a mark before every stretch */
    bool mark_spaces;      /* normaliser: marks for spaces */
    bool add_prefix_space; /* of ByteLevel */
    bool characters;       /* SentencePiece's way: tokens as written, symbols are characters */
    bool metaspace;        /* the pre-tokenizer puts marks in place, by `scheme` */
    enum fl_scheme scheme;
    enum fl_decoder decoder;
    bool strip_space; /* decoding drops one space at the start */
    /* matched before and after normalisation; each holds its own tokens */
    struct fl_added_tokens raw, normalized;
    struct fl_template_ids prefix, suffix;
    int32_t bos;
    int32_t eos[FL_EOS_IDS_MAX];
    size_t eos_count;
    char *chat_template;    /* owned, may be NULL */
    struct fl_buf scratch;  /* text in form C */
    struct fl_buf marked;   /* text that the normaliser marked */
    struct fl_buf prefixed; /* a piece with its prefix space or mark */
};

/* Fill an empty tokenizer (zeroed, bos -1) from a directory or an open GGUF file's path. */
FL_CHECKED enum fl_status fl_tokenizer_read_json(struct fl_tokenizer *self, const char *directory,
                                                 struct fl_error *error);
FL_CHECKED enum fl_status fl_tokenizer_read_gguf(struct fl_tokenizer *self, const char *path,
                                                 struct fl_error *error);

/* Enter an added token: into the vocabulary if its id is free, and into the right set. */
FL_CHECKED enum fl_status fl_tokenizer_add(struct fl_tokenizer *self,
                                           const struct fl_added_token *token, bool normalized,
                                           const char *what, struct fl_error *error);
/* Is this what the vocabulary writes for the id? */
bool fl_tokenizer_is_written(const struct fl_tokenizer *self, int32_t id, const char *text,
                             size_t length);
/* Remember an id that ends a generation; ids without a token and repetitions are left out. */
void fl_tokenizer_add_eos(struct fl_tokenizer *self, int64_t id);

#endif

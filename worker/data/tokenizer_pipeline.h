/*
 * tokenizer_pipeline.h - the small members of tokenizer.json and its companion files, each checked
 * against the forms that are known. value may be NULL (absent or null) for the members of
 * tokenizer.json. what names the file in messages. A form that is not known is FL_EFORMAT.
 */
#ifndef FL_DATA_TOKENIZER_PIPELINE_H
#define FL_DATA_TOKENIZER_PIPELINE_H

#include "base/json.h"
#include "worker/data/tokenizer_internal.h"

/* null, NFC, Prepend and Replace of SentencePiece's way, or a Sequence of these */
FL_CHECKED enum fl_status fl_pipeline_normalizer(struct fl_tokenizer *self, const json_t *value,
                                                 const char *what, struct fl_error *error);
/*
 * ByteLevel, or a Sequence of Split or Digits with ByteLevel; Metaspace; null behind a normaliser
 * that replaces spaces. Call after the normaliser. Decides self->characters.
 */
FL_CHECKED enum fl_status fl_pipeline_pre_tokenizer(struct fl_tokenizer *self, const json_t *value,
                                                    const char *what, struct fl_error *error);
/* null or ByteLevel; for characters [Replace, ByteFallback, Fuse, Strip] or Metaspace */
FL_CHECKED enum fl_status fl_pipeline_decoder(struct fl_tokenizer *self, const json_t *value,
                                              const char *what, struct fl_error *error);
/* added_tokens; call after the normaliser */
FL_CHECKED enum fl_status fl_pipeline_added(struct fl_tokenizer *self, const json_t *value,
                                            const char *what, struct fl_error *error);
/* null, ByteLevel, TemplateProcessing, or a Sequence of these; call after the added tokens */
FL_CHECKED enum fl_status fl_pipeline_template(struct fl_tokenizer *self, const json_t *value,
                                               const char *what, struct fl_error *error);
/* tokenizer_config.json: eos_token, bos_token, chat_template */
FL_CHECKED enum fl_status fl_pipeline_config(struct fl_tokenizer *self, const json_t *value,
                                             const char *what, struct fl_error *error);
/* config.json and generation_config.json: eos_token_id, bos_token_id */
FL_CHECKED enum fl_status fl_pipeline_model_config(struct fl_tokenizer *self, const json_t *value,
                                                   const char *what, struct fl_error *error);

/* "a b" as in vocabulary files, changed in place; used for GGUF too. */
FL_CHECKED enum fl_status fl_tokenizer_add_merge_line(struct fl_tokenizer *self, char *line,
                                                      size_t length, uint32_t rank,
                                                      const char *what, struct fl_error *error);

#endif

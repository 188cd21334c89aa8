/*
 * chat.h - conversations as token ids, in the ChatML form that SmolLM2, Qwen and many others use:
 *   <|im_start|>ROLE\nTEXT<|im_end|>\n        a message
 *   <|im_start|>assistant\n                   what a reply is generated after
 * There is no Jinja engine here: a model whose chat template is not ChatML is refused. The default
 * system message is taken out of the template where it stands there literally, and is used when a
 * conversation has none.
 * Threads: as the tokenizer.
 */
#ifndef FL_DATA_CHAT_H
#define FL_DATA_CHAT_H

#include <stdbool.h>

#include "base/json.h"
#include "worker/data/tokenizer.h"

/* FL_EINVAL with the reason when this tokenizer's chat template can't be followed. */
FL_CHECKED enum fl_status fl_chat_check(const struct fl_tokenizer *tokenizer,
                                        struct fl_error *error);

/*
 * Append a conversation. messages: an array of {"role", "content"} (system, user, assistant, tool),
 * or, sharegpt, of {"from", "value"} (human, gpt, system and the roles above). Labels: each
 * assistant text and its <|im_end|> are scored, all else is FL_IGNORE.
 */
FL_CHECKED enum fl_status fl_chat_row(struct fl_tokenizer *tokenizer, const json_t *messages,
                                      bool sharegpt, bool specials_plain, struct fl_ids *ids,
                                      struct fl_ids *labels, struct fl_error *error);

/* Append what a reply to one user message is generated after. */
FL_CHECKED enum fl_status fl_chat_prompt(struct fl_tokenizer *tokenizer, const char *user,
                                         size_t length, struct fl_ids *ids, struct fl_error *error);

#endif

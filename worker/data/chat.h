/*
 * chat.h - conversations as token ids, in the form of the model's chat template (chat_form.h). What
 * comes out is what transformers' apply_chat_template() gives for that template, with two
 * exceptions on purpose: strings such as "<|im_end|>" inside a message are text, not tokens, if the
 * data says so; and an assistant's words are tokenised apart from the header in front of them, as
 * a model meets them when it answers (it matters only where they begin with spaces that would join
 * the header).
 * Threads: as the tokenizer.
 */
#ifndef FL_DATA_CHAT_H
#define FL_DATA_CHAT_H

#include <stdbool.h>

#include "base/json.h"
#include "worker/data/example.h"
#include "worker/data/tokenizer.h"

struct fl_chat;

/*
 * The chat template of that name (FL_CHAT_NAMES), or, for NULL and "auto", the one that the
 * tokenizer carries. The tokenizer must outlive it. FL_EINVAL: it is not known, or the tokenizer
 * lacks one of its marks; FL_EUSAGE: there is none of that name.
 */
FL_CHECKED enum fl_status fl_chat_open(struct fl_tokenizer *tokenizer, const char *name,
                                       struct fl_chat **out, struct fl_error *error);
/* NULL is fine. */
void fl_chat_close(struct fl_chat *self);

/*
 * Append a conversation to an empty example. messages: an array of {"role", "content"} (system,
 * user, assistant, tool; content a string, or a list of {"type": "text", "text"} parts) or,
 * sharegpt, of {"from", "value"} (human, gpt, chatgpt, system and the roles above). Each
 * assistant's words and what ends them are scored. FL_EFORMAT: no conversation, or one that the
 * template refuses, such as two messages of one role in a row.
 */
FL_CHECKED enum fl_status fl_chat_row(struct fl_chat *self, const json_t *messages, bool sharegpt,
                                      bool specials_plain, struct fl_example *out,
                                      struct fl_error *error);

/* Append what a reply to one user message is generated after. name and errors: fl_chat_open(). */
FL_CHECKED enum fl_status fl_chat_prompt(struct fl_tokenizer *tokenizer, const char *name,
                                         const char *user, size_t length, struct fl_ids *ids,
                                         struct fl_error *error);

#endif

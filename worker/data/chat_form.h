/*
 * chat_form.h - chat templates as data: what stands before, between and behind the messages of a
 * conversation. There is no Jinja engine here. A model's template is recognised by what the
 * published templates of its family have in common; one that is not recognised is refused, never
 * guessed.
 *
 * In the strings below FL_CHAT_BOS and FL_CHAT_EOS stand for the tokenizer's own two tokens.
 * Threads: pure functions over constant tables.
 */
#ifndef FL_DATA_CHAT_FORM_H
#define FL_DATA_CHAT_FORM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

#define FL_CHAT_BOS "\1"
#define FL_CHAT_EOS "\2"

/* The names for an option's choices, in the order of the table. */
#define FL_CHAT_NAMES "chatml|llama2|llama3|llama3.1|mistral-v1|mistral|zephyr|phi3|gemma"

#define FL_CHAT_MARKS_MAX 4

/* Where the text of a system message goes. */
enum fl_chat_system {
    FL_CHAT_SYSTEM_OWN,      /* a turn of its own */
    FL_CHAT_SYSTEM_IN_FIRST, /* in front of the first user message */
    FL_CHAT_SYSTEM_IN_LAST,  /* in front of the last message, if that is the user's; else nowhere */
    FL_CHAT_SYSTEM_REFUSED
};

struct fl_chat_turn {
    const char *open, *close;
};

struct fl_chat_form {
    const char *name;
    const char
        *marks[FL_CHAT_MARKS_MAX]; /* strings that are one token where the vocabulary has it */
    bool needs_marks;              /* it must have them all */
    const char *start;             /* in front of everything */
    struct fl_chat_turn system, user, tool; /* tool.open NULL: that role is refused */
    /* The assistant's turn: header, then what is learnt (lead, the text, stop), then tail. */
    const char *header, *lead, *stop, *tail;
    const char *end; /* behind a conversation that is not to be continued */
    enum fl_chat_system system_place;
    bool trims;         /* spaces around a message's text go */
    bool trims_joined;  /* a system message and the text that it stands in front of, as one */
    bool trims_reply;   /* around the assistant's, where trims is false */
    bool trims_system;  /* also of a system message that stands in another's turn */
    bool always_system; /* there is a system turn even without a message for it */
    bool alternates;    /* user and assistant take turns, the user first */
    /* A system message to use where a conversation has none; length 0: none. Borrowed. */
    const char *default_system;
    size_t default_system_length;
};

/* The name at that place of FL_CHAT_NAMES, or NULL behind the last one. */
const char *fl_chat_form_name(size_t index);

/* The form of that name as it is published. FL_EUSAGE names those that there are. */
FL_CHECKED enum fl_status fl_chat_form_named(const char *name, struct fl_chat_form *out,
                                             struct fl_error *error);

/*
 * The form of a Jinja template (NULL: the model has none); *out borrows from it. FL_EINVAL: it is
 * not recognised, with what to do.
 */
FL_CHECKED enum fl_status fl_chat_form_detect(const char *jinja, struct fl_chat_form *out,
                                              struct fl_error *error);

#endif

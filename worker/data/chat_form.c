/*
 * chat_form.c - see chat_form.h. Sources: the chat_template strings that are published with
 * SmolLM2-Instruct, Qwen2.5-Instruct (ChatML), Llama-2-chat, Meta-Llama-3 and 3.1-Instruct,
 * Mistral-7B-Instruct v0.1 to v0.3, zephyr-7b-beta, Phi-3-mini-instruct, gemma-it and gemma-3-it.
 */
#include "worker/data/chat_form.h"

#include <string.h>

#include "base/alloc.h"

#define BOS FL_CHAT_BOS
#define EOS FL_CHAT_EOS

#define LLAMA3_OPEN(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"

static const struct fl_chat_form CHATML = {
    .name = "chatml",
    .marks = {"<|im_start|>", "<|im_end|>"},
    .needs_marks = true,
    .start = "",
    .system = {"<|im_start|>system\n", "<|im_end|>\n"},
    .user = {"<|im_start|>user\n", "<|im_end|>\n"},
    .tool = {"<|im_start|>tool\n", "<|im_end|>\n"},
    .header = "<|im_start|>assistant\n",
    .lead = "",
    .stop = "<|im_end|>",
    .tail = "\n",
    .end = "",
};

static const struct fl_chat_form LLAMA2 = {
    .name = "llama2",
    .marks = {"[INST]", "[/INST]"},
    .start = "",
    .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
    .user = {BOS "[INST] ", " [/INST]"},
    .header = "",
    .lead = " ",
    .stop = " " EOS,
    .tail = "",
    .end = "",
    .system_place = FL_CHAT_SYSTEM_IN_FIRST,
    .trims = true,
    .trims_joined = true,
    .alternates = true,
};

static const struct fl_chat_form LLAMA3 = {
    .name = "llama3",
    .marks = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
    .needs_marks = true,
    .start = BOS,
    .system = {LLAMA3_OPEN("system"), "<|eot_id|>"},
    .user = {LLAMA3_OPEN("user"), "<|eot_id|>"},
    .header = LLAMA3_OPEN("assistant"),
    .lead = "",
    .stop = "<|eot_id|>",
    .tail = "",
    .end = "",
    .trims = true,
    .trims_system = true,
};

/* The template of 3.2 takes the day's date; its own fallback, the date of 3.1, can be repeated. */
static const struct fl_chat_form LLAMA31 = {
    .name = "llama3.1",
    .marks = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
    .needs_marks = true,
    .start = BOS,
    .system = {LLAMA3_OPEN("system") "Cutting Knowledge Date: December 2023\n"
                                     "Today Date: 26 Jul 2024\n\n",
               "<|eot_id|>"},
    .user = {LLAMA3_OPEN("user"), "<|eot_id|>"},
    .header = LLAMA3_OPEN("assistant"),
    .lead = "",
    .stop = "<|eot_id|>",
    .tail = "",
    .end = "",
    .trims = true,
    .trims_system = true,
    .always_system = true,
};

static const struct fl_chat_form MISTRAL_V1 = {
    .name = "mistral-v1",
    .marks = {"[INST]", "[/INST]"},
    .start = BOS,
    .system = {"", "\n\n"},
    .user = {"[INST] ", " [/INST]"},
    .header = "",
    .lead = "",
    .stop = EOS,
    .tail = "",
    .end = "",
    .system_place = FL_CHAT_SYSTEM_REFUSED,
    .alternates = true,
};

static const struct fl_chat_form MISTRAL = {
    .name = "mistral",
    .marks = {"[INST]", "[/INST]"},
    .start = BOS,
    .system = {"", "\n\n"},
    .user = {"[INST] ", "[/INST]"},
    .header = "",
    .lead = " ",
    .stop = EOS,
    .tail = "",
    .end = "",
    .system_place = FL_CHAT_SYSTEM_IN_LAST,
    .trims_reply = true,
    .alternates = true,
};

static const struct fl_chat_form ZEPHYR = {
    .name = "zephyr",
    .marks = {"<|system|>", "<|user|>", "<|assistant|>"},
    .start = "",
    .system = {"<|system|>\n", EOS "\n"},
    .user = {"<|user|>\n", EOS "\n"},
    .header = "<|assistant|>\n",
    .lead = "",
    .stop = EOS,
    .tail = "\n",
    .end = "",
};

static const struct fl_chat_form PHI3 = {
    .name = "phi3",
    .marks = {"<|system|>", "<|user|>", "<|assistant|>", "<|end|>"},
    .needs_marks = true,
    .start = "",
    .system = {"<|system|>\n", "<|end|>\n"},
    .user = {"<|user|>\n", "<|end|>\n"},
    .header = "<|assistant|>\n",
    .lead = "",
    .stop = "<|end|>",
    .tail = "\n",
    .end = EOS,
};

static const struct fl_chat_form GEMMA = {
    .name = "gemma",
    .marks = {"<start_of_turn>", "<end_of_turn>"},
    .needs_marks = true,
    .start = BOS,
    .system = {"", "\n\n"},
    .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
    .header = "<start_of_turn>model\n",
    .lead = "",
    .stop = "<end_of_turn>",
    .tail = "\n",
    .end = "",
    .system_place = FL_CHAT_SYSTEM_REFUSED,
    .trims = true,
    .alternates = true,
};

static const struct fl_chat_form *const FORMS[] = {
    &CHATML, &LLAMA2, &LLAMA3, &LLAMA31, &MISTRAL_V1, &MISTRAL, &ZEPHYR, &PHI3, &GEMMA,
};

const char *fl_chat_form_name(size_t index)
{
    return index < sizeof FORMS / sizeof FORMS[0] ? FORMS[index]->name : NULL;
}

enum fl_status fl_chat_form_named(const char *name, struct fl_chat_form *out,
                                  struct fl_error *error)
{
    for (size_t i = 0; i < sizeof FORMS / sizeof FORMS[0]; i++) {
        if (strcmp(FORMS[i]->name, name) == 0) {
            *out = *FORMS[i];
            return FL_OK;
        }
    }
    return fl_fail(error, FL_EUSAGE, "there is no chat template %.40s; there are " FL_CHAT_NAMES,
                   name);
}

/* ---- recognising a template ---- */

static bool has(const char *jinja, const char *text)
{
    return strstr(jinja, text) != NULL;
}

/* Spellings of one thing: double quotes as single ones, \n in a string as the character. */
static char *plain_spelling(const char *jinja)
{
    char *copy = fl_malloc(strlen(jinja) + 1);
    if (copy == NULL)
        return NULL;
    char *to = copy;
    for (const char *from = jinja; *from != '\0'; from++) {
        if (from[0] == '\\' && from[1] == 'n') {
            *to++ = '\n';
            from++;
        } else {
            *to++ = *from == '"' ? '\'' : *from;
        }
    }
    *to = '\0';
    return copy;
}

static bool trims_content(const char *text)
{
    return has(text, "content'] | trim") || has(text, "content']|trim") ||
           has(text, "content | trim") || has(text, "content|trim") ||
           has(text, "content'].strip()") || has(text, "content.strip()");
}

static bool is_chatml(const char *text, struct fl_chat_form *out)
{
    /* Qwen3 and others put words of their own into the assistant's turns; Phi-4 parts by a mark */
    if (!has(text, "<|im_start|>") || has(text, "<think>") || has(text, "thinking") ||
        has(text, "<|im_sep|>") || has(text, "[INST]"))
        return false;
    *out = CHATML;
    out->trims = out->trims_system = trims_content(text);
    if (has(text, "bos_token"))
        out->start = BOS;
    if (has(text, "tool_response") || has(text, "tool_calls"))
        out->tool = (struct fl_chat_turn){NULL, NULL}; /* rendered in another way there */
    return true;
}

static bool is_llama3(const char *text, struct fl_chat_form *out)
{
    if (!has(text, "<|start_header_id|>") || !has(text, "<|eot_id|>") || has(text, "thinking"))
        return false;
    *out = has(text, "Cutting Knowledge Date: December 2023") ? LLAMA31 : LLAMA3;
    return trims_content(text);
}

static bool is_gemma(const char *text, struct fl_chat_form *out)
{
    if (!has(text, "<start_of_turn>") || !has(text, "<end_of_turn>\n") || !has(text, "'model'"))
        return false;
    *out = GEMMA;
    if (!has(text, "bos_token")) /* the first one */
        out->start = "";
    if (has(text, "first_user_prefix")) /* Gemma 3 */
        out->system_place = FL_CHAT_SYSTEM_IN_FIRST;
    return trims_content(text);
}

/* What Phi-3 and Zephyr share: a role in bars, and a line's end behind it. */
static bool has_bars(const char *text)
{
    return (has(text, "<|user|>\n") || has(text, "<|user|>' + '\n'")) && has(text, "<|assistant|>");
}

static bool is_phi3(const char *text, struct fl_chat_form *out)
{
    /* the first templates of Phi-3 wrote BOS, or left system messages out */
    if (!has_bars(text) || !has(text, "<|end|>") || !has(text, "<|system|>\n") ||
        has(text, "bos_token"))
        return false;
    *out = PHI3;
    if (!has(text, "eos_token"))
        out->end = "";
    return !trims_content(text);
}

static bool is_zephyr(const char *text, struct fl_chat_form *out)
{
    *out = ZEPHYR;
    return has_bars(text) && has(text, "eos_token") && !has(text, "bos_token") &&
           !trims_content(text);
}

static bool is_llama2(const char *text, struct fl_chat_form *out)
{
    *out = LLAMA2;
    return has(text, "bos_token + '[INST] ' + content.strip() + ' [/INST]'") &&
           has(text, "'<<SYS>>\n' + system_message + '\n<</SYS>>\n\n'") &&
           (has(text, "' '  + content.strip() + ' ' + eos_token") ||
            has(text, "' ' + content.strip() + ' ' + eos_token"));
}

/* The user's turn, which tells the versions of Mistral's template apart. */
static bool mistral_user(const char *text, struct fl_chat_form *out)
{
    static const struct {
        const char *turn;
        struct fl_chat_turn user;
    } TURNS[] = {
        {"' [INST] ' + message['content'] + ' [/INST]'", {" [INST] ", " [/INST]"}},
        {"'[INST] ' + message['content'] + ' [/INST]'", {"[INST] ", " [/INST]"}},
        {"'[INST] ' + message['content'] + '[/INST]'", {"[INST] ", "[/INST]"}},
        {"'[INST]' + message['content'] + '[/INST]'", {"[INST]", "[/INST]"}},
    };
    for (size_t i = 0; i < sizeof TURNS / sizeof TURNS[0]; i++) {
        if (has(text, TURNS[i].turn)) {
            out->user = TURNS[i].user;
            return true;
        }
    }
    return false;
}

static bool mistral_assistant(const char *text, struct fl_chat_form *out)
{
    if (has(text, "' ' + message['content']|trim + eos_token")) {
        out->lead = " ";
        out->trims_reply = true;
    } else if (has(text, "' ' + message['content'] + eos_token")) {
        out->lead = " ";
    } else if (has(text, "message['content'] + eos_token + ' '")) {
        out->tail = " ";
    } else if (!has(text, "message['content'] + eos_token")) {
        return false;
    }
    return true;
}

static bool is_mistral(const char *text, struct fl_chat_form *out)
{
    *out = MISTRAL_V1;
    if (has(text, "[SYSTEM_PROMPT]") || !has(text, "bos_token") || !mistral_user(text, out) ||
        !mistral_assistant(text, out))
        return false;
    if (has(text, "loop.last and system_message"))
        out->system_place = FL_CHAT_SYSTEM_IN_LAST;
    else if (has(text, "loop.first and system_message"))
        out->system_place = FL_CHAT_SYSTEM_IN_FIRST;
    return true;
}

/*
 * The default system message: text between "<|im_start|>system\n" and "<|im_end|>" that is one
 * literal of the template (no quote, no brace inside).
 */
static void find_default_system(const char *jinja, struct fl_chat_form *out)
{
    static const char MARK[] = "<|im_start|>system";
    for (const char *at = strstr(jinja, MARK); at != NULL; at = strstr(at, MARK)) {
        at += sizeof MARK - 1;
        const char *text = *at == '\n' ? at + 1 : strncmp(at, "\\n", 2) == 0 ? at + 2 : NULL;
        const char *stop = text != NULL ? strstr(text, "<|im_end|>") : NULL;
        if (stop == NULL || strcspn(text, "'\"{}\\") < (size_t)(stop - text))
            continue;
        out->default_system = text;
        out->default_system_length = (size_t)(stop - text);
        return;
    }
}

enum fl_status fl_chat_form_detect(const char *jinja, struct fl_chat_form *out,
                                   struct fl_error *error)
{
    static bool (*const KINDS[])(const char *text, struct fl_chat_form *out) = {
        is_chatml, is_llama3, is_gemma, is_phi3, is_zephyr, is_llama2, is_mistral,
    };
    const char *what = "this model has no chat template";
    if (jinja != NULL) {
        what = "this model's chat template is none that is known";
        char *text = plain_spelling(jinja);
        bool found = false;
        if (text == NULL)
            return fl_fail_memory(error);
        for (size_t i = 0; !found && i < sizeof KINDS / sizeof KINDS[0]; i++)
            found = KINDS[i](text, out);
        fl_free(text);
        if (found) {
            find_default_system(jinja, out);
            return FL_OK;
        }
    }
    return fl_fail(error, FL_EINVAL,
                   "%s; say which it follows with --chat-template NAME (chat_template in "
                   "worker.conf): " FL_CHAT_NAMES
                   "; or give prompt and completion instead of a conversation",
                   what);
}

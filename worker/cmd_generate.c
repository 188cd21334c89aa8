/*
 * cmd_generate.c - `fedlora-worker generate`: continue a prompt. The continuation's bytes alone go
 * to stdout, as they are drawn. The prompt is taken raw (with the template's BOS, if any), or with
 * --chat as one user turn of a ChatML conversation.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cli.h"
#include "base/fs.h"
#include "worker/commands.h"
#include "worker/data/tokenizer.h"
#include "worker/engine/sample.h"
#include "worker/local.h"

#define PROGRAM "fedlora-worker generate"

struct generate {
    const char *model, *adapter, *prompt, *compute;
    uint64_t max_tokens, seed, threads;
    double temperature;
    bool chat;
    struct fl_local local;
    struct fl_tokenizer *tokenizer;
    const atomic_int *stop;
    bool failed; /* stdout can't be written */
};

static bool parse(struct generate *g, int argc, char **argv, int *exit_code)
{
    const struct fl_option options[] = {
        {"--model", "PATH", FL_OPTION_STRING, &g->model, 0, 0, NULL, true, NULL,
         "Hugging Face directory or GGUF file"},
        {"--prompt", "TEXT", FL_OPTION_STRING, &g->prompt, 0, 0, NULL, true, NULL,
         "the text to continue"},
        {"--adapter", "PEFT_DIR", FL_OPTION_STRING, &g->adapter, 0, 0, NULL, false, NULL,
         "adapter to put on the model (default: none)"},
        {"--max-tokens", "N", FL_OPTION_U64, &g->max_tokens, 1, FL_SEQ_MAX, NULL, false, NULL,
         "new tokens at most"},
        {"--temperature", "T", FL_OPTION_DOUBLE, &g->temperature, 0, 100, NULL, false, NULL,
         "0 = the likeliest token each time"},
        {"--seed", "S", FL_OPTION_U64, &g->seed, 0, 0, NULL, false, NULL, "of the draw"},
        {"--chat", NULL, FL_OPTION_FLAG, &g->chat, 0, 0, NULL, false, NULL,
         "put the prompt into the model's chat template"},
        {"--compute", "MODE", FL_OPTION_CHOICE, &g->compute, 0, 0, "auto|f32|bf16", false, NULL,
         "number type of the products"},
        {"--threads", "N", FL_OPTION_U64, &g->threads, 0, 1024, NULL, false, NULL,
         "processors to use (0: all)"},
    };
    const struct fl_usage usage = {
        .program = PROGRAM,
        .summary = "Continue a prompt; the continuation alone is written to stdout.",
        .example = PROGRAM " --model model.gguf --adapter adapter --prompt 'Define: kernel'",
        .options = options,
        .option_count = sizeof options / sizeof options[0],
    };
    return fl_cli_begin(&usage, argc, argv, exit_code);
}

static enum fl_status encode(struct generate *g, const char *text, unsigned flags,
                             struct fl_ids *ids, struct fl_error *error)
{
    return fl_tokenizer_encode(g->tokenizer, text, strlen(text), flags, ids, error);
}

/* <|im_start|>user\nPROMPT<|im_end|>\n<|im_start|>assistant\n; the prompt can't forge a turn. */
static enum fl_status encode_chat(struct generate *g, struct fl_ids *ids, struct fl_error *error)
{
    const char *template = fl_tokenizer_chat_template(g->tokenizer);
    int32_t start = fl_tokenizer_find(g->tokenizer, "<|im_start|>", 12);
    int32_t end = fl_tokenizer_find(g->tokenizer, "<|im_end|>", 10);
    if (!template || !strstr(template, "<|im_start|>") || start < 0 || end < 0) {
        return fl_fail(error, FL_EFORMAT, "%s: its chat template is not ChatML, the only one known",
                       g->model);
    }
    struct fl_buf user;
    fl_buf_init(&user, (1u << 20) + strlen(g->prompt));
    fl_buf_printf(&user, "user\n");
    fl_buf_append(&user, g->prompt, strlen(g->prompt));
    enum fl_status status = fl_buf_status(&user);
    if (status != FL_OK) {
        (void)fl_fail_memory(error);
    }
    if (status == FL_OK && (status = fl_ids_push(ids, start)) == FL_OK) {
        status = encode(g, fl_buf_text(&user), FL_ENCODE_SPECIALS_PLAIN, ids, error);
    }
    fl_buf_free(&user);
    if (status == FL_OK && (status = fl_ids_push(ids, end)) == FL_OK) {
        status = encode(g, "\n<|im_start|>assistant\n", 0, ids, error);
    }
    return status;
}

static enum fl_status encode_prompt(struct generate *g, struct fl_ids *ids, struct fl_error *error)
{
    enum fl_status status =
        g->chat ? encode_chat(g, ids, error)
                : encode(g, g->prompt, FL_ENCODE_ADD_SPECIAL | FL_ENCODE_PREFIX_ONLY, ids, error);
    if (status == FL_ENOMEM) {
        return fl_fail_memory(error);
    }
    if (status == FL_OK && ids->count == 0) {
        status = fl_fail(error, FL_EUSAGE, "--prompt: it has no token to continue from");
    }
    if (status == FL_OK && ids->count > FL_SEQ_MAX - g->max_tokens) {
        status = fl_fail(error, FL_EUSAGE, "prompt and --max-tokens are too long together");
    }
    return status;
}

/* fl_token_sink */
static bool print_token(void *context, int32_t id)
{
    struct generate *g = context;
    const char *bytes = NULL;
    size_t length = 0;
    if (fl_tokenizer_token(g->tokenizer, id, &bytes, &length) && length > 0) {
        g->failed = fwrite(bytes, 1, length, stdout) != length || fflush(stdout) != 0;
    }
    return !g->failed && atomic_load(g->stop) == 0;
}

static enum fl_status run_engine(struct generate *g, const struct fl_ids *ids,
                                 struct fl_error *error)
{
    struct fl_engine_options options = {
        .threads = (uint32_t)g->threads,
        .compute = fl_local_compute(g->compute),
        .max_row_tokens = (uint32_t)ids->count,
        .train = FL_TRAIN_NONE,
        .cache_tokens = (uint32_t)(ids->count + g->max_tokens),
    };
    size_t stop_count = 0;
    const int32_t *stop_ids = fl_tokenizer_eos_ids(g->tokenizer, &stop_count);
    struct fl_generate_options how = {
        .max_tokens = (uint32_t)g->max_tokens,
        .temperature = g->temperature,
        .seed = g->seed,
        .stop_ids = stop_ids,
        .stop_count = (uint32_t)stop_count,
    };
    struct fl_engine *engine = NULL;
    enum fl_status status = fl_engine_create(g->local.model, g->local.adapter, &options, &engine,
                                             error);
    if (status == FL_OK) {
        status = fl_engine_generate(engine, ids->ids, (uint32_t)ids->count, &how, print_token, g,
                                    error);
    }
    fl_engine_destroy(&engine);
    return status;
}

static enum fl_status generate(struct generate *g, struct fl_error *error)
{
    struct fl_ids ids = {0};
    g->stop = fl_local_stop_on_signals();
    enum fl_status status = fl_local_open_model(&g->local, g->model, error);
    if (status == FL_OK) {
        status = fl_tokenizer_open(g->model, &g->tokenizer, error);
    }
    if (status == FL_OK) {
        status = fl_local_open_adapter(&g->local, g->adapter, error);
    }
    if (status == FL_OK) {
        status = encode_prompt(g, &ids, error);
    }
    if (status == FL_OK) {
        status = run_engine(g, &ids, error);
    }
    if (status == FL_OK && g->failed) {
        status = fl_fail(error, FL_EIO, "standard output: it can't be written");
    }
    if (status == FL_OK && atomic_load(g->stop) != 0) {
        status = fl_fail(error, FL_ESTOPPED, "stopped");
    }
    fl_ids_free(&ids);
    fl_tokenizer_close(g->tokenizer);
    return status;
}

int fl_cmd_generate(int argc, char **argv)
{
    struct generate g = {.compute = "auto", .max_tokens = 128};
    struct fl_error error = {0};
    int exit_code = 0;
    if (!parse(&g, argc, argv, &exit_code)) {
        return exit_code;
    }
    enum fl_status status = generate(&g, &error);
    fl_local_close(&g.local);
    return status == FL_OK ? 0 : fl_cli_fail(PROGRAM, &error);
}

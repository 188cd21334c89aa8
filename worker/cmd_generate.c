/*
 * cmd_generate.c - `fedlora-worker generate`: continue a prompt. The continuation alone goes to
 * stdout, in whole characters as they are drawn, or with --json as one object at the end. The
 * prompt is taken raw (with the template's BOS, if any), or with --chat as one user turn of a
 * conversation in the form of the model's template, or of the one that --chat-template names.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/cli.h"
#include "base/fs.h"
#include "worker/commands.h"
#include "worker/data/chat.h"
#include "worker/data/chat_form.h"
#include "worker/data/tokenizer.h"
#include "worker/engine/sample.h"
#include "worker/local.h"
#include "worker/textout.h"

#define PROGRAM          "fedlora-worker generate"
#define PROMPT_BYTES_MAX (64u << 20)

struct generate {
    const char *model, *adapter, *prompt, *prompt_file, *compute, *quantize, *stop_list;
    const char *chat_template; /* "auto" or a name of FL_CHAT_NAMES */
    uint64_t max_tokens, seed, threads, top_k;
    double temperature, top_p;
    bool chat, json, ignore_eos;
    struct fl_option_list stops;
    struct fl_local local;
    struct fl_tokenizer *tokenizer;
    struct fl_buf text;         /* the prompt */
    struct fl_ids ids;          /* of it */
    struct fl_ids stop_ids;     /* what ends the generation */
    struct fl_ids made;         /* new tokens */
    struct fl_textout out;      /* their text */
    const atomic_int *stopping; /* Ctrl-C */
    bool failed, out_of_memory; /* stdout can't be written */
    double first_at, seconds;
};

static bool parse(struct generate *g, int argc, char **argv, int *exit_code)
{
    const struct fl_option options[] = {
        {"--model", "PATH", FL_OPTION_STRING, &g->model, 0, 0, NULL, true, NULL,
         "Hugging Face directory, GGUF file, or ORG/NAME in the Hugging Face cache"},
        {"--prompt", "TEXT", FL_OPTION_STRING, &g->prompt, 0, 0, NULL, false, NULL,
         "the text to continue"},
        {"--prompt-file", "FILE|-", FL_OPTION_STRING, &g->prompt_file, 0, 0, NULL, false, NULL,
         "the same, byte for byte from a file or from stdin"},
        {"--adapter", "PEFT_DIR", FL_OPTION_STRING, &g->adapter, 0, 0, NULL, false, NULL,
         "adapter to put on the model (default: none)"},
        {"--max-tokens", "N", FL_OPTION_U64, &g->max_tokens, 1, FL_SEQ_MAX, NULL, false, NULL,
         "new tokens at most"},
        {"--temperature", "T", FL_OPTION_DOUBLE, &g->temperature, 0, 100, NULL, false, NULL,
         "0 = the likeliest token each time"},
        {"--top-k", "K", FL_OPTION_U64, &g->top_k, 0, FL_VOCAB_MAX, NULL, false, NULL,
         "draw from the K likeliest tokens (0: from all)"},
        {"--top-p", "P", FL_OPTION_DOUBLE, &g->top_p, 1e-9, 1, NULL, false, NULL,
         "draw from the likeliest tokens whose sum reaches P (1: from all)"},
        {"--seed", "S", FL_OPTION_U64, &g->seed, 0, 0, NULL, false, NULL, "of the draw"},
        {"--stop", "TEXT", FL_OPTION_LIST, &g->stops, 0, 0, NULL, false, NULL,
         "end in front of this text; may be given several times"},
        {"--stop-ids", "1,2", FL_OPTION_STRING, &g->stop_list, 0, 0, NULL, false, NULL,
         "end at these tokens too, beside the model's own"},
        {"--ignore-eos", NULL, FL_OPTION_FLAG, &g->ignore_eos, 0, 0, NULL, false, NULL,
         "go on where the model would end"},
        {"--chat", NULL, FL_OPTION_FLAG, &g->chat, 0, 0, NULL, false, NULL,
         "put the prompt into the model's chat template"},
        {"--chat-template", "NAME", FL_OPTION_CHOICE, &g->chat_template, 0, 0,
         "auto|" FL_CHAT_NAMES, false, NULL,
         "form of the conversation (auto: the model's own); a name means --chat too"},
        {"--compute", "MODE", FL_OPTION_CHOICE, &g->compute, 0, 0, "auto|f32|bf16", false, NULL,
         "number type of the products"},
        {"--quantize", "TYPE", FL_OPTION_CHOICE, &g->quantize, 0, 0, FL_LOCAL_QUANTIZE, false, NULL,
         FL_LOCAL_QUANTIZE_HELP},
        {"--threads", "N", FL_OPTION_U64, &g->threads, 0, 1024, NULL, false, NULL,
         "processors to use (0: all)"},
        {"--json", NULL, FL_OPTION_FLAG, &g->json, 0, 0, NULL, false, NULL,
         "one JSON object at the end instead of the text"},
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

static enum fl_status check_words(const struct generate *g, struct fl_error *error)
{
    if (!g->prompt == !g->prompt_file) {
        return fl_fail(error, FL_EUSAGE, "give either --prompt or --prompt-file");
    }
    for (size_t i = 0; i < g->stops.count; i++) {
        if (!g->stops.items[i][0]) {
            return fl_fail(error, FL_EUSAGE, "--stop: the text is empty");
        }
    }
    if (g->temperature <= 0.0 && (g->top_k != 0 || g->top_p < 1.0)) {
        return fl_fail(error, FL_EUSAGE,
                       "--top-k and --top-p draw from a distribution: give --temperature, 1 say");
    }
    return FL_OK;
}

static enum fl_status read_prompt(struct generate *g, struct fl_error *error)
{
    if (!g->prompt_file) {
        fl_buf_init(&g->text, PROMPT_BYTES_MAX);
        fl_buf_append(&g->text, g->prompt, strlen(g->prompt));
        return fl_buf_status(&g->text) == FL_OK ? FL_OK : fl_fail_memory(error);
    }
    if (strcmp(g->prompt_file, "-") == 0) {
        return fl_fs_read_stdin(PROMPT_BYTES_MAX, &g->text, error);
    }
    return fl_fs_read(g->prompt_file, PROMPT_BYTES_MAX, &g->text, error);
}

static enum fl_status encode_prompt(struct generate *g, struct fl_error *error)
{
    const char *text = fl_buf_text(&g->text);
    enum fl_status status =
        g->chat || strcmp(g->chat_template, "auto") != 0
            ? fl_chat_prompt(g->tokenizer, g->chat_template, text, g->text.length, &g->ids, error)
            : fl_tokenizer_encode(g->tokenizer, text, g->text.length,
                                  FL_ENCODE_ADD_SPECIAL | FL_ENCODE_PREFIX_ONLY, &g->ids, error);
    if (status == FL_ENOMEM) {
        return fl_fail_memory(error);
    }
    if (status == FL_EINVAL) { /* a chat template that is not known here */
        fl_error_prefix(error, "%s", g->model);
        return error->status = FL_EFORMAT;
    }
    if (status == FL_OK && g->ids.count == 0) {
        status = fl_fail(error, FL_EUSAGE, "the prompt has no token to continue from");
    }
    if (status == FL_OK && g->ids.count > FL_SEQ_MAX - g->max_tokens) {
        status = fl_fail(error, FL_EUSAGE, "prompt and --max-tokens are too long together");
    }
    return status;
}

static enum fl_status collect_stop_ids(struct generate *g, struct fl_error *error)
{
    size_t count = 0;
    const int32_t *own = fl_tokenizer_eos_ids(g->tokenizer, &count);
    if (!g->ignore_eos && fl_ids_append(&g->stop_ids, own, count) != FL_OK) {
        return fl_fail_memory(error);
    }
    if (!g->stop_list) {
        return FL_OK;
    }
    return fl_local_parse_ids("--stop-ids", g->stop_list, fl_model_config(g->local.model)->vocab,
                              &g->stop_ids, error);
}

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Print what can be shown, unless all is printed at the end. */
static void show(struct generate *g)
{
    size_t length = 0;
    const char *text = fl_textout_take(&g->out, &length);
    if (!g->json && length > 0) {
        g->failed = fwrite(text, 1, length, stdout) != length || fflush(stdout) != 0;
    }
}

/* fl_token_sink */
static bool take_token(void *context, int32_t id)
{
    struct generate *g = context;
    const char *bytes = NULL;
    size_t length = 0;
    bool more = true;
    if (g->made.count == 0) {
        g->first_at = now();
    }
    g->out_of_memory = fl_ids_push(&g->made, id) != FL_OK;
    if (fl_tokenizer_token(g->tokenizer, id, &bytes, &length)) {
        more = fl_textout_push(&g->out, bytes, length);
    }
    show(g);
    return more && !g->failed && !g->out_of_memory && atomic_load(g->stopping) == 0;
}

static enum fl_status run_engine(struct generate *g, enum fl_finish *finish, struct fl_error *error)
{
    const struct fl_engine_options options = {
        .threads = (uint32_t)g->threads,
        .compute = fl_local_compute(g->compute),
        .max_row_tokens = 1,
        .train = FL_TRAIN_NONE,
        .cache_tokens = (uint32_t)(g->ids.count + g->max_tokens),
    };
    const struct fl_generate_options how = {
        .max_tokens = (uint32_t)g->max_tokens,
        .sampling = {.temperature = g->temperature,
                     .top_p = g->top_p,
                     .top_k = (uint32_t)g->top_k,
                     .seed = g->seed},
        .stop_ids = g->stop_ids.ids,
        .stop_count = (uint32_t)g->stop_ids.count,
    };
    struct fl_engine *engine = NULL;
    enum fl_status status = fl_engine_create(g->local.model, g->local.adapter, &options, &engine,
                                             error);
    if (status == FL_OK) {
        status = fl_engine_generate(engine, g->ids.ids, (uint32_t)g->ids.count, &how, take_token, g,
                                    finish, error);
    }
    g->seconds = g->made.count > 0 ? now() - g->first_at : 0.0;
    fl_engine_destroy(&engine);
    return status;
}

static json_t *ids_json(const struct fl_ids *ids)
{
    json_t *array = json_array();
    for (size_t i = 0; array && i < ids->count; i++) {
        if (json_array_append_new(array, json_integer(ids->ids[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static enum fl_status print_object(struct generate *g, enum fl_finish finish,
                                   struct fl_error *error)
{
    json_t *ids = ids_json(&g->made);
    if (!ids) {
        return fl_fail_memory(error);
    }
    /* the first token belongs to the prompt's pass */
    const double speed = g->made.count > 1 && g->seconds > 0.0
                             ? (double)(g->made.count - 1) / g->seconds
                             : 0.0;
    return fl_local_print(
        json_pack("{s:s%, s:o, s:I, s:I, s:s, s:f}", "text", fl_buf_text(&g->out.text),
                  g->out.text.length, "ids", ids, "prompt_tokens", (json_int_t)g->ids.count,
                  "tokens", (json_int_t)g->made.count, "finish",
                  finish == FL_FINISH_LENGTH ? "length" : "stop", "tokens_per_second", speed),
        error);
}

static enum fl_status finish_output(struct generate *g, enum fl_finish finish,
                                    struct fl_error *error)
{
    if (g->out_of_memory || fl_buf_status(&g->out.text) != FL_OK) {
        return fl_fail_memory(error);
    }
    fl_textout_end(&g->out);
    show(g);
    if (g->failed) {
        return fl_fail(error, FL_EIO, "standard output: it can't be written");
    }
    if (atomic_load(g->stopping) != 0) {
        return fl_fail(error, FL_ESTOPPED, "stopped");
    }
    return g->json ? print_object(g, finish, error) : FL_OK;
}

static enum fl_status generate(struct generate *g, struct fl_error *error)
{
    enum fl_finish finish = FL_FINISH_LENGTH;
    g->stopping = fl_local_stop_on_signals();
    enum fl_status status = check_words(g, error);
    if (status == FL_OK) {
        status = read_prompt(g, error);
    }
    if (status == FL_OK) {
        status = fl_local_open_model(&g->local, g->model, error);
    }
    if (status == FL_OK) {
        status = fl_local_quantize(&g->local, g->quantize, g->threads, error);
    }
    if (status == FL_OK) {
        status = fl_tokenizer_open(g->model, &g->tokenizer, error);
    }
    if (status == FL_OK) {
        status = fl_local_open_adapter(&g->local, g->adapter, error);
    }
    if (status == FL_OK) {
        status = encode_prompt(g, error);
    }
    if (status == FL_OK) {
        status = collect_stop_ids(g, error);
    }
    if (status == FL_OK) {
        status = run_engine(g, &finish, error);
    }
    return status == FL_OK ? finish_output(g, finish, error) : status;
}

int fl_cmd_generate(int argc, char **argv)
{
    struct generate g = {.compute = "auto",
                         .quantize = "none",
                         .chat_template = "auto",
                         .max_tokens = 128,
                         .top_p = 1.0};
    struct fl_error error = {0};
    int exit_code = 0;
    if (!parse(&g, argc, argv, &exit_code)) {
        return exit_code;
    }
    fl_textout_init(&g.out, g.stops.items, g.stops.count);
    enum fl_status status = generate(&g, &error);
    fl_buf_free(&g.text);
    fl_ids_free(&g.ids);
    fl_ids_free(&g.stop_ids);
    fl_ids_free(&g.made);
    fl_textout_free(&g.out);
    fl_tokenizer_close(g.tokenizer);
    fl_local_close(&g.local);
    return status == FL_OK ? 0 : fl_cli_fail(PROGRAM, &error);
}

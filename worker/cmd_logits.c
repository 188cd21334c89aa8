/*
 * cmd_logits.c - `fedlora-worker logits`: the logits after each of some tokens, as a safetensors
 * file with one tensor "logits", F32 [tokens, vocab]; for comparisons with other engines.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/cli.h"
#include "base/fs.h"
#include "format/safetensors.h"
#include "worker/commands.h"
#include "worker/local.h"

#define PROGRAM    "fedlora-worker logits"
#define TOKENS_MAX 65536
#define BYTES_MAX  (4ull << 30) /* of the tensor */

struct logits {
    const char *model, *adapter, *tokens, *out, *compute, *quantize;
    uint64_t threads;
    struct fl_local local;
    struct fl_ids ids;
    float *values; /* (count, vocab) */
};

static bool parse(struct logits *l, int argc, char **argv, int *exit_code)
{
    const struct fl_option options[] = {
        {"--model", "PATH", FL_OPTION_STRING, &l->model, 0, 0, NULL, true, NULL,
         "Hugging Face directory, GGUF file, or ORG/NAME in the Hugging Face cache"},
        {"--tokens", "1,2,3", FL_OPTION_STRING, &l->tokens, 0, 0, NULL, true, NULL,
         "token ids, at most 65536"},
        {"--out", "FILE", FL_OPTION_STRING, &l->out, 0, 0, NULL, true, NULL,
         "the safetensors file to write"},
        {"--adapter", "PEFT_DIR", FL_OPTION_STRING, &l->adapter, 0, 0, NULL, false, NULL,
         "adapter to put on the model (default: none)"},
        {"--compute", "MODE", FL_OPTION_CHOICE, &l->compute, 0, 0, "auto|f32|bf16", false, NULL,
         "number type of the products"},
        {"--quantize", "TYPE", FL_OPTION_CHOICE, &l->quantize, 0, 0, FL_LOCAL_QUANTIZE, false, NULL,
         FL_LOCAL_QUANTIZE_HELP},
        {"--threads", "N", FL_OPTION_U64, &l->threads, 0, 1024, NULL, false, NULL,
         "processors to use (0: all)"},
    };
    const struct fl_usage usage = {
        .program = PROGRAM,
        .summary = "Write the logits after each token: tensor \"logits\", F32 [tokens, vocab].",
        .example = PROGRAM " --model model.gguf --tokens 1,2,3 --out logits.safetensors",
        .options = options,
        .option_count = sizeof options / sizeof options[0],
    };
    return fl_cli_begin(&usage, argc, argv, exit_code);
}

static enum fl_status parse_tokens(struct logits *l, struct fl_error *error)
{
    uint32_t vocab = fl_model_config(l->local.model)->vocab;
    enum fl_status status = fl_local_parse_ids("--tokens", l->tokens, vocab, &l->ids, error);
    if (status == FL_OK && l->ids.count > TOKENS_MAX) {
        status = fl_fail(error, FL_EUSAGE, "--tokens: more than %d", TOKENS_MAX);
    }
    return status;
}

static enum fl_status compute(struct logits *l, struct fl_error *error)
{
    struct fl_engine *engine = NULL;
    struct fl_engine_options options = {
        .threads = (uint32_t)l->threads,
        .compute = fl_local_compute(l->compute),
        .max_row_tokens = (uint32_t)l->ids.count,
        .train = FL_TRAIN_NONE,
    };
    uint32_t vocab = fl_model_config(l->local.model)->vocab;
    if ((uint64_t)l->ids.count * vocab * sizeof(float) > BYTES_MAX) {
        return fl_fail(error, FL_EUSAGE, "--tokens: %u tokens of %u logits are too many",
                       (uint32_t)l->ids.count, vocab);
    }
    l->values = fl_calloc(l->ids.count * vocab, sizeof *l->values);
    if (!l->values) {
        return fl_fail_memory(error);
    }
    enum fl_status status = fl_engine_create(l->local.model, l->local.adapter, &options, &engine,
                                             error);
    if (status == FL_OK) {
        status = fl_engine_forward_logits(engine, l->ids.ids, (uint32_t)l->ids.count, l->values,
                                          error);
    }
    fl_engine_destroy(&engine);
    return status;
}

static enum fl_status save(const struct logits *l, struct fl_error *error)
{
    uint32_t vocab = fl_model_config(l->local.model)->vocab;
    size_t bytes = l->ids.count * vocab * sizeof(float);
    struct fl_tensor_view view = {
        .name = "logits",
        .dtype = FL_DTYPE_F32,
        .rank = 2,
        .shape = {l->ids.count, vocab},
        .data = (const uint8_t *)l->values,
        .bytes = bytes,
    };
    struct fl_buf file;
    fl_buf_init(&file, bytes + (1u << 16));
    enum fl_status status = fl_safetensors_write(&view, 1, &file, error);
    if (status == FL_OK) {
        status = fl_fs_write(l->out, file.data, file.length, 0644, error);
    }
    fl_buf_free(&file);
    return status;
}

static enum fl_status logits(struct logits *l, struct fl_error *error)
{
    enum fl_status status = fl_local_open_model(&l->local, l->model, error);
    if (status == FL_OK) {
        status = fl_local_quantize(&l->local, l->quantize, l->threads, error);
    }
    if (status == FL_OK) {
        status = parse_tokens(l, error);
    }
    if (status == FL_OK) {
        status = fl_local_open_adapter(&l->local, l->adapter, error);
    }
    if (status == FL_OK) {
        status = compute(l, error);
    }
    return status == FL_OK ? save(l, error) : status;
}

int fl_cmd_logits(int argc, char **argv)
{
    struct logits l = {.compute = "auto", .quantize = "none"};
    struct fl_error error = {0};
    int exit_code = 0;
    if (!parse(&l, argc, argv, &exit_code)) {
        return exit_code;
    }
    enum fl_status status = logits(&l, &error);
    fl_local_close(&l.local);
    fl_ids_free(&l.ids);
    fl_free(l.values);
    return status == FL_OK ? 0 : fl_cli_fail(PROGRAM, &error);
}

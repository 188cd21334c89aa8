/*
 * cmd_export.c - `fedlora-worker export`: a PEFT adapter as a GGUF adapter for llama.cpp.
 */
#include <stdio.h>

#include "base/cli.h"
#include "base/fs.h"
#include "format/hfcache.h"
#include "format/narrow.h"
#include "worker/commands.h"
#include "worker/engine/export.h"
#include "worker/local.h"

#define PROGRAM "fedlora-worker export"

struct exporter {
    const char *model, *adapter, *out, *format, *dtype;
    bool json;
    struct fl_local local;
};

static bool parse(struct exporter *e, int argc, char **argv, int *exit_code)
{
    const struct fl_option options[] = {
        {"--model", "PATH", FL_OPTION_STRING, &e->model, 0, 0, NULL, true, NULL,
         "the base: Hugging Face directory, GGUF file, or ORG/NAME in the Hugging Face cache"},
        {"--adapter", "PEFT_DIR", FL_OPTION_STRING, &e->adapter, 0, 0, NULL, true, NULL,
         "the adapter"},
        {"--out", "FILE.gguf", FL_OPTION_STRING, &e->out, 0, 0, NULL, true, NULL,
         "the file to write; it is made whole or not at all"},
        {"--format", "NAME", FL_OPTION_CHOICE, &e->format, 0, 0, "gguf", false, NULL,
         "of the file"},
        {"--dtype", "TYPE", FL_OPTION_CHOICE, &e->dtype, 0, 0, "f32|f16|bf16", false, NULL,
         "of the factors"},
        {"--json", NULL, FL_OPTION_FLAG, &e->json, 0, 0, NULL, false, NULL,
         "print what was written as one JSON object instead of words"},
    };
    const struct fl_usage usage = {
        .program = PROGRAM,
        .summary = "Write an adapter as a GGUF file that llama.cpp applies with --lora.",
        .example = PROGRAM " --model model.gguf --adapter adapter --out adapter.gguf",
        .options = options,
        .option_count = sizeof options / sizeof options[0],
    };
    return fl_cli_begin(&usage, argc, argv, exit_code);
}

static enum fl_status export_adapter(struct exporter *e, struct fl_error *error)
{
    char model[FL_PATH_BYTES];
    enum fl_status status = fl_hfcache_find(e->model, model, error);
    if (status == FL_OK) {
        status = fl_local_check_output(e->out, model, error);
    }
    if (status == FL_OK) {
        status = fl_local_open_model(&e->local, model, error);
    }
    if (status == FL_OK) {
        status = fl_local_open_adapter(&e->local, e->adapter, error);
    }
    if (status == FL_OK) {
        status = fl_export_gguf(e->local.model, e->local.adapter, fl_narrow_parse(e->dtype), e->out,
                                error);
    }
    return status;
}

static enum fl_status tell(const struct exporter *e, struct fl_error *error)
{
    char use[FL_PATH_BYTES + 128];
    (void)snprintf(use, sizeof use,
                   "an adapter for llama.cpp, beside its base as GGUF: -m BASE.gguf --lora %s",
                   e->out);
    const struct fl_local_written written = {
        .path = e->out, .dtype = fl_narrow_parse(e->dtype), .format = e->format, .use = use};
    return fl_local_tell_written(&written, e->json, error);
}

int fl_cmd_export(int argc, char **argv)
{
    struct exporter e = {.format = "gguf", .dtype = "f32"};
    struct fl_error error = {0};
    int exit_code = 0;
    if (!parse(&e, argc, argv, &exit_code)) {
        return exit_code;
    }
    enum fl_status status = export_adapter(&e, &error);
    if (status == FL_OK) {
        status = tell(&e, &error);
    }
    fl_local_close(&e.local);
    return status == FL_OK ? 0 : fl_cli_fail(PROGRAM, &error);
}

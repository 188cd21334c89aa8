/*
 * cmd_fetch.c - `fedlora-worker fetch`: a base model from the Hugging Face hub into the cache that
 * Hugging Face's libraries share; the directory's path goes to stdout.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/cli.h"
#include "base/json.h"
#include "worker/commands.h"
#include "worker/download.h"
#include "worker/local.h"

#define PROGRAM  "fedlora-worker fetch"
#define ENDPOINT "https://huggingface.co"

struct fetch {
    const char *model, *cache;
    struct fl_option_list files;
    bool json;
    char root[FL_PATH_BYTES];
};

static bool parse(struct fetch *f, int argc, char **argv, int *exit_code)
{
    const struct fl_option options[] = {
        {"--cache", "DIR", FL_OPTION_STRING, &f->cache, 0, 0, NULL, false, NULL,
         "of the models (default: HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub)"},
        {"--file", "NAME", FL_OPTION_LIST, &f->files, 0, 0, NULL, false, NULL,
         "this file instead of configuration, tokenizer and *.safetensors (a .gguf, say); may be "
         "given several times"},
        {"--json", NULL, FL_OPTION_FLAG, &f->json, 0, 0, NULL, false, NULL,
         "print one JSON object instead of the path"},
    };
    const struct fl_positional positionals[] = {
        {"ORG/NAME[@REV]", &f->model, false, "the model; REV is a branch, tag or commit [main]"},
    };
    const struct fl_usage usage = {
        .program = PROGRAM,
        .summary =
            "Download a model over HTTPS, checked, into the cache that Hugging Face's libraries\n"
            "use, and print its directory. HF_TOKEN is sent if set; HF_ENDPOINT names a mirror.",
        .example = PROGRAM " HuggingFaceTB/SmolLM2-135M-Instruct",
        .options = options,
        .option_count = sizeof options / sizeof options[0],
        .positionals = positionals,
        .positional_count = 1,
    };
    return fl_cli_begin(&usage, argc, argv, exit_code);
}

static enum fl_status print(const struct fetch *f, const struct fl_download *d,
                            struct fl_error *error)
{
    if (!f->json) {
        return printf("%s\n", d->snapshot) > 0 ? FL_OK : fl_fail(error, FL_EIO, "standard output");
    }
    return fl_local_print(json_pack("{s:s, s:s, s:I, s:I, s:I}", "path", d->snapshot, "commit",
                                    d->commit, "files", (json_int_t)d->files, "bytes",
                                    (json_int_t)d->bytes, "downloaded", (json_int_t)d->downloaded),
                          error);
}

static enum fl_status fetch(struct fetch *f, struct fl_error *error)
{
    const char *endpoint = getenv("HF_ENDPOINT");
    struct fl_hfcache_name model;
    struct fl_download download = {
        .endpoint = endpoint && endpoint[0] ? endpoint : ENDPOINT,
        .token = getenv("HF_TOKEN"),
        .only = &f->files,
        .attempts = 5,
        .pause_ms = 1000,
        .terminal = fl_cli_is_terminal(),
        .stop = fl_local_stop_on_signals(),
    };
    enum fl_status status = fl_hfcache_parse(f->model, &model, error);
    if (status == FL_OK && !f->cache) {
        status = fl_hfcache_root(f->root, error);
        if (status == FL_ENOTFOUND) {
            status = fl_fail(error, FL_EUSAGE, "no HOME to keep a cache in; give --cache DIR");
        }
    }
    download.root = f->cache ? f->cache : f->root;
    if (status == FL_OK) {
        status = fl_download(&download, &model, error);
    }
    return status == FL_OK ? print(f, &download, error) : status;
}

int fl_cmd_fetch(int argc, char **argv)
{
    static struct fetch f;
    struct fl_error error = {0};
    int exit_code = 0;
    if (!parse(&f, argc, argv, &exit_code)) {
        return exit_code;
    }
    enum fl_status status = fetch(&f, &error);
    return status == FL_OK ? 0 : fl_cli_fail(PROGRAM, &error);
}

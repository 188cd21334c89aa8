/*
 * cmd_eval.c - `fedlora-worker eval`: the loss of a model, with or without an adapter, on a data
 * file: the sum over scored tokens divided by their number, and perplexity = exp(loss).
 */
#include <math.h>
#include <stdio.h>

#include "base/cli.h"
#include "base/json.h"
#include "worker/commands.h"
#include "worker/engine/finetune.h"
#include "worker/local.h"

#define PROGRAM "fedlora-worker eval"

struct eval {
    const char *model, *adapter, *compute;
    struct fl_local_data data;
    uint64_t threads;
    bool json; /* accepted for symmetry: the output is always JSON */
    struct fl_local local;
    struct fl_evaluation result;
};

static bool parse(struct eval *e, int argc, char **argv, int *exit_code)
{
    const struct fl_option options[] = {
        {"--model", "PATH", FL_OPTION_STRING, &e->model, 0, 0, NULL, true, NULL,
         "Hugging Face directory or GGUF file"},
        FL_LOCAL_DATA_OPTIONS(&e->data),
        {"--adapter", "PEFT_DIR", FL_OPTION_STRING, &e->adapter, 0, 0, NULL, false, NULL,
         "adapter to put on the model (default: none)"},
        {"--compute", "MODE", FL_OPTION_CHOICE, &e->compute, 0, 0, "auto|f32|bf16", false, NULL,
         "number type of the products"},
        {"--threads", "N", FL_OPTION_U64, &e->threads, 0, 1024, NULL, false, NULL,
         "processors to use (0: all)"},
        {"--json", NULL, FL_OPTION_FLAG, &e->json, 0, 0, NULL, false, NULL,
         "the output is one JSON object in any case"},
    };
    const struct fl_usage usage = {
        .program = PROGRAM,
        .summary = "Loss and perplexity on a data file, as one JSON object.",
        .example = PROGRAM " --model model.gguf --data held-out.jsonl --adapter adapter",
        .options = options,
        .option_count = sizeof options / sizeof options[0],
    };
    return fl_cli_begin(&usage, argc, argv, exit_code);
}

/* JSON knows no infinity: a perplexity beyond double is null. */
static json_t *real_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static enum fl_status print(const struct eval *e, struct fl_error *error)
{
    const struct fl_dataset_counts *counts = fl_dataset_counts(e->local.data);
    const struct fl_evaluation *r = &e->result;
    double loss = r->loss_sum / (double)r->scored;
    double speed = r->seconds > 0 ? (double)r->tokens / r->seconds : 0.0;
    return fl_local_print(
        json_pack("{s:I, s:f, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "tokens",
                  (json_int_t)r->scored, "loss", loss, "perplexity", real_or_null(exp(loss)),
                  "processed", (json_int_t)r->tokens, "rows", (json_int_t)counts->rows, "truncated",
                  (json_int_t)counts->truncated, "completions_cut",
                  (json_int_t)counts->completions_cut, "tokens_cut", (json_int_t)counts->tokens_cut,
                  "dropped", (json_int_t)counts->dropped, "empty", (json_int_t)counts->empty, "bad",
                  (json_int_t)counts->bad, "tokens_per_second", speed),
        error);
}

static enum fl_status eval(struct eval *e, struct fl_error *error)
{
    const atomic_int *stop = fl_local_stop_on_signals();
    struct fl_evaluate_options options = {
        .batch_size = 16,
        .threads = (uint32_t)e->threads,
        .compute = fl_local_compute(e->compute),
    };
    enum fl_status status = fl_local_open_model(&e->local, e->model, error);
    if (status == FL_OK) {
        status = fl_local_open_adapter(&e->local, e->adapter, error);
    }
    if (status == FL_OK) {
        status = fl_local_open_data(&e->local, e->model, &e->data, error);
    }
    if (status == FL_OK) {
        status = fl_finetune_evaluate(e->local.model, e->local.adapter, e->local.rows,
                                      e->local.count, &options, stop, &e->result, error);
    }
    if (status == FL_OK && e->result.scored == 0) {
        status = fl_fail(error, FL_EFORMAT, "%s: nothing in it is scored", e->data.path);
    }
    return status == FL_OK ? print(e, error) : status;
}

int fl_cmd_eval(int argc, char **argv)
{
    struct eval e = {.compute = "auto",
                     .data = {.specials = "plain",
                              .loss = "completions",
                              .chat_template = "auto",
                              .part = FL_PART_EVAL}};
    struct fl_error error = {0};
    int exit_code = 0;
    if (!parse(&e, argc, argv, &exit_code)) {
        return exit_code;
    }
    enum fl_status status = eval(&e, &error);
    fl_local_close(&e.local);
    return status == FL_OK ? 0 : fl_cli_fail(PROGRAM, &error);
}

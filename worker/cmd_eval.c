/*
 * cmd_eval.c - `fedlora-worker eval`: the loss of a model, with or without an adapter, on a data
 * file: the sum over scored tokens divided by their number, and perplexity = exp(loss). With
 * --metrics also what the model answers on its own, scored; with --choices which of given answers
 * it finds likeliest (answering.h).
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cli.h"
#include "base/json.h"
#include "worker/answering.h"
#include "worker/commands.h"
#include "worker/data/tokenizer.h"
#include "worker/engine/finetune.h"
#include "worker/local.h"
#include "worker/metrics.h"

#define PROGRAM "fedlora-worker eval"

struct eval {
    const char *model, *adapter, *compute, *quantize, *metric_list, *samples_path, *memory;
    uint64_t memory_limit; /* bytes; 0: none */
    struct fl_local_data data;
    uint64_t threads, max_tokens, resamples, seed;
    struct fl_option_list stops;
    bool json; /* accepted for symmetry: the output is always JSON */
    bool choices;
    unsigned metrics; /* bits 1 << enum fl_metric */
    struct fl_local local;
    struct fl_tokenizer *tokenizer; /* for answers */
    struct fl_samples samples;
    const atomic_int *stop;
    struct fl_evaluation result;
};

static bool parse(struct eval *e, int argc, char **argv, int *exit_code)
{
    const struct fl_option options[] = {
        {"--model", "PATH", FL_OPTION_STRING, &e->model, 0, 0, NULL, true, NULL,
         "Hugging Face directory, GGUF file, or ORG/NAME in the Hugging Face cache"},
        FL_LOCAL_DATA_OPTIONS(&e->data),
        {"--adapter", "PEFT_DIR", FL_OPTION_STRING, &e->adapter, 0, 0, NULL, false, NULL,
         "adapter to put on the model (default: none)"},
        {"--limit", "N", FL_OPTION_U64, &e->data.limit, 0, FL_DATASET_ROWS_MAX, NULL, false, NULL,
         "evaluate N rows, chosen by a hash of --seed (0: all)"},
        {"--metrics", "LIST", FL_OPTION_STRING, &e->metric_list, 0, 0, NULL, false, NULL,
         "score the model's own answers: exact_match,f1,rouge_l,accuracy"},
        {"--max-tokens", "N", FL_OPTION_U64, &e->max_tokens, 1, FL_SEQ_MAX, NULL, false, NULL,
         "tokens of an answer at most"},
        {"--stop", "TEXT", FL_OPTION_LIST, &e->stops, 0, 0, NULL, false, NULL,
         "an answer ends in front of this text; may be given several times"},
        {"--choices", NULL, FL_OPTION_FLAG, &e->choices, 0, 0, NULL, false, NULL,
         "rows give prompt, choices and answer: which choice is the likeliest"},
        {"--samples", "FILE", FL_OPTION_STRING, &e->samples_path, 0, 0, NULL, false, NULL,
         "keep every answer and its scores, one JSON object a line"},
        {"--bootstrap", "N", FL_OPTION_U64, &e->resamples, 0, 1000000, NULL, false, NULL,
         "resamples behind the 95 % interval of a metric (0: none)"},
        {"--seed", "S", FL_OPTION_U64, &e->seed, 0, 0, NULL, false, NULL,
         "of the bootstrap and of --limit"},
        {"--compute", "MODE", FL_OPTION_CHOICE, &e->compute, 0, 0, "auto|f32|bf16", false, NULL,
         "number type of the products"},
        {"--quantize", "TYPE", FL_OPTION_CHOICE, &e->quantize, 0, 0, FL_LOCAL_QUANTIZE, false, NULL,
         FL_LOCAL_QUANTIZE_HELP},
        {"--threads", "N", FL_OPTION_U64, &e->threads, 0, 1024, NULL, false, NULL,
         "processors to use (0: all)"},
        FL_LOCAL_MEMORY_OPTION(&e->memory),
        {"--json", NULL, FL_OPTION_FLAG, &e->json, 0, 0, NULL, false, NULL,
         "the output is one JSON object in any case"},
    };
    const struct fl_usage usage = {
        .program = PROGRAM,
        .summary = "Loss and perplexity on a data file, and scores of answers, as one JSON object.",
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

static enum fl_status check_words(struct eval *e, struct fl_error *error)
{
    enum fl_status status = FL_OK;
    if (e->metric_list) {
        status = fl_metrics_parse(e->metric_list, &e->metrics, error);
    }
    if (status == FL_OK && e->choices && (e->metrics || e->data.limit)) {
        status = fl_fail(error, FL_EUSAGE, "--choices goes without --metrics and --limit");
    }
    if (status == FL_OK && e->samples_path && !e->metrics && !e->choices) {
        status = fl_fail(error, FL_EUSAGE, "--samples needs --metrics or --choices");
    }
    for (size_t i = 0; status == FL_OK && i < e->stops.count; i++) {
        if (!e->stops.items[i][0]) {
            status = fl_fail(error, FL_EUSAGE, "--stop: the text is empty");
        }
    }
    e->data.seed = e->seed;
    if (status == FL_OK) {
        status = fl_local_memory_limit(e->memory, &e->memory_limit, error);
    }
    if (status == FL_OK && e->memory_limit && (e->metrics || e->choices)) {
        status = fl_fail(error, FL_EUSAGE, "--memory-limit goes without --metrics and --choices");
    }
    return status;
}

static struct fl_answering answering_of(struct eval *e)
{
    return (struct fl_answering){
        .local = &e->local,
        .tokenizer = e->tokenizer,
        .stops = &e->stops,
        .samples = &e->samples,
        .stop = e->stop,
        .metrics = e->metrics,
        .max_tokens = (uint32_t)e->max_tokens,
        .resamples = (uint32_t)e->resamples,
        .threads = (uint32_t)e->threads,
        .seed = e->seed,
        .compute = fl_local_compute(e->compute),
        .data_path = e->data.path,
        .skip_bad_rows = e->data.skip_bad_rows,
        .specials_plain = strcmp(e->data.specials, "plain") == 0,
    };
}

static json_t *report_of(const struct eval *e)
{
    const struct fl_dataset_counts *counts = fl_dataset_counts(e->local.data);
    const struct fl_evaluation *r = &e->result;
    double loss = r->loss_sum / (double)r->scored;
    double speed = r->seconds > 0 ? (double)r->tokens / r->seconds : 0.0;
    return json_pack("{s:I, s:f, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "tokens",
                     (json_int_t)r->scored, "loss", loss, "perplexity", real_or_null(exp(loss)),
                     "processed", (json_int_t)r->tokens, "rows", (json_int_t)counts->rows,
                     "truncated", (json_int_t)counts->truncated, "completions_cut",
                     (json_int_t)counts->completions_cut, "tokens_cut",
                     (json_int_t)counts->tokens_cut, "dropped", (json_int_t)counts->dropped,
                     "empty", (json_int_t)counts->empty, "bad", (json_int_t)counts->bad,
                     "tokens_per_second", speed);
}

/* Of the rows of the data file: the loss, and the answers where metrics are wanted. */
static enum fl_status eval_rows(struct eval *e, json_t **report, struct fl_error *error)
{
    struct fl_evaluate_options options = {
        .batch_size = 16,
        .threads = (uint32_t)e->threads,
        .compute = fl_local_compute(e->compute),
        .memory_limit = e->memory_limit,
    };
    enum fl_status status = fl_local_open_data(&e->local, e->model, &e->data, error);
    if (status == FL_OK) {
        status = fl_finetune_evaluate(e->local.model, e->local.adapter, e->local.rows,
                                      e->local.count, &options, e->stop, &e->result, error);
    }
    if (status == FL_OK && e->result.scored == 0) {
        status = fl_fail(error, FL_EFORMAT, "%s: nothing in it is scored", e->data.path);
    }
    if (status == FL_OK && !(*report = report_of(e))) {
        status = fl_fail_memory(error);
    }
    if (status == FL_OK && e->metrics) {
        const struct fl_answering answering = answering_of(e);
        status = fl_answer_rows(&answering, *report, error);
    }
    return status;
}

static enum fl_status eval_choices(struct eval *e, json_t **report, struct fl_error *error)
{
    const struct fl_answering answering = answering_of(e);
    *report = json_object();
    return *report ? fl_answer_choices(&answering, *report, error) : fl_fail_memory(error);
}

static enum fl_status eval(struct eval *e, struct fl_error *error)
{
    json_t *report = NULL;
    e->stop = fl_local_stop_on_signals();
    enum fl_status status = check_words(e, error);
    if (status == FL_OK) {
        status = fl_local_open_model(&e->local, e->model, error);
    }
    if (status == FL_OK) {
        status = fl_local_quantize(&e->local, e->quantize, e->threads, error);
    }
    if (status == FL_OK) {
        status = fl_local_open_adapter(&e->local, e->adapter, error);
    }
    if (status == FL_OK && (e->metrics || e->choices)) {
        status = fl_tokenizer_open(e->model, &e->tokenizer, error);
    }
    if (status == FL_OK) {
        status = fl_samples_open(&e->samples, e->samples_path, error);
    }
    if (status == FL_OK) {
        status = e->choices ? eval_choices(e, &report, error) : eval_rows(e, &report, error);
    }
    if (status == FL_OK) {
        status = fl_samples_commit(&e->samples, error);
    }
    fl_samples_close(&e->samples);
    if (status == FL_OK) {
        return fl_local_print(report, error);
    }
    json_decref(report);
    return status;
}

int fl_cmd_eval(int argc, char **argv)
{
    struct eval e = {.compute = "auto",
                     .quantize = "none",
                     .memory = "0",
                     .data = {.specials = "plain",
                              .loss = "completions",
                              .chat_template = "auto",
                              .part = FL_PART_EVAL},
                     .max_tokens = 128,
                     .resamples = 1000};
    struct fl_error error = {0};
    int exit_code = 0;
    if (!parse(&e, argc, argv, &exit_code)) {
        return exit_code;
    }
    enum fl_status status = eval(&e, &error);
    fl_tokenizer_close(e.tokenizer);
    fl_local_close(&e.local);
    return status == FL_OK ? 0 : fl_cli_fail(PROGRAM, &error);
}

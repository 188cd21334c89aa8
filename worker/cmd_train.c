/*
 * cmd_train.c - `fedlora-worker train`: local fine-tuning without a coordinator. Reads a model and
 * a data file, trains a LoRA adapter, writes a PEFT directory. Nothing is written before the last
 * step is done.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/fs.h"
#include "base/json.h"
#include "worker/commands.h"
#include "worker/engine/finetune.h"
#include "worker/local.h"
#include "worker/progress.h"

#define PROGRAM   "fedlora-worker train"
#define COUNT_MAX 4294967295.0

struct train {
    const char *model, *out, *init;
    struct fl_local_data data;
    uint64_t rank;
    double alpha, dropout;
    const char *targets;
    bool rslora;
    bool has_rank, has_alpha, has_targets, has_dropout, has_rslora;
    uint64_t steps, epochs, batch_size, accumulate, warmup, seed, threads;
    bool has_steps, has_epochs;
    double lr, loraplus_ratio, weight_decay, grad_clip;
    const char *schedule, *compute;
    bool shuffle, json;

    struct fl_local local;
    struct fl_finetune_options options;
    struct fl_finetune_result result;
    struct fl_progress progress;
    enum fl_status print_status; /* the first failure to print an event */
};

static bool parse(struct train *t, int argc, char **argv, int *exit_code)
{
    const struct fl_option options[] = {
        {"--model", "PATH", FL_OPTION_STRING, &t->model, 0, 0, NULL, true, NULL,
         "Hugging Face directory or GGUF file"},
        FL_LOCAL_DATA_OPTIONS(&t->data),
        {"--out", "PEFT_DIR", FL_OPTION_STRING, &t->out, 0, 0, NULL, true, NULL,
         "the adapter directory to write"},
        {"--rank", "R", FL_OPTION_U64, &t->rank, 1, FL_RANK_MAX, NULL, false, &t->has_rank,
         "rank of the adapter"},
        {"--alpha", "ALPHA", FL_OPTION_DOUBLE, &t->alpha, 1e-6, 1e6, NULL, false, &t->has_alpha,
         "scale: alpha / rank"},
        {"--targets", "NAMES", FL_OPTION_STRING, &t->targets, 0, 0, NULL, false, &t->has_targets,
         "linears to adapt, or all-linear"},
        {"--dropout", "P", FL_OPTION_DOUBLE, &t->dropout, 0, 0.99, NULL, false, &t->has_dropout,
         "dropout on the adapter's input while training"},
        {"--rslora", NULL, FL_OPTION_FLAG, &t->rslora, 0, 0, NULL, false, &t->has_rslora,
         "scale: alpha / sqrt(rank)"},
        {"--init-adapter", "PEFT_DIR", FL_OPTION_STRING, &t->init, 0, 0, NULL, false, NULL,
         "go on from this adapter, with its rank, alpha and targets"},
        {"--steps", "N", FL_OPTION_U64, &t->steps, 1, COUNT_MAX, NULL, false, &t->has_steps,
         "optimizer steps, instead of --epochs"},
        {"--epochs", "N", FL_OPTION_U64, &t->epochs, 1, 1e6, NULL, false, &t->has_epochs,
         "passes over the data"},
        {"--batch-size", "ROWS", FL_OPTION_U64, &t->batch_size, 1, 65536, NULL, false, NULL,
         "rows of a batch"},
        {"--grad-accum", "N", FL_OPTION_U64, &t->accumulate, 1, 65536, NULL, false, NULL,
         "batches a step; their gradients are summed"},
        {"--lr", "RATE", FL_OPTION_DOUBLE, &t->lr, 0, 1e3, NULL, false, NULL, "learning rate"},
        {"--loraplus-ratio", "X", FL_OPTION_DOUBLE, &t->loraplus_ratio, 1e-6, 1e6, NULL, false,
         NULL, "learning rate of B over that of A"},
        {"--schedule", "HOW", FL_OPTION_CHOICE, &t->schedule, 0, 0, "constant|linear|cosine", false,
         NULL, "course of the learning rate"},
        {"--warmup", "N", FL_OPTION_U64, &t->warmup, 0, COUNT_MAX, NULL, false, NULL,
         "steps of linear warm-up"},
        {"--weight-decay", "W", FL_OPTION_DOUBLE, &t->weight_decay, 0, 1e3, NULL, false, NULL,
         "AdamW's weight decay"},
        {"--grad-clip", "NORM", FL_OPTION_DOUBLE, &t->grad_clip, 0, 1e9, NULL, false, NULL,
         "largest gradient norm, 0 = off"},
        {"--seed", "S", FL_OPTION_U64, &t->seed, 0, 0, NULL, false, NULL,
         "of A's start, the order of rows, dropout and --valid-split"},
        {"--shuffle", "on|off", FL_OPTION_ONOFF, &t->shuffle, 0, 0, NULL, false, NULL,
         "shuffle the rows in each epoch"},
        {"--valid-split", "SHARE", FL_OPTION_DOUBLE, &t->data.valid_split, 0, FL_VALID_SPLIT_MAX,
         NULL, false, NULL,
         "share of the records to hold out for validation, chosen by their hash"},
        {"--compute", "MODE", FL_OPTION_CHOICE, &t->compute, 0, 0, "auto|f32|bf16", false, NULL,
         "number type of the products"},
        {"--threads", "N", FL_OPTION_U64, &t->threads, 0, 1024, NULL, false, NULL,
         "processors to use (0: all)"},
        {"--json", NULL, FL_OPTION_FLAG, &t->json, 0, 0, NULL, false, NULL,
         "one JSON event a line on stdout"},
    };
    const struct fl_usage usage = {
        .program = PROGRAM,
        .summary = "Fine-tune a LoRA adapter on local data, without a coordinator.",
        .example = PROGRAM " --model model.gguf --data rows.jsonl --out adapter --rank 8",
        .options = options,
        .option_count = sizeof options / sizeof options[0],
    };
    return fl_cli_begin(&usage, argc, argv, exit_code);
}

/* Early, so that nobody trains for hours and then can't save: --out is new or a PEFT directory. */
static enum fl_status check_out(const char *out, struct fl_error *error)
{
    char config[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(config, out, "adapter_config.json", error);
    if (status != FL_OK) {
        return status;
    }
    if (fl_path_exists(out) && !fl_path_exists(config)) {
        return fl_fail(error, FL_EEXIST,
                       "%s: it exists and is no adapter directory, so it is not replaced", out);
    }
    return FL_OK;
}

static bool same_modules(const struct fl_adapter *adapter, const struct fl_inventory *chosen)
{
    if (adapter->count != chosen->count) {
        return false;
    }
    for (uint32_t i = 0; i < chosen->count; i++) {
        if (strcmp(adapter->modules[i].module.name, chosen->modules[i].name) != 0) {
            return false;
        }
    }
    return true;
}

static enum fl_status contradiction(const struct train *t, const char *option, double own,
                                    double given, struct fl_error *error)
{
    return fl_fail(error, FL_EUSAGE, "%s %.9g contradicts %s, which has %.9g", option, given,
                   t->init, own);
}

/* An explicit option may repeat what --init-adapter says, never contradict it. */
static enum fl_status check_init(const struct train *t, struct fl_error *error)
{
    const struct fl_adapter *a = t->local.adapter;
    if (t->has_rank && t->rank != a->rank) {
        return contradiction(t, "--rank", a->rank, (double)t->rank, error);
    }
    if (t->has_alpha && t->alpha != a->alpha) {
        return contradiction(t, "--alpha", a->alpha, t->alpha, error);
    }
    if (t->has_dropout && t->dropout != a->dropout) {
        return contradiction(t, "--dropout", a->dropout, t->dropout, error);
    }
    if (t->has_rslora && t->rslora != a->use_rslora) {
        return fl_fail(error, FL_EUSAGE, "--rslora contradicts %s", t->init);
    }
    if (t->has_targets) {
        struct fl_inventory chosen = {0};
        enum fl_status status = fl_inventory_select(fl_model_inventory(t->local.model), t->targets,
                                                    &chosen, error);
        if (status == FL_ENOMEM) {
            return status;
        }
        if (status != FL_OK) {
            return fl_fail(error, FL_EUSAGE, "--targets %s: no such linear in this model",
                           t->targets);
        }
        bool same = same_modules(a, &chosen);
        fl_inventory_free(&chosen);
        if (!same) {
            return fl_fail(error, FL_EUSAGE, "--targets %s contradicts %s", t->targets, t->init);
        }
    }
    return FL_OK;
}

static void name_base(struct fl_adapter *adapter, const char *path)
{
    if (strlen(path) >= sizeof adapter->base_model) {
        path = fl_path_base(path);
    }
    (void)snprintf(adapter->base_model, sizeof adapter->base_model, "%s", path);
}

static enum fl_status new_adapter(struct train *t, struct fl_error *error)
{
    struct fl_inventory chosen = {0};
    enum fl_status status = fl_inventory_select(fl_model_inventory(t->local.model), t->targets,
                                                &chosen, error);
    if (status == FL_EINVAL) {
        error->status = FL_EUSAGE; /* the option names something that the model lacks */
        fl_error_prefix(error, "--targets");
        return FL_EUSAGE;
    }
    if (status == FL_OK) {
        status = fl_adapter_create(&chosen, (uint32_t)t->rank, t->alpha, NULL, &t->local.adapter,
                                   error);
    }
    fl_inventory_free(&chosen);
    if (status == FL_OK) {
        t->local.adapter->use_rslora = t->rslora;
        t->local.adapter->dropout = t->dropout;
        fl_adapter_init(t->local.adapter, t->seed);
    }
    return status;
}

static enum fl_status open_adapter(struct train *t, struct fl_error *error)
{
    enum fl_status status;
    if (t->init) {
        status = fl_local_open_adapter(&t->local, t->init, error);
        if (status == FL_OK) {
            status = check_init(t, error);
        }
    } else {
        status = new_adapter(t, error);
    }
    if (status == FL_OK && t->local.adapter->base_model[0] == '\0') {
        name_base(t->local.adapter, t->model);
    }
    return status;
}

static enum fl_status settle_options(struct train *t, struct fl_error *error)
{
    struct fl_finetune_options *o = &t->options;
    fl_finetune_defaults(o);
    o->batch_size = (uint32_t)t->batch_size;
    o->accumulate = (uint32_t)t->accumulate;
    o->steps = t->has_steps
                   ? t->steps
                   : fl_finetune_steps(t->local.count, t->batch_size * t->accumulate, t->epochs);
    o->lr = t->lr;
    o->lr_b = t->lr * t->loraplus_ratio;
    o->warmup = t->warmup;
    o->weight_decay = t->weight_decay;
    o->grad_clip = t->grad_clip;
    o->seed = t->seed;
    o->shuffle = t->shuffle;
    o->threads = (uint32_t)t->threads;
    o->compute = fl_local_compute(t->compute);
    enum fl_status status = fl_schedule_parse(t->schedule, &o->schedule);
    return status == FL_OK ? FL_OK : fl_fail(error, FL_EUSAGE, "--schedule %s", t->schedule);
}

static void tell_start(const struct train *t)
{
    const struct fl_adapter *adapter = t->local.adapter;
    uint64_t trainable = fl_adapter_parameters(adapter);
    uint64_t total = fl_model_parameters(t->local.model) + trainable;
    fprintf(stderr,
            "trainable parameters: %llu of %llu (%.4f %%), %u modules; adapter size: %.2f MB\n",
            (unsigned long long)trainable, (unsigned long long)total,
            100.0 * (double)trainable / (double)total, adapter->count, 4e-6 * (double)trainable);
    const struct fl_dataset_counts *counts = fl_dataset_counts(t->local.data);
    fprintf(stderr, "data: %llu rows, %llu tokens, %llu of them scored; %llu steps of %llu rows\n",
            (unsigned long long)counts->rows, (unsigned long long)counts->tokens,
            (unsigned long long)counts->scored_tokens, (unsigned long long)t->options.steps,
            (unsigned long long)(t->batch_size * t->accumulate));
}

/* What was read, before the first step; "valid" is null when nothing is held out. */
static enum fl_status print_data(const struct train *t, struct fl_error *error)
{
    const struct fl_dataset *valid = fl_dataset_valid(t->local.data);
    json_t *event = fl_local_counts(t->local.data);
    json_t *counts = valid ? fl_local_counts(valid) : json_null();
    json_t *whole = json_pack("{s:s}", "event", "data");
    if (!event || !counts || json_object_set_new(event, "valid", counts) != 0 ||
        json_object_update(whole, event) != 0) {
        json_decref(whole);
        whole = NULL;
    }
    json_decref(event);
    return fl_local_print(whole, error);
}

static double speed(uint64_t tokens, double seconds)
{
    return seconds > 0 ? (double)tokens / seconds : 0.0;
}

static void on_step(void *context, const struct fl_finetune_step *step)
{
    struct train *t = context;
    if (!t->json || t->progress.terminal) {
        fl_progress_step(&t->progress, step->step, step->loss, step->tokens, step->seconds);
    }
    if (t->json && t->print_status == FL_OK) {
        struct fl_error ignored;
        t->print_status =
            fl_local_print(json_pack("{s:s, s:I, s:f, s:I, s:I, s:f}", "event", "step", "step",
                                     (json_int_t)step->step, "loss", step->loss, "tokens",
                                     (json_int_t)step->tokens, "scored", (json_int_t)step->scored,
                                     "tokens_per_second", speed(step->tokens, step->seconds)),
                           &ignored);
    }
}

static enum fl_status tell_done(const struct train *t, struct fl_error *error)
{
    const struct fl_finetune_result *r = &t->result;
    double tokens_per_second = speed(r->tokens, r->seconds);
    if (t->json) {
        return fl_local_print(json_pack("{s:s, s:I, s:f, s:I, s:f, s:I}", "event", "done", "steps",
                                        (json_int_t)r->steps, "loss", r->loss, "tokens",
                                        (json_int_t)r->tokens, "tokens_per_second",
                                        tokens_per_second, "peak_rss_bytes",
                                        (json_int_t)fl_local_peak_rss_bytes()),
                              error);
    }
    fprintf(stderr, "%llu steps, loss %.4f, %.0f tokens/s (%s), peak memory %.0f MB\n",
            (unsigned long long)r->steps, r->loss, tokens_per_second, r->compute,
            1e-6 * (double)fl_local_peak_rss_bytes());
    fprintf(stderr, "adapter: %s\n", t->out);
    return FL_OK;
}

/* README.md of the adapter: how it came about, without a word about the data. */
static void write_card(const struct train *t, struct fl_buf *card)
{
    const struct fl_adapter *a = t->local.adapter;
    const struct fl_finetune_options *o = &t->options;
    fl_buf_printf(card,
                  "---\nbase_model: %s\nlibrary_name: peft\n"
                  "pipeline_tag: text-generation\ntags:\n- lora\n- fedlora\n---\n\n",
                  a->base_model);
    fl_buf_printf(card, "# LoRA adapter\n\nTrained by fedlora %s.\n\n", FL_VERSION);
    fl_buf_printf(card, "| setting | value |\n|---|---|\n| rank | %u |\n| alpha | %.9g |\n",
                  a->rank, a->alpha);
    fl_buf_printf(card, "| modules | %u |\n| trainable parameters | %llu |\n", a->count,
                  (unsigned long long)fl_adapter_parameters(a));
    fl_buf_printf(card, "| steps | %llu |\n| rows a step | %llu |\n", (unsigned long long)o->steps,
                  (unsigned long long)(t->batch_size * t->accumulate));
    fl_buf_printf(card, "| learning rate | %.9g, %s, warm-up %llu |\n| weight decay | %.9g |\n",
                  o->lr, t->schedule, (unsigned long long)o->warmup, o->weight_decay);
    fl_buf_printf(card, "| gradient clip | %.9g |\n| seed | %llu |\n", o->grad_clip,
                  (unsigned long long)o->seed);
    fl_buf_printf(card, "| compute | %s |\n| loss of the last step | %.6g |\n", t->result.compute,
                  t->result.loss);
}

static enum fl_status save(const struct train *t, struct fl_error *error)
{
    struct fl_buf card;
    fl_buf_init(&card, 1u << 16);
    write_card(t, &card);
    enum fl_status status = fl_buf_status(&card);
    if (status != FL_OK) {
        (void)fl_fail_memory(error);
    } else if (!fl_adapter_finite(t->local.adapter)) {
        status = fl_fail(error, FL_ERANGE, "the adapter holds NaN or Inf after training");
    } else {
        status = fl_adapter_save(t->local.adapter, t->out, fl_buf_text(&card), error);
    }
    fl_buf_free(&card);
    return status;
}

static enum fl_status open_all(struct train *t, struct fl_error *error)
{
    enum fl_status status = check_out(t->out, error);
    if (status == FL_OK) {
        status = fl_local_open_model(&t->local, t->model, error);
    }
    if (status == FL_OK) {
        status = open_adapter(t, error);
    }
    if (status == FL_OK) {
        t->data.split_seed = t->seed;
        status = fl_local_open_data(&t->local, t->model, &t->data, error);
    }
    if (status == FL_OK) {
        status = settle_options(t, error);
    }
    return status;
}

static enum fl_status train(struct train *t, struct fl_error *error)
{
    struct fl_finetune_watch watch = {
        .on_step = on_step, .context = t, .stop = fl_local_stop_on_signals()};
    enum fl_status status = open_all(t, error);
    if (status != FL_OK) {
        return status;
    }
    tell_start(t);
    if (t->json) {
        status = print_data(t, error);
        if (status != FL_OK) {
            return status;
        }
    }
    fl_progress_start(&t->progress, "step", t->options.steps);
    status = fl_finetune(t->local.model, t->local.adapter, t->local.rows, t->local.count,
                         &t->options, &watch, &t->result, error);
    fl_progress_end(&t->progress);
    if (status == FL_ESTOPPED) {
        return fl_fail(error, status, "stopped after %llu steps; nothing was saved",
                       (unsigned long long)t->result.steps);
    }
    if (status == FL_OK && t->print_status != FL_OK) {
        status = fl_fail(error, t->print_status, "standard output: the events can't be written");
    }
    if (status == FL_OK) {
        status = save(t, error);
    }
    return status == FL_OK ? tell_done(t, error) : status;
}

int fl_cmd_train(int argc, char **argv)
{
    struct train t = {
        .rank = 8,
        .alpha = 16,
        .targets = "q_proj,v_proj",
        .epochs = 1,
        .batch_size = 4,
        .accumulate = 1,
        .lr = 1e-3,
        .loraplus_ratio = 1,
        .grad_clip = 1,
        .shuffle = true,
        .schedule = "constant",
        .compute = "auto",
        .data = {.specials = "plain", .loss = "completions", .chat_template = "auto"},
    };
    struct fl_error error = {0};
    int exit_code = 0;
    if (!parse(&t, argc, argv, &exit_code)) {
        return exit_code;
    }
    enum fl_status status = FL_OK;
    if (t.has_steps && t.has_epochs) {
        status = fl_fail(&error, FL_EUSAGE, "give --steps or --epochs, not both");
    } else {
        status = train(&t, &error);
    }
    fl_local_close(&t.local);
    return status == FL_OK ? 0 : fl_cli_fail(PROGRAM, &error);
}

/*
 * cmd_train.c - `fedlora-worker train`: local fine-tuning without a coordinator. Reads a model and
 * a data file, trains a LoRA adapter, writes a PEFT directory (training.h says when).
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/cli.h"
#include "base/fs.h"
#include "worker/cmd_train.h"
#include "worker/commands.h"
#include "worker/engine/dora.h"

#define PROGRAM     FL_TRAIN_PROGRAM
#define COUNT_MAX   4294967295.0
#define OPTIONS_MAX 64

static size_t append(struct fl_option *out, size_t count, const struct fl_option *some, size_t n)
{
    assert(count + n <= OPTIONS_MAX);
    memcpy(out + count, some, n * sizeof *some);
    return count + n;
}

#define APPEND(out, count, some) append(out, count, some, sizeof(some) / sizeof((some)[0]))

/* What is trained, and on what. */
static size_t adapter_options(struct fl_train *t, struct fl_option *out, size_t count)
{
    const struct fl_option options[] = {
        {"--model", "PATH", FL_OPTION_STRING, &t->model, 0, 0, NULL, true, NULL,
         "Hugging Face directory, GGUF file, or ORG/NAME in the Hugging Face cache"},
        FL_LOCAL_DATA_OPTIONS(&t->data),
        {"--out", "PEFT_DIR", FL_OPTION_STRING, &t->out, 0, 0, NULL, true, NULL,
         "the adapter directory to write"},
        {"--rank", "R", FL_OPTION_U64, &t->rank, 1, FL_RANK_MAX, NULL, false, &t->has_rank,
         "rank of the adapter"},
        {"--alpha", "ALPHA", FL_OPTION_DOUBLE, &t->choice.alpha, 1e-6, 1e6, NULL, false,
         &t->has_alpha, "scale: alpha / rank"},
        {"--targets", "NAMES", FL_OPTION_STRING, &t->choice.targets, 0, 0, NULL, false,
         &t->has_targets,
         "linears to adapt, or all-linear; default: q_proj,v_proj (c_attn of GPT-2)"},
        {"--exclude", "NAMES", FL_OPTION_STRING, &t->choice.exclude, 0, 0, NULL, false, NULL,
         "of these targets, linears to leave alone"},
        {"--layers", "LIST", FL_OPTION_STRING, &t->choice.layers, 0, 0, NULL, false, NULL,
         "blocks to adapt, as 0,4-7; default: all"},
        {"--rank-pattern", "NAME=R,...", FL_OPTION_STRING, &t->choice.rank_pattern, 0, 0, NULL,
         false, NULL, "other ranks, by name, end of a name, or regular expression"},
        {"--alpha-pattern", "NAME=ALPHA,...", FL_OPTION_STRING, &t->choice.alpha_pattern, 0, 0,
         NULL, false, NULL, "the same for alpha"},
        {"--dropout", "P", FL_OPTION_DOUBLE, &t->dropout, 0, 0.99, NULL, false, &t->has_dropout,
         "dropout on the adapter's input while training"},
        {"--rslora", NULL, FL_OPTION_FLAG, &t->rslora, 0, 0, NULL, false, &t->has_rslora,
         "scale: alpha / sqrt(rank)"},
        {"--dora", NULL, FL_OPTION_FLAG, &t->dora, 0, 0, NULL, false, &t->has_dora,
         "DoRA: also a magnitude for each row of the adapted linears"},
        {"--init-adapter", "PEFT_DIR", FL_OPTION_STRING, &t->init, 0, 0, NULL, false, NULL,
         "go on from this adapter, with its rank, alpha and targets"},
    };
    return APPEND(out, count, options);
}

static size_t data_options(struct fl_train *t, struct fl_option *out, size_t count)
{
    const struct fl_option options[] = {
        {"--seq-len", "T", FL_OPTION_U64, &t->data.seq_len, 2, FL_SEQ_MAX, NULL, false, NULL,
         "tokens of the longest row (0: 256, or the model's context if shorter)"},
        {"--no-eos", NULL, FL_OPTION_FLAG, &t->data.no_eos, 0, 0, NULL, false, NULL,
         "append no end-of-text token to rows"},
        {"--specials", "HOW", FL_OPTION_CHOICE, &t->data.specials, 0, 0, "plain|match", false, NULL,
         "special-token strings in the data: plain text, or the tokens"},
        {"--skip-bad-rows", NULL, FL_OPTION_FLAG, &t->data.skip_bad_rows, 0, 0, NULL, false, NULL,
         "count broken lines instead of stopping"},
    };
    return APPEND(out, count, options);
}

/* How a step is made. */
static size_t step_options(struct fl_train *t, struct fl_option *out, size_t count)
{
    const struct fl_option options[] = {
        {"--steps", "N", FL_OPTION_U64, &t->steps, 0, COUNT_MAX, NULL, false, &t->has_steps,
         "optimizer steps, instead of --epochs; --steps 0 needs no data and writes the adapter as "
         "training would begin with it"},
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
    };
    return APPEND(out, count, options);
}

/* How the run goes on. */
static size_t run_options(struct fl_train *t, struct fl_option *out, size_t count)
{
    const struct fl_option options[] = {
        {"--checkpoint-every", "N", FL_OPTION_U64, &t->checkpoint_every, 0, COUNT_MAX, NULL, false,
         NULL, "steps between two checkpoints (0: only when stopped)"},
        {"--keep-checkpoints", "K", FL_OPTION_U64, &t->keep_checkpoints, 0, COUNT_MAX, NULL, false,
         NULL, "the newest ones that are kept (0: all)"},
        {"--resume", NULL, FL_OPTION_FLAG, &t->resume, 0, 0, NULL, false, NULL,
         "go on from the newest checkpoint in --out"},
        {"--compute", "MODE", FL_OPTION_CHOICE, &t->compute, 0, 0, "auto|f32|bf16", false, NULL,
         "number type of the products"},
        {"--quantize", "TYPE", FL_OPTION_CHOICE, &t->quantize, 0, 0, FL_LOCAL_QUANTIZE, false, NULL,
         FL_LOCAL_QUANTIZE_HELP},
        {"--threads", "N", FL_OPTION_U64, &t->threads, 0, 1024, NULL, false, NULL,
         "processors to use (0: all)"},
        FL_LOCAL_MEMORY_OPTION(&t->memory),
        {"--json", NULL, FL_OPTION_FLAG, &t->json, 0, 0, NULL, false, NULL,
         "one JSON event a line on stdout"},
    };
    return APPEND(out, count, options);
}

/* What is done with rows that are held out. */
static size_t validation_options(struct fl_train *t, struct fl_option *out, size_t count)
{
    const struct fl_option options[] = {
        {"--valid", "PATH", FL_OPTION_STRING, &t->valid, 0, 0, NULL, false, NULL,
         "rows to evaluate while training; the best adapter goes to OUT/best"},
        {"--eval-every", "N", FL_OPTION_U64, &t->eval_every, 0, COUNT_MAX, NULL, false,
         &t->has_eval_every, "steps between two evaluations (0: an epoch)"},
        {"--patience", "K", FL_OPTION_U64, &t->patience, 0, COUNT_MAX, NULL, false,
         &t->has_patience, "stop after K evaluations without improvement (0: never)"},
        {"--keep", "WHICH", FL_OPTION_CHOICE, &t->keep, 0, 0, "last|best", false, NULL,
         "the adapter in OUT itself"},
    };
    return APPEND(out, count, options);
}

/* What is trained on need not be there for --steps 0: see check_together(). */
static void free_of_data(struct fl_option *options, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(options[i].name, "--data") == 0) {
            options[i].required = false;
            options[i].doc = "JSONL, JSON, CSV or .txt file, or a directory of them (required, "
                             "but with --steps 0)";
        }
    }
}

static bool parse(struct fl_train *t, int argc, char **argv, int *exit_code)
{
    struct fl_option options[OPTIONS_MAX];
    size_t count = adapter_options(t, options, 0);
    free_of_data(options, count);
    count = step_options(t, options, count);
    count = data_options(t, options, count);
    count = validation_options(t, options, count);
    count = run_options(t, options, count);
    const struct fl_usage usage = {
        .program = PROGRAM,
        .summary = "Fine-tune a LoRA adapter on local data, without a coordinator.",
        .example = PROGRAM " --model model.gguf --data rows.jsonl --out adapter --rank 8",
        .options = options,
        .option_count = count,
    };
    return fl_cli_begin(&usage, argc, argv, exit_code);
}

static enum fl_status as_usage(struct fl_error *error)
{
    error->status = FL_EUSAGE;
    return FL_EUSAGE;
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

static enum fl_status contradiction(const struct fl_train *t, const char *option, double own,
                                    double given, struct fl_error *error)
{
    return fl_fail(error, FL_EUSAGE, "%s %.9g contradicts %s, which has %.9g", option, given,
                   t->init, own);
}

/* What an adapter that is there has decided already. */
static enum fl_status check_init_modules(const struct fl_train *t, struct fl_error *error)
{
    const struct fl_choice *c = &t->choice;
    struct fl_inventory chosen = {0};
    if (c->rank_pattern || c->alpha_pattern) {
        return fl_fail(error, FL_EUSAGE, "%s: the ranks and alphas of %s stay as they are",
                       c->rank_pattern ? "--rank-pattern" : "--alpha-pattern", t->init);
    }
    if (!t->has_targets && !c->exclude && !c->layers) {
        return FL_OK;
    }
    enum fl_status status = fl_choose_modules(fl_model_inventory(t->local.model), c, &chosen,
                                              error);
    if (status == FL_ENOMEM) {
        return status;
    }
    if (status != FL_OK) {
        return as_usage(error);
    }
    bool same = same_modules(t->local.adapter, &chosen);
    fl_inventory_free(&chosen);
    return same ? FL_OK
                : fl_fail(error, FL_EUSAGE,
                          "--targets, --exclude or --layers contradict %s: it has "
                          "other linears",
                          t->init);
}

/* An explicit option may repeat what --init-adapter says, never contradict it. */
static enum fl_status check_init(const struct fl_train *t, struct fl_error *error)
{
    const struct fl_adapter *a = t->local.adapter;
    if (t->has_rank && t->rank != a->rank) {
        return contradiction(t, "--rank", a->rank, (double)t->rank, error);
    }
    if (t->has_alpha && t->choice.alpha != a->alpha) {
        return contradiction(t, "--alpha", a->alpha, t->choice.alpha, error);
    }
    if (t->has_dropout && t->dropout != a->dropout) {
        return contradiction(t, "--dropout", a->dropout, t->dropout, error);
    }
    if (t->has_rslora && t->rslora != a->use_rslora) {
        return fl_fail(error, FL_EUSAGE, "--rslora contradicts %s", t->init);
    }
    if (t->has_dora && t->dora != a->use_dora) {
        return fl_fail(error, FL_EUSAGE, "--dora contradicts %s, which has none", t->init);
    }
    return check_init_modules(t, error);
}

static void name_base(struct fl_adapter *adapter, const char *path)
{
    if (strlen(path) >= sizeof adapter->base_model) {
        path = fl_path_base(path);
    }
    (void)snprintf(adapter->base_model, sizeof adapter->base_model, "%s", path);
}

static enum fl_status new_adapter(struct fl_train *t, struct fl_error *error)
{
    t->choice.rank = (uint32_t)t->rank;
    enum fl_status status = fl_choose_adapter(fl_model_inventory(t->local.model), &t->choice,
                                              &t->local.adapter, error);
    if (status == FL_EINVAL) {
        return as_usage(error); /* an option names something that the model lacks */
    }
    if (status == FL_OK) {
        t->local.adapter->use_rslora = t->rslora;
        t->local.adapter->dropout = t->dropout;
        fl_adapter_init(t->local.adapter, t->seed);
    }
    if (status == FL_OK && t->dora) {
        status = fl_dora_start(t->local.model, t->local.adapter, (uint32_t)t->threads, error);
    }
    return status;
}

static enum fl_status open_adapter(struct fl_train *t, struct fl_error *error)
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

/* --steps 0 (not its default, which is 0 too): the start alone is wanted. */
static bool only_starts(const struct fl_train *t)
{
    return t->has_steps && t->steps == 0;
}

/* Options that make sense together, before anything is read. */
static enum fl_status check_together(struct fl_train *t, struct fl_error *error)
{
    if (!t->data.path && !only_starts(t)) {
        return fl_fail(error, FL_EUSAGE, "--data is required");
    }
    if (only_starts(t) && (t->resume || t->valid)) {
        return fl_fail(error, FL_EUSAGE, "--steps 0 trains nothing: leave out %s",
                       t->resume ? "--resume" : "--valid");
    }
    if (t->valid && t->data.valid_split > 0.0) {
        return fl_fail(error, FL_EUSAGE, "--valid and --valid-split exclude each other");
    }
    if (t->has_steps && t->has_epochs) {
        return fl_fail(error, FL_EUSAGE, "give --steps or --epochs, not both");
    }
    return fl_local_memory_limit(t->memory, &t->memory_limit, error);
}

static enum fl_status settle_options(struct fl_train *t, struct fl_error *error)
{
    struct fl_finetune_options *o = &t->options;
    fl_finetune_defaults(o);
    o->batch_size = (uint32_t)t->batch_size;
    o->accumulate = (uint32_t)t->accumulate;
    o->steps = t->has_steps
                   ? t->steps
                   : fl_finetune_steps(t->local.count, t->batch_size * t->accumulate, t->epochs);
    if (t->eval_every == 0) {
        t->eval_every = fl_finetune_steps(t->local.count, t->batch_size * t->accumulate, 1);
    }
    o->lr = t->lr;
    o->lr_b = t->lr * t->loraplus_ratio;
    o->warmup = t->warmup;
    o->weight_decay = t->weight_decay;
    o->grad_clip = t->grad_clip;
    o->seed = t->seed;
    o->shuffle = t->shuffle;
    o->threads = (uint32_t)t->threads;
    o->compute = fl_local_compute(t->compute);
    o->memory_limit = t->memory_limit;
    enum fl_status status = fl_schedule_parse(t->schedule, &o->schedule);
    return status == FL_OK ? FL_OK : fl_fail(error, FL_EUSAGE, "--schedule %s", t->schedule);
}

/* What only rows to evaluate give a meaning: --valid, --valid-split, or the data folder's own. */
static enum fl_status check_valid(const struct fl_train *t, struct fl_error *error)
{
    const char *lonely = t->has_eval_every              ? "--eval-every"
                         : t->has_patience              ? "--patience"
                         : strcmp(t->keep, "best") == 0 ? "--keep best"
                                                        : NULL;
    if (!t->local.valid && lonely) {
        return fl_fail(error, FL_EUSAGE, "%s needs rows to evaluate: give --valid or --valid-split",
                       lonely);
    }
    return FL_OK;
}

static enum fl_status open_all(struct fl_train *t, struct fl_error *error)
{
    enum fl_status status = fl_training_check_out(t->out, t->resume, error);
    if (status == FL_OK) {
        status = fl_local_open_model(&t->local, t->model, error);
    }
    if (status == FL_OK) {
        status = fl_local_quantize(&t->local, t->quantize, t->threads, error);
    }
    if (status == FL_OK) {
        status = open_adapter(t, error);
    }
    if (only_starts(t)) {
        return status;
    }
    if (status == FL_OK) {
        t->data.split_seed = t->seed;
        status = fl_local_open_data(&t->local, t->model, &t->data, error);
    }
    if (status == FL_OK && t->valid) {
        struct fl_local_data valid = t->data;
        valid.path = t->valid;
        valid.valid_split = 0.0;
        status = fl_local_open_valid(&t->local, t->model, &valid, error);
    }
    if (status == FL_OK) {
        status = check_valid(t, error);
    }
    if (status == FL_OK) {
        status = settle_options(t, error);
    }
    return status;
}

static enum fl_status write_start(const struct fl_train *t, struct fl_error *error)
{
    struct fl_buf card;
    fl_buf_init(&card, 65536);
    fl_train_start_card(t, &card);
    enum fl_status status = fl_adapter_save(t->local.adapter, t->out, fl_buf_text(&card), error);
    fl_buf_free(&card);
    return status == FL_OK ? fl_train_tell_done(t, error) : status;
}

static enum fl_status train(struct fl_train *t, struct fl_error *error)
{
    struct fl_training training = {.stop = fl_local_stop_on_signals()};
    enum fl_status status = open_all(t, error);
    if (status != FL_OK) {
        return status;
    }
    if (only_starts(t)) {
        return write_start(t, error);
    }
    training.model = t->local.model;
    training.adapter = t->local.adapter;
    training.rows = t->local.rows;
    training.count = t->local.count;
    training.options = t->options;
    training.valid = t->local.valid;
    training.valid_count = t->local.valid_count;
    training.eval_every = t->eval_every;
    training.patience = t->patience;
    training.keep_best = strcmp(t->keep, "best") == 0;
    training.out = t->out;
    training.checkpoint_every = t->checkpoint_every;
    training.keep_checkpoints = (uint32_t)t->keep_checkpoints;
    training.resume = t->resume;
    fl_train_listen(t, &training.watch);
    fl_train_tell_start(t);
    fl_progress_start(&t->progress, "step", t->options.steps);
    status = fl_training_run(&training, &t->result, error);
    fl_progress_end(&t->progress);
    if (status == FL_OK && t->print_status != FL_OK) {
        status = fl_fail(error, t->print_status, "standard output: the events can't be written");
    }
    return status == FL_OK ? fl_train_tell_done(t, error) : status;
}

int fl_cmd_train(int argc, char **argv)
{
    struct fl_train t = {
        .rank = 8,
        .choice = {.targets = "default", .alpha = 16},
        .epochs = 1,
        .batch_size = 4,
        .accumulate = 1,
        .lr = 1e-3,
        .loraplus_ratio = 1,
        .grad_clip = 1,
        .shuffle = true,
        .schedule = "constant",
        .compute = "auto",
        .quantize = "none",
        .memory = "0",
        .keep = "last",
        .keep_checkpoints = 3,
        .data = {.specials = "plain", .loss = "completions", .chat_template = "auto"},
    };
    struct fl_error error = {0};
    int exit_code = 0;
    if (!parse(&t, argc, argv, &exit_code)) {
        return exit_code;
    }
    enum fl_status status = check_together(&t, &error);
    if (status == FL_OK) {
        status = train(&t, &error);
    }
    fl_local_close(&t.local);
    exit_code = status == FL_OK ? 0 : fl_cli_fail(PROGRAM, &error);
    if (status == FL_ESTOPPED && t.result.saved[0]) {
        fl_train_tell_resume(argc, argv);
    }
    return exit_code;
}

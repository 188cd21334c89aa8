/*
 * cmd_train_words.c - what `fedlora-worker train` says: progress and events, the adapter's card,
 * the settings that a checkpoint is held against, the command that resumes.
 */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "format/modelref.h"
#include "worker/cmd_train.h"

static double speed(uint64_t tokens, double seconds)
{
    return seconds > 0 ? (double)tokens / seconds : 0.0;
}

/* For a person: where there is no JSON, or where stderr is a terminal. */
static bool for_people(const struct fl_train *t)
{
    return !t->json || t->progress.terminal;
}

/* Print an event and release it; after the first failure nothing more is tried. */
static void event(struct fl_train *t, json_t *object)
{
    struct fl_error ignored;
    if (t->print_status == FL_OK) {
        t->print_status = fl_local_print(object, &ignored);
    } else {
        json_decref(object);
    }
}

/* What was read, before the first step; "valid" is null when nothing is held out. */
static json_t *data_event(const struct fl_train *t)
{
    const struct fl_dataset *valid = t->local.valid_data ? t->local.valid_data
                                                         : fl_dataset_valid(t->local.data);
    json_t *counts = fl_local_counts(t->local.data);
    json_t *held_out = valid ? fl_local_counts(valid) : json_null();
    json_t *whole = json_pack("{s:s}", "event", "data");
    const char *kernel, *compute = fl_compute_text(t->options.compute, &kernel);
    if (!counts || !held_out || json_object_set_new(counts, "valid", held_out) != 0 ||
        json_object_set_new(counts, "compute", json_string(compute)) != 0 ||
        json_object_set_new(counts, "kernel", json_string(kernel)) != 0 ||
        json_object_update(whole, counts) != 0) {
        json_decref(whole);
        whole = NULL;
    }
    json_decref(counts);
    return whole;
}

void fl_train_tell_start(struct fl_train *t)
{
    const struct fl_adapter *adapter = t->local.adapter;
    uint64_t trainable = fl_adapter_parameters(adapter);
    uint64_t total = fl_model_parameters(t->local.model) + trainable;
    fprintf(stderr,
            "trainable parameters: %llu of %llu (%.4f %%), %u modules; adapter size: %.2f MB\n",
            (unsigned long long)trainable, (unsigned long long)total,
            100.0 * (double)trainable / (double)total, adapter->count, 4e-6 * (double)trainable);
    const char *kernel, *compute = fl_compute_text(t->options.compute, &kernel);
    fprintf(stderr, "computing in %s with %s\n", compute, kernel);
    const struct fl_dataset_counts *counts = fl_dataset_counts(t->local.data);
    fprintf(stderr, "data: %llu rows, %llu tokens, %llu of them scored; %llu steps of %llu rows\n",
            (unsigned long long)counts->rows, (unsigned long long)counts->tokens,
            (unsigned long long)counts->scored_tokens, (unsigned long long)t->options.steps,
            (unsigned long long)(t->batch_size * t->accumulate));
    if (t->json) {
        event(t, data_event(t));
    }
}

static void on_memory(void *context, const struct fl_footprint *f)
{
    struct fl_train *t = context;
    const double mb = 1e-6;
    fprintf(stderr,
            "memory: about %.0f MB: base %.0f, adapter %.1f, optimizer %.1f, activations %.0f, "
            "program and rows %.0f; micro-batches of %u tokens, %s\n",
            mb * (double)f->total, mb * (double)f->weights, mb * (double)f->adapter,
            mb * (double)f->optimizer, mb * (double)f->activations, mb * (double)f->rest,
            f->batch_tokens, f->recompute ? "activations recomputed" : "activations kept");
    if (t->json) {
        event(t, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "event", "memory",
                           "weights_bytes", (json_int_t)f->weights, "adapter_bytes",
                           (json_int_t)f->adapter, "optimizer_bytes", (json_int_t)f->optimizer,
                           "activation_bytes", (json_int_t)f->activations, "rest_bytes",
                           (json_int_t)f->rest, "estimate_bytes", (json_int_t)f->total,
                           "limit_bytes", (json_int_t)t->memory_limit, "batch_tokens",
                           (json_int_t)f->batch_tokens, "recompute", (int)f->recompute));
    }
}

static void on_step(void *context, const struct fl_finetune_step *step)
{
    struct fl_train *t = context;
    /* of the whole run, so that the time left is right after a resume too */
    t->progress.tokens = t->result.total.tokens - step->tokens;
    t->progress.seconds = t->result.total.seconds - step->seconds;
    if (for_people(t)) {
        fl_progress_step(&t->progress, step->step, step->loss, step->tokens, step->seconds);
    }
    if (t->json) {
        event(t, json_pack("{s:s, s:I, s:f, s:I, s:I, s:f}", "event", "step", "step",
                           (json_int_t)step->step, "loss", step->loss, "tokens",
                           (json_int_t)step->tokens, "scored", (json_int_t)step->scored,
                           "tokens_per_second", speed(step->tokens, step->seconds)));
    }
}

static void on_resume(void *context, uint64_t step, const char *directory)
{
    const struct fl_train *t = context;
    if (step == 0) {
        fprintf(stderr, "no checkpoint in %s yet: beginning with the first step\n", t->out);
    } else {
        fprintf(stderr, "going on from %s\n", directory);
    }
}

static void on_validation(void *context, const struct fl_validation *so_far,
                          const struct fl_evaluation *evaluation, unsigned brought)
{
    struct fl_train *t = context;
    const bool best = brought & FL_VALIDATION_BEST;
    if (for_people(t)) {
        fl_progress_end(&t->progress);
        fprintf(stderr, "step %llu: validation loss %.4f%s\n", (unsigned long long)so_far->step,
                so_far->loss, best ? ", the best so far" : "");
    }
    if (brought & FL_VALIDATION_OVERFITS) {
        fl_progress_end(&t->progress);
        fprintf(stderr,
                "warning: the validation loss stays above its best (%.4f now, %.4f at step %llu) "
                "while the training loss fell from %.4f to %.4f: the adapter learns its rows by "
                "heart. The best one is kept; --patience stops there\n",
                so_far->loss, so_far->best_loss, (unsigned long long)so_far->best_step,
                so_far->best_train, so_far->train);
    }
    if (t->json) {
        event(t, json_pack("{s:s, s:I, s:f, s:I, s:b}", "event", "validation", "step",
                           (json_int_t)so_far->step, "loss", so_far->loss, "tokens",
                           (json_int_t)evaluation->scored, "best", (int)best));
    }
}

static void on_checkpoint(void *context, uint64_t step, const char *directory)
{
    struct fl_train *t = context;
    if (t->json) {
        event(t, json_pack("{s:s, s:I, s:s}", "event", "checkpoint", "step", (json_int_t)step,
                           "path", directory));
    }
}

static void on_trouble(void *context, const char *text)
{
    struct fl_train *t = context;
    fl_progress_end(&t->progress);
    fprintf(stderr, "warning: %s\n", text);
}

static enum fl_status set(json_t *settings, const char *key, json_t *value, struct fl_error *error)
{
    return json_object_set_new(settings, key, value) == 0 ? FL_OK : fl_fail_memory(error);
}

static enum fl_status set_count(json_t *settings, const char *key, uint64_t value,
                                struct fl_error *error)
{
    return set(settings, key, json_sprintf("%llu", (unsigned long long)value), error);
}

/* In as few digits as give the same number back. */
static enum fl_status set_real(json_t *settings, const char *key, double value,
                               struct fl_error *error)
{
    char text[40];
    double again = 0;
    (void)snprintf(text, sizeof text, "%.15g", value);
    if (fl_parse_double(text, &again) != FL_OK || again != value) {
        (void)snprintf(text, sizeof text, "%.17g", value);
    }
    return set(settings, key, json_string(text), error);
}

/* The hash of which linears are adapted, with which rank and scale. */
static enum fl_status set_modules(json_t *settings, const struct fl_adapter *adapter,
                                  struct fl_error *error)
{
    struct fl_blake2b hash;
    uint8_t digest[FL_HASH_BYTES];
    char hex[FL_HASH_HEX_BYTES];
    fl_blake2b_init(&hash, NULL, 0);
    for (uint32_t i = 0; i < adapter->count; i++) {
        char line[FL_MODULE_NAME_BYTES + 64];
        int length = snprintf(line, sizeof line, "%s %u %.17g\n", adapter->modules[i].module.name,
                              adapter->modules[i].rank, adapter->modules[i].alpha);
        fl_blake2b_update(&hash, line, (size_t)length);
    }
    fl_blake2b_final(&hash, digest);
    fl_hex(digest, sizeof digest, hex);
    return set(settings, "--targets", json_string(hex), error);
}

static enum fl_status set_model(json_t *settings, const char *path, struct fl_error *error)
{
    uint8_t manifest[FL_HASH_BYTES];
    char hex[FL_HASH_HEX_BYTES];
    enum fl_status status = fl_modelref_manifest(path, manifest, error);
    if (status != FL_OK) {
        return status;
    }
    fl_hex(manifest, sizeof manifest, hex);
    return set(settings, "--model", json_string(hex), error);
}

static enum fl_status set_adapter(json_t *settings, const struct fl_adapter *adapter,
                                  struct fl_error *error)
{
    enum fl_status status = set_count(settings, "--rank", adapter->rank, error);
    if (status == FL_OK) {
        status = set_real(settings, "--alpha", adapter->alpha, error);
    }
    if (status == FL_OK) {
        status = set_real(settings, "--dropout", adapter->dropout, error);
    }
    if (status == FL_OK) {
        status = set(settings, "--rslora", json_string(adapter->use_rslora ? "on" : "off"), error);
    }
    if (status == FL_OK && adapter->use_dora) {
        status = set(settings, "--dora", json_string("on"), error);
    }
    return status == FL_OK ? set_modules(settings, adapter, error) : status;
}

static enum fl_status identify(void *context, json_t *settings, struct fl_error *error)
{
    const struct fl_train *t = context;
    const struct fl_finetune_options *o = &t->options;
    const struct {
        const char *key;
        uint64_t value;
    } counts[] = {{"--steps", o->steps},
                  {"--batch-size", o->batch_size},
                  {"--grad-accum", o->accumulate},
                  {"--warmup", o->warmup},
                  {"--seed", o->seed},
                  {"--eval-every", t->local.valid ? t->eval_every : 0},
                  {"--patience", t->patience}};
    const struct {
        const char *key;
        double value;
    } reals[] = {{"--lr", o->lr},
                 {"--loraplus-ratio", t->loraplus_ratio},
                 {"--weight-decay", o->weight_decay},
                 {"--grad-clip", o->grad_clip}};
    enum fl_status status = set_adapter(settings, t->local.adapter, error);
    for (size_t i = 0; status == FL_OK && i < sizeof counts / sizeof counts[0]; i++) {
        status = set_count(settings, counts[i].key, counts[i].value, error);
    }
    for (size_t i = 0; status == FL_OK && i < sizeof reals / sizeof reals[0]; i++) {
        status = set_real(settings, reals[i].key, reals[i].value, error);
    }
    if (status == FL_OK) {
        status = set(settings, "--schedule", json_string(t->schedule), error);
    }
    if (status == FL_OK) {
        status = set(settings, "--shuffle", json_string(o->shuffle ? "on" : "off"), error);
    }
    if (status == FL_OK) {
        status = set(settings, "--quantize", json_string(t->quantize), error);
    }
    if (status == FL_OK) {
        status = set(settings, "--compute", json_string(t->result.total.compute), error);
    }
    return status == FL_OK ? set_model(settings, t->model, error) : status;
}

static enum fl_status print_done(const struct fl_train *t, struct fl_error *error)
{
    const struct fl_finetune_result *r = &t->result.total;
    const struct fl_validation *v = &t->result.validation;
    json_t *done = json_pack("{s:s, s:I, s:f, s:I, s:f, s:I}", "event", "done", "steps",
                             (json_int_t)r->steps, "loss", r->loss, "tokens", (json_int_t)r->tokens,
                             "tokens_per_second", speed(r->tokens, r->seconds), "peak_rss_bytes",
                             (json_int_t)fl_local_peak_rss_bytes());
    if (done && v->evaluations > 0) {
        json_t *more = json_pack("{s:f, s:f, s:I, s:b}", "validation_loss", v->loss, "best_loss",
                                 v->best_loss, "best_step", (json_int_t)v->best_step,
                                 "stopped_early", (int)t->result.early);
        if (!more || json_object_update(done, more) != 0) {
            json_decref(done);
            done = NULL;
        }
        json_decref(more);
    }
    return fl_local_print(done, error);
}

enum fl_status fl_train_tell_done(const struct fl_train *t, struct fl_error *error)
{
    const struct fl_finetune_result *r = &t->result.total;
    const struct fl_validation *v = &t->result.validation;
    if (t->json && t->options.steps == 0) {
        return fl_local_print(json_pack("{s:s, s:i}", "event", "done", "steps", 0), error);
    }
    if (t->json) {
        return print_done(t, error);
    }
    if (t->options.steps == 0) {
        fprintf(stderr, "adapter, not trained yet: %s\n", t->out);
        return FL_OK;
    }
    if (t->result.early) {
        fprintf(stderr, "stopped early: no improvement in %llu evaluations\n",
                (unsigned long long)v->stale);
    }
    fprintf(stderr, "%llu steps, loss %.4f, %.0f tokens/s (%s), peak memory %.0f MB\n",
            (unsigned long long)r->steps, r->loss, speed(r->tokens, r->seconds), r->compute,
            1e-6 * (double)fl_local_peak_rss_bytes());
    if (v->evaluations > 0) {
        fprintf(stderr, "best validation loss %.4f at step %llu: %s%s\n", v->best_loss,
                (unsigned long long)v->best_step, t->out,
                strcmp(t->keep, "best") == 0 ? "" : "/best");
    }
    fprintf(stderr, "adapter: %s\n", t->out);
    return FL_OK;
}

/* The rows of the report: what a person who reads it later would ask. */
static enum fl_status describe(void *context, json_t *facts, struct fl_error *error)
{
    const struct fl_train *t = context;
    const struct fl_adapter *a = t->local.adapter;
    const struct fl_finetune_options *o = &t->options;
    const struct fl_dataset_counts *rows = fl_dataset_counts(t->local.data);
    const struct {
        const char *key;
        json_t *value;
    } all[] = {
        {"base model", json_sprintf("%s", a->base_model)},
        {"rows", json_sprintf("%llu, with %llu tokens", (unsigned long long)rows->rows,
                              (unsigned long long)rows->tokens)},
        {"rows a step", json_sprintf("%llu", (unsigned long long)(t->batch_size * t->accumulate))},
        {"adapter",
         json_sprintf("rank %u, alpha %.9g%s%s, %u modules, %llu parameters", a->rank, a->alpha,
                      a->use_rslora ? " (rsLoRA)" : "", a->use_dora ? " (DoRA)" : "", a->count,
                      (unsigned long long)fl_adapter_parameters(a))},
        {"dropout", json_sprintf("%.9g", a->dropout)},
        {"learning rate",
         json_sprintf("%.9g, %s, warm-up %llu", o->lr, t->schedule, (unsigned long long)o->warmup)},
        {"learning rate of B over A", json_sprintf("%.9g", t->loraplus_ratio)},
        {"weight decay", json_sprintf("%.9g", o->weight_decay)},
        {"gradient clip", json_sprintf("%.9g", o->grad_clip)},
        {"seed", json_sprintf("%llu", (unsigned long long)o->seed)},
        {"base quantized to", json_string(t->quantize)},
        {"computed in",
         json_sprintf("%s on %u threads", t->result.total.compute, t->result.total.threads)},
        {"fedlora", json_sprintf("%s", FL_VERSION)},
    };
    enum fl_status status = FL_OK;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (json_object_set_new(facts, all[i].key, all[i].value) != 0) {
            status = fl_fail_memory(error);
        }
    }
    return status;
}

/* README.md of the adapter: how it came about, without a word about the data. */
static void card_head(const struct fl_train *t, const char *what, struct fl_buf *card)
{
    const struct fl_adapter *a = t->local.adapter;
    fl_buf_printf(card,
                  "---\nbase_model: %s\nlibrary_name: peft\n"
                  "pipeline_tag: text-generation\ntags:\n- lora\n- fedlora\n---\n\n",
                  a->base_model);
    fl_buf_printf(card, "# LoRA adapter\n\n%s by fedlora %s.\n\n", what, FL_VERSION);
    fl_buf_printf(card, "| setting | value |\n|---|---|\n| rank | %u |\n| alpha | %.9g |\n",
                  a->rank, a->alpha);
    if (a->use_dora) {
        fl_buf_printf(card, "| DoRA | magnitudes are trained too |\n");
    }
    fl_buf_printf(card, "| modules | %u |\n| trainable parameters | %llu |\n", a->count,
                  (unsigned long long)fl_adapter_parameters(a));
}

void fl_train_start_card(const struct fl_train *self, struct fl_buf *card)
{
    card_head(self, "Made, not trained yet,", card);
    fl_buf_printf(card, "| steps | 0 |\n| seed | %llu |\n", (unsigned long long)self->seed);
}

static void write_card(void *context, const struct fl_finetune_result *total,
                       const struct fl_validation *validation, bool best, struct fl_buf *card)
{
    const struct fl_train *t = context;
    const struct fl_finetune_options *o = &t->options;
    card_head(t, "Trained", card);
    fl_buf_printf(card, "| steps | %llu of %llu |\n| rows a step | %llu |\n",
                  (unsigned long long)(best ? validation->best_step : total->steps),
                  (unsigned long long)o->steps,
                  (unsigned long long)(t->batch_size * t->accumulate));
    fl_buf_printf(card, "| learning rate | %.9g, %s, warm-up %llu |\n| weight decay | %.9g |\n",
                  o->lr, t->schedule, (unsigned long long)o->warmup, o->weight_decay);
    fl_buf_printf(card, "| gradient clip | %.9g |\n| seed | %llu |\n", o->grad_clip,
                  (unsigned long long)o->seed);
    if (strcmp(t->quantize, "none") != 0) {
        fl_buf_printf(card, "| base quantized to | %s |\n", t->quantize);
    }
    fl_buf_printf(card, "| compute | %s |\n", total->compute);
    if (best) {
        fl_buf_printf(card, "| validation loss, the best of the run | %.6g |\n",
                      validation->best_loss);
        return;
    }
    fl_buf_printf(card, "| loss of the last step | %.6g |\n", total->loss);
    if (validation->evaluations > 0) {
        fl_buf_printf(card, "| validation loss | %.6g, at step %llu |\n", validation->loss,
                      (unsigned long long)validation->step);
    }
}

void fl_train_listen(struct fl_train *self, struct fl_training_watch *watch)
{
    *watch = (struct fl_training_watch){.context = self,
                                        .on_memory = on_memory,
                                        .on_resume = on_resume,
                                        .on_step = on_step,
                                        .on_validation = on_validation,
                                        .on_checkpoint = on_checkpoint,
                                        .on_trouble = on_trouble,
                                        .identify = identify,
                                        .describe = describe,
                                        .card = write_card};
}

/* One word as a POSIX shell reads it back. */
static void print_word(const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-./:=,+@%";
    if (word[0] && word[strspn(word, plain)] == '\0') {
        fprintf(stderr, " %s", word);
        return;
    }
    fputs(" '", stderr);
    for (; *word; word++) {
        if (*word == '\'') {
            fputs("'\\''", stderr);
        } else {
            fputc(*word, stderr);
        }
    }
    fputc('\'', stderr);
}

void fl_train_tell_resume(int argc, char **argv)
{
    bool resumed = false;
    fputs("go on with: " FL_TRAIN_PROGRAM, stderr);
    for (int i = 1; i < argc; i++) {
        resumed = resumed || strcmp(argv[i], "--resume") == 0;
        print_word(argv[i]);
    }
    fputs(resumed ? "\n" : " --resume\n", stderr);
}

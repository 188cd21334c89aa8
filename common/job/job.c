/*
 * job.c - see job.h. The table below is the one place that knows a job file's keys.
 */
#include "job/job.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "adapter/algebra.h"
#include "base/alloc.h"
#include "base/fs.h"
#include "base/name.h"

#define JOB_FILE_BYTES     (1u << 20)
#define SECURE_WORKERS_MIN 3
#define SECOND             1000.0
#define DAY                (86400.0 * SECOND)

#define TEXT(section, key, member, fallback, doc)                                                  \
    {                                                                                              \
        section, key, FL_CONFIG_STRING, offsetof(struct fl_job_spec, member),                      \
            sizeof(((struct fl_job_spec *)0)->member), 0, 0, NULL, fallback, doc                   \
    }
#define WHOLE(section, key, member, low, high, fallback, doc)                                      \
    {                                                                                              \
        section, key, FL_CONFIG_U64, offsetof(struct fl_job_spec, member), 0, low, high, NULL,     \
            fallback, doc                                                                          \
    }
#define NUMBER(section, key, member, low, high, fallback, doc)                                     \
    {                                                                                              \
        section, key, FL_CONFIG_DOUBLE, offsetof(struct fl_job_spec, member), 0, low, high, NULL,  \
            fallback, doc                                                                          \
    }
#define TIME(section, key, member, low, high, fallback, doc)                                       \
    {                                                                                              \
        section, key, FL_CONFIG_DURATION, offsetof(struct fl_job_spec, member), 0, low, high,      \
            NULL, fallback, doc                                                                    \
    }
#define CHOICE(section, key, member, choices, fallback, doc)                                       \
    {                                                                                              \
        section, key, FL_CONFIG_CHOICE, offsetof(struct fl_job_spec, member), 0, 0, 0, choices,    \
            fallback, doc                                                                          \
    }
#define SWITCH(section, key, member, fallback, doc)                                                \
    {                                                                                              \
        section, key, FL_CONFIG_BOOL, offsetof(struct fl_job_spec, member), 0, 0, 0, NULL,         \
            fallback, doc                                                                          \
    }
#define RULE(key, doc)                                                                             \
    {                                                                                              \
        "ranks", key, FL_CONFIG_PATTERN, offsetof(struct fl_job_spec, ranks), 0, 0, 0, NULL, NULL, \
            doc                                                                                    \
    }

static const struct fl_config_key keys[] = {
    TEXT("job", "name", name, NULL, "Name of the job: letters, digits, '.', '_' and '-'."),
    WHOLE("job", "rounds", rounds, 1, 100000, "4", "Rounds of training and averaging."),
    CHOICE("job", "strategy", strategy, FL_STRATEGY_CHOICES, "alternating",
           "How the sites' updates become one adapter; the last three are not in this version."),
    WHOLE("job", "seed", seed, 0, 0, "0", "Fixes the adapter's start and each site's data order."),

    TEXT("model", "name", model, NULL, "The base model's name in each site's worker.conf."),
    TEXT("model", "sha256", model_sha256, NULL,
         "Its manifest hash; 'fedlora-worker inspect' prints it."),

    TEXT("lora", "targets", targets, "default",
         "Linears that get an adapter, comma-separated, or all-linear; default: those that PEFT "
         "takes (q_proj,v_proj; c_attn of GPT-2)."),
    NUMBER("lora", "alpha", alpha, 1e-6, 1e6, "16",
           "The adapter's scale is alpha / [ranks] default, for every site, layer and round."),
    NUMBER("lora", "dropout", dropout, 0, 0.95, "0",
           "Share of the adapter's input dropped while training."),
    SWITCH("lora", "dora", dora, "off",
           "DoRA: also a magnitude for each row of the adapted linears; with fedit, ffa or rolora, "
           "one rank, and a start that has them ('fedlora-worker train --dora --steps 0')."),
    TEXT("lora", "start", start, "",
         "Adapter to begin with: JOB@VERSION or a PEFT directory; empty: a fresh one."),

    WHOLE("ranks", "default", ranks.fallback, 1, FL_RANK_MAX, "8", "Rank where no entry matches."),
    RULE("round.*", "round.N or round.N-M = rank in these rounds; the smallest match counts."),
    RULE("worker.*", "worker.NAME = rank of this site."),
    RULE("layers.*", "layers.A-B = rank in these layers, both ends included, from 0."),

    WHOLE("train", "steps", steps, 1, 1000000, "20", "Optimizer steps of each site in a round."),
    WHOLE("train", "batch_size", batch_size, 1, 65536, "4", "Rows of a step."),
    WHOLE("train", "seq_len", seq_len, 2, FL_SEQ_MAX, "256", "Tokens of a row at most."),
    NUMBER("train", "lr", lr, 1e-12, 1000, "1e-3", "Learning rate."),
    NUMBER("train", "lr_a", lr_a, 0, 1000, "0", "Learning rate while A is trained; 0: lr."),
    NUMBER("train", "lr_b", lr_b, 0, 1000, "0", "Learning rate while B is trained; 0: lr."),
    CHOICE("train", "optimizer", optimizer, "adamw|sgd", "adamw", "Optimizer at the sites."),
    CHOICE("train", "schedule", schedule, "constant|linear|cosine", "constant",
           "How the learning rate falls over the whole job."),
    WHOLE("train", "warmup", warmup, 0, 1000000000, "0",
          "Steps, counted over the whole job, in which the learning rate rises from 0."),
    NUMBER("train", "weight_decay", weight_decay, 0, 10, "0", "Decoupled weight decay."),
    NUMBER("train", "grad_clip", grad_clip, 0, 1e6, "1", "Largest gradient norm; 0: no limit."),
    SWITCH("train", "shuffle", shuffle, "on", "Shuffle each site's rows in every epoch."),
    CHOICE("train", "compute", compute, "auto|f32|bf16", "auto", "Arithmetic at the sites."),
    WHOLE("train", "threads", threads, 0, 1024, "0", "Threads of a site; 0: the site decides."),

    WHOLE("cohort", "min_workers", min_workers, 1, FL_WORKERS_MAX, "3",
          "Sites without which a round does not begin."),
    WHOLE("cohort", "weight_cap", weight_cap, 1, 1e12, "1000000",
          "Scored tokens beyond which a site's weight in a round no longer grows."),
    TIME("cohort", "select_timeout", select_timeout, 100, DAY, "60s",
         "How long a round waits for further sites once min_workers are there."),
    TIME("cohort", "round_timeout", round_timeout, SECOND, 30 * DAY, "30m",
         "How long a round's training may take."),
    TIME("cohort", "liveness_timeout", liveness_timeout, 500, DAY, "30s",
         "Silence after which a site counts as gone."),
    TIME("cohort", "wait_timeout", wait_timeout, SECOND, 365 * DAY, "7d",
         "How long the job waits for min_workers sites before it gives up."),

    SWITCH("privacy", "secure_aggregation", secure_aggregation, "on",
           "Mask the updates, so that the coordinator learns their sum only."),
    TEXT("privacy", "update_range", update_range_text, "auto",
         "Largest change of one value in a round: auto, or a number."),
    NUMBER("privacy", "clip_norm", clip_norm, 0, 1e9, "0",
           "Largest L2 norm of a site's update; 0: no limit."),

    WHOLE("evaluate", "every", eval_every, 0, 100000, "1",
          "Sites evaluate the adapter in every so many rounds; 0: never."),
    WHOLE("evaluate", "rows", eval_rows, 1, 1000000, "64", "Held-out rows of a site at most."),
};

static enum fl_status take_rank(void *context, const char *section, const char *key,
                                const char *value, struct fl_error *error)
{
    (void)section; /* only [ranks] has patterns */
    return fl_rank_schedule_add(context, key, value, error);
}

static const struct fl_config_table table = {keys, sizeof keys / sizeof keys[0], take_rank};

const struct fl_config_table *fl_job_table(void)
{
    return &table;
}

/* ---- checks across fields ---- */

static enum fl_status check_names(struct fl_job_spec *spec, struct fl_error *error)
{
    uint8_t hash[FL_HASH_BYTES];

    if (!fl_name_is_valid(spec->name))
        return fl_fail(error, FL_EFORMAT,
                       "[job] name = '%s': use letters, digits, '.', '_' and '-'", spec->name);
    if (!fl_name_is_valid(spec->model))
        return fl_fail(error, FL_EFORMAT,
                       "[model] name = '%s': use letters, digits, '.', '_' and '-'", spec->model);
    if (fl_unhex(spec->model_sha256, hash, sizeof hash) != FL_OK)
        return fl_fail(error, FL_EFORMAT,
                       "[model] sha256 must be 64 hexadecimal digits; 'fedlora-worker inspect "
                       "MODEL' prints them");
    fl_hex(hash, sizeof hash, spec->model_sha256); /* lower case */
    if (spec->targets[0] == '\0')
        return fl_fail(error, FL_EFORMAT, "[lora] targets is empty");
    return FL_OK;
}

static enum fl_status check_training(struct fl_job_spec *spec, struct fl_error *error)
{
    spec->update_range = 0.0;
    if (strcmp(spec->update_range_text, "auto") != 0) {
        double range = 0.0;
        if (fl_parse_double(spec->update_range_text, &range) != FL_OK || !(range > 0.0) ||
            range > 1e6)
            return fl_fail(error, FL_EFORMAT,
                           "[privacy] update_range = '%s': use auto, or a number above 0",
                           spec->update_range_text);
        spec->update_range = range;
        snprintf(spec->update_range_text, sizeof spec->update_range_text, "%.17g", range);
    }
    if (spec->update_range == 0.0 && spec->optimizer == FL_RULE_SGD && spec->grad_clip == 0.0)
        return fl_fail(error, FL_EFORMAT,
                       "[privacy] update_range = auto with optimizer = sgd needs [train] "
                       "grad_clip > 0: set one of them");
    if (spec->warmup > spec->rounds * spec->steps)
        return fl_fail(error, FL_EFORMAT, "[train] warmup = %llu exceeds the job's %llu steps",
                       (unsigned long long)spec->warmup,
                       (unsigned long long)(spec->rounds * spec->steps));
    return FL_OK;
}

static enum fl_status check_secure(const struct fl_job_spec *spec, struct fl_error *error)
{
    if (!spec->secure_aggregation)
        return FL_OK;
    if (spec->min_workers < SECURE_WORKERS_MIN)
        return fl_fail(error, FL_EREFUSED,
                       "[cohort] min_workers = %llu: secure aggregation needs at least %d sites",
                       (unsigned long long)spec->min_workers, SECURE_WORKERS_MIN);
    if (spec->min_workers > FL_COHORT_MAX)
        return fl_fail(error, FL_EREFUSED,
                       "[cohort] min_workers = %llu: secure aggregation takes at most %d sites",
                       (unsigned long long)spec->min_workers, FL_COHORT_MAX);
    enum fl_status status = fl_rank_schedule_check_tiers(&spec->ranks, (uint32_t)spec->rounds,
                                                         (uint32_t)spec->min_workers,
                                                         SECURE_WORKERS_MIN, error);
    if (status != FL_OK)
        return status;
    return FL_OK;
}

static enum fl_status check_strategy(const struct fl_job_spec *spec, struct fl_error *error)
{
    const struct fl_strategy_info *info = fl_strategy_info((enum fl_strategy)spec->strategy);
    uint32_t round = 0;

    if (info->needs_single && spec->secure_aggregation)
        return fl_fail(error, FL_EREFUSED,
                       "[job] strategy = %s needs every site's own matrices, which secure "
                       "aggregation hides: use alternating%s",
                       info->name, info->built ? ", or set secure_aggregation = off" : "");
    if (!info->built)
        return fl_fail(error, FL_EREFUSED,
                       "[job] strategy = %s is not in this version; it has alternating, rolora, "
                       "ffa and fedit",
                       info->name);
    if (!info->refactors && fl_rank_schedule_shrinks(&spec->ranks, (uint32_t)spec->rounds, &round))
        return fl_fail(error, FL_EREFUSED,
                       "[ranks] shrinks in round %u, which strategy = %s cannot do without losing "
                       "directions at random: use alternating",
                       round, info->name);
    return FL_OK;
}

/* Behind a colon: the command whose adapter such a job can begin with. */
static enum fl_status refuse_start(const struct fl_job_spec *spec, const char *what,
                                   const char *why, struct fl_error *error)
{
    return fl_fail(error, FL_EREFUSED,
                   "[lora] dora = on: start%s%s %s; where the model is, this makes one: "
                   "fedlora-worker train --model MODEL --dora --steps 0 --rank %llu --alpha %.9g "
                   "--out START --targets \"%s\"",
                   what[0] ? " " : "", what, why, (unsigned long long)spec->ranks.fallback,
                   spec->alpha, spec->targets);
}

static enum fl_status check_dora(const struct fl_job_spec *spec, struct fl_error *error)
{
    const struct fl_strategy_info *info = fl_strategy_info((enum fl_strategy)spec->strategy);

    if (!spec->dora)
        return FL_OK;
    if (info->refactors)
        return fl_fail(error, FL_EREFUSED,
                       "[lora] dora = on: strategy = %s re-factors B A between rounds, and no "
                       "magnitudes with it: use fedit, ffa or rolora",
                       info->name);
    if (spec->ranks.count > 0)
        return fl_fail(error, FL_EREFUSED,
                       "[lora] dora = on: magnitudes belong to all directions together, so every "
                       "site, layer and round has one rank: leave [ranks] default alone");
    if (spec->start[0] == '\0')
        return refuse_start(spec, "", "must name an adapter that has the rows' magnitudes", error);
    return FL_OK;
}

enum fl_status fl_job_check(struct fl_job_spec *spec, struct fl_error *error)
{
    enum fl_status status = check_names(spec, error);

    if (status == FL_OK)
        status = check_training(spec, error);
    if (status == FL_OK)
        status = check_dora(spec, error);
    if (status == FL_OK)
        status = check_strategy(spec, error);
    if (status == FL_OK)
        status = check_secure(spec, error);
    return status;
}

enum fl_status fl_job_parse(const char *text, size_t length, const char *what,
                            struct fl_job_spec *out, struct fl_error *error)
{
    enum fl_status status;

    memset(out, 0, sizeof *out);
    status = fl_config_parse(&table, text, length, what, out, &out->ranks, error);
    if (status != FL_OK)
        return status;
    status = fl_job_check(out, error);
    if (status != FL_OK)
        fl_error_prefix(error, "%s", what);
    return status;
}

enum fl_status fl_job_load(const char *path, struct fl_job_spec *out, struct fl_error *error)
{
    struct fl_buf text;
    enum fl_status status = fl_fs_read(path, JOB_FILE_BYTES, &text, error);

    if (status == FL_OK)
        status = fl_job_parse(fl_buf_text(&text), text.length, path, out, error);
    fl_buf_free(&text);
    return status;
}

/* ---- the canonical text ---- */

static void print_choice(const char *choices, int index, struct fl_buf *out)
{
    const char *end;

    for (; index > 0; index--)
        choices = strchr(choices, '|') + 1;
    end = strchr(choices, '|');
    fl_buf_append(out, choices, end == NULL ? strlen(choices) : (size_t)(end - choices));
}

static void print_value(const struct fl_config_key *key, const void *member, struct fl_buf *out)
{
    switch (key->kind) {
    case FL_CONFIG_STRING:
        fl_buf_printf(out, "%s", (const char *)member);
        break;
    case FL_CONFIG_U64:
        fl_buf_printf(out, "%llu", (unsigned long long)*(const uint64_t *)member);
        break;
    case FL_CONFIG_DOUBLE:
        fl_buf_printf(out, "%.17g", *(const double *)member);
        break;
    case FL_CONFIG_BOOL:
        fl_buf_printf(out, "%s", *(const bool *)member ? "on" : "off");
        break;
    case FL_CONFIG_DURATION:
        fl_buf_printf(out, "%lldms", (long long)*(const int64_t *)member);
        break;
    case FL_CONFIG_CHOICE:
        print_choice(key->choices, *(const int *)member, out);
        break;
    case FL_CONFIG_PATTERN:
        break; /* the rules are printed together */
    }
}

enum fl_status fl_job_print(const struct fl_job_spec *spec, struct fl_buf *out)
{
    const char *section = "";

    for (size_t i = 0; i < table.count; i++) {
        const struct fl_config_key *key = &keys[i];
        const char *member = (const char *)spec + key->offset;

        if (key->kind == FL_CONFIG_PATTERN || (key->kind == FL_CONFIG_STRING && member[0] == '\0'))
            continue;
        if (strcmp(key->section, section) != 0)
            fl_buf_printf(out, "[%s]\n", key->section);
        section = key->section;
        fl_buf_printf(out, "%s = ", key->key);
        print_value(key, member, out);
        fl_buf_append(out, "\n", 1);
        if (member == (const char *)&spec->ranks.fallback)
            fl_rank_schedule_print(&spec->ranks, out);
    }
    return fl_buf_status(out);
}

enum fl_status fl_job_sha256(const struct fl_job_spec *spec, uint8_t out[FL_HASH_BYTES])
{
    struct fl_buf text;
    enum fl_status status;

    fl_buf_init(&text, FL_JOB_TEXT_MAX);
    status = fl_job_print(spec, &text);
    if (status == FL_OK)
        fl_sha256(text.data, text.length, out);
    fl_buf_free(&text);
    return status;
}

/* Lines of the generated sample that an example says better, in the sample's order. */
static const char *const examples[][2] = {
    {"name = ", "name = my-job"},           {"name = ", "name = my-model"},
    {";round.NAME = ", ";round.1 = 4"},     {";worker.NAME = ", ";worker.small-clinic = 4"},
    {";layers.NAME = ", ";layers.0-5 = 4"},
};

void fl_job_template(struct fl_buf *out)
{
    struct fl_buf sample;
    size_t example = 0;

    fl_buf_init(&sample, out->maximum);
    fl_config_sample(&table, &sample);
    out->status = out->status == FL_OK ? fl_buf_status(&sample) : out->status;
    for (const char *line = fl_buf_text(&sample); *line != '\0';) {
        const char *end = strchr(line, '\n');
        size_t length = end == NULL ? strlen(line) : (size_t)(end - line);
        bool better = example < sizeof examples / sizeof examples[0] &&
                      strlen(examples[example][0]) == length &&
                      memcmp(line, examples[example][0], length) == 0;

        fl_buf_printf(out, "%.*s\n", (int)(better ? strlen(examples[example][1]) : length),
                      better ? examples[example][1] : line);
        example += better;
        line += length + (end != NULL);
    }
    fl_buf_free(&sample);
}

/* ---- what a round needs ---- */

/* Would the job's targets, of these modules, choose all? Others of the model are not known here. */
static enum fl_status has_targets(const struct fl_job_spec *spec, const struct fl_adapter *start,
                                  bool *out, struct fl_error *error)
{
    struct fl_inventory chosen = {0},
                        own = {.modules = fl_calloc(start->count, sizeof *own.modules),
                               .count = start->count};
    enum fl_status status = own.modules == NULL ? fl_fail_memory(error) : FL_OK;

    *out = false;
    for (uint32_t m = 0; status == FL_OK && m < start->count; m++)
        own.modules[m] = start->modules[m].module;
    if (status == FL_OK)
        status = fl_inventory_select(&own, spec->targets, &chosen, error);
    *out = status == FL_OK && chosen.count == start->count;
    fl_inventory_free(&chosen);
    fl_free(own.modules);
    return status == FL_EINVAL ? FL_OK : status;
}

/* The magnitudes are those of W + s B A, with the s and the directions of all modules. */
static const char *unlike(const struct fl_job_spec *spec, const struct fl_adapter *start)
{
    const double scale = spec->alpha / (double)spec->ranks.fallback;

    if (!start->use_dora)
        return "has no magnitudes";
    for (uint32_t i = 0; i < start->count; i++) {
        const struct fl_lora_module *m = &start->modules[i];
        uint32_t least = m->module.in < m->module.out ? m->module.in : m->module.out;
        if (m->rank != fl_rank_of(&spec->ranks, 1, NULL, m->module.layer, least))
            return "has another rank than the job";
        if (fabs(fl_adapter_scale(start, i) - scale) > 1e-6 * scale)
            return "has another alpha or scale than the job";
    }
    return NULL;
}

enum fl_status fl_job_check_start(const struct fl_job_spec *spec, const struct fl_adapter *start,
                                  const char *what, struct fl_error *error)
{
    bool same = false;

    if (!spec->dora && start->use_dora)
        return fl_fail(error, FL_EFORMAT,
                       "%s is an adapter of DoRA: set [lora] dora = on, or begin with another",
                       what);
    if (!spec->dora)
        return FL_OK;
    const char *why = unlike(spec, start);
    enum fl_status status = has_targets(spec, start, &same, error);
    if (status != FL_OK)
        return status;
    if (why == NULL && !same)
        why = "has other modules than the job's targets";
    return why == NULL ? FL_OK : refuse_start(spec, what, why, error);
}

enum fl_factors fl_job_trains(const struct fl_job_spec *spec, uint32_t round)
{
    enum fl_factors factors = fl_strategy_factors((enum fl_strategy)spec->strategy, round);
    return spec->dora ? factors | FL_FACTOR_M : factors;
}

double fl_job_lr(const struct fl_job_spec *spec, enum fl_factors factor)
{
    double own = factor == FL_FACTOR_A ? spec->lr_a : spec->lr_b;
    return own > 0.0 ? own : spec->lr;
}

enum fl_status fl_job_range(const struct fl_job_spec *spec, enum fl_factors factor,
                            const struct fl_adapter *start, double *out, struct fl_error *error)
{
    if (spec->update_range > 0.0) {
        *out = spec->update_range;
        return FL_OK;
    }
    return fl_auto_range((enum fl_update_rule)spec->optimizer, fl_job_lr(spec, factor), spec->steps,
                         spec->weight_decay, spec->grad_clip, fl_adapter_max_abs(start, factor),
                         out, error);
}

enum fl_status fl_job_grid(const struct fl_job_spec *spec, uint32_t sites, struct fl_grid *out)
{
    return fl_grid_init(out, sites, spec->weight_cap, spec->steps, spec->batch_size, spec->seq_len);
}

/* cmd_adapters.c - fedlora-coordinator adapters list | export | rollback */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "coordinator/commands.h"
#include "coordinator/registry.h"

static const char *directory;
static bool as_json, job_given, version_given;
static uint64_t job_number, version_number;

#define DIR_OPTION                                                                                 \
    {                                                                                              \
        .name = "--dir", .value = "DIR", .kind = FL_OPTION_STRING, .target = &directory,           \
        .required = true, .doc = "the coordinator's directory"                                     \
    }
#define JOB_OPTION                                                                                 \
    {                                                                                              \
        .name = "--job", .value = "ID", .kind = FL_OPTION_U64, .target = &job_number,              \
        .given = &job_given, .doc = "the job (default: the newest)"                                \
    }

static void print_version(const json_t *v)
{
    const json_t *loss = json_object_get(v, "eval_loss");
    (void)printf(
        "job %lld version %lld  %-12s rank %lld  %lld workers  %s  ",
        (long long)json_integer_value(json_object_get(v, "job")),
        (long long)json_integer_value(json_object_get(v, "version")), fl_member_text(v, "strategy"),
        (long long)json_integer_value(json_object_get(v, "rank")),
        (long long)json_integer_value(json_object_get(v, "workers")), fl_member_text(v, "created"));
    if (json_is_real(loss))
        (void)printf("held-out loss %.4f  ", json_real_value(loss));
    (void)printf("%.16s%s\n", fl_member_text(v, "sha256"),
                 json_is_true(json_object_get(v, "current")) ? "  current" : "");
}

static int list(int argc, char **argv)
{
    int code;
    size_t i;
    const json_t *version;
    const struct fl_option options[] = {
        DIR_OPTION,
        {.name = "--job",
         .value = "ID",
         .kind = FL_OPTION_U64,
         .target = &job_number,
         .doc = "only of this job"},
        {.name = "--json", .kind = FL_OPTION_FLAG, .target = &as_json, .doc = "print JSON lines"}};
    const struct fl_usage usage = {.program = FL_PROGRAM " adapters list",
                                   .summary = "The versions of the global adapters.",
                                   .options = options,
                                   .option_count = sizeof options / sizeof options[0]};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    json_t *answer = fl_ask(
        directory,
        json_pack("{s:s, s:I}", "command", "adapters.list", "job", (json_int_t)job_number), &code);
    if (!answer)
        return code;
    if (as_json)
        code = fl_print_lines(json_object_get(answer, "versions"));
    else
        json_array_foreach(json_object_get(answer, "versions"), i, version) print_version(version);
    json_decref(answer);
    return code;
}

/* ---- export ---- */

static enum fl_status read_inventory(const json_t *answer, struct fl_inventory *out,
                                     struct fl_error *error)
{
    const char *text = json_string_value(json_object_get(answer, "inventory"));
    size_t length = text ? strlen(text) : 0, used = 0;
    uint8_t *bytes = fl_malloc(length);
    if (!bytes)
        return fl_fail_memory(error);
    enum fl_status status = text && sodium_base642bin(bytes, length, text, length, NULL, &used,
                                                      NULL, sodium_base64_VARIANT_ORIGINAL) == 0
                                ? fl_inventory_decode(bytes, used, out, error)
                                : fl_fail(error, FL_EFORMAT,
                                          "the coordinator's answer has no inventory");
    fl_free(bytes);
    return status;
}

static enum fl_status read_ranks(const json_t *answer, uint32_t count, uint16_t **out,
                                 struct fl_error *error)
{
    const json_t *list = json_object_get(answer, "ranks");
    if (json_array_size(list) != count)
        return fl_fail(error, FL_EFORMAT, "the version has another number of modules");
    *out = fl_calloc(count, sizeof **out);
    if (!*out)
        return fl_fail_memory(error);
    for (uint32_t i = 0; i < count; i++)
        (*out)[i] = (uint16_t)json_integer_value(json_array_get(list, i));
    return FL_OK;
}

static void write_card(const json_t *answer, const struct fl_job_spec *spec, struct fl_buf *card)
{
    const json_t *v = json_object_get(answer, "version");
    const json_t *loss = json_object_get(v, "eval_loss");
    fl_buf_printf(card,
                  "---\nbase_model: %s\nlibrary_name: peft\ntags:\n- lora\n"
                  "- federated-learning\n---\n\n# %s\n\n"
                  "A LoRA adapter that several institutions trained together without sharing "
                  "their data (fedlora).\n\n",
                  spec->model, spec->name);
    fl_buf_printf(card, "| | |\n|---|---|\n| base model | %s |\n| its manifest | `%s` |\n",
                  spec->model, spec->model_sha256);
    fl_buf_printf(card, "| job, version | %lld, %lld of %llu |\n| strategy | %s |\n",
                  (long long)json_integer_value(json_object_get(v, "job")),
                  (long long)json_integer_value(json_object_get(v, "version")),
                  (unsigned long long)spec->rounds, fl_member_text(v, "strategy"));
    fl_buf_printf(card,
                  "| sites in the last round | %lld |\n| targets | %s |\n| rank, alpha | "
                  "%lld, %g |\n",
                  (long long)json_integer_value(json_object_get(v, "workers")), spec->targets,
                  (long long)json_integer_value(json_object_get(v, "rank")), spec->alpha);
    if (spec->dora)
        fl_buf_printf(card, "| DoRA | magnitudes are averaged apart from A and B: not exact |\n");
    if (json_is_real(loss))
        fl_buf_printf(card, "| held-out loss over all sites | %.4f |\n", json_real_value(loss));
    fl_buf_printf(card, "| sha256 of adapter_model.safetensors | `%s` |\n| made | %s |\n",
                  fl_member_text(v, "sha256"), fl_member_text(v, "created"));
    fl_buf_printf(card, "\nSecure aggregation was %s.\n",
                  spec->secure_aggregation
                      ? "on: the coordinator saw sums only"
                      : "off: the coordinator could read the updates of single sites");
}

static enum fl_status write_export(const json_t *answer, const char *out, struct fl_error *error)
{
    const char *text = json_string_value(json_object_get(answer, "spec"));
    const char *path = json_string_value(json_object_get(answer, "path"));
    struct fl_inventory inventory = {0}, targets = {0};
    struct fl_adapter *adapter = NULL;
    uint16_t *ranks = NULL;
    struct fl_buf card;
    fl_buf_init(&card, 65536);
    struct fl_job_spec *spec = fl_calloc(1, sizeof *spec);
    enum fl_status status = spec && text && path ? FL_OK : fl_fail_memory(error);
    if (status == FL_OK)
        status = fl_job_parse(text, strlen(text), "job", spec, error);
    if (status == FL_OK)
        status = read_inventory(answer, &inventory, error);
    if (status == FL_OK)
        status = fl_inventory_select(&inventory, spec->targets, &targets, error);
    if (status == FL_OK)
        status = read_ranks(answer, targets.count, &ranks, error);
    if (status == FL_OK)
        status = fl_registry_read(path, &targets, spec, ranks, NULL, &adapter, error);
    if (status == FL_OK) {
        write_card(answer, spec, &card);
        status = fl_adapter_save(adapter, out, fl_buf_text(&card), error);
    }
    fl_adapter_destroy(&adapter);
    fl_inventory_free(&targets);
    fl_inventory_free(&inventory);
    fl_free(ranks);
    fl_free(spec);
    fl_buf_free(&card);
    return status;
}

/* Whoever names no version shall see which it was: of a job that has just begun it is the start. */
static void say_export(const json_t *v, const char *out)
{
    const long long version = (long long)json_integer_value(json_object_get(v, "version"));
    (void)fprintf(stderr, "wrote %s: version %lld of job %lld%s\n", out, version,
                  (long long)json_integer_value(json_object_get(v, "job")),
                  version == 0 ? ", which is its start: no round of it is done yet" : "");
}

static int export_version(int argc, char **argv)
{
    const char *out = NULL;
    int code;
    struct fl_error error;
    const struct fl_option options[] = {DIR_OPTION,
                                        JOB_OPTION,
                                        {.name = "--version",
                                         .value = "N",
                                         .kind = FL_OPTION_U64,
                                         .target = &version_number,
                                         .given = &version_given,
                                         .doc = "the version (default: the current one)"},
                                        {.name = "--out",
                                         .value = "PEFT_DIR",
                                         .kind = FL_OPTION_STRING,
                                         .target = &out,
                                         .required = true,
                                         .doc = "the PEFT directory to make"}};
    const struct fl_usage usage = {
        .program = FL_PROGRAM " adapters export",
        .summary = "Write a version as a PEFT directory with a model card.",
        .example = FL_PROGRAM " adapters export --dir coordinator --out adapter",
        .options = options,
        .option_count = sizeof options / sizeof options[0]};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    json_t *answer =
        fl_ask(directory,
               json_pack("{s:s, s:I, s:I}", "command", "adapters.get", "job",
                         (json_int_t)(job_given ? (json_int_t)job_number : 0), "version",
                         (json_int_t)(version_given ? (json_int_t)version_number : -1)),
               &code);
    if (!answer)
        return code;
    if (write_export(answer, out, &error) != FL_OK)
        code = fl_cli_fail(FL_PROGRAM, &error);
    else
        say_export(json_object_get(answer, "version"), out);
    json_decref(answer);
    return code;
}

static int rollback(int argc, char **argv)
{
    const char *text = NULL;
    int code;
    struct fl_error error;
    const struct fl_option options[] = {DIR_OPTION, JOB_OPTION};
    const struct fl_positional positionals[] = {
        {.name = "N", .target = &text, .doc = "the version that becomes the current one"}};
    const struct fl_usage usage = {.program = FL_PROGRAM " adapters rollback",
                                   .summary = "Make an earlier version the job's current one.",
                                   .options = options,
                                   .option_count = sizeof options / sizeof options[0],
                                   .positionals = positionals,
                                   .positional_count = 1};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    if (fl_parse_u64(text, 0, UINT32_MAX, &version_number) != FL_OK) {
        (void)fl_fail(&error, FL_ENOTFOUND, "no version %s", text);
        return fl_cli_fail(FL_PROGRAM, &error);
    }
    json_t *answer = fl_ask(directory,
                            json_pack("{s:s, s:I, s:I}", "command", "adapters.rollback", "job",
                                      (json_int_t)(job_given ? (json_int_t)job_number : 0),
                                      "version", (json_int_t)version_number),
                            &code);
    if (answer)
        (void)fprintf(stderr, "the current version of job %lld is now %s\n",
                      (long long)json_integer_value(json_object_get(answer, "job")), text);
    json_decref(answer);
    return code;
}

int fl_cmd_adapters(int argc, char **argv)
{
    static const struct fl_subcommand rows[] = {
        {"list", "the versions of the global adapters", list},
        {"export", "write a version as a PEFT directory", export_version},
        {"rollback", "N: make an earlier version the current one", rollback},
    };
    return fl_run_subcommand("adapters", rows, sizeof rows / sizeof rows[0], argc, argv);
}

/* cmd_job.c - fedlora-coordinator job submit | list | show | cancel | resume | template */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "coordinator/commands.h"
#include "job/job.h"

static const char *directory;
static bool as_json;
static uint64_t job_number;
static const struct fl_option options[] = {
    {.name = "--dir",
     .value = "DIR",
     .kind = FL_OPTION_STRING,
     .target = &directory,
     .required = true,
     .doc = "the coordinator's directory"},
    {.name = "--json", .kind = FL_OPTION_FLAG, .target = &as_json, .doc = "print JSON"},
};
#define OPTIONS .options = options, .option_count = sizeof options / sizeof options[0]

/* A PEFT directory of `[lora] start` is named from here, not from where the daemon stands. */
static enum fl_status find_start(const struct fl_job_spec *spec, char *out, struct fl_error *error)
{
    struct fl_adapter *adapter = NULL;
    char *end;
    out[0] = '\0';
    long long job = strtoll(spec->start, &end, 10);
    if (!spec->start[0] || (job > 0 && *end == '@'))
        return FL_OK;
    enum fl_status status = fl_adapter_load(spec->start, NULL, &adapter, error);
    if (status == FL_OK)
        status = fl_job_check_start(spec, adapter, spec->start, error);
    fl_adapter_destroy(&adapter);
    if (status == FL_OK && !realpath(spec->start, out))
        status = fl_fail_errno(error, errno, "%s", spec->start);
    if (status == FL_OK || status == FL_EREFUSED)
        return status;
    fl_error_prefix(error, "[lora] start");
    return error->status = FL_EFORMAT;
}

static json_t *submission(const char *path, struct fl_error *error)
{
    char start[FL_PATH_BYTES];
    struct fl_buf text;
    json_t *request = NULL;
    fl_buf_init(&text, FL_JOB_TEXT_MAX);
    struct fl_job_spec *spec = fl_calloc(1, sizeof *spec);
    enum fl_status status = spec ? fl_fs_read(path, FL_JOB_TEXT_MAX, &text, error)
                                 : fl_fail_memory(error);
    if (status == FL_ENOTFOUND || status == FL_ERANGE || status == FL_EIO)
        error->status = status = FL_EFORMAT; /* a bad input file, whatever is wrong with it */
    if (status == FL_OK)
        status = fl_job_parse(fl_buf_text(&text), text.length, path, spec, error);
    if (status == FL_OK)
        status = find_start(spec, start, error);
    if (status == FL_OK) {
        request = json_pack("{s:s, s:s, s:s}", "command", "job.submit", "text", fl_buf_text(&text),
                            "what", path);
        if (!request || (start[0] && json_object_set_new(request, "start", json_string(start))))
            (void)fl_fail(error, FL_EFORMAT, "%s: not UTF-8 text", path);
    }
    fl_free(spec);
    fl_buf_free(&text);
    return request;
}

static int submit(int argc, char **argv)
{
    const char *path = NULL;
    int code;
    size_t i;
    const json_t *note;
    struct fl_error error;
    const struct fl_positional positionals[] = {
        {.name = "FILE", .target = &path, .doc = "the job file; `job template` prints a sample"}};
    const struct fl_usage usage = {.program = FL_PROGRAM " job submit",
                                   .summary = "Queue a job and print its number.",
                                   .example = FL_PROGRAM " job submit --dir coordinator job.conf",
                                   OPTIONS,
                                   .positionals = positionals,
                                   .positional_count = 1};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    json_t *request = submission(path, &error);
    if (!request)
        return fl_cli_fail(FL_PROGRAM, &error);
    json_t *answer = fl_ask(directory, request, &code);
    if (!answer)
        return code;
    json_int_t id = json_integer_value(json_object_get(answer, "job"));
    if (as_json)
        (void)printf("{\"job\":%lld}\n", (long long)id);
    else
        (void)printf("%lld\n", (long long)id);
    json_array_foreach(json_object_get(answer, "notes"), i, note)(void)
        fprintf(stderr, "note: %s\n", json_string_value(note));
    json_decref(answer);
    return 0;
}

static void print_job(const json_t *job)
{
    (void)printf("%-5lld %-20s %-10s %-12s round %lld of %lld, %s%s%s\n",
                 (long long)json_integer_value(json_object_get(job, "job")),
                 fl_member_text(job, "name"), fl_member_text(job, "state"),
                 fl_member_text(job, "strategy"),
                 (long long)json_integer_value(json_object_get(job, "round")),
                 (long long)json_integer_value(json_object_get(job, "rounds")),
                 fl_member_text(job, "phase"), fl_member_text(job, "reason")[0] == '-' ? "" : "; ",
                 fl_member_text(job, "reason")[0] == '-' ? "" : fl_member_text(job, "reason"));
}

static int list(int argc, char **argv)
{
    int code;
    size_t i;
    const json_t *job;
    const struct fl_usage usage = {
        .program = FL_PROGRAM " job list", .summary = "The jobs, oldest first.", OPTIONS};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    json_t *answer = fl_ask(directory, json_pack("{s:s}", "command", "job.list"), &code);
    if (!answer)
        return code;
    if (as_json)
        code = fl_print_lines(json_object_get(answer, "jobs"));
    else
        json_array_foreach(json_object_get(answer, "jobs"), i, job) print_job(job);
    json_decref(answer);
    return code;
}

/* A command on one job; its answer, or NULL with the exit code set. */
static json_t *on_job(const char *program, const char *summary, const char *command, int argc,
                      char **argv, int *code)
{
    const char *text = NULL;
    struct fl_error error;
    const struct fl_positional positionals[] = {
        {.name = "ID", .target = &text, .doc = "the job's number"}};
    const struct fl_usage usage = {.program = program,
                                   .summary = summary,
                                   OPTIONS,
                                   .positionals = positionals,
                                   .positional_count = 1};
    if (!fl_cli_begin(&usage, argc, argv, code))
        return NULL;
    if (fl_parse_u64(text, 1, INT64_MAX, &job_number) != FL_OK) {
        (void)fl_fail(&error, FL_ENOTFOUND, "no job %s", text);
        *code = fl_cli_fail(FL_PROGRAM, &error);
        return NULL;
    }
    return fl_ask(directory,
                  json_pack("{s:s, s:I}", "command", command, "job", (json_int_t)job_number), code);
}

static int show(int argc, char **argv)
{
    int code;
    size_t i;
    const json_t *refusal;
    json_t *answer = on_job(FL_PROGRAM " job show", "One job with its refusals and job file.",
                            "job.show", argc, argv, &code);
    if (!answer)
        return code;
    (void)json_object_del(answer, "ok");
    if (as_json)
        code = fl_json_print(answer) == FL_OK ? 0 : 1;
    else {
        print_job(answer);
        json_array_foreach(json_object_get(answer, "refusals"), i, refusal)
        {
            (void)printf("  %s: %s\n", fl_member_text(refusal, "worker"),
                         fl_member_text(refusal, "reason"));
        }
        (void)printf("\n%s", fl_member_text(answer, "spec"));
    }
    json_decref(answer);
    return code;
}

/* A command that leaves a job in a new state, which is told. */
static int change(const char *program, const char *summary, const char *command, const char *state,
                  int argc, char **argv)
{
    int code;
    json_t *answer = on_job(program, summary, command, argc, argv, &code);
    if (answer && as_json) {
        json_t *line = json_pack("{s:I, s:s}", "job", (json_int_t)job_number, "state", state);
        code = line && fl_json_print(line) == FL_OK ? 0 : 1;
        json_decref(line);
    } else if (answer) {
        (void)fprintf(stderr, "job %llu is %s\n", (unsigned long long)job_number, state);
    }
    json_decref(answer);
    return code;
}

static int cancel(int argc, char **argv)
{
    return change(FL_PROGRAM " job cancel", "End a job; its versions stay.", "job.cancel",
                  "cancelled", argc, argv);
}

static int resume(int argc, char **argv)
{
    return change(FL_PROGRAM " job resume", "Go on with a paused job, in the same round.",
                  "job.resume", "queued", argc, argv);
}

static int print_template(int argc, char **argv)
{
    int code;
    struct fl_buf text;
    const struct fl_usage usage = {.program = FL_PROGRAM " job template",
                                   .summary = "Print a commented job file."};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    fl_buf_init(&text, FL_JOB_TEXT_MAX);
    fl_job_template(&text);
    code = fl_buf_status(&text) == FL_OK ? 0 : 1;
    (void)fputs(fl_buf_text(&text), stdout);
    fl_buf_free(&text);
    return code;
}

int fl_cmd_job(int argc, char **argv)
{
    static const struct fl_subcommand rows[] = {
        {"submit", "FILE: queue a job and print its number", submit},
        {"list", "the jobs, oldest first", list},
        {"show", "ID: one job with its refusals", show},
        {"cancel", "ID: end a job", cancel},
        {"resume", "ID: go on with a paused job", resume},
        {"template", "print a commented job file", print_template},
    };
    return fl_run_subcommand("job", rows, sizeof rows / sizeof rows[0], argc, argv);
}

/* cmd_backup.c - fedlora-coordinator backup */
#include <stdio.h>

#include "coordinator/backup.h"
#include "coordinator/commands.h"

static int print_json(const struct fl_backup *made)
{
    json_t *object = json_pack("{s:s, s:I, s:I, s:I, s:I}", "out", made->out, "bytes",
                               (json_int_t)made->bytes, "files", (json_int_t)made->files, "jobs",
                               (json_int_t)made->jobs, "versions", (json_int_t)made->versions);
    int code = object && fl_json_print(object) == FL_OK ? 0 : 1;
    json_decref(object);
    return code;
}

int fl_cmd_backup(int argc, char **argv)
{
    const char *directory = NULL, *out = NULL;
    bool as_json = false;
    int code;
    struct fl_error error;
    struct fl_backup made;
    const struct fl_option options[] = {
        {.name = "--dir",
         .value = "DIR",
         .kind = FL_OPTION_STRING,
         .target = &directory,
         .required = true,
         .doc = "the coordinator's directory"},
        {.name = "--out",
         .value = "BACKUP_DIR",
         .kind = FL_OPTION_STRING,
         .target = &out,
         .required = true,
         .doc = "the directory to make; it holds secret keys, and must not be there yet"},
        {.name = "--json", .kind = FL_OPTION_FLAG, .target = &as_json, .doc = "print JSON"},
    };
    const struct fl_usage usage = {
        .program = FL_PROGRAM " backup",
        .summary = "Copy the coordinator, running or not, to a directory that `serve --dir` takes "
                   "as it is.",
        .example = FL_PROGRAM " backup --dir coordinator --out coordinator-monday",
        .options = options,
        .option_count = sizeof options / sizeof options[0]};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    if (fl_backup_make(directory, out, &made, &error) != FL_OK)
        return fl_cli_fail(FL_PROGRAM, &error);
    if (as_json)
        return print_json(&made);
    (void)printf("%s\n", made.out);
    (void)fprintf(stderr,
                  "wrote %llu bytes in %llu files: %llu jobs, %llu versions, the keys; to "
                  "restore: " FL_PROGRAM " serve --dir %s\n",
                  (unsigned long long)made.bytes, (unsigned long long)made.files,
                  (unsigned long long)made.jobs, (unsigned long long)made.versions, made.out);
    return 0;
}

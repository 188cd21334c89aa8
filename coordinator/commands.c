/* commands.c - what the subcommands share. */
#include "coordinator/commands.h"

#include <stdio.h>
#include <string.h>

#include "coordinator/control.h"

static void print_rows(FILE *to, const char *command, const struct fl_subcommand *rows,
                       size_t count)
{
    (void)fprintf(to, "usage: " FL_PROGRAM " %s COMMAND ...\n\n", command);
    for (size_t i = 0; i < count; i++)
        (void)fprintf(to, "  %-10s %s\n", rows[i].name, rows[i].summary);
}

int fl_run_subcommand(const char *command, const struct fl_subcommand *rows, size_t count, int argc,
                      char **argv)
{
    const char *name = NULL;
    int at = 0;
    for (int i = 1; i < argc && !name; i++) { /* `job --dir DIR list` is fine too */
        for (size_t k = 0; k < count; k++) {
            if (strcmp(argv[i], rows[k].name) == 0) {
                name = rows[k].name;
                at = i;
            }
        }
    }
    for (int i = at; i > 1; i--) { /* the name comes first, the rest keeps its order */
        char *moved = argv[i];
        argv[i] = argv[i - 1];
        argv[i - 1] = moved;
    }
    for (size_t k = 0; name && k < count; k++) {
        if (rows[k].name == name)
            return rows[k].run(argc - 1, argv + 1);
    }
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        (void)printf(FL_PROGRAM " " FL_VERSION "\n");
        return 0;
    }
    bool help = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
    if (argc > 1 && argv[1][0] != '-')
        (void)fprintf(stderr, FL_PROGRAM " %s: unknown command '%s'\n", command, argv[1]);
    print_rows(help ? stdout : stderr, command, rows, count);
    return help ? 0 : fl_exit_code(FL_EUSAGE);
}

json_t *fl_ask(const char *directory, json_t *request, int *exit_code)
{
    struct fl_error error;
    json_t *answer;
    if (fl_control_call(directory, request, &answer, &error) != FL_OK) {
        *exit_code = fl_cli_fail(FL_PROGRAM, &error);
        return NULL;
    }
    *exit_code = 0;
    return answer;
}

const char *fl_member_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text && text[0] ? text : "-";
}

int fl_print_lines(const json_t *list)
{
    size_t i;
    const json_t *item;
    json_array_foreach(list, i, item)
    {
        if (fl_json_print(item) != FL_OK)
            return 1;
    }
    return 0;
}

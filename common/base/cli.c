/* cli.c - see cli.h: the parser, the nearest name, and the table of commands. Help: cli_help.c. */
#include "base/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cli_internal.h"

#define FL_CLI_NAMES_MAX  96
#define FL_NEAREST_BYTES  64
#define FL_NEAREST_PREFIX 2 /* letters of a name's beginning that say which is meant */

/*
 * Damerau-Levenshtein distance of two short words, in its restricted form: two neighbours that
 * changed places count once, and are not edited further.
 */
static size_t distance(const char *a, const char *b)
{
    size_t rows[3][FL_NEAREST_BYTES + 1];
    const size_t b_length = strlen(b);
    for (size_t j = 0; j <= b_length; j++)
        rows[0][j] = j;
    size_t i = 0;
    for (; a[i]; i++) {
        const size_t *above = rows[i % 3], *two_above = rows[(i + 2) % 3];
        size_t *row = rows[(i + 1) % 3];
        row[0] = i + 1;
        for (size_t j = 0; j < b_length; j++) {
            size_t best = above[j] + (a[i] != b[j]);
            if (above[j + 1] + 1 < best)
                best = above[j + 1] + 1;
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] &&
                two_above[j - 1] + 1 < best)
                best = two_above[j - 1] + 1;
            row[j + 1] = best;
        }
    }
    return rows[i % 3][b_length];
}

/* Without the dashes of an option, which would make any two options alike. */
static const char *without_dashes(const char *name)
{
    return name + strspn(name, "-");
}

/* How far word is from what it may have been meant for; SIZE_MAX: it was not. What begins with it
   is nearer than any slip. */
static size_t remoteness(const char *word, const char *name)
{
    const size_t length = strlen(word), name_length = strnlen(name, FL_NEAREST_BYTES);
    if (length == 0 || name_length == FL_NEAREST_BYTES)
        return SIZE_MAX;
    const size_t longer = length > name_length ? length : name_length;
    const size_t most = longer < 3 ? 1 : longer / 3;
    const size_t d = distance(word, name);
    const bool begins = length >= FL_NEAREST_PREFIX && strncmp(name, word, length) == 0;
    if (begins)
        return d;
    return d <= most && d < name_length ? FL_NEAREST_BYTES + d : SIZE_MAX;
}

const char *fl_nearest(const char *word, const char *const *names, size_t count)
{
    const char *nearest = NULL;
    size_t best = SIZE_MAX;
    if (strnlen(word, FL_NEAREST_BYTES) == FL_NEAREST_BYTES)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        const size_t d = remoteness(without_dashes(word), without_dashes(names[i]));
        if (d < best) {
            best = d;
            nearest = names[i];
        }
    }
    return nearest;
}

static enum fl_status fail_unknown_option(const struct fl_usage *usage, const char *name,
                                          size_t length, struct fl_error *error)
{
    const char *names[FL_CLI_NAMES_MAX] = {"--help", "--version"};
    size_t count = 2;
    for (size_t i = 0; i < usage->option_count && count < FL_CLI_NAMES_MAX; i++)
        names[count++] = usage->options[i].name;
    char word[FL_NEAREST_BYTES];
    snprintf(word, sizeof(word), "%.*s", (int)length, name);
    const char *near = fl_nearest(word, names, count);
    if (near)
        return fl_fail(error, FL_EUSAGE, "unknown option %s; did you mean %s?", word, near);
    return fl_fail(error, FL_EUSAGE, "unknown option %s", word);
}

static const struct fl_option *find_option(const struct fl_usage *usage, const char *name,
                                           size_t length)
{
    for (size_t i = 0; i < usage->option_count; i++) {
        const struct fl_option *option = &usage->options[i];
        if (strlen(option->name) == length && memcmp(option->name, name, length) == 0)
            return option;
    }
    return NULL;
}

static enum fl_status check_bounds(const struct fl_option *option, double value, const char *text,
                                   struct fl_error *error)
{
    if (!fl_cli_is_bounded(option) || (value >= option->low && value <= option->high))
        return FL_OK;
    char low[40], high[40];
    fl_cli_number_text(option, option->low, low);
    fl_cli_number_text(option, option->high, high);
    return fl_fail(error, FL_EUSAGE, "%s %.80s is out of range: %s to %s", option->name, text, low,
                   high);
}

static enum fl_status set_number(const struct fl_option *option, const char *text,
                                 struct fl_error *error)
{
    uint64_t whole;
    double number;
    int64_t duration_ms;
    enum fl_status status;
    switch (option->kind) {
    case FL_OPTION_U64:
        if (fl_parse_u64(text, 0, UINT64_MAX, &whole) != FL_OK)
            return fl_fail(error, FL_EUSAGE, "%s: '%.80s' is not a whole number", option->name,
                           text);
        status = check_bounds(option, (double)whole, text, error);
        if (status == FL_OK)
            *(uint64_t *)option->target = whole;
        return status;
    case FL_OPTION_DOUBLE:
        if (fl_parse_double(text, &number) != FL_OK)
            return fl_fail(error, FL_EUSAGE, "%s: '%.80s' is not a number", option->name, text);
        status = check_bounds(option, number, text, error);
        if (status == FL_OK)
            *(double *)option->target = number;
        return status;
    default:
        if (fl_parse_duration(text, &duration_ms) != FL_OK)
            return fl_fail(error, FL_EUSAGE, "%s: '%.80s' is not a duration such as 60s, 30m, 24h",
                           option->name, text);
        status = check_bounds(option, (double)duration_ms, text, error);
        if (status == FL_OK)
            *(int64_t *)option->target = duration_ms;
        return status;
    }
}

static enum fl_status set_choice(const struct fl_option *option, const char *text,
                                 struct fl_error *error)
{
    size_t length = strlen(text);
    for (const char *choice = option->choices; choice;) {
        const char *bar = strchr(choice, '|');
        size_t choice_length = bar ? (size_t)(bar - choice) : strlen(choice);
        if (choice_length == length && memcmp(choice, text, length) == 0) {
            *(const char **)option->target = text;
            return FL_OK;
        }
        choice = bar ? bar + 1 : NULL;
    }
    return fl_fail(error, FL_EUSAGE, "%s: '%.80s' is none of %s", option->name, text,
                   option->choices);
}

static enum fl_status add_to_list(const struct fl_option *option, const char *text,
                                  struct fl_error *error)
{
    struct fl_option_list *list = option->target;
    if (list->count == FL_OPTION_LIST_MAX)
        return fl_fail(error, FL_EUSAGE, "%s: more than %d times", option->name,
                       FL_OPTION_LIST_MAX);
    list->items[list->count++] = text;
    return FL_OK;
}

static enum fl_status set_value(const struct fl_option *option, const char *text,
                                struct fl_error *error)
{
    switch (option->kind) {
    case FL_OPTION_FLAG:
        *(bool *)option->target = true;
        return FL_OK;
    case FL_OPTION_ONOFF:
        if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0)
            return fl_fail(error, FL_EUSAGE, "%s: '%.80s' is neither on nor off", option->name,
                           text);
        *(bool *)option->target = strcmp(text, "on") == 0;
        return FL_OK;
    case FL_OPTION_STRING:
        *(const char **)option->target = text;
        return FL_OK;
    case FL_OPTION_CHOICE:
        return set_choice(option, text, error);
    case FL_OPTION_LIST:
        return add_to_list(option, text, error);
    case FL_OPTION_U64:
    case FL_OPTION_DOUBLE:
    case FL_OPTION_DURATION:
        break;
    }
    return set_number(option, text, error);
}

/* One word that begins with "--"; *used is 2 when the next word was its value. */
static enum fl_status take_option(const struct fl_usage *usage, const char *word, const char *next,
                                  bool *given, int *used, struct fl_error *error)
{
    const char *equals = strchr(word, '=');
    size_t length = equals ? (size_t)(equals - word) : strlen(word);
    const struct fl_option *option = find_option(usage, word, length);
    *used = 1;
    if (!option)
        return fail_unknown_option(usage, word, length, error);
    const char *value = equals ? equals + 1 : NULL;
    if (option->kind == FL_OPTION_FLAG && value)
        return fl_fail(error, FL_EUSAGE, "%s takes no value", option->name);
    if (option->kind != FL_OPTION_FLAG && !value) {
        if (!next || strncmp(next, "--", 2) == 0)
            return fl_fail(error, FL_EUSAGE, "%s needs a value", option->name);
        value = next;
        *used = 2;
    }
    given[option - usage->options] = true;
    if (option->given)
        *option->given = true;
    return set_value(option, value, error);
}

static enum fl_status take_positional(const struct fl_usage *usage, const char *word, size_t *count,
                                      struct fl_error *error)
{
    if (*count == usage->positional_count)
        return fl_fail(error, FL_EUSAGE, "unexpected argument '%.80s'", word);
    *usage->positionals[(*count)++].target = word;
    return FL_OK;
}

static enum fl_status check_complete(const struct fl_usage *usage, const bool *given,
                                     size_t positionals, struct fl_error *error)
{
    if (positionals < usage->positional_count && !usage->positionals[positionals].optional)
        return fl_fail(error, FL_EUSAGE, "%s is missing", usage->positionals[positionals].name);
    for (size_t i = 0; i < usage->option_count; i++) {
        if (usage->options[i].required && !given[i])
            return fl_fail(error, FL_EUSAGE, "%s is required", usage->options[i].name);
    }
    return FL_OK;
}

static bool has_option(const struct fl_usage *usage, const char *name)
{
    for (size_t i = 0; i < usage->option_count; i++) {
        if (strcmp(usage->options[i].name, name) == 0)
            return true;
    }
    return false;
}

/* --help or --version before any "--": print it, unless the command has its own --version. */
static bool answer_standard(const struct fl_usage *usage, int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fl_cli_print_help(usage);
            return true;
        }
        if (strcmp(argv[i], "--version") == 0 && !has_option(usage, "--version")) {
            fl_cli_print_version(usage->program);
            return true;
        }
    }
    return false;
}

enum fl_status fl_cli_parse(const struct fl_usage *usage, int argc, char **argv,
                            struct fl_error *error)
{
    bool given[FL_CLI_NAMES_MAX] = {false};
    size_t positionals = 0;
    bool options_end = false;
    if (usage->option_count > FL_CLI_NAMES_MAX)
        return fl_fail(error, FL_EINVAL, "too many options in the table");
    if (answer_standard(usage, argc, argv))
        return FL_ESTOPPED;
    for (int i = 1, used; i < argc; i += used) {
        enum fl_status status = FL_OK;
        const char *word = argv[i];
        used = 1;
        if (!options_end && strcmp(word, "--") == 0)
            options_end = true;
        else if (!options_end && strncmp(word, "--", 2) == 0)
            status = take_option(usage, word, i + 1 < argc ? argv[i + 1] : NULL, given, &used,
                                 error);
        else if (!options_end && word[0] == '-' && word[1])
            status = fail_unknown_option(usage, word, strlen(word), error);
        else
            status = take_positional(usage, word, &positionals, error);
        if (status != FL_OK)
            return status;
    }
    return check_complete(usage, given, positionals, error);
}

bool fl_cli_begin(const struct fl_usage *usage, int argc, char **argv, int *exit_code)
{
    struct fl_error error;
    enum fl_status status = fl_cli_parse(usage, argc, argv, &error);
    *exit_code = 0;
    if (status == FL_OK)
        return true;
    if (status != FL_ESTOPPED) {
        *exit_code = fl_cli_fail(usage->program, &error);
        fprintf(stderr, "Try '%s --help'.\n", usage->program);
    }
    return false;
}

int fl_cli_fail(const char *program, const struct fl_error *error)
{
    fflush(stdout); /* what was printed so far comes first where both go to one place */
    fprintf(stderr, "%s: %s\n", program, error->text);
    return fl_exit_code(error->status);
}

static const struct fl_command *find_command(const struct fl_command *commands, size_t count,
                                             const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

static int fail_command(const char *program, const struct fl_command *commands, size_t count,
                        const char *word)
{
    const char *names[FL_CLI_NAMES_MAX];
    for (size_t i = 0; i < count && i < FL_CLI_NAMES_MAX; i++)
        names[i] = commands[i].name;
    const char *near = fl_nearest(word, names, count < FL_CLI_NAMES_MAX ? count : FL_CLI_NAMES_MAX);
    struct fl_error error;
    if (near)
        fl_fail(&error, FL_EUSAGE, "unknown command '%.80s'; did you mean '%s'?", word, near);
    else
        fl_fail(&error, FL_EUSAGE, "unknown command '%.80s'", word);
    fl_cli_fail(program, &error);
    fprintf(stderr, "Try '%s --help'.\n", program);
    return fl_exit_code(FL_EUSAGE);
}

/* The exit code, or 1 when what the command printed did not reach its reader. */
static int flush_output(const char *program, int exit_code)
{
    if ((fflush(stdout) == 0 && !ferror(stdout)) || exit_code != 0)
        return exit_code;
    fprintf(stderr, "%s: cannot write the output\n", program);
    return 1;
}

int fl_cli_main(const char *program, const char *summary, const struct fl_command *commands,
                size_t count, int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : NULL;
    if (!word) {
        fl_cli_print_commands(program, summary, commands, count, stderr);
        return fl_exit_code(FL_EUSAGE);
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        fl_cli_print_commands(program, summary, commands, count, stdout);
        return flush_output(program, 0);
    }
    if (strcmp(word, "--version") == 0) {
        fl_cli_print_version(program);
        return flush_output(program, 0);
    }
    const struct fl_command *command = find_command(commands, count, word);
    if (!command)
        return fail_command(program, commands, count, word);
    return flush_output(program, command->run(argc - 1, argv + 1));
}

bool fl_cli_is_terminal(void)
{
    const char *no_color = getenv("NO_COLOR");
    return isatty(STDERR_FILENO) && !(no_color && no_color[0]);
}

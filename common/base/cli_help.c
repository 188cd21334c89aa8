/* cli_help.c - what --help and --version print, made from the tables of cli.h. */
#include <string.h>

#include "base/cli_internal.h"

#define FL_CLI_COLUMNS    100
#define FL_CLI_INDENT_MAX 30

bool fl_cli_is_bounded(const struct fl_option *option)
{
    return option->low < 0 || option->low > 0 || option->high < 0 || option->high > 0;
}

void fl_cli_number_text(const struct fl_option *option, double value, char out[40])
{
    static const struct {
        const char *suffix;
        int64_t milliseconds;
    } units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
    if (option->kind != FL_OPTION_DURATION) {
        snprintf(out, 40, "%.15g", value);
        return;
    }
    size_t i = 0;
    while (i < 4 &&
           (value < (double)units[i].milliseconds || (int64_t)value % units[i].milliseconds != 0))
        i++;
    snprintf(out, 40, "%lld%s", (long long)((int64_t)value / units[i].milliseconds),
             units[i].suffix);
}

/* The default that the option's target holds, or "" where there is none to speak of. */
static void default_text(const struct fl_option *option, char *out, size_t room)
{
    char number[40] = "";
    const char *text = NULL;
    switch (option->kind) {
    case FL_OPTION_FLAG:
    case FL_OPTION_LIST:
        break;
    case FL_OPTION_ONOFF:
        text = *(const bool *)option->target ? "on" : "off";
        break;
    case FL_OPTION_STRING:
    case FL_OPTION_CHOICE:
        text = *(const char *const *)option->target;
        break;
    case FL_OPTION_U64:
        snprintf(number, sizeof(number), "%llu",
                 (unsigned long long)*(const uint64_t *)option->target);
        break;
    case FL_OPTION_DOUBLE:
        fl_cli_number_text(option, *(const double *)option->target, number);
        break;
    case FL_OPTION_DURATION:
        fl_cli_number_text(option, (double)*(const int64_t *)option->target, number);
        break;
    }
    if (option->required)
        snprintf(out, room, " (required)");
    else if (text && text[0])
        snprintf(out, room, " [%s]", text);
    else if (number[0])
        snprintf(out, room, " [%s]", number);
    else
        out[0] = 0;
}

/* Print text from column `indent` on, broken between words. */
static void print_wrapped(FILE *out, const char *text, size_t indent)
{
    size_t column = indent;
    while (*text) {
        size_t word = strcspn(text, " ");
        if (column > indent && column + 1 + word > FL_CLI_COLUMNS) {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", (int)word, text);
        column += word;
        text += word;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

/* "  left      text", the text aligned at `indent`. */
static void print_entry(FILE *out, const char *left, const char *text, size_t indent)
{
    size_t length = strlen(left) + 2;
    fprintf(out, "  %s", left);
    if (length + 2 > indent)
        fprintf(out, "\n%*s", (int)indent, "");
    else
        fprintf(out, "%*s", (int)(indent - length), "");
    print_wrapped(out, text, indent);
}

static void option_left(const struct fl_option *option, char *out, size_t room)
{
    const char *value = option->value;
    if (!value && option->kind == FL_OPTION_ONOFF)
        value = "on|off";
    if (!value && option->kind == FL_OPTION_CHOICE)
        value = option->choices;
    snprintf(out, room, "%s%s%s", option->name, value ? " " : "", value ? value : "");
}

static void print_options(const struct fl_usage *usage, size_t indent)
{
    char left[160], text[1024], fallback[200];
    printf("\noptions:\n");
    for (size_t i = 0; i < usage->option_count; i++) {
        const struct fl_option *option = &usage->options[i];
        option_left(option, left, sizeof(left));
        default_text(option, fallback, sizeof(fallback));
        const char *choices = option->kind == FL_OPTION_CHOICE && option->value ? option->choices
                                                                                : NULL;
        snprintf(text, sizeof(text), "%s%s%s%s%s", option->doc ? option->doc : "",
                 choices ? " (" : "", choices ? choices : "", choices ? ")" : "", fallback);
        print_entry(stdout, left, text, indent);
    }
    print_entry(stdout, "--help", "print this and stop", indent);
    print_entry(stdout, "--version", "print the version and stop", indent);
}

static size_t choose_indent(const struct fl_usage *usage)
{
    size_t widest = strlen("--version");
    char left[160];
    for (size_t i = 0; i < usage->option_count; i++) {
        option_left(&usage->options[i], left, sizeof(left));
        if (strlen(left) > widest && strlen(left) + 4 <= FL_CLI_INDENT_MAX)
            widest = strlen(left);
    }
    return widest + 4;
}

void fl_cli_print_help(const struct fl_usage *usage)
{
    size_t indent = choose_indent(usage);
    printf("usage: %s [options]", usage->program);
    for (size_t i = 0; i < usage->positional_count; i++)
        printf(usage->positionals[i].optional ? " [%s]" : " %s", usage->positionals[i].name);
    printf("\n\n%s\n", usage->summary);
    if (usage->positional_count > 0)
        printf("\narguments:\n");
    for (size_t i = 0; i < usage->positional_count; i++)
        print_entry(stdout, usage->positionals[i].name, usage->positionals[i].doc, indent);
    print_options(usage, indent);
    if (usage->example)
        printf("\nexample:\n  %s\n", usage->example);
}

void fl_cli_print_version(const char *program)
{
    printf("%.*s %s\n", (int)strcspn(program, " "), program, FL_VERSION);
}

void fl_cli_print_commands(const char *program, const char *summary,
                           const struct fl_command *commands, size_t count, FILE *out)
{
    size_t widest = 0;
    for (size_t i = 0; i < count; i++) {
        size_t length = strlen(commands[i].name);
        widest = length > widest ? length : widest;
    }
    fprintf(out, "usage: %s COMMAND [options]\n\n%s\n\ncommands:\n", program, summary);
    for (size_t i = 0; i < count; i++)
        print_entry(out, commands[i].name, commands[i].summary, widest + 4);
    fprintf(out, "\n'%s COMMAND --help' tells more; --version prints the version.\n", program);
}

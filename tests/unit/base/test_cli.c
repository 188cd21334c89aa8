#include "base/cli.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runner.h"

static struct {
    const char *model, *compute, *name, *note;
    uint64_t rank;
    double lr;
    int64_t ttl_ms;
    bool json, shuffle, rank_given;
    struct fl_option_list stops;
} got;

static struct fl_error error;
static char printed[65536];

static enum fl_status parse(int argc, char **argv)
{
    const struct fl_option options[] = {
        {.name = "--model",
         .value = "PATH",
         .kind = FL_OPTION_STRING,
         .target = &got.model,
         .required = true,
         .doc = "the base model"},
        {.name = "--rank",
         .value = "R",
         .kind = FL_OPTION_U64,
         .target = &got.rank,
         .low = 1,
         .high = 1024,
         .given = &got.rank_given,
         .doc = "rank of the adapter"},
        {.name = "--lr",
         .value = "X",
         .kind = FL_OPTION_DOUBLE,
         .target = &got.lr,
         .doc = "learning rate"},
        {.name = "--ttl",
         .value = "TIME",
         .kind = FL_OPTION_DURATION,
         .target = &got.ttl_ms,
         .low = 1000,
         .high = 604800000,
         .doc = "how long it is valid"},
        {.name = "--compute",
         .kind = FL_OPTION_CHOICE,
         .target = &got.compute,
         .choices = "auto|f32|bf16",
         .doc = "arithmetic of the matrix products"},
        {.name = "--shuffle",
         .kind = FL_OPTION_ONOFF,
         .target = &got.shuffle,
         .doc = "a new order each epoch"},
        {.name = "--json", .kind = FL_OPTION_FLAG, .target = &got.json, .doc = "JSON lines"},
        {.name = "--stop",
         .value = "TEXT",
         .kind = FL_OPTION_LIST,
         .target = &got.stops,
         .doc = "may be given several times"},
    };
    const struct fl_positional positionals[] = {
        {.name = "NAME", .target = &got.name, .doc = "the site"},
        {.name = "NOTE", .target = &got.note, .optional = true, .doc = "a remark"},
    };
    const struct fl_usage usage = {
        .program = "fedlora-worker train",
        .summary = "Fine-tune locally.",
        .example = "fedlora-worker train --model m.gguf a",
        .options = options,
        .option_count = sizeof(options) / sizeof(options[0]),
        .positionals = positionals,
        .positional_count = sizeof(positionals) / sizeof(positionals[0]),
    };
    memset(&got, 0, sizeof(got));
    got.rank = 8;
    got.lr = 1e-3;
    got.ttl_ms = 86400000;
    got.compute = "auto";
    got.shuffle = true;
    error.text[0] = 0;
    return fl_cli_parse(&usage, argc, argv, &error);
}

#define PARSE(...)                                                                                 \
    parse((int)(sizeof((char *[]){"train", __VA_ARGS__}) / sizeof(char *)),                        \
          (char *[]){"train", __VA_ARGS__, NULL})

/* What fn prints on the descriptor, in printed. */
static int capture_begin(int fd)
{
    fflush(NULL);
    int file = memfd_create("out", MFD_CLOEXEC);
    ck_assert_int_ge(dup2(file, fd), 0);
    return file;
}

static void capture_end(int file)
{
    fflush(NULL);
    ssize_t length = pread(file, printed, sizeof(printed) - 1, 0);
    printed[length > 0 ? length : 0] = 0;
    close(file);
}

START_TEST(every_kind_of_option_is_read_in_both_forms)
{
    fl_assert_ok(PARSE("--model", "a.gguf", "--rank=16", "--lr", "2e-3", "--ttl=30m", "--compute",
                       "f32", "--shuffle", "off", "--json", "site", "-"),
                 &error);
    ck_assert_str_eq(got.model, "a.gguf");
    ck_assert_uint_eq(got.rank, 16);
    ck_assert(got.rank_given);
    ck_assert_double_eq(got.lr, 2e-3);
    ck_assert_int_eq(got.ttl_ms, 1800000);
    ck_assert_str_eq(got.compute, "f32");
    ck_assert(!got.shuffle);
    ck_assert(got.json);
    ck_assert_str_eq(got.name, "site");
    ck_assert_str_eq(got.note, "-");
}
END_TEST

START_TEST(an_option_may_be_given_several_times)
{
    fl_assert_ok(PARSE("--model", "m", "--stop", "a", "site", "--stop=", "--stop", "b c"), &error);
    ck_assert_uint_eq(got.stops.count, 3);
    ck_assert_str_eq(got.stops.items[0], "a");
    ck_assert_str_eq(got.stops.items[1], "");
    ck_assert_str_eq(got.stops.items[2], "b c");
    char *words[FL_OPTION_LIST_MAX + 5] = {"train", "--model=m", "site"};
    for (int i = 0; i <= FL_OPTION_LIST_MAX; i++)
        words[3 + i] = "--stop=x";
    ck_assert_int_eq(parse(FL_OPTION_LIST_MAX + 4, words), FL_EUSAGE);
    ck_assert_ptr_nonnull(strstr(error.text, "--stop"));
}
END_TEST

START_TEST(defaults_stay_and_two_dashes_end_the_options)
{
    fl_assert_ok(PARSE("--model=", "--", "--json"), &error);
    ck_assert_str_eq(got.model, "");
    ck_assert_uint_eq(got.rank, 8);
    ck_assert(!got.rank_given);
    ck_assert_str_eq(got.name, "--json");
    ck_assert_ptr_null(got.note);
    ck_assert(!got.json);
}
END_TEST

static void assert_usage(enum fl_status status, const char *text)
{
    ck_assert_int_eq(status, FL_EUSAGE);
    ck_assert_str_eq(error.text, text);
}

START_TEST(a_wrong_command_line_is_named)
{
    assert_usage(PARSE("--modle", "x", "a"), "unknown option --modle; did you mean --model?");
    assert_usage(PARSE("--model", "x", "a", "--entirely-else"), "unknown option --entirely-else");
    assert_usage(PARSE("-x"), "unknown option -x");
    assert_usage(PARSE("--model"), "--model needs a value");
    assert_usage(PARSE("--model", "--json"), "--model needs a value");
    assert_usage(PARSE("--json=yes"), "--json takes no value");
    assert_usage(PARSE("a"), "--model is required");
    assert_usage(PARSE("--model", "x"), "NAME is missing");
    assert_usage(PARSE("--model", "x", "a", "b", "c"), "unexpected argument 'c'");
    assert_usage(PARSE("--rank", "0"), "--rank 0 is out of range: 1 to 1024");
    assert_usage(PARSE("--rank", "-3"), "--rank: '-3' is not a whole number");
    assert_usage(PARSE("--lr", "nan"), "--lr: 'nan' is not a number");
    assert_usage(PARSE("--ttl", "8d"), "--ttl 8d is out of range: 1s to 7d");
    assert_usage(PARSE("--ttl", "soon"), "--ttl: 'soon' is not a duration such as 60s, 30m, 24h");
    assert_usage(PARSE("--compute", "f16"), "--compute: 'f16' is none of auto|f32|bf16");
    assert_usage(PARSE("--shuffle", "yes"), "--shuffle: 'yes' is neither on nor off");
}
END_TEST

START_TEST(help_shows_every_option_with_its_default)
{
    int file = capture_begin(STDOUT_FILENO);
    enum fl_status status = PARSE("--rank", "--help");
    capture_end(file);
    ck_assert_int_eq(status, FL_ESTOPPED);
    ck_assert_ptr_nonnull(strstr(printed, "usage: fedlora-worker train [options] NAME [NOTE]\n"));
    ck_assert_ptr_nonnull(strstr(printed, "--model PATH"));
    ck_assert_ptr_nonnull(strstr(printed, "the base model (required)\n"));
    ck_assert_ptr_nonnull(strstr(printed, "rank of the adapter [8]\n"));
    ck_assert_ptr_nonnull(strstr(printed, "how long it is valid [1d]\n"));
    ck_assert_ptr_nonnull(strstr(printed, "--compute auto|f32|bf16"));
    ck_assert_ptr_nonnull(strstr(printed, "a new order each epoch [on]\n"));
    ck_assert_ptr_nonnull(strstr(printed, "example:\n  fedlora-worker train --model"));
}
END_TEST

START_TEST(the_version_names_the_program_and_not_the_command)
{
    int file = capture_begin(STDOUT_FILENO);
    enum fl_status status = PARSE("--version");
    capture_end(file);
    ck_assert_int_eq(status, FL_ESTOPPED);
    ck_assert_str_eq(printed, "fedlora-worker " FL_VERSION "\n");
}
END_TEST

static int run_list(int argc, char **argv)
{
    return argc == 2 && strcmp(argv[0], "list") == 0 && strcmp(argv[1], "x") == 0 ? 40 : 41;
}

static int run_print(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("data\n");
    return 0;
}

static const struct fl_command nested[] = {
    {"list", "show all", run_list},
    {"print", "print data", run_print},
};

static int run_roster(int argc, char **argv)
{
    return fl_cli_main("fedlora-coordinator roster", "Who may join.", nested, 2, argc, argv);
}

static const struct fl_command commands[] = {{"roster", "keep the list of sites", run_roster}};

static int dispatch(int argc, char **argv)
{
    return fl_cli_main("fedlora-coordinator", "Coordinates.", commands, 1, argc, argv);
}

START_TEST(commands_are_found_also_below_commands)
{
    char *argv[] = {"c", "roster", "list", "x", NULL};
    ck_assert_int_eq(dispatch(4, argv), 40);
}
END_TEST

START_TEST(an_unknown_command_gets_the_nearest)
{
    int file = capture_begin(STDERR_FILENO);
    int code = dispatch(3, (char *[]){"c", "roster", "lits", NULL});
    int none = dispatch(1, (char *[]){"c", NULL});
    capture_end(file);
    ck_assert_int_eq(code, 2);
    ck_assert_int_eq(none, 2);
    ck_assert_ptr_nonnull(strstr(printed, "fedlora-coordinator roster: unknown command 'lits'; "
                                          "did you mean 'list'?\n"));
    ck_assert_ptr_nonnull(strstr(printed, "roster  keep the list of sites\n"));
}
END_TEST

START_TEST(output_that_reaches_nobody_is_a_failure)
{
    int file = capture_begin(STDERR_FILENO);
    ck_assert_ptr_nonnull(freopen("/dev/full", "w", stdout));
    int code = dispatch(3, (char *[]){"c", "roster", "print", NULL});
    fclose(stdout);
    capture_end(file);
    ck_assert_int_eq(code, 1);
    ck_assert_ptr_nonnull(strstr(printed, "cannot write the output"));
}
END_TEST

START_TEST(a_command_that_may_not_go_on_says_why)
{
    const struct fl_usage usage = {.program = "p x", .summary = "s"};
    int code = 7, file = capture_begin(STDERR_FILENO);
    bool begun = fl_cli_begin(&usage, 2, (char *[]){"x", "y", NULL}, &code);
    capture_end(file);
    ck_assert(!begun);
    ck_assert_int_eq(code, 2);
    ck_assert_str_eq(printed, "p x: unexpected argument 'y'\nTry 'p x --help'.\n");
    ck_assert(fl_cli_begin(&usage, 1, (char *[]){"x", NULL}, &code));
}
END_TEST

/* What is suggested for a word, and what is not: NULL. */
static const char *const keys[] = {"steps", "batch_size", "lr", "name", "rounds", "job", NULL};
static const char *const flags[] = {"--help", "--version", "--model", "--rank", "--rank-pattern",
                                    "--out",  "--json",    "--data",  "--lr",   NULL};
static const char *const verbs[] = {"run", "eval", "keys", "merge", "status", "train", NULL};
static const struct {
    const char *const *names;
    const char *word, *suggested;
} meant[] = {
    /* slips: a letter too many, too few, another, two changed about */
    {keys, "stepz", "steps"},
    {keys, "batchsize", "batch_size"},
    {keys, "bacth_szie", "batch_size"},
    {keys, "lrr", "lr"},
    {keys, "rl", "lr"},
    {keys, "jbo", "job"},
    {keys, "nmae", "name"},
    {flags, "--modle", "--model"},
    {flags, "--jsn", "--json"},
    {flags, "-model", "--model"},
    {flags, "model", "--model"},
    {verbs, "stauts", "status"},
    {verbs, "rn", "run"},
    /* the beginning of a name: of several the shortest */
    {flags, "--ra", "--rank"},
    {flags, "--rank-p", "--rank-pattern"},
    {verbs, "st", "status"},
    {keys, "batch", "batch_size"},
    /* other words */
    {keys, "something", NULL},
    {keys, "", NULL},
    {keys, "max", NULL},
    {keys, "epochs", NULL},
    {keys, "nodes", NULL},
    {keys, "x", NULL},
    {keys, "s", NULL},
    {flags, "--mount", NULL},
    {flags, "--seed", NULL},
    {flags, "--rate", NULL},
    {flags, "--jobs", NULL},
    {flags, "--date-of-it", NULL},
    {flags, "--", NULL},
    {flags, "-x", NULL},
    {verbs, "serve", NULL},
    {verbs, "list", NULL},
    {verbs, "test", NULL},
    {verbs, "sun-and-rain", NULL},
};

START_TEST(only_a_name_that_may_have_been_meant_is_suggested)
{
    for (size_t i = 0; i < sizeof(meant) / sizeof(meant[0]); i++) {
        size_t count = 0;
        while (meant[i].names[count])
            count++;
        const char *got_name = fl_nearest(meant[i].word, meant[i].names, count);
        const char *want = meant[i].suggested;
        ck_assert_msg(want ? got_name && strcmp(got_name, want) == 0 : !got_name,
                      "'%s' gets %s, not %s", meant[i].word, got_name ? got_name : "nothing",
                      want ? want : "nothing");
    }
    ck_assert_ptr_null(fl_nearest("steps", keys, 0));
    char wide[80];
    memset(wide, 'a', sizeof(wide) - 1);
    wide[sizeof(wide) - 1] = 0;
    ck_assert_ptr_null(fl_nearest(wide, keys, 6));
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, every_kind_of_option_is_read_in_both_forms);
    tcase_add_test(tc, defaults_stay_and_two_dashes_end_the_options);
    tcase_add_test(tc, a_wrong_command_line_is_named);
    tcase_add_test(tc, help_shows_every_option_with_its_default);
    tcase_add_test(tc, the_version_names_the_program_and_not_the_command);
    tcase_add_test(tc, commands_are_found_also_below_commands);
    tcase_add_test(tc, an_unknown_command_gets_the_nearest);
    tcase_add_test(tc, output_that_reaches_nobody_is_a_failure);
    tcase_add_test(tc, a_command_that_may_not_go_on_says_why);
    tcase_add_test(tc, only_a_name_that_may_have_been_meant_is_suggested);
    tcase_add_test(tc, an_option_may_be_given_several_times);
}

FL_TEST_MAIN("base.cli", add_tests)

#include "base/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "runner.h"

struct job {
    char name[64];
    char targets[600];
    uint64_t rounds;
    double lr;
    bool secure;
    int64_t timeout_ms;
    int strategy;
};

static const struct fl_config_key keys[] = {
    {"job", "name", FL_CONFIG_STRING, offsetof(struct job, name), sizeof(((struct job *)0)->name),
     0, 0, NULL, NULL, "the job's name"},
    {"job", "rounds", FL_CONFIG_U64, offsetof(struct job, rounds), 0, 1, 100, NULL, "4", "rounds"},
    {"job", "strategy", FL_CONFIG_CHOICE, offsetof(struct job, strategy), 0, 0, 0,
     "alternating|ffa|fedit", "alternating", "how to aggregate"},
    {"lora", "targets", FL_CONFIG_STRING, offsetof(struct job, targets), 600, 0, 0, NULL, "",
     "adapted modules"},
    {"ranks", "round.*", FL_CONFIG_PATTERN, 0, 0, 1, 1024, NULL, NULL, "rank from a round on"},
    {"train", "lr", FL_CONFIG_DOUBLE, offsetof(struct job, lr), 0, 0, 0.9, NULL, "1e-3",
     "learning rate"},
    {"cohort", "timeout", FL_CONFIG_DURATION, offsetof(struct job, timeout_ms), 0, 1000, 86400000,
     NULL, "60s", "deadline"},
    {"privacy", "secure", FL_CONFIG_BOOL, offsetof(struct job, secure), 0, 0, 0, NULL, "on",
     "mask updates"},
    {"data.*", "path", FL_CONFIG_STRING, 0, 0, 0, 0, NULL, NULL, "data of one job"},
};

static char handled[8192];
static struct job job;
static struct fl_error error;

static enum fl_status handle(void *context, const char *section, const char *key, const char *value,
                             struct fl_error *reason)
{
    (void)context;
    size_t used = strlen(handled);
    snprintf(handled + used, sizeof(handled) - used, "%s/%s=%s;", section, key, value);
    if (strcmp(value, "bad") == 0)
        return fl_fail(reason, FL_EFORMAT, "a bad rank");
    return FL_OK;
}

static const struct fl_config_table table = {keys, sizeof(keys) / sizeof(keys[0]), handle};

static enum fl_status parse(const char *text)
{
    handled[0] = 0;
    memset(&job, 0xa5, sizeof(job));
    return fl_config_parse(&table, text, strlen(text), "job.conf", &job, NULL, &error);
}

static void assert_refused(const char *text, const char *message)
{
    enum fl_status status = parse(text);
    ck_assert_msg(status == FL_EFORMAT, "%s: %s", text, fl_status_text(status));
    ck_assert_str_eq(error.text, message);
}

START_TEST(defaults_fill_what_the_file_leaves_out)
{
    fl_assert_ok(parse("[job]\nname = glossaries\n"), &error);
    ck_assert_str_eq(job.name, "glossaries");
    ck_assert_uint_eq(job.rounds, 4);
    ck_assert_int_eq(job.strategy, 0);
    ck_assert_double_eq(job.lr, 1e-3);
    ck_assert_int_eq(job.timeout_ms, 60000);
    ck_assert(job.secure);
    ck_assert_str_eq(job.targets, "");
}
END_TEST

START_TEST(values_of_every_kind_are_read)
{
    fl_assert_ok(parse("\xef\xbb\xbf# comment\r\n[job]\r\nname=a b ; remark\r\n  rounds = 7\r\n"
                       "strategy = fedit\n; more\n[train]\nlr : 2e-3\n[cohort]\n\ttimeout = 30m\n"
                       "[privacy]\nsecure = off\n[lora]\ntargets ="),
                 &error);
    ck_assert_str_eq(job.name, "a b");
    ck_assert_uint_eq(job.rounds, 7);
    ck_assert_int_eq(job.strategy, 2);
    ck_assert_double_eq(job.lr, 2e-3);
    ck_assert_int_eq(job.timeout_ms, 1800000);
    ck_assert(!job.secure);
}
END_TEST

START_TEST(pattern_keys_and_pattern_sections_go_to_the_handler)
{
    char text[400], section[120];
    memset(section, 'j', 100);
    section[100] = 0;
    snprintf(text, sizeof(text),
             "[job]\nname = a\n[ranks]\nround.1 = 4\nround.2 = 8\n[data.%s]\npath = /x\n", section);
    fl_assert_ok(parse(text), &error);
    char expected[400];
    snprintf(expected, sizeof(expected), "ranks/round.1=4;ranks/round.2=8;data.%s/path=/x;",
             section);
    ck_assert_str_eq(handled, expected);
}
END_TEST

START_TEST(a_value_longer_than_a_line_of_inih_is_read_whole)
{
    char text[800], value[512];
    memset(value, 'q', 500);
    value[500] = 0;
    snprintf(text, sizeof(text), "[lora]\ntargets =  %s  ; remark\n[job]\nname = a\n", value);
    fl_assert_ok(parse(text), &error);
    ck_assert_str_eq(job.targets, value);
    ck_assert_str_eq(job.name, "a");
}
END_TEST

START_TEST(a_wrong_file_is_refused_with_its_line)
{
    assert_refused("[job]\nname = a\n\n[train]\nlrr = 8\n",
                   "job.conf:5: unknown key 'lrr' in [train]; did you mean 'lr'?");
    assert_refused("[job]\nname = a\nwholly = 1\n", "job.conf:3: unknown key 'wholly' in [job]");
    assert_refused("[jbo]\n", "job.conf:1: unknown section [jbo]; did you mean [job]?");
    assert_refused("[something]\nx = 1\n", "job.conf:1: unknown section [something]");
    assert_refused("name = a\n", "job.conf:1: key 'name' stands before any [section]");
    assert_refused("[job]\nname = a\nname = b\n", "job.conf:3: key 'name' is given twice in [job]");
    assert_refused("[ranks]\nround.1 = 1\nround.1 = 2\n",
                   "job.conf:3: key 'round.1' is given twice in [ranks]");
    assert_refused("[ranks]\nround.1 = bad\n", "job.conf:2: a bad rank");
    assert_refused("[ranks]\nround. = 1\n", "job.conf:2: unknown key 'round.' in [ranks]");
    assert_refused("[job]\nrounds = 4\n", "job.conf: key 'name' is missing in [job]");
    assert_refused("[job]\n\nhello\n", "job.conf:3: neither [section] nor key = value");
    assert_refused("[job\n", "job.conf:1: not a section such as [name]");
    assert_refused("[job]\nname = a\001b\n", "job.conf:2: control byte 0x01");
}
END_TEST

START_TEST(a_wrong_value_is_refused_with_its_reason)
{
    assert_refused("[job]\nrounds = many\n",
                   "job.conf:2: [job] rounds: 'many' is not a whole number");
    assert_refused("[job]\nrounds = 0\n", "job.conf:2: [job] rounds: 0 is outside 1 to 100");
    assert_refused("[job]\nstrategy = sum\n",
                   "job.conf:2: [job] strategy: 'sum' is none of alternating|ffa|fedit");
    assert_refused("[train]\nlr = nan\n", "job.conf:2: [train] lr: 'nan' is not a number");
    assert_refused("[train]\nlr = 5\n", "job.conf:2: [train] lr: 5 is outside 0 to 0.9");
    assert_refused("[cohort]\ntimeout = 10ms\n",
                   "job.conf:2: [cohort] timeout: 10ms is outside 1s to 86400s");
    assert_refused("[cohort]\ntimeout =\n", "job.conf:2: [cohort] timeout: '' is not a duration "
                                            "such as 500ms, 60s, 30m, 24h");
    assert_refused("[privacy]\nsecure = perhaps\n",
                   "job.conf:2: [privacy] secure: 'perhaps' is neither on nor off");
    char text[200] = "[job]\nname = ";
    memset(text + strlen(text), 'n', 64);
    assert_refused(text, "job.conf:2: [job] name: longer than 63 bytes");
}
END_TEST

START_TEST(hostile_lines_are_refused_and_do_no_harm)
{
    static char text[4000];
    memset(text, 'k', 3000);
    assert_refused(text, "job.conf:1: line too long for a key");
    text[0] = '[';
    assert_refused(text, "job.conf:1: not a section such as [name]");
    text[1000] = ']';
    assert_refused(text, "job.conf:1: not a section such as [name]");
    ck_assert_int_eq(parse("[]\n"), FL_EFORMAT);
    ck_assert_int_eq(parse("=\n"), FL_EFORMAT);
    ck_assert_int_eq(parse("[job]\n=\n"), FL_EFORMAT);
    ck_assert_int_eq(fl_config_parse(&table, "\0", 1, "x", &job, NULL, &error), FL_EFORMAT);
}
END_TEST

START_TEST(the_sample_shows_every_key_and_parses_once_the_required_ones_are_given)
{
    struct fl_buf sample;
    fl_buf_init(&sample, 10000);
    fl_config_sample(&table, &sample);
    ck_assert_int_eq(fl_buf_status(&sample), FL_OK);
    const char *text = fl_buf_text(&sample);
    ck_assert_ptr_nonnull(strstr(text, "[job]\n; the job's name\nname = \n"));
    ck_assert_ptr_nonnull(strstr(text, "; rounds (1 to 100)\n;rounds = 4\n"));
    ck_assert_ptr_nonnull(strstr(text, ";strategy = alternating\n"));
    ck_assert_ptr_nonnull(strstr(text, "\n;[data.NAME]\n"));
    fl_assert_ok(parse(text), &error);
    ck_assert_uint_eq(job.rounds, 4);
    fl_buf_free(&sample);
}
END_TEST

START_TEST(the_line_of_a_key_is_found_as_the_parser_read_it)
{
    static const char text[] = "\xef\xbb\xbf; lr = 1\n\n[job]\nname = a\n  rounds : 3\n"
                               "[train]\nlr\t=\t1e-2\n;lr = 2\n[job]\nstrategy=ffa";
    ck_assert_int_eq(parse(text), FL_OK);
    ck_assert_int_eq(fl_config_line(text, strlen(text), "job", "name"), 4);
    ck_assert_int_eq(fl_config_line(text, strlen(text), "job", "rounds"), 5);
    ck_assert_int_eq(fl_config_line(text, strlen(text), "train", "lr"), 7);
    ck_assert_int_eq(fl_config_line(text, strlen(text), "job", "strategy"), 10);
    ck_assert_int_eq(fl_config_line(text, strlen(text), "job", "lr"), 0);
    ck_assert_int_eq(fl_config_line(text, strlen(text), "train", "name"), 0);
    ck_assert_int_eq(fl_config_line(text, strlen(text), "jo", "name"), 0);
    ck_assert_int_eq(fl_config_line("", 0, "job", "name"), 0);
    ck_assert_int_eq(fl_config_line("[job", 4, "job", "name"), 0);
}
END_TEST

START_TEST(a_file_is_loaded_under_its_path)
{
    char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "job.conf", &error), &error);
    ck_assert_int_eq(fl_config_load(&table, path, &job, NULL, &error), FL_ENOTFOUND);
    fl_assert_ok(fl_fs_write(path, "[job]\nname=a\n", 13, 0600, &error), &error);
    fl_assert_ok(fl_config_load(&table, path, &job, NULL, &error), &error);
    ck_assert_str_eq(job.name, "a");
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, defaults_fill_what_the_file_leaves_out);
    tcase_add_test(tc, values_of_every_kind_are_read);
    tcase_add_test(tc, pattern_keys_and_pattern_sections_go_to_the_handler);
    tcase_add_test(tc, a_value_longer_than_a_line_of_inih_is_read_whole);
    tcase_add_test(tc, a_wrong_file_is_refused_with_its_line);
    tcase_add_test(tc, a_wrong_value_is_refused_with_its_reason);
    tcase_add_test(tc, hostile_lines_are_refused_and_do_no_harm);
    tcase_add_test(tc, the_sample_shows_every_key_and_parses_once_the_required_ones_are_given);
    tcase_add_test(tc, the_line_of_a_key_is_found_as_the_parser_read_it);
    tcase_add_test(tc, a_file_is_loaded_under_its_path);
}

FL_TEST_MAIN("base.config", add_tests)

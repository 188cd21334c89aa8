/*
 * Goal: patterns match exactly what Python's re.fullmatch() matches, in bounded time; what is not
 * known is refused.
 * Method: a table whose answers were checked against Python; patterns that explode elsewhere.
 */
#include "format/pattern.h"

#include <stdio.h>
#include <string.h>

#include "runner.h"

static const struct {
    const char *pattern, *text;
    int matches;
} cases[] = {
    {"q_proj", "q_proj", 1},
    {"q_proj", "q_projx", 0},
    {"q_proj", "xq_proj", 0},
    {"", "", 1},
    {"", "a", 0},
    {".*q_proj", "model.layers.0.self_attn.q_proj", 1},
    {".*\\.(q|v)_proj", "model.layers.0.self_attn.v_proj", 1},
    {".*\\.(?:q|v)_proj", "model.layers.0.self_attn.k_proj", 0},
    {"model\\.layers\\.\\d+\\.mlp\\.(gate|up|down)_proj", "model.layers.12.mlp.up_proj", 1},
    {"model\\.layers\\.\\d+\\.mlp\\.(gate|up|down)_proj", "model.layers.x.mlp.up_proj", 0},
    {"model\\.layers\\.[0-5]\\..*", "model.layers.5.mlp", 1},
    {"model\\.layers\\.[0-5]\\..*", "model.layers.6.mlp", 0},
    {"[^.]+\\.[^.]+", "a.b", 1},
    {"[^.]+\\.[^.]+", "a.b.c", 0},
    {"[]x]+", "x]x", 1},
    {"[a\\]b]+", "a]b", 1},
    {"[\\d_]+", "1_2", 1},
    {"[\\d_]+", "1a2", 0},
    {"[a-]+", "a-a", 1},
    {"a{3}", "aaa", 1},
    {"a{3}", "aa", 0},
    {"a{2,3}", "a", 0},
    {"a{2,3}", "aa", 1},
    {"a{2,3}", "aaaa", 0},
    {"a{2,}", "aaaaaa", 1},
    {"a{2,}", "a", 0},
    {"(ab|c)*d", "abcabd", 1},
    {"(ab|c)*d", "abad", 0},
    {"(a*)*", "aaaa", 1},
    {"(a?){3}b", "aab", 1},
    {"(a|b|)c", "c", 1},
    {"a|bc|d", "bc", 1},
    {"a|bc|d", "b", 0},
    {"^q_proj$", "q_proj", 1},
    {".*?x", "aax", 1},
    {"\\w+", "a_9", 1},
    {"\\W", ".", 1},
    {"\\D\\S", "ab", 1},
    {"(((((a)))))", "a", 1},
    {"x+y?z*", "xxzz", 1},
    {"x+y?z*", "y", 0},
};

START_TEST(a_pattern_matches_what_python_matches)
{
    struct fl_error error = {0};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fl_pattern *pattern;
        fl_assert_ok(fl_pattern_compile(cases[i].pattern, &pattern, &error), &error);
        ck_assert_msg(fl_pattern_matches(pattern, cases[i].text) == cases[i].matches,
                      "/%s/ on '%s'", cases[i].pattern, cases[i].text);
        fl_pattern_free(&pattern);
    }
}
END_TEST

START_TEST(the_end_of_a_name_matches_behind_a_dot_only)
{
    struct fl_error error = {0};
    struct fl_pattern *pattern;
    fl_assert_ok(fl_pattern_compile("layers\\.\\d\\.q", &pattern, &error), &error);
    ck_assert(fl_pattern_matches_end(pattern, "layers.1.q"));
    ck_assert(fl_pattern_matches_end(pattern, "model.layers.1.q"));
    ck_assert(!fl_pattern_matches_end(pattern, "xlayers.1.q"));
    ck_assert(!fl_pattern_matches_end(pattern, "layers.1.q.x"));
    fl_pattern_free(&pattern);
    fl_assert_ok(fl_pattern_compile("^layers\\.1\\.q", &pattern, &error), &error);
    ck_assert(fl_pattern_matches_end(pattern, "layers.1.q"));
    ck_assert(!fl_pattern_matches_end(pattern, "model.layers.1.q"));
    fl_pattern_free(&pattern);
}
END_TEST

START_TEST(what_is_not_known_is_refused)
{
    static const char *const refused[] = {
        "(?!a)b", "(?=a)", "(?<x>a)", "(?i)a", "a**",   "*a",      "(a",          "a)",
        "[a",     "a\\",   "\\1",     "a{2",   "{2}",   "a{3,2}",  "a{,2}",       "a^b",
        "a$b",    "a|^b",  "\\bq",    "[\\b]", "[z-a]", "a{1001}", "(a{1000}){9}"};
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct fl_error error = {0};
        struct fl_pattern *pattern = NULL;
        ck_assert_msg(fl_pattern_compile(refused[i], &pattern, &error) == FL_EFORMAT, "/%s/",
                      refused[i]);
        ck_assert_ptr_null(pattern);
    }
}
END_TEST

START_TEST(patterns_that_explode_elsewhere_are_quick_or_refused)
{
    static const char *const bombs[] = {
        "((a{255}){255}){255}", "(((((){1000}){1000}){1000}){1000})", "(a*)*(a*)*(a*)*(a*)*b",
        "(a|a)*(a|a)*(a|a)*b", "((((((((((a?)?)?)?)?)?)?)?)?)?)*b"};
    char text[151];
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    for (size_t i = 0; i < sizeof(bombs) / sizeof(bombs[0]); i++) {
        struct fl_error error = {0};
        struct fl_pattern *pattern;
        if (fl_pattern_compile(bombs[i], &pattern, &error) == FL_OK)
            ck_assert(!fl_pattern_matches(pattern, text));
        fl_pattern_free(&pattern);
    }
}
END_TEST

START_TEST(every_path_of_a_model_may_be_an_alternative)
{
    static char text[FL_PATTERN_BYTES_MAX];
    struct fl_error error = {0};
    struct fl_pattern *pattern;
    size_t n = 0;
    for (int i = 0; i < 200; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%slayers\\.%d\\.mlp", i ? "|" : "(", i);
    snprintf(text + n, sizeof(text) - n, ")");
    fl_assert_ok(fl_pattern_compile(text, &pattern, &error), &error);
    ck_assert(fl_pattern_matches(pattern, "layers.0.mlp"));
    ck_assert(fl_pattern_matches(pattern, "layers.199.mlp"));
    ck_assert(!fl_pattern_matches(pattern, "layers.200.mlp"));
    fl_pattern_free(&pattern);
}
END_TEST

START_TEST(long_and_deep_patterns_are_refused)
{
    static char text[FL_PATTERN_BYTES_MAX + 2];
    struct fl_error error = {0};
    struct fl_pattern *pattern;
    memset(text, '(', sizeof(text) - 1);
    ck_assert_int_eq(fl_pattern_compile(text, &pattern, &error), FL_EFORMAT);
    text[FL_PATTERN_BYTES_MAX - 1] = '\0';
    ck_assert_int_eq(fl_pattern_compile(text, &pattern, &error), FL_EFORMAT);
    memset(text, 'a', FL_PATTERN_BYTES_MAX);
    text[FL_PATTERN_BYTES_MAX] = '\0';
    ck_assert_int_eq(fl_pattern_compile(text, &pattern, &error), FL_EFORMAT);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, a_pattern_matches_what_python_matches);
    tcase_add_test(tc, the_end_of_a_name_matches_behind_a_dot_only);
    tcase_add_test(tc, what_is_not_known_is_refused);
    tcase_add_test(tc, patterns_that_explode_elsewhere_are_quick_or_refused);
    tcase_add_test(tc, every_path_of_a_model_may_be_an_alternative);
    tcase_add_test(tc, long_and_deep_patterns_are_refused);
}

FL_TEST_MAIN("format_pattern", add_tests)

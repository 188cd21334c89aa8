/* What a cut keeps. */
#include "worker/data/example.h"

#include <string.h>

#include "runner.h"
#include "worker/data/row.h"

static struct fl_error error;
static struct fl_example example;
static struct fl_example_cut cut;

static void tear_down(void)
{
    fl_example_free(&example);
}

/* ids 0, 1, 2 ...: '.' is not scored, 'x' is. */
static void make(const char *scored, size_t head)
{
    fl_example_clear(&example);
    for (int i = 0; scored[i] != '\0'; i++) {
        ck_assert_int_eq(fl_ids_push(&example.ids, i), FL_OK);
        fl_assert_ok(fl_example_label(&example, scored[i] == 'x', &error), &error);
    }
    example.head = head;
}

static void cut_is(size_t seq_len, const char *expected, size_t tokens, size_t scored)
{
    fl_example_cut(&example, seq_len, &cut);
    ck_assert_uint_eq(example.ids.count, strlen(expected));
    ck_assert_uint_eq(example.labels.count, example.ids.count);
    for (size_t i = 0; i < example.ids.count; i++) {
        ck_assert_int_eq(example.ids.ids[i], expected[i] - 'a');
        int32_t label = example.labels.ids[i];
        ck_assert(label == FL_IGNORE || label == example.ids.ids[i]);
    }
    ck_assert_uint_eq(cut.tokens, tokens);
    ck_assert_uint_eq(cut.scored, scored);
}

START_TEST(what_fits_stays)
{
    make("..xx", 1);
    cut_is(4, "abcd", 0, 0);
    make("", 0);
    cut_is(2, "", 0, 0);
}
END_TEST

START_TEST(the_prompt_gives_way_before_the_completion)
{
    make("......xxx", 2);
    cut_is(8, "abdefghi", 1, 0);
    make("......xxx", 2);
    cut_is(5, "abghi", 4, 0);
    make("......xxx", 2);
    cut_is(4, "aghi", 5, 0);
    make("......xxx", 2);
    cut_is(3, "agh", 6, 1);
    make("...xxx", 0);
    cut_is(4, "cdef", 2, 0);
    make("...xxx", 0);
    cut_is(2, "cd", 4, 2);
    make("...xxx", 9);
    cut_is(5, "acdef", 1, 0);
}
END_TEST

START_TEST(the_end_is_cut_where_the_first_completion_fits)
{
    make("..xx..xx", 1);
    cut_is(6, "abcdef", 2, 2);
    make("....xx..xx", 1);
    cut_is(5, "acdef", 5, 2);
    make("xxxx", 0);
    cut_is(3, "abc", 1, 1);
    make("....", 0);
    cut_is(3, "abc", 1, 0);
}
END_TEST

START_TEST(everything_can_be_scored_but_given_labels)
{
    make("..x", 0);
    fl_example_score_all(&example);
    ck_assert_uint_eq(fl_labels_scored(example.labels.ids, 3), 2);
    make("..x", 0);
    example.given = true;
    fl_example_score_all(&example);
    ck_assert_uint_eq(fl_labels_scored(example.labels.ids, 3), 1);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, NULL, tear_down);
    tcase_add_test(tc, what_fits_stays);
    tcase_add_test(tc, the_prompt_gives_way_before_the_completion);
    tcase_add_test(tc, the_end_is_cut_where_the_first_completion_fits);
    tcase_add_test(tc, everything_can_be_scored_but_given_labels);
}
FL_TEST_MAIN("data example", add_tests)

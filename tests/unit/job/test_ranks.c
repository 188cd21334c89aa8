/*
 * Goal: every site gets the rank that the schedule says; the schedule's own contradictions are
 * found at submission. Method: the rules of the job file one by one, then the plan of whole
 * cohorts.
 */
#include "job/ranks.h"

#include <string.h>

#include "runner.h"

static struct fl_rank_schedule *schedule(const char *const *rules, uint64_t fallback)
{
    static struct fl_rank_schedule self;
    struct fl_error error;

    memset(&self, 0, sizeof self);
    self.fallback = fallback;
    for (; *rules != NULL; rules += 2)
        fl_assert_ok(fl_rank_schedule_add(&self, rules[0], rules[1], &error), &error);
    return &self;
}

#define RULES(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NO_RULES   ((const char *const[]){NULL})

static struct fl_module modules[3] = {
    {.name = "model.layers.0.self_attn.q_proj", .out = 64, .in = 64, .layer = 0},
    {.name = "model.layers.3.self_attn.q_proj", .out = 64, .in = 64, .layer = 3},
    {.name = "model.layers.9.self_attn.v_proj", .out = 6, .in = 64, .layer = 9},
};
static const struct fl_inventory targets = {.modules = modules, .count = 3};

START_TEST(the_smallest_matching_entry_counts_else_the_default)
{
    struct fl_rank_schedule *s = schedule(
        RULES("round.1", "4", "round.2-3", "16", "worker.small", "6", "layers.0-5", "12"), 8);

    ck_assert_uint_eq(fl_rank_of(s, 1, NULL, 9, 64), 4);
    ck_assert_uint_eq(fl_rank_of(s, 2, NULL, 9, 64), 16);
    ck_assert_uint_eq(fl_rank_of(s, 3, NULL, 5, 64), 12);
    ck_assert_uint_eq(fl_rank_of(s, 3, "small", 5, 64), 6);
    ck_assert_uint_eq(fl_rank_of(s, 1, "small", 5, 64), 4);
    ck_assert_uint_eq(fl_rank_of(s, 4, NULL, 9, 64), 8);
    ck_assert_uint_eq(fl_rank_of(s, 4, "small", 9, 64), 6);
    ck_assert_uint_eq(fl_rank_of(s, 4, "other", 6, 64), 8);
    ck_assert_uint_eq(fl_rank_of(s, 4, NULL, 9, 3), 3);
    ck_assert_uint_eq(fl_rank_schedule_largest(s), 16);
}
END_TEST

START_TEST(entries_that_make_no_sense_are_refused)
{
    static const char *const bad[][2] = {
        {"round.0", "4"},     {"round.3-2", "4"},  {"round.", "4"},        {"round.x", "4"},
        {"layers.", "4"},     {"layers.5-", "4"},  {"layers.1-9999", "4"}, {"worker.", "4"},
        {"round.1", "0"},     {"round.1", "1025"}, {"round.1", "four"},    {"rounds.1", "4"},
        {"round.1-2-3", "4"},
    };
    static struct fl_rank_schedule self;
    struct fl_error error;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_int_eq(fl_rank_schedule_add(&self, bad[i][0], bad[i][1], &error), FL_EFORMAT);
    ck_assert_uint_eq(self.count, 0);
}
END_TEST

START_TEST(the_canonical_order_does_not_depend_on_the_file)
{
    struct fl_buf one, two;

    fl_buf_init(&one, 1000);
    fl_buf_init(&two, 1000);
    fl_rank_schedule_print(
        schedule(RULES("worker.b", "2", "layers.3", "4", "round.2-4", "5", "worker.a", "3"), 8),
        &one);
    fl_rank_schedule_print(
        schedule(RULES("round.2-4", "5", "worker.a", "3", "worker.b", "2", "layers.3", "4"), 8),
        &two);
    ck_assert_int_eq(fl_buf_status(&one), FL_OK);
    ck_assert_str_eq(fl_buf_text(&one),
                     "round.2-4 = 5\nworker.a = 3\nworker.b = 2\nlayers.3-3 = 4\n");
    ck_assert_str_eq(fl_buf_text(&one), fl_buf_text(&two));
    fl_buf_free(&one);
    fl_buf_free(&two);
}
END_TEST

/* The plan of a cohort against expected ranks (sites, 3) and global ranks (3). */
static void check_plan(const struct fl_rank_schedule *s, uint32_t round, const char *const *names,
                       uint32_t count, const struct fl_adapter *previous, bool may_shrink,
                       uint32_t least, const uint16_t *ranks, const uint16_t *global)
{
    struct fl_rank_plan plan;
    ck_assert_int_eq(
        fl_rank_schedule_plan(s, round, names, count, &targets, previous, may_shrink, least, &plan),
        FL_OK);
    for (uint32_t i = 0; i < 3 * count; i++)
        ck_assert_uint_eq(plan.ranks[i], ranks[i]);
    for (uint32_t m = 0; m < 3; m++)
        ck_assert_uint_eq(plan.global[m], global[m]);
    fl_rank_plan_free(&plan);
}

START_TEST(a_plan_gives_each_site_its_ranks_and_each_module_the_largest)
{
    struct fl_rank_schedule *s =
        schedule(RULES("round.1", "4", "worker.small", "2", "layers.2-4", "6"), 8);
    const char *const names[2] = {"small", "big"};

    check_plan(s, 1, names, 2, NULL, true, 1, (uint16_t[]){2, 2, 2, 4, 4, 4},
               (uint16_t[]){4, 4, 4});
    check_plan(s, 2, names, 2, NULL, true, 1, (uint16_t[]){2, 2, 2, 8, 6, 6},
               (uint16_t[]){8, 6, 6}); /* module 2: min(in, out) = 6 */
}
END_TEST

START_TEST(an_absent_site_does_not_shrink_the_adapter_but_the_schedule_does)
{
    struct fl_lora_module held[3] = {{.rank = 8}, {.rank = 8}, {.rank = 6}};
    struct fl_adapter previous = {.modules = held, .count = 3};
    struct fl_rank_schedule *s = schedule(RULES("worker.small", "2", "round.3", "4"), 8);
    const char *const names[1] = {"small"};

    check_plan(s, 2, names, 1, &previous, true, 1, (uint16_t[]){2, 2, 2}, (uint16_t[]){8, 8, 6});
    check_plan(s, 3, names, 1, &previous, true, 1, (uint16_t[]){2, 2, 2}, (uint16_t[]){4, 4, 4});
    check_plan(s, 3, names, 1, &previous, false, 1, (uint16_t[]){2, 2, 2}, (uint16_t[]){8, 8, 6});
}
END_TEST

START_TEST(thin_tiers_are_avoided_by_lowering_ranks)
{
    struct fl_rank_schedule *s = schedule(RULES("worker.a", "4", "worker.b", "8", "worker.c", "16"),
                                          8);
    const char *const names[5] = {"a", "b", "c", "d", "e"};

    check_plan(s, 1, names, 5, NULL, true, 3,
               (uint16_t[]){4, 4, 4, 8, 8, 6, 8, 8, 6, 8, 8, 6, 8, 8, 6}, (uint16_t[]){8, 8, 6});
    check_plan(s, 1, names, 3, NULL, true, 3, (uint16_t[]){4, 4, 4, 4, 4, 4, 4, 4, 4},
               (uint16_t[]){4, 4, 4});
}
END_TEST

START_TEST(a_shrinking_schedule_is_noticed)
{
    uint32_t round = 0;

    ck_assert(!fl_rank_schedule_shrinks(schedule(NO_RULES, 8), 10, &round));
    ck_assert(!fl_rank_schedule_shrinks(schedule(RULES("round.1", "4"), 8), 10, &round));
    ck_assert(!fl_rank_schedule_shrinks(schedule(RULES("worker.a", "4", "layers.0-3", "2"), 8), 10,
                                        &round));
    ck_assert(fl_rank_schedule_shrinks(schedule(RULES("round.3-9", "4"), 8), 10, &round));
    ck_assert_uint_eq(round, 3);
    ck_assert(!fl_rank_schedule_shrinks(schedule(RULES("round.3-9", "4"), 8), 2, &round));
    ck_assert(fl_rank_schedule_shrinks(schedule(RULES("round.1-2", "16"), 8), 10, &round));
    ck_assert_uint_eq(round, 3);
    /* in layers 0-3 both rounds give 2; elsewhere 16 falls to 8 */
    ck_assert(fl_rank_schedule_shrinks(schedule(RULES("round.1", "16", "layers.0-3", "2"), 8), 2,
                                       &round));
    ck_assert(!fl_rank_schedule_shrinks(schedule(RULES("round.1", "16", "layers.0-1023", "2"), 8),
                                        2, &round));
}
END_TEST

START_TEST(ranks_that_would_show_a_single_site_are_refused)
{
    struct fl_error error;
    struct fl_rank_schedule *s = schedule(RULES("worker.a", "4", "worker.b", "8", "worker.c", "16"),
                                          8);

    ck_assert_int_eq(fl_rank_schedule_check_tiers(s, 4, 3, 3, &error), FL_EREFUSED);
    ck_assert_ptr_nonnull(strstr(error.text, "rank 16"));
    fl_assert_ok(fl_rank_schedule_check_tiers(schedule(NO_RULES, 8), 4, 3, 3, &error), &error);
    s = schedule(RULES("worker.a", "4"), 8);
    ck_assert_int_eq(fl_rank_schedule_check_tiers(s, 4, 3, 3, &error), FL_EREFUSED);
    fl_assert_ok(fl_rank_schedule_check_tiers(s, 4, 4, 3, &error), &error);
    s = schedule(RULES("worker.a", "4", "round.1-4", "2"), 8);
    fl_assert_ok(fl_rank_schedule_check_tiers(s, 4, 3, 3, &error), &error);
    ck_assert_int_eq(fl_rank_schedule_check_tiers(s, 5, 3, 3, &error), FL_EREFUSED);
    ck_assert_ptr_nonnull(strstr(error.text, "round 5"));
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, the_smallest_matching_entry_counts_else_the_default);
    tcase_add_test(tc, entries_that_make_no_sense_are_refused);
    tcase_add_test(tc, the_canonical_order_does_not_depend_on_the_file);
    tcase_add_test(tc, a_plan_gives_each_site_its_ranks_and_each_module_the_largest);
    tcase_add_test(tc, an_absent_site_does_not_shrink_the_adapter_but_the_schedule_does);
    tcase_add_test(tc, thin_tiers_are_avoided_by_lowering_ranks);
    tcase_add_test(tc, a_shrinking_schedule_is_noticed);
    tcase_add_test(tc, ranks_that_would_show_a_single_site_are_refused);
}

FL_TEST_MAIN("job.ranks", add_tests)

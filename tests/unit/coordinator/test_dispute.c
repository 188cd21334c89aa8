/* Tests of who is to blame for shares that do not open. */
#include "coordinator/dispute.h"

#include <string.h>

#include "runner.h"

#define N 7 /* t = 5: two may lie */

static struct fl_secagg_set sharers, survivors, opened[N];
static struct fl_dispute dispute;

static void all_is_well(void)
{
    memset(&sharers, 0, sizeof sharers);
    memset(&survivors, 0, sizeof survivors);
    memset(opened, 0, sizeof opened);
    for (uint32_t u = 0; u < N; u++) {
        sharers.has[u] = survivors.has[u] = true;
        for (uint32_t v = 0; v < N; v++)
            opened[v].has[u] = true;
    }
}

static bool settle(void)
{
    return fl_dispute_settle(N, &sharers, &survivors, opened, &dispute);
}

static void found(const char *guilty, const char *suspect)
{
    for (uint32_t u = 0; u < N; u++) {
        ck_assert_int_eq(dispute.guilty.has[u], guilty[u] == 'x');
        ck_assert_int_eq(dispute.suspect.has[u], suspect[u] == 'x');
    }
}

START_TEST(denials_that_leave_enough_shares_matter_to_nobody)
{
    all_is_well();
    ck_assert(settle());
    opened[0].has[6] = opened[1].has[6] = false;
    ck_assert(settle());
    found(".......", ".......");
}
END_TEST

START_TEST(who_is_denied_by_more_than_may_lie_is_guilty)
{
    all_is_well();
    for (uint32_t v = 0; v < 3; v++)
        opened[v].has[6] = false;
    ck_assert(!settle());
    found("......x", ".......");
    survivors.has[6] = false; /* gone, and the masks that others share with it remain */
    ck_assert(!settle());
    found("......x", ".......");
}
END_TEST

START_TEST(who_denies_more_than_may_lie_is_guilty)
{
    all_is_well();
    survivors.has[1] = survivors.has[2] = false;
    for (uint32_t u = 1; u < N; u++)
        opened[0].has[u] = false;
    ck_assert(!settle());
    found("x......", ".......");
}
END_TEST

START_TEST(one_word_against_another_makes_both_suspect)
{
    all_is_well();
    survivors.has[1] = survivors.has[2] = false;
    opened[0].has[6] = false;
    ck_assert(!settle());
    found(".......", "x.....x");
}
END_TEST

START_TEST(who_never_shared_cannot_be_denied)
{
    all_is_well();
    sharers.has[6] = survivors.has[6] = false;
    for (uint32_t v = 0; v < N; v++)
        opened[v].has[6] = false;
    ck_assert(settle());
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, denials_that_leave_enough_shares_matter_to_nobody);
    tcase_add_test(tc, who_is_denied_by_more_than_may_lie_is_guilty);
    tcase_add_test(tc, who_denies_more_than_may_lie_is_guilty);
    tcase_add_test(tc, one_word_against_another_makes_both_suspect);
    tcase_add_test(tc, who_never_shared_cannot_be_denied);
}

FL_TEST_MAIN("coordinator.dispute", add_tests)

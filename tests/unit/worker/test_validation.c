/* The verdicts on sequences of validation losses. */
#include "runner.h"

#include <string.h>

#include "worker/validation.h"

/* One evaluation behind one step of training with loss `train`. */
static unsigned note(struct fl_validation *v, double train, double loss)
{
    fl_validation_step(v, train, 10);
    return fl_validation_note(v, v->step + 5, loss);
}

START_TEST(the_lowest_loss_is_the_best_and_the_first_of_equals)
{
    struct fl_validation v = {0};
    ck_assert_uint_eq(note(&v, 3, 2.0), FL_VALIDATION_BEST);
    ck_assert_uint_eq(note(&v, 3, 1.5), FL_VALIDATION_BEST);
    ck_assert_uint_eq(note(&v, 3, 1.5), 0);
    ck_assert_uint_eq(note(&v, 3, 1.7), 0);
    ck_assert_uint_eq(v.best_step, 10);
    ck_assert_uint_eq(v.stale, 2);
    ck_assert_uint_eq(v.step, 20);
    ck_assert_uint_eq(note(&v, 3, 1.4), FL_VALIDATION_BEST);
    ck_assert_uint_eq(v.stale, 0);
    ck_assert_uint_eq(v.evaluations, 5);
}
END_TEST

START_TEST(three_evaluations_above_the_best_warn_once_behind_each_best)
{
    struct fl_validation v = {0};
    (void)note(&v, 3.0, 2.0);
    ck_assert_uint_eq(note(&v, 2.9, 2.1), 0);
    ck_assert_uint_eq(note(&v, 2.8, 2.3), 0);
    ck_assert_uint_eq(note(&v, 2.7, 2.2), FL_VALIDATION_OVERFITS);
    ck_assert_uint_eq(note(&v, 2.6, 2.4), 0);
    ck_assert_uint_eq(note(&v, 3.6, 2.4), 0);
    ck_assert_uint_eq(note(&v, 2.5, 1.9), FL_VALIDATION_BEST);
    ck_assert_uint_eq(note(&v, 2.4, 2.0), 0);
    ck_assert_uint_eq(note(&v, 2.3, 2.0), 0);
    ck_assert_uint_eq(note(&v, 2.2, 2.0), FL_VALIDATION_OVERFITS);
}
END_TEST

START_TEST(a_plateau_and_rising_training_do_not_warn)
{
    struct fl_validation v = {0};
    (void)note(&v, 3.0, 2.0);
    for (int i = 0; i < 5; i++) {
        ck_assert_uint_eq(note(&v, 2.0, 2.0), 0);
    }
    for (int i = 0; i < 5; i++) {
        ck_assert_uint_eq(note(&v, 3.1, 2.5), 0);
    }
    ck_assert_uint_eq(note(&v, 2.9, 2.5), 0);
    ck_assert_uint_eq(note(&v, 3.2, 2.5), 0);
    ck_assert_uint_eq(note(&v, 2.9, 2.5), 0);
    ck_assert_uint_eq(note(&v, 2.9, 2.5), 0);
}
END_TEST

START_TEST(training_loss_is_a_mean_over_tokens)
{
    struct fl_validation v = {0};
    fl_validation_step(&v, 1.0, 30);
    fl_validation_step(&v, 5.0, 10);
    fl_validation_step(&v, 0.0, 0); /* a step with nothing scored */
    (void)fl_validation_note(&v, 3, 1.0);
    ck_assert_double_eq_tol(v.train, 2.0, 1e-12);
    ck_assert_uint_eq(v.train_scored, 0);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, the_lowest_loss_is_the_best_and_the_first_of_equals);
    tcase_add_test(tc, three_evaluations_above_the_best_warn_once_behind_each_best);
    tcase_add_test(tc, a_plateau_and_rising_training_do_not_warn);
    tcase_add_test(tc, training_loss_is_a_mean_over_tokens);
}

FL_TEST_MAIN("worker/validation", add_tests)

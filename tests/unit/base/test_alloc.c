#include "base/alloc.h"

#include <stdint.h>
#include <string.h>

#include "runner.h"

START_TEST(the_nth_allocation_is_refused_once)
{
    int reported = 0;
    fl_alloc_fail_at(1);
    fl_alloc_fault_report(&reported);
    void *first = fl_malloc(8), *second = fl_calloc(2, 4), *third = fl_malloc(8);
    ck_assert_ptr_nonnull(first);
    ck_assert_ptr_null(second);
    ck_assert_ptr_nonnull(third);
    ck_assert_int_eq(fl_alloc_fault_fired(), 1);
    ck_assert_int_eq(reported, 1);
    fl_free(first);
    fl_free(third);
    fl_alloc_fault_report(NULL);
}
END_TEST

START_TEST(every_way_to_allocate_passes_the_fault)
{
    fl_alloc_fail_at(0);
    ck_assert_ptr_null(fl_strdup("text"));
    fl_alloc_fail_at(0);
    ck_assert_ptr_null(fl_calloc_aligned(1, 1));
    char *block = fl_malloc(4);
    fl_alloc_fail_at(0);
    ck_assert_ptr_null(fl_reallocarray(block, 2, 4));
    fl_alloc_fail_at(0);
    fl_alloc_fail_at(-1);
    ck_assert_int_eq(fl_alloc_fault_fired(), 0);
    block[3] = 1; /* still ours */
    fl_free(block);
}
END_TEST

START_TEST(a_product_that_overflows_is_refused)
{
    volatile size_t huge = SIZE_MAX / 2;
    ck_assert_ptr_null(fl_calloc(huge, 3));
    ck_assert_ptr_null(fl_calloc_aligned(huge, 3));
    ck_assert_ptr_null(fl_reallocarray(NULL, huge, 3));
    ck_assert_ptr_null(fl_calloc_aligned(SIZE_MAX - 8, 1));
}
END_TEST

START_TEST(tensors_are_zeroed_and_aligned)
{
    float *block = fl_calloc_aligned(33, sizeof(float));
    ck_assert_ptr_nonnull(block);
    ck_assert_uint_eq((uintptr_t)block % 64, 0);
    for (int i = 0; i < 33; i++)
        ck_assert(block[i] == 0.0f);
    fl_free(block);
}
END_TEST

START_TEST(nothing_is_still_a_pointer)
{
    void *a = fl_malloc(0), *b = fl_calloc(0, 4), *c = fl_calloc_aligned(0, 0);
    ck_assert(a && b && c);
    fl_free(a);
    fl_free(b);
    fl_free(c);
    fl_free(NULL);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, the_nth_allocation_is_refused_once);
    tcase_add_test(tc, every_way_to_allocate_passes_the_fault);
    tcase_add_test(tc, a_product_that_overflows_is_refused);
    tcase_add_test(tc, tensors_are_zeroed_and_aligned);
    tcase_add_test(tc, nothing_is_still_a_pointer);
}

FL_TEST_MAIN("base.alloc", add_tests)

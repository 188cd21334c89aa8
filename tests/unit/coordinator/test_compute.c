/* Tests of the compute thread: requests finish in order, and stopping loses none of them. */
#include "coordinator/compute.h"

#include <poll.h>

#include "base/alloc.h"
#include "runner.h"

struct count {
    struct fl_chore chore;
    int number, *finished, *order;
    int result;
};

static void run_count(struct fl_chore *chore)
{
    struct count *self = (struct count *)chore;
    self->result = 2 * self->number;
}

static void finish_count(struct fl_chore *chore, void *context)
{
    struct count *self = (struct count *)chore;
    if (context) {
        ck_assert_int_eq(self->result, 2 * self->number);
        ck_assert_int_eq(self->number, *self->order);
        ++*self->order;
    }
    ++*self->finished;
    fl_free(self);
}

static int submit_all(struct fl_mill *mill, int count, int *finished, int *order)
{
    for (int i = 0; i < count; i++) {
        struct count *chore = fl_calloc(1, sizeof *chore);
        if (!chore)
            return i;
        *chore = (struct count){{run_count, finish_count, NULL}, i, finished, order, 0};
        fl_mill_submit(mill, &chore->chore);
    }
    return count;
}

static void check(bool threaded)
{
    struct fl_mill *mill;
    struct fl_error error;
    int finished = 0, order = 0;
    fl_assert_ok(fl_mill_start(threaded, &mill, &error), &error);
    int count = submit_all(mill, 50, &finished, &order);
    while (finished < count) {
        struct pollfd fd = {.fd = fl_mill_fd(mill), .events = POLLIN};
        ck_assert_int_eq(poll(&fd, 1, 5000), 1);
        fl_mill_collect(mill, &error);
    }
    fl_mill_stop(&mill);
    ck_assert_ptr_null(mill);
}

START_TEST(requests_finish_in_the_loop_in_order)
{
    check(true);
}
END_TEST

START_TEST(without_a_thread_they_run_at_once)
{
    check(false);
}
END_TEST

START_TEST(stopping_releases_what_was_not_collected)
{
    struct fl_mill *mill;
    struct fl_error error;
    int finished = 0, order = 0;
    fl_assert_ok(fl_mill_start(true, &mill, &error), &error);
    int count = submit_all(mill, 50, &finished, &order);
    fl_mill_stop(&mill);
    ck_assert_int_eq(finished, count);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, requests_finish_in_the_loop_in_order);
    tcase_add_test(tc, without_a_thread_they_run_at_once);
    tcase_add_test(tc, stopping_releases_what_was_not_collected);
}

FL_TEST_MAIN("coordinator.compute", add_tests)

/* What the work thread holds of an attempt's secrets is gone behind it; see memory.h. */
#include "base/alloc.h"
#include "crypto/entropy.h"
#include "crypto/shamir.h"
#include "memory.h"
#include "runner.h"
#include "worker/compute.h"

static void free_an_answer(void *hidden)
{
    struct fl_work_result *result = fl_calloc(1, sizeof(*result));
    ck_assert_ptr_nonnull(result);
    result->reply_bytes = 20 * FL_SCALAR_BYTES;
    result->reply = fl_malloc(result->reply_bytes);
    ck_assert_ptr_nonnull(result->reply);
    fl_entropy_bytes(fl_entropy_system(), result->reply, result->reply_bytes);
    fl_test_hide(result->reply + 10 * FL_SCALAR_BYTES, hidden);
    ck_assert_uint_gt(fl_test_find(hidden, NULL), 0);
    fl_work_result_free(result);
}

/* Of an attempt that went on without it: shares of other sites' secrets. */
START_TEST(an_answer_that_is_not_sent_leaves_nothing_in_memory)
{
    struct fl_hidden hidden;
    fl_test_apart(free_an_answer, &hidden);
    ck_assert_uint_eq(fl_test_find(&hidden, NULL), 0);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, an_answer_that_is_not_sent_leaves_nothing_in_memory);
}

FL_TEST_MAIN("worker.secrets", add_tests)

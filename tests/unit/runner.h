/*
 * runner.h - Check with one main() for every suite.
 *
 *   test_base_buf             runs each test in a process of its own, 30 s a test (more under
 *                             sanitizers); CK_VERBOSITY=verbose lists them.
 *   test_base_buf --torture   runs the suite again and again with the nth allocation, write and
 *                             fsync of each test refused. A failed assertion is then no news; a
 *                             crash, a hang or a sanitizer's report is, and prints how to replay
 * it. FL_FAIL=alloc:17 test_base_buf    one of those runs, with everything printed.
 *
 * Libsodium and jansson are started before the tests (fl_hash_init(), fl_json_init()).
 */
#ifndef FL_TESTS_RUNNER_H
#define FL_TESTS_RUNNER_H

#include <check.h>

/* The body of main(). add puts the tests (and fixtures) of the suite into the test case. */
int fl_runner_main(const char *name, void (*add)(TCase *), int argc, char **argv);

#define FL_TEST_MAIN(name, add)                                                                    \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        return fl_runner_main((name), (add), argc, argv);                                          \
    }

/* Assert FL_OK, and print the text of the struct fl_error when it is not. */
#define fl_assert_ok(call, error)                                                                  \
    do {                                                                                           \
        enum fl_status status_of_call_ = (call);                                                   \
        ck_assert_msg(status_of_call_ == FL_OK, "%s: %s", fl_status_text(status_of_call_),         \
                      (error)->text);                                                              \
    } while (0)

/*
 * A fresh directory for one test, removed with all its contents by fl_runner_main() at the end.
 * out has FL_PATH_BYTES bytes.
 */
void fl_test_directory(char *out);

#endif

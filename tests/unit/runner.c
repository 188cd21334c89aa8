/*
 * runner.c - see runner.h. The fault is armed in the process that Check forks for one test, by the
 * last of its fixtures; whether the test met it comes back through a shared page, because a failed
 * assertion ends that process before any teardown.
 */
#include "runner.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/json.h"

#if defined(__SANITIZE_ADDRESS__)
#define FL_RUNNER_SLOWDOWN 6
#else
#define FL_RUNNER_SLOWDOWN 1
#endif
#define FL_RUNNER_TEST_SECONDS    (30 * FL_RUNNER_SLOWDOWN)
#define FL_RUNNER_FAULTS_MAX      400
#define FL_RUNNER_TORTURE_SECONDS 60.0 /* of a suite; FL_TORTURE_SECONDS changes it */
#define FL_RUNNER_KIND_SECONDS    40.0 /* so that one kind leaves time for the others */
#define FL_RUNNER_OUTPUT_BYTES    65536

struct fault {
    const char *name;
    void (*arm)(long n);
};

static const struct fault faults[] = {
    {"alloc", fl_alloc_fail_at},
    {"write", fl_fs_fail_write_at},
    {"sync", fl_fs_fail_sync_at},
};
#define FL_RUNNER_FAULT_COUNT (sizeof(faults) / sizeof(faults[0]))

struct suite {
    const char *name;
    void (*add)(TCase *);
    char *program;
};

static const struct fault *armed; /* NULL: no fault in this run */
static long armed_at;
static volatile int *met;        /* shared: a test met its fault */
static char root[FL_PATH_BYTES]; /* of all test directories of this process */

static void arm(void)
{
    if (!armed)
        return;
    armed->arm(armed_at);
    fl_alloc_fault_report(met); /* until the test itself arms a fault */
    fl_fs_fault_report(met);
}

static void disarm(void)
{
    if (armed)
        armed->arm(-1);
}

static SRunner *make_runner(const struct suite *self, double timeout_s)
{
    Suite *suite = suite_create(self->name);
    TCase *tests = tcase_create(self->name);
    tcase_set_timeout(tests, timeout_s);
    self->add(tests);
    tcase_add_checked_fixture(tests, arm, disarm); /* last to set up, first to tear down */
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK);
    return runner;
}

void fl_test_directory(char *out)
{
    char path[FL_PATH_BYTES];
    snprintf(path, sizeof(path), "%.4000s/XXXXXX", root);
    ck_assert_msg(mkdtemp(path) != NULL, "cannot make %s", path);
    memcpy(out, path, strlen(path) + 1);
}

static bool make_root(void)
{
    const char *temporary = getenv("TMPDIR");
    snprintf(root, sizeof(root), "%.4000s/fedlora-test-XXXXXX", temporary ? temporary : "/tmp");
    return mkdtemp(root) != NULL;
}

static void remove_root(void)
{
    struct fl_error error;
    if (root[0] && fl_fs_remove(root, &error) != FL_OK)
        fprintf(stderr, "%s\n", error.text);
}

static int run_once(const struct suite *self)
{
    SRunner *runner = make_runner(self, FL_RUNNER_TEST_SECONDS);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    int ran = srunner_ntests_run(runner);
    srunner_free(runner);
    if (ran == 0)
        fprintf(stderr, "%s: no test ran\n", self->name);
    return failed == 0 && ran > 0 ? 0 : 1;
}

/* "alloc:17" into armed and armed_at. */
static bool read_fault(const char *text)
{
    for (size_t i = 0; i < FL_RUNNER_FAULT_COUNT; i++) {
        size_t length = strlen(faults[i].name);
        uint64_t n;
        if (strncmp(text, faults[i].name, length) == 0 && text[length] == ':' &&
            fl_parse_u64(text + length + 1, 0, 1000000000, &n) == FL_OK) {
            armed = &faults[i];
            armed_at = (long)n;
            return true;
        }
    }
    fprintf(stderr, "FL_FAIL=%s: not alloc:N, write:N or sync:N\n", text);
    return false;
}

/* Where the output of tortured tests goes, to be shown only on an error. */
struct capture {
    int fd, saved_out, saved_err;
};

static bool capture_begin(struct capture *self)
{
    fflush(stdout);
    self->fd = memfd_create("output", MFD_CLOEXEC);
    self->saved_out = dup(STDOUT_FILENO);
    self->saved_err = dup(STDERR_FILENO);
    return self->fd >= 0 && dup2(self->fd, STDOUT_FILENO) >= 0 &&
           dup2(self->fd, STDERR_FILENO) >= 0;
}

static void capture_clear(const struct capture *self)
{
    fflush(stdout);
    if (ftruncate(self->fd, 0) != 0 || lseek(self->fd, 0, SEEK_SET) != 0)
        abort();
}

static void capture_end(const struct capture *self)
{
    fflush(stdout);
    dup2(self->saved_out, STDOUT_FILENO);
    dup2(self->saved_err, STDERR_FILENO);
    close(self->saved_out);
    close(self->saved_err);
}

static bool has_error(SRunner *runner)
{
    int count = srunner_ntests_failed(runner);
    TestResult **results = srunner_failures(runner);
    bool found = false;
    for (int i = 0; i < count; i++)
        found = found || tr_rtype(results[i]) == CK_ERROR;
    free((void *)results);
    return found;
}

/* What the tests printed, and Check's lines "file:line:E:..." of the tests that died. */
static void show_error(const struct suite *self, SRunner *runner, const struct capture *capture)
{
    srunner_print(runner, CK_NORMAL);
    capture_end(capture);
    char text[FL_RUNNER_OUTPUT_BYTES];
    off_t end = lseek(capture->fd, 0, SEEK_END);
    off_t start = end > (off_t)sizeof(text) ? end - (off_t)sizeof(text) : 0;
    ssize_t got = pread(capture->fd, text, sizeof(text) - 1, start);
    text[got > 0 ? got : 0] = 0;
    for (char *line = text, *next; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        if (!strstr(line, ":F:"))
            printf("%s\n", line);
    }
    printf("%s: a test died when the fault %s:%ld was injected; replay: FL_FAIL=%s:%ld %s\n",
           self->name, armed->name, armed_at, armed->name, armed_at, self->program);
}

/* One pass over the suite with the fault that is armed. False: a test died. */
static bool run_pass(const struct suite *self, const struct capture *capture)
{
    capture_clear(capture);
    *met = 0;
    SRunner *runner = make_runner(self, FL_RUNNER_TEST_SECONDS);
    srunner_run_all(runner, CK_SILENT);
    bool good = !has_error(runner);
    if (!good)
        show_error(self, runner, capture);
    srunner_free(runner);
    return good;
}

/* All passes of one kind. The note says how far they came. */
static bool torture_kind(const struct suite *self, const struct capture *capture, double until_s,
                         char *note, size_t room)
{
    for (armed_at = 0; armed_at < FL_RUNNER_FAULTS_MAX; armed_at++) {
        if (fl_clock_seconds() > until_s) {
            snprintf(note, room, "%s 0-%ld (out of time)", armed->name, armed_at - 1);
            return true;
        }
        if (!run_pass(self, capture))
            return false;
        if (!*met) {
            snprintf(note, room, "%s: all %ld", armed->name, armed_at);
            return true;
        }
    }
    snprintf(note, room, "%s 0-%d (capped)", armed->name, FL_RUNNER_FAULTS_MAX - 1);
    return true;
}

static int torture(const struct suite *self)
{
    char notes[FL_RUNNER_FAULT_COUNT][64];
    struct capture capture;
    met = mmap(NULL, sizeof(*met), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (met == MAP_FAILED || !capture_begin(&capture))
        return 1;
    const char *given = getenv("FL_TORTURE_SECONDS");
    double seconds = given ? strtod(given, NULL) : FL_RUNNER_TORTURE_SECONDS;
    double start_s = fl_clock_seconds(), end_s = start_s + seconds;
    for (size_t i = 0; i < FL_RUNNER_FAULT_COUNT; i++) {
        armed = &faults[i];
        double share = FL_RUNNER_KIND_SECONDS / FL_RUNNER_TORTURE_SECONDS;
        double until_s = fl_clock_seconds() + share * seconds;
        if (!torture_kind(self, &capture, until_s < end_s ? until_s : end_s, notes[i],
                          sizeof(notes[i])))
            return 1;
    }
    capture_end(&capture);
    printf("%s: no crash with faults injected: %s, %s, %s; %.1f s\n", self->name, notes[0],
           notes[1], notes[2], fl_clock_seconds() - start_s);
    return 0;
}

/*
 * A failed assertion ends its process with everything still allocated, so that leaks mean nothing
 * here. LeakSanitizer reads its options before main(): start again with it off.
 */
static void restart_without_leak_check(char **argv)
{
    const char *options = getenv("ASAN_OPTIONS");
    if (FL_RUNNER_SLOWDOWN == 1 || (options && strstr(options, "detect_leaks=0")))
        return;
    char text[1024];
    snprintf(text, sizeof(text), "%.900s%sdetect_leaks=0", options ? options : "",
             options ? ":" : "");
    if (setenv("ASAN_OPTIONS", text, 1) == 0)
        execv("/proc/self/exe", argv);
}

int fl_runner_main(const char *name, void (*add)(TCase *), int argc, char **argv)
{
    bool wants_torture = argc > 1 && strcmp(argv[1], "--torture") == 0;
    const char *fault = getenv("FL_FAIL");
    struct suite self = {name, add, argv[0]};
    if (argc > 1 && !wants_torture) {
        fprintf(stderr, "usage: %s [--torture]\n", argv[0]);
        return 2;
    }
    if (wants_torture || fault)
        restart_without_leak_check(argv);
    if (!wants_torture && fault && !read_fault(fault))
        return 2;
    fl_hash_init();
    fl_json_init();
    if (!make_root()) {
        fprintf(stderr, "%s: cannot make a temporary directory\n", name);
        return 1;
    }
    int result = wants_torture ? torture(&self) : run_once(&self);
    remove_root();
    return result;
}

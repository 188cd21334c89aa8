/*
 * http_server.h - a small HTTP server on 127.0.0.1 in a child process, for tests of downloads:
 * fixed pages, ranges, redirects, connections that break off, and a log of what was asked. Threads:
 * the test's only one.
 */
#ifndef FL_TESTS_HTTP_SERVER_H
#define FL_TESTS_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define FL_TEST_PAGES_MAX 16

struct fl_test_page {
    const char *path; /* with its query */
    int status;       /* 200, or what is answered instead; 0: 200 */
    const void *body;
    size_t length;
    size_t cut;           /* the first answer breaks off after so many bytes; 0: none does */
    bool no_ranges;       /* a range is answered with the whole */
    const char *location; /* a redirect to this path */
};

/* What one page was asked for, in memory shared with the child. */
struct fl_test_hits {
    int count;
    long range;              /* the last Range's first byte; 0: there was none */
    char authorization[128]; /* the last one; empty: none */
};

struct fl_test_server {
    pid_t child;
    char endpoint[64];         /* "http://127.0.0.1:PORT" */
    struct fl_test_hits *hits; /* (FL_TEST_PAGES_MAX), by page */
};

/* pages are borrowed until fl_test_server_stop(). */
void fl_test_server_start(struct fl_test_server *self, const struct fl_test_page *pages,
                          size_t count);
/* Harmless when it runs no more, or never did. */
void fl_test_server_stop(struct fl_test_server *self);

#endif

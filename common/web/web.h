/*
 * web.h - HTTP for people and monitors, by libmicrohttpd on a thread of its own: /healthz and
 * /readyz here, all else by the daemon's own function from a snapshot (fl_web_view).
 *
 * The seam: the loop of a daemon makes views and publishes them; the HTTP thread only reads the
 * newest, and knows neither database nor protocol state. Nothing a client does can make the loop
 * wait: it takes one lock, for as long as a pointer is exchanged.
 *
 * Bounds: 64 connections, 32 of one address, one request a connection, 8 KiB of request and
 * headers, 10 s from connection to the end of the headers however they trickle in, 60 s for a page
 * and an hour for a file to leave, at most 4 files at once. Only GET and HEAD; bodies are not read.
 * What is refused is logged as "http_refused", rate-limited.
 * Answers carry a Content-Security-Policy without anything from elsewhere, and are not stored.
 * /healthz and /readyz need no token: they say one word.
 * Threads: open, publish, beat, wants, take_note and close are the loop's; the answer function and
 * destroy of views are called on either thread.
 */
#ifndef FL_WEB_WEB_H
#define FL_WEB_WEB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"
#include "web/access.h"

#define FL_WEB_PAGE_BYTES  (8u << 20) /* the longest page */
#define FL_WEB_LIVE_MS     60000      /* a loop that is silent for so long is not healthy */
#define FL_WEB_READY_MS    15000      /* nor ready */
#define FL_WEB_FILE_BYTES  64         /* of the name that a file is saved under, with its NUL */
#define FL_WEB_NOTE_VALUES 2

struct fl_web; /* opaque */

/* A snapshot; first member of the daemon's own struct. Constant once it is published. */
struct fl_web_view {
    void (*destroy)(struct fl_web_view *self);
    uint32_t references; /* under the lock of struct fl_web */
};

/* What the HTTP thread tells the loop: a version was handed out. */
struct fl_web_note {
    int64_t values[FL_WEB_NOTE_VALUES];
    char address[64]; /* of the client, numeric */
};

struct fl_web_reply {
    unsigned code; /* 200; 404 unless the answer function sets it */
    const char *type;
    struct fl_buf body;
    /* a file in its place: an open descriptor, taken over; -1: none */
    int file;
    uint64_t file_bytes;
    char file_name[FL_WEB_FILE_BYTES]; /* saved as; "": shown */
    /* the loop is told before anything is sent; refused (503) while it can't be */
    bool has_note;
    struct fl_web_note note;
};

/* path: what stands before any '?', at most 200 bytes. view is never NULL. */
typedef void (*fl_web_answer)(void *context, const struct fl_web_view *view, const char *path,
                              struct fl_web_reply *reply);

struct fl_web_config {
    const char *listen;     /* HOST:PORT */
    const char *token_file; /* "": none; a relative name is one in the directory */
    const char *directory;  /* the daemon's */
    fl_web_answer answer;
    void *context;
};

/* Says in the log what is served. FL_EFORMAT, FL_EREFUSED, FL_ERANGE as fl_web_access_open();
   FL_EBUSY: the address is taken. */
FL_CHECKED enum fl_status fl_web_open(const struct fl_web_config *config, struct fl_web **out,
                                      struct fl_error *error);
/* Ends the thread and all connections at once; releases the view. */
void fl_web_close(struct fl_web **self);
/* The port that it listens on (where the configuration says 0). */
uint16_t fl_web_port(const struct fl_web *self);

/*
 * Is it time for a new view: somebody asked since the last time, or that was a few seconds ago? At
 * most twice a second, whatever comes of it.
 */
bool fl_web_wants(struct fl_web *self, int64_t now_ms);
/* Takes the view over; the one before is released once nobody reads it. */
void fl_web_publish(struct fl_web *self, struct fl_web_view *view);
/* The loop is alive. unready: a constant text of why it is not ready, NULL when it is. */
void fl_web_beat(struct fl_web *self, int64_t now_ms, const char *unready);
/* The oldest note not yet taken; false: none. */
bool fl_web_take_note(struct fl_web *self, struct fl_web_note *out);

#endif

/*
 * control.h - the commands that work on a coordinator, as JSON requests and answers; the same code
 * runs in the daemon (asked through ipc://control.sock in its directory) and in the command itself
 * when no daemon holds the lock.
 *
 * Request: {"command": NAME, ...}. Answer: {"ok": true, ...} or {"ok": false, "status": N,
 * "text": WHY}. A frame is one byte, 'M' (more follows) or 'E' (the end), and a part of the text.
 * Threads: the loop's, or the command's only one.
 */
#ifndef FL_COORDINATOR_CONTROL_H
#define FL_COORDINATOR_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "coordinator/desk.h"

#define FL_CONTROL_PART_BYTES   131072
#define FL_CONTROL_ANSWER_BYTES (64u << 20)

struct fl_live_worker { /* what the daemon knows about a site */
    bool online;
    bool training;
    int64_t last_seen_ms_ago; /* -1: unknown */
};

/* What a running daemon adds; NULL where none runs. */
struct fl_live {
    void *context;
    void (*worker)(void *context, uint32_t site, struct fl_live_worker *out);
    /* the text for people of what the running job waits for; "" when nothing */
    void (*waiting)(void *context, char *out, size_t bytes);
    int64_t (*running_job)(void *context); /* 0: none */
    void (*queue_changed)(void *context);
    void (*site_revoked)(void *context, uint32_t site);
    enum fl_status (*cancel)(void *context, struct fl_error *error); /* the running job */
};

/* Carry out a request. *answer is a new reference; NULL only when memory is short. */
void fl_control_handle(struct fl_desk *desk, const struct fl_live *live, const json_t *request,
                       json_t **answer);
/* The same for hostile bytes (the daemon's side); out gets the answer's text. */
FL_CHECKED enum fl_status fl_control_bytes(struct fl_desk *desk, const struct fl_live *live,
                                           const void *bytes, size_t length, struct fl_buf *out);

/*
 * The command's side: open the directory and do it, or ask the daemon that holds it. request is
 * consumed. FL_OK: *answer is the answer's object; else *error is what the daemon said.
 */
FL_CHECKED enum fl_status fl_control_call(const char *directory, json_t *request, json_t **answer,
                                          struct fl_error *error);

#endif

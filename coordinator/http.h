/*
 * http.h - the coordinator by HTTP: /metrics, /healthz, /readyz, the status page and its
 * /status.json, and the versions' files. See web/web.h for the thread and its bounds.
 * Threads: the loop's.
 */
#ifndef FL_COORDINATOR_HTTP_H
#define FL_COORDINATOR_HTTP_H

#include "coordinator/desk.h"
#include "coordinator/server.h"

struct fl_http_desk; /* opaque */

/* *out is NULL, and FL_OK, where [http] listen is empty. */
FL_CHECKED enum fl_status fl_http_open(const struct fl_desk *desk, struct fl_http_desk **out,
                                       struct fl_error *error);
void fl_http_close(struct fl_http_desk **self);
/* Called by the loop in each of its turns: a new view when it is time. self may be NULL. */
void fl_http_tick(struct fl_http_desk *self, struct fl_server *server);

#endif

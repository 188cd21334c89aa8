/*
 * http_site.h - a site's daemon by HTTP, for the site's own people: /metrics, /healthz, /readyz, a
 * page and /status.json of what it trains, what left, its losses and what it refused. Off unless
 * the site's worker.conf says [http] listen; nothing of it goes to the coordinator. See web/web.h
 * for the thread and its bounds.
 * Threads: the I/O thread's; a view is constant and may be read by any.
 */
#ifndef FL_WORKER_HTTP_SITE_H
#define FL_WORKER_HTTP_SITE_H

#include "base/buf.h"
#include "worker/client.h"
#include "worker/trainer.h"

#define FL_SITE_ROUNDS_KEPT 128 /* losses, the newest */
#define FL_SITE_STEPS_KEPT  240 /* points of the round that is trained; thinned out when full */

struct fl_http_site; /* opaque */

/* *out is NULL, and FL_OK, where [http] listen is empty. trust: a text for people. */
FL_CHECKED enum fl_status fl_http_site_open(const struct fl_siteconf *conf,
                                            const struct fl_sitestore *store, const char *trust,
                                            struct fl_http_site **out, struct fl_error *error);
void fl_http_site_close(struct fl_http_site **self);

/* What the client tells; self may be NULL in each. */
void fl_http_site_tick(struct fl_http_site *self, struct fl_client *client);
void fl_http_site_evaluated(struct fl_http_site *self, uint64_t job, uint32_t round, double loss);
void fl_http_site_trained(struct fl_http_site *self, uint64_t job, uint32_t round, double loss,
                          double seconds, bool reused);
void fl_http_site_frame(struct fl_http_site *self, size_t sent_bytes, size_t received_bytes);

#endif

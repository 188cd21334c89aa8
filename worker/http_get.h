/*
 * http_get.h - downloads from one HTTPS server, by libcurl: certificates are checked, redirects
 * followed (a few, to https only), the token sent to that server alone, transfers that stall ended.
 *
 * Plain http is spoken to this machine only (127.0.0.1 or localhost), for mirrors behind a tunnel.
 * Threads: one thread a client; *stop may be set from any thread or a signal handler.
 */
#ifndef FL_WORKER_HTTP_GET_H
#define FL_WORKER_HTTP_GET_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

struct fl_http; /* opaque */

/*
 * endpoint: "https://huggingface.co"; token may be NULL; stop may be NULL.
 * All are borrowed. FL_EUSAGE: neither https nor this machine.
 */
FL_CHECKED enum fl_status fl_http_open(const char *endpoint, const char *token,
                                       const atomic_int *stop, struct fl_http **out,
                                       struct fl_error *error);
void fl_http_close(struct fl_http **self);

/*
 * GET endpoint + path (which begins with '/'). Statuses: 401 and 403 are FL_EREFUSED, 404
 * FL_ENOTFOUND, a stalled or unanswered request FL_ETIMEOUT, everything else that may be better the
 * next time FL_EIO; FL_ESTOPPED.
 */
/* The body into *out (initialised, bounded: FL_ERANGE beyond). */
FL_CHECKED enum fl_status fl_http_text(struct fl_http *self, const char *path, struct fl_buf *out,
                                       struct fl_error *error);

/* Bytes of the file so far; called now and then. */
typedef void (*fl_http_progress)(void *context, uint64_t bytes);
/*
 * The body into the file behind fd, which holds its first `offset` bytes already (they are asked
 * for no more, and are cut off if the server sends all). FL_EFORMAT: more than `bytes` came.
 */
FL_CHECKED enum fl_status fl_http_file(struct fl_http *self, const char *path, int fd,
                                       uint64_t offset, uint64_t bytes, fl_http_progress progress,
                                       void *context, struct fl_error *error);

#endif

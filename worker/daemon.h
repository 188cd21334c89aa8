/*
 * daemon.h - opening what `run` and `check` share: configuration, keys, root of trust, and a link
 * to the coordinator. Threads: main thread.
 */
#ifndef FL_WORKER_DAEMON_H
#define FL_WORKER_DAEMON_H

#include "net/transport.h"
#include "worker/siteconf.h"
#include "worker/sitestore.h"
#include "worker/trust.h"

struct fl_daemon {
    struct fl_siteconf *conf;
    struct fl_sitestore store;
    struct fl_trust *trust;
};

/* exclusive: take the lock of the daemon. fl_daemon_close() in any case. */
FL_CHECKED enum fl_status fl_daemon_open(const char *site, bool exclusive, struct fl_daemon *out,
                                         struct fl_error *error);
void fl_daemon_close(struct fl_daemon *self);
/* A link to the configured coordinator. FL_EFORMAT: [coordinator] is not filled in. */
FL_CHECKED enum fl_status fl_daemon_link(const struct fl_daemon *self, int wake_fd,
                                         struct fl_link **out, struct fl_error *error);

#endif

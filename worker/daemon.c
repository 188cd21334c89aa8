/* daemon.c - see daemon.h. */
#include "worker/daemon.h"

#include <string.h>

#include "net/zmq_transport.h"

enum fl_status fl_daemon_open(const char *site, bool exclusive, struct fl_daemon *out,
                              struct fl_error *error)
{
    memset(out, 0, sizeof(*out));
    out->store.lock = -1;
    enum fl_status status = fl_siteconf_load(site, &out->conf, error);
    if (status == FL_OK)
        status = fl_sitestore_open(site, exclusive, &out->store, error);
    if (status == FL_OK)
        status = fl_trust_open(out->store.site, out->conf, fl_keys_public(out->store.keys)->ed25519,
                               &out->trust, error);
    return status;
}

void fl_daemon_close(struct fl_daemon *self)
{
    fl_trust_close(&self->trust);
    fl_sitestore_close(&self->store);
    fl_siteconf_free(&self->conf);
}

enum fl_status fl_daemon_link(const struct fl_daemon *self, int wake_fd, struct fl_link **out,
                              struct fl_error *error)
{
    uint8_t key[FL_KEY_BYTES];
    if (!self->conf->address[0])
        return fl_fail(error, FL_EFORMAT, "%s/worker.conf: [coordinator] address is missing",
                       self->store.site);
    if (fl_unhex(self->conf->coordinator_key, key, sizeof(key)) != FL_OK)
        return fl_fail(error, FL_EFORMAT,
                       "%s/worker.conf: [coordinator] key is not 64 hexadecimal digits",
                       self->store.site);
    struct fl_link_config config = {.endpoint = self->conf->address,
                                    .server_key = key,
                                    .keys = self->store.keys,
                                    .wake_fd = wake_fd};
    return fl_link_open(&config, out, error);
}

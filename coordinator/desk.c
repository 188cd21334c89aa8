/* desk.c - see desk.h. */
#include "coordinator/desk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "crypto/audit_keys.h"
#include "net/zmq_transport.h"

#define DEFAULT_LISTEN "tcp://127.0.0.1:7470"
#define CONF           "coordinator.conf"

static const struct fl_config_key keys[] = {
    {.section = "network",
     .key = "listen",
     .kind = FL_CONFIG_STRING,
     .offset = offsetof(struct fl_coordinator_conf, listen),
     .size = FL_ADDRESS_BYTES,
     .fallback = DEFAULT_LISTEN,
     .doc = "Where sessions are taken, tcp://HOST:PORT; enrolment listens on the next port."},
    {.section = "network",
     .key = "public",
     .kind = FL_CONFIG_STRING,
     .offset = offsetof(struct fl_coordinator_conf, public_address),
     .size = FL_ADDRESS_BYTES,
     .fallback = "",
     .doc = "The address that sites dial, where it differs from listen."},
    {.section = "session",
     .key = "liveness",
     .kind = FL_CONFIG_DURATION,
     .offset = offsetof(struct fl_coordinator_conf, liveness_ms),
     .low = 1000,
     .high = 3600000,
     .fallback = "30s",
     .doc = "A session that says nothing for so long is dead; heartbeats go out three times as "
            "often."},
    {.section = "http",
     .key = "listen",
     .kind = FL_CONFIG_STRING,
     .offset = offsetof(struct fl_coordinator_conf, http_listen),
     .size = FL_WEB_LISTEN_BYTES,
     .fallback = "",
     .doc = "HOST:PORT of /metrics, /healthz, /readyz and a status page; empty: not served."},
    {.section = "http",
     .key = "token_file",
     .kind = FL_CONFIG_STRING,
     .offset = offsetof(struct fl_coordinator_conf, http_token_file),
     .size = FL_PATH_BYTES,
     .fallback = "",
     .doc = "A file with the token that HTTP asks for, mode 0600; must be set where listen is not "
            "this machine's own."},
};
static const struct fl_config_table table = {keys, sizeof keys / sizeof keys[0], NULL};

const struct fl_config_table *fl_coordinator_conf_table(void)
{
    return &table;
}

/* ---- making one ---- */

static enum fl_status check_address(const char *address, const char *option, struct fl_error *error)
{
    if (!address || !address[0])
        return FL_OK;
    char next[FL_ADDRESS_BYTES];
    enum fl_status status = fl_endpoint_shift(address, 1, next, error);
    if (status != FL_OK) {
        fl_error_prefix(error, "%s", option);
        error->status = status = FL_EUSAGE;
    }
    return status;
}

static enum fl_status write_conf(const char *directory, const char *listen,
                                 const char *public_address, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_buf text;
    fl_buf_init(&text, 65536);
    fl_buf_printf(&text,
                  "# fedlora-coordinator: keys left out have their defaults.\n\n"
                  "[network]\n"
                  "# Where sessions are taken; enrolment listens on the next port.\n"
                  "listen = %s\n"
                  "# The address that sites dial, where it differs from listen.\n"
                  "%spublic = %s\n\n"
                  "[session]\n"
                  "# A session that says nothing for so long is dead.\n"
                  "# liveness = 30s\n\n"
                  "[http]\n"
                  "# /metrics, /healthz, /readyz and a status page; not served unless it is set.\n"
                  "# listen = 127.0.0.1:7480\n"
                  "# The token that HTTP asks for; must be set where listen is not this machine's\n"
                  "# own: umask 077; head -c 24 /dev/urandom | base64 > http.token\n"
                  "# token_file = http.token\n",
                  listen ? listen : DEFAULT_LISTEN, public_address ? "" : "# ",
                  public_address ? public_address : "tcp://coordinator.example.org:7470");
    enum fl_status status = fl_buf_status(&text);
    if (status == FL_OK)
        status = fl_path_join(path, directory, CONF, error);
    if (status == FL_OK)
        status = fl_fs_write(path, text.data, text.length, 0600, error);
    fl_buf_free(&text);
    return status;
}

static enum fl_status make_keys(const char *directory, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_keys *pair = NULL;
    enum fl_status status = fl_path_join(path, directory, FL_DESK_KEYS, error);
    if (status == FL_OK) /* of an init that was cut short they are as good as new ones */
        status = fl_keys_load_or_make(path, fl_entropy_system(), &pair, error);
    fl_keys_destroy(&pair);
    return status;
}

enum fl_status fl_desk_create(const char *directory, const char *listen, const char *public_address,
                              struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    int lock = -1;
    enum fl_status status = check_address(listen, "--listen", error);
    if (status == FL_OK)
        status = check_address(public_address, "--public", error);
    if (status == FL_OK)
        status = fl_fs_make_directory(directory, 0700, error);
    if (status == FL_OK)
        status = fl_path_join(path, directory, "lock", error);
    if (status == FL_OK)
        status = fl_fs_lock(path, &lock, error);
    if (status == FL_OK)
        status = fl_path_join(path, directory, "state.db", error);
    if (status == FL_OK && fl_path_exists(path))
        status = fl_fail(error, FL_EEXIST, "%s: there is a coordinator already", directory);
    if (status == FL_OK)
        status = make_keys(directory, error);
    if (status == FL_OK)
        status = write_conf(directory, listen, public_address, error);
    if (status == FL_OK) /* last: its presence says that all is there */
        status = fl_store_create(directory, error);
    if (lock >= 0)
        (void)close(lock);
    return status;
}

/* ---- opening one ---- */

static enum fl_status open_parts(struct fl_desk *self, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(path, self->directory, CONF, error);
    if (status == FL_OK)
        status = fl_config_load(&table, path, &self->conf, NULL, error);
    if (status == FL_OK)
        status = fl_path_join(path, self->directory, FL_DESK_KEYS, error);
    if (status == FL_OK)
        status = fl_keys_load(path, &self->keys, error);
    if (status == FL_OK)
        status = fl_store_open(self->directory, &self->store, error);
    if (status == FL_OK)
        status = fl_roster_load(self->store, &self->roster, error);
    if (status == FL_OK)
        status = fl_path_join(path, self->directory, "audit.log", error);
    if (status != FL_OK)
        return status;
    const struct fl_audit_signer signer = fl_audit_signer_of(self->keys);
    return fl_audit_open(path, &signer, &self->audit, error);
}

static enum fl_status check_there(const char *directory, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(path, directory, "state.db", error);
    if (status == FL_OK && !fl_path_exists(path))
        return fl_fail(error, FL_ENOTFOUND,
                       "%s: no coordinator here (fedlora-coordinator init --dir %s makes one)",
                       directory, directory);
    return status;
}

enum fl_status fl_desk_open(const char *directory, const struct fl_clock *clock,
                            struct fl_desk **out, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    *out = NULL;
    enum fl_status status = check_there(directory, error);
    if (status != FL_OK)
        return status;
    struct fl_desk *self = fl_calloc(1, sizeof *self);
    if (!self)
        return fl_fail_memory(error);
    self->lock = -1;
    self->clock = clock;
    if (!realpath(directory, self->directory))
        status = fl_fail_errno(error, errno, "%s", directory);
    if (status == FL_OK)
        status = fl_path_join(path, self->directory, "lock", error);
    if (status == FL_OK)
        status = fl_fs_lock(path, &self->lock, error);
    if (status == FL_OK)
        status = open_parts(self, error);
    if (status != FL_OK)
        fl_desk_close(&self);
    *out = self;
    return status;
}

void fl_desk_close(struct fl_desk **out)
{
    struct fl_desk *self = *out;
    if (!self)
        return;
    fl_audit_close(&self->audit);
    fl_roster_free(&self->roster);
    fl_store_close(&self->store);
    fl_keys_destroy(&self->keys);
    if (self->lock >= 0)
        (void)close(self->lock);
    fl_free(self);
    *out = NULL;
}

enum fl_status fl_desk_audit(struct fl_desk *self, const char *event, const struct fl_field *fields,
                             struct fl_error *error)
{
    enum fl_status status = fl_audit_append(self->audit, fl_clock_wall(self->clock), event, fields,
                                            error);
    if (status != FL_OK)
        fl_log(FL_LOG_ERROR, "audit_failed", "the audit log cannot be written",
               FL_STR("entry", event), FL_STR("reason", error->text));
    return status;
}

enum fl_status fl_desk_address(const struct fl_desk *self, char *out, struct fl_error *error)
{
    const char *address = self->conf.public_address;
    if (!address[0]) {
        address = self->conf.listen;
        if (strstr(address, "//0.0.0.0:") || strstr(address, "//*:") || strstr(address, "//[::]:"))
            return fl_fail(error, FL_EUSAGE,
                           "no public address is known: set `public` in %s/" CONF
                           " to what sites shall dial",
                           self->directory);
    }
    (void)snprintf(out, FL_ADDRESS_BYTES, "%s", address);
    return FL_OK;
}

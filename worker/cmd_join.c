/*
 * cmd_join.c - `fedlora-worker join`: make the site's keys, prove the invitation to the
 * coordinator's enrolment port, and write a commented worker.conf. The token is the only secret
 * that travels by hand; "-" reads it from stdin, so that it need not appear in a process list.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/process.h"
#include "crypto/audit_keys.h"
#include "crypto/token.h"
#include "net/zmq_transport.h"
#include "proto/wire.h"
#include "worker/commands.h"
#include "worker/siteconf.h"
#include "worker/sitestore.h"

#define JOIN_MS 30000

struct join {
    const char *site, *token_text;
    char name[FL_NAME_BYTES];
    struct fl_token token;
    struct fl_keys *keys;
    int lock; /* of the site's directory; -1: not held */
    struct fl_audit *audit;
};

static enum fl_status read_token(struct join *self, struct fl_error *error)
{
    struct fl_buf text;
    fl_buf_init(&text, 4096);
    enum fl_status status = FL_OK;
    if (strcmp(self->token_text, "-") == 0)
        status = fl_fs_read_stdin(4096, &text, error);
    if (status == FL_OK)
        status = fl_token_parse(text.data ? fl_buf_text(&text) : self->token_text, &self->token,
                                error);
    if (status == FL_EFORMAT && !text.data && access(self->token_text, F_OK) == 0)
        status =
            fl_fail(error, FL_EFORMAT,
                    "'%.200s' is a file, not a join token; for the token in it: fedlora-worker "
                    "join - --dir %s < %.200s",
                    self->token_text, self->site, self->token_text);
    if (status == FL_OK && self->token.expires_ms < fl_clock_wall(fl_clock_system()))
        status = fl_fail(error, FL_EREFUSED,
                         "this token has expired; ask the coordinator's operator for a new one");
    if (text.data)
        sodium_memzero(text.data, text.length);
    fl_buf_free(&text);
    return status == FL_ERANGE ? FL_EFORMAT : status;
}

/* Keys and audit log are there, and good, before the token is spent. */
static enum fl_status prepare_site(struct join *self, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_fs_make_directory(self->site, 0700, error);
    if (status == FL_OK)
        status = fl_path_join(path, self->site, "lock", error);
    if (status == FL_OK)
        status = fl_fs_lock(path, &self->lock, error);
    if (status == FL_EBUSY)
        status = fl_fail(error, FL_EBUSY,
                         "another fedlora-worker runs on %s; end it before the site joins anew",
                         self->site);
    if (status == FL_OK)
        status = fl_path_join(path, self->site, FL_SITE_KEYS, error);
    if (status == FL_OK)
        status = fl_keys_load_or_make(path, fl_entropy_system(), &self->keys, error);
    if (status == FL_OK)
        status = fl_path_join(path, self->site, "audit.log", error);
    if (status != FL_OK)
        return status;
    const struct fl_audit_signer signer = fl_audit_signer_of(self->keys);
    return fl_audit_open(path, &signer, &self->audit, error);
}

/* The site is enrolled, whether this can be written down or not. */
static void record(const struct join *self)
{
    struct fl_error error;
    char key[FL_KEY_HEX_BYTES];
    fl_hex(self->token.coordinator, FL_KEY_BYTES, key);
    const struct fl_field fields[] = {FL_STR("name", self->name),
                                      FL_STR("coordinator", self->token.address),
                                      FL_STR("coordinator_key", key),
                                      {.kind = FL_FIELD_END}};
    if (fl_audit_append(self->audit, fl_clock_wall(fl_clock_system()), "joined", fields, &error) !=
        FL_OK)
        fprintf(stderr, "The audit log does not say so: %s\n", error.text);
}

static enum fl_status send_join(const struct join *self, struct fl_link *link,
                                struct fl_error *error)
{
    struct fl_wire message = {.kind = FL_WIRE_JOIN};
    struct fl_wire_join *join = &message.as.join;
    const struct fl_identity *identity = fl_keys_public(self->keys);
    struct fl_buf frame;
    fl_buf_init(&frame, FL_CONTROL_BYTES_MAX);
    memcpy(join->invitation, self->token.invitation, sizeof(join->invitation));
    /* a placeholder: the site's name is the invitation's, and comes back with the answer */
    fl_wire_set_text(join->name, sizeof(join->name), self->name);
    memcpy(join->x25519, identity->x25519, FL_KEY_BYTES);
    memcpy(join->ed25519, identity->ed25519, FL_KEY_BYTES);
    fl_join_mac(self->token.secret, self->token.coordinator, identity, join->name, join->mac);
    fl_keys_sign(self->keys, FL_JOIN_LABEL, join->mac, sizeof(join->mac), join->signature);
    enum fl_status status = fl_wire_encode(&message, &frame);
    if (status == FL_OK)
        status = fl_link_send(link, frame.data, frame.length);
    fl_buf_free(&frame);
    return status == FL_OK ? FL_OK : fl_fail(error, status, "the request could not be sent");
}

static enum fl_status take_answer(struct join *self, const struct fl_link_event *event,
                                  struct fl_error *error)
{
    struct fl_wire message;
    enum fl_status status = fl_wire_decode(event->frame, event->length, &message, error);
    if (status != FL_OK)
        return status;
    if (message.kind != FL_WIRE_JOIN_ANSWER)
        status = fl_fail(error, FL_EFORMAT, "the coordinator answered with %s",
                         fl_wire_kind_name(message.kind));
    else if (!message.as.join_answer.accepted)
        status = fl_fail(error, FL_EREFUSED, "the coordinator refused: %s",
                         message.as.join_answer.reason);
    else
        fl_wire_set_text(self->name, sizeof(self->name), message.as.join_answer.name);
    fl_wire_free(&message);
    return status;
}

static enum fl_status converse(struct join *self, struct fl_link *link, struct fl_error *error)
{
    const struct fl_clock *clock = fl_clock_system();
    int64_t deadline = fl_clock_now(clock) + JOIN_MS;
    for (int64_t now = fl_clock_now(clock); now < deadline; now = fl_clock_now(clock)) {
        struct fl_link_event event;
        enum fl_status status = fl_link_next(link, deadline - now, &event);
        if (status == FL_ETIMEOUT)
            break;
        if (status != FL_OK && status != FL_ESTOPPED)
            return fl_fail(error, status, "the network layer failed");
        if (status == FL_ESTOPPED)
            continue;
        switch (event.kind) {
        case FL_LINK_UP:
            status = send_join(self, link, error);
            if (status != FL_OK)
                return status;
            break;
        case FL_LINK_FRAME:
            return take_answer(self, &event, error);
        case FL_LINK_DENIED:
            return fl_fail(error, FL_EREFUSED, "the coordinator refused the connection");
        case FL_LINK_DOWN:
            usleep(500000);
            status = fl_link_reset(link);
            if (status != FL_OK)
                return fl_fail(error, status, "the network layer failed");
            break;
        default:
            break;
        }
    }
    return fl_fail(error, FL_ETIMEOUT, "no coordinator answered at %s within %d s",
                   self->token.address, JOIN_MS / 1000);
}

static enum fl_status enrol(struct join *self, struct fl_error *error)
{
    char endpoint[FL_ADDRESS_BYTES];
    struct fl_link *link = NULL;
    enum fl_status status = fl_endpoint_shift(self->token.address, 1, endpoint, error);
    struct fl_link_config config = {.endpoint = endpoint,
                                    .server_key = self->token.coordinator,
                                    .keys = self->keys,
                                    .wake_fd = -1};
    if (status == FL_OK)
        status = fl_link_open(&config, &link, error);
    if (status == FL_OK)
        status = converse(self, link, error);
    if (link)
        fl_link_close(&link);
    return status;
}

/* An existing worker.conf is the site's own work: it is kept, and the new one put beside it. */
static enum fl_status write_conf(const struct join *self, char *path, struct fl_error *error)
{
    struct fl_buf text;
    char key[FL_KEY_HEX_BYTES];
    fl_buf_init(&text, 1u << 20);
    fl_hex(self->token.coordinator, FL_KEY_BYTES, key);
    fl_siteconf_sample(self->token.address, key, &text);
    enum fl_status status = fl_buf_status(&text) == FL_OK ? FL_OK : fl_fail_memory(error);
    if (status == FL_OK)
        status = fl_path_join(path, self->site, "worker.conf", error);
    if (status == FL_OK && fl_path_exists(path))
        status = fl_path_join(path, self->site, "worker.conf.new", error);
    if (status == FL_OK)
        status = fl_fs_write(path, text.data, text.length, 0600, error);
    fl_buf_free(&text);
    return status;
}

static enum fl_status report(const struct join *self, const char *conf, bool as_json,
                             struct fl_error *error)
{
    char identity[FL_IDENTITY_TEXT_BYTES];
    fl_identity_encode(fl_keys_public(self->keys), identity);
    bool kept = strcmp(conf + strlen(conf) - strlen(".new"), ".new") == 0;
    fprintf(stderr, "This site is now '%s' at %s.\n", self->name, self->token.address);
    if (kept)
        fprintf(stderr,
                "Your worker.conf was kept; a fresh one lies in %s: see whether [coordinator] "
                "there is the same.\n",
                conf);
    fprintf(stderr,
            "Next: name your models and data in %s/worker.conf, then run\n"
            "  fedlora-worker check --dir %s\n  fedlora-worker run --dir %s\n",
            self->site, self->site, self->site);
    if (!as_json)
        return FL_OK;
    json_t *root = json_pack("{s:s,s:s,s:s,s:s}", "name", self->name, "coordinator",
                             self->token.address, "identity", identity, "conf", conf);
    enum fl_status status = root ? fl_json_print(root) : FL_ENOMEM;
    json_decref(root);
    return status == FL_OK ? FL_OK : fl_fail(error, status, "writing the result failed");
}

int fl_cmd_join(int argc, char **argv)
{
    struct join self = {.name = "site", .lock = -1};
    bool as_json = false;
    const struct fl_option options[] = {
        {.name = "--dir",
         .value = "SITE",
         .kind = FL_OPTION_STRING,
         .target = &self.site,
         .required = true,
         .doc = "the site's directory, made if absent"},
        {.name = "--json",
         .kind = FL_OPTION_FLAG,
         .target = &as_json,
         .doc = "print name, coordinator, identity and conf as one JSON object"},
    };
    const struct fl_positional positionals[] = {
        {.name = "TOKEN",
         .target = &self.token_text,
         .doc = "what `fedlora-coordinator invite` printed; - reads it from stdin"},
    };
    const struct fl_usage usage = {
        .program = "fedlora-worker join",
        .summary = "Enrol this site at a coordinator: makes the site's keys here, proves the\n"
                   "invitation, and writes a commented worker.conf.",
        .example = "fedlora-worker join - --dir /var/lib/fedlora/site < token",
        .options = options,
        .option_count = sizeof(options) / sizeof(options[0]),
        .positionals = positionals,
        .positional_count = 1};
    int code;
    char conf[FL_PATH_BYTES];
    struct fl_error error = {0};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    fl_process_no_dumps();
    enum fl_status status = read_token(&self, &error);
    if (status == FL_OK)
        status = prepare_site(&self, &error);
    if (status == FL_OK)
        status = enrol(&self, &error);
    if (status == FL_OK)
        record(&self);
    if (status == FL_OK)
        status = write_conf(&self, conf, &error);
    if (status == FL_OK)
        status = report(&self, conf, as_json, &error);
    fl_audit_close(&self.audit);
    fl_keys_destroy(&self.keys);
    if (self.lock >= 0)
        close(self.lock);
    sodium_memzero(&self.token, sizeof(self.token));
    return status == FL_OK ? 0 : fl_cli_fail(usage.program, &error);
}

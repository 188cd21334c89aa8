/*
 * desk.h - what every command of the coordinator works on: its directory, opened under the lock.
 * Threads: one owner.
 */
#ifndef FL_COORDINATOR_DESK_H
#define FL_COORDINATOR_DESK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/audit.h"
#include "base/clock.h"
#include "base/config.h"
#include "coordinator/roster.h"
#include "coordinator/store.h"
#include "crypto/keys.h"
#include "crypto/token.h"
#include "web/limits.h"

#define FL_DESK_KEYS "coordinator.key" /* within the directory */

struct fl_coordinator_conf {
    char listen[FL_ADDRESS_BYTES];         /* "tcp://HOST:PORT"; enrolment is the port + 1 */
    char public_address[FL_ADDRESS_BYTES]; /* what sites dial; "" = listen */
    int64_t liveness_ms;                   /* a session without any frame for so long is dead */
    char http_listen[FL_WEB_LISTEN_BYTES]; /* HOST:PORT; "": HTTP is off */
    char http_token_file[FL_PATH_BYTES];   /* "": none; relative: in the directory */
};

const struct fl_config_table *fl_coordinator_conf_table(void);

struct fl_desk {
    char directory[FL_PATH_BYTES]; /* absolute */
    int lock;
    struct fl_coordinator_conf conf;
    struct fl_keys *keys;
    struct fl_store *store;
    struct fl_roster *roster;
    struct fl_audit *audit;
    const struct fl_clock *clock;
};

/* Make the directory's contents. listen and public_address may be NULL. FL_EEXIST. */
FL_CHECKED enum fl_status fl_desk_create(const char *directory, const char *listen,
                                         const char *public_address, struct fl_error *error);
/* FL_EBUSY: another process holds the lock. FL_ENOTFOUND: no coordinator there. */
FL_CHECKED enum fl_status fl_desk_open(const char *directory, const struct fl_clock *clock,
                                       struct fl_desk **out, struct fl_error *error);
void fl_desk_close(struct fl_desk **self);

/* One line in the audit log; a failure is logged, and returned. */
FL_CHECKED enum fl_status fl_desk_audit(struct fl_desk *self, const char *event,
                                        const struct fl_field *fields, struct fl_error *error);
/*
 * The address that sites dial. FL_EUSAGE: it listens on every interface and no public address is
 * known.
 */
FL_CHECKED enum fl_status fl_desk_address(const struct fl_desk *self, char *out,
                                          struct fl_error *error);

#endif

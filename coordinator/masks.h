/*
 * masks.h - the coordinator's side of secure aggregation (secagg.h) for the running attempt: keeps
 * what sites say durable before anything follows from it, and tells each site what it needs next.
 * It sees adverts, sealed shares, masked updates and answers; never a single update.
 * The sets U1, U2, U3 are marks of the round's members; the bytes are rows of the database.
 * Threads: the loop's; a request to unmask is given to the compute thread, which owns it.
 */
#ifndef FL_COORDINATOR_MASKS_H
#define FL_COORDINATOR_MASKS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "proto/wire.h"
#include "secagg/secagg.h"

struct fl_server;
struct fl_seat;
struct fl_masks; /* opaque: what is in memory of the attempt's cohort */

/* Everything that removing the masks of a sum needs. */
struct fl_unmask_request {
    struct fl_secagg_context context;
    struct fl_secagg_cohort cohort;
    struct fl_secagg_set sharers, survivors, answered;
    uint8_t *answers; /* (n, n, FL_SCALAR_BYTES), owned */
    uint32_t blamed;  /* result: whose answer was wrong; UINT32_MAX */
};
void fl_unmask_request_free(struct fl_unmask_request *self);

/* ---- what sites say; the message is of the present attempt ---- */
void fl_masks_take_advert(struct fl_server *server, struct fl_seat *seat,
                          const struct fl_wire *message);
void fl_masks_take_shares(struct fl_server *server, struct fl_seat *seat,
                          const struct fl_wire *message);
void fl_masks_take_signed(struct fl_server *server, struct fl_seat *seat,
                          const struct fl_wire *message);
void fl_masks_take_answer(struct fl_server *server, struct fl_seat *seat,
                          const struct fl_wire *message);

/* Whose shares opened at that site, until its update is taken; false: not a word of it. */
bool fl_masks_note_opened(struct fl_server *server, const struct fl_seat *seat,
                          const struct fl_wire *message);
/* Its update is durable and well-formed. */
void fl_masks_take_update(struct fl_server *server, uint32_t site);

/* ---- what they are told ---- */
void fl_masks_send_cohort(struct fl_server *server, struct fl_seat *seat);
/* The sharers and what each of them sealed for this site, borrowed until the next call. */
FL_CHECKED enum fl_status fl_masks_fill_collect(struct fl_server *server,
                                                const struct fl_seat *seat,
                                                struct fl_wire_collect *out,
                                                struct fl_error *error);
void fl_masks_send_survivors(struct fl_server *server, struct fl_seat *seat);
void fl_masks_send_unmask(struct fl_server *server, struct fl_seat *seat);

/*
 * The survivors are fixed: would a rank direction show too few of them, or did the shares of a
 * member open at too few? Then the attempt breaks, before anybody has answered. Also behind a
 * restart.
 */
void fl_masks_check_survivors(struct fl_server *server);
/* *out is new; the caller owns it. */
FL_CHECKED enum fl_status fl_masks_request(struct fl_server *server, struct fl_unmask_request **out,
                                           struct fl_error *error);
/* The name of a member of the cohort, for logs. Borrowed. */
const char *fl_masks_name(const struct fl_unmask_request *request, uint32_t member);
void fl_masks_free(struct fl_server *server); /* forget what is in memory */
/* The attempt is over: forget it, in the database too. */
void fl_masks_drop(struct fl_server *server, int64_t job);

#endif

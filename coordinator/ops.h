/*
 * ops.h - the commands behind control.h, one function each. request is checked by the function; the
 * answer's members go into *answer, which is a new object already.
 * Threads: the desk's owner.
 */
#ifndef FL_COORDINATOR_OPS_H
#define FL_COORDINATOR_OPS_H

#include "coordinator/control.h"

struct fl_op {
    struct fl_desk *desk;
    const struct fl_live *live; /* may be NULL */
    const json_t *request;      /* an object */
    json_t *answer;             /* an object */
};

/* The status is the answer's; *error holds its text. */
typedef enum fl_status (*fl_op_function)(const struct fl_op *op, struct fl_error *error);

enum fl_status fl_op_invite(const struct fl_op *op, struct fl_error *error);
enum fl_status fl_op_roster_list(const struct fl_op *op, struct fl_error *error);
enum fl_status fl_op_roster_add(const struct fl_op *op, struct fl_error *error);
enum fl_status fl_op_roster_revoke(const struct fl_op *op, struct fl_error *error);
enum fl_status fl_op_job_submit(const struct fl_op *op, struct fl_error *error);
enum fl_status fl_op_job_list(const struct fl_op *op, struct fl_error *error);
enum fl_status fl_op_job_show(const struct fl_op *op, struct fl_error *error);
enum fl_status fl_op_job_cancel(const struct fl_op *op, struct fl_error *error);
enum fl_status fl_op_job_resume(const struct fl_op *op, struct fl_error *error);
enum fl_status fl_op_adapters_list(const struct fl_op *op, struct fl_error *error);
enum fl_status fl_op_adapters_get(const struct fl_op *op, struct fl_error *error);
enum fl_status fl_op_adapters_rollback(const struct fl_op *op, struct fl_error *error);
enum fl_status fl_op_status(const struct fl_op *op, struct fl_error *error);
enum fl_status fl_op_health(const struct fl_op *op, struct fl_error *error);

/* ---- helpers that they share (ops.c) ---- */

/* FL_OK, or FL_EINVAL when the request lacks it. Borrowed. */
FL_CHECKED enum fl_status fl_op_text(const struct fl_op *op, const char *key, const char **out,
                                     struct fl_error *error);
/* fallback where absent */
int64_t fl_op_number(const struct fl_op *op, const char *key, int64_t fallback);
/* Set a member; memory trouble shows as a missing member, and FL_ENOMEM. value is consumed. */
FL_CHECKED enum fl_status fl_op_set(json_t *object, const char *key, json_t *value);
/* The answer's "refusals": of that job; none for job 0. */
FL_CHECKED enum fl_status fl_op_refusals(const struct fl_op *op, int64_t job,
                                         struct fl_error *error);
/* null for NaN and infinities */
json_t *fl_op_real(double value);
json_t *fl_op_hash(const uint8_t hash[FL_HASH_BYTES]);
/* "2026-01-31T12:00:00Z" */
json_t *fl_op_time(int64_t wall_ms);

#endif

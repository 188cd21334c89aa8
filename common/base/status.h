/*
 * status.h - the one error enum, and the message for people that goes with it.
 *
 * Every fallible call returns enum fl_status; results leave through an out-pointer that is NULL on
 * failure. Where a person will read the outcome, the call also takes a struct fl_error * (never
 * NULL) and fills it once, at the place that knows most: what happened, where, why, what to do.
 * Threads: no state.
 */
#ifndef FL_BASE_STATUS_H
#define FL_BASE_STATUS_H

enum fl_status {
    FL_OK = 0,
    FL_ENOMEM,    /* an allocation was refused */
    FL_EINVAL,    /* the caller's value makes no sense here */
    FL_ERANGE,    /* a size or a number lies outside its documented bounds */
    FL_EIO,       /* the operating system failed a read, write, fsync, ... */
    FL_EFORMAT,   /* bytes from outside (file, message, token) are not what they must be */
    FL_ENOTFOUND, /* no such file, job, worker, version, tensor */
    FL_EEXIST,    /* it is already there */
    FL_EREFUSED,  /* a peer or a policy said no */
    FL_ETIMEOUT,  /* a deadline passed */
    FL_EBUSY,     /* another process holds it, or try again later */
    FL_EUSAGE,    /* the command line is wrong */
    FL_ESTOPPED,  /* asked to stop, and did */
    FL_ENOSPC,    /* the disk is full */
    FL_STATUS_COUNT
};

#define FL_CHECKED                     __attribute__((warn_unused_result))
#define FL_PRINTF(format_index, first) __attribute__((format(printf, format_index, first)))

#define FL_ERROR_TEXT_BYTES 640

struct fl_error {
    enum fl_status status;
    char text[FL_ERROR_TEXT_BYTES]; /* one line, NUL-terminated, control bytes made harmless */
};

/*
 * Fill *error with status and a formatted line, and return status, so that a failing function ends
 * with `return fl_fail(error, FL_EFORMAT, "%s: ...", path);`. Bytes below 0x20 become '?', because
 * the text may quote a peer. error may be NULL: then only the status is returned.
 */
enum fl_status fl_fail(struct fl_error *error, enum fl_status status, const char *format, ...)
    FL_PRINTF(3, 4);

/* As fl_fail() for an out-of-memory condition, with the same words everywhere. */
enum fl_status fl_fail_memory(struct fl_error *error);

/*
 * As fl_fail() for a failed system call: appends ": " and the text of errno_value, and chooses
 * the status from it (ENOENT: FL_ENOTFOUND, ENOSPC and EDQUOT: FL_ENOSPC, EEXIST: FL_EEXIST,
 * ENOMEM: FL_ENOMEM, else FL_EIO).
 */
enum fl_status fl_fail_errno(struct fl_error *error, int errno_value, const char *format, ...)
    FL_PRINTF(3, 4);

/* Put a formatted prefix and ": " in front of an error's text ("job 3", "worker.conf:7"). */
void fl_error_prefix(struct fl_error *error, const char *format, ...) FL_PRINTF(2, 3);

/* A constant name such as "out of memory", for logs. */
const char *fl_status_text(enum fl_status status);

/*
 * The exit code of the command-line contract: 0 done, 1 failed, 2 usage (FL_EUSAGE), 3 bad input
 * file (FL_EFORMAT), 4 refused by peer or policy (FL_EREFUSED), 5 timed out (FL_ETIMEOUT).
 */
int fl_exit_code(enum fl_status status);

#endif

/* status.c - see status.h. */
#include "base/status.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void make_harmless(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
    }
}

static void set_text(struct fl_error *error, const char *format, va_list args)
{
    vsnprintf(error->text, sizeof(error->text), format, args);
    make_harmless(error->text);
}

enum fl_status fl_fail(struct fl_error *error, enum fl_status status, const char *format, ...)
{
    assert(status != FL_OK);
    if (!error)
        return status;
    va_list args;
    va_start(args, format);
    set_text(error, format, args);
    va_end(args);
    error->status = status;
    return status;
}

enum fl_status fl_fail_memory(struct fl_error *error)
{
    return fl_fail(error, FL_ENOMEM, "out of memory");
}

static enum fl_status status_of_errno(int value)
{
    switch (value) {
    case ENOENT:
        return FL_ENOTFOUND;
    case ENOSPC:
    case EDQUOT:
        return FL_ENOSPC;
    case EEXIST:
        return FL_EEXIST;
    case ENOMEM:
        return FL_ENOMEM;
    default:
        return FL_EIO;
    }
}

enum fl_status fl_fail_errno(struct fl_error *error, int errno_value, const char *format, ...)
{
    enum fl_status status = status_of_errno(errno_value);
    if (!error)
        return status;
    va_list args;
    va_start(args, format);
    set_text(error, format, args);
    va_end(args);
    size_t used = strlen(error->text);
    snprintf(error->text + used, sizeof(error->text) - used, ": %s", strerror(errno_value));
    error->status = status;
    return status;
}

void fl_error_prefix(struct fl_error *error, const char *format, ...)
{
    char before[FL_ERROR_TEXT_BYTES];
    memcpy(before, error->text, sizeof(before));
    va_list args;
    va_start(args, format);
    set_text(error, format, args);
    va_end(args);
    size_t used = strlen(error->text);
    snprintf(error->text + used, sizeof(error->text) - used, ": %s", before);
}

const char *fl_status_text(enum fl_status status)
{
    static const char *const texts[FL_STATUS_COUNT] = {
        [FL_OK] = "ok",
        [FL_ENOMEM] = "out of memory",
        [FL_EINVAL] = "invalid value",
        [FL_ERANGE] = "out of range",
        [FL_EIO] = "input/output error",
        [FL_EFORMAT] = "malformed input",
        [FL_ENOTFOUND] = "not found",
        [FL_EEXIST] = "already exists",
        [FL_EREFUSED] = "refused",
        [FL_ETIMEOUT] = "timed out",
        [FL_EBUSY] = "busy",
        [FL_EUSAGE] = "usage",
        [FL_ESTOPPED] = "stopped",
        [FL_ENOSPC] = "no space left",
    };
    return status < FL_STATUS_COUNT && texts[status] ? texts[status] : "unknown status";
}

int fl_exit_code(enum fl_status status)
{
    switch (status) {
    case FL_OK:
        return 0;
    case FL_EUSAGE:
        return 2;
    case FL_EFORMAT:
        return 3;
    case FL_EREFUSED:
        return 4;
    case FL_ETIMEOUT:
        return 5;
    default:
        return 1;
    }
}

/*
 * log.h - one line an event on stderr: text on a terminal, one JSON object a line elsewhere
 * (fields ts level event msg, plus typed extras). FEDLORA_LOG=text|json decides against that.
 *
 * Event names are short constants (tests assert on them, not on words). Strings from outside are
 * escaped and cut at 256 bytes. The same event is written at most 20 times in 10 seconds (warnings
 * of a hostile peer must not fill a disk; 500 times below FL_LOG_WARN); the number left out is
 * reported afterwards.
 * Threads: any; a line is written with one write().
 */
#ifndef FL_BASE_LOG_H
#define FL_BASE_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum fl_log_level { FL_LOG_DEBUG, FL_LOG_INFO, FL_LOG_WARN, FL_LOG_ERROR };

enum fl_field_kind { FL_FIELD_END, FL_FIELD_STRING, FL_FIELD_I64, FL_FIELD_U64, FL_FIELD_DOUBLE };

struct fl_field {
    enum fl_field_kind kind;
    const char *key;
    union {
        const char *string; /* NULL is written as null */
        int64_t i64;
        uint64_t u64;
        double number;
    } value;
};

#define FL_STR(key_, value_)                                                                       \
    ((struct fl_field){.kind = FL_FIELD_STRING, .key = (key_), .value.string = (value_)})
#define FL_I64(key_, value_)                                                                       \
    ((struct fl_field){.kind = FL_FIELD_I64, .key = (key_), .value.i64 = (value_)})
#define FL_U64(key_, value_)                                                                       \
    ((struct fl_field){.kind = FL_FIELD_U64, .key = (key_), .value.u64 = (value_)})
#define FL_NUM(key_, value_)                                                                       \
    ((struct fl_field){.kind = FL_FIELD_DOUBLE, .key = (key_), .value.number = (value_)})

/*
 * fl_log(FL_LOG_INFO, "round_committed", "round 3 is committed", FL_U64("round", 3));
 * event and message are constants or already-made strings; the fields are copied into the line.
 */
#define FL_LOG_HEAD(message, ...) (message)
#define FL_LOG_TAIL(message, ...) __VA_ARGS__
#define fl_log(level, event, ...)                                                                  \
    fl_log_fields((level), (event), FL_LOG_HEAD(__VA_ARGS__, 0),                                   \
                  (const struct fl_field[]){FL_LOG_TAIL(__VA_ARGS__, {.kind = FL_FIELD_END})})

void fl_log_fields(enum fl_log_level level, const char *event, const char *message,
                   const struct fl_field *fields);
/* Messages below this level are dropped; default FL_LOG_INFO. */
void fl_log_set_level(enum fl_log_level level);
/* Also append each line (always JSON) to this descriptor; -1 stops. The caller keeps it. */
void fl_log_copy_to(int fd);

#endif

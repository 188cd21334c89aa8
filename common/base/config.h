/*
 * config.h - configuration files: INI read by inih through one static table (section, key, type,
 * range, default, documentation) from which parser, sample file and man page all come.
 *
 * Values go into a plain struct at the offsets of the table. An unknown section or key is an error
 * with file, line number and the nearest name; a key given twice in a file is an error.
 * Threads: pure functions of their arguments.
 */
#ifndef FL_BASE_CONFIG_H
#define FL_BASE_CONFIG_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

enum fl_config_kind {
    FL_CONFIG_STRING,   /* char[size], NUL-terminated */
    FL_CONFIG_U64,      /* uint64_t */
    FL_CONFIG_DOUBLE,   /* double, finite */
    FL_CONFIG_BOOL,     /* bool: on|off (also true|false, yes|no, 1|0) */
    FL_CONFIG_DURATION, /* int64_t milliseconds */
    FL_CONFIG_CHOICE,   /* int: index into choices */
    FL_CONFIG_PATTERN   /* any number of keys that match `key` (see below), given to the handler */
};

struct fl_config_key {
    const char *section; /* "train"; a trailing '*' matches any suffix: "data.*" */
    const char *key;     /* "lr"; for FL_CONFIG_PATTERN: "round.*", "*" */
    enum fl_config_kind kind;
    size_t offset, size;  /* of the member; size matters for strings */
    double low, high;     /* inclusive, for numbers and durations (ms) */
    const char *choices;  /* "a|b|c" for FL_CONFIG_CHOICE */
    const char *fallback; /* default, as text; NULL: the key must be given */
    const char *doc;      /* one sentence */
};

/*
 * Called for each key of kind FL_CONFIG_PATTERN, and for any key in a "name.*" section. section,
 * key and value are borrowed for the call. A failure stops the parse; where is added by the caller.
 */
typedef enum fl_status (*fl_config_handler)(void *context, const char *section, const char *key,
                                            const char *value, struct fl_error *error);

struct fl_config_table {
    const struct fl_config_key *keys;
    size_t count;
    fl_config_handler handler; /* may be NULL where no pattern key exists */
};

/*
 * Set every default, then read text (length bytes; what names it in messages: a path). target is
 * the struct, context goes to the handler. FL_EFORMAT with "file:line: ..." in *error.
 */
FL_CHECKED enum fl_status fl_config_parse(const struct fl_config_table *table, const char *text,
                                          size_t length, const char *what, void *target,
                                          void *context, struct fl_error *error);
/* The same for a file of at most 1 MiB. */
FL_CHECKED enum fl_status fl_config_load(const struct fl_config_table *table, const char *path,
                                         void *target, void *context, struct fl_error *error);
/*
 * The line, from 1, on which a text that fl_config_parse() took gives that key; 0: it does not. For
 * messages about values that do not go together.
 */
int fl_config_line(const char *text, size_t length, const char *section, const char *key);
/* Append a commented sample: sections in table order, each key with doc, range and default. */
void fl_config_sample(const struct fl_config_table *table, struct fl_buf *out);

#endif

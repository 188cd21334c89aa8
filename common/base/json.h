/*
 * json.h - small additions to jansson: bounded loading with errors in our form, typed getters for
 * hostile documents, and number formatting of the command-line contract (9 significant digits).
 * Call fl_json_init() once at start: jansson then allocates through fl_alloc.
 * Threads: as jansson (a value belongs to one thread).
 */
#ifndef FL_BASE_JSON_H
#define FL_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

void fl_json_init(void);

/*
 * One pass of jansson over a text with jansson's flags, for callers that word its complaints
 * themselves; a new reference, or NULL. *refused: memory ran out. Never call json_loads() and its
 * kin on text from outside: they corrupt memory when an allocation fails.
 */
json_t *fl_json_read(const char *text, size_t length, size_t flags, json_error_t *reason,
                     bool *refused);

/*
 * Parse length bytes as one JSON document (duplicate keys refused). what names the input in the
 * message ("adapter_config.json", "data.jsonl:12"). *out is a new reference, NULL on failure.
 */
FL_CHECKED enum fl_status fl_json_parse(const char *text, size_t length, const char *what,
                                        json_t **out, struct fl_error *error);
/* A whole file of at most maximum_bytes. */
FL_CHECKED enum fl_status fl_json_load(const char *path, size_t maximum_bytes, json_t **out,
                                       struct fl_error *error);

/* Typed members of an object: absent or null gives the default; another type is FL_EFORMAT. */
FL_CHECKED enum fl_status fl_json_u32(const json_t *object, const char *key, uint32_t fallback,
                                      uint32_t *out);
FL_CHECKED enum fl_status fl_json_double(const json_t *object, const char *key, double fallback,
                                         double *out);
FL_CHECKED enum fl_status fl_json_bool(const json_t *object, const char *key, bool fallback,
                                       bool *out);
/* Borrowed from the object; fallback may be NULL. */
FL_CHECKED enum fl_status fl_json_string(const json_t *object, const char *key,
                                         const char *fallback, const char **out);

/* Append value as compact JSON (keys in insertion order, reals with 9 significant digits). */
FL_CHECKED enum fl_status fl_json_append(struct fl_buf *out, const json_t *value);
/* Print value as one line on stdout and flush. */
FL_CHECKED enum fl_status fl_json_print(const json_t *value);

#endif

/*
 * buf.h - a growing byte buffer with a hard maximum, and hexadecimal and number helpers.
 *
 * Errors are sticky: after a refused append the buffer stays as it was and every later append is
 * refused too, so a writer may append many times and test fl_buf_status() once.
 * Threads: a buffer belongs to one thread at a time.
 */
#ifndef FL_BASE_BUF_H
#define FL_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct fl_buf {
    uint8_t *data; /* owned; NULL while empty */
    size_t length, capacity;
    size_t maximum; /* bytes; an append beyond it fails with FL_ERANGE */
    enum fl_status status;
};

/* Start empty; takes no memory. */
void fl_buf_init(struct fl_buf *self, size_t maximum);
/* Release the memory; the buffer may be used again as after fl_buf_init(). */
void fl_buf_free(struct fl_buf *self);
void fl_buf_append(struct fl_buf *self, const void *bytes, size_t length);
void fl_buf_printf(struct fl_buf *self, const char *format, ...) FL_PRINTF(2, 3);
/* Grow by length bytes, zeroed, and return the first of them (borrowed until the next append); NULL
 * when refused (sticky, as for an append). */
uint8_t *fl_buf_extend(struct fl_buf *self, size_t length);
/* little-endian */
void fl_buf_u32(struct fl_buf *self, uint32_t value);
void fl_buf_u64(struct fl_buf *self, uint64_t value);
/* FL_OK, FL_ENOMEM or FL_ERANGE: the first failure since init. */
FL_CHECKED enum fl_status fl_buf_status(const struct fl_buf *self);
/* The contents as a C string (a NUL is kept behind them); "" while empty. Borrowed. */
const char *fl_buf_text(const struct fl_buf *self);

/* little-endian loads and stores at any alignment */
uint16_t fl_load_u16(const void *p);
uint32_t fl_load_u32(const void *p);
uint64_t fl_load_u64(const void *p);
void fl_store_u32(void *p, uint32_t value);
void fl_store_u64(void *p, uint64_t value);

/* hex must hold 2 * length + 1 bytes; lower case. */
void fl_hex(const void *bytes, size_t length, char *hex);
/* Exactly 2 * length hexadecimal digits, else FL_EFORMAT. */
FL_CHECKED enum fl_status fl_unhex(const char *hex, void *bytes, size_t length);

/* A whole decimal number within [low, high] and nothing else in text; FL_EFORMAT or FL_ERANGE. */
FL_CHECKED enum fl_status fl_parse_u64(const char *text, uint64_t low, uint64_t high,
                                       uint64_t *out);
/* A finite decimal floating-point number and nothing else; the C locale's point. */
FL_CHECKED enum fl_status fl_parse_double(const char *text, double *out);
/* "700M", "2G": a whole number of bytes, of 2^10 (K), 2^20 (M) or 2^30 (G); FL_EFORMAT, FL_ERANGE.
 */
FL_CHECKED enum fl_status fl_parse_bytes(const char *text, uint64_t *out);
/* "500ms", "60s", "30m", "24h", "7d"; a bare number is seconds. Milliseconds out. */
FL_CHECKED enum fl_status fl_parse_duration(const char *text, int64_t *out_ms);

#endif

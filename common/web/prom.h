/*
 * prom.h - metrics in Prometheus' text exposition format 0.0.4.
 *
 * Each family begins with fl_prom_head() and is followed by its samples at once.
 * Threads: pure functions of their arguments.
 */
#ifndef FL_WEB_PROM_H
#define FL_WEB_PROM_H

#include "base/buf.h"

#define FL_PROM_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* type: "counter", "gauge" or "summary". */
void fl_prom_head(struct fl_buf *out, const char *name, const char *type, const char *help);
/*
 * A sample with labels: pairs of a name and a value (escaped here; invalid UTF-8 is replaced),
 * ended by NULL. suffix: "_sum", "_count" or "". NaN is written as NaN.
 */
void fl_prom(struct fl_buf *out, const char *name, const char *suffix, double value, ...)
    __attribute__((sentinel));

#endif

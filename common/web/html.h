/*
 * html.h - pages: text from outside made safe inside an element or a quoted attribute, and the
 * frame, style and script that the pages of both daemons share.
 *
 * A page is whole without the script, and then asks for itself again every few seconds; the script
 * does so without a flicker. Nothing on it is inline or from elsewhere, so that a policy of 'self'
 * holds (web.c).
 * Threads: pure functions.
 */
#ifndef FL_WEB_HTML_H
#define FL_WEB_HTML_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct fl_web_reply;

/* Text, UTF-8: markup is escaped; invalid bytes, control characters and marks that reorder text
   become U+FFFD. Well-formed as XML too. */
void fl_html_text(struct fl_buf *out, const char *text);
/* "1.2 MB", "512 B" */
void fl_html_bytes(struct fl_buf *out, uint64_t bytes);
/* "12 s", "3 min", "2 h", "5 d" */
void fl_html_seconds(struct fl_buf *out, double seconds);
/* "2026-05-01 09:30:00 UTC"; nothing for 0 */
void fl_html_time(struct fl_buf *out, int64_t wall_ms);
/* One of class "facts": a value, escaped, over its label, which is a constant. */
void fl_html_fact(struct fl_buf *out, const char *label, const char *text);
void fl_html_fact_bytes(struct fl_buf *out, const char *label, uint64_t bytes);

/* All in front of the page's own sections; title is escaped. live: it changes by itself. */
void fl_html_begin(struct fl_buf *out, const char *title, bool live);
void fl_html_end(struct fl_buf *out);
/* "/app.css" and "/app.js": true, and the reply is made. */
bool fl_html_asset(const char *path, struct fl_web_reply *reply);

#endif

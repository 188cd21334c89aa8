/*
 * report_html.h - the course of a training run as one page for people: loss and validation loss,
 * learning rate, gradient norm and tokens a second as inline SVG, a table of facts. One file
 * without scripts or anything from elsewhere; light and dark by the reader's preference; readable
 * on a telephone; well-formed as XML too. Every text from outside is escaped.
 *
 * A curve has at most a few hundred points: means over equal shares of the steps, so the page stays
 * small however long the run was.
 * Threads: pure.
 */
#ifndef FL_WORKER_REPORT_HTML_H
#define FL_WORKER_REPORT_HTML_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/status.h"
#include "worker/course.h"

struct fl_report {
    const char *title;   /* of what: the name of the adapter's directory */
    const char *state;   /* "finished", "running, as of step 20" */
    const json_t *facts; /* an object of strings: the rows of the table, in their order */
    uint64_t best_step;  /* of the best validation; 0: none */
    const struct fl_course *metrics;
};

/* Append the page. FL_ENOMEM. */
FL_CHECKED enum fl_status fl_report_html(const struct fl_report *self, struct fl_buf *out);

#endif

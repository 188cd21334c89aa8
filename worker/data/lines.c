/* lines.c - see lines.h. */
#include "worker/data/lines.h"

#include <inttypes.h>

enum fl_status fl_lines_open(struct fl_lines *self, const char *path, size_t maximum_bytes,
                             struct fl_error *error)
{
    self->number = 0;
    fl_buf_init(&self->line, maximum_bytes);
    return fl_feed_open(&self->feed, path, error);
}

void fl_lines_close(struct fl_lines *self)
{
    fl_feed_close(&self->feed);
    fl_buf_free(&self->line);
}

enum fl_status fl_lines_next(struct fl_lines *self, const char **text, size_t *length,
                             struct fl_error *error)
{
    static const bool STOPS[256] = {['\n'] = true};
    *text = NULL;
    *length = self->line.length = 0;
    if (fl_feed_peek(&self->feed) < 0)
        return fl_feed_status(&self->feed, error);
    self->number++;
    fl_feed_until(&self->feed, STOPS, &self->line);
    enum fl_status status = fl_buf_status(&self->line);
    if (status == FL_ENOMEM)
        return fl_fail_memory(error);
    if (status != FL_OK)
        return fl_fail(error, FL_EFORMAT, "%s:%" PRIu64 ": the line is longer than %zu bytes",
                       self->feed.path, self->number, self->line.maximum);
    (void)fl_feed_next(&self->feed); /* the end of the line, or of the file */
    status = fl_feed_status(&self->feed, error);
    if (status != FL_OK)
        return status;
    *text = fl_buf_text(&self->line);
    *length = self->line.length;
    if (*length > 0 && (*text)[*length - 1] == '\r')
        (*length)--;
    return FL_OK;
}

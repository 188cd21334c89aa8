/*
 * textout.h - a generation's tokens as text that a terminal can take: whole UTF-8 characters only,
 * held back as long as a stop string may be beginning.
 *
 * Tokens of byte-level vocabularies end inside characters, so bytes wait until their character is
 * whole. Bytes that never become one turn into U+FFFD, one for each longest run that could have
 * begun a character (Unicode 15, section 3.9, "maximal subpart"), as Hugging Face's decoder does:
 * the text is always valid UTF-8.
 * Threads: a stream belongs to one thread.
 */
#ifndef FL_WORKER_TEXTOUT_H
#define FL_WORKER_TEXTOUT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

#define FL_TEXTOUT_BYTES_MAX (256u << 20) /* of one generation's text */

struct fl_textout {
    struct fl_buf text; /* all that is decoded, valid UTF-8; cut in front of a stop string */
    size_t shown;       /* bytes of it that were taken */
    char waiting[4];    /* the beginning of a character */
    size_t waiting_bytes;
    const char *const *stops; /* (stop_count), borrowed; none is empty */
    size_t stop_count;
    bool stopped; /* one of them was met */
    bool ended;
};

/* stops may be NULL with count 0. */
void fl_textout_init(struct fl_textout *self, const char *const *stops, size_t stop_count);
void fl_textout_free(struct fl_textout *self);

/*
 * Add the bytes of a token. false: a stop string was met (the text ends before it), or memory ran
 * out, which fl_buf_status(&self->text) tells.
 */
bool fl_textout_push(struct fl_textout *self, const char *bytes, size_t length);
/* No more tokens: what waited for the rest of a character or of a stop string can be shown. */
void fl_textout_end(struct fl_textout *self);
/* The text that can be shown now and was not taken before, borrowed; *length may be 0. */
const char *fl_textout_take(struct fl_textout *self, size_t *length);

#endif

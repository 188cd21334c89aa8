/*
 * pattern.h - regular expressions as PEFT's configurations use them, in bounded time and memory.
 *
 * The subset of Python's re that a module pattern needs: literals, ".", classes, \d \w \s and their
 * complements, groups (plain or "(?:"), "|", * + ? {m,n} (greedy or lazy: the same here), "^" and
 * "$" at the outer ends. Anything else (look-around, back references, flags) is refused, never
 * taken for something else. Only "does the whole text match" is answered.
 * Source: Thompson, "Regular expression search algorithm", CACM 1968: a set of states walks the
 * text, so that no pattern takes more than states x length steps.
 * Threads: a compiled pattern is immutable.
 */
#ifndef FL_FORMAT_PATTERN_H
#define FL_FORMAT_PATTERN_H

#include <stdbool.h>

#include "base/status.h"

#define FL_PATTERN_BYTES_MAX  8192u
#define FL_PATTERN_STATES_MAX 8192u

struct fl_pattern; /* opaque */

/* FL_EFORMAT: outside the subset, or too large; FL_ENOMEM. */
FL_CHECKED enum fl_status fl_pattern_compile(const char *source, struct fl_pattern **out,
                                             struct fl_error *error);
void fl_pattern_free(struct fl_pattern **self);

/* Does the whole text match? (Python: re.fullmatch) */
bool fl_pattern_matches(const struct fl_pattern *self, const char *text);
/* Does "(.*\.)?(source)" match the whole text? The rule of rank_pattern and alpha_pattern. */
bool fl_pattern_matches_end(const struct fl_pattern *self, const char *text);

#endif

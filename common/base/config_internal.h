/* config_internal.h - shared by the files of config; nobody else includes it. */
#ifndef FL_BASE_CONFIG_INTERNAL_H
#define FL_BASE_CONFIG_INTERNAL_H

#include <stdbool.h>

#include "base/config.h"

/* Put the value of text at key->offset of target. FL_EFORMAT: "'abc' is not a whole number". */
FL_CHECKED enum fl_status fl_config_set(const struct fl_config_key *key, const char *text,
                                        void *target, struct fl_error *error);
/* low = high = 0 stands for "no bound". */
bool fl_config_is_bounded(const struct fl_config_key *key);
/* pattern "layers.*" matches "layers.0-5"; a pattern without '*' matches itself only. */
bool fl_config_matches(const char *pattern, const char *text);
bool fl_config_is_pattern(const char *text);
/* Rows that go to the handler rather than into the struct. */
bool fl_config_is_handled(const struct fl_config_key *key);

#endif

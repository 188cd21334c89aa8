/*
 * unicode_tables.h - the generated tables behind unicode.c. Sorted by their first member (compose:
 * by the first two).
 */
#ifndef FL_DATA_UNICODE_TABLES_H
#define FL_DATA_UNICODE_TABLES_H

#include <stddef.h>
#include <stdint.h>

struct fl_unicode_range {
    uint32_t first, last;
    uint8_t value; /* FL_UC_* bits, or the canonical combining class */
};

struct fl_unicode_triple {
    uint32_t a, b, c; /* decompose: a = b [+ c]; compose: a + b = c */
};

extern const struct fl_unicode_range fl_unicode_classes[];
extern const size_t fl_unicode_classes_count;
extern const struct fl_unicode_range fl_unicode_combining[];
extern const size_t fl_unicode_combining_count;
extern const struct fl_unicode_triple fl_unicode_decompose[];
extern const size_t fl_unicode_decompose_count;
extern const struct fl_unicode_triple fl_unicode_compose[];
extern const size_t fl_unicode_compose_count;

#endif

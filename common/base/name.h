/*
 * name.h - what a site, a job or a model may be called, the same wherever a name comes in: names
 * become columns of tables, words of a command line and parts of signed text.
 * Threads: a pure function.
 */
#ifndef FL_BASE_NAME_H
#define FL_BASE_NAME_H

#include <stdbool.h>

/* 1 to FL_NAME_BYTES - 1 ASCII letters, digits, '.', '_', '-', the first neither '.' nor '-'. */
bool fl_name_is_valid(const char *name);

#endif

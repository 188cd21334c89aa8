/* nf4_internal.h - tables that the files on NF4 share. */
#ifndef FL_FORMAT_NF4_INTERNAL_H
#define FL_FORMAT_NF4_INTERNAL_H

#include "format/nf4.h"

/* The values of the nibbles, rising: quantiles of a normal distribution, 0 and both ends exact. */
extern const float fl_nf4_code[16];
/* The signed 8-bit dynamic map, rising, that scales are quantised to. */
void fl_nf4_dynamic_map(float map[256]);

#endif

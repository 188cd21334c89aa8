/* malice_walk.c - stub */
#include "malice_cases.h"
const struct lie lies_of_order[] = {{NULL, 0, NULL, NULL, NULL}};

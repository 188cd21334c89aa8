/* name.c - see name.h. */
#include "base/name.h"

#include <string.h>

#include "base/limits.h"

static bool name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

bool fl_name_is_valid(const char *name)
{
    const size_t length = strnlen(name, FL_NAME_BYTES);
    if (length == 0 || length >= FL_NAME_BYTES || name[0] == '.' || name[0] == '-')
        return false;
    for (size_t i = 0; i < length; i++) {
        if (!name_byte(name[i]))
            return false;
    }
    return true;
}

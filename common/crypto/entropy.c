#include "crypto/entropy.h"

#include <sodium.h>

static void system_bytes(void *context, void *out, size_t length)
{
    (void)context;
    randombytes_buf(out, length);
}

const struct fl_entropy *fl_entropy_system(void)
{
    static const struct fl_entropy system = {.bytes = system_bytes, .context = NULL};
    return &system;
}

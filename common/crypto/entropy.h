/*
 * entropy.h - the entropy seam (fl_entropy): where every unpredictable byte comes from. Production
 * uses fl_entropy_system(); a simulator brings a seeded stream, and never real keys.
 * Threads: fl_entropy_system() may be used from any thread after fl_hash_init().
 */
#ifndef FL_CRYPTO_ENTROPY_H
#define FL_CRYPTO_ENTROPY_H

#include <stddef.h>

struct fl_entropy {
    void (*bytes)(void *context, void *out, size_t length);
    void *context;
};

/* The kernel's generator by way of libsodium. A constant. */
const struct fl_entropy *fl_entropy_system(void);

static inline void fl_entropy_bytes(const struct fl_entropy *entropy, void *out, size_t length)
{
    entropy->bytes(entropy->context, out, length);
}

#endif

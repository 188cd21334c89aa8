/*
 * memory.h - does a secret lie anywhere in this process but in libsodium's guarded memory? All
 * that is writable is searched: stacks (what calls left behind there too), heaps, globals.
 * Threads: the test's only one.
 */
#ifndef FL_TESTS_MEMORY_H
#define FL_TESTS_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#define FL_HIDDEN_BYTES 16 /* of a secret: enough to know it by */

/* The part of a secret that is looked for, masked, so that a test holds no copy of it itself. */
struct fl_hidden {
    uint8_t bytes[FL_HIDDEN_BYTES];
};
/* From `secret` on, FL_HIDDEN_BYTES of it. */
void fl_test_hide(const uint8_t *secret, struct fl_hidden *out);
/*
 * Call step(context) on a stack of its own, which is not used again until the next call: what the
 * step left on it is still there to be found.
 */
void fl_test_apart(void (*step)(void *context), void *context);
/* How often it lies outside guarded memory; *guarded (may be NULL): how often within it. */
size_t fl_test_find(const struct fl_hidden *hidden, size_t *guarded);

#endif

/*
 * alloc.h - the heap behind a fault-injection seam (fl_alloc). All our code allocates here, so that
 * a test can refuse the nth allocation. Memory from these calls is released with fl_free() only.
 *
 * Threads: all calls may be made from any thread; the fault counter is process-wide and atomic.
 */
#ifndef FL_BASE_ALLOC_H
#define FL_BASE_ALLOC_H

#include <stddef.h>

/* bytes = 0 gives a unique pointer too. NULL when refused. */
void *fl_malloc(size_t bytes) __attribute__((malloc));

/* count * size zeroed bytes; NULL when refused or when the product overflows. */
void *fl_calloc(size_t count, size_t size) __attribute__((malloc));

/* As realloc() of count * size bytes; on NULL the old block is untouched and still owned. */
void *fl_reallocarray(void *block, size_t count, size_t size) __attribute__((warn_unused_result));

/* Zeroed, aligned to 64 bytes (tensors). Overflow and refusal give NULL. */
void *fl_calloc_aligned(size_t count, size_t size) __attribute__((malloc));

char *fl_strdup(const char *text) __attribute__((malloc));

void fl_free(void *block);

/*
 * Refuse the nth allocation from now (0 = the next one), once; -1 disarms. Used by tests only.
 * fl_alloc_fault_fired() tells whether the armed fault was met.
 */
void fl_alloc_fail_at(long n);
int fl_alloc_fault_fired(void);
/* Also set *shared to 1 at the fault that is armed now (a test runner's shared memory). */
void fl_alloc_fault_report(volatile int *shared);

#endif

/* alloc.c - see alloc.h. The countdown is one atomic: idle cost is a single relaxed load. */
#include "base/alloc.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FL_ALLOC_ALIGNMENT 64

static atomic_long countdown = -1;
static atomic_int fired;
static volatile int *report; /* of the fault armed now; tests only, one thread */

static int refused(void)
{
    if (atomic_load_explicit(&countdown, memory_order_relaxed) < 0)
        return 0;
    if (atomic_fetch_sub(&countdown, 1) != 0)
        return 0;
    atomic_store(&fired, 1);
    if (report)
        *report = 1;
    return 1;
}

void *fl_malloc(size_t bytes)
{
    return refused() ? NULL : malloc(bytes ? bytes : 1);
}

void *fl_calloc(size_t count, size_t size)
{
    size_t bytes;
    if (refused() || __builtin_mul_overflow(count, size, &bytes))
        return NULL;
    return calloc(count ? count : 1, size ? size : 1);
}

void *fl_reallocarray(void *block, size_t count, size_t size)
{
    size_t bytes;
    if (refused() || __builtin_mul_overflow(count, size, &bytes))
        return NULL;
    return realloc(block, bytes ? bytes : 1);
}

void *fl_calloc_aligned(size_t count, size_t size)
{
    size_t bytes;
    if (refused() || __builtin_mul_overflow(count, size, &bytes) ||
        bytes > SIZE_MAX - FL_ALLOC_ALIGNMENT)
        return NULL;
    bytes = (bytes + FL_ALLOC_ALIGNMENT) & ~(size_t)(FL_ALLOC_ALIGNMENT - 1);
    void *block = aligned_alloc(FL_ALLOC_ALIGNMENT, bytes);
    if (block)
        memset(block, 0, bytes);
    return block;
}

char *fl_strdup(const char *text)
{
    assert(text);
    size_t bytes = strlen(text) + 1;
    char *copy = fl_malloc(bytes);
    if (copy)
        memcpy(copy, text, bytes);
    return copy;
}

void fl_free(void *block)
{
    free(block);
}

void fl_alloc_fail_at(long n)
{
    report = NULL;
    atomic_store(&fired, 0);
    atomic_store(&countdown, n);
}

int fl_alloc_fault_fired(void)
{
    return atomic_load(&fired);
}

void fl_alloc_fault_report(volatile int *shared)
{
    report = shared;
}

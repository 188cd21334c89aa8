/*
 * memory.c - see memory.h. Guarded memory is told by its flag "dd" (left out of core dumps), which
 * sodium_malloc() sets and nothing else here does.
 */
#include "memory.h"

#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#define MASK 0x5a

void fl_test_hide(const uint8_t *secret, struct fl_hidden *out)
{
    for (size_t i = 0; i < FL_HIDDEN_BYTES; i++)
        *(volatile uint8_t *)&out->bytes[i] = secret[i] ^ MASK;
}

static struct {
    void (*step)(void *context);
    void *context;
} apart;

static void run_apart(void)
{
    apart.step(apart.context);
}

void fl_test_apart(void (*step)(void *context), void *context)
{
    static uint8_t stack[1u << 20];
    ucontext_t here, there;
    apart.step = step;
    apart.context = context;
    ck_assert_int_eq(getcontext(&there), 0);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = sizeof(stack);
    there.uc_link = &here;
    makecontext(&there, run_apart, 0);
    ck_assert_int_eq(swapcontext(&here, &there), 0);
}

__attribute__((no_sanitize("address"))) static size_t count_in(uintptr_t from, uintptr_t to,
                                                               const struct fl_hidden *hidden)
{
    size_t count = 0;
    for (const uint8_t *at = (const uint8_t *)from; at + FL_HIDDEN_BYTES <= (const uint8_t *)to;
         at++) {
        size_t i = 0;
        while (i < FL_HIDDEN_BYTES && (at[i] ^ MASK) == hidden->bytes[i])
            i++;
        count += i == FL_HIDDEN_BYTES;
    }
    return count;
}

size_t fl_test_find(const struct fl_hidden *hidden, size_t *guarded)
{
    static struct {
        uintptr_t from, to;
        bool kept;
    } maps[4096];
    char line[512], access[8];
    size_t count = 0, found = 0, within = 0;
    bool wanted = false;
    FILE *file = fopen("/proc/self/smaps", "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx %7s", &from, &to, access) == 3) {
            wanted = strncmp(access, "rw", 2) == 0 && !strstr(line, "[vvar]");
            if (wanted && count < sizeof(maps) / sizeof(maps[0])) {
                maps[count].from = from;
                maps[count++].to = to;
            }
        } else if (wanted && strncmp(line, "VmFlags:", 8) == 0)
            maps[count - 1].kept = strstr(line, " dd") != NULL;
    }
    (void)fclose(file);
    for (size_t i = 0; i < count; i++)
        *(maps[i].kept ? &within : &found) += count_in(maps[i].from, maps[i].to, hidden);
    if (guarded)
        *guarded = within;
    return found;
}

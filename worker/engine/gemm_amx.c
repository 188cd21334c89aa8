/*
 * gemm_amx.c - strips of pairs of bfloat16 on AMX's tile registers: 16 rows of 64 bytes each, one
 * instruction multiplies (16, 16 pairs) by (16 pairs, 16) into sums of float32.
 *
 * Pairs along k are what gemm_bf16.c packs, so both kernels read the same panels: a tile of B is 16
 * rows of a strip, a tile of A 16 pairs of 16 rows, and neither is copied. Subnormals count as
 * zero, as for VDPBF16PS.
 *
 * A strip configures the registers and releases them at its end: a thread that holds them pays 8 KB
 * at every switch.
 * Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
 */
#include <assert.h>
#include <cpuid.h>
#include <immintrin.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "worker/engine/gemm_internal.h"

/* Registers, named to the intrinsics by number: 0 to 5 hold sums, or (fewer rows) 0 to 2, and B is
 * in 3 to 5. */
#define A_TILE 6
#define B_TILE 7

enum {
    SIDE = 16,   /* rows of a tile; its columns of sums; its pairs along k */
    ACROSS = 3,  /* tiles of a strip's row */
    BLOCK = 1024 /* pairs that pass at once: that block of a strip stays in the second cache */
};

/* What LDTILECFG reads. */
struct layout {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static void set(struct layout *layout, int tile, size_t rows, size_t units)
{
    layout->rows[tile] = (uint8_t)rows;
    layout->row_bytes[tile] = (uint16_t)(units * sizeof(float));
}

/* The compiler takes the intrinsic to read no more than a pointer. */
static void configure(const struct layout *layout)
{
    __asm__ volatile("" : : "r"(layout) : "memory");
    _tile_loadconfig(layout);
}

static size_t least(size_t x, size_t y)
{
    return x < y ? x : y;
}

/* Sums (rows, n) of k pairs a time: 0 to 2 beside each other, B in 3 to 5. */
static void configure_few(size_t rows, size_t n, size_t k)
{
    struct layout layout = {.palette = 1};
    for (int j = 0; j < ACROSS && (size_t)j * SIDE < n; j++) {
        const size_t columns = least(n - (size_t)j * SIDE, SIDE);
        set(&layout, j, rows, columns);
        set(&layout, ACROSS + j, k, columns);
    }
    set(&layout, A_TILE, rows, k);
    configure(&layout);
}

static void configure_whole(void)
{
    struct layout layout = {.palette = 1};
    for (int tile = 0; tile <= B_TILE; tile++)
        set(&layout, tile, SIDE, SIDE);
    configure(&layout);
}

/* 32 rows of A, 48 columns, k in whole tiles: six sums. */
static void whole_rows(const struct fl_gemm_strip *s)
{
    const size_t a_bytes = s->rs * sizeof(float), b_bytes = s->ldb * sizeof(float);
    const size_t c_bytes = s->ldc * sizeof(float);
    const float *upper = s->a, *lower = s->a + SIDE * s->rs, *b = s->b;
    float *c = s->c, *below = s->c + SIDE * s->ldc;
    if (s->add) {
        _tile_loadd(0, c, c_bytes);
        _tile_loadd(1, c + SIDE, c_bytes);
        _tile_loadd(2, c + 2 * SIDE, c_bytes);
        _tile_loadd(3, below, c_bytes);
        _tile_loadd(4, below + SIDE, c_bytes);
        _tile_loadd(5, below + 2 * SIDE, c_bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        _tile_zero(4);
        _tile_zero(5);
    }
    for (size_t p = 0; p < s->k; p += SIDE, b += SIDE * s->ldb) {
        _tile_loadd(A_TILE, upper + p, a_bytes);
        _tile_loadd(B_TILE, b, b_bytes);
        _tile_dpbf16ps(0, A_TILE, B_TILE);
        _tile_loadd(B_TILE, b + SIDE, b_bytes);
        _tile_dpbf16ps(1, A_TILE, B_TILE);
        _tile_loadd(B_TILE, b + 2 * SIDE, b_bytes);
        _tile_dpbf16ps(2, A_TILE, B_TILE);
        _tile_loadd(A_TILE, lower + p, a_bytes);
        _tile_loadd(B_TILE, b, b_bytes);
        _tile_dpbf16ps(3, A_TILE, B_TILE);
        _tile_loadd(B_TILE, b + SIDE, b_bytes);
        _tile_dpbf16ps(4, A_TILE, B_TILE);
        _tile_loadd(B_TILE, b + 2 * SIDE, b_bytes);
        _tile_dpbf16ps(5, A_TILE, B_TILE);
    }
    _tile_stored(0, c, c_bytes);
    _tile_stored(1, c + SIDE, c_bytes);
    _tile_stored(2, c + 2 * SIDE, c_bytes);
    _tile_stored(3, below, c_bytes);
    _tile_stored(4, below + SIDE, c_bytes);
    _tile_stored(5, below + 2 * SIDE, c_bytes);
}

/* At most 16 rows of A as configured, step pairs a time: one to three sums. */
static void few_rows(const struct fl_gemm_strip *s, size_t step)
{
    const size_t a_bytes = s->rs * sizeof(float), b_bytes = s->ldb * sizeof(float);
    const size_t c_bytes = s->ldc * sizeof(float), tiles = (s->n + SIDE - 1) / SIDE;
    const float *b = s->b;
    _tile_zero(0);
    if (tiles > 1)
        _tile_zero(1);
    if (tiles > 2)
        _tile_zero(2);
    if (s->add) {
        _tile_loadd(0, s->c, c_bytes);
        if (tiles > 1)
            _tile_loadd(1, s->c + SIDE, c_bytes);
        if (tiles > 2)
            _tile_loadd(2, s->c + 2 * SIDE, c_bytes);
    }
    for (size_t p = 0; p < s->k; p += step, b += step * s->ldb) {
        _tile_loadd(A_TILE, s->a + p, a_bytes);
        _tile_loadd(3, b, b_bytes);
        _tile_dpbf16ps(0, A_TILE, 3);
        if (tiles > 1) {
            _tile_loadd(4, b + SIDE, b_bytes);
            _tile_dpbf16ps(1, A_TILE, 4);
        }
        if (tiles > 2) {
            _tile_loadd(5, b + 2 * SIDE, b_bytes);
            _tile_dpbf16ps(2, A_TILE, 5);
        }
    }
    _tile_stored(0, s->c, c_bytes);
    if (tiles > 1)
        _tile_stored(1, s->c + SIDE, c_bytes);
    if (tiles > 2)
        _tile_stored(2, s->c + 2 * SIDE, c_bytes);
}

/* Rows from `row` on, 16 at most a time; k is whole tiles, or all of it one shorter tile. */
static void remaining_rows(const struct fl_gemm_strip *s, size_t row)
{
    const size_t step = least(s->k, SIDE);
    size_t configured = 0;
    for (; row < s->m; row += SIDE) {
        struct fl_gemm_strip part = *s;
        part.m = least(s->m - row, SIDE);
        part.a += row * s->rs;
        part.c += row * s->ldc;
        if (part.m != configured)
            configure_few(part.m, s->n, step);
        configured = part.m;
        few_rows(&part, step);
    }
}

static void block(const struct fl_gemm_strip *s)
{
    size_t row = 0;
    if (s->n == ACROSS * SIDE && s->k % SIDE == 0 && s->m >= 2 * SIDE) {
        configure_whole();
        for (; row + 2 * SIDE <= s->m; row += 2 * SIDE) {
            struct fl_gemm_strip part = *s;
            part.a += row * s->rs;
            part.c += row * s->ldc;
            whole_rows(&part);
        }
    }
    remaining_rows(s, row);
}

/* alpha is 1 and A lies by rows: panels ask for no other. */
void fl_gemm_amx_strip(const struct fl_gemm_strip *s)
{
    struct fl_gemm_strip part = *s;
    assert(s->alpha == 1.0f && s->cs == 1);
    for (size_t p = 0; p < s->k; p += part.k) {
        const size_t left = s->k - p;
        part.k = left < SIDE ? left : least(left / SIDE * SIDE, BLOCK);
        part.a = s->a + p;
        part.b = s->b + p * s->ldb;
        part.add = s->add || p;
        block(&part);
    }
    _tile_release();
}

/* ---- may this process use it? ---- */

enum {
    CPUID_BF16 = 1 << 22,
    CPUID_TILE = 1 << 24, /* both of leaf 7, EDX */
    CPUID_OSXSAVE = 1 << 27,
    XCR0_TILE = 3 << 17,     /* configuration and data */
    ASK_PERMISSION = 0x1023, /* ARCH_REQ_XCOMP_PERM of arch_prctl(2) */
    TILE_DATA = 18
};

static bool processor_has_it(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & CPUID_OSXSAVE))
        return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & CPUID_BF16) || !(d & CPUID_TILE))
        return false;
    return (_xgetbv(0) & XCR0_TILE) == XCR0_TILE;
}

bool fl_gemm_amx_allowed(void)
{
#ifdef SYS_arch_prctl
    return processor_has_it() && syscall(SYS_arch_prctl, ASK_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

/*
 * prg.c - see prg.h. The reference values of the tests pin every byte: a change of this file that
 * changes them changes what seeds mean, and with it every reproducible run.
 */
#include "crypto/prg.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/buf.h"

#define BLOCK_BYTES 64

static const uint8_t zero_nonce[crypto_stream_chacha20_NONCEBYTES];

void fl_prg_init(struct fl_prg *self, const uint8_t seed[FL_SEED_BYTES])
{
    memset(self, 0, sizeof(*self));
    memcpy(self->key, seed, FL_SEED_BYTES);
    self->used = FL_PRG_BUFFER_BYTES;
}

void fl_prg_wipe(struct fl_prg *self)
{
    sodium_memzero(self, sizeof(*self));
}

/* keystream from self->block on, in whole blocks */
static void keystream(struct fl_prg *self, uint8_t *out, size_t length)
{
    assert(length % BLOCK_BYTES == 0);
    memset(out, 0, length);
    crypto_stream_chacha20_xor_ic(out, out, length, zero_nonce, self->block, self->key);
    self->block += length / BLOCK_BYTES;
}

static void refill(struct fl_prg *self)
{
    keystream(self, self->buffer, FL_PRG_BUFFER_BYTES);
    self->used = 0;
}

void fl_prg_seek(struct fl_prg *self, uint64_t offset_bytes)
{
    self->block = offset_bytes / BLOCK_BYTES;
    self->has_spare = false;
    refill(self);
    self->used = (size_t)(offset_bytes % BLOCK_BYTES);
}

void fl_prg_bytes(struct fl_prg *self, void *out, size_t length)
{
    uint8_t *to = out;
    while (length > 0) {
        size_t left = FL_PRG_BUFFER_BYTES - self->used;
        if (left == 0 && length >= FL_PRG_BUFFER_BYTES) { /* long runs skip the buffer */
            const size_t whole = length / BLOCK_BYTES * BLOCK_BYTES;
            keystream(self, to, whole);
            to += whole;
            length -= whole;
            continue;
        }
        if (left == 0) {
            refill(self);
            left = FL_PRG_BUFFER_BYTES;
        }
        const size_t n = length < left ? length : left;
        memcpy(to, self->buffer + self->used, n);
        self->used += n;
        to += n;
        length -= n;
    }
}

uint32_t fl_prg_u32(struct fl_prg *self)
{
    uint8_t raw[4];
    fl_prg_bytes(self, raw, sizeof(raw));
    return fl_load_u32(raw);
}

uint64_t fl_prg_u64(struct fl_prg *self)
{
    uint8_t raw[8];
    fl_prg_bytes(self, raw, sizeof(raw));
    return fl_load_u64(raw);
}

uint64_t fl_prg_below(struct fl_prg *self, uint64_t bound)
{
    assert(bound >= 1);
    /* 2^64 mod bound values at the low end would be drawn once too often */
    const uint64_t reject_below = (0 - bound) % bound;
    uint64_t x;
    do {
        x = fl_prg_u64(self);
    } while (x < reject_below);
    return x % bound;
}

double fl_prg_unit(struct fl_prg *self)
{
    return (double)(fl_prg_u64(self) >> 11) * 0x1p-53;
}

/*
 * ln(x) for x in (0, 1], from exactly rounded operations only: x = m 2^e with m in [sqrt(1/2),
 * sqrt(2)), ln m = 2 atanh(z) = 2 (z + z^3/3 + ...), z = (m - 1) / (m + 1), |z| < 0.1716, so that
 * the term after z^23/23 is below 1e-20.
 */
static double portable_log(double x)
{
    int exponent;
    double m = frexp(x, &exponent); /* exact; m in [1/2, 1) */
    if (m < 0.70710678118654752) {
        m *= 2.0;
        exponent--;
    }
    const double z = (m - 1.0) / (m + 1.0);
    const double z2 = z * z;
    double sum = 0.0;
    for (int k = 23; k >= 1; k -= 2)
        sum = sum * z2 + 1.0 / (double)k;
    return 2.0 * z * sum + (double)exponent * 0.693147180559945309;
}

double fl_prg_gaussian(struct fl_prg *self)
{
    if (self->has_spare) {
        self->has_spare = false;
        return self->spare;
    }
    double u, v, s;
    do {
        u = 2.0 * fl_prg_unit(self) - 1.0;
        v = 2.0 * fl_prg_unit(self) - 1.0;
        s = u * u + v * v;
    } while (s >= 1.0 || s <= 0.0);
    const double factor = sqrt(-2.0 * portable_log(s) / s);
    self->spare = v * factor;
    self->has_spare = true;
    return u * factor;
}

void fl_prg_shuffle(struct fl_prg *self, uint32_t *items, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        const size_t j = (size_t)fl_prg_below(self, i);
        const uint32_t item = items[i - 1];
        items[i - 1] = items[j];
        items[j] = item;
    }
}

void fl_prf_begin(struct fl_prf *self, const uint8_t seed[FL_SEED_BYTES], const char *label)
{
    fl_blake2b_init(&self->hash, seed, FL_SEED_BYTES);
    fl_prf_text(self, label);
}

void fl_prf_begin_u64(struct fl_prf *self, uint64_t seed, const char *label)
{
    uint8_t bytes[FL_SEED_BYTES] = {0};
    fl_store_u64(bytes, seed);
    fl_prf_begin(self, bytes, label);
}

void fl_prf_bytes(struct fl_prf *self, const void *bytes, size_t length)
{
    uint8_t size[8];
    fl_store_u64(size, length);
    fl_blake2b_update(&self->hash, size, sizeof(size));
    fl_blake2b_update(&self->hash, bytes, length);
}

void fl_prf_text(struct fl_prf *self, const char *text)
{
    fl_prf_bytes(self, text, strlen(text));
}

void fl_prf_u64(struct fl_prf *self, uint64_t value)
{
    uint8_t raw[8];
    fl_store_u64(raw, value);
    fl_prf_bytes(self, raw, sizeof(raw));
}

void fl_prf_end(struct fl_prf *self, uint8_t seed[FL_SEED_BYTES])
{
    fl_blake2b_final(&self->hash, seed);
    sodium_memzero(self, sizeof(*self));
}

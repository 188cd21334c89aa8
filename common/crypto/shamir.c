/* shamir.c - see shamir.h. */
#include "crypto/shamir.h"

#include <sodium.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"

static void scalar_of(uint32_t value, uint8_t out[FL_SCALAR_BYTES])
{
    memset(out, 0, FL_SCALAR_BYTES);
    out[0] = (uint8_t)value;
    out[1] = (uint8_t)(value >> 8);
}

/* 64 random bytes reduced mod L: the bias is below 2^-250. */
void fl_shamir_secret(const struct fl_entropy *entropy, uint8_t secret[FL_SCALAR_BYTES])
{
    uint8_t wide[crypto_core_ristretto255_NONREDUCEDSCALARBYTES];
    fl_entropy_bytes(entropy, wide, sizeof(wide));
    crypto_core_ristretto255_scalar_reduce(secret, wide);
    sodium_memzero(wide, sizeof(wide));
}

static bool is_reduced(const uint8_t scalar[FL_SCALAR_BYTES])
{
    uint8_t wide[crypto_core_ristretto255_NONREDUCEDSCALARBYTES] = {0}, reduced[FL_SCALAR_BYTES];
    memcpy(wide, scalar, FL_SCALAR_BYTES);
    crypto_core_ristretto255_scalar_reduce(reduced, wide);
    bool same = sodium_memcmp(reduced, scalar, FL_SCALAR_BYTES) == 0;
    sodium_memzero(wide, sizeof(wide));
    sodium_memzero(reduced, sizeof(reduced));
    return same;
}

/* Horner's rule from the highest coefficient down; coefficient 0 is the secret. */
static void evaluate(const uint8_t *coefficients, uint32_t t, uint32_t x,
                     uint8_t out[FL_SCALAR_BYTES])
{
    uint8_t at[FL_SCALAR_BYTES];
    scalar_of(x, at);
    memcpy(out, coefficients + (t - 1) * FL_SCALAR_BYTES, FL_SCALAR_BYTES);
    for (uint32_t k = t - 1; k > 0; k--) {
        crypto_core_ristretto255_scalar_mul(out, out, at);
        crypto_core_ristretto255_scalar_add(out, out, coefficients + (k - 1) * FL_SCALAR_BYTES);
    }
}

enum fl_status fl_shamir_split(const uint8_t secret[FL_SCALAR_BYTES], uint32_t t, uint32_t n,
                               const struct fl_entropy *entropy, uint8_t *shares)
{
    if (t == 0 || t > n || n > FL_SHAMIR_SITES_MAX || !is_reduced(secret))
        return FL_EINVAL;
    uint8_t *coefficients = fl_calloc(t, FL_SCALAR_BYTES);
    if (!coefficients)
        return FL_ENOMEM;
    memcpy(coefficients, secret, FL_SCALAR_BYTES);
    for (uint32_t k = 1; k < t; k++)
        fl_shamir_secret(entropy, coefficients + k * FL_SCALAR_BYTES);
    for (uint32_t i = 0; i < n; i++)
        evaluate(coefficients, t, i + 1, shares + i * FL_SCALAR_BYTES);
    sodium_memzero(coefficients, (size_t)t * FL_SCALAR_BYTES);
    fl_free(coefficients);
    return FL_OK;
}

static bool all_different(const uint8_t *x, uint32_t t)
{
    bool seen[FL_SHAMIR_SITES_MAX + 1] = {false};
    for (uint32_t i = 0; i < t; i++) {
        if (x[i] == 0 || seen[x[i]])
            return false;
        seen[x[i]] = true;
    }
    return true;
}

/* w_i = prod over j != i of x_j / (x_j - x_i) */
enum fl_status fl_shamir_weights(const uint8_t *x, uint32_t t, uint8_t *weights)
{
    if (t == 0 || t > FL_SHAMIR_SITES_MAX || !all_different(x, t))
        return FL_EINVAL;
    for (uint32_t i = 0; i < t; i++) {
        uint8_t above[FL_SCALAR_BYTES], below[FL_SCALAR_BYTES], xi[FL_SCALAR_BYTES];
        scalar_of(1, above);
        scalar_of(1, below);
        scalar_of(x[i], xi);
        for (uint32_t j = 0; j < t; j++) {
            uint8_t xj[FL_SCALAR_BYTES], difference[FL_SCALAR_BYTES];
            if (j == i)
                continue;
            scalar_of(x[j], xj);
            crypto_core_ristretto255_scalar_sub(difference, xj, xi);
            crypto_core_ristretto255_scalar_mul(above, above, xj);
            crypto_core_ristretto255_scalar_mul(below, below, difference);
        }
        if (crypto_core_ristretto255_scalar_invert(below, below) != 0)
            return FL_EINVAL;
        crypto_core_ristretto255_scalar_mul(weights + i * FL_SCALAR_BYTES, above, below);
    }
    return FL_OK;
}

void fl_shamir_combine_weighted(const uint8_t *weights, const uint8_t *shares, uint32_t t,
                                uint8_t secret[FL_SCALAR_BYTES])
{
    uint8_t sum[FL_SCALAR_BYTES] = {0}, term[FL_SCALAR_BYTES];
    for (uint32_t i = 0; i < t; i++) {
        crypto_core_ristretto255_scalar_mul(term, weights + i * FL_SCALAR_BYTES,
                                            shares + i * FL_SCALAR_BYTES);
        crypto_core_ristretto255_scalar_add(sum, sum, term);
    }
    memcpy(secret, sum, FL_SCALAR_BYTES);
    sodium_memzero(sum, sizeof(sum));
    sodium_memzero(term, sizeof(term));
}

enum fl_status fl_shamir_combine(const uint8_t *x, const uint8_t *shares, uint32_t t,
                                 uint8_t secret[FL_SCALAR_BYTES])
{
    uint8_t weights[FL_SHAMIR_SITES_MAX * FL_SCALAR_BYTES];
    if (t > FL_SHAMIR_SITES_MAX)
        return FL_EINVAL;
    enum fl_status status = fl_shamir_weights(x, t, weights);
    if (status == FL_OK)
        fl_shamir_combine_weighted(weights, shares, t, secret);
    return status;
}

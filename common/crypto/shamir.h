/*
 * shamir.h - t-of-n secret sharing of one scalar (Shamir, 1979) over the scalar field of
 * ristretto255, whose arithmetic in libsodium takes constant time.
 *
 * A secret is a scalar below the group order L = 2^252 + ...; draw one with fl_shamir_secret() and
 * derive whatever key is wanted from it by a hash. Shares are the values of a random polynomial of
 * degree t - 1 at x = 1..n.
 * Threads: pure functions.
 */
#ifndef FL_CRYPTO_SHAMIR_H
#define FL_CRYPTO_SHAMIR_H

#include <stdint.h>

#include "base/status.h"
#include "crypto/entropy.h"

#define FL_SCALAR_BYTES     32
#define FL_SHAMIR_SITES_MAX 255

/* A uniformly random secret. */
void fl_shamir_secret(const struct fl_entropy *entropy, uint8_t secret[FL_SCALAR_BYTES]);

/*
 * shares: (n, FL_SCALAR_BYTES), share i is for x = i + 1. 1 <= t <= n <= FL_SHAMIR_SITES_MAX:
 * FL_EINVAL otherwise, or when the secret is not a reduced scalar.
 */
FL_CHECKED enum fl_status fl_shamir_split(const uint8_t secret[FL_SCALAR_BYTES], uint32_t t,
                                          uint32_t n, const struct fl_entropy *entropy,
                                          uint8_t *shares);

/*
 * The secret from t shares: x[i] in 1..FL_SHAMIR_SITES_MAX, all different, shares (t,
 * FL_SCALAR_BYTES). FL_EINVAL: a bad x. A wrong share gives a wrong secret: compare with a
 * commitment.
 */
FL_CHECKED enum fl_status fl_shamir_combine(const uint8_t *x, const uint8_t *shares, uint32_t t,
                                            uint8_t secret[FL_SCALAR_BYTES]);

/*
 * Lagrange's weights at 0 for these x, (t, FL_SCALAR_BYTES): many secrets shared among the same
 * sites are combined with one set of weights. FL_EINVAL as above.
 */
FL_CHECKED enum fl_status fl_shamir_weights(const uint8_t *x, uint32_t t, uint8_t *weights);
/* secret = sum of weights[i] shares[i]. */
void fl_shamir_combine_weighted(const uint8_t *weights, const uint8_t *shares, uint32_t t,
                                uint8_t secret[FL_SCALAR_BYTES]);

#endif

/*
 * algebra.h - the small dense linear algebra of federated LoRA: thin QR, SVD of an r x r core,
 * re-factoring of a product B A, prefixes and differences of adapters.
 *
 * Everything here gives the same bytes on every machine: double precision, one thread, a fixed
 * order of operations, nothing from libm but sqrt (correctly rounded), no contraction to FMA
 * (the build says -ffp-contract=off), signs fixed (the largest |entry| of each left singular vector
 * is positive, the first one on a tie).
 * Sources: Golub and Van Loan, Matrix Computations, 5.2 (Householder QR) and 8.6.3 (one-sided
 * Jacobi, Hestenes 1958); Lee et al., FedSVD, 2025 (re-factoring).
 * Matrices of the double routines are stored by columns: entry (i, j) at [j * rows + i].
 * Threads: pure functions of their arguments.
 */
#ifndef FL_ADAPTER_ALGEBRA_H
#define FL_ADAPTER_ALGEBRA_H

#include <stddef.h>
#include <stdint.h>

#include "adapter/adapter.h"
#include "adapter/layout.h"
#include "base/status.h"

/* A direction is dead when S_j <= FL_DEAD_RATIO * S_1 (or S_1 = 0). */
#define FL_DEAD_RATIO 1e-7

/*
 * Thin QR by Householder reflections: a (rows, columns), rows >= columns >= 1, becomes Q with
 * orthonormal columns (also where a is rank-deficient); r (columns, columns) the upper triangle,
 * zeros below. FL_ENOMEM; FL_EINVAL: shape, or a value that is not finite.
 */
FL_CHECKED enum fl_status fl_qr(double *a, size_t rows, size_t columns, double *r);

/*
 * c (n, n) = U diag(s) V^T: c becomes U (columns of zero s are zero vectors), v (n, n), s (n)
 * falling. One-sided Jacobi, at most 60 sweeps (8 are usual). FL_EINVAL: not finite.
 */
FL_CHECKED enum fl_status fl_svd(double *c, size_t n, double *s, double *v);

struct fl_refactor_result {
    uint32_t kept;      /* directions with S_j > FL_DEAD_RATIO S_1, at most the new rank */
    double energy;      /* sum of all S_j^2 = ||B A||_F^2 */
    double energy_lost; /* sum of the squares of the directions that were cut */
};

/*
 * Re-factor module: to becomes the same product B A (up to float rounding and to the directions
 * cut when to->rank is smaller), with an orthonormal frozen factor (rows of A, or columns of B) and
 * the singular values in the other one. frozen: FL_FACTOR_A or FL_FACTOR_B. Directions that are
 * dead or new get in the frozen factor Gaussians of PRF(seed, round, module name), orthogonalised
 * twice against the others and normalised, and zeros in the trained factor. to has the same module
 * and its own a and b of to->rank. FL_ENOMEM, FL_EINVAL.
 */
FL_CHECKED enum fl_status fl_refactor(const struct fl_lora_module *from, enum fl_factors frozen,
                                      uint64_t seed, uint32_t round, struct fl_lora_module *to,
                                      struct fl_refactor_result *result);

/* n standard Gaussians of PRF(seed, round, name, index): the same on every machine. */
void fl_gaussians(uint64_t seed, uint32_t round, const char *name, uint32_t index, size_t n,
                  double *out);

/*
 * A new adapter with the same modules and scale, where module m has ranks[m] directions: the first
 * ones of self, and zeros beyond self's rank. FL_EINVAL: other ranks than self's, and self is of
 * DoRA, whose magnitudes belong to the product of all ranks.
 */
FL_CHECKED enum fl_status fl_adapter_prefix(const struct fl_adapter *self, const uint16_t *ranks,
                                            struct fl_adapter **out);
/* A new adapter of after - before in every A, B and m; the shapes must be equal (FL_EINVAL). */
FL_CHECKED enum fl_status fl_adapter_subtract(const struct fl_adapter *after,
                                              const struct fl_adapter *before,
                                              struct fl_adapter **out);
/* The largest |value| of one factor over all modules; 0 of magnitudes that are not there. */
double fl_adapter_max_abs(const struct fl_adapter *self, enum fl_factors factor);

#endif

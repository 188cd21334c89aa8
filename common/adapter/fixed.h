/*
 * fixed.h - the fixed-point grid on which updates are summed, so that a sum depends on no order.
 *
 * With n sites, b = 30 - ceil(log2 n), Q = 2^(b-1) - 1, range R of a tensor group and w_max =
 * min(weight_cap, steps x batch x seq_len), a site of weight w (scored tokens, capped at w_max)
 * sends q = nearest-even(clamp(x, -R, R) / R x w / w_max x Q) as a two's complement uint32. Sums
 * are taken mod 2^32. |sum| <= n Q < 2^29 always, so two guard bits stay free: a sum beyond n Q
 * proves a mask that did not cancel. mean = sum q x R x w_max / (Q x sum w).
 * Source: Bonawitz et al., CCS 2017, section 4; all in double, round-half-even done by hand, so
 * that the bytes do not depend on the machine.
 * Threads: pure functions of their arguments.
 */
#ifndef FL_ADAPTER_FIXED_H
#define FL_ADAPTER_FIXED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"

#define FL_GRID_SITES_MAX 4096
#define FL_LOSS_SCALE     1048576.0    /* loss sums are counted in units of 2^-20 */
#define FL_SCALAR_MAX     (1ull << 51) /* one site's scalar; 4096 of them stay below 2^63 */

struct fl_grid {
    uint32_t sites; /* n, 1..FL_GRID_SITES_MAX: the cohort as configured */
    uint32_t bits;  /* b */
    int64_t q_max;  /* Q */
    uint64_t w_max; /* >= 1 */
};

/* FL_EINVAL: sites, or a product that is 0. w_max saturates at weight_cap. */
FL_CHECKED enum fl_status fl_grid_init(struct fl_grid *self, uint32_t sites, uint64_t weight_cap,
                                       uint64_t steps, uint64_t batch_size, uint64_t seq_len);

/* Nearest integer, ties to even, whatever the rounding mode; |x| <= 2^52. */
int64_t fl_round_half_even(double x);

/*
 * One value on the grid. A value outside [-range, range] is cut to it and *cut grows by one; NaN
 * counts as cut and gives 0. weight <= w_max, range > 0.
 */
uint32_t fl_grid_encode(const struct fl_grid *self, double x, double range, uint64_t weight,
                        uint64_t *cut);

/* The mean that a ring sum stands for, given the summed weights of its tier; 0 when weights = 0. */
double fl_grid_mean(const struct fl_grid *self, uint32_t sum, double range, uint64_t weights);

/* Is |sum| <= n Q (n Q of one site: pass single = true)? */
bool fl_grid_holds(const struct fl_grid *self, uint32_t sum, bool single);

/* sum[i] += little-endian words of bytes, mod 2^32; count words. */
void fl_ring_add(uint32_t *sum, const void *bytes, size_t count);
/* As fl_ring_add() with minus: removes what was added. */
void fl_ring_subtract(uint32_t *sum, const void *bytes, size_t count);

/* In the order of the job table's `optimizer`. */
enum fl_update_rule { FL_RULE_ADAMW, FL_RULE_SGD };

/*
 * The automatic update range of a tensor group. AdamW moves an element by less than 2 lr a step,
 * and its decay by lr x weight_decay x |value|, where |value| <= max_abs + 2 lr steps; SGD with
 * gradient clipping moves it by at most lr x grad_clip (+ decay). max_abs: fl_adapter_max_abs() of
 * that factor of the *global* start adapter, so that both sides get the same number. FL_EINVAL: SGD
 * without clipping, lr = 0: the job must then give the range itself.
 */
FL_CHECKED enum fl_status fl_auto_range(enum fl_update_rule rule, double lr, uint64_t steps,
                                        double weight_decay, double grad_clip, double max_abs,
                                        double *out, struct fl_error *error);

#endif

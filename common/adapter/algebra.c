/*
 * algebra.c - see algebra.h. Plain loops in a fixed order on purpose: a BLAS would sum in an order
 * of its own on each machine.
 */
#include "adapter/algebra.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "crypto/prg.h"

#define SWEEPS_MAX 60

static double dot(const double *x, const double *y, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * y[i];
    return sum;
}

static void axpy(double scale, const double *x, double *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += scale * x[i];
}

static void scale_by(double factor, double *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= factor;
}

static bool all_finite(const double *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* ---- QR ---- */

/* y <- (I - beta v v^T) y */
static void reflect(const double *v, double beta, double *y, size_t n)
{
    if (beta != 0.0)
        axpy(-beta * dot(v, y, n), v, y, n);
}

/* Turn x into the Householder vector that maps it to *head e_1; returns beta (0: nothing to do). */
static double householder(double *x, size_t n, double *head)
{
    double norm = sqrt(dot(x, x, n));

    *head = 0.0;
    if (norm == 0.0)
        return 0.0;
    *head = x[0] >= 0.0 ? -norm : norm; /* away from x[0]: no cancellation */
    x[0] -= *head;
    return 2.0 / dot(x, x, n);
}

/* Columns k of a hold Householder vectors from row k on; turn a into the Q they stand for. */
static void form_q(double *a, size_t rows, size_t columns, const double *beta)
{
    for (size_t k = columns; k-- > 0;) {
        double *v = a + k * rows + k;
        size_t n = rows - k;
        double head = v[0];

        for (size_t j = k + 1; j < columns; j++)
            reflect(v, beta[k], a + j * rows + k, n);
        memset(a + k * rows, 0, k * sizeof *a);
        scale_by(-beta[k] * head, v, n); /* e_1 - beta v v_1 */
        if (beta[k] == 0.0)
            memset(v, 0, n * sizeof *v);
        v[0] += 1.0;
    }
}

enum fl_status fl_qr(double *a, size_t rows, size_t columns, double *r)
{
    double *beta;

    if (columns == 0 || rows < columns || !all_finite(a, rows * columns))
        return FL_EINVAL;
    beta = fl_calloc(columns, sizeof *beta);
    if (beta == NULL)
        return FL_ENOMEM;
    memset(r, 0, columns * columns * sizeof *r);
    for (size_t k = 0; k < columns; k++) {
        double *v = a + k * rows + k;
        beta[k] = householder(v, rows - k, &r[k * columns + k]);
        for (size_t j = k + 1; j < columns; j++) {
            reflect(v, beta[k], a + j * rows + k, rows - k);
            r[j * columns + k] = a[j * rows + k];
        }
    }
    form_q(a, rows, columns, beta);
    fl_free(beta);
    return FL_OK;
}

/* ---- SVD ---- */

/* (x, y) <- (cos x - sin y, sin x + cos y) */
static void rotate(double *x, double *y, size_t n, double cosine, double sine)
{
    for (size_t i = 0; i < n; i++) {
        double old = x[i];
        x[i] = cosine * old - sine * y[i];
        y[i] = sine * old + cosine * y[i];
    }
}

/* Make columns x and y of c orthogonal; true when they were not. */
static bool orthogonalise_pair(double *c, double *v, size_t n, size_t p, size_t q, double tolerance)
{
    double *x = c + p * n, *y = c + q * n;
    double xx = dot(x, x, n), yy = dot(y, y, n), xy = dot(x, y, n);

    if (fabs(xy) <= tolerance * sqrt(xx) * sqrt(yy))
        return false;
    double zeta = (yy - xx) / (2.0 * xy);
    double tangent = 1.0 / (fabs(zeta) + sqrt(1.0 + zeta * zeta));
    tangent = zeta < 0.0 ? -tangent : tangent;
    double cosine = 1.0 / sqrt(1.0 + tangent * tangent);

    rotate(x, y, n, cosine, cosine * tangent);
    rotate(v + p * n, v + q * n, n, cosine, cosine * tangent);
    return true;
}

static void swap_columns(double *c, size_t n, size_t p, size_t q)
{
    for (size_t i = 0; i < n; i++) {
        double old = c[p * n + i];
        c[p * n + i] = c[q * n + i];
        c[q * n + i] = old;
    }
}

/* Falling s; equal values keep their order. */
static void sort_columns(double *c, double *v, double *s, size_t n)
{
    for (size_t p = 0; p + 1 < n; p++) {
        size_t best = p;
        for (size_t q = p + 1; q < n; q++)
            best = s[q] > s[best] ? q : best;
        if (best == p)
            continue;
        double old = s[p];
        s[p] = s[best];
        s[best] = old;
        swap_columns(c, n, p, best);
        swap_columns(v, n, p, best);
    }
}

/* Flip u and v together so that u's largest |entry| (the first on a tie) is positive. */
static void fix_sign(double *u, size_t rows, double *v, size_t columns)
{
    size_t best = 0;
    for (size_t i = 1; i < rows; i++)
        best = fabs(u[i]) > fabs(u[best]) ? i : best;
    if (u[best] < 0.0) {
        scale_by(-1.0, u, rows);
        scale_by(-1.0, v, columns);
    }
}

enum fl_status fl_svd(double *c, size_t n, double *s, double *v)
{
    double tolerance = 1e-15 + 2.3e-16 * (double)n;
    bool moved = true;

    if (n == 0 || !all_finite(c, n * n))
        return FL_EINVAL;
    memset(v, 0, n * n * sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i * n + i] = 1.0;
    for (int sweep = 0; sweep < SWEEPS_MAX && moved; sweep++) {
        moved = false;
        for (size_t p = 0; p + 1 < n; p++)
            for (size_t q = p + 1; q < n; q++)
                if (orthogonalise_pair(c, v, n, p, q, tolerance))
                    moved = true;
    }
    for (size_t j = 0; j < n; j++)
        s[j] = sqrt(dot(c + j * n, c + j * n, n));
    sort_columns(c, v, s, n);
    for (size_t j = 0; j < n; j++) {
        if (s[j] > 0.0)
            scale_by(1.0 / s[j], c + j * n, n);
        fix_sign(c + j * n, n, v + j * n, n);
    }
    return FL_OK;
}

/* ---- re-factoring ---- */

void fl_gaussians(uint64_t seed, uint32_t round, const char *name, uint32_t index, size_t n,
                  double *out)
{
    uint8_t key[FL_SEED_BYTES];
    struct fl_prf prf;
    struct fl_prg prg;

    fl_prf_begin_u64(&prf, seed, "fedlora-gaussian-v1");
    fl_prf_u64(&prf, round);
    fl_prf_u64(&prf, index);
    fl_prf_text(&prf, name);
    fl_prf_end(&prf, key);
    fl_prg_init(&prg, key);
    for (size_t i = 0; i < n; i++)
        out[i] = fl_prg_gaussian(&prg);
}

/* Working memory of one re-factoring: everything by columns. */
struct work {
    double *block;        /* owns all below */
    double *left, *right; /* (out, r), (in, r): Q of B and of A^T, then singular vectors */
    double *rb, *ra;      /* (r, r) triangles */
    double *core, *v, *s; /* (r, r), (r, r), (r) */
    double *frozen;       /* (dim, rank of the result) */
};

static bool work_create(struct work *self, size_t out, size_t in, size_t r, size_t frozen_values)
{
    size_t total = (out + in) * r + 4 * r * r + r + frozen_values;
    double *at = fl_calloc(total, sizeof *at);

    self->block = at;
    if (at == NULL)
        return false;
    self->left = at;
    self->right = self->left + out * r;
    self->rb = self->right + in * r;
    self->ra = self->rb + r * r;
    self->core = self->ra + r * r;
    self->v = self->core + r * r;
    self->s = self->v + r * r;
    self->frozen = self->s + r;
    return true;
}

/* q (rows, r) <- q u, row by row */
static void times_square(double *q, size_t rows, size_t r, const double *u, double *row)
{
    for (size_t i = 0; i < rows; i++) {
        for (size_t k = 0; k < r; k++)
            row[k] = q[k * rows + i];
        for (size_t j = 0; j < r; j++)
            q[j * rows + i] = dot(row, u + j * r, r);
    }
}

/* left, s, right <- singular vectors and values of B A, by QR of both and SVD of R_B R_A^T */
static enum fl_status product_svd(const struct fl_lora_module *from, struct work *w)
{
    size_t out = from->module.out, in = from->module.in, r = from->rank;
    enum fl_status status;

    for (size_t j = 0; j < r; j++)
        for (size_t i = 0; i < out; i++)
            w->left[j * out + i] = (double)from->b[i * r + j];
    for (size_t i = 0; i < r * in; i++)
        w->right[i] = (double)from->a[i];
    status = fl_qr(w->left, out, r, w->rb);
    if (status == FL_OK)
        status = fl_qr(w->right, in, r, w->ra);
    if (status != FL_OK)
        return status;
    for (size_t j = 0; j < r; j++)
        for (size_t i = 0; i < r; i++) {
            double sum = 0.0;
            for (size_t k = i > j ? i : j; k < r; k++) /* both are upper triangles */
                sum += w->rb[k * r + i] * w->ra[k * r + j];
            w->core[j * r + i] = sum;
        }
    status = fl_svd(w->core, r, w->s, w->v);
    if (status != FL_OK)
        return status;
    times_square(w->left, out, r, w->core, w->rb);
    times_square(w->right, in, r, w->v, w->rb);
    for (size_t j = 0; j < r; j++)
        fix_sign(w->left + j * out, out, w->right + j * in, in);
    return FL_OK;
}

static void measure(const struct work *w, size_t r, size_t new_rank,
                    struct fl_refactor_result *result)
{
    *result = (struct fl_refactor_result){0};
    for (size_t j = 0; j < r; j++) {
        double square = w->s[j] * w->s[j];
        bool alive = w->s[j] > FL_DEAD_RATIO * w->s[0];
        if (alive && j < new_rank)
            result->kept++;
        else
            result->energy_lost += square;
        result->energy += square;
    }
}

/* Column j of basis (n, j + 1): a unit Gaussian direction orthogonal to the columns before it. */
static void fresh_direction(double *basis, size_t n, size_t j, uint64_t seed, uint32_t round,
                            const char *name)
{
    double *x = basis + j * n;

    for (uint32_t attempt = 0; attempt < 8; attempt++) {
        fl_gaussians(seed, round, name, (uint32_t)j + attempt * FL_RANK_MAX, n, x);
        for (int pass = 0; pass < 2; pass++) /* twice is enough (Kahan, Parlett) */
            for (size_t k = 0; k < j; k++)
                axpy(-dot(basis + k * n, x, n), basis + k * n, x, n);
        double norm = sqrt(dot(x, x, n));
        if (norm > 1e-6) {
            scale_by(1.0 / norm, x, n);
            return;
        }
    }
    memset(x, 0, n * sizeof *x); /* no room left in n dimensions: callers keep rank <= n */
}

/* to's two factors from the kept directions and the completed frozen basis. */
static void write_factors(const struct work *w, enum fl_factors frozen, size_t kept,
                          struct fl_lora_module *to)
{
    size_t out = to->module.out, in = to->module.in, r = to->rank;
    bool frozen_a = frozen == FL_FACTOR_A;

    for (size_t j = 0; j < r; j++) {
        const double *a = frozen_a ? w->frozen + j * in : w->right + j * in;
        const double *b = frozen_a ? w->left + j * out : w->frozen + j * out;
        for (size_t i = 0; i < in; i++)
            to->a[j * in + i] = frozen_a ? (float)a[i] : j < kept ? (float)(w->s[j] * a[i]) : 0.0f;
        for (size_t i = 0; i < out; i++)
            to->b[i * r + j] = !frozen_a ? (float)b[i] : j < kept ? (float)(w->s[j] * b[i]) : 0.0f;
    }
}

enum fl_status fl_refactor(const struct fl_lora_module *from, enum fl_factors frozen, uint64_t seed,
                           uint32_t round, struct fl_lora_module *to,
                           struct fl_refactor_result *result)
{
    size_t out = from->module.out, in = from->module.in, r = from->rank;
    size_t dim = frozen == FL_FACTOR_A ? in : out;
    struct work w;
    enum fl_status status = FL_EINVAL;

    *result = (struct fl_refactor_result){0};
    if (to->module.out != out || to->module.in != in || to->rank == 0 || to->rank > dim || r == 0 ||
        r > out || r > in || (frozen != FL_FACTOR_A && frozen != FL_FACTOR_B))
        return FL_EINVAL;
    if (!work_create(&w, out, in, r, dim * to->rank))
        return FL_ENOMEM;
    status = product_svd(from, &w);
    if (status != FL_OK)
        goto out;
    measure(&w, r, to->rank, result);
    memcpy(w.frozen, frozen == FL_FACTOR_A ? w.right : w.left,
           dim * result->kept * sizeof *w.frozen);
    for (size_t j = result->kept; j < to->rank; j++)
        fresh_direction(w.frozen, dim, j, seed, round, from->module.name);
    write_factors(&w, frozen, result->kept, to);
out:
    fl_free(w.block);
    return status;
}

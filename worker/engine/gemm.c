/* gemm.c - see gemm.h: which kernel, and whole products out of its strips. */
#include "worker/engine/gemm.h"

#include <cblas.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "worker/engine/gemm_internal.h"

enum {
    DEPTH = 256,          /* rows of B that are packed at once */
    PACK_ROWS_LEAST = 24, /* fewer rows of A do not pay for copying B */
    THIN = 64             /* A^T B with so few columns is computed as (B^T A)^T */
};

static struct {
    const struct fl_gemm_kernel *kernel;
    const struct fl_gemm_bf16 *bf16;
} chosen;

#ifdef FL_GEMM_X86
/* FL_GEMM asks for `name`, or for nothing. */
static bool wants(const char *name)
{
    const char *wanted = getenv("FL_GEMM");
    return !wanted || !*wanted || strcmp(wanted, name) == 0;
}

/* With AMX float32 goes through AVX-512, which all processors with AMX have. */
static void choose(void)
{
    __builtin_cpu_init();
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
    const bool pairs = wide && __builtin_cpu_supports("avx512bf16") &&
                       __builtin_cpu_supports("avx512bw");
    if (pairs && wants("amx") && fl_gemm_amx_allowed()) {
        chosen.kernel = &fl_gemm_avx512;
        chosen.bf16 = &fl_gemm_amx_bf16;
    } else if (wide && wants("avx512")) {
        chosen.kernel = &fl_gemm_avx512;
        chosen.bf16 = pairs ? &fl_gemm_avx512_bf16 : NULL;
    } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && wants("avx2")) {
        chosen.kernel = &fl_gemm_avx2;
    }
}
#else
static void choose(void)
{
}
#endif

static void choose_once(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose);
}

const struct fl_gemm_kernel *fl_gemm_kernel(void)
{
    choose_once();
    return chosen.kernel;
}

const struct fl_gemm_bf16 *fl_gemm_bf16(void)
{
    choose_once();
    return chosen.bf16;
}

const char *fl_gemm_name(bool bf16)
{
    if (bf16)
        return fl_gemm_bf16() ? fl_gemm_bf16()->tiles->name : "none";
    return fl_gemm_kernel() ? fl_gemm_kernel()->name : "openblas";
}

static void prepare(void)
{
    static const struct fl_field NONE = {.kind = FL_FIELD_END};
    if (fl_gemm_kernel())
        return;
    if (openblas_get_parallel() != 2)
        fl_log_fields(FL_LOG_WARN, "blas_build",
                      "OpenBLAS is not its OpenMP build: install libopenblas0-openmp and choose it "
                      "with update-alternatives --config libopenblas.so.0-$(uname -m)-linux-gnu",
                      &NONE);
    openblas_set_num_threads(1);
}

void fl_gemm_prepare(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare);
}

/* A product whose B is as it lies in memory: (k, n), or turned (n, k). */
struct product {
    struct fl_gemm_strip s; /* all but n, b, c of one strip */
    size_t n;
    const float *b;
    size_t ldb;
    bool turned;
};

static void clear_unless(bool add, float *c, size_t ldc, size_t m, size_t n)
{
    for (size_t i = 0; i < m && !add; i++)
        memset(c + i * ldc, 0, n * sizeof *c);
}

/* Even strips, so that no last one is much narrower than the rest. */
static size_t even_columns(const struct fl_gemm_kernel *kernel, size_t n)
{
    const size_t strips = (n + kernel->columns - 1) / kernel->columns;
    return fl_gemm_padded(kernel, (n + strips - 1) / strips);
}

static void packed_strip(const struct fl_gemm_kernel *kernel, const struct product *p,
                         struct fl_gemm_strip s, size_t first)
{
    FL_GEMM_ROOM packed[DEPTH * FL_GEMM_COLUMNS_MAX];
    const size_t k = s.k, width = fl_gemm_padded(kernel, s.n);
    const float *a = s.a;
    for (size_t q = 0; q < k; q += DEPTH) {
        s.k = k - q < DEPTH ? k - q : DEPTH;
        if (p->turned)
            kernel->pack_turned(p->b + first * p->ldb + q, p->ldb, s.k, s.n, packed, width);
        else
            kernel->pack(p->b + q * p->ldb + first, p->ldb, s.k, s.n, packed, width);
        s.a = a + q * s.cs;
        s.b = packed;
        s.ldb = width;
        kernel->strip(&s);
        s.add = true;
    }
}

static void multiply(const struct fl_gemm_kernel *kernel, const struct product *p)
{
    if (!p->n || !p->s.m)
        return;
    if (!p->s.k) {
        clear_unless(p->s.add, p->s.c, p->s.ldc, p->s.m, p->n);
        return;
    }
    const size_t columns = even_columns(kernel, p->n);
    for (size_t first = 0; first < p->n; first += columns) {
        struct fl_gemm_strip s = p->s;
        s.n = p->n - first < columns ? p->n - first : columns;
        s.c += first;
        s.b = p->b + first;
        s.ldb = p->ldb;
        const bool direct = !p->turned && s.n % kernel->lanes == 0;
        if (direct && (s.m < PACK_ROWS_LEAST || p->n <= 2 * kernel->columns))
            kernel->strip(&s);
        else
            packed_strip(kernel, p, s, first);
    }
}

/* Everything but where A's element (i, p) lies: a product of plain matrices. */
static struct product product_of(size_t m, size_t n, size_t k, float alpha, const float *a,
                                 const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    return (struct product){
        .s = {.m = m, .k = k, .alpha = alpha, .a = a, .c = c, .ldc = ldc, .add = beta != 0.0f},
        .n = n,
        .b = b,
        .ldb = ldb};
}

static struct product by_rows(struct product p, size_t lda)
{
    p.s.rs = lda;
    p.s.cs = 1;
    return p;
}

static struct product by_columns(struct product p, size_t lda)
{
    p.s.rs = 1;
    p.s.cs = lda;
    return p;
}

void fl_gemm_nt(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    const struct fl_gemm_kernel *kernel = fl_gemm_kernel();
    if (kernel && m < 4 && alpha == 1.0f) {
        for (size_t i = 0; i < m; i++)
            kernel->dots(n, k, a + i * lda, b, ldb, c + i * ldc, beta != 0.0f);
    } else if (kernel) {
        struct product p = by_rows(product_of(m, n, k, alpha, a, b, ldb, beta, c, ldc), lda);
        p.turned = true;
        multiply(kernel, &p);
    } else if (m && n) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)n, (int)k, alpha, a,
                    (int)lda, b, (int)ldb, beta, c, (int)ldc);
    }
}

void fl_gemm_nn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    const struct fl_gemm_kernel *kernel = fl_gemm_kernel();
    if (kernel) {
        const struct product p = by_rows(product_of(m, n, k, alpha, a, b, ldb, beta, c, ldc), lda);
        multiply(kernel, &p);
    } else if (m && n) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)n, (int)k, alpha, a,
                    (int)lda, b, (int)ldb, beta, c, (int)ldc);
    }
}

/* C = [C +] alpha A^T B with few columns: strips of A's columns take B's place, which reads A along
 * its rows. */
static void multiply_thin(const struct fl_gemm_kernel *kernel, size_t m, size_t n, size_t k,
                          float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                          bool add, float *c, size_t ldc)
{
    FL_GEMM_ROOM turned[THIN * FL_GEMM_COLUMNS_MAX];
    for (size_t first = 0; first < m; first += kernel->columns) {
        const size_t count = m - first < kernel->columns ? m - first : kernel->columns;
        const struct product p =
            by_columns(product_of(n, count, k, alpha, b, a + first, lda, 0.0f, turned, count), ldb);
        multiply(kernel, &p);
        for (size_t i = 0; i < count; i++)
            for (size_t j = 0; j < n; j++) {
                float *to = c + (first + i) * ldc + j;
                *to = add ? *to + turned[j * count + i] : turned[j * count + i];
            }
    }
}

void fl_gemm_tn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    const struct fl_gemm_kernel *kernel = fl_gemm_kernel();
    if (kernel && n <= THIN && n < m) {
        multiply_thin(kernel, m, n, k, alpha, a, lda, b, ldb, beta != 0.0f, c, ldc);
    } else if (kernel) {
        const struct product p = by_columns(product_of(m, n, k, alpha, a, b, ldb, beta, c, ldc),
                                            lda);
        multiply(kernel, &p);
    } else if (m && n) {
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)m, (int)n, (int)k, alpha, a,
                    (int)lda, b, (int)ldb, beta, c, (int)ldc);
    }
}

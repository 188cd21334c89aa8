/*
 * secagg.c - what masking costs a site and unmasking the coordinator, on one core: seconds and CPU
 * seconds (the smaller of which says more on a busy machine), medians, and what a site uploads.
 *
 *   bench_secagg                     the table: three vector lengths, 3, 10 and 50 sites
 *   bench_secagg VALUES SITES [TIMES]     one row of it
 *
 * One JSON object a line. A tenth of the sites drop out after sharing, before uploading, which is
 * the dear case: each leaves a mask for every survivor. The stages before and after (keys, shares,
 * signatures, answers) are real, with a short vector where the vector does not matter; the first
 * CHECKED values of the unmasked sum are compared with the plain sum.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "crypto/prg.h"
#include "crypto/sealed.h"
#include "secagg/secagg.h"

#define CHECKED   1024
#define SCALARS   8
#define TIMES_MAX 9

static struct fl_error error;
static struct fl_prg stream;

struct cost {
    double seconds, cpu_seconds;
};

struct attempt {
    uint32_t n, dropouts;
    struct fl_secagg_context context;
    struct fl_secagg_cohort cohort;
    struct fl_keys *keys[FL_SECAGG_SITES_MAX];
    struct fl_secagg_site *sites[FL_SECAGG_SITES_MAX]; /* in the cohort's order */
    struct fl_secagg_set sharers, survivors;
    uint8_t *sealed; /* (n, n, FL_SECAGG_SEALED_SHARE_BYTES): from, to */
};

static void seeded(void *context, void *out, size_t length)
{
    fl_prg_bytes(context, out, length);
}

static const struct fl_entropy entropy = {seeded, &stream};

static void check(enum fl_status status)
{
    if (status == FL_OK)
        return;
    fprintf(stderr, "bench_secagg: %s: %s\n", fl_status_text(status), error.text);
    exit(1);
}

static void *take(size_t count, size_t size)
{
    void *block = fl_calloc(count, size);
    if (!block)
        check(FL_ENOMEM);
    return block;
}

static struct cost now(void)
{
    struct timespec wall, cpu;
    (void)clock_gettime(CLOCK_MONOTONIC, &wall);
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    return (struct cost){(double)wall.tv_sec + 1e-9 * (double)wall.tv_nsec,
                         (double)cpu.tv_sec + 1e-9 * (double)cpu.tv_nsec};
}

static struct cost since(struct cost start)
{
    const struct cost end = now();
    return (struct cost){end.seconds - start.seconds, end.cpu_seconds - start.cpu_seconds};
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct cost median(const struct cost *runs, uint32_t count)
{
    double wall[TIMES_MAX], cpu[TIMES_MAX];
    for (uint32_t i = 0; i < count; i++) {
        wall[i] = runs[i].seconds;
        cpu[i] = runs[i].cpu_seconds;
    }
    qsort(wall, count, sizeof(*wall), ascending);
    qsort(cpu, count, sizeof(*cpu), ascending);
    return (struct cost){wall[count / 2], cpu[count / 2]};
}

/* Keys and shares of n sites, all of whom share. */
static void begin(struct attempt *a, uint32_t n, uint64_t elements)
{
    static struct fl_secagg_advert adverts[FL_SECAGG_SITES_MAX];
    static const uint8_t no_ranks[FL_HASH_BYTES];
    memset(a, 0, sizeof(*a));
    a->n = n;
    a->dropouts = n / 10;
    a->context =
        (struct fl_secagg_context){.job = 1, .round = 1, .attempt = 1, .elements = elements};
    a->sealed = take((size_t)n * n, FL_SECAGG_SEALED_SHARE_BYTES);
    for (uint32_t u = 0; u < n; u++) {
        char name[FL_NAME_BYTES] = {0};
        (void)snprintf(name, sizeof(name), "site-%03u", u);
        check(fl_keys_generate(&entropy, &a->keys[u]));
        check(
            fl_secagg_site_create(&a->context, name, no_ranks, a->keys[u], &entropy, &a->sites[u]));
        adverts[u] = *fl_secagg_site_advert(a->sites[u]);
        a->sharers.has[u] = true;
        a->survivors.has[u] = u >= a->dropouts;
    }
    check(fl_secagg_cohort_check(&a->context, adverts, n, &a->cohort, &error));
    for (uint32_t u = 0; u < n; u++) {
        check(fl_secagg_site_join(a->sites[u], adverts, n, 3, &error));
        check(fl_secagg_site_share(a->sites[u], &entropy,
                                   a->sealed + (size_t)u * n * FL_SECAGG_SEALED_SHARE_BYTES,
                                   &error));
    }
    for (uint32_t i = 0; i < n * n; i++) {
        if (i / n != i % n)
            check(fl_secagg_site_take_share(a->sites[i % n], i / n,
                                            a->sealed + (size_t)i * FL_SECAGG_SEALED_SHARE_BYTES,
                                            &error));
    }
}

static void end(struct attempt *a)
{
    for (uint32_t u = 0; u < a->n; u++) {
        fl_secagg_site_destroy(&a->sites[u]);
        fl_keys_destroy(&a->keys[u]);
    }
    fl_free(a->sealed);
}

/* One site's masking, by `times` sites one after the other. */
static struct cost measure_mask(uint32_t n, uint64_t elements, uint32_t times, uint32_t *vector)
{
    static struct attempt a;
    struct cost runs[TIMES_MAX];
    uint64_t scalars[SCALARS] = {0};
    begin(&a, n, elements);
    for (uint32_t i = 0; i < times; i++) {
        const struct cost start = now();
        check(fl_secagg_site_mask(a.sites[i], &a.sharers, vector, scalars, SCALARS, &error));
        runs[i] = since(start);
    }
    end(&a);
    return median(runs, times);
}

/* Mask CHECKED values of every survivor, sum them into masked and plain, and answer. */
static void collect(struct attempt *a, uint32_t *plain, uint32_t *masked, uint64_t *scalars,
                    uint8_t *answers)
{
    static uint8_t signatures[FL_SECAGG_SITES_MAX][FL_SIGNATURE_BYTES];
    for (uint32_t u = a->dropouts; u < a->n; u++) {
        uint32_t vector[CHECKED];
        uint64_t own[SCALARS] = {0};
        for (uint32_t k = 0; k < CHECKED; k++) {
            vector[k] = fl_prg_u32(&stream);
            plain[k] += vector[k];
        }
        check(fl_secagg_site_mask(a->sites[u], &a->sharers, vector, own, SCALARS, &error));
        for (uint32_t k = 0; k < CHECKED; k++)
            masked[k] += vector[k];
        for (uint32_t k = 0; k < SCALARS; k++)
            scalars[k] += own[k];
        check(fl_secagg_site_sign(a->sites[u], &a->survivors, a->keys[u], signatures[u], &error));
    }
    for (uint32_t u = a->dropouts; u < a->n; u++)
        check(fl_secagg_site_answer(a->sites[u], &a->survivors, &a->survivors, signatures[0],
                                    answers + (size_t)u * a->n * FL_SCALAR_BYTES, &error));
}

static struct cost measure_unmask(uint32_t n, uint64_t elements, uint32_t times, uint32_t *vector)
{
    static struct attempt a;
    uint32_t plain[CHECKED] = {0}, masked[CHECKED] = {0};
    uint64_t masked_scalars[SCALARS] = {0};
    struct cost runs[TIMES_MAX];
    uint8_t *answers = take((size_t)n * n, FL_SCALAR_BYTES);
    begin(&a, n, CHECKED);
    collect(&a, plain, masked, masked_scalars, answers);
    struct fl_secagg_context longer = a.context; /* the masks' streams only go on */
    longer.elements = elements;
    for (uint32_t i = 0; i < times; i++) {
        uint64_t scalars[SCALARS];
        memcpy(scalars, masked_scalars, sizeof(scalars));
        memcpy(vector, masked, sizeof(masked));
        const struct cost start = now();
        check(fl_secagg_unmask(&longer, &a.cohort, &a.sharers, &a.survivors, &a.survivors, answers,
                               vector, scalars, SCALARS, NULL, &error));
        runs[i] = since(start);
        if (memcmp(vector, plain, sizeof(plain)) != 0 || scalars[0] != 0)
            check(fl_fail(&error, FL_EFORMAT, "the unmasked sum is wrong"));
    }
    end(&a);
    fl_free(answers);
    return median(runs, times);
}

/* All that a site sends in one attempt, over the vector as fp32. */
static double upload_factor(uint32_t n, uint64_t elements)
{
    const uint64_t body = 4 * elements + 8 * SCALARS;
    const uint64_t stages = sizeof(struct fl_secagg_advert) +
                            (uint64_t)(n - 1) * FL_SECAGG_SEALED_SHARE_BYTES + FL_SIGNATURE_BYTES +
                            (uint64_t)n * FL_SCALAR_BYTES;
    return (double)(fl_sealed_size(body) + stages) / (double)(4 * elements);
}

static void row(uint64_t elements, uint32_t n, uint32_t times)
{
    const uint8_t seed[FL_SEED_BYTES] = {1};
    fl_prg_init(&stream, seed);
    uint32_t *vector = take((size_t)elements, sizeof(*vector));
    memset(vector, 1,
           (size_t)elements * sizeof(*vector)); /* its pages exist before the clock runs */
    const struct cost mask = measure_mask(n, elements, times < n ? times : n, vector);
    const struct cost unmask = measure_unmask(n, elements, times, vector);
    fl_free(vector);
    printf("{\"values\":%" PRIu64 ",\"sites\":%u,\"mask_seconds\":%.4f,\"mask_cpu_seconds\":%.4f,"
           "\"dropouts\":%u,\"unmask_seconds\":%.4f,\"unmask_cpu_seconds\":%.4f,"
           "\"upload_over_fp32\":%.5f}\n",
           elements, n, mask.seconds, mask.cpu_seconds, n / 10, unmask.seconds, unmask.cpu_seconds,
           upload_factor(n, elements));
    (void)fflush(stdout);
}

int main(int argc, char **argv)
{
    static const uint64_t lengths[] = {460800, 4884480, 40000000};
    static const uint32_t cohorts[] = {3, 10, 50};
    uint64_t elements, n, times = 3;
    fl_hash_init();
    if (argc > 1) {
        if (argc < 3 || fl_parse_u64(argv[1], CHECKED, 1u << 30, &elements) != FL_OK ||
            fl_parse_u64(argv[2], FL_SECAGG_SITES_MIN, FL_SECAGG_SITES_MAX, &n) != FL_OK ||
            (argc > 3 && fl_parse_u64(argv[3], 1, TIMES_MAX, &times) != FL_OK)) {
            fprintf(stderr, "usage: bench_secagg [VALUES SITES [TIMES]]\n");
            return 2;
        }
        row(elements, (uint32_t)n, (uint32_t)times);
        return 0;
    }
    for (size_t d = 0; d < sizeof(lengths) / sizeof(lengths[0]); d++) {
        for (size_t c = 0; c < sizeof(cohorts) / sizeof(cohorts[0]); c++)
            row(lengths[d], cohorts[c], 3);
    }
    return 0;
}

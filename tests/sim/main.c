/*
 * main.c - sim --seeds A-B [--workers LOW-HIGH] [-v]: run seeds, say which fails and how to see it
 * again. Exit code 0: none; 1: one failed; 2: usage.
 */
#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "base/log.h"
#include "disk.h"
#include "sim.h"

#define FAILURES_MAX 5

struct options {
    uint64_t first, last;
    uint32_t least, most;
    double seconds; /* no new seed after so long; 0: all */
    bool verbose, twice;
};

enum sim_plant sim_planted = SIM_PLANT_NONE;

static char replay[160]; /* what a signal handler writes */

/* ---- libsodium's generator, seeded: the same keys and nonces in every run of a seed ---- */

static uint64_t stream;

static uint32_t next_word(void)
{
    uint64_t z = (stream += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 32 ^ z);
}

static const char *generator_name(void)
{
    return "sim";
}

static void fill(void *const out, const size_t length)
{
    uint8_t *bytes = out;
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)next_word();
}

static struct randombytes_implementation generator = {
    .implementation_name = generator_name, .random = next_word, .buf = fill};

/* ---- a run ---- */

static uint32_t sites_of(const struct options *options, uint64_t seed)
{
    return options->least +
           (uint32_t)(seed * 2654435761u >> 7) % (options->most - options->least + 1);
}

static const char *const sim_count_names[] = {"steps",
                                              "frames",
                                              "deaths of sites",
                                              "deaths of the coordinator",
                                              "of them in a durable step",
                                              "cuts",
                                              "clogs",
                                              "disk faults",
                                              "power cuts",
                                              "rubbish",
                                              "resumes",
                                              "versions",
                                              "trainings",
                                              "attempts",
                                              "clocks set",
                                              "revocations",
                                              "stops",
                                              "twins",
                                              "lies",
                                              "replays"};
static_assert(sizeof(sim_count_names) / sizeof(sim_count_names[0]) ==
                  sizeof(struct sim_counts) / sizeof(uint64_t),
              "a name for each count");

static bool run_once(const struct options *options, uint64_t seed, struct sim_counts *counts,
                     uint64_t *digest)
{
    struct sim *sim = fl_calloc(1, sizeof(*sim));
    if (!sim)
        return false;
    sim->seed = seed;
    sim->site_count = sites_of(options, seed);
    sim->verbose = options->verbose;
    stream = seed * 0x9e3779b97f4a7c15u + 1;
    (void)snprintf(replay, sizeof(replay),
                   "replay: build/tests/sim/sim --seed %" PRIu64 " --workers %u -v\n", seed,
                   sim->site_count);
    bool good = sim_run(sim);
    if (!good)
        (void)fprintf(stderr, "seed %" PRIu64 ", %u sites, after %.3f s: %s\n%s", seed,
                      sim->site_count, (double)sim->now / 1000.0, sim->failure, replay);
    if (options->verbose)
        (void)fprintf(stderr, "seed %" PRIu64 ": %s, %.1f simulated s, digest %016" PRIx64 "\n",
                      seed, good ? "good" : "BAD", (double)sim->now / 1000.0, sim->digest);
    uint64_t *sums = (uint64_t *)counts;
    const uint64_t *ours = (const uint64_t *)&sim->counts;
    for (size_t i = 0; i < sizeof(*counts) / sizeof(uint64_t); i++)
        sums[i] += ours[i];
    *digest = sim->digest;
    fl_free(sim);
    return good;
}

static bool run_seed(const struct options *options, uint64_t seed, struct sim_counts *counts)
{
    uint64_t first, again;
    if (!run_once(options, seed, counts, &first))
        return false;
    if (!options->twice)
        return true;
    if (!run_once(options, seed, counts, &again))
        return false;
    if (first == again)
        return true;
    (void)fprintf(stderr, "seed %" PRIu64 " did not run the same way twice\n%s", seed, replay);
    return false;
}

static double seconds_now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int run_all(const struct options *options)
{
    struct sim_counts c = {0};
    unsigned failures = 0;
    uint64_t seed = options->first, done = 0;
    double began = seconds_now();
    for (; seed <= options->last && failures < FAILURES_MAX; seed++) {
        if (options->seconds > 0.0 && seconds_now() - began > options->seconds)
            break;
        failures += !run_seed(options, seed, &c);
        done++;
    }
    (void)printf("%" PRIu64 " seeds, %u failed, %.1f s\n", done, failures, seconds_now() - began);
    const uint64_t *sums = (const uint64_t *)&c;
    for (size_t i = 0; i < sizeof(c) / sizeof(uint64_t); i++)
        (void)printf("%s%" PRIu64 " %s", i ? ", " : "  ", sums[i], sim_count_names[i]);
    (void)printf("\n");
    return failures ? 1 : 0;
}

/* ---- command line ---- */

static bool range(const char *text, uint64_t *low, uint64_t *high)
{
    char *end;
    *low = *high = strtoull(text, &end, 10);
    if (end == text)
        return false;
    if (*end == '-') {
        const char *second = end + 1;
        *high = strtoull(second, &end, 10);
        if (end == second)
            return false;
    }
    return *end == '\0' && *low <= *high;
}

#ifdef SIM_PLANTED
static bool plant(const char *name)
{
    static const char *const names[SIM_PLANT_COUNT] = {"none", "twice", "reused", "sync", "stale"};
    for (int i = 0; i < SIM_PLANT_COUNT; i++) {
        if (strcmp(name, names[i]) == 0) {
            sim_planted = (enum sim_plant)i;
            return true;
        }
    }
    return false;
}
#endif

static bool parse(int argc, char **argv, struct options *out)
{
    uint64_t low, high;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "-v") == 0)
            out->verbose = true;
        else if (strcmp(argv[i], "--twice") == 0)
            out->twice = true;
        else if (!value)
            return false;
        else if (strcmp(argv[i], "--seeds") == 0 || strcmp(argv[i], "--seed") == 0) {
            if (!range(argv[++i], &out->first, &out->last))
                return false;
        } else if (strcmp(argv[i], "--workers") == 0) {
            if (!range(argv[++i], &low, &high) || low < 3 || high > SIM_SITES_MAX)
                return false;
            out->least = (uint32_t)low;
            out->most = (uint32_t)high;
        } else if (strcmp(argv[i], "--seconds") == 0)
            out->seconds = strtod(argv[++i], NULL);
#ifdef SIM_PLANTED
        else if (strcmp(argv[i], "--plant") == 0) {
            if (!plant(argv[++i]))
                return false;
        }
#endif
        else
            return false;
    }
    return true;
}

static void on_death(int number)
{
    (void)!write(STDERR_FILENO, replay, strlen(replay));
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

int main(int argc, char **argv)
{
    struct options options = {.first = 1, .last = 100, .least = 3, .most = 8};
    if (!parse(argc, argv, &options)) {
        (void)fprintf(stderr, "usage: sim [--seeds A-B] [--workers LOW-HIGH] [--seconds S] "
                              "[--twice] [-v]\n");
        return 2;
    }
    (void)signal(SIGABRT, on_death);
    (void)signal(SIGSEGV, on_death);
    if (randombytes_set_implementation(&generator) != 0 || !sim_vfs_register())
        return 1;
    fl_hash_init();
    fl_log_set_level(options.verbose ? FL_LOG_INFO : (enum fl_log_level)(FL_LOG_ERROR + 1));
    return run_all(&options);
}

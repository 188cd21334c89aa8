/*
 * main.c - sim --seeds A-B [--workers LOW-HIGH] [--rounds LOW-HIGH] [-v]: run seeds, say which
 * fails and how to see it again; --rounds: jobs of so many in place of the seed's few. sim --walk:
 * a short job without weather, again and again, each time with one crash at the next durable step
 * of the coordinator and of a site, by kill -9 and by a power cut. Exit code 0: none; 1: one
 * failed; 2: usage.
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

struct options {
    uint64_t first, last;
    uint32_t least, most;
    uint32_t least_rounds, most_rounds; /* 0: as the seed has it */
    double seconds;                     /* no new seed after so long; 0: all */
    uint64_t failures;                  /* stop after so many */
    bool verbose, twice, walk;
    struct sim_walk crash; /* of the runs */
};

enum sim_plant sim_planted = SIM_PLANT_NONE;

static char replay[256]; /* what a signal handler writes */

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

static uint32_t rounds_of(const struct options *options, uint64_t seed)
{
    return options->least_rounds +
           (uint32_t)(seed * 40503u >> 5) % (options->most_rounds - options->least_rounds + 1);
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
                                              "replays",
                                              "starts that failed",
                                              "copies",
                                              "restores"};
static_assert(sizeof(sim_count_names) / sizeof(sim_count_names[0]) ==
                  sizeof(struct sim_counts) / sizeof(uint64_t),
              "a name for each count");

#ifdef SIM_WIDE
#define PROGRAM "sim_wide"
#else
#define PROGRAM "sim"
#endif

static const char *const places[] = {"store", "hub", "site"};

static void say_replay(const struct options *options, const struct sim *sim)
{
    const struct sim_walk *crash = &options->crash;
    char where[64] = "", rounds[32] = "";
    if (sim->rounds)
        (void)snprintf(rounds, sizeof(rounds), " --rounds %u", sim->rounds);
    if (crash->on)
        (void)snprintf(where, sizeof(where), " --crash %s:%ld%s",
                       places[crash->in_store ? 0 : 1 + (crash->machine != SIM_MACHINE_HUB)],
                       crash->n, crash->power ? ":power" : "");
    (void)snprintf(replay, sizeof(replay),
                   "replay: build/tests/sim/" PROGRAM " --seed %" PRIu64 " --workers %u%s%s -v\n",
                   sim->seed, sim->site_count, rounds, where);
}

static bool run_once(const struct options *options, uint64_t seed, struct sim_counts *counts,
                     uint64_t *digest)
{
    struct sim *sim = fl_calloc(1, sizeof(*sim));
    if (!sim)
        return false;
    sim->seed = seed;
    sim->site_count = sites_of(options, seed);
    sim->rounds = rounds_of(options, seed);
    sim->verbose = options->verbose;
    stream = seed * 0x9e3779b97f4a7c15u + 1;
    sim->walk = options->crash;
    say_replay(options, sim);
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

static void say_counts(const struct sim_counts *c, uint64_t runs, uint64_t failures, double began)
{
    const uint64_t *sums = (const uint64_t *)c;
    (void)printf("%" PRIu64 " runs, %" PRIu64 " failed, %.1f s\n", runs, failures,
                 seconds_now() - began);
    for (size_t i = 0; i < sizeof(*c) / sizeof(uint64_t); i++)
        (void)printf("%s%" PRIu64 " %s", i ? ", " : "  ", sums[i], sim_count_names[i]);
    (void)printf("\n");
}

/* Crash after crash at one kind of place, until a run ends before it comes to the next. */
static uint64_t walk_place(struct options *options, struct sim_counts *sums, uint64_t *failures)
{
    uint64_t digest, *to = (uint64_t *)sums;
    for (options->crash.n = 0;; options->crash.n++) {
        struct sim_counts counts = {0};
        const uint64_t *from = (const uint64_t *)&counts;
        *failures += !run_once(options, options->first, &counts, &digest);
        for (size_t i = 0; i < sizeof(counts) / sizeof(uint64_t); i++)
            to[i] += from[i];
        if (*failures >= options->failures ||
            counts.hub_crashes + counts.site_crashes + counts.failed_starts == 0)
            return (uint64_t)options->crash.n;
    }
}

static int walk_all(struct options *options)
{
    struct sim_counts sums = {0};
    uint64_t runs = 0, failures = 0;
    double began = seconds_now();
    for (int i = 0; i < 6; i++) {
        options->crash = (struct sim_walk){
            .on = true, .in_store = i < 2, .machine = i < 4 ? SIM_MACHINE_HUB : 1, .power = i % 2};
        uint64_t steps = walk_place(options, &sums, &failures);
        (void)printf("%s, %s: %" PRIu64 " crashes\n", places[i / 2],
                     i % 2 ? "power cut" : "kill -9", steps);
        runs += steps;
    }
    say_counts(&sums, runs, failures, began);
    return failures ? 1 : 0;
}

static int run_all(const struct options *options)
{
    struct sim_counts c = {0};
    uint64_t failures = 0;
    uint64_t seed = options->first, done = 0;
    double began = seconds_now();
    for (; seed <= options->last && failures < options->failures; seed++) {
        if (options->seconds > 0.0 && seconds_now() - began > options->seconds)
            break;
        failures += !run_seed(options, seed, &c);
        done++;
    }
    say_counts(&c, done, failures, began);
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

/* "store:12", "hub:3:power" */
static bool crash(const char *text, struct sim_walk *out)
{
    for (int i = 0; i < 3; i++) {
        size_t length = strlen(places[i]);
        char *end;
        if (strncmp(text, places[i], length) != 0 || text[length] != ':')
            continue;
        *out = (struct sim_walk){.on = true, .in_store = i == 0, .machine = i == 2 ? 1 : 0};
        out->n = strtol(text + length + 1, &end, 10);
        out->power = strcmp(end, ":power") == 0;
        return end != text + length + 1 && (out->power || *end == '\0');
    }
    return false;
}

#ifdef SIM_PLANTED
static bool plant(const char *name)
{
    static const char *const names[SIM_PLANT_COUNT] = {"none",  "twice", "reused", "sync",
                                                       "stale", "both",  "unsaid"};
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
        else if (strcmp(argv[i], "--walk") == 0)
            out->walk = true;
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
        } else if (strcmp(argv[i], "--rounds") == 0) {
            if (!range(argv[++i], &low, &high) || low < 1 || high > SIM_ROUNDS_MAX)
                return false;
            out->least_rounds = (uint32_t)low;
            out->most_rounds = (uint32_t)high;
        } else if (strcmp(argv[i], "--seconds") == 0)
            out->seconds = strtod(argv[++i], NULL);
        else if (strcmp(argv[i], "--failures") == 0)
            out->failures = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--crash") == 0) {
            if (!crash(argv[++i], &out->crash))
                return false;
        }
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
    struct options options = {.first = 1, .last = 100, .least = 3, .most = 8, .failures = 5};
    if (!parse(argc, argv, &options)) {
        (void)fprintf(
            stderr,
            "usage: sim [--seeds A-B] [--workers LOW-HIGH] [--rounds LOW-HIGH] "
            "[--seconds S] [--failures N] [--twice] [--walk] [--crash store|hub|site:N[:power]] "
            "[-v]\n");
        return 2;
    }
    (void)signal(SIGABRT, on_death);
    (void)signal(SIGSEGV, on_death);
    if (randombytes_set_implementation(&generator) != 0 || !sim_vfs_register())
        return 1;
    fl_hash_init();
    fl_log_set_level(options.verbose ? FL_LOG_INFO : (enum fl_log_level)(FL_LOG_ERROR + 1));
    return options.walk ? walk_all(&options) : run_all(&options);
}

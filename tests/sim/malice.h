/*
 * malice.h - the suites of malice: real sites under a lying coordinator (malice_coordinator.c), and
 * the real coordinator with a lying site (malice_sites.c), each in one thread and the same in every
 * run: the clock moves with the frames, libsodium's generator is seeded, the disk is a directory of
 * its own for each case.
 * Threads: one.
 */
#ifndef FL_MALICE_H
#define FL_MALICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/fs.h"
#include "crypto/keys.h"
#include "net/transport.h"
#include "proto/wire.h"
#include "worker/siteconf.h"
#include "worker/sitestore.h"

/* The insides of the two sides share names: a file sees those of one side at most. */
struct fl_client;
struct fl_compute;

#define MAL_SITES_MAX 12

struct mal;

struct mal_site {
    struct fl_link link; /* first: the client sees this */
    struct mal *world;
    uint32_t index;
    char name[FL_NAME_BYTES], directory[FL_PATH_BYTES];
    struct fl_identity identity;
    struct fl_siteconf *conf;
    struct fl_sitestore store;
    struct fl_compute *compute;
    struct fl_client *client; /* NULL: dead */
    const struct fl_link_event *pending;
    atomic_int stop;
    bool held;          /* its work thread does nothing */
    uint32_t trainings; /* how often it trained */
    bool rigid;         /* its delta is the same in whatever order it takes its rows */
};

struct mal {
    int64_t now;
    struct fl_clock clock;
    char directory[FL_PATH_BYTES];
    uint32_t count;
    struct mal_site sites[MAL_SITES_MAX];
    void *owner;
    void (*sent)(struct mal_site *site, const void *frame, size_t length); /* keep a copy */
    void (*dialled)(struct mal_site *site); /* it wants a new connection */
};

/* ---- malice_site.c ---- */
/* Seed libsodium and quiet the log; once, before all else. */
bool mal_init(void);
/* Count a failed expectation and say it, with the case that is being run. */
void mal_expect(bool good, const char *format, ...) FL_PRINTF(2, 3);
void mal_case(const char *name);
unsigned mal_failures(void);

/* count sites with keys and worker.conf, not started. policy: lines for [policy]. */
bool mal_make(struct mal *self, uint32_t count, const char *policy);
/* Another worker.conf for one site that is not started. */
bool mal_configure(struct mal_site *site, const char *policy);
void mal_free(struct mal *self);
void mal_start(struct mal_site *site);
/* As after SIGKILL: memory is gone, the files stay. */
void mal_kill(struct mal_site *site);
void mal_event(struct mal_site *site, const struct fl_link_event *event);
void mal_frame(struct mal_site *site, const void *frame, size_t length);
/* Whichever site makes the nth write (or fsync) from now dies in it, and is started again; -1:
 * none. */
void mal_die_in(long write, long sync);
bool mal_died(void);
/* Do what waits for the work thread; true: something was done. */
bool mal_work(struct mal_site *site);

#endif

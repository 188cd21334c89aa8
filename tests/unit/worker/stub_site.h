/*
 * stub_site.h - a site for tests: a directory with keys and a store, a configuration, a small
 * inventory, an offer, and a trainer that trains nothing but counts its calls.
 *
 * The stub's delta is 0.001 x (index of the value + 1) in the factors that are trained, cut to the
 * site's ranks; its weight is 40 scored tokens.
 */
#ifndef FL_TESTS_STUB_SITE_H
#define FL_TESTS_STUB_SITE_H

#include <stdatomic.h>

#include "worker/siteconf.h"
#include "worker/sitestore.h"
#include "worker/trainer.h"

#define STUB_MODULES 3

struct stub_trainer {
    atomic_int fits, runs;
    atomic_int hold;           /* while set, a run waits (until stopped) */
    atomic_int hold_fit;       /* while set, a fit waits */
    enum fl_status fit_status; /* what fit() gives; FL_OK by default */
    const char *fit_says;      /* NULL: "the stub does not fit" */
    enum fl_trainer_fault fit_fault;
    enum fl_status run_status;
    const char *run_says; /* NULL: "the stub cannot train" */
    uint64_t data_seed;   /* of the last run */
    float poison;         /* added to one value of the delta */
    bool measures_not;    /* it has no rows to evaluate on */
};

struct stub_site {
    char directory[FL_PATH_BYTES];
    struct fl_sitestore store;
    struct fl_siteconf *conf;
    struct stub_trainer stub;
};

/* The modules q_proj and v_proj of layer 0 and q_proj of layer 1, and down_proj, not a target. */
extern const struct fl_inventory stub_inventory;

/* Fails the test when it can't. policy: more lines of worker.conf, or NULL. */
void stub_site_open(struct stub_site *self, const char *policy);
void stub_site_close(struct stub_site *self);
struct fl_trainer stub_trainer(struct stub_trainer *self);
/* A job of 2 rounds, rank 4, targets q_proj,v_proj, without secure aggregation. */
struct fl_wire_offer stub_offer(void);
/* The targets of that offer. The caller frees it. */
void stub_targets(struct fl_inventory *out);
/* A starting adapter at rank 4 with these first bytes of its seed. The caller destroys it. */
struct fl_adapter *stub_start(uint64_t seed);
/* STUB_MODULES ranks as u16 LE. */
void stub_ranks(uint8_t out[2 * STUB_MODULES], uint16_t rank);

#endif

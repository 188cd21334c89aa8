/*
 * shares.c - watches what masks hang on: of each member a site gives one of the two shares that it
 * holds, never both, and it helps to open no two sums of the same work that differ by few sites,
 * whatever became of the coordinator meanwhile. For that it is built around the site's own source,
 * so that it can see what a site holds; every frame that leaves afterwards is searched for it. In
 * sim_planted a site can be made to give both.
 */
#define fl_secagg_site_answer fl_secagg_site_right_answer
#define fl_secagg_site_mask   fl_secagg_site_true_mask
#include "secagg/site.c"
#undef fl_secagg_site_mask
#undef fl_secagg_site_answer

#include <stdio.h>

#include "sim.h"

/* what the header calls otherwise here */
enum fl_status fl_secagg_site_mask(struct fl_secagg_site *self, const struct fl_secagg_set *sharers,
                                   uint32_t *vector, uint64_t *scalars, uint32_t scalar_count,
                                   struct fl_error *error);

enum fl_status fl_secagg_site_answer(struct fl_secagg_site *self,
                                     const struct fl_secagg_set *survivors,
                                     const struct fl_secagg_set *signed_by,
                                     const uint8_t *signatures, uint8_t *answer,
                                     struct fl_error *error);

struct held { /* by one site in the attempt that it masked last */
    char name[FL_NAME_BYTES];
    uint64_t round, attempt;
    uint32_t count;
    uint8_t pairs[FL_SECAGG_SITES_MAX][SHARE_PAIR_BYTES];
    bool given[FL_SECAGG_SITES_MAX][2]; /* of the mask key, of the seed */
};

struct opened { /* a sum that a site helped to open */
    char name[FL_NAME_BYTES];
    uint8_t work[FL_HASH_BYTES];
    bool has[SIM_SITES_MAX]; /* by site */
};

#define OPENED_MAX 4096
#define FEWEST     3 /* as worker.conf has it */

static struct held held[SIM_SITES_MAX];
static size_t held_count;
static struct opened *opened; /* (OPENED_MAX), owned */
static size_t opened_count;
static char differencing[FL_NAME_BYTES]; /* who did it */

void sim_shares_forget(void)
{
    sodium_memzero(held, held_count * sizeof(held[0]));
    held_count = 0;
    fl_free(opened);
    opened = NULL;
    opened_count = 0;
    differencing[0] = '\0';
}

static struct held *held_by(const char *name)
{
    for (size_t i = 0; i < held_count; i++) {
        if (strcmp(held[i].name, name) == 0)
            return &held[i];
    }
    return NULL;
}

/* All that others shared is here by now. */
enum fl_status fl_secagg_site_mask(struct fl_secagg_site *self, const struct fl_secagg_set *sharers,
                                   uint32_t *vector, uint64_t *scalars, uint32_t scalar_count,
                                   struct fl_error *error)
{
    struct held *h = held_by(self->advert.name);
    if (!h && held_count < SIM_SITES_MAX)
        h = &held[held_count++];
    if (h) {
        memset(h, 0, sizeof(*h));
        memcpy(h->name, self->advert.name, sizeof(h->name));
        h->round = self->context.round;
        h->attempt = self->context.attempt;
        h->count = self->cohort.count;
        memcpy(h->pairs, self->secrets->shares, sizeof(h->pairs));
    }
    return fl_secagg_site_true_mask(self, sharers, vector, scalars, scalar_count, error);
}

void sim_check_shares(struct sim_site *site, const struct fl_wire *message, const void *frame,
                      size_t length)
{
    struct sim *self = site->sim;
    struct held *h = held_by(site->name);
    bool has_twin = self->process_count > self->site_count &&
                    self->sites[self->site_count].owner == site->owner;
    if (strcmp(differencing, site->name) == 0 && !has_twin) /* a twin keeps a ledger of its own */
        sim_violation(self, "%s helped to open two sums that differ by less than %d sites",
                      site->name, FEWEST);
    if (!h || site->hostile || message->round != h->round || message->attempt != h->attempt)
        return;
    for (uint32_t v = 0; v < h->count; v++) {
        for (int kind = 0; kind < 2; kind++) {
            const uint8_t *share = h->pairs[v] + (size_t)kind * FL_SCALAR_BYTES;
            if (!sodium_is_zero(share, FL_SCALAR_BYTES) &&
                memmem(frame, length, share, FL_SCALAR_BYTES))
                h->given[v][kind] = true;
        }
        if (h->given[v][0] && h->given[v][1])
            sim_violation(self, "%s gave both shares of member %u in round %u attempt %u",
                          site->name, v, message->round, message->attempt);
    }
}

/* What the same deltas come from; attempts may be many. */
static void work_of(const struct fl_secagg_context *context, uint8_t out[FL_HASH_BYTES])
{
    struct fl_blake2b hash;
    uint8_t round[8];
    fl_store_u64(round, context->round);
    fl_blake2b_init(&hash, NULL, 0);
    fl_blake2b_update(&hash, context->job_hash, FL_HASH_BYTES);
    fl_blake2b_update(&hash, context->start, FL_HASH_BYTES);
    fl_blake2b_update(&hash, round, sizeof(round));
    fl_blake2b_final(&hash, out);
}

static void compare_with(const struct opened *a, const struct opened *b)
{
    uint32_t more = 0, less = 0;
    for (uint32_t i = 0; i < SIM_SITES_MAX; i++) {
        more += a->has[i] && !b->has[i];
        less += b->has[i] && !a->has[i];
    }
    if ((more > 0 || less > 0) && (more < FEWEST || less < FEWEST))
        memcpy(differencing, a->name, sizeof(differencing));
}

static void note_opened(const struct fl_secagg_site *self, const struct fl_secagg_set *survivors)
{
    if (!opened)
        opened = fl_calloc(OPENED_MAX, sizeof(*opened));
    if (!opened || opened_count == OPENED_MAX)
        return;
    struct opened *new = &opened[opened_count++];
    memcpy(new->name, self->advert.name, sizeof(new->name));
    work_of(&self->context, new->work);
    for (uint32_t v = 0; v < self->cohort.count; v++) {
        unsigned site;
        if (survivors->has[v] && sscanf(self->cohort.adverts[v].name, "site%u", &site) == 1 &&
            site < SIM_SITES_MAX)
            new->has[site] = true;
    }
    for (const struct opened *old = opened; old < new; old++) {
        if (strcmp(old->name, new->name) == 0 && memcmp(old->work, new->work, FL_HASH_BYTES) == 0)
            compare_with(new, old);
    }
}

enum fl_status fl_secagg_site_answer(struct fl_secagg_site *self,
                                     const struct fl_secagg_set *survivors,
                                     const struct fl_secagg_set *signed_by,
                                     const uint8_t *signatures, uint8_t *answer,
                                     struct fl_error *error)
{
    uint8_t other[FL_SCALAR_BYTES];
    uint32_t n = self->cohort.count, v = (self->index + 1) % n, w = (self->index + 2) % n;
    memcpy(other, self->secrets->shares[v] + (survivors->has[v] ? 0 : FL_SCALAR_BYTES),
           sizeof(other));
    enum fl_status status = fl_secagg_site_right_answer(self, survivors, signed_by, signatures,
                                                        answer, error);
    if (status == FL_OK && sim_planted == SIM_PLANT_BOTH) /* the second in place of another's */
        memcpy(answer + (size_t)w * FL_SCALAR_BYTES, other, sizeof(other));
    if (status == FL_OK)
        note_opened(self, survivors);
    return status;
}

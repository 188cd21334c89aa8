/*
 * unmask.c - the coordinator's side: secrets put together from answers, held against what was
 * committed to, and the masks they stand for removed from the sum.
 */
#include <string.h>

#include "base/alloc.h"
#include "secagg/masks.h"
#include "secagg/secagg_internal.h"

struct unmasking {
    const struct fl_secagg_context *context;
    const struct fl_secagg_cohort *cohort;
    const uint8_t *answers; /* (n, n, FL_SCALAR_BYTES) */
    uint32_t *vector;
    uint64_t *scalars;
    uint32_t scalar_count;
    uint32_t members[FL_SECAGG_SITES_MAX]; /* whose answers are used, good ones first */
    uint32_t count;
    uint32_t blamed;  /* the last one whose share was wrong; UINT32_MAX */
    uint8_t *weights; /* (t, FL_SCALAR_BYTES) of the first t members */
};

/* Who gave a share about one member, in the order of self->members. */
struct givers {
    uint32_t members[FL_SECAGG_SITES_MAX];
    uint32_t count;
    bool usual; /* the first t are the first t of all */
};

/* Does this scalar stand for what member v committed to? */
typedef bool (*fits_function)(const struct fl_secagg_advert *advert, const uint8_t *scalar);

static bool fits_seed(const struct fl_secagg_advert *advert, const uint8_t *scalar)
{
    uint8_t seed[FL_HASH_BYTES], commitment[FL_HASH_BYTES];
    fl_mask_self_seed(scalar, seed);
    fl_mask_commitment(seed, commitment);
    sodium_memzero(seed, sizeof(seed));
    return sodium_memcmp(commitment, advert->seed_commitment, FL_HASH_BYTES) == 0;
}

static bool fits_mask_key(const struct fl_secagg_advert *advert, const uint8_t *scalar)
{
    uint8_t secret[FL_KEY_BYTES], public_key[FL_KEY_BYTES];
    fl_mask_secret_key(scalar, secret);
    (void)crypto_scalarmult_base(public_key, secret);
    sodium_memzero(secret, sizeof(secret));
    return sodium_memcmp(public_key, advert->mask_key, FL_KEY_BYTES) == 0;
}

static const uint8_t *share_of(const struct unmasking *self, uint32_t member, uint32_t about)
{
    return self->answers + ((size_t)member * self->cohort->count + about) * FL_SCALAR_BYTES;
}

static void gather(const struct unmasking *self, const uint32_t *members, uint32_t t,
                   uint32_t about, uint8_t *x, uint8_t *shares)
{
    for (uint32_t i = 0; i < t; i++) {
        x[i] = (uint8_t)(members[i] + 1);
        memcpy(shares + i * FL_SCALAR_BYTES, share_of(self, members[i], about), FL_SCALAR_BYTES);
    }
}

static enum fl_status renew_weights(struct unmasking *self)
{
    uint8_t x[FL_SECAGG_SITES_MAX];
    for (uint32_t i = 0; i < self->cohort->threshold; i++)
        x[i] = (uint8_t)(self->members[i] + 1);
    return fl_shamir_weights(x, self->cohort->threshold, self->weights);
}

static bool try_members(const struct unmasking *self, const uint32_t *members, uint32_t about,
                        fits_function fits, uint8_t scalar[FL_SCALAR_BYTES])
{
    uint8_t x[FL_SECAGG_SITES_MAX], shares[FL_SECAGG_SITES_MAX * FL_SCALAR_BYTES];
    uint32_t t = self->cohort->threshold;
    gather(self, members, t, about, x, shares);
    bool good = fl_shamir_combine(x, shares, t, scalar) == FL_OK &&
                fits(&self->cohort->adverts[about], scalar);
    sodium_memzero(shares, sizeof(shares));
    return good;
}

/* From now on without that member's answers. */
static enum fl_status leave_out(struct unmasking *self, uint32_t member)
{
    uint32_t i = 0;
    while (i < self->count && self->members[i] != member)
        i++;
    self->blamed = member;
    self->members[i] = self->members[--self->count];
    return self->count >= self->cohort->threshold ? renew_weights(self) : FL_OK;
}

/* Leave out each of the first t in turn, a spare one in its place: who is wrong then shows. */
static enum fl_status find_liar(struct unmasking *self, const struct givers *givers, uint32_t about,
                                fits_function fits, uint8_t scalar[FL_SCALAR_BYTES],
                                struct fl_error *error)
{
    uint32_t t = self->cohort->threshold, chosen[FL_SECAGG_SITES_MAX];
    for (uint32_t spare = t; spare < givers->count; spare++) {
        for (uint32_t out = 0; out < t; out++) {
            memcpy(chosen, givers->members, t * sizeof(*chosen));
            chosen[out] = givers->members[spare];
            if (try_members(self, chosen, about, fits, scalar))
                return leave_out(self, givers->members[out]);
        }
    }
    /* either that member shared badly or too many answered wrongly: nobody can be named */
    return fl_fail(error, FL_EFORMAT,
                   "the answers about '%s' do not fit together: %u of them, %u needed",
                   self->cohort->adverts[about].name, givers->count, t);
}

static void find_givers(const struct unmasking *self, uint32_t about, struct givers *out)
{
    uint32_t t = self->cohort->threshold;
    out->count = 0;
    for (uint32_t i = 0; i < self->count; i++) {
        if (!sodium_is_zero(share_of(self, self->members[i], about), FL_SCALAR_BYTES))
            out->members[out->count++] = self->members[i];
    }
    out->usual = out->count >= t && self->count >= t &&
                 memcmp(out->members, self->members, t * sizeof(*out->members)) == 0;
}

static enum fl_status reconstruct(struct unmasking *self, uint32_t about, fits_function fits,
                                  uint8_t scalar[FL_SCALAR_BYTES], struct fl_error *error)
{
    uint8_t x[FL_SECAGG_SITES_MAX], shares[FL_SECAGG_SITES_MAX * FL_SCALAR_BYTES];
    uint32_t t = self->cohort->threshold;
    struct givers givers;
    bool good;
    find_givers(self, about, &givers);
    if (givers.count < t)
        return fl_fail(error, FL_EFORMAT, "%u shares about '%s' were given, %u are needed",
                       givers.count, self->cohort->adverts[about].name, t);
    if (givers.usual) {
        gather(self, givers.members, t, about, x, shares);
        fl_shamir_combine_weighted(self->weights, shares, t, scalar);
        sodium_memzero(shares, sizeof(shares));
        good = fits(&self->cohort->adverts[about], scalar);
    } else {
        good = try_members(self, givers.members, about, fits, scalar);
    }
    return good ? FL_OK : find_liar(self, &givers, about, fits, scalar, error);
}

/* A survivor's own mask. */
static enum fl_status remove_self_mask(struct unmasking *self, uint32_t v, struct fl_error *error)
{
    uint8_t scalar[FL_SCALAR_BYTES], seed[FL_HASH_BYTES];
    enum fl_status status = reconstruct(self, v, fits_seed, scalar, error);
    if (status != FL_OK)
        return status;
    fl_mask_self_seed(scalar, seed);
    fl_mask_apply(seed, self->cohort->hash, true, self->vector, self->context->elements,
                  self->scalars, self->scalar_count);
    sodium_memzero(seed, sizeof(seed));
    sodium_memzero(scalar, sizeof(scalar));
    return FL_OK;
}

/* What each survivor added for a member that dropped out after sharing. */
static enum fl_status remove_pair_masks(struct unmasking *self, uint32_t gone,
                                        const struct fl_secagg_set *survivors,
                                        struct fl_error *error)
{
    uint8_t scalar[FL_SCALAR_BYTES], secret[FL_KEY_BYTES];
    const struct fl_secagg_cohort *c = self->cohort;
    enum fl_status status = reconstruct(self, gone, fits_mask_key, scalar, error);
    if (status != FL_OK)
        return status;
    fl_mask_secret_key(scalar, secret);
    for (uint32_t v = 0; v < c->count && status == FL_OK; v++) {
        uint8_t seed[FL_HASH_BYTES];
        if (!survivors->has[v])
            continue;
        status = fl_mask_agree(secret, c->adverts[gone].mask_key, c->adverts[v].mask_key, c->hash,
                               FL_SECAGG_PAIR_LABEL, seed);
        if (status != FL_OK)
            status = fl_fail(error, status, "the mask key of '%s' is weak", c->adverts[v].name);
        else
            /* v added it when gone stands behind v in the list, and subtracted it otherwise */
            fl_mask_apply(seed, c->hash, v < gone, self->vector, self->context->elements,
                          self->scalars, self->scalar_count);
        sodium_memzero(seed, sizeof(seed));
    }
    sodium_memzero(secret, sizeof(secret));
    sodium_memzero(scalar, sizeof(scalar));
    return status;
}

static enum fl_status choose_members(struct unmasking *self, const struct fl_secagg_set *survivors,
                                     const struct fl_secagg_set *answered, struct fl_error *error)
{
    for (uint32_t v = 0; v < self->cohort->count; v++) {
        if (answered->has[v] && survivors->has[v])
            self->members[self->count++] = v;
    }
    if (self->count < self->cohort->threshold)
        return fl_fail(error, FL_EFORMAT, "%u survivors answered, %u are needed", self->count,
                       self->cohort->threshold);
    self->weights = fl_calloc(self->cohort->threshold, FL_SCALAR_BYTES);
    return self->weights ? renew_weights(self) : fl_fail_memory(error);
}

enum fl_status fl_secagg_unmask(const struct fl_secagg_context *context,
                                const struct fl_secagg_cohort *cohort,
                                const struct fl_secagg_set *sharers,
                                const struct fl_secagg_set *survivors,
                                const struct fl_secagg_set *answered, const uint8_t *answers,
                                uint32_t *vector, uint64_t *scalars, uint32_t scalar_count,
                                uint32_t *blamed, struct fl_error *error)
{
    struct unmasking self = {.context = context,
                             .cohort = cohort,
                             .answers = answers,
                             .vector = vector,
                             .scalars = scalars,
                             .scalar_count = scalar_count,
                             .blamed = UINT32_MAX};
    enum fl_status status = choose_members(&self, survivors, answered, error);
    for (uint32_t v = 0; v < cohort->count && status == FL_OK; v++) {
        if (survivors->has[v])
            status = remove_self_mask(&self, v, error);
        else if (sharers->has[v])
            status = remove_pair_masks(&self, v, survivors, error);
    }
    if (blamed)
        *blamed = self.blamed;
    fl_free(self.weights);
    return status;
}

/*
 * site.c - one site's side of one attempt: its secrets, and a walk that can only go forward. Each
 * step may be taken once; the answer, above all, is given once and for one list.
 */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "secagg/masks.h"
#include "secagg/secagg_internal.h"

#define SHARE_PAIR_BYTES (2 * FL_SCALAR_BYTES) /* of the mask key's scalar, then of the seed's */

enum step { STEP_ADVERTISED, STEP_JOINED, STEP_SHARED, STEP_MASKED, STEP_SIGNED, STEP_ANSWERED };

struct secrets { /* in guarded, locked memory */
    uint8_t share_secret[FL_KEY_BYTES];
    uint8_t mask_scalar[FL_SCALAR_BYTES], mask_secret[FL_KEY_BYTES];
    uint8_t seed_scalar[FL_SCALAR_BYTES], seed[FL_HASH_BYTES];
    uint8_t shares[FL_SECAGG_SITES_MAX][SHARE_PAIR_BYTES]; /* what others shared with this site */
};

struct fl_secagg_site {
    struct fl_secagg_context context;
    struct fl_secagg_advert advert;
    struct fl_secagg_cohort cohort;
    struct secrets *secrets;
    enum step step;
    uint32_t index;             /* in the cohort */
    struct fl_secagg_set taken; /* whose shares are here */
    struct fl_secagg_set sharers, survivors;
};

static void draw(struct fl_secagg_site *self, const struct fl_entropy *entropy)
{
    struct secrets *s = self->secrets;
    fl_entropy_bytes(entropy, s->share_secret, FL_KEY_BYTES);
    fl_shamir_secret(entropy, s->mask_scalar);
    fl_shamir_secret(entropy, s->seed_scalar);
    fl_mask_secret_key(s->mask_scalar, s->mask_secret);
    fl_mask_self_seed(s->seed_scalar, s->seed);
    (void)crypto_scalarmult_base(self->advert.share_key, s->share_secret);
    (void)crypto_scalarmult_base(self->advert.mask_key, s->mask_secret);
    fl_mask_commitment(s->seed, self->advert.seed_commitment);
}

enum fl_status fl_secagg_site_create(const struct fl_secagg_context *context, const char *name,
                                     const uint8_t ranks[FL_HASH_BYTES], const struct fl_keys *keys,
                                     const struct fl_entropy *entropy, struct fl_secagg_site **out)
{
    *out = NULL;
    uint8_t bytes[FL_SECAGG_ADVERT_SIGNED_BYTES];
    size_t length = strnlen(name, FL_NAME_BYTES);
    if (length == 0 || length == FL_NAME_BYTES)
        return FL_EINVAL;
    struct fl_secagg_site *self = fl_calloc(1, sizeof(*self));
    if (!self)
        return FL_ENOMEM;
    self->secrets = sodium_malloc(sizeof(*self->secrets));
    if (!self->secrets) {
        fl_free(self);
        return FL_ENOMEM;
    }
    memset(self->secrets, 0, sizeof(*self->secrets));
    self->context = *context;
    memcpy(self->advert.name, name, length);
    memcpy(self->advert.ranks, ranks, FL_HASH_BYTES);
    memcpy(self->advert.identity, fl_keys_public(keys)->ed25519, FL_KEY_BYTES);
    draw(self, entropy);
    fl_secagg_advert_bytes(context, &self->advert, bytes);
    fl_keys_sign(keys, FL_SECAGG_ADVERT_LABEL, bytes, sizeof(bytes), self->advert.signature);
    *out = self;
    return FL_OK;
}

void fl_secagg_site_destroy(struct fl_secagg_site **self)
{
    if (!*self)
        return;
    sodium_free((*self)->secrets); /* wipes */
    fl_free(*self);
    *self = NULL;
}

const struct fl_secagg_advert *fl_secagg_site_advert(const struct fl_secagg_site *self)
{
    return &self->advert;
}

const struct fl_secagg_cohort *fl_secagg_site_cohort(const struct fl_secagg_site *self)
{
    return &self->cohort;
}

static enum fl_status out_of_turn(struct fl_error *error, const char *what)
{
    return fl_fail(error, FL_EREFUSED, "%s was asked for out of turn, or twice", what);
}

enum fl_status fl_secagg_site_join(struct fl_secagg_site *self,
                                   const struct fl_secagg_advert *adverts, uint32_t count,
                                   uint32_t minimum, struct fl_error *error)
{
    if (self->step != STEP_ADVERTISED)
        return out_of_turn(error, "joining a cohort");
    if (count < minimum)
        return fl_fail(error, FL_EREFUSED, "a cohort of %u sites, at least %u are demanded here",
                       count, minimum);
    enum fl_status status = fl_secagg_cohort_check(&self->context, adverts, count, &self->cohort,
                                                   error);
    if (status != FL_OK)
        return status;
    self->index = fl_secagg_cohort_find(&self->cohort, self->advert.name);
    if (self->index == UINT32_MAX ||
        memcmp(&self->cohort.adverts[self->index], &self->advert, sizeof(self->advert)) != 0)
        return fl_fail(error, FL_EREFUSED, "the cohort's list has other keys for this site");
    self->step = STEP_JOINED;
    return FL_OK;
}

/* ---- sharing ---- */

static void share_data(const struct fl_secagg_cohort *cohort, uint32_t from, uint32_t to,
                       uint8_t out[FL_HASH_BYTES + 8])
{
    memcpy(out, cohort->hash, FL_HASH_BYTES);
    fl_store_u32(out + FL_HASH_BYTES, from);
    fl_store_u32(out + FL_HASH_BYTES + 4, to);
}

static enum fl_status pair_key(const struct fl_secagg_site *self, uint32_t other,
                               uint8_t key[FL_HASH_BYTES])
{
    return fl_mask_agree(self->secrets->share_secret, self->advert.share_key,
                         self->cohort.adverts[other].share_key, self->cohort.hash,
                         FL_SECAGG_SHARE_LABEL, key);
}

static enum fl_status seal_share(const struct fl_secagg_site *self, uint32_t to,
                                 const uint8_t pair[SHARE_PAIR_BYTES],
                                 const struct fl_entropy *entropy, uint8_t *sealed)
{
    uint8_t key[FL_HASH_BYTES], data[FL_HASH_BYTES + 8];
    enum fl_status status = pair_key(self, to, key);
    if (status != FL_OK)
        return status;
    share_data(&self->cohort, self->index, to, data);
    fl_entropy_bytes(entropy, sealed, crypto_aead_xchacha20poly1305_ietf_NPUBBYTES);
    (void)crypto_aead_xchacha20poly1305_ietf_encrypt(
        sealed + crypto_aead_xchacha20poly1305_ietf_NPUBBYTES, NULL, pair, SHARE_PAIR_BYTES, data,
        sizeof(data), NULL, sealed, key);
    sodium_memzero(key, sizeof(key));
    return FL_OK;
}

static enum fl_status seal_all(struct fl_secagg_site *self, const uint8_t *of_mask,
                               const uint8_t *of_seed, const struct fl_entropy *entropy,
                               uint8_t *sealed, struct fl_error *error)
{
    for (uint32_t v = 0; v < self->cohort.count; v++) {
        uint8_t pair[SHARE_PAIR_BYTES];
        memcpy(pair, of_mask + v * FL_SCALAR_BYTES, FL_SCALAR_BYTES);
        memcpy(pair + FL_SCALAR_BYTES, of_seed + v * FL_SCALAR_BYTES, FL_SCALAR_BYTES);
        uint8_t *to = sealed + (size_t)v * FL_SECAGG_SEALED_SHARE_BYTES;
        enum fl_status status = FL_OK;
        memset(to, 0, FL_SECAGG_SEALED_SHARE_BYTES);
        if (v == self->index)
            memcpy(self->secrets->shares[v], pair, SHARE_PAIR_BYTES);
        else
            status = seal_share(self, v, pair, entropy, to);
        sodium_memzero(pair, sizeof(pair));
        if (status != FL_OK)
            return fl_fail(error, FL_EREFUSED, "the share key of '%s' is weak",
                           self->cohort.adverts[v].name);
    }
    self->taken.has[self->index] = true;
    return FL_OK;
}

enum fl_status fl_secagg_site_share(struct fl_secagg_site *self, const struct fl_entropy *entropy,
                                    uint8_t *sealed, struct fl_error *error)
{
    if (self->step != STEP_JOINED)
        return out_of_turn(error, "sharing secrets");
    uint32_t n = self->cohort.count, t = self->cohort.threshold;
    size_t bytes = (size_t)n * FL_SCALAR_BYTES;
    uint8_t *of_mask = sodium_malloc(bytes), *of_seed = sodium_malloc(bytes);
    enum fl_status status = of_mask && of_seed ? FL_OK : fl_fail_memory(error);
    if (status == FL_OK &&
        (fl_shamir_split(self->secrets->mask_scalar, t, n, entropy, of_mask) != FL_OK ||
         fl_shamir_split(self->secrets->seed_scalar, t, n, entropy, of_seed) != FL_OK))
        status = fl_fail_memory(error);
    if (status == FL_OK)
        status = seal_all(self, of_mask, of_seed, entropy, sealed, error);
    sodium_free(of_seed);
    sodium_free(of_mask);
    if (status == FL_OK)
        self->step = STEP_SHARED;
    return status;
}

enum fl_status fl_secagg_site_take_share(struct fl_secagg_site *self, uint32_t from,
                                         const uint8_t *sealed, struct fl_error *error)
{
    uint8_t key[FL_HASH_BYTES], data[FL_HASH_BYTES + 8];
    if (self->step != STEP_SHARED || from >= self->cohort.count || from == self->index)
        return out_of_turn(error, "taking a share");
    const char *name = self->cohort.adverts[from].name;
    if (pair_key(self, from, key) != FL_OK)
        return fl_fail(error, FL_EFORMAT, "the share key of '%s' is weak", name);
    share_data(&self->cohort, from, self->index, data);
    int wrong = crypto_aead_xchacha20poly1305_ietf_decrypt(
        self->secrets->shares[from], NULL, NULL,
        sealed + crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
        FL_SECAGG_SEALED_SHARE_BYTES - crypto_aead_xchacha20poly1305_ietf_NPUBBYTES, data,
        sizeof(data), sealed, key);
    sodium_memzero(key, sizeof(key));
    if (wrong != 0)
        return fl_fail(error, FL_EFORMAT, "the shares of '%s' do not open", name);
    self->taken.has[from] = true;
    return FL_OK;
}

/* ---- masking ---- */

static enum fl_status check_sharers(const struct fl_secagg_site *self,
                                    const struct fl_secagg_set *sharers, struct fl_error *error)
{
    uint32_t opened = 0;
    if (!sharers->has[self->index])
        return fl_fail(error, FL_EREFUSED, "this site is not among those who shared");
    for (uint32_t v = 0; v < self->cohort.count; v++)
        opened += sharers->has[v] && self->taken.has[v];
    if (opened < self->cohort.threshold)
        return fl_fail(error, FL_EREFUSED, "shares of %u sites came and opened, %u are needed",
                       opened, self->cohort.threshold);
    return FL_OK;
}

enum fl_status fl_secagg_site_mask(struct fl_secagg_site *self, const struct fl_secagg_set *sharers,
                                   uint32_t *vector, uint64_t *scalars, uint32_t scalar_count,
                                   struct fl_error *error)
{
    if (self->step != STEP_SHARED)
        return out_of_turn(error, "masking");
    enum fl_status status = check_sharers(self, sharers, error);
    if (status != FL_OK)
        return status;
    self->step = STEP_MASKED; /* whatever happens now, these masks serve one vector only */
    self->sharers = *sharers;
    const struct fl_secagg_context *c = &self->context;
    fl_mask_apply(self->secrets->seed, self->cohort.hash, false, vector, c->elements, scalars,
                  scalar_count);
    for (uint32_t v = 0; v < self->cohort.count; v++) {
        uint8_t seed[FL_HASH_BYTES];
        if (!sharers->has[v] || v == self->index)
            continue;
        if (fl_mask_agree(self->secrets->mask_secret, self->advert.mask_key,
                          self->cohort.adverts[v].mask_key, self->cohort.hash, FL_SECAGG_PAIR_LABEL,
                          seed) != FL_OK)
            return fl_fail(error, FL_EREFUSED, "the mask key of '%s' is weak",
                           self->cohort.adverts[v].name);
        fl_mask_apply(seed, self->cohort.hash, v < self->index, vector, c->elements, scalars,
                      scalar_count);
        sodium_memzero(seed, sizeof(seed));
    }
    return FL_OK;
}

/* ---- survivors and the answer ---- */

static enum fl_status check_survivors(const struct fl_secagg_site *self,
                                      const struct fl_secagg_set *survivors, struct fl_error *error)
{
    uint32_t n = self->cohort.count, count = fl_secagg_set_count(survivors, n);
    for (uint32_t v = 0; v < n; v++) {
        if (survivors->has[v] && !self->sharers.has[v])
            return fl_fail(error, FL_EREFUSED, "'%s' cannot survive: it never shared",
                           self->cohort.adverts[v].name);
    }
    if (!survivors->has[self->index])
        return fl_fail(error, FL_EREFUSED, "this site is not among the survivors");
    if (count < self->cohort.threshold)
        return fl_fail(error, FL_EREFUSED, "%u sites survive, %u are needed", count,
                       self->cohort.threshold);
    return FL_OK;
}

enum fl_status fl_secagg_site_sign(struct fl_secagg_site *self,
                                   const struct fl_secagg_set *survivors,
                                   const struct fl_keys *keys,
                                   uint8_t signature[FL_SIGNATURE_BYTES], struct fl_error *error)
{
    uint8_t bytes[FL_SECAGG_SURVIVORS_BYTES];
    if (self->step != STEP_MASKED)
        return out_of_turn(error, "signing the survivors");
    enum fl_status status = check_survivors(self, survivors, error);
    if (status != FL_OK)
        return status;
    fl_secagg_survivors_bytes(&self->cohort, survivors, bytes);
    fl_keys_sign(keys, FL_SECAGG_SURVIVORS_LABEL, bytes, sizeof(bytes), signature);
    self->survivors = *survivors;
    self->step = STEP_SIGNED;
    return FL_OK;
}

static enum fl_status check_signatures(const struct fl_secagg_site *self,
                                       const struct fl_secagg_set *survivors,
                                       const struct fl_secagg_set *signed_by,
                                       const uint8_t *signatures, struct fl_error *error)
{
    uint32_t good = 0;
    for (uint32_t v = 0; v < self->cohort.count; v++) {
        if (survivors->has[v] != self->survivors.has[v])
            return fl_fail(error, FL_EREFUSED, "the survivors are others than this site signed");
        if (!signed_by->has[v])
            continue;
        if (!survivors->has[v] ||
            fl_secagg_verify_survivors(&self->cohort, v, survivors,
                                       signatures + (size_t)v * FL_SIGNATURE_BYTES) != FL_OK)
            return fl_fail(error, FL_EREFUSED, "'%s' has not signed this list of survivors",
                           self->cohort.adverts[v].name);
        good++;
    }
    if (good < self->cohort.threshold)
        return fl_fail(error, FL_EREFUSED, "%u survivors signed the list, %u are needed", good,
                       self->cohort.threshold);
    return FL_OK;
}

enum fl_status fl_secagg_site_may_answer(const struct fl_secagg_site *self,
                                         const struct fl_secagg_set *survivors,
                                         const struct fl_secagg_set *signed_by,
                                         const uint8_t *signatures, struct fl_error *error)
{
    if (self->step != STEP_SIGNED)
        return out_of_turn(error, "the answer");
    return check_signatures(self, survivors, signed_by, signatures, error);
}

enum fl_status fl_secagg_site_answer(struct fl_secagg_site *self,
                                     const struct fl_secagg_set *survivors,
                                     const struct fl_secagg_set *signed_by,
                                     const uint8_t *signatures, uint8_t *answer,
                                     struct fl_error *error)
{
    enum fl_status status = fl_secagg_site_may_answer(self, survivors, signed_by, signatures,
                                                      error);
    if (status != FL_OK)
        return status;
    self->step = STEP_ANSWERED;
    memset(answer, 0, (size_t)self->cohort.count * FL_SCALAR_BYTES);
    for (uint32_t v = 0; v < self->cohort.count; v++) {
        uint8_t *pair = self->secrets->shares[v];
        if (self->sharers.has[v] && self->taken.has[v])
            memcpy(answer + (size_t)v * FL_SCALAR_BYTES,
                   survivors->has[v] ? pair + FL_SCALAR_BYTES : pair, FL_SCALAR_BYTES);
        sodium_memzero(pair, SHARE_PAIR_BYTES); /* the other half can never be asked for */
    }
    return FL_OK;
}

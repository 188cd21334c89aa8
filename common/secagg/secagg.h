/*
 * secagg.h - secure aggregation: what both sides of one attempt share. Bonawitz et al., "Practical
 * Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017, figure 4, with a complete
 * graph of 3 to 100 sites and threshold t = floor(2n/3) + 1.
 *
 * Stages: every site advertises two X25519 keys and a commitment, signed by its enrolled Ed25519
 * key; the coordinator sends all of them the same sorted list (the cohort U1); each site checks
 * the list itself, then shares its two secrets among the others; those whose shares arrived are U2;
 * each site adds masks to its update; those whose update arrived are the survivors U3, of whom
 * each signs the list; with t signatures on one and the same list a site answers, once, with one
 * share for each member of U2: of the self-mask seed of a survivor, of the mask key of a dropout,
 * never both. From t answers the coordinator removes the masks of the sum, and of nothing else.
 *
 * Everything is bound to the attempt: job, round, attempt, the job's settings, the base model, the
 * starting adapter, the vector's length and bit width, and the cohort.
 * Secrets live in guarded, locked memory (sodium_malloc) and are wiped.
 * Threads: pure functions; a site belongs to one thread at a time.
 */
#ifndef FL_SECAGG_SECAGG_H
#define FL_SECAGG_SECAGG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/status.h"
#include "crypto/entropy.h"
#include "crypto/keys.h"
#include "crypto/shamir.h"

#define FL_SECAGG_SITES_MIN 3
#define FL_SECAGG_SITES_MAX FL_COHORT_MAX
#define FL_SECAGG_ADVERT_BYTES                                                                     \
    (FL_NAME_BYTES + 3 * FL_KEY_BYTES + 2 * FL_HASH_BYTES + FL_SIGNATURE_BYTES)
#define FL_SECAGG_PLAN_BYTES_MAX 30000 /* of an encoded plan: it travels in one control message */
/* nonce (24) || two scalars (64) || tag (16) */
#define FL_SECAGG_SEALED_SHARE_BYTES (24 + 2 * FL_SCALAR_BYTES + 16)

/* What an attempt is about, known before its cohort is. */
struct fl_secagg_context {
    uint64_t job;
    uint32_t round, attempt;
    uint8_t job_hash[FL_HASH_BYTES]; /* settings */
    uint8_t manifest[FL_HASH_BYTES]; /* base model */
    uint8_t start[FL_HASH_BYTES];    /* starting adapter */
    uint64_t elements;               /* D: words of the vector */
};

/* What a site announces of itself for one attempt. Bytes of it are signed in this order. */
struct fl_secagg_advert {
    char name[FL_NAME_BYTES];               /* in the roster; NUL-padded */
    uint8_t identity[FL_KEY_BYTES];         /* enrolled Ed25519 key */
    uint8_t share_key[FL_KEY_BYTES];        /* c_u: encrypts shares between sites */
    uint8_t mask_key[FL_KEY_BYTES];         /* s_u: agrees on pairwise masks */
    uint8_t seed_commitment[FL_HASH_BYTES]; /* to the self-mask seed b_u */
    uint8_t ranks[FL_HASH_BYTES];           /* fl_secagg_ranks_hash() of what it trains, or
                                               fl_secagg_measured_hash() of that */
    uint8_t signature[FL_SIGNATURE_BYTES];
};

/* A cohort as every side computes it from the same adverts. */
struct fl_secagg_cohort {
    uint32_t count;                                       /* n */
    uint32_t threshold;                                   /* t */
    struct fl_secagg_advert adverts[FL_SECAGG_SITES_MAX]; /* sorted by name */
    uint8_t hash[FL_HASH_BYTES]; /* of context and list: what masks, shares and answers bind */
};

/* A set of cohort members, by index. */
struct fl_secagg_set {
    bool has[FL_SECAGG_SITES_MAX];
};
uint32_t fl_secagg_set_count(const struct fl_secagg_set *self, uint32_t n);

/* floor(2n/3) + 1 */
uint32_t fl_secagg_threshold(uint32_t n);

/*
 * Sort and check a list of adverts: 3..100 of them, names and keys all different, each signature
 * good for this context. FL_EREFUSED names the member and what is wrong. Who the identities are is
 * the caller's to check (roster, authority).
 */
FL_CHECKED enum fl_status fl_secagg_cohort_check(const struct fl_secagg_context *context,
                                                 const struct fl_secagg_advert *adverts,
                                                 uint32_t count, struct fl_secagg_cohort *out,
                                                 struct fl_error *error);
/* Is one advert signed for this context? What cohort_check asks of each. */
FL_CHECKED enum fl_status fl_secagg_advert_verify(const struct fl_secagg_context *context,
                                                  const struct fl_secagg_advert *advert);
/* Index of a name, or UINT32_MAX. */
uint32_t fl_secagg_cohort_find(const struct fl_secagg_cohort *self, const char *name);

/* ---- a site ---- */

struct fl_secagg_site; /* opaque: the secrets of one attempt */

/*
 * Draw fresh secrets. ranks: fl_secagg_ranks_hash() of this site. keys signs; it is borrowed for
 * the call. The caller owns *out.
 */
FL_CHECKED enum fl_status fl_secagg_site_create(
    const struct fl_secagg_context *context, const char *name, const uint8_t ranks[FL_HASH_BYTES],
    const struct fl_keys *keys, const struct fl_entropy *entropy, struct fl_secagg_site **out);
/* Wipe and release. */
void fl_secagg_site_destroy(struct fl_secagg_site **self);
const struct fl_secagg_advert *fl_secagg_site_advert(const struct fl_secagg_site *self);

/*
 * Take the cohort, once: it must pass fl_secagg_cohort_check(), hold this site's own advert
 * unchanged, and have at least minimum members. FL_EREFUSED otherwise; a second call too.
 */
FL_CHECKED enum fl_status fl_secagg_site_join(struct fl_secagg_site *self,
                                              const struct fl_secagg_advert *adverts,
                                              uint32_t count, uint32_t minimum,
                                              struct fl_error *error);
const struct fl_secagg_cohort *fl_secagg_site_cohort(const struct fl_secagg_site *self);

/*
 * The shares for every other member, sealed to each: sealed is (n, FL_SECAGG_SEALED_SHARE_BYTES),
 * the site's own entry is zeros. After join, once.
 */
FL_CHECKED enum fl_status fl_secagg_site_share(struct fl_secagg_site *self,
                                               const struct fl_entropy *entropy, uint8_t *sealed,
                                               struct fl_error *error);
/*
 * Another member's shares for this site. FL_EFORMAT: they do not open. Masking goes on without
 * them: others hold shares of that member too, and nothing of this site depends on them.
 */
FL_CHECKED enum fl_status fl_secagg_site_take_share(struct fl_secagg_site *self, uint32_t from,
                                                    const uint8_t *sealed, struct fl_error *error);
/*
 * Add this site's masks for the sharers U2 (which holds itself and at least t members whose shares
 * it took) to vector (context.elements) and scalars (scalar_count), in place. Once: FL_EREFUSED for
 * a second call.
 */
FL_CHECKED enum fl_status fl_secagg_site_mask(struct fl_secagg_site *self,
                                              const struct fl_secagg_set *sharers, uint32_t *vector,
                                              uint64_t *scalars, uint32_t scalar_count,
                                              struct fl_error *error);

/* Sign a list of survivors U3: a subset of the sharers with at least t members and this site. */
FL_CHECKED enum fl_status fl_secagg_site_sign(struct fl_secagg_site *self,
                                              const struct fl_secagg_set *survivors,
                                              const struct fl_keys *keys,
                                              uint8_t signature[FL_SIGNATURE_BYTES],
                                              struct fl_error *error);
/* Is this member's signature on this list good? */
FL_CHECKED enum fl_status fl_secagg_verify_survivors(const struct fl_secagg_cohort *cohort,
                                                     uint32_t member,
                                                     const struct fl_secagg_set *survivors,
                                                     const uint8_t *signature);

/*
 * Would fl_secagg_site_answer() be given? Changes nothing; between the two calls a site makes the
 * answer durable in its ledger.
 */
FL_CHECKED enum fl_status fl_secagg_site_may_answer(const struct fl_secagg_site *self,
                                                    const struct fl_secagg_set *survivors,
                                                    const struct fl_secagg_set *signed_by,
                                                    const uint8_t *signatures,
                                                    struct fl_error *error);

/*
 * The site's one answer: for each sharer one scalar, of the seed of a survivor or of the mask key
 * of a dropout; answer is (n, FL_SCALAR_BYTES), zeros elsewhere and where a share never opened.
 * signatures (n, FL_SIGNATURE_BYTES), signed says which are given: at least t survivors must have
 * signed exactly this list, and it must be the list that this site signed. A second call is
 * FL_EREFUSED, whatever it asks.
 */
FL_CHECKED enum fl_status fl_secagg_site_answer(struct fl_secagg_site *self,
                                                const struct fl_secagg_set *survivors,
                                                const struct fl_secagg_set *signed_by,
                                                const uint8_t *signatures, uint8_t *answer,
                                                struct fl_error *error);

/* ---- the coordinator ---- */

/*
 * Remove all masks from a sum over the survivors' masked vectors. answers: (n, n, FL_SCALAR_BYTES),
 * row u is what member u answered; answered says whose rows are given (at least t survivors). A
 * share of zeros is absent. Reconstructed secrets are held against the commitments: a share that
 * does not fit is found, the member named in *blamed (may be NULL; UINT32_MAX: none), and other
 * answers are tried. FL_EFORMAT: no t answers fit together.
 */
FL_CHECKED enum fl_status fl_secagg_unmask(
    const struct fl_secagg_context *context, const struct fl_secagg_cohort *cohort,
    const struct fl_secagg_set *sharers, const struct fl_secagg_set *survivors,
    const struct fl_secagg_set *answered, const uint8_t *answers, uint32_t *vector,
    uint64_t *scalars, uint32_t scalar_count, uint32_t *blamed, struct fl_error *error);

/* ---- what travels ---- */

/* An advert as bytes, in the order of its fields. */
void fl_secagg_advert_encode(const struct fl_secagg_advert *advert,
                             uint8_t out[FL_SECAGG_ADVERT_BYTES]);
/* FL_EFORMAT: the name is no name. What the rest is worth, fl_secagg_cohort_check() says. */
FL_CHECKED enum fl_status fl_secagg_advert_decode(const uint8_t bytes[FL_SECAGG_ADVERT_BYTES],
                                                  struct fl_secagg_advert *out);

/* Hash of the ranks that a site trains: (modules) u16, in the order of the target modules. */
void fl_secagg_ranks_hash(const uint16_t *ranks, uint32_t modules, uint8_t out[FL_HASH_BYTES]);
/* What a site signs in place of that hash if it has evaluated too and does not tell its own loss,
   so that all know how many there are. */
void fl_secagg_measured_hash(const uint8_t ranks[FL_HASH_BYTES], uint8_t out[FL_HASH_BYTES]);
/* Which of the two this advert has of these ranks. FL_EREFUSED: neither. *measures may be NULL. */
FL_CHECKED enum fl_status fl_secagg_ranks_verify(const struct fl_secagg_advert *advert,
                                                 const uint16_t *ranks, uint32_t modules,
                                                 bool *measures);
/*
 * The ranks of all members, rows in the order of the cohort, as runs: for each row u16 number of
 * runs and (u16 length, u16 rank) each, or u16 0xffff and the u16 number of an earlier row that is
 * the same. FL_ERANGE: longer than FL_SECAGG_PLAN_BYTES_MAX.
 */
FL_CHECKED enum fl_status fl_secagg_plan_encode(const uint16_t *ranks, uint32_t members,
                                                uint32_t modules, struct fl_buf *out);
/* ranks: (cohort->count, modules). FL_EFORMAT; FL_EREFUSED names whose row it did not sign. */
FL_CHECKED enum fl_status fl_secagg_plan_decode(const uint8_t *bytes, size_t length,
                                                const struct fl_secagg_cohort *cohort,
                                                uint32_t modules, uint16_t *ranks,
                                                struct fl_error *error);

#endif

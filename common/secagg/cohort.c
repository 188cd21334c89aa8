/* cohort.c - what is signed, and the checks of a cohort's list; see secagg.h. */
#include "secagg/secagg_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

uint32_t fl_secagg_set_count(const struct fl_secagg_set *self, uint32_t n)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++)
        count += self->has[i];
    return count;
}

uint32_t fl_secagg_threshold(uint32_t n)
{
    return 2 * n / 3 + 1;
}

void fl_secagg_context_hash(const struct fl_secagg_context *c, uint8_t out[FL_HASH_BYTES])
{
    uint8_t numbers[24];
    struct fl_blake2b hash;
    fl_store_u64(numbers, c->job);
    fl_store_u32(numbers + 8, c->round);
    fl_store_u32(numbers + 12, c->attempt);
    fl_store_u64(numbers + 16, c->elements);
    fl_blake2b_init(&hash, NULL, 0);
    fl_blake2b_update(&hash, "fedlora-round-v1", 16);
    fl_blake2b_update(&hash, numbers, sizeof(numbers));
    fl_blake2b_update(&hash, c->job_hash, FL_HASH_BYTES);
    fl_blake2b_update(&hash, c->manifest, FL_HASH_BYTES);
    fl_blake2b_update(&hash, c->start, FL_HASH_BYTES);
    fl_blake2b_final(&hash, out);
}

void fl_secagg_advert_bytes(const struct fl_secagg_context *context,
                            const struct fl_secagg_advert *advert,
                            uint8_t out[FL_SECAGG_ADVERT_SIGNED_BYTES])
{
    uint8_t *at = out;
    fl_secagg_context_hash(context, at);
    at += FL_HASH_BYTES;
    memcpy(at, advert->name, FL_NAME_BYTES);
    at += FL_NAME_BYTES;
    memcpy(at, advert->identity, FL_KEY_BYTES);
    memcpy(at + FL_KEY_BYTES, advert->share_key, FL_KEY_BYTES);
    memcpy(at + 2 * FL_KEY_BYTES, advert->mask_key, FL_KEY_BYTES);
    memcpy(at + 3 * FL_KEY_BYTES, advert->seed_commitment, FL_HASH_BYTES);
    memcpy(at + 3 * FL_KEY_BYTES + FL_HASH_BYTES, advert->ranks, FL_HASH_BYTES);
}

static int by_name(const void *a, const void *b)
{
    return memcmp(((const struct fl_secagg_advert *)a)->name,
                  ((const struct fl_secagg_advert *)b)->name, FL_NAME_BYTES);
}

/* The name is one NUL-padded string, so that the same site has one spelling. */
static bool name_is_padded(const char *name)
{
    size_t length = strnlen(name, FL_NAME_BYTES);
    if (length == 0 || length == FL_NAME_BYTES)
        return false;
    for (size_t i = length; i < FL_NAME_BYTES; i++) {
        if (name[i] != '\0')
            return false;
    }
    return true;
}

static bool share_a_key(const struct fl_secagg_advert *a, const struct fl_secagg_advert *b)
{
    return memcmp(a->identity, b->identity, FL_KEY_BYTES) == 0 ||
           memcmp(a->share_key, b->share_key, FL_KEY_BYTES) == 0 ||
           memcmp(a->mask_key, b->mask_key, FL_KEY_BYTES) == 0 ||
           memcmp(a->share_key, b->mask_key, FL_KEY_BYTES) == 0 ||
           memcmp(a->seed_commitment, b->seed_commitment, FL_HASH_BYTES) == 0;
}

enum fl_status fl_secagg_advert_verify(const struct fl_secagg_context *context,
                                       const struct fl_secagg_advert *advert)
{
    uint8_t bytes[FL_SECAGG_ADVERT_SIGNED_BYTES];
    fl_secagg_advert_bytes(context, advert, bytes);
    return fl_verify(advert->identity, FL_SECAGG_ADVERT_LABEL, bytes, sizeof(bytes),
                     advert->signature);
}

static enum fl_status check_members(const struct fl_secagg_context *context,
                                    const struct fl_secagg_cohort *cohort, struct fl_error *error)
{
    for (uint32_t i = 0; i < cohort->count; i++) {
        const struct fl_secagg_advert *a = &cohort->adverts[i];
        if (!name_is_padded(a->name))
            return fl_fail(error, FL_EREFUSED, "the cohort has a member without a proper name");
        if (i > 0 && memcmp(cohort->adverts[i - 1].name, a->name, FL_NAME_BYTES) == 0)
            return fl_fail(error, FL_EREFUSED, "the cohort has '%s' twice", a->name);
        for (uint32_t k = 0; k < i; k++) {
            if (share_a_key(a, &cohort->adverts[k]))
                return fl_fail(error, FL_EREFUSED, "'%s' and '%s' have a key in common", a->name,
                               cohort->adverts[k].name);
        }
        if (fl_secagg_advert_verify(context, a) != FL_OK)
            return fl_fail(error, FL_EREFUSED, "the keys of '%s' are not signed by it", a->name);
    }
    return FL_OK;
}

static void hash_cohort(const struct fl_secagg_context *context, struct fl_secagg_cohort *cohort)
{
    struct fl_blake2b hash;
    uint8_t count[4];
    fl_store_u32(count, cohort->count);
    fl_blake2b_init(&hash, NULL, 0);
    fl_blake2b_update(&hash, "fedlora-cohort-v1", 17);
    fl_blake2b_update(&hash, count, sizeof(count));
    for (uint32_t i = 0; i < cohort->count; i++) {
        uint8_t bytes[FL_SECAGG_ADVERT_SIGNED_BYTES];
        fl_secagg_advert_bytes(context, &cohort->adverts[i], bytes);
        fl_blake2b_update(&hash, bytes, sizeof(bytes));
    }
    fl_blake2b_final(&hash, cohort->hash);
}

enum fl_status fl_secagg_cohort_check(const struct fl_secagg_context *context,
                                      const struct fl_secagg_advert *adverts, uint32_t count,
                                      struct fl_secagg_cohort *out, struct fl_error *error)
{
    memset(out, 0, sizeof(*out));
    if (count < FL_SECAGG_SITES_MIN || count > FL_SECAGG_SITES_MAX)
        return fl_fail(error, FL_EREFUSED,
                       "a cohort of %u sites; secure aggregation takes %d to %d", count,
                       FL_SECAGG_SITES_MIN, FL_SECAGG_SITES_MAX);
    memcpy(out->adverts, adverts, count * sizeof(*adverts));
    qsort(out->adverts, count, sizeof(*out->adverts), by_name);
    out->count = count;
    out->threshold = fl_secagg_threshold(count);
    enum fl_status status = check_members(context, out, error);
    if (status == FL_OK)
        hash_cohort(context, out);
    else
        memset(out, 0, sizeof(*out));
    return status;
}

uint32_t fl_secagg_cohort_find(const struct fl_secagg_cohort *self, const char *name)
{
    for (uint32_t i = 0; i < self->count; i++) {
        if (strncmp(self->adverts[i].name, name, FL_NAME_BYTES) == 0)
            return i;
    }
    return UINT32_MAX;
}

/* ---- survivors ---- */

void fl_secagg_survivors_bytes(const struct fl_secagg_cohort *cohort,
                               const struct fl_secagg_set *survivors,
                               uint8_t out[FL_SECAGG_SURVIVORS_BYTES])
{
    memset(out, 0, FL_SECAGG_SURVIVORS_BYTES);
    memcpy(out, cohort->hash, FL_HASH_BYTES);
    for (uint32_t i = 0; i < cohort->count; i++)
        out[FL_HASH_BYTES + i] = survivors->has[i] ? 1 : 0;
}

enum fl_status fl_secagg_verify_survivors(const struct fl_secagg_cohort *cohort, uint32_t member,
                                          const struct fl_secagg_set *survivors,
                                          const uint8_t *signature)
{
    uint8_t bytes[FL_SECAGG_SURVIVORS_BYTES];
    if (member >= cohort->count)
        return FL_EREFUSED;
    fl_secagg_survivors_bytes(cohort, survivors, bytes);
    return fl_verify(cohort->adverts[member].identity, FL_SECAGG_SURVIVORS_LABEL, bytes,
                     sizeof(bytes), signature);
}

/*
 * travel.c - what sites and coordinator exchange, as bytes: adverts, and the ranks of all members.
 * Ranks are signed by the hash in each advert, so that a coordinator cannot tell a site that a rank
 * direction has more members than it has.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/name.h"
#include "secagg/secagg_internal.h"

#define SAME_ROW 0xffffu

void fl_secagg_advert_encode(const struct fl_secagg_advert *advert,
                             uint8_t out[FL_SECAGG_ADVERT_BYTES])
{
    uint8_t *at = out;
    const struct {
        const void *data;
        size_t length;
    } fields[] = {{advert->name, FL_NAME_BYTES},
                  {advert->identity, FL_KEY_BYTES},
                  {advert->share_key, FL_KEY_BYTES},
                  {advert->mask_key, FL_KEY_BYTES},
                  {advert->seed_commitment, FL_HASH_BYTES},
                  {advert->ranks, FL_HASH_BYTES},
                  {advert->signature, FL_SIGNATURE_BYTES}};
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        memcpy(at, fields[i].data, fields[i].length);
        at += fields[i].length;
    }
}

enum fl_status fl_secagg_advert_decode(const uint8_t bytes[FL_SECAGG_ADVERT_BYTES],
                                       struct fl_secagg_advert *out)
{
    const uint8_t *at = bytes;
    const struct {
        void *data;
        size_t length;
    } fields[] = {{out->name, FL_NAME_BYTES},
                  {out->identity, FL_KEY_BYTES},
                  {out->share_key, FL_KEY_BYTES},
                  {out->mask_key, FL_KEY_BYTES},
                  {out->seed_commitment, FL_HASH_BYTES},
                  {out->ranks, FL_HASH_BYTES},
                  {out->signature, FL_SIGNATURE_BYTES}};
    memset(out, 0, sizeof(*out));
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        memcpy(fields[i].data, at, fields[i].length);
        at += fields[i].length;
    }
    return out->name[FL_NAME_BYTES - 1] == '\0' && fl_name_is_valid(out->name) ? FL_OK : FL_EFORMAT;
}

void fl_secagg_ranks_hash(const uint16_t *ranks, uint32_t modules, uint8_t out[FL_HASH_BYTES])
{
    struct fl_blake2b hash;
    uint8_t word[4];
    fl_store_u32(word, modules);
    fl_blake2b_init(&hash, NULL, 0);
    fl_blake2b_update(&hash, "fedlora-ranks-v1", 16);
    fl_blake2b_update(&hash, word, sizeof(word));
    for (uint32_t m = 0; m < modules; m++) {
        word[0] = (uint8_t)(ranks[m] & 0xff);
        word[1] = (uint8_t)(ranks[m] >> 8);
        fl_blake2b_update(&hash, word, 2);
    }
    fl_blake2b_final(&hash, out);
}

void fl_secagg_measured_hash(const uint8_t ranks[FL_HASH_BYTES], uint8_t out[FL_HASH_BYTES])
{
    struct fl_blake2b hash;
    fl_blake2b_init(&hash, NULL, 0);
    fl_blake2b_update(&hash, "fedlora-measured-v1", 19);
    fl_blake2b_update(&hash, ranks, FL_HASH_BYTES);
    fl_blake2b_final(&hash, out);
}

enum fl_status fl_secagg_ranks_verify(const struct fl_secagg_advert *advert, const uint16_t *ranks,
                                      uint32_t modules, bool *measures)
{
    uint8_t plain[FL_HASH_BYTES], measured[FL_HASH_BYTES];
    fl_secagg_ranks_hash(ranks, modules, plain);
    fl_secagg_measured_hash(plain, measured);
    const bool also = memcmp(advert->ranks, measured, FL_HASH_BYTES) == 0;
    if (measures)
        *measures = also;
    return also || memcmp(advert->ranks, plain, FL_HASH_BYTES) == 0 ? FL_OK : FL_EREFUSED;
}

/* ---- plans ---- */

static void put_u16(struct fl_buf *out, uint32_t value)
{
    const uint8_t bytes[2] = {(uint8_t)(value & 0xff), (uint8_t)(value >> 8)};
    fl_buf_append(out, bytes, sizeof(bytes));
}

static uint32_t count_runs(const uint16_t *row, uint32_t modules)
{
    uint32_t runs = 0;
    for (uint32_t m = 0; m < modules; m++)
        runs += m == 0 || row[m] != row[m - 1];
    return runs;
}

static void put_row(struct fl_buf *out, const uint16_t *row, uint32_t modules)
{
    put_u16(out, count_runs(row, modules));
    for (uint32_t m = 0, end; m < modules; m = end) {
        for (end = m + 1; end < modules && row[end] == row[m];)
            end++;
        put_u16(out, end - m);
        put_u16(out, row[m]);
    }
}

enum fl_status fl_secagg_plan_encode(const uint16_t *ranks, uint32_t members, uint32_t modules,
                                     struct fl_buf *out)
{
    size_t before = out->length;
    for (uint32_t i = 0; i < members; i++) {
        const uint16_t *row = ranks + (size_t)i * modules;
        uint32_t same = 0;
        while (same < i && memcmp(ranks + (size_t)same * modules, row, modules * sizeof(*row)) != 0)
            same++;
        if (same < i) {
            put_u16(out, SAME_ROW);
            put_u16(out, same);
        } else {
            put_row(out, row, modules);
        }
    }
    if (fl_buf_status(out) != FL_OK)
        return fl_buf_status(out);
    return out->length - before <= FL_SECAGG_PLAN_BYTES_MAX ? FL_OK : FL_ERANGE;
}

struct source {
    const uint8_t *at, *end;
};

static bool get_u16(struct source *from, uint32_t *value)
{
    if (from->end - from->at < 2)
        return false;
    *value = fl_load_u16(from->at);
    from->at += 2;
    return true;
}

static bool get_row(struct source *from, uint32_t index, uint32_t modules, uint16_t *ranks)
{
    uint32_t runs, m = 0;
    uint16_t *row = ranks + (size_t)index * modules;
    if (!get_u16(from, &runs))
        return false;
    if (runs == SAME_ROW) {
        uint32_t same;
        if (!get_u16(from, &same) || same >= index)
            return false;
        memcpy(row, ranks + (size_t)same * modules, modules * sizeof(*row));
        return true;
    }
    for (uint32_t i = 0; i < runs; i++) {
        uint32_t length, rank;
        if (!get_u16(from, &length) || !get_u16(from, &rank) || length == 0 ||
            length > modules - m || rank == 0 || rank > FL_RANK_MAX)
            return false;
        for (uint32_t end = m + length; m < end; m++)
            row[m] = (uint16_t)rank;
    }
    return m == modules;
}

enum fl_status fl_secagg_plan_decode(const uint8_t *bytes, size_t length,
                                     const struct fl_secagg_cohort *cohort, uint32_t modules,
                                     uint16_t *ranks, struct fl_error *error)
{
    struct source from = {bytes, bytes + length};
    if (length > FL_SECAGG_PLAN_BYTES_MAX)
        return fl_fail(error, FL_EFORMAT, "the list of ranks is too long");
    for (uint32_t i = 0; i < cohort->count; i++) {
        const struct fl_secagg_advert *advert = &cohort->adverts[i];
        if (!get_row(&from, i, modules, ranks))
            return fl_fail(error, FL_EFORMAT, "the ranks of '%s' cannot be read", advert->name);
        if (fl_secagg_ranks_verify(advert, ranks + (size_t)i * modules, modules, NULL) != FL_OK)
            return fl_fail(error, FL_EREFUSED,
                           "'%s' has not signed the ranks that it is said to "
                           "train",
                           advert->name);
    }
    if (from.at != from.end)
        return fl_fail(error, FL_EFORMAT, "the list of ranks has something behind its end");
    return FL_OK;
}

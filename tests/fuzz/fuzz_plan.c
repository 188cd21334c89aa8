/*
 * fuzz_plan.c - any bytes as the list of ranks of a cohort: refused, or ranks that every member has
 * signed. The first byte is the number of members, the second that of modules; the members have
 * signed what the bytes say in every second run, so that the check behind the hash is reached too.
 */
#include <stdlib.h>
#include <string.h>

#include "secagg/secagg.h"

#define MODULES_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Members that signed these ranks. */
static void sign(struct fl_secagg_cohort *cohort, const uint16_t *ranks, uint32_t modules)
{
    for (uint32_t i = 0; i < cohort->count; i++)
        fl_secagg_ranks_hash(ranks + (size_t)i * modules, modules, cohort->adverts[i].ranks);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fl_secagg_cohort cohort;
    static uint16_t ranks[FL_SECAGG_SITES_MAX * MODULES_MAX];
    struct fl_secagg_advert advert;
    struct fl_buf again;
    struct fl_error error;
    if (size >= FL_SECAGG_ADVERT_BYTES && fl_secagg_advert_decode(data, &advert) == FL_OK) {
        uint8_t bytes[FL_SECAGG_ADVERT_BYTES];
        fl_secagg_advert_encode(&advert, bytes);
        if (memcmp(bytes, data, sizeof(bytes)) != 0)
            abort();
    }
    if (size < 2)
        return 0;
    cohort.count = 1 + data[0] % FL_SECAGG_SITES_MAX;
    uint32_t modules = 1 + data[1] % MODULES_MAX;
    memset(ranks, 0, sizeof(ranks));
    (void)!fl_secagg_plan_decode(data + 2, size - 2, &cohort, modules, ranks, &error);
    sign(&cohort, ranks, modules); /* what was read before the first refusal */
    if (fl_secagg_plan_decode(data + 2, size - 2, &cohort, modules, ranks, &error) != FL_OK)
        return 0;
    fl_buf_init(&again, 1u << 20);
    for (uint32_t i = 0; i < cohort.count * modules; i++) {
        if (ranks[i] == 0 || ranks[i] > FL_RANK_MAX)
            abort();
    }
    if (fl_secagg_plan_encode(ranks, cohort.count, modules, &again) == FL_OK &&
        fl_secagg_plan_decode(again.data, again.length, &cohort, modules, ranks, &error) != FL_OK)
        abort();
    fl_buf_free(&again);
    return 0;
}

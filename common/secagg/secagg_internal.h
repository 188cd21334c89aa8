/* secagg_internal.h - what the files of this room share: bytes that are signed, and labels. */
#ifndef FL_SECAGG_INTERNAL_H
#define FL_SECAGG_INTERNAL_H

#include "secagg/secagg.h"

#define FL_SECAGG_ADVERT_LABEL    "fedlora-secagg-advert-v1"
#define FL_SECAGG_SURVIVORS_LABEL "fedlora-secagg-survivors-v1"
#define FL_SECAGG_SHARE_LABEL     "fedlora-secagg-share-v1"
#define FL_SECAGG_PAIR_LABEL      "fedlora-secagg-pair-v1"

#define FL_SECAGG_ADVERT_SIGNED_BYTES                                                              \
    (FL_HASH_BYTES + FL_NAME_BYTES + 3 * FL_KEY_BYTES + 2 * FL_HASH_BYTES)
#define FL_SECAGG_SURVIVORS_BYTES (FL_HASH_BYTES + FL_SECAGG_SITES_MAX)

void fl_secagg_context_hash(const struct fl_secagg_context *c, uint8_t out[FL_HASH_BYTES]);
void fl_secagg_advert_bytes(const struct fl_secagg_context *context,
                            const struct fl_secagg_advert *advert,
                            uint8_t out[FL_SECAGG_ADVERT_SIGNED_BYTES]);
void fl_secagg_survivors_bytes(const struct fl_secagg_cohort *cohort,
                               const struct fl_secagg_set *survivors,
                               uint8_t out[FL_SECAGG_SURVIVORS_BYTES]);

#endif

/*
 * spm.h - SentencePiece's BPE in terms of ours: a vocabulary with scores instead of ranked merges.
 *
 * SentencePiece joins the two neighbours whose concatenation is the token with the highest score,
 * the leftmost of equals. So every way to cut a token into two tokens is a merge, and its rank is
 * that of the token's score; equal scores share a rank.
 * Source: SentencePiece, bpe_model.cc.
 */
#ifndef FL_DATA_SPM_H
#define FL_DATA_SPM_H

#include <stdint.h>

#include "base/status.h"

#define FL_SPM_TOKEN_BYTES_MAX 1024u /* of a token that merges can make */

struct fl_bpe;

struct fl_spm_piece {
    uint32_t id; /* a mergeable token of at most FL_SPM_TOKEN_BYTES_MAX bytes */
    float score; /* not NaN */
};

/* Enter the merges of all pieces, which are sorted on the way. FL_ENOMEM. */
FL_CHECKED enum fl_status fl_spm_add_merges(struct fl_bpe *bpe, struct fl_spm_piece *pieces,
                                            uint32_t count);

#endif

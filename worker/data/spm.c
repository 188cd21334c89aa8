/* spm.c - see spm.h. */
#include "worker/data/spm.h"

#include <assert.h>
#include <stdlib.h>

#include "worker/data/bpe.h"
#include "worker/data/unicode.h"

/* Highest score first; ids only to make the order one. */
static int compare(const void *a, const void *b)
{
    const struct fl_spm_piece *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Every cut of one token into two. */
static enum fl_status add_cuts(struct fl_bpe *bpe, uint32_t id, uint32_t rank)
{
    const char *text;
    size_t length, used;
    enum fl_status status = FL_OK;
    const bool known = fl_bpe_token(bpe, id, &text, &length);
    assert(known && length <= FL_SPM_TOKEN_BYTES_MAX);
    for (size_t at = 0; status == FL_OK && at < length; at += used) {
        (void)fl_utf8_next(text + at, length - at, &used);
        if (at == 0)
            continue;
        status = fl_bpe_add_merge(bpe, text, at, text + at, length - at, rank);
        if (status == FL_ENOTFOUND) /* one of the halves is no token */
            status = FL_OK;
    }
    return status;
}

enum fl_status fl_spm_add_merges(struct fl_bpe *bpe, struct fl_spm_piece *pieces, uint32_t count)
{
    enum fl_status status = FL_OK;
    uint32_t rank = 0;
    if (count > 0)
        qsort(pieces, count, sizeof *pieces, compare);
    for (uint32_t i = 0; status == FL_OK && i < count; i++) {
        if (i > 0 && pieces[i].score != pieces[i - 1].score)
            rank++;
        status = add_cuts(bpe, pieces[i].id, rank);
    }
    return status;
}

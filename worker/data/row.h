/*
 * row.h - one training or evaluation row, the only thing that data hands to engine.
 * Rows are ragged; nothing is padded.
 */
#ifndef FL_DATA_ROW_H
#define FL_DATA_ROW_H

#include <stdint.h>

#define FL_IGNORE (-100) /* the label of a position that is not scored (Hugging Face's value) */

struct fl_row {
    const int32_t *ids;    /* (length), borrowed from the data set */
    const int32_t *labels; /* (length), unshifted as in Hugging Face: position t is predicted from
                              ids[0..t-1]; labels[0] is never scored */
    uint32_t length;       /* tokens, >= 2 */
};

#endif

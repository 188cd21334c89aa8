/*
 * limits.h - every limit that the parts of fedlora share, in one place. Bytes from outside are held
 * against these before anything is allocated.
 */
#ifndef FL_BASE_LIMITS_H
#define FL_BASE_LIMITS_H

#define FL_NAME_BYTES        64      /* site, job and model names with their NUL */
#define FL_MODULE_NAME_BYTES 160     /* canonical Hugging Face module names with their NUL */
#define FL_MODULES_MAX       4096    /* adapted linears in one adapter */
#define FL_RANK_MAX          1024    /* r */
#define FL_DIM_MAX           1048576 /* features of one linear */
#define FL_LAYERS_MAX        1024    /* transformer blocks */
#define FL_VOCAB_MAX         4194304 /* tokens of a vocabulary */
#define FL_SEQ_MAX           1048576 /* tokens of one row */
#define FL_COHORT_MAX        100     /* sites in one secure-aggregation cohort (complete graph) */
#define FL_WORKERS_MAX       4096    /* sites in one roster */
#define FL_RETRAININGS_MAX   4       /* times that a round is trained anew because its sum failed */
#define FL_ADAPTER_BYTES_MAX (4ull << 30)
#define FL_CHUNK_BYTES       262144 /* of a bulk object; the last one may be shorter */
#define FL_FRAME_BYTES_MAX   (262144 + 4096)
#define FL_CONTROL_BYTES_MAX 65536 /* a control message */
#define FL_INLINE_BYTES_MAX  32768 /* anything that may exceed it travels as a bulk object */
#define FL_REASON_BYTES      256   /* text that a peer or an operator reads, with its NUL */

#endif

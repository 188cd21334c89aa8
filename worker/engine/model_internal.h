/* model_internal.h - what an opened model holds; for the files of this room only. */
#ifndef FL_ENGINE_MODEL_INTERNAL_H
#define FL_ENGINE_MODEL_INTERNAL_H

#include "base/fs.h"
#include "format/gguf.h"
#include "format/safetensors.h"
#include "worker/engine/arch.h"
#include "worker/engine/model.h"
#include "worker/engine/norm.h"
#include "worker/engine/rope.h"

/* One transformer block; indices into fl_model.weights; vectors are those weights' values. */
struct fl_block {
    uint32_t linears[FL_LINEAR_COUNT];
    const float *bias[FL_LINEAR_COUNT]; /* (out), NULL: none */
    struct fl_norm norm1, norm2;        /* (hidden): before attention, before the MLP */
    struct fl_norm post1, post2;        /* (hidden): behind them, weight NULL: none */
    struct fl_norm q_norm, k_norm;      /* (head_dim), weight NULL: none */
};

struct fl_model {
    const struct fl_arch *arch;
    struct fl_model_config config;
    struct fl_rope rope;
    struct fl_rope near; /* of layers with a window, where arch has a near_theta */
    enum fl_linear_kind kinds[FL_LINEAR_COUNT]; /* the linears that a block has, in order */
    uint32_t kind_count;
    struct fl_inventory inventory; /* layers * kind_count entries */
    struct fl_weight *weights;     /* owned; weights[0] is the embedding */
    uint32_t weight_count;
    uint32_t head;                  /* index of the output head in weights: 0 when tied */
    uint32_t positions;             /* of learned positions (max_positions, hidden); 0: none */
    struct fl_block *blocks;        /* (layers), owned */
    struct fl_norm norm;            /* (hidden): final norm */
    float embedding_scale;          /* of the embedding, but not of the head; 0: none */
    bool interleaved;               /* q and k rows of each head are stored interleaved (GGUF) */
    float *divisors;                /* owned: GGUF's rope_freqs, NULL: none */
    bool biases[FL_LINEAR_COUNT];   /* which linears have one */
    struct fl_safetensors *tensors; /* Hugging Face */
    struct fl_gguf *gguf;           /* or GGUF */
};

/* How one source finds a tensor by its Hugging Face name. FL_ENOTFOUND: it has none of it. */
typedef enum fl_status (*fl_tensor_finder)(const struct fl_model *self, const char *name,
                                           struct fl_tensor_view *out, struct fl_error *error);

/* What GGUF files of a Gemma mean by their silence: the number whose root divides scores. */
double fl_model_implied_scalar(const struct fl_model *self);
/* The window of a layer's attention; 0: none. */
uint32_t fl_model_window(const struct fl_model *self, uint32_t layer);
/* Fill arch, config, rope, biases and open the mapping; then fl_model_collect(). */
FL_CHECKED enum fl_status fl_model_open_hf(struct fl_model *self, const char *directory,
                                           struct fl_error *error);
FL_CHECKED enum fl_status fl_model_open_gguf(struct fl_model *self, const char *path,
                                             struct fl_error *error);
/* config.json at path into arch, config, rope and biases, checked. */
FL_CHECKED enum fl_status fl_model_read_config(struct fl_model *self, const char *path,
                                               struct fl_error *error);
/* Hold the configuration against its bounds and against itself. */
FL_CHECKED enum fl_status fl_model_check_config(const struct fl_model *self, const char *path,
                                                struct fl_error *error);
/*
 * A weight that the file stores (columns, rows), collected as such, becomes (rows, columns): data
 * is the model's own from here on.
 */
FL_CHECKED enum fl_status fl_weight_turn(struct fl_weight *self, struct fl_error *error);
/*
 * The NF4 matrix `name` of a Hugging Face directory as a weight, its shape checked.
 * FL_ENOTFOUND: it is not stored so.
 */
FL_CHECKED enum fl_status fl_weight_find_nf4(const struct fl_model *self, const char *name,
                                             uint32_t rows, uint32_t columns, struct fl_weight *out,
                                             struct fl_error *error);
/* Release what a weight owns. */
void fl_weight_free(struct fl_weight *self);
/* Find every weight through `find`, with shapes checked; build blocks and inventory. */
FL_CHECKED enum fl_status fl_model_collect(struct fl_model *self, fl_tensor_finder find,
                                           struct fl_error *error);

#endif

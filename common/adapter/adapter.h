/*
 * adapter.h - a LoRA adapter in memory: a list of named modules, each with A, B, rank and alpha,
 * and its reading and writing as a PEFT directory (format/peft.h) or as the safetensors bytes
 * alone.
 *
 * Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, section 4.1:
 * y = x W^T + s (x A^T) B^T, s = alpha / r (alpha / sqrt(r) with rsLoRA). Matrices are row-major
 * float32: A (r, in), B (out, r).
 * Threads: an adapter belongs to one thread at a time.
 */
#ifndef FL_ADAPTER_ADAPTER_H
#define FL_ADAPTER_ADAPTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/status.h"

/* One linear of a base model that may be adapted. */
struct fl_module {
    char name[FL_MODULE_NAME_BYTES]; /* canonical HF name: "model.layers.0.self_attn.q_proj" */
    uint32_t out, in;                /* features */
    uint32_t layer;                  /* index of the transformer block */
};

/* Every linear of a base model, in the model's order (layer by layer, q k v o gate up down). */
struct fl_inventory {
    struct fl_module *modules; /* owned */
    uint32_t count;            /* 1..FL_MODULES_MAX */
    uint32_t layers;           /* transformer blocks of the base; 0: not known */
};

void fl_inventory_free(struct fl_inventory *self);
/* Canonical bytes (for hashing and for the wire): see adapter.c. Bounded decode, validated. */
FL_CHECKED enum fl_status fl_inventory_encode(const struct fl_inventory *self, struct fl_buf *out);
FL_CHECKED enum fl_status fl_inventory_decode(const void *bytes, size_t length,
                                              struct fl_inventory *out, struct fl_error *error);
/*
 * The modules that PEFT's target_modules would choose: targets is "all-linear", "default" (those
 * that PEFT adapts when none are named) or a comma-separated list of names ("q_proj,v_proj", full
 * paths too). FL_EINVAL: an entry matches nothing. *out is a new inventory in the same order.
 */
FL_CHECKED enum fl_status fl_inventory_select(const struct fl_inventory *self, const char *targets,
                                              struct fl_inventory *out, struct fl_error *error);

struct fl_lora_module {
    struct fl_module module;
    uint32_t rank; /* r, 1..min(in, out, FL_RANK_MAX) */
    double alpha;  /* finite, > 0 */
    float *a;      /* (rank, in), owned, 64-byte aligned */
    float *b;      /* (out, rank), owned, 64-byte aligned */
    float *m;      /* (out), owned: DoRA's magnitudes; NULL without DoRA */
};

struct fl_adapter {
    struct fl_lora_module *modules; /* owned; in the inventory's order */
    uint32_t count;
    uint32_t layers; /* transformer blocks of the base; 0: not known */
    uint32_t rank;   /* the config's r (a module may differ: rank_pattern) */
    double alpha;    /* the config's lora_alpha */
    bool use_rslora;
    bool use_dora;        /* then every module has m */
    double dropout;       /* of the LoRA branch while training, 0 <= p < 1 */
    char base_model[256]; /* base_model_name_or_path; may be empty */
};

/*
 * A = B = 0 for each module of targets. ranks has targets->count entries, or is NULL for `rank`
 * everywhere (cut to min(in, out) of each module). Each module's alpha is set so that its scale is
 * alpha / rank of the arguments ("one scale for every module") when ranks is given, else alpha.
 */
FL_CHECKED enum fl_status fl_adapter_create(const struct fl_inventory *targets, uint32_t rank,
                                            double alpha, const uint32_t *ranks,
                                            struct fl_adapter **out, struct fl_error *error);
void fl_adapter_destroy(struct fl_adapter **self);
FL_CHECKED enum fl_status fl_adapter_copy(const struct fl_adapter *self, struct fl_adapter **out);

/* DoRA from here on, with m = 0 for every module. FL_ENOMEM: the adapter is as it was. */
FL_CHECKED enum fl_status fl_adapter_add_magnitudes(struct fl_adapter *self);
/*
 * FL_EUSAGE for an adapter of DoRA, with why: `what` ("adapters for llama.cpp") knows A and B
 * alone.
 */
FL_CHECKED enum fl_status fl_adapter_refuse_dora(const struct fl_adapter *self, const char *what,
                                                 struct fl_error *error);

/* PEFT's default start: A uniform in (-1/sqrt(in), 1/sqrt(in)) from the seed (ChaCha20), B = 0. */
void fl_adapter_init(struct fl_adapter *self, uint64_t seed);

/* s of one module: alpha / rank, or alpha / sqrt(rank) with rsLoRA. */
double fl_adapter_scale(const struct fl_adapter *self, uint32_t index);
/* Trainable parameters: sum of rank * (in + out), and of out with DoRA. */
uint64_t fl_adapter_parameters(const struct fl_adapter *self);
/* true when every value is finite. */
bool fl_adapter_finite(const struct fl_adapter *self);

/*
 * The bytes of adapter_model.safetensors, deterministic (depends on names, shapes and values only):
 * keys base_model.model.NAME.lora_A.weight / .lora_B.weight / .lora_magnitude_vector, F32, metadata
 * {"format":"pt"}.
 */
FL_CHECKED enum fl_status fl_adapter_encode(const struct fl_adapter *self, struct fl_buf *out,
                                            struct fl_error *error);
/*
 * Fill A and B of an adapter whose names, shapes and ranks are already right (from a job) from
 * those bytes. FL_EFORMAT: other tensors, shapes, types than expected, NaN or Inf.
 */
FL_CHECKED enum fl_status fl_adapter_decode(struct fl_adapter *self, const void *bytes,
                                            size_t length, struct fl_error *error);

/* Append the text of its adapter_config.json. FL_ENOMEM, FL_ERANGE. */
FL_CHECKED enum fl_status fl_adapter_config(const struct fl_adapter *self, struct fl_buf *out);
/*
 * Write DIR/adapter_config.json, DIR/adapter_model.safetensors and DIR/README.md as PEFT does
 * (rank_pattern and alpha_pattern where modules differ). DIR is made whole or not at all: a
 * temporary sibling is renamed into place; an existing PEFT directory is replaced, anything else
 * at that path is refused (FL_EEXIST). card is the text of README.md, NULL for a short default.
 */
FL_CHECKED enum fl_status fl_adapter_save(const struct fl_adapter *self, const char *directory,
                                          const char *card, struct fl_error *error);
/*
 * Read a PEFT directory against a base model's inventory (which gives order, layer and shapes; a
 * name it lacks is FL_EFORMAT). inventory may be NULL: then shapes come from the file, layers from
 * the names, order from names sorted by (layer, name). Everything that changes the maths and is
 * not supported is refused with its key.
 */
FL_CHECKED enum fl_status fl_adapter_load(const char *directory,
                                          const struct fl_inventory *inventory,
                                          struct fl_adapter **out, struct fl_error *error);

#endif

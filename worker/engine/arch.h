/*
 * arch.h - what tells the supported architectures apart: one row of a table each, read by the
 * readers of both file forms, by the collector of weights and by the blocks.
 *
 * Sources: the config.json and modelling code of transformers (names, defaults, order of
 * operations), the tensor names of the GGUF specification.
 * Threads: constant data.
 */
#ifndef FL_ENGINE_ARCH_H
#define FL_ENGINE_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The linears of a block, in the inventory's order. An architecture need not have them all:
 * without K and V, Q is q, k and v in one; without UP, GATE is gate and up in one. Without GATE the
 * MLP is down(gelu(up)), else down(silu(gate) up), or down(gelu(gate) up).
 */
enum fl_linear_kind {
    FL_LINEAR_Q,
    FL_LINEAR_QKV = FL_LINEAR_Q,
    FL_LINEAR_K,
    FL_LINEAR_V,
    FL_LINEAR_O,
    FL_LINEAR_GATE,
    FL_LINEAR_GATE_UP = FL_LINEAR_GATE,
    FL_LINEAR_UP,
    FL_LINEAR_DOWN,
    FL_LINEAR_COUNT
};

/* One thing's name in a Hugging Face directory and in a GGUF file. hf NULL: there is none. */
struct fl_name {
    const char *hf, *gguf;
};

struct fl_arch_names {
    struct fl_name embedding, final_norm, head; /* of modules: ".weight" follows */
    struct fl_name positions;                   /* learned ones; none: rotary */
    struct fl_name block;                       /* in front of ".N." and what follows here */
    struct fl_name norm1, norm2;                /* before attention, before the MLP */
    struct fl_name post1, post2;                /* over what they give, before it is added */
    struct fl_name q_norm, k_norm;              /* over the values of each head, before rope */
    struct fl_name linears[FL_LINEAR_COUNT];
};

/* Which linears have a bias, as far as config.json tells; a GGUF file shows them. */
enum fl_bias_rule {
    FL_BIAS_CONFIGURED, /* attention_bias, mlp_bias */
    FL_BIAS_QKV,        /* q, k and v always, the others never */
    FL_BIAS_ALL
};

/* Which layers attend to a sliding window only. */
enum fl_window_rule {
    FL_WINDOW_NEVER,
    FL_WINDOW_EVERYWHERE, /* every layer, if sliding_window is set */
    FL_WINDOW_UPPER,      /* where use_sliding_window is set: from max_window_layers upwards */
    FL_WINDOW_PERIODIC    /* but in each period-th layer */
};

struct fl_arch {
    const char *name;       /* in config.json's `architectures` */
    const char *model_type; /* there, where `architectures` is missing */
    const char *gguf;       /* general.architecture; where rows share one, it means the first */
    const struct fl_arch_names *names;
    enum fl_bias_rule biases;
    enum fl_window_rule windows;
    uint32_t window;   /* where windows are on and sliding_window is left out; 0: none */
    bool interleaved;  /* GGUF stores the rows of q and k interleaved */
    bool layer_norm;   /* LayerNorm with a bias; else RMSNorm */
    bool turned;       /* a Hugging Face directory stores its linears (in, out), GGUF (out, in) */
    uint32_t head_dim; /* when config.json leaves it out; 0: hidden / heads */
    /* What the Gemmas have; what config.json leaves out is this. */
    bool gemma;      /* norms multiply by 1 + weight, embeddings by sqrt(hidden), the gate goes
                        through gelu, scores are divided by sqrt(query_pre_attn_scalar) */
    uint32_t period; /* of FL_WINDOW_PERIODIC */
    uint32_t broad_layers; /* models of so many layers divide scores by sqrt(hidden / heads): GGUF
                              files do not say it */
    double score_cap;      /* attn_logit_softcapping; 0: none, whatever config.json says */
    double logit_cap;      /* final_logit_softcapping */
    double theta;          /* of the rotation; 0: 10000 */
    double near_theta;     /* of another rotation, in layers with a window; 0: the same */
};

/* q, k and v come from one linear. */
static inline bool fl_arch_joins_qkv(const struct fl_arch *self)
{
    return !self->names->linears[FL_LINEAR_K].hf;
}

/* gate and up do. */
static inline bool fl_arch_joins_gate(const struct fl_arch *self)
{
    return !self->names->linears[FL_LINEAR_UP].hf;
}

/* By name, or by model_type where the name is NULL. NULL: not supported. */
const struct fl_arch *fl_arch_find(const char *name, const char *model_type);
/* By general.architecture (`length` bytes). */
const struct fl_arch *fl_arch_find_gguf(const char *name, size_t length);
/* Their names, comma-separated, for messages. `gguf`: those of GGUF files. */
void fl_arch_list(bool gguf, char *text, size_t bytes);

#endif

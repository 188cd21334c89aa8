/*
 * model.h - a base model, opened read-only: its configuration, its linears, its frozen weights in
 * the type that the file stores (mapped, never copied whole; GPT-2 directories store linears
 * (in, out), so that those are turned once).
 *
 * Reads a Hugging Face directory (config.json in both dialects, *.safetensors with or without an
 * index; linears may be bitsandbytes' NF4) and one GGUF file. Either way names, row order and
 * shapes seen here are Hugging Face's: GGUF's interleaved q and k rows are put back when they are
 * widened.
 * Architectures: LlamaForCausalLM (Llama 2 and 3, SmolLM2, TinyLlama, ...), MistralForCausalLM,
 * Qwen2ForCausalLM (Qwen2, Qwen2.5), Qwen3ForCausalLM, Phi3ForCausalLM (Phi-3 of
 * 4k context; longrope is refused), Gemma2ForCausalLM, Gemma3ForCausalLM (the models of text
 * alone), GPT2LMHeadModel. In GGUF: "llama" (which Mistral is called too), "qwen2", "qwen3",
 * "phi3", "gemma2", "gemma3", "gpt2". Dropout that a base's configuration asks for in its own
 * training (GPT-2: 0.1) is never applied. Anything that would change the numbers and is not built
 * is refused by its key.
 *
 * Sources: the architecture as published with Llama 2 (Touvron et al. 2023) and Hugging Face's
 * config.json; GGUF specification version 3.
 * Threads: immutable once open; any number of threads and engines may share it.
 */
#ifndef FL_ENGINE_MODEL_H
#define FL_ENGINE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "adapter/adapter.h"
#include "base/status.h"
#include "format/dtype.h"

struct fl_model;
struct fl_nf4;

struct fl_model_config {
    char architecture[64];    /* "LlamaForCausalLM" */
    uint32_t hidden;          /* d_model */
    uint32_t ffn;             /* intermediate size */
    uint32_t layers;          /* transformer blocks */
    uint32_t heads, kv_heads; /* query heads H, key and value heads K; K divides H */
    uint32_t head_dim;        /* D; heads * head_dim need not equal hidden */
    uint32_t vocab;           /* rows of the embedding */
    uint32_t max_positions;   /* context length the model was made for; 0: not stated. Learned
                                 positions (GPT-2) are no more than that: longer rows are refused */
    uint32_t sliding_window;  /* 0: none; else a query sees so many newest keys, its own included */
    uint32_t sliding_from;    /* the lowest layer that has the window */
    uint32_t sliding_period;  /* 0, or each so many-th layer has none */
    double query_scalar;      /* scores are divided by its root; 0: head_dim */
    double score_cap;         /* scores become cap tanh(score / cap); 0: they do not */
    double logit_cap;         /* the same of logits */
    double norm_epsilon;
    bool tied;              /* the output head is the embedding */
    int32_t bos_id, eos_id; /* -1: not stated (eos: the first where a list is given) */
};

/*
 * name: a Hugging Face directory or a GGUF file, or the name of such a model in the cache of
 * hfcache.h. *out is NULL on failure.
 */
FL_CHECKED enum fl_status fl_model_open(const char *name, struct fl_model **out,
                                        struct fl_error *error);
void fl_model_close(struct fl_model **self);

/*
 * Hold the linears of the blocks in four bits from now on (NF4, scales quantised too: QLoRA), never
 * embedding, head, norms or biases; what is NF4 already stays as it is. Values are rounded to the
 * type that the file stores where that is F16 or BF16, as bitsandbytes does it. The file's own
 * bytes need no memory any more. threads 0: all. Before any engine is made of the model.
 * FL_ENOMEM; FL_EFORMAT: a weight is not finite.
 */
FL_CHECKED enum fl_status fl_model_quantize(struct fl_model *self, uint32_t threads,
                                            struct fl_error *error);

/* Borrowed from the model, as all below. */
const struct fl_model_config *fl_model_config(const struct fl_model *self);
const struct fl_inventory *fl_model_inventory(const struct fl_model *self);
/* Parameters of the base, tied weights counted once. */
uint64_t fl_model_parameters(const struct fl_model *self);
/* Bytes of its weights as they are held: mapped from the file, turned or quantised here. */
uint64_t fl_model_bytes(const struct fl_model *self);

/*
 * One frozen matrix or vector, as stored. Rows are in Hugging Face's order only after
 * fl_weight_widen(): never read `data` directly.
 */
struct fl_weight {
    char name[FL_MODULE_NAME_BYTES]; /* "model.layers.0.self_attn.q_proj.weight" */
    enum fl_dtype dtype;
    uint32_t rows, columns; /* (out, in); a vector is (1, n), an interleaved one (n, 1) */
    const uint8_t *data;    /* mapped, unless `turned`; NULL: this model has no such weight */
    float *values;          /* of a vector, as float32; NULL: a matrix. The model's own */
    uint32_t interleave;    /* head_dim when each head's rows are stored interleaved, else 0 */
    bool vector;            /* of rank 1 in the file */
    bool turned;            /* (columns, rows) in the file: data is a copy, turned when opened */
    struct fl_nf4 *nf4;     /* of dtype NF4: where its values are; `data` is only not NULL then */
};

/* Every weight of the base in a fixed order: embedding, learned positions, layer by layer, norm,
 * head if untied. */
uint32_t fl_model_weight_count(const struct fl_model *self);
const struct fl_weight *fl_model_weight(const struct fl_model *self, uint32_t index);
/* The weight matrix of the inventory's module `index`. */
const struct fl_weight *fl_model_module_weight(const struct fl_model *self, uint32_t index);

/* Rows [first, first + count) as float32 into out (count, columns), Hugging Face's row order. */
void fl_weight_widen(const struct fl_weight *self, uint32_t first, uint32_t count, float *out);
/* Columns [first, first + count) of one row; both are multiples of the type's block. */
void fl_weight_widen_part(const struct fl_weight *self, uint32_t row, uint32_t first,
                          uint32_t count, float *out);
/* The stored values there, at any alignment; NULL where they are not by themselves (NF4). */
const uint8_t *fl_weight_stored(const struct fl_weight *self, uint32_t row, uint32_t first);

#endif

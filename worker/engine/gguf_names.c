/* gguf_names.c - see gguf_names.h. */
#include "worker/engine/gguf_names.h"

#include <stdio.h>
#include <string.h>

struct pair {
    const char *hf, *gguf;
};

static const struct pair ARCHITECTURES[] = {{"LlamaForCausalLM", "llama"},
                                            {"MistralForCausalLM", "llama"},
                                            {"Qwen2ForCausalLM", "qwen2"},
                                            {"Qwen3ForCausalLM", "qwen3"}};
static const struct pair TOP[] = {
    {"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}};
/* behind "model.layers.N." and "blk.N." */
static const struct pair BLOCK[] = {
    {"input_layernorm", "attn_norm"},    {"post_attention_layernorm", "ffn_norm"},
    {"self_attn.q_proj", "attn_q"},      {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},      {"self_attn.o_proj", "attn_output"},
    {"self_attn.q_norm", "attn_q_norm"}, {"self_attn.k_norm", "attn_k_norm"},
    {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"}};

#define COUNT(array) (sizeof(array) / sizeof *(array))

const char *fl_gguf_architecture(const char *architecture)
{
    for (size_t i = 0; i < COUNT(ARCHITECTURES); i++)
        if (strcmp(architecture, ARCHITECTURES[i].hf) == 0)
            return ARCHITECTURES[i].gguf;
    return NULL;
}

/* The pair whose Hugging Face name `name` begins with, up to a '.'; *rest is from there on. */
static const struct pair *find(const struct pair *pairs, size_t count, const char *name,
                               const char **rest)
{
    for (size_t i = 0; i < count; i++) {
        const size_t length = strlen(pairs[i].hf);
        if (strncmp(name, pairs[i].hf, length) == 0 && name[length] == '.') {
            *rest = name + length;
            return &pairs[i];
        }
    }
    return NULL;
}

bool fl_gguf_tensor_name(const char *name, char *out, size_t bytes)
{
    const char *rest;
    unsigned layer;
    int used = 0, length = -1;
    const struct pair *pair = find(TOP, COUNT(TOP), name, &rest);
    if (pair) {
        length = snprintf(out, bytes, "%s%s", pair->gguf, rest);
    } else if (sscanf(name, "model.layers.%u.%n", &layer, &used) == 1 && used) {
        pair = find(BLOCK, COUNT(BLOCK), name + used, &rest);
        if (pair)
            length = snprintf(out, bytes, "blk.%u.%s%s", layer, pair->gguf, rest);
    }
    return length > 0 && (size_t)length < bytes;
}

size_t fl_gguf_interleaved_row(size_t row, size_t head_dim)
{
    const size_t in_head = row % head_dim;
    const size_t within = in_head % 2 ? head_dim / 2 + in_head / 2 : in_head / 2;
    return row - in_head + within;
}

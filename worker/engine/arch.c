/* arch.c - see arch.h. */
#include "worker/engine/arch.h"

#include <stdio.h>
#include <string.h>

/* The names of Llama, which most families kept, around a block's linears. */
#define LLAMA_NAMES                                                                                \
    .embedding = {"model.embed_tokens", "token_embd"},                                             \
    .final_norm = {"model.norm", "output_norm"}, .head = {"lm_head", "output"},                    \
    .block = {"model.layers", "blk"}, .norm1 = {"input_layernorm", "attn_norm"},                   \
    .norm2 = {"post_attention_layernorm", "ffn_norm"}

#define LLAMA_LINEARS                                                                              \
    .linears = {[FL_LINEAR_Q] = {"self_attn.q_proj", "attn_q"},                                    \
                [FL_LINEAR_K] = {"self_attn.k_proj", "attn_k"},                                    \
                [FL_LINEAR_V] = {"self_attn.v_proj", "attn_v"},                                    \
                [FL_LINEAR_O] = {"self_attn.o_proj", "attn_output"},                               \
                [FL_LINEAR_GATE] = {"mlp.gate_proj", "ffn_gate"},                                  \
                [FL_LINEAR_UP] = {"mlp.up_proj", "ffn_up"},                                        \
                [FL_LINEAR_DOWN] = {"mlp.down_proj", "ffn_down"}}

static const struct fl_arch_names LLAMA = {LLAMA_NAMES, LLAMA_LINEARS};

static const struct fl_arch_names QWEN3 = {LLAMA_NAMES, LLAMA_LINEARS,
                                           .q_norm = {"self_attn.q_norm", "attn_q_norm"},
                                           .k_norm = {"self_attn.k_norm", "attn_k_norm"}};

#define GEMMA_NAMES                                                                                \
    .embedding = {"model.embed_tokens", "token_embd"},                                             \
    .final_norm = {"model.norm", "output_norm"}, .head = {"lm_head", "output"},                    \
    .block = {"model.layers", "blk"}, .norm1 = {"input_layernorm", "attn_norm"},                   \
    .post1 = {"post_attention_layernorm", "post_attention_norm"},                                  \
    .norm2 = {"pre_feedforward_layernorm", "ffn_norm"},                                            \
    .post2 = {"post_feedforward_layernorm", "post_ffw_norm"}

static const struct fl_arch_names GEMMA2 = {GEMMA_NAMES, LLAMA_LINEARS};

static const struct fl_arch_names GEMMA3 = {GEMMA_NAMES, LLAMA_LINEARS,
                                            .q_norm = {"self_attn.q_norm", "attn_q_norm"},
                                            .k_norm = {"self_attn.k_norm", "attn_k_norm"}};

static const struct fl_arch_names PHI3 = {
    LLAMA_NAMES, .linears = {[FL_LINEAR_QKV] = {"self_attn.qkv_proj", "attn_qkv"},
                             [FL_LINEAR_O] = {"self_attn.o_proj", "attn_output"},
                             [FL_LINEAR_GATE_UP] = {"mlp.gate_up_proj", "ffn_up"},
                             [FL_LINEAR_DOWN] = {"mlp.down_proj", "ffn_down"}}};

static const struct fl_arch_names GPT2 = {
    .embedding = {"transformer.wte", "token_embd"},
    .positions = {"transformer.wpe", "position_embd"},
    .final_norm = {"transformer.ln_f", "output_norm"},
    .head = {"lm_head", "output"},
    .block = {"transformer.h", "blk"},
    .norm1 = {"ln_1", "attn_norm"},
    .norm2 = {"ln_2", "ffn_norm"},
    .linears = {[FL_LINEAR_QKV] = {"attn.c_attn", "attn_qkv"},
                [FL_LINEAR_O] = {"attn.c_proj", "attn_output"},
                [FL_LINEAR_UP] = {"mlp.c_fc", "ffn_up"},
                [FL_LINEAR_DOWN] = {"mlp.c_proj", "ffn_down"}}};

static const struct fl_arch TABLE[] = {
    {.name = "LlamaForCausalLM",
     .model_type = "llama",
     .gguf = "llama",
     .names = &LLAMA,
     .interleaved = true},
    {.name = "MistralForCausalLM",
     .model_type = "mistral",
     .gguf = "llama",
     .names = &LLAMA,
     .interleaved = true,
     .windows = FL_WINDOW_EVERYWHERE,
     .window = 4096},
    {.name = "Qwen2ForCausalLM",
     .model_type = "qwen2",
     .gguf = "qwen2",
     .names = &LLAMA,
     .biases = FL_BIAS_QKV,
     .windows = FL_WINDOW_UPPER,
     .window = 4096},
    {.name = "Qwen3ForCausalLM",
     .model_type = "qwen3",
     .gguf = "qwen3",
     .names = &QWEN3,
     .windows = FL_WINDOW_UPPER,
     .window = 4096,
     .head_dim = 128},
    {.name = "Phi3ForCausalLM",
     .model_type = "phi3",
     .gguf = "phi3",
     .names = &PHI3,
     .windows = FL_WINDOW_EVERYWHERE},
    {.name = "Gemma2ForCausalLM",
     .model_type = "gemma2",
     .gguf = "gemma2",
     .names = &GEMMA2,
     .windows = FL_WINDOW_PERIODIC,
     .window = 4096,
     .head_dim = 256,
     .gemma = true,
     .period = 2,
     .broad_layers = 46,
     .score_cap = 50.0,
     .logit_cap = 30.0},
    {.name = "Gemma3ForCausalLM",
     .model_type = "gemma3_text",
     .gguf = "gemma3",
     .names = &GEMMA3,
     .windows = FL_WINDOW_PERIODIC,
     .window = 4096,
     .head_dim = 256,
     .gemma = true,
     .period = 6,
     .broad_layers = 62,
     .theta = 1e6,
     .near_theta = 1e4},
    {.name = "GPT2LMHeadModel",
     .model_type = "gpt2",
     .gguf = "gpt2",
     .names = &GPT2,
     .biases = FL_BIAS_ALL,
     .layer_norm = true,
     .turned = true},
};

enum { COUNT = sizeof TABLE / sizeof *TABLE };

const struct fl_arch *fl_arch_find(const char *name, const char *model_type)
{
    for (int i = 0; i < COUNT; i++)
        if (name ? strcmp(name, TABLE[i].name) == 0
                 : model_type && strcmp(model_type, TABLE[i].model_type) == 0)
            return &TABLE[i];
    return NULL;
}

const struct fl_arch *fl_arch_find_gguf(const char *name, size_t length)
{
    for (int i = 0; i < COUNT; i++)
        if (strlen(TABLE[i].gguf) == length && memcmp(name, TABLE[i].gguf, length) == 0)
            return &TABLE[i];
    return NULL;
}

void fl_arch_list(bool gguf, char *text, size_t bytes)
{
    size_t used = 0;
    for (int i = 0; i < COUNT && used < bytes; i++) {
        const char *name = gguf ? TABLE[i].gguf : TABLE[i].name;
        if (!gguf || fl_arch_find_gguf(name, strlen(name)) == &TABLE[i])
            used += (size_t)snprintf(text + used, bytes - used, "%s%s", used ? ", " : "", name);
    }
}

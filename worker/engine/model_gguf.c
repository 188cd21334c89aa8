/*
 * model_gguf.c - a GGUF file of architecture "llama": metadata into the configuration, tensors
 * under their Hugging Face names. q and k rows of each head are stored interleaved there.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "worker/engine/model_internal.h"

/* Hugging Face's names behind "model.layers.N." and GGUF's behind "blk.N." */
static const char *const BLOCK_NAMES[][2] = {
    {"input_layernorm", "attn_norm"}, {"post_attention_layernorm", "ffn_norm"},
    {"self_attn.q_proj", "attn_q"},   {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},   {"self_attn.o_proj", "attn_output"},
    {"mlp.gate_proj", "ffn_gate"},    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"}};
static const char *const TOP_NAMES[][2] = {{"model.embed_tokens.weight", "token_embd.weight"},
                                           {"model.norm.weight", "output_norm.weight"},
                                           {"lm_head.weight", "output.weight"}};

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* "model.layers.3.mlp.up_proj.weight" -> "blk.3.ffn_up.weight"; false: no such name. */
static bool translate(const char *name, char *out, size_t out_bytes)
{
    unsigned layer;
    int used = 0;
    for (size_t i = 0; i < COUNT(TOP_NAMES); i++) {
        if (strcmp(name, TOP_NAMES[i][0]) == 0) {
            (void)snprintf(out, out_bytes, "%s", TOP_NAMES[i][1]);
            return true;
        }
    }
    if (sscanf(name, "model.layers.%u.%n", &layer, &used) != 1 || !used)
        return false;
    for (size_t i = 0; i < COUNT(BLOCK_NAMES); i++) {
        const size_t length = strlen(BLOCK_NAMES[i][0]);
        if (strncmp(name + used, BLOCK_NAMES[i][0], length) == 0 && name[used + length] == '.') {
            (void)snprintf(out, out_bytes, "blk.%u.%s%s", layer, BLOCK_NAMES[i][1],
                           name + used + length);
            return true;
        }
    }
    return false;
}

static enum fl_status find_tensor(const struct fl_model *self, const char *name,
                                  struct fl_tensor_view *out, struct fl_error *error)
{
    char stored[FL_MODULE_NAME_BYTES];
    const struct fl_tensor_view *view = NULL;
    if (translate(name, stored, sizeof stored))
        view = fl_gguf_find(self->gguf, stored);
    if (!view)
        return fl_fail(error, FL_ENOTFOUND, "the model has no tensor for %s", name);
    *out = *view;
    return FL_OK;
}

/* llama.KEY as u32; absent gives fallback, of which 0 means required. */
static enum fl_status read_u32(const struct fl_gguf *gguf, const char *key, uint32_t fallback,
                               uint32_t *out, struct fl_error *error)
{
    uint64_t value = fallback;
    enum fl_status status = fl_gguf_u64(gguf, key, &value);
    if (status == FL_ENOTFOUND && fallback)
        status = FL_OK;
    if (status || value > UINT32_MAX)
        return fl_fail(error, FL_EFORMAT, "metadata %s is missing or no valid number", key);
    *out = (uint32_t)value;
    return FL_OK;
}

static enum fl_status read_double(const struct fl_gguf *gguf, const char *key, double fallback,
                                  double *out, struct fl_error *error)
{
    *out = fallback;
    enum fl_status status = fl_gguf_f64(gguf, key, out);
    if (status && status != FL_ENOTFOUND)
        return fl_fail(error, FL_EFORMAT, "metadata %s is no number", key);
    return FL_OK;
}

static bool string_is(const struct fl_gguf *gguf, const char *key, const char *wanted)
{
    struct fl_gguf_string text;
    return !fl_gguf_string(gguf, key, &text) && text.length == strlen(wanted) &&
           memcmp(text.data, wanted, text.length) == 0;
}

/* head_count_kv may be one number or one a layer; they must be equal here. */
static enum fl_status read_kv_heads(struct fl_model *self, struct fl_error *error)
{
    const char *key = "llama.attention.head_count_kv";
    struct fl_model_config *c = &self->config;
    struct fl_gguf_array array;
    if (fl_gguf_array(self->gguf, key, &array))
        return read_u32(self->gguf, key, c->heads, &c->kv_heads, error);
    for (uint64_t i = 0; i < array.count; i++)
        if (fl_gguf_array_i64(&array, i) != fl_gguf_array_i64(&array, 0))
            return fl_fail(error, FL_EFORMAT, "%s differs from layer to layer", key);
    const int64_t value = fl_gguf_array_i64(&array, 0);
    c->kv_heads = value > 0 && value <= UINT32_MAX ? (uint32_t)value : 0;
    return FL_OK;
}

static enum fl_status read_sizes(struct fl_model *self, struct fl_error *error)
{
    struct fl_model_config *c = &self->config;
    const struct fl_gguf *g = self->gguf;
    enum fl_status status = read_u32(g, "llama.embedding_length", 0, &c->hidden, error);
    if (!status)
        status = read_u32(g, "llama.feed_forward_length", 0, &c->ffn, error);
    if (!status)
        status = read_u32(g, "llama.block_count", 0, &c->layers, error);
    if (!status)
        status = read_u32(g, "llama.attention.head_count", 0, &c->heads, error);
    if (!status)
        status = read_kv_heads(self, error);
    if (!status && c->heads)
        status = read_u32(g, "llama.attention.key_length",
                          c->hidden >= c->heads ? c->hidden / c->heads : 1, &c->head_dim, error);
    if (!status && fl_gguf_has(g, "llama.context_length"))
        status = read_u32(g, "llama.context_length", 0, &c->max_positions, error);
    if (!status && fl_gguf_has(g, "llama.attention.sliding_window"))
        status = read_u32(g, "llama.attention.sliding_window", 0, &c->sliding_window, error);
    if (!status)
        status = read_double(g, "llama.attention.layer_norm_rms_epsilon", 1e-5, &c->norm_epsilon,
                             error);
    return status;
}

/* Scaling kinds; llama3's is carried by the tensor rope_freqs.weight instead of metadata. */
static enum fl_status read_rope(struct fl_model *self, struct fl_error *error)
{
    struct fl_rope *rope = &self->rope;
    const struct fl_gguf *g = self->gguf;
    uint32_t rotated;
    enum fl_status status = read_double(g, "llama.rope.freq_base", 10000.0, &rope->theta, error);
    if (!status)
        status = read_double(g, "llama.rope.scaling.factor", 1.0, &rope->factor, error);
    if (!status && fl_gguf_has(g, "llama.rope.scale_linear"))
        status = read_double(g, "llama.rope.scale_linear", 1.0, &rope->factor, error);
    if (!status)
        status = read_u32(g, "llama.rope.dimension_count", self->config.head_dim, &rotated, error);
    if (status)
        return status;
    if (rotated != self->config.head_dim)
        return fl_fail(error, FL_EFORMAT, "partial rotation is not supported");
    const char *key = "llama.rope.scaling.type";
    if (string_is(g, key, "linear") || fl_gguf_has(g, "llama.rope.scale_linear"))
        rope->kind = FL_ROPE_LINEAR;
    else if (fl_gguf_has(g, key) && !string_is(g, key, "none"))
        return fl_fail(error, FL_EFORMAT, "this rope scaling (%s) is not supported", key);
    return FL_OK;
}

static enum fl_status read_divisors(struct fl_model *self, struct fl_error *error)
{
    const struct fl_tensor_view *view = fl_gguf_find(self->gguf, "rope_freqs.weight");
    const uint32_t half = self->config.head_dim / 2;
    if (!view)
        return FL_OK;
    if (view->dtype != FL_DTYPE_F32 || view->rank != 1 || view->shape[0] != half)
        return fl_fail(error, FL_EFORMAT, "rope_freqs.weight has the wrong shape or type");
    self->divisors = fl_calloc_aligned(half, sizeof *self->divisors);
    if (!self->divisors)
        return fl_fail_memory(error);
    fl_dtype_widen(FL_DTYPE_F32, view->data, half, self->divisors);
    for (uint32_t i = 0; i < half; i++)
        if (!(self->divisors[i] > 0.0f))
            return fl_fail(error, FL_EFORMAT,
                           "rope_freqs.weight holds a value that is not above 0");
    self->rope.divisors = self->divisors;
    return FL_OK;
}

static int32_t token_id(const struct fl_gguf *gguf, const char *key)
{
    uint64_t value;
    return fl_gguf_u64(gguf, key, &value) || value > FL_VOCAB_MAX ? -1 : (int32_t)value;
}

static enum fl_status read_metadata(struct fl_model *self, const char *path, struct fl_error *error)
{
    struct fl_model_config *c = &self->config;
    if (!string_is(self->gguf, "general.architecture", "llama"))
        return fl_fail(error, FL_EFORMAT,
                       "%s: only GGUF models of architecture llama are "
                       "supported",
                       path);
    (void)snprintf(c->architecture, sizeof c->architecture, "LlamaForCausalLM");
    enum fl_status status = read_sizes(self, error);
    if (!status)
        status = read_rope(self, error);
    const struct fl_tensor_view *embedding = fl_gguf_find(self->gguf, "token_embd.weight");
    if (!status && (!embedding || embedding->rank != 2 || embedding->shape[0] > FL_VOCAB_MAX))
        status = fl_fail(error, FL_EFORMAT, "token_embd.weight is missing or of a wrong shape");
    if (status)
        return status;
    c->vocab = (uint32_t)embedding->shape[0];
    c->tied = !fl_gguf_find(self->gguf, "output.weight");
    c->bos_id = token_id(self->gguf, "tokenizer.ggml.bos_token_id");
    c->eos_id = token_id(self->gguf, "tokenizer.ggml.eos_token_id");
    self->interleaved = true;
    char name[FL_MODULE_NAME_BYTES];
    for (unsigned k = 0; k < FL_LINEAR_COUNT; k++) {
        (void)snprintf(name, sizeof name, "blk.0.%s.bias", BLOCK_NAMES[2 + k][1]);
        self->biases[k] = fl_gguf_find(self->gguf, name) != NULL;
    }
    return fl_model_check_config(self, path, error);
}

/* A mixture of experts or another variant shows as block tensors that nothing here reads. */
static enum fl_status refuse_strangers(const struct fl_model *self, struct fl_error *error)
{
    const uint32_t count = fl_gguf_tensor_count(self->gguf);
    const uint32_t known = fl_gguf_find(self->gguf, "rope_freqs.weight") != NULL;
    if (count == self->weight_count + known)
        return FL_OK;
    return fl_fail(error, FL_EFORMAT,
                   "%u tensors, but a model of this configuration has %u: this variant is not "
                   "supported",
                   count - known, self->weight_count);
}

enum fl_status fl_model_open_gguf(struct fl_model *self, const char *path, struct fl_error *error)
{
    enum fl_status status = fl_gguf_open(path, &self->gguf, error);
    if (status)
        return status;
    status = read_metadata(self, path, error);
    if (!status)
        status = read_divisors(self, error);
    if (!status)
        status = fl_model_collect(self, find_tensor, error);
    if (!status)
        status = refuse_strangers(self, error);
    if (status)
        fl_error_prefix(error, "%s", path);
    return status;
}

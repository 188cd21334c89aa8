/*
 * model_gguf.c - a GGUF file: metadata into the configuration, tensors under their Hugging Face
 * names. Architecture "llama" stores the q and k rows of each head interleaved.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "worker/engine/gguf_names.h"
#include "worker/engine/model_internal.h"

enum { KEY_BYTES = 96 };

static enum fl_status find_tensor(const struct fl_model *self, const char *name,
                                  struct fl_tensor_view *out, struct fl_error *error)
{
    char stored[FL_MODULE_NAME_BYTES];
    const struct fl_tensor_view *view = NULL;
    if (fl_gguf_tensor_name(self->arch, name, stored, sizeof stored))
        view = fl_gguf_find(self->gguf, stored);
    if (!view)
        return fl_fail(error, FL_ENOTFOUND, "the model has no tensor for %s", name);
    *out = *view;
    return FL_OK;
}

/* "llama.block_count": this architecture's own key. */
static const char *own(const struct fl_model *self, const char *key, char text[KEY_BYTES])
{
    (void)snprintf(text, KEY_BYTES, "%s.%s", self->arch->gguf, key);
    return text;
}

static bool has(const struct fl_model *self, const char *key)
{
    char text[KEY_BYTES];
    return fl_gguf_has(self->gguf, own(self, key, text));
}

/* Its value as u32; absent gives fallback, of which 0 means required. */
static enum fl_status read_u32(const struct fl_model *self, const char *key, uint32_t fallback,
                               uint32_t *out, struct fl_error *error)
{
    char text[KEY_BYTES];
    uint64_t value = fallback;
    enum fl_status status = fl_gguf_u64(self->gguf, own(self, key, text), &value);
    if (status == FL_ENOTFOUND && fallback)
        status = FL_OK;
    if (status || value > UINT32_MAX)
        return fl_fail(error, FL_EFORMAT, "metadata %s is missing or no valid number", text);
    *out = (uint32_t)value;
    return FL_OK;
}

static enum fl_status read_double(const struct fl_model *self, const char *key, double fallback,
                                  double *out, struct fl_error *error)
{
    char text[KEY_BYTES];
    *out = fallback;
    enum fl_status status = fl_gguf_f64(self->gguf, own(self, key, text), out);
    if (status && status != FL_ENOTFOUND)
        return fl_fail(error, FL_EFORMAT, "metadata %s is no number", text);
    return FL_OK;
}

static bool string_is(const struct fl_model *self, const char *key, const char *wanted)
{
    char name[KEY_BYTES];
    struct fl_gguf_string text;
    return !fl_gguf_string(self->gguf, own(self, key, name), &text) &&
           text.length == strlen(wanted) && memcmp(text.data, wanted, text.length) == 0;
}

/* head_count_kv may be one number or one a layer; they must be equal here. */
static enum fl_status read_kv_heads(struct fl_model *self, struct fl_error *error)
{
    char key[KEY_BYTES];
    struct fl_model_config *c = &self->config;
    struct fl_gguf_array array;
    if (fl_gguf_array(self->gguf, own(self, "attention.head_count_kv", key), &array))
        return read_u32(self, "attention.head_count_kv", c->heads, &c->kv_heads, error);
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
    enum fl_status status = read_u32(self, "embedding_length", 0, &c->hidden, error);
    if (!status)
        status = read_u32(self, "feed_forward_length", 0, &c->ffn, error);
    if (!status)
        status = read_u32(self, "block_count", 0, &c->layers, error);
    if (!status)
        status = read_u32(self, "attention.head_count", 0, &c->heads, error);
    if (!status)
        status = read_kv_heads(self, error);
    if (!status && c->heads)
        status = read_u32(self, "attention.key_length",
                          c->hidden >= c->heads ? c->hidden / c->heads : 1, &c->head_dim, error);
    if (!status && has(self, "context_length"))
        status = read_u32(self, "context_length", 0, &c->max_positions, error);
    if (!status && has(self, "attention.sliding_window"))
        status = read_u32(self, "attention.sliding_window", 0, &c->sliding_window, error);
    if (!status)
        status = read_double(self,
                             self->arch->layer_norm ? "attention.layer_norm_epsilon"
                                                    : "attention.layer_norm_rms_epsilon",
                             1e-5, &c->norm_epsilon, error);
    return status;
}

/* The pattern of windows, where the file has one: it must be the architecture's. */
static enum fl_status check_pattern(const struct fl_model *self, struct fl_error *error)
{
    static const char KEY[] = "attention.sliding_window_pattern";
    char text[KEY_BYTES];
    struct fl_gguf_array array;
    uint32_t period = 0;
    if (!has(self, KEY))
        return FL_OK;
    if (fl_gguf_array(self->gguf, own(self, KEY, text), &array)) {
        enum fl_status status = read_u32(self, KEY, 0, &period, error);
        if (status || period == self->arch->period)
            return status;
        return fl_fail(error, FL_EFORMAT, "%s = %u is not supported", text, period);
    }
    for (uint32_t l = 0; l < self->config.layers; l++)
        if (!fl_gguf_array_i64(&array, l) != !fl_model_window(self, l))
            return fl_fail(error, FL_EFORMAT, "%s is not supported", text);
    return FL_OK;
}

/* What only the Gemmas have. */
static enum fl_status read_gemma(struct fl_model *self, struct fl_error *error)
{
    const struct fl_arch *arch = self->arch;
    struct fl_model_config *c = &self->config;
    if (!arch->gemma || !c->heads)
        return FL_OK;
    c->query_scalar = fl_model_implied_scalar(self);
    c->sliding_period = arch->period;
    enum fl_status status = read_double(self, "final_logit_softcapping", arch->logit_cap,
                                        &c->logit_cap, error);
    if (!status && arch->score_cap > 0.0)
        status = read_double(self, "attn_logit_softcapping", arch->score_cap, &c->score_cap, error);
    self->near.kind = FL_ROPE_DEFAULT;
    if (!status && arch->near_theta > 0.0)
        status = read_double(self, "rope.freq_base_swa", arch->near_theta, &self->near.theta,
                             error);
    return status ? status : check_pattern(self, error);
}

/* Scaling kinds; llama3's is carried by the tensor rope_freqs.weight instead of metadata. */
static enum fl_status read_rope(struct fl_model *self, struct fl_error *error)
{
    struct fl_rope *rope = &self->rope;
    uint32_t rotated;
    const double theta = self->arch->theta > 0.0 ? self->arch->theta : 10000.0;
    enum fl_status status = read_double(self, "rope.freq_base", theta, &rope->theta, error);
    if (!status)
        status = read_double(self, "rope.scaling.factor", 1.0, &rope->factor, error);
    if (!status && has(self, "rope.scale_linear"))
        status = read_double(self, "rope.scale_linear", 1.0, &rope->factor, error);
    if (!status)
        status = read_u32(self, "rope.dimension_count", self->config.head_dim, &rotated, error);
    if (status)
        return status;
    if (rotated != self->config.head_dim)
        return fl_fail(error, FL_EFORMAT, "partial rotation is not supported");
    const char *key = "rope.scaling.type";
    if (string_is(self, key, "linear") || has(self, "rope.scale_linear"))
        rope->kind = FL_ROPE_LINEAR;
    else if (has(self, key) && !string_is(self, key, "none"))
        return fl_fail(error, FL_EFORMAT, "this rope scaling (%s.%s) is not supported",
                       self->arch->gguf, key);
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

static enum fl_status read_architecture(struct fl_model *self, struct fl_error *error)
{
    struct fl_gguf_string name;
    char known[256];
    if (!fl_gguf_string(self->gguf, "general.architecture", &name))
        self->arch = fl_arch_find_gguf(name.data, name.length);
    if (!self->arch) {
        fl_arch_list(true, known, sizeof known);
        return fl_fail(error, FL_EFORMAT,
                       "only GGUF models of these architectures are supported: %s", known);
    }
    (void)snprintf(self->config.architecture, sizeof self->config.architecture, "%s",
                   self->arch->name);
    return FL_OK;
}

/* Which linears have a bias: the first block shows it. */
static void see_biases(struct fl_model *self)
{
    char name[FL_MODULE_NAME_BYTES];
    for (unsigned k = 0; k < FL_LINEAR_COUNT; k++) {
        const char *part = self->arch->names->linears[k].gguf;
        (void)snprintf(name, sizeof name, "blk.0.%s.bias", part ? part : "");
        self->biases[k] = part && fl_gguf_find(self->gguf, name);
    }
}

static enum fl_status read_metadata(struct fl_model *self, const char *path, struct fl_error *error)
{
    struct fl_model_config *c = &self->config;
    enum fl_status status = read_architecture(self, error);
    if (!status)
        status = read_sizes(self, error);
    if (!status && !self->arch->names->positions.hf)
        status = read_rope(self, error);
    if (!status)
        status = read_gemma(self, error);
    if (status)
        return status;
    const struct fl_tensor_view *embedding = fl_gguf_find(self->gguf, "token_embd.weight");
    if (!embedding || embedding->rank != 2 || embedding->shape[0] > FL_VOCAB_MAX)
        return fl_fail(error, FL_EFORMAT, "token_embd.weight is missing or of a wrong shape");
    c->vocab = (uint32_t)embedding->shape[0];
    c->tied = !fl_gguf_find(self->gguf, "output.weight");
    c->bos_id = token_id(self->gguf, "tokenizer.ggml.bos_token_id");
    c->eos_id = token_id(self->gguf, "tokenizer.ggml.eos_token_id");
    self->interleaved = self->arch->interleaved;
    see_biases(self);
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

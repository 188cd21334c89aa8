/* describe.c - see describe.h. */
#include "worker/engine/describe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "worker/engine/model_internal.h"

uint32_t fl_gguf_file_type(enum fl_dtype dtype)
{
    return dtype == FL_DTYPE_F32 ? 0 : dtype == FL_DTYPE_F16 ? 1 : 32;
}

const char *fl_torch_name(enum fl_dtype dtype)
{
    return dtype == FL_DTYPE_F32 ? "float32" : dtype == FL_DTYPE_F16 ? "float16" : "bfloat16";
}

/* The row of the table whose class config.json names: GGUF calls Mistral a llama. */
static const struct fl_arch *class_of(const struct fl_model *model)
{
    const struct fl_arch *arch = model->arch;
    if (model->config.sliding_window && arch->windows == FL_WINDOW_NEVER)
        arch = fl_arch_find("MistralForCausalLM", NULL);
    return arch;
}

/*
 * Which linears have a bias, as the class's config.json can say it: attention_bias and mlp_bias
 * (some classes have neither), or nothing where the class decides.
 */
static enum fl_status check_biases(const struct fl_model *model, const struct fl_arch *arch,
                                   bool *attention, bool *mlp, struct fl_error *error)
{
    const bool llama = strcmp(arch->model_type, "llama") == 0;
    const bool configured = arch->biases == FL_BIAS_CONFIGURED;
    bool known = true;
    *attention = configured && model->biases[FL_LINEAR_Q];
    *mlp = configured && model->biases[FL_LINEAR_DOWN];
    for (uint32_t i = 0; i < model->kind_count; i++) {
        const enum fl_linear_kind kind = model->kinds[i];
        const bool want = arch->biases == FL_BIAS_ALL   ? true
                          : arch->biases == FL_BIAS_QKV ? kind <= FL_LINEAR_V
                          : kind <= FL_LINEAR_O         ? *attention
                                                        : *mlp;
        known = known && model->biases[kind] == want;
    }
    if ((*mlp && !llama) || (*attention && !llama && strcmp(arch->model_type, "qwen3") != 0))
        known = false;
    return known ? FL_OK
                 : fl_fail(error, FL_EUSAGE,
                           "the biases of this model can't be described in config.json of %s; "
                           "write a .gguf",
                           arch->name);
}

static bool close_to(const float *a, const float *b, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (fabsf(a[i] - b[i]) > 1e-4f * fabsf(b[i]))
            return false;
    return true;
}

/*
 * GGUF spells llama3's scaling out as divisors. Its numbers are found again by trying lengths that
 * are powers of two; the factor is the largest divisor. false: no such scaling.
 */
static bool find_llama3(const struct fl_model *model, struct fl_rope *found)
{
    enum { HALF_MAX = 512, LENGTH_MIN = 16, LENGTH_MAX = 1 << 20 };
    const uint32_t d = model->config.head_dim, half = d / 2;
    float want[HALF_MAX], got[HALF_MAX];
    if (half > HALF_MAX || model->rope.kind != FL_ROPE_DEFAULT)
        return false;
    fl_rope_frequencies(&model->rope, d, want);
    *found = model->rope;
    found->divisors = NULL;
    fl_rope_frequencies(found, d, got);
    if (close_to(got, want, half)) /* divisors that are all 1 */
        return true;
    found->kind = FL_ROPE_LLAMA3;
    found->low = 1.0;
    found->high = 4.0;
    found->factor = 1.0;
    for (uint32_t i = 0; i < half; i++)
        found->factor = fmax(found->factor, (double)model->rope.divisors[i]);
    found->factor = round(found->factor * 1e4) / 1e4;
    for (uint32_t length = LENGTH_MIN; length <= LENGTH_MAX; length *= 2) {
        found->original_positions = length;
        fl_rope_frequencies(found, d, got);
        if (close_to(got, want, half))
            return true;
    }
    return false;
}

/* "rope_scaling", a new reference; JSON null for none. */
static enum fl_status scaling_of(const struct fl_model *model, json_t **out, struct fl_error *error)
{
    struct fl_rope rope = model->rope;
    if (rope.divisors && !find_llama3(model, &rope))
        return fl_fail(error, FL_EUSAGE,
                       "its rope_freqs can't be described in config.json; write a .gguf");
    if (rope.kind == FL_ROPE_LINEAR)
        *out = json_pack("{s:s, s:f}", "rope_type", "linear", "factor", rope.factor);
    else if (rope.kind == FL_ROPE_LLAMA3)
        *out = json_pack("{s:s, s:f, s:f, s:f, s:I}", "rope_type", "llama3", "factor", rope.factor,
                         "low_freq_factor", rope.low, "high_freq_factor", rope.high,
                         "original_max_position_embeddings", (json_int_t)rope.original_positions);
    else if (rope.kind == FL_ROPE_YARN)
        *out = json_pack("{s:s, s:f, s:f, s:f, s:f, s:I}", "rope_type", "yarn", "factor",
                         rope.factor, "beta_fast", rope.fast, "beta_slow", rope.slow,
                         "attention_factor", rope.attention, "original_max_position_embeddings",
                         (json_int_t)rope.original_positions);
    else
        *out = json_null();
    return *out ? FL_OK : fl_fail_memory(error);
}

/* GGUF keeps the epsilon as float32: the decimal number that was meant. */
static double decimal(double value)
{
    char text[40];
    (void)snprintf(text, sizeof text, "%.6g", value);
    return strtod(text, NULL);
}

static json_t *id_or_null(int32_t id)
{
    return id < 0 ? json_null() : json_integer(id);
}

/* The members that every class has. */
static json_t *common_of(const struct fl_model *model, const struct fl_arch *arch,
                         enum fl_dtype dtype)
{
    const struct fl_model_config *c = &model->config;
    /* some classes have a padding token of their own, beyond a small vocabulary */
    return json_pack("{s:[s], s:s, s:I, s:b, s:o, s:o, s:n, s:s, s:b, s:f}", "architectures",
                     arch->name, "model_type", arch->model_type, "vocab_size", (json_int_t)c->vocab,
                     "tie_word_embeddings", (int)c->tied, "bos_token_id", id_or_null(c->bos_id),
                     "eos_token_id", id_or_null(c->eos_id), "pad_token_id", "torch_dtype",
                     fl_torch_name(dtype), "use_cache", 1, "initializer_range", 0.02);
}

static json_t *learned_of(const struct fl_model *model)
{
    const struct fl_model_config *c = &model->config;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:s, s:f}", "n_embd", (json_int_t)c->hidden,
                     "n_inner", (json_int_t)c->ffn, "n_layer", (json_int_t)c->layers, "n_head",
                     (json_int_t)c->heads, "n_positions", (json_int_t)c->max_positions,
                     "activation_function", "gelu_new", "layer_norm_epsilon",
                     decimal(c->norm_epsilon));
}

static json_t *types_of(const struct fl_model *model)
{
    json_t *types = json_array();
    for (uint32_t l = 0; types && l < model->config.layers; l++) {
        const char *type = fl_model_window(model, l) ? "sliding_attention" : "full_attention";
        if (json_array_append_new(types, json_string(type)) != 0) {
            json_decref(types);
            return NULL;
        }
    }
    return types;
}

static json_t *cap_or_null(double cap)
{
    return cap > 0.0 ? json_real(decimal(cap)) : json_null();
}

/* What only the Gemmas have; empty for others. */
static json_t *gemma_of(const struct fl_model *model, const struct fl_arch *arch)
{
    const struct fl_model_config *c = &model->config;
    if (!arch->gemma)
        return json_object();
    const double scalar = decimal(c->query_scalar); /* transformers wants it whole */
    json_t *whole = scalar == floor(scalar) ? json_integer((json_int_t)scalar) : json_real(scalar);
    json_t *out = json_pack("{s:s, s:o, s:o, s:o}", "hidden_activation", "gelu_pytorch_tanh",
                            "query_pre_attn_scalar", whole, "attn_logit_softcapping",
                            cap_or_null(c->score_cap), "final_logit_softcapping",
                            cap_or_null(c->logit_cap));
    if (out && arch->near_theta > 0.0 &&
        json_object_set_new(out, "rope_local_base_freq", json_real(decimal(model->near.theta)))) {
        json_decref(out);
        out = NULL;
    }
    return out;
}

/* What says the window: null where there is none, in classes that would have one. */
static json_t *window_of(const struct fl_model *model, const struct fl_arch *arch)
{
    const struct fl_model_config *c = &model->config;
    if (arch->windows == FL_WINDOW_NEVER)
        return json_object();
    json_t *window = c->sliding_window ? json_integer(c->sliding_window) : json_null();
    if (arch->windows == FL_WINDOW_EVERYWHERE)
        return json_pack("{s:o}", "sliding_window", window);
    if (arch->windows == FL_WINDOW_PERIODIC)
        return json_pack("{s:o, s:o}", "sliding_window", window, "layer_types", types_of(model));
    return json_pack("{s:o, s:b, s:I}", "sliding_window", window, "use_sliding_window",
                     c->sliding_window != 0, "max_window_layers", (json_int_t)c->sliding_from);
}

static enum fl_status rotary_of(const struct fl_model *model, const struct fl_arch *arch,
                                json_t **out, struct fl_error *error)
{
    const struct fl_model_config *c = &model->config;
    bool attention = false, mlp = false;
    json_t *scaling = NULL;
    enum fl_status status = check_biases(model, arch, &attention, &mlp, error);
    if (status == FL_OK)
        status = scaling_of(model, &scaling, error);
    if (status != FL_OK)
        return status;
    *out = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:f, s:f, s:o, s:b, s:b}", "hidden_size",
        (json_int_t)c->hidden, "intermediate_size", (json_int_t)c->ffn, "num_hidden_layers",
        (json_int_t)c->layers, "num_attention_heads", (json_int_t)c->heads, "num_key_value_heads",
        (json_int_t)c->kv_heads, "head_dim", (json_int_t)c->head_dim, "max_position_embeddings",
        (json_int_t)(c->max_positions ? c->max_positions : 2048), "hidden_act",
        arch->gemma ? "gelu_pytorch_tanh" : "silu", "rms_norm_eps", decimal(c->norm_epsilon),
        "rope_theta", decimal(model->rope.theta), "rope_scaling", scaling, "attention_bias",
        (int)attention, "mlp_bias", (int)mlp);
    json_t *window = window_of(model, arch), *gemma = gemma_of(model, arch);
    const bool failed = !*out || !window || !gemma || json_object_update(*out, window) != 0 ||
                        json_object_update(*out, gemma) != 0;
    json_decref(window);
    json_decref(gemma);
    return failed ? fl_fail_memory(error) : FL_OK;
}

enum fl_status fl_describe_hf(const struct fl_model *model, enum fl_dtype dtype, json_t **out,
                              struct fl_error *error)
{
    const struct fl_arch *arch = class_of(model);
    json_t *own = NULL;
    enum fl_status status = FL_OK;
    *out = NULL;
    if (arch->names->positions.hf)
        own = learned_of(model);
    else
        status = rotary_of(model, arch, &own, error);
    json_t *all = status == FL_OK ? common_of(model, arch, dtype) : NULL;
    if (status == FL_OK && (!own || !all || json_object_update(all, own) != 0))
        status = fl_fail_memory(error);
    json_decref(own);
    if (status != FL_OK) {
        json_decref(all);
        return status;
    }
    *out = all;
    return FL_OK;
}

/* ---- GGUF ---- */

static const char *key(const char *architecture, const char *end, char out[64])
{
    (void)snprintf(out, 64, "%s.%s", architecture, end);
    return out;
}

/* A window from some layer upwards, and yarn, have no keys that are read everywhere. */
static enum fl_status check_gguf(const struct fl_model *model, struct fl_error *error)
{
    const struct fl_model_config *c = &model->config;
    const char *what = NULL;
    if (!model->positions && model->rope.kind == FL_ROPE_YARN)
        what = "rope scaling of type yarn";
    else if (c->sliding_window && c->sliding_from > 0)
        what = "a sliding window in some of its layers";
    else if (model->arch->gemma && c->query_scalar != fl_model_implied_scalar(model))
        what = "a query_pre_attn_scalar that is not the usual one of its size";
    else if (model->arch->gemma && c->sliding_period != model->arch->period)
        what = "windows in other layers than is usual";
    else if ((model->arch->score_cap > 0.0 && !(c->score_cap > 0.0)) ||
             (model->arch->logit_cap > 0.0 && !(c->logit_cap > 0.0)))
        what = "a soft cap switched off";
    else if (model->near.kind != FL_ROPE_DEFAULT)
        what = "a scaled rotation in layers with a window";
    return what ? fl_fail(error, FL_EUSAGE,
                          "this model has %s, which is not written to GGUF files; merge it into a "
                          "directory instead",
                          what)
                : FL_OK;
}

static void put_rope(const struct fl_model *model, const char *a, struct fl_gguf_writer *writer)
{
    char text[64];
    fl_gguf_put_f32(writer, key(a, "rope.freq_base", text), (float)model->rope.theta);
    if (model->rope.kind == FL_ROPE_LINEAR) {
        fl_gguf_put_string(writer, key(a, "rope.scaling.type", text), "linear");
        fl_gguf_put_f32(writer, key(a, "rope.scaling.factor", text), (float)model->rope.factor);
    }
}

static void put_gemma(const struct fl_model *model, const char *a, struct fl_gguf_writer *writer)
{
    const struct fl_model_config *c = &model->config;
    char text[64];
    if (c->score_cap > 0.0)
        fl_gguf_put_f32(writer, key(a, "attn_logit_softcapping", text), (float)c->score_cap);
    if (c->logit_cap > 0.0)
        fl_gguf_put_f32(writer, key(a, "final_logit_softcapping", text), (float)c->logit_cap);
    if (model->arch->near_theta > 0.0)
        fl_gguf_put_f32(writer, key(a, "rope.freq_base_swa", text), (float)model->near.theta);
}

enum fl_status fl_describe_gguf(const struct fl_model *model, enum fl_dtype dtype, const char *name,
                                struct fl_gguf_writer *writer, struct fl_error *error)
{
    const struct fl_model_config *c = &model->config;
    const char *a = model->arch->gguf;
    const uint32_t rotated = model->positions ? 0 : c->head_dim;
    char text[64];
    enum fl_status status = check_gguf(model, error);
    if (status)
        return status;
    const struct {
        const char *end;
        uint32_t value;
    } numbers[] = {{"block_count", c->layers},
                   {"context_length", c->max_positions},
                   {"embedding_length", c->hidden},
                   {"feed_forward_length", c->ffn},
                   {"attention.head_count", c->heads},
                   {"attention.head_count_kv", c->kv_heads},
                   {"attention.key_length", c->head_dim},
                   {"attention.value_length", c->head_dim},
                   {"attention.sliding_window", c->sliding_window},
                   {"rope.dimension_count", rotated},
                   {"vocab_size", c->vocab}};
    fl_gguf_put_string(writer, "general.architecture", a);
    fl_gguf_put_string(writer, "general.type", "model");
    fl_gguf_put_string(writer, "general.name", name);
    fl_gguf_put_u32(writer, "general.file_type", fl_gguf_file_type(dtype));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].value)
            fl_gguf_put_u32(writer, key(a, numbers[i].end, text), numbers[i].value);
    fl_gguf_put_f32(writer,
                    key(a,
                        model->arch->layer_norm ? "attention.layer_norm_epsilon"
                                                : "attention.layer_norm_rms_epsilon",
                        text),
                    (float)c->norm_epsilon);
    if (rotated)
        put_rope(model, a, writer);
    if (model->arch->gemma)
        put_gemma(model, a, writer);
    return FL_OK;
}

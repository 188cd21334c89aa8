/* describe.c - see describe.h. */
#include "worker/engine/describe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "worker/engine/gguf_names.h"
#include "worker/engine/model_internal.h"

uint32_t fl_gguf_file_type(enum fl_dtype dtype)
{
    return dtype == FL_DTYPE_F32 ? 0 : dtype == FL_DTYPE_F16 ? 1 : 32;
}

const char *fl_torch_name(enum fl_dtype dtype)
{
    return dtype == FL_DTYPE_F32 ? "float32" : dtype == FL_DTYPE_F16 ? "float16" : "bfloat16";
}

static bool has_weight(const struct fl_model *model, const char *name)
{
    for (uint32_t i = 0; i < model->weight_count; i++)
        if (strcmp(model->weights[i].name, name) == 0)
            return true;
    return false;
}

static bool has_bias(const struct fl_model *model, const char *linear)
{
    char name[FL_MODULE_NAME_BYTES];
    (void)snprintf(name, sizeof name, "model.layers.0.%s.bias", linear);
    return has_weight(model, name);
}

/* The name in config.json's "architectures", and its "model_type". */
static enum fl_status class_of(const struct fl_model *model, const char **name, const char **type,
                               struct fl_error *error)
{
    static const char *const known[][2] = {{"LlamaForCausalLM", "llama"},
                                           {"MistralForCausalLM", "mistral"},
                                           {"Qwen2ForCausalLM", "qwen2"},
                                           {"Qwen3ForCausalLM", "qwen3"}};
    const struct fl_model_config *c = &model->config;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(c->architecture, known[i][0]) != 0)
            continue;
        if (c->sliding_window && i > 1)
            return fl_fail(
                error, FL_EUSAGE,
                "a sliding window of %s can't be described in config.json; write a .gguf",
                c->architecture);
        if (c->sliding_window) /* GGUF calls Mistral a llama */
            i = 1;
        *name = known[i][0];
        *type = known[i][1];
        return FL_OK;
    }
    return fl_fail(error, FL_EUSAGE, "%s can't be described in config.json; write a .gguf",
                   c->architecture);
}

/* Every linear of attention has a bias or none (Qwen2's q, k, v need no word). */
static enum fl_status check_biases(const struct fl_model *model, const char *type, bool *attention,
                                   bool *mlp, struct fl_error *error)
{
    *attention = has_bias(model, "self_attn.q_proj");
    *mlp = has_bias(model, "mlp.down_proj");
    const bool known = strcmp(type, "qwen2") == 0
                           ? *attention && !has_bias(model, "self_attn.o_proj") && !*mlp
                           : *attention == has_bias(model, "self_attn.o_proj") &&
                                 (strcmp(type, "llama") == 0 || !*mlp) &&
                                 (strcmp(type, "mistral") != 0 || !*attention);
    if (strcmp(type, "qwen2") == 0)
        *attention = false;
    if (!known)
        return fl_fail(error, FL_EUSAGE,
                       "the biases of this model can't be described in config.json; write a .gguf");
    return FL_OK;
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

enum fl_status fl_describe_hf(const struct fl_model *model, enum fl_dtype dtype, json_t **out,
                              struct fl_error *error)
{
    const struct fl_model_config *c = &model->config;
    const char *name = NULL, *type = NULL;
    bool attention = false, mlp = false;
    json_t *scaling = NULL;
    *out = NULL;
    enum fl_status status = class_of(model, &name, &type, error);
    if (status == FL_OK)
        status = check_biases(model, type, &attention, &mlp, error);
    if (status == FL_OK)
        status = scaling_of(model, &scaling, error);
    if (status != FL_OK)
        return status;
    *out = json_pack(
        "{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:f, s:f, s:o, s:b, s:b, s:b,"
        " s:o, s:o, s:s, s:b, s:f}",
        "architectures", name, "model_type", type, "hidden_size", (json_int_t)c->hidden,
        "intermediate_size", (json_int_t)c->ffn, "num_hidden_layers", (json_int_t)c->layers,
        "num_attention_heads", (json_int_t)c->heads, "num_key_value_heads", (json_int_t)c->kv_heads,
        "head_dim", (json_int_t)c->head_dim, "vocab_size", (json_int_t)c->vocab,
        "max_position_embeddings", (json_int_t)(c->max_positions ? c->max_positions : 2048),
        "hidden_act", "silu", "rms_norm_eps", decimal(c->norm_epsilon), "rope_theta",
        decimal(model->rope.theta), "rope_scaling", scaling, "tie_word_embeddings", (int)c->tied,
        "attention_bias", (int)attention, "mlp_bias", (int)mlp, "bos_token_id",
        id_or_null(c->bos_id), "eos_token_id", id_or_null(c->eos_id), "torch_dtype",
        fl_torch_name(dtype), "use_cache", 1, "initializer_range", 0.02);
    const int failed = !*out ||
                       (strcmp(type, "mistral") == 0 &&
                        json_object_set_new(*out, "sliding_window",
                                            c->sliding_window ? json_integer(c->sliding_window)
                                                              : json_null()) != 0);
    if (failed) {
        json_decref(*out);
        *out = NULL;
        return fl_fail_memory(error);
    }
    return FL_OK;
}

/* ---- GGUF ---- */

static const char *key(const char *architecture, const char *end, char out[64])
{
    (void)snprintf(out, 64, "%s.%s", architecture, end);
    return out;
}

enum fl_status fl_describe_gguf(const struct fl_model *model, enum fl_dtype dtype, const char *name,
                                struct fl_gguf_writer *writer, struct fl_error *error)
{
    const struct fl_model_config *c = &model->config;
    const char *a = fl_gguf_architecture(c->architecture);
    char text[64];
    if (!a)
        return fl_fail(error, FL_EUSAGE, "%s has no form in GGUF files here", c->architecture);
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
                   {"rope.dimension_count", c->head_dim},
                   {"vocab_size", c->vocab}};
    fl_gguf_put_string(writer, "general.architecture", a);
    fl_gguf_put_string(writer, "general.type", "model");
    fl_gguf_put_string(writer, "general.name", name);
    fl_gguf_put_u32(writer, "general.file_type", fl_gguf_file_type(dtype));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].value)
            fl_gguf_put_u32(writer, key(a, numbers[i].end, text), numbers[i].value);
    fl_gguf_put_f32(writer, key(a, "attention.layer_norm_rms_epsilon", text),
                    (float)c->norm_epsilon);
    fl_gguf_put_f32(writer, key(a, "rope.freq_base", text), (float)model->rope.theta);
    if (model->rope.kind == FL_ROPE_LINEAR) {
        fl_gguf_put_string(writer, key(a, "rope.scaling.type", text), "linear");
        fl_gguf_put_f32(writer, key(a, "rope.scaling.factor", text), (float)model->rope.factor);
    }
    return FL_OK;
}

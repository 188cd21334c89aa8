/*
 * hfconfig.c - config.json of a Hugging Face directory, in both dialects: rope_theta with
 * rope_scaling (through transformers 4) and rope_parameters (transformers 5).
 */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "worker/engine/model_internal.h"

enum { CONFIG_BYTES_MAX = 1 << 20 };

/* Members that would change the numbers and that are not built: refused unless absent or this.
 * The Gemmas are not looked at for hidden_act, others not for what the Gemmas call it. */
static const struct {
    const char *key, *only;
    bool gemma;
} FIXED[] = {{"hidden_act", "silu", false},
             {"activation_function", "gelu_new", false},
             {"hidden_activation", "gelu_pytorch_tanh", true}};

static enum fl_status bad(struct fl_error *error, const char *path, const char *key)
{
    return fl_fail(error, FL_EFORMAT, "%s: %s is not what it must be", path, key);
}

static enum fl_status refuse_unbuilt(const struct fl_model *self, const json_t *root,
                                     const char *path, struct fl_error *error)
{
    for (size_t i = 0; i < sizeof FIXED / sizeof *FIXED; i++) {
        const json_t *value = json_object_get(root, FIXED[i].key);
        if (!value || json_is_null(value) || FIXED[i].gemma != self->arch->gemma)
            continue;
        const char *text = json_string_value(value);
        if (!FIXED[i].only || !text || strcmp(text, FIXED[i].only) != 0)
            return fl_fail(error, FL_EFORMAT, "%s: %s = %s is not supported", path, FIXED[i].key,
                           text ? text : "(an object)");
    }
    return FL_OK;
}

/* Weights in bitsandbytes' four bits are known; which weights, and how, their tensors say. */
static enum fl_status refuse_quantization(const json_t *root, const char *path,
                                          struct fl_error *error)
{
    const json_t *value = json_object_get(root, "quantization_config");
    const char *method = json_string_value(json_object_get(value, "quant_method"));
    const char *type = json_string_value(json_object_get(value, "bnb_4bit_quant_type"));
    if (!value || json_is_null(value) ||
        ((!method || strcmp(method, "bitsandbytes") == 0) && type && strcmp(type, "nf4") == 0 &&
         json_is_true(json_object_get(value, "load_in_4bit"))))
        return FL_OK;
    return fl_fail(error, FL_EFORMAT,
                   "%s: quantization_config: %.40s is not supported (bitsandbytes NF4 is)", path,
                   method ? method : "this");
}

static enum fl_status read_architecture(struct fl_model *self, const json_t *root, const char *path,
                                        struct fl_error *error)
{
    const char *name = json_string_value(json_array_get(json_object_get(root, "architectures"), 0));
    const char *type = json_string_value(json_object_get(root, "model_type"));
    char known[256];
    self->arch = fl_arch_find(name, type);
    if (self->arch) {
        (void)snprintf(self->config.architecture, sizeof self->config.architecture, "%s",
                       self->arch->name);
        return FL_OK;
    }
    fl_arch_list(false, known, sizeof known);
    const char *what = name ? name : type ? type : "(none)";
    return fl_fail(error, FL_EFORMAT, "%s: architecture %s is not supported; those that are: %s",
                   path, what, known);
}

struct size_field {
    const char *key;
    uint32_t fallback, *out;
};

static enum fl_status read_fields(const struct size_field *fields, size_t count, const json_t *root,
                                  const char *path, struct fl_error *error)
{
    for (size_t i = 0; i < count; i++)
        if (fl_json_u32(root, fields[i].key, fields[i].fallback, fields[i].out))
            return bad(error, path, fields[i].key);
    return FL_OK;
}

/* GPT-2 has names of its own for everything, and three switches that would change the numbers. */
static enum fl_status read_gpt2(struct fl_model *self, const json_t *root, const char *path,
                                struct fl_error *error)
{
    static const struct {
        const char *key;
        bool only;
    } switches[] = {{"scale_attn_weights", true},
                    {"scale_attn_by_inverse_layer_idx", false},
                    {"add_cross_attention", false}};
    struct fl_model_config *c = &self->config;
    const struct size_field fields[] = {
        {"n_embd", 0, &c->hidden},    {"n_inner", 0, &c->ffn},
        {"n_layer", 0, &c->layers},   {"n_head", 0, &c->heads},
        {"vocab_size", 0, &c->vocab}, {"n_positions", 1024, &c->max_positions}};
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
        bool value;
        if (fl_json_bool(root, switches[i].key, switches[i].only, &value) ||
            value != switches[i].only)
            return fl_fail(error, FL_EFORMAT, "%s: %s = %s is not supported", path, switches[i].key,
                           switches[i].only ? "false" : "true");
    }
    enum fl_status status = read_fields(fields, sizeof fields / sizeof *fields, root, path, error);
    if (status)
        return status;
    c->kv_heads = c->heads;
    c->head_dim = c->heads && c->hidden % c->heads == 0 ? c->hidden / c->heads : 0;
    if (!c->ffn && c->hidden <= FL_DIM_MAX)
        c->ffn = 4 * c->hidden;
    if (fl_json_double(root, "layer_norm_epsilon", 1e-5, &c->norm_epsilon))
        return bad(error, path, "layer_norm_epsilon");
    return FL_OK;
}

static enum fl_status read_sizes(struct fl_model *self, const json_t *root, const char *path,
                                 struct fl_error *error)
{
    struct fl_model_config *c = &self->config;
    const struct size_field fields[] = {{"hidden_size", 0, &c->hidden},
                                        {"intermediate_size", 0, &c->ffn},
                                        {"num_hidden_layers", 0, &c->layers},
                                        {"num_attention_heads", 0, &c->heads},
                                        {"num_key_value_heads", 0, &c->kv_heads},
                                        {"head_dim", self->arch->head_dim, &c->head_dim},
                                        {"vocab_size", 0, &c->vocab},
                                        {"max_position_embeddings", 0, &c->max_positions}};
    enum fl_status status = read_fields(fields, sizeof fields / sizeof *fields, root, path, error);
    if (status)
        return status;
    if (!c->kv_heads)
        c->kv_heads = c->heads;
    if (!c->head_dim && c->heads && c->hidden % c->heads == 0)
        c->head_dim = c->hidden / c->heads;
    if (fl_json_double(root, "rms_norm_eps", 1e-6, &c->norm_epsilon))
        return bad(error, path, "rms_norm_eps");
    return FL_OK;
}

/* A soft cap: absent takes its default, null switches it off. */
static enum fl_status read_cap(const json_t *root, const char *key, double fallback, double *out,
                               const char *path, struct fl_error *error)
{
    const json_t *value = json_object_get(root, key);
    *out = value ? 0.0 : fallback;
    if (fl_json_double(root, key, *out, out) || (json_is_number(value) && !(*out > 0.0)))
        return bad(error, path, key);
    return FL_OK;
}

/* What only the Gemmas have. */
static enum fl_status read_gemma(struct fl_model *self, const json_t *root, const char *path,
                                 struct fl_error *error)
{
    enum { SCALAR_DEFAULT = 256 };
    struct fl_model_config *c = &self->config;
    const struct fl_arch *arch = self->arch;
    bool both = false;
    if (!arch->gemma)
        return FL_OK;
    if (fl_json_bool(root, "use_bidirectional_attention", false, &both) || both)
        return fl_fail(error, FL_EFORMAT, "%s: use_bidirectional_attention is not supported", path);
    if (fl_json_double(root, "query_pre_attn_scalar", SCALAR_DEFAULT, &c->query_scalar))
        return bad(error, path, "query_pre_attn_scalar");
    enum fl_status status = read_cap(root, "final_logit_softcapping", arch->logit_cap,
                                     &c->logit_cap, path, error);
    if (!status && arch->score_cap > 0.0)
        status = read_cap(root, "attn_logit_softcapping", arch->score_cap, &c->score_cap, path,
                          error);
    return status;
}

/* sliding_window: absent takes its default where windows are on, null switches them off. */
static enum fl_status read_window(struct fl_model *self, const json_t *root, const char *path,
                                  struct fl_error *error)
{
    enum { UPPER_DEFAULT = 28 };
    struct fl_model_config *c = &self->config;
    bool on = self->arch->windows != FL_WINDOW_NEVER;
    c->sliding_from = 0;
    if (self->arch->windows == FL_WINDOW_UPPER) {
        if (fl_json_bool(root, "use_sliding_window", false, &on))
            return bad(error, path, "use_sliding_window");
        if (fl_json_u32(root, "max_window_layers", UPPER_DEFAULT, &c->sliding_from))
            return bad(error, path, "max_window_layers");
    }
    const uint32_t fallback = json_object_get(root, "sliding_window") ? 0 : self->arch->window;
    if (on && fl_json_u32(root, "sliding_window", fallback, &c->sliding_window))
        return bad(error, path, "sliding_window");
    if (self->arch->windows == FL_WINDOW_PERIODIC &&
        fl_json_u32(root, "sliding_window_pattern", self->arch->period, &c->sliding_period))
        return bad(error, path, "sliding_window_pattern");
    return FL_OK;
}

/* Is layer l, among layer_types, one with a window? */
static bool slides(const json_t *types, size_t l)
{
    const char *type = json_string_value(json_array_get(types, l));
    return type && strcmp(type, "sliding_attention") == 0;
}

/* The period of the full layers among the sliding ones; 0: there is none in all of them. */
static enum fl_status read_period(struct fl_model *self, const json_t *types, const char *path,
                                  struct fl_error *error)
{
    struct fl_model_config *c = &self->config;
    uint32_t period = 0;
    while (period < c->layers && slides(types, period))
        period++;
    c->sliding_period = period < c->layers ? period + 1 : 0;
    for (uint32_t l = 0; l < c->layers; l++)
        if (slides(types, l) != (!c->sliding_period || (l + 1) % c->sliding_period != 0))
            return fl_fail(error, FL_EFORMAT,
                           "%s: layer_types whose full layers do not recur are not supported",
                           path);
    return FL_OK;
}

/* layer_types, as transformers 5 writes them: full layers first, sliding ones above, or periodic.
 */
static enum fl_status read_layer_types(struct fl_model *self, const json_t *root, const char *path,
                                       struct fl_error *error)
{
    struct fl_model_config *c = &self->config;
    const json_t *types = json_object_get(root, "layer_types");
    const char *key = "layer_types";
    if (!types || json_is_null(types))
        return FL_OK;
    if (!json_is_array(types) || json_array_size(types) != c->layers)
        return bad(error, path, key);
    const bool periodic = self->arch->windows == FL_WINDOW_PERIODIC;
    uint32_t from = c->layers;
    for (uint32_t l = 0; l < c->layers; l++) {
        const char *type = json_string_value(json_array_get(types, l));
        const bool sliding = slides(types, l);
        if (!sliding && (!type || strcmp(type, "full_attention") != 0))
            return fl_fail(error, FL_EFORMAT, "%s: layer_types of kind %s are not supported", path,
                           type ? type : "(no text)");
        if (!sliding && from < l && !periodic)
            return fl_fail(
                error, FL_EFORMAT,
                "%s: layer_types with a full layer above a sliding one are not supported", path);
        from = sliding && from > l ? l : from;
    }
    if (periodic)
        return read_period(self, types, path, error);
    if (self->arch->windows == FL_WINDOW_UPPER)
        c->sliding_from = from;
    const uint32_t stated = c->sliding_window ? c->sliding_from : c->layers;
    return stated == from
               ? FL_OK
               : fl_fail(error, FL_EFORMAT, "%s: layer_types and sliding_window differ", path);
}

/* An id, or the first of a list of ids; -1 when absent. */
static enum fl_status read_id(const json_t *root, const char *key, int32_t *out)
{
    const json_t *value = json_object_get(root, key);
    *out = -1;
    if (json_is_array(value))
        value = json_array_get(value, 0);
    if (!value || json_is_null(value))
        return FL_OK;
    if (!json_is_integer(value) || json_integer_value(value) < -1 ||
        json_integer_value(value) > FL_VOCAB_MAX)
        return FL_EFORMAT;
    *out = (int32_t)json_integer_value(value);
    return FL_OK;
}

static enum fl_status read_flags(struct fl_model *self, const json_t *root, const char *path,
                                 struct fl_error *error)
{
    bool attention = false, mlp = false;
    const bool tied = self->arch->biases == FL_BIAS_ALL || self->arch->gemma;
    if (fl_json_bool(root, "tie_word_embeddings", tied, &self->config.tied))
        return bad(error, path, "tie_word_embeddings");
    if (fl_json_bool(root, "attention_bias", false, &attention))
        return bad(error, path, "attention_bias");
    if (fl_json_bool(root, "mlp_bias", false, &mlp))
        return bad(error, path, "mlp_bias");
    for (enum fl_linear_kind k = 0; k < FL_LINEAR_COUNT; k++)
        self->biases[k] = self->arch->biases == FL_BIAS_ALL   ? true
                          : self->arch->biases == FL_BIAS_QKV ? k <= FL_LINEAR_V
                          : k <= FL_LINEAR_O                  ? attention
                                                              : mlp;
    if (read_id(root, "bos_token_id", &self->config.bos_id))
        return bad(error, path, "bos_token_id");
    if (read_id(root, "eos_token_id", &self->config.eos_id))
        return bad(error, path, "eos_token_id");
    return FL_OK;
}

static enum fl_status rope_kind(const char *text, enum fl_rope_kind *out)
{
    static const char *const NAMES[] = {"default", "linear", "llama3", "yarn"};
    for (unsigned i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        if (strcmp(text, NAMES[i]) == 0) {
            *out = (enum fl_rope_kind)i;
            return FL_OK;
        }
    }
    return FL_ENOTFOUND;
}

/* What only yarn has. Two of its variants are not built. */
static enum fl_status read_yarn(double positions, const json_t *scaling, struct fl_rope *rope,
                                const char *path, struct fl_error *error)
{
    bool truncate = true;
    if (json_object_get(scaling, "mscale") || json_object_get(scaling, "mscale_all_dim") ||
        fl_json_bool(scaling, "truncate", true, &truncate) || !truncate)
        return fl_fail(error, FL_EFORMAT,
                       "%s: yarn with mscale, mscale_all_dim or truncate is not supported", path);
    if (fl_json_double(scaling, "beta_fast", 32.0, &rope->fast) ||
        fl_json_double(scaling, "beta_slow", 1.0, &rope->slow) ||
        fl_json_double(scaling, "original_max_position_embeddings", positions,
                       &rope->original_positions) ||
        fl_json_double(scaling, "attention_factor", fl_rope_yarn_attention(rope->factor),
                       &rope->attention))
        return bad(error, path, "rope scaling");
    return FL_OK;
}

/* One rotation; scaling may be NULL. theta and partial where it says nothing of them. */
static enum fl_status read_rotation(double positions, const json_t *scaling, double theta,
                                    double partial, struct fl_rope *rope, const char *path,
                                    struct fl_error *error)
{
    const char *type = NULL;
    if (fl_json_string(scaling, "rope_type", NULL, &type) ||
        (!type && fl_json_string(scaling, "type", "default", &type)))
        return bad(error, path, "rope_type");
    if (rope_kind(type, &rope->kind))
        return fl_fail(error, FL_EFORMAT, "%s: rope type %s is not supported", path, type);
    if (fl_json_double(scaling, "rope_theta", theta, &rope->theta) ||
        fl_json_double(scaling, "partial_rotary_factor", partial, &partial) ||
        fl_json_double(scaling, "factor", 1.0, &rope->factor) ||
        fl_json_double(scaling, "low_freq_factor", 1.0, &rope->low) ||
        fl_json_double(scaling, "high_freq_factor", 4.0, &rope->high) ||
        fl_json_double(scaling, "original_max_position_embeddings", 0.0, &rope->original_positions))
        return bad(error, path, "rope scaling");
    if (partial != 1.0)
        return fl_fail(error, FL_EFORMAT, "%s: partial_rotary_factor is not supported", path);
    return rope->kind == FL_ROPE_YARN ? read_yarn(positions, scaling, rope, path, error) : FL_OK;
}

static enum fl_status read_rope(struct fl_model *self, const json_t *root, const char *path,
                                struct fl_error *error)
{
    const struct fl_arch *arch = self->arch;
    const double positions = self->config.max_positions;
    const json_t *scaling = json_object_get(root, "rope_parameters"), *near = NULL;
    if (json_is_object(scaling) && arch->near_theta > 0.0) { /* one a kind of layer */
        near = json_object_get(scaling, "sliding_attention");
        scaling = json_object_get(scaling, "full_attention");
    } else if (!json_is_object(scaling)) {
        scaling = json_object_get(root, "rope_scaling");
    }
    double theta, near_theta, partial;
    if (fl_json_double(root, "rope_theta", arch->theta > 0.0 ? arch->theta : 10000.0, &theta) ||
        fl_json_double(root, "rope_local_base_freq", arch->near_theta, &near_theta) ||
        fl_json_double(root, "partial_rotary_factor", 1.0, &partial))
        return bad(error, path, "rope_theta");
    enum fl_status status = read_rotation(positions, scaling, theta, partial, &self->rope, path,
                                          error);
    if (!status && arch->near_theta > 0.0)
        status = read_rotation(positions, near, near_theta, partial, &self->near, path, error);
    return status;
}

/* The families differ in the names of their members: this is all that is read of them. */
static enum fl_status read_members(struct fl_model *self, const json_t *root, const char *path,
                                   struct fl_error *error)
{
    typedef enum fl_status (*reader)(struct fl_model *, const json_t *, const char *,
                                     struct fl_error *);
    static const reader rotary[] = {read_sizes,       read_gemma, read_window,
                                    read_layer_types, read_flags, read_rope};
    static const reader learned[] = {read_gpt2, read_flags};
    const bool gpt2 = self->arch->names->positions.hf != NULL;
    const reader *readers = gpt2 ? learned : rotary;
    const size_t count = gpt2 ? sizeof learned / sizeof *learned : sizeof rotary / sizeof *rotary;
    enum fl_status status = FL_OK;
    for (size_t i = 0; !status && i < count; i++)
        status = readers[i](self, root, path, error);
    return status;
}

enum fl_status fl_model_read_config(struct fl_model *self, const char *path, struct fl_error *error)
{
    json_t *root = NULL;
    enum fl_status status = fl_json_load(path, CONFIG_BYTES_MAX, &root, error);
    if (!status && !json_is_object(root))
        status = fl_fail(error, FL_EFORMAT, "%s: it is not a JSON object", path);
    if (!status)
        status = read_architecture(self, root, path, error);
    if (!status)
        status = refuse_unbuilt(self, root, path, error);
    if (!status)
        status = refuse_quantization(root, path, error);
    if (!status)
        status = read_members(self, root, path, error);
    json_decref(root);
    return status ? status : fl_model_check_config(self, path, error);
}

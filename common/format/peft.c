/* peft.c - see peft.h. */
#include "format/peft.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/limits.h"

#define PREFIX "base_model.model."

void fl_peft_config_init(struct fl_peft_config *self)
{
    memset(self, 0, sizeof(*self));
    self->r = 8;
    self->lora_alpha = 8.0;
}

void fl_peft_config_free(struct fl_peft_config *self)
{
    json_decref(self->target_modules);
    json_decref(self->rank_pattern);
    json_decref(self->alpha_pattern);
    json_decref(self->exclude_modules);
    json_decref(self->layers_to_transform);
    json_decref(self->layers_pattern);
    fl_peft_config_init(self);
}

/* ---- reading ---- */

/* Keys that change what is computed and are not built here: refused unless null, false or empty. */
static const char *const unsupported[] = {"alora_invocation_tokens",
                                          "arrow_config",
                                          "corda_config",
                                          "eva_config",
                                          "kasa_config",
                                          "layer_replication",
                                          "loftq_config",
                                          "lora_bias",
                                          "lora_ga_config",
                                          "megatron_config",
                                          "modules_to_save",
                                          "monteclora_config",
                                          "target_parameters",
                                          "use_bdlora",
                                          "use_qalora",
                                          "velora_config",
                                          "trainable_token_indices"};

/* Ways to begin that leave the base as it is; others (pissa, olora, ...) change its weights. */
static const char *const plain_starts[] = {"gaussian", "eva", "orthogonal"};

static bool is_set(const json_t *value)
{
    if (!value || json_is_null(value) || json_is_false(value))
        return false;
    if (json_is_object(value))
        return json_object_size(value) > 0;
    return !json_is_array(value) || json_array_size(value) > 0;
}

static enum fl_status refuse_changed_base(const json_t *root, const char *path,
                                          struct fl_error *error)
{
    const char *start = json_string_value(json_object_get(root, "init_lora_weights"));
    for (size_t i = 0; start && i < sizeof(plain_starts) / sizeof(plain_starts[0]); i++) {
        if (strcmp(start, plain_starts[i]) == 0)
            return FL_OK;
    }
    if (start)
        return fl_fail(
            error, FL_EFORMAT,
            "%s: init_lora_weights = '%.40s' goes with a changed base model; convert the "
            "adapter to plain LoRA first",
            path, start);
    return FL_OK;
}

static enum fl_status refuse_unsupported(const json_t *root, const char *path,
                                         struct fl_error *error)
{
    for (size_t i = 0; i < sizeof(unsupported) / sizeof(unsupported[0]); i++) {
        if (is_set(json_object_get(root, unsupported[i])))
            return fl_fail(error, FL_EFORMAT, "%s: '%s' is set, and is not supported here", path,
                           unsupported[i]);
    }
    const char *type = json_string_value(json_object_get(root, "peft_type"));
    if (!type || strcmp(type, "LORA") != 0)
        return fl_fail(error, FL_EFORMAT, "%s: peft_type is '%.40s'; only LORA is read", path,
                       type ? type : "missing");
    const char *bias = json_string_value(json_object_get(root, "bias"));
    if (bias && strcmp(bias, "none") != 0)
        return fl_fail(error, FL_EFORMAT, "%s: bias = '%.40s' is not supported here", path, bias);
    return refuse_changed_base(root, path, error);
}

/* As much of text as fits, never a part of a UTF-8 character. */
static void copy_text(char *out, size_t bytes, const char *text)
{
    size_t length = strlen(text);
    if (length >= bytes) {
        length = bytes - 1;
        while (length > 0 && ((uint8_t)text[length] & 0xc0) == 0x80)
            length--;
    }
    memcpy(out, text, length);
    out[length] = '\0';
}

static enum fl_status read_fields(const json_t *root, struct fl_peft_config *out, const char *path,
                                  struct fl_error *error)
{
    const char *base = "";
    if (fl_json_u32(root, "r", 8, &out->r) != FL_OK || out->r == 0 || out->r > FL_RANK_MAX)
        return fl_fail(error, FL_EFORMAT, "%s: 'r' is no rank from 1 to %d", path, FL_RANK_MAX);
    if (fl_json_double(root, "lora_alpha", 8.0, &out->lora_alpha) != FL_OK ||
        !isfinite(out->lora_alpha) || out->lora_alpha <= 0.0)
        return fl_fail(error, FL_EFORMAT, "%s: 'lora_alpha' is no positive number", path);
    if (fl_json_double(root, "lora_dropout", 0.0, &out->lora_dropout) != FL_OK ||
        !(out->lora_dropout >= 0.0 && out->lora_dropout < 1.0))
        return fl_fail(error, FL_EFORMAT, "%s: 'lora_dropout' is not in [0, 1)", path);
    if (fl_json_bool(root, "use_rslora", false, &out->use_rslora) != FL_OK)
        return fl_fail(error, FL_EFORMAT, "%s: 'use_rslora' is neither true nor false", path);
    if (fl_json_bool(root, "use_dora", false, &out->use_dora) != FL_OK)
        return fl_fail(error, FL_EFORMAT, "%s: 'use_dora' is neither true nor false", path);
    if (fl_json_string(root, "base_model_name_or_path", "", &base) == FL_OK && base)
        copy_text(out->base_model, sizeof(out->base_model), base);
    return FL_OK;
}

enum kind { NAMES, INDICES, VALUES };

/* A string or an array of strings; an integer or an array of them; an object. */
static bool is_kind(const json_t *value, enum kind kind)
{
    size_t index;
    json_t *item;
    if (kind == VALUES)
        return json_is_object(value);
    if (!json_is_array(value))
        return kind == NAMES ? json_is_string(value) : json_is_integer(value);
    json_array_foreach((json_t *)(uintptr_t)value, index, item)
    {
        if (kind == NAMES ? !json_is_string(item) : !json_is_integer(item))
            return false;
    }
    return true;
}

/* What chooses modules and their ranks: references into the document, NULL where nothing is set. */
static enum fl_status read_choices(const json_t *root, struct fl_peft_config *out, const char *path,
                                   struct fl_error *error)
{
    const struct {
        const char *key;
        enum kind kind;
        json_t **slot;
    } choices[] = {
        {"target_modules", NAMES, &out->target_modules},
        {"exclude_modules", NAMES, &out->exclude_modules},
        {"layers_to_transform", INDICES, &out->layers_to_transform},
        {"layers_pattern", NAMES, &out->layers_pattern},
        {"rank_pattern", VALUES, &out->rank_pattern},
        {"alpha_pattern", VALUES, &out->alpha_pattern},
    };
    for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++) {
        json_t *value = json_object_get(root, choices[i].key);
        if (!is_set(value))
            continue;
        if (!is_kind(value, choices[i].kind))
            return fl_fail(error, FL_EFORMAT, "%s: '%s' has another type than PEFT writes", path,
                           choices[i].key);
        *choices[i].slot = json_incref(value);
    }
    return FL_OK;
}

enum fl_status fl_peft_config_load(const char *directory, struct fl_peft_config *out,
                                   struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    json_t *root = NULL;
    fl_peft_config_init(out);
    enum fl_status status = fl_path_join(path, directory, FL_PEFT_CONFIG, error);
    if (status == FL_OK)
        status = fl_json_load(path, FL_PEFT_CONFIG_BYTES_MAX, &root, error);
    if (status == FL_OK && !json_is_object(root))
        status = fl_fail(error, FL_EFORMAT, "%s is no JSON object", path);
    if (status == FL_OK)
        status = refuse_unsupported(root, path, error);
    if (status == FL_OK)
        status = read_fields(root, out, path, error);
    if (status == FL_OK)
        status = read_choices(root, out, path, error);
    if (status != FL_OK)
        fl_peft_config_free(out);
    json_decref(root);
    return status;
}

/* ---- writing ---- */

json_t *fl_peft_number(double value)
{
    bool whole = floor(value) == value && fabs(value) < 1e15;
    return whole ? json_integer((json_int_t)value) : json_real(value);
}

/* A name that is empty or no UTF-8 (a path of this machine may be none) is left out. */
static json_t *name_or_null(const char *name)
{
    json_t *text = name[0] ? json_string(name) : NULL;
    return text ? text : json_null();
}

static json_t *object_or_empty(json_t *value)
{
    return value ? json_incref(value) : json_object();
}

static json_t *config_json(const struct fl_peft_config *self)
{
    static const char *const nulls[] = {"alora_invocation_tokens",
                                        "arrow_config",
                                        "auto_mapping",
                                        "corda_config",
                                        "eva_config",
                                        "exclude_modules",
                                        "layer_replication",
                                        "layers_pattern",
                                        "layers_to_transform",
                                        "megatron_config",
                                        "modules_to_save",
                                        "revision",
                                        "target_parameters",
                                        "trainable_token_indices"};
    static const char *const falses[] = {"ensure_weight_tying", "lora_bias", "use_qalora"};
    json_t *root = json_pack(
        "{s:s,s:s,s:b,s:b,s:s,s:o,s:i,s:o,s:f,s:b,s:b,s:b,s:i,s:{},s:s}", "peft_type", "LORA",
        "task_type", "CAUSAL_LM", "inference_mode", 1, "fan_in_fan_out", (int)self->fan_in_fan_out,
        "bias", "none", "base_model_name_or_path", name_or_null(self->base_model), "r",
        (int)self->r, "lora_alpha", fl_peft_number(self->lora_alpha), "lora_dropout",
        self->lora_dropout, "init_lora_weights", 1, "use_rslora", (int)self->use_rslora, "use_dora",
        (int)self->use_dora, "qalora_group_size", 16, "loftq_config", "megatron_core",
        "megatron.core");
    for (size_t i = 0; root && i < sizeof(nulls) / sizeof(nulls[0]); i++)
        (void)!json_object_set_new(root, nulls[i], json_null());
    for (size_t i = 0; root && i < sizeof(falses) / sizeof(falses[0]); i++)
        (void)!json_object_set_new(root, falses[i], json_false());
    if (root &&
        (json_object_set_new(root, "target_modules",
                             self->target_modules ? json_incref(self->target_modules)
                                                  : json_null()) != 0 ||
         json_object_set_new(root, "rank_pattern", object_or_empty(self->rank_pattern)) != 0 ||
         json_object_set_new(root, "alpha_pattern", object_or_empty(self->alpha_pattern)) != 0)) {
        json_decref(root);
        return NULL;
    }
    return root;
}

/* The fewest digits that bring a value back, from 15 on: 0.1 stays 0.1. */
static size_t digits_of(double value)
{
    char text[40];
    for (int digits = 15; digits < 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            return (size_t)digits;
    }
    return 17;
}

static size_t digits_needed(const struct fl_peft_config *self)
{
    const char *key;
    json_t *value;
    size_t most = digits_of(self->lora_alpha), own = digits_of(self->lora_dropout);
    most = own > most ? own : most;
    json_object_foreach(self->alpha_pattern, key, value)
    {
        own = digits_of(json_number_value(value));
        most = own > most ? own : most;
    }
    return most;
}

enum fl_status fl_peft_config_print(const struct fl_peft_config *self, struct fl_buf *out)
{
    json_t *root = config_json(self);
    size_t digits = digits_needed(self);
    char *text = root ? json_dumps(root,
                                   JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(digits))
                      : NULL;
    enum fl_status status = FL_ENOMEM;
    if (text) {
        fl_buf_printf(out, "%s\n", text);
        status = fl_buf_status(out);
    }
    fl_free(text);
    json_decref(root);
    return status;
}

/* ---- keys ---- */

void fl_peft_key(const char *module, char factor, char *key, size_t bytes)
{
    if (factor == 'M')
        snprintf(key, bytes, PREFIX "%s.lora_magnitude_vector", module);
    else
        snprintf(key, bytes, PREFIX "%s.lora_%c.weight", module, factor);
}

static bool cut_end(char *text, const char *end)
{
    size_t n = strlen(text), e = strlen(end);
    if (n <= e || strcmp(text + n - e, end) != 0)
        return false;
    text[n - e] = '\0';
    return true;
}

bool fl_peft_parse_key(const char *key, char *module, size_t bytes, char *factor)
{
    size_t prefix = strlen(PREFIX);
    if (strncmp(key, PREFIX, prefix) != 0 || strlen(key) - prefix >= bytes)
        return false;
    snprintf(module, bytes, "%s", key + prefix);
    if (cut_end(module, ".lora_A.weight") || cut_end(module, ".lora_A.default.weight"))
        *factor = 'A';
    else if (cut_end(module, ".lora_B.weight") || cut_end(module, ".lora_B.default.weight"))
        *factor = 'B';
    else if (cut_end(module, ".lora_magnitude_vector") ||
             cut_end(module, ".lora_magnitude_vector.default.weight"))
        *factor = 'M';
    else
        return false;
    return true;
}

/* peft.c - see peft.h. */
#include "format/peft.h"

#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/limits.h"

#define PREFIX        "base_model.model."
#define PATTERN_BYTES 1024

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
    fl_peft_config_init(self);
}

/* ---- reading ---- */

/* Keys that change what is computed and are not built here: refused unless null, false or empty. */
static const char *const unsupported[] = {
    "alora_invocation_tokens", "arrow_config",       "corda_config",      "eva_config",
    "exclude_modules",         "kasa_config",        "layer_replication", "layers_to_transform",
    "layers_pattern",          "loftq_config",       "lora_bias",         "lora_ga_config",
    "megatron_config",         "modules_to_save",    "monteclora_config", "target_parameters",
    "trainable_token_indices", "use_bdlora",         "use_dora",          "use_qalora",
    "velora_config",           "ensure_weight_tying"};

/* exclude_modules, layers_to_transform and layers_pattern only choose modules, and the file of
   weights says which were chosen; they are listed here so that nothing is passed over unseen. */
static bool only_selects(const char *key)
{
    return strcmp(key, "exclude_modules") == 0 || strcmp(key, "layers_to_transform") == 0 ||
           strcmp(key, "layers_pattern") == 0 || strcmp(key, "ensure_weight_tying") == 0;
}

static bool is_set(const json_t *value)
{
    if (!value || json_is_null(value) || json_is_false(value))
        return false;
    if (json_is_object(value))
        return json_object_size(value) > 0;
    return !json_is_array(value) || json_array_size(value) > 0;
}

static enum fl_status refuse_unsupported(const json_t *root, const char *path,
                                         struct fl_error *error)
{
    for (size_t i = 0; i < sizeof(unsupported) / sizeof(unsupported[0]); i++) {
        if (!only_selects(unsupported[i]) && is_set(json_object_get(root, unsupported[i])))
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
    return FL_OK;
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
    if (fl_json_string(root, "base_model_name_or_path", "", &base) == FL_OK)
        snprintf(out->base_model, sizeof(out->base_model), "%s", base ? base : "");
    json_t *targets = json_object_get(root, "target_modules");
    if (targets && !json_is_null(targets) && !json_is_array(targets) && !json_is_string(targets))
        return fl_fail(error, FL_EFORMAT, "%s: 'target_modules' is neither a list nor a string",
                       path);
    json_t *ranks = json_object_get(root, "rank_pattern");
    json_t *alphas = json_object_get(root, "alpha_pattern");
    if ((is_set(ranks) && !json_is_object(ranks)) || (is_set(alphas) && !json_is_object(alphas)))
        return fl_fail(error, FL_EFORMAT, "%s: a rank or alpha pattern is no object", path);
    out->target_modules = json_incref(targets);
    out->rank_pattern = is_set(ranks) ? json_incref(ranks) : NULL;
    out->alpha_pattern = is_set(alphas) ? json_incref(alphas) : NULL;
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
    if (status != FL_OK)
        fl_peft_config_free(out);
    json_decref(root);
    return status;
}

/* ---- patterns ---- */

/* Python's \d, \w and (?: as POSIX extended expressions write them; false: too long. */
static bool translate(const char *key, char *out, size_t bytes)
{
    size_t n = (size_t)snprintf(out, bytes, "^(.*\\.)?(");
    for (const char *p = key; *p; p++) {
        const char *piece = NULL;
        if (p[0] == '\\' && p[1] == 'd')
            piece = "[0-9]";
        else if (p[0] == '\\' && p[1] == 'w')
            piece = "[A-Za-z0-9_]";
        else if (p[0] == '(' && p[1] == '?' && p[2] == ':')
            piece = "(";
        if (n + 16 >= bytes)
            return false;
        if (piece) {
            n += (size_t)snprintf(out + n, bytes - n, "%s", piece);
            p += piece[0] == '(' ? 2 : 1;
        } else if (p[0] == '\\' && p[1]) {
            out[n++] = *p++;
            out[n++] = *p;
        } else {
            out[n++] = *p;
        }
    }
    if (n + 3 >= bytes)
        return false;
    snprintf(out + n, bytes - n, ")$");
    return true;
}

static enum fl_status key_matches(const char *key, const char *module, bool *matches,
                                  struct fl_error *error)
{
    char text[PATTERN_BYTES];
    regex_t expression;
    *matches = strcmp(key, module) == 0;
    if (*matches)
        return FL_OK;
    if (!translate(key, text, sizeof(text)) ||
        regcomp(&expression, text, REG_EXTENDED | REG_NOSUB) != 0)
        return fl_fail(error, FL_EFORMAT, "the pattern '%.100s' can't be read", key);
    *matches = regexec(&expression, module, 0, NULL, 0) == 0;
    regfree(&expression);
    return FL_OK;
}

/* The value of the first key that matches; NULL: none does. */
static enum fl_status find_pattern(const json_t *pattern, const char *module, const json_t **out,
                                   struct fl_error *error)
{
    const char *key;
    json_t *value;
    *out = NULL;
    json_object_foreach((json_t *)(uintptr_t)pattern, key, value)
    {
        bool matches;
        enum fl_status status = key_matches(key, module, &matches, error);
        if (status != FL_OK)
            return status;
        if (matches) {
            *out = value;
            return FL_OK;
        }
    }
    return FL_OK;
}

enum fl_status fl_peft_module_rank(const struct fl_peft_config *self, const char *module,
                                   uint32_t *rank, struct fl_error *error)
{
    const json_t *value;
    *rank = self->r;
    enum fl_status status = find_pattern(self->rank_pattern, module, &value, error);
    if (status != FL_OK || !value)
        return status;
    if (!json_is_integer(value) || json_integer_value(value) < 1 ||
        json_integer_value(value) > FL_RANK_MAX)
        return fl_fail(error, FL_EFORMAT, "rank_pattern gives '%.100s' no rank from 1 to %d",
                       module, FL_RANK_MAX);
    *rank = (uint32_t)json_integer_value(value);
    return FL_OK;
}

enum fl_status fl_peft_module_alpha(const struct fl_peft_config *self, const char *module,
                                    double *alpha, struct fl_error *error)
{
    const json_t *value;
    *alpha = self->lora_alpha;
    enum fl_status status = find_pattern(self->alpha_pattern, module, &value, error);
    if (status != FL_OK || !value)
        return status;
    *alpha = json_number_value(value);
    if (!json_is_number(value) || !isfinite(*alpha) || *alpha <= 0.0)
        return fl_fail(error, FL_EFORMAT, "alpha_pattern gives '%.100s' no positive number",
                       module);
    return FL_OK;
}

/* ---- writing ---- */

static json_t *number(double value)
{
    bool whole = floor(value) == value && fabs(value) < 1e15;
    return whole ? json_integer((json_int_t)value) : json_real(value);
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
    static const char *const falses[] = {"ensure_weight_tying", "fan_in_fan_out", "lora_bias",
                                         "use_dora", "use_qalora"};
    json_t *root = json_pack(
        "{s:s,s:s,s:b,s:s,s:s,s:i,s:o,s:f,s:b,s:b,s:i,s:{},s:s}", "peft_type", "LORA", "task_type",
        "CAUSAL_LM", "inference_mode", 1, "bias", "none", "base_model_name_or_path",
        self->base_model, "r", (int)self->r, "lora_alpha", number(self->lora_alpha), "lora_dropout",
        self->lora_dropout, "init_lora_weights", 1, "use_rslora", (int)self->use_rslora,
        "qalora_group_size", 16, "loftq_config", "megatron_core", "megatron.core");
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

enum fl_status fl_peft_config_print(const struct fl_peft_config *self, struct fl_buf *out)
{
    json_t *root = config_json(self);
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(15))
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
    else
        return false;
    return true;
}

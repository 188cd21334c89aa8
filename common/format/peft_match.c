/*
 * peft_match.c - which modules a PEFT configuration adapts, and with which rank and alpha; see
 * peft.h. Follows PEFT's check_target_module_exists() and get_pattern_key().
 */
#include <math.h>
#include <string.h>

#include "base/limits.h"
#include "format/pattern.h"
#include "format/peft.h"

/* ---- names ---- */

static bool ends_with_part(const char *module, const char *part)
{
    size_t n = strlen(module), e = strlen(part);
    return n > e && module[n - e - 1] == '.' && strcmp(module + n - e, part) == 0;
}

/* A list of names, or one regular expression. */
static enum fl_status named_by(const json_t *names, const char *module, bool *named, bool *exact,
                               struct fl_error *error)
{
    size_t index;
    json_t *name;
    *named = *exact = false;
    if (json_is_string(names)) {
        struct fl_pattern *pattern = NULL;
        enum fl_status status = fl_pattern_compile(json_string_value(names), &pattern, error);
        if (status == FL_OK)
            *named = *exact = fl_pattern_matches(pattern, module);
        fl_pattern_free(&pattern);
        return status;
    }
    json_array_foreach((json_t *)(uintptr_t)names, index, name)
    {
        const char *text = json_string_value(name);
        *exact = *exact || strcmp(text, module) == 0;
        *named = *named || *exact || ends_with_part(module, text);
    }
    return FL_OK;
}

/* ---- layers ---- */

/* "12." at text: its value; -1: something else. */
static json_int_t index_at(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    json_int_t value = 0;
    if (digits == 0 || digits > 9 || text[digits] != '.')
        return -1;
    for (size_t i = 0; i < digits; i++)
        value = value * 10 + (text[i] - '0');
    return value;
}

/* The first number that is a component of its own behind two others: "model.layers.12.". */
static json_int_t any_layer_of(const char *module)
{
    const char *before = strchr(module, '.');
    for (const char *dot = before ? strchr(before + 1, '.') : NULL; dot;
         dot = strchr(dot + 1, '.')) {
        json_int_t value = index_at(dot + 1);
        if (value >= 0)
            return value;
    }
    return -1;
}

/* The number behind the component `list`: "layers" of "model.layers.12.". */
static json_int_t layer_behind(const char *module, const char *list)
{
    size_t length = strlen(list);
    for (const char *at = module; at; at = strchr(at, '.') ? strchr(at, '.') + 1 : NULL) {
        if (strncmp(at, list, length) == 0 && at[length] == '.' && index_at(at + length + 1) >= 0)
            return index_at(at + length + 1);
    }
    return -1;
}

static json_int_t layer_of(const struct fl_peft_config *self, const char *module)
{
    const json_t *lists = self->layers_pattern;
    size_t index;
    json_t *list;
    if (!lists)
        return any_layer_of(module);
    if (json_is_string(lists))
        return layer_behind(module, json_string_value(lists));
    json_array_foreach((json_t *)(uintptr_t)lists, index, list)
    {
        json_int_t value = layer_behind(module, json_string_value(list));
        if (value >= 0)
            return value;
    }
    return -1;
}

static bool layer_wanted(const struct fl_peft_config *self, const char *module)
{
    const json_t *wanted = self->layers_to_transform;
    size_t index;
    json_t *value;
    if (!wanted)
        return true;
    json_int_t layer = layer_of(self, module);
    if (json_is_integer(wanted))
        return layer >= 0 && layer == json_integer_value(wanted);
    json_array_foreach((json_t *)(uintptr_t)wanted, index, value)
    {
        if (layer >= 0 && layer == json_integer_value(value))
            return true;
    }
    return false;
}

bool fl_peft_is_default_target(const char *module)
{
    static const char *const parts[] = {"q_proj", "v_proj", "c_attn", "qkv_proj"};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (ends_with_part(module, parts[i]))
            return true;
    }
    return false;
}

bool fl_peft_is_conv1d(const char *module)
{
    static const char *const parts[] = {"c_attn", "c_proj", "c_fc"};
    static const char outer[] = "transformer.h.";
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (strncmp(module, outer, sizeof(outer) - 1) == 0 && ends_with_part(module, parts[i]))
            return true;
    }
    return false;
}

enum fl_status fl_peft_adapts(const struct fl_peft_config *self, const char *module, bool *adapts,
                              struct fl_error *error)
{
    bool exact, excluded = false;
    enum fl_status status = FL_OK;
    *adapts = false;
    if (self->exclude_modules)
        status = named_by(self->exclude_modules, module, &excluded, &exact, error);
    if (status != FL_OK || excluded)
        return status;
    if (!self->target_modules) {
        *adapts = layer_wanted(self, module) && fl_peft_is_default_target(module);
        return FL_OK;
    }
    status = named_by(self->target_modules, module, adapts, &exact, error);
    *adapts = *adapts && (exact || layer_wanted(self, module));
    return status;
}

/* ---- rank_pattern and alpha_pattern ---- */

/* Letters, digits, '_' and '.', the last of which stands for any character. */
static bool is_plain(const char *key)
{
    for (; *key; key++) {
        bool plain = (*key >= 'a' && *key <= 'z') || (*key >= 'A' && *key <= 'Z') ||
                     (*key >= '0' && *key <= '9') || *key == '_' || *key == '.';
        if (!plain)
            return false;
    }
    return true;
}

static bool plain_matches(const char *key, const char *module)
{
    size_t n = strlen(module), e = strlen(key);
    if (e > n || (e < n && module[n - e - 1] != '.'))
        return false;
    for (size_t i = 0; i < e; i++) {
        if (key[i] != '.' && key[i] != module[n - e + i])
            return false;
    }
    return true;
}

enum fl_status fl_peft_key_matches(const char *key, const char *module, bool *matches,
                                   struct fl_error *error)
{
    struct fl_pattern *pattern = NULL;
    if (is_plain(key)) {
        *matches = plain_matches(key, module);
        return FL_OK;
    }
    enum fl_status status = fl_pattern_compile(key, &pattern, error);
    *matches = status == FL_OK && fl_pattern_matches_end(pattern, module);
    fl_pattern_free(&pattern);
    return status;
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
        enum fl_status status = fl_peft_key_matches(key, module, &matches, error);
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

/*
 * choose.c - options that choose modules, ranks and alphas; see choose.h.
 */
#include "adapter/choose.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "format/peft.h"

#define ENTRY_BYTES   (2 * FL_MODULE_NAME_BYTES)
#define ENTRIES_MAX   1024
#define SHOWN(length) ((int)((length) > 100 ? 100 : (length)))

/* ---- lists ---- */

/* PEFT's rule for a list: the full name, or its end after a dot. */
static bool entry_matches(const char *module, const char *entry, size_t length)
{
    size_t n = strlen(module);
    if (n < length || memcmp(module + n - length, entry, length) != 0)
        return false;
    return n == length || module[n - length - 1] == '.';
}

static bool entry_matches_any(const struct fl_inventory *self, const char *entry, size_t length)
{
    for (uint32_t i = 0; i < self->count; i++) {
        if (entry_matches(self->modules[i].name, entry, length))
            return true;
    }
    return false;
}

/* The next entry of a comma-separated list, spaces trimmed; the rest behind it, NULL at the end. */
static const char *next_entry(const char *list, const char **entry, size_t *length)
{
    while (*list == ' ' || *list == ',')
        list++;
    if (!*list)
        return NULL;
    const char *end = list + strcspn(list, ",");
    *entry = list;
    *length = (size_t)(end - list);
    while (*length > 0 && (*entry)[*length - 1] == ' ')
        (*length)--;
    return end;
}

static enum fl_status copy_entry(const char *option, const char *entry, size_t length,
                                 char out[ENTRY_BYTES], struct fl_error *error)
{
    if (length >= ENTRY_BYTES)
        return fl_fail(error, FL_EINVAL, "%s: '%.*s...' is too long", option, SHOWN(length), entry);
    memcpy(out, entry, length);
    out[length] = '\0';
    return FL_OK;
}

/* ---- target_modules ---- */

enum selection { NAMED, ALL, DEFAULT };

static enum selection selection_of(const char *targets)
{
    return strcmp(targets, "all-linear") == 0 ? ALL
           : strcmp(targets, "default") == 0  ? DEFAULT
                                              : NAMED;
}

static enum fl_status check_targets(const struct fl_inventory *self, const char *targets,
                                    struct fl_error *error)
{
    const char *entry;
    size_t length, entries = 0;
    for (const char *rest = next_entry(targets, &entry, &length); rest;
         rest = next_entry(rest, &entry, &length)) {
        entries++;
        if (!entry_matches_any(self, entry, length))
            return fl_fail(error, FL_EINVAL, "target '%.*s' matches no linear of this model",
                           SHOWN(length), entry);
    }
    return entries ? FL_OK : fl_fail(error, FL_EINVAL, "no target module is given");
}

static bool chosen(const struct fl_module *module, const char *targets)
{
    const enum selection selection = selection_of(targets);
    if (selection != NAMED)
        return selection == ALL || fl_peft_is_default_target(module->name);
    const char *entry;
    size_t length;
    for (const char *rest = next_entry(targets, &entry, &length); rest;
         rest = next_entry(rest, &entry, &length)) {
        if (entry_matches(module->name, entry, length))
            return true;
    }
    return false;
}

enum fl_status fl_inventory_select(const struct fl_inventory *self, const char *targets,
                                   struct fl_inventory *out, struct fl_error *error)
{
    memset(out, 0, sizeof(*out));
    if (selection_of(targets) == NAMED) {
        enum fl_status status = check_targets(self, targets, error);
        if (status != FL_OK)
            return status;
    }
    out->modules = fl_calloc(self->count, sizeof(*out->modules));
    if (!out->modules)
        return fl_fail_memory(error);
    for (uint32_t i = 0; i < self->count; i++) {
        const struct fl_module *m = &self->modules[i];
        if (m->layer >= out->layers)
            out->layers = m->layer + 1;
        if (chosen(m, targets))
            out->modules[out->count++] = *m;
    }
    if (out->count)
        return FL_OK;
    fl_inventory_free(out);
    return fl_fail(error, FL_EINVAL,
                   "this model has no default targets: name them, or take all-linear");
}

/* ---- exclude_modules and layers_to_transform ---- */

static void drop(struct fl_inventory *self, const bool *dropped)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < self->count; i++) {
        if (!dropped[i])
            self->modules[kept++] = self->modules[i];
    }
    self->count = kept;
}

static enum fl_status mark_excluded(const struct fl_inventory *self, const char *list,
                                    bool *dropped, struct fl_error *error)
{
    const char *entry;
    size_t length;
    for (const char *rest = next_entry(list, &entry, &length); rest;
         rest = next_entry(rest, &entry, &length)) {
        bool any = false;
        for (uint32_t i = 0; i < self->count; i++) {
            bool named = entry_matches(self->modules[i].name, entry, length);
            dropped[i] = dropped[i] || named;
            any = any || named;
        }
        if (!any)
            return fl_fail(error, FL_EINVAL, "--exclude: '%.*s' matches no linear that is chosen",
                           SHOWN(length), entry);
    }
    return FL_OK;
}

/* "7" or "4-7". */
static bool read_range(const char *text, unsigned long *first, unsigned long *last)
{
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    *first = *last = strtoul(text, &end, 10);
    if (*end == '-' && end[1] >= '0' && end[1] <= '9')
        *last = strtoul(end + 1, &end, 10);
    return *end == '\0' && *first <= *last;
}

static enum fl_status mark_layers(const struct fl_inventory *self, const char *list, bool *dropped,
                                  struct fl_error *error)
{
    bool wanted[FL_LAYERS_MAX] = {false};
    const char *entry;
    size_t length;
    for (const char *rest = next_entry(list, &entry, &length); rest;
         rest = next_entry(rest, &entry, &length)) {
        char text[ENTRY_BYTES];
        unsigned long first, last;
        enum fl_status status = copy_entry("--layers", entry, length, text, error);
        if (status != FL_OK)
            return status;
        if (!read_range(text, &first, &last))
            return fl_fail(error, FL_EINVAL, "--layers: '%.100s' is no block and no range as 4-7",
                           text);
        if (last >= self->layers)
            return fl_fail(error, FL_EINVAL, "--layers: %.100s, but the model's blocks are 0 to %u",
                           text, self->layers - 1);
        for (unsigned long i = first; i <= last; i++)
            wanted[i] = true;
    }
    for (uint32_t i = 0; i < self->count; i++)
        dropped[i] = dropped[i] || !wanted[self->modules[i].layer];
    return FL_OK;
}

enum fl_status fl_choose_modules(const struct fl_inventory *self, const struct fl_choice *choice,
                                 struct fl_inventory *out, struct fl_error *error)
{
    enum fl_status status = fl_inventory_select(self, choice->targets, out, error);
    if (status == FL_EINVAL)
        fl_error_prefix(error, "--targets");
    if (status != FL_OK || (!choice->exclude && !choice->layers))
        return status;
    bool *dropped = fl_calloc(out->count, sizeof(*dropped));
    if (!dropped)
        status = fl_fail_memory(error);
    if (status == FL_OK && choice->exclude)
        status = mark_excluded(out, choice->exclude, dropped, error);
    if (status == FL_OK && choice->layers)
        status = mark_layers(out, choice->layers, dropped, error);
    if (status == FL_OK) {
        drop(out, dropped);
        if (out->count == 0)
            status = fl_fail(error, FL_EINVAL, "%s leave no linear to adapt",
                             choice->exclude ? "--exclude and --layers" : "--layers");
    }
    fl_free(dropped);
    if (status != FL_OK)
        fl_inventory_free(out);
    return status;
}

/* ---- rank_pattern and alpha_pattern ---- */

static json_t *number(const char *text, bool whole)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value) || value <= 0.0)
        return NULL;
    if (!whole)
        return value < 1e-6 || value > 1e6 ? NULL : json_real(value);
    return value != floor(value) || value > FL_RANK_MAX ? NULL : json_integer((json_int_t)value);
}

static enum fl_status add_pattern(json_t *object, const char *option, bool whole, char *text,
                                  struct fl_error *error)
{
    char *equals = strrchr(text, '=');
    json_t *value = equals && equals != text ? number(equals + 1, whole) : NULL;
    if (!value)
        return fl_fail(error, FL_EINVAL, "%s: '%.100s' is not NAME=%s", option, text,
                       whole ? "RANK" : "ALPHA");
    *equals = '\0';
    return json_object_set_new(object, text, value) == 0 ? FL_OK : fl_fail_memory(error);
}

static enum fl_status read_pattern(const char *list, const char *option, bool whole, json_t **out,
                                   struct fl_error *error)
{
    const char *entry;
    size_t length, entries = 0;
    enum fl_status status = FL_OK;
    *out = json_object();
    if (!*out)
        return fl_fail_memory(error);
    for (const char *rest = list ? next_entry(list, &entry, &length) : NULL;
         rest && status == FL_OK; rest = next_entry(rest, &entry, &length)) {
        char text[ENTRY_BYTES];
        if (++entries > ENTRIES_MAX)
            return fl_fail(error, FL_EINVAL, "%s: more than %d entries", option, ENTRIES_MAX);
        status = copy_entry(option, entry, length, text, error);
        if (status == FL_OK)
            status = add_pattern(*out, option, whole, text, error);
    }
    return status;
}

/* A pattern that no module has is a slip of the pen. */
static enum fl_status check_used(const struct fl_inventory *chosen, const json_t *pattern,
                                 const char *option, struct fl_error *error)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)pattern, key, value)
    {
        bool used = false;
        enum fl_status status = FL_OK;
        for (uint32_t i = 0; i < chosen->count && status == FL_OK && !used; i++)
            status = fl_peft_key_matches(key, chosen->modules[i].name, &used, error);
        if (status == FL_EFORMAT) {
            error->status = FL_EINVAL;
            fl_error_prefix(error, "%s", option);
            return FL_EINVAL;
        }
        if (status != FL_OK)
            return status;
        if (!used)
            return fl_fail(error, FL_EINVAL, "%s: '%.100s' matches no linear that is chosen",
                           option, key);
    }
    return FL_OK;
}

static enum fl_status module_ranks(const struct fl_inventory *chosen,
                                   const struct fl_peft_config *config, uint32_t *ranks,
                                   struct fl_error *error)
{
    struct fl_peft_config named = *config;
    named.r = 0; /* no pattern's: the default, cut to what the linear allows */
    for (uint32_t i = 0; i < chosen->count; i++) {
        const struct fl_module *m = &chosen->modules[i];
        uint32_t least = m->in < m->out ? m->in : m->out;
        enum fl_status status = fl_peft_module_rank(&named, m->name, &ranks[i], error);
        if (status != FL_OK)
            return status;
        if (ranks[i] == 0)
            ranks[i] = config->r < least ? config->r : least;
    }
    return FL_OK;
}

static enum fl_status create(const struct fl_inventory *chosen, const struct fl_choice *choice,
                             const struct fl_peft_config *config, struct fl_adapter **out,
                             struct fl_error *error)
{
    uint32_t *ranks = fl_calloc(chosen->count, sizeof(*ranks));
    enum fl_status status = ranks ? FL_OK : fl_fail_memory(error);
    if (status == FL_OK)
        status = module_ranks(chosen, config, ranks, error);
    if (status == FL_OK)
        status = fl_adapter_create(chosen, choice->rank, choice->alpha, ranks, out, error);
    for (uint32_t i = 0; status == FL_OK && i < chosen->count; i++)
        status = fl_peft_module_alpha(config, chosen->modules[i].name, &(*out)->modules[i].alpha,
                                      error);
    fl_free(ranks);
    if (status != FL_OK)
        fl_adapter_destroy(out);
    return status;
}

enum fl_status fl_choose_adapter(const struct fl_inventory *self, const struct fl_choice *choice,
                                 struct fl_adapter **out, struct fl_error *error)
{
    struct fl_peft_config config;
    struct fl_inventory chosen = {0};
    *out = NULL;
    fl_peft_config_init(&config);
    config.r = choice->rank;
    config.lora_alpha = choice->alpha;
    enum fl_status status = fl_choose_modules(self, choice, &chosen, error);
    if (status == FL_OK)
        status = read_pattern(choice->rank_pattern, "--rank-pattern", true, &config.rank_pattern,
                              error);
    if (status == FL_OK)
        status = read_pattern(choice->alpha_pattern, "--alpha-pattern", false,
                              &config.alpha_pattern, error);
    if (status == FL_OK)
        status = check_used(&chosen, config.rank_pattern, "--rank-pattern", error);
    if (status == FL_OK)
        status = check_used(&chosen, config.alpha_pattern, "--alpha-pattern", error);
    if (status == FL_OK)
        status = create(&chosen, choice, &config, out, error);
    fl_peft_config_free(&config);
    fl_inventory_free(&chosen);
    return status;
}

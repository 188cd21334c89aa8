/* adapter_files.c - PEFT directories: fl_adapter_save() and fl_adapter_load() of adapter.h. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "adapter/adapter.h"
#include "base/alloc.h"
#include "base/fs.h"
#include "format/peft.h"
#include "format/safetensors.h"

/* ---- saving ---- */

/*
 * What names a module in target_modules: its last part. A block of GPT-2 has two c_proj, which the
 * part in front tells apart.
 */
static const char *short_name(const char *module)
{
    const char *at = strrchr(module, '.');
    if (at && strcmp(at, ".c_proj") == 0)
        do
            at--;
        while (at > module && *at != '.');
    return at && *at == '.' ? at + 1 : module;
}

static uint32_t layer_count(const struct fl_adapter *self)
{
    uint32_t layers = self->layers;
    for (uint32_t i = 0; i < self->count; i++) {
        if (self->modules[i].module.layer >= layers)
            layers = self->modules[i].module.layer + 1;
    }
    return layers;
}

/* Is a module with this short name adapted in every layer? Then the name alone says which. */
static bool in_every_layer(const struct fl_adapter *self, const char *part, uint32_t layers)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < self->count; i++)
        found += strcmp(short_name(self->modules[i].module.name), part) == 0;
    return found == layers;
}

static bool append_once(json_t *list, const char *name)
{
    size_t index;
    json_t *value;
    json_array_foreach(list, index, value)
    {
        if (strcmp(json_string_value(value), name) == 0)
            return true;
    }
    return json_array_append_new(list, json_string(name)) == 0;
}

static json_t *target_list(const struct fl_adapter *self)
{
    uint32_t layers = layer_count(self);
    json_t *list = json_array();
    for (uint32_t i = 0; i < self->count && list; i++) {
        const char *name = self->modules[i].module.name;
        bool ok = in_every_layer(self, short_name(name), layers)
                      ? append_once(list, short_name(name))
                      : json_array_append_new(list, json_string(name)) == 0;
        if (!ok) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static enum fl_status fill_config(const struct fl_adapter *self, struct fl_peft_config *config)
{
    fl_peft_config_init(config);
    config->r = self->rank;
    config->lora_alpha = self->alpha;
    config->lora_dropout = self->dropout;
    config->use_rslora = self->use_rslora;
    config->use_dora = self->use_dora;
    snprintf(config->base_model, sizeof(config->base_model), "%s", self->base_model);
    config->target_modules = target_list(self);
    config->rank_pattern = json_object();
    config->alpha_pattern = json_object();
    if (!config->target_modules || !config->rank_pattern || !config->alpha_pattern)
        return FL_ENOMEM;
    for (uint32_t i = 0; i < self->count; i++) {
        const struct fl_lora_module *m = &self->modules[i];
        config->fan_in_fan_out = config->fan_in_fan_out || fl_peft_is_conv1d(m->module.name);
        if (m->rank != self->rank &&
            json_object_set_new(config->rank_pattern, m->module.name, json_integer(m->rank)) != 0)
            return FL_ENOMEM;
        if (m->alpha != self->alpha && json_object_set_new(config->alpha_pattern, m->module.name,
                                                           fl_peft_number(m->alpha)) != 0)
            return FL_ENOMEM;
    }
    return FL_OK;
}

static enum fl_status write_in(const char *directory, const char *name, const void *bytes,
                               size_t length, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(path, directory, name, error);
    return status == FL_OK ? fl_fs_write(path, bytes, length, 0644, error) : status;
}

enum fl_status fl_adapter_config(const struct fl_adapter *self, struct fl_buf *out)
{
    struct fl_peft_config config;
    enum fl_status status = fill_config(self, &config);
    if (status == FL_OK)
        status = fl_peft_config_print(&config, out);
    fl_peft_config_free(&config);
    return status;
}

static enum fl_status write_config(const struct fl_adapter *self, const char *directory,
                                   struct fl_error *error)
{
    struct fl_buf text;
    fl_buf_init(&text, FL_PEFT_CONFIG_BYTES_MAX);
    enum fl_status status = fl_adapter_config(self, &text);
    if (status != FL_OK)
        status = fl_fail_memory(error);
    else
        status = write_in(directory, FL_PEFT_CONFIG, text.data, text.length, error);
    fl_buf_free(&text);
    return status;
}

static enum fl_status write_all(const struct fl_adapter *self, const char *directory,
                                const char *card, struct fl_error *error)
{
    static const char plain_card[] = "---\nlibrary_name: peft\ntags:\n- lora\n---\n\n"
                                     "# LoRA adapter\n\nTrained with fedlora.\n";
    struct fl_buf weights;
    fl_buf_init(&weights, FL_ADAPTER_BYTES_MAX);
    enum fl_status status = fl_adapter_encode(self, &weights, error);
    if (status == FL_OK)
        status = write_in(directory, FL_PEFT_WEIGHTS, weights.data, weights.length, error);
    if (status == FL_OK)
        status = write_config(self, directory, error);
    if (status == FL_OK)
        status = write_in(directory, "README.md", card ? card : plain_card,
                          strlen(card ? card : plain_card), error);
    fl_buf_free(&weights);
    return status;
}

/* An empty directory, or one that holds an adapter, may be replaced. */
static bool replaceable(const char *directory)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    if (!fl_path_is_directory(directory))
        return false;
    if (fl_path_join(path, directory, FL_PEFT_CONFIG, &error) == FL_OK && fl_path_exists(path))
        return true;
    DIR *dir = opendir(directory);
    if (!dir)
        return false;
    bool empty = true;
    for (struct dirent *e = readdir(dir); e; e = readdir(dir))
        empty = empty && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0);
    closedir(dir);
    return empty;
}

enum fl_status fl_adapter_save(const struct fl_adapter *self, const char *directory,
                               const char *card, struct fl_error *error)
{
    char path[FL_PATH_BYTES], temporary[FL_PATH_BYTES];
    size_t length = strlen(directory);
    while (length > 1 && directory[length - 1] == '/')
        length--;
    int n = snprintf(path, sizeof(path), "%.*s", (int)length, directory);
    if (n <= 0 ||
        snprintf(temporary, sizeof(temporary), "%s.tmp.%ld", path, (long)getpid()) >=
            (int)sizeof(temporary) ||
        length >= sizeof(path))
        return fl_fail(error, FL_ERANGE, "the path of the adapter is empty or too long");
    if (fl_path_exists(path) && !replaceable(path))
        return fl_fail(error, FL_EEXIST, "%s exists and is no adapter directory; it is left alone",
                       path);
    enum fl_status status = fl_fs_remove(temporary, error);
    if (status == FL_OK)
        status = fl_fs_make_directory(temporary, 0755, error);
    if (status == FL_OK)
        status = write_all(self, temporary, card, error);
    if (status == FL_OK)
        status = fl_fs_replace_directory(temporary, path, error);
    if (status != FL_OK) {
        struct fl_error ignored;
        (void)!fl_fs_remove(temporary, &ignored);
    }
    return status;
}

/* ---- loading ---- */

struct pair { /* the tensors of one module; m: with DoRA */
    char name[FL_MODULE_NAME_BYTES];
    const struct fl_tensor_view *a, *b, *m;
    struct fl_module module;
};

static struct pair *pair_of(struct pair *pairs, uint32_t *count, const char *name)
{
    for (uint32_t i = *count; i > 0; i--) { /* A and B of a module are close together */
        if (strcmp(pairs[i - 1].name, name) == 0)
            return &pairs[i - 1];
    }
    struct pair *pair = &pairs[(*count)++];
    snprintf(pair->name, sizeof(pair->name), "%s", name);
    return pair;
}

static enum fl_status collect_pairs(const struct fl_safetensors *file, struct pair *pairs,
                                    uint32_t *count, const char *path, struct fl_error *error)
{
    for (uint32_t i = 0; i < fl_safetensors_count(file); i++) {
        const struct fl_tensor_view *t = fl_safetensors_at(file, i);
        char name[FL_MODULE_NAME_BYTES], factor;
        if (!fl_peft_parse_key(t->name, name, sizeof(name), &factor))
            return fl_fail(error, FL_EFORMAT, "%s: tensor %.120s is not a LoRA A or B of a linear",
                           path, t->name);
        if (t->rank != (factor == 'M' ? 1 : 2) || t->dtype > FL_DTYPE_F64)
            return fl_fail(error, FL_EFORMAT, "%s: tensor %.120s is no %s of floats", path, t->name,
                           factor == 'M' ? "vector" : "matrix");
        struct pair *pair = pair_of(pairs, count, name);
        const struct fl_tensor_view **slot = factor == 'A'   ? &pair->a
                                             : factor == 'B' ? &pair->b
                                                             : &pair->m;
        if (*slot)
            return fl_fail(error, FL_EFORMAT, "%s: tensor %.120s is there twice", path, t->name);
        *slot = t;
    }
    return *count ? FL_OK : fl_fail(error, FL_EFORMAT, "%s holds no tensor", path);
}

static bool find_layer(const char *name, uint32_t *layer)
{
    for (const char *p = strchr(name, '.'); p; p = strchr(p + 1, '.')) {
        char *end;
        unsigned long value = strtoul(p + 1, &end, 10);
        if (end != p + 1 && *end == '.' && value < FL_LAYERS_MAX) {
            *layer = (uint32_t)value;
            return true;
        }
    }
    return false;
}

static enum fl_status check_pair(struct pair *pair, const struct fl_inventory *inventory,
                                 const char *path, struct fl_error *error)
{
    if (!pair->a || !pair->b)
        return fl_fail(error, FL_EFORMAT, "%s: module %s has no lora_%c", path, pair->name,
                       pair->a ? 'B' : 'A');
    struct fl_module *m = &pair->module;
    if (pair->a->shape[0] == 0 || pair->a->shape[0] != pair->b->shape[1] ||
        pair->a->shape[0] > FL_RANK_MAX || pair->a->shape[1] > FL_DIM_MAX ||
        pair->b->shape[0] > FL_DIM_MAX || (pair->m && pair->m->shape[0] != pair->b->shape[0]))
        return fl_fail(error, FL_EFORMAT, "%s: module %s: its tensors do not fit together", path,
                       pair->name);
    m->in = (uint32_t)pair->a->shape[1];
    m->out = (uint32_t)pair->b->shape[0];
    if (!inventory) {
        snprintf(m->name, sizeof(m->name), "%s", pair->name);
        m->layer = 0;
        (void)find_layer(pair->name, &m->layer);
        return FL_OK;
    }
    for (uint32_t i = 0; i < inventory->count; i++) {
        if (strcmp(inventory->modules[i].name, pair->name) != 0)
            continue;
        if (inventory->modules[i].in != m->in || inventory->modules[i].out != m->out)
            return fl_fail(error, FL_EFORMAT,
                           "%s: module %s is %u x %u there, %u x %u in the model", path, pair->name,
                           m->out, m->in, inventory->modules[i].out, inventory->modules[i].in);
        *m = inventory->modules[i];
        return FL_OK;
    }
    return fl_fail(error, FL_EFORMAT, "%s: the model has no linear %s", path, pair->name);
}

/*
 * The file holds exactly the modules that the configuration adapts: a module that is left out, or
 * one too many, would be passed over in silence by whoever reads the adapter next.
 */
static enum fl_status check_selection(const struct pair *pairs, uint32_t count,
                                      const struct fl_inventory *inventory,
                                      const struct fl_peft_config *config, const char *path,
                                      struct fl_error *error)
{
    bool adapts;
    for (uint32_t i = 0; i < count; i++) {
        enum fl_status status = fl_peft_adapts(config, pairs[i].name, &adapts, error);
        if (status != FL_OK)
            return status;
        if (!adapts)
            return fl_fail(error, FL_EFORMAT, "%s: module %s is not among the target_modules", path,
                           pairs[i].name);
    }
    for (uint32_t i = 0, k = 0; inventory && i < inventory->count; i++) {
        const char *name = inventory->modules[i].name;
        if (k < count && strcmp(pairs[k].name, name) == 0) { /* both are in the same order */
            k++;
            continue;
        }
        enum fl_status status = fl_peft_adapts(config, name, &adapts, error);
        if (status != FL_OK)
            return status;
        if (adapts)
            return fl_fail(error, FL_EFORMAT, "%s: target_modules names %s, which is not there",
                           path, name);
    }
    return FL_OK;
}

static int by_layer_and_name(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    if (x->module.layer != y->module.layer)
        return x->module.layer < y->module.layer ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* The inventory's order: move each of its modules that is here to the front, one by one. */
static void order_pairs(struct pair *pairs, uint32_t count, const struct fl_inventory *inventory)
{
    uint32_t placed = 0;
    if (!inventory) {
        qsort(pairs, count, sizeof(*pairs), by_layer_and_name);
        return;
    }
    for (uint32_t i = 0; i < inventory->count && placed < count; i++) {
        for (uint32_t k = placed; k < count; k++) {
            if (strcmp(pairs[k].name, inventory->modules[i].name) != 0)
                continue;
            struct pair swap = pairs[placed];
            pairs[placed++] = pairs[k];
            pairs[k] = swap;
            break;
        }
    }
}

static enum fl_status widen_tensor(const struct fl_tensor_view *t, float *out, const char *path,
                                   struct fl_error *error)
{
    size_t values = (size_t)(t->shape[0] * (t->rank == 2 ? t->shape[1] : 1));
    fl_dtype_widen(t->dtype, t->data, values, out);
    for (size_t i = 0; i < values; i++) {
        if (!isfinite(out[i]))
            return fl_fail(error, FL_EFORMAT, "%s: tensor %.120s holds NaN or Inf", path, t->name);
    }
    return FL_OK;
}

static enum fl_status build(const struct pair *pairs, uint32_t count,
                            const struct fl_peft_config *config, const char *path,
                            struct fl_adapter **out, struct fl_error *error)
{
    struct fl_inventory targets = {.modules = fl_calloc(count, sizeof(struct fl_module)),
                                   .count = count};
    uint32_t *ranks = fl_calloc(count, sizeof(*ranks));
    enum fl_status status = targets.modules && ranks ? FL_OK : fl_fail_memory(error);
    for (uint32_t i = 0; i < count && status == FL_OK; i++) {
        uint32_t stated;
        targets.modules[i] = pairs[i].module;
        ranks[i] = (uint32_t)pairs[i].a->shape[0];
        status = fl_peft_module_rank(config, pairs[i].name, &stated, error);
        if (status == FL_OK && stated != ranks[i])
            status = fl_fail(error, FL_EFORMAT,
                             "%s: module %s has rank %u, the configuration says %u", path,
                             pairs[i].name, ranks[i], stated);
    }
    if (status == FL_OK)
        status = fl_adapter_create(&targets, config->r, config->lora_alpha, ranks, out, error);
    if (status == FL_EINVAL)
        status = FL_EFORMAT;
    if (status == FL_OK && config->use_dora && fl_adapter_add_magnitudes(*out) != FL_OK)
        status = fl_fail_memory(error);
    for (uint32_t i = 0; i < count && status == FL_OK; i++) {
        struct fl_lora_module *m = &(*out)->modules[i];
        if (!pairs[i].m != !config->use_dora) {
            status = fl_fail(
                error, FL_EFORMAT, "%s: module %s has %s lora_magnitude_vector, and use_dora is %s",
                path, pairs[i].name, pairs[i].m ? "a" : "no", config->use_dora ? "true" : "false");
            break;
        }
        status = fl_peft_module_alpha(config, pairs[i].name, &m->alpha, error);
        if (status == FL_OK)
            status = widen_tensor(pairs[i].a, m->a, path, error);
        if (status == FL_OK)
            status = widen_tensor(pairs[i].b, m->b, path, error);
        if (status == FL_OK && m->m)
            status = widen_tensor(pairs[i].m, m->m, path, error);
    }
    if (status != FL_OK)
        fl_adapter_destroy(out);
    fl_free(ranks);
    fl_free(targets.modules);
    return status;
}

static enum fl_status load_weights(const char *path, const struct fl_inventory *inventory,
                                   const struct fl_peft_config *config, struct fl_adapter **out,
                                   struct fl_error *error)
{
    struct fl_safetensors *file = NULL;
    struct pair *pairs = NULL;
    uint32_t count = 0;
    enum fl_status status = fl_safetensors_open(path, &file, error);
    if (status == FL_OK && fl_safetensors_count(file) > 3 * FL_MODULES_MAX)
        status = fl_fail(error, FL_EFORMAT, "%s: more than %d modules", path, FL_MODULES_MAX);
    if (status != FL_OK)
        goto out;
    pairs = fl_calloc(fl_safetensors_count(file), sizeof(*pairs));
    status = pairs ? collect_pairs(file, pairs, &count, path, error) : fl_fail_memory(error);
    for (uint32_t i = 0; i < count && status == FL_OK; i++)
        status = check_pair(&pairs[i], inventory, path, error);
    if (status != FL_OK)
        goto out;
    order_pairs(pairs, count, inventory);
    status = check_selection(pairs, count, inventory, config, path, error);
    if (status == FL_OK)
        status = build(pairs, count, config, path, out, error);
out:
    fl_free(pairs);
    fl_safetensors_close(&file);
    return status;
}

enum fl_status fl_adapter_load(const char *directory, const struct fl_inventory *inventory,
                               struct fl_adapter **out, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_peft_config config;
    *out = NULL;
    enum fl_status status = fl_peft_config_load(directory, &config, error);
    if (status != FL_OK)
        return status;
    status = fl_path_join(path, directory, FL_PEFT_WEIGHTS, error);
    if (status == FL_OK)
        status = load_weights(path, inventory, &config, out, error);
    if (status == FL_OK) {
        struct fl_adapter *self = *out;
        self->use_rslora = config.use_rslora;
        self->dropout = config.lora_dropout;
        snprintf(self->base_model, sizeof(self->base_model), "%s", config.base_model);
        for (uint32_t i = 0; inventory && i < inventory->count; i++) {
            if (inventory->modules[i].layer >= self->layers)
                self->layers = inventory->modules[i].layer + 1;
        }
    }
    fl_peft_config_free(&config);
    return status;
}

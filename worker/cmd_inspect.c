/* cmd_inspect.c - `fedlora-worker inspect`: what a model, an adapter or a tensor file holds. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "adapter/adapter.h"
#include "base/alloc.h"
#include "base/cli.h"
#include "base/fs.h"
#include "base/json.h"
#include "format/gguf.h"
#include "format/hfcache.h"
#include "format/modelref.h"
#include "format/peft.h"
#include "format/safetensors.h"
#include "worker/commands.h"
#include "worker/engine/model.h"

struct inspect {
    const char *path;
    char found[FL_PATH_BYTES]; /* where the cache has it */
    json_t *root;              /* what is printed, in this order */
};

static void put(struct inspect *self, const char *key, json_t *value)
{
    (void)!json_object_set_new(self->root, key, value);
}

/* ---- tensors by type ---- */

struct tally {
    const char *type;
    uint64_t tensors, bytes, values;
};

#define TYPES_MAX 32

static void count_tensor(struct tally *tallies, const char *type, const struct fl_tensor_view *view)
{
    uint64_t values = 1;
    for (uint32_t i = 0; i < view->rank; i++)
        values *= view->shape[i];
    for (int i = 0; i < TYPES_MAX; i++) {
        if (tallies[i].type && strcmp(tallies[i].type, type) != 0)
            continue;
        tallies[i].type = type;
        tallies[i].tensors++;
        tallies[i].bytes += view->bytes;
        tallies[i].values += values;
        return;
    }
}

static void put_tallies(struct inspect *self, const struct tally *tallies)
{
    json_t *types = json_object();
    uint64_t tensors = 0, bytes = 0;
    for (int i = 0; i < TYPES_MAX && tallies[i].type; i++) {
        tensors += tallies[i].tensors;
        bytes += tallies[i].bytes;
        (void)!json_object_set_new(types, tallies[i].type,
                                   json_pack("{s:I,s:I}", "tensors", (json_int_t)tallies[i].tensors,
                                             "bytes", (json_int_t)tallies[i].bytes));
    }
    put(self, "tensors", json_integer((json_int_t)tensors));
    put(self, "bytes", json_integer((json_int_t)bytes));
    put(self, "types", types);
}

static enum fl_status tally_safetensors(struct inspect *self, const char *path,
                                        struct fl_error *error)
{
    struct tally tallies[TYPES_MAX] = {{0}};
    struct fl_safetensors *file = NULL;
    enum fl_status status = fl_safetensors_open(path, &file, error);
    if (status != FL_OK)
        return status;
    for (uint32_t i = 0; i < fl_safetensors_count(file); i++) {
        const struct fl_tensor_view *view = fl_safetensors_at(file, i);
        count_tensor(tallies, fl_dtype_name(view->dtype), view);
    }
    put_tallies(self, tallies);
    fl_safetensors_close(&file);
    return FL_OK;
}

static enum fl_status tally_gguf(struct inspect *self, struct fl_error *error)
{
    struct tally tallies[TYPES_MAX] = {{0}};
    struct fl_gguf *file = NULL;
    enum fl_status status = fl_gguf_open(self->path, &file, error);
    if (status != FL_OK)
        return status;
    for (uint32_t i = 0; i < fl_gguf_tensor_count(file); i++)
        count_tensor(tallies, fl_gguf_type_name(file, i), fl_gguf_tensor(file, i));
    put_tallies(self, tallies);
    fl_gguf_close(&file);
    return FL_OK;
}

/* ---- models ---- */

/* What --targets may name: the linears of the first layer, without what all names begin with. */
static void put_linear_names(struct inspect *self, const struct fl_inventory *inventory)
{
    json_t *names = json_array();
    for (uint32_t i = 0; i < inventory->count && inventory->modules[i].layer == 0; i++) {
        const char *name = strstr(inventory->modules[i].name, ".0.");
        (void)!json_array_append_new(names, json_string(name ? name + 3 : ""));
    }
    put(self, "linear_names", names);
}

static void put_model_config(struct inspect *self, const struct fl_model *model)
{
    const struct fl_model_config *c = fl_model_config(model);
    put(self, "architecture", json_string(c->architecture));
    put(self, "parameters", json_integer((json_int_t)fl_model_parameters(model)));
    put(self, "layers", json_integer(c->layers));
    put(self, "hidden", json_integer(c->hidden));
    put(self, "ffn", json_integer(c->ffn));
    put(self, "heads", json_integer(c->heads));
    put(self, "kv_heads", json_integer(c->kv_heads));
    put(self, "head_dim", json_integer(c->head_dim));
    put(self, "vocab", json_integer(c->vocab));
    put(self, "context", json_integer(c->max_positions));
    put(self, "tied", json_boolean(c->tied));
    put(self, "sliding_window", json_integer(c->sliding_window));
    put(self, "linears", json_integer(fl_model_inventory(model)->count));
    put_linear_names(self, fl_model_inventory(model));
}

static enum fl_status inspect_model(struct inspect *self, bool gguf, struct fl_error *error)
{
    uint8_t manifest[FL_HASH_BYTES];
    char hex[FL_HASH_HEX_BYTES];
    struct fl_model *model = NULL;
    put(self, "kind", json_string(gguf ? "gguf model" : "model directory"));
    enum fl_status status = gguf ? tally_gguf(self, error)
                                 : tally_safetensors(self, self->path, error);
    if (status == FL_OK)
        status = fl_model_open(self->path, &model, error);
    if (status == FL_OK)
        status = fl_modelref_manifest(self->path, manifest, error);
    if (status == FL_OK) {
        put_model_config(self, model);
        fl_hex(manifest, sizeof(manifest), hex);
        put(self, "manifest", json_string(hex));
    }
    fl_model_close(&model);
    return status;
}

/* ---- adapters ---- */

static enum fl_status put_sha256(struct inspect *self, const char *path, struct fl_error *error)
{
    uint8_t hash[FL_HASH_BYTES];
    char hex[FL_HASH_HEX_BYTES];
    enum fl_status status = fl_sha256_file(path, hash, error);
    if (status != FL_OK)
        return status;
    fl_hex(hash, sizeof(hash), hex);
    put(self, "sha256", json_string(hex));
    return FL_OK;
}

static enum fl_status inspect_adapter(struct inspect *self, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_peft_config config;
    struct fl_adapter *adapter = NULL;
    enum fl_status status = fl_peft_config_load(self->path, &config, error);
    if (status != FL_OK)
        return status;
    status = fl_adapter_load(self->path, NULL, &adapter, error);
    if (status == FL_OK)
        status = fl_path_join(path, self->path, FL_PEFT_WEIGHTS, error);
    if (status != FL_OK)
        goto out;
    put(self, "kind", json_string("peft adapter"));
    put(self, "base_model", json_string(config.base_model));
    put(self, "rank", json_integer(config.r));
    put(self, "alpha", json_real(config.lora_alpha));
    put(self, "dropout", json_real(config.lora_dropout));
    put(self, "rslora", json_boolean(config.use_rslora));
    put(self, "dora", json_boolean(config.use_dora));
    put(self, "targets", json_incref(config.target_modules));
    put(self, "rank_pattern",
        config.rank_pattern ? json_incref(config.rank_pattern) : json_object());
    put(self, "modules", json_integer(adapter->count));
    put(self, "trainable_parameters", json_integer((json_int_t)fl_adapter_parameters(adapter)));
    status = tally_safetensors(self, path, error);
    if (status == FL_OK)
        status = put_sha256(self, path, error);
out:
    fl_adapter_destroy(&adapter);
    fl_peft_config_free(&config);
    return status;
}

static bool is_gguf_adapter(const struct fl_gguf *file)
{
    struct fl_gguf_string type;
    return fl_gguf_string(file, "general.type", &type) == FL_OK && type.length == 7 &&
           memcmp(type.data, "adapter", 7) == 0;
}

static json_t *gguf_text(const struct fl_gguf *file, const char *key)
{
    struct fl_gguf_string text;
    return fl_gguf_string(file, key, &text) == FL_OK ? json_stringn(text.data, text.length)
                                                     : json_null();
}

/* A GGUF file says itself whether it is an adapter. */
static enum fl_status inspect_gguf(struct inspect *self, struct fl_error *error)
{
    struct fl_gguf *file = NULL;
    double alpha = 0.0;
    enum fl_status status = fl_gguf_open(self->path, &file, error);
    if (status != FL_OK)
        return status;
    const bool adapter = is_gguf_adapter(file);
    if (adapter) {
        put(self, "kind", json_string("gguf adapter"));
        put(self, "architecture", gguf_text(file, "general.architecture"));
        put(self, "type", gguf_text(file, "adapter.type"));
        if (fl_gguf_f64(file, "adapter.lora.alpha", &alpha) == FL_OK)
            put(self, "alpha", json_real(alpha));
        put(self, "modules", json_integer(fl_gguf_tensor_count(file) / 2));
    }
    fl_gguf_close(&file);
    if (!adapter)
        return inspect_model(self, true, error);
    status = tally_gguf(self, error);
    return status == FL_OK ? put_sha256(self, self->path, error) : status;
}

static enum fl_status inspect_tensors(struct inspect *self, struct fl_error *error)
{
    put(self, "kind", json_string("safetensors"));
    enum fl_status status = tally_safetensors(self, self->path, error);
    return status == FL_OK ? put_sha256(self, self->path, error) : status;
}

static bool holds(const char *directory, const char *name)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    return fl_path_join(path, directory, name, &error) == FL_OK && fl_path_exists(path);
}

static enum fl_status inspect(struct inspect *self, struct fl_error *error)
{
    enum fl_status status = fl_hfcache_find(self->path, self->found, error);
    if (status != FL_OK)
        return status;
    self->path = self->found;
    put(self, "path", json_string(self->path));
    if (!fl_path_exists(self->path))
        return fl_fail(error, FL_ENOTFOUND, "%s: no such file or directory", self->path);
    if (!fl_path_is_directory(self->path))
        return fl_gguf_is(self->path) ? inspect_gguf(self, error) : inspect_tensors(self, error);
    if (holds(self->path, FL_PEFT_CONFIG))
        return inspect_adapter(self, error);
    if (holds(self->path, "config.json"))
        return inspect_model(self, false, error);
    return fl_fail(error, FL_EFORMAT,
                   "%s holds neither config.json (a model) nor adapter_config.json (an adapter)",
                   self->path);
}

static void print_lines(const json_t *root)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)root, key, value)
    {
        char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY);
        printf("%-21s %s\n", key, text ? text : json_string_value(value));
        if (text)
            fl_free(text); /* jansson allocates through fl_alloc */
    }
}

int fl_cmd_inspect(int argc, char **argv)
{
    struct inspect self = {.root = json_object()};
    bool as_json = false;
    const struct fl_option options[] = {
        {.name = "--json",
         .kind = FL_OPTION_FLAG,
         .target = &as_json,
         .doc = "print one JSON object"},
    };
    const struct fl_positional positionals[] = {
        {.name = "PATH",
         .target = &self.path,
         .doc = "a model directory, a GGUF file, an adapter directory, a .safetensors file, or "
                "ORG/NAME in the Hugging Face cache"},
    };
    const struct fl_usage usage = {
        .program = "fedlora-worker inspect",
        .summary =
            "What a model, an adapter or a tensor file holds. For a model, `manifest` is the\n"
            "hash that a job file names.",
        .example = "fedlora-worker inspect --json SmolLM2-135M-Instruct.Q4_1.gguf",
        .options = options,
        .option_count = sizeof(options) / sizeof(options[0]),
        .positionals = positionals,
        .positional_count = 1};
    int code;
    struct fl_error error = {0};
    if (!fl_cli_begin(&usage, argc, argv, &code)) {
        json_decref(self.root);
        return code;
    }
    enum fl_status status = self.root ? inspect(&self, &error) : fl_fail_memory(&error);
    if (status == FL_OK && as_json)
        status = fl_json_print(self.root);
    else if (status == FL_OK)
        print_lines(self.root);
    json_decref(self.root);
    return status == FL_OK ? 0 : fl_cli_fail(usage.program, &error);
}

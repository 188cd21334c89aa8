/*
 * fuzz_peft.c - any bytes as adapter_config.json: refused, or a configuration that can be asked
 * about every module and that, printed and read again, prints the same.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "format/peft.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const modules[] = {"model.layers.0.self_attn.q_proj",
                                      "model.layers.11.mlp.down_proj",
                                      "transformer.h.1.attn.c_attn", "lm_head"};

static const char *directory(void)
{
    static char path[] = "/tmp/fl-fuzz-peft-XXXXXX";
    static bool made;
    if (!made && !mkdtemp(path))
        abort();
    made = true;
    return path;
}

static enum fl_status load(const void *bytes, size_t length, struct fl_peft_config *out)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    if (fl_path_join(path, directory(), FL_PEFT_CONFIG, &error) != FL_OK)
        abort();
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, length, file) != length || fclose(file) != 0)
        abort();
    return fl_peft_config_load(directory(), out, &error);
}

static void ask(const struct fl_peft_config *config, const char *module)
{
    bool adapts;
    uint32_t rank = 1;
    double alpha = 1.0;
    struct fl_error error;
    (void)!fl_peft_adapts(config, module, &adapts, &error);
    if (fl_peft_module_rank(config, module, &rank, &error) == FL_OK && rank == 0)
        abort();
    if (fl_peft_module_alpha(config, module, &alpha, &error) == FL_OK && !(alpha > 0.0))
        abort();
}

static void round_trip(const struct fl_peft_config *config)
{
    struct fl_peft_config again;
    struct fl_buf first, second;
    fl_buf_init(&first, 1u << 24);
    fl_buf_init(&second, 1u << 24);
    if (fl_peft_config_print(config, &first) != FL_OK ||
        load(first.data, first.length, &again) != FL_OK)
        abort();
    if (fl_peft_config_print(&again, &second) != FL_OK || first.length != second.length ||
        memcmp(first.data, second.data, first.length) != 0)
        abort();
    fl_peft_config_free(&again);
    fl_buf_free(&second);
    fl_buf_free(&first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fl_peft_config config;
    char module[160], factor;
    fl_json_init();
    struct fl_buf key;
    fl_buf_init(&key, 1u << 24);
    fl_buf_append(&key, data, size);
    (void)fl_peft_parse_key(fl_buf_text(&key), module, sizeof(module), &factor);
    fl_buf_free(&key);
    if (load(data, size, &config) != FL_OK)
        return 0;
    for (size_t i = 0; i < sizeof(modules) / sizeof(modules[0]); i++)
        ask(&config, modules[i]);
    round_trip(&config);
    fl_peft_config_free(&config);
    return 0;
}

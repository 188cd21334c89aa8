/*
 * peft.h - adapter_config.json of a PEFT LoRA adapter, read and written as PEFT does, and the
 * tensor keys of adapter_model.safetensors.
 *
 * Absent keys take PEFT's defaults; unknown keys are passed over as PEFT does; keys that change the
 * mathematics and are not built here are refused by name.
 * Source: huggingface/peft, LoraConfig; formats in its save_pretrained().
 * Threads: a config belongs to one thread at a time.
 */
#ifndef FL_FORMAT_PEFT_H
#define FL_FORMAT_PEFT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

#define FL_PEFT_CONFIG           "adapter_config.json"
#define FL_PEFT_WEIGHTS          "adapter_model.safetensors"
#define FL_PEFT_CONFIG_BYTES_MAX (8u << 20)

struct fl_peft_config {
    uint32_t r;
    double lora_alpha, lora_dropout;
    bool use_rslora, use_dora;
    bool fan_in_fan_out; /* written only: the base itself says how its weights lie */
    char base_model[256];
    /* owned references; rank_pattern and alpha_pattern are objects or NULL; target_modules and
       exclude_modules arrays of names or a string (a regular expression), or NULL;
       layers_to_transform an integer or an array of them, layers_pattern a string or an array of
       them, or NULL */
    json_t *target_modules, *rank_pattern, *alpha_pattern;
    json_t *exclude_modules, *layers_to_transform, *layers_pattern;
};

/* Defaults; free in any case. */
void fl_peft_config_init(struct fl_peft_config *self);
void fl_peft_config_free(struct fl_peft_config *self);

/* Read DIR/adapter_config.json. FL_ENOTFOUND, FL_EFORMAT with the key. Frees on failure. */
FL_CHECKED enum fl_status fl_peft_config_load(const char *directory, struct fl_peft_config *out,
                                              struct fl_error *error);
/* Append the file as PEFT writes it: every field, sorted, indented by 2. */
FL_CHECKED enum fl_status fl_peft_config_print(const struct fl_peft_config *self,
                                               struct fl_buf *out);

/*
 * Does PEFT adapt this module when no targets are named? q_proj and v_proj of the Llama family,
 * Mistral and Qwen, c_attn of GPT-2; qkv_proj of Phi-3, for which PEFT has no default of its own.
 */
bool fl_peft_is_default_target(const char *module);
/*
 * Does transformers keep this module's weight (in, out)? GPT-2's linears; PEFT then wants
 * fan_in_fan_out in the config. A and B have the usual shapes all the same.
 */
bool fl_peft_is_conv1d(const char *module);

/*
 * Would PEFT adapt this module of a base? target_modules (NULL: the default targets),
 * exclude_modules and layers_to_transform decide, as in PEFT's check_target_module_exists().
 * FL_EFORMAT: a pattern that can't be read.
 */
FL_CHECKED enum fl_status fl_peft_adapts(const struct fl_peft_config *self, const char *module,
                                         bool *adapts, struct fl_error *error);

/*
 * Does a key k of rank_pattern or alpha_pattern mean this module: does the regular expression
 * "(.*\.)?(k)$" match its name? FL_EFORMAT: a pattern that can't be read.
 */
FL_CHECKED enum fl_status fl_peft_key_matches(const char *key, const char *module, bool *matches,
                                              struct fl_error *error);

/*
 * Rank and alpha of one module: those of the first pattern key that matches it
 * (fl_peft_key_matches), else the defaults. FL_EFORMAT: a pattern that can't be read.
 */
FL_CHECKED enum fl_status fl_peft_module_rank(const struct fl_peft_config *self, const char *module,
                                              uint32_t *rank, struct fl_error *error);
FL_CHECKED enum fl_status fl_peft_module_alpha(const struct fl_peft_config *self,
                                               const char *module, double *alpha,
                                               struct fl_error *error);

/* A number as PEFT writes it: without a point where it is whole. A new reference, or NULL. */
json_t *fl_peft_number(double value);

/* "base_model.model." + module + ".lora_A.weight" (factor 'A' or 'B'), or ".lora_magnitude_vector"
 * ('M'), into key (bytes long). */
void fl_peft_key(const char *module, char factor, char *key, size_t bytes);
/*
 * Take a key apart: module (bytes long) and factor. Also the older form with ".default" inside.
 * false: not the key of a LoRA A or B, or of DoRA's magnitudes, of a linear.
 */
bool fl_peft_parse_key(const char *key, char *module, size_t bytes, char *factor);

#endif

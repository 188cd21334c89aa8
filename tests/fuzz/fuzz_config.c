/*
 * fuzz_config.c - what lies beside a model's weights. The first byte chooses:
 *   '{'   config.json: refused, or sizes within their bounds, finite frequencies, and a description
 *         that reads as the same model
 *   'C', 'G', 'T', 'J'   config.json, generation_config.json, tokenizer_config.json and
 *         chat_template.jinja beside a good tokenizer.json: refused, or a tokenizer that encodes
 * and, if its template is known, writes a conversation 'I'   model.safetensors.index.json beside
 * one good shard: refused, or every name is a tensor
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "format/safetensors.h"
#include "worker/data/chat.h"
#include "worker/engine/describe.h"
#include "worker/engine/model_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SHARD "shard.safetensors"

static char directory[] = "/tmp/fedlora-fuzz-XXXXXX";

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void path_of(char out[FL_PATH_BYTES], const char *name)
{
    struct fl_error error;
    must(fl_path_join(out, directory, name, &error) == FL_OK);
}

static void write_file(const char *name, const void *bytes, size_t length)
{
    char path[FL_PATH_BYTES];
    path_of(path, name);
    FILE *file = fopen(path, "wb");
    must(file && fwrite(bytes, 1, length, file) == length && fclose(file) == 0);
}

static void remove_file(const char *name)
{
    char path[FL_PATH_BYTES];
    path_of(path, name);
    (void)unlink(path);
}

static void remove_directory(void)
{
    remove_file("tokenizer.json");
    remove_file(SHARD);
    (void)rmdir(directory);
}

/* One tensor of one float. */
static void write_shard(void)
{
    static const char HEADER[] =
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}  ";
    uint8_t bytes[8 + sizeof HEADER - 1 + 4] = {sizeof HEADER - 1};
    memcpy(bytes + 8, HEADER, sizeof HEADER - 1);
    write_file(SHARD, bytes, sizeof bytes);
}

static void prepare(void)
{
    struct fl_buf text;
    struct fl_error error;
    fl_json_init();
    must(mkdtemp(directory) != NULL);
    (void)atexit(remove_directory);
    must(fl_fs_read(FL_TEST_SOURCE_DIR "/golden/chat/tokenizer/tokenizer.json", 1 << 20, &text,
                    &error) == FL_OK);
    write_file("tokenizer.json", text.data, text.length);
    fl_buf_free(&text);
    write_shard();
}

/* ---- config.json ---- */

static enum fl_status read_model(const void *bytes, size_t length, struct fl_model *out)
{
    static int file = -1;
    char path[64];
    struct fl_error error;
    if (file < 0)
        file = memfd_create("config", 0);
    must(file >= 0 && ftruncate(file, 0) == 0 && pwrite(file, bytes, length, 0) == (ssize_t)length);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    *out = (struct fl_model){.arch = NULL};
    enum fl_status status = fl_model_read_config(out, path, &error);
    for (enum fl_linear_kind k = 0; status == FL_OK && k < FL_LINEAR_COUNT; k++)
        if (out->arch->names->linears[k].hf)
            out->kinds[out->kind_count++] = k;
    return status;
}

static void check_model(const struct fl_model *model)
{
    enum { HALF_MAX = 512 };
    const struct fl_model_config *c = &model->config;
    float inverse[HALF_MAX], cosine[HALF_MAX], sine[HALF_MAX];
    must(c->hidden && c->layers && c->heads && c->kv_heads && c->heads % c->kv_heads == 0);
    must((uint64_t)c->heads * c->head_dim <= FL_DIM_MAX && c->layers <= FL_LAYERS_MAX);
    if (model->arch->names->positions.hf)
        return;
    const struct fl_rope *ropes[] = {&model->rope, model->near.theta > 0.0 ? &model->near : NULL};
    for (size_t r = 0; r < 2 && ropes[r]; r++) {
        fl_rope_frequencies(ropes[r], c->head_dim, inverse);
        fl_rope_table(ropes[r], c->head_dim, 1, cosine, sine);
        for (uint32_t i = 0; i < c->head_dim / 2; i++)
            must(isfinite(inverse[i]) && isfinite(cosine[i]) && isfinite(sine[i]));
    }
}

static void fuzz_model(const void *bytes, size_t length)
{
    struct fl_model model, again;
    struct fl_error error;
    json_t *config = NULL;
    if (read_model(bytes, length, &model) != FL_OK)
        return;
    check_model(&model);
    const enum fl_status status = fl_describe_hf(&model, FL_DTYPE_F32, &config, &error);
    must(status == FL_OK || status == FL_EUSAGE);
    if (status != FL_OK)
        return;
    char *text = json_dumps(config, JSON_REAL_PRECISION(15));
    must(text && read_model(text, strlen(text), &again) == FL_OK);
    const struct fl_model_config *a = &model.config, *b = &again.config;
    must(a->hidden == b->hidden && a->ffn == b->ffn && a->layers == b->layers &&
         a->heads == b->heads && a->kv_heads == b->kv_heads && a->head_dim == b->head_dim &&
         a->vocab == b->vocab && a->tied == b->tied && a->sliding_window == b->sliding_window &&
         model.rope.kind == again.rope.kind &&
         memcmp(model.biases, again.biases, sizeof model.biases) == 0);
    fl_free(text);
    json_decref(config);
}

/* ---- beside a tokenizer ---- */

static void converse(struct fl_tokenizer *tokenizer)
{
    static const char TEXT[] = "[{\"role\":\"system\",\"content\":\" s\"},"
                               "{\"role\":\"user\",\"content\":\"a <s> b\"},"
                               "{\"role\":\"assistant\",\"content\":\"c\"}]";
    struct fl_error error;
    struct fl_chat *chat = NULL;
    struct fl_example example = {0};
    json_t *messages = NULL;
    if (fl_chat_open(tokenizer, "auto", &chat, &error) != FL_OK)
        return;
    must(fl_json_parse(TEXT, sizeof TEXT - 1, "messages", &messages, &error) == FL_OK);
    if (fl_chat_row(chat, messages, false, true, &example, &error) == FL_OK)
        must(example.ids.count == example.labels.count);
    fl_example_free(&example);
    json_decref(messages);
    fl_chat_close(chat);
}

static void fuzz_beside(const char *name, const void *bytes, size_t length)
{
    struct fl_tokenizer *tokenizer = NULL;
    struct fl_error error;
    struct fl_ids ids = {0};
    write_file(name, bytes, length);
    if (fl_tokenizer_open(directory, &tokenizer, &error) == FL_OK) {
        must(fl_tokenizer_encode(tokenizer, "a b", 3, FL_ENCODE_ADD_SPECIAL, &ids, &error) ==
             FL_OK);
        converse(tokenizer);
    }
    fl_ids_free(&ids);
    fl_tokenizer_close(tokenizer);
    remove_file(name);
}

/* ---- an index of shards ---- */

static void fuzz_index(const void *bytes, size_t length)
{
    static const char NAME[] = "model.safetensors.index.json";
    struct fl_safetensors *file = NULL;
    struct fl_error error;
    write_file(NAME, bytes, length);
    if (fl_safetensors_open(directory, &file, &error) == FL_OK)
        must(fl_safetensors_count(file) <= 1);
    fl_safetensors_close(&file);
    remove_file(NAME);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool prepared;
    if (!prepared)
        prepare();
    prepared = true;
    if (size == 0)
        return 0;
    switch (data[0]) {
    case '{':
        fuzz_model(data, size);
        break;
    case 'C':
        fuzz_beside("config.json", data + 1, size - 1);
        break;
    case 'G':
        fuzz_beside("generation_config.json", data + 1, size - 1);
        break;
    case 'T':
        fuzz_beside("tokenizer_config.json", data + 1, size - 1);
        break;
    case 'J':
        fuzz_beside("chat_template.jinja", data + 1, size - 1);
        break;
    case 'I':
        fuzz_index(data + 1, size - 1);
        break;
    default:
        break;
    }
    return 0;
}

/*
 * fuzz_model.c - any bytes as a GGUF file that is opened as a model: refused, or a base whose
 * weights can be widened, whose adapters can be written and which can be described.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/json.h"
#include "worker/engine/describe.h"
#include "worker/engine/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void check_weights(const struct fl_model *model)
{
    enum { MOST = 256 };
    float row[MOST];
    for (uint32_t i = 0; i < fl_model_weight_count(model); i++) {
        const struct fl_weight *w = fl_model_weight(model, i);
        must(w->rows > 0 && w->columns > 0);
        if (w->columns > MOST)
            continue;
        fl_weight_widen(w, 0, 1, row);
        fl_weight_widen(w, w->rows - 1, 1, row);
    }
    must(fl_model_weight(model, fl_model_weight_count(model)) == NULL);
}

static void check_description(const struct fl_model *model)
{
    struct fl_error error;
    struct fl_gguf_writer writer;
    json_t *config = NULL;
    fl_gguf_writer_init(&writer);
    const enum fl_status hf = fl_describe_hf(model, FL_DTYPE_F32, &config, &error);
    const enum fl_status gguf = fl_describe_gguf(model, FL_DTYPE_F32, "x", &writer, &error);
    must((hf == FL_OK) == (config != NULL) && (hf == FL_OK || hf == FL_EUSAGE));
    must(gguf == FL_OK || gguf == FL_EUSAGE);
    json_decref(config);
    fl_gguf_writer_free(&writer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int file = -1;
    char path[64];
    struct fl_error error;
    struct fl_model *model = NULL;
    fl_json_init();
    if (file < 0)
        file = memfd_create("model", 0);
    must(file >= 0 && ftruncate(file, 0) == 0 && pwrite(file, data, size, 0) == (ssize_t)size);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    if (fl_model_open(path, &model, &error) != FL_OK)
        return 0;
    check_weights(model);
    check_description(model);
    fl_model_close(&model);
    return 0;
}

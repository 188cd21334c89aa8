/*
 * fuzz_safetensors.c - any bytes as a safetensors file: refused, or every tensor lies inside the
 * file and has the size that its shape says.
 */
#include <stdlib.h>

#include "base/hash.h"
#include "base/json.h"
#include "format/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_tensor(const struct fl_safetensors *file, uint32_t index, const uint8_t *data,
                         size_t size)
{
    const struct fl_tensor_view *view = fl_safetensors_at(file, index);
    uint64_t values = 1;
    float out[64];
    if (view->data < data || view->bytes > size - (size_t)(view->data - data))
        abort();
    for (uint32_t i = 0; i < view->rank; i++)
        values *= view->shape[i];
    if (!fl_dtype_is_float(view->dtype))
        return;
    if (values * fl_dtype_block_bytes(view->dtype) != view->bytes)
        abort();
    fl_dtype_widen(view->dtype, view->data, values < 64 ? (size_t)values : 64, out);
    if (!fl_safetensors_find(file, view->name))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fl_safetensors *file;
    struct fl_error error;
    fl_json_init();
    if (fl_safetensors_open_memory(data, size, "input", &file, &error) != FL_OK)
        return 0;
    for (uint32_t i = 0; i < fl_safetensors_count(file); i++)
        check_tensor(file, i, data, size);
    fl_safetensors_close(&file);
    return 0;
}

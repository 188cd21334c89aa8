/*
 * fuzz_safetensors.c - any bytes as a safetensors file: refused, or every tensor lies inside the
 * file and has the size that its shape says, and what is stored in four bits can be widened.
 */
#include <stdlib.h>

#include "base/hash.h"
#include "base/json.h"
#include "format/nf4.h"
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

/* Tensors beside it may say that this one is in four bits: then it has all its values. */
static void check_nf4(const struct fl_safetensors *file, uint32_t index)
{
    struct fl_nf4 nf4;
    struct fl_error error;
    float out[64];
    if (fl_nf4_find(file, fl_safetensors_at(file, index)->name, &nf4, &error) != FL_OK)
        return;
    const uint64_t values = nf4.rows * nf4.columns, last = values < 64 ? values : 64;
    fl_nf4_widen(&nf4, 0, (size_t)last, out);
    fl_nf4_widen(&nf4, values - last, (size_t)last, out);
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
    for (uint32_t i = 0; i < fl_safetensors_count(file); i++)
        check_nf4(file, i);
    fl_safetensors_close(&file);
    return 0;
}

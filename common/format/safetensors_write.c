/* safetensors_write.c - the writer; see safetensors.h. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "format/safetensors.h"

static int file_order(const void *a, const void *b)
{
    const struct fl_tensor_view *x = *(const struct fl_tensor_view *const *)a;
    const struct fl_tensor_view *y = *(const struct fl_tensor_view *const *)b;
    size_t xb = fl_dtype_block_bytes(x->dtype), yb = fl_dtype_block_bytes(y->dtype);
    if (xb != yb)
        return xb > yb ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* A name as a JSON string: names are ours, but an exotic one must not break the header. */
static void append_name(struct fl_buf *out, const char *name)
{
    json_t *text = json_string(name);
    char *quoted = text ? json_dumps(text, JSON_ENCODE_ANY) : NULL;
    if (quoted)
        fl_buf_printf(out, "%s", quoted);
    else
        out->status = FL_ENOMEM;
    fl_free(quoted);
    json_decref(text);
}

static void append_header(struct fl_buf *out, const struct fl_tensor_view *const *order,
                          uint32_t count)
{
    uint64_t offset = 0;
    fl_buf_printf(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (uint32_t i = 0; i < count; i++) {
        const struct fl_tensor_view *t = order[i];
        fl_buf_printf(out, ",");
        append_name(out, t->name);
        fl_buf_printf(out, ":{\"dtype\":\"%s\",\"shape\":[", fl_dtype_name(t->dtype));
        for (uint32_t d = 0; d < t->rank; d++)
            fl_buf_printf(out, "%s%" PRIu64, d ? "," : "", t->shape[d]);
        fl_buf_printf(out, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", offset,
                      offset + t->bytes);
        offset += t->bytes;
    }
    fl_buf_printf(out, "}");
    while (out->length % 8 != 0 && fl_buf_status(out) == FL_OK)
        fl_buf_append(out, " ", 1);
}

enum fl_status fl_safetensors_header(const struct fl_tensor_view *tensors, uint32_t count,
                                     uint32_t *order, struct fl_buf *out, struct fl_error *error)
{
    struct fl_buf header;
    fl_buf_init(&header, FL_SAFETENSORS_HEADER_MAX);
    const struct fl_tensor_view **sorted = fl_calloc(count, sizeof(*sorted));
    enum fl_status status = sorted ? FL_OK : fl_fail_memory(error);
    for (uint32_t i = 0; i < count && status == FL_OK; i++) {
        if (tensors[i].dtype > FL_DTYPE_F64)
            status = fl_fail(error, FL_EINVAL, "tensor '%.100s' has no plain type",
                             tensors[i].name);
        sorted[i] = &tensors[i];
    }
    if (status != FL_OK)
        goto out;
    qsort(sorted, count, sizeof(*sorted), file_order);
    append_header(&header, sorted, count);
    for (uint32_t i = 0; i < count; i++)
        order[i] = (uint32_t)(sorted[i] - tensors);
    fl_buf_u64(out, header.length);
    fl_buf_append(out, header.data, header.length);
    status = fl_buf_status(&header) != FL_OK ? fl_buf_status(&header) : fl_buf_status(out);
    if (status == FL_ERANGE)
        status = fl_fail(error, FL_ERANGE, "the tensors are too large for one file");
    else if (status != FL_OK)
        status = fl_fail_memory(error);
out:
    fl_free(sorted);
    fl_buf_free(&header);
    return status;
}

enum fl_status fl_safetensors_write(const struct fl_tensor_view *tensors, uint32_t count,
                                    struct fl_buf *out, struct fl_error *error)
{
    uint32_t *order = fl_calloc(count, sizeof(*order));
    if (!order)
        return fl_fail_memory(error);
    enum fl_status status = fl_safetensors_header(tensors, count, order, out, error);
    for (uint32_t i = 0; i < count && status == FL_OK; i++)
        fl_buf_append(out, tensors[order[i]].data, tensors[order[i]].bytes);
    if (status == FL_OK) {
        status = fl_buf_status(out);
        if (status == FL_ERANGE)
            status = fl_fail(error, FL_ERANGE, "the tensors are too large for one file");
        else if (status != FL_OK)
            status = fl_fail_memory(error);
    }
    fl_free(order);
    return status;
}

/*
 * nf4_read.c - NF4 in a safetensors file: the packed values under the matrix's own name, and beside
 * it NAME.absmax, NAME.quant_map, NAME.nested_absmax, NAME.nested_quant_map and a JSON object in
 * the bytes of NAME.quant_state.bitsandbytes__nf4. The shape is the JSON's.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/limits.h"
#include "format/nf4.h"
#include "format/nf4_internal.h"

enum { STATE_BYTES_MAX = 4096, NAME_BYTES = 512 };

struct source {
    const struct fl_safetensors *file;
    const char *name;
    struct fl_error *error;
};

/* NULL: no such tensor beside the matrix. */
static const struct fl_tensor_view *beside(const struct source *source, const char *suffix)
{
    char name[NAME_BYTES];
    int length = snprintf(name, sizeof name, "%s%s", source->name, suffix);
    if (length < 0 || length >= (int)sizeof name)
        return NULL;
    return fl_safetensors_find(source->file, name);
}

static enum fl_status broken(const struct source *source, const char *what)
{
    return fl_fail(source->error, FL_EFORMAT, "%s: it is stored as NF4, but %s", source->name,
                   what);
}

static bool is_power(uint32_t value, uint32_t low, uint32_t high)
{
    return value >= low && value <= high && (value & (value - 1)) == 0;
}

static bool text_is(const json_t *object, const char *key, const char *wanted)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text && strcmp(text, wanted) == 0;
}

static bool read_shape(const json_t *shape, struct fl_nf4 *out)
{
    const json_t *rows = json_array_get(shape, 0), *columns = json_array_get(shape, 1);
    if (json_array_size(shape) != 2 || !json_is_integer(rows) || !json_is_integer(columns) ||
        json_integer_value(rows) < 1 || json_integer_value(columns) < 1 ||
        json_integer_value(rows) > FL_DIM_MAX || json_integer_value(columns) > FL_DIM_MAX)
        return false;
    out->rows = (uint64_t)json_integer_value(rows);
    out->columns = (uint64_t)json_integer_value(columns);
    return true;
}

static bool read_rounding(const json_t *state, struct fl_nf4 *out)
{
    static const struct {
        const char *name;
        enum fl_dtype dtype;
    } TYPES[] = {{"float32", FL_DTYPE_F32}, {"float16", FL_DTYPE_F16}, {"bfloat16", FL_DTYPE_BF16}};
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        if (!text_is(state, "dtype", TYPES[i].name))
            continue;
        out->rounding = TYPES[i].dtype;
        return true;
    }
    return false;
}

static enum fl_status read_state(const struct source *source, const json_t *state,
                                 struct fl_nf4 *out)
{
    if (!text_is(state, "quant_type", "nf4"))
        return broken(source, "its quant_type is another");
    if (fl_json_u32(state, "blocksize", 0, &out->block) != FL_OK || !is_power(out->block, 32, 4096))
        return broken(source, "its blocksize is no power of two from 32 to 4096");
    if (!read_shape(json_object_get(state, "shape"), out))
        return broken(source, "its shape is not that of a matrix");
    if (!read_rounding(state, out))
        return broken(source, "its dtype is not float32, float16 or bfloat16");
    out->blocks = (out->rows * out->columns + out->block - 1) / out->block;
    if (!beside(source, ".nested_absmax"))
        return FL_OK;
    double offset = NAN;
    if (fl_json_u32(state, "nested_blocksize", 0, &out->nested_block) != FL_OK ||
        !is_power(out->nested_block, 64, 4096))
        return broken(source, "its nested_blocksize is no power of two from 64 to 4096");
    if (fl_json_double(state, "nested_offset", NAN, &offset) != FL_OK || !isfinite((float)offset))
        return broken(source, "its nested_offset is no number");
    out->offset = (float)offset;
    return FL_OK;
}

/* The table of 16 codes may be absent; another one would make other values of them. */
static enum fl_status check_map(const struct source *source)
{
    const struct fl_tensor_view *map = beside(source, ".quant_map");
    float values[16];
    if (!map)
        return FL_OK;
    if (map->dtype != FL_DTYPE_F32 || map->bytes != sizeof values)
        return broken(source, "its quant_map is not of 16 float32");
    fl_dtype_widen(FL_DTYPE_F32, map->data, 16, values);
    for (int i = 0; i < 16; i++) {
        if (!(fabsf(values[i] - fl_nf4_code[i]) < 1e-6f))
            return broken(source, "its quant_map is another");
    }
    return FL_OK;
}

static enum fl_status find_scales(const struct source *source, struct fl_nf4 *out)
{
    const struct fl_tensor_view *absmax = beside(source, ".absmax");
    const struct fl_tensor_view *nested = beside(source, ".nested_absmax");
    const struct fl_tensor_view *map = beside(source, ".nested_quant_map");
    if (!absmax)
        return broken(source, "its absmax is missing");
    if (!nested) {
        if (absmax->dtype != FL_DTYPE_F32 || absmax->bytes != 4 * out->blocks)
            return broken(source, "its absmax does not fit its shape");
        out->scales = absmax->data;
        return FL_OK;
    }
    const uint64_t count = (out->blocks + out->nested_block - 1) / out->nested_block;
    if (absmax->bytes != out->blocks || nested->dtype != FL_DTYPE_F32 || nested->bytes != 4 * count)
        return broken(source, "its absmax or nested_absmax does not fit its shape");
    if (!map || map->dtype != FL_DTYPE_F32 || map->bytes != sizeof out->nested_map)
        return broken(source, "its nested_quant_map is not of 256 float32");
    fl_dtype_widen(FL_DTYPE_F32, map->data, 256, out->nested_map);
    out->codes = absmax->data;
    out->nested_scales = nested->data;
    return FL_OK;
}

static enum fl_status read_matrix(const struct source *source, const json_t *state,
                                  struct fl_nf4 *out)
{
    const struct fl_tensor_view *packed = fl_safetensors_find(source->file, source->name);
    enum fl_status status = read_state(source, state, out);
    if (status == FL_OK && (!packed || packed->bytes != (out->rows * out->columns + 1) / 2))
        status = broken(source, "its bytes do not fit its shape");
    if (status == FL_OK)
        status = check_map(source);
    if (status == FL_OK)
        status = find_scales(source, out);
    if (status == FL_OK)
        out->packed = packed->data;
    return status;
}

enum fl_status fl_nf4_find(const struct fl_safetensors *file, const char *name, struct fl_nf4 *out,
                           struct fl_error *error)
{
    const struct source source = {file, name, error};
    const struct fl_tensor_view *bytes = beside(&source, ".quant_state.bitsandbytes__nf4");
    json_t *state;
    *out = (struct fl_nf4){0};
    if (beside(&source, ".quant_state.bitsandbytes__fp4"))
        return fl_fail(error, FL_EFORMAT,
                       "%s: it is stored as FP4, which is not supported (NF4 is)", name);
    if (!bytes)
        return FL_ENOTFOUND;
    if (bytes->bytes > STATE_BYTES_MAX)
        return broken(&source, "its quant_state is too long");
    enum fl_status status = fl_json_parse((const char *)bytes->data, bytes->bytes, name, &state,
                                          error);
    if (status != FL_OK)
        return status;
    status = read_matrix(&source, state, out);
    json_decref(state);
    if (status != FL_OK)
        *out = (struct fl_nf4){0};
    return status;
}

/* merge.c - see merge.h. */
#include "worker/engine/merge.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "format/narrow.h"
#include "format/nf4.h"
#include "format/safetensors.h"
#include "worker/engine/gguf_names.h"
#include "worker/engine/kernels.h"
#include "worker/engine/model_internal.h"

enum {
    PANEL_FLOATS = 1 << 20,
    TURNED_ROWS = 256, /* of a panel that is turned: whole blocks of every type */
    NAME_BYTES = 64
};

/* One file being written. */
struct output {
    const struct fl_merge *merge;
    bool gguf;
    struct fl_fs_writer file;
    float *panel;   /* (rows, columns) of one weight, owned */
    uint8_t *bytes; /* the same as stored, owned */
    float *factors; /* (rows) of one weight with DoRA, owned; else NULL */
};

static enum fl_dtype own_dtype(const struct fl_merge *self, const struct fl_weight *w)
{
    if (self->dtype != FL_DTYPE_OTHER)
        return self->dtype;
    if (w->nf4) /* what its values were rounded to */
        return w->nf4->rounding;
    if (w->dtype == FL_DTYPE_F64)
        return FL_DTYPE_F32;
    return w->dtype <= FL_DTYPE_BF16 ? w->dtype : FL_DTYPE_F16;
}

static enum fl_dtype stored_dtype(const struct output *self, const struct fl_weight *w)
{
    const struct fl_model *model = self->merge->model;
    const bool positions = model->positions && w == &model->weights[model->positions];
    return self->gguf && (w->vector || positions) ? FL_DTYPE_F32 : own_dtype(self->merge, w);
}

enum fl_dtype fl_merge_dtype(const struct fl_merge *self)
{
    return own_dtype(self, fl_model_module_weight(self->model, 0));
}

/* The adapter's module on this weight; its index, or -1. */
static int64_t module_of(const struct fl_adapter *adapter, const struct fl_weight *w)
{
    for (uint32_t i = 0; adapter && !w->vector && i < adapter->count; i++) {
        const char *name = adapter->modules[i].module.name;
        const size_t length = strlen(name);
        if (strncmp(w->name, name, length) == 0 && strcmp(w->name + length, ".weight") == 0)
            return i;
    }
    return -1;
}

/* out (count) += s B[row] A at the columns [first, first + count) */
static void add_product(const struct fl_adapter *adapter, uint32_t index, size_t row, size_t first,
                        size_t count, float *out)
{
    const struct fl_lora_module *m = &adapter->modules[index];
    const double scale = fl_adapter_scale(adapter, index);
    for (size_t k = 0; k < m->rank; k++) {
        const float factor = (float)(scale * (double)m->b[row * m->rank + k]);
        const float *a = m->a + k * m->module.in + first;
        for (size_t c = 0; c < count; c++)
            out[c] += factor * a[c];
    }
}

/* Row `row` of W + s B A, or of W where no module is on it. */
static void whole_row(const struct output *self, const struct fl_weight *w, int64_t module,
                      size_t row, float *out)
{
    fl_weight_widen(w, (uint32_t)row, 1, out);
    if (module >= 0)
        add_product(self->merge->adapter, (uint32_t)module, row, 0, w->columns, out);
}

static bool has_factors(const struct output *self, int64_t module)
{
    return module >= 0 && self->merge->adapter->use_dora;
}

static size_t rows_at_once(size_t columns)
{
    return columns < PANEL_FLOATS ? PANEL_FLOATS / columns : 1;
}

/* DoRA: what gives each row of W + s B A the length of its magnitude, into self->factors. Once a
   weight: a turned panel has a strip of every row. */
static void find_factors(const struct output *self, const struct fl_weight *w, uint32_t module)
{
    const struct fl_lora_module *m = &self->merge->adapter->modules[module];
    const size_t most = rows_at_once(w->columns);
    for (size_t first = 0; first < w->rows; first += most) {
        const size_t count = w->rows - first < most ? w->rows - first : most;
#pragma omp parallel for schedule(static)
        for (size_t i = 0; i < count; i++) {
            float *row = self->panel + i * w->columns;
            whole_row(self, w, module, first + i, row);
            const double squares = fl_sum_squares(row, w->columns);
            self->factors[first + i] = squares > 0.0 ? m->m[first + i] / (float)sqrt(squares)
                                                     : 0.0f;
        }
    }
}

/* The row that stands at `row` in the file, in Hugging Face's numbering. */
static size_t source_row(const struct output *self, const struct fl_weight *w, size_t row)
{
    const struct fl_model *model = self->merge->model;
    if (!self->gguf || !fl_gguf_interleaves(model->arch, w->name))
        return row;
    return fl_gguf_interleaved_row(row, model->config.head_dim);
}

/* A vector that is stored interleaved is (n, 1), any other (1, n): here always (n, 1). */
static void vector_panel(const struct output *self, const struct fl_weight *w)
{
    float *values = self->panel, *sorted = self->panel + (size_t)w->rows * w->columns;
    const size_t n = (size_t)w->rows * w->columns;
    const struct fl_model *model = self->merge->model;
    /* a Gemma's norms: GGUF has 1 + weight, and it has no other vectors */
    const float shift = model->arch->gemma ? (float)(self->gguf - (model->gguf != NULL)) : 0.0f;
    fl_weight_widen(w, 0, w->rows, values);
    for (size_t i = 0; i < n; i++)
        sorted[i] = values[source_row(self, w, i)] + shift;
    memcpy(values, sorted, n * sizeof *values);
}

/* The panel is rows [first, first + count) as the file has them. */
static void matrix_panel(const struct output *self, const struct fl_weight *w, int64_t module,
                         size_t first, size_t count)
{
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < count; i++) {
        const size_t row = source_row(self, w, first + i);
        float *out = self->panel + i * w->columns;
        whole_row(self, w, module, row, out);
        if (has_factors(self, module))
            fl_scale(out, w->columns, self->factors[row]);
    }
}

/* A linear that a directory stores (in, out): does this file? */
static bool turns(const struct output *self, const struct fl_weight *w)
{
    const struct fl_model *model = self->merge->model;
    if (self->gguf || !model->arch->turned)
        return false;
    for (uint32_t i = 0; i < model->inventory.count; i++)
        if (fl_model_module_weight(model, i) == w)
            return true;
    return false;
}

/* The same where the file's rows are our columns. A strip of one row at a time is turned. */
static void turned_panel(const struct output *self, const struct fl_weight *w, int64_t module,
                         size_t first, size_t count)
{
#pragma omp parallel for schedule(static)
    for (size_t row = 0; row < w->rows; row++) {
        float strip[TURNED_ROWS];
        fl_weight_widen_part(w, (uint32_t)row, (uint32_t)first, (uint32_t)count, strip);
        if (module >= 0)
            add_product(self->merge->adapter, (uint32_t)module, row, first, count, strip);
        if (has_factors(self, module))
            fl_scale(strip, count, self->factors[row]);
        for (size_t i = 0; i < count; i++)
            self->panel[i * w->rows + row] = strip[i];
    }
}

static enum fl_status put_panel(struct output *self, const struct fl_weight *w, size_t count,
                                struct fl_error *error)
{
    const enum fl_dtype dtype = stored_dtype(self, w);
    if (!fl_narrow(dtype, self->panel, count, self->bytes))
        return fl_fail(error, FL_ERANGE,
                       "%s: a value is not finite or does not fit %s; try --dtype bf16 or f32",
                       w->name, fl_dtype_name(dtype));
    return fl_fs_writer_write(&self->file, self->bytes, count * fl_dtype_block_bytes(dtype), error);
}

static enum fl_status put_weight(struct output *self, const struct fl_weight *w,
                                 struct fl_error *error)
{
    if (w->vector) {
        vector_panel(self, w);
        return put_panel(self, w, (size_t)w->rows * w->columns, error);
    }
    const int64_t module = module_of(self->merge->adapter, w);
    const bool turned = turns(self, w);
    const size_t rows = turned ? w->columns : w->rows, columns = turned ? w->rows : w->columns;
    const size_t most = turned ? TURNED_ROWS : rows_at_once(columns);
    enum fl_status status = FL_OK;
    if (has_factors(self, module))
        find_factors(self, w, (uint32_t)module);
    for (size_t first = 0, count; status == FL_OK && first < rows; first += count) {
        count = rows - first < most ? rows - first : most;
        (turned ? turned_panel : matrix_panel)(self, w, module, first, count);
        status = put_panel(self, w, count * columns, error);
        if (status == FL_OK && self->merge->stop && atomic_load(self->merge->stop))
            status = fl_fail(error, FL_ESTOPPED, "stopped while merging");
    }
    return status;
}

static enum fl_status output_open(struct output *self, const struct fl_merge *merge,
                                  const char *path, struct fl_error *error)
{
    size_t widest = PANEL_FLOATS, longest = 1;
    self->merge = merge;
    for (uint32_t i = 0; i < fl_model_weight_count(merge->model); i++) {
        const struct fl_weight *w = fl_model_weight(merge->model, i);
        size_t need = w->vector ? 2 * (size_t)w->rows * w->columns : w->columns;
        if (turns(self, w) && (size_t)TURNED_ROWS * w->rows > need)
            need = (size_t)TURNED_ROWS * w->rows;
        widest = need > widest ? need : widest;
        longest = w->rows > longest ? w->rows : longest;
    }
    if (merge->adapter && merge->adapter->use_dora) {
        self->factors = fl_calloc(longest, sizeof *self->factors);
        if (!self->factors)
            return fl_fail_memory(error);
    }
    self->panel = fl_calloc(widest, sizeof *self->panel);
    self->bytes = fl_calloc(widest, sizeof(float));
    if (!self->panel || !self->bytes)
        return fl_fail_memory(error);
    return fl_fs_writer_open(&self->file, path, 0644, error);
}

static void output_close(struct output *self)
{
    fl_free(self->panel);
    fl_free(self->bytes);
    fl_free(self->factors);
}

/* Shape and type of a weight as it is written; data stays NULL. */
static struct fl_tensor_view view_of(const struct output *self, const struct fl_weight *w)
{
    const bool turned = turns(self, w);
    struct fl_tensor_view view = {
        .name = w->name,
        .dtype = stored_dtype(self, w),
        .rank = w->vector ? 1 : 2,
        .shape = {turned ? w->columns : w->rows, turned ? w->rows : w->columns}};
    if (w->vector)
        view.shape[0] = (uint64_t)w->rows * w->columns;
    view.bytes = (size_t)w->rows * w->columns * fl_dtype_block_bytes(view.dtype);
    return view;
}

static enum fl_status write_safetensors(struct output *self, struct fl_error *error)
{
    const struct fl_model *model = self->merge->model;
    const uint32_t count = fl_model_weight_count(model);
    struct fl_tensor_view *views = fl_calloc(count, sizeof *views);
    uint32_t *order = fl_calloc(count, sizeof *order);
    struct fl_buf header;
    fl_buf_init(&header, FL_SAFETENSORS_HEADER_MAX);
    enum fl_status status = views && order ? FL_OK : fl_fail_memory(error);
    for (uint32_t i = 0; status == FL_OK && i < count; i++)
        views[i] = view_of(self, fl_model_weight(model, i));
    if (status == FL_OK)
        status = fl_safetensors_header(views, count, order, &header, error);
    if (status == FL_OK)
        status = fl_fs_writer_write(&self->file, header.data, header.length, error);
    for (uint32_t i = 0; status == FL_OK && i < count; i++)
        status = put_weight(self, fl_model_weight(model, order[i]), error);
    fl_buf_free(&header);
    fl_free(order);
    fl_free(views);
    return status;
}

enum fl_status fl_merge_safetensors(const struct fl_merge *self, const char *path,
                                    struct fl_error *error)
{
    struct output out = {.file.fd = -1};
    enum fl_status status = output_open(&out, self, path, error);
    if (status == FL_OK) {
        status = write_safetensors(&out, error);
        if (status == FL_OK)
            status = fl_fs_writer_commit(&out.file, error);
        fl_fs_writer_close(&out.file);
    }
    output_close(&out);
    return status;
}

/* ---- GGUF ---- */

/* Divisors of the rotation's frequencies, which GGUF spells out instead of llama3's formula. */
static enum fl_status divisors_of(const struct fl_model *model, float **out, struct fl_error *error)
{
    const uint32_t half = model->config.head_dim / 2;
    *out = NULL;
    if (model->rope.kind != FL_ROPE_LLAMA3 && !model->rope.divisors)
        return FL_OK;
    struct fl_rope plain = model->rope;
    float *scaled = fl_calloc(half, sizeof *scaled), *base = fl_calloc(half, sizeof *base);
    if (!scaled || !base) {
        fl_free(scaled);
        fl_free(base);
        return fl_fail_memory(error);
    }
    plain.divisors = NULL;
    plain.kind = model->rope.kind == FL_ROPE_LLAMA3 ? FL_ROPE_DEFAULT : model->rope.kind;
    fl_rope_frequencies(&model->rope, model->config.head_dim, scaled);
    fl_rope_frequencies(&plain, model->config.head_dim, base);
    for (uint32_t i = 0; i < half; i++)
        base[i] = model->rope.divisors ? model->rope.divisors[i] : base[i] / scaled[i];
    fl_free(scaled);
    *out = base;
    return FL_OK;
}

static enum fl_status add_tensors(const struct output *self, struct fl_gguf_writer *writer,
                                  struct fl_error *error)
{
    for (uint32_t i = 0; i < fl_model_weight_count(self->merge->model); i++) {
        const struct fl_tensor_view view = view_of(self, fl_model_weight(self->merge->model, i));
        char name[NAME_BYTES];
        if (!fl_gguf_tensor_name(self->merge->model->arch, view.name, name, sizeof name))
            return fl_fail(error, FL_EUSAGE, "%s has no name in GGUF files", view.name);
        fl_gguf_add_tensor(writer, name, view.dtype, view.rank, view.shape);
    }
    return FL_OK;
}

static enum fl_status pad(struct output *self, struct fl_error *error)
{
    static const uint8_t zeros[FL_GGUF_ALIGNMENT];
    return fl_fs_writer_write(&self->file, zeros, fl_gguf_padding(self->file.offset), error);
}

static enum fl_status write_gguf(struct output *self, struct fl_gguf_writer *writer,
                                 struct fl_error *error)
{
    const struct fl_model *model = self->merge->model;
    const uint64_t half[] = {model->config.head_dim / 2};
    struct fl_buf header;
    float *divisors = NULL;
    fl_buf_init(&header, SIZE_MAX);
    enum fl_status status = add_tensors(self, writer, error);
    if (status == FL_OK)
        status = divisors_of(model, &divisors, error);
    if (status == FL_OK && divisors)
        fl_gguf_add_tensor(writer, "rope_freqs.weight", FL_DTYPE_F32, 1, half);
    if (status == FL_OK && fl_gguf_writer_header(writer, &header) != FL_OK)
        status = fl_fail_memory(error);
    if (status == FL_OK)
        status = fl_fs_writer_write(&self->file, header.data, header.length, error);
    for (uint32_t i = 0; status == FL_OK && i < fl_model_weight_count(model); i++) {
        status = put_weight(self, fl_model_weight(model, i), error);
        if (status == FL_OK)
            status = pad(self, error);
    }
    if (status == FL_OK && divisors)
        status = fl_fs_writer_write(&self->file, divisors, half[0] * sizeof *divisors, error);
    if (status == FL_OK)
        status = pad(self, error);
    fl_buf_free(&header);
    fl_free(divisors);
    return status;
}

enum fl_status fl_merge_gguf(const struct fl_merge *self, struct fl_gguf_writer *writer,
                             const char *path, struct fl_error *error)
{
    struct output out = {.file.fd = -1, .gguf = true};
    enum fl_status status = output_open(&out, self, path, error);
    if (status == FL_OK) {
        status = write_gguf(&out, writer, error);
        if (status == FL_OK)
            status = fl_fs_writer_commit(&out.file, error);
        fl_fs_writer_close(&out.file);
    }
    output_close(&out);
    return status;
}

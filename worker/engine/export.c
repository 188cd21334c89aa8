/* export.c - see export.h. */
#include "worker/engine/export.h"

#include <stdio.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "format/gguf_write.h"
#include "format/narrow.h"
#include "worker/engine/gguf_names.h"
#include "worker/engine/model_internal.h"

enum { NAME_BYTES = 64 }; /* of a GGUF tensor, with its NUL */

struct export
{
    const struct fl_model *model;
    const struct fl_adapter *adapter;
    enum fl_dtype dtype;
    double alpha; /* of the file */
    struct fl_fs_writer file;
    uint8_t *bytes; /* one factor as stored, owned */
    float *rows;    /* one factor, owned */
};

static uint64_t element_bytes(const struct export *self)
{
    return fl_dtype_block_bytes(self->dtype);
}

/* "blk.0.attn_q.weight.lora_a" */
static enum fl_status factor_name(const struct export *self, const struct fl_lora_module *m,
                                  char factor, char out[NAME_BYTES], struct fl_error *error)
{
    char stored[NAME_BYTES];
    if (!fl_gguf_tensor_name(self->model->arch, m->module.name, stored, sizeof stored) ||
        snprintf(out, NAME_BYTES, "%s.weight.lora_%c", stored, factor) >= NAME_BYTES)
        return fl_fail(error, FL_EUSAGE, "%s has no name in GGUF adapters", m->module.name);
    return FL_OK;
}

static enum fl_status write_header(struct export *self, struct fl_error *error)
{
    const struct fl_adapter *a = self->adapter;
    struct fl_gguf_writer writer;
    struct fl_buf header;
    enum fl_status status = FL_OK;
    fl_gguf_writer_init(&writer);
    fl_buf_init(&header, 1u << 30);
    fl_gguf_put_string(&writer, "general.type", "adapter");
    fl_gguf_put_string(&writer, "general.architecture", self->model->arch->gguf);
    if (a->base_model[0])
        fl_gguf_put_string(&writer, "general.base_model.0.name", a->base_model);
    fl_gguf_put_string(&writer, "adapter.type", "lora");
    fl_gguf_put_f32(&writer, "adapter.lora.alpha", (float)self->alpha);
    for (uint32_t i = 0; status == FL_OK && i < a->count; i++) {
        const struct fl_lora_module *m = &a->modules[i];
        const uint64_t shape_a[] = {m->rank, m->module.in}, shape_b[] = {m->module.out, m->rank};
        char name[NAME_BYTES];
        status = factor_name(self, m, 'a', name, error);
        if (status)
            break;
        fl_gguf_add_tensor(&writer, name, self->dtype, 2, shape_a);
        status = factor_name(self, m, 'b', name, error);
        fl_gguf_add_tensor(&writer, name, self->dtype, 2, shape_b);
    }
    if (status == FL_OK && fl_gguf_writer_header(&writer, &header) != FL_OK)
        status = fl_fail_memory(error);
    if (status == FL_OK)
        status = fl_fs_writer_write(&self->file, header.data, header.length, error);
    fl_gguf_writer_free(&writer);
    fl_buf_free(&header);
    return status;
}

static enum fl_status write_factor(struct export *self, const float *values, size_t count,
                                   const char *module, struct fl_error *error)
{
    static const uint8_t zeros[FL_GGUF_ALIGNMENT];
    const size_t bytes = count * element_bytes(self);
    if (!fl_narrow(self->dtype, values, count, self->bytes))
        return fl_fail(error, FL_ERANGE, "%s: a value does not fit %s; use --dtype f32", module,
                       fl_dtype_name(self->dtype));
    enum fl_status status = fl_fs_writer_write(&self->file, self->bytes, bytes, error);
    if (status == FL_OK)
        status = fl_fs_writer_write(&self->file, zeros, fl_gguf_padding(bytes), error);
    return status;
}

/* B with its rows in the base's order and the module's own scale folded in. */
static void fold(const struct export *self, uint32_t index)
{
    const struct fl_lora_module *m = &self->adapter->modules[index];
    const size_t d = self->model->config.head_dim, r = m->rank;
    const double own = fl_adapter_scale(self->adapter, index) * (double)m->rank;
    const bool interleaved = fl_gguf_interleaves(self->model->arch, m->module.name);
    const bool same = own == self->alpha;
    for (size_t row = 0; row < m->module.out; row++) {
        const float *from = m->b + (interleaved ? fl_gguf_interleaved_row(row, d) : row) * r;
        for (size_t k = 0; k < r; k++)
            self->rows[row * r + k] = same ? from[k]
                                           : (float)((double)from[k] * (own / self->alpha));
    }
}

static enum fl_status write_modules(struct export *self, struct fl_error *error)
{
    enum fl_status status = FL_OK;
    for (uint32_t i = 0; status == FL_OK && i < self->adapter->count; i++) {
        const struct fl_lora_module *m = &self->adapter->modules[i];
        const size_t a = (size_t)m->rank * m->module.in, b = (size_t)m->rank * m->module.out;
        status = write_factor(self, m->a, a, m->module.name, error);
        fold(self, i);
        if (status == FL_OK)
            status = write_factor(self, self->rows, b, m->module.name, error);
    }
    return status;
}

static enum fl_status take_memory(struct export *self, struct fl_error *error)
{
    size_t most = 1;
    for (uint32_t i = 0; i < self->adapter->count; i++) {
        const struct fl_lora_module *m = &self->adapter->modules[i];
        const size_t widest = m->module.in > m->module.out ? m->module.in : m->module.out;
        most = m->rank * widest > most ? m->rank * widest : most;
    }
    self->bytes = fl_calloc(most, element_bytes(self));
    self->rows = fl_calloc(most, sizeof *self->rows);
    return self->bytes && self->rows ? FL_OK : fl_fail_memory(error);
}

enum fl_status fl_export_gguf(const struct fl_model *model, const struct fl_adapter *adapter,
                              enum fl_dtype dtype, const char *path, struct fl_error *error)
{
    struct export self = {.model = model, .adapter = adapter, .dtype = dtype};
    self.alpha = fl_adapter_scale(adapter, 0) * (double)adapter->modules[0].rank;
    enum fl_status status = fl_adapter_refuse_dora(adapter, "GGUF adapters", error);
    if (status == FL_OK)
        status = take_memory(&self, error);
    if (status == FL_OK)
        status = fl_fs_writer_open(&self.file, path, 0644, error);
    if (status == FL_OK) {
        status = write_header(&self, error);
        if (status == FL_OK)
            status = write_modules(&self, error);
        if (status == FL_OK)
            status = fl_fs_writer_commit(&self.file, error);
        fl_fs_writer_close(&self.file);
    }
    fl_free(self.bytes);
    fl_free(self.rows);
    return status;
}

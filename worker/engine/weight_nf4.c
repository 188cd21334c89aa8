/*
 * weight_nf4.c - weights of four bits: found in a Hugging Face directory, or made of what a model
 * stores in other types, a panel of rows at a time.
 */
#include <omp.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "format/nf4.h"
#include "worker/engine/model_internal.h"

/* So many rows hold whole blocks, whatever the columns are. */
enum { PANEL_ROWS = FL_NF4_BLOCK };

enum fl_status fl_weight_find_nf4(const struct fl_model *self, const char *name, uint32_t rows,
                                  uint32_t columns, struct fl_weight *out, struct fl_error *error)
{
    struct fl_nf4 found;
    if (!self->tensors)
        return FL_ENOTFOUND;
    enum fl_status status = fl_nf4_find(self->tensors, name, &found, error);
    if (status)
        return status;
    if (found.rows != rows || found.columns != columns)
        return fl_fail(error, FL_EFORMAT, "%s: its shape does not fit the configuration", name);
    struct fl_nf4 *nf4 = fl_calloc(1, sizeof *nf4);
    if (!nf4)
        return fl_fail_memory(error);
    *nf4 = found;
    *out = (struct fl_weight){
        .dtype = FL_DTYPE_NF4, .rows = rows, .columns = columns, .data = nf4->packed, .nf4 = nf4};
    (void)snprintf(out->name, sizeof out->name, "%s", name);
    return FL_OK;
}

/* ---- making them ---- */

struct job {
    const struct fl_weight *weight;
    struct fl_nf4 *nf4;
    float *panels; /* (threads, PANEL_ROWS, widest) */
    size_t panel_floats;
    uint32_t threads;
    struct fl_error *error;
};

static enum fl_status put_panel(const struct job *job, uint32_t first, struct fl_error *error)
{
    const struct fl_weight *w = job->weight;
    const uint32_t left = w->rows - first, count = left < PANEL_ROWS ? left : PANEL_ROWS;
    float *panel = job->panels + (size_t)omp_get_thread_num() * job->panel_floats;
    fl_weight_widen(w, first, count, panel);
    return fl_nf4_put(job->nf4, (uint64_t)first * w->columns, panel, (size_t)count * w->columns,
                      error);
}

static enum fl_status put_all(const struct job *job)
{
    enum fl_status status = FL_OK;
    const uint32_t panels = (job->weight->rows + PANEL_ROWS - 1) / PANEL_ROWS;
#pragma omp parallel for schedule(static) num_threads((int)job->threads)
    for (uint32_t i = 0; i < panels; i++) {
        struct fl_error own = {0};
        if (put_panel(job, i * PANEL_ROWS, &own) != FL_OK) {
#pragma omp critical
            {
                *job->error = own;
                status = own.status;
            }
        }
    }
    return status;
}

static enum fl_status quantize(struct job *job, struct fl_weight *weight)
{
    struct fl_nf4 *nf4 = fl_calloc(1, sizeof *nf4);
    if (!nf4)
        return fl_fail_memory(job->error);
    job->weight = weight;
    job->nf4 = nf4;
    enum fl_status status = fl_nf4_begin(nf4, weight->rows, weight->columns, weight->dtype,
                                         job->error);
    if (!status)
        status = put_all(job);
    if (!status)
        status = fl_nf4_finish(nf4, job->error);
    if (status) {
        fl_nf4_free(nf4);
        fl_free(nf4);
        fl_error_prefix(job->error, "%s", weight->name);
        return status;
    }
    if (weight->turned)
        fl_free((void *)(uintptr_t)weight->data);
    else
        fl_fs_forget(weight->data,
                     weight->rows * fl_dtype_row_bytes(weight->dtype, weight->columns));
    weight->turned = false;
    weight->dtype = FL_DTYPE_NF4;
    weight->data = nf4->packed;
    weight->nf4 = nf4;
    weight->interleave = 0; /* what is widened is in Hugging Face's order */
    return FL_OK;
}

static struct fl_weight *module_weight(struct fl_model *self, uint32_t index)
{
    return &self->weights[fl_model_module_weight(self, index) - self->weights];
}

enum fl_status fl_model_quantize(struct fl_model *self, uint32_t threads, struct fl_error *error)
{
    struct job job = {.threads = threads ? threads : (uint32_t)omp_get_num_procs(), .error = error};
    uint32_t widest = 0;
    for (uint32_t i = 0; i < self->inventory.count; i++) {
        const uint32_t columns = module_weight(self, i)->columns;
        widest = columns > widest ? columns : widest;
    }
    job.panel_floats = (size_t)PANEL_ROWS * widest;
    job.panels = fl_calloc_aligned(job.threads * job.panel_floats, sizeof *job.panels);
    enum fl_status status = job.panels ? FL_OK : fl_fail_memory(error);
    for (uint32_t i = 0; !status && i < self->inventory.count; i++) {
        struct fl_weight *weight = module_weight(self, i);
        if (!weight->nf4)
            status = quantize(&job, weight);
    }
    fl_free(job.panels);
    return status;
}

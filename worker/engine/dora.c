/* dora.c - see dora.h. Sums of squares are in double, each row by one thread. */
#include "worker/engine/dora.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/alloc.h"
#include "worker/engine/gemm.h"
#include "worker/engine/kernels.h"

/* What the norms of a linear are made of. */
struct source {
    const struct fl_weight *weight; /* (out, in) */
    const float *a, *b;             /* (rank, in), (out, rank) */
    size_t rank;
    float scale;
};

static void norms_of(const struct source *self, uint32_t first, uint32_t count, float *panel,
                     float *norms)
{
    const size_t in = self->weight->columns, rank = self->rank;
    fl_weight_widen(self->weight, first, count, panel);
    fl_gemm_nn(count, in, rank, self->scale, self->b + first * rank, rank, self->a, in, 1.0f, panel,
               in);
    for (size_t i = 0; i < count; i++)
        norms[i] = (float)sqrt(fl_sum_squares(panel + i * in, in));
}

/* norms (out); panels (threads, FL_PANEL_ROWS, in) is scratch. */
static void all_norms(const struct source *self, uint32_t threads, float *panels, float *norms)
{
    const uint32_t out = self->weight->rows;
#pragma omp parallel for schedule(static) num_threads((int)threads)
    for (uint32_t first = 0; first < out; first += FL_PANEL_ROWS) {
        const uint32_t left = out - first, count = left < FL_PANEL_ROWS ? left : FL_PANEL_ROWS;
        const size_t room = (size_t)FL_PANEL_ROWS * self->weight->columns;
        norms_of(self, first, count, panels + (size_t)omp_get_thread_num() * room, norms + first);
    }
}

void fl_dora_factors(const struct fl_work *work, const struct fl_linear *linear)
{
    const struct source source = {linear->weight, linear->a, linear->b, linear->rank,
                                  linear->scale};
    all_norms(&source, work->threads, work->panel, linear->norm);
    for (size_t j = 0; j < linear->out; j++) /* a row of zeros has no direction to scale */
        linear->factor[j] = linear->norm[j] > 0.0f ? linear->m[j] / linear->norm[j] : 0.0f;
}

static const struct fl_weight *weight_of(const struct fl_model *model,
                                         const struct fl_lora_module *module)
{
    const struct fl_inventory *inventory = fl_model_inventory(model);
    for (uint32_t i = 0; i < inventory->count; i++)
        if (strcmp(inventory->modules[i].name, module->module.name) == 0)
            return fl_model_module_weight(model, i);
    return NULL;
}

enum fl_status fl_dora_start(const struct fl_model *model, struct fl_adapter *adapter,
                             uint32_t threads, struct fl_error *error)
{
    uint32_t widest = 1;
    if (fl_adapter_add_magnitudes(adapter) != FL_OK)
        return fl_fail_memory(error);
    threads = threads ? threads : (uint32_t)omp_get_num_procs();
    for (uint32_t i = 0; i < adapter->count; i++)
        widest = adapter->modules[i].module.in > widest ? adapter->modules[i].module.in : widest;
    float *panels = fl_calloc_aligned((size_t)threads * FL_PANEL_ROWS * widest, sizeof *panels);
    enum fl_status status = panels ? FL_OK : fl_fail_memory(error);
    for (uint32_t i = 0; status == FL_OK && i < adapter->count; i++) {
        struct fl_lora_module *m = &adapter->modules[i];
        const struct source source = {weight_of(model, m), m->a, m->b, m->rank,
                                      (float)fl_adapter_scale(adapter, i)};
        if (!source.weight)
            status = fl_fail(error, FL_EINVAL, "the model has no linear %s", m->module.name);
        else
            all_norms(&source, threads, panels, m->m);
    }
    fl_free(panels);
    return status;
}

enum fl_status fl_dora_distance(const struct fl_model *model, const struct fl_adapter *adapter,
                                uint32_t threads, double *out, struct fl_error *error)
{
    struct fl_adapter *own = NULL;
    double sum = 0.0;
    uint64_t rows = 0;
    *out = 0.0;
    enum fl_status status = fl_adapter_copy(adapter, &own) == FL_OK ? FL_OK : fl_fail_memory(error);
    if (status == FL_OK)
        status = fl_dora_start(model, own, threads, error);
    for (uint32_t i = 0; status == FL_OK && i < own->count; i++) {
        for (uint32_t j = 0; j < own->modules[i].module.out; j++) {
            const double n = (double)own->modules[i].m[j], m = (double)adapter->modules[i].m[j];
            sum += n > 0.0 ? fabs(m - n) / n : 0.0;
            rows += n > 0.0;
        }
    }
    fl_adapter_destroy(&own);
    if (status == FL_OK && rows > 0)
        *out = sum / (double)rows;
    return status;
}

/* optimizer.c - see optimizer.h. The state is one block: m and v of every trained tensor, in the
 * adapter's order, A before B. */
#include "worker/engine/optimizer.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "worker/engine/kernels.h"

static const char MAGIC[8] = {'f', 'l', 'o', 'p', 't', 'i', 'm', '1'};

struct fl_optimizer {
    struct fl_optimizer_options options;
    uint64_t steps;
    uint64_t values; /* trained parameters */
    float *m, *v;    /* (values) each, one block; NULL for SGD */
};

struct fl_optimizer_options fl_optimizer_defaults(void)
{
    return (struct fl_optimizer_options){.kind = FL_OPTIMIZER_ADAMW,
                                         .beta1 = 0.9,
                                         .beta2 = 0.999,
                                         .epsilon = 1e-8,
                                         .weight_decay = 0.0,
                                         .grad_clip = 1.0,
                                         .train = FL_TRAIN_BOTH};
}

/* One trained tensor of the adapter. */
struct tensor {
    float *p;       /* NULL: this factor is frozen */
    const float *g; /* its gradient */
    size_t n;
    double lr;
};

/* Tensor i of the adapter: A of module i / 2, or its B. */
static struct tensor tensor_at(const struct fl_optimizer *self, const struct fl_adapter *adapter,
                               const struct fl_gradient *gradients, uint32_t i)
{
    const struct fl_lora_module *module = &adapter->modules[i / 2];
    const unsigned factor = i % 2 ? FL_TRAIN_B : FL_TRAIN_A;
    struct tensor t = {0};
    if (!(self->options.train & factor))
        return t;
    t.p = factor == FL_TRAIN_A ? module->a : module->b;
    t.n = (size_t)module->rank * (factor == FL_TRAIN_A ? module->module.in : module->module.out);
    if (gradients)
        t.g = factor == FL_TRAIN_A ? gradients[i / 2].a : gradients[i / 2].b;
    return t;
}

static bool options_make_sense(const struct fl_optimizer_options *o)
{
    const bool adam = o->beta1 >= 0.0 && o->beta1 < 1.0 && o->beta2 >= 0.0 && o->beta2 < 1.0 &&
                      o->epsilon > 0.0;
    return (o->kind == FL_OPTIMIZER_SGD || adam) && isfinite(o->weight_decay) &&
           o->weight_decay >= 0.0 && isfinite(o->grad_clip) && o->grad_clip >= 0.0 &&
           (o->train & FL_TRAIN_BOTH);
}

enum fl_status fl_optimizer_create(const struct fl_adapter *adapter,
                                   const struct fl_optimizer_options *options,
                                   struct fl_optimizer **out, struct fl_error *error)
{
    *out = NULL;
    if (!options_make_sense(options))
        return fl_fail(error, FL_ERANGE, "the optimizer's settings are out of range");
    struct fl_optimizer *self = fl_calloc(1, sizeof *self);
    if (!self)
        return fl_fail_memory(error);
    self->options = *options;
    for (uint32_t i = 0; i < 2 * adapter->count; i++)
        self->values += tensor_at(self, adapter, NULL, i).n;
    if (options->kind == FL_OPTIMIZER_ADAMW) {
        self->m = fl_calloc_aligned(self->values, 2 * sizeof *self->m);
        if (!self->m) {
            fl_optimizer_destroy(&self);
            return fl_fail_memory(error);
        }
        self->v = self->m + self->values;
    }
    *out = self;
    return FL_OK;
}

void fl_optimizer_destroy(struct fl_optimizer **self)
{
    if (!*self)
        return;
    fl_free((*self)->m);
    fl_free(*self);
    *self = NULL;
}

uint64_t fl_optimizer_steps(const struct fl_optimizer *self)
{
    return self->steps;
}

static double global_norm(const struct fl_optimizer *self, const struct fl_adapter *adapter,
                          const struct fl_gradient *gradients, double divisor)
{
    double total = 0.0;
    for (uint32_t i = 0; i < 2 * adapter->count; i++) {
        const struct tensor t = tensor_at(self, adapter, gradients, i);
        if (t.p)
            total += fl_sum_squares(t.g, t.n);
    }
    return sqrt(total) / divisor;
}

static void update(const struct fl_optimizer *self, const struct tensor *t, double factor, float *m,
                   float *v)
{
    const struct fl_optimizer_options *o = &self->options;
    if (o->kind == FL_OPTIMIZER_SGD) {
        for (size_t i = 0; i < t->n; i++) {
            const float g = t->g[i] * (float)factor + (float)o->weight_decay * t->p[i];
            t->p[i] -= (float)t->lr * g;
        }
        return;
    }
    const double steps = (double)self->steps;
    const struct fl_adamw c = {.decay = (float)(1.0 - t->lr * o->weight_decay),
                               .rate1 = (float)(1.0 - o->beta1),
                               .beta2 = (float)o->beta2,
                               .rate2 = (float)(1.0 - o->beta2),
                               .step = (float)(t->lr / (1.0 - pow(o->beta1, steps))),
                               .correction = (float)sqrt(1.0 - pow(o->beta2, steps)),
                               .epsilon = (float)o->epsilon,
                               .gradient = (float)factor};
    fl_adamw_update(&c, t->g, t->n, t->p, m, v);
}

enum fl_status fl_optimizer_step(struct fl_optimizer *self, struct fl_adapter *adapter,
                                 const struct fl_gradient *gradients, double divisor, double lr_a,
                                 double lr_b, double *norm, struct fl_error *error)
{
    const double length = global_norm(self, adapter, gradients, divisor);
    if (norm)
        *norm = length;
    if (!isfinite(length))
        return fl_fail(error, FL_ERANGE,
                       "the gradient is not finite: lower the learning rate or check the data");
    double factor = 1.0 / divisor;
    if (self->options.grad_clip > 0.0 && self->options.grad_clip < length + 1e-6)
        factor *= self->options.grad_clip / (length + 1e-6);
    self->steps++;
    size_t at = 0;
    for (uint32_t i = 0; i < 2 * adapter->count; i++) {
        struct tensor t = tensor_at(self, adapter, gradients, i);
        t.lr = i % 2 ? lr_b : lr_a;
        if (t.p)
            update(self, &t, factor, self->m ? self->m + at : NULL, self->m ? self->v + at : NULL);
        at += t.n;
    }
    return FL_OK;
}

/* MAGIC, kind u32, train u32, steps u64, values u64, then m and v (float32, this machine's). */
enum { HEADER_BYTES = 32 };

static size_t state_bytes(const struct fl_optimizer *self)
{
    return self->m ? self->values * 2 * sizeof *self->m : 0;
}

enum fl_status fl_optimizer_encode(const struct fl_optimizer *self, struct fl_buf *out)
{
    fl_buf_append(out, MAGIC, sizeof MAGIC);
    fl_buf_u32(out, (uint32_t)self->options.kind);
    fl_buf_u32(out, self->options.train);
    fl_buf_u64(out, self->steps);
    fl_buf_u64(out, self->values);
    if (self->m)
        fl_buf_append(out, self->m, state_bytes(self));
    return fl_buf_status(out);
}

enum fl_status fl_optimizer_decode(struct fl_optimizer *self, const void *bytes, size_t length,
                                   struct fl_error *error)
{
    const uint8_t *p = bytes;
    if (length != HEADER_BYTES + state_bytes(self) || memcmp(p, MAGIC, sizeof MAGIC) != 0 ||
        fl_load_u32(p + 8) != (uint32_t)self->options.kind ||
        fl_load_u32(p + 12) != self->options.train || fl_load_u64(p + 24) != self->values)
        return fl_fail(error, FL_EFORMAT, "the optimizer's saved state is of another adapter");
    for (size_t i = 0; self->m && i < 2 * self->values; i++) {
        float value;
        memcpy(&value, p + HEADER_BYTES + i * sizeof value, sizeof value);
        if (!isfinite(value) || (i >= self->values && value < 0.0f))
            return fl_fail(error, FL_EFORMAT, "the optimizer's saved state is damaged");
    }
    self->steps = fl_load_u64(p + 16);
    if (self->m)
        memcpy(self->m, p + HEADER_BYTES, state_bytes(self));
    return FL_OK;
}

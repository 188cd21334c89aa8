/* optimizer.c - see optimizer.h. The state is one block: m and v of every trained tensor, in the
 * adapter's order, A before B before DoRA's magnitudes. */
#include "worker/engine/optimizer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "format/peft.h"
#include "format/safetensors.h"
#include "worker/engine/kernels.h"

/* the longest key of an adapter's tensor, with ".exp_avg_sq" behind it */
enum { KEY_BYTES = FL_MODULE_NAME_BYTES + 64 };

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

/* Tensors of a module: A, B, and DoRA's magnitudes. */
enum { EACH = 3 };

/* Tensor i of the adapter: A, B or m of module i / 3. */
static struct tensor tensor_at(const struct fl_optimizer *self, const struct fl_adapter *adapter,
                               const struct fl_gradient *gradients, uint32_t i)
{
    static const unsigned factors[EACH] = {FL_TRAIN_A, FL_TRAIN_B, FL_TRAIN_BOTH};
    const struct fl_lora_module *module = &adapter->modules[i / EACH];
    const struct fl_gradient *g = gradients ? &gradients[i / EACH] : &(struct fl_gradient){0};
    const struct tensor all[EACH] = {
        {module->a, g->a, (size_t)module->rank * module->module.in, 0.0},
        {module->b, g->b, (size_t)module->rank * module->module.out, 0.0},
        {module->m, g->m, module->m ? module->module.out : 0, 0.0}};
    return self->options.train & factors[i % EACH] ? all[i % EACH] : (struct tensor){0};
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
    for (uint32_t i = 0; i < EACH * adapter->count; i++)
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
    for (uint32_t i = 0; i < EACH * adapter->count; i++) {
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
    for (uint32_t i = 0; i < EACH * adapter->count; i++) {
        struct tensor t = tensor_at(self, adapter, gradients, i);
        t.lr = i % EACH ? lr_b : lr_a;
        if (t.p)
            update(self, &t, factor, self->m ? self->m + at : NULL, self->m ? self->v + at : NULL);
        at += t.n;
    }
    return FL_OK;
}

/* The tensors of a saved state: their names and what they look at. */
struct listing {
    struct fl_tensor_view *views; /* (count) */
    char (*names)[KEY_BYTES];     /* (count) */
    uint32_t count;
    double steps;
};

static void list_moment(struct listing *self, const struct fl_adapter *adapter, uint32_t i,
                        const char *moment, float *values)
{
    const struct fl_lora_module *m = &adapter->modules[i / EACH];
    char *name = self->names[self->count];
    fl_peft_key(m->module.name, "ABM"[i % EACH], name, KEY_BYTES);
    const size_t length = strlen(name);
    (void)snprintf(name + length, KEY_BYTES - length, ".%s", moment);
    struct fl_tensor_view view = {.name = name, .dtype = FL_DTYPE_F32, .rank = 2};
    view.rank = i % EACH == 2 ? 1 : 2;
    view.shape[0] = i % EACH ? m->module.out : m->rank;
    view.shape[1] = i % EACH ? m->rank : m->module.in;
    view.data = (const uint8_t *)values;
    view.bytes = (size_t)view.shape[0] * sizeof *values;
    view.bytes *= view.rank == 2 ? (size_t)view.shape[1] : 1;
    self->views[self->count++] = view;
}

static void listing_free(struct listing *self)
{
    fl_free(self->views);
    fl_free(self->names);
}

/* Everything that a saved state of this optimizer holds, looking at the state itself. */
static enum fl_status list_state(const struct fl_optimizer *self, const struct fl_adapter *adapter,
                                 struct listing *out)
{
    const size_t most = 1 + 2 * EACH * (size_t)adapter->count;
    *out = (struct listing){.views = fl_calloc(most, sizeof *out->views),
                            .names = fl_calloc(most, sizeof *out->names),
                            .steps = (double)self->steps};
    if (!out->views || !out->names) {
        listing_free(out);
        return FL_ENOMEM;
    }
    out->views[out->count++] = (struct fl_tensor_view){.name = "step",
                                                       .dtype = FL_DTYPE_F64,
                                                       .rank = 1,
                                                       .shape = {1},
                                                       .data = (const uint8_t *)&out->steps,
                                                       .bytes = sizeof out->steps};
    size_t at = 0;
    for (uint32_t i = 0; self->m && i < EACH * adapter->count; i++) {
        const struct tensor t = tensor_at(self, adapter, NULL, i);
        if (!t.p)
            continue;
        list_moment(out, adapter, i, "exp_avg", self->m + at);
        list_moment(out, adapter, i, "exp_avg_sq", self->v + at);
        at += t.n;
    }
    return FL_OK;
}

enum fl_status fl_optimizer_encode(const struct fl_optimizer *self,
                                   const struct fl_adapter *adapter, struct fl_buf *out,
                                   struct fl_error *error)
{
    struct listing state;
    if (list_state(self, adapter, &state) != FL_OK)
        return fl_fail_memory(error);
    enum fl_status status = fl_safetensors_write(state.views, state.count, out, error);
    listing_free(&state);
    return status;
}

static bool same_tensor(const struct fl_tensor_view *a, const struct fl_tensor_view *b)
{
    return a->dtype == b->dtype && a->rank == b->rank && a->shape[0] == b->shape[0] &&
           (a->rank < 2 || a->shape[1] == b->shape[1]);
}

/* Copy one moment's values to where the state holds them, unless they can't be of AdamW. */
static bool take_moment(const struct fl_tensor_view *from, const struct fl_tensor_view *to)
{
    float *values = (float *)(uintptr_t)to->data; /* the view is of our own state */
    const bool squares = strstr(to->name, ".exp_avg_sq") != NULL;
    memcpy(values, from->data, to->bytes);
    for (size_t i = 0; i < to->bytes / sizeof *values; i++) {
        if (!isfinite(values[i]) || (squares && values[i] < 0.0f))
            return false;
    }
    return true;
}

static bool take_steps(struct fl_optimizer *self, const struct fl_tensor_view *from)
{
    double steps;
    memcpy(&steps, from->data, sizeof steps);
    if (!(steps >= 0.0 && steps <= 0x1p53) || steps != floor(steps))
        return false;
    self->steps = (uint64_t)steps;
    return true;
}

static enum fl_status take_state(struct fl_optimizer *self, const struct listing *state,
                                 const struct fl_safetensors *file, const char *what,
                                 struct fl_error *error)
{
    if (fl_safetensors_count(file) != state->count)
        return fl_fail(error, FL_EFORMAT, "%s: the state of another optimizer: %u tensors, not %u",
                       what, fl_safetensors_count(file), state->count);
    for (uint32_t i = 0; i < state->count; i++) {
        const struct fl_tensor_view *to = &state->views[i];
        const struct fl_tensor_view *from = fl_safetensors_find(file, to->name);
        if (!from || !same_tensor(from, to))
            return fl_fail(error, FL_EFORMAT, "%s: no tensor %.200s of this adapter's shape", what,
                           to->name);
        if (!(i == 0 ? take_steps(self, from) : take_moment(from, to)))
            return fl_fail(error, FL_EFORMAT, "%s: tensor %.200s is damaged", what, to->name);
    }
    return FL_OK;
}

enum fl_status fl_optimizer_decode(struct fl_optimizer *self, const struct fl_adapter *adapter,
                                   const void *bytes, size_t length, const char *what,
                                   struct fl_error *error)
{
    struct listing state;
    struct fl_safetensors *file = NULL;
    if (list_state(self, adapter, &state) != FL_OK)
        return fl_fail_memory(error);
    enum fl_status status = fl_safetensors_open_memory(bytes, length, what, &file, error);
    if (status == FL_OK)
        status = take_state(self, &state, file, what, error);
    fl_safetensors_close(&file);
    listing_free(&state);
    return status;
}

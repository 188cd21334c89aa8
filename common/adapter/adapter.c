/*
 * adapter.c - adapters in memory, their bytes, and the inventory of a base's linears.
 * Reading and writing PEFT directories is adapter_files.c.
 */
#include "adapter/adapter.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "crypto/prg.h"
#include "format/peft.h"
#include "format/safetensors.h"

#define KEY_BYTES       (FL_MODULE_NAME_BYTES + 64)
#define INVENTORY_MAGIC "FLINVT01"

/* ---- inventories ---- */

void fl_inventory_free(struct fl_inventory *self)
{
    fl_free(self->modules);
    memset(self, 0, sizeof(*self));
}

/* "FLINVT01", u32 layers, u32 count, then each: u32 out, in, layer, name length, name. */
enum fl_status fl_inventory_encode(const struct fl_inventory *self, struct fl_buf *out)
{
    fl_buf_append(out, INVENTORY_MAGIC, 8);
    fl_buf_u32(out, self->layers);
    fl_buf_u32(out, self->count);
    for (uint32_t i = 0; i < self->count; i++) {
        const struct fl_module *m = &self->modules[i];
        uint32_t length = (uint32_t)strlen(m->name);
        fl_buf_u32(out, m->out);
        fl_buf_u32(out, m->in);
        fl_buf_u32(out, m->layer);
        fl_buf_u32(out, length);
        fl_buf_append(out, m->name, length);
    }
    return fl_buf_status(out);
}

static bool module_name_ok(const char *name)
{
    if (!name[0])
        return false;
    for (const char *p = name; *p; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= '0' && *p <= '9') || *p == '_' || *p == '.' || *p == '-';
        if (!plain)
            return false;
    }
    return true;
}

static bool module_ok(const struct fl_module *m)
{
    return m->out >= 1 && m->out <= FL_DIM_MAX && m->in >= 1 && m->in <= FL_DIM_MAX &&
           m->layer < FL_LAYERS_MAX && module_name_ok(m->name);
}

static size_t decode_module(const uint8_t *at, size_t left, struct fl_module *m)
{
    if (left < 16)
        return 0;
    m->out = fl_load_u32(at);
    m->in = fl_load_u32(at + 4);
    m->layer = fl_load_u32(at + 8);
    uint32_t length = fl_load_u32(at + 12);
    if (length >= sizeof(m->name) || length > left - 16)
        return 0;
    memcpy(m->name, at + 16, length);
    return strlen(m->name) == length && module_ok(m) ? 16 + length : 0;
}

static bool names_unique(const struct fl_inventory *self)
{
    for (uint32_t i = 0; i < self->count; i++) {
        for (uint32_t k = i + 1; k < self->count; k++) {
            if (strcmp(self->modules[i].name, self->modules[k].name) == 0)
                return false;
        }
    }
    return true;
}

enum fl_status fl_inventory_decode(const void *bytes, size_t length, struct fl_inventory *out,
                                   struct fl_error *error)
{
    const uint8_t *at = bytes;
    memset(out, 0, sizeof(*out));
    if (length < 16 || memcmp(at, INVENTORY_MAGIC, 8) != 0)
        return fl_fail(error, FL_EFORMAT, "not an inventory");
    uint32_t count = fl_load_u32(at + 12);
    if (count == 0 || count > FL_MODULES_MAX || fl_load_u32(at + 8) > FL_LAYERS_MAX)
        return fl_fail(error, FL_EFORMAT, "an inventory of %u modules", count);
    out->modules = fl_calloc(count, sizeof(*out->modules));
    if (!out->modules)
        return fl_fail_memory(error);
    out->layers = fl_load_u32(at + 8);
    size_t used = 16;
    for (; out->count < count; out->count++) {
        size_t n = decode_module(at + used, length - used, &out->modules[out->count]);
        if (n == 0)
            break;
        used += n;
    }
    if (out->count == count && used == length && names_unique(out))
        return FL_OK;
    fl_inventory_free(out);
    return fl_fail(error, FL_EFORMAT, "a damaged inventory");
}

/* ---- adapters ---- */

static enum fl_status make_module(struct fl_lora_module *self, const struct fl_module *module,
                                  uint32_t rank, double alpha)
{
    self->module = *module;
    self->rank = rank;
    self->alpha = alpha;
    self->a = fl_calloc_aligned((size_t)rank * module->in, sizeof(float));
    self->b = fl_calloc_aligned((size_t)rank * module->out, sizeof(float));
    return self->a && self->b ? FL_OK : FL_ENOMEM;
}

enum fl_status fl_adapter_create(const struct fl_inventory *targets, uint32_t rank, double alpha,
                                 const uint32_t *ranks, struct fl_adapter **out,
                                 struct fl_error *error)
{
    *out = NULL;
    if (rank == 0 || rank > FL_RANK_MAX || !isfinite(alpha) || alpha <= 0.0)
        return fl_fail(error, FL_EINVAL, "rank %u and alpha %g are not possible", rank, alpha);
    struct fl_adapter *self = fl_calloc(1, sizeof(*self));
    enum fl_status status = self ? FL_OK : fl_fail_memory(error);
    if (status == FL_OK) {
        self->modules = fl_calloc(targets->count, sizeof(*self->modules));
        self->layers = targets->layers;
        self->rank = rank;
        self->alpha = alpha;
        if (!self->modules)
            status = fl_fail_memory(error);
    }
    for (uint32_t i = 0; i < targets->count && status == FL_OK; i++) {
        const struct fl_module *m = &targets->modules[i];
        uint32_t least = m->in < m->out ? m->in : m->out;
        uint32_t r = ranks ? ranks[i] : rank < least ? rank : least;
        if (r == 0 || r > least || r > FL_RANK_MAX)
            status = fl_fail(error, FL_EINVAL, "%s: rank %u of a %u x %u linear", m->name, r,
                             m->out, m->in);
        else if (make_module(&self->modules[i], m, r, ranks ? alpha * r / rank : alpha) != FL_OK)
            status = fl_fail_memory(error);
        self->count = i + 1;
    }
    if (status == FL_OK)
        *out = self;
    else
        fl_adapter_destroy(&self);
    return status;
}

enum fl_status fl_adapter_add_magnitudes(struct fl_adapter *self)
{
    for (uint32_t i = 0; i < self->count; i++) {
        struct fl_lora_module *m = &self->modules[i];
        if (!m->m)
            m->m = fl_calloc_aligned(m->module.out, sizeof(float));
        if (m->m)
            continue;
        for (uint32_t k = 0; k < i && !self->use_dora; k++) {
            fl_free(self->modules[k].m);
            self->modules[k].m = NULL;
        }
        return FL_ENOMEM;
    }
    self->use_dora = true;
    return FL_OK;
}

enum fl_status fl_adapter_refuse_dora(const struct fl_adapter *self, const char *what,
                                      struct fl_error *error)
{
    return self->use_dora ? fl_fail(error, FL_EUSAGE,
                                    "this is an adapter of DoRA, and %s have no magnitudes; merge "
                                    "it into its base, or train without DoRA",
                                    what)
                          : FL_OK;
}

void fl_adapter_destroy(struct fl_adapter **self_pointer)
{
    struct fl_adapter *self = *self_pointer;
    if (!self)
        return;
    for (uint32_t i = 0; i < self->count; i++) {
        fl_free(self->modules[i].a);
        fl_free(self->modules[i].b);
        fl_free(self->modules[i].m);
    }
    fl_free(self->modules);
    fl_free(self);
    *self_pointer = NULL;
}

enum fl_status fl_adapter_copy(const struct fl_adapter *self, struct fl_adapter **out)
{
    *out = NULL;
    struct fl_adapter *copy = fl_calloc(1, sizeof(*copy));
    if (!copy)
        return FL_ENOMEM;
    *copy = *self;
    copy->count = 0;
    copy->use_dora = false;
    copy->modules = fl_calloc(self->count, sizeof(*copy->modules));
    enum fl_status status = copy->modules ? FL_OK : FL_ENOMEM;
    for (uint32_t i = 0; i < self->count && status == FL_OK; i++) {
        const struct fl_lora_module *from = &self->modules[i];
        struct fl_lora_module *to = &copy->modules[i];
        copy->count = i + 1;
        status = make_module(to, &from->module, from->rank, from->alpha);
        if (status != FL_OK)
            break;
        memcpy(to->a, from->a, (size_t)from->rank * from->module.in * sizeof(float));
        memcpy(to->b, from->b, (size_t)from->rank * from->module.out * sizeof(float));
    }
    if (status == FL_OK && self->use_dora)
        status = fl_adapter_add_magnitudes(copy);
    for (uint32_t i = 0; i < self->count && status == FL_OK && self->use_dora; i++)
        memcpy(copy->modules[i].m, self->modules[i].m, self->modules[i].module.out * sizeof(float));
    if (status == FL_OK)
        *out = copy;
    else
        fl_adapter_destroy(&copy);
    return status;
}

/* PEFT: kaiming_uniform with a = sqrt(5), which is uniform within 1 / sqrt(in). */
void fl_adapter_init(struct fl_adapter *self, uint64_t seed)
{
    for (uint32_t i = 0; i < self->count; i++) {
        struct fl_lora_module *m = &self->modules[i];
        struct fl_prf prf;
        struct fl_prg stream;
        uint8_t key[FL_SEED_BYTES];
        fl_prf_begin_u64(&prf, seed, "fedlora-init-a-v1");
        fl_prf_text(&prf, m->module.name);
        fl_prf_end(&prf, key);
        fl_prg_init(&stream, key);
        double bound = 1.0 / sqrt((double)m->module.in);
        for (size_t k = 0; k < (size_t)m->rank * m->module.in; k++)
            m->a[k] = (float)((2.0 * fl_prg_unit(&stream) - 1.0) * bound);
        memset(m->b, 0, (size_t)m->rank * m->module.out * sizeof(float));
    }
}

double fl_adapter_scale(const struct fl_adapter *self, uint32_t index)
{
    assert(index < self->count);
    const struct fl_lora_module *m = &self->modules[index];
    return self->use_rslora ? m->alpha / sqrt((double)m->rank) : m->alpha / (double)m->rank;
}

uint64_t fl_adapter_parameters(const struct fl_adapter *self)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < self->count; i++) {
        const struct fl_lora_module *m = &self->modules[i];
        sum += (uint64_t)m->rank * ((uint64_t)m->module.in + m->module.out);
        sum += m->m ? m->module.out : 0;
    }
    return sum;
}

static bool all_finite(const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(values[i]))
            return false;
    }
    return true;
}

bool fl_adapter_finite(const struct fl_adapter *self)
{
    for (uint32_t i = 0; i < self->count; i++) {
        const struct fl_lora_module *m = &self->modules[i];
        if (!all_finite(m->a, (size_t)m->rank * m->module.in) ||
            !all_finite(m->b, (size_t)m->rank * m->module.out) ||
            (m->m && !all_finite(m->m, m->module.out)))
            return false;
    }
    return true;
}

/* ---- bytes ---- */

static void view_of(const struct fl_lora_module *m, char factor, char *key,
                    struct fl_tensor_view *out)
{
    bool a = factor == 'A';
    fl_peft_key(m->module.name, factor, key, KEY_BYTES);
    if (factor == 'M') {
        *out = (struct fl_tensor_view){.name = key,
                                       .dtype = FL_DTYPE_F32,
                                       .rank = 1,
                                       .shape = {m->module.out},
                                       .data = (const uint8_t *)m->m,
                                       .bytes = m->module.out * sizeof(float)};
        return;
    }
    *out = (struct fl_tensor_view){.name = key, .dtype = FL_DTYPE_F32, .rank = 2};
    out->shape[0] = a ? m->rank : m->module.out;
    out->shape[1] = a ? m->module.in : m->rank;
    out->data = (const uint8_t *)(a ? m->a : m->b);
    out->bytes = (size_t)(out->shape[0] * out->shape[1]) * sizeof(float);
}

enum fl_status fl_adapter_encode(const struct fl_adapter *self, struct fl_buf *out,
                                 struct fl_error *error)
{
    const size_t each = self->use_dora ? 3 : 2, count = each * self->count;
    struct fl_tensor_view *views = fl_calloc(count, sizeof(*views));
    char(*keys)[KEY_BYTES] = fl_calloc(count, sizeof(*keys));
    enum fl_status status = views && keys ? FL_OK : fl_fail_memory(error);
    for (uint32_t i = 0; i < self->count && status == FL_OK; i++) {
        for (size_t k = 0; k < each; k++)
            view_of(&self->modules[i], "ABM"[k], keys[each * i + k], &views[each * i + k]);
    }
    if (status == FL_OK)
        status = fl_safetensors_write(views, (uint32_t)count, out, error);
    fl_free(keys);
    fl_free(views);
    return status;
}

static enum fl_status decode_factor(const struct fl_safetensors *file,
                                    const struct fl_lora_module *m, char factor, float *out,
                                    struct fl_error *error)
{
    char key[KEY_BYTES];
    struct fl_tensor_view wanted;
    view_of(m, factor, key, &wanted);
    const struct fl_tensor_view *found = fl_safetensors_find(file, key);
    if (!found)
        return fl_fail(error, FL_EFORMAT, "the adapter has no tensor %s", key);
    if (found->dtype != FL_DTYPE_F32 || found->rank != wanted.rank ||
        found->shape[0] != wanted.shape[0] ||
        (wanted.rank == 2 && found->shape[1] != wanted.shape[1]))
        return fl_fail(error, FL_EFORMAT, "the adapter's tensor %s has another type or shape", key);
    size_t values = found->bytes / sizeof(float);
    memcpy(out, found->data, found->bytes);
    if (!all_finite(out, values))
        return fl_fail(error, FL_EFORMAT, "the adapter's tensor %s holds NaN or Inf", key);
    return FL_OK;
}

enum fl_status fl_adapter_decode(struct fl_adapter *self, const void *bytes, size_t length,
                                 struct fl_error *error)
{
    struct fl_safetensors *file = NULL;
    enum fl_status status = fl_safetensors_open_memory(bytes, length, "the adapter", &file, error);
    const uint32_t expected = (self->use_dora ? 3 : 2) * self->count;
    if (status == FL_OK && fl_safetensors_count(file) != expected)
        status = fl_fail(error, FL_EFORMAT, "the adapter has %u tensors, %u were expected",
                         fl_safetensors_count(file), expected);
    for (uint32_t i = 0; i < self->count && status == FL_OK; i++) {
        struct fl_lora_module *m = &self->modules[i];
        status = decode_factor(file, m, 'A', m->a, error);
        if (status == FL_OK)
            status = decode_factor(file, m, 'B', m->b, error);
        if (status == FL_OK && self->use_dora)
            status = decode_factor(file, m, 'M', m->m, error);
    }
    fl_safetensors_close(&file);
    return status;
}

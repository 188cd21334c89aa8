/*
 * Goal: an adapter survives every form it takes (memory, bytes, PEFT directory), and one that does
 * not fit, or is not finite, is refused.
 * Method: round trips; hostile inventories, bytes and directories built from good ones.
 */
#include "adapter/adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter/algebra.h"
#include "base/fs.h"
#include "base/json.h"
#include "format/peft.h"
#include "format/safetensors.h"
#include "runner.h"

#define LAYERS 2u

static struct fl_inventory model_inventory(void)
{
    static const struct {
        const char *name;
        uint32_t out, in;
    } linears[] = {
        {"self_attn.q_proj", 16, 12}, {"self_attn.v_proj", 8, 12}, {"mlp.up_proj", 20, 12}};
    static struct fl_module modules[3 * LAYERS];
    for (uint32_t i = 0; i < 3 * LAYERS; i++) {
        snprintf(modules[i].name, sizeof(modules[i].name), "model.layers.%u.%s", i / 3,
                 linears[i % 3].name);
        modules[i].out = linears[i % 3].out;
        modules[i].in = linears[i % 3].in;
        modules[i].layer = i / 3;
    }
    return (struct fl_inventory){.modules = modules, .count = 3 * LAYERS, .layers = LAYERS};
}

static struct fl_adapter *make(const char *targets, uint32_t rank, const uint32_t *ranks)
{
    struct fl_inventory base = model_inventory(), chosen;
    struct fl_error error = {0};
    struct fl_adapter *self;
    fl_assert_ok(fl_inventory_select(&base, targets, &chosen, &error), &error);
    enum fl_status status = fl_adapter_create(&chosen, rank, 16.0, ranks, &self, &error);
    fl_inventory_free(&chosen);
    fl_assert_ok(status, &error);
    fl_adapter_init(self, 7);
    for (uint32_t i = 0; i < self->count; i++) {
        struct fl_lora_module *m = &self->modules[i];
        for (size_t k = 0; k < (size_t)m->rank * m->module.out; k++)
            m->b[k] = (float)(i + 1) + (float)k / 64.0f;
    }
    return self;
}

static void same(const struct fl_adapter *x, const struct fl_adapter *y)
{
    ck_assert_uint_eq(x->count, y->count);
    for (uint32_t i = 0; i < x->count; i++) {
        const struct fl_lora_module *a = &x->modules[i], *b = &y->modules[i];
        ck_assert_str_eq(a->module.name, b->module.name);
        ck_assert_uint_eq(a->module.layer, b->module.layer);
        ck_assert_uint_eq(a->rank, b->rank);
        ck_assert_double_eq(a->alpha, b->alpha);
        ck_assert_mem_eq(a->a, b->a, (size_t)a->rank * a->module.in * sizeof(float));
        ck_assert_mem_eq(a->b, b->b, (size_t)a->rank * a->module.out * sizeof(float));
    }
}

/* ---- inventories ---- */

START_TEST(an_inventory_survives_its_bytes)
{
    struct fl_inventory base = model_inventory(), back;
    struct fl_error error = {0};
    struct fl_buf bytes;
    fl_buf_init(&bytes, 1u << 16);
    ck_assert_int_eq(fl_inventory_encode(&base, &bytes), FL_OK);
    fl_assert_ok(fl_inventory_decode(bytes.data, bytes.length, &back, &error), &error);
    ck_assert_uint_eq(back.count, base.count);
    ck_assert_uint_eq(back.layers, LAYERS);
    ck_assert_mem_eq(back.modules, base.modules, base.count * sizeof(*base.modules));
    fl_inventory_free(&back);
    fl_buf_free(&bytes);
}
END_TEST

START_TEST(damaged_inventories_are_refused)
{
    struct fl_inventory base = model_inventory(), back;
    struct fl_error error = {0};
    struct fl_buf bytes;
    fl_buf_init(&bytes, 1u << 16);
    ck_assert_int_eq(fl_inventory_encode(&base, &bytes), FL_OK);
    for (size_t n = 0; n < bytes.length; n++) {
        uint8_t *cut = malloc(n + 1);
        ck_assert_ptr_nonnull(cut);
        memcpy(cut, bytes.data, n);
        ck_assert_int_eq(fl_inventory_decode(cut, n, &back, &error), FL_EFORMAT);
        free(cut);
    }
    uint8_t extra = 0;
    fl_buf_append(&bytes, &extra, 1);
    ck_assert_int_eq(fl_inventory_decode(bytes.data, bytes.length, &back, &error), FL_EFORMAT);
    bytes.length--;
    static const struct {
        size_t at;
        uint32_t value;
    } lies[] = {{0, 0},     {8, 100000}, {12, 0},        {12, UINT32_MAX},
                {12, 5},    {16, 0},     {16, 1u << 30}, {20, UINT32_MAX},
                {24, 4096}, {28, 0},     {28, 200},      {32, 0x20202020}};
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        uint32_t kept = fl_load_u32(bytes.data + lies[i].at);
        fl_store_u32(bytes.data + lies[i].at, lies[i].value);
        ck_assert_msg(fl_inventory_decode(bytes.data, bytes.length, &back, &error) == FL_EFORMAT,
                      "lie %zu", i);
        fl_store_u32(bytes.data + lies[i].at, kept);
    }
    fl_buf_free(&bytes);
}
END_TEST

START_TEST(a_module_twice_is_refused)
{
    struct fl_inventory base = model_inventory(), back;
    struct fl_error error = {0};
    struct fl_buf bytes;
    base.modules[4] = base.modules[1];
    fl_buf_init(&bytes, 1u << 16);
    ck_assert_int_eq(fl_inventory_encode(&base, &bytes), FL_OK);
    ck_assert_int_eq(fl_inventory_decode(bytes.data, bytes.length, &back, &error), FL_EFORMAT);
    fl_buf_free(&bytes);
}
END_TEST

static uint32_t selected(const char *targets)
{
    struct fl_inventory base = model_inventory(), chosen;
    struct fl_error error = {0};
    fl_assert_ok(fl_inventory_select(&base, targets, &chosen, &error), &error);
    uint32_t count = chosen.count;
    fl_inventory_free(&chosen);
    return count;
}

START_TEST(targets_select_by_name_or_path)
{
    struct fl_inventory base = model_inventory(), chosen;
    struct fl_error error = {0};
    ck_assert_uint_eq(selected("all-linear"), 6);
    ck_assert_uint_eq(selected("default"), 4); /* q_proj and v_proj */
    ck_assert_uint_eq(selected("q_proj"), 2);
    ck_assert_uint_eq(selected(" q_proj , v_proj,"), 4);
    ck_assert_uint_eq(selected("q_proj,q_proj"), 2);
    ck_assert_uint_eq(selected("model.layers.1.mlp.up_proj"), 1);
    ck_assert_uint_eq(selected("mlp.up_proj"), 2);
    static const char *const wrong[] = {
        "", ",", "proj", "q_proj,lm_head", "q_proj v_proj", "q_proj,default"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_int_eq(fl_inventory_select(&base, wrong[i], &chosen, &error), FL_EINVAL);
}
END_TEST

/* ---- in memory ---- */

START_TEST(the_start_is_uniform_and_changes_nothing)
{
    struct fl_inventory base = model_inventory();
    struct fl_error error = {0};
    struct fl_adapter *x, *y;
    double sum = 0.0;
    fl_assert_ok(fl_adapter_create(&base, 8, 16.0, NULL, &x, &error), &error);
    fl_assert_ok(fl_adapter_create(&base, 8, 16.0, NULL, &y, &error), &error);
    fl_adapter_init(x, 1);
    fl_adapter_init(y, 1);
    same(x, y);
    for (uint32_t i = 0; i < x->count; i++) {
        const struct fl_lora_module *m = &x->modules[i];
        double bound = 1.0 / sqrt(12.0);
        for (size_t k = 0; k < (size_t)m->rank * 12; k++) {
            ck_assert_double_le(fabs((double)m->a[k]), bound);
            sum += (double)m->a[k] * (double)m->a[k];
        }
        for (size_t k = 0; k < (size_t)m->rank * m->module.out; k++)
            ck_assert_float_eq(m->b[k], 0.0f);
    }
    /* the variance of a uniform distribution: bound^2 / 3 = 1 / 36 */
    ck_assert_double_eq_tol(sum / (6 * 8 * 12), 1.0 / 36, 0.004);
    fl_adapter_init(y, 2);
    ck_assert_mem_ne(x->modules[0].a, y->modules[0].a, 8 * 12 * sizeof(float));
    ck_assert_mem_ne(x->modules[0].a, x->modules[3].a, 8 * 12 * sizeof(float));
    ck_assert_uint_eq(fl_adapter_parameters(x), 8 * 2 * (28 + 20 + 32));
    fl_adapter_destroy(&x);
    fl_adapter_destroy(&y);
}
END_TEST

START_TEST(one_scale_holds_for_unequal_ranks)
{
    static const uint32_t ranks[4] = {2, 8, 4, 1};
    struct fl_adapter *self = make("q_proj,v_proj", 8, ranks);
    for (uint32_t i = 0; i < 4; i++)
        ck_assert_double_eq(fl_adapter_scale(self, i), 2.0);
    fl_adapter_destroy(&self);
    self = make("q_proj", 4, NULL);
    ck_assert_double_eq(fl_adapter_scale(self, 0), 4.0);
    self->use_rslora = true;
    ck_assert_double_eq(fl_adapter_scale(self, 0), 8.0);
    fl_adapter_destroy(&self);
}
END_TEST

START_TEST(impossible_ranks_are_refused)
{
    static const uint32_t zero[6] = {0, 1, 1, 1, 1, 1}, large[6] = {13, 1, 1, 1, 1, 1};
    struct fl_inventory base = model_inventory();
    struct fl_error error = {0};
    struct fl_adapter *self;
    ck_assert_int_eq(fl_adapter_create(&base, 0, 16.0, NULL, &self, &error), FL_EINVAL);
    ck_assert_int_eq(fl_adapter_create(&base, 5000, 16.0, NULL, &self, &error), FL_EINVAL);
    ck_assert_int_eq(fl_adapter_create(&base, 4, -1.0, NULL, &self, &error), FL_EINVAL);
    ck_assert_int_eq(fl_adapter_create(&base, 4, (double)NAN, NULL, &self, &error), FL_EINVAL);
    ck_assert_int_eq(fl_adapter_create(&base, 4, 16.0, zero, &self, &error), FL_EINVAL);
    ck_assert_int_eq(fl_adapter_create(&base, 4, 16.0, large, &self, &error), FL_EINVAL);
    ck_assert_ptr_null(self);
    fl_assert_ok(fl_adapter_create(&base, 100, 16.0, NULL, &self, &error), &error);
    ck_assert_uint_eq(self->modules[0].rank, 12); /* cut to the smaller side */
    ck_assert_uint_eq(self->modules[1].rank, 8);
    fl_adapter_destroy(&self);
}
END_TEST

START_TEST(a_copy_is_equal_and_apart)
{
    struct fl_adapter *self = make("all-linear", 4, NULL), *copy;
    ck_assert_int_eq(fl_adapter_copy(self, &copy), FL_OK);
    same(self, copy);
    copy->modules[0].b[0] = NAN;
    ck_assert(fl_adapter_finite(self));
    ck_assert(!fl_adapter_finite(copy));
    fl_adapter_destroy(&self);
    fl_adapter_destroy(&copy);
}
END_TEST

/* ---- magnitudes ---- */

static struct fl_adapter *make_dora(void)
{
    struct fl_adapter *self = make("q_proj,v_proj", 4, NULL);
    ck_assert_int_eq(fl_adapter_add_magnitudes(self), FL_OK);
    for (uint32_t i = 0; i < self->count; i++) {
        for (uint32_t k = 0; k < self->modules[i].module.out; k++)
            self->modules[i].m[k] = (float)(i + 1) - 0.5f * (float)k;
    }
    return self;
}

START_TEST(magnitudes_follow_prefixes_and_differences_of_the_same_ranks)
{
    static const uint16_t same_ranks[4] = {4, 4, 4, 4}, other[4] = {4, 4, 2, 4};
    struct fl_adapter *self = make_dora(), *plain = make("q_proj,v_proj", 4, NULL), *out;
    ck_assert_double_eq(fl_adapter_max_abs(self, FL_FACTOR_M), 6.5); /* 1 - 0.5 x 15 */
    ck_assert_double_eq(fl_adapter_max_abs(plain, FL_FACTOR_M), 0.0);
    ck_assert_int_eq(fl_adapter_prefix(self, same_ranks, &out), FL_OK);
    ck_assert(out->use_dora);
    same(self, out);
    for (uint32_t i = 0; i < self->count; i++) {
        const struct fl_lora_module *m = &self->modules[i];
        ck_assert_mem_eq(out->modules[i].m, m->m, m->module.out * sizeof(float));
        ck_assert_ptr_ne(out->modules[i].m, m->m);
        out->modules[i].m[1] += 0.25f;
    }
    struct fl_adapter *delta;
    ck_assert_int_eq(fl_adapter_subtract(out, self, &delta), FL_OK);
    for (uint32_t i = 0; i < self->count; i++) {
        for (uint32_t k = 0; k < self->modules[i].module.out; k++)
            ck_assert(delta->modules[i].m[k] == (k == 1 ? 0.25f : 0.0f));
    }
    fl_adapter_destroy(&delta);
    ck_assert_int_eq(fl_adapter_subtract(out, plain, &delta), FL_EINVAL);
    ck_assert_int_eq(fl_adapter_subtract(plain, out, &delta), FL_EINVAL);
    ck_assert_ptr_null(delta);
    fl_adapter_destroy(&out);
    ck_assert_int_eq(fl_adapter_prefix(self, other, &out), FL_EINVAL);
    ck_assert_ptr_null(out);
    fl_adapter_destroy(&plain);
    fl_adapter_destroy(&self);
}
END_TEST

/* ---- bytes ---- */

START_TEST(an_adapter_survives_its_bytes)
{
    struct fl_adapter *self = make("all-linear", 4, NULL), *other = make("all-linear", 4, NULL);
    struct fl_error error = {0};
    struct fl_buf first, second;
    fl_buf_init(&first, 1u << 20);
    fl_buf_init(&second, 1u << 20);
    fl_assert_ok(fl_adapter_encode(self, &first, &error), &error);
    fl_adapter_init(other, 99);
    fl_assert_ok(fl_adapter_decode(other, first.data, first.length, &error), &error);
    same(self, other);
    fl_assert_ok(fl_adapter_encode(other, &second, &error), &error);
    ck_assert_uint_eq(first.length, second.length);
    ck_assert_mem_eq(first.data, second.data, first.length);
    fl_buf_free(&first);
    fl_buf_free(&second);
    fl_adapter_destroy(&self);
    fl_adapter_destroy(&other);
}
END_TEST

static void refuses_bytes_of(struct fl_adapter *from, struct fl_adapter *into)
{
    struct fl_error error = {0};
    struct fl_buf bytes;
    fl_buf_init(&bytes, 1u << 20);
    fl_assert_ok(fl_adapter_encode(from, &bytes, &error), &error);
    ck_assert_int_eq(fl_adapter_decode(into, bytes.data, bytes.length, &error), FL_EFORMAT);
    fl_buf_free(&bytes);
}

START_TEST(bytes_of_another_adapter_are_refused)
{
    struct fl_adapter *self = make("q_proj,v_proj", 4, NULL);
    struct fl_adapter *other = make("q_proj,v_proj", 2, NULL);
    refuses_bytes_of(other, self);
    fl_adapter_destroy(&other);
    other = make("q_proj", 4, NULL);
    refuses_bytes_of(other, self);
    refuses_bytes_of(self, other);
    fl_adapter_destroy(&other);
    other = make("q_proj,up_proj", 4, NULL);
    refuses_bytes_of(other, self);
    fl_adapter_destroy(&other);
    other = make("q_proj,v_proj", 4, NULL);
    other->modules[1].a[3] = INFINITY;
    refuses_bytes_of(other, self);
    other->modules[1].a[3] = 0.0f;
    other->modules[3].b[0] = NAN;
    refuses_bytes_of(other, self);
    fl_adapter_destroy(&other);
    fl_adapter_destroy(&self);
}
END_TEST

/* ---- directories ---- */

static void fresh_path(char *path)
{
    char folder[FL_PATH_BYTES];
    struct fl_error error = {0};
    fl_test_directory(folder);
    fl_assert_ok(fl_path_join(path, folder, "adapter", &error), &error);
}

START_TEST(an_adapter_survives_a_peft_directory)
{
    static const uint32_t ranks[4] = {2, 8, 4, 1};
    struct fl_inventory base = model_inventory();
    struct fl_adapter *self = make("q_proj,v_proj", 8, _i ? ranks : NULL), *back;
    struct fl_error error = {0};
    char path[FL_PATH_BYTES];
    fresh_path(path);
    self->use_rslora = _i;
    self->dropout = 0.25;
    snprintf(self->base_model, sizeof(self->base_model), "base");
    fl_assert_ok(fl_adapter_save(self, path, NULL, &error), &error);
    fl_assert_ok(fl_adapter_load(path, &base, &back, &error), &error);
    same(self, back);
    ck_assert(back->use_rslora == (_i != 0));
    ck_assert_double_eq(back->dropout, 0.25);
    ck_assert_uint_eq(back->rank, 8);
    ck_assert_double_eq(back->alpha, 16.0);
    ck_assert_str_eq(back->base_model, "base");
    ck_assert_uint_eq(back->layers, LAYERS);
    fl_adapter_destroy(&back);
    fl_assert_ok(fl_adapter_load(path, NULL, &back, &error), &error);
    same(self, back);
    fl_adapter_destroy(&back);
    fl_adapter_destroy(&self);
}
END_TEST

START_TEST(single_layers_are_named_by_path)
{
    struct fl_inventory base = model_inventory();
    struct fl_adapter *self = make("model.layers.1.mlp.up_proj,q_proj", 4, NULL), *back;
    struct fl_error error = {0};
    char path[FL_PATH_BYTES];
    fresh_path(path);
    fl_assert_ok(fl_adapter_save(self, path, "# card\n", &error), &error);
    fl_assert_ok(fl_adapter_load(path, &base, &back, &error), &error);
    same(self, back);
    fl_adapter_destroy(&back);
    fl_adapter_destroy(&self);
}
END_TEST

/* Two blocks of GPT-2, whose names its adapters must keep apart. */
static struct fl_inventory gpt2_inventory(void)
{
    static const char *const linears[] = {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"};
    static struct fl_module modules[4 * LAYERS];
    for (uint32_t i = 0; i < 4 * LAYERS; i++) {
        modules[i] = (struct fl_module){.out = 12 + 4 * (i % 4), .in = 12, .layer = i / 4};
        snprintf(modules[i].name, sizeof(modules[i].name), "transformer.h.%u.%s", i / 4,
                 linears[i % 4]);
    }
    return (struct fl_inventory){.modules = modules, .count = 4 * LAYERS, .layers = LAYERS};
}

START_TEST(adapters_of_gpt2_say_how_its_weights_lie_and_which_projection_is_meant)
{
    static const struct {
        const char *targets, *written;
        uint32_t count;
    } cases[] = {{"default", "[\"c_attn\"]", 2},
                 {"attn.c_proj", "[\"attn.c_proj\"]", 2},
                 {"c_proj", "[\"attn.c_proj\",\"mlp.c_proj\"]", 4},
                 {"transformer.h.1.mlp.c_proj", "[\"transformer.h.1.mlp.c_proj\"]", 1}};
    struct fl_inventory base = gpt2_inventory(), chosen;
    struct fl_error error = {0};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fl_adapter *self, *back;
        char path[FL_PATH_BYTES], file[FL_PATH_BYTES];
        json_t *config, *wanted;
        fresh_path(path);
        fl_assert_ok(fl_inventory_select(&base, cases[i].targets, &chosen, &error), &error);
        fl_assert_ok(fl_adapter_create(&chosen, 2, 4.0, NULL, &self, &error), &error);
        ck_assert_uint_eq(self->count, cases[i].count);
        fl_assert_ok(fl_adapter_save(self, path, NULL, &error), &error);
        fl_assert_ok(fl_path_join(file, path, FL_PEFT_CONFIG, &error), &error);
        fl_assert_ok(fl_json_load(file, 1 << 20, &config, &error), &error);
        fl_assert_ok(
            fl_json_parse(cases[i].written, strlen(cases[i].written), "case", &wanted, &error),
            &error);
        ck_assert(json_equal(json_object_get(config, "target_modules"), wanted));
        ck_assert(json_is_true(json_object_get(config, "fan_in_fan_out")));
        fl_assert_ok(fl_adapter_load(path, &base, &back, &error), &error);
        same(self, back);
        json_decref(config);
        json_decref(wanted);
        fl_adapter_destroy(&back);
        fl_adapter_destroy(&self);
        fl_inventory_free(&chosen);
    }
}
END_TEST

START_TEST(an_adapter_is_replaced_and_anything_else_left_alone)
{
    struct fl_adapter *self = make("q_proj", 4, NULL), *back;
    struct fl_error error = {0};
    char path[FL_PATH_BYTES], file[FL_PATH_BYTES];
    fresh_path(path);
    fl_assert_ok(fl_adapter_save(self, path, NULL, &error), &error);
    self->modules[0].a[0] = 42.0f;
    fl_assert_ok(fl_adapter_save(self, path, NULL, &error), &error);
    fl_assert_ok(fl_adapter_load(path, NULL, &back, &error), &error);
    same(self, back);
    fl_adapter_destroy(&back);
    fresh_path(path);
    fl_assert_ok(fl_fs_make_directory(path, 0755, &error), &error);
    fl_assert_ok(fl_path_join(file, path, "thesis.tex", &error), &error);
    fl_assert_ok(fl_fs_write(file, "x", 1, 0644, &error), &error);
    ck_assert_int_eq(fl_adapter_save(self, path, NULL, &error), FL_EEXIST);
    ck_assert_int_eq(fl_adapter_save(self, file, NULL, &error), FL_EEXIST);
    ck_assert(fl_path_exists(file));
    ck_assert_int_ne(fl_adapter_save(self, "", NULL, &error), FL_OK);
    fl_adapter_destroy(&self);
}
END_TEST

static void put(const char *directory, const char *name, const void *bytes, size_t length)
{
    char path[FL_PATH_BYTES];
    struct fl_error error = {0};
    fl_assert_ok(fl_path_join(path, directory, name, &error), &error);
    fl_assert_ok(fl_fs_write(path, bytes, length, 0644, &error), &error);
}

struct given { /* a tensor of a directory built by hand */
    const char *key;
    enum fl_dtype dtype;
    uint64_t rows, columns;
    float fill;
};

static void build(char *path, const char *config, const struct given *tensors, uint32_t count)
{
    static uint8_t data[8][4096];
    struct fl_tensor_view views[8];
    struct fl_error error = {0};
    struct fl_buf bytes;
    fresh_path(path);
    fl_assert_ok(fl_fs_make_directory(path, 0755, &error), &error);
    for (uint32_t i = 0; i < count; i++) {
        size_t size = fl_dtype_block_bytes(tensors[i].dtype);
        size_t values = (size_t)(tensors[i].rows * tensors[i].columns);
        for (size_t k = 0; k < values; k++) {
            uint16_t half = tensors[i].dtype == FL_DTYPE_F16 ? fl_f32_to_f16(tensors[i].fill)
                                                             : fl_f32_to_bf16(tensors[i].fill);
            if (size == 4)
                memcpy(data[i] + 4 * k, &tensors[i].fill, 4);
            else
                memcpy(data[i] + 2 * k, &half, 2);
        }
        views[i] = (struct fl_tensor_view){.name = tensors[i].key,
                                           .dtype = tensors[i].dtype,
                                           .rank = 2,
                                           .shape = {tensors[i].rows, tensors[i].columns},
                                           .data = data[i],
                                           .bytes = values * size};
    }
    fl_buf_init(&bytes, 1u << 20);
    fl_assert_ok(fl_safetensors_write(views, count, &bytes, &error), &error);
    put(path, FL_PEFT_WEIGHTS, bytes.data, bytes.length);
    put(path, FL_PEFT_CONFIG, config, strlen(config));
    fl_buf_free(&bytes);
}

#define Q0A     "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
#define Q0B     "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
#define Q1A     "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
#define Q1B     "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"
#define CONFIG4 "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"target_modules\":[\"q_proj\"]}"

START_TEST(halves_and_old_keys_are_read)
{
    const struct given tensors[] = {
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight", FL_DTYPE_F16, 4,
         12, 0.5f},
        {Q0B, FL_DTYPE_BF16, 16, 4, -2.0f},
        {Q1A, FL_DTYPE_F32, 4, 12, 3.0f},
        {Q1B, FL_DTYPE_F32, 16, 4, 4.0f},
    };
    struct fl_inventory base = model_inventory();
    struct fl_error error = {0};
    struct fl_adapter *self;
    char path[FL_PATH_BYTES];
    build(path, CONFIG4, tensors, 4);
    fl_assert_ok(fl_adapter_load(path, &base, &self, &error), &error);
    ck_assert_uint_eq(self->count, 2);
    ck_assert_float_eq(self->modules[0].a[47], 0.5f);
    ck_assert_float_eq(self->modules[0].b[63], -2.0f);
    ck_assert_float_eq(self->modules[1].b[0], 4.0f);
    ck_assert_double_eq(fl_adapter_scale(self, 0), 2.0);
    fl_adapter_destroy(&self);
}
END_TEST

static const struct {
    const char *says, *config;
    struct given tensors[5];
} wrong[] = {
    {"has no lora_B", CONFIG4, {{Q0A, FL_DTYPE_F32, 4, 12, 1}, {Q1A, FL_DTYPE_F32, 4, 12, 1}}},
    {"which is not there", CONFIG4, {{Q0A, FL_DTYPE_F32, 4, 12, 1}, {Q0B, FL_DTYPE_F32, 16, 4, 1}}},
    {"not among the target_modules",
     "{\"peft_type\":\"LORA\",\"r\":4,\"target_modules\":[\"v_proj\"]}",
     {{Q0A, FL_DTYPE_F32, 4, 12, 1}, {Q0B, FL_DTYPE_F32, 16, 4, 1}}},
    {"do not fit together",
     CONFIG4,
     {{Q0A, FL_DTYPE_F32, 4, 12, 1}, {Q0B, FL_DTYPE_F32, 16, 3, 1}}},
    {"in the model", CONFIG4, {{Q0A, FL_DTYPE_F32, 4, 16, 1}, {Q0B, FL_DTYPE_F32, 12, 4, 1}}},
    {"configuration says",
     CONFIG4,
     {{Q0A, FL_DTYPE_F32, 4, 12, 1},
      {Q0B, FL_DTYPE_F32, 16, 4, 1},
      {Q1A, FL_DTYPE_F32, 2, 12, 1},
      {Q1B, FL_DTYPE_F32, 16, 2, 1}}},
    {"NaN or Inf",
     CONFIG4,
     {{Q0A, FL_DTYPE_F32, 4, 12, 1},
      {Q0B, FL_DTYPE_F32, 16, 4, NAN},
      {Q1A, FL_DTYPE_F32, 4, 12, 1},
      {Q1B, FL_DTYPE_F32, 16, 4, 1}}},
    {"NaN or Inf",
     CONFIG4,
     {{Q0A, FL_DTYPE_F16, 4, 12, INFINITY},
      {Q0B, FL_DTYPE_F32, 16, 4, 1},
      {Q1A, FL_DTYPE_F32, 4, 12, 1},
      {Q1B, FL_DTYPE_F32, 16, 4, 1}}},
    {"not a LoRA A or B", CONFIG4, {{"lm_head.weight", FL_DTYPE_F32, 4, 4, 1}}},
    {"no linear",
     "{\"peft_type\":\"LORA\",\"r\":4,\"target_modules\":[\"k\"]}",
     {{"base_model.model.k.lora_A.weight", FL_DTYPE_F32, 4, 4, 1},
      {"base_model.model.k.lora_B.weight", FL_DTYPE_F32, 4, 4, 1}}},
    {"there twice",
     CONFIG4,
     {{Q0A, FL_DTYPE_F32, 4, 12, 1},
      {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight", FL_DTYPE_F32, 4,
       12, 1}}},
    {"no tensor", CONFIG4, {{NULL, FL_DTYPE_F32, 0, 0, 0}}},
    {"rank",
     "{\"peft_type\":\"LORA\",\"r\":16,"
     "\"target_modules\":[\"model.layers.0.self_attn.q_proj\"]}",
     {{Q0A, FL_DTYPE_F32, 16, 12, 1}, {Q0B, FL_DTYPE_F32, 16, 16, 1}}},
};

START_TEST(directories_that_do_not_fit_are_refused)
{
    struct fl_inventory base = model_inventory();
    struct fl_error error = {0};
    struct fl_adapter *self;
    char path[FL_PATH_BYTES];
    uint32_t count = 0;
    while (count < 5 && wrong[_i].tensors[count].key)
        count++;
    build(path, wrong[_i].config, wrong[_i].tensors, count);
    ck_assert_msg(fl_adapter_load(path, &base, &self, &error) == FL_EFORMAT, "%s", wrong[_i].says);
    ck_assert_ptr_null(self);
    ck_assert_msg(strstr(error.text, wrong[_i].says) != NULL, "'%s' does not say '%s'", error.text,
                  wrong[_i].says);
}
END_TEST

START_TEST(a_directory_without_its_files_is_not_found)
{
    struct fl_error error = {0};
    struct fl_adapter *self;
    char path[FL_PATH_BYTES];
    fresh_path(path);
    ck_assert_int_eq(fl_adapter_load(path, NULL, &self, &error), FL_ENOTFOUND);
    fl_assert_ok(fl_fs_make_directory(path, 0755, &error), &error);
    put(path, FL_PEFT_CONFIG, CONFIG4, strlen(CONFIG4));
    ck_assert_int_eq(fl_adapter_load(path, NULL, &self, &error), FL_ENOTFOUND);
    ck_assert_ptr_null(self);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, an_inventory_survives_its_bytes);
    tcase_add_test(tc, damaged_inventories_are_refused);
    tcase_add_test(tc, a_module_twice_is_refused);
    tcase_add_test(tc, targets_select_by_name_or_path);
    tcase_add_test(tc, the_start_is_uniform_and_changes_nothing);
    tcase_add_test(tc, one_scale_holds_for_unequal_ranks);
    tcase_add_test(tc, impossible_ranks_are_refused);
    tcase_add_test(tc, a_copy_is_equal_and_apart);
    tcase_add_test(tc, magnitudes_follow_prefixes_and_differences_of_the_same_ranks);
    tcase_add_test(tc, an_adapter_survives_its_bytes);
    tcase_add_test(tc, bytes_of_another_adapter_are_refused);
    tcase_add_loop_test(tc, an_adapter_survives_a_peft_directory, 0, 2);
    tcase_add_test(tc, single_layers_are_named_by_path);
    tcase_add_test(tc, adapters_of_gpt2_say_how_its_weights_lie_and_which_projection_is_meant);
    tcase_add_test(tc, an_adapter_is_replaced_and_anything_else_left_alone);
    tcase_add_test(tc, halves_and_old_keys_are_read);
    tcase_add_loop_test(tc, directories_that_do_not_fit_are_refused, 0,
                        (int)(sizeof(wrong) / sizeof(wrong[0])));
    tcase_add_test(tc, a_directory_without_its_files_is_not_found);
}

FL_TEST_MAIN("adapter_adapter", add_tests)

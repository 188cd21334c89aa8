/* AdamW and SGD against the formulas in double precision; clipping, state, refusals. */
#include "engine/reference.h"
#include "runner.h"

#include <math.h>
#include <string.h>

#include "worker/engine/optimizer.h"

static struct fl_error error;

struct bench {
    struct fl_adapter *adapter;
    struct fl_gradient *gradients; /* one a module, random */
    double *p, *m, *v;             /* of module 0's B, in double */
    size_t n;
};

static struct bench make_bench(void)
{
    const struct toy_shape shape = toy_default();
    struct fl_model *model = toy_model(&shape, 3);
    struct bench b = {.adapter = toy_adapter(model, "v_proj", 2, 4)};
    uint64_t state = 9;
    b.gradients = toy_memory(b.adapter->count, sizeof *b.gradients);
    for (uint32_t i = 0; i < b.adapter->count; i++) {
        const struct fl_lora_module *m = &b.adapter->modules[i];
        const size_t na = (size_t)m->rank * m->module.in, nb = (size_t)m->rank * m->module.out;
        b.gradients[i].a = toy_memory(na, sizeof(float));
        b.gradients[i].b = toy_memory(nb, sizeof(float));
        for (size_t j = 0; j < na; j++)
            b.gradients[i].a[j] = (float)toy_random(&state);
        for (size_t j = 0; j < nb; j++)
            b.gradients[i].b[j] = (float)toy_random(&state);
    }
    b.n = (size_t)b.adapter->modules[0].rank * b.adapter->modules[0].module.out;
    b.p = toy_memory(b.n, sizeof *b.p);
    b.m = toy_memory(b.n, sizeof *b.m);
    b.v = toy_memory(b.n, sizeof *b.v);
    for (size_t j = 0; j < b.n; j++)
        b.p[j] = (double)b.adapter->modules[0].b[j];
    return b;
}

static double norm_of(const struct bench *b, double divisor)
{
    double total = 0.0;
    for (uint32_t i = 0; i < b->adapter->count; i++) {
        const struct fl_lora_module *m = &b->adapter->modules[i];
        for (size_t j = 0; j < (size_t)m->rank * m->module.in; j++)
            total += pow((double)b->gradients[i].a[j], 2);
        for (size_t j = 0; j < (size_t)m->rank * m->module.out; j++)
            total += pow((double)b->gradients[i].b[j], 2);
    }
    return sqrt(total) / divisor;
}

static void adamw(struct bench *b, int t, double lr, double decay, double factor)
{
    for (size_t j = 0; j < b->n; j++) {
        const double g = (double)b->gradients[0].b[j] * factor;
        b->p[j] *= 1.0 - lr * decay;
        b->m[j] = 0.9 * b->m[j] + 0.1 * g;
        b->v[j] = 0.999 * b->v[j] + 0.001 * g * g;
        const double m = b->m[j] / (1.0 - pow(0.9, t)), v = b->v[j] / (1.0 - pow(0.999, t));
        b->p[j] -= lr * m / (sqrt(v) + 1e-8);
    }
}

static void compare(const struct bench *b)
{
    for (size_t j = 0; j < b->n; j++)
        ck_assert_double_eq_tol((double)b->adapter->modules[0].b[j], b->p[j], 1e-6);
}

START_TEST(adamw_follows_the_formula_with_decay_and_clipping)
{
    struct bench b = make_bench();
    struct fl_optimizer_options options = fl_optimizer_defaults();
    struct fl_optimizer *optimizer;
    options.weight_decay = 0.1;
    options.grad_clip = 0.5;
    fl_assert_ok(fl_optimizer_create(b.adapter, &options, &optimizer, &error), &error);
    for (int t = 1; t <= 5; t++) {
        double norm, want = norm_of(&b, 4.0);
        fl_assert_ok(
            fl_optimizer_step(optimizer, b.adapter, b.gradients, 4.0, 1e-3, 1e-2, &norm, &error),
            &error);
        ck_assert_double_eq_tol(norm, want, 1e-6 * want);
        adamw(&b, t, 1e-2, 0.1, 0.25 * fmin(1.0, 0.5 / (want + 1e-6)));
        compare(&b);
    }
    ck_assert_uint_eq(fl_optimizer_steps(optimizer), 5);
    fl_optimizer_destroy(&optimizer);
}
END_TEST

START_TEST(sgd_follows_the_formula)
{
    struct bench b = make_bench();
    struct fl_optimizer_options options = fl_optimizer_defaults();
    struct fl_optimizer *optimizer;
    options.kind = FL_OPTIMIZER_SGD;
    options.weight_decay = 0.1;
    options.grad_clip = 0.0;
    fl_assert_ok(fl_optimizer_create(b.adapter, &options, &optimizer, &error), &error);
    for (int t = 0; t < 3; t++) {
        fl_assert_ok(
            fl_optimizer_step(optimizer, b.adapter, b.gradients, 2.0, 1e-3, 1e-2, NULL, &error),
            &error);
        for (size_t j = 0; j < b.n; j++)
            b.p[j] -= 1e-2 * ((double)b.gradients[0].b[j] / 2.0 + 0.1 * b.p[j]);
        compare(&b);
    }
    fl_optimizer_destroy(&optimizer);
}
END_TEST

START_TEST(a_frozen_factor_does_not_move)
{
    struct bench b = make_bench();
    struct fl_optimizer_options options = fl_optimizer_defaults();
    struct fl_optimizer *optimizer;
    const float a = b.adapter->modules[0].a[3], other = b.adapter->modules[0].b[3];
    options.train = FL_TRAIN_B;
    for (uint32_t i = 0; i < b.adapter->count; i++) {
        b.gradients[i].a = NULL;
    }
    fl_assert_ok(fl_optimizer_create(b.adapter, &options, &optimizer, &error), &error);
    fl_assert_ok(
        fl_optimizer_step(optimizer, b.adapter, b.gradients, 1.0, 1e-3, 1e-3, NULL, &error),
        &error);
    ck_assert_float_eq(b.adapter->modules[0].a[3], a);
    ck_assert_float_ne(b.adapter->modules[0].b[3], other);
    fl_optimizer_destroy(&optimizer);
}
END_TEST

START_TEST(a_gradient_that_is_not_finite_moves_nothing)
{
    struct bench b = make_bench();
    const struct fl_optimizer_options options = fl_optimizer_defaults();
    struct fl_optimizer *optimizer;
    b.gradients[2].a[1] = (float)NAN;
    fl_assert_ok(fl_optimizer_create(b.adapter, &options, &optimizer, &error), &error);
    ck_assert_int_eq(
        fl_optimizer_step(optimizer, b.adapter, b.gradients, 1.0, 1.0, 1.0, NULL, &error),
        FL_ERANGE);
    compare(&b);
    ck_assert_uint_eq(fl_optimizer_steps(optimizer), 0);
    fl_optimizer_destroy(&optimizer);
}
END_TEST

static enum fl_status decode(struct fl_optimizer *self, const struct bench *b, const void *bytes,
                             size_t length)
{
    return fl_optimizer_decode(self, b->adapter, bytes, length, "state", &error);
}

START_TEST(a_state_of_another_optimizer_is_refused)
{
    struct bench b = make_bench();
    struct fl_optimizer_options options = fl_optimizer_defaults();
    struct fl_optimizer *adamw_of_both, *adamw_of_b, *sgd;
    struct fl_buf buf;
    fl_buf_init(&buf, 1 << 20);
    fl_assert_ok(fl_optimizer_create(b.adapter, &options, &adamw_of_both, &error), &error);
    options.train = FL_TRAIN_B;
    fl_assert_ok(fl_optimizer_create(b.adapter, &options, &adamw_of_b, &error), &error);
    options.kind = FL_OPTIMIZER_SGD;
    fl_assert_ok(fl_optimizer_create(b.adapter, &options, &sgd, &error), &error);
    fl_assert_ok(fl_optimizer_encode(adamw_of_b, b.adapter, &buf, &error), &error);
    fl_assert_ok(decode(adamw_of_b, &b, buf.data, buf.length), &error);
    ck_assert_int_eq(decode(adamw_of_both, &b, buf.data, buf.length), FL_EFORMAT);
    ck_assert_int_eq(decode(sgd, &b, buf.data, buf.length), FL_EFORMAT);
    fl_buf_free(&buf);
    fl_assert_ok(fl_optimizer_encode(sgd, b.adapter, &buf, &error), &error);
    fl_assert_ok(decode(sgd, &b, buf.data, buf.length), &error);
    fl_buf_free(&buf);
    fl_optimizer_destroy(&adamw_of_both);
    fl_optimizer_destroy(&adamw_of_b);
    fl_optimizer_destroy(&sgd);
}
END_TEST

START_TEST(a_restored_state_goes_on_with_the_same_bytes)
{
    struct bench b = make_bench(), c = make_bench();
    const struct fl_optimizer_options options = fl_optimizer_defaults();
    struct fl_optimizer *first, *second;
    struct fl_buf buf;
    fl_buf_init(&buf, 1 << 20);
    fl_assert_ok(fl_optimizer_create(b.adapter, &options, &first, &error), &error);
    fl_assert_ok(fl_optimizer_create(c.adapter, &options, &second, &error), &error);
    fl_assert_ok(fl_optimizer_step(first, b.adapter, b.gradients, 2.0, 1e-2, 1e-2, NULL, &error),
                 &error);
    fl_assert_ok(fl_optimizer_encode(first, b.adapter, &buf, &error), &error);
    memcpy(c.adapter->modules[0].b, b.adapter->modules[0].b, b.n * sizeof(float));
    fl_assert_ok(decode(second, &c, buf.data, buf.length), &error);
    fl_assert_ok(fl_optimizer_step(first, b.adapter, b.gradients, 3.0, 1e-2, 1e-2, NULL, &error),
                 &error);
    fl_assert_ok(fl_optimizer_step(second, c.adapter, b.gradients, 3.0, 1e-2, 1e-2, NULL, &error),
                 &error);
    ck_assert_int_eq(memcmp(c.adapter->modules[0].b, b.adapter->modules[0].b, b.n * sizeof(float)),
                     0);
    for (size_t cut = 0; cut < buf.length; cut += 7)
        ck_assert_int_eq(decode(second, &c, buf.data, cut), FL_EFORMAT);
    const size_t data = 8 + (size_t)fl_load_u64(buf.data); /* "step" is first: the widest type */
    memset(buf.data + data + 8, 0xff, 4);                  /* a NaN */
    ck_assert_int_eq(decode(second, &c, buf.data, buf.length), FL_EFORMAT);
    memset(buf.data + data, 0xff, 8);
    ck_assert_int_eq(decode(second, &c, buf.data, buf.length), FL_EFORMAT);
    fl_buf_free(&buf);
    fl_optimizer_destroy(&first);
    fl_optimizer_destroy(&second);
}
END_TEST

START_TEST(senseless_settings_are_refused)
{
    struct bench b = make_bench();
    struct fl_optimizer *optimizer;
    for (int i = 0; i < 4; i++) {
        struct fl_optimizer_options options = fl_optimizer_defaults();
        if (i == 0)
            options.beta1 = 1.0;
        else if (i == 1)
            options.weight_decay = -1.0;
        else if (i == 2)
            options.grad_clip = (double)INFINITY;
        else
            options.train = FL_TRAIN_NONE;
        ck_assert_int_eq(fl_optimizer_create(b.adapter, &options, &optimizer, &error), FL_ERANGE);
        ck_assert_ptr_null(optimizer);
    }
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, NULL, toy_teardown);
    tcase_add_test(tc, adamw_follows_the_formula_with_decay_and_clipping);
    tcase_add_test(tc, sgd_follows_the_formula);
    tcase_add_test(tc, a_frozen_factor_does_not_move);
    tcase_add_test(tc, a_gradient_that_is_not_finite_moves_nothing);
    tcase_add_test(tc, a_state_of_another_optimizer_is_refused);
    tcase_add_test(tc, a_restored_state_goes_on_with_the_same_bytes);
    tcase_add_test(tc, senseless_settings_are_refused);
}

FL_TEST_MAIN("optimizer", add_tests)

/*
 * Goal: options choose the linears, ranks and alphas that LoraConfig would, and an entry that
 * matches nothing or makes no sense is refused with its option's name.
 * Method: a base of two linears in each of four blocks; each case says how many are left, or a part
 * of the refusal.
 */
#include "adapter/choose.h"

#include <stdio.h>
#include <string.h>

#include "runner.h"

#define LAYERS 4u

static struct fl_inventory base_inventory(void)
{
    static struct fl_module modules[2 * LAYERS];
    for (uint32_t i = 0; i < 2 * LAYERS; i++) {
        struct fl_module *m = &modules[i];
        snprintf(m->name, sizeof m->name, "model.layers.%u.%s", i / 2,
                 i % 2 ? "mlp.up_proj" : "self_attn.q_proj");
        m->out = 16;
        m->in = 12;
        m->layer = i / 2;
    }
    return (struct fl_inventory){.modules = modules, .count = 2 * LAYERS, .layers = LAYERS};
}

/* ---- modules ---- */

static const struct {
    const char *targets, *exclude, *layers;
    uint32_t count;
    const char *refusal; /* NULL: chosen */
} choices[] = {
    {"all-linear", NULL, NULL, 8, NULL},
    {"all-linear", "up_proj", NULL, 4, NULL},
    {"all-linear", "mlp.up_proj, model.layers.0.self_attn.q_proj", NULL, 3, NULL},
    {"all-linear", NULL, "0", 2, NULL},
    {"all-linear", NULL, "1-2,2,3", 6, NULL},
    {"q_proj", NULL, "0-3", 4, NULL},
    {"all-linear", "q_proj", "3", 1, NULL},
    {"all-linear", "k_proj", NULL, 0, "--exclude: 'k_proj' matches no linear"},
    {"q_proj", "up_proj", NULL, 0, "--exclude: 'up_proj' matches no linear that is chosen"},
    {"all-linear", "roj", NULL, 0, "--exclude: 'roj'"}, /* no part of its own */
    {"q_proj", "q_proj", NULL, 0, "leave no linear"},
    {"all-linear", NULL, "4", 0, "blocks are 0 to 3"},
    {"all-linear", NULL, "99999999999999999999", 0, "blocks are 0 to 3"},
    {"all-linear", NULL, "2-1", 0, "no block and no range"},
    {"all-linear", NULL, "1-", 0, "no block and no range"},
    {"all-linear", NULL, "-1", 0, "no block and no range"},
    {"all-linear", NULL, "x", 0, "no block and no range"},
    {"all-linear", NULL, ",", 0, "leave no linear"},
    {"k_proj", NULL, NULL, 0, "--targets: target 'k_proj'"},
};

START_TEST(options_choose_modules)
{
    struct fl_inventory base = base_inventory(), chosen;
    struct fl_error error = {0};
    const struct fl_choice choice = {.targets = choices[_i].targets,
                                     .exclude = choices[_i].exclude,
                                     .layers = choices[_i].layers};
    enum fl_status status = fl_choose_modules(&base, &choice, &chosen, &error);
    if (choices[_i].refusal) {
        ck_assert_int_eq(status, FL_EINVAL);
        ck_assert_ptr_nonnull(strstr(error.text, choices[_i].refusal));
        ck_assert_ptr_null(chosen.modules);
    } else {
        fl_assert_ok(status, &error);
        ck_assert_uint_eq(chosen.count, choices[_i].count);
        ck_assert_uint_eq(chosen.layers, LAYERS);
        fl_inventory_free(&chosen);
    }
}
END_TEST

START_TEST(what_is_left_keeps_its_order)
{
    struct fl_inventory base = base_inventory(), chosen;
    struct fl_error error = {0};
    const struct fl_choice choice = {
        .targets = "all-linear", .exclude = "model.layers.2.mlp.up_proj", .layers = "2,0"};
    static const char *const left[] = {"model.layers.0.self_attn.q_proj",
                                       "model.layers.0.mlp.up_proj",
                                       "model.layers.2.self_attn.q_proj"};
    fl_assert_ok(fl_choose_modules(&base, &choice, &chosen, &error), &error);
    ck_assert_uint_eq(chosen.count, 3);
    for (uint32_t i = 0; i < 3; i++)
        ck_assert_str_eq(chosen.modules[i].name, left[i]);
    fl_inventory_free(&chosen);
}
END_TEST

/* ---- ranks and alphas ---- */

START_TEST(patterns_give_ranks_and_alphas)
{
    struct fl_inventory base = base_inventory();
    struct fl_error error = {0};
    struct fl_adapter *self;
    /* the first that matches counts; 20 is cut to what the linears allow, 12 */
    const struct fl_choice choice = {.targets = "all-linear",
                                     .rank = 20,
                                     .alpha = 32.0,
                                     .rank_pattern = "model.layers.0.mlp.up_proj=3,up_proj=2",
                                     .alpha_pattern = "model\\.layers\\.[01]\\..*=4, q_proj=0.5"};
    fl_assert_ok(fl_choose_adapter(&base, &choice, &self, &error), &error);
    static const uint32_t ranks[] = {12, 3, 12, 2, 12, 2, 12, 2};
    static const double alphas[] = {4, 4, 4, 4, 0.5, 32, 0.5, 32};
    ck_assert_uint_eq(self->count, 8);
    ck_assert_uint_eq(self->rank, 20);
    for (uint32_t i = 0; i < 8; i++) {
        ck_assert_uint_eq(self->modules[i].rank, ranks[i]);
        ck_assert_double_eq(self->modules[i].alpha, alphas[i]);
    }
    fl_adapter_destroy(&self);
}
END_TEST

static const struct {
    const char *ranks, *alphas, *refusal;
} wrong[] = {
    {"up_proj", NULL, "--rank-pattern: 'up_proj' is not NAME=RANK"},
    {"up_proj=", NULL, "is not NAME=RANK"},
    {"=4", NULL, "is not NAME=RANK"},
    {"up_proj=0", NULL, "is not NAME=RANK"},
    {"up_proj=1.5", NULL, "is not NAME=RANK"},
    {"up_proj=1e9", NULL, "is not NAME=RANK"},
    {"up_proj=13", NULL, "rank 13 of a 16 x 12 linear"},
    {"k_proj=4", NULL, "--rank-pattern: 'k_proj' matches no linear"},
    {NULL, "up_proj=nan", "--alpha-pattern: 'up_proj=nan' is not NAME=ALPHA"},
    {NULL, "up_proj=-1", "is not NAME=ALPHA"},
    {NULL, "up_proj=1e7", "is not NAME=ALPHA"},
    {NULL, "up_proj=4x", "is not NAME=ALPHA"},
    {NULL, "(=4", "--alpha-pattern"},
    {NULL, "k_proj=4", "--alpha-pattern: 'k_proj' matches no linear"},
};

START_TEST(patterns_that_make_no_sense_are_refused)
{
    struct fl_inventory base = base_inventory();
    struct fl_error error = {0};
    struct fl_adapter *self;
    const struct fl_choice choice = {.targets = "all-linear",
                                     .rank = 4,
                                     .alpha = 8.0,
                                     .rank_pattern = wrong[_i].ranks,
                                     .alpha_pattern = wrong[_i].alphas};
    ck_assert_int_eq(fl_choose_adapter(&base, &choice, &self, &error), FL_EINVAL);
    ck_assert_msg(strstr(error.text, wrong[_i].refusal) != NULL, "%s", error.text);
    ck_assert_ptr_null(self);
}
END_TEST

START_TEST(endless_entries_are_refused)
{
    struct fl_inventory base = base_inventory();
    struct fl_error error = {0};
    struct fl_adapter *self;
    static char text[1 << 16];
    struct fl_choice choice = {
        .targets = "all-linear", .rank = 4, .alpha = 8.0, .rank_pattern = text};
    memset(text, 'a', sizeof text - 1);
    ck_assert_int_eq(fl_choose_adapter(&base, &choice, &self, &error), FL_EINVAL);
    ck_assert_ptr_nonnull(strstr(error.text, "is too long"));
    for (size_t i = 0; i + 4 < sizeof text; i += 4)
        memcpy(text + i, "b=1,", 4);
    ck_assert_int_eq(fl_choose_adapter(&base, &choice, &self, &error), FL_EINVAL);
    ck_assert_ptr_nonnull(strstr(error.text, "entries"));
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, options_choose_modules, 0, (int)(sizeof choices / sizeof choices[0]));
    tcase_add_test(tc, what_is_left_keeps_its_order);
    tcase_add_test(tc, patterns_give_ranks_and_alphas);
    tcase_add_loop_test(tc, patterns_that_make_no_sense_are_refused, 0,
                        (int)(sizeof wrong / sizeof wrong[0]));
    tcase_add_test(tc, endless_entries_are_refused);
}

FL_TEST_MAIN("adapter_choose", add_tests)

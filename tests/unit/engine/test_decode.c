/* Many prompts at once give what each gives alone. */
#include "runner.h"

#include <math.h>
#include <string.h>

#include "adapter/adapter.h"
#include "base/alloc.h"
#include "worker/engine/decode.h"

#define CASE FL_TEST_SOURCE_DIR "/golden/cases/gqa-tied"

enum { PROMPTS = 7, NEW = 12, VOCAB = 97 };

static struct fl_error error;
static struct fl_model *model;
static struct fl_adapter *adapter;
static int32_t words[PROMPTS][PROMPTS + 2];
static struct fl_prompt prompts[PROMPTS];
static struct fl_completion made[PROMPTS], alone[PROMPTS];

static void setup(void)
{
    uint64_t seed = 4;
    fl_assert_ok(fl_model_open(CASE, &model, &error), &error);
    fl_assert_ok(fl_adapter_load(CASE "/init", fl_model_inventory(model), &adapter, &error),
                 &error);
    for (int p = 0; p < PROMPTS; p++) {
        prompts[p] = (struct fl_prompt){words[p], (uint32_t)(1 + (p * 5) % PROMPTS)};
        for (uint32_t i = 0; i < prompts[p].count; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            words[p][i] = (int32_t)((seed >> 33) % VOCAB);
        }
    }
}

static void teardown(void)
{
    for (int p = 0; p < PROMPTS; p++) {
        fl_ids_free(&made[p].ids);
        fl_ids_free(&alone[p].ids);
    }
    fl_adapter_destroy(&adapter);
    fl_model_close(&model);
}

static bool push(void *context, int32_t id)
{
    ck_assert_int_eq(fl_ids_push(context, id), FL_OK);
    return true;
}

static void decode_alone(const int32_t *stop_ids, uint32_t stop_count)
{
    struct fl_engine *engine = NULL;
    const struct fl_engine_options options = {.max_row_tokens = 1, .cache_tokens = 64};
    const struct fl_generate_options how = {
        .max_tokens = NEW, .stop_ids = stop_ids, .stop_count = stop_count};
    fl_assert_ok(fl_engine_create(model, adapter, &options, &engine, &error), &error);
    for (int p = 0; p < PROMPTS; p++)
        fl_assert_ok(fl_engine_generate(engine, prompts[p].ids, prompts[p].count, &how, push,
                                        &alone[p].ids, &alone[p].finish, &error),
                     &error);
    fl_engine_destroy(&engine);
}

static void compare(const int32_t *stop_ids, uint32_t stop_count, uint32_t rows)
{
    const struct fl_decode_options how = {
        .max_tokens = NEW, .rows = rows, .stop_ids = stop_ids, .stop_count = stop_count};
    for (int p = 0; p < PROMPTS; p++)
        made[p].ids.count = 0;
    fl_assert_ok(fl_decode_greedy(model, adapter, prompts, PROMPTS, &how, NULL, made, &error),
                 &error);
    for (int p = 0; p < PROMPTS; p++) {
        ck_assert_uint_eq(made[p].ids.count, alone[p].ids.count);
        ck_assert_int_eq(made[p].finish, alone[p].finish);
        for (size_t i = 0; i < made[p].ids.count; i++)
            ck_assert_msg(made[p].ids.ids[i] == alone[p].ids.ids[i],
                          "%u rows, prompt %d, token %zu", rows, p, i);
    }
}

START_TEST(prompts_side_by_side_do_not_touch_each_other)
{
    decode_alone(NULL, 0);
    for (uint32_t rows = 1; rows <= PROMPTS + 1; rows++)
        compare(NULL, 0, rows);
}
END_TEST

START_TEST(a_free_row_takes_the_next_prompt)
{
    decode_alone(NULL, 0);
    /* tokens that come early in some continuations, late or never in others */
    const int32_t stops[] = {alone[0].ids.ids[0], alone[1].ids.ids[3], alone[2].ids.ids[1]};
    for (int p = 0; p < PROMPTS; p++)
        alone[p].ids.count = 0;
    decode_alone(stops, 3);
    ck_assert_uint_eq(alone[0].ids.count, 0);
    for (uint32_t rows = 1; rows <= 3; rows++)
        compare(stops, 3, rows);
}
END_TEST

/* Several tokens of several rows, in one pass and one by one. */
START_TEST(logits_of_many_rows_are_those_of_each)
{
    struct fl_engine *engine = NULL;
    const struct fl_engine_options options = {
        .max_row_tokens = 1, .cache_tokens = 20, .cache_rows = 4};
    static float together[3][VOCAB], single[VOCAB];
    static const uint32_t rows[] = {3, 0, 2};
    static const int32_t ids[] = {5, 60, 33};
    fl_assert_ok(fl_engine_create(model, adapter, &options, &engine, &error), &error);
    for (int i = 0; i < 3; i++)
        fl_assert_ok(fl_engine_extend_row(engine, rows[i], words[i + 3], prompts[i + 3].count,
                                          single, &error),
                     &error);
    fl_assert_ok(fl_engine_extend_rows(engine, rows, ids, 3, together[0], &error), &error);
    for (int i = 0; i < 3; i++) {
        fl_engine_reset_row(engine, 1);
        fl_assert_ok(
            fl_engine_extend_row(engine, 1, words[i + 3], prompts[i + 3].count, single, &error),
            &error);
        fl_assert_ok(fl_engine_extend_row(engine, 1, &ids[i], 1, single, &error), &error);
        for (int v = 0; v < VOCAB; v++)
            ck_assert_float_eq_tol(together[i][v], single[v], 1e-4f);
    }
    fl_engine_destroy(&engine);
}
END_TEST

START_TEST(a_full_row_is_refused_and_changes_none)
{
    struct fl_engine *engine = NULL;
    const struct fl_engine_options options = {
        .max_row_tokens = 1, .cache_tokens = 2, .cache_rows = 2};
    struct fl_engine_options many = options;
    static float logits[2][VOCAB];
    static const uint32_t rows[] = {0, 1};
    static const int32_t ids[] = {1, 2};
    fl_assert_ok(fl_engine_create(model, NULL, &options, &engine, &error), &error);
    fl_assert_ok(fl_engine_extend_row(engine, 1, ids, 2, logits[0], &error), &error);
    ck_assert_int_eq(fl_engine_extend_rows(engine, rows, ids, 2, logits[0], &error), FL_ERANGE);
    ck_assert_uint_eq(fl_engine_cached(engine), 0);
    fl_assert_ok(fl_engine_extend(engine, ids, 2, logits[0], &error), &error);
    fl_engine_destroy(&engine);
    many.cache_rows = FL_CACHE_ROWS_MAX + 1;
    ck_assert_int_eq(fl_engine_create(model, NULL, &many, &engine, &error), FL_ERANGE);
}
END_TEST

START_TEST(a_set_flag_stops_it)
{
    const struct fl_decode_options how = {.max_tokens = NEW, .rows = 2};
    const atomic_int stop = 1;
    ck_assert_int_eq(fl_decode_greedy(model, NULL, prompts, PROMPTS, &how, &stop, made, &error),
                     FL_ESTOPPED);
    fl_assert_ok(fl_decode_greedy(model, NULL, NULL, 0, &how, &stop, NULL, &error), &error);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, prompts_side_by_side_do_not_touch_each_other);
    tcase_add_test(tc, a_free_row_takes_the_next_prompt);
    tcase_add_test(tc, logits_of_many_rows_are_those_of_each);
    tcase_add_test(tc, a_full_row_is_refused_and_changes_none);
    tcase_add_test(tc, a_set_flag_stops_it);
}

FL_TEST_MAIN("decode", add_tests)

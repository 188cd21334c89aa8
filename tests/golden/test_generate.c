/*
 * Greedy generation against transformers' generate(do_sample=False): the same ids, with and without
 * an adapter (make_generate.py says how generate.json came about).
 */
#include "runner.h"

#include <stdio.h>
#include <string.h>

#include "adapter/adapter.h"
#include "base/fs.h"
#include "base/json.h"
#include "worker/engine/sample.h"

#define GOLDEN FL_TEST_SOURCE_DIR "/golden/"

enum { IDS_MAX = 64, ENTRIES = 30 };

static struct fl_error error;

struct made {
    int32_t ids[IDS_MAX];
    uint32_t count;
};

static bool take(void *context, int32_t id)
{
    struct made *made = context;
    ck_assert_uint_lt(made->count, IDS_MAX);
    made->ids[made->count++] = id;
    return true;
}

static uint32_t read_ids(const json_t *entry, const char *key, int32_t *ids)
{
    const json_t *array = json_object_get(entry, key);
    const size_t count = json_array_size(array);
    ck_assert(count > 0 && count <= IDS_MAX);
    for (size_t i = 0; i < count; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return (uint32_t)count;
}

/* The entry's model and, where it says so, adapter. */
static void open_entry(const json_t *entry, struct fl_model **model, struct fl_adapter **adapter)
{
    char path[FL_PATH_BYTES];
    const char *name = json_string_value(json_object_get(entry, "case"));
    ck_assert_ptr_nonnull(name);
    (void)snprintf(path, sizeof path, GOLDEN "cases/%s", name);
    fl_assert_ok(fl_model_open(path, model, &error), &error);
    *adapter = NULL;
    if (!json_is_true(json_object_get(entry, "adapter")))
        return;
    (void)snprintf(path, sizeof path, GOLDEN "cases/%s/init", name);
    fl_assert_ok(fl_adapter_load(path, fl_model_inventory(*model), adapter, &error), &error);
}

START_TEST(greedy_generation_equals_that_of_transformers)
{
    json_t *entries = NULL;
    struct fl_model *model = NULL;
    struct fl_adapter *adapter = NULL;
    struct fl_engine *engine = NULL;
    struct made made = {.count = 0};
    int32_t prompt[IDS_MAX], want[IDS_MAX];
    fl_assert_ok(fl_json_load(GOLDEN "generate.json", 1 << 20, &entries, &error), &error);
    ck_assert_uint_eq(json_array_size(entries), ENTRIES);
    const json_t *entry = json_array_get(entries, (size_t)_i);
    const uint32_t prompt_count = read_ids(entry, "prompt", prompt);
    const uint32_t count = read_ids(entry, "ids", want);
    open_entry(entry, &model, &adapter);
    const struct fl_engine_options options = {
        .threads = 1, .max_row_tokens = 1, .cache_tokens = prompt_count + count};
    const struct fl_generate_options how = {.max_tokens = count};
    fl_assert_ok(fl_engine_create(model, adapter, &options, &engine, &error), &error);
    fl_assert_ok(fl_engine_generate(engine, prompt, prompt_count, &how, take, &made, NULL, &error),
                 &error);
    ck_assert_uint_eq(made.count, count);
    for (uint32_t i = 0; i < count; i++)
        ck_assert_msg(made.ids[i] == want[i], "entry %d: token %u is %d, not %d", _i, i,
                      made.ids[i], want[i]);
    fl_engine_destroy(&engine);
    fl_adapter_destroy(&adapter);
    fl_model_close(&model);
    json_decref(entries);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, greedy_generation_equals_that_of_transformers, 0, ENTRIES);
}

FL_TEST_MAIN("generate", add_tests)

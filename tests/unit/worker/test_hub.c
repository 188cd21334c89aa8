/* What the hub says is checked before it is believed. */
#include "runner.h"

#include <stdio.h>
#include <string.h>

#include "worker/hub.h"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define SHA256 "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define GIT    "\"blobId\":\"" COMMIT "\""
#define LFS    "\"lfs\":{\"sha256\":\"" SHA256 "\",\"size\":"

static struct fl_error error;
static struct fl_option_list any;

static enum fl_status read_plan(const char *siblings, const struct fl_option_list *only,
                                struct fl_hub_plan *plan)
{
    static char text[1 << 20];
    int n = snprintf(text, sizeof text, "{\"sha\":\"" COMMIT "\",\"siblings\":[%s]}", siblings);
    return fl_hub_plan_read(text, (size_t)n, only, plan, &error);
}

START_TEST(what_a_model_needs_is_chosen)
{
    struct fl_hub_plan plan;
    fl_assert_ok(read_plan("{\"rfilename\":\"config.json\",\"size\":10," GIT "},"
                           "{\"rfilename\":\"README.md\",\"size\":10," GIT "},"
                           "{\"rfilename\":\"onnx/model.json\",\"size\":10," GIT "},"
                           "{\"rfilename\":\".gitattributes\",\"size\":1," GIT "},"
                           "{\"rfilename\":\"pytorch_model.bin\"," LFS "9}},"
                           "{\"rfilename\":\"consolidated.safetensors\"," LFS "9}},"
                           "{\"rfilename\":\"merges.txt\",\"size\":3," GIT "},"
                           "{\"rfilename\":\"model.safetensors\"," LFS "5000000000},\"size\":7}",
                           &any, &plan),
                 &error);
    ck_assert_str_eq(plan.commit, COMMIT);
    ck_assert_uint_eq(plan.count, 3);
    ck_assert_uint_eq(plan.bytes, 5000000013ull);
    ck_assert_str_eq(plan.files[0].name, "config.json");
    ck_assert(!plan.files[0].sha256);
    ck_assert_str_eq(plan.files[2].hash, SHA256);
    ck_assert(plan.files[2].sha256);
    fl_hub_plan_free(&plan);
}
END_TEST

START_TEST(pieces_beside_the_whole_are_left_out)
{
    struct fl_hub_plan plan;
#define PIECES                                                                                     \
    "{\"rfilename\":\"config.json\",\"size\":1," GIT "},"                                          \
    "{\"rfilename\":\"model-00001-of-00002.safetensors\"," LFS "4}},"                              \
    "{\"rfilename\":\"model-00002-of-00002.safetensors\"," LFS "4}},"                              \
    "{\"rfilename\":\"model.safetensors.index.json\",\"size\":2," GIT "}"
    fl_assert_ok(read_plan(PIECES, &any, &plan), &error);
    ck_assert_uint_eq(plan.count, 4);
    ck_assert_uint_eq(plan.bytes, 11);
    fl_hub_plan_free(&plan);
    fl_assert_ok(read_plan(PIECES ",{\"rfilename\":\"model.safetensors\"," LFS "8}}", &any, &plan),
                 &error);
    ck_assert_uint_eq(plan.count, 2);
    ck_assert_uint_eq(plan.bytes, 9);
    fl_hub_plan_free(&plan);
}
END_TEST

START_TEST(named_files_are_taken_alone)
{
    struct fl_option_list only = {.items = {"m.gguf"}, .count = 1};
    struct fl_hub_plan plan;
    fl_assert_ok(read_plan("{\"rfilename\":\"m.gguf\"," LFS "4}},"
                           "{\"rfilename\":\"config.json\",\"size\":1," GIT "}",
                           &only, &plan),
                 &error);
    ck_assert_uint_eq(plan.count, 1);
    fl_hub_plan_free(&plan);
    ck_assert_int_eq(read_plan("{\"rfilename\":\"config.json\",\"size\":1," GIT "}", &only, &plan),
                     FL_ENOTFOUND);
}
END_TEST

START_TEST(hostile_answers_are_refused)
{
    static const char *const bad[] = {
        "",
        "{\"rfilename\":\"config.json\",\"size\":10," GIT "}",
        "{\"rfilename\":\"../config.json\",\"size\":10," GIT "},"
        "{\"rfilename\":\"a/../model.safetensors\"," LFS "9}}",
        "{\"rfilename\":\"config.json\",\"size\":-1," GIT "}",
        "{\"rfilename\":\"config.json\",\"size\":9000000000000000," GIT "}",
        "{\"rfilename\":\"config.json\",\"size\":\"1\"," GIT "}",
        "{\"rfilename\":\"config.json\",\"size\":1,\"blobId\":\"../../x\"}",
        "{\"rfilename\":\"config.json\",\"size\":1}",
        "{\"rfilename\":\"model.safetensors\",\"lfs\":{\"sha256\":\"" COMMIT "\",\"size\":1}}",
        "{\"rfilename\":7}",
        "7",
    };
    struct fl_hub_plan plan;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_msg(read_plan(bad[i], &any, &plan) == FL_EFORMAT, "%s", bad[i]);
        ck_assert_ptr_null(plan.files);
    }
    static const char *const whole[] = {
        "", "[]", "{}", "{\"sha\":\"main\",\"siblings\":[]}", "{\"sha\":\"" COMMIT "\"}", "<html>"};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        ck_assert_int_eq(fl_hub_plan_read(whole[i], strlen(whole[i]), &any, &plan, &error),
                         FL_EFORMAT);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, what_a_model_needs_is_chosen);
    tcase_add_test(tc, pieces_beside_the_whole_are_left_out);
    tcase_add_test(tc, named_files_are_taken_alone);
    tcase_add_test(tc, hostile_answers_are_refused);
}

FL_TEST_MAIN("hub", add_tests)

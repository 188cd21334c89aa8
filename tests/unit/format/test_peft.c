/*
 * Goal: adapter_config.json means what it means to PEFT; what changes the mathematics is refused.
 * Method: configurations as PEFT 0.21 and older ones write them; each refusal names its key.
 */
#include "format/peft.h"

#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/limits.h"
#include "runner.h"

static char folder[FL_PATH_BYTES];

static void setup(void)
{
    fl_test_directory(folder);
}

static enum fl_status load(const char *text, struct fl_peft_config *out, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    fl_assert_ok(fl_path_join(path, folder, FL_PEFT_CONFIG, error), error);
    fl_assert_ok(fl_fs_write(path, text, strlen(text), 0644, error), error);
    return fl_peft_config_load(folder, out, error);
}

#define CONFIG(rest) "{\"peft_type\":\"LORA\"" rest "}"
#define Q0           "model.layers.0.self_attn.q_proj"
#define Q12          "model.layers.12.self_attn.q_proj"
#define V1           "model.layers.1.self_attn.v_proj"
#define UP2          "model.layers.2.mlp.up_proj"

START_TEST(absent_keys_take_the_defaults_of_peft)
{
    struct fl_peft_config c;
    struct fl_error error = {0};
    fl_assert_ok(load(CONFIG(""), &c, &error), &error);
    ck_assert_uint_eq(c.r, 8);
    ck_assert_double_eq(c.lora_alpha, 8.0);
    ck_assert_double_eq(c.lora_dropout, 0.0);
    ck_assert(!c.use_rslora);
    ck_assert_str_eq(c.base_model, "");
    fl_peft_config_free(&c);
}
END_TEST

START_TEST(every_field_is_read)
{
    struct fl_peft_config c;
    struct fl_error error = {0};
    fl_assert_ok(load(CONFIG(",\"r\":16,\"lora_alpha\":32.5,\"lora_dropout\":0.05,"
                             "\"use_rslora\":true,\"base_model_name_or_path\":\"org/model\","
                             "\"target_modules\":[\"q_proj\"],\"bias\":\"none\","
                             "\"init_lora_weights\":\"gaussian\",\"loftq_config\":{},"
                             "\"modules_to_save\":null,\"use_dora\":false,\"a_new_key\":[1]"),
                      &c, &error),
                 &error);
    ck_assert_uint_eq(c.r, 16);
    ck_assert_double_eq(c.lora_alpha, 32.5);
    ck_assert_double_eq(c.lora_dropout, 0.05);
    ck_assert(c.use_rslora);
    ck_assert_str_eq(c.base_model, "org/model");
    fl_peft_config_free(&c);
}
END_TEST

static const struct {
    const char *text, *says;
} refused[] = {
    {"{}", "peft_type"},
    {"{\"peft_type\":\"ADALORA\"}", "ADALORA"},
    {"{\"peft_type\":7}", "peft_type"},
    {"[]", "object"},
    {"{", "JSON"},
    {"", "JSON"},
    {CONFIG(",\"r\":0"), "'r'"},
    {CONFIG(",\"r\":-4"), "'r'"},
    {CONFIG(",\"r\":8.5"), "'r'"},
    {CONFIG(",\"r\":\"8\""), "'r'"},
    {CONFIG(",\"r\":99999999999"), "'r'"},
    {CONFIG(",\"lora_alpha\":0"), "lora_alpha"},
    {CONFIG(",\"lora_alpha\":\"x\""), "lora_alpha"},
    {CONFIG(",\"lora_dropout\":1"), "lora_dropout"},
    {CONFIG(",\"lora_dropout\":-0.1"), "lora_dropout"},
    {CONFIG(",\"use_rslora\":1"), "use_rslora"},
    {CONFIG(",\"bias\":\"all\""), "bias"},
    {CONFIG(",\"use_dora\":1"), "use_dora"},
    {CONFIG(",\"lora_bias\":true"), "lora_bias"},
    {CONFIG(",\"use_qalora\":true"), "use_qalora"},
    {CONFIG(",\"modules_to_save\":[\"lm_head\"]"), "modules_to_save"},
    {CONFIG(",\"layer_replication\":[[0,4]]"), "layer_replication"},
    {CONFIG(",\"alora_invocation_tokens\":[1]"), "alora_invocation_tokens"},
    {CONFIG(",\"target_parameters\":[\"x\"]"), "target_parameters"},
    {CONFIG(",\"trainable_token_indices\":[1]"), "trainable_token_indices"},
    {CONFIG(",\"eva_config\":{\"rho\":2}"), "eva_config"},
    {CONFIG(",\"init_lora_weights\":\"pissa\""), "init_lora_weights"},
    {CONFIG(",\"init_lora_weights\":\"olora\""), "init_lora_weights"},
    {CONFIG(",\"target_modules\":7"), "target_modules"},
    {CONFIG(",\"target_modules\":[\"q_proj\",7]"), "target_modules"},
    {CONFIG(",\"exclude_modules\":{\"a\":1}"), "exclude_modules"},
    {CONFIG(",\"layers_to_transform\":[\"a\"]"), "layers_to_transform"},
    {CONFIG(",\"rank_pattern\":[\"a\"]"), "rank_pattern"},
    {CONFIG(",\"alpha_pattern\":7"), "alpha_pattern"},
    {CONFIG(",\"r\":4,\"r\":5"), "duplicate"},
};

START_TEST(what_changes_the_mathematics_is_refused_by_name)
{
    struct fl_peft_config c;
    struct fl_error error = {0};
    ck_assert_msg(load(refused[_i].text, &c, &error) == FL_EFORMAT, "%s", refused[_i].text);
    ck_assert_msg(strstr(error.text, refused[_i].says) != NULL, "'%s' for %s", error.text,
                  refused[_i].text);
    fl_peft_config_free(&c);
}
END_TEST

START_TEST(a_missing_configuration_is_not_found)
{
    struct fl_peft_config c;
    struct fl_error error = {0};
    ck_assert_int_eq(fl_peft_config_load(folder, &c, &error), FL_ENOTFOUND);
}
END_TEST

static bool adapts(const char *rest, const char *module)
{
    struct fl_peft_config c;
    struct fl_error error = {0};
    char text[1024];
    bool answer = false;
    snprintf(text, sizeof(text), "{\"peft_type\":\"LORA\",%s}", rest);
    fl_assert_ok(load(text, &c, &error), &error);
    fl_assert_ok(fl_peft_adapts(&c, module, &answer, &error), &error);
    fl_peft_config_free(&c);
    return answer;
}

START_TEST(target_modules_choose_as_in_peft)
{
    ck_assert(adapts("\"r\":1", Q0)); /* the default of Llama: q_proj and v_proj */
    ck_assert(adapts("\"target_modules\":null", V1));
    ck_assert(!adapts("\"r\":1", UP2));
    ck_assert(adapts("\"r\":1", "transformer.h.0.attn.c_attn")); /* of GPT-2 */
    ck_assert(!adapts("\"r\":1", "transformer.h.0.attn.c_proj"));
    ck_assert(adapts("\"r\":1", "model.layers.0.self_attn.qkv_proj")); /* of Phi-3 */
    ck_assert(adapts("\"target_modules\":[\"c_proj\"]", "transformer.h.0.mlp.c_proj"));
    ck_assert(adapts("\"target_modules\":[\"x\",\"q_proj\"]", Q12));
    ck_assert(!adapts("\"target_modules\":[\"proj\"]", Q12));
    ck_assert(adapts("\"target_modules\":[\"self_attn.q_proj\"]", Q12));
    ck_assert(adapts("\"target_modules\":[\"" Q12 "\"]", Q12));
    ck_assert(!adapts("\"target_modules\":[\"" Q12 "\"]", Q0));
    ck_assert(adapts("\"target_modules\":\".*\\\\.(q|v)_proj\"", Q12));
    ck_assert(!adapts("\"target_modules\":\"q_proj\"", Q12)); /* the whole name must match */
    ck_assert(!adapts("\"exclude_modules\":[\"q_proj\"],\"target_modules\":\".*proj\"", Q12));
    ck_assert(!adapts("\"exclude_modules\":\".*12.*\",\"target_modules\":[\"q_proj\"]", Q12));
    ck_assert(adapts("\"exclude_modules\":\".*12.*\",\"target_modules\":[\"q_proj\"]", Q0));
}
END_TEST

START_TEST(only_the_linears_of_gpt2_lie_the_other_way_round)
{
    ck_assert(fl_peft_is_conv1d("transformer.h.11.attn.c_attn"));
    ck_assert(fl_peft_is_conv1d("transformer.h.0.mlp.c_fc"));
    ck_assert(!fl_peft_is_conv1d(Q0));
    ck_assert(!fl_peft_is_conv1d("model.layers.0.attn.c_attn"));
    ck_assert(!fl_peft_is_conv1d("transformer.h.0.attn.xc_attn"));
}
END_TEST

START_TEST(layers_choose_as_in_peft)
{
    ck_assert(adapts("\"target_modules\":[\"q_proj\"],\"layers_to_transform\":12", Q12));
    ck_assert(!adapts("\"target_modules\":[\"q_proj\"],\"layers_to_transform\":1", Q12));
    ck_assert(adapts("\"target_modules\":[\"q_proj\"],\"layers_to_transform\":[0,12]", Q0));
    ck_assert(adapts("\"target_modules\":[\"q_proj\"],\"layers_to_transform\":0", Q0));
    ck_assert(!adapts("\"target_modules\":[\"q_proj\"],\"layers_to_transform\":0", Q12));
    ck_assert(adapts("\"target_modules\":[\"q_proj\"],\"layers_to_transform\":0,"
                     "\"layers_pattern\":\"layers\"",
                     Q0));
    ck_assert(!adapts("\"target_modules\":[\"q_proj\"],\"layers_to_transform\":0,"
                      "\"layers_pattern\":[\"h\"]",
                      Q0));
    ck_assert(adapts("\"target_modules\":[\"q_proj\"],\"layers_to_transform\":0,"
                     "\"layers_pattern\":[\"h\",\"layers\"]",
                     Q0));
    ck_assert(adapts("\"target_modules\":[\"q_proj\"],\"layers_to_transform\":[]", Q0));
    /* a full name is chosen whatever the layers say */
    ck_assert(adapts("\"target_modules\":[\"" Q12 "\"],\"layers_to_transform\":1", Q12));
    /* no layer in the name: not chosen */
    ck_assert(!adapts("\"target_modules\":[\"lm_head\"],\"layers_to_transform\":0", "x.lm_head"));
}
END_TEST

START_TEST(the_first_pattern_that_matches_gives_rank_and_alpha)
{
    struct fl_peft_config c;
    struct fl_error error = {0};
    uint32_t rank;
    double alpha;
    fl_assert_ok(load(CONFIG(",\"r\":4,\"lora_alpha\":6,\"rank_pattern\":{"
                             "\"layers\\\\.\\\\d\\\\.self_attn\\\\.q_proj\":2,\"q_proj\":3,"
                             "\"^model.layers.1.*\":5},\"alpha_pattern\":{\"v_proj\":1.5}"),
                      &c, &error),
                 &error);
    fl_assert_ok(fl_peft_module_rank(&c, Q0, &rank, &error), &error);
    ck_assert_uint_eq(rank, 2);
    fl_assert_ok(fl_peft_module_rank(&c, Q12, &rank, &error), &error);
    ck_assert_uint_eq(rank, 3);
    fl_assert_ok(fl_peft_module_rank(&c, V1, &rank, &error), &error);
    ck_assert_uint_eq(rank, 5);
    fl_assert_ok(fl_peft_module_rank(&c, UP2, &rank, &error), &error);
    ck_assert_uint_eq(rank, 4);
    fl_assert_ok(fl_peft_module_alpha(&c, V1, &alpha, &error), &error);
    ck_assert_double_eq(alpha, 1.5);
    fl_assert_ok(fl_peft_module_alpha(&c, Q0, &alpha, &error), &error);
    ck_assert_double_eq(alpha, 6.0);
    fl_peft_config_free(&c);
}
END_TEST

START_TEST(patterns_with_impossible_values_are_refused)
{
    static const char *const configs[] = {
        CONFIG(",\"rank_pattern\":{\"q_proj\":0},\"alpha_pattern\":{\"q_proj\":0}"),
        CONFIG(",\"rank_pattern\":{\"q_proj\":-1},\"alpha_pattern\":{\"q_proj\":-1}"),
        CONFIG(",\"rank_pattern\":{\"q_proj\":\"8\"},\"alpha_pattern\":{\"q_proj\":\"8\"}"),
        CONFIG(",\"rank_pattern\":{\"q_proj\":100000},\"alpha_pattern\":{\"q_proj\":null}"),
        CONFIG(",\"rank_pattern\":{\"(?=q)\":8},\"alpha_pattern\":{\"(?=q)\":8}"),
    };
    for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); i++) {
        struct fl_peft_config c;
        struct fl_error error = {0};
        uint32_t rank;
        double alpha;
        fl_assert_ok(load(configs[i], &c, &error), &error);
        ck_assert_int_eq(fl_peft_module_rank(&c, Q0, &rank, &error), FL_EFORMAT);
        ck_assert_int_eq(fl_peft_module_alpha(&c, Q0, &alpha, &error), FL_EFORMAT);
        fl_peft_config_free(&c);
    }
}
END_TEST

START_TEST(what_is_written_is_sorted_indented_and_read_back)
{
    struct fl_peft_config c, back;
    struct fl_error error = {0};
    struct fl_buf text;
    fl_peft_config_init(&c);
    fl_buf_init(&text, 1u << 16);
    c.r = 4;
    c.lora_alpha = 16;
    c.lora_dropout = 0.1;
    snprintf(c.base_model, sizeof(c.base_model), "base");
    c.target_modules = json_pack("[s,s]", "q_proj", "v_proj");
    c.rank_pattern = json_pack("{s:i}", "q_proj", 2);
    ck_assert_int_eq(fl_peft_config_print(&c, &text), FL_OK);
    const char *s = fl_buf_text(&text);
    ck_assert_int_eq(strncmp(s, "{\n  \"alora_invocation_tokens\": null,\n", 37), 0);
    ck_assert_ptr_nonnull(strstr(s, "\n  \"inference_mode\": true,\n"));
    ck_assert_ptr_nonnull(strstr(s, "\n  \"fan_in_fan_out\": false,\n"));
    ck_assert_ptr_nonnull(strstr(s, "\n  \"task_type\": \"CAUSAL_LM\",\n"));
    ck_assert_ptr_nonnull(strstr(s, "\n  \"lora_alpha\": 16,\n"));
    ck_assert_ptr_nonnull(strstr(s, "\n  \"lora_dropout\": 0.1,\n"));
    fl_assert_ok(load(s, &back, &error), &error);
    ck_assert_uint_eq(back.r, 4);
    ck_assert_double_eq(back.lora_dropout, 0.1);
    ck_assert(json_equal(back.target_modules, c.target_modules));
    ck_assert(json_equal(back.rank_pattern, c.rank_pattern));
    fl_peft_config_free(&back);
    fl_peft_config_free(&c);
    fl_buf_free(&text);
}
END_TEST

START_TEST(numbers_come_back_to_the_last_bit)
{
    static const double values[] = {10.0 / 3.0, 0.1, 16.0 * 3.0 / 7.0, 1e-9, 12.5, 1e17};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct fl_peft_config c, back;
        struct fl_error error = {0};
        struct fl_buf text;
        double alpha = 0.0;
        fl_peft_config_init(&c);
        fl_buf_init(&text, 1u << 16);
        c.lora_alpha = values[i];
        c.alpha_pattern = json_pack("{s:f}", "q_proj", values[i] / 3.0);
        ck_assert_int_eq(fl_peft_config_print(&c, &text), FL_OK);
        fl_assert_ok(load(fl_buf_text(&text), &back, &error), &error);
        ck_assert(back.lora_alpha == values[i]);
        fl_assert_ok(fl_peft_module_alpha(&back, "q_proj", &alpha, &error), &error);
        ck_assert(alpha == values[i] / 3.0);
        fl_peft_config_free(&back);
        fl_peft_config_free(&c);
        fl_buf_free(&text);
    }
}
END_TEST

START_TEST(a_base_name_that_is_no_text_costs_only_the_name)
{
    static const char *const names[] = {"", "caf\xe9/model", "\xff"};
    for (size_t i = 0; i < 3; i++) {
        struct fl_peft_config c, back;
        struct fl_error error = {0};
        struct fl_buf text;
        fl_peft_config_init(&c);
        fl_buf_init(&text, 1u << 16);
        snprintf(c.base_model, sizeof(c.base_model), "%s", names[i]);
        ck_assert_int_eq(fl_peft_config_print(&c, &text), FL_OK);
        ck_assert_ptr_nonnull(
            strstr(fl_buf_text(&text), "\n  \"base_model_name_or_path\": null,\n"));
        fl_assert_ok(load(fl_buf_text(&text), &back, &error), &error);
        ck_assert_str_eq(back.base_model, "");
        fl_peft_config_free(&back);
        fl_peft_config_free(&c);
        fl_buf_free(&text);
    }
}
END_TEST

START_TEST(a_long_base_name_is_cut_between_characters)
{
    struct fl_peft_config c;
    struct fl_error error = {0};
    struct fl_buf text;
    char config[1024] = "{\"peft_type\":\"LORA\",\"base_model_name_or_path\":\"x";
    for (int i = 0; i < 200; i++)
        snprintf(config + strlen(config), sizeof(config) - strlen(config), "\xc3\xa9");
    snprintf(config + strlen(config), sizeof(config) - strlen(config), "\"}");
    fl_assert_ok(load(config, &c, &error), &error);
    ck_assert_uint_eq(strlen(c.base_model), 255);
    fl_buf_init(&text, 1u << 16);
    ck_assert_int_eq(fl_peft_config_print(&c, &text), FL_OK);
    fl_buf_free(&text);
    snprintf(config, sizeof(config), "{\"peft_type\":\"LORA\",\"base_model_name_or_path\":\"");
    for (int i = 0; i < 200; i++)
        snprintf(config + strlen(config), sizeof(config) - strlen(config), "\xc3\xa9");
    snprintf(config + strlen(config), sizeof(config) - strlen(config), "\"}");
    fl_peft_config_free(&c);
    fl_assert_ok(load(config, &c, &error), &error);
    ck_assert_uint_eq(strlen(c.base_model), 254);
    fl_peft_config_free(&c);
}
END_TEST

START_TEST(keys_are_put_together_and_taken_apart)
{
    char key[FL_MODULE_NAME_BYTES + 64], module[FL_MODULE_NAME_BYTES], factor;
    fl_peft_key(Q0, 'A', key, sizeof(key));
    ck_assert_str_eq(key, "base_model.model." Q0 ".lora_A.weight");
    ck_assert(fl_peft_parse_key(key, module, sizeof(module), &factor));
    ck_assert_str_eq(module, Q0);
    ck_assert_int_eq(factor, 'A');
    ck_assert(fl_peft_parse_key("base_model.model." Q0 ".lora_B.default.weight", module,
                                sizeof(module), &factor));
    ck_assert_str_eq(module, Q0);
    ck_assert_int_eq(factor, 'B');
    fl_peft_key(Q0, 'M', key, sizeof(key));
    ck_assert_str_eq(key, "base_model.model." Q0 ".lora_magnitude_vector");
    ck_assert(fl_peft_parse_key(key, module, sizeof(module), &factor));
    ck_assert_str_eq(module, Q0);
    ck_assert_int_eq(factor, 'M');
    static const char *const wrong[] = {
        "",
        "base_model.model.",
        Q0 ".lora_A.weight",
        "base_model.model.lora_A.weight",
        "base_model.model..lora_A.weight",
        "base_model.model." Q0 ".lora_A",
        "base_model.model." Q0 ".lora_C.weight",
        "base_model.model." Q0 ".lora_A.other.weight",
        "base_model.model." Q0 ".lora_magnitude_vector.weight",
        "base_model.model.lm_head.weight",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_msg(!fl_peft_parse_key(wrong[i], module, sizeof(module), &factor), "%s",
                      wrong[i]);
    char longer[400];
    memset(longer, 'a', sizeof(longer));
    memcpy(longer, "base_model.model.", 17);
    snprintf(longer + 300, 100, ".lora_A.weight");
    ck_assert(!fl_peft_parse_key(longer, module, sizeof(module), &factor));
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, absent_keys_take_the_defaults_of_peft);
    tcase_add_test(tc, every_field_is_read);
    tcase_add_loop_test(tc, what_changes_the_mathematics_is_refused_by_name, 0,
                        (int)(sizeof(refused) / sizeof(refused[0])));
    tcase_add_test(tc, a_missing_configuration_is_not_found);
    tcase_add_test(tc, target_modules_choose_as_in_peft);
    tcase_add_test(tc, only_the_linears_of_gpt2_lie_the_other_way_round);
    tcase_add_test(tc, layers_choose_as_in_peft);
    tcase_add_test(tc, the_first_pattern_that_matches_gives_rank_and_alpha);
    tcase_add_test(tc, patterns_with_impossible_values_are_refused);
    tcase_add_test(tc, what_is_written_is_sorted_indented_and_read_back);
    tcase_add_test(tc, numbers_come_back_to_the_last_bit);
    tcase_add_test(tc, a_base_name_that_is_no_text_costs_only_the_name);
    tcase_add_test(tc, a_long_base_name_is_cut_between_characters);
    tcase_add_test(tc, keys_are_put_together_and_taken_apart);
}

FL_TEST_MAIN("format_peft", add_tests)

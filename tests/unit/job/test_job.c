/*
 * Goal: a job file means what the contract says, and a wrong one is refused where it is wrong.
 * Method: the sample of the contract; the canonical text read back; one fault at a time.
 */
#include "job/job.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "runner.h"

#define HASH    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF"
#define MINIMUM "[job]\nname = glossaries\n[model]\nname = tiny\nsha256 = " HASH "\n"
#define PLAIN   "[privacy]\nsecure_aggregation = off\n"
#define DORA    MINIMUM "[job]\nstrategy = ffa\n[lora]\ndora = on\n"

static struct fl_job_spec spec;

static enum fl_status parse(const char *text, struct fl_error *error)
{
    error->text[0] = '\0';
    return fl_job_parse(text, strlen(text), "job.conf", &spec, error);
}

START_TEST(a_short_job_gets_the_documented_defaults)
{
    struct fl_error error;

    fl_assert_ok(parse(MINIMUM PLAIN, &error), &error);
    ck_assert_str_eq(spec.name, "glossaries");
    ck_assert_uint_eq(spec.rounds, 4);
    ck_assert_int_eq(spec.strategy, FL_STRATEGY_ALTERNATING);
    ck_assert_uint_eq(spec.seed, 0);
    ck_assert_str_eq(spec.model_sha256,
                     "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    ck_assert_str_eq(spec.targets, "default");
    ck_assert_double_eq(spec.alpha, 16.0);
    ck_assert_uint_eq(spec.ranks.fallback, 8);
    ck_assert_uint_eq(spec.weight_cap, 1000000);
    ck_assert_int_eq(spec.wait_timeout, 7 * 86400000ll);
    ck_assert_int_eq(spec.select_timeout, 60000);
    ck_assert_int_eq(spec.round_timeout, 1800000);
    ck_assert_int_eq(spec.liveness_timeout, 30000);
    ck_assert_double_eq(spec.update_range, 0.0);
    ck_assert_uint_eq(spec.min_workers, 3);
    ck_assert_uint_eq(spec.eval_every, 1);
    ck_assert_uint_eq(spec.eval_rows, 64);
    ck_assert(spec.shuffle);
}
END_TEST

START_TEST(every_section_is_read)
{
    struct fl_error error;

    fl_assert_ok(parse(MINIMUM
                       "[lora]\ntargets = all-linear\nalpha = 32\nstart = other@3\n"
                       "[ranks]\ndefault = 8\nround.1 = 4\nworker.small-clinic = 4\n"
                       "layers.0-5 = 4\n[train]\nsteps = 8\nbatch_size = 4\nseq_len = 256\n"
                       "lr = 1e-3\nlr_b = 2e-3\noptimizer = sgd\nschedule = cosine\nwarmup = 3\n"
                       "[cohort]\nmin_workers = 2\nround_timeout = 90s\n"
                       "[privacy]\nsecure_aggregation = off\nupdate_range = 0.5\nclip_norm = 2\n"
                       "[evaluate]\nevery = 2\nrows = 24\n",
                       &error),
                 &error);
    ck_assert_uint_eq(spec.ranks.count, 3);
    ck_assert_uint_eq(fl_rank_of(&spec.ranks, 2, "small-clinic", 9, 64), 4);
    ck_assert_int_eq(spec.optimizer, FL_RULE_SGD);
    ck_assert_int_eq(spec.schedule, 2);
    ck_assert_double_eq(spec.update_range, 0.5);
    ck_assert_double_eq(fl_job_lr(&spec, FL_FACTOR_A), 1e-3);
    ck_assert_double_eq(fl_job_lr(&spec, FL_FACTOR_B), 2e-3);
    ck_assert_int_eq(spec.round_timeout, 90000);
    ck_assert_uint_eq(spec.eval_rows, 24);
    ck_assert_str_eq(spec.start, "other@3");
}
END_TEST

START_TEST(the_canonical_text_gives_the_spec_back_and_hides_the_files_form)
{
    static struct fl_job_spec first;
    struct fl_error error;
    struct fl_buf text, again;
    uint8_t one[FL_HASH_BYTES], two[FL_HASH_BYTES];

    fl_buf_init(&text, FL_JOB_TEXT_MAX);
    fl_buf_init(&again, FL_JOB_TEXT_MAX);
    fl_assert_ok(parse("; a comment\n" MINIMUM
                       "[ranks]\nworker.b = 3\nworker.a = 2\n[train]\nlr = 0.0003\n"
                       "[cohort]\nselect_timeout = 1m\n" PLAIN "update_range = 0.10\n",
                       &error),
                 &error);
    first = spec;
    ck_assert_int_eq(fl_job_print(&first, &text), FL_OK);
    fl_assert_ok(fl_job_parse(fl_buf_text(&text), text.length, "canonical", &spec, &error), &error);
    ck_assert_int_eq(fl_job_print(&spec, &again), FL_OK);
    ck_assert_str_eq(fl_buf_text(&text), fl_buf_text(&again));
    fl_assert_ok(parse(MINIMUM "[ranks]\nworker.a = 2\nworker.b = 3\n[train]\nlr = 3e-4\n"
                               "[cohort]\nselect_timeout = 60s\n" PLAIN "update_range = .1\n",
                       &error),
                 &error);
    ck_assert_int_eq(fl_job_sha256(&first, one), FL_OK);
    ck_assert_int_eq(fl_job_sha256(&spec, two), FL_OK);
    ck_assert_mem_eq(one, two, sizeof one);
    spec.seed = 1;
    ck_assert_int_eq(fl_job_sha256(&spec, two), FL_OK);
    ck_assert_mem_ne(one, two, sizeof one);
    fl_buf_free(&text);
    fl_buf_free(&again);
}
END_TEST

START_TEST(a_wrong_file_is_refused_with_its_line_and_the_nearest_name)
{
    static const struct {
        const char *text, *says;
        enum fl_status status;
    } cases[] = {
        {MINIMUM PLAIN "[train]\nstesp = 3\n", "steps", FL_EFORMAT},
        {MINIMUM PLAIN "[train]\nsteps = 0\n", "job.conf:9", FL_EFORMAT},
        {MINIMUM PLAIN "[trian]\n", "train", FL_EFORMAT},
        {MINIMUM PLAIN "[ranks]\nrond.1 = 3\n", "job.conf:9", FL_EFORMAT},
        {MINIMUM PLAIN "[ranks]\nround.1 = 3000\n", "1..1024", FL_EFORMAT},
        {MINIMUM PLAIN "[job]\nrounds = 2\nrounds = 3\n", "twice", FL_EFORMAT},
        {MINIMUM PLAIN "[job]\nstrategy = sum\n", "strategy", FL_EFORMAT},
        {MINIMUM PLAIN "[train]\nlr = nan\n", "lr", FL_EFORMAT},
        {PLAIN, "name", FL_EFORMAT},
        {"[job]\nname = ../x\n[model]\nname = t\nsha256 = " HASH "\n" PLAIN, "letters", FL_EFORMAT},
        {"[job]\nname = x\n[model]\nname = t\nsha256 = abc\n" PLAIN, "64 hexadecimal", FL_EFORMAT},
        {MINIMUM PLAIN "update_range = 0\n", "update_range", FL_EFORMAT},
        {MINIMUM PLAIN "update_range = wide\n", "update_range", FL_EFORMAT},
        {MINIMUM PLAIN "[train]\noptimizer = sgd\ngrad_clip = 0\n", "grad_clip", FL_EFORMAT},
        {MINIMUM PLAIN "[train]\nsteps = 2\nwarmup = 9\n", "warmup", FL_EFORMAT},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fl_error error;
        enum fl_status status = parse(cases[i].text, &error);
        ck_assert_msg(status == cases[i].status, "case %zu: %s", i, error.text);
        ck_assert_msg(strstr(error.text, cases[i].says) != NULL, "case %zu: %s", i, error.text);
        ck_assert_msg(strstr(error.text, "job.conf") != NULL, "case %zu: %s", i, error.text);
    }
}
END_TEST

START_TEST(what_privacy_or_strategy_forbid_is_refused)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {MINIMUM "[cohort]\nmin_workers = 2\n", "at least 3"},
        {MINIMUM "[lora]\ndora = on\nstart = x\n", "use fedit, ffa or rolora"},
        {DORA "start = x\n[ranks]\nworker.a = 4\n", "one rank"},
        {DORA "start = x\n[ranks]\nround.2 = 4\n", "one rank"},
        {DORA "alpha = 24\ntargets = q_proj\n[ranks]\ndefault = 6\n",
         "fedlora-worker train --model MODEL --dora --steps 0 --rank 6 --alpha 24 --out START "
         "--targets \"q_proj\""},
        {MINIMUM "[ranks]\nworker.a = 4\nworker.b = 8\nworker.c = 16\n", "rank 16"},
        {MINIMUM "[job]\nstrategy = flexlora\n",
         "own matrices, which secure aggregation hides: use alternating"},
        {MINIMUM PLAIN "[job]\nstrategy = flexlora\n", "not in this version"},
        {MINIMUM PLAIN "[job]\nstrategy = fedit\n[ranks]\nround.2 = 4\n", "shrinks in round 2"},
        {MINIMUM PLAIN "[job]\nstrategy = ffa\n[ranks]\nround.2 = 4\n", "alternating"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fl_error error;
        enum fl_status status = parse(cases[i].text, &error);
        ck_assert_msg(status == FL_EREFUSED, "case %zu: %s", i, error.text);
        ck_assert_int_eq(fl_exit_code(status), 4);
        ck_assert_msg(strstr(error.text, cases[i].says) != NULL, "case %zu: %s", i, error.text);
        /* no way out is named that the next submission would be refused for */
        if (strstr(cases[i].text, "flexlora") != NULL)
            ck_assert_ptr_null(strstr(error.text, "secure_aggregation = off"));
    }
}
END_TEST

/* Two linears that a start adapts, of rank 8 (cut to 6) and alpha 16 unless the test says else. */
static struct fl_adapter *start_of(const char *first, const char *second, uint32_t rank,
                                   double alpha)
{
    static struct fl_module modules[2];
    struct fl_inventory targets = {.modules = modules, .count = 2, .layers = 1};
    struct fl_adapter *adapter;
    struct fl_error error;

    for (int i = 0; i < 2; i++) {
        modules[i] = (struct fl_module){.out = 12, .in = 10};
        snprintf(modules[i].name, sizeof modules[i].name, "model.layers.0.self_attn.%s",
                 i ? second : first);
    }
    fl_assert_ok(fl_adapter_create(&targets, rank, alpha, NULL, &adapter, &error), &error);
    ck_assert_int_eq(fl_adapter_add_magnitudes(adapter), FL_OK);
    return adapter;
}

/* The adapter is destroyed. */
static enum fl_status begins_with(struct fl_adapter *start, bool dora, bool rslora,
                                  const char *says)
{
    struct fl_error error = {0};

    start->use_dora = dora;
    start->use_rslora = rslora;
    enum fl_status status = fl_job_check_start(&spec, start, "there", &error);
    ck_assert_msg(strstr(error.text, says) != NULL, "'%s' does not say '%s'", error.text, says);
    fl_adapter_destroy(&start);
    return status;
}

START_TEST(a_job_of_dora_begins_with_magnitudes_of_its_own_shape_only)
{
    struct fl_error error;

    fl_assert_ok(parse(DORA "start = there\ntargets = q_proj,v_proj\n", &error), &error);
    ck_assert_int_eq(fl_job_trains(&spec, 1), FL_FACTOR_B | FL_FACTOR_M);
    ck_assert_int_eq(begins_with(start_of("q_proj", "v_proj", 8, 16), true, false, ""), FL_OK);
    ck_assert_int_eq(begins_with(start_of("q_proj", "v_proj", 8, 16), false, false,
                                 "there has no magnitudes; where the model is"),
                     FL_EREFUSED);
    ck_assert_int_eq(begins_with(start_of("q_proj", "v_proj", 4, 8), true, false, "another rank"),
                     FL_EREFUSED);
    ck_assert_int_eq(begins_with(start_of("q_proj", "v_proj", 8, 8), true, false, "another alpha"),
                     FL_EREFUSED);
    ck_assert_int_eq(begins_with(start_of("q_proj", "v_proj", 8, 16), true, true, "another alpha"),
                     FL_EREFUSED);
    ck_assert_int_eq(begins_with(start_of("q_proj", "k_proj", 8, 16), true, false, "other modules"),
                     FL_EREFUSED);
    ck_assert_int_eq(
        begins_with(start_of("up_proj", "k_proj", 8, 16), true, false, "other modules"),
        FL_EREFUSED);
}
END_TEST

START_TEST(a_job_without_dora_takes_no_magnitudes)
{
    struct fl_error error;

    fl_assert_ok(parse(MINIMUM "[lora]\nstart = there\n", &error), &error);
    ck_assert_int_eq(fl_job_trains(&spec, 1), FL_FACTOR_B);
    ck_assert_int_eq(begins_with(start_of("q_proj", "v_proj", 8, 16), true, false, "dora = on"),
                     FL_EFORMAT);
    ck_assert_int_eq(begins_with(start_of("q_proj", "v_proj", 4, 8), false, false, ""), FL_OK);
}
END_TEST

START_TEST(magnitudes_have_the_range_of_their_own_values_and_the_rate_of_b)
{
    struct fl_adapter *start = start_of("q_proj", "v_proj", 8, 16);
    struct fl_error error;
    double range = 0.0;

    start->modules[1].m[3] = -40.0f;
    fl_assert_ok(parse(DORA "start = there\n[train]\nsteps = 5\nlr = 1\nlr_b = 1e-3\n"
                            "weight_decay = 0.1\n",
                       &error),
                 &error);
    fl_assert_ok(fl_job_range(&spec, FL_FACTOR_M, start, &range, &error), &error);
    ck_assert_double_eq_tol(range, 0.01 + 5e-4 * 40.01, 1e-12);
    fl_adapter_destroy(&start);
}
END_TEST

START_TEST(the_template_names_every_key)
{
    const struct fl_config_table *table = fl_job_table();
    struct fl_buf text;

    fl_buf_init(&text, FL_JOB_TEXT_MAX);
    fl_job_template(&text);
    ck_assert_int_eq(fl_buf_status(&text), FL_OK);
    for (size_t i = 0; i < table->count; i++) {
        if (table->keys[i].kind != FL_CONFIG_PATTERN)
            ck_assert_ptr_nonnull(strstr(fl_buf_text(&text), table->keys[i].key));
        ck_assert_ptr_nonnull(strstr(fl_buf_text(&text), table->keys[i].doc));
    }
    fl_buf_free(&text);
}
END_TEST

START_TEST(the_template_is_a_job_but_for_the_models_hash)
{
    struct fl_error error;
    struct fl_buf text, job;
    const char *hash;

    fl_buf_init(&text, FL_JOB_TEXT_MAX);
    fl_buf_init(&job, FL_JOB_TEXT_MAX);
    fl_job_template(&text);
    hash = strstr(fl_buf_text(&text), "\nsha256 = ");
    ck_assert_ptr_nonnull(hash);
    size_t head = (size_t)(hash - fl_buf_text(&text)) + strlen("\nsha256 = ");
    fl_buf_printf(&job, "%.*s%s%s", (int)head, fl_buf_text(&text), HASH, fl_buf_text(&text) + head);
    fl_assert_ok(parse(fl_buf_text(&job), &error), &error);
    fl_buf_free(&text);
    fl_buf_free(&job);
}
END_TEST

START_TEST(the_grid_of_a_job_counts_its_tokens)
{
    struct fl_error error;
    struct fl_grid grid;

    fl_assert_ok(parse(MINIMUM PLAIN "[train]\nsteps = 8\nbatch_size = 4\nseq_len = 256\n", &error),
                 &error);
    ck_assert_int_eq(fl_job_grid(&spec, 3, &grid), FL_OK);
    ck_assert_uint_eq(grid.w_max, 8192);
    ck_assert_uint_eq(grid.bits, 28);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, a_short_job_gets_the_documented_defaults);
    tcase_add_test(tc, every_section_is_read);
    tcase_add_test(tc, the_canonical_text_gives_the_spec_back_and_hides_the_files_form);
    tcase_add_test(tc, a_wrong_file_is_refused_with_its_line_and_the_nearest_name);
    tcase_add_test(tc, what_privacy_or_strategy_forbid_is_refused);
    tcase_add_test(tc, a_job_of_dora_begins_with_magnitudes_of_its_own_shape_only);
    tcase_add_test(tc, a_job_without_dora_takes_no_magnitudes);
    tcase_add_test(tc, magnitudes_have_the_range_of_their_own_values_and_the_rate_of_b);
    tcase_add_test(tc, the_template_names_every_key);
    tcase_add_test(tc, the_template_is_a_job_but_for_the_models_hash);
    tcase_add_test(tc, the_grid_of_a_job_counts_its_tokens);
}

FL_TEST_MAIN("job.job", add_tests)

/* What a site trains and evaluates on, as its worker.conf says. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "format/modelref.h"
#include "runner.h"
#include "worker/engine/dora.h"
#include "worker/trainer.h"

#define TINY FL_TEST_SOURCE_DIR "/golden/tiny-llama"

static struct fl_error error;
static char directory[FL_PATH_BYTES];
static struct fl_wire_offer *offer;
static struct fl_trainer trainer;

static void write_records(const char *name, int from, int count, const char *more)
{
    char path[FL_PATH_BYTES];
    struct fl_buf text;
    fl_buf_init(&text, 1 << 20);
    for (int i = from; i < from + count; i++)
        fl_buf_printf(&text, "{\"prompt\":\"ward %d, \",\"completion\":\"bed %d\"}\n", i, i);
    fl_buf_printf(&text, "%s", more);
    fl_assert_ok(fl_path_join(path, directory, name, &error), &error);
    fl_assert_ok(fl_fs_write(path, text.data, text.length, 0644, &error), &error);
    fl_buf_free(&text);
}

static void set_up(void)
{
    fl_test_directory(directory);
    offer = fl_calloc(1, sizeof *offer);
    ck_assert_ptr_nonnull(offer);
    snprintf(offer->name, sizeof offer->name, "job");
    snprintf(offer->model, sizeof offer->model, "tiny");
    snprintf(offer->targets, sizeof offer->targets, "q_proj");
    offer->alpha = 8;
    offer->rank_default = offer->rank_max = 2;
    offer->steps = offer->batch_size = 2;
    offer->seq_len = 64;
    offer->evaluate_every = 1;
    fl_assert_ok(fl_modelref_manifest(TINY, offer->manifest, &error), &error);
    ck_assert_int_eq(fl_trainer_native(&trainer), FL_OK);
}

static void tear_down(void)
{
    fl_trainer_destroy(&trainer);
    fl_free(offer);
}

/* What fits when [data] is path and these lines more. */
static enum fl_status fit(const char *path, const char *lines, struct fl_trainer_fit *out)
{
    struct fl_siteconf *conf = fl_calloc(1, sizeof *conf);
    struct fl_buf text;
    ck_assert_ptr_nonnull(conf);
    fl_buf_init(&text, 1 << 16);
    fl_buf_printf(&text, "[models]\ntiny = " TINY "\n[data]\npath = %s/%s\n%s", directory, path,
                  lines);
    fl_assert_ok(fl_siteconf_parse(fl_buf_text(&text), text.length, "worker.conf", conf, &error),
                 &error);
    enum fl_status status = trainer.fit(trainer.context, conf, offer, out, &error);
    fl_inventory_free(&out->inventory);
    fl_siteconf_free(&conf);
    fl_buf_free(&text);
    return status;
}

START_TEST(a_share_of_the_data_is_evaluated_on_and_never_trained_on)
{
    struct fl_trainer_fit all, split, few, named;
    write_records("rows.jsonl", 0, 100, "");
    write_records("held.jsonl", 500, 7, "");
    fl_assert_ok(fit("rows.jsonl", "", &all), &error);
    ck_assert_uint_eq(all.rows, 100);
    ck_assert_uint_eq(all.eval_rows, 0);
    fl_assert_ok(fit("rows.jsonl", "valid_split = 0.2\n", &split), &error);
    ck_assert_uint_gt(split.eval_rows, 5);
    ck_assert_uint_eq(split.rows + split.eval_rows, 100);
    ck_assert_int_ne(memcmp(all.data, split.data, FL_HASH_BYTES), 0);
    offer->evaluate_rows = 3;
    fl_assert_ok(fit("rows.jsonl", "valid_split = 0.2\n", &few), &error);
    ck_assert_uint_eq(few.rows, split.rows);
    ck_assert_uint_eq(few.eval_rows, 3);
    offer->evaluate_rows = 0;
    char lines[FL_PATH_BYTES + 64];
    snprintf(lines, sizeof lines, "valid_split = 0.2\neval = %s/held.jsonl\n", directory);
    fl_assert_ok(fit("rows.jsonl", lines, &named), &error);
    ck_assert_uint_eq(named.rows, 100); /* a file to evaluate on is named: nothing is held out */
    ck_assert_uint_eq(named.eval_rows, 7);
}
END_TEST

START_TEST(a_directory_brings_its_own_rows_to_evaluate_on)
{
    struct fl_trainer_fit out;
    write_records("train.jsonl", 0, 20, "");
    write_records("valid.jsonl", 100, 5, "");
    write_records("test.jsonl", 200, 9, "");
    fl_assert_ok(fit("", "", &out), &error);
    ck_assert_uint_eq(out.rows, 20);
    ck_assert_uint_eq(out.eval_rows, 5);
}
END_TEST

START_TEST(what_is_empty_cut_and_broken_is_counted)
{
    struct fl_trainer_fit out;
    write_records("rows.jsonl", 0, 10, "{\"prompt\":\"x\",\"completion\":\"\"}\nbroken\n");
    ck_assert_int_eq(fit("rows.jsonl", "", &out), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "rows.jsonl:12:"));
    offer->seq_len = 8;
    fl_assert_ok(fit("rows.jsonl", "skip_bad_rows = on\n", &out), &error);
    ck_assert_uint_eq(out.rows, 10);
    ck_assert_uint_eq(out.truncated, 10);
    ck_assert_uint_eq(out.empty, 1);
    ck_assert_uint_eq(out.bad, 1);
}
END_TEST

START_TEST(conversations_take_the_form_that_the_site_names)
{
    struct fl_trainer_fit own, other;
    write_records("rows.jsonl", 0, 1,
                  "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
                  "{\"role\":\"assistant\",\"content\":\"b\"}]}\n");
    fl_assert_ok(fit("rows.jsonl", "", &own), &error);
    ck_assert_uint_eq(own.rows, 2);
    write_records("again.jsonl", 0, 1,
                  "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
                  "{\"role\":\"assistant\",\"content\":\"b\"}]}\n");
    fl_assert_ok(fit("again.jsonl", "chat_template = zephyr\n", &other), &error);
    ck_assert_uint_eq(other.rows, 2);
    ck_assert_int_ne(memcmp(own.data, other.data, FL_HASH_BYTES), 0);
}
END_TEST

START_TEST(a_memory_limit_is_kept_by_computing_more_and_refuses_only_what_cannot_fit)
{
    struct fl_trainer_fit free_one, tight;
    char lines[64];
    write_records("rows.jsonl", 0, 10, "");
    fl_assert_ok(fit("rows.jsonl", "", &free_one), &error);
    ck_assert_uint_gt(free_one.memory_bytes, 0);
    snprintf(lines, sizeof lines, "[train]\nmemory_limit = %llu\n",
             (unsigned long long)free_one.memory_bytes - 1);
    fl_assert_ok(fit("rows.jsonl", lines, &tight), &error);
    ck_assert_uint_lt(tight.memory_bytes, free_one.memory_bytes);
    ck_assert_int_eq(fit("rows.jsonl", "[train]\nmemory_limit = 1M\n", &tight), FL_EREFUSED);
    ck_assert_ptr_nonnull(strstr(error.text, "[train] memory_limit"));
    ck_assert_ptr_nonnull(strstr(error.text, "need at least"));
}
END_TEST

START_TEST(a_check_that_fails_says_whether_model_data_or_memory_is_at_fault)
{
    struct fl_trainer_fit out;
    write_records("rows.jsonl", 0, 8, "");
    fl_assert_ok(fit("rows.jsonl", "", &out), &error);

    ck_assert_int_eq(fit("absent.jsonl", "", &out), FL_ENOTFOUND);
    ck_assert_int_eq(out.fault, FL_FAULT_DATA);
    ck_assert_int_eq(fit("rows.jsonl", "[train]\nmemory_limit = 1M\n", &out), FL_EREFUSED);
    ck_assert_int_eq(out.fault, FL_FAULT_MEMORY);

    snprintf(offer->targets, sizeof offer->targets, "c_attn");
    ck_assert_int_ne(fit("rows.jsonl", "", &out), FL_OK);
    ck_assert_int_eq(out.fault, FL_FAULT_MODEL);
    snprintf(offer->targets, sizeof offer->targets, "q_proj");
    offer->manifest[0] ^= 1;
    ck_assert_int_eq(fit("rows.jsonl", "", &out), FL_EINVAL);
    ck_assert_int_eq(out.fault, FL_FAULT_MODEL);
    snprintf(offer->model, sizeof offer->model, "huge");
    ck_assert_int_eq(fit("rows.jsonl", "", &out), FL_ENOTFOUND);
    ck_assert_int_eq(out.fault, FL_FAULT_MODEL);
}
END_TEST

/* What a round makes of this start. */
static enum fl_status run_from(const struct fl_siteconf *conf, const struct fl_adapter *start,
                               bool job_start)
{
    uint16_t ranks[8] = {2, 2, 2, 2, 2, 2, 2, 2};
    struct fl_trainer_result out = {0};
    ck_assert_uint_le(start->count, 8);
    const struct fl_trainer_task task = {.conf = conf,
                                         .offer = offer,
                                         .round = 1,
                                         .start = start,
                                         .site_ranks = ranks,
                                         .job_start = job_start,
                                         .train = true,
                                         .train_a = true,
                                         .train_b = true,
                                         .total_steps = offer->steps};
    enum fl_status status = trainer.run(trainer.context, &task, &out, &error);
    fl_adapter_destroy(&out.delta);
    return status;
}

START_TEST(a_start_whose_magnitudes_are_of_another_model_is_refused)
{
    struct fl_siteconf *conf = fl_calloc(1, sizeof *conf);
    struct fl_model *model = NULL;
    struct fl_inventory targets = {0};
    struct fl_adapter *start = NULL;
    char text[FL_PATH_BYTES + 128];
    ck_assert_ptr_nonnull(conf);
    write_records("rows.jsonl", 0, 8, "");
    snprintf(text, sizeof text, "[models]\ntiny = " TINY "\n[data]\npath = %s/rows.jsonl\n",
             directory);
    fl_assert_ok(fl_siteconf_parse(text, strlen(text), "worker.conf", conf, &error), &error);
    fl_assert_ok(fl_model_open(TINY, &model, &error), &error);
    fl_assert_ok(fl_inventory_select(fl_model_inventory(model), "q_proj", &targets, &error),
                 &error);
    fl_assert_ok(fl_adapter_create(&targets, 2, 8, NULL, &start, &error), &error);
    fl_adapter_init(start, 1);
    fl_assert_ok(fl_dora_start(model, start, 1, &error), &error);
    offer->dora = true;
    offer->evaluate_every = 0;
    offer->lr = 1e-3;

    fl_assert_ok(run_from(conf, start, true), &error);
    for (uint32_t i = 0; i < start->count; i++)
        for (uint32_t j = 0; j < start->modules[i].module.out; j++)
            start->modules[i].m[j] *= 1.05f; /* a base in fewer bits */
    fl_assert_ok(run_from(conf, start, true), &error);
    for (uint32_t i = 0; i < start->count; i++)
        for (uint32_t j = 0; j < start->modules[i].module.out; j++)
            start->modules[i].m[j] *= j % 2 ? 1.4f : 0.8f;
    ck_assert_int_eq(run_from(conf, start, true), FL_EINVAL);
    ck_assert_ptr_nonnull(strstr(error.text, "made with another model than 'tiny'"));
    ck_assert_ptr_null(strchr(error.text, '/'));        /* it may be told to others */
    fl_assert_ok(run_from(conf, start, false), &error); /* a later round, or a dry run */
    start->modules[0].b[0] = 0.01f; /* trained: its magnitudes may be anywhere */
    fl_assert_ok(run_from(conf, start, true), &error);

    fl_adapter_destroy(&start);
    fl_inventory_free(&targets);
    fl_model_close(&model);
    fl_siteconf_free(&conf);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, a_share_of_the_data_is_evaluated_on_and_never_trained_on);
    tcase_add_test(tc, a_directory_brings_its_own_rows_to_evaluate_on);
    tcase_add_test(tc, what_is_empty_cut_and_broken_is_counted);
    tcase_add_test(tc, a_memory_limit_is_kept_by_computing_more_and_refuses_only_what_cannot_fit);
    tcase_add_test(tc, conversations_take_the_form_that_the_site_names);
    tcase_add_test(tc, a_start_whose_magnitudes_are_of_another_model_is_refused);
    tcase_add_test(tc, a_check_that_fails_says_whether_model_data_or_memory_is_at_fault);
}
FL_TEST_MAIN("worker/trainer_native", add_tests)

/* worker.conf: read, refused with its line, sampled; opening hours; lists of names. */
#include "worker/siteconf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "crypto/authority.h"
#include "runner.h"

static enum fl_status parse(const char *text, struct fl_siteconf **out, struct fl_error *error)
{
    *out = fl_calloc(1, sizeof(**out));
    ck_assert(*out != NULL);
    memset(error, 0, sizeof(*error));
    enum fl_status status = fl_siteconf_parse(text, strlen(text), "worker.conf", *out, error);
    if (status != FL_OK)
        fl_siteconf_free(out);
    return status;
}

START_TEST(an_empty_file_has_the_careful_defaults)
{
    struct fl_siteconf *conf;
    struct fl_error error;
    fl_assert_ok(parse("", &conf, &error), &error);
    ck_assert(conf->require_secure_aggregation && !conf->share_eval);
    ck_assert_uint_eq(conf->max_rank, 64);
    ck_assert_uint_eq(conf->max_steps, 1000);
    ck_assert_uint_eq(conf->max_rounds, 100);
    ck_assert_uint_eq(conf->max_retrainings, 4);
    ck_assert_uint_eq(conf->max_tokens, 0);
    ck_assert_uint_eq(conf->min_cohort, 3);
    ck_assert_uint_eq(conf->keep_versions, 3);
    ck_assert_uint_eq(conf->memory_limit, 0);
    ck_assert_str_eq(conf->jobs, "*");
    ck_assert_str_eq(conf->allowed_models, "*");
    ck_assert_uint_eq(conf->model_count, 0);
    ck_assert(fl_siteconf_model(conf, "tiny") == NULL);
    fl_siteconf_free(&conf);
}
END_TEST

START_TEST(models_and_data_of_single_jobs_are_found_by_name)
{
    struct fl_siteconf *conf;
    struct fl_error error;
    const char *path, *eval;
    fl_assert_ok(parse("[models]\ntiny = /m/tiny\nbig = /m/big.gguf\n"
                       "[data]\npath = /d/all.jsonl\neval = /d/held\n"
                       "[data.glossaries]\npath = /d/g.jsonl\n[data.notes]\neval = /d/n\n"
                       "[train]\nmemory_limit = 4G\n",
                       &conf, &error),
                 &error);
    ck_assert_str_eq(fl_siteconf_model(conf, "big"), "/m/big.gguf");
    ck_assert(fl_siteconf_model(conf, "Big") == NULL);
    fl_siteconf_data(conf, "other", &path, &eval);
    ck_assert_str_eq(path, "/d/all.jsonl");
    ck_assert_str_eq(eval, "/d/held");
    fl_siteconf_data(conf, "glossaries", &path, &eval);
    ck_assert_str_eq(path, "/d/g.jsonl");
    ck_assert_str_eq(eval, "/d/held");
    fl_siteconf_data(conf, "notes", &path, &eval);
    ck_assert_str_eq(path, "/d/all.jsonl");
    ck_assert_str_eq(eval, "/d/n");
    ck_assert_uint_eq(conf->memory_limit, 4ull << 30);
    ck_assert(conf->data_valid_split == 0 && conf->data_loss_all == 0 && !conf->data_skip_bad_rows);
    fl_siteconf_free(&conf);
    fl_assert_ok(parse("[data]\nvalid_split = 0.05\nloss = all\nskip_bad_rows = on\n"
                       "chat_template = llama2\n",
                       &conf, &error),
                 &error);
    ck_assert(conf->data_valid_split == 0.05 && conf->data_loss_all == 1);
    ck_assert(conf->data_skip_bad_rows);
    ck_assert_int_eq(conf->data_chat_template, 2);
    fl_siteconf_free(&conf);
}
END_TEST

START_TEST(a_site_without_a_model_or_data_is_told_so)
{
    static const struct {
        const char *text;
        bool models, data; /* does it have them? */
    } cases[] = {
        {"", false, false},
        {"[models]\n[data]\n", false, false},
        {"[models]\ntiny = /m\n", true, false},
        {"[data]\npath = /d\n", false, true},
        {"[data]\neval = /d\n[data.one]\neval = /e\n", false, false},
        {"[models]\ntiny = /m\n[data.one]\npath = /d\n", true, true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fl_siteconf *conf;
        struct fl_error error;
        fl_assert_ok(parse(cases[i].text, &conf, &error), &error);
        ck_assert_int_eq(fl_siteconf_lacks_models(conf) == NULL, cases[i].models);
        ck_assert_int_eq(fl_siteconf_lacks_data(conf) == NULL, cases[i].data);
        fl_siteconf_free(&conf);
    }
}
END_TEST

START_TEST(what_shows_who_the_partners_are_follows_from_the_keys_given)
{
    char authority[FL_AUTHORITY_TEXT_BYTES];
    uint8_t key[FL_KEY_BYTES];
    static const struct {
        const char *line;
        bool pinned;
        enum fl_site_roster roster;
    } cases[] = {
        {"", false, FL_ROSTER_FIRST_USE},
        {"", true, FL_ROSTER_AUTHORITY},
        {"roster = auto\n", false, FL_ROSTER_FIRST_USE},
        {"roster = authority\n", true, FL_ROSTER_AUTHORITY},
        {"roster = pinned\n", false, FL_ROSTER_PINNED},
        {"roster = pinned\n", true, FL_ROSTER_PINNED},
        {"roster = first-use\n", true, FL_ROSTER_FIRST_USE},
        {"known_sites = a, b,c ,\nmin_known = 3\n", false, FL_ROSTER_FIRST_USE},
    };
    struct fl_siteconf *conf;
    struct fl_error error;
    char text[256];
    memset(key, 0x66, sizeof(key)); /* the curve's base point: some point that is valid */
    key[0] = 0x58;
    fl_authority_encode(key, authority);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(text, sizeof(text), "[policy]\n%s%s%s\n", cases[i].line,
                 cases[i].pinned ? "authority = " : "", cases[i].pinned ? authority : "");
        fl_assert_ok(parse(text, &conf, &error), &error);
        ck_assert_msg(conf->roster == cases[i].roster, "%s", text);
        ck_assert((conf->authority[31] == 0x66) == cases[i].pinned);
        fl_siteconf_free(&conf);
    }
}
END_TEST

START_TEST(what_is_wrong_is_refused_with_its_line)
{
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"[policy]\nmax_rang = 4\n", "worker.conf:2"},
        {"[policy]\nmax_rank = 0\n", "worker.conf:2"},
        {"[policy]\nmax_rank = 4096\n", "worker.conf:2"},
        {"[policy]\nmin_cohort = three\n", "worker.conf:2"},
        {"[policy]\nrequire_secure_aggregation = perhaps\n", "worker.conf:2"},
        {"[policy]\nmax_rank = 4\nmax_rank = 8\n", "worker.conf:3"},
        {"[police]\nmax_rank = 4\n", "worker.conf:1"},
        {"[models]\n../x = /m\n", "no model name"},
        {"[data.a/b]\npath = /d\n", "no job name"},
        {"[data.a]\npaths = /d\n", "paths"},
        {"[policy]\nhours = 22-06\n", "worker.conf:2: [policy] hours"},
        {"[policy]\nhours = 25:00-06:00\n", "hours"},
        {"[policy]\nroster = nobody\n", "worker.conf:2: [policy] roster"},
        {"[policy]\njobs = *\nroster = authority\n", "worker.conf:3: [policy] roster: authority "
                                                     "needs its public key"},
        {"[policy]\nauthority = fla1:short\n", "worker.conf:2: [policy] authority"},
        {"[policy]\nmin_known = 1\n", "worker.conf:2: [policy] min_known: 1 is more than the 0"},
        {"[policy]\nmin_known = 3\nknown_sites = a,b\n", "worker.conf:2: [policy] min_known: 3"},
        {"[policy]\nknown_sites = a,*\n", "worker.conf:2: [policy] known_sites: '*' is no name"},
        {"[policy]\nknown_sites = a,,b\n", "'' is no name"},
        {"[policy]\nknown_sites = a b\n", "'a b' is no name"},
        {"[policy]\nknown_sites = a, b, a\n", "'a' is listed twice"},
        {"[train]\nmemory_limit = lots\n", "worker.conf:2: [train] memory_limit"},
        {"[train]\nmemory_limit = G\n", "memory_limit"},
        {"[train]\nmemory_limit = 99999999999G\n", "memory_limit"},
        {"[train]\nmemory_limit = -4G\n", "memory_limit"},
        {"[train]\ncompute = f16\n", "worker.conf:2"},
    };
    struct fl_siteconf *conf;
    struct fl_error error;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(parse(bad[i].text, &conf, &error) == FL_EFORMAT, "%s", bad[i].text);
        ck_assert_msg(strstr(error.text, bad[i].words) != NULL, "'%s' lacks '%s'", error.text,
                      bad[i].words);
    }
}
END_TEST

START_TEST(too_many_models_and_sections_are_refused)
{
    struct fl_buf text;
    struct fl_siteconf *conf;
    struct fl_error error;
    fl_buf_init(&text, 1u << 16);
    fl_buf_printf(&text, "[models]\n");
    for (int i = 0; i <= FL_SITE_MODELS_MAX; i++)
        fl_buf_printf(&text, "m%d = /m\n", i);
    ck_assert_int_eq(parse(fl_buf_text(&text), &conf, &error), FL_EFORMAT);
    ck_assert(strstr(error.text, "more than") != NULL);
    text.length = 0;
    for (int i = 0; i <= FL_SITE_DATA_MAX; i++)
        fl_buf_printf(&text, "[data.j%d]\npath = /m\n", i);
    ck_assert_int_eq(parse(fl_buf_text(&text), &conf, &error), FL_EFORMAT);
    fl_buf_free(&text);
}
END_TEST

START_TEST(the_sample_reads_back_with_the_coordinator_filled_in)
{
    struct fl_buf text;
    struct fl_siteconf *conf;
    struct fl_error error;
    fl_buf_init(&text, 1u << 16);
    fl_siteconf_sample("tcp://10.0.0.1:7700", "00ff", &text);
    fl_assert_ok(parse(fl_buf_text(&text), &conf, &error), &error);
    ck_assert_str_eq(conf->address, "tcp://10.0.0.1:7700");
    ck_assert_str_eq(conf->coordinator_key, "00ff");
    ck_assert(conf->require_secure_aggregation);
    fl_siteconf_free(&conf);
    fl_buf_free(&text);
}
END_TEST

START_TEST(a_missing_file_says_what_to_do)
{
    char directory[FL_PATH_BYTES];
    struct fl_siteconf *conf;
    struct fl_error error;
    fl_test_directory(directory);
    ck_assert_int_eq(fl_siteconf_load(directory, &conf, &error), FL_ENOTFOUND);
    ck_assert(conf == NULL && strstr(error.text, "join") != NULL);
}
END_TEST

/* -1: not of the form; else allowed and *wait. */
static int hours(const char *text, unsigned minute, unsigned *wait)
{
    bool allowed;
    return fl_hours_allow(text, minute, &allowed, wait) == FL_OK ? allowed : -1;
}

START_TEST(hours_open_and_close_to_the_minute_and_across_midnight)
{
    unsigned wait;
    ck_assert(hours("", 0, &wait) == 1 && wait == 0);
    ck_assert(hours("22:00-06:00", 22 * 60, &wait) == 1 && wait == 0);
    ck_assert(hours("22:00-06:00", 22 * 60 - 1, &wait) == 0 && wait == 1);
    ck_assert(hours("22:00-06:00", 0, &wait) == 1);
    ck_assert(hours("22:00-06:00", 5 * 60 + 59, &wait) == 1);
    ck_assert(hours("22:00-06:00", 6 * 60, &wait) == 0 && wait == 16 * 60);
    ck_assert(hours("08:30-09:00, 20:00-24:00", 8 * 60 + 30, &wait) == 1);
    ck_assert(hours("08:30-09:00, 20:00-24:00", 9 * 60, &wait) == 0 && wait == 11 * 60);
    ck_assert(hours("08:30-09:00, 20:00-24:00", 1439, &wait) == 1);
    ck_assert(hours("08:30-09:00,20:00-24:00", 0, &wait) == 0 && wait == 8 * 60 + 30);
    for (unsigned minute = 0; minute < 1440; minute++)
        ck_assert(hours("00:00-24:00", minute, &wait) == 1);
}
END_TEST

START_TEST(hours_of_another_form_are_refused)
{
    static const char *const bad[] = {
        "22:00",        "22:00-", "22-06",        "24:00-06:00",   "22:60-06:00", "22:00-24:01",
        "22:00-06:00,", "a",      "22:00-06:00x", "22:00-06:00 7", ",",           "10:00-10:00"};
    unsigned wait;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(hours(bad[i], 0, &wait) == -1, "%s", bad[i]);
}
END_TEST

START_TEST(lists_of_names_match_with_wildcards)
{
    ck_assert(fl_list_matches("*", "anything"));
    ck_assert(fl_list_matches("a, b ,c", "b"));
    ck_assert(fl_list_matches("gloss*", "glossaries"));
    ck_assert(fl_list_matches("job-?", "job-1"));
    ck_assert(!fl_list_matches("job-?", "job-12"));
    ck_assert(!fl_list_matches("", "a"));
    ck_assert(!fl_list_matches(" , ", "a"));
    ck_assert(!fl_list_matches("a,b", "ab"));
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, an_empty_file_has_the_careful_defaults);
    tcase_add_test(tc, models_and_data_of_single_jobs_are_found_by_name);
    tcase_add_test(tc, a_site_without_a_model_or_data_is_told_so);
    tcase_add_test(tc, what_shows_who_the_partners_are_follows_from_the_keys_given);
    tcase_add_test(tc, what_is_wrong_is_refused_with_its_line);
    tcase_add_test(tc, too_many_models_and_sections_are_refused);
    tcase_add_test(tc, the_sample_reads_back_with_the_coordinator_filled_in);
    tcase_add_test(tc, a_missing_file_says_what_to_do);
    tcase_add_test(tc, hours_open_and_close_to_the_minute_and_across_midnight);
    tcase_add_test(tc, hours_of_another_form_are_refused);
    tcase_add_test(tc, lists_of_names_match_with_wildcards);
}

FL_TEST_MAIN("worker_siteconf", add_tests)

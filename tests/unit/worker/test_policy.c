/* The site's law, rule by rule: each is broken alone and refuses with its code, words and value. */
#include "worker/policy.h"

#include <stdio.h>
#include <string.h>

#include "runner.h"
#include "stub_site.h"

static struct fl_policy_answer judge(const char *policy, const struct fl_wire_offer *offer,
                                     unsigned minute, bool fresh)
{
    struct stub_site site;
    struct fl_policy_answer answer;
    stub_site_open(&site, policy);
    fl_policy_check(site.conf, offer, minute, fresh, &answer);
    stub_site_close(&site);
    return answer;
}

static void refuses(const char *policy, const struct fl_wire_offer *offer, enum fl_refusal code,
                    const char *words)
{
    struct fl_policy_answer answer = judge(policy, offer, 0, true);
    ck_assert_int_eq(answer.verdict, FL_VERDICT_PERMANENT);
    ck_assert_msg(answer.code == code, "%s: %s", policy, fl_refusal_name(answer.code));
    ck_assert_msg(strstr(answer.reason, words) != NULL, "'%s' lacks '%s'", answer.reason, words);
    ck_assert_uint_eq(answer.retry_after_ms, 0);
}

static void fits(const char *policy, const struct fl_wire_offer *offer)
{
    struct fl_policy_answer answer = judge(policy, offer, 0, true);
    ck_assert_msg(answer.verdict == FL_VERDICT_FIT, "%s", answer.reason);
    ck_assert_int_eq(answer.code, FL_REFUSAL_NONE);
}

START_TEST(a_plain_job_fits)
{
    struct fl_wire_offer offer = stub_offer();
    fits("", &offer);
    fits("max_rank = 4\nmax_steps = 2\nmax_rounds = 2\nmax_tokens = 128\nmin_cohort = 3\n", &offer);
}
END_TEST

START_TEST(names_of_jobs_and_models_decide)
{
    struct fl_wire_offer offer = stub_offer();
    refuses("jobs = other,*-test\n", &offer, FL_REFUSAL_POLICY, "does not allow job 'glossaries'");
    refuses("models = smol*\n", &offer, FL_REFUSAL_POLICY, "does not allow model 'tiny'");
    fits("jobs = gloss*\nmodels = t?ny\n", &offer);
    snprintf(offer.model, sizeof(offer.model), "absent");
    refuses("", &offer, FL_REFUSAL_MODEL, "no model named 'absent'");
}
END_TEST

START_TEST(sizes_have_limits)
{
    struct fl_wire_offer offer = stub_offer();
    refuses("max_rank = 3\n", &offer, FL_REFUSAL_RANK, "max_rank = 3, the job asks for rank 4");
    refuses("max_steps = 1\n", &offer, FL_REFUSAL_POLICY, "max_steps = 1");
    refuses("max_rounds = 1\n", &offer, FL_REFUSAL_POLICY, "max_rounds = 1, the job has 2");
    refuses("max_tokens = 127\n", &offer, FL_REFUSAL_POLICY, "asks for 128");
    offer.rank_default = 65; /* a liar's largest rank is below its usual one */
    refuses("", &offer, FL_REFUSAL_RANK, "rank 65");
    offer = stub_offer();
    offer.steps = offer.batch_size = UINT32_MAX;
    offer.seq_len = FL_SEQ_MAX;
    refuses("max_steps = 1000000000\nmax_tokens = 1000000000000000\n", &offer, FL_REFUSAL_POLICY,
            "max_steps");
    offer.steps = 1000000000;
    refuses("max_steps = 1000000000\nmax_tokens = 1000000000000000\n", &offer, FL_REFUSAL_POLICY,
            "max_tokens");
}
END_TEST

START_TEST(privacy_has_rules)
{
    struct fl_wire_offer offer = stub_offer();
    refuses("min_cohort = 4\n", &offer, FL_REFUSAL_PRIVACY, "min_cohort = 4, the job allows 3");
    refuses("known_sites = clinic\nmin_known = 1\n", &offer, FL_REFUSAL_PRIVACY,
            "min_known = 1, but only with secure aggregation");
    offer.secure_aggregation = true; /* then the cohort is held against it (trust.h) */
    fits("known_sites = clinic\nmin_known = 1\n", &offer);
    offer.secure_aggregation = false;
    struct stub_site site;
    struct fl_policy_answer answer;
    stub_site_open(&site, NULL);
    site.conf->require_secure_aggregation = true;
    fl_policy_check(site.conf, &offer, 0, true, &answer);
    ck_assert_int_eq(answer.code, FL_REFUSAL_PRIVACY);
    ck_assert_int_eq(answer.verdict, FL_VERDICT_PERMANENT);
    offer.secure_aggregation = true;
    fl_policy_check(site.conf, &offer, 0, true, &answer);
    ck_assert_int_eq(answer.verdict, FL_VERDICT_FIT);
    stub_site_close(&site);
}
END_TEST

START_TEST(a_round_is_trained_anew_a_few_times_and_only_as_other_work)
{
    struct fl_wire_offer offer = stub_offer();
    offer.secure_aggregation = offer.shuffle = true;
    offer.retraining = FL_RETRAININGS_MAX;
    fits("", &offer);
    struct fl_policy_answer answer = judge("max_retrainings = 2\n", &offer, 0, true);
    ck_assert_int_eq(answer.verdict, FL_VERDICT_TEMPORARY); /* the next round is welcome */
    ck_assert_int_eq(answer.code, FL_REFUSAL_PRIVACY);
    ck_assert_ptr_nonnull(strstr(answer.reason, "max_retrainings = 2"));
    ck_assert_uint_gt(answer.retry_after_ms, 0);
    offer.retraining = 1;
    answer = judge("max_retrainings = 0\n", &offer, 0, true);
    ck_assert_int_eq(answer.verdict, FL_VERDICT_TEMPORARY);
    fits("max_retrainings = 1\n", &offer);
    offer.shuffle = false;
    refuses("", &offer, FL_REFUSAL_PRIVACY, "neither the order of rows nor dropout");
    offer.dropout = 0.1;
    fits("", &offer);
    offer.secure_aggregation = false;
    refuses("", &offer, FL_REFUSAL_PRIVACY, "trained anew");
    offer.retraining = 0;
    fits("max_retrainings = 0\n", &offer);
}
END_TEST

START_TEST(closed_hours_put_off_a_fresh_round_only)
{
    struct fl_wire_offer offer = stub_offer();
    struct fl_policy_answer answer = judge("hours = 22:00-06:00\n", &offer, 21 * 60, true);
    ck_assert_int_eq(answer.verdict, FL_VERDICT_TEMPORARY);
    ck_assert_int_eq(answer.code, FL_REFUSAL_HOURS);
    ck_assert_uint_eq(answer.retry_after_ms, 3600000);
    answer = judge("hours = 22:00-06:00\n", &offer, 21 * 60, false);
    ck_assert_int_eq(answer.verdict, FL_VERDICT_FIT);
    answer = judge("hours = 22:00-06:00\n", &offer, 23 * 60, true);
    ck_assert_int_eq(answer.verdict, FL_VERDICT_FIT);
    /* what can never run is refused for good, whatever the hour */
    answer = judge("hours = 22:00-06:00\nmax_rank = 1\n", &offer, 21 * 60, true);
    ck_assert_int_eq(answer.verdict, FL_VERDICT_PERMANENT);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, a_plain_job_fits);
    tcase_add_test(tc, names_of_jobs_and_models_decide);
    tcase_add_test(tc, sizes_have_limits);
    tcase_add_test(tc, privacy_has_rules);
    tcase_add_test(tc, a_round_is_trained_anew_a_few_times_and_only_as_other_work);
    tcase_add_test(tc, closed_hours_put_off_a_fresh_round_only);
}

FL_TEST_MAIN("worker_policy", add_tests)

/* Tests of what a site shows of itself by HTTP. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner.h"
#include "worker/http_site_view.h"

static struct fl_site_view *view;
static struct fl_buf out;

static void setup(void)
{
    view = calloc(1, sizeof *view);
    ck_assert_ptr_nonnull(view);
    view->eval_loss = (double)NAN;
    view->wall_ms = 1700000000000;
    fl_buf_init(&out, 1u << 20);
}

static void teardown(void)
{
    free(view);
    fl_buf_free(&out);
}

static bool has(const char *text)
{
    return strstr(fl_buf_text(&out), text) != NULL;
}

START_TEST(a_site_without_a_job_says_so)
{
    fl_site_view_page(view, &out);
    ck_assert(has("No job yet") && has("not connected") && has("</html>"));
    fl_buf_free(&out);
    fl_site_view_metrics(view, &out);
    ck_assert(has("fedlora_site_connected 0\n") && has("fedlora_site_refusals_total 0\n"));
    ck_assert(!has("fedlora_site_held_out_loss NaN")); /* not known: no sample */
}
END_TEST

START_TEST(what_it_trains_and_what_left_is_shown)
{
    view->online = true;
    view->key = (struct fl_attempt){.job = 7, .round = 2, .attempt = 1};
    view->rounds = 4;
    view->stage = FL_STAGE_TRAINING;
    view->progress = (struct fl_trainer_progress){.activity = FL_ACTIVITY_TRAINING,
                                                  .step = 5,
                                                  .steps = 9,
                                                  .loss = 2.5,
                                                  .tokens_per_second = 321};
    view->eval_loss = 3.125;
    view->evaluated.count = 2;
    view->evaluated.items[0] = (struct fl_site_loss){7, 1, 3.5};
    view->evaluated.items[1] = (struct fl_site_loss){7, 2, 3.125};
    view->sent_count = view->sent_total = 1;
    view->sent[0].key = view->key;
    view->sent[0].bytes = 2048;
    (void)snprintf(view->sent[0].sha256, sizeof view->sent[0].sha256, "%064d", 0);
    fl_site_view_page(view, &out);
    ck_assert(has("Job 7") && has("2 of 4") && has("5 of 9") && has("2.0 kB"));
    ck_assert(has("aria-label=\"Held-out loss here, by version\""));
    fl_buf_free(&out);
    fl_site_view_metrics(view, &out);
    ck_assert(has("fedlora_site_held_out_loss 3.125\n") && has("fedlora_site_step 5\n"));
    ck_assert(has("fedlora_site_stage{stage=\"training\"} 1\n"));
}
END_TEST

START_TEST(what_the_coordinator_says_cannot_become_markup)
{
    static const char evil[] = "</script><img src=x onerror=alert(1)>";
    view->key.job = 1;
    view->refusal_count = view->refusal_total = 1;
    view->refusals[0].code = FL_REFUSAL_POLICY;
    (void)snprintf(view->refusals[0].reason, sizeof view->refusals[0].reason, "%s", evil);
    (void)snprintf(view->job_name, sizeof view->job_name, "%s", evil);
    (void)snprintf(view->name, sizeof view->name, "%s", evil);
    (void)snprintf(view->coordinator, sizeof view->coordinator, "%s", evil);
    (void)snprintf(view->trust, sizeof view->trust, "%s", evil);
    (void)snprintf(view->newest_adapter, sizeof view->newest_adapter, "%s", evil);
    fl_site_view_page(view, &out);
    ck_assert(!has("<img"));
    ck_assert(has("&#60;/script&#62;&#60;img src=x onerror=alert(1)&#62;"));
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_site_without_a_job_says_so);
    tcase_add_test(tc, what_it_trains_and_what_left_is_shown);
    tcase_add_test(tc, what_the_coordinator_says_cannot_become_markup);
}

FL_TEST_MAIN("worker.http_site", add_tests)

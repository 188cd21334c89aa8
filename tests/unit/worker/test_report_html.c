/* The page of a run: well-formed, nothing from elsewhere, hostile text harmless, small. */
#include "runner.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "worker/report_html.h"

#define DEPTH_MAX 16

/* Elements open and close in order; no angle bracket or ampersand stands alone. */
static void check_well_formed(const char *text)
{
    char open[DEPTH_MAX][16];
    size_t depth = 0;
    for (const char *p = strchr(text, '\n'); *p; p++) { /* behind the DOCTYPE */
        ck_assert(*p != '>');
        if (*p == '&') {
            ck_assert_msg(p[1] == '#', "at %.20s", p);
        }
        if (*p != '<') {
            continue;
        }
        const char *end = strchr(p, '>');
        ck_assert_ptr_nonnull(end);
        size_t name = strcspn(p + (p[1] == '/' ? 2 : 1), " />");
        ck_assert_uint_lt(name, sizeof open[0]);
        if (p[1] == '/') {
            ck_assert_uint_gt(depth, 0);
            depth--;
            ck_assert_msg(strlen(open[depth]) == name && strncmp(open[depth], p + 2, name) == 0,
                          "%.20s closes %s", p, open[depth]);
        } else if (end[-1] != '/') {
            ck_assert_uint_lt(depth, DEPTH_MAX);
            (void)snprintf(open[depth++], sizeof open[0], "%.*s", (int)name, p + 1);
            if (strncmp(p, "<style>", 7) == 0) {
                end = strstr(p, "</style>") - 1;
            }
        }
        p = end;
    }
    ck_assert_uint_eq(depth, 0);
}

/* No script, no address, nothing that a browser would fetch. */
static void check_contained(const char *text)
{
    static const char *const words[] = {"<script", "http:", "https:", "src=", "href=", "url(",
                                        "@import", "<link", "onload", "nan",  "inf"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        ck_assert_msg(!strstr(text, words[i]), "the page holds %s", words[i]);
    }
}

static json_t *some_facts(void)
{
    json_t *facts = json_pack("{s:s, s:s}", "base model", "tiny", "rate", "0.001");
    ck_assert_ptr_nonnull(facts);
    return facts;
}

static void fill(struct fl_course *metrics, uint64_t steps)
{
    for (uint64_t i = 1; i <= steps; i++) {
        const struct fl_finetune_step step = {.step = i,
                                              .tokens = 100,
                                              .loss = 3.0 / (double)i,
                                              .lr = 1e-3,
                                              .grad_norm = 0.5,
                                              .seconds = 0.25};
        ck_assert_int_eq(fl_course_add(metrics, &step), FL_OK);
        if (i % 10 == 0) {
            fl_course_validated(metrics, i, 2.0);
        }
    }
}

/* The page; the caller frees it. Checked for what holds of every page. */
static struct fl_buf make_page(const char *title, const json_t *facts,
                               const struct fl_course *metrics)
{
    struct fl_report report = {
        .title = title, .state = "Finished.", .facts = facts, .best_step = 20, .metrics = metrics};
    struct fl_buf page;
    fl_buf_init(&page, 1u << 20);
    ck_assert_int_eq(fl_report_html(&report, &page), FL_OK);
    check_well_formed(fl_buf_text(&page));
    check_contained(fl_buf_text(&page));
    return page;
}

START_TEST(a_page_shows_every_curve)
{
    struct fl_course metrics = {0};
    json_t *facts = some_facts();
    fill(&metrics, 40);
    struct fl_buf page = make_page("adapter", facts, &metrics);
    static const char *const words[] = {"<h2>Loss</h2>",
                                        "<h2>Learning rate</h2>",
                                        "<h2>Tokens a second</h2>",
                                        "class=\"best\"",
                                        "prefers-color-scheme:dark",
                                        "width=device-width",
                                        "<th>base model</th><td>tiny</td>"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        ck_assert_msg(strstr(fl_buf_text(&page), words[i]), "no %s", words[i]);
    }
    fl_buf_free(&page);
    json_decref(facts);
    fl_course_free(&metrics);
}
END_TEST

START_TEST(few_and_strange_points_make_a_page_too)
{
    json_t *facts = some_facts();
    for (uint64_t steps = 0; steps < 4; steps++) {
        struct fl_course metrics = {0};
        fill(&metrics, steps);
        struct fl_buf page = make_page("adapter", facts, &metrics);
        fl_buf_free(&page);
        for (size_t i = 0; i < metrics.count; i++) {
            struct fl_metric *m = &metrics.points[i];
            m->loss = i ? 1e300 : (double)NAN;
            m->lr = 0;
            m->grad_norm = (double)INFINITY;
            m->seconds = 0;
            m->valid_loss = i ? -1e-300 : (double)INFINITY;
        }
        page = make_page("adapter", facts, &metrics);
        fl_buf_free(&page);
        fl_course_free(&metrics);
    }
    json_decref(facts);
}
END_TEST

START_TEST(hostile_text_is_text)
{
    struct fl_course metrics = {0};
    json_t *facts = json_pack("{s:s}", "<b>&\"'", "</td><img src=x onerror=alert(1)>");
    ck_assert_ptr_nonnull(facts);
    fill(&metrics, 3);
    struct fl_report report = {.title = "</title>\xff\x01\xe2\x80\xae\xc2\x85 caf\xc3\xa9",
                               .state = "]]>",
                               .facts = facts,
                               .metrics = &metrics};
    struct fl_buf page;
    fl_buf_init(&page, 1u << 20);
    ck_assert_int_eq(fl_report_html(&report, &page), FL_OK);
    const char *text = fl_buf_text(&page);
    check_well_formed(text);
    ck_assert_ptr_null(strstr(text, "<img"));
    ck_assert_ptr_nonnull(strstr(text, "&#60;/td&#62;&#60;img src=x"));
    ck_assert_ptr_nonnull(strstr(text, "<th>&#60;b&#62;&#38;&#34;&#39;</th>"));
    ck_assert_ptr_nonnull(strstr(text, "&#60;/title&#62;\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
                                       "\xef\xbf\xbd caf\xc3\xa9"));
    fl_buf_free(&page);
    json_decref(facts);
    fl_course_free(&metrics);
}
END_TEST

START_TEST(a_long_run_has_a_small_page)
{
    struct fl_course metrics = {0};
    json_t *facts = some_facts();
    fill(&metrics, 50000);
    struct fl_buf page = make_page("adapter", facts, &metrics);
    ck_assert_uint_lt(page.length, 60000);
    fl_buf_free(&page);
    json_decref(facts);
    fl_course_free(&metrics);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, a_page_shows_every_curve);
    tcase_add_test(tc, few_and_strange_points_make_a_page_too);
    tcase_add_test(tc, hostile_text_is_text);
    tcase_add_test(tc, a_long_run_has_a_small_page);
}

FL_TEST_MAIN("worker/report_html", add_tests)

/*
 * report_html.c - see report_html.h.
 */
#include "worker/report_html.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "web/chart.h"
#include "web/html.h"

#define POINTS_MAX 300
#define VALUE_MAX  1e30 /* beyond it nothing is drawn: no axis could show it */

static const char style[] =
    ":root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--fg:#1d1f21;--mute:#62666b;"
    "--line:#dedfe0;--a:#1d5fd1;--b:#c2410c}"
    "@media(prefers-color-scheme:dark){:root{--bg:#131517;--card:#1b1e21;--fg:#e7e8e9;"
    "--mute:#9aa0a6;--line:#33373b;--a:#7fabff;--b:#ffa366}}"
    "*{box-sizing:border-box}body{margin:0;padding:1.2rem;background:var(--bg);color:var(--fg);"
    "font:16px/1.45 system-ui,sans-serif}main{max-width:62rem;margin:0 auto}"
    "h1{font-size:1.35rem;margin:0;overflow-wrap:anywhere}p{margin:.2rem 0 1rem;color:var(--mute)}"
    ".grid{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr))"
    "}"
    "section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.8rem}"
    "h2{font-size:1rem;margin:0 0 .4rem}svg{display:block;width:100%;height:auto}"
    "svg text{fill:var(--mute);font:11px system-ui,sans-serif}.end{text-anchor:end}"
    ".mid{text-anchor:middle}.rule{stroke:var(--line)}.a,.b,.raw{fill:none;stroke-width:1.8;"
    "stroke-linejoin:round}.a,.raw{stroke:var(--a)}.raw{opacity:.35;stroke-width:1}"
    ".b{stroke:var(--b)}.dot{fill:var(--b)}.dota{fill:var(--a)}.best{fill:none;stroke:var(--b);"
    "stroke-width:1.5}.key{font-size:.85rem;color:var(--mute);margin:.3rem 0 0}"
    ".key i{display:inline-block;width:.9em;height:.25em;vertical-align:middle;margin:0 .35em 0 0;"
    "background:var(--a)}.key .kb{background:var(--b)}"
    "table{border-collapse:collapse;width:100%;font-size:.92rem}td,th{padding:.25rem .4rem .25rem "
    "0;"
    "text-align:left;vertical-align:top;border-top:1px solid var(--line);overflow-wrap:anywhere}"
    "th{font-weight:400;color:var(--mute);width:40%}tr:first-child>*{border-top:0}"
    ".facts{margin-top:1rem}";

/* ---- curves ---- */

/* What a chart shows of a step; NaN: nothing. */
typedef double value_of(const struct fl_metric *metric);

static double loss_of(const struct fl_metric *m)
{
    return m->loss;
}

static double valid_of(const struct fl_metric *m)
{
    return m->valid_loss;
}

static double rate_of(const struct fl_metric *m)
{
    return m->lr;
}

static double norm_of(const struct fl_metric *m)
{
    return m->grad_norm;
}

static double speed_of(const struct fl_metric *m)
{
    return m->seconds > 0 ? (double)m->tokens / m->seconds : (double)NAN;
}

struct curve {
    struct fl_point points[POINTS_MAX];
    size_t count;
};

/* The means of value over equal shares of the steps; shares without any value are left out. */
static void take_curve(const struct fl_course *metrics, value_of *value, struct curve *out)
{
    size_t shares = metrics->count < POINTS_MAX ? metrics->count : POINTS_MAX;
    out->count = 0;
    for (size_t i = 0; i < shares; i++) {
        size_t first = metrics->count * i / shares, end = metrics->count * (i + 1) / shares;
        struct fl_point sum = {0, 0};
        size_t n = 0;
        for (size_t k = first; k < end; k++) {
            double y = value(&metrics->points[k]);
            if (fabs(y) < VALUE_MAX) {
                sum.x += (double)metrics->points[k].step;
                sum.y += y;
                n++;
            }
        }
        if (n > 0) {
            out->points[out->count++] = (struct fl_point){sum.x / (double)n, sum.y / (double)n};
        }
    }
}

/* A centred moving mean, narrower towards both ends, so that it neither lags nor leans. */
static void smooth(const struct curve *from, struct curve *to)
{
    const size_t widest = from->count / 30 + 1;
    to->count = from->count;
    for (size_t i = 0; i < from->count; i++) {
        size_t side = i < from->count - 1 - i ? i : from->count - 1 - i;
        side = side < widest ? side : widest;
        double sum = 0;
        for (size_t k = i - side; k <= i + side; k++) {
            sum += from->points[k].y;
        }
        to->points[i] = (struct fl_point){from->points[i].x, sum / (double)(2 * side + 1)};
    }
}

/* ---- axes ---- */

static void widen(double *low, double *high, const struct curve *curve, bool of_x)
{
    for (size_t i = 0; i < curve->count; i++) {
        double v = of_x ? curve->points[i].x : curve->points[i].y;
        *low = fmin(*low, v);
        *high = fmax(*high, v);
    }
}

/* ---- charts ---- */

/* main: the curve that is looked at; under it `raw`, beside it `valid`; both may be empty. */
struct chart {
    const char *title;
    struct curve main, raw, valid;
    bool from_zero;
};

static void print_valid(struct fl_buf *out, const struct fl_report *report,
                        const struct chart *chart, const struct fl_axis *x, const struct fl_axis *y)
{
    const struct fl_course *metrics = report->metrics;
    fl_chart_curve(out, "b", chart->valid.points, chart->valid.count, x, y);
    fl_chart_dots(out, "dot", chart->valid.points, chart->valid.count, x, y);
    for (size_t i = 0; i < metrics->count; i++) {
        const struct fl_metric *m = &metrics->points[i];
        if (m->step == report->best_step && fabs(m->valid_loss) < VALUE_MAX) {
            double low = fmin(fmax(m->valid_loss, y->low), y->high);
            fl_chart_dot(out, "best", fl_axis_place(x, (double)m->step), fl_axis_place(y, low), 6);
        }
    }
}

static void print_chart(struct fl_buf *out, const struct fl_report *report,
                        const struct chart *chart)
{
    if (chart->main.count == 0) {
        return;
    }
    double low_x = chart->main.points[0].x, high_x = low_x;
    double low_y = chart->from_zero ? 0 : chart->main.points[0].y, high_y = chart->main.points[0].y;
    const struct curve *all[] = {&chart->main, &chart->raw, &chart->valid};
    for (size_t i = 0; i < 3; i++) {
        widen(&low_x, &high_x, all[i], true);
        widen(&low_y, &high_y, all[i], false);
    }
    struct fl_axis x = fl_axis_make(low_x, high_x, FL_CHART_LEFT, FL_CHART_WIDTH - FL_CHART_RIGHT,
                                    6);
    struct fl_axis y = fl_axis_make(low_y, high_y, FL_CHART_HEIGHT - FL_CHART_BOTTOM, FL_CHART_TOP,
                                    5);
    fl_buf_printf(out,
                  "<section><h2>%s</h2><svg viewBox=\"0 0 %d %d\" role=\"img\" "
                  "aria-label=\"%s over the steps\">",
                  chart->title, FL_CHART_WIDTH, FL_CHART_HEIGHT, chart->title);
    fl_chart_axes(out, &x, &y);
    if (chart->raw.count > 0) {
        fl_chart_curve(out, "raw", chart->raw.points, chart->raw.count, &x, &y);
    }
    fl_chart_curve(out, "a", chart->main.points, chart->main.count, &x, &y);
    if (chart->valid.count > 0) {
        print_valid(out, report, chart, &x, &y);
    }
    fl_buf_printf(out, "</svg>");
    if (chart->valid.count > 0) {
        fl_buf_printf(out,
                      "<p class=\"key\"><i></i>training &#160; <i class=\"kb\"></i>validation"
                      "%s</p>",
                      report->best_step ? ", the best one in a ring" : "");
    }
    fl_buf_printf(out, "</section>");
}

static void print_losses(struct fl_buf *out, const struct fl_report *report)
{
    struct chart chart = {.title = "Loss"};
    take_curve(report->metrics, loss_of, &chart.main);
    take_curve(report->metrics, valid_of, &chart.valid);
    if (chart.main.count >= 20) {
        chart.raw = chart.main;
        smooth(&chart.raw, &chart.main);
    }
    print_chart(out, report, &chart);
}

static void print_other(struct fl_buf *out, const struct fl_report *report, const char *title,
                        value_of *value)
{
    struct chart chart = {.title = title, .from_zero = true};
    take_curve(report->metrics, value, &chart.main);
    print_chart(out, report, &chart);
}

static void print_facts(struct fl_buf *out, const json_t *facts)
{
    json_t *object = (json_t *)(uintptr_t)facts; /* jansson's iterators lack const */
    fl_buf_printf(out, "<section class=\"facts\"><table>");
    for (void *i = json_object_iter(object); i; i = json_object_iter_next(object, i)) {
        const char *value = json_string_value(json_object_iter_value(i));
        fl_buf_printf(out, "<tr><th>");
        fl_html_text(out, json_object_iter_key(i));
        fl_buf_printf(out, "</th><td>");
        fl_html_text(out, value ? value : "");
        fl_buf_printf(out, "</td></tr>");
    }
    fl_buf_printf(out, "</table></section>");
}

enum fl_status fl_report_html(const struct fl_report *self, struct fl_buf *out)
{
    fl_buf_printf(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>"
                       "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>"
                       "<title>Training of ");
    fl_html_text(out, self->title);
    fl_buf_printf(out, "</title><style>%s</style></head>\n<body><main><h1>Training of ", style);
    fl_html_text(out, self->title);
    fl_buf_printf(out, "</h1><p>");
    fl_html_text(out, self->state);
    fl_buf_printf(out, "</p><div class=\"grid\">\n");
    print_losses(out, self);
    print_other(out, self, "Learning rate", rate_of);
    print_other(out, self, "Gradient norm, before clipping", norm_of);
    print_other(out, self, "Tokens a second", speed_of);
    fl_buf_printf(out, "</div>\n");
    print_facts(out, self->facts);
    fl_buf_printf(out, "</main></body></html>\n");
    return fl_buf_status(out);
}

/* chart.c - see chart.h. */
#include "web/chart.h"

#include <math.h>

#define TICKS_MAX 8

/* 1, 2 or 5 times a power of ten, so that about `wanted` of them fill the span. */
static double tick_step(double span, int wanted)
{
    double rough = span / wanted, power = pow(10, floor(log10(rough)));
    double digit = rough / power;
    return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}

struct fl_axis fl_axis_make(double low, double high, double from, double to, int wanted)
{
    struct fl_axis self = {low, high, 0, from, to};
    if (!(high > low)) { /* one value: a band around it */
        double room = fabs(low) > 0 ? 0.1 * fabs(low) : 1.0;
        self.low = low - room;
        self.high = low + room;
    }
    self.step = tick_step(self.high - self.low, wanted);
    return self;
}

double fl_axis_place(const struct fl_axis *self, double value)
{
    return self->from + (self->to - self->from) * (value - self->low) / (self->high - self->low);
}

/* A tick's number, short: 12k, 1.5M, 0.002. */
static void print_tick(struct fl_buf *out, double value, double step)
{
    double size = fabs(value);
    if (size < step / 1e6) {
        fl_buf_printf(out, "0");
    } else if (size >= 1e6) {
        fl_buf_printf(out, "%.4gM", value / 1e6);
    } else if (size >= 1e4) {
        fl_buf_printf(out, "%.4gk", value / 1e3);
    } else {
        fl_buf_printf(out, "%.4g", value);
    }
}

void fl_chart_axes(struct fl_buf *out, const struct fl_axis *x, const struct fl_axis *y)
{
    double first = ceil(y->low / y->step - 1e-9);
    for (int i = 0; i < TICKS_MAX && (first + i) * y->step <= y->high + 1e-9 * y->step; i++) {
        double value = (first + i) * y->step, at = fl_axis_place(y, value);
        fl_buf_printf(out, "<path class=\"rule\" d=\"M%d %.1fH%d\"/>", FL_CHART_LEFT, at,
                      FL_CHART_WIDTH - FL_CHART_RIGHT);
        fl_buf_printf(out, "<text class=\"end\" x=\"%d\" y=\"%.1f\">", FL_CHART_LEFT - 6, at + 4);
        print_tick(out, value, y->step);
        fl_buf_printf(out, "</text>");
    }
    double whole = fmax(x->step, 1.0); /* steps have no fractions */
    first = ceil(x->low / whole - 1e-9);
    for (int i = 0; i < TICKS_MAX && (first + i) * whole <= x->high + 1e-9 * whole; i++) {
        double value = (first + i) * whole;
        fl_buf_printf(out, "<text class=\"mid\" x=\"%.1f\" y=\"%d\">", fl_axis_place(x, value),
                      FL_CHART_HEIGHT - 8);
        print_tick(out, value, whole);
        fl_buf_printf(out, "</text>");
    }
}

void fl_chart_dot(struct fl_buf *out, const char *class, double x, double y, double radius)
{
    fl_buf_printf(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>", class, x, y,
                  radius);
}

void fl_chart_curve(struct fl_buf *out, const char *class, const struct fl_point *points,
                    size_t count, const struct fl_axis *x, const struct fl_axis *y)
{
    fl_buf_printf(out, "<path class=\"%s\" d=\"", class);
    for (size_t i = 0; i < count; i++) {
        fl_buf_printf(out, "%s%.1f %.1f", i ? "L" : "M", fl_axis_place(x, points[i].x),
                      fl_axis_place(y, points[i].y));
    }
    fl_buf_printf(out, "\"/>");
    if (count == 1) { /* a line of one point is not seen */
        fl_chart_dot(out, "dota", fl_axis_place(x, points[0].x), fl_axis_place(y, points[0].y), 3);
    }
}

static void widen(const struct fl_point *points, size_t count, struct fl_point *low,
                  struct fl_point *high)
{
    for (size_t i = 0; i < count; i++) {
        low->x = fmin(low->x, points[i].x);
        low->y = fmin(low->y, points[i].y);
        high->x = fmax(high->x, points[i].x);
        high->y = fmax(high->y, points[i].y);
    }
}

void fl_chart_dots(struct fl_buf *out, const char *class, const struct fl_point *points,
                   size_t count, const struct fl_axis *x, const struct fl_axis *y)
{
    for (size_t i = 0; count <= 60 && i < count; i++)
        fl_chart_dot(out, class, fl_axis_place(x, points[i].x), fl_axis_place(y, points[i].y), 2.5);
}

void fl_chart_lines(struct fl_buf *out, const char *label, const struct fl_point *a, size_t a_count,
                    const struct fl_point *b, size_t b_count)
{
    struct fl_point low = {INFINITY, INFINITY}, high = {-INFINITY, -INFINITY};
    if (a_count + b_count == 0)
        return;
    widen(a, a_count, &low, &high);
    widen(b, b_count, &low, &high);
    struct fl_axis x = fl_axis_make(low.x, high.x, FL_CHART_LEFT, FL_CHART_WIDTH - FL_CHART_RIGHT,
                                    6);
    struct fl_axis y = fl_axis_make(low.y, high.y, FL_CHART_HEIGHT - FL_CHART_BOTTOM, FL_CHART_TOP,
                                    5);
    fl_buf_printf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">", FL_CHART_WIDTH,
                  FL_CHART_HEIGHT, label);
    fl_chart_axes(out, &x, &y);
    if (b_count > 0)
        fl_chart_curve(out, "b", b, b_count, &x, &y);
    fl_chart_dots(out, "dot", b, b_count, &x, &y);
    if (a_count > 0)
        fl_chart_curve(out, "a", a, a_count, &x, &y);
    fl_chart_dots(out, "dota", a, a_count, &x, &y);
    fl_buf_printf(out, "</svg>");
}

/*
 * chart.h - charts as inline SVG, 420 x 230 units, scaled by the page to the width it has. Colours
 * and strokes are the page's, by class: rule, end, mid, a, b, dot, dota.
 * Threads: pure functions.
 */
#ifndef FL_WEB_CHART_H
#define FL_WEB_CHART_H

#include <stddef.h>

#include "base/buf.h"

#define FL_CHART_WIDTH  420
#define FL_CHART_HEIGHT 230
#define FL_CHART_LEFT   52 /* margins of the plot */
#define FL_CHART_RIGHT  10
#define FL_CHART_TOP    10
#define FL_CHART_BOTTOM 26

struct fl_point {
    double x, y; /* finite */
};

struct fl_axis {
    double low, high, step; /* of the ticks */
    double from, to;        /* in the view */
};

/* low to high, mapped linearly to from..to, with about `wanted` ticks. */
struct fl_axis fl_axis_make(double low, double high, double from, double to, int wanted);
double fl_axis_place(const struct fl_axis *self, double value);
/* Rules and numbers; x has whole numbers. */
void fl_chart_axes(struct fl_buf *out, const struct fl_axis *x, const struct fl_axis *y);
void fl_chart_dot(struct fl_buf *out, const char *class, double x, double y, double radius);
void fl_chart_curve(struct fl_buf *out, const char *class, const struct fl_point *points,
                    size_t count, const struct fl_axis *x, const struct fl_axis *y);
/* The points themselves, where there are so few that each is seen. */
void fl_chart_dots(struct fl_buf *out, const char *class, const struct fl_point *points,
                   size_t count, const struct fl_axis *x, const struct fl_axis *y);
/*
 * A whole chart of two curves, either of which may be empty (nothing is drawn if both are); each
 * point is a dot. label: what it is, for who cannot see it; a constant.
 */
void fl_chart_lines(struct fl_buf *out, const char *label, const struct fl_point *a, size_t a_count,
                    const struct fl_point *b, size_t b_count);

#endif

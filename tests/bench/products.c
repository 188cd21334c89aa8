/*
 * products.c - the rate of the engine's own products with a model's frozen weights, on the shapes
 * of one training step: each linear forward and back, the head too. Prints a JSON object a line
 * and, at the end, how long all products of such a step take: set beside a measured step it says
 * which share of it is not the products. usage: bench_products MODEL [TOKENS [THREADS [f32|bf16]]]
 * (1024, 2, f32)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "worker/engine/work.h"

enum { REPEATS = 9, PANEL_FLOATS = 2u << 20 };

struct bench {
    struct fl_work work;
    size_t tokens, widest;
    float *x, *y;
    double flops, seconds; /* of a step */
};

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_seconds(const struct bench *self, const struct fl_weight *weight, bool back)
{
    double times[REPEATS];
    const struct fl_product product = {.weight = weight,
                                       .tokens = self->tokens,
                                       .x = self->x,
                                       .ldx = back ? weight->rows : weight->columns,
                                       .y = self->y,
                                       .ldy = back ? weight->columns : weight->rows};
    for (int i = 0; i < REPEATS; i++) {
        double began = now();
        if (back)
            fl_weight_multiply_back(&self->work, &product);
        else
            fl_weight_multiply(&self->work, &product);
        times[i] = now() - began;
    }
    qsort(times, REPEATS, sizeof times[0], by_size);
    return times[REPEATS / 2];
}

static void measure(struct bench *self, const struct fl_weight *weight, uint32_t times)
{
    double flops = 2.0 * (double)self->tokens * weight->rows * weight->columns;
    double there = median_seconds(self, weight, false), back = median_seconds(self, weight, true);
    (void)printf("{\"weight\":\"%s\",\"out\":%u,\"in\":%u,\"times\":%u,\"forward_gflops\":%.1f,"
                 "\"back_gflops\":%.1f}\n",
                 weight->name, weight->rows, weight->columns, times, 1e-9 * flops / there,
                 1e-9 * flops / back);
    self->flops += 2.0 * flops * times;
    self->seconds += (there + back) * times;
}

static size_t widest_of(const struct fl_model *model)
{
    size_t widest = 0;
    for (uint32_t i = 0; i < fl_model_weight_count(model); i++) {
        const struct fl_weight *w = fl_model_weight(model, i);
        widest = w->rows > widest && !w->vector ? w->rows : widest;
        widest = w->columns > widest && !w->vector ? w->columns : widest;
    }
    return widest;
}

static bool make_room(struct bench *self, const struct fl_model *model)
{
    self->widest = widest_of(model);
    struct fl_work *work = &self->work;
    work->panel_floats = PANEL_FLOATS;
    if (work->panel_floats < (size_t)work->threads * FL_PANEL_ROWS * self->widest)
        work->panel_floats = (size_t)work->threads * FL_PANEL_ROWS * self->widest;
    work->panel = fl_calloc_aligned(work->panel_floats, sizeof(float));
    work->narrow = fl_calloc_aligned(self->tokens * (self->widest + 64), sizeof(float));
    self->x = fl_calloc_aligned(self->tokens * self->widest, sizeof(float));
    self->y = fl_calloc_aligned(self->tokens * self->widest, sizeof(float));
    if (!work->panel || !work->narrow || !self->x || !self->y)
        return false;
    for (size_t i = 0; i < self->tokens * self->widest; i++)
        self->x[i] = (float)(i % 17) / 16.0f - 0.5f;
    return true;
}

int main(int argc, char **argv)
{
    struct bench self = {.tokens = argc > 2 ? strtoul(argv[2], NULL, 10) : 1024,
                         .work = {.threads = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 2,
                                  .bf16 = argc > 4 && strcmp(argv[4], "bf16") == 0}};
    struct fl_model *model = NULL;
    struct fl_error error = {0};
    if (argc < 2 || argc > 5 || self.tokens == 0 || self.work.threads == 0) {
        (void)fprintf(stderr, "usage: bench_products MODEL [TOKENS [THREADS [f32|bf16]]]\n");
        return 2;
    }
    if (fl_model_open(argv[1], &model, &error) != FL_OK || !make_room(&self, model)) {
        (void)fprintf(stderr, "bench_products: %s\n", error.text);
        return 1;
    }
    const struct fl_model_config *config = fl_model_config(model);
    const struct fl_inventory *inventory = fl_model_inventory(model);
    for (uint32_t i = 0; i < inventory->count && inventory->modules[i].layer == 0; i++)
        measure(&self, fl_model_module_weight(model, i), config->layers);
    measure(&self, fl_model_weight(model, config->tied ? 0 : fl_model_weight_count(model) - 1), 1);
    (void)printf("{\"tokens\":%zu,\"threads\":%u,\"compute\":\"%s\",\"step_tflop\":%.3f,"
                 "\"step_seconds\":%.3f,\"gflops\":%.1f}\n",
                 self.tokens, self.work.threads, self.work.bf16 ? "bf16" : "f32",
                 1e-12 * self.flops, self.seconds, 1e-9 * self.flops / self.seconds);
    fl_free(self.x);
    fl_free(self.y);
    fl_free(self.work.panel);
    fl_free(self.work.narrow);
    fl_model_close(&model);
    return 0;
}

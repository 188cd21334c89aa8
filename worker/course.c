/*  course.c - see metrics.h. */
#include "worker/course.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"

#define FIRST_POINTS   256
#define PIECE_BYTES    65536
#define FILE_BYTES_MAX ((size_t)FL_METRICS_MAX * 256)
#define LINE_BYTES_MAX 1024

void fl_course_free(struct fl_course *self)
{
    fl_free(self->points);
    *self = (struct fl_course){.points = NULL};
}

static enum fl_status append(struct fl_course *self, const struct fl_metric *point)
{
    if (self->count == FL_METRICS_MAX) {
        return FL_OK;
    }
    if (self->count == self->capacity) {
        size_t capacity = self->capacity ? 2 * self->capacity : FIRST_POINTS;
        struct fl_metric *points = fl_reallocarray(self->points, capacity, sizeof *points);
        if (!points) {
            return FL_ENOMEM;
        }
        self->points = points;
        self->capacity = capacity;
    }
    self->points[self->count++] = *point;
    return FL_OK;
}

enum fl_status fl_course_add(struct fl_course *self, const struct fl_finetune_step *step)
{
    const struct fl_metric point = {.step = step->step,
                                    .tokens = step->tokens,
                                    .loss = step->loss,
                                    .lr = step->lr,
                                    .grad_norm = step->grad_norm,
                                    .seconds = step->seconds,
                                    .valid_loss = (double)NAN};
    return append(self, &point);
}

void fl_course_validated(struct fl_course *self, uint64_t step, double loss)
{
    if (self->count > 0 && self->points[self->count - 1].step == step) {
        self->points[self->count - 1].valid_loss = loss;
    }
}

static void print_number(struct fl_buf *out, const char *key, double value)
{
    if (isfinite(value)) {
        fl_buf_printf(out, ",\"%s\":%.9g", key, value);
    } else {
        fl_buf_printf(out, ",\"%s\":null", key);
    }
}

static void print_point(struct fl_buf *out, const struct fl_metric *p)
{
    fl_buf_printf(out, "{\"step\":%" PRIu64, p->step);
    print_number(out, "loss", p->loss);
    print_number(out, "lr", p->lr);
    print_number(out, "grad_norm", p->grad_norm);
    fl_buf_printf(out, ",\"tokens\":%" PRIu64, p->tokens);
    print_number(out, "tokens_per_second", p->seconds > 0 ? (double)p->tokens / p->seconds : 0.0);
    print_number(out, "seconds", p->seconds);
    if (!isnan(p->valid_loss)) {
        print_number(out, "val_loss", p->valid_loss);
    }
    fl_buf_append(out, "}\n", 2);
}

static enum fl_status flush(struct fl_buf *piece, struct fl_fs_writer *writer,
                            struct fl_error *error)
{
    enum fl_status status = fl_buf_status(piece);
    if (status != FL_OK) {
        return fl_fail_memory(error);
    }
    status = fl_fs_writer_write(writer, piece->data, piece->length, error);
    piece->length = 0;
    return status;
}

enum fl_status fl_course_write(const struct fl_course *self, const char *path,
                               struct fl_error *error)
{
    struct fl_fs_writer writer;
    struct fl_buf piece;
    fl_buf_init(&piece, PIECE_BYTES + LINE_BYTES_MAX);
    enum fl_status status = fl_fs_writer_open(&writer, path, 0644, error);
    for (size_t i = 0; status == FL_OK && i < self->count; i++) {
        print_point(&piece, &self->points[i]);
        if (piece.length >= PIECE_BYTES || i + 1 == self->count) {
            status = flush(&piece, &writer, error);
        }
    }
    if (status == FL_OK) {
        status = fl_fs_writer_commit(&writer, error);
    }
    fl_fs_writer_close(&writer);
    fl_buf_free(&piece);
    return status;
}

/* A number, or null, which is NaN; absent is `fallback`. */
static bool read_number(const json_t *object, const char *key, bool optional, double *out)
{
    const json_t *value = json_object_get(object, key);
    *out = json_is_number(value) ? json_number_value(value) : (double)NAN;
    return json_is_number(value) || json_is_null(value) || (optional && !value);
}

static bool read_whole(const json_t *object, const char *key, uint64_t *out)
{
    const json_t *value = json_object_get(object, key);
    *out = (uint64_t)json_integer_value(value);
    return json_is_integer(value) && json_integer_value(value) >= 0;
}

static bool read_point(const json_t *object, struct fl_metric *p)
{
    return read_whole(object, "step", &p->step) && read_whole(object, "tokens", &p->tokens) &&
           read_number(object, "loss", false, &p->loss) &&
           read_number(object, "lr", false, &p->lr) &&
           read_number(object, "grad_norm", false, &p->grad_norm) &&
           read_number(object, "seconds", false, &p->seconds) &&
           read_number(object, "val_loss", true, &p->valid_loss);
}

/* One line of `length` bytes; a step beyond `last` is passed over. */
static enum fl_status load_line(struct fl_course *self, const char *text, size_t length,
                                const char *what, uint64_t last, struct fl_error *error)
{
    struct fl_metric point;
    json_t *object = NULL;
    enum fl_status status = fl_json_parse(text, length, what, &object, error);
    if (status != FL_OK) {
        return status;
    }
    uint64_t before = self->count > 0 ? self->points[self->count - 1].step : 0;
    if (!read_point(object, &point) || point.step <= before) {
        status = fl_fail(error, FL_EFORMAT, "%s: not the metrics of the next step", what);
    } else if (point.step <= last && append(self, &point) != FL_OK) {
        status = fl_fail_memory(error);
    }
    json_decref(object);
    return status;
}

enum fl_status fl_course_load(struct fl_course *self, const char *path, uint64_t last,
                              struct fl_error *error)
{
    struct fl_buf file;
    enum fl_status status = fl_fs_read(path, FILE_BYTES_MAX, &file, error);
    const char *text = status == FL_OK ? fl_buf_text(&file) : "";
    size_t left = status == FL_OK ? file.length : 0;
    for (size_t line = 1; status == FL_OK && left > 0; line++) {
        char what[FL_PATH_BYTES];
        const char *end = memchr(text, '\n', left);
        size_t length = end ? (size_t)(end - text) : left;
        (void)snprintf(what, sizeof what, "%.4000s:%zu", path, line);
        status = length > LINE_BYTES_MAX || !end
                     ? fl_fail(error, FL_EFORMAT, "%s: not a whole line of metrics", what)
                     : load_line(self, text, length, what, last, error);
        text += length + 1;
        left -= status == FL_OK ? length + 1 : left;
    }
    fl_buf_free(&file);
    if (status != FL_OK) {
        fl_course_free(self);
    }
    return status;
}

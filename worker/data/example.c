/* example.c - see example.h. */
#include "worker/data/example.h"

#include <string.h>

#include "worker/data/row.h"

void fl_example_clear(struct fl_example *self)
{
    self->ids.count = self->labels.count = 0;
    self->head = 0;
    self->given = self->empty = false;
}

void fl_example_free(struct fl_example *self)
{
    fl_ids_free(&self->ids);
    fl_ids_free(&self->labels);
}

enum fl_status fl_example_label(struct fl_example *self, bool scored, struct fl_error *error)
{
    enum fl_status status = FL_OK;
    for (size_t i = self->labels.count; status == FL_OK && i < self->ids.count; i++)
        status = fl_ids_push(&self->labels, scored ? self->ids.ids[i] : FL_IGNORE);
    return status == FL_OK ? FL_OK : fl_fail_memory(error);
}

size_t fl_labels_scored(const int32_t *labels, size_t count)
{
    size_t scored = 0;
    for (size_t i = 1; i < count; i++)
        scored += labels[i] != FL_IGNORE;
    return scored;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void drop(struct fl_ids *list, size_t from, size_t count)
{
    memmove(list->ids + from, list->ids + from + count,
            (list->count - from - count) * sizeof *list->ids);
    list->count -= count;
}

static void drop_both(struct fl_example *self, size_t from, size_t count)
{
    if (count == 0)
        return;
    drop(&self->ids, from, count);
    drop(&self->labels, from, count);
}

/* Take up to `excess` ids out of the prompt of `prompt` ids. */
static void shorten_prompt(struct fl_example *self, size_t prompt, size_t excess)
{
    size_t head = least(self->head, prompt);
    size_t behind = head > 0 ? prompt - head : prompt - 1;
    size_t count = least(excess, behind);
    drop_both(self, head, count);
    excess -= count;
    if (head > 1)
        drop_both(self, 1, least(excess, head - 1));
}

void fl_example_cut(struct fl_example *self, size_t seq_len, struct fl_example_cut *out)
{
    const int32_t *labels = self->labels.ids;
    size_t count = self->ids.count, prompt = 0;
    *out = (struct fl_example_cut){0};
    if (count <= seq_len)
        return;
    size_t scored = fl_labels_scored(labels, count);
    while (prompt < count && labels[prompt] == FL_IGNORE)
        prompt++;
    size_t completed = prompt;
    while (completed < count && labels[completed] != FL_IGNORE)
        completed++;
    if (prompt > 0 && prompt < count && completed > seq_len)
        shorten_prompt(self, prompt, completed - seq_len);
    self->ids.count = self->labels.count = least(self->ids.count, seq_len);
    out->tokens = count - self->ids.count;
    out->scored = scored - fl_labels_scored(self->labels.ids, self->labels.count);
}

void fl_example_score_all(struct fl_example *self)
{
    if (!self->given && self->ids.count > 0)
        memcpy(self->labels.ids, self->ids.ids, self->ids.count * sizeof *self->ids.ids);
}

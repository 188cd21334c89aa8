/* tiny_run.c - see tiny_run.h. */
#include "tiny_run.h"

#include <string.h>

#include "adapter/adapter.h"
#include "worker/engine/model.h"

static const int32_t first_ids[] = {5, 17, 300, 41, 8, 99, 12};
static const int32_t second_ids[] = {7, 7, 250, 3};
static const int32_t third_ids[] = {1, 2};
static const int32_t second_labels[] = {7, FL_IGNORE, 250, 3};

const struct fl_row tiny_rows[TINY_ROWS] = {
    {first_ids, first_ids, 7}, {second_ids, second_labels, 4}, {third_ids, third_ids, 2}};

bool tiny_open(struct tiny_run *self)
{
    struct fl_inventory chosen = {0};
    memset(self, 0, sizeof *self);
    enum fl_status status = fl_model_open(FL_TEST_SOURCE_DIR "/golden/tiny-llama", &self->model,
                                          &self->error);
    if (status == FL_OK) {
        status = fl_inventory_select(fl_model_inventory(self->model), "q_proj,down_proj", &chosen,
                                     &self->error);
    }
    if (status == FL_OK) {
        status = fl_adapter_create(&chosen, 2, 4, NULL, &self->adapter, &self->error);
    }
    fl_inventory_free(&chosen);
    if (status != FL_OK) {
        return false;
    }
    fl_adapter_init(self->adapter, 3);
    self->adapter->dropout = 0.2;
    fl_finetune_defaults(&self->options);
    self->options.steps = 6;
    self->options.batch_size = 2;
    self->options.lr = 1e-2;
    self->options.schedule = FL_SCHEDULE_COSINE;
    self->options.threads = 1;
    return true;
}

void tiny_close(struct tiny_run *self)
{
    fl_adapter_destroy(&self->adapter);
    fl_model_close(&self->model);
}

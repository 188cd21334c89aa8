/* recall_work.c - a version that came from a site, checked and put in its place; see recall.h. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "coordinator/recall.h"
#include "format/peft.h"
#include "format/safetensors.h"
#include "job/strategy.h"
#include "net/chunks.h"

/* What a version can be at most: nothing larger is fetched, whoever announces it. */
static enum fl_status set_bounds(struct fl_recall_work *self, struct fl_store *store,
                                 struct fl_error *error)
{
    struct fl_version *newest = fl_calloc(1, sizeof *newest);
    if (!newest)
        return fl_fail_memory(error);
    enum fl_status status = fl_registry_newest(store, self->version.job, newest, error);
    self->rank_max = fl_rank_schedule_largest(&self->spec->ranks);
    if (status == FL_OK && newest->rank > self->rank_max) /* of the adapter it began with */
        self->rank_max = newest->rank;
    fl_free(newest);
    self->bytes_max = 1u << 20;
    for (uint32_t i = 0; i < self->targets.count; i++) {
        const struct fl_module *m = &self->targets.modules[i];
        self->bytes_max += 1024 + 4 * ((uint64_t)m->in + m->out) * self->rank_max;
        self->bytes_max += self->spec->dora ? 1024 + 4 * (uint64_t)m->out : 0;
    }
    return status == FL_ENOTFOUND ? FL_OK : status;
}

enum fl_status fl_recall_work_create(struct fl_store *store, int64_t job,
                                     struct fl_recall_work **out, struct fl_error *error)
{
    struct fl_inventory inventory = {0};
    *out = NULL;
    struct fl_recall_work *self = fl_calloc(1, sizeof *self);
    if (!self)
        return fl_fail_memory(error);
    self->chore.run = fl_recall_work_run;
    self->store = store;
    self->version.job = job;
    enum fl_status status = fl_queue_spec(store, job, &self->spec, error);
    if (status == FL_OK)
        status = fl_queue_inventory(store, job, NULL, &inventory, error);
    if (status == FL_OK)
        status = fl_inventory_select(&inventory, self->spec->targets, &self->targets, error);
    fl_inventory_free(&inventory);
    if (status == FL_OK)
        status = set_bounds(self, store, error);
    if (status != FL_OK) {
        fl_recall_work_free(self);
        return status;
    }
    *out = self;
    return FL_OK;
}

void fl_recall_work_free(struct fl_recall_work *self)
{
    if (!self)
        return;
    fl_inventory_free(&self->targets);
    fl_free(self->spec);
    fl_free(self);
}

/* The rank of each module as the file has it; everything else follows from the job. */
static enum fl_status read_ranks(struct fl_recall_work *self, const struct fl_safetensors *file,
                                 struct fl_error *error)
{
    struct fl_version *version = &self->version;
    version->rank_count = self->targets.count;
    version->rank = 0;
    for (uint32_t i = 0; i < self->targets.count; i++) {
        char key[FL_MODULE_NAME_BYTES + 64];
        const struct fl_module *m = &self->targets.modules[i];
        uint64_t most = m->in < m->out ? m->in : m->out;
        fl_peft_key(m->name, 'A', key, sizeof key);
        const struct fl_tensor_view *a = fl_safetensors_find(file, key);
        if (!a || a->rank != 2 || a->shape[0] == 0 || a->shape[0] > most ||
            a->shape[0] > self->rank_max)
            return fl_fail(error, FL_EFORMAT, "%s is missing or has no rank of the job's", m->name);
        version->ranks[i] = (uint16_t)a->shape[0];
        if (version->ranks[i] > version->rank)
            version->rank = version->ranks[i];
    }
    return FL_OK;
}

/* Names, shapes and types are the job's, every value is finite, no tensor is left over. */
static enum fl_status check_bytes(struct fl_recall_work *self, const struct fl_mapping *bytes,
                                  struct fl_error *error)
{
    uint8_t actual[FL_HASH_BYTES];
    struct fl_safetensors *file = NULL;
    struct fl_adapter *adapter = NULL;
    fl_sha256(bytes->data, bytes->length, actual);
    if (memcmp(actual, self->sha256, FL_HASH_BYTES) != 0)
        return fl_fail(error, FL_EFORMAT, "its SHA-256 is not the one that the sites gave");
    enum fl_status status = fl_safetensors_open_memory(bytes->data, bytes->length, "version", &file,
                                                       error);
    if (status == FL_OK)
        status = read_ranks(self, file, error);
    fl_safetensors_close(&file);
    if (status == FL_OK)
        status = fl_registry_shape(&self->targets, self->spec, self->version.ranks, &adapter,
                                   error);
    if (status == FL_OK)
        status = fl_adapter_decode(adapter, bytes->data, bytes->length, error);
    fl_adapter_destroy(&adapter);
    return status == FL_EINVAL || status == FL_ERANGE ? FL_EFORMAT : status;
}

static enum fl_status run_check(struct fl_recall_work *self, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_mapping bytes = {NULL, 0};
    struct fl_object *object = NULL;
    struct fl_version *version = &self->version;
    enum fl_status status = fl_fs_map(self->part, &bytes, error);
    if (status == FL_OK)
        status = check_bytes(self, &bytes, error);
    fl_fs_unmap(&bytes);
    if (status == FL_OK)
        status = fl_registry_path(self->store, version->job, version->version, path, error);
    if (status == FL_OK)
        status = fl_store_make_parent(path, error);
    if (status == FL_OK)
        status = fl_store_adopt_file(self->part, path, error);
    if (status == FL_OK)
        status = fl_object_open_file(path, &object, error);
    if (status != FL_OK)
        return status;
    memcpy(version->root, fl_object_root(object), FL_HASH_BYTES);
    version->bytes = fl_object_size(object);
    fl_object_close(&object);
    memcpy(version->sha256, self->sha256, FL_HASH_BYTES);
    version->round = version->version;
    fl_wire_set_text(version->strategy, sizeof version->strategy,
                     fl_strategy_info((enum fl_strategy)self->spec->strategy)->name);
    version->train_loss = version->eval_loss = (double)NAN;
    version->delta_norm = version->cut_fraction = (double)NAN;
    return FL_OK;
}

void fl_recall_work_run(struct fl_chore *chore)
{
    struct fl_recall_work *self = (struct fl_recall_work *)chore;
    self->status = run_check(self, &self->error);
}

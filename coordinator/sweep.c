/* sweep.c - see sweep.h. */
#include "coordinator/sweep.h"

#include "coordinator/queue.h"

struct sweep {
    struct fl_store *store;
    enum fl_status status;
    struct fl_error *error;
};

static void keep_first(struct sweep *self, enum fl_status status, const struct fl_error *error)
{
    if (self->status != FL_OK)
        return;
    self->status = status;
    if (status != FL_OK && self->error)
        *self->error = *error;
}

/* Most jobs left nothing: look before anything is written. */
static enum fl_status sweep_one(void *context, const struct fl_row *row)
{
    struct sweep *self = context;
    char path[3][FL_PATH_BYTES];
    struct fl_error error;
    long long id = (long long)fl_row_i64(row, 0);
    enum fl_status status = fl_store_path(self->store, path[0], &error, "spool/%lld", id);
    if (status == FL_OK)
        status = fl_store_path(self->store, path[1], &error, "rounds/%lld", id);
    if (status == FL_OK)
        status = fl_store_path(self->store, path[2], &error, "jobs/%lld.key", id);
    if (status == FL_OK &&
        (fl_path_exists(path[0]) || fl_path_exists(path[1]) || fl_path_exists(path[2])))
        status = fl_queue_clean(self->store, id, &error);
    keep_first(self, status, &error);
    return FL_OK;
}

enum fl_status fl_sweep_ended(struct fl_store *store, struct fl_error *error)
{
    struct sweep sweep = {.store = store, .error = error};
    enum fl_status status = fl_store_select(
        store, error, sweep_one, &sweep, NULL, "SELECT id FROM jobs WHERE state IN (?,?,?)", "iii",
        (int64_t)FL_JOB_DONE, (int64_t)FL_JOB_FAILED, (int64_t)FL_JOB_CANCELLED);
    return status == FL_OK ? sweep.status : status;
}

/* ending.c - see ending.h. */
#include "coordinator/ending.h"

struct owed {
    int64_t id, job;
    enum fl_job_state state;
    char reason[FL_REASON_BYTES];
};

enum fl_status fl_ending_owe(struct fl_store *store, int64_t job, enum fl_job_state state,
                             const char *reason, struct fl_error *error)
{
    return fl_store_run(store, error, "INSERT INTO endings(job, state, reason) VALUES(?,?,?)",
                        "iis", job, (int64_t)state, reason);
}

static enum fl_status read_owed(void *context, const struct fl_row *row)
{
    struct owed *out = context;
    out->id = fl_row_i64(row, 0);
    out->job = fl_row_i64(row, 1);
    out->state = (enum fl_job_state)fl_row_i64(row, 2);
    fl_row_copy_text(row, 3, out->reason, sizeof out->reason);
    return FL_OK;
}

static enum fl_status write_line(struct fl_desk *desk, const struct owed *owed,
                                 struct fl_error *error)
{
    const struct fl_field fields[] = {FL_I64("job", owed->job),
                                      FL_STR("state", fl_job_state_name(owed->state)),
                                      FL_STR("reason", owed->reason),
                                      {.kind = FL_FIELD_END}};
    enum fl_status status = fl_desk_audit(desk, "job_ended", fields, error);
    if (status != FL_OK)
        return status;
    return fl_store_run(desk->store, error, "DELETE FROM endings WHERE id = ?", "i", owed->id);
}

enum fl_status fl_ending_write(struct fl_desk *desk, struct fl_error *error)
{
    for (;;) {
        uint64_t rows = 0;
        struct owed owed = {.job = 0};
        enum fl_status status =
            fl_store_select(desk->store, error, read_owed, &owed, &rows,
                            "SELECT id, job, state, reason FROM endings ORDER BY id LIMIT 1", "");
        if (status == FL_OK && rows > 0)
            status = write_line(desk, &owed, error);
        if (status != FL_OK || rows == 0)
            return status;
    }
}

/* recall_store.c - what recall.h keeps in the database. */
#include <string.h>

#include "base/alloc.h"
#include "coordinator/recall.h"

static enum fl_status read_row(void *context, const struct fl_row *row)
{
    struct fl_standing *out = context;
    out->restored = fl_row_i64(row, 0) != 0;
    out->settled = fl_row_i64(row, 1) != 0;
    out->floor = (uint32_t)fl_row_i64(row, 2);
    out->lone = (uint32_t)fl_row_i64(row, 3);
    return FL_OK;
}

enum fl_status fl_recall_standing(struct fl_store *store, int64_t job, struct fl_standing *out,
                                  enum fl_job_state *state, struct fl_error *error)
{
    struct fl_job row;
    struct fl_job_spec *spec = NULL;
    memset(out, 0, sizeof *out);
    enum fl_status status = job > 0 ? fl_queue_get(store, job, &row, error)
                                    : fl_fail(error, FL_ENOTFOUND, "no job 0");
    if (status == FL_OK)
        status = fl_queue_spec(store, job, &spec, error);
    if (status == FL_OK)
        status = fl_store_select(store, error, read_row, out, NULL,
                                 "SELECT restored, settled, floor, lone FROM recalls WHERE job = ?",
                                 "i", job);
    if (status == FL_OK) {
        out->job = job;
        out->round = row.round;
        out->attempt = row.attempt;
        out->rounds = (uint32_t)spec->rounds;
        out->final_round = spec->eval_every > 0;
        *state = row.state;
    }
    fl_free(spec);
    return status;
}

enum fl_status fl_recall_knows(struct fl_store *store, int64_t job,
                               const uint8_t sha256[FL_HASH_BYTES], bool *known,
                               struct fl_error *error)
{
    uint64_t rows = 0;
    enum fl_status status =
        fl_store_select(store, error, NULL, NULL, &rows,
                        "SELECT 1 FROM versions WHERE job = ? AND sha256 = ? LIMIT 1", "ib", job,
                        sha256, (size_t)FL_HASH_BYTES);
    *known = rows > 0;
    return status;
}

struct ids {
    int64_t last, given; /* the last job here; the last id that counts as given */
};

static enum fl_status read_ids(void *context, const struct fl_row *row)
{
    struct ids *ids = context;
    ids->last = fl_row_i64(row, 0);
    ids->given = fl_row_i64(row, 1);
    return FL_OK;
}

static enum fl_status set_given(struct fl_store *store, int64_t given, struct fl_error *error)
{
    enum fl_status status = fl_store_begin(store, error);
    if (status != FL_OK)
        return status;
    status = fl_store_run(store, error, "DELETE FROM sqlite_sequence WHERE name = 'jobs'", "");
    if (status == FL_OK)
        status = fl_store_run(
            store, error, "INSERT INTO sqlite_sequence(name, seq) VALUES('jobs', ?)", "i", given);
    if (status == FL_OK)
        return fl_store_commit(store, error);
    fl_store_rollback(store);
    return status;
}

enum fl_status fl_recall_note_job(struct fl_store *store, int64_t seen, bool *news,
                                  struct fl_error *error)
{
    struct ids ids = {0, 0};
    enum fl_status status =
        fl_store_select(store, error, read_ids, &ids, NULL,
                        "SELECT (SELECT coalesce(max(id), 0) FROM jobs), "
                        "(SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'jobs')",
                        "");
    *news = status == FL_OK && seen > ids.given;
    if (!*news)
        return status;
    /* a bound that does not move with what was noted: the same word twice raises nothing */
    int64_t most = ids.last + FL_RECALL_LONE_MOST;
    int64_t given = seen < most ? seen : most;
    return given > ids.given ? set_given(store, given, error) : FL_OK;
}

enum fl_status fl_recall_keep(struct fl_store *store, const struct fl_standing *own,
                              struct fl_error *error)
{
    return fl_store_run(store, error,
                        "INSERT OR REPLACE INTO recalls(job, restored, settled, floor, lone) "
                        "VALUES(?,?,?,?,?)",
                        "iiiii", own->job, (int64_t)own->restored, (int64_t)own->settled,
                        (int64_t)own->floor, (int64_t)own->lone);
}

enum fl_status fl_recall_move(struct fl_store *store, const struct fl_standing *own,
                              enum fl_job_state state, enum fl_round_state phase,
                              const char *reason, int64_t wall_ms, struct fl_error *error)
{
    /* what an attempt that is over had collected for its masks */
    enum fl_status status = fl_store_run(store, error, "DELETE FROM masks WHERE job = ?", "i",
                                         own->job);
    if (status != FL_OK)
        return status;
    return fl_store_run(store, error,
                        "UPDATE jobs SET state = ?, phase = ?, round = ?, attempt = ?, breaks = 0, "
                        "reason = ?, ended_ms = ? WHERE id = ?",
                        "iiiisii", (int64_t)state, (int64_t)phase, (int64_t)own->round,
                        (int64_t)own->attempt, reason, state == FL_JOB_DONE ? wall_ms : (int64_t)0,
                        own->job);
}

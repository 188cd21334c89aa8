/*
 * queue_round.c - a round in the database: the job's row, a row of each member of an attempt, and
 * how the job stands to its sites beyond that attempt. See queue.h.
 */
#include "coordinator/queue.h"

#include <string.h>

/* ---- saving ---- */

/* What is kept of a member, as bits: equal bits are equal rows. */
static uint32_t marks_of(const struct fl_member *m)
{
    const bool marks[] = {m->cohort,     m->trained, m->uploaded, m->failed,
                          m->advertised, m->shared,  m->signed_,  m->answered};
    uint32_t bits = 0;
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
        bits |= (uint32_t)marks[i] << i;
    return bits;
}

static enum fl_status save_member(struct fl_store *store, int64_t id, const struct fl_round *round,
                                  const struct fl_member *m, struct fl_error *error)
{
    return fl_store_run(store, error,
                        "INSERT INTO members(job, round, attempt, site, trained, uploaded, failed, "
                        "advertised, shared, signed, answered) VALUES(?,?,?,?,?,?,?,?,?,?,?) "
                        "ON CONFLICT(job, round, attempt, site) DO UPDATE "
                        "SET trained = excluded.trained, uploaded = excluded.uploaded, "
                        "failed = excluded.failed, advertised = excluded.advertised, "
                        "shared = excluded.shared, signed = excluded.signed, "
                        "answered = excluded.answered",
                        "iiiiiiiiiii", id, (int64_t)round->round, (int64_t)round->attempt,
                        (int64_t)m->site, (int64_t)m->trained, (int64_t)m->uploaded,
                        (int64_t)m->failed, (int64_t)m->advertised, (int64_t)m->shared,
                        (int64_t)m->signed_, (int64_t)m->answered);
}

static enum fl_status save_standing(struct fl_store *store, int64_t id, const struct fl_member *m,
                                    struct fl_error *error)
{
    return fl_store_run(store, error,
                        "INSERT OR REPLACE INTO standings(job, site, left_out, failed_sums) "
                        "VALUES(?,?,?,?)",
                        "iiii", id, (int64_t)m->site, (int64_t)m->left_out,
                        (int64_t)m->failed_sums);
}

static enum fl_status save_retraining(struct fl_store *store, int64_t id,
                                      const struct fl_round *round,
                                      const struct fl_queue_saved *saved, struct fl_error *error)
{
    if (round->retraining == 0 || (saved && saved->job == id && saved->round == round->round &&
                                   saved->retraining == round->retraining))
        return FL_OK;
    return fl_store_run(store, error,
                        "INSERT OR REPLACE INTO retrainings(job, round, count, anew_from) "
                        "VALUES(?,?,?,?)",
                        "iiii", id, (int64_t)round->round, (int64_t)round->retraining,
                        (int64_t)round->anew_from);
}

static enum fl_status save_job(struct fl_store *store, int64_t id, enum fl_job_state state,
                               const struct fl_round *round, int64_t wall_ms,
                               struct fl_error *error)
{
    return fl_store_run(store, error,
                        "UPDATE jobs SET state = ?, reason = ?, round = ?, attempt = ?, "
                        "breaks = ?, phase = ?, ended_ms = ? WHERE id = ?",
                        "isiiiiii", (int64_t)state, round->reason, (int64_t)round->round,
                        (int64_t)round->attempt, (int64_t)round->breaks, (int64_t)round->state,
                        fl_job_state_ended(state) ? wall_ms : (int64_t)0, id);
}

/* NULL: what the database holds of that member is not known. */
static const struct fl_queue_saved_member *known(const struct fl_queue_saved *saved, int64_t id,
                                                 const struct fl_round *round, uint32_t i)
{
    if (!saved || saved->job != id || i >= saved->count ||
        saved->members[i].site != round->members[i].site)
        return NULL;
    return &saved->members[i];
}

static enum fl_status save_members(struct fl_store *store, int64_t id, const struct fl_round *round,
                                   const struct fl_queue_saved *saved, struct fl_error *error)
{
    bool same = saved && saved->round == round->round && saved->attempt == round->attempt;
    enum fl_status status = FL_OK;
    if (!saved || saved->job != id)
        status = fl_store_run(store, error, "DELETE FROM standings WHERE job = ?", "i", id);
    for (uint32_t i = 0; status == FL_OK && i < round->count; i++) {
        const struct fl_member *m = &round->members[i];
        const struct fl_queue_saved_member *old = known(saved, id, round, i);
        if (m->cohort && (!same || !old || old->marks != marks_of(m)))
            status = save_member(store, id, round, m, error);
        if (status == FL_OK && (m->left_out != (old && old->left_out) ||
                                m->failed_sums != (old ? old->failed_sums : 0)))
            status = save_standing(store, id, m, error);
    }
    return status;
}

static void note_saved(struct fl_queue_saved *saved, int64_t id, const struct fl_round *round)
{
    saved->job = id;
    saved->round = round->round;
    saved->attempt = round->attempt;
    saved->retraining = round->retraining;
    saved->count = round->count;
    for (uint32_t i = 0; i < round->count; i++) {
        const struct fl_member *m = &round->members[i];
        saved->members[i] = (struct fl_queue_saved_member){.site = m->site,
                                                           .marks = marks_of(m),
                                                           .failed_sums = m->failed_sums,
                                                           .left_out = m->left_out};
    }
}

enum fl_status fl_queue_save(struct fl_store *store, int64_t id, enum fl_job_state state,
                             const struct fl_round *round, struct fl_queue_saved *saved,
                             int64_t wall_ms, struct fl_error *error)
{
    enum fl_status status = fl_store_begin(store, error);
    if (status != FL_OK)
        return status;
    status = save_job(store, id, state, round, wall_ms, error);
    if (status == FL_OK)
        status = save_retraining(store, id, round, saved, error);
    if (status == FL_OK)
        status = save_members(store, id, round, saved, error);
    if (status == FL_OK)
        status = fl_store_commit(store, error);
    else
        fl_store_rollback(store);
    if (status == FL_OK && saved)
        note_saved(saved, id, round);
    return status;
}

/* ---- loading ---- */

static enum fl_status read_member(void *context, const struct fl_row *row)
{
    struct fl_member *m = fl_round_member(context, (uint32_t)fl_row_i64(row, 0));
    if (!m)
        return FL_ERANGE;
    m->cohort = true;
    m->trained = fl_row_i64(row, 1) != 0;
    m->uploaded = fl_row_i64(row, 2) != 0;
    m->failed = fl_row_i64(row, 3) != 0;
    m->advertised = fl_row_i64(row, 4) != 0;
    m->shared = fl_row_i64(row, 5) != 0;
    m->signed_ = fl_row_i64(row, 6) != 0;
    m->answered = fl_row_i64(row, 7) != 0;
    return FL_OK;
}

struct pledge_search { /* for the newest attempt of the round in which answers were asked for */
    struct fl_round *round;
    int64_t attempt; /* the one that is being counted */
    uint32_t advertised, signed_;
    bool uploaded[FL_WORKERS_MAX]; /* by place among the members */
};

static void weigh_attempt(struct pledge_search *search)
{
    struct fl_round *round = search->round;
    bool asked = search->attempt > 0 &&
                 search->signed_ >= fl_round_needed_of(&round->rules, search->advertised);
    for (uint32_t i = 0; i < round->count && asked; i++)
        round->members[i].pledged = search->uploaded[i];
    search->advertised = search->signed_ = 0;
    memset(search->uploaded, 0, sizeof search->uploaded);
}

static enum fl_status read_attempt_member(void *context, const struct fl_row *row)
{
    struct pledge_search *search = context;
    int64_t attempt = fl_row_i64(row, 0);
    bool uploaded = fl_row_i64(row, 2) != 0;
    if (attempt != search->attempt)
        weigh_attempt(search);
    search->attempt = attempt;
    struct fl_member *m = fl_round_member(search->round, (uint32_t)fl_row_i64(row, 1));
    if (!m)
        return FL_ERANGE;
    search->uploaded[m - search->round->members] = uploaded;
    search->advertised += fl_row_i64(row, 3) != 0;
    search->signed_ += uploaded && fl_row_i64(row, 4) != 0;
    return FL_OK;
}

static enum fl_status load_pledge(struct fl_store *store, const struct fl_job *job,
                                  struct fl_round *round, struct fl_error *error)
{
    struct pledge_search search = {.round = round};
    enum fl_status status = fl_store_select(
        store, error, read_attempt_member, &search, NULL,
        "SELECT attempt, site, uploaded, advertised, signed FROM members "
        "WHERE job = ? AND round = ? AND attempt BETWEEN ? AND ? ORDER BY attempt, site",
        "iiii", job->id, (int64_t)job->round, (int64_t)round->anew_from, (int64_t)job->attempt);
    weigh_attempt(&search);
    return status;
}

static enum fl_status read_retraining(void *context, const struct fl_row *row)
{
    struct fl_round *round = context;
    round->retraining = (uint32_t)fl_row_i64(row, 0);
    round->anew_from = (uint32_t)fl_row_i64(row, 1);
    return FL_OK;
}

static enum fl_status read_standing(void *context, const struct fl_row *row)
{
    struct fl_member *m = fl_round_member(context, (uint32_t)fl_row_i64(row, 0));
    if (!m)
        return FL_ERANGE;
    m->left_out = fl_row_i64(row, 1) != 0;
    m->failed_sums = (uint32_t)fl_row_i64(row, 2);
    return FL_OK;
}

static enum fl_status read_refused(void *context, const struct fl_row *row)
{
    struct fl_member *m = fl_round_member(context, (uint32_t)fl_row_i64(row, 0));
    if (!m)
        return FL_ERANGE;
    m->answer = FL_ANSWER_REFUSED;
    return FL_OK;
}

enum fl_status fl_queue_load_members(struct fl_store *store, const struct fl_job *job,
                                     struct fl_round *round, struct fl_error *error)
{
    enum fl_status status = FL_OK;
    if (job->phase != FL_ROUND_SELECT && job->phase != FL_ROUND_IDLE)
        status = fl_store_select(store, error, read_member, round, NULL,
                                 "SELECT site, trained, uploaded, failed, advertised, shared, "
                                 "signed, answered FROM members "
                                 "WHERE job = ? AND round = ? AND attempt = ?",
                                 "iii", job->id, (int64_t)job->round, (int64_t)job->attempt);
    if (status == FL_OK)
        status = fl_store_select(store, error, read_retraining, round, NULL,
                                 "SELECT count, anew_from FROM retrainings "
                                 "WHERE job = ? AND round = ?",
                                 "ii", job->id, (int64_t)job->round);
    if (status == FL_OK)
        status = load_pledge(store, job, round, error);
    if (status == FL_OK)
        status = fl_store_select(store, error, read_standing, round, NULL,
                                 "SELECT site, left_out, failed_sums FROM standings WHERE job = ?",
                                 "i", job->id);
    if (status == FL_OK)
        status = fl_store_select(store, error, read_refused, round, NULL,
                                 "SELECT site FROM refusals WHERE job = ? AND permanent = 1", "i",
                                 job->id);
    return status;
}

static enum fl_status read_one_standing(void *context, const struct fl_row *row)
{
    struct fl_job_standing *out = context;
    out->left_out = fl_row_i64(row, 0) != 0;
    out->failed_sums = (uint32_t)fl_row_i64(row, 1);
    return FL_OK;
}

enum fl_status fl_queue_standing(struct fl_store *store, int64_t id, uint32_t site,
                                 struct fl_job_standing *out, struct fl_error *error)
{
    memset(out, 0, sizeof *out);
    return fl_store_select(store, error, read_one_standing, out, NULL,
                           "SELECT left_out, failed_sums FROM standings WHERE job = ? AND site = ?",
                           "ii", id, (int64_t)site);
}

/* recall_internal.h - what recall.c and recall_fetch.c share. Threads: the loop's. */
#ifndef FL_COORDINATOR_RECALL_INTERNAL_H
#define FL_COORDINATOR_RECALL_INTERNAL_H

#include "coordinator/server_internal.h"

static inline struct fl_witness *fl_recall_witnesses(struct fl_recall *self)
{
    return self->witnesses.items;
}

static inline struct fl_claim *fl_recall_claims(struct fl_recall *self)
{
    return self->claims.items;
}

/* ---- recall.c ---- */
void fl_recall_clear(struct fl_list *list, size_t item_bytes);
const char *fl_recall_name_of(const struct fl_server *self, uint32_t site);
/* Log it; false. */
bool fl_recall_store_failed(struct fl_error *error);
enum fl_recall_verdict fl_recall_judge_now(struct fl_recall *self, bool certain, uint32_t *version);
/* The floor that the witnesses' attempts give. */
void fl_recall_number_next(struct fl_recall *self);
/* Recovered versions, own's row and, with move, the job's place, in one commit. */
bool fl_recall_commit(struct fl_server *self, bool move, enum fl_job_state state,
                      enum fl_round_state phase, const char *reason);
void fl_recall_retry_later(struct fl_server *self);
/* It is over: the job may be taken up. */
void fl_recall_go_on(struct fl_server *self);
void fl_recall_audit(struct fl_server *self, const char *event, uint32_t version,
                     const uint8_t *sha256, const char *reason);
/* A person decides: `job resume` goes on from the own version. */
void fl_recall_pause_job(struct fl_server *self, uint32_t version, const char *reason);
/* Because the word for that version does not suffice. */
void fl_recall_pause_for(struct fl_server *self, uint32_t version);

/* ---- recall_fetch.c ---- */
void fl_recall_fetch_step(struct fl_server *self, int64_t now_ms);

#endif

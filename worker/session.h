/*
 * session.h - what a site does in a round, as a pure state machine walked from one static table.
 *
 * The machine knows stages, not sockets: the client (client.h) turns frames and finished work into
 * events, calls fl_session_step(), and carries out the action that comes back. Every message may
 * arrive twice or late; SAME events are repetitions of the current (job, round, attempt).
 *
 *   IDLE -> FITTING -> READY -> FETCHING -> TRAINING -> TRAINED -> [KEYING -> KEYED -> SHARING ->
 *   SHARED ->] SEALING -> UPLOADING -> DELIVERED [-> SIGNING -> SIGNED -> ANSWERING -> ANSWERED]
 *
 * The stages in brackets belong to secure aggregation. Its secrets live in memory only: a process
 * that finds itself without them says so (LOST) and is a dropout of the attempt.
 *
 * A lost connection changes no stage: work goes on, and WELCOME repeats what the coordinator must
 * know. Threads: pure functions.
 */
#ifndef FL_WORKER_SESSION_H
#define FL_WORKER_SESSION_H

#include <stdbool.h>

#include "base/buf.h"

enum fl_stage {
    FL_STAGE_IDLE,      /* no job */
    FL_STAGE_FITTING,   /* policy, model and data are being checked against an offer */
    FL_STAGE_READY,     /* FIT was answered, or the offer refused */
    FL_STAGE_FETCHING,  /* the starting adapter is on its way */
    FL_STAGE_TRAINING,  /* evaluating and training */
    FL_STAGE_TRAINED,   /* the delta is durable */
    FL_STAGE_KEYING,    /* fresh keys are being made */
    FL_STAGE_KEYED,     /* ADVERT was sent */
    FL_STAGE_SHARING,   /* the cohort is being checked, the secrets shared */
    FL_STAGE_SHARED,    /* SHARES was sent */
    FL_STAGE_SEALING,   /* the update is being encoded and sealed */
    FL_STAGE_UPLOADING, /* the coordinator is fetching it */
    FL_STAGE_DELIVERED, /* it has a receipt */
    FL_STAGE_SIGNING,   /* the list of survivors is being checked */
    FL_STAGE_SIGNED,
    FL_STAGE_ANSWERING, /* the one answer is being made durable */
    FL_STAGE_ANSWERED,
    FL_STAGE_COUNT
};

enum fl_session_event {
    FL_SESSION_OFFER,      /* an offer of another job, round or attempt */
    FL_SESSION_OFFER_SAME, /* the current one again */
    FL_SESSION_FIT_DONE,   /* the check ended; the verdict lies with the client */
    FL_SESSION_TASK,       /* the task of the current offer, not seen before */
    FL_SESSION_TASK_SAME,
    FL_SESSION_START_HERE, /* the starting adapter is complete */
    FL_SESSION_TRAIN_DONE,
    FL_SESSION_TRAIN_FAILED,
    FL_SESSION_KEYS,
    FL_SESSION_COHORT,
    FL_SESSION_COLLECT,
    FL_SESSION_SEAL_DONE,
    FL_SESSION_SEAL_FAILED,
    FL_SESSION_SURVIVORS,
    FL_SESSION_UNMASK,
    FL_SESSION_MASK_DONE, /* keys, shares, signature or answer are ready to be sent */
    FL_SESSION_MASK_FAILED,
    FL_SESSION_LOST,    /* the coordinator asks for what only lost secrets could give */
    FL_SESSION_RECEIPT, /* accepted, superseded or rejected: this attempt needs no more */
    FL_SESSION_VERSION, /* the round was committed */
    FL_SESSION_JOB_END,
    FL_SESSION_WELCOME, /* a new session with the coordinator begins */
    FL_SESSION_EVENT_COUNT
};

enum fl_session_action {
    FL_ACTION_NONE,
    FL_ACTION_CHECK_FIT,   /* begin the check of the offer */
    FL_ACTION_SEND_FIT,    /* send (again) the answer to the offer */
    FL_ACTION_FETCH_START, /* fetch the starting adapter, or go on at once if it is here */
    FL_ACTION_TRAIN,       /* begin training, or take up a stored delta */
    FL_ACTION_SEND_TRAINED,
    FL_ACTION_SEND_FAILED,
    FL_ACTION_MAKE_KEYS,
    FL_ACTION_SHARE,
    FL_ACTION_SIGN,
    FL_ACTION_ANSWER,
    FL_ACTION_SEND_MASKED, /* keys, shares, signature or answer, whichever was made last */
    FL_ACTION_SEAL,
    FL_ACTION_SEND_UPLOAD,
    FL_ACTION_CLEAN,        /* remove what only this attempt needed */
    FL_ACTION_KEEP_VERSION, /* fetch and keep the committed version; drop the round's delta */
    FL_ACTION_END_JOB,
    FL_ACTION_COUNT
};

struct fl_session_transition {
    enum fl_stage from;
    enum fl_session_event event;
    enum fl_stage to;
    enum fl_session_action action;
};

/*
 * Walk the table: true when (stage, event) is in it, and then *stage and *action are set. Otherwise
 * nothing changes and *action is FL_ACTION_NONE: the event means nothing here and is dropped.
 */
bool fl_session_step(enum fl_stage *stage, enum fl_session_event event,
                     enum fl_session_action *action);

const char *fl_stage_name(enum fl_stage stage);
const char *fl_session_event_name(enum fl_session_event event);
/* The table as a Graphviz graph, for the documentation. */
void fl_session_dot(struct fl_buf *out);

#endif

/*
 * session.c - the table of a site's stages; see session.h.
 *
 * ANY stands for every stage: an offer of another attempt, the end of a job and a committed version
 * are understood everywhere. The first row that matches wins.
 */
#include "worker/session.h"

#include <assert.h>
#include <stddef.h>

#define ANY FL_STAGE_COUNT

static const struct fl_session_transition table[] = {
    /* an offer: check it; the same one again: answer again */
    {FL_STAGE_FITTING, FL_SESSION_OFFER_SAME, FL_STAGE_FITTING, FL_ACTION_NONE},
    {FL_STAGE_READY, FL_SESSION_OFFER_SAME, FL_STAGE_READY, FL_ACTION_SEND_FIT},
    {ANY, FL_SESSION_OFFER, FL_STAGE_FITTING, FL_ACTION_CHECK_FIT},
    {FL_STAGE_FITTING, FL_SESSION_FIT_DONE, FL_STAGE_READY, FL_ACTION_SEND_FIT},

    /* a task: fetch, train, say so */
    {FL_STAGE_READY, FL_SESSION_TASK, FL_STAGE_FETCHING, FL_ACTION_FETCH_START},
    {FL_STAGE_FETCHING, FL_SESSION_TASK_SAME, FL_STAGE_FETCHING, FL_ACTION_FETCH_START},
    {FL_STAGE_FETCHING, FL_SESSION_START_HERE, FL_STAGE_TRAINING, FL_ACTION_TRAIN},
    {FL_STAGE_TRAINING, FL_SESSION_TRAIN_DONE, FL_STAGE_TRAINED, FL_ACTION_SEND_TRAINED},
    {FL_STAGE_TRAINING, FL_SESSION_TRAIN_FAILED, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_TRAINED, FL_SESSION_TASK_SAME, FL_STAGE_TRAINED, FL_ACTION_SEND_TRAINED},

    /* secure aggregation before the update: keys, then shares */
    {FL_STAGE_TRAINED, FL_SESSION_KEYS, FL_STAGE_KEYING, FL_ACTION_MAKE_KEYS},
    {FL_STAGE_KEYING, FL_SESSION_MASK_DONE, FL_STAGE_KEYED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_KEYING, FL_SESSION_MASK_FAILED, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_KEYED, FL_SESSION_KEYS, FL_STAGE_KEYED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_KEYED, FL_SESSION_COHORT, FL_STAGE_SHARING, FL_ACTION_SHARE},
    {FL_STAGE_SHARING, FL_SESSION_MASK_DONE, FL_STAGE_SHARED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_SHARING, FL_SESSION_MASK_FAILED, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_SHARED, FL_SESSION_COHORT, FL_STAGE_SHARED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_SHARED, FL_SESSION_COLLECT, FL_STAGE_SEALING, FL_ACTION_SEAL},
    {FL_STAGE_TRAINED, FL_SESSION_LOST, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_KEYED, FL_SESSION_LOST, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_SHARED, FL_SESSION_LOST, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_UPLOADING, FL_SESSION_LOST, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_DELIVERED, FL_SESSION_LOST, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_KEYED, FL_SESSION_RECEIPT, FL_STAGE_DELIVERED, FL_ACTION_CLEAN},
    {FL_STAGE_SHARED, FL_SESSION_RECEIPT, FL_STAGE_DELIVERED, FL_ACTION_CLEAN},

    /* the update: seal it, offer it, wait for the receipt */
    {FL_STAGE_TRAINED, FL_SESSION_COLLECT, FL_STAGE_SEALING, FL_ACTION_SEAL},
    {FL_STAGE_SEALING, FL_SESSION_SEAL_DONE, FL_STAGE_UPLOADING, FL_ACTION_SEND_UPLOAD},
    {FL_STAGE_SEALING, FL_SESSION_SEAL_FAILED, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_UPLOADING, FL_SESSION_COLLECT, FL_STAGE_UPLOADING, FL_ACTION_SEND_UPLOAD},
    {FL_STAGE_DELIVERED, FL_SESSION_COLLECT, FL_STAGE_DELIVERED, FL_ACTION_NONE},
    {FL_STAGE_UPLOADING, FL_SESSION_RECEIPT, FL_STAGE_DELIVERED, FL_ACTION_CLEAN},
    {FL_STAGE_TRAINED, FL_SESSION_RECEIPT, FL_STAGE_DELIVERED, FL_ACTION_CLEAN},

    /* secure aggregation behind it: a list of survivors says that the update arrived */
    {FL_STAGE_UPLOADING, FL_SESSION_SURVIVORS, FL_STAGE_SIGNING, FL_ACTION_SIGN},
    {FL_STAGE_DELIVERED, FL_SESSION_SURVIVORS, FL_STAGE_SIGNING, FL_ACTION_SIGN},
    {FL_STAGE_SIGNING, FL_SESSION_MASK_DONE, FL_STAGE_SIGNED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_SIGNING, FL_SESSION_MASK_FAILED, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_SIGNED, FL_SESSION_SURVIVORS, FL_STAGE_SIGNED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_SIGNED, FL_SESSION_UNMASK, FL_STAGE_ANSWERING, FL_ACTION_ANSWER},
    {FL_STAGE_ANSWERING, FL_SESSION_MASK_DONE, FL_STAGE_ANSWERED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_ANSWERING, FL_SESSION_MASK_FAILED, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_ANSWERED, FL_SESSION_UNMASK, FL_STAGE_ANSWERED, FL_ACTION_SEND_MASKED},

    /* the round's end, wherever this site is */
    {ANY, FL_SESSION_VERSION, FL_STAGE_IDLE, FL_ACTION_KEEP_VERSION},
    {ANY, FL_SESSION_JOB_END, FL_STAGE_IDLE, FL_ACTION_END_JOB},

    /* a new session: tell what the coordinator may have missed */
    {FL_STAGE_READY, FL_SESSION_WELCOME, FL_STAGE_READY, FL_ACTION_SEND_FIT},
    {FL_STAGE_FETCHING, FL_SESSION_WELCOME, FL_STAGE_FETCHING, FL_ACTION_FETCH_START},
    {FL_STAGE_TRAINED, FL_SESSION_WELCOME, FL_STAGE_TRAINED, FL_ACTION_SEND_TRAINED},
    {FL_STAGE_KEYED, FL_SESSION_WELCOME, FL_STAGE_KEYED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_SHARED, FL_SESSION_WELCOME, FL_STAGE_SHARED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_UPLOADING, FL_SESSION_WELCOME, FL_STAGE_UPLOADING, FL_ACTION_SEND_UPLOAD},
    {FL_STAGE_SIGNED, FL_SESSION_WELCOME, FL_STAGE_SIGNED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_ANSWERED, FL_SESSION_WELCOME, FL_STAGE_ANSWERED, FL_ACTION_SEND_MASKED},
};

bool fl_session_step(enum fl_stage *stage, enum fl_session_event event,
                     enum fl_session_action *action)
{
    assert(*stage < FL_STAGE_COUNT && event < FL_SESSION_EVENT_COUNT);
    *action = FL_ACTION_NONE;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if ((table[i].from != *stage && table[i].from != ANY) || table[i].event != event)
            continue;
        *stage = table[i].to;
        *action = table[i].action;
        return true;
    }
    return false;
}

const char *fl_stage_name(enum fl_stage stage)
{
    static const char *const names[FL_STAGE_COUNT] = {
        "idle",      "fitting", "ready",   "fetching",  "training", "trained",
        "keying",    "keyed",   "sharing", "shared",    "sealing",  "uploading",
        "delivered", "signing", "signed",  "answering", "answered"};
    return stage < FL_STAGE_COUNT ? names[stage] : "any";
}

const char *fl_session_event_name(enum fl_session_event event)
{
    static const char *const names[FL_SESSION_EVENT_COUNT] = {
        "offer",       "offer again",  "fit done", "task",      "task again",  "start here",
        "train done",  "train failed", "keys",     "cohort",    "collect",     "seal done",
        "seal failed", "survivors",    "unmask",   "mask done", "mask failed", "lost",
        "receipt",     "version",      "job end",  "welcome"};
    return event < FL_SESSION_EVENT_COUNT ? names[event] : "unknown";
}

void fl_session_dot(struct fl_buf *out)
{
    fl_buf_printf(out, "digraph session {\n");
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        fl_buf_printf(out, "  %s -> %s [label=\"%s\"];\n", fl_stage_name(table[i].from),
                      fl_stage_name(table[i].to), fl_session_event_name(table[i].event));
    fl_buf_printf(out, "}\n");
}

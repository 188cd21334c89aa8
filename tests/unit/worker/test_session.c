/*
 * The stages of a site in a round: every (stage, event) pair against a second copy of the table,
 * and the walks that matter.
 */
#include "worker/session.h"

#include <string.h>

#include "runner.h"

struct row {
    enum fl_stage from;
    enum fl_session_event event;
    enum fl_stage to;
    enum fl_session_action action;
};

/* Besides OFFER, VERSION and JOB_END, which every stage understands. */
static const struct row rows[] = {
    {FL_STAGE_FITTING, FL_SESSION_OFFER_SAME, FL_STAGE_FITTING, FL_ACTION_NONE},
    {FL_STAGE_FITTING, FL_SESSION_FIT_DONE, FL_STAGE_READY, FL_ACTION_SEND_FIT},
    {FL_STAGE_READY, FL_SESSION_OFFER_SAME, FL_STAGE_READY, FL_ACTION_SEND_FIT},
    {FL_STAGE_READY, FL_SESSION_TASK, FL_STAGE_FETCHING, FL_ACTION_FETCH_START},
    {FL_STAGE_READY, FL_SESSION_WELCOME, FL_STAGE_READY, FL_ACTION_SEND_FIT},
    {FL_STAGE_FETCHING, FL_SESSION_TASK_SAME, FL_STAGE_FETCHING, FL_ACTION_FETCH_START},
    {FL_STAGE_FETCHING, FL_SESSION_START_HERE, FL_STAGE_TRAINING, FL_ACTION_TRAIN},
    {FL_STAGE_FETCHING, FL_SESSION_WELCOME, FL_STAGE_FETCHING, FL_ACTION_FETCH_START},
    {FL_STAGE_TRAINING, FL_SESSION_TRAIN_DONE, FL_STAGE_TRAINED, FL_ACTION_SEND_TRAINED},
    {FL_STAGE_TRAINING, FL_SESSION_TRAIN_FAILED, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_TRAINED, FL_SESSION_TASK_SAME, FL_STAGE_TRAINED, FL_ACTION_SEND_TRAINED},
    {FL_STAGE_TRAINED, FL_SESSION_COLLECT, FL_STAGE_SEALING, FL_ACTION_SEAL},
    {FL_STAGE_TRAINED, FL_SESSION_RECEIPT, FL_STAGE_DELIVERED, FL_ACTION_CLEAN},
    {FL_STAGE_TRAINED, FL_SESSION_WELCOME, FL_STAGE_TRAINED, FL_ACTION_SEND_TRAINED},
    {FL_STAGE_SEALING, FL_SESSION_SEAL_DONE, FL_STAGE_UPLOADING, FL_ACTION_SEND_UPLOAD},
    {FL_STAGE_SEALING, FL_SESSION_SEAL_FAILED, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_UPLOADING, FL_SESSION_COLLECT, FL_STAGE_UPLOADING, FL_ACTION_SEND_UPLOAD},
    {FL_STAGE_UPLOADING, FL_SESSION_RECEIPT, FL_STAGE_DELIVERED, FL_ACTION_CLEAN},
    {FL_STAGE_UPLOADING, FL_SESSION_WELCOME, FL_STAGE_UPLOADING, FL_ACTION_SEND_UPLOAD},
    {FL_STAGE_DELIVERED, FL_SESSION_COLLECT, FL_STAGE_DELIVERED, FL_ACTION_NONE},
    {FL_STAGE_TRAINED, FL_SESSION_KEYS, FL_STAGE_KEYING, FL_ACTION_MAKE_KEYS},
    {FL_STAGE_TRAINED, FL_SESSION_LOST, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_KEYED, FL_SESSION_LOST, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_SHARED, FL_SESSION_LOST, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_UPLOADING, FL_SESSION_LOST, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_DELIVERED, FL_SESSION_LOST, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_KEYING, FL_SESSION_MASK_DONE, FL_STAGE_KEYED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_KEYING, FL_SESSION_MASK_FAILED, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_KEYED, FL_SESSION_KEYS, FL_STAGE_KEYED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_KEYED, FL_SESSION_COHORT, FL_STAGE_SHARING, FL_ACTION_SHARE},
    {FL_STAGE_KEYED, FL_SESSION_RECEIPT, FL_STAGE_DELIVERED, FL_ACTION_CLEAN},
    {FL_STAGE_KEYED, FL_SESSION_WELCOME, FL_STAGE_KEYED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_SHARING, FL_SESSION_MASK_DONE, FL_STAGE_SHARED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_SHARING, FL_SESSION_MASK_FAILED, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_SHARED, FL_SESSION_COHORT, FL_STAGE_SHARED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_SHARED, FL_SESSION_COLLECT, FL_STAGE_SEALING, FL_ACTION_SEAL},
    {FL_STAGE_SHARED, FL_SESSION_RECEIPT, FL_STAGE_DELIVERED, FL_ACTION_CLEAN},
    {FL_STAGE_SHARED, FL_SESSION_WELCOME, FL_STAGE_SHARED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_UPLOADING, FL_SESSION_SURVIVORS, FL_STAGE_SIGNING, FL_ACTION_SIGN},
    {FL_STAGE_DELIVERED, FL_SESSION_SURVIVORS, FL_STAGE_SIGNING, FL_ACTION_SIGN},
    {FL_STAGE_SIGNING, FL_SESSION_MASK_DONE, FL_STAGE_SIGNED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_SIGNING, FL_SESSION_MASK_FAILED, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_SIGNED, FL_SESSION_SURVIVORS, FL_STAGE_SIGNED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_SIGNED, FL_SESSION_UNMASK, FL_STAGE_ANSWERING, FL_ACTION_ANSWER},
    {FL_STAGE_SIGNED, FL_SESSION_WELCOME, FL_STAGE_SIGNED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_ANSWERING, FL_SESSION_MASK_DONE, FL_STAGE_ANSWERED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_ANSWERING, FL_SESSION_MASK_FAILED, FL_STAGE_READY, FL_ACTION_SEND_FAILED},
    {FL_STAGE_ANSWERED, FL_SESSION_UNMASK, FL_STAGE_ANSWERED, FL_ACTION_SEND_MASKED},
    {FL_STAGE_ANSWERED, FL_SESSION_WELCOME, FL_STAGE_ANSWERED, FL_ACTION_SEND_MASKED},
};

static const struct row everywhere[] = {
    {FL_STAGE_COUNT, FL_SESSION_OFFER, FL_STAGE_FITTING, FL_ACTION_CHECK_FIT},
    {FL_STAGE_COUNT, FL_SESSION_VERSION, FL_STAGE_IDLE, FL_ACTION_KEEP_VERSION},
    {FL_STAGE_COUNT, FL_SESSION_JOB_END, FL_STAGE_IDLE, FL_ACTION_END_JOB},
};

static const struct row *expected(enum fl_stage stage, enum fl_session_event event)
{
    for (size_t i = 0; i < sizeof(everywhere) / sizeof(everywhere[0]); i++) {
        if (everywhere[i].event == event)
            return &everywhere[i];
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].from == stage && rows[i].event == event)
            return &rows[i];
    }
    return NULL;
}

START_TEST(every_pair_of_stage_and_event_does_what_is_written_or_nothing)
{
    for (int s = 0; s < FL_STAGE_COUNT; s++) {
        for (int e = 0; e < FL_SESSION_EVENT_COUNT; e++) {
            enum fl_stage stage = (enum fl_stage)s;
            enum fl_session_event event = (enum fl_session_event)e;
            enum fl_session_action action = FL_ACTION_COUNT;
            const struct row *row = expected(stage, event);
            bool moved = fl_session_step(&stage, event, &action);
            const char *where = fl_stage_name((enum fl_stage)s);
            const char *what = fl_session_event_name(event);
            ck_assert_msg(moved == (row != NULL), "%s, %s", where, what);
            ck_assert_msg(stage == (row ? row->to : (enum fl_stage)s), "%s, %s", where, what);
            ck_assert_msg(action == (row ? row->action : FL_ACTION_NONE), "%s, %s", where, what);
        }
    }
}
END_TEST

struct step {
    enum fl_session_event event;
    enum fl_session_action action;
};

static enum fl_stage walk(enum fl_stage stage, const struct step *steps, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        enum fl_session_action action;
        fl_session_step(&stage, steps[i].event, &action);
        ck_assert_msg(action == steps[i].action, "step %zu: %s in %s", i,
                      fl_session_event_name(steps[i].event), fl_stage_name(stage));
    }
    return stage;
}

START_TEST(a_round_goes_from_the_offer_to_the_version)
{
    static const struct step steps[] = {
        {FL_SESSION_OFFER, FL_ACTION_CHECK_FIT},         {FL_SESSION_FIT_DONE, FL_ACTION_SEND_FIT},
        {FL_SESSION_TASK, FL_ACTION_FETCH_START},        {FL_SESSION_START_HERE, FL_ACTION_TRAIN},
        {FL_SESSION_TRAIN_DONE, FL_ACTION_SEND_TRAINED}, {FL_SESSION_COLLECT, FL_ACTION_SEAL},
        {FL_SESSION_SEAL_DONE, FL_ACTION_SEND_UPLOAD},   {FL_SESSION_RECEIPT, FL_ACTION_CLEAN},
        {FL_SESSION_VERSION, FL_ACTION_KEEP_VERSION},    {FL_SESSION_OFFER, FL_ACTION_CHECK_FIT},
        {FL_SESSION_JOB_END, FL_ACTION_END_JOB},
    };
    ck_assert_int_eq(walk(FL_STAGE_IDLE, steps, sizeof(steps) / sizeof(steps[0])), FL_STAGE_IDLE);
}
END_TEST

START_TEST(messages_that_come_twice_are_answered_or_dropped)
{
    static const struct step steps[] = {
        {FL_SESSION_OFFER, FL_ACTION_CHECK_FIT},
        {FL_SESSION_OFFER_SAME, FL_ACTION_NONE},
        {FL_SESSION_FIT_DONE, FL_ACTION_SEND_FIT},
        {FL_SESSION_FIT_DONE, FL_ACTION_NONE},
        {FL_SESSION_OFFER_SAME, FL_ACTION_SEND_FIT},
        {FL_SESSION_TASK, FL_ACTION_FETCH_START},
        {FL_SESSION_TASK_SAME, FL_ACTION_FETCH_START},
        {FL_SESSION_START_HERE, FL_ACTION_TRAIN},
        {FL_SESSION_START_HERE, FL_ACTION_NONE},
        {FL_SESSION_TASK_SAME, FL_ACTION_NONE},
        {FL_SESSION_COLLECT, FL_ACTION_NONE},
        {FL_SESSION_TRAIN_DONE, FL_ACTION_SEND_TRAINED},
        {FL_SESSION_TASK_SAME, FL_ACTION_SEND_TRAINED},
        {FL_SESSION_COLLECT, FL_ACTION_SEAL},
        {FL_SESSION_COLLECT, FL_ACTION_NONE},
        {FL_SESSION_SEAL_DONE, FL_ACTION_SEND_UPLOAD},
        {FL_SESSION_COLLECT, FL_ACTION_SEND_UPLOAD},
        {FL_SESSION_RECEIPT, FL_ACTION_CLEAN},
        {FL_SESSION_RECEIPT, FL_ACTION_NONE},
        {FL_SESSION_COLLECT, FL_ACTION_NONE},
    };
    ck_assert_int_eq(walk(FL_STAGE_IDLE, steps, sizeof(steps) / sizeof(steps[0])),
                     FL_STAGE_DELIVERED);
}
END_TEST

START_TEST(a_new_session_repeats_what_the_coordinator_may_have_missed)
{
    static const struct {
        enum fl_stage stage;
        enum fl_session_action action;
    } repeats[] = {
        {FL_STAGE_IDLE, FL_ACTION_NONE},      {FL_STAGE_FITTING, FL_ACTION_NONE},
        {FL_STAGE_READY, FL_ACTION_SEND_FIT}, {FL_STAGE_FETCHING, FL_ACTION_FETCH_START},
        {FL_STAGE_TRAINING, FL_ACTION_NONE},  {FL_STAGE_TRAINED, FL_ACTION_SEND_TRAINED},
        {FL_STAGE_SEALING, FL_ACTION_NONE},   {FL_STAGE_UPLOADING, FL_ACTION_SEND_UPLOAD},
        {FL_STAGE_DELIVERED, FL_ACTION_NONE},
    };
    for (size_t i = 0; i < sizeof(repeats) / sizeof(repeats[0]); i++) {
        const struct step step = {FL_SESSION_WELCOME, repeats[i].action};
        ck_assert_int_eq(walk(repeats[i].stage, &step, 1), repeats[i].stage);
    }
}
END_TEST

START_TEST(another_attempt_begins_anew_from_anywhere)
{
    for (int s = 0; s < FL_STAGE_COUNT; s++) {
        static const struct step steps[] = {{FL_SESSION_OFFER, FL_ACTION_CHECK_FIT},
                                            {FL_SESSION_TRAIN_DONE, FL_ACTION_NONE},
                                            {FL_SESSION_SEAL_DONE, FL_ACTION_NONE},
                                            {FL_SESSION_FIT_DONE, FL_ACTION_SEND_FIT}};
        ck_assert_int_eq(walk((enum fl_stage)s, steps, 4), FL_STAGE_READY);
    }
}
END_TEST

START_TEST(every_stage_and_event_has_a_name_and_the_diagram_names_them)
{
    struct fl_buf dot;
    fl_buf_init(&dot, 1u << 16);
    fl_session_dot(&dot);
    const char *text = fl_buf_text(&dot);
    for (int s = 0; s < FL_STAGE_COUNT; s++) {
        ck_assert_msg(strstr(text, fl_stage_name((enum fl_stage)s)) != NULL, "%s",
                      fl_stage_name((enum fl_stage)s));
    }
    for (int e = 0; e < FL_SESSION_EVENT_COUNT; e++)
        ck_assert(strstr(text, fl_session_event_name((enum fl_session_event)e)) != NULL);
    ck_assert_str_eq(fl_stage_name(FL_STAGE_COUNT), "any");
    ck_assert_str_eq(fl_session_event_name(FL_SESSION_EVENT_COUNT), "unknown");
    fl_buf_free(&dot);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, every_pair_of_stage_and_event_does_what_is_written_or_nothing);
    tcase_add_test(tc, a_round_goes_from_the_offer_to_the_version);
    tcase_add_test(tc, messages_that_come_twice_are_answered_or_dropped);
    tcase_add_test(tc, a_new_session_repeats_what_the_coordinator_may_have_missed);
    tcase_add_test(tc, another_attempt_begins_anew_from_anywhere);
    tcase_add_test(tc, every_stage_and_event_has_a_name_and_the_diagram_names_them);
}

FL_TEST_MAIN("worker_session", add_tests)

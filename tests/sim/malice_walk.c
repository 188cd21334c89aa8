/*
 * malice_walk.c - any message in any stage: every kind that the wire has, with what an attempt
 * before it really carried, is said to a site in every stage of its next attempt. A table says
 * where the site stands afterwards; what it does not list changes nothing, and nothing leaves.
 */
#include <string.h>

#include "base/alloc.h"
#include "malice_cases.h"
#include "worker/client_internal.h"

#define LAST FL_STAGE_COUNT

/* How the site is brought there: the last honest step, and whether its work is held back. */
static const struct {
    enum fl_stage stage;
    enum liar_stage step;
    bool held;
} places[] = {
    {FL_STAGE_FITTING, LIAR_OFFERED, true},    {FL_STAGE_READY, LIAR_OFFERED, false},
    {FL_STAGE_TRAINING, LIAR_TRAINED, true},   {FL_STAGE_TRAINED, LIAR_TRAINED, false},
    {FL_STAGE_KEYING, LIAR_KEYED, true},       {FL_STAGE_KEYED, LIAR_KEYED, false},
    {FL_STAGE_SHARING, LIAR_SHARED, true},     {FL_STAGE_SHARED, LIAR_SHARED, false},
    {FL_STAGE_SEALING, LIAR_UPLOADED, true},   {FL_STAGE_UPLOADING, LIAR_UPLOADED, false},
    {FL_STAGE_SIGNING, LIAR_SIGNED, true},     {FL_STAGE_SIGNED, LIAR_SIGNED, false},
    {FL_STAGE_ANSWERING, LIAR_ANSWERED, true}, {FL_STAGE_ANSWERED, LIAR_ANSWERED, false},
};
#define PLACES (sizeof(places) / sizeof(places[0]))

/* What moves a site, with messages that were true one attempt earlier. */
static const struct move {
    enum fl_stage from;
    enum fl_wire_kind kind;
    enum fl_stage to;
    const char *why; /* of its refusal; NULL: none */
} moves[] = {
    /* honest moves */
    {FL_STAGE_READY, FL_WIRE_TASK, FL_STAGE_TRAINED, NULL},
    {FL_STAGE_TRAINED, FL_WIRE_KEYS, FL_STAGE_KEYED, NULL},
    /* a process without the secrets that are asked for */
    {FL_STAGE_TRAINED, FL_WIRE_COHORT, FL_STAGE_READY, "secrets lost"},
    {FL_STAGE_TRAINED, FL_WIRE_COLLECT, FL_STAGE_READY, "secrets lost"},
    {FL_STAGE_TRAINED, FL_WIRE_SURVIVORS, FL_STAGE_READY, "secrets lost"},
    {FL_STAGE_TRAINED, FL_WIRE_UNMASK, FL_STAGE_READY, "secrets lost"},
    /* a process that another one with its key must have overtaken */
    {FL_STAGE_KEYED, FL_WIRE_COLLECT, FL_STAGE_READY, "secrets lost"},
    {FL_STAGE_KEYED, FL_WIRE_SURVIVORS, FL_STAGE_READY, "secrets lost"},
    {FL_STAGE_KEYED, FL_WIRE_UNMASK, FL_STAGE_READY, "secrets lost"},
    {FL_STAGE_SHARED, FL_WIRE_SURVIVORS, FL_STAGE_READY, "secrets lost"},
    {FL_STAGE_SHARED, FL_WIRE_UNMASK, FL_STAGE_READY, "secrets lost"},
    {FL_STAGE_UPLOADING, FL_WIRE_UNMASK, FL_STAGE_READY, "secrets lost"},
    {FL_STAGE_DELIVERED, FL_WIRE_UNMASK, FL_STAGE_READY, "secrets lost"},
    /* lists, shares and signatures of the attempt before */
    {FL_STAGE_KEYED, FL_WIRE_COHORT, FL_STAGE_READY, "not signed by it"},
    {FL_STAGE_SHARED, FL_WIRE_COLLECT, FL_STAGE_READY, "came and opened"},
    {FL_STAGE_UPLOADING, FL_WIRE_SURVIVORS, FL_STAGE_SIGNED, NULL}, /* the same list is true */
    {FL_STAGE_SIGNED, FL_WIRE_UNMASK, FL_STAGE_READY, "has not signed this list"},
    /* receipts are believed: the site only does less */
    {FL_STAGE_TRAINED, FL_WIRE_RECEIPT, FL_STAGE_DELIVERED, NULL},
    {FL_STAGE_KEYED, FL_WIRE_RECEIPT, FL_STAGE_DELIVERED, NULL},
    {FL_STAGE_SHARED, FL_WIRE_RECEIPT, FL_STAGE_DELIVERED, NULL},
    {FL_STAGE_UPLOADING, FL_WIRE_RECEIPT, FL_STAGE_DELIVERED, NULL},
    /* ends are believed everywhere */
    {LAST, FL_WIRE_VERSION, FL_STAGE_IDLE, NULL},
    {LAST, FL_WIRE_JOB_END, FL_STAGE_IDLE, NULL},
    {LAST, FL_WIRE_GOODBYE, LAST, NULL}, /* it dials anew, and stands where it stood */
};

static const struct move *move_of(enum fl_stage from, enum fl_wire_kind kind)
{
    for (size_t i = 0; i < sizeof(moves) / sizeof(moves[0]); i++) {
        if ((moves[i].from == from || moves[i].from == LAST) && moves[i].kind == kind)
            return &moves[i];
    }
    return NULL;
}

/* ---- the messages of an attempt that was honest to its end ---- */

struct script { /* by kind */
    struct fl_wire messages[FL_WIRE_KIND_COUNT];
};

static void copy(struct fl_wire_bytes *list)
{
    uint8_t *bytes = fl_malloc(list->length + 1);
    if (bytes && list->length > 0)
        memcpy(bytes, list->data, list->length);
    list->data = bytes;
}

static void free_script(struct script *self)
{
    struct fl_wire *m = self->messages;
    fl_free((void *)(uintptr_t)m[FL_WIRE_TASK].as.task.global_ranks.data);
    fl_free((void *)(uintptr_t)m[FL_WIRE_TASK].as.task.site_ranks.data);
    fl_free((void *)(uintptr_t)m[FL_WIRE_COHORT].as.cohort.adverts.data);
    fl_free((void *)(uintptr_t)m[FL_WIRE_COHORT].as.cohort.plan.data);
    fl_free((void *)(uintptr_t)m[FL_WIRE_COLLECT].as.collect.tiers.data);
    fl_free((void *)(uintptr_t)m[FL_WIRE_COLLECT].as.collect.sharers.data);
    fl_free((void *)(uintptr_t)m[FL_WIRE_COLLECT].as.collect.shares.data);
    fl_free((void *)(uintptr_t)m[FL_WIRE_SURVIVORS].as.survivors.survivors.data);
    fl_free((void *)(uintptr_t)m[FL_WIRE_UNMASK].as.unmask.survivors.data);
    fl_free((void *)(uintptr_t)m[FL_WIRE_UNMASK].as.unmask.signed_by.data);
    fl_free((void *)(uintptr_t)m[FL_WIRE_UNMASK].as.unmask.signatures.data);
}

/* Messages of sites and of transport, said by a coordinator: well-formed, and for nobody. */
static void fill_strange(struct liar *l, struct script *s)
{
    static const uint8_t byte[FL_WIRE_SHARE_BYTES] = {1};
    struct fl_wire *m = s->messages;
    for (int kind = 0; kind < FL_WIRE_KIND_COUNT; kind++)
        m[kind] = liar_about(l, (enum fl_wire_kind)kind);
    memcpy(m[FL_WIRE_JOIN].as.join.name, "a", 2);
    memcpy(m[FL_WIRE_JOIN_ANSWER].as.join_answer.name, "a", 2);
    memcpy(m[FL_WIRE_WELCOME].as.welcome.name, "other", 6);
    m[FL_WIRE_WELCOME].as.welcome.heartbeat_ms = m[FL_WIRE_WELCOME].as.welcome.liveness_ms = 10;
    m[FL_WIRE_FIT].as.fit.verdict = FL_VERDICT_TEMPORARY;
    m[FL_WIRE_VERSION].as.version.version = 1;
    m[FL_WIRE_VERSION].as.version.ranks = (struct fl_wire_bytes){byte, 2};
    m[FL_WIRE_VERSION].as.version.adapter.size = 1;
    m[FL_WIRE_NEED].as.need.count = 1;
    m[FL_WIRE_PAGE].as.page.hashes = (struct fl_wire_bytes){byte, FL_HASH_BYTES};
    m[FL_WIRE_PAGE].as.page.size = m[FL_WIRE_PAGE].as.page.chunk_count = 1;
    m[FL_WIRE_CHUNK].as.chunk.data = (struct fl_wire_bytes){byte, 1};
    m[FL_WIRE_SHARES].as.shares.sealed = (struct fl_wire_bytes){byte, FL_WIRE_SHARE_BYTES};
    m[FL_WIRE_ANSWER].as.answer.answer = (struct fl_wire_bytes){byte, FL_WIRE_SCALAR_BYTES};
}

static void fill_script(struct liar *l, struct script *s)
{
    struct fl_wire *m = s->messages;
    fill_strange(l, s);
    liar_fill_offer(l, 0, &m[FL_WIRE_OFFER]);
    liar_fill_task(l, 0, &m[FL_WIRE_TASK]);
    copy(&m[FL_WIRE_TASK].as.task.global_ranks);
    copy(&m[FL_WIRE_TASK].as.task.site_ranks);
    liar_fill_cohort(l, &m[FL_WIRE_COHORT]);
    copy(&m[FL_WIRE_COHORT].as.cohort.adverts);
    copy(&m[FL_WIRE_COHORT].as.cohort.plan);
    liar_fill_collect(l, 0, &m[FL_WIRE_COLLECT]);
    copy(&m[FL_WIRE_COLLECT].as.collect.tiers);
    copy(&m[FL_WIRE_COLLECT].as.collect.sharers);
    copy(&m[FL_WIRE_COLLECT].as.collect.shares);
    liar_fill_survivors(l, &m[FL_WIRE_SURVIVORS]);
    copy(&m[FL_WIRE_SURVIVORS].as.survivors.survivors);
    liar_fill_unmask(l, &m[FL_WIRE_UNMASK]);
    copy(&m[FL_WIRE_UNMASK].as.unmask.survivors);
    copy(&m[FL_WIRE_UNMASK].as.unmask.signed_by);
    copy(&m[FL_WIRE_UNMASK].as.unmask.signatures);
}

/* ---- the walk ---- */

static enum fl_stage stage_of(const struct liar *l)
{
    return l->mal.sites[0].client->stage;
}

/* A new attempt, up to that place. */
static void bring(struct liar *l, size_t place)
{
    /* only of a new job is the check not known already */
    liar_begin(l, l->job + (places[place].stage == FL_STAGE_FITTING), 1, l->attempt + 1);
    l->mal.sites[0].held = false;
    for (int step = LIAR_OFFERED; step < (int)places[place].step; step++)
        liar_step_all(l, (enum liar_stage)step);
    for (uint32_t i = 1; i < l->count; i++)
        liar_step(l, places[place].step, i);
    l->mal.sites[0].held = places[place].held;
    liar_step(l, places[place].step, 0);
    mal_expect(stage_of(l) == places[place].stage, "stage %s instead of %s",
               fl_stage_name(stage_of(l)), fl_stage_name(places[place].stage));
}

/* One message out of turn; true: the site stands where it stood. */
static bool try(struct liar *l, size_t place, struct fl_wire *message)
{
    struct liar_heard *heard = &l->heard[0];
    const struct liar_heard before = *heard;
    enum fl_stage from = places[place].stage;
    const struct move *move = move_of(from, message->kind);
    enum fl_stage to = move && move->to != LAST ? move->to : from;
    message->job = l->job;
    message->round = l->round;
    message->attempt = l->attempt;
    liar_say(l, 0, message);
    liar_settle(l);
    l->mal.now += 1000; /* so that it dials again after a GOODBYE */
    mal_event(&l->mal.sites[0], NULL);
    liar_settle(l);
    const char *stage = fl_stage_name(from), *kind = fl_wire_kind_name(message->kind);
    mal_expect(stage_of(l) == to, "%s in stage %s leads to %s", kind, stage,
               fl_stage_name(stage_of(l)));
    if (!move || move->why)
        mal_expect(heard->adverts == before.adverts && heard->sharings == before.sharings &&
                       heard->signatures == before.signatures,
                   "%s in stage %s makes it say something new", kind, stage);
    mal_expect(heard->updates == before.updates && heard->answers == before.answers,
               "%s in stage %s makes an update or an answer leave", kind, stage);
    if (move && move->why)
        lie_refused(l, 0, move->why);
    return !move;
}

static void any_message_in_any_stage(struct liar *l)
{
    static struct script script;
    liar_go(l, LIAR_ANSWERED);
    fill_script(l, &script);
    for (size_t place = 0; place < PLACES; place++) {
        bool there = false;
        for (int kind = 0; kind < FL_WIRE_KIND_COUNT; kind++) {
            if (!there)
                bring(l, place);
            there = try(l, place, &script.messages[kind]);
        }
    }
    free_script(&script);
}

/* From the end of an attempt: a site at rest takes nothing but an offer. */
static void any_message_at_rest(struct liar *l)
{
    static struct script script;
    liar_go(l, LIAR_ANSWERED);
    fill_script(l, &script);
    struct fl_wire end = liar_about(l, FL_WIRE_JOB_END);
    liar_say(l, 0, &end);
    liar_settle(l);
    const struct liar_heard before = l->heard[0];
    for (int kind = 0; kind < FL_WIRE_KIND_COUNT; kind++) {
        if (kind == FL_WIRE_OFFER)
            continue;
        liar_say(l, 0, &script.messages[kind]);
        liar_settle(l);
        mal_expect(stage_of(l) == FL_STAGE_IDLE, "%s wakes it", fl_wire_kind_name(kind));
    }
    const struct liar_heard *heard = &l->heard[0];
    mal_expect(heard->adverts == before.adverts && heard->updates == before.updates &&
                   heard->signatures == before.signatures && heard->answers == before.answers,
               "a site at rest said something new");
    free_script(&script);
}

const struct lie lies_of_order[] = {
    {"any_message_in_any_stage", 4, "", "", any_message_in_any_stage},
    {"any_message_at_rest", 4, "", "", any_message_at_rest},
    {NULL, 0, NULL, NULL, NULL},
};

/*
 * malice_sites.c - what one lying site can do to a round of four honest ones: each case is a lie,
 * how the job must end, and whom the coordinator must blame. In every case hub.c watches that no
 * honest site says two things in one attempt.
 */
#include <stdio.h>
#include <string.h>

#include "malice_hub.h"

struct malice {
    const char *name;
    uint32_t sites; /* the last one lies; with FL_WIRE_ANSWER the first, whose answer is used */
    const char *job;
    enum fl_wire_kind kind;
    hub_lie lie;
    enum garble garble;
    enum fl_job_state end;
    const char *event;  /* that names the liar; NULL: nobody can know */
    const char *reason; /* a part of the event's message, or of why the job paused */
    int64_t within_ms;
    bool crash; /* the coordinator dies behind the first sum that fails */
};

/* ---- lies ---- */

static bool now(struct hub *hub, const struct fl_wire *m)
{
    if (m->kind != hub->kind)
        return false;
    hub->lies++;
    return true;
}

static enum verdict silence(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    return now(hub, m) ? DROP : SAY;
}

/* Its process dies the first time that it would say so. */
static enum verdict restart(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (hub->lies > 0 || !now(hub, m))
        return SAY;
    hub->restart = true;
    return DROP;
}

/* ... and the first time that it has said so. */
static enum verdict restart_behind(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (hub->lies == 0 && now(hub, m))
        hub->restart = true;
    return SAY;
}

static enum verdict fail(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (!now(hub, m))
        return SAY;
    m->kind = FL_WIRE_FAILED;
    memset(&m->as, 0, sizeof(m->as));
    m->as.failed.code = FL_REFUSAL_INTERNAL;
    return SAY;
}

static enum verdict another_attempt(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (now(hub, m))
        m->attempt += 1;
    return SAY;
}

/* Everything twice, and then once more, about every attempt that there was or may be. */
static enum verdict echoes(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    struct fl_wire copy = *m;
    if (m->kind == FL_WIRE_HELLO || m->kind == FL_WIRE_NEED || m->kind == FL_WIRE_CHUNK)
        return SAY;
    for (uint32_t attempt = 0; attempt < 4; attempt++) {
        copy.attempt = attempt;
        hub_say(hub, site, &copy);
    }
    hub->lies++;
    return SAY;
}

/* What it said in an earlier stage comes again in each later one. */
static enum verdict late(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    static const enum fl_wire_kind again[] = {FL_WIRE_TRAINED, FL_WIRE_ADVERT, FL_WIRE_SHARES,
                                              FL_WIRE_UPLOAD, FL_WIRE_SIGNED};
    static uint8_t list[MAL_SITES_MAX * FL_WIRE_SHARE_BYTES];
    if (m->kind < FL_WIRE_KEYS && m->kind != FL_WIRE_UPLOAD)
        return SAY;
    for (size_t i = 0; i < sizeof(again) / sizeof(again[0]); i++) {
        struct fl_wire copy = {
            .kind = again[i], .job = m->job, .round = m->round, .attempt = m->attempt};
        if (again[i] == m->kind)
            break;
        if (again[i] == FL_WIRE_SHARES)
            copy.as.shares.sealed = (struct fl_wire_bytes){list,
                                                           hub->mal.count * FL_WIRE_SHARE_BYTES};
        hub->lies++;
        hub_say(hub, site, &copy);
    }
    return SAY;
}

static enum verdict flood(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    const struct fl_wire beat = {.kind = FL_WIRE_HEARTBEAT};
    if (hub->lies < 3 && now(hub, m)) {
        for (int i = 0; i < 500; i++)
            hub_say(hub, site, &beat);
    }
    return SAY;
}

/* ---- adverts ---- */

static enum verdict advert_name(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (now(hub, m))
        m->as.advert.advert[4] = '1';
    return SAY;
}

static enum verdict advert_identity(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (now(hub, m))
        memcpy(m->as.advert.advert + FL_NAME_BYTES, hub->mal.sites[0].identity.ed25519,
               FL_KEY_BYTES);
    return SAY;
}

static enum verdict advert_signature(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (now(hub, m))
        m->as.advert.advert[FL_WIRE_ADVERT_BYTES - 1] ^= 1;
    return SAY;
}

/* A second, rubbish advert once the list is out. */
static enum verdict advert_late(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    struct fl_wire advert = {
        .kind = FL_WIRE_ADVERT, .job = m->job, .round = m->round, .attempt = m->attempt};
    if (now(hub, m))
        hub_say(hub, site, &advert);
    return SAY;
}

static enum verdict honest(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    (void)now(hub, m);
    return SAY;
}

/* ---- lists ---- */

static uint8_t scratch[MAL_SITES_MAX * FL_WIRE_SHARE_BYTES];

static void change(struct fl_wire_bytes *list)
{
    memcpy(scratch, list->data, list->length);
    list->data = scratch;
}

static enum verdict shares_short(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (now(hub, m))
        m->as.shares.sealed.length -= FL_WIRE_SHARE_BYTES;
    return SAY;
}

static void spoil_shares(struct fl_wire *m, uint32_t members)
{
    change(&m->as.shares.sealed);
    memset(scratch, 0x55, (size_t)members * FL_WIRE_SHARE_BYTES);
}

static enum verdict shares_rubbish(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    if (now(hub, m))
        spoil_shares(m, site);
    return SAY;
}

static enum verdict shares_rubbish_for_two(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (now(hub, m))
        spoil_shares(m, 2);
    return SAY;
}

static enum verdict shares_rubbish_for_one(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (now(hub, m))
        spoil_shares(m, 1);
    return SAY;
}

/* Rubbish for all, and no update: the masks that the others share with it must go all the same. */
static enum verdict shares_rubbish_then_silence(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    if (m->kind == FL_WIRE_UPLOAD)
        return DROP;
    return shares_rubbish(hub, site, m);
}

/* The others' shares are good, and the liar says that they are not. */
static enum verdict denial(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    if (now(hub, m)) {
        change(&m->as.upload.opened);
        memset(scratch, 0, hub->mal.count);
        scratch[site] = 1;
    }
    return SAY;
}

static enum verdict no_word_on_shares(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (now(hub, m))
        m->as.upload.opened.length = 0;
    return SAY;
}

static enum verdict upload_size(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (now(hub, m))
        m->as.upload.update.size += 4;
    return SAY;
}

static enum verdict upload_nothing(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (now(hub, m))
        m->as.upload.update.root[0] ^= 1;
    return SAY;
}

static enum verdict chunk_rubbish(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    static uint8_t zeros[1u << 16];
    (void)site;
    if (hub->job.phase == FL_ROUND_COLLECT && m->as.chunk.data.length <= sizeof(zeros) &&
        now(hub, m))
        m->as.chunk.data.data = zeros;
    return SAY;
}

static enum verdict signature_of_another_list(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (now(hub, m))
        m->as.signed_.signature[0] ^= 1;
    return SAY;
}

static enum verdict answer_short(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (now(hub, m))
        m->as.answer.answer.length -= FL_WIRE_SCALAR_BYTES;
    return SAY;
}

static enum verdict answer_zero(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (now(hub, m)) {
        change(&m->as.answer.answer);
        memset(scratch, 0, sizeof(scratch));
    }
    return SAY;
}

static enum verdict answer_wrong(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (now(hub, m)) {
        change(&m->as.answer.answer);
        for (size_t i = 0; i < m->as.answer.answer.length; i += FL_WIRE_SCALAR_BYTES)
            scratch[i] ^= 1;
    }
    return SAY;
}

static enum verdict answer_wrong_once(struct hub *hub, uint32_t site, struct fl_wire *m)
{
    (void)site;
    if (now(hub, m)) {
        change(&m->as.answer.answer);
        scratch[FL_WIRE_SCALAR_BYTES] ^= 1;
    }
    return SAY;
}

/* ---- the table ---- */

#define STAGE_MS 130000 /* two rounds in which one stage each is waited for */
#define MANY_MS  400000

#define CASE(name_, kind_, event_, reason_, within_)                                               \
    {                                                                                              \
#name_, 5, "", FL_WIRE_##kind_, name_, GARBLE_NOTHING, FL_JOB_DONE, event_, reason_,       \
            within_, false                                                                         \
    }
#define IN_STAGE(lie_, kind_)                                                                      \
    {                                                                                              \
#lie_ "_" #kind_, 5, "", FL_WIRE_##kind_, lie_, GARBLE_NOTHING, FL_JOB_DONE, NULL, NULL,   \
            MANY_MS, false                                                                         \
    }
#define IN_STAGES(lie_)                                                                            \
    IN_STAGE(lie_, FIT), IN_STAGE(lie_, TRAINED), IN_STAGE(lie_, ADVERT), IN_STAGE(lie_, SHARES),  \
        IN_STAGE(lie_, UPLOAD), IN_STAGE(lie_, SIGNED), IN_STAGE(lie_, ANSWER)

#define NAMELESS(name_, sites_, garble_, end_, crash_)                                             \
    {                                                                                              \
        name_, sites_, "", FL_WIRE_UPLOAD, honest, garble_, end_, NULL,                            \
            (end_) == FL_JOB_DONE ? NULL : "sum", MANY_MS, crash_                                  \
    }

static const struct malice cases[] = {
    CASE(honest, TRAINED, NULL, NULL, STAGE_MS),
    IN_STAGES(silence),
    IN_STAGES(fail),
    IN_STAGES(another_attempt),
    IN_STAGES(restart),
    IN_STAGES(restart_behind),
    CASE(echoes, TRAINED, NULL, NULL, STAGE_MS),
    CASE(late, TRAINED, NULL, NULL, STAGE_MS),
    CASE(flood, TRAINED, "peer_dropped", "says far more than it has to", MANY_MS),
    CASE(advert_name, ADVERT, "site_blamed", "another name", STAGE_MS),
    CASE(advert_identity, ADVERT, "site_blamed", "another identity", STAGE_MS),
    CASE(advert_signature, ADVERT, "site_blamed", "is not signed for this attempt", STAGE_MS),
    CASE(advert_late, SHARES, NULL, NULL, STAGE_MS),
    {"advert_ranks", 5, "", FL_WIRE_ADVERT, honest, GARBLE_RANKS, FL_JOB_DONE, "site_blamed",
     "names other ranks", STAGE_MS, false},
    CASE(shares_short, SHARES, "site_blamed", "not one for each member", STAGE_MS),
    CASE(shares_rubbish, SHARES, "site_blamed", "shares", STAGE_MS),
    CASE(shares_rubbish_for_two, SHARES, "site_blamed", "shares", STAGE_MS),
    CASE(shares_rubbish_for_one, SHARES, NULL, NULL, STAGE_MS),
    CASE(shares_rubbish_then_silence, SHARES, "site_blamed", "shares", MANY_MS),
    CASE(denial, UPLOAD, NULL, NULL, STAGE_MS), /* t others opened them */
    CASE(no_word_on_shares, UPLOAD, "update_rejected", "whose shares opened", STAGE_MS),
    CASE(upload_size, UPLOAD, "update_rejected", "size", STAGE_MS),
    CASE(upload_nothing, UPLOAD, "update_rejected", "", STAGE_MS),
    CASE(chunk_rubbish, CHUNK, "update_rejected", "", STAGE_MS),
    CASE(signature_of_another_list, SIGNED, "site_blamed", "signature", STAGE_MS),
    CASE(answer_short, ANSWER, "site_blamed", "not one share for each member", STAGE_MS),
    CASE(answer_zero, ANSWER, "site_blamed", "answer", STAGE_MS),
    CASE(answer_wrong, ANSWER, "site_blamed", "did not fit", STAGE_MS),
    CASE(answer_wrong_once, ANSWER, "site_blamed", "did not fit", STAGE_MS),
    /* behind masks a number has no name: the round is trained anew without who may have sent it */
    NAMELESS("noise", 5, GARBLE_NOISE, FL_JOB_DONE, false),
    NAMELESS("noise_and_a_crash", 5, GARBLE_NOISE, FL_JOB_DONE, true),
    NAMELESS("guard_bits", 5, GARBLE_GUARD_BITS, FL_JOB_DONE, false),
    NAMELESS("scalars", 5, GARBLE_SCALARS, FL_JOB_DONE, false),
    NAMELESS("noise_among_four", 4, GARBLE_NOISE, FL_JOB_DONE, false),
    NAMELESS("noise_among_nine", 9, GARBLE_NOISE, FL_JOB_DONE, false),
    /* three sites are needed, and one of three spoils every sum */
    NAMELESS("noise_among_three", 3, GARBLE_NOISE, FL_JOB_PAUSED, false),
    /* what a sum of honest numbers could be cannot be told from one: it is bounded, not found */
    {"beyond", 5, "", FL_WIRE_UPLOAD, honest, GARBLE_BEYOND, FL_JOB_DONE, NULL, NULL, STAGE_MS,
     false},
};

static bool is_nameless(const struct malice *m)
{
    return m->garble == GARBLE_NOISE || m->garble == GARBLE_GUARD_BITS ||
           m->garble == GARBLE_SCALARS;
}

static void crash_behind_a_failed_sum(struct hub *hub)
{
    while (!hub_find(hub, "sum_failed", NULL) && hub_step(hub))
        ;
    hub_crash(hub);
}

/* Nobody is blamed, and yet the one that was in every failed sum is known in the end. */
static void check_suspects(struct hub *hub)
{
    struct fl_error error;
    struct fl_job_standing standing;
    mal_expect(hub_find(hub, "sum_failed", NULL) != NULL, "no sum is said to have failed");
    mal_expect(!hub_find(hub, "site_blamed", NULL), "somebody is blamed");
    mal_expect(fl_queue_standing(hub->desk->store, 1, hub->liar + 1, &standing, &error) == FL_OK &&
                   standing.failed_sums > 0,
               "the liar is cleared");
}

static void run(const struct malice *m)
{
    static struct hub hub;
    char job[512], liar[FL_NAME_BYTES];
    mal_case(m->name);
    (void)snprintf(job, sizeof(job),
                   "%s[cohort]\nmin_workers = 3\nselect_timeout = 5s\nround_timeout = 20s\n"
                   "liveness_timeout = 5s\nwait_timeout = 1h\n",
                   m->job);
    if (hub_open(&hub, m->sites, job)) {
        hub.liar = m->kind == FL_WIRE_ANSWER ? 0 : hub.liar;
        (void)snprintf(liar, sizeof(liar), "site%u", hub.liar);
        hub.lie = m->lie;
        hub.kind = m->kind;
        garble_updates(liar, m->garble);
        if (m->crash)
            crash_behind_a_failed_sum(&hub);
        hub_run(&hub);
        if (is_nameless(m))
            check_suspects(&hub);
        const struct hub_record *blamed = m->event ? hub_find(&hub, m->event, liar) : NULL;
        mal_expect(hub.lies > 0, "the lie was never told");
        mal_expect(hub.job.state == m->end, "it ends %s in round %u, attempt %u: %s",
                   fl_job_state_name(hub.job.state), hub.job.round, hub.job.attempt,
                   hub.job.reason);
        mal_expect(hub.mal.now <= m->within_ms, "it takes %lld ms", (long long)hub.mal.now);
        mal_expect(!m->event || blamed, "nobody says %s of the liar", m->event ? m->event : "");
        if (blamed)
            mal_expect(strstr(blamed->message, m->reason) != NULL, "it is blamed otherwise: %s",
                       blamed->message);
        if (!m->event && m->reason)
            mal_expect(strstr(hub.job.reason, m->reason) != NULL, "it pauses otherwise: %s",
                       hub.job.reason);
        for (uint32_t i = 0; i < m->sites; i++)
            mal_expect(i == hub.liar || !hub_find(&hub, "site_blamed", hub.mal.sites[i].name),
                       "site%u is blamed", i);
    }
    hub_close(&hub);
}

int main(int argc, char **argv)
{
    unsigned count = 0;
    if (!mal_init())
        return 1;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (argc > 1 && strcmp(argv[1], cases[i].name) != 0)
            continue;
        run(&cases[i]);
        count++;
    }
    (void)printf("%u cases, %u expectations failed\n", count, mal_failures());
    return mal_failures() > 0 || count == 0;
}

/* malice_sums.c - lies about whose updates are summed, and about sums that are opened. */
#include <string.h>

#include "malice_cases.h"

static void tell(struct liar *l, uint32_t site, struct fl_wire *message)
{
    liar_say(l, site, message);
    liar_settle(l);
}

static void refused_for_good(struct liar *l, uint32_t site, const char *why)
{
    lie_refused(l, site, why);
    lie_presses_on(l, site);
    mal_expect(l->heard[site].answers == 0, "it answered");
}

/* ---- what is asked for instead of the update ---- */

static void another_cohort(struct liar *l)
{
    struct fl_wire message;
    for (uint32_t n = 4; n <= 6; n += 2) {
        liar_begin(l, 1, 1, n);
        liar_go(l, LIAR_SHARED);
        liar_fill_collect(l, 0, &message);
        message.as.collect.cohort = n;
        tell(l, 0, &message);
        refused_for_good(l, 0, "the coordinator names another cohort than its members signed");
        mal_expect(l->heard[0].updates == 0, "an update left");
    }
}

static void another_layout(struct liar *l)
{
    uint8_t tiers[8] = {0};
    struct fl_wire message;
    l->ranks[3] = l->ranks[4] = 2;
    for (uint32_t variant = 0; variant < 3; variant++) {
        liar_begin(l, 1, 1, variant + 1);
        liar_go(l, LIAR_SHARED);
        liar_fill_collect(l, 0, &message);
        struct fl_wire_bytes *own = &message.as.collect.tiers;
        mal_expect(own->length == 2, "%zu tiers", own->length);
        memcpy(tiers, own->data, own->length);
        tiers[0] ^= variant == 0;
        *own = (struct fl_wire_bytes){tiers, variant == 1 ? 1 : variant == 2 ? 3 : 2};
        tell(l, 0, &message);
        refused_for_good(l, 0, "the coordinator's layout is not what the members' ranks give");
        mal_expect(l->heard[0].updates == 0, "an update left");
    }
}

static void other_sharers(struct liar *l)
{
    static const char *const why[] = {"this site is not among those who shared",
                                      "shares of 3 sites came and opened, 4 are needed",
                                      "names another cohort", "shares of 3 sites came and opened"};
    struct fl_wire message;
    for (uint32_t variant = 0; variant < 4; variant++) {
        liar_begin(l, 1, 1, variant + 1);
        liar_go(l, LIAR_SHARED);
        liar_fill_collect(l, 0, &message);
        if (variant == 0)
            l->sharers[0] = 0;
        else if (variant == 1)
            l->sharers[3] = l->sharers[4] = 0;
        else if (variant == 2) {
            message.as.collect.sharers.length = 4;
            message.as.collect.shares.length = 4 * LIAR_SHARE_BYTES;
        } else
            memset(l->shares + LIAR_SHARE_BYTES, 7, 2 * LIAR_SHARE_BYTES);
        tell(l, 0, &message);
        refused_for_good(l, 0, why[variant]);
        mal_expect(l->heard[0].updates == 0, "an update left");
    }
}

/* One member's shares do not open: the others hold more of them, and the round goes on. */
static void one_bad_share(struct liar *l)
{
    struct fl_wire message;
    liar_go(l, LIAR_SHARED);
    liar_fill_collect(l, 0, &message);
    l->shares[LIAR_SHARE_BYTES] ^= 1;
    tell(l, 0, &message);
    for (uint32_t i = 1; i < 5; i++)
        liar_step(l, LIAR_UPLOADED, i);
    liar_step_all(l, LIAR_SIGNED);
    liar_step_all(l, LIAR_ANSWERED);
    mal_expect(liar_open_sum(l), "one share less, and the sum does not open");
}

/* The column of another site: what is sealed for one opens for nobody else. */
static void shares_of_another(struct liar *l)
{
    struct fl_wire message;
    liar_go(l, LIAR_SHARED);
    liar_fill_collect(l, 1, &message);
    tell(l, 0, &message);
    refused_for_good(l, 0, "came and opened");
    mal_expect(l->heard[0].updates == 0, "an update left");
}

/* Asked again for the same attempt, with another key, other sharers, or at another time. */
static void second_update(struct liar *l)
{
    struct fl_wire message;
    liar_go(l, LIAR_UPLOADED);
    for (uint32_t variant = 0; variant < 3; variant++) {
        liar_fill_collect(l, 0, &message);
        if (variant == 1)
            memset(message.as.collect.sealing_key, 9, FL_KEY_BYTES);
        if (variant == 2)
            l->sharers[4] = 0;
        tell(l, 0, &message);
    }
    struct fl_wire receipt = liar_about(l, FL_WIRE_RECEIPT);
    tell(l, 0, &receipt);
    tell(l, 0, &message);
    mal_expect(l->heard[0].updates == 1, "%u updates of one attempt", l->heard[0].updates);
}

static void start_again(struct liar *l, enum liar_stage to)
{
    for (uint32_t i = 0; i < l->count; i++) {
        mal_kill(&l->mal.sites[i]);
        mal_start(&l->mal.sites[i]);
    }
    liar_settle(l);
    for (int stage = LIAR_OFFERED; stage <= (int)to; stage++)
        liar_step_all(l, (enum liar_stage)stage);
}

/* All sites begin anew with fresh keys, in the attempt whose updates have left already. */
static void second_update_after_restart(struct liar *l)
{
    struct fl_wire message;
    liar_go(l, LIAR_UPLOADED);
    start_again(l, LIAR_SHARED);
    liar_fill_collect(l, 0, &message);
    memset(message.as.collect.sealing_key, 9, FL_KEY_BYTES);
    tell(l, 0, &message);
    lie_refused(l, 0, "asks for a second, different update of an attempt");
    liar_step(l, LIAR_UPLOADED, 1);
    mal_expect(l->heard[1].updates == 1, "the same attempt gave two updates");
    liar_step_all(l, LIAR_SIGNED);
    lie_refused(l, 1, "out of turn");
    for (uint32_t i = 0; i < l->count; i++)
        mal_expect(l->heard[i].updates == 1 && l->heard[i].answers == 0, "site%u went on", i);
}

static void earlier_attempt(struct liar *l)
{
    liar_begin(l, 1, 1, 2);
    liar_go(l, LIAR_UPLOADED);
    liar_begin(l, 1, 1, 1);
    liar_go(l, LIAR_UPLOADED);
    for (uint32_t i = 0; i < l->count; i++)
        lie_refused(l, i, "an update of a later attempt was sealed already");
}

/* ---- survivors ---- */

static void other_survivors(struct liar *l)
{
    static const char *const why[] = {
        "this site is not among the survivors", "3 sites survive, 4 are needed",
        "the sum would be over 2 sites", "the list of survivors is of another cohort",
        "'site4' cannot survive: it never shared"};
    struct fl_wire message;
    for (uint32_t variant = 0; variant < 5; variant++) {
        liar_begin(l, 1, 1, variant + 1);
        liar_go(l, LIAR_KEYED);
        for (uint32_t i = 0; i < (variant == 4 ? 4u : 5u); i++)
            liar_step(l, LIAR_SHARED, i);
        liar_step_all(l, LIAR_UPLOADED);
        liar_fill_survivors(l, &message);
        if (variant == 0)
            l->survivors[0] = 0;
        else if (variant == 1 || variant == 2)
            memset(l->survivors + 5 - variant - 1, 0, variant + 1);
        else if (variant == 3)
            message.as.survivors.survivors.length = 4;
        tell(l, 0, &message);
        refused_for_good(l, 0, why[variant]);
    }
}

/* A list is signed and another one asked for: both kinds of shares of site4 would come out. */
static void sign_one_ask_another(struct liar *l)
{
    liar_go(l, LIAR_SIGNED);
    l->survives[4] = false;
    for (uint32_t i = 0; i < 5; i++)
        l->heard[i].has_signature = i > 0 && i < 4; /* of the list that was signed */
    liar_step(l, LIAR_ANSWERED, 0);
    refused_for_good(l, 0, "has not signed this list of survivors");
    for (uint32_t i = 0; i < 5; i++)
        l->heard[i].has_signature = false;
    liar_step(l, LIAR_ANSWERED, 1);
    refused_for_good(l, 1, "the survivors are others than this site signed");
}

static void two_lists(struct liar *l)
{
    uint8_t first[FL_SIGNATURE_BYTES];
    liar_go(l, LIAR_SIGNED);
    memcpy(first, l->heard[0].signature, sizeof(first));
    l->survives[4] = false;
    liar_step_all(l, LIAR_SIGNED);
    mal_expect(memcmp(first, l->heard[0].signature, sizeof(first)) == 0 &&
                   l->heard[0].signatures == 1,
               "two lists were signed");
}

/* The sites are split: three sign one list, two the other. Neither has the signatures it needs. */
static void split_lists(struct liar *l)
{
    liar_go(l, LIAR_UPLOADED);
    for (uint32_t i = 0; i < 3; i++)
        liar_step(l, LIAR_SIGNED, i);
    l->survives[0] = false;
    for (uint32_t i = 3; i < 5; i++)
        liar_step(l, LIAR_SIGNED, i);
    l->survives[0] = true;
    liar_step(l, LIAR_ANSWERED, 0);
    refused_for_good(l, 0, "'site3' has not signed this list of survivors");
    l->heard[3].has_signature = l->heard[4].has_signature = false;
    liar_step(l, LIAR_ANSWERED, 1);
    refused_for_good(l, 1, "3 survivors signed the list, 4 are needed");
}

static void forged_signatures(struct liar *l)
{
    struct fl_wire message;
    liar_go(l, LIAR_SIGNED);
    liar_fill_unmask(l, &message);
    l->signatures[2 * FL_SIGNATURE_BYTES + 5] ^= 1;
    tell(l, 0, &message);
    refused_for_good(l, 0, "'site2' has not signed this list of survivors");
    liar_fill_unmask(l, &message);
    memset(l->signed_by, 0, sizeof(l->signed_by));
    tell(l, 1, &message);
    refused_for_good(l, 1, "0 survivors signed the list, 4 are needed");
    liar_fill_unmask(l, &message); /* one signature, four times */
    for (uint32_t i = 0; i < 5; i++)
        memcpy(l->signatures + (size_t)i * FL_SIGNATURE_BYTES, l->heard[0].signature,
               FL_SIGNATURE_BYTES);
    tell(l, 2, &message);
    refused_for_good(l, 2, "has not signed this list of survivors");
}

static void asked_twice(struct liar *l)
{
    uint8_t first[5 * FL_SCALAR_BYTES];
    liar_go(l, LIAR_ANSWERED);
    memcpy(first, l->heard[0].answer, sizeof(first));
    l->survives[4] = false;
    liar_step_all(l, LIAR_SIGNED);
    liar_step_all(l, LIAR_ANSWERED);
    mal_expect(memcmp(first, l->heard[0].answer, sizeof(first)) == 0 && l->heard[0].answers == 1,
               "two answers were given");
}

static void thin_tier(struct liar *l)
{
    l->ranks[3] = l->ranks[4] = 2;
    liar_go(l, LIAR_UPLOADED);
    mal_expect(l->heard[0].updates == 1, "%s", l->heard[0].failure.reason);
    l->survives[2] = false;
    liar_step(l, LIAR_SIGNED, 0);
    refused_for_good(l, 0, "thin tier: only 2 of the survivors trained the highest rank");
}

/* ---- differencing ---- */

/* The same work without site4, in whatever guise. */
static void again_without_one(struct liar *l, const char *why)
{
    liar_leave_out(l, 4);
    liar_go(l, LIAR_ANSWERED);
    for (uint32_t i = 0; i < 4; i++) {
        mal_expect(!l->heard[i].has_answer, "site%u answered", i);
        lie_refused(l, i, why);
    }
}

static void next_attempt_without_one(struct liar *l)
{
    liar_go(l, LIAR_ANSWERED);
    liar_begin(l, 1, 1, 2);
    again_without_one(l, "differencing");
}

static void next_attempt_with_a_dropout(struct liar *l)
{
    liar_go(l, LIAR_ANSWERED);
    liar_begin(l, 1, 1, 2);
    liar_go(l, LIAR_UPLOADED);
    l->survives[4] = false;
    liar_step_all(l, LIAR_SIGNED);
    liar_step_all(l, LIAR_ANSWERED);
    lie_refused(l, 0, "differencing");
    mal_expect(l->heard[0].answers == 1, "it answered for both");
}

/*
 * Eleven sites, and eleven sums of five of them: of any two cohorts three members are not in the
 * other (a biplane: the quadratic residues modulo 11, shifted). No two sums differ by few sites,
 * and yet the eleven together are as many equations as there are sites: they show every single
 * update.
 */
static void cohorts_that_differ_enough(struct liar *l)
{
    static const uint32_t residues[5] = {1, 3, 4, 5, 9};
    static const uint32_t by_name[11] = {0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9};
    unsigned opened = 0;
    for (uint32_t block = 0; block < 11; block++) {
        bool in[11] = {false};
        for (uint32_t k = 0; k < 5; k++)
            in[(residues[k] + block) % 11] = true;
        l->count = 0;
        for (uint32_t i = 0; i < 11; i++) {
            if (in[by_name[i]])
                l->members[l->count++] = by_name[i];
        }
        liar_begin(l, 1, 1, block + 1);
        for (uint32_t i = 0; i < 11; i++)
            l->survives[i] = in[i];
        liar_go(l, LIAR_ANSWERED);
        unsigned answers = 0;
        for (uint32_t i = 0; i < l->count; i++)
            answers += l->heard[l->members[i]].has_answer;
        opened += answers == l->count;
    }
    mal_expect(opened == 1, "%u sums of the same deltas", opened);
}

/* Whatever names the work anew and leaves the delta what it is. */
static void another_guise(struct liar *l)
{
    for (uint32_t guise = 0; guise < 8; guise++) {
        l->count = 5;
        for (uint32_t i = 0; i < 5; i++)
            l->members[i] = i;
        liar_begin(l, guise + 1, 1, 1);
        if (guise == 1)
            memcpy(l->spec->name, "other", sizeof("other"));
        else if (guise == 2)
            l->job_hash[0] ^= 1;
        else if (guise == 3)
            l->spec->update_range = 0.75;
        else if (guise == 4)
            l->spec->weight_cap = 5;
        else if (guise == 5)
            l->spec->rounds = 9;
        else if (guise == 6)
            l->spec->eval_rows = 77;
        else if (guise == 7)
            l->spec->clip_norm = 1e9;
        if (guise == 0)
            liar_go(l, LIAR_ANSWERED);
        else
            again_without_one(l, "differencing");
    }
}

/* The same sites, and every value above a smaller cap shows: of one site, if the cap is chosen so.
 */
static void another_encoding(struct liar *l)
{
    for (uint32_t variant = 0; variant < 4; variant++) {
        liar_begin(l, variant + 1, 1, 1);
        if (variant == 1)
            l->spec->weight_cap = 1;
        else if (variant == 2)
            l->spec->update_range = 0.01;
        else if (variant == 3)
            l->spec->clip_norm = 0.1;
        liar_go(l, LIAR_ANSWERED);
        for (uint32_t i = 0; i < 5 && variant > 0; i++) {
            mal_expect(!l->heard[i].has_answer, "variant %u: site%u answered", variant, i);
            lie_refused(l, i, "differencing: these deltas were summed before with another range");
        }
    }
}

/* The same sites, of which one trains fewer directions: the sums differ by its upper ones. */
static void another_rank(struct liar *l)
{
    liar_go(l, LIAR_ANSWERED);
    mal_expect(liar_open_sum(l), "the first sum does not open");
    l->ranks[4] = 2;
    liar_begin(l, 1, 1, 2);
    liar_go(l, LIAR_ANSWERED);
    for (uint32_t i = 0; i < 4; i++) {
        mal_expect(!l->heard[i].has_answer, "site%u answered", i);
        lie_refused(l, i, "differencing: ");
    }
}

/* Without shuffling and dropout nothing depends on the seed, nor on the number of the round. */
static void another_seed(struct liar *l)
{
    l->spec->shuffle = false;
    liar_go(l, LIAR_ANSWERED);
    l->spec->seed = 6;
    liar_begin(l, 2, 1, 1);
    again_without_one(l, "differencing");
}

/* The same sum once more is no news: after a crash it must be given again. */
static void same_sum_again(struct liar *l)
{
    liar_go(l, LIAR_ANSWERED);
    liar_begin(l, 2, 1, 1);
    liar_go(l, LIAR_ANSWERED);
    mal_expect(l->heard[0].has_answer && liar_open_sum(l), "the same sum is refused: %s",
               l->heard[0].failure.reason);
}

/* Theory: a delta that differs by a hair is another delta. Only noise hides a site then, and
   SECURITY.md says so. */
static void another_delta(struct liar *l)
{
    liar_go(l, LIAR_ANSWERED);
    liar_begin(l, 1, 1, 2);
    l->spec->lr += 1e-6;
    liar_leave_out(l, 4);
    liar_go(l, LIAR_ANSWERED);
    mal_expect(l->heard[0].has_answer,
               "another learning rate is the same work now: say so, and change this test");
}

/* So small a hair that the numbers are the same: then it is the same delta, whatever it is called.
 */
static void another_name_for_a_delta(struct liar *l)
{
    liar_go(l, LIAR_ANSWERED);
    liar_begin(l, 1, 1, 2);
    l->spec->lr += 1e-12;
    again_without_one(l, "differencing");
    mal_expect(l->mal.sites[0].trainings == 2, "it did not train again");
}

/* ---- sums that are said to have failed ---- */

static void begin_anew(struct liar *l, uint32_t attempt, uint32_t retraining)
{
    liar_begin(l, 1, 1, attempt);
    l->retraining = retraining;
}

/* Each time another site is left out. What the sums are over differs, but so do the deltas of all
   that are in both; and it comes to an end. */
static void failed_sums_to_difference(struct liar *l)
{
    liar_go(l, LIAR_ANSWERED);
    for (uint32_t k = 1; k <= FL_RETRAININGS_MAX; k++) {
        begin_anew(l, k + 1, k);
        if (k == 1)
            liar_leave_out(l, 4);
        liar_go(l, LIAR_ANSWERED);
        for (uint32_t i = 0; i < 4; i++) {
            mal_expect(l->heard[i].has_answer, "site%u: %s", i, l->heard[i].failure.reason);
            mal_expect(l->mal.sites[i].trainings == k + 1, "site%u has not trained anew", i);
        }
        mal_expect(liar_open_sum(l), "sum %u does not open", k);
    }
    for (uint32_t k = 0; k <= FL_RETRAININGS_MAX; k++) { /* and not one of them without site3 */
        l->count = 5;
        for (uint32_t i = 0; i < 5; i++)
            l->members[i] = i;
        begin_anew(l, 9 + k, k);
        liar_leave_out(l, 3);
        liar_go(l, LIAR_ANSWERED);
        for (uint32_t i = 0; i < 3; i++) {
            mal_expect(!l->heard[i].has_answer, "retraining %u: site%u answered", k, i);
            lie_refused(l, i, "differencing");
        }
    }
}

/* The answers of one training open nothing of another: the masks are of one attempt each. */
static void old_answers_for_new_deltas(struct liar *l)
{
    static uint8_t answers[5][5 * FL_SCALAR_BYTES];
    liar_go(l, LIAR_ANSWERED);
    for (uint32_t i = 0; i < 5; i++)
        memcpy(answers[i], l->heard[i].answer, sizeof(answers[i]));
    begin_anew(l, 2, 1);
    liar_go(l, LIAR_UPLOADED);
    for (uint32_t i = 0; i < 5; i++) {
        l->heard[i].has_answer = true;
        memcpy(l->heard[i].answer, answers[i], sizeof(answers[i]));
    }
    mal_expect(!liar_open_sum(l), "the answers of another training open this sum");
}

/* One site is told that it is the first training, the others that it is the second. */
static void two_stories_of_a_failed_sum(struct liar *l)
{
    begin_anew(l, 1, 1);
    liar_step_all(l, LIAR_OFFERED);
    l->retraining = 0;
    liar_begin(l, 1, 1, 2);
    liar_step(l, LIAR_OFFERED, 0);
    l->retraining = 1;
    for (uint32_t i = 1; i < 5; i++)
        liar_step(l, LIAR_OFFERED, i);
    for (int stage = LIAR_TRAINED; stage <= LIAR_SHARED; stage++)
        liar_step_all(l, (enum liar_stage)stage);
    mal_expect(!l->heard[0].has_shares, "a cohort of two stories is joined");
    lie_refused(l, 0, "");
}

static void not_fit(struct liar *l, enum fl_verdict verdict, const char *why)
{
    liar_step_all(l, LIAR_OFFERED);
    for (uint32_t i = 0; i < l->count; i++) {
        mal_expect(l->heard[i].has_fit && l->heard[i].fit.verdict == verdict &&
                       strstr(l->heard[i].fit.reason, why),
                   "site%u says %s", i, l->heard[i].fit.reason);
        liar_step(l, LIAR_TRAINED, i);
        mal_expect(l->mal.sites[i].trainings == 0, "site%u trains all the same", i);
    }
}

/* policy: max_retrainings = 1 */
static void more_failed_sums_than_allowed(struct liar *l)
{
    begin_anew(l, 1, 2);
    not_fit(l, FL_VERDICT_TEMPORARY, "policy: max_retrainings = 1, the sum of this round");
}

/* Nothing would be drawn: the delta would be the one that was summed. */
static void trained_anew_in_the_same_order(struct liar *l)
{
    l->spec->shuffle = false;
    begin_anew(l, 1, 1);
    not_fit(l, FL_VERDICT_PERMANENT, "neither the order of rows nor dropout");
}

/* What the rows' order does not change is not told twice. */
static void measured_anew(struct liar *l)
{
    struct fl_wire task;
    for (uint32_t variant = 0; variant < 2; variant++) {
        begin_anew(l, variant + 1, 1);
        liar_step(l, LIAR_OFFERED, variant);
        liar_fill_task(l, variant, &task);
        task.as.task.evaluate = true;
        if (variant == 1)
            task.as.task.train = task.as.task.train_b = false;
        tell(l, variant, &task);
        lie_refused(l, variant, "what is measured again would show single sites");
    }
}

/* A site whose delta does not follow the order of its rows, say because it has one row only. */
static void rigid_deltas(struct liar *l)
{
    for (uint32_t i = 0; i < l->count; i++)
        l->mal.sites[i].rigid = true;
    liar_go(l, LIAR_ANSWERED);
    begin_anew(l, 2, 1);
    again_without_one(l, "differencing");
}

/* The coordinator says other settings, and that it is the same job: the delta that is kept of the
   first must not pass for one of the second, which the ledger would hold for other work. */
static void kept_delta(struct liar *l)
{
    for (uint32_t variant = 0; variant < 4; variant++) {
        liar_begin(l, 1, 1, variant + 1);
        if (variant == 1)
            l->spec->lr = 0.06;
        else if (variant == 2)
            l->spec->seed = 77;
        else if (variant == 3)
            l->spec->clip_norm = 0.5;
        liar_go(l, LIAR_TRAINED);
        for (uint32_t i = 0; i < 5; i++)
            mal_expect(l->mal.sites[i].trainings == variant + 1,
                       "variant %u: a delta of other settings is used again", variant);
    }
    liar_begin(l, 1, 1, 9);
    liar_go(l, LIAR_TRAINED);
    mal_expect(l->mal.sites[0].trainings == 4, "the same work is done twice");
}

/* A site that died behind its ledger and before its answer has no secrets left to answer with. */
static void restarted_before_the_answer(struct liar *l)
{
    liar_go(l, LIAR_SIGNED);
    mal_kill(&l->mal.sites[0]);
    mal_start(&l->mal.sites[0]);
    liar_settle(l);
    liar_step(l, LIAR_OFFERED, 0);
    liar_step(l, LIAR_TRAINED, 0);
    liar_step(l, LIAR_ANSWERED, 0);
    refused_for_good(l, 0, "secrets lost");
    mal_expect(l->mal.sites[0].trainings == 1, "it trained again");
}

const struct lie lies_of_sums[] = {
    {"another_cohort", 5, "", "", another_cohort},
    {"another_layout", 5, "", "", another_layout},
    {"other_sharers", 5, "", "", other_sharers},
    {"one_bad_share", 5, "", "", one_bad_share},
    {"shares_of_another", 5, "", "", shares_of_another},
    {"second_update", 5, "", "", second_update},
    {"second_update_after_restart", 5, "", "", second_update_after_restart},
    {"earlier_attempt", 5, "", "", earlier_attempt},
    {"other_survivors", 5, "", "", other_survivors},
    {"sign_one_ask_another", 5, "", "", sign_one_ask_another},
    {"two_lists", 5, "", "", two_lists},
    {"split_lists", 5, "", "", split_lists},
    {"forged_signatures", 5, "", "", forged_signatures},
    {"asked_twice", 5, "", "", asked_twice},
    {"thin_tier", 5, "", "", thin_tier},
    {"next_attempt_without_one", 5, "", "", next_attempt_without_one},
    {"next_attempt_with_a_dropout", 5, "", "", next_attempt_with_a_dropout},
    {"another_guise", 5, "", "", another_guise},
    {"another_encoding", 5, "", "", another_encoding},
    {"another_rank", 5, "", "", another_rank},
    {"another_seed", 5, "", "", another_seed},
    {"same_sum_again", 5, "", "", same_sum_again},
    {"another_delta", 5, "", "", another_delta},
    {"another_name_for_a_delta", 5, "", "", another_name_for_a_delta},
    {"cohorts_that_differ_enough", 11, "", "[cohort]\nmin_workers = 3\n",
     cohorts_that_differ_enough},
    {"failed_sums_to_difference", 5, "", "", failed_sums_to_difference},
    {"old_answers_for_new_deltas", 5, "", "", old_answers_for_new_deltas},
    {"two_stories_of_a_failed_sum", 5, "", "", two_stories_of_a_failed_sum},
    {"more_failed_sums_than_allowed", 5, "max_retrainings = 1\n", "",
     more_failed_sums_than_allowed},
    {"trained_anew_in_the_same_order", 5, "", "", trained_anew_in_the_same_order},
    {"measured_anew", 5, "", "", measured_anew},
    {"rigid_deltas", 5, "", "", rigid_deltas},
    {"kept_delta", 5, "", "", kept_delta},
    {"restarted_before_the_answer", 5, "", "", restarted_before_the_answer},
    {NULL, 0, NULL, NULL, NULL},
};

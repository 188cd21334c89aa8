/*
 * malice_coordinator.c - what a lying coordinator can get out of real sites: each case is one lie,
 * and says which refusal it must meet, and that nothing left a site which would help to open an
 * update. Where theory allows the coordinator to go on, the case says so and shows what it gets.
 *
 * Not here: lists of an authority (tests/unit/worker/test_trust.c).
 */
#include <stdio.h>
#include <string.h>

#include "malice_cases.h"
#include "worker/trust_store.h"

/* ---- what a lie must meet ---- */

void lie_refused(struct liar *l, uint32_t site, const char *why)
{
    const struct liar_heard *heard = &l->heard[site];
    mal_expect(heard->failed, "%s does not refuse", l->mal.sites[site].name);
    mal_expect(!heard->failed || strstr(heard->failure.reason, why) != NULL,
               "%s refuses for another reason: %s", l->mal.sites[site].name, heard->failure.reason);
}

void lie_presses_on(struct liar *l, uint32_t site)
{
    struct liar_heard *heard = &l->heard[site];
    struct liar_heard before = *heard;
    heard->failed = false;
    for (int to = LIAR_KEYED; to < LIAR_STAGE_COUNT; to++)
        liar_step(l, (enum liar_stage)to, site);
    for (int to = LIAR_ANSWERED; to >= LIAR_KEYED; to--)
        liar_step(l, (enum liar_stage)to, site);
    mal_expect(heard->adverts == before.adverts && heard->sharings == before.sharings,
               "a site that refused goes on with masks");
    mal_expect(heard->updates == before.updates, "a site that refused sends another update");
    mal_expect(heard->signatures == before.signatures, "a site that refused signs");
    mal_expect(heard->answers == before.answers, "a site that refused answers");
    mal_expect(!heard->failed || heard->failure.code != FL_REFUSAL_NONE, "a failure without code");
}

/* It refused, stays refused whatever comes, and nobody helped to open anything. */
static void refused_for_good(struct liar *l, uint32_t site, const char *why)
{
    lie_refused(l, site, why);
    lie_presses_on(l, site);
    for (uint32_t i = 0; i < l->mal.count; i++)
        mal_expect(l->heard[i].answers == 0, "%s answered", l->mal.sites[i].name);
}

static void tell(struct liar *l, uint32_t site, struct fl_wire *message)
{
    liar_say(l, site, message);
    liar_settle(l);
}

static struct fl_secagg_advert advert_of(const struct liar *l, uint32_t site)
{
    struct fl_secagg_advert advert;
    mal_expect(fl_secagg_advert_decode(l->heard[site].advert, &advert) == FL_OK, "no advert");
    return advert;
}

static void put_advert(struct liar *l, uint32_t position, const struct fl_secagg_advert *advert)
{
    fl_secagg_advert_encode(advert, l->adverts + (size_t)position * FL_SECAGG_ADVERT_BYTES);
}

/* ---- the honest course, without which the refusals below would show nothing ---- */

static void honest(struct liar *l)
{
    liar_go(l, LIAR_ANSWERED);
    for (uint32_t i = 0; i < l->count; i++) {
        const struct liar_heard *heard = &l->heard[i];
        mal_expect(heard->updates == 1 && heard->answers == 1 && heard->signatures == 1,
                   "site%u: %u updates, %u answers", i, heard->updates, heard->answers);
        mal_expect(!liar_reads(l, i), "site%u's update shows through its masks", i);
    }
    mal_expect(liar_open_sum(l), "the sum of all does not open");
}

/* One that never uploads is a dropout, and the sum of the others opens. */
static void honest_with_a_dropout(struct liar *l)
{
    liar_go(l, LIAR_SHARED);
    for (uint32_t i = 0; i < 4; i++)
        liar_step(l, LIAR_UPLOADED, i);
    l->survives[4] = false;
    for (int to = LIAR_SIGNED; to <= LIAR_ANSWERED; to++) {
        for (uint32_t i = 0; i < 4; i++)
            liar_step(l, (enum liar_stage)to, i);
    }
    mal_expect(liar_open_sum(l), "the sum of the survivors does not open");
    mal_expect(l->heard[4].answers == 0 && l->heard[4].updates == 0, "the dropout spoke");
}

/* ---- lies in the list of members ---- */

static void substituted_key(struct liar *l)
{
    struct fl_wire message;
    liar_go(l, LIAR_KEYED);
    liar_fill_cohort(l, &message);
    struct fl_secagg_advert advert = advert_of(l, 1);
    memset(advert.mask_key, 9, FL_KEY_BYTES);
    put_advert(l, 1, &advert);
    tell(l, 0, &message);
    refused_for_good(l, 0, "the keys of 'site1' are not signed by it");
}

/* An advert of the coordinator's own making, in a site's name or in one of its own. */
static struct fl_secagg_advert forge(struct liar *l, const char *name)
{
    struct fl_keys *keys = NULL;
    struct fl_secagg_site *site = NULL;
    struct fl_secagg_advert advert = advert_of(l, 1);
    uint8_t ranks[FL_HASH_BYTES];
    memcpy(ranks, advert.ranks, FL_HASH_BYTES);
    if (fl_keys_generate(fl_entropy_system(), &keys) == FL_OK &&
        fl_secagg_site_create(&l->context, name, ranks, keys, fl_entropy_system(), &site) == FL_OK)
        advert = *fl_secagg_site_advert(site);
    else
        mal_expect(false, "no forgery");
    fl_secagg_site_destroy(&site);
    fl_keys_destroy(&keys);
    return advert;
}

static void swapped_identity(struct liar *l)
{
    struct fl_wire message;
    liar_go(l, LIAR_ANSWERED); /* its partners are known now */
    liar_begin(l, 1, 2, 1);
    liar_go(l, LIAR_KEYED);
    liar_fill_cohort(l, &message);
    struct fl_secagg_advert advert = forge(l, "site1");
    put_advert(l, 1, &advert);
    tell(l, 0, &message);
    lie_refused(l, 0, "roster: 'site1' has another key than when it was first met");
    lie_presses_on(l, 0);
}

/* Theory: who believes at first use believes a coordinator that lies from the start. */
static void swapped_from_the_start(struct liar *l)
{
    struct fl_wire message;
    liar_go(l, LIAR_KEYED);
    liar_fill_cohort(l, &message);
    struct fl_secagg_advert advert = forge(l, "site1");
    put_advert(l, 1, &advert);
    tell(l, 0, &message);
    mal_expect(!l->heard[0].failed && l->heard[0].has_shares,
               "first use cannot know better: say what protects now, and change this test");
}

static void pin_partners(struct liar *l, uint32_t of, uint32_t last)
{
    struct fl_error error = {FL_OK, ""};
    for (uint32_t i = 0; i <= last; i++)
        mal_expect(fl_trust_store_pin(l->mal.sites[of].directory, l->mal.sites[i].name,
                                      &l->mal.sites[i].identity, NULL, &error) == FL_OK,
                   "no pin: %s", error.text);
}

/* Three of seven are pinned: the four strangers hold the list's majority that signatures need. */
static void a_third_are_strangers(struct liar *l)
{
    pin_partners(l, 0, 3);
    liar_go(l, LIAR_KEYED);
    liar_step(l, LIAR_SHARED, 0);
    refused_for_good(l, 0, "roster: ");
}

/* The cohort has enough members that are known, but who is left of it has not. */
static void survivors_are_strangers(struct liar *l)
{
    pin_partners(l, 0, 2);
    for (uint32_t i = 1; i < 4; i++)
        pin_partners(l, i, 3);
    liar_go(l, LIAR_SHARED);
    mal_expect(l->heard[0].has_shares, "a cohort with three pinned members is refused: %s",
               l->heard[0].failure.reason);
    liar_step_all(l, LIAR_UPLOADED);
    l->survives[2] = false;
    liar_step(l, LIAR_SIGNED, 0);
    refused_for_good(l, 0, "roster: ");
}

static void replayed_advert(struct liar *l)
{
    uint8_t old[FL_SECAGG_ADVERT_BYTES];
    struct fl_wire message;
    liar_go(l, LIAR_KEYED);
    memcpy(old, l->heard[1].advert, sizeof(old));
    liar_begin(l, 1, 1, 2);
    liar_go(l, LIAR_KEYED);
    liar_fill_cohort(l, &message);
    memcpy(l->adverts + FL_SECAGG_ADVERT_BYTES, old, sizeof(old));
    tell(l, 0, &message);
    refused_for_good(l, 0, "the keys of 'site1' are not signed by it");
}

static void replayed_own_advert(struct liar *l)
{
    uint8_t old[FL_SECAGG_ADVERT_BYTES];
    liar_go(l, LIAR_KEYED);
    memcpy(old, l->heard[0].advert, sizeof(old));
    mal_kill(&l->mal.sites[0]);
    mal_start(&l->mal.sites[0]);
    liar_settle(l);
    for (int to = LIAR_OFFERED; to <= LIAR_KEYED; to++)
        liar_step(l, (enum liar_stage)to, 0);
    mal_expect(memcmp(old, l->heard[0].advert, sizeof(old)) != 0, "a new life has the old keys");
    memcpy(l->heard[0].advert, old, sizeof(old));
    liar_step(l, LIAR_SHARED, 0);
    refused_for_good(l, 0, "the cohort's list has other keys for this site");
}

static void without_itself(struct liar *l)
{
    struct fl_wire message;
    liar_go(l, LIAR_KEYED);
    liar_leave_out(l, 0);
    liar_fill_cohort(l, &message);
    tell(l, 0, &message);
    refused_for_good(l, 0, "the cohort's list has other keys for this site");
}

static void changed_itself(struct liar *l)
{
    struct fl_wire message;
    liar_go(l, LIAR_KEYED);
    liar_fill_cohort(l, &message);
    struct fl_secagg_advert advert = advert_of(l, 0);
    advert.seed_commitment[0] ^= 1;
    put_advert(l, 0, &advert);
    tell(l, 0, &message);
    refused_for_good(l, 0, "the keys of 'site0' are not signed by it");
}

static void too_few(struct liar *l)
{
    liar_go(l, LIAR_KEYED);
    liar_leave_out(l, 4);
    liar_leave_out(l, 3);
    liar_leave_out(l, 2);
    liar_step(l, LIAR_SHARED, 0);
    refused_for_good(l, 0, "a cohort of 2 sites, at least 3 are demanded here");
}

/* The job (min_workers = 5) or the site (min_cohort = 4, and the job's 4) demands more than 3. */
static void fewer_than_demanded(struct liar *l)
{
    liar_go(l, LIAR_KEYED);
    liar_leave_out(l, 4);
    if (l->spec->min_workers < 5)
        liar_leave_out(l, 3);
    liar_step(l, LIAR_SHARED, 0);
    refused_for_good(l, 0, "are demanded here");
}

static void twice_in_the_list(struct liar *l)
{
    struct fl_wire message;
    liar_go(l, LIAR_KEYED);
    liar_fill_cohort(l, &message);
    struct fl_secagg_advert advert = advert_of(l, 1);
    put_advert(l, 2, &advert);
    tell(l, 0, &message);
    refused_for_good(l, 0, "the cohort has 'site1' twice");
}

/* A sybil that owns nothing but a copy of site1's commitment. */
static void a_key_in_common(struct liar *l)
{
    struct fl_wire message;
    liar_go(l, LIAR_KEYED);
    liar_fill_cohort(l, &message);
    struct fl_secagg_advert sybil = forge(l, "site2"), owner = advert_of(l, 1);
    memcpy(sybil.seed_commitment, owner.seed_commitment, FL_HASH_BYTES);
    put_advert(l, 2, &sybil);
    tell(l, 0, &message);
    refused_for_good(l, 0, "'site2' and 'site1' have a key in common");
}

static void no_proper_name(struct liar *l)
{
    struct fl_wire message;
    liar_go(l, LIAR_KEYED);
    liar_fill_cohort(l, &message);
    memset(l->adverts + 2 * FL_SECAGG_ADVERT_BYTES, 0xff, FL_NAME_BYTES);
    tell(l, 0, &message);
    refused_for_good(l, 0, "without a proper name");
}

/* Each site is shown another list: nobody sees it then, and nothing fits together later. */
static void lists_that_differ(struct liar *l)
{
    liar_go(l, LIAR_KEYED);
    for (uint32_t i = 1; i < 5; i++)
        liar_step(l, LIAR_SHARED, i);
    liar_leave_out(l, 4);
    liar_step(l, LIAR_SHARED, 0);
    mal_expect(l->heard[0].has_shares, "a list of four is a list");
    liar_step(l, LIAR_UPLOADED, 0);
    refused_for_good(l, 0, "shares of 1 sites came and opened, 3 are needed");
    mal_expect(l->heard[0].updates == 0, "an update left");
}

static void list_twice(struct liar *l)
{
    liar_go(l, LIAR_SHARED);
    liar_leave_out(l, 4);
    liar_step(l, LIAR_SHARED, 0);
    mal_expect(l->heard[0].sharings == 1 && l->heard[0].shares_bytes == 5 * LIAR_SHARE_BYTES,
               "secrets were shared in two cohorts");
}

static void ranks_that_nobody_signed(struct liar *l)
{
    struct fl_wire message;
    liar_go(l, LIAR_KEYED);
    l->ranks[1] = 2;
    liar_fill_cohort(l, &message);
    tell(l, 0, &message);
    refused_for_good(l, 0, "'site1' has not signed the ranks that it is said to train");
}

static void ranks_that_cannot_be_read(struct liar *l)
{
    struct fl_wire message;
    liar_go(l, LIAR_KEYED);
    liar_fill_cohort(l, &message);
    message.as.cohort.plan.length -= 3;
    tell(l, 0, &message);
    refused_for_good(l, 0, "cannot be read");
}

/* ---- one site is told something else than the others ---- */

#define OTHER_GLOBAL_RANKS 3

static void tell_apart(struct liar *l, uint32_t variant, struct fl_wire *offer,
                       struct fl_wire *task)
{
    struct fl_wire_offer *o = &offer->as.offer;
    struct fl_wire_task *t = &task->as.task;
    switch (variant) {
    case 0:
        memcpy(t->start.root, l->start_root[1], FL_HASH_BYTES);
        break;
    case 1:
        o->manifest[0] ^= 1;
        break;
    case 2:
        o->lr = 0.06;
        break;
    case OTHER_GLOBAL_RANKS:
        l->global_ranks[0] = 5;
        break;
    case 4:
        o->min_workers = 4;
        break;
    case 5:
        t->total_steps += 1;
        break;
    case 6:
        o->update_range = 0.25;
        break;
    case 7:
        o->weight_cap = 3;
        break;
    case 8:
        t->version_hash[0] ^= 1;
        break;
    case 9:
        t->train_a = true;
        break;
    default:
        o->job_hash[0] ^= 1;
        break;
    }
}
#define VARIANTS 11

static void told_apart(struct liar *l)
{
    for (uint32_t variant = 0; variant < VARIANTS; variant++) {
        struct fl_wire offer, task;
        liar_begin(l, 1, 1, variant + 1);
        for (int to = LIAR_OFFERED; to <= LIAR_KEYED; to++) {
            for (uint32_t i = 0; i < 4; i++)
                liar_step(l, (enum liar_stage)to, i);
        }
        liar_fill_offer(l, 4, &offer);
        liar_fill_task(l, 4, &task);
        tell_apart(l, variant, &offer, &task);
        tell(l, 4, &offer);
        tell(l, 4, &task);
        liar_step(l, LIAR_KEYED, 4);
        if (variant == OTHER_GLOBAL_RANKS) { /* the start that it fetches has the true ones */
            lie_refused(l, 4, "has another type or shape");
            continue;
        }
        mal_expect(l->heard[4].has_advert, "variant %u: site4 makes no keys: %s", variant,
                   l->heard[4].failure.reason);
        liar_step_all(l, LIAR_SHARED);
        for (uint32_t i = 0; i < 4; i++)
            lie_refused(l, i, "the keys of 'site4' are not signed by it");
        lie_refused(l, 4, "are not signed by it");
        for (uint32_t i = 0; i < 5; i++)
            mal_expect(l->heard[i].updates == 0, "variant %u: an update left", variant);
    }
}

/* ---- jobs without masks, and steps left out ---- */

static void plain_offer(struct liar *l)
{
    struct fl_wire offer;
    uint32_t trainings = l->mal.sites[0].trainings;
    liar_fill_offer(l, 0, &offer);
    offer.as.offer.secure_aggregation = false;
    tell(l, 0, &offer);
    mal_expect(l->heard[0].fit.verdict == FL_VERDICT_PERMANENT &&
                   strstr(l->heard[0].fit.reason, "require_secure_aggregation") != NULL,
               "an offer without masks is taken: %s", l->heard[0].fit.reason);
    for (int to = LIAR_TRAINED; to < LIAR_STAGE_COUNT; to++)
        liar_step(l, (enum liar_stage)to, 0);
    mal_expect(l->mal.sites[0].trainings == trainings && l->heard[0].updates == 0,
               "it works all the same");
}

/* The offer is exchanged for one without masks: before the task, behind it, and after the end. */
static void plain_offer_instead(struct liar *l)
{
    struct fl_wire offer, end = {.kind = FL_WIRE_JOB_END};
    for (int stage = LIAR_OFFERED; stage <= LIAR_SHARED; stage++) {
        liar_begin(l, 1, 1, (uint32_t)stage + 1);
        liar_go(l, (enum liar_stage)stage);
        liar_fill_offer(l, 0, &offer);
        offer.as.offer.secure_aggregation = false;
        tell(l, 0, &offer);
        for (int to = LIAR_TRAINED; to <= LIAR_TRAINED; to++)
            liar_step(l, (enum liar_stage)to, 0);
        struct fl_wire collect;
        liar_fill_collect(l, 0, &collect);
        collect.as.collect.tiers = (struct fl_wire_bytes){(const uint8_t *)"\1", 1};
        collect.as.collect.sharers.length = collect.as.collect.shares.length = 0;
        tell(l, 0, &collect);
        mal_expect(l->heard[0].updates == 0, "stage %d: an update left without masks", stage);
    }
    end = liar_about(l, FL_WIRE_JOB_END);
    tell(l, 0, &end);
    plain_offer(l);
}

static void collect_without_keys(struct liar *l)
{
    liar_go(l, LIAR_TRAINED);
    liar_step(l, LIAR_UPLOADED, 0);
    refused_for_good(l, 0, "secrets lost");
    mal_expect(l->heard[0].updates == 0 && l->heard[0].chunks == 0, "an update left");
}

static void collect_without_shares(struct liar *l)
{
    liar_go(l, LIAR_KEYED);
    liar_step_all(l, LIAR_UPLOADED);
    for (uint32_t i = 0; i < l->count; i++)
        mal_expect(l->heard[i].updates == 0, "an update left before the cohort was known");
    refused_for_good(l, 0, "secrets lost"); /* as if another process with its key had shared */
    liar_step_all(l, LIAR_SHARED);
    liar_step_all(l, LIAR_UPLOADED);
    mal_expect(l->heard[0].updates == 0, "an update left of an attempt that it has failed in");
}

const struct lie lies_of_lists[] = {
    {"honest", 5, "", "", honest},
    {"honest_with_a_dropout", 5, "", "", honest_with_a_dropout},
    {"substituted_key", 5, "", "", substituted_key},
    {"swapped_identity", 5, "", "", swapped_identity},
    {"swapped_from_the_start", 5, "", "", swapped_from_the_start},
    {"a_third_are_strangers", 8, "roster = pinned\n", "", a_third_are_strangers},
    {"survivors_are_strangers", 4, "roster = pinned\n", "", survivors_are_strangers},
    {"replayed_advert", 5, "", "", replayed_advert},
    {"replayed_own_advert", 5, "", "", replayed_own_advert},
    {"without_itself", 5, "", "", without_itself},
    {"changed_itself", 5, "", "", changed_itself},
    {"too_few", 5, "", "", too_few},
    {"fewer_than_the_job_demands", 5, "", "[cohort]\nmin_workers = 5\n", fewer_than_demanded},
    {"fewer_than_the_site_demands", 5, "min_cohort = 4\n", "[cohort]\nmin_workers = 4\n",
     fewer_than_demanded},
    {"twice_in_the_list", 5, "", "", twice_in_the_list},
    {"a_key_in_common", 5, "", "", a_key_in_common},
    {"no_proper_name", 5, "", "", no_proper_name},
    {"lists_that_differ", 5, "", "", lists_that_differ},
    {"list_twice", 5, "", "", list_twice},
    {"ranks_that_nobody_signed", 5, "", "", ranks_that_nobody_signed},
    {"ranks_that_cannot_be_read", 5, "", "", ranks_that_cannot_be_read},
    {"told_apart", 5, "", "", told_apart},
    {"plain_offer", 3, "", "", plain_offer},
    {"plain_offer_instead", 4, "", "", plain_offer_instead},
    {"collect_without_keys", 5, "", "", collect_without_keys},
    {"collect_without_shares", 5, "", "", collect_without_shares},
    {NULL, 0, NULL, NULL, NULL},
};

/* ---- running them ---- */

static void run(const struct lie *lie)
{
    static struct liar liar;
    mal_case(lie->name);
    if (liar_open(&liar, lie->sites, lie->policy, lie->job))
        lie->tell(&liar);
    else
        mal_expect(false, "no sites");
    liar_close(&liar);
}

int main(int argc, char **argv)
{
    const struct lie *const tables[] = {lies_of_lists, lies_of_sums, lies_of_order};
    unsigned count = 0;
    if (!mal_init())
        return 1;
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        for (const struct lie *lie = tables[i]; lie->name; lie++) {
            if (argc > 1 && strcmp(argv[1], lie->name) != 0)
                continue;
            run(lie);
            count++;
        }
    }
    (void)printf("%u cases, %u expectations failed\n", count, mal_failures());
    return mal_failures() > 0 || count == 0;
}

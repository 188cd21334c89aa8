/* recall_rules.c - the pure part of recall.h: who is ahead, what is confirmed, what follows. */
#include <string.h>

#include "base/alloc.h"
#include "coordinator/recall.h"
#include "job/attempt.h"

#define ATTEMPTS_MOST 1000000000u

bool fl_recall_is_ahead(const struct fl_standing *own, uint32_t round, uint32_t attempt,
                        bool unknown_version)
{
    if (round == 0 || round > own->rounds + 1 || attempt > ATTEMPTS_MOST)
        return false; /* nothing, or nonsense */
    if (own->settled) /* what was seen in an earlier life was decided upon */
        return fl_attempt_life(attempt) >= fl_attempt_life(own->attempt) &&
               fl_attempt_before(own->round, own->attempt, round, attempt);
    if (round > own->round || unknown_version)
        return true;
    /* a copy has not begun its attempt yet: who saw it saw that of an earlier copy */
    return round == own->round &&
           (attempt > own->attempt || (own->restored && attempt == own->attempt));
}

/* How many sites give that hash for that version; each has one claim a version at most. */
static uint32_t support(const struct fl_claim *claims, uint32_t count, const struct fl_claim *of)
{
    uint32_t sites = 0;
    for (uint32_t i = 0; i < count; i++)
        sites += claims[i].version == of->version &&
                 memcmp(claims[i].sha256, of->sha256, FL_HASH_BYTES) == 0;
    return sites;
}

const struct fl_claim *fl_recall_confirmed(const struct fl_claim *claims, uint32_t count,
                                           uint32_t version)
{
    const struct fl_claim *best = NULL;
    uint32_t most = 1;
    bool draw = false;
    for (uint32_t i = 0; i < count; i++) {
        if (claims[i].version != version)
            continue;
        uint32_t sites = support(claims, count, &claims[i]);
        if (sites > most) {
            best = &claims[i];
            most = sites;
            draw = false;
        } else if (best && sites == most &&
                   memcmp(best->sha256, claims[i].sha256, FL_HASH_BYTES) != 0)
            draw = true;
    }
    return draw ? NULL : best;
}

enum fl_recall_verdict fl_recall_judge(const struct fl_claim *claims, uint32_t count, uint32_t own,
                                       bool certain, bool contradicted, uint32_t *version)
{
    uint32_t confirmed = own, claimed = own, claimant = 0;
    bool lone = true;
    for (uint32_t i = 0; i < count; i++) {
        if (claims[i].version <= own)
            continue;
        lone = lone && (claimed == own || claims[i].site == claimant);
        claimant = claims[i].site;
        if (claims[i].version > claimed)
            claimed = claims[i].version;
        if (claims[i].version > confirmed && fl_recall_confirmed(claims, count, claims[i].version))
            confirmed = claims[i].version;
    }
    *version = confirmed > own ? confirmed : claimed;
    if (confirmed > own)
        return FL_RECALL_TAKE;
    if (claimed == own || (lone && contradicted && !certain))
        return FL_RECALL_LEVEL;
    return FL_RECALL_ASK;
}

uint32_t fl_recall_floor(const struct fl_standing *own, const struct fl_witness *witnesses,
                         uint32_t count, uint32_t *lone)
{
    uint32_t highest = 0, second = 0;
    *lone = own->lone;
    for (uint32_t i = 0; i < count; i++) {
        const struct fl_witness *w = &witnesses[i];
        if (!fl_recall_is_ahead(own, w->round, w->attempt, false))
            continue;
        if (w->attempt >= highest) {
            second = highest;
            highest = w->attempt;
        } else if (w->attempt > second)
            second = w->attempt;
    }
    uint32_t floor = own->floor > second ? own->floor : second;
    uint32_t from = floor > own->attempt ? floor : own->attempt;
    if (highest <= from)
        return highest > floor ? highest : floor;
    uint32_t allowed = own->lone < FL_RECALL_LONE_MOST ? FL_RECALL_LONE_MOST - own->lone : 0;
    uint32_t raised = highest - from < allowed ? highest - from : allowed;
    *lone += raised;
    return raised > 0 ? from + raised : floor;
}

uint32_t fl_recall_next_attempt(uint32_t attempt, uint32_t floor)
{
    return attempt > floor ? attempt : fl_attempt_next_life(floor);
}

void fl_recall_dismissed_free(struct fl_dismissed *self)
{
    fl_free(self->sites.items);
    *self = (struct fl_dismissed){.job = 0};
}

bool fl_recall_is_dismissed(const struct fl_dismissed *self, int64_t job, uint32_t site)
{
    const uint32_t *sites = self->sites.items;
    for (uint32_t i = 0; self->job == job && i < self->sites.count; i++) {
        if (sites[i] == site)
            return true;
    }
    return false;
}

void fl_recall_dismiss(struct fl_dismissed *self, int64_t job, uint32_t site)
{
    if (fl_recall_is_dismissed(self, job, site))
        return;
    if (self->job != job)
        fl_recall_dismissed_free(self);
    self->job = job;
    self->sites.item_bytes = sizeof site;
    (void)!fl_list_append(&self->sites, &site);
}

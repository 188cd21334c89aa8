/*
 * trust.c - see trust.h. What a site knows is loaded at each check; the rules are one after
 * another, and the first that refuses is told.
 */
#include "worker/trust.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/name.h"
#include "worker/trust_store.h"

#define REFUSES_ALL "so no cohort is joined"

struct fl_trust {
    char site[FL_PATH_BYTES];
    const struct fl_siteconf *conf;
    uint8_t own[FL_KEY_BYTES];
    pthread_mutex_t mutex; /* holds what follows, which any thread may ask for */
    enum fl_trust_standing standing;
    char text[FL_TRUST_TEXT_BYTES];
};

/* What the files say; the list or the memory only where the mode asks for it. */
struct knowledge {
    struct fl_partners pins, memory;
    struct fl_member_list list;
    enum fl_status status; /* of reading them */
    struct fl_error error;
};

struct cohort {
    const struct fl_secagg_advert *adverts; /* (count) */
    uint32_t count;
    bool verified[FL_COHORT_MAX];
    bool known[FL_COHORT_MAX]; /* of known_sites, by another way than the coordinator's word */
};

/* settle: as for fl_trust_store_list() */
static void learn(const struct fl_trust *self, bool settle, struct knowledge *out)
{
    memset(out, 0, sizeof(*out));
    out->status = fl_partners_load(self->site, FL_PARTNERS_PINNED, &out->pins, &out->error);
    if (out->status != FL_OK)
        return;
    if (self->conf->roster == FL_ROSTER_AUTHORITY)
        out->status = fl_trust_store_list(self->site, self->conf->authority, settle, &out->list,
                                          &out->error);
    else if (self->conf->roster == FL_ROSTER_FIRST_USE)
        out->status = fl_partners_load(self->site, FL_PARTNERS_FIRST_USE, &out->memory,
                                       &out->error);
    if (out->status == FL_ENOTFOUND)
        (void)fl_fail(&out->error, FL_ENOTFOUND,
                      "no list of the authority is taken yet: `fedlora-worker roster accept FILE "
                      "--dir SITE`");
}

static void forget(struct knowledge *self)
{
    fl_partners_free(&self->pins);
    fl_partners_free(&self->memory);
    fl_member_list_free(&self->list);
}

static bool is_own(const struct fl_trust *self, const uint8_t key[FL_KEY_BYTES])
{
    return memcmp(self->own, key, FL_KEY_BYTES) == 0;
}

static bool is_known(const struct fl_trust *self, const char *name)
{
    return fl_list_matches(self->conf->known_sites, name);
}

static const struct fl_member *find_member(const struct fl_member_list *list,
                                           const uint8_t key[FL_KEY_BYTES])
{
    for (uint32_t i = 0; i < list->count; i++) {
        if (memcmp(list->members[i].identity.ed25519, key, FL_KEY_BYTES) == 0)
            return &list->members[i];
    }
    return NULL;
}

/* ---- the statement ---- */

static void state(struct fl_trust *self, enum fl_trust_standing standing, const char *format, ...)
    FL_PRINTF(3, 4);

static void state(struct fl_trust *self, enum fl_trust_standing standing, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)pthread_mutex_lock(&self->mutex);
    self->standing = standing;
    vsnprintf(self->text, sizeof(self->text), format, args);
    (void)pthread_mutex_unlock(&self->mutex);
    va_end(args);
}

/* The fewest members of any cohort that this site would join. */
static uint64_t smallest_cohort(const struct fl_trust *self)
{
    return self->conf->min_cohort > FL_SECAGG_SITES_MIN ? self->conf->min_cohort
                                                        : FL_SECAGG_SITES_MIN;
}

/* `members` and `known` can be verified, this site among the first. What is too few, into text. */
static bool are_enough(const struct fl_trust *self, uint64_t members, uint64_t known, char *text,
                       size_t bytes)
{
    if (members < smallest_cohort(self))
        snprintf(text, bytes, "a cohort needs %" PRIu64 " with this site", smallest_cohort(self));
    else if (known < self->conf->min_known)
        snprintf(text, bytes, "min_known = %" PRIu64 ", but %" PRIu64 " of known_sites are there",
                 self->conf->min_known, known);
    else
        return true;
    return false;
}

static void state_authority(struct fl_trust *self, const struct knowledge *k)
{
    char digits[FL_FINGERPRINT_TEXT_BYTES], base[160], lack[160];
    const struct fl_member *own = find_member(&k->list, self->own);
    const uint32_t revoked = fl_member_list_revoked(&k->list);
    uint64_t known = 0;
    for (uint32_t i = 0; i < k->list.count; i++) {
        const struct fl_member *m = &k->list.members[i];
        known += !m->revoked && !is_own(self, m->identity.ed25519) && is_known(self, m->name);
    }
    fl_authority_fingerprint(self->conf->authority, digits);
    snprintf(base, sizeof(base), "authority %s, list %" PRIu64 ": %u members, %u revoked", digits,
             k->list.number, k->list.count - revoked, revoked);
    if (!own || own->revoked)
        state(self, FL_TRUST_MISSING, "%s; this site is %s, " REFUSES_ALL, base,
              own ? "revoked in it" : "not in it");
    else if (!are_enough(self, k->list.count - revoked, known, lack, sizeof(lack)))
        state(self, FL_TRUST_MISSING, "%s; %s, " REFUSES_ALL, base, lack);
    else
        state(self, FL_TRUST_ROOTED, "%s", base);
}

/* Pinned partners, and how many of them are in known_sites. */
static uint32_t count_pins(const struct fl_trust *self, const struct knowledge *k, uint64_t *known)
{
    uint32_t partners = 0;
    *known = 0;
    for (uint32_t i = 0; i < k->pins.count; i++) {
        const bool other = !is_own(self, k->pins.rows[i].identity.ed25519);
        partners += other;
        *known += other && is_known(self, k->pins.rows[i].name);
    }
    return partners;
}

static void state_pinned(struct fl_trust *self, const struct knowledge *k)
{
    char lack[160];
    uint64_t known;
    const uint32_t partners = count_pins(self, k, &known);
    if (are_enough(self, (uint64_t)partners + 1, known, lack, sizeof(lack)))
        state(self, FL_TRUST_ROOTED,
              "%u pinned partners; with this site only they count in a cohort", partners);
    else
        state(self, FL_TRUST_MISSING,
              "%u pinned partners; %s, " REFUSES_ALL
              ": `fedlora-worker roster pin NAME IDENTITY --dir SITE`",
              partners, lack);
}

static void state_first_use(struct fl_trust *self, const struct knowledge *k)
{
    uint64_t known;
    (void)count_pins(self, k, &known);
    if (known < self->conf->min_known)
        state(self, FL_TRUST_MISSING,
              "min_known = %" PRIu64 ", but %" PRIu64
              " of known_sites are there, pinned, " REFUSES_ALL
              ": `fedlora-worker roster pin NAME IDENTITY --dir SITE`",
              self->conf->min_known, known);
    else
        state(self, FL_TRUST_FIRST_USE,
              "no authority key is pinned: secure aggregation protects against a curious "
              "coordinator only (first use: %u partners remembered, %u pinned)",
              k->memory.count, k->pins.count);
}

static void restate(struct fl_trust *self, const struct knowledge *k)
{
    static const char *const names[] = {
        [FL_ROSTER_AUTHORITY] = "authority ",
        [FL_ROSTER_PINNED] = "pinned partners",
        [FL_ROSTER_FIRST_USE] = "first use",
    };
    char digits[FL_FINGERPRINT_TEXT_BYTES] = "";
    if (self->conf->roster == FL_ROSTER_AUTHORITY)
        fl_authority_fingerprint(self->conf->authority, digits);
    if (k->status != FL_OK)
        state(self, FL_TRUST_MISSING, "%s%s: " REFUSES_ALL ": %.300s", names[self->conf->roster],
              digits, k->error.text);
    else if (self->conf->roster == FL_ROSTER_AUTHORITY)
        state_authority(self, k);
    else if (self->conf->roster == FL_ROSTER_PINNED)
        state_pinned(self, k);
    else
        state_first_use(self, k);
}

enum fl_trust_standing fl_trust_describe(struct fl_trust *self, char *text)
{
    (void)pthread_mutex_lock(&self->mutex);
    const enum fl_trust_standing standing = self->standing;
    memcpy(text, self->text, sizeof(self->text));
    (void)pthread_mutex_unlock(&self->mutex);
    return standing;
}

/* ---- life ---- */

enum fl_status fl_trust_open(const char *site, const struct fl_siteconf *conf,
                             const uint8_t own[FL_KEY_BYTES], struct fl_trust **out,
                             struct fl_error *error)
{
    struct knowledge known;
    *out = NULL;
    if (strlen(site) >= FL_PATH_BYTES)
        return fl_fail(error, FL_ERANGE, "the path of the site is too long");
    struct fl_trust *self = fl_calloc(1, sizeof(*self));
    if (!self || pthread_mutex_init(&self->mutex, NULL) != 0) {
        fl_free(self);
        return fl_fail_memory(error);
    }
    memcpy(self->site, site, strlen(site) + 1);
    self->conf = conf;
    memcpy(self->own, own, FL_KEY_BYTES);
    learn(self, false, &known);
    restate(self, &known);
    const bool refused = known.status == FL_ENOMEM;
    forget(&known);
    if (refused) {
        fl_trust_close(&self);
        return fl_fail_memory(error);
    }
    *out = self;
    return FL_OK;
}

void fl_trust_close(struct fl_trust **self)
{
    if (!*self)
        return;
    (void)pthread_mutex_destroy(&(*self)->mutex);
    fl_free(*self);
    *self = NULL;
}

/* ---- the rules ---- */

/* The list is sound in itself, and this site is in it. */
static enum fl_status check_list(const struct fl_trust *self, const struct cohort *cohort,
                                 struct fl_error *error)
{
    bool here = false;
    if (cohort->count > FL_COHORT_MAX)
        return fl_fail(error, FL_EREFUSED, "%u members; at most %d can be", cohort->count,
                       FL_COHORT_MAX);
    for (uint32_t i = 0; i < cohort->count; i++) {
        const struct fl_secagg_advert *a = &cohort->adverts[i];
        if (!memchr(a->name, '\0', sizeof(a->name)) || !fl_name_is_valid(a->name))
            return fl_fail(error, FL_EREFUSED, "member %u has no valid name", i + 1);
        here = here || is_own(self, a->identity);
        for (uint32_t k = 0; k < i; k++) {
            if (strcmp(a->name, cohort->adverts[k].name) == 0)
                return fl_fail(error, FL_EREFUSED, "two members are called '%s'", a->name);
            if (memcmp(a->identity, cohort->adverts[k].identity, FL_KEY_BYTES) == 0)
                return fl_fail(error, FL_EREFUSED, "'%s' and '%s' have the same key",
                               cohort->adverts[k].name, a->name);
        }
    }
    return here ? FL_OK : fl_fail(error, FL_EREFUSED, "this site is not a member");
}

/* *pinned: the member's name and key are a pin. FL_EREFUSED: they contradict one. */
static enum fl_status check_pin(const struct knowledge *k, const struct fl_secagg_advert *member,
                                bool *pinned, struct fl_error *error)
{
    const struct fl_partner *pin = fl_partners_find(&k->pins, member->name);
    *pinned = pin && memcmp(pin->identity.ed25519, member->identity, FL_KEY_BYTES) == 0;
    if (pin && !*pinned)
        return fl_fail(error, FL_EREFUSED,
                       "'%s' has another key than the one pinned for it; if it has new ones, "
                       "`roster unpin %s`",
                       member->name, member->name);
    pin = fl_partners_find_key(&k->pins, member->identity);
    if (pin && !*pinned)
        return fl_fail(error, FL_EREFUSED, "'%s' has the key that is pinned for '%s'", member->name,
                       pin->name);
    return FL_OK;
}

static enum fl_status check_member(const struct fl_member_list *list,
                                   const struct fl_secagg_advert *member, struct fl_error *error)
{
    const struct fl_member *row = fl_member_list_find(list, member->name);
    const struct fl_member *owner = find_member(list, member->identity);
    if (row && row == owner && !row->revoked)
        return FL_OK;
    if (row && row == owner)
        return fl_fail(error, FL_EREFUSED, "'%s' is revoked in list %" PRIu64, member->name,
                       list->number);
    if (owner)
        return fl_fail(error, FL_EREFUSED, "'%s' has the key that list %" PRIu64 " gives to '%s'",
                       member->name, list->number, owner->name);
    if (row)
        return fl_fail(error, FL_EREFUSED, "'%s' has another key than list %" PRIu64 " gives it",
                       member->name, list->number);
    return fl_fail(error, FL_EREFUSED, "'%s' is not in list %" PRIu64, member->name, list->number);
}

/* A name that is new is taken into the memory, which the caller saves when all else is well. */
static enum fl_status check_memory(struct knowledge *k, const struct fl_secagg_advert *member,
                                   struct fl_error *error)
{
    struct fl_identity identity = {{0}, {0}};
    const struct fl_partner *row = fl_partners_find(&k->memory, member->name);
    const struct fl_partner *owner = fl_partners_find_key(&k->memory, member->identity);
    if (row && row == owner)
        return FL_OK;
    if (row)
        return fl_fail(error, FL_EREFUSED,
                       "'%s' has another key than when it was first met; if it has new ones, "
                       "`roster unpin %s`",
                       member->name, member->name);
    if (owner)
        return fl_fail(error, FL_EREFUSED, "'%s' has the key that was first met as '%s'",
                       member->name, owner->name);
    memcpy(identity.ed25519, member->identity, FL_KEY_BYTES);
    const enum fl_status status = fl_partners_add(&k->memory, member->name, &identity);
    if (status == FL_ENOMEM)
        return fl_fail_memory(error);
    return status == FL_OK ? FL_OK
                           : fl_fail(error, FL_EREFUSED, "%d partners are remembered; no more fit",
                                     FL_WORKERS_MAX);
}

static enum fl_status verify(const struct fl_trust *self, struct knowledge *k,
                             struct cohort *cohort, struct fl_error *error)
{
    enum fl_status status = FL_OK;
    for (uint32_t i = 0; i < cohort->count && status == FL_OK; i++) {
        const struct fl_secagg_advert *member = &cohort->adverts[i];
        const bool own = is_own(self, member->identity);
        bool pinned;
        status = check_pin(k, member, &pinned, error);
        if (status != FL_OK)
            return status;
        switch (self->conf->roster) {
        case FL_ROSTER_AUTHORITY:
            status = check_member(&k->list, member, error);
            cohort->verified[i] = cohort->known[i] = true;
            break;
        case FL_ROSTER_PINNED:
            cohort->verified[i] = cohort->known[i] = pinned || own;
            break;
        case FL_ROSTER_FIRST_USE:
            if (!pinned && !own)
                status = check_memory(k, member, error);
            cohort->verified[i] = true;
            cohort->known[i] = pinned; /* a name alone is the coordinator's to give */
            break;
        }
        cohort->known[i] = cohort->known[i] && !own && is_known(self, member->name);
    }
    return status;
}

static enum fl_status check_numbers(const struct fl_trust *self, const struct cohort *cohort,
                                    uint32_t minimum, struct fl_error *error)
{
    uint32_t verified = 0, known = 0;
    const char *stranger = NULL;
    for (uint32_t i = 0; i < cohort->count; i++) {
        const struct fl_secagg_advert *member = &cohort->adverts[i];
        if (!cohort->verified[i]) {
            stranger = stranger ? stranger : member->name;
            continue;
        }
        verified++;
        known += cohort->known[i];
    }
    if (verified < minimum && stranger)
        return fl_fail(error, FL_EREFUSED,
                       "%u of %u members are pinned (this site counted), at least %u must be; '%s' "
                       "is not",
                       verified, cohort->count, minimum, stranger);
    if (verified < minimum)
        return fl_fail(error, FL_EREFUSED, "%u members, at least %u must be", verified, minimum);
    /* so many could sign two lists of survivors, each with a part of the others, and read a site */
    if (cohort->count - verified >= 2 * fl_secagg_threshold(cohort->count) - cohort->count)
        return fl_fail(error, FL_EREFUSED,
                       "%u of %u members are not pinned: a third of a cohort could lie together; "
                       "'%s' is one of them",
                       cohort->count - verified, cohort->count, stranger ? stranger : "");
    if (known < self->conf->min_known)
        return fl_fail(error, FL_EREFUSED,
                       "min_known = %" PRIu64
                       ", but %u of known_sites are in this cohort, verified",
                       self->conf->min_known, known);
    return FL_OK;
}

/* The caller holds the lock of the files. */
static enum fl_status judge(const struct fl_trust *self, struct knowledge *k, struct cohort *cohort,
                            uint32_t minimum, struct fl_error *error)
{
    if (k->status != FL_OK)
        return fl_fail(error, k->status, "%s", k->error.text);
    const uint32_t remembered = k->memory.count;
    enum fl_status status = verify(self, k, cohort, error);
    if (status == FL_OK)
        status = check_numbers(self, cohort, minimum, error);
    if (status == FL_OK && k->memory.count > remembered)
        status = fl_partners_save(self->site, FL_PARTNERS_FIRST_USE, &k->memory, error);
    return status;
}

static enum fl_status check_files(struct fl_trust *self, struct cohort *cohort, uint32_t minimum,
                                  struct fl_error *error)
{
    int lock;
    struct knowledge known;
    enum fl_status status = fl_trust_store_lock(self->site, &lock, error);
    if (status != FL_OK)
        return status;
    learn(self, true, &known);
    restate(self, &known);
    status = judge(self, &known, cohort, minimum, error);
    if (status == FL_OK) /* more may be remembered now */
        restate(self, &known);
    forget(&known);
    (void)close(lock);
    return status;
}

enum fl_status fl_trust_check(struct fl_trust *self, const struct fl_secagg_advert *adverts,
                              uint32_t count, uint32_t minimum, bool *verified,
                              struct fl_error *error)
{
    struct cohort cohort = {.adverts = adverts, .count = count};
    enum fl_status status = check_list(self, &cohort, error);
    if (status == FL_OK)
        status = check_files(self, &cohort, minimum, error);
    for (uint32_t i = 0; verified && i < count; i++)
        verified[i] = status == FL_OK && cohort.verified[i];
    if (status == FL_OK)
        return FL_OK;
    /* files that are damaged or not there are a no as plain as any */
    if (status == FL_EFORMAT || status == FL_ENOTFOUND)
        error->status = FL_EREFUSED;
    fl_error_prefix(error, FL_TRUST_REASON);
    return error->status;
}

/*
 * masking.c - a site's side of secure aggregation (secagg.h): fresh keys, the check of the cohort,
 * shares, masks, the signature under the survivors, and one answer.
 *
 * What a coordinator says is held against what the sites signed: the cohort, each member's ranks,
 * the rank directions that only few of the survivors trained (thin tiers), and the ledger of
 * earlier answers. The secrets never leave this thread's memory.
 */
#include <endian.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "crypto/prg.h"
#include "job/offer.h"
#include "worker/labour_internal.h"

#define LEDGER_FILE "state/ledger"

_Static_assert(FL_WIRE_ADVERT_BYTES == FL_SECAGG_ADVERT_BYTES &&
                   FL_WIRE_SHARE_BYTES == FL_SECAGG_SEALED_SHARE_BYTES &&
                   FL_WIRE_SIGNATURE_BYTES == FL_SIGNATURE_BYTES &&
                   FL_WIRE_SCALAR_BYTES == FL_SCALAR_BYTES &&
                   FL_WIRE_PLAN_BYTES_MAX == FL_SECAGG_PLAN_BYTES_MAX,
               "the wire carries what secure aggregation makes");

void fl_masking_forget(struct fl_masking *self)
{
    fl_secagg_site_destroy(&self->site);
    fl_layout_destroy(&self->layout);
    memset(self, 0, sizeof(*self));
}

uint32_t fl_masking_minimum(const struct fl_labour *self, const struct fl_wire_offer *offer)
{
    uint64_t least = FL_SECAGG_SITES_MIN;
    if (self->conf->min_cohort > least)
        least = self->conf->min_cohort;
    if (offer->min_workers > least)
        least = offer->min_workers;
    return least > UINT32_MAX ? UINT32_MAX : (uint32_t)least;
}

/* Any rank direction needs so many trainers. */
static uint32_t least_trainers(const struct fl_labour *self)
{
    return self->conf->min_cohort > FL_SECAGG_SITES_MIN ? (uint32_t)self->conf->min_cohort
                                                        : FL_SECAGG_SITES_MIN;
}

enum fl_status fl_masking_check(const struct fl_labour *self, const struct fl_work *work,
                                bool cohort, struct fl_work_result *result, struct fl_error *error)
{
    const struct fl_masking *m = &self->masking;
    if (m->site && (!cohort || m->layout) && m->key.job == work->key.job &&
        m->key.round == work->key.round && m->key.attempt == work->key.attempt)
        return FL_OK;
    result->code = FL_REFUSAL_INTERNAL;
    return fl_fail(error, FL_EBUSY, "secrets lost: the keys of this attempt are not here any more");
}

static enum fl_status keep_reply(struct fl_work_result *result, size_t bytes,
                                 struct fl_error *error)
{
    result->reply = fl_calloc(bytes, 1);
    if (!result->reply)
        return fl_fail_memory(error);
    result->reply_bytes = bytes;
    return FL_OK;
}

/* What the cohort refuses is a matter of privacy, and final for this attempt only. */
static enum fl_status as_privacy(struct fl_work_result *result, enum fl_status status)
{
    if (status == FL_EREFUSED || status == FL_EFORMAT)
        result->code = FL_REFUSAL_PRIVACY;
    return status;
}

/* ---- keys ---- */

static uint16_t *ranks_of(const struct fl_labour *self, const struct fl_wire_bytes *list)
{
    uint16_t *ranks = fl_calloc(self->targets.count, sizeof(*ranks));
    for (uint32_t i = 0; ranks && i < self->targets.count; i++)
        ranks[i] = fl_labour_rank_at(list, i);
    return ranks;
}

static void set_context(const struct fl_labour *self, const struct fl_work *work,
                        const uint16_t *global, struct fl_secagg_context *out)
{
    *out = (struct fl_secagg_context){
        .job = work->key.job,
        .round = work->key.round,
        .attempt = work->key.attempt,
        .elements = fl_layout_elements(&self->targets, global,
                                       fl_job_factors(&work->offer, &work->task))};
    fl_job_binding(&work->offer, &work->task, out->job_hash);
    memcpy(out->manifest, work->offer.manifest, FL_HASH_BYTES);
    memcpy(out->start, work->task.start.root, FL_HASH_BYTES);
}

/* It has evaluated, and its own loss is to be hidden. */
static bool has_measured(const struct fl_labour *self, const struct fl_work *work)
{
    const struct fl_attempt *own = &self->measured, *key = &work->key;
    return own->job == key->job && own->round == key->round && own->attempt == key->attempt &&
           !self->conf->share_eval;
}

enum fl_status fl_labour_keys(struct fl_labour *self, const struct fl_work *work,
                              struct fl_work_result *result, struct fl_error *error)
{
    uint8_t hash[FL_HASH_BYTES];
    struct fl_secagg_context context;
    if (self->job != work->key.job ||
        work->task.global_ranks.length != 2 * (size_t)self->targets.count)
        return fl_fail(error, FL_EINVAL, "the job was not checked here");
    uint16_t *global = ranks_of(self, &work->task.global_ranks);
    uint16_t *own = ranks_of(self, &work->task.site_ranks);
    enum fl_status status = global && own ? FL_OK : FL_ENOMEM;
    fl_masking_forget(&self->masking);
    if (status == FL_OK) {
        set_context(self, work, global, &context);
        fl_secagg_ranks_hash(own, self->targets.count, hash);
        if (has_measured(self, work))
            fl_secagg_measured_hash(hash, hash);
        status = fl_secagg_site_create(&context, self->name, hash, self->store->keys,
                                       fl_entropy_system(), &self->masking.site);
    }
    fl_free(own);
    fl_free(global);
    if (status != FL_OK)
        return fl_fail(error, status, "the keys of this attempt cannot be made: %s",
                       fl_status_text(status));
    self->masking.key = work->key;
    status = keep_reply(result, FL_SECAGG_ADVERT_BYTES, error);
    if (status == FL_OK)
        fl_secagg_advert_encode(fl_secagg_site_advert(self->masking.site), result->reply);
    return status;
}

/* ---- the cohort ---- */

/* Who the members are, after it is known that each holds the key that it shows. */
static enum fl_status check_trust(struct fl_labour *self, const struct fl_work *work,
                                  const struct fl_secagg_advert *adverts, uint32_t count,
                                  bool *verified, struct fl_error *error)
{
    enum fl_status status = FL_OK;
    if (!self->trust)
        status = fl_trust_open(self->store->site, self->conf,
                               fl_keys_public(self->store->keys)->ed25519, &self->trust, error);
    if (status == FL_OK)
        status = fl_trust_check(self->trust, adverts, count, fl_masking_minimum(self, &work->offer),
                                verified, error);
    return status;
}

static enum fl_status join(struct fl_labour *self, const struct fl_work *work,
                           struct fl_error *error)
{
    const struct fl_wire_bytes *list = &work->cohort.adverts;
    uint32_t count = (uint32_t)(list->length / FL_SECAGG_ADVERT_BYTES);
    struct fl_secagg_advert *adverts = fl_calloc(count + 1, sizeof(*adverts));
    enum fl_status status = adverts ? FL_OK : fl_fail_memory(error);
    for (uint32_t i = 0; status == FL_OK && i < count; i++) {
        status = fl_secagg_advert_decode(list->data + (size_t)i * FL_SECAGG_ADVERT_BYTES,
                                         &adverts[i]);
        if (status != FL_OK)
            (void)fl_fail(error, FL_EREFUSED, "the cohort has a member without a proper name");
    }
    uint32_t minimum = fl_masking_minimum(self, &work->offer);
    if (status == FL_OK)
        status = fl_secagg_site_join(self->masking.site, adverts, count, minimum, error);
    fl_free(adverts);
    const struct fl_secagg_cohort *cohort = fl_secagg_site_cohort(self->masking.site);
    if (status == FL_OK)
        status = check_trust(self, work, cohort->adverts, cohort->count, NULL, error);
    return status;
}

/*
 * Rows to evaluate on are each site's own affair: where few have them, the summed loss would be
 * theirs. All members see the same signed list and count alike, by the job's own minimum, which is
 * no less than any member's policy: either all who evaluated put it into the sum, or nobody but
 * those that share it in any case. These do not count: what everybody knows hides nothing.
 */
static void count_measures(struct fl_labour *self, const struct fl_work *work,
                           const struct fl_rank_plan *plan)
{
    struct fl_masking *m = &self->masking;
    const struct fl_secagg_cohort *cohort = fl_secagg_site_cohort(m->site);
    for (uint32_t i = 0; i < cohort->count; i++) {
        bool measures = false;
        if (fl_secagg_ranks_verify(&cohort->adverts[i], plan->ranks + (size_t)i * plan->modules,
                                   plan->modules, &measures) == FL_OK)
            m->measuring.has[i] = measures;
    }
    uint32_t count = fl_secagg_set_count(&m->measuring, cohort->count);
    m->sums_measures = count >= fl_masking_minimum(self, &work->offer);
    if (count > 0 && !m->sums_measures)
        fl_log(
            FL_LOG_INFO, "evaluation_withheld",
            "so few sites evaluated that their summed loss would tell of single ones; it is left "
            "out",
            FL_U64("job", work->key.job), FL_U64("round", work->key.round),
            FL_U64("evaluated", count));
}

/* The layout that follows from what every member signed that it trains. */
static enum fl_status make_layout(struct fl_labour *self, const struct fl_work *work,
                                  struct fl_error *error)
{
    struct fl_masking *m = &self->masking;
    const struct fl_secagg_cohort *cohort = fl_secagg_site_cohort(m->site);
    struct fl_rank_plan plan = {0};
    struct fl_round_ranges ranges;
    enum fl_status status = fl_rank_plan_create(&plan, cohort->count, self->targets.count);
    if (status != FL_OK)
        return fl_fail_memory(error);
    for (uint32_t i = 0; i < plan.modules; i++)
        plan.global[i] = fl_labour_rank_at(&work->task.global_ranks, i);
    status = fl_secagg_plan_decode(work->cohort.plan.data, work->cohort.plan.length, cohort,
                                   plan.modules, plan.ranks, error);
    if (status == FL_OK)
        count_measures(self, work, &plan);
    if (status == FL_OK)
        status = fl_labour_ranges(self, work, &ranges, error);
    if (status == FL_OK)
        status = fl_layout_create(&self->targets, &plan, ranges.factors, ranges.of, &m->layout,
                                  error);
    if (status == FL_EINVAL) /* ranks that no honest plan has */
        status = FL_EREFUSED;
    fl_rank_plan_free(&plan);
    if (status == FL_OK)
        status = fl_labour_grid(&work->offer, cohort->count, &m->grid);
    m->index = fl_secagg_cohort_find(cohort, self->name);
    if (status == FL_OK && m->index == UINT32_MAX)
        status = fl_fail(error, FL_EREFUSED, "this site's name has changed");
    return status;
}

enum fl_status fl_labour_cohort(struct fl_labour *self, const struct fl_work *work,
                                struct fl_work_result *result, struct fl_error *error)
{
    struct fl_masking *m = &self->masking;
    enum fl_status status = fl_masking_check(self, work, false, result, error);
    if (status != FL_OK)
        return status;
    status = as_privacy(result, join(self, work, error));
    if (status == FL_OK)
        status = as_privacy(result, make_layout(self, work, error));
    if (status == FL_OK)
        status = keep_reply(
            result, (size_t)fl_secagg_site_cohort(m->site)->count * FL_SECAGG_SEALED_SHARE_BYTES,
            error);
    if (status == FL_OK)
        status = as_privacy(
            result, fl_secagg_site_share(m->site, fl_entropy_system(), result->reply, error));
    return status;
}

/* ---- masks ---- */

static void read_set(const struct fl_wire_bytes *list, struct fl_secagg_set *out)
{
    memset(out, 0, sizeof(*out));
    for (size_t i = 0; i < list->length && i < FL_SECAGG_SITES_MAX; i++)
        out->has[i] = list->data[i] == 1;
}

/* The coordinator must describe the cohort that the sites signed. */
static enum fl_status check_collect(struct fl_labour *self, const struct fl_work *work,
                                    struct fl_work_result *result, struct fl_error *error)
{
    const struct fl_masking *m = &self->masking;
    const struct fl_wire_collect *collect = &work->collect;
    uint32_t n = fl_secagg_site_cohort(m->site)->count;
    if (collect->cohort != n || collect->sharers.length != n)
        return fl_labour_refuse(result, error,
                                "the coordinator names another cohort than its members signed");
    if (collect->tiers.length != m->layout->tier_count ||
        memcmp(collect->tiers.data, fl_layout_site_tiers(m->layout, m->index),
               m->layout->tier_count) != 0)
        return fl_labour_refuse(result, error,
                                "the coordinator's layout is not what the members' ranks give");
    return FL_OK;
}

/* What others shared with this site. What does not open is that member's fault, and not the end. */
static void take_shares(struct fl_labour *self, const struct fl_work *work,
                        const struct fl_secagg_set *sharers, uint8_t *opened)
{
    struct fl_error why;
    const struct fl_masking *m = &self->masking;
    uint32_t n = fl_secagg_site_cohort(m->site)->count;
    for (uint32_t v = 0; v < n; v++) {
        const uint8_t *sealed = work->collect.shares.data +
                                (size_t)v * FL_SECAGG_SEALED_SHARE_BYTES;
        opened[v] = v == m->index;
        if (v == m->index || !sharers->has[v])
            continue;
        opened[v] = fl_secagg_site_take_share(m->site, v, sealed, &why) == FL_OK;
        if (!opened[v])
            fl_log(FL_LOG_WARN, "share_refused", why.text, FL_U64("job", work->key.job),
                   FL_U64("round", work->key.round));
    }
}

/* The update's numbers are little-endian; masks are added to native ones. */
static void swap_words(uint32_t *vector, uint64_t elements, uint64_t *scalars, uint32_t count)
{
    for (uint64_t i = 0; i < elements; i++)
        vector[i] = le32toh(vector[i]);
    for (uint32_t i = 0; i < count; i++)
        scalars[i] = le64toh(scalars[i]);
}

enum fl_status fl_masking_apply(struct fl_labour *self, const struct fl_work *work, uint8_t *update,
                                struct fl_work_result *result, struct fl_error *error)
{
    const struct fl_masking *m = &self->masking;
    struct fl_secagg_set sharers;
    enum fl_status status = check_collect(self, work, result, error);
    if (status != FL_OK)
        return status;
    status = keep_reply(result, work->collect.sharers.length, error);
    if (status != FL_OK)
        return status;
    read_set(&work->collect.sharers, &sharers);
    take_shares(self, work, &sharers, result->reply);
    /* header and scalars are multiples of 8 bytes: both arrays are aligned in the buffer */
    uint64_t *scalars = (void *)(update + FL_UPDATE_HEADER_BYTES);
    uint32_t *vector = (void *)(scalars + m->layout->scalar_count);
    swap_words(vector, m->layout->elements, scalars, m->layout->scalar_count);
    status = fl_secagg_site_mask(m->site, &sharers, vector, scalars, m->layout->scalar_count,
                                 error);
    swap_words(vector, m->layout->elements, scalars, m->layout->scalar_count);
    return as_privacy(result, status);
}

/* ---- survivors ---- */

/* Ranks above this site's own are other sites' concern. */
static void cap_ranks(struct fl_rank_plan *plan, const uint16_t *own)
{
    for (uint32_t i = 0; i < plan->sites; i++) {
        uint16_t *row = plan->ranks + (size_t)i * plan->modules;
        for (uint32_t m = 0; m < plan->modules; m++)
            row[m] = row[m] < own[m] ? row[m] : own[m];
    }
}

/* A direction that few of the survivors trained would show their updates as a "sum". own: of those
   that this site trains only. */
static enum fl_status check_tiers(struct fl_labour *self, const struct fl_secagg_set *survivors,
                                  bool own, struct fl_work_result *result, struct fl_error *error)
{
    const struct fl_layout *layout = self->masking.layout;
    uint32_t rows[FL_SECAGG_SITES_MAX], count = 0, least = least_trainers(self);
    struct fl_rank_plan plan = {0};
    if (layout->factors == FL_FACTORS_NONE)
        return FL_OK;
    for (uint32_t i = 0; i < layout->ranks.sites; i++) {
        if (survivors->has[i])
            rows[count++] = i;
    }
    if (fl_rank_plan_select(&layout->ranks, rows, count, &plan) != FL_OK)
        return fl_fail_memory(error);
    if (own)
        cap_ranks(&plan, layout->ranks.ranks + (size_t)self->masking.index * layout->ranks.modules);
    uint32_t thinnest = fl_rank_plan_thinnest(&plan);
    fl_rank_plan_free(&plan);
    if (thinnest >= least)
        return FL_OK;
    result->code = FL_REFUSAL_PRIVACY;
    return fl_fail(error, FL_EREFUSED,
                   "thin tier: only %u of the survivors trained the highest rank of a module, %u "
                   "are needed",
                   thinnest, least);
}

/* The same for what they measured, which is in the sum by now. */
static enum fl_status check_measures(const struct fl_labour *self, const struct fl_work *work,
                                     const struct fl_secagg_set *survivors,
                                     struct fl_work_result *result, struct fl_error *error)
{
    const struct fl_masking *m = &self->masking;
    uint32_t count = 0, least = fl_masking_minimum(self, &work->offer);
    for (uint32_t i = 0; i < FL_SECAGG_SITES_MAX; i++)
        count += survivors->has[i] && m->measuring.has[i];
    if (!m->sums_measures || count >= least)
        return FL_OK;
    result->code = FL_REFUSAL_PRIVACY;
    return fl_fail(error, FL_EREFUSED,
                   "thin tier: only %u of the survivors evaluated, %u are needed", count, least);
}

static enum fl_status check_survivors(struct fl_labour *self, const struct fl_work *work,
                                      struct fl_secagg_set *out, struct fl_work_result *result,
                                      struct fl_error *error)
{
    const struct fl_wire_bytes *list = &work->unmask.survivors;
    uint32_t n, least = fl_masking_minimum(self, &work->offer);
    enum fl_status status = fl_masking_check(self, work, true, result, error);
    if (status != FL_OK)
        return status;
    n = fl_secagg_site_cohort(self->masking.site)->count;
    if (list->length != n)
        return fl_labour_refuse(result, error, "the list of survivors is of another cohort");
    read_set(list, out);
    if (fl_secagg_set_count(out, n) < least) {
        result->code = FL_REFUSAL_PRIVACY;
        return fl_fail(error, FL_EREFUSED, "the sum would be over %u sites, %u are demanded here",
                       fl_secagg_set_count(out, n), least);
    }
    status = check_tiers(self, out, false, result, error);
    return status == FL_OK ? check_measures(self, work, out, result, error) : status;
}

/*
 * A sum over strangers and few others would show the others: in the whole, in the directions that
 * few train, and in what few have evaluated.
 */
static enum fl_status check_who_survives(struct fl_labour *self, const struct fl_work *work,
                                         const struct fl_secagg_set *survivors,
                                         struct fl_work_result *result, struct fl_error *error)
{
    const struct fl_secagg_cohort *cohort = fl_secagg_site_cohort(self->masking.site);
    struct fl_secagg_advert *adverts = fl_calloc(cohort->count, sizeof(*adverts));
    struct fl_secagg_set known = {{false}};
    bool verified[FL_SECAGG_SITES_MAX];
    uint32_t count = 0, at = 0;
    if (!adverts)
        return fl_fail_memory(error);
    for (uint32_t i = 0; i < cohort->count; i++) {
        if (survivors->has[i])
            adverts[count++] = cohort->adverts[i];
    }
    enum fl_status status = check_trust(self, work, adverts, count, verified, error);
    fl_free(adverts);
    if (status != FL_OK)
        return as_privacy(result, status);
    for (uint32_t i = 0; i < cohort->count; i++) {
        if (survivors->has[i])
            known.has[i] = verified[at++];
    }
    status = check_tiers(self, &known, true, result, error);
    if (status == FL_OK && self->masking.measuring.has[self->masking.index])
        status = check_measures(self, work, &known, result, error);
    return status;
}

enum fl_status fl_labour_survivors(struct fl_labour *self, const struct fl_work *work,
                                   struct fl_work_result *result, struct fl_error *error)
{
    struct fl_secagg_set survivors;
    enum fl_status status = check_survivors(self, work, &survivors, result, error);
    if (status == FL_OK)
        status = keep_reply(result, FL_SIGNATURE_BYTES, error);
    if (status == FL_OK)
        status = as_privacy(result, fl_secagg_site_sign(self->masking.site, &survivors,
                                                        self->store->keys, result->reply, error));
    if (status == FL_OK) /* behind the signature's own rules, whose reasons are plainer */
        status = check_who_survives(self, work, &survivors, result, error);
    return status;
}

/* ---- the answer ---- */

static enum fl_status open_ledger(struct fl_labour *self, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    if (self->ledger)
        return FL_OK;
    enum fl_status status = fl_sitestore_path(self->store, LEDGER_FILE, path, error);
    return status == FL_OK ? fl_ledger_open(path, &self->ledger, error) : status;
}

static enum fl_status fingerprint(const struct fl_labour *self, const struct fl_work *work,
                                  uint8_t out[FL_HASH_BYTES], struct fl_error *error)
{
    uint32_t *ranks = fl_calloc(self->targets.count, sizeof(*ranks));
    struct fl_ledger_work about = {.ranks = ranks, .rank_count = self->targets.count};
    if (!ranks)
        return fl_fail_memory(error);
    for (uint32_t i = 0; i < self->targets.count; i++)
        ranks[i] = fl_labour_rank_at(&work->task.site_ranks, i);
    /* else nothing is drawn, and seed, round and this site's name are but names of the same work */
    if (work->offer.shuffle || work->offer.dropout > 0.0)
        about.seed = fl_labour_data_seed(self, &work->offer, work->key.round);
    memcpy(about.manifest, work->offer.manifest, FL_HASH_BYTES);
    memcpy(about.start, work->task.start.root, FL_HASH_BYTES);
    memcpy(about.data, self->data, FL_HASH_BYTES);
    fl_job_training_settings(&work->offer, &work->task, about.settings);
    fl_ledger_fingerprint(&about, out);
    fl_free(ranks);
    return FL_OK;
}

static void ranks_hash_at(const struct fl_rank_plan *plan, uint32_t member,
                          uint8_t out[FL_HASH_BYTES])
{
    fl_secagg_ranks_hash(plan->ranks + (size_t)member * plan->modules, plan->modules, out);
}

/*
 * How the same delta is shown must stay the same too: with another cap of weights, norm or range
 * two sums of one set differ by what exceeded the smaller one, maybe of a single site; and with
 * other ranks of one member, by the directions that it trains in one of them only. So of a
 * fingerprint one form is ever answered: the encoding, and either equal ranks or that very list.
 */
static enum fl_status enter_form(struct fl_labour *self, const struct fl_work *work,
                                 const uint8_t about[FL_HASH_BYTES],
                                 const struct fl_secagg_set *survivors, struct fl_error *error)
{
    static const uint8_t none[FL_SEED_BYTES];
    uint8_t key[FL_HASH_BYTES], encoding[FL_HASH_BYTES], form[1][FL_KEY_BYTES];
    const struct fl_secagg_cohort *cohort = fl_secagg_site_cohort(self->masking.site);
    const struct fl_rank_plan *plan = &self->masking.layout->ranks;
    uint8_t own[FL_HASH_BYTES], ranks[FL_HASH_BYTES];
    struct fl_prf prf;
    bool equal = true;
    fl_prf_begin(&prf, none, "fedlora-ledger-form-key-v1");
    fl_prf_bytes(&prf, about, FL_HASH_BYTES);
    fl_prf_end(&prf, key);
    ranks_hash_at(plan, self->masking.index, own);
    for (uint32_t i = 0; i < cohort->count && equal; i++) {
        ranks_hash_at(plan, i, ranks);
        equal = !survivors->has[i] || memcmp(ranks, own, FL_HASH_BYTES) == 0;
    }
    fl_job_encoding(&work->offer, encoding);
    fl_prf_begin(&prf, none, "fedlora-ledger-form-v1");
    fl_prf_bytes(&prf, encoding, FL_HASH_BYTES);
    for (uint32_t i = 0; i < cohort->count && !equal; i++) {
        if (!survivors->has[i])
            continue;
        fl_prf_bytes(&prf, cohort->adverts[i].identity, FL_KEY_BYTES);
        ranks_hash_at(plan, i, ranks);
        fl_prf_bytes(&prf, ranks, FL_HASH_BYTES);
    }
    fl_prf_end(&prf, form[0]);
    enum fl_status status = fl_ledger_admit(self->ledger, key, (const uint8_t(*)[FL_KEY_BYTES])form,
                                            1, error);
    if (status == FL_EREFUSED)
        status = fl_fail(error, FL_EREFUSED,
                         FL_LEDGER_REASON ": these deltas were summed before with another range, "
                                          "cap, norm or other ranks of a member");
    return status;
}

/*
 * On the disk before the answer is given; see ledger.h. The delta itself has an entry too, whatever
 * it is called: work that is new only by name, a round that was trained anew and gave the same
 * numbers again among it, is not summed without a site.
 */
static enum fl_status enter_ledger(struct fl_labour *self, const struct fl_work *work,
                                   const struct fl_secagg_set *survivors,
                                   struct fl_work_result *result, struct fl_error *error)
{
    uint8_t about[FL_HASH_BYTES], keys[FL_SECAGG_SITES_MAX][FL_KEY_BYTES];
    const struct fl_secagg_cohort *cohort = fl_secagg_site_cohort(self->masking.site);
    uint32_t count = 0;
    for (uint32_t i = 0; i < cohort->count; i++) {
        if (survivors->has[i])
            memcpy(keys[count++], cohort->adverts[i].identity, FL_KEY_BYTES);
    }
    enum fl_status status = open_ledger(self, error);
    if (status == FL_OK)
        status = fingerprint(self, work, about, error);
    if (status == FL_OK)
        status = fl_ledger_admit(self->ledger, about, (const uint8_t(*)[FL_KEY_BYTES])keys, count,
                                 error);
    if (status == FL_OK && self->masking.has_delta)
        status = fl_ledger_admit(self->ledger, self->masking.delta,
                                 (const uint8_t(*)[FL_KEY_BYTES])keys, count, error);
    if (status == FL_OK)
        status = enter_form(self, work, about, survivors, error);
    if (status == FL_EIO) /* it must be read anew to be trusted again */
        fl_ledger_close(&self->ledger);
    result->survivors = count;
    if (status == FL_EREFUSED) { /* the coordinator may have the round trained anew */
        result->code = FL_REFUSAL_DIFFERENCING;
        return status;
    }
    return as_privacy(result, status);
}

enum fl_status fl_labour_unmask(struct fl_labour *self, const struct fl_work *work,
                                struct fl_work_result *result, struct fl_error *error)
{
    struct fl_secagg_set survivors, signed_by;
    const struct fl_wire_unmask *asked = &work->unmask;
    enum fl_status status = check_survivors(self, work, &survivors, result, error);
    if (status != FL_OK)
        return status;
    read_set(&asked->signed_by, &signed_by);
    uint32_t n = fl_secagg_site_cohort(self->masking.site)->count;
    status = as_privacy(result,
                        fl_secagg_site_may_answer(self->masking.site, &survivors, &signed_by,
                                                  asked->signatures.data, error));
    if (status == FL_OK)
        status = enter_ledger(self, work, &survivors, result, error);
    if (status == FL_OK)
        status = keep_reply(result, (size_t)n * FL_SCALAR_BYTES, error);
    if (status == FL_OK)
        status = as_privacy(result,
                            fl_secagg_site_answer(self->masking.site, &survivors, &signed_by,
                                                  asked->signatures.data, result->reply, error));
    return status;
}

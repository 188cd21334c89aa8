/* check.c - what must hold after every step, whatever went wrong. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "coordinator/server_internal.h"
#include "sim.h"

/* ---- the sum, made anew from what the sites trained ---- */

struct sums {
    uint32_t *vector;  /* (elements) */
    uint64_t *scalars; /* (scalar_count) */
};

static void add_scalars(const struct fl_layout *layout, const struct fl_grid *grid, uint32_t place,
                        const struct fl_update_stats *stats, uint64_t values, uint64_t *scalars)
{
    uint64_t weight = stats->weight < grid->w_max ? stats->weight : grid->w_max;
    for (uint32_t t = 0; t < layout->tier_count; t++)
        scalars[t] += fl_layout_site_tiers(layout, place)[t] ? weight : 0;
    uint64_t *tail = scalars + layout->tier_count;
    tail[FL_SCALAR_EVAL_LOSS] += (uint64_t)llrint(stats->eval_loss_sum * FL_LOSS_SCALE);
    tail[FL_SCALAR_EVAL_TOKENS] += stats->eval_tokens;
    tail[FL_SCALAR_TRAIN_LOSS] += (uint64_t)llrint(stats->train_loss_sum * FL_LOSS_SCALE);
    tail[FL_SCALAR_TRAIN_TOKENS] += stats->train_tokens;
    tail[FL_SCALAR_VALUES] += values;
}

/* q of each value of a site, at its place in the vector; returns how many there are. */
static uint64_t add_segment(const struct fl_segment *segment, const struct fl_grid *grid,
                            const struct fl_lora_module *module, uint64_t weight, uint32_t *vector,
                            uint64_t *cut)
{
    bool is_a = segment->factor == FL_FACTOR_A, is_m = segment->factor == FL_FACTOR_M;
    uint32_t rows = is_a ? module->rank : segment->rows;
    uint32_t columns = is_a ? segment->columns : is_m ? 1 : module->rank;
    const float *values = is_a ? module->a : is_m ? module->m : module->b;
    for (uint32_t row = 0; row < rows; row++) {
        for (uint32_t column = 0; column < columns; column++)
            vector[segment->offset + (uint64_t)row * segment->columns + column] += fl_grid_encode(
                grid, (double)values[(size_t)row * columns + column], segment->range, weight, cut);
    }
    return (uint64_t)rows * columns;
}

static void add_site(const struct fl_layout *layout, const struct fl_grid *grid, uint32_t place,
                     const struct sim_training *training, struct sums *sums)
{
    uint64_t weight = training->stats.weight < grid->w_max ? training->stats.weight : grid->w_max;
    uint64_t values = 0, *cut = &sums->scalars[layout->tier_count + FL_SCALAR_CUT];
    for (uint32_t s = 0; s < layout->segment_count; s++) {
        const struct fl_segment *segment = &layout->segments[s];
        values += add_segment(segment, grid, &training->delta->modules[segment->module], weight,
                              sums->vector, cut);
    }
    add_scalars(layout, grid, place, &training->stats, values, sums->scalars);
}

static void apply(const struct fl_layout *layout, const struct fl_grid *grid,
                  const struct sums *sums, struct fl_adapter *adapter)
{
    for (uint32_t s = 0; s < layout->segment_count; s++) {
        const struct fl_segment *segment = &layout->segments[s];
        struct fl_lora_module *module = &adapter->modules[segment->module];
        bool is_a = segment->factor == FL_FACTOR_A, is_m = segment->factor == FL_FACTOR_M;
        float *values = is_a ? module->a : is_m ? module->m : module->b;
        for (uint64_t i = 0; i < (uint64_t)segment->rows * segment->columns; i++) {
            uint64_t direction = is_a ? i / segment->columns : i % segment->columns;
            uint32_t tier = layout->tier_of[layout->direction_start[segment->module] + direction];
            uint64_t weights = tier == FL_SITE_UNKNOWN ? 0 : sums->scalars[tier];
            values[i] = (float)((double)values[i] + fl_grid_mean(grid,
                                                                 sums->vector[segment->offset + i],
                                                                 segment->range, weights));
        }
    }
}

static void compare(struct sim *self, const struct fl_version *version,
                    const struct fl_layout *layout, const struct fl_grid *grid,
                    const struct sums *sums, const struct fl_adapter *start)
{
    uint8_t hash[FL_HASH_BYTES];
    struct fl_adapter *next = NULL;
    struct fl_buf bytes;
    struct fl_error error;
    fl_buf_init(&bytes, 1u << 24);
    fl_update_sha256(layout, sums->vector, sums->scalars, hash);
    if (memcmp(hash, version->sum_sha256, FL_HASH_BYTES) != 0)
        sim_violation(self, "version %u is not the sum of what its %u survivors sent",
                      version->version, self->cohort.counted_count);
    else if (fl_adapter_copy(start, &next) != FL_OK)
        sim_violation(self, "out of memory");
    else {
        apply(layout, grid, sums, next);
        if (fl_adapter_encode(next, &bytes, &error) != FL_OK)
            sim_violation(self, "%s", error.text);
        fl_sha256(bytes.data, bytes.length, hash);
        if (memcmp(hash, version->sha256, FL_HASH_BYTES) != 0)
            sim_violation(self, "version %u is not its start and the mean of its survivors",
                          version->version);
    }
    fl_adapter_destroy(&next);
    fl_buf_free(&bytes);
}

static void sum_cohort(struct sim *self, const struct fl_version *version,
                       const struct fl_layout *layout, const struct fl_grid *grid)
{
    const struct sim_cohort *cohort = &self->cohort;
    const struct sim_training *training = NULL;
    struct sums sums = {.vector = fl_calloc(layout->elements, sizeof(uint32_t)),
                        .scalars = fl_calloc(layout->scalar_count, sizeof(uint64_t))};
    for (uint32_t i = 0; sums.vector && sums.scalars && i < cohort->trained_count; i++) {
        if (!cohort->counted[i])
            continue;
        training = sim_training_of(self, cohort->trained[i], cohort->round, cohort->retraining,
                                   cohort->root);
        if (!training) {
            sim_violation(self, "site%u was counted and never trained on that start",
                          cohort->trained[i]);
            break;
        }
        add_site(layout, grid, i, training, &sums);
    }
    if (training)
        compare(self, version, layout, grid, &sums, training->start);
    fl_free(sums.vector);
    fl_free(sums.scalars);
}

/* The adapted modules, as the sites had them. */
static enum fl_status trained_modules(const struct sim *self, struct fl_inventory *out,
                                      struct fl_error *error)
{
    const struct sim_training *training = NULL;
    for (uint32_t i = 0; i < self->site_count && !training; i++)
        training = sim_training_of(self, i, self->cohort.round, self->cohort.retraining,
                                   self->cohort.root);
    if (!training)
        return fl_fail(error, FL_ENOTFOUND, "nobody trained on its start");
    *out = (struct fl_inventory){
        .modules = fl_calloc(training->start->count, sizeof(struct fl_module)),
        .count = training->start->count,
        .layers = 2};
    if (!out->modules)
        return fl_fail_memory(error);
    for (uint32_t i = 0; i < out->count; i++)
        out->modules[i] = training->start->modules[i].module;
    return FL_OK;
}

void sim_check_sum(struct sim *self, const struct fl_version *version)
{
    const struct sim_cohort *cohort = &self->cohort;
    struct fl_error error;
    struct fl_grid grid;
    struct fl_layout *layout = NULL;
    if (!cohort->valid || cohort->round != version->round) {
        sim_violation(self, "version %u was committed by no cohort", version->version);
        return;
    }
    if (version->workers != cohort->counted_count) {
        sim_violation(self, "version %u says %u workers, %u were counted", version->version,
                      version->workers, cohort->counted_count);
        return;
    }
    struct fl_inventory targets = {0};
    enum fl_status status = trained_modules(self, &targets, &error);
    enum fl_factors factors = fl_job_trains(self->spec, cohort->round);
    if (status == FL_OK)
        status = fl_layout_create(&targets, &cohort->plan, factors, cohort->ranges, &layout,
                                  &error);
    if (status == FL_OK)
        status = fl_job_grid(self->spec, cohort->trained_count, &grid);
    if (status == FL_OK)
        sum_cohort(self, version, layout, &grid);
    else
        sim_violation(self, "round %u cannot be summed anew: %s", version->round, error.text);
    fl_inventory_free(&targets);
    fl_layout_destroy(&layout);
}

/* ---- what is committed stays ---- */

/* Of the versions that two sites have none is made a second time. */
static void check_kept(struct sim *self, const struct fl_version *version)
{
    struct sim_history *history = &self->history;
    uint32_t n = version->version;
    if (memcmp(history->sha256[n], version->sha256, FL_HASH_BYTES) != 0)
        sim_violation(self, "version %u is another one behind a restored backup", n);
    sim_trace(self, "version %u is back", n);
    memcpy(history->sum[n], version->sum_sha256, FL_HASH_BYTES);
    history->versions = n;
    history->committed_at = self->now;
}

static enum fl_status check_version(void *context, const struct fl_version *version)
{
    struct sim *self = context;
    struct sim_history *history = &self->history;
    uint32_t n = version->version;
    bool back = n > history->versions && n <= SIM_ROUNDS_MAX &&
                memcmp(history->sha256[n], version->sha256, FL_HASH_BYTES) == 0;
    if (n > self->spec->rounds || n == 0 || (n > history->versions + 1 && !back)) {
        sim_violation(self, "version %u after %u", n, history->versions);
        return FL_OK;
    }
    if (back || (n > history->versions && n <= history->kept)) {
        check_kept(self, version);
        return FL_OK;
    }
    if (n <= history->versions) {
        if (memcmp(history->sha256[n], version->sha256, FL_HASH_BYTES) != 0 ||
            memcmp(history->sum[n], version->sum_sha256, FL_HASH_BYTES) != 0)
            sim_violation(self, "version %u has changed", n);
        return FL_OK;
    }
    sim_trace(self, "version %u of %u workers is committed", n, version->workers);
    memcpy(history->sha256[n], version->sha256, FL_HASH_BYTES);
    memcpy(history->sum[n], version->sum_sha256, FL_HASH_BYTES);
    history->versions = n;
    history->committed_at = self->now;
    self->counts.commits++;
    sim_check_sum(self, version);
    return FL_OK;
}

static void check_job(struct sim *self, const struct fl_job *job)
{
    struct sim_history *history = &self->history;
    enum fl_job_state was = history->state, is = job->state;
    static const bool may[FL_JOB_STATE_COUNT][FL_JOB_STATE_COUNT] = {
        [FL_JOB_QUEUED] = {[FL_JOB_QUEUED] = true, [FL_JOB_RUNNING] = true, [FL_JOB_PAUSED] = true},
        [FL_JOB_RUNNING] = {[FL_JOB_RUNNING] = true, [FL_JOB_DONE] = true, [FL_JOB_PAUSED] = true},
        [FL_JOB_PAUSED] = {[FL_JOB_PAUSED] = true, [FL_JOB_QUEUED] = true, [FL_JOB_RUNNING] = true},
        [FL_JOB_DONE] = {[FL_JOB_DONE] = true},
    };
    if (!may[was][is])
        sim_violation(self, "the job went from %s to %s: %s", fl_job_state_name(was),
                      fl_job_state_name(is), job->reason);
    /* who waits for a person stands one attempt before the next */
    bool waits = is == FL_JOB_PAUSED && self->counts.restores > 0;
    if (!waits && (job->round < history->round ||
                   (job->round == history->round && job->attempt < history->attempt)))
        sim_violation(self, "round %u attempt %u came after round %u attempt %u", job->round,
                      job->attempt, history->round, history->attempt);
    bool same = job->round == history->round && job->attempt == history->attempt;
    if (same && is == FL_JOB_RUNNING && was == is && job->phase < history->phase)
        sim_violation(self, "round %u attempt %u went back from %s to %s", job->round, job->attempt,
                      fl_round_state_name(history->phase), fl_round_state_name(job->phase));
    self->counts.attempts += !same;
    if (!self->secure && (job->phase == FL_ROUND_KEYS || job->phase == FL_ROUND_SHARES ||
                          job->phase == FL_ROUND_UNMASK))
        sim_violation(self, "a job without masks is in %s", fl_round_state_name(job->phase));
    if (is == FL_JOB_RUNNING && job->round != history->versions + 1)
        sim_violation(self, "round %u runs with %u versions", job->round, history->versions);
    if (is == FL_JOB_DONE && history->versions != self->spec->rounds)
        sim_violation(self, "the job is done with %u versions", history->versions);
    /* a copy does not know which sum of the round was opened behind it, and the sites help with no
       other one: a person must submit another job */
    history->stuck = waits && self->secure && strstr(job->reason, "differencing");
    if (is == FL_JOB_PAUSED && was != is)
        history->paused_at = self->now;
    history->lone = is == FL_JOB_PAUSED && strstr(job->reason, "bring another site");
    history->state = is;
    history->phase = job->phase;
    history->round = job->round;
    history->attempt = job->attempt;
}

static enum fl_status adopt_version(void *context, const struct fl_version *version)
{
    struct sim_history *history = context;
    uint32_t n = version->version;
    if (n <= SIM_ROUNDS_MAX && n > history->versions &&
        memcmp(history->sha256[n], version->sha256, FL_HASH_BYTES) == 0)
        history->versions = n;
    return FL_OK;
}

/* What the copy held is what is committed; how it got there was checked. */
static void adopt(struct sim *self, struct fl_store *store)
{
    struct sim_history *history = &self->history;
    struct fl_error error;
    struct fl_job job;
    history->adopts = false;
    history->versions = 0;
    if (fl_registry_each(store, SIM_JOB, adopt_version, history, &error) != FL_OK ||
        fl_queue_get(store, SIM_JOB, &job, &error) != FL_OK) {
        sim_violation(self, "the copy cannot be read: %s", error.text);
        return;
    }
    history->round = job.round;
    history->attempt = job.attempt;
    history->state = job.state;
    history->phase = job.phase;
}

static void check_database(struct sim *self)
{
    struct fl_error error;
    struct fl_job job;
    struct fl_store *store = self->hub.desk->store;
    if (self->history.adopts)
        adopt(self, store);
    if (fl_registry_each(store, SIM_JOB, check_version, self, &error) != FL_OK ||
        fl_queue_get(store, SIM_JOB, &job, &error) != FL_OK)
        sim_violation(self, "the database cannot be read: %s", error.text);
    else
        check_job(self, &job);
}

/* ---- whom the coordinator counts ---- */

static uint32_t index_of(const struct sim *self, const char *name)
{
    uint32_t i = 0;
    while (i < self->site_count && strcmp(self->sites[i].name, name) != 0)
        i++;
    return i;
}

static void check_counted(struct sim *self, const struct sim_cohort *cohort)
{
    const struct sim_cohort *old = &self->cohort;
    if (old->valid && old->round == cohort->round && old->attempt == cohort->attempt &&
        (old->counted_count != cohort->counted_count ||
         old->trained_count != cohort->trained_count ||
         memcmp(old->counted, cohort->counted, sizeof(old->counted)) != 0))
        sim_violation(self, "the survivors of round %u attempt %u have changed", cohort->round,
                      cohort->attempt);
}

static void note_cohort(struct sim *self)
{
    const struct fl_server *server = self->hub.server;
    const struct fl_stage *stage = server->stage;
    const struct fl_rank_plan *plan = &stage->layout->ranks;
    struct sim_cohort cohort = {.valid = true,
                                .round = stage->round,
                                .attempt = stage->attempt,
                                .retraining = server->round->retraining,
                                .trained_count = stage->count,
                                .ranges = server->attempt.ranges};
    memcpy(cohort.root, server->attempt.start_root, FL_HASH_BYTES);
    for (uint32_t i = 0; i < stage->count; i++) {
        const struct fl_member *m = fl_round_find(server->round, stage->sites[i]);
        cohort.trained[i] = index_of(self, stage->names[i]);
        cohort.counted[i] = m && m->uploaded;
        cohort.counted_count += cohort.counted[i];
    }
    check_counted(self, &cohort);
    if (fl_rank_plan_create(&cohort.plan, plan->sites, plan->modules) != FL_OK)
        return;
    memcpy(cohort.plan.ranks, plan->ranks, sizeof(uint16_t) * plan->sites * plan->modules);
    memcpy(cohort.plan.global, plan->global, sizeof(uint16_t) * plan->modules);
    fl_rank_plan_free(&self->cohort.plan);
    self->cohort = cohort;
}

/* What the round holds to be so, the site has said, in this attempt. */
static void check_members(struct sim *self)
{
    const struct fl_round *round = self->hub.server->round;
    for (uint32_t i = 0; i < round->count && round->round < SIM_ROUNDS_MAX + 2; i++) {
        const struct fl_member *m = &round->members[i];
        uint32_t site = m->site - 1; /* as they were enrolled */
        if (!m->cohort || site >= self->site_count || self->sites[site].hostile)
            continue;
        if (self->fit[site][round->round] != round->attempt)
            sim_violation(self, "site%u is in attempt %u and took the offer of attempt %u", site,
                          round->attempt, self->fit[site][round->round]);
        if (m->trained && self->trained[site][round->round] != round->attempt)
            sim_violation(self, "site%u has trained in attempt %u and said so in attempt %u", site,
                          round->attempt, self->trained[site][round->round]);
        if (m->uploaded && self->uploads[site][round->round] != round->attempt)
            sim_violation(self, "site%u has uploaded in attempt %u and said so in attempt %u", site,
                          round->attempt, self->uploads[site][round->round]);
        if (round->state == FL_ROUND_AGGREGATE && m->revoked)
            sim_violation(self, "site%u is revoked and counted", site);
    }
}

static void check_seats(struct sim *self)
{
    const struct fl_server *server = self->hub.server;
    uint8_t live[SIM_SITES_MAX + 2] = {0};
    if (server->seat_count > self->conn_count || server->seat_count > 16 * self->site_count)
        sim_violation(self, "%u seats", server->seat_count);
    for (uint32_t i = 0; i < server->seat_count; i++) {
        const struct fl_seat *seat = server->seats[i];
        if (!seat->live)
            continue;
        if (self->sites[seat->site - 1].was_revoked &&
            fl_roster_by_id(self->hub.desk->roster, seat->site)->revoked)
            sim_violation(self, "%s has a session and no right to it", seat->name);
        if (seat->site < sizeof(live) && live[seat->site]++)
            sim_violation(self, "%s has two live sessions", seat->name);
    }
}

void sim_check_hub(struct sim *self)
{
    const struct fl_server *server = self->hub.server;
    const struct sim_history *history = &self->history;
    check_seats(self);
    if (!server->job.id && history->state != FL_JOB_RUNNING && history->state != FL_JOB_PAUSED &&
        history->state != FL_JOB_QUEUED)
        return;
    static const uint32_t often = 32;
    bool moved = history->adopts || server->round->round != history->round ||
                 server->round->attempt != history->attempt || !server->job.id;
    if (moved || self->counts.steps % often == 0)
        check_database(self);
    if (server->job.id && server->round->state >= FL_ROUND_TRAIN &&
        server->round->state <= FL_ROUND_AGGREGATE)
        check_members(self);
    if (server->job.id && server->stage && server->has_attempt &&
        server->round->state == FL_ROUND_AGGREGATE)
        note_cohort(self);
}

/* Nothing is sealed twice in one attempt, whatever happened to the machine. */
static void check_sealed(struct sim_site *site, const struct fl_wire *message)
{
    const uint8_t *root = message->as.upload.update.root;
    uint32_t round = message->round;
    if (site->hostile)
        return;
    if (site->sealed_attempt[round] == message->attempt &&
        memcmp(site->sealed[round], root, FL_HASH_BYTES) != 0)
        sim_violation(site->sim, "%s sealed two updates for round %u attempt %u", site->name, round,
                      message->attempt);
    if (site->sealed_attempt[round] > message->attempt)
        sim_violation(site->sim, "%s offers an update for attempt %u after one for attempt %u",
                      site->name, message->attempt, site->sealed_attempt[round]);
    site->sealed_attempt[round] = message->attempt;
    memcpy(site->sealed[round], root, FL_HASH_BYTES);
}

static void keep_most(uint32_t *attempt, uint32_t said)
{
    *attempt = said > *attempt ? said : *attempt;
}

void sim_check_frame(struct sim_site *site, const void *frame, size_t length)
{
    struct sim *self = site->sim;
    struct fl_wire message;
    struct fl_error error;
    if (fl_wire_decode(frame, length, &message, &error) != FL_OK) {
        if (!site->hostile)
            sim_violation(self, "%s said what cannot be read: %s", site->name, error.text);
        return;
    }
    sim_check_shares(site, &message, frame, length);
    if (message.round < SIM_ROUNDS_MAX + 2) {
        if (message.kind == FL_WIRE_FIT)
            keep_most(&self->fit[site->owner][message.round], message.attempt);
        if (message.kind == FL_WIRE_TRAINED)
            keep_most(&self->trained[site->owner][message.round], message.attempt);
        if (message.kind == FL_WIRE_UPLOAD) {
            keep_most(&self->uploads[site->owner][message.round], message.attempt);
            check_sealed(site, &message);
        }
    }
    fl_wire_free(&message);
}

/* ---- the end ---- */

/* A site that never was given a task knows of no job. */
static bool took_part(const struct sim_site *site)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    return fl_path_join(path, site->directory, "state/seen.json", &error) == FL_OK &&
           fl_path_exists(path);
}

/* The hash of the weights in a folder of the site's adapters. */
static bool hash_adapter(const struct sim_site *site, const char *folder,
                         uint8_t hash[FL_HASH_BYTES])
{
    struct fl_error error;
    struct fl_buf bytes;
    char path[FL_PATH_BYTES], name[96];
    (void)snprintf(name, sizeof(name), "adapters/%s/adapter_model.safetensors", folder);
    if (fl_path_join(path, site->directory, name, &error) != FL_OK || !fl_path_exists(path) ||
        fl_fs_read(path, 1u << 24, &bytes, &error) != FL_OK)
        return false;
    fl_sha256(bytes.data, bytes.length, hash);
    fl_buf_free(&bytes);
    return true;
}

static bool has_newest(const struct sim *self, const struct sim_site *site)
{
    const struct sim_history *history = &self->history;
    uint8_t hash[FL_HASH_BYTES];
    return hash_adapter(site, "1", hash) &&
           memcmp(hash, history->sha256[history->versions], FL_HASH_BYTES) == 0;
}

/* A later version than the one that was noted is as good; behind a restore there may be another of
   its number. */
static bool has_from(const struct sim_site *site, const struct fl_seen *seen)
{
    const struct sim *self = site->sim;
    uint32_t numbers[SIM_ROUNDS_MAX + 1];
    uint8_t hash[FL_HASH_BYTES];
    uint32_t count = fl_sitestore_versions(&site->store, SIM_JOB, seen->number - 1, numbers,
                                           SIM_ROUNDS_MAX + 1);
    for (uint32_t i = 0; i < count && numbers[i] <= SIM_ROUNDS_MAX; i++) {
        char folder[32];
        (void)snprintf(folder, sizeof(folder), "%d@%u", SIM_JOB, numbers[i]);
        const uint8_t *expected = numbers[i] == seen->number ? seen->version
                                                             : self->history.sha256[numbers[i]];
        if (hash_adapter(site, folder, hash) &&
            (self->counts.restores > 0 || memcmp(hash, expected, FL_HASH_BYTES) == 0))
            return true;
    }
    return hash_adapter(site, "1", hash) && memcmp(hash, seen->version, FL_HASH_BYTES) == 0;
}

void sim_check_site(struct sim_site *site)
{
    struct fl_seen seen;
    struct fl_error error;
    if (fl_sitestore_load_seen(&site->store, &seen, &error) != FL_OK)
        return; /* whoever cannot read it does not start */
    if (seen.job == SIM_JOB && seen.has_version && seen.number > 0 && !has_from(site, &seen))
        sim_violation(site->sim, "%s noted version %u and has none from it on", site->name,
                      seen.number);
}

void sim_check_restore(struct sim *self)
{
    struct sim_history *history = &self->history;
    uint32_t have = 0;
    for (uint32_t i = 0; i < self->site_count && history->versions > 0; i++)
        have += !self->sites[i].was_revoked && has_newest(self, &self->sites[i]);
    history->kept = have >= 2 ? history->versions : 0;
    history->adopts = true;
    history->state = FL_JOB_RUNNING;
    history->committed_at = self->now;
}

bool sim_check_delivered(struct sim *self)
{
    for (uint32_t i = 0; i < self->site_count; i++) {
        if (took_part(&self->sites[i]) && !has_newest(self, &self->sites[i]))
            return false;
    }
    return true;
}

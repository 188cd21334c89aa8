/* labour.c - see labour.h. */
#include "worker/labour_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "crypto/prg.h"
#include "crypto/sealed.h"
#include "job/offer.h"

void fl_labour_init(struct fl_labour *self, const struct fl_siteconf *conf,
                    const struct fl_sitestore *store, struct fl_trainer *trainer,
                    void (*on_progress)(void *, const struct fl_trainer_progress *),
                    void *progress_context)
{
    memset(self, 0, sizeof(*self));
    self->conf = conf;
    self->store = store;
    self->trainer = *trainer;
    memset(trainer, 0, sizeof(*trainer));
    self->on_progress = on_progress;
    self->progress_context = progress_context;
}

void fl_labour_free(struct fl_labour *self)
{
    fl_masking_forget(&self->masking);
    fl_ledger_close(&self->ledger);
    fl_trust_close(&self->trust);
    fl_trainer_destroy(&self->trainer);
    fl_inventory_free(&self->targets);
}

/* ---- fit ---- */

/* A, B and m at the largest rank that can be, and the header of safetensors. */
static uint64_t adapter_bytes_max(const struct fl_inventory *targets)
{
    uint64_t bytes = 4096;
    for (uint32_t i = 0; i < targets->count; i++) {
        const struct fl_module *m = &targets->modules[i];
        uint64_t rank = m->in < m->out ? m->in : m->out;
        if (rank > FL_RANK_MAX)
            rank = FL_RANK_MAX;
        bytes += 4 * rank * ((uint64_t)m->in + m->out) + 4 * (uint64_t)m->out + 1536;
    }
    return bytes < FL_ADAPTER_BYTES_MAX ? bytes : FL_ADAPTER_BYTES_MAX;
}

static enum fl_status do_fit(struct fl_labour *self, const struct fl_work *work,
                             struct fl_work_result *result, struct fl_error *error)
{
    struct fl_buf bytes;
    struct fl_inventory targets = {0};
    fl_buf_init(&bytes, FL_ADAPTER_BYTES_MAX);
    result->offer = work->offer;
    result->of_own_data = true;
    enum fl_status status = self->trainer.fit(self->trainer.context, self->conf, &work->offer,
                                              &result->fit, error);
    if ((status == FL_ENOTFOUND || status == FL_EFORMAT) && result->fit.fault == FL_FAULT_MODEL)
        result->code = FL_REFUSAL_MODEL;
    if (status == FL_OK)
        status = fl_inventory_select(&result->fit.inventory, work->offer.targets, &targets, error);
    if (status == FL_OK)
        status = fl_inventory_encode(&result->fit.inventory, &bytes);
    if (status == FL_OK)
        status = fl_object_open_memory(bytes.data, bytes.length, &result->object, error);
    if (status == FL_OK) {
        fl_inventory_free(&self->targets);
        self->targets = targets;
        result->start_bytes_max = adapter_bytes_max(&targets);
        self->job = work->key.job;
        memcpy(self->data, result->fit.data, FL_HASH_BYTES);
        memset(&targets, 0, sizeof(targets));
    }
    fl_inventory_free(&targets);
    fl_inventory_free(&result->fit.inventory);
    fl_buf_free(&bytes);
    return status;
}

/* ---- train ---- */

uint16_t fl_labour_rank_at(const struct fl_wire_bytes *ranks, uint32_t index)
{
    return fl_load_u16(ranks->data + 2 * index);
}

static enum fl_status check_ranks(const struct fl_labour *self, const struct fl_wire_offer *offer,
                                  const struct fl_wire_task *task, struct fl_work_result *result,
                                  struct fl_error *error)
{
    uint32_t count = self->targets.count;
    if (task->global_ranks.length != 2 * (size_t)count)
        return fl_fail(error, FL_EFORMAT, "the task names %zu modules, the job has %u here",
                       task->global_ranks.length / 2, count);
    for (uint32_t i = 0; i < count; i++) {
        const struct fl_module *m = &self->targets.modules[i];
        uint32_t least = m->in < m->out ? m->in : m->out;
        uint16_t global = fl_labour_rank_at(&task->global_ranks, i),
                 own = fl_labour_rank_at(&task->site_ranks, i);
        if (global == 0 || global > least || own == 0 || own > global)
            return fl_fail(error, FL_EFORMAT, "%s: the task gives rank %u of %u", m->name, own,
                           global);
        if (offer->dora && own != global)
            return fl_fail(error, FL_EFORMAT,
                           "%s: the task gives rank %u of %u, and magnitudes belong to all of them",
                           m->name, own, global);
        result->code = FL_REFUSAL_RANK;
        if (own > offer->rank_max || own > self->conf->max_rank)
            return fl_fail(error, FL_EREFUSED, "%s: rank %u is above what was offered", m->name,
                           own);
        result->code = FL_REFUSAL_NONE;
    }
    return FL_OK;
}

enum fl_status fl_labour_shape(const struct fl_labour *self, const struct fl_wire_offer *offer,
                               const struct fl_wire_bytes *ranks, struct fl_adapter **out,
                               struct fl_error *error)
{
    uint32_t *wide = fl_calloc(self->targets.count, sizeof(*wide));
    if (!wide)
        return fl_fail_memory(error);
    for (uint32_t i = 0; i < self->targets.count; i++)
        wide[i] = fl_labour_rank_at(ranks, i);
    enum fl_status status = fl_adapter_create(&self->targets, offer->rank_default, offer->alpha,
                                              wide, out, error);
    fl_free(wide);
    if (status != FL_OK)
        return status;
    (*out)->dropout = offer->dropout;
    if (!offer->dora || fl_adapter_add_magnitudes(*out) == FL_OK)
        return FL_OK;
    fl_adapter_destroy(out);
    return fl_fail_memory(error);
}

uint64_t fl_labour_data_seed(const struct fl_labour *self, const struct fl_wire_offer *offer,
                             uint32_t round)
{
    struct fl_prf prf;
    uint8_t seed[FL_SEED_BYTES];
    fl_prf_begin_u64(&prf, offer->seed, "fedlora-data-order-v1");
    fl_prf_text(&prf, self->name);
    fl_prf_u64(&prf, round);
    if (offer->retraining > 0)
        fl_prf_u64(&prf, offer->retraining);
    fl_prf_end(&prf, seed);
    return fl_load_u64(seed);
}

void fl_work_fingerprint(const struct fl_wire_offer *offer, const struct fl_wire_task *task,
                         uint8_t out[FL_HASH_BYTES])
{
    struct fl_prf prf;
    static const uint8_t none[FL_SEED_BYTES];
    fl_prf_begin(&prf, none, "fedlora-delta-v1");
    fl_prf_bytes(&prf, offer->job_hash, FL_HASH_BYTES);
    fl_prf_bytes(&prf, offer->manifest, FL_HASH_BYTES);
    fl_prf_bytes(&prf, task->start.root, FL_HASH_BYTES);
    fl_prf_bytes(&prf, task->site_ranks.data, task->site_ranks.length);
    fl_prf_u64(&prf, task->first_step);
    fl_prf_u64(&prf, (uint64_t)task->train_a | (uint64_t)task->train_b << 1 |
                         (uint64_t)task->train << 2 | (uint64_t)task->evaluate << 3);
    fl_prf_end(&prf, out);
}

void fl_labour_fingerprint(const struct fl_labour *self, const struct fl_work *work,
                           uint8_t out[FL_HASH_BYTES])
{
    static const uint8_t none[FL_SEED_BYTES];
    uint8_t settings[FL_HASH_BYTES], encoding[FL_HASH_BYTES];
    struct fl_prf prf;
    fl_work_fingerprint(&work->offer, &work->task, out);
    /* the job's hash is only what the coordinator says: a delta of other settings under the same
       hash would be new work to the ledger, and could be summed again without a site */
    fl_job_training_settings(&work->offer, &work->task, settings);
    fl_job_encoding(&work->offer, encoding); /* a delta is kept as it was clipped */
    fl_prf_begin(&prf, none, "fedlora-delta-data-v2");
    fl_prf_bytes(&prf, out, FL_HASH_BYTES);
    fl_prf_bytes(&prf, settings, FL_HASH_BYTES);
    fl_prf_bytes(&prf, encoding, FL_HASH_BYTES);
    fl_prf_u64(&prf, fl_labour_data_seed(self, &work->offer, work->key.round));
    fl_prf_bytes(&prf, self->data, FL_HASH_BYTES);
    fl_prf_end(&prf, out);
}

static enum fl_status train_anew(struct fl_labour *self, const struct fl_work *work,
                                 const uint8_t fingerprint[FL_HASH_BYTES],
                                 struct fl_work_result *result, struct fl_error *error)
{
    struct fl_adapter *start = NULL;
    uint16_t *ranks = fl_calloc(self->targets.count, sizeof(*ranks));
    struct fl_trainer_result done = {0};
    enum fl_status status = ranks ? FL_OK : fl_fail_memory(error);
    if (status == FL_OK)
        status = fl_labour_shape(self, &work->offer, &work->task.global_ranks, &start, error);
    if (status == FL_OK)
        status = fl_adapter_decode(start, work->bytes, work->length, error);
    if (status != FL_OK)
        goto out;
    for (uint32_t i = 0; i < self->targets.count; i++)
        ranks[i] = fl_labour_rank_at(&work->task.site_ranks, i);
    struct fl_trainer_task task = {
        .conf = self->conf,
        .offer = &work->offer,
        .round = work->key.round,
        .start = start,
        .site_ranks = ranks,
        .job_start = work->key.round == 1,
        .train = work->task.train,
        .evaluate = work->task.evaluate,
        .train_a = work->task.train_a,
        .train_b = work->task.train_b,
        .first_step = work->task.first_step,
        .total_steps = work->task.total_steps,
        .data_seed = fl_labour_data_seed(self, &work->offer, work->key.round),
        .on_progress = self->on_progress,
        .context = self->progress_context,
        .stop = &self->stop};
    status = self->trainer.run(self->trainer.context, &task, &done, error);
    result->of_own_data = status != FL_OK; /* which may have been read again */
    if (status == FL_OK && done.delta && !fl_adapter_finite(done.delta))
        status = fl_fail(error, FL_ERANGE, "training gave values that are not finite");
    if (status != FL_OK)
        goto out;
    result->stats =
        (struct fl_delta_stats){.stats = done.stats, .steps = done.steps, .seconds = done.seconds};
    status = fl_sitestore_save_delta(self->store, work->key.job, work->key.round, fingerprint,
                                     done.delta, &result->stats, error);
out:
    fl_adapter_destroy(&done.delta);
    fl_adapter_destroy(&start);
    fl_free(ranks);
    return status;
}

enum fl_status fl_labour_load_kept(struct fl_labour *self, const struct fl_work *work,
                                   const uint8_t fingerprint[FL_HASH_BYTES],
                                   struct fl_adapter **delta, struct fl_delta_stats *stats,
                                   struct fl_error *error)
{
    *delta = NULL;
    enum fl_status status = FL_OK;
    if (work->task.train)
        status = fl_labour_shape(self, &work->offer, &work->task.site_ranks, delta, error);
    if (status == FL_OK)
        status = fl_sitestore_load_delta(self->store, work->key.job, work->key.round, fingerprint,
                                         *delta, stats, error);
    if (status != FL_OK)
        fl_adapter_destroy(delta);
    return status;
}

/* What is measured on the start is the same each time that the round is trained: told in two sums,
   of sites of which one differs, it would be told of that one. */
static enum fl_status check_retraining(const struct fl_work *work, struct fl_work_result *result,
                                       struct fl_error *error)
{
    if (work->offer.retraining == 0 || (work->task.train && !work->task.evaluate))
        return FL_OK;
    return fl_labour_refuse(result, error,
                            "a round is to be trained anew, and what is measured again would show "
                            "single sites");
}

static enum fl_status do_train(struct fl_labour *self, const struct fl_work *work,
                               struct fl_work_result *result, struct fl_error *error)
{
    if (self->job != work->key.job)
        return fl_fail(error, FL_EINVAL, "the job was not checked here");
    enum fl_status status = check_ranks(self, &work->offer, &work->task, result, error);
    if (status == FL_OK)
        status = check_retraining(work, result, error);
    if (status != FL_OK)
        return status;
    uint8_t fingerprint[FL_HASH_BYTES];
    fl_labour_fingerprint(self, work, fingerprint);
    struct fl_adapter *kept = NULL;
    status = fl_labour_load_kept(self, work, fingerprint, &kept, &result->stats, error);
    fl_adapter_destroy(&kept);
    result->reused = status == FL_OK;
    if (status == FL_ENOTFOUND)
        status = train_anew(self, work, fingerprint, result, error);
    if (status == FL_OK && result->stats.stats.eval_tokens > 0)
        self->measured = work->key;
    return status;
}

/* ---- keep ---- */

static void write_card(const struct fl_labour *self, const struct fl_work *work, struct fl_buf *out)
{
    const char *model = fl_siteconf_model(self->conf, work->offer.model);
    fl_buf_printf(out,
                  "---\nlibrary_name: peft\ntags:\n- lora\n- federated\n---\n\n"
                  "# %s: global adapter, version %u\n\n"
                  "LoRA adapter for `%s`, averaged over %u sites by fedlora (job %" PRIu64
                  ", strategy %s). No site's data or own update is in it, only their mean.\n\n"
                  "- target modules: %s\n- rank %u, alpha %g\n",
                  work->offer.name, work->version.version, work->offer.model, work->version.workers,
                  work->key.job, work->offer.strategy, work->offer.targets,
                  work->offer.rank_default, work->offer.alpha);
    if (work->offer.dora)
        fl_buf_printf(out, "- DoRA: magnitudes are averaged apart from A and B, which is not "
                           "exact\n");
    if (work->version.has_eval)
        fl_buf_printf(out,
                      "- held-out loss of the version before it: %.4f over %" PRIu64 " tokens\n",
                      work->version.eval_loss, work->version.eval_tokens);
    fl_buf_printf(out,
                  "\nTry it:\n\n    fedlora-worker generate --model %s --adapter . --prompt TEXT\n",
                  model ? model : "MODEL");
}

/* A version may come before this process has checked any offer of its job. */
static enum fl_status know_job(struct fl_labour *self, const struct fl_work *work,
                               struct fl_error *error)
{
    struct fl_work_result checked = {.kind = FL_WORK_FIT};
    if (self->job == work->key.job)
        return FL_OK;
    enum fl_status status = do_fit(self, work, &checked, error);
    fl_object_close(&checked.object);
    return status;
}

static enum fl_status keep_version(struct fl_labour *self, const struct fl_work *work,
                                   struct fl_work_result *result, struct fl_error *error)
{
    struct fl_adapter *adapter = NULL;
    struct fl_buf card;
    uint8_t sha256[FL_HASH_BYTES];
    fl_buf_init(&card, 65536);
    result->version = work->version.version;
    result->last = work->version.last;
    memcpy(result->sha256, work->version.sha256, FL_HASH_BYTES);
    fl_sha256(work->bytes, work->length, sha256);
    if (memcmp(sha256, work->version.sha256, FL_HASH_BYTES) != 0)
        return fl_fail(error, FL_EFORMAT, "version %u has another hash than was announced",
                       work->version.version);
    enum fl_status status = know_job(self, work, error);
    if (status == FL_OK && work->version.ranks.length != 2 * (size_t)self->targets.count)
        status = fl_fail(error, FL_EFORMAT, "version %u does not fit the job's modules",
                         work->version.version);
    if (status == FL_OK)
        status = fl_labour_shape(self, &work->offer, &work->version.ranks, &adapter, error);
    if (status == FL_OK)
        status = fl_adapter_decode(adapter, work->bytes, work->length, error);
    if (status != FL_OK)
        goto out;
    fl_wire_set_text(adapter->base_model, sizeof(adapter->base_model), work->offer.model);
    write_card(self, work, &card);
    status = fl_sitestore_keep_adapter(self->store, work->key.job, work->version.version, adapter,
                                       fl_buf_text(&card), self->conf->keep_versions, result->path,
                                       error);
    if (status == FL_OK)
        fl_sitestore_forget(self->store, work->key.job, work->version.version);
out:
    fl_buf_free(&card);
    fl_adapter_destroy(&adapter);
    return status;
}

/* The last version of a job may come while the next job runs: what is known of that one stays. */
static enum fl_status do_keep(struct fl_labour *self, const struct fl_work *work,
                              struct fl_work_result *result, struct fl_error *error)
{
    struct fl_inventory targets = self->targets;
    uint64_t job = self->job;
    uint8_t data[FL_HASH_BYTES];
    if (job == work->key.job || job == 0)
        return keep_version(self, work, result, error);
    memcpy(data, self->data, FL_HASH_BYTES);
    self->targets = (struct fl_inventory){0};
    self->job = 0;
    enum fl_status status = keep_version(self, work, result, error);
    fl_inventory_free(&self->targets);
    self->targets = targets;
    self->job = job;
    memcpy(self->data, data, FL_HASH_BYTES);
    return status;
}

/* ---- secrets of attempts that are over ---- */

static enum fl_status do_forget(struct fl_labour *self, const struct fl_work *work,
                                struct fl_work_result *result, struct fl_error *error)
{
    (void)work;
    (void)result;
    (void)error;
    fl_masking_forget(&self->masking);
    return FL_OK;
}

static void forget_other_attempts(struct fl_labour *self, const struct fl_work *work)
{
    const struct fl_attempt *own = &self->masking.key, *key = &work->key;
    bool same = own->job == key->job && own->round == key->round && own->attempt == key->attempt;
    bool over = own->job == key->job && key->round >= own->round; /* by a version of it */
    if (work->kind == FL_WORK_KEEP ? over : !same)
        fl_masking_forget(&self->masking);
}

void fl_labour_do(struct fl_labour *self, const struct fl_work *work, struct fl_work_result *result)
{
    static enum fl_status (*const kinds[])(struct fl_labour *, const struct fl_work *,
                                           struct fl_work_result *, struct fl_error *) = {
        [FL_WORK_FIT] = do_fit,
        [FL_WORK_TRAIN] = do_train,
        [FL_WORK_SEAL] = fl_labour_seal,
        [FL_WORK_KEEP] = do_keep,
        [FL_WORK_KEYS] = fl_labour_keys,
        [FL_WORK_COHORT] = fl_labour_cohort,
        [FL_WORK_SURVIVORS] = fl_labour_survivors,
        [FL_WORK_UNMASK] = fl_labour_unmask,
        [FL_WORK_FORGET] = do_forget,
    };
    forget_other_attempts(self, work);
    result->status = kinds[work->kind](self, work, result, &result->error);
    if (result->status != FL_OK && result->reply) { /* nothing of what was refused goes on */
        sodium_memzero(result->reply, result->reply_bytes);
        fl_free(result->reply);
        result->reply = NULL;
        result->reply_bytes = 0;
    }
    if (result->status != FL_OK && !result->error.text[0])
        (void)fl_fail(&result->error, result->status, "%s", fl_status_text(result->status));
}

/*
 * sealing.c - the update of an attempt: encoded on the grid, masked where the job has secure
 * aggregation, sealed for the coordinator, durable before a byte leaves, and never made twice.
 */
#include <inttypes.h>
#include <string.h>

#include "adapter/algebra.h"
#include "base/alloc.h"
#include "crypto/prg.h"
#include "crypto/sealed.h"
#include "job/offer.h"
#include "job/attempt.h"
#include "worker/labour_internal.h"

static enum fl_status range_of(const struct fl_wire_offer *offer, enum fl_factors factor,
                               const struct fl_adapter *start, double *out, struct fl_error *error)
{
    if (offer->update_range > 0.0) {
        *out = offer->update_range;
        return FL_OK;
    }
    double own = factor == FL_FACTOR_A ? offer->lr_a : offer->lr_b;
    return fl_auto_range(offer->optimizer == FL_WIRE_OPTIMIZER_SGD ? FL_RULE_SGD : FL_RULE_ADAMW,
                         own > 0.0 ? own : offer->lr, offer->steps, offer->weight_decay,
                         offer->grad_clip, fl_adapter_max_abs(start, factor), out, error);
}

enum fl_status fl_labour_ranges(const struct fl_labour *self, const struct fl_work *work,
                                struct fl_round_ranges *out, struct fl_error *error)
{
    struct fl_adapter *start = NULL;
    *out = (struct fl_round_ranges){.factors = fl_job_factors(&work->offer, &work->task),
                                    .of = {.a = 1.0, .b = 1.0, .m = 1.0}};
    enum fl_status status = fl_labour_shape(self, &work->offer, &work->task.global_ranks, &start,
                                            error);
    if (status == FL_OK)
        status = fl_adapter_decode(start, work->bytes, work->length, error);
    if (status == FL_OK && out->factors & FL_FACTOR_A)
        status = range_of(&work->offer, FL_FACTOR_A, start, &out->of.a, error);
    if (status == FL_OK && out->factors & FL_FACTOR_B)
        status = range_of(&work->offer, FL_FACTOR_B, start, &out->of.b, error);
    if (status == FL_OK && out->factors & FL_FACTOR_M)
        status = range_of(&work->offer, FL_FACTOR_M, start, &out->of.m, error);
    fl_adapter_destroy(&start);
    return status;
}

enum fl_status fl_labour_grid(const struct fl_wire_offer *offer, uint32_t sites,
                              struct fl_grid *out)
{
    return fl_grid_init(out, sites, offer->weight_cap, offer->steps, offer->batch_size,
                        offer->seq_len);
}

/* As the coordinator describes it, where no masks are: it sees each update anyway. */
static enum fl_status make_layout(struct fl_labour *self, const struct fl_work *work,
                                  struct fl_layout **out, struct fl_error *error)
{
    uint32_t count = self->targets.count;
    struct fl_round_ranges ranges;
    uint16_t *ranks = fl_calloc(2 * (size_t)count, sizeof(*ranks));
    enum fl_status status = ranks ? fl_labour_ranges(self, work, &ranges, error)
                                  : fl_fail_memory(error);
    for (uint32_t i = 0; status == FL_OK && i < count; i++) {
        ranks[i] = fl_labour_rank_at(&work->task.global_ranks, i);
        ranks[count + i] = fl_labour_rank_at(&work->task.site_ranks, i);
    }
    if (status == FL_OK)
        status = fl_layout_create_site(
            &self->targets, ranks, ranks + count, work->collect.tiers.data,
            (uint32_t)work->collect.tiers.length, ranges.factors, ranges.of, out, error);
    fl_free(ranks);
    return status;
}

static enum fl_status write_sealed(struct fl_labour *self, const struct fl_work *work,
                                   const char *path, const struct fl_buf *plain,
                                   struct fl_error *error)
{
    struct fl_seal_context context = {.purpose = "update",
                                      .sender = self->name,
                                      .job = work->key.job,
                                      .round = work->key.round,
                                      .attempt = work->key.attempt};
    struct fl_fs_writer writer;
    struct fl_sealer *sealer = NULL;
    enum fl_status status = fl_fs_writer_open(&writer, path, 0600, error);
    if (status != FL_OK)
        return status;
    status = fl_sealer_open(work->collect.sealing_key, &context, fl_entropy_system(),
                            fl_seal_to_writer(&writer), &sealer, error);
    if (status == FL_OK)
        status = fl_sealer_write(sealer, plain->data, plain->length, error);
    if (status == FL_OK)
        status = fl_sealer_finish(sealer, error);
    if (status == FL_OK)
        status = fl_fs_writer_commit(&writer, error);
    fl_sealer_close(&sealer);
    fl_fs_writer_close(&writer);
    return status;
}

static bool has_numbers(const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (values[i] != 0.0f)
            return true;
    }
    return false;
}

/* Names what was trained by its numbers alone. A delta of zeros only is none. */
static void name_delta(struct fl_masking *m, const struct fl_adapter *delta)
{
    struct fl_prf prf;
    static const uint8_t none[FL_SEED_BYTES];
    fl_prf_begin(&prf, none, "fedlora-ledger-delta-v1");
    for (uint32_t i = 0; delta && i < delta->count; i++) {
        const struct fl_lora_module *module = &delta->modules[i];
        size_t a = (size_t)module->rank * module->module.in;
        size_t b = (size_t)module->rank * module->module.out;
        fl_prf_bytes(&prf, module->a, a * sizeof(*module->a));
        fl_prf_bytes(&prf, module->b, b * sizeof(*module->b));
        m->has_delta = m->has_delta || has_numbers(module->a, a) || has_numbers(module->b, b);
        if (!module->m)
            continue;
        fl_prf_bytes(&prf, module->m, module->module.out * sizeof(*module->m));
        m->has_delta = m->has_delta || has_numbers(module->m, module->module.out);
    }
    fl_prf_end(&prf, m->delta);
}

/* The plain bytes of the update: of this site alone, or masked. */
static enum fl_status encode(struct fl_labour *self, const struct fl_work *work,
                             const struct fl_adapter *delta, struct fl_work_result *result,
                             struct fl_buf *plain, struct fl_error *error)
{
    struct fl_layout *own = NULL;
    struct fl_grid grid = self->masking.grid;
    const struct fl_layout *layout = self->masking.layout;
    uint32_t index = self->masking.index;
    bool secure = work->offer.secure_aggregation;
    enum fl_status status = FL_OK;
    if (!secure) {
        status = make_layout(self, work, &own, error);
        if (status == FL_OK)
            status = fl_labour_grid(&work->offer, work->collect.cohort, &grid);
        layout = own;
        index = 0;
    }
    struct fl_update_stats stats = result->stats.stats;
    if (secure && !self->masking.sums_measures && !self->conf->share_eval) {
        stats.eval_loss_sum = 0.0;
        stats.eval_tokens = 0;
    }
    if (status == FL_OK)
        status = fl_update_encode(layout, &grid, index, delta, &stats, plain, &result->cut, error);
    if (status == FL_OK && secure) {
        name_delta(&self->masking, delta);
        status = fl_masking_apply(self, work, plain->data, result, error);
    }
    fl_layout_destroy(&own);
    return status;
}

static enum fl_status encode_and_seal(struct fl_labour *self, const struct fl_work *work,
                                      const char *path, struct fl_work_result *result,
                                      struct fl_error *error)
{
    uint8_t fingerprint[FL_HASH_BYTES];
    struct fl_adapter *delta = NULL;
    struct fl_buf plain;
    fl_buf_init(&plain, FL_ADAPTER_BYTES_MAX);
    fl_labour_fingerprint(self, work, fingerprint);
    enum fl_status status = fl_labour_load_kept(self, work, fingerprint, &delta, &result->stats,
                                                error);
    if (status == FL_OK)
        status = encode(self, work, delta, result, &plain, error);
    if (status == FL_OK)
        status = write_sealed(self, work, path, &plain, error);
    result->plain_bytes = plain.length;
    if (plain.data)
        sodium_memzero(plain.data, plain.length);
    fl_buf_free(&plain);
    fl_adapter_destroy(&delta);
    return status;
}

/* All that shapes the sealed bytes. */
static void bind_seal(const struct fl_labour *self, const struct fl_work *work,
                      uint8_t out[FL_HASH_BYTES])
{
    struct fl_prf prf;
    static const uint8_t none[FL_SEED_BYTES];
    uint8_t fingerprint[FL_HASH_BYTES];
    fl_labour_fingerprint(self, work, fingerprint);
    fl_prf_begin(&prf, none, "fedlora-sealed-v1");
    fl_prf_bytes(&prf, fingerprint, FL_HASH_BYTES);
    fl_prf_bytes(&prf, work->collect.sealing_key, sizeof(work->collect.sealing_key));
    fl_prf_bytes(&prf, work->collect.tiers.data, work->collect.tiers.length);
    fl_prf_u64(&prf, work->collect.cohort);
    fl_prf_bytes(&prf, work->collect.sharers.data, work->collect.sharers.length);
    fl_prf_end(&prf, out);
}

enum fl_status fl_labour_refuse(struct fl_work_result *result, struct fl_error *error,
                                const char *why)
{
    result->code = FL_REFUSAL_PRIVACY;
    return fl_fail(error, FL_EREFUSED, "%s", why);
}

/*
 * Nothing is sealed twice in one attempt: after a restart the same bytes are sent again (*again),
 * and a coordinator that asks for other ones, or for an attempt that is over, gets none. A file
 * that the mark does not know was never sent.
 */
static enum fl_status check_mark(const struct fl_labour *self, const struct fl_work *work,
                                 const char *path, struct fl_sealed_mark *mark, bool *again,
                                 struct fl_work_result *result, struct fl_error *error)
{
    struct fl_sealed_mark last;
    *again = false;
    *mark = (struct fl_sealed_mark){.round = work->key.round, .attempt = work->key.attempt};
    bind_seal(self, work, mark->binding);
    enum fl_status status = fl_sitestore_load_mark(self->store, self->conf->coordinator_key,
                                                   work->key.job, &last, error);
    if (status != FL_OK)
        return status;
    if (fl_attempt_before(mark->round, mark->attempt, last.round, last.attempt))
        return fl_labour_refuse(result, error,
                                "an update of a later attempt was sealed already; none for this");
    if (last.round != mark->round || last.attempt != mark->attempt)
        return fl_fs_remove(path, error);
    if (memcmp(last.binding, mark->binding, FL_HASH_BYTES) != 0)
        return fl_labour_refuse(result, error,
                                "the coordinator asks for a second, different update of an attempt "
                                "(other cohort, ranks or key)");
    if (!fl_path_exists(path))
        return fl_labour_refuse(result, error, "the update of this attempt was sent and is gone");
    *again = true;
    return FL_OK;
}

static enum fl_status check_cohort(const struct fl_labour *self, const struct fl_work *work,
                                   struct fl_work_result *result, struct fl_error *error)
{
    uint32_t cohort = work->collect.cohort;
    if (cohort >= self->conf->min_cohort && cohort >= work->offer.min_workers)
        return FL_OK;
    result->code = FL_REFUSAL_PRIVACY;
    return fl_fail(error, FL_EREFUSED,
                   "policy: min_cohort = %" PRIu64
                   " and the job's least is %u, but the coordinator "
                   "would sum %u updates",
                   self->conf->min_cohort, work->offer.min_workers, cohort);
}

enum fl_status fl_labour_seal(struct fl_labour *self, const struct fl_work *work,
                              struct fl_work_result *result, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_sealed_mark mark;
    bool again = false;
    if (self->job != work->key.job)
        return fl_fail(error, FL_EINVAL, "the job was not checked here");
    enum fl_status status = check_cohort(self, work, result, error);
    if (status == FL_OK && work->offer.secure_aggregation)
        status = fl_masking_check(self, work, true, result, error);
    if (status == FL_OK)
        status = fl_sitestore_upload_path(self->store, work->key.job, work->key.round,
                                          work->key.attempt, path, error);
    if (status == FL_OK)
        status = check_mark(self, work, path, &mark, &again, result, error);
    if (status == FL_OK && !again)
        status = encode_and_seal(self, work, path, result, error);
    if (status == FL_ENOTFOUND) /* a delta that was damaged is trained again in another attempt */
        status = fl_fail(error, FL_EIO, "the kept delta of this round cannot be read any more");
    if (status == FL_OK && !again)
        status = fl_sitestore_save_mark(self->store, self->conf->coordinator_key, work->key.job,
                                        &mark, error);
    if (status == FL_OK)
        status = fl_sha256_file(path, result->sha256, error);
    if (status == FL_OK)
        status = fl_object_open_file(path, &result->object, error);
    return status;
}

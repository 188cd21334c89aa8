/* offer.c - see offer.h. */
#include "job/offer.h"

#include <stdio.h>
#include <string.h>

#include "crypto/prg.h"

/* The largest rank that this site may be given in any round. */
static uint32_t rank_limit(const struct fl_job_spec *spec, const char *worker)
{
    uint32_t most = fl_rank_schedule_largest(&spec->ranks);
    for (uint32_t i = 0; i < spec->ranks.count; i++) {
        const struct fl_rank_rule *rule = &spec->ranks.rules[i];
        if (rule->kind == FL_RANK_WORKER && strcmp(rule->worker, worker) == 0 && rule->rank < most)
            most = rule->rank;
    }
    return most;
}

static void fill_training(const struct fl_job_spec *spec, struct fl_wire_offer *offer)
{
    offer->steps = (uint32_t)spec->steps;
    offer->batch_size = (uint32_t)spec->batch_size;
    offer->seq_len = (uint32_t)spec->seq_len;
    offer->lr = spec->lr;
    offer->lr_a = spec->lr_a;
    offer->lr_b = spec->lr_b;
    offer->schedule = (enum fl_wire_schedule)spec->schedule;
    offer->warmup = spec->warmup;
    offer->weight_decay = spec->weight_decay;
    offer->grad_clip = spec->grad_clip;
    offer->shuffle = spec->shuffle;
    offer->compute = (enum fl_wire_compute)spec->compute;
    offer->threads = (uint32_t)spec->threads;
    offer->optimizer = (enum fl_wire_optimizer)spec->optimizer;
}

void fl_job_offer(const struct fl_job_spec *spec, const uint8_t job_hash[FL_HASH_BYTES],
                  const char *site, struct fl_wire_offer *offer)
{
    memset(offer, 0, sizeof(*offer));
    (void)snprintf(offer->name, sizeof offer->name, "%s", spec->name);
    (void)snprintf(offer->model, sizeof offer->model, "%s", spec->model);
    if (fl_unhex(spec->model_sha256, offer->manifest, sizeof offer->manifest) != FL_OK)
        memset(offer->manifest, 0, sizeof offer->manifest); /* the job's check excludes it */
    (void)snprintf(offer->strategy, sizeof offer->strategy, "%s",
                   fl_strategy_info((enum fl_strategy)spec->strategy)->name);
    offer->rounds = (uint32_t)spec->rounds;
    offer->seed = spec->seed;
    (void)snprintf(offer->targets, sizeof offer->targets, "%s", spec->targets);
    offer->alpha = spec->alpha;
    offer->rank_default = (uint32_t)spec->ranks.fallback;
    offer->rank_max = rank_limit(spec, site);
    offer->dropout = spec->dropout;
    fill_training(spec, offer);
    offer->min_workers = (uint32_t)spec->min_workers;
    offer->secure_aggregation = spec->secure_aggregation;
    offer->update_range = spec->update_range;
    offer->clip_norm = spec->clip_norm;
    offer->weight_cap = spec->weight_cap;
    offer->evaluate_every = (uint32_t)spec->eval_every;
    offer->evaluate_rows = (uint32_t)spec->eval_rows;
    memcpy(offer->job_hash, job_hash, FL_HASH_BYTES);
    offer->liveness_ms = (uint32_t)spec->liveness_timeout;
    offer->dora = spec->dora;
}

enum fl_factors fl_job_factors(const struct fl_wire_offer *offer, const struct fl_wire_task *task)
{
    if (!task->train)
        return FL_FACTORS_NONE;
    return (task->train_a ? FL_FACTOR_A : 0u) | (task->train_b ? FL_FACTOR_B : 0u) |
           (offer->dora ? FL_FACTOR_M : 0u);
}

/* ---- hashes ---- */

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* Behind a task's own bits: 0 without magnitudes, so that jobs without them hash as ever. */
static uint64_t dora_bit(const struct fl_wire_offer *offer, unsigned place)
{
    return (uint64_t)offer->dora << place;
}

static void hash_training(struct fl_prf *prf, const struct fl_wire_offer *o)
{
    const double numbers[] = {o->alpha,        o->dropout,   o->lr,           o->lr_a,     o->lr_b,
                              o->weight_decay, o->grad_clip, o->update_range, o->clip_norm};
    const uint64_t counts[] = {
        o->rank_default, o->steps,   o->batch_size,          o->seq_len,    (uint64_t)o->schedule,
        o->warmup,       o->shuffle, (uint64_t)o->optimizer, o->weight_cap, o->evaluate_rows};
    fl_prf_text(prf, o->strategy);
    fl_prf_text(prf, o->targets);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        fl_prf_u64(prf, bits_of(numbers[i]));
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        fl_prf_u64(prf, counts[i]);
}

static void hash_task(struct fl_prf *prf, const struct fl_wire_offer *offer,
                      const struct fl_wire_task *task)
{
    fl_prf_bytes(prf, task->start.root, FL_HASH_BYTES);
    fl_prf_bytes(prf, task->global_ranks.data, task->global_ranks.length);
    fl_prf_u64(prf, task->first_step);
    fl_prf_u64(prf, task->total_steps);
    fl_prf_u64(prf, (uint64_t)task->train_a | (uint64_t)task->train_b << 1 |
                        (uint64_t)task->train << 2 | (uint64_t)task->evaluate << 3 |
                        dora_bit(offer, 4));
}

/* The learning rate that a factor is trained with. */
static uint64_t rate_of(bool trained, double own, double common)
{
    return trained ? bits_of(own > 0.0 ? own : common) : 0;
}

/*
 * Nothing that leaves the delta as it is: how it is encoded and clipped afterwards, what else is
 * measured, and where a job stands in a schedule that is constant. What is trained is named by the
 * start's own bytes.
 */
void fl_job_training_settings(const struct fl_wire_offer *offer, const struct fl_wire_task *task,
                              uint8_t out[FL_HASH_BYTES])
{
    static const uint8_t none[FL_SEED_BYTES];
    struct fl_prf prf;
    bool moves = offer->schedule != FL_WIRE_SCHEDULE_CONSTANT || offer->warmup > 0;
    bool trains_m = offer->dora && task->train; /* at the rate of B */
    const uint64_t numbers[] = {bits_of(offer->alpha),
                                bits_of(offer->dropout),
                                rate_of(task->train_a, offer->lr_a, offer->lr),
                                rate_of(task->train_b || trains_m, offer->lr_b, offer->lr),
                                bits_of(offer->weight_decay),
                                bits_of(offer->grad_clip),
                                offer->rank_default,
                                offer->steps,
                                offer->batch_size,
                                offer->seq_len,
                                (uint64_t)offer->schedule,
                                offer->warmup,
                                offer->shuffle,
                                (uint64_t)offer->optimizer,
                                moves ? task->first_step : 0,
                                moves ? task->total_steps : 0,
                                (uint64_t)task->train_a | (uint64_t)task->train_b << 1 |
                                    (uint64_t)task->train << 2 | dora_bit(offer, 3)};
    fl_prf_begin(&prf, none, "fedlora-training-v2");
    fl_prf_bytes(&prf, task->start.root, FL_HASH_BYTES);
    fl_prf_bytes(&prf, task->global_ranks.data, task->global_ranks.length);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        fl_prf_u64(&prf, numbers[i]);
    fl_prf_end(&prf, out);
}

void fl_job_encoding(const struct fl_wire_offer *offer, uint8_t out[FL_HASH_BYTES])
{
    static const uint8_t none[FL_SEED_BYTES];
    struct fl_prf prf;
    fl_prf_begin(&prf, none, "fedlora-encoding-v1");
    fl_prf_u64(&prf, bits_of(offer->update_range));
    fl_prf_u64(&prf, bits_of(offer->clip_norm));
    fl_prf_u64(&prf, offer->weight_cap);
    fl_prf_end(&prf, out);
}

void fl_job_binding(const struct fl_wire_offer *offer, const struct fl_wire_task *task,
                    uint8_t out[FL_HASH_BYTES])
{
    static const uint8_t none[FL_SEED_BYTES];
    struct fl_prf prf;
    const uint64_t counts[] = {offer->rounds,         offer->seed,        (uint64_t)offer->compute,
                               offer->threads,        offer->min_workers, offer->secure_aggregation,
                               offer->evaluate_every, offer->liveness_ms, offer->retraining,
                               task->version};
    fl_prf_begin(&prf, none, "fedlora-binding-v2");
    fl_prf_text(&prf, offer->name);
    fl_prf_text(&prf, offer->model);
    fl_prf_bytes(&prf, offer->manifest, FL_HASH_BYTES);
    fl_prf_bytes(&prf, offer->job_hash, FL_HASH_BYTES);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        fl_prf_u64(&prf, counts[i]);
    hash_training(&prf, offer);
    hash_task(&prf, offer, task);
    fl_prf_bytes(&prf, task->version_hash, FL_HASH_BYTES);
    fl_prf_end(&prf, out);
}

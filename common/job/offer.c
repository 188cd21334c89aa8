/* offer.c - see offer.h. */
#include "job/offer.h"

#include <stdio.h>
#include <string.h>

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
}

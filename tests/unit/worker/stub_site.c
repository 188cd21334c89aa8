/* stub_site.c - see stub_site.h. */
#include "stub_site.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "adapter/algebra.h"
#include "base/alloc.h"
#include "runner.h"

static struct fl_module modules[STUB_MODULES + 1] = {
    {.name = "model.layers.0.self_attn.q_proj", .out = 6, .in = 8, .layer = 0},
    {.name = "model.layers.0.self_attn.v_proj", .out = 5, .in = 8, .layer = 0},
    {.name = "model.layers.0.mlp.down_proj", .out = 8, .in = 9, .layer = 0},
    {.name = "model.layers.1.self_attn.q_proj", .out = 6, .in = 8, .layer = 1},
};
const struct fl_inventory stub_inventory = {
    .modules = modules, .count = STUB_MODULES + 1, .layers = 2};

static enum fl_status fit(void *context, const struct fl_siteconf *conf,
                          const struct fl_wire_offer *offer, struct fl_trainer_fit *out,
                          struct fl_error *error)
{
    struct stub_trainer *self = context;
    (void)conf;
    memset(out, 0, sizeof(*out));
    atomic_fetch_add(&self->fits, 1);
    while (atomic_load(&self->hold_fit))
        usleep(1000);
    out->fault = self->fit_fault;
    if (self->fit_status != FL_OK)
        return fl_fail(error, self->fit_status, "%s",
                       self->fit_says ? self->fit_says : "the stub does not fit");
    memcpy(out->manifest, offer->manifest, FL_HASH_BYTES);
    out->rows = 10;
    out->inventory = stub_inventory;
    out->inventory.modules = fl_calloc(stub_inventory.count, sizeof(struct fl_module));
    if (!out->inventory.modules)
        return fl_fail_memory(error);
    memcpy(out->inventory.modules, modules, sizeof(modules));
    return FL_OK;
}

static void fill(struct fl_adapter *delta, bool a, bool b, float poison)
{
    for (uint32_t m = 0; m < delta->count; m++) {
        struct fl_lora_module *module = &delta->modules[m];
        for (size_t i = 0; i < (size_t)module->rank * module->module.in; i++)
            module->a[i] = a ? 0.001f * (float)(i + 1) : 0.0f;
        for (size_t i = 0; i < (size_t)module->rank * module->module.out; i++)
            module->b[i] = b ? 0.001f * (float)(i + 1) : 0.0f;
        for (size_t i = 0; module->m && i < module->module.out; i++)
            module->m[i] = -0.002f * (float)(i + 1);
    }
    delta->modules[0].b[0] += poison;
}

static enum fl_status run(void *context, const struct fl_trainer_task *task,
                          struct fl_trainer_result *out, struct fl_error *error)
{
    struct stub_trainer *self = context;
    memset(out, 0, sizeof(*out));
    atomic_fetch_add(&self->runs, 1);
    self->data_seed = task->data_seed;
    struct fl_trainer_progress progress = {.activity = FL_ACTIVITY_TRAINING,
                                           .step = 1,
                                           .steps = task->offer->steps,
                                           .loss = 2.0,
                                           .tokens_per_second = 1234.5};
    if (task->on_progress)
        task->on_progress(task->context, &progress);
    while (atomic_load(&self->hold)) {
        if (atomic_load(task->stop))
            return fl_fail(error, FL_ESTOPPED, "stopped");
        usleep(1000);
    }
    if (self->run_status != FL_OK)
        return fl_fail(error, self->run_status, "%s",
                       self->run_says ? self->run_says : "the stub cannot train");
    out->stats = (struct fl_update_stats){.weight = 40,
                                          .eval_loss_sum = 12.0,
                                          .eval_tokens = 4,
                                          .train_loss_sum = 80.0,
                                          .train_tokens = 40};
    if (self->measures_not || !task->evaluate)
        out->stats.eval_loss_sum = 0.0, out->stats.eval_tokens = 0;
    out->steps = task->offer->steps;
    out->seconds = 0.5;
    if (!task->train)
        return FL_OK;
    if (fl_adapter_prefix(task->start, task->site_ranks, &out->delta) != FL_OK)
        return fl_fail_memory(error);
    fill(out->delta, task->train_a, task->train_b, self->poison);
    return FL_OK;
}

struct fl_trainer stub_trainer(struct stub_trainer *self)
{
    return (struct fl_trainer){.fit = fit, .run = run, .destroy = NULL, .context = self};
}

void stub_site_open(struct stub_site *self, const char *policy)
{
    struct fl_error error;
    struct fl_keys *keys = NULL;
    char path[FL_PATH_BYTES];
    struct fl_buf text;
    memset(self, 0, sizeof(*self));
    fl_test_directory(self->directory);
    fl_assert_ok(fl_path_join(path, self->directory, "site.keys", &error), &error);
    fl_assert_ok(fl_keys_load_or_make(path, fl_entropy_system(), &keys, &error), &error);
    fl_keys_destroy(&keys);
    fl_assert_ok(fl_sitestore_open(self->directory, false, &self->store, &error), &error);
    fl_buf_init(&text, 1u << 16);
    fl_buf_printf(&text,
                  "[coordinator]\naddress = tcp://127.0.0.1:1\n[models]\ntiny = /nowhere\n"
                  "[policy]\nrequire_secure_aggregation = off\n%s",
                  policy ? policy : "");
    self->conf = fl_calloc(1, sizeof(*self->conf));
    ck_assert(self->conf != NULL);
    fl_assert_ok(
        fl_siteconf_parse(fl_buf_text(&text), text.length, "worker.conf", self->conf, &error),
        &error);
    fl_buf_free(&text);
}

void stub_site_close(struct stub_site *self)
{
    fl_siteconf_free(&self->conf);
    fl_sitestore_close(&self->store);
}

struct fl_wire_offer stub_offer(void)
{
    struct fl_wire_offer offer = {.rounds = 2,
                                  .seed = 7,
                                  .alpha = 8.0,
                                  .rank_default = 4,
                                  .rank_max = 4,
                                  .steps = 2,
                                  .batch_size = 4,
                                  .seq_len = 16,
                                  .lr = 0.05,
                                  .optimizer = FL_WIRE_OPTIMIZER_ADAMW,
                                  .min_workers = 3,
                                  .weight_cap = 1000,
                                  .evaluate_every = 1,
                                  .liveness_ms = 30000};
    snprintf(offer.name, sizeof(offer.name), "glossaries");
    snprintf(offer.model, sizeof(offer.model), "tiny");
    snprintf(offer.strategy, sizeof(offer.strategy), "fedit");
    snprintf(offer.targets, sizeof(offer.targets), "q_proj,v_proj");
    memset(offer.manifest, 3, sizeof(offer.manifest));
    memset(offer.job_hash, 4, sizeof(offer.job_hash));
    return offer;
}

void stub_targets(struct fl_inventory *out)
{
    struct fl_error error;
    fl_assert_ok(fl_inventory_select(&stub_inventory, "q_proj,v_proj", out, &error), &error);
    ck_assert_uint_eq(out->count, STUB_MODULES);
}

struct fl_adapter *stub_start(uint64_t seed)
{
    static const uint32_t ranks[STUB_MODULES] = {4, 4, 4};
    struct fl_inventory targets;
    struct fl_adapter *start;
    struct fl_error error;
    stub_targets(&targets);
    fl_assert_ok(fl_adapter_create(&targets, 4, 8.0, ranks, &start, &error), &error);
    fl_adapter_init(start, seed);
    fl_inventory_free(&targets);
    return start;
}

void stub_ranks(uint8_t out[2 * STUB_MODULES], uint16_t rank)
{
    for (int i = 0; i < STUB_MODULES; i++) {
        out[2 * i] = (uint8_t)rank;
        out[2 * i + 1] = (uint8_t)(rank >> 8);
    }
}

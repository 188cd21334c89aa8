/*
 * trainer.c - a site that trains nothing: its delta is noise that follows from (seed, site, round,
 * bytes of the start), so that the same work gives the same delta whenever it is done.
 */
#include <string.h>

#include "adapter/algebra.h"
#include "base/alloc.h"
#include "net/chunks.h"
#include "sim.h"

static struct fl_module modules[] = {
    {.name = "model.layers.0.self_attn.q_proj", .out = 6, .in = 8, .layer = 0},
    {.name = "model.layers.0.self_attn.v_proj", .out = 5, .in = 8, .layer = 0},
    {.name = "model.layers.0.mlp.down_proj", .out = 8, .in = 9, .layer = 0},
    {.name = "model.layers.1.self_attn.q_proj", .out = 6, .in = 8, .layer = 1},
};
#define MODULES (sizeof(modules) / sizeof(modules[0]))

static enum fl_status fit(void *context, const struct fl_siteconf *conf,
                          const struct fl_wire_offer *offer, struct fl_trainer_fit *out,
                          struct fl_error *error)
{
    (void)context, (void)conf;
    memset(out, 0, sizeof(*out));
    memcpy(out->manifest, offer->manifest, FL_HASH_BYTES);
    out->rows = 10;
    out->inventory = (struct fl_inventory){
        .modules = fl_calloc(MODULES, sizeof(struct fl_module)), .count = MODULES, .layers = 2};
    if (!out->inventory.modules)
        return fl_fail_memory(error);
    memcpy(out->inventory.modules, modules, sizeof(modules));
    return FL_OK;
}

static uint64_t mixed(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void noise(float *values, size_t count, bool trained, double size, uint64_t *state)
{
    for (size_t i = 0; i < count; i++) {
        double unit = (double)(mixed(state) >> 11) / 9007199254740992.0;
        values[i] = trained ? (float)(size * (2.0 * unit - 1.0)) : 0.0f;
    }
}

static enum fl_status root_of(const struct fl_adapter *start, uint8_t root[FL_HASH_BYTES],
                              struct fl_error *error)
{
    struct fl_buf bytes;
    fl_buf_init(&bytes, 1u << 24);
    enum fl_status status = fl_adapter_encode(start, &bytes, error);
    if (status == FL_OK)
        status = fl_object_hash(bytes.data, bytes.length, root);
    fl_buf_free(&bytes);
    return status;
}

static enum fl_status make_delta(const struct fl_trainer_task *task, uint64_t state,
                                 struct fl_trainer_result *out, struct fl_error *error)
{
    if (fl_adapter_prefix(task->start, task->site_ranks, &out->delta) != FL_OK)
        return fl_fail_memory(error);
    double size = task->offer->lr * (double)task->offer->steps;
    for (uint32_t i = 0; i < out->delta->count; i++) {
        struct fl_lora_module *m = &out->delta->modules[i];
        noise(m->a, (size_t)m->rank * m->module.in, task->train_a, size, &state);
        noise(m->b, (size_t)m->rank * m->module.out, task->train_b, size, &state);
        if (m->m)
            noise(m->m, m->module.out, true, size, &state);
    }
    return FL_OK;
}

/* Keep what it made, for the sum that the checker makes by itself. */
static enum fl_status record(struct sim_site *site, const struct fl_trainer_task *task,
                             const uint8_t root[FL_HASH_BYTES],
                             const struct fl_trainer_result *result, struct fl_error *error)
{
    struct sim *self = site->sim;
    self->counts.trainings++;
    if (sim_training_of(self, site->owner, task->round, task->offer->retraining, root))
        return FL_OK;
    struct sim_training *new = fl_calloc(1, sizeof(*new));
    if (!new)
        return fl_fail_memory(error);
    new->site = site->owner;
    new->round = task->round;
    new->retraining = task->offer->retraining;
    memcpy(new->root, root, FL_HASH_BYTES);
    new->stats = result->stats;
    new->next = self->trainings[site->owner];
    self->trainings[site->owner] = new;
    if (fl_adapter_copy(task->start, &new->start) != FL_OK ||
        (result->delta && fl_adapter_copy(result->delta, &new->delta) != FL_OK))
        return fl_fail_memory(error);
    return FL_OK;
}

static enum fl_status run(void *context, const struct fl_trainer_task *task,
                          struct fl_trainer_result *out, struct fl_error *error)
{
    struct sim_site *site = context;
    uint8_t root[FL_HASH_BYTES];
    memset(out, 0, sizeof(*out));
    enum fl_status status = root_of(task->start, root, error);
    if (status != FL_OK)
        return status;
    uint64_t state = fl_load_u64(root) ^ task->data_seed;
    uint64_t weight = 1 + mixed(&state) % 48; /* now and then above the cap */
    out->stats.weight = weight;
    if (task->train) {
        out->stats.train_loss_sum = 0.125 * (double)(mixed(&state) % 4096);
        out->stats.train_tokens = weight;
    }
    if (task->evaluate) {
        out->stats.eval_loss_sum = 0.25 * (double)(mixed(&state) % 1024);
        out->stats.eval_tokens = 1 + mixed(&state) % 100;
    }
    out->steps = task->offer->steps;
    out->seconds = 0.5;
    if (task->train)
        status = make_delta(task, state, out, error);
    if (status == FL_OK)
        status = record(site, task, root, out, error);
    if (status != FL_OK)
        fl_adapter_destroy(&out->delta);
    return status;
}

enum fl_status sim_trainer_start(const char *directory, struct fl_error *error)
{
    struct fl_inventory all = {.modules = modules, .count = MODULES, .layers = 2}, targets = {0};
    struct fl_adapter *start = NULL;
    enum fl_status status = fl_inventory_select(&all, "q_proj,v_proj", &targets, error);
    if (status == FL_OK)
        status = fl_adapter_create(&targets, 4, 8.0, NULL, &start, error);
    if (status == FL_OK && fl_adapter_add_magnitudes(start) != FL_OK)
        status = fl_fail_memory(error);
    for (uint32_t i = 0; status == FL_OK && i < start->count; i++) {
        for (uint32_t k = 0; k < start->modules[i].module.out; k++)
            start->modules[i].m[k] = 1.0f + 0.125f * (float)k;
    }
    if (status == FL_OK) {
        fl_adapter_init(start, 5);
        status = fl_adapter_save(start, directory, NULL, error);
    }
    fl_adapter_destroy(&start);
    fl_inventory_free(&targets);
    return status;
}

struct fl_trainer sim_trainer(struct sim_site *site)
{
    return (struct fl_trainer){.fit = fit, .run = run, .destroy = NULL, .context = site};
}

const struct sim_training *sim_training_of(const struct sim *self, uint32_t site, uint32_t round,
                                           uint32_t retraining, const uint8_t root[FL_HASH_BYTES])
{
    const struct sim_training *t = self->trainings[site];
    while (t && !(t->round == round && t->retraining == retraining &&
                  memcmp(t->root, root, FL_HASH_BYTES) == 0))
        t = t->next;
    return t;
}

void sim_trainings_free(struct sim *self)
{
    for (uint32_t i = 0; i < self->site_count; i++) {
        while (self->trainings[i]) {
            struct sim_training *next = self->trainings[i]->next;
            fl_adapter_destroy(&self->trainings[i]->start);
            fl_adapter_destroy(&self->trainings[i]->delta);
            fl_free(self->trainings[i]);
            self->trainings[i] = next;
        }
    }
}

/* malice_site.c - a site's real process for the suites of malice, and what they count with. */
#include "malice.h"

#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter/algebra.h"
#include "base/alloc.h"
#include "base/log.h"
#include "worker/client.h"

#define WALL_MS 1767225600000 /* 2026-01-01 */

/* ---- expectations ---- */

static const char *running = "start";
static unsigned failures;

void mal_case(const char *name)
{
    running = name;
}

void mal_expect(bool good, const char *format, ...)
{
    va_list arguments;
    if (good)
        return;
    failures++;
    (void)fprintf(stderr, "%s: ", running);
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
}

unsigned mal_failures(void)
{
    return failures;
}

/* ---- libsodium's generator, seeded ---- */

static uint64_t stream = 0x6d616c696365;

static uint64_t mixed(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint32_t next_word(void)
{
    return (uint32_t)(mixed(&stream) >> 16);
}

static const char *generator_name(void)
{
    return "malice";
}

static void fill(void *const out, const size_t length)
{
    uint8_t *bytes = out;
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)next_word();
}

static struct randombytes_implementation generator = {
    .implementation_name = generator_name, .random = next_word, .buf = fill};

bool mal_init(void)
{
    if (randombytes_set_implementation(&generator) != 0)
        return false;
    fl_hash_init();
    fl_log_set_level((enum fl_log_level)(FL_LOG_ERROR + 1));
    return true;
}

/* ---- a trainer that trains nothing ---- */

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
    const struct mal_site *site = context;
    (void)conf;
    memset(out, 0, sizeof(*out));
    memcpy(out->manifest, offer->manifest, FL_HASH_BYTES);
    fl_sha256(site->name, strlen(site->name), out->data);
    out->rows = 10;
    out->inventory = (struct fl_inventory){
        .modules = fl_calloc(MODULES, sizeof(struct fl_module)), .count = MODULES, .layers = 2};
    if (!out->inventory.modules)
        return fl_fail_memory(error);
    memcpy(out->inventory.modules, modules, sizeof(modules));
    return FL_OK;
}

static void noise(float *values, size_t count, double size, uint64_t *state)
{
    for (size_t i = 0; i < count; i++) {
        double unit = (double)(mixed(state) >> 11) / 9007199254740992.0;
        values[i] = (float)(size * (2.0 * unit - 1.0));
    }
}

static enum fl_status run(void *context, const struct fl_trainer_task *task,
                          struct fl_trainer_result *out, struct fl_error *error)
{
    struct mal_site *site = context;
    uint64_t state = site->rigid ? 1 : task->data_seed;
    const double size = 2.0 * task->offer->lr; /* within an update_range of 0.5 */
    memset(out, 0, sizeof(*out));
    site->trainings++;
    out->steps = task->offer->steps;
    out->seconds = 0.5;
    out->stats.weight = out->stats.train_tokens = 1 + mixed(&state) % 16;
    out->stats.eval_tokens = task->evaluate ? 3 : 0;
    if (!task->train)
        return FL_OK;
    if (fl_adapter_prefix(task->start, task->site_ranks, &out->delta) != FL_OK)
        return fl_fail_memory(error);
    for (uint32_t i = 0; i < out->delta->count; i++) {
        struct fl_lora_module *m = &out->delta->modules[i];
        noise(m->a, (size_t)m->rank * m->module.in, task->train_a ? size : 0.0, &state);
        noise(m->b, (size_t)m->rank * m->module.out, task->train_b ? size : 0.0, &state);
    }
    return FL_OK;
}

/* ---- its link ---- */

static bool armed, died;

static enum fl_status link_next(struct fl_link *link, int64_t timeout_ms,
                                struct fl_link_event *event)
{
    struct mal_site *site = (struct mal_site *)link;
    (void)timeout_ms;
    if (!site->pending)
        return FL_ETIMEOUT;
    *event = *site->pending;
    site->pending = NULL;
    return FL_OK;
}

static enum fl_status link_send(struct fl_link *link, const void *frame, size_t length)
{
    struct mal_site *site = (struct mal_site *)link;
    if (!armed || !fl_fs_fault_fired()) /* else it is dead already */
        site->world->sent(site, frame, length);
    return FL_OK;
}

static enum fl_status link_reset(struct fl_link *link)
{
    struct mal_site *site = (struct mal_site *)link;
    site->world->dialled(site);
    return FL_OK;
}

static const struct fl_link_table link_table = {
    .next = link_next, .send = link_send, .reset = link_reset};

/* ---- its life ---- */

void mal_start(struct mal_site *site)
{
    struct fl_error error = {FL_OK, ""};
    struct fl_trainer trainer = {.fit = fit, .run = run, .destroy = NULL, .context = site};
    enum fl_status status = fl_sitestore_open(site->directory, true, &site->store, &error);
    if (status == FL_OK)
        status = fl_compute_inline(site->conf, &site->store, &trainer, &site->compute, &error);
    const struct fl_client_config config = {.conf = site->conf,
                                            .store = &site->store,
                                            .compute = site->compute,
                                            .link = &site->link,
                                            .clock = &site->world->clock,
                                            .stop = &site->stop,
                                            .progress = false};
    if (status == FL_OK)
        status = fl_client_create(&config, &site->client, &error);
    if (status != FL_OK) {
        (void)fprintf(stderr, "%s does not start: %s\n", site->name, error.text);
        abort();
    }
    site->held = false;
    site->world->dialled(site);
}

void mal_kill(struct mal_site *site)
{
    if (!site->client)
        return;
    fl_client_destroy(&site->client);
    fl_compute_stop(&site->compute);
    fl_sitestore_close(&site->store);
}

void mal_die_in(long write, long sync)
{
    armed = write >= 0 || sync >= 0;
    died = false;
    fl_fs_fail_write_at(write);
    fl_fs_fail_sync_at(sync);
}

bool mal_died(void)
{
    return died;
}

/* true: it died in a write of what it just did */
static bool dies(struct mal_site *site)
{
    if (!armed || !fl_fs_fault_fired())
        return false;
    mal_die_in(-1, -1);
    died = true;
    mal_kill(site);
    mal_start(site);
    return true;
}

void mal_event(struct mal_site *site, const struct fl_link_event *event)
{
    struct fl_error error = {FL_OK, ""};
    if (!site->client)
        return;
    site->world->now++;
    site->pending = event;
    enum fl_status status = fl_client_step(site->client, &error);
    site->pending = NULL;
    if (!dies(site))
        mal_expect(status == FL_OK, "%s gave up: %s", site->name, error.text);
}

void mal_frame(struct mal_site *site, const void *frame, size_t length)
{
    const struct fl_link_event event = {.kind = FL_LINK_FRAME, .frame = frame, .length = length};
    mal_event(site, &event);
}

bool mal_work(struct mal_site *site)
{
    const struct fl_link_event wake = {.kind = FL_LINK_WAKE};
    if (!site->client || site->held || !fl_compute_turn(site->compute))
        return false;
    if (dies(site))
        return true;
    mal_event(site, &wake);
    return true;
}

/* ---- the world ---- */

static int64_t now_ms(void *context)
{
    return ((const struct mal *)context)->now;
}

static int64_t wall_ms(void *context)
{
    return WALL_MS + ((const struct mal *)context)->now;
}

bool mal_configure(struct mal_site *site, const char *policy)
{
    struct fl_buf text;
    struct fl_error error = {FL_OK, "out of memory"};
    fl_siteconf_free(&site->conf);
    site->conf = fl_calloc(1, sizeof(*site->conf));
    if (!site->conf)
        return false;
    fl_buf_init(&text, 4096);
    fl_buf_printf(&text,
                  "[coordinator]\naddress = tcp://127.0.0.1:1\n[models]\ntiny = /nowhere\n"
                  "[policy]\n%s",
                  policy);
    enum fl_status status = fl_siteconf_parse(fl_buf_text(&text), text.length, "worker.conf",
                                              site->conf, &error);
    fl_buf_free(&text);
    if (status != FL_OK)
        (void)fprintf(stderr, "%s: %s\n", site->name, error.text);
    return status == FL_OK;
}

static bool make_site(struct mal *self, uint32_t index, const char *policy)
{
    struct mal_site *site = &self->sites[index];
    struct fl_keys *keys = NULL;
    char path[FL_PATH_BYTES];
    struct fl_error error;
    *site = (struct mal_site){.link.table = &link_table, .world = self, .index = index};
    (void)snprintf(site->name, sizeof(site->name), "site%u", index);
    if (fl_path_join(site->directory, self->directory, site->name, &error) != FL_OK ||
        fl_fs_make_directory(site->directory, 0700, &error) != FL_OK ||
        fl_path_join(path, site->directory, "site.keys", &error) != FL_OK ||
        fl_keys_load_or_make(path, fl_entropy_system(), &keys, &error) != FL_OK)
        return false;
    site->identity = *fl_keys_public(keys);
    fl_keys_destroy(&keys);
    return mal_configure(site, policy);
}

bool mal_make(struct mal *self, uint32_t count, const char *policy)
{
    const char *base = getenv("TMPDIR");
    self->now = 1000;
    self->clock = (struct fl_clock){.now_ms = now_ms, .wall_ms = wall_ms, .context = self};
    (void)snprintf(self->directory, sizeof(self->directory), "%s/fl-malice-XXXXXX",
                   base                         ? base
                   : fl_path_exists("/dev/shm") ? "/dev/shm"
                                                : "/tmp");
    if (!mkdtemp(self->directory))
        return false;
    self->count = count;
    for (uint32_t i = 0; i < count; i++) {
        if (!make_site(self, i, policy))
            return false;
    }
    return true;
}

void mal_free(struct mal *self)
{
    struct fl_error error;
    for (uint32_t i = 0; i < self->count; i++) {
        mal_kill(&self->sites[i]);
        fl_siteconf_free(&self->sites[i].conf);
    }
    if (fl_fs_remove(self->directory, &error) != FL_OK)
        (void)fprintf(stderr, "%s\n", error.text);
}

/* site.c - a site's process: started, turned, killed. */
#include "base/alloc.h"
#include "disk.h"
#include "sim.h"
#include "worker/client.h"

/* Of a slow machine in good weather; the shortest round_timeout is 20 s, and what is idle may take
   as long before what is work. */
#define CALM_WORK_MS 5000

static void site_start_again(struct sim_site *site, int64_t wait_ms)
{
    struct sim_event *event = sim_schedule(site->sim, site->sim->now + wait_ms, SIM_SITE_START);
    event->site = site->index;
    event->life = site->life;
}

static enum fl_status open_site(struct sim_site *site, struct fl_error *error)
{
    struct fl_trainer trainer = sim_trainer(site);
    enum fl_status status = fl_sitestore_open(site->directory, true, &site->store, error);
    if (status != FL_OK)
        return status;
    status = fl_compute_inline(site->conf, &site->store, &trainer, &site->compute, error);
    const struct fl_client_config config = {.conf = site->conf,
                                            .store = &site->store,
                                            .compute = site->compute,
                                            .link = &site->link,
                                            .clock = &site->time.clock,
                                            .stop = &site->stop,
                                            .progress = false};
    if (status == FL_OK)
        status = fl_client_create(&config, &site->client, error);
    if (status != FL_OK) {
        fl_compute_stop(&site->compute);
        fl_sitestore_close(&site->store);
    }
    return status;
}

void sim_site_start(struct sim_site *site)
{
    struct sim *self = site->sim;
    struct fl_error error;
    if (site->client || (site->owner != site->index && !self->faults))
        return; /* a twin is found out at last */
    enum fl_status status = open_site(site, &error);
    if (status != FL_OK) {
        bool died = sim_disk_is_dead(site->index + 1);
        self->counts.failed_starts++;
        if (died)
            sim_disk_bury(site->index + 1, sim_power_fails(self));
        if (!died && (!self->faults || (status != FL_EIO && status != FL_ENOSPC)))
            sim_violation(self, "%s does not start: %s", site->name, error.text);
        else
            site_start_again(site, 500);
        return;
    }
    sim_trace(self, "%s starts, life %u", site->name, site->life);
    sim_check_site(site);
    site->working = false;
    self->wake_at[site->index] = self->now;
    sim_net_dial(site);
}

void sim_site_close(struct sim_site *site)
{
    if (!site->client)
        return;
    fl_client_destroy(&site->client);
    fl_compute_stop(&site->compute);
    fl_sitestore_close(&site->store);
}

/* ---- sleep ---- */

static void drop_held(struct sim_site *site)
{
    for (size_t i = 0; i < site->held_count; i++)
        fl_free(site->held[i].frame);
    fl_free(site->held);
    site->held = NULL;
    site->held_count = site->held_capacity = 0;
}

static void awaken(struct sim_site *site)
{
    if (site->asleep && site->clock_stopped)
        site->time.lag_ms += site->sim->now - site->asleep_at;
    site->asleep = false;
}

void sim_site_hold(struct sim_site *site, struct sim_event *event)
{
    if (site->held_count == site->held_capacity) {
        size_t capacity = site->held_capacity ? 2 * site->held_capacity : 16;
        struct sim_event *grown = fl_reallocarray(site->held, capacity, sizeof(*grown));
        if (!grown) {
            sim_violation(site->sim, "out of memory");
            fl_free(event->frame);
            return;
        }
        site->held = grown;
        site->held_capacity = capacity;
    }
    site->held[site->held_count++] = *event;
}

static void look_again(struct sim_site *site)
{
    struct sim *self = site->sim;
    struct sim_event *event = sim_schedule(self, self->now + 500, SIM_SITE_AWAKE);
    event->site = site->index;
    event->life = site->life;
}

void sim_site_sleep(struct sim_site *site, uint32_t version, int64_t until, bool clock_stops)
{
    struct sim *self = site->sim;
    if (!site->client || site->asleep)
        return;
    sim_trace(self, "%s is stopped", site->name);
    self->counts.sleeps++;
    site->asleep = true;
    site->clock_stopped = clock_stops;
    site->wake_version = version;
    site->asleep_at = self->now;
    site->wake_at = until;
    self->wake_at[site->index] = INT64_MAX;
    look_again(site);
}

void sim_site_awake(struct sim_site *site)
{
    struct sim *self = site->sim;
    if (!site->asleep)
        return;
    if (self->faults && self->now < site->wake_at && self->history.versions < site->wake_version) {
        look_again(site);
        return;
    }
    sim_trace(self, "%s goes on", site->name);
    awaken(site);
    for (size_t i = 0; i < site->held_count; i++) {
        struct sim_event *event = sim_schedule(self, self->now, site->held[i].kind);
        const uint64_t seq = event->seq;
        *event = site->held[i];
        event->at = self->now;
        event->seq = seq;
        site->held[i].frame = NULL;
    }
    drop_held(site);
    self->wake_at[site->index] = self->now;
}

/* ---- death ---- */

void sim_site_crash(struct sim_site *site)
{
    struct sim *self = site->sim;
    if (!site->client)
        return;
    sim_trace(self, "%s dies%s", site->name,
              sim_disk_is_dead(site->index + 1) ? " in a write" : "");
    self->counts.site_crashes++;
    site->life++;
    self->wake_at[site->index] = INT64_MAX;
    awaken(site);
    drop_held(site);
    sim_net_site_died(site);
    sim_disk_kill(site->index + 1);
    sim_site_close(site);
    sim_disk_bury(site->index + 1, sim_power_fails(self));
    site_start_again(site, 50 + (self->faults ? sim_below(self, 20000) : 0));
}

/* It knows that it is not wanted, and ends; its people start it again. */
static void leave(struct sim_site *site)
{
    sim_trace(site->sim, "%s is not wanted", site->name);
    site->life++;
    site->sim->wake_at[site->index] = INT64_MAX;
    sim_net_site_died(site);
    sim_site_close(site);
    site_start_again(site, 5000 + sim_below(site->sim, 30000));
}

/* true: it died in a write */
static bool has_died(struct sim_site *site)
{
    if (!sim_disk_is_dead(site->index + 1))
        return false;
    sim_site_crash(site);
    return true;
}

void sim_site_turn(struct sim_site *site, const struct fl_link_event *event)
{
    struct sim *self = site->sim;
    struct fl_error error;
    if (!site->client || site->asleep)
        return;
    site->pending = event;
    enum fl_status status = fl_client_step(site->client, &error);
    site->pending = NULL;
    if (has_died(site))
        return;
    if (status == FL_EREFUSED && self->sites[site->owner].was_revoked) {
        leave(site);
        return;
    }
    if (status != FL_OK) {
        sim_violation(self, "%s gave up: %s", site->name, error.text);
        return;
    }
    int64_t wait = fl_client_wait_ms(site->client);
    self->wake_at[site->index] = self->now + (wait > 0 ? wait : 1);
    if (site->working)
        return;
    int64_t takes = sim_chance(self, 80) ? 1 + sim_below(self, 30) : sim_below(self, 3000);
    takes *= site->slowness;
    if (!self->faults && takes > CALM_WORK_MS)
        takes = CALM_WORK_MS;
    struct sim_event *work = sim_schedule(self, self->now + takes, SIM_SITE_WORK);
    work->site = site->index;
    work->life = site->life;
    site->working = true;
}

void sim_site_work(struct sim_site *site)
{
    site->working = false;
    bool worked = fl_compute_turn(site->compute);
    if (has_died(site) || !worked)
        return;
    struct sim_event *wake = sim_schedule(site->sim, site->sim->now + 1, SIM_SITE_WAKE);
    wake->site = site->index;
    wake->life = site->life;
}

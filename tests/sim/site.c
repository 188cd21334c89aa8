/* site.c - a site's process: started, turned, killed. */
#include "disk.h"
#include "sim.h"
#include "worker/client.h"

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
                                            .clock = &site->sim->clock,
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
    if (site->client)
        return;
    enum fl_status status = open_site(site, &error);
    if (status != FL_OK) {
        bool died = sim_disk_is_dead(site->index + 1);
        if (died)
            sim_disk_bury(site->index + 1, sim_power_fails(self));
        if (!died && (!self->faults || (status != FL_EIO && status != FL_ENOSPC)))
            sim_violation(self, "%s does not start: %s", site->name, error.text);
        else
            site_start_again(site, 500);
        return;
    }
    sim_trace(self, "%s starts, life %u", site->name, site->life);
    site->working = false;
    site->next_at = self->now;
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

void sim_site_crash(struct sim_site *site)
{
    struct sim *self = site->sim;
    if (!site->client)
        return;
    sim_trace(self, "%s dies%s", site->name,
              sim_disk_is_dead(site->index + 1) ? " in a write" : "");
    self->counts.site_crashes++;
    site->life++;
    site->next_at = INT64_MAX;
    sim_net_site_died(site);
    sim_disk_kill(site->index + 1);
    sim_site_close(site);
    sim_disk_bury(site->index + 1, sim_power_fails(self));
    site_start_again(site, 50 + (self->faults ? sim_below(self, 20000) : 0));
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
    if (!site->client)
        return;
    site->pending = event;
    enum fl_status status = fl_client_step(site->client, &error);
    site->pending = NULL;
    if (has_died(site))
        return;
    if (status != FL_OK) {
        sim_violation(self, "%s gave up: %s", site->name, error.text);
        return;
    }
    int64_t wait = fl_client_wait_ms(site->client);
    site->next_at = self->now + (wait > 0 ? wait : 1);
    if (site->working)
        return;
    int64_t takes = sim_chance(self, 80) ? 1 + sim_below(self, 30) : sim_below(self, 3000);
    struct sim_event *work = sim_schedule(self, self->now + takes * site->slowness, SIM_SITE_WORK);
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

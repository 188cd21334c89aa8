/* faults.c - the weather: what goes wrong, and when it stops. */
#include "disk.h"
#include "sim.h"

#define HOUR_MS 3600000

static struct sim_site *any_site(struct sim *self)
{
    return &self->sites[sim_below(self, self->process_count)];
}

static void crash_site(struct sim *self)
{
    sim_site_crash(any_site(self));
}

static void crash_hub(struct sim *self)
{
    sim_hub_crash(self);
}

/* It dies in one of its next durable steps. */
static void crash_store(struct sim *self)
{
    if (self->hub.server)
        fl_store_crash_at((long)sim_below(self, 80));
}

static uint32_t any_machine(struct sim *self)
{
    return sim_chance(self, 40) ? SIM_MACHINE_HUB : any_site(self)->index + 1;
}

bool sim_power_fails(struct sim *self)
{
    bool fails = self->walk.on ? self->walk.power : self->faults && sim_chance(self, 50);
    self->counts.outages += fails;
    return fails;
}

static void die_in_write(struct sim *self)
{
    sim_disk_die_at(any_machine(self), (long)sim_below(self, 60));
}

/* One write or fsync fails; nobody dies. */
static void fail_disk(struct sim *self)
{
    long n = (long)sim_below(self, 20);
    uint32_t machine = any_machine(self);
    self->counts.disk_faults++;
    if (sim_chance(self, 50))
        sim_disk_fail_write_at(machine, n);
    else
        sim_disk_fail_sync_at(machine, n);
}

static void fill_disk(struct sim *self)
{
    self->counts.disk_faults++;
    sim_disk_fill(any_machine(self), self->now + sim_below(self, 20000));
}

static void cut(struct sim *self)
{
    sim_net_cut(self, any_site(self)->conn);
}

static void clog_one(struct sim *self)
{
    sim_net_clog(self, any_site(self)->conn, self->now + sim_below(self, 15000));
}

static void darken(struct sim *self)
{
    struct sim_site *site = any_site(self);
    sim_net_cut(self, site->conn);
    site->dark_until = self->now + sim_below(self, 30000);
}

static void rubbish(struct sim *self)
{
    sim_net_rubbish(self, any_site(self)->conn, sim_chance(self, 50));
}

static void corrupt(struct sim *self)
{
    sim_net_corrupt(self, any_site(self)->conn);
}

/* Somebody sets the time, or the battery was empty. */
static void set_time(struct sim *self)
{
    struct sim_time *time = sim_chance(self, 50) ? &self->hub.time : &any_site(self)->time;
    time->offset_ms = (int64_t)sim_below(self, 2 * 48 * HOUR_MS) - 48 * HOUR_MS;
    self->counts.clocks++;
}

static void revoke(struct sim *self)
{
    sim_operator_revoke(self, sim_below(self, self->site_count));
}

static void allow(struct sim *self)
{
    for (uint32_t i = 0; i < self->site_count; i++) {
        if (self->sites[i].was_revoked && sim_chance(self, 50))
            sim_operator_allow(self, i);
    }
}

static void stop_one(struct sim *self)
{
    int64_t until = self->now + (sim_chance(self, 50) ? 1000 + sim_below(self, 40000) : HOUR_MS);
    sim_site_sleep(any_site(self), self->history.versions + 3, until, sim_chance(self, 50));
}

/* A second process with the key of a site, somewhere else. */
static void twin(struct sim *self)
{
    struct sim_site *site = &self->sites[self->process_count - 1];
    if (site->owner == site->index)
        return;
    if (site->client) {
        sim_site_crash(site);
        return;
    }
    self->counts.twins++;
    sim_site_start(site);
}

static void clog_all(struct sim *self)
{
    int64_t until = self->now + sim_below(self, 8000);
    for (uint32_t i = 0; i < self->process_count; i++)
        sim_net_clog(self, self->sites[i].conn, until);
}

void sim_fault(struct sim *self)
{
    static void (*const faults[])(struct sim *) = {
        crash_site,   crash_site, crash_hub, crash_store, crash_store, die_in_write,
        die_in_write, fail_disk,  fail_disk, fill_disk,   cut,         cut,
        clog_one,     clog_one,   clog_all,  darken,      rubbish,     corrupt,
        set_time,     revoke,     allow,     allow,       stop_one,    twin};
    if (!self->faults)
        return;
    if (self->restores && !self->copied && sim_chance(self, 20))
        sim_hub_copy(self);
    else
        faults[sim_below(self, sizeof(faults) / sizeof(faults[0]))](self);
    int64_t wait = 1 + sim_below(self, 2 * (uint32_t)self->fault_every_ms);
    (void)sim_schedule(self, self->now + wait, SIM_FAULT);
}

/* The network and the disks are well from now on; whoever is dead comes back. */
void sim_heal(struct sim *self)
{
    self->faults = false;
    for (uint32_t i = 0; i <= self->process_count; i++) {
        sim_disk_die_at(i, -1);
        sim_disk_fail_write_at(i, -1);
        sim_disk_fail_sync_at(i, -1);
        sim_disk_fill(i, 0);
    }
    if (!fl_store_crashed())
        fl_store_crash_at(-1);
    for (uint32_t i = 0; i < self->process_count; i++) {
        struct sim_site *site = &self->sites[i];
        site->dark_until = 0;
        sim_site_awake(site);
        if (site->owner != site->index || site->hostile) /* its people put an end to it */
            sim_site_crash(site);
        sim_site_start(site);
    }
    if (self->copied)
        sim_hub_restore(self);
    sim_hub_start(self);
    sim_trace(self, "the weather clears");
}

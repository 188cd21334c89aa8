/* faults.c - the weather: what goes wrong, and when it stops. */
#include "disk.h"
#include "sim.h"

static struct sim_site *any_site(struct sim *self)
{
    return &self->sites[sim_below(self, self->site_count)];
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
    bool fails = self->faults && sim_chance(self, 50);
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

static void clog_all(struct sim *self)
{
    int64_t until = self->now + sim_below(self, 8000);
    for (uint32_t i = 0; i < self->site_count; i++)
        sim_net_clog(self, self->sites[i].conn, until);
}

void sim_fault(struct sim *self)
{
    static void (*const faults[])(struct sim *) = {
        crash_site,   crash_site, crash_hub, crash_store, crash_store, die_in_write,
        die_in_write, fail_disk,  fail_disk, fill_disk,   cut,         cut,
        clog_one,     clog_one,   darken,    rubbish,     clog_all};
    if (!self->faults)
        return;
    faults[sim_below(self, sizeof(faults) / sizeof(faults[0]))](self);
    int64_t wait = 1 + sim_below(self, 2 * (uint32_t)self->fault_every_ms);
    (void)sim_schedule(self, self->now + wait, SIM_FAULT);
}

/* The network and the disks are well from now on; whoever is dead comes back. */
void sim_heal(struct sim *self)
{
    self->faults = false;
    for (uint32_t i = 0; i <= self->site_count; i++) {
        sim_disk_die_at(i, -1);
        sim_disk_fail_write_at(i, -1);
        sim_disk_fail_sync_at(i, -1);
        sim_disk_fill(i, 0);
    }
    if (!fl_store_crashed())
        fl_store_crash_at(-1);
    for (uint32_t i = 0; i < self->site_count; i++) {
        self->sites[i].dark_until = 0;
        sim_site_start(&self->sites[i]);
    }
    sim_hub_start(self);
    sim_trace(self, "the weather clears");
}

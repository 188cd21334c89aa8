/* hub.c - the coordinator's process: started, turned, killed. */
#include <poll.h>

#include "coordinator/backup.h"
#include "disk.h"
#include "sim.h"

/* ---- life ---- */

void sim_hub_close(struct sim *self)
{
    fl_server_destroy(&self->hub.server);
    fl_desk_close(&self->hub.desk);
}

static void hub_start_again(struct sim *self, int64_t wait_ms)
{
    struct sim_event *event = sim_schedule(self, self->now + wait_ms, SIM_HUB_START);
    event->life = self->hub.life;
}

void sim_hub_start(struct sim *self)
{
    struct sim_hub *hub = &self->hub;
    struct fl_error error;
    const struct fl_server_options options = {.exit_when_idle = false, .threaded = false};
    if (hub->server)
        return;
    fl_store_crash_at(self->walk.in_store && hub->life == 0 ? self->walk.n : -1);
    enum fl_status status = fl_desk_open(hub->directory, &hub->time.clock, &hub->desk, &error);
    if (status == FL_OK)
        status = fl_server_create(hub->desk, &options, &hub->server, &error);
    if (status != FL_OK) {
        bool died = sim_disk_is_dead(SIM_MACHINE_HUB);
        fl_desk_close(&hub->desk);
        hub->life++;
        self->counts.failed_starts++;
        if (died)
            sim_disk_bury(SIM_MACHINE_HUB, sim_power_fails(self));
        if (!died && (!self->faults || (status != FL_EIO && status != FL_ENOSPC)))
            sim_violation(self, "the coordinator does not start: %s", error.text);
        else
            hub_start_again(self, 500); /* the disk refused; its supervisor tries again */
        return;
    }
    fl_server_attach(hub->server, &hub->transport);
    hub->waking = false;
    hub->next_at = self->now;
    sim_trace(self, "hub starts, life %u", hub->life);
}

void sim_hub_crash(struct sim *self)
{
    struct sim_hub *hub = &self->hub;
    if (!hub->server)
        return;
    sim_trace(self, "hub dies%s",
              fl_store_crashed()                  ? " in a durable step"
              : sim_disk_is_dead(SIM_MACHINE_HUB) ? " in a write"
                                                  : "");
    self->counts.hub_crashes++;
    hub->life++;
    hub->next_at = INT64_MAX;
    sim_net_hub_died(self);
    sim_disk_kill(SIM_MACHINE_HUB);
    sim_hub_close(self);
    sim_disk_bury(SIM_MACHINE_HUB, sim_power_fails(self));
    hub_start_again(self, 50 + (self->faults ? sim_below(self, 12000) : 0));
}

/* The daemon is stopped for it. Of a job that no site has told its modules nothing could be taken
   back: a person would have to decide. */
void sim_hub_copy(struct sim *self)
{
    char path[FL_PATH_BYTES];
    struct fl_backup result;
    struct fl_error error;
    if (self->copied || !self->hub.server || self->counts.trainings == 0)
        return;
    sim_hub_crash(self);
    fl_store_crash_at(-1);
    enum fl_status status = fl_path_join(path, self->hub.directory, "copy", &error);
    if (status == FL_OK)
        status = fl_backup_make(self->hub.directory, path, &result, &error);
    sim_trace(self, "a copy is made%s%s", status == FL_OK ? "" : ": ",
              status == FL_OK ? "" : error.text);
    self->copied = status == FL_OK;
    self->counts.copies += self->copied;
}

void sim_hub_restore(struct sim *self)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    sim_hub_crash(self);
    if (fl_path_join(path, self->hub.directory, "copy", &error) != FL_OK)
        return;
    sim_check_restore(self);
    sim_disk_replace(SIM_MACHINE_HUB, self->hub.directory, path);
    sim_trace(self, "the coordinator is put back to its copy");
    self->counts.restores++;
    self->done_at = 0;
}

void sim_hub_after(struct sim *self)
{
    struct sim_hub *hub = &self->hub;
    if (!hub->server)
        return;
    struct pollfd wake = {.fd = fl_server_wake_fd(hub->server), .events = POLLIN};
    if (fl_store_crashed() || sim_disk_is_dead(SIM_MACHINE_HUB)) {
        self->counts.store_crashes++;
        sim_hub_crash(self);
        return;
    }
    if (!hub->waking && poll(&wake, 1, 0) == 1) {
        int64_t after = sim_chance(self, 80) ? 1 + sim_below(self, 50) : sim_below(self, 2000);
        sim_schedule(self, self->now + after, SIM_HUB_WAKE)->life = hub->life;
        hub->waking = true;
    }
    sim_check_hub(self);
    int64_t wait = fl_server_wait_ms(hub->server);
    hub->next_at = self->now + (wait > 0 ? wait : 1);
}

void sim_hub_event(struct sim *self, const struct fl_transport_event *event)
{
    if (!self->hub.server)
        return;
    if (event->kind == FL_TRANSPORT_WAKE)
        self->hub.waking = false;
    fl_server_event(self->hub.server, event);
    sim_hub_after(self);
}

void sim_hub_turn(struct sim *self)
{
    fl_server_tick(self->hub.server);
    sim_hub_after(self);
}

/* hub.c - the coordinator's process: started, turned, killed. */
#include <poll.h>

#include "sim.h"

/* ---- a disk that lies about fsync (planted) ---- */

static const char *const database[2] = {"state.db", "state.db-wal"};

static void forget_kept(struct sim_hub *hub)
{
    for (int i = 0; hub->has_kept && i < 2; i++)
        fl_buf_free(&hub->kept[i]);
    hub->has_kept = false;
}

static void keep_database(struct sim_hub *hub)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    if (sim_planted != SIM_PLANT_SYNC)
        return;
    forget_kept(hub);
    bool good = true;
    for (int i = 0; i < 2; i++)
        good = fl_path_join(path, hub->directory, database[i], &error) == FL_OK &&
               fl_fs_read(path, 1u << 26, &hub->kept[i], &error) == FL_OK && good;
    hub->has_kept = true;
    if (!good)
        forget_kept(hub);
}

/* The machine comes back with the database of a while ago. */
static void lose_writes(struct sim_hub *hub)
{
    char path[FL_PATH_BYTES];
    struct fl_error error;
    for (int i = 0; hub->has_kept && i < 2; i++) {
        if (fl_path_join(path, hub->directory, database[i], &error) == FL_OK)
            (void)!fl_fs_write(path, hub->kept[i].data, hub->kept[i].length, 0600, &error);
    }
    forget_kept(hub);
}

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
    fl_store_crash_at(-1);
    enum fl_status status = fl_desk_open(hub->directory, &self->clock, &hub->desk, &error);
    if (status == FL_OK)
        status = fl_server_create(hub->desk, &options, &hub->server, &error);
    if (status != FL_OK) {
        fl_desk_close(&hub->desk);
        if (!self->faults || status != FL_EIO)
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
    sim_trace(self, "hub dies%s", fl_store_crashed() ? " in a durable step" : "");
    self->counts.hub_crashes++;
    hub->life++;
    hub->next_at = INT64_MAX;
    sim_net_hub_died(self);
    sim_hub_close(self);
    lose_writes(hub);
    hub_start_again(self, 50 + (self->faults ? sim_below(self, 12000) : 0));
}

static void after_hub(struct sim *self)
{
    struct sim_hub *hub = &self->hub;
    struct pollfd wake = {.fd = fl_server_wake_fd(hub->server), .events = POLLIN};
    if (fl_store_crashed()) {
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
    if (!hub->has_kept || self->counts.steps % 64 == 0)
        keep_database(hub);
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
    after_hub(self);
}

void sim_hub_turn(struct sim *self)
{
    fl_server_tick(self->hub.server);
    after_hub(self);
}

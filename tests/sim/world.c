/* world.c - directories, keys, roster and job, before anything starts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "disk.h"
#include "sim.h"

/* ---- the world before the first start ---- */

static bool made(struct sim *self, enum fl_status status, const struct fl_error *error)
{
    if (status != FL_OK)
        sim_violation(self, "the world cannot be made: %s", error->text);
    return status == FL_OK;
}

/* Below the coordinator's directory, wherever that is: what a restored one looks for. */
#define START "/starts/1-0"

static void job_text(struct sim *self, struct fl_buf *out)
{
    static const char *const strategies[] = {"alternating", "rolora", "ffa", "fedit"};
    uint32_t most = self->site_count > 3 ? 3 + sim_below(self, self->site_count - 2) : 3;
    uint32_t least = sim_chance(self, 70) ? 3 : most;
    if (self->secure && least > FL_COHORT_MAX)
        least = FL_COHORT_MAX;
    /* with masks three of the fewest sites must have every rank */
    uint32_t smaller = !self->secure ? 2 : least - 3;
    uint32_t strategy = sim_below(self, 4);
    bool dora = self->seed % 3 == 0 && strategy > 0; /* magnitudes too; one rank for all */
    fl_buf_printf(out,
                  "[job]\nname = sim\nrounds = %u\nstrategy = %s\nseed = 5\n"
                  "[model]\nname = tiny\nsha256 = %064d\n"
                  "[lora]\ntargets = q_proj,v_proj\nalpha = 8\n%s[ranks]\ndefault = 4\n",
                  self->rounds, strategies[strategy], 7,
                  dora ? "dora = on\nstart = /nowhere" START "\n" : "");
    if (smaller > 0 && sim_chance(self, 40))
        fl_buf_printf(out, "%s", dora ? "" : "worker.site1 = 2\n");
    if (smaller > 1 && sim_chance(self, 20))
        fl_buf_printf(out, "%s", dora ? "" : "worker.site2 = 1\n");
    fl_buf_printf(out,
                  "[train]\nsteps = 2\nbatch_size = 2\nseq_len = 8\nlr = 0.05\n"
                  "[cohort]\nmin_workers = %u\nselect_timeout = %us\nround_timeout = %us\n"
                  "liveness_timeout = %us\n"
                  "[privacy]\nsecure_aggregation = %s\n[evaluate]\nevery = %u\n",
                  least, 2 + sim_below(self, 10), (self->secure ? 80 : 20) + sim_below(self, 60),
                  3 + sim_below(self, 10), self->secure ? "on" : "off", sim_below(self, 2));
}

static enum fl_status copy_keys(const struct sim_site *from, const char *to, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_buf bytes;
    enum fl_status status = fl_path_join(path, from->directory, "site.keys", error);
    if (status != FL_OK)
        return status;
    status = fl_fs_read(path, 4096, &bytes, error);
    if (status == FL_OK)
        status = fl_fs_write(to, bytes.data, bytes.length, 0600, error);
    fl_buf_free(&bytes);
    return status;
}

static enum fl_status make_site(struct sim *self, uint32_t index, struct fl_error *error)
{
    struct sim_site *site = &self->sites[index];
    struct fl_keys *keys = NULL;
    struct fl_buf text;
    char path[FL_PATH_BYTES], folder[FL_NAME_BYTES];
    site->sim = self;
    site->index = index;
    site->slowness = sim_chance(self, 15) ? 20 : 1 + sim_below(self, 3);
    (void)snprintf(site->name, sizeof(site->name), "site%u", site->owner);
    (void)snprintf(folder, sizeof(folder), "site%u", index);
    sim_net_init_site(site);
    enum fl_status status = fl_path_join(site->directory, self->directory, folder, error);
    if (status == FL_OK)
        status = fl_fs_make_directory(site->directory, 0700, error);
    if (status == FL_OK)
        status = fl_path_join(path, site->directory, "site.keys", error);
    if (status == FL_OK && site->owner != index)
        status = copy_keys(&self->sites[site->owner], path, error);
    if (status == FL_OK)
        status = fl_keys_load_or_make(path, fl_entropy_system(), &keys, error);
    if (status != FL_OK)
        return status;
    site->identity = *fl_keys_public(keys);
    fl_keys_destroy(&keys);
    site->conf = fl_calloc(1, sizeof(*site->conf));
    if (!site->conf)
        return fl_fail_memory(error);
    fl_buf_init(&text, 4096);
    fl_buf_printf(&text,
                  "[coordinator]\naddress = tcp://127.0.0.1:1\n[models]\ntiny = /nowhere\n"
                  "[policy]\nrequire_secure_aggregation = off\n"
                  "[adapters]\nkeep_versions = %u\n",
                  1 + index % 3);
    status = fl_siteconf_parse(fl_buf_text(&text), text.length, "worker.conf", site->conf, error);
    fl_buf_free(&text);
    return status;
}

static enum fl_status make_start(const struct sim *self, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(path, self->hub.directory, START + 1, error);
    if (status == FL_OK)
        status = fl_store_make_parent(path, error);
    return status == FL_OK ? sim_trainer_start(path, error) : status;
}

static enum fl_status submit(struct sim *self, struct fl_desk *desk, struct fl_error *error)
{
    struct fl_buf text;
    int64_t id;
    fl_buf_init(&text, 65536);
    job_text(self, &text);
    self->spec = fl_calloc(1, sizeof(*self->spec));
    enum fl_status status = self->spec ? FL_OK : fl_fail_memory(error);
    if (status == FL_OK)
        status = fl_job_parse(fl_buf_text(&text), text.length, "job.conf", self->spec, error);
    if (status == FL_OK && self->spec->dora)
        status = make_start(self, error);
    if (status == FL_OK)
        status = fl_queue_submit(desk->store, self->spec, fl_clock_wall(&self->hub.time.clock), &id,
                                 error);
    sim_trace(self, "job %s", fl_buf_text(&text));
    fl_buf_free(&text);
    return status;
}

bool sim_world_make(struct sim *self)
{
    struct fl_error error;
    struct fl_desk *desk = NULL;
    const char *base = getenv("TMPDIR");
    (void)snprintf(self->directory, sizeof(self->directory), "%s/fl-sim-XXXXXX",
                   base                         ? base
                   : fl_path_exists("/dev/shm") ? "/dev/shm"
                                                : "/tmp");
    char made_at[FL_PATH_BYTES];
    memcpy(made_at, self->directory, sizeof(made_at));
    if (!mkdtemp(made_at) || !realpath(made_at, self->directory)) {
        sim_violation(self, "no directory: %s", made_at);
        return false;
    }
    sim_disks_make(self, 1 + self->process_count);
    sim_net_init_hub(self);
    enum fl_status status = fl_path_join(self->hub.directory, self->directory, "hub", &error);
    if (status == FL_OK)
        status = fl_desk_create(self->hub.directory, NULL, NULL, &error);
    if (status == FL_OK)
        status = fl_desk_open(self->hub.directory, &self->hub.time.clock, &desk, &error);
    for (uint32_t i = 0; i < self->process_count && status == FL_OK; i++) {
        status = make_site(self, i, &error);
        if (status == FL_OK && self->sites[i].owner == i)
            status = fl_roster_add(desk->roster, self->sites[i].name, &self->sites[i].identity,
                                   fl_clock_wall(&self->hub.time.clock), &error);
    }
    if (status == FL_OK)
        status = submit(self, desk, &error);
    fl_desk_close(&desk);
    sim_disks_flush();
    return made(self, status, &error);
}

void sim_world_free(struct sim *self)
{
    struct fl_error error;
    sim_hub_close(self);
    for (uint32_t i = 0; i < self->process_count; i++) {
        struct sim_site *site = &self->sites[i];
        for (size_t held = 0; held < site->held_count; held++)
            fl_free(site->held[held].frame);
        fl_free(site->held);
        sim_site_close(site);
        fl_siteconf_free(&site->conf);
    }
    for (size_t i = 0; i < self->heap_count; i++)
        fl_free(self->heap[i].frame);
    fl_free(self->heap);
    fl_free(self->conns);
    fl_free(self->spec);
    fl_rank_plan_free(&self->cohort.plan);
    sim_trainings_free(self);
    sim_disks_free();
    if (fl_fs_remove(self->directory, &error) != FL_OK)
        (void)fprintf(stderr, "%s\n", error.text);
}

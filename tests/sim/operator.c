/* operator.c - what people do at the coordinator: resume a job, revoke a site, allow it again. */
#include "coordinator/server_internal.h"
#include "coordinator/ops.h"
#include "disk.h"
#include "sim.h"

#define PATIENCE_MS 2000
#define SEARCH_MS   120000 /* for another site that has a version, before it is given up */

/* false: no daemon is there to ask. */
static bool is_reachable(const struct sim *self)
{
    return self->hub.server && !fl_store_crashed() && !sim_disk_is_dead(SIM_MACHINE_HUB);
}

/* Takes the request. The disk may refuse; a person tries again. */
static void ask(struct sim *self, fl_op_function function, json_t *request)
{
    struct fl_error error;
    json_t *answer = json_object();
    const struct fl_op op = {.desk = self->hub.desk,
                             .live = fl_server_live(self->hub.server),
                             .request = request,
                             .answer = answer};
    if (function(&op, &error) != FL_OK)
        sim_trace(self, "refused: %s", error.text);
    json_decref(request);
    json_decref(answer);
    sim_hub_after(self);
}

void sim_operator_resume(struct sim *self)
{
    if (!is_reachable(self) || self->now < self->resume_at)
        return;
    if (self->history.lone && self->now < self->history.paused_at + SEARCH_MS)
        return;
    self->resume_at = self->now + PATIENCE_MS;
    self->counts.resumes++;
    sim_trace(self, "the operator resumes the job");
    ask(self, fl_op_job_resume, json_pack("{s:i}", "job", SIM_JOB));
}

void sim_operator_revoke(struct sim *self, uint32_t site)
{
    if (!is_reachable(self))
        return;
    self->counts.revocations++;
    self->sites[site].was_revoked = true;
    sim_trace(self, "the operator revokes %s", self->sites[site].name);
    ask(self, fl_op_roster_revoke, json_pack("{s:s}", "name", self->sites[site].name));
}

static bool is_revoked(const struct sim *self, uint32_t site)
{
    const struct fl_site *known = fl_roster_by_name(self->hub.desk->roster, self->sites[site].name);
    return known && known->revoked;
}

void sim_operator_allow(struct sim *self, uint32_t site)
{
    char identity[FL_IDENTITY_TEXT_BYTES];
    if (!is_reachable(self) || !is_revoked(self, site))
        return;
    sim_trace(self, "the operator allows %s again", self->sites[site].name);
    fl_identity_encode(&self->sites[site].identity, identity);
    ask(self, fl_op_roster_add,
        json_pack("{s:s, s:s}", "name", self->sites[site].name, "identity", identity));
}

void sim_operator_allow_all(struct sim *self)
{
    for (uint32_t i = 0; i < self->site_count; i++) {
        if (self->sites[i].was_revoked)
            sim_operator_allow(self, i);
    }
}

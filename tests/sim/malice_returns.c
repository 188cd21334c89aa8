/*
 * malice_returns.c - the real coordinator and honest sites, where chances meet that a random walk
 * seldom brings together: a disk that refuses for a moment, and a site that goes and returns in it.
 */
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "coordinator/registry.h"
#include "coordinator/round.h"
#include "malice_hub.h"

#define STEPS_MAX 100000
#define SOON_MS   60000 /* no deadline of the jobs below is that near */

static const char job_of_all[] = "[cohort]\nmin_workers = %u\nselect_timeout = 5s\n"
                                 "round_timeout = 10m\nliveness_timeout = 5s\nwait_timeout = 1h\n"
                                 "[evaluate]\nevery = 0\n";

/* ---- what the disk refuses: linked in front of the coordinator's own ---- */

enum refusal { REFUSE_NOTHING, REFUSE_SAVES, REFUSE_JOBS, REFUSE_NEWEST, REFUSE_VERSIONS };

static enum refusal refusing;

enum fl_status __real_fl_queue_save(struct fl_store *store, int64_t id, enum fl_job_state state,
                                    const struct fl_round *round, struct fl_queue_saved *saved,
                                    int64_t wall_ms, struct fl_error *error);
enum fl_status __wrap_fl_queue_save(struct fl_store *store, int64_t id, enum fl_job_state state,
                                    const struct fl_round *round, struct fl_queue_saved *saved,
                                    int64_t wall_ms, struct fl_error *error);
enum fl_status __real_fl_queue_get(struct fl_store *store, int64_t id, struct fl_job *out,
                                   struct fl_error *error);
enum fl_status __wrap_fl_queue_get(struct fl_store *store, int64_t id, struct fl_job *out,
                                   struct fl_error *error);
enum fl_status __real_fl_registry_newest(struct fl_store *store, int64_t job,
                                         struct fl_version *out, struct fl_error *error);
enum fl_status __wrap_fl_registry_newest(struct fl_store *store, int64_t job,
                                         struct fl_version *out, struct fl_error *error);

enum fl_status __real_fl_registry_get(struct fl_store *store, int64_t job, uint32_t version,
                                      struct fl_version *out, struct fl_error *error);
enum fl_status __wrap_fl_registry_get(struct fl_store *store, int64_t job, uint32_t version,
                                      struct fl_version *out, struct fl_error *error);

enum fl_status __wrap_fl_queue_save(struct fl_store *store, int64_t id, enum fl_job_state state,
                                    const struct fl_round *round, struct fl_queue_saved *saved,
                                    int64_t wall_ms, struct fl_error *error)
{
    if (refusing == REFUSE_SAVES)
        return fl_fail(error, FL_EIO, "the disk refuses");
    return __real_fl_queue_save(store, id, state, round, saved, wall_ms, error);
}

enum fl_status __wrap_fl_queue_get(struct fl_store *store, int64_t id, struct fl_job *out,
                                   struct fl_error *error)
{
    if (refusing == REFUSE_JOBS)
        return fl_fail(error, FL_EIO, "the disk refuses");
    return __real_fl_queue_get(store, id, out, error);
}

enum fl_status __wrap_fl_registry_newest(struct fl_store *store, int64_t job,
                                         struct fl_version *out, struct fl_error *error)
{
    if (refusing == REFUSE_NEWEST)
        return fl_fail(error, FL_EIO, "the disk refuses");
    return __real_fl_registry_newest(store, job, out, error);
}

enum fl_status __wrap_fl_registry_get(struct fl_store *store, int64_t job, uint32_t version,
                                      struct fl_version *out, struct fl_error *error)
{
    if (refusing == REFUSE_VERSIONS)
        return fl_fail(error, FL_EIO, "the disk refuses");
    return __real_fl_registry_get(store, job, version, out, error);
}

/* ---- the way there ---- */

static bool open_hub(struct hub *hub, const char *name, uint32_t sites, uint32_t least)
{
    char job[256];
    mal_case(name);
    refusing = REFUSE_NOTHING;
    (void)snprintf(job, sizeof(job), job_of_all, least);
    return hub_open(hub, sites, job);
}

static void run_to(struct hub *hub, enum fl_round_state phase)
{
    for (int i = 0; i < STEPS_MAX && hub->job.phase != phase; i++)
        (void)hub_step(hub);
    mal_expect(hub->job.phase == phase, "%s is not reached", fl_round_state_name(phase));
}

static void run_until(struct hub *hub, int64_t at_ms)
{
    while (hub->mal.now < at_ms)
        (void)hub_step(hub);
}

static void expect_a_quick_end(struct hub *hub)
{
    int64_t began = hub->mal.now;
    hub_run(hub);
    mal_expect(hub->job.state == FL_JOB_DONE, "it ends %s in round %u, attempt %u: %s",
               fl_job_state_name(hub->job.state), hub->job.round, hub->job.attempt,
               hub->job.reason);
    mal_expect(hub->mal.now - began < SOON_MS, "it takes %lld ms",
               (long long)(hub->mal.now - began));
}

/* ---- a revocation that the disk refused to hear of ---- */

/* When it is tried again, the site has been allowed again and is there: the round is one of all. */
static void revoked_and_allowed_before_it_was_kept(void)
{
    static struct hub hub;
    struct fl_error error = {FL_OK, ""};
    if (open_hub(&hub, "revoked_and_allowed_before_it_was_kept", 4, 4)) {
        struct mal_site *site = &hub.mal.sites[0];
        const struct fl_live *live = fl_server_live(hub.server);
        hub.liar = MAL_SITES_MAX;
        run_to(&hub, FL_ROUND_TRAIN);
        hub.mal.sites[1].held = true; /* so that the attempt is still under way */
        refusing = REFUSE_SAVES;
        mal_expect(fl_roster_revoke(hub.desk->roster, site->name, fl_clock_wall(&hub.mal.clock),
                                    &error) == FL_OK,
                   "it is not revoked: %s", error.text);
        live->site_revoked(live->context, fl_roster_by_name(hub.desk->roster, site->name)->id);
        refusing = REFUSE_NOTHING;
        mal_expect(fl_roster_add(hub.desk->roster, site->name, &site->identity,
                                 fl_clock_wall(&hub.mal.clock), &error) == FL_OK,
                   "it is not allowed again: %s", error.text);
        run_until(&hub, hub.mal.now + 2 * FL_ROUND_RETRY_MS);
        hub.mal.sites[1].held = false;
        mal_expect(hub_find(&hub, "commit_failed", NULL) != NULL, "the disk refused nothing");
        expect_a_quick_end(&hub);
    }
    hub_close(&hub);
}

/* ---- a site that began anew behind its upload ---- */

static enum verdict keeps_its_update(struct hub *hub, uint32_t site, struct fl_wire *message)
{
    (void)site;
    hub->lies += message->kind == FL_WIRE_UPLOAD;
    return message->kind == FL_WIRE_UPLOAD ? DROP : SAY;
}

/* It has lost its secrets while others still upload, and says so once it is asked to open the sum:
   nobody waits for its answer. */
static void restarted_behind_its_upload(void)
{
    static struct hub hub;
    if (open_hub(&hub, "restarted_behind_its_upload", 3, 3)) {
        hub.lie = keeps_its_update;
        run_to(&hub, FL_ROUND_COLLECT);
        run_until(&hub, hub.mal.now + 3000);
        mal_expect(hub.said[0].updates == 1 && hub.said[1].updates == 1 && hub.lies > 0,
                   "not all but one have uploaded");
        mal_kill(&hub.mal.sites[0]);
        mal_start(&hub.mal.sites[0]);
        run_until(&hub, hub.mal.now + 3000);
        mal_expect(hub.job.phase == FL_ROUND_COLLECT, "the attempt went on");
        hub.lie = NULL;
        hub_crash(&hub); /* whoever has not uploaded does so in its next session */
        expect_a_quick_end(&hub);
        const struct hub_record *lost = hub_find(&hub, "site_failed", hub.mal.sites[0].name);
        mal_expect(lost && strstr(lost->message, "secrets lost"), "it does not say what it lost");
    }
    hub_close(&hub);
}

/* ---- a site that trained just before its time was up, while the disk refused ---- */

static unsigned layouts, other_layouts;

static void count_layouts(struct hub *hub, uint32_t site, const struct fl_wire *message)
{
    if (site == 3 && message->kind == FL_WIRE_TASK)
        hub->mal.sites[3].held = true;
    bool first = message->kind == FL_WIRE_COLLECT && message->round == 1;
    layouts += first;
    other_layouts += first && message->as.collect.cohort != 3;
}

/* That it trained is tried again when the others upload already: it is in no layout then, and a
   coordinator that dies in between finds the one that their updates were made for. */
static void trained_and_kept_too_late(void)
{
    static struct hub hub;
    mal_case("trained_and_kept_too_late");
    refusing = REFUSE_NOTHING;
    layouts = other_layouts = 0;
    if (hub_open(&hub, 4,
                 "[cohort]\nmin_workers = 3\nselect_timeout = 5s\nround_timeout = 20s\n"
                 "liveness_timeout = 5s\n[privacy]\nsecure_aggregation = off\n"
                 "[evaluate]\nevery = 0\n")) {
        struct mal_site *sites = hub.mal.sites;
        hub.liar = 0;
        hub.lie = keeps_its_update;
        hub.on_told = count_layouts;
        run_to(&hub, FL_ROUND_TRAIN);
        int64_t over = hub.mal.now + 20000;
        run_until(&hub, over - 3000);
        refusing = REFUSE_SAVES;
        sites[3].held = false;
        sites[1].held = true;
        run_until(&hub, over - 1000);
        refusing = REFUSE_NOTHING;
        mal_expect(hub_find(&hub, "commit_failed", NULL) != NULL, "the disk refused nothing");
        mal_kill(&sites[3]);
        run_to(&hub, FL_ROUND_COLLECT);
        run_until(&hub, over + FL_ROUND_RETRY_MS);
        sites[1].held = false;
        run_until(&hub, over + FL_ROUND_RETRY_MS + 2000);
        mal_expect(hub.said[1].updates == 1 && hub.lies > 0 && hub.job.phase == FL_ROUND_COLLECT,
                   "not all but one have uploaded");
        hub.lie = NULL;
        hub_crash(&hub);
        expect_a_quick_end(&hub);
        mal_expect(layouts > 3 && other_layouts == 0, "%u of %u layouts are of other sites",
                   other_layouts, layouts);
    }
    hub_close(&hub);
}

/* ---- a site that returned while the disk could not be read ---- */

static void returned_behind_the_end(const char *name, enum refusal refusal)
{
    static struct hub hub;
    char path[FL_PATH_BYTES];
    struct fl_error error = {FL_OK, ""};
    if (open_hub(&hub, name, 4, 3)) {
        struct mal_site *site = &hub.mal.sites[hub.liar];
        const uint32_t wanted = 1u << FL_WIRE_VERSION | 1u << FL_WIRE_JOB_END;
        run_to(&hub, FL_ROUND_KEYS);
        mal_kill(site);
        hub_run(&hub);
        mal_expect(hub.job.state == FL_JOB_DONE, "the others do not end it");
        hub.told_kinds = 0;
        refusing = refusal;
        mal_start(site);
        run_until(&hub, hub.mal.now + 2000);
        mal_expect((hub.told_kinds & (1u << FL_WIRE_WELCOME | wanted)) == 1u << FL_WIRE_WELCOME,
                   "it is told %x while nothing could be read", hub.told_kinds);
        refusing = REFUSE_NOTHING;
        run_until(&hub, hub.mal.now + SOON_MS);
        mal_expect((hub.told_kinds & wanted) == wanted, "it is told %x only", hub.told_kinds);
        mal_expect(fl_path_join(path, site->directory, "adapters/1/adapter_model.safetensors",
                                &error) == FL_OK &&
                       fl_path_exists(path),
                   "it has no version");
    }
    hub_close(&hub);
}

/* ---- a round that begins while the version before it cannot be read ---- */

static void begun_while_no_version_was_read(void)
{
    static struct hub hub;
    static struct fl_version first, second;
    struct fl_error error = {FL_OK, ""};
    if (open_hub(&hub, "begun_while_no_version_was_read", 3, 3)) {
        hub.liar = MAL_SITES_MAX;
        for (int i = 0; i < STEPS_MAX && hub.job.round < 2; i++)
            (void)hub_step(&hub);
        refusing = REFUSE_VERSIONS;
        run_to(&hub, FL_ROUND_CONFIGURE);
        run_until(&hub, hub.mal.now + 3000);
        mal_expect(hub.job.phase == FL_ROUND_CONFIGURE, "round 2 has a start without version 1");
        refusing = REFUSE_NOTHING;
        expect_a_quick_end(&hub);
        mal_expect(fl_registry_get(hub.desk->store, 1, 1, &first, &error) == FL_OK &&
                       fl_registry_get(hub.desk->store, 1, 2, &second, &error) == FL_OK &&
                       memcmp(second.parent_sha256, first.sha256, FL_HASH_BYTES) == 0,
                   "version 2 does not follow from version 1: %s", error.text);
    }
    hub_close(&hub);
}

/* ---- a job that ends while the database can't be read ---- */

static unsigned ends, false_ends;

static void count_ends(struct hub *hub, uint32_t site, const struct fl_wire *message)
{
    (void)hub, (void)site;
    ends += message->kind == FL_WIRE_JOB_END;
    false_ends += message->kind == FL_WIRE_JOB_END && message->as.job_end.state != FL_JOB_END_DONE;
}

static void ended_while_nothing_was_read(const char *name, enum refusal refusal)
{
    static struct hub hub;
    const uint32_t wanted = 1u << FL_WIRE_VERSION | 1u << FL_WIRE_JOB_END;
    ends = false_ends = 0;
    if (open_hub(&hub, name, 3, 3)) {
        for (int i = 0; i < STEPS_MAX && hub.job.round < 2; i++)
            (void)hub_step(&hub);
        run_to(&hub, FL_ROUND_UNMASK);
        hub.told_kinds = 0;
        hub.on_told = count_ends;
        refusing = refusal;
        run_until(&hub, hub.mal.now + 3000);
        refusing = REFUSE_NOTHING;
        run_until(&hub, hub.mal.now + SOON_MS);
        mal_expect(hub.job.state == FL_JOB_DONE, "it ends %s", fl_job_state_name(hub.job.state));
        mal_expect((hub.told_kinds & wanted) == wanted, "it is told %x only", hub.told_kinds);
        mal_expect(ends >= hub.mal.count && false_ends == 0, "%u of %u ends are told wrong",
                   false_ends, ends);
    }
    hub_close(&hub);
}

int main(void)
{
    if (!mal_init())
        return 1;
    revoked_and_allowed_before_it_was_kept();
    restarted_behind_its_upload();
    trained_and_kept_too_late();
    returned_behind_the_end("returned_and_no_job_was_read", REFUSE_JOBS);
    returned_behind_the_end("returned_and_no_version_was_read", REFUSE_NEWEST);
    begun_while_no_version_was_read();
    ended_while_nothing_was_read("ended_and_no_job_was_read", REFUSE_JOBS);
    ended_while_nothing_was_read("ended_and_no_version_was_read", REFUSE_VERSIONS);
    (void)printf("%u expectations failed\n", mal_failures());
    return mal_failures() > 0;
}

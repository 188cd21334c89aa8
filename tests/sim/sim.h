/*
 * sim.h - the deterministic simulator: one coordinator (server.c and all behind it) and some sites
 * (client.c and all behind it) in one thread, under a seeded clock, network, disk and death.
 *
 * Real: the protocol code of both sides, SQLite, files, cryptography. Stood in for: time
 * (fl_clock), frames (fl_transport, fl_link), training (fl_trainer), randomness (libsodium's
 * generator is seeded). Nothing sleeps: the clock jumps to the next event.
 * The same seed and number of sites give the same run; `digest` proves it.
 * Threads: one.
 */
#ifndef FL_SIM_H
#define FL_SIM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/fs.h"
#include "coordinator/queue.h"
#include "coordinator/registry.h"
#include "coordinator/server.h"
#include "net/transport.h"
#include "worker/siteconf.h"
#include "worker/sitestore.h"
#include "worker/trainer.h"

/* The insides of the two sides share names: a file sees those of one side at most. */
struct fl_client;
struct fl_compute;

#define SIM_SITES_MAX  200
#define SIM_MACHINES   (SIM_SITES_MAX + 2) /* the coordinator's, the sites', a twin's */
#define SIM_FEW        16                  /* sites of an ordinary seed at most */
#define SIM_ROUNDS_MAX 64
#define SIM_ROUNDS_FEW 6 /* of an ordinary seed at most */
#define SIM_MEMORY     8 /* frames that a site may say again */
#define SIM_JOB        1 /* the only job of a coordinator */

struct sim;

enum sim_kind {
    SIM_HUB_FRAME,
    SIM_HUB_GONE,
    SIM_HUB_DRAINED,
    SIM_HUB_WAKE,
    SIM_HUB_START,
    SIM_SITE_DIAL,
    SIM_SITE_FRAME,
    SIM_SITE_DOWN,
    SIM_SITE_DRAINED,
    SIM_SITE_WORK,
    SIM_SITE_WAKE,
    SIM_SITE_START,
    SIM_SITE_AWAKE,
    SIM_FAULT
};

struct sim_event {
    int64_t at;
    uint64_t seq;
    enum sim_kind kind;
    uint32_t site;
    uint32_t life; /* of the process that it is meant for; others never see it */
    uint64_t conn;
    uint8_t *frame; /* owned */
    size_t length;
};

struct sim_conn { /* one TCP connection; its id is its place + 1, and the hub's peer */
    uint32_t site;
    bool hub_open, site_open;      /* that end hears of it */
    bool hub_told;                 /* OPENED was given */
    bool cut;                      /* nothing gets through any more */
    bool corrupt;                  /* the next frame comes with a wrong byte: CURVE ends it */
    int64_t to_hub_at, to_site_at; /* the last delivery: frames keep their order */
    size_t to_hub_bytes, to_site_bytes;
    bool hub_blocked, site_blocked;
};

struct sim_time { /* a machine's clock */
    const struct sim *sim;
    int64_t lag_ms;    /* its monotonic clock stood still for so long */
    int64_t offset_ms; /* its wall clock is wrong by so much, and by `drift` a million more */
    int64_t drift;
    struct fl_clock clock;
};

struct sim_memory { /* a frame that was said; length 0: none */
    uint8_t bytes[2048];
    size_t length;
};

struct sim_site {
    struct fl_link link; /* first: the client sees this */
    struct sim *sim;
    uint32_t index, life;
    uint32_t owner; /* whose key it has: its own index, but for a twin */
    char name[FL_NAME_BYTES];
    char directory[FL_PATH_BYTES];
    struct fl_identity identity;
    struct fl_siteconf *conf;
    struct fl_sitestore store;
    struct fl_compute *compute;
    struct fl_client *client; /* NULL: dead */
    uint64_t conn;            /* 0: idle */
    bool working;             /* a SIM_SITE_WORK is on its way */
    int64_t dark_until;
    uint32_t slowness; /* of its work, 1.. */
    bool hostile;      /* it lies while the weather is bad */
    bool was_revoked;
    struct sim_time time;
    /* a process that was stopped, or a machine that was put to sleep */
    bool asleep, clock_stopped;
    uint32_t wake_version;
    int64_t asleep_at, wake_at;
    struct sim_event *held; /* owned, as their frames: what came meanwhile */
    size_t held_count, held_capacity;
    struct sim_memory said[SIM_MEMORY];
    uint32_t said_next;
    uint32_t sealed_attempt[SIM_ROUNDS_MAX + 2];
    uint8_t sealed[SIM_ROUNDS_MAX + 2][FL_HASH_BYTES]; /* the root that it offered in it */
    atomic_int stop;
    const struct fl_link_event *pending;
};

struct sim_hub {
    struct fl_transport transport; /* first: the server sees this */
    struct sim *sim;
    uint32_t life;
    char directory[FL_PATH_BYTES];
    struct fl_desk *desk; /* NULL: dead */
    struct fl_server *server;
    int64_t next_at;
    bool waking;
    struct sim_time time;
};

struct sim_training { /* what a site made of a start */
    uint32_t site, round, retraining;
    uint8_t root[FL_HASH_BYTES];      /* of the start */
    struct fl_adapter *start, *delta; /* owned; delta may be NULL */
    struct fl_update_stats stats;
    struct sim_training *next;
};

struct sim_cohort { /* what the coordinator counts, seen before it commits */
    bool valid;
    uint32_t round, attempt, retraining;
    uint32_t trained[SIM_SITES_MAX], trained_count; /* indices of sites, by id */
    bool counted[SIM_SITES_MAX];                    /* by place in trained */
    uint32_t counted_count;
    uint8_t root[FL_HASH_BYTES];
    struct fl_rank_plan plan; /* owned; rows: trained */
    struct fl_ranges ranges;
};

struct sim_history {   /* what must never change again */
    uint32_t versions; /* 1..versions are committed */
    /* the coordinator was put back: what of its database is believed anew, and up to which version
       everything is known to two sites and must come back as it was */
    bool adopts;
    uint32_t kept;
    bool stuck; /* only a person can go on */
    bool lone;  /* a version is with one site only, of those that are there */
    int64_t paused_at;
    uint8_t sha256[SIM_ROUNDS_MAX + 1][FL_HASH_BYTES], sum[SIM_ROUNDS_MAX + 1][FL_HASH_BYTES];
    bool has[SIM_ROUNDS_MAX + 1];
    uint32_t round, attempt;
    enum fl_job_state state;
    enum fl_round_state phase;
    int64_t committed_at; /* the last version */
};

struct sim_counts {
    uint64_t steps, frames, site_crashes, hub_crashes, store_crashes, cuts, clogs, disk_faults,
        outages, rubbish, resumes, commits, trainings, attempts, clocks, revocations, sleeps, twins,
        lies, replays, failed_starts, copies, restores;
};

/* Bugs that the simulator must notice: --plant, in sim_planted. */
enum sim_plant {
    SIM_PLANT_NONE,
    SIM_PLANT_TWICE,  /* a part of an update is counted twice */
    SIM_PLANT_REUSED, /* a committed version gets other content */
    SIM_PLANT_SYNC,   /* the coordinator's fsync does nothing */
    SIM_PLANT_STALE,  /* what was said in an earlier attempt is taken for this one */
    SIM_PLANT_BOTH,   /* a site gives both of its shares of one member */
    SIM_PLANT_UNSAID, /* that a job ended is logged at once or never */
    SIM_PLANT_COUNT
};
extern enum sim_plant sim_planted;

struct sim_walk { /* one crash, at one place of a run without weather */
    bool on;
    bool in_store;    /* at the nth durable step of the coordinator's store; else: */
    uint32_t machine; /* at the nth durable operation of this one's disk */
    bool power;       /* that goes with it */
    long n;           /* -1: nowhere */
};

struct sim {
    struct sim_walk walk;
    uint64_t seed, random;
    uint32_t site_count;    /* enrolled */
    uint32_t process_count; /* and the twin */
    bool verbose, failed;
    char failure[512];
    char directory[FL_PATH_BYTES];
    int64_t now, heal_at, done_at, resume_at;
    uint64_t seq, digest;
    struct sim_event *heap; /* owned */
    size_t heap_count, heap_capacity;
    struct sim_conn *conns; /* owned */
    size_t conn_count, conn_capacity;
    struct sim_hub hub;
    struct sim_site sites[SIM_SITES_MAX + 1];
    int64_t wake_at[SIM_SITES_MAX + 1]; /* the timer of each process; INT64_MAX: none */
    struct fl_job_spec *spec;
    struct sim_training *trainings[SIM_SITES_MAX];
    struct sim_cohort cohort;
    struct sim_history history;
    struct sim_counts counts;
    /* by enrolled site and round: the last attempt in which it said so */
    uint32_t fit[SIM_SITES_MAX][SIM_ROUNDS_MAX + 2], trained[SIM_SITES_MAX][SIM_ROUNDS_MAX + 2],
        uploads[SIM_SITES_MAX][SIM_ROUNDS_MAX + 2];
    /* of this seed's weather */
    int64_t latency_ms, fault_every_ms;
    size_t outbox_bytes;
    bool faults;
    uint32_t rounds; /* of the job; set before the run: so many, else as the seed has it */
    bool secure;     /* it has secure aggregation on */
    bool restores;   /* the coordinator is put back to a copy when the weather clears */
    bool copied;     /* there is one */
};

/* ---- sim.c: time, chance, failures ---- */
uint64_t sim_random(struct sim *self);
/* 0..n-1 */
uint32_t sim_below(struct sim *self, uint32_t n);
bool sim_chance(struct sim *self, uint32_t percent);
/* A new event; owned by the heap, good until the next call of anything here. */
struct sim_event *sim_schedule(struct sim *self, int64_t at, enum sim_kind kind);
void sim_trace(struct sim *self, const char *format, ...) FL_PRINTF(2, 3);
/* An invariant does not hold: the run ends. */
void sim_violation(struct sim *self, const char *format, ...) FL_PRINTF(2, 3);
/* One run; false: it failed, and said why. */
bool sim_run(struct sim *self);

/* ---- net.c ---- */
void sim_net_init_hub(struct sim *self);
void sim_net_init_site(struct sim_site *site);
struct sim_conn *sim_conn_at(struct sim *self, uint64_t id);
void sim_net_dial(struct sim_site *site);
void sim_net_event(struct sim *self, struct sim_event *event);
/* The process behind that end is gone. */
void sim_net_site_died(struct sim_site *site);
void sim_net_hub_died(struct sim *self);
void sim_net_cut(struct sim *self, uint64_t conn);
void sim_net_clog(struct sim *self, uint64_t conn, int64_t until);
void sim_net_rubbish(struct sim *self, uint64_t conn, bool to_hub);
void sim_net_corrupt(struct sim *self, uint64_t conn);
/* A frame goes out, whatever the process behind it meant to say. */
void sim_net_say(struct sim_site *site, const void *frame, size_t length);

/* ---- world.c ---- */
bool sim_world_make(struct sim *self);
void sim_world_free(struct sim *self);

/* ---- hub.c ---- */
void sim_hub_start(struct sim *self);
void sim_hub_close(struct sim *self);
void sim_hub_crash(struct sim *self);
/* Make a copy of its directory, once; and put it in the place of the directory. */
void sim_hub_copy(struct sim *self);
void sim_hub_restore(struct sim *self);
void sim_hub_event(struct sim *self, const struct fl_transport_event *event);
void sim_hub_turn(struct sim *self);
/* After anything that the coordinator did. */
void sim_hub_after(struct sim *self);

/* ---- site.c ---- */
void sim_site_start(struct sim_site *site);
void sim_site_close(struct sim_site *site);
void sim_site_crash(struct sim_site *site);
/* NULL: only time passed */
void sim_site_turn(struct sim_site *site, const struct fl_link_event *event);
void sim_site_work(struct sim_site *site);
/* Stop it until that version is committed, that time has come, or the weather clears. */
void sim_site_sleep(struct sim_site *site, uint32_t version, int64_t until, bool clock_stops);
void sim_site_awake(struct sim_site *site);
/* An event for a process that is stopped; takes its frame over. */
void sim_site_hold(struct sim_site *site, struct sim_event *event);

/* ---- trainer.c ---- */
struct fl_trainer sim_trainer(struct sim_site *site);
/* Write an adapter of DoRA that the job of world.c may begin with. */
FL_CHECKED enum fl_status sim_trainer_start(const char *directory, struct fl_error *error);
const struct sim_training *sim_training_of(const struct sim *self, uint32_t site, uint32_t round,
                                           uint32_t retraining, const uint8_t root[FL_HASH_BYTES]);
void sim_trainings_free(struct sim *self);

/* ---- faults.c ---- */
/* Does the machine go with the process? Only while the weather is bad. */
bool sim_power_fails(struct sim *self);
void sim_fault(struct sim *self);
void sim_heal(struct sim *self);

/* ---- operator.c ---- */
void sim_operator_resume(struct sim *self);
void sim_operator_revoke(struct sim *self, uint32_t site);
void sim_operator_allow(struct sim *self, uint32_t site);
void sim_operator_allow_all(struct sim *self);

/* ---- hostile.c ---- */
/* Say something else instead? true: it was said. */
bool sim_hostile_say(struct sim_site *site, const void *frame, size_t length);
void sim_hostile_keep(struct sim_site *site, const void *frame, size_t length);
/* Frames of earlier sessions come first on a new connection. */
void sim_hostile_replay(struct sim_site *site);

/* ---- check.c ---- */
/* After each step of the coordinator. */
void sim_check_hub(struct sim *self);
/* Its coordinator is about to be put back to what it was. */
void sim_check_restore(struct sim *self);
/* When a site starts it has the newest version that it noted, or a later one. */
void sim_check_site(struct sim_site *site);
/* Has every site the last version? */
bool sim_check_delivered(struct sim *self);
/* A frame of a site on its way. */
void sim_check_frame(struct sim_site *site, const void *frame, size_t length);
/* The version is what its survivors sent, summed anew. */
void sim_check_sum(struct sim *self, const struct fl_version *version);

/* ---- shares.c ---- */
void sim_shares_forget(void);
/* A frame of a site, and what it says: with all that it said before, no two shares of a member. */
void sim_check_shares(struct sim_site *site, const struct fl_wire *message, const void *frame,
                      size_t length);

/* ---- audits.c ---- */
/* Does the coordinator's log say that the job is done? */
bool sim_check_ending(const struct sim *self);
/* At the end: every audit log verifies, and they agree. */
void sim_check_audits(struct sim *self);

#endif

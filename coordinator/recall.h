/*
 * recall.h - a coordinator that was restored from an older backup finds out what the sites have
 * seen meanwhile.
 *
 * A site says in HELLO the highest (round, attempt) and the version it saw last. Where that is
 * ahead of the database, or the database says of itself that it is a copy, the job is put aside for
 * at most FL_RECALL_WAIT_MS, and every site is asked which later versions it keeps (RECALL). Then:
 *   two sites give the same version and hash   it is fetched, held against the hash and the job's
 *                                              shapes, entered, and the job goes on behind it
 *   nobody has a later version                 the job goes on where it was
 *   one site only, or hashes that differ       the job pauses and says why; if a second site comes
 *                                              with the same version while it is paused, it goes on
 *                                              by itself, and `job resume` goes on without
 * Whatever comes of it, the next attempt is numbered above all that was reported (job/attempt.h).
 *
 * A liar alone achieves little: of a coordinator that has committed a round since it started, or
 * whose database was held against the sites already, nothing; of one that has just started, one
 * wait, and, in a database that is no copy, a pause only if no other site is there to contradict.
 * One site alone raises attempt numbers by at most FL_RECALL_LONE_MOST in all: they have 32 bits,
 * and who could name the last one would end the job, as no attempt could follow it.
 * Threads: the loop's; a version is checked on the compute thread.
 */
#ifndef FL_COORDINATOR_RECALL_H
#define FL_COORDINATOR_RECALL_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/compute.h"
#include "coordinator/list.h"
#include "coordinator/queue.h"
#include "coordinator/registry.h"
#include "proto/wire.h"

/* Sites that lost their coordinator dial anew within 10 s: this is three of those. */
#define FL_RECALL_WAIT_MS   30000
#define FL_RECALL_ASK_MS    5000 /* an answer that did not come is asked for again */
#define FL_RECALL_LONE_MOST 1000

/* ------------------------------------------------------------------ the rules: pure functions */

/* What a site said of the job. */
struct fl_witness {
    uint32_t site;
    uint32_t round, attempt; /* 0: it speaks of another job */
    bool answered;           /* RECALL, in full */
    int64_t asked_ms;
};

struct fl_claim { /* a version that a site keeps */
    uint32_t site, version;
    uint8_t sha256[FL_HASH_BYTES];
    struct fl_object_ref adapter;
    bool spent; /* it could not be had from that site */
};

/* Where the coordinator's own database stands. */
struct fl_standing {
    int64_t job;
    uint32_t round, attempt;
    bool restored, settled; /* of its row in recalls */
    uint32_t floor, lone;
    uint32_t rounds;  /* of the job */
    bool final_round; /* one behind the last that only evaluates */
};

/*
 * Is that beyond what the database knows? unknown_version: the site's newest version is none of
 * the job's here.
 */
bool fl_recall_is_ahead(const struct fl_standing *own, uint32_t round, uint32_t attempt,
                        bool unknown_version);

/* The claim whose hash the most sites, and at least two, give for that version; NULL: none, or a
   draw. Borrowed. */
const struct fl_claim *fl_recall_confirmed(const struct fl_claim *claims, uint32_t count,
                                           uint32_t version);

enum fl_recall_verdict {
    FL_RECALL_LEVEL, /* nothing later than the own version exists */
    FL_RECALL_TAKE,  /* *version is confirmed; later claims, if any, are not */
    FL_RECALL_ASK    /* *version is claimed, and it takes a person to decide */
};
/*
 * own: the newest version here; certain: the database is a copy; contradicted: some site that was
 * asked has nothing later.
 */
enum fl_recall_verdict fl_recall_judge(const struct fl_claim *claims, uint32_t count, uint32_t own,
                                       bool certain, bool contradicted, uint32_t *version);

/*
 * The number at or below which no attempt may begin, from what the witnesses say, and how much of
 * the allowance of single sites that takes (*lone). Never below own->floor.
 */
uint32_t fl_recall_floor(const struct fl_standing *own, const struct fl_witness *witnesses,
                         uint32_t count, uint32_t *lone);
/* May the attempt `attempt` begin? Else the first one of the next hundred that may. */
uint32_t fl_recall_next_attempt(uint32_t attempt, uint32_t floor);

/* Sites that were found to be alone with their word on one job: it puts that job aside no more,
   from the finding on and not only once the job was taken up. */
struct fl_dismissed { /* zeroed at first */
    int64_t job;
    struct fl_list sites; /* of uint32_t */
};
/* Without memory the site is not entered, and asks for one more wait. */
void fl_recall_dismiss(struct fl_dismissed *self, int64_t job, uint32_t site);
bool fl_recall_is_dismissed(const struct fl_dismissed *self, int64_t job, uint32_t site);
void fl_recall_dismissed_free(struct fl_dismissed *self);

/* ------------------------------------------------------------------ its records (recall_store.c)
 */

/* Where a job stands in the database. FL_ENOTFOUND: no such job. */
FL_CHECKED enum fl_status fl_recall_standing(struct fl_store *store, int64_t job,
                                             struct fl_standing *out, enum fl_job_state *state,
                                             struct fl_error *error);
/* Is that hash the one of a version of the job? */
FL_CHECKED enum fl_status fl_recall_knows(struct fl_store *store, int64_t job,
                                          const uint8_t sha256[FL_HASH_BYTES], bool *known,
                                          struct fl_error *error);
/* Ids of jobs to come lie above `seen`, as far as one site's word goes. *news: they did not. */
FL_CHECKED enum fl_status fl_recall_note_job(struct fl_store *store, int64_t seen, bool *news,
                                             struct fl_error *error);
/* Keep own's restored, settled, floor and lone. */
FL_CHECKED enum fl_status fl_recall_keep(struct fl_store *store, const struct fl_standing *own,
                                         struct fl_error *error);
/* The job goes on at round and attempt of `own`, in that phase and state. */
FL_CHECKED enum fl_status fl_recall_move(struct fl_store *store, const struct fl_standing *own,
                                         enum fl_job_state state, enum fl_round_state phase,
                                         const char *reason, int64_t wall_ms,
                                         struct fl_error *error);

/* ------------------------------------------------------------------ a version (recall_work.c) */

/* Hold a version that came from a site against its hash and the job, and give it its place. */
struct fl_recall_work {
    struct fl_chore chore;
    const struct fl_store *store; /* its file functions only */
    struct fl_job_spec *spec;     /* owned */
    struct fl_inventory targets;  /* owned */
    uint32_t rank_max;            /* of any module of the job */
    uint64_t bytes_max;           /* of a version of the job */
    char part[FL_PATH_BYTES];
    uint8_t sha256[FL_HASH_BYTES];
    uint32_t site;
    /* FL_OK; FL_EFORMAT: these bytes are not that version; else: storage */
    enum fl_status status;
    struct fl_error error;
    struct fl_version version; /* job and version are given; the rest is the result */
};
/* FL_ENOTFOUND: the database does not know the job's modules, so nothing can be checked. */
FL_CHECKED enum fl_status fl_recall_work_create(struct fl_store *store, int64_t job,
                                                struct fl_recall_work **out,
                                                struct fl_error *error);
void fl_recall_work_free(struct fl_recall_work *self);
void fl_recall_work_run(struct fl_chore *chore);

/* ------------------------------------------------------------------ the part of the daemon */

struct fl_server;
struct fl_seat;

enum fl_recall_state {
    FL_RECALL_NONE,
    FL_RECALL_LISTENING, /* the job is put aside */
    FL_RECALL_FETCHING,
    FL_RECALL_CHECKING, /* a version is with the compute thread */
    FL_RECALL_WATCHING  /* the job is paused; other jobs run */
};

struct fl_recall { /* zeroed at first */
    enum fl_recall_state state;
    bool paused; /* the job is: what is found now ends the pause */
    struct fl_standing own;
    uint32_t cause; /* the site whose HELLO gave rise to it; 0: none */
    int64_t deadline_ms, retry_ms;
    struct fl_list witnesses, claims; /* of struct fl_witness, struct fl_claim */
    /* fetching */
    uint32_t target, next;         /* versions */
    struct fl_claim from;          /* whom the present one is fetched from */
    struct fl_list recovered;      /* of struct fl_version: checked, not committed */
    char trouble[FL_REASON_BYTES]; /* why the last fetch failed */
    /* which job runs since when: a round that this process commits proves it healthy */
    int64_t taken_job;
    uint32_t taken_round;
    struct fl_dismissed dismissed;
};

/* HELLO of that seat (seat->hello). true: send it nothing of the job now. */
bool fl_recall_hear(struct fl_server *self, struct fl_seat *seat);
/* May self->job be taken up? true: it is put aside. */
bool fl_recall_holds(struct fl_server *self);
void fl_recall_tick(struct fl_server *self, int64_t now_ms);
/* RECALLED */
void fl_recall_take(struct fl_server *self, struct fl_seat *seat, const struct fl_wire *message);
/* A fetch for FL_FETCH_RECALL ended, well or badly. */
void fl_recall_fetched(struct fl_server *self, struct fl_seat *seat);
/* Number the attempt that self->next begins, if it begins one. */
void fl_recall_number(struct fl_server *self);
void fl_recall_free(struct fl_recall *self);

#endif

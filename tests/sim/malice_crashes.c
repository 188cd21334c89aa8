/*
 * malice_crashes.c - deaths while masks are on: the coordinator in each of its durable steps, and a
 * site in each of its writes and fsyncs. The job ends well every time, with one version, and hub.c
 * watches that nobody says two things in one attempt.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "malice_hub.h"

enum death { OF_THE_COORDINATOR, IN_A_WRITE, IN_AN_FSYNC };

static const char job[] = "[cohort]\nmin_workers = 3\nselect_timeout = 5s\nround_timeout = 20s\n"
                          "liveness_timeout = 5s\nwait_timeout = 1h\n";

/* false: it lived, so that all later steps are past the job's end */
static bool run(enum death death, long at)
{
    static struct hub hub;
    static char name[64];
    static const char *const names[] = {"coordinator", "write", "fsync"};
    bool died = false;
    (void)snprintf(name, sizeof(name), "%s %ld", names[death], at);
    mal_case(name);
    if (hub_open(&hub, 4, job)) {
        hub.liar = MAL_SITES_MAX;
        if (death == OF_THE_COORDINATOR)
            fl_store_crash_at(at);
        else
            mal_die_in(death == IN_A_WRITE ? at : -1, death == IN_AN_FSYNC ? at : -1);
        hub_run(&hub);
        died = hub.crashes > 0 || mal_died() ||
               (death != OF_THE_COORDINATOR && fl_fs_fault_fired());
        mal_die_in(-1, -1);
        mal_expect(hub.job.state == FL_JOB_DONE, "it ends %s in attempt %u: %s",
                   fl_job_state_name(hub.job.state), hub.job.attempt, hub.job.reason);
        mal_expect(!hub_find(&hub, "site_blamed", NULL), "an honest site is blamed");
    }
    hub_close(&hub);
    return died;
}

/* argv: which death, and every how many steps */
int main(int argc, char **argv)
{
    long runs = 0;
    if (argc != 3 || !mal_init())
        return 2;
    enum death death = strcmp(argv[1], "coordinator") == 0 ? OF_THE_COORDINATOR
                       : strcmp(argv[1], "write") == 0     ? IN_A_WRITE
                                                           : IN_AN_FSYNC;
    long every = strtol(argv[2], NULL, 10);
    for (long at = 0; every > 0 && run(death, at) && mal_failures() < 10; at += every)
        runs++;
    (void)printf("%ld deaths, %u expectations failed\n", runs, mal_failures());
    return mal_failures() > 0 || runs < 10;
}

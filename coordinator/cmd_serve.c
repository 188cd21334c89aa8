/* cmd_serve.c - fedlora-coordinator serve: the daemon. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/process.h"
#include "coordinator/commands.h"
#include "coordinator/http.h"
#include "coordinator/server.h"

#define LOCK_TRIES 60 /* 3 s */

static volatile int stop_asked;

static void on_signal(int number)
{
    (void)number;
    stop_asked = 1;
}

static void set_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN;
    (void)sigaction(SIGPIPE, &action, NULL);
}

/* One descriptor a connection: as many as the system allows. */
static uint32_t raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 512;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 && getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 512;
    rlim_t sessions = limit.rlim_cur > 256 ? limit.rlim_cur - 128 : limit.rlim_cur / 2;
    return sessions > FL_WORKERS_MAX ? FL_WORKERS_MAX : (uint32_t)sessions;
}

static enum fl_status open_transport(struct fl_desk *desk, struct fl_server *server,
                                     struct fl_transport **out, struct fl_error *error)
{
    char join[FL_ADDRESS_BYTES];
    enum fl_status status = fl_endpoint_shift(desk->conf.listen, 1, join, error);
    if (status != FL_OK)
        return status;
    const struct fl_server_config config = {.session = desk->conf.listen,
                                            .join = join,
                                            .control = "ipc://control.sock",
                                            .keys = desk->keys,
                                            .decide = fl_server_zap,
                                            .context = server,
                                            .wake_fd = fl_server_wake_fd(server),
                                            .peers_max = raise_descriptors()};
    return fl_server_open(&config, out, error);
}

/* What the last process wrote must be on the disk first; who frees some space need not start the
   daemon again. */
static enum fl_status await_space(struct fl_desk *desk, struct fl_error *error)
{
    const struct timespec wait = {.tv_sec = 1};
    enum fl_status status = fl_store_settle(desk->store, error);
    if (status == FL_ENOSPC)
        fl_log(FL_LOG_ERROR, "disk_full", error->text, FL_STR("directory", desk->directory));
    while (status == FL_ENOSPC && !stop_asked) {
        (void)nanosleep(&wait, NULL);
        status = fl_store_settle(desk->store, error);
    }
    return status;
}

static enum fl_status serve(struct fl_desk *desk, bool exit_when_idle, struct fl_error *error)
{
    struct fl_server *server = NULL;
    struct fl_transport *transport = NULL;
    struct fl_http_desk *http = NULL;
    const struct fl_server_options options = {.exit_when_idle = exit_when_idle, .threaded = true};
    enum fl_status status = await_space(desk, error);
    if (stop_asked || status != FL_OK)
        return stop_asked ? FL_OK : status;
    if (chdir(desk->directory) != 0)
        return fl_fail_errno(error, errno, "%s", desk->directory);
    status = fl_http_open(desk, &http, error);
    if (status == FL_OK)
        status = fl_server_create(desk, &options, &server, error);
    if (status == FL_OK)
        status = open_transport(desk, server, &transport, error);
    if (status == FL_OK) {
        fl_server_attach(server, transport);
        fl_server_show(server, http);
        fl_log(FL_LOG_INFO, "serving", "the coordinator is ready",
               FL_STR("listen", desk->conf.listen), FL_STR("directory", desk->directory));
        status = fl_server_run(server, &stop_asked, error);
    }
    fl_http_close(&http);
    fl_server_destroy(&server);
    fl_server_close(&transport);
    fl_log(FL_LOG_INFO, "stopped", "the coordinator has stopped");
    return status;
}

/* A command that works on the directory holds its lock for a moment; a daemon does for good. */
static enum fl_status open_desk(const char *directory, struct fl_desk **out, struct fl_error *error)
{
    const struct timespec wait = {.tv_nsec = 50000000};
    enum fl_status status = fl_desk_open(directory, fl_clock_system(), out, error);
    for (int i = 0; i < LOCK_TRIES && status == FL_EBUSY && !stop_asked; i++) {
        (void)nanosleep(&wait, NULL);
        status = fl_desk_open(directory, fl_clock_system(), out, error);
    }
    return status;
}

int fl_cmd_serve(int argc, char **argv)
{
    const char *directory = NULL;
    bool exit_when_idle = false;
    int code;
    struct fl_error error;
    struct fl_desk *desk;
    const struct fl_option options[] = {
        {.name = "--dir",
         .value = "DIR",
         .kind = FL_OPTION_STRING,
         .target = &directory,
         .required = true,
         .doc = "the coordinator's directory"},
        {.name = "--exit-when-idle",
         .kind = FL_OPTION_FLAG,
         .target = &exit_when_idle,
         .doc = "end once no job is queued or running"},
    };
    const struct fl_usage usage = {.program = FL_PROGRAM " serve",
                                   .summary = "Run the coordinator until SIGTERM.",
                                   .example = FL_PROGRAM " serve --dir coordinator",
                                   .options = options,
                                   .option_count = sizeof options / sizeof options[0]};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    set_signals();
    fl_process_no_dumps();
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (open_desk(directory, &desk, &error) != FL_OK) {
        if (error.status == FL_EBUSY)
            fl_error_prefix(&error, "another " FL_PROGRAM " works on this directory");
        return fl_cli_fail(FL_PROGRAM, &error);
    }
    enum fl_status status = serve(desk, exit_when_idle, &error);
    fl_desk_close(&desk);
    return status == FL_OK ? 0 : fl_cli_fail(FL_PROGRAM, &error);
}

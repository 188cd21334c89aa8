/*
 * walltime.c - preloaded into a program under test: its wall clock (and no other) is off by the
 * seconds that stand in the file FL_WALLTIME, which a test may rewrite at any moment.
 * Threads: any; no state.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int (*real_clock_gettime)(clockid_t id, struct timespec *out);
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void find(void)
{
    void *function = dlsym(RTLD_NEXT, "clock_gettime");
    if (!function)
        abort();
    memcpy(&real_clock_gettime, &function, sizeof function);
}

static time_t jump(void)
{
    char text[32] = "";
    const char *file = getenv("FL_WALLTIME");
    int kept = errno;
    int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        if (read(fd, text, sizeof text - 1) < 0)
            text[0] = '\0';
        (void)close(fd);
    }
    errno = kept;
    return (time_t)strtol(text, NULL, 10);
}

int clock_gettime(clockid_t id, struct timespec *out)
{
    (void)pthread_once(&once, find);
    int result = real_clock_gettime(id, out);
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        out->tv_sec += jump();
    return result;
}

time_t time(time_t *out)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    *out = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}

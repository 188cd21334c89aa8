/*
 * failpoint.c - preloaded into a daemon under test: it kills itself (SIGKILL) at its nth durable
 * step. The daemon is the very program that is shipped, and knows nothing of this.
 *
 * Environment: FL_FAILPOINT names a file. While it is there, each step on something below
 * FL_FAILPOINT_ROOT takes one off the number in it; at 1 the file goes, FILE.met is written (the
 * step in words), and the process dies. The file holds "NUMBER WHEN", WHEN being
 *   before, after   of fsync, fdatasync, rename, unlink, unlinkat, mkdir, ftruncate; SQLite's too
 *   torn            in the middle of a write: half of its bytes reach the file
 * The number outlives a restart; one that is never met counts the steps.
 * Threads: the steps of one process are taken one after another.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define NAME_BYTES (2 * PATH_MAX)

enum when { WHEN_PASS, WHEN_NOTHING, WHEN_BEFORE, WHEN_AFTER, WHEN_TORN }; /* PASS: not a step */

/* What each call would have reached without us. */
static struct {
    int (*fsync)(int fd);
    int (*fdatasync)(int fd);
    int (*rename)(const char *from, const char *to);
    int (*unlink)(const char *path);
    int (*unlinkat)(int fd, const char *path, int flags);
    int (*mkdir)(const char *path, mode_t mode);
    int (*ftruncate)(int fd, off_t length);
    ssize_t (*write)(int fd, const void *bytes, size_t length);
    ssize_t (*pwrite)(int fd, const void *bytes, size_t length, off_t offset);
} real;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void find(const char *name, void *slot)
{
    void *function = dlsym(RTLD_NEXT, name);
    if (!function)
        abort();
    memcpy(slot, &function, sizeof function);
}

static void find_all(void)
{
    find("fsync", &real.fsync);
    find("fdatasync", &real.fdatasync);
    find("rename", &real.rename);
    find("unlink", &real.unlink);
    find("unlinkat", &real.unlinkat);
    find("mkdir", &real.mkdir);
    find("ftruncate", &real.ftruncate);
    find("write", &real.write);
    find("pwrite", &real.pwrite);
}

/* What path names, at directory fd unless it is absolute; path NULL: what fd refers to. */
static void name_of(int fd, const char *path, char name[NAME_BYTES])
{
    char link[64], base[PATH_MAX] = "";
    if (!path || path[0] != '/') {
        if (fd == AT_FDCWD)
            (void)snprintf(link, sizeof link, "/proc/self/cwd");
        else
            (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, base, sizeof base - 1);
        base[length > 0 ? length : 0] = '\0';
    }
    (void)snprintf(name, NAME_BYTES, "%s%s%s", base, base[0] && path ? "/" : "", path ? path : "");
}

static enum when when_of(const char *word)
{
    if (strcmp(word, "before") == 0)
        return WHEN_BEFORE;
    if (strcmp(word, "after") == 0)
        return WHEN_AFTER;
    return strcmp(word, "torn") == 0 ? WHEN_TORN : WHEN_NOTHING;
}

static void say_met(const char *file, const char *what, const char *name, const char *word)
{
    char path[PATH_MAX], text[NAME_BYTES + 64];
    (void)snprintf(path, sizeof path, "%s.met", file);
    int length = snprintf(text, sizeof text, "%s %s %s\n", word, what, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || real.write(fd, text, (size_t)length) != length || close(fd) != 0)
        abort();
}

/* Take one off the number. What is to happen at this step. */
static enum when count(bool writes, const char *what, const char *name)
{
    const char *file = getenv("FL_FAILPOINT");
    char text[64] = "", word[16] = "";
    unsigned long left = 0;
    int fd = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return WHEN_NOTHING;
    struct stat info;
    enum when when = WHEN_NOTHING;
    /* a test takes it away under the same lock, and knows then whether the process dies of it */
    if (flock(fd, LOCK_EX) != 0 || fstat(fd, &info) != 0 || info.st_nlink == 0)
        left = 0;
    else if (pread(fd, text, sizeof text - 1, 0) > 0 &&
             sscanf(text, "%lu %15s", &left, word) == 2 && left > 0 &&
             (when_of(word) == WHEN_TORN) == writes) {
        if (left == 1) {
            when = when_of(word);
            say_met(file, what, name, word);
            (void)real.unlink(file);
        } else {
            int length = snprintf(text, sizeof text, "%010lu %s\n", left - 1, word);
            if (real.pwrite(fd, text, (size_t)length, 0) != length)
                abort();
        }
    }
    (void)close(fd);
    return when;
}

static void die(void)
{
    for (;;)
        (void)kill(getpid(), SIGKILL);
}

static enum when enter(bool writes, int fd, const char *path, const char *what)
{
    char name[NAME_BYTES];
    int kept = errno;
    (void)pthread_once(&once, find_all);
    const char *root = getenv("FL_FAILPOINT_ROOT");
    if (!root)
        return WHEN_PASS;
    name_of(fd, path, name);
    enum when when = WHEN_PASS;
    if (strncmp(name, root, strlen(root)) == 0) {
        (void)pthread_mutex_lock(&mutex);
        when = count(writes, what, name);
    }
    if (when == WHEN_BEFORE)
        die();
    errno = kept;
    return when;
}

static void leave(enum when when)
{
    if (when == WHEN_AFTER)
        die();
    if (when != WHEN_PASS)
        (void)pthread_mutex_unlock(&mutex);
}

/* ---- the calls; each is a step ---- */

int fsync(int fd)
{
    enum when when = enter(false, fd, NULL, "fsync");
    int result = real.fsync(fd);
    leave(when);
    return result;
}

int fdatasync(int fd)
{
    enum when when = enter(false, fd, NULL, "fdatasync");
    int result = real.fdatasync(fd);
    leave(when);
    return result;
}

int rename(const char *from, const char *to)
{
    enum when when = enter(false, AT_FDCWD, to, "rename to");
    int result = real.rename(from, to);
    leave(when);
    return result;
}

int unlink(const char *path)
{
    enum when when = enter(false, AT_FDCWD, path, "unlink");
    int result = real.unlink(path);
    leave(when);
    return result;
}

int unlinkat(int fd, const char *path, int flags)
{
    enum when when = enter(false, fd, path, "unlinkat");
    int result = real.unlinkat(fd, path, flags);
    leave(when);
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    enum when when = enter(false, AT_FDCWD, path, "mkdir");
    int result = real.mkdir(path, mode);
    leave(when);
    return result;
}

/* The 64-bit names are the same functions on the machines that we know; SQLite calls either. */
int ftruncate(int fd, off_t length)
{
    enum when when = enter(false, fd, NULL, "ftruncate");
    int result = real.ftruncate(fd, length);
    leave(when);
    return result;
}

int ftruncate64(int fd, off64_t length);
int ftruncate64(int fd, off64_t length)
{
    return ftruncate(fd, length);
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    enum when when = enter(true, fd, NULL, "write");
    ssize_t result = real.write(fd, bytes, when == WHEN_TORN ? length / 2 : length);
    if (when == WHEN_TORN)
        die();
    leave(when);
    return result;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
    enum when when = enter(true, fd, NULL, "pwrite");
    ssize_t result = real.pwrite(fd, bytes, when == WHEN_TORN ? length / 2 : length, offset);
    if (when == WHEN_TORN)
        die();
    leave(when);
    return result;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset);
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset)
{
    return pwrite(fd, bytes, length, offset);
}

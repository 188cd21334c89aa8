/*
 * zmq_silent.c - connections that were accepted but never finished a frame.
 *
 * ZeroMQ shows a message only when all its parts are there, so a peer that sends parts without end
 * would fill memory unseen. Whoever has not finished one frame in time is cut off; afterwards the
 * liveness clock of its session does the same.
 */
#include <string.h>

#include "base/alloc.h"
#include "net/zmq_internal.h"

enum fl_status fl_zmq_silents_init(struct fl_zmq_silents *self, uint32_t capacity)
{
    self->count = 0;
    self->capacity = capacity;
    self->entries = fl_calloc(capacity, sizeof(*self->entries));
    return self->entries ? FL_OK : FL_ENOMEM;
}

void fl_zmq_silents_free(struct fl_zmq_silents *self)
{
    fl_free(self->entries);
    memset(self, 0, sizeof(*self));
}

static void take_out(struct fl_zmq_silents *self, uint32_t i)
{
    self->entries[i] = self->entries[--self->count];
}

void fl_zmq_silents_add(struct fl_zmq_silents *self, int fd, int64_t until_ms)
{
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISSOCK(st.st_mode))
        return;
    if (self->count == self->capacity) { /* a crowd of the silent: the newest has to go */
        fl_zmq_shut(fd, st.st_ino);
        return;
    }
    self->entries[self->count++] =
        (struct fl_zmq_silent){.fd = fd, .inode = st.st_ino, .until_ms = until_ms};
}

void fl_zmq_silents_remove(struct fl_zmq_silents *self, int fd)
{
    for (uint32_t i = self->count; i-- > 0;)
        if (self->entries[i].fd == fd)
            take_out(self, i);
}

static bool is_peer(const struct fl_zmq_peers *peers, const struct fl_zmq_silent *silent)
{
    for (uint32_t i = 0; i < peers->high; i++)
        if (peers->slots[i].handle && peers->slots[i].fd == silent->fd &&
            peers->slots[i].inode == silent->inode)
            return true;
    return false;
}

void fl_zmq_silents_expire(struct fl_zmq_silents *self, const struct fl_zmq_peers *peers,
                           int64_t now_ms)
{
    for (uint32_t i = self->count; i-- > 0;) {
        const struct fl_zmq_silent silent = self->entries[i];
        if (silent.until_ms > now_ms)
            continue;
        if (!is_peer(peers, &silent))
            fl_zmq_shut(silent.fd, silent.inode);
        take_out(self, i);
    }
}

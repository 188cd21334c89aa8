/*
 * zmq_peers.c - the server's peers by handle and by routing id, and what is parked for them.
 *
 * A handle is serial << 16 | slot, with a serial that only grows, so that no handle comes twice.
 * Routing ids may be chosen by a peer: the table hashes them with a secret key. A dropped peer
 * stays in the table, dead, until its connection is known to be closed, so that late frames meet
 * it.
 */
#include <assert.h>
#include <string.h>
#include <sys/socket.h>

#include <sodium.h>

#include "base/alloc.h"
#include "net/zmq_internal.h"

struct fl_zmq_parked {
    struct fl_zmq_parked *next;
    size_t length;
    uint8_t bytes[];
};

enum fl_status fl_zmq_peers_init(struct fl_zmq_peers *self, uint32_t slot_count)
{
    assert(slot_count >= 1 && slot_count <= 65535);
    memset(self, 0, sizeof(*self));
    self->slot_count = slot_count;
    self->bucket_count = 2 * slot_count;
    self->slots = fl_calloc(slot_count, sizeof(*self->slots));
    self->buckets = fl_calloc(self->bucket_count, sizeof(*self->buckets));
    randombytes_buf(self->hash_key, sizeof(self->hash_key));
    if (self->slots && self->buckets)
        return FL_OK;
    fl_zmq_peers_free(self);
    return FL_ENOMEM;
}

void fl_zmq_peers_free(struct fl_zmq_peers *self)
{
    for (uint32_t i = 0; self->slots && i < self->high; i++)
        if (self->slots[i].handle)
            fl_zmq_peers_remove(self, &self->slots[i]);
    fl_free(self->slots);
    fl_free(self->buckets);
    memset(self, 0, sizeof(*self));
}

static uint32_t *bucket_of(struct fl_zmq_peers *self, enum fl_port port, const void *id,
                           size_t id_length)
{
    uint8_t hash[crypto_shorthash_BYTES];
    uint64_t value;
    crypto_shorthash(hash, id, id_length, self->hash_key);
    memcpy(&value, hash, sizeof(value));
    return &self->buckets[(value + (uint64_t)port) % self->bucket_count];
}

struct fl_zmq_peer *fl_zmq_peers_find(struct fl_zmq_peers *self, enum fl_port port, const void *id,
                                      size_t id_length)
{
    for (uint32_t at = *bucket_of(self, port, id, id_length); at != 0;) {
        struct fl_zmq_peer *peer = &self->slots[at - 1];
        if (peer->port == port && peer->id_length == id_length &&
            memcmp(peer->id, id, id_length) == 0)
            return peer;
        at = peer->next;
    }
    return NULL;
}

struct fl_zmq_peer *fl_zmq_peers_get(struct fl_zmq_peers *self, fl_peer handle)
{
    const uint64_t slot = handle & 0xffff;
    if (handle == 0 || slot >= self->high || self->slots[slot].handle != handle)
        return NULL;
    return &self->slots[slot];
}

struct fl_zmq_peer *fl_zmq_peers_add(struct fl_zmq_peers *self, enum fl_port port, const void *id,
                                     size_t id_length, int fd, const char *user)
{
    uint32_t slot = 0;
    if (id_length > sizeof(self->slots[0].id) || self->used == self->slot_count)
        return NULL;
    while (self->slots[slot].handle)
        slot++;
    if (slot >= self->high)
        self->high = slot + 1;
    struct fl_zmq_peer *peer = &self->slots[slot];
    memset(peer, 0, sizeof(*peer));
    peer->handle = ++self->serial << 16 | slot;
    peer->port = port;
    peer->id_length = (uint8_t)id_length;
    memcpy(peer->id, id, id_length);
    memcpy(peer->user, user, strnlen(user, sizeof(peer->user) - 1));
    struct stat st;
    const bool known = fd >= 0 && fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
    peer->fd = known ? fd : -1;
    peer->inode = known ? st.st_ino : 0;
    uint32_t *bucket = bucket_of(self, port, id, id_length);
    peer->next = *bucket;
    *bucket = slot + 1;
    self->used++;
    return peer;
}

static void clear_outbox(struct fl_zmq_peers *self, struct fl_zmq_peer *peer)
{
    while (peer->head)
        fl_zmq_peers_unpark(self, peer);
}

void fl_zmq_peers_remove(struct fl_zmq_peers *self, struct fl_zmq_peer *peer)
{
    uint32_t *link = bucket_of(self, peer->port, peer->id, peer->id_length);
    const uint32_t mine = (uint32_t)(peer - self->slots) + 1;
    while (*link != mine)
        link = &self->slots[*link - 1].next;
    *link = peer->next;
    clear_outbox(self, peer);
    self->ready -= peer->gone_due || peer->drained_due;
    self->dead -= peer->dead;
    self->used--;
    memset(peer, 0, sizeof(*peer));
}

void fl_zmq_peers_kill(struct fl_zmq_peers *self, struct fl_zmq_peer *peer, int64_t now_ms)
{
    if (peer->dead)
        return;
    clear_outbox(self, peer);
    self->ready += !peer->drained_due;
    peer->drained_due = false;
    peer->gone_due = true;
    peer->dead = true;
    peer->shut_at_ms = now_ms + FL_ZMQ_DROP_LINGER_MS;
    peer->forget_at_ms = now_ms + FL_ZMQ_FORGET_MS;
    self->dead++;
}

struct fl_zmq_peer *fl_zmq_peers_ready(struct fl_zmq_peers *self)
{
    for (uint32_t i = 0; self->ready > 0 && i < self->high; i++)
        if (self->slots[i].gone_due || self->slots[i].drained_due)
            return &self->slots[i];
    return NULL;
}

void fl_zmq_shut(int fd, ino_t inode)
{
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == inode)
        (void)shutdown(fd, SHUT_RDWR);
}

void fl_zmq_peers_bury(struct fl_zmq_peers *self, int64_t now_ms)
{
    for (uint32_t i = 0; self->dead > 0 && i < self->high; i++) {
        struct fl_zmq_peer *peer = &self->slots[i];
        if (!peer->dead)
            continue;
        if (peer->shut_at_ms <= now_ms) {
            fl_zmq_shut(peer->fd, peer->inode);
            peer->shut_at_ms = INT64_MAX;
        }
        if (!peer->gone_due && peer->forget_at_ms <= now_ms)
            fl_zmq_peers_remove(self, peer);
    }
}

enum fl_status fl_zmq_peers_park(struct fl_zmq_peers *self, struct fl_zmq_peer *peer,
                                 const void *frame, size_t length)
{
    if (peer->head && peer->parked_bytes + length > FL_OUTBOX_BYTES) {
        peer->wants_drained = true;
        return FL_EBUSY;
    }
    struct fl_zmq_parked *parked = fl_malloc(sizeof(*parked) + length);
    if (!parked)
        return FL_ENOMEM;
    parked->next = NULL;
    parked->length = length;
    memcpy(parked->bytes, frame, length);
    if (peer->tail)
        peer->tail->next = parked;
    else
        peer->head = parked;
    self->parked += peer->tail == NULL;
    peer->tail = parked;
    peer->parked_bytes += length;
    return FL_OK;
}

bool fl_zmq_peers_parked(const struct fl_zmq_peer *peer, const void **frame, size_t *length)
{
    if (!peer->head)
        return false;
    *frame = peer->head->bytes;
    *length = peer->head->length;
    return true;
}

void fl_zmq_peers_unpark(struct fl_zmq_peers *self, struct fl_zmq_peer *peer)
{
    struct fl_zmq_parked *parked = peer->head;
    peer->head = parked->next;
    peer->parked_bytes -= parked->length;
    fl_free(parked);
    if (peer->head)
        return;
    peer->tail = NULL;
    self->parked--;
    if (peer->wants_drained && !peer->dead) {
        peer->wants_drained = false;
        self->ready += !(peer->drained_due || peer->gone_due);
        peer->drained_due = true;
    }
}

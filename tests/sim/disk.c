/* disk.c - see disk.h. */
#include "disk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "sim.h"

#define EXPIRE_MS    30000 /* the kernel writes back by itself what is older */
#define SECTOR_BYTES 512u

struct entry { /* a change of names that no fsync of its directory has made durable */
    struct entry *next;
    enum sim_naming kind;
    int64_t at;
    char *parent, *path, *other, *grave;
    bool lost;
};

struct sim_disk {
    struct sim_node *nodes;
    struct entry *first, **last;
    bool dead;
    long die_at, fail_write, fail_sync;
    int64_t full_until;
    uint64_t operations;
};

static struct sim *world;
static struct sim_disk *disks; /* (count) */
static uint32_t count, graves;
static bool at_work; /* the simulator's own calls pass */

/* ---- memory: a simulator that has none left stops ---- */

static void *memory(size_t bytes)
{
    void *new = fl_calloc(1, bytes ? bytes : 1);
    assert(new);
    return new;
}

static char *text(const char *from)
{
    return from ? memcpy(memory(strlen(from) + 1), from, strlen(from) + 1) : NULL;
}

/* The directory that holds path, as a new text. */
static char *parent_of(const char *path)
{
    char *parent = text(path);
    char *slash = strrchr(parent, '/');
    assert(slash);
    *slash = '\0';
    return parent;
}

/* ---- machines ---- */

void sim_disks_make(struct sim *self, uint32_t machines)
{
    world = self;
    count = machines;
    graves = 0;
    disks = memory(machines * sizeof(*disks));
    for (uint32_t i = 0; i < machines; i++) {
        struct sim_disk *disk = &disks[i];
        disk->last = &disk->first;
        disk->die_at = disk->fail_write = disk->fail_sync = -1;
    }
}

struct sim_disk *sim_disk_of(const char *path)
{
    if (!world || at_work)
        return NULL;
    size_t length = strlen(world->directory);
    unsigned site;
    if (strncmp(path, world->directory, length) != 0 || path[length] != '/')
        return NULL;
    const char *name = path + length + 1;
    if (strncmp(name, "hub", 3) == 0 && (name[3] == '/' || name[3] == '\0'))
        return &disks[SIM_MACHINE_HUB];
    return sscanf(name, "site%u", &site) == 1 && site + 1 < count ? &disks[site + 1] : NULL;
}

void sim_disk_die_at(uint32_t machine, long n)
{
    disks[machine].die_at = n;
}

void sim_disk_fail_write_at(uint32_t machine, long n)
{
    disks[machine].fail_write = n;
}

void sim_disk_fail_sync_at(uint32_t machine, long n)
{
    disks[machine].fail_sync = n;
}

void sim_disk_fill(uint32_t machine, int64_t until)
{
    disks[machine].full_until = until;
}

void sim_disk_kill(uint32_t machine)
{
    disks[machine].dead = true;
}

bool sim_disk_is_dead(uint32_t machine)
{
    return disks[machine].dead;
}

uint64_t sim_disk_operations(uint32_t machine)
{
    return disks[machine].operations;
}

static bool due(long *countdown)
{
    return *countdown >= 0 && (*countdown)-- == 0;
}

bool sim_disk_may(struct sim_disk *disk)
{
    if (due(&disk->die_at))
        disk->dead = true;
    disk->operations += !disk->dead;
    if (disk->dead)
        errno = EIO;
    return !disk->dead;
}

bool sim_disk_is_full(const struct sim_disk *disk)
{
    return world->now < disk->full_until;
}

bool sim_disk_may_write(struct sim_disk *disk, bool grows)
{
    if (!sim_disk_may(disk))
        return false;
    errno = due(&disk->fail_write) ? EIO : grows && sim_disk_is_full(disk) ? ENOSPC : 0;
    return errno == 0;
}

/* ---- files ---- */

struct sim_node *sim_node_find(struct sim_disk *disk, const char *path, bool in_memory)
{
    for (struct sim_node *n = disk->nodes; n; n = n->next) {
        if (n->in_memory == in_memory && strcmp(n->path, path) == 0)
            return n;
    }
    return NULL;
}

struct sim_node *sim_node_open(struct sim_disk *disk, const char *path, bool in_memory)
{
    struct sim_node *node = disk ? sim_node_find(disk, path, in_memory) : NULL;
    if (!node) {
        node = memory(sizeof(*node));
        node->disk = disk;
        node->path = text(path);
        node->in_memory = in_memory;
        node->next = disk ? disk->nodes : NULL;
        if (disk)
            disk->nodes = node;
    }
    node->references++;
    return node;
}

static void free_change(struct sim_change *change)
{
    fl_free(change->was);
    fl_free(change->is);
    fl_free(change);
}

static void free_changes(struct sim_node *node)
{
    while (node->changes) {
        struct sim_change *next = node->changes->next;
        free_change(node->changes);
        node->changes = next;
    }
}

void sim_node_delete(struct sim_node *node)
{
    struct sim_node **at = node->disk ? &node->disk->nodes : NULL;
    while (at && *at != node)
        at = &(*at)->next;
    if (at)
        *at = node->next;
    sim_vfs_forget(node);
    free_changes(node);
    fl_free(node->bytes);
    fl_free(node->path);
    fl_free(node);
}

/* Of a file that is closed and durable nothing needs to be known. */
void sim_node_close(struct sim_node *node)
{
    assert(node->references > 0);
    node->references--;
    if (node->references == 0 && (!node->disk || (!node->in_memory && !node->changes)))
        sim_node_delete(node);
}

void sim_node_note(struct sim_node *node, uint64_t size, uint64_t offset, const uint8_t *was,
                   const uint8_t *is, size_t length, bool cut)
{
    struct sim_change *change = memory(sizeof(*change)), **at = &node->changes;
    *change =
        (struct sim_change){.offset = offset, .size_before = size, .length = length, .cut = cut};
    change->was = memory(length);
    change->is = memory(length);
    if (length > 0)
        memcpy(change->was, was, length);
    if (length > 0 && !cut)
        memcpy(change->is, is, length);
    while (*at)
        at = &(*at)->next;
    *at = change;
}

void sim_node_put(struct sim_node *node, uint64_t offset, const uint8_t *bytes, size_t length)
{
    size_t end = (size_t)offset + length;
    if (end > node->capacity) {
        size_t capacity = node->capacity ? node->capacity : 4096;
        while (capacity < end)
            capacity *= 2;
        node->bytes = fl_reallocarray(node->bytes, capacity, 1);
        assert(node->bytes);
        memset(node->bytes + node->capacity, 0, capacity - node->capacity);
        node->capacity = capacity;
    }
    if (length > 0)
        memcpy(node->bytes + offset, bytes, length);
    node->size = end > node->size ? end : node->size;
}

/* The part of a change from `from` to `to`, within it. */
static struct sim_change *part(const struct sim_change *whole, uint64_t from, uint64_t to)
{
    struct sim_change *new = memory(sizeof(*new));
    size_t skip = (size_t)(from - whole->offset), length = (size_t)(to - from);
    *new = *whole;
    new->offset = from;
    new->length = length;
    new->was = memory(length);
    new->is = memory(length);
    memcpy(new->was, whole->was + skip, length);
    memcpy(new->is, whole->is + skip, length);
    return new;
}

/* What a later, durable change covers of one that never will be durable is settled by it. */
static void settle(struct sim_change **at, const struct sim_change *durable)
{
    struct sim_change *under = *at, *next = under->next;
    uint64_t end = under->offset + under->length, last = durable->offset + durable->length;
    if (durable->cut)
        last = UINT64_MAX;
    else if (last > under->size_before)
        under->size_before = last;
    if (durable->cut && durable->offset < under->size_before)
        under->size_before = durable->offset;
    if (!under->cut && (last <= under->offset || durable->offset >= end))
        return;
    if (!under->cut && last < end) {
        struct sim_change *right = part(under, last, end);
        right->next = next;
        next = right;
    }
    if (!under->cut && durable->offset > under->offset) {
        struct sim_change *left = part(under, under->offset, durable->offset);
        left->next = next;
        next = left;
    }
    *at = next;
    free_change(under);
}

static void make_durable(struct sim_node *node)
{
    struct sim_change **at = &node->changes, *change;
    while ((change = *at)) {
        if (change->stuck) {
            at = &change->next;
            continue;
        }
        *at = NULL; /* those before it */
        struct sim_change *rest = change->next, **under = &node->changes;
        while (*under) {
            struct sim_change *was = *under;
            settle(under, change);
            if (*under == was)
                under = &was->next;
        }
        for (at = &node->changes; *at;)
            at = &(*at)->next;
        *at = rest;
        free_change(change);
    }
}

/* ---- names ---- */

void sim_disk_grave(char *out)
{
    struct fl_error error;
    char name[32];
    (void)snprintf(name, sizeof(name), "grave%u", graves++);
    if (fl_path_join(out, world->directory, name, &error) != FL_OK)
        out[0] = '\0';
}

void sim_disk_named(struct sim_disk *disk, enum sim_naming kind, const char *path,
                    const char *other, const char *grave)
{
    struct entry *entry = memory(sizeof(*entry));
    *entry = (struct entry){.kind = kind,
                            .at = world->now,
                            .parent = parent_of(path),
                            .path = text(path),
                            .other = text(other),
                            .grave = text(grave)};
    *disk->last = entry;
    disk->last = &entry->next;
}

/* A file without a name is gone for good. */
static void forget_grave(struct sim_disk *disk, const char *grave)
{
    struct sim_node *node = sim_node_find(disk, grave, false);
    bool was = at_work;
    at_work = true;
    (void)!unlink(grave);
    at_work = was;
    if (node && node->references == 0)
        sim_node_delete(node);
    else if (node)
        free_changes(node);
}

static void free_entry(struct sim_disk *disk, struct entry *entry)
{
    if (entry->grave)
        forget_grave(disk, entry->grave);
    fl_free(entry->parent);
    fl_free(entry->path);
    fl_free(entry->other);
    fl_free(entry->grave);
    fl_free(entry);
}

static bool is_below(const char *path, const char *directory)
{
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && path[length] == '/';
}

static void move_text(char **path, const char *from, const char *to)
{
    char moved[FL_PATH_BYTES];
    if (!*path || !is_below(*path, from))
        return;
    (void)snprintf(moved, sizeof(moved), "%s%s", to, *path + strlen(from));
    fl_free(*path);
    *path = text(moved);
}

void sim_disk_move(struct sim_disk *disk, const char *from, const char *to)
{
    for (struct sim_node *n = disk->nodes; n; n = n->next) {
        if (strcmp(n->path, from) == 0) {
            fl_free(n->path);
            n->path = text(to);
        }
        move_text(&n->path, from, to);
    }
    for (struct entry *e = disk->first; e; e = e->next) {
        move_text(&e->path, from, to);
        move_text(&e->other, from, to);
        if (strcmp(e->parent, from) == 0) {
            fl_free(e->parent);
            e->parent = text(to);
        }
        move_text(&e->parent, from, to);
    }
}

/* Entries of that directory become durable; NULL: those that are old. */
static void sync_names(struct sim_disk *disk, const char *directory)
{
    struct entry **at = &disk->first;
    while (*at) {
        struct entry *entry = *at;
        bool durable = directory ? strcmp(entry->parent, directory) == 0
                                 : world->now - entry->at > EXPIRE_MS;
        if (!durable) {
            at = &entry->next;
            continue;
        }
        *at = entry->next;
        free_entry(disk, entry);
    }
    disk->last = at;
}

bool sim_disk_sync(struct sim_disk *disk, struct sim_node *node, const char *directory)
{
    if (!sim_disk_may(disk))
        return false;
    if (due(&disk->fail_sync)) {
        for (struct sim_change *c = node ? node->changes : NULL; c; c = c->next)
            c->stuck = true;
        errno = EIO;
        return false;
    }
    if (sim_planted == SIM_PLANT_SYNC && disk == &disks[SIM_MACHINE_HUB])
        return true; /* it lies */
    sync_names(disk, NULL);
    if (node)
        make_durable(node);
    else
        sync_names(disk, directory);
    return true;
}

static void flush(struct sim_disk *disk)
{
    for (struct sim_node *n = disk->nodes, *next; n; n = next) {
        next = n->next;
        free_changes(n);
        if (!n->in_memory && n->references == 0)
            sim_node_delete(n);
    }
    while (disk->first) {
        struct entry *next = disk->first->next;
        free_entry(disk, disk->first);
        disk->first = next;
    }
    disk->last = &disk->first;
}

void sim_disks_flush(void)
{
    for (uint32_t i = 0; i < count; i++)
        flush(&disks[i]);
}

void sim_disk_replace(uint32_t machine, const char *directory, const char *copy)
{
    char aside[FL_PATH_BYTES];
    struct fl_error error;
    struct sim_disk *disk = &disks[machine];
    flush(disk);
    for (struct sim_node *n = disk->nodes, *next; n; n = next) {
        next = n->next;
        assert(n->references == 0);
        if (!is_below(n->path, copy))
            sim_node_delete(n);
    }
    at_work = true;
    sim_disk_grave(aside);
    if (rename(copy, aside) != 0 || fl_fs_remove(directory, &error) != FL_OK ||
        rename(aside, directory) != 0)
        sim_violation(world, "the copy of %s cannot take its place", directory);
    at_work = false;
    sim_disk_move(disk, copy, directory);
}

void sim_disks_free(void)
{
    if (!world)
        return;
    sim_disks_flush();
    for (uint32_t i = 0; i < count; i++) {
        while (disks[i].nodes)
            sim_node_delete(disks[i].nodes);
    }
    fl_free(disks);
    disks = NULL;
    count = 0;
    world = NULL;
}

/* ---- the power fails ---- */

/* Of each directory the last names are lost, from some one on. */
static void choose_lost(struct sim_disk *disk)
{
    static const uint32_t chances[] = {0, 15, 50, 100};
    uint32_t chance = chances[sim_below(world, 4)];
    for (struct entry *e = disk->first; e; e = e->next) {
        e->lost = sim_chance(world, chance);
        for (const struct entry *b = disk->first; b != e && !e->lost; b = b->next)
            e->lost = b->lost && strcmp(b->parent, e->parent) == 0;
    }
}

static void put_back(struct sim_disk *disk, const char *from, const char *to)
{
    if (rename(from, to) == 0)
        sim_disk_move(disk, from, to);
}

static void undo(struct sim_disk *disk, struct entry *e)
{
    struct fl_error error;
    char aside[FL_PATH_BYTES];
    struct sim_node *node;
    switch (e->kind) {
    case SIM_NAME_CREATED:
        node = sim_node_find(disk, e->path, false);
        (void)!unlink(e->path);
        if (node)
            free_changes(node);
        break;
    case SIM_NAME_RENAMED:
        put_back(disk, e->path, e->other);
        break;
    case SIM_NAME_EXCHANGED:
        sim_disk_grave(aside);
        put_back(disk, e->path, aside);
        put_back(disk, e->other, e->path);
        put_back(disk, aside, e->other);
        break;
    case SIM_NAME_DIRECTORY_MADE:
        (void)!fl_fs_remove(e->path, &error);
        break;
    case SIM_NAME_DIRECTORY_REMOVED:
        (void)!mkdir(e->path, 0700);
        break;
    case SIM_NAME_REMOVED:
        break;
    }
    if (e->grave)
        put_back(disk, e->grave, e->path);
}

static void lose_names(struct sim_disk *disk)
{
    struct entry *reversed = NULL;
    choose_lost(disk);
    for (struct entry *e = disk->first, *next; e; e = next) {
        next = e->next;
        e->next = reversed;
        reversed = e;
    }
    disk->first = NULL;
    disk->last = &disk->first;
    for (struct entry *e = reversed, *next; e; e = next) {
        next = e->next;
        if (e->lost)
            undo(disk, e);
        /* those before it must be known while it is undone: what is left of the list stays linked
         */
        disk->first = next;
        free_entry(disk, e);
    }
    disk->first = NULL;
}

static void cut(struct sim_node *node, uint64_t size)
{
    if (size >= node->size)
        return;
    memset(node->bytes + size, 0, node->size - (size_t)size);
    node->size = (size_t)size;
}

static void take_back(struct sim_node *node, const struct sim_change *change)
{
    if (change->next)
        take_back(node, change->next);
    sim_node_put(node, change->offset, change->was, change->length);
    cut(node, change->size_before);
}

enum harm { HARM_ALL, HARM_NONE, HARM_SOME, HARM_TORN, HARM_COUNT };

/* Up to some sector it came through; behind that there is nothing, or anything. */
static void tear(struct sim_change *change)
{
    uint64_t end = change->offset + sim_below(world, (uint32_t)change->length + 1);
    end -= end % SECTOR_BYTES;
    size_t good = end > change->offset ? (size_t)(end - change->offset) : 0;
    uint32_t kind = sim_below(world, 3);
    if (kind == 0)
        change->length = good;
    for (size_t i = good; i < change->length; i++)
        change->is[i] = kind == 1 ? 0 : (uint8_t)sim_random(world);
}

static void bring_in(struct sim_node *node, struct sim_change *change, enum harm harm)
{
    if (harm == HARM_ALL || (harm >= HARM_SOME && sim_chance(world, 50)))
        return;
    if (change->cut) {
        cut(node, change->offset);
        return;
    }
    if (harm == HARM_TORN && sim_chance(world, 50))
        tear(change);
    sim_node_put(node, change->offset, change->is, change->length);
}

static void load(struct sim_node *node)
{
    struct fl_buf bytes;
    struct fl_error error;
    cut(node, 0);
    if (fl_fs_read(node->path, 1u << 26, &bytes, &error) == FL_OK)
        sim_node_put(node, 0, bytes.data, bytes.length);
    fl_buf_free(&bytes);
}

static void store(const struct sim_node *node)
{
    int fd = open(node->path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    if (fd >= 0 && fl_fs_write_all(fd, node->bytes, node->size) != FL_OK)
        sim_violation(world, "the simulator cannot write %s", node->path);
    if (fd >= 0)
        (void)close(fd);
}

static void lose_bytes(struct sim_node *node)
{
    enum harm harm = (enum harm)sim_below(world, HARM_COUNT);
    if (!node->changes)
        return;
    if (!node->in_memory)
        load(node);
    take_back(node, node->changes);
    for (struct sim_change *c = node->changes; c; c = c->next)
        bring_in(node, c, harm);
    free_changes(node);
    if (!node->in_memory)
        store(node);
}

void sim_disk_bury(uint32_t machine, bool power)
{
    struct sim_disk *disk = &disks[machine];
    disk->dead = false;
    disk->die_at = disk->fail_write = disk->fail_sync = -1;
    if (!power)
        return;
    at_work = true;
    lose_names(disk);
    for (struct sim_node *n = disk->nodes, *next; n; n = next) {
        next = n->next;
        lose_bytes(n);
        if (!n->in_memory && n->references == 0)
            sim_node_delete(n);
    }
    at_work = false;
}

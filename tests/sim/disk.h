/*
 * disk.h - the disks of the simulated machines. What was written and not fsynced may be lost when a
 * machine loses its power: the bytes of a file until it is fsynced, a name until its directory is.
 * A process that is dead writes nothing more, whatever its destructors try.
 *
 * disk_calls.c stands in front of the C library's open, write, fsync, rename and their kin (the
 * linker's --wrap), for what lies below the world's directory; disk_vfs.c keeps SQLite's files in
 * memory. The names and contents that they show are those of the page cache; each change that is
 * not yet durable is noted here, with what it needs to be undone.
 * Machine 0 is the coordinator's, machine 1 + i that of site i. Threads: one.
 */
#ifndef FL_SIM_DISK_H
#define FL_SIM_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sim;

#define SIM_MACHINE_HUB 0

/* ---- what the simulator does to a disk ---- */

/* `machines` disks below self->directory, all durable. */
void sim_disks_make(struct sim *self, uint32_t machines);
void sim_disks_free(void);
/* All that is there is on the platters. */
void sim_disks_flush(void);
/* Its process dies at the nth durable operation from now (0: the next); -1 disarms. */
void sim_disk_die_at(uint32_t machine, long n);
/* The nth write, or fsync, from now fails once; -1 disarms. */
void sim_disk_fail_write_at(uint32_t machine, long n);
void sim_disk_fail_sync_at(uint32_t machine, long n);
/* Nothing can be added to it until then. */
void sim_disk_fill(uint32_t machine, int64_t until);
/* The process dies now: from here on it changes nothing. */
void sim_disk_kill(uint32_t machine);
bool sim_disk_is_dead(uint32_t machine);
/* The dead process is gone; with power its machine too, and what was not durable with it. */
void sim_disk_bury(uint32_t machine, bool power);
/* No process has a file of it open: `copy`, which lies in `directory`, takes its place, durable. */
void sim_disk_replace(uint32_t machine, const char *directory, const char *copy);
/* Durable operations so far. */
uint64_t sim_disk_operations(uint32_t machine);

/* ---- for disk_calls.c and disk_vfs.c ---- */

struct sim_disk;

struct sim_change { /* bytes of a file that no fsync has made durable */
    struct sim_change *next;
    uint64_t offset, size_before;
    size_t length;
    bool cut;   /* the file was cut to `offset` bytes; `was` is what stood behind */
    bool stuck; /* an fsync failed on it: none will ever make it durable */
    uint8_t *was, *is;
};

struct sim_node { /* a file that is open for writing, or not durable, or SQLite's */
    struct sim_node *next;
    struct sim_disk *disk; /* NULL: a temporary file of SQLite's */
    char *path;
    uint32_t references;
    struct sim_change *changes; /* oldest first */
    bool in_memory;
    uint8_t *bytes; /* in memory: (size) of (capacity) */
    size_t size, capacity;
    void **shared; /* WAL-index: regions */
    int shared_count;
    uint32_t sharers; /* connections that have mapped them */
};

/* NULL: not below the world's directory, or the simulator itself is at work. */
struct sim_disk *sim_disk_of(const char *path);
/* May an operation that changes something go on? false: the process is dead, errno is EIO. */
bool sim_disk_may(struct sim_disk *disk);
/* The same for bytes that need room when `grows`; errno ENOSPC. */
bool sim_disk_may_write(struct sim_disk *disk, bool grows);
bool sim_disk_is_full(const struct sim_disk *disk);
/* fsync of a node, or of a directory. false: it failed, errno EIO. */
bool sim_disk_sync(struct sim_disk *disk, struct sim_node *node, const char *directory);

/* Of the page cache's file of that name; made when it is not known. One more reference. */
struct sim_node *sim_node_open(struct sim_disk *disk, const char *path, bool in_memory);
void sim_node_close(struct sim_node *node);
/* NULL: none in memory */
struct sim_node *sim_node_find(struct sim_disk *disk, const char *path, bool in_memory);
void sim_node_delete(struct sim_node *node);
/* It is about to be written, or cut. was: (length) bytes as they stand, zeros beyond the end. */
void sim_node_note(struct sim_node *node, uint64_t size, uint64_t offset, const uint8_t *was,
                   const uint8_t *is, size_t length, bool cut);
/* In memory. */
void sim_node_put(struct sim_node *node, uint64_t offset, const uint8_t *bytes, size_t length);

enum sim_naming {
    SIM_NAME_CREATED,
    SIM_NAME_RENAMED,
    SIM_NAME_REMOVED,
    SIM_NAME_EXCHANGED,
    SIM_NAME_DIRECTORY_MADE,
    SIM_NAME_DIRECTORY_REMOVED
};
/* A name has changed. other: the old name; grave: where what stood under path now lies, or NULL. */
void sim_disk_named(struct sim_disk *disk, enum sim_naming kind, const char *path,
                    const char *other, const char *grave);
/* A place for a file that has lost its name; FL_PATH_BYTES. */
void sim_disk_grave(char *out);
/* What is known below `from` is now known below `to`. */
void sim_disk_move(struct sim_disk *disk, const char *from, const char *to);

/* ---- disk_vfs.c ---- */
/* SQLite's files are kept here from now on. */
bool sim_vfs_register(void);
void sim_vfs_forget(struct sim_node *node);

#endif

/*
 * chunks.h - bulk objects: resumable, hashed, credit-windowed transfer, without any socket.
 *
 * An object is size bytes in chunks of 256 KiB (the last one shorter), each BLAKE2b-256 hashed.
 * The hashes form pages of at most 1,000; a page's hash is the BLAKE2b-256 of its chunk hashes, and
 *   root = BLAKE2b-256("fedlora-object-v1" || size (u64le) || page hash 0 || page hash 1 || ...).
 * The receiver drives: it asks for all pages, checks them against the root, re-verifies what its
 * .part file already holds, then asks for chunks, never for more than its credit: what the last 2 s
 * carried, at least 1, at most 16 chunks. A restart loses nothing that was written.
 * Receiver (fl_fetch): a pure step over a static table. Sender (fl_shelf, fl_serve): answers.
 * Threads: none of its own; each object belongs to one thread, but a fl_object may be made (hashed)
 * on another thread and handed over.
 */
#ifndef FL_NET_CHUNKS_H
#define FL_NET_CHUNKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/limits.h"
#include "base/status.h"

#define FL_CHUNK_PAGE_HASHES 1000 /* at most, in one page */
#define FL_CHUNK_WINDOW_MAX  16   /* chunks in flight, at most */
#define FL_OBJECT_BYTES_MAX  FL_ADAPTER_BYTES_MAX

enum fl_chunk_kind { FL_CHUNK_NEED, FL_CHUNK_PAGE, FL_CHUNK_DATA, FL_CHUNK_MISSING };

/* The four messages; fields that a kind does not have are 0. */
struct fl_chunk_message {
    enum fl_chunk_kind kind;
    uint8_t root[FL_HASH_BYTES];
    bool pages;          /* NEED: hash pages, not chunks */
    uint32_t index;      /* NEED: the first; PAGE, DATA: which */
    uint32_t count;      /* NEED: how many; PAGE: the object's number of chunks */
    uint64_t size;       /* PAGE: the object's bytes */
    const uint8_t *data; /* PAGE: hashes, 32 bytes each; DATA: the chunk. Borrowed. */
    size_t length;       /* bytes of data */
};

/* ------------------------------------------------------------------ the sender's side */

struct fl_object; /* opaque: root, hashes and where the bytes are */

/* Hash a file, and keep it open. FL_ERANGE: above FL_OBJECT_BYTES_MAX. The caller owns *out. */
FL_CHECKED enum fl_status fl_object_open_file(const char *path, struct fl_object **out,
                                              struct fl_error *error);
/* The same for bytes in memory, which are copied. */
FL_CHECKED enum fl_status fl_object_open_memory(const void *bytes, size_t length,
                                                struct fl_object **out, struct fl_error *error);
const uint8_t *fl_object_root(const struct fl_object *self); /* borrowed, FL_HASH_BYTES */
uint64_t fl_object_size(const struct fl_object *self);
void fl_object_close(struct fl_object **self);
/* Only the root of bytes in memory. */
FL_CHECKED enum fl_status fl_object_hash(const void *bytes, size_t length,
                                         uint8_t root[FL_HASH_BYTES]);

/* The objects that one end has to give, by root. */
struct fl_shelf; /* opaque */
FL_CHECKED enum fl_status fl_shelf_create(struct fl_shelf **out);
void fl_shelf_destroy(struct fl_shelf **self);
/* Take the object over on FL_OK (*object becomes NULL; a second one of the same root is closed). */
FL_CHECKED enum fl_status fl_shelf_put(struct fl_shelf *self, struct fl_object **object);
/* NULL: not there. Borrowed until it is removed. */
struct fl_object *fl_shelf_find(const struct fl_shelf *self, const uint8_t root[FL_HASH_BYTES]);
void fl_shelf_remove(struct fl_shelf *self, const uint8_t root[FL_HASH_BYTES]);

/* What one peer has asked for and not yet been given: bounded whatever the peer asks. */
struct fl_serve; /* opaque */
FL_CHECKED enum fl_status fl_serve_create(const struct fl_shelf *shelf, struct fl_serve **out);
void fl_serve_destroy(struct fl_serve **self);
/* Note a NEED. FL_EFORMAT: nonsense (a peer that breaks the protocol). Repeats are harmless. */
FL_CHECKED enum fl_status fl_serve_need(struct fl_serve *self, const struct fl_chunk_message *need);
/*
 * The next PAGE, DATA or MISSING to send; data is borrowed until the next call. FL_ENOTFOUND:
 * nothing is asked for. FL_EIO: the bytes can't be read; the request is forgotten. Look at the
 * message again with fl_serve_next() until fl_serve_sent() says that it went out.
 */
FL_CHECKED enum fl_status fl_serve_next(struct fl_serve *self, struct fl_chunk_message *out);
void fl_serve_sent(struct fl_serve *self);
/* Forget all requests (the session ended). */
void fl_serve_clear(struct fl_serve *self);

/* ------------------------------------------------------------------ the receiver's side */

enum fl_fetch_state {
    FL_FETCH_PAGES,  /* collecting the hash pages */
    FL_FETCH_VERIFY, /* checking what the .part file holds */
    FL_FETCH_CHUNKS,
    FL_FETCH_DONE,   /* every chunk is there and good */
    FL_FETCH_FAILED, /* see fl_fetch_error() */
    FL_FETCH_STATE_COUNT
};

enum fl_fetch_event {
    FL_FETCH_ONLINE,  /* a session began (or began anew): what was asked for before is void */
    FL_FETCH_OFFLINE, /* it ended; the progress clock stands still */
    FL_FETCH_MESSAGE, /* a PAGE, DATA or MISSING with our root */
    FL_FETCH_TICK,    /* now >= fl_fetch_due() */
    FL_FETCH_EVENT_COUNT
};

struct fl_fetch; /* opaque */

struct fl_fetch_config {
    uint8_t root[FL_HASH_BYTES];
    uint64_t size;         /* bytes */
    uint64_t size_max;     /* what the caller is ready for; above it nothing is allocated */
    const char *part_path; /* the .part file, made or resumed (0600); NULL: into memory */
    int64_t progress_ms;   /* without a new chunk for so long while online: FL_ETIMEOUT */
};

/* What a step wants done: these messages sent, in order. */
struct fl_fetch_effects {
    size_t count;
    struct fl_chunk_message messages[FL_CHUNK_WINDOW_MAX];
};

/*
 * Begin, offline. FL_ERANGE: size above size_max or FL_OBJECT_BYTES_MAX. FL_EIO, FL_ENOMEM.
 * The caller owns *out. An empty object is done at the first step.
 */
FL_CHECKED enum fl_status fl_fetch_open(const struct fl_fetch_config *config, struct fl_fetch **out,
                                        struct fl_error *error);
/*
 * One event (message only with FL_FETCH_MESSAGE, else NULL). Messages of other roots, repeats and
 * strays change nothing. Returns the state after it.
 */
enum fl_fetch_state fl_fetch_step(struct fl_fetch *self, enum fl_fetch_event event,
                                  const struct fl_chunk_message *message, int64_t now_ms,
                                  struct fl_fetch_effects *effects);
enum fl_fetch_state fl_fetch_state(const struct fl_fetch *self);
/* When the next TICK is due (monotonic ms); INT64_MAX: none. In the past while verifying. */
int64_t fl_fetch_due(const struct fl_fetch *self);
/* Why it failed: FL_ETIMEOUT, FL_ENOTFOUND (MISSING), FL_EFORMAT (bad hashes), FL_EIO, FL_ENOSPC.
 */
const struct fl_error *fl_fetch_error(const struct fl_fetch *self);
const uint8_t *fl_fetch_root(const struct fl_fetch *self);
/* bytes that are there and verified */
uint64_t fl_fetch_progress(const struct fl_fetch *self);
/* The bytes of a finished fetch into memory; borrowed; NULL for a file. */
const uint8_t *fl_fetch_data(const struct fl_fetch *self, size_t *length);
/* Keeps the .part file (a later fetch resumes it). */
void fl_fetch_close(struct fl_fetch **self);

/* fsync the finished .part file and rename it durably to path: for the compute thread. One whose
 * fsync fails is removed. */
FL_CHECKED enum fl_status fl_part_commit(const char *part_path, const char *path,
                                         struct fl_error *error);

/* "PAGES", ... for logs and the generated diagram */
const char *fl_fetch_state_name(enum fl_fetch_state state);

#endif

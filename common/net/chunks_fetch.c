/*
 * chunks_fetch.c - the receiver: a state machine over a static table.
 *
 *   PAGES --all pages, root right--> VERIFY --.part checked--> CHUNKS --all chunks--> DONE
 *   any of the first three --timeout, MISSING, bad hashes, disk--> FAILED
 *
 * Invariants: a chunk is HAVE only if its bytes, as written, had the hash that the root vouches
 * for; in_flight = the number of ASKED chunks <= the window; nothing is allocated beyond what size
 * says, and size is held against the caller's maximum first.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "net/chunks_internal.h"

#define CREDIT_MS      2000
#define RETRY_LEAST_MS 1000
#define RETRY_MOST_MS  20000
#define STRIKES_MAX    3  /* wrong hashes before the sender is given up */
#define VERIFY_CHUNKS  16 /* re-verified in one tick: about 5 ms */

enum chunk_mark { MARK_MISSING, MARK_ASKED, MARK_HAVE };

struct fl_fetch {
    uint8_t root[FL_HASH_BYTES];
    uint64_t size;
    uint32_t chunks, pages;
    uint8_t *hashes;     /* (chunks, FL_HASH_BYTES) */
    uint8_t *marks;      /* (chunks): enum chunk_mark */
    uint8_t *page_have;  /* (pages) */
    uint8_t *memory;     /* (size), or NULL */
    uint8_t *scratch;    /* a chunk, for verifying a file */
    int fd;              /* the .part file, or -1 */
    uint64_t part_bytes; /* what it held when it was opened */

    enum fl_fetch_state state;
    struct fl_error error;
    bool online;
    uint32_t pages_left, have, in_flight, cursor, verify_next, strikes;
    uint64_t have_bytes;
    int64_t progress_limit_ms, retry_ms;
    int64_t progress_ms; /* when the last new chunk came, or the clock was started */
    int64_t stalled_ms;  /* time without a new chunk before progress_ms */
    int64_t asked_ms;
    int64_t arrivals[FL_CHUNK_WINDOW_MAX]; /* times of the last chunks, a ring */
    uint32_t arrival_count;
};

static void enter(struct fl_fetch *self, enum fl_fetch_state state)
{
    self->state = state;
}

static void fail(struct fl_fetch *self, enum fl_status status, const char *why)
{
    (void)fl_fail(&self->error, status, "the transfer failed: %s", why);
    enter(self, FL_FETCH_FAILED);
}

/* ------------------------------------------------------------------ asking */

static void ask(struct fl_fetch *self, bool pages, uint32_t index, uint32_t count, int64_t now,
                struct fl_fetch_effects *effects)
{
    assert(effects->count < FL_CHUNK_WINDOW_MAX);
    struct fl_chunk_message *m = &effects->messages[effects->count++];
    *m = (struct fl_chunk_message){
        .kind = FL_CHUNK_NEED, .pages = pages, .index = index, .count = count};
    memcpy(m->root, self->root, FL_HASH_BYTES);
    self->asked_ms = now;
}

/* Pages are few: all that are missing are asked for, from the first gap to the last. */
static void ask_pages(struct fl_fetch *self, int64_t now, struct fl_fetch_effects *effects)
{
    uint32_t first = 0, end = self->pages;
    if (self->pages_left == 0)
        return;
    while (self->page_have[first])
        first++;
    while (self->page_have[end - 1])
        end--;
    ask(self, true, first, end - first, now, effects);
}

/* The credit: chunks that came in the last 2 s, at least 1, at most 16. */
static uint32_t window(const struct fl_fetch *self, int64_t now)
{
    uint32_t recent = 0;
    const uint32_t known = self->arrival_count < FL_CHUNK_WINDOW_MAX ? self->arrival_count
                                                                     : FL_CHUNK_WINDOW_MAX;
    for (uint32_t i = 0; i < known; i++)
        recent += self->arrivals[i] > now - CREDIT_MS;
    return recent > 0 ? recent : 1;
}

static void ask_chunks(struct fl_fetch *self, int64_t now, struct fl_fetch_effects *effects)
{
    if (!self->online)
        return;
    const uint32_t credit = window(self, now);
    while (self->in_flight < credit && effects->count < FL_CHUNK_WINDOW_MAX) {
        while (self->cursor < self->chunks && self->marks[self->cursor] != MARK_MISSING)
            self->cursor++;
        const uint32_t first = self->cursor;
        while (self->cursor < self->chunks && self->marks[self->cursor] == MARK_MISSING &&
               self->in_flight < credit) {
            self->marks[self->cursor++] = MARK_ASKED;
            self->in_flight++;
        }
        if (self->cursor == first)
            return; /* the rest is asked for or there */
        ask(self, false, first, self->cursor - first, now, effects);
    }
}

static void forget_asked(struct fl_fetch *self)
{
    for (uint32_t i = 0; i < self->chunks; i++)
        if (self->marks[i] == MARK_ASKED)
            self->marks[i] = MARK_MISSING;
    self->in_flight = 0;
    self->cursor = 0;
    self->arrival_count = 0; /* the credit starts anew */
}

/* ------------------------------------------------------------------ clocks */

static void progress(struct fl_fetch *self, int64_t now)
{
    self->progress_ms = now;
    self->stalled_ms = 0;
}

static bool is_late(const struct fl_fetch *self, int64_t now)
{
    return self->online && now - self->progress_ms + self->stalled_ms >= self->progress_limit_ms;
}

typedef void handler(struct fl_fetch *self, const struct fl_chunk_message *message, int64_t now,
                     struct fl_fetch_effects *effects);

static void go_offline(struct fl_fetch *self, const struct fl_chunk_message *message, int64_t now,
                       struct fl_fetch_effects *effects)
{
    (void)message, (void)effects;
    if (self->online && self->state != FL_FETCH_VERIFY)
        self->stalled_ms += now - self->progress_ms;
    self->online = false;
    forget_asked(self);
}

static void go_online(struct fl_fetch *self, const struct fl_chunk_message *message, int64_t now,
                      struct fl_fetch_effects *effects)
{
    if (self->online)
        go_offline(self, message, now, effects);
    self->online = true;
    self->progress_ms = now;
    if (self->state == FL_FETCH_PAGES)
        ask_pages(self, now, effects);
    else if (self->state == FL_FETCH_CHUNKS)
        ask_chunks(self, now, effects);
}

static void ignore(struct fl_fetch *self, const struct fl_chunk_message *message, int64_t now,
                   struct fl_fetch_effects *effects)
{
    (void)self, (void)message, (void)now, (void)effects;
}

static void strike(struct fl_fetch *self, const char *why)
{
    if (++self->strikes >= STRIKES_MAX)
        fail(self, FL_EFORMAT, why);
}

/* ------------------------------------------------------------------ pages */

static void start_chunks(struct fl_fetch *self, int64_t now, struct fl_fetch_effects *effects)
{
    progress(self, now);
    enter(self, self->have == self->chunks ? FL_FETCH_DONE : FL_FETCH_CHUNKS);
    if (self->state == FL_FETCH_CHUNKS)
        ask_chunks(self, now, effects);
}

/* All pages are there: do they make the root? */
static void check_root(struct fl_fetch *self, int64_t now, struct fl_fetch_effects *effects)
{
    uint8_t root[FL_HASH_BYTES];
    fl_chunk_root(self->size, self->hashes, root);
    if (memcmp(root, self->root, FL_HASH_BYTES) == 0) {
        if (self->part_bytes > 0)
            enter(self, FL_FETCH_VERIFY);
        else
            start_chunks(self, now, effects);
        return;
    }
    if (self->pages == 0) {
        fail(self, FL_EFORMAT, "an empty object with another root");
        return;
    }
    memset(self->page_have, 0, self->pages);
    self->pages_left = self->pages;
    strike(self, "the hashes do not make the root that was announced");
    if (self->state == FL_FETCH_PAGES)
        ask_pages(self, now, effects);
}

static void on_page(struct fl_fetch *self, const struct fl_chunk_message *m, int64_t now,
                    struct fl_fetch_effects *effects)
{
    if (!self->online)
        return;
    if (m->kind == FL_CHUNK_MISSING) {
        fail(self, FL_ENOTFOUND, "the other side does not have the object");
        return;
    }
    if (m->kind != FL_CHUNK_PAGE || m->index >= self->pages || self->page_have[m->index])
        return;
    const size_t length = (size_t)fl_page_length(self->chunks, m->index) * FL_HASH_BYTES;
    if (m->size != self->size || m->count != self->chunks || m->length != length) {
        strike(self, "a page of hashes has another size than was announced");
        return;
    }
    memcpy(self->hashes + (size_t)m->index * FL_CHUNK_PAGE_HASHES * FL_HASH_BYTES, m->data, length);
    self->page_have[m->index] = 1;
    self->pages_left--;
    if (self->pages_left == 0)
        check_root(self, now, effects);
}

static void tick_pages(struct fl_fetch *self, const struct fl_chunk_message *message, int64_t now,
                       struct fl_fetch_effects *effects)
{
    (void)message;
    if (is_late(self, now))
        fail(self, FL_ETIMEOUT, "the other side sends no hashes");
    else if (self->online && now - self->asked_ms >= self->retry_ms)
        ask_pages(self, now, effects);
}

/* ------------------------------------------------------------------ what the .part file holds */

static bool read_part(struct fl_fetch *self, uint32_t index, size_t length)
{
    size_t got = 0;
    while (got < length) {
        const ssize_t n = pread(self->fd, self->scratch + got, length - got,
                                (off_t)((uint64_t)index * FL_CHUNK_BYTES + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return true;
}

static bool is_right(const struct fl_fetch *self, uint32_t index, const uint8_t *data,
                     size_t length)
{
    uint8_t hash[FL_HASH_BYTES];
    fl_blake2b(data, length, hash);
    return memcmp(hash, self->hashes + (size_t)index * FL_HASH_BYTES, FL_HASH_BYTES) == 0;
}

static void have_chunk(struct fl_fetch *self, uint32_t index)
{
    self->marks[index] = MARK_HAVE;
    self->have++;
    self->have_bytes += fl_chunk_length(self->size, index);
}

static void verify_some(struct fl_fetch *self, const struct fl_chunk_message *message, int64_t now,
                        struct fl_fetch_effects *effects)
{
    (void)message;
    for (int n = 0; n < VERIFY_CHUNKS && self->verify_next < self->chunks; n++) {
        const uint32_t index = self->verify_next++;
        const size_t length = fl_chunk_length(self->size, index);
        if ((uint64_t)index * FL_CHUNK_BYTES >= self->part_bytes) {
            self->verify_next = self->chunks; /* it holds no more */
            break;
        }
        if (read_part(self, index, length) && is_right(self, index, self->scratch, length))
            have_chunk(self, index);
    }
    if (self->verify_next == self->chunks)
        start_chunks(self, now, effects);
}

/* ------------------------------------------------------------------ chunks */

static enum fl_status store(struct fl_fetch *self, uint32_t index, const uint8_t *data,
                            size_t length)
{
    const uint64_t offset = (uint64_t)index * FL_CHUNK_BYTES;
    if (self->fd < 0) {
        memcpy(self->memory + offset, data, length);
        return FL_OK;
    }
    if (lseek(self->fd, (off_t)offset, SEEK_SET) < 0)
        return FL_EIO;
    return fl_fs_write_all(self->fd, data, length);
}

static void take_back(struct fl_fetch *self, uint32_t index)
{
    if (self->marks[index] == MARK_ASKED)
        self->in_flight--;
    self->marks[index] = MARK_MISSING;
    if (index < self->cursor)
        self->cursor = index;
}

static void on_chunk(struct fl_fetch *self, const struct fl_chunk_message *m, int64_t now,
                     struct fl_fetch_effects *effects)
{
    if (!self->online)
        return;
    if (m->kind == FL_CHUNK_MISSING) {
        fail(self, FL_ENOTFOUND, "the other side has the object no longer");
        return;
    }
    if (m->kind != FL_CHUNK_DATA || m->index >= self->chunks || self->marks[m->index] == MARK_HAVE)
        return;
    if (m->length != fl_chunk_length(self->size, m->index) ||
        !is_right(self, m->index, m->data, m->length)) {
        take_back(self, m->index);
        strike(self, "chunks do not have the hashes that were announced");
        if (self->state == FL_FETCH_CHUNKS)
            ask_chunks(self, now, effects);
        return;
    }
    const enum fl_status status = store(self, m->index, m->data, m->length);
    if (status != FL_OK) {
        fail(self, status, "the .part file can't be written");
        return;
    }
    take_back(self, m->index);
    have_chunk(self, m->index);
    self->arrivals[self->arrival_count++ % FL_CHUNK_WINDOW_MAX] = now;
    progress(self, now);
    if (self->have == self->chunks)
        enter(self, FL_FETCH_DONE);
    else
        ask_chunks(self, now, effects);
}

static void tick_chunks(struct fl_fetch *self, const struct fl_chunk_message *message, int64_t now,
                        struct fl_fetch_effects *effects)
{
    (void)message;
    if (is_late(self, now)) {
        fail(self, FL_ETIMEOUT, "no new chunk came");
        return;
    }
    const int64_t since = self->asked_ms > self->progress_ms ? self->asked_ms : self->progress_ms;
    if (!self->online || now - since < self->retry_ms)
        return;
    forget_asked(self);
    ask_chunks(self, now, effects);
}

/* ------------------------------------------------------------------ the table */

static handler *const table[FL_FETCH_STATE_COUNT][FL_FETCH_EVENT_COUNT] = {
    /*                    ONLINE     OFFLINE     MESSAGE   TICK */
    [FL_FETCH_PAGES] = {go_online, go_offline, on_page, tick_pages},
    [FL_FETCH_VERIFY] = {go_online, go_offline, ignore, verify_some},
    [FL_FETCH_CHUNKS] = {go_online, go_offline, on_chunk, tick_chunks},
    [FL_FETCH_DONE] = {ignore, ignore, ignore, ignore},
    [FL_FETCH_FAILED] = {ignore, ignore, ignore, ignore},
};

enum fl_fetch_state fl_fetch_step(struct fl_fetch *self, enum fl_fetch_event event,
                                  const struct fl_chunk_message *message, int64_t now_ms,
                                  struct fl_fetch_effects *effects)
{
    assert(event < FL_FETCH_EVENT_COUNT && (event == FL_FETCH_MESSAGE) == (message != NULL));
    effects->count = 0;
    if (self->state == FL_FETCH_PAGES && self->pages == 0) {
        check_root(self, now_ms, effects);
        return self->state;
    }
    if (message && memcmp(message->root, self->root, FL_HASH_BYTES) != 0)
        return self->state;
    table[self->state][event](self, message, now_ms, effects);
    return self->state;
}

/* ------------------------------------------------------------------ opening and looking */

static enum fl_status open_part(struct fl_fetch *self, const char *path, struct fl_error *error)
{
    struct stat st;
    self->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (self->fd < 0 || fstat(self->fd, &st) != 0)
        return fl_fail_errno(error, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return fl_fail(error, FL_EIO, "%s: not a regular file", path);
    self->part_bytes = (uint64_t)st.st_size;
    if (self->part_bytes > self->size && ftruncate(self->fd, (off_t)self->size) != 0)
        return fl_fail_errno(error, errno, "%s", path);
    return FL_OK;
}

static enum fl_status allocate(struct fl_fetch *self, const struct fl_fetch_config *config,
                               struct fl_error *error)
{
    self->hashes = fl_calloc((size_t)self->chunks + 1, FL_HASH_BYTES);
    self->marks = fl_calloc((size_t)self->chunks + 1, 1);
    self->page_have = fl_calloc((size_t)self->pages + 1, 1);
    if (config->part_path)
        self->scratch = fl_malloc(FL_CHUNK_BYTES);
    else
        self->memory = fl_malloc((size_t)self->size);
    if (!self->hashes || !self->marks || !self->page_have || (!self->scratch && !self->memory))
        return fl_fail_memory(error);
    return config->part_path ? open_part(self, config->part_path, error) : FL_OK;
}

enum fl_status fl_fetch_open(const struct fl_fetch_config *config, struct fl_fetch **out,
                             struct fl_error *error)
{
    assert(config && out && config->progress_ms > 0);
    *out = NULL;
    if (config->size > config->size_max || config->size > FL_OBJECT_BYTES_MAX)
        return fl_fail(error, FL_ERANGE, "an object of %llu bytes was announced; at most %llu fit",
                       (unsigned long long)config->size, (unsigned long long)config->size_max);
    struct fl_fetch *self = fl_calloc(1, sizeof(*self));
    if (!self)
        return fl_fail_memory(error);
    memcpy(self->root, config->root, FL_HASH_BYTES);
    self->size = config->size;
    self->chunks = fl_chunk_count(config->size);
    self->pages = self->pages_left = fl_page_count(self->chunks);
    self->fd = -1;
    self->progress_limit_ms = config->progress_ms;
    self->retry_ms = config->progress_ms / 3;
    if (self->retry_ms < RETRY_LEAST_MS)
        self->retry_ms = RETRY_LEAST_MS;
    if (self->retry_ms > RETRY_MOST_MS)
        self->retry_ms = RETRY_MOST_MS;
    const enum fl_status status = allocate(self, config, error);
    if (status != FL_OK)
        fl_fetch_close(&self);
    *out = self;
    return status;
}

void fl_fetch_close(struct fl_fetch **self)
{
    if (!*self)
        return;
    if ((*self)->fd >= 0)
        (void)close((*self)->fd);
    fl_free((*self)->scratch);
    fl_free((*self)->memory);
    fl_free((*self)->page_have);
    fl_free((*self)->marks);
    fl_free((*self)->hashes);
    fl_free(*self);
    *self = NULL;
}

enum fl_fetch_state fl_fetch_state(const struct fl_fetch *self)
{
    return self->state;
}

int64_t fl_fetch_due(const struct fl_fetch *self)
{
    if (self->state == FL_FETCH_VERIFY)
        return INT64_MIN;
    if (self->state == FL_FETCH_DONE || self->state == FL_FETCH_FAILED || !self->online)
        return INT64_MAX;
    const int64_t late = self->progress_ms - self->stalled_ms + self->progress_limit_ms;
    int64_t retry = self->asked_ms;
    if (self->state == FL_FETCH_CHUNKS && self->progress_ms > retry)
        retry = self->progress_ms;
    retry += self->retry_ms;
    return retry < late ? retry : late;
}

const struct fl_error *fl_fetch_error(const struct fl_fetch *self)
{
    return &self->error;
}

const uint8_t *fl_fetch_root(const struct fl_fetch *self)
{
    return self->root;
}

uint64_t fl_fetch_progress(const struct fl_fetch *self)
{
    return self->have_bytes;
}

const uint8_t *fl_fetch_data(const struct fl_fetch *self, size_t *length)
{
    *length = self->state == FL_FETCH_DONE && self->memory ? (size_t)self->size : 0;
    return self->state == FL_FETCH_DONE ? self->memory : NULL;
}

const char *fl_fetch_state_name(enum fl_fetch_state state)
{
    static const char *const names[FL_FETCH_STATE_COUNT] = {"PAGES", "VERIFY", "CHUNKS", "DONE",
                                                            "FAILED"};
    return state < FL_FETCH_STATE_COUNT ? names[state] : "?";
}

enum fl_status fl_part_commit(const char *part_path, const char *path, struct fl_error *error)
{
    const int fd = open(part_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return fl_fail_errno(error, errno, "%s", part_path);
    const enum fl_status status = fl_fs_sync(fd);
    (void)close(fd);
    if (status != FL_OK) { /* a second fsync would say yes to bytes that the disk never saw */
        (void)unlink(part_path);
        return fl_fail(error, status, "%s: fsync failed", part_path);
    }
    return fl_fs_rename(part_path, path, error);
}

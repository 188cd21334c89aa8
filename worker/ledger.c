/*
 * ledger.c - see ledger.h. The file is the only state: each call reads it anew (tens of
 * milliseconds when it is full, once a round), so that what is believed is what the disk says.
 * Invariant: `length` bytes of the file are acknowledged lines, each with its mark; the last
 * answer's check is `check`.
 */
#include "worker/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fs.h"

#define FINGERPRINT_LABEL "fedlora-ledger-v1"
#define MEMBER_LABEL      "fedlora-ledger-member-v1"
#define VERSION_WORD      "1 "
#define MEMBER_BYTES      16
#define MEMBER_HEX        (2 * MEMBER_BYTES)
#define HASH_HEX          (FL_HASH_HEX_BYTES - 1)
#define SEQ_DIGITS_MAX    20
/* the mark: this, the first digits of the answer's check, newline */
#define MARK_SIGN  '='
#define MARK_HEX   16
#define MARK_BYTES (1 + MARK_HEX + 1)
/* version, seq, fingerprint, members with a comma or space behind each, check, newline */
#define LINE_BYTES_MAX                                                                             \
    (2 + SEQ_DIGITS_MAX + 1 + HASH_HEX + 1 + FL_COHORT_MAX * (MEMBER_HEX + 1) + HASH_HEX + 1)

struct set {
    uint32_t count;
    uint8_t members[FL_COHORT_MAX][MEMBER_BYTES]; /* ascending, all different */
};

struct fl_ledger {
    int fd;
    bool broken; /* what the disk holds is not known any more */
    uint64_t length, count;
    uint8_t check[FL_HASH_BYTES]; /* of the last answer; zeros before the first */
    char path[FL_PATH_BYTES];
};

/* A line taken apart. */
struct record {
    uint64_t seq;
    uint8_t fingerprint[FL_HASH_BYTES];
    struct set set;
};

/* What a walk over the file looks for. */
struct query {
    const uint8_t *fingerprint; /* NULL: nothing */
    const struct set *set;
    bool identical;    /* found */
    uint64_t conflict; /* seq of the first answer over other sites; 0: none */
};

void fl_ledger_fingerprint(const struct fl_ledger_work *work, uint8_t out[FL_HASH_BYTES])
{
    struct fl_blake2b hash;
    uint8_t word[8];
    fl_blake2b_init(&hash, NULL, 0);
    fl_blake2b_update(&hash, FINGERPRINT_LABEL, strlen(FINGERPRINT_LABEL));
    fl_blake2b_update(&hash, work->manifest, FL_HASH_BYTES);
    fl_blake2b_update(&hash, work->start, FL_HASH_BYTES);
    fl_blake2b_update(&hash, work->settings, FL_HASH_BYTES);
    fl_blake2b_update(&hash, work->data, FL_HASH_BYTES);
    fl_store_u64(word, work->seed);
    fl_blake2b_update(&hash, word, 8);
    fl_store_u32(word, work->rank_count);
    fl_blake2b_update(&hash, word, 4);
    for (uint32_t i = 0; i < work->rank_count; i++) {
        fl_store_u32(word, work->ranks[i]);
        fl_blake2b_update(&hash, word, 4);
    }
    fl_blake2b_final(&hash, out);
}

/* ---- sets ---- */

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, MEMBER_BYTES);
}

static bool is_ascending(const struct set *set)
{
    for (uint32_t i = 1; i < set->count; i++) {
        if (by_bytes(set->members[i - 1], set->members[i]) >= 0)
            return false;
    }
    return true;
}

static enum fl_status make_set(const uint8_t (*survivors)[FL_KEY_BYTES], uint32_t count,
                               struct set *out, struct fl_error *error)
{
    if (count == 0 || count > FL_COHORT_MAX)
        return fl_fail(error, FL_EINVAL, "%u survivors: 1 to %d are possible", count,
                       FL_COHORT_MAX);
    out->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct fl_blake2b hash;
        uint8_t full[FL_HASH_BYTES];
        fl_blake2b_init(&hash, NULL, 0);
        fl_blake2b_update(&hash, MEMBER_LABEL, strlen(MEMBER_LABEL));
        fl_blake2b_update(&hash, survivors[i], FL_KEY_BYTES);
        fl_blake2b_final(&hash, full);
        memcpy(out->members[i], full, MEMBER_BYTES);
    }
    qsort(out->members, count, MEMBER_BYTES, by_bytes);
    return is_ascending(out) ? FL_OK : fl_fail(error, FL_EINVAL, "a survivor is listed twice");
}

static bool is_same(const struct set *a, const struct set *b)
{
    return a->count == b->count &&
           memcmp(a->members, b->members, (size_t)a->count * MEMBER_BYTES) == 0;
}

static void compare(struct query *query, const struct record *record)
{
    if (!query->fingerprint || memcmp(query->fingerprint, record->fingerprint, FL_HASH_BYTES) != 0)
        return;
    if (is_same(query->set, &record->set))
        query->identical = true;
    else if (query->conflict == 0)
        query->conflict = record->seq;
}

/* ---- lines ---- */

/* line: everything up to the check and the space before it */
static void next_check(const uint8_t before[FL_HASH_BYTES], const char *line, size_t length,
                       uint8_t out[FL_HASH_BYTES])
{
    struct fl_blake2b hash;
    fl_blake2b_init(&hash, NULL, 0);
    fl_blake2b_update(&hash, before, FL_HASH_BYTES);
    fl_blake2b_update(&hash, line, length);
    fl_blake2b_final(&hash, out);
}

/* text: "SEQ FINGERPRINT MEMBER,MEMBER", cut into pieces in place */
static bool parse_body(char *text, struct record *out)
{
    char *place = NULL;
    const char *seq = strtok_r(text, " ", &place);
    const char *fingerprint = strtok_r(NULL, " ", &place);
    char *members = strtok_r(NULL, " ", &place);
    if (!members || strtok_r(NULL, " ", &place) ||
        fl_parse_u64(seq, 1, UINT64_MAX, &out->seq) != FL_OK ||
        fl_unhex(fingerprint, out->fingerprint, FL_HASH_BYTES) != FL_OK)
        return false;
    out->set.count = 0;
    for (char *member = strtok_r(members, ",", &place); member;
         member = strtok_r(NULL, ",", &place)) {
        if (out->set.count == FL_COHORT_MAX ||
            fl_unhex(member, out->set.members[out->set.count], MEMBER_BYTES) != FL_OK)
            return false;
        out->set.count++;
    }
    return out->set.count > 0 && is_ascending(&out->set);
}

/* line without its newline; check is the one before, and becomes this line's */
static bool parse_line(const char *line, size_t length, uint8_t check[FL_HASH_BYTES],
                       struct record *out)
{
    char text[LINE_BYTES_MAX + 1];
    char expected[FL_HASH_HEX_BYTES];
    const size_t version = strlen(VERSION_WORD);
    if (length >= sizeof(text) || length < version + 1 + HASH_HEX)
        return false;
    memcpy(text, line, length);
    text[length] = '\0';
    const size_t body = length - HASH_HEX - 1;
    if (strlen(text) != length || memcmp(text, VERSION_WORD, version) != 0 || text[body] != ' ')
        return false;
    next_check(check, text, body, check);
    fl_hex(check, FL_HASH_BYTES, expected);
    const bool unchanged = memcmp(expected, text + body + 1, HASH_HEX) == 0;
    text[body] = '\0';
    return unchanged && parse_body(text + version, out);
}

static void append_line(const struct fl_ledger *self, const uint8_t fingerprint[FL_HASH_BYTES],
                        const struct set *set, struct fl_buf *out, uint8_t check[FL_HASH_BYTES])
{
    char hex[FL_HASH_HEX_BYTES];
    fl_hex(fingerprint, FL_HASH_BYTES, hex);
    fl_buf_printf(out, VERSION_WORD "%llu %s", (unsigned long long)self->count + 1, hex);
    for (uint32_t i = 0; i < set->count; i++) {
        fl_hex(set->members[i], MEMBER_BYTES, hex);
        fl_buf_printf(out, "%c%s", i == 0 ? ' ' : ',', hex);
    }
    next_check(self->check, fl_buf_text(out), out->length, check);
    fl_hex(check, FL_HASH_BYTES, hex);
    fl_buf_printf(out, " %s\n", hex);
}

static void make_mark(const uint8_t check[FL_HASH_BYTES], char out[MARK_BYTES + 1])
{
    char hex[FL_HASH_HEX_BYTES];
    fl_hex(check, FL_HASH_BYTES, hex);
    (void)snprintf(out, MARK_BYTES + 1, "%c%.*s\n", MARK_SIGN, MARK_HEX, hex);
}

/* ---- the file ---- */

struct walk {
    uint64_t length, count; /* of whole lines; of answers */
    uint8_t check[FL_HASH_BYTES];
    bool marked; /* the last answer; an older program marked none */
};

/* Does the line, of which the newline is the last byte, end like a mark? */
static bool ends_in_mark(const char *line, size_t length)
{
    static const char digits[] = "0123456789abcdef";
    if (length < MARK_BYTES || line[length - MARK_BYTES] != MARK_SIGN)
        return false;
    for (size_t i = length - MARK_BYTES + 1; i + 1 < length; i++) {
        if (!memchr(digits, line[i], MARK_HEX))
            return false;
    }
    return true;
}

static bool begins_like_answer(const char *line, size_t length)
{
    return length > strlen(VERSION_WORD) && memcmp(line, VERSION_WORD, strlen(VERSION_WORD)) == 0;
}

/*
 * The rest of the file begins with what is no line. A crash may have left it there, with newlines
 * in it too, of an answer that nobody was given: then there is no mark in it, and no answer behind.
 */
static bool is_torn(const char *rest, size_t length)
{
    const char *line = rest, *last = rest + length;
    for (const char *end = memchr(line, '\n', length); end;
         line = end + 1, end = memchr(line, '\n', (size_t)(last - line))) {
        const size_t bytes = (size_t)(end - line) + 1;
        if (ends_in_mark(line, bytes) || (line > rest && begins_like_answer(line, bytes)))
            return false;
    }
    return true;
}

/* Take the line up to its newline, an answer or a mark; false: it is neither. */
static bool take_line(struct walk *walk, const char *line, size_t length, struct query *query)
{
    struct record record;
    uint8_t check[FL_HASH_BYTES];
    char mark[MARK_BYTES + 1];
    make_mark(walk->check, mark);
    if (walk->count > 0 && !walk->marked && length + 1 == MARK_BYTES &&
        memcmp(line, mark, MARK_BYTES) == 0) {
        walk->marked = true;
        return true;
    }
    memcpy(check, walk->check, sizeof(check));
    if (!parse_line(line, length, check, &record) || record.seq != walk->count + 1)
        return false;
    memcpy(walk->check, check, sizeof(check));
    compare(query, &record);
    walk->count++;
    walk->marked = false;
    return true;
}

/* Read every whole line of the file, hold it against the chain, and show it to the query. */
static enum fl_status walk_file(const struct fl_ledger *self, struct query *query,
                                struct walk *walk, struct fl_error *error)
{
    struct fl_mapping file;
    memset(walk, 0, sizeof(*walk));
    enum fl_status status = fl_fs_map(self->path, &file, error);
    if (status != FL_OK)
        return status;
    if (file.length > FL_LEDGER_BYTES_MAX)
        status = fl_fail(error, FL_ERANGE, "%s: longer than %u bytes", self->path,
                         FL_LEDGER_BYTES_MAX);
    while (status == FL_OK && walk->length < file.length) {
        const char *line = (const char *)file.data + walk->length;
        const size_t rest = file.length - (size_t)walk->length;
        const char *end = memchr(line, '\n', rest);
        if (!end)
            break; /* torn: it was never acknowledged */
        if (take_line(walk, line, (size_t)(end - line), query)) {
            walk->length += (uint64_t)(end - line) + 1;
            continue;
        }
        if (is_torn(line, rest))
            break;
        status = fl_fail(error, FL_EFORMAT,
                         "%s: damaged behind answer %llu; what this site has answered is not known "
                         "any more",
                         self->path, (unsigned long long)walk->count);
    }
    fl_fs_unmap(&file);
    return status;
}

/* The last answer is on the disk: whatever becomes of its line now is no crash's doing. */
static enum fl_status put_mark(const struct fl_ledger *self, const uint8_t check[FL_HASH_BYTES])
{
    char mark[MARK_BYTES + 1];
    make_mark(check, mark);
    enum fl_status status = fl_fs_write_all(self->fd, mark, MARK_BYTES);
    return status == FL_OK ? fl_fs_sync(self->fd) : status;
}

/* Cut off a torn last line, and be sure that what was read is on the disk and not only in memory.
 */
static enum fl_status settle(struct fl_ledger *self, const struct walk *walk,
                             struct fl_error *error)
{
    struct stat st;
    self->length = walk->length;
    self->count = walk->count;
    memcpy(self->check, walk->check, FL_HASH_BYTES);
    if (fstat(self->fd, &st) != 0)
        return fl_fail_errno(error, errno, "%s", self->path);
    if ((uint64_t)st.st_size != self->length && ftruncate(self->fd, (off_t)self->length) != 0)
        return fl_fail_errno(error, errno, "%s", self->path);
    if (fl_fs_sync(self->fd) != FL_OK)
        return fl_fail_errno(error, errno, "fsync of %s", self->path);
    if (self->count > 0 && !walk->marked) {
        if (put_mark(self, self->check) != FL_OK)
            return fl_fail_errno(error, errno, "%s", self->path);
        self->length += MARK_BYTES;
    }
    /* a file without a line may be one whose name a crash could still take away */
    if (self->count > 0)
        return FL_OK;
    char parent[FL_PATH_BYTES];
    const size_t stem = (size_t)(fl_path_base(self->path) - self->path);
    memcpy(parent, stem ? self->path : ".", stem ? stem : 1);
    parent[stem ? stem : 1] = '\0';
    return fl_fs_sync_directory(parent, error);
}

static enum fl_status open_file(struct fl_ledger *self, const char *path, struct fl_error *error)
{
    self->fd = -1;
    if (strlen(path) >= sizeof(self->path))
        return fl_fail(error, FL_ERANGE, "path too long");
    memcpy(self->path, path, strlen(path) + 1);
    self->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (self->fd < 0)
        return fl_fail_errno(error, errno, "%s", path);
    if (flock(self->fd, LOCK_EX | LOCK_NB) == 0)
        return FL_OK;
    return errno == EWOULDBLOCK ? fl_fail(error, FL_EBUSY, "%s: held by another process", path)
                                : fl_fail_errno(error, errno, "locking %s", path);
}

enum fl_status fl_ledger_open(const char *path, struct fl_ledger **out, struct fl_error *error)
{
    *out = NULL;
    struct walk walk;
    struct query nothing = {0};
    struct fl_ledger *self = fl_calloc(1, sizeof(*self));
    if (!self)
        return fl_fail_memory(error);
    enum fl_status status = open_file(self, path, error);
    if (status == FL_OK)
        status = walk_file(self, &nothing, &walk, error);
    if (status == FL_OK)
        status = settle(self, &walk, error);
    if (status == FL_OK)
        *out = self;
    else
        fl_ledger_close(&self);
    return status;
}

void fl_ledger_close(struct fl_ledger **self)
{
    if (!*self)
        return;
    if ((*self)->fd >= 0)
        (void)close((*self)->fd);
    fl_free(*self);
    *self = NULL;
}

uint64_t fl_ledger_count(const struct fl_ledger *self)
{
    return self->count;
}

/* One line, on the disk, and then its mark. After a failure both are cut off again, and nothing
   more is believed. */
static enum fl_status record_answer(struct fl_ledger *self,
                                    const uint8_t fingerprint[FL_HASH_BYTES], const struct set *set,
                                    struct fl_error *error)
{
    struct fl_buf line;
    uint8_t check[FL_HASH_BYTES];
    fl_buf_init(&line, LINE_BYTES_MAX);
    append_line(self, fingerprint, set, &line, check);
    enum fl_status status = fl_buf_status(&line);
    if (status != FL_OK)
        status = fl_fail_memory(error);
    else if (self->length + line.length + MARK_BYTES > FL_LEDGER_BYTES_MAX)
        status = fl_fail(error, FL_ENOSPC, "%s: full; no further sum is answered", self->path);
    if (status != FL_OK)
        goto out;
    status = fl_fs_write_all(self->fd, line.data, line.length);
    if (status == FL_OK)
        status = fl_fs_sync(self->fd);
    if (status == FL_OK)
        status = put_mark(self, check);
    if (status != FL_OK) {
        self->broken = true;
        (void)fl_fail(error, status, "%s: the answer can't be recorded, so none is given",
                      self->path);
        if (ftruncate(self->fd, (off_t)self->length) != 0)
            fl_error_prefix(error, "a torn line remains");
        goto out;
    }
    memcpy(self->check, check, FL_HASH_BYTES);
    self->length += line.length + MARK_BYTES;
    self->count++;
out:
    fl_buf_free(&line);
    return status;
}

enum fl_status fl_ledger_admit(struct fl_ledger *self, const uint8_t fingerprint[FL_HASH_BYTES],
                               const uint8_t (*survivors)[FL_KEY_BYTES], uint32_t count,
                               struct fl_error *error)
{
    struct set set;
    struct walk walk;
    struct query query = {.fingerprint = fingerprint, .set = &set};
    if (self->broken)
        return fl_fail(error, FL_EIO, "%s: closed after a failed write", self->path);
    enum fl_status status = make_set(survivors, count, &set, error);
    if (status == FL_OK)
        status = walk_file(self, &query, &walk, error);
    if (status != FL_OK)
        return status;
    if (walk.length != self->length || memcmp(walk.check, self->check, FL_HASH_BYTES) != 0)
        return fl_fail(error, FL_EFORMAT, "%s: changed by another program", self->path);
    if (query.identical)
        return FL_OK;
    if (query.conflict > 0)
        return fl_fail(error, FL_EREFUSED,
                       FL_LEDGER_REASON
                       ": the same work was summed before over other sites (answer "
                       "%llu); sums of it over several sets can show single sites",
                       (unsigned long long)query.conflict);
    return record_answer(self, fingerprint, &set, error);
}

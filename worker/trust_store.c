/*
 * trust_store.c - see trust_store.h. A list of partners is written in one form; what is read is
 * compared with what would be written for it, so that no damage is read as something else.
 */
#include "worker/trust_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/name.h"

#define LOCK_TRIES     100
#define LOCK_PAUSE_NS  20000000 /* 20 ms */
#define TEXT_BYTES_MAX (1u << 20)
#define MARK_BYTES_MAX 4096
#define ROSTER_FILE    "roster.txt"

static const struct {
    const char *name, *head;
} files[] = {
    [FL_PARTNERS_PINNED] = {"pins.txt", "fedlora-pins-v1\n"},
    [FL_PARTNERS_FIRST_USE] = {"state/first-use.txt", "fedlora-first-use-v1\n"},
};

enum fl_status fl_trust_store_lock(const char *site, int *lock, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    const struct timespec pause = {0, LOCK_PAUSE_NS};
    *lock = -1;
    enum fl_status status = fl_path_join(path, site, "state", error);
    if (status == FL_OK)
        status = fl_fs_make_directory(path, 0700, error);
    if (status == FL_OK)
        status = fl_path_join(path, site, "state/trust.lock", error);
    if (status != FL_OK)
        return status;
    for (int i = 0; i < LOCK_TRIES; i++) {
        status = fl_fs_lock(path, lock, error);
        if (status != FL_EBUSY)
            return status;
        (void)nanosleep(&pause, NULL);
    }
    return status;
}

/* ---- lists of partners ---- */

const struct fl_partner *fl_partners_find(const struct fl_partners *self, const char *name)
{
    for (uint32_t i = 0; i < self->count; i++) {
        if (strcmp(self->rows[i].name, name) == 0)
            return &self->rows[i];
    }
    return NULL;
}

const struct fl_partner *fl_partners_find_key(const struct fl_partners *self,
                                              const uint8_t ed25519[FL_KEY_BYTES])
{
    for (uint32_t i = 0; i < self->count; i++) {
        if (memcmp(self->rows[i].identity.ed25519, ed25519, FL_KEY_BYTES) == 0)
            return &self->rows[i];
    }
    return NULL;
}

static enum fl_status make_room(struct fl_partners *self)
{
    if (self->count < self->room)
        return FL_OK;
    const uint32_t room = self->room ? 2 * self->room : 16;
    struct fl_partner *rows = fl_reallocarray(self->rows, room, sizeof(*rows));
    if (!rows)
        return FL_ENOMEM;
    self->rows = rows;
    self->room = room;
    return FL_OK;
}

enum fl_status fl_partners_add(struct fl_partners *self, const char *name,
                               const struct fl_identity *identity)
{
    uint32_t at = 0;
    if (fl_partners_find(self, name) || fl_partners_find_key(self, identity->ed25519))
        return FL_EEXIST;
    if (self->count == FL_WORKERS_MAX)
        return FL_ERANGE;
    if (make_room(self) != FL_OK)
        return FL_ENOMEM;
    while (at < self->count && strcmp(self->rows[at].name, name) < 0)
        at++;
    memmove(&self->rows[at + 1], &self->rows[at], (self->count - at) * sizeof(*self->rows));
    struct fl_partner *row = &self->rows[at];
    memset(row, 0, sizeof(*row));
    snprintf(row->name, sizeof(row->name), "%s", name);
    row->identity = *identity;
    self->count++;
    return FL_OK;
}

static bool remove_partner(struct fl_partners *self, const char *name)
{
    const struct fl_partner *row = fl_partners_find(self, name);
    if (!row)
        return false;
    const size_t at = (size_t)(row - self->rows);
    self->count--;
    memmove(&self->rows[at], &self->rows[at + 1], (self->count - at) * sizeof(*self->rows));
    return true;
}

void fl_partners_free(struct fl_partners *self)
{
    fl_free(self->rows);
    memset(self, 0, sizeof(*self));
}

static void write_text(enum fl_partner_file which, const struct fl_partners *list,
                       struct fl_buf *out)
{
    char key[FL_IDENTITY_TEXT_BYTES];
    fl_buf_printf(out, "%s", files[which].head);
    for (uint32_t i = 0; i < list->count; i++) {
        const struct fl_partner *row = &list->rows[i];
        if (which == FL_PARTNERS_PINNED)
            fl_identity_encode(&row->identity, key);
        else
            fl_hex(row->identity.ed25519, FL_KEY_BYTES, key);
        fl_buf_printf(out, "%s %s\n", row->name, key);
    }
}

/* line: without its newline, cut into words in place */
static enum fl_status read_line(enum fl_partner_file which, char *line, struct fl_partners *out,
                                struct fl_error *error)
{
    struct fl_identity identity = {{0}, {0}};
    char *key = strchr(line, ' ');
    if (key)
        *key++ = '\0';
    if (!key || !fl_name_is_valid(line))
        return fl_fail(error, FL_EFORMAT, "not a line with a name and a key");
    enum fl_status status = which == FL_PARTNERS_PINNED
                                ? fl_identity_parse(key, &identity, error)
                                : fl_unhex(key, identity.ed25519, FL_KEY_BYTES);
    if (status != FL_OK)
        return which == FL_PARTNERS_PINNED ? status
                                           : fl_fail(error, FL_EFORMAT, "not 64 hex digits");
    status = fl_partners_add(out, line, &identity);
    if (status == FL_ENOMEM)
        return fl_fail_memory(error);
    return status == FL_OK ? FL_OK
                           : fl_fail(error, FL_EFORMAT,
                                     status == FL_EEXIST ? "a name or a key that stands there twice"
                                                         : "too many partners");
}

static enum fl_status read_text(enum fl_partner_file which, const struct fl_buf *text,
                                struct fl_partners *out, struct fl_error *error)
{
    char line[FL_NAME_BYTES + FL_IDENTITY_TEXT_BYTES];
    const char *next = fl_buf_text(text), *end = next + text->length;
    const size_t head = strlen(files[which].head);
    if (text->length < head || memcmp(next, files[which].head, head) != 0)
        return fl_fail(error, FL_EFORMAT, "%s: does not begin with the line %.*s",
                       files[which].name, (int)head - 1, files[which].head);
    next += head;
    for (unsigned number = 2; next < end; number++) {
        const char *feed = memchr(next, '\n', (size_t)(end - next));
        const size_t length = feed ? (size_t)(feed - next) : sizeof(line);
        enum fl_status status = length < sizeof(line)
                                    ? FL_OK
                                    : fl_fail(error, FL_EFORMAT, "not a whole line");
        if (status == FL_OK) {
            memcpy(line, next, length);
            line[length] = '\0';
            status = read_line(which, line, out, error);
        }
        if (status != FL_OK) {
            fl_error_prefix(error, "%s:%u", files[which].name, number);
            return status;
        }
        next = feed + 1;
    }
    return FL_OK;
}

static enum fl_status check_form(enum fl_partner_file which, const struct fl_buf *text,
                                 const struct fl_partners *list, struct fl_error *error)
{
    struct fl_buf form;
    fl_buf_init(&form, TEXT_BYTES_MAX);
    write_text(which, list, &form);
    enum fl_status status = fl_buf_status(&form);
    if (status != FL_OK)
        status = fl_fail_memory(error);
    else if (form.length != text->length || memcmp(form.data, text->data, form.length) != 0)
        status = fl_fail(error, FL_EFORMAT, "%s: damaged (order or spelling of its lines)",
                         files[which].name);
    fl_buf_free(&form);
    return status;
}

enum fl_status fl_partners_load(const char *site, enum fl_partner_file which,
                                struct fl_partners *out, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_buf text;
    memset(out, 0, sizeof(*out));
    fl_buf_init(&text, TEXT_BYTES_MAX);
    enum fl_status status = fl_path_join(path, site, files[which].name, error);
    if (status == FL_OK)
        status = fl_fs_read(path, TEXT_BYTES_MAX, &text, error);
    if (status == FL_ENOTFOUND)
        return FL_OK;
    if (status == FL_ERANGE)
        status = fl_fail(error, FL_EFORMAT, "%s: too long", files[which].name);
    if (status == FL_OK)
        status = read_text(which, &text, out, error);
    if (status == FL_OK)
        status = check_form(which, &text, out, error);
    fl_buf_free(&text);
    return status;
}

enum fl_status fl_partners_save(const char *site, enum fl_partner_file which,
                                const struct fl_partners *list, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_buf text;
    fl_buf_init(&text, TEXT_BYTES_MAX);
    write_text(which, list, &text);
    enum fl_status status = fl_buf_status(&text);
    if (status != FL_OK)
        status = fl_fail_memory(error);
    if (status == FL_OK)
        status = fl_path_join(path, site, files[which].name, error);
    if (status == FL_OK)
        status = fl_fs_write(path, text.data, text.length, 0600, error);
    fl_buf_free(&text);
    return status;
}

/* ---- pins ---- */

/* FL_EEXIST: it is pinned so already. */
static enum fl_status add_pin(struct fl_partners *pins, const char *name,
                              const struct fl_identity *identity, struct fl_error *error)
{
    const struct fl_partner *same = fl_partners_find(pins, name);
    const struct fl_partner *other = fl_partners_find_key(pins, identity->ed25519);
    if (same && memcmp(&same->identity, identity, sizeof(*identity)) == 0)
        return FL_EEXIST;
    if (same)
        return fl_fail(error, FL_EREFUSED,
                       "'%s' is pinned with another identity; if it has new keys, `roster unpin "
                       "%s` first",
                       name, name);
    if (other)
        return fl_fail(error, FL_EREFUSED, "this key is pinned as '%s'; `roster unpin %s` first",
                       other->name, other->name);
    const enum fl_status status = fl_partners_add(pins, name, identity);
    if (status == FL_ENOMEM)
        return fl_fail_memory(error);
    return status == FL_OK
               ? FL_OK
               : fl_fail(error, FL_EREFUSED, "%d partners are pinned, no more fit", FL_WORKERS_MAX);
}

enum fl_status fl_trust_store_pin(const char *site, const char *name,
                                  const struct fl_identity *identity, uint32_t *count,
                                  struct fl_error *error)
{
    int lock;
    struct fl_partners pins = {0};
    if (!fl_name_is_valid(name))
        return fl_fail(error, FL_EFORMAT,
                       "'%.80s' is no name (letters, digits, '.', '_', '-', at most %d)", name,
                       FL_NAME_BYTES - 1);
    enum fl_status status = fl_trust_store_lock(site, &lock, error);
    if (status != FL_OK)
        return status;
    status = fl_partners_load(site, FL_PARTNERS_PINNED, &pins, error);
    if (status == FL_OK)
        status = add_pin(&pins, name, identity, error);
    if (status == FL_OK)
        status = fl_partners_save(site, FL_PARTNERS_PINNED, &pins, error);
    if (status == FL_EEXIST)
        status = FL_OK;
    if (count)
        *count = pins.count;
    fl_partners_free(&pins);
    (void)close(lock);
    return status;
}

/* *removed says whether the name was there. */
static enum fl_status forget_in(const char *site, enum fl_partner_file which, const char *name,
                                bool *removed, struct fl_error *error)
{
    struct fl_partners list = {0};
    enum fl_status status = fl_partners_load(site, which, &list, error);
    if (status == FL_OK && remove_partner(&list, name)) {
        *removed = true;
        status = fl_partners_save(site, which, &list, error);
    }
    fl_partners_free(&list);
    return status;
}

enum fl_status fl_trust_store_unpin(const char *site, const char *name, struct fl_error *error)
{
    int lock;
    bool removed = false;
    enum fl_status status = fl_trust_store_lock(site, &lock, error);
    if (status != FL_OK)
        return status;
    status = forget_in(site, FL_PARTNERS_PINNED, name, &removed, error);
    if (status == FL_OK)
        status = forget_in(site, FL_PARTNERS_FIRST_USE, name, &removed, error);
    (void)close(lock);
    if (status == FL_OK && !removed)
        status = fl_fail(error, FL_ENOTFOUND, "'%.80s' is neither pinned nor remembered", name);
    return status;
}

/* ---- the authority's list ---- */

static enum fl_status mark_path(const char *site, const uint8_t authority[FL_KEY_BYTES],
                                char name[64], char *path, struct fl_error *error)
{
    char hex[FL_KEY_HEX_BYTES];
    fl_hex(authority, FL_KEY_BYTES, hex);
    snprintf(name, 64, "state/roster-%.32s.mark", hex);
    return fl_path_join(path, site, name, error);
}

static enum fl_status mark_of_json(const json_t *root, struct fl_member_mark *out)
{
    const char *hash = NULL;
    const json_t *number = json_object_get(root, "number");
    if (!json_is_integer(number) || json_integer_value(number) < 1 ||
        fl_json_string(root, "hash", NULL, &hash) != FL_OK || !hash)
        return FL_EFORMAT;
    out->number = (uint64_t)json_integer_value(number);
    return fl_unhex(hash, out->hash, FL_HASH_BYTES);
}

static enum fl_status load_mark(const char *site, const uint8_t authority[FL_KEY_BYTES],
                                struct fl_member_mark *out, struct fl_error *error)
{
    char path[FL_PATH_BYTES], name[64];
    json_t *root = NULL;
    memset(out, 0, sizeof(*out));
    enum fl_status status = mark_path(site, authority, name, path, error);
    if (status == FL_OK)
        status = fl_json_load(path, MARK_BYTES_MAX, &root, error);
    if (status == FL_ENOTFOUND)
        return FL_OK;
    if (status == FL_EFORMAT || status == FL_ERANGE ||
        (status == FL_OK && mark_of_json(root, out) != FL_OK))
        status = fl_fail(error, FL_EFORMAT, "%s: damaged", name);
    json_decref(root);
    return status;
}

static enum fl_status save_mark(const char *site, const struct fl_member_list *list,
                                struct fl_error *error)
{
    char path[FL_PATH_BYTES], name[64], hex[FL_HASH_HEX_BYTES], text[160];
    fl_hex(list->hash, FL_HASH_BYTES, hex);
    const int length = snprintf(text, sizeof(text), "{\"number\":%" PRIu64 ",\"hash\":\"%s\"}\n",
                                list->number, hex);
    const enum fl_status status = mark_path(site, list->authority, name, path, error);
    return status == FL_OK ? fl_fs_write(path, text, (size_t)length, 0600, error) : status;
}

/* A signed text that may stand in for what was taken. */
static enum fl_status read_list(const struct fl_buf *text, const uint8_t authority[FL_KEY_BYTES],
                                const struct fl_member_mark *mark, const char *what,
                                struct fl_member_list *out, struct fl_error *error)
{
    enum fl_status status = fl_member_list_verify(fl_buf_text(text), text->length, authority, out,
                                                  error);
    if (status == FL_OK)
        status = fl_member_list_supersedes(out, mark, error);
    if (status != FL_OK)
        fl_error_prefix(error, "%s", what);
    return status;
}

enum fl_status fl_trust_store_list(const char *site, const uint8_t authority[FL_KEY_BYTES],
                                   bool settle, struct fl_member_list *out, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_member_mark mark;
    struct fl_buf text;
    memset(out, 0, sizeof(*out));
    fl_buf_init(&text, FL_MEMBERS_TEXT_MAX);
    /* the mark first: without the lock the list that is read is then no older than it */
    enum fl_status status = load_mark(site, authority, &mark, error);
    if (status == FL_OK)
        status = fl_path_join(path, site, ROSTER_FILE, error);
    if (status == FL_OK)
        status = fl_fs_read(path, FL_MEMBERS_TEXT_MAX, &text, error);
    if (status == FL_ERANGE)
        status = fl_fail(error, FL_EFORMAT, ROSTER_FILE ": too long for a list of members");
    if (status == FL_OK)
        status = read_list(&text, authority, &mark, ROSTER_FILE, out, error);
    if (status == FL_OK && settle && out->number > mark.number)
        status = save_mark(site, out, error);
    fl_buf_free(&text);
    return status;
}

/* The list, then its mark: whoever uses the list settles it first, so a crash between is no gap. */
static enum fl_status replace_list(const char *site, const struct fl_buf *text,
                                   const struct fl_member_list *list, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(path, site, ROSTER_FILE, error);
    if (status == FL_OK)
        status = fl_fs_write(path, text->data, text->length, 0644, error);
    return status == FL_OK ? save_mark(site, list, error) : status;
}

/* What was put in place by hand counts as taken; what is no good list may be replaced. */
static enum fl_status settle_present(const char *site, const uint8_t authority[FL_KEY_BYTES],
                                     struct fl_error *error)
{
    struct fl_member_list present = {0};
    const enum fl_status status = fl_trust_store_list(site, authority, true, &present, error);
    fl_member_list_free(&present);
    const bool useless = status == FL_ENOTFOUND || status == FL_EFORMAT || status == FL_EREFUSED;
    return useless ? FL_OK : status;
}

enum fl_status fl_trust_store_accept(const char *site, const uint8_t authority[FL_KEY_BYTES],
                                     const struct fl_buf *text, const char *what,
                                     struct fl_member_list *out, struct fl_error *error)
{
    int lock;
    struct fl_member_mark mark;
    memset(out, 0, sizeof(*out));
    enum fl_status status = fl_trust_store_lock(site, &lock, error);
    if (status != FL_OK)
        return status;
    status = settle_present(site, authority, error);
    if (status == FL_OK)
        status = load_mark(site, authority, &mark, error);
    if (status == FL_OK)
        status = read_list(text, authority, &mark, what, out, error);
    if (status == FL_OK)
        status = replace_list(site, text, out, error);
    (void)close(lock);
    return status;
}

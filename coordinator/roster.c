/* roster.c - see roster.h. The array is kept in order of names; the database is written first. */
#include "coordinator/roster.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

struct fl_roster {
    struct fl_store *store; /* borrowed */
    struct fl_site *sites;  /* owned */
    uint32_t count, capacity;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct fl_site *)a)->name, ((const struct fl_site *)b)->name);
}

static enum fl_status append(struct fl_roster *self, const struct fl_site *site)
{
    if (self->count == self->capacity) {
        uint32_t capacity = self->capacity ? 2 * self->capacity : 16;
        struct fl_site *grown = fl_reallocarray(self->sites, capacity, sizeof *grown);
        if (!grown)
            return FL_ENOMEM;
        self->sites = grown;
        self->capacity = capacity;
    }
    self->sites[self->count++] = *site;
    return FL_OK;
}

static enum fl_status read_site(void *context, const struct fl_row *row)
{
    struct fl_site site = {.id = (uint32_t)fl_row_i64(row, 0),
                           .revoked = fl_row_i64(row, 4) != 0,
                           .created_ms = fl_row_i64(row, 5),
                           .last_seen_ms = fl_row_i64(row, 6)};
    fl_row_copy_text(row, 1, site.name, sizeof site.name);
    enum fl_status status = fl_row_copy_blob(row, 2, site.identity.x25519, FL_KEY_BYTES);
    if (status == FL_OK)
        status = fl_row_copy_blob(row, 3, site.identity.ed25519, FL_KEY_BYTES);
    return status == FL_OK ? append(context, &site) : status;
}

static enum fl_status reload(struct fl_roster *self, struct fl_error *error)
{
    self->count = 0;
    enum fl_status status = fl_store_select(
        self->store, error, read_site, self, NULL,
        "SELECT id, name, x25519, ed25519, revoked, created_ms, last_seen_ms FROM sites", "");
    if (status == FL_OK && self->count > 1)
        qsort(self->sites, self->count, sizeof *self->sites, by_name);
    return status;
}

enum fl_status fl_roster_load(struct fl_store *store, struct fl_roster **out,
                              struct fl_error *error)
{
    *out = fl_calloc(1, sizeof **out);
    if (!*out)
        return fl_fail_memory(error);
    (*out)->store = store;
    enum fl_status status = reload(*out, error);
    if (status != FL_OK)
        fl_roster_free(out);
    return status;
}

void fl_roster_free(struct fl_roster **self)
{
    if (!*self)
        return;
    fl_free((*self)->sites);
    fl_free(*self);
    *self = NULL;
}

uint32_t fl_roster_count(const struct fl_roster *self)
{
    return self->count;
}

const struct fl_site *fl_roster_at(const struct fl_roster *self, uint32_t index)
{
    return index < self->count ? &self->sites[index] : NULL;
}

const struct fl_site *fl_roster_by_name(const struct fl_roster *self, const char *name)
{
    for (uint32_t i = 0; i < self->count; i++) {
        if (strcmp(self->sites[i].name, name) == 0)
            return &self->sites[i];
    }
    return NULL;
}

const struct fl_site *fl_roster_by_key(const struct fl_roster *self,
                                       const uint8_t x25519[FL_KEY_BYTES])
{
    for (uint32_t i = 0; i < self->count; i++) {
        if (memcmp(self->sites[i].identity.x25519, x25519, FL_KEY_BYTES) == 0)
            return &self->sites[i];
    }
    return NULL;
}

const struct fl_site *fl_roster_by_id(const struct fl_roster *self, uint32_t id)
{
    for (uint32_t i = 0; i < self->count; i++) {
        if (self->sites[i].id == id)
            return &self->sites[i];
    }
    return NULL;
}

static enum fl_status check_new(const struct fl_roster *self, const char *name,
                                const struct fl_identity *identity, struct fl_error *error)
{
    if (!fl_wire_valid_name(name))
        return fl_fail(error, FL_EINVAL,
                       "\"%s\" is no name for a site (1 to 63 of A-Z a-z 0-9 . _ -)", name);
    const struct fl_site *same_name = fl_roster_by_name(self, name);
    if (same_name && memcmp(&same_name->identity, identity, sizeof *identity) != 0)
        return fl_fail(
            error, FL_EEXIST,
            "%s is enrolled with another key; a site whose keys are new needs a new name", name);
    const struct fl_site *same_key = fl_roster_by_key(self, identity->x25519);
    if (same_key && same_key != same_name)
        return fl_fail(error, FL_EEXIST, "this key is enrolled as %s", same_key->name);
    if (!same_name && self->count >= FL_WORKERS_MAX)
        return fl_fail(error, FL_ERANGE, "the roster is full (%d sites)", FL_WORKERS_MAX);
    return FL_OK;
}

enum fl_status fl_roster_add(struct fl_roster *self, const char *name,
                             const struct fl_identity *identity, int64_t wall_ms,
                             struct fl_error *error)
{
    enum fl_status status = check_new(self, name, identity, error);
    if (status != FL_OK)
        return status;
    status = fl_store_run(self->store, error,
                          "INSERT INTO sites(name, x25519, ed25519, created_ms) VALUES(?,?,?,?) "
                          "ON CONFLICT(name) DO UPDATE SET revoked = 0, revoked_ms = NULL",
                          "sbbi", name, identity->x25519, (size_t)FL_KEY_BYTES, identity->ed25519,
                          (size_t)FL_KEY_BYTES, wall_ms);
    return status == FL_OK ? reload(self, error) : status;
}

enum fl_status fl_roster_revoke(struct fl_roster *self, const char *name, int64_t wall_ms,
                                struct fl_error *error)
{
    if (!fl_roster_by_name(self, name))
        return fl_fail(error, FL_ENOTFOUND, "no site named %s is enrolled", name);
    enum fl_status status = fl_store_run(
        self->store, error, "UPDATE sites SET revoked = 1, revoked_ms = ? WHERE name = ?", "is",
        wall_ms, name);
    return status == FL_OK ? reload(self, error) : status;
}

enum fl_status fl_roster_touch(struct fl_roster *self, uint32_t id, int64_t wall_ms,
                               struct fl_error *error)
{
    for (uint32_t i = 0; i < self->count; i++) {
        if (self->sites[i].id == id)
            self->sites[i].last_seen_ms = wall_ms;
    }
    return fl_store_run(self->store, error, "UPDATE sites SET last_seen_ms = ? WHERE id = ?", "ii",
                        wall_ms, (int64_t)id);
}

/* ---- invitations ---- */

static void invitation_secret(const struct fl_keys *keys, const uint8_t *invitation,
                              uint8_t secret[FL_JOIN_SECRET_BYTES])
{
    static const char label[] = "fedlora-invitation-v1";
    struct fl_blake2b hash;
    fl_blake2b_init(&hash, fl_keys_x25519_secret(keys), FL_KEY_BYTES);
    fl_blake2b_update(&hash, label, sizeof label);
    fl_blake2b_update(&hash, invitation, FL_INVITATION_BYTES);
    fl_blake2b_final(&hash, secret);
}

enum fl_status fl_roster_invite(struct fl_roster *self, const struct fl_keys *keys,
                                const char *name, int64_t ttl_ms, int64_t wall_ms,
                                struct fl_token *token, struct fl_error *error)
{
    if (!fl_wire_valid_name(name))
        return fl_fail(error, FL_EUSAGE,
                       "\"%s\" is no name for a site (1 to 63 of A-Z a-z 0-9 . _ -)", name);
    const struct fl_site *taken = fl_roster_by_name(self, name);
    if (taken)
        return fl_fail(error, FL_EEXIST, "%s is already enrolled%s", name,
                       taken->revoked ? " (revoked; `roster add` with its key allows it again)"
                                      : "");
    uint8_t id_hash[FL_HASH_BYTES], key_hash[FL_HASH_BYTES];
    fl_token_draw(token, fl_entropy_system());
    invitation_secret(keys, token->invitation, token->secret);
    token->expires_ms = wall_ms + ttl_ms;
    fl_blake2b(token->invitation, FL_INVITATION_BYTES, id_hash);
    fl_blake2b(token->secret, FL_JOIN_SECRET_BYTES, key_hash);
    return fl_store_run(self->store, error,
                        "INSERT INTO invitations(id, name, key_hash, created_ms, expires_ms) "
                        "VALUES(?,?,?,?,?)",
                        "bsbii", id_hash, (size_t)FL_HASH_BYTES, name, key_hash,
                        (size_t)FL_HASH_BYTES, wall_ms, token->expires_ms);
}

struct invitation {
    char name[FL_NAME_BYTES];
    uint8_t key_hash[FL_HASH_BYTES];
    int64_t expires_ms, failures;
    bool used;
};

static enum fl_status read_invitation(void *context, const struct fl_row *row)
{
    struct invitation *out = context;
    fl_row_copy_text(row, 0, out->name, sizeof out->name);
    out->expires_ms = fl_row_i64(row, 1);
    out->used = !fl_row_is_null(row, 2);
    out->failures = fl_row_i64(row, 3);
    return fl_row_copy_blob(row, 4, out->key_hash, FL_HASH_BYTES);
}

/* One answer for all that a guesser could learn from; only the holder of a good token hears more.
 */
static enum fl_status prove(const struct invitation *invitation, const struct fl_keys *keys,
                            const struct fl_wire_join *join, struct fl_error *error)
{
    uint8_t secret[FL_JOIN_SECRET_BYTES], key_hash[FL_HASH_BYTES];
    struct fl_identity site;
    memcpy(site.x25519, join->x25519, FL_KEY_BYTES);
    memcpy(site.ed25519, join->ed25519, FL_KEY_BYTES);
    invitation_secret(keys, join->invitation, secret);
    fl_blake2b(secret, sizeof secret, key_hash);
    enum fl_status status = FL_EREFUSED;
    if (sodium_memcmp(key_hash, invitation->key_hash, sizeof key_hash) == 0)
        status = fl_join_check(secret, fl_keys_public(keys)->x25519, &site, join->name, join->mac,
                               join->signature);
    sodium_memzero(secret, sizeof secret);
    if (status != FL_OK)
        return fl_fail(error, FL_EREFUSED, "the token is not valid here");
    return FL_OK;
}

static enum fl_status judge(const struct invitation *invitation, int64_t wall_ms,
                            struct fl_error *error)
{
    if (invitation->used)
        return fl_fail(error, FL_EREFUSED, "the token was used before; ask for a new one");
    if (wall_ms >= invitation->expires_ms)
        return fl_fail(error, FL_EREFUSED, "the token has expired; ask for a new one");
    return FL_OK;
}

static enum fl_status enrol(struct fl_roster *self, const struct invitation *invitation,
                            const struct fl_wire_join *join, const uint8_t *id_hash,
                            int64_t wall_ms, struct fl_error *error)
{
    struct fl_identity site;
    memcpy(site.x25519, join->x25519, FL_KEY_BYTES);
    memcpy(site.ed25519, join->ed25519, FL_KEY_BYTES);
    enum fl_status status = fl_store_begin(self->store, error);
    if (status != FL_OK)
        return status;
    status = fl_store_run(self->store, error, "UPDATE invitations SET used_ms = ? WHERE id = ?",
                          "ib", wall_ms, id_hash, (size_t)FL_HASH_BYTES);
    if (status == FL_OK)
        status = fl_roster_add(self, invitation->name, &site, wall_ms, error);
    if (status == FL_OK)
        return fl_store_commit(self->store, error);
    fl_store_rollback(self->store);
    struct fl_error ignored;
    (void)!reload(self, &ignored);
    if (status == FL_EEXIST || status == FL_EINVAL || status == FL_ERANGE)
        error->status = status = FL_EREFUSED;
    return status;
}

enum fl_status fl_roster_join(struct fl_roster *self, const struct fl_keys *keys,
                              const struct fl_wire_join *join, const uint8_t wire_key[FL_KEY_BYTES],
                              int64_t wall_ms, struct fl_error *error)
{
    struct invitation invitation = {.failures = 0};
    uint8_t id_hash[FL_HASH_BYTES];
    uint64_t rows = 0;
    if (memcmp(join->x25519, wire_key, FL_KEY_BYTES) != 0)
        return fl_fail(error, FL_EREFUSED, "the key in the request is not the connection's");
    fl_blake2b(join->invitation, FL_INVITATION_BYTES, id_hash);
    enum fl_status status = fl_store_select(
        self->store, error, read_invitation, &invitation, &rows,
        "SELECT name, expires_ms, used_ms, failures, key_hash FROM invitations WHERE id = ?", "b",
        id_hash, (size_t)FL_HASH_BYTES);
    if (status != FL_OK)
        return status;
    if (rows == 0 || invitation.failures >= FL_INVITATION_TRIES)
        return fl_fail(error, FL_EREFUSED, "the token is not valid here");
    status = prove(&invitation, keys, join, error);
    if (status != FL_OK) {
        struct fl_error ignored;
        (void)!fl_store_run(self->store, &ignored,
                            "UPDATE invitations SET failures = failures + 1 WHERE id = ?", "b",
                            id_hash, (size_t)FL_HASH_BYTES);
        return status;
    }
    const struct fl_site *site = fl_roster_by_key(self, wire_key);
    if (invitation.used && site && !site->revoked && strcmp(site->name, invitation.name) == 0)
        return FL_OK; /* our answer was lost, and the site asks again */
    status = judge(&invitation, wall_ms, error);
    return status == FL_OK ? enrol(self, &invitation, join, id_hash, wall_ms, error) : status;
}

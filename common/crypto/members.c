/*
 * members.c - the authority's list of members: read from what people write, signed, and read back.
 *
 * Invariant: members are sorted by name; names, X25519 keys and Ed25519 keys occur once each. A
 * signed text is compared with the text that this file would write for what was read from it, so
 * that there is one form only and no byte of it is unsigned.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/name.h"
#include "crypto/authority_internal.h"

#define LIST_LABEL       "fedlora-roster-v1"
#define NUMBER_WORD      "number "
#define AUTHORITY_WORD   "authority "
#define SIGNATURE_WORD   "signature "
#define SIGNATURE_BASE64 88
#define LINE_MAX_BYTES   256
#define WORDS_MAX        3

/* Lines of a text, one after the other, each copied into `line`. */
struct lines {
    const char *next;
    size_t left;
    uint32_t number; /* of `line`, from 1 */
    char line[LINE_MAX_BYTES];
};

/* The next line without its newline (the last one needs none). FL_ENOTFOUND: no more. */
static enum fl_status next_line(struct lines *self, struct fl_error *error)
{
    if (self->left == 0)
        return FL_ENOTFOUND;
    const char *end = memchr(self->next, '\n', self->left);
    const size_t length = end ? (size_t)(end - self->next) : self->left;
    self->number++;
    if (length >= sizeof(self->line))
        return fl_fail(error, FL_EFORMAT, "line %u is too long", self->number);
    if (memchr(self->next, '\0', length))
        return fl_fail(error, FL_EFORMAT, "line %u holds a NUL byte", self->number);
    memcpy(self->line, self->next, length);
    self->line[length] = '\0';
    self->next += length + (end ? 1 : 0);
    self->left -= length + (end ? 1 : 0);
    return FL_OK;
}

/* Cut line into words in place; more than WORDS_MAX counts as WORDS_MAX + 1. */
static uint32_t split(char *line, char *words[WORDS_MAX])
{
    uint32_t count = 0;
    char *place = NULL;
    for (char *word = strtok_r(line, " \t\r", &place); word;
         word = strtok_r(NULL, " \t\r", &place)) {
        if (count == WORDS_MAX)
            return WORDS_MAX + 1;
        words[count++] = word;
    }
    return count;
}

/* word: "member", "revoked" or NULL, which is a member */
static enum fl_status parse_member(const char *name, const char *identity, const char *word,
                                   uint32_t line, struct fl_member *out, struct fl_error *error)
{
    if (!fl_name_is_valid(name))
        return fl_fail(error, FL_EFORMAT,
                       "line %u: '%.80s' is no name (letters, digits, '.', '_', '-', at most %d)",
                       line, name, FL_NAME_BYTES - 1);
    const enum fl_status status = fl_identity_parse(identity, &out->identity, error);
    if (status != FL_OK) {
        fl_error_prefix(error, "line %u", line);
        return status;
    }
    if (word && strcmp(word, "member") != 0 && strcmp(word, "revoked") != 0)
        return fl_fail(error, FL_EFORMAT, "line %u: '%.80s' is neither member nor revoked", line,
                       word);
    memcpy(out->name, name, strlen(name) + 1);
    out->revoked = word && strcmp(word, "revoked") == 0;
    return FL_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct fl_member *)a)->name, ((const struct fl_member *)b)->name);
}

static int by_x25519(const void *a, const void *b)
{
    const struct fl_member *const *x = a, *const *y = b;
    return memcmp((*x)->identity.x25519, (*y)->identity.x25519, FL_KEY_BYTES);
}

static int by_ed25519(const void *a, const void *b)
{
    const struct fl_member *const *x = a, *const *y = b;
    return memcmp((*x)->identity.ed25519, (*y)->identity.ed25519, FL_KEY_BYTES);
}

static enum fl_status refuse_shared_keys(const struct fl_member_list *self,
                                         const struct fl_member **order,
                                         int (*compare)(const void *, const void *),
                                         struct fl_error *error)
{
    for (uint32_t i = 0; i < self->count; i++)
        order[i] = &self->members[i];
    qsort(order, self->count, sizeof(*order), compare);
    for (uint32_t i = 1; i < self->count; i++) {
        if (compare(&order[i - 1], &order[i]) == 0)
            return fl_fail(error, FL_EFORMAT, "'%s' and '%s' have the same key", order[i - 1]->name,
                           order[i]->name);
    }
    return FL_OK;
}

/* Sort by name and refuse what occurs twice. */
static enum fl_status settle(struct fl_member_list *self, struct fl_error *error)
{
    if (self->count == 0)
        return fl_fail(error, FL_EFORMAT, "the list has no members");
    qsort(self->members, self->count, sizeof(*self->members), by_name);
    for (uint32_t i = 1; i < self->count; i++) {
        if (by_name(&self->members[i - 1], &self->members[i]) == 0)
            return fl_fail(error, FL_EFORMAT, "'%s' is listed twice", self->members[i].name);
    }
    const struct fl_member **order = fl_calloc(self->count, sizeof(*order));
    if (!order)
        return fl_fail_memory(error);
    enum fl_status status = refuse_shared_keys(self, order, by_x25519, error);
    if (status == FL_OK)
        status = refuse_shared_keys(self, order, by_ed25519, error);
    fl_free(order);
    return status;
}

/* Room for as many members as the text has lines: bounded by FL_WORKERS_MAX and some lines. */
static enum fl_status make_room(const char *text, size_t length, struct fl_member_list *out,
                                struct fl_error *error)
{
    memset(out, 0, sizeof(*out));
    if (length > FL_MEMBERS_TEXT_MAX)
        return fl_fail(error, FL_EFORMAT, "a list of members has at most %u bytes",
                       FL_MEMBERS_TEXT_MAX);
    size_t rows = 1;
    for (size_t i = 0; i < length && rows < FL_WORKERS_MAX; i++)
        rows += text[i] == '\n';
    out->members = fl_calloc(rows, sizeof(*out->members));
    return out->members ? FL_OK : fl_fail_memory(error);
}

static enum fl_status add_line(struct fl_member_list *self, struct lines *lines, bool written,
                               struct fl_error *error)
{
    char *words[WORDS_MAX] = {0};
    const uint32_t count = split(lines->line, words);
    if (written && (count == 0 || words[0][0] == '#'))
        return FL_OK;
    if (count < (written ? 2 : 3) || count > WORDS_MAX)
        return fl_fail(error, FL_EFORMAT, "line %u: expected NAME IDENTITY %s", lines->number,
                       written ? "[revoked]" : "member|revoked");
    if (self->count == FL_WORKERS_MAX)
        return fl_fail(error, FL_EFORMAT, "line %u: more than %d members", lines->number,
                       FL_WORKERS_MAX);
    const enum fl_status status = parse_member(words[0], words[1], words[2], lines->number,
                                               &self->members[self->count], error);
    if (status == FL_OK)
        self->count++;
    return status;
}

enum fl_status fl_member_list_read(const char *text, size_t length, struct fl_member_list *out,
                                   struct fl_error *error)
{
    struct lines lines = {.next = text, .left = length};
    enum fl_status status = make_room(text, length, out, error);
    while (status == FL_OK) {
        status = next_line(&lines, error);
        if (status == FL_OK)
            status = add_line(out, &lines, true, error);
    }
    return status == FL_ENOTFOUND ? settle(out, error) : status;
}

/* Append the bytes that are signed. */
static void append_signed(const struct fl_member_list *self, struct fl_buf *out)
{
    char text[FL_IDENTITY_TEXT_BYTES > FL_AUTHORITY_TEXT_BYTES ? FL_IDENTITY_TEXT_BYTES
                                                               : FL_AUTHORITY_TEXT_BYTES];
    fl_authority_encode(self->authority, text);
    fl_buf_printf(out, LIST_LABEL "\n" NUMBER_WORD "%llu\n" AUTHORITY_WORD "%s\n",
                  (unsigned long long)self->number, text);
    for (uint32_t i = 0; i < self->count; i++) {
        const struct fl_member *m = &self->members[i];
        fl_identity_encode(&m->identity, text);
        fl_buf_printf(out, "%s %s %s\n", m->name, text, m->revoked ? "revoked" : "member");
    }
}

enum fl_status fl_member_list_sign(struct fl_member_list *self, uint64_t number,
                                   const struct fl_authority *authority, struct fl_buf *out)
{
    assert(number > 0);
    uint8_t signature[FL_SIGNATURE_BYTES];
    char text[SIGNATURE_BASE64 + 1];
    const size_t start = out->length;
    self->number = number;
    memcpy(self->authority, fl_authority_public(authority), FL_KEY_BYTES);
    append_signed(self, out);
    if (fl_buf_status(out) != FL_OK)
        return fl_buf_status(out);
    fl_blake2b(out->data + start, out->length - start, self->hash);
    fl_authority_sign(authority, LIST_LABEL, out->data + start, out->length - start, signature);
    sodium_bin2base64(text, sizeof(text), signature, sizeof(signature),
                      sodium_base64_VARIANT_ORIGINAL);
    fl_buf_printf(out, SIGNATURE_WORD "%s\n", text);
    return fl_buf_status(out);
}

/* The rest of the next line behind word. */
static enum fl_status expect(struct lines *lines, const char *word, const char **rest,
                             struct fl_error *error)
{
    const enum fl_status status = next_line(lines, error);
    if (status != FL_OK && status != FL_ENOTFOUND)
        return status;
    if (status == FL_ENOTFOUND || strncmp(lines->line, word, strlen(word)) != 0)
        return fl_fail(error, FL_EFORMAT, "line %u does not begin with '%s'",
                       status == FL_OK ? lines->number : lines->number + 1, word);
    *rest = lines->line + strlen(word);
    return FL_OK;
}

static enum fl_status parse_head(struct lines *lines, struct fl_member_list *out,
                                 struct fl_error *error)
{
    const char *rest;
    enum fl_status status = expect(lines, LIST_LABEL, &rest, error);
    if (status != FL_OK || rest[0] != '\0')
        return fl_fail(error, FL_EFORMAT, "not a signed list of members (" LIST_LABEL ")");
    status = expect(lines, NUMBER_WORD, &rest, error);
    if (status == FL_OK && fl_parse_u64(rest, 1, INT64_MAX, &out->number) != FL_OK)
        status = fl_fail(error, FL_EFORMAT, "line %u: not a number of a list", lines->number);
    if (status == FL_OK)
        status = expect(lines, AUTHORITY_WORD, &rest, error);
    return status == FL_OK ? fl_authority_parse(rest, out->authority, error) : status;
}

static enum fl_status parse_signature(const char *text, uint8_t signature[FL_SIGNATURE_BYTES],
                                      struct fl_error *error)
{
    size_t length = 0;
    char form[SIGNATURE_BASE64 + 1] = "";
    if (strlen(text) == SIGNATURE_BASE64 &&
        sodium_base642bin(signature, FL_SIGNATURE_BYTES, text, SIGNATURE_BASE64, NULL, &length,
                          NULL, sodium_base64_VARIANT_ORIGINAL) == 0 &&
        length == FL_SIGNATURE_BYTES)
        sodium_bin2base64(form, sizeof(form), signature, FL_SIGNATURE_BYTES,
                          sodium_base64_VARIANT_ORIGINAL);
    /* the decoder is lenient (0xaf passes for '/'): only the one form is taken */
    return strcmp(form, text) == 0 ? FL_OK : fl_fail(error, FL_EFORMAT, "the signature is damaged");
}

/* Read everything; *signed_bytes is how much of the text stands before the signature's line. */
static enum fl_status parse(const char *text, size_t length, struct fl_member_list *out,
                            size_t *signed_bytes, uint8_t signature[FL_SIGNATURE_BYTES],
                            struct fl_error *error)
{
    struct lines lines = {.next = text, .left = length};
    enum fl_status status = make_room(text, length, out, error);
    if (status == FL_OK)
        status = parse_head(&lines, out, error);
    while (status == FL_OK) {
        *signed_bytes = (size_t)(lines.next - text);
        status = next_line(&lines, error);
        if (status == FL_ENOTFOUND)
            return fl_fail(error, FL_EFORMAT, "the list ends without a signature");
        if (status != FL_OK)
            return status;
        if (strncmp(lines.line, SIGNATURE_WORD, strlen(SIGNATURE_WORD)) == 0)
            break;
        status = add_line(out, &lines, false, error);
    }
    if (status == FL_OK)
        status = parse_signature(lines.line + strlen(SIGNATURE_WORD), signature, error);
    if (status == FL_OK && (lines.left > 0 || text[length - 1] != '\n'))
        status = fl_fail(error, FL_EFORMAT, "the signature's line is not the last whole line");
    return status == FL_OK ? settle(out, error) : status;
}

/* The one form: what would be written for this list is what was read. */
static enum fl_status check_form(const struct fl_member_list *self, const char *text,
                                 size_t signed_bytes, struct fl_error *error)
{
    struct fl_buf form;
    fl_buf_init(&form, FL_MEMBERS_TEXT_MAX);
    append_signed(self, &form);
    enum fl_status status = fl_buf_status(&form);
    if (status == FL_ENOMEM)
        (void)fl_fail_memory(error);
    else if (status != FL_OK || form.length != signed_bytes ||
             memcmp(form.data, text, signed_bytes) != 0)
        status = fl_fail(error, FL_EFORMAT,
                         "not in the form in which a list is signed (order, spaces, newlines)");
    fl_buf_free(&form);
    return status;
}

enum fl_status fl_member_list_verify(const char *text, size_t length, const uint8_t *authority,
                                     struct fl_member_list *out, struct fl_error *error)
{
    size_t signed_bytes = 0;
    uint8_t signature[FL_SIGNATURE_BYTES];
    enum fl_status status = parse(text, length, out, &signed_bytes, signature, error);
    if (status == FL_OK)
        status = check_form(out, text, signed_bytes, error);
    if (status != FL_OK)
        return status;
    if (authority && memcmp(authority, out->authority, FL_KEY_BYTES) != 0)
        return fl_fail(error, FL_EREFUSED, "the list is signed by another authority");
    if (fl_verify(out->authority, LIST_LABEL, text, signed_bytes, signature) != FL_OK)
        return fl_fail(error, FL_EREFUSED, "the signature does not fit the list");
    fl_blake2b(text, signed_bytes, out->hash);
    return FL_OK;
}

enum fl_status fl_member_list_supersedes(const struct fl_member_list *self,
                                         const struct fl_member_mark *taken, struct fl_error *error)
{
    if (self->number < taken->number)
        return fl_fail(error, FL_EREFUSED, "list %llu is older than list %llu, which was taken",
                       (unsigned long long)self->number, (unsigned long long)taken->number);
    if (self->number == taken->number && memcmp(self->hash, taken->hash, FL_HASH_BYTES) != 0)
        return fl_fail(error, FL_EREFUSED,
                       "list %llu says something else than the list %llu that was taken",
                       (unsigned long long)self->number, (unsigned long long)taken->number);
    return FL_OK;
}

const struct fl_member *fl_member_list_find(const struct fl_member_list *self, const char *name)
{
    struct fl_member key;
    if (self->count == 0 || !fl_name_is_valid(name))
        return NULL;
    memcpy(key.name, name, strlen(name) + 1);
    return bsearch(&key, self->members, self->count, sizeof(*self->members), by_name);
}

uint32_t fl_member_list_revoked(const struct fl_member_list *self)
{
    uint32_t revoked = 0;
    for (uint32_t i = 0; i < self->count; i++)
        revoked += self->members[i].revoked;
    return revoked;
}

void fl_member_list_free(struct fl_member_list *self)
{
    fl_free(self->members);
    memset(self, 0, sizeof(*self));
}

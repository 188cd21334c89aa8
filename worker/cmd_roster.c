/*
 * cmd_roster.c - `fedlora-worker roster init | sign | verify | show`: the consortium's authority,
 * and the numbered list of members that it signs. What sites do with it is in cmd_roster_site.c.
 *
 *   DIR/authority.key   the authority's key
 *   DIR/number          the number of the last list signed, as text; durable before a list with
 *                       that number leaves, so that no number is used for two lists
 *   DIR/lock            held while signing
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/fs.h"
#include "base/json.h"
#include "crypto/authority.h"
#include "worker/cmd_roster.h"
#include "worker/commands.h"

#define PROGRAM          FL_ROSTER_PROGRAM
#define NUMBER_TEXT_MAX  32
#define OPTIONS_OF(rows) .options = (rows), .option_count = sizeof(rows) / sizeof((rows)[0])

static const char *directory;
static bool as_json;

#define DIR_OPTION                                                                                 \
    {                                                                                              \
        .name = "--dir", .value = "DIR", .kind = FL_OPTION_STRING, .target = &directory,           \
        .required = true, .doc = "the authority's directory; keep it off the coordinator"          \
    }
#define JSON_OPTION                                                                                \
    {                                                                                              \
        .name = "--json", .kind = FL_OPTION_FLAG, .target = &as_json,                              \
        .doc = "print one JSON object"                                                             \
    }

static enum fl_status print_json(json_t *root, struct fl_error *error)
{
    const enum fl_status status = root ? fl_json_print(root) : FL_ENOMEM;
    json_decref(root);
    return status == FL_OK ? FL_OK : fl_fail(error, status, "writing the answer failed");
}

static int finish(const char *program, enum fl_status status, const struct fl_error *error)
{
    return status == FL_OK ? 0 : fl_cli_fail(program, error);
}

/* ---- init ---- */

static enum fl_status write_number(uint64_t number, struct fl_error *error)
{
    char path[FL_PATH_BYTES], text[NUMBER_TEXT_MAX];
    const enum fl_status status = fl_path_join(path, directory, "number", error);
    if (status != FL_OK)
        return status;
    const int length = snprintf(text, sizeof(text), "%" PRIu64 "\n", number);
    return fl_fs_write(path, text, (size_t)length, 0600, error);
}

static enum fl_status lock_directory(int *lock, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    *lock = -1;
    const enum fl_status status = fl_path_join(path, directory, "lock", error);
    return status == FL_OK ? fl_fs_lock(path, lock, error) : status;
}

/* The number's file stands before the key: a directory with a key always has one. */
static enum fl_status make_authority(const char *path, struct fl_authority **out,
                                     struct fl_error *error)
{
    enum fl_status status = write_number(0, error);
    if (status != FL_OK)
        return status;
    status = fl_authority_generate(fl_entropy_system(), out);
    if (status != FL_OK)
        return fl_fail_memory(error);
    status = fl_authority_save(*out, path, error);
    if (status != FL_OK)
        fl_authority_destroy(out);
    return status;
}

static enum fl_status load_or_make(struct fl_authority **out, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    int lock = -1;
    enum fl_status status = fl_fs_make_directory(directory, 0700, error);
    if (status == FL_OK)
        status = lock_directory(&lock, error);
    if (status == FL_OK)
        status = fl_path_join(path, directory, "authority.key", error);
    if (status == FL_OK)
        status = fl_authority_load(path, out, error);
    if (status == FL_ENOTFOUND)
        status = make_authority(path, out, error);
    if (lock >= 0)
        (void)close(lock);
    return status;
}

static enum fl_status init_authority(struct fl_error *error)
{
    struct fl_authority *authority = NULL;
    char key[FL_AUTHORITY_TEXT_BYTES], digits[FL_FINGERPRINT_TEXT_BYTES];
    enum fl_status status = load_or_make(&authority, error);
    if (status != FL_OK)
        return status;
    fl_authority_encode(fl_authority_public(authority), key);
    fl_authority_fingerprint(fl_authority_public(authority), digits);
    if (as_json)
        status = print_json(json_pack("{s:s, s:s}", "authority", key, "fingerprint", digits),
                            error);
    else
        (void)printf("authority    %s\nfingerprint  %s\n", key, digits);
    fl_authority_destroy(&authority);
    return status;
}

static int run_init(int argc, char **argv)
{
    const struct fl_option options[] = {DIR_OPTION, JSON_OPTION};
    const struct fl_usage usage = {
        .program = PROGRAM " init",
        .summary =
            "Make the consortium's authority key if there is none, and print its public key,\n"
            "which sites pin, and its fingerprint, to be compared by telephone.",
        .example = PROGRAM " init --dir authority",
        OPTIONS_OF(options)};
    int code;
    struct fl_error error = {0};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    return finish(usage.program, init_authority(&error), &error);
}

/* ---- sign ---- */

static enum fl_status read_number(uint64_t *number, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_buf text;
    fl_buf_init(&text, NUMBER_TEXT_MAX);
    enum fl_status status = fl_path_join(path, directory, "number", error);
    if (status == FL_OK)
        status = fl_fs_read(path, NUMBER_TEXT_MAX, &text, error);
    if (status == FL_OK && text.length > 0 && text.data[text.length - 1] == '\n')
        text.data[text.length - 1] = '\0';
    if (status == FL_ERANGE ||
        (status == FL_OK && fl_parse_u64(fl_buf_text(&text), 0, INT64_MAX - 1, number) != FL_OK))
        status = fl_fail(error, FL_EFORMAT,
                         "%s: not the number of the last list; write the highest number that "
                         "any site has seen into it",
                         path);
    fl_buf_free(&text);
    return status;
}

static enum fl_status read_members(const char *path, struct fl_member_list *out,
                                   struct fl_error *error)
{
    struct fl_buf text;
    enum fl_status status = fl_fs_read(path, FL_MEMBERS_TEXT_MAX, &text, error);
    if (status == FL_ERANGE)
        status = fl_fail(error, FL_EFORMAT, "%s: too long for a list of members", path);
    else if (status == FL_OK) {
        status = fl_member_list_read(fl_buf_text(&text), text.length, out, error);
        if (status != FL_OK)
            fl_error_prefix(error, "%s", path);
    }
    fl_buf_free(&text);
    return status;
}

/* The number is on the disk before the list that bears it. */
static enum fl_status write_list(const struct fl_authority *authority, struct fl_member_list *list,
                                 const char *path, struct fl_error *error)
{
    uint64_t number = 0;
    struct fl_buf text;
    fl_buf_init(&text, FL_MEMBERS_TEXT_MAX);
    enum fl_status status = read_number(&number, error);
    if (status == FL_OK) {
        status = fl_member_list_sign(list, number + 1, authority, &text);
        if (status != FL_OK)
            (void)fl_fail(error, status, "signing the list failed");
    }
    if (status == FL_OK)
        status = write_number(number + 1, error);
    if (status == FL_OK)
        status = fl_fs_write(path, text.data, text.length, 0644, error);
    fl_buf_free(&text);
    return status;
}

static json_t *members_json(const struct fl_member_list *list)
{
    json_t *rows = json_array();
    char identity[FL_IDENTITY_TEXT_BYTES];
    for (uint32_t i = 0; rows && i < list->count; i++) {
        const struct fl_member *m = &list->members[i];
        fl_identity_encode(&m->identity, identity);
        if (json_array_append_new(rows, json_pack("{s:s, s:s, s:s}", "name", m->name, "identity",
                                                  identity, "state",
                                                  m->revoked ? "revoked" : "member")) != 0) {
            json_decref(rows);
            return NULL;
        }
    }
    return rows;
}

static enum fl_status print_list_json(const struct fl_member_list *list, struct fl_error *error)
{
    char key[FL_AUTHORITY_TEXT_BYTES], digits[FL_FINGERPRINT_TEXT_BYTES];
    fl_authority_encode(list->authority, key);
    fl_authority_fingerprint(list->authority, digits);
    json_t *rows = members_json(list);
    if (!rows)
        return fl_fail_memory(error);
    return print_json(json_pack("{s:I, s:s, s:s, s:o}", "number", (json_int_t)list->number,
                                "authority", key, "fingerprint", digits, "members", rows),
                      error);
}

enum fl_status fl_roster_print(const struct fl_member_list *list, bool json, struct fl_error *error)
{
    char digits[FL_FINGERPRINT_TEXT_BYTES];
    const uint32_t revoked = fl_member_list_revoked(list);
    if (json)
        return print_list_json(list, error);
    fl_authority_fingerprint(list->authority, digits);
    (void)printf("list %" PRIu64 " of authority %s: %u members, %u revoked\n", list->number, digits,
                 list->count - revoked, revoked);
    return FL_OK;
}

static enum fl_status sign_list(const char *from, const char *to, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_member_list list = {0};
    struct fl_authority *authority = NULL;
    int lock = -1;
    enum fl_status status = read_members(from, &list, error);
    if (status == FL_OK)
        status = fl_path_join(path, directory, "authority.key", error);
    if (status == FL_OK)
        status = fl_authority_load(path, &authority, error);
    if (status == FL_OK)
        status = lock_directory(&lock, error);
    if (status == FL_OK)
        status = write_list(authority, &list, to, error);
    if (status == FL_OK)
        status = fl_roster_print(&list, as_json, error);
    if (lock >= 0)
        (void)close(lock);
    fl_authority_destroy(&authority);
    fl_member_list_free(&list);
    return status;
}

static int run_sign(int argc, char **argv)
{
    const char *from = NULL, *to = NULL;
    const struct fl_option options[] = {
        DIR_OPTION,
        {.name = "--list",
         .value = "FILE",
         .kind = FL_OPTION_STRING,
         .target = &from,
         .required = true,
         .doc = "one member a line: NAME IDENTITY [revoked]; '#' begins a comment"},
        {.name = "--out",
         .value = "FILE",
         .kind = FL_OPTION_STRING,
         .target = &to,
         .required = true,
         .doc = "the signed list, to be given to every site"},
        JSON_OPTION,
    };
    const struct fl_usage usage = {
        .program = PROGRAM " sign",
        .summary = "Sign a list of members under the next number. Sites refuse an older list than\n"
                   "one they have taken, so a list holds all members, not the changes.",
        .example = PROGRAM " sign --dir authority --list members.txt --out roster.txt",
        OPTIONS_OF(options)};
    int code;
    struct fl_error error = {0};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    return finish(usage.program, sign_list(from, to, &error), &error);
}

/* ---- verify and show ---- */

/* authority may be NULL: any */
static enum fl_status read_signed(const char *path, const uint8_t *authority,
                                  struct fl_member_list *out, struct fl_error *error)
{
    struct fl_buf text;
    enum fl_status status = fl_fs_read(path, FL_MEMBERS_TEXT_MAX, &text, error);
    if (status == FL_ERANGE)
        status = fl_fail(error, FL_EFORMAT, "%s: too long for a list of members", path);
    else if (status == FL_OK) {
        status = fl_member_list_verify(fl_buf_text(&text), text.length, authority, out, error);
        if (status != FL_OK)
            fl_error_prefix(error, "%s", path);
    }
    fl_buf_free(&text);
    return status;
}

static enum fl_status verify_list(const char *path, const char *key, uint64_t at_least,
                                  struct fl_error *error)
{
    struct fl_member_list list = {0};
    uint8_t authority[FL_KEY_BYTES];
    enum fl_status status = fl_authority_parse(key, authority, error);
    if (status == FL_OK)
        status = read_signed(path, authority, &list, error);
    if (status == FL_OK && list.number < at_least)
        status = fl_fail(error, FL_EREFUSED, "%s: list %" PRIu64 " is older than list %" PRIu64,
                         path, list.number, at_least);
    if (status == FL_OK)
        status = fl_roster_print(&list, as_json, error);
    fl_member_list_free(&list);
    return status;
}

static int run_verify(int argc, char **argv)
{
    const char *path = NULL, *key = NULL;
    uint64_t at_least = 1;
    const struct fl_option options[] = {
        {.name = "--authority",
         .value = "KEY",
         .kind = FL_OPTION_STRING,
         .target = &key,
         .required = true,
         .doc = "the authority's public key, fla1:..., as `roster init` prints it"},
        {.name = "--at-least",
         .value = "N",
         .kind = FL_OPTION_U64,
         .target = &at_least,
         .low = 1,
         .high = 1e15,
         .doc = "refuse a list with a smaller number"},
        JSON_OPTION,
    };
    const struct fl_positional positionals[] = {
        {.name = "FILE", .target = &path, .doc = "a signed list"}};
    const struct fl_usage usage = {
        .program = PROGRAM " verify",
        .summary = "Hold a signed list against an authority's public key. Exit 3: not a list;\n"
                   "4: another authority, a signature that does not fit, or too old a list.",
        .example = PROGRAM " verify roster.txt --authority fla1:...",
        OPTIONS_OF(options),
        .positionals = positionals,
        .positional_count = 1};
    int code;
    struct fl_error error = {0};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    return finish(usage.program, verify_list(path, key, at_least, &error), &error);
}

static enum fl_status print_members(const struct fl_member_list *list, struct fl_error *error)
{
    char text[FL_IDENTITY_TEXT_BYTES];
    const enum fl_status status = fl_roster_print(list, as_json, error);
    for (uint32_t i = 0; status == FL_OK && !as_json && i < list->count; i++) {
        const struct fl_member *m = &list->members[i];
        fl_identity_encode(&m->identity, text);
        (void)printf("%-24s %-8s %s\n", m->name, m->revoked ? "revoked" : "member", text);
    }
    return status;
}

static int run_show(int argc, char **argv)
{
    const char *path = NULL;
    const struct fl_option options[] = {JSON_OPTION};
    const struct fl_positional positionals[] = {
        {.name = "FILE", .target = &path, .doc = "a signed list"}};
    const struct fl_usage usage = {
        .program = PROGRAM " show",
        .summary = "What a signed list says. The signature must fit, but whose it is only\n"
                   "`roster verify` tells, or the fingerprint, compared by telephone.",
        .example = PROGRAM " show roster.txt",
        OPTIONS_OF(options),
        .positionals = positionals,
        .positional_count = 1};
    int code;
    struct fl_error error = {0};
    struct fl_member_list list = {0};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    enum fl_status status = read_signed(path, NULL, &list, &error);
    if (status == FL_OK)
        status = print_members(&list, &error);
    fl_member_list_free(&list);
    return finish(usage.program, status, &error);
}

int fl_cmd_roster(int argc, char **argv)
{
    static const struct fl_command rows[] = {
        {"init", "make the authority's key, print its public key and fingerprint", run_init},
        {"sign", "sign a list of members under the next number", run_sign},
        {"verify", "hold a signed list against the authority's public key", run_verify},
        {"show", "what a signed list says", run_show},
        {"accept", "at a site: take a signed list, which its cohorts are held against",
         fl_roster_run_accept},
        {"pin", "at a site: pin a partner's identity by hand", fl_roster_run_pin},
        {"unpin", "at a site: forget a partner's identity", fl_roster_run_unpin},
    };
    return fl_cli_main(PROGRAM, "the consortium's authority, its signed list of members, pins",
                       rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
}

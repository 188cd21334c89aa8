/* audit_command.c - `audit verify` of both programs. */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/cli.h"
#include "base/fs.h"
#include "base/json.h"
#include "crypto/audit_keys.h"

/* The key that --key names, else that of the directory; *known is false where there is neither. */
static enum fl_status find_key(const struct fl_audit_place *place, const char *directory,
                               const char *text, uint8_t key[FL_AUDIT_KEY_BYTES], bool *known,
                               struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_keys *keys = NULL;
    *known = true;
    if (text)
        return fl_audit_key_parse(text, key, error);
    enum fl_status status = fl_path_join(path, directory, place->key_file, error);
    if (status == FL_OK)
        status = fl_keys_load(path, &keys, error);
    if (status == FL_OK)
        memcpy(key, fl_keys_public(keys)->ed25519, FL_AUDIT_KEY_BYTES);
    fl_keys_destroy(&keys);
    *known = status == FL_OK;
    return status == FL_ENOTFOUND ? FL_OK : status; /* a copy of a log, without its keys */
}

static json_t *text_or_null(bool known, const char *text)
{
    return known ? json_string(text) : json_null();
}

static int print_json(const struct fl_audit_report *r, bool pinned, enum fl_status status,
                      const struct fl_error *error)
{
    char hash[FL_HASH_HEX_BYTES], key[FL_HASH_HEX_BYTES];
    bool good = status == FL_OK;
    fl_hex(r->last, FL_HASH_BYTES, hash);
    fl_hex(r->key, FL_AUDIT_KEY_BYTES, key);
    json_t *out = json_pack(
        "{s:b, s:I, s:I, s:b, s:o, s:b, s:s, s:o, s:o, s:b, s:b, s:o, s:o}", "good", (int)good,
        "lines", (json_int_t)r->lines, "unsigned_lines", (json_int_t)r->unsigned_lines, "signed",
        (int)r->is_signed, "key", text_or_null(r->is_signed, key), "key_known", (int)pinned, "hash",
        hash, "first", text_or_null(r->lines > 0, r->first_time), "last",
        text_or_null(r->lines > 0, r->last_time), "ahead_of_head", (int)r->ahead, "torn",
        (int)r->torn, "broken_line", r->broken ? json_integer((json_int_t)r->broken) : json_null(),
        "reason", text_or_null(!good, error->text));
    int code = out && fl_json_print(out) == FL_OK ? 0 : 1;
    json_decref(out);
    return code;
}

static void print_words(const struct fl_audit_report *r, bool pinned)
{
    char hash[FL_HASH_HEX_BYTES], key[FL_HASH_HEX_BYTES];
    fl_hex(r->last, FL_HASH_BYTES, hash);
    fl_hex(r->key, FL_AUDIT_KEY_BYTES, key);
    (void)printf("%llu lines, the chain holds%s\n", (unsigned long long)r->lines,
                 r->is_signed ? " and is signed" : "; it is NOT signed");
    if (r->lines > 0)
        (void)printf("first  %s\nlast   %s\nhash   %s\n", r->first_time, r->last_time, hash);
    if (r->is_signed)
        (void)printf("key    %s%s\n", key,
                     pinned ? "" : "   (compare it: no --key, and no keys in this directory)");
    if (r->is_signed && r->unsigned_lines > 0)
        (void)printf("the first %llu lines were written before logs were signed; what they say is "
                     "vouched for from line %llu on\n",
                     (unsigned long long)r->unsigned_lines,
                     (unsigned long long)r->unsigned_lines + 1);
    if (r->ahead || r->torn)
        (void)printf("its end was being written, or a crash cut it short: no sign of tampering\n");
}

int fl_audit_verify_command(const struct fl_audit_place *place, int argc, char **argv)
{
    const char *directory = NULL, *text = NULL;
    bool as_json = false, pinned = false;
    char path[FL_PATH_BYTES];
    uint8_t key[FL_AUDIT_KEY_BYTES];
    struct fl_audit_report report = {0};
    struct fl_error error = {FL_OK, ""};
    int code;
    const struct fl_option options[] = {
        {.name = "--dir",
         .value = place->value,
         .kind = FL_OPTION_STRING,
         .target = &directory,
         .required = true,
         .doc = place->doc},
        {.name = "--key",
         .value = "HEX|fl1:...",
         .kind = FL_OPTION_STRING,
         .target = &text,
         .doc = "who must have signed it, where the directory holds a copy of audit.log and "
                "audit.log.head without the keys"},
        {.name = "--json", .kind = FL_OPTION_FLAG, .target = &as_json, .doc = "print JSON"},
    };
    const struct fl_usage usage = {
        .program = place->program,
        .summary = "Check audit.log: hash chain, signatures, and that nothing is missing at its\n"
                   "end. Exit 0: good; 3: broken, with the line.",
        .options = options,
        .option_count = sizeof(options) / sizeof(options[0])};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    enum fl_status status = find_key(place, directory, text, key, &pinned, &error);
    if (status == FL_OK)
        status = fl_path_join(path, directory, "audit.log", &error);
    if (status != FL_OK)
        return fl_cli_fail(place->program, &error);
    status = fl_audit_verify(path, pinned ? key : NULL, fl_audit_check_ed25519, &report, &error);
    if (status == FL_OK && text && !report.is_signed) {
        report.broken = 1;
        status = fl_fail(&error, FL_EFORMAT, "%s:1: no line is signed, by that key or another",
                         path);
    }
    code = 0;
    if (as_json && (status == FL_OK || status == FL_EFORMAT))
        code = print_json(&report, pinned, status, &error);
    else if (status == FL_OK)
        print_words(&report, pinned);
    return status == FL_OK ? code : fl_cli_fail(place->program, &error);
}

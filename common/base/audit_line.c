/*
 * audit_line.c - see audit_internal.h. A signature stands last in its object and has a fixed
 * length, so that what it covers is all that stands before it, byte for byte.
 */
#include <string.h>

#include "base/audit_internal.h"
#include "base/fs.h"
#include "base/json.h"

#define SIGNATURE_KEY   ",\"sig\":\""
#define SIGNATURE_END   "\"}"
#define SIGNATURE_HEX   (2 * FL_AUDIT_SIGNATURE_BYTES)
#define SIGNATURE_BYTES (sizeof(SIGNATURE_KEY) - 1 + SIGNATURE_HEX + sizeof(SIGNATURE_END) - 1)
#define HEAD_BYTES_MAX  1024

/* The signature at the end of an object; false: it has none. */
static bool split(const char *text, size_t length, size_t *signed_bytes,
                  uint8_t signature[FL_AUDIT_SIGNATURE_BYTES])
{
    char hex[SIGNATURE_HEX + 1];
    if (length < SIGNATURE_BYTES)
        return false;
    const char *from = text + length - SIGNATURE_BYTES;
    if (memcmp(from, SIGNATURE_KEY, sizeof(SIGNATURE_KEY) - 1) != 0 ||
        memcmp(text + length - 2, SIGNATURE_END, 2) != 0)
        return false;
    memcpy(hex, from + sizeof(SIGNATURE_KEY) - 1, SIGNATURE_HEX);
    hex[SIGNATURE_HEX] = '\0';
    *signed_bytes = length - SIGNATURE_BYTES;
    return fl_unhex(hex, signature, FL_AUDIT_SIGNATURE_BYTES) == FL_OK;
}

bool fl_audit_is_torn(const char *text, size_t length)
{
    const uint8_t *bytes = (const uint8_t *)text;
    bool ends = false, odd = false;
    for (size_t i = 0; i < length; i++) {
        ends = ends || bytes[i] == '\n';
        odd = odd || (bytes[i] != '\n' && (bytes[i] < 0x20 || bytes[i] >= 0x7f));
    }
    return odd || !ends;
}

void fl_audit_sign(struct fl_buf *text, const char *label, const struct fl_audit_signer *signer)
{
    uint8_t signature[FL_AUDIT_SIGNATURE_BYTES];
    char hex[SIGNATURE_HEX + 1];
    if (fl_buf_status(text) != FL_OK)
        return;
    signer->sign(signer->context, label, text->data, text->length, signature);
    fl_hex(signature, sizeof(signature), hex);
    fl_buf_printf(text, SIGNATURE_KEY "%s" SIGNATURE_END "\n", hex);
}

static enum fl_status hex_member(const json_t *object, const char *name, uint8_t *out)
{
    const char *hex = json_string_value(json_object_get(object, name));
    return hex ? fl_unhex(hex, out, FL_HASH_BYTES) : FL_EFORMAT;
}

static enum fl_status line_of(const json_t *object, struct fl_audit_line *out)
{
    json_int_t number = json_integer_value(json_object_get(object, "seq"));
    const char *time = json_string_value(json_object_get(object, "ts"));
    const char *event = json_string_value(json_object_get(object, "event"));
    if (number < 1 || !time || strlen(time) >= sizeof(out->time) || !event)
        return FL_EFORMAT;
    out->seq = (uint64_t)number;
    memcpy(out->time, time, strlen(time) + 1);
    out->names_key = out->is_signed && strcmp(event, FL_AUDIT_KEY_EVENT) == 0;
    if (out->names_key && hex_member(object, "key", out->key) != FL_OK)
        return FL_EFORMAT;
    return hex_member(object, "prev", out->prev);
}

enum fl_status fl_audit_parse(const char *line, size_t length, const char *what,
                              struct fl_audit_line *out, struct fl_error *error)
{
    json_t *object = NULL;
    memset(out, 0, sizeof(*out));
    if (length >= FL_AUDIT_LINE_BYTES)
        return fl_fail(error, FL_EFORMAT, "%s: the line is too long", what);
    enum fl_status status = fl_json_parse(line, length, what, &object, error);
    if (status != FL_OK)
        return status;
    out->is_signed = split(line, length, &out->signed_bytes, out->signature);
    if (line_of(object, out) != FL_OK)
        status = fl_fail(error, FL_EFORMAT, "%s: not a line of an audit log", what);
    json_decref(object);
    return status;
}

/* ---- heads ---- */

static enum fl_status head_path(const char *path, char *out, struct fl_error *error)
{
    int length = snprintf(out, FL_PATH_BYTES, "%s.head", path);
    return length > 0 && length < FL_PATH_BYTES ? FL_OK
                                                : fl_fail(error, FL_ERANGE, "path too long");
}

static enum fl_status head_of(const struct fl_buf *text, const char *path, fl_audit_check check,
                              struct fl_audit_head *out, struct fl_error *error)
{
    json_t *object = NULL;
    size_t length = text->length, signed_bytes = 0;
    const char *bytes = fl_buf_text(text);
    uint8_t signature[FL_AUDIT_SIGNATURE_BYTES];
    if (length > 0 && bytes[length - 1] == '\n')
        length--;
    enum fl_status status = fl_json_parse(bytes, length, path, &object, error);
    if (status != FL_OK)
        return status;
    json_int_t lines = json_integer_value(json_object_get(object, "lines"));
    if (lines < 1 || hex_member(object, "hash", out->last) != FL_OK ||
        hex_member(object, "key", out->key) != FL_OK ||
        !split(bytes, length, &signed_bytes, signature))
        status = fl_fail(error, FL_EFORMAT, "%s: not the head of an audit log", path);
    else if (!check(out->key, FL_AUDIT_HEAD_LABEL, bytes, signed_bytes, signature))
        status = fl_fail(error, FL_EFORMAT, "%s: its signature is not good", path);
    out->lines = (uint64_t)lines;
    json_decref(object);
    return status;
}

enum fl_status fl_audit_head_read(const char *path, fl_audit_check check, struct fl_audit_head *out,
                                  struct fl_error *error)
{
    char name[FL_PATH_BYTES];
    struct fl_buf text;
    memset(out, 0, sizeof(*out));
    enum fl_status status = head_path(path, name, error);
    if (status != FL_OK)
        return status;
    status = fl_fs_read(name, HEAD_BYTES_MAX, &text, error);
    if (status == FL_ERANGE)
        status = fl_fail(error, FL_EFORMAT, "%s: too long for the head of an audit log", name);
    if (status == FL_OK) {
        out->exists = true;
        status = head_of(&text, name, check, out, error);
    } else if (status == FL_ENOTFOUND)
        status = FL_OK;
    fl_buf_free(&text);
    return status;
}

enum fl_status fl_audit_head_write(const char *path, uint64_t lines,
                                   const uint8_t last[FL_HASH_BYTES],
                                   const struct fl_audit_signer *signer, struct fl_error *error)
{
    char name[FL_PATH_BYTES], hash[FL_HASH_HEX_BYTES], key[FL_HASH_HEX_BYTES];
    struct fl_buf text;
    enum fl_status status = head_path(path, name, error);
    if (status != FL_OK)
        return status;
    fl_hex(last, FL_HASH_BYTES, hash);
    fl_hex(signer->key, FL_AUDIT_KEY_BYTES, key);
    fl_buf_init(&text, HEAD_BYTES_MAX);
    fl_buf_printf(&text, "{\"lines\":%llu,\"hash\":\"%s\",\"key\":\"%s\"",
                  (unsigned long long)lines, hash, key);
    fl_audit_sign(&text, FL_AUDIT_HEAD_LABEL, signer);
    status = fl_buf_status(&text);
    if (status != FL_OK)
        status = fl_fail_memory(error);
    else
        status = fl_fs_write(name, text.data, text.length, 0600, error);
    fl_buf_free(&text);
    return status;
}

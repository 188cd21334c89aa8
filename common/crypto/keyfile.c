/*
 * keyfile.c - key files: one line "LABEL base64(secret bytes || first 8 bytes of their BLAKE2b)".
 *
 * File and directory are judged by their open descriptors (no race between look and read): who
 * may write the directory may put another key in the place of ours. The file is made as a
 * temporary and given its name by link(), which fails where the name exists: two processes that
 * start at once cannot replace each other's keys.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/hash.h"
#include "crypto/keys_internal.h"

#define KEYS_LABEL     "fedlora-keys-v1 "
#define BOX_LABEL      "fedlora-box-v1 "
#define CHECKSUM_BYTES 8
#define SECRETS_MAX    64
#define TEXT_MAX       FL_SECRET_TEXT_BYTES

static enum fl_status check_descriptor(int fd, const char *path, struct fl_error *error)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return fl_fail_errno(error, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return fl_fail(error, FL_EREFUSED, "%s: a key file must be a regular file", path);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return fl_fail(error, FL_EREFUSED, "%s: the key file belongs to another user (uid %lu)",
                       path, (unsigned long)st.st_uid);
    /* service managers hand keys over as root's files that a group may read */
    const mode_t forbidden = st.st_uid == 0 ? 0037 : 0077;
    if ((st.st_mode & forbidden) != 0)
        return fl_fail(error, FL_EREFUSED,
                       "%s: others may read or write the key file; run: chmod 600 %s", path, path);
    return FL_OK;
}

/* Open the directory that holds path, if only we and root can change what lies there. */
static enum fl_status open_directory(const char *path, int *fd, struct fl_error *error)
{
    char directory[FL_PATH_BYTES];
    struct stat st;
    const size_t stem = (size_t)(fl_path_base(path) - path);
    *fd = -1;
    if (stem >= sizeof(directory))
        return fl_fail(error, FL_ERANGE, "%s: the path is too long", path);
    memcpy(directory, stem ? path : ".", stem ? stem : 1);
    directory[stem ? stem : 1] = '\0';
    *fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0 || fstat(*fd, &st) != 0)
        return fl_fail_errno(error, errno, "%s", path);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return fl_fail(error, FL_EREFUSED,
                       "%s: the key file lies in a directory of another user (uid %lu)", path,
                       (unsigned long)st.st_uid);
    /* in a sticky directory, such as /tmp, nobody can rename or remove what is another's */
    if ((st.st_mode & 0022) != 0 && !(st.st_mode & S_ISVTX))
        return fl_fail(error, FL_EREFUSED,
                       "%s: others may write the directory of the key file; run: chmod go-w %s",
                       path, directory);
    return FL_OK;
}

/* text has TEXT_MAX bytes */
static enum fl_status read_text(const char *path, char *text, struct fl_error *error)
{
    int directory;
    enum fl_status status = open_directory(path, &directory, error);
    if (status != FL_OK) {
        if (directory >= 0)
            (void)close(directory);
        return status;
    }
    const int fd = openat(directory, fl_path_base(path),
                          O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    const int reason = errno;
    (void)close(directory);
    errno = reason;
    if (fd < 0 && errno == ELOOP)
        return fl_fail(error, FL_EREFUSED, "%s: a key file must not be a symbolic link", path);
    if (fd < 0)
        return fl_fail_errno(error, errno, "%s", path);
    status = check_descriptor(fd, path, error);
    size_t length = 0;
    while (status == FL_OK && length < TEXT_MAX - 1) {
        const ssize_t n = read(fd, text + length, TEXT_MAX - 1 - length);
        if (n == 0)
            break;
        if (n > 0)
            length += (size_t)n;
        else if (errno != EINTR)
            status = fl_fail_errno(error, errno, "%s", path);
    }
    text[length] = '\0';
    (void)close(fd);
    return status;
}

enum fl_status fl_secret_text_load(const char *path, char *text, struct fl_error *error)
{
    enum fl_status status = read_text(path, text, error);
    if (status == FL_OK && strlen(text) == TEXT_MAX - 1)
        status = fl_fail(error, FL_ERANGE, "%s: the file is too long", path);
    if (status != FL_OK)
        sodium_memzero(text, TEXT_MAX);
    return status;
}

static void checksum(const char *label, const uint8_t *secrets, size_t length,
                     uint8_t out[CHECKSUM_BYTES])
{
    struct fl_blake2b hash;
    uint8_t full[FL_HASH_BYTES];
    fl_blake2b_init(&hash, NULL, 0);
    fl_blake2b_update(&hash, label, strlen(label));
    fl_blake2b_update(&hash, secrets, length);
    fl_blake2b_final(&hash, full);
    memcpy(out, full, CHECKSUM_BYTES);
    sodium_memzero(full, sizeof(full));
}

enum fl_status fl_keyfile_load(const char *path, const char *label, uint8_t *secrets, size_t length,
                               struct fl_error *error)
{
    char text[TEXT_MAX];
    uint8_t raw[SECRETS_MAX + CHECKSUM_BYTES], sum[CHECKSUM_BYTES];
    size_t got = 0;
    const size_t prefix = strlen(label);
    enum fl_status status = read_text(path, text, error);
    if (status != FL_OK)
        goto out;
    status = FL_EFORMAT;
    if (strncmp(text, label, prefix) == 0 &&
        sodium_base642bin(raw, sizeof(raw), text + prefix, strlen(text + prefix), "\r\n", &got,
                          NULL, sodium_base64_VARIANT_ORIGINAL) == 0 &&
        got == length + CHECKSUM_BYTES) {
        checksum(label, raw, length, sum);
        if (sodium_memcmp(sum, raw + length, CHECKSUM_BYTES) == 0)
            status = FL_OK;
    }
    if (status == FL_OK)
        memcpy(secrets, raw, length);
    else
        (void)fl_fail(error, FL_EFORMAT, "%s: not a key file of this version, or damaged", path);
out:
    sodium_memzero(text, sizeof(text));
    sodium_memzero(raw, sizeof(raw));
    sodium_memzero(sum, sizeof(sum));
    return status;
}

/* Write the temporary beside path and give it its name, if the name is free. */
static enum fl_status write_new(const char *path, const char *text, struct fl_error *error)
{
    char temporary[FL_PATH_BYTES];
    int directory;
    if (strlen(path) + 8 >= sizeof(temporary))
        return fl_fail(error, FL_ERANGE, "%s: the path is too long", path);
    enum fl_status status = open_directory(path, &directory, error);
    if (status != FL_OK)
        goto out;
    memcpy(temporary, path, strlen(path));
    memcpy(temporary + strlen(path), ".XXXXXX", 8);

    const int fd = mkostemp(temporary, O_CLOEXEC); /* 0600 */
    if (fd < 0) {
        status = fl_fail_errno(error, errno, "%s", temporary);
        goto out;
    }
    status = fl_fs_write_all(fd, text, strlen(text));
    if (status == FL_OK)
        status = fl_fs_sync(fd);
    if (status != FL_OK)
        (void)fl_fail(error, status, "%s: the key file can't be written", path);
    else if (link(temporary, path) != 0)
        status = fl_fail_errno(error, errno, "%s", path);
    (void)close(fd);
    (void)unlink(temporary);
    if (status == FL_OK && fl_fs_sync(directory) != FL_OK)
        status = fl_fail_errno(error, errno, "fsync of the directory of %s", path);
out:
    if (directory >= 0)
        (void)close(directory);
    return status;
}

enum fl_status fl_keyfile_save(const char *path, const char *label, const uint8_t *secrets,
                               size_t length, struct fl_error *error)
{
    char text[TEXT_MAX];
    uint8_t raw[SECRETS_MAX + CHECKSUM_BYTES];
    const size_t prefix = strlen(label);
    memcpy(raw, secrets, length);
    checksum(label, secrets, length, raw + length);
    memcpy(text, label, prefix);
    sodium_bin2base64(text + prefix, sizeof(text) - prefix - 1, raw, length + CHECKSUM_BYTES,
                      sodium_base64_VARIANT_ORIGINAL);
    const size_t end = strlen(text);
    text[end] = '\n';
    text[end + 1] = '\0';
    const enum fl_status status = write_new(path, text, error);
    sodium_memzero(text, sizeof(text));
    sodium_memzero(raw, sizeof(raw));
    return status;
}

enum fl_status fl_keys_load(const char *path, struct fl_keys **out, struct fl_error *error)
{
    *out = NULL;
    uint8_t secrets[2 * FL_KEY_BYTES];
    struct fl_keys *self = fl_secret_malloc(sizeof(*self));
    if (!self)
        return fl_fail_memory(error);
    enum fl_status status = fl_keyfile_load(path, KEYS_LABEL, secrets, sizeof(secrets), error);
    if (status == FL_OK) {
        memcpy(self->x25519_secret, secrets, FL_KEY_BYTES);
        memcpy(self->ed25519_seed, secrets + FL_KEY_BYTES, FL_KEY_BYTES);
        status = fl_keys_derive(self);
        if (status != FL_OK)
            (void)fl_fail(error, status, "%s: the keys are unusable", path);
    }
    sodium_memzero(secrets, sizeof(secrets));
    if (status != FL_OK)
        sodium_free(self);
    else
        *out = self;
    return status;
}

enum fl_status fl_keys_save(const struct fl_keys *self, const char *path, struct fl_error *error)
{
    uint8_t secrets[2 * FL_KEY_BYTES];
    memcpy(secrets, self->x25519_secret, FL_KEY_BYTES);
    memcpy(secrets + FL_KEY_BYTES, self->ed25519_seed, FL_KEY_BYTES);
    const enum fl_status status = fl_keyfile_save(path, KEYS_LABEL, secrets, sizeof(secrets),
                                                  error);
    sodium_memzero(secrets, sizeof(secrets));
    return status;
}

enum fl_status fl_keys_load_or_make(const char *path, const struct fl_entropy *entropy,
                                    struct fl_keys **out, struct fl_error *error)
{
    enum fl_status status = fl_keys_load(path, out, error);
    if (status != FL_ENOTFOUND)
        return status;
    status = fl_keys_generate(entropy, out);
    if (status != FL_OK)
        return fl_fail_memory(error);
    status = fl_keys_save(*out, path, error);
    if (status == FL_OK)
        return FL_OK;
    fl_keys_destroy(out);
    /* another process was quicker: its keys are the site's */
    return status == FL_EEXIST ? fl_keys_load(path, out, error) : status;
}

enum fl_status fl_box_keys_load(const char *path, struct fl_box_keys **out, struct fl_error *error)
{
    *out = NULL;
    struct fl_box_keys *self = fl_secret_malloc(sizeof(*self));
    if (!self)
        return fl_fail_memory(error);
    enum fl_status status = fl_keyfile_load(path, BOX_LABEL, self->secret_key, FL_KEY_BYTES, error);
    if (status == FL_OK) {
        status = fl_box_keys_derive(self);
        if (status != FL_OK)
            (void)fl_fail(error, status, "%s: the key is unusable", path);
    }
    if (status != FL_OK)
        sodium_free(self);
    else
        *out = self;
    return status;
}

enum fl_status fl_box_keys_save(const struct fl_box_keys *self, const char *path,
                                struct fl_error *error)
{
    return fl_keyfile_save(path, BOX_LABEL, self->secret_key, FL_KEY_BYTES, error);
}

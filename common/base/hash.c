/* hash.c - see hash.h. libsodium's calls return int for form only: with these sizes none can fail.
 */
#include "base/hash.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

#define FL_HASH_PIECE_BYTES (1u << 20)

void fl_hash_init(void)
{
    if (sodium_init() < 0) {
        fputs("fedlora: no usable source of random numbers\n", stderr);
        abort();
    }
}

void fl_sha256_init(struct fl_sha256 *self)
{
    crypto_hash_sha256_init(&self->state);
}

void fl_sha256_update(struct fl_sha256 *self, const void *bytes, size_t length)
{
    crypto_hash_sha256_update(&self->state, bytes, length);
}

void fl_sha256_final(struct fl_sha256 *self, uint8_t out[FL_HASH_BYTES])
{
    crypto_hash_sha256_final(&self->state, out);
}

void fl_sha256(const void *bytes, size_t length, uint8_t out[FL_HASH_BYTES])
{
    crypto_hash_sha256(out, bytes, length);
}

/* Hash fd to its end through piece. */
static enum fl_status hash_stream(int fd, uint8_t *piece, uint8_t out[FL_HASH_BYTES])
{
    struct fl_sha256 state;
    fl_sha256_init(&state);
    for (;;) {
        ssize_t got = read(fd, piece, FL_HASH_PIECE_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return FL_EIO;
        if (got == 0)
            break;
        fl_sha256_update(&state, piece, (size_t)got);
    }
    fl_sha256_final(&state, out);
    return FL_OK;
}

enum fl_status fl_sha256_file(const char *path, uint8_t out[FL_HASH_BYTES], struct fl_error *error)
{
    enum fl_status status = FL_OK;
    uint8_t *piece = NULL;
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return fl_fail_errno(error, errno, "%s", path);
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        status = fl_fail(error, FL_EIO, "%s: not a regular file", path);
        goto out;
    }
    piece = fl_malloc(FL_HASH_PIECE_BYTES);
    if (!piece) {
        status = fl_fail_memory(error);
        goto out;
    }
    status = hash_stream(fd, piece, out);
    if (status != FL_OK)
        fl_fail_errno(error, errno, "reading %s", path);
out:
    fl_free(piece);
    close(fd);
    return status;
}

void fl_blake2b_init(struct fl_blake2b *self, const void *key, size_t key_length)
{
    assert(key_length <= crypto_generichash_KEYBYTES_MAX);
    crypto_generichash_init(&self->state, key, key_length, FL_HASH_BYTES);
}

void fl_blake2b_update(struct fl_blake2b *self, const void *bytes, size_t length)
{
    crypto_generichash_update(&self->state, bytes, length);
}

void fl_blake2b_final(struct fl_blake2b *self, uint8_t out[FL_HASH_BYTES])
{
    crypto_generichash_final(&self->state, out, FL_HASH_BYTES);
    sodium_memzero(self, sizeof(*self)); /* it may have been keyed, or have hashed a secret */
}

void fl_blake2b(const void *bytes, size_t length, uint8_t out[FL_HASH_BYTES])
{
    crypto_generichash(out, FL_HASH_BYTES, bytes, length, NULL, 0);
}

/*
 * sealed.c - see sealed.h. Constant memory: one plain piece and one sealed piece, in guarded
 * memory.
 *
 * Every piece but the last holds exactly FL_SEAL_PIECE_BYTES plain bytes, so the piece borders are
 * known to the reader, and a stream has one sealed form only.
 */
#include "crypto/sealed.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "crypto/keys_internal.h"

#define MAGIC               "FLSEAL01"
#define MAGIC_BYTES         8
#define SEALED_PIECE_BYTES  (FL_SEAL_PIECE_BYTES + FL_SEAL_OVERHEAD_BYTES)
#define STREAM_HEADER_BYTES crypto_secretstream_xchacha20poly1305_HEADERBYTES

static_assert(FL_SEAL_HEADER_BYTES == MAGIC_BYTES + FL_KEY_BYTES + STREAM_HEADER_BYTES,
              "the header's parts");
static_assert(FL_SEAL_OVERHEAD_BYTES == crypto_secretstream_xchacha20poly1305_ABYTES,
              "a piece's overhead");

struct stream {
    crypto_secretstream_xchacha20poly1305_state state;
    uint8_t context[FL_HASH_BYTES]; /* associated data */
    uint8_t plain[FL_SEAL_PIECE_BYTES];
    uint8_t sealed[SEALED_PIECE_BYTES];
};

struct fl_sealer {
    struct stream stream;
    struct fl_seal_sink sink;
    size_t filled; /* of plain */
    bool finished;
};

struct fl_opener {
    struct stream stream;
    int fd; /* -1: memory */
    const uint8_t *memory;
    uint64_t left; /* sealed bytes not yet taken */
    size_t plain_bytes, plain_used;
    bool final;
    enum fl_status failed;
};

uint64_t fl_sealed_size(uint64_t plain_bytes)
{
    /* a stream that fills its last piece ends with an empty FINAL one */
    const uint64_t pieces = plain_bytes / FL_SEAL_PIECE_BYTES + 1;
    return FL_SEAL_HEADER_BYTES + plain_bytes + pieces * FL_SEAL_OVERHEAD_BYTES;
}

static void hash_part(struct fl_blake2b *hash, const void *bytes, size_t length)
{
    uint8_t size[8];
    fl_store_u64(size, length);
    fl_blake2b_update(hash, size, sizeof(size));
    fl_blake2b_update(hash, bytes, length);
}

static void hash_context(const struct fl_seal_context *context,
                         const uint8_t recipient[FL_KEY_BYTES], uint8_t out[FL_HASH_BYTES])
{
    struct fl_blake2b hash;
    uint8_t ids[16];
    fl_store_u64(ids, context->job);
    fl_store_u32(ids + 8, context->round);
    fl_store_u32(ids + 12, context->attempt);
    fl_blake2b_init(&hash, NULL, 0);
    hash_part(&hash, context->purpose, strlen(context->purpose));
    hash_part(&hash, context->sender, strlen(context->sender));
    hash_part(&hash, ids, sizeof(ids));
    hash_part(&hash, context->extra ? context->extra : "", context->extra_bytes);
    hash_part(&hash, recipient, FL_KEY_BYTES);
    fl_blake2b_final(&hash, out);
}

/* FL_EINVAL: the other side's key is weak. */
static enum fl_status derive_key(const uint8_t secret[FL_KEY_BYTES],
                                 const uint8_t other[FL_KEY_BYTES],
                                 const uint8_t ephemeral[FL_KEY_BYTES],
                                 const uint8_t recipient[FL_KEY_BYTES], uint8_t key[FL_HASH_BYTES])
{
    static const char label[] = "fedlora-seal-v1";
    uint8_t shared[FL_KEY_BYTES];
    enum fl_status status = FL_EINVAL;
    if (crypto_scalarmult(shared, secret, other) == 0) {
        struct fl_blake2b hash;
        fl_blake2b_init(&hash, shared, sizeof(shared));
        fl_blake2b_update(&hash, label, sizeof(label) - 1);
        fl_blake2b_update(&hash, ephemeral, FL_KEY_BYTES);
        fl_blake2b_update(&hash, recipient, FL_KEY_BYTES);
        fl_blake2b_final(&hash, key);
        sodium_memzero(&hash, sizeof(hash));
        status = FL_OK;
    }
    sodium_memzero(shared, sizeof(shared));
    return status;
}

/* ------------------------------------------------------------------ sealing */

static enum fl_status to_writer(void *context, const void *bytes, size_t length,
                                struct fl_error *error)
{
    return fl_fs_writer_write(context, bytes, length, error);
}

static enum fl_status to_buf(void *context, const void *bytes, size_t length,
                             struct fl_error *error)
{
    struct fl_buf *buf = context;
    fl_buf_append(buf, bytes, length);
    const enum fl_status status = fl_buf_status(buf);
    return status == FL_OK ? FL_OK : fl_fail(error, status, "the sealed bytes do not fit");
}

struct fl_seal_sink fl_seal_to_writer(struct fl_fs_writer *writer)
{
    return (struct fl_seal_sink){.write = to_writer, .context = writer};
}

struct fl_seal_sink fl_seal_to_buf(struct fl_buf *buf)
{
    return (struct fl_seal_sink){.write = to_buf, .context = buf};
}

static enum fl_status start_stream(struct fl_sealer *self, const uint8_t recipient[FL_KEY_BYTES],
                                   const struct fl_entropy *entropy, struct fl_error *error)
{
    uint8_t header[FL_SEAL_HEADER_BYTES], secret[FL_KEY_BYTES], key[FL_HASH_BYTES];
    uint8_t *ephemeral = header + MAGIC_BYTES;
    memcpy(header, MAGIC, MAGIC_BYTES);
    fl_entropy_bytes(entropy, secret, sizeof(secret));
    enum fl_status status = FL_EINVAL;
    if (crypto_scalarmult_base(ephemeral, secret) == 0)
        status = derive_key(secret, recipient, ephemeral, recipient, key);
    if (status != FL_OK) {
        (void)fl_fail(error, status, "the recipient's key protects nothing");
        goto out;
    }
    /* init_pull() starts the same state as init_push(), but from a header that the seam drew */
    fl_entropy_bytes(entropy, ephemeral + FL_KEY_BYTES, STREAM_HEADER_BYTES);
    if (crypto_secretstream_xchacha20poly1305_init_pull(&self->stream.state,
                                                        ephemeral + FL_KEY_BYTES, key) != 0) {
        status = fl_fail(error, FL_EINVAL, "the stream cipher can't start");
        goto out;
    }
    status = self->sink.write(self->sink.context, header, sizeof(header), error);
out:
    sodium_memzero(secret, sizeof(secret));
    sodium_memzero(key, sizeof(key));
    return status;
}

enum fl_status fl_sealer_open(const uint8_t recipient[FL_KEY_BYTES],
                              const struct fl_seal_context *context,
                              const struct fl_entropy *entropy, struct fl_seal_sink sink,
                              struct fl_sealer **out, struct fl_error *error)
{
    assert(context && context->purpose && context->sender && sink.write);
    *out = NULL;
    struct fl_sealer *self = fl_secret_malloc(sizeof(*self));
    if (!self)
        return fl_fail_memory(error);
    self->sink = sink;
    hash_context(context, recipient, self->stream.context);
    const enum fl_status status = start_stream(self, recipient, entropy, error);
    if (status != FL_OK)
        fl_sealer_close(&self);
    *out = self;
    return status;
}

static enum fl_status push(struct fl_sealer *self, uint8_t tag, struct fl_error *error)
{
    struct stream *s = &self->stream;
    unsigned long long length = 0;
    crypto_secretstream_xchacha20poly1305_push(&s->state, s->sealed, &length, s->plain,
                                               self->filled, s->context, sizeof(s->context), tag);
    self->filled = 0;
    return self->sink.write(self->sink.context, s->sealed, (size_t)length, error);
}

enum fl_status fl_sealer_write(struct fl_sealer *self, const void *bytes, size_t length,
                               struct fl_error *error)
{
    assert(!self->finished);
    const uint8_t *from = bytes;
    while (length > 0) {
        const size_t room = FL_SEAL_PIECE_BYTES - self->filled;
        const size_t n = length < room ? length : room;
        memcpy(self->stream.plain + self->filled, from, n);
        self->filled += n;
        from += n;
        length -= n;
        if (self->filled == FL_SEAL_PIECE_BYTES) {
            const enum fl_status status =
                push(self, crypto_secretstream_xchacha20poly1305_TAG_MESSAGE, error);
            if (status != FL_OK)
                return status;
        }
    }
    return FL_OK;
}

enum fl_status fl_sealer_finish(struct fl_sealer *self, struct fl_error *error)
{
    assert(!self->finished);
    self->finished = true;
    return push(self, crypto_secretstream_xchacha20poly1305_TAG_FINAL, error);
}

void fl_sealer_close(struct fl_sealer **self)
{
    if (!*self)
        return;
    sodium_free(*self);
    *self = NULL;
}

/* ------------------------------------------------------------------ opening */

static enum fl_status take(struct fl_opener *self, uint8_t *out, size_t length,
                           struct fl_error *error)
{
    assert(length <= self->left);
    self->left -= length;
    if (self->fd < 0) {
        memcpy(out, self->memory, length);
        self->memory += length;
        return FL_OK;
    }
    while (length > 0) {
        const ssize_t n = read(self->fd, out, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fl_fail_errno(error, errno, "a sealed file can't be read");
        if (n == 0)
            return fl_fail(error, FL_EFORMAT, "a sealed file became shorter while it was read");
        out += n;
        length -= (size_t)n;
    }
    return FL_OK;
}

static enum fl_status start_open(struct fl_opener *self, const uint8_t public_key[FL_KEY_BYTES],
                                 const uint8_t secret_key[FL_KEY_BYTES], struct fl_error *error)
{
    uint8_t header[FL_SEAL_HEADER_BYTES], key[FL_HASH_BYTES];
    const uint8_t *ephemeral = header + MAGIC_BYTES;
    if (self->left < fl_sealed_size(0))
        return fl_fail(error, FL_EFORMAT, "not sealed bytes: too short");
    enum fl_status status = take(self, header, sizeof(header), error);
    if (status != FL_OK)
        return status;
    if (memcmp(header, MAGIC, MAGIC_BYTES) != 0)
        return fl_fail(error, FL_EFORMAT, "not sealed bytes of this version");
    status = derive_key(secret_key, ephemeral, ephemeral, public_key, key);
    if (status != FL_OK)
        status = fl_fail(error, FL_EFORMAT, "sealed bytes with a key that protects nothing");
    else if (crypto_secretstream_xchacha20poly1305_init_pull(&self->stream.state,
                                                             ephemeral + FL_KEY_BYTES, key) != 0)
        status = fl_fail(error, FL_EFORMAT, "sealed bytes with a bad header");
    sodium_memzero(key, sizeof(key));
    return status;
}

static enum fl_status make_opener(const uint8_t public_key[FL_KEY_BYTES],
                                  const struct fl_seal_context *context, struct fl_opener **out,
                                  struct fl_error *error)
{
    assert(context && context->purpose && context->sender);
    *out = fl_secret_malloc(sizeof(**out));
    if (!*out)
        return fl_fail_memory(error);
    (*out)->fd = -1;
    hash_context(context, public_key, (*out)->stream.context);
    return FL_OK;
}

enum fl_status fl_opener_open(const uint8_t public_key[FL_KEY_BYTES],
                              const uint8_t secret_key[FL_KEY_BYTES],
                              const struct fl_seal_context *context, const void *sealed,
                              size_t length, struct fl_opener **out, struct fl_error *error)
{
    enum fl_status status = make_opener(public_key, context, out, error);
    if (status != FL_OK)
        return status;
    (*out)->memory = sealed;
    (*out)->left = length;
    status = start_open(*out, public_key, secret_key, error);
    if (status != FL_OK)
        fl_opener_close(out);
    return status;
}

static enum fl_status open_sealed_file(struct fl_opener *self, const char *path,
                                       struct fl_error *error)
{
    struct stat st;
    self->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (self->fd < 0 || fstat(self->fd, &st) != 0)
        return fl_fail_errno(error, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return fl_fail(error, FL_EFORMAT, "%s: not a regular file", path);
    self->left = (uint64_t)st.st_size;
    return FL_OK;
}

enum fl_status fl_opener_open_file(const uint8_t public_key[FL_KEY_BYTES],
                                   const uint8_t secret_key[FL_KEY_BYTES],
                                   const struct fl_seal_context *context, const char *path,
                                   struct fl_opener **out, struct fl_error *error)
{
    enum fl_status status = make_opener(public_key, context, out, error);
    if (status != FL_OK)
        return status;
    status = open_sealed_file(*out, path, error);
    if (status == FL_OK) {
        status = start_open(*out, public_key, secret_key, error);
        if (status != FL_OK)
            fl_error_prefix(error, "%s", path);
    }
    if (status != FL_OK)
        fl_opener_close(out);
    return status;
}

/* Decrypt the next piece into plain. */
static enum fl_status pull(struct fl_opener *self, struct fl_error *error)
{
    struct stream *s = &self->stream;
    const bool last = self->left < SEALED_PIECE_BYTES;
    const size_t length = last ? (size_t)self->left : SEALED_PIECE_BYTES;
    if (length < FL_SEAL_OVERHEAD_BYTES)
        return fl_fail(error, FL_EFORMAT, "sealed bytes are cut short");
    const enum fl_status status = take(self, s->sealed, length, error);
    if (status != FL_OK)
        return status;
    unsigned long long got = 0;
    uint8_t tag = 0;
    if (crypto_secretstream_xchacha20poly1305_pull(&s->state, s->plain, &got, &tag, s->sealed,
                                                   length, s->context, sizeof(s->context)) != 0)
        return fl_fail(error, FL_EFORMAT,
                       "sealed bytes were altered, or are meant for another key or context");
    const uint8_t expected = last ? crypto_secretstream_xchacha20poly1305_TAG_FINAL
                                  : crypto_secretstream_xchacha20poly1305_TAG_MESSAGE;
    if (tag != expected)
        return fl_fail(error, FL_EFORMAT, "sealed bytes are cut short or continue past their end");
    self->final = last;
    self->plain_bytes = (size_t)got;
    self->plain_used = 0;
    return FL_OK;
}

enum fl_status fl_opener_read(struct fl_opener *self, void *out, size_t capacity, size_t *got,
                              struct fl_error *error)
{
    uint8_t *to = out;
    *got = 0;
    if (self->failed != FL_OK)
        return fl_fail(error, self->failed, "these sealed bytes are no good");
    while (*got < capacity) {
        if (self->plain_used == self->plain_bytes) {
            if (self->final)
                break;
            self->failed = pull(self, error);
            if (self->failed != FL_OK)
                return self->failed;
            continue;
        }
        const size_t room = capacity - *got, have = self->plain_bytes - self->plain_used;
        const size_t n = room < have ? room : have;
        memcpy(to + *got, self->stream.plain + self->plain_used, n);
        self->plain_used += n;
        *got += n;
    }
    return FL_OK;
}

enum fl_status fl_opener_at_end(struct fl_opener *self, struct fl_error *error)
{
    uint8_t more;
    size_t got = 0;
    const enum fl_status status = fl_opener_read(self, &more, 1, &got, error);
    if (status != FL_OK)
        return status;
    return got == 0 ? FL_OK : fl_fail(error, FL_EFORMAT, "sealed bytes are longer than expected");
}

void fl_opener_close(struct fl_opener **self)
{
    if (!*self)
        return;
    if ((*self)->fd >= 0)
        (void)close((*self)->fd);
    sodium_free(*self);
    *self = NULL;
}

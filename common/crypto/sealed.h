/*
 * sealed.h - the update envelope: a byte stream of any length encrypted to one X25519 key under a
 * context, in constant memory.
 *
 * Sealed form: "FLSEAL01" || ephemeral X25519 public (32) || secretstream header (24) || pieces.
 * A piece is 64 KiB of plain bytes + 17; the last is shorter (maybe of 0 plain bytes) and has the
 * FINAL tag, without which, and beyond which, nothing is accepted.
 * Key = BLAKE2b-256(key = X25519(ephemeral, recipient), "fedlora-seal-v1" || ephemeral ||
 * recipient). Associated data of each piece = BLAKE2b-256 of the context, all length-prefixed, and
 * recipient. Cipher: XChaCha20-Poly1305 secretstream (libsodium). The sender is not authenticated:
 * that is what CURVE and the session are for. Sealing to oneself is sealing to one's own public
 * key. Threads: an object belongs to one thread at a time; sealing may run on the compute thread.
 */
#ifndef FL_CRYPTO_SEALED_H
#define FL_CRYPTO_SEALED_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/status.h"
#include "crypto/entropy.h"
#include "crypto/keys.h"

#define FL_SEAL_PIECE_BYTES    65536
#define FL_SEAL_HEADER_BYTES   64
#define FL_SEAL_OVERHEAD_BYTES 17 /* a piece */

/* What the bytes are and where they belong; both ends must state the same. */
struct fl_seal_context {
    const char *purpose; /* "update", "delta": borrowed */
    const char *sender;  /* the site's name: borrowed */
    uint64_t job;
    uint32_t round, attempt; /* attempt 0 where none is meant */
    const void *extra;       /* more to bind, e.g. a hash; may be NULL */
    size_t extra_bytes;
};

/* The sealed size of plain_bytes. */
uint64_t fl_sealed_size(uint64_t plain_bytes);

/* Where sealed bytes go. Called in order; a failure is passed on to the caller. */
struct fl_seal_sink {
    enum fl_status (*write)(void *context, const void *bytes, size_t length,
                            struct fl_error *error);
    void *context;
};
struct fl_seal_sink fl_seal_to_writer(struct fl_fs_writer *writer);
struct fl_seal_sink fl_seal_to_buf(struct fl_buf *buf);

struct fl_sealer; /* opaque */
/* Writes the header at once. FL_EINVAL: the recipient's key is weak. The caller owns *out. */
FL_CHECKED enum fl_status fl_sealer_open(const uint8_t recipient[FL_KEY_BYTES],
                                         const struct fl_seal_context *context,
                                         const struct fl_entropy *entropy, struct fl_seal_sink sink,
                                         struct fl_sealer **out, struct fl_error *error);
FL_CHECKED enum fl_status fl_sealer_write(struct fl_sealer *self, const void *bytes, size_t length,
                                          struct fl_error *error);
/* The FINAL piece. Nothing may be written afterwards; committing the file is the caller's. */
FL_CHECKED enum fl_status fl_sealer_finish(struct fl_sealer *self, struct fl_error *error);
void fl_sealer_close(struct fl_sealer **self);

struct fl_opener; /* opaque */
/* sealed bytes in memory, borrowed until close */
FL_CHECKED enum fl_status fl_opener_open(const uint8_t public_key[FL_KEY_BYTES],
                                         const uint8_t secret_key[FL_KEY_BYTES],
                                         const struct fl_seal_context *context, const void *sealed,
                                         size_t length, struct fl_opener **out,
                                         struct fl_error *error);
FL_CHECKED enum fl_status fl_opener_open_file(const uint8_t public_key[FL_KEY_BYTES],
                                              const uint8_t secret_key[FL_KEY_BYTES],
                                              const struct fl_seal_context *context,
                                              const char *path, struct fl_opener **out,
                                              struct fl_error *error);
/*
 * Up to capacity plain bytes. *got < capacity only at the end: then the FINAL tag was seen and
 * nothing follows it. What was read before that is authentic but may be a prefix: act on it only
 * when the end is reached (*got < capacity, or fl_opener_at_end()).
 * FL_EFORMAT: another key or context, altered, reordered or cut short. The failure is sticky.
 */
FL_CHECKED enum fl_status fl_opener_read(struct fl_opener *self, void *out, size_t capacity,
                                         size_t *got, struct fl_error *error);
/* FL_OK when every byte was read and the FINAL tag was good; FL_EFORMAT otherwise. */
FL_CHECKED enum fl_status fl_opener_at_end(struct fl_opener *self, struct fl_error *error);
void fl_opener_close(struct fl_opener **self);

#endif

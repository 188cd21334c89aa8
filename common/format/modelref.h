/*
 * modelref.h - the manifest of a base model: one SHA-256 by which sites know that they have the
 * same.
 *
 * Of a GGUF file (or any single file): its SHA-256. Of a directory: the SHA-256 of the sorted lines
 * "sha256 size name\n" over config.json, the tokenizer's files, the *.safetensors and their index.
 * Results are cached in $XDG_CACHE_HOME/fedlora/manifests (or ~/.cache/...), keyed by path, size,
 * modification time and inode of every file; a cache that can't be used is passed over silently.
 * Threads: pure but for the cache, which is written atomically.
 */
#ifndef FL_FORMAT_MODELREF_H
#define FL_FORMAT_MODELREF_H

#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"

/* model: a path, or a name in the cache of hfcache.h.
 * FL_ENOTFOUND, FL_EIO; FL_EFORMAT: a directory with no model in it. */
FL_CHECKED enum fl_status fl_modelref_manifest(const char *model, uint8_t out[FL_HASH_BYTES],
                                               struct fl_error *error);
/* The same, never looking at the cache. */
FL_CHECKED enum fl_status fl_modelref_manifest_fresh(const char *model, uint8_t out[FL_HASH_BYTES],
                                                     struct fl_error *error);

#endif

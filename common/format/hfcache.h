/*
 * hfcache.h - models by name in the cache that Hugging Face's libraries share:
 *
 *   ROOT/models--ORG--NAME/blobs/HASH              a file's bytes (HASH.incomplete: the beginning)
 *                         /snapshots/COMMIT/FILE   link to its blob
 *                         /refs/REVISION           the commit that a branch or tag stood for
 *
 * ROOT is HF_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub or ~/.cache/huggingface/hub,
 * the first that the environment gives. Nothing is
 * downloaded here: `fedlora-worker fetch` does that (worker/download.h).
 * Source: huggingface_hub's cache layout. Threads: reads the environment; no state.
 */
#ifndef FL_FORMAT_HFCACHE_H
#define FL_FORMAT_HFCACHE_H

#include "base/fs.h"
#include "base/status.h"

#define FL_HFCACHE_NAME_BYTES 128

struct fl_hfcache_name {
    char model[FL_HFCACHE_NAME_BYTES];    /* "ORG/NAME", or "NAME" of the oldest models */
    char revision[FL_HFCACHE_NAME_BYTES]; /* "main", a tag or a commit */
};

/* "ORG/NAME[@REVISION]", its parts safe in paths; FL_EUSAGE. */
FL_CHECKED enum fl_status fl_hfcache_parse(const char *text, struct fl_hfcache_name *out,
                                           struct fl_error *error);
/* ROOT/models--ORG--NAME, there or not; FL_ERANGE. */
FL_CHECKED enum fl_status fl_hfcache_directory(const char *root, const struct fl_hfcache_name *name,
                                               char out[FL_PATH_BYTES], struct fl_error *error);

/*
 * Where the model is that a user named: a path stays as it is; "ORG/NAME[@REVISION]" (or the "NAME"
 * of the oldest models, where the cache has it), if no such path exists, becomes the directory of
 * its snapshot, or the one GGUF file there if that holds no config.json. REVISION is a branch, tag
 * or commit, "main" by default. FL_ENOTFOUND: it is not in the cache, and the message says what to
 * run; FL_EFORMAT: the cache is broken, or several GGUF files are there; FL_ERANGE: too long.
 */
FL_CHECKED enum fl_status fl_hfcache_find(const char *model, char out[FL_PATH_BYTES],
                                          struct fl_error *error);

/* ROOT; FL_ENOTFOUND: the environment names no place for it. */
FL_CHECKED enum fl_status fl_hfcache_root(char out[FL_PATH_BYTES], struct fl_error *error);

#endif

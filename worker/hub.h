/*
 * hub.h - which files of a model on the Hugging Face hub are needed, and by which HASH the cache
 * (format/hfcache.h) keeps each. HASH is the file's SHA-256 where the hub stores it as a large
 * file, else its git id. What the hub answers is hostile until checked: names hold no path, hashes
 * are hexadecimal, sizes and counts are bounded. Source: huggingface_hub's REST interface. Threads:
 * pure.
 */
#ifndef FL_WORKER_HUB_H
#define FL_WORKER_HUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cli.h"
#include "base/status.h"

#define FL_HUB_NAME_BYTES     128
#define FL_HUB_HASH_BYTES     65 /* 64 hexadecimal digits and a NUL */
#define FL_HUB_FILES_MAX      4096u
#define FL_HUB_FILE_BYTES_MAX (1ull << 40)

struct fl_hub_file {
    char name[FL_HUB_NAME_BYTES]; /* "model.safetensors": no path */
    char hash[FL_HUB_HASH_BYTES]; /* name of its blob */
    bool sha256;                  /* hash is its SHA-256; else it is a git id, and is not checked */
    uint64_t bytes;
};

struct fl_hub_plan {
    char commit[FL_HUB_HASH_BYTES];
    struct fl_hub_file *files; /* (count), owned */
    size_t count;
    uint64_t bytes; /* of all */
};

/*
 * From the hub's description of a revision (JSON): configuration, tokenizer and weights, or, when
 * `only` names any, exactly those files. FL_EFORMAT: it is no such description, or has no weights;
 * FL_ENOTFOUND: a wanted file is not there.
 */
FL_CHECKED enum fl_status fl_hub_plan_read(const char *text, size_t length,
                                           const struct fl_option_list *only,
                                           struct fl_hub_plan *out, struct fl_error *error);
void fl_hub_plan_free(struct fl_hub_plan *self);

#endif

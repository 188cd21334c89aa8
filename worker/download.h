/*
 * download.h - a model of the hub into the cache (format/hfcache.h): every file whole, checked and
 * linked, or not visible at all; what was begun is continued the next time.
 *
 * Threads: one call at a time a cache directory and model: a lock keeps others out.
 */
#ifndef FL_WORKER_DOWNLOAD_H
#define FL_WORKER_DOWNLOAD_H

#include "format/hfcache.h"
#include "worker/http_get.h"
#include "worker/hub.h"

struct fl_download {
    const char *endpoint, *token; /* see http_get.h */
    const char *root;             /* of the cache */
    const struct fl_option_list *only;
    const atomic_int *stop;
    unsigned attempts;    /* at each request, with a pause that doubles between them; >= 1 */
    uint32_t pause_ms;    /* the first one */
    bool quiet, terminal; /* words on stderr: none; one line redrawn, else one a file */
    /* what came of it */
    char snapshot[FL_PATH_BYTES]; /* the model's directory */
    char commit[FL_HUB_HASH_BYTES];
    size_t files;
    uint64_t bytes, downloaded; /* of all files; of those that came over the network */
};

/*
 * FL_EREFUSED, FL_ENOTFOUND, FL_ETIMEOUT, FL_EIO as http_get.h says after the last attempt;
 * FL_EFORMAT: what came is not what was announced; FL_ENOSPC, before anything is downloaded;
 * FL_EBUSY: another process downloads this model; FL_ESTOPPED.
 */
FL_CHECKED enum fl_status fl_download(struct fl_download *self, const struct fl_hfcache_name *model,
                                      struct fl_error *error);

#endif

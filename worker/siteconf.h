/*
 * siteconf.h - worker.conf: what this site has (models, data) and what it allows (policy).
 * One static table over base/config.h gives parser, sample file and documentation.
 * Threads: a loaded configuration is read-only.
 */
#ifndef FL_WORKER_SITECONF_H
#define FL_WORKER_SITECONF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/config.h"
#include "base/fs.h"
#include "base/limits.h"
#include "base/status.h"
#include "crypto/keys.h"
#include "web/limits.h"

#define FL_SITE_MODELS_MAX 64
#define FL_SITE_DATA_MAX   64
#define FL_SITE_LIST_BYTES 1024

/* [policy] roster: what shows that the members of a cohort are real (trust.h). */
enum fl_site_roster { FL_ROSTER_AUTHORITY, FL_ROSTER_PINNED, FL_ROSTER_FIRST_USE };

struct fl_site_model {
    char name[FL_NAME_BYTES];
    char path[FL_PATH_BYTES];
};

struct fl_site_data {
    char job[FL_NAME_BYTES]; /* empty: the default for every job */
    char path[FL_PATH_BYTES];
    char eval[FL_PATH_BYTES]; /* may be empty: nothing to evaluate on */
};

struct fl_siteconf {
    /* [coordinator] */
    char address[256];        /* tcp://HOST:PORT of the session port */
    char coordinator_key[65]; /* its CURVE public key, 64 hexadecimal digits */
    /* [data], [data.JOBNAME] */
    char data_path[FL_PATH_BYTES], data_eval[FL_PATH_BYTES];
    double data_valid_split; /* share of the training data to evaluate on where eval is empty */
    int data_loss_all;       /* completions|all */
    int data_chat_template;  /* auto, then the names of FL_CHAT_NAMES */
    bool data_skip_bad_rows;
    struct fl_site_data data[FL_SITE_DATA_MAX];
    uint32_t data_count;
    /* [models] */
    struct fl_site_model models[FL_SITE_MODELS_MAX];
    uint32_t model_count;
    /* [policy] */
    char jobs[FL_SITE_LIST_BYTES], allowed_models[FL_SITE_LIST_BYTES];
    uint64_t max_rank, max_steps, max_rounds, max_tokens, max_retrainings, min_cohort, min_known;
    bool require_secure_aggregation, share_eval;
    int roster_choice; /* auto|authority|pinned|first-use */
    enum fl_site_roster roster;
    char authority_text[64];         /* fla1:..., or empty */
    uint8_t authority[FL_KEY_BYTES]; /* zeros when the text is empty */
    char known_sites[FL_SITE_LIST_BYTES];
    char hours[64];
    /* [train] */
    uint64_t threads;
    int compute; /* auto|f32|bf16 */
    char memory_limit_text[32];
    uint64_t memory_limit; /* bytes; 0: none */
    /* [adapters] */
    uint64_t keep_versions;
    /* [http] */
    char http_listen[FL_WEB_LISTEN_BYTES]; /* HOST:PORT; empty: HTTP is off */
    char http_token_file[FL_PATH_BYTES];   /* empty: none; relative: in the site's directory */
};

/* Load SITE/worker.conf. FL_EFORMAT with file:line, FL_ENOTFOUND. *out is about 900 KB: heap. */
FL_CHECKED enum fl_status fl_siteconf_load(const char *site, struct fl_siteconf **out,
                                           struct fl_error *error);
FL_CHECKED enum fl_status fl_siteconf_parse(const char *text, size_t length, const char *what,
                                            struct fl_siteconf *out, struct fl_error *error);
void fl_siteconf_free(struct fl_siteconf **self);

/* A commented worker.conf; address and key are filled in. */
void fl_siteconf_sample(const char *address, const char *coordinator_key, struct fl_buf *out);
const struct fl_config_table *fl_siteconf_table(void);

/* The path of a model of that name, or NULL. Borrowed. */
const char *fl_siteconf_model(const struct fl_siteconf *self, const char *name);
/* Training and evaluation data of a job: its own section, else the default. Borrowed. */
void fl_siteconf_data(const struct fl_siteconf *self, const char *job, const char **path,
                      const char **eval);

/*
 * What a person is told of a site that has no model, or no training data for any job, and so
 * refuses every job; NULL: it has. A constant.
 */
const char *fl_siteconf_lacks_models(const struct fl_siteconf *self);
const char *fl_siteconf_lacks_data(const struct fl_siteconf *self);

/*
 * "22:00-06:00", several parted by commas, local time; empty: always. Is minute (0..1439) inside?
 * FL_EFORMAT: not of that form. *wait_minutes: until the next window opens, 0 when inside.
 */
FL_CHECKED enum fl_status fl_hours_allow(const char *hours, unsigned minute, bool *allowed,
                                         unsigned *wait_minutes);
/* Does a comma-separated list of names with '*' and '?' match name? */
bool fl_list_matches(const char *list, const char *name);

#endif

/*
 * job.h - a job file: INI, read through one static table, checked across fields, written back in
 * one canonical form (which is what the database keeps and what the job's hash is taken of).
 * Threads: a spec is a plain value.
 */
#ifndef FL_JOB_JOB_H
#define FL_JOB_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "adapter/fixed.h"
#include "adapter/layout.h"
#include "base/buf.h"
#include "base/config.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/status.h"
#include "job/ranks.h"
#include "job/strategy.h"

#define FL_JOB_TARGETS_BYTES 1024
#define FL_JOB_START_BYTES   512
#define FL_JOB_TEXT_MAX      131072 /* bytes of a canonical text */

/*
 * Choices are indices in the order of the table: optimizer adamw|sgd (enum fl_update_rule),
 * schedule constant|linear|cosine, compute auto|f32|bf16: the same numbers as on the wire.
 */
struct fl_job_spec {
    /* [job] */
    char name[FL_NAME_BYTES];
    uint64_t rounds;
    int strategy; /* enum fl_strategy */
    uint64_t seed;
    /* [model] */
    char model[FL_NAME_BYTES];
    char model_sha256[FL_HASH_HEX_BYTES];
    /* [lora] */
    char targets[FL_JOB_TARGETS_BYTES];
    double alpha;
    double dropout;
    bool dora;                      /* adapters have magnitudes, and start is not empty */
    char start[FL_JOB_START_BYTES]; /* "", JOB@N or a PEFT directory */
    /* [ranks] */
    struct fl_rank_schedule ranks;
    /* [train] */
    uint64_t steps, batch_size, seq_len;
    double lr, lr_a, lr_b; /* lr_a, lr_b: 0 = lr */
    int optimizer;
    int schedule;
    uint64_t warmup;
    double weight_decay, grad_clip;
    bool shuffle;
    int compute;
    uint64_t threads; /* 0: the site decides */
    /* [cohort] */
    uint64_t min_workers, weight_cap;
    int64_t select_timeout, round_timeout, liveness_timeout, wait_timeout; /* ms */
    /* [privacy] */
    bool secure_aggregation;
    char update_range_text[32]; /* "auto" or a number */
    double update_range;        /* 0 = auto */
    double clip_norm;           /* 0 = none */
    /* [evaluate] */
    uint64_t eval_every; /* rounds; 0 = never */
    uint64_t eval_rows;
};

/*
 * Parse and check (fl_job_check). what names the text in messages. *out is a plain value of about
 * 45 KB: keep it on the heap or static. FL_EFORMAT with "file:line: ..." and the nearest name;
 * FL_EREFUSED: well-formed but not allowed.
 */
FL_CHECKED enum fl_status fl_job_parse(const char *text, size_t length, const char *what,
                                       struct fl_job_spec *out, struct fl_error *error);
FL_CHECKED enum fl_status fl_job_load(const char *path, struct fl_job_spec *out,
                                      struct fl_error *error);
/* Rules across fields. FL_EFORMAT, FL_EREFUSED (strategy, secure aggregation). */
FL_CHECKED enum fl_status fl_job_check(struct fl_job_spec *spec, struct fl_error *error);

/* Canonical text: every key with its value, in table order; fl_job_parse() gives the spec back. */
FL_CHECKED enum fl_status fl_job_print(const struct fl_job_spec *spec, struct fl_buf *out);
/* SHA-256 of the canonical text. */
FL_CHECKED enum fl_status fl_job_sha256(const struct fl_job_spec *spec, uint8_t out[FL_HASH_BYTES]);
/* A commented sample. */
void fl_job_template(struct fl_buf *out);
/* The static table, for man page and help. */
const struct fl_config_table *fl_job_table(void);

/*
 * May the job begin with that adapter, which was read from `what`? FL_EFORMAT: it has magnitudes,
 * and dora is off. FL_EREFUSED, with the command that makes a proper one: dora is on, and it has
 * none, or other modules, ranks or another scale than the job's, whose rows have other lengths.
 */
FL_CHECKED enum fl_status fl_job_check_start(const struct fl_job_spec *spec,
                                             const struct fl_adapter *start, const char *what,
                                             struct fl_error *error);

/* What round (from 1) trains: what its strategy says, and with dora the magnitudes too. */
enum fl_factors fl_job_trains(const struct fl_job_spec *spec, uint32_t round);
/* lr_a or lr_b where given, else lr. factor: FL_FACTOR_A, FL_FACTOR_B, or _M, which goes with B. */
double fl_job_lr(const struct fl_job_spec *spec, enum fl_factors factor);
/*
 * The update range of a factor in a round that starts from `start`: the given number, or the
 * automatic one (fixed.h).
 */
FL_CHECKED enum fl_status fl_job_range(const struct fl_job_spec *spec, enum fl_factors factor,
                                       const struct fl_adapter *start, double *out,
                                       struct fl_error *error);
/* The grid of a round of this job with that many sites. */
FL_CHECKED enum fl_status fl_job_grid(const struct fl_job_spec *spec, uint32_t sites,
                                      struct fl_grid *out);

#endif

/* http_site_view.h - the snapshot of a site that http_site.c makes and http_site_page.c shows. */
#ifndef FL_WORKER_HTTP_SITE_VIEW_H
#define FL_WORKER_HTTP_SITE_VIEW_H

#include "web/chart.h"
#include "web/web.h"
#include "worker/client_internal.h"
#include "worker/http_site.h"

struct fl_site_loss {
    uint64_t job;
    uint32_t round; /* that began with the adapter that was evaluated, or that was trained */
    double loss;
};

struct fl_site_losses { /* oldest first */
    struct fl_site_loss items[FL_SITE_ROUNDS_KEPT];
    uint32_t count;
};

struct fl_site_tally { /* since the start */
    uint64_t sent_bytes, received_bytes, rounds_trained, rounds_reused, evaluations;
    double train_seconds;
};

struct fl_site_view {
    struct fl_web_view base;
    int64_t wall_ms, started_ms;
    bool online;
    char name[FL_NAME_BYTES], coordinator[256], trust[512];
    struct fl_attempt key; /* job 0: none */
    char job_name[FL_NAME_BYTES];
    uint32_t rounds;
    enum fl_stage stage;
    struct fl_trainer_progress progress;
    double eval_loss; /* NaN: none */
    struct fl_kept_refusal refusals[FL_REFUSALS_KEPT];
    uint32_t refusal_count, refusal_total;
    struct fl_kept_sent sent[FL_SENT_KEPT];
    uint32_t sent_count, sent_total;
    uint64_t newest_job;
    uint32_t newest_version;
    char newest_adapter[FL_PATH_BYTES];
    struct fl_site_losses evaluated, trained;
    struct fl_point steps[FL_SITE_STEPS_KEPT]; /* training loss of the present round */
    uint32_t step_count;
    struct fl_site_tally tally;
    struct fl_buf status; /* owned: /status.json */
};

void fl_site_view_metrics(const struct fl_site_view *self, struct fl_buf *out);
void fl_site_view_page(const struct fl_site_view *self, struct fl_buf *out);

#endif

/* http_site.c - see http_site.h. */
#include "worker/http_site.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/log.h"
#include "web/html.h"
#include "web/prom.h"
#include "worker/http_site_view.h"

#define STATUS_BYTES_MAX (1u << 20)

struct fl_http_site {
    struct fl_web *web;
    int64_t started_ms;
    char trust[512];
    struct fl_site_losses evaluated, trained;
    struct fl_attempt key; /* whose steps they are */
    struct fl_point steps[FL_SITE_STEPS_KEPT];
    uint32_t step_count, stride, stride_left;
    struct fl_site_tally tally;
};

/* On the HTTP thread. */
static void answer(void *context, const struct fl_web_view *base, const char *path,
                   struct fl_web_reply *reply)
{
    const struct fl_site_view *view = (const struct fl_site_view *)base;
    (void)context;
    if (fl_html_asset(path, reply))
        return;
    reply->code = 200;
    if (strcmp(path, "/") == 0) {
        reply->type = "text/html; charset=utf-8";
        fl_site_view_page(view, &reply->body);
    } else if (strcmp(path, "/metrics") == 0) {
        reply->type = FL_PROM_TYPE;
        fl_site_view_metrics(view, &reply->body);
    } else if (strcmp(path, "/status.json") == 0) {
        reply->type = "application/json";
        fl_buf_append(&reply->body, view->status.data, view->status.length);
    } else
        reply->code = 404;
}

enum fl_status fl_http_site_open(const struct fl_siteconf *conf, const struct fl_sitestore *store,
                                 const char *trust, struct fl_http_site **out,
                                 struct fl_error *error)
{
    *out = NULL;
    if (!conf->http_listen[0])
        return FL_OK;
    struct fl_http_site *self = fl_calloc(1, sizeof *self);
    if (!self)
        return fl_fail_memory(error);
    self->started_ms = fl_clock_wall(fl_clock_system());
    (void)snprintf(self->trust, sizeof self->trust, "%s", trust);
    const struct fl_web_config config = {.listen = conf->http_listen,
                                         .token_file = conf->http_token_file,
                                         .directory = store->site,
                                         .answer = answer,
                                         .context = self};
    enum fl_status status = fl_web_open(&config, &self->web, error);
    if (status != FL_OK)
        fl_http_site_close(&self);
    *out = self;
    return status;
}

void fl_http_site_close(struct fl_http_site **out)
{
    struct fl_http_site *self = *out;
    if (!self)
        return;
    fl_web_close(&self->web);
    fl_free(self);
    *out = NULL;
}

/* ---- what is remembered ---- */

static void add_loss(struct fl_site_losses *list, uint64_t job, uint32_t round, double loss)
{
    if (!isfinite(loss))
        return;
    if (list->count == FL_SITE_ROUNDS_KEPT)
        memmove(list->items, list->items + 1, --list->count * sizeof list->items[0]);
    list->items[list->count++] = (struct fl_site_loss){job, round, loss};
}

void fl_http_site_evaluated(struct fl_http_site *self, uint64_t job, uint32_t round, double loss)
{
    if (!self)
        return;
    add_loss(&self->evaluated, job, round, loss);
    self->tally.evaluations++;
}

void fl_http_site_trained(struct fl_http_site *self, uint64_t job, uint32_t round, double loss,
                          double seconds, bool reused)
{
    if (!self)
        return;
    self->tally.rounds_reused += reused;
    if (reused)
        return;
    add_loss(&self->trained, job, round, loss);
    self->tally.rounds_trained++;
    self->tally.train_seconds += isfinite(seconds) ? seconds : 0.0;
}

void fl_http_site_frame(struct fl_http_site *self, size_t sent_bytes, size_t received_bytes)
{
    if (!self)
        return;
    self->tally.sent_bytes += sent_bytes;
    self->tally.received_bytes += received_bytes;
}

/* When the list is full every second point goes, and from then on every second one is taken. */
static void add_step(struct fl_http_site *self, const struct fl_trainer_progress *p)
{
    uint32_t last = self->step_count > 0 ? (uint32_t)self->steps[self->step_count - 1].x : 0;
    if (p->activity != FL_ACTIVITY_TRAINING || p->step == 0 || !isfinite(p->loss) ||
        p->step == last)
        return;
    if (p->step < last)
        self->step_count = 0;
    if (self->step_count == 0)
        self->stride = self->stride_left = 1;
    if (--self->stride_left > 0)
        return;
    if (self->step_count == FL_SITE_STEPS_KEPT) {
        for (uint32_t i = 0; i < FL_SITE_STEPS_KEPT / 2; i++)
            self->steps[i] = self->steps[2 * i];
        self->step_count = FL_SITE_STEPS_KEPT / 2;
        self->stride *= 2;
    }
    self->stride_left = self->stride;
    self->steps[self->step_count++] = (struct fl_point){p->step, p->loss};
}

/* ---- views ---- */

static void destroy(struct fl_web_view *base)
{
    struct fl_site_view *self = (struct fl_site_view *)base;
    fl_buf_free(&self->status);
    fl_free(self);
}

static void fill_lists(struct fl_site_view *view, const struct fl_client *client)
{
    uint32_t count = client->refusal_count < FL_REFUSALS_KEPT ? client->refusal_count
                                                              : FL_REFUSALS_KEPT;
    for (uint32_t i = 0; i < count; i++) /* newest first, here and below */
        view->refusals[i] = client->refusals[(client->refusal_count - 1 - i) % FL_REFUSALS_KEPT];
    view->refusal_count = count;
    view->refusal_total = client->refusal_count;
    count = fl_history_kept(&client->history);
    for (uint32_t i = 0; i < count; i++)
        view->sent[i] = *fl_history_newest(&client->history, i);
    view->sent_count = count;
    view->sent_total = client->history.sent_count - client->sent_before;
}

static struct fl_site_view *make_view(const struct fl_http_site *self, struct fl_client *client,
                                      const struct fl_trainer_progress *progress)
{
    struct fl_site_view *view = fl_calloc(1, sizeof *view);
    if (!view)
        return NULL;
    view->base.destroy = destroy;
    view->wall_ms = fl_clock_wall(client->c.clock);
    view->started_ms = self->started_ms;
    view->online = client->welcomed;
    view->key = client->key;
    view->stage = client->stage;
    view->progress = *progress;
    view->eval_loss = client->eval_loss;
    view->newest_job = client->history.job;
    view->newest_version = client->history.version;
    view->evaluated = self->evaluated;
    view->trained = self->trained;
    view->tally = self->tally;
    view->rounds = client->key.job ? client->offer.rounds : 0;
    view->step_count = self->step_count;
    memcpy(view->steps, self->steps, sizeof view->steps);
    (void)snprintf(view->name, sizeof view->name, "%s", client->name);
    (void)snprintf(view->coordinator, sizeof view->coordinator, "%s", client->c.conf->address);
    (void)snprintf(view->trust, sizeof view->trust, "%s", self->trust);
    (void)snprintf(view->newest_adapter, sizeof view->newest_adapter, "%s",
                   client->history.adapter);
    if (client->key.job)
        (void)snprintf(view->job_name, sizeof view->job_name, "%s", client->offer.name);
    fill_lists(view, client);
    fl_buf_init(&view->status, STATUS_BYTES_MAX);
    if (fl_client_status_text(client, &view->status) != FL_OK) {
        destroy(&view->base);
        return NULL;
    }
    return view;
}

void fl_http_site_tick(struct fl_http_site *self, struct fl_client *client)
{
    if (!self)
        return;
    int64_t now = fl_client_now(client);
    struct fl_trainer_progress progress = fl_compute_progress(client->c.compute);
    if (memcmp(&self->key, &client->key, sizeof self->key) != 0) {
        self->key = client->key;
        self->step_count = 0;
    }
    add_step(self, &progress);
    if (fl_web_wants(self->web, now)) {
        struct fl_site_view *view = make_view(self, client, &progress);
        if (view)
            fl_web_publish(self->web, &view->base);
    }
    fl_web_beat(self->web, now, client->welcomed ? NULL : "not connected to the coordinator");
}

/* http_site_page.c - a site's snapshot as metrics and as a page; see http_site_view.h. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "web/html.h"
#include "web/prom.h"
#include "worker/http_site_view.h"

static void gauge(struct fl_buf *out, const char *name, const char *help, double value)
{
    fl_prom_head(out, name, "gauge", help);
    if (!isnan(value))
        fl_prom(out, name, "", value, NULL);
}

static void counter(struct fl_buf *out, const char *name, const char *help, double value)
{
    fl_prom_head(out, name, "counter", help);
    fl_prom(out, name, "", value, NULL);
}

static double train_loss(const struct fl_site_view *self)
{
    return self->trained.count > 0 ? self->trained.items[self->trained.count - 1].loss
                                   : (double)NAN;
}

static void print_stages(const struct fl_site_view *self, struct fl_buf *out)
{
    fl_prom_head(out, "fedlora_site_stage", "gauge", "1 for the stage of the attempt.");
    for (int i = 0; i < FL_STAGE_COUNT; i++)
        fl_prom(out, "fedlora_site_stage", "", (int)self->stage == i, "stage",
                fl_stage_name((enum fl_stage)i), NULL);
}

void fl_site_view_metrics(const struct fl_site_view *self, struct fl_buf *out)
{
    const struct fl_site_tally *t = &self->tally;
    const struct fl_trainer_progress *p = &self->progress;
    bool trains = p->activity == FL_ACTIVITY_TRAINING;
    fl_prom_head(out, "fedlora_build_info", "gauge", "1, with the version of the program.");
    fl_prom(out, "fedlora_build_info", "", 1, "program", "fedlora-worker", "version", FL_VERSION,
            NULL);
    gauge(out, "fedlora_start_time_seconds", "When the daemon was started, Unix time.",
          (double)self->started_ms / 1000.0);
    gauge(out, "fedlora_snapshot_time_seconds", "When these numbers were taken, Unix time.",
          (double)self->wall_ms / 1000.0);
    gauge(out, "fedlora_site_connected", "1 while there is a session with the coordinator.",
          self->online);
    gauge(out, "fedlora_site_round", "The round that the site takes part in; 0: none.",
          self->key.round);
    print_stages(self, out);
    gauge(out, "fedlora_site_step", "Optimizer steps done in this round.", trains ? p->step : 0);
    gauge(out, "fedlora_site_tokens_per_second", "Training speed.",
          trains && isfinite(p->tokens_per_second) ? p->tokens_per_second : 0.0);
    gauge(out, "fedlora_site_held_out_loss",
          "Held-out loss of the newest adapter that was "
          "evaluated here, nats a token.",
          self->eval_loss);
    gauge(out, "fedlora_site_train_loss", "Training loss of the newest round that was trained.",
          train_loss(self));
    counter(out, "fedlora_site_rounds_trained_total", "Rounds trained.", (double)t->rounds_trained);
    counter(out, "fedlora_site_rounds_reused_total", "Attempts that used a kept delta again.",
            (double)t->rounds_reused);
    counter(out, "fedlora_site_train_seconds_total", "Time spent in training steps.",
            t->train_seconds);
    counter(out, "fedlora_site_updates_total", "Sealed updates offered to the coordinator.",
            self->sent_total);
    counter(out, "fedlora_site_refusals_total", "Offers and attempts that were refused.",
            self->refusal_total);
    counter(out, "fedlora_site_sent_bytes_total", "Frames sent, before encryption.",
            (double)t->sent_bytes);
    counter(out, "fedlora_site_received_bytes_total", "Frames received, before encryption.",
            (double)t->received_bytes);
}

/* ---- the page ---- */

static void fact_number(struct fl_buf *out, const char *label, double value, int digits)
{
    if (isfinite(value))
        fl_buf_printf(out, "<div><b>%.*f</b><span>%s</span></div>", digits, value, label);
}

static void print_now(struct fl_buf *out, const struct fl_site_view *self)
{
    const struct fl_trainer_progress *p = &self->progress;
    fl_buf_printf(out, "<section class=\"whole\"><h2>");
    if (self->key.job == 0) {
        fl_buf_printf(out, "No job yet</h2><p class=\"mute\">The site waits for an offer.</p>"
                           "</section>\n");
        return;
    }
    fl_buf_printf(out, "Job %" PRIu64 ": ", self->key.job);
    fl_html_text(out, self->job_name);
    fl_buf_printf(out, "</h2>");
    if (p->activity == FL_ACTIVITY_TRAINING && p->steps > 0)
        fl_buf_printf(out, "<progress max=\"%u\" value=\"%u\">%u of %u</progress>", p->steps,
                      p->step, p->step, p->steps);
    fl_buf_printf(out, "<div class=\"facts\"><div><b>");
    if (self->key.round > self->rounds)
        fl_buf_printf(out, "last evaluation");
    else
        fl_buf_printf(out, "%u of %u", self->key.round, self->rounds);
    fl_buf_printf(out, "</b><span>round</span></div>");
    fl_html_fact(out, "stage", fl_stage_name(self->stage));
    fl_html_fact(out, "does", fl_activity_name(p->activity));
    if (p->activity == FL_ACTIVITY_TRAINING) {
        fl_buf_printf(out, "<div><b>%u of %u</b><span>step</span></div>", p->step, p->steps);
        fact_number(out, "loss", p->loss, 4);
        fact_number(out, "tokens a second", p->tokens_per_second, 0);
    }
    fact_number(out, "held-out loss here", self->eval_loss, 4);
    fl_buf_printf(out, "</div></section>\n");
}

static size_t points_of(const struct fl_site_losses *list, uint64_t job, uint32_t shift,
                        struct fl_point *out)
{
    size_t count = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct fl_site_loss *l = &list->items[i];
        if (l->job == job && l->round >= shift)
            out[count++] = (struct fl_point){l->round - shift, l->loss};
    }
    return count;
}

static void print_curve(struct fl_buf *out, const char *title, const struct fl_point *points,
                        size_t count)
{
    if (count == 0)
        return;
    fl_buf_printf(out, "<section><h2>%s</h2>", title);
    fl_chart_lines(out, title, points, count, NULL, 0);
    fl_buf_printf(out, "</section>\n");
}

/* What was evaluated in round n is the adapter after round n - 1. */
static void print_losses(struct fl_buf *out, const struct fl_site_view *self)
{
    struct fl_point points[FL_SITE_ROUNDS_KEPT];
    size_t count = points_of(&self->evaluated, self->key.job, 1, points);
    print_curve(out, "Held-out loss here, by version", points, count);
    count = points_of(&self->trained, self->key.job, 0, points);
    print_curve(out, "Training loss here, by round", points, count);
    print_curve(out, "Training loss of this round, by step", self->steps, self->step_count);
}

static void print_sent(struct fl_buf *out, const struct fl_site_view *self)
{
    fl_buf_printf(out, "<section class=\"whole\"><h2>What left this site</h2>"
                       "<div class=\"facts\">");
    fl_html_fact_bytes(out, "sent since the start", self->tally.sent_bytes);
    fl_html_fact_bytes(out, "received", self->tally.received_bytes);
    fact_number(out, "updates", self->sent_total, 0);
    fl_buf_printf(out, "</div>");
    if (self->sent_count > 0)
        fl_buf_printf(out, "<div class=\"scroll\"><table><tr><th class=\"n\">job</th>"
                           "<th class=\"n\">round</th><th class=\"n\">attempt</th>"
                           "<th class=\"n\">size</th><th>sealed update, sha256</th><th>when</th>"
                           "</tr>");
    for (uint32_t i = 0; i < self->sent_count; i++) {
        const struct fl_kept_sent *s = &self->sent[i];
        fl_buf_printf(out,
                      "<tr><td class=\"n\">%" PRIu64 "</td><td class=\"n\">%u</td>"
                      "<td class=\"n\">%u</td><td class=\"n\">",
                      s->key.job, s->key.round, s->key.attempt);
        fl_html_bytes(out, s->bytes);
        fl_buf_printf(out, "</td><td><code title=\"%s\">%.12s</code></td><td>", s->sha256,
                      s->sha256);
        fl_html_time(out, s->wall_ms);
        fl_buf_printf(out, "</td></tr>");
    }
    if (self->sent_count > 0)
        fl_buf_printf(out, "</table></div>");
    fl_buf_printf(out, "<p class=\"key\">all of it stands in audit.log</p></section>\n");
}

static void print_refusals(struct fl_buf *out, const struct fl_site_view *self)
{
    fl_buf_printf(out, "<section><h2>Refused by this site</h2>");
    if (self->refusal_count == 0)
        fl_buf_printf(out, "<p class=\"mute\">Nothing since the start.</p>");
    else
        fl_buf_printf(out, "<div class=\"scroll\"><table><tr><th class=\"n\">job</th>"
                           "<th>rule</th><th>reason</th></tr>");
    for (uint32_t i = 0; i < self->refusal_count; i++) {
        fl_buf_printf(out, "<tr><td class=\"n\">%" PRIu64 "</td><td>%s</td><td class=\"name\">",
                      self->refusals[i].job, fl_refusal_name(self->refusals[i].code));
        fl_html_text(out, self->refusals[i].reason);
        fl_buf_printf(out, "</td></tr>");
    }
    fl_buf_printf(out, "%s</section>\n", self->refusal_count > 0 ? "</table></div>" : "");
}

static void print_result(struct fl_buf *out, const struct fl_site_view *self)
{
    fl_buf_printf(out, "<section class=\"whole\"><h2>Newest global adapter</h2>");
    if (self->newest_adapter[0]) {
        fl_buf_printf(out, "<p>version %u of job %" PRIu64 "</p><p class=\"name\"><code>",
                      self->newest_version, self->newest_job);
        fl_html_text(out, self->newest_adapter);
        fl_buf_printf(out, "</code></p>");
    } else
        fl_buf_printf(out, "<p class=\"mute\">None yet.</p>");
    fl_buf_printf(out, "<h2>Who the partners are</h2><p class=\"name\">");
    fl_html_text(out, self->trust);
    fl_buf_printf(out, "</p></section>\n");
}

void fl_site_view_page(const struct fl_site_view *self, struct fl_buf *out)
{
    char title[FL_NAME_BYTES + 32];
    (void)snprintf(title, sizeof title, "fedlora: %s", self->name[0] ? self->name : "a site");
    fl_html_begin(out, title, true);
    fl_buf_printf(out, "<header><h1>Site ");
    fl_html_text(out, self->name);
    fl_buf_printf(out, "</h1><span class=\"%s\">%s</span><span class=\"mute name\">",
                  self->online ? "good" : "bad", self->online ? "connected" : "not connected");
    fl_html_text(out, self->coordinator);
    fl_buf_printf(out, ", ");
    fl_html_time(out, self->wall_ms);
    fl_buf_printf(out, "</span></header><div class=\"grid\">\n");
    print_now(out, self);
    print_losses(out, self);
    print_refusals(out, self);
    print_result(out, self);
    print_sent(out, self);
    fl_buf_printf(out, "</div>");
    fl_html_end(out);
}

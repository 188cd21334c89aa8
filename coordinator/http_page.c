/* http_page.c - a view as a page for people: the whole coordinator, or one of its jobs. */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "coordinator/http_view.h"
#include "job/strategy.h"
#include "web/chart.h"
#include "web/html.h"

#define SITES_SHOWN    200
#define VERSIONS_SHOWN 40
#define COLUMNS_MAX    48 /* of the ranks' map: the newest versions */

static void fact(struct fl_buf *out, const char *label, const char *format, ...) FL_PRINTF(3, 4);
static void fact(struct fl_buf *out, const char *label, const char *format, ...)
{
    char text[96];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fl_html_fact(out, label, text);
}

static void print_loss(struct fl_buf *out, double loss)
{
    if (isfinite(loss))
        fl_buf_printf(out, "<td class=\"n\">%.4f</td>", loss);
    else
        fl_buf_printf(out, "<td class=\"n mute\">-</td>");
}

static const char *tone_of_job(enum fl_job_state state)
{
    if (state == FL_JOB_DONE)
        return "good";
    return state == FL_JOB_FAILED || state == FL_JOB_PAUSED ? "bad" : "";
}

/* ---- the job ---- */

static uint64_t round_of(const struct fl_view_job *job)
{
    return job->row.round > job->spec->rounds ? job->spec->rounds : job->row.round;
}

static void print_phases(struct fl_buf *out, const struct fl_view_job *job)
{
    fl_buf_printf(out, "<ol class=\"phases\">");
    for (int i = FL_ROUND_SELECT; i <= FL_ROUND_COMMIT; i++) {
        bool masks = i == FL_ROUND_KEYS || i == FL_ROUND_SHARES || i == FL_ROUND_UNMASK;
        if (masks && !job->spec->secure_aggregation)
            continue;
        fl_buf_printf(out, "<li%s>%s</li>",
                      (int)job->row.phase == i ? " class=\"now\" aria-current=\"step\"" : "",
                      fl_round_state_name((enum fl_round_state)i));
    }
    fl_buf_printf(out, "</ol>");
}

static void print_job_head(struct fl_buf *out, const struct fl_view *view,
                           const struct fl_view_job *job, bool runs)
{
    const char *reason = runs ? view->waiting : job->row.reason;
    uint32_t committed = job->version_count > 0 ? job->versions[job->version_count - 1].version : 0;
    fl_buf_printf(out, "<section class=\"whole\"><h2>Job %lld: ", (long long)job->row.id);
    fl_html_text(out, job->row.name);
    fl_buf_printf(out, " <span class=\"%s\">%s</span></h2>", tone_of_job(job->row.state),
                  fl_job_state_name(job->row.state));
    if (runs)
        print_phases(out, job);
    fl_buf_printf(out, "<progress max=\"%" PRIu64 "\" value=\"%u\">%u of %" PRIu64 "</progress>",
                  job->spec->rounds, committed, committed, job->spec->rounds);
    fl_buf_printf(out, "<div class=\"facts\">");
    if (runs && job->row.round > job->spec->rounds)
        fact(out, "behind the last round", "last evaluation");
    else
        fact(out, "round", "%" PRIu64 " of %" PRIu64, round_of(job), job->spec->rounds);
    if (job->row.attempt > 1)
        fact(out, "attempt", "%u", job->row.attempt);
    if (runs) {
        fl_buf_printf(out, "<div><b>");
        fl_html_seconds(out, view->phase_seconds);
        fl_buf_printf(out, "</b><span>in this phase</span></div>");
        fact(out, "tokens a second", "%.0f", fl_view_tokens_per_second(view));
    }
    fact(out, "strategy", "%s%s", fl_strategy_info((enum fl_strategy)job->spec->strategy)->name,
         job->spec->dora ? ", DoRA" : "");
    fact(out, "secure aggregation", "%s", job->spec->secure_aggregation ? "on" : "off");
    fact(out, "base model", "%s", job->spec->model);
    fl_buf_printf(out, "</div>");
    if (reason[0]) {
        fl_buf_printf(out, "<p class=\"name%s\">", job->row.state == FL_JOB_FAILED ? " bad" : "");
        fl_html_text(out, reason);
        fl_buf_printf(out, "</p>");
    }
    fl_buf_printf(out, "</section>\n");
}

static void print_curve(struct fl_buf *out, const char *title, const struct fl_point *points,
                        size_t count)
{
    fl_buf_printf(out, "<section><h2>%s</h2>", title);
    fl_chart_lines(out, title, points, count, NULL, 0);
    if (count == 0)
        fl_buf_printf(out, "<p class=\"mute\">Not measured yet.</p>");
    fl_buf_printf(out, "</section>\n");
}

/* Held-out loss of the base model stands at round 0. */
static void print_losses(struct fl_buf *out, const struct fl_view_job *job)
{
    struct fl_point held[FL_VIEW_VERSIONS_MAX + 1], train[FL_VIEW_VERSIONS_MAX];
    size_t held_count = 0, train_count = 0;
    bool first = job->version_count == 0 || job->versions[0].version == 1;
    if (first && isfinite(job->row.base_loss))
        held[held_count++] = (struct fl_point){0, job->row.base_loss};
    for (uint32_t i = 0; i < job->version_count; i++) {
        const struct fl_view_version *v = &job->versions[i];
        if (v->eval_tokens > 0 && isfinite(v->eval_loss))
            held[held_count++] = (struct fl_point){v->version, v->eval_loss};
        if (isfinite(v->train_loss))
            train[train_count++] = (struct fl_point){v->version, v->train_loss};
    }
    print_curve(out, "Held-out loss by round", held, held_count);
    print_curve(out, "Training loss by round", train, train_count);
}

static void print_cell(struct fl_buf *out, const struct fl_view_version *v, uint32_t layer,
                       uint16_t rank, double share, const double box[4])
{
    fl_buf_printf(out,
                  "<rect class=\"cell\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
                  "fill-opacity=\"%.2f\"><title>version %u, layer %u: rank %u</title></rect>",
                  box[0], box[1], box[2], box[3], 0.08 + 0.92 * share, v->version, layer, rank);
}

static void print_map(struct fl_buf *out, const struct fl_view_job *job, uint32_t first,
                      uint32_t columns, uint16_t most)
{
    const double left = 34, top = 6, width = 380, height = 200;
    double dx = width / columns, dy = height / job->layers;
    fl_buf_printf(out, "<svg viewBox=\"0 0 420 230\" role=\"img\" "
                       "aria-label=\"Rank by layer and version\">");
    for (uint32_t c = 0; c < columns; c++) {
        const struct fl_view_version *v = &job->versions[first + c];
        for (uint32_t layer = 0; layer < job->layers; layer++) {
            uint16_t rank = fl_view_layer_rank(job, v, layer);
            const double box[4] = {left + dx * c, top + dy * layer, fmax(dx - 0.6, 0.4),
                                   fmax(dy - 0.4, 0.3)};
            print_cell(out, v, layer, rank, (double)rank / most, box);
        }
    }
    fl_buf_printf(out,
                  "<text class=\"end\" x=\"30\" y=\"15\">0</text>"
                  "<text class=\"end\" x=\"30\" y=\"206\">%u</text>"
                  "<text class=\"mid\" x=\"%.1f\" y=\"222\">%u</text>",
                  job->layers - 1, left + dx / 2, job->versions[first].version);
    if (columns > 1)
        fl_buf_printf(out, "<text class=\"mid\" x=\"%.1f\" y=\"222\">%u</text>",
                      left + width - dx / 2, job->versions[first + columns - 1].version);
    fl_buf_printf(out, "</svg>");
}

static void print_ranks(struct fl_buf *out, const struct fl_view_job *job)
{
    uint32_t columns = job->version_count < COLUMNS_MAX ? job->version_count : COLUMNS_MAX;
    uint32_t first = job->version_count - columns;
    uint16_t most = 0, least = UINT16_MAX;
    for (uint32_t c = first; c < job->version_count; c++) {
        for (uint32_t layer = 0; layer < job->layers; layer++) {
            uint16_t rank = fl_view_layer_rank(job, &job->versions[c], layer);
            most = rank > most ? rank : most;
            least = rank < least ? rank : least;
        }
    }
    fl_buf_printf(out, "<section><h2>Rank by layer and round</h2>");
    if (most == 0)
        fl_buf_printf(out, "<p class=\"mute\">No round is committed yet.</p>");
    else {
        print_map(out, job, first, columns, most);
        fl_buf_printf(out,
                      "<p class=\"key\">layers downwards, rounds to the right; ranks %u to %u, the "
                      "stronger the higher</p>",
                      least, most);
    }
    fl_buf_printf(out, "</section>\n");
}

static void print_version(struct fl_buf *out, const struct fl_view_job *job,
                          const struct fl_view_version *v)
{
    char hex[FL_HASH_HEX_BYTES], parent[FL_HASH_HEX_BYTES] = "-";
    long long id = (long long)job->row.id;
    fl_hex(v->sha256, FL_HASH_BYTES, hex);
    if (v->has_parent)
        fl_hex(v->parent_sha256, FL_HASH_BYTES, parent);
    fl_buf_printf(
        out, "<tr><td class=\"n\">%u%s</td><td class=\"n\">%u</td><td class=\"n\">%u</td>",
        v->version, v == fl_view_current_version(job) ? " <b title=\"current\">*</b>" : "", v->rank,
        v->workers);
    print_loss(out, v->eval_tokens > 0 ? v->eval_loss : (double)NAN);
    print_loss(out, v->train_loss);
    fl_buf_printf(out, "<td class=\"n\">");
    fl_html_bytes(out, v->bytes);
    fl_buf_printf(out,
                  "</td><td class=\"wide\"><code title=\"%s\">%.12s</code></td><td class=\"wide\">"
                  "<code title=\"%s\">%.12s</code></td><td class=\"wide\">",
                  hex, hex, parent, parent);
    fl_html_time(out, v->created_ms);
    fl_buf_printf(out,
                  "</td><td><a href=\"/adapters/%lld/%u/adapter_model.safetensors\">weights</a> "
                  "<a href=\"/adapters/%lld/%u/adapter_config.json\">config</a></td></tr>",
                  id, v->version, id, v->version);
}

static void print_versions(struct fl_buf *out, const struct fl_view_job *job)
{
    if (job->version_count == 0)
        return;
    fl_buf_printf(
        out,
        "<section class=\"whole\"><h2>Versions of the adapter</h2>"
        "<div class=\"scroll\"><table><tr><th class=\"n\">version</th>"
        "<th class=\"n\">rank</th><th class=\"n\">sites</th>"
        "<th class=\"n\">held-out</th><th class=\"n\">training</th>"
        "<th class=\"n\">size</th><th class=\"wide\">sha256</th><th class=\"wide\">made from</th>"
        "<th class=\"wide\">made</th><th>download</th></tr>");
    uint32_t shown = job->version_count < VERSIONS_SHOWN ? job->version_count : VERSIONS_SHOWN;
    for (uint32_t i = 0; i < shown; i++)
        print_version(out, job, &job->versions[job->version_count - 1 - i]);
    fl_buf_printf(out,
                  "</table></div><p class=\"key\">* the current one%s; a PEFT directory holds "
                  "both files</p></section>\n",
                  shown < job->version_count ? "; older ones: fedlora-coordinator adapters list"
                                             : "");
}

static void print_refusals(struct fl_buf *out, const struct fl_view_job *job)
{
    if (job->refusal_count == 0)
        return;
    fl_buf_printf(out, "<section class=\"whole\"><h2>Refused by</h2><div class=\"scroll\"><table>");
    for (uint32_t i = 0; i < job->refusal_count && i < SITES_SHOWN; i++) {
        fl_buf_printf(out, "<tr><td class=\"name\">");
        fl_html_text(out, job->refusals[i].worker);
        fl_buf_printf(out, "</td><td class=\"name\">");
        fl_html_text(out, job->refusals[i].reason);
        fl_buf_printf(out, "</td><td class=\"mute\">%s</td></tr>",
                      job->refusals[i].permanent ? "for good" : "for now");
    }
    fl_buf_printf(out, "</table></div></section>\n");
}

static void print_site(struct fl_buf *out, const struct fl_view_site *s, bool running)
{
    static const char *const tones[FL_VIEW_SITE_STATE_COUNT] = {"bad", "good", "good", "mute"};
    fl_buf_printf(out, "<tr><td class=\"name\">");
    fl_html_text(out, s->name);
    fl_buf_printf(out, "</td><td class=\"%s\">%s</td><td>", tones[s->state],
                  fl_view_site_state_name(s->state));
    if (s->seen_seconds < 0.0)
        fl_buf_printf(out, "never");
    else {
        fl_html_seconds(out, s->seen_seconds);
        fl_buf_printf(out, " ago");
    }
    fl_buf_printf(out, "</td><td class=\"name\">");
    if (s->state == FL_VIEW_TRAINING && s->steps > 0)
        fl_buf_printf(out, "step %u of %u, %.0f tokens/s", s->step, s->steps, s->tokens_per_second);
    else if (running && s->uploaded)
        fl_buf_printf(out, "update is here");
    else if (running && s->trained)
        fl_buf_printf(out, "trained");
    if (running && s->left_out)
        fl_buf_printf(out, " left out of this round");
    if (running && s->failed_sums > 0)
        fl_buf_printf(out, " in %u failed sums", s->failed_sums);
    fl_buf_printf(out, "</td></tr>");
}

static void print_sites(struct fl_buf *out, const struct fl_view *view)
{
    uint32_t online = 0, counted = 0;
    for (uint32_t i = 0; i < view->site_count; i++) {
        counted += view->sites[i].state != FL_VIEW_REVOKED;
        online += view->sites[i].state == FL_VIEW_ONLINE ||
                  view->sites[i].state == FL_VIEW_TRAINING;
    }
    fl_buf_printf(out, "<section><h2>Sites: %u of %u online</h2>", online, counted);
    if (view->site_count == 0)
        fl_buf_printf(out,
                      "<p class=\"mute\">None is enrolled: fedlora-coordinator invite NAME</p>");
    else
        fl_buf_printf(out, "<div class=\"scroll\"><table><tr><th>name</th><th>state</th>"
                           "<th>heard of</th><th>does</th></tr>");
    for (uint32_t i = 0; i < view->site_count && i < SITES_SHOWN; i++)
        print_site(out, &view->sites[i], view->running);
    if (view->site_count > 0)
        fl_buf_printf(out, "</table></div>");
    if (view->site_count > SITES_SHOWN)
        fl_buf_printf(out, "<p class=\"key\">and %u more, in /status.json</p>",
                      view->site_count - SITES_SHOWN);
    fl_buf_printf(out, "</section>\n");
}

static void print_job(struct fl_buf *out, const struct fl_view *view, const struct fl_view_job *job,
                      bool home)
{
    bool runs = view->running && view->current >= 0 && view->jobs[view->current] == job;
    print_job_head(out, view, job, runs);
    print_losses(out, job);
    print_ranks(out, job);
    if (home)
        print_sites(out, view);
    print_refusals(out, job);
    print_versions(out, job);
}

/* ---- the coordinator ---- */

static void print_traffic(struct fl_buf *out, const struct fl_view *view)
{
    const struct fl_tally *t = &view->tally;
    fl_buf_printf(out, "<section class=\"whole\"><h2>Since the start</h2><div class=\"facts\">");
    fl_html_fact_bytes(out, "received", t->received_bytes);
    fl_html_fact_bytes(out, "sent", t->sent_bytes);
    fl_html_fact_bytes(out, "sealed updates", t->update_bytes);
    fact(out, "rounds committed", "%" PRIu64, t->rounds[FL_TALLY_COMMITTED]);
    fact(out, "attempts tried again", "%" PRIu64, t->rounds[FL_TALLY_RETRIED]);
    fact(out, "offers refused", "%" PRIu64, t->refusals);
    fl_buf_printf(out, "<div><b>");
    fl_html_seconds(out, (double)(view->wall_ms - view->started_ms) / 1000.0);
    fl_buf_printf(out, "</b><span>running</span></div></div></section>\n");
}

static void print_jobs(struct fl_buf *out, const struct fl_view *view)
{
    if (view->job_count == 0)
        return;
    fl_buf_printf(out, "<section class=\"whole\"><h2>Jobs</h2><div class=\"scroll\"><table><tr>"
                       "<th class=\"n\">job</th><th>name</th><th>state</th><th class=\"n\">round"
                       "</th><th class=\"n\">held-out</th><th class=\"wide\">submitted</th>"
                       "<th class=\"wide\">reason</th></tr>");
    for (uint32_t i = 0; i < view->job_count; i++) {
        const struct fl_view_job *job = view->jobs[i];
        const struct fl_view_version *v = fl_view_evaluated(job);
        fl_buf_printf(out,
                      "<tr><td class=\"n\"><a href=\"/jobs/%lld\">%lld</a></td>"
                      "<td class=\"name\">",
                      (long long)job->row.id, (long long)job->row.id);
        fl_html_text(out, job->row.name);
        fl_buf_printf(out,
                      "</td><td class=\"%s\">%s</td><td class=\"n\">%" PRIu64 "/%" PRIu64 "</td>",
                      tone_of_job(job->row.state), fl_job_state_name(job->row.state), round_of(job),
                      job->spec->rounds);
        print_loss(out, v ? v->eval_loss : job->row.base_loss);
        fl_buf_printf(out, "<td class=\"wide\">");
        fl_html_time(out, job->row.created_ms);
        fl_buf_printf(out, "</td><td class=\"wide name\">");
        fl_html_text(out, job->row.reason);
        fl_buf_printf(out, "</td></tr>");
    }
    fl_buf_printf(out, "</table></div></section>\n");
}

void fl_view_page(const struct fl_view *self, const struct fl_view_job *job, struct fl_buf *out)
{
    char title[FL_NAME_BYTES + 64];
    bool home = !job;
    if (home && self->current >= 0)
        job = self->jobs[self->current];
    (void)snprintf(title, sizeof title, "fedlora: %s%s", home ? "" : "job ",
                   home ? fl_view_state(self) : job->row.name);
    fl_html_begin(out, title, true);
    fl_buf_printf(out, "<header><h1>%s</h1><span class=\"mute\">%s, ",
                  home ? "Coordinator" : "<a href=\"/\">Coordinator</a>", fl_view_state(self));
    fl_html_time(out, self->wall_ms);
    fl_buf_printf(out, "</span></header><div class=\"grid\">\n");
    if (job)
        print_job(out, self, job, home);
    else
        fl_buf_printf(out, "<section class=\"whole\"><h2>No job yet</h2><p class=\"mute\">"
                           "fedlora-coordinator job submit FILE</p></section>\n");
    if (home && !job)
        print_sites(out, self);
    if (home) {
        print_traffic(out, self);
        print_jobs(out, self);
    }
    fl_buf_printf(out, "</div>");
    fl_html_end(out);
}

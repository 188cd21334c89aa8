/* sim.c - time, chance, and the run of one seed. */
#include "disk.h"
#include "sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "crypto/entropy.h"

#define WALL_MS    1767225600000 /* 2026-01-01 */
#define SETTLE_MS  1200000 /* a round must end so soon after the weather cleared, or the last */
#define DELIVER_MS 300000  /* and its result be everywhere, and logged, so soon after that */
#define STEPS_MAX  400000
#define HEAP_MAX   100000

/* ---- chance ---- */

uint64_t sim_random(struct sim *self)
{
    uint64_t z = (self->random += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t sim_below(struct sim *self, uint32_t n)
{
    return n ? (uint32_t)(sim_random(self) % n) : 0;
}

bool sim_chance(struct sim *self, uint32_t percent)
{
    return sim_below(self, 100) < percent;
}

/* ---- time ---- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void swap(struct sim_event *a, struct sim_event *b)
{
    struct sim_event kept = *a;
    *a = *b;
    *b = kept;
}

struct sim_event *sim_schedule(struct sim *self, int64_t at, enum sim_kind kind)
{
    static struct sim_event nowhere; /* memory is short: the run has failed already */
    if (self->heap_count == self->heap_capacity) {
        size_t capacity = self->heap_capacity ? 2 * self->heap_capacity : 256;
        struct sim_event *grown = fl_reallocarray(self->heap, capacity, sizeof(*grown));
        if (!grown || capacity > HEAP_MAX) {
            sim_violation(self, "%zu events wait", self->heap_count);
            if (!grown)
                return &nowhere;
        }
        self->heap = grown;
        self->heap_capacity = capacity;
    }
    size_t i = self->heap_count++;
    const uint64_t seq = self->seq++;
    self->heap[i] = (struct sim_event){.at = at, .seq = seq, .kind = kind};
    while (i > 0 && before(&self->heap[i], &self->heap[(i - 1) / 2])) {
        swap(&self->heap[i], &self->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    return &self->heap[i];
}

static struct sim_event take_first(struct sim *self)
{
    struct sim_event first = self->heap[0];
    self->heap[0] = self->heap[--self->heap_count];
    for (size_t i = 0;;) {
        size_t least = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2; child++) {
            if (child < self->heap_count && before(&self->heap[child], &self->heap[least]))
                least = child;
        }
        if (least == i)
            return first;
        swap(&self->heap[i], &self->heap[least]);
        i = least;
    }
}

static int64_t now_ms(void *context)
{
    const struct sim_time *time = context;
    return time->sim->now - time->lag_ms;
}

static int64_t wall_ms(void *context)
{
    const struct sim_time *time = context;
    int64_t now = time->sim->now;
    return WALL_MS + now + time->offset_ms + now / 1000 * time->drift / 1000;
}

static void set_clock(struct sim *self, struct sim_time *time)
{
    *time = (struct sim_time){.sim = self, .drift = sim_chance(self, 30) ? 500 : 0};
    time->clock = (struct fl_clock){.now_ms = now_ms, .wall_ms = wall_ms, .context = time};
}

/* ---- words ---- */

void sim_trace(struct sim *self, const char *format, ...)
{
    va_list arguments;
    if (!self->verbose)
        return;
    (void)fprintf(stderr, "%9.3f ", (double)self->now / 1000.0);
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
}

void sim_violation(struct sim *self, const char *format, ...)
{
    va_list arguments;
    if (self->failed)
        return;
    self->failed = true;
    va_start(arguments, format);
    (void)vsnprintf(self->failure, sizeof(self->failure), format, arguments);
    va_end(arguments);
}

/* ---- the run ---- */

static void mix(struct sim *self, uint64_t value)
{
    self->digest = (self->digest ^ value) * 0x100000001b3u;
    self->digest ^= self->digest >> 29;
}

static void site_wakes(struct sim *self, const struct sim_event *event)
{
    const struct fl_link_event wake = {.kind = FL_LINK_WAKE};
    sim_site_turn(&self->sites[event->site], &wake);
}

static void hub_wakes(struct sim *self)
{
    const struct fl_transport_event wake = {.kind = FL_TRANSPORT_WAKE};
    sim_hub_event(self, &wake);
}

static void happen(struct sim *self, struct sim_event *event)
{
    struct sim_site *site = &self->sites[event->site];
    bool for_hub = event->kind <= SIM_HUB_START;
    bool current = event->life == (for_hub ? self->hub.life : site->life);
    if (!for_hub && event->kind < SIM_SITE_START && current && site->asleep) {
        sim_site_hold(site, event);
        return;
    }
    mix(self, (uint64_t)event->kind << 40 ^ (uint64_t)event->site << 32 ^ event->length);
    switch (event->kind) {
    case SIM_HUB_WAKE:
        if (current)
            hub_wakes(self);
        break;
    case SIM_HUB_START:
        if (current)
            sim_hub_start(self);
        break;
    case SIM_SITE_START:
        if (current)
            sim_site_start(site);
        break;
    case SIM_SITE_WORK:
        if (current && site->client)
            sim_site_work(site);
        break;
    case SIM_SITE_WAKE:
        if (current && site->client)
            site_wakes(self, event);
        break;
    case SIM_SITE_AWAKE:
        if (current)
            sim_site_awake(site);
        break;
    case SIM_FAULT:
        sim_fault(self);
        break;
    default:
        sim_net_event(self, event);
        break;
    }
    fl_free(event->frame);
}

/* Whose turn comes first: an event, the hub's timer, or a site's. */
static void step(struct sim *self)
{
    struct sim_site *site = NULL;
    int64_t at = self->heap_count ? self->heap[0].at : INT64_MAX;
    bool hub = self->hub.server && self->hub.next_at < at;
    if (hub)
        at = self->hub.next_at;
    for (uint32_t i = 0; i < self->process_count; i++) {
        if (self->wake_at[i] < at) {
            site = &self->sites[i];
            at = self->wake_at[i];
        }
    }
    if (at == INT64_MAX) {
        sim_violation(self, "nothing happens any more");
        return;
    }
    self->now = at > self->now ? at : self->now;
    self->counts.steps++;
    mix(self, (uint64_t)self->now);
    if (site)
        sim_site_turn(site, NULL);
    else if (hub)
        sim_hub_turn(self);
    else {
        struct sim_event event = take_first(self);
        happen(self, &event);
    }
}

/* false: the run is over */
static bool go_on(struct sim *self)
{
    const struct sim_history *history = &self->history;
    if (self->failed)
        return false;
    if (self->faults && self->now >= self->heal_at)
        sim_heal(self);
    if (history->stuck)
        return false;
    if (history->state == FL_JOB_PAUSED)
        sim_operator_resume(self);
    if (!self->faults)
        sim_operator_allow_all(self);
    if (self->counts.steps > STEPS_MAX * (1 + self->site_count / SIM_FEW))
        sim_violation(self, "%" PRIu64 " steps", self->counts.steps);
    if (history->state != FL_JOB_DONE) {
        int64_t since = history->committed_at > self->heal_at ? history->committed_at
                                                              : self->heal_at;
        if (self->now > since + SETTLE_MS)
            sim_violation(self, "no round has ended for %d s since the last fault",
                          SETTLE_MS / 1000);
        return !self->failed;
    }
    if (!self->done_at)
        self->done_at = self->now;
    if (self->counts.steps % 16 == 0 && sim_check_delivered(self) && sim_check_ending(self))
        return false;
    int64_t from = self->done_at > self->heal_at ? self->done_at : self->heal_at;
    if (self->now > from + DELIVER_MS)
        sim_violation(self, sim_check_delivered(self)
                                ? "the job is done, and its audit log does not say so"
                                : "a site has not got the last version");
    return !self->failed;
}

static void set_world(struct sim *self)
{
    bool twin = self->site_count <= SIM_FEW && sim_chance(self, 25);
    self->process_count = self->site_count + twin;
    self->secure = sim_chance(self, 50);
    self->restores = sim_chance(self, 20);
    uint32_t rounds = 1 + sim_below(self, sim_chance(self, 20) ? SIM_ROUNDS_FEW : 4);
    if (self->rounds == 0)
        self->rounds = rounds;
    set_clock(self, &self->hub.time);
    for (uint32_t i = 0; i < self->process_count; i++) {
        self->wake_at[i] = INT64_MAX;
        set_clock(self, &self->sites[i].time);
        self->sites[i].owner = i < self->site_count ? i : sim_below(self, self->site_count);
    }
    if (sim_chance(self, 25))
        self->sites[sim_below(self, self->site_count)].hostile = true;
}

static void set_weather(struct sim *self)
{
    static const int64_t every[] = {400, 1000, 2500, 6000, 15000};
    self->latency_ms = 1 + sim_below(self, sim_chance(self, 20) ? 800 : 60);
    /* as much for each of many sites as for each of a few */
    self->fault_every_ms = every[sim_below(self, 5)] / (1 + self->site_count / 32);
    self->outbox_bytes = sim_chance(self, 30) ? 512 + sim_below(self, 8192) : 1u << 20;
    self->heal_at = 1000 + sim_below(self, 120000);
    if (self->rounds > SIM_ROUNDS_FEW) { /* as many faults, over all of a long job */
        self->heal_at *= 1 + self->rounds / 4;
        self->fault_every_ms *= 1 + self->rounds / 4;
    }
    self->faults = true;
}

/* No weather: only the crash that is asked for. */
static void set_calm(struct sim *self)
{
    self->process_count = self->site_count;
    self->latency_ms = 5;
    self->rounds = 2;
    self->heal_at = 0;
    self->faults = self->restores = false;
    for (uint32_t i = 0; i < self->site_count; i++)
        self->sites[i].hostile = false;
}

bool sim_run(struct sim *self)
{
    self->random = self->seed * 0x2545f4914f6cdd1du + self->site_count;
    self->digest = 0xcbf29ce484222325u;
    self->now = 1000;
    fl_store_crash_at(-1);
    sim_shares_forget();
    set_world(self);
    set_weather(self);
    if (self->walk.on)
        set_calm(self);
    if (sim_world_make(self)) {
        if (self->walk.on && !self->walk.in_store)
            sim_disk_die_at(self->walk.machine, self->walk.n);
        sim_schedule(self, self->now + sim_below(self, 3000), SIM_HUB_START)->life = 0;
        for (uint32_t i = 0; i < self->site_count; i++)
            sim_schedule(self, self->now + sim_below(self, 3000), SIM_SITE_START)->site = i;
        (void)sim_schedule(self, self->now + sim_below(self, 5000), SIM_FAULT);
        while (go_on(self))
            step(self);
    }
    fl_store_crash_at(-1);
    if (!self->failed)
        sim_check_audits(self);
    sim_world_free(self);
    return !self->failed;
}

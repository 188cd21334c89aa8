/* malice_liar.c - see malice_liar.h. */
#include "malice_liar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "crypto/sealed.h"
#include "job/offer.h"
#include "net/bulk.h"

#define HOUR_MS 3600000

/* ---- frames ---- */

static void sent(struct mal_site *site, const void *frame, size_t length)
{
    struct liar *self = site->world->owner;
    struct liar_frame *new = fl_calloc(1, sizeof(*new));
    uint8_t *copy = fl_malloc(length);
    if (!new || !copy)
        abort();
    memcpy(copy, frame, length);
    *new = (struct liar_frame){.site = site->index, .bytes = copy, .length = length};
    if (self->last)
        self->last->next = new;
    else
        self->first = new;
    self->last = new;
}

struct fl_wire liar_about(const struct liar *self, enum fl_wire_kind kind)
{
    return (struct fl_wire){
        .kind = kind, .job = self->job, .round = self->round, .attempt = self->attempt};
}

void liar_say(struct liar *self, uint32_t site, struct fl_wire *message)
{
    struct fl_buf frame;
    const struct liar_heard *heard = &self->heard[site];
    fl_buf_init(&frame, FL_FRAME_BYTES_MAX);
    message->has_nonce = heard->welcomed;
    memcpy(message->nonce, heard->nonce, FL_NONCE_BYTES);
    enum fl_status status = fl_wire_encode(message, &frame);
    mal_expect(status == FL_OK, "%s cannot be encoded", fl_wire_kind_name(message->kind));
    if (status == FL_OK)
        mal_frame(&self->mal.sites[site], frame.data, frame.length);
    fl_buf_free(&frame);
}

static void dialled(struct mal_site *site)
{
    struct liar *self = site->world->owner;
    self->heard[site->index].welcomed = false;
    sent(site, "", 0); /* the connection stands, see settle() */
}

static void welcome(struct liar *self, uint32_t site)
{
    struct liar_heard *heard = &self->heard[site];
    struct fl_wire message = {.kind = FL_WIRE_WELCOME};
    memset(heard->nonce, (int)(site + 1), FL_NONCE_BYTES);
    memcpy(message.as.welcome.nonce, heard->nonce, FL_NONCE_BYTES);
    (void)snprintf(message.as.welcome.name, FL_NAME_BYTES, "%s", self->mal.sites[site].name);
    message.as.welcome.heartbeat_ms = HOUR_MS;
    message.as.welcome.liveness_ms = 10 * HOUR_MS;
    liar_say(self, site, &message);
    heard->welcomed = true;
}

/* ---- objects, both ways ---- */

static void serve(struct liar *self, uint32_t site, const struct fl_wire *message)
{
    struct fl_chunk_message chunk;
    struct liar_heard *heard = &self->heard[site];
    if (!fl_bulk_from_wire(message, &chunk) || fl_serve_need(heard->serve, &chunk) != FL_OK)
        return;
    while (fl_serve_next(heard->serve, &chunk) == FL_OK) {
        struct fl_wire out = {.job = 0};
        fl_bulk_to_wire(&chunk, &out);
        liar_say(self, site, &out);
        fl_serve_sent(heard->serve);
    }
}

static void step_fetch(struct liar *self, uint32_t site, enum fl_fetch_event event,
                       const struct fl_chunk_message *chunk)
{
    struct liar_heard *heard = &self->heard[site];
    struct fl_fetch_effects effects = {.count = 0};
    if (!heard->fetch)
        return;
    enum fl_fetch_state state = fl_fetch_step(heard->fetch, event, chunk, self->mal.now, &effects);
    for (size_t i = 0; i < effects.count; i++) {
        struct fl_wire need = {.job = 0};
        fl_bulk_to_wire(&effects.messages[i], &need);
        liar_say(self, site, &need);
    }
    if (state == FL_FETCH_DONE) {
        const uint8_t *bytes = fl_fetch_data(heard->fetch, &heard->sealed_bytes);
        fl_free(heard->sealed);
        heard->sealed = fl_malloc(heard->sealed_bytes);
        if (!heard->sealed)
            abort();
        memcpy(heard->sealed, bytes, heard->sealed_bytes);
    }
    if (state == FL_FETCH_DONE || state == FL_FETCH_FAILED)
        fl_fetch_close(&heard->fetch);
    else if (state == FL_FETCH_VERIFY)
        step_fetch(self, site, FL_FETCH_TICK, NULL);
}

static void fetch(struct liar *self, uint32_t site)
{
    struct fl_error error;
    struct liar_heard *heard = &self->heard[site];
    struct fl_fetch_config config = {
        .size = heard->update.size, .size_max = 1u << 24, .progress_ms = HOUR_MS};
    memcpy(config.root, heard->update.root, FL_HASH_BYTES);
    if (heard->fetch)
        fl_fetch_close(&heard->fetch);
    if (fl_fetch_open(&config, &heard->fetch, &error) == FL_OK)
        step_fetch(self, site, FL_FETCH_ONLINE, NULL);
}

/* ---- what sites say ---- */

static void hear_update(struct liar *self, uint32_t site, const struct fl_object_ref *ref)
{
    struct liar_heard *heard = &self->heard[site];
    heard->updates += !heard->has_update ||
                      memcmp(heard->update.root, ref->root, FL_HASH_BYTES) != 0;
    heard->has_update = true;
    heard->update = *ref;
    if (self->fetches)
        fetch(self, site);
}

/* true: it is another one than before */
static bool keep(bool *has, uint8_t *to, size_t capacity, const void *bytes, size_t length)
{
    if (length > capacity)
        return false;
    bool new = !*has || memcmp(to, bytes, length) != 0;
    *has = true;
    memcpy(to, bytes, length);
    return new;
}

static void hear_masks(struct liar_heard *heard, const struct fl_wire *m)
{
    const struct fl_wire_bytes *list;
    switch (m->kind) {
    case FL_WIRE_ADVERT:
        heard->adverts += keep(&heard->has_advert, heard->advert, sizeof(heard->advert),
                               m->as.advert.advert, FL_SECAGG_ADVERT_BYTES);
        break;
    case FL_WIRE_SHARES:
        list = &m->as.shares.sealed;
        heard->sharings += keep(&heard->has_shares, heard->shares, sizeof(heard->shares),
                                list->data, list->length);
        heard->shares_bytes = list->length;
        break;
    case FL_WIRE_SIGNED:
        heard->signatures += keep(&heard->has_signature, heard->signature, sizeof(heard->signature),
                                  m->as.signed_.signature, FL_SIGNATURE_BYTES);
        break;
    default:
        list = &m->as.answer.answer;
        heard->answers += keep(&heard->has_answer, heard->answer, sizeof(heard->answer), list->data,
                               list->length);
        heard->answer_bytes = list->length;
        break;
    }
}

static void hear(struct liar *self, uint32_t site, const struct fl_wire *m)
{
    struct fl_chunk_message chunk;
    struct liar_heard *heard = &self->heard[site];
    if (m->kind == FL_WIRE_HELLO) {
        welcome(self, site);
    } else if (m->kind == FL_WIRE_FIT) {
        heard->has_fit = true;
        heard->fit = m->as.fit;
    } else if (m->kind == FL_WIRE_TRAINED) {
        heard->trained = true;
    } else if (m->kind == FL_WIRE_FAILED) {
        heard->failed = true;
        heard->failure = m->as.failed;
    } else if (m->kind == FL_WIRE_UPLOAD) {
        hear_update(self, site, &m->as.upload.update);
    } else if (m->kind == FL_WIRE_NEED) {
        serve(self, site, m);
    } else if (m->kind == FL_WIRE_PAGE || m->kind == FL_WIRE_CHUNK || m->kind == FL_WIRE_MISSING) {
        heard->chunks += m->kind == FL_WIRE_CHUNK;
        if (fl_bulk_from_wire(m, &chunk))
            step_fetch(self, site, FL_FETCH_MESSAGE, &chunk);
    } else if (m->kind >= FL_WIRE_KEYS && m->kind <= FL_WIRE_ANSWER) {
        hear_masks(heard, m);
    }
}

static bool deliver(struct liar *self)
{
    struct fl_wire message;
    struct fl_error error;
    struct liar_frame *frame = self->first;
    if (!frame)
        return false;
    self->first = frame->next;
    if (!self->first)
        self->last = NULL;
    if (frame->length == 0) {
        const struct fl_link_event up = {.kind = FL_LINK_UP};
        mal_event(&self->mal.sites[frame->site], &up);
    } else if (fl_wire_decode(frame->bytes, frame->length, &message, &error) == FL_OK) {
        hear(self, frame->site, &message);
        fl_wire_free(&message);
    } else {
        mal_expect(false, "a site says what cannot be read: %s", error.text);
    }
    fl_free(frame->bytes);
    fl_free(frame);
    return true;
}

void liar_settle(struct liar *self)
{
    bool more = true;
    for (unsigned turns = 0; more; turns++) {
        more = deliver(self);
        for (uint32_t i = 0; i < self->mal.count; i++)
            more = mal_work(&self->mal.sites[i]) || more;
        if (turns > 20000) {
            mal_expect(false, "it never ends");
            return;
        }
    }
}

/* ---- the job ---- */

static bool make_start(struct liar *self, uint64_t seed, uint8_t root[FL_HASH_BYTES])
{
    struct fl_error error;
    struct fl_buf bytes;
    struct fl_adapter *start = NULL;
    struct fl_object *object = NULL;
    fl_buf_init(&bytes, 1u << 24);
    enum fl_status status = fl_adapter_create(&self->targets, 4, self->spec->alpha, NULL, &start,
                                              &error);
    if (status == FL_OK) {
        fl_adapter_init(start, seed);
        status = fl_adapter_encode(start, &bytes, &error);
    }
    if (status == FL_OK)
        status = fl_object_open_memory(bytes.data, bytes.length, &object, &error);
    if (status == FL_OK) {
        memcpy(root, fl_object_root(object), FL_HASH_BYTES);
        self->start_bytes = fl_object_size(object);
        status = fl_shelf_put(self->shelf, &object);
    }
    fl_object_close(&object);
    fl_adapter_destroy(&start);
    fl_buf_free(&bytes);
    return status == FL_OK;
}

static bool make_job(struct liar *self, const char *more)
{
    struct fl_buf text;
    struct fl_error error = {FL_OK, "out of memory"};
    static struct fl_module modules[LIAR_MODULES] = {
        {.name = "model.layers.0.self_attn.q_proj", .out = 6, .in = 8, .layer = 0},
        {.name = "model.layers.0.self_attn.v_proj", .out = 5, .in = 8, .layer = 0},
        {.name = "model.layers.1.self_attn.q_proj", .out = 6, .in = 8, .layer = 1}};
    fl_buf_init(&text, 65536);
    fl_buf_printf(&text,
                  "[job]\nname = lies\nrounds = 4\nstrategy = alternating\nseed = 5\n"
                  "[model]\nname = tiny\nsha256 = %064d\n"
                  "[lora]\ntargets = q_proj,v_proj\nalpha = 8\n[ranks]\ndefault = 4\n"
                  "%s"
                  "[privacy]\nsecure_aggregation = on\nupdate_range = 0.5\n"
                  "[train]\nsteps = 2\nbatch_size = 2\nseq_len = 8\nlr = 0.05\n%s",
                  7, strstr(more, "[cohort]") ? "" : "[cohort]\nmin_workers = 3\n", more);
    self->spec = fl_calloc(1, sizeof(*self->spec));
    enum fl_status status = self->spec ? fl_job_parse(fl_buf_text(&text), text.length, "job.conf",
                                                      self->spec, &error)
                                       : FL_ENOMEM;
    if (status == FL_OK)
        status = fl_job_sha256(self->spec, self->job_hash);
    fl_buf_free(&text);
    self->targets = (struct fl_inventory){
        .modules = fl_calloc(LIAR_MODULES, sizeof(*modules)), .count = LIAR_MODULES, .layers = 2};
    if (status == FL_OK && self->targets.modules)
        memcpy(self->targets.modules, modules, sizeof(modules));
    else
        (void)fprintf(stderr, "%s\n", error.text);
    return status == FL_OK && fl_shelf_create(&self->shelf) == FL_OK &&
           fl_box_keys_generate(fl_entropy_system(), &self->keys) == FL_OK &&
           make_start(self, 1, self->start_root[0]) && make_start(self, 2, self->start_root[1]);
}

bool liar_open(struct liar *self, uint32_t count, const char *policy, const char *job)
{
    memset(self, 0, sizeof(*self));
    self->mal.owner = self;
    self->mal.sent = sent;
    self->mal.dialled = dialled;
    self->fetches = true;
    fl_buf_init(&self->plan, FL_SECAGG_PLAN_BYTES_MAX);
    if (!mal_make(&self->mal, count, policy) || !make_job(self, job))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (fl_serve_create(self->shelf, &self->heard[i].serve) != FL_OK)
            return false;
        self->members[i] = i;
        self->ranks[i] = 4;
        mal_start(&self->mal.sites[i]);
    }
    self->count = count;
    liar_settle(self);
    liar_begin(self, 1, 1, 1);
    return true;
}

void liar_close(struct liar *self)
{
    while (self->first) {
        struct liar_frame *next = self->first->next;
        fl_free(self->first->bytes);
        fl_free(self->first);
        self->first = next;
    }
    for (uint32_t i = 0; i < self->mal.count; i++) {
        fl_free(self->heard[i].sealed);
        if (self->heard[i].fetch)
            fl_fetch_close(&self->heard[i].fetch);
        fl_serve_destroy(&self->heard[i].serve);
    }
    fl_layout_destroy(&self->layout);
    fl_buf_free(&self->plan);
    fl_inventory_free(&self->targets);
    fl_shelf_destroy(&self->shelf);
    fl_box_keys_destroy(&self->keys);
    fl_free(self->spec);
    mal_free(&self->mal);
}

void liar_begin(struct liar *self, uint64_t job, uint32_t round, uint32_t attempt)
{
    self->job = job;
    self->round = round;
    self->attempt = attempt;
    self->retraining = 0;
    for (uint32_t i = 0; i < self->mal.count; i++) {
        struct liar_heard *h = &self->heard[i];
        h->has_fit = h->trained = h->failed = h->has_advert = h->has_shares = false;
        h->has_update = h->has_signature = h->has_answer = false;
        fl_free(h->sealed);
        h->sealed = NULL;
        self->survives[i] = i < self->count;
    }
    fl_layout_destroy(&self->layout);
    memset(&self->cohort, 0, sizeof(self->cohort));
}

void liar_leave_out(struct liar *self, uint32_t site)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < self->count; i++) {
        if (self->members[i] != site)
            self->members[kept++] = self->members[i];
    }
    self->count = kept;
}

/* ---- the messages of an honest coordinator ---- */

void liar_fill_offer(struct liar *self, uint32_t site, struct fl_wire *out)
{
    *out = liar_about(self, FL_WIRE_OFFER);
    fl_job_offer(self->spec, self->job_hash, self->mal.sites[site].name, &out->as.offer);
    out->as.offer.retraining = self->retraining;
}

static void put_ranks(uint8_t *to, uint16_t rank)
{
    for (uint32_t i = 0; i < LIAR_MODULES; i++) {
        to[2 * i] = (uint8_t)rank;
        to[2 * i + 1] = 0;
    }
}

void liar_fill_task(struct liar *self, uint32_t site, struct fl_wire *out)
{
    struct fl_wire_task *task = &out->as.task;
    *out = liar_about(self, FL_WIRE_TASK);
    put_ranks(self->global_ranks, 4);
    put_ranks(self->site_ranks, self->ranks[site]);
    memcpy(task->start.root, self->start_root[0], FL_HASH_BYTES);
    task->start.size = self->start_bytes;
    task->version = self->round - 1;
    task->global_ranks = (struct fl_wire_bytes){self->global_ranks, sizeof(self->global_ranks)};
    task->site_ranks = (struct fl_wire_bytes){self->site_ranks, sizeof(self->site_ranks)};
    task->train = task->train_b = true;
    task->first_step = (self->round - 1) * self->spec->steps;
    task->total_steps = self->spec->rounds * self->spec->steps;
}

static void make_context(struct liar *self)
{
    struct fl_wire offer, task;
    uint16_t global[LIAR_MODULES] = {4, 4, 4};
    liar_fill_offer(self, 0, &offer);
    liar_fill_task(self, 0, &task);
    self->context = (struct fl_secagg_context){
        .job = self->job,
        .round = self->round,
        .attempt = self->attempt,
        .elements = fl_layout_elements(&self->targets, global, FL_FACTOR_B)};
    fl_job_binding(&offer.as.offer, &task.as.task, self->context.job_hash);
    memcpy(self->context.manifest, offer.as.offer.manifest, FL_HASH_BYTES);
    memcpy(self->context.start, task.as.task.start.root, FL_HASH_BYTES);
}

static bool make_plan(struct liar *self, struct fl_rank_plan *plan)
{
    if (fl_rank_plan_create(plan, self->count, LIAR_MODULES) != FL_OK)
        return false;
    for (uint32_t m = 0; m < LIAR_MODULES; m++) {
        plan->global[m] = 4;
        for (uint32_t i = 0; i < self->count; i++)
            plan->ranks[i * LIAR_MODULES + m] = self->ranks[self->members[i]];
    }
    return true;
}

void liar_fill_cohort(struct liar *self, struct fl_wire *out)
{
    struct fl_error error;
    struct fl_rank_plan plan;
    struct fl_secagg_advert adverts[MAL_SITES_MAX];
    *out = liar_about(self, FL_WIRE_COHORT);
    make_context(self);
    for (uint32_t i = 0; i < self->count; i++) {
        const uint8_t *advert = self->heard[self->members[i]].advert;
        memcpy(self->adverts + (size_t)i * FL_SECAGG_ADVERT_BYTES, advert, FL_SECAGG_ADVERT_BYTES);
        if (fl_secagg_advert_decode(advert, &adverts[i]) != FL_OK)
            memset(&adverts[i], 0, sizeof(adverts[i]));
    }
    (void)!fl_secagg_cohort_check(&self->context, adverts, self->count, &self->cohort, &error);
    if (!make_plan(self, &plan))
        abort();
    fl_buf_free(&self->plan);
    fl_layout_destroy(&self->layout);
    if (fl_secagg_plan_encode(plan.ranks, plan.sites, plan.modules, &self->plan) != FL_OK ||
        fl_layout_create(&self->targets, &plan, FL_FACTOR_B,
                         (struct fl_ranges){.b = self->spec->update_range}, &self->layout,
                         &error) != FL_OK)
        mal_expect(false, "no layout");
    fl_rank_plan_free(&plan);
    out->as.cohort.adverts = (struct fl_wire_bytes){self->adverts,
                                                    (size_t)self->count * FL_SECAGG_ADVERT_BYTES};
    out->as.cohort.plan = (struct fl_wire_bytes){self->plan.data, self->plan.length};
}

static uint32_t position_of(const struct liar *self, uint32_t site)
{
    uint32_t i = 0;
    while (i + 1 < self->count && self->members[i] != site)
        i++;
    return i;
}

void liar_fill_collect(struct liar *self, uint32_t site, struct fl_wire *out)
{
    uint32_t own = position_of(self, site);
    struct fl_wire_collect *collect = &out->as.collect;
    *out = liar_about(self, FL_WIRE_COLLECT);
    for (uint32_t i = 0; i < self->count; i++) {
        const struct liar_heard *heard = &self->heard[self->members[i]];
        self->sharers[i] = heard->has_shares;
        memcpy(self->shares + (size_t)i * LIAR_SHARE_BYTES,
               heard->shares + (size_t)own * LIAR_SHARE_BYTES, LIAR_SHARE_BYTES);
    }
    collect->cohort = self->count;
    if (self->layout)
        collect->tiers = (struct fl_wire_bytes){fl_layout_site_tiers(self->layout, own),
                                                self->layout->tier_count};
    memcpy(collect->sealing_key, fl_box_keys_public(self->keys), FL_KEY_BYTES);
    collect->sharers = (struct fl_wire_bytes){self->sharers, self->count};
    collect->shares = (struct fl_wire_bytes){self->shares, (size_t)self->count * LIAR_SHARE_BYTES};
}

void liar_fill_survivors(struct liar *self, struct fl_wire *out)
{
    *out = liar_about(self, FL_WIRE_SURVIVORS);
    for (uint32_t i = 0; i < self->count; i++)
        self->survivors[i] = self->survives[self->members[i]];
    out->as.survivors.survivors = (struct fl_wire_bytes){self->survivors, self->count};
}

void liar_fill_unmask(struct liar *self, struct fl_wire *out)
{
    liar_fill_survivors(self, out);
    *out = liar_about(self, FL_WIRE_UNMASK);
    for (uint32_t i = 0; i < self->count; i++) {
        const struct liar_heard *heard = &self->heard[self->members[i]];
        self->signed_by[i] = heard->has_signature;
        memcpy(self->signatures + (size_t)i * FL_SIGNATURE_BYTES, heard->signature,
               FL_SIGNATURE_BYTES);
    }
    out->as.unmask.survivors = (struct fl_wire_bytes){self->survivors, self->count};
    out->as.unmask.signed_by = (struct fl_wire_bytes){self->signed_by, self->count};
    out->as.unmask.signatures = (struct fl_wire_bytes){self->signatures,
                                                       (size_t)self->count * FL_SIGNATURE_BYTES};
}

/* ---- honest steps ---- */

static void fill(struct liar *self, enum liar_stage to, uint32_t site, struct fl_wire *out)
{
    switch (to) {
    case LIAR_OFFERED:
        liar_fill_offer(self, site, out);
        break;
    case LIAR_TRAINED:
        liar_fill_task(self, site, out);
        break;
    case LIAR_KEYED:
        *out = liar_about(self, FL_WIRE_KEYS);
        break;
    case LIAR_SHARED:
        liar_fill_cohort(self, out);
        break;
    case LIAR_UPLOADED:
        liar_fill_collect(self, site, out);
        break;
    case LIAR_SIGNED:
        liar_fill_survivors(self, out);
        break;
    default:
        liar_fill_unmask(self, out);
        break;
    }
}

void liar_step(struct liar *self, enum liar_stage to, uint32_t site)
{
    struct fl_wire message;
    fill(self, to, site, &message);
    liar_say(self, site, &message);
    liar_settle(self);
}

void liar_step_all(struct liar *self, enum liar_stage to)
{
    for (uint32_t i = 0; i < self->count; i++)
        liar_step(self, to, self->members[i]);
}

void liar_go(struct liar *self, enum liar_stage to)
{
    for (int stage = LIAR_OFFERED; stage <= (int)to; stage++)
        liar_step_all(self, (enum liar_stage)stage);
}

/* ---- what it learns ---- */

static bool plain_of(struct liar *self, uint32_t site, uint8_t *plain, size_t bytes)
{
    size_t got = 0;
    struct fl_error error;
    struct fl_opener *opener = NULL;
    const struct liar_heard *heard = &self->heard[site];
    const struct fl_seal_context context = {.purpose = "update",
                                            .sender = self->mal.sites[site].name,
                                            .job = self->job,
                                            .round = self->round,
                                            .attempt = self->attempt};
    if (!heard->sealed ||
        fl_opener_open(fl_box_keys_public(self->keys), fl_box_keys_secret(self->keys), &context,
                       heard->sealed, heard->sealed_bytes, &opener, &error) != FL_OK)
        return false;
    bool good = fl_opener_read(opener, plain, bytes, &got, &error) == FL_OK && got == bytes;
    fl_opener_close(&opener);
    return good;
}

static bool holds(struct liar *self, const uint32_t *vector, bool single)
{
    struct fl_grid grid;
    if (fl_job_grid(self->spec, self->count, &grid) != FL_OK)
        return false;
    for (uint64_t i = 0; i < self->layout->elements; i++) {
        if (!fl_grid_holds(&grid, vector[i], single))
            return false;
    }
    return true;
}

bool liar_reads(struct liar *self, uint32_t site)
{
    size_t bytes = (size_t)fl_layout_update_bytes(self->layout);
    uint32_t *vector = fl_calloc(self->layout->elements, sizeof(*vector));
    uint8_t *plain = fl_malloc(bytes);
    bool good = vector && plain && plain_of(self, site, plain, bytes);
    if (good) {
        fl_ring_add(vector, plain + FL_UPDATE_HEADER_BYTES + 8 * self->layout->scalar_count,
                    self->layout->elements);
        good = holds(self, vector, true);
    }
    fl_free(plain);
    fl_free(vector);
    return good;
}

static bool add_update(struct liar *self, uint32_t site, uint32_t *vector, uint64_t *scalars)
{
    size_t bytes = (size_t)fl_layout_update_bytes(self->layout);
    uint8_t *plain = fl_malloc(bytes);
    bool good = plain && plain_of(self, site, plain, bytes);
    for (uint32_t i = 0; good && i < self->layout->scalar_count; i++)
        scalars[i] += fl_load_u64(plain + FL_UPDATE_HEADER_BYTES + 8 * (size_t)i);
    if (good)
        fl_ring_add(vector, plain + FL_UPDATE_HEADER_BYTES + 8 * self->layout->scalar_count,
                    self->layout->elements);
    fl_free(plain);
    return good;
}

bool liar_open_sum(struct liar *self)
{
    struct fl_error error = {FL_OK, "an update is missing"};
    uint32_t n = self->count;
    struct fl_secagg_set sharers = {0}, survivors = {0}, answered = {0};
    uint32_t *vector = fl_calloc(self->layout->elements, sizeof(*vector));
    uint64_t *scalars = fl_calloc(self->layout->scalar_count, sizeof(*scalars));
    uint8_t *answers = fl_calloc((size_t)n * n, FL_SCALAR_BYTES);
    bool good = vector && scalars && answers;
    for (uint32_t i = 0; i < n && good; i++) {
        const struct liar_heard *heard = &self->heard[self->members[i]];
        sharers.has[i] = heard->has_shares;
        survivors.has[i] = self->survives[self->members[i]];
        answered.has[i] = heard->has_answer;
        memcpy(answers + (size_t)i * n * FL_SCALAR_BYTES, heard->answer, n * FL_SCALAR_BYTES);
        if (survivors.has[i])
            good = add_update(self, self->members[i], vector, scalars);
    }
    good = good &&
           fl_secagg_unmask(&self->context, &self->cohort, &sharers, &survivors, &answered, answers,
                            vector, scalars, self->layout->scalar_count, NULL, &error) == FL_OK &&
           holds(self, vector, false);
    fl_free(vector);
    fl_free(scalars);
    fl_free(answers);
    return good;
}

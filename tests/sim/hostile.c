/*
 * hostile.c - a site whose process lies: what it says is well-formed, in its own session, and
 * false. And what any site's socket may do: say again what it said before, or the same thing twice.
 */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "proto/wire.h"
#include "sim.h"

/* ---- frames that come again ---- */

void sim_hostile_keep(struct sim_site *site, const void *frame, size_t length)
{
    struct sim_memory *kept = &site->said[site->said_next++ % SIM_MEMORY];
    kept->length = length <= sizeof(kept->bytes) ? length : 0;
    if (kept->length)
        memcpy(kept->bytes, frame, length);
}

/* In front of HELLO, as a DEALER does that was not closed. */
void sim_hostile_replay(struct sim_site *site)
{
    struct sim *self = site->sim;
    uint32_t frames = 1 + sim_below(self, SIM_MEMORY);
    for (uint32_t i = 0; i < frames; i++) {
        const struct sim_memory *kept = &site->said[sim_below(self, SIM_MEMORY)];
        if (kept->length)
            sim_net_say(site, kept->bytes, kept->length);
    }
    self->counts.replays++;
}

/* ---- values ---- */

static uint32_t odd_u32(struct sim *self, uint32_t was)
{
    switch (sim_below(self, 6)) {
    case 0:
        return 0;
    case 1:
        return UINT32_MAX;
    case 2:
        return was + 1;
    case 3:
        return was - 1;
    case 4:
        return was + 1000;
    default:
        return (uint32_t)sim_random(self);
    }
}

static uint64_t odd_u64(struct sim *self, uint64_t was)
{
    return sim_chance(self, 50) ? odd_u32(self, (uint32_t)was) : sim_random(self);
}

static double odd_double(struct sim *self)
{
    static const double odd[] = {0.0, -0.0, -1.0, 1e-320, 1e300, -1e300, (double)NAN, HUGE_VAL};
    return odd[sim_below(self, sizeof(odd) / sizeof(odd[0]))];
}

static void flip(struct sim *self, uint8_t *bytes, size_t length)
{
    bytes[sim_below(self, (uint32_t)length)] ^= (uint8_t)(1 + sim_below(self, 255));
}

/* ---- messages ---- */

static void lie_in_object(struct sim *self, struct fl_wire *m)
{
    if (m->kind == FL_WIRE_NEED) {
        m->as.need.first = odd_u32(self, m->as.need.first);
        m->as.need.count = odd_u32(self, m->as.need.count);
        m->as.need.pages = sim_chance(self, 50);
    } else if (m->kind == FL_WIRE_PAGE) {
        m->as.page.index = odd_u32(self, m->as.page.index);
        m->as.page.chunk_count = odd_u32(self, m->as.page.chunk_count);
        m->as.page.size = odd_u64(self, m->as.page.size);
    } else if (m->kind == FL_WIRE_CHUNK && sim_chance(self, 50))
        m->as.chunk.index = odd_u32(self, m->as.chunk.index);
    else if (m->kind == FL_WIRE_CHUNK)
        m->as.chunk.data.length = 1 + sim_below(self, (uint32_t)m->as.chunk.data.length);
}

static void lie_in_trained(struct sim *self, struct fl_wire *m)
{
    m->as.trained.steps = odd_u32(self, m->as.trained.steps);
    m->as.trained.seconds = odd_double(self);
    m->as.trained.share_eval = sim_chance(self, 50);
    m->as.trained.eval_loss_sum = odd_double(self);
    m->as.trained.eval_tokens = odd_u64(self, m->as.trained.eval_tokens);
}

/* A lie about what the message itself is about. What a site may say truthfully too, that it refuses
   the job for ever or has another model, is no lie that the coordinator could see through. */
static void lie(struct sim *self, struct fl_wire *m)
{
    switch (m->kind) {
    case FL_WIRE_HELLO:
        m->as.hello.last_job = odd_u64(self, m->as.hello.last_job);
        m->as.hello.last_round = odd_u32(self, m->as.hello.last_round);
        m->as.hello.last_attempt = odd_u32(self, m->as.hello.last_attempt);
        m->as.hello.has_last_version = sim_chance(self, 50);
        flip(self, m->as.hello.last_version, FL_HASH_BYTES);
        break;
    case FL_WIRE_HEARTBEAT:
        m->as.heartbeat.step = odd_u32(self, 0);
        m->as.heartbeat.steps = odd_u32(self, 0);
        m->as.heartbeat.tokens_per_second = odd_double(self);
        break;
    case FL_WIRE_TRAINED:
        lie_in_trained(self, m);
        break;
    case FL_WIRE_UPLOAD:
        if (sim_chance(self, 50))
            m->as.upload.update.size = odd_u64(self, m->as.upload.update.size);
        else
            flip(self, m->as.upload.update.root, FL_HASH_BYTES);
        break;
    case FL_WIRE_FAILED:
        m->as.failed.retry_after_ms = odd_u32(self, m->as.failed.retry_after_ms);
        break;
    default:
        lie_in_object(self, m);
        break;
    }
}

/* It is about something else than the site was asked. */
static void stray(struct sim *self, struct fl_wire *m)
{
    switch (sim_below(self, 4)) {
    case 0:
        m->job = odd_u64(self, m->job);
        break;
    case 1:
        m->round = odd_u32(self, m->round);
        break;
    case 2:
        m->attempt = odd_u32(self, m->attempt);
        break;
    default:
        flip(self, m->nonce, FL_NONCE_BYTES);
        break;
    }
}

/* A heartbeat that is something else. */
static void invent(struct sim *self, struct fl_wire *m)
{
    static const enum fl_wire_kind kinds[] = {FL_WIRE_TRAINED, FL_WIRE_UPLOAD,  FL_WIRE_NEED,
                                              FL_WIRE_MISSING, FL_WIRE_WELCOME, FL_WIRE_RECEIPT,
                                              FL_WIRE_VERSION, FL_WIRE_JOIN};
    if (m->kind != FL_WIRE_HEARTBEAT)
        return;
    memset(&m->as, 0, sizeof(m->as));
    m->kind = kinds[sim_below(self, sizeof(kinds) / sizeof(kinds[0]))];
    m->job = SIM_JOB;
    m->round = self->history.round;
    m->attempt = self->history.attempt;
    if (m->kind == FL_WIRE_UPLOAD)
        m->as.upload.update.size = 1 + sim_below(self, 2000);
}

bool sim_hostile_say(struct sim_site *site, const void *frame, size_t length)
{
    struct sim *self = site->sim;
    struct fl_wire message;
    struct fl_error error;
    struct fl_buf out;
    if (!site->hostile || !self->faults || !sim_chance(self, 12) ||
        fl_wire_decode(frame, length, &message, &error) != FL_OK)
        return false;
    fl_buf_init(&out, FL_FRAME_BYTES_MAX);
    if (sim_chance(self, 30))
        invent(self, &message);
    else if (sim_chance(self, 40))
        stray(self, &message);
    else
        lie(self, &message);
    bool said = fl_wire_encode(&message, &out) == FL_OK;
    if (said) {
        self->counts.lies++;
        sim_check_frame(site, out.data, out.length);
        sim_net_say(site, out.data, out.length);
    }
    fl_buf_free(&out);
    fl_wire_free(&message);
    return said;
}

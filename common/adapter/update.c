/*
 * update.c - the bytes of an update: encoding at the site, streaming decode and checks at the
 * coordinator, the hash of a sum. The form is in layout.h.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "adapter/layout.h"
#include "base/buf.h"

#define MAGIC       "FLUPDT01"
#define BATCH_WORDS 4096

/* ---- encoding ---- */

static const struct fl_lora_module *delta_of(const struct fl_adapter *delta,
                                             const struct fl_segment *segment)
{
    return &delta->modules[segment->module];
}

static enum fl_status check_delta(const struct fl_layout *layout, uint32_t site,
                                  const struct fl_adapter *delta, struct fl_error *error)
{
    if (layout->segment_count == 0)
        return FL_OK;
    if (delta == NULL || delta->count != layout->ranks.modules)
        return fl_fail(error, FL_EINVAL, "the delta has other modules than the round");
    for (uint32_t s = 0; s < layout->segment_count; s++) {
        const struct fl_segment *segment = &layout->segments[s];
        const struct fl_lora_module *module = delta_of(delta, segment);
        const struct fl_segment_part part = fl_segment_part(segment, module);
        size_t own = layout->ranks.ranks[(size_t)site * layout->ranks.modules + segment->module];

        if (module->rank != own || !fl_segment_fits(segment, module))
            return fl_fail(error, FL_EINVAL, "%s: the delta has another shape than the round",
                           module->module.name);
        for (size_t i = 0; i < (size_t)part.rows * part.columns; i++)
            if (!isfinite(part.values[i]))
                return fl_fail(error, FL_EINVAL, "%s: the update holds NaN or Inf",
                               module->module.name);
    }
    return FL_OK;
}

static enum fl_status fixed_loss(double sum, uint64_t *out, struct fl_error *error)
{
    if (!isfinite(sum) || sum < 0.0)
        return fl_fail(error, FL_EINVAL, "a loss sum is not a number >= 0");
    double scaled = sum * FL_LOSS_SCALE;
    *out = scaled >= (double)FL_SCALAR_MAX ? FL_SCALAR_MAX : (uint64_t)fl_round_half_even(scaled);
    return FL_OK;
}

static uint64_t capped(uint64_t value)
{
    return value > FL_SCALAR_MAX ? FL_SCALAR_MAX : value;
}

/* The scalars behind the tiers, but for the counts of cut and sent values. */
static enum fl_status site_scalars(const struct fl_update_stats *stats,
                                   uint64_t scalars[FL_SCALAR_COUNT], struct fl_error *error)
{
    enum fl_status status = fixed_loss(stats->eval_loss_sum, &scalars[FL_SCALAR_EVAL_LOSS], error);

    if (status == FL_OK)
        status = fixed_loss(stats->train_loss_sum, &scalars[FL_SCALAR_TRAIN_LOSS], error);
    scalars[FL_SCALAR_EVAL_TOKENS] = capped(stats->eval_tokens);
    scalars[FL_SCALAR_TRAIN_TOKENS] = capped(stats->train_tokens);
    return status;
}

/* One segment: the site's prefix on the grid, zeros elsewhere. Returns the number of own values. */
static uint64_t put_segment(const struct fl_grid *grid, const struct fl_segment *segment,
                            const struct fl_lora_module *module, uint64_t weight,
                            struct fl_buf *out, uint64_t *cut)
{
    const struct fl_segment_part own = fl_segment_part(segment, module);
    uint8_t batch[4 * BATCH_WORDS];
    size_t filled = 0;

    for (uint32_t row = 0; row < segment->rows; row++) {
        for (uint32_t column = 0; column < segment->columns; column++) {
            uint32_t q = 0;
            if (row < own.rows && column < own.columns)
                q = fl_grid_encode(grid, (double)own.values[(size_t)row * own.columns + column],
                                   segment->range, weight, cut);
            fl_store_u32(batch + 4 * filled++, q);
            if (filled == BATCH_WORDS) {
                fl_buf_append(out, batch, sizeof batch);
                filled = 0;
            }
        }
    }
    fl_buf_append(out, batch, 4 * filled);
    return (uint64_t)own.rows * own.columns;
}

static void put_header(const struct fl_layout *layout, struct fl_buf *out)
{
    fl_buf_append(out, MAGIC, 8);
    fl_buf_u64(out, layout->elements);
    fl_buf_u64(out, layout->scalar_count);
}

enum fl_status fl_update_encode(const struct fl_layout *layout, const struct fl_grid *grid,
                                uint32_t site, const struct fl_adapter *delta,
                                const struct fl_update_stats *stats, struct fl_buf *out,
                                uint64_t *cut, struct fl_error *error)
{
    uint64_t weight = stats->weight < grid->w_max ? stats->weight : grid->w_max;
    uint64_t scalars[FL_SCALAR_COUNT] = {0};
    enum fl_status status = site_scalars(stats, scalars, error);
    size_t begin = out->length;

    assert(site < layout->ranks.sites);
    if (status == FL_OK)
        status = check_delta(layout, site, delta, error);
    if (status != FL_OK)
        return status;
    if (weight == 0 && layout->segment_count > 0)
        return fl_fail(error, FL_EINVAL, "an update without scored tokens has no weight");
    put_header(layout, out);
    for (uint32_t t = 0; t < layout->tier_count; t++)
        fl_buf_u64(out, fl_layout_site_tiers(layout, site)[t] ? weight : 0);
    for (uint32_t i = 0; i < FL_SCALAR_COUNT; i++)
        fl_buf_u64(out, scalars[i]);
    for (uint32_t s = 0; s < layout->segment_count; s++)
        scalars[FL_SCALAR_VALUES] += put_segment(grid, &layout->segments[s],
                                                 delta_of(delta, &layout->segments[s]), weight, out,
                                                 &scalars[FL_SCALAR_CUT]);
    if (fl_buf_status(out) != FL_OK)
        return fl_fail(error, fl_buf_status(out), "encoding the update: %s",
                       fl_status_text(fl_buf_status(out)));
    /* the two counts are known only now */
    uint8_t *counts = out->data + begin + FL_UPDATE_HEADER_BYTES + 8ull * layout->tier_count;
    fl_store_u64(counts + 8 * FL_SCALAR_CUT, scalars[FL_SCALAR_CUT]);
    fl_store_u64(counts + 8 * FL_SCALAR_VALUES, scalars[FL_SCALAR_VALUES]);
    if (cut != NULL)
        *cut = scalars[FL_SCALAR_CUT];
    return FL_OK;
}

/* ---- reading ---- */

void fl_update_reader_init(struct fl_update_reader *self, const struct fl_layout *layout,
                           const struct fl_grid *grid, uint32_t site, uint32_t *vector,
                           uint64_t *scalars)
{
    assert(site == FL_SITE_UNKNOWN || site < layout->ranks.sites);
    *self = (struct fl_update_reader){
        .layout = layout, .grid = grid, .site = site, .vector = vector, .scalars = scalars};
}

static enum fl_status take_header(const struct fl_update_reader *self, const uint8_t *word,
                                  struct fl_error *error)
{
    const struct fl_layout *layout = self->layout;

    if (self->position == 0 && memcmp(word, MAGIC, 8) != 0)
        return fl_fail(error, FL_EFORMAT, "not an update: wrong first bytes");
    if (self->position == 8 && fl_load_u64(word) != layout->elements)
        return fl_fail(error, FL_EFORMAT, "the update holds %llu values, the round has %llu",
                       (unsigned long long)fl_load_u64(word), (unsigned long long)layout->elements);
    if (self->position == 16 && fl_load_u64(word) != layout->scalar_count)
        return fl_fail(error, FL_EFORMAT, "the update holds %llu scalars, the round has %u",
                       (unsigned long long)fl_load_u64(word), layout->scalar_count);
    return FL_OK;
}

/* Hold one scalar of a known site against what it may send. */
static enum fl_status check_scalar(struct fl_update_reader *self, uint32_t index, uint64_t value,
                                   struct fl_error *error)
{
    const struct fl_layout *layout = self->layout;

    if (index >= layout->tier_count) {
        bool counts = index - layout->tier_count >= FL_SCALAR_CUT;
        if (value > (counts ? layout->elements : FL_SCALAR_MAX))
            return fl_fail(error, FL_EFORMAT, "a scalar of the update is beyond its bound");
        return FL_OK;
    }
    if (!fl_layout_site_tiers(layout, self->site)[index]) {
        if (value != 0)
            return fl_fail(error, FL_EFORMAT, "the update has weight in a tier not its own");
        return FL_OK;
    }
    if (value == 0 || value > self->grid->w_max)
        return fl_fail(error, FL_EFORMAT, "the update's weight %llu is not in 1..%llu",
                       (unsigned long long)value, (unsigned long long)self->grid->w_max);
    if (self->weight != 0 && value != self->weight)
        return fl_fail(error, FL_EFORMAT, "the update's weight differs between tiers");
    self->weight = value;
    return FL_OK;
}

static enum fl_status take_scalar(struct fl_update_reader *self, const uint8_t *word,
                                  struct fl_error *error)
{
    uint32_t index = (uint32_t)((self->position - FL_UPDATE_HEADER_BYTES) / 8);
    uint64_t value = fl_load_u64(word);

    if (self->site != FL_SITE_UNKNOWN) {
        enum fl_status status = check_scalar(self, index, value, error);
        if (status != FL_OK)
            return status;
    }
    if (self->scalars != NULL)
        self->scalars[index] += value;
    return FL_OK;
}

/*
 * count values of one segment from index `first` in it: zero outside the prefix, and none beyond
 * what the range's end gives for the site's weight (which came before the values)?
 */
static enum fl_status check_values(const struct fl_update_reader *self,
                                   const struct fl_segment *segment, uint64_t first,
                                   const uint8_t *bytes, size_t count, struct fl_error *error)
{
    const struct fl_rank_plan *plan = &self->layout->ranks;
    uint32_t rank = plan->ranks[(size_t)self->site * plan->modules + segment->module];
    uint32_t row = (uint32_t)(first / segment->columns);
    uint32_t column = (uint32_t)(first % segment->columns);
    uint64_t cut = 0;
    uint32_t most = fl_grid_encode(self->grid, 1.0, 1.0, self->weight, &cut);

    for (size_t i = 0; i < count; i++) {
        uint32_t value = fl_load_u32(bytes + 4 * i);

        if (fl_segment_direction(segment, row, column) >= rank && value != 0)
            return fl_fail(error, FL_EFORMAT, "the update has a value beyond the site's rank %u",
                           rank);
        if (value > most && 0u - value > most)
            return fl_fail(error, FL_EFORMAT, "the update has a value beyond its range");
        if (++column == segment->columns) {
            column = 0;
            row++;
        }
    }
    return FL_OK;
}

/* count whole words of the vector, all within it */
static enum fl_status take_words(struct fl_update_reader *self, const uint8_t *bytes, size_t count,
                                 struct fl_error *error)
{
    const struct fl_layout *layout = self->layout;
    uint64_t base = FL_UPDATE_HEADER_BYTES + 8ull * layout->scalar_count;

    while (count > 0) {
        const struct fl_segment *segment = &layout->segments[self->segment];
        uint64_t element = (self->position - base) / 4;
        uint64_t end = segment->offset + (uint64_t)segment->rows * segment->columns;
        size_t part = count < end - element ? count : (size_t)(end - element);

        if (part == 0) {
            self->segment++;
            continue;
        }
        if (self->site != FL_SITE_UNKNOWN) {
            enum fl_status status = check_values(self, segment, element - segment->offset, bytes,
                                                 part, error);
            if (status != FL_OK)
                return status;
        }
        if (self->vector != NULL)
            fl_ring_add(self->vector + element, bytes, part);
        self->position += 4 * (uint64_t)part;
        bytes += 4 * part;
        count -= part;
    }
    return FL_OK;
}

/* One item (8 bytes up to the vector, 4 in it). */
static enum fl_status take_item(struct fl_update_reader *self, const uint8_t *item,
                                struct fl_error *error)
{
    uint64_t base = FL_UPDATE_HEADER_BYTES + 8ull * self->layout->scalar_count;
    enum fl_status status;

    if (self->position >= base)
        return take_words(self, item, 1, error);
    status = self->position < FL_UPDATE_HEADER_BYTES ? take_header(self, item, error)
                                                     : take_scalar(self, item, error);
    if (status == FL_OK)
        self->position += 8;
    return status;
}

static size_t item_bytes(const struct fl_update_reader *self)
{
    return self->position < FL_UPDATE_HEADER_BYTES + 8ull * self->layout->scalar_count ? 8 : 4;
}

/* Complete the item that an earlier piece began; *taken bytes of this piece went into it. */
static enum fl_status finish_pending(struct fl_update_reader *self, const uint8_t *bytes,
                                     size_t length, size_t *taken, struct fl_error *error)
{
    size_t need = item_bytes(self) - self->pending_bytes;

    *taken = length < need ? length : need;
    memcpy(self->pending + self->pending_bytes, bytes, *taken);
    self->pending_bytes += (uint32_t)*taken;
    if (*taken < need)
        return FL_OK;
    self->pending_bytes = 0;
    return take_item(self, self->pending, error);
}

enum fl_status fl_update_reader_push(struct fl_update_reader *self, const void *bytes,
                                     size_t length, struct fl_error *error)
{
    const uint8_t *from = bytes;
    uint64_t total = fl_layout_update_bytes(self->layout);
    enum fl_status status = FL_OK;

    if (length > total - self->position - self->pending_bytes)
        return fl_fail(error, FL_EFORMAT, "the update goes on after its end (%llu bytes)",
                       (unsigned long long)total);
    while (length > 0 && status == FL_OK) {
        size_t taken = item_bytes(self);

        if (self->pending_bytes > 0 || length < taken) {
            status = finish_pending(self, from, length, &taken, error);
        } else if (taken == 8) {
            status = take_item(self, from, error);
        } else {
            taken = length - length % 4;
            status = take_words(self, from, taken / 4, error);
        }
        from += taken;
        length -= taken;
    }
    return status;
}

enum fl_status fl_update_reader_end(const struct fl_update_reader *self, struct fl_error *error)
{
    uint64_t total = fl_layout_update_bytes(self->layout);
    uint64_t got = self->position + self->pending_bytes;

    if (got != total)
        return fl_fail(error, FL_EFORMAT, "the update ended after %llu of %llu bytes",
                       (unsigned long long)got, (unsigned long long)total);
    return FL_OK;
}

/* ---- the hash of a sum ---- */

void fl_update_sha256(const struct fl_layout *layout, const uint32_t *vector,
                      const uint64_t *scalars, uint8_t out[FL_HASH_BYTES])
{
    uint8_t batch[4 * BATCH_WORDS];
    struct fl_sha256 hash;

    fl_sha256_init(&hash);
    memcpy(batch, MAGIC, 8);
    fl_store_u64(batch + 8, layout->elements);
    fl_store_u64(batch + 16, layout->scalar_count);
    fl_sha256_update(&hash, batch, FL_UPDATE_HEADER_BYTES);
    for (uint32_t i = 0; i < layout->scalar_count; i++) {
        fl_store_u64(batch, scalars[i]);
        fl_sha256_update(&hash, batch, 8);
    }
    for (uint64_t done = 0; done < layout->elements;) {
        size_t words = layout->elements - done < BATCH_WORDS ? (size_t)(layout->elements - done)
                                                             : BATCH_WORDS;
        for (size_t i = 0; i < words; i++)
            fl_store_u32(batch + 4 * i, vector[done + i]);
        fl_sha256_update(&hash, batch, 4 * words);
        done += words;
    }
    fl_sha256_final(&hash, out);
}

/*
 * malice_wrap.c - the linker puts these in front of the real functions: a record of the log, which
 * no limit cuts, and a labour that garbles the numbers of one site.
 */
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "malice_hub.h"
#include "worker/labour_internal.h"

void __real_fl_log_fields(enum fl_log_level level, const char *event, const char *message,
                          const struct fl_field *fields);
void __wrap_fl_log_fields(enum fl_log_level level, const char *event, const char *message,
                          const struct fl_field *fields);
enum fl_status __real_fl_masking_apply(struct fl_labour *self, const struct fl_work *work,
                                       uint8_t *update, struct fl_work_result *result,
                                       struct fl_error *error);
enum fl_status __wrap_fl_masking_apply(struct fl_labour *self, const struct fl_work *work,
                                       uint8_t *update, struct fl_work_result *result,
                                       struct fl_error *error);

enum fl_status __real_fl_secagg_site_create(const struct fl_secagg_context *context,
                                            const char *name, const uint8_t ranks[FL_HASH_BYTES],
                                            const struct fl_keys *keys,
                                            const struct fl_entropy *entropy,
                                            struct fl_secagg_site **out);
enum fl_status __wrap_fl_secagg_site_create(const struct fl_secagg_context *context,
                                            const char *name, const uint8_t ranks[FL_HASH_BYTES],
                                            const struct fl_keys *keys,
                                            const struct fl_entropy *entropy,
                                            struct fl_secagg_site **out);

static struct hub *records_of;
static enum garble garbling;
static char garbled[FL_NAME_BYTES];

void record_log(struct hub *hub)
{
    records_of = hub;
}

void garble_updates(const char *site, enum garble how)
{
    garbling = how;
    (void)snprintf(garbled, sizeof(garbled), "%s", site);
}

void __wrap_fl_log_fields(enum fl_log_level level, const char *event, const char *message,
                          const struct fl_field *fields)
{
    if (records_of && level >= FL_LOG_WARN && records_of->record_count < HUB_EVENTS) {
        struct hub_record *r = &records_of->records[records_of->record_count++];
        (void)snprintf(r->event, sizeof(r->event), "%s", event);
        (void)snprintf(r->message, sizeof(r->message), "%s", message);
        for (; fields->kind != FL_FIELD_END; fields++) {
            if (fields->kind == FL_FIELD_STRING && strcmp(fields->key, "worker") == 0)
                (void)snprintf(r->worker, sizeof(r->worker), "%s", fields->value.string);
        }
        return;
    }
    __real_fl_log_fields(level, event, message, fields);
}

static void garble(const struct fl_layout *layout, uint8_t *update)
{
    uint8_t *scalars = update + FL_UPDATE_HEADER_BYTES;
    uint8_t *vector = scalars + 8 * (size_t)layout->scalar_count;
    if (garbling == GARBLE_NOISE)
        randombytes_buf(vector, 4 * (size_t)layout->elements);
    else if (garbling == GARBLE_GUARD_BITS) /* one number, by a power of two beyond all sums */
        fl_store_u32(vector, fl_load_u32(vector) + (1u << 30));
    else if (garbling == GARBLE_BEYOND) /* what no honest site sends, and a sum may hold */
        fl_store_u32(vector, fl_load_u32(vector) + (1u << 27));
    else if (garbling == GARBLE_SCALARS)
        fl_store_u64(scalars, fl_load_u64(scalars) + (1ull << 60));
}

enum fl_status __wrap_fl_masking_apply(struct fl_labour *self, const struct fl_work *work,
                                       uint8_t *update, struct fl_work_result *result,
                                       struct fl_error *error)
{
    enum fl_status status = __real_fl_masking_apply(self, work, update, result, error);
    if (status == FL_OK && garbling != GARBLE_NOTHING && strcmp(self->name, garbled) == 0)
        garble(self->masking.layout, update);
    return status;
}

/* Signed by the site, and not what it was given. */
enum fl_status __wrap_fl_secagg_site_create(const struct fl_secagg_context *context,
                                            const char *name, const uint8_t ranks[FL_HASH_BYTES],
                                            const struct fl_keys *keys,
                                            const struct fl_entropy *entropy,
                                            struct fl_secagg_site **out)
{
    uint8_t others[FL_HASH_BYTES];
    memcpy(others, ranks, FL_HASH_BYTES);
    others[0] ^= garbling == GARBLE_RANKS && strcmp(name, garbled) == 0;
    return __real_fl_secagg_site_create(context, name, others, keys, entropy, out);
}

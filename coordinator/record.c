/* record.c - see record.h. */
#include "coordinator/record.h"

#include "base/buf.h"
#include "coordinator/roster.h"

enum fl_status fl_record_site(struct fl_desk *desk, const char *event, const char *name,
                              const char *address, struct fl_error *error)
{
    char identity[FL_IDENTITY_TEXT_BYTES];
    const struct fl_site *site = fl_roster_by_name(desk->roster, name);
    if (site)
        fl_identity_encode(&site->identity, identity);
    const struct fl_field fields[] = {FL_STR("worker", name),
                                      FL_STR("identity", site ? identity : NULL),
                                      FL_STR("address", address),
                                      {.kind = FL_FIELD_END}};
    return fl_desk_audit(desk, event, fields, error);
}

enum fl_status fl_record_update(struct fl_desk *desk, const struct fl_check_work *work,
                                struct fl_error *error)
{
    char sha256[FL_HASH_HEX_BYTES];
    const struct fl_stage *stage = work->stage;
    fl_hex(work->sha256, FL_HASH_BYTES, sha256);
    const struct fl_field fields[] = {FL_STR("worker", stage->names[work->position]),
                                      FL_I64("job", stage->facts->job),
                                      FL_U64("round", stage->round),
                                      FL_U64("attempt", stage->attempt),
                                      FL_U64("bytes", stage->sealed_bytes),
                                      FL_STR("sha256", sha256),
                                      {.kind = FL_FIELD_END}};
    return fl_desk_audit(desk, "update_accepted", fields, error);
}

enum fl_status fl_record_round(struct fl_desk *desk, const struct fl_sum_work *work,
                               struct fl_error *error)
{
    char sha256[FL_HASH_HEX_BYTES], sum[FL_HASH_HEX_BYTES];
    const struct fl_version *version = &work->version;
    bool made = version->rank_count > 0; /* a round that only evaluates makes no version */
    fl_hex(version->sha256, FL_HASH_BYTES, sha256);
    fl_hex(version->sum_sha256, FL_HASH_BYTES, sum);
    const struct fl_field fields[] = {FL_I64("job", work->stage->facts->job),
                                      FL_U64("round", work->stage->round),
                                      FL_U64("attempt", work->stage->attempt),
                                      FL_U64("workers", work->result.sites),
                                      FL_STR("sha256", made ? sha256 : NULL),
                                      FL_STR("sum_sha256", version->has_sum ? sum : NULL),
                                      {.kind = FL_FIELD_END}};
    return fl_desk_audit(desk, "round_committed", fields, error);
}

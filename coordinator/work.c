/* work.c - see work.h. */
#include "coordinator/work.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "job/strategy.h"
#include "crypto/sealed.h"

void fl_job_facts_release(struct fl_job_facts *self)
{
    if (!self || --self->references > 0)
        return;
    fl_inventory_free(&self->inventory);
    fl_inventory_free(&self->targets);
    fl_box_keys_destroy(&self->keys);
    fl_free(self->spec);
    fl_free(self);
}

void fl_stage_release(struct fl_stage *self)
{
    if (!self || --self->references > 0)
        return;
    fl_job_facts_release(self->facts);
    fl_layout_destroy(&self->layout);
    fl_free(self->sites);
    fl_free(self->names);
    fl_free(self->checking);
    fl_free(self);
}

uint32_t fl_stage_position(const struct fl_stage *self, uint32_t site)
{
    for (uint32_t i = 0; i < self->count; i++) {
        if (self->sites[i] == site)
            return i;
    }
    return UINT32_MAX;
}

enum fl_status fl_stage_path(const struct fl_stage *self, uint32_t position, bool complete,
                             char *path, struct fl_error *error)
{
    return fl_store_path(self->facts->store, path, error, "spool/%lld/%u-%u/%s.update%s",
                         (long long)self->facts->job, self->round, self->attempt,
                         self->names[position], complete ? "" : ".part");
}

enum fl_status fl_start_path(const struct fl_store *store, int64_t job, uint32_t round, char *path,
                             struct fl_error *error)
{
    return fl_store_path(store, path, error, "rounds/%lld/%u.start.safetensors", (long long)job,
                         round);
}

/* Write an adapter's bytes durably and open them as a bulk object. */
static enum fl_status keep_adapter(const struct fl_store *store, const struct fl_adapter *adapter,
                                   const char *path, uint8_t sha256[FL_HASH_BYTES],
                                   struct fl_object **object, struct fl_error *error)
{
    struct fl_buf bytes;
    fl_buf_init(&bytes, FL_ADAPTER_BYTES_MAX);
    enum fl_status status = fl_adapter_encode(adapter, &bytes, error);
    if (status == FL_OK)
        status = fl_store_put_file(store, path, bytes.data, bytes.length, 0600, error);
    if (status == FL_OK)
        fl_sha256(bytes.data, bytes.length, sha256);
    fl_buf_free(&bytes);
    return status == FL_OK ? fl_object_open_file(path, object, error) : status;
}

static uint32_t largest(const uint16_t *ranks, uint32_t count)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < count; i++)
        most = ranks[i] > most ? ranks[i] : most;
    return most;
}

static void set_ranks(struct fl_version *version, const struct fl_adapter *adapter)
{
    version->rank_count = adapter->count;
    for (uint32_t i = 0; i < adapter->count; i++)
        version->ranks[i] = (uint16_t)adapter->modules[i].rank;
    version->rank = largest(version->ranks, version->rank_count);
}

/* ---- the start of a round ---- */

/* A start that was resolved to DIR/starts/JOB-N; a restored coordinator may have another DIR. */
static enum fl_status given_start(const struct fl_job_facts *facts, char *path,
                                  struct fl_error *error)
{
    const char *start = facts->spec->start, *own = strstr(start, "/starts/");
    if (!own || fl_path_exists(start))
        return fl_path_join(path, "", start, error);
    return fl_store_path(facts->store, path, error, "%s", own + 1);
}

/* `[lora] start`: JOB@N of this coordinator, or a PEFT directory. */
static enum fl_status load_given_start(const struct fl_start_work *self, struct fl_adapter **out,
                                       struct fl_error *error)
{
    const struct fl_job_facts *facts = self->facts;
    char path[FL_PATH_BYTES];
    enum fl_status status = given_start(facts, path, error);
    if (status == FL_OK)
        status = fl_adapter_load(path, &facts->inventory, out, error);
    if (status == FL_OK)
        status = fl_job_check_start(facts->spec, *out, facts->spec->start, error);
    if (status != FL_OK) {
        fl_adapter_destroy(out);
        return status;
    }
    bool same = (*out)->count == facts->targets.count;
    for (uint32_t i = 0; same && i < (*out)->count; i++)
        same = strcmp((*out)->modules[i].module.name, facts->targets.modules[i].name) == 0;
    if (same)
        return FL_OK;
    fl_adapter_destroy(out);
    return fl_fail(error, FL_EFORMAT, "%s: its target modules are not those of the job",
                   facts->spec->start);
}

static enum fl_status first_adapter(const struct fl_start_work *self, struct fl_adapter **out,
                                    struct fl_error *error)
{
    const struct fl_job_spec *spec = self->facts->spec;
    const struct fl_inventory *targets = &self->facts->targets;
    if (spec->start[0])
        return load_given_start(self, out, error);
    uint16_t *ranks = fl_calloc(targets->count, sizeof *ranks);
    if (!ranks)
        return fl_fail_memory(error);
    for (uint32_t i = 0; i < targets->count; i++) {
        const struct fl_module *m = &targets->modules[i];
        ranks[i] = (uint16_t)fl_rank_of(&spec->ranks, 1, NULL, m->layer,
                                        m->in < m->out ? m->in : m->out);
    }
    enum fl_status status = fl_strategy_first(targets, ranks, (uint32_t)spec->ranks.fallback,
                                              spec->alpha, spec->dropout, spec->seed, out, error);
    fl_free(ranks);
    return status;
}

/* Version 0: made once, from the job alone. */
static enum fl_status make_first(struct fl_start_work *self, struct fl_adapter **out,
                                 struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    struct fl_object *object = NULL;
    struct fl_version *version = &self->previous;
    memset(version, 0, sizeof *version);
    *out = NULL;
    enum fl_status status = first_adapter(self, out, error);
    if (status == FL_OK)
        status = fl_registry_path(self->facts->store, self->facts->job, 0, path, error);
    if (status == FL_OK)
        status = keep_adapter(self->facts->store, *out, path, version->sha256, &object, error);
    if (status != FL_OK) {
        fl_adapter_destroy(out);
        return status;
    }
    version->job = self->facts->job;
    memcpy(version->root, fl_object_root(object), FL_HASH_BYTES);
    version->bytes = fl_object_size(object);
    version->train_loss = version->eval_loss = (double)NAN;
    set_ranks(version, *out);
    fl_object_close(&object);
    return FL_OK;
}

static enum fl_status load_previous(struct fl_start_work *self, struct fl_adapter **out,
                                    struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    if (!self->has_previous)
        return make_first(self, out, error);
    const struct fl_version *version = &self->previous;
    *out = NULL;
    if (version->rank_count != self->facts->targets.count)
        return fl_fail(error, FL_EFORMAT, "version %u has another number of modules",
                       version->version);
    enum fl_status status = fl_registry_path(self->facts->store, self->facts->job, version->version,
                                             path, error);
    if (status != FL_OK)
        return status;
    return fl_registry_read(path, &self->facts->targets, self->facts->spec, version->ranks,
                            version->sha256, out, error);
}

/* With masks a direction that few sites train would show their updates as a "sum". */
static uint32_t least_trainers(const struct fl_job_spec *spec)
{
    return spec->secure_aggregation ? FL_SECAGG_SITES_MIN : 1;
}

static enum fl_status plan_ranks(struct fl_start_work *self, const struct fl_adapter *previous,
                                 struct fl_error *error)
{
    const struct fl_job_spec *spec = self->facts->spec;
    const struct fl_strategy_info *info = fl_strategy_info((enum fl_strategy)spec->strategy);
    uint32_t last = (uint32_t)spec->rounds;
    const char **names = fl_calloc(self->count, sizeof *names);
    if (!names)
        return fl_fail_memory(error);
    for (uint32_t i = 0; i < self->count; i++)
        names[i] = self->names[i];
    /* the evaluation behind the last round measures that version as it is */
    bool evaluates = self->round > last;
    enum fl_status status = fl_rank_schedule_plan(
        &spec->ranks, evaluates ? last : self->round, names, self->count, &self->facts->targets,
        previous, info->refactors && !evaluates, least_trainers(spec), &self->attempt_row.plan);
    fl_free(names);
    if (status != FL_OK)
        return fl_fail(error, status, "the ranks of round %u cannot be planned", self->round);
    return FL_OK;
}

static enum fl_status set_ranges(struct fl_start_work *self, const struct fl_adapter *start,
                                 struct fl_error *error)
{
    const struct fl_job_spec *spec = self->facts->spec;
    const enum fl_factors factors = fl_job_trains(spec, self->round);
    struct fl_ranges *ranges = &self->attempt_row.ranges;
    enum fl_status status = FL_OK;
    *ranges = (struct fl_ranges){.a = 1.0, .b = 1.0, .m = 1.0};
    if (self->round > spec->rounds)
        return FL_OK;
    if (factors & FL_FACTOR_A)
        status = fl_job_range(spec, FL_FACTOR_A, start, &ranges->a, error);
    if (status == FL_OK && factors & FL_FACTOR_B)
        status = fl_job_range(spec, FL_FACTOR_B, start, &ranges->b, error);
    if (status == FL_OK && factors & FL_FACTOR_M)
        status = fl_job_range(spec, FL_FACTOR_M, start, &ranges->m, error);
    return status;
}

static enum fl_status make_start(struct fl_start_work *self, const struct fl_adapter *previous,
                                 struct fl_adapter **out, struct fl_error *error)
{
    const struct fl_job_spec *spec = self->facts->spec;
    if (self->round <= spec->rounds)
        return fl_strategy_start((enum fl_strategy)spec->strategy, spec->seed, self->round,
                                 previous, &self->attempt_row.plan, out, NULL, error);
    enum fl_status status = fl_adapter_copy(previous, out);
    if (status != FL_OK)
        return fl_fail_memory(error);
    for (uint32_t i = 0; i < previous->count; i++)
        self->attempt_row.plan.global[i] = (uint16_t)previous->modules[i].rank;
    return FL_OK;
}

static enum fl_status run_start(struct fl_start_work *self, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    uint8_t sha256[FL_HASH_BYTES];
    struct fl_adapter *previous = NULL, *start = NULL;
    enum fl_status status = load_previous(self, &previous, error);
    if (status == FL_OK)
        status = plan_ranks(self, previous, error);
    if (status == FL_OK)
        status = make_start(self, previous, &start, error);
    if (status == FL_OK)
        status = set_ranges(self, start, error);
    if (status == FL_OK)
        status = fl_start_path(self->facts->store, self->facts->job, self->round, path, error);
    if (status == FL_OK)
        status = keep_adapter(self->facts->store, start, path, sha256, &self->object, error);
    if (status == FL_OK) {
        memcpy(self->attempt_row.start_root, fl_object_root(self->object), FL_HASH_BYTES);
        self->attempt_row.start_bytes = fl_object_size(self->object);
        memcpy(self->attempt_row.version_hash, self->previous.sha256, FL_HASH_BYTES);
    }
    fl_adapter_destroy(&previous);
    fl_adapter_destroy(&start);
    return status;
}

void fl_work_start(struct fl_chore *chore)
{
    struct fl_start_work *self = (struct fl_start_work *)chore;
    self->status = run_start(self, &self->error);
}

void fl_start_work_free(struct fl_start_work *self)
{
    fl_job_facts_release(self->facts);
    fl_attempt_row_free(&self->attempt_row);
    fl_object_close(&self->object);
    fl_free(self->sites);
    fl_free(self->names);
    fl_free(self);
}

/* ---- an update ---- */

static enum fl_status open_update(const struct fl_stage *stage, uint32_t position,
                                  struct fl_opener **out, struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    *out = NULL;
    const struct fl_seal_context context = {.purpose = "update",
                                            .sender = stage->names[position],
                                            .job = (uint64_t)stage->facts->job,
                                            .round = stage->round,
                                            .attempt = stage->attempt};
    enum fl_status status = fl_stage_path(stage, position, true, path, error);
    if (status != FL_OK)
        return status;
    return fl_opener_open_file(fl_box_keys_public(stage->facts->keys),
                               fl_box_keys_secret(stage->facts->keys), &context, path, out, error);
}

typedef enum fl_status (*push_function)(void *to, const void *bytes, size_t length,
                                        struct fl_error *error);

/* Open a sealed update piece by piece into push; the plain bytes are wiped behind it. */
static enum fl_status stream_update(const struct fl_stage *stage, uint32_t position,
                                    push_function push, void *to, struct fl_error *error)
{
    struct fl_opener *opener = NULL;
    uint8_t *piece = fl_malloc(FL_SEAL_PIECE_BYTES);
    enum fl_status status = piece ? open_update(stage, position, &opener, error)
                                  : fl_fail_memory(error);
    size_t got = FL_SEAL_PIECE_BYTES;
    while (status == FL_OK && got == FL_SEAL_PIECE_BYTES) {
        status = fl_opener_read(opener, piece, FL_SEAL_PIECE_BYTES, &got, error);
        if (status == FL_OK && got > 0)
            status = push(to, piece, got, error);
    }
    if (status == FL_OK)
        status = fl_opener_at_end(opener, error);
    fl_opener_close(&opener);
    if (piece)
        sodium_memzero(piece, FL_SEAL_PIECE_BYTES);
    fl_free(piece);
    return status;
}

static enum fl_status push_reader(void *to, const void *bytes, size_t length,
                                  struct fl_error *error)
{
    return fl_update_reader_push(to, bytes, length, error);
}

static enum fl_status push_aggregate(void *to, const void *bytes, size_t length,
                                     struct fl_error *error)
{
    return fl_aggregate_push(to, bytes, length, error);
}

static enum fl_status run_check(struct fl_check_work *self, struct fl_error *error)
{
    char part[FL_PATH_BYTES], path[FL_PATH_BYTES];
    struct fl_update_reader reader;
    enum fl_status status = fl_stage_path(self->stage, self->position, false, part, error);
    if (status == FL_OK)
        status = fl_stage_path(self->stage, self->position, true, path, error);
    if (status == FL_OK)
        status = fl_store_adopt_file(part, path, error);
    if (status != FL_OK)
        return status;
    /* behind masks no value of a single site can be judged, only the size and the seal */
    bool masked = self->stage->facts->spec->secure_aggregation;
    fl_update_reader_init(&reader, self->stage->layout, &self->stage->grid,
                          masked ? FL_SITE_UNKNOWN : self->position, NULL, NULL);
    status = stream_update(self->stage, self->position, push_reader, &reader, error);
    if (status == FL_OK)
        status = fl_update_reader_end(&reader, error);
    if (status == FL_EFORMAT) {
        struct fl_error ignored;
        (void)!fl_store_remove(path, &ignored);
    }
    return status == FL_OK ? fl_sha256_file(path, self->sha256, error) : status;
}

void fl_work_check(struct fl_chore *chore)
{
    struct fl_check_work *self = (struct fl_check_work *)chore;
    self->status = run_check(self, &self->error);
}

/* ---- the sum ---- */

static enum fl_status sum_updates(const struct fl_sum_work *self, struct fl_aggregate *sum,
                                  struct fl_error *error)
{
    enum fl_status status = FL_OK;
    for (uint32_t i = 0; status == FL_OK && i < self->count; i++) {
        uint32_t position = self->positions[i];
        status = fl_aggregate_begin(sum, position, error);
        if (status == FL_OK)
            status = stream_update(self->stage, position, push_aggregate, sum, error);
        if (status == FL_OK)
            status = fl_aggregate_end(sum, error);
        if (status != FL_OK)
            fl_error_prefix(error, "the update of %s", self->stage->names[position]);
    }
    return status;
}

static enum fl_status remove_masks(struct fl_sum_work *self, struct fl_aggregate *sum,
                                   struct fl_error *error)
{
    struct fl_unmask_request *request = self->unmask;
    return fl_secagg_unmask(&request->context, &request->cohort, &request->sharers,
                            &request->survivors, &request->answered, request->answers,
                            fl_aggregate_vector(sum), fl_aggregate_scalars(sum),
                            self->stage->layout->scalar_count, &request->blamed, error);
}

static enum fl_status load_start(const struct fl_sum_work *self, struct fl_adapter **out,
                                 struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    const struct fl_job_facts *facts = self->stage->facts;
    enum fl_status status = fl_start_path(facts->store, facts->job, self->stage->round, path,
                                          error);
    if (status != FL_OK)
        return status;
    return fl_registry_read(path, &facts->targets, facts->spec, self->attempt_row.plan.global, NULL,
                            out, error);
}

static enum fl_status keep_version(struct fl_sum_work *self, const struct fl_adapter *next,
                                   struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    const struct fl_job_facts *facts = self->stage->facts;
    const struct fl_strategy_info *info = fl_strategy_info((enum fl_strategy)facts->spec->strategy);
    struct fl_version *version = &self->version;
    uint32_t number = self->stage->round;
    *version = (struct fl_version){.job = facts->job, .version = number, .round = number};
    enum fl_status status = fl_registry_path(facts->store, facts->job, number, path, error);
    if (status == FL_OK)
        status = keep_adapter(facts->store, next, path, version->sha256, &self->object, error);
    if (status != FL_OK)
        return status;
    fl_wire_set_text(version->strategy, sizeof version->strategy, info->name);
    memcpy(version->sum_sha256, self->result.sum_sha256, FL_HASH_BYTES);
    memcpy(version->parent_sha256, self->attempt_row.version_hash, FL_HASH_BYTES);
    memcpy(version->root, fl_object_root(self->object), FL_HASH_BYTES);
    version->has_sum = version->has_parent = true;
    version->bytes = fl_object_size(self->object);
    version->workers = self->result.sites;
    version->train_loss = self->result.train_loss;
    version->train_tokens = self->result.train_tokens;
    version->eval_loss = (double)NAN;
    version->delta_norm = self->result.delta_norm;
    version->cut_fraction = self->result.cut_fraction;
    set_ranks(version, next);
    return FL_OK;
}

static enum fl_status run_sum(struct fl_sum_work *self, struct fl_error *error)
{
    struct fl_aggregate *sum = NULL;
    struct fl_adapter *start = NULL, *next = NULL;
    bool trains = self->stage->round <= self->stage->facts->spec->rounds;
    enum fl_status status = fl_aggregate_create(self->stage->layout, &self->stage->grid,
                                                self->unmask != NULL, &sum);
    if (status != FL_OK)
        return fl_fail_memory(error);
    status = sum_updates(self, sum, error);
    if (status == FL_OK && self->unmask)
        status = remove_masks(self, sum, error);
    if (status == FL_OK)
        status = load_start(self, &start, error);
    if (status == FL_OK)
        status = fl_aggregate_finish(sum, start, trains ? &next : NULL, &self->result, error);
    if (status == FL_OK && trains)
        status = keep_version(self, next, error);
    fl_adapter_destroy(&start);
    fl_adapter_destroy(&next);
    fl_aggregate_destroy(&sum);
    return status;
}

void fl_work_sum(struct fl_chore *chore)
{
    struct fl_sum_work *self = (struct fl_sum_work *)chore;
    self->status = run_sum(self, &self->error);
}

void fl_sum_work_free(struct fl_sum_work *self)
{
    fl_stage_release(self->stage);
    fl_attempt_row_free(&self->attempt_row);
    fl_object_close(&self->object);
    fl_unmask_request_free(self->unmask);
    fl_free(self->positions);
    fl_free(self);
}

/*
 * plant.c - bugs on purpose: the linker puts these in front of the real functions, so that a test
 * can show that the simulator would notice. Only in sim_planted.
 */
#include "adapter/fixed.h"
#include "coordinator/server_internal.h"
#include "sim.h"

bool __real_fl_conduct_is_current(const struct fl_server *self, const struct fl_wire *message);
bool __wrap_fl_conduct_is_current(const struct fl_server *self, const struct fl_wire *message);
void __real_fl_conduct_write_endings(struct fl_server *self);
void __wrap_fl_conduct_write_endings(struct fl_server *self);

void __real_fl_ring_add(uint32_t *sum, const void *bytes, size_t count);
void __wrap_fl_ring_add(uint32_t *sum, const void *bytes, size_t count);
enum fl_status __real_fl_registry_put(struct fl_store *store, const struct fl_version *version,
                                      struct fl_error *error);
enum fl_status __wrap_fl_registry_put(struct fl_store *store, const struct fl_version *version,
                                      struct fl_error *error);

/* Now and then a piece of an update is counted twice. */
void __wrap_fl_ring_add(uint32_t *sum, const void *bytes, size_t count)
{
    static unsigned calls;
    __real_fl_ring_add(sum, bytes, count);
    if (sim_planted == SIM_PLANT_TWICE && ++calls % 97 == 0)
        __real_fl_ring_add(sum, bytes, count);
}

/* The second version is entered under the number of the first, too. */
enum fl_status __wrap_fl_registry_put(struct fl_store *store, const struct fl_version *version,
                                      struct fl_error *error)
{
    if (sim_planted == SIM_PLANT_REUSED && version->version == 2) {
        enum fl_status status = fl_store_run(
            store, error, "UPDATE versions SET sha256 = ?1 WHERE job = ?2 AND version = 1", "bi",
            version->sha256, sizeof version->sha256, version->job);
        if (status != FL_OK)
            return status;
    }
    return __real_fl_registry_put(store, version, error);
}

/* What was said in an earlier attempt, or round, is taken for the present one. */
bool __wrap_fl_conduct_is_current(const struct fl_server *self, const struct fl_wire *message)
{
    if (sim_planted == SIM_PLANT_STALE && self->job.id)
        return true;
    return __real_fl_conduct_is_current(self, message);
}

/* Calls from other files than conduct.c, which ends the job: the second try, the next process. */
void __wrap_fl_conduct_write_endings(struct fl_server *self)
{
    if (sim_planted != SIM_PLANT_UNSAID)
        __real_fl_conduct_write_endings(self);
    else
        self->ending_ms = 0;
}

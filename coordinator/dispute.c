/* dispute.c - see dispute.h. */
#include "coordinator/dispute.h"

#include <string.h>

/* Does survivor v deny the shares of u? */
static bool denies(const struct fl_secagg_set *sharers, const struct fl_secagg_set *survivors,
                   const struct fl_secagg_set *opened, uint32_t v, uint32_t u)
{
    return survivors->has[v] && sharers->has[u] && !opened[v].has[u];
}

bool fl_dispute_settle(uint32_t n, const struct fl_secagg_set *sharers,
                       const struct fl_secagg_set *survivors, const struct fl_secagg_set *opened,
                       struct fl_dispute *out)
{
    uint32_t disputes[FL_SECAGG_SITES_MAX] = {0}, t = fl_secagg_threshold(n);
    bool good = true;
    memset(out, 0, sizeof *out);
    for (uint32_t u = 0; u < n; u++) {
        uint32_t open = 0;
        for (uint32_t v = 0; v < n; v++) {
            bool denied = denies(sharers, survivors, opened, v, u);
            open += survivors->has[v] && !denied;
            disputes[u] += denied;
            disputes[v] += denied;
        }
        good = good && (!sharers->has[u] || open >= t);
    }
    if (good)
        return true;
    for (uint32_t u = 0; u < n; u++)
        out->guilty.has[u] = disputes[u] > n - t;
    for (uint32_t u = 0; u < n; u++) {
        for (uint32_t v = 0; v < n; v++) {
            if (!denies(sharers, survivors, opened, v, u) || out->guilty.has[u] ||
                out->guilty.has[v])
                continue;
            out->suspect.has[u] = out->suspect.has[v] = true;
        }
    }
    return false;
}

/*
 * ranks.c - see ranks.h. Rules are few, so every question scans them.
 */
#include "job/ranks.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define ROUNDS_LIMIT 100000

static bool starts_with(const char *text, const char *prefix, const char **rest)
{
    size_t length = strlen(prefix);
    *rest = text + length;
    return strncmp(text, prefix, length) == 0;
}

/* "7" or "7-12" */
static enum fl_status parse_span(const char *text, uint64_t low, uint64_t high,
                                 struct fl_rank_rule *rule)
{
    char first[16];
    const char *dash = strchr(text, '-');
    size_t length = dash == NULL ? strlen(text) : (size_t)(dash - text);
    uint64_t a = 0, b = 0;

    if (length == 0 || length >= sizeof first)
        return FL_EFORMAT;
    memcpy(first, text, length);
    first[length] = '\0';
    if (fl_parse_u64(first, low, high, &a) != FL_OK)
        return FL_EFORMAT;
    b = a;
    if (dash != NULL && fl_parse_u64(dash + 1, a, high, &b) != FL_OK)
        return FL_EFORMAT;
    rule->low = (uint32_t)a;
    rule->high = (uint32_t)b;
    return FL_OK;
}

static enum fl_status parse_key(const char *key, struct fl_rank_rule *rule)
{
    const char *rest;

    if (starts_with(key, "round.", &rest)) {
        rule->kind = FL_RANK_ROUND;
        return parse_span(rest, 1, ROUNDS_LIMIT, rule);
    }
    if (starts_with(key, "layers.", &rest)) {
        rule->kind = FL_RANK_LAYERS;
        return parse_span(rest, 0, FL_LAYERS_MAX - 1, rule);
    }
    if (starts_with(key, "worker.", &rest)) {
        size_t length = strlen(rest);
        if (length == 0 || length >= sizeof rule->worker)
            return FL_EFORMAT;
        rule->kind = FL_RANK_WORKER;
        memcpy(rule->worker, rest, length + 1);
        return FL_OK;
    }
    return FL_ENOTFOUND;
}

enum fl_status fl_rank_schedule_add(struct fl_rank_schedule *self, const char *key,
                                    const char *value, struct fl_error *error)
{
    struct fl_rank_rule rule = {0};
    enum fl_status status = parse_key(key, &rule);
    uint64_t rank = 0;

    if (status == FL_ENOTFOUND)
        return fl_fail(error, FL_EFORMAT,
                       "unknown key '%s' in [ranks]: it takes default, round.N, round.N-M, "
                       "worker.NAME, layers.A-B",
                       key);
    if (status != FL_OK)
        return fl_fail(error, FL_EFORMAT,
                       "'%s' in [ranks] is no round (1 or more), layer range or worker name", key);
    if (fl_parse_u64(value, 1, FL_RANK_MAX, &rank) != FL_OK)
        return fl_fail(error, FL_EFORMAT, "%s = %s: a rank is a whole number in 1..%d", key, value,
                       FL_RANK_MAX);
    if (self->count == FL_RANK_RULES_MAX)
        return fl_fail(error, FL_EFORMAT, "[ranks] has more than %d entries", FL_RANK_RULES_MAX);
    rule.rank = (uint32_t)rank;
    self->rules[self->count++] = rule;
    return FL_OK;
}

static int compare_rules(const struct fl_rank_rule *x, const struct fl_rank_rule *y)
{
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->low != y->low)
        return x->low < y->low ? -1 : 1;
    if (x->high != y->high)
        return x->high < y->high ? -1 : 1;
    int names = strcmp(x->worker, y->worker);
    if (names != 0)
        return names;
    return x->rank == y->rank ? 0 : x->rank < y->rank ? -1 : 1;
}

static void print_rule(const struct fl_rank_rule *rule, struct fl_buf *out)
{
    if (rule->kind == FL_RANK_WORKER)
        fl_buf_printf(out, "worker.%s = %u\n", rule->worker, rule->rank);
    else if (rule->low == rule->high && rule->kind == FL_RANK_ROUND)
        fl_buf_printf(out, "round.%u = %u\n", rule->low, rule->rank);
    else
        fl_buf_printf(out, "%s.%u-%u = %u\n", rule->kind == FL_RANK_ROUND ? "round" : "layers",
                      rule->low, rule->high, rule->rank);
}

void fl_rank_schedule_print(const struct fl_rank_schedule *self, struct fl_buf *out)
{
    const struct fl_rank_rule *last = NULL;

    /* selection by value: each pass prints the smallest rule above the last one */
    for (uint32_t printed = 0; printed < self->count;) {
        const struct fl_rank_rule *next = NULL;
        for (uint32_t i = 0; i < self->count; i++) {
            const struct fl_rank_rule *rule = &self->rules[i];
            if ((last == NULL || compare_rules(rule, last) > 0) &&
                (next == NULL || compare_rules(rule, next) < 0))
                next = rule;
        }
        if (next == NULL) /* the rest are duplicates */
            return;
        print_rule(next, out);
        last = next;
        printed++;
    }
}

static bool matches(const struct fl_rank_rule *rule, uint32_t round, const char *worker,
                    uint32_t layer)
{
    switch (rule->kind) {
    case FL_RANK_ROUND:
        return round >= rule->low && round <= rule->high;
    case FL_RANK_LAYERS:
        return layer >= rule->low && layer <= rule->high;
    case FL_RANK_WORKER:
        return worker != NULL && strcmp(worker, rule->worker) == 0;
    }
    return false;
}

uint32_t fl_rank_of(const struct fl_rank_schedule *self, uint32_t round, const char *worker,
                    uint32_t layer, uint32_t limit)
{
    uint32_t rank = 0;

    for (uint32_t i = 0; i < self->count; i++) {
        const struct fl_rank_rule *rule = &self->rules[i];
        if (matches(rule, round, worker, layer) && (rank == 0 || rule->rank < rank))
            rank = rule->rank;
    }
    if (rank == 0)
        rank = (uint32_t)self->fallback;
    return rank < limit ? rank : limit;
}

/* The largest rank that any site can be given in that round and layer. */
static uint32_t largest_of(const struct fl_rank_schedule *self, uint32_t round, uint32_t layer,
                           uint32_t limit)
{
    uint32_t largest = fl_rank_of(self, round, NULL, layer, limit);

    for (uint32_t i = 0; i < self->count; i++) {
        if (self->rules[i].kind != FL_RANK_WORKER)
            continue;
        uint32_t rank = fl_rank_of(self, round, self->rules[i].worker, layer, limit);
        largest = rank > largest ? rank : largest;
    }
    return largest;
}

uint32_t fl_rank_schedule_largest(const struct fl_rank_schedule *self)
{
    uint32_t largest = (uint32_t)self->fallback;
    for (uint32_t i = 0; i < self->count; i++)
        largest = self->rules[i].rank > largest ? self->rules[i].rank : largest;
    return largest;
}

/* ---- the plan of one round ---- */

/* Lower the largest ranks of a module until its least-trained direction has `least` sites. */
static void avoid_thin_tiers(struct fl_rank_plan *plan, uint32_t m, uint32_t least)
{
    for (;;) {
        uint16_t top = 0, second = 0;
        uint32_t holders = 0;
        for (uint32_t i = 0; i < plan->sites; i++) {
            uint16_t rank = plan->ranks[(size_t)i * plan->modules + m];
            if (rank > top) {
                second = top;
                top = rank;
                holders = 0;
            } else if (rank < top && rank > second) {
                second = rank;
            }
            holders += rank == top;
        }
        if (holders >= least || second == 0)
            return;
        for (uint32_t i = 0; i < plan->sites; i++) {
            uint16_t *rank = &plan->ranks[(size_t)i * plan->modules + m];
            *rank = *rank > second ? second : *rank;
        }
    }
}

/* A module's global rank: see the header. */
static uint32_t global_rank(const struct fl_rank_plan *plan, uint32_t m, uint32_t scheduled,
                            uint32_t previous, bool may_shrink)
{
    uint32_t kept = may_shrink && scheduled < previous ? scheduled : previous;
    uint32_t global = kept;

    for (uint32_t i = 0; i < plan->sites; i++) {
        uint32_t rank = plan->ranks[(size_t)i * plan->modules + m];
        global = rank > global ? rank : global;
    }
    return global;
}

enum fl_status fl_rank_schedule_plan(const struct fl_rank_schedule *self, uint32_t round,
                                     const char *const *workers, uint32_t count,
                                     const struct fl_inventory *targets,
                                     const struct fl_adapter *previous, bool may_shrink,
                                     uint32_t least, struct fl_rank_plan *out)
{
    enum fl_status status = fl_rank_plan_create(out, count, targets->count);

    if (status != FL_OK)
        return status;
    if (previous != NULL && previous->count != targets->count) {
        fl_rank_plan_free(out);
        return FL_EINVAL;
    }
    for (uint32_t m = 0; m < targets->count; m++) {
        const struct fl_module *module = &targets->modules[m];
        uint32_t limit = module->in < module->out ? module->in : module->out;
        uint32_t before = previous == NULL ? 0 : previous->modules[m].rank;

        limit = limit < FL_RANK_MAX ? limit : FL_RANK_MAX;
        for (uint32_t i = 0; i < count; i++)
            out->ranks[(size_t)i * targets->count + m] =
                (uint16_t)fl_rank_of(self, round, workers[i], module->layer, limit);
        avoid_thin_tiers(out, m, least);
        out->global[m] = (uint16_t)global_rank(
            out, m, largest_of(self, round, module->layer, limit), before, may_shrink);
    }
    return FL_OK;
}

/* ---- checks at submission ---- */

/* Where a rank may change along one axis: 0 or 1, and behind each rule's ends. */
struct borders {
    uint32_t at[2 * FL_RANK_RULES_MAX + 1];
    uint32_t count;
};

static int compare_u32(const void *x, const void *y)
{
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return a < b ? -1 : a > b;
}

static void find_borders(const struct fl_rank_schedule *self, enum fl_rank_rule_kind kind,
                         uint32_t first, uint32_t last, struct borders *out)
{
    uint32_t unique = 0;

    out->at[0] = first;
    out->count = 1;
    for (uint32_t i = 0; i < self->count; i++) {
        const struct fl_rank_rule *rule = &self->rules[i];
        if (rule->kind != kind)
            continue;
        if (rule->low <= last)
            out->at[out->count++] = rule->low;
        if (rule->high < last)
            out->at[out->count++] = rule->high + 1;
    }
    qsort(out->at, out->count, sizeof out->at[0], compare_u32);
    for (uint32_t i = 0; i < out->count; i++)
        if (unique == 0 || out->at[i] != out->at[unique - 1])
            out->at[unique++] = out->at[i];
    out->count = unique;
}

/* Rank at (round, layer): of the rules without workers, and the largest of any worker's own. */
static uint32_t open_rank(const struct fl_rank_schedule *self, uint32_t round, uint32_t layer,
                          uint32_t worker_top)
{
    uint32_t rank = 0;

    for (uint32_t i = 0; i < self->count; i++) {
        const struct fl_rank_rule *rule = &self->rules[i];
        if (rule->kind != FL_RANK_WORKER && matches(rule, round, NULL, layer) &&
            (rank == 0 || rule->rank < rank))
            rank = rule->rank;
    }
    if (rank != 0) /* a worker's entry can only lower it */
        return rank;
    return worker_top > self->fallback ? worker_top : (uint32_t)self->fallback;
}

bool fl_rank_schedule_shrinks(const struct fl_rank_schedule *self, uint32_t rounds, uint32_t *round)
{
    struct borders by_round, by_layer;
    uint32_t worker_top = 0;

    for (uint32_t i = 0; i < self->count; i++)
        if (self->rules[i].kind == FL_RANK_WORKER && self->rules[i].rank > worker_top)
            worker_top = self->rules[i].rank;
    find_borders(self, FL_RANK_ROUND, 1, rounds, &by_round);
    find_borders(self, FL_RANK_LAYERS, 0, FL_LAYERS_MAX - 1, &by_layer);
    for (uint32_t i = 1; i < by_round.count; i++) {
        for (uint32_t j = 0; j < by_layer.count; j++) {
            uint32_t before = open_rank(self, by_round.at[i - 1], by_layer.at[j], worker_top);
            uint32_t after = open_rank(self, by_round.at[i], by_layer.at[j], worker_top);
            if (after < before) {
                *round = by_round.at[i];
                return true;
            }
        }
    }
    return false;
}

/* At (round, layer): how many of named workers and others train the topmost direction? */
static uint32_t top_holders(const struct fl_rank_schedule *self, uint32_t round, uint32_t layer,
                            uint32_t others, uint32_t *top)
{
    uint32_t holders = others;

    *top = others == 0 ? 0 : fl_rank_of(self, round, NULL, layer, FL_RANK_MAX);
    for (uint32_t i = 0; i < self->count; i++) {
        if (self->rules[i].kind != FL_RANK_WORKER)
            continue;
        uint32_t rank = fl_rank_of(self, round, self->rules[i].worker, layer, FL_RANK_MAX);
        if (rank > *top) {
            *top = rank;
            holders = 0;
        }
        holders += rank == *top;
    }
    return holders;
}

enum fl_status fl_rank_schedule_check_tiers(const struct fl_rank_schedule *self, uint32_t rounds,
                                            uint32_t min_workers, uint32_t least,
                                            struct fl_error *error)
{
    struct borders by_round, by_layer;
    uint32_t named = 0;

    for (uint32_t i = 0; i < self->count; i++)
        named += self->rules[i].kind == FL_RANK_WORKER;
    if (named == 0)
        return FL_OK;
    find_borders(self, FL_RANK_ROUND, 1, rounds, &by_round);
    find_borders(self, FL_RANK_LAYERS, 0, FL_LAYERS_MAX - 1, &by_layer);
    for (uint32_t i = 0; i < by_round.count; i++) {
        for (uint32_t j = 0; j < by_layer.count; j++) {
            uint32_t top, others = min_workers > named ? min_workers - named : 0;
            uint32_t holders = top_holders(self, by_round.at[i], by_layer.at[j], others, &top);
            if (holders < least)
                return fl_fail(error, FL_EREFUSED,
                               "in round %u only %u of %u sites would train rank %u, and secure "
                               "aggregation needs %u for every rank: give more sites that rank, "
                               "lower it, or set secure_aggregation = off",
                               by_round.at[i], holders, named + others, top, least);
        }
    }
    return FL_OK;
}

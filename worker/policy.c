/* policy.c - see policy.h. The rules are one after another; the first that refuses is told. */
#include "worker/policy.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define RETRY_MS 60000

static void refuse(struct fl_policy_answer *out, enum fl_refusal code, const char *format, ...)
    FL_PRINTF(3, 4);

static void refuse(struct fl_policy_answer *out, enum fl_refusal code, const char *format, ...)
{
    char text[FL_REASON_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    out->verdict = FL_VERDICT_PERMANENT;
    out->code = code;
    fl_wire_set_text(out->reason, sizeof(out->reason), text);
}

static void check_names(const struct fl_siteconf *conf, const struct fl_wire_offer *offer,
                        struct fl_policy_answer *out)
{
    if (!fl_list_matches(conf->jobs, offer->name))
        refuse(out, FL_REFUSAL_POLICY, "policy: jobs = %.100s does not allow job '%s'", conf->jobs,
               offer->name);
    else if (!fl_list_matches(conf->allowed_models, offer->model))
        refuse(out, FL_REFUSAL_POLICY, "policy: models = %.100s does not allow model '%s'",
               conf->allowed_models, offer->model);
    else if (!fl_siteconf_model(conf, offer->model))
        refuse(out, FL_REFUSAL_MODEL, "this site has no model named '%s' in its [models]",
               offer->model);
}

static void check_sizes(const struct fl_siteconf *conf, const struct fl_wire_offer *offer,
                        struct fl_policy_answer *out)
{
    uint64_t tokens = (uint64_t)offer->steps * offer->batch_size;
    tokens = tokens > UINT64_MAX / offer->seq_len ? UINT64_MAX : tokens * offer->seq_len;
    uint32_t rank = offer->rank_max > offer->rank_default ? offer->rank_max : offer->rank_default;
    if (rank > conf->max_rank)
        refuse(out, FL_REFUSAL_RANK, "policy: max_rank = %" PRIu64 ", the job asks for rank %u",
               conf->max_rank, rank);
    else if (offer->steps > conf->max_steps)
        refuse(out, FL_REFUSAL_POLICY,
               "policy: max_steps = %" PRIu64 " a round, the job asks for %u", conf->max_steps,
               offer->steps);
    else if (offer->rounds > conf->max_rounds)
        refuse(out, FL_REFUSAL_POLICY, "policy: max_rounds = %" PRIu64 ", the job has %u",
               conf->max_rounds, offer->rounds);
    else if (conf->max_tokens && tokens > conf->max_tokens)
        refuse(out, FL_REFUSAL_POLICY,
               "policy: max_tokens = %" PRIu64 " a round, the job asks for %" PRIu64,
               conf->max_tokens, tokens);
}

static void check_privacy(const struct fl_siteconf *conf, const struct fl_wire_offer *offer,
                          struct fl_policy_answer *out)
{
    if (conf->require_secure_aggregation && !offer->secure_aggregation)
        refuse(out, FL_REFUSAL_PRIVACY,
               "policy: require_secure_aggregation = on, the job has it off");
    else if (offer->min_workers < conf->min_cohort)
        refuse(out, FL_REFUSAL_PRIVACY, "policy: min_cohort = %" PRIu64 ", the job allows %u sites",
               conf->min_cohort, offer->min_workers);
    else if (conf->min_known > 0 && !offer->secure_aggregation)
        refuse(out, FL_REFUSAL_PRIVACY,
               "policy: min_known = %" PRIu64
               ", but only with secure aggregation can a site tell who takes part",
               conf->min_known);
}

/* A round that is trained anew must give another delta: see SECURITY.md, What sums still tell. */
static void check_retraining(const struct fl_siteconf *conf, const struct fl_wire_offer *offer,
                             struct fl_policy_answer *out)
{
    if (offer->retraining == 0)
        return;
    if (!offer->secure_aggregation || (!offer->shuffle && !(offer->dropout > 0.0))) {
        refuse(out, FL_REFUSAL_PRIVACY,
               "the round is to be trained anew, and neither the order of rows nor dropout would "
               "make it other work");
    } else if (offer->retraining > conf->max_retrainings) {
        refuse(out, FL_REFUSAL_PRIVACY,
               "policy: max_retrainings = %" PRIu64 ", the sum of this round has failed %u times",
               conf->max_retrainings, offer->retraining);
        out->verdict = FL_VERDICT_TEMPORARY; /* the next round is another matter */
        out->retry_after_ms = RETRY_MS;
    }
}

void fl_policy_check(const struct fl_siteconf *conf, const struct fl_wire_offer *offer,
                     unsigned minute_of_day, bool fresh, struct fl_policy_answer *out)
{
    memset(out, 0, sizeof(*out));
    check_names(conf, offer, out);
    if (out->verdict == FL_VERDICT_FIT)
        check_sizes(conf, offer, out);
    if (out->verdict == FL_VERDICT_FIT)
        check_privacy(conf, offer, out);
    if (out->verdict == FL_VERDICT_FIT)
        check_retraining(conf, offer, out);
    if (out->verdict != FL_VERDICT_FIT || !fresh)
        return;
    bool allowed = false;
    unsigned wait = 0;
    if (fl_hours_allow(conf->hours, minute_of_day, &allowed, &wait) == FL_OK && !allowed) {
        refuse(out, FL_REFUSAL_HOURS, "policy: hours = %s", conf->hours);
        out->verdict = FL_VERDICT_TEMPORARY;
        out->retry_after_ms = wait * 60000u;
    }
}

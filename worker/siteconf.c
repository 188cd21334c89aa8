/* siteconf.c - see siteconf.h. */
#include "worker/siteconf.h"

#include <assert.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/name.h"
#include "crypto/authority.h"
#include "proto/wire.h"
#include "worker/data/chat_form.h"
#include "worker/data/dataset.h"

#define MEMBER(name) offsetof(struct fl_siteconf, name), sizeof(((struct fl_siteconf *)0)->name)

static const struct fl_config_key keys[] = {
    {"coordinator", "address", FL_CONFIG_STRING, MEMBER(address), 0, 0, NULL, "",
     "where the coordinator listens for sessions, tcp://HOST:PORT (written by join)"},
    {"coordinator", "key", FL_CONFIG_STRING, MEMBER(coordinator_key), 0, 0, NULL, "",
     "the coordinator's public key, 64 hexadecimal digits (written by join)"},
    {"models", "*", FL_CONFIG_PATTERN, 0, 0, 0, 0, NULL, NULL,
     "NAME = PATH: a base model that jobs may name; a Hugging Face directory or a GGUF file"},
    {"data", "path", FL_CONFIG_STRING, MEMBER(data_path), 0, 0, NULL, "",
     "the private training data: a JSONL, JSON, CSV or .txt file, or a directory of them"},
    {"data", "eval", FL_CONFIG_STRING, MEMBER(data_eval), 0, 0, NULL, "",
     "held-out data in the same form, for federated evaluation; empty: the files of a directory "
     "path that are named valid*, if any"},
    {"data", "valid_split", FL_CONFIG_DOUBLE, MEMBER(data_valid_split), 0, FL_VALID_SPLIT_MAX, NULL,
     "0",
     "share of the records of path that is never trained on but evaluated on, where eval is "
     "empty; chosen by a hash of each record"},
    {"data", "loss", FL_CONFIG_CHOICE, MEMBER(data_loss_all), 0, 0, "completions|all",
     "completions", "what is scored where a record has a prompt: its completions alone, or all"},
    {"data", "chat_template", FL_CONFIG_CHOICE, MEMBER(data_chat_template), 0, 0,
     "auto|" FL_CHAT_NAMES, "auto", "the form of conversations; auto: the model's own"},
    {"data", "skip_bad_rows", FL_CONFIG_BOOL, MEMBER(data_skip_bad_rows), 0, 0, NULL, "off",
     "count broken records instead of refusing the file"},
    {"data.*", "*", FL_CONFIG_PATTERN, 0, 0, 0, 0, NULL, NULL,
     "[data.JOBNAME] path and eval override [data] for the job of that name"},
    {"policy", "jobs", FL_CONFIG_STRING, MEMBER(jobs), 0, 0, NULL, "*",
     "names of jobs that this site takes part in, parted by commas; * and ? match"},
    {"policy", "models", FL_CONFIG_STRING, MEMBER(allowed_models), 0, 0, NULL, "*",
     "names of models that it trains"},
    {"policy", "max_rank", FL_CONFIG_U64, MEMBER(max_rank), 1, FL_RANK_MAX, NULL, "64",
     "the largest LoRA rank"},
    {"policy", "max_steps", FL_CONFIG_U64, MEMBER(max_steps), 1, 1e9, NULL, "1000",
     "the most optimizer steps in a round"},
    {"policy", "max_rounds", FL_CONFIG_U64, MEMBER(max_rounds), 1, 1e9, NULL, "100",
     "the most rounds of a job"},
    {"policy", "max_tokens", FL_CONFIG_U64, MEMBER(max_tokens), 0, 1e15, NULL, "0",
     "the most tokens trained in a round (steps x batch_size x seq_len); 0: any number"},
    {"policy", "max_retrainings", FL_CONFIG_U64, MEMBER(max_retrainings), 0, FL_RETRAININGS_MAX,
     NULL, "4", "how often a round is trained anew, in another order, after a sum that failed"},
    {"policy", "min_cohort", FL_CONFIG_U64, MEMBER(min_cohort), 1, FL_WORKERS_MAX, NULL, "3",
     "the fewest sites that must take part in a round"},
    {"policy", "require_secure_aggregation", FL_CONFIG_BOOL, MEMBER(require_secure_aggregation), 0,
     0, NULL, "on", "refuse jobs in which the coordinator could read this site's own update"},
    {"policy", "share_eval", FL_CONFIG_BOOL, MEMBER(share_eval), 0, 0, NULL, "off",
     "let the coordinator see this site's own evaluation loss; off: only the sum of at least 3 "
     "sites"},
    {"policy", "roster", FL_CONFIG_CHOICE, MEMBER(roster_choice), 0, 0,
     "auto|authority|pinned|first-use", "auto",
     "what shows that a cohort's sites are real; auto: authority if its key is set, else "
     "first-use"},
    {"policy", "authority", FL_CONFIG_STRING, MEMBER(authority_text), 0, 0, NULL, "",
     "the public key of the consortium's authority, fla1:..., had from it, not from the "
     "coordinator"},
    {"policy", "known_sites", FL_CONFIG_STRING, MEMBER(known_sites), 0, 0, NULL, "",
     "names of partners that this site knows, parted by commas"},
    {"policy", "min_known", FL_CONFIG_U64, MEMBER(min_known), 0, FL_WORKERS_MAX, NULL, "0",
     "how many of them, on the authority's list or pinned, must be in a cohort beside this site"},
    {"policy", "hours", FL_CONFIG_STRING, MEMBER(hours), 0, 0, NULL, "",
     "when training may begin, local time, such as 22:00-06:00; empty: always"},
    {"train", "threads", FL_CONFIG_U64, MEMBER(threads), 0, 4096, NULL, "0",
     "processor threads; 0: all"},
    {"train", "compute", FL_CONFIG_CHOICE, MEMBER(compute), 0, 0, "auto|f32|bf16", "auto",
     "number format of the matrix products"},
    {"train", "memory_limit", FL_CONFIG_STRING, MEMBER(memory_limit_text), 0, 0, NULL, "0",
     "what this process may take, such as 4G: training then computes more to hold less, and jobs "
     "that do not fit even so are refused; 0: no limit"},
    {"adapters", "keep_versions", FL_CONFIG_U64, MEMBER(keep_versions), 1, 1e6, NULL, "3",
     "how many versions of the global adapter are kept at the site"},
    {"http", "listen", FL_CONFIG_STRING, MEMBER(http_listen), 0, 0, NULL, "",
     "HOST:PORT, such as 127.0.0.1:7481, of /metrics, /healthz, /readyz and a status page for the "
     "site's own people; empty: no port is opened"},
    {"http", "token_file", FL_CONFIG_STRING, MEMBER(http_token_file), 0, 0, NULL, "",
     "a file with the token that HTTP asks for, mode 0600; must be set where listen is not this "
     "machine's own"},
};

static enum fl_status set_path(char *to, const char *value, const char *key, struct fl_error *error)
{
    if (strlen(value) >= FL_PATH_BYTES)
        return fl_fail(error, FL_EFORMAT, "the path of '%s' is too long", key);
    memcpy(to, value, strlen(value) + 1);
    return FL_OK;
}

static enum fl_status add_model(struct fl_siteconf *self, const char *name, const char *value,
                                struct fl_error *error)
{
    if (!fl_wire_valid_name(name))
        return fl_fail(error, FL_EFORMAT, "'%s' is no model name (letters, digits, . _ -)", name);
    if (self->model_count == FL_SITE_MODELS_MAX)
        return fl_fail(error, FL_EFORMAT, "more than %d models", FL_SITE_MODELS_MAX);
    struct fl_site_model *model = &self->models[self->model_count++];
    fl_wire_set_text(model->name, sizeof(model->name), name);
    return set_path(model->path, value, name, error);
}

static struct fl_site_data *data_of(struct fl_siteconf *self, const char *job)
{
    for (uint32_t i = 0; i < self->data_count; i++) {
        if (strcmp(self->data[i].job, job) == 0)
            return &self->data[i];
    }
    if (self->data_count == FL_SITE_DATA_MAX)
        return NULL;
    struct fl_site_data *data = &self->data[self->data_count++];
    fl_wire_set_text(data->job, sizeof(data->job), job);
    return data;
}

static enum fl_status add_data(struct fl_siteconf *self, const char *job, const char *key,
                               const char *value, struct fl_error *error)
{
    if (!fl_wire_valid_name(job))
        return fl_fail(error, FL_EFORMAT, "'%s' is no job name", job);
    struct fl_site_data *data = data_of(self, job);
    if (!data)
        return fl_fail(error, FL_EFORMAT, "more than %d [data.JOBNAME] sections", FL_SITE_DATA_MAX);
    if (strcmp(key, "path") == 0)
        return set_path(data->path, value, key, error);
    if (strcmp(key, "eval") == 0)
        return set_path(data->eval, value, key, error);
    return fl_fail(error, FL_EFORMAT,
                   "unknown key '%s'; a [data.JOBNAME] section has path and eval", key);
}

static enum fl_status handle(void *context, const char *section, const char *key, const char *value,
                             struct fl_error *error)
{
    struct fl_siteconf *self = context;
    if (strcmp(section, "models") == 0)
        return add_model(self, key, value, error);
    return add_data(self, section + strlen("data."), key, value, error);
}

static const struct fl_config_table table = {keys, sizeof(keys) / sizeof(keys[0]), handle};

const struct fl_config_table *fl_siteconf_table(void)
{
    return &table;
}

/* known_sites: how many names, each valid and there once. */
static enum fl_status count_known(const char *list, uint64_t *count, struct fl_error *error)
{
    char copy[FL_SITE_LIST_BYTES], seen[FL_SITE_LIST_BYTES] = "";
    *count = 0;
    memcpy(copy, list, strlen(list) + 1);
    char *rest = copy, *entry;
    while ((entry = strsep(&rest, ",")) != NULL) {
        entry += strspn(entry, " ");
        for (size_t n = strlen(entry); n > 0 && entry[n - 1] == ' '; n--)
            entry[n - 1] = '\0';
        if (!entry[0] && !rest)
            break; /* empty, or a comma at the end */
        if (!fl_name_is_valid(entry))
            return fl_fail(error, FL_EFORMAT, "'%.80s' is no name of a site", entry);
        if (fl_list_matches(seen, entry))
            return fl_fail(error, FL_EFORMAT, "'%s' is listed twice", entry);
        const size_t used = strlen(seen);
        snprintf(seen + used, sizeof(seen) - used, "%s,", entry);
        ++*count;
    }
    return FL_OK;
}

static enum fl_status check_known(const struct fl_siteconf *conf, const char **key,
                                  struct fl_error *error)
{
    uint64_t known = 0;
    *key = "known_sites";
    enum fl_status status = count_known(conf->known_sites, &known, error);
    if (status == FL_OK && conf->min_known > known) {
        *key = "min_known";
        status = fl_fail(error, FL_EFORMAT,
                         "%" PRIu64 " is more than the %" PRIu64 " names in known_sites",
                         conf->min_known, known);
    }
    return status;
}

/* Turn what the table read as text into values. *key is what an error is about. */
static enum fl_status finish_policy(struct fl_siteconf *conf, const char **key,
                                    struct fl_error *error)
{
    bool allowed;
    unsigned wait;
    *key = "hours";
    if (fl_hours_allow(conf->hours, 0, &allowed, &wait) != FL_OK)
        return fl_fail(error, FL_EFORMAT, "%s: not of the form 22:00-06:00", conf->hours);
    *key = "authority";
    if (conf->authority_text[0]) {
        const enum fl_status status = fl_authority_parse(conf->authority_text, conf->authority,
                                                         error);
        if (status != FL_OK)
            return status;
    }
    *key = "roster";
    const int rule = conf->roster_choice - 1; /* behind auto they stand as in the enum */
    if (rule >= 0)
        conf->roster = (enum fl_site_roster)rule;
    else
        conf->roster = conf->authority_text[0] ? FL_ROSTER_AUTHORITY : FL_ROSTER_FIRST_USE;
    if (conf->roster == FL_ROSTER_AUTHORITY && !conf->authority_text[0])
        return fl_fail(error, FL_EFORMAT, "authority needs its public key: authority = fla1:...");
    return check_known(conf, key, error);
}

enum fl_status fl_siteconf_parse(const char *text, size_t length, const char *what,
                                 struct fl_siteconf *out, struct fl_error *error)
{
    memset(out, 0, sizeof(*out));
    enum fl_status status = fl_config_parse(&table, text, length, what, out, out, error);
    if (status != FL_OK)
        return status;
    const char *section = "policy", *key = "";
    status = finish_policy(out, &key, error);
    if (status == FL_OK && fl_parse_bytes(out->memory_limit_text, &out->memory_limit) != FL_OK) {
        section = "train";
        key = "memory_limit";
        status = fl_fail(error, FL_EFORMAT, "%s: not of the form 4G", out->memory_limit_text);
    }
    if (status != FL_OK)
        fl_error_prefix(error, "%s:%d: [%s] %s", what, fl_config_line(text, length, section, key),
                        section, key);
    return status;
}

enum fl_status fl_siteconf_load(const char *site, struct fl_siteconf **out, struct fl_error *error)
{
    *out = NULL;
    char path[FL_PATH_BYTES];
    struct fl_buf text;
    fl_buf_init(&text, 1u << 20);
    struct fl_siteconf *self = NULL;
    enum fl_status status = fl_path_join(path, site, "worker.conf", error);
    if (status == FL_OK)
        status = fl_fs_read(path, 1u << 20, &text, error);
    if (status == FL_ENOTFOUND)
        status = fl_fail(error, FL_ENOTFOUND,
                         "%s is not there: run `fedlora-worker join TOKEN --dir %s` first; or, "
                         "enrolled by `roster add`, write it with the lines that it printed",
                         path, site);
    if (status != FL_OK)
        goto out;
    self = fl_calloc(1, sizeof(*self));
    status = self ? fl_siteconf_parse(fl_buf_text(&text), text.length, path, self, error)
                  : fl_fail_memory(error);
    if (status != FL_OK)
        goto out;
    *out = self;
    self = NULL;
out:
    fl_siteconf_free(&self);
    fl_buf_free(&text);
    return status;
}

void fl_siteconf_free(struct fl_siteconf **self)
{
    fl_free(*self);
    *self = NULL;
}

void fl_siteconf_sample(const char *address, const char *coordinator_key, struct fl_buf *out)
{
    fl_buf_printf(
        out, "; What this site has and what it allows. Lines that begin with ';' show the\n"
             "; defaults. The policy here is obeyed before anything the coordinator asks.\n\n");
    fl_buf_printf(out, "[coordinator]\naddress = %s\nkey = %s\n", address, coordinator_key);
    struct fl_config_table rest = {keys + 2, table.count - 2, handle};
    fl_config_sample(&rest, out);
}

const char *fl_siteconf_model(const struct fl_siteconf *self, const char *name)
{
    for (uint32_t i = 0; i < self->model_count; i++) {
        if (strcmp(self->models[i].name, name) == 0)
            return self->models[i].path;
    }
    return NULL;
}

void fl_siteconf_data(const struct fl_siteconf *self, const char *job, const char **path,
                      const char **eval)
{
    *path = self->data_path;
    *eval = self->data_eval;
    for (uint32_t i = 0; i < self->data_count; i++) {
        if (strcmp(self->data[i].job, job) != 0)
            continue;
        if (self->data[i].path[0])
            *path = self->data[i].path;
        if (self->data[i].eval[0])
            *eval = self->data[i].eval;
    }
}

const char *fl_siteconf_lacks_models(const struct fl_siteconf *self)
{
    return self->model_count > 0 ? NULL
                                 : "no model is named, so that every job will be refused: write "
                                   "NAME = PATH below [models] in worker.conf, with the name that "
                                   "the jobs give it";
}

const char *fl_siteconf_lacks_data(const struct fl_siteconf *self)
{
    bool has = self->data_path[0] != '\0';
    for (uint32_t i = 0; i < self->data_count; i++)
        has = has || self->data[i].path[0];
    return has ? NULL
               : "no training data is named, so that every job will be refused: write path = FILE "
                 "or DIR below [data] in worker.conf (or below [data.JOB], for one job)";
}

static bool parse_window(const char *text, unsigned *from, unsigned *to)
{
    unsigned h1, m1, h2, m2;
    int used = 0;
    if (sscanf(text, " %2u:%2u-%2u:%2u %n", &h1, &m1, &h2, &m2, &used) != 4 || text[used] != '\0')
        return false;
    *from = h1 * 60 + m1;
    *to = h2 * 60 + m2;
    return h1 < 24 && m1 < 60 && h2 <= 24 && m2 < 60 && *to <= 1440 && *from != *to;
}

enum fl_status fl_hours_allow(const char *hours, unsigned minute, bool *allowed,
                              unsigned *wait_minutes)
{
    char copy[64];
    *allowed = hours[0] == '\0';
    *wait_minutes = *allowed ? 0 : 1440;
    if (strlen(hours) >= sizeof(copy))
        return FL_EFORMAT;
    memcpy(copy, hours, strlen(hours) + 1);
    char *rest = copy, *window;
    while (hours[0] && (window = strsep(&rest, ",")) != NULL) {
        unsigned from, to;
        if (!parse_window(window, &from, &to))
            return FL_EFORMAT;
        bool inside = from <= to ? minute >= from && minute < to : minute >= from || minute < to;
        unsigned wait = inside ? 0 : (from + 1440 - minute) % 1440;
        *allowed = *allowed || inside;
        if (wait < *wait_minutes)
            *wait_minutes = wait;
    }
    return FL_OK;
}

bool fl_list_matches(const char *list, const char *name)
{
    char copy[FL_SITE_LIST_BYTES];
    snprintf(copy, sizeof(copy), "%s", list);
    char *rest = copy, *entry;
    while ((entry = strsep(&rest, ",")) != NULL) {
        while (*entry == ' ')
            entry++;
        for (size_t n = strlen(entry); n > 0 && entry[n - 1] == ' '; n--)
            entry[n - 1] = '\0';
        if (entry[0] && fnmatch(entry, name, 0) == 0)
            return true;
    }
    return false;
}

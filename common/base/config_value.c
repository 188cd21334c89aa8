/* config_value.c - one value of a configuration file: text to a typed member. */
#include "base/config_internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/cli.h"

bool fl_config_is_bounded(const struct fl_config_key *key)
{
    return key->low < 0 || key->low > 0 || key->high < 0 || key->high > 0;
}

bool fl_config_is_pattern(const char *text)
{
    size_t length = strlen(text);
    return length > 0 && text[length - 1] == '*';
}

bool fl_config_matches(const char *pattern, const char *text)
{
    if (!fl_config_is_pattern(pattern))
        return strcmp(pattern, text) == 0;
    size_t fixed = strlen(pattern) - 1;
    return strncmp(pattern, text, fixed) == 0 && text[fixed] != 0;
}

bool fl_config_is_handled(const struct fl_config_key *key)
{
    return key->kind == FL_CONFIG_PATTERN || fl_config_is_pattern(key->section);
}

/* The text of a bound: durations in seconds where they are whole; 16 digits, so that 0.9 stays 0.9.
 */
static void bound_text(const struct fl_config_key *key, double bound, char out[40])
{
    if (key->kind != FL_CONFIG_DURATION)
        snprintf(out, 40, "%.16g", bound);
    else if ((int64_t)bound % 1000 == 0)
        snprintf(out, 40, "%llds", (long long)bound / 1000);
    else
        snprintf(out, 40, "%lldms", (long long)bound);
}

static enum fl_status check_range(const struct fl_config_key *key, double value, const char *text,
                                  struct fl_error *error)
{
    if (!fl_config_is_bounded(key) || (value >= key->low && value <= key->high))
        return FL_OK;
    char low[40], high[40];
    bound_text(key, key->low, low);
    bound_text(key, key->high, high);
    return fl_fail(error, FL_EFORMAT, "%.80s is outside %s to %s", text, low, high);
}

static enum fl_status set_number(const struct fl_config_key *key, const char *text, void *member,
                                 struct fl_error *error)
{
    enum fl_status status;
    uint64_t whole;
    double number;
    int64_t duration_ms;
    if (key->kind == FL_CONFIG_U64) {
        status = fl_parse_u64(text, 0, UINT64_MAX, &whole);
        if (status != FL_OK)
            return fl_fail(error, FL_EFORMAT, "'%.80s' is not a whole number", text);
        status = check_range(key, (double)whole, text, error);
        if (status == FL_OK)
            memcpy(member, &whole, sizeof(whole));
        return status;
    }
    if (key->kind == FL_CONFIG_DOUBLE) {
        status = fl_parse_double(text, &number);
        if (status != FL_OK)
            return fl_fail(error, FL_EFORMAT, "'%.80s' is not a number", text);
        status = check_range(key, number, text, error);
        if (status == FL_OK)
            memcpy(member, &number, sizeof(number));
        return status;
    }
    status = fl_parse_duration(text, &duration_ms);
    if (status != FL_OK)
        return fl_fail(error, FL_EFORMAT, "'%.80s' is not a duration such as 500ms, 60s, 30m, 24h",
                       text);
    status = check_range(key, (double)duration_ms, text, error);
    if (status == FL_OK)
        memcpy(member, &duration_ms, sizeof(duration_ms));
    return status;
}

static enum fl_status set_bool(const char *text, bool *member, struct fl_error *error)
{
    static const char *const words[] = {"off", "on", "false", "true", "no", "yes", "0", "1"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(text, words[i]) == 0) {
            *member = i % 2 == 1;
            return FL_OK;
        }
    }
    return fl_fail(error, FL_EFORMAT, "'%.80s' is neither on nor off", text);
}

static enum fl_status set_choice(const struct fl_config_key *key, const char *text, int *member,
                                 struct fl_error *error)
{
    size_t length = strlen(text);
    const char *choice = key->choices;
    for (int i = 0; choice; i++) {
        const char *bar = strchr(choice, '|');
        size_t choice_length = bar ? (size_t)(bar - choice) : strlen(choice);
        if (choice_length == length && memcmp(choice, text, length) == 0) {
            *member = i;
            return FL_OK;
        }
        choice = bar ? bar + 1 : NULL;
    }
    return fl_fail(error, FL_EFORMAT, "'%.80s' is none of %s", text, key->choices);
}

enum fl_status fl_config_set(const struct fl_config_key *key, const char *text, void *target,
                             struct fl_error *error)
{
    void *member = (char *)target + key->offset;
    switch (key->kind) {
    case FL_CONFIG_STRING:
        if (strlen(text) >= key->size)
            return fl_fail(error, FL_EFORMAT, "longer than %zu bytes", key->size - 1);
        memcpy(member, text, strlen(text) + 1);
        return FL_OK;
    case FL_CONFIG_U64:
    case FL_CONFIG_DOUBLE:
    case FL_CONFIG_DURATION:
        return set_number(key, text, member, error);
    case FL_CONFIG_BOOL:
        return set_bool(text, member, error);
    case FL_CONFIG_CHOICE:
        return set_choice(key, text, member, error);
    case FL_CONFIG_PATTERN:
        break;
    }
    assert(0 && "a pattern has no member");
    return FL_EINVAL;
}

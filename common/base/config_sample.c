/* config_sample.c - the commented sample file that a configuration table stands for. */
#include <string.h>

#include "base/config_internal.h"

static void append_range(const struct fl_config_key *key, struct fl_buf *out)
{
    if (key->kind == FL_CONFIG_CHOICE)
        fl_buf_printf(out, " (%s)", key->choices);
    else if (key->kind == FL_CONFIG_BOOL)
        fl_buf_printf(out, " (on|off)");
    else if (fl_config_is_bounded(key) && key->kind == FL_CONFIG_DURATION)
        fl_buf_printf(out, " (%.16gs to %.16gs)", key->low / 1000, key->high / 1000);
    else if (fl_config_is_bounded(key))
        fl_buf_printf(out, " (%.16g to %.16g)", key->low, key->high);
}

static void append_section(const char *section, struct fl_buf *out)
{
    size_t length = strlen(section);
    const char *between = out->length > 0 ? "\n" : "";
    if (fl_config_is_pattern(section))
        fl_buf_printf(out, "%s;[%.*sNAME]\n", between, (int)length - 1, section);
    else
        fl_buf_printf(out, "%s[%s]\n", between, section);
}

static void append_key(const struct fl_config_key *key, struct fl_buf *out)
{
    bool pattern = fl_config_is_pattern(key->key);
    int length = (int)strlen(key->key) - (pattern ? 1 : 0);
    /* in [data.NAME] the section has the name */
    const char *any = fl_config_is_pattern(key->section) ? "KEY" : "NAME";
    bool required = !key->fallback && !fl_config_is_handled(key);
    fl_buf_printf(out, "; %s", key->doc);
    append_range(key, out);
    fl_buf_printf(out, "\n%s%.*s%s = %s\n", required ? "" : ";", length, key->key,
                  pattern ? any : "", key->fallback ? key->fallback : "");
}

void fl_config_sample(const struct fl_config_table *table, struct fl_buf *out)
{
    const char *section = "";
    for (size_t i = 0; i < table->count; i++) {
        const struct fl_config_key *key = &table->keys[i];
        if (strcmp(key->section, section) != 0)
            append_section(key->section, out);
        section = key->section;
        append_key(key, out);
    }
}

/* prom.c - see prom.h. */
#include "web/prom.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include "base/escape.h"

void fl_prom_head(struct fl_buf *out, const char *name, const char *type, const char *help)
{
    fl_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Backslash, quote and line feed are escaped; other control characters have no place in a label. */
static void put_label(struct fl_buf *out, const char *text)
{
    for (size_t left = strlen(text); left > 0;) {
        size_t length = fl_utf8_length(text, left);
        unsigned char c = (unsigned char)*text;
        if (length == 0) {
            fl_buf_printf(out, "\xef\xbf\xbd");
            length = 1;
        } else if (c == '\\' || c == '"')
            fl_buf_printf(out, "\\%c", c);
        else if (c == '\n')
            fl_buf_printf(out, "\\n");
        else if (c < ' ' || c == 0x7f)
            fl_buf_printf(out, " ");
        else
            fl_buf_append(out, text, length);
        text += length;
        left -= length;
    }
}

static void put_number(struct fl_buf *out, double value)
{
    if (isnan(value))
        fl_buf_printf(out, "NaN");
    else if (isinf(value))
        fl_buf_printf(out, value > 0 ? "+Inf" : "-Inf");
    else if (value == floor(value) && fabs(value) < 9007199254740992.0)
        fl_buf_printf(out, "%.0f", value);
    else
        fl_buf_printf(out, "%.12g", value);
}

void fl_prom(struct fl_buf *out, const char *name, const char *suffix, double value, ...)
{
    va_list labels;
    bool any = false;
    fl_buf_printf(out, "%s%s", name, suffix);
    va_start(labels, value);
    for (const char *label = va_arg(labels, const char *); label;
         label = va_arg(labels, const char *)) {
        fl_buf_printf(out, "%s%s=\"", any ? "," : "{", label);
        put_label(out, va_arg(labels, const char *));
        fl_buf_printf(out, "\"");
        any = true;
    }
    va_end(labels);
    fl_buf_printf(out, any ? "} " : " ");
    put_number(out, value);
    fl_buf_printf(out, "\n");
}

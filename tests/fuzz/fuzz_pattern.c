/*
 * fuzz_pattern.c - a pattern, a NUL and a text: the pattern is refused, or it answers in bounded
 * time, and what matches as a whole matches as an end too.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "format/pattern.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char source[513], text[129];
    struct fl_pattern *pattern;
    struct fl_error error;
    const uint8_t *split = memchr(data, 0, size);
    size_t length = split ? (size_t)(split - data) : size;
    size_t rest = split ? size - length - 1 : 0;
    if (length >= sizeof(source) || rest >= sizeof(text))
        return 0;
    memcpy(source, data, length);
    source[length] = '\0';
    if (rest)
        memcpy(text, split + 1, rest);
    text[rest] = '\0';
    if (fl_pattern_compile(source, &pattern, &error) != FL_OK)
        return 0;
    if (fl_pattern_matches(pattern, text) && !fl_pattern_matches_end(pattern, text))
        abort();
    fl_pattern_free(&pattern);
    return 0;
}

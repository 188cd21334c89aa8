/*
 * fuzz_source.c - any bytes as a data file: refused, or read record by record to an end, with every
 * error at a place in the file. Records of a table are objects of strings.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/data/source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_error(const struct fl_error *error, const char *name)
{
    if (error->status != FL_EFORMAT || strncmp(error->text, name, strlen(name)) != 0)
        abort();
}

static void check_record(const json_t *record, bool table)
{
    const char *key;
    json_t *value;
    if (!table)
        return;
    if (!json_is_object(record))
        abort();
    json_object_foreach((json_t *)(uintptr_t)record, key, value)
    {
        if (!json_is_string(value))
            abort();
    }
}

static void read_as(const char *name, const uint8_t *data, size_t size)
{
    struct fl_error error;
    struct fl_source *source;
    FILE *file = fmemopen((void *)(uintptr_t)data, size, "rb");
    if (file == NULL)
        abort();
    if (fl_source_begin(file, name, &source, &error) != FL_OK) {
        check_error(&error, name);
        return;
    }
    /* each call takes a byte or ends, so that more calls than bytes are a loop */
    for (size_t calls = 0;; calls++) {
        json_t *record;
        bool skippable;
        enum fl_status status = fl_source_next(source, &record, &skippable, &error);
        if (calls > size + 1 || (status != FL_OK && record != NULL))
            abort();
        if (status != FL_OK)
            check_error(&error, name);
        if ((status == FL_OK && record == NULL) || (status != FL_OK && !skippable))
            break;
        if (record != NULL)
            check_record(record, strchr("{[ \t\r\n\xEF", data[0]) == NULL && name[1] == 'c');
        json_decref(record);
    }
    fl_source_close(source);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    read_as(".csv", data, size);
    read_as(".jsonl", data, size);
    return 0;
}

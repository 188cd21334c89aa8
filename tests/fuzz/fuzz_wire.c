/*
 * fuzz_wire.c - any bytes as a frame: refused, or a message that encodes, and whose encoding
 * decodes to a message that encodes to the same bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "proto/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fl_wire message, again;
    struct fl_buf first, second;
    struct fl_error error;
    if (fl_wire_decode(data, size, &message, &error) != FL_OK)
        return 0;
    fl_buf_init(&first, FL_FRAME_BYTES_MAX);
    fl_buf_init(&second, FL_FRAME_BYTES_MAX);
    enum fl_status status = fl_wire_encode(&message, &first);
    if (status != FL_OK && status != FL_ERANGE)
        abort();
    if (status == FL_OK) {
        if (fl_wire_decode(first.data, first.length, &again, &error) != FL_OK ||
            fl_wire_encode(&again, &second) != FL_OK || first.length != second.length ||
            memcmp(first.data, second.data, first.length) != 0)
            abort();
        fl_wire_free(&again);
    }
    fl_buf_free(&second);
    fl_buf_free(&first);
    fl_wire_free(&message);
    return 0;
}

/*
 * fuzz_inventory.c - any bytes as an inventory: refused, or one whose canonical bytes are these.
 */
#include <stdlib.h>
#include <string.h>

#include "adapter/adapter.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fl_inventory inventory, chosen;
    struct fl_buf bytes;
    struct fl_error error;
    if (fl_inventory_decode(data, size, &inventory, &error) != FL_OK)
        return 0;
    fl_buf_init(&bytes, size);
    if (fl_inventory_encode(&inventory, &bytes) != FL_OK || bytes.length != size ||
        memcmp(bytes.data, data, size) != 0)
        abort();
    if (fl_inventory_select(&inventory, "q_proj, v_proj", &chosen, &error) == FL_OK)
        fl_inventory_free(&chosen);
    if (fl_inventory_select(&inventory, "all-linear", &chosen, &error) != FL_OK ||
        chosen.count != inventory.count)
        abort();
    fl_inventory_free(&chosen);
    fl_buf_free(&bytes);
    fl_inventory_free(&inventory);
    return 0;
}

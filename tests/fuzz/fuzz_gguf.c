/*
 * fuzz_gguf.c - any bytes as a GGUF file: refused, or every value and tensor can be read.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fs.h"
#include "format/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const keys[] = {"general.alignment", "general.architecture", "k", "a",
                                   "tokenizer.ggml.tokens"};

/* Read bytes must not be optimised away: the sanitizers shall see the reads. */
static volatile uint8_t touched;

static void touch(uint8_t byte)
{
    touched = (uint8_t)(touched ^ byte);
}

static void read_key(const struct fl_gguf *file, const char *key)
{
    uint64_t integer;
    double real;
    bool truth;
    struct fl_gguf_string string;
    struct fl_gguf_array array;
    (void)!fl_gguf_u64(file, key, &integer);
    (void)!fl_gguf_f64(file, key, &real);
    (void)!fl_gguf_bool(file, key, &truth);
    if (fl_gguf_string(file, key, &string) == FL_OK && string.length > 0)
        touch((uint8_t)string.data[string.length - 1]);
    if (fl_gguf_array(file, key, &array) != FL_OK)
        return;
    if (array.count > 0 && array.type != FL_GGUF_STRING) {
        touch((uint8_t)fl_gguf_array_i64(&array, array.count - 1));
        touch(fl_gguf_array_f64(&array, array.count - 1) > 0.0);
    }
    while (fl_gguf_array_next_string(&array, &string)) {
        if (string.length > 0)
            touch((uint8_t)string.data[string.length - 1]);
    }
}

static void read_tensor(const struct fl_gguf *file, uint32_t index)
{
    const struct fl_tensor_view *view = fl_gguf_tensor(file, index);
    float out[256];
    if (fl_gguf_find(file, view->name) != view || !fl_gguf_type_name(file, index))
        abort();
    if (view->bytes > 0)
        touch(view->data[view->bytes - 1]);
    if (fl_dtype_is_float(view->dtype) && view->bytes > 0)
        fl_dtype_widen(view->dtype, view->data, fl_dtype_block_values(view->dtype), out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    char path[64];
    struct fl_gguf *file;
    struct fl_error error;
    if (fd < 0)
        fd = memfd_create("input", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (fl_gguf_open(path, &file, &error) != FL_OK)
        return 0;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        read_key(file, keys[i]);
    for (uint32_t i = 0; i < fl_gguf_tensor_count(file); i++)
        read_tensor(file, i);
    fl_gguf_close(&file);
    return 0;
}

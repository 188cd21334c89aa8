/* tokenizer_gguf.c - read the tokenizer that a GGUF file carries (tokenizer.ggml.*). */
#include "worker/data/tokenizer_internal.h"

enum fl_status fl_tokenizer_read_gguf(struct fl_tokenizer *self, const char *path,
                                      struct fl_error *error)
{
    (void)self;
    return fl_fail(error, FL_EFORMAT, "%s: GGUF files can't be read yet", path);
}

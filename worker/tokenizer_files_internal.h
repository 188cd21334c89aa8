/* tokenizer_files_internal.h - what both directions of tokenizer_files.h share. */
#ifndef FL_WORKER_TOKENIZER_FILES_INTERNAL_H
#define FL_WORKER_TOKENIZER_FILES_INTERNAL_H

/* tokenizer.ggml.token_type */
enum fl_gguf_token {
    FL_GGUF_TOKEN_NORMAL = 1,
    FL_GGUF_TOKEN_CONTROL = 3,
    FL_GGUF_TOKEN_USER = 4,
    FL_GGUF_TOKEN_UNUSED = 5
};

#endif

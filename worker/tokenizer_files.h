/*
 * tokenizer_files.h - a model's tokenizer in the other format: tokenizer.json and its companions
 * from a GGUF file, GGUF's tokenizer.ggml.* keys from a Hugging Face directory. Byte-level BPE
 * only, as everywhere here (worker/data/tokenizer.h).
 *
 * What comes out gives the same ids; a merged model must not need its base for that.
 * Sources: tokenizers' tokenizer.json; the GGUF specification.
 * Threads: main thread.
 */
#ifndef FL_WORKER_TOKENIZER_FILES_H
#define FL_WORKER_TOKENIZER_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "format/gguf_write.h"

/*
 * Write tokenizer.json, tokenizer_config.json and generation_config.json of the GGUF file into
 * directory. *written is false, and nothing is written, when the file has no tokenizer that can be
 * read here; *error then says why, and the status is FL_OK.
 */
FL_CHECKED enum fl_status fl_tokenizer_files_write(const char *gguf_path, const char *directory,
                                                   bool *written, struct fl_error *error);
/*
 * Put the keys of the tokenizer in a Hugging Face directory; vocab is the model's (ids without a
 * token are filled up). *written as above.
 */
FL_CHECKED enum fl_status fl_tokenizer_keys_put(const char *directory, uint32_t vocab,
                                                struct fl_gguf_writer *writer, bool *written,
                                                struct fl_error *error);

#endif

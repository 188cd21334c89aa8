/*
 * describe.h - a model's configuration in the words of another file format: config.json for a model
 * that was read from GGUF, GGUF's metadata for one that was read from a Hugging Face directory.
 * Threads: pure.
 */
#ifndef FL_ENGINE_DESCRIBE_H
#define FL_ENGINE_DESCRIBE_H

#include "base/json.h"
#include "base/status.h"
#include "format/gguf_write.h"
#include "worker/engine/model.h"

/*
 * config.json of the model as a new object (the dialect with rope_theta and rope_scaling).
 * FL_EUSAGE: something that config.json of this architecture can't say, named in the message.
 */
FL_CHECKED enum fl_status fl_describe_hf(const struct fl_model *model, enum fl_dtype dtype,
                                         json_t **out, struct fl_error *error);
/*
 * general.* and the architecture's keys, without a tokenizer's. name becomes general.name, dtype
 * general.file_type. FL_EUSAGE: something that GGUF files are not read for (yarn, a window in some
 * layers), named in the message.
 */
FL_CHECKED enum fl_status fl_describe_gguf(const struct fl_model *model, enum fl_dtype dtype,
                                           const char *name, struct fl_gguf_writer *writer,
                                           struct fl_error *error);
/* The number that GGUF's general.file_type has for files of this type: F32 0, F16 1, BF16 32. */
uint32_t fl_gguf_file_type(enum fl_dtype dtype);
/* "float32", "float16", "bfloat16" */
const char *fl_torch_name(enum fl_dtype dtype);

#endif

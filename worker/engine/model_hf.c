/* model_hf.c - a Hugging Face directory: config.json, and *.safetensors with or without an index.
 */
#include <string.h>

#include "worker/engine/model_internal.h"

static enum fl_status find_tensor(const struct fl_model *self, const char *name,
                                  struct fl_tensor_view *out, struct fl_error *error)
{
    static const char OUTER[] = "transformer."; /* files of the bare model leave it out */
    const struct fl_tensor_view *view = fl_safetensors_find(self->tensors, name);
    if (!view && strncmp(name, OUTER, sizeof OUTER - 1) == 0)
        view = fl_safetensors_find(self->tensors, name + sizeof OUTER - 1);
    if (!view)
        return fl_fail(error, FL_ENOTFOUND, "the model has no tensor %s", name);
    *out = *view;
    return FL_OK;
}

enum fl_status fl_model_open_hf(struct fl_model *self, const char *directory,
                                struct fl_error *error)
{
    char path[FL_PATH_BYTES];
    enum fl_status status = fl_path_join(path, directory, "config.json", error);
    if (!status)
        status = fl_model_read_config(self, path, error);
    if (!status)
        status = fl_safetensors_open(directory, &self->tensors, error);
    if (status)
        return status;
    status = fl_model_collect(self, find_tensor, error);
    if (status)
        fl_error_prefix(error, "%s", directory);
    return status;
}

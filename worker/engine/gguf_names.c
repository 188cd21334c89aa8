/* gguf_names.c - see gguf_names.h. */
#include "worker/engine/gguf_names.h"

#include <stdio.h>
#include <string.h>

/* Is `name` this one, alone or with a '.' behind it? Then *rest is what follows. */
static bool begins(const char *name, const struct fl_name *wanted, const char **rest)
{
    const size_t length = wanted->hf ? strlen(wanted->hf) : 0;
    if (!length || strncmp(name, wanted->hf, length) != 0 || (name[length] && name[length] != '.'))
        return false;
    *rest = name + length;
    return true;
}

/* "model.layers.3.mlp.up_proj.weight" -> 3, "mlp.up_proj.weight"; NULL: in no block. */
static const char *part_of(const struct fl_arch *arch, const char *name, unsigned *layer)
{
    const char *rest;
    int used = 0;
    if (!begins(name, &arch->names->block, &rest) || sscanf(rest, ".%u.%n", layer, &used) != 1 ||
        !used)
        return NULL;
    return rest + used;
}

/* "mlp.up_proj.weight" -> "ffn_up", ".weight"; NULL: no such part of a block. */
static const char *translate_part(const struct fl_arch_names *names, const char *part,
                                  const char **rest)
{
    const struct fl_name *const norms[] = {&names->norm1, &names->norm2,  &names->post1,
                                           &names->post2, &names->q_norm, &names->k_norm};
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++)
        if (begins(part, norms[i], rest))
            return norms[i]->gguf;
    for (unsigned k = 0; k < FL_LINEAR_COUNT; k++)
        if (begins(part, &names->linears[k], rest))
            return names->linears[k].gguf;
    return NULL;
}

bool fl_gguf_tensor_name(const struct fl_arch *arch, const char *name, char *out, size_t bytes)
{
    const struct fl_arch_names *names = arch->names;
    const struct fl_name *const tops[] = {&names->embedding, &names->positions, &names->final_norm,
                                          &names->head};
    const char *rest;
    unsigned layer;
    int length = -1;
    for (size_t i = 0; i < sizeof tops / sizeof *tops && length < 0; i++)
        if (begins(name, tops[i], &rest))
            length = snprintf(out, bytes, "%s%s", tops[i]->gguf, rest);
    const char *part = length < 0 ? part_of(arch, name, &layer) : NULL;
    const char *own = part ? translate_part(names, part, &rest) : NULL;
    if (own)
        length = snprintf(out, bytes, "%s.%u.%s%s", names->block.gguf, layer, own, rest);
    return length > 0 && (size_t)length < bytes;
}

bool fl_gguf_interleaves(const struct fl_arch *arch, const char *name)
{
    const char *rest;
    unsigned layer;
    const char *part = arch->interleaved ? part_of(arch, name, &layer) : NULL;
    return part && (begins(part, &arch->names->linears[FL_LINEAR_Q], &rest) ||
                    begins(part, &arch->names->linears[FL_LINEAR_K], &rest));
}

size_t fl_gguf_interleaved_row(size_t row, size_t head_dim)
{
    const size_t in_head = row % head_dim;
    const size_t within = in_head % 2 ? head_dim / 2 + in_head / 2 : in_head / 2;
    return row - in_head + within;
}

/*
 * export.h - an adapter as one GGUF file that llama.cpp applies to a GGUF base (--lora).
 *
 * llama.cpp adds alpha / r * B A to each linear, with one alpha for the file: that of the first
 * module, as its scale times its rank (so rank-stabilised scales come out right); where another
 * module's scale times rank differs (patterns), the quotient is folded into its B. A base of
 * architecture llama stores each head's q and k rows interleaved: so are the rows of their B. GGUF
 * stores every linear (out, in), GPT-2's too: A and B of a PEFT adapter on those already lie so.
 * Source: the adapter format of llama.cpp (general.type = adapter).
 * Threads: pure but for the file.
 */
#ifndef FL_ENGINE_EXPORT_H
#define FL_ENGINE_EXPORT_H

#include "adapter/adapter.h"
#include "base/status.h"
#include "format/dtype.h"
#include "worker/engine/model.h"

/*
 * Write adapter (of model) to path, as dtype (F32, F16, BF16), atomically. FL_EUSAGE: a
 * module has no name in GGUF files; FL_ERANGE: a value does not fit dtype.
 */
FL_CHECKED enum fl_status fl_export_gguf(const struct fl_model *model,
                                         const struct fl_adapter *adapter, enum fl_dtype dtype,
                                         const char *path, struct fl_error *error);

#endif

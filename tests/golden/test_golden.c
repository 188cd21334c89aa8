/*
 * The engine against frozen results of transformers and PEFT (make_models.py, make_gguf_cases.py,
 * make_gguf.py, make_blocks.py, make_nf4.py, make_smollm2.py say how they came about). Bounds:
 * logits 1e-4 of the largest logit, losses 1e-5, every LoRA gradient 1e-4, the adapter after 5
 * AdamW steps 1e-3 of its change (Frobenius norms).
 *
 *   test_golden          the tiny models under tests/golden/
 *   test_golden --real   SmolLM2-135M, whose GGUF file $FEDLORA_MODEL names; exit 77 without it
 */
#include "engine/forced.h"
#include "runner.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter/adapter.h"
#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "format/safetensors.h"
#include "worker/data/dataset.h"
#include "worker/engine/engine.h"
#include "worker/engine/finetune.h"
#include "worker/engine/model.h"

#define GOLDEN FL_TEST_SOURCE_DIR "/golden/"

struct golden {
    const char *folder; /* under tests/golden/ */
    const char *model;  /* path; NULL: the folder itself */
};

static const struct golden tiny[] = {
    {"cases/gqa-tied", NULL},
    {"cases/untied-headdim", NULL},
    {"cases/llama3-rope", NULL},
    {"cases/sharded-bf16", NULL},
    {"cases/mistral-f16", NULL},
    {"cases/qwen2", NULL},
    {"cases/qwen2", GOLDEN "cases/qwen2/model.gguf"},
    {"cases/gpt2", NULL},
    {"cases/gpt2", GOLDEN "cases/gpt2/model.gguf"},
    {"cases/gpt2-bare", NULL},
    {"cases/phi3", NULL},
    {"cases/phi3", GOLDEN "cases/phi3/model.gguf"},
    {"cases/qwen2-yarn", NULL},
    {"cases/mistral-window", NULL},
    {"cases/qwen2-window", NULL},
    {"cases/qwen3", NULL},
    {"cases/qwen3", GOLDEN "cases/qwen3/model.gguf"},
    {"cases/gemma2", NULL},
    {"cases/gemma3", NULL},
    {"cases/gemma3-old", NULL},
    {"cases/chosen", NULL},
    {"cases/dora", NULL},
    {"cases/dora-gpt2", NULL},
    {"cases/dora-phi3", NULL},
};
static struct golden real[] = {{"smollm2", NULL}};
static const struct golden *cases = tiny;
static int case_count = sizeof tiny / sizeof tiny[0];

static const char *const runs[] = {"plain", "linear", "cosine"};

/* Everything of one case, opened anew by each test (each runs in a process of its own). */
struct opened {
    struct fl_model *model;
    struct fl_adapter *adapter;
    struct fl_dataset *data;
    struct fl_row *rows;
    uint32_t count, longest;
    struct fl_safetensors *tensors;
    json_t *expected;
    struct fl_error error;
};

static void case_path(char *out, const struct golden *golden, const char *name)
{
    int length = snprintf(out, FL_PATH_BYTES, "%s%s%s%s", GOLDEN, golden->folder,
                          name[0] ? "/" : "", name);
    ck_assert(length > 0 && length < FL_PATH_BYTES);
}

static void open_rows(struct opened *o, const char *path)
{
    struct fl_dataset_options options = {.seq_len = 4096,
                                         .vocab_size = fl_model_config(o->model)->vocab};
    fl_assert_ok(fl_dataset_open(path, NULL, &options, &o->data, &o->error), &o->error);
    o->count = (uint32_t)fl_dataset_rows(o->data);
    o->rows = fl_calloc(o->count, sizeof *o->rows);
    ck_assert_ptr_nonnull(o->rows);
    for (uint32_t i = 0; i < o->count; i++) {
        o->rows[i] = fl_dataset_row(o->data, i);
        o->longest = o->rows[i].length > o->longest ? o->rows[i].length : o->longest;
    }
}

static void open_case(struct opened *o, int index)
{
    const struct golden *golden = &cases[index];
    char path[FL_PATH_BYTES];
    memset(o, 0, sizeof *o);
    case_path(path, golden, "");
    fl_assert_ok(fl_model_open(golden->model ? golden->model : path, &o->model, &o->error),
                 &o->error);
    case_path(path, golden, "init");
    fl_assert_ok(fl_adapter_load(path, fl_model_inventory(o->model), &o->adapter, &o->error),
                 &o->error);
    case_path(path, golden, "data.jsonl");
    open_rows(o, path);
    case_path(path, golden, "expected.safetensors");
    fl_assert_ok(fl_safetensors_open(path, &o->tensors, &o->error), &o->error);
    case_path(path, golden, "expected.json");
    fl_assert_ok(fl_json_load(path, 1 << 20, &o->expected, &o->error), &o->error);
}

static void close_case(struct opened *o)
{
    json_decref(o->expected);
    fl_safetensors_close(&o->tensors);
    fl_free(o->rows);
    fl_dataset_close(o->data);
    fl_adapter_destroy(&o->adapter);
    fl_model_close(&o->model);
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    ck_assert_msg(json_is_number(value), "expected.json has no number %s", key);
    return json_number_value(value);
}

/* The float32 values of an expected tensor; the caller frees them. */
static float *expected_tensor(struct opened *o, const char *name, size_t *count)
{
    const struct fl_tensor_view *tensor = fl_safetensors_find(o->tensors, name);
    ck_assert_msg(tensor != NULL, "expected.safetensors has no %s", name);
    ck_assert_int_eq(tensor->dtype, FL_DTYPE_F32);
    *count = tensor->bytes / sizeof(float);
    float *values = fl_calloc(*count, sizeof *values);
    ck_assert_ptr_nonnull(values);
    fl_dtype_widen(tensor->dtype, tensor->data, *count, values);
    return values;
}

static struct fl_engine *open_engine(struct opened *o, const struct fl_adapter *adapter,
                                     unsigned train)
{
    struct fl_engine *engine = NULL;
    struct fl_engine_options options = {.threads = 1, .max_row_tokens = o->longest, .train = train};
    fl_assert_ok(fl_engine_create(o->model, adapter, &options, &engine, &o->error), &o->error);
    return engine;
}

/* Largest |ours - theirs| over the kept rows and columns, in units of the largest |theirs|. */
static double logits_error(const float *ours, uint32_t tokens, uint32_t vocab, const float *theirs,
                           size_t row_stride, size_t column_stride, size_t count)
{
    double worst = 0, largest = 0;
    size_t at = 0;
    for (size_t t = 0; t < tokens; t += row_stride) {
        for (size_t v = 0; v < vocab; v += column_stride) {
            ck_assert_uint_lt(at, count);
            double difference = fabs((double)ours[t * vocab + v] - (double)theirs[at]);
            worst = fmax(worst, difference);
            largest = fmax(largest, fabs((double)theirs[at]));
            at++;
        }
    }
    ck_assert_uint_eq(at, count);
    return worst / largest;
}

static void check_logits(struct opened *o, const struct fl_adapter *adapter, const char *prefix)
{
    uint32_t vocab = fl_model_config(o->model)->vocab;
    size_t row_stride = (size_t)number(o->expected, "row_stride");
    size_t column_stride = (size_t)number(o->expected, "column_stride");
    struct fl_engine *engine = open_engine(o, adapter, FL_TRAIN_NONE);
    float *logits = fl_calloc((size_t)o->longest * vocab, sizeof *logits);
    ck_assert_ptr_nonnull(logits);
    for (uint32_t i = 0; i < o->count; i++) {
        char name[64];
        size_t count = 0;
        (void)snprintf(name, sizeof name, "%s.%u", prefix, i);
        float *theirs = expected_tensor(o, name, &count);
        fl_assert_ok(
            fl_engine_forward_logits(engine, o->rows[i].ids, o->rows[i].length, logits, &o->error),
            &o->error);
        double worst = logits_error(logits, o->rows[i].length, vocab, theirs, row_stride,
                                    column_stride, count);
        ck_assert_msg(worst < 1e-4, "%s: %.3g of the largest logit", name, worst);
        fl_free(theirs);
    }
    fl_free(logits);
    fl_engine_destroy(&engine);
}

START_TEST(the_base_has_the_logits_of_transformers)
{
    struct opened o;
    open_case(&o, _i);
    check_logits(&o, NULL, "base");
    close_case(&o);
}
END_TEST

START_TEST(the_adapted_model_has_the_logits_of_peft)
{
    struct opened o;
    open_case(&o, _i);
    check_logits(&o, o.adapter, "adapted");
    close_case(&o);
}
END_TEST

static void check_loss(const char *what, double ours, double theirs, double bound)
{
    ck_assert_msg(fabs(ours - theirs) <= bound * fmax(1, fabs(theirs)), "%s: %.9g, not %.9g", what,
                  ours, theirs);
}

static double loss_of(struct opened *o, const struct fl_adapter *adapter)
{
    struct fl_evaluation result;
    struct fl_evaluate_options options = {.batch_size = 2, .threads = 1};
    fl_assert_ok(fl_finetune_evaluate(o->model, adapter, o->rows, o->count, &options, NULL, &result,
                                      &o->error),
                 &o->error);
    return result.loss_sum / (double)result.scored;
}

START_TEST(losses_are_those_of_peft)
{
    struct opened o;
    open_case(&o, _i);
    check_loss("base", loss_of(&o, NULL), number(o.expected, "base_loss"), 1e-5);
    check_loss("adapted", loss_of(&o, o.adapter), number(o.expected, "loss"), 1e-5);
    close_case(&o);
}
END_TEST

/* ||ours / divisor - theirs|| / ||theirs - start||; start NULL: zero. */
static double relative_error(const float *ours, double divisor, const float *theirs,
                             const float *start, size_t count)
{
    double wrong = 0, size = 0;
    for (size_t i = 0; i < count; i++) {
        double difference = (double)ours[i] / divisor - (double)theirs[i];
        double change = (double)theirs[i] - (start ? (double)start[i] : 0.0);
        wrong += difference * difference;
        size += change * change;
    }
    return sqrt(wrong) / fmax(sqrt(size), 1e-30);
}

static void tensor_name(char out[256], const char *prefix, const struct fl_lora_module *module,
                        char factor)
{
    /* a gradient has the parameter's name, a saved adapter the one that PEFT gives it there */
    const bool named = strcmp(prefix, "grad") == 0;
    int length = factor == 'M'
                     ? snprintf(out, 256, "%s.base_model.model.%s.lora_magnitude_vector%s", prefix,
                                module->module.name, named ? ".weight" : "")
                     : snprintf(out, 256, "%s.base_model.model.%s.lora_%c.weight", prefix,
                                module->module.name, factor);
    ck_assert(length > 0 && length < 256);
}

static void check_tensor(struct opened *o, const char *prefix, const struct fl_lora_module *module,
                         char factor, const float *ours, double divisor, const float *start,
                         double bound)
{
    char name[256];
    size_t count = 0;
    size_t features = factor == 'A' ? module->module.in : module->module.out;
    tensor_name(name, prefix, module, factor);
    float *theirs = expected_tensor(o, name, &count);
    ck_assert_uint_eq(count, features * (factor == 'M' ? 1 : module->rank));
    double wrong = relative_error(ours, divisor, theirs, start, count);
    ck_assert_msg(wrong < bound, "%s: relative error %.3g", name, wrong);
    if (getenv("FEDLORA_SHOW_ERRORS"))
        printf("%s %c %.3g\n", prefix, factor, wrong);
    fl_free(theirs);
}

START_TEST(every_gradient_is_that_of_peft)
{
    struct opened o;
    open_case(&o, _i);
    struct fl_engine *engine = open_engine(&o, o.adapter, FL_TRAIN_BOTH);
    double loss_sum = 0;
    uint64_t scored = 0;
    fl_engine_zero_gradients(engine);
    fl_assert_ok(fl_engine_gradients(engine, o.rows, o.count, 0, &loss_sum, &scored, &o.error),
                 &o.error);
    check_loss("loss", loss_sum / (double)scored, number(o.expected, "loss"), 1e-5);
    const struct fl_gradient *gradients = fl_engine_gradient(engine);
    for (uint32_t i = 0; i < o.adapter->count; i++) {
        const struct fl_lora_module *module = &o.adapter->modules[i];
        double n = (double)scored;
        check_tensor(&o, "grad", module, 'A', gradients[i].a, n, NULL, 1e-4);
        check_tensor(&o, "grad", module, 'B', gradients[i].b, n, NULL, 1e-4);
        if (module->m)
            check_tensor(&o, "grad", module, 'M', gradients[i].m, n, NULL, 1e-4);
    }
    fl_engine_destroy(&engine);
    close_case(&o);
}
END_TEST

struct losses {
    const json_t *expected;
    uint64_t steps;
};

static void check_step(void *context, const struct fl_finetune_step *step)
{
    struct losses *losses = context;
    const json_t *value = json_array_get(losses->expected, (size_t)step->step - 1);
    char what[32];
    (void)snprintf(what, sizeof what, "step %llu", (unsigned long long)step->step);
    /* AdamW divides small gradients by their own size: behind the first step the loss shows the
       adapter's rounding, for which check_run() has the bound, in units that depend on the CPU */
    check_loss(what, step->loss, json_number_value(value), step->step == 1 ? 1e-5 : 1e-4);
    losses->steps++;
}

static struct fl_finetune_options run_options(struct opened *o, const json_t *run)
{
    struct fl_finetune_options options;
    const char *schedule = json_string_value(json_object_get(run, "schedule"));
    fl_finetune_defaults(&options);
    const bool own_batch = json_object_get(run, "batch_size") != NULL;
    options.steps = (uint64_t)number(o->expected, "steps");
    options.batch_size = (uint32_t)number(own_batch ? run : o->expected, "batch_size");
    options.lr = number(run, "lr");
    if (json_object_get(run, "accumulate")) {
        options.accumulate = (uint32_t)number(run, "accumulate");
        options.lr_b = options.lr * number(run, "loraplus_ratio");
    }
    options.warmup = (uint64_t)number(run, "warmup");
    options.weight_decay = number(run, "weight_decay");
    options.grad_clip = number(run, "grad_clip");
    options.shuffle = false;
    options.threads = 1;
    ck_assert_int_eq(fl_schedule_parse(schedule, &options.schedule), FL_OK);
    return options;
}

static void check_run(struct opened *o, const char *name, const json_t *run)
{
    struct losses losses = {.expected = json_object_get(run, "losses")};
    struct fl_finetune_watch watch = {.on_step = check_step, .context = &losses};
    struct fl_finetune_options options = run_options(o, run);
    struct fl_finetune_result result;
    struct fl_adapter *trained = NULL;
    ck_assert_int_eq(fl_adapter_copy(o->adapter, &trained), FL_OK);
    fl_assert_ok(
        fl_finetune(o->model, trained, o->rows, o->count, &options, &watch, &result, &o->error),
        &o->error);
    ck_assert_uint_eq(losses.steps, options.steps);
    for (uint32_t i = 0; i < trained->count; i++) {
        const struct fl_lora_module *start = &o->adapter->modules[i];
        const struct fl_lora_module *end = &trained->modules[i];
        check_tensor(o, name, end, 'A', end->a, 1, start->a, 1e-3);
        check_tensor(o, name, end, 'B', end->b, 1, start->b, 1e-3);
        if (end->m)
            check_tensor(o, name, end, 'M', end->m, 1, start->m, 1e-3);
    }
    fl_adapter_destroy(&trained);
}

START_TEST(adapters_after_adamw_steps_are_those_of_peft)
{
    struct opened o;
    size_t done = 0;
    open_case(&o, _i);
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        const json_t *run = json_object_get(json_object_get(o.expected, "runs"), runs[i]);
        if (run) {
            check_run(&o, runs[i], run);
            done++;
        }
    }
    ck_assert_uint_gt(done, 0);
    close_case(&o);
}
END_TEST

/* recipes.* of one case (make_recipes.py): rsLoRA with accumulated gradients, with LoRA+. */
START_TEST(recipes_are_those_of_peft)
{
    static const char *const recipes[] = {"accumulate", "loraplus"};
    const int rank_stabilised = 2; /* of the tiny cases */
    struct opened o;
    char path[FL_PATH_BYTES];
    open_case(&o, rank_stabilised);
    ck_assert(o.adapter->use_rslora);
    fl_safetensors_close(&o.tensors);
    json_decref(o.expected);
    o.expected = NULL;
    case_path(path, &cases[rank_stabilised], "recipes.safetensors");
    fl_assert_ok(fl_safetensors_open(path, &o.tensors, &o.error), &o.error);
    case_path(path, &cases[rank_stabilised], "recipes.json");
    fl_assert_ok(fl_json_load(path, 1 << 20, &o.expected, &o.error), &o.error);
    const json_t *all = json_object_get(o.expected, "runs");
    check_run(&o, recipes[_i], json_object_get(all, recipes[_i]));
    close_case(&o);
}
END_TEST

static void run_once(int index, struct fl_buf *bytes)
{
    struct opened o;
    open_case(&o, index);
    const json_t *run = json_object_get(json_object_get(o.expected, "runs"), "linear");
    struct fl_finetune_options options = run_options(&o, run);
    struct fl_finetune_result result;
    options.shuffle = true;
    options.threads = 2;
    fl_assert_ok(
        fl_finetune(o.model, o.adapter, o.rows, o.count, &options, NULL, &result, &o.error),
        &o.error);
    fl_buf_init(bytes, 1u << 24);
    fl_assert_ok(fl_adapter_encode(o.adapter, bytes, &o.error), &o.error);
    close_case(&o);
}

START_TEST(two_runs_give_the_same_bytes)
{
    struct fl_buf first, second;
    run_once(_i, &first);
    run_once(_i, &second);
    ck_assert_uint_eq(first.length, second.length);
    ck_assert_mem_eq(first.data, second.data, first.length);
    fl_buf_free(&first);
    fl_buf_free(&second);
}
END_TEST

/*
 * tiny-gguf: one file as it is, one of many types with rope_freqs. blocks: five-bit and super-block
 * types. nf4: a directory in four bits. Bounds as for logits.
 */
static const char *const stored[][3] = {{"tiny-gguf", "f32", ".gguf"},
                                        {"tiny-gguf", "mixed", ".gguf"},
                                        {"blocks", "model", ".gguf"},
                                        {"nf4", "model", ""}};

START_TEST(stored_types_have_the_logits_of_their_dequantised_weights)
{
    const struct golden folder = {stored[_i][0], NULL};
    const char *file = stored[_i][1];
    struct opened o = {0};
    char path[FL_PATH_BYTES], name[32];
    int32_t ids[128];
    size_t count = 0;
    case_path(path, &folder, "expected.safetensors");
    fl_assert_ok(fl_safetensors_open(path, &o.tensors, &o.error), &o.error);
    case_path(path, &folder, "expected.json");
    fl_assert_ok(fl_json_load(path, 1 << 20, &o.expected, &o.error), &o.error);
    const json_t *list = json_object_get(o.expected, "ids");
    o.longest = (uint32_t)json_array_size(list);
    ck_assert_uint_le(o.longest, 128);
    for (size_t i = 0; i < o.longest; i++) {
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    }
    (void)snprintf(name, sizeof name, "%s%s", file, stored[_i][2]);
    case_path(path, &folder, name);
    fl_assert_ok(fl_model_open(path, &o.model, &o.error), &o.error);
    uint32_t vocab = fl_model_config(o.model)->vocab;
    struct fl_engine *engine = open_engine(&o, NULL, FL_TRAIN_NONE);
    float *logits = fl_calloc((size_t)o.longest * vocab, sizeof *logits);
    ck_assert_ptr_nonnull(logits);
    fl_assert_ok(fl_engine_forward_logits(engine, ids, o.longest, logits, &o.error), &o.error);
    (void)snprintf(name, sizeof name, "%s.0", file);
    float *theirs = expected_tensor(&o, name, &count);
    double worst = logits_error(logits, o.longest, vocab, theirs, 1, 1, count);
    ck_assert_msg(worst < 1e-4, "%s: %.3g of the largest logit", name, worst);
    fl_free(theirs);
    fl_free(logits);
    fl_engine_destroy(&engine);
    close_case(&o);
}
END_TEST

/* tiny-llama made into four bits here is the model that bitsandbytes made of it, to the last bit.
 */
START_TEST(a_base_is_quantised_as_bitsandbytes_does_it)
{
    struct fl_error error = {0};
    struct fl_model *ours, *theirs;
    float *a, *b;
    fl_assert_ok(fl_model_open(GOLDEN "tiny-llama", &ours, &error), &error);
    fl_assert_ok(fl_model_open(GOLDEN "nf4/model", &theirs, &error), &error);
    fl_assert_ok(fl_model_quantize(ours, 2, &error), &error);
    ck_assert_uint_eq(fl_model_weight_count(ours), fl_model_weight_count(theirs));
    for (uint32_t i = 0; i < fl_model_weight_count(ours); i++) {
        const struct fl_weight *w = fl_model_weight(ours, i), *t = fl_model_weight(theirs, i);
        const size_t count = (size_t)w->rows * w->columns;
        a = fl_calloc(count, sizeof *a);
        b = fl_calloc(count, sizeof *b);
        ck_assert(a && b);
        ck_assert_int_eq(w->dtype, t->dtype);
        ck_assert(w->dtype == FL_DTYPE_NF4 || !strstr(w->name, "_proj"));
        fl_weight_widen(w, 0, w->rows, a);
        fl_weight_widen(t, 0, t->rows, b);
        ck_assert_msg(memcmp(a, b, count * sizeof *a) == 0, "%s", w->name);
        fl_free(a);
        fl_free(b);
    }
    fl_model_close(&ours);
    fl_model_close(&theirs);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, the_base_has_the_logits_of_transformers, 0, case_count);
    tcase_add_loop_test(tc, the_adapted_model_has_the_logits_of_peft, 0, case_count);
    tcase_add_loop_test(tc, losses_are_those_of_peft, 0, case_count);
    tcase_add_loop_test(tc, every_gradient_is_that_of_peft, 0, case_count);
    tcase_add_loop_test(tc, adapters_after_adamw_steps_are_those_of_peft, 0, case_count);
    tcase_add_loop_test(tc, two_runs_give_the_same_bytes, 0, case_count);
    tcase_set_timeout(tc, 180);
    if (cases == tiny) {
        tcase_add_loop_test(tc, stored_types_have_the_logits_of_their_dequantised_weights, 0, 4);
        tcase_add_test(tc, a_base_is_quantised_as_bitsandbytes_does_it);
        tcase_add_loop_test(tc, recipes_are_those_of_peft, 0, 2);
    }
}

int main(int argc, char **argv)
{
    if (forced_kernel_is_missing())
        return FL_TEST_SKIPPED;
    if (argc > 1 && strcmp(argv[1], "--real") == 0) {
        const char *model = getenv("FEDLORA_MODEL");
        if (!model || !fl_path_exists(model)) {
            printf("skipped: FEDLORA_MODEL names no SmolLM2-135M GGUF file\n");
            return 77;
        }
        real[0].model = model;
        cases = real;
        case_count = 1;
        argc--;
        argv++;
    }
    return fl_runner_main("golden", add_tests, argc, argv);
}

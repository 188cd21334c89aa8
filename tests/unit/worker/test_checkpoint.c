/* Checkpoints: what is written is read back, the newest is found, the rest is refused. */
#include "runner.h"
#include "tiny_run.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "format/peft.h"
#include "worker/checkpoint.h"

struct bench {
    struct tiny_run tiny;
    struct fl_finetune_run *run;
    json_t *settings;
    struct fl_checkpoint checkpoint;
    struct fl_checkpoint_parts parts;
    char out[FL_PATH_BYTES];
};

static bool open_bench(struct bench *b)
{
    memset(b, 0, sizeof *b);
    fl_test_directory(b->out);
    b->settings = json_pack("{s:s, s:s}", "--lr", "0.01", "--data", "abc");
    if (!tiny_open(&b->tiny) || !b->settings) {
        return false;
    }
    if (fl_finetune_open(b->tiny.model, b->tiny.adapter, tiny_rows, TINY_ROWS, &b->tiny.options,
                         &b->run, &b->tiny.error) != FL_OK) {
        return false;
    }
    b->parts = (struct fl_checkpoint_parts){.adapter = b->tiny.adapter,
                                            .optimizer = fl_finetune_optimizer(b->run),
                                            .settings = b->settings};
    return true;
}

static void close_bench(struct bench *b)
{
    fl_finetune_close(&b->run);
    json_decref(b->settings);
    tiny_close(&b->tiny);
}

/* Steps up to number `step`, and a checkpoint there. */
static enum fl_status save_at(struct bench *b, uint64_t step, uint32_t keep)
{
    struct fl_finetune_step done;
    while (b->checkpoint.total.steps < step) {
        fl_assert_ok(fl_finetune_advance(b->run, &done, &b->tiny.error), &b->tiny.error);
        fl_finetune_count(&b->checkpoint.total, &done);
    }
    b->checkpoint.total.threads = 1;
    b->checkpoint.position = fl_finetune_position(b->run);
    return fl_checkpoint_save(b->out, &b->checkpoint, &b->parts, "card\n", keep, &b->tiny.error);
}

static uint64_t newest(struct bench *b, char *path)
{
    uint64_t step = 99;
    fl_assert_ok(fl_checkpoint_newest(b->out, path, &step, &b->tiny.error), &b->tiny.error);
    return step;
}

static bool there(const struct bench *b, const char *name)
{
    char path[FL_PATH_BYTES];
    int length = snprintf(path, sizeof path, "%.3000s/checkpoints/%s", b->out, name);
    return length > 0 && fl_path_exists(path);
}

START_TEST(what_is_written_is_read_back)
{
    struct bench b, c;
    bool ready = open_bench(&b);
    ready = open_bench(&c) && ready;
    if (ready) {
        char path[FL_PATH_BYTES];
        struct fl_checkpoint read;
        struct fl_buf before, after;
        fl_assert_ok(save_at(&b, 3, 0), &b.tiny.error);
        ck_assert_uint_eq(newest(&b, path), 3);
        fl_assert_ok(fl_checkpoint_load(path, &read, &c.parts, &c.tiny.error), &c.tiny.error);
        ck_assert_uint_eq(read.position.step, 3);
        ck_assert_uint_eq(read.position.epoch, b.checkpoint.position.epoch);
        ck_assert_uint_eq(read.position.cursor, b.checkpoint.position.cursor);
        ck_assert_uint_eq(read.total.tokens, b.checkpoint.total.tokens);
        ck_assert_uint_eq(read.total.threads, 1);
        ck_assert(read.total.loss == b.checkpoint.total.loss);
        ck_assert(read.total.loss_sum == b.checkpoint.total.loss_sum);
        fl_buf_init(&before, 1u << 24);
        fl_buf_init(&after, 1u << 24);
        fl_assert_ok(fl_optimizer_encode(b.parts.optimizer, b.tiny.adapter, &before, &b.tiny.error),
                     &b.tiny.error);
        fl_assert_ok(fl_adapter_encode(b.tiny.adapter, &before, &b.tiny.error), &b.tiny.error);
        fl_assert_ok(fl_optimizer_encode(c.parts.optimizer, c.tiny.adapter, &after, &c.tiny.error),
                     &c.tiny.error);
        fl_assert_ok(fl_adapter_encode(c.tiny.adapter, &after, &c.tiny.error), &c.tiny.error);
        ck_assert_uint_eq(before.length, after.length);
        ck_assert_mem_eq(before.data, after.data, before.length);
        fl_buf_free(&before);
        fl_buf_free(&after);
    }
    close_bench(&b);
    close_bench(&c);
}
END_TEST

START_TEST(the_newest_are_kept_and_leftovers_cleared)
{
    struct bench b;
    if (open_bench(&b)) {
        char path[FL_PATH_BYTES];
        ck_assert_uint_eq(newest(&b, path), 0);
        fl_assert_ok(save_at(&b, 1, 2), &b.tiny.error);
        (void)snprintf(path, sizeof path, "%.3000s/checkpoints/step-2.tmp", b.out);
        fl_assert_ok(fl_fs_make_directory(path, 0755, &b.tiny.error), &b.tiny.error);
        (void)snprintf(path, sizeof path, "%.3000s/checkpoints/step-0009", b.out);
        fl_assert_ok(fl_fs_make_directory(path, 0755, &b.tiny.error), &b.tiny.error);
        ck_assert_uint_eq(newest(&b, path), 1);
        fl_assert_ok(save_at(&b, 2, 2), &b.tiny.error);
        fl_assert_ok(save_at(&b, 2, 2), &b.tiny.error); /* again: it is there already */
        fl_assert_ok(save_at(&b, 4, 2), &b.tiny.error);
        ck_assert_uint_eq(newest(&b, path), 4);
        ck_assert(!there(&b, "step-1"));
        ck_assert(there(&b, "step-2"));
        ck_assert(!there(&b, "step-2.tmp"));
        ck_assert(there(&b, "step-0009")); /* not ours */
        ck_assert(there(&b, "step-4/" FL_PEFT_CONFIG));
        (void)snprintf(path, sizeof path, "%.3000s/checkpoints/step-5.tmp.tmp.7", b.out);
        fl_assert_ok(fl_fs_make_directory(path, 0755, &b.tiny.error), &b.tiny.error);
        fl_assert_ok(fl_checkpoint_clear(b.out, &b.tiny.error), &b.tiny.error);
        ck_assert(!there(&b, "step-5.tmp.tmp.7"));
        ck_assert(there(&b, "step-2"));
    }
    close_bench(&b);
}
END_TEST

START_TEST(another_setting_is_refused_by_its_name)
{
    struct bench b;
    if (open_bench(&b)) {
        char path[FL_PATH_BYTES];
        struct fl_checkpoint read;
        fl_assert_ok(save_at(&b, 1, 0), &b.tiny.error);
        ck_assert_uint_eq(newest(&b, path), 1);
        ck_assert_int_eq(json_object_set_new(b.settings, "--lr", json_string("0.02")), 0);
        ck_assert_int_eq(fl_checkpoint_load(path, &read, &b.parts, &b.tiny.error), FL_EUSAGE);
        ck_assert_ptr_nonnull(strstr(b.tiny.error.text, "--lr is 0.02 now and was 0.01"));
        ck_assert_int_eq(json_object_set_new(b.settings, "--lr", json_string("0.01")), 0);
        ck_assert_int_eq(json_object_set_new(b.settings, "--new", json_string("1")), 0);
        ck_assert_int_eq(fl_checkpoint_load(path, &read, &b.parts, &b.tiny.error), FL_EUSAGE);
        ck_assert_ptr_nonnull(strstr(b.tiny.error.text, "--new"));
    }
    close_bench(&b);
}
END_TEST

/* One member of the state replaced; `inside` NULL: at the top. */
static void change_state(const char *directory, const char *inside, const char *key, json_t *value)
{
    char path[FL_PATH_BYTES];
    struct fl_error error = {0};
    json_t *state = NULL;
    (void)snprintf(path, sizeof path, "%.3000s/" FL_CHECKPOINT_STATE, directory);
    fl_assert_ok(fl_json_load(path, 1u << 20, &state, &error), &error);
    json_t *object = inside ? json_object_get(state, inside) : state;
    ck_assert_int_eq(json_object_set_new(object, key, value), 0);
    char *text = json_dumps(state, 0);
    ck_assert_ptr_nonnull(text);
    fl_assert_ok(fl_fs_write(path, text, strlen(text), 0644, &error), &error);
    fl_free(text);
    json_decref(state);
}

START_TEST(a_state_that_makes_no_sense_is_refused)
{
    struct bench b;
    static const struct {
        const char *inside, *key, *json;
    } wrong[] = {
        {NULL, "format", "\"other\""},
        {NULL, "version", "2"},
        {NULL, "version", "null"},
        {NULL, "step", "0"},
        {NULL, "step", "-1"},
        {NULL, "step", "1.5"},
        {NULL, "epoch", "1e30"},
        {NULL, "row", "4294967296"},
        {NULL, "threads", "\"two\""},
        {NULL, "total", "[]"},
        {"total", "scored", "1000000"},
        {"total", "tokens", "-5"},
        {"total", "loss", "\"nan\""},
        {"total", "seconds", "-1"},
        {NULL, "validation", "{}"},
        {"validation", "best_step", "7"},
        {"validation", "stale", "2"},
        {"validation", "loss", "null"},
        {"validation", "evaluations", "2"},
        {NULL, "settings", "[]"},
        {NULL, "files", "{}"},
        {NULL, "files", "null"},
    };
    if (open_bench(&b)) {
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
            char path[FL_PATH_BYTES];
            struct fl_checkpoint read;
            struct fl_error error = {0};
            json_t *value = json_loads(wrong[i].json, JSON_DECODE_ANY, NULL);
            ck_assert_ptr_nonnull(value);
            fl_test_directory(b.out);
            fl_assert_ok(save_at(&b, 1, 0), &b.tiny.error);
            ck_assert_uint_eq(newest(&b, path), 1);
            change_state(path, wrong[i].inside, wrong[i].key, value);
            enum fl_status status = fl_checkpoint_load(path, &read, &b.parts, &error);
            ck_assert_msg(status == FL_EFORMAT, "%s = %s: %s", wrong[i].key, wrong[i].json,
                          fl_status_text(status));
            ck_assert_ptr_nonnull(strstr(error.text, "step-1"));
        }
    }
    close_bench(&b);
}
END_TEST

START_TEST(files_that_are_damaged_or_gone_are_refused)
{
    struct bench b;
    static const char *const names[] = {FL_PEFT_WEIGHTS, "optimizer.safetensors",
                                        FL_CHECKPOINT_STATE};
    if (open_bench(&b)) {
        for (size_t i = 0; i < 6; i++) {
            char directory[FL_PATH_BYTES], path[FL_PATH_BYTES];
            struct fl_checkpoint read;
            struct fl_buf bytes;
            fl_test_directory(b.out);
            fl_assert_ok(save_at(&b, 1, 0), &b.tiny.error);
            ck_assert_uint_eq(newest(&b, directory), 1);
            (void)snprintf(path, sizeof path, "%.3000s/%s", directory, names[i % 3]);
            fl_assert_ok(fl_fs_read(path, 1u << 24, &bytes, &b.tiny.error), &b.tiny.error);
            bytes.data[bytes.length / 2] ^= i < 3 ? 0x80 : 0;
            fl_assert_ok(fl_fs_write(path, bytes.data, i < 3 ? bytes.length : bytes.length / 2,
                                     0644, &b.tiny.error),
                         &b.tiny.error);
            fl_buf_free(&bytes);
            ck_assert_int_eq(fl_checkpoint_load(directory, &read, &b.parts, &b.tiny.error),
                             FL_EFORMAT);
            fl_assert_ok(fl_fs_remove(path, &b.tiny.error), &b.tiny.error);
            ck_assert_int_ne(fl_checkpoint_load(directory, &read, &b.parts, &b.tiny.error), FL_OK);
        }
    }
    close_bench(&b);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, what_is_written_is_read_back);
    tcase_add_test(tc, the_newest_are_kept_and_leftovers_cleared);
    tcase_add_test(tc, another_setting_is_refused_by_its_name);
    tcase_add_test(tc, a_state_that_makes_no_sense_is_refused);
    tcase_add_test(tc, files_that_are_damaged_or_gone_are_refused);
}

FL_TEST_MAIN("worker/checkpoint", add_tests)

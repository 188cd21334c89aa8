/* Files and directories as rows, with everything counted. */
#include "worker/data/dataset.h"

#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "runner.h"

#define GOLDEN FL_TEST_SOURCE_DIR "/golden/tokenizer/"

static struct fl_error error;
static char directory[FL_PATH_BYTES];
static const struct fl_dataset_options OPTIONS = {.seq_len = 4, .vocab_size = 100};

static void set_up(void)
{
    fl_test_directory(directory);
}

static void write_file(const char *name, const char *text)
{
    char path[FL_PATH_BYTES];
    fl_assert_ok(fl_path_join(path, directory, name, &error), &error);
    fl_assert_ok(fl_fs_write(path, text, strlen(text), 0644, &error), &error);
}

static enum fl_status open_file(const char *name, struct fl_tokenizer *tokenizer,
                                const struct fl_dataset_options *options, struct fl_dataset **out)
{
    char path[FL_PATH_BYTES];
    fl_assert_ok(fl_path_join(path, directory, name, &error), &error);
    return fl_dataset_open(path, tokenizer, options, out, &error);
}

static void row_is(const struct fl_dataset *set, size_t index, const int32_t *ids, uint32_t length)
{
    struct fl_row row = fl_dataset_row(set, index);
    ck_assert_uint_eq(row.length, length);
    ck_assert_int_eq(memcmp(row.ids, ids, length * sizeof *ids), 0);
}

START_TEST(rows_are_cut_dropped_and_counted)
{
    struct fl_dataset *set;
    write_file("a.jsonl", "\xEF\xBB\xBF{\"input_ids\":[1,2,3]}\r\n\n   \n"
                          "{\"input_ids\":[1,2,3,4,5,6]}\n"
                          "{\"input_ids\":[7]}\n{\"input_ids\":[]}\n"
                          "{\"input_ids\":[1,2,3],\"labels\":[1,-100,-100]}\n"
                          "{\"input_ids\":[1,2,3,4,5],\"labels\":[-100,-100,-100,-100,5]}\n"
                          "{\"input_ids\":[4,5,6],\"labels\":[4,-100,6]}");
    fl_assert_ok(open_file("a.jsonl", NULL, &OPTIONS, &set), &error);
    const struct fl_dataset_counts *counts = fl_dataset_counts(set);
    ck_assert_uint_eq(counts->rows, 4);
    ck_assert_uint_eq(counts->truncated, 2);
    ck_assert_uint_eq(counts->tokens_cut, 3);
    ck_assert_uint_eq(counts->completions_cut, 1);
    ck_assert_uint_eq(counts->dropped, 2);
    ck_assert_uint_eq(counts->empty, 1);
    ck_assert_uint_eq(counts->bad, 0);
    ck_assert_uint_eq(counts->tokens, 3 + 4 + 4 + 3);
    ck_assert_uint_eq(counts->scored_tokens, 2 + 3 + 1 + 1);
    row_is(set, 0, (const int32_t[]){1, 2, 3}, 3);
    row_is(set, 1, (const int32_t[]){1, 2, 3, 4}, 4);
    row_is(set, 2, (const int32_t[]){2, 3, 4, 5}, 4);
    row_is(set, 3, (const int32_t[]){4, 5, 6}, 3);
    ck_assert_int_eq(fl_dataset_row(set, 3).labels[1], FL_IGNORE);
    ck_assert_int_eq(fl_dataset_row(set, 3).labels[2], 6);
    fl_dataset_close(set);
}
END_TEST

START_TEST(prompts_are_scored_too_if_asked_for)
{
    struct fl_tokenizer *tokenizer;
    struct fl_dataset *set;
    struct fl_dataset_options options = {.seq_len = 6};
    fl_assert_ok(fl_tokenizer_open(GOLDEN "gpt2", &tokenizer, &error), &error);
    write_file("p.jsonl", "{\"prompt\":\"The quick brown fox\",\"completion\":\" jumps\"}\n"
                          "{\"prompt\":\"x\",\"completion\":\" \"}\n");
    fl_assert_ok(open_file("p.jsonl", tokenizer, &options, &set), &error);
    size_t scored = (size_t)fl_dataset_counts(set)->scored_tokens;
    ck_assert_uint_lt(scored, fl_dataset_counts(set)->tokens - 1);
    ck_assert_uint_eq(fl_dataset_counts(set)->completions_cut, 0);
    ck_assert_uint_eq(fl_dataset_counts(set)->truncated, 1);
    ck_assert_uint_eq(fl_dataset_counts(set)->empty, 1);
    fl_dataset_close(set);
    options.loss_all = true;
    fl_assert_ok(open_file("p.jsonl", tokenizer, &options, &set), &error);
    ck_assert_uint_eq(fl_dataset_counts(set)->scored_tokens, fl_dataset_counts(set)->tokens - 1);
    fl_dataset_close(set);
    fl_tokenizer_close(tokenizer);
}
END_TEST

START_TEST(a_broken_line_stops_with_its_number_or_is_counted)
{
    struct fl_dataset *set;
    struct fl_dataset_options options = OPTIONS;
    write_file("b.jsonl", "{\"input_ids\":[1,2]}\n\n{broken\n{\"input_ids\":[500]}\n");
    ck_assert_int_eq(open_file("b.jsonl", NULL, &options, &set), FL_EFORMAT);
    ck_assert_ptr_null(set);
    ck_assert_ptr_nonnull(strstr(error.text, "b.jsonl:3:7: not valid JSON"));
    ck_assert_int_eq(fl_exit_code(error.status), 3);
    options.skip_bad_rows = true;
    fl_assert_ok(open_file("b.jsonl", NULL, &options, &set), &error);
    ck_assert_uint_eq(fl_dataset_counts(set)->bad, 2);
    ck_assert_uint_eq(fl_dataset_rows(set), 1);
    fl_dataset_close(set);
}
END_TEST

START_TEST(a_text_file_is_cut_into_consecutive_rows)
{
    struct fl_tokenizer *tokenizer;
    struct fl_dataset *set;
    struct fl_ids ids = {0};
    const char *text = "The quick brown fox jumps over the lazy dog.\r\n";
    fl_assert_ok(fl_tokenizer_open(GOLDEN "gpt2", &tokenizer, &error), &error);
    write_file("c.txt", text);
    struct fl_dataset_options options = {.seq_len = 5, .add_eos = true};
    fl_assert_ok(open_file("c.txt", tokenizer, &options, &set), &error);
    fl_assert_ok(fl_tokenizer_encode(tokenizer, text, strlen(text), 0, &ids, &error), &error);
    size_t at = 0;
    for (size_t i = 0; i < fl_dataset_rows(set); i++) {
        struct fl_row row = fl_dataset_row(set, i);
        row_is(set, i, ids.ids + at, row.length);
        at += row.length;
    }
    ck_assert_uint_ge(at + 1, ids.count); /* a last row of one token scores nothing */
    ck_assert_uint_eq(fl_dataset_counts(set)->truncated, 0);
    fl_ids_free(&ids);
    fl_dataset_close(set);
    ck_assert_int_eq(open_file("c.txt", NULL, &options, &set), FL_EINVAL);
    fl_tokenizer_close(tokenizer);
}
END_TEST

START_TEST(a_directory_is_read_in_the_order_of_its_names)
{
    struct fl_dataset *set;
    write_file("2.jsonl", "{\"input_ids\":[3,4]}\n");
    write_file("1.jsonl", "{\"input_ids\":[1,2]}\n");
    write_file("0.md", "not data");
    write_file(".hidden.jsonl", "not data");
    fl_assert_ok(fl_dataset_open(directory, NULL, &OPTIONS, &set, &error), &error);
    ck_assert_uint_eq(fl_dataset_rows(set), 2);
    row_is(set, 0, (const int32_t[]){1, 2}, 2);
    row_is(set, 1, (const int32_t[]){3, 4}, 2);
    fl_dataset_close(set);
}
END_TEST

START_TEST(names_say_which_files_are_trained_on_and_which_are_held_out)
{
    struct fl_dataset *set;
    struct fl_dataset_options options = OPTIONS;
    write_file("test.jsonl", "{\"input_ids\":[5,6]}\n");
    write_file("valid.jsonl", "{\"input_ids\":[3,4]}\n");
    ck_assert_int_eq(fl_dataset_open(directory, NULL, &options, &set, &error), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "none to train on"));
    write_file("notes.json", "[{\"input_ids\":[7,8]}]\n");
    fl_assert_ok(fl_dataset_open(directory, NULL, &options, &set, &error), &error);
    row_is(set, 0, (const int32_t[]){7, 8}, 2);
    fl_dataset_close(set);
    write_file("train.json", "[{\"input_ids\":[1,2]}]\n");
    fl_assert_ok(fl_dataset_open(directory, NULL, &options, &set, &error), &error);
    ck_assert_uint_eq(fl_dataset_rows(set), 1);
    row_is(set, 0, (const int32_t[]){1, 2}, 2);
    ck_assert_uint_eq(fl_dataset_rows(fl_dataset_valid(set)), 1);
    row_is(fl_dataset_valid(set), 0, (const int32_t[]){3, 4}, 2);
    fl_dataset_close(set);
    options.part = FL_PART_EVAL;
    fl_assert_ok(fl_dataset_open(directory, NULL, &options, &set, &error), &error);
    ck_assert_uint_eq(fl_dataset_rows(set), 1);
    row_is(set, 0, (const int32_t[]){5, 6}, 2);
    ck_assert_ptr_null(fl_dataset_valid(set));
    fl_dataset_close(set);
    options = OPTIONS;
    options.valid_split = 0.1;
    ck_assert_int_eq(fl_dataset_open(directory, NULL, &options, &set, &error), FL_EINVAL);
}
END_TEST

START_TEST(nothing_to_learn_from_is_refused)
{
    struct fl_dataset *set;
    struct fl_dataset_options options = OPTIONS;
    ck_assert_int_eq(fl_dataset_open(directory, NULL, &options, &set, &error), FL_EFORMAT);
    write_file("e.jsonl", "\n\n");
    ck_assert_int_eq(open_file("e.jsonl", NULL, &options, &set), FL_EFORMAT);
    write_file("f.jsonl", "{\"input_ids\":[1]}");
    ck_assert_int_eq(open_file("f.jsonl", NULL, &options, &set), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "1 dropped"));
    ck_assert_int_eq(open_file("none.jsonl", NULL, &options, &set), FL_ENOTFOUND);
    options.seq_len = 1;
    ck_assert_int_eq(open_file("f.jsonl", NULL, &options, &set), FL_EINVAL);
}
END_TEST

static struct fl_dataset *hundred_rows(void)
{
    struct fl_buf text;
    struct fl_dataset *set;
    fl_buf_init(&text, 1 << 16);
    for (int i = 0; i < 100; i++)
        fl_buf_printf(&text, "{\"input_ids\":[%d,1]}\n", i);
    write_file("h.jsonl", fl_buf_text(&text));
    fl_buf_free(&text);
    fl_assert_ok(open_file("h.jsonl", NULL, &OPTIONS, &set), &error);
    return set;
}

START_TEST(a_seeded_subset_is_the_same_every_time)
{
    struct fl_dataset *sets[3];
    uint8_t hashes[3][FL_HASH_BYTES];
    for (int i = 0; i < 3; i++) {
        sets[i] = hundred_rows();
        fl_assert_ok(fl_dataset_keep(sets[i], 10, i < 2 ? 7 : 8, &error), &error);
        ck_assert_uint_eq(fl_dataset_counts(sets[i])->rows, 10);
        ck_assert_uint_eq(fl_dataset_counts(sets[i])->scored_tokens, 10);
        for (size_t r = 1; r < 10; r++)
            ck_assert_int_gt(fl_dataset_row(sets[i], r).ids[0],
                             fl_dataset_row(sets[i], r - 1).ids[0]);
        fl_dataset_hash(sets[i], hashes[i]);
    }
    ck_assert_int_eq(memcmp(hashes[0], hashes[1], FL_HASH_BYTES), 0);
    ck_assert_int_ne(memcmp(hashes[0], hashes[2], FL_HASH_BYTES), 0);
    fl_assert_ok(fl_dataset_keep(sets[0], 1000, 1, &error), &error);
    ck_assert_uint_eq(fl_dataset_rows(sets[0]), 10);
    ck_assert_int_eq(fl_dataset_keep(sets[0], 0, 1, &error), FL_EINVAL);
    for (int i = 0; i < 3; i++)
        fl_dataset_close(sets[i]);
}
END_TEST

/* `count` rows from `from` on, upwards or downwards; ids[0] names the row. */
static void write_records(const char *name, int from, int count, bool backwards)
{
    struct fl_buf text;
    fl_buf_init(&text, 1 << 20);
    for (int i = 0; i < count; i++)
        fl_buf_printf(&text, "{\"input_ids\":[%d,1]}\n", from + (backwards ? count - 1 - i : i));
    write_file(name, fl_buf_text(&text));
    fl_buf_free(&text);
}

/* held[id]: whether the record of that id is held out. */
static void split_of(const char *name, uint64_t seed, bool *held, size_t count)
{
    struct fl_dataset *set;
    struct fl_dataset_options options = {
        .seq_len = 4, .vocab_size = 1000, .valid_split = 0.2, .split_seed = seed};
    fl_assert_ok(open_file(name, NULL, &options, &set), &error);
    const struct fl_dataset *valid = fl_dataset_valid(set);
    ck_assert_ptr_nonnull(valid);
    ck_assert_uint_eq(fl_dataset_rows(set) + fl_dataset_rows(valid), count);
    ck_assert_uint_eq(fl_dataset_counts(valid)->tokens, 2 * fl_dataset_rows(valid));
    for (size_t i = 0; i < fl_dataset_rows(set); i++)
        held[fl_dataset_row(set, i).ids[0]] = false;
    for (size_t i = 0; i < fl_dataset_rows(valid); i++)
        held[fl_dataset_row(valid, i).ids[0]] = true;
    fl_dataset_close(set);
}

START_TEST(a_record_stays_on_its_side_of_the_split)
{
    bool a[400], b[400], c[400], d[400];
    write_records("a.jsonl", 0, 200, false);
    write_records("b.jsonl", 0, 200, true);
    write_records("c.jsonl", 0, 400, false);
    split_of("a.jsonl", 1, a, 200);
    split_of("b.jsonl", 1, b, 200);
    split_of("c.jsonl", 1, c, 400);
    split_of("a.jsonl", 2, d, 200);
    ck_assert_int_eq(memcmp(a, b, 200), 0);
    ck_assert_int_eq(memcmp(a, c, 200), 0);
    ck_assert_int_ne(memcmp(a, d, 200), 0);
    int held = 0;
    for (int i = 0; i < 400; i++)
        held += c[i];
    ck_assert_int_gt(held, 40);
    ck_assert_int_lt(held, 120);
}
END_TEST

START_TEST(a_split_that_holds_nothing_out_is_refused)
{
    struct fl_dataset *set;
    struct fl_dataset_options options = OPTIONS;
    write_records("a.jsonl", 0, 3, false);
    fl_assert_ok(open_file("a.jsonl", NULL, &options, &set), &error);
    ck_assert_ptr_null(fl_dataset_valid(set));
    fl_dataset_close(set);
    options.valid_split = 1e-9;
    ck_assert_int_eq(open_file("a.jsonl", NULL, &options, &set), FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "no row to validate on"));
    options.valid_split = 0.95;
    ck_assert_int_eq(open_file("a.jsonl", NULL, &options, &set), FL_EINVAL);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, set_up, NULL);
    tcase_add_test(tc, rows_are_cut_dropped_and_counted);
    tcase_add_test(tc, prompts_are_scored_too_if_asked_for);
    tcase_add_test(tc, a_broken_line_stops_with_its_number_or_is_counted);
    tcase_add_test(tc, a_text_file_is_cut_into_consecutive_rows);
    tcase_add_test(tc, a_directory_is_read_in_the_order_of_its_names);
    tcase_add_test(tc, names_say_which_files_are_trained_on_and_which_are_held_out);
    tcase_add_test(tc, nothing_to_learn_from_is_refused);
    tcase_add_test(tc, a_record_stays_on_its_side_of_the_split);
    tcase_add_test(tc, a_split_that_holds_nothing_out_is_refused);
    tcase_add_test(tc, a_seeded_subset_is_the_same_every_time);
}
FL_TEST_MAIN("data dataset", add_tests)

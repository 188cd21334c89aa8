/*
 * Goal: no two answers for the same work are over different sites, whatever crashes in between.
 * Method: the rule over hand-made sets and, against a plain model, over random ones; each byte of
 * the file changed, each length of it cut; writes and fsyncs that fail at each place.
 */
#include "worker/ledger.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "crypto/prg.h"
#include "runner.h"

#define MANY 12

static struct fl_error error;
static char path[FL_PATH_BYTES];

static void setup(void)
{
    char directory[FL_PATH_BYTES];
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "ledger", &error), &error);
}

static struct fl_ledger *open_ledger(void)
{
    struct fl_ledger *ledger = NULL;
    fl_assert_ok(fl_ledger_open(path, &ledger, &error), &error);
    return ledger;
}

static void fingerprint(uint8_t which, uint8_t out[FL_HASH_BYTES])
{
    const uint32_t ranks[] = {8, 8};
    struct fl_ledger_work work = {.seed = which, .ranks = ranks, .rank_count = 2};
    fl_ledger_fingerprint(&work, out);
}

/* sites: letters, one a site, such as "abc" */
static enum fl_status admit(struct fl_ledger *ledger, uint8_t which, const char *sites)
{
    uint8_t keys[FL_COHORT_MAX + 1][FL_KEY_BYTES] = {{0}}, work[FL_HASH_BYTES];
    const uint32_t count = (uint32_t)strlen(sites);
    ck_assert_uint_le(count, FL_COHORT_MAX + 1);
    for (uint32_t i = 0; i < count; i++)
        keys[i][0] = (uint8_t)sites[i];
    fingerprint(which, work);
    return fl_ledger_admit(ledger, work, (const uint8_t(*)[FL_KEY_BYTES])keys, count, &error);
}

static void refused(struct fl_ledger *ledger, uint8_t which, const char *sites)
{
    const enum fl_status status = admit(ledger, which, sites);
    ck_assert_msg(status == FL_EREFUSED, "%s: %s", sites, fl_status_text(status));
    ck_assert_int_eq(strncmp(error.text, FL_LEDGER_REASON, strlen(FL_LEDGER_REASON)), 0);
}

START_TEST(one_site_less_is_refused_and_the_same_sites_are_not)
{
    struct fl_ledger *ledger = open_ledger();
    fl_assert_ok(admit(ledger, 1, "abcde"), &error);
    refused(ledger, 1, "abcd");
    refused(ledger, 1, "abcdef");
    refused(ledger, 1, "abcfg");                     /* two sites exchanged */
    refused(ledger, 1, "fghi");                      /* four there, five here */
    fl_assert_ok(admit(ledger, 1, "edcba"), &error); /* the same, in another order */
    ck_assert(fl_ledger_count(ledger) == 1);         /* nothing new to record */
    refused(ledger, 1, "abfgh");                     /* three exchanged for three */
    fl_assert_ok(admit(ledger, 2, "abcd"), &error);  /* other work */
    ck_assert(fl_ledger_count(ledger) == 2);
    fl_ledger_close(&ledger);
}
END_TEST

/*
 * Of each two of these sets three sites or more are not in the other, and each site is in two of
 * them only; but (first + second - third - fourth) / 2 is the update of site v.
 */
START_TEST(sets_that_differ_by_many_sites_are_refused_too)
{
    static const char *const sets[] = {"vabcdef", "vghijkl", "abcghi", "defjkl"};
    struct fl_ledger *ledger = open_ledger();
    for (uint8_t first = 0; first < 4; first++) {
        fl_assert_ok(admit(ledger, first, sets[first]), &error);
        for (uint8_t other = 0; other < 4; other++) {
            if (other != first)
                refused(ledger, first, sets[other]);
        }
    }
    fl_ledger_close(&ledger);
}
END_TEST

START_TEST(every_earlier_answer_counts_not_only_the_last)
{
    struct fl_ledger *ledger = open_ledger();
    fl_assert_ok(admit(ledger, 1, "abc"), &error);
    fl_assert_ok(admit(ledger, 2, "abd"), &error);
    fl_assert_ok(admit(ledger, 3, "abe"), &error);
    refused(ledger, 1, "abd");
    refused(ledger, 2, "abcd");
    fl_assert_ok(admit(ledger, 1, "abc"), &error);
    ck_assert(fl_ledger_count(ledger) == 3);
    fl_ledger_close(&ledger);
}
END_TEST

START_TEST(what_was_answered_is_known_after_a_restart)
{
    struct fl_ledger *ledger = open_ledger(), *second = NULL;
    fl_assert_ok(admit(ledger, 1, "abcde"), &error);
    ck_assert_int_eq(fl_ledger_open(path, &second, &error), FL_EBUSY);
    fl_ledger_close(&ledger);
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 07777, 0600);
    ledger = open_ledger();
    ck_assert(fl_ledger_count(ledger) == 1);
    refused(ledger, 1, "abcd");
    fl_assert_ok(admit(ledger, 1, "abcde"), &error);
    fl_ledger_close(&ledger);
}
END_TEST

START_TEST(every_part_of_the_work_is_in_its_fingerprint)
{
    const uint32_t ranks[] = {8, 4, 8};
    struct fl_ledger_work work = {.ranks = ranks, .rank_count = 2};
    uint8_t first[FL_HASH_BYTES], other[FL_HASH_BYTES];
    uint8_t *const parts[] = {work.manifest, work.start, work.settings, work.data};
    fl_ledger_fingerprint(&work, first);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        parts[i][31] ^= 1;
        fl_ledger_fingerprint(&work, other);
        ck_assert_mem_ne(first, other, FL_HASH_BYTES);
        parts[i][31] ^= 1;
    }
    work.seed = 1;
    fl_ledger_fingerprint(&work, other);
    ck_assert_mem_ne(first, other, FL_HASH_BYTES);
    work.seed = 0;
    work.ranks = ranks + 1;
    fl_ledger_fingerprint(&work, other);
    ck_assert_mem_ne(first, other, FL_HASH_BYTES);
    work.ranks = ranks;
    work.rank_count = 3;
    fl_ledger_fingerprint(&work, other);
    ck_assert_mem_ne(first, other, FL_HASH_BYTES);
    work.rank_count = 2;
    fl_ledger_fingerprint(&work, other);
    ck_assert_mem_eq(first, other, FL_HASH_BYTES);
}
END_TEST

START_TEST(sets_that_are_none_are_refused)
{
    struct fl_ledger *ledger = open_ledger();
    char many[FL_COHORT_MAX + 2];
    for (size_t i = 0; i < sizeof(many) - 1; i++)
        many[i] = (char)(i + 1);
    many[sizeof(many) - 1] = '\0';
    ck_assert_int_eq(admit(ledger, 1, ""), FL_EINVAL);
    ck_assert_int_eq(admit(ledger, 1, "abca"), FL_EINVAL);
    ck_assert_int_eq(admit(ledger, 1, many), FL_EINVAL);
    many[FL_COHORT_MAX] = '\0';
    fl_assert_ok(admit(ledger, 1, many), &error); /* the longest line */
    ck_assert(fl_ledger_count(ledger) == 1);
    fl_ledger_close(&ledger);
    ledger = open_ledger();
    fl_assert_ok(admit(ledger, 1, many), &error);
    fl_ledger_close(&ledger);
}
END_TEST

/* The rule once more, over sets as bits. */
static bool model_allows(uint32_t answered, uint32_t set)
{
    return answered == 0 || answered == set;
}

START_TEST(random_sets_are_judged_as_a_plain_model_judges_them)
{
    static const uint8_t seed[FL_SEED_BYTES] = {7};
    uint32_t answered[4] = {0}, said_yes = 0;
    struct fl_prg stream;
    fl_prg_init(&stream, seed);
    struct fl_ledger *ledger = open_ledger();
    for (int i = 0; i < 120; i++) {
        char sites[MANY + 1];
        size_t length = 0;
        uint32_t set = fl_prg_u32(&stream) & ((1u << MANY) - 1);
        const uint8_t work = (uint8_t)fl_prg_below(&stream, 4);
        if (i % 4 == 0 && answered[work])
            set = answered[work];
        for (uint32_t k = 0; k < MANY; k++) {
            if (set >> k & 1)
                sites[length++] = (char)('a' + k);
        }
        sites[length] = '\0';
        if (length == 0)
            continue;
        const bool expected = model_allows(answered[work], set);
        const enum fl_status status = admit(ledger, work, sites);
        ck_assert_msg(status == (expected ? FL_OK : FL_EREFUSED), "%s: %s", sites,
                      fl_status_text(status));
        said_yes += expected;
        if (expected)
            answered[work] = set;
        if (i % 50 == 0) {
            fl_ledger_close(&ledger);
            ledger = open_ledger();
        }
    }
    ck_assert_uint_gt(said_yes, 10);
    fl_ledger_close(&ledger);
}
END_TEST

static void fill(struct fl_buf *content)
{
    struct fl_ledger *ledger = open_ledger();
    fl_assert_ok(admit(ledger, 1, "abc"), &error);
    fl_assert_ok(admit(ledger, 2, "abcd"), &error);
    fl_assert_ok(admit(ledger, 3, "def"), &error);
    fl_ledger_close(&ledger);
    fl_assert_ok(fl_fs_read(path, 65536, content, &error), &error);
}

static void put(const void *bytes, size_t length)
{
    const int fd = open(path, O_WRONLY | O_TRUNC | O_CREAT, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert(write(fd, bytes, length) == (ssize_t)length);
    (void)close(fd);
}

#define MARK_BYTES 18

/* Where the last answer begins; its mark takes the last MARK_BYTES. */
static size_t last_answer(const struct fl_buf *content)
{
    const char *text = fl_buf_text(content);
    const size_t before_mark = content->length - MARK_BYTES;
    return (size_t)((const char *)memrchr(text, '\n', before_mark - 1) + 1 - text);
}

/* So many answers are believed, and the file is as long as they are. */
static void ck_mended(uint64_t answers, size_t length)
{
    struct stat st;
    struct fl_ledger *ledger = open_ledger();
    ck_assert(fl_ledger_count(ledger) == answers);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_size, (off_t)length);
    fl_assert_ok(admit(ledger, 3, "def"), &error);
    if (answers > 0)
        refused(ledger, 1, "abcd");
    fl_ledger_close(&ledger);
}

START_TEST(a_torn_last_line_is_cut_off)
{
    struct fl_buf content;
    fill(&content);
    const size_t whole = last_answer(&content);
    for (size_t length = whole; length < content.length - MARK_BYTES; length += 11) {
        put(content.data, length);
        ck_mended(2, whole);
    }
    for (size_t length = content.length - MARK_BYTES; length <= content.length; length++) {
        put(content.data, length); /* the answer may not have been given, and counts */
        ck_mended(3, content.length);
    }
    fl_buf_free(&content);
}
END_TEST

/* Some file systems leave zeros where they had not written yet, or what stood on the disk before.
 */
START_TEST(what_a_power_cut_leaves_of_a_line_is_cut_off)
{
    static const char *const leavings[] = {"\n", "\n\n=\n", "1 ", "1 4\n", "x\ny\n1\n=00\n", "=\n"};
    static const uint8_t seed[FL_SEED_BYTES] = {7};
    struct fl_buf content;
    uint8_t bytes[700] = {0};
    struct fl_prg prg;
    fl_prg_init(&prg, seed);
    fill(&content);
    const size_t whole = last_answer(&content), ends[] = {0, 0, whole, whole, content.length};
    for (size_t i = 0; i < 2000; i++) {
        const size_t sound = ends[i % 5] + (i % 5 == 3 ? 1 + i % 200 : 0);
        const size_t length = sound + 1 + i / 5 % 60 * 11;
        struct fl_buf file;
        fl_buf_init(&file, 65536);
        fl_buf_append(&file, content.data, sound);
        const char *text = leavings[i % 6];
        memset(bytes, 0, sizeof(bytes));
        if (i % 2)
            fl_prg_bytes(&prg, bytes, sizeof(bytes));
        if (i < 60)
            fl_buf_append(&file, text, strlen(text));
        else
            fl_buf_append(&file, bytes, length - sound);
        put(file.data, file.length);
        if (i % 5 < 4)
            ck_mended(i % 5 < 2 ? 0 : 2, ends[i % 5]);
        else
            ck_mended(3, content.length);
        fl_buf_free(&file);
    }
    fl_buf_free(&content);
}
END_TEST

START_TEST(damage_of_what_was_acknowledged_is_refused)
{
    struct fl_buf content;
    fill(&content);
    struct fl_ledger *ledger = NULL;
    for (size_t i = 0; i + MARK_BYTES < content.length; i++) {
        content.data[i] ^= i % 2 ? 1 : 0x20;
        put(content.data, content.length);
        ck_assert_msg(fl_ledger_open(path, &ledger, &error) == FL_EFORMAT, "byte %zu", i);
        ck_assert_ptr_null(ledger);
        content.data[i] ^= i % 2 ? 1 : 0x20;
    }
    for (size_t i = content.length - MARK_BYTES; i < content.length; i++) {
        content.data[i] ^= 1;
        put(content.data, content.length);
        if (fl_ledger_open(path, &ledger, &error) == FL_OK) /* its answer counts in any case */
            ck_assert(fl_ledger_count(ledger) == 3);
        fl_ledger_close(&ledger);
        content.data[i] ^= 1;
    }
    const char *text = fl_buf_text(&content);
    const size_t first = (size_t)(strchr(text, '\n') + 1 - text);
    put(text + first, content.length - first); /* the first answer forgotten */
    ck_assert_int_eq(fl_ledger_open(path, &ledger, &error), FL_EFORMAT);
    put(text + first + MARK_BYTES, content.length - first - MARK_BYTES); /* and its mark */
    ck_assert_int_eq(fl_ledger_open(path, &ledger, &error), FL_EFORMAT);
    fl_buf_free(&content);
}
END_TEST

/* Of a program that marked nothing. */
START_TEST(an_older_ledger_is_read_and_marked)
{
    struct fl_buf content, old;
    struct fl_ledger *ledger = NULL;
    fill(&content);
    fl_buf_init(&old, 65536);
    const char *last = fl_buf_text(&content) + content.length;
    for (const char *line = fl_buf_text(&content), *end; line < last; line = end) {
        end = (const char *)memchr(line, '\n', (size_t)(last - line)) + 1;
        if (*line != '=')
            fl_buf_append(&old, line, (size_t)(end - line));
    }
    put(old.data, old.length);
    ck_mended(3, old.length + MARK_BYTES);
    put(old.data, old.length);
    ck_mended(3, old.length + MARK_BYTES);
    old.data[5] ^= 1;
    put(old.data, old.length);
    ck_assert_int_eq(fl_ledger_open(path, &ledger, &error), FL_EFORMAT);
    fl_buf_free(&old);
    fl_buf_free(&content);
}
END_TEST

START_TEST(a_file_that_changes_while_it_is_open_is_not_believed)
{
    struct fl_buf content;
    fill(&content);
    struct fl_ledger *ledger = open_ledger();
    put(content.data, last_answer(&content));
    ck_assert_int_eq(admit(ledger, 3, "abc"), FL_EFORMAT);
    fl_ledger_close(&ledger);
    fl_buf_free(&content);
}
END_TEST

START_TEST(a_full_or_oversized_file_refuses)
{
    struct fl_ledger *ledger = NULL;
    put("", 0);
    ck_assert_int_eq(truncate(path, FL_LEDGER_BYTES_MAX + 1ll), 0);
    ck_assert_int_eq(fl_ledger_open(path, &ledger, &error), FL_ERANGE);
    ck_assert_ptr_null(ledger);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(symlink("elsewhere", path), 0);
    ck_assert_int_ne(fl_ledger_open(path, &ledger, &error), FL_OK);
}
END_TEST

START_TEST(an_answer_that_is_not_on_the_disk_is_not_given)
{
    for (int kind = 0; kind < 4; kind++) { /* the line's, or the mark's */
        struct fl_ledger *ledger = open_ledger();
        const uint64_t before = fl_ledger_count(ledger);
        if (kind % 2 == 0)
            fl_fs_fail_write_at(kind / 2);
        else
            fl_fs_fail_sync_at(kind / 2);
        const uint8_t work = (uint8_t)(10 + kind);
        ck_assert_int_eq(admit(ledger, work, "abc"), FL_EIO);
        fl_fs_fail_write_at(-1);
        fl_fs_fail_sync_at(-1);
        ck_assert_int_eq(admit(ledger, work, "abc"), FL_EIO); /* nor later, while it is open */
        ck_assert_int_eq(admit(ledger, 2, "abc"), FL_EIO);
        fl_ledger_close(&ledger);
        ledger = open_ledger();
        ck_assert(fl_ledger_count(ledger) == before);
        fl_assert_ok(admit(ledger, work, "def"), &error);
        fl_ledger_close(&ledger);
    }
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, one_site_less_is_refused_and_the_same_sites_are_not);
    tcase_add_test(tc, sets_that_differ_by_many_sites_are_refused_too);
    tcase_add_test(tc, every_earlier_answer_counts_not_only_the_last);
    tcase_add_test(tc, what_was_answered_is_known_after_a_restart);
    tcase_add_test(tc, every_part_of_the_work_is_in_its_fingerprint);
    tcase_add_test(tc, sets_that_are_none_are_refused);
    tcase_add_test(tc, random_sets_are_judged_as_a_plain_model_judges_them);
    tcase_add_test(tc, a_torn_last_line_is_cut_off);
    tcase_add_test(tc, what_a_power_cut_leaves_of_a_line_is_cut_off);
    tcase_add_test(tc, damage_of_what_was_acknowledged_is_refused);
    tcase_add_test(tc, an_older_ledger_is_read_and_marked);
    tcase_add_test(tc, a_file_that_changes_while_it_is_open_is_not_believed);
    tcase_add_test(tc, a_full_or_oversized_file_refuses);
    tcase_add_test(tc, an_answer_that_is_not_on_the_disk_is_not_given);
}
FL_TEST_MAIN("ledger", add_tests)

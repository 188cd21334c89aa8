#include "base/audit.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fs.h"
#include "runner.h"

static char path[FL_PATH_BYTES], head_path[FL_PATH_BYTES];
static struct fl_error error;

/* Signatures that are none: this room knows no keys, and the log must not care. */
static void fake_signature(const uint8_t *key, const char *label, const void *bytes, size_t length,
                           uint8_t signature[FL_AUDIT_SIGNATURE_BYTES])
{
    struct fl_blake2b hash;
    fl_blake2b_init(&hash, key, FL_AUDIT_KEY_BYTES);
    fl_blake2b_update(&hash, label, strlen(label));
    fl_blake2b_update(&hash, bytes, length);
    fl_blake2b_final(&hash, signature);
    memcpy(signature + FL_HASH_BYTES, signature, FL_HASH_BYTES);
}

static void fake_sign(const void *context, const char *label, const void *bytes, size_t length,
                      uint8_t signature[FL_AUDIT_SIGNATURE_BYTES])
{
    fake_signature(context, label, bytes, length, signature);
}

static bool fake_check(const uint8_t key[FL_AUDIT_KEY_BYTES], const char *label, const void *bytes,
                       size_t length, const uint8_t signature[FL_AUDIT_SIGNATURE_BYTES])
{
    uint8_t good[FL_AUDIT_SIGNATURE_BYTES];
    fake_signature(key, label, bytes, length, good);
    return memcmp(good, signature, sizeof(good)) == 0;
}

static const uint8_t our_key[FL_AUDIT_KEY_BYTES] = {1, 2, 3}, other_key[FL_AUDIT_KEY_BYTES] = {9};
static const struct fl_audit_signer ours = {our_key, {1, 2, 3}, fake_sign, fake_check};
static const struct fl_audit_signer others = {other_key, {9}, fake_sign, fake_check};

static void make_path(void)
{
    char directory[FL_PATH_BYTES];
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "audit.log", &error), &error);
    fl_assert_ok(fl_path_join(head_path, directory, "audit.log.head", &error), &error);
}

static void append_as(const struct fl_audit_signer *signer, int count)
{
    struct fl_audit *log;
    fl_assert_ok(fl_audit_open(path, signer, &log, &error), &error);
    enum fl_status status = FL_OK;
    for (int i = 0; i < count && status == FL_OK; i++)
        status = fl_audit_append(
            log, 1709210096789 + i, "joined",
            (struct fl_field[]){
                FL_STR("site", "a\"b\n"), FL_U64("n", 7), FL_NUM("x", 0.5), {.kind = FL_FIELD_END}},
            &error);
    fl_audit_close(&log);
    ck_assert_ptr_null(log);
    fl_assert_ok(status, &error);
}

/* Open, append count lines, close. The first ever names the key in a line of its own. */
static void append_lines(int count)
{
    append_as(&ours, count);
}

static struct fl_audit_report verify(void)
{
    struct fl_audit_report report;
    fl_assert_ok(fl_audit_verify(path, our_key, fake_check, &report, &error), &error);
    ck_assert_uint_eq(report.broken, 0);
    return report;
}

static void read_file(const char *from, struct fl_buf *out)
{
    fl_assert_ok(fl_fs_read(from, 1 << 20, out, &error), &error);
}

static void write_file(const char *to, const void *bytes, size_t length)
{
    fl_assert_ok(fl_fs_write(to, bytes, length, 0600, &error), &error);
}

/* Line `line` (from 1) of a text; *length is with its newline. */
static char *line_at(const struct fl_buf *text, int line, size_t *length)
{
    char *at = (char *)text->data;
    for (int i = 1; i < line; i++)
        at = strchr(at, '\n') + 1;
    *length = (size_t)(strchr(at, '\n') + 1 - at);
    return at;
}

/* The log as it is must be found wrong at that line. */
static void assert_broken(uint64_t line)
{
    char place[32];
    struct fl_audit_report report;
    ck_assert_int_eq(fl_audit_verify(path, our_key, fake_check, &report, &error), FL_EFORMAT);
    ck_assert_uint_eq(report.broken, line);
    (void)snprintf(place, sizeof(place), "audit.log:%d:", (int)line);
    ck_assert_msg(strstr(error.text, place) != NULL, "%s: not %s", error.text, place);
}

static void assert_broken_with(const void *bytes, size_t length, uint64_t line)
{
    write_file(path, bytes, length);
    assert_broken(line);
}

START_TEST(the_chain_goes_on_after_a_restart)
{
    struct stat info;
    append_lines(3);
    append_lines(2);
    struct fl_audit_report report = verify();
    ck_assert_uint_eq(report.lines, 6);
    ck_assert_uint_eq(report.unsigned_lines, 0);
    ck_assert(report.is_signed && !report.ahead && !report.torn);
    ck_assert_mem_eq(report.key, our_key, sizeof(our_key));
    ck_assert_str_eq(report.first_time, "2024-02-29T12:34:56.789Z");
    ck_assert_str_eq(report.last_time, "2024-02-29T12:34:56.790Z");
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0600);
    ck_assert_int_eq(stat(head_path, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0600);
    struct fl_buf text;
    read_file(path, &text);
    const char *first = "{\"seq\":1,\"ts\":\"2024-02-29T12:34:56.789Z\",\"event\":\"signed_by\","
                        "\"key\":\"0102030000";
    ck_assert_int_eq(strncmp(fl_buf_text(&text), first, strlen(first)), 0);
    ck_assert_ptr_nonnull(strstr(fl_buf_text(&text),
                                 "{\"seq\":2,\"ts\":\"2024-02-29T12:34:56.789Z\",\"event\":"
                                 "\"joined\",\"site\":\"a\\\"b\\n\",\"n\":7,\"x\":0.5,\"prev\":"));
    fl_buf_free(&text);
}
END_TEST

START_TEST(a_change_a_removal_an_insertion_and_a_reordering_show)
{
    append_lines(4);
    struct fl_buf text;
    read_file(path, &text);
    size_t first, n; /* lines 2 to 5 have the same length */
    (void)line_at(&text, 1, &first);
    char *start = (char *)text.data, *second = line_at(&text, 2, &n), changed[8192];
    ck_assert_uint_eq(first + 4 * n, text.length);
    assert_broken_with(second, 4 * n, 1); /* the first is gone */
    memcpy(changed, start, text.length);
    memmove(changed + first, changed + first + n, 3 * n); /* the second is gone */
    assert_broken_with(changed, text.length - n, 2);
    memcpy(changed, start, text.length);
    memcpy(changed + first + n, start + first, 4 * n); /* the second stands there twice */
    assert_broken_with(changed, text.length + n, 3);
    memcpy(changed, start, text.length);
    memcpy(changed + first, start + first + n,
           n); /* the second and the third have changed places */
    memcpy(changed + first + n, start + first, n);
    assert_broken_with(changed, text.length, 2);
    fl_buf_free(&text);
}
END_TEST

/* Of each line each byte in turn: it shows there or, where the line reads as unsigned, behind. */
START_TEST(no_byte_can_be_changed)
{
    append_lines(2);
    struct fl_buf text;
    struct fl_audit_report report;
    read_file(path, &text);
    uint64_t line = 1;
    for (size_t i = 0; i < text.length; i++) {
        const uint8_t old = text.data[i];
        text.data[i] = old == '7' ? '8' : '7'; /* digits stay digits: JSON as before */
        write_file(path, text.data, text.length);
        ck_assert_int_eq(fl_audit_verify(path, our_key, fake_check, &report, &error), FL_EFORMAT);
        ck_assert_msg(report.broken == line || report.broken == line + 1, "byte %zu: line %d", i,
                      (int)report.broken);
        text.data[i] = old;
        line += old == '\n';
    }
    fl_buf_free(&text);
}
END_TEST

START_TEST(an_end_that_was_cut_off_shows)
{
    append_lines(4);
    struct fl_buf text;
    struct fl_audit *log;
    size_t last;
    read_file(path, &text);
    (void)line_at(&text, 5, &last);
    assert_broken_with(text.data, text.length - last, 5);
    ck_assert_ptr_nonnull(strstr(error.text, "missing"));
    ck_assert_int_eq(fl_audit_open(path, &ours, &log, &error), FL_EFORMAT); /* not carried on */
    ck_assert_ptr_null(log);
    assert_broken_with(text.data, text.length - 1, 5); /* the head counts it: no crash tore it */
    assert_broken_with("", 0, 1);
    ck_assert_int_eq(fl_audit_open(path, &ours, &log, &error), FL_EFORMAT);
    ck_assert_int_eq(unlink(path), 0);
    struct fl_audit_report report;
    ck_assert_int_eq(fl_audit_verify(path, our_key, fake_check, &report, &error), FL_EFORMAT);
    write_file(path, text.data, text.length - last);
    ck_assert_int_eq(unlink(head_path), 0); /* the head is removed too */
    assert_broken(4);
    ck_assert_int_eq(fl_audit_open(path, &ours, &log, &error), FL_EFORMAT);
    fl_buf_free(&text);
}
END_TEST

START_TEST(a_head_of_another_log_or_that_was_changed_is_refused)
{
    struct fl_buf head, text;
    struct fl_audit *log;
    struct fl_audit_report report;
    append_lines(1);
    read_file(head_path, &head);
    read_file(path, &text);
    append_lines(1);
    append_lines(1); /* two lines more than that head */
    write_file(head_path, head.data, head.length);
    assert_broken(3);
    ck_assert_int_eq(fl_audit_open(path, &ours, &log, &error), FL_EFORMAT);
    write_file(path, text.data, text.length);
    ck_assert_uint_eq(verify().lines, 2);
    for (size_t i = 0; i < head.length; i++) {
        const uint8_t old = head.data[i];
        head.data[i] = old == '1' ? '3' : '1';
        write_file(head_path, head.data, head.length);
        ck_assert_int_eq(fl_audit_verify(path, our_key, fake_check, &report, &error), FL_EFORMAT);
        ck_assert(fl_audit_open(path, &ours, &log, &error) != FL_OK);
        head.data[i] = old;
    }
    fl_buf_free(&text);
    fl_buf_free(&head);
}
END_TEST

START_TEST(another_key_is_told_apart)
{
    struct fl_audit *log;
    struct fl_audit_report report;
    append_as(&others, 2);
    assert_broken(1);
    fl_assert_ok(fl_audit_verify(path, NULL, fake_check, &report, &error), &error);
    ck_assert_mem_eq(report.key, other_key, sizeof(other_key)); /* and named to who compares it */
    ck_assert_int_eq(fl_audit_open(path, &ours, &log, &error), FL_EREFUSED);
    ck_assert_ptr_null(log);

    /* a line that another one signed, at the end of ours */
    struct fl_buf text, more;
    make_path();
    append_lines(2);
    read_file(path, &text);
    ck_assert_int_eq(unlink(head_path), 0);
    write_file(path, text.data, text.length);
    make_path();
    append_as(&others, 3);
    read_file(path, &more);
    size_t n;
    const char *fourth = line_at(&more, 4, &n);
    fl_buf_append(&text, fourth, n);
    write_file(path, text.data, text.length);
    assert_broken(4);
    ck_assert(fl_audit_open(path, &ours, &log, &error) != FL_OK);
    fl_buf_free(&more);
    fl_buf_free(&text);
}
END_TEST

START_TEST(a_crash_between_line_and_head_is_no_tampering)
{
    struct fl_buf head;
    append_lines(2);
    read_file(head_path, &head);
    append_lines(1);
    write_file(head_path, head.data, head.length); /* as if the last head had never been written */
    struct fl_audit_report report = verify();
    ck_assert(report.ahead);
    ck_assert_uint_eq(report.lines, 4);
    append_lines(1);
    report = verify();
    ck_assert(!report.ahead);
    ck_assert_uint_eq(report.lines, 5);
    fl_buf_free(&head);
}
END_TEST

START_TEST(a_crash_behind_the_very_first_line_is_no_tampering)
{
    struct fl_buf text;
    size_t first;
    append_lines(1);
    read_file(path, &text);
    (void)line_at(&text, 1, &first);
    write_file(path, text.data, first);
    ck_assert_int_eq(unlink(head_path), 0);
    ck_assert(verify().ahead);
    append_lines(1);
    ck_assert_uint_eq(verify().lines, 2);
    fl_buf_free(&text);
}
END_TEST

START_TEST(a_torn_last_line_is_cut_off_when_the_log_is_opened)
{
    append_lines(2);
    int fd = open(path, O_WRONLY | O_APPEND);
    ck_assert_int_eq(write(fd, "{\"seq\":4,", 9), 9);
    close(fd);
    ck_assert(verify().torn);
    append_lines(1);
    ck_assert_uint_eq(verify().lines, 4);
    make_path();
    write_file(path, "{\"seq\":1,", 9); /* nothing but a torn first line */
    ck_assert(verify().torn);
    append_lines(1);
    ck_assert_uint_eq(verify().lines, 2);
}
END_TEST

/* The sectors of a line come to the disk in any order: its end may, and its beginning may not. */
START_TEST(a_line_that_lacks_its_beginning_is_cut_off_when_the_log_is_opened)
{
    static const struct {
        const char *text;
        size_t bytes;
    } pieces[] = {
        {"\0\0\0\0\nab\0\0\",\"prev\":\"00\"}\n", 24}, /* zeros, or what was there before */
        {"\xb7\n", 2},
        {"{\"seq\":4,\xff\n,", 12}};
    for (int i = 0; i < 6; i++) {
        const int lines = i % 2 * 2;
        const size_t bytes = pieces[i / 2].bytes;
        make_path();
        if (lines > 0)
            append_lines(lines);
        else
            write_file(path, "", 0);
        int fd = open(path, O_WRONLY | O_APPEND);
        ck_assert_int_eq(write(fd, pieces[i / 2].text, bytes), (ssize_t)bytes);
        close(fd);
        ck_assert(verify().torn);
        append_lines(1);
        ck_assert(!verify().torn);
        ck_assert_uint_eq(verify().lines, (uint64_t)lines + 2);
    }
}
END_TEST

START_TEST(a_line_that_somebody_put_behind_the_last_is_refused)
{
    struct fl_audit *log;
    append_lines(2);
    int fd = open(path, O_WRONLY | O_APPEND);
    ck_assert_int_eq(write(fd, "nothing\n", 8), 8);
    close(fd);
    ck_assert_int_eq(fl_audit_open(path, &ours, &log, &error), FL_EFORMAT);
    assert_broken(4);
}
END_TEST

/* One append after another while the nth write, then the nth fsync, is refused. */
START_TEST(whatever_write_or_fsync_fails_the_log_goes_on)
{
    static void (*const arm[])(long) = {fl_fs_fail_write_at, fl_fs_fail_sync_at};
    for (int kind = 0; kind < 2; kind++) {
        for (long n = 0; n < 9; n++) {
            struct fl_audit *log;
            uint64_t good = 0;
            make_path();
            fl_assert_ok(fl_audit_open(path, &ours, &log, &error), &error);
            arm[kind](n);
            for (int i = 0; i < 4; i++)
                good += fl_audit_append(log, 0, "x", NULL, &error) == FL_OK;
            ck_assert(fl_fs_fault_fired());
            ck_assert_uint_ge(good, 3); /* it fails once, and goes on */
            struct fl_audit_report report = verify();
            ck_assert_uint_eq(report.lines, good + 1);
            fl_audit_close(&log);
            append_lines(1); /* another process finds nothing wrong either */
            ck_assert_uint_eq(verify().lines, good + 2);
        }
    }
}
END_TEST

START_TEST(after_a_failed_fsync_the_log_is_written_anew_and_goes_on)
{
    struct fl_audit *log;
    fl_assert_ok(fl_audit_open(path, &ours, &log, &error), &error);
    enum fl_status first = fl_audit_append(log, 0, "w", NULL, &error);
    fl_fs_fail_sync_at(0);
    enum fl_status failed = fl_audit_append(log, 0, "x", NULL, &error);
    fl_fs_fail_sync_at(0); /* it cannot be written anew either */
    enum fl_status again = fl_audit_append(log, 0, "y", NULL, &error);
    enum fl_status after = fl_audit_append(log, 0, "z", NULL, &error);
    fl_audit_close(&log);
    fl_assert_ok(first, &error);
    ck_assert_int_eq(failed, FL_EIO);
    ck_assert_int_eq(again, FL_EIO);
    fl_assert_ok(after, &error);
    ck_assert_uint_eq(verify().lines, 3);
}
END_TEST

/* Three lines as they were written before logs were signed. */
static void make_unsigned(struct fl_buf *out)
{
    uint8_t last[FL_HASH_BYTES] = {0};
    char hash[FL_HASH_HEX_BYTES];
    fl_buf_init(out, 4096);
    for (int i = 1; i <= 3; i++) {
        size_t from = out->length;
        fl_hex(last, FL_HASH_BYTES, hash);
        fl_buf_printf(out,
                      "{\"seq\":%d,\"ts\":\"2024-02-29T12:34:56.789Z\",\"event\":\"old\","
                      "\"n\":%d,\"prev\":\"%s\"}",
                      i, i, hash);
        fl_sha256(out->data + from, out->length - from, last);
        fl_buf_append(out, "\n", 1);
    }
    fl_assert_ok(fl_buf_status(out), &error);
    write_file(path, out->data, out->length);
}

START_TEST(a_log_without_signatures_verifies_as_such_and_is_continued_by_signed_lines)
{
    struct fl_buf text;
    make_unsigned(&text);
    struct fl_audit_report report = verify();
    ck_assert(!report.is_signed);
    ck_assert_uint_eq(report.lines, 3);
    append_lines(2);
    report = verify();
    ck_assert(report.is_signed);
    ck_assert_uint_eq(report.unsigned_lines, 3);
    ck_assert_uint_eq(report.lines, 6);
    fl_buf_free(&text);

    read_file(path, &text); /* what stood before is vouched for */
    *strstr((char *)text.data, "\"n\":2") = '\'';
    assert_broken_with(text.data, text.length, 2);
    *strchr((char *)text.data, '\'') = '"';
    strstr((char *)text.data, "\"n\":3")[4] = '4'; /* the last of them, still JSON */
    assert_broken_with(text.data, text.length, 4);
    fl_buf_free(&text);
}
END_TEST

START_TEST(a_signed_log_cannot_be_passed_off_as_an_unsigned_one)
{
    struct fl_buf text;
    struct fl_audit *log;
    append_lines(2);
    make_unsigned(&text);
    assert_broken(4); /* its head is there: something signed is missing */
    ck_assert_int_eq(fl_audit_open(path, &ours, &log, &error), FL_EFORMAT);
    fl_buf_free(&text);
}
END_TEST

START_TEST(what_is_no_audit_log_is_refused)
{
    static char rubbish[100000];
    struct fl_audit *log;
    struct fl_audit_report report;
    memset(rubbish, 'x', sizeof(rubbish));
    write_file(path, rubbish, sizeof(rubbish));
    ck_assert_int_eq(fl_audit_open(path, &ours, &log, &error), FL_EFORMAT);
    ck_assert_ptr_null(log);
    rubbish[sizeof(rubbish) - 1] = '\n';
    write_file(path, rubbish, sizeof(rubbish));
    assert_broken(1);
    write_file(path, "[1]\n", 4);
    ck_assert_int_eq(fl_audit_open(path, &ours, &log, &error), FL_EFORMAT);
    assert_broken(1);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(fl_audit_verify(path, NULL, fake_check, &report, &error), FL_ENOTFOUND);
    write_file(path, "", 0);
    append_lines(1);
    ck_assert_uint_eq(verify().lines, 2);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, make_path, NULL);
    tcase_add_test(tc, the_chain_goes_on_after_a_restart);
    tcase_add_test(tc, a_change_a_removal_an_insertion_and_a_reordering_show);
    tcase_add_test(tc, no_byte_can_be_changed);
    tcase_add_test(tc, an_end_that_was_cut_off_shows);
    tcase_add_test(tc, a_head_of_another_log_or_that_was_changed_is_refused);
    tcase_add_test(tc, another_key_is_told_apart);
    tcase_add_test(tc, a_crash_between_line_and_head_is_no_tampering);
    tcase_add_test(tc, a_crash_behind_the_very_first_line_is_no_tampering);
    tcase_add_test(tc, a_torn_last_line_is_cut_off_when_the_log_is_opened);
    tcase_add_test(tc, whatever_write_or_fsync_fails_the_log_goes_on);
    tcase_add_test(tc, after_a_failed_fsync_the_log_is_written_anew_and_goes_on);
    tcase_add_test(tc, a_log_without_signatures_verifies_as_such_and_is_continued_by_signed_lines);
    tcase_add_test(tc, a_signed_log_cannot_be_passed_off_as_an_unsigned_one);
    tcase_add_test(tc, a_line_that_lacks_its_beginning_is_cut_off_when_the_log_is_opened);
    tcase_add_test(tc, a_line_that_somebody_put_behind_the_last_is_refused);
    tcase_add_test(tc, what_is_no_audit_log_is_refused);
}

FL_TEST_MAIN("base.audit", add_tests)

/* Tests of the commands as the daemon and the programs call them, in a directory without daemon. */
#include "coordinator/control.h"

#include <string.h>

#include "crypto/audit_keys.h"
#include "runner.h"

static char directory[FL_PATH_BYTES];
static struct fl_error error;

static void setup(void)
{
    fl_test_directory(directory);
    fl_assert_ok(fl_desk_create(directory, "tcp://127.0.0.1:7470", NULL, &error), &error);
}

static json_t *ask(json_t *request)
{
    json_t *answer;
    fl_assert_ok(fl_control_call(directory, request, &answer, &error), &error);
    return answer;
}

static enum fl_status refused(json_t *request)
{
    json_t *answer;
    enum fl_status status = fl_control_call(directory, request, &answer, &error);
    json_decref(answer);
    return status;
}

START_TEST(a_fresh_coordinator_is_stopped_and_has_no_job)
{
    json_t *answer = ask(json_pack("{s:s}", "command", "status"));
    ck_assert_str_eq(json_string_value(json_object_get(answer, "state")), "stopped");
    ck_assert(json_is_null(json_object_get(answer, "job")));
    ck_assert_uint_eq(json_array_size(json_object_get(answer, "workers")), 0);
    json_decref(answer);
    ck_assert_int_ne(refused(json_pack("{s:s}", "command", "health")), FL_OK);
}
END_TEST

START_TEST(a_second_init_is_refused)
{
    ck_assert_int_eq(fl_desk_create(directory, NULL, NULL, &error), FL_EEXIST);
}
END_TEST

START_TEST(an_address_that_is_none_is_a_usage_error)
{
    char other[FL_PATH_BYTES];
    fl_test_directory(other);
    ck_assert_int_eq(fl_desk_create(other, "nonsense", NULL, &error), FL_EUSAGE);
    ck_assert_int_eq(fl_desk_create(other, NULL, "tcp://host:none", &error), FL_EUSAGE);
}
END_TEST

START_TEST(an_invitation_needs_an_address_that_sites_can_dial)
{
    char other[FL_PATH_BYTES];
    json_t *answer = NULL;
    fl_test_directory(other);
    fl_assert_ok(fl_desk_create(other, "tcp://0.0.0.0:7470", NULL, &error), &error);
    ck_assert_int_eq(fl_control_call(other,
                                     json_pack("{s:s,s:s}", "command", "invite", "name", "x"),
                                     &answer, &error),
                     FL_EUSAGE);
    answer = ask(json_pack("{s:s,s:s}", "command", "invite", "name", "clinic"));
    struct fl_token token;
    fl_assert_ok(
        fl_token_parse(json_string_value(json_object_get(answer, "token")), &token, &error),
        &error);
    ck_assert_str_eq(token.address, "tcp://127.0.0.1:7470");
    json_decref(answer);
}
END_TEST

START_TEST(unknown_things_have_their_own_status)
{
    ck_assert_int_eq(refused(json_pack("{s:s,s:i}", "command", "job.show", "job", 7)),
                     FL_ENOTFOUND);
    ck_assert_int_eq(refused(json_pack("{s:s,s:i}", "command", "job.cancel", "job", 7)),
                     FL_ENOTFOUND);
    ck_assert_int_eq(refused(json_pack("{s:s,s:s}", "command", "roster.revoke", "name", "nobody")),
                     FL_ENOTFOUND);
    ck_assert_int_eq(refused(json_pack("{s:s}", "command", "adapters.get")), FL_ENOTFOUND);
    ck_assert_int_eq(refused(json_pack("{s:s,s:s,s:s}", "command", "roster.add", "name", "a",
                                       "identity", "fl1:short")),
                     FL_EFORMAT);
    ck_assert_int_eq(refused(json_pack("{s:s}", "command", "nonsense")), FL_EINVAL);
    ck_assert_int_eq(refused(json_pack("{s:s,s:s,s:s}", "command", "job.submit", "text",
                                       "[job]\nnmae = x\n", "what", "job.conf")),
                     FL_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error.text, "job.conf:2"));
}
END_TEST

START_TEST(hostile_requests_get_an_answer_and_nothing_else)
{
    static const char *const bad[] = {"",
                                      "[",
                                      "[]",
                                      "7",
                                      "{}",
                                      "{\"command\":7}",
                                      "{\"command\":\"invite\"}",
                                      "{\"command\":\"job.show\",\"job\":-9223372036854775808}",
                                      "{\"command\":\"adapters.get\",\"version\":4294967296}"};
    struct fl_desk *desk;
    fl_assert_ok(fl_desk_open(directory, fl_clock_system(), &desk, &error), &error);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fl_buf out;
        fl_buf_init(&out, 65536);
        enum fl_status status = fl_control_bytes(desk, NULL, bad[i], strlen(bad[i]), &out);
        if (status == FL_OK)
            ck_assert_ptr_nonnull(strstr(fl_buf_text(&out), "\"ok\":false"));
        fl_buf_free(&out);
    }
    fl_desk_close(&desk);
}
END_TEST

START_TEST(what_commands_change_is_in_the_audit_log)
{
    char path[FL_PATH_BYTES];
    struct fl_audit_report report;
    json_decref(ask(json_pack("{s:s,s:s}", "command", "invite", "name", "clinic")));
    json_decref(ask(json_pack("{s:s,s:s}", "command", "invite", "name", "bank")));
    fl_assert_ok(fl_path_join(path, directory, "audit.log", &error), &error);
    fl_assert_ok(fl_audit_verify(path, NULL, fl_audit_check_ed25519, &report, &error), &error);
    ck_assert_uint_eq(report.lines, 3); /* the first names the coordinator's key */
    ck_assert(report.is_signed);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, a_fresh_coordinator_is_stopped_and_has_no_job);
    tcase_add_test(tc, a_second_init_is_refused);
    tcase_add_test(tc, an_address_that_is_none_is_a_usage_error);
    tcase_add_test(tc, an_invitation_needs_an_address_that_sites_can_dial);
    tcase_add_test(tc, unknown_things_have_their_own_status);
    tcase_add_test(tc, hostile_requests_get_an_answer_and_nothing_else);
    tcase_add_test(tc, what_commands_change_is_in_the_audit_log);
}

FL_TEST_MAIN("coordinator.control", add_tests)

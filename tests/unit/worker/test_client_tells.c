/*
 * What a site says of itself beside its update: nothing of its data is in it; and what it does not
 * begin, however it is asked.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fake_link.h"
#include "runner.h"
#include "worker/client.h"

static struct stub_site site;
static struct fake fake;
static struct fl_object_ref start_ref;
static uint8_t ranks[2 * STUB_MODULES];

static void setup(void)
{
    stub_site_open(&site, NULL);
    stub_ranks(ranks, 4);
    fake_open(&fake, &site);
    fake_offer_start(&fake, &start_ref);
    fake_greet(&fake);
}

static void teardown(void)
{
    atomic_store(&site.stub.hold, 0);
    fake_close(&fake);
    stub_site_close(&site);
}

/* Offer a round and give the task. */
static void begin_training(bool secure)
{
    struct fl_wire_offer offer = stub_offer();
    offer.secure_aggregation = secure;
    (void)fake_offer_round(&fake, &offer);
    fake_give_task(&fake, &start_ref, ranks);
}

START_TEST(a_reason_that_names_files_stays_at_the_site)
{
    static const struct {
        enum fl_status status;
        enum fl_trainer_fault fault;
        const char *says;
        enum fl_refusal code;
    } cases[] = {
        {FL_EFORMAT, FL_FAULT_DATA, "private.jsonl:2: no", FL_REFUSAL_DATA},
        {FL_EFORMAT, FL_FAULT_MODEL, "private.gguf: it is cut off", FL_REFUSAL_MODEL},
        {FL_ENOTFOUND, FL_FAULT_MODEL, "private.gguf: it is not there", FL_REFUSAL_MODEL},
        {FL_EINVAL, FL_FAULT_MODEL, "/srv/private: no such module", FL_REFUSAL_MODEL},
        {FL_EIO, FL_FAULT_DATA, "private.jsonl: read error", FL_REFUSAL_DISK},
    };
    site.stub.fit_status = cases[_i].status;
    site.stub.fit_fault = cases[_i].fault;
    site.stub.fit_says = cases[_i].says;
    const struct fl_wire_offer offer = stub_offer();
    const struct fl_wire_fit *fit = fake_offer_round(&fake, &offer);
    ck_assert_int_eq(fit->code, cases[_i].code);
    ck_assert_msg(!strstr(fit->reason, "private") && strstr(fit->reason, "its own log"), "%s",
                  fit->reason);
}
END_TEST

/* Times the seconds of the round an exact speed would be the number of its tokens: the weight. */
START_TEST(with_masks_the_speed_is_told_in_round_numbers)
{
    const bool secure = _i == 1;
    atomic_store(&site.stub.hold, 1);
    begin_training(secure);
    fake_await_run(&fake);
    fake_pass(&fake, 6000);
    const struct fl_wire *beat = fake_await(&fake, FL_WIRE_HEARTBEAT);
    ck_assert_uint_eq(beat->as.heartbeat.step, 1);
    ck_assert_double_eq(beat->as.heartbeat.tokens_per_second, secure ? 1000.0 : 1234.5);
}
END_TEST

/* Data are read again when another job's version came in between. */
START_TEST(what_training_finds_wrong_with_the_data_stays_at_the_site)
{
    static const enum fl_status statuses[] = {FL_EFORMAT, FL_ENOTFOUND};
    site.stub.run_status = statuses[_i];
    site.stub.run_says = "rows.jsonl:17: not valid JSON near 'Maria M.'";
    begin_training(true);
    const struct fl_wire *failed = fake_await(&fake, FL_WIRE_FAILED);
    ck_assert_int_eq(failed->as.failed.code, FL_REFUSAL_DATA);
    ck_assert_msg(strstr(failed->as.failed.reason, "its own log") != NULL &&
                      strstr(failed->as.failed.reason, "Maria") == NULL,
                  "%s", failed->as.failed.reason);
}
END_TEST

/* The hours have closed; another attempt at the round, which changes `lr` if told to. */
static void next_attempt(double lr)
{
    snprintf(site.conf->hours, sizeof(site.conf->hours), "01:00-02:00");
    fake.key.attempt++;
    struct fl_wire_offer offer = stub_offer();
    offer.lr = lr;
    (void)fake_offer_round(&fake, &offer);
    fake_give_task(&fake, &start_ref, ranks);
}

/* Else a coordinator that never ends a round could have anything trained at any hour. */
START_TEST(a_round_that_has_begun_is_finished_and_nothing_else_begun_in_its_name)
{
    setenv("TZ", "UTC", 1); /* the fake's clock stands at 22:30 */
    tzset();
    snprintf(site.conf->hours, sizeof(site.conf->hours), "22:00-23:00");
    begin_training(false);
    (void)fake_await(&fake, FL_WIRE_TRAINED);
    next_attempt(stub_offer().lr);
    (void)fake_await(&fake, FL_WIRE_TRAINED);
    next_attempt(0.01);
    const struct fl_wire *failed = fake_await(&fake, FL_WIRE_FAILED);
    ck_assert_int_eq(failed->as.failed.code, FL_REFUSAL_HOURS);
    ck_assert(!failed->as.failed.permanent && failed->as.failed.retry_after_ms > 0);
    ck_assert_int_eq(atomic_load(&site.stub.runs), 1);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, a_reason_that_names_files_stays_at_the_site, 0, 5);
    tcase_add_loop_test(tc, with_masks_the_speed_is_told_in_round_numbers, 0, 2);
    tcase_add_test(tc, a_round_that_has_begun_is_finished_and_nothing_else_begun_in_its_name);
    tcase_add_loop_test(tc, what_training_finds_wrong_with_the_data_stays_at_the_site, 0, 2);
}

FL_TEST_MAIN("worker.client_tells", add_tests)

/*
 * A site whose key a second process uses too. What that one did of an attempt the coordinator has,
 * and asks this one for what comes behind it.
 * Goal: this one says at once that it cannot, since who is there and says nothing is waited for.
 */
#include <string.h>

#include "fake_link.h"
#include "runner.h"
#include "worker/client.h"

static struct stub_site site;
static struct fake fake;
static struct fl_object_ref start_ref;
static uint8_t ranks[2 * STUB_MODULES];
static const uint8_t all[] = {1, 1, 1};
static uint8_t signatures[3 * FL_SIGNATURE_BYTES];

static void setup(void)
{
    stub_site_open(&site, NULL);
    stub_ranks(ranks, 4);
    fake_open(&fake, &site);
    fake_offer_start(&fake, &start_ref);
    fake_greet(&fake);
    struct fl_wire_offer offer = stub_offer();
    offer.secure_aggregation = true;
    (void)fake_offer_round(&fake, &offer);
    fake_give_task(&fake, &start_ref, ranks);
    (void)fake_await(&fake, FL_WIRE_TRAINED);
}

static void teardown(void)
{
    fake_close(&fake);
    stub_site_close(&site);
}

static void ask_for(enum fl_wire_kind kind)
{
    const struct fl_wire_bytes set = {all, sizeof(all)};
    struct fl_wire m = fake_message(&fake, kind);
    if (kind == FL_WIRE_SURVIVORS)
        m.as.survivors.survivors = set;
    else
        m.as.unmask = (struct fl_wire_unmask){
            .survivors = set, .signed_by = set, .signatures = {signatures, sizeof(signatures)}};
    fake_send(&fake, &m);
}

static void ck_says_lost(const char *why)
{
    const struct fl_wire_failed *failed = &fake_await(&fake, FL_WIRE_FAILED)->as.failed;
    ck_assert_msg(strstr(failed->reason, "secrets lost") && strstr(failed->reason, why), "%s",
                  failed->reason);
    ck_assert(!failed->permanent);
}

static const enum fl_wire_kind kinds[] = {FL_WIRE_SURVIVORS, FL_WIRE_UNMASK};

START_TEST(who_has_no_keys_says_so)
{
    ask_for(kinds[_i]);
    ck_says_lost("began after the attempt's keys were made");
}
END_TEST

START_TEST(who_has_keys_that_are_not_the_ones_in_use_says_so_too)
{
    const struct fl_wire keys = fake_message(&fake, FL_WIRE_KEYS);
    fake_send(&fake, &keys);
    (void)fake_await(&fake, FL_WIRE_ADVERT);
    ask_for(kinds[_i]);
    ck_says_lost("another process went on");
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, who_has_no_keys_says_so, 0, 2);
    tcase_add_loop_test(tc, who_has_keys_that_are_not_the_ones_in_use_says_so_too, 0, 2);
}

FL_TEST_MAIN("worker.client_twin", add_tests)

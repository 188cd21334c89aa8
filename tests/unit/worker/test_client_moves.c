/*
 * A site that is given another coordinator: a new consortium, or one whose coordinator was made
 * anew. Job numbers begin at 1 again there.
 * Goal: the other coordinator gets nothing that came from the one before, and nothing of that one
 * is lost or mixed with what comes now.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "fake_link.h"
#include "runner.h"
#include "worker/client.h"

#define FIRST  "1111111111111111aaaaaaaaaaaaaaaa1111111111111111aaaaaaaaaaaaaaaa"
#define SECOND "2222222222222222bbbbbbbbbbbbbbbb2222222222222222bbbbbbbbbbbbbbbb"

static struct stub_site site;
static struct fake fake;
static struct fl_object_ref start_ref;
static struct fl_buf start;
static uint8_t ranks[2 * STUB_MODULES];
static struct fl_error error;

/* The daemon starts, under that coordinator. */
static void begin(const char *coordinator)
{
    snprintf(site.conf->coordinator_key, sizeof(site.conf->coordinator_key), "%s", coordinator);
    fake_open(&fake, &site);
    fake_offer_object(&fake, start.data, start.length, &start_ref);
    fake_greet(&fake);
}

static void setup(void)
{
    struct fl_adapter *adapter = stub_start(1);
    stub_site_open(&site, NULL);
    stub_ranks(ranks, 4);
    fl_buf_init(&start, 1u << 20);
    fl_assert_ok(fl_adapter_encode(adapter, &start, &error), &error);
    fl_adapter_destroy(&adapter);
}

static void teardown(void)
{
    fl_buf_free(&start);
    stub_site_close(&site);
}

static bool exists(const char *name)
{
    char path[FL_PATH_BYTES];
    fl_assert_ok(fl_sitestore_path(&site.store, name, path, &error), &error);
    return fl_path_exists(path);
}

/* From the offer to TRAINED. */
static void train(void)
{
    struct fl_wire_offer offer = stub_offer();
    offer.rounds = 9;
    (void)fake_offer_round(&fake, &offer);
    fake_give_task(&fake, &start_ref, ranks);
    (void)fake_await(&fake, FL_WIRE_TRAINED);
}

static void commit(uint32_t number)
{
    char file[96];
    struct fl_wire m = fake_message(&fake, FL_WIRE_VERSION);
    m.as.version.version = number;
    m.as.version.adapter = start_ref;
    fl_sha256(start.data, start.length, m.as.version.sha256);
    m.as.version.ranks = (struct fl_wire_bytes){ranks, sizeof(ranks)};
    m.as.version.workers = 3;
    fake_send(&fake, &m);
    snprintf(file, sizeof(file), "adapters/9@%u/adapter_model.safetensors", number);
    fake_await_file(&fake, file);
}

static uint32_t recalled(void)
{
    struct fl_wire m = fake_message(&fake, FL_WIRE_RECALL);
    m.job = 9;
    return fake_ask(&fake, &m, FL_WIRE_RECALLED)->as.recalled.version;
}

START_TEST(what_one_coordinator_sent_is_not_given_to_another)
{
    begin(FIRST);
    train();
    commit(1);
    ck_assert_uint_eq(recalled(), 1);
    fake_close(&fake);
    begin(FIRST); /* as after any restart */
    ck_assert_uint_eq(fake.last.as.hello.last_job, 9);
    ck_assert_uint_eq(recalled(), 1);
    fake_close(&fake);
    begin(SECOND);
    ck_assert_uint_eq(fake.last.as.hello.last_job, 0);
    ck_assert_uint_eq(recalled(), 0);
    fake_close(&fake);
}
END_TEST

START_TEST(versions_of_another_coordinator_are_kept_apart)
{
    begin(FIRST);
    fake.key.round = 7;
    train();
    for (uint32_t number = 5; number <= 7; number++)
        commit(number);
    fake_close(&fake);
    begin(SECOND);
    fake.key.round = 1;
    train();
    commit(1);
    ck_assert_uint_eq(recalled(), 1);
    ck_assert(exists("adapters-1111111111111111/9@7/adapter_model.safetensors"));
    ck_assert(exists("adapters-1111111111111111/9/adapter_model.safetensors"));
    fake_close(&fake);
    begin(FIRST); /* and back: nothing is written over */
    ck_assert_uint_eq(recalled(), 0);
    ck_assert(exists("adapters-2222222222222222/9@1/adapter_model.safetensors"));
    train();
    commit(2);
    fake_close(&fake);
    begin(SECOND);
    ck_assert(exists("adapters-1111111111111111/9@7/adapter_model.safetensors"));
    ck_assert(exists("adapters-1111111111111111.2/9@2/adapter_model.safetensors"));
    fake_close(&fake);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, what_one_coordinator_sent_is_not_given_to_another);
    tcase_add_test(tc, versions_of_another_coordinator_are_kept_apart);
}

FL_TEST_MAIN("worker.client_moves", add_tests)

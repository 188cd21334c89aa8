/*
 * Goal: an object arrives whole and verified through loss, repeats, lies, cuts and restarts, within
 * its credit.
 * Method: sender and receiver joined by a queue in this process, under a clock of our own; and each
 * (state, event) pair visited once.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "crypto/prg.h"
#include "net/chunks.h"
#include "runner.h"

static struct fl_error error;

struct rig {
    struct fl_shelf *shelf;
    struct fl_serve *serve;
    struct fl_fetch *fetch;
    uint8_t *bytes;
    uint64_t size;
    uint8_t root[FL_HASH_BYTES];
    int64_t now;
    uint32_t most_asked; /* chunks in one step's requests */
    unsigned sent;       /* DATA messages */
};

static void rig_open(struct rig *rig, uint64_t size)
{
    static const uint8_t seed[FL_SEED_BYTES] = {9};
    struct fl_prg prg;
    struct fl_object *object = NULL;
    memset(rig, 0, sizeof(*rig));
    rig->now = 1000000;
    rig->size = size;
    rig->bytes = fl_malloc((size_t)size);
    ck_assert_ptr_nonnull(rig->bytes);
    fl_prg_init(&prg, seed);
    fl_prg_bytes(&prg, rig->bytes, (size_t)size);
    ck_assert_int_eq(fl_shelf_create(&rig->shelf), FL_OK);
    ck_assert_int_eq(fl_serve_create(rig->shelf, &rig->serve), FL_OK);
    fl_assert_ok(fl_object_open_memory(rig->bytes, (size_t)size, &object, &error), &error);
    memcpy(rig->root, fl_object_root(object), FL_HASH_BYTES);
    const enum fl_status status = fl_shelf_put(rig->shelf, &object);
    fl_object_close(&object);
    ck_assert_int_eq(status, FL_OK);
}

static enum fl_status rig_fetch(struct rig *rig, const char *part)
{
    struct fl_fetch_config config = {
        .size = rig->size, .size_max = 1u << 30, .part_path = part, .progress_ms = 30000};
    memcpy(config.root, rig->root, FL_HASH_BYTES);
    return fl_fetch_open(&config, &rig->fetch, &error);
}

static void rig_close(struct rig *rig)
{
    fl_fetch_close(&rig->fetch);
    fl_serve_destroy(&rig->serve);
    fl_shelf_destroy(&rig->shelf);
    fl_free(rig->bytes);
}

/* Give the step's requests to the sender. */
static void deliver(struct rig *rig, const struct fl_fetch_effects *effects)
{
    uint32_t asked = 0;
    for (size_t i = 0; i < effects->count; i++) {
        asked += effects->messages[i].pages ? 0 : effects->messages[i].count;
        ck_assert_int_eq(fl_serve_need(rig->serve, &effects->messages[i]), FL_OK);
    }
    if (asked > rig->most_asked)
        rig->most_asked = asked;
}

static enum fl_fetch_state step(struct rig *rig, enum fl_fetch_event event,
                                const struct fl_chunk_message *message)
{
    struct fl_fetch_effects effects;
    const enum fl_fetch_state state = fl_fetch_step(rig->fetch, event, message, rig->now, &effects);
    deliver(rig, &effects);
    return state;
}

/* What happens to the sender's nth message: how often it arrives. */
typedef unsigned network(unsigned n, struct fl_chunk_message *message);

static unsigned good_network(unsigned n, struct fl_chunk_message *message)
{
    (void)n, (void)message;
    return 1;
}

/* Run until the fetch ends, or stop_after DATA messages were sent. */
static enum fl_fetch_state run(struct rig *rig, network *net, unsigned stop_after)
{
    unsigned n = 0;
    enum fl_fetch_state state = step(rig, FL_FETCH_ONLINE, NULL);
    while (state != FL_FETCH_DONE && state != FL_FETCH_FAILED && rig->sent < stop_after) {
        struct fl_chunk_message m;
        ck_assert_uint_lt(n, 100000);
        if (fl_fetch_due(rig->fetch) <= rig->now) {
            state = step(rig, FL_FETCH_TICK, NULL);
            continue;
        }
        if (fl_serve_next(rig->serve, &m) != FL_OK) {
            rig->now = fl_fetch_due(rig->fetch);
            continue;
        }
        rig->sent += m.kind == FL_CHUNK_DATA;
        rig->now += 10;
        struct fl_chunk_message copy = m;
        for (unsigned times = net(n++, &copy); times > 0; times--)
            state = step(rig, FL_FETCH_MESSAGE, &copy);
        fl_serve_sent(rig->serve);
    }
    return state;
}

static void assert_arrived(struct rig *rig)
{
    size_t length = 0;
    const uint8_t *data = fl_fetch_data(rig->fetch, &length);
    ck_assert_uint_eq(length, rig->size);
    ck_assert(length == 0 || memcmp(data, rig->bytes, length) == 0);
    ck_assert_uint_eq(fl_fetch_progress(rig->fetch), rig->size);
}

static const uint64_t sizes[] = {0,       1, FL_CHUNK_BYTES - 1, FL_CHUNK_BYTES, FL_CHUNK_BYTES + 1,
                                 5u << 20};

START_TEST(an_object_of_any_size_arrives) /* _i: which size */
{
    struct rig rig;
    rig_open(&rig, sizes[_i]);
    fl_assert_ok(rig_fetch(&rig, NULL), &error);
    ck_assert_int_eq(run(&rig, good_network, UINT32_MAX), FL_FETCH_DONE);
    assert_arrived(&rig);
    ck_assert_uint_eq(rig.sent, (sizes[_i] + FL_CHUNK_BYTES - 1) / FL_CHUNK_BYTES);
    rig_close(&rig);
}
END_TEST

static unsigned bad_network(unsigned n, struct fl_chunk_message *message)
{
    static const unsigned arrivals[] = {1, 0, 2, 1, 1, 3, 0, 1};
    (void)message;
    return arrivals[n * 2654435761u >> 29];
}

START_TEST(lost_and_repeated_messages_cost_time_only)
{
    struct rig rig;
    rig_open(&rig, 20 * FL_CHUNK_BYTES + 77);
    fl_assert_ok(rig_fetch(&rig, NULL), &error);
    ck_assert_int_eq(run(&rig, bad_network, UINT32_MAX), FL_FETCH_DONE);
    assert_arrived(&rig);
    rig_close(&rig);
}
END_TEST

START_TEST(credit_grows_with_what_arrives_and_never_exceeds_sixteen)
{
    struct rig rig;
    rig_open(&rig, 50 * FL_CHUNK_BYTES);
    fl_assert_ok(rig_fetch(&rig, NULL), &error);
    struct fl_fetch_effects effects;
    struct fl_chunk_message m;
    uint32_t outstanding = 0, most = 0;
    fl_fetch_step(rig.fetch, FL_FETCH_ONLINE, NULL, rig.now, &effects);
    deliver(&rig, &effects);
    while (fl_fetch_state(rig.fetch) != FL_FETCH_DONE) {
        ck_assert_int_eq(fl_serve_next(rig.serve, &m), FL_OK);
        outstanding -= m.kind == FL_CHUNK_DATA;
        fl_fetch_step(rig.fetch, FL_FETCH_MESSAGE, &m, rig.now += 5, &effects);
        fl_serve_sent(rig.serve);
        for (size_t i = 0; i < effects.count; i++)
            outstanding += effects.messages[i].count;
        if (rig.sent++ == 0)
            ck_assert_uint_eq(outstanding, 1); /* after the page: one chunk */
        most = outstanding > most ? outstanding : most;
        deliver(&rig, &effects);
    }
    ck_assert_uint_eq(most, FL_CHUNK_WINDOW_MAX);
    rig_close(&rig);
}
END_TEST

static void part_path(char *path)
{
    char directory[FL_PATH_BYTES];
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(path, directory, "object.part", &error), &error);
}

START_TEST(a_restart_asks_only_for_what_is_not_there)
{
    struct rig rig;
    char part[FL_PATH_BYTES], done[FL_PATH_BYTES + 8];
    part_path(part);
    rig_open(&rig, 12 * FL_CHUNK_BYTES + 100);
    fl_assert_ok(rig_fetch(&rig, part), &error);
    run(&rig, good_network, 8);
    ck_assert_int_eq(fl_fetch_state(rig.fetch), FL_FETCH_CHUNKS);
    fl_fetch_close(&rig.fetch); /* as after a crash: nothing but the file is left */
    fl_serve_clear(rig.serve);

    const int fd = open(part, O_WRONLY | O_CLOEXEC); /* and one chunk of it is torn */
    ck_assert_int_eq(pwrite(fd, "torn", 4, 3 * FL_CHUNK_BYTES), 4);
    ck_assert_int_eq(close(fd), 0);
    rig.sent = 0;
    fl_assert_ok(rig_fetch(&rig, part), &error);
    ck_assert_int_eq(run(&rig, good_network, UINT32_MAX), FL_FETCH_DONE);
    ck_assert_uint_eq(rig.sent, 13 - 8 + 1);

    struct fl_buf bytes;
    (void)snprintf(done, sizeof(done), "%s.done", part);
    fl_assert_ok(fl_part_commit(part, done, &error), &error);
    fl_assert_ok(fl_fs_read(done, 64u << 20, &bytes, &error), &error);
    ck_assert_uint_eq(bytes.length, rig.size);
    ck_assert(memcmp(bytes.data, rig.bytes, bytes.length) == 0);
    fl_buf_free(&bytes);
    rig_close(&rig);
}
END_TEST

START_TEST(a_part_file_of_something_else_is_of_no_harm)
{
    struct rig rig;
    char part[FL_PATH_BYTES];
    part_path(part);
    rig_open(&rig, 2 * FL_CHUNK_BYTES);
    uint8_t *junk = fl_calloc(3, FL_CHUNK_BYTES);
    ck_assert_ptr_nonnull(junk);
    fl_assert_ok(fl_fs_write(part, junk, 3 * FL_CHUNK_BYTES, 0600, &error), &error);
    fl_assert_ok(rig_fetch(&rig, part), &error);
    ck_assert_int_eq(run(&rig, good_network, UINT32_MAX), FL_FETCH_DONE);
    ck_assert_uint_eq(rig.sent, 2);
    fl_free(junk);
    rig_close(&rig);
}
END_TEST

START_TEST(a_new_session_goes_on_where_the_old_one_ended)
{
    struct rig rig;
    rig_open(&rig, 30 * FL_CHUNK_BYTES);
    fl_assert_ok(rig_fetch(&rig, NULL), &error);
    run(&rig, good_network, 10);
    step(&rig, FL_FETCH_OFFLINE, NULL);
    ck_assert_int_eq(fl_fetch_due(rig.fetch), INT64_MAX);
    fl_serve_clear(rig.serve);
    rig.now += 24 * 3600 * 1000; /* the progress clock stands still meanwhile */
    ck_assert_int_eq(run(&rig, good_network, UINT32_MAX), FL_FETCH_DONE);
    ck_assert_uint_eq(rig.sent, 30);
    assert_arrived(&rig);
    rig_close(&rig);
}
END_TEST

static unsigned lying_network(unsigned n, struct fl_chunk_message *message)
{
    static const uint8_t lie[FL_CHUNK_BYTES] = {1};
    if (n > 2 && message->kind == FL_CHUNK_DATA)
        message->data = lie;
    return 1;
}

static unsigned once_lying_network(unsigned n, struct fl_chunk_message *message)
{
    return n == 4 ? lying_network(n, message) : 1;
}

START_TEST(a_wrong_chunk_is_asked_for_again_and_a_liar_given_up)
{
    struct rig rig;
    rig_open(&rig, 12 * FL_CHUNK_BYTES);
    fl_assert_ok(rig_fetch(&rig, NULL), &error);
    ck_assert_int_eq(run(&rig, once_lying_network, UINT32_MAX), FL_FETCH_DONE);
    ck_assert_uint_eq(rig.sent, 13);
    assert_arrived(&rig);
    fl_fetch_close(&rig.fetch);
    fl_serve_clear(rig.serve);
    fl_assert_ok(rig_fetch(&rig, NULL), &error);
    ck_assert_int_eq(run(&rig, lying_network, UINT32_MAX), FL_FETCH_FAILED);
    ck_assert_int_eq(fl_fetch_error(rig.fetch)->status, FL_EFORMAT);
    rig_close(&rig);
}
END_TEST

START_TEST(wrong_pages_of_hashes_never_become_an_object)
{
    struct rig rig;
    rig_open(&rig, 5 * FL_CHUNK_BYTES);
    fl_assert_ok(rig_fetch(&rig, NULL), &error);
    step(&rig, FL_FETCH_ONLINE, NULL);
    uint8_t hashes[5 * FL_HASH_BYTES] = {0};
    struct fl_chunk_message page = {
        .kind = FL_CHUNK_PAGE, .count = 5, .size = rig.size, .data = hashes};
    memcpy(page.root, rig.root, FL_HASH_BYTES);
    page.length = sizeof(hashes) - 1;
    ck_assert_int_eq(step(&rig, FL_FETCH_MESSAGE, &page), FL_FETCH_PAGES);
    page.length = sizeof(hashes);
    page.index = 1;
    ck_assert_int_eq(step(&rig, FL_FETCH_MESSAGE, &page), FL_FETCH_PAGES); /* a stray */
    page.index = 0;
    ck_assert_int_eq(step(&rig, FL_FETCH_MESSAGE, &page), FL_FETCH_PAGES);
    ck_assert_int_eq(step(&rig, FL_FETCH_MESSAGE, &page), FL_FETCH_FAILED);
    ck_assert_int_eq(fl_fetch_error(rig.fetch)->status, FL_EFORMAT);
    rig_close(&rig);
}
END_TEST

START_TEST(without_progress_a_transfer_times_out)
{
    struct rig rig;
    rig_open(&rig, 5 * FL_CHUNK_BYTES);
    fl_assert_ok(rig_fetch(&rig, NULL), &error);
    const int64_t start = rig.now;
    enum fl_fetch_state state = step(&rig, FL_FETCH_ONLINE, NULL);
    while (state == FL_FETCH_PAGES) {
        ck_assert_int_gt(fl_fetch_due(rig.fetch), rig.now);
        rig.now = fl_fetch_due(rig.fetch);
        state = step(&rig, FL_FETCH_TICK, NULL);
    }
    ck_assert_int_eq(state, FL_FETCH_FAILED);
    ck_assert_int_eq(fl_fetch_error(rig.fetch)->status, FL_ETIMEOUT);
    ck_assert_int_eq(rig.now - start, 30000);
    rig_close(&rig);
}
END_TEST

START_TEST(an_object_that_the_sender_lacks_fails_at_once)
{
    struct rig rig;
    rig_open(&rig, 5 * FL_CHUNK_BYTES);
    fl_assert_ok(rig_fetch(&rig, NULL), &error);
    fl_shelf_remove(rig.shelf, rig.root);
    ck_assert_int_eq(run(&rig, good_network, UINT32_MAX), FL_FETCH_FAILED);
    ck_assert_int_eq(fl_fetch_error(rig.fetch)->status, FL_ENOTFOUND);
    rig_close(&rig);
}
END_TEST

START_TEST(an_announced_size_beyond_the_limit_takes_no_memory)
{
    struct rig rig;
    rig_open(&rig, 5);
    rig.size = (1u << 30) + 1ull;
    ck_assert_int_eq(rig_fetch(&rig, NULL), FL_ERANGE);
    rig.size = UINT64_MAX;
    ck_assert_int_eq(rig_fetch(&rig, NULL), FL_ERANGE);
    rig_close(&rig);
}
END_TEST

START_TEST(requests_that_make_no_sense_are_refused_and_repeats_are_not_queued)
{
    struct rig rig;
    rig_open(&rig, 20 * FL_CHUNK_BYTES);
    struct fl_chunk_message need = {.kind = FL_CHUNK_NEED, .count = 1}, out;
    memcpy(need.root, rig.root, FL_HASH_BYTES);
    need.index = 20;
    ck_assert_int_eq(fl_serve_need(rig.serve, &need), FL_EFORMAT);
    need.index = UINT32_MAX, need.count = 2;
    ck_assert_int_eq(fl_serve_need(rig.serve, &need), FL_EFORMAT);
    need.index = 0, need.count = 17;
    ck_assert_int_eq(fl_serve_need(rig.serve, &need), FL_EFORMAT);
    need.count = 0;
    ck_assert_int_eq(fl_serve_need(rig.serve, &need), FL_EFORMAT);
    need.kind = FL_CHUNK_PAGE, need.count = 1;
    ck_assert_int_eq(fl_serve_need(rig.serve, &need), FL_EFORMAT);
    need.kind = FL_CHUNK_NEED, need.count = 4;
    for (int i = 0; i < 1000; i++)
        ck_assert_int_eq(fl_serve_need(rig.serve, &need), FL_OK);
    unsigned answers = 0;
    while (fl_serve_next(rig.serve, &out) == FL_OK) {
        fl_serve_sent(rig.serve);
        answers++;
    }
    ck_assert_uint_eq(answers, 4);
    for (uint32_t i = 0; i < 1000; i++) { /* nor is there an end to which a peer can fill it */
        need.index = i % 20, need.count = 1;
        ck_assert_int_eq(fl_serve_need(rig.serve, &need), FL_OK);
        need.root[0] = (uint8_t)i;
        ck_assert_int_eq(fl_serve_need(rig.serve, &need), FL_OK);
    }
    for (answers = 0; fl_serve_next(rig.serve, &out) == FL_OK; answers++)
        fl_serve_sent(rig.serve);
    ck_assert_uint_le(answers, 32);
    rig_close(&rig);
}
END_TEST

START_TEST(a_file_and_the_same_bytes_in_memory_have_one_root)
{
    char path[FL_PATH_BYTES];
    part_path(path);
    struct rig rig;
    uint8_t root[FL_HASH_BYTES];
    rig_open(&rig, 3 * FL_CHUNK_BYTES + 1);
    fl_assert_ok(fl_fs_write(path, rig.bytes, (size_t)rig.size, 0600, &error), &error);
    struct fl_object *object = NULL;
    fl_assert_ok(fl_object_open_file(path, &object, &error), &error);
    ck_assert_mem_eq(fl_object_root(object), rig.root, FL_HASH_BYTES);
    ck_assert_int_eq(fl_object_hash(rig.bytes, (size_t)rig.size, root), FL_OK);
    ck_assert_mem_eq(root, rig.root, FL_HASH_BYTES);
    fl_shelf_remove(rig.shelf, rig.root);
    ck_assert_int_eq(fl_shelf_put(rig.shelf, &object), FL_OK);
    fl_assert_ok(rig_fetch(&rig, NULL), &error);
    ck_assert_int_eq(run(&rig, good_network, UINT32_MAX), FL_FETCH_DONE);
    assert_arrived(&rig);
    rig_close(&rig);
}
END_TEST

/* Bring a fetch into a state by the shortest way. */
static void bring_to(struct rig *rig, enum fl_fetch_state state, const char *part)
{
    fl_assert_ok(rig_fetch(rig, state == FL_FETCH_VERIFY ? part : NULL), &error);
    struct fl_chunk_message missing = {.kind = FL_CHUNK_MISSING}, m;
    memcpy(missing.root, rig->root, FL_HASH_BYTES);
    if (state == FL_FETCH_PAGES)
        return;
    step(rig, FL_FETCH_ONLINE, NULL);
    if (state == FL_FETCH_FAILED)
        step(rig, FL_FETCH_MESSAGE, &missing);
    while (fl_fetch_state(rig->fetch) != state) {
        ck_assert_int_eq(fl_serve_next(rig->serve, &m), FL_OK);
        step(rig, FL_FETCH_MESSAGE, &m);
        fl_serve_sent(rig->serve);
    }
}

START_TEST(every_event_in_every_state_is_survived)
{
    char part[FL_PATH_BYTES];
    part_path(part);
    for (int state = 0; state < FL_FETCH_STATE_COUNT; state++)
        for (int event = 0; event < FL_FETCH_EVENT_COUNT; event++)
            for (int kind = 0; kind < (event == FL_FETCH_MESSAGE ? 4 : 1); kind++) {
                struct rig rig;
                struct fl_fetch_effects effects;
                rig_open(&rig, 3 * FL_CHUNK_BYTES);
                fl_assert_ok(fl_fs_write(part, "old", 3, 0600, &error), &error);
                bring_to(&rig, (enum fl_fetch_state)state, part);
                struct fl_chunk_message m = {.kind = (enum fl_chunk_kind)kind, .index = 9};
                memcpy(m.root, rig.root, FL_HASH_BYTES);
                const enum fl_fetch_state after =
                    fl_fetch_step(rig.fetch, (enum fl_fetch_event)event,
                                  event == FL_FETCH_MESSAGE ? &m : NULL, rig.now, &effects);
                if (state == FL_FETCH_DONE || state == FL_FETCH_FAILED)
                    ck_assert_int_eq((int)after, state);
                ck_assert_int_ge((int)after, state);
                ck_assert_uint_le(effects.count, FL_CHUNK_WINDOW_MAX);
                ck_assert_str_ne(fl_fetch_state_name(after), "?");
                rig_close(&rig);
            }
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, an_object_of_any_size_arrives, 0, 6);
    tcase_add_test(tc, lost_and_repeated_messages_cost_time_only);
    tcase_add_test(tc, credit_grows_with_what_arrives_and_never_exceeds_sixteen);
    tcase_add_test(tc, a_restart_asks_only_for_what_is_not_there);
    tcase_add_test(tc, a_part_file_of_something_else_is_of_no_harm);
    tcase_add_test(tc, a_new_session_goes_on_where_the_old_one_ended);
    tcase_add_test(tc, a_wrong_chunk_is_asked_for_again_and_a_liar_given_up);
    tcase_add_test(tc, wrong_pages_of_hashes_never_become_an_object);
    tcase_add_test(tc, without_progress_a_transfer_times_out);
    tcase_add_test(tc, an_object_that_the_sender_lacks_fails_at_once);
    tcase_add_test(tc, an_announced_size_beyond_the_limit_takes_no_memory);
    tcase_add_test(tc, requests_that_make_no_sense_are_refused_and_repeats_are_not_queued);
    tcase_add_test(tc, a_file_and_the_same_bytes_in_memory_have_one_root);
    tcase_add_test(tc, every_event_in_every_state_is_survived);
}

FL_TEST_MAIN("net.chunks", add_tests)

/*
 * Goal: an object whose hashes need two pages (above 262 MB) arrives; a page lost or swapped does
 * no harm. Method: a sparse file whose two ends differ, fetched into another file.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "net/chunks.h"
#include "runner.h"

#define SIZE ((uint64_t)FL_CHUNK_BYTES * 1001 + 5)

static struct fl_error error;

static void make_sparse(const char *path)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_eq(pwrite(fd, "begin", 5, 0), 5);
    ck_assert_int_eq(pwrite(fd, "ended", 5, (off_t)SIZE - 5), 5);
    ck_assert_int_eq(close(fd), 0);
}

static enum fl_fetch_state step(struct fl_fetch *fetch, struct fl_serve *serve,
                                enum fl_fetch_event event, const struct fl_chunk_message *m)
{
    struct fl_fetch_effects effects;
    const enum fl_fetch_state state = fl_fetch_step(fetch, event, m, 1000, &effects);
    for (size_t i = 0; i < effects.count; i++)
        ck_assert_int_eq(fl_serve_need(serve, &effects.messages[i]), FL_OK);
    return state;
}

START_TEST(an_object_of_two_pages_arrives_whatever_their_order)
{
    char directory[FL_PATH_BYTES], from[FL_PATH_BYTES], part[FL_PATH_BYTES];
    fl_test_directory(directory);
    fl_assert_ok(fl_path_join(from, directory, "object", &error), &error);
    fl_assert_ok(fl_path_join(part, directory, "object.part", &error), &error);
    make_sparse(from);
    struct fl_object *object = NULL;
    struct fl_shelf *shelf = NULL;
    struct fl_serve *serve = NULL;
    struct fl_fetch *fetch = NULL;
    struct fl_chunk_message m, first;
    fl_assert_ok(fl_object_open_file(from, &object, &error), &error);
    ck_assert_int_eq(fl_shelf_create(&shelf), FL_OK);
    ck_assert_int_eq(fl_serve_create(shelf, &serve), FL_OK);
    struct fl_fetch_config config = {
        .size = SIZE, .size_max = SIZE, .part_path = part, .progress_ms = 60000};
    memcpy(config.root, fl_object_root(object), FL_HASH_BYTES);
    ck_assert_int_eq(fl_shelf_put(shelf, &object), FL_OK);
    fl_assert_ok(fl_fetch_open(&config, &fetch, &error), &error);

    step(fetch, serve, FL_FETCH_ONLINE, NULL);
    ck_assert_int_eq(fl_serve_next(serve, &first), FL_OK); /* page 0 points into the object */
    ck_assert_uint_eq(first.length, FL_CHUNK_PAGE_HASHES * FL_HASH_BYTES);
    fl_serve_sent(serve);
    ck_assert_int_eq(fl_serve_next(serve, &m), FL_OK);
    ck_assert_uint_eq(m.length, 2 * FL_HASH_BYTES);
    ck_assert_int_eq(step(fetch, serve, FL_FETCH_MESSAGE, &m), FL_FETCH_PAGES);
    fl_serve_sent(serve);
    enum fl_fetch_state state = step(fetch, serve, FL_FETCH_MESSAGE, &first);
    unsigned chunks = 0;
    for (; state == FL_FETCH_CHUNKS; chunks++) {
        ck_assert_int_eq(fl_serve_next(serve, &m), FL_OK);
        state = step(fetch, serve, FL_FETCH_MESSAGE, &m);
        fl_serve_sent(serve);
    }
    ck_assert_int_eq(state, FL_FETCH_DONE);
    ck_assert_uint_eq(chunks, 1002);
    fl_fetch_close(&fetch);
    fl_assert_ok(fl_object_open_file(part, &object, &error), &error);
    ck_assert_mem_eq(fl_object_root(object), config.root, FL_HASH_BYTES);
    fl_object_close(&object);
    fl_serve_destroy(&serve);
    fl_shelf_destroy(&shelf);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, an_object_of_two_pages_arrives_whatever_their_order);
}

FL_TEST_MAIN("net.chunk_pages", add_tests)

/*
 * cmd_top.c - fedlora-coordinator top: what it does, drawn again and again on a terminal.
 *
 * Each picture is made as lines first and written at once; on a terminal each line is cut to its
 * width and the cursor goes home instead of the screen being cleared, so that nothing flickers.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/escape.h"
#include "coordinator/commands.h"
#include "coordinator/control.h"

#define LOSSES_SHOWN 8
#define PICTURE_MAX  (1u << 20)

static volatile sig_atomic_t stop_asked;

static void on_signal(int number)
{
    (void)number;
    stop_asked = 1;
}

/* ---- the picture ---- */

/* Names and reasons come from sites: nothing in them steers a terminal. */
static void put_text(struct fl_buf *out, const char *text)
{
    char piece[FL_ESCAPE_BYTES];
    for (size_t left = strlen(text); left > 0;) {
        size_t used = fl_escape(text, left, piece);
        fl_buf_printf(out, "%s", piece);
        text += used;
        left -= used;
    }
}

static long long number_of(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static void put_head(struct fl_buf *out, const json_t *status)
{
    char now[FL_TIME_TEXT_BYTES];
    fl_time_text(fl_clock_wall(fl_clock_system()), now);
    fl_buf_printf(out, "fedlora coordinator: %s   %.19sZ\n", fl_member_text(status, "state"), now);
    if (!json_is_integer(json_object_get(status, "job"))) {
        fl_buf_printf(out, "no job yet\n");
        return;
    }
    fl_buf_printf(out, "job %lld   round %lld of %lld   %s\n", number_of(status, "job"),
                  number_of(status, "round"), number_of(status, "rounds"),
                  fl_member_text(status, "phase"));
    if (fl_member_text(status, "reason")[0] != '-') {
        put_text(out, fl_member_text(status, "reason"));
        fl_buf_printf(out, "\n");
    }
}

/* The newest held-out losses, oldest first. */
static void put_losses(struct fl_buf *out, const json_t *versions)
{
    size_t count = json_array_size(versions), known = 0, i;
    const json_t *item;
    json_array_foreach(versions, i, item)
        known += json_is_number(json_object_get(item, "eval_loss"));
    if (known == 0)
        return;
    fl_buf_printf(out, "held-out loss");
    for (i = 0; i < count; i++) {
        item = json_array_get(versions, i);
        const json_t *loss = json_object_get(item, "eval_loss");
        if (!json_is_number(loss))
            continue;
        if (known <= LOSSES_SHOWN)
            fl_buf_printf(out, "  %lld: %.4f", number_of(item, "version"), json_number_value(loss));
        known--;
    }
    fl_buf_printf(out, "\n");
}

static void put_site(struct fl_buf *out, const json_t *site)
{
    const json_t *seen = json_object_get(site, "last_seen_seconds");
    fl_buf_printf(out, "%-24s %-9s ", fl_member_text(site, "name"), fl_member_text(site, "state"));
    if (json_is_number(seen))
        fl_buf_printf(out, "%7.0f s", json_number_value(seen));
    else
        fl_buf_printf(out, "%9s", "never");
    if (number_of(site, "failed_sums") > 0)
        fl_buf_printf(out, "  in %lld failed sums", number_of(site, "failed_sums"));
    if (json_is_true(json_object_get(site, "left_out")))
        fl_buf_printf(out, "  left out of this round");
    fl_buf_printf(out, "\n");
}

static void put_sites(struct fl_buf *out, const json_t *status)
{
    size_t i, online = 0;
    const json_t *item, *list = json_object_get(status, "workers");
    json_array_foreach(list, i, item)
    {
        const char *state = fl_member_text(item, "state");
        online += strcmp(state, "online") == 0 || strcmp(state, "training") == 0;
    }
    fl_buf_printf(out, "\n%-24s %-9s %9s   %zu of %zu online\n", "SITE", "STATE", "SEEN", online,
                  json_array_size(list));
    json_array_foreach(list, i, item) put_site(out, item);
    json_array_foreach(json_object_get(status, "refusals"), i, item)
    {
        fl_buf_printf(out, "refused by %s: ", fl_member_text(item, "worker"));
        put_text(out, fl_member_text(item, "reason"));
        fl_buf_printf(out, "\n");
    }
}

static enum fl_status look(const char *directory, struct fl_buf *out, struct fl_error *error)
{
    json_t *status = NULL, *versions = NULL;
    enum fl_status code = fl_control_call(directory, json_pack("{s:s}", "command", "status"),
                                          &status, error);
    if (code == FL_OK && json_is_integer(json_object_get(status, "job")))
        code = fl_control_call(directory,
                               json_pack("{s:s, s:I}", "command", "adapters.list", "job",
                                         (json_int_t)number_of(status, "job")),
                               &versions, error);
    if (code == FL_OK) {
        put_head(out, status);
        put_losses(out, json_object_get(versions, "versions"));
        put_sites(out, status);
        code = fl_buf_status(out);
        if (code != FL_OK)
            (void)fl_fail_memory(error);
    }
    json_decref(status);
    json_decref(versions);
    return code;
}

/* ---- the terminal ---- */

static size_t visible(const char *line, size_t bytes, size_t columns)
{
    size_t used = 0;
    for (size_t shown = 0; used < bytes && shown < columns; shown++) {
        size_t length = fl_utf8_length(line + used, bytes - used);
        used += length ? length : 1;
    }
    return used;
}

/* Over what stood there: each line cut to the width, the rest of it and of the screen cleared. */
static void redraw(const struct fl_buf *picture)
{
    struct winsize size = {.ws_row = 24, .ws_col = 80};
    struct fl_buf out;
    const char *text = fl_buf_text(picture);
    fl_buf_init(&out, 2 * PICTURE_MAX);
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0)
        size = (struct winsize){.ws_row = 24, .ws_col = 80};
    fl_buf_printf(&out, "\033[H");
    for (unsigned row = 0; *text && row + 1 < size.ws_row; row++) {
        size_t length = strcspn(text, "\n");
        fl_buf_append(&out, text, visible(text, length, size.ws_col));
        fl_buf_printf(&out, "\033[K\r\n");
        text += length + (text[length] == '\n');
    }
    fl_buf_printf(&out, "\033[J");
    if (fl_buf_status(&out) == FL_OK) {
        (void)fwrite(out.data, 1, out.length, stdout);
        (void)fflush(stdout);
    }
    fl_buf_free(&out);
}

/* Until Ctrl-C; a coordinator that does not answer is asked again. */
static int watch(const char *directory, int64_t interval_ms)
{
    struct sigaction action = {.sa_handler = on_signal};
    const struct timespec wait = {interval_ms / 1000, interval_ms % 1000 * 1000000};
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)printf("\033[?1049h\033[?25l"); /* a screen of its own, no cursor */
    while (!stop_asked && !ferror(stdout)) {
        struct fl_error error;
        struct fl_buf picture;
        fl_buf_init(&picture, PICTURE_MAX);
        if (look(directory, &picture, &error) != FL_OK) {
            fl_buf_free(&picture);
            fl_buf_init(&picture, PICTURE_MAX);
            put_text(&picture, error.text);
        }
        redraw(&picture);
        fl_buf_free(&picture);
        if (!stop_asked)
            (void)nanosleep(&wait, NULL);
    }
    (void)printf("\033[?25h\033[?1049l");
    (void)fflush(stdout);
    return 0;
}

static int once(const char *directory)
{
    struct fl_error error;
    struct fl_buf picture;
    fl_buf_init(&picture, PICTURE_MAX);
    enum fl_status status = look(directory, &picture, &error);
    if (status == FL_OK)
        (void)fwrite(picture.data, 1, picture.length, stdout);
    fl_buf_free(&picture);
    return status == FL_OK ? 0 : fl_cli_fail(FL_PROGRAM, &error);
}

int fl_cmd_top(int argc, char **argv)
{
    const char *directory = NULL;
    bool only_once = false;
    int64_t interval_ms = 1000;
    int code;
    const struct fl_option options[] = {
        {.name = "--dir",
         .value = "DIR",
         .kind = FL_OPTION_STRING,
         .target = &directory,
         .required = true,
         .doc = "the coordinator's directory"},
        {.name = "--interval",
         .value = "TIME",
         .kind = FL_OPTION_DURATION,
         .target = &interval_ms,
         .low = 200,
         .high = 3600000,
         .doc = "how often it is drawn (default: 1s)"},
        {.name = "--once",
         .kind = FL_OPTION_FLAG,
         .target = &only_once,
         .doc = "print it once, as where stdout is no terminal"},
    };
    const struct fl_usage usage = {.program = FL_PROGRAM " top",
                                   .summary = "Watch what the coordinator is doing, until Ctrl-C.",
                                   .example = FL_PROGRAM " top --dir coordinator",
                                   .options = options,
                                   .option_count = sizeof options / sizeof options[0]};
    if (!fl_cli_begin(&usage, argc, argv, &code))
        return code;
    return only_once || !isatty(STDOUT_FILENO) ? once(directory) : watch(directory, interval_ms);
}

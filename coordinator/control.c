/* control.c - see control.h: dispatch, and the way to a running daemon. */
#include "coordinator/control.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "coordinator/ops.h"
#include "net/zmq_transport.h"

#define CALL_MS  20000 /* for the whole of a command */
#define LINK_MS  1500  /* to reach the daemon */
#define ENDPOINT "ipc://control.sock"

static const struct {
    const char *name;
    fl_op_function run;
} operations[] = {
    {"invite", fl_op_invite},
    {"roster.list", fl_op_roster_list},
    {"roster.add", fl_op_roster_add},
    {"roster.revoke", fl_op_roster_revoke},
    {"job.submit", fl_op_job_submit},
    {"job.list", fl_op_job_list},
    {"job.show", fl_op_job_show},
    {"job.cancel", fl_op_job_cancel},
    {"job.resume", fl_op_job_resume},
    {"adapters.list", fl_op_adapters_list},
    {"adapters.get", fl_op_adapters_get},
    {"adapters.rollback", fl_op_adapters_rollback},
    {"status", fl_op_status},
    {"health", fl_op_health},
};

static enum fl_status dispatch(const struct fl_op *op, struct fl_error *error)
{
    const char *name;
    enum fl_status status = fl_op_text(op, "command", &name, error);
    if (status != FL_OK)
        return status;
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
        if (strcmp(operations[i].name, name) == 0)
            return operations[i].run(op, error);
    }
    return fl_fail(error, FL_EINVAL, "no command \"%s\"", name);
}

static json_t *refusal(enum fl_status status, const char *text)
{
    json_t *answer = json_object();
    if (answer && (fl_op_set(answer, "ok", json_false()) != FL_OK ||
                   fl_op_set(answer, "status", json_integer((json_int_t)status)) != FL_OK ||
                   fl_op_set(answer, "text", json_string(text)) != FL_OK)) {
        json_decref(answer);
        return NULL;
    }
    return answer;
}

void fl_control_handle(struct fl_desk *desk, const struct fl_live *live, const json_t *request,
                       json_t **answer)
{
    struct fl_error error = {FL_OK, ""};
    struct fl_op op = {desk, live, request, json_object()};
    *answer = NULL;
    if (!op.answer)
        return;
    enum fl_status status = json_is_object(request)
                                ? dispatch(&op, &error)
                                : fl_fail(&error, FL_EINVAL, "the request is no JSON object");
    if (status == FL_OK)
        status = fl_op_set(op.answer, "ok", json_true());
    if (status == FL_OK) {
        *answer = op.answer;
        return;
    }
    json_decref(op.answer);
    *answer = refusal(status, status == FL_ENOMEM ? "out of memory" : error.text);
}

enum fl_status fl_control_bytes(struct fl_desk *desk, const struct fl_live *live, const void *bytes,
                                size_t length, struct fl_buf *out)
{
    struct fl_error error;
    json_t *request = NULL, *answer = NULL;
    enum fl_status status = fl_json_parse(bytes, length, "request", &request, &error);
    if (status == FL_OK)
        fl_control_handle(desk, live, request, &answer);
    else
        answer = refusal(status, error.text);
    json_decref(request);
    if (!answer)
        return FL_ENOMEM;
    status = fl_json_append(out, answer);
    json_decref(answer);
    return status;
}

/* ---- the command's side ---- */

/* Send the request once the link is up, and gather the answer's parts. FL_EBUSY: try again. */
static enum fl_status converse(struct fl_link *link, const struct fl_buf *request,
                               struct fl_buf *answer, int64_t deadline_ms)
{
    bool sent = false;
    int64_t linked = fl_clock_now(fl_clock_system()) + LINK_MS;
    for (;;) {
        int64_t now = fl_clock_now(fl_clock_system());
        if (now >= deadline_ms || (!sent && now >= linked))
            return sent ? FL_ETIMEOUT : FL_EBUSY;
        struct fl_link_event event;
        enum fl_status status = fl_link_next(link, 200, &event);
        if (status == FL_ETIMEOUT)
            continue;
        if (status != FL_OK)
            return status;
        if (event.kind == FL_LINK_UP && !sent) {
            status = fl_link_send(link, request->data, request->length);
            if (status != FL_OK)
                return status;
            sent = true;
        } else if (event.kind == FL_LINK_DOWN || event.kind == FL_LINK_DENIED)
            return sent ? FL_EIO : FL_EBUSY;
        else if (event.kind == FL_LINK_FRAME && event.length > 0) {
            fl_buf_append(answer, event.frame + 1, event.length - 1);
            if (event.frame[0] == 'E')
                return fl_buf_status(answer);
        }
    }
}

static enum fl_status ask_daemon(const struct fl_buf *request, int64_t deadline_ms, json_t **answer,
                                 struct fl_error *error)
{
    const struct fl_link_config config = {.endpoint = ENDPOINT, .wake_fd = -1};
    struct fl_link *link = NULL;
    struct fl_buf text;
    fl_buf_init(&text, FL_CONTROL_ANSWER_BYTES);
    enum fl_status status = fl_link_open(&config, &link, error);
    if (status == FL_OK) {
        status = converse(link, request, &text, deadline_ms);
        if (status == FL_ERANGE)
            (void)fl_fail(error, status, "the request is too long");
        else if (status != FL_OK)
            (void)fl_fail(error, status, "the coordinator does not answer on control.sock");
    }
    if (status == FL_OK)
        status = fl_json_parse(fl_buf_text(&text), text.length, "answer", answer, error);
    fl_link_close(&link);
    fl_buf_free(&text);
    return status;
}

/* control.sock is reached by its name alone: the path of a socket has 108 bytes at most. */
static enum fl_status ask_there(const char *directory, const struct fl_buf *request,
                                int64_t deadline_ms, json_t **answer, struct fl_error *error)
{
    int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (here < 0)
        return fl_fail_errno(error, errno, "the working directory");
    enum fl_status status = FL_OK;
    if (chdir(directory) != 0)
        status = fl_fail_errno(error, errno, "%s", directory);
    if (status == FL_OK)
        status = ask_daemon(request, deadline_ms, answer, error);
    if (fchdir(here) != 0 && status == FL_OK)
        status = fl_fail_errno(error, errno, "the working directory");
    (void)close(here);
    return status;
}

static enum fl_status try_call(const char *directory, const json_t *request, int64_t deadline_ms,
                               json_t **answer, struct fl_error *error)
{
    struct fl_desk *desk;
    struct fl_buf text;
    enum fl_status status = fl_desk_open(directory, fl_clock_system(), &desk, error);
    if (status == FL_OK) {
        fl_control_handle(desk, NULL, request, answer);
        fl_desk_close(&desk);
        return *answer ? FL_OK : fl_fail_memory(error);
    }
    if (status != FL_EBUSY)
        return status;
    fl_buf_init(&text, FL_FRAME_BYTES_MAX);
    status = fl_json_append(&text, request);
    if (status == FL_OK)
        status = ask_there(directory, &text, deadline_ms, answer, error);
    else
        (void)fl_fail(error, status, "the request is too long");
    fl_buf_free(&text);
    return status;
}

static enum fl_status read_answer(json_t **answer, struct fl_error *error)
{
    if (json_is_true(json_object_get(*answer, "ok")))
        return FL_OK;
    json_int_t number = json_integer_value(json_object_get(*answer, "status"));
    const char *text = json_string_value(json_object_get(*answer, "text"));
    enum fl_status status = FL_EIO;
    if (number > FL_OK && number < FL_STATUS_COUNT)
        status = (enum fl_status)number;
    (void)fl_fail(error, status, "%s", text ? text : "the coordinator gave no reason");
    json_decref(*answer);
    *answer = NULL;
    return status;
}

enum fl_status fl_control_call(const char *directory, json_t *request, json_t **answer,
                               struct fl_error *error)
{
    int64_t deadline = fl_clock_now(fl_clock_system()) + CALL_MS;
    *answer = NULL;
    if (!request)
        return fl_fail_memory(error);
    enum fl_status status;
    do {
        status = try_call(directory, request, deadline, answer, error);
        if (status == FL_EBUSY)
            (void)usleep(20000); /* a daemon that starts or ends, or another command */
    } while (status == FL_EBUSY && fl_clock_now(fl_clock_system()) < deadline);
    json_decref(request);
    return status == FL_OK ? read_answer(answer, error) : status;
}

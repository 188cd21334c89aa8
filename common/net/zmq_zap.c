/*
 * zmq_zap.c - the ZAP 1.0 handler (ZeroMQ RFC 27): it decides by domain who may connect.
 *
 * "fedlora": sessions, by the roster. "fedlora-join": enrolment, any CURVE client, whose User-Id is
 * its key. Anything else is refused. The answer's User-Id is the only identity a peer ever has.
 */
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "net/zmq_internal.h"

enum {
    ZAP_VERSION,
    ZAP_ID,
    ZAP_DOMAIN,
    ZAP_ADDRESS,
    ZAP_IDENTITY,
    ZAP_MECHANISM,
    ZAP_KEY,
    ZAP_PARTS
};

struct request {
    uint8_t part[ZAP_PARTS][256];
    size_t length[ZAP_PARTS];
    bool bad;
};

/* false: no request waits */
static bool receive(void *rep, struct request *request)
{
    memset(request, 0, sizeof(*request));
    int more = 1;
    for (size_t i = 0; more; i++) {
        uint8_t spare[256];
        const bool extra = i >= ZAP_PARTS;
        size_t size = sizeof(more);
        const int n = zmq_recv(rep, extra ? spare : request->part[i], sizeof(spare), ZMQ_DONTWAIT);
        if (n < 0)
            return false;
        if (extra || n > 255)
            request->bad = true;
        else
            request->length[i] = (size_t)n;
        if (zmq_getsockopt(rep, ZMQ_RCVMORE, &more, &size) != 0)
            return false;
        if (!more && i + 1 < ZAP_PARTS)
            request->bad = true;
    }
    return true;
}

static bool part_is(const struct request *request, size_t part, const char *text)
{
    return request->length[part] == strlen(text) &&
           memcmp(request->part[part], text, strlen(text)) == 0;
}

static enum fl_zap_answer judge(const struct request *request, fl_zap_decide decide, void *context,
                                char *user)
{
    user[0] = '\0';
    if (request->bad || !part_is(request, ZAP_VERSION, "1.0") ||
        !part_is(request, ZAP_MECHANISM, "CURVE") || request->length[ZAP_KEY] != FL_KEY_BYTES)
        return FL_ZAP_DENY;
    if (part_is(request, ZAP_DOMAIN, FL_ZMQ_DOMAIN_JOIN)) {
        fl_hex(request->part[ZAP_KEY], FL_KEY_BYTES, user);
        return FL_ZAP_ALLOW;
    }
    if (!part_is(request, ZAP_DOMAIN, FL_ZMQ_DOMAIN_SESSION) || !decide)
        return FL_ZAP_DENY;
    const enum fl_zap_answer answer = decide(context, request->part[ZAP_KEY], user);
    user[FL_USER_BYTES - 1] = '\0';
    return answer == FL_ZAP_ALLOW && user[0] == '\0' ? FL_ZAP_DENY : answer;
}

static void reply(void *rep, const struct request *request, enum fl_zap_answer answer,
                  const char *user)
{
    static const char *const codes[] = {
        [FL_ZAP_ALLOW] = "200", [FL_ZAP_LOADING] = "300", [FL_ZAP_DENY] = "400"};
    const char *shown = answer == FL_ZAP_ALLOW ? user : "";
    (void)zmq_send(rep, "1.0", 3, ZMQ_SNDMORE);
    (void)zmq_send(rep, request->part[ZAP_ID], request->length[ZAP_ID], ZMQ_SNDMORE);
    (void)zmq_send(rep, codes[answer], 3, ZMQ_SNDMORE);
    (void)zmq_send(rep, "", 0, ZMQ_SNDMORE);
    (void)zmq_send(rep, shown, strlen(shown), ZMQ_SNDMORE);
    (void)zmq_send(rep, "", 0, 0);
}

void fl_zmq_zap_answer(void *rep, fl_zap_decide decide, void *context)
{
    struct request request;
    while (receive(rep, &request)) {
        char user[FL_USER_BYTES];
        const enum fl_zap_answer answer = judge(&request, decide, context, user);
        if (answer == FL_ZAP_DENY) {
            char address[64] = "";
            memcpy(address, request.part[ZAP_ADDRESS],
                   request.length[ZAP_ADDRESS] < sizeof(address) ? request.length[ZAP_ADDRESS]
                                                                 : sizeof(address) - 1);
            fl_log(FL_LOG_WARN, "peer_denied", "a key that is not in the roster was denied",
                   FL_STR("address", address));
        }
        reply(rep, &request, answer, user);
    }
}

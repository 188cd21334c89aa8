/*
 * access.h - where HTTP is served, and who may ask: an address, and a token where any but this
 * machine can reach it.
 *
 * A token is given as a password (RFC 7617, any user name: what a browser asks for) or as a bearer
 * token (RFC 6750: what Prometheus sends), never in a URL. It is held, and compared in constant
 * time, as a hash. Without a token only names of this machine are taken in Host: a page from
 * elsewhere that had its own name resolve to 127.0.0.1 would be read by it otherwise (DNS
 * rebinding).
 * Threads: constant once opened.
 */
#ifndef FL_WEB_ACCESS_H
#define FL_WEB_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/hash.h"
#include "base/status.h"
#include "web/limits.h"

#define FL_WEB_TOKEN_BYTES_MIN 16
#define FL_WEB_TOKEN_BYTES_MAX 160

struct fl_web_access {
    struct sockaddr_storage address;
    socklen_t address_length;
    bool loopback; /* only this machine reaches it */
    bool has_token;
    uint8_t token[FL_HASH_BYTES]; /* its BLAKE2b */
};

enum fl_web_decision {
    FL_WEB_ALLOWED,
    FL_WEB_NO_TOKEN,    /* none was given */
    FL_WEB_WRONG_TOKEN, /* a wrong one, or in a form that is not understood */
    FL_WEB_OTHER_HOST   /* asked for under a name that is not this machine's */
};

/*
 * listen: HOST:PORT; HOST an IPv4 address, an IPv6 address in brackets, or localhost. token_path:
 * a file with the token, "" for none; it is held to the rules of key files. FL_EFORMAT: no address;
 * FL_EREFUSED: others can reach it and there is no token, or others can read the token; FL_ERANGE:
 * the token is too short or too long.
 */
FL_CHECKED enum fl_status fl_web_access_open(const char *listen, const char *token_path,
                                             struct fl_web_access *out, struct fl_error *error);
/* host, authorization: the headers' values, NULL where a request has none. */
enum fl_web_decision fl_web_access_decide(const struct fl_web_access *self, const char *host,
                                          const char *authorization);

#endif

/* access.c - see access.h. */
#include "web/access.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "crypto/keys.h"

#define BASIC_BYTES_MAX 512 /* of a user name and a token, decoded */

static enum fl_status bad_listen(const char *listen, struct fl_error *error)
{
    return fl_fail(error, FL_EFORMAT,
                   "[http] listen = %.100s: not HOST:PORT with a numeric address or localhost, "
                   "such as 127.0.0.1:7480",
                   listen);
}

static bool is_loopback_v4(uint32_t network_order)
{
    return ntohl(network_order) >> 24 == 127;
}

static enum fl_status set_v4(const char *host, uint16_t port, struct fl_web_access *out)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, &in.sin_addr) != 1)
        return FL_EFORMAT;
    memcpy(&out->address, &in, sizeof in);
    out->address_length = sizeof in;
    out->loopback = is_loopback_v4(in.sin_addr.s_addr);
    return FL_OK;
}

static enum fl_status set_v6(const char *host, uint16_t port, struct fl_web_access *out)
{
    struct sockaddr_in6 in = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    uint32_t last;
    if (inet_pton(AF_INET6, host, &in.sin6_addr) != 1)
        return FL_EFORMAT;
    memcpy(&out->address, &in, sizeof in);
    out->address_length = sizeof in;
    memcpy(&last, in.sin6_addr.s6_addr + 12, sizeof last);
    out->loopback = IN6_IS_ADDR_LOOPBACK(&in.sin6_addr) ||
                    (IN6_IS_ADDR_V4MAPPED(&in.sin6_addr) && is_loopback_v4(last));
    return FL_OK;
}

static enum fl_status parse_listen(const char *listen, struct fl_web_access *out,
                                   struct fl_error *error)
{
    char host[FL_WEB_LISTEN_BYTES];
    uint64_t port;
    const char *colon = strrchr(listen, ':');
    if (!colon || (size_t)(colon - listen) >= sizeof host ||
        fl_parse_u64(colon + 1, 0, 65535, &port) != FL_OK)
        return bad_listen(listen, error);
    size_t length = (size_t)(colon - listen);
    bool brackets = length > 2 && listen[0] == '[' && listen[length - 1] == ']';
    (void)snprintf(host, sizeof host, "%.*s", (int)(brackets ? length - 2 : length),
                   listen + brackets);
    enum fl_status status = brackets ? set_v6(host, (uint16_t)port, out)
                                     : set_v4(host, (uint16_t)port, out);
    return status == FL_OK ? FL_OK : bad_listen(listen, error);
}

static void hash_token(const char *token, size_t length, uint8_t out[FL_HASH_BYTES])
{
    struct fl_blake2b hash;
    fl_blake2b_init(&hash, NULL, 0);
    fl_blake2b_update(&hash, token, length);
    fl_blake2b_final(&hash, out);
}

static enum fl_status load_token(const char *path, struct fl_web_access *out,
                                 struct fl_error *error)
{
    char text[FL_SECRET_TEXT_BYTES];
    enum fl_status status = fl_secret_text_load(path, text, error);
    if (status == FL_ENOTFOUND)
        return fl_fail(error, status,
                       "[http] token_file = %s is not there; make it: umask 077; head -c 24 "
                       "/dev/urandom | base64 > %s",
                       path, path);
    size_t length = status == FL_OK ? strcspn(text, "\r\n") : 0;
    size_t rest = status == FL_OK ? strspn(text + length, "\r\n") : 0;
    if (status == FL_OK && text[length + rest] != '\0')
        status = fl_fail(error, FL_EFORMAT, "%s: a token is one line", path);
    for (size_t i = 0; status == FL_OK && i < length; i++) {
        if (text[i] <= ' ' || text[i] > '~')
            status = fl_fail(error, FL_EFORMAT,
                             "%s: a token has printable ASCII characters only, and no spaces",
                             path);
    }
    if (status == FL_OK && (length < FL_WEB_TOKEN_BYTES_MIN || length > FL_WEB_TOKEN_BYTES_MAX))
        status = fl_fail(error, FL_ERANGE, "%s: a token has %d to %d characters, this one %zu",
                         path, FL_WEB_TOKEN_BYTES_MIN, FL_WEB_TOKEN_BYTES_MAX, length);
    if (status == FL_OK) {
        hash_token(text, length, out->token);
        out->has_token = true;
    }
    sodium_memzero(text, sizeof text);
    return status;
}

enum fl_status fl_web_access_open(const char *listen, const char *token_path,
                                  struct fl_web_access *out, struct fl_error *error)
{
    memset(out, 0, sizeof *out);
    enum fl_status status = parse_listen(listen, out, error);
    if (status == FL_OK && token_path[0])
        status = load_token(token_path, out, error);
    if (status == FL_OK && !out->loopback && !out->has_token)
        status = fl_fail(error, FL_EREFUSED,
                         "[http] listen = %s: other machines can reach it, and [http] token_file "
                         "is not set; make one (umask 077; head -c 24 /dev/urandom | base64 > "
                         "FILE) and name it there, or listen on 127.0.0.1",
                         listen);
    return status;
}

/* ---- requests ---- */

/* "NAME", "NAME:PORT", "[V6]:PORT": is NAME one that only this machine has? */
static bool is_own_name(const char *host)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t length = strlen(names[i]);
        if (strncasecmp(host, names[i], length) == 0 &&
            (host[length] == '\0' || host[length] == ':'))
            return true;
    }
    return false;
}

static bool token_fits(const struct fl_web_access *self, const char *token, size_t length)
{
    uint8_t hash[FL_HASH_BYTES];
    hash_token(token, length, hash);
    return sodium_memcmp(hash, self->token, sizeof hash) == 0;
}

static bool basic_fits(const struct fl_web_access *self, const char *text)
{
    char plain[BASIC_BYTES_MAX];
    size_t length = 0;
    bool fits = false;
    if (sodium_base642bin((uint8_t *)plain, sizeof plain - 1, text, strlen(text), NULL, &length,
                          NULL, sodium_base64_VARIANT_ORIGINAL) == 0) {
        plain[length] = '\0';
        const char *colon = memchr(plain, ':', length);
        fits = colon && token_fits(self, colon + 1, length - (size_t)(colon + 1 - plain));
    }
    sodium_memzero(plain, sizeof plain);
    return fits;
}

static bool is_scheme(const char *authorization, const char *scheme, const char **rest)
{
    size_t length = strlen(scheme);
    if (strncasecmp(authorization, scheme, length) != 0 || authorization[length] != ' ')
        return false;
    *rest = authorization + length + strspn(authorization + length, " ");
    return true;
}

enum fl_web_decision fl_web_access_decide(const struct fl_web_access *self, const char *host,
                                          const char *authorization)
{
    const char *rest;
    if (!self->has_token)
        return host && is_own_name(host) ? FL_WEB_ALLOWED : FL_WEB_OTHER_HOST;
    if (!authorization)
        return FL_WEB_NO_TOKEN;
    if (is_scheme(authorization, "Bearer", &rest))
        return token_fits(self, rest, strlen(rest)) ? FL_WEB_ALLOWED : FL_WEB_WRONG_TOKEN;
    if (is_scheme(authorization, "Basic", &rest))
        return basic_fits(self, rest) ? FL_WEB_ALLOWED : FL_WEB_WRONG_TOKEN;
    return FL_WEB_WRONG_TOKEN;
}

/*
 * proxy.c - a bad network in one process: forwards TCP connections on 127.0.0.1 and spoils them as
 * it is told. One thread, one poll loop; what is random comes from the seed.
 *
 *   proxy LISTEN_PORT TARGET_PORT SEED
 *
 * Commands, a line each on stdin (its end ends the proxy); "up" is from those who dial to TARGET:
 *   KIND up|down N     once, at the Nth byte from now in that direction (0: the next)
 *   KIND random MEAN   at random, every MEAN bytes on average, both directions; 0: no more
 *   cut | reset        all connections, now
 *   delay LOW HIGH     each piece of at most 16 KiB waits that many milliseconds
 *   stall MS           nothing passes for so long, and connections stay open; 0: it passes again
 *   stats WORD         a line of JSON on stdout with the bytes that passed; WORD names it
 * KIND: cut (the connection ends in order), reset (it ends with RST), flip (one bit of the byte),
 * skip (1 to 64 bytes never arrive), hold (nothing passes on that connection for 200 ms).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PIECE_BYTES  16384
#define PAIRS_MAX    256
#define NEVER        UINT64_MAX
#define HOLD_MS      200
#define FAREWELL_MS  2000 /* a connection that was cut in order is closed by then */
#define FAULT_FLAGS  (MSG_DONTWAIT | MSG_NOSIGNAL)
#define COMMAND_WORD 32

enum kind { KIND_CUT, KIND_RESET, KIND_FLIP, KIND_SKIP, KIND_HOLD, KIND_COUNT };
static const char *const kind_names[KIND_COUNT] = {"cut", "reset", "flip", "skip", "hold"};

enum side { UP, DOWN }; /* the side that a piece comes from: who dialled, or the target */

struct piece {
    uint8_t bytes[PIECE_BYTES];
    size_t length, sent;
    int64_t ready_ms;
    bool ended; /* its source has said all */
    bool closed;
};

struct pair {
    int fd[2]; /* who dialled, the target; -1: the slot is free */
    struct piece piece[2];
    bool connecting, dying, resets;
    int64_t close_ms;
};

static struct pair pairs[PAIRS_MAX];
static uint64_t taken[2], passed[2]; /* bytes read, and forwarded */
static uint64_t at[KIND_COUNT][2];   /* in terms of taken[] */
static uint64_t mean[KIND_COUNT];
static uint64_t done[KIND_COUNT], dialled;
static uint64_t state; /* of the generator */
static int64_t delay_low_ms, delay_high_ms, stalled_until_ms;
static uint16_t target_port;

static uint64_t draw(uint64_t below) /* splitmix64; below > 0 */
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

static int64_t now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void draw_next(enum kind kind, enum side side)
{
    at[kind][side] = mean[kind] ? taken[side] + 1 + draw(2 * mean[kind]) : NEVER;
}

/* ---- connections ---- */

static void close_pair(struct pair *self)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    for (int side = UP; side <= DOWN; side++) {
        if (self->resets)
            (void)setsockopt(self->fd[side], SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        (void)close(self->fd[side]);
        self->fd[side] = -1;
    }
}

/* In order: what was forwarded still arrives; what comes later is read and forgotten. */
static void cut_pair(struct pair *self)
{
    self->dying = true;
    self->close_ms = now_ms() + FAREWELL_MS;
    (void)shutdown(self->fd[UP], SHUT_WR);
    (void)shutdown(self->fd[DOWN], SHUT_WR);
}

static void reset_pair(struct pair *self)
{
    self->resets = true;
    close_pair(self);
}

static int local_socket(uint16_t port, struct sockaddr_in *address)
{
    *address = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static void accept_one(int listener)
{
    struct sockaddr_in address;
    int yes = 1, fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    struct pair *self = NULL;
    for (int i = 0; i < PAIRS_MAX && !self; i++)
        self = pairs[i].fd[UP] < 0 ? &pairs[i] : NULL;
    int to = self ? local_socket(target_port, &address) : -1;
    if (to < 0) {
        (void)close(fd);
        return;
    }
    memset(self, 0, sizeof *self);
    self->fd[UP] = fd;
    self->fd[DOWN] = to;
    self->connecting = true;
    dialled++;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    (void)setsockopt(to, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(to, (const struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS)
        close_pair(self);
}

/* ---- bytes ---- */

/* One fault at offset of a fresh piece. What follows a cut is not forwarded. */
static void spoil(struct pair *self, struct piece *piece, enum kind kind, size_t offset)
{
    done[kind]++;
    if (kind == KIND_FLIP) {
        piece->bytes[offset] ^= (uint8_t)(1u << draw(8));
    } else if (kind == KIND_SKIP) {
        size_t count = 1 + draw(64);
        count = count < piece->length - offset ? count : piece->length - offset;
        memmove(piece->bytes + offset, piece->bytes + offset + count,
                piece->length - offset - count);
        piece->length -= count;
    } else if (kind == KIND_HOLD) {
        piece->ready_ms += HOLD_MS;
    } else {
        piece->length = offset;
        piece->closed = true;
        self->resets = kind == KIND_RESET;
    }
}

static void spoil_piece(struct pair *self, enum side side)
{
    struct piece *piece = &self->piece[side];
    uint64_t start = taken[side];
    taken[side] += piece->length;
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        if (at[kind][side] >= taken[side])
            continue;
        uint64_t offset = at[kind][side] > start ? at[kind][side] - start : 0;
        if (offset < piece->length && !piece->closed)
            spoil(self, piece, (enum kind)kind, (size_t)offset);
        draw_next((enum kind)kind, side);
    }
}

static void take(struct pair *self, enum side side)
{
    struct piece *piece = &self->piece[side];
    ssize_t got = recv(self->fd[side], piece->bytes, PIECE_BYTES, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (self->dying) {
        piece->ended = piece->ended || got <= 0;
        if (self->piece[UP].ended && self->piece[DOWN].ended)
            close_pair(self);
        return;
    }
    if (got < 0) {
        reset_pair(self);
        return;
    }
    piece->ended = got == 0;
    piece->length = (size_t)got;
    piece->sent = 0;
    piece->ready_ms = now_ms() + delay_low_ms;
    if (delay_high_ms > delay_low_ms)
        piece->ready_ms += (int64_t)draw((uint64_t)(delay_high_ms - delay_low_ms) + 1);
    spoil_piece(self, side);
}

/* Forward what is ready; then the fault or the end that was to follow it. */
static void give(struct pair *self, enum side side)
{
    struct piece *piece = &self->piece[side];
    if (piece->sent < piece->length) {
        ssize_t put = send(self->fd[!side], piece->bytes + piece->sent, piece->length - piece->sent,
                           FAULT_FLAGS);
        if (put < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (put < 0) {
            reset_pair(self);
            return;
        }
        piece->sent += (size_t)put;
        passed[side] += (uint64_t)put;
    }
    if (piece->sent < piece->length)
        return;
    piece->length = piece->sent = 0;
    if (piece->closed && self->resets)
        close_pair(self);
    else if (piece->closed || piece->ended)
        cut_pair(self);
}

static bool has_work(const struct piece *piece)
{
    return piece->length > 0 || piece->closed || piece->ended;
}

/* ---- commands ---- */

static void end_all(bool reset)
{
    for (int i = 0; i < PAIRS_MAX; i++) {
        if (pairs[i].fd[UP] < 0 || pairs[i].dying)
            continue;
        done[reset ? KIND_RESET : KIND_CUT]++;
        if (reset)
            reset_pair(&pairs[i]);
        else
            cut_pair(&pairs[i]);
    }
}

static void print_stats(const char *word)
{
    printf("{\"stats\":\"%s\",\"up\":%" PRIu64 ",\"down\":%" PRIu64 ",\"connections\":%" PRIu64,
           word, passed[UP], passed[DOWN], dialled);
    for (int kind = 0; kind < KIND_COUNT; kind++)
        printf(",\"%s\":%" PRIu64, kind_names[kind], done[kind]);
    printf("}\n");
}

static bool command_kind(enum kind kind, int words, const char *where, uint64_t number)
{
    if (words == 1 && kind <= KIND_RESET) {
        end_all(kind == KIND_RESET);
    } else if (words == 3 && strcmp(where, "random") == 0) {
        mean[kind] = number;
        draw_next(kind, UP);
        draw_next(kind, DOWN);
    } else if (words == 3 && (strcmp(where, "up") == 0 || strcmp(where, "down") == 0)) {
        enum side side = where[0] == 'u' ? UP : DOWN;
        at[kind][side] = taken[side] + number;
    } else {
        return false;
    }
    return true;
}

static bool command(const char *line)
{
    char verb[COMMAND_WORD] = "", where[COMMAND_WORD] = "";
    uint64_t number = 0;
    int words = sscanf(line, "%31s %31s %" SCNu64, verb, where, &number);
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        if (strcmp(verb, kind_names[kind]) == 0)
            return command_kind((enum kind)kind, words, where, number);
    }
    if (strcmp(verb, "stats") == 0 && words == 2) {
        print_stats(where);
    } else if (strcmp(verb, "stall") == 0 && words == 2) {
        stalled_until_ms = now_ms() + strtoll(where, NULL, 10);
    } else if (strcmp(verb, "delay") == 0 && words == 3) {
        delay_low_ms = strtoll(where, NULL, 10);
        delay_high_ms = (int64_t)number;
    } else {
        return false;
    }
    return true;
}

/* false: stdin has ended */
static bool read_commands(void)
{
    static char text[4096];
    static size_t length;
    ssize_t got = read(STDIN_FILENO, text + length, sizeof text - 1 - length);
    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    length += (size_t)got;
    text[length] = '\0';
    char *line = text;
    for (char *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = '\0';
        printf("%s: %s\n", command(line) ? "ok" : "not understood", line);
    }
    length -= (size_t)(line - text);
    memmove(text, line, length);
    return length < sizeof text - 1;
}

/* ---- the loop ---- */

/* What to wait for at one end: 0 while the other cannot take more, or the time has not come. */
static short wanted(const struct pair *self, enum side side, int64_t now, int64_t *next)
{
    const struct piece *in = &self->piece[side], *out = &self->piece[!side];
    short events = 0;
    if (self->connecting)
        return side == DOWN ? POLLOUT : 0;
    if (self->dying)
        return in->ended ? 0 : POLLIN;
    if (now < stalled_until_ms) {
        *next = *next < stalled_until_ms ? *next : stalled_until_ms;
        return 0;
    }
    if (!has_work(in))
        events |= POLLIN;
    if (has_work(out) && now >= out->ready_ms)
        events |= POLLOUT;
    else if (has_work(out))
        *next = *next < out->ready_ms ? *next : out->ready_ms;
    return events;
}

static void serve_pair(struct pair *self, const struct pollfd *ends, int64_t now)
{
    if (self->connecting) {
        int reason = 0;
        socklen_t length = sizeof reason;
        if (ends[DOWN].revents == 0)
            return;
        self->connecting = false;
        if (getsockopt(self->fd[DOWN], SOL_SOCKET, SO_ERROR, &reason, &length) != 0 || reason)
            reset_pair(self);
        return;
    }
    for (int side = UP; side <= DOWN && self->fd[UP] >= 0; side++) {
        short wants = ends[side].events, has = ends[side].revents;
        if ((wants & POLLIN) && (has & (POLLIN | POLLHUP | POLLERR)))
            take(self, (enum side)side);
        if (self->fd[UP] >= 0 && !self->dying && (wants & POLLOUT) &&
            (has & (POLLOUT | POLLHUP | POLLERR)))
            give(self, side == UP ? DOWN : UP);
        if (self->fd[UP] >= 0 && wants == 0 && (has & POLLERR))
            reset_pair(self);
    }
    if (self->fd[UP] >= 0 && self->dying && now >= self->close_ms)
        close_pair(self);
}

static void run(int listener)
{
    static struct pollfd polls[2 + 2 * PAIRS_MAX];
    for (;;) {
        int64_t now = now_ms(), next = now + 500;
        polls[0] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
        polls[1] = (struct pollfd){.fd = listener, .events = POLLIN};
        for (int i = 0; i < PAIRS_MAX; i++) {
            for (int side = UP; side <= DOWN; side++) {
                struct pollfd *p = &polls[2 + 2 * i + side];
                *p = (struct pollfd){.fd = pairs[i].fd[side]};
                if (p->fd >= 0)
                    p->events = wanted(&pairs[i], (enum side)side, now, &next);
                if (p->events == 0) /* not even its end is of interest yet */
                    p->fd = -1;
            }
        }
        if (poll(polls, 2 + 2 * PAIRS_MAX, (int)(next - now)) < 0 && errno != EINTR)
            return;
        for (int i = 0; i < PAIRS_MAX; i++) {
            if (pairs[i].fd[UP] >= 0)
                serve_pair(&pairs[i], &polls[2 + 2 * i], now_ms());
        }
        if (polls[1].revents)
            accept_one(listener);
        if (polls[0].revents && !read_commands())
            return;
        (void)fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address;
    int yes = 1;
    if (argc != 4) {
        fprintf(stderr, "usage: proxy LISTEN_PORT TARGET_PORT SEED\n");
        return 2;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    target_port = (uint16_t)strtoul(argv[2], NULL, 10);
    state = strtoull(argv[3], NULL, 10);
    for (int i = 0; i < PAIRS_MAX; i++)
        pairs[i].fd[UP] = pairs[i].fd[DOWN] = -1;
    for (int kind = 0; kind < KIND_COUNT; kind++)
        at[kind][UP] = at[kind][DOWN] = NEVER;
    int listener = local_socket((uint16_t)strtoul(argv[1], NULL, 10), &address);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
        bind(listener, (const struct sockaddr *)&address, sizeof address) != 0 ||
        listen(listener, 64) != 0) {
        perror("proxy");
        return 1;
    }
    printf("listening\n");
    (void)fflush(stdout);
    run(listener);
    return 0;
}

/*
 * pattern.c - see pattern.h. The parser emits states while it reads; an atom that is repeated is
 * read again for each copy, so there is no tree. Every loop is bounded by the number of states or
 * by the budget of atoms.
 */
#include "format/pattern.h"

#include <stdint.h>
#include <string.h>

#include "base/alloc.h"

#define ATOMS_MAX   16384u /* read in all, copies counted */
#define DEPTH_MAX   32u    /* groups in groups */
#define REPEAT_MAX  1000u
#define CLASSES_MAX 64u
#define UNBOUNDED   UINT32_MAX
#define NOWHERE     UINT16_MAX /* no state has this index */

enum op { OP_CHAR, OP_ANY, OP_CLASS, OP_SPLIT, OP_JUMP, OP_MATCH };

struct state {
    uint8_t op;
    uint8_t value; /* OP_CHAR: the byte; OP_CLASS: its index */
    uint16_t x, y; /* where OP_SPLIT and OP_JUMP go */
};

struct class
{
    uint8_t bits[32];
};

struct fl_pattern {
    struct state *states; /* (count), owned; the last one is OP_MATCH */
    uint32_t count;
    uint32_t classes_used;
    bool anchored; /* "^" in front */
    struct class classes[CLASSES_MAX];
};

struct parser {
    const char *at;
    const char *wrong; /* the first failure */
    struct fl_pattern *out;
    uint32_t atoms, depth;
};

static void fail(struct parser *p, const char *why)
{
    if (!p->wrong)
        p->wrong = why;
}

static uint32_t emit(struct parser *p, enum op op, uint32_t value)
{
    if (p->wrong)
        return 0;
    if (p->out->count >= FL_PATTERN_STATES_MAX) {
        fail(p, "it is too large");
        return 0;
    }
    struct state *s = &p->out->states[p->out->count];
    *s = (struct state){.op = (uint8_t)op, .value = (uint8_t)value};
    return p->out->count++;
}

/* ---- classes ---- */

static void add_range(struct class *c, unsigned low, unsigned high)
{
    for (unsigned b = low; b <= high; b++)
        c->bits[b / 8] = (uint8_t)(c->bits[b / 8] | 1u << (b % 8));
}

static void invert(struct class *c)
{
    for (unsigned i = 0; i < sizeof(c->bits); i++)
        c->bits[i] = (uint8_t)~c->bits[i];
}

/* \d, \w, \s and \D, \W, \S into c; false: another letter. */
static bool add_named(struct class *c, char letter)
{
    struct class named = {{0}};
    switch (letter | 0x20) {
    case 'd':
        add_range(&named, '0', '9');
        break;
    case 'w':
        add_range(&named, '0', '9');
        add_range(&named, 'a', 'z');
        add_range(&named, 'A', 'Z');
        add_range(&named, '_', '_');
        break;
    case 's':
        add_range(&named, ' ', ' ');
        add_range(&named, '\t', '\r');
        break;
    default:
        return false;
    }
    if (letter < 'a')
        invert(&named);
    for (unsigned i = 0; i < sizeof(c->bits); i++)
        c->bits[i] = (uint8_t)(c->bits[i] | named.bits[i]);
    return true;
}

/* The state of a class; copies of an atom share it. */
static void emit_class(struct parser *p, const struct class *c)
{
    uint32_t i = 0;
    while (i < p->out->classes_used && memcmp(&p->out->classes[i], c, sizeof(*c)) != 0)
        i++;
    if (i == CLASSES_MAX) {
        fail(p, "too many classes");
        return;
    }
    p->out->classes[i] = *c;
    p->out->classes_used += i == p->out->classes_used;
    (void)emit(p, OP_CLASS, i);
}

static bool is_punctuation(char byte)
{
    return byte && strchr("\\.[]{}()*+?|^$-_/ ", byte) != NULL;
}

static bool is_alphanumeric(char byte)
{
    return (byte >= '0' && byte <= '9') || ((byte | 0x20) >= 'a' && (byte | 0x20) <= 'z');
}

/* One member of [...], at the parser's place: its byte, or -1 after a named class or a failure. */
static int class_member(struct parser *p, struct class *c)
{
    char byte = *p->at++;
    if (byte != '\\')
        return (uint8_t)byte;
    byte = *p->at;
    if (add_named(c, byte)) {
        p->at++;
        return -1;
    }
    if (!is_punctuation(byte)) {
        fail(p, "an escape in a class");
        return -1;
    }
    p->at++;
    return (uint8_t)byte;
}

static void parse_class(struct parser *p)
{
    struct class c = {{0}};
    bool inverted = *p->at == '^', first = true;
    p->at += inverted;
    while (!p->wrong && (first || *p->at != ']')) {
        first = false;
        if (!*p->at) {
            fail(p, "a class that does not end");
            return;
        }
        int low = class_member(p, &c);
        if (low < 0)
            continue;
        int high = low;
        if (p->at[0] == '-' && p->at[1] && p->at[1] != ']') {
            p->at++;
            high = class_member(p, &c);
            if (high < low)
                fail(p, "a range in a class");
        }
        if (!p->wrong)
            add_range(&c, (unsigned)low, (unsigned)high);
    }
    p->at += !p->wrong;
    if (inverted)
        invert(&c);
    if (!p->wrong)
        emit_class(p, &c);
}

static void parse_escape(struct parser *p)
{
    struct class c = {{0}};
    char byte = *p->at;
    if (add_named(&c, byte)) {
        p->at++;
        emit_class(p, &c);
    } else if (byte && !is_alphanumeric(byte)) {
        p->at++;
        (void)emit(p, OP_CHAR, (uint8_t)byte);
    } else {
        fail(p, "an escape that is not known here");
    }
}

/* ---- atoms, repetition, alternatives ---- */

static const char *skip_class(const char *at)
{
    at += *at == '^';
    for (bool first = true; *at && (first || *at != ']'); first = false)
        at += at[0] == '\\' && at[1] ? 2 : 1;
    return *at ? at + 1 : at;
}

/* The end of the atom that begins at `at`. */
static const char *skip_atom(const char *at)
{
    uint32_t depth = 0;
    do {
        if (!*at)
            return at;
        char byte = *at++;
        if (byte == '\\' && *at)
            at++;
        else if (byte == '[')
            at = skip_class(at);
        else if (byte == '(')
            depth++;
        else if (byte == ')' && depth > 0)
            depth--;
    } while (depth > 0);
    return at;
}

static void parse_alternatives(struct parser *p);

static void parse_group(struct parser *p)
{
    if (p->at[0] == '?' && p->at[1] == ':')
        p->at += 2;
    else if (p->at[0] == '?')
        fail(p, "a group that is not plain");
    if (++p->depth > DEPTH_MAX)
        fail(p, "groups too deep");
    parse_alternatives(p);
    p->depth--;
    if (*p->at != ')')
        fail(p, "a group that does not end");
    p->at += !p->wrong;
}

static void parse_atom(struct parser *p)
{
    if (++p->atoms > ATOMS_MAX)
        fail(p, "it is too large");
    if (p->wrong)
        return;
    char byte = *p->at++;
    if (byte == '(')
        parse_group(p);
    else if (byte == '[')
        parse_class(p);
    else if (byte == '\\')
        parse_escape(p);
    else if (byte == '.')
        (void)emit(p, OP_ANY, 0);
    else if (strchr("*+?{^$", byte))
        fail(p, "a sign at a place that is not known here");
    else
        (void)emit(p, OP_CHAR, (uint8_t)byte);
}

static uint32_t parse_count(struct parser *p, uint32_t absent)
{
    uint32_t value = 0;
    if (*p->at < '0' || *p->at > '9')
        return absent;
    while (*p->at >= '0' && *p->at <= '9' && value <= REPEAT_MAX)
        value = value * 10 + (uint32_t)(*p->at++ - '0');
    if (value > REPEAT_MAX)
        fail(p, "a repetition that is too long");
    return value;
}

/* What follows an atom: the least and the largest number of times. */
static void parse_repeat(struct parser *p, uint32_t *least, uint32_t *most)
{
    char sign = *p->at;
    *least = sign == '*' || sign == '?' ? 0 : 1;
    *most = sign == '*' || sign == '+' ? UNBOUNDED : 1;
    if (sign != '*' && sign != '+' && sign != '?' && sign != '{')
        return;
    p->at++;
    if (sign == '{') {
        *least = parse_count(p, UNBOUNDED);
        *most = *least;
        if (*p->at == ',') {
            p->at++;
            *most = parse_count(p, UNBOUNDED);
        }
        if (*least == UNBOUNDED || *least > *most || *p->at != '}')
            fail(p, "a repetition in braces");
        p->at += !p->wrong;
    }
    p->at += *p->at == '?'; /* lazy: another order, the same answer */
    if (*p->at && strchr("*+?{", *p->at))
        fail(p, "a repeated repetition");
}

static void set_target(struct parser *p, uint32_t state, uint32_t x, uint32_t y)
{
    if (p->wrong)
        return;
    p->out->states[state].x = (uint16_t)x;
    p->out->states[state].y = (uint16_t)y;
}

/* The atom at `from` once more, wherever the parser stands. */
static void copy_atom(struct parser *p, const char *from)
{
    const char *here = p->at;
    p->at = from;
    parse_atom(p);
    p->at = here;
}

/* Copies that may each be left out; which of them are taken makes no difference. */
static void optional_copies(struct parser *p, const char *from, uint32_t copies)
{
    for (uint32_t i = 0; i < copies && !p->wrong; i++) {
        uint32_t split = emit(p, OP_SPLIT, 0);
        copy_atom(p, from);
        set_target(p, split, split + 1, p->out->count);
    }
}

static void parse_repeated(struct parser *p)
{
    const char *from = p->at;
    uint32_t least, most;
    p->at = skip_atom(from);
    parse_repeat(p, &least, &most);
    for (uint32_t i = 0; i < least && !p->wrong; i++)
        copy_atom(p, from);
    if (most == UNBOUNDED) {
        uint32_t split = emit(p, OP_SPLIT, 0);
        copy_atom(p, from);
        uint32_t jump = emit(p, OP_JUMP, 0);
        set_target(p, jump, split, split);
        set_target(p, split, split + 1, jump + 1);
    } else {
        optional_copies(p, from, most - least);
    }
}

static bool at_end(const struct parser *p)
{
    return *p->at == '\0' || *p->at == '|' || *p->at == ')';
}

static void parse_sequence(struct parser *p)
{
    while (!p->wrong && !at_end(p))
        parse_repeated(p);
}

/* Is there a '|' of this level ahead? */
static bool more_alternatives(const char *at)
{
    while (*at && *at != ')' && *at != '|')
        at = skip_atom(at);
    return *at == '|';
}

static void parse_alternatives(struct parser *p)
{
    uint32_t last = NOWHERE; /* the jumps behind the alternatives, chained through their y */
    while (!p->wrong && more_alternatives(p->at)) {
        uint32_t split = emit(p, OP_SPLIT, 0);
        parse_sequence(p);
        uint32_t join = emit(p, OP_JUMP, 0);
        set_target(p, split, split + 1, join + 1);
        set_target(p, join, 0, last);
        last = join;
        p->at += !p->wrong; /* the '|' */
    }
    parse_sequence(p);
    while (!p->wrong && last != NOWHERE) {
        uint32_t before = p->out->states[last].y;
        set_target(p, last, p->out->count, p->out->count);
        last = before;
    }
}

/* ---- the whole ---- */

/* "^" in front and "$" behind say what is asked anyway; only where they bind the whole pattern. */
static bool trim(const char *source, char *text, bool *anchored)
{
    size_t length = strlen(source);
    if (length >= FL_PATTERN_BYTES_MAX)
        return false;
    memcpy(text, source, length + 1);
    if (more_alternatives(source))
        return true;
    if (length > 0 && text[length - 1] == '$' && (length < 2 || text[length - 2] != '\\'))
        text[--length] = '\0';
    *anchored = text[0] == '^';
    if (*anchored)
        memmove(text, text + 1, length);
    return true;
}

enum fl_status fl_pattern_compile(const char *source, struct fl_pattern **out,
                                  struct fl_error *error)
{
    char text[FL_PATTERN_BYTES_MAX];
    bool anchored = false;
    *out = NULL;
    if (!trim(source, text, &anchored))
        return fl_fail(error, FL_EFORMAT, "a pattern of more than %u bytes", FL_PATTERN_BYTES_MAX);
    struct fl_pattern *self = fl_calloc(1, sizeof(*self));
    if (self)
        self->states = fl_calloc(FL_PATTERN_STATES_MAX, sizeof(*self->states));
    if (!self || !self->states) {
        fl_pattern_free(&self);
        return fl_fail_memory(error);
    }
    self->anchored = anchored;
    struct parser p = {.at = text, .out = self};
    parse_alternatives(&p);
    if (*p.at && !p.wrong)
        fail(&p, "a ')' too many");
    (void)emit(&p, OP_MATCH, 0);
    if (!p.wrong) {
        *out = self;
        return FL_OK;
    }
    fl_pattern_free(&self);
    return fl_fail(error, FL_EFORMAT, "the pattern '%.100s' can't be read: %s", source, p.wrong);
}

void fl_pattern_free(struct fl_pattern **self_pointer)
{
    struct fl_pattern *self = *self_pointer;
    if (!self)
        return;
    fl_free(self->states);
    fl_free(self);
    *self_pointer = NULL;
}

/* ---- walking ---- */

struct set {
    uint16_t list[FL_PATTERN_STATES_MAX];
    uint32_t count;
    uint8_t in[FL_PATTERN_STATES_MAX / 8];
};

static bool put(struct set *set, uint32_t state)
{
    if (set->in[state / 8] & 1u << (state % 8))
        return false;
    set->in[state / 8] = (uint8_t)(set->in[state / 8] | 1u << (state % 8));
    set->list[set->count++] = (uint16_t)state;
    return true;
}

static void clear(struct set *set)
{
    set->count = 0;
    memset(set->in, 0, sizeof(set->in));
}

/* Follow splits and jumps from every member; the list is its own queue. */
static void close_set(const struct fl_pattern *self, struct set *set)
{
    for (uint32_t i = 0; i < set->count; i++) {
        const struct state *s = &self->states[set->list[i]];
        if (s->op == OP_SPLIT || s->op == OP_JUMP) {
            (void)put(set, s->x);
            (void)put(set, s->y);
        }
    }
}

static bool accepts(const struct fl_pattern *self, const struct state *s, uint8_t byte)
{
    switch (s->op) {
    case OP_CHAR:
        return s->value == byte;
    case OP_ANY:
        return byte != '\n';
    case OP_CLASS:
        return self->classes[s->value].bits[byte / 8] & 1u << (byte % 8);
    default:
        return false;
    }
}

static bool walk(const struct fl_pattern *self, const char *text, bool after_any_dot)
{
    struct set sets[2], *now = &sets[0], *next = &sets[1];
    clear(now);
    (void)put(now, 0);
    close_set(self, now);
    for (const char *c = text; *c; c++) {
        clear(next);
        for (uint32_t i = 0; i < now->count; i++) {
            if (accepts(self, &self->states[now->list[i]], (uint8_t)*c))
                (void)put(next, now->list[i] + 1u);
        }
        if (after_any_dot && *c == '.')
            (void)put(next, 0);
        close_set(self, next);
        struct set *swap = now;
        now = next;
        next = swap;
    }
    uint32_t last = self->count - 1;
    return now->in[last / 8] & 1u << (last % 8);
}

bool fl_pattern_matches(const struct fl_pattern *self, const char *text)
{
    return walk(self, text, false);
}

bool fl_pattern_matches_end(const struct fl_pattern *self, const char *text)
{
    return walk(self, text, !self->anchored);
}

/*
 * bpe.c - open-addressed tables for tokens and merges, the merge queue, and a direct-mapped cache
 * of short words.
 */
#include "worker/data/bpe.h"

#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/limits.h"
#include "worker/data/unicode.h"

#define NO_TOKEN        (-1)
#define ARENA_BYTES_MAX (1u << 30)
#define CACHE_SLOTS     8192u /* a power of two */
#define CACHE_BYTES     24
#define CACHE_IDS       9

struct token {
    uint32_t offset, length;             /* bytes in the arena; offset ABSENT: no such id */
    uint32_t shown_offset, shown_length; /* the same for what it decodes to */
};
#define ABSENT UINT32_MAX

struct merge {
    uint64_t pair; /* a << 32 | b; EMPTY_PAIR: free slot */
    uint32_t rank, id;
};
#define EMPTY_PAIR UINT64_MAX

/* One symbol of a word being merged; a doubly linked list over an array. */
struct symbol {
    int32_t id; /* NO_TOKEN: merged into its left neighbour */
    uint32_t previous, next;
};
#define END UINT32_MAX

struct candidate {
    uint32_t rank, position, id;
};

struct cached {
    uint8_t length, count; /* count 0: free */
    char word[CACHE_BYTES];
    int32_t ids[CACHE_IDS];
};

struct fl_bpe {
    struct token *tokens; /* (size) by id */
    size_t size, tokens_capacity;
    struct fl_buf arena;
    int32_t *slots; /* mergeable tokens by hash of their bytes */
    size_t slots_capacity, mergeable;
    struct merge *merges;
    size_t merges_capacity, merges_count;
    int32_t byte_ids[256];
    int32_t fallback_ids[256];
    struct fl_bpe_rules rules;
    struct symbol *symbols; /* scratch */
    struct candidate *heap;
    size_t symbols_capacity, heap_capacity, heap_count;
    struct cached *cache;
};

/* ---- the printable alphabet ---- */

static bool printable(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
           (byte >= 0xAE && byte <= 0xFF);
}

/* The byte that a character of the alphabet stands for, or -1. */
static int alphabet_byte(uint32_t code)
{
    if (code <= 0xFF)
        return printable(code) ? (int)code : -1;
    if (code < 0x100 || code > 0x143)
        return -1;
    uint32_t n = code - 0x100; /* the nth byte that is not printable: 00-20, 7F-A0, AD */
    if (n <= 0x20)
        return (int)n;
    return n <= 0x42 ? (int)(0x7F + (n - 0x21)) : 0xAD;
}

bool fl_bpe_from_alphabet(char *text, size_t *length)
{
    size_t used;
    for (size_t at = 0; at < *length; at += used) {
        if (alphabet_byte(fl_utf8_next(text + at, *length - at, &used)) < 0)
            return false;
    }
    size_t out = 0;
    for (size_t at = 0; at < *length; at += used) {
        uint32_t code = fl_utf8_next(text + at, *length - at, &used);
        text[out++] = (char)alphabet_byte(code);
    }
    *length = out;
    return true;
}

/* ---- tables ---- */

static uint64_t hash_bytes(const char *bytes, size_t length)
{
    uint64_t h = 0xCBF29CE484222325u; /* FNV-1a, with a final mix for the low bits */
    for (size_t i = 0; i < length; i++)
        h = (h ^ (unsigned char)bytes[i]) * 0x100000001B3u;
    return h ^ h >> 29;
}

static uint64_t hash_pair(uint64_t pair)
{
    pair *= 0x9E3779B97F4A7C15u;
    return pair ^ pair >> 32;
}

static size_t table_size(size_t entries)
{
    size_t size = 64;
    while (size / 2 < entries)
        size *= 2;
    return size;
}

struct fl_bpe *fl_bpe_new(size_t expected_tokens, size_t expected_merges)
{
    struct fl_bpe *self = fl_calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    fl_buf_init(&self->arena, ARENA_BYTES_MAX);
    self->slots_capacity = table_size(expected_tokens);
    self->merges_capacity = table_size(expected_merges);
    self->slots = fl_malloc(self->slots_capacity * sizeof *self->slots);
    self->merges = fl_malloc(self->merges_capacity * sizeof *self->merges);
    self->cache = fl_calloc(CACHE_SLOTS, sizeof *self->cache);
    if (self->slots == NULL || self->merges == NULL || self->cache == NULL) {
        fl_bpe_free(self);
        return NULL;
    }
    memset(self->slots, 0xFF, self->slots_capacity * sizeof *self->slots);
    memset(self->merges, 0xFF, self->merges_capacity * sizeof *self->merges);
    memset(self->fallback_ids, 0xFF, sizeof self->fallback_ids);
    self->rules.unk = NO_TOKEN;
    return self;
}

void fl_bpe_free(struct fl_bpe *self)
{
    if (self == NULL)
        return;
    fl_buf_free(&self->arena);
    fl_free(self->tokens);
    fl_free(self->slots);
    fl_free(self->merges);
    fl_free(self->symbols);
    fl_free(self->heap);
    fl_free(self->cache);
    fl_free(self);
}

/* The slot that holds these bytes, or the free one where they belong. */
static size_t find_slot(const struct fl_bpe *self, const char *bytes, size_t length)
{
    size_t mask = self->slots_capacity - 1;
    for (size_t i = hash_bytes(bytes, length) & mask;; i = (i + 1) & mask) {
        int32_t id = self->slots[i];
        if (id == NO_TOKEN)
            return i;
        const struct token *token = &self->tokens[id];
        if (token->length == length && memcmp(self->arena.data + token->offset, bytes, length) == 0)
            return i;
    }
}

static enum fl_status grow_slots(struct fl_bpe *self)
{
    if (self->mergeable < self->slots_capacity / 2)
        return FL_OK;
    size_t old_capacity = self->slots_capacity;
    int32_t *old = self->slots, *slots = fl_malloc(2 * old_capacity * sizeof *slots);
    if (slots == NULL)
        return FL_ENOMEM;
    memset(slots, 0xFF, 2 * old_capacity * sizeof *slots);
    self->slots = slots;
    self->slots_capacity = 2 * old_capacity;
    for (size_t i = 0; i < old_capacity; i++) {
        if (old[i] == NO_TOKEN)
            continue;
        const struct token *token = &self->tokens[old[i]];
        slots[find_slot(self, (const char *)self->arena.data + token->offset, token->length)] =
            old[i];
    }
    fl_free(old);
    return FL_OK;
}

/* Make room for tokens[id]. */
static enum fl_status reach(struct fl_bpe *self, uint32_t id)
{
    if (id >= self->tokens_capacity) {
        size_t capacity = self->tokens_capacity * 2 > id ? self->tokens_capacity * 2 : id + 256;
        struct token *grown = fl_reallocarray(self->tokens, capacity, sizeof *grown);
        if (grown == NULL)
            return FL_ENOMEM;
        self->tokens = grown;
        self->tokens_capacity = capacity;
    }
    while (self->size <= id)
        self->tokens[self->size++] = (struct token){.offset = ABSENT};
    return FL_OK;
}

enum fl_status fl_bpe_add_token(struct fl_bpe *self, uint32_t id, const char *bytes, size_t length,
                                bool mergeable)
{
    if (id >= FL_VOCAB_MAX || length > UINT32_MAX)
        return FL_ERANGE;
    mergeable = mergeable && length > 0;
    if (id < self->size && self->tokens[id].offset != ABSENT)
        return FL_EEXIST;
    enum fl_status status = grow_slots(self);
    if (status == FL_OK)
        status = reach(self, id);
    if (status != FL_OK)
        return status;
    size_t slot = 0;
    if (mergeable) {
        slot = find_slot(self, bytes, length);
        if (self->slots[slot] != NO_TOKEN)
            return FL_EEXIST;
    }
    size_t offset = self->arena.length;
    fl_buf_append(&self->arena, bytes, length);
    status = fl_buf_status(&self->arena);
    if (status != FL_OK)
        return status;
    self->tokens[id] = (struct token){.offset = (uint32_t)offset,
                                      .length = (uint32_t)length,
                                      .shown_offset = (uint32_t)offset,
                                      .shown_length = (uint32_t)length};
    if (mergeable) {
        self->slots[slot] = (int32_t)id;
        self->mergeable++;
    }
    return FL_OK;
}

int32_t fl_bpe_find(const struct fl_bpe *self, const char *bytes, size_t length)
{
    return length > 0 ? self->slots[find_slot(self, bytes, length)] : NO_TOKEN;
}

bool fl_bpe_token(const struct fl_bpe *self, uint32_t id, const char **bytes, size_t *length)
{
    if (id >= self->size || self->tokens[id].offset == ABSENT)
        return false;
    *length = self->tokens[id].length;
    *bytes = *length > 0 ? (const char *)self->arena.data + self->tokens[id].offset : "";
    return true;
}

enum fl_status fl_bpe_set_shown(struct fl_bpe *self, uint32_t id, const char *bytes, size_t length)
{
    if (id >= self->size || self->tokens[id].offset == ABSENT)
        return FL_ENOTFOUND;
    const size_t offset = self->arena.length;
    fl_buf_append(&self->arena, bytes, length);
    enum fl_status status = fl_buf_status(&self->arena);
    if (status != FL_OK)
        return status;
    self->tokens[id].shown_offset = (uint32_t)offset;
    self->tokens[id].shown_length = (uint32_t)length;
    return FL_OK;
}

bool fl_bpe_shown(const struct fl_bpe *self, uint32_t id, const char **bytes, size_t *length)
{
    if (id >= self->size || self->tokens[id].offset == ABSENT)
        return false;
    *length = self->tokens[id].shown_length;
    *bytes = *length > 0 ? (const char *)self->arena.data + self->tokens[id].shown_offset : "";
    return true;
}

void fl_bpe_set_fallback(struct fl_bpe *self, uint8_t byte, int32_t id)
{
    self->fallback_ids[byte] = id;
}

uint32_t fl_bpe_size(const struct fl_bpe *self)
{
    return (uint32_t)self->size;
}

/* The slot of a pair, or the free one where it belongs. */
static struct merge *find_merge(const struct fl_bpe *self, int32_t a, int32_t b)
{
    uint64_t pair = (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
    size_t mask = self->merges_capacity - 1;
    for (size_t i = hash_pair(pair) & mask;; i = (i + 1) & mask) {
        if (self->merges[i].pair == pair || self->merges[i].pair == EMPTY_PAIR)
            return &self->merges[i];
    }
}

static enum fl_status grow_merges(struct fl_bpe *self)
{
    if (self->merges_count < self->merges_capacity / 2)
        return FL_OK;
    size_t old_capacity = self->merges_capacity;
    struct merge *old = self->merges, *merges = fl_malloc(2 * old_capacity * sizeof *merges);
    if (merges == NULL)
        return FL_ENOMEM;
    memset(merges, 0xFF, 2 * old_capacity * sizeof *merges);
    self->merges = merges;
    self->merges_capacity = 2 * old_capacity;
    for (size_t i = 0; i < old_capacity; i++) {
        if (old[i].pair == EMPTY_PAIR)
            continue;
        *find_merge(self, (int32_t)(old[i].pair >> 32), (int32_t)(uint32_t)old[i].pair) = old[i];
    }
    fl_free(old);
    return FL_OK;
}

/* The mergeable token a + b, or -1. */
static int32_t find_joined(struct fl_bpe *self, const char *a, size_t a_length, const char *b,
                           size_t b_length, enum fl_status *status)
{
    char small[256], *joined = small;
    size_t length = a_length + b_length;
    if (length > sizeof small)
        joined = fl_malloc(length);
    if (joined == NULL) {
        *status = FL_ENOMEM;
        return NO_TOKEN;
    }
    memcpy(joined, a, a_length);
    memcpy(joined + a_length, b, b_length);
    int32_t id = fl_bpe_find(self, joined, length);
    if (joined != small)
        fl_free(joined);
    *status = id == NO_TOKEN ? FL_ENOTFOUND : FL_OK;
    return id;
}

enum fl_status fl_bpe_add_merge(struct fl_bpe *self, const char *a, size_t a_length, const char *b,
                                size_t b_length, uint32_t rank)
{
    int32_t left = fl_bpe_find(self, a, a_length), right = fl_bpe_find(self, b, b_length);
    if (left == NO_TOKEN || right == NO_TOKEN)
        return FL_ENOTFOUND;
    enum fl_status status;
    int32_t whole = find_joined(self, a, a_length, b, b_length, &status);
    if (status == FL_OK)
        status = grow_merges(self);
    if (status != FL_OK)
        return status;
    struct merge *merge = find_merge(self, left, right);
    if (merge->pair == EMPTY_PAIR)
        self->merges_count++;
    *merge = (struct merge){(uint64_t)(uint32_t)left << 32 | (uint32_t)right, rank,
                            (uint32_t)whole};
    return FL_OK;
}

void fl_bpe_set_rules(struct fl_bpe *self, const struct fl_bpe_rules *rules)
{
    self->rules = *rules;
    for (unsigned byte = 0; byte < 256; byte++) {
        char one = (char)byte;
        self->byte_ids[byte] = fl_bpe_find(self, &one, 1);
    }
}

/* ---- the queue: a binary heap by (rank, position) ---- */

static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->position < b->position;
}

static enum fl_status heap_push(struct fl_bpe *self, struct candidate candidate)
{
    if (self->heap_count == self->heap_capacity) {
        size_t capacity = self->heap_capacity * 2 + 64;
        struct candidate *grown = fl_reallocarray(self->heap, capacity, sizeof *grown);
        if (grown == NULL)
            return FL_ENOMEM;
        self->heap = grown;
        self->heap_capacity = capacity;
    }
    size_t at = self->heap_count++;
    while (at > 0 && before(&candidate, &self->heap[(at - 1) / 2])) {
        self->heap[at] = self->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    self->heap[at] = candidate;
    return FL_OK;
}

static struct candidate heap_pop(struct fl_bpe *self)
{
    struct candidate top = self->heap[0], last = self->heap[--self->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= self->heap_count)
            break;
        if (child + 1 < self->heap_count && before(&self->heap[child + 1], &self->heap[child]))
            child++;
        if (!before(&self->heap[child], &last))
            break;
        self->heap[at] = self->heap[child];
        at = child;
    }
    self->heap[at] = last;
    return top;
}

/* ---- merging ---- */

/* Queue the merge of the symbol at left with the one behind it, if there is such a merge. */
static enum fl_status queue_pair(struct fl_bpe *self, uint32_t left)
{
    uint32_t right = self->symbols[left].next;
    if (right == END)
        return FL_OK;
    const struct merge *merge = find_merge(self, self->symbols[left].id, self->symbols[right].id);
    if (merge->pair == EMPTY_PAIR)
        return FL_OK;
    return heap_push(self, (struct candidate){merge->rank, left, merge->id});
}

static enum fl_status reserve_symbols(struct fl_bpe *self, size_t count)
{
    if (count <= self->symbols_capacity)
        return FL_OK;
    struct symbol *grown = fl_reallocarray(self->symbols, count, sizeof *grown);
    if (grown == NULL)
        return FL_ENOMEM;
    self->symbols = grown;
    self->symbols_capacity = count;
    return FL_OK;
}

/* The symbols of one word as they are laid down, before they are linked. */
struct split {
    struct fl_bpe *bpe;
    uint32_t count;
    bool unk; /* an unk is due: it is laid down before the next symbol that is in the vocabulary */
};

static void lay(struct split *split, int32_t id)
{
    const uint32_t at = split->count++;
    split->bpe->symbols[at] = (struct symbol){id, at - 1, at + 1};
}

static void lay_unk(struct split *split)
{
    if (split->unk)
        lay(split, split->bpe->rules.unk);
    split->unk = false;
}

static void lay_unknown(struct split *split)
{
    const struct fl_bpe_rules *rules = &split->bpe->rules;
    if (rules->unk == NO_TOKEN)
        return;
    if (!rules->fuse_unk)
        lay_unk(split);
    split->unk = true;
}

/* A character without a token as the tokens of its bytes; false when one of them has none. */
static bool lay_bytes(struct split *split, const char *bytes, size_t length)
{
    const int32_t *ids = split->bpe->fallback_ids;
    for (size_t i = 0; i < length; i++) {
        if (ids[(unsigned char)bytes[i]] == NO_TOKEN)
            return false;
    }
    for (size_t i = 0; i < length; i++)
        lay(split, ids[(unsigned char)bytes[i]]);
    return true;
}

/*
 * One symbol a byte or character that has a token, its bytes' tokens or unk for the others, or
 * nothing. A due unk is laid down behind tokens of bytes, as Hugging Face does it. Returns the
 * count, at most length.
 */
static uint32_t split_word(struct fl_bpe *self, const char *word, size_t length)
{
    struct split split = {.bpe = self};
    size_t used = 1;
    for (size_t at = 0; at < length; at += used) {
        if (self->rules.characters)
            (void)fl_utf8_next(word + at, length - at, &used);
        const int32_t id = self->rules.characters ? fl_bpe_find(self, word + at, used)
                                                  : self->byte_ids[(unsigned char)word[at]];
        if (id != NO_TOKEN) {
            lay_unk(&split);
            lay(&split, id);
        } else if (!self->rules.characters || !lay_bytes(&split, word + at, used)) {
            lay_unknown(&split);
        }
    }
    lay_unk(&split);
    if (split.count > 0) {
        self->symbols[0].previous = END;
        self->symbols[split.count - 1].next = END;
    }
    return split.count;
}

static enum fl_status merge_all(struct fl_bpe *self, uint32_t count)
{
    enum fl_status status = FL_OK;
    self->heap_count = 0;
    for (uint32_t i = 0; status == FL_OK && i < count; i++)
        status = queue_pair(self, i);
    while (status == FL_OK && self->heap_count > 0) {
        struct candidate top = heap_pop(self);
        struct symbol *left = &self->symbols[top.position];
        if (left->id == NO_TOKEN || left->next == END)
            continue;
        struct symbol *right = &self->symbols[left->next];
        const struct merge *merge = find_merge(self, left->id, right->id);
        if (merge->pair == EMPTY_PAIR || merge->id != top.id)
            continue; /* stale */
        left->id = (int32_t)top.id;
        left->next = right->next;
        if (left->next != END)
            self->symbols[left->next].previous = top.position;
        right->id = NO_TOKEN;
        if (left->previous != END)
            status = queue_pair(self, left->previous);
        if (status == FL_OK)
            status = queue_pair(self, top.position);
    }
    return status;
}

static enum fl_status merge_word(struct fl_bpe *self, const char *word, size_t length,
                                 struct fl_ids *out)
{
    if (length >= UINT32_MAX)
        return FL_ERANGE;
    enum fl_status status = reserve_symbols(self, length);
    if (status != FL_OK)
        return status;
    uint32_t count = split_word(self, word, length);
    status = merge_all(self, count);
    for (uint32_t i = 0; status == FL_OK && count > 0 && i != END; i = self->symbols[i].next)
        status = fl_ids_push(out, self->symbols[i].id);
    return status;
}

static struct cached *cache_slot(struct fl_bpe *self, const char *word, size_t length)
{
    return &self->cache[hash_bytes(word, length) & (CACHE_SLOTS - 1)];
}

static void remember(struct fl_bpe *self, const char *word, size_t length, const int32_t *ids,
                     size_t count)
{
    if (length > CACHE_BYTES || count == 0 || count > CACHE_IDS)
        return;
    struct cached *slot = cache_slot(self, word, length);
    slot->length = (uint8_t)length;
    slot->count = (uint8_t)count;
    memcpy(slot->word, word, length);
    memcpy(slot->ids, ids, count * sizeof *ids);
}

enum fl_status fl_bpe_word(struct fl_bpe *self, const char *word, size_t length, struct fl_ids *out)
{
    if (self->rules.ignore_merges) {
        int32_t id = fl_bpe_find(self, word, length);
        if (id != NO_TOKEN)
            return fl_ids_push(out, id);
    }
    if (length <= CACHE_BYTES) {
        const struct cached *slot = cache_slot(self, word, length);
        if (slot->count > 0 && slot->length == length && memcmp(slot->word, word, length) == 0)
            return fl_ids_append(out, slot->ids, slot->count);
    }
    size_t start = out->count;
    enum fl_status status = merge_word(self, word, length, out);
    if (status != FL_OK) {
        out->count = start;
        return status;
    }
    if (out->count > start)
        remember(self, word, length, out->ids + start, out->count - start);
    return FL_OK;
}

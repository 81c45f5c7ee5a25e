/* An output of which the head and the tail are kept, in memory that has a limit. */
#include "helper.h"

#include <stdlib.h>
#include <string.h>

void stream_init(struct stream *s, size_t limit) {
    *s = (struct stream){.head_max = limit - limit / 2, .tail_max = limit / 2};
}

void stream_free(struct stream *s) {
    free(s->head);
    free(s->tail);
    *s = (struct stream){0};
}

/* Makes room for `more` bytes, up to `max` in all; returns the capacity that came of it. */
static size_t grow(char **data, size_t cap, size_t len, size_t more, size_t max) {
    size_t wanted = cap ? cap : 4096;
    if (more > max - len) more = max - len;
    while (wanted - len < more) wanted *= 2;
    if (wanted > max) wanted = max;
    if (wanted <= cap) return cap;
    char *grown = realloc(*data, wanted);
    if (!grown) return cap;
    *data = grown;
    return wanted;
}

void stream_add(struct stream *s, const char *data, size_t len) {
    s->total += len;
    if (s->head_len < s->head_max) {
        s->head_cap = grow(&s->head, s->head_cap, s->head_len, len, s->head_max);
        size_t n = s->head_cap - s->head_len < len ? s->head_cap - s->head_len : len;
        if (n) memcpy(s->head + s->head_len, data, n);
        s->head_len += n;
        data += n;
        len -= n;
        if (len) s->head_max = s->head_len; /* full, or memory is short */
    }
    if (len == 0 || s->tail_max == 0) return;
    if (s->tail_len < s->tail_max && s->tail_start == 0) {
        s->tail_cap = grow(&s->tail, s->tail_cap, s->tail_len, len, s->tail_max);
        if (s->tail_cap - s->tail_len < len) s->tail_max = s->tail_cap;
        if (s->tail_cap == 0) return;
    }
    if (len > s->tail_cap) {
        data += len - s->tail_cap;
        len = s->tail_cap;
    }
    while (len) {
        size_t end = (s->tail_start + s->tail_len) % s->tail_cap;
        size_t n = s->tail_cap - end < len ? s->tail_cap - end : len;
        memcpy(s->tail + end, data, n);
        size_t room = s->tail_cap - s->tail_len;
        if (n > room) s->tail_start = (s->tail_start + n - room) % s->tail_cap;
        s->tail_len += n < room ? n : room;
        data += n;
        len -= n;
    }
}

void stream_view(struct stream *s, const struct field *kept, uint64_t head, uint64_t total) {
    *s = (struct stream){.total = total};
    if (!kept) return;
    if (head > kept->len) head = kept->len;
    s->head = (char *)(uintptr_t)kept->value;
    s->head_len = (size_t)head;
    s->tail = s->head + s->head_len;
    s->tail_len = s->tail_cap = kept->len - s->head_len;
    if (s->total < kept->len) s->total = kept->len;
}

/* Where the tail begins; what is between the head and it was dropped. */
static uint64_t tail_at(const struct stream *s) { return s->total - s->tail_len; }

/* Adds bytes of the tail from `skip` on, in the order in which they were written. */
static void add_tail(const struct stream *s, struct buffer *b, size_t skip, size_t len) {
    while (len) {
        size_t from = (s->tail_start + skip) % s->tail_cap;
        size_t n = s->tail_cap - from < len ? s->tail_cap - from : len;
        buffer_add(b, s->tail + from, n);
        skip += n;
        len -= n;
    }
}

void stream_put(const struct stream *s, struct buffer *b, const char *name) {
    char longer[32];
    JOIN(longer, name, "_total");
    put_number(b, longer, s->total);
    JOIN(longer, name, "_head");
    put_number(b, longer, s->head_len);
    put_length(b, name, s->head_len + s->tail_len);
    buffer_add(b, s->head, s->head_len);
    add_tail(s, b, 0, s->tail_len);
    buffer_add(b, ",", 1);
}

size_t stream_available(const struct stream *s, uint64_t from, uint64_t *at) {
    if (from > s->total) from = s->total;
    if (from >= s->head_len && from < tail_at(s)) from = tail_at(s);
    *at = from;
    if (from < s->head_len && tail_at(s) != s->head_len) return s->head_len - (size_t)from;
    return (size_t)(s->total - from);
}

bool stream_put_chunk(const struct stream *s, struct buffer *b, uint64_t from, size_t max,
                      bool finished) {
    uint64_t at;
    size_t len = stream_available(s, from, &at);
    if (len > max) len = max;
    bool end = finished && at + len == s->total;
    put_number(b, "at", at);
    put_number(b, "next", at + len);
    put_number(b, "total", s->total);
    put_number(b, "end", end);
    put_length(b, "data", len);
    if (at < s->head_len) {
        size_t n = s->head_len - (size_t)at < len ? s->head_len - (size_t)at : len;
        buffer_add(b, s->head + at, n);
        at += n;
        len -= n;
    }
    if (len) add_tail(s, b, (size_t)(at - tail_at(s)), len);
    buffer_add(b, ",", 1);
    return end;
}

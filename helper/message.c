/* Messages: netstrings in memory, frames around them, base64 for command lines and terminals. */
#include "helper.h"

#include <stdlib.h>
#include <string.h>

static bool netstring(char **at, char *end, char **value, size_t *len) {
    size_t n = 0;
    char *p = *at;
    int digits = 0;
    for (; p < end && *p >= '0' && *p <= '9'; p++) {
        if (++digits > 10) return false;
        n = n * 10 + (size_t)(*p - '0');
    }
    if (digits == 0 || p == end || *p != ':') return false;
    p++;
    if ((size_t)(end - p) <= n || p[n] != ',') return false;
    p[n] = '\0';
    *value = p;
    *len = n;
    *at = p + n + 1;
    return true;
}

bool message_parse(struct message *m, char *body, size_t len, bool partly) {
    char *at = body, *end = body + len;
    size_t cap = 0;
    m->fields = NULL;
    m->count = 0;
    while (at < end) {
        char *name, *value;
        size_t name_len, value_len;
        if (!netstring(&at, end, &name, &name_len) || !netstring(&at, end, &value, &value_len)) {
            if (partly) return true;
            break;
        }
        if (memchr(name, '\0', name_len)) break;
        if (m->count == cap) {
            cap = cap ? cap * 2 : 16;
            struct field *grown = realloc(m->fields, cap * sizeof *grown);
            if (!grown) break;
            m->fields = grown;
        }
        m->fields[m->count++] = (struct field){name, value, value_len};
        if (at == end) return true;
    }
    if (len == 0) return true;
    message_free(m);
    return false;
}

void message_free(struct message *m) {
    free(m->fields);
    m->fields = NULL;
    m->count = 0;
}

const struct field *message_field(const struct message *m, const char *name) {
    for (size_t i = m ? m->count : 0; i-- > 0;)
        if (strcmp(m->fields[i].name, name) == 0) return &m->fields[i];
    return NULL;
}

const char *message_text(const struct message *m, const char *name) {
    const struct field *f = message_field(m, name);
    return f ? f->value : NULL;
}

bool reads_stderr(const struct message *m) {
    const char *stream = message_text(m, "stream");
    return stream && strcmp(stream, "err") == 0;
}

uint64_t message_number(const struct message *m, const char *name, uint64_t missing, uint64_t max) {
    const struct field *f = message_field(m, name);
    if (!f) return missing;
    uint64_t n = 0;
    if (f->len == 0 || f->len > 19) return max + 1;
    for (size_t i = 0; i < f->len; i++) {
        if (f->value[i] < '0' || f->value[i] > '9') return max + 1;
        n = n * 10 + (uint64_t)(f->value[i] - '0');
    }
    return n > max ? max + 1 : n;
}

bool message_key_valid(const char *key, size_t max) {
    size_t n = key ? strlen(key) : 0;
    if (n == 0 || n > max) return false;
    return strspn(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == n;
}

void buffer_add(struct buffer *b, const void *data, size_t len) {
    if (b->failed) return;
    if (b->cap - b->len < len) {
        size_t cap = b->cap ? b->cap : 512;
        while (cap - b->len < len) cap *= 2;
        char *grown = realloc(b->data, cap);
        if (!grown) {
            b->failed = true;
            return;
        }
        b->data = grown;
        b->cap = cap;
    }
    if (len) memcpy(b->data + b->len, data, len);
    b->len += len;
}

void buffer_free(struct buffer *b) {
    free(b->data);
    *b = (struct buffer){0};
}

const char *decimal(char to[21], uint64_t n) {
    char *at = to + 20;
    *at = '\0';
    do *--at = (char)('0' + n % 10);
    while (n /= 10);
    return at;
}

size_t join(char *to, size_t room, const char *const *parts) {
    size_t len = 0;
    for (; *parts; parts++) {
        size_t n = strlen(*parts);
        if (n >= room - len) return 0;
        memcpy(to + len, *parts, n + 1);
        len += n;
    }
    return len;
}

void put_length(struct buffer *b, const char *name, size_t len) {
    char prefix[64];
    buffer_add(b, prefix, JOIN(prefix, NUMBER(strlen(name)), ":", name, ",", NUMBER(len), ":"));
}

void put(struct buffer *b, const char *name, const void *value, size_t len) {
    put_length(b, name, len);
    buffer_add(b, value, len);
    buffer_add(b, ",", 1);
}

void put_text(struct buffer *b, const char *name, const char *value) {
    put(b, name, value, strlen(value));
}

void put_number(struct buffer *b, const char *name, uint64_t value) {
    put_text(b, name, NUMBER(value));
}

void put_all(struct buffer *b, const struct message *m, const char *const *except) {
    for (size_t i = 0; i < m->count; i++) {
        const char *const *e = except;
        while (*e && strcmp(*e, m->fields[i].name) != 0) e++;
        /* A name may be as long as a request; ours are short, and others are not passed on. */
        if (!*e && strlen(m->fields[i].name) < 32)
            put(b, m->fields[i].name, m->fields[i].value, m->fields[i].len);
    }
}

void frame_begin(struct buffer *b) { buffer_add(b, "\0\0\0\0", 4); }

void frame_end(struct buffer *b) {
    if (b->failed) return;
    size_t n = b->len - 4;
    for (int i = 3; i >= 0; i--, n >>= 8) b->data[i] = (char)(n & 0xff);
}

size_t frame_size(const char *four) {
    size_t n = 0;
    for (int i = 0; i < 4; i++) n = n << 8 | (unsigned char)four[i];
    return n;
}

bool base64url_decode(struct buffer *to, const char *text) {
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    static signed char values[256];
    if (values['B'] == 0) {
        memset(values, -1, sizeof values);
        for (int i = 0; i < 64; i++) values[(unsigned char)alphabet[i]] = (signed char)i;
    }
    uint32_t bits = 0;
    unsigned have = 0;
    for (; *text && *text != '='; text++) {
        int value = values[(unsigned char)*text];
        if (value < 0) return false;
        bits = bits << 6 | (uint32_t)value;
        have += 6;
        if (have >= 8) {
            have -= 8;
            char byte = (char)(bits >> have & 0xff);
            buffer_add(to, &byte, 1);
        }
    }
    return text[strspn(text, "=")] == '\0' && have < 6 && !to->failed;
}

void base64_encode(struct buffer *to, const char *data, size_t len) {
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < len; i += 3) {
        uint32_t bits = 0;
        for (size_t j = 0; j < 3; j++)
            bits = bits << 8 | (i + j < len ? (unsigned char)data[i + j] : 0u);
        char four[4];
        for (unsigned j = 0; j < 4; j++) four[j] = alphabet[bits >> (18 - 6 * j) & 63];
        if (i + 1 >= len) four[2] = '=';
        if (i + 2 >= len) four[3] = '=';
        buffer_add(to, four, 4);
    }
}

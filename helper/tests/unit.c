/* Tests of the parts that need no process: messages, base64, bounded streams, records. */
#include "helper.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            fprintf(stderr, "%s:%d: %s\n", __func__, __LINE__, #condition);      \
            exit(1);                                                             \
        }                                                                        \
    } while (0)

static unsigned seed = 1;
static unsigned any(unsigned below) {
    seed = seed * 1103515245u + 12345u;
    return (seed >> 8) % below;
}

static bool parses(const char *text, size_t len, bool partly, size_t count) {
    char *copy = malloc(len + 1);
    struct message m;
    memcpy(copy, text, len);
    bool parsed = message_parse(&m, copy, len, partly) && m.count == count;
    message_free(&m);
    free(copy);
    return parsed;
}

static void test_messages(void) {
    struct buffer b = {0};
    struct message m;
    put_text(&b, "verb", "run");
    put(&b, "data", "a\0,1:b", 6);
    put_number(&b, "big", UINT64_MAX);
    put_text(&b, "arg", "one");
    put_text(&b, "arg", "");
    CHECK(message_parse(&m, b.data, b.len, false));
    CHECK(m.count == 5 && strcmp(message_text(&m, "verb"), "run") == 0);
    CHECK(message_field(&m, "data")->len == 6 && strcmp(message_text(&m, "arg"), "") == 0);
    CHECK(message_text(&m, "nothing") == NULL && message_text(NULL, "verb") == NULL);
    message_free(&m);
    buffer_free(&b);
    CHECK(parses("", 0, false, 0));
    CHECK(parses("1:a,1:b,", 8, false, 1));
    const char *const wrong[] = {"1", "1:", "1:a", "1:a,", "1:a,1:b", "1:a,2:b,", ":,1:a,", "-1:a,",
                                 "a:b,", "1:a1:b,", "99999999999:a,", "1:a,1:b,x"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(!parses(wrong[i], strlen(wrong[i]), false, 0));
    CHECK(!parses("1:\0,1:b,", 8, false, 1)); /* a name with a NUL */
    CHECK(parses("1:a,1:b,1:c,9:d", 15, true, 1));
}

static void test_numbers(void) {
    const char *const texts[] = {"0", "7", "", "-1", "1x", "18446744073709551616", "11"};
    const uint64_t wanted[] = {0, 7, 11, 11, 11, 11, 11};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct field f = {"n", texts[i], strlen(texts[i])};
        struct message m = {&f, 1};
        CHECK(message_number(&m, "n", 5, 10) == wanted[i]);
        CHECK(message_number(&m, "other", 5, 10) == 5);
    }
    char text[8], full[3];
    CHECK(strcmp(NUMBER(0), "0") == 0 && strcmp(NUMBER(UINT64_MAX), "18446744073709551615") == 0);
    CHECK(JOIN(text, "a", NUMBER(12), "b") == 4 && strcmp(text, "a12b") == 0);
    CHECK(JOIN(full, "ab") == 2 && JOIN(full, "ab", "c") == 0);
    CHECK(message_key_valid("a-Z_9", 5) && !message_key_valid("a-Z_9", 4));
    CHECK(!message_key_valid("", 5) && !message_key_valid(NULL, 5) && !message_key_valid("a/b", 5));
}

static void test_base64(void) {
    for (size_t len = 0; len < 70; len++) {
        char data[70];
        for (size_t i = 0; i < len; i++) data[i] = (char)any(256);
        struct buffer text = {0}, back = {0};
        base64_encode(&text, data, len);
        for (size_t i = 0; i < text.len; i++) {
            if (text.data[i] == '+') text.data[i] = '-';
            if (text.data[i] == '/') text.data[i] = '_';
        }
        buffer_add(&text, "", 1);
        CHECK(base64url_decode(&back, text.data));
        CHECK(back.len == len && (len == 0 || memcmp(back.data, data, len) == 0));
        buffer_free(&text);
        buffer_free(&back);
    }
    const char *const wrong[] = {"A", "AA=A", "A A", "+/==", "\xff\xff"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct buffer back = {0};
        CHECK(!base64url_decode(&back, wrong[i]));
        buffer_free(&back);
    }
}

/* Against the whole output: what is kept is its head and its tail, wherever it is read. */
static void test_streams(void) {
    static char whole[40000];
    for (size_t i = 0; i < sizeof whole; i++) whole[i] = (char)any(256);
    for (int round = 0; round < 3000; round++) {
        struct stream s, view;
        size_t limit = any(round % 3 ? 200 : 20000), written = 0, end = any(sizeof whole);
        stream_init(&s, limit);
        while (written < end) {
            size_t n = any(round % 2 ? 50 : 9000) + 1;
            if (n > end - written) n = end - written;
            stream_add(&s, whole + written, n);
            written += n;
        }
        struct buffer record = {0};
        struct message m;
        stream_put(&s, &record, "out");
        CHECK(message_parse(&m, record.data, record.len, false));
        const struct field *kept = message_field(&m, "out");
        size_t wanted = end < limit ? end : limit;
        uint64_t head = message_number(&m, "out_head", 0, UINT32_MAX);
        CHECK(kept->len == wanted && message_number(&m, "out_total", 0, UINT32_MAX) == end);
        CHECK(memcmp(kept->value, whole, head) == 0);
        CHECK(memcmp(kept->value + head, whole + end - (kept->len - head), kept->len - head) == 0);
        stream_view(&view, kept, head, end);
        for (int i = 0; i < 20; i++) {
            uint64_t from = any((unsigned)end + 10);
            size_t max = any(3000);
            struct buffer one = {0}, other = {0};
            bool first = stream_put_chunk(&s, &one, from, max, true);
            CHECK(stream_put_chunk(&view, &other, from, max, true) == first);
            CHECK(one.len == other.len && memcmp(one.data, other.data, one.len) == 0);
            struct message chunk;
            CHECK(message_parse(&chunk, one.data, one.len, false));
            const struct field *data = message_field(&chunk, "data");
            uint64_t at = message_number(&chunk, "at", 0, UINT32_MAX);
            CHECK(at >= from || from > end);
            CHECK(at + data->len == message_number(&chunk, "next", 0, UINT32_MAX));
            CHECK(data->len <= max && memcmp(data->value, whole + at, data->len) == 0);
            CHECK(first == (at + data->len == end));
            message_free(&chunk);
            buffer_free(&one);
            buffer_free(&other);
        }
        message_free(&m);
        buffer_free(&record);
        stream_free(&s);
    }
}

static enum record_state state_of(const char *key, const char *name, const char *value) {
    struct buffer raw = {0};
    struct message m;
    enum record_state state = record_read(key, 4096, &raw, &m);
    if (name) CHECK(message_text(&m, name) && strcmp(message_text(&m, name), value) == 0);
    message_free(&m);
    buffer_free(&raw);
    return state;
}

static void test_records(void) {
    char folder[] = "/tmp/helper-unit-XXXXXX", path[64];
    CHECK(mkdtemp(folder));
    JOIN(path, folder, "/state");
    CHECK(folder_enter("relative", true) && folder_enter(path, false));
    CHECK(folder_enter(path, true) == NULL && folder_enter(path, true) == NULL);
    struct buffer start = {0}, end = {0};
    put_text(&start, "mode", "a long start that is longer than the end");
    put_text(&end, "word", "exited");
    CHECK(state_of("k", NULL, NULL) == RECORD_NONE);
    int marker = marker_create("k", &start);
    CHECK(marker >= 0 && marker_create("k", &start) < 0);
    CHECK(state_of("k", "mode", "a long start that is longer than the end") == RECORD_RUNNING);
    CHECK(record_write("k", &marker, &end));
    CHECK(state_of("k", "word", "exited") == RECORD_ENDED);
    close(marker);
    CHECK(state_of("k", "word", "exited") == RECORD_ENDED);
    close(marker_create("l", &start));
    CHECK(state_of("l", NULL, NULL) == RECORD_LOST);
    marker = -1;
    CHECK(record_write("m", &marker, &end) && state_of("m", "word", "exited") == RECORD_ENDED);
    close(marker);
    CHECK(mark_gone("k") && access("k.gone", F_OK) == 0);
    record_remove("k", ".gone");
    record_remove("k", "");
    CHECK(state_of("k", NULL, NULL) == RECORD_NONE);
    CHECK(chmod(path, 0755) == 0 && folder_enter(path, true));
    record_remove("l", "");
    record_remove("m", "");
    CHECK(chdir("/") == 0 && rmdir(path) == 0 && symlink("/tmp", path) == 0);
    CHECK(folder_enter(path, true));
    CHECK(unlink(path) == 0 && rmdir(folder) == 0);
    buffer_free(&start);
    buffer_free(&end);
}

int main(void) {
    test_messages();
    test_numbers();
    test_base64();
    test_streams();
    test_records();
    puts("unit tests: ok");
    return 0;
}

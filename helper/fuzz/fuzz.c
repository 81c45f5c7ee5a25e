/* Feeds mutated requests to the parser and to the resident's verbs, under the sanitizers, for as
 * many seconds as the first argument says. No command is started: there is room for none. */
#include "../resident.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void keeper_main(const struct keeper_start *start) {
    (void)start;
    abort();
}

static unsigned long long answers, recorded;
static uint64_t state = 88172645463325252u;
static size_t any(size_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (size_t)(state % below);
}

static const char *const NAMES[] = {
    "verb", "key", "arg", "env", "cwd", "context", "id", "wait", "timeout", "from", "max", "number",
    "data", "which", "reason", "signal", "rows", "number_min", "number_max", "taken", "keep",
    "keep_ms", "keep_bytes", "keep_always", "keep_gone", "mark_gone", "tty", "stdin", "until",
    "out_max", "rlimit", "eof", "", "unknown"};
static const char *const VALUES[] = {
    "run", "start", "read", "write", "resize", "signal", "end", "context", "ping", "list", "drop",
    "prune", "adopt", "nonsense", "a", "b", "c", "lock", "../x", "all", "started", "cancelled", "0",
    "1", "2", "5", "18446744073709551615", "9223372036854775807", "4294967295", "-1", "5 6 x", "",
    "7:1:2", "data"};
#define PICK(list) list[any(sizeof list / sizeof *list)]

static void make(struct buffer *b) {
    put_text(b, "verb", VALUES[any(14)]);
    for (size_t i = any(8); i > 0; i--) {
        const char *name = PICK(NAMES);
        put_text(b, name, strcmp(name, "key") == 0 ? VALUES[14 + any(5)] : PICK(VALUES));
    }
}

static void mutate(struct buffer *b) {
    for (size_t i = any(6); i > 0 && b->len > 0; i--) {
        size_t at = any(b->len);
        switch (any(5)) {
        case 0: b->data[at] = (char)any(256); break;
        case 1: b->data[at] = "0123456789:,"[any(12)]; break;
        case 2: b->len = at; break;
        case 3: buffer_add(b, b->data + at, 0); buffer_add(b, ",1:", any(4)); break;
        default: memmove(b->data + at, b->data + at + 1, b->len - at - 1); b->len--; break;
        }
    }
}

static void parse(const struct buffer *b) {
    for (int partly = 0; partly < 2; partly++) {
        struct message m = {0};
        char *copy = malloc(b->len + 1); /* exactly as long, so that nothing is read behind it */
        if (!copy) abort();
        char *exact = realloc(copy, b->len ? b->len : 1);
        memcpy(exact, b->data, b->len);
        if (message_parse(&m, exact, b->len, partly)) {
            for (size_t i = 0; i < m.count; i++) {
                if (strlen(m.fields[i].value) > m.fields[i].len) abort();
                message_number(&m, m.fields[i].name, 0, 100);
            }
            message_free(&m);
        }
        free(exact);
    }
    struct buffer text = {0}, back = {0};
    buffer_add(&text, b->data, b->len);
    buffer_add(&text, "", 1);
    base64url_decode(&back, text.data);
    buffer_free(&text);
    buffer_free(&back);
}

static void ask(const struct buffer *b) {
    struct connection c = {.fd = open("/dev/null", O_RDWR), .passed = -1};
    frame_begin(&c.in);
    buffer_add(&c.in, b->data, b->len);
    serve(&c, b->len);
    if (c.state == PARKED || c.state == ENDING) {
        if (c.state == PARKED) serve_again(&c, true);
        else end_all(&c, true);
    }
    answers += c.state == ANSWERED;
    recorded += c.out.len > 100;
    if (c.fd >= 0) close(c.fd);
    message_free(&c.request);
    buffer_free(&c.in);
    buffer_free(&c.out);
    if (resident.entries > 50) {
        struct buffer prune = {0};
        put_text(&prune, "verb", "prune");
        put_text(&prune, "keep_gone", "0");
        ask(&prune);
        buffer_free(&prune);
    }
}

int main(int argc, char **argv) {
    int64_t end = now_ms() + 1000 * (argc > 1 ? atoi(argv[1]) : 10);
    unsigned long long executions = 0;
    char folder[] = "/tmp/helper-fuzz-XXXXXX";
    if (!mkdtemp(folder) || folder_enter(folder, false)) return 1;
    if (argc > 2) state ^= strtoull(argv[2], NULL, 10);
    resident.path = "/nowhere";
    resident.live = resident.live_max; /* 0: nothing is started */
    for (; now_ms() < end; executions++) {
        struct buffer b = {0};
        make(&b);
        mutate(&b);
        parse(&b);
        ask(&b);
        buffer_free(&b);
    }
    printf("fuzz: %llu executions, %llu answers, %llu of them long\n", executions, answers, recorded);
    char command[64];
    JOIN(command, "rm -rf ", folder);
    return system(command) != 0;
}

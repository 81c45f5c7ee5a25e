/* Feeds mutated requests to the relay under the sanitizers, for as many seconds as the first argument
 * says, with residents that answer as a whole, in part, or not at all. Each request that is whole is
 * answered once, by what its resident has said. */
#include "../helper.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static uint64_t state = 88172645463325252u;
static size_t any(size_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (size_t)(state % below);
}

static size_t number_of(const char *four) { return frame_size(four); }
static void put_four(struct buffer *b, size_t n) {
    const char four[4] = {(char)(n >> 24), (char)(n >> 16), (char)(n >> 8), (char)n};
    buffer_add(b, four, 4);
}

/* A resident: what it is asked it says again, twice, but for what the request's first byte asks for. */
static void *resident(void *argument) {
    int sock = (int)(intptr_t)argument;
    struct buffer b = {0}, answer = {0};
    char piece[4096];
    while (b.len < 4 || b.len < number_of(b.data) + 4) {
        ssize_t n = read(sock, piece, sizeof piece);
        if (n <= 0) break;
        buffer_add(&b, piece, (size_t)n);
    }
    size_t size = b.len < 4 ? 0 : number_of(b.data);
    if (b.len == size + 4 && size > 0 && b.data[4] != '0') {
        put_four(&answer, 2 * size);
        for (int i = 0; i < 2; i++) buffer_add(&answer, b.data + 4, size);
        size_t len = b.data[4] == '1' ? answer.len / 2 : answer.len;
        for (size_t sent = 0; sent < len;) {
            ssize_t n = send(sock, answer.data + sent, len - sent, MSG_NOSIGNAL);
            if (n <= 0) break;
            sent += (size_t)n;
        }
    }
    close(sock);
    buffer_free(&b);
    buffer_free(&answer);
    return NULL;
}

int client_connect(const char *path) {
    static unsigned calls;
    int pair[2];
    pthread_t thread;
    (void)path;
    if (++calls % 16 == 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0) return -1;
    if (pthread_create(&thread, NULL, resident, (void *)(intptr_t)pair[1]) != 0) abort();
    pthread_detach(thread);
    return pair[0];
}

static void *relay(void *argument) {
    const int *fds = argument;
    relay_run("/", fds[0], fds[1]);
    close(fds[0]);
    close(fds[1]);
    return NULL;
}

enum { MAX = 600 };
static struct { char first; size_t size; struct buffer answer; bool ended; } asked[MAX];

/* Adds what has come of answers; aborts if it is of nobody, or follows an end. */
static void take(struct buffer *b) {
    size_t at = 0;
    while (b->len - at >= 8 && b->len - at - 8 >= number_of(b->data + at + 4)) {
        size_t number = number_of(b->data + at), size = number_of(b->data + at + 4);
        if (number >= MAX || asked[number].ended) abort();
        buffer_add(&asked[number].answer, b->data + at + 8, size);
        size_t whole = asked[number].size * 2 + 4;
        asked[number].ended = size == 0 || asked[number].answer.len == whole;
        at += 8 + size;
    }
    if (at < b->len) memmove(b->data, b->data + at, b->len - at);
    b->len -= at;
}

static unsigned long long answers, cuts;
static void check(size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (!asked[i].ended) abort();
        struct buffer *a = &asked[i].answer;
        bool whole = a->len == asked[i].size * 2 + 4;
        for (size_t j = 4; j < a->len; j++)
            if (a->data[j] != asked[i].first) abort();
        if (whole && asked[i].size > 0) answers++;
        else cuts++;
        if (whole && asked[i].size > 0 && asked[i].first < '2') abort();
    }
}

int main(int argc, char **argv) {
    int64_t end = now_ms() + 1000 * (argc > 1 ? atoi(argv[1]) : 10);
    unsigned long long rounds = 0;
    if (argc > 2) state ^= strtoull(argv[2], NULL, 10);
    for (; now_ms() < end; rounds++) {
        int in[2], out[2];
        pthread_t thread;
        struct buffer sent = {0}, came = {0};
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, in) < 0 || pipe(out) < 0) return 1;
        int fds[2] = {in[0], out[1]};
        size_t count = 1 + any(any(8) ? 8 : MAX - 1), at = 0, broken = any(3) == 0;
        for (size_t i = 0; i < count; i++) {
            asked[i].first = (char)('0' + any(8));
            asked[i].size = any(8) ? any(200) : any(8) ? 0 : any(300000);
            put_four(&sent, i);
            put_four(&sent, asked[i].size);
            char *body = malloc(asked[i].size + 1);
            if (!body) return 1;
            memset(body, asked[i].first, asked[i].size);
            buffer_add(&sent, body, asked[i].size);
            free(body);
        }
        if (broken) { /* nobody counts on an answer any more, but on an end */
            char *garbage = sent.data + any(sent.len);
            *garbage = (char)any(256);
            if (any(2)) sent.len = (size_t)(garbage - sent.data);
        }
        if (pthread_create(&thread, NULL, relay, fds) != 0) abort();
        bool open = true, half = false;
        size_t ended = 0;
        while (open && (broken || ended < count)) {
            struct pollfd polled[2] = {{.fd = out[0], .events = POLLIN},
                                       {.fd = at < sent.len ? in[1] : -1, .events = POLLOUT}};
            if (broken && at >= sent.len && !half) {
                half = true;
                shutdown(in[1], SHUT_WR);
            }
            if (poll(polled, 2, 20000) <= 0) abort();
            if (polled[1].revents) {
                size_t piece = 1 + any(any(4) ? 70000 : 12);
                if (piece > sent.len - at) piece = sent.len - at;
                ssize_t n = send(in[1], sent.data + at, piece, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n < 0 && polled[1].revents & (POLLHUP | POLLERR)) at = sent.len;
                if (n > 0) at += (size_t)n;
            }
            if (polled[0].revents) {
                char piece[8192];
                ssize_t n = read(out[0], piece, 1 + any(sizeof piece));
                open = n > 0;
                if (open && !broken) {
                    buffer_add(&came, piece, (size_t)n);
                    take(&came);
                    for (ended = 0; ended < count && asked[ended].ended;) ended++;
                }
            }
        }
        if (!broken) check(count);
        close(in[1]);
        if (any(2)) while (open) open = read(out[0], (char[512]){0}, 512) > 0;
        close(out[0]);
        pthread_join(thread, NULL);
        for (size_t i = 0; i < MAX; i++) {
            buffer_free(&asked[i].answer);
            asked[i].ended = false;
        }
        buffer_free(&sent);
        buffer_free(&came);
    }
    printf("relay: %llu rounds, %llu answers, %llu that were cut\n", rounds, answers, cuts);
    return 0;
}

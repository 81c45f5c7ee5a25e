/* What a keeper tells of its command, and whom. */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keeper.h"

#define k keeper_state

enum {
    LEARN_MS = 5000,            /* how long a slow file system may take to execute a program */
    FLUSH_MS = 10000,           /* how long no part of an answer may be read */
};

static void put_how(struct buffer *b) {
    if (k.exited && WIFEXITED(k.status)) put_number(b, "code", (uint64_t)WEXITSTATUS(k.status));
    if (k.exited && WIFSIGNALED(k.status)) put_number(b, "signal", (uint64_t)WTERMSIG(k.status));
    if (k.reason[0]) put_text(b, "reason", k.reason);
}

void put_what(struct buffer *b) {
    put_text(b, "key", k.key);
    put_text(b, "mode", k.mode);
    if (k.polled) put_number(b, "number", k.number);
    put_number(b, "pid", (uint64_t)(k.pid > 0 ? k.pid : 0));
    put_number(b, "started", k.started);
    put_number(b, "wall", k.finished ? k.wall : (uint64_t)(now_ms() - k.born));
    if (k.is_volatile) put_number(b, "volatile", 1);
}

static uint64_t microseconds(struct timeval t) {
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_usec;
}

/* By which a tree is found whose keeper and resident were killed. */
void put_roots(struct buffer *b, size_t first) {
    if (first == 0) put_text(b, "place", place());
    roots_put(b, &k.roots, first);
}

/* The answer of `run`, and what is written to disk. */
void put_record(struct buffer *b, bool stored, bool to_disk) {
    put_text(b, "word", k.reason[0] ? "ended" : "exited");
    put_how(b);
    put_what(b);
    put_number(b, "ended", k.started + k.wall);
    put_number(b, "user_us", microseconds(k.usage.ru_utime));
    put_number(b, "system_us", microseconds(k.usage.ru_stime));
    put_number(b, "maxrss_kib", (uint64_t)k.usage.ru_maxrss);
    put_number(b, "stored", stored);
    put_number(b, "bytes", k.bytes);
    if (to_disk) put_roots(b, 0);
    stream_put(&k.streams[0], b, "out");
    if (!k.polled) stream_put(&k.streams[1], b, "err");
}

static void put_notrun(struct buffer *b) {
    const char *why = "exec";
    if (k.failure.stage == 'f') why = "fork";
    else if (k.failure.stage == STAGE_CWD) why = "nocwd";
    else if (k.failure.error == ENOENT || k.failure.error == ENOTDIR) why = "missing";
    else if (k.failure.error == EACCES) why = "denied";
    put_text(b, "word", "notrun");
    put_text(b, "why", why);
    put_number(b, "errno", (uint64_t)k.failure.error);
}

static void put_chunk(struct buffer *b, const struct waiter *w) {
    put_text(b, "word", "chunk");
    put_what(b);
    if (w->written >= 0)
        put_text(b, "written", w->written == 2 ? "busy" : w->written ? "1" : "0");
    if (k.finished) {
        put_how(b);
        put_number(b, "user_us", microseconds(k.usage.ru_utime));
        put_number(b, "system_us", microseconds(k.usage.ru_stime));
        put_number(b, "maxrss_kib", (uint64_t)k.usage.ru_maxrss);
        put_number(b, "stored", k.stored);
    }
    if (w->err) put_text(b, "stream", "err");
    stream_put_chunk(&k.streams[w->err], b, w->from, w->max, k.finished);
}

/* Nobody is told that a command runs before it is known that it does. */
int64_t due_at(const struct waiter *w) {
    return w->deadline + (k.report >= 0 && !w->answered ? LEARN_MS : 0);
}

static bool is_due(const struct waiter *w) {
    uint64_t at;
    if (k.finished || now_ms() >= due_at(w)) return true;
    if (w->asks != ASKS_CHUNK || !k.executed) return false;
    size_t n = stream_available(&k.streams[w->err], w->from, &at);
    return n >= w->max || (w->until_data && n > 0);
}

static void answer(struct waiter *w) {
    struct buffer *b = &w->out;
    frame_begin(b);
    if (k.failure.stage) {
        put_notrun(b);
    } else if (w->asks == ASKS_CHUNK) {
        put_chunk(b, w);
    } else if (k.finished) {
        put_record(b, k.stored, false);
        if (w->asks == ASKS_END) put_number(b, "left", k.left);
    } else {
        put_text(b, "word", "running");
        put_what(b);
    }
    frame_end(b);
    w->answered = true;
    w->deadline = now_ms() + FLUSH_MS;
    fault("keeper:before-answer");
}

void answer_word(struct waiter *w, const char *word) {
    frame_begin(&w->out);
    put_text(&w->out, "word", word);
    frame_end(&w->out);
    w->answered = true;
    w->deadline = now_ms() + FLUSH_MS;
}

void drop_waiter(size_t i) {
    close(k.waiters[i].fd);
    buffer_free(&k.waiters[i].out);
    k.waiters[i] = k.waiters[--k.waiting];
}

void serve_waiters(void) {
    for (size_t i = k.waiting; i-- > 0;) {
        struct waiter *w = &k.waiters[i];
        if (!w->answered && is_due(w)) answer(w);
        if (!w->answered) continue;
        size_t before = w->sent;
        if (w->out.failed || send_some(w->fd, &w->out, &w->sent) != 0 || now_ms() >= w->deadline)
            drop_waiter(i);
        else if (w->sent > before) w->deadline = now_ms() + FLUSH_MS;
    }
}

void add_waiter(int fd, const struct message *m) {
    const char *verb = message_text(m, "verb"), *until = message_text(m, "until");
    if (k.waiting == WAITERS_MAX) {
        close(fd);
        return;
    }
    struct waiter *w = &k.waiters[k.waiting++];
    *w = (struct waiter){.fd = fd, .written = -1, .asks = ASKS_CHUNK};
    w->from = message_number(m, "from", 0, INT64_MAX);
    w->max = (size_t)message_number(m, "max", 1 << 20, OUTPUT_MAX);
    w->deadline = now_ms() + (int64_t)message_number(m, "wait", 0, INT32_MAX);
    w->until_data = until && strcmp(until, "data") == 0;
    w->err = reads_stderr(m);
    if (strcmp(verb, "run") == 0) w->asks = ASKS_RESULT;
    else if (strcmp(verb, "end") == 0) w->asks = ASKS_END;
    else if (strcmp(verb, "write") == 0) w->written = accept_input(m);
    else if (strcmp(verb, "resize") == 0 || strcmp(verb, "signal") == 0)
        answer_word(w, k.finished ? "finished" : "done");
}

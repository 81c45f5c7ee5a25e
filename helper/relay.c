/* The relay: a client that stays. It passes requests from stdin on to the resident, many at once, and
 * their answers to stdout, each with the number of its request. It reads neither. */
#include "helper.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LINES_MAX = 256,            /* requests under way */
    HEAD = 8,                   /* a number and a length, 4 bytes each */
    PIECE = 64 << 10,
    READ_AT_ONCE = 16 << 10,    /* of one answer, so that the others have their turn */
    IDLE_MAX = 1 << 20,         /* what is kept of the memory for a request */
    LEAVE_MS = 60000,           /* how long answers are waited for once stdin has ended */
};

struct line {
    int sock;                   /* -1: it was cut, or there was nothing to ask */
    char number[4];
    char size[4];               /* the first bytes of the answer: its frame's length */
    size_t got;
    size_t unsent;              /* of the request, which is then the first in `in` */
    bool ready;
};
static struct {
    const char *path;
    int stdin_fd, stdout_fd;
    bool ended;                 /* stdin has */
    struct buffer in;           /* requests that came, from `at` on not yet passed on */
    size_t at;
    char out[PIECE];
    size_t out_len, out_sent;
    struct line lines[LINES_MAX];
    size_t count, next;
} r;

static size_t unread(void) { return r.in.len - r.at; }

/* --- Answers ---------------------------------------------------------------------------------- */

static void put_head(const struct line *l, size_t size) {
    memcpy(r.out + r.out_len, l->number, 4);
    for (int i = 7; i >= 4; i--, size >>= 8) r.out[r.out_len + (size_t)i] = (char)(size & 0xff);
    r.out_len += HEAD;
}

static void line_remove(struct line *l) {
    if (l->sock >= 0) close(l->sock);
    if (l->unsent) r.at += l->unsent; /* nobody hears the rest of it */
    *l = r.lines[--r.count];
}

/* Takes what there is of one answer; returns false if the line is gone. */
static bool take(struct line *l) {
    size_t room = sizeof r.out - r.out_len - HEAD;
    char *to = r.out + r.out_len + HEAD;
    ssize_t n = -1;
    if (l->sock >= 0) {
        do n = recv(l->sock, to, room < READ_AT_ONCE ? room : READ_AT_ONCE, MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n < 0 && errno == EAGAIN) {
            l->ready = false;
            return true;
        }
    }
    if (n <= 0) { /* an answer that ends too early is followed by an empty piece */
        put_head(l, 0);
        line_remove(l);
        return false;
    }
    for (ssize_t i = 0; i < n && l->got + (size_t)i < 4; i++) l->size[l->got + (size_t)i] = to[i];
    l->got += (size_t)n;
    put_head(l, (size_t)n);
    r.out_len += (size_t)n;
    if (l->got < 4 || l->got < frame_size(l->size) + 4) return true;
    line_remove(l);
    return false;
}

/* Returns false if nobody reads any more. */
static bool flush(void) {
    while (r.out_sent < r.out_len) {
        ssize_t n = write(r.stdout_fd, r.out + r.out_sent, r.out_len - r.out_sent);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN;
        r.out_sent += (size_t)n;
    }
    r.out_len = r.out_sent = 0;
    return true;
}

/* Passes on what is ready, in turns. What does not fit stays where it is: its writer waits. */
static bool pass_answers(void) {
    for (size_t tried = 0; tried < r.count;) {
        if (r.out_len + HEAD >= sizeof r.out && (!flush() || r.out_len)) break;
        if (r.next >= r.count) r.next = 0;
        struct line *l = &r.lines[r.next];
        if (!l->ready) {
            tried++;
            r.next++;
        } else if (take(l)) {
            tried = l->ready ? 0 : tried + 1;
            r.next++;
        } else {
            tried = 0;
        }
    }
    return flush();
}

/* --- Requests --------------------------------------------------------------------------------- */

/* Sends what is left of the request that is first in `in`; returns false if it has to wait. */
static bool send_request(struct line *l) {
    while (l->unsent) {
        ssize_t n = send(l->sock, r.in.data + r.at, l->unsent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return false;
        if (n < 0) { /* its answer, if there is one, says more */
            r.at += l->unsent;
            l->unsent = 0;
            l->ready = true;
            break;
        }
        r.at += (size_t)n;
        l->unsent -= (size_t)n;
    }
    return true;
}

static struct line *being_sent(void) {
    for (size_t i = 0; i < r.count; i++)
        if (r.lines[i].unsent) return &r.lines[i];
    return NULL;
}

/* What was not passed on by then is dropped: whoever has asked has given up. */
static void end_requests(void) {
    struct line *l = being_sent();
    if (l) line_remove(l);
    buffer_free(&r.in);
    r.at = 0;
    r.ended = true;
}

/* Asked last: what `poll` has said may be from before this process was frozen. */
static bool has_ended(void) {
    struct pollfd polled = {.fd = r.stdin_fd, .events = POLLRDHUP};
    return poll(&polled, 1, 0) > 0;
}

/* Passes on the requests that are there as a whole; returns false if something else came. */
static bool pass_requests(void) {
    struct line *l = being_sent();
    if (l && !send_request(l)) return true;
    while (unread() >= HEAD && r.count < LINES_MAX) {
        size_t size = frame_size(r.in.data + r.at + 4);
        if (size > REQUEST_MAX) return false;
        if (unread() < HEAD + size) break;
        if (has_ended()) {
            end_requests();
            return true;
        }
        l = &r.lines[r.count++];
        *l = (struct line){.sock = size ? client_connect(r.path) : -1};
        memcpy(l->number, r.in.data + r.at, 4);
        l->ready = l->sock < 0;
        if (l->ready) {
            r.at += HEAD + size;
            continue;
        }
        r.at += 4; /* with its length it is the resident's frame */
        l->unsent = size + 4;
        if (!send_request(l)) break;
    }
    if (unread()) memmove(r.in.data, r.in.data + r.at, unread());
    r.in.len = unread();
    r.at = 0;
    if (r.in.len == 0 && r.in.cap > IDLE_MAX) buffer_free(&r.in);
    return true;
}

static bool read_requests(short came) {
    static char piece[PIECE];
    if (came & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL)) {
        end_requests();
        return true;
    }
    ssize_t n = read(r.stdin_fd, piece, sizeof piece);
    if (n < 0) return errno == EINTR || errno == EAGAIN;
    if (n == 0) end_requests();
    buffer_add(&r.in, piece, (size_t)n);
    return !r.in.failed;
}

/* Whether a request that is here as a whole can be passed on: nothing will come that says so. */
static bool can_pass(void) {
    return unread() >= HEAD && unread() >= HEAD + frame_size(r.in.data + r.at + 4) &&
           r.count < LINES_MAX && !being_sent();
}

/* --- Loop ------------------------------------------------------------------------------------- */

/* Waits for what comes next, and passes it on; returns false at the end. */
static bool turn(int64_t leave_at) {
    static struct pollfd fds[2 + LINES_MAX];
    bool room = r.count < LINES_MAX && !being_sent(), full = r.out_len > 0;
    fds[0] = (struct pollfd){.fd = r.ended ? -1 : r.stdin_fd,
                             .events = (short)(POLLRDHUP | (room ? POLLIN : 0))};
    fds[1] = (struct pollfd){.fd = r.stdout_fd, .events = full ? POLLOUT : 0};
    for (size_t i = 0; i < r.count; i++) {
        struct line *l = &r.lines[i];
        short events = (short)((full ? 0 : POLLIN) | (l->unsent ? POLLOUT : 0));
        fds[2 + i] = (struct pollfd){.fd = events ? l->sock : -1, .events = events};
    }
    int64_t left = leave_at - now_ms();
    if (r.ended && ((r.count == 0 && !full) || left <= 0)) return false;
    size_t count = r.count;
    int wait = r.ended ? (int)left : can_pass() ? 0 : -1;
    if (poll(fds, 2 + count, wait) < 0) return errno == EINTR;
    if (fds[1].revents & (POLLERR | POLLHUP | POLLNVAL)) return false;
    for (size_t i = 0; i < count; i++)
        if (fds[2 + i].revents & ~POLLOUT) r.lines[i].ready = true;
    if (fds[0].revents && !read_requests(fds[0].revents)) return false;
    return (r.ended || pass_requests()) && pass_answers();
}

void relay_run(const char *path, int stdin_fd, int stdout_fd) {
    int64_t leave_at = INT64_MAX;
    r.path = path, r.stdin_fd = stdin_fd, r.stdout_fd = stdout_fd, r.ended = false;
    set_nonblocking(stdin_fd);
    set_nonblocking(stdout_fd);
    while (turn(leave_at))
        if (r.ended && leave_at == INT64_MAX) leave_at = now_ms() + LEAVE_MS;
    end_requests();
    while (r.count) line_remove(&r.lines[0]);
    r.out_len = r.out_sent = 0;
}

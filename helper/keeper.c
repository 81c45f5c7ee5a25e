/* The keeper of one command: its parent, its output's memory, its record's author, its tree's end. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "keeper.h"

enum {
    KILL_MS = 5000,             /* how long ending a tree may take */
    INPUT_MAX = 1 << 20,        /* what may wait to be read by the command */
    LOOK_MS = 50,               /* until who has come to us is looked for; then ever more rarely */
    LOOK_MAX_MS = 5000,
};

struct keeper_state keeper_state;
#define k keeper_state

void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* --- The resident ----------------------------------------------------------------------------- */

static void tell(const char *event, bool tree_ended) {
    struct buffer b = {0};
    if (k.channel < 0) return;
    put_text(&b, "event", event);
    put_number(&b, "finished", k.finished);
    put_number(&b, "stored", k.stored);
    put_number(&b, "tree", tree_ended);
    put_number(&b, "left", k.left);
    put_number(&b, "ended", k.finished ? k.started + k.wall : 0);
    put_number(&b, "bytes", k.bytes);
    if (!b.failed) send_with_fd(k.channel, b.data, b.len, -1);
    buffer_free(&b);
}

static void tell_resident(bool tree_ended) {
    tell(k.failure.stage ? "notrun" : "state", tree_ended);
}

/* Makes itself known to the resident that took the place of one that was killed. */
static void find_resident(void) {
    k.adopted = true;
    int pair[2], sock = folder_connect();
    struct buffer b = {0};
    static int64_t pause = 100;
    if (pause < 1600) pause *= 2;
    k.connect_at = now_ms() + pause;
    if (sock < 0) return;
    pause = 100;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0) {
        frame_begin(&b);
        put_text(&b, "verb", "adopt");
        put_what(&b);
        frame_end(&b);
        if (!b.failed && send_with_fd(sock, b.data, b.len, pair[1]) == (ssize_t)b.len)
            k.channel = pair[0];
        else close(pair[0]);
        close(pair[1]);
        buffer_free(&b);
        tell_resident(false);
    }
    close(sock);
}

/* --- The command's life ----------------------------------------------------------------------- */

static void reap(void) {
    pid_t pid;
    int status;
    struct rusage usage;
    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
        if (pid != k.pid || k.exited) continue;
        k.exited = true;
        k.status = status;
        k.usage = usage;
        fault("keeper:after-exit");
    }
    k.childless = pid < 0 && errno == ECHILD;
}

/* Takes what there is to read; returns false at the end. */
static bool drain(int fd, struct stream *s) {
    static char chunk[65536];
    for (int i = 0; i < 16; i++) { /* the others are to have their turn */
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return true;
        if (n <= 0) return false; /* EIO: nobody has the terminal open any more */
        stream_add(s, chunk, (size_t)n);
    }
    return true;
}

static void drain_both(void) {
    if (k.out >= 0 && !drain(k.out, &k.streams[0])) {
        if (k.tty) k.in = -1;
        close_fd(&k.out);
    }
    if (k.err >= 0 && !drain(k.err, &k.streams[1])) close_fd(&k.err);
}

static void feed(void) {
    size_t sent = 0;
    while (k.in >= 0 && sent < k.input.len) {
        ssize_t n = write(k.in, k.input.data + sent, k.input.len - sent);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0 && !k.tty) close_fd(&k.in);
        if (n < 0) sent = k.input.len;
        else sent += (size_t)n;
    }
    if (k.in < 0) sent = k.input.len;
    if (sent) memmove(k.input.data, k.input.data + sent, k.input.len - sent);
    k.input.len -= sent;
    if (k.input_ends && k.input.len == 0 && !k.tty) close_fd(&k.in);
}

static void store(void) {
    struct buffer b = {0};
    fault("keeper:before-record");
    put_record(&b, true, true);
    k.stored = k.forgotten || record_write(k.key, &k.marker, &b);
    fault("keeper:after-record");
    buffer_free(&b);
    k.store_at = now_ms() + k.store_pause;
    if (k.store_pause < 60000) k.store_pause *= 2;
    tell_resident(false);
}

static void note_roots(size_t first) {
    struct buffer b = {0};
    put_roots(&b, first);
    marker_add(k.marker, &b);
    buffer_free(&b);
}

static void look(void) {
    size_t known = k.roots.count;
    if (roots_look(&k.roots)) note_roots(known);
    k.look_at = now_ms() + k.look_pause;
    k.look_pause = k.look_pause * 2 < LOOK_MAX_MS ? k.look_pause * 2 : LOOK_MAX_MS;
}

static void finish(void) {
    if (!k.childless) roots_look(&k.roots);
    k.finished = true;
    k.wall = (uint64_t)(now_ms() - k.born);
    close_fd(&k.err);
    if (k.tty) k.in = -1;
    close_fd(&k.in);
    close_fd(&k.out);
    buffer_free(&k.input);
    k.bytes = k.streams[0].head_len + k.streams[0].tail_len + k.streams[1].head_len +
              k.streams[1].tail_len;
    store();
}

static void end_tree(const char *reason) {
    JOIN(k.reason, reason);
    k.left = tree_kill(&k.pid, !k.exited, NULL, 0, KILL_MS, reap);
    drain_both();
    finish();
}

static void not_run(int stage, int error) {
    k.failure = (struct failure){stage, error};
    k.finished = k.stored = true;
    if (!k.is_volatile) record_remove(k.key, "");
    tell_resident(false);
}

/* Learns from the pipe that ends with `execve` whether that has succeeded. */
static void learn(void) {
    struct failure failure;
    ssize_t n;
    do n = read(k.report, &failure, sizeof failure);
    while (n < 0 && errno == EINTR);
    close_fd(&k.report);
    if (n == sizeof failure) not_run(failure.stage, failure.error);
    else {
        k.executed = true;
        note_roots(0);
        k.look_at = now_ms() + LOOK_MS;
    }
}

/* --- Requests --------------------------------------------------------------------------------- */

/* Returns whether `data` was accepted, now or before, as 0, 1 or 2 (busy). */
int accept_input(const struct message *m) {
    const struct field *data = message_field(m, "data");
    const char *id = message_text(m, "id");
    for (unsigned i = 0; id && i < IDS; i++)
        if (strcmp(k.ids[i], id) == 0) return 1;
    if (k.in < 0 || k.input_ends || k.finished) return 0;
    if (data && k.input.len + data->len > INPUT_MAX) return 2;
    if (data) buffer_add(&k.input, data->value, data->len);
    if (k.input.failed) {
        buffer_free(&k.input);
        return 0;
    }
    k.input_ends = message_number(m, "eof", 0, 1) == 1;
    if (id) JOIN(k.ids[k.id_next++ % IDS], id);
    feed();
    return 1;
}

static void resize(const struct message *m) {
    struct winsize size = {.ws_row = (unsigned short)message_number(m, "rows", 24, 9999),
                           .ws_col = (unsigned short)message_number(m, "cols", 80, 9999)};
    if (k.tty && k.out >= 0) ioctl(k.out, TIOCSWINSZ, &size);
}

static void send_signal(const struct message *m) {
    const char *to = message_text(m, "to");
    int number = (int)message_number(m, "signal", SIGTERM, 64);
    pid_t group = k.pid;
    if (to && strcmp(to, "foreground") == 0 && k.tty) group = tcgetpgrp(k.out);
    if (to && strcmp(to, "process") == 0) {
        if (!k.exited) kill(k.pid, number);
    } else if (group > 0) {
        kill(-group, number);
    }
}

/* A request from the resident, with the connection to whoever made it, or without one. */
static void serve(const struct message *m, int fd) {
    const char *verb = message_text(m, "verb");
    if (!verb || (k.emptied && fd >= 0)) { /* the resident has the record by now: ask again */
        close_fd(&fd);
        if (!verb) return;
    }
    fault_set(m);
    if (fd >= 0) add_waiter(fd, m);
    if (strcmp(verb, "resize") == 0) resize(m);
    else if (strcmp(verb, "signal") == 0 && !k.finished) send_signal(m);
    else if (strcmp(verb, "forget") == 0) k.forgotten = k.stored = k.finished;
    else if (strcmp(verb, "end") == 0) {
        bool all = message_number(m, "tree", 0, 1) == 1;
        k.quit = k.quit || message_number(m, "quit", 0, 1) == 1;
        if (!k.finished) end_tree(message_text(m, "reason"));
        else if (all) k.left = tree_kill(NULL, 0, NULL, 0, KILL_MS, reap);
        if (all) tell_resident(true);
    }
}

static void hear_resident(void) {
    static char datagram[FORWARD_MAX + 4096];
    int fd;
    ssize_t n = receive_with_fd(k.channel, datagram, sizeof datagram, &fd);
    struct message m = {0};
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) { /* it was killed */
        close_fd(&k.channel);
        k.connect_at = now_ms();
        return;
    }
    if (message_parse(&m, datagram, (size_t)n, false)) serve(&m, fd);
    else close_fd(&fd);
    message_free(&m);
}

/* --- Start and loop --------------------------------------------------------------------------- */

static void start_command(const struct keeper_start *start) {
    int io[3], ours[3];
    bool piped = k.polled && message_number(start->request, "stdin", 0, 1) == 1;
    if (!(k.tty ? open_terminal(io, ours) : open_pipes(piped, k.polled, io, ours))) {
        not_run('f', errno);
        return;
    }
    k.in = ours[0], k.out = ours[1], k.err = ours[2];
    resize(start->request);
    uint64_t from = boot_ms();
    k.pid = command_start(start->request, start->context, io, k.tty, &k.report);
    int error = errno;
    if (k.pid > 0) roots_begin(&k.roots, k.pid, from);
    close(io[0]);
    if (io[1] != io[0]) close(io[1]);
    if (io[2] != io[1]) close(io[2]);
    if (k.pid < 0) {
        not_run('f', error);
        return;
    }
    set_nonblocking(k.out);
    if (k.err >= 0) set_nonblocking(k.err);
    if (k.in >= 0) set_nonblocking(k.in);
}

static int64_t next_deadline(void) {
    int64_t next = k.finished ? INT64_MAX : k.deadline;
    if (k.executed && !k.finished && k.look_at < next) next = k.look_at;
    for (size_t i = 0; i < k.waiting; i++)
        if (due_at(&k.waiters[i]) < next) next = due_at(&k.waiters[i]);
    if (k.finished && !k.stored && k.store_at < next) next = k.store_at;
    if (k.channel < 0 && k.connect_at < next) next = k.connect_at;
    return next;
}

/* Waits for whatever comes next, and takes care of it. */
static void turn(void) {
    struct pollfd fds[5 + WAITERS_MAX];
    const int ours[5] = {k.channel, k.report, k.out, k.err, k.input.len ? k.in : -1};
    size_t waiting = k.waiting;
    for (size_t i = 0; i < 5; i++)
        fds[i] = (struct pollfd){.fd = ours[i], .events = i == 4 ? POLLOUT : POLLIN};
    for (size_t i = 0; i < waiting; i++)
        fds[5 + i] = (struct pollfd){.fd = k.waiters[i].fd,
                                     .events = k.waiters[i].answered ? POLLOUT : 0};
    wait_for(fds, 5 + waiting, next_deadline());
    for (size_t i = waiting; i-- > 0;)
        if (fds[5 + i].revents & (POLLHUP | POLLERR | POLLNVAL)) drop_waiter(i);
    if (fds[1].revents) learn();
    if (fds[2].revents || fds[3].revents) drain_both();
    if (fds[4].revents) feed();
    if (fds[0].revents) hear_resident();
}

static void begin(const struct keeper_start *start) {
    const struct message *m = start->request;
    JOIN(k.key, start->key);
    k.polled = start->polled, k.tty = start->tty, k.is_volatile = start->is_volatile;
    k.mode = k.tty ? "tty" : k.polled ? "start" : "run";
    k.number = start->number;
    k.channel = start->channel, k.marker = start->marker;
    k.report = k.in = k.out = k.err = -1;
    k.started = wall_ms(), k.born = now_ms(), k.store_pause = 1000, k.look_pause = LOOK_MS;
    uint64_t timeout = message_number(m, "timeout", INT64_MAX, INT64_MAX - 1);
    k.deadline = timeout > (uint64_t)(INT64_MAX - k.born) ? INT64_MAX : k.born + (int64_t)timeout;
    size_t limit = k.polled ? 8 << 20 : 1 << 20;
    stream_init(&k.streams[0], (size_t)message_number(m, "out_max", limit, OUTPUT_MAX));
    stream_init(&k.streams[1], (size_t)message_number(m, "err_max", limit, OUTPUT_MAX));
    fault("keeper:after-fork");
    add_waiter(start->asker, m);
    start_command(start);
}

/* Waits for the next command: a process that is there already is had for a fraction of a fork. */
static void rest(void) {
    static char datagram[FORWARD_MAX + 4096];
    int channel = k.channel, fds[2] = {-1, -1};
    struct message m = {0};
    ssize_t n = 0;
    tell("resting", false);
    close_fd(&k.marker);
    stream_free(&k.streams[0]);
    stream_free(&k.streams[1]);
    roots_free(&k.roots);
    memset(&k, 0, sizeof k);
    while (fds[1] < 0) {
        struct pollfd polled = {.fd = channel, .events = POLLIN};
        close_fd(&fds[0]); /* of a request about the last one: ask again, the record answers */
        wait_for(&polled, 1, INT64_MAX);
        n = receive_with_fds(channel, datagram, sizeof datagram, fds);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n <= 0) _exit(0);
        if (fds[1] >= 0 && !message_parse(&m, datagram, (size_t)n, false)) _exit(0);
    }
    fault_set(&m);
    struct keeper_start start = {.request = &m, .key = message_text(&m, "key"), .channel = channel,
                                 .asker = fds[0], .marker = fds[1]};
    begin(&start);
    message_free(&m);
    explicit_bzero(datagram, (size_t)n); /* its environment */
}

/* Whether another command finds nothing of this one: no process, no result, nobody who waits. */
static bool reusable(void) {
    return !k.polled && !k.quit && !k.adopted && !k.is_volatile && !k.failure.stage &&
           k.reason[0] == '\0' && k.childless && k.stored && k.channel >= 0;
}

void keeper_main(const struct keeper_start *start) {
    setsid();
    adopt_orphans();
    begin(start);
    while (true) {
        reap();
        if (!k.finished && k.executed && k.exited && k.out < 0 && k.err < 0) finish();
        if (!k.finished && now_ms() >= k.deadline) end_tree("timeout");
        if (k.executed && !k.finished && now_ms() >= k.look_at) look();
        if (k.finished && !k.stored && now_ms() >= k.store_at) store();
        if (k.channel < 0 && now_ms() >= k.connect_at) find_resident();
        serve_waiters();
        if (k.finished && k.waiting == 0 && (k.quit || (k.stored && k.childless))) {
            if (!reusable()) _exit(0);
            rest();
            continue;
        }
        if (k.stored && k.waiting == 0 && !k.emptied) { /* what it left behind may live long */
            k.emptied = true;
            stream_free(&k.streams[0]);
            stream_free(&k.streams[1]);
        }
        turn();
    }
}

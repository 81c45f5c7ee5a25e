/* Time, descriptors and signals: what libc does not offer in one call. */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifdef FAULT_HOOKS
static char fault_point[64];
void fault_set(const struct message *m) {
    const char *point = message_text(m, "fault");
    JOIN(fault_point, point ? point : "");
}
void fault_of(pid_t pid, const char *point) {
    if (strcmp(fault_point, point) == 0) kill(pid, SIGKILL);
}
#endif

int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

uint64_t boot_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

uint64_t wall_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

bool write_all(int fd, const char *data, size_t len) {
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

void set_nonblocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

int send_some(int fd, const struct buffer *out, size_t *sent) {
    while (*sent < out->len) {
        ssize_t n = send(fd, out->data + *sent, out->len - *sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN ? 0 : -1;
        *sent += (size_t)n;
    }
    return 1;
}

union control {
    struct cmsghdr header;
    char space[CMSG_SPACE(2 * sizeof(int))];
};

ssize_t send_with_fds(int sock, const char *data, size_t len, const int fds[2]) {
    union control control = {0};
    struct iovec part = {(void *)(uintptr_t)data, len};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fds[0] >= 0) {
        bool two = fds[1] >= 0;
        message.msg_control = &control;
        message.msg_controllen = two ? CMSG_SPACE(2 * sizeof *fds) : CMSG_SPACE(sizeof *fds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = two ? CMSG_LEN(2 * sizeof *fds) : CMSG_LEN(sizeof *fds);
        memcpy(CMSG_DATA(c), fds, two ? 2 * sizeof *fds : sizeof *fds);
    }
    ssize_t n;
    do n = sendmsg(sock, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n;
}

ssize_t send_with_fd(int sock, const char *data, size_t len, int fd) {
    return send_with_fds(sock, data, len, (const int[2]){fd, -1});
}

ssize_t receive_with_fds(int sock, char *data, size_t len, int fds[2]) {
    union control control = {0};
    struct iovec part = {data, len};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    fds[0] = fds[1] = -1;
    ssize_t n = recvmsg(sock, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0) return n;
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len <= CMSG_LEN(2 * sizeof *fds))
        memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
    return n;
}

ssize_t receive_with_fd(int sock, char *data, size_t len, int *fd) {
    int fds[2];
    ssize_t n = receive_with_fds(sock, data, len, fds);
    *fd = fds[0];
    if (fds[1] >= 0) close(fds[1]);
    return n;
}

/* As the kernel has it, on x86-64 and arm64 alike. */
struct kernel_action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

void set_signal(int number, void (*handler)(int)) {
    struct kernel_action action = {.handler = handler};
    syscall(SYS_rt_sigaction, number, &action, NULL, sizeof action.mask);
}

void get_signals(uint64_t *ignored, uint64_t *blocked) {
    *ignored = 0;
    *blocked = 0;
    for (int n = 1; n <= 64; n++) {
        struct kernel_action action = {0};
        if (syscall(SYS_rt_sigaction, n, NULL, &action, sizeof action.mask) == 0 &&
            action.handler == SIG_IGN)
            *ignored |= (uint64_t)1 << (n - 1);
    }
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, blocked, sizeof *blocked);
}

static void on_child(int number) { (void)number; }

void harden(void) {
    for (int n = 1; n <= 64; n++)
        if (n != SIGCHLD && n != SIGKILL && n != SIGSTOP) set_signal(n, SIG_IGN);
    struct sigaction action = {.sa_handler = on_child};
    sigaction(SIGCHLD, &action, NULL);
    /* Blocked but for the time of `wait_for`, so that no child ends unnoticed before it. */
    uint64_t mask = (uint64_t)1 << (SIGCHLD - 1);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    adopt_orphans();
}

void adopt_orphans(void) {
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

void wait_for(struct pollfd *fds, size_t count, int64_t deadline) {
    struct timespec t, *limit = NULL;
    if (deadline != INT64_MAX) {
        int64_t left = deadline - now_ms();
        if (left < 0) left = 0;
        t.tv_sec = (time_t)(left / 1000);
        t.tv_nsec = (long)(left % 1000) * 1000000;
        limit = &t;
    }
    sigset_t none;
    sigemptyset(&none);
    for (size_t i = 0; i < count; i++) fds[i].revents = 0;
    if (ppoll(fds, count, limit, &none) < 0)
        for (size_t i = 0; i < count; i++) fds[i].revents = 0;
}

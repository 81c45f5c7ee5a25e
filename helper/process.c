/* How a command is started as its backend would have started it. */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct surroundings surroundings;

int oom_get(void) {
    char text[16] = "";
    int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 ? atoi(text) : 0;
}

static void oom_set(int value) {
    char text[24];
    size_t n = JOIN(text, value < 0 ? "-" : "", NUMBER((uint64_t)abs(value)));
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* else the file is root's */
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    write_all(fd, text, n);
    close(fd);
}

void surroundings_get(struct surroundings *s) {
    s->mask = (int)umask(077);
    for (int i = 0; i < (int)RLIM_NLIMITS; i++) getrlimit(i, &s->limits[i]);
    s->nice = getpriority(PRIO_PROCESS, 0);
    s->oom = oom_get();
}

/* The fields of a request, and those of a context where the request has none of the name. */
static const char **text_list(const struct message *request, const struct message *context,
                              const char *name) {
    const struct message *from = message_field(request, name) ? request : context;
    size_t count = 0;
    for (size_t i = 0; from && i < from->count; i++)
        count += strcmp(from->fields[i].name, name) == 0;
    const char **list = calloc(count + 1, sizeof *list);
    if (!list) return NULL;
    count = 0;
    for (size_t i = 0; from && i < from->count; i++)
        if (strcmp(from->fields[i].name, name) == 0) list[count++] = from->fields[i].value;
    return list;
}

static const char *text_of(const struct message *request, const struct message *context,
                           const char *name) {
    const char *text = message_text(request, name);
    return text ? text : message_text(context, name);
}

static int number_of(const struct message *request, const struct message *context,
                     const char *name, long missing) {
    const char *text = text_of(request, context, name);
    return (int)(text ? strtol(text, NULL, 10) : missing);
}

static uint64_t bits_of(const struct message *request, const struct message *context,
                        const char *name) {
    const char *text = text_of(request, context, name);
    return text ? strtoull(text, NULL, 10) : 0;
}

static void apply_limits(const char **wanted) {
    for (int i = 0; i < (int)RLIM_NLIMITS; i++) {
        struct rlimit limit = surroundings.limits[i];
        for (const char **w = wanted; *w; w++) {
            char *soft, *hard, *end;
            if (strtol(*w, &soft, 10) != i || *soft != ':') continue;
            rlim_t value = strtoull(soft + 1, &hard, 10);
            if (*hard == ':') limit = (struct rlimit){value, strtoull(hard + 1, &end, 10)};
        }
        setrlimit(i, &limit);
    }
}

static void apply_signals(uint64_t ignored, uint64_t blocked) {
    for (int n = 1; n <= 64; n++)
        if (n != SIGKILL && n != SIGSTOP)
            set_signal(n, ignored >> (n - 1) & 1 ? SIG_IGN : SIG_DFL);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, NULL, sizeof blocked);
}

/* Executes the program as Python's subprocess and runc look it up: the first that the kernel
 * takes; of the errors the first that is not about a missing file. */
static int execute(const char **argv, const char **env) {
    const char *path = NULL;
    char *const *a = (char *const *)(uintptr_t)argv, *const *e = (char *const *)(uintptr_t)env;
    if (argv[0][0] == '\0') return ENOENT;
    if (strchr(argv[0], '/')) {
        execve(argv[0], a, e);
        return errno;
    }
    for (const char **v = env; *v; v++)
        if (strncmp(*v, "PATH=", 5) == 0) path = *v + 5;
    if (!path) path = "/bin:/usr/bin";
    int error = 0;
    while (true) {
        size_t n = strcspn(path, ":");
        char name[4096];
        size_t len = strlen(argv[0]);
        if (n + 1 + len < sizeof name) {
            memcpy(name, path, n);
            name[n] = '/';
            memcpy(name + n + (n > 0), argv[0], len + 1);
            execve(name, a, e);
            if (error == 0 && errno != ENOENT && errno != ENOTDIR) error = errno;
        }
        if (path[n] == '\0') return error ? error : ENOENT;
        path += n + 1;
    }
}

struct command {
    const char **argv, **env, **limits, *cwd;
    int mask, nice, oom;
    uint64_t ignored, blocked;
    const int *io;
    bool tty;
    int report;
};

/* In the child: it shares our memory until it executes the program. */
static _Noreturn void become(const struct command *c) {
    struct failure failure = {STAGE_CWD, 0};
    setsid();
    if (c->tty) ioctl(c->io[0], TIOCSCTTY, 0);
    for (int i = 0; i < 3; i++) dup2(c->io[i], i);
    if (c->nice != getpriority(PRIO_PROCESS, 0)) setpriority(PRIO_PROCESS, 0, c->nice);
    if (c->oom != surroundings.oom) oom_set(c->oom);
    umask((mode_t)c->mask);
    fault_of(getppid(), "keeper:before-exec");
    if (chdir(c->cwd ? c->cwd : "/") < 0) {
        failure.error = errno;
    } else {
        apply_limits(c->limits);
        apply_signals(c->ignored, c->blocked);
        failure.stage = STAGE_EXEC;
        failure.error = execute(c->argv, c->env);
    }
    write_all(c->report, (const char *)&failure, sizeof failure);
    _exit(127);
}

pid_t command_start(const struct message *request, const struct message *context, const int io[3],
                    bool tty, int *report) {
    int pipe_fds[2];
    struct command command = {
        .argv = text_list(request, NULL, "arg"),
        .env = text_list(request, context, "env"),
        .limits = text_list(request, context, "rlimit"),
        .cwd = text_of(request, context, "cwd"),
        .mask = number_of(request, context, "umask", surroundings.mask),
        .nice = number_of(request, context, "nice", surroundings.nice),
        .oom = number_of(request, context, "oom", surroundings.oom),
        .ignored = bits_of(request, context, "ignored"),
        .blocked = bits_of(request, context, "blocked"),
        .io = io,
        .tty = tty,
    };
    if (!command.argv || !command.env || !command.limits || pipe2(pipe_fds, O_CLOEXEC) < 0)
        return -1;
    command.report = pipe_fds[1];
    /* Not a third of fork's price. Where it is emulated memory is not shared, hence the pipe. */
    pid_t pid = vfork();
    if (pid == 0) become(&command);
    int error = errno;
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* `oom_set` may have changed it for both */
    close(pipe_fds[1]);
    if (pid < 0) close(pipe_fds[0]);
    *report = pipe_fds[0];
    free(command.argv);
    free(command.env);
    free(command.limits);
    errno = error;
    return pid;
}

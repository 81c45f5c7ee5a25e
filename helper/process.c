/* How a command is started as its backend would have started it, and how a tree is ended. */
#include "helper.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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

struct process {
    pid_t pid, parent, session;
    bool dead, ours;
};

static bool process_read(const char *name, struct process *p) {
    char path[64], text[1024];
    int fd = -1;
    if (JOIN(path, "/proc/", name, "/stat")) fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return false;
    text[n] = '\0';
    char *rest = strrchr(text, ')'); /* of its name, which may hold anything; then " S PARENT..." */
    if (!rest || strlen(rest) < 5) return false;
    char state = rest[2];
    pid_t parent = (pid_t)strtol(rest + 3, &rest, 10);
    strtol(rest, &rest, 10); /* the process group */
    pid_t session = (pid_t)strtol(rest, NULL, 10);
    *p = (struct process){atoi(name), parent, session, state == 'Z' || state == 'X', false};
    return true;
}

static bool listed(pid_t pid, const pid_t *list, size_t count) {
    while (count > 0)
        if (list[--count] == pid) return true;
    return false;
}

/* Kills what descends from this process once; returns how many that were, and how many of them
 * we were not allowed to kill. */
static size_t kill_round(pid_t session, const pid_t *spared, size_t count, size_t *refused) {
    size_t n = 0, cap = 0, found = 0;
    struct process *all = NULL, p;
    pid_t self = getpid();
    *refused = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; proc && (entry = readdir(proc));) {
        if (!isdigit((unsigned char)entry->d_name[0]) || !process_read(entry->d_name, &p)) continue;
        /* At once, or one that has another made before it exits is always a step ahead. */
        if (p.parent == self && !p.dead && !listed(p.pid, spared, count)) kill(p.pid, SIGKILL);
        if (n == cap) {
            cap = cap ? cap * 2 : 128;
            struct process *grown = realloc(all, cap * sizeof *all);
            if (!grown) break;
            all = grown;
        }
        all[n++] = p;
    }
    if (proc) closedir(proc);
    for (bool more = all != NULL; more;) {
        more = false;
        for (size_t i = 0; i < n; i++) {
            if (all[i].ours || all[i].pid == self || listed(all[i].pid, spared, count)) continue;
            bool ours = all[i].parent == self || (session && all[i].session == session);
            for (size_t j = 0; !ours && j < n; j++)
                ours = all[j].ours && all[j].pid == all[i].parent;
            if (ours) more = all[i].ours = true;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (!all[i].ours || all[i].dead) continue;
        found++;
        if (kill(all[i].pid, SIGKILL) < 0 && errno == EPERM) ++*refused;
    }
    free(all);
    return found;
}

/* One of another namespace, or none, would name other processes than ours. */
static bool proc_is_ours(void) {
    char target[32];
    ssize_t n = readlink("/proc/self", target, sizeof target - 1);
    if (n <= 0) return false;
    target[n] = '\0';
    return strcmp(target, NUMBER((uint64_t)getpid())) == 0;
}

size_t tree_kill(pid_t session, const pid_t *spared, size_t count, int64_t limit_ms,
                 void (*reap)(void)) {
    int64_t deadline = now_ms() + limit_ms, nap = 1;
    if (!proc_is_ours()) { /* then its process group is all that is known */
        if (session) kill(-session, SIGKILL);
        wait_for(NULL, 0, now_ms() + 20);
        reap();
        return 0;
    }
    while (true) {
        size_t refused, found = kill_round(session, spared, count, &refused);
        reap();
        if (found == refused || now_ms() >= deadline) return found;
        wait_for(NULL, 0, now_ms() + nap);
        if (nap < 20) nap *= 2;
    }
}

/* Which processes are a command's, and how they are ended. */
#include "helper.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TICK_MS = 10,               /* of the times in /proc, whatever the kernel's own are */
    CHILDREN_ROOM = 4096,
};

struct process {
    pid_t pid, parent, session;
    uint64_t started;           /* milliseconds since the boot, rounded down to a tick */
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
    pid_t session = (pid_t)strtol(rest, &rest, 10);
    for (int i = 0; i < 15; i++) strtoll(rest, &rest, 10); /* up to its start, the 22nd */
    *p = (struct process){.pid = atoi(name), .parent = parent, .session = session,
                          .started = strtoull(rest, NULL, 10) * TICK_MS,
                          .dead = state == 'Z' || state == 'X'};
    return true;
}

static bool listed(pid_t pid, const pid_t *list, size_t count) {
    while (count > 0)
        if (list[--count] == pid) return true;
    return false;
}

/* Kills what descends from this process once; returns how many that were, and how many of them
 * we were not allowed to kill. */
static size_t kill_round(const pid_t *roots, size_t root_count, const pid_t *spared, size_t count,
                         size_t *refused) {
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
            bool ours = all[i].parent == self || listed(all[i].session, roots, root_count) ||
                        listed(all[i].pid, roots, root_count);
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

/* What a process number stood for when it was noted may have ended, and another have it by now. As
 * long as a session has processes, the number of its leader is not given to another. */
static bool still_stands(const struct root *root) {
    struct process p;
    if (root->pid <= 1) return false;
    if (!process_read(NUMBER((uint64_t)root->pid), &p)) return true;
    return p.started + TICK_MS > root->from && p.started <= root->to;
}

size_t roots_kill(const struct roots *roots, const pid_t *spared, size_t count, int64_t limit_ms,
                  void (*reap)(void)) {
    pid_t *pids = calloc(roots->count + 1, sizeof *pids);
    size_t n = 0;
    if (!pids) return 1;
    bool known = proc_is_ours();
    for (size_t i = 0; known && i < roots->count; i++)
        if (still_stands(&roots->list[i])) pids[n++] = roots->list[i].pid;
    size_t left = tree_kill(pids, n, spared, count, limit_ms, reap);
    free(pids);
    return left;
}

const char *place(void) {
    static char text[128];
    char boot[40] = "", space[40] = "";
    if (text[0]) return text;
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, boot, 36) < 0) boot[0] = '\0';
        close(fd);
    }
    if (readlink("/proc/self/ns/pid", space, sizeof space - 1) < 0) space[0] = '\0';
    JOIN(text, boot, " ", space);
    return text;
}

static void roots_add(struct roots *roots, struct root root) {
    if (roots->count == roots->room) {
        size_t room = roots->room ? roots->room * 2 : 8;
        struct root *grown = realloc(roots->list, room * sizeof *grown);
        if (!grown) return;
        roots->list = grown;
        roots->room = room;
    }
    roots->list[roots->count++] = root;
}

void roots_put(struct buffer *b, const struct roots *roots, size_t first) {
    char text[64];
    for (size_t i = first; i < roots->count; i++) {
        const struct root *root = &roots->list[i];
        JOIN(text, NUMBER((uint64_t)root->pid), " ", NUMBER(root->from), " ", NUMBER(root->to));
        put_text(b, "root", text);
    }
}

void roots_get(struct roots *roots, const struct message *m) {
    const char *where = message_text(m, "place");
    if (!where || strcmp(where, place()) != 0) return;
    for (size_t i = 0; i < m->count; i++) {
        char *rest;
        if (strcmp(m->fields[i].name, "root") != 0) continue;
        pid_t pid = (pid_t)strtol(m->fields[i].value, &rest, 10);
        uint64_t from = strtoull(rest, &rest, 10), to = strtoull(rest, &rest, 10);
        roots_add(roots, (struct root){pid, from, to});
    }
}

void roots_free(struct roots *roots) {
    free(roots->list);
    *roots = (struct roots){0};
}

void roots_begin(struct roots *roots, pid_t pid, uint64_t from) {
    roots_add(roots, (struct root){pid, from, boot_ms()});
}

/* The numbers of the children of this process, as many as there is room for; false: the kernel does
 * not list them. */
static bool children_read(char text[CHILDREN_ROOM]) {
    char path[64];
    int fd = -1;
    if (JOIN(path, "/proc/self/task/", NUMBER((uint64_t)getpid()), "/children"))
        fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, text, CHILDREN_ROOM - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n >= 0;
}

/* Whether no descendant is to be killed: to look at each process of a host takes milliseconds. */
static bool only_spared(const pid_t *spared, size_t count) {
    char text[CHILDREN_ROOM], *at = text, *end;
    if (!children_read(text) || strlen(text) == CHILDREN_ROOM - 1) return false;
    for (pid_t pid; (pid = (pid_t)strtol(at, &end, 10)) > 0; at = end)
        if (!listed(pid, spared, count)) return false;
    return true;
}

bool roots_look(struct roots *roots) {
    char text[CHILDREN_ROOM], *at = text, *end;
    size_t before = roots->count;
    if (!proc_is_ours() || !children_read(text)) return false;
    for (pid_t pid; (pid = (pid_t)strtol(at, &end, 10)) > 0; at = end) {
        struct process p;
        bool known = false;
        for (size_t i = 0; i < roots->count && !known; i++) known = roots->list[i].pid == pid;
        if (known || roots->count >= ROOTS_MAX) continue;
        if (!process_read(NUMBER((uint64_t)pid), &p) || p.dead) continue;
        roots_add(roots, (struct root){pid, p.started, p.started});
    }
    return roots->count > before;
}

size_t tree_kill(const pid_t *roots, size_t root_count, const pid_t *spared, size_t count,
                 int64_t limit_ms, void (*reap)(void)) {
    int64_t deadline = now_ms() + limit_ms, nap = 1;
    if (!proc_is_ours()) { /* then its process group is all that is known */
        for (size_t i = 0; i < root_count; i++) kill(-roots[i], SIGKILL);
        wait_for(NULL, 0, now_ms() + 20);
        reap();
        return 0;
    }
    if (root_count == 0 && only_spared(spared, count)) return 0;
    while (true) {
        size_t refused, found = kill_round(roots, root_count, spared, count, &refused);
        reap();
        if (found == refused || now_ms() >= deadline) return found;
        wait_for(NULL, 0, now_ms() + nap);
        if (nap < 20) nap *= 2;
    }
}

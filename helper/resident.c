/* The resident: one for each user of a sandbox. It knows which keys there are, makes a keeper for
 * a new one, hands requests to the keepers that live, and answers from the records of the others. */
#include "helper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "resident.h"

struct resident resident;
#define r resident

/* --- Entries, contexts, keepers --------------------------------------------------------------- */

static struct entry **bucket_of(const char *key) {
    uint32_t hash = 2166136261u;
    for (; *key; key++) hash = (hash ^ (unsigned char)*key) * 16777619u;
    return &r.buckets[hash % BUCKETS];
}

struct entry *entry_find(const char *key) {
    struct entry *e = *bucket_of(key);
    while (e && strcmp(e->key, key) != 0) e = e->next;
    return e;
}

struct entry *entry_add(const char *key, enum entry_state state) {
    struct entry *e = calloc(1, sizeof *e), **bucket = bucket_of(key);
    if (!e) return NULL;
    JOIN(e->key, key);
    e->state = state;
    e->next = *bucket;
    *bucket = e;
    r.entries++;
    return e;
}

void entry_remove(struct entry *e) {
    struct entry **at = bucket_of(e->key);
    if (!e->unlisted) {
        while (*at != e) at = &(*at)->next;
        *at = e->next;
        r.entries--;
    }
    e->unlisted = true;
    if (!e->keeper) free(e);
}

struct entry *entry_by_number(uint64_t number) {
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct entry *e = r.buckets[i]; e; e = e->next)
            if (e->mode != 'r' && e->number == number && e->state != GONE) return e;
    return NULL;
}

void entry_describe(struct entry *e, const struct message *m) {
    const char *mode = message_text(m, "mode");
    e->mode = mode && mode[0] ? mode[0] : 'r';
    e->number = (uint32_t)message_number(m, "number", 0, UINT32_MAX - 1);
    e->started = message_number(m, "started", 0, INT64_MAX);
    e->ended = message_number(m, "ended", 0, INT64_MAX);
    e->bytes = message_number(m, "bytes", 0, INT64_MAX);
}

struct keeper *keeper_add(int channel, pid_t pid, struct entry *e, bool adopted) {
    struct keeper *keeper = calloc(1, sizeof *keeper);
    if (!keeper) return NULL;
    *keeper = (struct keeper){channel, pid, e, r.keepers, .adopted = adopted};
    set_nonblocking(channel);
    r.keepers = keeper;
    keeper_takes(keeper, e);
    return keeper;
}

void keeper_takes(struct keeper *keeper, struct entry *e) {
    keeper->entry = e;
    e->keeper = keeper;
    r.live++;
}

/* Its command has ended, and its record is written. Of those that wait for another one, the last. */
static void keeper_rests(struct keeper *keeper) {
    for (struct keeper *other = r.keepers; other; other = other->next)
        if (!other->entry) keeper_dismiss(other);
    struct entry *e = keeper->entry;
    e->keeper = NULL;
    if (e->unlisted) entry_remove(e);
    keeper->entry = NULL;
    keeper->ending = false;
    keeper->rests_until = now_ms() + REST_MS;
    r.live--;
}

void keeper_dismiss(struct keeper *keeper) {
    if (keeper->channel >= 0) close(keeper->channel);
    keeper->channel = -1;
    keeper->silent = true;
}

/* What a keeper has left: a record, or a command of which nobody knows how it ended. Then what is
 * left of its tree has come to us (we are its sub-reaper), and is ended. */
static void keeper_gone(struct keeper *keeper) {
    struct entry *e = keeper->entry;
    struct keeper **at = &r.keepers;
    while (*at != keeper) at = &(*at)->next;
    *at = keeper->next;
    r.used_at = now_ms();
    if (keeper->channel >= 0) close(keeper->channel);
    if (!e) {
        free(keeper);
        return;
    }
    e->keeper = NULL;
    r.live--;
    if (e->state == RUNNING) {
        struct buffer raw = {0};
        struct message m = {0};
        e->state = e->finished || record_read(e->key, 4096, &raw, &m) != RECORD_ENDED ? LOST : ENDED;
        if (e->state == ENDED) entry_describe(e, &m);
        message_free(&m);
        buffer_free(&raw);
        if (e->state == LOST) end_orphans(keeper->adopted ? e : NULL, false);
    }
    if (e->state == NOTRUN || e->unlisted) entry_remove(e);
    free(keeper);
}

static void reap(void) {
    pid_t pid;
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
        struct keeper *keeper = r.keepers;
        while (keeper && (keeper->pid != pid || keeper->adopted)) keeper = keeper->next;
        if (keeper) keeper->dead = true;
    }
}

static void add_roots(struct roots *roots, const struct entry *e) {
    struct buffer raw = {0};
    struct message m = {0};
    if (!e->keeper) record_read(e->key, 4096, &raw, &m);
    roots_get(roots, &m);
    message_free(&m);
    buffer_free(&raw);
}

/* In time the numbers of a tree that has ended are others': one that a session has kept after its
 * leader ended would be taken for the tree's. */
static void forget_roots(const struct entry *e) {
    struct buffer raw = {0};
    struct message m = {0};
    if (record_read(e->key, 4096, &raw, &m) == RECORD_LOST) {
        const struct field *where = message_field(&m, "place"); /* they come after it */
        if (where && strcmp(where->value, place()) == 0)
            record_cut(e->key, (size_t)(where->name - strlen("5:") - raw.data));
    }
    message_free(&m);
    buffer_free(&raw);
}

size_t end_orphans(const struct entry *one, bool all) {
    size_t count = 0, left = 0;
    for (struct keeper *keeper = r.keepers; keeper; keeper = keeper->next) count++;
    pid_t *spared = calloc(count + 1, sizeof *spared);
    struct roots roots = {0};
    count = 0;
    if (one) add_roots(&roots, one);
    for (size_t i = 0; r.inherited && !one && i < BUCKETS; i++)
        for (struct entry *e = r.buckets[i]; e; e = e->next)
            if (e->state == LOST || (all && e->state == ENDED)) add_roots(&roots, e);
    for (struct keeper *keeper = r.keepers; spared && keeper; keeper = keeper->next)
        if (!keeper->dead) spared[count++] = keeper->pid;
    if (spared) left = roots_kill(&roots, spared, count, 1000, reap);
    for (size_t i = 0; spared && left == 0 && i < BUCKETS; i++)
        for (struct entry *e = r.buckets[i]; e; e = e->next)
            if (e->state == LOST && !e->keeper && (!one || e == one)) forget_roots(e);
    roots_free(&roots);
    free(spared);
    return left;
}

bool entry_settle(struct entry *e) {
    struct buffer raw = {0};
    struct message m = {0};
    if (e->state != RUNNING || e->keeper) return false;
    enum record_state state = record_read(e->key, 4096, &raw, &m);
    if (state != RECORD_RUNNING) e->state = state == RECORD_ENDED ? ENDED : LOST;
    if (e->state == ENDED) entry_describe(e, &m);
    message_free(&m);
    buffer_free(&raw);
    if (e->state == LOST) end_orphans(e, false);
    return e->state != RUNNING;
}

bool entry_stored(const struct entry *e) {
    struct buffer raw = {0};
    struct message m = {0};
    if (e->state == GONE) return is_marked_gone(e->key);
    enum record_state state = record_read(e->key, 4096, &raw, &m);
    message_free(&m);
    buffer_free(&raw);
    return (e->state == ENDED && state == RECORD_ENDED) || (e->state == LOST && state == RECORD_LOST);
}

/* A keeper that was killed together with the last resident may have held its lock when we looked. */
static void settle_inherited(void) {
    r.settle_at = INT64_MAX;
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct entry *e = r.buckets[i]; e; e = e->next)
            if (e->state == RUNNING && !e->keeper && !entry_settle(e))
                r.settle_at = now_ms() + SETTLE_MS;
}

static void bury_keepers(void) {
    reap();
    for (struct keeper *keeper = r.keepers; keeper;) {
        if (keeper->dead) {
            hear_keeper(keeper);    /* its last words may be unread */
            keeper_gone(keeper);
            keeper = r.keepers;     /* others may have gone meanwhile */
        } else {
            keeper = keeper->next;
        }
    }
}

/* Returns false when nothing more is to come. */
static bool hear_one(struct keeper *keeper) {
    char datagram[4096];
    int fd;
    struct message m = {0};
    ssize_t n = receive_with_fd(keeper->channel, datagram, sizeof datagram, &fd);
    if (fd >= 0) close(fd);
    if (n < 0 && errno == EINTR) return true;
    if (n <= 0) {
        if (n == 0 && keeper->adopted) keeper->dead = true; /* nobody else will tell */
        if (n == 0) keeper->silent = true;
        return false;
    }
    struct entry *e = keeper->entry;
    if (!e || !message_parse(&m, datagram, (size_t)n, false)) return true;
    const char *event = message_text(&m, "event");
    if (event && strcmp(event, "notrun") == 0) {
        if (e->state == RUNNING) e->state = NOTRUN;
    } else {
        e->finished = message_number(&m, "finished", 0, 1) == 1;
        e->ended = message_number(&m, "ended", 0, INT64_MAX);
        e->bytes = message_number(&m, "bytes", 0, INT64_MAX);
        if (e->finished && message_number(&m, "stored", 0, 1) == 1 && e->state == RUNNING)
            e->state = ENDED;
        if (message_number(&m, "tree", 0, 1) == 1) {
            r.left += message_number(&m, "left", 0, INT32_MAX);
            keeper->ending = false;
        }
        if (event && strcmp(event, "resting") == 0) keeper_rests(keeper);
    }
    message_free(&m);
    return true;
}

void hear_keeper(struct keeper *keeper) {
    while (hear_one(keeper)) {}
}

/* --- Connections ------------------------------------------------------------------------------ */

static void drop_connection(struct connection *c) {
    if (c->fd >= 0) close(c->fd);
    if (c->passed >= 0) close(c->passed);
    message_free(&c->request);
    buffer_free(&c->in);
    buffer_free(&c->out);
    *c = r.connections[--r.connected];
}

void answer_begin(struct connection *c, const char *word) {
    frame_begin(&c->out);
    put_text(&c->out, "word", word);
}

void answer_end(struct connection *c) {
    frame_end(&c->out);
    c->state = ANSWERED;
    c->deadline = now_ms() + FLUSH_MS;
    fault("resident:before-answer");
}

void answer(struct connection *c, const char *word) {
    answer_begin(c, word);
    answer_end(c);
}

void answer_error(struct connection *c, const char *text) {
    answer_begin(c, "error");
    put_text(&c->out, "text", text);
    answer_end(c);
}

static void accept_connections(void) {
    int fd;
    r.used_at = now_ms();
    while ((fd = accept4(r.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        struct ucred peer;
        socklen_t len = sizeof peer;
        bool trusted = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
                       (peer.uid == geteuid() || peer.uid == 0);
        if (!trusted || r.connected >= r.connected_max) {
            close(fd);
            continue;
        }
        r.connections[r.connected++] = (struct connection){
            .fd = fd, .passed = -1, .peer = peer.pid, .deadline = now_ms() + 10000};
    }
}

/* Reads what has come; answers the request once it is there as a whole. */
static bool read_request(struct connection *c) {
    static char chunk[65536];
    while (true) {
        int fd;
        ssize_t n = receive_with_fd(c->fd, chunk, sizeof chunk, &fd);
        if (fd >= 0) {
            if (c->passed >= 0) close(c->passed);
            c->passed = fd;
        }
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN;
        if (n == 0) return false;
        buffer_add(&c->in, chunk, (size_t)n);
        if (c->in.failed || c->in.len > REQUEST_MAX + 4) return false;
        if (c->in.len < 4) continue;
        size_t size = frame_size(c->in.data);
        if (size > REQUEST_MAX) return false;
        if (c->in.len < size + 4) continue;
        serve(c, size);
        return c->fd >= 0;
    }
}

/* Whether a connection that waits for something of ours has it now. */
static void serve_waiting(struct connection *c) {
    bool late = now_ms() >= c->deadline;
    if (c->state == PARKED) {
        struct entry *e = entry_find(c->key);
        if (!e || e->state != RUNNING || (e->keeper && !e->keeper->silent) || late)
            serve_again(c, late);
    } else if (c->state == ENDING) {
        end_all(c, late);
    }
}

/* --- Start and loop --------------------------------------------------------------------------- */

static void load_records(void) {
    DIR *folder = opendir(".");
    for (struct dirent *d; folder && (d = readdir(folder));) {
        struct buffer raw = {0};
        struct message m = {0};
        struct entry *e = NULL;
        size_t n = strlen(d->d_name);
        char *dot = strchr(d->d_name, '.');
        if (dot && strcmp(dot, ".gone") == 0 && n <= KEY_MAX + 5) {
            *dot = '\0';
            if (!message_key_valid(d->d_name, KEY_MAX)) continue;
            e = entry_find(d->d_name);
            if (e) e->state = GONE;
            else entry_add(d->d_name, GONE);
        } else if (!dot && message_key_valid(d->d_name, KEY_MAX) &&
                   strcmp(d->d_name, "sock") != 0 && strcmp(d->d_name, "lock") != 0) {
            if (entry_find(d->d_name)) continue; /* the mark that it is gone was there first */
            enum record_state state = record_read(d->d_name, 4096, &raw, &m);
            e = entry_add(d->d_name, state == RECORD_ENDED    ? ENDED
                                     : state == RECORD_LOST   ? LOST
                                                              : RUNNING);
            if (e) entry_describe(e, &m);
            message_free(&m);
            buffer_free(&raw);
        }
    }
    if (folder) closedir(folder);
}

/* Becomes the only resident of this folder: 0, or the error; -1 if there is one. */
static int take_place(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "sock.tmp"};
    struct stat held, named;
    r.lock = open("lock", O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (r.lock < 0) return errno;
    if (flock(r.lock, LOCK_EX | LOCK_NB) < 0) return errno == EWOULDBLOCK ? -1 : errno;
    /* One that stops removes the folder with its lock. */
    if (fstat(r.lock, &held) < 0 || stat("lock", &named) < 0 || held.st_ino != named.st_ino)
        return -1;
    r.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink("sock.tmp");
    bool listens = r.listener >= 0 &&
                   bind(r.listener, (struct sockaddr *)&address, sizeof address) == 0 &&
                   chmod("sock.tmp", 0600) == 0 && listen(r.listener, 128) == 0 &&
                   rename("sock.tmp", "sock") == 0;
    return listens ? 0 : errno;
}

void resident_release(void) {
    close(r.listener);
    close(r.lock);
    for (size_t i = 0; i < r.connected; i++) {
        if (r.connections[i].fd >= 0) close(r.connections[i].fd);
        if (r.connections[i].passed >= 0) close(r.connections[i].passed);
    }
    for (struct keeper *keeper = r.keepers; keeper; keeper = keeper->next)
        if (keeper->channel >= 0) close(keeper->channel);
}

/* Somebody has removed the folder: nobody can ask any more. */
static bool folder_removed(void) {
    struct stat s;
    return stat(".", &s) == 0 && s.st_nlink == 0;
}

/* Whether another resident would find in the folder all that we know. */
static bool all_stored(void) {
    bool stored = true;
    for (size_t i = 0; stored && i < BUCKETS; i++)
        for (struct entry *e = r.buckets[i]; stored && e; e = e->next)
            stored = entry_stored(e);
    return stored;
}

/* Nobody has asked for long, and nothing that was started still runs: the next client starts another
 * resident. Returns false if there is a reason to stay. */
static bool leaves(void) {
    int64_t now = now_ms();
    if (r.keepers || r.connected > 0 || now < r.used_at + IDLE_MS || now < r.looked_at + IDLE_MS)
        return false;
    r.looked_at = now;
    if (!all_stored()) return false;
    /* From now on nobody finds us; who was faster is answered. */
    if (rename("sock", "sock.tmp") < 0) return false;
    accept_connections();
    if (r.connected > 0) rename("sock.tmp", "sock");
    else unlink("sock.tmp");
    return r.connected == 0;
}

static void turn(void) {
    static struct pollfd fds[1 + CONNECTIONS_MAX + KEEPERS_MAX];
    static struct keeper *polled[KEEPERS_MAX];
    size_t n = 0, keepers = 0, connections = r.connected;
    int64_t deadline = now_ms() + (IDLE_MS < 60000 ? IDLE_MS : 60000);
    if (now_ms() >= r.settle_at) settle_inherited();
    if (r.settle_at < deadline) deadline = r.settle_at;
    fds[n++] = (struct pollfd){.fd = r.listener, .events = POLLIN};
    for (size_t i = 0; i < connections; i++) {
        struct connection *c = &r.connections[i];
        short events = c->state == READING ? POLLIN : c->state == ANSWERED ? POLLOUT : 0;
        fds[n++] = (struct pollfd){.fd = c->fd, .events = events};
        if (c->deadline < deadline) deadline = c->deadline;
    }
    for (struct keeper *keeper = r.keepers; keeper && keepers < KEEPERS_MAX; keeper = keeper->next) {
        if (!keeper->entry && now_ms() >= keeper->rests_until) keeper_dismiss(keeper);
        if (!keeper->entry && !keeper->silent && keeper->rests_until < deadline)
            deadline = keeper->rests_until;
        fds[n++] = (struct pollfd){.fd = keeper->silent ? -1 : keeper->channel, .events = POLLIN};
        polled[keepers++] = keeper;
    }
    marker_prepare();
    wait_for(fds, n, deadline);
    for (size_t i = 0; i < keepers; i++)
        if (fds[1 + connections + i].revents) hear_keeper(polled[i]);
    bury_keepers();
    if (fds[0].revents) accept_connections();
    for (size_t i = r.connected; i-- > 0;) {
        struct connection *c = &r.connections[i];
        bool keep = true;
        /* The request of one that was just accepted is mostly there. */
        short came = i < connections ? fds[1 + i].revents : POLLIN;
        if (c->state == READING && came) keep = read_request(c);
        else if (came & (POLLHUP | POLLERR | POLLNVAL)) keep = false;
        else if (c->state == READING) keep = now_ms() < c->deadline;
        else serve_waiting(c);
        if (keep && c->state == ANSWERED) {
            size_t before = c->sent;
            keep = !c->out.failed && send_some(c->fd, &c->out, &c->sent) == 0 &&
                   now_ms() < c->deadline;
            if (c->sent > before) c->deadline = now_ms() + FLUSH_MS;
        }
        if (!keep || c->fd < 0) drop_connection(c);
    }
}

void resident_main(const char *path, int ready) {
    r.path = path;
    int error = take_place();
    if (error > 0) write_all(ready, (const char *)&error, sizeof error);
    if (error != 0) _exit(0);
    surroundings_get(&surroundings);
    for (int i = 0; i < (int)RLIM_NLIMITS; i++) { /* the commands get theirs back */
        struct rlimit limit = surroundings.limits[i];
        limit.rlim_cur = limit.rlim_max;
        setrlimit(i, &limit);
    }
    rlim_t files = surroundings.limits[RLIMIT_NOFILE].rlim_max / 4; /* one for each of them */
    r.live_max = files < KEEPERS_MAX ? files : KEEPERS_MAX;
    r.connected_max = files < CONNECTIONS_MAX ? files : CONNECTIONS_MAX;
    harden();
    r.born = r.used_at = now_ms();
    load_records();
    r.inherited = r.entries > 0;
    place();                        /* the keepers have it from us */
    if (r.inherited) end_orphans(NULL, false);
    r.settle_at = r.inherited ? now_ms() + SETTLE_MS : INT64_MAX;
    close(ready);
    while (!r.stopped) {
        turn();
        if (r.live == 0 && folder_removed()) break;
        if (leaves()) break;
    }
    _exit(0);
}

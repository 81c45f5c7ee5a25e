/* The verbs, as the resident answers them. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "resident.h"

#define r resident

enum { PARK_MS = 3000, END_ALL_MS = 8000 };

static const char *const CONTEXT_FIELDS[] = {"env",     "cwd",  "umask", "rlimit", "ignored",
                                             "blocked", "nice", "oom",   NULL};
/* What a keeper does not need of a request about a command that it has. */
static const char *const NOT_FORWARDED[] = {"arg",  "env",   "cwd",     "umask",   "rlimit", "ignored",
                                            "oom",  "taken", "blocked", "context", "nice",   NULL};
/* What of a record nobody is told; and what is not in a chunk. */
static const char *const NOT_ANSWERED[] = {"place", "root", NULL};
static const char *const NOT_IN_CHUNK[] = {"word", "ended", "bytes",     "out_total", "out_head", "out",
                                           "err",  "place", "err_total", "err_head",  "root",     NULL};

static bool is_key(const char *key) {
    return message_key_valid(key, KEY_MAX) && strcmp(key, "sock") != 0 && strcmp(key, "lock") != 0;
}

static struct context *context_find(const char *id) {
    for (size_t i = 0; i < CONTEXTS_MAX; i++)
        if (strcmp(r.contexts[i].id, id) == 0) return &r.contexts[i];
    return NULL;
}

static void serve_context(struct connection *c) {
    const char *id = message_text(&c->request, "id");
    if (!message_key_valid(id, 64)) {
        answer_error(c, "context: id is missing or malformed");
        return;
    }
    struct context *context = context_find(id);
    if (!context) context = &r.contexts[0];
    for (size_t i = 0; i < CONTEXTS_MAX && strcmp(context->id, id) != 0; i++)
        if (r.contexts[i].used < context->used) context = &r.contexts[i];
    message_free(&context->fields);
    buffer_free(&context->raw);
    for (size_t i = 0; i < c->request.count; i++) {
        const struct field *f = &c->request.fields[i];
        for (const char *const *name = CONTEXT_FIELDS; *name; name++)
            if (strcmp(*name, f->name) == 0) put(&context->raw, f->name, f->value, f->len);
    }
    context->id[0] = '\0';
    if (context->raw.failed ||
        !message_parse(&context->fields, context->raw.data, context->raw.len, false)) {
        answer_error(c, "context: no memory");
        return;
    }
    JOIN(context->id, id);
    context->used = (int64_t)++r.serial;
    answer(c, "done");
}

static void answer_notrun(struct connection *c, const char *why, int error) {
    answer_begin(c, "notrun");
    put_text(&c->out, "why", why);
    put_number(&c->out, "errno", (uint64_t)error);
    answer_end(c);
}

static void park(struct connection *c, const struct entry *e) {
    JOIN(c->key, e->key);
    if (c->state != PARKED) c->deadline = now_ms() + PARK_MS;
    c->state = PARKED;
}

/* Hands a request to the keeper of its command, with the connection to whoever made it. */
static void forward(struct connection *c, struct entry *e) {
    struct buffer b = {0};
    put_all(&b, &c->request, NOT_FORWARDED);
    if (b.failed || b.len > FORWARD_MAX) {
        answer_error(c, "the request is too large");
    } else if (send_with_fd(e->keeper->channel, b.data, b.len, c->fd) >= 0) {
        close(c->fd);
        c->fd = -1;
    } else if (errno == EAGAIN) {
        answer(c, "busy");
    } else {
        e->keeper->silent = true;
        park(c, e);
    }
    buffer_free(&b);
}

static void answer_recorded(struct connection *c, const struct entry *e, const char *verb) {
    struct buffer raw = {0};
    struct message m = {0};
    bool found = record_read(e->key, ANSWER_MAX, &raw, &m) == RECORD_ENDED;
    if (!found) {
        answer(c, "lost");
    } else if (strcmp(verb, "resize") == 0 || strcmp(verb, "signal") == 0) {
        answer(c, "finished");
    } else if (strcmp(verb, "run") == 0 || strcmp(verb, "end") == 0) {
        frame_begin(&c->out);
        if (verb[0] == 'e') put_number(&c->out, "left", 0);
        put_all(&c->out, &m, NOT_ANSWERED);
        answer_end(c);
    } else {
        struct stream s;
        bool err = reads_stderr(&c->request);
        stream_view(&s, message_field(&m, err ? "err" : "out"),
                    message_number(&m, err ? "err_head" : "out_head", 0, OUTPUT_MAX),
                    message_number(&m, err ? "err_total" : "out_total", 0, INT64_MAX));
        answer_begin(c, "chunk");
        if (err) put_text(&c->out, "stream", "err");
        if (strcmp(verb, "write") == 0) put_text(&c->out, "written", "0");
        put_all(&c->out, &m, NOT_IN_CHUNK);
        stream_put_chunk(&s, &c->out, message_number(&c->request, "from", 0, INT64_MAX),
                         (size_t)message_number(&c->request, "max", 1 << 20, OUTPUT_MAX), true);
        answer_end(c);
    }
    message_free(&m);
    buffer_free(&raw);
}

static void serve_known(struct connection *c, struct entry *e, const char *verb, bool late) {
    bool reachable = e->keeper && !e->keeper->silent;
    e->used = wall_ms();
    if (e->state == LOST) answer(c, "lost");
    else if (e->state == GONE) answer(c, "dropped");
    else if (e->state == ENDED) answer_recorded(c, e, verb);
    else if (e->state == RUNNING && reachable) forward(c, e);
    else if (!late) park(c, e);
    else if (entry_settle(e)) serve_known(c, e, verb, late);
    else answer(c, "busy");
}

/* The first free process number from a start that derives from the key; 0 if there is none. */
static uint32_t choose_number(const struct message *m, const char *key) {
    uint64_t low = message_number(m, "number_min", 1, UINT32_MAX - 1);
    uint64_t high = message_number(m, "number_max", 1 << 30, UINT32_MAX - 1);
    uint64_t hash = 1469598103934665603u;
    for (; *key; key++) hash = (hash ^ (unsigned char)*key) * 1099511628211u;
    for (uint64_t i = 0; low > 0 && high > low && i < high - low; i++) {
        uint64_t number = low + (hash + i) % (high - low);
        bool taken = entry_by_number(number) != NULL;
        for (size_t j = 0; j < m->count && !taken; j++) {
            if (strcmp(m->fields[j].name, "taken") != 0) continue;
            char *end;
            for (const char *at = m->fields[j].value; !taken; at = end) {
                uint64_t one = strtoull(at, &end, 10);
                if (end == at) break;
                taken = one == number;
            }
        }
        if (!taken) return (uint32_t)number;
    }
    return 0;
}

/* Hands a command to a keeper that rests, with the connection and the marker. */
static bool hand_over(struct connection *c, struct entry *e, const struct context *context,
                      int marker) {
    static const char *const none[] = {NULL};
    struct keeper *keeper = r.keepers;
    struct buffer b = {0};
    while (keeper && (keeper->entry || keeper->silent)) keeper = keeper->next;
    if (!keeper) return false;
    put_all(&b, &c->request, none);
    for (size_t i = 0; context && i < context->fields.count; i++) {
        const struct field *f = &context->fields.fields[i];
        if (!message_field(&c->request, f->name)) put(&b, f->name, f->value, f->len);
    }
    bool sent = !b.failed && b.len <= FORWARD_MAX &&
                send_with_fds(keeper->channel, b.data, b.len, (const int[2]){c->fd, marker}) >= 0;
    buffer_free(&b);
    if (sent) keeper_takes(keeper, e);
    return sent;
}

/* Finds a keeper for a key that nobody has used; the connection is its first to be answered. */
static void start_keeper(struct connection *c, struct entry *e, struct context *context, bool tty) {
    struct buffer content = {0};
    int pair[2];
    put_text(&content, "key", e->key);
    put_text(&content, "mode", tty ? "tty" : e->mode == 's' ? "start" : "run");
    put_number(&content, "number", e->number);
    put_number(&content, "started", e->started);
    fault("resident:before-lock");
    int marker = content.failed ? -1 : marker_create(e->key, &content);
    buffer_free(&content);
    if (marker < 0 && errno == EEXIST) {
        e->state = LOST;
        answer(c, "lost");
        return;
    }
    fault("resident:after-marker");
    if (marker >= 0 && e->mode == 'r' && hand_over(c, e, context, marker)) {
        fault("resident:after-fork");
        close(marker);
        close(c->fd);
        c->fd = -1;
        return;
    }
    bool paired = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0;
    pid_t pid = paired ? fork() : -1;
    int error = errno;
    if (pid == 0) {
        struct keeper_start start = {
            .request = &c->request, .context = context ? &context->fields : NULL, .key = e->key,
            .number = e->number, .tty = tty, .polled = e->mode != 'r', .is_volatile = marker < 0,
            .channel = pair[1], .asker = c->fd, .marker = marker,
        };
        c->fd = -1;
        close(pair[0]);
        resident_release();
        keeper_main(&start);
    }
    fault("resident:after-fork");
    if (marker >= 0) close(marker);
    if (paired) close(pair[1]);
    if (pid > 0 && keeper_add(pair[0], pid, e, false)) {
        close(c->fd);
        c->fd = -1;
        return;
    }
    if (paired) close(pair[0]);
    if (marker >= 0) record_remove(e->key, "");
    entry_remove(e);
    answer_notrun(c, "fork", error);
}

static void serve_start(struct connection *c, const char *verb, bool late) {
    const struct message *m = &c->request;
    const char *key = message_text(m, "key"), *id = message_text(m, "context");
    bool polled = verb[0] == 's', tty = polled && message_number(m, "tty", 0, 1) == 1;
    struct entry *e = is_key(key) ? entry_find(key) : NULL;
    if (e) {
        serve_known(c, e, verb, late);
        return;
    }
    if (!is_key(key) || !message_field(m, "arg")) {
        answer_error(c, "run, start: key or arg is missing or malformed");
        return;
    }
    struct context *context = id ? context_find(id) : NULL;
    if (id && (!context || id[0] == '\0')) {
        answer(c, "unknown-context");
        return;
    }
    if (context) context->used = (int64_t)++r.serial;
    uint32_t number = polled ? choose_number(m, key) : 0;
    if (r.live >= r.live_max || r.entries >= ENTRIES_MAX || (polled && number == 0) ||
        !(e = entry_add(key, RUNNING))) {
        answer_notrun(c, "full", 0);
        return;
    }
    e->mode = tty ? 't' : polled ? 's' : 'r';
    e->number = number;
    e->started = e->used = wall_ms();
    start_keeper(c, e, context, tty);
}

static struct entry *entry_of(const struct message *m) {
    const char *key = message_text(m, "key");
    if (key) return entry_find(key);
    uint64_t number = message_number(m, "number", 0, UINT32_MAX - 1);
    return number ? entry_by_number(number) : NULL;
}

static void serve_existing(struct connection *c, const char *verb, bool late) {
    struct entry *e = entry_of(&c->request);
    const struct field *data = message_field(&c->request, "data");
    const char *id = message_text(&c->request, "id");
    if (strcmp(verb, "write") == 0 &&
        (!message_key_valid(id, 64) || (data && data->len > DATA_MAX))) {
        answer_error(c, "write: id is missing or malformed, or data is too long");
    } else if (!e) {
        answer(c, "unknown");
    } else {
        serve_known(c, e, verb, late);
    }
}

/* --- end -------------------------------------------------------------------------------------- */

/* Sees to it that a key can never be used. */
static void end_unused(struct connection *c, const char *key, const char *reason) {
    struct buffer b = {0};
    struct entry *e = entry_add(key, ENDED);
    int marker = -1;
    put_text(&b, "word", "ended");
    put_text(&b, "reason", reason);
    put_number(&b, "never", 1);
    put_text(&b, "key", key);
    put_text(&b, "mode", "run");
    put_number(&b, "ended", wall_ms());
    put_number(&b, "stored", 1);
    if (!e) {
        answer_error(c, "end: no memory");
    } else if (record_write(key, &marker, &b)) {
        close(marker);
        e->mode = 'r';
        e->ended = wall_ms();
        answer_recorded(c, e, "end");
    } else {
        e->state = LOST; /* of all that can be known without a disk the nearest: it never runs */
        answer_begin(c, "ended");
        put_text(&c->out, "reason", reason);
        put_number(&c->out, "never", 1);
        put_number(&c->out, "stored", 0);
        answer_end(c);
    }
    buffer_free(&b);
}

static bool wanted(const struct connection *c, const struct entry *e) {
    const char *which = message_text(&c->request, "which");
    return !which || strcmp(which, "started") != 0 || e->mode != 'r';
}

static void remove_folder(void) {
    DIR *folder = opendir(".");
    struct stat here, named;
    for (struct dirent *d; folder && (d = readdir(folder));)
        if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0) unlink(d->d_name);
    if (folder) closedir(folder);
    if (stat(".", &here) == 0 && lstat(r.path, &named) == 0 && here.st_ino == named.st_ino &&
        here.st_dev == named.st_dev)
        rmdir(r.path);
}

void end_all(struct connection *c, bool late) {
    bool stop = strcmp(message_text(&c->request, "verb"), "stop") == 0, done = true;
    const char *reason = message_text(&c->request, "reason");
    struct buffer b = {0};
    put_text(&b, "verb", "end");
    put_text(&b, "reason", reason ? reason : "stopped");
    put_number(&b, "tree", 1);
    put_number(&b, "quit", stop);
    for (struct keeper *keeper = r.keepers; keeper; keeper = keeper->next) {
        if (!keeper->entry && stop) {
            keeper_dismiss(keeper);
            done = false;
        }
        if (!keeper->entry || !wanted(c, keeper->entry)) continue;
        if (keeper->told != c->serial && !keeper->silent &&
            send_with_fd(keeper->channel, b.data, b.len, -1) >= 0) {
            keeper->told = c->serial;
            keeper->ending = true;
            c->count++;
        }
        /* One that quits is waited for; of the others those that still have a tree. */
        done = done && keeper->told == c->serial && !keeper->ending && !stop;
    }
    buffer_free(&b);
    for (size_t i = 0; i < BUCKETS && done; i++) /* those whose keepers are yet to come back */
        for (struct entry *e = r.buckets[i]; e; e = e->next)
            if (e->state == RUNNING && !e->keeper && wanted(c, e)) done = false;
    if (!done && !late) return;
    answer_begin(c, "done");
    put_number(&c->out, "count", c->count);
    put_number(&c->out, "left", r.left);
    put_number(&c->out, "pid", (uint64_t)getpid());
    if (stop) remove_folder();
    answer_end(c);
    if (stop) send_some(c->fd, &c->out, &c->sent);
    r.stopped = stop;
}

static void begin_end_all(struct connection *c) {
    c->state = ENDING;
    c->deadline = now_ms() + END_ALL_MS;
    c->serial = ++r.serial;
    const char *which = message_text(&c->request, "which");
    r.left = which && strcmp(which, "started") == 0 ? 0 : end_orphans(NULL, true);
    end_all(c, false);
}

static void serve_end(struct connection *c, const char *verb, bool late) {
    const char *key = message_text(&c->request, "key");
    const char *reason = message_text(&c->request, "reason");
    const char *which = message_text(&c->request, "which");
    struct entry *e = entry_of(&c->request);
    if (!message_key_valid(reason, 64)) answer_error(c, "end: reason is missing or malformed");
    else if (which && (strcmp(which, "all") == 0 || strcmp(which, "started") == 0))
        begin_end_all(c);
    else if (e) serve_known(c, e, verb, late);
    else if (key && is_key(key)) end_unused(c, key, reason);
    else if (!key && message_field(&c->request, "number")) answer(c, "unknown");
    else answer_error(c, "end: key, number or which is missing or malformed");
}

/* --- The rest --------------------------------------------------------------------------------- */

static void serve_ping(struct connection *c) {
    uint64_t contexts = 0;
    for (size_t i = 0; i < CONTEXTS_MAX; i++) contexts += r.contexts[i].id[0] != '\0';
    answer_begin(c, "ready");
    put_number(&c->out, "version", PROTOCOL);
    put_text(&c->out, "hash", SOURCE_HASH);
    put_number(&c->out, "pid", (uint64_t)getpid());
    put_number(&c->out, "uptime", (uint64_t)(now_ms() - r.born));
    put_number(&c->out, "live", r.live);
    put_number(&c->out, "records", r.entries);
    put_number(&c->out, "contexts", contexts);
    answer_end(c);
}

/* A keeper whose resident was killed makes itself known to us. */
static void serve_adopt(struct connection *c) {
    const char *key = message_text(&c->request, "key");
    struct entry *e = is_key(key) ? entry_find(key) : NULL;
    if (c->passed >= 0 && is_key(key) && !e && (e = entry_add(key, RUNNING)))
        entry_describe(e, &c->request);
    if (e && !e->keeper && c->passed >= 0 && keeper_add(c->passed, c->peer, e, true))
        c->passed = -1;
    close(c->fd);
    c->fd = -1;
}

static void dispatch(struct connection *c, bool late) {
    const char *verb = message_text(&c->request, "verb");
    fault_set(&c->request);
    if (!verb) answer_error(c, "verb is missing");
    else if (strcmp(verb, "run") == 0 || strcmp(verb, "start") == 0) serve_start(c, verb, late);
    else if (strcmp(verb, "read") == 0 || strcmp(verb, "write") == 0 ||
             strcmp(verb, "resize") == 0 || strcmp(verb, "signal") == 0)
        serve_existing(c, verb, late);
    else if (strcmp(verb, "end") == 0) serve_end(c, verb, late);
    else if (strcmp(verb, "context") == 0) serve_context(c);
    else if (strcmp(verb, "ping") == 0 || strcmp(verb, "boot") == 0) serve_ping(c);
    else if (strcmp(verb, "list") == 0) serve_list(c);
    else if (strcmp(verb, "drop") == 0) serve_drop(c);
    else if (strcmp(verb, "prune") == 0) serve_prune(c);
    else if (strcmp(verb, "stop") == 0) begin_end_all(c);
    else if (strcmp(verb, "adopt") == 0) serve_adopt(c);
    else answer_error(c, "this version does not know the verb");
}

void serve(struct connection *c, size_t size) {
    if (!message_parse(&c->request, c->in.data + 4, size, false))
        answer_error(c, "the request is not a message");
    else dispatch(c, false);
}

void serve_again(struct connection *c, bool late) { dispatch(c, late); }

/* The client: started by a backend's `exec`, it makes one request and prints the answer as text.
 * What it was started with is what the command would have been started with. */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { TRIES = 5, BOOT_MS = 5000, ANSWER_S = 60, EXIT_MALFORMED = 64, EXIT_UNAVAILABLE = 69 };

static const char *mark;

/* --- What a command could see of this process ------------------------------------------------- */

static void wipe(char **strings) {
    for (; *strings; strings++) memset(*strings, 0, strlen(*strings));
}

static void hide(char **argv) {
    size_t room = strlen(argv[0]);
    wipe(argv);
    if (room >= 3) memcpy(argv[0], "sbx", 3);
    prctl(PR_SET_NAME, "sbx", 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static void put_signed(struct buffer *b, const char *name, int n) {
    char text[24];
    JOIN(text, n < 0 ? "-" : "", NUMBER((uint64_t)abs(n)));
    put_text(b, name, text);
}

/* Adds the context's fields, and no variables if the request has some; false if there is no
 * working directory. */
static bool put_context(struct buffer *b, const struct message *m, uint64_t ignored,
                        uint64_t blocked) {
    char cwd[4096], text[80];
    if (!getcwd(cwd, sizeof cwd) || cwd[0] != '/') return false;
    for (char **e = environ; *e && !message_field(m, "env"); e++) put_text(b, "env", *e);
    put_text(b, "cwd", cwd);
    mode_t mask = umask(077);
    umask(mask);
    put_number(b, "umask", mask);
    for (int i = 0; i < (int)RLIM_NLIMITS; i++) {
        struct rlimit limit;
        if (getrlimit(i, &limit) < 0) continue;
        JOIN(text, NUMBER((unsigned)i), ":", NUMBER(limit.rlim_cur), ":", NUMBER(limit.rlim_max));
        put_text(b, "rlimit", text);
    }
    put_number(b, "ignored", ignored);
    put_number(b, "blocked", blocked);
    put_signed(b, "nice", getpriority(PRIO_PROCESS, 0));
    put_signed(b, "oom", oom_get());
    return true;
}

/* --- The answer as text ----------------------------------------------------------------------- */

/* UTF-8 that no terminal or decoder on the way changes: no control characters but tab, newline. */
static bool is_plain(const char *text, size_t len) {
    const unsigned char *p = (const unsigned char *)text, *end = p + len;
    while (p < end) {
        unsigned c = *p++, more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;
        if (c < 0x80) {
            if ((c < 0x20 && c != '\t' && c != '\n') || c == 0x7f) return false;
            continue;
        }
        if (c < 0xc2 || c > 0xf4 || (size_t)(end - p) < more) return false;
        uint32_t point = c & (0x3fu >> more);
        for (; more; more--, p++) {
            if ((*p & 0xc0) != 0x80) return false;
            point = point << 6 | (*p & 0x3fu);
        }
        static const uint32_t least[] = {0xa0, 0x800, 0x10000}; /* no overlong, no C1 control */
        unsigned length = c >= 0xf0 ? 2 : c >= 0xe0 ? 1 : 0;
        if (point < least[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
            return false;
    }
    return true;
}

static bool is_section(const char *name) {
    return strcmp(name, "out") == 0 || strcmp(name, "err") == 0 || strcmp(name, "data") == 0;
}

static void add_escaped(struct buffer *b, const char *text, size_t len) {
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        bool plain = c > ' ' && c < 0x7f && c != '%';
        const char escaped[3] = {'%', "0123456789ABCDEF"[c >> 4], "0123456789ABCDEF"[c & 15]};
        buffer_add(b, plain ? text + i : escaped, plain ? 1 : 3);
    }
}

static bool print_answer(const struct message *m) {
    struct buffer head = {0}, sections = {0};
    buffer_add(&head, mark, strlen(mark));
    buffer_add(&head, " ", 1);
    const struct field *word = message_field(m, "word");
    if (word) add_escaped(&head, word->value, word->len);
    for (size_t i = 0; i < m->count; i++) {
        const struct field *f = &m->fields[i];
        if (f == word) continue;
        buffer_add(&head, " ", 1);
        add_escaped(&head, f->name, strlen(f->name));
        buffer_add(&head, "=", 1);
        if (!is_section(f->name)) {
            add_escaped(&head, f->value, f->len);
            continue;
        }
        bool plain = is_plain(f->value, f->len);
        size_t before = sections.len;
        if (plain) buffer_add(&sections, f->value, f->len);
        else base64_encode(&sections, f->value, f->len);
        char text[40];
        buffer_add(&head, text, JOIN(text, plain ? "raw:" : "b64:", NUMBER(sections.len - before)));
        buffer_add(&sections, "\n", 1);
        buffer_add(&sections, mark, strlen(mark));
        buffer_add(&sections, "\n", 1);
    }
    buffer_add(&head, "\n", 1);
    buffer_add(&sections, mark, strlen(mark));
    buffer_add(&sections, " end\n", 5);
    buffer_add(&head, sections.data, sections.len);
    bool printed = !head.failed && !sections.failed && write_all(1, head.data, head.len);
    buffer_free(&head);
    buffer_free(&sections);
    return printed;
}

/* `error` (0: none) is what the system said; then there is its own text if there is none. */
static int fail_with(const char *word, const char *name, const char *text, int error) {
    const char *number = NUMBER((uint64_t)error);
    if (!text) text = strerror(error);
    struct field fields[] = {{"word", word, strlen(word)},
                             {name, text, strlen(text)},
                             {"errno", number, strlen(number)}};
    struct message m = {fields, error ? 3 : 2};
    print_answer(&m);
    return EXIT_UNAVAILABLE;
}

static int fail(const char *word, const char *name, const char *text) {
    return fail_with(word, name, text, 0);
}

/* --- The request ------------------------------------------------------------------------------ */

static void close_others(int kept) {
#ifdef SYS_close_range
    if (syscall(SYS_close_range, kept + 1, ~0u, 0) == 0 &&
        (kept == 3 || syscall(SYS_close_range, 3, kept - 1, 0) == 0))
        return;
#endif
    for (int fd = 3; fd < 1024; fd++)
        if (fd != kept) close(fd);
}

/* Starts a resident, and waits until it listens or has found that there is one, which is 0; or the
 * error for which there will be none. */
static int boot(const char *path) {
    int ready[2], error = 0;
    if (pipe2(ready, O_CLOEXEC) < 0) return errno;
    pid_t pid = fork();
    if (pid < 0) error = errno;
    if (pid == 0) {
        setsid();
        pid_t second = fork(); /* so that nobody is its parent who does not expect it */
        if (second < 0) write_all(ready[1], (const char *)&errno, sizeof errno);
        if (second != 0) _exit(0);
        int null = open("/dev/null", O_RDWR);
        for (int fd = 0; fd < 3; fd++)
            if (null < 0 || dup2(null, fd) < 0) close(fd);
        close_others(ready[1]);
        resident_main(path, ready[1]);
    }
    close(ready[1]);
    if (pid > 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
        while (read(ready[0], &error, sizeof error) < 0 && errno == EINTR) {}
    }
    close(ready[0]);
    return error;
}

static int connect_or_boot(const char *path) {
    int64_t deadline = now_ms() + BOOT_MS;
    int error = 0;
    for (int i = 0;; i++) {
        int sock = folder_connect();
        if (sock >= 0) return sock;
        if (errno != ENOENT && errno != ECONNREFUSED && errno != EAGAIN) return -1;
        if (now_ms() > deadline) {
            if (error) errno = error;
            return -1;
        }
        if (i > 0) { /* another client's is about to listen, or one is about to go */
            struct timespec nap = {0, 5000000};
            nanosleep(&nap, NULL);
            if (folder_enter(path, true) != NULL) return -1;
        }
        error = boot(path);
        if (error && error != EAGAIN && error != ENOMEM) { /* those may pass in a moment */
            errno = error;
            return -1;
        }
    }
}

int client_connect(const char *path) {
    int sock = folder_connect();
    if (sock < 0 && folder_enter(path, true) == NULL) sock = connect_or_boot(path);
    return sock;
}

/* Returns false if the connection was closed before there was an answer. */
static bool receive(int sock, struct buffer *in) {
    static char chunk[65536];
    in->len = 0;
    while (in->len < 4 || in->len < frame_size(in->data) + 4) {
        ssize_t n = read(sock, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        buffer_add(in, chunk, (size_t)n);
        if (in->failed || (in->len >= 4 && frame_size(in->data) > ANSWER_MAX)) return false;
    }
    return true;
}

static void leave_as(const struct message *answer) {
    const char *word = message_text(answer, "word");
    if (!word || strcmp(word, "exited") != 0) return;
    int number = (int)message_number(answer, "signal", 0, 64);
    if (number > 0) {
        struct rlimit none = {0, 0};
        uint64_t mask = 0;
        setrlimit(RLIMIT_CORE, &none);
        set_signal(number, SIG_DFL);
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
        kill(getpid(), number);
    }
    exit((int)message_number(answer, "code", 0, 255));
}

static int ask(const char *path, const struct message *m, const struct buffer *request, bool stays) {
    struct buffer in = {0};
    struct timeval limit = {
        .tv_sec = (time_t)message_number(m, "wait", 0, INT32_MAX) / 1000 + ANSWER_S};
    for (int i = 0; i < TRIES; i++) {
        const char *why = folder_enter(path, true);
        if (why) return fail_with("refused", "text", why, errno);
        int sock = connect_or_boot(path);
        if (sock < 0) return fail_with("unavailable", "text", NULL, errno);
        setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        bool sent = send_with_fd(sock, request->data, request->len, -1) == (ssize_t)request->len;
        fault("client:after-send");
        bool received = sent && receive(sock, &in);
        close(sock);
        if (!received) continue;
        struct message answer = {0};
        fault("client:before-answer");
        if (!message_parse(&answer, in.data + 4, in.len - 4, false)) break;
        if (!print_answer(&answer)) return EXIT_UNAVAILABLE;
        if (message_number(m, "mimic", 0, 1) == 1) leave_as(&answer);
        if (stays && strcmp(message_text(&answer, "word"), "done") == 0) relay_run(path, 0, 1);
        return 0;
    }
    return EXIT_UNAVAILABLE; /* it may have been carried out: no answer is the answer */
}

int client_main(const char *verb_argument, int argc, char **argv) {
    struct buffer decoded = {0}, request = {0};
    struct message m = {0};
    uint64_t ignored, blocked;
    bool valid = true;
    char verb[16] = "";
    JOIN(verb, verb_argument);
    for (int i = 2; i < argc; i++) buffer_add(&decoded, argv[i], strlen(argv[i]));
    buffer_add(&decoded, "", 1);
    hide(argv);
    struct buffer body = {0};
    valid = !decoded.failed && base64url_decode(&body, decoded.data) &&
            message_parse(&m, body.data, body.len, false);
    mark = valid ? message_text(&m, "mark") : NULL;
    if (!mark || strlen(mark) < 8 || strlen(mark) > 64 || strpbrk(mark, " \n%")) return EXIT_MALFORMED;
    const char *path = message_text(&m, "dir");
    if (!path) return fail("error", "text", "dir is missing"), EXIT_MALFORMED;
    fault_set(&m);
    get_signals(&ignored, &blocked);
    for (int n = 1; n <= 64; n++)
        if (n != SIGCHLD && n != SIGKILL && n != SIGSTOP) set_signal(n, SIG_IGN);
    set_signal(SIGCHLD, SIG_DFL);
    static const char *const ours[] = {"verb", "dir", "mark", "mimic", NULL};
    bool stays = strcmp(verb, "relay") == 0;
    if (stays) JOIN(verb, "context"); /* which the commands that it passes on name */
    bool inherits = strcmp(verb, "context") == 0 || strcmp(verb, "run") == 0 ||
                    strcmp(verb, "start") == 0;
    frame_begin(&request);
    put_text(&request, "verb", verb);
    if (inherits && !message_field(&m, "context") && !put_context(&request, &m, ignored, blocked))
        return fail("notrun", "why", "nocwd"), 0;
    put_all(&request, &m, ours);
    frame_end(&request);
    if (request.failed) return fail("unavailable", "text", "no memory");
    wipe(environ);
    fault("client:before-lock");
    return ask(path, &m, &request, stays);
}

/* What the parts of the helper know of each other. See README.md for the picture. */
#ifndef HELPER_H
#define HELPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#define PROTOCOL 1
#ifndef SOURCE_HASH
#define SOURCE_HASH "unknown"
#endif

enum {
    KEY_MAX = 128,
    REQUEST_MAX = 8 << 20,      /* of a frame that comes in */
    FORWARD_MAX = 96 << 10,     /* of a request that is handed to a keeper */
    DATA_MAX = 64 << 10,        /* of one `data` */
    OUTPUT_MAX = 64 << 20,      /* of what is kept of one stream */
    ANSWER_MAX = 256 << 20,
    ROOTS_MAX = 64,             /* of one command */
};

/* message.c: netstrings, frames, base64 */

struct field {
    const char *name;
    const char *value;          /* followed by a NUL that does not count */
    size_t len;
};
struct message {
    struct field *fields;
    size_t count;
};
/* Grows; once memory is short it is `failed`, and whatever is put into it is nothing. */
struct buffer {
    char *data;
    size_t len, cap;
    bool failed;
};

/* Takes `body` apart in place (commas become NULs). `partly`: what is cut at the end is left out. */
bool message_parse(struct message *m, char *body, size_t len, bool partly);
void message_free(struct message *m);
const struct field *message_field(const struct message *m, const char *name);
const char *message_text(const struct message *m, const char *name);
/* Whether a request asks for a command's stderr and not for its stdout. */
bool reads_stderr(const struct message *m);
/* The number that `name` has, `missing` if it has none, or `max` + 1 if it is none up to `max`. */
uint64_t message_number(const struct message *m, const char *name, uint64_t missing, uint64_t max);
bool message_key_valid(const char *key, size_t max);

void buffer_add(struct buffer *b, const void *data, size_t len);
void buffer_free(struct buffer *b);
void put(struct buffer *b, const char *name, const void *value, size_t len);
void put_length(struct buffer *b, const char *name, size_t len);   /* `put` but for the value */
void put_text(struct buffer *b, const char *name, const char *value);
void put_number(struct buffer *b, const char *name, uint64_t value);
void put_all(struct buffer *b, const struct message *m, const char *const *except);
/* A frame: `frame_begin` at its start, `frame_end` when all is put. */
void frame_begin(struct buffer *b);
void frame_end(struct buffer *b);
size_t frame_size(const char *four_bytes);

/* Strings one after another; returns their length, or 0 if they do not fit. (printf and scanf would
 * be half of the binary.) */
#define JOIN(to, ...) join(to, sizeof to, (const char *const[]){__VA_ARGS__, NULL})
size_t join(char *to, size_t room, const char *const *parts);
#define NUMBER(n) decimal((char[21]){0}, n)
const char *decimal(char to[21], uint64_t n);

bool base64url_decode(struct buffer *to, const char *text);
void base64_encode(struct buffer *to, const char *data, size_t len);

/* io.c: time, descriptors, signals */

#ifdef FAULT_HOOKS
void fault_set(const struct message *m);
/* SIGKILLs a process at the point that a request has named. */
void fault_of(pid_t pid, const char *point);
#else
#define fault_set(m) ((void)0)
#define fault_of(pid, point) ((void)0)
#endif
#define fault(point) fault_of(getpid(), point)

int64_t now_ms(void);           /* monotonic */
uint64_t boot_ms(void);         /* since the boot, as /proc has it */
uint64_t wall_ms(void);         /* since the epoch */
bool write_all(int fd, const char *data, size_t len);
void set_nonblocking(int fd);
/* Sends what is left of `out` from `*sent` on. 1: all sent; 0: later; -1: the peer is gone. */
int send_some(int fd, const struct buffer *out, size_t *sent);
/* One datagram, or the begin of a stream's data, with at most two descriptors (-1: none). */
ssize_t send_with_fds(int sock, const char *data, size_t len, const int fds[2]);
ssize_t receive_with_fds(int sock, char *data, size_t len, int fds[2]);
ssize_t send_with_fd(int sock, const char *data, size_t len, int fd);
ssize_t receive_with_fd(int sock, char *data, size_t len, int *fd);
/* The real system call: libc hides signals of its own, and those could end us. */
void set_signal(int number, void (*handler)(int));
void get_signals(uint64_t *ignored, uint64_t *blocked);
/* Makes this process one that no command ends by accident: ignores all signals but SIGCHLD, which
 * only interrupts `wait_for`. */
void harden(void);
void adopt_orphans(void);       /* a part of it that a fork does not inherit */
struct pollfd;
void wait_for(struct pollfd *fds, size_t count, int64_t deadline);

/* folder.c: the state folder and its files; the working directory once it is entered */

/* NULL, or why not; `errno` is 0 where it is not the system that refuses. */
const char *folder_enter(const char *path, bool create);
int folder_connect(void);       /* to the resident, or -1 */
int marker_create(const char *key, const struct buffer *content);  /* locked, or -1 */
void marker_add(int marker, const struct buffer *content);
/* Makes the file of the next marker, which takes long where many files come and go. */
void marker_prepare(void);
/* Puts the record in the marker's place; `*marker` may be -1, as long as there is no file. */
bool record_write(const char *key, int *marker, const struct buffer *record);
enum record_state { RECORD_NONE, RECORD_RUNNING, RECORD_ENDED, RECORD_LOST };
/* Reads at most `max` bytes of a record; its message, taken apart, points into `raw`. */
enum record_state record_read(const char *key, size_t max, struct buffer *raw, struct message *m);
void record_cut(const char *key, size_t size); /* keeps its first bytes */
void record_remove(const char *key, const char *suffix);
bool mark_gone(const char *key);
bool is_marked_gone(const char *key);

/* stream.c: the head and the tail of an output */

struct stream {
    char *head, *tail;
    size_t head_len, head_cap, head_max;
    size_t tail_len, tail_cap, tail_max, tail_start;
    uint64_t total;
};
void stream_init(struct stream *s, size_t limit);
void stream_add(struct stream *s, const char *data, size_t len);
void stream_free(struct stream *s);
/* A stream that shows what a record kept. */
void stream_view(struct stream *s, const struct field *kept, uint64_t head, uint64_t total);
/* `NAME_total`, `NAME_head`, `NAME`. */
void stream_put(const struct stream *s, struct buffer *b, const char *name);
/* Bytes from `from` on that are kept and contiguous; `*at` is where they begin. */
size_t stream_available(const struct stream *s, uint64_t from, uint64_t *at);
/* `at`, `next`, `total`, `end`, `data`; returns whether it was the end. */
bool stream_put_chunk(const struct stream *s, struct buffer *b, uint64_t from, size_t max,
                      bool finished);

/* descriptors.c: what becomes descriptors 0 to 2 of a command (`io`), and our ends of it */

bool open_terminal(int io[3], int ours[3]);     /* both ends of ours are the same */
/* `piped`: stdin is a pipe, else it is empty; `merged`: stderr is where stdout is. */
bool open_pipes(bool piped, bool merged, int io[3], int ours[3]);

/* process.c: how a command is started, and how a tree is ended */

struct surroundings {           /* what the resident was started with */
    int mask, nice, oom;
    struct rlimit limits[RLIM_NLIMITS];
};
extern struct surroundings surroundings;
void surroundings_get(struct surroundings *s);
int oom_get(void);

enum stage { STAGE_CWD = 'c', STAGE_EXEC = 'x' };
struct failure {
    int stage, error;
};
/* Starts `arg`... of `request`; fields that it lacks are `context`'s (or NULL). `io` becomes
 * descriptors 0 to 2. What fails in the child comes through `*report`, which ends when it is
 * executed. -1: no process to be had. */
pid_t command_start(const struct message *request, const struct message *context, const int io[3],
                    bool tty, int *report);

/* tree.c: which processes are a command's, and how they are ended */

/* A process that whoever looks for a tree later begins at, and when it was started: between `from`
 * and `to`, in milliseconds since the boot. */
struct root {
    pid_t pid;
    uint64_t from, to;
};
struct roots {
    struct root *list;
    size_t count, room;
};
void roots_begin(struct roots *roots, pid_t pid, uint64_t from);
/* Adds the children of this process, which come to it when their parent ends; whether any is new. */
bool roots_look(struct roots *roots);
void roots_put(struct buffer *b, const struct roots *roots, size_t first);
/* Adds those that a message names, if it is of this boot and this PID namespace: its `place`. */
void roots_get(struct roots *roots, const struct message *m);
void roots_free(struct roots *roots);
const char *place(void);
/* Kills all descendants of this process except the trees of `spared`, and those of `roots` with
 * their sessions; `reap` collects the dead. Returns how many are left. */
size_t tree_kill(const pid_t *roots, size_t root_count, const pid_t *spared, size_t count,
                 int64_t limit_ms, void (*reap)(void));
/* The same, of those of `roots` whose number is not another's by now; 1 if it cannot be told. */
size_t roots_kill(const struct roots *roots, const pid_t *spared, size_t count, int64_t limit_ms,
                  void (*reap)(void));

/* The roles */

int client_main(const char *verb, int argc, char **argv);
int client_connect(const char *path);   /* to the resident, which is started if there is none, or -1 */
void relay_run(const char *path, int stdin_fd, int stdout_fd);
void resident_main(const char *path, int ready);        /* never returns */
struct keeper_start {
    const struct message *request, *context;
    const char *key;
    uint32_t number;
    bool tty, polled, is_volatile;
    int channel, asker, marker;
};
void keeper_main(const struct keeper_start *start);     /* never returns */

#endif

/* What the two halves of the resident share: resident.c keeps the books and the connections,
 * request.c answers. */
#ifndef RESIDENT_H
#define RESIDENT_H

#include "helper.h"

enum { BUCKETS = 4096, CONNECTIONS_MAX = 512, KEEPERS_MAX = 1024, CONTEXTS_MAX = 64,
       ENTRIES_MAX = 1 << 17, SETTLE_MS = 3000,
       FLUSH_MS = 10000 };  /* as long as no part of an answer is read */
#ifndef IDLE_MS
#define IDLE_MS 600000          /* how long a resident stays without a request or a command */
#define REST_MS 5000            /* how long a keeper waits for another command */
#endif

enum entry_state { RUNNING, ENDED, LOST, GONE, NOTRUN };
struct entry {
    char key[KEY_MAX + 1];
    enum entry_state state;
    char mode;                  /* r(un), s(tart), t(ty) */
    bool finished;              /* RUNNING: it has ended, and only its keeper has the record */
    bool unlisted;              /* its key is free again; it goes with its keeper */
    uint32_t number;
    uint64_t started, ended, used, bytes;
    struct keeper *keeper;
    struct entry *next;
};
struct keeper {
    int channel;
    pid_t pid;
    struct entry *entry;
    struct keeper *next;
    bool adopted, dead;         /* not a child of ours; gone */
    bool ending, silent;        /* asked to end its tree; has closed its channel */
    uint64_t told;              /* by which request to end all */
    int64_t rests_until;        /* without an entry: it waits for the next command */
};
struct connection {
    int fd, passed;             /* a descriptor that came with the request */
    pid_t peer;
    enum { READING, PARKED, ENDING, ANSWERED } state;
    int64_t deadline;
    struct buffer in, out;
    struct message request;     /* taken apart in `in` */
    size_t sent;
    char key[KEY_MAX + 1];      /* PARKED: of what it waits for */
    uint64_t serial, count;     /* ENDING: which such request; how many keepers were told */
};
struct context {
    char id[65];
    int64_t used;
    struct buffer raw;
    struct message fields;
};
struct resident {
    const char *path;
    int lock, listener;
    int64_t born, settle_at;    /* when to look again whether keepers that have not come are dead */
    int64_t used_at, looked_at; /* the last request or end; when it last found a reason to stay */
    bool stopped, inherited;    /* there were records when it was started */
    struct entry *buckets[BUCKETS];
    size_t entries, live, live_max, connected, connected_max;
    uint64_t left, serial;
    struct keeper *keepers;
    struct connection connections[CONNECTIONS_MAX];
    struct context contexts[CONTEXTS_MAX];
};
extern struct resident resident;

struct entry *entry_find(const char *key);
struct entry *entry_add(const char *key, enum entry_state state);
void entry_remove(struct entry *e);     /* for good once its keeper is gone */
struct entry *entry_by_number(uint64_t number);
void entry_describe(struct entry *e, const struct message *m);
struct keeper *keeper_add(int channel, pid_t pid, struct entry *e, bool adopted);
void hear_keeper(struct keeper *keeper);
void keeper_takes(struct keeper *keeper, struct entry *e);
void keeper_dismiss(struct keeper *keeper);     /* one that rests */
/* Ends what is nobody's: the children of killed keepers, and of those commands that a killed resident
 * knew what their records name: of `e`, or of all whose end is unknown, or of `all` that have ended. */
size_t end_orphans(const struct entry *e, bool all);
/* Whether a command without a keeper has ended, or is lost: then what is left of it is ended. */
bool entry_settle(struct entry *e);
/* Whether the folder says the same of a key that we know. */
bool entry_stored(const struct entry *e);
void answer_begin(struct connection *c, const char *word);
void answer_end(struct connection *c);
void answer(struct connection *c, const char *word);
void answer_error(struct connection *c, const char *text);
void resident_release(void);    /* in a keeper: what is not its own */

/* request.c */
void serve(struct connection *c, size_t size);          /* the request that c->in has */
void serve_again(struct connection *c, bool late);      /* that of a parked connection */
void end_all(struct connection *c, bool late);          /* goes on with it */

/* retention.c */
void serve_list(struct connection *c);
void serve_drop(struct connection *c);
void serve_prune(struct connection *c);

#endif

/* What the two halves of a keeper share: keeper.c lives with the command, answers.c tells of it. */
#ifndef KEEPER_H
#define KEEPER_H

#include "helper.h"

enum { IDS = 256, WAITERS_MAX = 256 };  /* writes that are remembered; who waits for an answer */

/* Somebody who is to be answered. */
struct waiter {
    int fd;
    enum { ASKS_RESULT, ASKS_CHUNK, ASKS_END } asks;
    bool until_data, answered, err;
    int written;                /* -1: nothing was to be written; 2: busy */
    uint64_t from;
    size_t max, sent;
    int64_t deadline;           /* of the wait, then of the flush */
    struct buffer out;
};

struct keeper_state {
    char key[KEY_MAX + 1];
    const char *mode;
    uint32_t number;
    bool polled, tty, is_volatile;
    int channel;                /* to the resident; -1 while there is none */
    int marker, report;         /* the lock; the pipe that tells whether it was executed */
    int in, out, err;           /* our ends; `in` of a terminal is `out` */
    pid_t pid;
    bool executed, exited, finished, stored, forgotten, emptied, quit, childless, adopted;
    int status;
    struct rusage usage;
    struct failure failure;
    uint64_t started, wall, left, bytes;
    int64_t born, deadline, store_at, store_pause, connect_at, look_at, look_pause;
    struct roots roots;
    char reason[65];
    struct stream streams[2];
    struct buffer input;
    bool input_ends;
    char ids[IDS][65];
    unsigned id_next;
    struct waiter waiters[WAITERS_MAX];
    size_t waiting;
};
extern struct keeper_state keeper_state;

void close_fd(int *fd);

/* answers.c */
void put_what(struct buffer *b);
void put_roots(struct buffer *b, size_t first);
void put_record(struct buffer *b, bool stored, bool to_disk);
int64_t due_at(const struct waiter *w);
void add_waiter(int fd, const struct message *m);
void answer_word(struct waiter *w, const char *word);
void drop_waiter(size_t i);
void serve_waiters(void);

/* keeper.c */
int accept_input(const struct message *m);  /* `data`, now or before: 1; 0: not; 2: busy */

#endif

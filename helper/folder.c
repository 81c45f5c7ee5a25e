/* The state folder: who may use it, and the one small file that each command has in it. */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define NEXT_MARKER "marker.next"   /* no key has a full stop */
#ifndef RENAME_NOREPLACE            /* musl has neither the call nor its flags */
#define RENAME_NOREPLACE 1
#endif

const char *folder_enter(const char *path, bool create) {
    errno = 0;
    if (!path || path[0] != '/') return "dir is not an absolute path";
    if (create && mkdir(path, 0700) < 0 && errno != EEXIST) return strerror(errno);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        if (errno != ELOOP && errno != ENOTDIR) return strerror(errno);
        errno = 0;
        return "dir is not a directory";
    }
    struct stat s;
    const char *why = NULL;
    errno = 0;
    if (fstat(fd, &s) < 0) why = strerror(errno);
    else if (s.st_uid != geteuid()) why = "dir belongs to another user";
    else if (s.st_mode & 077) why = "dir is open to other users";
    else if (fchdir(fd) < 0) why = strerror(errno);
    int error = errno;
    close(fd);
    errno = error;
    return why;
}

int folder_connect(void) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "sock"};
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* What cannot be written as a whole is not to take the room that there is. */
static void empty(int fd) {
    if (ftruncate(fd, 0) < 0) return;
    lseek(fd, 0, SEEK_SET);
}

static bool next_marker, renames_exclusively = true;

void marker_prepare(void) {
    if (next_marker || !renames_exclusively) return;
    /* It is not kept open: a file system with a file that is open for writing cannot be made
     * read-only. */
    int fd = open(NEXT_MARKER, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd >= 0) close(fd);
    next_marker = fd >= 0;
}

/* Gives the prepared file its name, as exclusively as `open` creates one. */
static bool marker_take(const char *key) {
    if (!next_marker) return false;
    next_marker = false;
    if (syscall(SYS_renameat2, AT_FDCWD, NEXT_MARKER, AT_FDCWD, key, RENAME_NOREPLACE) == 0)
        return true;
    /* An old kernel or its filter, or a file system that has no such thing. */
    if (errno == ENOSYS || errno == EINVAL || errno == EPERM) renames_exclusively = false;
    return false;
}

int marker_create(const char *key, const struct buffer *content) {
    bool taken = marker_take(key);
    int fd = open(key, O_WRONLY | (taken ? 0 : O_CREAT | O_EXCL) | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        int error = errno;
        if (taken) unlink(key);
        errno = error;
        return -1;
    }
    flock(fd, LOCK_EX | LOCK_NB);
    /* On a full disk it stays empty, and is a marker nevertheless. */
    if (!write_all(fd, "start\n", 6) || !write_all(fd, content->data, content->len))
        empty(fd);
    return fd;
}

void marker_add(int marker, const struct buffer *content) {
    off_t size = marker < 0 ? 0 : lseek(marker, 0, SEEK_END);
    if (size < 6 || content->failed) return; /* it is empty where the disk is full */
    if (!write_all(marker, content->data, content->len) && ftruncate(marker, size) < 0) return;
}

bool record_write(const char *key, int *marker, const struct buffer *record) {
    if (*marker < 0) {
        const struct buffer nothing = {0};
        *marker = marker_create(key, &nothing);
    }
    if (record->failed || *marker < 0) return false;
    /* The last write makes it a record; until then it is a marker, whatever happens. */
    if (lseek(*marker, 6, SEEK_SET) == 6 && write_all(*marker, record->data, record->len) &&
        ftruncate(*marker, 6 + (off_t)record->len) == 0) {
        fault("keeper:in-record");
        if (pwrite(*marker, "end  \n", 6, 0) == 6) return true;
    }
    empty(*marker);
    return false;
}

static bool read_file(int fd, size_t max, struct buffer *raw, bool *whole) {
    struct stat s;
    if (fstat(fd, &s) < 0 || !S_ISREG(s.st_mode)) return false;
    *whole = (uint64_t)s.st_size <= max;
    size_t want = *whole ? (size_t)s.st_size : max;
    raw->data = malloc(want + 1);
    if (!raw->data) return false;
    raw->cap = want + 1;
    while (raw->len < want) {
        ssize_t n = read(fd, raw->data + raw->len, want - raw->len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        raw->len += (size_t)n;
    }
    return true;
}

enum record_state record_read(const char *key, size_t max, struct buffer *raw, struct message *m) {
    enum record_state state = RECORD_NONE;
    *m = (struct message){0};
    /* A marker whose lock is gone was left by a keeper that was killed, or by one that has just made
     * it a record: then the second look finds that. */
    for (int look = 0; look < 2; look++) {
        buffer_free(raw);
        bool whole = true;
        int fd = open(key, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0) return errno == ENOENT ? RECORD_NONE : RECORD_LOST;
        if (!read_file(fd, max, raw, &whole)) {
            close(fd);
            return RECORD_LOST;
        }
        if (raw->len >= 6 && memcmp(raw->data, "end  \n", 6) == 0) {
            close(fd);
            bool parsed = message_parse(m, raw->data + 6, raw->len - 6, !whole);
            return parsed ? RECORD_ENDED : RECORD_LOST;
        }
        bool locked = flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
        close(fd);
        state = locked ? RECORD_RUNNING : RECORD_LOST;
        if (locked) break;
    }
    if (raw->len >= 6 && memcmp(raw->data, "start\n", 6) == 0)
        message_parse(m, raw->data + 6, raw->len - 6, true);
    return state;
}

void record_cut(const char *key, size_t size) {
    int fd = open(key, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return;
    if (ftruncate(fd, (off_t)size) < 0) errno = 0; /* one that cannot be written stays as it is */
    close(fd);
}

static void file_name(char name[KEY_MAX + 8], const char *key, const char *suffix) {
    join(name, KEY_MAX + 8, (const char *const[]){key, suffix, NULL});
}

void record_remove(const char *key, const char *suffix) {
    char name[KEY_MAX + 8];
    file_name(name, key, suffix);
    unlink(name);
}

bool mark_gone(const char *key) {
    char name[KEY_MAX + 8];
    file_name(name, key, ".gone");
    int fd = open(name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return false;
    close(fd);
    return true;
}

bool is_marked_gone(const char *key) {
    char name[KEY_MAX + 8];
    file_name(name, key, ".gone");
    return access(name, F_OK) == 0;
}

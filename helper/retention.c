/* What is kept of commands that have ended: list, drop and prune, as the resident answers them. */
#include <stdlib.h>
#include <string.h>

#include "resident.h"

#define r resident

static const char *state_name(const struct entry *e) {
    if (e->state == RUNNING) return e->finished ? "ended" : "running";
    return e->state == ENDED ? "ended" : e->state == LOST ? "lost" : "dropped";
}

void serve_list(struct connection *c) {
    answer_begin(c, "list");
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct entry *e = r.buckets[i]; e; e = e->next) {
            char text[KEY_MAX + 160];
            const char *mode = e->mode == 't' ? "tty" : e->mode == 's' ? "start" : "run";
            JOIN(text, e->key, ":", mode, ":", state_name(e), ":", NUMBER(e->number), ":",
                 NUMBER(e->started), ":", NUMBER(e->ended), ":", NUMBER(e->used), ":",
                 NUMBER(e->bytes));
            if (e->state != NOTRUN) put_text(&c->out, "entry", text);
        }
    answer_end(c);
}

static bool drop_entry(struct entry *e, bool mark) {
    if ((e->state == RUNNING && !e->finished) || e->state == NOTRUN) return false;
    if (e->state == RUNNING) {
        struct buffer b = {0};
        put_text(&b, "verb", "forget");
        if (!e->keeper || b.failed || send_with_fd(e->keeper->channel, b.data, b.len, -1) < 0) {
            buffer_free(&b);
            return false;
        }
        buffer_free(&b);
    }
    if (mark) mark_gone(e->key);
    record_remove(e->key, "");
    e->state = GONE;
    e->bytes = 0;
    if (mark) return true;
    record_remove(e->key, ".gone");
    entry_remove(e);
    return true;
}

static void answer_count(struct connection *c, uint64_t count) {
    answer_begin(c, "done");
    put_number(&c->out, "count", count);
    answer_end(c);
}

void serve_drop(struct connection *c) {
    bool mark = message_number(&c->request, "mark_gone", 1, 1) == 1;
    uint64_t count = 0;
    for (size_t i = 0; i < c->request.count; i++) {
        if (strcmp(c->request.fields[i].name, "key") != 0) continue;
        struct entry *e = entry_find(c->request.fields[i].value);
        if (e) count += drop_entry(e, mark);
    }
    answer_count(c, count);
}

static int newest_first(const void *a, const void *b) {
    const struct entry *const *one = a, *const *other = b;
    return (*one)->ended < (*other)->ended ? 1 : (*one)->ended > (*other)->ended ? -1 : 0;
}

/* All entries that are (not) marks, the newest first; the caller frees the list. */
static struct entry **sorted(bool gone, size_t *count) {
    struct entry **list = calloc(r.entries + 1, sizeof(struct entry *));
    *count = 0;
    for (size_t i = 0; list && i < BUCKETS; i++)
        for (struct entry *e = r.buckets[i]; e; e = e->next)
            if (gone ? e->state == GONE : e->state != GONE) list[(*count)++] = e;
    if (list) qsort(list, *count, sizeof *list, newest_first);
    return list;
}

void serve_prune(struct connection *c) {
    const struct message *m = &c->request;
    uint64_t keep = message_number(m, "keep", 0, INT64_MAX - 1);
    uint64_t keep_ms = message_number(m, "keep_ms", 0, INT64_MAX - 1);
    uint64_t keep_bytes = message_number(m, "keep_bytes", INT64_MAX, INT64_MAX);
    uint64_t keep_always = message_number(m, "keep_always", 0, INT64_MAX - 1);
    uint64_t keep_gone = message_number(m, "keep_gone", INT64_MAX, INT64_MAX);
    uint64_t now = wall_ms(), bytes = 0, seen = 0, count = 0;
    size_t n;
    struct entry **list = sorted(false, &n);
    for (size_t i = 0; list && i < n; i++) {
        struct entry *e = list[i];
        if (e->state == RUNNING && !e->finished) continue;
        bytes += e->bytes;
        bool young = seen < keep || e->ended + keep_ms > now;
        if (seen++ >= keep_always && !(young && bytes <= keep_bytes)) count += drop_entry(e, true);
    }
    free(list);
    list = sorted(true, &n);
    for (size_t i = 0; list && i < n; i++)
        if (i >= keep_gone) drop_entry(list[i], false);
    free(list);
    answer_count(c, count);
}

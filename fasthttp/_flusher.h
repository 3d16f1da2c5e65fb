/* A thread that sends what its owner has written and not yet sent.
 *
 * The owner holds bytes back to send several writes, or the answers of
 * several clients, in one go; should it be busy elsewhere, they leave within
 * two ticks all the same. The thread needs nothing of Python's: code that
 * keeps the GIL does not delay it.
 */
#ifndef FASTHTTP_FLUSHER_H
#define FASTHTTP_FLUSHER_H

#include <pthread.h>
#include <stdbool.h>
#include "_socket.h"

enum { FH_TICK_NS = 5000000, FH_TICKS_AWAKE = 10 };
/* So many clients are received for, answered and sent to together. Measured,
 * a hello over 256 connections: 0.97 of the time with rows of 16. */
enum { FH_ROW = 32 };
enum { FH_SEND_FLAGS = MSG_NOSIGNAL | MSG_DONTWAIT };

/* What is held back for one client: `data` and, behind it, `tail`. */
struct fh_piece {
    int fd;
    int flags; /* of send(2) */
    const char *data;
    size_t size;
    const char *tail;
    size_t tail_size;
    size_t sent;
    int failure; /* errno of a send */
    bool fresh;  /* held back for less than a tick */
};

struct fh_flusher {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct fh_piece pieces[FH_ROW];
    int count;
    bool asleep;
    bool ended;
};

static inline void
fh_flusher_init(struct fh_flusher *self)
{
    *self = (struct fh_flusher){.count = 0};
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->wake, NULL);
}

static inline void
fh_flusher_destroy(struct fh_flusher *self)
{
    pthread_cond_destroy(&self->wake);
    pthread_mutex_destroy(&self->lock);
}

/* This piece waits: the last one has grown, or a new one is there. The owner
 * sees to it that there are never more than FH_ROW.
 *
 * Only what is there already is guarded by the lock; a new piece is there
 * when it is counted. Measured: 110 instructions a request less. */
static inline void
fh_flusher_hold(struct fh_flusher *self, struct fh_piece piece)
{
    struct fh_piece *last = self->pieces + self->count;
    if (self->count && last[-1].fd == piece.fd) {
        pthread_mutex_lock(&self->lock);
        last--;
        piece.sent = last->sent;
        piece.failure = last->failure;
        /* What comes behind bytes that have left begins a tick of its own. */
        piece.fresh = last->sent == last->size || last->fresh;
        *last = piece;
        pthread_mutex_unlock(&self->lock);
    } else {
        *last = piece;
        __atomic_store_n(&self->count, self->count + 1, __ATOMIC_SEQ_CST);
        /* It was counted before, or is awake and will see it. */
        if (__atomic_load_n(&self->asleep, __ATOMIC_SEQ_CST)) {
            pthread_mutex_lock(&self->lock);
            pthread_cond_signal(&self->wake);
            pthread_mutex_unlock(&self->lock);
        }
    }
}

/* All pieces but the first `rest` are the owner's again, to be read. */
static inline void
fh_flusher_take(struct fh_flusher *self, int rest)
{
    pthread_mutex_lock(&self->lock);
    __atomic_store_n(&self->count, rest, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&self->lock);
}

static inline void
fh_flusher_end(struct fh_flusher *self)
{
    pthread_mutex_lock(&self->lock);
    self->ended = true;
    pthread_mutex_unlock(&self->lock);
    pthread_cond_signal(&self->wake);
}

/* What is left of a piece; returns how many of `parts` it fills, 0 to 2. */
static inline int
fh_piece_parts(const struct fh_piece *self, struct iovec *parts)
{
    int count = 0;
    size_t past = 0;
    if (self->sent < self->size) {
        parts[count].iov_base = (char *)self->data + self->sent;
        parts[count++].iov_len = self->size - self->sent;
    } else {
        past = self->sent - self->size;
    }
    if (past < self->tail_size) {
        parts[count].iov_base = (char *)self->tail + past;
        parts[count++].iov_len = self->tail_size - past;
    }
    return count;
}

static inline ssize_t
fh_send_parts(int fd, struct iovec *parts, int count, int flags)
{
    /* One part costs less so. */
    if (count == 1)
        return send(fd, parts->iov_base, parts->iov_len, flags);
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    return sendmsg(fd, &message, flags);
}

/* `result`: how much of it was sent, or a negative errno. */
static inline void
fh_piece_done(struct fh_piece *self, ssize_t result)
{
    if (result >= 0)
        self->sent += (size_t)result;
    else if (result != -EAGAIN && result != -EINTR)
        self->failure = (int)-result;
}

static inline void
fh_piece_send(struct fh_piece *self)
{
    struct iovec parts[2];
    int count = fh_piece_parts(self, parts);
    if (count && !self->failure) {
        ssize_t sent = fh_send_parts(self->fd, parts, count, self->flags);
        fh_piece_done(self, sent < 0 ? -errno : sent);
    }
}

/* What the thread runs, until fh_flusher_end. */
static inline void
fh_flusher_run(struct fh_flusher *self)
{
    const struct timespec tick = {0, FH_TICK_NS};
    int idle = 0;
    pthread_mutex_lock(&self->lock);
    while (!self->ended) {
        int count = __atomic_load_n(&self->count, __ATOMIC_SEQ_CST);
        if (count) {
            idle = 0;
            for (int i = 0; i < count; i++) {
                if (!self->pieces[i].fresh)
                    fh_piece_send(&self->pieces[i]);
                self->pieces[i].fresh = false;
            }
        } else if (++idle > FH_TICKS_AWAKE) {
            __atomic_store_n(&self->asleep, true, __ATOMIC_SEQ_CST);
            while (__atomic_load_n(&self->count, __ATOMIC_SEQ_CST) == 0
                   && !self->ended)
                pthread_cond_wait(&self->wake, &self->lock);
            self->asleep = false;
            continue;
        }
        pthread_mutex_unlock(&self->lock);
        nanosleep(&tick, NULL);
        pthread_mutex_lock(&self->lock);
    }
    pthread_mutex_unlock(&self->lock);
}

#endif

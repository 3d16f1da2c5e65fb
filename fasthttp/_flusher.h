/* A thread that sends what its owner has written and not yet sent.
 *
 * The owner holds bytes back to send several writes at once; should it be
 * busy elsewhere, they leave within two ticks all the same. The thread needs
 * nothing of Python's: code that keeps the GIL does not delay it.
 */
#ifndef FASTHTTP_FLUSHER_H
#define FASTHTTP_FLUSHER_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <time.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

enum { FH_TICK_NS = 1000000, FH_TICKS_AWAKE = 10 };

struct fh_flusher {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int fd; /* -1: nothing is held back */
    const char *data;
    size_t size;
    size_t sent;
    int failure; /* errno of a send */
    bool fresh;  /* held back for less than a tick */
    bool asleep;
    bool ended;
};

static inline void
fh_flusher_init(struct fh_flusher *self)
{
    *self = (struct fh_flusher){.fd = -1};
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->wake, NULL);
}

static inline void
fh_flusher_destroy(struct fh_flusher *self)
{
    pthread_cond_destroy(&self->wake);
    pthread_mutex_destroy(&self->lock);
}

/* `size` bytes at `data` wait; of those held before, more may be sent. */
static inline void
fh_flusher_hold(struct fh_flusher *self, int fd, const char *data, size_t size)
{
    pthread_mutex_lock(&self->lock);
    if (self->fd < 0) {
        self->fd = fd;
        self->data = data;
        self->size = self->sent = 0;
        self->failure = 0;
    }
    if (self->sent == self->size)
        self->fresh = true;
    self->size = size;
    bool asleep = self->asleep;
    pthread_mutex_unlock(&self->lock);
    if (asleep)
        pthread_cond_signal(&self->wake);
}

/* The bytes are the owner's again; returns how many of them were sent. */
static inline size_t
fh_flusher_take(struct fh_flusher *self, int *failure)
{
    pthread_mutex_lock(&self->lock);
    size_t sent = self->sent;
    *failure = self->failure;
    self->fd = -1;
    pthread_mutex_unlock(&self->lock);
    return sent;
}

static inline void
fh_flusher_end(struct fh_flusher *self)
{
    pthread_mutex_lock(&self->lock);
    self->ended = true;
    pthread_mutex_unlock(&self->lock);
    pthread_cond_signal(&self->wake);
}

static inline void
fh_flusher_send(struct fh_flusher *self)
{
    if (self->fresh) {
        self->fresh = false;
    } else if (self->sent < self->size && !self->failure) {
        ssize_t sent = send(self->fd, self->data + self->sent,
                            self->size - self->sent,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0)
            self->sent += (size_t)sent;
        else if (errno != EAGAIN && errno != EINTR)
            self->failure = errno;
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
        if (self->fd >= 0) {
            idle = 0;
            fh_flusher_send(self);
        } else if (++idle > FH_TICKS_AWAKE) {
            self->asleep = true;
            while (self->fd < 0 && !self->ended)
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

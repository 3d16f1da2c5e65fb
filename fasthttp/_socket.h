/* What differs between POSIX systems in the calls the transport makes. */
#ifndef FASTHTTP_SOCKET_H
#define FASTHTTP_SOCKET_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/epoll.h>
#include <sys/sendfile.h>
#endif

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif
#ifndef MSG_MORE
#define MSG_MORE 0
#endif

#ifdef __linux__
typedef struct epoll_event fh_event;
#else
/* Only `SelectorPoller` fills these. */
typedef struct {
    uint32_t events;
    union {
        int fd;
    } data;
} fh_event;
enum { EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CLOEXEC };
#define epoll_create1(flags) (errno = ENOSYS, -1)
#define epoll_ctl(poll, what, fd, event) (errno = ENOSYS, -1)
#define epoll_wait(poll, events, room, timeout) (errno = ENOSYS, -1)
#endif

/* Of what is written, the kernel is to hold at most so much unsent. */
static inline int
fh_bound_unsent(int fd, int size)
{
#ifdef TCP_NOTSENT_LOWAT
    return setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &size, sizeof size);
#else
    return 0;
#endif
}

static inline int
fh_accept(int listener, struct sockaddr_storage *peer, socklen_t *size)
{
#ifdef __linux__
    return accept4(listener, (struct sockaddr *)peer, size,
                   SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    int fd = accept(listener, (struct sockaddr *)peer, size);
    if (fd >= 0) {
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        fcntl(fd, F_SETFD, FD_CLOEXEC);
#ifdef SO_NOSIGPIPE
        int on = 1;
        setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
    }
    return fd;
#endif
}

/* Returns the bytes sent, 0 at the file's end, -1 with errno. */
static inline ssize_t
fh_sendfile(int fd, int file, int64_t offset, size_t count)
{
#ifdef __linux__
    /* sendfile(2) has no MSG_NOSIGNAL, so SIGPIPE is held back and taken. */
    off_t position = (off_t)offset;
    sigset_t broken_pipe, before;
    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken_pipe, &before);
    ssize_t sent = sendfile(fd, file, &position, count);
    int failure = errno;
    if (sent < 0 && failure == EPIPE) {
        struct timespec at_once = {0, 0};
        sigtimedwait(&broken_pipe, NULL, &at_once);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = failure;
    return sent;
#else
    char block[65536];
    ssize_t got = pread(file, block, count < sizeof block ? count
                                                          : sizeof block,
                        (off_t)offset);
    return got <= 0 ? got : send(fd, block, (size_t)got, MSG_NOSIGNAL);
#endif
}

static inline double
fh_seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline double
fh_monotonic(void)
{
    return fh_seconds(CLOCK_MONOTONIC);
}

/* The processor time that this thread has used. */
static inline double
fh_thread_time(void)
{
    return fh_seconds(CLOCK_THREAD_CPUTIME_ID);
}

#endif

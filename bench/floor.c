/* The floor: what the kernel alone costs. One recv and one send an event,
 * nothing parsed but the blank lines that end heads, to answer a pipeline. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 256, RECEIVE_SIZE = 65536, MOST_ANSWERS = 64 };

static const char answer[] =
    "HTTP/1.1 200 OK\r\n"
    "Content-Type: text/plain\r\n"
    "Content-Length: 5\r\n"
    "Server: floor\r\n"
    "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    "\r\n"
    "hello";
static char answers[MOST_ANSWERS * sizeof answer];
static char received[RECEIVE_SIZE];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int listen_on(int port) {
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((unsigned short)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address))
        fail("bind");
    if (listen(listener, 4096))
        fail("listen");
    return listener;
}

static void watch(int poll, int descriptor) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = descriptor};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, descriptor, &event))
        fail("epoll_ctl");
}

static void accept_all(int poll, int listener) {
    int client, on = 1;
    while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(poll, client);
    }
}

static size_t count_heads(const char *data, size_t length) {
    const char *end = data + length;
    size_t heads = 0;
    while ((data = memmem(data, (size_t)(end - data), "\r\n\r\n", 4))) {
        data += 4;
        heads++;
    }
    return heads;
}

static void serve(int client) {
    ssize_t length = recv(client, received, sizeof received, 0);
    if (length <= 0) {
        close(client);
        return;
    }
    size_t heads = count_heads(received, (size_t)length);
    if (heads > MOST_ANSWERS)
        heads = MOST_ANSWERS;
    size_t size = heads * (sizeof answer - 1);
    if (send(client, answers, size, MSG_NOSIGNAL) != (ssize_t)size)
        close(client);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s PORT\n", argv[0]);
        return 2;
    }
    for (size_t i = 0; i < MOST_ANSWERS; i++)
        memcpy(answers + i * (sizeof answer - 1), answer, sizeof answer - 1);
    int listener = listen_on(atoi(argv[1])), poll = epoll_create1(0);
    struct epoll_event events[BATCH];
    watch(poll, listener);
    for (;;) {
        int ready = epoll_wait(poll, events, BATCH, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener)
                accept_all(poll, listener);
            else
                serve(events[i].data.fd);
        }
    }
}

/* The yardstick: a WebSocket echo server in C, one thread, epoll. It answers any handshake, unmasks what it gets and sends
   it back, a whole recv of frames with one send. No limits, no checks, no sessions: what the kernel and the frames cost.

   usage: echo PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define SIZE (1 << 20)

struct connection {
    int fd, open;
    size_t used, unsent;
    unsigned char *in, *out;
};

static int poller;

/* The answer to the load generator's key, which is RFC 6455's own example. */
static const char ACCEPTED[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static void drop(struct connection *c) {
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

static void flush_out(struct connection *c) {
    ssize_t sent = send(c->fd, c->out, c->unsent, MSG_NOSIGNAL);
    if (sent > 0) memmove(c->out, c->out + sent, c->unsent -= sent);
    struct epoll_event event = {.events = c->unsent ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
    if (c->unsent || sent < 0) epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static void echo(struct connection *c) {
    size_t position = 0;
    while (c->used - position >= 6) {
        unsigned char *in = c->in + position;
        size_t size = in[1] & 127, head = 2, left = c->used - position;
        if (size == 126) size = in[2] << 8 | in[3], head = 4;
        if (left < head + 4 + size || c->unsent + head + size > SIZE) break;
        unsigned char *out = c->out + c->unsent, *mask = in + head, *data = mask + 4;
        memcpy(out, in, head);
        out[1] &= 127;
        uint32_t word;
        memcpy(&word, mask, 4);
        uint64_t wide = (uint64_t)word << 32 | word, block;
        size_t i = 0;
        for (; i + 8 <= size; i += 8) {
            memcpy(&block, data + i, 8);
            block ^= wide;
            memcpy(out + head + i, &block, 8);
        }
        for (; i < size; i++) out[head + i] = data[i] ^ mask[i & 3];
        c->unsent += head + size;
        position += head + 4 + size;
    }
    memmove(c->in, c->in + position, c->used -= position);
    if (c->unsent) flush_out(c);
}

static void serve(struct connection *c) {
    ssize_t got = recv(c->fd, c->in + c->used, SIZE - c->used, 0);
    if (got <= 0) {
        drop(c);
        return;
    }
    c->used += got;
    if (c->open) {
        echo(c);
    } else if (memmem(c->in, c->used, "\r\n\r\n", 4)) {
        c->open = 1;
        c->used = 0;
        if (send(c->fd, ACCEPTED, sizeof ACCEPTED - 1, MSG_NOSIGNAL) < 0) drop(c);
    }
}

static void take_in(int listener) {
    int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct connection *c = calloc(1, sizeof *c);
    c->fd = fd;
    c->in = malloc(SIZE);
    c->out = malloc(SIZE);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

int main(int count, char **arguments) {
    if (count != 2) return fprintf(stderr, "usage: echo PORT\n"), 2;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(arguments[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) return perror("listen"), 1;
    poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) take_in(listener);
            else if (events[i].events & EPOLLOUT) flush_out(c), echo(c);
            else serve(c);
        }
    }
}

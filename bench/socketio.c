/* A load generator for Socket.IO servers: one thread, epoll, WebSocket only. Compiled by bench/run_socketio.py.

   usage: socketio echo|ack|room PORT CLIENTS SECONDS SIZE PID
   echo: each client has one event on its way, and gets it back; ack: the same with an acknowledgement; room: a client asks for an
   event to all, and the next asks when all have it. Prints one line of JSON: operations a second, and the CPU time of the server
   (the process PID) in microseconds an operation. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define BUFFER 65536
#define WARM_UP 1.0
static const unsigned char MASK[4] = {0x37, 0xfa, 0x21, 0x3d};

enum mode { ECHO, ACK, ROOM };
enum phase { HANDSHAKE, OPENING, CONNECTED };

struct client {
    int fd, id;
    enum phase phase;
    size_t used;
    unsigned char in[BUFFER];
};

static struct client *clients;
static int count, port, size, process;
static enum mode mode;
static long operations, received, turn;

static void die(const char *what) {
    fprintf(stderr, "socketio: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* Seconds of CPU time that a process has used. */
static double cpu(void) {
    char path[64], text[2048];
    unsigned long user, kernel;
    snprintf(path, sizeof path, "/proc/%d/stat", process);
    FILE *file = fopen(path, "r");
    if (!file) die(path);
    size_t n = fread(text, 1, sizeof text - 1, file);
    text[n] = 0;
    fclose(file);
    if (sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel) != 2) die(path);
    return (user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

static void say(struct client *c, const char *text) {
    unsigned char frame[BUFFER];
    size_t length = strlen(text), head = 2;
    frame[0] = 0x81;
    frame[1] = 0x80 | (length < 126 ? length : 126);
    if (length >= 126) {
        frame[2] = length >> 8;
        frame[3] = length & 255;
        head = 4;
    }
    memcpy(frame + head, MASK, 4);
    head += 4;
    for (size_t i = 0; i < length; i++) frame[head + i] = text[i] ^ MASK[i & 3];
    if (send(c->fd, frame, head + length, MSG_NOSIGNAL) < 0) die("send");
}

/* Begin an operation. */
static void begin(struct client *c) {
    static char filler[4096], text[8192];
    if (!filler[0]) memset(filler, 'x', size);
    if (mode == ECHO) snprintf(text, sizeof text, "42[\"echo\",\"%s\"]", filler);
    if (mode == ACK) snprintf(text, sizeof text, "42%d[\"ack\",\"%s\"]", ++c->id, filler);
    if (mode == ROOM) snprintf(text, sizeof text, "42[\"shout\"]");
    say(c, text);
}

static void on_message(struct client *c, const char *text, size_t length) {
    if (length == 1 && text[0] == '2') {
        say(c, "3");
    } else if (length && text[0] == '0') {
        say(c, "40");
    } else if (length > 1 && text[0] == '4' && text[1] == '0') {
        c->phase = CONNECTED;
    } else if (length > 1 && text[0] == '4' && text[1] == (mode == ACK ? '3' : '2')) {
        if (mode != ROOM) {
            operations++;
            begin(c);
        } else if (++received == count) {
            received = 0;
            operations++;
            begin(&clients[++turn % count]);
        }
    } else {
        fprintf(stderr, "socketio: unexpected: %.*s\n", (int)(length < 80 ? length : 80), text);
        exit(1);
    }
}

/* Take the frames that have arrived completely; returns the number of bytes that they have. */
static size_t take_frames(struct client *c, size_t at) {
    while (c->used - at >= 2) {
        size_t length = c->in[at + 1] & 127, head = 2;
        if (length == 126) {
            if (c->used - at < 4) break;
            length = c->in[at + 2] << 8 | c->in[at + 3];
            head = 4;
        }
        if (c->used - at < head + length) break;
        if ((c->in[at] & 15) == 8) die("the server closed a WebSocket");
        if ((c->in[at] & 15) == 1) on_message(c, (char *)c->in + at + head, length);
        at += head + length;
    }
    return at;
}

static void on_readable(struct client *c) {
    ssize_t got = recv(c->fd, c->in + c->used, sizeof c->in - c->used, MSG_DONTWAIT);
    size_t at = 0;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) die("the server closed a connection");
    c->used += got;
    if (c->phase == HANDSHAKE) {
        unsigned char *end = memmem(c->in, c->used, "\r\n\r\n", 4);
        if (!end) return;
        if (memcmp(c->in, "HTTP/1.1 101", 12)) die("no WebSocket");
        at = end - c->in + 4;
        c->phase = OPENING;
    }
    at = take_frames(c, at);
    memmove(c->in, c->in + at, c->used - at);
    c->used -= at;
}

static void wait_and_read(int poll, int milliseconds) {
    struct epoll_event events[512];
    int n = epoll_wait(poll, events, 512, milliseconds);
    for (int i = 0; i < n; i++) on_readable(events[i].data.ptr);
}

static void open_client(struct client *c, int poll) {
    static const char request[] = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address)) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (send(c->fd, request, sizeof request - 1, MSG_NOSIGNAL) < 0) die("send");
    epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = c});
    for (double until = now() + 10; c->phase != CONNECTED;) {
        if (now() > until) die("a client was not connected in 10 seconds");
        wait_and_read(poll, 100);
    }
}

int main(int arguments, char **argument) {
    if (arguments != 7) die("usage: socketio echo|ack|room PORT CLIENTS SECONDS SIZE PID");
    mode = !strcmp(argument[1], "echo") ? ECHO : !strcmp(argument[1], "ack") ? ACK : ROOM;
    port = atoi(argument[2]);
    count = atoi(argument[3]);
    double seconds = atof(argument[4]);
    size = atoi(argument[5]) < 4000 ? atoi(argument[5]) : 4000;
    process = atoi(argument[6]);
    int poll = epoll_create1(0);
    clients = calloc(count, sizeof *clients);
    for (int i = 0; i < count; i++) open_client(&clients[i], poll);
    for (int i = 0; i < (mode == ROOM ? 1 : count); i++) begin(&clients[i]);
    for (double until = now() + WARM_UP; now() < until;) wait_and_read(poll, 100);
    double began = now(), used = cpu();
    long before = operations;
    while (now() < began + seconds) wait_and_read(poll, 100);
    double took = now() - began;
    used = cpu() - used;
    long done = operations - before;
    if (!done) die("no operation was completed");
    printf("{\"per_second\": %.0f, \"cpu_us\": %.3f, \"busy\": %.2f}\n", done / took, used / done * 1e6, used / took);
    return 0;
}

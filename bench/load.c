/* A load generator for Engine.IO servers: one thread, epoll, every echo checked. Compiled by bench/run.py.

   usage: load MODE PORT [name=value ...]   modes and their values: see main(). Prints one line of JSON. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BUFFER (1 << 20)
static const unsigned char MASK[4] = {0x37, 0xfa, 0x21, 0x3d};

struct settings {
    int port, home, connections, outstanding, size, raw, count, rate, workers, polling, sequential;
    double seconds;
};
static struct settings set = {0, 0, 50, 1, 32, 0, 100, 10000, 16, 0, 0, 2.0};

struct connection {
    int fd, posting, client;
    char *in, *out;
    size_t used, unsent, capacity;
    uint32_t sent, received;
    char sid[64];
};

static void die(const char *what) {
    fprintf(stderr, "load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* ---- blocking pieces: connecting and shaking hands */

static int dial_port(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static int dial(void) { return dial_port(set.port); }

static void say(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0) die("send");
        data += sent;
        size -= sent;
    }
}

/* Read until `until` has been seen; what comes with it stays in the buffer. */
static size_t hear(int fd, char *buffer, size_t used, const char *until) {
    for (;;) {
        buffer[used] = 0;
        if (used && memmem(buffer, used, until, strlen(until))) return used;
        if (used + 1 >= BUFFER) die("a response without an end");
        ssize_t got = recv(fd, buffer + used, BUFFER - 1 - used, 0);
        if (got <= 0) die("the server closed the connection");
        used += got;
    }
}

/* What Chrome sends with requests of its own origin, field by field, in its order. The session's cookie is another one for each
   client, as browsers have it: a server must not win by remembering one head. */
#define AGENT "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36\r\n"
#define BRAND "sec-ch-ua: \"Google Chrome\";v=\"156\", \"Not:A-Brand\";v=\"8\", \"Chromium\";v=\"156\"\r\n"
#define LANGUAGES "Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en-US;q=0.9,en;q=0.8,de;q=0.7\r\n"
#define COOKIES "Cookie: session=eyJ1c2VyIjoidG9iaSJ9.ZxYzAb.Q1w2e3r4t5z6%08x; csrftoken=Zx8K2mQ9pL4vN7tR1sW6yB3dF5gH%08x\r\n"

static uint32_t client_number(void) {
    static uint32_t made;
    return (uint32_t)getpid() << 16 ^ ++made;
}

/* The `t` that engine.io-client sends against caches: 8 characters, another one with each request. */
static const char *stamp(void) {
    static uint64_t made;
    static char text[9];
    uint64_t value = (made++ + ((uint64_t)getpid() << 24)) * 2862933555777941757u;
    for (int i = 0; i < 8; i++, value /= 36) text[i] = "0123456789abcdefghijklmnopqrstuvwxyz"[value % 36];
    return text;
}

static void open_websocket(struct connection *c, const char *sid) {
    char request[2048];
    c->fd = dial();
    if (!c->client) c->client = client_number();
    int size = snprintf(request, sizeof request,
        "GET /engine.io/?EIO=4&transport=websocket%s%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: Upgrade\r\n"
        "Pragma: no-cache\r\nCache-Control: no-cache\r\n" AGENT "Upgrade: websocket\r\nOrigin: http://127.0.0.1:%d\r\n"
        "Sec-WebSocket-Version: 13\r\n" LANGUAGES COOKIES "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
        sid ? "&sid=" : "", sid ? sid : "", set.port, set.port, c->client, c->client);
    say(c->fd, request, size);
    c->used = hear(c->fd, c->in, 0, "\r\n\r\n");
    if (!memmem(c->in, c->used, " 101 ", 5)) die("the upgrade was refused");
    char *end = memmem(c->in, c->used, "\r\n\r\n", 4);
    c->used -= end + 4 - c->in;
    memmove(c->in, end + 4, c->used);
}

/* The frame at the beginning of the buffer: its whole size, 0 if it is not complete; the payload through the pointers. */
static size_t frame_at(const char *in, size_t used, const char **payload, size_t *size) {
    const unsigned char *b = (const unsigned char *)in;
    size_t head = 2;
    if (used < 2) return 0;
    *size = b[1] & 127;
    if (*size == 126) {
        if (used < 4) return 0;
        *size = b[2] << 8 | b[3], head = 4;
    } else if (*size == 127) {
        if (used < 10) return 0;
        *size = 0, head = 10;
        for (int i = 2; i < 10; i++) *size = *size << 8 | b[i];
    }
    *payload = in + head;
    return used >= head + *size ? head + *size : 0;
}

static size_t put_frame(char *out, int opcode, const char *payload, size_t size) {
    size_t head = 2;
    out[0] = 0x80 | opcode;
    if (size < 126) out[1] = 0x80 | size;
    else if (size < 65536) out[1] = (char)(0x80 | 126), out[2] = size >> 8, out[3] = size, head = 4;
    else {
        out[1] = (char)(0x80 | 127), head = 10;
        for (int i = 0; i < 8; i++) out[2 + i] = (uint64_t)size >> (56 - 8 * i);
    }
    memcpy(out + head, MASK, 4);
    out += head + 4;
    uint64_t mask, word;
    size_t i = 0;
    memcpy(&mask, MASK, 4);
    memcpy((char *)&mask + 4, MASK, 4);
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, payload + i, 8);
        word ^= mask;
        memcpy(out + i, &word, 8);
    }
    for (; i < size; i++) out[i] = payload[i] ^ MASK[i & 3];
    return head + 4 + size;
}

/* Wait (blocking) for the next frame, take it out, and return its first byte. */
static char next_frame(struct connection *c) {
    const char *payload;
    size_t size, whole;
    while (!(whole = frame_at(c->in, c->used, &payload, &size))) {
        ssize_t got = recv(c->fd, c->in + c->used, BUFFER - c->used, 0);
        if (got <= 0) die("the server closed the WebSocket");
        c->used += got;
    }
    char first = size ? payload[0] : 0;
    memmove(c->in, c->in + whole, c->used -= whole);
    return first;
}

/* A GET, or a POST of `body`. */
static size_t poll_request(struct connection *c, char *out, const char *body, size_t size) {
    char length[64] = "", origin[64] = "";
    const char *type = body ? "Content-type: text/plain;charset=UTF-8\r\n" : "", *sid = c->sid;
    if (!c->client) c->client = client_number();
    if (body) {
        sprintf(length, "Content-Length: %zu\r\n", size);
        sprintf(origin, "Origin: http://127.0.0.1:%d\r\n", set.port);
    }
    int head = sprintf(out,
        "%s /engine.io/?EIO=4&transport=polling&t=%s%s%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: keep-alive\r\n%s"
        "sec-ch-ua-platform: \"Linux\"\r\n" AGENT "Accept: */*\r\n" BRAND "%ssec-ch-ua-mobile: ?0\r\n%s"
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nReferer: http://127.0.0.1:%d/\r\n"
        LANGUAGES COOKIES "\r\n",
        body ? "POST" : "GET", stamp(), *sid ? "&sid=" : "", sid, set.port, length, type, origin, set.port, c->client, c->client);
    if (body) memcpy(out + head, body, size);
    return head + (body ? size : 0);
}

/* A complete response with Content-Length or chunked body: its size, 0 if it is not all here. */
static size_t response_at(char *in, size_t used, char **body, size_t *size) {
    in[used] = 0;
    char *end = strstr(in, "\r\n\r\n");
    if (!end) return 0;
    *body = end + 4;
    char *length = strcasestr(in, "content-length:");
    if (length && length < end) {
        *size = strtoul(length + 15, NULL, 10);
        return used >= (size_t)(end + 4 - in) + *size ? end + 4 - in + *size : 0;
    }
    char *last = memmem(end, used - (end - in), "\r\n0\r\n\r\n", 7); /* one chunk is all that the peers send */
    if (!last) return 0;
    char *chunk = strstr(end + 4, "\r\n");
    *body = chunk + 2;
    *size = strtoul(end + 4, NULL, 16);
    return last + 7 - in;
}

static void take_sid(struct connection *c) {
    char *found = strstr(c->in, "\"sid\":\"");
    if (!found) found = strstr(c->in, "\"sid\": \"");
    if (!found) die("no session id in the handshake");
    char *start = strchr(found + 6, '"') + 1;
    size_t size = strcspn(start, "\"");
    if (size >= sizeof c->sid) die("a session id of more than 63 characters");
    memcpy(c->sid, start, size);
    c->sid[size] = 0;
}

/* Send a GET, or a POST of `body`, and wait for the answer. */
static void exchange(struct connection *c, const char *body, size_t size) {
    char request[4096], *answer;
    size_t length;
    say(c->fd, request, poll_request(c, request, body, size));
    c->used = 0;
    while (!response_at(c->in, c->used, &answer, &length)) {
        ssize_t got = recv(c->fd, c->in + c->used, BUFFER - 1 - c->used, 0);
        if (got <= 0) die("the server closed the connection");
        c->used += got;
    }
    if (strncmp(c->in, "HTTP/1.1 200", 12)) die("a poll was refused");
}

/* The session may have its home at another port than the one that it is spoken to through. */
static void open_polling(struct connection *c) {
    c->sid[0] = c->client = 0;
    c->fd = dial_port(set.home ? set.home : set.port);
    exchange(c, NULL, 0);
    take_sid(c);
    if (set.home) {
        close(c->fd);
        c->fd = dial();
    }
    c->used = 0;
}

static struct connection *make(size_t out) {
    struct connection *all = calloc(set.connections, sizeof *all);
    for (int i = 0; i < set.connections; i++) {
        all[i].in = malloc(BUFFER + 1);
        all[i].out = malloc(all[i].capacity = out);
    }
    return all;
}

/* ---- the event loop */

static int poller;

static void watch(struct connection *c, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(poller, how, c->fd, &event);
}

static void start_watching(struct connection *all) {
    poller = epoll_create1(0);
    for (int i = 0; i < set.connections; i++) {
        fcntl(all[i].fd, F_SETFL, O_NONBLOCK);
        watch(&all[i], EPOLLIN, EPOLL_CTL_ADD);
    }
}

static void flush_out(struct connection *c) {
    size_t before = c->unsent;
    if (!before) return;
    ssize_t sent = send(c->fd, c->out, c->unsent, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) die("send");
    if (sent < 0) sent = 0;
    memmove(c->out, c->out + sent, c->unsent -= sent);
    watch(c, c->unsent ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
}

/* As flush_out, without the system call that it makes where nothing was left the last time and nothing is now. */
static void write_out(struct connection *c) {
    ssize_t sent = send(c->fd, c->out, c->unsent, MSG_NOSIGNAL);
    if (sent == (ssize_t)c->unsent) c->unsent = 0;
    else {
        if (sent > 0) memmove(c->out, c->out + sent, c->unsent -= sent);
        else if (errno != EAGAIN) die("send");
        watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    }
}

static int read_in(struct connection *c) {
    ssize_t got = recv(c->fd, c->in + c->used, BUFFER - c->used, 0);
    if (got < 0 && errno == EAGAIN) return 0;
    if (got <= 0) die("the server closed a connection");
    c->used += got;
    return 1;
}

static char *template;

/* A message: "4" unless raw, its number in 8 hexadecimal digits, and filling. */
static size_t message(char *out, uint32_t number) {
    size_t prefix = set.raw ? 0 : 1;
    memcpy(out, template, prefix + set.size);
    for (int i = 0; i < 8 && i < set.size; i++) out[prefix + i] = "0123456789abcdef"[number >> (28 - 4 * i) & 15];
    return prefix + set.size;
}

static void add_message(struct connection *c) {
    static char payload[BUFFER];
    size_t size = message(payload, c->sent++);
    c->unsent += put_frame(c->out + c->unsent, 1, payload, size);
}

/* Take all frames out of `data`; returns how many were echoes, each of which must be the next one that is expected. What is
   left over goes to the connection's own buffer. */
static int take_echoes(struct connection *c, char *data, size_t used) {
    static char expected[BUFFER];
    const char *payload;
    size_t size, whole, position = 0;
    int count = 0;
    while ((whole = frame_at(data + position, used - position, &payload, &size))) {
        if (!set.raw && size == 1 && payload[0] == '2') c->unsent += put_frame(c->out + c->unsent, 1, "3", 1);
        else {
            size_t wanted = message(expected, c->received++);
            errno = 0;
            if (size != wanted || memcmp(payload, expected, size)) die("an echo is not what was sent");
            count++;
        }
        position += whole;
    }
    memmove(c->in, data + position, c->used = used - position);
    return count;
}

/* Read once and take the echoes. Where nothing is left over from the last time, all connections share one buffer, which stays
   in the cache. */
static int read_echoes(struct connection *c) {
    static char shared[BUFFER];
    if (c->used) return read_in(c) ? take_echoes(c, c->in, c->used) : 0;
    ssize_t got = recv(c->fd, shared, BUFFER, 0);
    if (got < 0 && errno == EAGAIN) return 0;
    if (got <= 0) die("the server closed a connection");
    return take_echoes(c, shared, got);
}

static void ws_echo(void) {
    struct connection *all = make((size_t)(set.size + 32) * (set.outstanding + 2));
    struct epoll_event events[256];
    for (int i = 0; i < set.connections; i++) {
        open_websocket(&all[i], NULL);
        if (!set.raw && next_frame(&all[i]) != '0') die("no open packet");
    }
    start_watching(all);
    for (int i = 0; i < set.connections; i++) {
        for (int k = 0; k < set.outstanding; k++) add_message(&all[i]);
        write_out(&all[i]);
    }
    double start = now(), end = start + set.seconds;
    uint64_t done = 0;
    while (now() < end || !done) {
        int ready = epoll_wait(poller, events, 256, 100);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) flush_out(c);
            if (!(events[i].events & EPOLLIN)) continue;
            int echoes = read_echoes(c);
            done += echoes;
            while (echoes--) add_message(c);
            if (c->unsent) write_out(c);
        }
    }
    printf("{\"operations\": %lu, \"seconds\": %.6f}\n", done, now() - start);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Open loop: message number k is due at start + k / rate, whether or not the server keeps up; late is counted as late. */
static void latency(void) {
    set.size = 32;
    struct connection *all = make(BUFFER);
    struct epoll_event events[256];
    uint64_t total = (uint64_t)(set.rate * set.seconds), sent = 0, done = 0;
    double *took = malloc(total * sizeof *took);
    for (int i = 0; i < set.connections; i++) {
        open_websocket(&all[i], NULL);
        if (!set.raw && next_frame(&all[i]) != '0') die("no open packet");
    }
    start_watching(all);
    double start = now();
    while (done < total && now() < start + 3 * set.seconds) {
        uint64_t due = (uint64_t)((now() - start) * set.rate);
        for (; sent < due && sent < total; sent++) {
            struct connection *c = &all[sent % set.connections];
            add_message(c);
            write_out(c);
        }
        int ready = epoll_wait(poller, events, 256, 0);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            uint32_t first = c->received;
            if (!(events[i].events & EPOLLIN)) continue;
            int echoes = read_echoes(c);
            double at = now() - start;
            for (int k = 0; k < echoes; k++)
                took[done++] = at - (double)((uint64_t)(first + k) * set.connections + (c - all)) / set.rate;
        }
    }
    qsort(took, done, sizeof *took, ascending);
    if (!done) die("no message came back");
    printf("{\"operations\": %lu, \"sent\": %lu, \"p50\": %.6f, \"p99\": %.6f, \"max\": %.6f}\n", done, sent, took[done / 2],
           took[done * 99 / 100], took[done - 1]);
}

/* The size of the next response with status 200, with its body; 0 if it has not arrived. */
static size_t next_response(struct connection *c, char **body, size_t *length) {
    size_t whole = read_in(c) ? response_at(c->in, c->used, body, length) : 0;
    errno = 0;
    if (whole && strncmp(c->in, "HTTP/1.1 200", 12)) die("a request was refused");
    return whole;
}

static void check_ok(const char *body, size_t length) {
    if (length != 2 || strncasecmp(body, "ok", 2)) die("a POST was not answered with ok");
}

/* Whether a poll was answered with the echo of the next message, and not with a ping or noop. */
static int is_echo(struct connection *c, const char *answer, size_t length, char *body) {
    if (length == 1 && (answer[0] == '2' || answer[0] == '6')) return 0;
    size_t wanted = message(body, c->received++);
    if (length != wanted || memcmp(answer, body, wanted)) die("an echo is not what was sent");
    return 1;
}

static void poll_echo(void) {
    struct connection *all = make(4096 + set.size);
    struct epoll_event events[256];
    char *body = malloc(set.size + 2), *answer;
    size_t length, whole;
    for (int i = 0; i < set.connections; i++) open_polling(&all[i]);
    start_watching(all);
    uint64_t done = 0;
    for (int i = 0; i < set.connections; i++) {
        struct connection *c = &all[i];
        c->posting = 1;
        c->unsent = poll_request(c, c->out, body, message(body, c->sent++));
        write_out(c);
    }
    double start = now(), end = start + set.seconds;
    while (now() < end || !done) {
        int ready = epoll_wait(poller, events, 256, 100);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (!(whole = next_response(c, &answer, &length))) continue;
            if (c->posting) {
                check_ok(answer, length);
                c->posting = 0;
            } else if (is_echo(c, answer, length, body)) {
                done++;
                c->posting = 1;
            }
            memmove(c->in, c->in + whole, c->used -= whole);
            c->unsent = c->posting ? poll_request(c, c->out, body, message(body, c->sent++))
                                   : poll_request(c, c->out, NULL, 0);
            write_out(c);
        }
    }
    printf("{\"operations\": %lu, \"seconds\": %.6f}\n", done, now() - start);
}

/* As browsers do it: a second connection has a GET waiting when the POST comes, and the next one follows at once. The next
   message is sent when the echo and the POST's `ok` are there. */
static void poll_wait(void) {
    int sessions = set.connections;
    set.connections *= 2;
    struct connection *all = make(4096 + set.size);
    struct epoll_event events[256];
    char *body = malloc(set.size + 2), *answer;
    size_t length, whole;
    for (int i = 0; i < sessions; i++) {
        struct connection *getting = &all[2 * i], *posting = getting + 1;
        open_polling(getting);
        memcpy(posting->sid, getting->sid, sizeof posting->sid);
        posting->client = getting->client;
        posting->fd = dial();
    }
    start_watching(all);
    uint64_t done = 0;
    for (int i = 0; i < sessions; i++) {
        struct connection *getting = &all[2 * i], *posting = getting + 1;
        getting->unsent = poll_request(getting, getting->out, NULL, 0);
        write_out(getting);
        posting->posting = 2;
        posting->unsent = poll_request(posting, posting->out, body, message(body, posting->sent++));
        write_out(posting);
    }
    double start = now(), end = start + set.seconds;
    while (now() < end || !done) {
        int ready = epoll_wait(poller, events, 256, 100);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr, *posting = &all[(c - all) | 1];
            if (!(whole = next_response(c, &answer, &length))) continue;
            if (c == posting) {
                check_ok(answer, length);
                posting->posting--;
            } else if (is_echo(c, answer, length, body)) {
                done++;
                posting->posting--;
            }
            memmove(c->in, c->in + whole, c->used -= whole);
            if (c != posting) {
                c->unsent = poll_request(c, c->out, NULL, 0);
                write_out(c);
            }
            if (!posting->posting) {
                posting->posting = 2;
                posting->unsent = poll_request(posting, posting->out, body, message(body, posting->sent++));
                write_out(posting);
            }
        }
    }
    printf("{\"operations\": %lu, \"seconds\": %.6f}\n", done, now() - start);
}

static void http(void) {
    struct connection *all = make(4096);
    struct epoll_event events[256];
    char request[1024], *answer;
    size_t length, whole;
    int size = sprintf(request, "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: */*\r\n" AGENT LANGUAGES COOKIES "\r\n",
                       set.port, 1, 1);
    for (int i = 0; i < set.connections; i++) all[i].fd = dial();
    start_watching(all);
    for (int i = 0; i < set.connections; i++) say(all[i].fd, request, size);
    uint64_t done = 0;
    double start = now(), end = start + set.seconds;
    while (now() < end || !done) {
        int ready = epoll_wait(poller, events, 256, 100);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (!(whole = next_response(c, &answer, &length))) continue;
            memmove(c->in, c->in + whole, c->used -= whole);
            done++;
            say(c->fd, request, size);
        }
    }
    printf("{\"operations\": %lu, \"seconds\": %.6f}\n", done, now() - start);
}

/* One client asks for messages of `size` bytes to everybody: `count` at once, or one at a time, of which each is asked for when
   the one before has reached everybody. The time until all have all of them. */
static void broadcast(void) {
    struct connection *all = make(4096);
    struct epoll_event events[256];
    for (int i = 0; i < set.connections; i++) {
        open_websocket(&all[i], NULL);
        if (next_frame(&all[i]) != '0') die("no open packet");
    }
    start_watching(all);
    char order[64];
    int size = sprintf(order, "4broadcast:%d:%d", set.sequential ? 1 : set.count, set.size);
    double start = now(), end = start + set.seconds;
    uint64_t done = 0, due = 0, total = set.sequential ? UINT64_MAX : (uint64_t)set.count * set.connections;
    while (done < total) {
        if (done == due) {
            if (set.sequential && now() > end) break;
            due += (uint64_t)set.connections * (set.sequential ? 1 : set.count);
            all[0].unsent = put_frame(all[0].out, 1, order, size);
            write_out(&all[0]);
        }
        int ready = epoll_wait(poller, events, 256, 1000);
        if (now() > start + 60) die("the broadcast did not arrive within 60 s");
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            const char *payload;
            size_t length, whole, position = 0;
            if (!read_in(c)) continue;
            while ((whole = frame_at(c->in + position, c->used - position, &payload, &length))) {
                if (length == (size_t)set.size + 1 && payload[0] == '4') done++;
                position += whole;
            }
            memmove(c->in, c->in + position, c->used -= position);
        }
    }
    printf("{\"operations\": %lu, \"seconds\": %.6f}\n", done, now() - start);
}

/* ---- sessions that come and go: blocking clients, several processes on the load's core */

static void one_websocket(struct connection *c) {
    c->client = 0;
    open_websocket(c, NULL);
    if (next_frame(c) != '0') die("no open packet");
    char frame[16];
    say(c->fd, frame, put_frame(frame, 8, "\x03\xe8", 2));
    close(c->fd);
}

static void one_polling(struct connection *c) {
    open_polling(c);
    exchange(c, "1", 1);
    close(c->fd);
}

static void one_upgrade(struct connection *c) {
    struct connection ws = {.in = c->out};
    char frame[32], request[4096];
    open_polling(c);
    ws.client = c->client;
    open_websocket(&ws, c->sid);
    say(ws.fd, frame, put_frame(frame, 1, "2probe", 6));
    say(c->fd, request, poll_request(c, request, NULL, 0));
    if (next_frame(&ws) != '3') die("the probe was not answered");
    c->used = 0;
    char *answer;
    size_t length;
    while (!response_at(c->in, c->used, &answer, &length)) {
        ssize_t got = recv(c->fd, c->in + c->used, BUFFER - c->used, 0);
        if (got <= 0) die("the poll was not answered");
        c->used += got;
    }
    say(ws.fd, frame, put_frame(frame, 1, "5", 1));
    say(ws.fd, frame, put_frame(frame, 1, "4hello", 6));
    while (next_frame(&ws) != '4');
    say(ws.fd, frame, put_frame(frame, 8, "\x03\xe8", 2));
    close(ws.fd);
    close(c->fd);
}

static void churn(void (*one)(struct connection *)) {
    uint64_t *done = mmap(NULL, set.workers * sizeof *done, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), sum = 0;
    double start = now(), end = start + set.seconds;
    for (int i = 0; i < set.workers; i++) {
        if (fork()) continue;
        set.connections = 1;
        struct connection *c = make(BUFFER + 1);
        while (now() < end) one(c), done[i]++;
        _exit(0);
    }
    for (int i = 0, status; i < set.workers; i++)
        if (wait(&status) < 0 || status) exit(1);
    for (int i = 0; i < set.workers; i++) sum += done[i];
    printf("{\"operations\": %lu, \"seconds\": %.6f}\n", sum, now() - start);
}

/* Open sessions and only answer their pings, until standard input ends; those that poll have a GET waiting. */
static void idle(void) {
    char *shared = malloc(BUFFER + 1), pong[16];
    struct connection *all = calloc(set.connections, sizeof *all), input = {.fd = 0};
    struct epoll_event events[256];
    size_t size = put_frame(pong, 1, "3", 1);
    for (int i = 0; i < set.connections; i++) {
        all[i].in = shared;
        if (set.polling) {
            char request[4096];
            open_polling(&all[i]);
            say(all[i].fd, request, poll_request(&all[i], request, NULL, 0));
        } else {
            open_websocket(&all[i], NULL);
            if (next_frame(&all[i]) != '0') die("no open packet");
        }
        all[i].used = 0;
    }
    start_watching(all);
    watch(&input, EPOLLIN, EPOLL_CTL_ADD);
    printf("{\"operations\": %d}\n", set.connections);
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (c == &input) return;
            ssize_t got = recv(c->fd, shared, BUFFER, 0);
            if (got <= 0) die("the server closed an idle session");
            if (got == 3 && shared[2] == '2') say(c->fd, pong, size);
        }
    }
}

static void websocket_churn(void) { churn(one_websocket); }
static void polling_churn(void) { churn(one_polling); }
static void upgrade_churn(void) { churn(one_upgrade); }

int main(int count, char **arguments) {
    struct { const char *name; void (*run)(void); } modes[] = {
        {"ws-echo", ws_echo}, {"latency", latency}, {"poll-echo", poll_echo}, {"poll-wait", poll_wait}, {"http", http}, {"broadcast", broadcast},
        {"ws-churn", websocket_churn}, {"poll-churn", polling_churn}, {"upgrade-churn", upgrade_churn}, {"idle", idle},
    };
    struct { const char *name; int *value; } values[] = {
        {"home", &set.home}, {"connections", &set.connections}, {"outstanding", &set.outstanding}, {"size", &set.size}, {"raw", &set.raw},
        {"count", &set.count}, {"rate", &set.rate}, {"workers", &set.workers}, {"polling", &set.polling},
        {"sequential", &set.sequential},
    };
    struct rlimit files = {65536, 65536};
    setrlimit(RLIMIT_NOFILE, &files);
    if (count < 3) die("usage: load MODE PORT [name=value ...]");
    set.port = atoi(arguments[2]);
    for (int i = 3; i < count; i++) {
        char *equals = strchr(arguments[i], '=');
        if (!equals) die("expected name=value");
        if (!strncmp(arguments[i], "seconds=", 8)) set.seconds = atof(equals + 1);
        for (size_t k = 0; k < sizeof values / sizeof *values; k++)
            if (!strncmp(arguments[i], values[k].name, equals - arguments[i])) *values[k].value = atoi(equals + 1);
    }
    template = malloc(set.size + 64);
    memset(template, 'x', set.size + 64);
    template[0] = set.raw ? 'x' : '4';
    for (size_t k = 0; k < sizeof modes / sizeof *modes; k++)
        if (!strcmp(arguments[1], modes[k].name)) return modes[k].run(), 0;
    die("unknown mode");
}

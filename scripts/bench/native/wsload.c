/* wsload: WebSocket clients that count what they get and how old it is.
 *
 *   wsload host=127.0.0.1 port=N clients=N threads=N path=/PATH expect=N quiet=S limit=S
 *          [stops=0|1] [tokens=FILE] [token_by=header|protocol|message] [hello=FILE]
 *          [speak=ws|nats] [deflate=1] [window=N]
 *
 * path and hello may hold %d, which becomes the client's index. Line i of the tokens is client
 * i's bearer token, sent in the Authorization header, in Sec-WebSocket-Protocol, or as a request
 * behind the upgrade; then a client is up when it was told so. hello goes out as one message behind the upgrade. At most `window` clients
 * are in their handshake at a time. Each thread serves its clients by epoll.
 *
 * A message is a delivery when it holds "t":NUMBER near its start, or "time":NUMBER and no STOP,
 * the CLOCK_MONOTONIC time of sending in ns; one that holds STOP is its client's last. With speak=nats the payloads are a
 * stream of NATS's protocol. With deflate=1 permessage-deflate is offered; compressed messages
 * are counted, not looked into.
 *
 * Standard output, lines of JSON by their "event":
 *   ready     all clients are up or refused
 *   progress  every half second
 *   done      the run is over: see below
 * Standard input:
 *   a line    nothing more will be sent to the clients. The run is over as soon as `expect`
 *             deliveries are there and every client has had its STOP (stops=0: none comes),
 *             when all have theirs and half a second is quiet, or after `quiet` quiet seconds.
 *   its end   leave
 * The clients stay connected until then, and answer pings.
 */
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define BUFFER (256 * 1024)
#define NEAR 128 /* bytes of a message in which its marks are looked for */
#define EVENTS 512
#define PROGRESS_NS (NS_PER_S / 2)
#define PORTS_PER_ADDRESS 20000

/* Ages in a histogram: 64 steps per power of two, so a value is right to 1.6 %. */
#define UNIT_BITS 10 /* of 1.024 us */
#define STEP_BITS 6
#define STEPS (1 << STEP_BITS)
#define BUCKETS ((64 - UNIT_BITS - STEP_BITS + 1) * STEPS)

struct tail { /* bytes of a message that is not whole yet */
    uint8_t *bytes;
    size_t size, room;
};

struct client {
    int fd; /* -1: gone */
    uint32_t index;
    int up, waits, stopped;
    uint64_t frames;
    struct tail wire, stream;
};

struct load { /* a thread; the main thread reads its counters */
    pthread_t thread;
    int number, epoll, started, size;
    struct client *clients;
    _Atomic int tid, up, refused, gone, stopped;
    _Atomic uint64_t frames, packed, other, bytes, first_ns, last_ns, stop_ns, up_ns;
    uint64_t ages[BUCKETS], oldest, fresh;
    int fresh_stops;
    char refusal[64];
    _Atomic int close_code;
    uint8_t *buffer, *stream;
};

static const char *host, *path, *hello;
static char **tokens;
static long token_count;
static const char *token_by;
static int port, clients, threads, window, stops, speaks_nats, offers_deflate, by_message;

/* ---- counting ------------------------------------------------------------------------- */

static void add(_Atomic uint64_t *counter, uint64_t n) {
    /* one writer: no locked instruction is needed */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static int bucket_of(uint64_t ns) {
    uint64_t units = ns >> UNIT_BITS;
    if (units < STEPS) return (int)units;
    int shift = 63 - __builtin_clzll(units) - STEP_BITS;
    return (shift + 1) * STEPS + (int)((units >> shift) - STEPS);
}

static uint64_t middle_of(int bucket) {
    if (bucket < STEPS) return ((uint64_t)bucket << UNIT_BITS) + (1u << (UNIT_BITS - 1));
    int shift = bucket / STEPS - 1;
    uint64_t units = (uint64_t)(bucket % STEPS + STEPS) << shift;
    return (units << UNIT_BITS) + (1ull << (UNIT_BITS + shift - 1));
}

static void count_delivery(struct load *l, struct client *c) {
    c->frames++;
    l->fresh++;
}

/* Show what one recv brought to the main thread. */
static void publish_counts(struct load *l, uint64_t bytes, uint64_t now) {
    add(&l->bytes, bytes);
    if (l->fresh) {
        add(&l->frames, l->fresh);
        l->fresh = 0;
        if (!l->first_ns) l->first_ns = now;
        l->last_ns = now;
    }
    if (l->fresh_stops) { /* last: the run may be over when these are seen */
        l->stop_ns = now;
        l->stopped += l->fresh_stops;
        l->fresh_stops = 0;
    }
}

static void count_age(struct load *l, const uint8_t *digits, const uint8_t *end, uint64_t now) {
    uint64_t sent = 0;
    while (digits < end && *digits == ' ') digits++;
    while (digits < end && *digits >= '0' && *digits <= '9') sent = sent * 10 + (*digits++ - '0');
    uint64_t age = now > sent ? now - sent : 0;
    l->ages[bucket_of(age)]++;
    if (age > l->oldest) l->oldest = age;
}

static void message(struct load *l, struct client *c, const uint8_t *p, size_t n, uint64_t now) {
    size_t near = n < NEAR ? n : NEAR;
    const uint8_t *mark = memmem(p, near, "\"t\":", 4);
    if (mark) {
        count_delivery(l, c);
        count_age(l, mark + 4, p + n, now);
    } else if (memmem(p, near, "STOP", 4)) {
        if (!c->stopped) l->fresh_stops++;
        c->stopped = 1;
    } else if ((mark = memmem(p, near, "\"time\":", 7))) {
        count_delivery(l, c);
        count_age(l, mark + 7, p + n, now);
    } else {
        add(&l->other, 1);
    }
}

/* ---- sockets -------------------------------------------------------------------------- */

static void keep(struct tail *t, const uint8_t *p, size_t n) {
    if (n > t->room) {
        t->room = n * 2;
        t->bytes = realloc(t->bytes, t->room);
        if (!t->bytes) die("memory");
    }
    if (n) memcpy(t->bytes, p, n);
    t->size = n;
}

static void leave(struct client *c, _Atomic int *counter) {
    close(c->fd);
    c->fd = -1;
    (*counter)++;
}

/* Send a masked frame; the key is zero, so the payload goes as it is. */
static void send_frame(struct client *c, int opcode, const void *payload, size_t n) {
    uint8_t *frame = malloc(n + 14);
    if (!frame) die("memory");
    size_t head = n < 126 ? 2 : 4;
    frame[0] = (uint8_t)(0x80 | opcode);
    frame[1] = (uint8_t)(0x80 | (head == 2 ? n : 126));
    if (head == 4) frame[2] = (uint8_t)(n >> 8), frame[3] = (uint8_t)n;
    memset(frame + head, 0, 4);
    memcpy(frame + head + 4, payload, n);
    if (send(c->fd, frame, head + 4 + n, MSG_NOSIGNAL) < 0) perror("send");
    free(frame);
}

/* Copy text with every %d replaced by the client's index. */
static size_t expand(char *to, size_t room, const char *text, uint32_t index) {
    size_t n = 0;
    while (*text && n + 12 < room) {
        if (text[0] == '%' && text[1] == 'd') {
            n += (size_t)sprintf(to + n, "%" PRIu32, index);
            text += 2;
        } else {
            to[n++] = *text++;
        }
    }
    to[n] = 0;
    return n;
}

static int connect_client(uint32_t index) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in from = {.sin_family = AF_INET};
    if (fd < 0) die("socket");
    inet_pton(AF_INET, host, &to.sin_addr);
    /* an address has 28,000 ports or so: take further ones of 127.0.0.0/8 for many clients */
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + index / PORTS_PER_ADDRESS);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&from, sizeof from)) die("bind");
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static const char *token_of(const struct client *c) {
    return token_count ? tokens[c->index % (uint32_t)token_count] : NULL;
}

static void start_client(struct load *l, struct client *c) {
    char where[4096], request[16384];
    const char *token = by_message ? NULL : token_of(c);
    c->fd = connect_client(c->index);
    expand(where, sizeof where, path, c->index);
    int n = snprintf(request, sizeof request,
                     "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                     "Sec-WebSocket-Version: 13\r\n%s%s%s%s\r\n",
                     where, host, port,
                     offers_deflate ? "Sec-WebSocket-Extensions: permessage-deflate\r\n" : "",
                     token ? token_by : "", token ? token : "", token ? "\r\n" : "");
    if (send(c->fd, request, (size_t)n, MSG_NOSIGNAL) != n) perror("send");
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &event);
}

/* ---- protocols ------------------------------------------------------------------------ */

/* Take the response to the upgrade; return its length, 0 when it is not whole yet. */
static size_t take_response(struct load *l, struct client *c, const uint8_t *p, size_t n,
                            uint64_t now) {
    const uint8_t *end = memmem(p, n, "\r\n\r\n", 4);
    if (!end) return 0;
    if (memcmp(p, "HTTP/1.1 101", 12)) {
        for (size_t i = 0; i < sizeof l->refusal - 1 && p[i] >= ' ' && p[i] != '"'; i++)
            l->refusal[i] = (char)p[i];
        leave(c, &l->refused);
        return n;
    }
    c->up = 1;
    if (by_message) {
        char text[8192];
        int size = snprintf(text, sizeof text, "{\"event\":\"auth\",\"token\":\"%s\"}", token_of(c));
        c->waits = 1;
        send_frame(c, 1, text, (size_t)size);
    } else {
        l->up_ns = now;
        l->up++;
    }
    if (hello) {
        char text[8192];
        size_t size = expand(text, sizeof text, hello, c->index);
        send_frame(c, 1, text, size);
    }
    return (size_t)(end + 4 - p);
}

/* Take NATS's protocol: INFO, +OK, PING, PONG, -ERR and MSG lines; return what was taken. */
static size_t take_nats(struct load *l, struct client *c, const uint8_t *p, size_t n,
                        uint64_t now) {
    size_t at = 0;
    for (;;) {
        const uint8_t *line = p + at, *end = memchr(line, '\n', n - at);
        if (!end) return at;
        size_t after = (size_t)(end + 1 - p);
        if (*line == 'M') { /* MSG subject sid size */
            const uint8_t *digit = end - 2;
            size_t size = 0, place = 1;
            for (; *digit != ' '; digit--, place *= 10) size += (size_t)(*digit - '0') * place;
            if (n - after < size + 2) return at;
            message(l, c, p + after, size, now);
            after += size + 2;
        } else if (!memcmp(line, "PING", 4)) {
            send_frame(c, 1, "PONG\r\n", 6);
        } else if (*line == '-') {
            snprintf(l->refusal, sizeof l->refusal, "%.*s", (int)(end - 1 - line), line);
        }
        at = after;
    }
}

static void take_nats_payload(struct load *l, struct client *c, const uint8_t *p, size_t n,
                              uint64_t now) {
    size_t have = c->stream.size;
    if (have + n > 2 * BUFFER) die("a NATS message larger than the buffer");
    memcpy(l->stream, c->stream.bytes, have);
    memcpy(l->stream + have, p, n);
    size_t taken = take_nats(l, c, l->stream, have + n, now);
    keep(&c->stream, l->stream + taken, have + n - taken);
}

/* Take an answer to a client whose token went out as a request. */
static void take_answer(struct load *l, struct client *c, const uint8_t *p, size_t n,
                        uint64_t now) {
    if (memmem(p, n, "\"authenticated\"", 15)) {
        c->waits = 0;
        l->up_ns = now;
        l->up++;
    } else if (memmem(p, n, "\"error\"", 7)) {
        snprintf(l->refusal, sizeof l->refusal, "not authenticated");
        leave(c, &l->refused);
    }
}

static void take_frame(struct load *l, struct client *c, const uint8_t *head, const uint8_t *p,
                       size_t n, uint64_t now) {
    int opcode = head[0] & 15;
    if (opcode == 9) {
        send_frame(c, 10, p, n);
    } else if (opcode == 8) {
        if (n >= 2) l->close_code = p[0] << 8 | p[1];
    } else if (head[0] & 0x40) {
        count_delivery(l, c);
        add(&l->packed, 1);
    } else if (c->waits) {
        take_answer(l, c, p, n, now);
    } else if (opcode < 3) {
        (speaks_nats ? take_nats_payload : message)(l, c, p, n, now);
    }
}

/* Take whole frames (RFC 6455 section 5.2); return how many bytes they were. */
static size_t take_frames(struct load *l, struct client *c, const uint8_t *p, size_t n,
                          uint64_t now) {
    size_t at = 0;
    while (n - at >= 2 && c->fd >= 0) {
        const uint8_t *head = p + at;
        uint64_t size = head[1] & 127;
        size_t extra = size == 126 ? 2 : size == 127 ? 8 : 0;
        if (n - at < 2 + extra) break;
        if (extra) size = 0;
        for (size_t i = 0; i < extra; i++) size = size << 8 | head[2 + i];
        if (n - at - 2 - extra < size) break;
        take_frame(l, c, head, head + 2 + extra, (size_t)size, now);
        at += 2 + extra + (size_t)size;
    }
    return at;
}

static void receive(struct load *l, struct client *c) {
    size_t have = c->wire.size, taken = 0;
    memcpy(l->buffer, c->wire.bytes, have);
    ssize_t got = recv(c->fd, l->buffer + have, BUFFER - have, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        leave(c, c->up && !c->waits ? &l->gone : &l->refused);
        return;
    }
    uint64_t now = clock_ns(); /* one look at the clock for all that came together */
    have += (size_t)got;
    if (!c->up) {
        taken = take_response(l, c, l->buffer, have, now);
        if (c->fd < 0 || !taken) {
            keep(&c->wire, l->buffer + taken, have - taken);
            return;
        }
    }
    size_t frames = take_frames(l, c, l->buffer + taken, have - taken, now);
    taken += frames;
    if (have - taken == BUFFER) die("a frame larger than the buffer");
    keep(&c->wire, l->buffer + taken, have - taken);
    publish_counts(l, frames, now);
}

static void *serve(void *argument) {
    struct load *l = argument;
    struct epoll_event events[EVENTS];
    l->tid = (int)gettid();
    for (;;) {
        while (l->started < l->size && l->started - l->up - l->refused < window)
            start_client(l, &l->clients[l->started++]);
        int n = epoll_wait(l->epoll, events, EVENTS, 1000);
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (c->fd >= 0) receive(l, c);
        }
    }
    return NULL;
}

/* ---- the main thread: watches and reports ------------------------------------------------ */

struct totals {
    int up, refused, gone, stopped;
    uint64_t frames, packed, bytes, other, first_ns, last_ns, stop_ns, up_ns, seen_ns;
};

static struct load *loads;

static struct totals sum(void) {
    struct totals t = {0};
    for (int i = 0; i < threads; i++) {
        struct load *l = &loads[i];
        t.up += l->up, t.refused += l->refused, t.gone += l->gone, t.stopped += l->stopped;
        t.frames += l->frames, t.packed += l->packed, t.bytes += l->bytes, t.other += l->other;
        uint64_t first = l->first_ns;
        if (first && (!t.first_ns || first < t.first_ns)) t.first_ns = first;
        if (l->last_ns > t.last_ns) t.last_ns = l->last_ns;
        if (l->stop_ns > t.stop_ns) t.stop_ns = l->stop_ns;
        if (l->up_ns > t.up_ns) t.up_ns = l->up_ns;
    }
    t.seen_ns = t.last_ns > t.stop_ns ? t.last_ns : t.stop_ns;
    return t;
}

struct work { /* processor time, and time spent waiting for a processor */
    uint64_t at_ns, ran_ns[64], waited_ns[64];
};

static struct work work_now(void) {
    struct work w = {.at_ns = clock_ns()};
    for (int i = 0; i < threads; i++) {
        char name[64];
        unsigned long ran = 0, waited = 0;
        snprintf(name, sizeof name, "/proc/self/task/%d/schedstat", loads[i].tid);
        FILE *file = fopen(name, "r");
        if (file) {
            if (fscanf(file, "%lu %lu", &ran, &waited) != 2) ran = waited = 0;
            fclose(file);
        }
        w.ran_ns[i] = ran, w.waited_ns[i] = waited;
    }
    return w;
}

/* Print how busy the busiest thread was between two looks, as shares of one core. */
static void print_busy(const struct work *from, const struct work *to) {
    double wall = (double)(to->at_ns - from->at_ns) + 1, busy = 0, waiting = 0;
    for (int i = 0; i < threads; i++) {
        double ran = (double)(to->ran_ns[i] - from->ran_ns[i]) / wall;
        double waited = (double)(to->waited_ns[i] - from->waited_ns[i]) / wall;
        if (ran > busy) busy = ran;
        if (waited > waiting) waiting = waited;
    }
    printf("\"busy\":%.3f,\"waiting\":%.3f", busy, waiting);
}

static void print_ready(uint64_t start, const struct work *from) {
    struct totals t = sum();
    struct work now = work_now();
    const char *refusal = "";
    for (int i = 0; i < threads; i++)
        if (loads[i].refusal[0]) refusal = loads[i].refusal;
    printf("{\"event\":\"ready\",\"up\":%d,\"refused\":%d,\"refusal\":\"%s\",\"connect_s\":%.4f,",
           t.up, t.refused, refusal, t.up_ns > start ? (double)(t.up_ns - start) / 1e9 : 0.0);
    print_busy(from, &now);
    printf("}\n");
    fflush(stdout);
}

static void print_ages(void) {
    const char *comma = "";
    printf("\"ages\":[");
    for (int b = 0; b < BUCKETS; b++) {
        uint64_t n = 0;
        for (int i = 0; i < threads; i++) n += loads[i].ages[b];
        if (n) {
            printf("%s[%" PRIu64 ",%" PRIu64 "]", comma, middle_of(b), n);
            comma = ",";
        }
    }
    printf("]");
}

static void print_number(const char *name, uint64_t value) {
    printf(",\"%s\":%" PRIu64, name, value);
}

static void print_done(const struct work *from) {
    struct totals t = sum();
    struct work now = work_now();
    uint64_t least = ~0ull, most = 0, oldest = 0;
    int close_code = 0;
    for (int i = 0; i < threads; i++) {
        struct load *l = &loads[i];
        if (l->oldest > oldest) oldest = l->oldest;
        if (l->close_code) close_code = l->close_code;
        for (int k = 0; k < l->size; k++) {
            if (l->clients[k].frames < least) least = l->clients[k].frames;
            if (l->clients[k].frames > most) most = l->clients[k].frames;
        }
    }
    printf("{\"event\":\"done\",\"up\":%d,\"gone\":%d,\"stopped\":%d,\"close_code\":%d", t.up, t.gone,
           t.stopped, close_code);
    print_number("frames", t.frames), print_number("packed", t.packed);
    print_number("other", t.other), print_number("bytes", t.bytes);
    print_number("least", least), print_number("most", most);
    print_number("first_ns", t.first_ns), print_number("last_ns", t.last_ns);
    print_number("stop_ns", t.stop_ns), print_number("max_ns", oldest);
    printf(",");
    print_busy(from, &now);
    printf(",");
    print_ages();
    printf("}\n");
    fflush(stdout);
}

/* Wait for a line; 1: a line, 0: none yet, -1: the input has ended. */
static int read_command(int wait_ms) {
    char line[64];
    struct pollfd input = {.fd = 0, .events = POLLIN};
    if (poll(&input, 1, wait_ms) <= 0) return 0;
    return read(0, line, sizeof line) > 0 ? 1 : -1;
}

static int is_over(const struct totals *t, uint64_t expect, uint64_t quiet_ns, uint64_t told_ns) {
    uint64_t now = clock_ns(), since = t->seen_ns > told_ns ? t->seen_ns : told_ns;
    int all_stopped = stops ? t->stopped && t->stopped >= t->up - t->gone : expect > 0;
    if (all_stopped && t->frames >= expect) return 1;
    if (stops && all_stopped && now > since + NS_PER_S / 2) return 1;
    return now > since + quiet_ns;
}

static void start_threads(void) {
    loads = calloc((size_t)threads, sizeof *loads);
    if (!loads) die("memory");
    for (int i = 0; i < threads; i++) {
        struct load *l = &loads[i];
        l->number = i;
        l->size = clients / threads + (i < clients % threads);
        l->epoll = epoll_create1(0);
        l->clients = calloc((size_t)l->size + 1, sizeof *l->clients);
        l->buffer = malloc(BUFFER);
        l->stream = malloc(2 * BUFFER);
        if (!l->clients || !l->buffer || !l->stream) die("memory");
        for (int k = 0; k < l->size; k++) l->clients[k].index = (uint32_t)(k * threads + i);
        if (pthread_create(&l->thread, NULL, serve, l)) die("thread");
    }
}

static void watch(uint64_t start, uint64_t expect, uint64_t quiet_ns) {
    struct work begin = work_now(), flow = begin;
    uint64_t shown = start, told = 0;
    int ready = 0, done = 0, flowing = 0;
    for (;;) {
        int command = read_command(done ? 1000 : 5);
        if (command < 0) return;
        if (command > 0 && !told) told = clock_ns();
        if (done) continue;
        struct totals t = sum();
        if (!ready && t.up + t.refused == clients) {
            ready = 1;
            print_ready(start, &begin);
            /* a replay is in full flow while the clients connect */
            if (!told) flow = work_now();
        }
        if (ready && !flowing && t.frames && !told) {
            flowing = 1;
            flow = work_now();
        }
        if (ready && told && is_over(&t, expect, quiet_ns, told)) {
            done = 1;
            print_done(&flow);
        } else if (clock_ns() > shown + PROGRESS_NS) {
            shown = clock_ns();
            printf("{\"event\":\"progress\",\"up\":%d,\"frames\":%" PRIu64 "}\n", t.up, t.frames);
            fflush(stdout);
        }
    }
}

static void read_tokens(const char *name) {
    size_t size;
    char *text = read_file(name, &size), *rest = text, *line;
    tokens = calloc(size / 2 + 1, sizeof *tokens);
    if (!tokens) die("memory");
    while ((line = strsep(&rest, "\n")))
        if (*line) tokens[token_count++] = line;
}

int main(int argc, char **argv) {
    end_after_limit(argc, argv);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    host = text_option(argc, argv, "host", "127.0.0.1");
    path = text_option(argc, argv, "path", "/public");
    port = (int)number_option(argc, argv, "port", 0);
    clients = (int)number_option(argc, argv, "clients", 1);
    threads = (int)number_option(argc, argv, "threads", 1);
    if (threads < 1 || threads > 64) threads = 1;
    window = (int)number_option(argc, argv, "window", 128) / threads + 1;
    offers_deflate = (int)number_option(argc, argv, "deflate", 0);
    stops = (int)number_option(argc, argv, "stops", 1);
    speaks_nats = !strcmp(text_option(argc, argv, "speak", "ws"), "nats");
    const char *name = text_option(argc, argv, "tokens", NULL);
    if (name) read_tokens(name);
    name = text_option(argc, argv, "token_by", "header");
    by_message = token_count && !strcmp(name, "message");
    token_by = strcmp(name, "protocol") ? "Authorization: Bearer "
                                        : "Sec-WebSocket-Protocol: rango.v1, bearer.";
    name = text_option(argc, argv, "hello", NULL);
    size_t size;
    if (name) hello = read_file(name, &size);
    uint64_t start = clock_ns();
    start_threads();
    watch(start, (uint64_t)number_option(argc, argv, "expect", 0),
          (uint64_t)(number_option(argc, argv, "quiet", 3) * 1e9));
    return 0;
}

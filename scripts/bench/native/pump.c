/* pump: writes prepared messages to an open connection, at a rate.
 *
 *   pump fd=N templates=FILE count=N rate=PER_S [burst=N spread=S] drain=0|1 limit=SECONDS
 *
 * The caller has made the connection, logged in and encoded the messages for its protocol
 * (AMQP, NATS or HTTP), so that all servers are fed by the same few instructions. The file
 * holds two lists, the messages, which take turns, and those sent once at the end. A list is
 * its length, then for each message its size, the place of its time of sending (or -1) and its
 * bytes; numbers are 32 bit, of this machine's byte order.
 *
 * rate=0: as fast as the connection takes them. burst=N: at the rate over all, but N within
 * `spread` seconds and then none until the next N are due. drain=1: throw away what comes back.
 * Prints one line of JSON: published, start_ns, end_ns (CLOCK_MONOTONIC), cpu_s.
 */
#include "common.h"

#include <errno.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define CHUNK (64 * 1024)

struct message {
    const uint8_t *bytes;
    int32_t size, time_at;
};

struct list {
    struct message *messages;
    int32_t length;
};

static int fd, drain;
static uint8_t *out;
static size_t waiting;

static struct list read_list(const uint8_t **at) {
    struct list list;
    memcpy(&list.length, *at, 4);
    *at += 4;
    list.messages = calloc((size_t)list.length + 1, sizeof *list.messages);
    if (!list.messages) die("memory");
    for (int32_t i = 0; i < list.length; i++) {
        struct message *m = &list.messages[i];
        memcpy(&m->size, *at, 4);
        memcpy(&m->time_at, *at + 4, 4);
        m->bytes = *at + 8;
        *at += 8 + m->size;
    }
    return list;
}

static void read_answers(void) {
    static uint8_t nowhere[CHUNK];
    while (recv(fd, nowhere, sizeof nowhere, MSG_DONTWAIT) > 0) {
    }
}

/* Write out; the descriptor may be a non-blocking one. */
static void flush(void) {
    size_t done = 0;
    while (done < waiting) {
        ssize_t sent = send(fd, out + done, waiting - done, MSG_NOSIGNAL);
        if (sent >= 0) {
            done += (size_t)sent;
            continue;
        }
        if (errno == EINTR) continue;
        if (errno != EAGAIN) die("the server has closed the connection");
        struct pollfd ready = {.fd = fd, .events = (short)(POLLOUT | (drain ? POLLIN : 0))};
        poll(&ready, 1, 1000);
        if (drain) read_answers();
    }
    waiting = 0;
    if (drain) read_answers();
}

static void put(const struct message *m) {
    memcpy(out + waiting, m->bytes, (size_t)m->size);
    if (m->time_at >= 0) put_time(out + waiting + m->time_at, clock_ns());
    waiting += (size_t)m->size;
    if (waiting >= CHUNK) flush();
}

int main(int argc, char **argv) {
    end_after_limit(argc, argv);
    fd = (int)number_option(argc, argv, "fd", -1);
    drain = (int)number_option(argc, argv, "drain", 0);
    double rate = number_option(argc, argv, "rate", 0);
    long count = (long)number_option(argc, argv, "count", 0);
    long burst = (long)number_option(argc, argv, "burst", 1);
    double spread = number_option(argc, argv, "spread", 0);
    size_t size;
    const uint8_t *at = (uint8_t *)read_file(text_option(argc, argv, "templates", ""), &size);
    struct list turns = read_list(&at), last = read_list(&at);
    out = malloc(CHUNK + size); /* a message of any size fits behind an unfinished chunk */
    if (!out) die("memory");

    uint64_t start = clock_ns();
    for (long i = 0; i < count; i++) {
        if (rate > 0) {
            double at = (double)(i - i % burst) / rate + (double)(i % burst) / (double)burst * spread;
            uint64_t due = start + (uint64_t)(at * 1e9);
            if (due > clock_ns()) { /* what is late goes out together */
                flush();
                sleep_until_ns(due);
            }
        }
        put(&turns.messages[i % turns.length]);
    }
    flush();
    uint64_t end = clock_ns();
    for (int32_t i = 0; i < last.length; i++) put(&last.messages[i]);
    flush();
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu_s = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                   (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"published\":%ld,\"start_ns\":%" PRIu64 ",\"end_ns\":%" PRIu64 ",\"cpu_s\":%.3f}\n", count, start,
           end, cpu_s);
    return 0;
}

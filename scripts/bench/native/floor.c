/* floor: what plain sending costs, the floor for any server that does not join messages.
 *
 *   floor clients=N size=BYTES count=N rate=PER_S limit=SECONDS
 *
 * Prints {"port":N}, accepts N WebSocket clients with the least handshake there is, waits for a
 * line on standard input and sends one frame to each client by one send(2), count times, then
 * the frame that holds STOP. Prints published, start_ns, end_ns and stays until its input ends.
 */
#include "common.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>

static const char RESPONSE[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
static const char HEAD[] = "{\"t\":";

static int listen_here(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&address, length) || listen(fd, 1024)) die("listen");
    getsockname(fd, (struct sockaddr *)&address, &length);
    printf("{\"port\":%d}\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static int accept_client(int listener) {
    char request[4096];
    int one = 1, fd = accept(listener, NULL, NULL);
    if (fd < 0 || recv(fd, request, sizeof request, 0) <= 0) die("accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (send(fd, RESPONSE, sizeof RESPONSE - 1, MSG_NOSIGNAL) < 0) die("send");
    return fd;
}

/* Encode a frame (RFC 6455 section 5.2) whose payload is a JSON object of `size` bytes. */
static size_t encode(uint8_t *frame, size_t size, size_t *time_at) {
    size_t head = size < 126 ? 2 : size < 65536 ? 4 : 10;
    frame[0] = 0x81;
    frame[1] = (uint8_t)(head == 2 ? size : head == 4 ? 126 : 127);
    for (size_t i = 2; i < head; i++) frame[i] = (uint8_t)((uint64_t)size >> 8 * (head - 1 - i));
    uint8_t *payload = frame + head;
    memset(payload, 'x', size);
    memcpy(payload, HEAD, sizeof HEAD - 1);
    *time_at = head + sizeof HEAD - 1;
    memcpy(frame + *time_at + TIME_DIGITS, ",\"p\":\"", 6);
    memcpy(payload + size - 2, "\"}", 2);
    return head + size;
}

static void send_all(const int *clients, int n, const uint8_t *frame, size_t size) {
    for (int i = 0; i < n; i++)
        if (send(clients[i], frame, size, MSG_NOSIGNAL) < 0) die("send");
}

int main(int argc, char **argv) {
    end_after_limit(argc, argv);
    int n = (int)number_option(argc, argv, "clients", 1);
    size_t size = (size_t)number_option(argc, argv, "size", 200);
    long count = (long)number_option(argc, argv, "count", 1);
    double rate = number_option(argc, argv, "rate", 1);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (size < 64) size = 64; /* room for the time */

    int listener = listen_here(), *clients = calloc((size_t)n, sizeof *clients);
    uint8_t *frame = malloc(size + 10);
    if (!clients || !frame) die("memory");
    for (int i = 0; i < n; i++) clients[i] = accept_client(listener);
    size_t time_at, length = encode(frame, size, &time_at);

    char line[64];
    if (!fgets(line, sizeof line, stdin)) return 0;
    uint64_t start = clock_ns();
    for (long i = 0; i < count; i++) {
        uint64_t due = start + (uint64_t)((double)i / rate * 1e9);
        if (due > clock_ns()) sleep_until_ns(due);
        put_time(frame + time_at, clock_ns());
        send_all(clients, n, frame, length);
    }
    uint64_t end = clock_ns();
    static const uint8_t STOP[] = "\x81\x0e{\"end\":\"STOP\"}";
    send_all(clients, n, STOP, sizeof STOP - 1);
    printf("{\"published\":%ld,\"start_ns\":%" PRIu64 ",\"end_ns\":%" PRIu64 "}\n", count, start, end);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
    }
    return 0;
}

/* The fast part of openloop.py, which says what is measured: sends requests on a schedule.
 *
 * Usage: openloop PORT CONNECTIONS SECONDS RATE, with the requests on the standard input: for each its size in bytes (a
 * 32-bit number of this machine), then its bytes. Request n is due n / RATE seconds after the start.
 *
 * Output, a line for each request: the status of the answer (0: none came), then three times in seconds: when it was
 * due, the latency since then, and how late it left although a connection was free.
 *
 * It uses epoll_pwait2(), because the timeout of epoll_wait() is in whole milliseconds: Linux 5.11, glibc 2.35.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_WAIT_SECONDS = 60, ANSWER_BYTES = 1 << 20, EVENTS = 256 };

struct request {
    char *bytes;
    uint32_t size;
    int status;
    double due, latency, client_delay;
};

struct connection {
    int socket;
    int request; /* the one that waits for its answer; -1: none */
    size_t received;
    char *answer;
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int connect_to(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int number = socket(AF_INET, SOCK_STREAM, 0);
    int yes = 1;
    if (number < 0 || connect(number, (struct sockaddr *)&address, sizeof address) < 0) err(1, "connect");
    setsockopt(number, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return number;
}

static struct request *read_requests(int count) {
    struct request *requests = calloc((size_t)count, sizeof *requests);
    for (struct request *request = requests; request < requests + count; request++) {
        if (fread(&request->size, sizeof request->size, 1, stdin) != 1) errx(1, "too few requests");
        request->bytes = malloc(request->size);
        if (fread(request->bytes, 1, request->size, stdin) != request->size) errx(1, "a request is cut off");
    }
    return requests;
}

/* Return the status of a whole answer, or 0 if a part is still missing. All servers here send a Content-Length. */
static int status_of(const char *answer, size_t received) {
    const char *end = memmem(answer, received, "\r\n\r\n", 4);
    if (end == NULL) return 0;
    const char *length = strcasestr(answer, "\r\ncontent-length:");
    if (length == NULL || length > end) errx(1, "an answer without Content-Length");
    size_t size = (size_t)(end - answer) + 4 + strtoul(length + 17, NULL, 10);
    if (received > size) errx(1, "an answer is longer than its Content-Length");
    return received == size ? atoi(answer + 9) : 0;
}

int main(int argc, char **argv) {
    if (argc != 5) errx(2, "usage: openloop PORT CONNECTIONS SECONDS RATE");
    int port = atoi(argv[1]), connections = atoi(argv[2]);
    double seconds = atof(argv[3]), rate = atof(argv[4]);
    int count = (int)(rate * seconds), sent = 0, answered = 0;
    struct request *requests = read_requests(count);

    struct connection *all = calloc((size_t)connections, sizeof *all);
    struct connection **free_ones = calloc((size_t)connections, sizeof *free_ones); /* a ring: first in, first out */
    int first_free = 0, free_count = 0;
    int poll = epoll_create1(0);
    for (struct connection *it = all; it < all + connections; it++) {
        it->socket = connect_to(port);
        it->request = -1;
        it->answer = malloc(ANSWER_BYTES + 1);
        struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = it};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, it->socket, &wanted) < 0) err(1, "epoll_ctl");
        free_ones[free_count++] = it;
    }

    prctl(PR_SET_TIMERSLACK, 1UL); /* ns; a timer may otherwise be 50 µs late, which would count as latency */
    double start = now() + 0.05, last_free = start;
    while (answered < count && now() - start < seconds + MAX_WAIT_SECONDS) {
        double moment = now();
        while (free_count > 0 && sent < count && start + sent / rate <= moment) {
            struct connection *it = free_ones[first_free];
            struct request *request = &requests[sent];
            first_free = (first_free + 1) % connections;
            free_count--;
            request->due = start + sent / rate;
            request->client_delay = moment - (request->due > last_free ? request->due : last_free);
            it->request = sent++;
            it->received = 0;
            /* A request is far smaller than the buffer of the socket, which is empty. */
            if (send(it->socket, request->bytes, request->size, MSG_NOSIGNAL) < 0) err(1, "send");
            moment = now();
        }
        double next = free_count > 0 && sent < count ? start + sent / rate : moment + 1;
        double wait = next > moment ? next - moment : 0;
        struct timespec timeout = {(time_t)wait, (long)((wait - (double)(time_t)wait) * 1e9)};
        struct epoll_event events[EVENTS];
        int ready = epoll_pwait2(poll, events, EVENTS, &timeout, NULL);
        if (ready < 0 && errno == EINTR) continue;
        if (ready < 0) err(1, "epoll_pwait2");
        int all_were_waiting = free_count == 0;
        for (struct epoll_event *event = events; event < events + ready; event++) {
            struct connection *it = event->data.ptr;
            ssize_t size = recv(it->socket, it->answer + it->received, ANSWER_BYTES - it->received, 0);
            if (size <= 0) errx(1, "the server has closed a connection, or an answer is too long");
            if (it->request < 0) errx(1, "an answer to no request");
            it->received += (size_t)size;
            it->answer[it->received] = '\0';
            struct request *request = &requests[it->request];
            if ((request->status = status_of(it->answer, it->received)) == 0) continue;
            request->latency = now() - request->due;
            it->request = -1;
            free_ones[(first_free + free_count++) % connections] = it;
            answered++;
        }
        if (all_were_waiting && free_count > 0) last_free = now();
    }
    for (struct request *it = requests; it < requests + count; it++)
        printf("%d %.6f %.6f %.6f\n", it->status, it->status ? it->due - start : 0, it->latency, it->client_delay);
    return 0;
}

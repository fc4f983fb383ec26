/* What the load tools share: the clock, options as name=value, the time limit.
 *
 * Every tool ends by itself after limit=SECONDS, whatever its peers do.
 */
#ifndef RANGO_BENCH_COMMON_H
#define RANGO_BENCH_COMMON_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000ull
#define TIME_DIGITS 20 /* width of a time in a message: the largest 64-bit number */

static inline uint64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static inline void sleep_until_ns(uint64_t due) {
    struct timespec t = {(time_t)(due / NS_PER_S), (long)(due % NS_PER_S)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

/* Write a time right-aligned: blanks in front of a number are JSON, zeros are not. */
static inline void put_time(uint8_t *at, uint64_t ns) {
    int i = TIME_DIGITS;
    do {
        at[--i] = (uint8_t)('0' + ns % 10);
        ns /= 10;
    } while (ns);
    while (i > 0) at[--i] = ' ';
}

static inline void die(const char *what) {
    perror(what);
    exit(1);
}

static inline const char *text_option(int argc, char **argv, const char *name, const char *other) {
    size_t length = strlen(name);
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], name, length) && argv[i][length] == '=') return argv[i] + length + 1;
    return other;
}

static inline double number_option(int argc, char **argv, const char *name, double other) {
    const char *text = text_option(argc, argv, name, NULL);
    return text ? atof(text) : other;
}

static inline void end_after_limit(int argc, char **argv) {
    alarm((unsigned)number_option(argc, argv, "limit", 60)); /* SIGALRM ends the process */
}

/* Read a whole file, with a zero byte behind it. */
static inline char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*size + 1);
    if (!bytes || fread(bytes, 1, *size, file) != *size) die(path);
    bytes[*size] = 0;
    fclose(file);
    return bytes;
}

#endif

/* Stands between the program and the system (LD_PRELOAD): one call fails, or the program is killed at it, as the
 * environment says: FAULT is one of the kinds below, FAULT_AT counts from 1. At its end the program writes to
 * FAULT_COUNTS how many calls there were that write, that read, and that allocate, and the most bytes that it had
 * allocated at once. Standard input, output and error are left alone. With FAULT=names no name server answers: whoever
 * asks for a name waits for ever, and FAULT_COUNTS is there as soon as somebody does. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netdb.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NONE = 0, KILLED = 'k', FULL = 'f', BROKEN = 'e', SHORT = 's', UNREADABLE = 'r', NO_MEMORY = 'm', NAMES = 'n' };

static atomic_long writes, reads, allocations, now, most, at;
static atomic_int fault;
static int ended;

__attribute__((constructor)) static void begin(void) {
    const char *kind = getenv("FAULT"), *when = getenv("FAULT_AT");
    reads = writes = allocations = 0;
    if (kind && when) {
        at = atol(when);
        fault = kind[0];
    }
}

__attribute__((destructor)) static void end(void) {
    const char *to = getenv("FAULT_COUNTS");
    char line[128];
    int fd, n;
    if (!to || ended) return;
    ended = 1;
    fault = NONE;
    n = snprintf(line, sizeof line, "%ld %ld %ld %ld\n", (long)writes, (long)reads, (long)allocations, (long)most);
    fd = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd >= 0) {
        write(fd, line, n);
        close(fd);
    }
}

/* Allocation. */

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static int refused(void) {
    return atomic_fetch_add(&allocations, 1) + 1 == at && fault == NO_MEMORY;
}

static void *given(void *p) {
    long sum, before;
    if (!p) return p;
    sum = atomic_fetch_add(&now, malloc_usable_size(p)) + malloc_usable_size(p);
    before = most;
    while (sum > before && !atomic_compare_exchange_weak(&most, &before, sum)) {}
    return p;
}

static void taken(void *p) {
    if (p) atomic_fetch_sub(&now, malloc_usable_size(p));
}

void *malloc(size_t n) { return refused() ? NULL : given(__libc_malloc(n)); }
void *calloc(size_t n, size_t of) { return refused() ? NULL : given(__libc_calloc(n, of)); }
void free(void *p) { taken(p); __libc_free(p); }

void *realloc(void *p, size_t n) {
    size_t had = p ? malloc_usable_size(p) : 0;
    void *to;
    if (refused()) return NULL;
    to = __libc_realloc(p, n);
    if (to || !n) atomic_fetch_sub(&now, had);
    return given(to);
}

int posix_memalign(void **to, size_t by, size_t n) {
    if (refused()) return ENOMEM;
    *to = given(__libc_memalign(by, n));
    return *to ? 0 : ENOMEM;
}

void *aligned_alloc(size_t by, size_t n) { return refused() ? NULL : given(__libc_memalign(by, n)); }
void *memalign(size_t by, size_t n) { return refused() ? NULL : given(__libc_memalign(by, n)); }

/* Files. */

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* What becomes of a call that writes: 0 as ever, 1 it fails, 2 it is short. */
static int writing(void) {
    long n = atomic_fetch_add(&writes, 1) + 1;
    if (fault == FULL && n >= at && at) { errno = ENOSPC; return n == at ? 3 : 1; }
    if (n != at) return 0;
    if (fault == KILLED) return 4;
    if (fault == BROKEN) { errno = EIO; return 1; }
    return fault == SHORT ? 2 : 0;
}

static int reading(void) {
    if (atomic_fetch_add(&reads, 1) + 1 != at || fault != UNREADABLE) return 0;
    errno = EIO;
    return 1;
}

/* A write of n bytes: all, half of it, or half of it before the end. */
#define WRITE(call, n) do { \
        int becomes = fd > 2 ? writing() : 0, was = errno; \
        size_t all = n; \
        if (becomes == 1) return -1; \
        if (becomes >= 2 && all > 1) { n = all / 2; } \
        if (becomes == 3 || becomes == 4) { \
            ssize_t ignored = call; \
            (void)ignored; \
            if (becomes == 4) raise(SIGKILL); \
            errno = was; \
            return -1; \
        } \
        return call; \
    } while (0)

ssize_t write(int fd, const void *from, size_t n) { WRITE(NEXT(write)(fd, from, n), n); }
ssize_t pwrite(int fd, const void *from, size_t n, off_t to) { WRITE(NEXT(pwrite)(fd, from, n, to), n); }
ssize_t pwrite64(int fd, const void *from, size_t n, off64_t to) { WRITE(NEXT(pwrite64)(fd, from, n, to), n); }

/* Another call that changes files. */
#define CHANGE(call) do { \
        int becomes = writing(); \
        if (becomes == 4) raise(SIGKILL); \
        if (becomes == 1 || becomes == 3) return -1; \
        return call; \
    } while (0)

int fsync(int fd) { CHANGE(NEXT(fsync)(fd)); }
int fdatasync(int fd) { CHANGE(NEXT(fdatasync)(fd)); }
int ftruncate(int fd, off_t n) { CHANGE(NEXT(ftruncate)(fd, n)); }
int ftruncate64(int fd, off64_t n) { CHANGE(NEXT(ftruncate64)(fd, n)); }
int rename(const char *from, const char *to) { CHANGE(NEXT(rename)(from, to)); }
int unlink(const char *path) { CHANGE(NEXT(unlink)(path)); }
int mkdir(const char *path, mode_t mode) { CHANGE(NEXT(mkdir)(path, mode)); }

ssize_t read(int fd, void *to, size_t n) { return fd > 2 && reading() ? -1 : NEXT(read)(fd, to, n); }
ssize_t pread(int fd, void *to, size_t n, off_t at) { return reading() ? -1 : NEXT(pread)(fd, to, n, at); }
ssize_t pread64(int fd, void *to, size_t n, off64_t at) { return reading() ? -1 : NEXT(pread64)(fd, to, n, at); }

/* Names. */

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    const char *to = getenv("FAULT_COUNTS");
    if (fault != NAMES) return NEXT(getaddrinfo)(name, service, hints, found);
    if (to) close(open(to, O_WRONLY | O_CREAT, 0600));
    for (;;) pause();
}

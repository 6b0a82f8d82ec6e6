/* Records what a process writes to the files of a store and when it is on disk, in one order; for LD_PRELOAD.
 *
 * A record: kind, u32 bytes of the path, the path, u64 offset, u32 bytes, the bytes. Kinds: `w` a write, `d` one that is
 * on disk when it returns (O_DSYNC), `s` all of the file is on disk, `r` a rename (the bytes are the new name), `n` a
 * note of the program's. Paths without `/store` in them are not recorded.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1;

static void record(char kind, const char *path, uint64_t offset, const void *bytes, uint32_t size) {
    uint32_t length = (uint32_t)strlen(path);
    char *whole = malloc(1 + 4 + length + 8 + 4 + size), *at = whole;
    if (trace < 0) trace = open(getenv("RECORD_TO"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    *at++ = kind;
    memcpy(at, &length, 4), at += 4;
    memcpy(at, path, length), at += length;
    memcpy(at, &offset, 8), at += 8;
    memcpy(at, &size, 4), at += 4;
    memcpy(at, bytes, size), at += size;
    if (syscall(SYS_write, trace, whole, (size_t)(at - whole)) != at - whole) abort();
    free(whole);
}

static int stored(int fd, char *path, size_t size) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, size - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, "/store") != NULL;
}

void note(const char *text) {
    pthread_mutex_lock(&lock);
    record('n', "", 0, text, (uint32_t)strlen(text));
    pthread_mutex_unlock(&lock);
}

static void wrote(int fd, uint64_t offset, const void *bytes, ssize_t size) {
    char path[4096];
    if (size > 0 && stored(fd, path, sizeof path))
        record(fcntl(fd, F_GETFL) & O_DSYNC ? 'd' : 'w', path, offset, bytes, (uint32_t)size);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset) {
    pthread_mutex_lock(&lock);
    ssize_t done = syscall(SYS_pwrite64, fd, bytes, size, offset);
    wrote(fd, (uint64_t)offset, bytes, done);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off_t offset) { return pwrite(fd, bytes, size, offset); }

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    ssize_t total = 0;
    for (int n = 0; n < count; n++) {
        ssize_t done = pwrite(fd, parts[n].iov_base, parts[n].iov_len, offset + total);
        if (done < 0) return done;
        total += done;
    }
    return total;
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset) {
    return pwritev(fd, parts, count, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t (*next)(int, const struct iovec *, int) = dlsym(RTLD_NEXT, "writev");
    char path[4096];
    if (!stored(fd, path, sizeof path)) return next(fd, parts, count);
    ssize_t total = pwritev(fd, parts, count, lseek(fd, 0, SEEK_CUR));
    if (total > 0) lseek(fd, total, SEEK_CUR);
    return total;
}

static int synced(int fd, long call) {
    char path[4096];
    pthread_mutex_lock(&lock);
    int result = (int)syscall(call, fd);
    if (!result && stored(fd, path, sizeof path)) record('s', path, 0, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int fsync(int fd) { return synced(fd, SYS_fsync); }

int rename(const char *from, const char *to) {
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (!result && strstr(from, "/store")) record('r', from, 0, to, (uint32_t)strlen(to));
    pthread_mutex_unlock(&lock);
    return result;
}

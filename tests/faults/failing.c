/* A disk that fails in writing LMDB's meta pages while the file FAIL_WHILE is there: loaded before libc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define META_BYTES 8192 /* the first two pages */

static int fails(size_t size, off_t at) {
    const char *mark = getenv("FAIL_WHILE");
    return mark && at < META_BYTES && size < META_BYTES / 2 && access(mark, F_OK) == 0;
}

ssize_t pwrite(int file, const void *content, size_t size, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite");
    if (fails(size, at)) {
        errno = EIO;
        return -1;
    }
    return real(file, content, size, at);
}

ssize_t pwrite64(int file, const void *content, size_t size, off_t at) { return pwrite(file, content, size, at); }

/*
 * Preloaded into a process: the n-th of its calls that change files under a folder fails, with EIO. Environment:
 * FAULT_UNDER (path prefix), FAULT_CALL (n, 0: none), FAULT_LOG (a file that gets a line for each such call).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_int calls;

static int is_watched(const char *path) {
  const char *under = getenv("FAULT_UNDER");
  return under != NULL && strncmp(path, under, strlen(under)) == 0;
}

static int fails(const char *call, const char *path) {
  if (!is_watched(path)) return 0;
  int number = atomic_fetch_add(&calls, 1) + 1;
  const char *log = getenv("FAULT_LOG");
  int fd = log == NULL ? -1 : open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (fd >= 0) {
    char line[4200];
    int length = snprintf(line, sizeof line, "%s %s\n", call, path);
    syscall(SYS_write, fd, line, length);
    close(fd);
  }
  const char *wanted = getenv("FAULT_CALL");
  if (wanted == NULL || atoi(wanted) != number) return 0;
  errno = EIO;
  return 1;
}

static int fd_fails(const char *call, int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return fails(call, path);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *b, size_t n) { return fd_fails(__func__, fd) ? -1 : NEXT(write)(fd, b, n); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { return fd_fails(__func__, fd) ? -1 : NEXT(pwrite)(fd, b, n, o); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { return fd_fails(__func__, fd) ? -1 : NEXT(pwrite64)(fd, b, n, o); }
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t o) { return fd_fails(__func__, fd) ? -1 : NEXT(pwritev)(fd, v, n, o); }
ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t o) { return fd_fails(__func__, fd) ? -1 : NEXT(pwritev64)(fd, v, n, o); }
int fsync(int fd) { return fd_fails(__func__, fd) ? -1 : NEXT(fsync)(fd); }
int fdatasync(int fd) { return fd_fails(__func__, fd) ? -1 : NEXT(fdatasync)(fd); }
int ftruncate(int fd, off_t n) { return fd_fails(__func__, fd) ? -1 : NEXT(ftruncate)(fd, n); }
int ftruncate64(int fd, off64_t n) { return fd_fails(__func__, fd) ? -1 : NEXT(ftruncate64)(fd, n); }
int rename(const char *a, const char *b) { return fails(__func__, b) ? -1 : NEXT(rename)(a, b); }

/* The addon renames with renameat2, which it calls by number. */
long syscall(long number, ...) {
  va_list list;
  va_start(list, number);
  long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long);
  long d = va_arg(list, long), e = va_arg(list, long), f = va_arg(list, long);
  va_end(list);
  if (number == SYS_renameat2 && fails("renameat2", (const char *)d)) return -1;
  return NEXT(syscall)(number, a, b, c, d, e, f);
}

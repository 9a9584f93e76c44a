/*
 * Preloaded into a process: every call that changes files under a folder, and every line that it says on stdout, is written
 * to a log in the order in which they took effect, so that the disk of any moment can be made anew. Environment:
 * TRACE_UNDER (folder), TRACE_LOG (file).
 *
 * A record: kind (1 byte), length of the path (4), file (8: inode number), place (8), length of the data (8), path, data.
 * What is said is logged before it is done; everything else when it is done. A sync has two records with the same place.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PARTS_MAX 1022
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define LOCKED(statement) pthread_mutex_lock(&lock); statement; pthread_mutex_unlock(&lock)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t syncs;

static int is_watched(const char *path) {
  const char *under = getenv("TRACE_UNDER");
  size_t length = under == NULL ? 0 : strlen(under);
  return length > 0 && strncmp(path, under, length) == 0 && (path[length] == 0 || path[length] == '/');
}

static const char *path_of(int fd, char *path, size_t size) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, size - 1);
  if (length <= 0) return NULL;
  path[length] = 0;
  return is_watched(path) ? path : NULL;
}

static uint64_t file_of(int fd) {
  struct stat found;
  return fstat(fd, &found) == 0 ? found.st_ino : 0;
}

/* With the lock held. */
static void tell(char kind, const char *path, uint64_t file, uint64_t place, const struct iovec *data, int parts, uint64_t length) {
  static int log = -1;
  if (log < 0) log = syscall(SYS_openat, AT_FDCWD, getenv("TRACE_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  uint32_t path_length = strlen(path);
  unsigned char head[29];
  head[0] = kind;
  memcpy(head + 1, &path_length, 4);
  memcpy(head + 5, &file, 8);
  memcpy(head + 13, &place, 8);
  memcpy(head + 21, &length, 8);
  /* In one call: others may append to the log, too. */
  struct iovec all[2 + PARTS_MAX] = {{head, sizeof head}, {(void *)path, path_length}};
  if (parts > PARTS_MAX) abort();
  int count = 2;
  uint64_t left = length;
  for (int i = 0; i < parts && left > 0; i++) {
    all[count].iov_base = data[i].iov_base;
    all[count].iov_len = data[i].iov_len < left ? data[i].iov_len : left;
    left -= all[count++].iov_len;
  }
  if (syscall(SYS_writev, log, all, count) != (long)(sizeof head + path_length + length)) abort();
}

/* At `place`, or where the file stands when it is negative. `call` does it. */
#define WRITING(call, data, parts, place)                                                       \
  char path[4096];                                                                              \
  const char *watched = path_of(fd, path, sizeof path);                                         \
  if (watched == NULL && fd != 1) return call;                                                  \
  pthread_mutex_lock(&lock);                                                                    \
  if (watched == NULL) {                                                                        \
    uint64_t all = 0;                                                                           \
    for (int i = 0; i < (parts); i++) all += (data)[i].iov_len;                                 \
    tell('S', "", 0, 0, data, parts, all);                                                      \
  }                                                                                             \
  ssize_t done = call;                                                                          \
  int error = errno;                                                                            \
  if (watched != NULL && done > 0) {                                                            \
    int64_t at = (place);                                                                       \
    if (at < 0) at = lseek(fd, 0, SEEK_CUR) - done;                                             \
    tell('W', watched, file_of(fd), at, data, parts, done);                                     \
  }                                                                                             \
  pthread_mutex_unlock(&lock);                                                                  \
  errno = error;                                                                                \
  return done

#define ONE(b, n) struct iovec one[1] = {{(void *)(b), n}}
ssize_t write(int fd, const void *b, size_t n) { ONE(b, n); WRITING(NEXT(write)(fd, b, n), one, 1, -1); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { ONE(b, n); WRITING(NEXT(pwrite)(fd, b, n, o), one, 1, o); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { ONE(b, n); WRITING(NEXT(pwrite64)(fd, b, n, o), one, 1, o); }
ssize_t writev(int fd, const struct iovec *v, int n) { WRITING(NEXT(writev)(fd, v, n), v, n, -1); }
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t o) { WRITING(NEXT(pwritev)(fd, v, n, o), v, n, o); }
ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t o) { WRITING(NEXT(pwritev64)(fd, v, n, o), v, n, o); }

/* Copies within the kernel would not be seen: everybody falls back to writing. */
ssize_t copy_file_range(int a, off64_t *ao, int b, off64_t *bo, size_t n, unsigned f) {
  (void)a, (void)ao, (void)b, (void)bo, (void)n, (void)f;
  errno = ENOSYS;
  return -1;
}

static int sync_by(int (*call)(int), int fd) {
  char path[4096];
  const char *watched = path_of(fd, path, sizeof path);
  if (watched == NULL) return call(fd);
  uint64_t number;
  LOCKED(number = ++syncs; tell('B', watched, file_of(fd), number, NULL, 0, 0));
  int done = call(fd);
  if (done == 0) { LOCKED(tell('E', watched, file_of(fd), number, NULL, 0, 0)); }
  return done;
}
int fsync(int fd) { return sync_by(NEXT(fsync), fd); }
int fdatasync(int fd) { return sync_by(NEXT(fdatasync), fd); }

#define RESIZING(kind, call, size)                                                              \
  char path[4096];                                                                              \
  const char *watched = path_of(fd, path, sizeof path);                                         \
  pthread_mutex_lock(&lock);                                                                    \
  int done = call;                                                                              \
  int error = errno;                                                                            \
  if (watched != NULL && done == 0) tell(kind, watched, file_of(fd), size, NULL, 0, 0);         \
  pthread_mutex_unlock(&lock);                                                                  \
  errno = error;                                                                                \
  return done
int ftruncate(int fd, off_t n) { RESIZING('T', NEXT(ftruncate)(fd, n), n); }
int ftruncate64(int fd, off64_t n) { RESIZING('T', NEXT(ftruncate64)(fd, n), n); }
int posix_fallocate(int fd, off_t o, off_t n) { RESIZING('G', NEXT(posix_fallocate)(fd, o, n), o + n); }
int posix_fallocate64(int fd, off64_t o, off64_t n) { RESIZING('G', NEXT(posix_fallocate64)(fd, o, n), o + n); }

/* A new file, or one that is emptied. */
static int opening(int at, const char *name, int flags, mode_t mode) {
  pthread_mutex_lock(&lock);
  int fd = NEXT(openat)(at, name, flags, mode);
  int error = errno;
  char path[4096];
  const char *watched = fd < 0 || !(flags & (O_CREAT | O_TRUNC)) ? NULL : path_of(fd, path, sizeof path);
  if (watched != NULL) {
    tell('C', watched, file_of(fd), 0, NULL, 0, 0);
    if (flags & O_TRUNC) tell('T', watched, file_of(fd), 0, NULL, 0, 0);
  }
  pthread_mutex_unlock(&lock);
  errno = error;
  return fd;
}
#define MODE(flags)                                                                             \
  mode_t mode = 0;                                                                              \
  if (flags & (O_CREAT | O_TMPFILE)) {                                                          \
    va_list list;                                                                               \
    va_start(list, flags);                                                                      \
    mode = va_arg(list, mode_t);                                                                \
    va_end(list);                                                                               \
  }
int open(const char *name, int flags, ...) { MODE(flags); return opening(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags); return opening(AT_FDCWD, name, flags, mode); }
int openat(int at, const char *name, int flags, ...) { MODE(flags); return opening(at, name, flags, mode); }
int openat64(int at, const char *name, int flags, ...) { MODE(flags); return opening(at, name, flags, mode); }

#define NAMING(kind, call, name, other)                                                         \
  if (!is_watched(name)) return call;                                                           \
  pthread_mutex_lock(&lock);                                                                    \
  int done = call;                                                                              \
  int error = errno;                                                                            \
  struct iovec second[1] = {{(void *)(other), strlen(other)}};                                  \
  if (done == 0) tell(kind, name, 0, 0, second, 1, strlen(other));                              \
  pthread_mutex_unlock(&lock);                                                                  \
  errno = error;                                                                                \
  return done
int rename(const char *a, const char *b) { NAMING('R', NEXT(rename)(a, b), a, b); }
int link(const char *a, const char *b) { NAMING('L', NEXT(link)(a, b), a, b); }
int unlink(const char *a) { NAMING('U', NEXT(unlink)(a), a, ""); }
int mkdir(const char *a, mode_t m) { NAMING('M', NEXT(mkdir)(a, m), a, ""); }
int rmdir(const char *a) { NAMING('D', NEXT(rmdir)(a), a, ""); }

/* The addon renames with renameat2, which it calls by number. */
static long by_number(long number, long a, long b, long c, long d, long e, long f) {
  return NEXT(syscall)(number, a, b, c, d, e, f);
}
static int renameat2_by_number(long a, const char *from, long c, const char *to, long e) {
  NAMING('R', (int)by_number(SYS_renameat2, a, (long)from, c, (long)to, e, 0), from, to);
}
long syscall(long number, ...) {
  va_list list;
  va_start(list, number);
  long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long);
  long d = va_arg(list, long), e = va_arg(list, long), f = va_arg(list, long);
  va_end(list);
  if (number == SYS_renameat2) return renameat2_by_number(a, (const char *)b, c, (const char *)d, e);
  return by_number(number, a, b, c, d, e, f);
}

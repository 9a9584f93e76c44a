#ifndef WEIR_FILES_POSIX_H_
#define WEIR_FILES_POSIX_H_

// What Linux and macOS share. Included by exactly one source file per build.

#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "files.h"

namespace weir {

Outcome FromErrno(int error, const char* call) {
  switch (error) {
    case EACCES: return {"EACCES", "permission denied", call};
    case EBADF: return {"EBADF", "bad file descriptor", call};
    case EBUSY: return {"EBUSY", "resource busy or locked", call};
    case EDQUOT: return {"EDQUOT", "disk quota exceeded", call};
    case EEXIST: return {"EEXIST", "file already exists", call};
    case ENOTEMPTY: return {"EEXIST", "file already exists", call};
    case EFBIG: return {"EFBIG", "file too large", call};
    case EINVAL: return {"EINVAL", "invalid argument", call};
    case EIO: return {"EIO", "i/o error", call};
    case EISDIR: return {"EISDIR", "illegal operation on a directory", call};
    case ELOOP: return {"ELOOP", "too many symbolic links encountered", call};
    case EMFILE: return {"EMFILE", "too many open files", call};
    case ENFILE: return {"ENFILE", "file table overflow", call};
    case ENAMETOOLONG: return {"ENAMETOOLONG", "name too long", call};
    case ENODEV: return {"ENODEV", "no such device", call};
    case ENOENT: return {"ENOENT", "no such file or directory", call};
    case ENOSPC: return {"ENOSPC", "no space left on device", call};
    case ENOSYS: return {"ENOTSUP", "operation not supported", call};
    case ENOTDIR: return {"ENOTDIR", "not a directory", call};
    case ENOTSUP: return {"ENOTSUP", "operation not supported", call};
#if EOPNOTSUPP != ENOTSUP
    case EOPNOTSUPP: return {"ENOTSUP", "operation not supported", call};
#endif
    case EPERM: return {"EPERM", "operation not permitted", call};
    case EROFS: return {"EROFS", "read-only file system", call};
    case ESPIPE: return {"ESPIPE", "invalid seek", call};
    case EXDEV: return {"EXDEV", "cross-device link not permitted", call};
    default: return {"EUNKNOWN", "unknown error", call};
  }
}

/**
 * ENOSPC when the file system clearly has too little room. Asked first, because an allocation that fails half way has
 * already taken the space from everyone else on the disk.
 */
inline Outcome CheckFreeSpace(int fd, const struct stat& file, uint64_t bytes) {
  struct statvfs disk;
  if (fstatvfs(fd, &disk) != 0) return FromErrno(errno, "fstatvfs");
  // A file system that cannot tell (some network and FUSE ones) reports no blocks at all: the allocation will show.
  if (disk.f_blocks == 0) return Done();
  uint64_t allocated = static_cast<uint64_t>(file.st_blocks) * 512;  // POSIX: st_blocks counts 512-byte units
  uint64_t missing = bytes > allocated ? bytes - allocated : 0;
  uint64_t free_bytes = static_cast<uint64_t>(disk.f_bavail) * static_cast<uint64_t>(disk.f_frsize);
  return missing > free_bytes ? FromErrno(ENOSPC, "fstatvfs") : Done();
}

/** open() as this addon needs it: never leaks into child processes, and goes on after a signal. */
inline int OpenForSync(const std::string& path, int flags) {
  int fd;
  do {
    fd = open(path.c_str(), flags | O_CLOEXEC);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

}  // namespace weir

#endif  // WEIR_FILES_POSIX_H_

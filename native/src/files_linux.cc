#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "files_posix.h"

namespace weir {

namespace {
// linux/fs.h; defined here because that header clashes with others and the value is part of the kernel's ABI.
constexpr unsigned int kRenameNoReplace = 1;
// https://www.freedesktop.org/wiki/CommonExtendedAttributes/
constexpr char kOriginAttribute[] = "user.xdg.origin.url";
}  // namespace

// fallocate and not posix_fallocate: where the file system cannot allocate, glibc's posix_fallocate writes to every
// block instead, which would block this thread for minutes on a large file.
Outcome Reserve(int fd, uint64_t bytes) {
  struct stat before;
  if (fstat(fd, &before) != 0) return FromErrno(errno, "fstat");
  if (bytes == 0) return Done();
  Outcome room = CheckFreeSpace(fd, before, bytes);
  if (room.code != nullptr) return room;
  int result;
  do {
    result = fallocate(fd, 0, 0, static_cast<off_t>(bytes));
  } while (result != 0 && errno == EINTR);
  if (result == 0) return Done();
  int error = errno;
  // Gives back what was allocated before it failed. When even that fails, the first error is the one to report.
  if (ftruncate(fd, before.st_size) != 0) return FromErrno(error, "fallocate");
  return FromErrno(error, "fallocate");
}

Outcome RenameNoReplace(const std::string& from, const std::string& to) {
  // By number: musl has no wrapper, and glibc only since 2.28.
  if (syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), kRenameNoReplace) == 0) return Done();
  // EINVAL is how file systems without the flag answer (renameat2(2)).
  return FromErrno(errno == EINVAL ? ENOTSUP : errno, "renameat2");
}

Outcome FsyncDirectory(const std::string& path) {
  int fd = OpenForSync(path, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return FromErrno(errno, "open");
  int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return error == 0 ? Done() : FromErrno(error, "fsync");
}

// By number, like renameat2: musl and old glibc declare it differently. Errors of earlier writes are reported since Linux 5.8.
Outcome SyncFileSystem(const std::string& path) {
  int fd = OpenForSync(path, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return FromErrno(errno, "open");
  int error = syscall(SYS_syncfs, fd) == 0 ? 0 : errno;
  close(fd);
  return error == 0 ? Done() : FromErrno(error, "syncfs");
}

Outcome MarkQuarantine(const std::string& path, const std::string& origin_url) {
  if (setxattr(path.c_str(), kOriginAttribute, origin_url.data(), origin_url.size(), 0) == 0) return Done();
  return FromErrno(errno, "setxattr");
}

}  // namespace weir

#include <stdio.h>
#include <sys/xattr.h>
#include <time.h>

#include "files_posix.h"

namespace weir {

namespace {
constexpr char kQuarantineAttribute[] = "com.apple.quarantine";

int Preallocate(int fd, unsigned int flags, off_t bytes) {
  fstore_t request = {};
  request.fst_flags = flags;
  request.fst_posmode = F_PEOFPOSMODE;  // counted from the end of what is allocated
  request.fst_length = bytes;
  return fcntl(fd, F_PREALLOCATE, &request);
}
}  // namespace

Outcome Reserve(int fd, uint64_t bytes) {
  struct stat before;
  if (fstat(fd, &before) != 0) return FromErrno(errno, "fstat");
  if (bytes == 0) return Done();
  Outcome room = CheckFreeSpace(fd, before, bytes);
  if (room.code != nullptr) return room;
  off_t wanted = static_cast<off_t>(bytes);
  off_t missing = wanted - static_cast<off_t>(before.st_blocks) * 512;
  if (missing > 0 && Preallocate(fd, F_ALLOCATECONTIG | F_ALLOCATEALL, missing) != 0 &&
      Preallocate(fd, F_ALLOCATEALL, missing) != 0) {
    return FromErrno(errno, "F_PREALLOCATE");
  }
  // F_PREALLOCATE leaves the length alone; without it the space is given back when the file is closed.
  if (before.st_size < wanted && ftruncate(fd, wanted) != 0) return FromErrno(errno, "ftruncate");
  return Done();
}

Outcome RenameNoReplace(const std::string& from, const std::string& to) {
  if (renamex_np(from.c_str(), to.c_str(), RENAME_EXCL) == 0) return Done();
  return FromErrno(errno, "renamex_np");
}

Outcome FsyncDirectory(const std::string& path) {
  int fd = OpenForSync(path, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return FromErrno(errno, "open");
  // fsync alone leaves the data in the drive's cache (fsync(2) of macOS); some file systems know only fsync.
  int error = 0;
  if (fcntl(fd, F_FULLFSYNC) != 0 && fsync(fd) != 0) error = errno;
  close(fd);
  return error == 0 ? Done() : FromErrno(error, "fsync");
}

// macOS has only sync(2), which waits for nothing.
Outcome SyncFileSystem(const std::string&) { return {"ENOTSUP", "operation not supported", "syncfs"}; }

// The origin itself is not part of this attribute: Gatekeeper needs flags, time and the program that received the file.
Outcome MarkQuarantine(const std::string& path, const std::string&) {
  char value[64];
  int length = snprintf(value, sizeof value, "0081;%08llx;Weir;", static_cast<unsigned long long>(time(nullptr)));
  if (setxattr(path.c_str(), kQuarantineAttribute, value, static_cast<size_t>(length), 0, 0) == 0) return Done();
  return FromErrno(errno, "setxattr");
}

}  // namespace weir

#ifndef WEIR_FILES_H_
#define WEIR_FILES_H_

#include <cstdint>
#include <string>

/** One implementation per operating system: files_linux.cc, files_mac.cc, files_win.cc. Paths and text are UTF-8. */
namespace weir {

/** How a call ended. `code` is null on success, else a Node error code ("ENOSPC"); the texts are static. */
struct Outcome {
  const char* code = nullptr;
  const char* message = nullptr;
  const char* call = nullptr;
};

inline Outcome Done() { return {}; }

#ifndef _WIN32
/** The code and sentence for an errno value of `call`. */
Outcome FromErrno(int error, const char* call);
#endif

/**
 * Makes the file at least `bytes` long with every block allocated. Leaves the old size when it fails.
 * ENOTSUP: this file system cannot allocate ahead; the caller then only checks the free space.
 */
Outcome Reserve(int fd, uint64_t bytes);

/** Atomic rename that fails with EEXIST. ENOTSUP: this file system or kernel has no such call. */
Outcome RenameNoReplace(const std::string& from, const std::string& to);

/** Makes a rename or a new file in this directory survive a power loss. */
Outcome FsyncDirectory(const std::string& path);

/**
 * Forces everything written to the file system of this directory to the disk, which for thousands of files is far faster
 * than one by one. ENOTSUP: there is no such call here. May take long; safe on any thread.
 */
Outcome SyncFileSystem(const std::string& path);

/** Marks a file as received from another computer. ENOTSUP: the file system keeps no such mark. */
Outcome MarkQuarantine(const std::string& path, const std::string& origin_url);

}  // namespace weir

#endif  // WEIR_FILES_H_

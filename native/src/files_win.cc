#include <uv.h>
#include <windows.h>

#include "files.h"

namespace weir {

namespace {

constexpr DWORD kDiskQuotaExceeded = 1295;  // ERROR_DISK_QUOTA_EXCEEDED, which some SDKs do not name

Outcome FromLastError(const char* call) {
  switch (GetLastError()) {
    case ERROR_ALREADY_EXISTS:
    case ERROR_FILE_EXISTS: return {"EEXIST", "file already exists", call};
    case ERROR_FILE_NOT_FOUND:
    case ERROR_INVALID_NAME:
    case ERROR_PATH_NOT_FOUND: return {"ENOENT", "no such file or directory", call};
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL: return {"ENOSPC", "no space left on device", call};
    case kDiskQuotaExceeded: return {"EDQUOT", "disk quota exceeded", call};
    case ERROR_FILE_TOO_LARGE: return {"EFBIG", "file too large", call};
    case ERROR_ACCESS_DENIED: return {"EPERM", "operation not permitted", call};
    case ERROR_LOCK_VIOLATION:
    case ERROR_SHARING_VIOLATION: return {"EBUSY", "resource busy or locked", call};
    case ERROR_INVALID_HANDLE: return {"EBADF", "bad file descriptor", call};
    case ERROR_NOT_SAME_DEVICE: return {"EXDEV", "cross-device link not permitted", call};
    case ERROR_FILENAME_EXCED_RANGE: return {"ENAMETOOLONG", "name too long", call};
    case ERROR_TOO_MANY_OPEN_FILES: return {"EMFILE", "too many open files", call};
    case ERROR_WRITE_PROTECT: return {"EROFS", "read-only file system", call};
    case ERROR_INVALID_FUNCTION:
    case ERROR_NOT_SUPPORTED: return {"ENOTSUP", "operation not supported", call};
    case ERROR_INVALID_PARAMETER: return {"EINVAL", "invalid argument", call};
    default: return {"EIO", "i/o error", call};
  }
}

std::wstring Wide(const std::string& text) {
  int length = MultiByteToWideChar(CP_UTF8, 0, text.data(), static_cast<int>(text.size()), nullptr, 0);
  std::wstring wide(static_cast<size_t>(length), L'\0');
  MultiByteToWideChar(CP_UTF8, 0, text.data(), static_cast<int>(text.size()), &wide[0], length);
  return wide;
}

/** Closes the handle when the scope ends. */
class Handle {
 public:
  explicit Handle(HANDLE handle) : handle_(handle) {}
  ~Handle() {
    if (valid()) CloseHandle(handle_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  bool valid() const { return handle_ != INVALID_HANDLE_VALUE; }
  HANDLE get() const { return handle_; }

 private:
  HANDLE handle_;
};

}  // namespace

Outcome Reserve(int fd, uint64_t bytes) {
  // Node's descriptors belong to the C runtime inside node.exe; only libuv can turn them into handles.
  HANDLE file = reinterpret_cast<HANDLE>(uv_get_osfhandle(fd));
  if (file == INVALID_HANDLE_VALUE) return {"EBADF", "bad file descriptor", "uv_get_osfhandle"};
  LARGE_INTEGER size;
  if (!GetFileSizeEx(file, &size)) return FromLastError("GetFileSizeEx");
  // An allocation or end below the present size would cut the file.
  if (static_cast<uint64_t>(size.QuadPart) >= bytes) return Done();
  FILE_ALLOCATION_INFO allocation = {};
  allocation.AllocationSize.QuadPart = static_cast<LONGLONG>(bytes);
  if (!SetFileInformationByHandle(file, FileAllocationInfo, &allocation, sizeof allocation)) {
    return FromLastError("FileAllocationInfo");
  }
  FILE_END_OF_FILE_INFO end = {};
  end.EndOfFile.QuadPart = static_cast<LONGLONG>(bytes);
  if (!SetFileInformationByHandle(file, FileEndOfFileInfo, &end, sizeof end)) return FromLastError("FileEndOfFileInfo");
  return Done();
}

Outcome RenameNoReplace(const std::string& from, const std::string& to) {
  if (MoveFileExW(Wide(from).c_str(), Wide(to).c_str(), MOVEFILE_WRITE_THROUGH)) return Done();
  return FromLastError("MoveFileExW");
}

// NTFS journals renames by itself and MOVEFILE_WRITE_THROUGH waits for them; a directory flush is refused on many
// volumes, so a refusal is no error here. A directory that cannot be opened is one.
Outcome FsyncDirectory(const std::string& path) {
  Handle directory(CreateFileW(Wide(path).c_str(), FILE_LIST_DIRECTORY | FILE_ADD_FILE,
                               FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr, OPEN_EXISTING,
                               FILE_FLAG_BACKUP_SEMANTICS, nullptr));
  if (!directory.valid()) return FromLastError("CreateFileW");
  BY_HANDLE_FILE_INFORMATION info;
  if (!GetFileInformationByHandle(directory.get(), &info)) return FromLastError("GetFileInformationByHandle");
  if ((info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) == 0) return {"ENOTDIR", "not a directory", "CreateFileW"};
  FlushFileBuffers(directory.get());
  return Done();
}

// Windows flushes a whole volume only for administrators.
Outcome SyncFileSystem(const std::string&) { return {"ENOTSUP", "operation not supported", "syncfs"}; }

// [MS-FSCC] 5.6.1: the stream that Explorer, Office and SmartScreen read. Zone 3 is the internet.
Outcome MarkQuarantine(const std::string& path, const std::string& origin_url) {
  std::wstring file = Wide(path);
  // Opening the stream would create a missing file.
  if (GetFileAttributesW(file.c_str()) == INVALID_FILE_ATTRIBUTES) return FromLastError("GetFileAttributesW");
  Handle stream(CreateFileW((file + L":Zone.Identifier").c_str(), GENERIC_WRITE, 0, nullptr, CREATE_ALWAYS,
                            FILE_ATTRIBUTE_NORMAL, nullptr));
  if (!stream.valid()) {
    // FAT and some network volumes have no streams and reject the colon in the name.
    DWORD error = GetLastError();
    if (error == ERROR_INVALID_NAME || error == ERROR_INVALID_PARAMETER) {
      return {"ENOTSUP", "operation not supported", "CreateFileW"};
    }
    return FromLastError("CreateFileW");
  }
  std::string text = "[ZoneTransfer]\r\nZoneId=3\r\nHostUrl=" + origin_url + "\r\n";
  DWORD written = 0;
  if (!WriteFile(stream.get(), text.data(), static_cast<DWORD>(text.size()), &written, nullptr)) {
    return FromLastError("WriteFile");
  }
  return Done();
}

}  // namespace weir

#include "io/recorded_calls.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstring>
#include <mutex>
#include <optional>
#include <set>

#include "io/assert.h"

namespace ncfs {
namespace {

struct Recording {
  std::mutex mutex;  // held during every call, recorded or not
  bool is_on = false;
  dev_t device = 0;
  ino_t root = 0;
  std::set<ino_t> files;  // below the root
  std::vector<RecordedCall> calls;
};

Recording& recording() {
  static Recording instance;
  return instance;
}

// The kernel itself: what is defined below stands in the way of the C library.
template <typename... Arguments>
long call(long number, Arguments... arguments) {
  using Syscall = long (*)(long, ...);
  static const auto real = reinterpret_cast<Syscall>(::dlsym(RTLD_NEXT, "syscall"));
  return real(number, arguments...);
}
// Found before there are threads, one of which might wait for another by way of syscall().
[[maybe_unused]] const long kFound = call(SYS_gettid);

struct stat status_of(int fd) {
  struct stat status {};
  ::fstat(fd, &status);
  return status;
}

bool is_root(int fd) {
  const struct stat status = status_of(fd);
  return status.st_dev == recording().device && status.st_ino == recording().root;
}

// The inode, if the file is one of those recorded.
std::optional<ino_t> recorded_file(int fd) {
  const struct stat status = status_of(fd);
  if (status.st_dev != recording().device || !recording().files.contains(status.st_ino)) {
    return std::nullopt;
  }
  return status.st_ino;
}

// "3f" for a descriptor of that directory; nothing if it is not one directly below the root.
std::optional<std::string> recorded_directory(int fd) {
  struct stat parent {};
  if (!S_ISDIR(status_of(fd).st_mode) || ::fstatat(fd, "..", &parent, 0) != 0 ||
      parent.st_dev != recording().device || parent.st_ino != recording().root) {
    return std::nullopt;
  }
  char path[PATH_MAX] = {};
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  NCFS_ASSERT(::readlink(link.c_str(), path, sizeof(path) - 1) > 0);
  return std::string(std::strrchr(path, '/') + 1);
}

void record(RecordedCall made) {
  recording().calls.push_back(std::move(made));
}

long open_recorded(int root, const char* path, const open_how* how, std::size_t size) {
  const bool is_new = (how->flags & O_CREAT) != 0 && ::faccessat(root, path, F_OK, 0) != 0;
  const long fd = call(SYS_openat2, root, path, how, size);
  if (fd < 0) return fd;
  const ino_t inode = status_of(static_cast<int>(fd)).st_ino;
  using Kind = RecordedCall::Kind;
  if (is_new) {
    recording().files.insert(inode);
    record({.kind = Kind::create, .name = path, .inode = inode});
  } else if ((how->flags & O_TRUNC) != 0) {
    record({.kind = Kind::truncate, .name = path, .inode = inode});
  }
  return fd;
}

ssize_t write_recorded(int fd, const void* bytes, std::size_t count, off_t offset) {
  const long written = call(SYS_pwrite64, fd, bytes, count, offset);
  const auto inode = recorded_file(fd);
  if (written > 0 && inode) {
    const auto* begin = static_cast<const std::byte*>(bytes);
    record({.kind = RecordedCall::Kind::write,
            .inode = *inode,
            .offset = static_cast<std::uint64_t>(offset),
            .bytes = {begin, begin + written}});
  }
  return written;
}

int extend_recorded(long result, int fd, off_t length) {
  const auto inode = recorded_file(fd);
  if (result == 0 && inode) {
    record({.kind = RecordedCall::Kind::extend,
            .inode = *inode,
            .offset = static_cast<std::uint64_t>(length)});
  }
  return static_cast<int>(result);
}

int sync_recorded(long result, int fd) {
  if (result != 0) return static_cast<int>(result);
  if (const auto inode = recorded_file(fd)) {
    record({.kind = RecordedCall::Kind::sync, .inode = *inode});
  } else if (auto directory = recorded_directory(fd)) {
    record({.kind = RecordedCall::Kind::sync_directory, .name = std::move(*directory)});
  }
  return 0;
}

}  // namespace

CallRecorder::CallRecorder(const std::string& directory) {
  struct stat status {};
  NCFS_ASSERT(::stat(directory.c_str(), &status) == 0);
  const std::lock_guard lock(recording().mutex);
  NCFS_ASSERT(!recording().is_on);
  recording().is_on = true;
  recording().device = status.st_dev;
  recording().root = status.st_ino;
}

CallRecorder::~CallRecorder() {
  const std::lock_guard lock(recording().mutex);
  recording().is_on = false;
  recording().files.clear();
  recording().calls.clear();
}

std::vector<RecordedCall> CallRecorder::calls() const {
  const std::lock_guard lock(recording().mutex);
  return recording().calls;
}

}  // namespace ncfs

// Instead of the C library's.
extern "C" {

// Of the calls without a function of their own only openat2(2) concerns files; six arguments are as
// many as any has.
long syscall(long number, ...) noexcept {
  va_list list;
  va_start(list, number);
  long a[6];
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  auto& recording = ncfs::recording();
  // Not under the lock, as futex(2) may wait.
  if (number != SYS_openat2) return ncfs::call(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  const std::lock_guard lock(recording.mutex);
  const int root = static_cast<int>(a[0]);
  if (!recording.is_on || !ncfs::is_root(root)) {
    return ncfs::call(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  }
  return ncfs::open_recorded(root, reinterpret_cast<const char*>(a[1]),
                             reinterpret_cast<const open_how*>(a[2]),
                             static_cast<std::size_t>(a[3]));
}

ssize_t pwrite(int fd, const void* bytes, std::size_t count, off_t offset) {
  const std::lock_guard lock(ncfs::recording().mutex);
  if (ncfs::recording().is_on) return ncfs::write_recorded(fd, bytes, count, offset);
  return ncfs::call(SYS_pwrite64, fd, bytes, count, offset);
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
  const std::lock_guard lock(ncfs::recording().mutex);
  const long result = ncfs::call(SYS_fallocate, fd, mode, offset, length);
  if (!ncfs::recording().is_on) return static_cast<int>(result);
  return ncfs::extend_recorded(result, fd, offset + length);
}

int fsync(int fd) {
  const std::lock_guard lock(ncfs::recording().mutex);
  const long result = ncfs::call(SYS_fsync, fd);
  return ncfs::recording().is_on ? ncfs::sync_recorded(result, fd) : static_cast<int>(result);
}

int fdatasync(int fd) {
  const std::lock_guard lock(ncfs::recording().mutex);
  const long result = ncfs::call(SYS_fdatasync, fd);
  return ncfs::recording().is_on ? ncfs::sync_recorded(result, fd) : static_cast<int>(result);
}

int renameat(int from_root, const char* from, int to_root, const char* to) noexcept {
  const std::lock_guard lock(ncfs::recording().mutex);
  const long result = ncfs::call(SYS_renameat2, from_root, from, to_root, to, 0U);
  if (result == 0 && ncfs::recording().is_on && ncfs::is_root(from_root)) {
    ncfs::record({.kind = ncfs::RecordedCall::Kind::rename, .name = from, .new_name = to});
  }
  return static_cast<int>(result);
}

int unlinkat(int root, const char* name, int flags) noexcept {
  const std::lock_guard lock(ncfs::recording().mutex);
  const long result = ncfs::call(SYS_unlinkat, root, name, flags);
  if (result == 0 && ncfs::recording().is_on && ncfs::is_root(root)) {
    ncfs::record({.kind = ncfs::RecordedCall::Kind::unlink, .name = name});
  }
  return static_cast<int>(result);
}

}  // extern "C"

#include "io/cache_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <memory>

#include "io/descriptor.h"
#include "io/transfer.h"
#include "io/wall_clock.h"

namespace ncfs {
namespace {

constexpr mode_t kFileMode = 0600;

std::int64_t result_of(int return_value) {
  return return_value == 0 ? 0 : -errno;
}

// "" is the root itself.
bool is_directory_name(const std::string& name) {
  return name.empty() || is_plain_name(name);
}

std::int64_t open_beneath(int root, const std::string& name, int flags) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
  how.mode = (flags & O_CREAT) != 0 ? kFileMode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;
  const char* path = name.empty() ? "." : name.c_str();
  while (true) {
    const long fd = ::syscall(SYS_openat2, root, path, &how, sizeof(how));
    if (fd >= 0) return fd;
    if (errno != EINTR) return -errno;
  }
}

std::int64_t allocate(int fd, std::uint64_t length) {
  if (length == 0) return 0;
  if (length > static_cast<std::uint64_t>(INT64_MAX)) return -EFBIG;
  int status = 0;
  do {
    status = ::fallocate(fd, 0, 0, static_cast<off_t>(length));
  } while (status != 0 && errno == EINTR);
  if (status == 0) return 0;
  if (errno != EOPNOTSUPP && errno != ENOSYS) return -errno;
  return result_of(::ftruncate(fd, static_cast<off_t>(length)));
}

CacheEntry entry_of(const char* name, const struct stat& status, std::int64_t now) {
  constexpr std::uint64_t kStatBlockBytes = 512;
  const EntryKind other = S_ISDIR(status.st_mode) ? EntryKind::directory : EntryKind::other;
  const std::int64_t mtime_ns = wall_nanos(status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
  return {.name = name,
          .size_bytes = static_cast<std::uint64_t>(status.st_size),
          .allocated_bytes = static_cast<std::uint64_t>(status.st_blocks) * kStatBlockBytes,
          .mtime_ns = mtime_ns,
          .age_ns = now - mtime_ns,
          .kind = S_ISREG(status.st_mode) ? EntryKind::file : other};
}

}  // namespace

bool is_plain_name(const std::string& name) {
  if (name.empty() || name.find('\0') != std::string::npos) return false;
  std::size_t begin = 0;
  while (begin <= name.size()) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    const std::string component = name.substr(begin, end - begin);
    if (component.empty() || component == "." || component == "..") return false;
    begin = end + 1;
  }
  return true;
}

std::int64_t open_regular(int root, const std::string& name, int flags) {
  if (!is_directory_name(name)) return -EINVAL;
  // O_NONBLOCK: the open of a FIFO must not wait for its other end. A regular file reports a lease
  // that somebody holds on it by EWOULDBLOCK; that one is to be waited for.
  std::int64_t fd = open_beneath(root, name, flags | O_NONBLOCK);
  if (fd == -EWOULDBLOCK) fd = open_beneath(root, name, flags);
  if (fd == -EISDIR || fd == -ENXIO) return -EINVAL;  // a directory or a FIFO, for writing
  if (fd < 0) return fd;
  Descriptor file(static_cast<int>(fd));
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return -errno;
  if (!S_ISREG(status.st_mode)) return -EINVAL;
  if (::fcntl(file.get(), F_SETFL, flags & ~(O_CREAT | O_EXCL | O_TRUNC)) != 0) return -errno;
  return file.release();
}

std::int64_t create_file(int root, const std::string& name, std::uint64_t length) {
  if (!is_plain_name(name)) return -EINVAL;
  const std::int64_t fd = open_beneath(root, name, O_CREAT | O_EXCL | O_RDWR);
  if (fd < 0) return fd;
  Descriptor file(static_cast<int>(fd));
  if (const std::int64_t status = allocate(file.get(), length); status != 0) {
    ::unlinkat(root, name.c_str(), 0);
    return status;
  }
  return file.release();
}

std::int64_t list_directory(int root, const std::string& name, std::vector<CacheEntry>& entries) {
  if (!is_directory_name(name)) return -EINVAL;
  const std::int64_t fd = open_beneath(root, name, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return fd;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::fdopendir(static_cast<int>(fd)),
                                                      &::closedir);
  if (!directory) {
    const int error = errno;
    ::close(static_cast<int>(fd));
    return -error;
  }
  const std::int64_t now = wall_now();
  while (true) {
    errno = 0;
    const dirent* found = ::readdir(directory.get());
    if (found == nullptr && errno != 0) return -errno;
    if (found == nullptr) break;
    const char* entry = found->d_name;
    if (std::strcmp(entry, ".") == 0 || std::strcmp(entry, "..") == 0) continue;
    struct stat status {};
    if (::fstatat(static_cast<int>(fd), entry, &status, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) continue;  // removed since readdir
      return -errno;
    }
    entries.push_back(entry_of(entry, status, now));
  }
  std::sort(entries.begin(), entries.end(),
            [](const CacheEntry& a, const CacheEntry& b) { return a.name < b.name; });
  return 0;
}

std::int64_t sync_directory(int root, const std::string& name) {
  if (!is_directory_name(name)) return -EINVAL;
  const std::int64_t fd = open_beneath(root, name, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return fd;
  const Descriptor directory(static_cast<int>(fd));
  return result_of(::fsync(directory.get()));
}

std::int64_t load_file(int root, const std::string& name, std::vector<std::byte>& bytes) {
  if (!is_plain_name(name)) return -EINVAL;
  const std::int64_t fd = open_regular(root, name, O_RDONLY);
  if (fd < 0) return fd;
  const Descriptor file(static_cast<int>(fd));
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return -errno;
  if (static_cast<std::uint64_t>(status.st_size) > kCacheLoadMax) return -EFBIG;
  bytes.resize(static_cast<std::size_t>(status.st_size));
  const std::int64_t count = read_fully(file.get(), bytes, 0);
  if (count < 0) return count;
  // Half a file is no file: what could not be read is an error, not an end.
  return count == std::ssize(bytes) ? 0 : -EIO;
}

std::int64_t store_file(int root, const std::string& name, std::span<const std::byte> bytes) {
  if (!is_plain_name(name)) return -EINVAL;
  const std::int64_t fd = open_beneath(root, name, O_CREAT | O_TRUNC | O_WRONLY);
  if (fd < 0) return fd;
  const Descriptor file(static_cast<int>(fd));
  const std::int64_t count = write_fully(file.get(), bytes, 0);
  if (count < 0) return count;
  return result_of(::fsync(file.get()));
}

std::int64_t rename_file(int root, const std::string& name, const std::string& new_name) {
  if (!is_plain_name(name) || !is_plain_name(new_name)) return -EINVAL;
  return result_of(::renameat(root, name.c_str(), root, new_name.c_str()));
}

std::int64_t touch_file(int root, const std::string& name) {
  if (!is_plain_name(name)) return -EINVAL;
  const timespec times[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
  return result_of(::utimensat(root, name.c_str(), times, AT_SYMLINK_NOFOLLOW));
}

std::int64_t unlink_file(int root, const std::string& name) {
  if (!is_plain_name(name)) return -EINVAL;
  return result_of(::unlinkat(root, name.c_str(), 0));
}

std::int64_t unlink_unused_file(int root, const std::string& name, int fd) {
  if (!is_plain_name(name)) return -EINVAL;
  // Somebody who opens the file now would make the kernel send us a signal: SIGURG, which is
  // ignored by default, in place of SIGIO, which kills.
  ::fcntl(fd, F_SETSIG, SIGURG);
  const bool has_lease = ::fcntl(fd, F_SETLEASE, F_WRLCK) == 0;
  if (!has_lease && errno == EAGAIN) return -EBUSY;
  if (!has_lease && errno == EBADF) return -EBADF;
  const std::int64_t result = unlink_file(root, name);
  if (has_lease) ::fcntl(fd, F_SETLEASE, F_UNLCK);
  return result;
}

}  // namespace ncfs

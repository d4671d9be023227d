#include "io/cache_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "io/cache_files.h"

namespace ncfs {
namespace {

constexpr char kLockName[] = "LOCK";
constexpr char kFormatName[] = "FORMAT";
constexpr char kFormatDraftName[] = "FORMAT.new";
constexpr char kUuidName[] = "UUID";
constexpr char kObjectsName[] = "objects";
constexpr char kLostAndFoundName[] = "lost+found";  // at the root of a fresh ext4
constexpr std::string_view kFormat = "nfs-cachefs 1\n";
constexpr std::string_view kLockPrefix = "nfs-cachefs ";
constexpr std::size_t kUuidLength = 36;
constexpr int kSubdirectories = 256;

std::string reason(std::int64_t result) {
  return std::strerror(static_cast<int>(-result));
}

std::optional<std::string> load_text(int root, const char* name) {
  std::vector<std::byte> bytes;
  if (load_file(root, name, bytes) != 0) return std::nullopt;
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::int64_t store_text(int root, const char* name, std::string_view text) {
  return store_file(root, name, std::as_bytes(std::span(text)));
}

// Steps of opening; each returns an error text, empty if all is well.
class Opening {
 public:
  explicit Opening(const std::string& path) : path_(path) {}

  std::string run() {
    for (const auto step : {&Opening::open_root, &Opening::check_owner, &Opening::check_contents,
                            &Opening::lock, &Opening::check_format, &Opening::open_objects,
                            &Opening::make_shards, &Opening::read_uuid}) {
      if (std::string error = (this->*step)(); !error.empty()) return error;
    }
    return {};
  }

  CacheDirectory take() { return std::move(directory_); }

 private:
  [[nodiscard]] int root() const { return directory_.root.get(); }

  std::string failed(std::string_view what, std::int64_t result) const {
    return fmt::format("cache directory {}: {}: {}", path_, what, reason(result));
  }

  std::string open_root() {
    constexpr mode_t kMode = 0700;
    if (::mkdir(path_.c_str(), kMode) != 0 && errno != EEXIST) {
      if (errno == ENOENT) {
        return fmt::format(
            "cache directory {}: its parent directory does not exist; create it, or mount the "
            "disk it is on",
            path_);
      }
      return failed("cannot create it", -errno);
    }
    directory_.root = Descriptor(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory_.root.is_open()) return {};
    if (errno == ENOTDIR) {
      return fmt::format("cache directory {}: is not a directory; name another one", path_);
    }
    return failed("cannot open it", -errno);
  }

  std::string check_owner() {
    struct stat status {};
    if (::fstat(root(), &status) != 0) return failed("cannot look at it", -errno);
    if (status.st_uid != 0 && status.st_uid != ::geteuid()) {
      return fmt::format(
          "cache directory {}: belongs to user {}, who could change what others read; chown it to "
          "root",
          path_, status.st_uid);
    }
    if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
      return fmt::format(
          "cache directory {}: others than its owner may write to it (mode {:04o}); chmod it to "
          "0700",
          path_, status.st_mode & 07777U);
    }
    return {};
  }

  // Before anything is created in it.
  std::string check_contents() {
    std::vector<CacheEntry> entries;
    if (const auto result = list_directory(root(), "", entries); result != 0) {
      return failed("cannot list it", result);
    }
    const auto has = [&entries](std::string_view name) {
      return std::ranges::find(entries, name, &CacheEntry::name) != entries.end();
    };
    if (has(kFormatName)) return {};
    // An empty LOCK is ours too: the making can be interrupted before the first byte is written.
    const std::optional<std::string> holder = load_text(root(), kLockName);
    const bool was_interrupted = holder && (holder->empty() || holder->starts_with(kLockPrefix));
    for (const CacheEntry& entry : entries) {
      const bool is_ours = entry.name == kLockName || entry.name == kUuidName ||
                           entry.name == kObjectsName || entry.name == kFormatDraftName;
      if (entry.name == kLostAndFoundName || (was_interrupted && is_ours)) continue;
      return fmt::format(
          "cache directory {}: holds files that are not a cache's ({}); name an empty or a new "
          "directory",
          path_, entry.name);
    }
    return {};
  }

  std::string lock() {
    constexpr mode_t kMode = 0600;
    directory_.lock =
        Descriptor(::openat(root(), kLockName, O_CREAT | O_RDWR | O_NOFOLLOW | O_CLOEXEC, kMode));
    const int lock = directory_.lock.get();
    if (lock < 0) return failed("cannot open LOCK", -errno);
    if (::flock(lock, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return failed("cannot lock it", -errno);
      std::string holder = load_text(root(), kLockName).value_or("");
      holder = holder.starts_with(kLockPrefix) ? holder.substr(kLockPrefix.size()) : "unknown";
      std::erase(holder, '\n');
      return fmt::format(
          "cache directory {}: is in use by another daemon (process {}); unmount that one or name "
          "another directory",
          path_, holder);
    }
    const std::string text = fmt::format("{}{}\n", kLockPrefix, ::getpid());
    if (::ftruncate(lock, 0) != 0 ||
        ::pwrite(lock, text.data(), text.size(), 0) != std::ssize(text)) {
      return failed("cannot write LOCK", -errno);
    }
    return {};
  }

  std::string check_format() {
    const std::optional<std::string> found = load_text(root(), kFormatName);
    if (!found) return make_ours();
    if (*found == kFormat) return {};
    std::string shown = found->substr(0, found->find('\n'));
    return fmt::format(
        "cache directory {}: has format \"{}\", this version reads \"{}\"; use the version that "
        "made it, or delete its contents",
        path_, shown.substr(0, 40), kFormat.substr(0, kFormat.size() - 1));
  }

  // FORMAT comes last and at once: with it the directory is ours.
  std::string make_ours() {
    constexpr mode_t kMode = 0700;
    const Descriptor random(::open("/proc/sys/kernel/random/uuid", O_RDONLY | O_CLOEXEC));
    char uuid[kUuidLength + 1] = {};
    if (::read(random.get(), uuid, kUuidLength) != static_cast<ssize_t>(kUuidLength)) {
      return failed("cannot make an id for it", -errno);
    }
    uuid[kUuidLength] = '\n';
    std::int64_t result = store_text(root(), kUuidName, std::string_view(uuid, sizeof(uuid)));
    if (result == 0 && ::mkdirat(root(), kObjectsName, kMode) != 0 && errno != EEXIST) {
      result = -errno;
    }
    if (result == 0) result = store_text(root(), kFormatDraftName, kFormat);
    if (result == 0) result = sync_directory(root(), "");
    if (result == 0) result = rename_file(root(), kFormatDraftName, kFormatName);
    if (result == 0) result = sync_directory(root(), "");
    return result == 0 ? "" : failed("cannot set it up", result);
  }

  std::string open_objects() {
    directory_.objects =
        Descriptor(::openat(root(), kObjectsName, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    return directory_.objects.is_open() ? "" : damaged("objects/ cannot be opened");
  }

  // Made at first, and again if one is missing: without it nobody would know what the cache holds.
  std::string make_shards() {
    constexpr mode_t kMode = 0700;
    const int objects = directory_.objects.get();
    bool is_any_new = false;
    for (int index = 0; index < kSubdirectories; ++index) {
      const std::string name = fmt::format("{:02x}", index);
      struct stat status {};
      if (::mkdirat(objects, name.c_str(), kMode) == 0) {
        is_any_new = true;
      } else if (errno != EEXIST) {
        return failed("cannot make objects/" + name, -errno);
      } else if (::fstatat(objects, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0 ||
                 !S_ISDIR(status.st_mode)) {
        return damaged("objects/" + name + " is not a directory");
      }
    }
    const std::int64_t result = is_any_new ? sync_directory(objects, "") : 0;
    return result == 0 ? "" : failed("cannot make objects/ durable", result);
  }

  std::string read_uuid() {
    const std::string text = load_text(root(), kUuidName).value_or("");
    if (text.size() != kUuidLength + 1) return damaged("UUID cannot be read");
    directory_.uuid = text.substr(0, kUuidLength);
    return {};
  }

  std::string damaged(std::string_view what) const {
    return fmt::format("cache directory {}: is damaged: {}; delete its contents to start afresh",
                       path_, what);
  }

  const std::string& path_;
  CacheDirectory directory_;
};

}  // namespace

CacheDirectoryResult open_cache_directory(const std::string& path) {
  Opening opening(path);
  if (std::string error = opening.run(); !error.empty()) return {std::nullopt, std::move(error)};
  return {opening.take(), {}};
}

std::optional<FileSystemSpace> file_system_space(int fd) {
  struct statvfs status {};
  if (::fstatvfs(fd, &status) != 0) return std::nullopt;
  return FileSystemSpace{.total_bytes = std::uint64_t{status.f_blocks} * status.f_frsize,
                         .free_bytes = std::uint64_t{status.f_bavail} * status.f_frsize};
}

}  // namespace ncfs

#include "io/source_identity.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "io/descriptor.h"
#include "io/transfer.h"
#include "io/wall_clock.h"

namespace ncfs {
namespace {

// File systems that are known by where they come from. What f_fsid holds for them, if anything,
// is made up by the client.
constexpr std::uint32_t kSmb2Magic = 0xFE534D42;
constexpr std::uint32_t kCifsMagic = 0xFF534D42;
constexpr std::uint32_t kLustreMagic = 0x0BD00BD0;
constexpr std::array<std::uint32_t, 8> kNetworkMagics = {
    NFS_SUPER_MAGIC,  kSmb2Magic,      kCifsMagic,   V9FS_MAGIC,
    CEPH_SUPER_MAGIC, AFS_SUPER_MAGIC, kLustreMagic, FUSE_SUPER_MAGIC};

bool is_network_type(const struct statfs& status) {
  return std::ranges::find(kNetworkMagics, static_cast<std::uint32_t>(status.f_type)) !=
         kNetworkMagics.end();
}

std::uint64_t digest(std::string_view text) {
  return XXH3_64bits(text.data(), text.size());
}

std::uint64_t file_system_id(const struct statfs& status) {
  static_assert(sizeof(status.f_fsid) == sizeof(std::uint64_t));
  std::uint64_t id = 0;
  std::memcpy(&id, &status.f_fsid, sizeof(id));
  return id;
}

// How the kernel writes a device number (huge_encode_dev): what XFS and others give as their id.
std::uint64_t encoded_device(std::uint32_t major, std::uint32_t minor) {
  return (minor & 0xffU) | (std::uint64_t{major} << 8U) | ((std::uint64_t{minor} & ~0xffU) << 12U);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    parts.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

std::string read_text(int fd) {
  constexpr std::size_t kChunk = 64 * kKiB;
  std::string text;
  while (true) {
    const std::size_t before = text.size();
    text.resize(before + kChunk);
    const auto space = std::as_writable_bytes(std::span(text)).subspan(before);
    const std::int64_t count = read_fully(fd, space, before);
    text.resize(before + static_cast<std::size_t>(std::max<std::int64_t>(count, 0)));
    if (count < static_cast<std::int64_t>(kChunk)) return text;
  }
}

// STATX_MNT_ID_UNIQUE of Linux 6.8: stx_mnt_id is an id that no other mount ever had. Older kernels
// ignore it and leave it out of stx_mask.
constexpr unsigned kUniqueMountId = 0x4000;

// Digests by mount where the kernel gives mounts ids of their own, else by device number. That is
// given to another file system once its own is unmounted, so whatever was learnt by it is forgotten
// whenever the table of mounts changes, which the kernel tells by poll().
class FileSystemDigests {
 public:
  // 0, or an errno of the file system.
  int find(int fd, const struct statx& file, std::uint64_t& found) {
    const bool has_mount_id = (file.stx_mask & kUniqueMountId) != 0;
    Digests& digests = has_mount_id ? by_mount_ : by_device_;
    const std::uint64_t key =
        has_mount_id ? file.stx_mnt_id : encoded_device(file.stx_dev_major, file.stx_dev_minor);
    {
      const std::lock_guard lock(mutex_);
      forget_if_changed();
      if (const auto known = digests.find(key); known != digests.end()) {
        found = known->second;
        return 0;
      }
    }
    // Asks the server; others must not wait for it.
    struct statfs status {};
    if (::fstatfs(fd, &status) != 0) return errno;
    const std::lock_guard lock(mutex_);
    forget_if_changed();
    found = compute(status, file.stx_dev_major, file.stx_dev_minor);
    if (digests.size() >= kDigestsMax) digests.clear();
    digests.emplace(key, found);
    return 0;
  }

 private:
  using Digests = std::unordered_map<std::uint64_t, std::uint64_t>;

  // An NFS tree has one mount for each export below it. More of them than this are looked up anew
  // now and then.
  static constexpr std::size_t kDigestsMax = 1024;

  void forget_if_changed() {
    pollfd change{mountinfo_.get(), POLLPRI, 0};
    if (::poll(&change, 1, 0) != 0) by_device_.clear();
  }

  std::uint64_t compute(const struct statfs& status, std::uint32_t major, std::uint32_t minor) {
    const auto type = static_cast<std::uint32_t>(status.f_type);
    const std::uint64_t id = file_system_id(status);
    if (!is_network_type(status) && id != 0 && id != encoded_device(major, minor)) {
      return digest(fmt::format("id {:x} {:x}", type, id));
    }
    if (const auto by_mount = mount_digest(read_text(mountinfo_.get()), major, minor)) {
      return *by_mount;
    }
    // Mounted nowhere that we can see, a lazily unmounted tree for instance: right for as long as
    // it lives, and unknown the next time.
    return digest(fmt::format("device {:x} {:x} {}:{}", type, id, major, minor));
  }

  const Descriptor mountinfo_{::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)};
  std::mutex mutex_;
  Digests by_mount_;   // guarded by mutex_
  Digests by_device_;  // guarded by mutex_
};

// How long ago, saturating: a server may say anything.
std::int64_t age_of(const struct timespec& now, const struct statx_timestamp& changed) {
  constexpr std::int64_t kSecondsMax = 9'000'000'000;
  const std::int64_t at = std::clamp<std::int64_t>(changed.tv_sec, -kSecondsMax / 2, kSecondsMax);
  const std::int64_t seconds = std::clamp<std::int64_t>(now.tv_sec - at, -kSecondsMax, kSecondsMax);
  return seconds * static_cast<std::int64_t>(kSecond) + now.tv_nsec - changed.tv_nsec;
}

}  // namespace

// The fields of a line (proc_pid_mountinfo(5)):
//   36 35 98:0 /root /mount/point rw,noatime master:1 - type source options
// with any number of optional fields before the "-".
bool is_on_network(int fd) {
  struct statfs status {};
  return ::fstatfs(fd, &status) != 0 || is_network_type(status);
}

std::optional<std::uint64_t> mount_digest(std::string_view mountinfo, std::uint32_t major,
                                          std::uint32_t minor) {
  const std::string device = fmt::format("{}:{}", major, minor);
  std::optional<std::string> first;
  for (const std::string_view line : split(mountinfo, '\n')) {
    const auto fields = split(line, ' ');
    const auto dash = std::ranges::find(fields, "-");
    if (fields.size() < 6 || fields[2] != device || fields.end() - dash < 3) continue;
    std::string what = fmt::format("mount {} {} {}", dash[1], dash[2], fields[3]);
    if (!first || what < *first) first = std::move(what);
  }
  if (!first) return std::nullopt;
  return digest(*first);
}

SourceLook look_at_source(int fd, Freshness freshness) {
  // Never destroyed: a thread stuck in a server may come back while the process exits.
  static FileSystemDigests& digests = *new FileSystemDigests;
  const int sync =
      freshness == Freshness::from_server ? AT_STATX_FORCE_SYNC : AT_STATX_SYNC_AS_STAT;
  struct statx status {};
  if (::statx(fd, "", AT_EMPTY_PATH | sync, STATX_BASIC_STATS | kUniqueMountId, &status) != 0) {
    return {.error = errno, .state = {}, .is_regular = false};
  }
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  SourceLook look;
  look.error = digests.find(fd, status, look.state.file.filesystem);
  look.state.file.inode = status.stx_ino;
  look.state.version = {.size = status.stx_size,
                        .mtime_ns = wall_nanos(status.stx_mtime.tv_sec, status.stx_mtime.tv_nsec),
                        .ctime_ns = wall_nanos(status.stx_ctime.tv_sec, status.stx_ctime.tv_nsec)};
  look.state.age_ns = std::min(age_of(now, status.stx_mtime), age_of(now, status.stx_ctime));
  look.is_regular = S_ISREG(status.stx_mode);
  return look;
}

}  // namespace ncfs

// Value types shared by every layer. No behaviour beyond comparison and arithmetic on ranges.
#pragma once

#include <compare>
#include <cstdint>

namespace ncfs {

// Monotonic time in nanoseconds. The origin is arbitrary and differs between runs.
using Nanos = std::uint64_t;

inline constexpr Nanos kMillisecond = 1'000'000;
inline constexpr Nanos kSecond = 1'000 * kMillisecond;

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;

// Half-open range of bytes of one file: [offset, offset + length).
struct ByteRange {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;

  [[nodiscard]] constexpr std::uint64_t end() const { return offset + length; }
  [[nodiscard]] constexpr bool empty() const { return length == 0; }
  friend constexpr bool operator==(const ByteRange&, const ByteRange&) = default;
};

// Identity of a source file that survives remounts and reboots. `filesystem` is a digest of what
// the file system is (not st_dev, which NFS numbers anew at every mount); `inode` is st_ino.
struct FileId {
  std::uint64_t filesystem = 0;
  std::uint64_t inode = 0;
  friend constexpr auto operator<=>(const FileId&, const FileId&) = default;
};

// One content of a source file. Two equal versions of one FileId have equal bytes, except within
// the racy window after a change (Config::racy_window), which the engine guards. ctime is part of
// it so that a change with a restored mtime is seen.
struct SourceVersion {
  std::uint64_t size = 0;
  std::int64_t mtime_ns = 0;
  std::int64_t ctime_ns = 0;
  friend constexpr auto operator<=>(const SourceVersion&, const SourceVersion&) = default;
};

// What a stat of a source file told.
struct SourceState {
  FileId file;
  SourceVersion version;
  // Wall clock of this host minus the newest of mtime and ctime, taken at the stat; negative when
  // the server's clock is ahead. Small values mean that another change could still get the same
  // timestamps.
  std::int64_t age_ns = 0;
};

}  // namespace ncfs

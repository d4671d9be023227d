// Moving bytes between buffers and open files without filling the page cache with copies.
//
// The source is read once and kept on the cache disk; a copy in RAM on the way would push out what
// applications use. What somebody else has put into the page cache is used and left there.
//
// All functions may be called from several threads at a time and return bytes or -errno.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>

#include "io/descriptor.h"

namespace ncfs {

// The unit of O_DIRECT: the page, which no supported file system's block exceeds.
inline constexpr std::size_t kDirectAlignment = 4096;

// Reads of one open source file.
class SourceReader {
 public:
  enum class Mode : std::uint8_t {
    // Through the page cache, with the kernel's readahead.
    buffered,
    // Through the page cache with RWF_DONTCACHE: pages read for us are dropped by the kernel at
    // once. Turns into `dropping` where the kernel or the file system cannot do it. Of what leaves
    // no copy this is the fastest that still uses bytes already in RAM and needs no second open
    // (which a server that squashes root may refuse).
    dont_cache,
    // Through the page cache; the range is dropped afterwards, unless part of it was there before.
    dropping,
  };

  // `fd` outlives the reader. Except in `buffered` mode the kernel's readahead is switched off for
  // the open file: it fetches beyond what was asked for, and pages dropped before their use are
  // fetched again (9 to 12 % more bytes were read from the device).
  SourceReader(int fd, Mode mode) : fd_(fd), mode_(mode) {}

  // Until `bytes` is full or the file ends; an error after some bytes returns the bytes.
  std::int64_t read(std::span<std::byte> bytes, std::uint64_t offset);

  [[nodiscard]] Mode mode() const { return mode_.load(std::memory_order_relaxed); }

 private:
  const int fd_;
  std::atomic<Mode> mode_;
  std::atomic<bool> is_prepared_{false};
};

// Writes of one open cache file.
class CacheWriter {
 public:
  enum class Mode : std::uint8_t {
    buffered,
    // Whole pages through a second descriptor opened with O_DIRECT, the unaligned end through the
    // file's own. Turns into `dropping` where O_DIRECT is refused.
    direct,
    // Through the page cache; the range is written out and dropped before the write returns.
    dropping,
  };

  // `fd` is open for reading and writing and outlives the writer.
  CacheWriter(int fd, Mode mode) : fd_(fd), mode_(mode) {}

  // All bytes or an error.
  std::int64_t write(std::span<const std::byte> bytes, std::uint64_t offset);

  // Lets go of the second descriptor, which would otherwise count as a user of the file. A write
  // in progress keeps it until it is done; the next write opens another one.
  void close_direct();

  [[nodiscard]] Mode mode() const { return mode_.load(std::memory_order_relaxed); }

 private:
  std::shared_ptr<const Descriptor> direct();
  std::size_t write_direct(std::span<const std::byte> bytes, std::uint64_t offset, int& error);

  const int fd_;
  std::atomic<Mode> mode_;
  std::mutex mutex_;
  std::shared_ptr<const Descriptor> direct_;  // guarded by mutex_
};

// Plain loops over partial transfers.
std::int64_t read_fully(int fd, std::span<std::byte> bytes, std::uint64_t offset);
std::int64_t write_fully(int fd, std::span<const std::byte> bytes, std::uint64_t offset);

}  // namespace ncfs

// Moving bytes between buffers and open files without filling the page cache with copies.
//
// The source is read once and kept on the cache disk; a copy in RAM on the way would push out what
// applications use. What somebody else has put into the page cache is used and left there.
//
// All functions may be called from several threads at a time and return bytes or -errno.
#pragma once

#include <fcntl.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include "io/descriptor.h"
#include "io/types.h"

namespace ncfs {

// The unit of O_DIRECT: the page, which no supported file system's block exceeds.
inline constexpr std::size_t kDirectAlignment = 4096;

// A second descriptor of an open file, for O_DIRECT; opened when it is first asked for. Root squash
// may refuse it on a source, and some file systems have no O_DIRECT: it is then never there.
class DirectTwin {
 public:
  DirectTwin(int fd, int access_mode) : fd_(fd), access_mode_(access_mode) {}

  [[nodiscard]] std::shared_ptr<const Descriptor> open();  // null if there is none
  // A transfer in progress keeps the descriptor until it is done; open() makes another one.
  void close();
  // Transfers through it were refused: from here on there is none.
  void give_up();

 private:
  const int fd_;
  const int access_mode_;
  std::mutex mutex_;
  bool is_refused_ = false;  // guarded by mutex_, as is what follows
  std::shared_ptr<const Descriptor> direct_;
};

// Reads of one open source file.
class SourceReader {
 public:
  enum class Mode : std::uint8_t {
    // Through the page cache, with the kernel's readahead.
    buffered,
    // Large ranges of which nothing is in RAM by O_DIRECT, which costs a fifth of the CPU time of
    // the page cache. The rest, and all of it where O_DIRECT is refused, through the page cache
    // with RWF_DONTCACHE: pages read for us are dropped by the kernel at once. Turns into
    // `dropping` where the kernel or the file system cannot do that.
    dont_cache,
    // Through the page cache; the range is dropped afterwards, unless part of it was there before.
    dropping,
    // By O_DIRECT set on the descriptor itself, for network file systems, which take ranges of any
    // alignment: a second descriptor would cost a round trip and may be refused to root. What is in
    // the page cache is not looked for. Turns into `dropping` where O_DIRECT is refused.
    past_cache,
  };

  // `fd` outlives the reader. Except in `buffered` mode the kernel's readahead is switched off for
  // the open file: it fetches beyond what was asked for and leaves pages behind. With it, a whole
  // ext4 file read by four threads cost about a tenth more bytes from the device than it has.
  SourceReader(int fd, Mode mode) : fd_(fd), mode_(mode), twin_(fd, O_RDONLY) {}

  // Until `bytes` is full or the file ends. An error is an error also after some bytes: short
  // means the end of the file and nothing else.
  std::int64_t read(std::span<std::byte> bytes, std::uint64_t offset);

  // The same through the page cache, for bytes that others read there, too. Where it was set,
  // O_DIRECT is taken back: from here on `past_cache` is `dont_cache`.
  std::int64_t read_shared(std::span<std::byte> bytes, std::uint64_t offset);

  void close_direct() { twin_.close(); }

  [[nodiscard]] Mode mode() const { return mode_.load(std::memory_order_relaxed); }

 private:
  // False if the file system refuses. Reads in progress go on as they began.
  [[nodiscard]] bool set_direct(bool is_direct) const;
  std::optional<std::int64_t> read_past_cache(std::span<std::byte> bytes, std::uint64_t offset);
  [[nodiscard]] bool may_read_direct(std::span<const std::byte> bytes, std::uint64_t offset) const;
  std::optional<std::int64_t> read_direct(std::span<std::byte> bytes, std::uint64_t offset);
  std::int64_t read_cached(std::span<std::byte> bytes, std::uint64_t offset);

  const int fd_;
  std::atomic<Mode> mode_;
  std::atomic<bool> is_prepared_{false};
  DirectTwin twin_;
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
  CacheWriter(int fd, Mode mode) : fd_(fd), mode_(mode), twin_(fd, O_WRONLY) {}

  // All bytes or an error.
  std::int64_t write(std::span<const std::byte> bytes, std::uint64_t offset);

  // Lets go of the second descriptor, which would otherwise count as a user of the file. A write
  // in progress keeps it until it is done; the next write opens another one.
  void close_direct() { twin_.close(); }

  [[nodiscard]] Mode mode() const { return mode_.load(std::memory_order_relaxed); }

 private:
  std::size_t write_direct(std::span<const std::byte> bytes, std::uint64_t offset, int& error);

  const int fd_;
  std::atomic<Mode> mode_;
  DirectTwin twin_;
};

// XXH3-64, seed 0.
[[nodiscard]] std::uint64_t checksum_of(std::span<const std::byte> bytes);

// Reads a range, of any length, only for its checksum. Pages that were not in memory before are
// dropped again where `leave_no_copy`. Bytes read, fewer only at the end of the file.
std::int64_t read_checksum(int fd, ByteRange range, bool leave_no_copy, std::uint64_t& checksum);

// Plain loops over partial transfers.
std::int64_t read_fully(int fd, std::span<std::byte> bytes, std::uint64_t offset);
std::int64_t write_fully(int fd, std::span<const std::byte> bytes, std::uint64_t offset);

}  // namespace ncfs

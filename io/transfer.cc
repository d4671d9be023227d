#include "io/transfer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <vector>

namespace ncfs {
namespace {

// Below this the page cache is as cheap, and what readers ask for at random is rarely aligned.
constexpr std::size_t kDirectReadMin = 128 * kKiB;

// From linux/fs.h and linux/mman.h, which Debian 12's headers do not have yet.
constexpr int kDontCache = 0x80;      // RWF_DONTCACHE, Linux 6.14
constexpr long kCachestatCall = 451;  // cachestat(2), Linux 6.5
struct CachestatRange {
  std::uint64_t offset;
  std::uint64_t length;
};
struct Cachestat {
  std::uint64_t cached;
  std::uint64_t dirty;
  std::uint64_t writeback;
  std::uint64_t evicted;
  std::uint64_t recently_evicted;
};

// Where the kernel cannot tell, nothing counts as cached.
bool is_any_cached(int fd, std::uint64_t offset, std::uint64_t length) {
  CachestatRange range{offset, length};
  Cachestat pages{};
  return ::syscall(kCachestatCall, fd, &range, &pages, 0U) == 0 && pages.cached > 0;
}

void drop_pages(int fd, std::uint64_t offset, std::uint64_t length) {
  ::posix_fadvise(fd, static_cast<off_t>(offset), static_cast<off_t>(length), POSIX_FADV_DONTNEED);
}

std::int64_t read_with_flags(int fd, std::span<std::byte> bytes, std::uint64_t offset, int flags) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    iovec part{bytes.data() + done, bytes.size() - done};
    const ssize_t count = ::preadv2(fd, &part, 1, static_cast<off_t>(offset + done), flags);
    if (count > 0) {
      done += static_cast<std::size_t>(count);
    } else if (count == 0) {
      break;
    } else if (errno != EINTR) {
      return -errno;
    }
  }
  return static_cast<std::int64_t>(done);
}

bool is_aligned(std::span<const std::byte> bytes, std::uint64_t offset) {
  return offset % kDirectAlignment == 0 &&
         reinterpret_cast<std::uintptr_t>(bytes.data()) % kDirectAlignment == 0;
}

// 0 or -errno. A file system that cannot write out a range on its own is not an error.
int write_out(int fd, std::uint64_t offset, std::uint64_t length) {
  const unsigned flags =
      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  if (::sync_file_range(fd, static_cast<off_t>(offset), static_cast<off_t>(length), flags) == 0) {
    return 0;
  }
  // Anything else is a failed write-back that the later sync of this file would not tell again.
  return errno == EINVAL || errno == ESPIPE || errno == ENOSYS ? 0 : -errno;
}

}  // namespace

std::uint64_t checksum_of(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::int64_t read_checksum(int fd, ByteRange range, bool leave_no_copy, std::uint64_t& checksum) {
  // Large enough for a disk to be fast, small enough for the processor's cache.
  constexpr std::uint64_t kPiece = 256 * kKiB;
  std::vector<std::byte> piece(std::min(kPiece, range.length));
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(),
                                                                       &XXH3_freeState);
  if (!state) return -ENOMEM;
  XXH3_64bits_reset(state.get());
  const bool drops = leave_no_copy && !is_any_cached(fd, range.offset, range.length);
  std::uint64_t done = 0;
  while (done < range.length) {
    const auto part = std::span(piece).first(std::min(kPiece, range.length - done));
    const std::int64_t count = read_fully(fd, part, range.offset + done);
    if (count < 0) return count;
    XXH3_64bits_update(state.get(), part.data(), static_cast<std::size_t>(count));
    done += static_cast<std::uint64_t>(count);
    if (count < std::ssize(part)) break;
  }
  if (drops) drop_pages(fd, range.offset, range.length);
  checksum = XXH3_64bits_digest(state.get());
  return static_cast<std::int64_t>(done);
}

std::int64_t read_fully(int fd, std::span<std::byte> bytes, std::uint64_t offset) {
  return read_with_flags(fd, bytes, offset, 0);
}

std::int64_t write_fully(int fd, std::span<const std::byte> bytes, std::uint64_t offset) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count =
        ::pwrite(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (count > 0) {
      done += static_cast<std::size_t>(count);
    } else if (count == 0) {
      return -EIO;
    } else if (errno != EINTR) {
      return -errno;
    }
  }
  return static_cast<std::int64_t>(done);
}

std::shared_ptr<const Descriptor> DirectTwin::open() {
  const std::lock_guard lock(mutex_);
  if (direct_ || is_refused_) return direct_;
  const std::string path = fmt::format("/proc/self/fd/{}", fd_);
  const int inherited = std::max(0, ::fcntl(fd_, F_GETFL)) & O_NOATIME;
  Descriptor opened(::open(path.c_str(), access_mode_ | inherited | O_DIRECT | O_CLOEXEC));
  if (opened.is_open()) {
    direct_ = std::make_shared<const Descriptor>(std::move(opened));
  } else {
    is_refused_ = true;
  }
  return direct_;
}

void DirectTwin::close() {
  const std::lock_guard lock(mutex_);
  direct_.reset();
}

void DirectTwin::give_up() {
  const std::lock_guard lock(mutex_);
  is_refused_ = true;
  direct_.reset();
}

std::int64_t SourceReader::read(std::span<std::byte> bytes, std::uint64_t offset) {
  if (mode() == Mode::buffered) return read_fully(fd_, bytes, offset);
  if (!is_prepared_.exchange(true, std::memory_order_relaxed)) {
    ::posix_fadvise(fd_, 0, 0, POSIX_FADV_RANDOM);
    if (mode() == Mode::past_cache && !set_direct(true)) mode_ = Mode::dropping;
  }
  if (mode() == Mode::past_cache) {
    if (const std::optional<std::int64_t> count = read_past_cache(bytes, offset)) return *count;
  }
  std::size_t done = 0;
  if (may_read_direct(bytes, offset)) {
    const auto pages = bytes.first(bytes.size() - bytes.size() % kDirectAlignment);
    if (const std::optional<std::int64_t> count = read_direct(pages, offset)) {
      if (*count < std::ssize(pages)) return *count;  // an error or the end of the file
      done = pages.size();
    }
  }
  const auto rest = bytes.subspan(done);
  if (rest.empty()) return std::ssize(bytes);
  const std::int64_t count = read_cached(rest, offset + done);
  return count < 0 ? count : static_cast<std::int64_t>(done) + count;
}

std::int64_t SourceReader::read_shared(std::span<std::byte> bytes, std::uint64_t offset) {
  Mode past_cache = Mode::past_cache;
  if (mode_.compare_exchange_strong(past_cache, Mode::dont_cache)) {
    static_cast<void>(set_direct(false));
  }
  return read_fully(fd_, bytes, offset);
}

bool SourceReader::set_direct(bool is_direct) const {
  const int flags = ::fcntl(fd_, F_GETFL);
  const int wanted = is_direct ? flags | O_DIRECT : flags & ~O_DIRECT;
  return flags >= 0 && ::fcntl(fd_, F_SETFL, wanted) == 0;
}

// Nothing if the range cannot be read this way.
std::optional<std::int64_t> SourceReader::read_past_cache(std::span<std::byte> bytes,
                                                          std::uint64_t offset) {
  const std::int64_t result = read_fully(fd_, bytes, offset);
  if (result != -EINVAL) return result;
  mode_ = Mode::dropping;
  static_cast<void>(set_direct(false));
  return std::nullopt;
}

bool SourceReader::may_read_direct(std::span<const std::byte> bytes, std::uint64_t offset) const {
  return mode() == Mode::dont_cache && bytes.size() >= kDirectReadMin &&
         is_aligned(bytes, offset) && !is_any_cached(fd_, offset, bytes.size());
}

// Nothing if the range cannot be read this way.
std::optional<std::int64_t> SourceReader::read_direct(std::span<std::byte> bytes,
                                                      std::uint64_t offset) {
  const std::shared_ptr<const Descriptor> direct = twin_.open();
  if (!direct) return std::nullopt;
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::pread(direct->get(), bytes.data() + done, bytes.size() - done,
                                  static_cast<off_t>(offset + done));
    if (count > 0) {
      done += static_cast<std::size_t>(count);
      if (done % kDirectAlignment != 0) break;  // the end of the file
    } else if (count == 0) {
      break;
    } else if (errno == EINVAL) {
      twin_.give_up();
      return std::nullopt;
    } else if (errno != EINTR) {
      return -errno;
    }
  }
  return static_cast<std::int64_t>(done);
}

std::int64_t SourceReader::read_cached(std::span<std::byte> bytes, std::uint64_t offset) {
  if (mode() == Mode::dont_cache) {
    const std::int64_t result = read_with_flags(fd_, bytes, offset, kDontCache);
    if (result != -EOPNOTSUPP && result != -EINVAL) return result;
    mode_.store(Mode::dropping, std::memory_order_relaxed);
  }
  const bool was_cached = is_any_cached(fd_, offset, bytes.size());
  const std::int64_t result = read_fully(fd_, bytes, offset);
  if (!was_cached) drop_pages(fd_, offset, bytes.size());
  return result;
}

std::int64_t CacheWriter::write(std::span<const std::byte> bytes, std::uint64_t offset) {
  std::size_t done = 0;
  if (mode() == Mode::direct && is_aligned(bytes, offset)) {
    int error = 0;
    done = write_direct(bytes.first(bytes.size() - bytes.size() % kDirectAlignment), offset, error);
    if (error != 0) return -error;
  }
  const auto rest = bytes.subspan(done);
  if (rest.empty()) return static_cast<std::int64_t>(done);
  const std::int64_t result = write_fully(fd_, rest, offset + done);
  if (result < 0) return result;
  // The end of the last block stays in RAM until the file is synced: less than a page per file.
  if (mode() == Mode::buffered || rest.size() < kDirectAlignment) return std::ssize(bytes);
  if (const int error = write_out(fd_, offset + done, rest.size()); error != 0) return error;
  drop_pages(fd_, offset + done, rest.size());
  return std::ssize(bytes);
}

// Returns what was written. Less than asked for without an error: the rest cannot go this way.
std::size_t CacheWriter::write_direct(std::span<const std::byte> bytes, std::uint64_t offset,
                                      int& error) {
  if (bytes.empty()) return 0;
  const std::shared_ptr<const Descriptor> target = twin_.open();
  if (!target) {
    mode_.store(Mode::dropping, std::memory_order_relaxed);
    return 0;
  }
  std::size_t done = 0;
  while (done < bytes.size() && done % kDirectAlignment == 0) {
    const ssize_t count = ::pwrite(target->get(), bytes.data() + done, bytes.size() - done,
                                   static_cast<off_t>(offset + done));
    if (count > 0) {
      done += static_cast<std::size_t>(count);
    } else if (count < 0 && errno == EINVAL) {
      mode_.store(Mode::dropping, std::memory_order_relaxed);
      twin_.give_up();
      break;
    } else if (count == 0 || errno != EINTR) {
      error = count == 0 ? EIO : errno;
      break;
    }
  }
  return done;
}

}  // namespace ncfs

// Reading. Bytes that are in the cache file and in memory are answered at once by the dispatch
// thread; the rest of the cache file is read by its own pool; what is missing is asked of the
// engine, block by block. A cache file that fails or hangs is given up for the source.
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "fuse_adapter/aligned_bytes.h"
#include "fuse_adapter/fuse_ops.h"
#include "io/monotonic_clock.h"

namespace ncfs {
namespace {

// From Linux 6.14: what is read does not stay in the page cache.
constexpr int kDontCache = 0x80;

std::atomic<bool> kernel_has_dont_cache{true};

// A buffer of the calling thread, of at least `size` bytes and at most as long as the longest read
// that the kernel was told it may ask for.
std::span<std::byte> thread_buffer(std::size_t size) {
  thread_local AlignedBytes buffer(0);
  if (buffer.bytes().size() < size) buffer = AlignedBytes(size);
  return buffer.bytes().first(size);
}

// preadv2 of the whole range; bytes read or -errno.
ssize_t read_once(int descriptor, std::span<std::byte> bytes, std::uint64_t offset, int flags,
                  bool leave_no_copy) {
  const iovec part{bytes.data(), bytes.size()};
  const auto position = static_cast<off_t>(offset);
  if (leave_no_copy && kernel_has_dont_cache.load(std::memory_order_relaxed)) {
    const ssize_t count = ::preadv2(descriptor, &part, 1, position, flags | kDontCache);
    if (count >= 0 || errno != EOPNOTSUPP) return count >= 0 ? count : -errno;
    // EOPNOTSUPP may be the other flag's.
    if (flags == 0) kernel_has_dont_cache.store(false, std::memory_order_relaxed);
  }
  const ssize_t count = ::preadv2(descriptor, &part, 1, position, flags);
  return count >= 0 ? count : -errno;
}

// Reads until the range is full, the file ends or an error comes.
ssize_t read_all(int descriptor, std::span<std::byte> bytes, std::uint64_t offset,
                 bool leave_no_copy) {
  std::size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t count =
        read_once(descriptor, bytes.subspan(filled), offset + filled, 0, leave_no_copy);
    if (count == -EINTR) continue;
    if (count < 0) return count;
    if (count == 0) break;
    filled += static_cast<std::size_t>(count);
  }
  return static_cast<ssize_t>(filled);
}

// A read that takes more than a look into memory. Kept alive by what is under way for it.
//
// It is cut into parts, each answered once. A part that is the whole read is answered straight from
// where its bytes are; several are put together first.
class PendingRead : public std::enable_shared_from_this<PendingRead> {
 public:
  PendingRead(FuseCore& core, fuse_req_t raw, OpenFile& file, ByteRange range)
      : core_(core.shared_from_this()),
        request_(core.channel, raw),
        file_(file.shared_from_this()),
        range_(range),
        end_(range.end()) {}

  void start() {
    struct Part {
      ByteRange range;
      bool resident;
    };
    std::vector<Part> parts;
    for (std::uint64_t offset = range_.offset; offset < range_.end();) {
      const ByteRange rest{offset, range_.end() - offset};
      const Residency* residency = file_->residency();
      const ReadPlan plan =
          residency != nullptr ? plan_read(*residency, rest) : ReadPlan{false, first_block(rest)};
      parts.push_back({plan.range, plan.resident});
      offset = plan.range.end();
    }
    expect(parts.size());
    for (const Part& part : parts) {
      if (part.resident) {
        read_cached(part.range, file_->residency()->cache_file(), nullptr);
      } else {
        read_missing(part.range, false);
      }
    }
  }

  // All of it from the source, past the engine.
  void read_source() {
    const Backends::Device device = core_->device_of(file_->node);
    const auto give_up = [self = shared_from_this(), device] {
      self->core_->backends->answered(device, ETIMEDOUT);
      if (self->request_.give_up(ETIMEDOUT)) self->core_->stats->timeouts.add();
    };
    if (core_->backends->is_down(device)) {
      give_up();
      return;
    }
    const bool accepted = core_->metadata.submit(
        {.run =
             [self = shared_from_this(), device] {
               if (self->request_.is_answered()) return;
               const auto bytes = thread_buffer(self->range_.length);
               const ssize_t count =
                   read_all(self->file_->source, bytes, self->range_.offset, false);
               self->core_->backends->answered(device, count < 0 ? static_cast<int>(-count) : 0);
               self->answer_from_source(bytes, count);
             },
         .expire = give_up,
         .lane = device});
    if (accepted) return;
    core_->stats->rejected.add();
    request_.error(ENOMEM);
  }

 private:
  [[nodiscard]] ByteRange first_block(ByteRange range) const {
    const Residency* residency = file_->residency();
    const std::uint64_t block =
        residency != nullptr ? residency->block_size_bytes() : core_->settings.block_size_bytes;
    const std::uint64_t left = block - range.offset % block;
    return {range.offset, std::min(range.length, left)};
  }

  // Before the parts are asked for.
  void expect(std::size_t parts) {
    if (parts > 1 && assembled_.empty()) assembled_.resize(range_.length);
    outstanding_.store(parts, std::memory_order_relaxed);
  }

  // `owner` keeps the cache file's residency; null if the file has adopted it.
  void read_cached(ByteRange part, FileHandle cache_file, std::shared_ptr<Residency> owner) {
    // Set by who deals with the part: the thread that has read it or the watch that gave it up.
    auto is_taken = std::make_shared<std::atomic<bool>>(false);
    const bool accepted = core_->cache_reads.submit(
        {.run =
             [self = shared_from_this(), part, cache_file, owner = std::move(owner), is_taken] {
               const auto bytes = thread_buffer(part.length);
               const ssize_t count = read_all(static_cast<int>(cache_file), bytes, part.offset,
                                              self->core_->settings.direct_io);
               if (is_taken->exchange(true)) return;
               if (count == static_cast<ssize_t>(part.length)) {
                 self->deliver(part, bytes, self->core_->stats->cache_bytes);
               } else {
                 self->give_up_cache(part, count < 0 ? static_cast<int>(-count) : EIO);
               }
             },
         .expire =
             [self = shared_from_this(), part, is_taken] {
               if (!is_taken->exchange(true)) self->give_up_cache(part, ETIMEDOUT);
             }});
    if (!accepted) read_blocks(part);
  }

  void give_up_cache(ByteRange part, int error) {
    core_->stats->cache_faults.add();
    core_->engine->cache_fault(file_->handle, error);
    read_blocks(part);
  }

  // The engine is asked for a block at a time.
  void read_blocks(ByteRange part) {
    std::vector<ByteRange> blocks;
    while (!part.empty()) {
      blocks.push_back(first_block(part));
      part = {blocks.back().end(), part.length - blocks.back().length};
    }
    if (blocks.size() > 1) {
      if (assembled_.empty()) assembled_.resize(range_.length);
      outstanding_.fetch_add(blocks.size() - 1, std::memory_order_relaxed);
    }
    for (const ByteRange& block : blocks) read_missing(block, true);
  }

  void read_missing(ByteRange part, bool skip_cache) {
    core_->engine->read(file_->handle, part, skip_cache,
                        [self = shared_from_this(), part](const ReadOutcome& outcome) {
                          self->take(part, outcome);
                        });
  }

  void take(ByteRange part, const ReadOutcome& outcome) {
    file_->adopt(outcome.residency);
    if (outcome.error != 0) {
      int none = 0;
      error_.compare_exchange_strong(none, outcome.error, std::memory_order_relaxed);
      finish_part();
    } else if (outcome.is_resident) {
      read_cached(part, outcome.residency->cache_file(), outcome.residency);
    } else {
      deliver(part, outcome.bytes, core_->stats->source_bytes);
    }
  }

  void deliver(ByteRange part, std::span<const std::byte> bytes, Counter& counter) {
    counter.add(bytes.size());
    if (&counter == &core_->stats->source_bytes) {
      reads_source_.store(true, std::memory_order_relaxed);
    }
    if (part == range_) {
      note_time();
      request_.bytes(bytes);
      return;
    }
    std::ranges::copy(
        bytes, assembled_.begin() + static_cast<std::ptrdiff_t>(part.offset - range_.offset));
    if (bytes.size() < part.length) {
      const std::uint64_t end = part.offset + bytes.size();
      std::uint64_t known = end_.load(std::memory_order_relaxed);
      while (end < known && !end_.compare_exchange_weak(known, end, std::memory_order_relaxed)) {
      }
    }
    finish_part();
  }

  // The last one sees what all others wrote: acquire and release.
  void finish_part() {
    if (outstanding_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    const int error = error_.load(std::memory_order_relaxed);
    if (error != 0) {
      core_->stats->errors.add();
      request_.error(error);
      return;
    }
    note_time();
    request_.bytes(
        std::span(assembled_).first(end_.load(std::memory_order_relaxed) - range_.offset));
  }

  void answer_from_source(std::span<const std::byte> bytes, ssize_t count) {
    if (count < 0) {
      core_->stats->errors.add();
      request_.error(static_cast<int>(-count));
      return;
    }
    core_->stats->source_bytes.add(static_cast<std::uint64_t>(count));
    reads_source_.store(true, std::memory_order_relaxed);
    note_time();
    request_.bytes(bytes.first(static_cast<std::size_t>(count)));
  }

  // Right before the bytes are handed over.
  void note_time() {
    AdapterStats& stats = *core_->stats;
    (reads_source_.load(std::memory_order_relaxed) ? stats.read_source_time : stats.read_cache_time)
        .add(monotonic_now() - request_.asked_at());
  }

  const std::shared_ptr<FuseCore> core_;
  KernelRequest request_;
  const std::shared_ptr<OpenFile> file_;
  const ByteRange range_;
  std::vector<std::byte> assembled_;  // empty while one part is the whole read
  std::atomic<std::size_t> outstanding_{0};
  std::atomic<std::uint64_t> end_;  // of the bytes there are, if the source has become shorter
  std::atomic<int> error_{0};
  std::atomic<bool> reads_source_{false};
};

// Whether the read was answered from memory.
bool answer_from_memory(FuseCore& core, fuse_req_t raw, const OpenFile& file, ByteRange range) {
  Residency* const residency = file.residency();
  if (residency == nullptr) return false;
  const ReadPlan plan = plan_read(*residency, range);
  if (!plan.resident || plan.range != range) return false;
  const Nanos asked_at = monotonic_now();
  const auto bytes = thread_buffer(range.length);
  const ssize_t count = read_once(static_cast<int>(residency->cache_file()), bytes, range.offset,
                                  RWF_NOWAIT, core.settings.direct_io);
  if (count != static_cast<ssize_t>(range.length)) return false;
  core.stats->cache_bytes.add(range.length);
  core.stats->read_cache_time.add(monotonic_now() - asked_at);
  fuse_reply_buf(raw, reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return true;
}

void read(fuse_req_t raw, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* info) {
  FuseCore& core = FuseCore::of(raw);
  auto& file = handle_of<OpenFile>(info->fh);
  core.stats->reads.add();
  ByteRange range{static_cast<std::uint64_t>(offset), size};
  if (file.is_past_cache()) {
    std::make_shared<PendingRead>(core, raw, file, range)->read_source();
    return;
  }
  if (range.end() > file.size_bytes) {
    // The kernel was told of a longer file. One answer must not mix two versions, so all of it is
    // read from what the source holds now.
    if (file.source_size_bytes() > file.size_bytes) {
      std::make_shared<PendingRead>(core, raw, file, range)->read_source();
      return;
    }
    range.length = std::max(range.offset, file.size_bytes) - range.offset;
  }
  if (range.empty()) {
    fuse_reply_buf(raw, nullptr, 0);
    return;
  }
  if (answer_from_memory(core, raw, file, range)) return;
  std::make_shared<PendingRead>(core, raw, file, range)->start();
}

// SEEK_DATA and SEEK_HOLE; the kernel does the rest itself.
void lseek(fuse_req_t raw, fuse_ino_t, off_t offset, int whence, fuse_file_info* info) {
  auto file = handle_of<OpenFile>(info->fh).shared_from_this();
  FuseCore::of(raw).post(raw, [file = std::move(file), offset, whence](
                                  FuseCore&, const KernelRequestPointer& request) {
    const off_t found = ::lseek(file->source, offset, whence);
    if (found < 0) {
      request->error(errno);
    } else {
      request->offset(found);
    }
  });
}

}  // namespace

void add_read_operations(fuse_lowlevel_ops& table) {
  table.read = read;
  table.lseek = lseek;
}

}  // namespace ncfs

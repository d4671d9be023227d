// Which bytes of one version of a file can be read from its cache file, as readers see it.
//
// This is the hot path: any thread may call plan_read() at any time; it takes no lock and costs a
// few nanoseconds. The control thread alone changes a Residency.
//
// Invariant: a set block bit means that a cache_write of the whole block has completed on
// `cache_file`. publish() stores the bit with release order; plan_read() loads it with acquire
// order, so a reader that sees the bit also sees the bytes.
//
// Lifetime: shared_ptr. The engine keeps `cache_file` open while any handle is open on the
// version, so whoever holds an open handle may read the descriptor without further care.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

#include "io/io.h"
#include "io/types.h"

namespace ncfs {

class Residency {
 public:
  Residency(FileHandle cache_file, std::uint64_t size_bytes, std::uint64_t block_size_bytes)
      : cache_file_(cache_file),
        size_bytes_(size_bytes),
        block_size_bytes_(block_size_bytes),
        block_count_((size_bytes + block_size_bytes - 1) / block_size_bytes),
        words_(std::make_unique<std::atomic<std::uint64_t>[]>((block_count_ + 63) / 64)),
        unread_(std::make_unique<std::atomic<std::uint64_t>[]>((block_count_ + 63) / 64)) {}

  [[nodiscard]] FileHandle cache_file() const { return cache_file_; }
  [[nodiscard]] std::uint64_t size_bytes() const { return size_bytes_; }
  [[nodiscard]] std::uint64_t block_size_bytes() const { return block_size_bytes_; }
  [[nodiscard]] std::uint64_t block_count() const { return block_count_; }

  // The last block is as long as what is left of the file.
  [[nodiscard]] ByteRange block_range(std::uint64_t block) const {
    const std::uint64_t offset = block * block_size_bytes_;
    return {offset, std::min(block_size_bytes_, size_bytes_ - offset)};
  }

  [[nodiscard]] bool is_resident(std::uint64_t block) const {
    return (words_[block / 64].load(std::memory_order_acquire) >> (block % 64) & 1) != 0;
  }

  // Control thread only. Partner of the acquire load in is_resident().
  void publish(std::uint64_t block) {
    words_[block / 64].fetch_or(std::uint64_t{1} << (block % 64), std::memory_order_release);
  }

  // Control thread only. Later plans go to the source; reads already planned stay good, as the
  // bytes under them are not overwritten.
  void revoke() {
    for (std::uint64_t word = 0; word < (block_count_ + 63) / 64; ++word) {
      words_[word].store(0, std::memory_order_release);
    }
  }

  // Blocks that were fetched ahead and that nobody has read from the cache file yet. Control thread
  // only; before publish().
  void mark_unread(std::uint64_t block) {
    unread_[block / 64].fetch_or(std::uint64_t{1} << (block % 64), std::memory_order_relaxed);
  }
  [[nodiscard]] bool is_unread(std::uint64_t block) const {
    return (unread_[block / 64].load(std::memory_order_relaxed) >> (block % 64) & 1) != 0;
  }
  // Somebody reads it. Writes only the first time, so readers do not take the line from each other.
  void take_unread(std::uint64_t block) const {
    if (!is_unread(block)) return;
    unread_[block / 64].fetch_and(~(std::uint64_t{1} << (block % 64)), std::memory_order_relaxed);
  }

 private:
  const FileHandle cache_file_;
  const std::uint64_t size_bytes_;
  const std::uint64_t block_size_bytes_;
  const std::uint64_t block_count_;
  const std::unique_ptr<std::atomic<std::uint64_t>[]> words_;
  const std::unique_ptr<std::atomic<std::uint64_t>[]> unread_;
};

// The longest prefix of a range that has one fate.
struct ReadPlan {
  bool resident = false;  // read [range.offset, range.end()) from cache_file(), else ask the engine
  ByteRange range;        // empty only when the asked range is empty or past the end of the file
};

// Any thread. A resident prefix may span blocks; a missing one ends at its block, which is the
// unit in which the engine is asked for missing bytes.
[[nodiscard]] inline ReadPlan plan_read(const Residency& residency, ByteRange range) {
  if (range.offset >= residency.size_bytes()) return {};
  const std::uint64_t end = std::min(range.end(), residency.size_bytes());
  std::uint64_t block = range.offset / residency.block_size_bytes();
  const bool resident = residency.is_resident(block);
  if (resident) residency.take_unread(block);
  std::uint64_t plan_end = residency.block_range(block).end();
  while (resident && plan_end < end && residency.is_resident(block + 1)) {
    plan_end = residency.block_range(++block).end();
    residency.take_unread(block);
  }
  return {resident, {range.offset, std::min(plan_end, end) - range.offset}};
}

}  // namespace ncfs

#include "sim/knobs.h"

#include <algorithm>
#include <array>

namespace ncfs {
namespace {

// Saved plans name knobs by number, and some by a larger number below kKnobChecksum.
constexpr std::uint64_t kKnobCount = 18;

template <typename Value, std::size_t Count>
Value pick(const std::array<Value, Count>& choices, std::uint64_t value) {
  return choices[value % Count];
}

}  // namespace

Knobs::Knobs() {
  engine.cache_size_bytes = 256 * kKiB;
  engine.block_size_bytes = 4 * kKiB;
  engine.copies_max = 2;
  engine.copy_depth = 2;
  engine.source_reads_max = 8;
  engine.source_reads_reserved = 2;
  engine.cache_writes_max = 4;
  engine.buffers = 16;
  engine.buffers_reserved = 4;
  engine.copy_piece_bytes = 64 * kKiB;  // more than is ever in flight
  engine.readahead_bytes = 8 * kKiB;
  engine.readahead_max_bytes = 32 * kKiB;
  engine.checkpoint_bytes = 8 * kKiB;
  engine.retry_max = 8 * kSecond;
  engine.source_deadline = 30 * kSecond;
  engine.checksum = Checksum::off;
  engine.scrub_interval = 0;
  engine.min_free_percent = 0;
}

std::uint64_t Knobs::cache_size(std::uint64_t value) {
  return pick(std::array<std::uint64_t, 5>{256 * kKiB, 64 * kKiB, 40 * kKiB, 100 * kKiB, 8 * kKiB},
              value);
}

void Knobs::set(std::uint64_t which, std::uint64_t value) {
  if (which == kKnobChecksum) {
    engine.checksum = pick(std::array{Checksum::off, Checksum::copy, Checksum::read}, value);
    return;
  }
  if (which == kKnobScrub) {
    // At the lower rate most passes wait for a tick in their midst.
    engine.scrub_interval = pick(std::array<Nanos, 3>{0, 20 * kSecond, 100 * kSecond}, value);
    engine.scrub_bytes_per_second = pick(std::array<std::uint64_t, 3>{0, kGiB, 4 * kKiB}, value);
    return;
  }
  if (which == kKnobMinFree) {
    engine.min_free_percent = pick(std::array<std::uint32_t, 3>{0, 25, 40}, value);
    return;
  }
  if (which == kKnobTtl) {
    engine.cache_ttl = pick(std::array<Nanos, 3>{0, 5 * kSecond, 100 * kSecond}, value);
    return;
  }
  if (which == kKnobPrefetch) {
    engine.prefetch = pick(std::array{Prefetch::smart, Prefetch::off, Prefetch::sequential}, value);
    return;
  }
  if (which == kKnobRules) {
    // Of the files of the world, file1 is small and file4 large.
    engine.cache_on = pick(std::array{CacheOn::open, CacheOn::read, CacheOn::second_open}, value);
    engine.max_file_size_bytes = value % 6 >= 3 ? 9 * kKiB : 0;
    engine.paths = {};
    if (value % 4 == 1) engine.paths.exclude = {*PathGlob::parse("file[02]")};
    if (value % 4 == 2) engine.paths.include = {*PathGlob::parse("*[0-2]")};
    return;
  }
  if (which == kKnobCopyRate) {
    engine.copy_bytes_per_second = pick(std::array<std::uint64_t, 3>{0, 8 * kKiB, kMiB}, value);
    return;
  }
  if (which == kKnobCopyPiece) {
    engine.copy_piece_bytes = pick(std::array<std::uint64_t, 3>{64 * kKiB, kKiB, 4 * kKiB}, value);
    return;
  }
  switch (which % kKnobCount) {
    case 0:
      engine.block_size_bytes =
          pick(std::array<std::uint64_t, 3>{4 * kKiB, 8 * kKiB, 16 * kKiB}, value);
      return;
    case 1:
      engine.cache_size_bytes = cache_size(value);
      return;
    case 2:
      engine.copies_max = pick(std::array<std::uint32_t, 3>{2, 1, 4}, value);
      return;
    case 3:
      engine.copy_depth = pick(std::array<std::uint32_t, 3>{2, 1, 4}, value);
      return;
    case 4:
      engine.buffers = pick(std::array<std::uint32_t, 3>{16, 4, 8}, value);
      engine.buffers_reserved = engine.buffers / 4;
      return;
    case 5:
      engine.source_reads_max = pick(std::array<std::uint32_t, 3>{8, 2, 4}, value);
      engine.source_reads_reserved = std::max(engine.source_reads_max / 4, 1U);
      return;
    case 6:
      engine.cache_writes_max = pick(std::array<std::uint32_t, 2>{4, 1}, value);
      return;
    case 7:
      engine.readahead_bytes = pick(std::array<std::uint64_t, 3>{8 * kKiB, 0, 32 * kKiB}, value);
      return;
    case 8:
      engine.checkpoint_bytes = pick(std::array<std::uint64_t, 3>{8 * kKiB, 1, kGiB}, value);
      return;
    case 9:
      engine.checkpoint_interval = pick(std::array<Nanos, 2>{5 * kSecond, kMillisecond}, value);
      return;
    case 10:
      engine.min_file_size_bytes = pick(std::array<std::uint64_t, 2>{1, 5000}, value);
      return;
    case 11:
      // The coarsest tick that the racy window is made for.
      nfs.tick_ns = pick(
          std::array<std::int64_t, 3>{1, static_cast<std::int64_t>(2 * kSecond), 4'000'000}, value);
      return;
    case 12:
      nfs.lead_ns =
          pick(std::array<std::int64_t, 2>{0, static_cast<std::int64_t>(3 * kSecond)}, value);
      return;
    case 13:
      disk.are_directories_ordered = value % 2 == 1;
      return;
    case 14:
      mailbox_max = pick(std::array<std::size_t, 3>{0, 1, 4}, value);
      return;
    case 15:
      disk.can_keep_suffix = value % 3 >= 1;
      disk.has_tiny_sectors = value % 3 == 2;
      return;
    case 16:
      // As little of everything as an engine runs with.
      if (value % 2 == 0) return;
      engine.buffers = engine.source_reads_max = 2;
      engine.buffers_reserved = engine.source_reads_reserved = 1;
      engine.copies_max = engine.copy_depth = engine.cache_writes_max = 1;
      return;
    default:
      engine.eviction = pick(
          std::array<Eviction, 4>{Eviction::lru, Eviction::lfu, Eviction::arc, Eviction::s3fifo},
          value);
      return;
  }
}

}  // namespace ncfs

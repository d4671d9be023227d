// What the engine is told at start. Every number is a limit or a policy; the defaults are those of
// the product. Options given by the user are parsed in fuse_adapter/mount_options.h.
#pragma once

#include <cstdint>
#include <string_view>

#include "engine/path_rules.h"
#include "io/types.h"

namespace ncfs {

// Who makes room when the cache is full: see engine/eviction.h.
enum class Eviction : std::uint8_t { lru, lfu, arc, s3fifo };
[[nodiscard]] std::string_view to_string(Eviction eviction);

// What is done about a cache disk that does not return what was written to it.
enum class Checksum : std::uint8_t {
  off,   // nothing
  copy,  // blocks get checksums when they are copied, which verification compares with
  read,  // and every block is compared before it is served
};

// What is fetched before anybody asks for it.
enum class Prefetch : std::uint8_t {
  off,         // nothing: readers get exactly their bytes, unless the cache wants the block as well
  sequential,  // ahead of streams (engine/streams.h)
  smart,       // and of strides (engine/strides.h) and tensors (engine/tensors.h)
};

// What it takes for a file to be copied, unless it is warmed, pinned, or its copy has begun before.
enum class CacheOn : std::uint8_t {
  open,
  read,         // the first read that the engine is asked for
  second_open,  // since the start, whether the first has ended or not
};

struct Config {
  // Hard limit of everything the cache keeps on disk: data, sidecars, reservations.
  std::uint64_t cache_size_bytes = 0;
  // Unit of residency, of whole-block fetches and of the buffers. A multiple of 4 KiB.
  std::uint64_t block_size_bytes = kMiB;
  // Files smaller than this are read through and never cached.
  std::uint64_t min_file_size_bytes = 1;
  // So are larger ones, unless this is 0, and those whose paths the rules do not admit. What is
  // complete in the cache is used all the same.
  std::uint64_t max_file_size_bytes = 0;
  PathRules paths;
  CacheOn cache_on = CacheOn::open;
  [[nodiscard]] bool is_too_small(std::uint64_t size_bytes) const {
    return size_bytes == 0 || size_bytes < min_file_size_bytes;
  }
  [[nodiscard]] bool is_above_max(std::uint64_t size_bytes) const {
    return max_file_size_bytes > 0 && size_bytes > max_file_size_bytes;
  }
  Eviction eviction = Eviction::lru;
  // Share of the cache's file system, in percent, that the cache leaves free whatever its limit
  // says: nothing new is stored below it, and eviction makes room when others fill the disk. 0: the
  // file system is not asked. 1 is where cachefilesd(8) stops by default, too.
  std::uint32_t min_free_percent = 1;
  // An object that was not opened, warmed or held open for so long is removed; 0 is never.
  Nanos cache_ttl = 0;

  // Files being filled by the background copier at a time, and blocks in flight for each.
  std::uint32_t copies_max = 4;
  std::uint32_t copy_depth = 4;
  // Ceiling of what all copies together read from the source, see TokenBucket; 0: none.
  std::uint64_t copy_bytes_per_second = 0;
  // Least that a copy asks for at a time beside readers of the same device (engine/yield.h); at
  // least 1. Smaller pieces cost more than they spare: on a line of 1 GiB/s this takes 60 us, as
  // long as a request costs all the same.
  std::uint64_t copy_piece_bytes = 16 * kKiB;
  // Reads in flight at a time of one of the source's file systems; all of them together may have
  // nearly twice as many. Background work (copy, prefetch) leaves
  // `source_reads_reserved` of them to readers, so that a reader never queues behind a copy.
  std::uint32_t source_reads_max = 16;
  std::uint32_t source_reads_reserved = 4;
  // Writes of the cache in flight at a time: as many as reads, so that readers do not crowd them
  // out where source and cache share a device.
  std::uint32_t cache_writes_max = 16;
  // Block-sized buffers, and how many of them only a reader may take. What a reader fetched waits
  // in them for the cache disk; when they are full it is dropped and the copier fetches it again.
  // 256 MiB carry the fastest readers past the stalls of a disk (64 made them fetch up to 1.6 times
  // the file).
  std::uint32_t buffers = 256;
  std::uint32_t buffers_reserved = 64;
  // Bytes fetched ahead of a sequential reader, and up to how many if it has to wait for them all
  // the same (engine/streams.h): 16 MiB keep a link of 1 GiB/s busy that answers after 15 ms.
  std::uint64_t readahead_bytes = 4 * kMiB;
  std::uint64_t readahead_max_bytes = 16 * kMiB;
  Prefetch prefetch = Prefetch::smart;

  // A crash costs at most this many bytes of a copy and the writes in flight, or what was copied in
  // this time. At half of them a checkpoint begins; at all of them writes wait for it.
  std::uint64_t checkpoint_bytes = 256 * kMiB;
  Nanos checkpoint_interval = 5 * kSecond;

  // A file whose timestamps are younger than this at the first look may change again without its
  // timestamps changing (servers with a one-second tick exist; two seconds cover the tick and its
  // rounding). Nothing read from it before the window has passed is kept.
  Nanos racy_window = 2 * kSecond;

  // A failing copy is tried again after retry_min, then twice as long, up to retry_max.
  Nanos retry_min = 1 * kSecond;
  Nanos retry_max = 300 * kSecond;

  // Deadlines given to requests. Thirty seconds are more than a server that works needs for a
  // block, however busy it is, and as long as people wait. The cache disk is local: a request that
  // takes longer than ten seconds is a broken disk.
  Nanos source_deadline = 30 * kSecond;
  Nanos cache_deadline = 10 * kSecond;
  // How long an open waits for the cache (recovery of a directory, opening the cache file)
  // before the handle is given the source alone.
  Nanos open_patience = 1 * kSecond;

  Checksum checksum = Checksum::copy;
  // Time between two verifications of a complete object; 0: none. A week is time enough to read a
  // full cache of 4 TiB at the rate below nine times over, and short against the life of a disk.
  Nanos scrub_interval = 7 * 24 * 3600 * kSecond;
  // Bytes that the scrub reads in a second: a few percent of what an NVMe disk gives, a third of
  // what a hard disk does.
  std::uint64_t scrub_bytes_per_second = 64 * kMiB;

  // A random 64-bit number, drawn for every run over one cache directory: the serials in the names
  // of this run's objects count up from it, and a serial must never be used twice.
  std::uint64_t run_id = 1;
};

}  // namespace ncfs

// What the FUSE side counts. Written by many threads, read by the control server; every counter
// stands alone, so relaxed order is enough.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "io/types.h"

namespace ncfs {

class Counter {
 public:
  void add(std::uint64_t amount = 1) { value_.fetch_add(amount, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// How long things took. A snapshot may miss what is counted at that moment.
class Histogram {
 public:
  // From a read in memory to a copy of terabytes, about three times longer each.
  static constexpr std::array<Nanos, 18> kBounds = {
      10'000,       30'000,       100'000,       300'000,       1'000'000,      3'000'000,
      10'000'000,   30'000'000,   100'000'000,   300'000'000,   kSecond,        3 * kSecond,
      10 * kSecond, 30 * kSecond, 100 * kSecond, 300 * kSecond, 1000 * kSecond, 3000 * kSecond};

  void add(Nanos duration) {
    const auto place = std::ranges::lower_bound(kBounds, duration);
    counts_[static_cast<std::size_t>(place - kBounds.begin())].add();
    sum_.add(duration);
  }
  // Of durations above the bound before and up to bound `index`; the last has no bound.
  [[nodiscard]] std::uint64_t count(std::size_t index) const { return counts_[index].value(); }
  [[nodiscard]] Nanos sum() const { return sum_.value(); }

 private:
  std::array<Counter, kBounds.size() + 1> counts_;
  Counter sum_;
};

struct AdapterStats {
  Counter opens;       // of regular files, answered well
  Counter opens_hit;   // of these: the whole file was in the cache
  Counter opens_miss;  // of these: some of it was not
  Counter opens_for_writing;
  Counter opens_passthrough;  // of the hits: handed to the kernel
  Counter opens_from_source;  // of the misses: handed to the kernel, which reads the source itself
  Counter passthrough_bytes;  // sizes of the files handed to the kernel, once for every open
  Counter reads;              // read requests that reached the daemon
  Counter cache_bytes;        // answered by the daemon from the cache
  Counter source_bytes;   // answered by the daemon from the source or from what was just fetched
  Counter writes;         // write requests that reached the daemon
  Counter written_bytes;  // written to the source by the daemon
  Counter stale_answers;  // opens answered with ESTALE so that the kernel looks up again
  Counter passthrough_refused;  // files the kernel would not pass through
  Counter cache_faults;     // reads of a cache file that failed and were answered from the source
  Counter mirror_failures;  // cache files that do not follow changes of the source by this mount
  Counter retries;          // questions asked of the source again after an error that may pass
  Counter timeouts;         // requests answered with ETIMEDOUT
  Counter rejected;         // requests: too many were waiting (ENOMEM) or open (ENFILE)
  Counter errors;           // reads and opens of regular files answered with another error
  // From the request of the kernel to its answer, if it was a good one. A read is of the source if
  // any of its bytes are.
  Histogram open_hit_time;
  Histogram open_miss_time;
  Histogram read_cache_time;
  Histogram read_source_time;
  Counter listings_read;  // directories read from the source, and not listed from memory
  // Looks at the source: opens, stats, listings, targets of links. A network file system may have
  // to ask its server for each.
  Counter source_looks;
};

}  // namespace ncfs

// What the FUSE side counts. Written by many threads, read by the control server; every counter
// stands alone, so relaxed order is enough.
#pragma once

#include <atomic>
#include <cstdint>

namespace ncfs {

class Counter {
 public:
  void add(std::uint64_t amount = 1) { value_.fetch_add(amount, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

struct AdapterStats {
  Counter opens;              // of regular files, answered well
  Counter opens_hit;          // of these: the whole file was in the cache
  Counter opens_miss;         // of these: some of it was not
  Counter opens_passthrough;  // of the hits: handed to the kernel
  Counter opens_from_source;  // of the misses: handed to the kernel, which reads the source itself
  Counter passthrough_bytes;  // sizes of the files handed to the kernel, once for every open
  Counter reads;              // read requests that reached the daemon
  Counter cache_bytes;        // answered by the daemon from the cache
  Counter source_bytes;   // answered by the daemon from the source or from what was just fetched
  Counter stale_answers;  // opens answered with ESTALE so that the kernel looks up again
  Counter passthrough_refused;  // files the kernel would not pass through
  Counter cache_faults;   // reads of a cache file that failed and were answered from the source
  Counter timeouts;       // requests answered with ETIMEDOUT
  Counter rejected;       // requests answered with ENOMEM as too many were waiting
  Counter listings_read;  // directories read from the source, and not listed from memory
  Counter errors;         // reads and opens of regular files answered with another error
};

}  // namespace ncfs

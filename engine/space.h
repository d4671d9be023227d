// The books of the cache's disk space.
//
// Invariant (Space): used + reserved <= limit at every instant, except that a lowered limit or
// recovery may find more than it allows; then nothing can be reserved until eviction has caught up.
// An object is charged its largest possible size before its first byte is written, and is charged
// until its names are gone and its last descriptor is closed.
#pragma once

#include <cstdint>

#include "io/assert.h"

namespace ncfs {

class SpaceLedger {
 public:
  explicit SpaceLedger(std::uint64_t limit_bytes) : limit_(limit_bytes) {}

  void set_limit(std::uint64_t limit_bytes) { limit_ = limit_bytes; }
  [[nodiscard]] std::uint64_t limit() const { return limit_; }
  [[nodiscard]] std::uint64_t used() const { return used_; }
  [[nodiscard]] std::uint64_t reserved() const { return reserved_; }
  [[nodiscard]] std::uint64_t free() const {
    return used_ + reserved_ < limit_ ? limit_ - used_ - reserved_ : 0;
  }

  void reserve(std::uint64_t bytes) {
    NCFS_ASSERT(bytes <= free() && "S4 Space");
    reserved_ += bytes;
  }
  // What was promised is now a complete object.
  void commit(std::uint64_t bytes) {
    NCFS_ASSERT(bytes <= reserved_);
    reserved_ -= bytes;
    used_ += bytes;
  }
  void release_reserved(std::uint64_t bytes) {
    NCFS_ASSERT(bytes <= reserved_);
    reserved_ -= bytes;
  }
  void release_used(std::uint64_t bytes) {
    NCFS_ASSERT(bytes <= used_);
    used_ -= bytes;
  }
  // Recovery only: what is on the disk is on the disk, whatever the limit says.
  void found_reserved(std::uint64_t bytes) { reserved_ += bytes; }
  void found_used(std::uint64_t bytes) { used_ += bytes; }

 private:
  std::uint64_t limit_;
  std::uint64_t used_ = 0;
  std::uint64_t reserved_ = 0;
};

}  // namespace ncfs

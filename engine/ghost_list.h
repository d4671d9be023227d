// Keys of objects that were evicted lately, oldest first: what ARC and S3-FIFO remember of what is
// no longer there.
//
// A key is a digest, so two objects may share one (with 2^17 ghosts a lookup meets a stranger's in
// one of 2^47 cases). It costs one object a better or worse place in the order, nothing else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "io/assert.h"

namespace ncfs {

// Digest of a file id and a version: see eviction_key().
enum class EvictionKey : std::uint64_t {};

class GhostList {
 public:
  struct Ghost {
    std::uint64_t order = 0;
    std::uint64_t charge_bytes = 0;
    bool was_requested = false;  // since it was evicted; for the owner's use
  };

  [[nodiscard]] std::uint64_t total_bytes() const { return total_bytes_; }
  [[nodiscard]] std::size_t size() const { return ghosts_.size(); }
  [[nodiscard]] bool empty() const { return ghosts_.empty(); }
  [[nodiscard]] bool contains(EvictionKey key) const { return ghosts_.contains(key); }
  // Null if there is none.
  [[nodiscard]] Ghost* find(EvictionKey key) {
    const auto entry = ghosts_.find(key);
    return entry == ghosts_.end() ? nullptr : &entry->second;
  }

  void push(EvictionKey key, std::uint64_t charge_bytes) {
    erase(key);
    ghosts_[key] = {next_, charge_bytes};
    order_[next_++] = key;
    total_bytes_ += charge_bytes;
  }

  // False if there was none.
  bool erase(EvictionKey key) {
    const auto entry = ghosts_.find(key);
    if (entry == ghosts_.end()) return false;
    total_bytes_ -= entry->second.charge_bytes;
    order_.erase(entry->second.order);
    ghosts_.erase(entry);
    return true;
  }

  void drop_oldest() {
    NCFS_ASSERT(!empty());
    erase(order_.begin()->second);
  }

 private:
  std::uint64_t next_ = 0;
  std::uint64_t total_bytes_ = 0;
  std::map<EvictionKey, Ghost> ghosts_;
  std::map<std::uint64_t, EvictionKey> order_;
};

}  // namespace ncfs

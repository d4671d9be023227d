// Least recently used order over the objects that may be evicted: complete or abandoned, with no
// handle open, no copy running and no request in flight. An object in use is not in the order at
// all and enters it as the most recent one when it comes to rest.
#pragma once

#include <cstdint>
#include <map>

#include "engine/object.h"
#include "engine/planted.h"
#include "io/assert.h"

namespace ncfs {

class EvictionOrder {
 public:
  [[nodiscard]] bool contains(ObjectId object) const { return entries_.contains(object); }
  [[nodiscard]] bool empty() const { return order_.empty(); }
  [[nodiscard]] std::uint64_t total_bytes() const { return total_bytes_; }
  [[nodiscard]] std::size_t size() const { return order_.size(); }
  [[nodiscard]] ObjectId oldest() const {
    return NCFS_PLANT(newest_evicted) ? order_.rbegin()->second : order_.begin()->second;
  }

  void insert(ObjectId object, std::uint64_t charge_bytes) {
    NCFS_ASSERT(!contains(object));
    entries_[object] = {next_, charge_bytes};
    order_[next_++] = object;
    total_bytes_ += charge_bytes;
  }

  void remove(ObjectId object) {
    const auto entry = entries_.find(object);
    NCFS_ASSERT(entry != entries_.end());
    order_.erase(entry->second.position);
    total_bytes_ -= entry->second.charge_bytes;
    entries_.erase(entry);
  }

 private:
  struct Entry {
    std::uint64_t position = 0;
    std::uint64_t charge_bytes = 0;
  };
  std::uint64_t next_ = 0;
  std::uint64_t total_bytes_ = 0;
  std::map<std::uint64_t, ObjectId> order_;
  std::map<ObjectId, Entry> entries_;
};

}  // namespace ncfs

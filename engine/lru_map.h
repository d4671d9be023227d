// A map of bounded bytes that forgets what was used least recently.
//
// Every entry is charged what its owner says it occupies. Iteration is by recency, so that nothing
// depends on addresses or hashes. Pointers to values stay good until their entry is erased.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <utility>

#include "io/assert.h"

namespace ncfs {

template <typename Key, typename Value>
class LruMap {
 public:
  // What the map itself needs for an entry beside the key's and the value's own size: a node of the
  // tree, one of the list, and malloc's share of both.
  static constexpr std::uint64_t kOverheadBytes = 112;

  explicit LruMap(std::uint64_t bytes_max) : bytes_max_(bytes_max) {}
  LruMap(const LruMap&) = delete;
  LruMap& operator=(const LruMap&) = delete;

  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
  [[nodiscard]] std::uint64_t bytes_max() const { return bytes_max_; }
  [[nodiscard]] std::size_t size() const { return entries_.size(); }

  // Null if there is none. `find` counts as a use; Asked may be anything that compares with Key.
  template <typename Asked>
  [[nodiscard]] Value* find(const Asked& asked) {
    const auto found = entries_.find(asked);
    if (found == entries_.end()) return nullptr;
    recency_.splice(recency_.begin(), recency_, found->second.place);
    return &found->second.value;
  }

  // The entry's value, made if there is none. `charge_bytes` is what key and value occupy.
  Value& put(const Key& key, std::uint64_t charge_bytes) {
    const auto [entry, is_new] = entries_.try_emplace(key);
    Node& node = entry->second;
    if (is_new) {
      node.place = recency_.insert(recency_.begin(), &entry->first);
    } else {
      recency_.splice(recency_.begin(), recency_, node.place);
    }
    bytes_ -= node.charge_bytes;
    node.charge_bytes = charge_bytes + kOverheadBytes;
    bytes_ += node.charge_bytes;
    return node.value;
  }

  // False if there was none.
  template <typename Asked>
  bool erase(const Asked& asked) {
    const auto found = entries_.find(asked);
    if (found == entries_.end()) return false;
    bytes_ -= found->second.charge_bytes;
    recency_.erase(found->second.place);
    entries_.erase(found);
    return true;
  }

  void clear() {
    entries_.clear();
    recency_.clear();
    bytes_ = 0;
  }

  // Erases the least recent entries until the rest fits. `about_to_go(key, value)` is called for
  // each and must not touch this map. Returns how many went.
  template <typename AboutToGo>
  std::uint64_t trim(AboutToGo about_to_go) {
    std::uint64_t gone = 0;
    while (bytes_ > bytes_max_) {
      const auto last = entries_.find(*recency_.back());
      about_to_go(last->first, last->second.value);
      bytes_ -= last->second.charge_bytes;
      recency_.pop_back();
      entries_.erase(last);
      ++gone;
    }
    return gone;
  }

  // `use(key, value, charge without overhead)`, the most recent first.
  template <typename Use>
  void for_each(Use use) const {
    for (const Key* key : recency_) {
      const Node& node = entries_.find(*key)->second;
      use(*key, node.value, node.charge_bytes - kOverheadBytes);
    }
  }

  void check_invariants() const {
    NCFS_ASSERT(entries_.size() == recency_.size());
    std::uint64_t sum = 0;
    for_each([&sum](const Key&, const Value&, std::uint64_t charge_bytes) {
      sum += charge_bytes + kOverheadBytes;
    });
    NCFS_ASSERT(bytes_ == sum);
    NCFS_ASSERT(bytes_ <= bytes_max_);
  }

 private:
  struct Node {
    Value value;
    std::uint64_t charge_bytes = 0;
    typename std::list<const Key*>::iterator place;
  };
  const std::uint64_t bytes_max_;
  std::uint64_t bytes_ = 0;
  std::map<Key, Node, std::less<>> entries_;
  std::list<const Key*> recency_;  // the most recent first
};

}  // namespace ncfs

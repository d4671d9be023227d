// Which object makes room: an order over everything that takes space in the cache.
//
// Every object on the disk is known here from the moment its space is reserved until it is chosen
// as a victim or removed for another reason. An access is an open or a warm-up. Objects in use take
// part (their accesses count, their bytes weigh) and keep their place, but are passed over when a
// victim is chosen.
//
//   lru     least recently used. An object is used until it comes to rest: its place is the time of
//           its last close.
//   lfu     least frequently used with dynamic aging, LFU-DA: Arlitt, Cherkasova, Dilley,
//           Friedrich, Jin, "Evaluating Content Management Techniques for Web Proxy Caches",
//           ACM SIGMETRICS PER 27(4), 2000. The priority is the number of accesses plus the
//           priority of the last victim, so that what was popular once grows old; among equals the
//           least recent access goes first.
//   arc     Megiddo, Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST 2003.
//   s3fifo  Yang, Zhang, Qiu, Yue, Vinayak, "FIFO Queues are All You Need for Cache Eviction",
//           SOSP 2023.
//
// The papers count pages; here every page of theirs is a byte of charge. With objects of one size
// all decisions are those of the papers. In detail:
//   arc     |T1|, |T2|, |B1|, |B2|, p and c are bytes. A hit in B1 moves p by max(1, |B2| / |B1|)
//           times the size of the object, as if each of its pages had been hit; B2 likewise.
//   s3fifo  the small queue's tenth, the main queue and the ghosts (nine tenths of the cache) are
//           bytes. The counter counts accesses of the object.
// Both evict one victim at a time, as many as the bytes asked for need, and nothing when removals
// for other reasons made the room.
//
// Ghosts are keyed by file and version: a hit in a ghost list says "a larger queue would have had
// it", which is not true of other content under the same name. Bounds: ARC keeps
// |T1| + |B1| <= c and |T1| + |T2| + |B1| + |B2| <= 2c as the paper does, S3-FIFO nine tenths of c;
// and both at most kGhostsMax entries, of about 150 bytes each.
//
// What a restart finds counts as accessed once, oldest first; s3fifo puts it into the main queue,
// as what survived until then is no newcomer. Counters, p and ghosts begin anew.
//
// Pure: no clock, and what it chooses depends on nothing but the calls made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "engine/config.h"
#include "engine/ghost_list.h"
#include "engine/object.h"

namespace ncfs {

// 20 MiB when full; a history as long as a cache of 131072 files.
inline constexpr std::size_t kGhostsMax = std::size_t{1} << 17;

[[nodiscard]] EvictionKey eviction_key(const FileId& file, const SourceVersion& version);

enum class Arrival : std::uint8_t {
  requested,  // somebody wanted it just now
  recovered,  // found on the disk at start; added oldest first
};

class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  // The object takes space from now on. It is in use until set_evictable().
  void add(ObjectId object, EvictionKey key, std::uint64_t charge_bytes, Arrival arrival);
  // It was opened or is to be warmed, whether it is here or not.
  void access(ObjectId object, EvictionKey key);
  // It is known by another key from now on. Only for objects that are here.
  void set_key(ObjectId object, EvictionKey key) { entry_of(object).key = key; }
  // Whether it is at rest. Only for objects that are here.
  void set_evictable(ObjectId object, bool is_evictable);
  // Takes the next victim out. Some object has to be evictable. `incoming` is the object that room
  // is made for, if there is one.
  [[nodiscard]] ObjectId evict(std::optional<EvictionKey> incoming);
  // The capacity is another from now on. Nobody leaves for it; what is remembered of others shrinks
  // to the new bounds.
  virtual void set_capacity(std::uint64_t) {}
  // Takes an object out for another reason: nothing is remembered of it.
  void remove(ObjectId object);

  [[nodiscard]] bool contains(ObjectId object) const { return entries_.contains(object); }
  [[nodiscard]] bool is_evictable(ObjectId object) const;
  [[nodiscard]] std::size_t size() const { return entries_.size(); }
  [[nodiscard]] std::size_t evictable_count() const;
  [[nodiscard]] std::uint64_t evictable_bytes() const { return evictable_bytes_; }
  [[nodiscard]] std::uint64_t total_bytes() const;
  [[nodiscard]] virtual std::size_t ghost_count() const { return 0; }
  [[nodiscard]] virtual std::uint64_t ghost_bytes() const { return 0; }

  // Aborts if the sums are wrong or a bound is broken. O(objects): for tests.
  void check_invariants() const;

 protected:
  // Lowest first: what a policy ranks by, and then the order of placing.
  using Rank = std::pair<std::uint64_t, std::uint64_t>;

  struct Entry {
    ObjectId object{};
    EvictionKey key{};
    std::uint64_t charge_bytes = 0;
    bool is_evictable = false;
    std::size_t queue = 0;
    Rank rank;
    std::uint64_t frequency = 0;  // meaning and start are the policy's
  };

  // Most policies need one queue, none more than two.
  static constexpr std::size_t kQueueCount = 2;

  // Puts the entry behind all others of the same priority.
  void place(Entry& entry, std::size_t queue, std::uint64_t priority = 0);
  [[nodiscard]] bool has_evictable(std::size_t queue) const;
  // Of those that are evictable; there has to be one.
  [[nodiscard]] Entry& lowest(std::size_t queue);
  // With the objects in use.
  [[nodiscard]] std::uint64_t queue_bytes(std::size_t queue) const { return queues_[queue].bytes; }

 private:
  struct Queue {
    std::uint64_t bytes = 0;
    std::set<std::pair<Rank, ObjectId>> evictable;
  };

  virtual void on_added(Entry& entry, Arrival arrival) = 0;  // has to place it
  virtual void on_hit(Entry&) {}
  virtual void on_miss(EvictionKey) {}
  virtual void on_rest(Entry&) {}
  // Chooses among the evictable; may move entries about.
  virtual Entry& choose(std::optional<EvictionKey> incoming) = 0;
  virtual void on_evicted(const Entry&) {}  // it is in no queue any more
  virtual void check_bounds() const {}

  Entry& entry_of(ObjectId object);

  std::map<ObjectId, Entry> entries_;
  Queue queues_[kQueueCount];
  std::uint64_t next_order_ = 0;
  std::uint64_t evictable_bytes_ = 0;
};

[[nodiscard]] std::unique_ptr<EvictionPolicy> make_eviction_policy(Eviction eviction,
                                                                   std::uint64_t capacity_bytes);

}  // namespace ncfs

#include "engine/eviction.h"

#include <xxhash.h>

#include <algorithm>

#include "engine/planted.h"
#include "io/assert.h"

namespace ncfs {

std::string_view to_string(Eviction eviction) {
  switch (eviction) {
    case Eviction::lru:
      return "lru";
    case Eviction::lfu:
      return "lfu";
    case Eviction::arc:
      return "arc";
    case Eviction::s3fifo:
      return "s3fifo";
  }
  return "unknown";
}

EvictionKey eviction_key(const FileId& file, const SourceVersion& version) {
  static_assert(std::has_unique_object_representations_v<FileId>);
  static_assert(std::has_unique_object_representations_v<SourceVersion>);
  return EvictionKey{
      XXH3_64bits_withSeed(&version, sizeof(version), XXH3_64bits(&file, sizeof(file)))};
}

// --- The books that all policies share ---------------------------------------------------------

void EvictionPolicy::add(ObjectId object, EvictionKey key, std::uint64_t charge_bytes,
                         Arrival arrival) {
  const auto [entry, is_new] = entries_.try_emplace(object);
  NCFS_ASSERT(is_new);
  entry->second.object = object;
  entry->second.key = key;
  entry->second.charge_bytes = charge_bytes;
  queues_[entry->second.queue].bytes += charge_bytes;
  on_added(entry->second, arrival);
}

void EvictionPolicy::access(ObjectId object, EvictionKey key) {
  const auto entry = entries_.find(object);
  if (entry == entries_.end()) return on_miss(key);
  on_hit(entry->second);
}

void EvictionPolicy::set_evictable(ObjectId object, bool is_evictable) {
  Entry& entry = entry_of(object);
  if (entry.is_evictable == is_evictable) return;
  entry.is_evictable = is_evictable;
  auto& evictable = queues_[entry.queue].evictable;
  if (is_evictable) {
    evictable.emplace(entry.rank, object);
    evictable_bytes_ += entry.charge_bytes;
    on_rest(entry);
  } else {
    evictable.erase({entry.rank, object});
    evictable_bytes_ -= entry.charge_bytes;
  }
}

ObjectId EvictionPolicy::evict(std::optional<EvictionKey> incoming) {
  NCFS_ASSERT(evictable_count() > 0);
  const Entry victim = choose(incoming);
  NCFS_ASSERT(victim.is_evictable);
  remove(victim.object);
  on_evicted(victim);
  return victim.object;
}

void EvictionPolicy::remove(ObjectId object) {
  set_evictable(object, false);
  const Entry& entry = entry_of(object);
  queues_[entry.queue].bytes -= entry.charge_bytes;
  entries_.erase(object);
}

bool EvictionPolicy::is_evictable(ObjectId object) const {
  const auto entry = entries_.find(object);
  return entry != entries_.end() && entry->second.is_evictable;
}

std::size_t EvictionPolicy::evictable_count() const {
  std::size_t count = 0;
  for (const Queue& queue : queues_) count += queue.evictable.size();
  return count;
}

std::uint64_t EvictionPolicy::total_bytes() const {
  std::uint64_t bytes = 0;
  for (const Queue& queue : queues_) bytes += queue.bytes;
  return bytes;
}

void EvictionPolicy::check_invariants() const {
  std::uint64_t bytes[kQueueCount] = {};
  std::size_t evictable = 0;
  std::uint64_t evictable_bytes = 0;
  for (const auto& [object, entry] : entries_) {
    NCFS_ASSERT(entry.object == object);
    bytes[entry.queue] += entry.charge_bytes;
    NCFS_ASSERT(queues_[entry.queue].evictable.contains({entry.rank, object}) ==
                entry.is_evictable);
    if (!entry.is_evictable) continue;
    ++evictable;
    evictable_bytes += entry.charge_bytes;
  }
  for (std::size_t queue = 0; queue < kQueueCount; ++queue) {
    NCFS_ASSERT(bytes[queue] == queues_[queue].bytes);
  }
  NCFS_ASSERT(evictable == evictable_count() && evictable_bytes == evictable_bytes_);
  NCFS_ASSERT(ghost_count() <= kGhostsMax);
  check_bounds();
}

void EvictionPolicy::place(Entry& entry, std::size_t queue, std::uint64_t priority) {
  Queue& from = queues_[entry.queue];
  Queue& to = queues_[queue];
  if (entry.is_evictable) from.evictable.erase({entry.rank, entry.object});
  from.bytes -= entry.charge_bytes;
  to.bytes += entry.charge_bytes;
  entry.queue = queue;
  entry.rank = {priority, next_order_++};
  if (entry.is_evictable) to.evictable.emplace(entry.rank, entry.object);
}

bool EvictionPolicy::has_evictable(std::size_t queue) const {
  return !queues_[queue].evictable.empty();
}

EvictionPolicy::Entry& EvictionPolicy::lowest(std::size_t queue) {
  NCFS_ASSERT(has_evictable(queue));
  const auto& evictable = queues_[queue].evictable;
  return entry_of(NCFS_PLANT(newest_evicted) ? evictable.rbegin()->second
                                             : evictable.begin()->second);
}

EvictionPolicy::Entry& EvictionPolicy::entry_of(ObjectId object) {
  const auto entry = entries_.find(object);
  NCFS_ASSERT(entry != entries_.end());
  return entry->second;
}

namespace {

// --- LRU ---------------------------------------------------------------------------------------

class Lru final : public EvictionPolicy {
  void on_added(Entry& entry, Arrival) override { place(entry, 0); }
  void on_rest(Entry& entry) override { place(entry, 0); }
  Entry& choose(std::optional<EvictionKey>) override { return lowest(0); }
};

// --- LFU with dynamic aging --------------------------------------------------------------------

class Lfu final : public EvictionPolicy {
  void on_added(Entry& entry, Arrival) override { on_hit(entry); }
  void on_hit(Entry& entry) override { place(entry, 0, ++entry.frequency + age_); }
  Entry& choose(std::optional<EvictionKey>) override { return lowest(0); }
  void on_evicted(const Entry& victim) override { age_ = victim.rank.first; }

  std::uint64_t age_ = 0;  // L of the paper: the priority of the last victim
};

// --- ARC ---------------------------------------------------------------------------------------

// x * numerator / denominator, rounded down, without overflow of the product; denominator > 0.
std::uint64_t scaled(std::uint64_t x, std::uint64_t numerator, std::uint64_t denominator) {
  __extension__ typedef unsigned __int128 Wide;
  const Wide result = static_cast<Wide>(x) * numerator / denominator;
  return static_cast<std::uint64_t>(std::min<Wide>(result, UINT64_MAX));
}

class Arc final : public EvictionPolicy {
 public:
  explicit Arc(std::uint64_t capacity_bytes) : capacity_(capacity_bytes) {}
  [[nodiscard]] std::size_t ghost_count() const override { return b1_.size() + b2_.size(); }
  [[nodiscard]] std::uint64_t ghost_bytes() const override {
    return b1_.total_bytes() + b2_.total_bytes();
  }
  void set_capacity(std::uint64_t capacity_bytes) override {
    capacity_ = capacity_bytes;
    target_ = std::min(target_, capacity_);
    forget();
  }

 private:
  static constexpr std::size_t kT1 = 0;  // accessed once lately
  static constexpr std::size_t kT2 = 1;  // at least twice

  // Cases II and III begin with the request; the object leaves its ghost list when its space is
  // reserved, which may be later. Until then it adapts p once.
  void on_miss(EvictionKey key) override {
    if (GhostList::Ghost* ghost = b1_.find(key); ghost != nullptr && !ghost->was_requested) {
      ghost->was_requested = true;
      const std::uint64_t step = std::max(
          ghost->charge_bytes, scaled(ghost->charge_bytes, b2_.total_bytes(), b1_.total_bytes()));
      target_ = step < capacity_ - target_ ? target_ + step : capacity_;
    } else if (ghost = b2_.find(key); ghost != nullptr && !ghost->was_requested) {
      ghost->was_requested = true;
      const std::uint64_t step = std::max(
          ghost->charge_bytes, scaled(ghost->charge_bytes, b1_.total_bytes(), b2_.total_bytes()));
      target_ -= std::min(step, target_);
    }
  }

  void on_added(Entry& entry, Arrival) override {
    const bool was_in_b1 = b1_.erase(entry.key);
    const bool was_in_b2 = b2_.erase(entry.key);
    place(entry, was_in_b1 || was_in_b2 ? kT2 : kT1);
    forget();
  }

  void on_hit(Entry& entry) override { place(entry, kT2); }  // case I

  // REPLACE.
  Entry& choose(std::optional<EvictionKey> incoming) override {
    const std::uint64_t t1 = queue_bytes(kT1);
    const bool is_in_b2 = incoming && b2_.contains(*incoming);
    const bool prefers_t1 = t1 > 0 && (t1 > target_ || (is_in_b2 && t1 == target_));
    const std::size_t preferred = prefers_t1 ? kT1 : kT2;
    return lowest(has_evictable(preferred) ? preferred : kT1 + kT2 - preferred);
  }

  void on_evicted(const Entry& victim) override {
    (victim.queue == kT1 ? b1_ : b2_).push(victim.key, victim.charge_bytes);
    forget();
    if (ghost_count() > kGhostsMax) (b1_.size() > b2_.size() ? b1_ : b2_).drop_oldest();
  }

  // Case IV: the directory holds c in L1 and 2c in all.
  void forget() {
    while (!b1_.empty() && queue_bytes(kT1) + b1_.total_bytes() > capacity_) b1_.drop_oldest();
    while (!b2_.empty() && total_bytes() + ghost_bytes() > 2 * capacity_) b2_.drop_oldest();
  }

  void check_bounds() const override {
    NCFS_ASSERT(target_ <= capacity_);
    NCFS_ASSERT(b1_.empty() || queue_bytes(kT1) + b1_.total_bytes() <= capacity_);
    NCFS_ASSERT(b2_.empty() || total_bytes() + ghost_bytes() <= 2 * capacity_);
  }

  std::uint64_t capacity_;    // c of the paper
  std::uint64_t target_ = 0;  // p: how much of c belongs to T1
  GhostList b1_;              // evicted from T1
  GhostList b2_;              // evicted from T2
};

// --- S3-FIFO -----------------------------------------------------------------------------------

class S3Fifo final : public EvictionPolicy {
 public:
  explicit S3Fifo(std::uint64_t capacity_bytes) : capacity_(capacity_bytes) {}
  [[nodiscard]] std::size_t ghost_count() const override { return ghosts_.size(); }
  [[nodiscard]] std::uint64_t ghost_bytes() const override { return ghosts_.total_bytes(); }
  void set_capacity(std::uint64_t capacity_bytes) override {
    capacity_ = capacity_bytes;
    forget();
  }

 private:
  static constexpr std::size_t kSmall = 0;
  static constexpr std::size_t kMain = 1;
  static constexpr std::uint64_t kFrequencyMax = 3;  // two bits

  void on_added(Entry& entry, Arrival arrival) override {
    const bool was_ghost = ghosts_.erase(entry.key);
    place(entry, was_ghost || arrival == Arrival::recovered ? kMain : kSmall);
  }

  void on_hit(Entry& entry) override {
    entry.frequency = std::min(entry.frequency + 1, kFrequencyMax);
  }

  // EVICT. When the small queue passes objects on until the main one is full, the victim comes from
  // there.
  Entry& choose(std::optional<EvictionKey>) override {
    const bool prefers_small = scaled(queue_bytes(kSmall), 10, 1) >= capacity_;
    bool takes_small = prefers_small ? has_evictable(kSmall) : !has_evictable(kMain);
    while (takes_small) {
      Entry& tail = lowest(kSmall);
      if (tail.frequency <= 1) return tail;
      tail.frequency = 0;
      place(tail, kMain);
      takes_small = has_evictable(kSmall) && queue_bytes(kMain) <= main_bytes_max();
    }
    for (;;) {
      Entry& tail = lowest(kMain);
      if (tail.frequency == 0) return tail;
      --tail.frequency;
      place(tail, kMain);
    }
  }

  void on_evicted(const Entry& victim) override {
    if (victim.queue == kMain) return;
    ghosts_.push(victim.key, victim.charge_bytes);
    forget();
  }

  void forget() {
    while (ghosts_.size() > kGhostsMax || ghosts_.total_bytes() > main_bytes_max()) {
      ghosts_.drop_oldest();
    }
  }

  void check_bounds() const override { NCFS_ASSERT(ghosts_.total_bytes() <= main_bytes_max()); }

  // Nine tenths of the cache; the ghosts remember as much.
  [[nodiscard]] std::uint64_t main_bytes_max() const { return scaled(capacity_, 9, 10); }

  std::uint64_t capacity_;
  GhostList ghosts_;
};

}  // namespace

std::unique_ptr<EvictionPolicy> make_eviction_policy(Eviction eviction,
                                                     std::uint64_t capacity_bytes) {
  switch (eviction) {
    case Eviction::lru:
      break;
    case Eviction::lfu:
      return std::make_unique<Lfu>();
    case Eviction::arc:
      return std::make_unique<Arc>(capacity_bytes);
    case Eviction::s3fifo:
      return std::make_unique<S3Fifo>(capacity_bytes);
  }
  return std::make_unique<Lru>();
}

}  // namespace ncfs

// The eviction policies against their papers: with objects of one size each has to choose the same
// victims as a model that counts pages, written down from the paper. With objects of any size, in
// use or not, the books have to be right and the bounds kept.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "engine/eviction.h"

namespace ncfs {
namespace {

using Page = std::uint64_t;
using Pages = std::deque<Page>;  // the least recent, or first in, at the front

bool is_in(const Pages& pages, Page page) {
  return std::ranges::count(pages, page) > 0;
}

Page take_front(Pages& pages) {
  RC_ASSERT(!pages.empty());
  const Page page = pages.front();
  pages.pop_front();
  return page;
}

// A cache of so many pages. request() returns what it evicts.
class Model {
 public:
  virtual ~Model() = default;
  virtual std::optional<Page> request(Page page) = 0;
};

class LruModel final : public Model {
 public:
  explicit LruModel(std::uint64_t capacity) : capacity_(capacity) {}
  std::optional<Page> request(Page page) override {
    std::optional<Page> victim;
    if (std::erase(pages_, page) == 0 && pages_.size() == capacity_) victim = take_front(pages_);
    pages_.push_back(page);
    return victim;
  }

 private:
  const std::uint64_t capacity_;
  Pages pages_;
};

class LfuModel final : public Model {
 public:
  explicit LfuModel(std::uint64_t capacity) : capacity_(capacity) {}
  std::optional<Page> request(Page page) override {
    std::optional<Page> victim;
    if (!pages_.contains(page) && pages_.size() == capacity_) {
      const auto lowest = std::ranges::min_element(pages_, [](const auto& a, const auto& b) {
        return std::pair(a.second.priority, a.second.time) <
               std::pair(b.second.priority, b.second.time);
      });
      age_ = lowest->second.priority;
      victim = lowest->first;
      pages_.erase(lowest);
    }
    Use& use = pages_[page];
    use.priority = age_ + ++use.frequency;
    use.time = ++time_;
    return victim;
  }

 private:
  struct Use {
    std::uint64_t frequency = 0;
    std::uint64_t priority = 0;
    std::uint64_t time = 0;
  };
  const std::uint64_t capacity_;
  std::uint64_t age_ = 0;
  std::uint64_t time_ = 0;
  std::map<Page, Use> pages_;
};

// Figure 4 of the paper, case by case. p is real there; here it counts in parts of a page, as the
// bytes of the policy do.
class ArcModel final : public Model {
 public:
  ArcModel(std::uint64_t capacity, std::uint64_t parts) : c_(capacity), parts_(parts) {}
  std::optional<Page> request(Page x) override {
    std::optional<Page> victim;
    if (is_in(t1_, x) || is_in(t2_, x)) {  // case I
      std::erase(t1_, x);
      std::erase(t2_, x);
      t2_.push_back(x);
    } else if (is_in(b1_, x)) {  // case II
      p_ = std::min(p_ + std::max(parts_, parts_ * b2_.size() / b1_.size()), c_ * parts_);
      victim = replace(x);
      std::erase(b1_, x);
      t2_.push_back(x);
    } else if (is_in(b2_, x)) {  // case III
      p_ -= std::min(p_, std::max(parts_, parts_ * b1_.size() / b2_.size()));
      victim = replace(x);
      std::erase(b2_, x);
      t2_.push_back(x);
    } else {  // case IV
      const std::size_t total = t1_.size() + t2_.size() + b1_.size() + b2_.size();
      if (t1_.size() + b1_.size() == c_) {
        if (t1_.size() < c_) {
          take_front(b1_);
          victim = replace(x);
        } else {
          victim = take_front(t1_);
        }
      } else if (total >= c_) {
        if (total == 2 * c_) take_front(b2_);
        victim = replace(x);
      }
      t1_.push_back(x);
    }
    return victim;
  }

 private:
  Page replace(Page x) {
    const std::uint64_t t1 = t1_.size() * parts_;
    const bool takes_t1 = !t1_.empty() && ((is_in(b2_, x) && t1 == p_) || t1 > p_);
    const Page victim = take_front(takes_t1 ? t1_ : t2_);
    (takes_t1 ? b1_ : b2_).push_back(victim);
    return victim;
  }
  const std::uint64_t c_;
  const std::uint64_t parts_;
  std::uint64_t p_ = 0;
  Pages t1_, t2_, b1_, b2_;
};

// Algorithm 1 of the paper, but a victim out of the main queue is enough for one call of EVICT.
class S3FifoModel final : public Model {
 public:
  explicit S3FifoModel(std::uint64_t capacity) : capacity_(capacity) {}
  std::optional<Page> request(Page x) override {
    if (is_in(small_, x) || is_in(main_, x)) {
      frequency_[x] = std::min(frequency_[x] + 1, 3);
      return std::nullopt;
    }
    std::optional<Page> victim;
    while (small_.size() + main_.size() == capacity_) victim = evict();
    (std::erase(ghosts_, x) > 0 ? main_ : small_).push_back(x);
    frequency_[x] = 0;
    return victim;
  }

 private:
  std::optional<Page> evict() {
    return small_.size() * 10 >= capacity_ ? evict_small() : evict_main();
  }
  std::optional<Page> evict_small() {
    while (!small_.empty()) {
      const Page tail = take_front(small_);
      if (frequency_[tail] <= 1) {
        ghosts_.push_back(tail);
        if (ghosts_.size() * 10 > capacity_ * 9) take_front(ghosts_);
        return tail;
      }
      frequency_[tail] = 0;
      main_.push_back(tail);
      if (main_.size() * 10 > capacity_ * 9) return evict_main();
    }
    return std::nullopt;
  }
  std::optional<Page> evict_main() {
    for (;;) {
      const Page tail = take_front(main_);
      if (frequency_[tail] == 0) return tail;
      --frequency_[tail];
      main_.push_back(tail);
    }
  }
  const std::uint64_t capacity_;
  Pages small_, main_, ghosts_;
  std::map<Page, int> frequency_;
};

std::unique_ptr<Model> make_model(Eviction eviction, std::uint64_t capacity, std::uint64_t parts) {
  switch (eviction) {
    case Eviction::lru:
      break;
    case Eviction::lfu:
      return std::make_unique<LfuModel>(capacity);
    case Eviction::arc:
      return std::make_unique<ArcModel>(capacity, parts);
    case Eviction::s3fifo:
      return std::make_unique<S3FifoModel>(capacity);
  }
  return std::make_unique<LruModel>(capacity);
}

rc::Gen<Eviction> any_policy() {
  return rc::gen::element(Eviction::lru, Eviction::lfu, Eviction::arc, Eviction::s3fifo);
}

// Requests a page as the engine does: the object is in use while it is open.
std::optional<Page> request(EvictionPolicy& policy, Page page, std::uint64_t size,
                            std::uint64_t capacity) {
  const ObjectId object{page};
  const EvictionKey key{page};
  std::optional<Page> victim;
  policy.access(object, key);
  if (policy.contains(object)) {
    policy.set_evictable(object, false);
  } else {
    if (policy.total_bytes() + size > capacity) {
      victim = static_cast<Page>(policy.evict(key));
    }
    policy.add(object, key, size, Arrival::requested);
  }
  policy.set_evictable(object, true);
  return victim;
}

RC_GTEST_PROP(EvictionPolicy, ChoosesTheVictimsOfItsPaper, ()) {
  const auto eviction = *any_policy();
  const auto capacity = *rc::gen::inRange<std::uint64_t>(1, 25);
  const auto size = *rc::gen::element<std::uint64_t>(1, 4096, 1000003);
  const auto hot = rc::gen::inRange<std::uint64_t>(0, capacity / 2 + 1);
  const auto any = rc::gen::inRange<std::uint64_t>(0, 3 * capacity);
  const auto pages =
      *rc::gen::scale(4.0, rc::gen::container<std::vector<Page>>(rc::gen::oneOf(any, any, hot)));
  const auto policy = make_eviction_policy(eviction, capacity * size);
  const auto model = make_model(eviction, capacity, size);
  std::size_t victims = 0;
  for (const Page page : pages) {
    const auto expected = model->request(page);
    RC_ASSERT(request(*policy, page, size, capacity * size) == expected);
    policy->check_invariants();
    victims += expected ? 1 : 0;
  }
  RC_CLASSIFY(victims > 20, std::string(to_string(eviction)));
}

// What the engine may do in any order, with objects of any size.
RC_GTEST_PROP(EvictionPolicy, KeepsItsBooksWithAnySizes, ()) {
  struct Known {
    std::uint64_t size = 0;
    bool is_evictable = false;
    std::uint64_t rested_at = 0;
  };
  const auto eviction = *any_policy();
  auto capacity = *rc::gen::inRange<std::uint64_t>(1, 1000);
  const auto steps = *rc::gen::scale(
      4.0, rc::gen::container<std::vector<std::pair<std::uint64_t, std::uint64_t>>>(rc::gen::pair(
               rc::gen::inRange<std::uint64_t>(0, 9), rc::gen::inRange<std::uint64_t>(0, 30))));
  const auto policy = make_eviction_policy(eviction, capacity);
  std::map<std::uint64_t, Known> known;
  std::uint64_t time = 0;
  for (const auto& [step, name] : steps) {
    const ObjectId object{name};
    const EvictionKey key{name};
    ++time;
    if (step == 0 && policy->evictable_count() > 0) {
      const auto victim = static_cast<std::uint64_t>(policy->evict(key));
      RC_ASSERT(known.contains(victim) && known[victim].is_evictable);
      for (const auto& [other, it] : known) {
        const bool was_before = it.is_evictable && it.rested_at < known[victim].rested_at;
        RC_ASSERT(eviction != Eviction::lru || !was_before);
      }
      known.erase(victim);
    } else if (step == 8) {
      capacity = name * 30;  // also none at all
      policy->set_capacity(capacity);
    } else if (!known.contains(name)) {
      if (step < 4) {
        policy->access(object, key);
      } else {
        known[name].size = name * name * capacity / 100;  // from nothing to nine times the cache
        policy->add(object, key, known[name].size,
                    step == 4 ? Arrival::recovered : Arrival::requested);
      }
    } else if (step < 3) {
      policy->access(object, key);
    } else if (step < 7) {
      Known& it = known[name];
      if (!it.is_evictable) it.rested_at = time;
      it.is_evictable = step < 6;
      policy->set_evictable(object, it.is_evictable);
    } else {
      policy->remove(object);
      known.erase(name);
    }
    policy->check_invariants();
    std::uint64_t bytes = 0;
    std::uint64_t evictable_bytes = 0;
    for (const auto& [other, it] : known) {
      bytes += it.size;
      evictable_bytes += it.is_evictable ? it.size : 0;
      RC_ASSERT(policy->contains(ObjectId{other}));
      RC_ASSERT(policy->is_evictable(ObjectId{other}) == it.is_evictable);
    }
    RC_ASSERT(policy->size() == known.size());
    RC_ASSERT(policy->total_bytes() == bytes);
    RC_ASSERT(policy->evictable_bytes() == evictable_bytes);
    RC_ASSERT(policy->ghost_bytes() <= 2 * capacity);
  }
}

}  // namespace
}  // namespace ncfs

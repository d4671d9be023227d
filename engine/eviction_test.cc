// Stories of the eviction policies; the proof against the papers is in
// proptests/eviction_policy_prop_test.cc.
#include "engine/eviction.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>

namespace ncfs {
namespace {

class EvictionTest : public testing::TestWithParam<Eviction> {
 protected:
  void add(std::uint64_t name, Arrival arrival = Arrival::requested, std::uint64_t bytes = 1) {
    policy_->add(ObjectId{name}, EvictionKey{name}, bytes, arrival);
  }
  void add_at_rest(std::uint64_t name, Arrival arrival = Arrival::requested) {
    add(name, arrival);
    policy_->set_evictable(ObjectId{name}, true);
  }
  void access(std::uint64_t name) { policy_->access(ObjectId{name}, EvictionKey{name}); }
  std::uint64_t evict() { return static_cast<std::uint64_t>(policy_->evict(std::nullopt)); }

  std::unique_ptr<EvictionPolicy> policy_ = make_eviction_policy(GetParam(), 100);
};

INSTANTIATE_TEST_SUITE_P(Policies, EvictionTest,
                         testing::Values(Eviction::lru, Eviction::lfu, Eviction::arc,
                                         Eviction::s3fifo),
                         [](const auto& one) { return std::string(to_string(one.param)); });

TEST_P(EvictionTest, WhatWasRecoveredGoesOldestFirst) {
  for (const std::uint64_t name : {7, 3, 5}) add_at_rest(name, Arrival::recovered);
  EXPECT_EQ(evict(), 7U);
  EXPECT_EQ(evict(), 3U);
  EXPECT_EQ(evict(), 5U);
}

TEST_P(EvictionTest, ObjectInUseIsPassedOver) {
  add(1);
  add_at_rest(2);
  EXPECT_EQ(evict(), 2U);
  EXPECT_EQ(policy_->evictable_count(), 0U);
  policy_->set_evictable(ObjectId{1}, true);
  EXPECT_EQ(evict(), 1U);
}

TEST_P(EvictionTest, AccessesOfAnObjectInUseCount) {
  policy_ = make_eviction_policy(GetParam(), 3);
  add(1);
  for (const std::uint64_t name : {2, 3}) add_at_rest(name);
  access(1);
  access(1);
  policy_->set_evictable(ObjectId{1}, true);
  EXPECT_EQ(evict(), 2U);
  EXPECT_EQ(evict(), 3U);
}

// Twice as many objects that are used once as the cache holds, between two uses of a hot one.
TEST_P(EvictionTest, OnlyLruLetsAScanFlushWhatIsUsedOften) {
  add_at_rest(1);
  for (int use = 0; use < 3; ++use) access(1);
  for (std::uint64_t name = 2; name < 202; ++name) {
    if (policy_->total_bytes() == 100) evict();
    add_at_rest(name);
  }
  // LFU-DA forgives one access per generation of the cache, so four uses outlive two of them.
  EXPECT_EQ(policy_->contains(ObjectId{1}), GetParam() != Eviction::lru);
}

TEST_P(EvictionTest, GhostsAreBoundedInNumber) {
  policy_ = make_eviction_policy(GetParam(), kGiB);
  for (std::uint64_t name = 0; name < kGhostsMax + 10; ++name) {
    add_at_rest(name);
    evict();
  }
  policy_->check_invariants();
  const bool has_ghosts = GetParam() == Eviction::arc || GetParam() == Eviction::s3fifo;
  EXPECT_EQ(policy_->ghost_count(), has_ghosts ? kGhostsMax : 0);
}

// The live limit: nobody leaves for it by itself, ghosts are forgotten, and a larger cache
// remembers more again.
TEST_P(EvictionTest, AnotherCapacityBoundsWhatIsRemembered) {
  const auto churn = [&](std::uint64_t first) {
    for (std::uint64_t name = first; name < first + 200; ++name) {
      if (policy_->total_bytes() >= 100) evict();
      add_at_rest(name);
      policy_->check_invariants();
    }
  };
  churn(1);
  access(1);  // moves the target of ARC
  const std::uint64_t objects = policy_->total_bytes();
  const std::uint64_t remembered = policy_->ghost_bytes();
  policy_->set_capacity(10);
  policy_->check_invariants();
  EXPECT_EQ(policy_->total_bytes(), objects);
  EXPECT_LE(policy_->ghost_bytes(), std::min<std::uint64_t>(remembered, 20));
  while (policy_->total_bytes() > 10) evict();
  policy_->check_invariants();
  policy_->set_capacity(100);
  churn(1000);
  EXPECT_GE(policy_->ghost_bytes(), remembered);
}

TEST(EvictionKey, DiffersBetweenFilesAndVersions) {
  const EvictionKey key = eviction_key({1, 2}, {3, 4, 5});
  EXPECT_EQ(key, eviction_key({1, 2}, {3, 4, 5}));
  EXPECT_NE(key, eviction_key({1, 3}, {3, 4, 5}));
  EXPECT_NE(key, eviction_key({1, 2}, {3, 4, 6}));
}

}  // namespace
}  // namespace ncfs

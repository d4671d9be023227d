// What is fetched before anybody asks: nothing with prefetch=off, and else each byte is counted
// once. The model of the world is larger than the cache, so that no copy fetches anything.
#include <vector>

#include "proptests/plan_runner.h"

namespace ncfs {
namespace {

constexpr std::uint32_t kRounds = 300;
constexpr std::uint64_t kModel = 4;          // a file of the world, of 48 KiB
constexpr std::uint64_t kCacheSizeKnob = 1;  // with 4: 8 KiB
constexpr std::uint64_t kSmart = 0;          // values of kKnobPrefetch
constexpr std::uint64_t kOff = 1;

class Prefetching {
 public:
  explicit Prefetching(std::uint64_t prefetch) {
    world_.apply({StepOp::knob, kCacheSizeKnob, 4});
    world_.apply({StepOp::knob, kKnobPrefetch, prefetch});
    world_.apply({StepOp::remount});
    world_.apply({StepOp::open, kModel});
    world_.settle(kRounds);
  }

  void read(std::uint64_t offset, std::uint64_t length) {
    world_.apply({StepOp::read, 0, offset, length - 1});
    bytes_asked_ += length;
  }
  [[nodiscard]] bool settle() { return world_.settle(kRounds) && !world_.violation(); }
  void close() { world_.readers().close_all(); }

  [[nodiscard]] std::uint64_t bytes_asked() const { return bytes_asked_; }
  [[nodiscard]] std::uint64_t bytes_fetched() const { return world_.life()->io().source_bytes(); }
  [[nodiscard]] AheadCounts ahead(AheadReason reason) const {
    return world_.life()->engine().status().ahead.at(static_cast<std::size_t>(reason));
  }

 private:
  World world_;
  std::uint64_t bytes_asked_ = 0;
};

TEST(Prefetch, TensorsOfAModelAreFetchedAhead) {
  Prefetching prefetching(kSmart);
  prefetching.read(0, 4096);
  ASSERT_TRUE(prefetching.settle());
  EXPECT_EQ(prefetching.ahead(AheadReason::tensor).fetched, 0U);
  prefetching.read(4096 + 5000 + 700, 100);  // the first bytes of its third tensor
  ASSERT_TRUE(prefetching.settle());
  EXPECT_GT(prefetching.ahead(AheadReason::tensor).fetched, 0U);
  prefetching.read(4096 + 5000 + 700, 10'000);
  ASSERT_TRUE(prefetching.settle());
  EXPECT_GT(prefetching.ahead(AheadReason::tensor).used, 0U);
}

// Reads of all kinds, several of them at a time.
RC_GTEST_PROP(Prefetch, OffFetchesNoMoreThanIsAskedFor, ()) {
  const auto offsets = *rc::gen::container<std::vector<std::uint64_t>>(
      rc::gen::inRange<std::uint64_t>(0, 48 * kKiB - 5000));
  Prefetching prefetching(kOff);
  for (std::size_t index = 0; index < offsets.size(); ++index) {
    prefetching.read(offsets[index], 1 + offsets[index] % 5000);
    if (index % 3 == 2) RC_ASSERT(prefetching.settle());
  }
  RC_ASSERT(prefetching.settle());
  RC_ASSERT(prefetching.bytes_fetched() <= prefetching.bytes_asked());
  for (std::size_t reason = 0; reason < kAheadReasonCount; ++reason) {
    RC_ASSERT(prefetching.ahead(static_cast<AheadReason>(reason)) == AheadCounts{});
  }
}

RC_GTEST_PROP(Prefetch, EachByteIsUsedOrWasted, ()) {
  const auto offsets = *rc::gen::container<std::vector<std::uint64_t>>(
      rc::gen::inRange<std::uint64_t>(0, 48 * kKiB - 5000));
  Prefetching prefetching(kSmart);
  prefetching.read(0, 4096);
  RC_ASSERT(prefetching.settle());
  for (const std::uint64_t offset : offsets) {
    prefetching.read(offset, 1 + offset % 5000);
    RC_ASSERT(prefetching.settle());
  }
  prefetching.close();
  RC_ASSERT(prefetching.settle());
  for (std::size_t reason = 0; reason < kAheadReasonCount; ++reason) {
    const AheadCounts counts = prefetching.ahead(static_cast<AheadReason>(reason));
    RC_ASSERT(counts.fetched == counts.used + counts.wasted);
  }
}

}  // namespace
}  // namespace ncfs

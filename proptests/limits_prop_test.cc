// What limits the cache and what keeps files in it: the live limit, the floor of free space, age,
// pins, and eviction on demand. Stories in the simulated world; all orders and faults are the
// business of the plans.
#include <algorithm>
#include <cerrno>

#include "engine/format.h"
#include "proptests/plan_runner.h"

namespace ncfs {
namespace {

constexpr std::uint32_t kRounds = 300;
constexpr std::uint64_t kThreeBlocks = 0;  // files of the world, by what they are
constexpr std::uint64_t kTwoBlocks = 2;
constexpr std::uint64_t kTwelveBlocks = 4;
constexpr std::uint64_t kLimit256K = 0;  // Knobs::cache_size()
constexpr std::uint64_t kLimit40K = 2;
constexpr std::uint64_t kFreeKnob = kKnobMinFree;
constexpr std::uint64_t kTtlKnob = kKnobTtl;

class Limits : public testing::Test {
 protected:
  void SetUp() override { world_.apply({StepOp::remount}); }
  void TearDown() override { EXPECT_FALSE(world_.violation()) << describe(world_.violation()); }

  void apply(StepOp op, std::uint64_t a = 0, std::uint64_t b = 0) {
    world_.apply({op, a, b});
    ASSERT_TRUE(world_.settle(kRounds)) << describe(world_.violation()) << world_.describe();
  }
  void use(std::uint64_t file) {
    apply(StepOp::open, file);
    world_.readers().close_all();
    ASSERT_TRUE(world_.settle(kRounds));
  }
  void wait(Nanos time) {
    world_.apply({StepOp::tick, time});
    ASSERT_TRUE(world_.settle(kRounds));
  }
  void wait_a_second() {
    world_.apply({StepOp::tick, kSecond});
    world_.apply({StepOp::run, 7});
  }
  WarmResult warm(StepOp op, std::uint64_t file) {
    apply(op, file);
    return world_.readers().last_warm().value();
  }
  EngineStatus status() { return world_.life()->engine().status(); }
  std::uint64_t occupied() { return status().used_bytes + status().reserved_bytes; }
  bool is_cached(std::uint64_t file) {
    world_.apply({StepOp::open, file});
    EXPECT_TRUE(world_.settle(kRounds));
    const OpenResult result = world_.readers().files().begin()->second.result;
    world_.readers().close_all();
    EXPECT_TRUE(world_.settle(kRounds));
    return result.reason == OpenReason::cached;
  }

  World world_;
};

TEST_F(Limits, LoweredLimitEvictsAtOnceTheLeastRecentlyUsed) {
  use(kTwelveBlocks);
  use(kThreeBlocks);
  ASSERT_GT(occupied(), Knobs::cache_size(kLimit40K));
  apply(StepOp::limit, kLimit40K);
  EXPECT_LE(occupied(), Knobs::cache_size(kLimit40K));
  EXPECT_TRUE(is_cached(kThreeBlocks));
}

TEST_F(Limits, WhatIsOpenStaysAboveALoweredLimitAndGoesWhenItIsClosed) {
  use(kTwelveBlocks);
  apply(StepOp::open, kTwelveBlocks);
  const std::uint64_t before = occupied();
  apply(StepOp::limit, kLimit40K);
  EXPECT_EQ(occupied(), before);
  // Nothing new meanwhile: its copy waits for room.
  world_.apply({StepOp::warm, kThreeBlocks});
  for (int round = 0; round < 10; ++round) world_.apply({StepOp::run});
  EXPECT_EQ(world_.readers().last_warm()->kind, WarmResult::Kind::skipped);
  EXPECT_EQ(occupied(), before);
  world_.readers().close_all();
  ASSERT_TRUE(world_.settle(kRounds));
  EXPECT_LE(occupied(), Knobs::cache_size(kLimit40K));
}

TEST_F(Limits, RaisedLimitLetsInWhatWasTooLarge) {
  apply(StepOp::limit, kLimit40K);
  apply(StepOp::open, kTwelveBlocks);
  EXPECT_EQ(status().objects_cached, 0U);
  apply(StepOp::limit, kLimit256K);
  EXPECT_EQ(status().objects_cached, 1U);
}

TEST_F(Limits, PinnedFileIsNeitherEvictedForSpaceNorOnDemandNorForAge) {
  world_.apply({StepOp::knob, kTtlKnob, 1});  // five seconds
  apply(StepOp::remount);
  EXPECT_EQ(warm(StepOp::pin, kThreeBlocks).kind, WarmResult::Kind::copied);
  EXPECT_EQ(status().pinned_files, 1U);
  wait(60 * kSecond);
  apply(StepOp::evict, kThreeBlocks);
  EXPECT_EQ(world_.readers().last_control()->pinned.files, 1U);
  EXPECT_EQ(world_.readers().last_control()->done.files, 0U);
  apply(StepOp::limit, kLimit40K);
  use(kTwoBlocks);
  EXPECT_TRUE(is_cached(kThreeBlocks));
  apply(StepOp::unpin, kThreeBlocks);
  EXPECT_EQ(world_.readers().last_control()->done.files, 1U);
  EXPECT_EQ(status().pinned_bytes, 0U);
  wait(60 * kSecond);
  EXPECT_FALSE(is_cached(kThreeBlocks));
}

TEST_F(Limits, PinSurvivesARestartAndFollowsTheFileToItsNewVersion) {
  use(kThreeBlocks);
  EXPECT_EQ(warm(StepOp::pin, kThreeBlocks).kind, WarmResult::Kind::already_cached);
  world_.apply({StepOp::power});
  apply(StepOp::remount);
  EXPECT_EQ(status().pinned_files, 1U);
  for (const StepOp change : {StepOp::source_write, StepOp::source_replace}) {
    world_.apply({change, kThreeBlocks, 9000, 1});
    wait(10 * kSecond);
    use(kThreeBlocks);
    // A file that was moved over another is another file: only the name of the old one is gone.
    const std::uint64_t left = change == StepOp::source_write ? 1 : 2;
    EXPECT_EQ(status().objects_cached, left);
    EXPECT_EQ(status().pinned_files, 1U);
    world_.apply({StepOp::power});
    apply(StepOp::remount);
    EXPECT_EQ(status().pinned_files, 1U);
    apply(StepOp::evict, kThreeBlocks);
    EXPECT_EQ(world_.readers().last_control()->pinned.files, 1U);
  }
  apply(StepOp::unpin, kThreeBlocks);
  world_.apply({StepOp::power});
  apply(StepOp::remount);
  EXPECT_EQ(status().pinned_files, 0U);
}

TEST_F(Limits, PinTakenAwayBeforeRecoveryFoundItStaysAway) {
  EXPECT_EQ(warm(StepOp::pin, kThreeBlocks).kind, WarmResult::Kind::copied);
  EXPECT_EQ(warm(StepOp::pin, kTwoBlocks).kind, WarmResult::Kind::copied);
  world_.apply({StepOp::remount, 1});
  world_.apply({StepOp::unpin, kThreeBlocks});
  ASSERT_TRUE(status().is_recovering);
  ASSERT_TRUE(world_.settle(kRounds));
  EXPECT_EQ(status().pinned_files, 1U);
  world_.apply({StepOp::power});
  apply(StepOp::remount);
  EXPECT_EQ(status().pinned_files, 1U) << "and that is recorded";
}

TEST_F(Limits, PinThatWouldExceedTheLimitFails) {
  world_.apply({StepOp::knob, 1, 3});  // 100 KiB: the large file and one small one
  apply(StepOp::remount);
  EXPECT_EQ(warm(StepOp::pin, kTwelveBlocks).kind, WarmResult::Kind::copied);
  const WarmResult second = warm(StepOp::pin, kThreeBlocks);
  ASSERT_EQ(second.kind, WarmResult::Kind::copied);
  const WarmResult third = warm(StepOp::pin, kTwoBlocks);
  EXPECT_EQ(third.kind, WarmResult::Kind::failed);
  EXPECT_EQ(third.error, 0);
  EXPECT_EQ(third.reason, OpenReason::pins_full);
  EXPECT_EQ(status().pinned_files, 2U);
}

TEST_F(Limits, UnusedFileExpiresAlsoAcrossARestart) {
  world_.apply({StepOp::knob, kTtlKnob, 2});  // a hundred seconds
  apply(StepOp::remount);
  use(kThreeBlocks);
  use(kTwoBlocks);
  wait(70 * kSecond);
  use(kTwoBlocks);
  world_.apply({StepOp::kill});
  world_.apply({StepOp::tick, 50 * kSecond});
  apply(StepOp::remount);
  wait(kSecond);
  EXPECT_EQ(status().objects_cached, 1U);
  EXPECT_TRUE(is_cached(kTwoBlocks));
}

TEST_F(Limits, EvictionOnDemandSparesWhatIsOpenAndTellsTotals) {
  use(kThreeBlocks);
  use(kTwoBlocks);
  apply(StepOp::open, kTwoBlocks);
  constexpr std::uint64_t kAll = 5;
  apply(StepOp::evict, kAll);
  const ControlResult result = world_.readers().last_control().value();
  EXPECT_EQ(result.done.files, 1U);
  EXPECT_EQ(result.done.bytes, 12 * kKiB);
  EXPECT_EQ(result.in_use.files, 1U);
  EXPECT_EQ(status().objects_cached, 1U);
  world_.readers().close_all();
  apply(StepOp::evict, kAll, 50);
  EXPECT_EQ(world_.readers().last_control()->done.files, 0U) << "used a moment ago";
  apply(StepOp::evict, kAll);
  EXPECT_EQ(occupied(), 0U);
}

// Everything was in use when it was read: it is copied once there is room, though nobody opens it
// again.
TEST_F(Limits, FileThatFoundNoRoomIsCopiedWhenThereIsSome) {
  world_.apply({StepOp::knob, 1, 1});  // 64 KiB: the large file and nothing beside it
  apply(StepOp::remount);
  apply(StepOp::open, kTwelveBlocks);
  world_.apply({StepOp::open, kThreeBlocks});
  world_.apply({StepOp::run, 7});
  EXPECT_EQ(status().objects_cached, 1U);
  world_.apply({StepOp::close, 1});
  for (int second = 0; second < 15; ++second) wait_a_second();
  EXPECT_EQ(status().copies_finished, 1U);
  world_.readers().close_all();
  for (int second = 0; second < 15; ++second) wait_a_second();
  EXPECT_EQ(status().copies_finished, 2U);
  EXPECT_TRUE(is_cached(kThreeBlocks));
}

// Nobody wants it any more by the time.
TEST_F(Limits, FileThatFoundNoRoomForLongIsForgotten) {
  world_.apply({StepOp::knob, 1, 1});
  apply(StepOp::remount);
  apply(StepOp::open, kTwelveBlocks);
  world_.apply({StepOp::warm, kThreeBlocks});
  ASSERT_TRUE(world_.settle(kRounds)) << world_.describe();
  EXPECT_EQ(world_.readers().last_warm()->reason, OpenReason::no_space);
  world_.readers().close_all();
  ASSERT_TRUE(world_.settle(kRounds));
  EXPECT_EQ(status().copies_finished, 1U);
}

TEST_F(Limits, OthersWhoFillTheDiskAreGivenRoomAndNothingNewIsStored) {
  world_.apply({StepOp::knob, kFreeKnob, 1});  // a quarter stays free
  apply(StepOp::remount);
  use(kTwelveBlocks);
  use(kThreeBlocks);
  EXPECT_EQ(status().objects_cached, 2U);
  apply(StepOp::disk_full, 100 * kKiB % (64 * kKiB));  // 36 KiB are left
  wait(kSecond);
  EXPECT_EQ(status().objects_cached, 0U);
  EXPECT_EQ(warm(StepOp::warm, kTwoBlocks).kind, WarmResult::Kind::skipped);
  EXPECT_EQ(occupied(), 0U);
  apply(StepOp::disk_heal);
  wait(kSecond);
  EXPECT_EQ(warm(StepOp::warm, kTwoBlocks).kind, WarmResult::Kind::copied);
  EXPECT_TRUE(is_cached(kTwoBlocks));
}

// A kernel goes on reading the cache file of a daemon that was killed. When its sidecar cannot be
// read at the next start, nobody knows what it is, but its bytes stay on the disk.
TEST_F(Limits, DataInUseWithoutAReadableSidecarIsChargedUntilItIsGone) {
  use(kThreeBlocks);
  apply(StepOp::open, kThreeBlocks);
  world_.apply({StepOp::kill, 0, 1});
  world_.apply({StepOp::remount, 1});
  for (std::uint32_t round = 0; round < kRounds && status().is_recovering; ++round) {
    const auto& pending = world_.life()->io().pending();
    const auto load = std::find_if(pending.begin(), pending.end(), [](const auto& one) {
      return one.request.op == Op::cache_load;
    });
    const auto index = static_cast<std::size_t>(load - pending.begin());
    if (load == pending.end()) {
      world_.complete(0, {});
    } else {
      world_.complete(index, {.kind = Answer::Kind::error, .error = EIO});
    }
  }
  ASSERT_TRUE(world_.settle(kRounds));
  EXPECT_GE(status().used_bytes, 12 * kKiB);
  EXPECT_EQ(status().objects_cached, 0U);
  world_.apply({StepOp::release_holds});
  wait(kSecond);
  EXPECT_EQ(occupied(), 0U);
}

}  // namespace
}  // namespace ncfs

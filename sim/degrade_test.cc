// The cache disk or the source fails for a while: stories of who notices what. That no fault of the
// disk reaches a reader, in any order, is checked in every plan (S8, L1, L4).
#include <gtest/gtest.h>

#include <map>
#include <string_view>

#include "engine/format.h"
#include "sim/world.h"

namespace ncfs {
namespace {

constexpr std::uint32_t kRounds = 400;

// Counts what the engine asks for.
class Counter final : public Tamper {
 public:
  void submit(Request request) override {
    ++counts_[request.op];
    next().submit(std::move(request));
  }
  [[nodiscard]] std::uint64_t operator[](Op op) { return counts_[op]; }

 private:
  std::map<Op, std::uint64_t> counts_;
};

class DegradeTest : public testing::Test {
 protected:
  ~DegradeTest() override {
    const auto& broken = world_.violation();
    EXPECT_FALSE(broken) << broken->name << ": " << broken->message;
  }
  void apply(std::string_view text) {
    const ParsedPlan parsed = parse_plan(text);
    ASSERT_EQ(parsed.error, "");
    for (const Step& step : parsed.plan) world_.apply(step);
  }
  // Lets the world run, one second after the other.
  void pass(std::uint64_t seconds) {
    for (std::uint64_t second = 0; second < seconds; ++second) {
      apply("run 7\n");
      world_.apply({StepOp::tick, kSecond});
    }
  }
  void pass_until(HealthState state) {
    for (int second = 0; second < 120 && health().state != state; ++second) pass(1);
    ASSERT_EQ(health().state, state) << world_.describe();
  }
  void bring_into_cache(std::string_view open_step) {
    apply(open_step);
    ASSERT_TRUE(world_.settle(kRounds));
    world_.readers().close_all();
    ASSERT_TRUE(world_.settle(kRounds));
  }
  EngineStatus status() { return world_.life()->engine().status(); }
  CacheHealthStatus health() { return status().cache_health; }
  const OpenFile& newest() { return world_.readers().files().rbegin()->second; }
  bool has_probe() {
    for (const auto& [name, inode] : world_.disk().names_cached()) {
      if (name.ends_with(kProbeName)) return true;
    }
    return false;
  }

  Counter counter_;
  World world_{{.tamper = &counter_}};
};

TEST_F(DegradeTest, FailingDiskIsLeftAloneUntilItIsBack) {
  bring_into_cache("open 0\n");
  apply("disk_error 0\nopen 1\nopen 2\nopen 4\n");
  pass_until(HealthState::down);
  EXPECT_FALSE(health().reason.empty());
  EXPECT_EQ(health().last_error, 5);
  const std::uint64_t asked = world_.life()->io().cache_requests();
  pass(30);
  EXPECT_EQ(world_.life()->io().cache_requests(), asked);

  apply("open 0\n");
  ASSERT_TRUE(newest().is_answered) << "no open waits for a disk that is down";
  EXPECT_EQ(newest().result.reason, OpenReason::cache_unavailable);
  apply("read 3 0 12287\nrun 7\n");
  EXPECT_EQ(world_.readers().reads_finished(), 1U);

  apply("disk_heal\n");
  ASSERT_TRUE(world_.settle(kRounds));
  EXPECT_EQ(health().state, HealthState::normal);
  EXPECT_FALSE(has_probe());
  EXPECT_EQ(status().reserved_bytes, 0U);
  apply("open 4\n");
  ASSERT_TRUE(world_.settle(kRounds));
  EXPECT_EQ(newest().result.reason, OpenReason::cached) << "what was wanted was copied";
}

// Who asks for space is told at once that the disk gives none, and so is who has asked before.
TEST_F(DegradeTest, EvictionOnDemandDoesNotWaitForADiskThatIsDown) {
  bring_into_cache("open 0\n");
  bring_into_cache("open 2\n");
  apply("disk_hang\nevict 0\n");
  EXPECT_EQ(world_.readers().controls_pending(), 1U);
  apply("open 2\n");
  pass_until(HealthState::down);
  EXPECT_EQ(world_.readers().controls_pending(), 0U);
  EXPECT_EQ(world_.readers().last_control()->failed.files, 1U);
  world_.readers().close_all();
  apply("evict 5\n");
  EXPECT_EQ(world_.readers().controls_pending(), 0U);
  EXPECT_GE(world_.readers().last_control()->failed.files, 1U);
  EXPECT_EQ(world_.readers().last_control()->done.files, 0U);
  apply("disk_heal\n");
  ASSERT_TRUE(world_.settle(kRounds));
  EXPECT_EQ(status().objects_cached, 2U);
}

TEST_F(DegradeTest, HangingDiskIsDownAfterTwoDeadlines) {
  bring_into_cache("open 0\n");
  apply("disk_hang\nopen 0\n");
  pass(2 * world_.life()->config().cache_deadline / kSecond + 5);
  ASSERT_EQ(health().state, HealthState::down) << world_.describe();
  apply("open 0\n");
  EXPECT_TRUE(newest().is_answered);
  apply("disk_heal\n");
  ASSERT_TRUE(world_.settle(kRounds));
  apply("open 0\n");
  ASSERT_TRUE(world_.settle(kRounds));
  EXPECT_EQ(newest().result.reason, OpenReason::cached) << "slow is not wrong";
}

TEST_F(DegradeTest, ReaderReturnsToTheCacheWithTheDisk) {
  bring_into_cache("open 0\n");
  apply("open 0\n");
  ASSERT_TRUE(world_.settle(kRounds));
  const auto residency = newest().residency;
  ASSERT_TRUE(residency);
  apply("disk_error 0\nopen 1\nopen 2\nopen 4\n");
  pass_until(HealthState::down);
  EXPECT_FALSE(residency->is_resident(0));
  apply("disk_heal\n");
  pass_until(HealthState::normal);
  EXPECT_TRUE(residency->is_resident(0));
}

// Its own requests did not fail: what was fetched is not fetched again.
TEST_F(DegradeTest, UnfinishedCopyGoesOn) {
  apply("knob 8 1\nopen 4\nrun\nrun\nrun\n");
  while (status().copies.empty() || status().copies[0].done_bytes == 0) apply("run\n");
  // The copy waits for the source while the disk fails, and everything it wrote is durable.
  for (int round = 0; round < 10; ++round) {
    const auto& pending = world_.life()->io().pending();
    for (std::size_t index = 0; index < pending.size(); ++index) {
      if (pending[index].request.op == Op::source_read) world_.life()->io().set_hung(index, true);
    }
    apply("run\n");
  }
  const std::uint64_t done = status().copies[0].done_bytes;
  ASSERT_LT(done, 48 * kKiB);
  apply("disk_error 0\nopen 0\nopen 1\nopen 2\n");
  pass_until(HealthState::down);
  apply("disk_heal\nrelease\nrelease\nrelease\nrelease\n");
  pass_until(HealthState::normal);
  ASSERT_TRUE(world_.settle(kRounds)) << world_.describe();
  EXPECT_EQ(status().objects_cached, 4U);
  EXPECT_EQ(world_.life()->io().source_bytes(), 48 * kKiB + 12 * kKiB + 4000 + 8 * kKiB + 1);
}

TEST_F(DegradeTest, ProbeLeftByACrashIsRemoved) {
  apply("open 0\nopen 1\nopen 2\ndisk_error 0\n");
  pass_until(HealthState::unstable);
  apply("disk_heal\n");
  for (int second = 0; second < 60 && !has_probe(); ++second) {
    world_.apply({StepOp::tick, kSecond});
    apply("complete\n");
  }
  ASSERT_TRUE(has_probe());
  apply("kill\nopen 0\n");
  ASSERT_TRUE(world_.settle(kRounds));
  EXPECT_FALSE(has_probe());
}

TEST_F(DegradeTest, FileThatFindsTheDiskFullGetsTheRoomOfTheOldest) {
  bring_into_cache("open 4\n");
  apply("disk_full 0\nopen 0\n");
  ASSERT_TRUE(world_.settle(kRounds));
  EXPECT_EQ(status().evictions, 1U);
  EXPECT_EQ(status().objects_cached, 1U);
  EXPECT_EQ(health().changes, 0U) << "a full disk is not broken";
  EXPECT_FALSE(status().is_disk_full);
}

TEST_F(DegradeTest, FullDiskIsNotHammered) {
  bring_into_cache("open 1\n");
  apply("open 1\n");  // not to be evicted
  apply("disk_full 0\nopen 0\nopen 2\nopen 4\n");
  pass(100);
  EXPECT_TRUE(status().is_disk_full);
  // One try in common each 1, 2, 4, 8, 8, ... seconds.
  EXPECT_LE(counter_[Op::cache_create], 1U + 3U + 4U + 100U / 8U);
  EXPECT_EQ(health().changes, 0U);
  apply("disk_heal\n");
  ASSERT_TRUE(world_.settle(kRounds));
  EXPECT_EQ(status().objects_cached, 4U);
  EXPECT_FALSE(status().is_disk_full);
}

TEST_F(DegradeTest, CopiesRestWhileTheServerFailsAndReadersDoNot) {
  apply("open 3\nopen 0\n");
  apply("warm 0\nwarm 1\nwarm 2\nwarm 4\nnfs_error 0\n");
  pass(20);
  ASSERT_TRUE(status().is_source_resting) << world_.describe();
  EXPECT_EQ(status().source_error, 5);
  const auto background = [this] {
    return counter_[Op::source_open] + counter_[Op::source_read] + counter_[Op::source_stat];
  };
  const std::uint64_t before = background();
  pass(80);
  EXPECT_LE(background() - before, 80U / 8U + 1U) << "one try in eight seconds";
  const std::uint64_t reads = counter_[Op::source_read];
  apply("read 1 0 100\nrun 1\n");
  EXPECT_GT(counter_[Op::source_read], reads) << "a reader is served whatever copies do";
  EXPECT_EQ(world_.readers().reads_finished(), 1U);
  apply("nfs_heal\n");
  ASSERT_TRUE(world_.settle(kRounds));
  EXPECT_FALSE(status().is_source_resting);
  EXPECT_EQ(status().objects_cached, 4U);
}

}  // namespace
}  // namespace ncfs

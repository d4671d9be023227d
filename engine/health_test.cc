#include "engine/health.h"

#include <gtest/gtest.h>

namespace ncfs {
namespace {

constexpr int kEio = 5;

class HealthTest : public testing::Test {
 protected:
  void fault(DiskAnswer answer = DiskAnswer::fault) { health_.on_answer(now_, answer, kEio); }
  void good() { health_.on_answer(now_, DiskAnswer::good, 0); }
  // Probes when one is due; the seconds that passed until then.
  Nanos probe(DiskAnswer answer) {
    const Nanos from = now_;
    while (!health_.is_probe_due(now_)) now_ += kSecond;
    health_.on_probe_answer(now_, answer, answer == DiskAnswer::good ? 0 : kEio);
    return (now_ - from) / kSecond;
  }
  void recover() {
    while (!health_.is_normal()) probe(DiskAnswer::good);
  }

  CacheHealth health_;
  Nanos now_ = 1000 * kSecond;
};

TEST_F(HealthTest, ThreeFaultsWithinAMinuteMakeItUnstable) {
  fault();
  good();
  now_ += 30 * kSecond;
  fault();
  good();
  EXPECT_TRUE(health_.is_normal());
  now_ += 30 * kSecond;
  fault();
  EXPECT_EQ(health_.state(), HealthState::unstable);
  EXPECT_EQ(health_.last_error(), kEio);
  EXPECT_EQ(health_.since(), now_);
  EXPECT_FALSE(health_.reason().empty());
}

TEST_F(HealthTest, SeldomFaultsAndAFullDiskChangeNothing) {
  for (int time = 0; time < 20; ++time) {
    fault();
    good();
    for (int full = 0; full < 10; ++full) health_.on_answer(now_, DiskAnswer::neutral, 28);
    now_ += 31 * kSecond;
  }
  EXPECT_TRUE(health_.is_normal());
  EXPECT_EQ(health_.changes(), 0U);
}

TEST_F(HealthTest, OnlyFaultsInARowTakeItDown) {
  for (int time = 0; time < 100; ++time) {
    fault();
    if (time % 7 == 6) good();
  }
  EXPECT_EQ(health_.state(), HealthState::unstable);
  good();
  for (int time = 0; time < 8; ++time) fault();
  EXPECT_TRUE(health_.is_down());
}

TEST_F(HealthTest, OneMissedDeadlineIsAWarningTwoAreEnough) {
  fault(DiskAnswer::timeout);
  EXPECT_EQ(health_.state(), HealthState::unstable);
  good();
  fault(DiskAnswer::timeout);
  EXPECT_EQ(health_.state(), HealthState::unstable);
  fault(DiskAnswer::timeout);
  EXPECT_TRUE(health_.is_down());
}

TEST_F(HealthTest, ReadOnlyDiskIsNeverDown) {
  for (int time = 0; time < 100; ++time) fault(DiskAnswer::read_only);
  for (int time = 0; time < 100; ++time) probe(DiskAnswer::read_only);
  EXPECT_EQ(health_.state(), HealthState::unstable);
}

TEST_F(HealthTest, ThreeFailedProbesTakeAnUnstableDiskDown) {
  for (int time = 0; time < 3; ++time) fault();
  probe(DiskAnswer::fault);
  probe(DiskAnswer::fault);
  EXPECT_EQ(health_.state(), HealthState::unstable);
  probe(DiskAnswer::fault);
  EXPECT_TRUE(health_.is_down());
}

TEST_F(HealthTest, ReturnsAfterThreeProbesInARow) {
  for (int time = 0; time < 8; ++time) fault();
  ASSERT_TRUE(health_.is_down());
  probe(DiskAnswer::good);
  probe(DiskAnswer::good);
  probe(DiskAnswer::fault);
  probe(DiskAnswer::good);
  good();  // of a request from before: no reason to return
  probe(DiskAnswer::good);
  EXPECT_TRUE(health_.is_down());
  probe(DiskAnswer::good);
  EXPECT_TRUE(health_.is_normal());
  // The faults of before are forgotten.
  fault();
  fault();
  EXPECT_TRUE(health_.is_normal());
}

TEST_F(HealthTest, ProbesGetRarerUpToAMinute) {
  for (int time = 0; time < 8; ++time) fault();
  Nanos last = 0;
  for (const Nanos expected : {1, 2, 4, 8, 16, 32, 60, 60}) {
    last = probe(DiskAnswer::fault);
    EXPECT_EQ(last, expected);
  }
  for (int time = 0; time < 100; ++time) EXPECT_EQ(probe(DiskAnswer::fault), 60U);
  EXPECT_EQ(probe(DiskAnswer::good), 60U);
  EXPECT_EQ(probe(DiskAnswer::good), 1U);
}

TEST_F(HealthTest, DiskThatComesAndGoesHasToProveItselfLonger) {
  const auto seconds_to_return = [this] {
    for (int time = 0; time < 8; ++time) fault();
    const Nanos from = now_;
    recover();
    return (now_ - from) / kSecond;
  };
  EXPECT_EQ(seconds_to_return(), 3U);
  EXPECT_EQ(seconds_to_return(), 6U);
  EXPECT_EQ(seconds_to_return(), 12U);
  for (int time = 0; time < 100; ++time) EXPECT_LE(seconds_to_return(), 180U);
  now_ += CacheHealth::kRelapse;
  EXPECT_EQ(seconds_to_return(), 3U);
}

TEST(BackOff, GivesOneTryAtATimeAndWaitsLongerForEach) {
  BackOff back_off(kSecond, 8 * kSecond);
  EXPECT_TRUE(back_off.take(0));
  Nanos now = 100 * kSecond;
  back_off.begin(now);
  for (const Nanos pause : {1, 2, 4, 8, 8}) {
    EXPECT_FALSE(back_off.take(now + pause * kSecond - 1));
    now += pause * kSecond;
    EXPECT_EQ(back_off.next_try_at(), now);
    EXPECT_TRUE(back_off.take(now));
    EXPECT_FALSE(back_off.take(now));
    back_off.begin(now);  // the try failed
  }
  back_off.end();
  EXPECT_TRUE(back_off.take(now));
  EXPECT_TRUE(back_off.take(now));
}

}  // namespace
}  // namespace ncfs

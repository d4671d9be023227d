#include "engine/backend_health.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

namespace ncfs {
namespace {

constexpr int kEio = 5;
constexpr int kTimedOut = 110;
constexpr Nanos kPatience = 5 * kSecond;

class BackendHealthTest : public testing::Test {
 protected:
  void answer(BackendAnswer answer, int error = 0) { health_.on_answer(now_, answer, error); }
  void probe(BackendAnswer answer) {
    while (!health_.take_probe(now_)) now_ += kSecond;
    health_.on_probe_answer(now_, answer, answer == BackendAnswer::good ? 0 : kEio);
  }
  void hang() {
    now_ += BackendHealth::kCalm;
    answer(BackendAnswer::timeout, kTimedOut);
    ASSERT_TRUE(health_.take_probe(now_));
    now_ += kPatience;
    health_.tick(now_);
    ASSERT_TRUE(health_.is_down());
  }

  BackendHealth health_{kPatience};
  Nanos now_ = 1000 * kSecond;
};

TEST_F(BackendHealthTest, ErrorsAreSortedByWhatTheySayAboutTheBackend) {
  for (const int definite : {0, 1, 2, 13, 17, 20, 28, 30, 39, 40, 116, 122}) {
    EXPECT_EQ(judge_backend(definite), BackendAnswer::good) << definite;
  }
  for (const int connection : {101, 104, 107, 111, 112, 113}) {
    EXPECT_EQ(judge_backend(connection), BackendAnswer::unreachable) << connection;
  }
  EXPECT_EQ(judge_backend(kEio), BackendAnswer::transient);
  EXPECT_EQ(judge_backend(kTimedOut), BackendAnswer::timeout);
}

TEST_F(BackendHealthTest, OneInputOutputErrorIsForgivenAndTwoAreNot) {
  for (int time = 0; time < 20; ++time) {
    answer(BackendAnswer::transient, kEio);
    answer(BackendAnswer::good);
  }
  EXPECT_TRUE(health_.is_up());
  EXPECT_EQ(health_.changes(), 0U);
  EXPECT_FALSE(health_.take_probe(now_));
  answer(BackendAnswer::transient, kEio);
  answer(BackendAnswer::transient, kEio);
  EXPECT_EQ(health_.state(), BackendState::suspect);
  EXPECT_EQ(health_.last_error(), kEio);
  EXPECT_FALSE(health_.reason().empty());
}

TEST_F(BackendHealthTest, CallsAloneNeverTakeItDown) {
  for (int time = 0; time < 1000; ++time) {
    answer(BackendAnswer::timeout, kTimedOut);
    now_ += kSecond;
    health_.tick(now_);
  }
  EXPECT_EQ(health_.state(), BackendState::suspect);
}

TEST_F(BackendHealthTest, ProbeThatIsAnsweredClearsItForAWhile) {
  answer(BackendAnswer::timeout, kTimedOut);
  probe(BackendAnswer::good);
  EXPECT_TRUE(health_.is_up());
  answer(BackendAnswer::timeout, kTimedOut);
  EXPECT_TRUE(health_.is_up());
  now_ += BackendHealth::kCalm;
  answer(BackendAnswer::timeout, kTimedOut);
  EXPECT_EQ(health_.state(), BackendState::suspect);
}

TEST_F(BackendHealthTest, ProbeThatHangsTakesItDownAndItsReturnTakesItUp) {
  answer(BackendAnswer::timeout, kTimedOut);
  ASSERT_TRUE(health_.take_probe(now_));
  now_ += kPatience - 1;
  health_.tick(now_);
  EXPECT_EQ(health_.state(), BackendState::suspect);
  ++now_;
  health_.tick(now_);
  EXPECT_TRUE(health_.is_down());
  now_ += 3600 * kSecond;
  EXPECT_FALSE(health_.take_probe(now_)) << "one probe at a time";
  health_.on_probe_answer(now_, BackendAnswer::good, 0);
  EXPECT_TRUE(health_.is_up());
}

TEST_F(BackendHealthTest, ProbesThatFailTakeItDownAndAreRepeatedEverMoreSeldom) {
  answer(BackendAnswer::unreachable, 111);
  probe(BackendAnswer::unreachable);
  EXPECT_EQ(health_.state(), BackendState::suspect);
  probe(BackendAnswer::unreachable);
  EXPECT_TRUE(health_.is_down());
  const Nanos from = now_;
  for (int time = 0; time < 100; ++time) probe(BackendAnswer::unreachable);
  EXPECT_GE(now_ - from, 90 * BackendHealth::kProbeIntervalMax);
  EXPECT_LE(now_ - from, 101 * BackendHealth::kProbeIntervalMax);
}

TEST_F(BackendHealthTest, AnswerToAnOldCallHastensTheNextProbe) {
  answer(BackendAnswer::unreachable, 111);
  for (int time = 0; time < 10; ++time) probe(BackendAnswer::unreachable);
  EXPECT_FALSE(health_.take_probe(now_));
  answer(BackendAnswer::good);
  EXPECT_TRUE(health_.is_down()) << "only probes lead back";
  EXPECT_TRUE(health_.take_probe(now_));
}

TEST_F(BackendHealthTest, OneThatComesAndGoesHasToProveItselfForLonger) {
  std::uint32_t needed = 1;
  for (int time = 0; time < 6; ++time) {
    hang();
    health_.on_probe_answer(now_, BackendAnswer::good, 0);
    for (std::uint32_t good = 1; good < needed; ++good) {
      EXPECT_TRUE(health_.is_down());
      probe(BackendAnswer::good);
    }
    EXPECT_TRUE(health_.is_up());
    needed = std::min(2 * needed, BackendHealth::kProbesForUpMax);
  }
  now_ += BackendHealth::kRelapse;
  hang();
  health_.on_probe_answer(now_, BackendAnswer::good, 0);
  EXPECT_TRUE(health_.is_up());
}

// Any order of answers, probes and pauses: the laws of the header hold, and it does not flap.
TEST_F(BackendHealthTest, AnyOrderOfEventsKeepsTheLaws) {
  constexpr int kSteps = 200'000;
  std::uint64_t random = 12345;
  const auto next = [&random](std::uint64_t below) {
    random = random * 6364136223846793005U + 1442695040888963407U;
    return (random >> 33U) % below;
  };
  bool is_probe_out = false;
  Nanos last_up = 0;
  for (int step = 0; step < kSteps; ++step) {
    const BackendState before = health_.state();
    const std::uint64_t changes = health_.changes();
    // Mostly good, or eight good probes in a row would never come.
    const auto any = next(4) == 0 ? static_cast<BackendAnswer>(next(4)) : BackendAnswer::good;
    enum class Event : std::uint8_t { answer, probe, time } event{};
    switch (next(4)) {
      case 0:
        answer(any, kEio);
        break;
      case 1:
        if (is_probe_out) {
          event = Event::probe;
          health_.on_probe_answer(now_, any, kEio);
          is_probe_out = false;
        }
        break;
      case 2:
        if (health_.take_probe(now_)) {
          ASSERT_FALSE(is_probe_out) << "one probe at a time";
          ASSERT_NE(before, BackendState::up) << "none is made without need";
          is_probe_out = true;
        }
        break;
      default:
        event = Event::time;
        now_ += next(4 * kSecond);
        health_.tick(now_);
    }
    const BackendState after = health_.state();
    ASSERT_LE(health_.changes() - changes, 1U);
    ASSERT_EQ(health_.changes() != changes, before != after);
    if (before == after) continue;
    ASSERT_EQ(health_.since(), now_);
    if (after == BackendState::suspect) {
      ASSERT_EQ(before, BackendState::up);
      ASSERT_GE(now_ - last_up, last_up == 0 ? 0 : BackendHealth::kCalm) << "flaps";
    } else if (after == BackendState::down) {
      ASSERT_EQ(before, BackendState::suspect);
      ASSERT_NE(event, Event::answer) << "only a probe takes it down";
    } else {
      ASSERT_EQ(event, Event::probe) << "only a probe leads back";
      last_up = now_;
    }
  }
  EXPECT_GT(health_.changes(), 100U);
}

TEST_F(BackendHealthTest, OneThatWasNeverThereIsProbedUntilItIsThere) {
  health_.begin_down(now_, "never asked", kTimedOut);
  EXPECT_TRUE(health_.is_down());
  EXPECT_EQ(health_.last_error(), kTimedOut);
  EXPECT_EQ(health_.changes(), 1U);
  EXPECT_FALSE(health_.take_probe(now_));
  for (int time = 0; time < 5; ++time) {
    probe(BackendAnswer::unreachable);
    EXPECT_TRUE(health_.is_down());
  }
  const Nanos from = now_;
  probe(BackendAnswer::good);
  EXPECT_TRUE(health_.is_up());
  EXPECT_LE(now_ - from, BackendHealth::kProbeIntervalMax);
  EXPECT_EQ(health_.changes(), 2U);
}

}  // namespace
}  // namespace ncfs

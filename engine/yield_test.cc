// The law by which copies yield to readers, on a model of a device: one line for all bytes, first
// come, first served, and a round trip. Time is virtual.
#include "engine/yield.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <optional>

namespace ncfs {
namespace {

constexpr std::uint64_t kPiece = 16 * kKiB;
constexpr std::uint64_t kMax = 16 * kMiB;
constexpr Nanos kMicrosecond = 1000;

struct Line {
  Nanos round_trip = 2 * kMillisecond;
  std::uint64_t bytes_per_second = kGiB;
};

// A reader who asks for 4 KiB, waits, and asks again after `thinks`; and a copy that always has
// more to read.
class Device {
 public:
  explicit Device(const Line& line) : line_(line) {}

  // Mean latency of the reader's reads in so long.
  Nanos read_for(Nanos time, Nanos thinks = 0) { return run(time, true, thinks); }
  void rest_for(Nanos time) { run(time, false, 0); }

  void begin_copy() { is_copying_ = true; }
  void set_round_trip(Nanos time) { line_.round_trip = time; }
  [[nodiscard]] const YieldWindow& window() const { return window_; }
  [[nodiscard]] std::uint64_t copied() const { return copied_; }
  [[nodiscard]] Nanos longest_gap() const { return longest_gap_; }
  [[nodiscard]] Nanos now() const { return now_; }

 private:
  static constexpr std::uint64_t kRead = 4 * kKiB;

  Nanos send(std::uint64_t bytes) {
    free_at_ = std::max(free_at_, now_) + bytes * kSecond / line_.bytes_per_second;
    return free_at_ + line_.round_trip;
  }

  Nanos run(Nanos time, bool reads, Nanos thinks) {
    const Nanos end = now_ + time;
    Nanos sum = 0;
    Nanos count = 0;
    while (now_ < end) {
      if (reads && !read_done_ && now_ >= read_at_) {
        window_.read_begins(now_);
        read_began_ = now_;
        read_done_ = send(kRead);
      }
      while (is_copying_) {
        const std::uint64_t bytes = std::min(window_.piece(now_), kMiB);
        if (bytes == 0 || window_.copies_in_flight() + bytes > kMax) break;
        longest_gap_ = std::max(longest_gap_, now_ - last_copy_at_);
        last_copy_at_ = now_;
        window_.copy_begins(bytes);
        copies_.push_back({send(bytes), bytes});
      }
      // The next thing to happen.
      Nanos next = end;
      if (reads && !read_done_) next = std::min(next, read_at_);
      if (read_done_) next = std::min(next, *read_done_);
      if (!copies_.empty()) next = std::min(next, copies_.front().done_at);
      if (const auto at = window_.ready_at(now_); at && is_copying_) next = std::min(next, *at);
      now_ = std::max(next, now_ + 1);
      if (read_done_ && *read_done_ <= now_) {
        window_.read_ends(now_, read_began_, kRead);
        sum += now_ - read_began_;
        ++count;
        read_done_.reset();
        read_at_ = now_ + thinks;
      }
      while (!copies_.empty() && copies_.front().done_at <= now_) {
        window_.copy_ends(now_, copies_.front().bytes);
        copied_ += copies_.front().bytes;
        copies_.pop_front();
      }
    }
    return count == 0 ? 0 : sum / count;
  }

  struct Copy {
    Nanos done_at = 0;
    std::uint64_t bytes = 0;
  };

  Line line_;
  YieldWindow window_{kPiece, kMax};
  Nanos now_ = 100 * kSecond;
  Nanos free_at_ = 0;
  bool is_copying_ = false;
  std::optional<Nanos> read_done_;
  Nanos read_began_ = 0;
  Nanos read_at_ = 0;
  std::deque<Copy> copies_;
  std::uint64_t copied_ = 0;
  Nanos last_copy_at_ = now_;
  Nanos longest_gap_ = 0;
};

TEST(YieldWindow, WithoutReadersThereIsNoLimit) {
  Device device({});
  device.begin_copy();
  device.rest_for(kSecond);
  EXPECT_EQ(device.window().limit(device.now()), YieldWindow::kUnlimited);
  EXPECT_GT(device.copied(), 1000 * kMiB) << "the line carries no more";
}

// The promise: a fifth at the 99th percentile; of a reader whose reads do not vary the mean is it.
TEST(YieldWindow, ReaderWaitsLittleLongerBesideACopyThatGoesOn) {
  for (const Line& line :
       {Line{200 * kMicrosecond, kGiB}, Line{2 * kMillisecond, kGiB}, Line{10 * kMillisecond, kGiB},
        Line{2 * kMillisecond, 8 * kGiB}, Line{10 * kMillisecond, 100 * kMiB}}) {
    Device device(line);
    const Nanos alone = device.read_for(kSecond);
    device.begin_copy();
    device.rest_for(10 * kSecond);  // at full speed
    device.read_for(kSecond);       // until the window is found
    const std::uint64_t before = device.copied();
    const Nanos beside = device.read_for(10 * kSecond);
    EXPECT_LE(beside, alone * 6 / 5) << line.round_trip << " " << line.bytes_per_second;
    EXPECT_GT(device.copied() - before, 10 * kPiece * kSecond / (2 * alone)) << line.round_trip;
  }
}

TEST(YieldWindow, CopyTakesAllThatCostsTheReaderNothing) {
  Device device({10 * kMillisecond, 1024 * kGiB});
  device.read_for(kSecond);
  device.begin_copy();
  device.read_for(10 * kSecond);
  EXPECT_EQ(device.window().limit(device.now()), YieldWindow::kUnlimited);
}

TEST(YieldWindow, WindowOpensAgainWhenReadersStop) {
  Device device({200 * kMicrosecond, kGiB});
  device.begin_copy();
  device.read_for(5 * kSecond);
  ASSERT_LT(device.window().limit(device.now()), kMax);
  device.rest_for(YieldWindow::kForget);
  EXPECT_EQ(device.window().limit(device.now()), YieldWindow::kUnlimited);
  const std::uint64_t before = device.copied();
  device.rest_for(kSecond);
  EXPECT_GT(device.copied() - before, 1000 * kMiB);
}

// A device that gets slower by itself, or readers who queue behind each other, are not the copy's
// fault: it does not yield to that for ever, as it would to a minimum that is never met again.
TEST(YieldWindow, FollowsADeviceThatBecomesSlower) {
  Device device({2 * kMillisecond, 8 * kGiB});
  device.begin_copy();
  device.read_for(5 * kSecond);
  const std::uint64_t before = device.window().limit(device.now());
  device.set_round_trip(20 * kMillisecond);
  device.read_for(60 * kSecond);
  EXPECT_GT(device.window().latency_alone(), 19 * kMillisecond);
  EXPECT_GE(device.window().limit(device.now()), before);
}

// However slow the line, and though every piece of the copy harms: it goes on, and how long it
// pauses is bounded.
TEST(YieldWindow, CopyIsNeverStarved) {
  for (const Nanos thinks : {Nanos{0}, 3 * kMillisecond, 50 * kMillisecond, 500 * kMillisecond}) {
    Device device({100 * kMicrosecond, 4 * kMiB});
    device.begin_copy();
    device.read_for(60 * kSecond, thinks);
    EXPECT_GT(device.copied(), 60 * kMiB) << thinks;
    EXPECT_LT(device.longest_gap(), 2 * YieldWindow::kPauseMax) << thinks;
  }
}

TEST(YieldWindow, DeviceThatTakesLongerThanThePauseDoesNotStopTheCopy) {
  Device device({3 * kSecond, kGiB});
  device.begin_copy();
  device.read_for(600 * kSecond);
  EXPECT_GT(device.copied(), 100 * kPiece);
  EXPECT_LE(device.longest_gap(), YieldWindow::kPauseMax + 3 * kSecond + kMillisecond);
}

TEST(YieldWindow, ReadThatFailedSaysNothing) {
  YieldWindow window(kPiece, kMax);
  window.read_begins(1);
  window.read_ends(kSecond, 1, 0);
  EXPECT_EQ(window.latency_alone(), 0U);
  EXPECT_EQ(window.reads_in_flight(), 0U);
}

TEST(YieldWindow, ReadsAreComparedWithThoseOfTheirLength) {
  YieldWindow window(kPiece, kMax);
  Nanos now = kSecond;
  const auto read = [&](std::uint64_t bytes, Nanos latency) {
    window.read_begins(now);
    window.read_ends(now + latency, now, bytes);
    now += latency;
  };
  for (int count = 0; count < 8; ++count) read(4 * kKiB, kMillisecond);
  for (int count = 0; count < 8; ++count) read(kMiB, 10 * kMillisecond);
  EXPECT_EQ(window.latency_alone(), 10 * kMillisecond);
  window.copy_begins(kPiece);
  for (int count = 0; count < 64; ++count)
    read(count % 2 == 0 ? 4 * kKiB : kMiB, count % 2 == 0 ? kMillisecond : 10 * kMillisecond);
  EXPECT_GT(window.limit(now), kPiece) << "none of them waited for the copy";
  for (int count = 0; count < 8; ++count) read(4 * kKiB, kMillisecond);
}

TEST(YieldWindow, IsForgottenWhenNothingIsInFlightForLong) {
  YieldWindow window(kPiece, kMax);
  EXPECT_TRUE(window.is_idle(0));
  window.copy_begins(kPiece);
  EXPECT_FALSE(window.is_idle(0));
  window.copy_ends(1, kPiece);
  window.read_begins(2);
  EXPECT_FALSE(window.is_idle(10 * kSecond));
  window.read_ends(10 * kSecond, 2, kPiece);
  EXPECT_FALSE(window.is_idle(10 * kSecond));
  EXPECT_TRUE(window.is_idle(10 * kSecond + YieldWindow::kForget));
}

}  // namespace
}  // namespace ncfs

#include "io/work_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <cerrno>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "io/monotonic_clock.h"
#include "io/test_wait.h"

namespace ncfs {
namespace {

using WhenLate = WorkPool::WhenLate;

constexpr Nanos kLater = 3600 * kSecond;

// Something a pool thread waits for until the test lets it go on.
class Gate {
 public:
  ~Gate() { open(); }
  void open() {
    const std::lock_guard lock(mutex_);
    is_open_ = true;
    opened_.notify_all();
  }
  void pass() {
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [this] { return is_open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool is_open_ = false;
};

struct Record {
  std::atomic<bool> is_started{false};
  std::atomic<int> runs{0};
  std::atomic<int> discards{0};
  std::vector<int> statuses;  // control thread only, as is `finishes`
  int finishes = 0;
  std::thread::id completed_by;
  Gate destroyed;
};

class TestJob final : public WorkPool::Job {
 public:
  TestJob(std::shared_ptr<Record> record, Nanos deadline, WhenLate when_late,
          std::shared_ptr<Gate> gate)
      : Job(deadline, when_late), record_(std::move(record)), gate_(std::move(gate)) {}
  ~TestJob() override { record_->destroyed.open(); }

  void run() override {
    record_->is_started = true;
    if (gate_) gate_->pass();
    ++record_->runs;
  }
  void complete(int status) override {
    record_->statuses.push_back(status);
    record_->completed_by = std::this_thread::get_id();
    EXPECT_EQ(record_->finishes, 0);
  }
  void finish() override { ++record_->finishes; }
  void discard() override { ++record_->discards; }

 private:
  const std::shared_ptr<Record> record_;
  const std::shared_ptr<Gate> gate_;
};

class WorkPoolTest : public testing::Test {
 protected:
  void make_pool(std::size_t threads, std::size_t replacements = 0, std::size_t queue_max = 100) {
    pool_ = std::make_unique<WorkPool>(control_, WorkPool::Options{.name = "test",
                                                                   .threads = threads,
                                                                   .replacements = replacements,
                                                                   .queue_max = queue_max,
                                                                   .stop_patience = patience_});
  }

  static std::shared_ptr<TestJob> job(const std::shared_ptr<Record>& record,
                                      Nanos patience = kLater,
                                      const std::shared_ptr<Gate>& gate = nullptr,
                                      WhenLate when_late = WhenLate::drop) {
    return std::make_shared<TestJob>(record, monotonic_now() + patience, when_late, gate);
  }

  std::shared_ptr<Record> submit(Nanos patience = kLater,
                                 const std::shared_ptr<Gate>& gate = nullptr,
                                 WhenLate when_late = WhenLate::drop) {
    auto record = std::make_shared<Record>();
    pool_->submit(job(record, patience, gate, when_late));
    EXPECT_TRUE(record->statuses.empty()) << "completed inline";
    return record;
  }

  // A job that was started in time, waits at the gate, and has timed out. On a slow machine the
  // deadline may pass before the start; then it is tried again with a later one.
  std::shared_ptr<Record> submit_stuck(const std::shared_ptr<Gate>& gate) {
    for (Nanos patience = 50 * kMillisecond;; patience *= 2) {
      auto record = submit(patience, gate);
      run_until([&] { return !record->statuses.empty(); });
      EXPECT_EQ(record->statuses.front(), -ETIMEDOUT);
      if (record->is_started || HasFailure()) return record;
    }
  }

  void run_until(const std::function<bool()>& condition) {
    constexpr auto kHang = std::chrono::seconds(60);
    while (!condition()) ASSERT_GT(control_.run_one_for(kHang), 0U) << "nothing happens any more";
  }
  void run_until_finished(const std::shared_ptr<Record>& record) {
    run_until([&] { return record->finishes > 0; });
  }

  std::chrono::nanoseconds patience_ = std::chrono::seconds(60);
  boost::asio::io_context control_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> guard_{
      control_.get_executor()};
  std::unique_ptr<WorkPool> pool_;
};

TEST_F(WorkPoolTest, AJobIsCompletedOnceOnTheControlThreadAndThenFinished) {
  make_pool(2);
  const auto record = submit();
  run_until_finished(record);
  EXPECT_EQ(record->runs, 1);
  EXPECT_EQ(record->statuses, std::vector<int>{0});
  EXPECT_EQ(record->completed_by, std::this_thread::get_id());
  EXPECT_EQ(record->finishes, 1);
  EXPECT_EQ(record->discards, 0);
}

TEST_F(WorkPoolTest, ManyJobsAreAllCompletedOnce) {
  make_pool(4, 0, 1000);
  std::vector<std::shared_ptr<Record>> records;
  for (int count = 0; count < 1000; ++count) records.push_back(submit());
  for (const auto& record : records) {
    run_until_finished(record);
    EXPECT_EQ(record->statuses, std::vector<int>{0});
  }
}

TEST_F(WorkPoolTest, AJobThatTheQueueHasNoRoomForIsRefused) {
  make_pool(1, 0, 2);
  const auto gate = std::make_shared<Gate>();
  const auto running = submit(kLater, gate);
  ASSERT_TRUE(eventually([&] { return running->is_started.load(); }));
  const auto first = submit();
  const auto second = submit();
  const auto refused = submit();
  run_until_finished(refused);
  EXPECT_EQ(refused->statuses, std::vector<int>{-EAGAIN});
  gate->open();
  for (const auto& record : {running, first, second}) {
    run_until_finished(record);
    EXPECT_EQ(record->statuses, std::vector<int>{0});
  }
  EXPECT_EQ(refused->runs, 0);
}

TEST_F(WorkPoolTest, AStuckJobTimesOutAtOnceAndIsFinishedWhenItReturns) {
  make_pool(1);
  const auto gate = std::make_shared<Gate>();
  const auto stuck = submit_stuck(gate);
  EXPECT_EQ(stuck->runs, 0);
  EXPECT_EQ(stuck->finishes, 0);
  gate->open();
  run_until_finished(stuck);
  EXPECT_EQ(stuck->statuses, std::vector<int>{-ETIMEDOUT});
  EXPECT_EQ(stuck->runs, 1);
  EXPECT_EQ(stuck->discards, 1);
}

TEST_F(WorkPoolTest, AJobWhoseDeadlineHasPassedIsNeverRun) {
  make_pool(1);
  const auto record = submit(0);
  // The only thread comes to the next job after this one, before the timer gets its turn.
  const auto next = submit();
  ASSERT_TRUE(eventually([&] { return next->is_started.load(); }));
  run_until_finished(record);
  EXPECT_EQ(record->statuses, std::vector<int>{-ETIMEDOUT});
  EXPECT_EQ(record->runs, 0);
}

TEST_F(WorkPoolTest, AJobThatNoThreadGetsToInTimeIsNeverRun) {
  make_pool(1);
  const auto gate = std::make_shared<Gate>();
  const auto running = submit(kLater, gate);
  const auto waiting = submit(20 * kMillisecond);
  run_until_finished(waiting);
  EXPECT_EQ(waiting->statuses, std::vector<int>{-ETIMEDOUT});
  gate->open();
  run_until_finished(running);
  EXPECT_EQ(running->statuses, std::vector<int>{0});
  EXPECT_EQ(waiting->runs, 0);
}

TEST_F(WorkPoolTest, AnEarlierDeadlineIsNotHiddenByALaterOne) {
  make_pool(1);
  const auto gate = std::make_shared<Gate>();
  const auto running = submit(kLater, gate);
  const auto patient = submit(kLater);
  const auto hasty = submit(20 * kMillisecond);
  run_until_finished(hasty);
  EXPECT_TRUE(patient->statuses.empty());
  gate->open();
  run_until_finished(patient);
  run_until_finished(running);
}

TEST_F(WorkPoolTest, StuckThreadsAreReplacedAndTheReplacementsGoWhenTheyComeBack) {
  make_pool(2, 2);
  const auto gate = std::make_shared<Gate>();
  const auto one = submit_stuck(gate);
  const auto other = submit_stuck(gate);
  EXPECT_EQ(pool_->threads(), 4U);
  const auto healthy = submit();
  run_until_finished(healthy);
  EXPECT_EQ(healthy->statuses, std::vector<int>{0});
  gate->open();
  run_until_finished(one);
  run_until_finished(other);
  EXPECT_EQ(pool_->threads(), 2U);
  const auto last = submit();
  run_until_finished(last);
  EXPECT_EQ(last->statuses, std::vector<int>{0});
}

TEST_F(WorkPoolTest, ReplacementsAreBounded) {
  make_pool(1, 1);
  const auto gate = std::make_shared<Gate>();
  const auto one = submit_stuck(gate);
  const auto other = submit_stuck(gate);
  EXPECT_EQ(pool_->threads(), 2U);
  const auto starved = submit(20 * kMillisecond);
  run_until_finished(starved);
  EXPECT_EQ(starved->statuses, std::vector<int>{-ETIMEDOUT});
  EXPECT_EQ(starved->runs, 0);
  gate->open();
  run_until_finished(one);
  run_until_finished(other);
}

TEST_F(WorkPoolTest, AJobThatMustRunIsRunLateAndAboveTheBound) {
  make_pool(1, 0, 1);
  const auto gate = std::make_shared<Gate>();
  const auto running = submit(kLater, gate);
  ASSERT_TRUE(eventually([&] { return running->is_started.load(); }));
  const auto queued = submit();
  const auto late = submit(0, nullptr, WhenLate::run);
  run_until([&] { return !late->statuses.empty(); });
  EXPECT_EQ(late->statuses, std::vector<int>{-ETIMEDOUT});
  EXPECT_EQ(late->runs, 0);
  gate->open();
  run_until_finished(late);
  EXPECT_EQ(late->statuses, std::vector<int>{-ETIMEDOUT});
  EXPECT_EQ(late->runs, 1);
  run_until_finished(queued);
}

TEST_F(WorkPoolTest, AJobStartedLateCountsAsStuckFromItsStart) {
  make_pool(1, 1);
  const auto gate = std::make_shared<Gate>();
  const auto late = submit(0, gate, WhenLate::run);
  const auto healthy = submit();
  run_until_finished(healthy);
  EXPECT_EQ(healthy->statuses, std::vector<int>{0});
  gate->open();
  run_until_finished(late);
  EXPECT_EQ(late->statuses, std::vector<int>{-ETIMEDOUT});
}

TEST_F(WorkPoolTest, AHeldJobStartsWhenItIsReleased) {
  make_pool(1);
  const auto record = std::make_shared<Record>();
  const auto held = job(record, 0, nullptr, WhenLate::run);
  pool_->hold(held);
  run_until([&] { return !record->statuses.empty(); });
  EXPECT_EQ(record->statuses, std::vector<int>{-ETIMEDOUT});
  const auto other = submit();
  run_until_finished(other);
  EXPECT_EQ(record->runs, 0);
  pool_->release(held);
  run_until_finished(record);
  EXPECT_EQ(record->runs, 1);
}

TEST_F(WorkPoolTest, StoppingDropsWhatWaitsAndUndoesWhatNobodyHeardOf) {
  make_pool(1);
  const auto gate = std::make_shared<Gate>();
  const auto undelivered = submit();
  const auto running = submit(kLater, gate);
  ASSERT_TRUE(eventually([&] { return running->is_started.load(); }));
  const auto waiting = submit();
  const auto closing = submit(kLater, nullptr, WhenLate::run);
  gate->open();
  pool_.reset();
  EXPECT_EQ(undelivered->discards, 1);
  EXPECT_EQ(closing->runs, 1);
  // Whether the waiting job was begun before the stop is open; it is never completed, though, and
  // undone if it was.
  EXPECT_EQ(waiting->runs, waiting->discards);
  for (const auto& record : {undelivered, running, waiting, closing}) {
    EXPECT_TRUE(record->statuses.empty());
  }
}

TEST_F(WorkPoolTest, AStuckThreadIsLeftBehindAndTouchesOnlyItsJob) {
  patience_ = std::chrono::nanoseconds(0);
  const auto gate = std::make_shared<Gate>();
  make_pool(1);
  const auto stuck = submit_stuck(gate);
  pool_.reset();
  gate->open();
  stuck->destroyed.pass();
  EXPECT_EQ(stuck->runs, 1);
  EXPECT_EQ(stuck->discards, 1);
  EXPECT_EQ(stuck->statuses, std::vector<int>{-ETIMEDOUT});
}

}  // namespace
}  // namespace ncfs

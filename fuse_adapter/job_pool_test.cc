#include "fuse_adapter/job_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <thread>
#include <vector>

namespace ncfs {
namespace {

using std::chrono::seconds;

// Far beyond what any machine needs; a test that waits this long has failed.
constexpr seconds kForever{60};

// Holds the threads that wait for it.
class Barrier {
 public:
  void wait() { open_.wait(); }
  void lift() { promise_.set_value(); }

 private:
  std::promise<void> promise_;
  std::shared_future<void> open_ = promise_.get_future().share();
};

JobPool::Options options(std::size_t threads, std::size_t queue_max, Nanos deadline) {
  return {.name = "test",
          .threads = threads,
          .threads_max = 0,
          .queue_max = queue_max,
          .deadline = deadline};
}

TEST(JobPool, RunsWhatItIsGiven) {
  JobPool pool(options(2, 10, 60 * kSecond));
  std::promise<void> ran;
  EXPECT_TRUE(pool.submit({[&ran] { ran.set_value(); }, [] { FAIL(); }}));
  EXPECT_EQ(ran.get_future().wait_for(kForever), std::future_status::ready);
}

TEST(JobPool, RefusesWhatItsQueueCannotHold) {
  JobPool pool(options(1, 1, 60 * kSecond));
  Barrier barrier;
  std::promise<void> started;
  EXPECT_TRUE(pool.submit({[&] {
                             started.set_value();
                             barrier.wait();
                           },
                           [] {}}));
  started.get_future().wait();
  EXPECT_TRUE(pool.submit({[] {}, [] {}}));
  EXPECT_FALSE(pool.submit({[] {}, [] {}}));
  barrier.lift();
  pool.stop(kForever);
}

TEST(JobPool, ALateJobExpiresOnceWhileItStillRuns) {
  JobPool pool(options(1, 10, 20 * kMillisecond));
  Barrier barrier;
  std::atomic<int> expired{0};
  std::promise<void> first;
  EXPECT_TRUE(pool.submit({[&] { barrier.wait(); },
                           [&] {
                             if (expired++ == 0) first.set_value();
                           }}));
  EXPECT_EQ(first.get_future().wait_for(kForever), std::future_status::ready);
  // Another one expires in the queue, so the watch has looked at the first again.
  std::promise<void> second;
  std::atomic<bool> ran{false};
  EXPECT_TRUE(pool.submit({[&] { ran = true; }, [&] { second.set_value(); }}));
  EXPECT_EQ(second.get_future().wait_for(kForever), std::future_status::ready);
  EXPECT_EQ(expired, 1);
  barrier.lift();
  pool.stop(kForever);
  EXPECT_FALSE(ran);
}

// Each lane is given far more jobs than there are threads, and all of them hang.
TEST(JobPool, LanesThatHangLeaveRoomForAnother) {
  constexpr std::size_t kThreads = 16;
  constexpr int kLanes = 5;
  Barrier barrier;
  std::atomic<int> hanging{0};
  JobPool pool({.name = "test",
                .threads = kThreads,
                .threads_max = 4 * kThreads,
                .queue_max = 4096,
                .deadline = 600 * kSecond});
  for (int lane = 1; lane <= kLanes; ++lane) {
    for (int job = 0; job < 3000; ++job) {
      static_cast<void>(pool.submit({[&] {
                                       ++hanging;
                                       barrier.wait();
                                     },
                                     [] {}, static_cast<JobPool::Lane>(lane)}));
    }
  }
  std::atomic<int> done{0};
  std::promise<void> all;
  for (int job = 0; job < 50; ++job) {
    EXPECT_TRUE(pool.submit({[&] {
                               if (++done == 50) all.set_value();
                             },
                             [] {}, 0}));
  }
  EXPECT_EQ(all.get_future().wait_for(kForever), std::future_status::ready);
  EXPECT_LT(hanging, static_cast<int>(4 * kThreads));
  barrier.lift();
  pool.stop(kForever);
}

TEST(JobPool, OneLaneHasItsShareOfThreadsAndNoMore) {
  constexpr int kThreads = 8;
  Barrier barrier;
  std::atomic<int> running{0};
  std::promise<void> full;
  JobPool pool(options(kThreads, 100, 600 * kSecond));
  for (int job = 0; job < 3 * kThreads; ++job) {
    EXPECT_TRUE(pool.submit({[&] {
                               if (++running == kThreads) full.set_value();
                               barrier.wait();
                             },
                             [] {}}));
  }
  EXPECT_EQ(full.get_future().wait_for(kForever), std::future_status::ready);
  EXPECT_EQ(running, kThreads);
  barrier.lift();
  pool.stop(kForever);
}

TEST(JobPool, JobsThatWereNotStartedAreForgottenAtTheEnd) {
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> watched = held;
  Barrier barrier;
  std::promise<void> started;
  JobPool pool(options(1, 10, 60 * kSecond));
  EXPECT_TRUE(pool.submit({[&] {
                             started.set_value();
                             barrier.wait();
                           },
                           [] {}}));
  started.get_future().wait();
  EXPECT_TRUE(pool.submit({[held = std::move(held)] { FAIL(); }, [] { FAIL(); }}));
  pool.stop(seconds(0));
  EXPECT_TRUE(watched.expired());
  EXPECT_FALSE(pool.submit({[] {}, [] {}}));
  barrier.lift();
  pool.stop(kForever);
}

TEST(JobPool, AThreadThatIsStuckOutlivesThePool) {
  Barrier barrier;
  std::promise<void> started;
  std::promise<void> finished;
  {
    JobPool pool(options(1, 10, 60 * kSecond));
    EXPECT_TRUE(pool.submit({[&] {
                               started.set_value();
                               barrier.wait();
                               finished.set_value();
                             },
                             [] {}}));
    started.get_future().wait();
  }
  barrier.lift();
  EXPECT_EQ(finished.get_future().wait_for(kForever), std::future_status::ready);
}

JobPool::Options with_guests(std::size_t guests, Nanos deadline) {
  return {.name = "test", .threads = 1, .queue_max = 1, .guests = guests, .deadline = deadline};
}

TEST(JobPool, AGuestRunsItsJobItself) {
  JobPool pool(with_guests(1, 60 * kSecond));
  std::thread::id ran_on;
  for (int round = 0; round < 2; ++round) {
    JobPool::Job job{[&ran_on] { ran_on = std::this_thread::get_id(); }, [] { FAIL(); }};
    EXPECT_TRUE(pool.run_here(job));
    EXPECT_EQ(ran_on, std::this_thread::get_id());
  }
}

TEST(JobPool, AGuestTooManyKeepsItsJob) {
  JobPool pool(with_guests(1, 60 * kSecond));
  bool has_run = false;
  JobPool::Job inner{[&has_run] { has_run = true; }, [] {}};
  JobPool::Job outer{[&] { EXPECT_FALSE(pool.run_here(inner)); }, [] {}};
  EXPECT_TRUE(pool.run_here(outer));
  EXPECT_FALSE(has_run);
  inner.run();
  EXPECT_TRUE(has_run);
  pool.stop(kForever);
  EXPECT_FALSE(pool.run_here(inner));
}

TEST(JobPool, AGuestsJobExpiresWhileItStillRuns) {
  JobPool pool(with_guests(1, 20 * kMillisecond));
  std::promise<void> expired;
  JobPool::Job job{
      [&] { EXPECT_EQ(expired.get_future().wait_for(kForever), std::future_status::ready); },
      [&] { expired.set_value(); }};
  EXPECT_TRUE(pool.run_here(job));
}

TEST(JobPool, AGuestOutlivesThePool) {
  auto pool = std::make_unique<JobPool>(with_guests(1, 60 * kSecond));
  JobPool::Job job{[&pool] { pool.reset(); }, [] {}};
  EXPECT_TRUE(pool->run_here(job));
}

}  // namespace
}  // namespace ncfs
